"""Peers that behave badly on purpose, for any port of ours and (turned round) any client of ours.

A peer is a function of an open stream; it ends when the other side closes, or runs until it is
cancelled. `prefix` is what a good peer would begin with (`agi_network: yes\\n`, `GET / HTTP/1.1`,
`Asterisk Call Manager/11.0.0`), so that the bad one gets past the first look.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

Misbehave = Callable[[asyncio.StreamReader, asyncio.StreamWriter, bytes], Awaitable[None]]

CROWD: Final = 300


async def connect_and_close(
    _reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _prefix: bytes
) -> None:
    writer.close()


async def connect_and_reset(
    _reader: asyncio.StreamReader, writer: asyncio.StreamWriter, prefix: bytes
) -> None:
    writer.write(prefix)
    writer.transport.abort()


async def say_nothing(
    reader: asyncio.StreamReader, _writer: asyncio.StreamWriter, _prefix: bytes
) -> None:
    await _until_closed(reader)


async def stop_half_way(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, prefix: bytes
) -> None:
    """Half-open: says how it begins, and is never heard of again."""
    writer.write(prefix)
    await _until_closed(reader)


async def shut_one_direction(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, prefix: bytes
) -> None:
    """Sends FIN after the beginning, but goes on listening."""
    writer.write(prefix)
    writer.write_eof()
    await _until_closed(reader)


async def one_byte_a_second(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, prefix: bytes
) -> None:
    for byte in prefix * 1000:
        writer.write(bytes([byte]))
        if await _until_closed(reader, timeout_s=1):
            return


async def garbage(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _prefix: bytes
) -> None:
    source = random.Random(2)
    await _pour(reader, writer, lambda: source.randbytes(64 * 1024))


async def garbage_after_the_beginning(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, prefix: bytes
) -> None:
    writer.write(prefix)
    await garbage(reader, writer, prefix)


async def endless_line(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, prefix: bytes
) -> None:
    writer.write(prefix)
    await _pour(reader, writer, lambda: b"a" * 64 * 1024)


async def endless_short_lines(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, prefix: bytes
) -> None:
    await _pour(reader, writer, lambda: prefix * (64 * 1024 // len(prefix)))


async def only_line_ends(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, prefix: bytes
) -> None:
    writer.write(prefix)
    await _pour(reader, writer, lambda: b"\r\n" * 32 * 1024)


PEERS: Final[Mapping[str, Misbehave]] = {
    "connects and closes": connect_and_close,
    "connects and resets": connect_and_reset,
    "says nothing": say_nothing,
    "stops half way": stop_half_way,
    "shuts one direction": shut_one_direction,
    "sends one byte a second": one_byte_a_second,
    "sends garbage": garbage,
    "sends garbage after the beginning": garbage_after_the_beginning,
    "sends an endless line": endless_line,
    "sends short lines for ever": endless_short_lines,
    "sends line ends for ever": only_line_ends,
}


async def visit(port: int, peer: Misbehave, prefix: bytes, *, host: str = "127.0.0.1") -> None:
    """Be that peer towards a listener; return when the listener has ended the connection."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        await peer(reader, writer, prefix)
    except ConnectionError:
        pass  # which is what it deserves
    finally:
        writer.transport.abort()


@asynccontextmanager
async def listening(peer: Misbehave, prefix: bytes) -> AsyncIterator[tuple[int, asyncio.Event]]:
    """Be that peer towards clients; yield the port and an event: somebody has connected."""
    met = asyncio.Event()

    async with asyncio.TaskGroup() as tasks:
        writers: list[asyncio.StreamWriter] = []

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            visits.append(tasks.create_task(_host(reader, writer)))
            met.set()

        async def _host(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await peer(reader, writer, prefix)
            except ConnectionError:
                pass
            finally:
                writer.transport.abort()

        visits: list[asyncio.Task[None]] = []
        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1], met
        finally:
            server.close()
            for task in visits:
                task.cancel()
            for writer in writers:
                writer.transport.abort()


@asynccontextmanager
async def idle_crowd(
    port: int, *, count: int = CROWD, host: str = "127.0.0.1"
) -> AsyncIterator[None]:
    """Keep `count` peers connected that say nothing; who is thrown out comes back at once."""

    async def idle() -> None:
        while True:
            try:
                reader, writer = await asyncio.open_connection(host, port)
            except OSError:
                await asyncio.sleep(0.01)
                continue
            try:
                await _until_closed(reader)
            except ConnectionError:
                pass
            finally:
                writer.transport.abort()
            await asyncio.sleep(0.2)

    async with asyncio.TaskGroup() as tasks:
        crowd = [tasks.create_task(idle(), name=f"idle-{number}") for number in range(count)]
        try:
            yield
        finally:
            for task in crowd:
                task.cancel()


async def _pour(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, piece: Callable[[], bytes]
) -> None:
    """Write pieces as fast as the other side reads them, until it closes."""
    while not reader.at_eof():
        writer.write(piece())
        await writer.drain()
        if await _until_closed(reader, timeout_s=0):
            return


async def _until_closed(reader: asyncio.StreamReader, timeout_s: float | None = None) -> bool:
    """Read and forget; return True at the end of the stream, False if the time is over."""
    try:
        async with asyncio.timeout(timeout_s):
            while await reader.read(64 * 1024):
                pass
    except TimeoutError:
        return False
    return True
