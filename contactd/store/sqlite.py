"""SQLite connections that cross to their thread once a statement.

aiosqlite runs each connection in a thread of its own, so that a slow disk never stops the event
loop. Its cursors cross over four times a statement (open, execute, fetch, close) at ~0.1 ms each:
more than SQLite itself takes for a whole ticket. Ours cross once.
"""

import sqlite3
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


async def connect(path: Path, *, busy_timeout_s: float) -> CrossingConnection:
    """Open a connection that leaves the beginning of transactions to its user."""

    def connector() -> sqlite3.Connection:
        return sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None)

    connection = CrossingConnection(connector)
    # Python waits for other threads at its end; a connection that was not closed must not hang it.
    connection._thread.daemon = True
    _ = await connection
    return connection


def watch_for_soon(engine: Engine) -> None:
    """Let an engine of these connections heed `SOON`."""

    @event.listens_for(engine, "before_cursor_execute")
    def _mark(  # SQLAlchemy's signature
        connection: Any, _cursor: Any, _sql: str, _rows: Any, context: ExecutionContext, _many: bool
    ) -> None:
        options = context.execution_options
        connection.connection.driver_connection.is_soon = "contactd_soon" in options
