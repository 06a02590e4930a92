"""The intake of mail in this process, and a peer that says whatever a test wants."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contactd.clock import SystemClock
from contactd.lab.ports import free_port
from contactd.mail.listener import certificate_of, listening, open_doors, port_of
from contactd.mail.session import Intake
from contactd.mail.spool import Envelope, Raw, Receipt, Spool, SpoolReader
from contactd.settings import SmtpSettings

MAILBOX = "support@desk.test"
STRANGER = "someone@example.org"
BODY = b"Subject: Printer\r\n\r\nIt is on fire.\r\n"


@dataclass(slots=True)
class Disk:
    """Stands between the intake and its spool, with switches."""

    spool: Spool
    fault: Exception | None = None
    slow: asyncio.Event | None = None  # a sync lasts until it is set

    async def keep(self, envelope: Envelope, raw: Raw) -> str:
        if self.slow is not None:
            await self.slow.wait()
        if self.fault is not None:
            raise self.fault
        return await self.spool.keep(envelope, raw)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """An intake that takes mail: at `port`, and at the local socket `lmtp` if there is one."""

    settings: SmtpSettings
    intake: Intake
    disk: Disk
    folder: Path
    port: int

    def mails(self) -> list[Receipt]:
        """Return all that is in the spool, as a new daemon would find it."""
        return reader(self.folder).poll(1_000_000)

    def raws(self) -> list[bytes]:
        return [mail.raw() for mail in self.mails()]


def reader(folder: Path) -> SpoolReader:
    return SpoolReader(folder, folder.parent / "accepted", day_of=lambda at: at.date())


def smtp_settings(**values: Any) -> SmtpSettings:
    return SmtpSettings(
        **{"mailboxes": (MAILBOX,), "hostname": "mx.desk.test", "port": free_port()} | values
    )


@asynccontextmanager
async def site(folder: Path, **values: Any) -> AsyncIterator[Site]:
    """Run an intake on a free port with settings of section smtp."""
    settings = smtp_settings(**values)
    clock = SystemClock()
    spool = Spool(folder / "spool", name="test", clock=clock, reserve_bytes=0)
    disk = Disk(spool)
    intake = Intake(
        settings, disk, clock=clock, hostname="mx.desk.test", certificate=certificate_of(settings)
    )
    doors = open_doors(settings)
    async with spool.running(), listening(intake, doors):
        yield Site(
            settings=settings, intake=intake, disk=disk, folder=folder / "spool",
            port=port_of(doors),
        )  # fmt: skip


class Peer:
    """A connection that says exactly what it is told."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def hear(self) -> str:
        """Return the next reply, its lines joined by LF; "" at the end of the connection."""
        lines: list[str] = []
        while True:
            line = (await self.reader.readline()).decode()
            lines.append(line.rstrip("\r\n"))
            if not re.match(r"\d{3}-", line):
                return "\n".join(lines)

    async def say(self, line: str | bytes) -> str:
        """Send a command and return the reply."""
        self.send((line if isinstance(line, bytes) else line.encode()) + b"\r\n")
        return await self.hear()

    def send(self, octets: bytes) -> None:
        self.writer.write(octets)

    async def begin(self, *recipients: str, sender: str = STRANGER, hello: str = "EHLO me") -> str:
        """Say everything up to DATA; return its reply."""
        await self.say(hello)
        await self.say(f"MAIL FROM:<{sender}>")
        for recipient in recipients or (MAILBOX,):
            await self.say(f"RCPT TO:<{recipient}>")
        return await self.say("DATA")

    async def mail(self, content: bytes = BODY) -> str:
        """Send a mail and return what is said to its end."""
        await self.begin()
        self.send(content + b".\r\n")
        return await self.hear()

    async def is_closed(self, within_s: float = 5) -> bool:
        """Return whether the other side ends the connection; what it says is lost."""
        try:
            async with asyncio.timeout(within_s):
                while await self.reader.read(1 << 16):
                    pass
        except ConnectionError:
            pass
        except TimeoutError:
            return False
        return True


@asynccontextmanager
async def peer(port: int | Path, *, host: str = "", greeting: bool = True) -> AsyncIterator[Peer]:
    """Connect, from the loopback address `host` if one is named, and hear the greeting."""
    if isinstance(port, Path):
        reader, writer = await asyncio.open_unix_connection(str(port))
    else:
        source = (host, 0) if host else None
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=source)
    connection = Peer(reader, writer)
    try:
        if greeting:
            await connection.hear()
        yield connection
    finally:
        writer.transport.abort()


async def send_all(port: int, commands: Sequence[bytes]) -> bytes:
    """Send all at once and return everything that is answered until the other side closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"".join(commands))
        return await reader.read()
    finally:
        writer.transport.abort()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
