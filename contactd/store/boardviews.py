"""Read-only queries of the status page: counts by site, what breaches next, how the month went.

`look` is asked at every change and touches rows of today and of what is open only; `figures` reads
a month, and `usual` four weeks: the page asks for them once a minute, and once a day.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import IntEnum
from math import ceil
from typing import Any, Final
from zoneinfo import ZoneInfo

from sqlalchemy import RowMapping, bindparam, case, func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import String

from contactd.routing.clocks import Metric
from contactd.routing.clocks import State as ClockState
from contactd.store.engine import Database
from contactd.store.schema import clocks, contacts, journal, people, tickets
from contactd.tickets.contact import Direction, Medium, Outcome
from contactd.tickets.model import RATED
from contactd.tickets.priority import Priority
from contactd.tickets.states import OPEN, State

MOST_BREACHED: Final = 60  # rows; the rest is counted only
MOST_COMING: Final = 120
SATISFIED_FROM: Final = 4  # of 5
WEEKS: Final = 4


class Age(IntEnum):
    """How long ago an open ticket was opened."""

    HOURS = 0  # under four
    DAY = 1  # under one
    THREE_DAYS = 2
    WEEK = 3
    OLDER = 4


_OLDER_THAN: Final = (
    (Age.HOURS, timedelta(hours=4)),
    (Age.DAY, timedelta(days=1)),
    (Age.THREE_DAYS, timedelta(days=3)),
    (Age.WEEK, timedelta(days=7)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Risk:
    """A promise that is not kept yet: the clock runs."""

    ticket: str
    site: str
    priority: Priority
    metric: Metric
    due_at: datetime
    engineer: str  # name, "" when nobody has it


@dataclass(frozen=True, slots=True, kw_only=True)
class StateCount:
    """Tickets opened today."""

    site: str
    state: State
    priority: Priority
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenCount:
    site: str
    priority: Priority
    age: Age
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeCount:
    """Contacts that came in within one hour of the local day; an average may be a part of one."""

    site: str
    medium: Medium
    hour: int
    count: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BreachedCount:
    site: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueDay:
    """How long callers waited today; `average` and `p90` None: nobody's wait is known yet."""

    queue: str
    calls: int
    abandoned: int
    average: timedelta | None
    p90: timedelta | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attained:
    """Promises of this month that were kept, and that were broken."""

    site: str
    metric: Metric
    kept: int
    missed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """Marks that requesters gave this month."""

    site: str
    satisfied: int
    marks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    counts: tuple[StateCount, ...]
    open: tuple[OpenCount, ...]
    intake: tuple[IntakeCount, ...]
    breached: tuple[BreachedCount, ...]
    risks: tuple[Risk, ...]  # the longest breached first, then what breaches next


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    queues: tuple[QueueDay, ...] = ()
    attained: tuple[Attained, ...] = ()
    marks: tuple[Marks, ...] = ()


class _TenMinutes(FunctionElement[str]):
    """An instant up to the tens of its minutes, as text: 2026-11-20T02:3.

    Zones differ from UTC by whole hours, halves and quarters; ten minutes are fine enough for all
    of them but those of a quarter, whose hours are off by five minutes here.
    """

    type = String()
    inherit_cache = True
    name = "ten_minutes"


@compiles(_TenMinutes, "sqlite")
def _of_text(element: Any, compiler: Any, **more: Any) -> str:
    return f"substr({compiler.process(element.clauses, **more)}, 1, 15)"


@compiles(_TenMinutes, "postgresql")
def _of_instant(element: Any, compiler: Any, **more: Any) -> str:
    column = compiler.process(element.clauses, **more)
    return f"""left(to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI'), 15)"""


_OPEN: Final = sorted(state.value for state in OPEN)
_AGE: Final = case(
    *(
        (tickets.c.opened_at > bindparam(f"age{age.value}", type_=tickets.c.opened_at.type), age)
        for age, _ in _OLDER_THAN
    ),
    else_=Age.OLDER.value,
)
_COUNTS: Final = (
    select(tickets.c.site, tickets.c.state, tickets.c.priority, func.count().label("count"))
    .where(tickets.c.opened_at >= bindparam("start"), tickets.c.opened_at < bindparam("end"))
    .group_by(tickets.c.site, tickets.c.state, tickets.c.priority)
)
_OPEN_COUNTS: Final = (
    select(tickets.c.site, tickets.c.priority, _AGE.label("age"), func.count().label("count"))
    .where(tickets.c.state.in_(_OPEN))
    .group_by(tickets.c.site, tickets.c.priority, literal_column("age"))
)
_WHEN: Final = _TenMinutes(contacts.c.received_at)
_INTAKE: Final = (
    select(tickets.c.site, contacts.c.medium, _WHEN.label("at"), func.count().label("count"))
    .select_from(contacts.join(tickets, tickets.c.id == contacts.c.ticket_id))
    .where(
        contacts.c.received_at >= bindparam("start"),
        contacts.c.received_at < bindparam("end"),
        contacts.c.direction == Direction.IN.value,
    )
    .group_by(tickets.c.site, contacts.c.medium, literal_column("at"))
)
_RUNNING: Final = clocks.c.state == literal_column(f"'{ClockState.RUNNING.value}'")
_BREACHED: Final = (
    select(tickets.c.site, func.count().label("count"))
    .select_from(clocks.join(tickets, tickets.c.id == clocks.c.ticket_id))
    .where(_RUNNING, clocks.c.due_at < bindparam("now"))
    .group_by(tickets.c.site)
)
_RISKS: Final = (
    select(
        tickets.c.number,
        tickets.c.site,
        tickets.c.priority,
        clocks.c.metric,
        clocks.c.due_at,
        people.c.name,
    )
    .select_from(
        clocks.join(tickets, tickets.c.id == clocks.c.ticket_id).outerjoin(
            people, people.c.id == tickets.c.assignee_id
        )
    )
    .where(_RUNNING)
    .order_by(clocks.c.due_at)
    .limit(bindparam("most"))
)
_PAST: Final = _RISKS.where(clocks.c.due_at < bindparam("now"))
_COMING: Final = _RISKS.where(clocks.c.due_at >= bindparam("now"))
_WAITS: Final = select(
    contacts.c.call["queue"].as_string().label("queue"),
    contacts.c.call["waited_s"].as_string().label("waited"),
    contacts.c.outcome,
).where(
    contacts.c.received_at >= bindparam("start"),
    contacts.c.received_at < bindparam("end"),
    contacts.c.medium == Medium.CALL.value,
    contacts.c.call.is_not(None),
)
# Broken once is broken for ever (C5), also when it was done later: two counts that never overlap.
_KEPT: Final = (
    select(tickets.c.site, clocks.c.metric, func.count().label("count"))
    .select_from(clocks.join(tickets, tickets.c.id == clocks.c.ticket_id))
    .where(
        clocks.c.stopped_at >= bindparam("start"),
        clocks.c.stopped_at < bindparam("end"),
        clocks.c.state == ClockState.STOPPED.value,
        clocks.c.breached_at.is_(None),
    )
    .group_by(tickets.c.site, clocks.c.metric)
)
_MISSED: Final = (
    select(tickets.c.site, clocks.c.metric, func.count().label("count"))
    .select_from(clocks.join(tickets, tickets.c.id == clocks.c.ticket_id))
    .where(clocks.c.breached_at >= bindparam("start"), clocks.c.breached_at < bindparam("end"))
    .group_by(tickets.c.site, clocks.c.metric)
)
_MARKS: Final = (
    select(tickets.c.site, journal.c.ticket_id, journal.c.body)
    .select_from(journal.join(tickets, tickets.c.id == journal.c.ticket_id))
    .where(  # written out, so that the databases see that their index of marks is meant
        journal.c.action == literal_column(f"'{RATED}'"),
        journal.c.at >= bindparam("start"),
        journal.c.at < bindparam("end"),
    )
    .order_by(journal.c.at, journal.c.seq)
)


class BoardViews:
    """Every method raises `TemporaryFailure` when the database is away."""

    def __init__(self, database: Database, zone: str) -> None:
        self._database = database
        self._zone = ZoneInfo(zone)

    async def look(self, now: datetime) -> Look:
        """Return what changes with each contact."""
        today = self._day(now.astimezone(self._zone).date())
        ages = {f"age{age.value}": now - length for age, length in _OLDER_THAN}
        async with self._database.reading() as connection:
            counts = await _rows(connection, _COUNTS, today)
            open_ = await _rows(connection, _OPEN_COUNTS, ages)
            intake = await _rows(connection, _INTAKE, today)
            breached = await _rows(connection, _BREACHED, {"now": now})
            past = await _rows(connection, _PAST, {"now": now, "most": MOST_BREACHED})
            coming = await _rows(connection, _COMING, {"now": now, "most": MOST_COMING})
        return Look(
            counts=tuple(map(_state_count, counts)),
            open=tuple(map(_open_count, open_)),
            intake=tuple(self._intake(intake, 1)),
            breached=tuple(
                BreachedCount(site=row["site"] or "", count=row["count"]) for row in breached
            ),
            risks=tuple(map(_risk, (*past, *coming))),
        )

    async def figures(self, now: datetime) -> Figures:
        """Return today's waits and this month's promises and marks."""
        day = now.astimezone(self._zone).date()
        today = self._day(day)
        month = {"start": self._midnight(day.replace(day=1)), "end": today["end"]}
        async with self._database.reading() as connection:
            waits = await _rows(connection, _WAITS, today)
            kept = await _rows(connection, _KEPT, month)
            missed = await _rows(connection, _MISSED, month)
            marks = await _rows(connection, _MARKS, month)
        return Figures(
            queues=tuple(_queues(waits)),
            attained=tuple(_attained(kept, missed)),
            marks=tuple(_marks(marks)),
        )

    async def usual(self, day: date) -> tuple[IntakeCount, ...]:
        """Return the average of the same weekday of the four weeks before `day`."""
        rows: list[RowMapping] = []
        async with self._database.reading() as connection:
            for weeks in range(1, WEEKS + 1):
                rows += await _rows(connection, _INTAKE, self._day(day - timedelta(weeks=weeks)))
        return tuple(self._intake(rows, WEEKS))

    def _intake(self, rows: Iterable[RowMapping], days: int) -> Iterable[IntakeCount]:
        found: dict[tuple[str, str, int], int] = {}
        for row in rows:
            at = datetime.fromisoformat(f"{row['at']}0").replace(tzinfo=UTC)
            key = (row["site"] or "", row["medium"], at.astimezone(self._zone).hour)
            found[key] = found.get(key, 0) + row["count"]
        for (site, medium, hour), count in found.items():
            yield IntakeCount(site=site, medium=Medium(medium), hour=hour, count=count / days)

    def _day(self, day: date) -> dict[str, datetime]:
        return {"start": self._midnight(day), "end": self._midnight(day + timedelta(days=1))}

    def _midnight(self, day: date) -> datetime:
        return datetime.combine(day, time(), self._zone).astimezone(UTC)


async def _rows(connection: AsyncConnection, query: Any, values: Any) -> Sequence[RowMapping]:
    return (await connection.execute(query, values)).mappings().all()


def _state_count(row: RowMapping) -> StateCount:
    return StateCount(
        site=row["site"] or "",
        state=State(row["state"]),
        priority=Priority(row["priority"]),
        count=row["count"],
    )


def _open_count(row: RowMapping) -> OpenCount:
    return OpenCount(
        site=row["site"] or "",
        priority=Priority(row["priority"]),
        age=Age(row["age"]),
        count=row["count"],
    )


def _risk(row: RowMapping) -> Risk:
    return Risk(
        ticket=row["number"],
        site=row["site"] or "",
        priority=Priority(row["priority"]),
        metric=Metric(row["metric"]),
        due_at=row["due_at"],
        engineer=row["name"] or "",
    )


def _queues(rows: Iterable[RowMapping]) -> Iterable[QueueDay]:
    found: dict[str, list[RowMapping]] = {}
    for row in rows:
        if row["queue"]:  # who hung up in the greeting has not waited in a queue
            found.setdefault(row["queue"], []).append(row)
    for queue, calls in sorted(found.items()):
        waits = sorted(float(call["waited"]) for call in calls if call["waited"] is not None)
        yield QueueDay(
            queue=queue,
            calls=len(calls),
            abandoned=sum(call["outcome"] == Outcome.ABANDONED_QUEUE.value for call in calls),
            average=timedelta(seconds=sum(waits) / len(waits)) if waits else None,
            p90=timedelta(seconds=waits[ceil(len(waits) * 0.9) - 1]) if waits else None,
        )


def _attained(kept: Iterable[RowMapping], missed: Iterable[RowMapping]) -> Iterable[Attained]:
    found: dict[tuple[str, str], list[int]] = {}
    for place, rows in enumerate((kept, missed)):
        for row in rows:
            found.setdefault((row["site"] or "", row["metric"]), [0, 0])[place] += row["count"]
    for (site, metric), (good, bad) in sorted(found.items()):
        yield Attained(site=site, metric=Metric(metric), kept=good, missed=bad)


def _marks(rows: Iterable[RowMapping]) -> Iterable[Marks]:
    last = {row["ticket_id"]: (row["site"] or "", row["body"]["mark"]) for row in rows}
    found: dict[str, list[int]] = {}
    for site, mark in last.values():  # who gives another mark has changed their mind
        found.setdefault(site, []).append(mark)
    for site, marks in sorted(found.items()):
        satisfied = sum(mark >= SATISFIED_FROM for mark in marks)
        yield Marks(site=site, satisfied=satisfied, marks=len(marks))
