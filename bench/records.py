"""replay: how long contactd takes to file what it missed, for 100,000 rows of CEL.

The rows are those of real calls (`tests/transcripts/cel-22-calls.csv`: answered, abandoned,
voicemail, passed on, transferred, two tiers), repeated with other times, ids and callers, and
overlapping as calls do. They are read from the disk and filed into a new SQLite database, batch by
batch, each with its fsync. The bare thing is `csv.reader` over the same file.
"""

import csv
import re
import tempfile
import time
from datetime import timedelta
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

from bench.figures import Figure, Judged
from contactd import log
from contactd.clock import SystemClock
from contactd.store import cursors
from contactd.store.engine import Database, upgrade
from contactd.telephony.ledger import hotline_calls
from contactd.telephony.replay import PbxFiles, PbxRecords
from contactd.tickets.model import TicketPolicy
from contactd.tickets.service import TicketService

TRANSCRIPTS: Final = Path(__file__).parents[1] / "tests" / "transcripts"
ROWS: Final = 100_000
EVERY_S: Final = 20  # the transcript takes 150 s, so about eight of them overlap
ROUNDS: Final = 3
ZONE: Final = "Asia/Shanghai"

_TIME: Final = re.compile(r"^\"?(\d{10})")
_ID: Final = re.compile(r"\bpbx1-(\d+)\.(\d+)")
_CHANNEL: Final = re.compile(r"-([0-9a-f]{8})(?=[\";|])")
_BRIDGE: Final = re.compile(r"([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-)[0-9a-f]{12}")
_CALLER: Final = re.compile(r"\b139\d{8}\b")


def write(folder: Path) -> tuple[Path, Path]:
    """Write cel.csv and queue_log into `folder`; return them."""
    rows = _lines(TRANSCRIPTS / "cel-22-calls.csv")
    lines = [line for line in _lines(TRANSCRIPTS / "queue_log-22-calls.txt") if "|pbx1-" in line]
    times = -(-ROWS // len(rows))
    began = int(_TIME.findall(rows[0])[0])
    shift = int(time.time()) - 3600 - times * EVERY_S - began
    written: list[str] = []
    queue: list[str] = []
    for number in range(times):
        written += (_moved(row, number, shift + number * EVERY_S) for row in rows)
        queue += (_moved(line, number, shift + number * EVERY_S) for line in lines)
    cel, queue_log = folder / "cel.csv", folder / "queue_log"
    cel.write_text("\n".join(sorted(written, key=_at)[:ROWS]) + "\n", encoding="utf-8")
    queue_log.write_text("\n".join(sorted(queue, key=_second)) + "\n", encoding="utf-8")
    return cel, queue_log


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line[0] != "#"]


def _at(row: str) -> str:
    return row[:20]


def _second(line: str) -> str:
    return line[:10]


def _moved(line: str, number: int, shift: int) -> str:
    """Return the line as of another call, so many seconds later."""
    line = _TIME.sub(lambda found: found[0].replace(found[1], str(int(found[1]) + shift)), line)
    line = _ID.sub(
        lambda found: f"pbx1-{int(found[1]) + shift}.{int(found[2]) + number * 1000}", line
    )
    line = _CHANNEL.sub(lambda found: f"-{int(found[1], 16) + number * 4096:08x}", line)
    line = _BRIDGE.sub(lambda found: f"{found[1]}{number:012x}", line)
    return _CALLER.sub(f"139{number:08}", line)


async def measure() -> list[Figure]:
    log.configure(level="ERROR", json=True)
    with tempfile.TemporaryDirectory(prefix="contactd-bench-") as name:
        folder = Path(name)
        cel, queue_log = write(folder)
        bare, ours = [], []
        for number in range(ROUNDS):
            bare.append(_read(cel))
            ours.append(await _replay(folder / f"{number}.sqlite3", cel, queue_log))
    return [
        Figure(
            name="replay",
            what=f"{ROWS:,} CEL rows read, understood and filed; bare: csv.reader",
            unit="s",
            ours=median(ours),
            bare=median(bare),
            judged=Judged.OURS,
            target=30,
        )
    ]


def _read(cel: Path) -> float:
    began = time.perf_counter()
    with cel.open(encoding="utf-8", newline="") as file:
        count = sum(1 for _ in csv.reader(file))
    if count != ROWS:
        raise RuntimeError(f"{count} rows instead of {ROWS}")
    return time.perf_counter() - began


async def _replay(path: Path, cel: Path, queue_log: Path) -> float:
    """Return the seconds until all of it is filed.

    Raises:
        RuntimeError: a call was lost or came twice.
    """
    url = f"sqlite:///{path}"
    await upgrade(url)
    clock = SystemClock()
    database = Database(url, clock=clock)
    policy = TicketPolicy(
        zone=ZONE,
        language="zh",
        join_within=timedelta(0),  # a ticket a call
        default_queue="desk",
    )
    async with database.running():
        records = PbxRecords(
            PbxFiles(name="pbx1", cel_path=cel, queue_log_path=queue_log),
            load_cursor=partial(cursors.position, database),
            replay=TicketService(database.new_work, clock, policy).replay,
            clock=clock,
        )
        began = time.perf_counter()
        looked = await records.look()
        seconds = time.perf_counter() - began
    today = clock.now().date()
    calls: set[str] = set()
    for day in range(-2, 2):
        found = await hotline_calls(
            cel, day=today + timedelta(days=day), zone=ZONE, hotline_contexts=("hotline",)
        )
        calls |= found.keys()
    # The file ends in the middle of some calls: those are not filed yet, or as unfinished.
    filed = sum(one.new_contact for one in looked.filed)
    if looked.rows != ROWS or looked.bad_rows or not 0 <= len(calls) - filed <= looked.unfinished:
        raise RuntimeError(f"{looked.rows} rows, {len(calls)} calls, {filed} filed")
    return seconds
