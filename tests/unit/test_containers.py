"""The Dockerfiles and compose.yaml: well formed, and the same as what the tests set up.

No engine is needed: hadolint is a Python package, and compose.yaml keeps to a small part of YAML
(block mappings and lists, JSON for what stands in one line) that is read here.
"""

import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from contactd.settings import Settings, load

ROOT = Path(__file__).parents[2]
DOCKERFILES = ("Dockerfile", "docker/asterisk.Dockerfile")
WITHOUT_WORK = {"network"}  # only holds the network namespace


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


# YAML, the part of it that compose.yaml uses -----------------------------------------------------

Line = tuple[int, str]  # indentation, text


def parse(text: str) -> Any:
    """Return the document.

    Raises:
        ValueError: it uses more of YAML than this, or says a key twice.
    """
    lines = list(_lines(text))
    value, rest = _block(lines, 0)
    if rest:
        raise ValueError(f"what is this: {rest[0]}")
    return value


def _lines(text: str) -> Iterator[Line]:
    for line in text.splitlines():
        bare = re.sub(r"(^|\s+)# [^\"]*$", "", line).rstrip()
        if "\t" in bare:
            raise ValueError(f"a tab: {line!r}")
        if bare:
            yield len(bare) - len(bare.lstrip()), bare.lstrip()


def _block(lines: list[Line], indent: int) -> tuple[Any, list[Line]]:
    if lines and lines[0][1].startswith("- "):
        items = []
        while lines and lines[0][0] == indent and lines[0][1].startswith("- "):
            items.append(_scalar(lines[0][1].removeprefix("- ")))
            lines = lines[1:]
        return items, lines
    mapping: dict[str, Any] = {}
    while lines and lines[0][0] == indent:
        found = re.fullmatch(r"([A-Za-z0-9_-]+):(?: (.+))?", lines[0][1])
        if not found or found[1] in mapping:
            raise ValueError(f"not `key: value`, or twice: {lines[0][1]!r}")
        lines = lines[1:]
        if found[2] is not None:
            mapping[found[1]] = _scalar(found[2])
        elif lines and lines[0][0] > indent:
            mapping[found[1]], lines = _block(lines, lines[0][0])
        else:
            mapping[found[1]] = None
    return mapping, lines


def _scalar(text: str) -> Any:
    if text[0] in '["{' or text in ("true", "false") or text.isdecimal():
        return json.loads(text)
    if re.search(r"^[&*!|>%@`'?-]|: |,\s|#", text):
        raise ValueError(f"put it into double quotes: {text!r}")
    return text


@pytest.mark.parametrize(
    "text", ["a: 1\na: 2\n", "a: &x 1\n", "a:\n\tb: 1\n", "a: 'b'\n", "a\n", "a: b: c\n", " a: 1\n"]
)
def test_the_reader_refuses_what_it_does_not_understand(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse(text)


def test_the_reader_reads_what_compose_files_are_made_of() -> None:
    assert parse('a:\n  b: "c # d" # e\n  f:\n    - g:/h\n    - ["i", 1]\nj:\nk: true\n') == {
        "a": {"b": "c # d", "f": ["g:/h", ["i", 1]]},
        "j": None,
        "k": True,
    }


# compose.yaml ------------------------------------------------------------------------------------

COMPOSE: Final[Mapping[str, Any]] = parse(text_of("compose.yaml"))
SERVICES: Final[Mapping[str, Mapping[str, Any]]] = COMPOSE["services"]
# Of the Compose Specification, what we use; a misspelt key must not pass.
TOP_KEYS = {"name", "services", "secrets", "volumes"}
SERVICE_KEYS: Final[Mapping[str, type]] = {
    "build": dict, "command": list, "depends_on": dict, "environment": dict, "group_add": list,
    "healthcheck": dict, "hostname": str, "image": str, "init": bool, "network_mode": str,
    "ports": list, "restart": str, "secrets": list, "stop_grace_period": str, "volumes": list,
}  # fmt: skip
HEALTH_KEYS = {"test", "interval", "timeout", "retries", "start_period"}
DURATION = re.compile(r"\d+(ms|s|m)")

service = pytest.mark.parametrize("name", SERVICES)


def dockerfile_of(name: str) -> str:
    build = SERVICES[name].get("build")
    return text_of(build.get("dockerfile", "Dockerfile")) if build else ""


def test_compose_has_the_four_parts_and_a_place_for_them() -> None:
    assert COMPOSE.keys() == TOP_KEYS
    assert SERVICES.keys() == {"network", "asterisk", "contactd", "postgres", "redis"}


@service
def test_a_service_uses_keys_of_the_specification_with_values_of_their_type(name: str) -> None:
    for key, value in SERVICES[name].items():
        assert isinstance(value, SERVICE_KEYS[key]), key
    assert ("image" in SERVICES[name]) != ("build" in SERVICES[name])
    if build := SERVICES[name].get("build"):
        assert build.keys() <= {"context", "dockerfile"}
        assert build["context"] == "."
        assert (ROOT / build.get("dockerfile", "Dockerfile")).is_file()


@service
def test_a_service_is_watched(name: str) -> None:
    check = SERVICES[name].get("healthcheck")
    if check is None:
        assert name in WITHOUT_WORK or "HEALTHCHECK" in dockerfile_of(name)
        return
    assert check.keys() <= HEALTH_KEYS
    assert check["test"][0] == "CMD"
    for key in check.keys() & {"interval", "timeout", "start_period"}:
        assert DURATION.fullmatch(check[key])


@service
def test_a_service_waits_for_services_that_exist_and_can_be_waited_for(name: str) -> None:
    for other, how in SERVICES[name].get("depends_on", {}).items():
        assert other in SERVICES
        assert how["condition"] in ("service_started", "service_healthy")
        if how["condition"] == "service_healthy":
            assert "healthcheck" in SERVICES[other] or "HEALTHCHECK" in dockerfile_of(other)
    mode, _, other = SERVICES[name].get("network_mode", "").partition(":")
    assert (mode == "service" and other in SERVICES) or not mode


@service
def test_a_service_publishes_ports_on_the_loopback_only(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+(/udp)?", port)
    if "ports" in SERVICES[name]:  # the engine refuses both
        assert "network_mode" not in SERVICES[name]


@service
def test_a_service_mounts_what_exists(name: str) -> None:
    for mount in SERVICES[name].get("volumes", []):
        source, target, *options = mount.split(":")
        assert target.startswith("/")
        assert options in ([], ["ro"])
        if source.startswith("."):
            assert (ROOT / source).exists()
        else:
            assert source in COMPOSE["volumes"]


def test_secrets_are_files_that_the_script_makes_and_git_ignores(tmp_path: Path) -> None:
    (tmp_path / "docker").mkdir()
    script = shutil.copy(ROOT / "docker" / "secrets.sh", tmp_path / "docker")
    subprocess.run([script], check=True)
    made = {path.name: path for path in (tmp_path / "var" / "secrets").iterdir()}
    first = {name: path.read_text(encoding="utf-8") for name, path in made.items()}
    subprocess.run([script], check=True)
    assert {name: path.read_text(encoding="utf-8") for name, path in made.items()} == first
    assert made["ami_secret"].parent.stat().st_mode & 0o777 == 0o700
    assert len(set(first.values())) == 3

    used = {secret for each in SERVICES.values() for secret in each.get("secrets", [])}
    assert COMPOSE["secrets"].keys() == used == made.keys()
    for name, secret in COMPOSE["secrets"].items():
        assert secret == {"file": f"./var/secrets/{name}"}
    assert "var/" in text_of(".gitignore").splitlines()


def settings_in_the_container(tmp_path: Path) -> Settings:
    """Return what `docker/contactd.toml` means, with secrets of the test's."""
    for name in ("ami_secret", "database_url"):
        (tmp_path / name).write_text(
            "postgresql://contactd:x@postgres/contactd\n", encoding="utf-8"
        )
    path = tmp_path / "contactd.toml"
    text = text_of("docker/contactd.toml").replace("/run/secrets/", f"{tmp_path}/")
    path.write_text(text, encoding="utf-8")
    return load(path)


def test_the_container_is_configured_for_what_is_around_it(tmp_path: Path) -> None:
    settings, mounts = settings_in_the_container(tmp_path), SERVICES["contactd"]["volumes"]
    (pbx,) = settings.pbx
    pages, mail = SERVICES["network"]["ports"]
    assert pages.endswith(f":{settings.http.port}")
    assert mail.endswith(f":{settings.smtp.port}")
    assert settings.smtp.host == "0.0.0.0"
    assert f":{settings.http.port}/" in SERVICES["contactd"]["healthcheck"]["test"][-1]
    assert settings.redis.url.get_secret_value() == "redis://redis:6379/0"
    assert "@postgres/" in settings.database_url
    assert f"contactd-data:{settings.service.data_dir}" in mounts
    assert f"./etc/desk.toml:{settings.database.desk_file}:ro" in mounts
    # The sample names the file of public holidays beside it.
    assert "./etc/calendars:/etc/contactd/calendars:ro" in mounts
    # Both see Asterisk's folders under Asterisk's own names.
    for volume in ("asterisk-log:/var/log/asterisk", "asterisk-spool:/var/spool/asterisk"):
        assert volume in SERVICES["asterisk"]["volumes"]
        assert f"{volume}:ro" in mounts
    assert str(pbx.cel_path).startswith("/var/log/asterisk/")
    assert str(pbx.queue_log_path).startswith("/var/log/asterisk/")
    assert pbx.files_root == Path("/")
    # One network namespace: the loopback addresses of etc/asterisk/ are right as they are.
    assert SERVICES["asterisk"]["network_mode"] == SERVICES["contactd"]["network_mode"]
    assert (pbx.host, settings.agi.host) == ("127.0.0.1", "127.0.0.1")


def test_contactd_may_read_what_asterisk_writes() -> None:
    (group,) = SERVICES["contactd"]["group_add"]
    assert re.search(rf"groupadd .*--gid {group} asterisk", text_of("docker/asterisk.Dockerfile"))
    assert re.search(rf"groupadd --gid {group} asterisk", text_of("Dockerfile"))


# Dockerfiles -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DOCKERFILES)
def test_hadolint_has_nothing_to_say(name: str) -> None:
    hadolint = ROOT / ".venv" / "bin" / "hadolint"
    assert hadolint.exists(), "hadolint is missing: run scripts/setup.sh"
    said = subprocess.run(
        [hadolint, "--no-color", name], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert said.stdout + said.stderr == ""


def installed(name: str) -> dict[str, set[str]]:
    """Return what each image of a Dockerfile is based on, and what packages it is given."""
    found: dict[str, set[str]] = {}
    text = text_of(name).replace("\\\n", " ")
    for stage in re.split(r"(?m)^FROM ", text)[1:]:
        packages = re.search(r"apt-get install -y --no-install-recommends ([^&\n]+)", stage)
        assert packages is not None
        found.setdefault(stage.split()[0], set()).update(packages[1].split())
    return found


def test_the_images_are_made_of_the_packages_that_the_setup_installs() -> None:
    setup, root = text_of("scripts/setup.sh"), text_of("scripts/asterisk-root.sh")
    needs = re.search(r"(?s)\nneeds=\((.*?)\n\)", setup)
    assert needs is not None
    wanted = set(re.findall(r"/\S+:(\S+)", needs[1]))
    (python,) = re.findall(r"missing\+=\((python3[^)]*)\)", setup)
    wanted |= set(python.split())
    wanted -= {"debootstrap", "util-linux"}  # they build and lock the lab's root
    (asterisk,) = re.findall(r"(?m)^INCLUDE=(\S+)$", root)
    (suite,) = re.findall(r'--include="\$INCLUDE" (\w+)', root)

    daemon, pbx = (installed(name) for name in DOCKERFILES)
    assert pbx.pop(f"debian:{suite}-slim") == set(asterisk.split(","))
    assert daemon.keys() == pbx.keys() == {"debian:bookworm-slim"}
    assert daemon["debian:bookworm-slim"] | pbx["debian:bookworm-slim"] == wanted


def test_the_images_are_made_by_the_scripts_that_the_setup_runs() -> None:
    setup, install = text_of("scripts/setup.sh"), text_of("scripts/install.sh")
    assert "-m pip install -q --disable-pip-version-check -c constraints.txt -e" in setup
    assert "-m pip install -q --disable-pip-version-check -c constraints.txt)" in install
    steps = [
        re.findall(r"(?m)^ *(?:step )?.*?(scripts/[\w-]+\.sh)", text) for text in (setup, install)
    ]
    assert set(steps[0]) - {"scripts/setup.sh", "scripts/asterisk-root.sh"} == set(steps[1]) - {
        "scripts/install.sh"
    }, "the set-up has another step: does scripts/install.sh need it as well?"
    assert "RUN scripts/install.sh /opt/contactd" in text_of("Dockerfile")
    assert "scripts/prompts.py" in setup
    assert "RUN python3 scripts/prompts.py" in text_of("docker/asterisk.Dockerfile")


def test_what_the_images_are_built_from_is_sent_to_the_engine() -> None:
    lines = text_of(".dockerignore").splitlines()
    sent = [line.removeprefix("!") for line in lines if line.startswith("!")]
    needed = {"contactd", "pyproject.toml", "constraints.txt", "package.json", "package-lock.json"}
    needed |= set(re.findall(r"(?<![\w/])scripts/[\w.]+", text_of("Dockerfile")))
    needed |= set(re.findall(r"(?m)^(scripts/[\w.]+)$", text_of("scripts/install.sh")))
    needed |= {tomllib.loads(text_of("pyproject.toml"))["project"]["readme"]}
    for name in DOCKERFILES:
        for copied in re.findall(r"(?m)^COPY (?!--from)(.+) \S+$", text_of(name)):
            needed |= set(copied.split()) - {"."}
    for path in needed:
        assert (ROOT / path).exists(), path
        assert any(path == one or path.startswith(f"{one}/") for one in sent), path
    assert "*" in lines, "nothing else is sent: neither var/secrets nor .git"
