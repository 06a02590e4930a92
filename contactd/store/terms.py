"""What is promised and who is told, in the database: every version, and which a site has."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Row, bindparam, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from contactd.clock import Clock
from contactd.errors import TemporaryFailure
from contactd.log import get_logger
from contactd.routing import terms as pure
from contactd.routing.calendars import ALWAYS, HolidayData, read_calendar_data
from contactd.routing.deskfile import DeskFile
from contactd.routing.terms import Kind, Terms, Version
from contactd.store.engine import Database
from contactd.store.repositories import SqlTickets
from contactd.store.schema import holidays, outbox, sites, terms, tickets
from contactd.tickets import journal, model
from contactd.tickets.events import TicketDue
from contactd.tickets.model import CALENDAR, CONTRACT, Ticket
from contactd.tickets.states import OPEN

log = get_logger()

HOLIDAYS: Final = "cn"

_VERSIONS: Final = select(terms).order_by(terms.c.kind, terms.c.key, terms.c.version)
_HOLIDAYS: Final = select(holidays).where(holidays.c.key == HOLIDAYS)
_ADD_VERSIONS: Final = insert(terms)
_SITES: Final = select(sites.c.key, sites.c.contract, sites.c.calendar)
_SITE: Final = (
    update(sites)
    .where(sites.c.key == bindparam("site"))
    .values(contract=bindparam("new_contract"), calendar=bindparam("new_calendar"))
)
_OPEN_AT: Final = (
    select(tickets.c.id)
    .where(
        tickets.c.site.in_(bindparam("sites", expanding=True)),
        tickets.c.state.in_(sorted(state.value for state in OPEN)),
    )
    .order_by(tickets.c.id)
)
_OPEN: Final = (
    select(tickets.c.id)
    .where(tickets.c.state.in_(sorted(state.value for state in OPEN)))
    .order_by(tickets.c.id)
)
# What a reader's copy rests on. Versions are only added, one more each time; holidays replaced.
_FINGERPRINT: Final = select(
    select(func.count()).select_from(terms).scalar_subquery(),
    select(func.max(holidays.c.imported_at)).scalar_subquery(),
    select(func.max(holidays.c.confirmed_through)).scalar_subquery(),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedTerms:
    """What a load changed: names of new versions (`contract gold.3`), and tickets it looks at."""

    versions: tuple[str, ...]
    tickets: int
    holidays: bool


async def read(connection: AsyncConnection, *, answer: timedelta, remote: timedelta) -> Terms:
    """Return the terms as this transaction sees them."""
    found = await stored_holidays(connection)
    return pure.in_force(await versions(connection), found, answer=answer, remote=remote)


async def stored_holidays(connection: AsyncConnection) -> HolidayData | None:
    """Return the public holidays as they were imported last; None if they never were."""
    row = (await connection.execute(_HOLIDAYS)).first()
    return read_calendar_data(row.body) if row is not None else None


class LastTerms:
    """Reads the terms when they have changed; while the database is away the last ones count."""

    def __init__(self, database: Database, *, answer: timedelta, remote: timedelta) -> None:
        self._database = database
        self._answer, self._remote = answer, remote
        self._seen: tuple[Any, ...] | None = None
        self._last: Terms | None = None

    async def __call__(self) -> Terms:
        """Return the terms in force.

        Raises:
            TemporaryFailure: the database is away, and was so from the start.
        """
        try:
            async with self._database.reading() as connection:
                return await self.within(connection)
        except TemporaryFailure:
            if self._last is None:
                raise
            return self._last

    async def within(self, connection: AsyncConnection) -> Terms:
        """Return the terms as this transaction sees them."""
        seen = tuple((await connection.execute(_FINGERPRINT)).one())
        if self._last is None or seen != self._seen:
            self._last = await read(connection, answer=self._answer, remote=self._remote)
            self._seen = seen
        return self._last


async def load_terms(connection: AsyncConnection, desk: DeskFile, clock: Clock) -> LoadedTerms:
    """Make the terms in force those of the desk file, in the transaction that loads its sites.

    What changed gets a new version. A site's contract applies to the tickets that are opened from
    now on: what was promised stays promised. New opening hours apply to its open tickets, too,
    from now on. Public holidays are taken over only if they are settled further than those that
    are stored: a file that was imported is not undone at the next start.

    Raises:
        TemporaryFailure: nothing may be stored.
    """
    now = clock.now()
    stored = await versions(connection)
    added = pure.news(desk, stored)
    if added:
        await connection.execute(_ADD_VERSIONS, [_row(each, now) for each in added])
    every = [*stored, *added]
    moved = await _load_sites(connection, desk, every)
    looked_at = await _calendar_changed(connection, moved, now)
    renewed = await _load_holidays(connection, desk, now)
    if renewed:
        looked_at = await look_at_open_tickets(connection, now)
    loaded = LoadedTerms(
        versions=tuple(f"{each.kind.value} {each.name}" for each in added),
        tickets=looked_at,
        holidays=renewed,
    )
    if added or renewed:
        log.info(
            "terms.loaded",
            versions=list(loaded.versions),
            tickets=loaded.tickets,
            holidays=loaded.holidays,
        )
    return loaded


async def versions(connection: AsyncConnection) -> list[Version]:
    """Return every version there ever was."""
    rows = await connection.execute(_VERSIONS)
    return [
        Version(kind=Kind(row.kind), key=row.key, version=row.version, body=row.body)
        for row in rows
    ]


def _row(added: Version, now: datetime) -> dict[str, Any]:
    return {
        "kind": added.kind.value,
        "key": added.key,
        "version": added.version,
        "body": dict(added.body),
        "since": now,
    }


async def _load_sites(
    connection: AsyncConnection, desk: DeskFile, every: Sequence[Version]
) -> dict[str, str]:
    """Store which versions each site has; return the sites with other hours, and their name."""
    contracts = {CONTRACT: "", **pure.names(every, Kind.CONTRACT)}
    calendars = {ALWAYS.name: "", **pure.names(every, Kind.CALENDAR)}
    before = {row.key: row for row in await connection.execute(_SITES)}
    wanted = {
        entry.key: (
            contracts.get(entry.contract or "", ""),
            calendars.get(entry.calendar or "", ""),
        )
        for entry in desk.sites
    }
    changed = {
        key: names
        for key, names in wanted.items()
        if key in before and names != _names(before[key])
    }
    if changed:
        await connection.execute(
            _SITE,
            [
                {"site": key, "new_contract": contract, "new_calendar": calendar}
                for key, (contract, calendar) in changed.items()
            ],
        )
    return {
        key: calendar
        for key, (_, calendar) in changed.items()
        if calendar != _names(before[key])[1]
    }


def _names(row: Row[str, str, str]) -> tuple[str, str]:
    return (row.contract, row.calendar)


async def _calendar_changed(
    connection: AsyncConnection, moved: Mapping[str, str], now: datetime
) -> int:
    """Tell the open tickets of these sites; return how many there are."""
    if not moved:
        return 0
    ids = (await connection.execute(_OPEN_AT, {"sites": sorted(moved)})).scalars().all()

    def body(ticket: Ticket) -> dict[str, str]:
        return {"calendar": moved[ticket.site] or CALENDAR}

    await note_on(connection, ids, "calendar.changed", body, now)
    await _look_at(connection, ids, now)
    return len(ids)


async def note_on(
    connection: AsyncConnection,
    ids: Sequence[int],
    action: str,
    body: Callable[[Ticket], dict[str, str]],
    now: datetime,
) -> None:
    """Write what a load means for them into the journals of tickets."""
    repository = SqlTickets(connection)
    for ticket_id in ids:
        ticket = await repository.find(int(ticket_id))
        if ticket is None:
            continue
        decision = model.note(
            ticket, action, actor=journal.SYSTEM, body=dict(body(ticket)), now=now
        )
        changed, entries = model.sealed(decision.ticket, decision.entries)
        await repository.save([changed])
        await repository.append([(ticket.id, entry) for entry in entries])


async def _load_holidays(connection: AsyncConnection, desk: DeskFile, now: datetime) -> bool:
    if not desk.holidays:
        return False
    data = read_calendar_data(desk.holidays)
    before = await stored_holidays(connection)
    if before is not None and before.confirmed_through >= data.confirmed_through:
        return False
    await put_holidays(connection, desk.holidays, data, now)
    return True


async def put_holidays(
    connection: AsyncConnection, body: str, data: HolidayData, now: datetime
) -> None:
    """Store a file of public holidays in place of the one before."""
    await connection.execute(holidays.delete().where(holidays.c.key == HOLIDAYS))
    row = {
        "key": HOLIDAYS,
        "body": body,
        "confirmed_through": data.confirmed_through.isoformat(),
        "imported_at": now,
    }
    await connection.execute(insert(holidays), row)


async def look_at_open_tickets(connection: AsyncConnection, now: datetime) -> int:
    """Let each open ticket compute its clocks anew; return how many there are."""
    ids = (await connection.execute(_OPEN)).scalars().all()
    await _look_at(connection, ids, now)
    return len(ids)


async def _look_at(connection: AsyncConnection, ids: Iterable[int], now: datetime) -> None:
    rows = [
        {
            "kind": TicketDue.__name__,
            "body": asdict(TicketDue(ticket_id=int(ticket_id))),
            "created_at": now,
            "due_at": now,
        }
        for ticket_id in ids
    ]
    if rows:
        await connection.execute(insert(outbox), rows)
