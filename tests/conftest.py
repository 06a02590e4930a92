"""Fixtures that more than one folder uses: the clock, both databases, the ticket service.

A test that asks for `database` (or `database_url`) runs twice, on SQLite and on PostgreSQL, each
time on a migrated database of its own. A missing PostgreSQL is a failure that names its remedy.
"""

import itertools
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from contactd.store.engine import Database, migrate
from contactd.tickets.model import TicketPolicy
from contactd.tickets.service import TicketService
from tests.fakes.clock import FakeClock
from tests.fakes.postgres import PostgresServer, postgres_server

TEMPLATE = "template_contactd"

# Two workers, a PBX and a database share two cores: how long an example takes says nothing.
hypothesis_settings.register_profile(
    "contactd", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile("contactd")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Start the run's own cluster; each xdist worker has one."""
    with postgres_server() as server:
        migrate(server.create(TEMPLATE))
        yield server


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "template.sqlite3"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def _numbers() -> Iterator[int]:
    return itertools.count(1)


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    path = tmp_path / "contactd.sqlite3"
    shutil.copy(sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture
def postgres_url(postgres: PostgresServer, _numbers: Iterator[int]) -> Iterator[str]:
    name = f"contactd_{next(_numbers)}"
    yield postgres.create(name, template=TEMPLATE)
    postgres.drop(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Return the URL of a migrated, empty database, as an operator would write it."""
    fixture = {"sqlite": "sqlite_url", "postgresql": "postgres_url"}[request.param]
    url: str = request.getfixturevalue(fixture)
    return url


@pytest.fixture
async def database(database_url: str, clock: FakeClock) -> AsyncIterator[Database]:
    database = Database(database_url, clock=clock)
    async with database.running():
        yield database


@pytest.fixture
def policy() -> TicketPolicy:
    return TicketPolicy()


@pytest.fixture
def tickets(database: Database, clock: FakeClock, policy: TicketPolicy) -> TicketService:
    return TicketService(database.new_work, clock, policy)
