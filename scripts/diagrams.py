# ruff: noqa: INP001 - a script, not a package
"""Draw the state tables of the code as Mermaid diagrams: rewrites docs/states.md."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

from contactd.telephony import calls
from contactd.tickets import dispatching, remote, states

TARGET = Path(__file__).parents[1] / "docs" / "states.md"
INTRODUCTION = """# States

Drawn by `make diagrams` from the tables in the code; a test compares.
"""


def diagram(title: str, table: Mapping[tuple[StrEnum, StrEnum], StrEnum]) -> str:
    """Return one table as a Mermaid state diagram; actions that lead the same way share a line."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for (state, action), after in table.items():
        arrows.setdefault((state.value, after.value), []).append(action.value)
    lines = [f"    {a} --> {b}: {', '.join(actions)}" for (a, b), actions in arrows.items()]
    return "\n".join([f"\n## {title}\n", "```mermaid", "stateDiagram-v2", *lines, "```", ""])


def document() -> str:
    return (
        INTRODUCTION
        + diagram("A ticket (`contactd/tickets/states.py`)", states.TRANSITIONS)
        + diagram("A dispatch (`contactd/tickets/dispatching.py`)", dispatching.TRANSITIONS)
        + diagram("A remote session (`contactd/tickets/remote.py`)", remote.TRANSITIONS)
        + diagram("A call, live (`contactd/telephony/calls.py`)", calls.TRANSITIONS)
    )


if __name__ == "__main__":
    TARGET.write_text(document(), encoding="utf-8")
