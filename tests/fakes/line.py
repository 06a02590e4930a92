"""A PBX as far as calls to people go: it notes whom it rings, or fails when told to."""

from collections.abc import Collection
from dataclasses import dataclass, field

from contactd.errors import TemporaryFailure
from contactd.routing.notify import Busy, Notification


@dataclass(slots=True, kw_only=True)
class FakeLine:
    """`down`: no link to the PBX. `full`: as many calls as allowed are under way."""

    name: str = "pbx1"
    down: bool = False
    full: bool = False
    failure: Exception | None = None  # raised by `dial`
    dialled: list[str] = field(default_factory=list)  # refs, in order
    hung_up: list[str] = field(default_factory=list)

    @property
    def connected(self) -> bool:
        return not self.down

    async def dial(self, notification: Notification) -> None:
        self._reach()
        if self.full:
            raise Busy("full")
        if self.failure is not None:
            raise self.failure
        self.dialled.append(notification.ref)

    async def has_dialled(self, ref: str) -> bool:
        if ref in self.dialled:
            return True
        self._reach()
        return False

    async def hang_up(self, refs: Collection[str]) -> None:
        self._reach()
        self.hung_up += [ref for ref in refs if ref in self.dialled]

    def _reach(self) -> None:
        if self.down:
            raise TemporaryFailure(f"{self.name} is away")
