"""The broker's four WebSockets: a helper's, the user's page, an engineer's page and their picture.

Nothing secret is in an address: the first frame, a text, holds an admission or a helper's key. A
browser's socket must come from our own pages (Origin), a helper's from none. Each has limits of
size, time and number; who breaks one loses the connection, or the session if it is theirs.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

from aiohttp import WSMessage, WSMsgType, web

from contactd.clock import Clock
from contactd.errors import ContactdError
from contactd.httpd import HTTPD, Identity, Problem, Refused, Route
from contactd.log import get_logger
from contactd.metrics import HANDLER_FAILURES, PEERS_REFUSED
from contactd.remote import talk
from contactd.remote.admissions import Admission, Admissions, Door
from contactd.remote.broker import Broker
from contactd.remote.legs import LiveLeg, Pace
from contactd.remote.peers import MESSAGE_BYTES, Misbehaved
from contactd.remote.rfb import Forbidden
from contactd.remote.room import Room
from contactd.tickets.journal import REQUESTER
from contactd.tickets.people import Role
from contactd.tickets.remote import CLOSE_CODES, Ending

log = get_logger()

FIRST_S: Final = 5.0  # until the first frame is in
STALL_S: Final = 5.0  # a peer that takes nothing for so long is gone
CLOSING_S: Final = 2.0  # for a peer to answer the end
RECHECK_S: Final = 60.0  # how often an engineer must still be allowed
MOST_WORDS: Final = 500  # waiting for one peer
MOST_STRANGERS: Final = 100  # sockets whose first frame is not in
MOST_PAGES: Final = 8  # of one session and one side
WRONG_KEYS: Final = 20  # of one address, a minute
WORDS_PER_S: Final = 50
FRAME_BYTES: Final = 64 * 1024 + 1  # of a VNC server: its leg, and 64 KiB
CHUNK_BYTES: Final = (1 << 20) + 1  # of a browser's recording
WORD_BYTES: Final = 64 * 1024  # of a page's message: a description of WebRTC
BAD: Final = CLOSE_CODES[Ending.FORBIDDEN]
TRY_LATER: Final = 1013
POLICY: Final = 1008

Take = Callable[[WSMessage], Awaitable[None]]


class SocketPeer:
    """A WebSocket as the broker sees it; `serve` runs in its handler."""

    def __init__(
        self, ws: web.WebSocketResponse, *, person: str, name: str = "", may_look: bool = False
    ) -> None:
        self.person = person
        self.name = name
        self.may_look = may_look
        self._ws = ws
        self._words: asyncio.Queue[str] = asyncio.Queue(MOST_WORDS)
        self._over: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._pace = Pace(WORDS_PER_S)

    def tell(self, message: Mapping[str, Any]) -> None:
        if self._over.done():
            return
        try:
            self._words.put_nowait(json.dumps(message, ensure_ascii=False))
        except asyncio.QueueFull:
            PEERS_REFUSED.labels(listener="remote", reason="slow_reader").inc()
            self.close(TRY_LATER)

    async def send(self, data: bytes) -> None:
        try:
            async with asyncio.timeout(STALL_S):
                if not self._words.empty():
                    await self._words.join()
                if self._over.done():
                    raise ConnectionResetError("it was let go")
                await self._ws.send_bytes(data)
        except TimeoutError:
            PEERS_REFUSED.labels(listener="remote", reason="slow_reader").inc()
            self.close(CLOSE_CODES[Ending.LOST])
            raise ConnectionResetError("it takes nothing") from None

    def close(self, code: int) -> None:
        if not self._over.done():
            self._over.set_result(code)

    @property
    def is_over(self) -> bool:
        return self._over.done()

    async def pay(self) -> None:
        """Wait if this peer talks faster than anybody does."""
        await self._pace.pay(1)

    async def serve(self, take: Take) -> None:
        """Read and write until it leaves or is let go.

        The reader is a task of its own that ends before we close: a close beside somebody who
        reads reaches the peer as 1006 now and then.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                reader = tasks.create_task(self._read(take))
                writer = tasks.create_task(self._write())
                code = await self._over
                reader.cancel()
                await self._last_words(writer)
                writer.cancel()
        finally:
            self.close(POLICY)
        await self._ws.close(code=code)

    async def _last_words(self, writer: asyncio.Task[None]) -> None:
        try:
            async with asyncio.timeout(CLOSING_S):
                if not writer.done():
                    await self._words.join()
        except TimeoutError:
            pass

    async def _read(self, take: Take) -> None:
        while not self._over.done():
            message = await self._ws.receive()
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                self.close(1000)
                return
            await take(message)

    async def _write(self) -> None:
        while True:
            words = await self._words.get()
            try:
                async with asyncio.timeout(STALL_S):
                    await self._ws.send_str(words)
            except (TimeoutError, ConnectionError):
                self.close(CLOSE_CODES[Ending.LOST])
            finally:
                self._words.task_done()


class Sockets:
    """`acting` are the roles that help, `looking` those that may watch; `sees`: who sees where."""

    def __init__(  # noqa: PLR0913 - the composition root's words
        self,
        *,
        broker: Broker,
        admissions: Admissions,
        clock: Clock,
        public_url: str,
        acting: Collection[Role],
        looking: Collection[Role],
        sees: Callable[[Identity, str], bool],
    ) -> None:
        self._broker = broker
        self._admissions = admissions
        self._clock = clock
        self._own_hosts = {urlsplit(public_url).netloc} - {""}
        self._acting = frozenset(acting) | frozenset(looking)
        self._looking = frozenset(looking)
        self._sees = sees
        self._strangers = 0
        self._wrong: dict[str, list[datetime]] = {}

    def routes(self) -> Iterable[Route]:
        paths: Mapping[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = {
            "/desk/remote/{session}/live": self.desk,
            "/desk/remote/{session}/screen": self.screen,
        }
        for path, handler in paths.items():
            yield Route(method="GET", path=path, handler=handler, roles=self._acting)
        yield Route(method="GET", path="/s/live", handler=self.share, roles=None)
        yield Route(method="GET", path="/s/connect", handler=self.helper, roles=None)

    # Who comes

    async def helper(self, request: web.Request) -> web.StreamResponse:
        """Serve a user's helper."""
        _check_upgrade(request)
        if "Origin" in request.headers:
            raise Refused(Problem(status=403, detail="not for browsers"))
        ws, first = await self._opened(request, most=FRAME_BYTES, heartbeat=4)
        key, address = first.get("key"), request.app[HTTPD].client(request)
        entered = None
        if isinstance(key, str) and first.get("version") == 1 and self._may_try(address):
            entered = await self._broker.take_key(key)
        if entered is None:
            self._wrong.setdefault(address, []).append(self._clock.now())
            PEERS_REFUSED.labels(listener="remote", reason="key").inc()
            await ws.close(code=CLOSE_CODES[Ending.EXPIRED])
            return ws
        room, resume_key = entered
        peer = SocketPeer(ws, person=REQUESTER)
        room.helper_comes(peer, resume_key)

        async def take(message: WSMessage) -> None:
            if message.type is WSMsgType.BINARY:
                await room.from_helper(message.data)
            else:
                await peer.pay()
                await talk.say(room, peer, _small(message), talk.HELPER)

        def offends() -> None:
            room.finish(Ending.FORBIDDEN)

        try:
            await self._serve(request, peer, take, offends)
        finally:
            room.helper_leaves(peer)
            self._broker.tidy()
        return ws

    async def share(self, request: web.Request) -> web.StreamResponse:
        """Serve a page of the user."""
        ws, room, _ = await self._admitted(request, Door.SHARE, most=CHUNK_BYTES)
        if room is None:
            return ws
        peer = SocketPeer(ws, person=REQUESTER)
        if len(room.users) >= MOST_PAGES:
            room.users[0].close(TRY_LATER)
        room.user_comes(peer)

        async def take(message: WSMessage) -> None:
            if message.type is WSMsgType.BINARY:
                await room.from_sharer(peer, message.data)
            else:
                await peer.pay()
                await talk.say(room, peer, _word(message), talk.SHARE)

        try:
            await self._serve(request, peer, take)
        finally:
            room.user_leaves(peer)
            self._broker.tidy()
        return ws

    async def desk(self, request: web.Request) -> web.StreamResponse:
        """Serve a page of an engineer."""
        ws, room, known = await self._admitted(request, Door.DESK, most=WORD_BYTES)
        if room is None or known is None:
            return ws
        identity = await _identity(request)
        peer = SocketPeer(
            ws, person=known.person, name=known.name or known.person,
            may_look=identity.role in self._looking,
        )  # fmt: skip
        if len(room.desk) >= MOST_PAGES:
            room.desk[0].close(TRY_LATER)
        room.desk_comes(peer)

        async def take(message: WSMessage) -> None:
            await peer.pay()
            await talk.say(room, peer, _word(message), talk.DESK)

        try:
            await self._serve(request, peer, take)
        finally:
            room.desk_leaves(peer)
            self._broker.tidy()
        return ws

    async def screen(self, request: web.Request) -> web.StreamResponse:
        """Serve the picture of a leg to whose it is."""
        ws, room, known = await self._admitted(request, Door.SCREEN, most=FRAME_BYTES)
        if room is None or known is None:
            return ws
        peer = SocketPeer(ws, person=known.person, name=known.name)
        live = await room.screen_comes(peer)
        if live is None:
            await ws.close(code=POLICY)
            return ws

        async def take(message: WSMessage) -> None:
            if message.type is not WSMsgType.BINARY:
                raise Misbehaved("words where a picture is")
            await self._from_viewer(room, live, peer, message.data)

        def offends() -> None:
            room.finish(Ending.FORBIDDEN)

        try:
            await self._serve(request, peer, take, offends)
        finally:
            room.screen_leaves(live)
        return ws

    async def _from_viewer(self, room: Room, live: LiveLeg, peer: SocketPeer, data: bytes) -> None:
        try:
            await room.from_viewer(live, data)
        except ConnectionError:  # the helper's, not ours
            peer.close(CLOSE_CODES[Ending.LOST])

    # What all have in common

    async def _admitted(
        self, request: web.Request, door: Door, *, most: int
    ) -> tuple[web.WebSocketResponse, Room | None, Admission | None]:
        """Let in who shows an admission for this door, this session and themselves."""
        _check_upgrade(request)
        self._check_origin(request)
        ws, first = await self._opened(request, most=most, heartbeat=10)
        shown = first.get("admission")
        known = self._admissions.take(shown, door) if isinstance(shown, str) else None
        if known is None or not await self._is_theirs(request, known):
            PEERS_REFUSED.labels(listener="remote", reason="admission").inc()
            await ws.close(code=POLICY)
            return ws, None, None
        room = await self._broker.room(known.session)
        if room is None or not await self._may(request, room):
            await ws.close(code=POLICY)
            return ws, None, None
        return ws, room, known

    async def _is_theirs(self, request: web.Request, known: Admission) -> bool:
        if known.door is Door.SHARE:
            return known.person == REQUESTER
        identity = await request.app[HTTPD].identify(request)
        is_same = identity is not None and identity.name == known.person
        return is_same and request.match_info["session"] == str(known.session)

    async def _may(self, request: web.Request, room: Room) -> bool:
        """Return whether who sends this may still work where the session is."""
        if "session" not in request.match_info:
            return True
        identity = await request.app[HTTPD].identify_again(request)
        if identity is None or identity.role not in self._acting:
            return False
        return self._sees(identity, room.session.site)

    def _check_origin(self, request: web.Request) -> None:
        """Refuse a socket that another site's page opens: browsers send cookies with it."""
        origin = urlsplit(request.headers.get("Origin", "")).netloc
        if not origin or origin not in self._own_hosts | {request.host}:
            PEERS_REFUSED.labels(listener="http", reason="foreign_origin").inc()
            raise Refused(Problem(status=403, detail="sent from another site"))

    async def _opened(
        self, request: web.Request, *, most: int, heartbeat: float
    ) -> tuple[web.WebSocketResponse, Mapping[str, Any]]:
        """Open the socket and return its first frame; {} if that is none."""
        ws = web.WebSocketResponse(
            compress=False, max_msg_size=most, heartbeat=heartbeat, timeout=CLOSING_S
        )
        if self._strangers >= MOST_STRANGERS:
            PEERS_REFUSED.labels(listener="remote", reason="max_connections").inc()
            raise Refused(Problem(status=503, headers={"Retry-After": "5"}))
        self._strangers += 1
        try:
            await ws.prepare(request)
            async with asyncio.timeout(FIRST_S):
                message = await ws.receive()
            return ws, _hello(message)
        except (TimeoutError, Misbehaved):
            return ws, {}
        finally:
            self._strangers -= 1

    def _may_try(self, address: str) -> bool:
        """Return whether an address may show one more key: each costs a transaction."""
        since = self._clock.now() - timedelta(minutes=1)
        self._wrong = {
            peer: left
            for peer, times in self._wrong.items()
            if (left := [each for each in times if each > since])
        }
        return len(self._wrong.get(address, ())) < WRONG_KEYS

    async def _serve(
        self,
        request: web.Request,
        peer: SocketPeer,
        take: Take,
        offends: Callable[[], None] = lambda: None,
    ) -> None:
        """Serve one peer: what it does wrong costs its own connection, or its own session."""

        async def guarded(message: WSMessage) -> None:
            try:
                await take(message)
            except (Misbehaved, Forbidden) as offence:
                PEERS_REFUSED.labels(listener="remote", reason="forbidden").inc()
                log.warning("remote.offence", reason=str(offence))
                offends()
                peer.close(BAD)
            except ContactdError as failure:
                log.warning("remote.failed", reason=str(failure))
                peer.tell({"type": "error", "text": "refused"})
            except Exception:
                log.exception("remote.broken")
                HANDLER_FAILURES.labels(where="remote").inc()
                peer.close(1011)

        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(self._recheck(request, peer))
            await peer.serve(guarded)
            watch.cancel()

    async def _recheck(self, request: web.Request, peer: SocketPeer) -> None:
        """Let an engineer go whose session has ended, or who may not any more."""
        while peer.person != REQUESTER:
            await asyncio.sleep(RECHECK_S)
            try:
                identity = await request.app[HTTPD].identify_again(request)
            except ContactdError:
                continue  # the database is away: nothing has changed that we know of
            allowed = identity is not None and identity.role in self._acting
            if not allowed or identity is None or identity.name != peer.person:
                peer.close(POLICY)


def _check_upgrade(request: web.Request) -> None:
    if request.method != "GET" or not web.WebSocketResponse().can_prepare(request).ok:
        raise Refused(Problem(status=400, detail="a WebSocket is needed"))


def _hello(message: WSMessage) -> Mapping[str, Any]:
    found = _small(message)
    if found["type"] != "hello":
        raise Misbehaved("no hello")
    return found


def _small(message: WSMessage) -> Mapping[str, Any]:
    if message.type is WSMsgType.TEXT and len(message.data) > MESSAGE_BYTES:
        raise Misbehaved("too long a message")
    return _word(message)


def _word(message: WSMessage) -> Mapping[str, Any]:
    if message.type is not WSMsgType.TEXT:
        raise Misbehaved("bytes where words are")
    return talk.parse(message.data)


async def _identity(request: web.Request) -> Identity:
    identity = await request.app[HTTPD].identify(request)
    if identity is None:
        raise Refused(Problem(status=401))
    return identity
