"""Server-sent events for open status pages: drawn once per change, shared by all who look.

A page gets each part that differs from what it was sent last, and always the newest: nothing
queues up behind a slow reader, and one that does not read at all is cut off.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from aiohttp import web

from contactd.clock import Clock
from contactd.errors import TemporaryFailure
from contactd.httpd import Problem, Refused
from contactd.log import get_logger
from contactd.metrics import HTTP_STREAMS, PEERS_REFUSED
from contactd.service import Health, HealthState
from contactd.signals import Signals, Topic, wait
from contactd.web.board import Board, BoardSnapshot
from contactd.web.i18n import Language

log = get_logger()

REDRAW_S: Final = 5.0  # without any signal; also the stream's heartbeat
COALESCE_S: Final = 0.2  # a burst of changes is drawn that often at most
FRESH_S: Final = 1.0  # a page that is opened may be given a drawing of this age
SNAPSHOT_S: Final = 5.0  # a database that takes longer counts as away
WRITE_S: Final = 5.0  # a reader that has not taken an event by then is cut off
SEND_BUFFER_BYTES: Final = 64 * 1024  # in the kernel, per stream: a few boards
RECHECK_S: Final = 60.0  # how often an open page must still be allowed
RETRY_MS: Final = 2_000  # how soon a browser tries again

Parts = Mapping[str, str]  # part of the page -> its HTML


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What everybody with the same view sees the same of.

    `public`: names are masked. `opens`: the numbers of tickets lead to their pages.
    """

    language: Language
    public: bool
    opens: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What there is to draw. `stale`: the database is away, `board` is what it was before."""

    at: datetime
    board: BoardSnapshot
    health: Sequence[Health]
    stale: bool


@dataclass(slots=True, kw_only=True, eq=False)
class _Reader:
    """One open page. `wake` is set when there is something new, and at the end."""

    view: View
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class Live:
    """Draws the board when it changes and streams it to open pages, as a service."""

    name = "live"

    def __init__(  # noqa: PLR0913 - the composition root's words
        self,
        *,
        board: Board,
        health: Callable[[], Sequence[Health]],
        draw: Callable[[Scene, View], Parts],
        signals: Signals,
        clock: Clock,
        max_streams: int,
    ) -> None:
        self._board = board
        self._health = health
        self._draw = draw
        self._signals = signals
        self._clock = clock
        self._max_streams = max_streams
        self._readers: set[_Reader] = set()
        self._scene: Scene | None = None
        self._seen_at = float("-inf")  # event loop's clock
        self._looking = asyncio.Lock()
        self._events: dict[View, Mapping[str, bytes]] = {}
        self._opened = asyncio.Event()
        self._ended = False

    # The service

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(self._watch(), name="live")
            try:
                yield
            finally:
                watch.cancel()

    def end_streams(self) -> None:
        """Let the open pages go: their browsers come back when the next daemon is there."""
        self._ended = True
        for reader in self._readers:
            reader.wake.set()

    def health(self) -> list[Health]:
        open_, most = len(self._readers), self._max_streams
        full = open_ >= most
        return [
            Health(
                component="live",
                state=HealthState.DEGRADED if full else HealthState.UP,
                detail=f"all {most} live pages are open: raise http.max_streams" if full else "",
                figures={"streams": open_},
            )
        ]

    async def _watch(self) -> None:
        with self._signals.listening(Topic.BOARD) as changed:
            while True:
                if not self._readers:  # nobody looks: cost nothing
                    self._opened.clear()
                    await self._opened.wait()
                await wait(changed, REDRAW_S)
                await self._look()
                self._publish()
                await asyncio.sleep(COALESCE_S)

    def _publish(self) -> None:
        self._events.clear()
        for reader in self._readers:
            reader.wake.set()

    # What there is to see

    async def scene(self) -> Scene:
        """Return what there is to see, at most `FRESH_S` old."""
        if self._scene is None or self._now() - self._seen_at > FRESH_S:
            await self._look()
        assert self._scene is not None  # noqa: S101 - _look() leaves one
        return self._scene

    async def parts(self, view: View) -> Parts:
        """Return the parts of the page for `view`, drawn now."""
        return self._draw(await self.scene(), view)

    async def _look(self) -> None:
        asked_at = self._now()
        async with self._looking:
            if self._seen_at > asked_at:
                return  # somebody looked while we waited
            started_at = self._now()
            stale = False
            try:
                async with asyncio.timeout(SNAPSHOT_S):
                    board = await self._board.snapshot()
            except (TemporaryFailure, TimeoutError) as failure:
                log.warning("board.stale", reason=str(failure) or "the database is slow")
                stale = True
                board = self._scene.board if self._scene else BoardSnapshot(at=self._clock.now())
            self._scene = Scene(
                at=self._clock.now(), board=board, health=tuple(self._health()), stale=stale
            )
            self._seen_at = started_at

    def _drawn(self, view: View) -> Mapping[str, bytes]:
        """Return the parts as events, drawn by the first reader of this view who asks."""
        if view not in self._events:
            assert self._scene is not None  # noqa: S101 - readers wait for the first one
            parts = self._draw(self._scene, view)
            self._events[view] = {name: _event(name, html) for name, html in parts.items()}
        return self._events[view]

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    # One open page

    async def stream(
        self,
        request: web.Request,
        view: View,
        *,
        allowed: Callable[[], Awaitable[bool]],
    ) -> web.StreamResponse:
        """Send `view` to one page until it leaves, is cut off, or the server stops.

        `allowed` is asked now and then: a session can end while its page is open.

        Raises:
            Refused: there are `max_streams` pages already.
        """
        if request.method == "HEAD":
            return web.Response(content_type="text/event-stream")
        if self._ended or len(self._readers) >= self._max_streams:
            PEERS_REFUSED.labels(listener="http", reason="max_streams").inc()
            raise Refused(
                Problem(status=503, detail="too many open pages", headers={"Retry-After": "10"})
            )
        reader = _Reader(view=view)
        self._readers.add(reader)
        HTTP_STREAMS.set(len(self._readers))
        try:
            await self.scene()
            response = web.StreamResponse(
                headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
            )
            _shrink_send_buffer(request)
            await response.prepare(request)
            self._opened.set()
            await self._send_all(request, response, reader, allowed)
        finally:
            self._readers.discard(reader)
            HTTP_STREAMS.set(len(self._readers))
        return response

    async def _send_all(
        self,
        request: web.Request,
        response: web.StreamResponse,
        reader: _Reader,
        allowed: Callable[[], Awaitable[bool]],
    ) -> None:
        await _write(request, response, b"retry: %d\n\n" % RETRY_MS)
        sent: Mapping[str, bytes] = {}
        checked_at = self._now()
        while not self._ended:
            events = self._drawn(reader.view)
            news = [event for name, event in events.items() if sent.get(name) != event]
            await _write(request, response, b"".join(news) or b": still here\n\n")
            sent = events
            await wait(reader.wake, REDRAW_S * 2)
            if self._now() - checked_at > RECHECK_S:
                if not await allowed():
                    return
                checked_at = self._now()


async def _write(request: web.Request, response: web.StreamResponse, data: bytes) -> None:
    try:
        async with asyncio.timeout(WRITE_S):
            await response.write(data)
    except TimeoutError:
        PEERS_REFUSED.labels(listener="http", reason="slow_reader").inc()
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("the page does not read") from None


def _shrink_send_buffer(request: web.Request) -> None:
    """Keep little in the kernel, so that a page that does not read is noticed soon."""
    connection = request.transport.get_extra_info("socket") if request.transport else None
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)


def _event(name: str, html: str) -> bytes:
    """Return one event (WHATWG HTML section 9.2.5); a line break inside is a `data:` more."""
    lines = [line.strip() for line in html.splitlines()]
    data = "".join(f"data: {line}\n" for line in lines if line)
    return f"event: {name}\n{data or 'data:' + chr(10)}\n".encode()
