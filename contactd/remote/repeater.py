"""Repeater mode: a VNC server of the user's own calls in, by UltraVNC's `ID:` (off by default).

The server opens a TCP connection, sends 250 bytes (`ID:` and digits, then zeros), and speaks RFB
from then on. The digits are made on the share page of a user who agreed, and work once. They
travel in clear, and so does the picture: use it inside an own network only. A call in is the
session's helper to the broker; the user is asked on the share page, and nothing that the server
sends is looked at before they said yes. One call in serves one leg: for another it calls again.
"""

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from contactd.clock import Clock
from contactd.errors import ConfigurationError, ContactdError
from contactd.log import get_logger
from contactd.metrics import HANDLER_FAILURES, PEERS_REFUSED
from contactd.remote.peers import Misbehaved, Peer
from contactd.remote.rfb import Forbidden
from contactd.remote.room import Room
from contactd.service import Health, HealthState
from contactd.settings import RemoteSettings
from contactd.tickets.journal import REQUESTER
from contactd.tickets.remote import CLOSE_CODES, Ending

log = get_logger()

ID_BYTES: Final = 250  # of UltraVNC's repeater, and of x11vnc's `-connect repeater=ID:…`
ID: Final = re.compile(rb"ID:([0-9]{4,16})\0.*", re.DOTALL)
ID_S: Final = 5.0
STALL_S: Final = 5.0  # a server that takes nothing for so long is gone
CHUNK: Final = 64 * 1024
AHEAD: Final = 2  # chunks that were read and not passed on
MOST_CALLS: Final = 100
WRONG_IDS: Final = 10  # of one address, a minute
# A server that is silent may have nothing to show; one whose computer is off must not stay.
_KEEPALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 3),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 14_000),
)


class Rooms(Protocol):
    """What the broker has of it."""

    async def take_key(self, key: str, kind: str = "helper") -> tuple[Room, str] | None: ...

    def tidy(self) -> None: ...


class CallIn:
    """A VNC server that called in, as the broker's `Peer`."""

    person = REQUESTER
    name = ""
    may_look = False

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, room: Room
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._room = room
        self._leg = 0
        self._opened = asyncio.Event()
        self._over = asyncio.Event()
        self._ahead: asyncio.Queue[bytes] = asyncio.Queue(AHEAD)

    def tell(self, message: Mapping[str, Any]) -> None:
        act = {"open": self._open, "close": self._closed, "end": self._ended}.get(message["type"])
        if act is not None:
            act(message)

    def _open(self, message: Mapping[str, Any]) -> None:
        if self._leg:  # RFB begins once in a connection: nobody can join this one
            asyncio.get_running_loop().call_soon(self._decline, message["leg"])
            return
        self._leg = message["leg"]
        self._opened.set()

    def _decline(self, number: int) -> None:
        live = self._room.legs.get(number)
        if live is not None:
            self._room.lost(live)

    def _closed(self, message: Mapping[str, Any]) -> None:
        if message["leg"] == self._leg:
            self._over.set()

    def _ended(self, _message: Mapping[str, Any]) -> None:
        self._over.set()

    async def send(self, data: bytes) -> None:
        if self._over.is_set() or data[0] != self._leg:
            raise ConnectionResetError("it is gone")
        try:
            async with asyncio.timeout(STALL_S):
                self._writer.write(data[1:])
                await self._writer.drain()
        except TimeoutError:
            self._over.set()
            raise ConnectionResetError("it takes nothing") from None

    def close(self, _code: int) -> None:
        self._over.set()

    async def serve(self) -> None:
        """Pass on what it sends, from the moment a leg is open; return when it is over.

        Raises:
            Misbehaved, Forbidden: it sent what it must not.
        """
        async with asyncio.TaskGroup() as tasks:
            work = [tasks.create_task(self._read()), tasks.create_task(self._pass())]
            await self._over.wait()
            for each in work:
                each.cancel()

    async def _read(self) -> None:
        with suppress(OSError):
            while data := await self._reader.read(CHUNK):
                await self._ahead.put(data)
        self._over.set()

    async def _pass(self) -> None:
        await self._opened.wait()
        while True:
            data = await self._ahead.get()
            await self._room.from_helper(bytes((self._leg,)) + data)


class Repeater:
    """The listener. It is built only when it is configured."""

    name = "repeater"

    def __init__(self, rooms: Rooms, clock: Clock, settings: RemoteSettings) -> None:
        self._rooms = rooms
        self._clock = clock
        self._settings = settings
        self._tasks: asyncio.TaskGroup | None = None
        self._calls: set[asyncio.StreamWriter] = set()
        self._wrong: dict[str, list[datetime]] = {}
        self._port = 0

    @property
    def port(self) -> int:
        """The TCP port; 0 before the start."""
        return self._port

    def health(self) -> list[Health]:
        listening = self._tasks is not None
        where = f"{self._settings.repeater_host}:{self._port or self._settings.repeater_port}"
        return [
            Health(
                component=self.name,
                state=HealthState.UP if listening else HealthState.DOWN,
                detail=where if listening else f"not listening on {where}",
                figures={"connections": len(self._calls)},
            )
        ]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listen inside the block; leaving it closes what is there.

        Raises:
            ConfigurationError: the address cannot be used.
        """
        server = await self._bind()
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            await server.start_serving()
            try:
                yield
            finally:
                self._tasks = None
                server.close()
                for writer in self._calls:
                    writer.transport.abort()

    async def _bind(self) -> asyncio.Server:
        host, port = self._settings.repeater_host, self._settings.repeater_port
        try:
            server = await asyncio.start_server(
                self._accept, host, port, limit=CHUNK, start_serving=False
            )
        except OSError as error:
            reason = f"repeater: cannot listen on {host}:{port}: {error.strerror}"
            raise ConfigurationError(reason) from error
        self._port = server.sockets[0].getsockname()[1]
        return server

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Not a coroutine function: asyncio would run it in a task that nobody owns.
        if self._tasks is None or len(self._calls) >= MOST_CALLS:
            _count("full")
            writer.transport.abort()
            return
        self._calls.add(writer)
        self._tasks.create_task(self._serve(reader, writer), name="repeater-call")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One call from its first byte to its last; what goes wrong costs that session alone."""
        try:
            room = await self._room(reader, writer)
            if room is not None:
                await self._help(room, CallIn(reader, writer, room))
        except ContactdError as failure:
            log.warning("repeater.failed", reason=str(failure))
        except Exception:  # the boundary: one call costs itself, not the daemon
            HANDLER_FAILURES.labels(where="repeater").inc()
            log.exception("repeater.broken")
        finally:
            self._calls.discard(writer)
            writer.transport.abort()

    async def _room(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Room | None:
        """Return the session whose ID it shows; None for every other, which learns nothing."""
        connection = writer.get_extra_info("socket")
        for level, option, value in _KEEPALIVE:
            connection.setsockopt(level, option, value)
        try:
            async with asyncio.timeout(ID_S):
                said = ID.fullmatch(await reader.readexactly(ID_BYTES))
        except (TimeoutError, asyncio.IncompleteReadError, OSError):
            _count("slow")
            return None
        address = str(writer.get_extra_info("peername")[0])
        if not self._may_try(address):
            _count("wrong_ids")
            return None
        taken = await self._rooms.take_key(said[1].decode(), "repeater") if said else None
        if taken is None:
            self._wrong.setdefault(address, []).append(self._clock.now())
            _count("id")
            return None
        return taken[0]

    def _may_try(self, address: str) -> bool:
        since = self._clock.now() - timedelta(minutes=1)
        self._wrong = {
            peer: left
            for peer, times in self._wrong.items()
            if (left := [each for each in times if each > since])
        }
        return len(self._wrong.get(address, ())) < WRONG_IDS

    async def _help(self, room: Room, call: CallIn) -> None:
        peer: Peer = call
        room.helper_comes(peer, "")
        try:
            await call.serve()
        except* (Misbehaved, Forbidden) as offences:
            _count("forbidden")
            log.warning("repeater.offence", reason=str(offences.exceptions[0]))
            room.finish(Ending.FORBIDDEN)
        finally:
            call.close(CLOSE_CODES[Ending.LOST])
            room.helper_leaves(peer)
            self._rooms.tidy()


def _count(reason: str) -> None:
    PEERS_REFUSED.labels(listener="repeater", reason=reason).inc()
