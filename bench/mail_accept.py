"""mail_accept: mails a second that are on the disk before their 250, beside Postfix.

Postfix's own generator `smtp-source` with twenty connections sends the same mails to contactd's
listener process and to a Postfix (`peers/postfix.py`) that keeps them in its hold queue; both write
to the same disk and both call fsync first. 4 KiB with a connection for each mail, 4 KiB over
connections that stay open, 300 KiB. The sides take turns, `ROUNDS` each, and which goes first
alternates too; the figure is the median. A round counts only if everything that was answered with
250 is in the spool or the hold queue afterwards: the generator stops at any other answer.
"""

import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from bench.figures import Figure, Judged
from bench.peers import postfix
from bench.peers.programs import DOMAIN, HOST, MAILBOX, ended
from contactd.lab.asterisk import LabError
from contactd.mail.listener import Orders
from contactd.mail.spool import SpoolReader

SMTP_SOURCE: Final = Path("/usr/sbin/smtp-source")  # where Debian has it
CONNECTIONS: Final = 20
ROUNDS: Final = 3
WARM_UP: Final = 200
READY_S: Final = 20.0
LASTS_AT_MOST_S: Final = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One kind of traffic; `mails` take about five seconds."""

    name: str
    what: str
    options: tuple[str, ...]  # of smtp-source
    mails: int
    target: float


LOADS: Final = (
    Load(
        name="mail_accept_new",
        what="mails of 4 KiB accepted, a connection each",
        options=("-l", "4096"),
        mails=5_000,
        target=1.0,
    ),
    Load(
        name="mail_accept_open",
        what="the same over connections that stay open",
        options=("-d", "-l", "4096"),
        mails=7_000,
        target=1.5,
    ),
    Load(
        name="mail_accept_large",
        what="mails of 300 KiB accepted, a connection each",
        options=("-l", str(300 << 10)),
        mails=1_500,
        target=0.8,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """Somebody who takes mail: `port`, how many mails it has, and how to begin at none."""

    name: str
    port: int
    count: Callable[[], int]
    forget: Callable[[], None]


async def measure() -> list[Figure]:
    folder = Path(tempfile.mkdtemp(prefix="bench-mail-"))
    try:
        async with postfix.running() as peer:
            bare = Side(name="postfix", port=peer.port, count=peer.held, forget=peer.forget)
            return [await _figure(load, folder, bare) for load in LOADS]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _figure(load: Load, folder: Path, bare: Side) -> Figure:
    ours: list[float] = []
    theirs: list[float] = []
    for number in range(ROUNDS):
        async with AsyncExitStack() as stack:
            listener = await stack.enter_async_context(_listener(folder / "spool"))
            turns = [(listener, ours), (bare, theirs)]
            for side, rates in turns if number % 2 == 0 else reversed(turns):
                rates.append(await _rate(load, side))
    return Figure(
        name=load.name,
        what=f"{load.what}; bare: Postfix to its hold queue",
        unit="mails/s",
        ours=median(ours),
        bare=median(theirs),
        judged=Judged.RATIO,
        target=load.target,
    )


async def _rate(load: Load, side: Side) -> float:
    """Send the mails of one round and return how many a second were accepted.

    Raises:
        LabError: one was not, or is not there afterwards.
    """
    await _send(side, load.options, WARM_UP)
    took = await _send(side, load.options, load.mails)
    kept, sent = side.count(), WARM_UP + load.mails
    side.forget()
    os.sync()  # what was removed is not the next round's burden
    rate = load.mails / took
    print(f"  {load.name} {side.name}: {rate:.0f} mails/s, {kept:,} of {sent:,} kept", flush=True)
    if kept != sent:
        raise LabError(f"{side.name} said 250 {sent:,} times and has {kept:,} mails")
    return rate


async def _send(side: Side, options: tuple[str, ...], mails: int) -> float:
    """Return the seconds that smtp-source needed; it ends with an error at any refusal."""
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *("setpriv", "--pdeathsig", "KILL", str(SMTP_SOURCE), "-s", str(CONNECTIONS)),
        *("-m", str(mails), *options, "-f", "someone@example.org", "-t", MAILBOX),
        f"{HOST}:{side.port}",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, said = await asyncio.wait_for(process.communicate(), LASTS_AT_MOST_S)
    except TimeoutError:
        await ended(process)
        raise LabError(f"{side.name} took more than {LASTS_AT_MOST_S:.0f} s") from None
    if process.returncode != 0:
        raise LabError(f"{side.name}: smtp-source: {said.decode(errors='replace')[-500:]}")
    return time.perf_counter() - began


@asynccontextmanager
async def _listener(spool: Path) -> AsyncIterator[Side]:
    """Run contactd's listener process on an empty spool inside the block."""
    orders = Orders(
        mailboxes=(MAILBOX,), host=HOST, port=0, hostname=f"mx.{DOMAIN}", spool=spool,
        log_level="WARNING",
    )  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        *("setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "contactd.mail.listener"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(orders.model_dump_json().encode() + b"\n")
    try:
        port = await _ready(process)
        reading = asyncio.create_task(_read_on(process))  # a full pipe would stop it
        yield Side(
            name="contactd",
            port=port,
            count=lambda: _records(spool),
            forget=lambda: None,  # the next round has another spool
        )
        reading.cancel()
    finally:
        await ended(process)
        shutil.rmtree(spool, ignore_errors=True)


async def _ready(process: asyncio.subprocess.Process) -> int:
    """Return the port that it listens on."""
    assert process.stdout is not None
    try:
        async with asyncio.timeout(READY_S):
            async for line in process.stdout:
                said = json.loads(line)
                if said["event"] == "ready":
                    return int(said["port"])
    except TimeoutError:
        pass
    raise LabError("contactd's listener did not get ready")


async def _read_on(process: asyncio.subprocess.Process) -> None:
    assert process.stdout is not None
    async for _ in process.stdout:
        pass


def _records(spool: Path) -> int:
    """Return how many complete mails the daemon would find."""
    reader = SpoolReader(spool, spool / "accepted", day_of=lambda at: at.date())
    found = 0
    while some := len(reader.poll()):
        found += some
    return found
