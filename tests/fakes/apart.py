"""Two networks that see each other through a third, or only what stands in the third (Linux, root).

Browsers make no WebRTC candidates of loopback, so theirs are network namespaces of our own, joined
by veth pairs to one in the middle where coturn is. What listens on our 127.0.0.1 is reached from
each by its own 127.0.0.1: a page there is a secure context, and its address is the same everywhere.
"""

import asyncio
import ctypes
import os
import secrets
import shlex
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Final

from tests.fakes.waiting import eventually

CLONE_NEWNET: Final = 0x40000000  # <sched.h>
SIDES: Final = ("user", "desk")
TURN_PORT: Final = 3478


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=20)


def listening_in(namespace: str, port: int) -> socket.socket:
    """Return a socket that listens on the 127.0.0.1 of a namespace, for our own loop."""
    made: list[socket.socket] = []

    def make() -> None:  # in a thread of its own: it stays in there until it ends
        libc = ctypes.CDLL(None, use_errno=True)
        with open(f"/run/netns/{namespace}", "rb") as door:  # noqa: PTH123 - a descriptor
            if libc.setns(door.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        found = socket.socket()
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(("127.0.0.1", port))
        found.listen()
        made.append(found)

    thread = Thread(target=make)
    thread.start()
    thread.join()
    return made[0]


@dataclass(slots=True, kw_only=True)
class Apart:
    """`middle` is the address of what both sides reach."""

    token: str
    folder: Path
    middle: str = "10.201.1.1"
    coturn: asyncio.subprocess.Process | None = None
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    def name(self, side: str) -> str:
        return f"{self.token}-{side}"

    def inside(self, side: str, *command: str) -> None:
        run("ip", "netns", "exec", self.name(side), *command)

    def program(self, side: str, program: str) -> Path:
        """Return a program that is `program` on that side."""
        path = self.folder / f"{side}-{Path(program).name}"
        words = shlex.join(["ip", "netns", "exec", self.name(side), program])
        path.write_text(f'#!/bin/sh\nexec {words} "$@"\n', encoding="utf-8")
        path.chmod(0o755)
        return path

    def joined(self, *, directly: bool) -> None:
        """Let packets pass from side to side, or only to the middle."""
        words = f"echo {int(directly)} > /proc/sys/net/ipv4/ip_forward"
        self.inside("middle", "sh", "-c", words)

    async def door(self, side: str, port: int) -> None:
        """Make our 127.0.0.1:port that of a side, too."""
        tasks = await self._stack.enter_async_context(asyncio.TaskGroup())

        async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(OSError):
                while data := await reader.read(65536):
                    writer.write(data)
                    await writer.drain()
            writer.close()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                inner, outer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                writer.close()
                return
            async with asyncio.TaskGroup() as both:
                both.create_task(pump(reader, outer))
                both.create_task(pump(inner, writer))

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            work = tasks.create_task(serve(reader, writer))
            self._stack.callback(work.cancel)

        server = await asyncio.start_server(accept, sock=listening_in(self.name(side), port))
        self._stack.callback(server.close)

    async def start_coturn(self, secret: str) -> None:
        """Run coturn in the middle, as STUN and as TURN; return when it listens."""
        log = self.folder / "coturn.log"
        log.write_bytes(b"")
        self.coturn = await asyncio.create_subprocess_exec(
            *("setpriv", "--pdeathsig", "KILL"),
            *("ip", "netns", "exec", self.name("middle"), "turnserver", "-n"),
            *("--listening-ip", self.middle, "--relay-ip", self.middle),
            *("--listening-port", str(TURN_PORT), "--realm", "contactd", "--no-cli"),
            *("--use-auth-secret", "--static-auth-secret", secret, "--fingerprint"),
            *("--no-tls", "--no-dtls", "--userdb", str(self.folder / "turndb")),
            *("--pidfile", str(self.folder / "turn.pid"), "--log-file", str(log), "--simple-log"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )

        async def listens() -> bool:
            found = subprocess.run(
                ["ip", "netns", "exec", self.name("middle"), "ss", "-lun"],
                check=True, capture_output=True, text=True,
            )  # fmt: skip
            return f"{self.middle}:{TURN_PORT}" in found.stdout

        await eventually(listens)

    async def stop_coturn(self) -> None:
        if self.coturn is not None and self.coturn.returncode is None:
            self.coturn.kill()
            await self.coturn.wait()


@asynccontextmanager
async def apart(folder: Path) -> AsyncIterator[Apart]:
    """Make the namespaces, and remove them with all that is in them."""
    folder.mkdir(parents=True, exist_ok=True)
    nets = Apart(token=f"ctd{os.getpid()}{secrets.token_hex(2)}", folder=folder)
    names = [nets.name(each) for each in ("middle", *SIDES)]
    try:
        for each in names:
            run("ip", "netns", "add", each)
            run("ip", "-n", each, "link", "set", "lo", "up")
        for number, side in enumerate(SIDES, start=1):
            here, there = nets.name(side), nets.name("middle")
            run("ip", "-n", here, "link", "add", "up", "type", "veth",
                "peer", "name", f"to{number}", "netns", there)  # fmt: skip
            run("ip", "-n", here, "addr", "add", f"10.201.{number}.2/24", "dev", "veth0")
            run("ip", "-n", there, "addr", "add", f"10.201.{number}.1/24", "dev", f"to{number}")
            run("ip", "-n", here, "link", "set", "veth0", "up")
            run("ip", "-n", there, "link", "set", f"to{number}", "up")
            run("ip", "-n", here, "route", "add", "default", "via", f"10.201.{number}.1")
        nets.joined(directly=False)
        async with nets._stack:
            yield nets
    finally:
        await nets.stop_coturn()
        for each in names:
            subprocess.run(["ip", "netns", "del", each], check=False, capture_output=True)
