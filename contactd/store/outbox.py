"""The durable queue of events: rows of the outbox are claimed, handled and deleted.

At least once: a row is deleted after its handler returned, so that a crash in between runs it
again. Claims are leases: a process that dies or freezes loses its rows to the others after
`LEASE`. Handlers decide from the present and may find that nothing is left to do.

A timer is a row that is due later. However many are armed, no statement here reads more rows than
are due: the partial indexes of `schema.outbox` see to that, and `tests/wire/test_outbox.py` to
them.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    ColumnElement,
    ScalarSelect,
    and_,
    bindparam,
    delete,
    func,
    literal_column,
    or_,
    select,
    update,
)

from contactd.clock import Clock
from contactd.errors import ContactdError, TemporaryFailure
from contactd.log import bound, get_logger
from contactd.metrics import HANDLER_FAILURES, OUTBOX_LAG, OUTBOX_PARKED
from contactd.service import Health, HealthState
from contactd.signals import Signals, Topic, wait
from contactd.store.engine import Database
from contactd.store.schema import outbox
from contactd.store.sqlite import SOON
from contactd.tickets.events import KINDS, Event

log = get_logger()

LEASE: Final = timedelta(seconds=60)
HANDLER_LIMIT: Final = timedelta(seconds=50)  # shorter than the lease: nobody else has the row yet
MOST_ATTEMPTS: Final = 20  # 68 minutes with the pauses below
LONGEST_PAUSE: Final = timedelta(minutes=5)
LATE: Final = timedelta(seconds=60)  # a lag that the operator should hear of
MOST_COUNTED: Final = 10_000  # more rows than this are not counted: they are too many anyway
IN_HAND: Final = 32  # rows that one relay handles side by side
_MOST_AT_ONCE: Final = 16  # rows in one claim
_SOONEST_S: Final = 0.01  # timers that follow each other are one claim
_TOGETHER_S: Final = 0.02  # and those that end together are settled together
# Who committed the row is answering a dialplan: that goes first. And a burst is one batch.
STORM_PAUSE_S: Final = 2.0  # before each claim: a page may be as much later
_GATHER_S: Final = 0.2

Handlers = Mapping[type[Event], Callable[[Any], Awaitable[None]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxFigures:
    """The numbers of rows are at most `MOST_COUNTED`."""

    waiting: int = 0  # due and not done
    retrying: int = 0  # failed before, will be tried again
    parked: int = 0  # given up
    lag: timedelta = timedelta(0)  # age of the oldest row that is due


@dataclass(frozen=True, slots=True, kw_only=True)
class _Claimed:
    id: int
    kind: str
    body: Mapping[str, Any]
    attempts: int
    due_at: datetime
    lease_until: datetime  # also proves that the row is still ours


class _Found(NamedTuple):
    rows: list[_Claimed]
    next_due: datetime | None  # of the timers, when no row is due


class _Outcome(NamedTuple):
    row: _Claimed
    statement: Any  # settles it, with
    values: dict[str, Any]


_NOW: Final = bindparam("now", type_=outbox.c.due_at.type)
# Written as in the indexes, without parameters: else the databases do not see that they apply.
_NOT_PARKED: Final = outbox.c.parked_at.is_(None)
_IS_DUE: Final = outbox.c.due_at <= _NOW

# CTEs with FOR UPDATE are evaluated once; in a sub-select PostgreSQL could run the LIMIT again for
# each row. SQLite has no FOR UPDATE and needs none: the transaction has begun IMMEDIATE.
_due = (
    select(outbox.c.id)
    .where(
        _NOT_PARKED,
        _IS_DUE,
        or_(outbox.c.lease_until.is_(None), outbox.c.lease_until <= _NOW),
    )
    .order_by(outbox.c.due_at, outbox.c.id)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
    .cte("due")
)
_CLAIM: Final = (
    update(outbox)
    .where(outbox.c.id.in_(select(_due.c.id)))
    .values(lease_until=bindparam("lease"))
    .returning(
        outbox.c.id,
        outbox.c.kind,
        outbox.c.body,
        outbox.c.attempts,
        outbox.c.due_at,
        outbox.c.lease_until,
    )
)
_OURS: Final = and_(
    outbox.c.id == bindparam("row"),
    outbox.c.lease_until == bindparam("ours", type_=outbox.c.lease_until.type),
)
_DONE: Final = delete(outbox).where(_OURS).execution_options(**SOON)
_FAILED: Final = (
    update(outbox)
    .where(_OURS)
    .values(
        lease_until=None,
        attempts=bindparam("new_attempts"),
        due_at=bindparam("new_due_at"),
        error=bindparam("new_error"),
        parked_at=bindparam("new_parked_at"),
    )
    .execution_options(**SOON)
)
# A row that others have in hand is not waited for: if they die, polling finds it.
_NEXT_DUE: Final = select(func.min(outbox.c.due_at)).where(_NOT_PARKED, outbox.c.due_at > _NOW)


def _number(*conditions: ColumnElement[bool]) -> ScalarSelect[int]:
    rows = select(outbox.c.id).where(*conditions).limit(MOST_COUNTED).subquery()
    return select(func.count()).select_from(rows).scalar_subquery()


_FIGURES: Final = select(
    _number(_NOT_PARKED, _IS_DUE),
    _number(_NOT_PARKED, outbox.c.attempts > literal_column("0")),
    _number(outbox.c.parked_at.is_not(None)),
    select(func.min(outbox.c.due_at)).where(_NOT_PARKED).scalar_subquery(),
)


async def figures(database: Database, now: datetime) -> OutboxFigures:
    """Return how full and how late the outbox is.

    Raises:
        TemporaryFailure: the database is away.
    """
    async with database.reading() as connection:
        found = await connection.execute(_FIGURES, {"now": now})
        waiting, retrying, parked, oldest = found.one()
    lag = max(now - oldest, timedelta(0)) if oldest is not None else timedelta(0)
    return OutboxFigures(waiting=waiting, retrying=retrying, parked=parked, lag=lag)


class Relay:
    """Hands due events to their handlers; an event without a handler is done.

    It looks when it is signalled, when the next timer is due, and every `poll_s` seconds for what
    other processes armed or left behind. Rows are handled side by side, so that one that waits for
    a slow peer delays no other before `in_hand` of them do.

    Several relays, in one process or in many, share the work. A handler that raises is tried again
    after a pause that doubles from 2 s to `LONGEST_PAUSE`. After `MOST_ATTEMPTS` the row is parked
    for an operator to look at, unless the failure is a `TemporaryFailure`: that never parks.
    """

    name = "outbox"

    def __init__(  # noqa: PLR0913 - four parts and two settings
        self,
        database: Database,
        handlers: Handlers,
        clock: Clock,
        signals: Signals,
        *,
        in_hand: int = IN_HAND,
        poll_s: float = 1.0,
    ) -> None:
        self._database = database
        self._handlers = handlers
        self._clock = clock
        self._signals = signals
        self._free = in_hand
        self._freed = asyncio.Event()
        self._poll_s = poll_s
        self._outcomes: list[_Outcome] = []  # that are not settled yet
        self._settling = asyncio.Lock()
        self._stopping = False
        self._figures = OutboxFigures()
        self._trouble = "not started"
        self._is_waiting = False  # for the database

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self._stopping = False
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._look(tasks), name="outbox")
            watch = tasks.create_task(self._watch(), name="outbox-watch")
            yield
            self._stopping = True  # what is in hand is finished
            self._signals.raise_here(Topic.OUTBOX)
            watch.cancel()
        self._trouble = "stopped"

    def health(self) -> list[Health]:
        state, detail = self._state()
        found = self._figures
        return [
            Health(
                component=self.name,
                state=state,
                detail=detail,
                figures={
                    "lag_s": found.lag.total_seconds(),
                    "waiting": found.waiting,
                    "retrying": found.retrying,
                    "parked": found.parked,
                },
            )
        ]

    def _state(self) -> tuple[HealthState, str]:
        if self._trouble:
            return HealthState.DOWN, self._trouble
        if self._figures.parked:
            parked = self._figures.parked
            return (
                HealthState.DEGRADED,
                f"{parked} given up: see column error where parked_at is set; "
                "to try again set parked_at to NULL and attempts to 0",
            )
        if self._figures.lag > LATE:
            lag_s = self._figures.lag.total_seconds()
            return HealthState.DEGRADED, f"{lag_s:.0f} s behind: see the log for failing handlers"
        return HealthState.UP, ""

    async def drain(self, at_once: int = _MOST_AT_ONCE) -> int:
        """Run everything that is due now, `at_once` rows side by side; return how many there were.

        Raises:
            TemporaryFailure: the database is away.
        """
        count = 0
        while rows := (await self._claim(at_once)).rows:
            count += len(rows)
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(self._handle(row), name="outbox-row") for row in rows]
            await self._settle([task.result() for task in running])
        return count

    async def _look(self, tasks: asyncio.TaskGroup) -> None:
        """Claim what is due as long as there is room for it, and wait for more."""
        with self._signals.listening(Topic.OUTBOX) as signalled:
            while not self._stopping:
                pause_s = await self._start_rows(tasks)
                if pause_s and await wait(signalled, pause_s) and not self._stopping:
                    await asyncio.sleep(_GATHER_S)

    async def _start_rows(self, tasks: asyncio.TaskGroup) -> float:
        """Start the handlers of rows that are due; return how many seconds to wait for others."""
        while not self._free:
            self._freed.clear()
            await self._freed.wait()
        if self._database.is_storm:  # what comes in is acknowledged first
            await asyncio.sleep(STORM_PAUSE_S)
        if self._stopping:
            return 0
        try:
            rows, next_due = await self._claim(min(self._free, _MOST_AT_ONCE))
        except TemporaryFailure as failure:
            self._wait_for_database(failure)
            return self._poll_s
        self._is_waiting = False
        self._free -= len(rows)
        for row in rows:
            tasks.create_task(self._run(row), name="outbox-row")
        return 0 if rows else self._pause_s(next_due)

    def _wait_for_database(self, failure: TemporaryFailure) -> None:
        if not self._is_waiting:
            log.warning("outbox.waiting", reason=str(failure))
        self._is_waiting = True

    def _pause_s(self, next_due: datetime | None) -> float:
        if next_due is None:
            return self._poll_s
        until_s = (next_due - self._clock.now()).total_seconds()
        return min(max(until_s, _SOONEST_S), self._poll_s)

    async def _watch(self) -> None:
        """Keep the figures for the status page and the metrics."""
        while True:
            try:
                self._figures = await figures(self._database, self._clock.now())
                self._trouble = ""
            except TemporaryFailure as failure:
                self._trouble = str(failure)
            OUTBOX_LAG.set(self._figures.lag.total_seconds())
            OUTBOX_PARKED.set(self._figures.parked)
            await asyncio.sleep(self._poll_s)

    async def _claim(self, most: int) -> _Found:
        now = self._clock.now()
        async with self._database.writing() as connection:
            found = await connection.execute(
                _CLAIM, {"now": now, "most": most, "lease": now + LEASE}
            )
            rows = [_Claimed(**row) for row in found.mappings()]
            if not rows:
                return _Found([], (await connection.execute(_NEXT_DUE, {"now": now})).scalar_one())
        return _Found(sorted(rows, key=lambda row: (row.due_at, row.id)), None)

    async def _run(self, row: _Claimed) -> None:
        """Handle a row and settle it, with those that end at about the same time."""
        try:
            outcome = await self._handle(row)
            self._outcomes.append(outcome)  # not in one: the list is another one by now, perhaps
            await asyncio.sleep(_TOGETHER_S)
            async with self._settling:
                outcomes, self._outcomes = self._outcomes, []
                await self._settle(outcomes)
        except TemporaryFailure as failure:  # they run again when their leases are over
            self._wait_for_database(failure)
        finally:
            self._free += 1
            self._freed.set()

    async def _settle(self, outcomes: Sequence[_Outcome]) -> None:
        if not outcomes:
            return
        async with self._database.writing() as connection:
            for statement in (_DONE, _FAILED):
                rows = [
                    {"row": one.row.id, "ours": one.row.lease_until, **one.values}
                    for one in outcomes
                    if one.statement is statement
                ]
                if rows:
                    await connection.execute(statement, rows)

    async def _handle(self, row: _Claimed) -> _Outcome:
        with bound(outbox=row.id, kind=row.kind):
            try:
                event = KINDS[row.kind](**row.body)
                handler = self._handlers.get(type(event))
                if handler is not None:
                    async with asyncio.timeout(HANDLER_LIMIT.total_seconds()):
                        await handler(event)
            except TemporaryFailure as failure:
                log.warning("event.deferred", attempts=row.attempts + 1, reason=str(failure))
                return _Outcome(row, _FAILED, self._failed(row, failure))
            except Exception as error:  # the boundary "per outbox row"
                HANDLER_FAILURES.labels(where=self.name).inc()
                log.exception("event.failed", attempts=row.attempts + 1)
                return _Outcome(row, _FAILED, self._failed(row, error))
        return _Outcome(row, _DONE, {})

    def _failed(self, row: _Claimed, error: Exception) -> dict[str, Any]:
        now = self._clock.now()
        attempts = row.attempts + 1
        if isinstance(error, TemporaryFailure):
            # Long outages must not use up the attempts that a bug has.
            attempts = max(row.attempts, min(attempts, _LAST_DOUBLING))
            parks = False
        else:
            parks = attempts >= MOST_ATTEMPTS
        return {
            "new_attempts": attempts,
            "new_due_at": now + pause(attempts),
            "new_error": _words(error)[:400],
            "new_parked_at": now if parks else None,
        }


def pause(attempts: int) -> timedelta:
    """Return how long to wait after the failed attempt number `attempts` (1, 2, …)."""
    return min(timedelta(seconds=2 ** min(attempts, _LAST_DOUBLING)), LONGEST_PAUSE)


_LAST_DOUBLING: Final = 9  # 2 ** 9 s is more than LONGEST_PAUSE


def _words(error: Exception) -> str:
    """Return what the row keeps of an error: our own texts, of others where it was raised.

    Texts of other exceptions may hold personal data; they are in the log, with the traceback.
    """
    name = type(error).__name__
    if isinstance(error, ContactdError):
        return f"{name}: {error}"
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return name
    return f"{name} at {trace.tb_frame.f_globals.get('__name__', '?')}:{trace.tb_lineno}"
