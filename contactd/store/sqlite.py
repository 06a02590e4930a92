"""SQLite connections that cross to their thread once a statement.

aiosqlite runs each connection in a thread of its own, so that a slow disk never stops the event
loop. Its cursors cross over four times a statement (open, execute, fetch, close) at ~0.1 ms each:
more than SQLite itself takes for a whole ticket. Ours cross once.
"""

import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from aiosqlite import Connection


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
        await self._connection.cross(partial(self._run, "execute", sql, parameters))
        return self

    async def executemany(self, sql: str, parameters: Any) -> "_Cursor":
        await self._connection.cross(partial(self._run, "executemany", sql, parameters))
        return self

    async def fetchall(self) -> list[Any]:
        rows, self._rows = self._rows, []
        return rows

    async def close(self) -> None:
        self._rows = []

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
    def cursor(self) -> Any:
        return _Cursor(self)

    async def cross(self, function: Callable[[sqlite3.Connection], None]) -> None:
        """Run `function` in this connection's thread."""
        await self._execute(function, self._conn)  # type: ignore[no-untyped-call]


async def connect(path: Path, *, busy_timeout_s: float) -> CrossingConnection:
    """Open a connection that leaves the beginning of transactions to its user."""

    def connector() -> sqlite3.Connection:
        return sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None)

    connection = CrossingConnection(connector, 64)
    # Python waits for other threads at its end; a connection that was not closed must not hang it.
    connection._thread.daemon = True
    _ = await connection
    return connection
