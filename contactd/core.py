"""The part of the program that needs no wire: tickets, routing, and what comes due."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final, Generic, TypeVar

from contactd.clock import Clock
from contactd.routing.closing import Quiet
from contactd.routing.follow_up import FollowUp, FollowUpSettings
from contactd.routing.following import Watch, present
from contactd.routing.notify import Notifiers
from contactd.routing.replying import Replying
from contactd.settings import Settings
from contactd.signals import Signals
from contactd.store.duty import LastDuties
from contactd.store.engine import Database
from contactd.store.outbox import Handlers
from contactd.store.terms import LastTerms
from contactd.tickets.events import (
    DutyDue,
    EscalationDue,
    GroupDue,
    NoticeDue,
    NoticesStopped,
    TicketDue,
)
from contactd.tickets.model import TicketPolicy
from contactd.tickets.service import TicketService

FRESH_FOR: Final = timedelta(seconds=1)

T = TypeVar("T")


class Fresh(Generic[T]):
    """Reads something again only after a while: a burst of tickets asks for it many times."""

    def __init__(self, read: Callable[[], Awaitable[T]], clock: Clock) -> None:
        self._read = read
        self._clock = clock
        self._last: tuple[datetime, T] | None = None
        self._forgotten = 0  # how often: what is being read meanwhile is old, too
        self._turn = asyncio.Lock()  # who comes while it is being read waits for that

    async def __call__(self) -> T:
        async with self._turn:
            now = self._clock.now()
            if self._last is not None and now - FRESH_FOR < self._last[0] <= now:
                return self._last[1]
            forgotten = self._forgotten
            found = await self._read()
            self._last = (now, found) if forgotten == self._forgotten else None
            return found

    def forget(self) -> None:
        self._forgotten += 1
        self._last = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    tickets: TicketService
    follow_up: FollowUp
    replying: Replying  # what people write back, by text and mail
    duties: LastDuties
    terms: LastTerms
    handlers: Handlers  # of what comes due


def core(  # noqa: PLR0913 - what a program is made of
    settings: Settings,
    *,
    database: Database,
    clock: Clock,
    signals: Signals,
    duties: LastDuties,
    notifiers: Notifiers,
) -> Core:
    """Put the parts together; `notifiers` may still be filled until the first event comes due."""
    tickets = TicketService(
        partial(database.new_work, urgent=True), clock, policy(settings), on_commit=signals.raise_
    )
    terms = LastTerms(
        database,
        answer=timedelta(seconds=settings.tickets.answer_within_s),
        remote=timedelta(seconds=settings.tickets.remote_within_s),
    )

    async def on_watch() -> Watch:
        found = await duties()
        return Watch(duties=found, present=present(found, clock.now()))

    fresh = Fresh(on_watch, clock)
    follow_up = FollowUp(
        new_work=database.new_work,
        tickets=tickets,
        terms=terms,
        watch=fresh,
        notifiers=notifiers,
        clock=clock,
        settings=FollowUpSettings(
            redial_within=timedelta(seconds=settings.hotline.redial_within_s),
            zone=settings.service.zone,
            language=settings.service.language,
            quiet=Quiet(starts=settings.sms.quiet_from, ends=settings.sms.quiet_until),
        ),
        on_commit=signals.raise_,
    )

    async def duty_due(event: DutyDue) -> None:
        fresh.forget()
        await follow_up.duty_due(event)

    handlers: Handlers = {
        TicketDue: follow_up.ticket_due,
        EscalationDue: follow_up.escalation_due,
        GroupDue: follow_up.group_due,
        DutyDue: duty_due,
        NoticeDue: follow_up.notice_due,
        NoticesStopped: follow_up.notices_stopped,
    }
    return Core(
        tickets=tickets,
        follow_up=follow_up,
        replying=Replying(
            new_work=database.new_work,
            tickets=tickets,
            follow_up=follow_up,
            watch=fresh,
            clock=clock,
        ),
        duties=duties,
        terms=terms,
        handlers=handlers,
    )


def policy(settings: Settings) -> TicketPolicy:
    return TicketPolicy(
        zone=settings.service.zone,
        language=settings.service.language,
        join_within=timedelta(seconds=settings.tickets.join_within_s),
        default_queue=settings.hotline.default_queue,
    )
