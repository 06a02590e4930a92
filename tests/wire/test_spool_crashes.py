"""Acknowledged is stored: with kill -9 at any moment, and with a disk that is full."""

import asyncio
import hashlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import pytest

from contactd.mail.spool import Receipt
from tests.fakes.smtp import peer, reader, site, smtp_settings
from tests.fakes.waiting import WITHIN_S

ROUNDS = 25
CLIENTS = 12

# A process that has all modules and the socket, and begets listeners: a new one takes 10 ms.
NURSERY = """
import asyncio, os, sys
from contactd import log
from contactd.mail import listener

orders = listener.Orders.model_validate_json(sys.stdin.buffer.readline())
log.configure(level="ERROR")
doors = listener.open_doors(orders)
files = [listener.Door(file=door.fileno(), lmtp=False) for door in doors]
number = 0
while True:
    number += 1
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        mine = orders.model_copy(update={"doors": tuple(files), "writer": f"t{number}"})
        sys.exit(asyncio.run(listener.work(mine)))
    os.write(1, b"%d\\n" % pid)
    os.waitpid(pid, 0)
"""


@dataclass(slots=True)
class Load:
    """Clients that send one mail after another, and what they were told."""

    port: int
    acknowledged: dict[str, str] = field(default_factory=dict)  # SHA-256 -> id of the spool
    broken: int = 0
    source: random.Random = field(default_factory=lambda: random.Random(4))

    async def send_for_ever(self, number: int) -> None:
        serial = 0
        while True:
            serial += 1
            size = self.source.choice([100, 3000, 3000, 30_000, 300_000])
            mail = b"X: %d-%d\r\n\r\n" % (number, serial) + b"x" * size + b"\r\n"
            try:
                async with peer(self.port) as client:
                    said = await client.mail(mail)
            except (ConnectionError, asyncio.IncompleteReadError):
                said = ""
            if said.startswith("250 "):
                self.acknowledged[hashlib.sha256(mail).hexdigest()] = said.split()[-1]
            else:
                self.broken += 1
                await asyncio.sleep(0.005)


@asynccontextmanager
async def nursery(spool: Path, port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", NURSERY,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    orders = smtp_settings(port=port).model_dump_json()[:-1] + f', "spool": "{spool}"}}\n'
    process.stdin.write(orders.encode())
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


async def _next_pid(process: asyncio.subprocess.Process) -> int:
    assert process.stdout is not None
    return int(await asyncio.wait_for(process.stdout.readline(), 20))


async def test_what_was_acknowledged_is_there_once_after_kill_9_at_random(tmp_path: Path) -> None:
    load = Load(smtp_settings().port)
    reading = reader(tmp_path / "spool")  # one that looks all the time, as the daemon's does
    found: list[Receipt] = []
    async with nursery(tmp_path / "spool", load.port) as process, asyncio.TaskGroup() as tasks:
        pid = await _next_pid(process)
        clients = [tasks.create_task(load.send_for_ever(number)) for number in range(CLIENTS)]
        for _ in range(ROUNDS):
            before = len(load.acknowledged)
            async with asyncio.timeout(WITHIN_S):
                while len(load.acknowledged) < before + 20:
                    await asyncio.sleep(load.source.random() * 0.01)
            await asyncio.sleep(load.source.random() * 0.05)
            os.kill(pid, signal.SIGKILL)
            pid = await _next_pid(process)
            found += reading.poll(100_000)
        for client in clients:
            client.cancel()
        os.kill(pid, signal.SIGKILL)
    found += reading.poll(100_000)

    assert len(load.acknowledged) >= ROUNDS * 20
    assert len({mail.id for mail in found}) == len(found)
    again = reader(tmp_path / "spool").poll(100_000)
    assert {mail.id for mail in again} == {mail.id for mail in found}
    stored = {hashlib.sha256(mail.raw()).hexdigest(): mail.id for mail in found}
    assert len(stored) == len(found)  # no client has sent anything twice
    assert {sha: stored.get(sha) for sha in load.acknowledged} == load.acknowledged

    for mail in found:
        reading.done(mail)
    assert reading.poll() == []
    assert list((tmp_path / "spool").glob("*.mail")) == []
    booked = {entry.id for day in _days(found) for entry in reading.accepted(day)}
    assert booked == {mail.id for mail in found}


def _days(mails: list[Receipt]) -> set[date]:
    return {mail.envelope.received_at.date() for mail in mails}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "contactd-test", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.fail("this test mounts a small file system: run it as root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)  # also with files open


async def test_a_full_disk_defers_mail_and_takes_it_again_when_there_is_room(
    small_disk: Path,
) -> None:
    mail = b"x" * 998 + b"\r\n"
    async with site(small_disk) as desk, peer(desk.port) as client:
        said: list[str] = []
        while not said or said[-1].startswith("250"):
            said.append(await client.mail(mail * 100))
        assert said[-1].startswith("452 4.3.1")
        kept = [line.split()[-1] for line in said[:-1]]
        assert len(kept) > 5
        assert (await client.mail(mail * 100)).startswith("452 4.3.1")
        reading = reader(desk.folder)
        found = reading.poll()
        assert [each.id for each in found] == kept  # nothing of those that were deferred

        for each in found:
            reading.done(each)
        reading.poll()
        assert (await client.mail(mail * 100)).startswith("250")
        assert reading.fault == ""


async def test_mails_that_hit_the_full_disk_together_are_all_there_or_deferred(
    small_disk: Path,
) -> None:
    async with site(small_disk) as desk, asyncio.TaskGroup() as tasks:

        async def send(number: int) -> tuple[bytes, str]:
            mail = b"X: %d\r\n" % number + b"x" * 40_000 + b"\r\n"
            async with peer(desk.port) as client:
                return mail, await client.mail(mail)

        sending = [tasks.create_task(send(number)) for number in range(40)]
        said = [await each for each in sending]
        kept = {mail for mail, reply in said if reply.startswith("250")}
        assert {reply[:9] for _, reply in said} == {"250 2.0.0", "452 4.3.1"}
        assert set(desk.raws()) == kept
