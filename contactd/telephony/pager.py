"""Rings the people on duty about a ticket that nobody has taken, one after the other.

A page is a call to one person through the PBX; the digit 1 takes the ticket. What makes it safe to
repeat is the channel's id, chosen by us: it is looked up in the PBX's live channels and in its
records before anything is dialled a second time.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Protocol

from contactd.clock import Clock
from contactd.errors import TemporaryFailure
from contactd.log import get_logger
from contactd.metrics import PAGES
from contactd.routing.oncall import Engineer, Rota, on_duty
from contactd.tickets.events import PageDue
from contactd.tickets.states import State

log = get_logger()


class PageState(StrEnum):
    QUEUED = "queued"  # decided, not dialled
    SENDING = "sending"  # handed to the PBX: after a crash the outcome is unknown
    SENT = "sent"  # the PBX has dialled
    FAILED = "failed"
    TAKEN = "taken"
    PASSED = "passed"


UNSETTLED: Final = frozenset({PageState.QUEUED, PageState.SENDING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One attempt to reach one person. `ref` is the channel's id and the dedup key."""

    ref: str
    ticket_id: int
    ticket: str
    engineer: str
    address: str
    state: PageState


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a page is about, as it is now."""

    ticket: str
    state: State
    site: str
    vip: bool
    pbx: str


class PageBook(Protocol):
    async def subject(self, due: PageDue) -> Subject | None: ...

    async def begin(self, due: PageDue, page: Page, *, next_due: datetime | None) -> Page:
        """Store the page and the timer of the next step, in one transaction; return it as stored.

        Twice with the same `ref`: the stored one is returned and nothing is changed.
        """
        ...

    async def find(self, ref: str) -> Page | None: ...

    async def note(self, ref: str, state: PageState, detail: str = "") -> None: ...

    async def hurry(self, ref: str, now: datetime) -> None:
        """The person passed: make the next step of this page due now."""
        ...

    async def exhausted(self, due: PageDue) -> None:
        """Write on the journal that nobody could be reached."""
        ...


class Dial(Protocol):
    """What the pager asks of a PBX; `Pbx` is one."""

    @property
    def connected(self) -> bool: ...

    async def page(self, page: Page, *, engineer: Engineer, subject: Subject) -> None:
        """Ring the person, once per `page.ref` for ever.

        Raises:
            TemporaryFailure: not dialled, or not known whether it was: ask again with the same ref.
        """
        ...


class Pager:
    """The handler of `PageDue`, and of the keys that people press."""

    def __init__(
        self,
        *,
        book: PageBook,
        rota: Callable[[], Awaitable[Rota]],
        take: Callable[[int, str], Awaitable[bool]],
        lines: Mapping[str, Dial],
        clock: Clock,
        next_after: timedelta,
        rounds: int,
    ) -> None:
        self._book = book
        self._rota = rota
        self._take = take
        self._lines = lines
        self._clock = clock
        self._next_after = next_after
        self._rounds = rounds

    async def page(self, due: PageDue) -> None:
        """Ring the person whose turn it is and arm the next step.

        Raises:
            TemporaryFailure: no PBX to ring through, or the outcome is unknown; repeat.
        """
        subject = await self._book.subject(due)
        if subject is None or subject.state is not State.NEW:
            return  # taken, or over: nothing is left to do
        rota = await self._rota()
        duties = on_duty(rota, subject.site, self._clock.now())
        if due.step >= self._rounds * len(duties):
            await self._book.exhausted(due)
            PAGES.labels(outcome="exhausted").inc()
            log.error("page.exhausted", ticket=subject.ticket, steps=due.step)
            return
        line = self._line(subject.pbx)
        engineer = duties[due.step % len(duties)].engineer
        page = await self._book.begin(
            due,
            Page(
                ref=f"page-{due.contact_id}-{due.step}",
                ticket_id=due.ticket_id,
                ticket=subject.ticket,
                engineer=engineer.key,
                address=engineer.number,
                state=PageState.QUEUED,
            ),
            next_due=self._clock.now() + self._next_after,
        )
        if page.state not in UNSETTLED:
            return
        await self._book.note(page.ref, PageState.SENDING)
        await line.page(page, engineer=engineer, subject=subject)
        await self._book.note(page.ref, PageState.SENT)
        PAGES.labels(outcome="sent").inc()
        log.info("page.sent", ticket=subject.ticket, engineer=engineer.key, step=due.step)

    async def answer(self, ref: str, digit: str) -> str:
        """Return what the person hears after pressing `digit`: taken, passed or late."""
        page = await self._book.find(ref)
        if page is None:
            return "late"
        if digit == "1":
            won = await self._take(page.ticket_id, page.engineer)
            await self._book.note(ref, PageState.TAKEN if won else PageState.SENT)
            PAGES.labels(outcome="taken" if won else "late").inc()
            return "taken" if won else "late"
        if digit == "2":
            await self._book.note(ref, PageState.PASSED)
            await self._book.hurry(ref, self._clock.now())
        PAGES.labels(outcome="passed").inc()
        return "passed"

    def _line(self, pbx: str) -> Dial:
        """Return the PBX to ring through: the call's own, else any that is connected."""
        candidates = [self._lines[pbx]] if pbx in self._lines else []
        candidates += [line for name, line in self._lines.items() if name != pbx]
        for line in candidates:
            if line.connected:
                return line
        raise TemporaryFailure("no PBX is connected to ring through")
