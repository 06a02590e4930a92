"""The helper's WebSocket, against a server of the standard library and against aiohttp."""

import asyncio
import json
import selectors
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aiohttp import WSMsgType, web
from hypothesis import given
from hypothesis import strategies as st

from contactd.lab.ports import free_port
from contactd.share import websocket
from contactd.share.websocket import (
    MOST_MESSAGE,
    Connection,
    Failed,
    Message,
    Opcode,
    Reader,
    connect,
    frame,
)
from tests.fakes.waiting import WITHIN_S

Handle = Callable[[web.WebSocketResponse], object]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def served(opcode: int, payload: bytes, *, last: bool = True) -> bytes:
    """Return a frame as a server sends it."""
    size = len(payload)
    head = bytes([(0x80 if last else 0) | opcode])
    if size < 126:
        return head + bytes([size]) + payload
    if size < 1 << 16:
        return head + b"\x7e" + size.to_bytes(2) + payload
    return head + b"\x7f" + size.to_bytes(8) + payload


# Frames


@given(st.binary(max_size=70_000))
def test_a_frame_is_masked_and_whole(payload: bytes) -> None:
    made = frame(Opcode.BINARY, payload)
    assert made[0] == 0x82
    assert made[1] & 0x80
    key, masked = made[len(made) - len(payload) - 4 :][:4], made[len(made) - len(payload) :]
    assert bytes(each ^ key[at % 4] for at, each in enumerate(masked)) == payload


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=5), st.integers(1, 40))
def test_frames_are_read_however_they_are_split(payloads: list[bytes], step: int) -> None:
    stream = b"".join(served(2, each) for each in payloads)
    reader, found = Reader(), []
    for at in range(0, len(stream), step):
        found += [each.data for each in reader.feed(stream[at : at + step])]
    assert found == payloads


def test_parts_make_one_message_and_a_ping_may_stand_between() -> None:
    stream = served(1, b"one ", last=False) + served(9, b"?") + served(0, b"two")
    found = [(each.opcode, each.data) for each in Reader().feed(stream)]
    assert found == [(Opcode.PING, b"?"), (Opcode.TEXT, b"one two")]


@pytest.mark.parametrize(
    "stream",
    [
        b"\xc1\x00",  # a reserved bit
        b"\x81\x80\0\0\0\0",  # a server masks nothing
        b"\x83\x00",  # no such kind
        b"\x09\x00",  # a control frame in parts
        b"\x89\x7e\x00\x80" + bytes(128),  # a control frame of 128 bytes
        served(0, b"more of nothing"),
        served(1, b"one", last=False) + served(1, b"another"),
        b"\x82\x7f" + (1 << 62).to_bytes(8),
        b"\x82\x7f" + (MOST_MESSAGE + 1).to_bytes(8),
        served(2, bytes(200_000), last=False) + served(0, bytes(200_000)),
    ],
)
def test_a_server_that_breaks_the_protocol_is_left(stream: bytes) -> None:
    with pytest.raises(Failed):
        list(Reader().feed(stream))


# Connections


@pytest.fixture(name="pair")
def _pair() -> Iterator[tuple[Connection, socket.socket]]:
    ours, theirs = socket.socketpair()
    connection = Connection(ours)
    theirs.settimeout(5)
    yield connection, theirs
    connection.abort()
    theirs.close()


def test_words_overtake_pictures_and_keep_their_order(
    pair: tuple[Connection, socket.socket],
) -> None:
    connection, theirs = pair
    connection.send(b"picture")
    connection.tell({"type": "one"})
    connection.tell({"type": "two"})
    connection.flush()
    assert opcodes(theirs) == [1, 1, 2]


def test_a_frame_that_has_begun_is_finished_first(pair: tuple[Connection, socket.socket]) -> None:
    connection, theirs = pair
    while connection.has_room:
        connection.send(bytes(60_000))
        connection.flush()
    waiting = connection.wants_write
    connection.tell({"type": "stop"})
    connection.drop_pictures()
    assert waiting
    kinds = []
    with selectors.DefaultSelector() as selector:
        selector.register(theirs, selectors.EVENT_READ)
        got = b""
        while connection.wants_write or selector.select(0.05):
            got += theirs.recv(1 << 16)
            connection.flush()
    while got:
        kind, got = split(got)
        kinds.append(kind)
    assert kinds[-1] == 1  # whole frames all along, and the words at the end
    assert set(kinds[:-1]) == {2}


def split(data: bytes) -> tuple[int, bytes]:
    size, start = data[1] & 0x7F, 2
    if size == 126:
        size, start = int.from_bytes(data[2:4]), 4
    return data[0] & 0x0F, data[start + 4 + size :]


def opcodes(theirs: socket.socket) -> list[int]:
    data, found = theirs.recv(1 << 16), []
    while data:
        kind, data = split(data)
        found.append(kind)
    return found


def test_a_ping_is_answered_and_not_told(pair: tuple[Connection, socket.socket]) -> None:
    connection, theirs = pair
    theirs.sendall(served(9, b"there?") + served(1, b"{}"))
    assert list(connection.receive()) == [Message(opcode=Opcode.TEXT, data=b"{}")]
    connection.flush()
    assert opcodes(theirs) == [Opcode.PONG]


def test_a_server_that_goes_is_noticed(pair: tuple[Connection, socket.socket]) -> None:
    connection, theirs = pair
    theirs.close()
    with pytest.raises(Failed):
        list(connection.receive())


# Servers


async def echo(request: web.Request) -> web.WebSocketResponse:
    ws = web.WebSocketResponse(compress=False)
    await ws.prepare(request)
    async for message in ws:
        if message.type is WSMsgType.TEXT:
            await ws.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await ws.send_bytes(message.data)
    request.app[CODES].append(ws.close_code)
    return ws


CODES = web.AppKey("CODES", list[int | None])


async def run_server(context: ssl.SSLContext | None = None) -> tuple[web.AppRunner, int]:
    app = web.Application()
    app[CODES] = []
    app.router.add_get("/s/connect", echo)
    runner, port = web.AppRunner(app, shutdown_timeout=0.1), free_port()
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, ssl_context=context).start()
    return runner, port


def talk(url: str, payload: bytes) -> tuple[object, int]:
    """Say words and bytes, and return what came back."""
    connection = connect(url, "/s/connect")
    connection.send(payload)
    connection.tell({"type": "你好"})
    words, size = None, 0
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ | selectors.EVENT_WRITE)
        while words is None or size < len(payload):
            connection.flush()
            for message in connection.receive():
                if message.opcode is Opcode.TEXT:
                    words = json.loads(message.data)
                else:
                    size += len(message.data)
            selector.select(0.1)
    connection.close(4001)
    return words, size


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
async def test_it_talks_to_a_real_server(size: int) -> None:
    runner, port = await run_server()
    try:
        said = await asyncio.to_thread(talk, f"http://127.0.0.1:{port}", bytes(size))
        assert said == ({"type": "你好"}, size)
        async with asyncio.timeout(WITHIN_S):
            while not runner.app[CODES]:
                await asyncio.sleep(0.01)
        assert runner.app[CODES] == [4001]
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"SSH-2.0\r\n\r\n",
        b"HTTP/1.1 101 x\r\nSec-WebSocket-Accept: no\r\n\r\n",
        b"",
    ],
)
def test_what_is_no_websocket_is_refused(answer: bytes) -> None:
    with answering(answer) as port, pytest.raises(Failed):
        connect(f"http://127.0.0.1:{port}", "/s/connect")


class answering:  # noqa: N801 - used as a function
    """A server that says one thing to who comes, and notes what it heard."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._server = socket.create_server(("127.0.0.1", 0))
        self.heard = b""

    def __enter__(self) -> int:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return int(self._server.getsockname()[1])

    def _run(self) -> None:
        peer, _ = self._server.accept()
        with peer:
            self.heard = peer.recv(65536)
            peer.sendall(self._answer)

    def __exit__(self, *_: object) -> None:
        self._thread.join(5)
        self._server.close()


# TLS


def certificate(folder: Path, name: str) -> ssl.SSLContext:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}",
         "-keyout", str(folder / "key"), "-out", str(folder / "cert")],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert", folder / "key")
    return context


async def test_tls_works_with_a_certificate_that_the_system_trusts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, port = await run_server(certificate(tmp_path, "localhost"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert"))
    try:
        said = await asyncio.to_thread(talk, f"https://localhost:{port}", bytes(200_000))
        assert said == ({"type": "你好"}, 200_000)
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(("name", "trusted"), [("localhost", False), ("elsewhere.example", True)])
async def test_another_certificate_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, trusted: bool
) -> None:
    runner, port = await run_server(certificate(tmp_path, name))
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert"))
    try:
        with pytest.raises(Failed, match="certificate"):
            await asyncio.to_thread(connect, f"https://localhost:{port}", "/s/connect")
    finally:
        await runner.cleanup()


# Proxies


async def test_a_proxy_is_asked_for_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    runner, port = await run_server()
    heard: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        there, back = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                sink.write(data)
            sink.close()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(pump(reader, back))
            tasks.create_task(pump(there, writer))

    server = await asyncio.start_server(proxy, "127.0.0.1", 0)
    proxy_port = server.sockets[0].getsockname()[1]
    monkeypatch.setenv("http_proxy", f"http://me:p%40ss@127.0.0.1:{proxy_port}")
    try:
        said = await asyncio.to_thread(talk, f"http://help.example:{port}", b"x")
        assert said == ({"type": "你好"}, 1)
    finally:
        server.close()
        await runner.cleanup()
    assert heard[0].startswith(f"CONNECT help.example:{port} HTTP/1.1\r\n".encode())
    assert b"Proxy-Authorization: Basic bWU6cEBzcw==\r\n" in heard[0]  # me:p@ss


def test_a_proxy_that_refuses_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n") as port:
        monkeypatch.setenv("https_proxy", f"127.0.0.1:{port}")
        with pytest.raises(Failed, match="407"):
            connect("https://help.example", "/s/connect")


async def test_no_proxy_is_used_where_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    runner, port = await run_server()
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    try:
        said = await asyncio.to_thread(talk, f"http://127.0.0.1:{port}", b"x")
        assert said == ({"type": "你好"}, 1)
    finally:
        await runner.cleanup()


def test_an_address_of_no_kind_that_we_know_is_refused() -> None:
    for url in ("ftp://x", "http://", "x"):
        with pytest.raises(Failed):
            connect(url, "/s/connect")


def test_a_proxy_of_another_kind_is_not_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:9")
    with pytest.raises(Failed, match="socks5"):
        websocket.connect("http://help.example", "/s/connect")
