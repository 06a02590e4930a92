"""Priority from impact and urgency (ITIL 4's matrix), with the reason in words."""

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from typing import Final


class Impact(IntEnum):
    COMPANY = 1
    DEPARTMENT = 2
    PERSON = 3


class Urgency(IntEnum):
    HIGH = 1  # work has stopped
    MEDIUM = 2  # work is hindered
    LOW = 3  # can wait


class Priority(StrEnum):
    P1 = "P1"
    P2 = "P2"
    P3 = "P3"
    P4 = "P4"


Matrix = Mapping[tuple[Impact, Urgency], Priority]

MATRIX: Final[Matrix] = {
    (Impact.COMPANY, Urgency.HIGH): Priority.P1,
    (Impact.COMPANY, Urgency.MEDIUM): Priority.P2,
    (Impact.COMPANY, Urgency.LOW): Priority.P3,
    (Impact.DEPARTMENT, Urgency.HIGH): Priority.P2,
    (Impact.DEPARTMENT, Urgency.MEDIUM): Priority.P3,
    (Impact.DEPARTMENT, Urgency.LOW): Priority.P3,
    (Impact.PERSON, Urgency.HIGH): Priority.P3,
    (Impact.PERSON, Urgency.MEDIUM): Priority.P3,
    (Impact.PERSON, Urgency.LOW): Priority.P4,
}


def priority(
    impact: Impact, urgency: Urgency, *, vip: bool, matrix: Matrix = MATRIX
) -> tuple[Priority, str]:
    """Return the priority and why; a VIP raises the urgency by one step (requirement B3)."""
    raised = Urgency(max(urgency - 1, Urgency.HIGH)) if vip else urgency
    reason = f"impact {impact.name.lower()}, urgency {raised.name.lower()}"
    if raised is not urgency:
        reason += " (raised by one: VIP)"
    return matrix[impact, raised], reason
