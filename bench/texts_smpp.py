"""texts_smpp_in, texts_smpp_out: texts a second over one SMPP link, beside a library alone.

An SMSC (`peers/smsc.py`, a process of its own that costs little) has `WINDOW` texts unanswered at a
time, and measures. In: contactd's whole daemon, whose deliver_sm_resp follows the commit of the
contact, and which confirms new tickets over the same link meanwhile; smpplib acknowledges and keeps
nothing, so that the ratio is the price of keeping. Out: `SmppGateway.submit` with `WINDOW` who wait
for it; smpplib with as many submit_sm on the way. The sides take turns, `ROUNDS` each, and which
goes first alternates too; the figure is the median. A round counts only if every text was answered
with status 0, and is a contact afterwards (in) or has an id of its own (out).
"""

import asyncio
import json
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from bench.figures import Figure
from bench.peers.programs import HOST, ended
from bench.peers.smsc import OURS, PASSWORD, SYSTEM_ID
from bench.texts import configured, contacts
from contactd.lab.asterisk import LabError
from contactd.lab.daemon import running
from contactd.lab.ports import free_port

ROUNDS: Final = 3
WINDOW: Final = 10  # what carriers allow, and sms.smpp.window unless told otherwise
WARM_UP: Final = 200
LASTS_AT_MOST_S: Final = 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One side of one figure; `texts` take some seconds."""

    name: str
    way: str  # of the texts, as the SMSC is told
    texts: int
    run: Callable[[int, int], Awaitable[None]]  # port, and how many texts with the warm-up


async def measure() -> list[Figure]:
    ours_in, bare_in = await _rates(
        Load(name="contactd in", way="in", texts=3_000, run=_daemon),
        Load(name="smpplib in", way="in", texts=20_000, run=_program("smpplib-in")),
    )
    ours_out, bare_out = await _rates(
        Load(name="contactd out", way="out", texts=10_000, run=_program("contactd-out")),
        Load(name="smpplib out", way="out", texts=10_000, run=_program("smpplib-out")),
    )
    return [
        Figure(
            name="texts_smpp_in",
            what="deliver_sm answered, each a contact; bare: smpplib, which keeps nothing",
            unit="texts/s",
            ours=ours_in,
            bare=bare_in,
        ),
        Figure(
            name="texts_smpp_out",
            what="submit_sm answered, ten on the way; bare: smpplib",
            unit="texts/s",
            ours=ours_out,
            bare=bare_out,
        ),
    ]


async def _rates(ours: Load, bare: Load) -> tuple[float, float]:
    rates: dict[str, list[float]] = {ours.name: [], bare.name: []}
    for number in range(ROUNDS):
        for load in (ours, bare) if number % 2 == 0 else (bare, ours):
            rates[load.name].append(await _rate(load))
    return median(rates[ours.name]), median(rates[bare.name])


async def _rate(load: Load) -> float:
    """Return texts a second. Raises LabError: not all of them came through."""
    port = free_port()
    async with _smsc(load, port) as smsc:
        async with asyncio.timeout(LASTS_AT_MOST_S):
            await load.run(port, WARM_UP + load.texts)
            said = await smsc.readline()
        if not said:
            raise LabError(f"{load.name}: the SMSC has ended")
    rate = load.texts / float(json.loads(said)["seconds"])
    print(f"  texts_smpp {load.name}: {rate:.0f} texts/s", flush=True)
    return rate


@asynccontextmanager
async def _smsc(load: Load, port: int) -> AsyncIterator[asyncio.StreamReader]:
    process = await asyncio.create_subprocess_exec(
        *("setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "bench.peers.smsc"),
        *(load.way, str(port), str(WARM_UP), str(load.texts), str(WINDOW)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        await process.stdout.readline()  # it listens
        yield process.stdout
    finally:
        await ended(process)


def _program(name: str) -> Callable[[int, int], Awaitable[None]]:
    async def run(port: int, number: int) -> None:
        process = await asyncio.create_subprocess_exec(
            *("setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "bench.peers.esme"),
            *(name, str(port), str(number), str(WINDOW)),
            stdin=asyncio.subprocess.DEVNULL,
        )
        try:
            if await process.wait() != 0:
                raise LabError(f"{name} ended with {process.returncode}")
        finally:
            await ended(process)

    return run


async def _daemon(port: int, number: int) -> None:
    """Run contactd's daemon until it has so many contacts."""
    folder = Path(tempfile.mkdtemp(prefix="bench-smpp-"))
    smpp = {
        "host": HOST, "port": port, "system_id": SYSTEM_ID, "password": PASSWORD,
        "sender": OURS, "window": WINDOW,
    }  # fmt: skip
    try:
        async with running(configured(folder, "smpp", smpp)):
            while (found := contacts(folder)) < number:
                await asyncio.sleep(1)
            if found > number:
                raise LabError(f"{number:,} texts, {found:,} contacts")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
