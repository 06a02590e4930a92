"""Processes that are killed at one of their awaits, with nothing but their database left behind.

What a crash can divide is a step that the world notices: a statement, a commit, a message. Before
each of them, and after those that the world keeps, a process may die; between two of them nothing
happens that anybody could find later. Statements run in the event loop's own thread, one after the
other, so that the same steps come in the same order each time: a death is told by its number.
"""

import asyncio
import math
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from contactd.clock import Clock
from contactd.store import engine, sqlite
from contactd.store.engine import Database


class Killed(BaseException):
    """Nobody may catch it: the process is no more."""


class Process:
    """`dies_at` is the number of the step before which it dies; 0: it lives."""

    def __init__(self, dies_at: int = 0) -> None:
        self.steps = 0
        self.dead = False
        self.last_words = ""
        self._dies_at = dies_at

    def spare(self) -> None:
        """Let it live from now on."""
        self._dies_at = 0

    async def step(self, name: str, *, turns: int = 1) -> None:
        """Let others have so many turns, and go on if still alive.

        Raises:
            Killed: it is dead. What runs after that (`finally`, other tasks) gets no further.
        """
        for _ in range(0 if self.dead else turns):
            await asyncio.sleep(0)
        if not self.dead:
            self.steps += 1
            self.dead = self.steps == self._dies_at
            self.last_words = name
        if self.dead:
            raise Killed


class Machine:
    """Where processes live one after the other; its disk is `path`.

    Its engines outlive them, for they know statements that take long to compile; of their
    connections none does.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._process = Process()
        self._open: list[_Connection] = []
        with mock.patch.object(sqlite, "connect", self._connect):
            self._engines = engine._engines(engine.driver_url(f"sqlite:///{path}"), [])

    async def _connect(self, path: Path, _made: list[Any], **options: Any) -> "_Connection":
        made = _Connection(partial(sqlite.opened, path, **options), self._process)
        self._open.append(made)
        return await made

    def install(self, template: Path) -> None:
        """Replace what is on the disk by a copy of `template`."""
        for each in self.path.parent.glob(f"{self.path.name}*"):  # with the journals
            each.unlink()
        shutil.copyfile(template, self.path)

    @asynccontextmanager
    async def running(self, process: Process, clock: Clock) -> AsyncIterator[Database]:
        """Give `process` the database; at the end what it has not committed is gone."""
        self._process = process
        database = Database(f"sqlite:///{self.path}", clock=clock)
        try:
            with (
                mock.patch.object(engine, "_engines", return_value=self._engines),
                mock.patch.object(sqlite, "connect", self._connect),
            ):
                await database.open()
            # The number of a step must not depend on the machine's clock: one checkpoint a life.
            with mock.patch.object(engine, "CHECKPOINT_S", math.inf):
                yield database
        finally:
            process.dead = True  # whatever still runs gets no further
            for each in self._open:
                each.stop()
            self._open.clear()
            for kept in self._engines:
                await kept.dispose(close=False)


class _Connection(sqlite.CrossingConnection):
    """A connection without a thread."""

    def __init__(self, connector: Callable[[], sqlite3.Connection], process: Process) -> None:
        super().__init__(connector)
        self._process = process

    def __await__(self) -> Generator[Any, None, "_Connection"]:
        self._connection = self._connector()
        return self
        yield  # a generator that never waits

    async def _execute(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        is_commit = fn is sqlite.run_and_commit
        await self._process.step("commit" if is_commit else "statement")
        found = fn(*args, **kwargs)
        if is_commit:
            await self._process.step("committed")
        return found

    async def rollback(self) -> None:
        self.soon = []
        if not self._process.dead:
            self._conn.rollback()

    async def close(self) -> None:
        self.stop()

    def stop(self) -> None:
        """Close it at once; whatever is not committed is undone."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
