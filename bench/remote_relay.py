"""remote: what the broker of remote help costs, beside websockify on the same frames.

`remote_relay…` is one session as fast as it goes: frames of 64 KiB of noise from the helper to the
viewer, with the filter and the recording on disk, or without the recording; the bare thing is
websockify, from a TCP server to the same viewer. The three take turns, a process each for source,
relay and viewer. `remote_sessions_p99` is 40 sessions with 2 MB/s each, recorded, from before a
frame is sent to after it is read; bare, the same ends on a TCP connection with nothing between.
`remote_memory` is what the broker's process has grown by after that, a session.
`remote_stopped_p95` is from a helper's word that its user has stopped to the close of the viewer's
WebSocket, beside as many legs in use; bare, an answered ping of the same socket.
"""

import asyncio
import json
import multiprocessing
import os
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from pathlib import Path
from statistics import median
from typing import IO, Any, Final

from bench.figures import Figure, Judged, percentile
from bench.wire import BINARY, CLOSE, HOST, PING, PONG, Ends, Wire, cut, frame
from contactd.lab.asterisk import LabError
from contactd.lab.ports import free_port

FRAME: Final = 64 * 1024 - 64  # bytes of the picture: with its head within what a helper may send
TOTAL: Final = 512_000_000  # bytes a round
ROUNDS: Final = 5
SESSIONS: Final = 40
RATE: Final = 2_000_000  # bytes a second and session
PIECE: Final = 16 * 1024
SECONDS: Final = 20.0
STOPS: Final = 40
READY_S: Final = 30.0
WARM_S: Final = 1.0  # frames of the first second do not count
_STAMP: Final = struct.Struct(">Q")
FORK: Final = multiprocessing.get_context("fork")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured; less for a try."""

    total: int = TOTAL
    rounds: int = ROUNDS
    sessions: int = SESSIONS
    seconds: float = SECONDS
    stops: int = STOPS


async def measure(size: Size | None = None) -> list[Figure]:
    size = size or Size()
    return [
        *await asyncio.to_thread(_throughput, size),
        *await asyncio.to_thread(_many, size),
        await asyncio.to_thread(_stopped, size),
    ]


# As fast as it goes


def _throughput(size: Size) -> list[Figure]:
    recorded, plain, bare = [], [], []
    for _ in range(size.rounds):
        recorded.append(_through_broker(size.total, records=True))
        bare.append(_through_websockify(size.total))
        plain.append(_through_broker(size.total, records=False))
    rows = (
        ("remote_relay", "a picture relayed, filtered and recorded; bare: websockify on the same "
         "frames", recorded, 0.45),
        ("remote_relay_plain", "the same without the recording", plain, 0.8),
    )  # fmt: skip
    return [
        Figure(
            name=name, what=what, unit="MB/s", ours=median(ours), bare=median(bare),
            judged=Judged.RATIO, target=target,
        )
        for name, what, ours, target in rows
    ]  # fmt: skip


def _through_broker(total: int, *, records: bool) -> float:
    with serving(1, records=records) as (_, (ends, *_rest)):
        message = frame(BINARY, b"\x01" + os.urandom(FRAME))
        return _rate(ends.helper.sock, message, ends.viewer.sock, total)


def _through_websockify(total: int) -> float:
    port = free_port()
    with socket.create_server((HOST, 0)) as server:
        target = f"{HOST}:{server.getsockname()[1]}"
        command = (sys.executable, "-m", "websockify", f"{HOST}:{port}", target)
        with _running(*command):
            viewer = _patiently(lambda: Wire.opened(port, "/"))
            source, _ = server.accept()
            with source:
                rate = _rate(source, os.urandom(FRAME), viewer.sock, total)
            viewer.close()
            return rate


def _rate(source: socket.socket, message: bytes, viewer: socket.socket, total: int) -> float:
    """Send `message` again and again; return the MB/s at which `total` bytes came out."""
    sender = FORK.Process(target=_pour, args=(source, message, total + 64 * FRAME), daemon=True)
    sender.start()
    try:
        viewer.settimeout(READY_S)
        room = bytearray(1 << 20)
        got, began = viewer.recv_into(room), time.perf_counter()
        while got < total:
            read = viewer.recv_into(room)
            if not read:
                raise LabError(f"the relay ended after {got:,} bytes")
            got += read
        return got / (time.perf_counter() - began) / 1e6
    finally:
        sender.kill()
        sender.join()


def _pour(source: socket.socket, message: bytes, total: int) -> None:
    source.settimeout(None)
    for _ in range(total // len(message) + 1):
        source.sendall(message)


# Many at once


def _many(size: Size) -> list[Figure]:
    with serving(size.sessions, records=True, join=False) as (process, known):
        before = _resident(process.pid)
        opened = [Ends.opened(port, each) for port, each in known]
        try:
            late = _paced(
                [ends.helper.sock for ends in opened],
                [ends.viewer.sock for ends in opened],
                [ends.page for ends in opened],
                size.seconds,
                masked=True,
            )
            memory = (_resident(process.pid) - before) / size.sessions
        finally:
            for ends in opened:
                ends.close()
    pairs = [_pair() for _ in range(size.sessions)]
    bare = _paced([a for a, _ in pairs], [b for _, b in pairs], [], size.seconds, masked=False)
    rows: Sequence[tuple[str, str, float, Judged, float | None]] = (
        ("remote_sessions_p50", f"{size.sessions} sessions × 2 MB/s, recorded: helper to viewer, "
         "median; bare: TCP with nothing between", 50, Judged.NOTHING, None),
        ("remote_sessions_p99", "the same, 99th percentile", 99, Judged.ADDED, 5),
    )  # fmt: skip
    figures = [
        Figure(
            name=name, what=what, unit="ms", ours=percentile(late, percent) * 1000,
            bare=percentile(bare, percent) * 1000, judged=judged, target=target,
        )
        for name, what, percent, judged, target in rows
    ]  # fmt: skip
    share = Figure(
        name="remote_memory", what="resident memory of the broker, a session under way; bare: a "
        "connection of websockify, a process each", unit="MB", ours=memory,
        bare=_memory_of_websockify(), judged=Judged.OURS, target=2,
    )  # fmt: skip
    return [*figures, share]


def _paced(
    sources: Sequence[socket.socket],
    viewers: Sequence[socket.socket],
    pages: Sequence[Wire],
    seconds: float,
    *,
    masked: bool,
) -> list[float]:
    """Send `RATE` to each; return how late (s) each frame was read, but for those of the start."""
    ours, theirs = FORK.Pipe(duplex=False)
    sender = FORK.Process(target=_drip, args=(sources, seconds, masked), daemon=True)
    reader = FORK.Process(target=_watch, args=(viewers, seconds, theirs), daemon=True)
    started: list[ForkProcess] = [reader, sender]
    for process in started:
        process.start()
    theirs.close()
    try:
        until = time.monotonic() + seconds + READY_S
        while not ours.poll(0.5):
            for page in pages:  # their pings want an answer
                page.drain()
            if time.monotonic() > until:
                raise LabError("the viewers did not come to an end")
        late: list[float] = ours.recv()
    finally:
        for process in started:
            process.kill()
            process.join()
    wanted = len(sources) * (seconds - WARM_S) * RATE / PIECE
    if len(late) < 0.9 * wanted:
        raise LabError(f"{len(late):,} of {wanted:,.0f} frames came: nothing can be said of p99")
    return late


def _drip(sources: Sequence[socket.socket], seconds: float, masked: bool) -> None:
    """Send a frame to each in turn, evenly; each says when it was sent."""
    noise, pause = os.urandom(PIECE - _STAMP.size), PIECE / RATE / len(sources)
    leg = b"\x01" if masked else b""
    wires = [Wire(sock=source) for source in sources]
    began = time.monotonic()
    for count in range(round(seconds / pause)):
        wait = began + count * pause - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        number = count % len(wires)
        stamped = leg + _STAMP.pack(time.monotonic_ns()) + noise
        wires[number].sock.sendall(frame(BINARY, stamped, masked=masked))
        if masked and count % (len(wires) * 100) < len(wires):
            wires[number].drain()
    time.sleep(READY_S)  # the sockets stay open until the viewers have read


def _watch(viewers: Sequence[socket.socket], seconds: float, tell: Connection) -> None:
    began = time.monotonic()
    poll, got = select.poll(), {each.fileno(): (each, bytearray()) for each in viewers}
    for number in got:
        poll.register(number, select.POLLIN)
    late: list[float] = []
    while time.monotonic() < began + seconds + WARM_S:
        for number, _ in poll.poll(100):
            viewer, data = got[number]
            data += viewer.recv(1 << 18)
            now = time.monotonic_ns()
            while (found := cut(data)) is not None:
                kind, payload = found
                if kind == PING:
                    viewer.sendall(frame(PONG, payload))
                elif kind == BINARY and time.monotonic() > began + WARM_S:
                    (sent,) = _STAMP.unpack_from(payload)
                    late.append((now - sent) / 1e9)
                elif kind == CLOSE:
                    raise LabError("a viewer was closed")
    tell.send(late)


def _pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server((HOST, 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    for each in (ours, theirs):
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return ours, theirs


def _memory_of_websockify() -> float:
    """Return what a connection takes of its own (its private pages): websockify forks for each."""
    port = free_port()
    with socket.create_server((HOST, 0)) as server:
        target = f"{HOST}:{server.getsockname()[1]}"
        with _running(sys.executable, "-m", "websockify", f"{HOST}:{port}", target) as process:
            viewer = _patiently(lambda: Wire.opened(port, "/"))
            source, _ = server.accept()
            with source:
                source.sendall(bytes(1 << 20))
                viewer.bytes()
                children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
                sizes = [_private(int(each)) for each in children.split()]
            viewer.close()
    return max(sizes, default=0.0)


# The user stops


def _stopped(size: Size) -> Figure:
    late, bare = [], []
    with serving(size.stops, records=True) as (_, opened):
        for ends in opened:
            bare.append(_answered(ends.viewer))
            began = time.perf_counter()
            ends.helper.say("stop", by="hotkey")
            late.append(ends.viewer.closed_at() - began)
            for other in opened:
                other.page.drain()
    return Figure(
        name="remote_stopped_p95", what="the helper says that its user has stopped, to the "
        "viewer's WebSocket closed, 95th percentile; bare: a ping of that answered", unit="ms",
        ours=percentile(late, 95) * 1000, bare=percentile(bare, 95) * 1000, judged=Judged.OURS,
        target=20,
    )  # fmt: skip


def _answered(viewer: Wire) -> float:
    began = time.perf_counter()
    viewer.sock.sendall(frame(PING, b"x"))
    while viewer.next()[0] != PONG:
        pass
    return time.perf_counter() - began


# Programs


@contextmanager
def serving(
    count: int, *, records: bool, join: bool = True
) -> Iterator[tuple[subprocess.Popen[bytes], list[Any]]]:
    """Run the broker; yield it with its sessions under way, or with what opens each of them."""
    command = (sys.executable, "-m", "bench.peers.broker", str(count), "1" if records else "0")
    with _running(*command, speaks=True) as process:
        told = json.loads(_line(process.stdout))
        known = [(told["port"], each) for each in told["sessions"]]
        opened = [Ends.opened(port, each) for port, each in known] if join else []
        try:
            yield process, opened or known
        finally:
            for ends in opened:
                ends.close()


def _line(stream: IO[bytes] | None) -> bytes:
    assert stream is not None
    line = stream.readline()
    if not line:
        raise LabError("the broker ended at its start")
    return line


@contextmanager
def _running(*command: str, speaks: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        ("setpriv", "--pdeathsig", "KILL", *command),
        stdin=subprocess.PIPE if speaks else subprocess.DEVNULL,
        stdout=subprocess.PIPE if speaks else subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        if process.stdin is not None:
            process.stdin.close()
            _ended(process, 10)
        process.terminate()
        _ended(process, 5)
        process.kill()
        process.wait()


def _ended(process: subprocess.Popen[bytes], within_s: float) -> None:
    with suppress(subprocess.TimeoutExpired):
        process.wait(within_s)


def _patiently(connect: Callable[[], Wire]) -> Wire:
    until = time.monotonic() + READY_S
    while True:
        try:
            return connect()
        except ConnectionError as error:
            if time.monotonic() > until:
                raise LabError(f"websockify is not there: {error}") from error
            time.sleep(0.05)


def _resident(pid: int) -> float:
    pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6


def _private(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1e3
