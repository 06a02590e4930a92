"""explain: how long a ticket with a thousand journal entries takes to account for its clocks.

It was open for forty working days under a contract on a Chinese working calendar: requesters call
again, are answered, it waits for them, its priority goes up and down, engineers are sent, much is
noted that no clock cares about. `explain` is what the ticket's page and `contactd explain` do:
entries to facts, facts to clocks, each clock to its intervals. `explain_due` is what one of its
timers costs: the clocks, what there is to record, and when to look again. The bare thing checks the
journal's hashes.
"""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from datetime import time as wall
from pathlib import Path
from statistics import median
from typing import Any, Final
from zoneinfo import ZoneInfo

from bench.figures import Figure
from contactd.routing import clocks, promises
from contactd.routing.calendars import (
    ALWAYS,
    WorkingCalendar,
    read_calendar_data,
    with_holidays,
)
from contactd.routing.clocks import Metric, Target
from contactd.routing.terms import Terms
from contactd.tickets.journal import Draft, Entry, chain, instant_text, verify
from contactd.tickets.priority import Priority

HOLIDAYS: Final = Path(__file__).parents[1] / "etc" / "calendars" / "cn.toml"
ENTRIES: Final = 1_000
ROUNDS: Final = 7
OPENED: Final = datetime(2026, 9, 1, 2, tzinfo=UTC)
EVERY: Final = timedelta(minutes=57)
ZONE: Final = ZoneInfo("Asia/Shanghai")

# What happens over and over; what has no meaning for clocks is noted twice as often.
ROUND: Final[tuple[tuple[str, Mapping[str, Any]], ...]] = (
    ("contact.added", {"contact": "{seq}", "received_at": "{at}"}),
    ("commented", {"note": "…"}),
    ("notified", {"engineer": "wang", "medium": "call"}),
    ("answered", {"answered_at": "{at}", "how": "call"}),
    ("commented", {"note": "…"}),
    ("remote.asked", {}),
    ("remote.started", {}),
    ("held", {"reason": "requester"}),
    ("commented", {"note": "…"}),
    ("resumed", {}),
    ("priority.changed", {"priority": "P2"}),
    ("notified", {"engineer": "li", "medium": "call"}),
    ("dispatch.offered", {"dispatch": 1, "engineer": "li"}),
    ("dispatch.accepted", {"dispatch": 1}),
    ("dispatch.on_way", {"dispatch": 1}),
    ("dispatch.arrived", {"dispatch": 1, "proved": True}),
    ("dispatch.done", {"dispatch": 1}),
    ("updated", {"note": "…"}),
    ("priority.changed", {"priority": "P3"}),
    ("resolved", {}),
    ("reopened", {"how": "page"}),
)


def terms() -> Terms:
    office = WorkingCalendar(
        name="office",
        zone="Asia/Shanghai",
        weekly=dict.fromkeys(range(5), ((wall(9), wall(12)), (wall(13), wall(18)))),
    )
    holidays = read_calendar_data(HOLIDAYS.read_text(encoding="utf-8"))
    promised = {
        metric: Target(goal=timedelta(hours=hours), pausable=metric is not Metric.ANSWER)
        for metric, hours in zip(Metric, (1, 2, 4, 2, 8, 400), strict=True)
    }
    return Terms(
        targets={("gold.1", priority): promised for priority in Priority},
        calendars={"always": ALWAYS, "office.1": with_holidays(office, holidays)},
        policies={},
        holidays=holidays,
    )


def journal() -> tuple[Entry, ...]:
    opened = {
        "contact": "1",
        "received_at": instant_text(OPENED),
        "priority": "P3",
        "contract": "gold.1",
        "calendar": "office.1",
    }
    drafts = [Draft(at=OPENED, actor="requester", action="opened", state="new", body=opened)]
    for number in range(1, ENTRIES):
        at = OPENED + number * EVERY
        action, body = ROUND[number % len(ROUND)]
        known = {"{seq}": str(number), "{at}": instant_text(at)}
        filled = {key: known.get(str(value), value) for key, value in body.items()}
        drafts.append(
            Draft(at=at, actor="engineer:wang", action=action, state="in_progress", body=filled)
        )
    return chain("2609010001", drafts, seq=0, prev_hash="")


async def measure() -> list[Figure]:
    entries, promised = journal(), terms()
    now = entries[-1].at + EVERY
    found = promises.clocks(entries, promised)
    rows = sum(len(clocks.explain(clock, ZONE, at=now)) for clock in found)
    bare = _seconds(lambda: verify(entries))

    def explain() -> None:
        for clock in promises.clocks(entries, promised):
            clocks.explain(clock, ZONE, at=now)

    def due() -> None:
        found = promises.clocks(entries, promised)
        promises.news(entries, found, now)
        promises.next_look(found, entries, now)

    return [
        Figure(
            name="explain",
            what=f"{ENTRIES:,} journal entries explained: {len(found)} clocks, {rows} intervals;"
            " bare: their hashes checked",
            unit="ms",
            ours=_seconds(explain) * 1000,
            bare=bare * 1000,
        ),
        Figure(
            name="explain_due",
            what="a timer of that ticket: clocks, news, the next instant to look",
            unit="ms",
            ours=_seconds(due) * 1000,
            bare=bare * 1000,
        ),
    ]


def _seconds(work: Callable[[], object]) -> float:
    took = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work()
        took.append(time.perf_counter() - began)
    return median(took)
