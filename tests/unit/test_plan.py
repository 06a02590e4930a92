"""What is stored of the rota: what it keeps when the desk file forgets, and what it makes."""

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contactd.routing import rota
from contactd.routing.calendars import HolidayData, WorkingCalendar
from contactd.routing.oncall import Engineer, Site
from contactd.routing.plan import Plan, keyed, with_past
from contactd.routing.rota import (
    OFF_DUTY_SEEN,
    FixedShift,
    Kind,
    Leave,
    Member,
    Rotation,
    Team,
    Unit,
    Window,
)

NOW = datetime(2026, 11, 20, 8, tzinfo=UTC)
DAY = timedelta(days=1)
GZ = Site(key="gz", name_zh="广州", name_en="Guangzhou", zone="UTC", queue="gz", floor="8000")
PEOPLE = tuple(
    Engineer(key=key, name=key, number=f"800{n}", skills=frozenset({"net"}), kind=Kind.FIELD)
    for n, key in enumerate(("wang", "li", "zhao", "chen"))
)
HOURS = WorkingCalendar(
    name="hours", zone="UTC", weekly={n: ((time(9), time(18)),) for n in range(7)}
)
DESK = Team(key="desk", tier=1)


def leave(engineer: str, first: float, last: float, backup: str = "") -> Leave:
    """Leave from the day `first` to the day `last`, counted from now."""
    start, end = NOW + first * DAY, NOW + last * DAY
    return Leave(key=f"{engineer}-{first}", engineer=engineer, start=start, end=end, backup=backup)


def plan(*leaves: Leave) -> Plan:
    return Plan(sites=(GZ,), engineers=PEOPLE, leaves=leaves)


def kept(new: Plan, old: Plan) -> list[tuple[str, float, float]]:
    return [
        (each.engineer, (each.start - NOW) / DAY, (each.end - NOW) / DAY)
        for each in with_past(new, old, NOW).leaves
    ]


def test_leave_that_is_over_and_was_deleted_is_kept_while_later_leave_hangs_on_it() -> None:
    old = plan(leave("wang", -100, -95), leave("li", -60, -55), leave("wang", -40, -30))
    assert kept(plan(leave("zhao", -5, 3)), old) == [
        ("zhao", -5, 3), ("li", -60, -55), ("wang", -40, -30),
    ]  # fmt: skip
    # Without it the next leave that is entered starts now or later, and the gap is too long.
    assert kept(plan(), old) == []


def test_leave_that_ended_lately_is_kept_for_leave_that_may_still_be_entered() -> None:
    assert kept(plan(), plan(leave("wang", -29, -27), leave("li", -60, -58))) == [
        ("wang", -29, -27)
    ]


def test_a_gap_as_long_as_is_seen_does_not_hold_earlier_leave() -> None:
    later = leave("wang", -OFF_DUTY_SEEN / DAY, 1)
    assert kept(plan(later), plan(leave("li", -60, -58))) == [("wang", -28, 1)]
    assert len(kept(plan(later), plan(leave("li", -60, -55.9)))) == 2


def test_leave_that_was_cut_short_counts_up_to_now_and_what_was_to_come_is_gone() -> None:
    old = plan(leave("wang", -2, 5), leave("li", 3, 4))
    assert kept(plan(), old) == [("wang", -2, 0)]


def test_leave_that_is_still_in_the_file_is_there_once() -> None:
    old = plan(leave("wang", -5, -1), leave("li", -2, 3))
    assert with_past(old, old, NOW) == old


def test_what_is_kept_does_not_change_when_the_file_is_loaded_again() -> None:
    old, new = plan(leave("wang", -5, 2), leave("li", -9, -1)), plan(leave("zhao", -1, 1))
    once = with_past(new, old, NOW)
    assert with_past(new, once, NOW + DAY / 2) == once


@given(
    past=st.lists(st.tuples(st.integers(-90, -1), st.integers(1, 12)), min_size=1, max_size=5),
    new=st.lists(st.tuples(st.integers(-20, 30), st.integers(1, 12)), min_size=1, max_size=3),
)
def test_forgetting_past_leave_never_changes_who_stands_in_from_now_on(
    past: list[tuple[int, int]], new: list[tuple[int, int]]
) -> None:
    """Who stood in last time is not the one who was longest off duty the next time."""
    over = tuple(leave("wang", first, min(first + length, 0)) for first, length in past)
    entered = tuple(leave("wang", first, first + length) for first, length in new)
    rotation = Rotation(
        key="r", team="desk", members=(Member(engineer="wang"),), unit=Unit.DAY,
        start=date(2026, 1, 1), handoff=time(8), zone="UTC",
    )  # fmt: skip
    base = Plan(sites=(GZ,), engineers=PEOPLE, teams=(DESK,), rotations=(rotation,))
    stored, file = replace(base, leaves=keyed(over)), replace(base, leaves=keyed(entered))

    def who(of: Plan) -> list[tuple[str, datetime, datetime]]:
        found = rota.spans(of.rota({}), NOW, NOW + 40 * DAY)
        return [(span.engineer, span.since, span.until) for span in found]

    assert who(with_past(file, stored, NOW)) == who(replace(base, leaves=keyed((*entered, *over))))


def test_keys_of_leave_from_several_places_are_made_different() -> None:
    found = keyed([leave("li", 1, 2), leave("li", 1, 3), leave("li", 1, 4)])
    assert [each.key for each in found] == ["li-1", "li-1-2", "li-1-3"]


def test_the_rota_has_what_the_plan_says_and_leave_from_elsewhere() -> None:
    made = replace(
        plan(leave("wang", 1, 2)),
        teams=(DESK,),
        shifts=(
            FixedShift(
                key="s", team="desk", member=Member(engineer="li"), weekdays=frozenset({0}),
                start=time(8), end=time(20),
            ),
        ),
    ).rota({}, [leave("wang", 1, 5)])  # fmt: skip
    assert made.sites == (rota.Site(key="gz", zone="UTC", floor="8000"),)
    assert made.engineers[1] == rota.Engineer(
        key="li", name="li", number="8001", kind=Kind.FIELD, skills=frozenset({"net"})
    )
    assert [each.key for each in made.leaves] == ["wang-1", "wang-1-2"]
    assert (made.teams, [each.key for each in made.shifts]) == ((DESK,), ["s"])


@pytest.mark.parametrize("follows", [{}, {"hours": "cn"}])
def test_only_hours_that_follow_holidays_are_closed_on_them(follows: dict[str, str]) -> None:
    day = date(2026, 10, 1)
    window = Window(key="w", team="desk", member=Member(engineer="li"), hours=HOURS)
    rotation = Rotation(
        key="r", team="desk", members=(Member(engineer="wang"),), unit=Unit.DAY, start=day,
        handoff=time(), zone="UTC", hours=HOURS,
    )  # fmt: skip
    stored = replace(
        plan(), teams=(DESK,), windows=(window,), rotations=(rotation,), follows=follows
    )
    data = HolidayData(confirmed_through=day, holidays={day: "国庆节"}, working={}, sources={})
    start = datetime(2026, 10, 1, tzinfo=UTC)
    found = stored.resolved({"cn": data}, start, start + DAY)
    there = {span.engineer for span in found.spans} - {rota.HOLE}
    assert there == (set() if follows else {"li", "wang"})
    assert not found.stored
