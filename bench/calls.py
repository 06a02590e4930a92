"""calls: how many complete calls a second this machine takes, with full ticketing and without.

A complete call: the caller hears the notice and presses 0, contactd having been asked; waits in
the queue; an engineer's phone rings, answers, presses 1, talks for a moment and hangs up, which
ends the caller's call. sipp plays both. The bare thing is the same PBX and dialplan with a FastAGI
server that answers from a table (`constants.py`).

The loop is closed: so many callers at a time, each dials again as soon as the last call has ended.
The rate is the highest of all levels at which every call was complete and, with contactd, had its
ticket before it was queued. Both kinds are measured in turn, level by level.

`calls` is the hotline as it is shipped (notice, greeting, recording), `calls_quick` without all
that: then a call costs the PBX as little as it can, and contactd's share is as large as it can be.
"""

import asyncio
import csv
import os
import signal
import sqlite3
import sys
import tempfile
import time
import wave
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.figures import Figure, Judged
from bench.hotline import on_duty
from bench.site import append, caller, desk_file, key, queues
from contactd.lab.desk import DID, DeskLab, open_desk, sounds_folder

SITES: Final = 120  # each with one engineer and one caller: nobody waits for a person
WITHIN_S: Final = 60.0  # for a level
AFTER_NOTICE_S: Final = 0.6
QUICK_S: Final = 0.01
QUICKEST_S: Final = 0.8  # ring, offer, key, talk
SIP: Final = Path(__file__).with_name("sip")
# Callers at a time: how many calls they make. A call takes 6.2 s, a quick one 0.8.
LEVELS: Final[Mapping[str, Mapping[int, int]]] = {
    "calls": {120: 360, 180: 540, 240: 720},
    "calls_quick": {40: 600, 60: 900, 80: 900},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """So many callers at a time make so many calls, and press 0 after `listen_s`."""

    callers: int
    calls: int
    listen_s: float

    @property
    def start_rate(self) -> float:
        """Return how many calls a second begin till all callers are there: not all at once."""
        return self.callers / (self.listen_s + QUICKEST_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    rate: float  # complete calls a second
    failed: int


@dataclass(slots=True)
class Rates:
    """The highest rates at which nothing failed."""

    ours: float = 0.0
    bare: float = 0.0
    both_failed: bool = field(default=False)


async def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="contactd-bench-") as name:
        folder = Path(name)
        async with open_desk(
            desk_file=desk_file(folder / "desk.toml", SITES),
            settings={"tickets": {"join_within_s": 0}},  # a ticket a call
            start=False,
        ) as desk:
            append(desk.pbx, "contactd_queues.conf", queues(SITES))
            await desk.pbx.restart()
            await desk.daemon.start()
            await on_duty(desk, SITES)  # and they stay so, whoever answers the questions
            await desk.daemon.stop()
            await desk.network.asterisk.kill()  # its place is sipp's
            _write_tables(folder)
            return [
                _figure("calls", await _rates(desk, folder, "calls")),
                _figure("calls_quick", await _rates(desk, folder, "calls_quick")),
            ]


def _figure(name: str, rates: Rates) -> Figure:
    shipped = name == "calls"
    return Figure(
        name=name,
        what="highest rate of complete calls, each with its ticket; bare: decisions are constants"
        if shipped
        else "the same without notice, greeting and recording",
        unit="calls/s",
        ours=rates.ours,
        bare=rates.bare,
        judged=Judged.RATIO if shipped else Judged.NOTHING,
        target=0.8 if shipped else None,
    )


def _write_tables(folder: Path) -> None:
    answer = "ok,26112200014,zh,{0},0,0,{0},,0"
    lines = [f"{caller(site)} {answer.format(key(site))}" for site in range(SITES)]
    (folder / "constants").write_text("\n".join(lines), encoding="utf-8")
    numbers = "\n".join(caller(site) for site in range(SITES))
    (folder / "callers.csv").write_text(f"SEQUENTIAL\n{numbers}\n", encoding="utf-8")


async def _rates(desk: DeskLab, folder: Path, name: str) -> Rates:
    greets = name == "calls"
    await desk.pbx.cli(f"dialplan set global GREETING {'yes' if greets else 'no'}")
    listen_s = _notice_s() + AFTER_NOTICE_S if greets else QUICK_S
    best = Rates()
    async with _constants(desk, folder):  # the first calls of a PBX cost more
        await _run(desk, folder, Load(callers=20, calls=SITES, listen_s=listen_s))
    for callers, calls in LEVELS[name].items():
        load = Load(callers=callers, calls=calls, listen_s=listen_s)
        async with _constants(desk, folder):
            bare = await _run(desk, folder, load)
        ours = await _ticketed(desk, folder, load)
        if not bare.failed:
            best.bare = max(best.bare, bare.rate)
        if not ours.failed:
            best.ours = max(best.ours, ours.rate)
        if bare.failed and ours.failed:
            break
    return best


def _notice_s() -> float:
    with wave.open(str(sounds_folder() / "zh" / "contactd" / "consent.wav"), "rb") as sound:
        return sound.getnframes() / sound.getframerate()


@asynccontextmanager
async def _constants(desk: DeskLab, folder: Path) -> AsyncIterator[None]:
    """Answer the dialplan's questions from the table."""
    where = (desk.pbx.host, str(desk.lab.agi_port), str(folder / "constants"))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.constants", *where), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        await asyncio.wait_for(process.stdout.readline(), 10)
        yield
    finally:
        process.kill()
        await process.wait()


async def _ticketed(desk: DeskLab, folder: Path, load: Load) -> Outcome:
    """Measure with contactd; a call without a ticket, or with two, counts as failed."""
    await desk.daemon.start()
    try:
        await on_duty(desk, SITES)
        before = _asked(desk)
        async with asyncio.timeout(WITHIN_S):
            while _tickets(desk) < len(before):  # it files what it missed meanwhile
                await asyncio.sleep(0.1)
        tickets = _tickets(desk)
        outcome = await _run(desk, folder, load)
        asked = {call for call, ok in _asked(desk).items() if call not in before and ok}
        failed = outcome.failed + abs(load.calls - len(asked))
        failed += abs(_tickets(desk) - tickets - len(asked))
        return Outcome(rate=outcome.rate, failed=failed)
    finally:
        await desk.daemon.stop()


def _tickets(desk: DeskLab) -> int:
    path = desk.folder / "data" / "contactd.sqlite3"
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
        (count,) = database.execute("SELECT count(*) FROM tickets").fetchone()
    return int(count)


def _asked(desk: DeskLab) -> dict[str, bool]:
    """Return the calls that asked contactd, and whether it had answered in time."""
    with desk.pbx.cel_path.open(encoding="utf-8", newline="") as file:
        return {
            row[3]: row[14] == "CONTACTD,ok" for row in csv.reader(file) if row[2] == "CONTACTD"
        }


async def _run(desk: DeskLab, folder: Path, load: Load) -> Outcome:
    """Let the callers call, one call after the other, until all calls are through."""
    statistics = folder / "callers.stat"
    statistics.unlink(missing_ok=True)
    network = desk.network.asterisk
    rtp = network.seat.rtp[0]
    engineers = ("-sf", str(SIP / "engineer.xml"), "-p", str(network.sip_port), "-mp", str(rtp))
    callers = (
        *("-sf", str(SIP / "caller.xml"), "-p", str(rtp + 801), "-mp", str(rtp + 400)),
        *("-s", DID, "-inf", str(folder / "callers.csv"), "-d", str(round(load.listen_s * 1000))),
        *("-r", str(round(load.start_rate)), "-l", str(load.callers), "-m", str(load.calls)),
        *("-trace_stat", "-fd", "1", "-stf", str(statistics)),
    )
    async with _sipp(desk, folder, *engineers):
        began = time.perf_counter()
        async with _sipp(desk, folder, *callers) as process:
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), WITHIN_S)
        seconds = time.perf_counter() - began
    await _silence(desk)
    with statistics.open(encoding="utf-8", newline="") as file:
        last = list(csv.DictReader(file, delimiter=";"))[-1]
    complete = int(last["SuccessfulCall(C)"])
    return Outcome(rate=complete / seconds, failed=load.calls - complete)


async def _silence(desk: DeskLab) -> None:
    """End what failed calls left: an engineer who still talks would not be rung again."""
    async with asyncio.timeout(WITHIN_S):
        while "0 active channels" not in await desk.pbx.cli("core show channels count"):
            await desk.pbx.cli("channel request hangup all")
            await asyncio.sleep(0.2)


@asynccontextmanager
async def _sipp(
    desk: DeskLab, folder: Path, *arguments: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    host = desk.network.asterisk.host
    pbx = f"{desk.pbx.host}:{desk.pbx.sip_port}"
    process = await asyncio.create_subprocess_exec(
        *("setpriv", "--pdeathsig", "KILL", "sipp", *arguments, "-i", host, "-mi", host),
        *("-nostdin", pbx),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        cwd=folder,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            os.kill(process.pid, signal.SIGKILL)
        await process.wait()
