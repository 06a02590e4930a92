"""calls: how many complete calls a second this machine takes, with full ticketing and without.

A complete call: the caller is asked for at contactd, queued, an engineer's phone rings, answers,
presses 1, talks for a moment and hangs up, which ends the caller's call. sipp plays both. The bare
thing is the same PBX and dialplan with a FastAGI server that answers from a table
(`constants.py`).

The loop is closed: so many callers at a time, each dials again as soon as the last call has ended.
The rate is the highest of all levels at which every call was complete (and, with contactd,
ticketed before it was queued). Both kinds are measured in turn, level by level.
"""

import asyncio
import csv
import os
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from bench.figures import Figure, Judged
from bench.hotline import on_duty
from bench.site import append, caller, desk_file, key, queues
from contactd.lab.desk import DID, DeskLab, open_desk

SITES: Final = 100  # each with one engineer: no caller ever waits for a person
LEVELS: Final = (10, 20, 40, 80)  # callers at a time
CALLS_PER_LEVEL: Final = {20: 300, 40: 600, 60: 900, 80: 900, 120: 900}
WITHIN_S: Final = 60.0  # for a level
SIP: Final = Path(__file__).with_name("sip")


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    callers: int
    rate: float  # complete calls a second
    failed: int


async def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="contactd-bench-") as name:
        folder = Path(name)
        async with open_desk(
            desk_file=desk_file(folder / "desk.toml", SITES),
            options={"GREETING": "no"},
            settings={"tickets": {"join_within_s": 0}, "service": {"log_level": "INFO"}},
            start=False,
        ) as desk:
            append(desk.pbx, "contactd_queues.conf", queues(SITES))
            await desk.pbx.restart()
            await desk.daemon.start()
            await on_duty(desk, SITES)  # and they stay so, whoever answers the questions
            await desk.daemon.stop()
            await desk.network.asterisk.kill()  # its place is sipp's
            return [_figure(await _levels(desk, folder))]


def _figure(levels: list[tuple[Level, Level]]) -> Figure:
    ours = max(level.rate for level, _ in levels if not level.failed)
    bare = max(level.rate for _, level in levels if not level.failed)
    return Figure(
        name="calls",
        what="highest rate of complete calls, each with its ticket; bare: decisions are constants",
        unit="calls/s",
        ours=ours,
        bare=bare,
        judged=Judged.RATIO,
        target=0.8,
    )


async def _levels(desk: DeskLab, folder: Path) -> list[tuple[Level, Level]]:
    table = folder / "constants"
    answer = "ok,26112200014,zh,{0},0,0,{0},,0"
    lines = (f"{caller(site)} {answer.format(key(site))}" for site in range(SITES))
    table.write_text("\n".join(lines), encoding="utf-8")
    levels = []
    for callers in LEVELS:
        bare = await _with_constants(desk, table, partial(_level, desk, folder, callers))
        ours = await _with_contactd(desk, partial(_level, desk, folder, callers))
        levels.append((ours, bare))
        if ours.failed and bare.failed:
            break
    return levels


async def _with_constants(desk: DeskLab, table: Path, do: Callable[[], Awaitable[Level]]) -> Level:
    where = (desk.pbx.host, str(desk.lab.agi_port), str(table))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.constants", *where), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        await asyncio.wait_for(process.stdout.readline(), 10)
        return await do()
    finally:
        process.kill()
        await process.wait()


async def _with_contactd(desk: DeskLab, do: Callable[[], Awaitable[Level]]) -> Level:
    """Measure with contactd; a call without a ticket, or with two, counts as failed."""
    await desk.daemon.start()
    try:
        await on_duty(desk, SITES)
        before = _asked(desk)
        async with asyncio.timeout(WITHIN_S):
            while _tickets(desk) < len(before):  # it files what it missed meanwhile
                await asyncio.sleep(0.1)
        tickets = _tickets(desk)
        level = await do()
        asked = {call for call, ok in _asked(desk).items() if call not in before and ok}
        missing = level.failed + abs(CALLS_PER_LEVEL[level.callers] - len(asked))
        missing += abs(_tickets(desk) - tickets - len(asked))
        return Level(callers=level.callers, rate=level.rate, failed=missing)
    finally:
        await desk.daemon.stop()


def _tickets(desk: DeskLab) -> int:
    path = desk.folder / "data" / "contactd.sqlite3"
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
        (count,) = database.execute("SELECT count(*) FROM tickets").fetchone()
    return int(count)


def _asked(desk: DeskLab) -> dict[str, bool]:
    """Return the calls that asked contactd, and whether it had answered in time."""
    if not desk.pbx.cel_path.exists():
        return {}
    with desk.pbx.cel_path.open(encoding="utf-8", newline="") as file:
        return {
            row[3]: row[14] == "CONTACTD,ok" for row in csv.reader(file) if row[2] == "CONTACTD"
        }


async def _level(desk: DeskLab, folder: Path, callers: int) -> Level:
    """Let `callers` at a time call, one call after the other, until all calls are through."""
    numbers = folder / "callers.csv"
    lines = [caller(site) for site in range(SITES)]
    numbers.write_text("SEQUENTIAL\n" + "\n".join(lines) + "\n", encoding="utf-8")
    host = desk.network.asterisk.host
    rtp = desk.network.asterisk.seat.rtp[0]
    pbx = f"{desk.pbx.host}:{desk.pbx.sip_port}"
    total = CALLS_PER_LEVEL[callers]
    phones = ("-sf", str(SIP / "engineer.xml"), "-p", str(desk.network.asterisk.sip_port))
    async with _sipp(*phones, "-i", host, "-mi", host, "-mp", str(rtp), pbx, cwd=folder):
        began = time.perf_counter()
        statistics = folder / "callers.stat"
        statistics.unlink(missing_ok=True)
        people = (
            "-sf",
            str(SIP / "caller.xml"),
            "-s",
            DID,
            "-inf",
            str(numbers),
            "-p",
            str(rtp + 801),
        )
        load = ("-r", "200", "-l", str(callers), "-m", str(total), "-trace_stat", "-fd", "1")
        async with _sipp(
            *people, *load, "-stf", str(statistics), "-i", host, "-mi", host, "-mp", str(rtp + 400),
            pbx, cwd=folder,
        ) as process:  # fmt: skip
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), WITHIN_S)
        seconds = time.perf_counter() - began
    with statistics.open(encoding="utf-8", newline="") as file:
        last = list(csv.DictReader(file, delimiter=";"))[-1]
    complete = int(last["SuccessfulCall(C)"])
    return Level(callers=callers, rate=complete / seconds, failed=total - complete)


@asynccontextmanager
async def _sipp(*arguments: str, cwd: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *("setpriv", "--pdeathsig", "KILL", "sipp", *arguments, "-nostdin"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        cwd=cwd,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            os.kill(process.pid, signal.SIGKILL)
        await process.wait()
