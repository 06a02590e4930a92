"""What operators and the image get: contactd as scripts/install.sh installs it."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = (
    "contactd", "etc", "scripts", "constraints.txt", "package.json", "package-lock.json",
    "pyproject.toml", "README.md",
)  # fmt: skip
pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Copy what is installed: setuptools' leftovers must not end up in the clone."""
    folder = tmp_path_factory.mktemp("installation")
    source = folder / "source"
    source.mkdir()
    ignore = shutil.ignore_patterns("__pycache__")
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, source / part, ignore=ignore)
        else:
            shutil.copy(ROOT / part, source / part)
    yield source
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def prefix(source: Path) -> Path:
    """Install, outside the source's folder."""
    prefix = source.parent / "contactd"
    done = subprocess.run(
        [source / "scripts" / "install.sh", prefix], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return prefix


def run(prefix: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run an installed program outside the clone, with nothing of this environment but its PATH."""
    return subprocess.run(
        [prefix / "bin" / command[0], *command[1:]],
        cwd=prefix, env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_every_file_of_the_package_is_installed(source: Path, prefix: Path) -> None:
    (installed,) = prefix.glob("lib/python*/site-packages/contactd")
    wanted = {
        path.relative_to(source / "contactd")
        for path in (source / "contactd").rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }
    assert sorted(path for path in wanted if not (installed / path).is_file()) == []


def test_it_has_neither_tests_nor_tools(prefix: Path) -> None:
    listed = run(prefix, "python", "-m", "pip", "list", "--format=freeze").stdout.lower()
    assert "contactd==" in listed
    assert not re.search(r"^(pytest|mypy|ruff|playwright|hypothesis)==", listed, re.MULTILINE)


def test_its_packages_agree_with_each_other(prefix: Path) -> None:
    said = run(prefix, "python", "-m", "pip", "check")
    assert said.returncode == 0, said.stdout


def test_it_makes_a_database_and_loads_the_sample_desk(prefix: Path, tmp_path: Path) -> None:
    config = tmp_path / "contactd.toml"
    sample = (ROOT / "etc" / "contactd.toml").read_text(encoding="utf-8")
    config.write_text(
        sample.replace('data_dir = "var"', f'data_dir = "{tmp_path}"')
        .replace('\nsecret = ""', '\nsecret = "x"'),
        encoding="utf-8",
    )  # fmt: skip
    desk = str(ROOT / "etc" / "desk.toml")
    for command in (("migrate",), ("load", desk), ("oncall", "--at", "2026-12-24T22:00")):
        said = run(prefix, "contactd", *command, "-c", str(config))
        assert said.returncode == 0, said.stderr
        if command[0] == "oncall":
            assert "(wu)" in said.stdout
    assert (tmp_path / "contactd.sqlite3").is_file()
