"""memory and start: the daemon beside an idle PBX.

Memory is VmRSS once it has stopped moving, of a daemon that was started again on a database that
it had (the usual case); the bare thing is a Python that has imported aiohttp and waits. Start is
from the process being spawned to /readyz saying 200, asked every 10 ms; the bare thing is `python
-c pass`. `start_new` is the first start: no database yet.
"""

import asyncio
import shutil
import sys
import time
from pathlib import Path
from statistics import median
from typing import Final

import aiohttp

from bench.figures import Figure, Judged
from contactd.lab.daemon import Daemon
from contactd.lab.desk import DeskLab, open_desk

ROUNDS: Final = 7
WITHIN_S: Final = 20.0
SETTLED: Final = 5  # equal readings
LOOK_S: Final = 1.0
MOST_LOOKS: Final = 30


async def measure() -> list[Figure]:
    async with open_desk(options={"GREETING": "no"}, start=False) as desk:
        return [*await _starts(desk), await _memory(desk)]


async def _starts(desk: DeskLab) -> list[Figure]:
    new, again, bare = [], [], []
    for _ in range(ROUNDS):
        bare.append(await _python())
        shutil.rmtree(desk.folder / "data", ignore_errors=True)
        new.append(await _start(desk.daemon))
        await desk.daemon.stop()
        again.append(await _start(desk.daemon))
        await desk.daemon.stop()
    found = [
        ("start", "start to ready; bare: `python -c pass`", again),
        ("start_new", "the same with no database yet", new),
    ]
    return [
        Figure(
            name=name,
            what=what,
            unit="s",
            ours=median(seconds),
            bare=median(bare),
            judged=Judged.OURS,
            target=2,
        )
        for name, what, seconds in found
    ]


async def _start(daemon: Daemon) -> float:
    began = time.perf_counter()
    await daemon.start(wait=False)
    async with asyncio.timeout(WITHIN_S), aiohttp.ClientSession() as http:
        while not await _is_ready(http, daemon.url):
            await asyncio.sleep(0.01)
    return time.perf_counter() - began


async def _is_ready(http: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with http.get(f"{url}/readyz") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


async def _python() -> float:
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "pass")
    await process.wait()
    return time.perf_counter() - began


async def _memory(desk: DeskLab) -> Figure:
    await desk.daemon.start()
    ours = await settled(desk.daemon.pid)
    await desk.daemon.stop()
    bare = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "import aiohttp.web, sys; print(flush=True); sys.stdin.read()"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert bare.stdout is not None
    await bare.stdout.readline()
    resident = _resident(bare.pid)
    bare.kill()
    await bare.wait()
    return Figure(
        name="memory",
        what="resident memory of the idle daemon; bare: Python with aiohttp imported",
        unit="MB",
        ours=ours,
        bare=resident,
        judged=Judged.OURS,
        target=100,
    )


async def settled(pid: int) -> float:
    """Return the process's resident memory once it does not move any more."""
    readings: list[float] = []
    while len(readings) < 10 or (len(readings) < MOST_LOOKS and len(set(readings[-SETTLED:])) != 1):
        await asyncio.sleep(LOOK_S)
        readings.append(_resident(pid))
    return max(readings[-SETTLED:])


def _resident(pid: int) -> float:
    """Return VmRSS in MB (10^6 bytes)."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024 / 1e6
