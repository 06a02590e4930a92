"""calls: how many complete calls a second this machine takes, with full ticketing and without.

A complete call: the caller hears the notice and presses 0, contactd having been asked; waits in
the queue; an engineer's phone rings, answers, presses 1, talks for a second and hangs up, which
ends the caller's call; it is recorded. sipp plays both. The bare thing is the same PBX and dialplan
with a FastAGI server that answers from a table (`constants.py`).

Calls come evenly, whether or not earlier ones are over: a PBX that does not keep up is seen at
once. The figure is the highest rate, in whole calls a second, at which for a quarter of a minute
every call was complete and, with contactd, had its ticket before it was queued. It is found by
halving, for both kinds in turn.
"""

import asyncio
import csv
import os
import signal
import sqlite3
import sys
import tempfile
import wave
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.figures import Figure, Judged
from bench.hotline import on_duty
from bench.site import append, caller, desk_file, key, queues
from contactd.lab.desk import DID, DeskLab, open_desk, sounds_folder

SITES: Final = 120  # each with one engineer and one caller: nobody waits for a person
LASTS_S: Final = 15  # calls come for so long
OVER_S: Final = 12.0  # after the last one all are over, or the PBX has not kept up: one takes 8.2 s
AFTER_NOTICE_S: Final = 0.6
TALK_S: Final = 1.0
SETTLE_S: Final = 120.0  # after a level that was too much
WARM_UP: Final = 10  # calls a second
LOWEST: Final = 8  # calls a second: taken for granted
HIGHEST: Final = 56  # and out of the question
TRIES: Final = 2  # one stumble of the machine is not the end
SIP: Final = Path(__file__).with_name("sip")


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
            return [await _figure(desk, folder)]


async def _figure(desk: DeskLab, folder: Path) -> Figure:
    async def bare(rate: int) -> bool:
        async with _constants(desk, folder):
            return await _complete(desk, folder, rate)

    async def ours(rate: int) -> bool:
        return await _ticketed(desk, folder, rate)

    await bare(WARM_UP)  # the first calls of a PBX cost more
    ours_search, bare_search = _Search(ours), _Search(bare)
    while not (ours_search.done and bare_search.done):
        await bare_search.step()
        await ours_search.step()
    return Figure(
        name="calls",
        what="highest rate of complete calls, each with its ticket; bare: decisions are constants",
        unit="calls/s",
        ours=ours_search.good,
        bare=bare_search.good,
        judged=Judged.RATIO,
        target=0.8,
    )


@dataclass(slots=True)
class _Search:
    """Finds by halving the highest rate at which `goes_well`."""

    goes_well: Callable[[int], Awaitable[bool]]
    good: int = LOWEST
    bad: int = HIGHEST

    @property
    def done(self) -> bool:
        return self.bad - self.good <= 1

    async def step(self) -> None:
        if self.done:
            return
        rate = (self.good + self.bad) // 2
        for _ in range(TRIES):
            if await self.goes_well(rate):
                self.good = rate
                return
        self.bad = rate


def _write_tables(folder: Path) -> None:
    answer = "ok,26112200014,zh,{0},0,0,{0},,0"
    lines = [f"{caller(site)} {answer.format(key(site))}" for site in range(SITES)]
    (folder / "constants").write_text("\n".join(lines), encoding="utf-8")
    numbers = "\n".join(caller(site) for site in range(SITES))
    (folder / "callers.csv").write_text(f"SEQUENTIAL\n{numbers}\n", encoding="utf-8")


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


async def _ticketed(desk: DeskLab, folder: Path, rate: int) -> bool:
    """Return whether every call was complete and had its ticket in time, and one only."""
    _forget(desk)
    await desk.daemon.start()
    try:
        await on_duty(desk, SITES)
        complete = await _complete(desk, folder, rate)
        asked = sum(ok for ok in _asked(desk).values())
        tickets = _tickets(desk)
        print(f"    {asked} had their ticket in time", flush=True)
        return complete and asked == tickets == rate * LASTS_S
    finally:
        await desk.daemon.stop()


def _forget(desk: DeskLab) -> None:
    """Begin with nothing: what a level that was too much left would be paged in the next one."""
    for path in (desk.folder / "data").glob("contactd.sqlite3*"):
        path.unlink()
    for path in (desk.pbx.cel_path, desk.pbx.queue_log_path):
        path.write_text("", encoding="utf-8")


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


async def _complete(desk: DeskLab, folder: Path, rate: int) -> bool:
    """Place `rate` calls a second; return whether each of them went as it should."""
    statistics = folder / "callers.stat"
    statistics.unlink(missing_ok=True)
    network = desk.network.asterisk
    rtp = network.seat.rtp[0]
    calls = rate * LASTS_S
    listen_s = _notice_s() + AFTER_NOTICE_S
    engineers = (
        *("-sf", str(SIP / "engineer.xml"), "-p", str(network.sip_port), "-mp", str(rtp)),
        *("-d", str(round(TALK_S * 1000))),
    )
    callers = (
        *("-sf", str(SIP / "caller.xml"), "-p", str(rtp + 801), "-mp", str(rtp + 400)),
        *("-s", DID, "-inf", str(folder / "callers.csv"), "-d", str(round(listen_s * 1000))),
        *("-r", str(rate), "-l", str(calls), "-m", str(calls)),
        *("-trace_stat", "-fd", "1", "-stf", str(statistics)),
    )
    async with (
        _sipp(desk, folder, *engineers),
        _sipp(desk, folder, *callers) as process,
    ):
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), LASTS_S + OVER_S)
    await _silence(desk)
    with statistics.open(encoding="utf-8", newline="") as file:
        last = list(csv.DictReader(file, delimiter=";"))[-1]
    complete = int(last["SuccessfulCall(C)"])
    print(f"  {rate} calls/s: {complete} of {calls} complete", flush=True)
    return complete == calls


async def _silence(desk: DeskLab) -> None:
    """End what failed calls left: an engineer who still talks would not be rung again."""
    async with asyncio.timeout(SETTLE_S):
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
