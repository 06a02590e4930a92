"""Gathers what the status page shows: from the database, the PBXs and the rota."""

from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from typing import Final
from zoneinfo import ZoneInfo

from contactd.clock import Clock
from contactd.routing.oncall import Duties, Duty, next_duties, on_duty
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

LEDGER_DAYS: Final = 7
STAGES: Final = {
    TrackedState.RINGING: CallStage.RINGING,
    TrackedState.GREETING: CallStage.GREETING,
    TrackedState.QUEUED: CallStage.QUEUED,
    TrackedState.OFFERED: CallStage.OFFERED,
    TrackedState.TALKING: CallStage.TALKING,
    TrackedState.TRANSFERRED: CallStage.TALKING,
    TrackedState.VOICEMAIL: CallStage.VOICEMAIL,
}


class DeskBoard:
    """See `web.board.Board`."""

    def __init__(
        self,
        *,
        views: Views,
        telephony: Telephony,
        duties: Callable[[], Awaitable[Duties]],
        clock: Clock,
        zone: str,
    ) -> None:
        self._views = views
        self._telephony = telephony
        self._read_duties = duties
        self._clock = clock
        self._zone = zone

    async def snapshot(self) -> BoardSnapshot:
        now = self._clock.now()
        day = now.astimezone(ZoneInfo(self._zone)).date()
        duties = await self._read_duties()
        today = await self._views.today(day, self._zone)
        ledger = await self._views.ledger(day - timedelta(days=LEDGER_DAYS - 1), day)
        sites = [site.key for site in duties.sites]
        return BoardSnapshot(
            at=now,
            sites=tuple(
                BoardSite(key=site.key, name_zh=site.name_zh, name_en=site.name_en)
                for site in duties.sites
            ),
            calls=tuple(self._calls(duties)),
            duties=tuple(_duties(on_duty(duties, site, now) for site in sites)),
            next_duties=tuple(_duties(next_duties(duties, site, now) for site in sites)),
            tickets=BoardTickets(
                states=today.states,
                priorities=today.priorities,
                intake=today.intake,
                latest=tuple(map(_ticket, today.latest)),
            ),
            ledger=tuple(map(_ledger, ledger)),
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
