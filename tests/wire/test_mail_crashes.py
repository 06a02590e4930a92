"""Whatever of the mail intake is killed: what was acknowledged has its ticket, each once."""

import asyncio
import os
import random
import signal
import smtplib
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

from contactd.lab.daemon import Daemon
from tests.fakes.waiting import eventually
from tests.wire.test_mail_service import SUPPORT, Desk, desk

ROUNDS: Final = 20
SENDERS: Final = 4


def children(daemon: Daemon, module: str) -> list[int]:
    """Return the daemon's child processes that run a module."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue  # it ended meanwhile
        if parent == daemon.pid and module.encode() in words:
            found.append(int(path.name))
    return found


async def keep_sending(here: Desk, name: str, stop: asyncio.Event, kept: set[str]) -> None:
    """Send one mail after the other; a mail that is not acknowledged is sent again."""
    count = 0
    while not stop.is_set():
        count += 1
        message_id = f"<{name}.{count}@load.test>"
        raw = (
            f"From: {name}@load.test\r\nTo: {SUPPORT}\r\nSubject: {name} {count}\r\n"
            f"Message-ID: {message_id}\r\n\r\nhello\r\n"
        ).encode()
        while not stop.is_set():
            try:
                await here.send(raw, sender=f"{name}@load.test")
            except (smtplib.SMTPException, OSError):
                await asyncio.sleep(0.05)
            else:
                kept.add(message_id)
                await asyncio.sleep(0.2)  # twenty a second from all of them
                break


@pytest.mark.timeout(300)
async def test_what_was_acknowledged_is_a_ticket_once_whatever_was_killed(tmp_path: Path) -> None:
    seed = int(os.environ.get("CONTACTD_CHAOS_SEED") or random.SystemRandom().randrange(10**6))
    print(f"CONTACTD_CHAOS_SEED={seed}")  # noqa: T201 - to run it again
    chance, kept, stop = random.Random(seed), set[str](), asyncio.Event()
    async with desk(tmp_path, parsers=1) as here:
        async with asyncio.TaskGroup() as senders:
            for number in range(SENDERS):
                senders.create_task(keep_sending(here, f"s{number}", stop, kept))
            for round_ in range(ROUNDS):
                await asyncio.sleep(chance.uniform(0.1, 0.8))
                await kill_something(here.daemon, chance, round_)
            await asyncio.sleep(1)
            stop.set()
        assert len(kept) > ROUNDS

        async def all_there() -> bool:
            return kept <= (await filed(here)).keys()

        await eventually(all_there, within_s=60, every_s=1)
        assert [each for each, count in (await filed(here)).items() if count > 1] == []
        assert "balanced" in await here.daemon.run("ledger")


async def kill_something(daemon: Daemon, chance: random.Random, round_: int) -> None:
    """Kill everything each fourth time, else what takes mail or what reads it."""
    if round_ % 4 == 3:
        await daemon.kill()
        await daemon.start()
        return
    module = chance.choice(["contactd.mail.listener", "contactd.mail.worker"])
    for pid in children(daemon, module):
        os.kill(pid, signal.SIGKILL)


async def filed(here: Desk) -> Counter[str]:
    """Return how many contacts there are of each mail."""
    found: Counter[str] = Counter()
    cursor = ""
    while True:
        page = await here.api(f"/contacts?medium=mail&limit=200{cursor}")
        found.update(each["mail"]["message_id"] for each in page["items"])
        if page["next"] is None:
            return found
        cursor = f"&cursor={page['next']}"
