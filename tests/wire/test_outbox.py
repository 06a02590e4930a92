"""The relay on both databases: each event reaches its handler, whatever fails in between."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from datetime import datetime, timedelta
from statistics import median
from typing import Any, Final

import pytest
import structlog
from sqlalchemy import ClauseElement, Executable, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from contactd.clock import Clock, SystemClock
from contactd.errors import TemporaryFailure
from contactd.metrics import OUTBOX_LAG, OUTBOX_PARKED
from contactd.service import Health, HealthState
from contactd.signals import Signals, Topic
from contactd.store import engine
from contactd.store import outbox as outbox_module
from contactd.store.engine import STORM, Database
from contactd.store.outbox import IN_HAND, LEASE, MOST_ATTEMPTS, MOST_COUNTED, Relay, figures, pause
from contactd.store.schema import outbox
from contactd.tickets.events import CallEnded, Due, DutyDue, Event
from tests.fakes.clock import FakeClock
from tests.fakes.waiting import WITHIN_S, until


class Recorder:
    """A handler that remembers what it was given, and fails when told to."""

    def __init__(self) -> None:
        self.seen: list[Event] = []
        self.failure: Exception | None = None

    async def __call__(self, event: Event) -> None:
        self.seen.append(event)
        if self.failure is not None:
            raise self.failure


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[MutableMapping[str, Any]]]:
    with structlog.testing.capture_logs() as entries:
        yield entries


@pytest.fixture
def handler() -> Recorder:
    return Recorder()


@pytest.fixture
def relay(database: Database, clock: FakeClock, handler: Recorder) -> Relay:
    return relay_of(database, clock, handler)


def relay_of(
    database: Database,
    clock: Clock,
    handler: Callable[[Any], Awaitable[None]],
    **settings: Any,
) -> Relay:
    signals = settings.pop("signals", None) or Signals()
    return Relay(database, {CallEnded: handler}, clock, signals, **settings)


async def emit(database: Database, *events: Event | Due) -> None:
    async with database.new_work() as work:
        for event in events:
            work.emit(event)
        await work.commit()


async def rows(database: Database) -> list[Any]:
    async with database.reading() as connection:
        return list((await connection.execute(select(outbox).order_by(outbox.c.id))).all())


def ended(number: int) -> CallEnded:
    return CallEnded(ticket_id=number, contact_id=number)


async def test_an_event_reaches_its_handler_once_and_its_row_is_gone(
    database: Database, relay: Relay, handler: Recorder
) -> None:
    await emit(database, ended(1), ended(2))
    assert await relay.drain() == 2
    assert handler.seen == [ended(1), ended(2)]
    assert await rows(database) == []
    assert await relay.drain() == 0


async def test_an_event_that_nobody_handles_is_done(
    database: Database, relay: Relay, handler: Recorder
) -> None:
    await emit(database, DutyDue(site="s1"))
    assert await relay.drain() == 1
    assert handler.seen == []
    assert await rows(database) == []


async def test_a_timer_waits_until_it_is_due(
    database: Database, relay: Relay, handler: Recorder, clock: FakeClock
) -> None:
    await emit(database, Due(event=ended(1), due_at=clock.now() + timedelta(minutes=30)))
    clock.advance(timedelta(minutes=29, seconds=59))
    assert await relay.drain() == 0
    clock.advance(timedelta(seconds=1))
    assert await relay.drain() == 1
    assert handler.seen == [ended(1)]


async def test_events_that_are_due_come_in_the_order_of_their_times(
    database: Database, relay: Relay, handler: Recorder, clock: FakeClock
) -> None:
    for number, seconds in ((1, 30), (2, 10), (3, 20)):
        due_at = clock.now() + timedelta(seconds=seconds)
        await emit(database, Due(event=ended(number), due_at=due_at))
    clock.advance(timedelta(minutes=1))
    await relay.drain()
    assert handler.seen == [ended(2), ended(3), ended(1)]


async def test_a_handler_that_fails_is_tried_again_after_growing_pauses(
    database: Database,
    relay: Relay,
    handler: Recorder,
    clock: FakeClock,
    logged: list[MutableMapping[str, Any]],
) -> None:
    await emit(database, ended(1))
    handler.failure = ValueError("a secret number: 13800000001")
    for attempt, seconds in ((1, 2), (2, 4), (3, 8)):
        assert await relay.drain() == 1
        (row,) = await rows(database)
        assert (row.attempts, row.lease_until) == (attempt, None)
        assert row.due_at == clock.now() + timedelta(seconds=seconds)
        clock.advance(timedelta(seconds=seconds) - timedelta(milliseconds=1))
        assert await relay.drain() == 0
        clock.advance(timedelta(milliseconds=1))
    (row,) = await rows(database)
    assert row.error.startswith("ValueError at tests.wire.test_outbox:")
    assert "138" not in row.error
    assert [entry["event"] for entry in logged] == ["event.failed"] * 3
    handler.failure = None
    assert await relay.drain() == 1
    assert await rows(database) == []


def test_pauses_double_up_to_five_minutes() -> None:
    assert [pause(n).total_seconds() for n in (1, 2, 3, 8, 9, 20, 10_000)] == [
        2, 4, 8, 256, 300, 300, 300,
    ]  # fmt: skip


async def test_a_bug_is_parked_after_its_last_attempt_and_shown(
    database: Database, relay: Relay, handler: Recorder, clock: FakeClock
) -> None:
    await emit(database, ended(1))
    handler.failure = ValueError("bug")
    for _ in range(MOST_ATTEMPTS):
        assert await relay.drain() == 1
        clock.advance(timedelta(minutes=5))
    assert await relay.drain() == 0
    (row,) = await rows(database)
    assert row.parked_at is not None
    assert len(handler.seen) == MOST_ATTEMPTS
    async with relay.running():
        health = await health_of(relay, HealthState.DEGRADED)
    assert health.figures["parked"] == 1
    assert "1 given up" in health.detail
    assert OUTBOX_PARKED._value.get() == 1
    assert health.figures["lag_s"] == 0


async def health_of(relay: Relay, state: HealthState) -> Health:
    async with asyncio.timeout(WITHIN_S):
        while relay.health()[0].state is not state:
            await asyncio.sleep(0.005)
    return relay.health()[0]


async def test_a_temporary_failure_never_parks(
    database: Database, relay: Relay, handler: Recorder, clock: FakeClock
) -> None:
    await emit(database, ended(1))
    handler.failure = TemporaryFailure("the PBX is away")
    for _ in range(3 * MOST_ATTEMPTS):
        assert await relay.drain() == 1
        clock.advance(timedelta(minutes=5))
    (row,) = await rows(database)
    assert row.parked_at is None
    assert row.error == "TemporaryFailure: the PBX is away"
    handler.failure = None
    assert await relay.drain() == 1
    assert await rows(database) == []


async def test_a_long_outage_does_not_use_up_the_attempts_of_a_bug(
    database: Database, relay: Relay, handler: Recorder, clock: FakeClock
) -> None:
    await emit(database, ended(1))
    handler.failure = TemporaryFailure("away")
    for _ in range(2 * MOST_ATTEMPTS):
        await relay.drain()
        clock.advance(timedelta(minutes=5))
    handler.failure = ValueError("bug")
    for _ in range(5):
        await relay.drain()
        clock.advance(timedelta(minutes=5))
    assert (await rows(database))[0].parked_at is None


async def test_what_a_dead_process_had_in_hand_runs_again_when_its_lease_is_over(
    database: Database, clock: FakeClock, handler: Recorder, relay: Relay
) -> None:
    await emit(database, ended(1))
    begun = asyncio.Event()

    async def hang(event: CallEnded) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(relay_of(database, clock, hang).drain())
        await begun.wait()
        task.cancel()  # as a crash would: nothing is settled
    clock.advance(LEASE - timedelta(seconds=1))
    assert await relay.drain() == 0
    clock.advance(timedelta(seconds=1))
    assert await relay.drain() == 1
    assert handler.seen == [ended(1)]


async def test_a_process_that_was_frozen_does_not_undo_what_others_did_meanwhile(
    database: Database, clock: FakeClock, handler: Recorder, relay: Relay
) -> None:
    await emit(database, ended(1))
    begun, thawed = asyncio.Event(), asyncio.Event()

    async def freeze(event: CallEnded) -> None:
        begun.set()
        await thawed.wait()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(relay_of(database, clock, freeze).drain())
        await begun.wait()
        clock.advance(LEASE)
        handler.failure = TemporaryFailure("not yet")
        assert await relay.drain() == 1
        thawed.set()
    (row,) = await rows(database)  # its success came too late to delete the row
    assert (row.attempts, row.error) == (1, "TemporaryFailure: not yet")


async def test_a_handler_that_hangs_is_cut_off(
    database: Database, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "HANDLER_LIMIT", timedelta(seconds=0.01))

    async def hang(event: CallEnded) -> None:
        await asyncio.Event().wait()

    await emit(database, ended(1))
    assert await relay_of(database, clock, hang).drain() == 1
    (row,) = await rows(database)
    assert row.attempts == 1
    assert row.error.startswith("TimeoutError")


async def test_two_processes_never_run_a_row_at_the_same_time(
    database_url: str, clock: FakeClock
) -> None:
    running: set[int] = set()
    seen: list[int] = []
    everything = asyncio.Event()

    async def handle(event: CallEnded) -> None:
        assert event.ticket_id not in running
        running.add(event.ticket_id)
        await asyncio.sleep(0)  # lets the others run
        running.discard(event.ticket_id)
        seen.append(event.ticket_id)
        if len(seen) >= 200:
            everything.set()

    first, second = Database(database_url, clock=clock), Database(database_url, clock=clock)
    async with first.running(), second.running():
        await emit(first, *(ended(number) for number in range(200)))
        relays = [relay_of(each, clock, handle) for each in (first, second)]
        async with relays[0].running(), relays[1].running(), asyncio.timeout(WITHIN_S):
            await everything.wait()
        assert await rows(first) == []
    assert sorted(seen) == list(range(200))


async def test_a_signal_wakes_the_relay_within_50_ms_of_gathering(
    database: Database, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "_GATHER_S", 0)
    handled = asyncio.Event()

    async def handle(event: CallEnded) -> None:
        handled.set()

    signals = Signals()
    relay = relay_of(database, clock, handle, signals=signals, poll_s=60)
    took = []
    async with relay.running():
        await health_of(relay, HealthState.UP)
        for number in range(9):
            await emit(database, ended(number))
            started = time.perf_counter()
            signals.raise_(Topic.OUTBOX)
            async with asyncio.timeout(WITHIN_S):
                await handled.wait()
            took.append(time.perf_counter() - started)
            handled.clear()
    assert median(took) < 0.05


async def test_a_timer_fires_when_it_is_due_and_not_at_the_next_poll(
    database_url: str,
) -> None:
    clock = SystemClock()
    database = Database(database_url, clock=clock)
    late_s: list[float] = []
    everything = asyncio.Event()

    async def handle(event: CallEnded) -> None:
        due_at = start + event.ticket_id * timedelta(milliseconds=50)
        late_s.append((clock.now() - due_at).total_seconds())
        if len(late_s) == 9:
            everything.set()

    async with database.running():
        start = clock.now() + timedelta(milliseconds=500)
        for number in range(9):
            due_at = start + number * timedelta(milliseconds=50)
            await emit(database, Due(event=ended(number), due_at=due_at))
        async with (
            relay_of(database, clock, handle, poll_s=60).running(),
            asyncio.timeout(WITHIN_S),
        ):
            await everything.wait()
    assert min(late_s) >= 0
    assert median(late_s) < 0.05


async def test_a_relay_waits_quietly_beside_rows_that_others_have_in_hand(
    database: Database, clock: FakeClock, handler: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    await emit(database, ended(1), ended(2))
    other = relay_of(database, clock, handler)
    assert len((await other._claim(1)).rows) == 1
    relay = relay_of(database, clock, handler)
    assert await relay.drain() == 1
    looks = 0

    async def claim(most: int) -> Any:
        nonlocal looks
        looks += 1
        return await claims(most)

    claims = relay._claim
    monkeypatch.setattr(relay, "_claim", claim)
    monkeypatch.setattr(relay, "_poll_s", 0.1)
    began = time.perf_counter()
    async with relay.running():
        await until(lambda: looks >= 4)
    assert time.perf_counter() - began >= 0.3
    assert looks <= 5  # the last one by being stopped
    assert handler.seen == [ended(2)]


async def test_rows_that_wait_for_somebody_delay_no_other(
    database: Database, clock: FakeClock
) -> None:
    release, other = asyncio.Event(), asyncio.Event()
    slow = 0

    async def handle(event: CallEnded) -> None:
        nonlocal slow
        if event.ticket_id == 100:
            other.set()
            return
        slow += 1
        await release.wait()

    await emit(database, *(ended(number) for number in range(IN_HAND - 1)))
    async with relay_of(database, clock, handle, poll_s=0.02).running(), asyncio.timeout(WITHIN_S):
        await until(lambda: slow == IN_HAND - 1)
        await emit(database, ended(100))
        await other.wait()
        release.set()
    assert await rows(database) == []


async def test_no_more_rows_are_claimed_than_there_is_room_for(
    database: Database, clock: FakeClock
) -> None:
    release = asyncio.Event()
    seen: list[int] = []

    async def handle(event: CallEnded) -> None:
        seen.append(event.ticket_id)
        await release.wait()

    await emit(database, *(ended(number) for number in range(7)))
    relay = relay_of(database, clock, handle, in_hand=3, poll_s=0.01)
    async with relay.running(), asyncio.timeout(WITHIN_S):
        await until(lambda: len(seen) == 3)
        await health_of(relay, HealthState.UP)
        assert len(await in_hand(database)) == 3
        release.set()
        await until(lambda: len(seen) == 7)
    assert sorted(seen) == list(range(7))
    assert await rows(database) == []


async def in_hand(database: Database) -> list[Any]:
    return [row for row in await rows(database) if row.lease_until is not None]


@pytest.mark.parametrize("statement", ["_CLAIM", "_NEXT_DUE", "_FIGURES"])
async def test_timers_that_are_not_due_cost_nothing(
    database: Database, clock: FakeClock, statement: str
) -> None:
    start = clock.now()
    timers = [
        {
            "kind": "CallEnded",
            "body": {"ticket_id": number, "contact_id": number},
            "dedup_key": f"timer-{number}",
            "created_at": start,
            "due_at": start + timedelta(days=1, seconds=number),
            "attempts": 0 if number < 19_990 else 20,
            "parked_at": None if number < 19_995 else start,
        }
        for number in range(20_000)
    ]
    async with database.writing() as connection:
        await connection.execute(insert(outbox), timers)
    await emit(database, *(ended(number) for number in range(10)))
    async with database.writing() as connection:
        await connection.execute(text("ANALYZE"))  # PostgreSQL does it by itself after a minute
        read = await ROWS_READ[database.dialect](
            connection,
            getattr(outbox_module, statement),
            {"now": start, "most": 16, "lease": start + LEASE},
        )
    assert 0 < read < 200


async def read_by_sqlite(
    connection: AsyncConnection, statement: Executable, values: dict[str, Any]
) -> int:
    """Return about how many rows SQLite reads: each takes ten steps of its machine, or more."""
    count = 0

    def step() -> int:
        nonlocal count
        count += 1
        return 0

    driver: Any = (await connection.get_raw_connection()).driver_connection
    await driver.set_progress_handler(step, 10)
    await connection.execute(statement, values)
    await driver.set_progress_handler(None, 0)
    return count


async def read_by_postgresql(
    connection: AsyncConnection, statement: ClauseElement, values: dict[str, Any]
) -> int:
    """Return how many rows PostgreSQL says that each step of its plan read, summed up."""
    compiled: Any = statement.compile(dialect=connection.dialect)
    known = tuple(compiled.construct_params(values)[name] for name in compiled.positiontup)
    explained = await connection.exec_driver_sql(
        f"EXPLAIN (ANALYZE, FORMAT JSON) {compiled}", known
    )
    return rows_of(explained.scalar_one()[0]["Plan"])


def rows_of(plan: dict[str, Any]) -> int:
    names = ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck")
    here = sum(plan.get(name, 0) for name in names) * plan["Actual Loops"]
    return int(here) + sum(map(rows_of, plan.get("Plans", [])))


ROWS_READ: Final[dict[str, Any]] = {"sqlite": read_by_sqlite, "postgresql": read_by_postgresql}


async def test_without_a_signal_the_relay_finds_the_event_by_polling(
    database: Database, clock: FakeClock
) -> None:
    handled = asyncio.Event()

    async def handle(event: CallEnded) -> None:
        handled.set()

    async with relay_of(database, clock, handle, poll_s=0.02).running():
        await emit(database, ended(1))
        async with asyncio.timeout(WITHIN_S):
            await handled.wait()


async def test_stopping_finishes_the_rows_in_hand_and_leaves_the_others(
    database: Database, clock: FakeClock
) -> None:
    release, begun = asyncio.Event(), asyncio.Event()
    seen: list[int] = []

    async def handle(event: CallEnded) -> None:
        seen.append(event.ticket_id)
        if len(seen) == 2:
            begun.set()
        await release.wait()

    async def release_later() -> None:
        await asyncio.sleep(0.05)
        release.set()

    await emit(database, *(ended(number) for number in range(4)))
    relay = relay_of(database, clock, handle, in_hand=2, poll_s=0.02)
    async with asyncio.TaskGroup() as tasks, asyncio.timeout(WITHIN_S), relay.running():
        await begun.wait()
        tasks.create_task(release_later())
    assert sorted(seen) == [0, 1]
    left = await rows(database)
    assert [row.body["ticket_id"] for row in left] == [2, 3]
    assert {row.lease_until for row in left} == {None}


@pytest.mark.parametrize(("kind", "body"), [("FromTheFuture", {}), ("CallEnded", {"ticket": 1})])
async def test_a_row_that_this_version_cannot_read_is_kept_and_harms_no_other(
    database: Database, relay: Relay, handler: Recorder, clock: FakeClock, kind: str, body: Any
) -> None:
    now = clock.now()
    async with database.writing() as connection:
        await connection.execute(
            insert(outbox), {"kind": kind, "body": body, "created_at": now, "due_at": now}
        )
    await emit(database, ended(2))
    assert await relay.drain() == 2
    assert handler.seen == [ended(2)]
    (row,) = await rows(database)
    assert (row.kind, row.attempts) == (kind, 1)


async def test_the_relay_goes_on_when_the_database_comes_back(
    database: Database,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    logged: list[MutableMapping[str, Any]],
) -> None:
    handled = asyncio.Event()

    async def handle(event: CallEnded) -> None:
        handled.set()

    tries = 0

    async def claim(most: int) -> Any:
        nonlocal tries
        tries += 1
        return await claims(most)

    relay = relay_of(database, clock, handle, poll_s=0.02)
    claims = relay._claim
    monkeypatch.setattr(relay, "_claim", claim)
    await emit(database, ended(1))
    await database.close()
    async with relay.running():
        health = await health_of(relay, HealthState.DOWN)
        assert "not started" in health.detail or "database" in health.detail
        await until(lambda: tries >= 6)
        assert [entry["event"] for entry in logged].count("outbox.waiting") == 1
        assert not handled.is_set()
        await database.open()
        async with asyncio.timeout(WITHIN_S):
            await handled.wait()
        await health_of(relay, HealthState.UP)
    assert relay.health()[0].state is HealthState.DOWN


async def test_the_figures_tell_how_late_and_how_full_the_outbox_is(
    database: Database, relay: Relay, handler: Recorder, clock: FakeClock
) -> None:
    start: datetime = clock.now()
    await emit(database, ended(1), Due(event=ended(2), due_at=start + timedelta(hours=1)))
    clock.advance(timedelta(seconds=90))
    found = await figures(database, clock.now())
    assert (found.waiting, found.retrying, found.parked) == (1, 0, 0)
    assert found.lag == timedelta(seconds=90)

    handler.failure = TemporaryFailure("away")
    await relay.drain()
    found = await figures(database, clock.now())
    assert (found.waiting, found.retrying, found.lag) == (0, 1, timedelta(0))


async def test_the_figures_count_no_further_than_anybody_wants_to_know(
    database: Database, clock: FakeClock
) -> None:
    await emit(database, *(ended(number) for number in range(MOST_COUNTED + 1)))
    assert (await figures(database, clock.now())).waiting == MOST_COUNTED


async def test_a_relay_that_falls_behind_says_so(database: Database, clock: FakeClock) -> None:
    begun, release = asyncio.Event(), asyncio.Event()

    async def handle(event: CallEnded) -> None:
        begun.set()
        await release.wait()

    relay = relay_of(database, clock, handle, in_hand=1, poll_s=0.02)
    async with relay.running(), asyncio.timeout(WITHIN_S):
        await emit(database, ended(1), ended(2))
        await begun.wait()
        clock.advance(timedelta(seconds=61))
        health = await health_of(relay, HealthState.DEGRADED)
        assert "61 s behind" in health.detail
        assert OUTBOX_LAG._value.get() == 61
        release.set()
        await health_of(relay, HealthState.UP)


async def test_in_a_storm_what_follows_waits_a_moment_and_then_goes_on(
    database: Database, clock: FakeClock, handler: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "STORM_PAUSE_S", 0.3)
    monkeypatch.setattr(engine, "STORM_S", 60.0)  # it does not pass while the test looks
    await emit(database, ended(1))
    for _ in range(STORM - 1):
        database.make_way()
    assert not database.is_storm
    database.make_way()
    assert database.is_storm
    async with relay_of(database, clock, handler).running():
        await asyncio.sleep(0.15)
        assert handler.seen == []
        await until(lambda: handler.seen == [ended(1)])
    monkeypatch.setattr(engine, "STORM_S", 0.0)
    assert not database.is_storm
