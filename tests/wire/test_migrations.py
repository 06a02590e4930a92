"""Alembic's revisions make exactly the tables of `schema`, on both databases."""

import asyncio
import gc
import json
import sqlite3
import threading
import time
import tomllib
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, bindparam, inspect, text
from sqlalchemy.engine.interfaces import ReflectedIndex

from contactd.errors import ConfigurationError, TemporaryFailure
from contactd.routing.deskfile import parse
from contactd.routing.oncall import on_duty
from contactd.store import duty, engine, sqlite
from contactd.store.engine import Database, driver_url, migrate, upgrade
from contactd.store.migrations import run as runner
from contactd.store.migrations.run import head, run
from contactd.store.schema import Instant, metadata
from tests.fakes.clock import FakeClock
from tests.fakes.postgres import PostgresServer
from tests.fakes.waiting import WITHIN_S


@pytest.fixture
def empty_url(database_url: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Return the URL of a database without tables, of the same kind as `database_url`."""
    if database_url.startswith("sqlite"):
        yield f"sqlite:///{tmp_path}/new folder/empty.sqlite3"
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    yield server.create("contactd_empty")
    server.drop("contactd_empty")


def in_words(index: ReflectedIndex) -> dict[str, object]:
    """Say which rows an index holds: reflection brings SQLite's condition as an object."""
    options = index.get("dialect_options", {})
    return {**index, "dialect_options": {name: str(each) for name, each in options.items()}}


def described(connection: Connection) -> dict[str, object]:
    """Say in plain values what a database holds; names of constraints included."""
    tables = inspect(connection)
    return {
        name: {
            "columns": [
                (each["name"], repr(each["type"]), each["nullable"], each["default"])
                for each in tables.get_columns(name)
            ],
            "primary": tables.get_pk_constraint(name),
            "unique": sorted(map(str, tables.get_unique_constraints(name))),
            "checks": sorted(map(str, tables.get_check_constraints(name))),
            "foreign": sorted(map(str, tables.get_foreign_keys(name))),
            "indexes": sorted(str(in_words(each)) for each in tables.get_indexes(name)),
        }
        for name in tables.get_table_names()
        if name != "alembic_version"
    }


def is_compared(_thing: object, name: str | None, *_more: object) -> bool:
    """Tell what Alembic compares: not SQLite's full-text index, nor the one that takes its place
    on PostgreSQL; what both are is in what is `described`."""
    return not (name or "").startswith(("search_index", "ix_search_texts_terms"))


async def test_the_revisions_and_the_schema_make_the_same_database(
    database: Database, empty_url: str
) -> None:
    engines = engine._engines(driver_url(empty_url), [])
    async with engines.writer.begin() as connection:
        await connection.run_sync(metadata.create_all)
        by_schema = await connection.run_sync(described)
    await engines.dispose()
    async with database.writing() as connection:
        assert await connection.run_sync(described) == by_schema
        differences = await connection.run_sync(
            lambda sync: compare_metadata(
                MigrationContext.configure(
                    sync, opts={"compare_type": True, "include_object": is_compared}
                ),
                metadata,
            )
        )
    assert differences == []


OLD_ROTA = """
{
  "sites": [
    {"key": "gz", "name_zh": "广州", "name_en": "Guangzhou", "zone": "Asia/Shanghai",
     "queue": "gz", "floor": "8000", "area_code": "20", "language": "zh"},
    {"key": "sz", "name_zh": "深圳", "name_en": "Shenzhen", "zone": "Asia/Shanghai",
     "queue": "sz", "floor": "8000", "area_code": "755", "language": "en"}
  ],
  "engineers": [
    {"key": "wang", "name": "王伟", "number": "+8613800000001", "language": "zh"},
    {"key": "li", "name": "李娜", "number": "8002", "language": "en"}
  ],
  "shifts": [
    {"site": "gz", "tier": 1, "engineer": "wang", "weekdays": [0, 1], "start": "08:00:00",
     "end": "20:00:00"},
    {"site": "gz", "tier": 1, "engineer": "wang", "weekdays": [2], "start": "08:00:00",
     "end": "00:00:00"},
    {"site": "*", "tier": 2, "engineer": "li", "weekdays": [0, 1, 2, 3, 4, 5, 6],
     "start": "20:00:00", "end": "08:00:00"}
  ],
  "overrides": [
    {"site": "gz", "tier": 1, "engineer": "li", "start": "2026-12-24T00:00:00Z",
     "end": "2026-12-25T00:00:00Z", "replaces": "wang"},
    {"site": "*", "tier": 2, "engineer": "wang", "start": "2026-12-24T00:00:00Z",
     "end": "2026-12-25T00:00:00Z", "replaces": ""}
  ]
}
"""
NEW_DESK = """
[[sites]]
key = "gz"
name_zh = "广州"
name_en = "Guangzhou"
floor = "8000"
area_code = "20"
[[sites]]
key = "sz"
name_zh = "深圳"
name_en = "Shenzhen"
floor = "8000"
area_code = "755"
language = "en"
[[engineers]]
key = "wang"
name = "王伟"
number = "138 0000 0001"
[[engineers]]
key = "li"
name = "李娜"
number = "8002"
language = "en"
[[shifts]]
site = "gz"
tier = 1
engineer = "wang"
days = "mon-tue"
start = "08:00"
end = "20:00"
[[shifts]]
site = "gz"
tier = 1
engineer = "wang"
days = "wed"
start = "08:00"
end = "24:00"
[[shifts]]
site = "*"
tier = 2
engineer = "li"
start = "20:00"
end = "08:00"
[[overrides]]
site = "gz"
tier = 1
engineer = "li"
replaces = "wang"
start = 2026-12-24T00:00:00Z
end = 2026-12-25T00:00:00Z
[[overrides]]
site = "*"
tier = 2
engineer = "wang"
start = 2026-12-24T00:00:00Z
end = 2026-12-25T00:00:00Z
"""


async def test_the_rota_of_before_is_what_its_desk_file_would_be_now(
    empty_url: str, clock: FakeClock
) -> None:
    """So that somebody is on duty after the upgrade, and the next load finds nothing new."""
    engines = engine._engines(driver_url(empty_url), [])
    async with engines.writer.begin() as connection:
        await connection.run_sync(run, "0001")
        await connection.execute(
            text("INSERT INTO rotas (id, body, loaded_at) VALUES (1, :body, :at)").bindparams(
                bindparam("at", type_=Instant)
            ),
            {"body": json.dumps(json.loads(OLD_ROTA)), "at": clock.now()},
        )
    await engines.dispose()
    await upgrade(empty_url)
    database = Database(empty_url, clock=clock)
    async with database.running():
        async with database.reading() as connection:
            migrated = await duty.plan(connection)
        assert migrated == parse(tomllib.loads(NEW_DESK)).plan()
        clock.advance(timedelta(hours=13))  # to 23:00 of a Friday in Shanghai
        there = on_duty(await duty.duties(database, clock), "sz", clock.now())
        assert [(each.tier, each.engineer.key) for each in there] == [(2, "li")]


def test_the_program_knows_its_newest_revision() -> None:
    assert head() == engine.REVISION


async def test_migrating_an_up_to_date_database_changes_nothing(database_url: str) -> None:
    await upgrade(database_url)
    await upgrade(database_url)


async def test_two_processes_may_migrate_at_once(empty_url: str) -> None:
    await asyncio.gather(*(asyncio.to_thread(migrate, empty_url) for _ in range(4)))
    async with Database(empty_url).running():
        pass


async def test_a_new_sqlite_may_be_opened_while_another_process_writes_the_first_thing(
    tmp_path: Path,
) -> None:
    """Turning to WAL is what SQLite lets nobody wait for."""
    path = tmp_path / "new.sqlite3"
    with closing(sqlite3.connect(path, isolation_level=None)) as first:
        first.execute("BEGIN IMMEDIATE")
        second = asyncio.create_task(sqlite.connect(path, [], busy_timeout_s=WITHIN_S))
        done, _ = await asyncio.wait([second], timeout=0.3)
        assert not done
        first.execute("ROLLBACK")
        await (await second).close()


async def test_a_sqlite_that_stays_locked_is_given_up_and_nothing_is_left_open(
    tmp_path: Path,
) -> None:
    path = tmp_path / "new.sqlite3"
    with closing(sqlite3.connect(path, isolation_level=None)) as first:
        first.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            _ = await sqlite.connect(path, [], busy_timeout_s=0.1)
        first.execute("ROLLBACK")
    gc.collect()  # a connection that nobody closed is told here, which is an error in a test


async def test_who_migrates_waits_for_another_who_takes_longer_than_a_transaction(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "BUSY_TIMEOUT_S", 0.2)
    monkeypatch.setattr(engine, "LOCK_TIMEOUT_S", 1.0)
    is_migrating = threading.Event()

    def slowly(connection: Connection) -> None:
        is_migrating.set()
        time.sleep(2.0)
        run(connection)

    monkeypatch.setattr(runner, "run", slowly)
    first = asyncio.create_task(asyncio.to_thread(migrate, empty_url))
    await asyncio.to_thread(is_migrating.wait, WITHIN_S)
    await asyncio.to_thread(migrate, empty_url)
    await first
    async with Database(empty_url).running():
        pass


async def test_a_database_without_tables_is_a_configuration_error(empty_url: str) -> None:
    database = Database(empty_url)
    with pytest.raises(ConfigurationError, match="contactd migrate"):
        await database.open()
    await upgrade(empty_url)
    async with database.running():
        assert await database.revision() == database.expected_revision()


async def test_a_revision_that_fails_leaves_nothing_behind(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails_at_the_end(connection: Connection) -> None:
        runner_run(connection)
        raise ConnectionError("the power failed")

    runner_run = runner.run
    monkeypatch.setattr(runner, "run", fails_at_the_end)
    with pytest.raises(TemporaryFailure):
        await upgrade(empty_url)
    monkeypatch.undo()
    await upgrade(empty_url)


@pytest.mark.parametrize(
    "url", ["", "sqlite://", "sqlite:///:memory:", "mysql://host/name", "postgresql:/x y", "?"]
)
def test_another_kind_of_url_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^database\.url: "):
        driver_url(url)


def test_drivers_are_ours_to_choose() -> None:
    assert driver_url("sqlite:////var/x.db").drivername == "sqlite+aiosqlite"
    assert driver_url("postgres://u:p@h/n").drivername == "postgresql+asyncpg"


async def test_sqlite_commits_to_the_disk_and_checks_foreign_keys(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    async with database.running():
        for block in (database.writing(), database.reading()):
            async with block as connection:
                found = {
                    name: (await connection.execute(text(f"PRAGMA {name}"))).scalar_one()
                    for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
                }
                assert found == {
                    "journal_mode": "wal",
                    "synchronous": 2,  # FULL
                    "foreign_keys": 1,
                    "busy_timeout": 5000,
                }
