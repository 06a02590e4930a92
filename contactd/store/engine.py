"""The one database: SQLite (WAL, every commit on the disk) or PostgreSQL, behind one class."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from functools import partial
from pathlib import Path
from typing import Any, Final

from sqlalchemy import TextClause, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from contactd.clock import Clock, SystemClock
from contactd.errors import ConfigurationError, TemporaryFailure
from contactd.log import get_logger
from contactd.service import Health, HealthState
from contactd.store import sqlite
from contactd.store.unit_of_work import SqlUnitOfWork
from contactd.tickets.ports import Conflict

log = get_logger()

# The revision that this program works with; a test compares it with the newest in `migrations/`.
# Written down here so that a daemon whose database is up to date need not load Alembic.
REVISION: Final = "0001"

# Whoever files contacts or changes tickets holds this lock, in any process (PostgreSQL).
FILING_LOCK: Final = 400_800_1234
_TAKE_FILING_LOCK: Final = text(f"SELECT pg_advisory_xact_lock({FILING_LOCK})")

BUSY_TIMEOUT_S: Final = 5.0  # SQLite: how long to wait for another process's transaction
CONNECT_TIMEOUT_S: Final = 3.0
READERS: Final = 4  # SQLite: connections for pages
POOL: Final = 10  # PostgreSQL: connections in all

# Appendix A of PostgreSQL's manual: connection, transaction rollback, insufficient resources,
# object in use (lock time-out), operator intervention (shutdown), system error; and the end of a
# session that sat in a transaction too long.
_TEMPORARY_CLASSES: Final = frozenset({"08", "40", "53", "55", "57", "58"})
_IDLE_TOO_LONG: Final = "25P03"
_UNIQUE_OR_RACE: Final = frozenset({"23505", "40001", "40P01"})
# sqlite.org/rescode.html: SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_UNIQUE; SQLITE_ERROR is
# wrong SQL, a bug.
_SQLITE_UNIQUE: Final = frozenset({1555, 2067})
_SQLITE_WRONG_SQL: Final = 1


def driver_url(url: str) -> URL:
    """Return the operator's URL with the driver that contactd uses.

    Raises:
        ConfigurationError: it is not `sqlite:///path` or `postgresql://…`.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ConfigurationError(
            "database.url: not a database URL, e.g. postgresql://user:password@host/name"
        ) from None
    match parsed.get_backend_name():
        case "sqlite" if parsed.database and parsed.database != ":memory:":
            return parsed.set(drivername="sqlite+aiosqlite")
        case "postgresql" | "postgres":
            return parsed.set(drivername="postgresql+asyncpg")
        case _:
            raise ConfigurationError("database.url: neither sqlite:///<path> nor postgresql://…")


@contextmanager
def translated() -> Iterator[None]:
    """Turn the database's failures into ours; wrong SQL and broken constraints stay bugs."""
    try:
        yield
    except (PoolTimeout, ConnectionError) as error:
        raise TemporaryFailure(f"the database cannot be reached: {error}") from error
    except DBAPIError as error:
        failure = _failure(error)
        if failure is None:
            raise
        raise failure from error


def _failure(error: DBAPIError) -> TemporaryFailure | None:
    origin: Any = error.orig
    line = str(origin).partition("\n")[0][:200]
    state = getattr(origin, "sqlstate", None)
    code = getattr(origin, "sqlite_errorcode", None)
    if state in _UNIQUE_OR_RACE or code in _SQLITE_UNIQUE:
        return Conflict(f"another transaction was faster: {line}")
    if isinstance(error, IntegrityError):
        return None
    is_away = error.connection_invalidated or (state is None and code is None)
    if is_away or state == _IDLE_TOO_LONG or (state or "")[:2] in _TEMPORARY_CLASSES:
        return TemporaryFailure(f"the database is away: {line}")
    if code is not None and code & 0xFF != _SQLITE_WRONG_SQL:
        return TemporaryFailure(f"the database refuses for now: {line}")
    return None


class Database:
    """Connections and transactions. A Service: open it before everything that stores."""

    name = "database"

    def __init__(self, url: str, *, clock: Clock | None = None) -> None:
        self._url = driver_url(url)
        self._clock = clock or SystemClock()
        self._is_sqlite = self._url.get_backend_name() == "sqlite"
        self._writer: AsyncEngine | None = None
        self._reader: AsyncEngine | None = None
        # SQLite has one writer; waiting here is fair and costs no busy loop.
        self._write_lock = asyncio.Lock()
        self._trouble = ""

    @property
    def dialect(self) -> str:
        """Return `sqlite` or `postgresql`."""
        return self._url.get_backend_name()

    async def open(self) -> None:
        """Build the pools and try the database once.

        Raises:
            TemporaryFailure: it cannot be reached.
            ConfigurationError: its tables are not those of this program.
        """
        self._writer, self._reader = _engines(self._url)
        try:
            found = await self.revision()
        except BaseException:
            await self.close()
            raise
        if found != REVISION:
            await self.close()
            raise ConfigurationError(
                f"database: its tables are of revision {found or '(none)'}, this program needs"
                f" {REVISION}: run `contactd migrate`"
            )

    async def close(self) -> None:
        engines = {self._writer, self._reader} - {None}
        self._writer = self._reader = None
        for engine in engines:
            if engine is not None:
                await engine.dispose()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        await self.open()
        try:
            yield
        finally:
            await self.close()

    def health(self) -> list[Health]:
        trouble = self._trouble or ("" if self._writer is not None else "not open")
        state = HealthState.DOWN if trouble else HealthState.UP
        return [Health(component="database", state=state, detail=trouble or self.dialect)]

    def new_work(self, *, reads_only: bool = False) -> AbstractAsyncContextManager[SqlUnitOfWork]:
        """Return a block with one transaction, undone unless it is committed inside.

        With `reads_only` it waits for nobody, and nothing can be written in it.
        """
        return self._work(self._read() if reads_only else self._transaction(files=True))

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """Return a block with a transaction that commits at its end, or is undone by an error.

        For what does not touch tickets (outbox leases, sessions, the desk file, the ledger).
        """
        async with self._transaction() as connection:
            yield connection
            await connection.commit()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """Return a block with a connection that sees one state of the database and cannot write."""
        async with self._read() as connection:
            yield connection

    async def revision(self) -> str | None:
        """Return the revision of the tables, None when there are none."""
        return await _revision(_opened(self._writer))

    @staticmethod
    def expected_revision() -> str:
        return REVISION

    @asynccontextmanager
    async def _work(
        self, transaction: AbstractAsyncContextManager[AsyncConnection]
    ) -> AsyncIterator[SqlUnitOfWork]:
        async with transaction as connection:
            yield SqlUnitOfWork(connection, self._clock)

    @asynccontextmanager
    async def _read(self) -> AsyncIterator[AsyncConnection]:
        with self._watched():
            async with AsyncExitStack() as stack:
                connection = await _begun(_opened(self._reader), None)
                stack.push_async_callback(_close, connection)
                yield connection

    @asynccontextmanager
    async def _transaction(self, *, files: bool = False) -> AsyncIterator[AsyncConnection]:
        with self._watched():
            async with AsyncExitStack() as stack:
                if self._is_sqlite:
                    await stack.enter_async_context(self._write_lock)
                lock = _TAKE_FILING_LOCK if files and not self._is_sqlite else None
                connection = await _begun(_opened(self._writer), lock)
                stack.push_async_callback(_close, connection)
                yield connection

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Translate failures and remember for `health` whether the database answers."""
        try:
            with translated():
                yield
        except Conflict:
            raise
        except TemporaryFailure as failure:
            # A handler's own failure (a PBX that is away) passes through here too.
            if isinstance(failure.__cause__, DBAPIError | PoolTimeout | OSError):
                if not self._trouble:
                    log.warning("database.lost", reason=str(failure))
                self._trouble = str(failure)
            raise
        if self._trouble:
            log.warning("database.recovered")
            self._trouble = ""


def _opened(engine: AsyncEngine | None) -> AsyncEngine:
    if engine is None:
        raise TemporaryFailure("the database is not open")
    return engine


async def _begun(engine: AsyncEngine, lock: TextClause | None) -> AsyncConnection:
    """Return a connection in a transaction that holds `lock`.

    A pooled connection may have died unnoticed (PostgreSQL was restarted). Nothing has been done
    yet, so one more try is harmless; the failure has emptied the pool.
    """
    for is_last in (False, True):
        try:
            connection = await engine.connect().start()
        except OSError as error:  # TimeoutError is one too
            raise TemporaryFailure(f"the database cannot be reached: {error}") from error
        try:
            _ = await connection.begin()
            if lock is not None:
                await connection.execute(lock)
        except DBAPIError as error:
            await _close(connection)
            if is_last or not error.connection_invalidated:
                raise
        except BaseException:
            await _close(connection)
            raise
        else:
            return connection
    raise AssertionError("not reached")


async def _close(connection: AsyncConnection) -> None:
    """Undo what is not committed and give the connection back, even while being cancelled."""
    await asyncio.shield(connection.close())


def _engines(url: URL) -> tuple[AsyncEngine, AsyncEngine]:
    """Return the engines for writing and for reading; on PostgreSQL they are one."""
    if url.get_backend_name() == "postgresql":
        engine = _postgresql(url)
        # Pages see one state of the database, as SQLite's readers do.
        return engine, engine.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )
    return _sqlite(url, begin="BEGIN IMMEDIATE", size=1), _sqlite(url, begin="BEGIN", size=READERS)


def _postgresql(url: URL) -> AsyncEngine:
    query = dict(url.query)
    ssl = query.pop("sslmode", None)  # libpq's word; asyncpg takes its values as `ssl`
    limits = {
        "application_name": "contactd",
        "jit": "off",  # our statements are small: compiling them costs more than running them
        # A frozen process must not keep the others waiting for ever.
        "idle_in_transaction_session_timeout": "10s",
        "lock_timeout": "5s",
        "statement_timeout": "30s",
    }
    return create_async_engine(
        url.set(query=query),
        pool_size=POOL,
        max_overflow=0,
        pool_timeout=CONNECT_TIMEOUT_S,
        connect_args={
            "timeout": CONNECT_TIMEOUT_S,
            "server_settings": limits,
            **({"ssl": ssl} if ssl else {}),
        },
    )


def _sqlite(url: URL, *, begin: str, size: int) -> AsyncEngine:
    path = Path(str(url.database))
    path.parent.mkdir(parents=True, exist_ok=True)
    engine = create_async_engine(
        url,
        pool_size=size,
        max_overflow=0,
        pool_timeout=BUSY_TIMEOUT_S,
        pool_reset_on_return=None,  # closing has undone what was open: no need to do it twice
        async_creator=partial(sqlite.connect, path, busy_timeout_s=BUSY_TIMEOUT_S),
    )

    @event.listens_for(engine.sync_engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",  # fsync at each commit: what is acknowledged is on the disk
            "foreign_keys = ON",
            "cache_size = -8000",  # KiB
        ):
            cursor.execute(f"PRAGMA {pragma}")
        if begin == "BEGIN":
            cursor.execute("PRAGMA query_only = ON")
        cursor.close()

    # Python's own way begins only before the first write, with a plain BEGIN: two transactions that
    # have read and now both want to write would fail instead of waiting for each other.
    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql(begin)

    return engine


async def _revision(engine: AsyncEngine) -> str | None:
    table = {
        "sqlite": "SELECT count(*) FROM sqlite_master WHERE name = 'alembic_version'",
        "postgresql": "SELECT count(*) FROM pg_tables WHERE tablename = 'alembic_version'"
        " AND schemaname = current_schema()",
    }[engine.dialect.name]
    with translated():
        connection = await _begun(engine, None)
        try:
            if not (await connection.execute(text(table))).scalar_one():
                return None
            found = await connection.execute(text("SELECT version_num FROM alembic_version"))
            return found.scalar_one_or_none()
        finally:
            await _close(connection)


async def upgrade(url: str) -> None:
    """Bring the tables of the database at `url` to this program's revision.

    Raises:
        TemporaryFailure: the database cannot be reached.
    """
    engine, reader = _engines(driver_url(url))
    try:
        if await _revision(engine) == REVISION:
            return
        # Alembic costs 0.2 s and some memory: only a database that needs it pays.
        from contactd.store.migrations.run import run

        with translated():
            async with engine.begin() as connection:
                await connection.run_sync(run)
    finally:
        await engine.dispose()
        await reader.dispose()


def migrate(url: str) -> None:
    """Do what `upgrade` does, outside an event loop."""
    asyncio.run(upgrade(url))
