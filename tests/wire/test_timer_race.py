"""Two processes on one PostgreSQL: each timer fires once, and after a crash at least once."""

import asyncio
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

import pytest
from sqlalchemy import text

from contactd.store.engine import Database
from contactd.store.outbox import IN_HAND, LEASE
from contactd.tickets.events import Due, TicketDue
from tests.fakes.timers import TABLE
from tests.fakes.waiting import eventually

TIMERS: Final = 10_000
WITHIN_S: Final = 50.0
LOOK_S: Final = 0.1  # looking must not cost what the race needs


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[Database]:
    database = Database(postgres_url)
    async with database.running():
        async with database.writing() as connection:
            await connection.execute(text(TABLE))
        yield database


@asynccontextmanager
async def process(
    url: str, name: str, *, ahead: timedelta = timedelta(), dies_after: int = 0
) -> AsyncIterator[Process]:
    """Run a relay in a process, and at the end of the block let it end by itself."""
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.fakes.timers", url, name),
        *(str(ahead.total_seconds()), str(dies_after)),
        stdin=PIPE,
        stdout=PIPE,
    )
    assert running.stdin is not None
    assert running.stdout is not None
    try:
        assert await running.stdout.readline() == b"ready\n"
        yield running
        running.stdin.close()
        async with asyncio.timeout(WITHIN_S):
            assert await running.wait() == (-signal.SIGKILL if dies_after else 0)
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()


async def arm(database: Database, number: int, *, first: datetime, over: timedelta) -> None:
    async with database.new_work() as work:
        for ticket in range(number):
            event = TicketDue(ticket_id=ticket)
            due_at = first + ticket * over / number
            work.emit(Due(event=event, due_at=due_at, dedup_key=f"race-{ticket}"))
        await work.commit()


async def firings(database: Database) -> dict[int, list[str]]:
    """Return which processes fired each ticket's timer."""
    async with database.reading() as connection:
        found = await connection.execute(text("SELECT ticket_id, process FROM fired"))
        fired: dict[int, list[str]] = {}
        for ticket, name in found:
            fired.setdefault(ticket, []).append(name)
        return fired


async def is_empty(database: Database, *, but_for_leases: bool = False) -> bool:
    """Tell whether all rows are done."""
    where = "WHERE lease_until IS NULL" if but_for_leases else ""
    async with database.reading() as connection:
        found = await connection.execute(text(f"SELECT 1 FROM outbox {where} LIMIT 1"))
        return found.first() is None


async def number_left(database: Database) -> int:
    async with database.reading() as connection:
        count: int = (await connection.execute(text("SELECT count(*) FROM outbox"))).scalar_one()
        return count


async def test_two_processes_race_for_ten_thousand_timers_and_each_fires_once(
    database: Database, postgres_url: str
) -> None:
    async with process(postgres_url, "one"), process(postgres_url, "two"):
        soon = datetime.now(UTC) + timedelta(seconds=2)
        await arm(database, TIMERS, first=soon, over=timedelta(seconds=5))
        await eventually(partial(is_empty, database), within_s=WITHIN_S, every_s=LOOK_S)
    fired = await firings(database)
    assert fired.keys() == set(range(TIMERS))
    assert [names for names in fired.values() if len(names) != 1] == []
    share = sum(names == ["one"] for names in fired.values())
    assert TIMERS // 10 < share < TIMERS * 9 // 10


async def test_what_a_process_that_is_killed_had_in_hand_is_taken_over_when_its_leases_end(
    database: Database, postgres_url: str
) -> None:
    async with (
        process(postgres_url, "one", dies_after=100) as dying,
        process(postgres_url, "two"),
    ):
        soon = datetime.now(UTC) + timedelta(seconds=1)
        await arm(database, 2_000, first=soon, over=timedelta(seconds=1))
        async with asyncio.timeout(WITHIN_S):
            await dying.wait()
        only_leased = partial(is_empty, database, but_for_leases=True)
        await eventually(only_leased, within_s=WITHIN_S, every_s=LOOK_S)
    left = await number_left(database)
    assert 0 < left <= IN_HAND
    async with process(postgres_url, "later", ahead=LEASE):
        await eventually(partial(is_empty, database), within_s=WITHIN_S, every_s=LOOK_S)
    fired = await firings(database)
    assert fired.keys() == set(range(2_000))
    twice = [sorted(names) for names in fired.values() if len(names) > 1]
    assert 0 < len(twice) <= left
    assert all(names == ["later", "one"] for names in twice)
