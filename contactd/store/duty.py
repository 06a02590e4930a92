"""Who is on duty, as stored: the spans that `rota` worked out, 60 days ahead.

Whatever changes the rota (the desk file, public holidays, an external calendar) calls `resolve` in
its own transaction. What is past stays as it was; a span that runs is cut now if it ends otherwise.
Nothing else writes the table, so that pages, queues, the API and calendars tell the same.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from pydantic import TypeAdapter
from sqlalchemy import bindparam, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from contactd.clock import Clock
from contactd.errors import PermanentFailure, TemporaryFailure
from contactd.log import get_logger
from contactd.routing import rota
from contactd.routing.calendars import HolidayData, read_calendar_data
from contactd.routing.oncall import LOOK_AHEAD, LOOK_BACK, Duties
from contactd.routing.plan import Plan
from contactd.routing.rota import Cause, Problem, Span
from contactd.service import Health, HealthState
from contactd.store.engine import Database
from contactd.store.feeds import feed_leaves, read_span
from contactd.store.schema import cursors, holidays, rotas
from contactd.store.schema import spans as span_rows
from contactd.store.unit_of_work import SqlUnitOfWork
from contactd.tickets.contact import Cursor
from contactd.tickets.events import Due, DutyDue

log = get_logger()

HORIZON: Final = timedelta(days=60)
TOLD_AHEAD: Final = timedelta(days=2)  # changes of duty that the outbox knows of
HELD: Final = timedelta(
    days=15
)  # what readers get ahead: it has to last while the database is away
# For which duty is worked out when somebody asks.
EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
FURTHEST: Final = timedelta(days=5 * 366)
EVERY_S: Final = 3600.0
RETRY_S: Final = 30.0

_AGAIN: Final = timedelta(hours=1)  # the window that readers hold moves on
_DAY: Final = timedelta(days=1)
_PLAN: Final = TypeAdapter(Plan)
_BODY: Final = select(rotas.c.body).where(rotas.c.id == 1)
_HORIZON: Final = select(func.max(span_rows.c.until))
_FROM: Final = select(span_rows).where(span_rows.c.until > bindparam("first"))
_BETWEEN: Final = _FROM.where(span_rows.c.since < bindparam("last")).order_by(
    span_rows.c.site, span_rows.c.tier, span_rows.c.since, span_rows.c.id
)
_ANY_AT: Final = (
    select(span_rows.c.id)
    .where(span_rows.c.until > bindparam("at"), span_rows.c.since <= bindparam("at"))
    .limit(1)
)
_VERSION: Final = select(cursors.c.position).where(cursors.c.source == "duty")
_ADD: Final = insert(span_rows)
_END: Final = (
    update(span_rows)
    .where(span_rows.c.id == bindparam("span"))
    .values(until=bindparam("new_until"))
)
_DROP: Final = delete(span_rows).where(span_rows.c.id == bindparam("span"))


# Reading


async def plan(connection: AsyncConnection) -> Plan | None:
    """Return what the desk file that was loaded last says of duty, None if none was.

    Raises:
        TemporaryFailure: the database is away.
    """
    body = (await connection.execute(_BODY)).scalar_one_or_none()
    return None if body is None else _PLAN.validate_python(body)


def plan_body(plan: Plan) -> Any:
    """Return `plan` as table rotas keeps it."""
    return _PLAN.dump_python(plan, mode="json")


async def duties(database: Database, clock: Clock, at: datetime | None = None) -> Duties:
    """Return the sites, the people, and who is on duty around `at` (now, unless said otherwise).

    What is not stored, because it is too far away, is worked out; without a loaded desk file there
    are no sites.

    Raises:
        TemporaryFailure: the database is away.
        PermanentFailure: `at` is more than 5 years ahead, or in the last century.
    """
    now = clock.now()
    at = now if at is None else at
    if not EARLIEST <= at <= now + FURTHEST:
        raise PermanentFailure(f"duty is worked out for the next five years, not for {at.year}")
    first, last = at - LOOK_BACK, at + HELD
    async with database.reading() as connection:
        read = await plan(connection)
        if read is None:
            return Duties()
        if await _is_stored(connection, at):
            return Duties(
                sites=read.sites,
                engineers=read.engineers,
                spans=tuple(await _stored(connection, first, last)),
            )
        resolved = await _rota(connection, read)
    found = await asyncio.to_thread(rota.spans, resolved, first, last)
    return Duties(sites=read.sites, engineers=read.engineers, spans=found, stored=False)


async def _is_stored(connection: AsyncConnection, at: datetime) -> bool:
    """Return whether the spans tell who is on duty at an instant, and who comes next."""
    until = (await connection.execute(_HORIZON)).scalar_one()
    if until is None or until < at + LOOK_AHEAD:
        return False
    return (await connection.execute(_ANY_AT, {"at": at})).first() is not None


async def _rota(connection: AsyncConnection, read: Plan) -> rota.Rota:
    """Return the rota with what is known from elsewhere: public holidays, external calendars."""
    return read.rota(await holiday_data(connection), await feed_leaves(connection, read.feeds))


async def holiday_data(connection: AsyncConnection) -> Mapping[str, HolidayData]:
    """Return the public holidays as they were imported last."""
    rows = await connection.execute(select(holidays.c.key, holidays.c.body))
    return {row.key: read_calendar_data(row.body) for row in rows}


async def _stored(connection: AsyncConnection, first: datetime, last: datetime) -> list[Span]:
    rows = await connection.execute(_BETWEEN, {"first": first, "last": last})
    return [read_span(row) for row in rows.mappings()]


def _row(span: Span) -> dict[str, Any]:
    return {
        "site": span.site,
        "tier": span.tier,
        "team": span.team,
        "engineer": span.engineer,
        "since": span.since,
        "until": span.until,
        "why": [[cause.kind.value, cause.key] for cause in span.why],
        "instead_of": span.instead_of,
    }


async def problems(database: Database, clock: Clock) -> list[Problem]:
    """Return what is wrong with the rota in the next 60 days.

    Raises:
        TemporaryFailure: the database is away.
    """
    async with database.reading() as connection:
        read = await plan(connection)
        if read is None:
            return []
        resolved = await _rota(connection, read)
    now = clock.now().replace(second=0, microsecond=0)
    return await asyncio.to_thread(rota.problems, resolved, now, now + HORIZON)


# Writing


async def resolve(work: SqlUnitOfWork, clock: Clock) -> frozenset[str]:
    """Make the stored spans what the stored rota says, from now on; return where duty changes now.

    The caller commits. `DutyDue` is emitted for each site where the answer for now is another one,
    and for every later change within two days.

    Raises:
        TemporaryFailure: the database is away.
    """
    connection = work.connection
    read = await plan(connection)
    if read is None:
        return frozenset()
    now = clock.now().astimezone(UTC)
    horizon = datetime.combine((now + HORIZON + _DAY).date(), time(), UTC)
    is_first = (await connection.execute(_HORIZON)).scalar_one() is None
    # With nothing before it, duty that runs now may begin when it did.
    start = now - LOOK_BACK if is_first else now
    resolved = await _rota(connection, read)
    fresh = await asyncio.to_thread(rota.spans, resolved, start, horizon)
    rows = await connection.execute(_FROM, {"first": now})
    news = difference([(row["id"], read_span(row)) for row in rows.mappings()], fresh, now)
    await _write(connection, news)
    # Another word each time: readers keep what they have read as long as it is the same.
    await work.read_to([Cursor(source="duty", position=secrets.token_hex(8))])
    for site in sorted(news.changed):
        work.emit(DutyDue(site=site))
    for site, at in _changes(fresh, now, now + TOLD_AHEAD):
        key = f"duty-{site}-{at:%Y%m%dT%H%M%S.%f}"
        work.emit(Due(event=DutyDue(site=site), due_at=at, dedup_key=key))
    return news.changed


async def _write(connection: AsyncConnection, news: "Difference") -> None:
    for statement, rows in (
        (_DROP, [{"span": row} for row in news.dropped]),
        (_END, [{"span": row, "new_until": until} for row, until in news.ended]),
        (_ADD, [_row(span) for span in news.added]),
    ):
        if rows:
            await connection.execute(statement, rows)


def _changes(found: Iterable[Span], after: datetime, last: datetime) -> list[tuple[str, datetime]]:
    """Return each instant at which somebody comes or leaves, by site."""
    edges = {(span.site, edge) for span in found for edge in (span.since, span.until)}
    return sorted((site, edge) for site, edge in edges if after < edge <= last)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What makes the stored spans the fresh ones. `changed` are the sites where now is another."""

    dropped: tuple[int, ...]
    ended: tuple[tuple[int, datetime], ...]
    added: tuple[Span, ...]
    changed: frozenset[str]


_Who = tuple[str, int, str, str, tuple[Cause, ...], str]


def _who(span: Span) -> _Who:
    return span.site, span.tier, span.team, span.engineer, span.why, span.instead_of


def difference(
    stored: Sequence[tuple[int, Span]], fresh: Iterable[Span], now: datetime
) -> Difference:
    """Return what makes `stored`, of which no span has ended by `now`, equal to `fresh`.

    A span that runs goes on in the one that begins now with the same person for the same reason;
    otherwise it ends now.
    """
    running = {_who(span): (row, span) for row, span in stored if span.since < now}
    ahead = {(_who(span), span.since, span.until): row for row, span in stored if span.since >= now}
    ended: list[tuple[int, datetime]] = []
    added: list[Span] = []
    for span in fresh:
        if span.since == now and (same := running.pop(_who(span), None)) is not None:
            row, old = same
            ended += [] if old.until == span.until else [(row, span.until)]
        elif ahead.pop((_who(span), span.since, span.until), None) is None:
            added.append(span)
    ended += [(row, now) for row, _ in running.values()]
    return Difference(
        dropped=tuple(ahead.values()),
        ended=tuple(ended),
        added=tuple(added),
        changed=frozenset(
            [span.site for _, span in running.values()]
            + [span.site for span in added if span.since <= now < span.until]
        ),
    )


# Keeping


class LastDuties:
    """Reads who is on duty; while the database is away the last answer goes on counting.

    Without it the queues' members would stay those of the moment when the database went away.
    """

    def __init__(self, database: Database, clock: Clock, first: Duties | None = None) -> None:
        self._database = database
        self._clock = clock
        self._last = first
        self._version: str | None = None  # of what was read
        self._read_at = datetime.min.replace(tzinfo=UTC)

    async def __call__(self, at: datetime | None = None) -> Duties:
        """Return who is on duty around `at`; now, unless said otherwise.

        Raises:
            TemporaryFailure: the database is away, and was never asked before.
            PermanentFailure: `at` is more than 5 years ahead, or in the last century.
        """
        if at is not None:
            return await duties(self._database, self._clock, at)
        try:
            return await self._current()
        except TemporaryFailure:
            if self._last is None:
                raise
            return self._last

    async def _current(self) -> Duties:
        """Return what was read before if nobody has changed it since: thousands of spans."""
        now = self._clock.now()
        async with self._database.reading() as connection:
            version = (await connection.execute(_VERSION)).scalar_one_or_none()
        is_same = version is not None and version == self._version
        if self._last is None or not is_same or not timedelta() <= now - self._read_at < _AGAIN:
            self._last = await duties(self._database, self._clock)
            self._version = version if self._last.stored else None
            self._read_at = now
        return self._last


class DutyKeeper:
    """Keeps 60 days of duty stored ahead, and says each night what is wrong with the rota."""

    name = "duty"

    def __init__(self, database: Database, clock: Clock, zone: str) -> None:
        self._database = database
        self._clock = clock
        self._zone = ZoneInfo(zone)
        self._problems: list[Problem] = []
        self._trouble = ""
        self._told: date | None = None  # the night for which the problems were told

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            keeping = tasks.create_task(self._keep(), name="duty")
            yield
            _ = keeping.cancel()

    def health(self) -> list[Health]:
        found = len(self._problems)
        detail = f"{found} problems: contactd check" if found else ""
        state = HealthState.DEGRADED if self._trouble else HealthState.UP
        return [Health(component="rota", state=state, detail=self._trouble or detail)]

    async def _keep(self) -> None:
        while True:
            try:
                await self.look()
                self._trouble = ""
                pause_s = EVERY_S
            except TemporaryFailure as failure:
                self._trouble = str(failure)
                pause_s = RETRY_S
            await asyncio.sleep(pause_s)

    async def look(self) -> None:
        """Store what is missing of the next 60 days; once a day say what is wrong with the rota.

        Raises:
            TemporaryFailure: the database is away.
        """
        async with self._database.reading() as connection:
            until = (await connection.execute(_HORIZON)).scalar_one()
        if until is None or until < self._clock.now() + HORIZON:
            async with self._database.new_work() as work:
                await resolve(work, self._clock)
                await work.commit()
        today = self._clock.now().astimezone(self._zone).date()
        if self._told != today:
            self._problems = await problems(self._database, self._clock)
            for problem in self._problems:
                log.warning(
                    "rota.problem", flaw=problem.flaw, where=problem.where, text=problem.text
                )
            self._told = today
