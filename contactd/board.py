"""Gathers what the status page shows: from the database, the PBXs and the rota."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from contactd.clock import Clock
from contactd.errors import TemporaryFailure
from contactd.log import get_logger
from contactd.routing.oncall import Duties, Duty, next_duties, on_duty
from contactd.service import Health
from contactd.store.boardviews import BoardViews, Figures, IntakeCount
from contactd.store.ledger import LedgerDay
from contactd.store.views import TicketView, Views
from contactd.telephony.calls import LiveCall as TrackedCall
from contactd.telephony.calls import State as TrackedState
from contactd.telephony.service import Telephony
from contactd.tickets.contact import Filed
from contactd.web.board import (
    BoardDuty,
    BoardLedger,
    BoardSite,
    BoardSnapshot,
    BoardTicket,
    BoardTickets,
    CallStage,
    LiveCall,
)

log = get_logger()

LEDGER_DAYS: Final = 7
LATEST: Final = 60  # tickets; a page of a few sites shows what is theirs of them
FIRST_COUNT_S: Final = 0.3  # so long a page waits for it; of a million tickets it takes seconds
COUNTED_EVERY: Final = timedelta(minutes=1)  # what a month and four weeks have to be read for
STAGES: Final = {
    TrackedState.RINGING: CallStage.RINGING,
    TrackedState.GREETING: CallStage.GREETING,
    TrackedState.QUEUED: CallStage.QUEUED,
    TrackedState.OFFERED: CallStage.OFFERED,
    TrackedState.TALKING: CallStage.TALKING,
    TrackedState.TRANSFERRED: CallStage.TALKING,
    TrackedState.VOICEMAIL: CallStage.VOICEMAIL,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counted:
    """What is not worked out anew for each change."""

    at: datetime
    day: date
    figures: Figures
    usual: tuple[IntakeCount, ...]


class DeskBoard:
    """See `web.board.Board`. As a service it counts the slow figures anew, beside the snapshots."""

    name = "board"

    def __init__(  # noqa: PLR0913 - the composition root's words
        self,
        *,
        views: Views,
        counts: BoardViews,
        telephony: Telephony,
        duties: Callable[[], Awaitable[Duties]],
        clock: Clock,
        zone: str,
    ) -> None:
        self._views = views
        self._counts = counts
        self._telephony = telephony
        self._read_duties = duties
        self._clock = clock
        self._zone = zone
        self._counted: _Counted | None = None
        self._wanted = asyncio.Event()
        self._has_counted = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            counting = tasks.create_task(self._keep_counting(), name="board-figures")
            try:
                yield
            finally:
                counting.cancel()

    def health(self) -> list[Health]:
        return []

    async def _keep_counting(self) -> None:
        while True:
            await self._wanted.wait()  # nobody looks: cost nothing
            self._wanted.clear()
            try:
                await self._count()
            except TemporaryFailure as failure:
                log.warning("board.not_counted", reason=str(failure))

    async def _count(self) -> None:
        now = self._clock.now()
        day = now.astimezone(ZoneInfo(self._zone)).date()
        last = self._counted
        # What was usual stays so until midnight.
        usual = last.usual if last and last.day == day else await self._counts.usual(day)
        figures = await self._counts.figures(now)
        self._counted = _Counted(at=now, day=day, figures=figures, usual=usual)
        self._has_counted.set()

    async def _last_counted(self, now: datetime) -> _Counted | None:
        """Return the slow figures as they are known; the first page waits a little."""
        if self._counted is None or now - self._counted.at >= COUNTED_EVERY:
            self._wanted.set()
        if self._counted is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(FIRST_COUNT_S):
                    await self._has_counted.wait()
        return self._counted

    async def snapshot(self) -> BoardSnapshot:
        now = self._clock.now()
        day = now.astimezone(ZoneInfo(self._zone)).date()
        duties = await self._read_duties()
        look = await self._counts.look(now)
        latest = await self._views.latest(day, self._zone, LATEST)
        counted = await self._last_counted(now)
        ledger = await self._views.ledger(day - timedelta(days=LEDGER_DAYS - 1), day)
        sites = [site.key for site in duties.sites]
        return BoardSnapshot(
            at=now,
            sites=tuple(
                BoardSite(
                    key=site.key, name_zh=site.name_zh, name_en=site.name_en, queue=site.queue
                )
                for site in duties.sites
            ),
            calls=tuple(self._calls(duties)),
            duties=tuple(_duties(on_duty(duties, site, now) for site in sites)),
            next_duties=tuple(_duties(next_duties(duties, site, now) for site in sites)),
            tickets=BoardTickets(
                counts=look.counts,
                open=look.open,
                intake=look.intake,
                latest=tuple(map(_ticket, latest)),
            ),
            ledger=tuple(map(_ledger, ledger)),
            risks=look.risks,
            breached=look.breached,
            usual=counted.usual if counted else (),
            figures=counted.figures if counted else None,
        )

    def _calls(self, duties: Duties) -> Iterable[LiveCall]:
        names = {engineer.key: engineer.name for engineer in duties.engineers}
        for pbx in self._telephony.pbxs.values():
            for call, filed in pbx.live_calls():
                if call.state in STAGES:
                    yield _call(call, filed, names)


def _call(call: TrackedCall, filed: Filed | None, names: dict[str, str]) -> LiveCall:
    engineers = call.offered or ((call.engineer,) if call.engineer else ())
    return LiveCall(
        call_id=call.call_id,
        stage=STAGES[call.state],
        since=call.since,
        arrived_at=call.arrived_at,
        caller=call.caller,
        name=call.name,
        site=filed.site if filed else "",
        ticket=filed.ticket if filed else "",
        engineer=", ".join(names.get(key, key) for key in engineers),
        queue=call.queue,
    )


def _duties(found: Iterable[Iterable[Duty]]) -> Iterable[BoardDuty]:
    for duties in found:
        for duty in duties:
            yield BoardDuty(
                site=duty.site,
                tier=duty.tier,
                engineer=duty.engineer.name,
                why=duty.why,
                since=duty.since,
                until=duty.until,
            )


def _ticket(ticket: TicketView) -> BoardTicket:
    return BoardTicket(
        number=ticket.number,
        opened_at=ticket.opened_at,
        caller=ticket.caller,
        site=ticket.site,
        state=ticket.state,
        priority=ticket.priority,
        engineer=ticket.engineer_name or ticket.engineer,
        title=ticket.title,
    )


def _ledger(entry: LedgerDay) -> BoardLedger:
    return BoardLedger(
        day=entry.day,
        medium=entry.medium,
        source=entry.source,
        outside=entry.outside,
        contacts=entry.contacts,
        missing=len(entry.missing),
        extra=len(entry.extra),
        repaired=len(entry.repaired),
    )
