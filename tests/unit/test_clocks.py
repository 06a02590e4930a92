"""Clocks against worked examples and against a reference that looks at every second."""

import os
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contactd.routing.calendars import ALWAYS, WorkingCalendar, between
from contactd.routing.clocks import (
    RULES,
    Breach,
    Breached,
    Calendars,
    Clock,
    Fact,
    Kind,
    Metric,
    Row,
    State,
    Target,
    Targets,
    alarms,
    breach,
    explain,
    problems,
    recompute,
    spent_at,
)
from contactd.tickets.priority import Priority
from tests.unit.clock_reference import Label, Seen, watch

EXAMPLES = int(os.environ.get("CONTACTD_EXAMPLES", "250"))

SHANGHAI = ZoneInfo("Asia/Shanghai")
OFFICE = ((time(9), time(12)), (time(13), time(18)))
DESK = WorkingCalendar(
    name="广州",
    zone="Asia/Shanghai",
    weekly=dict.fromkeys(range(5), OFFICE),
    days={
        date(2026, 2, 14): OFFICE,  # a make-up day
        **{date(2026, 2, day): () for day in range(15, 24)},
    },
    confirmed_through=date(2026, 12, 31),
)
NIGHT = WorkingCalendar(
    name="night", zone="Asia/Shanghai", weekly=dict.fromkeys(range(7), ((time(20), time(0)),))
)
CALENDARS: Calendars = {"always": ALWAYS, "gz": DESK, "night": NIGHT}

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
TARGETS: Targets = {
    ("gold", Priority.P1): {
        Metric.ANSWER: Target(goal=30 * MINUTE, calendar="always"),
        Metric.FIRST_UPDATE: Target(goal=HOUR, calendar="always"),
        Metric.REMOTE: Target(goal=2 * HOUR, calendar="always", pausable=True),
        Metric.OFFER: Target(goal=15 * MINUTE, calendar="always"),
        Metric.ARRIVAL: Target(goal=4 * HOUR, calendar="always", pausable=True),
        Metric.RESOLUTION: Target(goal=4 * HOUR, pausable=True),
    },
    ("gold", Priority.P3): {
        Metric.ANSWER: Target(goal=30 * MINUTE, calendar="always"),
        Metric.REMOTE: Target(goal=2 * HOUR, calendar="always", pausable=True),
        Metric.RESOLUTION: Target(goal=8 * HOUR, pausable=True),
    },
    ("none", Priority.P3): {},
}


def local(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=SHANGHAI)


def history(*lines: str, first: int = 1) -> list[Fact]:
    """Return facts, one a line: day and time in Shanghai, kind, and what the kind needs."""
    return [_fact(line, entry) for entry, line in enumerate(lines, first)]


def _fact(line: str, entry: int) -> Fact:
    day, clock, kind, *values = line.split(maxsplit=3)
    value = values[0] if values else ""
    told: dict[str, Any] = {}
    match kind:
        case "opened":
            told = {"contract": "gold", "priority": Priority(value or "P1"), "calendar": "gz"}
        case "paused":
            told = {"reason": value}
        case "priority_changed":
            told = {"priority": Priority(value) if value else None}
        case "contract_changed" | "calendar_changed":
            told = {kind.removesuffix("_changed"): value}
        case _:
            pass
    return Fact(kind=Kind(kind), at=local(f"2026-{day} {clock}"), entry=entry, **told)


def clocks(facts: Iterable[Fact], metric: Metric, breaches: Iterable[Breach] = ()) -> list[Clock]:
    found = recompute(facts, TARGETS, CALENDARS, breaches)
    return [clock for clock in found if clock.metric is metric]


def only(facts: Iterable[Fact], metric: Metric, breaches: Iterable[Breach] = ()) -> Clock:
    (clock,) = clocks(facts, metric, breaches)
    return clock


def shown(at: datetime | None) -> str:
    return at.astimezone(SHANGHAI).strftime("%m-%d %H:%M") if at else ""


def lines(clock: Clock, at: str) -> list[str]:
    return [_line(row) for row in explain(clock, SHANGHAI, at=local(f"2026-{at}"))]


def _line(row: Row) -> str:
    state = "running" if row.running else "paused"
    until = f"{row.until:%m-%d %H:%M}" if row.until else "…"
    return (
        f"{row.since:%m-%d %H:%M}–{until} {state} {row.reason} [{row.entry}] "
        f"{row.worked / MINUTE:g}/{row.total / MINUTE:g} of {row.goal / MINUTE:g} ({row.calendar})"
    )


# What starts and stops which clock


def test_a_contact_is_promised_an_answer_by_a_person() -> None:
    facts = history("03-04 09:00 opened", "03-04 09:00 contact_received")
    clock = only(facts, Metric.ANSWER)
    assert (clock.state, clock.entry, shown(clock.due_at)) == (State.RUNNING, 2, "03-04 09:30")
    assert (clock.stopped_at, clock.breached, clock.goal) == (None, Breached.NO, 30 * MINUTE)

    facts += history("03-04 09:12 answered", first=3)
    clock = only(facts, Metric.ANSWER)
    assert (clock.state, shown(clock.stopped_at), clock.stopped_by) == (
        State.STOPPED, "03-04 09:12", 3,
    )  # fmt: skip
    assert clock.spent == 12 * MINUTE
    assert (shown(clock.due_at), clock.breached) == ("03-04 09:30", Breached.NO)


def test_a_contact_after_an_answer_is_promised_one_too_but_not_one_while_somebody_waits() -> None:
    facts = history(
        "03-04 09:00 opened",
        "03-04 09:00 contact_received",
        "03-04 09:05 contact_received",
        "03-04 09:10 answered",
        "03-04 11:00 contact_received",
    )
    assert [(clock.entry, clock.state) for clock in clocks(facts, Metric.ANSWER)] == [
        (2, State.STOPPED),
        (5, State.RUNNING),
    ]


def test_the_answer_is_never_paused_whatever_the_rest_does() -> None:
    facts = history(
        "03-04 09:00 opened", "03-04 09:00 contact_received", "03-04 09:01 paused for the requester"
    )
    assert only(facts, Metric.ANSWER).state is State.RUNNING
    assert only(facts, Metric.RESOLUTION).state is State.PAUSED


def test_offering_a_dispatch_to_the_next_person_does_not_start_its_clock_again() -> None:
    facts = history(
        "03-04 09:00 opened",
        "03-04 10:00 dispatch_offered",
        "03-04 10:10 dispatch_declined",
        "03-04 10:11 dispatch_offered",
        "03-04 10:16 dispatch_accepted",
    )
    offer = only(facts, Metric.OFFER)
    assert (shown(offer.started_at), shown(offer.stopped_at)) == ("03-04 10:00", "03-04 10:16")
    assert (offer.breached, shown(offer.breached_at)) == (Breached.FOUND, "03-04 10:15")
    assert shown(only(facts, Metric.ARRIVAL).due_at) == "03-04 14:16"


def test_who_accepted_and_then_declines_leaves_the_arrival_promised() -> None:
    facts = history(
        "03-04 09:00 opened",
        "03-04 10:00 dispatch_offered",
        "03-04 10:10 dispatch_accepted",
        "03-04 11:00 dispatch_declined",
        "03-04 11:05 dispatch_accepted",
        "03-04 13:30 dispatch_arrived",
    )
    assert [shown(clock.started_at) for clock in clocks(facts, Metric.OFFER)] == [
        "03-04 10:00",
        "03-04 11:00",
    ]
    arrival = only(facts, Metric.ARRIVAL)
    assert (shown(arrival.started_at), arrival.spent) == ("03-04 10:10", 200 * MINUTE)


def test_resolving_stops_what_is_promised_but_not_the_answer_nobody_gave() -> None:
    facts = history(
        "03-04 09:00 opened",
        "03-04 09:00 contact_received",
        "03-04 09:05 remote_asked",
        "03-04 09:20 resolved",
    )
    states = {clock.metric: clock.state for clock in recompute(facts, TARGETS, CALENDARS)}
    assert states == {
        Metric.FIRST_UPDATE: State.STOPPED,
        Metric.RESOLUTION: State.STOPPED,
        Metric.ANSWER: State.RUNNING,
        Metric.REMOTE: State.CANCELLED,
    }


def test_cancelling_the_ticket_cancels_every_clock_and_hides_no_breach() -> None:
    facts = history("03-04 09:00 opened", "03-04 09:00 contact_received", "03-04 09:45 cancelled")
    found = recompute(facts, TARGETS, CALENDARS)
    assert {clock.state for clock in found} == {State.CANCELLED}
    answer = only(facts, Metric.ANSWER)
    assert (answer.breached, shown(answer.breached_at)) == (Breached.FOUND, "03-04 09:30")


def test_a_reopened_ticket_goes_on_with_the_time_it_has_left() -> None:
    facts = history(
        "03-04 09:00 opened", "03-04 11:00 resolved", "03-05 09:00 reopened", "03-05 09:30 closed"
    )
    clock = only(facts, Metric.RESOLUTION)
    assert lines(clock, "03-06 09:00") == [
        "03-04 09:00–03-04 11:00 running opened [1] 120/120 of 240 (广州)",
        "03-04 11:00–03-05 09:00 paused resolved [2] 0/120 of 240 (广州)",
        "03-05 09:00–03-05 09:30 running reopened [3] 30/150 of 240 (广州)",
    ]
    assert (clock.state, clock.stopped_by) == (State.STOPPED, 4)
    assert shown(only(facts[:3], Metric.RESOLUTION).due_at) == "03-05 11:00"


def test_resolving_and_reopening_each_end_a_pause() -> None:
    facts = history(
        "03-04 09:00 opened",
        "03-04 10:00 paused for a part",
        "03-04 10:10 resolved",
        "03-04 10:20 remote_asked",
        "03-04 10:30 paused for a part",
        "03-04 10:40 reopened",
    )
    assert lines(only(facts, Metric.REMOTE), "03-04 11:00") == [
        "03-04 10:20–03-04 10:30 running remote_asked [4] 10/10 of 120 (always)",
        "03-04 10:30–03-04 10:40 paused for a part [5] 0/10 of 120 (always)",
        "03-04 10:40–… running reopened [6] 20/30 of 120 (always)",
    ]
    assert only(facts, Metric.RESOLUTION).segments[-1].running


def test_reopening_a_ticket_without_the_clock_starts_it() -> None:
    facts = history(
        "03-04 09:00 opened", "03-04 09:00 contract_changed none", "03-04 11:00 resolved"
    )
    facts[1] = replace(facts[1], at=local("2026-03-04 08:00"), priority=Priority.P3)
    assert clocks(facts, Metric.RESOLUTION) == []
    facts += [replace(_fact("03-04 12:00 contract_changed gold", 4), priority=Priority.P1)]
    assert clocks(facts, Metric.RESOLUTION) == []
    facts += history("03-04 14:00 reopened", first=5)
    assert shown(only(facts, Metric.RESOLUTION).started_at) == "03-04 14:00"


def test_every_kind_of_fact_has_a_rule_and_every_metric_starts_and_stops() -> None:
    assert set(RULES) == set(Kind)
    for metric in Metric:
        assert any(metric in rule.starts for rule in RULES.values())
        assert any(metric in rule.stops for rule in RULES.values())
        assert metric in RULES[Kind.CANCELLED].cancels
    assert all(Metric.ANSWER not in rule.pauses for rule in RULES.values())


# Working time and pauses


def test_time_runs_on_working_days_make_up_days_included() -> None:
    facts = history("02-14 17:30 opened P1", "02-14 17:40 paused for a part", "02-24 10:00 resumed")
    clock = only(facts[:1], Metric.RESOLUTION)
    assert shown(clock.due_at) == "02-24 13:30"
    paused = only(facts[:2], Metric.RESOLUTION)
    assert (paused.state, paused.due_at, paused.spent) == (State.PAUSED, None, 10 * MINUTE)
    resumed = only(facts, Metric.RESOLUTION)
    assert shown(resumed.due_at) == "02-24 14:50"
    assert lines(resumed, "02-24 11:00") == [
        "02-14 17:30–02-14 17:40 running opened [1] 10/10 of 240 (广州)",
        "02-14 17:40–02-24 10:00 paused for a part [2] 0/10 of 240 (广州)",
        "02-24 10:00–… running resumed [3] 60/70 of 240 (广州)",
    ]
    assert spent_at(resumed, local("2026-02-24 11:00")) == 70 * MINUTE
    assert spent_at(resumed, resumed.segments[-1].start) == 10 * MINUTE


def test_a_pause_for_another_reason_is_another_interval() -> None:
    facts = history(
        "03-04 09:00 opened", "03-04 10:00 paused for a part", "03-04 11:00 paused for the vendor"
    )
    assert lines(only(facts, Metric.RESOLUTION), "03-04 12:00")[1:] == [
        "03-04 10:00–03-04 11:00 paused for a part [2] 0/60 of 240 (广州)",
        "03-04 11:00–… paused for the vendor [3] 0/60 of 240 (广州)",
    ]


def test_a_clock_that_starts_while_the_ticket_is_paused_waits_with_it() -> None:
    facts = history(
        "03-04 09:00 opened",
        "03-04 10:00 paused for the requester",
        "03-04 10:30 remote_asked",
        "03-04 11:00 resumed",
    )
    assert lines(only(facts, Metric.REMOTE), "03-04 12:00") == [
        "03-04 10:30–03-04 11:00 paused for the requester [2] 0/0 of 120 (always)",
        "03-04 11:00–… running resumed [4] 60/60 of 120 (always)",
    ]


def test_what_happens_at_one_instant_leaves_no_empty_interval() -> None:
    facts = history(
        "03-04 09:00 opened",
        "03-04 10:00 paused for a part",
        "03-04 10:00 resumed",
        "03-04 10:30 remote_asked",
        "03-04 10:30 in_session",
    )
    resolution = only(facts, Metric.RESOLUTION)
    assert [segment.running for segment in resolution.segments] == [True, True]
    remote = only(facts, Metric.REMOTE)
    assert [(segment.start, segment.end) for segment in remote.segments] == [
        (remote.started_at, remote.stopped_at)
    ]
    assert (remote.spent, remote.state) == (timedelta(), State.STOPPED)


def test_a_due_date_beyond_the_confirmed_calendar_is_provisional() -> None:
    assert not only(history("12-31 09:00 opened"), Metric.RESOLUTION).provisional
    clock = only(history("12-31 17:00 opened"), Metric.RESOLUTION)
    assert clock.provisional


# Changes of the target


def test_a_higher_priority_keeps_what_is_spent() -> None:
    facts = history("03-04 09:00 opened P3", "03-04 11:00 priority_changed P1")
    clock = only(facts, Metric.RESOLUTION)
    assert shown(clock.due_at) == "03-04 14:00"
    assert lines(clock, "03-04 13:30") == [
        "03-04 09:00–03-04 11:00 running opened [1] 120/120 of 480 (广州)",
        "03-04 11:00–… running priority_changed [2] 90/210 of 240 (广州)",
    ]


def test_a_goal_below_what_is_spent_is_breached_at_the_change() -> None:
    facts = history("03-04 09:00 opened P3", "03-04 15:00 priority_changed P1")
    clock = only(facts, Metric.RESOLUTION)
    assert (clock.breached, shown(clock.breached_at)) == (Breached.FOUND, "03-04 15:00")
    assert shown(clock.due_at) == "03-04 15:00"


def test_a_longer_goal_does_not_heal_a_breach() -> None:
    facts = history("03-04 09:00 opened P1", "03-04 15:00 priority_changed P3")
    clock = only(facts, Metric.RESOLUTION)
    assert (clock.breached, shown(clock.breached_at)) == (Breached.FOUND, "03-04 14:00")
    assert shown(clock.due_at) == "03-04 18:00"


def test_a_change_that_was_learned_late_counts_from_when_it_happened() -> None:
    facts = history("03-04 09:00 opened P3", "03-04 15:00 paused for a part")
    late = history("03-04 10:00 priority_changed P1", first=3)
    clock = only(facts + late, Metric.RESOLUTION)
    assert (clock.breached, shown(clock.breached_at)) == (Breached.FOUND, "03-04 14:00")


def test_a_change_during_a_pause_ends_nothing_but_shows() -> None:
    facts = history(
        "03-04 09:00 opened P3", "03-04 10:00 paused for a part", "03-04 10:30 priority_changed P1"
    )
    clock = only(facts, Metric.RESOLUTION)
    assert (clock.state, clock.due_at) == (State.PAUSED, None)
    assert lines(clock, "03-04 12:00")[1:] == [
        "03-04 10:00–03-04 10:30 paused for a part [2] 0/60 of 480 (广州)",
        "03-04 10:30–… paused for a part [2] 0/60 of 240 (广州)",
    ]


def test_each_interval_is_counted_by_the_calendar_that_applied() -> None:
    facts = history(
        "03-04 17:00 opened P1",
        "03-04 21:00 calendar_changed night",
        "03-04 22:00 calendar_changed night",
    )
    clock = only(facts, Metric.RESOLUTION)
    assert shown(clock.due_at) == "03-05 00:00"
    assert lines(clock, "03-04 23:00") == [
        "03-04 17:00–03-04 21:00 running opened [1] 60/60 of 240 (广州)",
        "03-04 21:00–… running calendar_changed [2] 120/180 of 240 (night)",
    ]


def test_a_metric_that_gets_a_target_late_starts_then_and_one_that_loses_it_is_cancelled() -> None:
    facts = history(
        "03-04 09:00 opened P3",
        "03-04 10:00 priority_changed P1",
        "03-04 10:30 priority_changed P3",
    )
    clock = only(facts, Metric.FIRST_UPDATE)
    assert (clock.entry, shown(clock.started_at)) == (2, "03-04 10:00")
    assert (clock.state, shown(clock.stopped_at)) == (State.CANCELLED, "03-04 10:30")
    facts += history("03-04 10:40 updated", "03-04 11:00 priority_changed P1", first=4)
    assert only(facts, Metric.FIRST_UPDATE) == clock


def test_a_contact_from_before_the_opening_has_the_terms_of_the_opening() -> None:
    facts = history("03-04 09:00 opened", "03-04 08:50 contact_received")
    assert shown(only(facts, Metric.ANSWER).due_at) == "03-04 09:20"


# Breaches stay


def waiting() -> list[Fact]:
    return history("03-04 09:00 opened", "03-04 09:00 contact_received")


def recorded(facts: Iterable[Fact], now: str) -> Breach:
    found = breach(only(facts, Metric.ANSWER), local(f"2026-{now}"))
    assert found is not None
    return found


def test_a_clock_that_runs_is_breached_when_it_is_due_and_that_is_recorded_once() -> None:
    clock = only(waiting(), Metric.ANSWER)
    assert breach(clock, local("2026-03-04 09:29:59")) is None
    found = breach(clock, local("2026-03-04 09:30"))
    assert found is not None
    assert (found.metric, found.entry, shown(found.at)) == (Metric.ANSWER, 2, "03-04 09:30")

    clock = only(waiting(), Metric.ANSWER, [found])
    assert (clock.breached, shown(clock.breached_at)) == (Breached.RECORDED, "03-04 09:30")
    assert breach(clock, local("2026-03-05 09:30")) is None


def test_an_answer_at_the_last_instant_is_in_time() -> None:
    clock = only([*waiting(), *history("03-04 09:30 answered", first=3)], Metric.ANSWER)
    assert (clock.breached, breach(clock, local("2026-03-05 09:30"))) == (Breached.NO, None)


def test_a_breach_that_facts_show_later_is_found_and_then_recorded() -> None:
    facts = [*waiting(), *history("03-04 09:40 answered", first=3)]
    known = recorded(facts, "03-04 09:41")
    clock = only(facts, Metric.ANSWER, [known])
    assert (clock.breached, shown(clock.breached_at)) == (Breached.RECORDED, "03-04 09:30")


def test_a_recorded_breach_stands_when_it_would_not_be_one_now() -> None:
    known = recorded(waiting(), "03-04 09:30")
    facts = [*waiting(), *history("03-04 09:10 answered", first=3)]
    clock = only(facts, Metric.ANSWER, [known])
    assert (clock.state, clock.breached) == (State.STOPPED, Breached.STANDS)
    assert shown(clock.breached_at) == "03-04 09:30"
    assert breach(clock, local("2026-03-05 09:30")) is None
    assert clock.breached.value == "recorded, would not be now"


def test_a_recorded_breach_stays_with_the_clock_that_ran_then() -> None:
    known = recorded(waiting(), "03-04 09:30")
    earlier = history("03-04 08:50 contact_received", first=3)
    clock = only([*waiting(), *earlier], Metric.ANSWER, [known])
    assert (clock.entry, clock.breached, shown(clock.breached_at)) == (
        3, Breached.RECORDED, "03-04 09:30",
    )  # fmt: skip
    second = replace(known, entry=3, at=local("2026-03-04 09:31"))
    assert only([*waiting(), *earlier], Metric.ANSWER, [second, known]) == clock


def test_a_recorded_breach_outlives_its_clock() -> None:
    known = recorded(waiting(), "03-04 09:30")
    clock = only(waiting()[:1], Metric.ANSWER, [known])
    assert (clock.state, clock.breached, clock.segments) == (
        State.CANCELLED, Breached.STANDS, (),
    )  # fmt: skip
    assert (shown(clock.breached_at), clock.target) == ("03-04 09:30", known.target)
    assert clock.started_at == clock.stopped_at == local("2026-03-04 09:00")
    assert explain(clock, SHANGHAI, at=known.at) == []
    assert spent_at(clock, known.at) == timedelta()


# Alarms


def percents(clock: Clock) -> list[tuple[int, str]]:
    return [(percent, shown(at)) for percent, at in alarms(clock)]


def test_a_clock_that_runs_has_its_warnings_and_its_end() -> None:
    assert percents(only(history("03-04 16:30 opened"), Metric.RESOLUTION)) == [
        (50, "03-05 09:30"),
        (75, "03-05 10:30"),
        (90, "03-05 11:06"),
        (100, "03-05 11:30"),
    ]


def test_a_pause_does_not_move_a_warning_that_is_past() -> None:
    facts = history("03-04 09:00 opened", "03-04 11:30 paused for a part", "03-04 14:00 resumed")
    assert percents(only(facts[:2], Metric.RESOLUTION)) == []
    assert percents(only(facts, Metric.RESOLUTION)) == [
        (50, "03-04 11:00"),
        (75, "03-04 14:30"),
        (90, "03-04 15:06"),
        (100, "03-04 15:30"),
    ]


def test_a_shorter_goal_brings_its_warnings_at_once() -> None:
    facts = history("03-04 09:00 opened P3", "03-04 13:10 priority_changed P1")
    assert percents(only(facts, Metric.RESOLUTION)) == [
        (50, "03-04 13:10"),
        (75, "03-04 13:10"),
        (90, "03-04 13:36"),
        (100, "03-04 14:00"),
    ]


# What is refused


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        (history("03-04 09:00 answered"), "facts: none is opened"),
        (history("03-04 09:00 opened", "03-04 09:00 paused"), r"fact 2 \(paused\): reason is miss"),
        (
            history("03-04 09:00 opened", "03-04 09:00 priority_changed"),
            r"fact 2 \(priority_changed\): priority is missing",
        ),
        (
            [*history("03-04 09:00 opened"), *history("03-04 09:01 opened")],
            r"fact 1 \(opened\): the entry says two different things",
        ),
        (
            [Fact(kind=Kind.CLOSED, at=datetime(2026, 3, 4), entry=7)],  # noqa: DTZ001
            r"fact 7 \(closed\): at has no zone",
        ),
        (
            history("03-04 09:00 opened", "03-04 09:00 contract_changed silver"),
            "targets: none for contract 'silver' and priority P1",
        ),
        (
            history("03-04 09:00 opened", "03-04 09:00 calendar_changed moon"),
            "calendars: there is no calendar 'moon'",
        ),
    ],
)
def test_facts_that_make_no_sense_are_refused(facts: list[Fact], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        recompute(facts, TARGETS, CALENDARS)


def test_everything_that_is_wrong_with_targets_is_said_at_once() -> None:
    bad: Targets = {
        ("gold", Priority.P1): {
            Metric.ANSWER: Target(goal=timedelta(), calendar="moon", pausable=True),
            Metric.OFFER: Target(goal=HOUR, warnings=(75, 50)),
            Metric.REMOTE: Target(goal=HOUR, warnings=(50, 100)),
            Metric.ARRIVAL: Target(goal=HOUR, warnings=()),
        }
    }
    assert problems(bad, CALENDARS) == [
        "targets.gold.P1.answer.goal: must be longer than 0",
        "targets.gold.P1.answer.calendar: there is no calendar 'moon'",
        "targets.gold.P1.answer.pausable: this clock can never be paused",
        "targets.gold.P1.offer.warnings: must rise between 1 and 99 percent",
        "targets.gold.P1.remote.warnings: must rise between 1 and 99 percent",
    ]
    assert problems(TARGETS, CALENDARS) == []
    facts = history("03-04 09:00 opened", "03-04 09:00 contact_received")
    with pytest.raises(ValueError, match=r"targets\.gold\.P1\.answer\.goal: must be longer than 0"):
        recompute(facts, bad, CALENDARS)


def test_one_entry_can_tell_two_facts_and_a_fact_told_twice_is_one() -> None:
    opened, contact = waiting()
    both = [opened, replace(contact, entry=opened.entry)]
    assert only(both, Metric.ANSWER).entry == opened.entry
    assert recompute(both * 2, TARGETS, CALENDARS) == recompute(both, TARGETS, CALENDARS)


def test_without_facts_there_are_no_clocks() -> None:
    assert recompute([], TARGETS, CALENDARS) == ()


# Random histories, with periods of seconds so that five minutes have many

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


@settings(max_examples=EXAMPLES)
@given(facts=histories(), targets=tables, opened=opens, wait=st.integers(0, 200))
def test_clocks_are_what_looking_at_every_second_says(
    facts: list[Fact], targets: Targets, opened: Open, wait: int
) -> None:
    targets = unpausable_answers(targets)
    is_open = seconds(opened)
    now = max(second(fact.at) for fact in facts) + wait
    found = recompute(facts, targets, calendars(opened))
    expected = watch(facts, targets, lambda name, n: is_open[name][n], zero=ZERO, now=now, end=END)
    expected.sort(key=lambda seen: (seen.started, seen.entry, seen.metric))
    assert len(found) == len(expected)
    for clock, seen in zip(found, expected, strict=True):
        mine = as_seen(clock, now)
        for name in ("metric", "entry", "started", "labels", "stopped", "at_now", "breached"):
            assert getattr(mine, name) == getattr(seen, name), name
        assert mine.cancelled == (seen.stopped is not None and seen.cancelled)
        assert (clock.stopped_by is None) == (seen.stopped_by is None)
        if clock.stopped_by is not None and seen.stopped_by is not None:
            assert clock.stopped_by == seen.stopped_by.entry
        check_due(clock, seen)


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


@settings(max_examples=EXAMPLES)
@given(facts=histories(), targets=tables, opened=opens, data=st.data())
def test_segments_share_the_life_and_what_is_spent_and_remains_is_the_goal(
    facts: list[Fact], targets: Targets, opened: Open, data: st.DataObject
) -> None:
    targets = unpausable_answers(targets)
    found = recompute(facts, targets, calendars(opened))
    shuffled = data.draw(st.permutations(facts))
    assert recompute(shuffled, targets, calendars(opened)) == found
    for clock in found:
        assert clock.segments[0].start == clock.started_at
        assert clock.segments[-1].end == clock.stopped_at
        assert all(one.end == other.start for one, other in pairwise(clock.segments))
        assert clock.spent == sum((part.worked for part in clock.segments), timedelta())
        last = clock.segments[-1]
        assert (last.end is None) == (clock.state in (State.RUNNING, State.PAUSED))
        assert clock.state is not State.PAUSED or not last.running
        if clock.state is State.RUNNING and clock.due_at is not None:
            at = last.start + (clock.due_at - last.start) / 3
            if at >= last.start:
                left = between(last.calendar, at, clock.due_at)
                assert spent_at(clock, at) + left == clock.goal or clock.due_at == last.start
            rows = explain(clock, UTC, at=max(at, last.start))
            assert rows[-1].total == spent_at(clock, max(at, last.start))


@settings(max_examples=EXAMPLES)
@given(facts=histories(), late=st.lists(later, max_size=5), targets=tables, opened=opens)
def test_a_breach_once_recorded_stays_whatever_is_learned_later(
    facts: list[Fact], late: list[Fact], targets: Targets, opened: Open
) -> None:
    targets = unpausable_answers(targets)
    known = calendars(opened)
    now = ZERO + END * SECOND
    breaches = [told for clock in recompute(facts, targets, known) if (told := breach(clock, now))]
    learned = [*facts[:1], *(replace(fact, entry=1000 + n) for n, fact in enumerate(late))]
    for history_now in (facts, facts + learned[1:], learned):
        found = recompute(history_now, targets, known, breaches)
        assert recompute(history_now, targets, known, breaches[::-1]) == found
        for told in breaches:
            mine = [
                clock
                for clock in found
                if clock.metric is told.metric
                and clock.breached in (Breached.RECORDED, Breached.STANDS)
            ]
            assert any(clock.breached_at is not None and clock.breached_at <= told.at
                       for clock in mine)  # fmt: skip
        if history_now is facts:
            assert {clock.breached for clock in found} <= {Breached.NO, Breached.RECORDED}
            assert all(breach(clock, now) is None for clock in found)
