"""A WebSocket client of the standard library alone: what a zipapp can carry (RFC 6455).

`connect` waits, `Connection` does not: it lives in a `selectors` loop. TLS is checked against the
system's certificates, and a proxy is used as the environment says (HTTPS_PROXY, HTTP_PROXY,
NO_PROXY), by CONNECT.
"""

import base64
import hashlib
import json
import os
import secrets
import socket
import ssl
import struct
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

CONNECT_S: Final = 10.0
MOST_HEAD: Final = 16 * 1024  # bytes of an answer's head
MOST_MESSAGE: Final = 256 * 1024  # bytes; the broker's frames have 64 KiB
QUEUE_BYTES: Final = 128 * 1024  # that wait here before the VNC server has to
KERNEL_BYTES: Final = 128 * 1024  # and in the kernel: "stop" waits behind no more than both
READ_BYTES: Final = 64 * 1024
READS: Final = 16  # in a row; then others have their turn
_MAGIC: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
_SCHEMES: Final = {"https": "https", "wss": "https", "http": "http", "ws": "http"}


class Opcode(IntEnum):
    MORE = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


class Failed(Exception):
    """The connection cannot be made, or has broken; the text is in English, for a terminal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What came: text, bytes, or the close with its code."""

    opcode: Opcode
    data: bytes
    code: int = 0


# Frames


def frame(opcode: Opcode, payload: bytes) -> bytes:
    """Return a frame of a client: whole, and masked (RFC 6455 section 5.3)."""
    size = len(payload)
    if size < 126:
        head = struct.pack(">BB", 0x80 | opcode, 0x80 | size)
    elif size < 1 << 16:
        head = struct.pack(">BBH", 0x80 | opcode, 0x80 | 126, size)
    else:
        head = struct.pack(">BBQ", 0x80 | opcode, 0x80 | 127, size)
    key = secrets.token_bytes(4)
    return head + key + _masked(payload, key)


def _masked(data: bytes, key: bytes) -> bytes:
    # One XOR of two long numbers: a loop over bytes in Python is 100 times slower.
    size = len(data)
    mask = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(data) ^ int.from_bytes(mask)).to_bytes(size)


class Reader:
    """Bytes in, messages out."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._parts = bytearray()
        self._kind: Opcode | None = None  # of the message whose parts we have

    def feed(self, data: bytes) -> Iterator[Message]:
        """Take bytes and yield the messages that are complete.

        Raises:
            Failed: the server breaks the protocol, or a message is too long.
        """
        self._bytes += data
        while (found := self._frame()) is not None:
            is_last, opcode, payload = found
            message = self._message(opcode, payload, is_last=is_last)
            if message is not None:
                yield message

    def _frame(self) -> tuple[bool, Opcode, bytes] | None:
        if len(self._bytes) < 2:
            return None
        first, second = self._bytes[0], self._bytes[1]
        if first & 0x70 or second & 0x80:
            raise Failed("the server sent a frame that no server may send")
        size, start = second, 2
        if size >= 126:
            width = 2 if size == 126 else 8
            start = 2 + width
            if len(self._bytes) < start:
                return None
            size = int.from_bytes(self._bytes[2:start])
        if size > MOST_MESSAGE:
            raise Failed("the server sent too long a frame")
        if len(self._bytes) < start + size:
            return None
        payload = bytes(self._bytes[start : start + size])
        del self._bytes[: start + size]
        try:
            return bool(first & 0x80), Opcode(first & 0x0F), payload
        except ValueError:
            raise Failed("the server sent a frame of no known kind") from None

    def _message(self, opcode: Opcode, payload: bytes, *, is_last: bool) -> Message | None:
        if opcode >= Opcode.CLOSE:  # these may stand between the parts of others
            if not is_last or len(payload) > 125:
                raise Failed("the server sent a control frame that is none")
            code = int.from_bytes(payload[:2]) if opcode is Opcode.CLOSE else 0
            return Message(opcode=opcode, data=payload, code=code)
        if (opcode is Opcode.MORE) != (self._kind is not None):
            raise Failed("the server mixed two messages")
        self._kind = self._kind or opcode
        self._parts += payload
        if len(self._parts) > MOST_MESSAGE:
            raise Failed("the server sent too long a message")
        if not is_last:
            return None
        whole = Message(opcode=self._kind, data=bytes(self._parts))
        self._kind = None
        self._parts.clear()
        return whole


# Connections


class Connection:
    """An open WebSocket that never blocks. What cannot be sent yet waits in it."""

    def __init__(self, sock: socket.socket, already: bytes = b"") -> None:
        self._sock = sock
        self._reader = Reader()
        self._already = already
        self._out: deque[bytes] = deque()
        self._begun = False  # TLS may hold a part of the first frame though none is sent yet
        self._sent = 0  # bytes of the first frame of `_out`
        self._queued = 0
        self.heard_at = time.monotonic()
        sock.setblocking(False)

    def fileno(self) -> int:
        return self._sock.fileno()

    @property
    def wants_write(self) -> bool:
        return bool(self._out)

    @property
    def has_room(self) -> bool:
        """Tell whether pictures may be added; words always may."""
        return self._queued < QUEUE_BYTES

    @property
    def has_more(self) -> bool:
        """Tell whether there is something to read that a selector does not see."""
        pending = isinstance(self._sock, ssl.SSLSocket) and self._sock.pending() > 0
        return pending or bool(self._already)

    def tell(self, message: Mapping[str, Any]) -> None:
        """Send words before all pictures that wait."""
        self._first(frame(Opcode.TEXT, json.dumps(message, ensure_ascii=False).encode()))

    def ping(self) -> None:
        self._first(frame(Opcode.PING, b""))

    def send(self, data: bytes) -> None:
        self._add(frame(Opcode.BINARY, data))

    def _add(self, whole: bytes) -> None:
        self._out.append(whole)
        self._queued += len(whole)

    def _first(self, whole: bytes) -> None:
        """Put words behind words and before pictures (their second byte tells them apart)."""
        at = 1 if self._begun else 0
        while at < len(self._out) and self._out[at][0] & 0x0F != Opcode.BINARY:
            at += 1
        self._out.insert(at, whole)
        self._queued += len(whole)

    def drop_pictures(self) -> None:
        """Forget the pictures that wait: nothing is shown any more."""
        kept = [
            each
            for at, each in enumerate(self._out)
            if (at == 0 and self._begun) or each[0] & 0x0F != Opcode.BINARY
        ]
        self._out = deque(kept)
        self._queued = sum(map(len, kept)) - self._sent

    def flush(self) -> None:
        """Send what can be sent now.

        Raises:
            Failed: the connection is gone.
        """
        try:
            while self._out:
                self._begun = True
                sent = self._sock.send(memoryview(self._out[0])[self._sent :])
                self._sent += sent
                self._queued -= sent
                if self._sent == len(self._out[0]):
                    self._out.popleft()
                    self._sent = 0
                    self._begun = False
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError as error:
            raise Failed(str(error)) from error

    def receive(self) -> Iterator[Message]:
        """Yield what came; pings are answered here.

        Raises:
            Failed: the connection is gone, or the server breaks the protocol.
        """
        for data in self._chunks():
            for message in self._reader.feed(data):
                if message.opcode is Opcode.PING:
                    self._first(frame(Opcode.PONG, message.data))
                elif message.opcode is not Opcode.PONG:
                    yield message

    def _chunks(self) -> Iterator[bytes]:
        if self._already:
            already, self._already = self._already, b""
            yield already
        for _ in range(READS):
            try:
                data = self._sock.recv(READ_BYTES)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except OSError as error:
                raise Failed(str(error)) from error
            if not data:
                raise Failed("the server is gone")
            self.heard_at = time.monotonic()
            yield data

    def close(self, code: int, within_s: float = 1.0) -> None:
        """Say goodbye, wait for it to be sent, and close."""
        self._add(frame(Opcode.CLOSE, struct.pack(">H", code)))
        try:
            self._sock.settimeout(within_s)
            if self._out:
                self._out[0] = self._out[0][self._sent :]
            for whole in self._out:
                self._sock.sendall(whole)
            self._wait_for_close()
        except (OSError, Failed):
            pass
        self.abort()

    def _wait_for_close(self) -> None:
        """Read on until the server closes too: a reset would overtake what we just sent."""
        until = time.monotonic() + 1.0
        while time.monotonic() < until:
            data = self._sock.recv(READ_BYTES)
            if not data or any(each.opcode is Opcode.CLOSE for each in self._reader.feed(data)):
                return

    def abort(self) -> None:
        self._out.clear()
        self._queued = self._sent = 0
        self._begun = False
        self._sock.close()


def connect(url: str, path: str) -> Connection:
    """Return an open WebSocket to `path` of the service at `url` (http, https).

    Raises:
        Failed: it cannot be reached, or it is not who it should be.
    """
    parts = urlsplit(url)
    scheme = _SCHEMES.get(parts.scheme)
    if scheme is None or not parts.hostname:
        raise Failed("the invitation names no address")
    port = parts.port or (443 if scheme == "https" else 80)
    try:
        sock = _reached(scheme, parts.hostname, port)
        with _closed_if_it_fails(sock):
            if scheme == "https":
                sock = _context().wrap_socket(sock, server_hostname=parts.hostname)
        with _closed_if_it_fails(sock):
            return _upgraded(sock, parts, parts.path.rstrip("/") + path)
    except ssl.SSLCertVerificationError as error:
        raise Failed(f"the certificate of {parts.hostname}: {error.verify_message}") from error
    except (OSError, ValueError) as error:
        raise Failed(str(error)) from error


@contextmanager
def _closed_if_it_fails(sock: socket.socket) -> Iterator[None]:
    try:
        yield
    except BaseException:
        sock.close()
        raise


def _context() -> ssl.SSLContext:
    context = ssl.create_default_context()  # checks the certificate and the name in it
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _reached(scheme: str, host: str, port: int) -> socket.socket:
    proxy = _proxy(scheme, host, port)
    if proxy is None:
        sock = socket.create_connection((host, port), timeout=CONNECT_S)
    else:
        sock = _through(proxy, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BYTES)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _proxy(scheme: str, host: str, port: int) -> SplitResult | None:
    proxies = getproxies()
    found = proxies.get(scheme) or proxies.get("all")
    if not found or proxy_bypass(f"{host}:{port}"):
        return None
    proxy = urlsplit(found if "//" in found else f"http://{found}")
    if proxy.scheme != "http":
        # TLS to a proxy and TLS to the service in it: Python's sockets cannot do both.
        raise Failed(f"a proxy of the kind {proxy.scheme} is not known here")
    return proxy


def _through(proxy: SplitResult, target: str) -> socket.socket:
    address = (proxy.hostname or "", proxy.port or 8080)
    sock = socket.create_connection(address, timeout=CONNECT_S)
    with _closed_if_it_fails(sock):
        _tunnel(sock, proxy, target)
    return sock


def _tunnel(sock: socket.socket, proxy: SplitResult, target: str) -> None:
    """Ask a proxy for the way to `target` (RFC 9110 section 9.3.6)."""
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.username:
        words = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
        lines.append(f"Proxy-Authorization: Basic {base64.b64encode(words.encode()).decode()}")
    sock.sendall("\r\n".join([*lines, "", ""]).encode())
    head, rest = _head(sock)
    status = _status(head)
    if not 200 <= status < 300 or rest:
        raise Failed(f"the proxy answers {status}")


def _upgraded(sock: socket.socket, parts: SplitResult, path: str) -> Connection:
    key = base64.b64encode(os.urandom(16))
    host = parts.netloc.rpartition("@")[2]
    lines = [
        f"GET {path} HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key.decode()}", "Sec-WebSocket-Version: 13",
    ]  # fmt: skip
    sock.sendall("\r\n".join([*lines, "", ""]).encode())
    head, rest = _head(sock)
    status = _status(head)
    if status != 101:
        raise Failed(f"the service answers {status}")
    headers = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(":") for line in head.split("\r\n")[1:])
    }
    wanted = base64.b64encode(hashlib.sha1(key + _MAGIC).digest()).decode()  # noqa: S324 - RFC 6455
    if headers.get("sec-websocket-accept") != wanted:
        raise Failed("the service speaks no WebSocket")
    return Connection(sock, already=rest)


def _head(sock: socket.socket) -> tuple[str, bytes]:
    got = b""
    until = time.monotonic() + CONNECT_S
    while b"\r\n\r\n" not in got:
        data = sock.recv(READ_BYTES)
        got += data
        if not data or len(got) > MOST_HEAD or time.monotonic() > until:
            raise Failed("the server's answer is no HTTP")
    head, _, rest = got.partition(b"\r\n\r\n")
    return head.decode("latin-1"), rest


def _status(head: str) -> int:
    parts = head.split(" ", 2)
    if not parts[0].startswith("HTTP/1.") or len(parts) < 2 or not parts[1].isdigit():
        raise Failed("the server's answer is no HTTP")
    return int(parts[1])
