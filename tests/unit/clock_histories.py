"""Random histories of tickets, with periods of seconds so that five minutes have many."""

import os
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from typing import Any

from hypothesis import strategies as st

from contactd.routing.calendars import ALWAYS, WorkingCalendar
from contactd.routing.clocks import (
    Calendars,
    Clock,
    Fact,
    Kind,
    Metric,
    State,
    Target,
    Targets,
    alarms,
    breach,
    spent_at,
)
from contactd.tickets.priority import Priority
from tests.unit.clock_reference import Label, Seen, watch

HISTORIES = int(os.environ.get("CONTACTD_HISTORIES", "1200"))  # of each comparison; nightly more

MINUTE = timedelta(minutes=1)

ZERO = datetime(2026, 3, 4, 1, tzinfo=UTC)  # Wednesday 09:00 in Shanghai
STEP = 20  # seconds; most things happen at a multiple, so that many happen at one instant
LAST = 300  # facts lie within these seconds
END = 700  # and the reference looks as far as this
SECOND = timedelta(seconds=1)
PRIORITIES = (Priority.P1, Priority.P3)

minutes = st.lists(st.integers(0, 40), unique=True, max_size=8).map(sorted)
periods = minutes.map(lambda edges: list(zip(edges[::2], edges[1::2], strict=False)))
moments = st.one_of(
    st.integers(0, LAST // 60).map(lambda minute: 60 * minute), st.integers(0, LAST)
)
goals = st.integers(1, 12).map(lambda minute: minute * MINUTE)
POOL = [None] * 12 + [
    Target(goal=step * STEP * SECOND, calendar=calendar, pausable=pausable)
    for step in range(1, 13)
    for calendar in ("", "always", "b")
    for pausable in (True, False)
]
rows = st.lists(st.sampled_from(POOL), min_size=len(Metric), max_size=len(Metric)).map(
    lambda drawn: {
        metric: target for metric, target in zip(Metric, drawn, strict=True) if target is not None
    }
)
tables = st.fixed_dictionaries({(c, p): rows for c in "xy" for p in PRIORITIES})


def happened(kind: Kind, at: int, choice: int) -> Fact:
    """Return a fact of which `choice` decides what it says."""
    first = choice % 2 == 0
    said: dict[str, Any] = {
        "reason": "for a part" if first else "for the vendor",
        "contract": "x" if first else "y",
        "calendar": "a" if first else "b",
        "priority": PRIORITIES[choice // 2],
    }
    keys = {
        Kind.OPENED: {"contract", "priority", "calendar"},
        Kind.PAUSED: {"reason"},
        Kind.CONTRACT_CHANGED: {"contract"},
        Kind.PRIORITY_CHANGED: {"priority"},
        Kind.CALENDAR_CHANGED: {"calendar"},
    }.get(kind, set())
    told = {key: value for key, value in said.items() if key in keys}
    return Fact(kind=kind, at=ZERO + at * SECOND, entry=0, **told)


OFTEN = [
    Kind.PAUSED,
    Kind.RESUMED,
    Kind.PRIORITY_CHANGED,
    Kind.CONTRACT_CHANGED,
    Kind.CALENDAR_CHANGED,
    Kind.REOPENED,
]
later = st.builds(happened, st.sampled_from([*Kind, *OFTEN, *OFTEN]), moments, st.integers(0, 3))
openings = st.builds(happened, st.just(Kind.OPENED), moments, st.integers(0, 3))


@st.composite
def histories(draw: st.DrawFn) -> list[Fact]:
    size = draw(st.integers(0, 25))
    facts = [draw(openings), *draw(st.lists(later, min_size=size, max_size=size))]
    entries = draw(st.permutations(range(len(facts))))
    return [replace(fact, entry=entry) for fact, entry in zip(facts, entries, strict=True)]


def unpausable_answers(targets: Targets) -> Targets:
    return {
        terms: {
            metric: replace(target, pausable=target.pausable and metric is not Metric.ANSWER)
            for metric, target in row.items()
        }
        for terms, row in targets.items()
    }


Open = dict[str, list[tuple[int, int]]]  # seconds after ZERO, by calendar
opens = st.fixed_dictionaries({"a": periods, "b": periods})


def calendars(opened: Open) -> Calendars:
    """Return them as calendars, which are open in the afternoon too: every clock is due once."""
    return {"always": ALWAYS} | {
        name: WorkingCalendar(
            name=name,
            zone="Asia/Shanghai",
            weekly=dict.fromkeys(range(7), (*map(_period, found), (time(13), time(18)))),
        )
        for name, found in opened.items()
    }


def _period(edges: tuple[int, int]) -> tuple[time, time]:
    since, until = (divmod(edge, 60) for edge in edges)
    return time(9, *since), time(9, *until)


def seconds(opened: Open) -> dict[str, list[bool]]:
    return {"always": [True] * END} | {
        name: [any(since <= n < until for since, until in found) for n in range(END)]
        for name, found in opened.items()
    }


def as_seen(clock: Clock, now: int) -> Seen:
    """Return a clock in the reference's terms."""
    labels = []
    for segment in clock.segments:
        end = second(segment.end) if segment.end else now
        label = Label(
            running=segment.running,
            reason=segment.reason,
            entry=segment.entry,
            goal=segment.goal // SECOND,
            calendar=segment.calendar.name,
        )
        labels += [label] * (end - second(segment.start))
    found = breach(clock, ZERO + now * SECOND)
    return Seen(
        metric=clock.metric,
        entry=clock.entry,
        started=second(clock.started_at),
        label=labels[-1]
        if labels
        else Label(running=True, reason="", entry=0, goal=0, calendar=""),
        labels=labels,
        stopped=second(clock.stopped_at) if clock.stopped_at else None,
        cancelled=clock.state is State.CANCELLED,
        at_now=spent_at(clock, ZERO + now * SECOND) // SECOND,
        breached=second(found.at) if found else None,
    )


def second(at: datetime) -> int:
    return (at - ZERO) // SECOND


def compared(found: Iterable[Clock], expected: list[Seen], now: int) -> None:
    """Compare clocks with what was seen of them, but for breaches."""
    found = list(found)
    assert len(found) == len(expected)
    for clock, seen in zip(found, expected, strict=True):
        mine = as_seen(clock, now)
        for name in ("metric", "entry", "started", "labels", "stopped", "at_now"):
            assert getattr(mine, name) == getattr(seen, name), name
        assert mine.cancelled == (seen.stopped is not None and seen.cancelled)
        assert (clock.stopped_by is None) == (seen.stopped_by is None)
        if clock.stopped_by is not None and seen.stopped_by is not None:
            assert clock.stopped_by == seen.stopped_by.entry
        check_due(clock, seen)


def watched(facts: Iterable[Fact], targets: Targets, opened: Open, now: int) -> list[Seen]:
    """Return what the reference sees, in the order of clocks."""
    is_open = seconds(opened)
    seen = watch(facts, targets, lambda name, n: is_open[name][n], zero=ZERO, now=now, end=END)
    return sorted(seen, key=lambda clock: (clock.started, clock.entry, clock.metric))


def check_due(clock: Clock, seen: Seen) -> None:
    if 100 in seen.reached:
        assert clock.due_at == ZERO + seen.reached[100] * SECOND
    elif clock.state is State.RUNNING:
        assert clock.due_at is not None
        assert second(clock.due_at) >= END
    elif clock.due_at is not None:  # it would have been due after it stopped
        assert clock.stopped_at is not None
        assert clock.due_at > clock.stopped_at
    for percent, at in alarms(clock):
        known = seen.reached.get(percent)
        assert second(at) == known if known is not None else second(at) >= END
