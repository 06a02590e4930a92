"""Nothing is lost: calls in a storm of kills, freezes, cut links and PBX restarts.

Afterwards the PBX's own CEL, read here with none of contactd's code, is held against the contacts.
Reproduce a run with CONTACTD_CHAOS_SEED (which is printed); CONTACTD_CHAOS_CALLS is the number of
calls, CONTACTD_CHAOS_SEEDS how many storms there are one after the other, CONTACTD_CHAOS_KEEP=1
leaves the files behind.
"""

import asyncio
import csv
import json
import os
import random
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import pytest

from contactd.lab.desk import DID, DeskLab, open_desk
from contactd.lab.network import Leg
from contactd.tickets.journal import Entry, verify
from tests.fakes.cable import HOST, Cable
from tests.fakes.storm import Storm, Trouble
from tests.fakes.waiting import WITHIN_S

CALLS: Final = int(os.environ.get("CONTACTD_CHAOS_CALLS", "200"))
SEEDS: Final = int(os.environ.get("CONTACTD_CHAOS_SEEDS", "1"))
KEEP: Final = os.environ.get("CONTACTD_CHAOS_KEEP", "") == "1"

RING_WITHIN_S: Final = 3.0
AT_ONCE: Final = 12  # callers
GAP_S: Final = 0.65  # between two callers, on average
CATCH_UP_S: Final = 60.0  # from the last call's end until all is filed; 2 s are usual

pytestmark = [pytest.mark.real, pytest.mark.timeout(240 + 2 * CALLS)]


# The desk: four branches with two engineers each, of whom one picks up at once. In zq nobody does.

FLOOR: Final = "13800010090"
TAKES: Final = "w0.3-a-w0.5-d1-w3-d1-w600"  # the second 1 is for a first one that was not heard
TAKES_LATER: Final = "w2.5-a-w0.5-d1-w3-d1-w600"
PASSES: Final = "w0.3-a-w0.5-d2-w600"
NEVER_ANSWERS: Final = "n"
PHONES: Final[Mapping[str, Mapping[str, str]]] = {
    "gz": {"13800010001": TAKES, "13800010002": TAKES_LATER},
    "sz": {"13800010011": TAKES, "13800010012": TAKES_LATER},
    "fs": {"13800010021": PASSES, "13800010022": TAKES_LATER},
    "zq": {"13800010031": NEVER_ANSWERS},
}
DESK_QUEUE: Final = "desk"  # where everybody is, and all callers while contactd is dead
LANDLINES: Final = {"gz": "0203888", "sz": "07552888", "fs": "07578666", "zq": "0758288"}
AREA_CODES: Final = {"gz": "20", "sz": "755", "fs": "757", "zq": "758"}
VIP: Final = "13900010001"


def desk_file(folder: Path) -> Path:
    """Write a rota in which everybody is on duty, in tier 1, day and night."""
    text = "".join(
        f'[[sites]]\nkey = "{key}"\nname_zh = "{key}"\nname_en = "{key}"\n'
        f'zone = "Asia/Shanghai"\nfloor = "{FLOOR}"\narea_code = "{AREA_CODES[key]}"\n'
        for key in PHONES
    )
    for key, phones in PHONES.items():
        for place, number in enumerate(phones):
            text += f'[[engineers]]\nkey = "{key}{place}"\nname = "{key}{place}"\n'
            text += f'number = "{number}"\n'
            text += f'[[shifts]]\nsite = "{key}"\ntier = 1\nengineer = "{key}{place}"\n'
            text += 'start = "00:00"\nend = "00:00"\n'
    text += '[[people]]\nkey = "boss"\nname = "Boss"\nsite = "gz"\nvip = true\n'
    text += f'numbers = ["{VIP}"]\n'
    path = folder / "desk.toml"
    path.write_text(text, encoding="utf-8")
    return path


# In this lab a second number is answered as GREETING=no would have it, so that INVITE to ring can
# be measured while callers of the first one hang up in greeting and menu. Nothing else differs.

QUICK_DID: Final = "4008005678"
SHIPPED: Final = " same => n,Set(CONTACTD_DID=${EXTEN})\n"
OURS: Final = f' same => n,ExecIf($["${{EXTEN}}" = "{QUICK_DID}"]?Set(GREETING=no))\n'


async def give_a_quick_number(desk: DeskLab) -> None:
    path = desk.pbx.path("/etc/asterisk/contactd.conf")
    text = path.read_text(encoding="utf-8")
    assert text.count(SHIPPED) == 1
    path.write_text(text.replace(SHIPPED, SHIPPED + OURS), encoding="utf-8")
    await desk.pbx.cli("dialplan reload")


# The callers


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One call: `script` runs from the hotline's answer on; `patience_s`: hangs up before that."""

    name: str
    kind: str
    caller: str
    did: str
    script: str
    patience_s: float | None = None


@dataclass(slots=True, kw_only=True)
class Placed:
    plan: Plan
    leg: Leg

    @property
    def at(self) -> float:
        return self.leg.started_at.timestamp()


def plans(chance: random.Random, count: int) -> Iterator[Plan]:
    """Yield calls of all kinds; who calls may have called before, have no number, or be a VIP."""
    known = [VIP]
    kinds: Mapping[str, int] = {
        "answered": 30, "gives up in the queue": 18, "gives up before the answer": 8,
        "hangs up in the greeting": 14, "hangs up in the menu": 8, "keys 0": 10, "keys 1": 4,
        "leaves a message": 8,
    }  # fmt: skip
    # The notice takes 4.4 s and cannot be skipped; keys are heard from the greeting on.
    scripts: Mapping[str, Callable[[], tuple[str, str]]] = {
        "answered": lambda: (QUICK_DID, f"w{chance.uniform(4, 8):.2f}-h"),
        "gives up in the queue": lambda: (QUICK_DID, f"w{chance.uniform(0.05, 3):.2f}-h"),
        "gives up before the answer": lambda: (chance.choice((DID, QUICK_DID)), "w5-h"),
        "hangs up in the greeting": lambda: (DID, f"w{chance.uniform(0.05, 7):.2f}-h"),
        "hangs up in the menu": lambda: (DID, f"w5.5-d9-w{chance.uniform(0.1, 4):.2f}-h"),
        "keys 0": lambda: (DID, f"w5.5-d0-w{chance.uniform(4, 8):.2f}-h"),
        "keys 1": lambda: (DID, f"w5.5-d1-w{chance.uniform(4, 9):.2f}-h"),
        "leaves a message": lambda: (QUICK_DID, f"w{chance.uniform(19, 20):.2f}-p2-w0.3-h"),
    }
    for number in range(count):
        kind = chance.choices(list(kinds), list(kinds.values()))[0]
        did, script = scripts[kind]()
        caller = LANDLINES["zq"] if kind == "leaves a message" else _somebody(chance)
        if caller and caller != VIP:
            caller += f"{chance.randrange(10**4):04}"
        if known and caller and kind != "leaves a message" and chance.random() < 0.35:
            caller = chance.choice(known)
        elif caller and caller not in known:
            known.append(caller)
        yield Plan(
            name=f"Call {number:03}",
            kind=kind,
            caller=caller,
            did=did,
            script=script,
            patience_s=chance.uniform(0, 0.9) if kind == "gives up before the answer" else None,
        )


def _somebody(chance: random.Random) -> str:
    """Return the beginning of a number: a branch's, a mobile's, the VIP's, or none at all."""
    kinds = [*(LANDLINES[site] for site in ("gz", "sz", "fs")), "1391234", VIP, ""]
    return chance.choices(kinds, [22, 22, 22, 16, 8, 10])[0]


async def call(desk: DeskLab, plan: Plan, placed: list[Placed], free: asyncio.Semaphore) -> None:
    async with free:
        leg = await desk.network.call(
            caller=plan.caller, did=plan.did, script=plan.script, name=plan.name, ring_s=15
        )
        placed.append(Placed(plan=plan, leg=leg))
        if plan.patience_s is not None:
            await asyncio.sleep(plan.patience_s)
            await leg.hangup()
        await leg.ended(60)


# What the PBX wrote, read without contactd's code

COLUMNS: Final = (
    "at", "event", "userevent", "uniqueid", "linkedid", "channel", "context", "exten", "num",
    "name", "ani", "rdnis", "dnid", "app", "appdata", "peer", "extra",
)  # fmt: skip
ROW: Final = re.compile(r'"\d{9,11}\.\d{6}","[A-Z_]+","')

Row = Mapping[str, str]


@dataclass(slots=True, kw_only=True)
class CelCall:
    """One call to the hotline as CEL has it."""

    id: str
    rows: list[Row] = field(default_factory=list)

    def first(self, **values: str) -> Row | None:
        wanted = values.items()
        return next((row for row in self.rows if all(row[k] == v for k, v in wanted)), None)

    def at(self, **values: str) -> float | None:
        row = self.first(**values)
        return None if row is None else float(row["at"])

    def said(self, userevent: str, text: str) -> float | None:
        return self.at(
            userevent=userevent, extra=json.dumps({"extra": text}, separators=(",", ":"))
        )

    @property
    def number(self) -> str:
        return next((row["num"] for row in self.rows if row["num"]), "")

    @property
    def name(self) -> str:
        return next((row["name"] for row in self.rows if row["name"]), "")

    @property
    def queue(self) -> str:
        row = self.first(event="APP_START", app="Queue")
        return row["appdata"].partition(",")[0] if row else ""

    def __str__(self) -> str:
        start = float(self.rows[0]["at"])
        steps = (
            f"{float(row['at']) - start:7.3f} {row['event']} {row['userevent']} {row['app']} "
            f"{row['appdata'] if row['app'] == 'Queue' else ''} {row['extra']}"
            for row in self.rows
        )
        return f"{self.id} ({self.name}, began {start:.3f})\n  " + "\n  ".join(steps)


def hotline_calls_in_cel(path: Path) -> dict[str, CelCall]:
    """Return the hotline's calls by id. A killed PBX may have left half a row: that is skipped."""
    channels: dict[str, CelCall] = {}
    calls: dict[str, CelCall] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        starts = [found.start() for found in ROW.finditer(line)]
        fields = next(csv.reader([line[starts[-1] :]])) if starts else []
        if len(fields) != len(COLUMNS):
            continue
        row = dict(zip(COLUMNS, fields, strict=True))
        channel = channels.setdefault(row["uniqueid"], CelCall(id=row["uniqueid"]))
        channel.rows.append(row)
        came_in = row["event"] == "CHAN_START" and row["context"] == "hotline"
        if (came_in and row["exten"] not in ("", "s")) or row["userevent"] == "HOTLINE":
            calls[channel.id] = channel
    return calls


# What contactd has filed, read from its database as it is


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    contacts: Sequence[Mapping[str, Any]]
    tickets: Sequence[Mapping[str, Any]]
    journal: Mapping[int, Sequence[Mapping[str, Any]]]  # by ticket id
    parked: Sequence[Mapping[str, Any]]

    @classmethod
    def read(cls, path: Path) -> "Book":
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            database.row_factory = sqlite3.Row

            def rows(statement: str) -> list[dict[str, Any]]:
                return [dict(row) for row in database.execute(statement)]

            journal: dict[int, list[dict[str, Any]]] = {}
            for entry in rows("SELECT * FROM journal ORDER BY ticket_id, seq"):
                journal.setdefault(entry["ticket_id"], []).append(entry)
            return cls(
                contacts=rows("SELECT * FROM contacts WHERE medium = 'call'"),
                tickets=rows("SELECT * FROM tickets"),
                journal=journal,
                parked=rows("SELECT kind, error FROM outbox WHERE parked_at IS NOT NULL"),
            )


async def caught_up(desk: DeskLab) -> None:
    """Wait until every call in CEL has its final facts; what is missing then is found later."""
    deadline = time.monotonic() + CATCH_UP_S
    while time.monotonic() < deadline:
        wanted = set(hotline_calls_in_cel(desk.pbx.cel_path))
        book = Book.read(desk.folder / "data" / "contactd.sqlite3")
        if wanted <= {row["external_id"] for row in book.contacts if row["call_final"]}:
            return
        await asyncio.sleep(0.2)


# What has to be true


def filing_problems(calls: Mapping[str, CelCall], book: Book) -> Iterator[str]:
    """Yield what is lost, double, or invented."""
    times = Counter(row["external_id"] for row in book.contacts)
    yield from (f"lost: {call}" for call in calls.values() if call.id not in times)
    yield from (f"filed {n} times: {calls.get(i)}" for i, n in times.items() if n > 1)
    yield from (f"invented: contact {i}" for i in times if i not in calls)

    tickets = {row["id"]: row for row in book.tickets}
    of_contacts = {row["ticket_id"] for row in book.contacts}
    yield from (f"invented: ticket {tickets[i]['number']}" for i in tickets.keys() - of_contacts)
    yield from (f"lost: ticket {i} of a contact" for i in of_contacts - tickets.keys())
    for contact in book.contacts:
        call = calls.get(contact["external_id"])
        if call is not None and not contact["call_final"]:
            yield f"never finished: {call}"
        elif call is not None:
            yield from outcome_problems(call, contact)
    yield from doubled_tickets(calls, book)


def outcome_problems(call: CelCall, contact: Mapping[str, Any]) -> Iterator[str]:
    """Yield whether who answered is not who talked: bridges tell, but for calls that a PBX lost."""
    if call.at(event="HANGUP") is None:
        if contact["outcome"] != "pbx_lost":
            yield f"cut by the PBX, and filed as {contact['outcome']}: {call}"
    elif (contact["outcome"] == "answered") != (call.at(event="BRIDGE_ENTER") is not None):
        yield f"filed as {contact['outcome']}: {call}"
    if (contact["from_value"], contact["from_name"]) != (call.number, call.name):
        yield f"filed as from {contact['from_value']} {contact['from_name']}: {call}"


def doubled_tickets(calls: Mapping[str, CelCall], book: Book) -> Iterator[str]:
    """Yield callers with too many tickets: who calls again joins, but for key 1, a new fault."""
    by_number: dict[str, set[int]] = {}
    allowed: Counter[str] = Counter()
    for contact in book.contacts:
        call = calls.get(contact["external_id"])
        if call is not None:
            # Without a number each call is a caller of its own.
            number = call.number if call.number.isdecimal() else call.id
            by_number.setdefault(number, set()).add(contact["ticket_id"])
            allowed[number] += call.said("KEY", "1") is not None
    for number, tickets in by_number.items():
        if len(tickets) > 1 + allowed[number]:
            yield f"{number} has {len(tickets)} tickets"


def journal_problems(book: Book) -> Iterator[str]:
    for ticket in book.tickets:
        entries = [
            Entry(
                ticket=ticket["number"],
                seq=row["seq"],
                at=datetime.fromisoformat(row["at"]),
                actor=row["actor"],
                action=row["action"],
                state=row["state"],
                body=json.loads(row["body"]),
                prev_hash=row["prev_hash"],
                hash=row["hash"],
            )
            for row in book.journal.get(ticket["id"], ())
        ]
        if broken := verify(entries, last_hash=ticket["journal_hash"]):
            yield f"journal of {ticket['number']}: {broken}"
        opened = sum(entry.action == "opened" for entry in entries)
        if opened != 1:
            yield f"ticket {ticket['number']} was opened {opened} times"


def day_of(call: CelCall) -> str:
    """Return the day of the ledger to which a call belongs."""
    return f"{datetime.fromtimestamp(float(call.rows[0]['at']), ZoneInfo('Asia/Shanghai')):%F}"


# Who rang, and when


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A call that waited for an engineer; instants are epoch seconds.

    It begins with the caller's INVITE if there is no greeting, else when the dialplan notes that
    the caller is in the queue; it ends with the first ring, or when the caller left the queue.
    """

    call: CelCall
    placed_at: float
    began: float
    ended: float
    rang: bool


def offers(placed: Iterable[Placed], calls: Iterable[CelCall], rings: Sequence[Leg]) -> list[Offer]:
    """Return the calls that came as far as the queue; not those which the PBX lost there."""
    by_name = {one.plan.name: one for one in placed}
    found = []
    for call in calls:
        own = by_name[call.name]
        joined_at = call.said("STAGE", "queue")
        if joined_at is None:
            continue
        began = own.at if own.plan.did == QUICK_DID else joined_at
        rang_at = min((_epoch(ring.at) for ring in rings if ring.name == call.name), default=None)
        ends = (rang_at, call.said("STAGE", "voicemail"), call.at(event="HANGUP"))
        ended = next((at for at in ends if at is not None), None)
        if ended is not None:
            found.append(
                Offer(call=call, placed_at=own.at, began=began, ended=ended, rang=bool(rang_at))
            )
    return found


def waited_in_vain_s(offer: Offer, rings: Sequence[Leg]) -> float:
    """Return the longest time for which the caller waited although an engineer had nobody else."""
    queue = offer.call.queue
    people = [n for site, phones in PHONES.items() if queue in (site, DESK_QUEUE) for n in phones]
    longest = 0.0
    for number in people:
        free_from = offer.began
        for ring in sorted(rings, key=lambda ring: ring.at):
            if ring.number == number and ring.name != offer.call.name:
                longest = max(longest, min(_epoch(ring.at), offer.ended) - free_from)
                free_from = max(free_from, _epoch(ring.ended_at or datetime.now(UTC)))
        longest = max(longest, offer.ended - free_from)
    return longest


def late_rings(found: Sequence[Offer], storm: Storm, rings: Sequence[Leg]) -> tuple[int, list[str]]:
    """Return how many calls without contactd were measured, and which engineers came too late for.

    They were placed while it was dead or frozen, and the PBX was up all the time that counts.
    """
    measured, late = 0, []
    for offer in found:
        moment = (offer.placed_at, offer.placed_at)
        without = storm.during(Trouble.DEAD, Trouble.FROZEN, between=moment)
        if not without or storm.during(Trouble.NO_PBX, between=(offer.placed_at, offer.ended)):
            continue
        if not offer.rang and offer.ended - offer.began <= RING_WITHIN_S:
            continue  # the caller gave up before
        measured += 1
        waited_s = waited_in_vain_s(offer, rings)
        if waited_s > RING_WITHIN_S:
            late.append(f"{waited_s:.2f} s beside a free engineer ({without}): {offer.call}")
    return measured, late


def _epoch(instant: datetime) -> float:
    return instant.timestamp()


# The story


@pytest.mark.parametrize("storm", range(SEEDS))
async def test_every_call_in_a_storm_is_one_contact_with_one_ticket_and_rings_an_engineer(
    storm: int, tmp_path: Path
) -> None:
    seed = int(os.environ.get("CONTACTD_CHAOS_SEED") or random.SystemRandom().randrange(10**6))
    seed += storm
    print(f"CONTACTD_CHAOS_SEED={seed}")  # noqa: T201 - to run it again
    async with (
        Cable.laid() as cable,
        open_desk(
            desk_file=desk_file(tmp_path),
            options={"QUEUE_WAIT": "6", "FLOOR": FLOOR},
            default_script=NEVER_ANSWERS,
            settings={
                "pbx": {
                    "host": HOST, "port": cable.port,
                    "ping_interval_s": 1, "liveness_s": 3, "reconnect_max_s": 2,
                },
            },
            start=False,
            keep=KEEP,
        ) as desk,
    ):  # fmt: skip
        cable.target = (desk.pbx.host, desk.pbx.ami_port)
        await give_a_quick_number(desk)
        for phones in PHONES.values():
            for number, script in phones.items():
                await desk.network.phone(number, script)
        await desk.daemon.start()
        await members_are_kept(desk)
        if KEEP:
            print(f"kept: {desk.folder}, {desk.pbx.files_root}")  # noqa: T201
        await in_a_storm(desk, cable, seed)


async def members_are_kept(desk: DeskLab) -> None:
    """Wait until Asterisk has the queues' members on disk (it writes once a second)."""
    path = desk.pbx.path("/var/lib/asterisk/astdb.sqlite3")
    query = "SELECT value FROM astdb WHERE key = '/Queue/PersistentMembers/desk'"
    wanted = {number for phones in PHONES.values() for number in phones} | {FLOOR}
    async with asyncio.timeout(WITHIN_S):
        while True:
            with closing(sqlite3.connect(path)) as database:
                kept = "".join(value for (value,) in database.execute(query))
            if all(f"Local/86{number}@" in kept for number in wanted):
                return
            await asyncio.sleep(0.1)


async def in_a_storm(desk: DeskLab, cable: Cable, seed: int) -> None:
    chance = random.Random(seed)
    storm = Storm(desk, cable, random.Random(chance.random()))
    placed: list[Placed] = []
    began = time.monotonic()
    over = asyncio.Event()
    async with asyncio.TaskGroup() as weather:
        weather.create_task(storm.rage(over))
        free = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as callers:
            for plan in plans(chance, CALLS):
                callers.create_task(call(desk, plan, placed, free))
                await asyncio.sleep(chance.expovariate(1 / GAP_S))
        over.set()
    stormy_s = time.monotonic() - began
    await caught_up(desk)
    calm_s = time.monotonic() - began - stormy_s

    calls = hotline_calls_in_cel(desk.pbx.cel_path)
    book = Book.read(desk.folder / "data" / "contactd.sqlite3")
    found = offers(placed, calls.values(), desk.network.rings)
    measured, late = late_rings(found, storm, desk.network.rings)
    print(  # noqa: T201 - what the storm was worth
        f"{stormy_s:.0f} s of storm, {calm_s:.1f} s to catch up: {dict(Counter(storm.done))}\n"
        f"{len(placed)} calls placed, {len(calls)} in CEL, {len(book.contacts)} contacts "
        f"({sum(row['source'] == 'replay' for row in book.contacts)} repaired), "
        f"{len(book.tickets)} tickets, {dict(Counter(row['outcome'] for row in book.contacts))}\n"
        f"{measured} calls measured with contactd dead or frozen, {len(late)} late"
    )
    problems = [
        *filing_problems(calls, book),
        *journal_problems(book),
        *(f"parked: {row['kind']} {row['error']}" for row in book.parked),
        *late,
    ]
    assert not problems, "\n".join((f"CONTACTD_CHAOS_SEED={seed}", *problems))
    for day, count in Counter(day_of(call) for call in calls.values()).items():
        ledger = await desk.daemon.run("ledger", "--day", day)
        assert f"call: {count} in the PBX's CEL, {count} contacts" in ledger
        assert "balanced" in ledger
    log = desk.daemon.log.read_text(encoding="utf-8")
    assert "Traceback" not in log, log[log.index("Traceback") - 500 :][:4000]
    if CALLS >= 100:  # else the storm was too short to prove anything
        assert measured >= CALLS // 20
        assert any(row["source"] == "replay" for row in book.contacts)
