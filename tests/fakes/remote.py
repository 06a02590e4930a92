"""Both ends of a remote session: a helper with a VNC server, and an engineer who looks.

`running_help` is the broker on a real socket with a real store. The fake VNC server speaks enough
RFB for a viewer; `helper.servers` may be real ones instead (`x11vnc -inetd` on a socketpair).
"""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp

from contactd.clock import Clock
from contactd.remote import picture
from contactd.remote.admissions import Admissions
from contactd.remote.broker import Broker
from contactd.remote.sockets import Sockets
from contactd.settings import RemoteSettings
from contactd.store.blobs import Blobs
from contactd.tickets.people import Role
from contactd.web.access import ACTING, DECIDING, sees
from tests.fakes.desk import Desk
from tests.fakes.remote_desk import Guest
from tests.fakes.site import Site, running_site
from tests.fakes.waiting import WITHIN_S

WIDTH: Final = 64
HEIGHT: Final = 48
PIXELS: Final = bytes(range(256)) * (WIDTH * HEIGHT * 4 // 256)
SOON_S: Final = WITHIN_S

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


# The broker


@dataclass(slots=True, kw_only=True)
class Helping:
    """A running broker; `wang`, `li` and others log in by name (`li` is supervisor)."""

    site: Site
    desk: Desk
    broker: Broker
    admissions: Admissions
    blobs: Blobs
    folder: Path
    http: aiohttp.ClientSession

    @property
    def ws_url(self) -> str:
        return self.site.url.replace("http", "ws", 1)

    async def log_in(self, name: str, role: Role = Role.ENGINEER) -> str:
        """Return the cookie of somebody who is logged in."""
        self.site.accounts.roles.setdefault(name, role)
        secret = f"secret-of-{name}"
        self.site.accounts.sessions[secret] = name
        return f"contactd_session={secret}"

    async def socket(
        self, path: str, *, cookie: str = "", origin: str | None = ""
    ) -> aiohttp.ClientWebSocketResponse:
        """Open a socket as a browser of ours does; `origin` None: as a program."""
        headers = {"Cookie": cookie} if cookie else {}
        if origin is not None:
            headers["Origin"] = origin or self.site.url
        return await self.http.ws_connect(
            self.ws_url + path, headers=headers, max_msg_size=1 << 24, autoping=True
        )

    async def share(self, guest: Guest) -> "Page":
        """Open the live share page of a user who agreed."""
        secret = self.admissions.give(guest.session, "requester", "share")
        socket = await self.socket("/s/live")
        return await Page.opened(socket, secret)

    async def engineer(
        self, session: int, name: str, shown: str = "", role: Role = Role.ENGINEER
    ) -> "Page":
        """Open an engineer's page of a session."""
        cookie = await self.log_in(name, role)
        secret = self.admissions.give(session, name, "desk", name=shown or name)
        socket = await self.socket(f"/desk/remote/{session}/live", cookie=cookie)
        return await Page.opened(socket, secret)

    async def viewer(self, session: int, name: str) -> "Viewer":
        """Open the picture of an engineer's leg."""
        cookie = await self.log_in(name)
        secret = self.admissions.give(session, name, "screen")
        socket = await self.socket(f"/desk/remote/{session}/screen", cookie=cookie)
        await socket.send_str(json.dumps({"type": "hello", "admission": secret}))
        return Viewer(socket=socket)

    async def helper(self, guest: Guest, **more: Any) -> "Helper":
        """Start the helper of a user who agreed."""
        key = more.pop("key", "") or await self.desk.remote.helper_key(guest.session)
        socket = await self.socket("/s/connect", origin=None)
        return await Helper.started(socket, key, **more)


@asynccontextmanager
async def running_help(
    desk: Desk, folder: Path, clock: Clock | None = None, **settings: Any
) -> AsyncIterator[Helping]:
    """Run the broker on the store of `desk`; `settings` are those of the section `remote`."""
    admissions = Admissions(clock or desk.clock)
    blobs = Blobs(folder / "blobs")
    broker = Broker(
        sessions=desk.remote, signals=desk.signals, clock=clock or desk.clock,
        settings=RemoteSettings(**settings), service="contactd", folder=folder / "remote",
        put=blobs.put, make_filter=picture.make_filter, make_recorder=picture.make_recorder,
    )  # fmt: skip
    sockets = Sockets(
        broker=broker, admissions=admissions, clock=clock or desk.clock, public_url="",
        acting=ACTING, looking=DECIDING, sees=sees,
    )  # fmt: skip
    async with (
        broker.running(),
        running_site(routes=sockets.routes()) as site,
        # Of its own accord it would wait for ever for one of 100 sockets to be closed.
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http,
    ):
        try:
            yield Helping(
                site=site, desk=desk, broker=broker, admissions=admissions, blobs=blobs,
                folder=folder / "remote", http=http,
            )  # fmt: skip
        finally:
            broker.end_streams()


# Pages


@dataclass(slots=True, kw_only=True)
class Page:
    """A live page, the user's or an engineer's: everything it was told is in `heard`."""

    socket: aiohttp.ClientWebSocketResponse
    heard: list[dict[str, Any]] = field(default_factory=list)
    _reader: asyncio.Task[None] | None = None
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    async def opened(cls, socket: aiohttp.ClientWebSocketResponse, admission: str) -> "Page":
        page = cls(socket=socket)
        await page.say("hello", admission=admission)
        page._reader = asyncio.create_task(page._read())
        return page

    async def say(self, kind: str, /, **more: Any) -> None:
        await self.socket.send_str(json.dumps({"type": kind, **more}))

    async def _read(self) -> None:
        async for message in self.socket:
            if message.type is aiohttp.WSMsgType.TEXT:
                self.heard.append(json.loads(message.data))
                self._news.set()
        self._news.set()

    async def until(self, happened: Callable[[], bool]) -> None:
        async with asyncio.timeout(SOON_S):
            while not happened():
                assert self._reader is not None
                assert not self._reader.done(), f"closed with {self.socket.close_code}"
                self._news.clear()
                await self._news.wait()

    async def told(self, kind: str, /, **parts: Any) -> dict[str, Any]:
        """Return the last message of a kind with these parts, once there is one."""

        def found() -> list[dict[str, Any]]:
            return [
                each
                for each in self.heard
                if each["type"] == kind
                and all(each.get(name) == value for name, value in parts.items())
            ]

        await self.until(lambda: bool(found()))
        return found()[-1]

    async def state(self, state: str, /, **parts: Any) -> dict[str, Any]:
        """Return how it stands, once the last that was told of it is so."""

        def is_so() -> bool:
            states = [each for each in self.heard if each["type"] == "state"]
            wanted = {"state": state, **parts}
            return bool(states) and all(states[-1].get(n) == v for n, v in wanted.items())

        await self.until(is_so)
        return next(each for each in reversed(self.heard) if each["type"] == "state")

    async def answer(self, kind: str = "consent", /, *, yes: bool = True, **more: Any) -> None:
        asked = await self.told("ask", kind=kind)
        given = {"rights": asked["rights"], **more}
        await self.say("answer", ask=asked["ask"], yes=yes, **given)

    async def closed(self) -> int | None:
        """Return the code with which it was closed."""
        assert self._reader is not None
        async with asyncio.timeout(SOON_S):
            await self._reader
        return self.socket.close_code

    async def leave(self) -> None:
        await self.socket.close()


# The user's helper


@dataclass(slots=True, kw_only=True)
class FakeVnc:
    """A VNC server whose screen has one picture; `typed` is what a viewer did."""

    typed: list[bytes] = field(default_factory=list)
    requests: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"RFB 003.008\n")
        await reader.readexactly(12)
        writer.write(b"\x01\x01")
        await reader.readexactly(1)
        writer.write(bytes(4))
        await reader.readexactly(1)
        shape = struct.pack(">BBBBHHHBBB3x", 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)
        writer.write(struct.pack(">HH", WIDTH, HEIGHT) + shape + struct.pack(">I", 4) + b"fake")
        while True:
            kind = (await reader.readexactly(1))[0]
            await self._take(kind, reader, writer)

    async def _take(
        self, kind: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if kind == 2:
            await reader.readexactly(1)
            (count,) = struct.unpack(">H", await reader.readexactly(2))
            await reader.readexactly(4 * count)
            return
        body = await reader.readexactly({0: 19, 3: 9, 4: 7, 5: 5}[kind])
        if kind == 3:
            self.requests += 1
            head = struct.pack(">BxHHHHHi", 0, 1, 0, 0, WIDTH, HEIGHT, 0)
            writer.write(head + PIXELS)
        elif kind in (4, 5):
            self.typed.append(bytes([kind]) + body)

    async def start(self) -> Streams:
        """Return the helper's end of a socketpair; the server lives as long as that is open."""
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=theirs)

        async def run() -> None:
            try:
                await self.serve(reader, writer)
            except (asyncio.IncompleteReadError, ConnectionError):
                writer.close()

        self._task = asyncio.create_task(run())
        return await asyncio.open_connection(sock=ours)

    _task: asyncio.Task[None] | None = None


@dataclass(slots=True, kw_only=True)
class Helper:
    """The user's helper. It asks nobody: tests answer with `answer`, or say `agrees=True`.

    `start_server` makes the VNC server of a leg and returns the streams to it.
    """

    socket: aiohttp.ClientWebSocketResponse
    start_server: Callable[[], Awaitable[Streams]]
    vnc: FakeVnc
    agrees: bool
    page: Page
    resume_key: str = ""
    legs: dict[int, asyncio.StreamWriter] = field(default_factory=dict)
    started_legs: list[int] = field(default_factory=list)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @classmethod
    async def started(
        cls,
        socket: aiohttp.ClientWebSocketResponse,
        key: str,
        *,
        agrees: bool = False,
        start_server: Callable[[], Awaitable[Streams]] | None = None,
        waits: bool = True,
    ) -> "Helper":
        vnc = FakeVnc()
        helper = cls(
            socket=socket, start_server=start_server or vnc.start, vnc=vnc, agrees=agrees,
            page=Page(socket=socket),
        )  # fmt: skip
        await helper.say(
            "hello", version=1, key=key, platform="linux-x11", language="zh", server="fake"
        )
        helper.page._reader = asyncio.create_task(helper._read())
        if waits:
            helper.resume_key = (await helper.told("welcome"))["resume"]
        return helper

    async def say(self, kind: str, /, **more: Any) -> None:
        await self.page.say(kind, **more)

    async def told(self, kind: str, /, **parts: Any) -> dict[str, Any]:
        return await self.page.told(kind, **parts)

    async def answer(self, kind: str = "consent", /, *, yes: bool = True, **more: Any) -> None:
        await self.page.answer(kind, yes=yes, **more)

    async def stop(self, by: str = "hotkey") -> None:
        self.kill()
        await self.say("stop", by=by)

    def kill(self) -> None:
        """End the VNC servers."""
        for writer in self.legs.values():
            writer.close()
        self.legs.clear()

    async def closed(self) -> int | None:
        return await self.page.closed()

    async def leave(self) -> None:
        """Go without a word, as a lost connection does."""
        self.kill()
        transport = self.socket.get_extra_info("socket")
        if transport is not None:
            self.socket._response.close()
        await self.socket.close()

    async def _read(self) -> None:
        async for message in self.socket:
            if message.type is aiohttp.WSMsgType.BINARY:
                writer = self.legs.get(message.data[0])
                if writer is not None:
                    writer.write(message.data[1:])
                continue
            words = json.loads(message.data)
            self.page.heard.append(words)
            self.page._news.set()
            await self._act(words)
        self.kill()
        self.page._news.set()

    async def _act(self, words: dict[str, Any]) -> None:
        if words["type"] == "ask" and self.agrees:
            await self.say("answer", ask=words["ask"], yes=True, rights=words["rights"])
        elif words["type"] == "open":
            await self._open(words["leg"])
        elif words["type"] == "close" and words["leg"] in self.legs:
            self.legs.pop(words["leg"]).close()

    async def _open(self, leg: int) -> None:
        reader, self.legs[leg] = await self.start_server()
        self.started_legs.append(leg)
        await self.say("started", leg=leg)
        self._tasks.append(asyncio.create_task(self._pump(leg, reader)))

    async def _pump(self, leg: int, reader: asyncio.StreamReader) -> None:
        try:
            while data := await reader.read(65536):
                await self.socket.send_bytes(bytes([leg]) + data)
        except ConnectionError:
            pass


# The engineer's picture


@dataclass(slots=True, kw_only=True)
class Viewer:
    """An engineer's picture: RFB by hand."""

    socket: aiohttp.ClientWebSocketResponse
    _got: bytearray = field(default_factory=bytearray)

    async def read(self, count: int) -> bytes:
        """Return so many bytes of the server.

        Raises:
            ConnectionError: it was closed before.
        """
        async with asyncio.timeout(SOON_S):
            while len(self._got) < count:
                message = await self.socket.receive()
                if message.type is not aiohttp.WSMsgType.BINARY:
                    raise ConnectionResetError(f"closed with {self.socket.close_code}")
                self._got += message.data
        found = bytes(self._got[:count])
        del self._got[:count]
        return found

    async def write(self, data: bytes) -> None:
        await self.socket.send_bytes(data)

    async def shake(self) -> tuple[int, int, str]:
        """Do the handshake; return the screen's size and name."""
        assert await self.read(12) == b"RFB 003.008\n"
        await self.write(b"RFB 003.008\n")
        count = (await self.read(1))[0]
        assert 1 in await self.read(count)
        await self.write(b"\x01")
        assert await self.read(4) == bytes(4)
        await self.write(b"\x01")
        head = await self.read(24)
        width, height = struct.unpack(">HH", head[:4])
        (length,) = struct.unpack(">I", head[20:])
        name = (await self.read(length)).decode()
        await self.write(struct.pack(">BxHi", 2, 1, 0))
        return width, height, name

    async def picture(self) -> bytes:
        """Ask for the picture, and return its pixels (raw)."""
        await self.write(struct.pack(">BBHHHH", 3, 0, 0, 0, WIDTH, HEIGHT))
        head = await self.read(16)
        assert head[:4] == b"\x00\x00\x00\x01"
        return await self.read(WIDTH * HEIGHT * 4)

    async def key(self, symbol: int, *, down: bool = True) -> None:
        await self.write(struct.pack(">BBxxI", 4, down, symbol))

    async def press(self, symbol: int) -> None:
        await self.key(symbol)
        await self.key(symbol, down=False)

    async def point(self, x: int, y: int, buttons: int = 0) -> None:
        await self.write(struct.pack(">BBHH", 5, buttons, x, y))

    async def closed(self) -> int | None:
        """Return the code with which it was closed; what comes before is dropped."""
        async with asyncio.timeout(SOON_S):
            while not self.socket.closed:
                await self.socket.receive()
        return self.socket.close_code

    async def leave(self) -> None:
        await self.socket.close()
