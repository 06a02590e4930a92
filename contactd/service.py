"""What the daemon asks of each of its parts."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class HealthState(StrEnum):
    UP = "up"
    DEGRADED = "degraded"  # works, but something it leans on is away
    DOWN = "down"


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How one component is doing, as the status page shows it.

    `component` is a stable key (`database`, `outbox`, `pbx:pbx1`, …), `detail` one line for the
    operator that names the remedy when something is wrong.
    """

    component: str
    state: HealthState
    detail: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)


class Service(Protocol):
    @property
    def name(self) -> str: ...

    def running(self) -> AbstractAsyncContextManager[None]:
        """Return a block: inside it the service accepts work, leaving it drains what is in hand."""
        ...

    def health(self) -> list[Health]:
        """Return the state of each component; never waits and never raises."""
        ...
