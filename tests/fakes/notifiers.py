"""A medium as its network sees it: what went out, what was taken back, and its faults."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime

from contactd.clock import Clock
from contactd.errors import PermanentFailure, TemporaryFailure
from contactd.routing.notify import Busy, Notification, SendUnknown, Trace
from contactd.tickets.contact import Medium


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    at: datetime
    notification: Notification


@dataclass(slots=True, kw_only=True)
class FakeNotifier:
    """A gateway with switches; look-ups are answered truthfully.

    `down`: it cannot be reached. `hangs`: it takes a message and never answers. `busy`: as many
    as it allows are under way. `refused`: addresses that it never takes. `mute`: so many of the
    next messages it does not confirm. `loses`: what it does not confirm has not gone out either.
    `blind`: it cannot tell what became of a message.
    """

    clock: Clock
    medium: Medium
    network: list[Sent]  # shared by all media: who was told, in order
    stopped: list[str] = field(default_factory=list)  # refs, in order
    down: bool = False
    hangs: bool = False
    busy: bool = False
    mute: int = 0
    loses: bool = False
    blind: bool = False
    refused: set[str] = field(default_factory=set)
    lookups: int = 0

    @property
    def sent(self) -> list[Sent]:
        return [each for each in self.network if each.notification.medium is self.medium]

    async def send(self, notification: Notification) -> None:
        self._reach()
        if self.busy:
            raise Busy("every channel is in use")
        if notification.address in self.refused:
            raise PermanentFailure("this address is refused")
        is_mute, self.mute = self.mute > 0, max(self.mute - 1, 0)
        if not (is_mute and self.loses):
            self.network.append(Sent(at=self.clock.now(), notification=notification))
        if self.hangs:
            await asyncio.Event().wait()
        if is_mute:
            raise SendUnknown("no answer came")

    async def find(self, ref: str) -> Trace:
        self.lookups += 1
        self._reach()
        if self.blind:
            return Trace.UNKNOWN
        has_it = any(each.notification.ref == ref for each in self.sent)
        return Trace.SENT if has_it else Trace.NEVER

    async def stop(self, refs: Collection[str]) -> None:
        self._reach()
        self.stopped += refs

    def _reach(self) -> None:
        if self.down:
            raise TemporaryFailure("the gateway is away")
