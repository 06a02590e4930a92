"""ring and filing: what contactd adds before an engineer's phone rings, at five calls a second.

Each call is hung up as soon as the phone rings. Calls come in blocks, bare and ours in turn, so
that whatever else the machine does falls on both. Both ends of a call are stamped by the public
network's Asterisk (its AMI's microseconds): its INVITE leaving, and the PBX's INVITE to the phone
arriving. Filing is stamped by the PBX itself: from the call's CHAN_START in CEL to the row that it
writes once contactd has said "ok", which is after the commit.
"""

import asyncio
import csv
import sqlite3
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.figures import Figure, Judged, percentile
from bench.site import append, caller, desk_file, engineer, queues
from contactd.lab.desk import DID, DeskLab, open_desk
from contactd.lab.network import Leg

RATE: Final = 5.0  # calls a second
BLOCK: Final = 50  # calls
ROUNDS: Final = 4  # blocks of each kind
WARM_UP: Final = 10  # calls of each kind that do not count
SITES: Final = 10  # a site's engineer has two seconds between two calls
RING_WITHIN_S: Final = 5.0
BARE_DID: Final = "4009999999"

# The carrier's calls to BARE_DID, told apart before there is a channel, so that nothing of the
# hotline touches them; and one queue a site, whose member is the engineer's mobile itself.
_BARE_ENDPOINT: Final = f"""
[bare]
type=endpoint
transport=transport-udp
context=bare
disallow=all
allow=alaw,ulaw
direct_media=no
trust_id_inbound=yes
aors=trunk

[bare]
type=identify
endpoint=bare
match_request_uri=/^sip:{BARE_DID}@/
"""
_BARE_DIALPLAN: Final = f"""
[bare]
exten => {BARE_DID},1,Queue(bare-${{CALLERID(num):-3}})
"""


@dataclass(slots=True, kw_only=True)
class Measured:
    """Seconds, call by call."""

    ours: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)
    filed: list[float] = field(default_factory=list)
    committed: list[float] = field(default_factory=list)  # one INSERT and its fsync


async def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="contactd-bench-") as name:
        folder = Path(name)
        async with open_desk(
            desk_file=desk_file(folder / "desk.toml", SITES),
            options={"GREETING": "no"},
            settings={"tickets": {"join_within_s": 0}},  # a ticket a call
            start=False,
        ) as desk:
            await _prepare(desk)
            measured = Measured()
            await _block(desk, WARM_UP, BARE_DID)
            await _block(desk, WARM_UP, DID)
            for _ in range(ROUNDS):
                inserts = asyncio.to_thread(_inserts, folder / "bare.sqlite3")
                bare, committed = await asyncio.gather(_block(desk, BLOCK, BARE_DID), inserts)
                measured.bare += bare
                measured.committed += committed
                measured.ours += await _block(desk, BLOCK, DID)
            measured.filed = _filed(desk)[WARM_UP:]
            _check(desk, measured)
    return _figures(measured)


async def _prepare(desk: DeskLab) -> None:
    """Fit the PBX with the bare queues, start contactd, wait until the engineers are on duty."""
    members = "".join(
        f"\n[bare-{site:03}]\nstrategy=ringall\nringinuse=yes\njoinempty=yes\n"
        f"member => PJSIP/{engineer(site)}@trunk,0,bare-{site:03},PJSIP/bare\n"
        for site in range(SITES)
    )
    append(desk.pbx, "contactd_queues.conf", queues(SITES) + members)
    append(desk.pbx, "pjsip.conf", _BARE_ENDPOINT)
    append(desk.pbx, "extensions.conf", _BARE_DIALPLAN)
    config = desk.pbx.path("/etc/asterisk/pjsip.conf")
    text = config.read_text(encoding="utf-8")
    order = "endpoint_identifier_order="
    config.write_text(text.replace(order, f"{order}request_uri,"), encoding="utf-8")
    await desk.pbx.restart()
    await desk.daemon.start()
    await on_duty(desk, SITES)


async def on_duty(desk: DeskLab, sites: int, within_s: float = 30.0) -> None:
    """Return once every site's engineer is a member of the site's queue, and of the desk's."""
    async with asyncio.timeout(within_s):
        while True:
            shown = await desk.pbx.cli("queue show")
            if all(shown.count(f"Local/86{engineer(site)}@") == 2 for site in range(sites)):
                return
            await asyncio.sleep(0.1)


async def _block(desk: DeskLab, calls: int, did: str) -> list[float]:
    """Place `calls` calls, evenly; return the seconds from each one's INVITE to its ring."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.TaskGroup() as tasks:
        placed = []
        for number in range(calls):
            await asyncio.sleep(began + number / RATE - loop.time())
            placed.append(tasks.create_task(_call(desk, number % SITES, did)))
    return [task.result() for task in placed]


async def _call(desk: DeskLab, site: int, did: str) -> float:
    call = await desk.network.call(caller=caller(site), did=did, script="w20")
    ring = await desk.network.wait_ring(engineer(site), RING_WITHIN_S, caller=caller(site))
    await call.hangup()
    await call.ended(RING_WITHIN_S)
    await ring.ended(RING_WITHIN_S)
    return _seconds(call, ring)


def _seconds(call: Leg, ring: Leg) -> float:
    return (ring.started_at - call.started_at).total_seconds()


def _inserts(path: Path) -> list[float]:
    """Commit one row at a time, as many and as often as calls come; return the seconds of each."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("CREATE TABLE IF NOT EXISTS calls (id TEXT PRIMARY KEY, caller TEXT)")
    seconds = []
    for number in range(BLOCK):
        began = time.perf_counter()
        database.execute("INSERT INTO calls VALUES (?, ?)", (f"{time.time()}", caller(number)))
        seconds.append(time.perf_counter() - began)
        time.sleep(1 / RATE)
    database.close()
    return seconds


def _filed(desk: DeskLab) -> list[float]:
    """Return for each hotline call, in order, how long after its start its ticket was committed."""
    started: dict[str, float] = {}
    filed: list[float] = []
    with desk.pbx.cel_path.open(encoding="utf-8", newline="") as file:
        for row in csv.reader(file):
            at, event, name, uniqueid, context, exten = *row[:4], row[6], row[7]
            if event == "CHAN_START" and context == "hotline" and exten == DID:
                started[uniqueid] = float(at)
            elif name == "CONTACTD" and row[14] == "CONTACTD,ok":
                filed.append(float(at) - started[uniqueid])
    return filed


def _check(desk: DeskLab, measured: Measured) -> None:
    """Make sure that the figures are of what they say.

    Raises:
        RuntimeError: a call was not filed, or the bare ones were.
    """
    expected = ROUNDS * BLOCK
    path = desk.folder / "data" / "contactd.sqlite3"
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
        (tickets,) = database.execute("SELECT count(*) FROM tickets").fetchone()
    if len(measured.filed) != expected or tickets != expected + WARM_UP:
        raise RuntimeError(f"{expected} calls, {len(measured.filed)} filed, {tickets} tickets")


def _figures(measured: Measured) -> list[Figure]:
    ours = [seconds * 1000 for seconds in measured.ours]
    bare = [seconds * 1000 for seconds in measured.bare]
    filed = [seconds * 1000 for seconds in measured.filed]
    committed = [seconds * 1000 for seconds in measured.committed]
    return [
        Figure(
            name="ring_p50",
            what="INVITE to the engineer's ring, median; bare: `Queue()` on the same PBX",
            unit="ms",
            ours=percentile(ours, 50),
            bare=percentile(bare, 50),
            judged=Judged.ADDED,
            target=15,
        ),
        Figure(
            name="ring_p99",
            what="the same, 99th percentile",
            unit="ms",
            ours=percentile(ours, 99),
            bare=percentile(bare, 99),
            judged=Judged.ADDED,
            target=40,
        ),
        Figure(
            name="filing_p50",
            what="call's start to its ticket committed, median; bare: one INSERT with fsync",
            unit="ms",
            ours=percentile(filed, 50),
            bare=percentile(committed, 50),
        ),
        Figure(
            name="filing_p99",
            what="the same, 99th percentile",
            unit="ms",
            ours=percentile(filed, 99),
            bare=percentile(committed, 99),
            judged=Judged.OURS,
            target=300,
        ),
    ]
