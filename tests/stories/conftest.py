"""Stories: the whole program but its sockets, on both databases, with a clock that is pushed."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from contactd.store.engine import Database
from tests.conftest import TEMPLATE
from tests.fakes.clock import FakeClock
from tests.fakes.desk import Desk
from tests.fakes.postgres import PostgresServer

LOADED = "template_desk"


@pytest.fixture(scope="session")
def loaded_sqlite(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("desk") / "template.sqlite3"
    shutil.copy(sqlite_template, path)
    asyncio.run(load(f"sqlite:///{path}"))
    return path


@pytest.fixture(scope="session")
def loaded_postgres(postgres: PostgresServer) -> PostgresServer:
    asyncio.run(load(postgres.create(LOADED, template=TEMPLATE)))
    return postgres


async def load(url: str) -> None:
    """Load the desk once for all stories: they begin at the same instant."""
    clock = FakeClock()
    database = Database(url, clock=clock)
    async with database.running():
        await Desk(database, clock).load()


@pytest.fixture
def sqlite_desk_url(loaded_sqlite: Path, tmp_path: Path) -> str:
    path = tmp_path / "desk.sqlite3"
    shutil.copy(loaded_sqlite, path)
    return f"sqlite:///{path}"


@pytest.fixture
def postgres_desk_url(loaded_postgres: PostgresServer, _numbers: Iterator[int]) -> Iterator[str]:
    name = f"desk_{next(_numbers)}"
    yield loaded_postgres.create(name, template=LOADED)
    loaded_postgres.drop(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def desk_url(request: pytest.FixtureRequest) -> str:
    """Return the URL of a database with the desk's people and its rota."""
    fixture = {"sqlite": "sqlite_desk_url", "postgresql": "postgres_desk_url"}[request.param]
    url: str = request.getfixturevalue(fixture)
    return url


@pytest.fixture
async def desk(desk_url: str, clock: FakeClock) -> AsyncIterator[Desk]:
    """Open the desk; what must always hold is checked at the end."""
    database = Database(desk_url, clock=clock)
    async with database.running():
        desk = Desk(database, clock)
        yield desk
        await desk.check()
