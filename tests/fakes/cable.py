"""A TCP connection between two programs that can be cut, or go silent without anybody being told.

A `Cable` listens in front of a port. While it is `PLUGGED` it passes bytes on; a connection that
was once cut or silenced never works again, as with a firewall that has forgotten it.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from enum import Enum
from typing import Final

HOST: Final = "127.0.0.1"


class State(Enum):
    PLUGGED = "plugged"
    CUT = "cut"  # connections are reset, new ones as well
    SILENT = "silent"  # connections are there, and nothing passes: half-open


class Cable:
    """Use `async with Cable.laid() as cable`, and set `target` before anybody connects."""

    def __init__(self) -> None:
        self.target: tuple[str, int] = ("", 0)
        self.port = 0
        self.connections = 0  # that were passed on
        self._state = State.PLUGGED
        self._live: set[asyncio.Task[None]] = set()

    @classmethod
    @asynccontextmanager
    async def laid(cls) -> AsyncIterator["Cable"]:
        cable = cls()
        async with asyncio.TaskGroup() as tasks:
            visits: set[asyncio.Task[None]] = set()

            def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                visit = tasks.create_task(cable._visit(reader, writer))
                visits.add(visit)
                visit.add_done_callback(visits.discard)

            server = await asyncio.start_server(accept, HOST, 0)
            cable.port = server.sockets[0].getsockname()[1]
            try:
                yield cable
            finally:
                server.close()
                for visit in visits:
                    visit.cancel()

    def plug(self) -> None:
        """Let new connections through; the old ones stay as dead as they are."""
        self._state = State.PLUGGED

    def cut(self) -> None:
        """Reset every connection, and every new one until it is plugged again."""
        self._state = State.CUT
        self._end_passing()

    def silence(self) -> None:
        """Pass nothing any more on any connection; take new ones and let them wait."""
        self._state = State.SILENT
        self._end_passing()

    def _end_passing(self) -> None:
        for passing in self._live:
            passing.cancel()

    async def _visit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        try:
            if self._state is State.PLUGGED:
                far_reader, far_writer = await asyncio.open_connection(*self.target)
                ends.append(far_writer)
                await self._pass(_pump(reader, far_writer), _pump(far_reader, writer))
            if self._state is State.SILENT:
                while await reader.read(65_536):  # until this side gives up; the far one must, too
                    pass
        except OSError:
            pass  # nobody behind it, or one of the two went away
        finally:
            for end in ends:
                end.transport.abort()

    async def _pass(self, *ways: Coroutine[None, None, None]) -> None:
        """Pass bytes on, both ways, until one side ends or `_end_passing`."""
        async with asyncio.TaskGroup() as tasks:
            both = [tasks.create_task(way) for way in ways]
            self._live.update(both)
            if self._state is not State.PLUGGED:  # since we connected
                self._end_passing()
            self.connections += 1
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            for way in both:
                way.cancel()
        self._live.difference_update(both)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while piece := await reader.read(65_536):
            writer.write(piece)
            await writer.drain()
    except OSError:
        pass
