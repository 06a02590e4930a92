"""Alembic's revisions make exactly the tables of `schema`, on both databases."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect, text

from contactd.errors import ConfigurationError, TemporaryFailure
from contactd.store import engine
from contactd.store.engine import Database, driver_url, migrate, upgrade
from contactd.store.migrations.run import head
from contactd.store.schema import metadata
from tests.fakes.postgres import PostgresServer


@pytest.fixture
def empty_url(database_url: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Return the URL of a database without tables, of the same kind as `database_url`."""
    if database_url.startswith("sqlite"):
        yield f"sqlite:///{tmp_path}/new folder/empty.sqlite3"
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    yield server.create("contactd_empty")
    server.drop("contactd_empty")


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
            "indexes": sorted(map(str, tables.get_indexes(name))),
        }
        for name in tables.get_table_names()
        if name != "alembic_version"
    }


async def test_the_revisions_and_the_schema_make_the_same_database(
    database: Database, empty_url: str
) -> None:
    engines = engine._engines(driver_url(empty_url))
    async with engines.writer.begin() as connection:
        await connection.run_sync(metadata.create_all)
        by_schema = await connection.run_sync(described)
    await engines.dispose()
    async with database.writing() as connection:
        assert await connection.run_sync(described) == by_schema
        differences = await connection.run_sync(
            lambda sync: compare_metadata(
                MigrationContext.configure(sync, opts={"compare_type": True}), metadata
            )
        )
    assert differences == []


def test_the_program_knows_its_newest_revision() -> None:
    assert head() == engine.REVISION


async def test_migrating_an_up_to_date_database_changes_nothing(database_url: str) -> None:
    await upgrade(database_url)
    await upgrade(database_url)


async def test_two_processes_may_migrate_at_once(empty_url: str) -> None:
    await asyncio.gather(*(asyncio.to_thread(migrate, empty_url) for _ in range(4)))
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
    from contactd.store.migrations import run as runner

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
