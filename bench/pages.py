"""pages: from the instant at which a step of an escalation is due to the ring of a phone, at five a
second.

As many tickets as sites are reported in the portal, `RATE` a second; their policy tells tier 1
`AFTER_S` later, so that every timer is known before the first is due. Each engineer's phone rings,
answers and presses 1, which takes the ticket. Counted is from the timer's `due_at` to the INVITE
that arrives at the phone. The bare thing is one AMI `Originate` to that phone on the same PBX, as
often, from being sent to the INVITE. So many calls to people are under way at a time that
`page_channels` is not the default here: a page that is taken lasts for about `LASTS_S`.
"""

import asyncio
import sqlite3
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from bench.figures import Figure, Judged, percentile
from bench.hotline import on_duty
from bench.site import append, caller, desk_file, engineer, queues
from contactd.lab.desk import DeskLab, open_desk
from contactd.lab.network import Manager

RATE: Final = 5.0  # a second
SITES: Final = 150
AFTER_S: Final = 60
SETTLE_S: Final = 10.0  # by then all have their timers, and none is due
LASTS_S: Final = 8.0
WITHIN_S: Final = 30.0  # rings that come later than this do not come
TAKES: Final = "w0.5-a-w1-d1-w15"
POLICY: Final = f"""
[[policies]]
key = "later"
steps = [{{ after = "{AFTER_S}s", tell = "tier 1" }}]

[[rules]]
policy = "later"
"""


async def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="contactd-bench-") as name:
        path = desk_file(Path(name) / "desk.toml", SITES)
        path.write_text(path.read_text(encoding="utf-8") + POLICY, encoding="utf-8")
        async with open_desk(
            desk_file=path,
            default_script=TAKES,
            settings={"pbx": {"page_channels": round(2 * RATE * LASTS_S)}},
            start=False,
        ) as desk:
            append(desk.pbx, "contactd_queues.conf", queues(SITES))
            await desk.pbx.restart()
            bare = await _bare(desk)
            await desk.daemon.start()
            await on_duty(desk, SITES)
            ours = await _ours(desk)
    return [
        Figure(
            name=name,
            what=what,
            unit="ms",
            ours=percentile(ours, percent) * 1000,
            bare=percentile(bare, percent) * 1000,
            judged=Judged.OURS,
            target=target,
        )
        for name, percent, target, what in (
            ("pages_p50", 50, None, "a step is due to the phone's ring, median; bare: `Originate`"),
            ("pages_p99", 99, 2000, "the same, 99th percentile"),
        )
    ]


async def _bare(desk: DeskLab) -> list[float]:
    """Return the seconds from `Originate` to each engineer's ring."""
    sent = {}
    async with _manager(desk) as manager, asyncio.TaskGroup() as tasks:
        async for site in _evenly():
            sent[engineer(site)] = datetime.now(UTC)
            tasks.create_task(
                manager.action(
                    ("Action", "Originate"),
                    ("Channel", f"Local/86{engineer(site)}@contactd-call/n"),
                    ("Application", "Wait"),
                    ("Data", "1"),
                    ("Async", "true"),
                )
            )
    return await _rings(desk, sent)


@asynccontextmanager
async def _manager(desk: DeskLab) -> AsyncIterator[Manager]:
    manager = Manager(lambda _event: None, lambda: None)
    loop = asyncio.get_running_loop()
    await loop.create_connection(lambda: manager, desk.pbx.host, desk.pbx.ami_port)
    try:
        await manager.action(
            ("Action", "Login"), ("Username", "contactd"), ("Secret", desk.pbx.ami_secret)
        )
        yield manager
    finally:
        manager.close()


async def _ours(desk: DeskLab) -> list[float]:
    """Return the seconds from each step's `due_at` to its engineer's ring."""
    made = await desk.daemon.run("token", "create", "--name", "bench", "--role", "admin")
    token = made.strip()
    async with asyncio.TaskGroup() as tasks:
        async for site in _evenly():
            body = {"from": caller(site), "text": "没有网络"}
            tasks.create_task(desk.daemon.post("/api/v1/tickets", body, token=token))
    await asyncio.sleep(SETTLE_S)
    due = _steps(desk)
    if len(due) != SITES:
        raise RuntimeError(f"{SITES} tickets, {len(due)} steps are still to come")
    await asyncio.sleep((max(due.values()) - datetime.now(UTC)).total_seconds())
    rang = await _rings(desk, due)
    await asyncio.sleep(2 * LASTS_S)
    taken = _taken(desk)
    if taken != SITES:
        raise RuntimeError(f"{SITES} tickets, {taken} taken")
    return rang


async def _evenly() -> AsyncIterator[int]:
    """Yield each site, `RATE` a second."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    for site in range(SITES):
        await asyncio.sleep(began + site / RATE - loop.time())
        yield site


async def _rings(desk: DeskLab, since: dict[str, datetime]) -> list[float]:
    """Wait until every phone has rung once more; return how long after `since` each did."""
    loop = asyncio.get_running_loop()
    until = loop.time() + WITHIN_S
    took = []
    for number, at in since.items():
        ring = await desk.network.wait_ring(number, until - loop.time())
        took.append((ring.started_at - at).total_seconds())
    return took


def _database(desk: DeskLab) -> sqlite3.Connection:
    path = desk.folder / "data" / "contactd.sqlite3"
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True)


def _steps(desk: DeskLab) -> dict[str, datetime]:
    """Return when the first step of each ticket is due, by the number of the site's engineer."""
    with _database(desk) as database:
        found = database.execute(
            "SELECT tickets.site, outbox.due_at FROM outbox"
            " JOIN tickets ON tickets.id = json_extract(outbox.body, '$.ticket_id')"
            " WHERE outbox.kind = 'EscalationDue'"
            " AND json_extract(outbox.body, '$.timer') = 'step'"
        )
        return {engineer(int(site[1:])): datetime.fromisoformat(at) for site, at in found}


def _taken(desk: DeskLab) -> int:
    with _database(desk) as database:
        sql = "SELECT count(*) FROM tickets WHERE state = 'in_progress'"
        (count,) = database.execute(sql).fetchone()
    return int(count)
