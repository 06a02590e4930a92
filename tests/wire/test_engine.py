"""The database goes away, comes back, is locked: nothing is half stored and nothing hangs."""

import asyncio
import sqlite3
import threading
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Executable, insert, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, StatementError

from contactd.errors import TemporaryFailure
from contactd.service import HealthState
from contactd.store import engine
from contactd.store.engine import Database, migrate
from contactd.store.schema import contacts, outbox, people, tokens
from contactd.store.sqlite import SOON, CrossingConnection
from contactd.tickets.contact import Contact, Medium
from contactd.tickets.events import CallEnded, Due, EscalationDue
from contactd.tickets.model import TicketPolicy
from contactd.tickets.ports import Conflict
from contactd.tickets.service import TicketService
from tests.fakes.cable import Cable
from tests.fakes.clock import FakeClock
from tests.fakes.postgres import PostgresServer, postgres_server
from tests.fakes.waiting import WITHIN_S, until

START = datetime(2026, 11, 20, 2, 0, tzinfo=UTC)


def call(number: int) -> Contact:
    return Contact(medium=Medium.CALL, external_id=f"pbx1-1.{number}", received_at=START)


async def write(database: Database, *statements: Executable) -> None:
    async with database.writing() as connection:
        for statement in statements:
            await connection.execute(statement)


async def stored(database: Database) -> int:
    async with database.reading() as connection:
        return len((await connection.execute(select(contacts.c.id))).all())


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[PostgresServer]:
    """Start a cluster that a test may stop without hurting the others."""
    with postgres_server() as server:
        server.create("contactd")
        migrate(server.url("contactd"))
        yield server


async def test_a_restart_of_postgresql_is_a_temporary_failure_and_heals(
    own_postgres: PostgresServer, clock: FakeClock
) -> None:
    database = Database(own_postgres.url("contactd"), clock=clock)
    async with database.running():
        tickets = TicketService(database.new_work, clock, TicketPolicy())
        await tickets.receive(call(1))
        async with database.reading() as connection:
            await connection.execute(text("SELECT 1"))
        own_postgres.stop()
        for _ in range(2):
            with pytest.raises(TemporaryFailure):
                await tickets.receive(call(2))
        assert database.health()[0].state is HealthState.DOWN
        own_postgres.start()
        assert (await tickets.receive(call(2))).new_contact
        assert database.health()[0].state is HealthState.UP
        # Restarted while nobody looked: not even the first call after it fails.
        own_postgres.stop()
        own_postgres.start()
        assert (await tickets.receive(call(3))).new_contact
        assert await stored(database) == 3


async def test_a_restart_in_the_middle_of_a_transaction_undoes_it(
    own_postgres: PostgresServer, clock: FakeClock
) -> None:
    database = Database(own_postgres.url("contactd"), clock=clock)
    async with database.running():

        async def half() -> None:
            async with database.writing() as connection:
                await connection.execute(insert(people).values(key="half", created_at=START))
                own_postgres.stop()
                own_postgres.start()

        with pytest.raises(TemporaryFailure):
            await half()
        async with database.reading() as connection:
            found = await connection.execute(select(people).where(people.c.key == "half"))
            assert found.all() == []


async def test_a_postgresql_that_is_not_there_is_a_temporary_failure() -> None:
    with pytest.raises(TemporaryFailure, match="cannot be reached"):
        await Database("postgresql://nobody@127.0.0.1:1/none").open()


async def test_a_postgresql_that_hangs_is_given_up_and_heals(
    own_postgres: PostgresServer, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("COMMAND_TIMEOUT_S", "CONNECT_TIMEOUT_S"):
        monkeypatch.setattr(engine, limit, 0.3)
    monkeypatch.setattr(engine, "HANGS_AFTER_S", 0.05)
    async with Cable.laid() as cable:
        cable.target = ("127.0.0.1", own_postgres.port)
        url = own_postgres.url("contactd").replace(f":{own_postgres.port}/", f":{cable.port}/")
        database = Database(url, clock=clock)
        async with database.running(), asyncio.timeout(WITHIN_S):
            tickets = TicketService(database.new_work, clock, TicketPolicy())
            await tickets.receive(call(11))
            async with database.writing(), database.writing():
                pass  # the pool has two connections; one that hangs tells of the other
            cable.silence()
            filing = asyncio.ensure_future(tickets.receive(call(12)))
            await until(lambda: "has been open for" in database.health()[0].detail)
            assert database.health()[0].state is HealthState.DOWN
            with pytest.raises(TemporaryFailure, match="does not answer"):
                await filing
            with pytest.raises(TemporaryFailure, match="cannot be reached"):
                await tickets.receive(call(12))
            assert database.health()[0].state is HealthState.DOWN
            cable.plug()
            assert (await tickets.receive(call(12))).new_contact
            assert database.health()[0].state is HealthState.UP


async def test_a_transaction_of_sqlite_that_does_not_end_fails_the_others_in_time(
    sqlite_url: str, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "WRITE_WAIT_S", 0.05)
    monkeypatch.setattr(engine, "HANGS_AFTER_S", 0.0)
    database = Database(sqlite_url, clock=clock)
    async with database.running():
        tickets = TicketService(database.new_work, clock, TicketPolicy())
        async with asyncio.timeout(WITHIN_S), database.writing():
            assert "has been open for" in database.health()[0].detail
            with pytest.raises(TemporaryFailure, match="busy"):
                await tickets.receive(call(1))
            assert database.health()[0].state is HealthState.DOWN
        assert (await tickets.receive(call(1))).new_contact
        assert database.health()[0].state is HealthState.UP


async def test_what_is_urgent_waits_for_one_of_those_that_are_not(
    sqlite_url: str, clock: FakeClock
) -> None:
    database = Database(sqlite_url, clock=clock)
    order: list[str] = []

    async def follow(number: int) -> None:
        async with database.new_work():
            order.append(f"follow {number}")

    async def file() -> None:
        async with database.new_work(urgent=True):
            order.append("file")

    async with (
        database.running(),
        asyncio.timeout(WITHIN_S),
        asyncio.TaskGroup() as tasks,
        database.writing(),
    ):
        for number in range(3):
            tasks.create_task(follow(number))
        await asyncio.sleep(0.05)  # they queue
        tasks.create_task(file())
        await asyncio.sleep(0.05)
    assert order == ["file", "follow 0", "follow 1", "follow 2"]


async def test_who_is_not_urgent_makes_way_for_what_comes_in_but_not_for_ever(
    sqlite_url: str, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "WAY_S", 0.2)
    database = Database(sqlite_url, clock=clock)
    order: list[str] = []

    async def work(name: str, *, urgent: bool = False) -> None:
        async with database.new_work(urgent=urgent):
            order.append(name)

    async def more_and_more() -> None:
        while "follow" not in order:
            database.make_way()
            await asyncio.sleep(0.01)

    async with database.running(), asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as tasks:
        database.make_way()
        tasks.create_task(work("follow"))
        tasks.create_task(more_and_more())
        await asyncio.sleep(0.05)  # a mail is read
        tasks.create_task(work("file", urgent=True))
    assert order == ["file", "follow"]


async def test_the_wal_is_copied_by_who_is_not_urgent_once_in_a_while(
    sqlite_url: str, clock: FakeClock
) -> None:
    file = Path(sqlite_url.removeprefix("sqlite:///"))
    database = Database(sqlite_url, clock=clock)

    async def add(name: str, *, urgent: bool) -> bool:
        """Return whether the name is in the database itself once it is committed."""
        async with database.new_work(urgent=urgent) as work:
            await work.connection.execute(insert(people).values(name=name, created_at=START))
            await work.commit()
        return name.encode() in file.read_bytes()

    async with database.running():
        assert not await add("Wang Wei", urgent=True)
        assert await add("Li Na", urgent=False)
        assert b"Wang Wei" in file.read_bytes()
        assert not await add("Zhang San", urgent=False)  # it is too early


async def test_pages_that_take_every_connection_they_get_leave_the_hotline_its_own(
    database: Database, tickets: TicketService, monkeypatch: pytest.MonkeyPatch
) -> None:
    filed = await tickets.receive(call(1))
    ends = asyncio.Event()

    async def look() -> None:
        with suppress(TemporaryFailure):  # too many pages
            async with database.reading():
                await ends.wait()

    async with asyncio.TaskGroup() as pages:
        for _ in range(4 * engine.PAGE_READERS):
            pages.create_task(look())
        await asyncio.sleep(0.1)  # they have what they can get
        async with asyncio.timeout(WITHIN_S):
            assert (await tickets.receive(call(2))).new_contact
            assert await tickets.progress(filed.ticket) is not None
        ends.set()


async def test_what_was_to_be_stored_is_not_told_by_an_error(database: Database) -> None:
    person = {"name": "secret name", "vip": None, "created_at": START}
    with pytest.raises(IntegrityError) as caught:
        await write(database, insert(people).values(person))
    assert "secret name" not in "".join(traceback.format_exception(caught.value))


async def test_a_locked_sqlite_is_a_temporary_failure(
    sqlite_url: str, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "BUSY_TIMEOUT_S", 0.05)
    database = Database(sqlite_url, clock=clock)
    other = sqlite3.connect(Path(sqlite_url.removeprefix("sqlite:///")), isolation_level=None)
    async with database.running():
        tickets = TicketService(database.new_work, clock, TicketPolicy())
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(TemporaryFailure, match="locked"):
            await tickets.receive(call(1))
        assert await stored(database) == 0  # readers go on
        other.execute("ROLLBACK")
        assert (await tickets.receive(call(1))).new_contact
    other.close()


async def test_a_database_that_is_closed_in_the_middle_of_a_statement_leaves_no_thread(
    sqlite_url: str,
) -> None:
    """It would tell an event loop that is closed."""
    before = set(threading.enumerate())
    database = Database(sqlite_url)
    await database.open()
    asks = asyncio.create_task(_asks_for_long(database))
    await asyncio.sleep(0.1)
    asks.cancel()
    await asyncio.wait([asks])
    await database.close()
    left = {each.name for each in set(threading.enumerate()) - before}
    assert [name for name in left if "connection_worker" in name] == []


async def _asks_for_long(database: Database) -> None:
    async with database.reading() as connection:
        await connection.execute(
            text(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000000)"
                " SELECT count(*) FROM n"
            )
        )


async def test_a_closed_database_is_a_temporary_failure(
    database: Database, tickets: TicketService
) -> None:
    await database.close()
    with pytest.raises(TemporaryFailure):
        await tickets.receive(call(1))
    await database.open()
    await tickets.receive(call(1))


async def test_work_that_is_not_committed_is_undone(database: Database) -> None:
    async with database.new_work() as work:
        work.emit(CallEnded(ticket_id=1, contact_id=1))
        assert await work.tickets.next_sequence("261120", 3) == 1
    async with database.new_work() as work:
        assert await work.tickets.next_sequence("261120", 1) == 1
        await work.commit()
    async with database.reading() as connection:
        assert (await connection.execute(select(outbox))).all() == []


async def test_an_error_inside_a_block_undoes_it_and_passes_through(database: Database) -> None:
    async def fails() -> None:
        async with database.writing() as connection:
            await connection.execute(insert(people).values(created_at=START))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fails()
    async with database.reading() as connection:
        assert (await connection.execute(select(people))).all() == []
    assert database.health()[0].state is HealthState.UP


async def test_a_cancelled_transaction_is_undone_and_lets_the_next_one_in(
    database: Database, tickets: TicketService
) -> None:
    for delay in range(12):
        task = asyncio.ensure_future(tickets.receive(call(delay)))
        for _ in range(delay * 3):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    filed = await asyncio.wait_for(tickets.receive(call(99)), 5)
    assert filed.new_contact
    for number in range(12):
        await tickets.receive(call(number))
    assert await stored(database) == 13


async def test_a_broken_constraint_is_a_bug_but_a_taken_key_is_a_conflict(
    database: Database,
) -> None:
    row = {"name": "a", "role": "desk", "hash": b"1", "created_at": START}
    for wrong, kind in (({"name": None}, IntegrityError), ({}, Conflict)):
        with pytest.raises(kind):
            await write(database, insert(tokens).values(row), insert(tokens).values(row | wrong))


async def test_what_nobody_waits_to_hear_of_crosses_with_what_comes_next(
    sqlite_url: str, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    crossings: list[int] = []
    execute = CrossingConnection._execute

    async def counted(self: CrossingConnection, *arguments: Any, **names: Any) -> Any:
        crossings.append(1)
        return await execute(self, *arguments, **names)  # type: ignore[no-untyped-call]

    soon = insert(people).values(created_at=START).execution_options(**SOON)
    database = Database(sqlite_url, clock=clock)
    async with database.running():
        monkeypatch.setattr(CrossingConnection, "_execute", counted)
        async with database.new_work(urgent=True) as work:
            crossings.clear()
            await work.connection.execute(soon)
            await work.connection.execute(soon)
            assert len((await work.connection.execute(select(people))).all()) == 2
            await work.connection.execute(soon)
            await work.commit()
        assert len(crossings) == 2  # the question and the commit
        async with database.new_work(urgent=True) as work:
            await work.connection.execute(soon)  # and is not committed
        async with database.reading() as connection:
            assert len((await connection.execute(select(people))).all()) == 3


async def test_what_fails_with_the_commit_undoes_everything_and_lets_the_next_one_in(
    database: Database, tickets: TicketService
) -> None:
    row = {"name": "a", "role": "desk", "hash": b"1", "created_at": START}
    soon = insert(tokens).values(row).execution_options(**SOON)
    with pytest.raises(Conflict):
        await write(database, insert(people).values(created_at=START), soon, soon)
    async with database.reading() as connection:
        assert (await connection.execute(select(people))).all() == []
    assert (await tickets.receive(call(1))).new_contact


async def test_wrong_sql_is_a_bug(database: Database) -> None:
    with pytest.raises(DBAPIError):
        async with database.reading() as connection:
            await connection.execute(text("SELECT nothing FROM nowhere"))


async def test_a_reader_cannot_write(database: Database) -> None:
    with pytest.raises((TemporaryFailure, DBAPIError), match=r"read-?only"):
        async with database.reading() as connection:
            await connection.execute(insert(people).values(created_at=START))
    with pytest.raises((TemporaryFailure, DBAPIError), match=r"read-?only"):
        async with database.new_work(reads_only=True) as work:
            await work.tickets.next_sequence("261120", 1)


async def test_a_reader_sees_one_state_and_waits_for_nobody(
    database: Database, tickets: TicketService
) -> None:
    async with database.reading() as connection:
        before = (await connection.execute(select(contacts))).all()
        await tickets.receive(call(1))
        assert (await connection.execute(select(contacts))).all() == before
    async with database.new_work():  # a filer that takes its time
        assert await asyncio.wait_for(tickets.progress("26112000018"), 5) is not None


async def test_a_due_event_with_a_key_is_stored_once(database: Database, clock: FakeClock) -> None:
    event = EscalationDue(ticket_id=1, timer="step", generation=2)
    due = Due(event=event, due_at=clock.now() + timedelta(minutes=1), dedup_key="page/1/0")
    for _ in range(2):
        async with database.new_work() as work:
            work.emit(due)
            work.emit(due)
            await work.commit()
    async with database.reading() as connection:
        found = (await connection.execute(select(outbox))).mappings().all()
    assert [(row["kind"], row["due_at"]) for row in found] == [("EscalationDue", due.due_at)]
    assert found[0]["body"] == asdict(event)


async def test_an_instant_keeps_its_microseconds_and_must_be_aware(database: Database) -> None:
    at = datetime(2026, 11, 20, 2, 0, 0, 123456, tzinfo=UTC)
    await write(database, insert(people).values(key="a", created_at=at))
    async with database.reading() as connection:
        assert (await connection.execute(select(people.c.created_at))).scalar_one() == at
        found = await connection.execute(select(people.c.key).where(people.c.created_at <= at))
        assert found.scalar_one() == "a"
    naive = at.replace(tzinfo=None)
    with pytest.raises(StatementError, match="aware"):
        await write(database, insert(people).values(key="b", created_at=naive))
