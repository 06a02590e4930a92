"""The drawings in docs/states.md are those of the tables in the code."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_drawn_states_are_those_of_the_code() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "diagrams.py"))
    assert (ROOT / "docs" / "states.md").read_text(encoding="utf-8") == script["document"]()
