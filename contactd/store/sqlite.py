"""SQLite connections that cross to their thread once a statement.

aiosqlite runs each connection in a thread of its own, so that a slow disk never stops the event
loop. Its cursors cross over four times a statement (open, execute, fetch, close) at ~0.1 ms each:
more than SQLite itself takes for a whole ticket. Ours cross once.
"""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from aiosqlite import Connection
from sqlalchemy import Engine, event
from sqlalchemy.engine import ExecutionContext

# For `execution_options`: a statement without rows whose failure may show at the next one, or at
# the commit. Other databases ignore it.
SOON: Final = MappingProxyType({"contactd_soon": True})

# SQLite: what is in the WAL is copied into the database by somebody whom nobody waits for. Left to
# itself SQLite does it in the commit that fills 1,000 pages, which then takes ten times as long.
CHECKPOINT_PAGES: Final = 10_000  # 40 MB: then a commit does it after all
_PRAGMAS: Final = (
    "synchronous = FULL",  # fsync at each commit: what is acknowledged is on the disk
    "foreign_keys = ON",
    "cache_size = -8000",  # KiB
    f"wal_autocheckpoint = {CHECKPOINT_PAGES}",
)
_LOOK_AGAIN_S: Final = 0.01
_END_S: Final = 5.0

_Step = Callable[[sqlite3.Connection], None]


class _Cursor:
    """What SQLAlchemy uses of a cursor; executing a statement fetches all its rows as well.

    So `AsyncConnection.stream` is not to be had; nobody reads a million rows here.
    """

    def __init__(self, connection: "CrossingConnection") -> None:
        self._connection = connection
        self._rows: list[Any] = []
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None
        self.arraysize = 1

    async def __aenter__(self) -> "_Cursor":
        return self

    async def execute(self, sql: str, parameters: Any = ()) -> "_Cursor":
        await self._cross(partial(self._run, "execute", sql, parameters))
        return self

    async def executemany(self, sql: str, parameters: Any) -> "_Cursor":
        await self._cross(partial(self._run, "executemany", sql, parameters))
        return self

    async def fetchall(self) -> list[Any]:
        rows, self._rows = self._rows, []
        return rows

    async def close(self) -> None:
        self._rows = []

    async def _cross(self, step: _Step) -> None:
        is_soon, self._connection.is_soon = self._connection.is_soon, False
        if is_soon:
            self._connection.soon.append(step)
        else:
            await self._connection.cross(step)

    def _run(self, method: str, sql: str, parameters: Any, connection: sqlite3.Connection) -> None:
        """Do everything with the real cursor; runs in the connection's thread."""
        cursor = connection.cursor()
        try:
            getattr(cursor, method)(sql, parameters)
            self.description = cursor.description
            self._rows = cursor.fetchall() if cursor.description else []
            self.rowcount = cursor.rowcount
            self.lastrowid = cursor.lastrowid
        finally:
            cursor.close()


class CrossingConnection(Connection):
    """Its `soon` has what crosses with the next statement; `is_soon` marks the one to come."""

    def __init__(self, connector: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(connector, 64)
        self.soon: list[_Step] = []
        self.is_soon = False

    def cursor(self) -> Any:
        return _Cursor(self)

    async def cross(self, function: _Step) -> None:
        """Run what waits and then `function` in this connection's thread, up to a failure."""
        steps, self.soon = [*self.soon, function], []
        await self._execute(run, self._conn, steps)  # type: ignore[no-untyped-call]

    async def commit(self) -> None:
        """Commit with what waits; if anything fails, everything is undone."""
        steps, self.soon = self.soon, []
        await self._execute(run_and_commit, self._conn, steps)  # type: ignore[no-untyped-call]

    async def rollback(self) -> None:
        self.soon = []
        await super().rollback()


def run(connection: sqlite3.Connection, steps: Sequence[_Step]) -> None:
    """Do the steps one after the other, up to a failure."""
    for step in steps:
        step(connection)


def run_and_commit(connection: sqlite3.Connection, steps: Sequence[_Step]) -> None:
    """Do the steps and commit, or undo the whole transaction."""
    try:
        run(connection, steps)
        connection.commit()
    except BaseException:
        connection.rollback()
        raise


def opened(path: Path, *, busy_timeout_s: float, reads_only: bool = False) -> sqlite3.Connection:
    """Open a connection that leaves the beginning of transactions to its user; blocks.

    Raises:
        sqlite3.OperationalError: another process holds the database for longer than it may take.
    """
    connection = sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None)
    try:
        _write_ahead(connection, until=time.monotonic() + busy_timeout_s)
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        connection.execute(f"PRAGMA query_only = {reads_only:d}")
    except BaseException:
        connection.close()
        raise
    return connection


def _write_ahead(connection: sqlite3.Connection, *, until: float) -> None:
    """Turn to WAL, which a new database is not.

    While another process has begun to write, SQLite refuses this at once instead of waiting for its
    busy time-out (measured: 3.40): of two that open a new database together, one would fail.
    """
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(_LOOK_AGAIN_S)
        else:
            return


async def connect(
    path: Path,
    made: list[CrossingConnection],
    *,
    busy_timeout_s: float,
    reads_only: bool = False,
) -> CrossingConnection:
    """Open a connection, as `opened` does, in a thread of its own; `made` gets it for `end`."""
    connection = CrossingConnection(
        partial(opened, path, busy_timeout_s=busy_timeout_s, reads_only=reads_only)
    )
    # Python waits for other threads at its end; a connection that was not closed must not hang it.
    connection._thread.daemon = True
    made[:] = [*(each for each in made if each._thread.is_alive()), connection]
    _ = await connection
    return connection


async def end(made: Sequence[CrossingConnection]) -> None:
    """Close what nobody closed, and wait for the threads of all, up to `_END_S`.

    Whoever is cancelled while a connection opens or a statement runs leaves the thread behind: it
    would tell an event loop that is closed.
    """
    for each in made:
        each.stop()
    await asyncio.to_thread(_join, [each._thread for each in made])


def _join(threads: Sequence[threading.Thread]) -> None:
    until = time.monotonic() + _END_S
    for each in threads:  # a disk that stands still: they hinder nobody
        each.join(max(0.0, until - time.monotonic()))


def watch_for_soon(engine: Engine) -> None:
    """Let an engine of these connections heed `SOON`."""

    @event.listens_for(engine, "before_cursor_execute")
    def _mark(  # SQLAlchemy's signature
        connection: Any, _cursor: Any, _sql: str, _rows: Any, context: ExecutionContext, _many: bool
    ) -> None:
        options = context.execution_options
        connection.connection.driver_connection.is_soon = "contactd_soon" in options
