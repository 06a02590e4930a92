"""ami: how many manager events one core takes, ours against raw panoramisk.

The events are those of real calls as the shipped event filter lets them through
(`tests/transcripts/ami-22-calls.txt`), sent over a loopback socket by another process as fast as
they are taken. Ours is all that happens to an event in the daemon before somebody works on it:
decoded, parsed, passed on in order and followed by the call tracker. Raw panoramisk gives each to
a callback that only counts. What is measured is the processor time of the receiving process.

`python -m bench.manager {ours,bare} PORT` is that process, `send` the other one.
"""

import asyncio
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Final

from panoramisk import Manager
from panoramisk.message import Message

from bench.figures import Figure
from contactd import log
from contactd.clock import SystemClock
from contactd.telephony.ami import Ami, AmiEvent, AmiSettings
from contactd.telephony.calls import CallTracker
from contactd.telephony.pbx import EVENTS

TRANSCRIPT: Final = Path(__file__).parents[1] / "tests" / "transcripts" / "ami-22-calls.txt"
REPEATS: Final = 200  # of the transcript's events
ROUNDS: Final = 5
WITHIN_S: Final = 60.0
LAST: Final = "Reload"  # not in the transcript: ends the round


def events() -> list[bytes]:
    """Return the transcript's events, as Asterisk writes them."""
    lines = TRANSCRIPT.read_text(encoding="utf-8").splitlines()
    blocks = "\r\n".join(line for line in lines if not line.startswith("#")).split("\r\n\r\n")
    return [
        f"{block.strip()}\r\n\r\n".encode()
        for block in blocks
        if block.strip().startswith("Event: ") and "FullyBooted" not in block
    ]


async def measure() -> list[Figure]:
    rates: dict[str, list[float]] = {"ours": [], "bare": []}
    for _ in range(ROUNDS):
        for kind, found in rates.items():
            found.append(await _round(kind))
    return [
        Figure(
            name="ami",
            what="AMI events followed per core and second; bare: panoramisk, only counting",
            unit="events/s",
            ours=median(rates["ours"]),
            bare=median(rates["bare"]),
        )
    ]


async def _round(kind: str) -> float:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        sender = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.manager", "send", str(listener.fileno())),
            pass_fds=[listener.fileno()],
        )
        try:
            receiver = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "bench.manager", kind, port),
                stdout=asyncio.subprocess.PIPE,
            )
            async with asyncio.timeout(WITHIN_S):
                told, _ = await receiver.communicate()
        finally:
            with suppress(ProcessLookupError):
                sender.kill()
            await sender.wait()
    return REPEATS * len(events()) / float(told)


def send(listener: socket.socket) -> None:
    """Be a PBX for one client: greet, accept its login, then send events until it leaves."""
    connection, _ = listener.accept()
    with connection, connection.makefile("rb") as requests:
        connection.sendall(b"Asterisk Call Manager/11.0.0\r\n")
        answered = 0
        while answered < 2:  # Login, and what a client asks next
            action = b""
            while not action.endswith(b"\r\n\r\n"):
                action += requests.readline()
            number = next(
                line for line in action.splitlines() if line.lower().startswith(b"actionid:")
            )
            connection.sendall(
                b"Response: Success\r\n" + number + b"\r\nMessage: Authentication accepted\r\n\r\n"
            )
            answered += 1
        booted = b"Event: FullyBooted\r\nPrivilege: system,all\r\nStatus: Fully Booted\r\n\r\n"
        end = f"Event: {LAST}\r\nPrivilege: system,all\r\n\r\n".encode()
        connection.sendall(booted + b"".join(events()) * REPEATS + end)
        requests.read()


class _Stopwatch:
    """Measures processor time from the first event to the last."""

    def __init__(self) -> None:
        self._began = 0.0
        self.seconds = 0.0
        self.done = asyncio.Event()

    def see(self, name: str) -> None:
        if not self._began:
            self._began = time.process_time()
        if name == LAST:
            self.seconds = time.process_time() - self._began
            self.done.set()


async def ours(port: int) -> float:
    watch = _Stopwatch()
    clock = SystemClock()
    tracker = CallTracker(hotline_contexts=("hotline",))

    def follow(event: AmiEvent) -> None:
        if event["Event"] != "FullyBooted":
            tracker.feed(event, clock.now())
            watch.see(event["Event"])

    async def connected(ami: Ami) -> None:
        """Ask nothing."""

    ami = Ami(
        AmiSettings(name="bench", host="127.0.0.1", port=port, username="x", secret="x"),
        on_event=follow,
        on_connected=connected,
        wanted=EVENTS | {"FullyBooted"},
    )
    async with ami.running():
        await watch.done.wait()
    return watch.seconds


async def bare(port: int) -> float:
    watch = _Stopwatch()
    manager = Manager(host="127.0.0.1", port=port, username="x", secret="x", ping_delay=3600)

    def see(_manager: Manager, event: Message) -> None:
        watch.see(event.event)

    for name in EVENTS:
        manager.register_event(name, see)
    await manager.connect()
    manager.send_action({"Action": "Ping"})
    await watch.done.wait()
    manager.close()
    return watch.seconds


if __name__ == "__main__":
    match sys.argv[1]:
        case "send":
            send(socket.socket(fileno=int(sys.argv[2])))
        case kind:
            log.configure(level="ERROR", json=True)
            seconds = asyncio.run({"ours": ours, "bare": bare}[kind](int(sys.argv[2])))
            sys.stdout.write(f"{seconds}")
