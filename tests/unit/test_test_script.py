"""`make test` may try a few failures once more; nothing that is broken passes by that."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STORIES = """
import pathlib, pytest

@pytest.mark.parametrize("number", range(8))
def test_one(number):
    left = pathlib.Path("left-{}".format(number))
    if left.exists() and (tries := int(left.read_text())):
        left.write_text(str(tries - 1))
        pytest.fail("as it was told")
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with eight tests; `left-3` says how often the fourth is still to fail."""
    for folder in ("scripts", "tests"):
        (tmp_path / folder).mkdir()
    shutil.copy(ROOT / "scripts/test.sh", tmp_path / "scripts")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "tests/test_stories.py").write_text(STORIES)
    return tmp_path


def run(project: Path, *, workers: int = 0, **fails: int) -> subprocess.CompletedProcess[str]:
    for name, times in fails.items():
        (project / name.replace("_", "-")).write_text(str(times))
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return subprocess.run(
        [project / "scripts/test.sh", str(workers)],
        capture_output=True,
        text=True,
        env=env,
        check=False,
    )


def test_what_fails_once_is_named_and_no_failure(project: Path) -> None:
    done = run(project, left_3=1, left_5=1)
    assert done.returncode == 0
    assert "2 failed, 6 passed" in done.stdout
    assert "2 passed" in done.stdout
    *_, first, second = done.stderr.splitlines()
    assert "UNSTEADY" in done.stderr
    assert (first, second) == tuple(f"tests/test_stories.py::test_one[{n}]" for n in (3, 5))


def test_what_fails_twice_is_a_failure_of_this_run_and_not_of_the_next(project: Path) -> None:
    assert run(project, left_3=1, left_5=2).returncode == 1
    done = run(project)
    assert done.returncode == 0
    assert done.stdout.count("passed") == 1
    assert done.stderr == ""


def test_more_than_a_few_that_fail_are_not_tried_again(project: Path) -> None:
    done = run(project, **{f"left_{number}": 1 for number in range(6)})
    assert done.returncode == 1
    assert "6 failed, more than the 5" in done.stderr
    assert done.stdout.count("passed") == 1


def test_what_cannot_be_read_is_a_failure(project: Path) -> None:
    (project / "tests/test_broken.py").write_text("import nothing_of_that_name")
    assert run(project).returncode != 0


def test_workers_that_collect_different_tests_are_a_failure(project: Path) -> None:
    story = (
        "import os, pytest\n@pytest.mark.parametrize('who', [os.getpid()])\ndef test_me(who): ..."
    )
    (project / "tests/test_different.py").write_text(story)
    assert run(project, workers=2).returncode != 0
