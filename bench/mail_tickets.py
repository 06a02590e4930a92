"""mail_tickets: from a mail to its ticket, beside Request Tracker and Roundup.

The same mails go to contactd's whole daemon (SMTP, spool, processes that read them, SQLite), to
Request Tracker (`peers/rt.py`) and to Roundup (`peers/roundup.py`), each as its MTA would hand them
over: by SMTP, to `rt-mailgate`, to `roundup-mailgw`. All three know the senders, make each mail a
ticket of its own, and confirm it: the peers before they are done, contactd afterwards, which is not
in its figures; it is waited for before others are measured. Half of the mails are short and plain,
the others in GB18030, with HTML, or with a picture of 60 kB.

`…_p99`: `RATE` mails a second at random moments, a quarter of what the peers can read, from that
moment until the ticket is committed: the peers' programs end then; contactd's database is looked at
every 1 ms. `…_rate`: tickets a second while more mails come than can be read, from the first
delivery to the last commit. Roundup can also read a file with many mails in one process, which is
no intake but a job of cron: `mail_tickets_mailbox` is for those who want to know. The three take
turns with the same mails, and each measurement counts its tickets at the end.
"""

import asyncio
import os
import random
import re
import shutil
import sqlite3
import tempfile
import time
from collections import defaultdict
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.policy import SMTP
from functools import partial
from itertools import count, islice
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench.figures import Figure, Judged, percentile
from bench.peers import roundup, rt
from bench.peers.programs import HOST, MAILBOX, ended, greeting, installed
from bench.peers.roundup import Roundup
from contactd.lab.asterisk import LabError
from contactd.lab.daemon import Daemon, running, toml
from contactd.lab.ports import free_port

ROUNDS: Final = 2
SENDERS: Final = 400  # contactd confirms six mails of one address in an hour
WARM_UP: Final = 40  # mails
RATE: Final = 2.0  # mails a second
ARRIVALS: Final = 120  # mails a round
LOOK_S: Final = 0.001
COMMITTED_S: Final = 120.0
READY_S: Final = 20.0
QUIET_S: Final = 180
IDLE_SHARE: Final = 0.15  # of a core
MAILBOX_MAILS: Final = 200
TIMES: Final = 10  # better than the peers

_PICTURE: Final = random.Random(4).randbytes(60_000)
_SENTENCES: Final = (
    "打印机又卡纸了, 三楼财务室, 型号 M428。",
    "The printer on floor three is out of paper again.",
    "重启以后还是一样, 屏幕上显示错误代码 0x0000011b。",
    "It happens only with the letterhead tray.",
)


_MESSAGE_ID: Final = re.compile(rb"^Message-ID: <(.*)>", re.MULTILINE)


def mails() -> Iterator[bytes]:
    """Yield mails without end, each with a Message-ID of its own: always the same ones."""
    choose = random.Random(2026)
    for number in count():
        yield _mail(number, "\n".join(choose.choices(_SENTENCES, k=12)))


def _mail(number: int, text: str) -> bytes:
    sender = number % SENDERS
    mail = EmailMessage(policy=SMTP)
    mail["From"] = f"员工 {sender} <{_sender(sender)}>"
    mail["To"] = MAILBOX
    mail["Subject"] = f"{text[:12].strip()} {number:06}"
    mail["Date"] = "Sun, 22 Nov 2026 10:00:00 +0800"
    mail["Message-ID"] = f"<{number}.bench@example.org>"
    kind = number % 10
    mail.set_content(text, charset="gb18030" if kind == 5 else "utf-8")
    if kind > 5:
        lines = "".join(f"<p style='margin:0'>{line}</p>" for line in text.splitlines())
        mail.add_alternative(f"<html><body><div>{lines}</div></body></html>", subtype="html")
    if kind == 9:
        mail.add_attachment(_PICTURE, maintype="image", subtype="png", filename="屏幕.png")
    return mail.as_bytes()


def _sender(number: int) -> str:
    return f"person{number}@example.org"


def _people() -> list[str]:
    return [_sender(number) for number in range(SENDERS)]


# -- who is measured ---------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class Side:
    """A tracker. `file` returns once the ticket is committed, `hand_over` once it has the mail."""

    name: str
    file: Callable[[bytes], Awaitable[None]]
    hand_over: Callable[[bytes], Awaitable[None]]
    tickets: Callable[[], int]
    at_once: int  # deliveries at a time that it drains fastest with
    burst: int  # mails; about ten seconds
    settle: Callable[[], Awaitable[None]]  # returns when it has nothing left to do
    supply: Iterator[bytes] = field(default_factory=mails)  # the same ones for each side
    sent: int = 0
    seconds: list[float] = field(default_factory=list)  # each mail to its ticket
    rates: list[float] = field(default_factory=list)

    async def committed(self) -> None:
        """Return when everything that was sent is a ticket.

        Raises:
            LabError: there are too many, or it takes too long.
        """
        given_up = time.monotonic() + COMMITTED_S
        while (found := self.tickets()) < self.sent:
            if time.monotonic() > given_up:
                raise LabError(f"{self.name}: {self.sent:,} mails, {found:,} tickets")
            await asyncio.sleep(5 * LOOK_S)
        if found > self.sent:
            raise LabError(f"{self.name}: {self.sent:,} mails, {found:,} tickets")


async def measure() -> list[Figure]:
    async with AsyncExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="bench-mail-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        ours = await stack.enter_async_context(_contactd(folder / "contactd"))
        request_tracker = await stack.enter_async_context(_request_tracker())
        tracker = await roundup.tracker(folder, _people())
        mailgw = _roundup(tracker)
        sides = (ours, request_tracker, mailgw)
        for side in sides:
            await _send(side, WARM_UP)
        for _ in range(ROUNDS):
            for side in sides:
                await _arrivals(side)
                await _burst(side)
        mailbox = await _mailbox_rate(tracker, list(islice(mailgw.supply, MAILBOX_MAILS)))
        return _figures(ours, request_tracker, mailgw, mailbox)


async def _arrivals(side: Side) -> None:
    """Deliver mails at random moments, whether or not those before are tickets (Poisson)."""
    choose = random.Random(len(side.seconds))
    some = list(islice(side.supply, ARRIVALS))
    turns = asyncio.Semaphore(side.at_once)
    due = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for raw in some:
            due += choose.expovariate(RATE)
            await asyncio.sleep(due - time.perf_counter())
            # Not since `due`: a timer of asyncio's is up to a millisecond late.
            tasks.create_task(_timed(side, raw, turns, since=time.perf_counter()))
    side.sent += len(some)
    await side.committed()
    await side.settle()


async def _timed(side: Side, raw: bytes, turns: asyncio.Semaphore, *, since: float) -> None:
    async with turns:
        await side.file(raw)
    side.seconds.append(time.perf_counter() - since)


async def _burst(side: Side) -> None:
    side.rates.append(side.burst / await _send(side, side.burst))
    print(
        f"  {side.name}: {side.rates[-1]:.1f} tickets/s; median"
        f" {median(side.seconds) * 1000:.0f} ms, p99 {_p99(side):.0f} ms",
        flush=True,
    )


async def _send(side: Side, number: int) -> float:
    """Deliver mails as fast as they are taken; return the seconds until all are tickets."""
    left = iter(list(islice(side.supply, number)))  # they are made before the time runs

    async def deliver() -> None:
        for raw in left:
            side.sent += 1
            await side.hand_over(raw)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(side.at_once):
            tasks.create_task(deliver())
    await side.committed()
    took = time.perf_counter() - began
    await side.settle()
    return took


async def _mailbox_rate(tracker: Roundup, some: Sequence[bytes]) -> float:
    before = tracker.tickets()
    began = time.perf_counter()
    await tracker.deliver_mailbox(some)
    took = time.perf_counter() - began
    if tracker.tickets() - before != len(some):
        raise LabError(f"Roundup: {len(some)} mails, {tracker.tickets() - before} issues")
    return len(some) / took


def _p99(side: Side) -> float:
    """Return milliseconds."""
    return percentile(side.seconds, 99) * 1000


def _figures(ours: Side, request_tracker: Side, mailgw: Side, mailbox: float) -> list[Figure]:
    found = []
    for name, side in (("rt", request_tracker), ("roundup", mailgw)):
        found += [
            Figure(
                name=f"mail_tickets_{name}_p99",
                what="a mail's delivery to its ticket committed, 99th percentile;"
                f" bare: {side.name}, the target a tenth of it",
                unit="ms",
                ours=_p99(ours),
                bare=_p99(side),
                judged=Judged.OURS,
                target=round(_p99(side) / TIMES, 1),
            ),
            Figure(
                name=f"mail_tickets_{name}_rate",
                what=f"mails read and made tickets; bare: {side.name}",
                unit="tickets/s",
                ours=median(ours.rates),
                bare=median(side.rates),
                judged=Judged.RATIO,
                target=TIMES,
            ),
        ]
    found.append(
        Figure(
            name="mail_tickets_mailbox",
            what="the same; bare: Roundup that reads a file with all of them in one process",
            unit="tickets/s",
            ours=median(ours.rates),
            bare=mailbox,
        )
    )
    return found


# -- the peers ---------------------------------------------------------------------------------


async def _nothing() -> None:
    """Wait for nothing: the peers are done when their programs are."""


@asynccontextmanager
async def _request_tracker() -> AsyncIterator[Side]:
    async with rt.running(_people()) as tracker:
        yield Side(
            name="Request Tracker",
            file=tracker.deliver,
            hand_over=tracker.deliver,
            tickets=tracker.tickets,
            at_once=2,  # 8.0 tickets/s; 4.2 with one, 7.8 with four, 7.2 with eight
            burst=80,
            settle=_nothing,
        )


def _roundup(tracker: Roundup) -> Side:
    return Side(
        name="Roundup",
        file=tracker.deliver,
        hand_over=tracker.deliver,
        tickets=tracker.tickets,
        at_once=2,  # 9.9 tickets/s; 3.2 with one, 9.6 with four
        burst=80,
        settle=_nothing,
    )


# -- contactd ----------------------------------------------------------------------------------


@asynccontextmanager
async def _contactd(folder: Path) -> AsyncIterator[Side]:
    """Run the daemon, and a smart host for its confirmations that forgets them."""
    folder.mkdir()
    smtp_port, smart_host_port, http_port = free_port(), free_port(), free_port()
    config = folder / "contactd.toml"
    desk_file = folder / "desk.toml"
    desk_file.write_text(_desk(), encoding="utf-8")
    document: dict[str, Mapping[str, Any]] = {
        "service": {"data_dir": str(folder / "data"), "log_json": False, "log_level": "WARNING"},
        "database": {"desk_file": str(desk_file)},
        "http": {"host": HOST, "port": http_port},
        "agi": {"host": HOST, "port": free_port()},
        "tickets": {"join_within_s": 0},
        "mail": {"host": HOST, "port": smart_host_port, "security": "none", "sender": MAILBOX},
        "smtp": {"host": HOST, "port": smtp_port, "mailboxes": [MAILBOX]},
    }
    config.write_text(toml(document), encoding="utf-8")
    daemon = Daemon(config=config, log=folder / "log", url=f"http://{HOST}:{http_port}")
    async with _smart_host(smart_host_port), running(daemon):
        await _greets(smtp_port, "contactd takes no mail")
        connections = Connections(smtp_port)
        async with _looking(folder / "data" / "contactd.sqlite3") as tickets:

            async def file(raw: bytes) -> None:
                await connections.hand_over(raw)
                connections.close()  # the next one comes over a connection of its own
                await tickets.has(raw)

            async def settle() -> None:
                connections.close()
                await _idle(daemon)

            yield Side(
                name="contactd",
                file=file,
                hand_over=connections.hand_over,
                tickets=tickets.count,
                at_once=10,
                burst=1_000,
                settle=settle,
            )


def _desk() -> str:
    """Return a desk file with one site, and the senders among its people."""
    site = (
        '[[sites]]\nkey = "gz"\nname_zh = "广州"\nname_en = "Guangzhou"\nfloor = "138 0001 9999"\n'
    )
    people = (
        f'[[people]]\nkey = "p{number}"\nname = "员工 {number}"\nsite = "gz"\n'
        f'mails = ["{_sender(number)}"]\n'
        for number in range(SENDERS)
    )
    return "\n".join((site, *people))


# Together, as every MTA does that is offered PIPELINING (RFC 2920).
_ENVELOPE: Final = f"MAIL FROM:<{_sender(0)}>\r\nRCPT TO:<{MAILBOX}>\r\nDATA\r\n".encode()


class Connection:
    """One to contactd's SMTP port, with as little work of its own as an MTA's would have."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def opened(cls, port: int) -> "Connection":
        connection = cls(*await asyncio.open_connection(HOST, port))
        await connection._answered(b"220")
        await connection._said(b"EHLO bench.example.org", b"250")
        return connection

    async def hand_over(self, raw: bytes) -> None:
        """Return when contactd has taken the mail. Raises LabError if it does not."""
        self._writer.write(_ENVELOPE)
        for code in (b"250", b"250", b"354"):
            await self._answered(code)
        await self._said(raw.replace(b"\r\n.", b"\r\n..") + b".", b"250")

    def close(self) -> None:
        self._writer.close()

    async def _said(self, line: bytes, wanted: bytes) -> None:
        self._writer.write(line + b"\r\n")
        await self._answered(wanted)

    async def _answered(self, wanted: bytes) -> None:
        async with asyncio.timeout(COMMITTED_S):
            while (line := await self._reader.readline())[3:4] == b"-":
                pass
        if line[:3] != wanted:
            raise LabError(f"contactd refused a mail: {line!r}")


class Connections:
    """To contactd's SMTP port; they stay open until `close`, as another MTA's would."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._free: list[Connection] = []

    async def hand_over(self, raw: bytes) -> None:
        """Return when contactd has taken the mail. Raises LabError if it does not."""
        connection = self._free.pop() if self._free else await Connection.opened(self._port)
        await connection.hand_over(raw)
        self._free.append(connection)

    def close(self) -> None:
        while self._free:
            self._free.pop().close()


class Tickets:
    """Looks into the database; asks for more only when somebody has committed since."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._version = -1
        self._last = 0  # contact
        self._seen: dict[str, asyncio.Event] = defaultdict(asyncio.Event)  # by Message-ID

    async def look(self) -> None:
        """Look for new tickets for ever."""
        query = "SELECT id, json_extract(mail, '$.message_id') FROM contacts WHERE id > ?"
        while True:
            (version,) = self._database.execute("PRAGMA data_version").fetchone()
            if version != self._version:
                self._version = version
                for contact, message_id in self._database.execute(query, [self._last]):
                    self._last = contact
                    self._seen[message_id.strip("<>")].set()
            await asyncio.sleep(LOOK_S)

    async def has(self, raw: bytes) -> None:
        """Return when the mail's ticket is committed."""
        found = _MESSAGE_ID.search(raw)
        assert found is not None
        async with asyncio.timeout(COMMITTED_S):
            await self._seen[found[1].decode()].wait()

    def count(self) -> int:
        (number,) = self._database.execute("SELECT count(*) FROM tickets").fetchone()
        return int(number)


@asynccontextmanager
async def _looking(path: Path) -> AsyncIterator[Tickets]:
    connect = partial(sqlite3.connect, f"file:{path}?mode=ro", uri=True, isolation_level=None)
    with closing(connect()) as database:
        tickets = Tickets(database)
        looking = asyncio.create_task(tickets.look())
        try:
            yield tickets
        finally:
            looking.cancel()


async def _greets(port: int, otherwise: str) -> None:
    try:
        async with asyncio.timeout(READY_S):
            while not await greeting(port):
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise LabError(otherwise) from None


async def _idle(daemon: Daemon) -> None:
    """Return when the daemon has sent its confirmations: for a second it has worked little.

    Raises:
        LabError: that takes more than `QUIET_S`.
    """
    before = _worked_s(daemon.pid)
    for _ in range(QUIET_S):
        await asyncio.sleep(1)
        now = _worked_s(daemon.pid)
        if now - before < IDLE_SHARE:
            return
        before = now
    raise LabError(f"contactd does not come to rest in {QUIET_S} s:\n{daemon.tail()}")


def _worked_s(pid: int) -> float:
    """Return the processor time of a process until now (proc(5), utime and stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def _smart_host(port: int) -> AsyncIterator[None]:
    """Run Postfix's `smtp-sink`, which says 250 to everything; it refuses to run as root."""
    programs = installed("postfix")
    process = await asyncio.create_subprocess_exec(
        *("setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups"),
        *("--pdeathsig", "KILL", str(programs / "smtp-sink"), f"{HOST}:{port}", "100"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await _greets(port, "the smart host is not there")
        yield
    finally:
        await ended(process)
