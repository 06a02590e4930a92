"""The ends of a relayed picture: WebSockets by hand, so that they cost less than what is between.

Frames go out with a mask of zeros: it is a mask, and taking it off costs the peer what any does.
"""

import base64
import json
import os
import select
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

HOST: Final = "127.0.0.1"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
SOON_S: Final = 20.0
_READ: Final = 1 << 20
_LONG: Final = 127
_SHORT: Final = 126

Frame = tuple[int, bytes]


def frame(kind: int, payload: bytes, *, masked: bool = True) -> bytes:
    """Return a whole message as one frame."""
    mask = 0x80 if masked else 0
    length = len(payload)
    if length < _SHORT:
        head = struct.pack(">BB", 0x80 | kind, mask | length)
    elif length < 1 << 16:
        head = struct.pack(">BBH", 0x80 | kind, mask | _SHORT, length)
    else:
        head = struct.pack(">BBQ", 0x80 | kind, mask | _LONG, length)
    return head + (bytes(4) if masked else b"") + payload


def cut(data: bytearray) -> Frame | None:
    """Take a whole frame that a server sent off the front of `data`; None if there is none yet."""
    if len(data) < 2:
        return None
    length, at = data[1] & 0x7F, 2
    if length >= _SHORT:
        at = 4 if length == _SHORT else 10
        if len(data) < at:
            return None
        length = int.from_bytes(data[2:at], "big")
    if len(data) < at + length:
        return None
    found = data[0] & 0x0F, bytes(data[at : at + length])
    del data[: at + length]
    return found


@dataclass(slots=True, kw_only=True, eq=False)
class Wire:
    """A WebSocket; pings are answered whenever it is read."""

    sock: socket.socket
    got: bytearray = field(default_factory=bytearray)
    waiting: list[Frame] = field(default_factory=list)

    @classmethod
    def opened(cls, port: int, path: str, *, cookie: str = "", browser: bool = True) -> Self:
        """Open one.

        Raises:
            ConnectionError: it was refused.
        """
        sock = socket.create_connection((HOST, port), timeout=SOON_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        lines = [
            f"GET {path} HTTP/1.1", f"Host: {HOST}:{port}", "Upgrade: websocket",
            "Connection: Upgrade", "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
            *([f"Origin: http://{HOST}:{port}"] if browser else []),
            *([f"Cookie: {cookie}"] if cookie else []),
        ]  # fmt: skip
        sock.sendall("\r\n".join([*lines, "", ""]).encode())
        wire = cls(sock=sock)
        while b"\r\n\r\n" not in wire.got:
            wire._read()
        head, _, rest = bytes(wire.got).partition(b"\r\n\r\n")
        if b" 101 " not in head.splitlines()[0]:
            raise ConnectionError(head.splitlines()[0].decode(errors="replace"))
        wire.got = bytearray(rest)
        return wire

    def say(self, kind: str, /, **more: object) -> None:
        self.sock.sendall(frame(TEXT, json.dumps({"type": kind, **more}).encode()))

    def send(self, data: bytes) -> None:
        self.sock.sendall(frame(BINARY, data))

    def next(self) -> Frame:
        """Return the next frame that is no ping."""
        while not self.waiting:
            self.fill()
        return self.waiting.pop(0)

    def fill(self) -> None:
        """Wait for bytes; whole frames in them are in `waiting` then, pings answered."""
        self._read()
        self._sort()

    def drain(self) -> None:
        """Read away what is there, and answer its pings."""
        while select.select([self.sock], [], [], 0)[0]:
            self._read()
        self._sort()
        self.waiting.clear()

    def told(self, kind: str, /, **parts: object) -> Mapping[str, Any]:
        """Return the next message of a kind with these parts; what comes before is dropped."""
        while True:
            number, data = self.next()
            if number == CLOSE:
                raise ConnectionError(f"closed with {data[:2].hex()} before {kind}")
            words = json.loads(data) if number == TEXT else {}
            if words.get("type") == kind and all(words.get(n) == v for n, v in parts.items()):
                return dict(words)

    def bytes(self, *, skip: int = 0) -> bytes:
        """Return the next message of bytes, without its first `skip`; words are dropped."""
        while True:
            number, data = self.next()
            if number == CLOSE:
                raise ConnectionError(f"closed with {data[:2].hex()}")
            if number == BINARY:
                return data[skip:]

    def closed_at(self) -> float:
        """Wait for the end; return when it came (`time.perf_counter`)."""
        while self.next()[0] != CLOSE:
            pass
        return time.perf_counter()

    def close(self) -> None:
        self.sock.close()

    def _read(self) -> None:
        data = self.sock.recv(_READ)
        if not data:
            raise ConnectionError("it was closed without a word")
        self.got += data

    def _sort(self) -> None:
        while (found := cut(self.got)) is not None:
            if found[0] == PING:
                self.sock.sendall(frame(PONG, found[1]))
            else:
                self.waiting.append(found)


# A session

PIXELS: Final = struct.pack(">BBBBHHHBBB3x", 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)
DESKTOP: Final = struct.pack(">HH", 1280, 800) + PIXELS + struct.pack(">I", 5) + b"bench"
# What server and viewer say until the picture comes: who speaks, and what.
HANDSHAKE: Final[Sequence[tuple[bool, bytes]]] = (
    (True, b"RFB 003.008\n"),
    (False, b"RFB 003.008\n"),
    (True, b"\x01\x01"),
    (False, b"\x01"),
    (True, bytes(4)),
    (False, b"\x01"),
    (True, DESKTOP),
    (False, struct.pack(">BBHHHH", 3, 0, 0, 0, 1280, 800)),  # unasked, no picture may come
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """A session under way: the user's helper, the engineer's page and picture."""

    helper: Wire
    page: Wire
    viewer: Wire

    @classmethod
    def opened(cls, port: int, known: Mapping[str, Any]) -> Self:
        """Go all the way from the helper's key to the first byte of the picture."""
        where, cookie = f"/desk/remote/{known['session']}", str(known["cookie"])
        helper = Wire.opened(port, "/s/connect", browser=False)
        helper.say("hello", version=1, key=known["key"], platform="bench", language="zh",
                   server="bench")  # fmt: skip
        helper.told("welcome")
        page = Wire.opened(port, f"{where}/live", cookie=cookie)
        page.say("hello", admission=known["desk"])
        asked = helper.told("ask")
        helper.say("answer", ask=asked["ask"], yes=True, rights=asked["rights"])
        leg = helper.told("open")["leg"]
        helper.say("started", leg=leg)
        page.told("state", state="active", you_leg=leg)
        viewer = Wire.opened(port, f"{where}/screen", cookie=cookie)
        viewer.say("hello", admission=known["screen"])
        ends = cls(helper=helper, page=page, viewer=viewer)
        ends.shake(leg)
        return ends

    def shake(self, leg: int) -> None:
        for is_server, words in HANDSHAKE:
            if is_server:
                self.helper.send(bytes((leg,)) + words)
                self._expect(self.viewer, words, 0)
            else:
                self.viewer.send(words)
                self._expect(self.helper, words, 1)

    def _expect(self, wire: Wire, words: bytes, skip: int) -> None:
        got = b""
        while len(got) < len(words):
            got += wire.bytes(skip=skip)
        if got != words:
            raise ConnectionError(f"{words!r} became {got!r}")

    def close(self) -> None:
        for wire in (self.viewer, self.page, self.helper):
            wire.close()
