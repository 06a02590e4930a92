"""The stored clocks of random histories: what each look left behind is what there is to see.

A ticket's journal grows as things happen, or later, when somebody learns of them. Whenever it has
grown, and whenever a look is due, the clocks are computed, what is news is written down, and the
rows are stored, as `FollowUp` does it. A reference that looks at every second is told the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from contactd.routing import promises
from contactd.routing.clocks import Breached, Fact, Kind, Metric, Targets
from contactd.routing.terms import Terms
from contactd.tickets import journal
from contactd.tickets.journal import Draft, Entry, instant_text
from contactd.tickets.priority import Priority
from tests.unit.clock_histories import (
    HISTORIES,
    LAST,
    OFTEN,
    PRIORITIES,
    SECOND,
    ZERO,
    Open,
    calendars,
    compared,
    moments,
    opens,
    second,
    tables,
    unpausable_answers,
    watched,
)

WRITTEN = {
    Kind.CONTACT_RECEIVED: "contact.added",
    Kind.ANSWERED: "answered",
    Kind.UPDATED: "updated",
    Kind.REMOTE_ASKED: "remote.asked",
    Kind.IN_SESSION: "remote.started",
    Kind.DISPATCH_OFFERED: "dispatch.offered",
    Kind.DISPATCH_ACCEPTED: "dispatch.accepted",
    Kind.DISPATCH_DECLINED: "dispatch.declined",
    Kind.DISPATCH_CANCELLED: "dispatch.cancelled",
    Kind.DISPATCH_ARRIVED: "dispatch.arrived",
    Kind.PAUSED: "held",
    Kind.RESUMED: "resumed",
    Kind.PRIORITY_CHANGED: "priority.changed",
    Kind.CONTRACT_CHANGED: "contract.changed",
    Kind.CALENDAR_CHANGED: "calendar.changed",
    Kind.RESOLVED: "resolved",
    Kind.REOPENED: "reopened",
    Kind.CLOSED: "closed",
    Kind.CANCELLED: "cancelled",
}


@dataclass(frozen=True, kw_only=True)
class Happening:
    """Something that happens at a second, and is written down `delay` seconds later."""

    kind: Kind
    at: int
    delay: int
    choice: int

    @property
    def said(self) -> dict[str, str]:
        first = self.choice % 2 == 0
        return {
            Kind.PAUSED: {"reason": "for a part" if first else "for the vendor"},
            Kind.CONTRACT_CHANGED: {"contract": "x" if first else "y"},
            Kind.CALENDAR_CHANGED: {"calendar": "a" if first else "b"},
            Kind.PRIORITY_CHANGED: {"priority": PRIORITIES[self.choice // 2].value},
        }.get(self.kind, {})

    def draft(self) -> Draft:
        at = instant_text(ZERO + self.at * SECOND)
        when = {
            Kind.CONTACT_RECEIVED: {"received_at": at, "contact": f"{self.at}"},
            Kind.ANSWERED: {"answered_at": at},
        }.get(self.kind, {"at": at})
        body = {**self.said, **when, "dispatch": 1}
        return written(WRITTEN[self.kind], self.at + self.delay, body)

    def fact(self, entry: int) -> Fact:
        said: dict[str, Any] = dict(self.said)
        if "priority" in said:
            said["priority"] = Priority(said["priority"])
        return Fact(kind=self.kind, at=ZERO + self.at * SECOND, entry=entry, **said)


def written(action: str, at: int, body: Mapping[str, Any]) -> Draft:
    return Draft(at=ZERO + at * SECOND, actor="system", action=action, state="new", body=body)


kinds = st.sampled_from([*WRITTEN, *OFTEN, *OFTEN])
delays = st.one_of(st.just(0), st.just(0), st.integers(0, 200))
stories = st.lists(
    st.builds(Happening, kind=kinds, at=moments, delay=delays, choice=st.integers(0, 3)),
    max_size=25,
)


class Desk:
    """One ticket, with its journal and what is stored of its clocks."""

    def __init__(self, terms: Terms, choice: int) -> None:
        self.terms = terms
        contract, calendar = ("x", "a") if choice % 2 == 0 else ("y", "b")
        priority = PRIORITIES[choice // 2]
        body = {"contract": contract, "calendar": calendar, "priority": priority.value}
        arrival = {"received_at": instant_text(ZERO), "contact": "first"}
        self.drafts = [written("opened", 0, {**body, **arrival})]
        opened = Fact(
            kind=Kind.OPENED,
            at=ZERO,
            entry=1,
            contract=contract,
            calendar=calendar,
            priority=priority,
        )
        self.facts = [opened, Fact(kind=Kind.CONTACT_RECEIVED, at=ZERO, entry=1)]
        self.rows: list[dict[str, Any]] = []
        self.look_at: datetime | None = None

    @property
    def journal(self) -> tuple[Entry, ...]:
        return journal.chain("26030400013", self.drafts, seq=0, prev_hash="")

    def hear(self, happening: Happening) -> None:
        self.drafts.append(happening.draft())
        self.facts.append(happening.fact(len(self.drafts)))

    def look(self, at: int) -> None:
        now = ZERO + at * SECOND
        before = self.journal
        clocks = promises.clocks(before, self.terms)
        found = promises.news(before, clocks, now)
        self.drafts += [written(each.action, at, each.body) for each in found]
        self.rows = [
            promises.clock_row(clock) for clock in promises.clocks(self.journal, self.terms)
        ]
        self.look_at = promises.next_look(clocks, before, now)

    def wait_until(self, at: int) -> None:
        """Look whenever a look is due before `at`."""
        while self.look_at is not None and second(self.look_at) < at:
            self.look(second(self.look_at))

    @property
    def recorded(self) -> list[tuple[Metric, int, datetime]]:
        return [(each.metric, each.entry, each.at) for each in promises.breaches(self.journal)]


@settings(max_examples=HISTORIES)
@given(
    story=stories,
    choice=st.integers(0, 3),
    targets=tables,
    opened=opens,
    wait=st.integers(0, 200),
)
def test_stored_clocks_are_what_looking_at_every_second_says(
    story: list[Happening], choice: int, targets: Targets, opened: Open, wait: int
) -> None:
    targets = unpausable_answers(targets)
    desk = Desk(Terms(targets=targets, calendars=calendars(opened), policies={}), choice)
    desk.look(0)
    story = sorted(story, key=lambda each: each.at + each.delay)
    for at in sorted({each.at + each.delay for each in story}):
        desk.wait_until(at)
        for each in story:
            if each.at + each.delay == at:
                desk.hear(each)
        desk.look(at)
    now = max([each.at + each.delay for each in story], default=LAST) + wait
    desk.wait_until(now)
    desk.look(now)

    clocks = promises.clocks(desk.journal, desk.terms)
    assert desk.rows == [promises.clock_row(clock) for clock in clocks]
    seen = watched(desk.facts, targets, opened, now)
    # A clock that a late fact took away is remembered only for its breach.
    compared([clock for clock in clocks if clock.segments], seen, now)
    assert all(clock.segments or clock.breached is Breached.STANDS for clock in clocks)
    broken = [
        (clock.metric, clock.entry, ZERO + clock.breached * SECOND)
        for clock in seen
        if clock.breached is not None
    ]
    if all(each.delay == 0 for each in story):
        assert sorted(desk.recorded) == sorted(broken)
    kept = {(clock.metric, clock.breached_at) for clock in clocks if clock.breached_at}
    assert {metric for metric, _, _ in desk.recorded} == {metric for metric, _ in kept}
    assert {metric for metric, _, _ in broken} <= {metric for metric, _ in kept}


@settings(max_examples=HISTORIES // 5)
@given(story=stories, choice=st.integers(0, 3), targets=tables, opened=opens)
def test_warnings_and_breaches_are_recorded_once_and_at_the_second_they_were_reached(
    story: list[Happening], choice: int, targets: Targets, opened: Open
) -> None:
    targets = unpausable_answers(targets)
    desk = Desk(Terms(targets=targets, calendars=calendars(opened), policies={}), choice)
    desk.look(0)
    for each in sorted((replace(each, delay=0) for each in story), key=lambda each: each.at):
        desk.wait_until(each.at)
        desk.hear(each)
        desk.look(each.at)
    desk.wait_until(LAST + 200)
    told = [entry for entry in desk.journal if entry.action in (promises.WARNED, promises.BREACHED)]
    known = [
        (entry.action, *(entry.body.get(key) for key in ("metric", "entry", "goal_s", "percent")))
        for entry in told
    ]
    assert len(known) == len(set(known))
    # Nothing is found late by who looks whenever a look is due, but what a shorter goal brings.
    changes = {each.at for each in story}
    for entry in told:
        assert second(entry.at) in changes or entry.body["at"] == instant_text(entry.at)
