"""Server-sent events for open status pages: drawn once per change, shared by all who look.

A page gets each part that differs from what it was sent last, and always the newest: nothing
queues up behind a slow reader, and one that does not read at all is cut off.

A thousand pages may be open. What a change says to all that have the same view and have read
everything so far are the same bytes, so they are put together and compressed once, and each
connection is handed them without waking its task; the tasks are for those who lag behind.
"""

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from aiohttp import web

from contactd.clock import Clock
from contactd.compressing import accepts_gzip
from contactd.errors import TemporaryFailure
from contactd.httpd import Problem, Refused
from contactd.log import get_logger
from contactd.metrics import HTTP_STREAMS, PEERS_REFUSED
from contactd.service import Health, HealthState
from contactd.signals import Signals, Topic, wait
from contactd.web.board import Board, BoardSnapshot
from contactd.web.i18n import Language
from contactd.web.streams import (
    RECHECK_S,
    RETRY_MS,
    STILL_HERE,
    event,
    shrink_send_buffer,
    write,
)

log = get_logger()

REDRAW_S: Final = 5.0  # without any signal; also the stream's heartbeat
COALESCE_S: Final = 0.2  # a burst of changes is drawn that often at most
FRESH_S: Final = 1.0  # a page that is opened may be given a drawing of this age
SNAPSHOT_S: Final = 5.0  # a database that takes longer counts as away

AT_ONCE: Final = 50  # pages that are told before the event loop may do something else

Parts = Mapping[str, str]  # part of the page -> its HTML
Events = Mapping[str, bytes]  # part of the page -> the event that brings it

# RFC 1952 section 2.3: deflate, no file name, no time, unknown system.
GZIP_HEAD: Final = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What everybody with the same view sees the same of.

    `public`: names are masked. `opens`: the numbers of tickets lead to their pages. `sites`: only
    what is theirs and what is of no known site; none: everything. `wall`: it hangs on a wall.
    """

    language: Language
    public: bool
    opens: bool = False
    sites: frozenset[str] = frozenset()
    wall: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What there is to draw. `stale`: the database is away, `board` is what it was before."""

    at: datetime
    board: BoardSnapshot
    health: Sequence[Health]
    stale: bool


@dataclass(slots=True, kw_only=True, eq=False)
class _Reader:
    """One open page. `wake` is set when its task has something to do, and at the end.

    `sent` are the parts as the page has them, those of the drawing `drawing` (0: none yet). `wire`
    is None while only the task may write.
    """

    view: View
    gzip: bool
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    sent: Events = field(default_factory=dict)
    drawing: int = 0
    wire: asyncio.WriteTransport | None = None


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
        self._events: dict[View, Events] = {}
        self._drawing = 1  # counts the drawings: all `_events` are of one
        self._news: dict[tuple[View, int, bool], bytes] = {}
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
                await self._publish()
                await asyncio.sleep(COALESCE_S)

    async def _publish(self) -> None:
        """Tell every page what is new: those that lag behind by their tasks, the others at once."""
        self._drawing += 1
        self._events.clear()
        self._news.clear()
        for number, reader in enumerate(tuple(self._readers), start=1):
            wire = reader.wire
            if wire is None or wire.is_closing() or wire.get_write_buffer_size():
                reader.wake.set()
            else:
                wire.write(_chunk(self._news_for(reader)))
            if not number % AT_ONCE:
                await asyncio.sleep(0)

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

    def _news_for(self, reader: _Reader) -> bytes:
        """Return what `reader` has not been sent yet, as it is sent, and take it for sent."""
        events = self._drawn(reader.view)
        key = (reader.view, reader.drawing, reader.gzip)
        if key not in self._news:
            news = [event for name, event in events.items() if reader.sent.get(name) != event]
            plain = b"".join(news) or STILL_HERE
            self._news[key] = _deflated(plain) if reader.gzip else plain
        reader.sent, reader.drawing = events, self._drawing
        return self._news[key]

    def _drawn(self, view: View) -> Events:
        """Return the parts as events, drawn by the first reader of this view who asks."""
        if view not in self._events:
            assert self._scene is not None  # noqa: S101 - readers wait for the first one
            parts = self._draw(self._scene, view)
            self._events[view] = {name: event(name, html) for name, html in parts.items()}
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
        reader = _Reader(view=view, gzip=accepts_gzip(request.headers))
        self._readers.add(reader)
        HTTP_STREAMS.set(len(self._readers))
        try:
            await self.scene()
            response = web.StreamResponse(
                headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
            )
            if reader.gzip:
                response.headers.update({"Content-Encoding": "gzip", "Vary": "Accept-Encoding"})
            shrink_send_buffer(request)
            await response.prepare(request)
            self._opened.set()
            await self._send_all(request, response, reader, allowed)
        finally:
            reader.wire = None
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
        first = b"retry: %d\n\n" % RETRY_MS
        await write(request, response, GZIP_HEAD + _deflated(first) if reader.gzip else first)
        checked_at = self._now()
        woken = True
        while not self._ended:
            if woken:
                await write(request, response, self._news_for(reader))
            # From now on it can be told without this task, unless chunks are not understood.
            if "Transfer-Encoding" in response.headers:
                reader.wire = request.transport
            woken = await wait(reader.wake, RECHECK_S)
            reader.wire = None
            if self._now() - checked_at >= RECHECK_S:
                if not await allowed():
                    return
                checked_at = self._now()


def _deflated(data: bytes) -> bytes:
    """Return a part of a gzip stream that stands by itself.

    It ends at a byte's border and leans on nothing before it (zlib's Z_FULL_FLUSH), so the same
    part fits into the stream of every page, and what it holds can be read as soon as it is there.
    Members of their own would not do: Chromium reads the first one only.
    """
    packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush(zlib.Z_FULL_FLUSH)


def _chunk(data: bytes) -> bytes:
    """Return one chunk of a body (RFC 9112 section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)
