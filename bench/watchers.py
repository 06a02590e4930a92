"""Open wallboards, as one program: `python -m bench.watchers PORT PATH VIEWERS`.

Each is a connection that asks for gzip, as a browser does, and takes every event of the stream.
It says `ready` once each has had its first one. A line on its standard input with the instants of
the changes (JSON; the n-th made the board say that there are n tickets) ends it: it prints how
long after each change each viewer was told, and what came by the wire. A stream that tells instants
itself (`at <seconds> `) needs no such list. What all viewers get are the same bytes, so each event
is read once, however many get it.
"""

import asyncio
import json
import re
import sys
import time
import zlib
from collections import Counter
from typing import Final

from bench.figures import percentile

HOST: Final = "127.0.0.1"
ASK: Final = (
    "GET {path} HTTP/1.1\r\nHost: desk.example\r\nAccept: text/event-stream\r\n"
    "Accept-Encoding: gzip\r\n\r\n"
)
AT_ONCE: Final = 50  # connections that are being opened
GZIP_HEAD_BYTES: Final = 10
_TICKETS: Final = re.compile(rb"Tickets today</span>[^0-9]*?>(\d+)<")
_AT: Final = re.compile(rb"at (\d+\.\d+) ")


class Crowd:
    """What the viewers have heard."""

    def __init__(self) -> None:
        self.first: dict[int, Counter[float]] = {}
        self.delays: list[float] = []
        self.bytes = self.events = 0
        self.counting = False
        self._read: dict[bytes, tuple[int, float]] = {}

    def read(self, chunk: bytes) -> tuple[int, float]:
        """Return how many tickets a part of the stream tells of (-1: nothing), and its instant."""
        if chunk not in self._read:
            if len(self._read) > 10_000:
                self._read.clear()
            body = chunk[GZIP_HEAD_BYTES:] if chunk.startswith(b"\x1f\x8b") else chunk
            try:
                text = zlib.decompressobj(-zlib.MAX_WBITS).decompress(body)
            except zlib.error:
                text = chunk
            tickets, at = _TICKETS.search(text), _AT.search(text)
            self._read[chunk] = (int(tickets[1]) if tickets else -1, float(at[1]) if at else 0.0)
        return self._read[chunk]


class Viewer(asyncio.Protocol):
    def __init__(self, crowd: Crowd, path: str) -> None:
        self._crowd = crowd
        self._path = path
        self._heard = b""
        self._in_body = False
        self.told: list[tuple[float, int]] = []  # when there were how many tickets
        self.ready = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(ASK.format(path=self._path).encode())

    def data_received(self, data: bytes) -> None:
        now = time.time()
        self._heard += data
        if not self._in_body:
            head, end, rest = self._heard.partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"refused: {head[:80]!r}")
            self._in_body, self._heard = True, rest
        while True:
            size, end, rest = self._heard.partition(b"\r\n")
            if not end or len(rest) < int(size, 16) + 2:
                return
            chunk, self._heard = rest[: int(size, 16)], rest[int(size, 16) + 2 :]
            self._take(chunk, now)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ready.done():
            self.ready.set_exception(exc or ConnectionResetError("it was closed"))

    def _take(self, chunk: bytes, now: float) -> None:
        tickets, at = self._crowd.read(chunk)
        if (tickets >= 0 or at) and not self.ready.done():
            self.ready.set_result(None)
        if not self._crowd.counting:
            return
        self._crowd.bytes += len(chunk)
        self._crowd.events += 1
        if at:
            self._crowd.delays.append(now - at)
        if tickets >= 0:
            self.told.append((now, tickets))


def delays(told: list[tuple[float, int]], changed: list[float], before: int) -> list[float]:
    """Return how long one viewer waited for each change."""
    found, known = [], before
    for at, tickets in told:
        for number in range(known, min(tickets, before + len(changed))):
            found.append(at - changed[number - before])
        known = max(known, tickets)
    return found


async def main(port: int, path: str, viewers: int) -> None:
    crowd = Crowd()
    loop = asyncio.get_running_loop()
    turns = asyncio.Semaphore(AT_ONCE)

    async def watch() -> Viewer:
        async with turns:
            _, viewer = await loop.create_connection(lambda: Viewer(crowd, path), HOST, port)
            await viewer.ready
        return viewer

    everybody = await asyncio.gather(*(watch() for _ in range(viewers)))
    crowd.counting = True
    print("ready", flush=True)
    given = json.loads(await asyncio.to_thread(sys.stdin.readline))
    took = crowd.delays
    for viewer in everybody:
        took += delays(viewer.told, given["changed"], given["before"])
    said = {
        "p50": percentile(took, 50),
        "p99": percentile(took, 99),
        "told": len(took),
        "bytes": crowd.bytes,
        "events": crowd.events,
    }
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
