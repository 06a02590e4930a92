"""Public holidays: what an import moves, and the alarm while the coming year is not settled."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from sqlalchemy import bindparam, select
from sqlalchemy.ext.asyncio import AsyncConnection

from contactd.clock import Clock
from contactd.errors import TemporaryFailure
from contactd.log import get_logger
from contactd.routing import promises
from contactd.routing.calendars import HolidayData, needs_confirmation, read_calendar_data
from contactd.routing.clocks import Clock as TicketClock
from contactd.routing.clocks import State
from contactd.routing.terms import Terms, calendars
from contactd.service import Health, HealthState
from contactd.store import duty
from contactd.store import terms as stored
from contactd.store.engine import Database
from contactd.store.schema import holidays, journal, tickets
from contactd.tickets.journal import Entry
from contactd.tickets.states import OPEN

log = get_logger()

LOOK_EVERY_S: Final = 3600.0
REMEDY: Final = "import the file of the next year: contactd calendar import FILE"

_CHUNK: Final = 400  # values in one IN (…)
_OPEN: Final = (
    select(tickets.c.id, tickets.c.number)
    .where(tickets.c.state.in_(sorted(state.value for state in OPEN)))
    .order_by(tickets.c.number)
)
_JOURNALS: Final = (
    select(journal)
    .where(journal.c.ticket_id.in_(bindparam("ids", expanding=True)))
    .order_by(journal.c.ticket_id, journal.c.seq)
)
_IMPORTED: Final = select(holidays.c.imported_at).where(holidays.c.key == stored.HOLIDAYS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """When a promise of an open ticket is due; `at` None while its clock is paused."""

    ticket: str  # number
    metric: str
    entry: int  # of the clock
    at: datetime | None
    provisional: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A deadline that an import changes: when it is due, or whether that is settled."""

    before: Deadline
    after: Deadline


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """What a file changes; `tickets` is how many are open, 0 if it was only looked at."""

    confirmed_through: date
    moves: tuple[Move, ...]
    tickets: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far public holidays are settled, and the open deadlines that rest on more than that."""

    confirmed_through: date | None  # None if none were ever imported
    imported_at: datetime | None
    provisional: tuple[Deadline, ...]


async def preview(database: Database, body: str, terms: Terms) -> Import:
    """Return which deadlines of open tickets a file of public holidays would move.

    Raises:
        ConfigurationError: every error in the file, one a line.
        TemporaryFailure: the database is away.
    """
    data = read_calendar_data(body)
    async with database.reading() as connection:
        moves = await _moves(connection, terms, await _with(connection, data, terms))
    return Import(confirmed_through=data.confirmed_through, moves=tuple(moves))


async def apply(database: Database, body: str, terms: Terms, clock: Clock) -> Import:
    """Put the file in force: each open ticket computes its deadlines anew, at once.

    Raises:
        ConfigurationError: every error in the file, one a line; nothing was stored.
        TemporaryFailure: nothing was stored.
    """
    # What moves is for people to read: it need not hold up who files a contact meanwhile.
    found = await preview(database, body, terms)
    async with database.new_work() as work:
        connection, now = work.connection, clock.now()
        await stored.put_holidays(connection, body, read_calendar_data(body), now)
        looked_at = await stored.look_at_open_tickets(connection, now)
        await duty.resolve(work, clock)  # people are on duty by calendars, too
        await work.commit()
    through = str(found.confirmed_through)
    log.info("calendar.imported", confirmed_through=through, moved=len(found.moves))
    return replace(found, tickets=looked_at)


async def standing(database: Database, terms: Terms) -> Standing:
    """Return how far public holidays are settled.

    Raises:
        TemporaryFailure: the database is away.
    """
    async with database.reading() as connection:
        imported_at = (await connection.execute(_IMPORTED)).scalar_one_or_none()
        deadlines = await _deadlines(connection, terms)
    return Standing(
        confirmed_through=terms.holidays.confirmed_through if terms.holidays else None,
        imported_at=imported_at,
        provisional=tuple(each for each in deadlines if each.provisional),
    )


async def _with(connection: AsyncConnection, data: HolidayData, terms: Terms) -> Terms:
    """Return `terms` as they would be with other public holidays."""
    versions = await stored.versions(connection)
    return replace(terms, calendars=calendars(versions, data), holidays=data)


async def _moves(connection: AsyncConnection, before: Terms, after: Terms) -> list[Move]:
    old, new = [
        {(each.ticket, each.metric, each.entry): each for each in found}
        for found in (await _deadlines(connection, before), await _deadlines(connection, after))
    ]
    return [
        Move(before=old[key], after=deadline)
        for key, deadline in new.items()
        if key in old and old[key] != deadline
    ]


async def _deadlines(connection: AsyncConnection, terms: Terms) -> list[Deadline]:
    """Return the deadlines of the open tickets, by number and start."""
    numbers = {row.id: row.number for row in await connection.execute(_OPEN)}
    found: list[Deadline] = []
    ids = list(numbers)
    for start in range(0, len(ids), _CHUNK):
        some = ids[start : start + _CHUNK]
        for ticket, entries in (await _journals(connection, some, numbers)).items():
            found += [
                _deadline(ticket, clock)
                for clock in promises.clocks(entries, terms)
                if clock.state in (State.RUNNING, State.PAUSED)
            ]
    return found


async def _journals(
    connection: AsyncConnection, ids: Sequence[int], numbers: dict[int, str]
) -> dict[str, list[Entry]]:
    entries: dict[str, list[Entry]] = defaultdict(list)
    for row in (await connection.execute(_JOURNALS, {"ids": list(ids)})).mappings():
        number = numbers[row["ticket_id"]]
        fields: dict[str, Any] = {name: row[name] for name in _FIELDS}
        entries[number].append(Entry(ticket=number, **fields))
    return entries


_FIELDS: Final = ("seq", "at", "actor", "action", "state", "body", "prev_hash", "hash")


def _deadline(ticket: str, clock: TicketClock) -> Deadline:
    return Deadline(
        ticket=ticket,
        metric=clock.metric.value,
        entry=clock.entry,
        at=clock.due_at,
        provisional=clock.provisional,
    )


class CalendarWatch:
    """Says from 1 November on that the next year's public holidays are not imported. A Service."""

    name = "calendar"

    def __init__(self, terms: Callable[[], Awaitable[Terms]], clock: Clock, *, zone: str) -> None:
        self._terms = terms
        self._clock = clock
        self._zone = ZoneInfo(zone)
        self._health = Health(component="calendar", state=HealthState.UP, detail="not looked yet")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(self._watch(), name="calendar-watch")
            yield
            watch.cancel()

    def health(self) -> list[Health]:
        return [self._health]

    async def _watch(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Look once; what is wrong is logged each day anew."""
        try:
            terms = await self._terms()
        except TemporaryFailure:
            return  # the database's own health says so
        found = health_of(terms, self._clock.now().astimezone(self._zone).date())
        if found.state is not HealthState.UP and found != self._health:
            log.warning("calendar.not_confirmed", detail=found.detail)
        self._health = found


def health_of(terms: Terms, today: date) -> Health:
    """Return whether the public holidays that calendars follow are settled far enough."""
    follows = any(each.confirmed_through for each in terms.calendars.values())
    if not follows:
        detail = "no calendar follows public holidays"
        return Health(component="calendar", state=HealthState.UP, detail=detail)
    if terms.holidays is None:
        detail = f"{today}: no public holidays are imported; {REMEDY}"
        return Health(component="calendar", state=HealthState.DEGRADED, detail=detail)
    through = f"public holidays are settled through {terms.holidays.confirmed_through}"
    if needs_confirmation(terms.holidays, today):
        detail = f"{today}: {through} only; {REMEDY}"
        return Health(component="calendar", state=HealthState.DEGRADED, detail=detail)
    return Health(component="calendar", state=HealthState.UP, detail=through)
