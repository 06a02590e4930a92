"""What linters cannot know: files that must say the same thing do say it."""

import ast
import json
import re
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from datetime import time
from fnmatch import fnmatch
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.metrics import MetricWrapperBase
from pydantic import BaseModel, SecretStr

from contactd import metrics
from contactd.errors import ConfigurationError
from contactd.routing.notify import NEVER_RING, Reason
from contactd.settings import GatewaySettings, PbxSettings, Settings, load
from contactd.telephony.voice import CONTEXTS, PAGE, TELL
from contactd.web.words import COMPONENTS

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "etc" / "contactd.toml"
MANUAL = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")


def text_of(*parts: str) -> str:
    return ROOT.joinpath(*parts).read_text(encoding="utf-8")


# Settings -------------------------------------------------------------------------------------


ANY_GATEWAY = "sms.<gateway>"  # what every gateway has is written down once


def settings_of(name: str, model: type[BaseModel]) -> Iterator[tuple[str, object]]:
    """Yield each setting of a section, and of the sections in it, with its default."""
    for key, field in model.model_fields.items():
        if isinstance(field.default, BaseModel):
            yield from settings_of(f"{name}.{key}", type(field.default))
        else:
            yield key_of(name, key), plain(field.default)


def key_of(section: str, key: str) -> str:
    is_common = section.startswith("sms.") and key in GatewaySettings.model_fields
    return f"{ANY_GATEWAY if is_common else section}.{key}"


def sections() -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in Settings.model_fields.items():
        if name != "pbx":
            assert isinstance(field.annotation, type)
            yield name, field.annotation
    yield "pbx", PbxSettings


def plain(value: object) -> object:
    """Return a default as TOML writes it; None has no form there."""
    match value:
        case SecretStr():
            return value.get_secret_value()
        case Path():
            return str(value)
        case tuple():
            return list(value)
        case time():
            return f"{value:%H:%M}"
        case _:
            return value


def defaults() -> dict[str, object]:
    return {
        key: default
        for section, model in sections()
        for key, default in settings_of(section, model)
    }


def sample() -> dict[str, object]:
    """Return what the sample says; a setting that is commented out counts as None."""
    found: dict[str, object] = {}
    document: dict[str, Any] = tomllib.loads(SAMPLE.read_text(encoding="utf-8"))
    for section, value in document.items():
        (values,) = value if isinstance(value, list) else (value,)
        found |= flat(section, values)
    section = ""
    for line in SAMPLE.read_text(encoding="utf-8").splitlines():
        if head := re.fullmatch(r"\[+([\w.]+)\]+", line):
            section = head[1]
        elif off := re.fullmatch(r"# (\w+) = .+", line):
            found[key_of(section, off[1])] = None
    return found


def flat(section: str, values: Mapping[str, Any]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, item in values.items():
        found |= (
            flat(f"{section}.{key}", item)
            if isinstance(item, dict)
            else {key_of(section, key): item}
        )
    return found


def test_the_sample_configuration_is_every_setting_at_its_default() -> None:
    assert sample() == defaults()


def test_every_setting_of_the_sample_is_explained_by_the_line_above() -> None:
    lines = SAMPLE.read_text(encoding="utf-8").splitlines()
    for above, line in pairwise(lines):
        if re.fullmatch(r"(# )?\w+ = .+", line):
            assert re.fullmatch(r"# .+[.:]|# .+: .+", above), f"no comment above {line!r}"


def test_the_sample_lacks_nothing_but_the_password_of_the_pbx() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(SAMPLE)
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == ["pbx.0"]


def test_the_manual_has_every_setting_with_its_default() -> None:
    rows = re.findall(r"^\| `(\w+\.[\w.<>]+)` \| (?:`(.*?)`|(not set)) \|", MANUAL, re.MULTILINE)
    written = {key: None if unset else json.loads(value) for key, value, unset in rows}
    assert written == defaults()


def program() -> str:
    """Return the daemon's source, but for where settings and metrics are defined."""
    return "\n".join(
        path.read_text(encoding="utf-8")
        for path in sorted((ROOT / "contactd").rglob("*.py"))
        if path.name not in ("settings.py", "metrics.py") and "lab" not in path.parts
    )


def test_every_setting_is_read_by_something() -> None:
    keys = {key.rpartition(".")[2] for key in defaults()}
    # Files with secrets are read by settings.py.
    keys -= {f"{key}_file" for key in keys}
    source = program()
    assert [key for key in sorted(keys) if not re.search(rf"\.{key}\b", source)] == []


# Metrics, alarms, health ----------------------------------------------------------------------


def exported() -> dict[str, tuple[str, ...]]:
    """Return each metric with its labels, named as Prometheus sees it."""
    found = {}
    for value in vars(metrics).values():
        if isinstance(value, MetricWrapperBase):
            (family,) = value.describe()
            name = family.name + ("_total" if family.type == "counter" else "")
            found[name] = tuple(value._labelnames)
    return found


def test_the_manual_has_every_metric_with_its_labels() -> None:
    rows = re.findall(r"^\| `(contactd_\w+)(?:\{([\w,]+)\})?` \|", MANUAL, re.MULTILINE)
    assert {name: tuple(filter(None, labels.split(","))) for name, labels in rows} == exported()


def test_every_metric_is_set_by_something() -> None:
    names = [name for name, value in vars(metrics).items() if isinstance(value, MetricWrapperBase)]
    source = program()
    assert [name for name in names if not re.search(rf"\b{name}\b", source)] == []


def test_every_alarm_is_in_the_manual_and_asks_for_metrics_that_exist() -> None:
    rules = text_of("etc", "prometheus.rules")
    alarms = re.findall(r"- alert: (\w+)", rules)
    assert re.findall(r"^\| `(Contactd\w+)` \|", MANUAL, re.MULTILINE) == alarms
    names = {name.removesuffix("_bucket") for name in re.findall(r"\bcontactd_\w+", rules)}
    assert names <= exported().keys()


def components() -> set[str]:
    """Return the components whose health some part of the daemon reports."""
    found = set()
    for path in (ROOT / "contactd").rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        reported = set(re.findall(r'component=(self\.name|f?"\w+)', source))
        reported |= set(re.findall(r'component = (f?"\w+):', source))
        reported |= set(re.findall(r'super\(\).__init__\(("\w+)", "see ', source))
        if "self.name" in reported:
            reported |= set(re.findall(r'(?m)^    name = "(\w+)"', source))
        found |= {name.removeprefix("f").strip('"') for name in reported - {"self.name"}}
    return found


def test_every_component_is_in_the_manual_and_has_a_name_on_the_status_page() -> None:
    table = MANUAL.partition("## 10. Health")[2].partition("## 11.")[0]
    rows = re.findall(r"^\| `(\w+)(?::NAME)?` \|", table, re.MULTILINE)
    assert sorted(rows) == sorted(components())
    assert components() <= COMPONENTS.keys()
    asked = re.findall(r'component="(\w+)"', text_of("etc", "prometheus.rules"))
    assert set(asked) <= components()


# Dialplan -------------------------------------------------------------------------------------


def asterisk(name: str) -> str:
    """Return a file of `etc/asterisk/` without its comments."""
    lines = text_of("etc", "asterisk", name).splitlines()
    return "\n".join(line for line in lines if not line.startswith(";"))


def dialplan() -> str:
    return asterisk("contactd.conf")


def prompts() -> set[str]:
    table = tomllib.loads(text_of("etc", "prompts.toml"))
    made = {f"n-{number}" for number in range(60)}  # by scripts/prompts.py, without a text
    return made | set(table["contactd"])


def prompts_played() -> set[str]:
    played = set()
    for name in ("contactd.conf", "contactd_queues.conf"):
        for line in asterisk(name).splitlines():
            # `contactd/menu` and `contactd/${IF(…?menu:…)}`; of `contactd/site-${…}` see below.
            played |= set(re.findall(r"(?<![\w}])contactd/([a-z0-9-]+[a-z0-9])(?![\w-]*\$)", line))
            for choice in re.findall(r"contactd/\$\{IF\((.*)", line):
                played |= set(re.findall(r"[?:]([a-z][a-z-]*[a-z])(?=[:)}])", choice))
    return played


def test_the_dialplan_plays_only_prompts_that_are_in_the_table() -> None:
    played = prompts_played()
    assert {"consent", "joined-ticket", "your-ticket-is", "page-failed", "an-engineer"} <= played
    assert played - prompts() == set()


def test_the_dialplan_has_words_for_every_reason_to_ring_and_for_what_a_key_did() -> None:
    said = {PAGE: "page", TELL: "tell"}  # a call-back says the same whatever its reason
    about = {
        f"{said[context]}-{reason}"
        for reason in set(Reason) - NEVER_RING
        if (context := CONTEXTS.get(reason, PAGE)) in said
    }
    done = {"page-taken", "page-passed", "page-on-way", "page-late"}
    done |= {"confirm-closed", "confirm-reopened", "confirm-late", "confirm-failed"}
    assert {"page-new", "tell-code"} <= about
    assert (about | done) - prompts() == set()


def test_speech_says_only_prompts_that_are_in_the_table() -> None:
    said = words_said(ast.parse(text_of("contactd", "telephony", "speech.py")))
    assert {"progress-is", "state-*", "person-*", "am", "month-*"} <= said, "change this test"
    for word in said - {"*", "person-*"}:  # see contactd-person in the dialplan
        assert any(fnmatch(name, word) for name in prompts()), word


def words_said(tree: ast.AST) -> set[str]:
    """Return what `prompt(…)` is called with anywhere; what is computed counts as `*`."""
    said: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="prompt"), args=[argument]):
                said |= set(words(argument))
            case ast.Assign(targets=[ast.Name(id="name")], value=value):
                said |= set(words(value))
            case _:
                pass
    return said


def words(node: ast.expr) -> Iterator[str]:
    match node:
        case ast.Constant(value=str(word)):
            yield word
        case ast.JoinedStr(values=parts):
            yield "".join("".join(words(part)) for part in parts)
        case ast.IfExp(body=body, orelse=orelse):
            yield from (*words(body), *words(orelse))
        case _:
            yield "*"


def test_every_site_of_the_sample_desk_has_its_prompt_and_its_queue() -> None:
    sites = tomllib.loads(text_of("etc", "desk.toml"))["sites"]
    queues = re.findall(r"(?m)^\[(\w+)\]\(contactd\)", asterisk("contactd_queues.conf"))
    assert {f"site-{site['key']}" for site in sites} <= prompts()
    assert {site.get("queue", site["key"]) for site in sites} <= set(queues)
    assert Settings().hotline.default_queue in queues


def test_the_dialplan_asks_exactly_the_questions_that_contactd_answers() -> None:
    asked = set(re.findall(r"Gosub\(contactd-ask,s,1\((\w+),", dialplan()))
    answered = set(re.findall(r'"(\w+)": self\.\1', text_of("contactd", "telephony", "ivr.py")))
    assert asked == answered


def test_every_option_of_the_dialplan_exists_and_is_used() -> None:
    options = dict(re.findall(r"(?m)^([A-Z_]+)=(.*)$", asterisk("contactd_globals.conf")))
    used = set(re.findall(r"\$\{([A-Z_]+)[:}]", dialplan()))
    assert options.keys() - used == set(), "options that nothing reads"
    ours = {
        name for name in used if re.match(r"(QUEUE|OFFER|VOICEMAIL|MENU|PASS|BUSY)_[A-Z]", name)
    }
    assert ours - options.keys() <= {"QUEUE_EXISTS", "QUEUE_MEMBER", "QUEUE_MAX_PENALTY"}
    settings = Settings()
    assert options["CONTACTD_AGI"] == f"{settings.agi.host}:{settings.agi.port}"
    assert options["DEFAULT_QUEUE"] == settings.hotline.default_queue


def test_the_sample_pbx_is_called_what_the_settings_call_it() -> None:
    (name,) = re.findall(r"(?m)^systemname = (\S+)$", asterisk("asterisk.conf"))
    assert name == PbxSettings.model_fields["name"].default


# What is committed ----------------------------------------------------------------------------


def committed() -> list[Path]:
    """Return what is in git, or would be with `git add`."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


# Written in pieces, or this file would name them.
HOSTS = (
    "pypi" + ".org", "pythonhosted" + ".org", "npmjs" + ".org", "npmjs" + ".com",
    "yarnpkg" + ".com", "npmmirror" + ".com", "debian" + ".org", "docker" + ".io", "ghcr" + ".io",
    "quay" + ".io", "mirrors" + ".aliyun", "tuna" + ".tsinghua",
)  # fmt: skip
FOLDERS = re.compile(r"(?<![\w.}\"'$])/(?:work|root|home/\w+)/")


@pytest.mark.parametrize("path", committed(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_committed_file_names_a_registry_or_a_folder_of_one_machine(path: Path) -> None:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return  # a picture or a sound
    assert [host for host in HOSTS if host in text] == []
    assert FOLDERS.findall(text) == []


def test_the_lock_file_of_npm_names_no_place_to_fetch_from() -> None:
    lock = json.loads(text_of("package-lock.json"))
    assert [name for name, package in lock["packages"].items() if "resolved" in package] == []
