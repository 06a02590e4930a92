"""timers: how late timers fire beside a million that are armed, and what the relay costs idle.

A million timers, each with its own key, are armed for the next thirty days, in SQLite and in a
PostgreSQL with its settings as they come (every commit on the disk). Lateness, from `due_at` to the
handler: `RATE` more a second become due for `FOR_S`, and once `BURST` at the same instant, as at a
change of shifts. The bare thing is a loop over the same table that sleeps until the smallest
`due_at`, deletes what is due in one transaction and has no leases, handlers or retries. Idle: the
processor time of the relay, its drivers and the database while nothing is due, over `IDLE_S`; the
bare thing asks once a second for the smallest `due_at`.
"""

import asyncio
import os
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol

import asyncpg

from bench.figures import Figure, Judged, percentile
from contactd import log
from contactd.clock import SystemClock
from contactd.signals import Signals
from contactd.store.engine import Database, upgrade
from contactd.store.outbox import Relay
from contactd.tickets.events import Due, TicketDue
from tests.fakes.postgres import postgres_server

ARMED: Final = 1_000_000
RATE: Final = 20
FOR_S: Final = 60
BURST: Final = 200
IDLE_S: Final = 30.0
SETTLE_S: Final = 3.0
BARE_AT_ONCE: Final = 16

# From an hour on, spread over thirty days, in no order.
_ARM_SQLITE: Final = f"""
    WITH RECURSIVE numbers(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < {ARMED})
    INSERT INTO outbox (kind, body, dedup_key, created_at, due_at)
    SELECT 'TicketDue', json_object('ticket_id', i), 'ticket-' || i || '-answer-75',
        strftime('%Y-%m-%dT%H:%M:%f000Z', 'now'),
        strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', (3600 + i * 7919 % 2592000) || ' seconds')
    FROM numbers"""
_ARM_POSTGRESQL: Final = f"""
    INSERT INTO outbox (kind, body, dedup_key, created_at, due_at)
    SELECT 'TicketDue', json_build_object('ticket_id', i), 'ticket-' || i || '-answer-75',
        now(), now() + (3600 + i::bigint * 7919 % 2592000) * interval '1 second'
    FROM generate_series(1, {ARMED}) AS numbers(i);
    VACUUM ANALYZE outbox;
    CHECKPOINT"""  # which would come by themselves in the middle


class Bare(Protocol):
    """The least that a table of timers needs."""

    async def next_due(self) -> datetime: ...

    async def take(self) -> Sequence[datetime]:
        """Delete some timers that are due; return when they were."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Armed:
    """A database with a million armed timers."""

    url: str
    bare: Bare
    cpu_s: Callable[[], float]  # processor time of everything that has to do with it, so far


class _BareSqlite:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def next_due(self) -> datetime:
        found = self._connection.execute("SELECT min(due_at) FROM outbox WHERE parked_at IS NULL")
        return datetime.fromisoformat(found.fetchone()[0])

    async def take(self) -> Sequence[datetime]:
        found = self._connection.execute(
            "DELETE FROM outbox WHERE id IN (SELECT id FROM outbox"
            " WHERE parked_at IS NULL AND due_at <= ? ORDER BY due_at LIMIT ?) RETURNING due_at",
            (f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}", BARE_AT_ONCE),
        )
        return [datetime.fromisoformat(due_at) for (due_at,) in found.fetchall()]


class _BarePostgresql:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def next_due(self) -> datetime:
        found: datetime = await self._connection.fetchval(
            "SELECT min(due_at) FROM outbox WHERE parked_at IS NULL"
        )
        return found

    async def take(self) -> Sequence[datetime]:
        found = await self._connection.fetch(
            "DELETE FROM outbox WHERE id IN (SELECT id FROM outbox"
            " WHERE parked_at IS NULL AND due_at <= $1 ORDER BY due_at LIMIT $2) RETURNING due_at",
            *(datetime.now(UTC), BARE_AT_ONCE),
        )
        return [row["due_at"] for row in found]


async def measure() -> list[Figure]:
    log.configure(level="ERROR", json=True)
    return [*await _figures("sqlite", _sqlite()), *await _figures("postgresql", _postgresql())]


async def _figures(name: str, opened: AbstractAsyncContextManager[_Armed]) -> list[Figure]:
    async with opened as armed:
        bare_idle = await _bare_idle(armed)
        idle = await _idle(armed)
        bare_late = await _bare_lateness(armed)
        late = await _lateness(armed)
    return [
        Figure(
            name=f"timers_{name}_p99",
            what=f"lateness of timers beside {ARMED:,} armed ones, 99th percentile;"
            " bare: DELETE what is due",
            unit="ms",
            ours=percentile(late, 99) * 1000,
            bare=percentile(bare_late, 99) * 1000,
            judged=Judged.OURS,
            target=1000,
        ),
        Figure(
            name=f"timers_{name}_idle",
            what="processor time of relay and database while none of them is due;"
            " bare: the smallest due_at once a second",
            unit="% of a core",
            ours=idle * 100,
            bare=bare_idle * 100,
        ),
    ]


@asynccontextmanager
async def _sqlite() -> AsyncIterator[_Armed]:
    with tempfile.TemporaryDirectory(prefix="contactd-bench-") as folder:
        path = Path(folder) / "contactd.sqlite3"
        await upgrade(f"sqlite:///{path}")
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(_ARM_SQLITE)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            yield _Armed(
                url=f"sqlite:///{path}", bare=_BareSqlite(connection), cpu_s=time.process_time
            )


@asynccontextmanager
async def _postgresql() -> AsyncIterator[_Armed]:
    with postgres_server(settings={}) as server:
        url = server.create("bench")
        await upgrade(url)
        for statement in _ARM_POSTGRESQL.split(";"):
            server.psql("bench", statement)
        connection = await asyncpg.connect(url)
        try:
            yield _Armed(
                url=url,
                bare=_BarePostgresql(connection),
                cpu_s=lambda: time.process_time() + _family_cpu_s(server.pid),
            )
        finally:
            await connection.close()


def _family_cpu_s(pid: int) -> float:
    """Return the processor time of a process, of its children, and of those that have ended."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text(encoding="utf-8", errors="replace")
        except OSError:  # it has ended meanwhile
            continue
        fields = text.rpartition(")")[2].split()  # from the third on: proc(5)
        if int(stat.parent.name) == pid:
            ticks += sum(map(int, fields[11:15]))
        elif int(fields[1]) == pid:
            ticks += sum(map(int, fields[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


async def _idle(armed: _Armed) -> float:
    async def nothing(_event: TicketDue) -> None: ...

    clock = SystemClock()
    database = Database(armed.url, clock=clock)
    relay = Relay(database, {TicketDue: nothing}, clock, Signals())
    async with database.running(), relay.running():
        await asyncio.sleep(SETTLE_S)
        began = armed.cpu_s()
        await asyncio.sleep(IDLE_S)
        return (armed.cpu_s() - began) / IDLE_S


async def _bare_idle(armed: _Armed) -> float:
    began, until = armed.cpu_s(), time.monotonic() + IDLE_S
    while time.monotonic() < until:
        await armed.bare.next_due()
        await asyncio.sleep(1)
    return (armed.cpu_s() - began) / IDLE_S


async def _lateness(armed: _Armed) -> list[float]:
    """Return how many seconds late each timer of a minute fired."""
    clock = SystemClock()
    database = Database(armed.url, clock=clock)
    late: list[float] = []
    everything = asyncio.Event()

    async def fired(event: TicketDue) -> None:
        late.append((clock.now() - dues[event.ticket_id]).total_seconds())
        if len(late) == len(dues):
            everything.set()

    relay = Relay(database, {TicketDue: fired}, clock, Signals())
    async with database.running():
        dues = await _arm(database, "ours")
        async with relay.running(), asyncio.timeout(2 * FOR_S):
            await everything.wait()
    return late


async def _bare_lateness(armed: _Armed) -> list[float]:
    database = Database(armed.url)
    async with database.running():
        dues = await _arm(database, "bare")
    late: list[float] = []
    while len(late) < len(dues):
        until_s = (await armed.bare.next_due() - datetime.now(UTC)).total_seconds()
        await asyncio.sleep(max(until_s, 0))
        taken = await armed.bare.take()
        now = datetime.now(UTC)
        late += [(now - due_at).total_seconds() for due_at in taken]
    return late


async def _arm(database: Database, key: str) -> list[datetime]:
    """Arm the timers of the next minute; return when they are due."""
    first = datetime.now(UTC) + timedelta(seconds=SETTLE_S)
    steady = [first + timedelta(seconds=number / RATE) for number in range(RATE * FOR_S)]
    dues = steady + BURST * [first + timedelta(seconds=FOR_S / 2)]
    async with database.new_work() as work:
        for number, due_at in enumerate(dues):
            event = TicketDue(ticket_id=number)
            work.emit(Due(event=event, due_at=due_at, dedup_key=f"{key}-{number}"))
        await work.commit()
    return dues
