"""Clocks of random histories against a reference that looks at every second."""

from dataclasses import replace
from datetime import UTC, timedelta
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from contactd.routing.calendars import between
from contactd.routing.clocks import (
    Breached,
    Fact,
    State,
    Targets,
    breach,
    explain,
    recompute,
    spent_at,
)
from tests.unit.clock_histories import (
    END,
    HISTORIES,
    SECOND,
    ZERO,
    Open,
    calendars,
    compared,
    histories,
    later,
    opens,
    second,
    tables,
    unpausable_answers,
    watched,
)


@settings(max_examples=HISTORIES)
@given(facts=histories(), targets=tables, opened=opens, wait=st.integers(0, 200))
def test_clocks_are_what_looking_at_every_second_says(
    facts: list[Fact], targets: Targets, opened: Open, wait: int
) -> None:
    targets = unpausable_answers(targets)
    now = max(second(fact.at) for fact in facts) + wait
    found = recompute(facts, targets, calendars(opened))
    expected = watched(facts, targets, opened, now)
    compared(found, expected, now)
    breaches = [breach(clock, ZERO + now * SECOND) for clock in found]
    assert [each and second(each.at) for each in breaches] == [seen.breached for seen in expected]


@settings(max_examples=HISTORIES // 4)
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


@settings(max_examples=HISTORIES // 4)
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
