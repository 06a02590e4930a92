"""viewers: 1,000 open wallboards while 20 tickets a second are reported, and the first view.

The daemon is a process of its own, without a PBX; the viewers are another one (`watchers.py`), the
reports come from here, through the API. Counted is from sending a report, so its filing is part of
it, to the event that has it at each of the viewers. The bare thing is an aiohttp server
(`peers/stream.py`) that sends as many bytes as often to as many, counted from the event's making.
The processor's share is that of the daemon, filing and counting included, over `SECONDS`.

`viewers_first_view` is from opening the wallboard in Chromium, nothing cached, to the first
contents on the screen; the bare thing is a page of one line.
"""

import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import aiohttp
from playwright.async_api import Browser, async_playwright

from bench.figures import Figure, Judged
from bench.peers.programs import HOST, ended, greeting
from bench.site import caller, desk_file
from contactd.lab.asterisk import LabError
from contactd.lab.daemon import Daemon, running, toml
from contactd.lab.ports import free_port

VIEWERS: Final = 1_000
RATE: Final = 20.0  # changes a second
SECONDS: Final = 30.0
SITES: Final = 6
READY_S: Final = 60.0
SETTLE_S: Final = 5.0  # for the last events to come
VIEWS: Final = 7
CHROMIUM: Final = Path("/usr/bin/chromium")
FLAGS: Final = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
ONE_LINE: Final = "/livez"
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    p50: float
    p99: float
    bytes_a_second: float
    event_bytes: int
    events_a_second: float  # to each viewer
    cpu: float  # share of one core
    memory_mb: float


async def measure() -> list[Figure]:
    folder = Path(tempfile.mkdtemp(prefix="bench-viewers-"))
    try:
        daemon = _configured(folder)
        async with running(daemon):
            ours = await _ours(daemon)
            first, bare_first = await _first_views(daemon)
        bare = await _bare(ours)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return _figures(ours, bare, first, bare_first)


def _figures(ours: Watched, bare: Watched, first: float, bare_first: float) -> list[Figure]:
    rows = (
        ("viewers_p50", "a change to each of 1,000 wallboards, 20 a second, median; bare: aiohttp "
         "that sends as much", "ms", ours.p50 * 1000, bare.p50 * 1000, None),
        ("viewers_p99", "the same, 99th percentile", "ms", ours.p99 * 1000, bare.p99 * 1000, 1000),
        ("viewers_cpu", "processor time of the daemon meanwhile, filing included", "% of a core",
         ours.cpu * 100, bare.cpu * 100, None),
        ("viewers_memory", "resident memory of the daemon meanwhile", "MB", ours.memory_mb,
         bare.memory_mb, None),
        ("viewers_bytes", "what all wallboards are sent, compressed", "kB/s",
         ours.bytes_a_second / 1000, bare.bytes_a_second / 1000, None),
        ("viewers_first_view", "wallboard opened to its first contents in Chromium; bare: a page "
         "of one line", "ms", first, bare_first, 1000),
    )  # fmt: skip
    return [
        Figure(
            name=name,
            what=what,
            unit=unit,
            ours=one,
            bare=other,
            judged=Judged.OURS if target else Judged.NOTHING,
            target=target,
        )
        for name, what, unit, one, other, target in rows
    ]


def _configured(folder: Path) -> Daemon:
    port, config = free_port(), folder / "contactd.toml"
    document: dict[str, Any] = {
        "service": {"data_dir": str(folder / "data"), "log_json": False, "log_level": "WARNING"},
        "database": {"desk_file": str(desk_file(folder / "desk.toml", SITES))},
        "http": {
            "host": HOST, "port": port, "public_status": True,
            "max_streams": VIEWERS + 10, "max_connections": VIEWERS + 100,
        },
        "agi": {"host": HOST, "port": free_port()},
    }  # fmt: skip
    config.write_text(toml(document), encoding="utf-8")
    return Daemon(config=config, log=folder / "log", url=f"http://{HOST}:{port}")


async def _ours(daemon: Daemon) -> Watched:
    made = await daemon.run("token", "create", "--name", "bench", "--role", "admin")
    port = int(daemon.url.rpartition(":")[2])
    async with _watchers(port, "/live?wall&lang=en") as watchers:
        before = _used(daemon.pid)
        changed = await _report(daemon, made.strip())
        cpu = (_used(daemon.pid) - before) / SECONDS
        memory = _resident(daemon.pid)
        await asyncio.sleep(SETTLE_S)
        return await _told(watchers, changed, cpu, memory)


async def _report(daemon: Daemon, token: str) -> list[float]:
    """Report a fault `RATE` times a second; return when each was sent."""
    loop = asyncio.get_running_loop()
    sent: list[float] = []
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as http:

        async def report(number: int) -> None:
            sent.append(time.time())
            body = {"from": caller(1000 + number), "text": "没有网络"}
            async with http.post(f"{daemon.url}/api/v1/tickets", json=body) as answer:
                if answer.status != 201:
                    raise LabError(f"a report was answered {answer.status}")

        began = loop.time()
        async with asyncio.TaskGroup() as tasks:
            for number in range(round(RATE * SECONDS)):
                await asyncio.sleep(max(0.0, began + number / RATE - loop.time()))
                tasks.create_task(report(number))
    return sorted(sent)


async def _bare(ours: Watched) -> Watched:
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *("setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "bench.peers.stream"),
        *(str(port), str(ours.event_bytes), str(ours.events_a_second)),
        stdin=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(READY_S):
            while not await greeting(port, ask=b"GET / HTTP/1.0\r\n\r\n", wanted=b"HTTP/"):
                await asyncio.sleep(0.1)
        async with _watchers(port, "/live") as watchers:
            before = _used(process.pid)
            await asyncio.sleep(SECONDS)
            cpu = (_used(process.pid) - before) / SECONDS
            return await _told(watchers, [], cpu, _resident(process.pid))
    finally:
        await ended(process)


@asynccontextmanager
async def _watchers(port: int, path: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Yield the program whose viewers all have had their first event."""
    process = await asyncio.create_subprocess_exec(
        *("setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "bench.watchers"),
        *(str(port), path, str(VIEWERS)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(READY_S):
            if await process.stdout.readline() != b"ready\n":
                raise LabError("the viewers were not let in")
        yield process
    finally:
        await ended(process)


async def _told(
    watchers: asyncio.subprocess.Process, changed: list[float], cpu: float, memory: float
) -> Watched:
    said, _ = await watchers.communicate(
        json.dumps({"changed": changed, "before": 0}).encode() + b"\n"
    )
    told = json.loads(said)
    if changed and told["told"] != len(changed) * VIEWERS:
        raise LabError(f"{told['told']:,} of {len(changed) * VIEWERS:,} news came")
    return Watched(
        p50=told["p50"],
        p99=told["p99"],
        bytes_a_second=told["bytes"] / SECONDS,
        event_bytes=told["bytes"] // told["events"],
        events_a_second=told["events"] / VIEWERS / SECONDS,
        cpu=cpu,
        memory_mb=memory,
    )


async def _first_views(daemon: Daemon) -> tuple[float, float]:
    """Return the median ms to the first contents of the wallboard, and of a page of one line."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS])
        await _first_view(browser, daemon.url + ONE_LINE)  # the browser's own first page
        ours = [await _first_view(browser, f"{daemon.url}/?wall") for _ in range(VIEWS)]
        bare = [await _first_view(browser, daemon.url + ONE_LINE) for _ in range(VIEWS)]
        await browser.close()
    return median(ours), median(bare)


async def _first_view(browser: Browser, url: str) -> float:
    context = await browser.new_context(viewport={"width": 1920, "height": 1080})
    page = await context.new_page()
    await page.goto(url)
    painted = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0"
    while not (at := await page.evaluate(painted)):
        await asyncio.sleep(0.02)
    await context.close()
    return float(at)


def _used(pid: int) -> float:
    """Return the seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _resident(pid: int) -> float:
    pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6
