"""The one database: SQLite (WAL, every commit on the disk) or PostgreSQL, behind one class."""

import asyncio
import sqlite3
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from sqlalchemy import TextClause, event, text
from sqlalchemy.engine import URL, ExceptionContext, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, DisconnectionError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from contactd.clock import Clock, SystemClock
from contactd.errors import ConfigurationError, TemporaryFailure
from contactd.log import get_logger
from contactd.service import Health, HealthState
from contactd.store import sqlite
from contactd.store.keyed import set_mark
from contactd.store.unit_of_work import SqlUnitOfWork
from contactd.tickets.ports import Conflict

log = get_logger()

# The revision that this program works with; a test compares it with the newest in `migrations/`.
# Written down here so that a daemon whose database is up to date need not load Alembic.
REVISION: Final = "0012"

# Whoever files contacts or changes tickets holds this lock, in any process (PostgreSQL).
FILING_LOCK: Final = 400_800_1234
# Whoever changes the tables holds this one.
MIGRATION_LOCK: Final = 400_800_1235
_TAKE_FILING_LOCK: Final = text(f"SELECT pg_advisory_xact_lock({FILING_LOCK})")

BUSY_TIMEOUT_S: Final = 5.0  # SQLite: how long to wait for another process's transaction
MIGRATION_WAIT_S: Final = 60.0  # how long to wait for another process that makes the tables
WRITE_WAIT_S: Final = 10.0  # SQLite: how long to wait for this process's other transactions
WAY_S: Final = 0.015  # SQLite: between what comes in and its transaction; a mail is read meanwhile
STORM: Final = 100  # mails and texts …
STORM_S: Final = 0.5  # … within this time
CHECKPOINT_S: Final = 1.0  # SQLite: between two copies of what is in the WAL into the database
CONNECT_TIMEOUT_S: Final = 3.0
# PostgreSQL ends a statement itself; one that hears nothing from it any more is given up later.
STATEMENT_TIMEOUT_S: Final = 8.0
COMMAND_TIMEOUT_S: Final = 10.0
LOCK_TIMEOUT_S: Final = 5.0
HANGS_AFTER_S: Final = 5.0  # a transaction that writes takes milliseconds
# Whatever pages and programs ask for, the hotline has connections of its own.
HOTLINE_POOL: Final = 8  # PostgreSQL: connections that write, and what a dialplan asks
HOTLINE_READERS: Final = 2  # SQLite: connections for what a dialplan asks
PAGE_READERS: Final = 4  # connections for pages, the API and who is logged in

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
    except TimeoutError as error:  # asyncpg's `command_timeout`
        raise TemporaryFailure("the database does not answer") from error
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


class _Engines(NamedTuple):
    writer: AsyncEngine
    reader: AsyncEngine  # of the hotline
    pages: AsyncEngine

    async def dispose(self) -> None:
        for engine in self:
            await engine.dispose()


class Database:
    """Connections and transactions. A Service: open it before everything that stores."""

    name = "database"

    def __init__(self, url: str, *, clock: Clock | None = None) -> None:
        self._url = driver_url(url)
        self._clock = clock or SystemClock()
        self._is_sqlite = self._url.get_backend_name() == "sqlite"
        self._engines: _Engines | None = None
        self._made: list[sqlite.CrossingConnection] = []
        # SQLite has one writer; waiting here is fair and costs no busy loop. Whoever does not serve
        # somebody who waits queues elsewhere, so that only one of them is ever in the way.
        self._write_lock = asyncio.Lock()
        self._back_lane = asyncio.Lock()
        self._way_until = 0.0  # event loop's clock
        self._came: deque[float] = deque(maxlen=STORM)  # what way was made for; the same clock
        self._checkpointer: sqlite.CrossingConnection | None = None
        self._checkpoint_at = 0.0  # the next one; monotonic s
        self._trouble = ""
        self._since: dict[object, float] = {}  # transactions that write, oldest first; monotonic s

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
        self._engines = _engines(self._url, self._made)
        try:
            found = await self.revision()
            if self._is_sqlite:
                path = Path(str(self._url.database))
                self._checkpointer = await sqlite.connect(
                    path, self._made, busy_timeout_s=BUSY_TIMEOUT_S
                )
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
        engines, self._engines = self._engines, None
        if engines is not None:
            await engines.dispose()
        checkpointer, self._checkpointer = self._checkpointer, None
        if checkpointer is not None:
            await checkpointer.close()
        await sqlite.end(self._made)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        await self.open()
        try:
            yield
        finally:
            await self.close()

    def health(self) -> list[Health]:
        trouble = self._trouble or self._hanging() or ("" if self._engines else "not open")
        state = HealthState.DOWN if trouble else HealthState.UP
        return [Health(component="database", state=state, detail=trouble or self.dialect)]

    def _hanging(self) -> str:
        """Return since when the oldest transaction does not end; "" if all is well."""
        open_s = time.monotonic() - min(self._since.values(), default=time.monotonic())
        return f"a transaction has been open for {open_s:.0f} s" if open_s > HANGS_AFTER_S else ""

    def new_work(
        self, *, reads_only: bool = False, urgent: bool = False
    ) -> AbstractAsyncContextManager[SqlUnitOfWork]:
        """Return a block with one transaction, undone unless it is committed inside.

        With `reads_only` it waits for nobody, and nothing can be written in it. With `urgent` it
        waits for one transaction of those that are not, however many of them there are (SQLite).
        """
        if reads_only:
            return self._work(self._read(self._opened().reader))
        return self._work(self._transaction(files=True, urgent=urgent))

    def make_way(self) -> None:
        """Say that something urgent comes soon: who is not, begins nothing for `WAY_S` (SQLite)."""
        now = asyncio.get_running_loop().time()
        self._way_until = now + WAY_S
        self._came.append(now)

    @property
    def is_storm(self) -> bool:
        """Return whether so much comes in now that what follows from it had better wait."""
        is_full = len(self._came) == STORM
        return is_full and asyncio.get_running_loop().time() - self._came[0] < STORM_S

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """Return a block with a transaction that commits at its end, or is undone by an error.

        For what does not touch tickets (outbox leases, sessions, the desk file, the ledger).
        """
        async with self._transaction() as connection:
            yield connection
            await set_mark(connection)
            await connection.commit()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """Return a block with a connection that sees one state of the database and cannot write.

        For pages and programs: however slow or many they are, calls go on.
        """
        async with self._read(self._opened().pages) as connection:
            yield connection

    async def revision(self) -> str | None:
        """Return the revision of the tables, None when there are none."""
        return await _revision(self._opened().writer)

    @staticmethod
    def expected_revision() -> str:
        return REVISION

    def _opened(self) -> _Engines:
        if self._engines is None:
            raise TemporaryFailure("the database is not open")
        return self._engines

    @asynccontextmanager
    async def _work(
        self, transaction: AbstractAsyncContextManager[AsyncConnection]
    ) -> AsyncIterator[SqlUnitOfWork]:
        async with transaction as connection:
            yield SqlUnitOfWork(connection, self._clock)

    @asynccontextmanager
    async def _read(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        with self._watched():
            async with AsyncExitStack() as stack:
                connection = await _begun(engine, None)
                stack.push_async_callback(_close, connection)
                yield connection

    @asynccontextmanager
    async def _transaction(
        self, *, files: bool = False, urgent: bool = False
    ) -> AsyncIterator[AsyncConnection]:
        with self._watched():
            async with AsyncExitStack() as stack:
                if self._is_sqlite:
                    await self._take_turn(stack, urgent=urgent)
                stack.enter_context(self._timed())
                lock = _TAKE_FILING_LOCK if files and not self._is_sqlite else None
                connection = await _begun(self._opened().writer, lock)
                stack.push_async_callback(_close, connection)
                yield connection

    async def _take_turn(self, stack: AsyncExitStack, *, urgent: bool) -> None:
        """Take the only right to write (SQLite); `stack` gives it back."""
        try:
            async with asyncio.timeout(WRITE_WAIT_S):
                if not urgent:
                    await stack.enter_async_context(self._back_lane)
                    pause_s = self._way_until - asyncio.get_running_loop().time()
                    if pause_s > 0:  # once: however much comes in, this goes on, too
                        await asyncio.sleep(pause_s)
                    stack.push_async_callback(self._checkpoint)
                await stack.enter_async_context(self._write_lock)
        except TimeoutError as error:
            raise TemporaryFailure("the database is busy: a transaction does not end") from error

    async def _checkpoint(self) -> None:
        """Copy what was committed from the WAL into the database, if it is time (SQLite)."""
        if self._checkpointer is None or time.monotonic() < self._checkpoint_at:
            return
        self._checkpoint_at = time.monotonic() + CHECKPOINT_S
        with suppress(sqlite3.Error):  # of a disk that is full the next commit tells
            # Passive: it waits for no reader and no writer, and none waits for it.
            await self._checkpointer.cross(_copy_wal)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        """Let `health` know of a transaction as long as it is open."""
        transaction = object()
        self._since[transaction] = time.monotonic()
        try:
            yield
        finally:
            del self._since[transaction]

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


def _engines(url: URL, made: list[sqlite.CrossingConnection]) -> _Engines:
    if url.get_backend_name() == "sqlite":
        return _Engines(
            writer=_sqlite(url, made, begin="BEGIN IMMEDIATE", size=1),
            reader=_sqlite(url, made, begin="BEGIN", size=HOTLINE_READERS),
            pages=_sqlite(url, made, begin="BEGIN", size=PAGE_READERS),
        )
    # Readers see one state of the database, as SQLite's do.
    reads: dict[str, Any] = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    writer = _postgresql(url, size=HOTLINE_POOL)
    return _Engines(
        writer=writer,
        reader=writer.execution_options(**reads),  # from the same pool
        pages=_postgresql(url, size=PAGE_READERS).execution_options(**reads),
    )


def _postgresql(url: URL, *, size: int, is_bounded: bool = True) -> AsyncEngine:
    query = dict(url.query)
    ssl = query.pop("sslmode", None)  # libpq's word; asyncpg takes its values as `ssl`
    limits = {
        "application_name": "contactd",
        "jit": "off",  # our statements are small: compiling them costs more than running them
        # A frozen process must not keep the others waiting for ever.
        "idle_in_transaction_session_timeout": "10s",
        "lock_timeout": f"{LOCK_TIMEOUT_S:.0f}s",
        "statement_timeout": f"{STATEMENT_TIMEOUT_S if is_bounded else 0:.0f}s",
    }
    engine = create_async_engine(
        url.set(query=query),
        pool_size=size,
        max_overflow=0,
        pool_timeout=CONNECT_TIMEOUT_S,
        hide_parameters=True,  # they are personal data; errors come into the log
        connect_args={
            "timeout": CONNECT_TIMEOUT_S,
            "command_timeout": COMMAND_TIMEOUT_S if is_bounded else None,
            "server_settings": limits,
            **({"ssl": ssl} if ssl else {}),
        },
    )

    # What was restarted while nobody asked: each pool finds it out by itself, without a question.
    @event.listens_for(engine.sync_engine, "checkout")
    def _replace_closed(_connection: Any, record: Any, _proxy: Any) -> None:
        if record.driver_connection.is_closed():
            raise DisconnectionError

    @event.listens_for(engine.sync_engine, "handle_error")
    def _judge(context: ExceptionContext) -> None:
        failure = context.original_exception
        # SQLAlchemy hangs up on a server that does not answer: on every connection, not on one.
        if isinstance(failure, TimeoutError):
            context.invalidate_pool_on_disconnect = True
        # "Failing row contains (…)": personal data, on their way into a traceback.
        if getattr(failure.__cause__, "detail", None):
            failure.__cause__.detail = None  # type: ignore[union-attr]

    return engine


def _sqlite(
    url: URL,
    made: list[sqlite.CrossingConnection],
    *,
    begin: str,
    size: int,
    busy_timeout_s: float | None = None,
) -> AsyncEngine:
    wait_s = BUSY_TIMEOUT_S if busy_timeout_s is None else busy_timeout_s
    path = Path(str(url.database))
    path.parent.mkdir(parents=True, exist_ok=True)
    engine = create_async_engine(
        url,
        pool_size=size,
        max_overflow=0,
        pool_timeout=BUSY_TIMEOUT_S,
        hide_parameters=True,
        pool_reset_on_return=None,  # closing has undone what was open: no need to do it twice
        async_creator=partial(
            sqlite.connect, path, made, busy_timeout_s=wait_s, reads_only=begin == "BEGIN"
        ),
    )

    # Python's own way begins only before the first write, with a plain BEGIN: two transactions that
    # have read and now both want to write would fail instead of waiting for each other.
    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql(begin, execution_options=sqlite.SOON)

    sqlite.watch_for_soon(engine.sync_engine)
    return engine


def _copy_wal(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


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
    target = driver_url(url)
    made: list[sqlite.CrossingConnection] = []
    if target.get_backend_name() == "sqlite":
        engine = _sqlite(
            target, made, begin="BEGIN IMMEDIATE", size=1, busy_timeout_s=MIGRATION_WAIT_S
        )
    else:
        engine = _postgresql(target, size=1, is_bounded=False)  # tables may be large
    try:
        if await _revision(engine) == REVISION:
            return
        # Alembic costs 0.2 s and some memory: only a database that needs it pays.
        from contactd.store.migrations.run import run

        with translated():
            async with engine.begin() as connection:
                # SQLite's BEGIN crosses with the first statement: who migrates is alone from here.
                await connection.execute(text("SELECT 1"))
                if engine.dialect.name == "postgresql":
                    await _take_migration_lock(connection)
                await connection.run_sync(run)
    finally:
        await engine.dispose()
        await sqlite.end(made)


async def _take_migration_lock(connection: AsyncConnection) -> None:
    """Be the only one who migrates; who comes second finds nothing left to do (PostgreSQL)."""
    # For this lock alone: whoever waits to change a table keeps everybody else from it meanwhile.
    for step in (
        f"SET LOCAL lock_timeout = '{MIGRATION_WAIT_S:.0f}s'",
        f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})",
        f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_S:.0f}s'",
    ):
        await connection.execute(text(step))


def migrate(url: str) -> None:
    """Do what `upgrade` does, outside an event loop."""
    asyncio.run(upgrade(url))
