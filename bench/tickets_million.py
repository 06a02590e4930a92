"""tickets_million: ticket list, ticket page and search with 1,000,000 tickets and 50 users.

The desk of `million.py` is filled once and kept (below ~/.cache, for root below the temporary
folder: 3 GB a database), on SQLite and on PostgreSQL. contactd's whole daemon serves it; `readers`,
a process of its own, is fifty people who open a page every one to three seconds: lists with several
filters and pages deep in them, pages of tickets old and new, searches of two and three Chinese
signs, for what is rare and what is everywhere, for a number, the end of a telephone number, several
words, English. Counted is from the request to the last byte of the page. The bare thing is the same
daemon, the same users and the same kinds of pages with 1,000 tickets. Each side warms up first. A
run counts only if each search finds what it must.
"""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote

import aiohttp

from bench import million
from bench.figures import Figure, Judged, percentile
from bench.peers.programs import HOST
from contactd.lab.asterisk import LabError
from contactd.lab.daemon import Daemon, toml
from contactd.lab.ports import free_port
from tests.fakes.postgres import PostgresServer

COUNT: Final = 1_000_000
FEW: Final = 1_000
USERS: Final = 50
PAUSES: Final = (1.0, 3.0)  # s between a page and the next
WARM_UP_S: Final = 15.0
SECONDS: Final = 60.0
TARGET_MS: Final = 100
READY_S: Final = 120.0
SHOWN: Final = 20  # tickets whose pages are opened, spread over all
POSTGRESQL: Final[Mapping[str, str]] = {"shared_buffers": "1GB", "max_wal_size": "8GB"}

Kinds = dict[str, list[str]]


async def measure() -> list[Figure]:
    return [*await _figures("sqlite"), *await _figures("postgresql")]


async def _figures(database: str) -> list[Figure]:
    bare = await _times(database, FEW)
    ours = await _times(database, COUNT)
    _tell(database, ours, bare)
    return [
        Figure(
            name=f"tickets_million_{database}_{area}",
            what=f"{what}, 95th percentile, {USERS} users, {COUNT:,} tickets, {database};"
            f" bare: {FEW:,} tickets",
            unit="ms",
            ours=percentile(_of(area, ours), 95) * 1000,
            bare=percentile(_of(area, bare), 95) * 1000,
            judged=Judged.OURS if area == "search" else Judged.NOTHING,
            target=TARGET_MS if area == "search" else None,
        )
        for area, what in (
            ("search", "a search"),
            ("list", "the ticket list"),
            ("page", "a ticket's page"),
        )
    ]


def _of(area: str, times: Mapping[str, Sequence[float]]) -> list[float]:
    return [each for kind, took in times.items() if kind.startswith(area) for each in took]


def _tell(
    database: str, ours: Mapping[str, Sequence[float]], bare: Mapping[str, Sequence[float]]
) -> None:
    for kind in ours:
        told = "; ".join(
            f"{name} p50 {percentile(took, 50) * 1000:.0f} ms,"
            f" p95 {percentile(took, 95) * 1000:.0f} ms ({len(took)})"
            for name, took in ((f"{COUNT:,}", ours[kind]), (f"{FEW:,}", bare[kind]))
            if took
        )
        print(f"  tickets_million {database} {kind}: {told}", flush=True)


async def _times(database: str, count: int) -> dict[str, list[float]]:
    side = {"sqlite": _sqlite, "postgresql": _postgresql}[database]
    async with side(count) as (daemon, token), _running(daemon):
        kinds = await _kinds(daemon.url, token, count)
        await _read(daemon.url, WARM_UP_S, token, kinds)
        return await _read(daemon.url, SECONDS, token, kinds)


@asynccontextmanager
async def _running(daemon: Daemon) -> AsyncIterator[None]:
    await daemon.start(wait=False)
    try:
        await daemon.ready(READY_S)
        yield
    finally:
        await daemon.stop()


async def _read(url: str, seconds: float, token: str, kinds: Kinds) -> dict[str, list[float]]:
    """Let the users read.

    Raises:
        LabError: a page could not be had.
    """
    process = await asyncio.create_subprocess_exec(
        *("setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "bench.readers"),
        *(url, str(seconds)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    told = {"token": token, "users": USERS, "pauses": PAUSES, "pages": kinds}
    said, _ = await process.communicate(json.dumps(told).encode())
    if process.returncode != 0:
        raise LabError(f"the readers ended with {process.returncode}")
    found: dict[str, list[float]] = json.loads(said)
    return found


async def _kinds(url: str, token: str, count: int) -> Kinds:
    """Return the addresses that are opened, by kind; those of tickets and of names are asked for.

    Raises:
        LabError: a search does not find what is there.
    """
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(url, headers=headers) as http:
        newest = await _tickets(http, "state=all")
        deep, cursor = [], ""
        for _ in range(6):
            html = await _get(http, f"/desk?state=all{cursor}")
            found = re.search(r"cursor=([^\"]+)\" rel=\"next\"", html)
            if found is None:
                break
            cursor = f"&cursor={found[1]}"
            deep.append(f"/desk?state=all{cursor}")
        crowd = million.people(million._requesters(count))
        some = [crowd[n * len(crowd) // SHOWN] for n in range(SHOWN)]
        old = [million.nth(count, n * count // SHOWN + 1) for n in range(SHOWN)]
        kinds = {
            "list open": [
                "/desk", "/desk?state=open&sort=priority", "/desk?state=open&sort=waiting",
            ],
            "list filtered": [
                "/desk?state=open&site=s01", "/desk?state=open&priority=P1&assignee=e05",
                "/desk?state=open&due=breached", "/desk?state=open&vip=1",
            ],
            "list of all": [
                "/desk?state=all", "/desk?state=closed&site=s03",
                "/desk?state=all&vip=1&medium=mail", "/desk?state=cancelled&priority=P1",
            ],
            "list deep": deep or ["/desk?state=all"],
            "page of the newest": [f"/desk/tickets/{number}" for number in newest[:SHOWN]],
            "page of any": [f"/desk/tickets/{number}" for number in old],
            "search 2 signs": _search("打印", "网络", "蓝屏", "显示"),
            "search 1 sign": _search("卡", "网"),
            "search 3 signs and more": _search("打印机", "投影仪", "会议室电话", "天河分公司"),
            "search rare": _search(*million.SUPPLIERS[:SHOWN]),
            "search name": _search(*(name for name, *_ in some)),
            "search number": _search(*old),
            "search end of a phone": _search(*(number[-4:] for _, number, *_ in some)),
            "search phone": _search(*(number[3:] for _, number, *_ in some)),
            "search two words": _search("打印机 卡纸", "财务部 邮箱", "蓝屏 张伟"),
            "search English": _search("printer", "screenshot", "0x80070035", "lap"),
            "search filtered": [
                f"/desk?state=open&q={quote('打印')}", f"/desk?site=s04&q={quote('蓝屏')}",
            ],
            "search nothing": _search("没有这个词组", "zzzz"),
        }  # fmt: skip
        for kind in ("search number", "search phone", "search name"):
            for path in kinds[kind][:3]:
                if not await _tickets(http, path.partition("?")[2]):
                    raise LabError(f"{kind}: {unquote(path)} finds nothing")
        if len(await _tickets(http, f"q={quote('打印')}")) < 50:
            raise LabError("a word that is everywhere is not found")
    return kinds


def _search(*words: str) -> list[str]:
    return [f"/desk?q={quote(each)}" for each in words]


async def _tickets(http: aiohttp.ClientSession, query: str) -> list[str]:
    html = await _get(http, f"/desk?{query}")
    return re.findall(r'href="/desk/tickets/(\d+)" data-row', html)


async def _get(http: aiohttp.ClientSession, path: str) -> str:
    async with http.get(path) as answer:
        if answer.status != 200:
            raise LabError(f"{path}: {answer.status}")
        return await answer.text()


@asynccontextmanager
async def _sqlite(count: int) -> AsyncIterator[tuple[Daemon, str]]:
    path = await asyncio.to_thread(million.fill_sqlite, count)
    token = await million.prepared(f"sqlite:///{path}", count)
    yield _daemon(million.folder(count) / "sqlite", {}), token


@asynccontextmanager
async def _postgresql(count: int) -> AsyncIterator[tuple[Daemon, str]]:
    folder = million.folder(count) / "postgresql"
    folder.mkdir(exist_ok=True)
    server = PostgresServer(folder, settings=POSTGRESQL)
    server.start()
    try:
        url = await million.fill_postgresql(server, count)
        token = await million.prepared(url, count)
        home = million.folder(count) / "home"
        home.mkdir(exist_ok=True)
        yield _daemon(home, {"database": {"url": url}}), token
    finally:
        server.stop()


def _daemon(folder: Path, settings: Mapping[str, Mapping[str, Any]]) -> Daemon:
    port = free_port()
    config = folder / "contactd.toml"
    document: dict[str, Mapping[str, Any]] = {
        "service": {"data_dir": str(folder / "data"), "log_json": False, "log_level": "WARNING"},
        "http": {"host": HOST, "port": port},
        "agi": {"host": HOST, "port": free_port()},
        **settings,
    }
    config.write_text(toml(document), encoding="utf-8")
    return Daemon(config=config, log=folder / "log", url=f"http://{HOST}:{port}")
