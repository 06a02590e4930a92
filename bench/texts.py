"""texts_webhooks: signed texts a second that are contacts before their 200, beside a bare handler.

A generator (`webhooks.py`, a process of its own) posts the same texts over 32 connections to
contactd's whole daemon and to an aiohttp handler (`peers/webhook.py`) that checks the same
signature and writes one row with its fsync. A text becomes a contact, and opens a ticket or joins
one (each number sends three), with its journal, the requester and all that follows: Twilio's API is
out of reach, so that confirmations are tried and put off while texts come in. The sides take turns,
`ROUNDS` each, on new databases, and which goes first alternates too; the figure is the median. A
round counts only if each text was answered with 200 and is in the database once.
"""

import asyncio
import json
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench.figures import Figure, Judged
from bench.peers.programs import HOST, ended, greeting
from bench.webhooks import ACCOUNT, OURS, PUBLIC_URL, TOKEN
from contactd.lab.asterisk import LabError
from contactd.lab.daemon import Daemon, running, toml
from contactd.lab.ports import free_port

ROUNDS: Final = 3
WARM_UP: Final = 300
TEXTS: Final = 3_000
TARGET: Final = 0.6
READY_S: Final = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """Somebody who takes texts: `port`, and how many it has."""

    name: str
    port: int
    count: Callable[[], int]


async def webhooks() -> list[Figure]:
    ours: list[float] = []
    bare: list[float] = []
    turns = [(_contactd, ours), (_bare, bare)]
    for number in range(ROUNDS):
        for side, rates in turns if number % 2 == 0 else reversed(turns):
            rates.append(await _round(side))
    return [
        Figure(
            name="texts_webhooks",
            what="signed texts taken, each a contact; bare: aiohttp, signature checked, one INSERT",
            unit="texts/s",
            ours=median(ours),
            bare=median(bare),
            judged=Judged.RATIO,
            target=TARGET,
        )
    ]


async def _round(begin: Callable[[Path], Any]) -> float:
    async with AsyncExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="bench-texts-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        return await _rate(await stack.enter_async_context(begin(folder)))


async def _rate(side: Side) -> float:
    """Return how many texts a second were accepted.

    Raises:
        LabError: one was not, or is not there afterwards.
    """
    process = await asyncio.create_subprocess_exec(
        *("setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "bench.webhooks"),
        *(str(side.port), str(WARM_UP), str(TEXTS)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    if process.returncode != 0:
        raise LabError(f"{side.name}: the generator ended with {process.returncode}")
    told = json.loads(said)
    statuses, kept = told["then"]["statuses"], side.count()
    rate = TEXTS / float(told["then"]["seconds"])
    print(
        f"  texts_webhooks {side.name}: {rate:.0f} texts/s, {kept:,} of {WARM_UP + TEXTS:,} kept;"
        f" the generator worked {told['then']['worked_s'] / told['then']['seconds']:.0%}",
        flush=True,
    )
    if statuses != {"200": TEXTS} or kept != WARM_UP + TEXTS:
        raise LabError(f"{side.name} answered {statuses} and has {kept:,} texts")
    return rate


@asynccontextmanager
async def _contactd(folder: Path) -> AsyncIterator[Side]:
    daemon = configured(folder, "twilio", twilio())
    async with running(daemon):
        port = int(daemon.url.rpartition(":")[2])
        yield Side(name="contactd", port=port, count=lambda: contacts(folder))


@asynccontextmanager
async def _bare(folder: Path) -> AsyncIterator[Side]:
    port, path = free_port(), folder / "texts.sqlite3"
    process = await asyncio.create_subprocess_exec(
        *("setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "bench.peers.webhook"),
        *(str(port), str(path)),
        stdin=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(READY_S):
            while not await greeting(port, ask=b"GET / HTTP/1.0\r\n\r\n", wanted=b"HTTP/"):
                await asyncio.sleep(0.1)
        yield Side(
            name="bare", port=port, count=lambda: _counted(path, "SELECT count(*) FROM texts")
        )
    except TimeoutError:
        raise LabError("the bare handler does not answer") from None
    finally:
        await ended(process)


def configured(
    folder: Path, gateway: str = "", settings: Mapping[str, Any] | None = None
) -> Daemon:
    """Return a daemon on `folder` with one site, and with one gateway for texts or none."""
    http_port = free_port()
    config = folder / "contactd.toml"
    desk_file = folder / "desk.toml"
    desk_file.write_text(
        '[[sites]]\nkey = "gz"\nname_zh = "广州"\nname_en = "Guangzhou"\nfloor = "138 0001 9999"\n',
        encoding="utf-8",
    )
    document: dict[str, Mapping[str, Any]] = {
        "service": {"data_dir": str(folder / "data"), "log_json": False, "log_level": "WARNING"},
        "database": {"desk_file": str(desk_file)},
        "http": {"host": HOST, "port": http_port, "public_url": PUBLIC_URL},
        "agi": {"host": HOST, "port": free_port()},
    }
    if gateway:
        document |= {"sms": {"gateways": [gateway]}, f"sms.{gateway}": settings or {}}
    config.write_text(toml(document), encoding="utf-8")
    return Daemon(config=config, log=folder / "log", url=f"http://{HOST}:{http_port}")


def twilio() -> dict[str, Any]:
    """Return the settings of a gateway whose provider is out of reach."""
    return {
        "account_sid": ACCOUNT,
        "auth_token": TOKEN,
        "sender": OURS,
        "api_url": f"http://{HOST}:{free_port()}",
    }


def contacts(folder: Path) -> int:
    """Return how many texts a daemon on `folder` has filed; one that came twice counts twice."""
    query = "SELECT count(*) FROM contacts WHERE medium = 'text'"
    return _counted(folder / "data" / "contactd.sqlite3", query)


def _counted(path: Path, query: str) -> int:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        (number,) = database.execute(query).fetchone()
        return int(number)
