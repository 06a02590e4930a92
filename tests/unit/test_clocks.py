"""Clocks against worked examples; `test_clock_histories` has what happens at random."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from contactd.routing.calendars import ALWAYS, WorkingCalendar
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


def test_a_change_in_the_instant_in_which_it_is_resolved_counts_when_it_is_reopened() -> None:
    facts = history(
        "03-04 09:00 opened P3",
        "03-04 15:00 calendar_changed night",
        "03-04 15:00 priority_changed P1",
        "03-04 15:00 resolved",
        "03-04 20:30 reopened",
    )
    clock = only(facts[:4], Metric.RESOLUTION)
    assert (clock.goal, shown(clock.due_at)) == (8 * HOUR, "03-04 18:00")
    assert (clock.spent, clock.breached) == (5 * HOUR, Breached.NO)
    clock = only(facts, Metric.RESOLUTION)
    assert lines(clock, "03-04 21:00") == [
        "03-04 09:00–03-04 15:00 running opened [1] 300/300 of 480 (广州)",
        "03-04 15:00–03-04 20:30 paused resolved [4] 0/300 of 480 (广州)",
        "03-04 20:30–… running reopened [5] 30/330 of 240 (night)",
    ]
    assert (clock.goal, shown(clock.due_at)) == (4 * HOUR, "03-04 20:30")
    assert breach(clock, local("2026-03-04 20:30")) is not None


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
