"""The rota against worked examples and against a clock that ticks minute by minute."""

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contactd.routing.calendars import ALWAYS, WorkingCalendar
from contactd.routing.rota import (
    HOLE,
    RESIDENT_MARGIN,
    Cause,
    Count,
    Engineer,
    FixedShift,
    Flaw,
    Kind,
    Leave,
    Member,
    Override,
    Rota,
    Rotation,
    Site,
    Span,
    Stint,
    Swap,
    Team,
    Unit,
    Why,
    Window,
    explain,
    problems,
    spans,
    who,
)
from contactd.routing.wallclock import ANYWHERE
from tests.unit.rota_reference import MINUTE, Table, minute_table

EXAMPLES: Final = int(os.environ.get("CONTACTD_EXAMPLES", "40"))

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
ALL_DAYS = frozenset(range(7))
SHANGHAI, CHICAGO, LORD_HOWE = "Asia/Shanghai", "America/Chicago", "Australia/Lord_Howe"
GZ = Site(key="gz", zone=SHANGHAI, floor="8000")
CHI = Site(key="chi", zone=CHICAGO, floor="8001")
LHI = Site(key="lhi", zone=LORD_HOWE, floor="8002")
DESK = Team(key="desk", tier=1)
FIELD = Team(key="field", tier=1, sites=("chi", "lhi"), skills=frozenset({"net"}))
EXPERTS = Team(key="experts", tier=2, sites=("gz",))
KEYS = ("wang", "li", "zhao", "chen", "sun")
PEOPLE = tuple(
    Engineer(
        key=key,
        name=key.title(),
        number="" if key == "sun" else f"+861380000000{n}",
        kind=Kind.FIELD if key in ("zhao", "chen") else Kind.REMOTE,
        skills=frozenset({"net"}) if key in ("li", "zhao", "chen", "sun") else frozenset(),
        sites=frozenset({"chi", "lhi"}) if key == "chen" else frozenset(),
    )
    for n, key in enumerate(KEYS)
)
EVERYWHERE = tuple(replace(person, sites=frozenset()) for person in PEOPLE[:4])
OFFICE = WorkingCalendar(  # two periods a day, closed at weekends, a make-up day on a Sunday
    name="office",
    zone=SHANGHAI,
    weekly={n: ((time(9), time(12)), (time(13), time(18))) for n in range(5)},
    days={date(2026, 3, 8): ((time(9), time(12)),), date(2026, 10, 1): ()},
)
SHORT_BREAK = WorkingCalendar(
    name="short break",
    zone=CHICAGO,
    weekly={n: ((time(0), time(12)), (time(12, 15), time(0))) for n in range(7)},
)


def local(text: str, zone: str = SHANGHAI) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)


def members(*keys: str) -> tuple[Member, ...]:
    return tuple(Member(engineer=key) for key in keys)


def rotation(*keys: str, **changes: Any) -> Rotation:
    values: dict[str, Any] = {
        "key": "night",
        "team": "desk",
        "members": members(*keys),
        "unit": Unit.DAY,
        "start": date(2026, 11, 2),  # a Monday
        "handoff": time(9),
        "zone": SHANGHAI,
    }
    return Rotation(**(values | changes))


def shift(key: str, engineer: str, start: str, end: str, **changes: Any) -> FixedShift:
    values: dict[str, Any] = {
        "key": key,
        "team": "desk",
        "member": Member(engineer=engineer),
        "weekdays": ALL_DAYS,
        "start": time.fromisoformat(start),
        "end": time.fromisoformat(end),
    }
    return FixedShift(**(values | changes))


def rota(**entries: Any) -> Rota:
    values: dict[str, Any] = {"sites": (GZ,), "teams": (DESK,), "engineers": PEOPLE}
    return Rota(**(values | entries))


def told(found: Iterable[Span], zone: str = SHANGHAI) -> list[tuple[str, str, str]]:
    """Who from when to when on the clocks of `zone`."""

    def wall(at: datetime) -> str:
        return f"{at.astimezone(ZoneInfo(zone)):%m-%d %H:%M}"

    return [(span.engineer, wall(span.since), wall(span.until)) for span in found]


def between(plan: Rota, start: str, end: str) -> list[tuple[str, str, str]]:
    return told(spans(plan, local(start), local(end)))


# Rotations


def test_members_of_a_rotation_come_one_after_the_other() -> None:
    plan = rota(rotations=(rotation("wang", "li"),))
    assert between(plan, "2026-11-02 00:00", "2026-11-05 12:00") == [
        (HOLE, "11-02 00:00", "11-02 09:00"),  # before its first turn
        ("wang", "11-02 09:00", "11-03 09:00"),
        ("li", "11-03 09:00", "11-04 09:00"),
        ("wang", "11-04 09:00", "11-05 09:00"),
        ("li", "11-05 09:00", "11-05 12:00"),
    ]


@pytest.mark.parametrize(
    ("unit", "length", "handoffs"),
    [
        (Unit.HOUR, 12, ["11-02 09:00", "11-02 21:00", "11-03 09:00", "11-03 21:00"]),
        (Unit.DAY, 2, ["11-02 09:00", "11-04 09:00", "11-06 09:00", "11-08 09:00"]),
        (Unit.WEEK, 1, ["11-02 09:00", "11-09 09:00", "11-16 09:00", "11-23 09:00"]),
        (Unit.MONTH, 1, ["11-02 09:00", "12-02 09:00", "01-02 09:00", "02-02 09:00"]),
    ],
)
def test_a_turn_lasts_some_hours_days_weeks_or_months(
    unit: Unit, length: int, handoffs: list[str]
) -> None:
    plan = rota(rotations=(rotation("wang", "li", "zhao", unit=unit, length=length),))
    found = told(spans(plan, local("2026-11-02 09:00"), local("2027-06-01 00:00")))[:4]
    assert [since for _, since, _ in found] == handoffs
    assert [engineer for engineer, _, _ in found] == ["wang", "li", "zhao", "wang"]


def test_a_month_that_begins_on_the_31st_begins_on_the_last_day_of_a_short_month() -> None:
    monthly = rotation("wang", "li", unit=Unit.MONTH, start=date(2027, 12, 31))
    found = spans(rota(rotations=(monthly,)), local("2028-01-01 00:00"), local("2028-05-01 00:00"))
    assert [since for _, since, _ in told(found)] == [
        "01-01 00:00", "01-31 09:00", "02-29 09:00", "03-31 09:00", "04-30 09:00",
    ]  # fmt: skip


def test_by_active_day_nobody_loses_a_turn_to_a_day_off() -> None:
    plain = rotation("wang", "li", "zhao", start=date(2026, 9, 30), handoff=time(0), hours=OFFICE)
    active = replace(plain, count=Count.ACTIVE)
    start, end = local("2026-09-30 00:00"), local("2026-10-07 00:00")
    by_day = [
        [(e, since) for e, since, _ in told(spans(rota(rotations=(r,)), start, end)) if e]
        for r in (plain, active)
    ]
    mornings = [[(e, s[:5]) for e, s in found if s.endswith("09:00")] for found in by_day]
    # Thursday 1 October is a holiday, then comes a weekend.
    assert mornings == [
        [("wang", "09-30"), ("zhao", "10-02"), ("zhao", "10-05"), ("wang", "10-06")],
        [("wang", "09-30"), ("li", "10-02"), ("zhao", "10-05"), ("wang", "10-06")],
    ]


def test_an_active_week_counts_even_if_only_a_make_up_day_is_in_it() -> None:
    calendar = replace(OFFICE, weekly={0: ((time(9), time(12)),)}, days={
        date(2026, 11, 9): (), date(2026, 11, 16): (), date(2026, 11, 21): ((time(9), time(10)),),
    })  # fmt: skip
    weekly = rotation("wang", "li", "zhao", unit=Unit.WEEK, hours=calendar, count=Count.ACTIVE)
    found = spans(rota(rotations=(weekly,)), local("2026-11-02 00:00"), local("2026-11-28 00:00"))
    assert [(e, since) for e, since, _ in told(found) if e] == [
        ("wang", "11-02 09:00"), ("li", "11-21 09:00"), ("zhao", "11-23 09:00"),
    ]  # fmt: skip


def test_who_joins_a_rotation_gets_a_turn_and_nobody_gets_two() -> None:
    team = (*members("wang", "li"), Member(engineer="zhao", since=date(2026, 11, 5)))
    plan = rota(rotations=(rotation(members=team),))
    found = spans(plan, local("2026-11-02 09:00"), local("2026-11-09 09:00"))
    assert [span.engineer for span in found] == ["wang", "li", "wang", "li", "zhao", "wang", "li"]


def test_who_leaves_a_rotation_during_a_turn_is_followed_at_once_by_the_next() -> None:
    team = (Member(engineer="wang", until=date(2026, 11, 4)), *members("li", "zhao"))
    plan = rota(rotations=(rotation(members=team, unit=Unit.WEEK),))
    assert between(plan, "2026-11-02 09:00", "2026-11-30 09:00") == [
        ("wang", "11-02 09:00", "11-04 09:00"),
        ("li", "11-04 09:00", "11-09 09:00"),
        ("li", "11-09 09:00", "11-16 09:00"),
        ("zhao", "11-16 09:00", "11-23 09:00"),
        ("li", "11-23 09:00", "11-30 09:00"),
    ]


def test_turns_that_nobody_can_have_are_lost_by_one_member_after_the_other() -> None:
    team = (
        Member(engineer="wang", until=date(2026, 11, 3)),
        Member(engineer="li", since=date(2026, 11, 5)),
        Member(engineer="zhao", since=date(2026, 11, 5)),
    )
    found = spans(
        rota(rotations=(rotation(members=team),)),
        local("2026-11-02 09:00"),
        local("2026-11-07 09:00"),
    )
    assert [span.engineer for span in found] == ["wang", HOLE, HOLE, "li", "zhao"]


def test_a_rotation_without_anybody_is_a_hole_of_its_own_beside_others_of_its_tier() -> None:
    plan = rota(rotations=(rotation(),), shifts=(shift("day", "li", "09:00", "17:00"),))
    found = spans(plan, local("2026-11-02 09:00"), local("2026-11-03 09:00"))
    assert [(span.engineer, str(span.why[0])) for span in found] == [
        ("li", "shift day"), (HOLE, "rotation night"),
    ]  # fmt: skip


def test_a_typing_error_in_a_name_does_not_cost_a_turn() -> None:
    plan = rota(rotations=(rotation("wang", "wong", "li"),))
    found = spans(plan, local("2026-11-02 09:00"), local("2026-11-05 09:00"))
    assert [span.engineer for span in found] == ["wang", "li", "wang"]


# Clock changes. America/Chicago: 2026-03-08 02:00 -> 03:00, 2026-11-01 02:00 -> 01:00.
# Australia/Lord_Howe: 2026-04-05 02:00 -> 01:30, 2026-10-04 02:00 -> 02:30. Asia/Shanghai: none.


@pytest.mark.parametrize(
    ("zone", "day", "handoff", "utc"),
    [
        (CHICAGO, "2026-03-08", "01:30", "2026-03-08T07:30"),
        (CHICAGO, "2026-03-08", "02:00", "2026-03-08T08:00"),  # the first instant after the gap
        (CHICAGO, "2026-03-08", "02:30", "2026-03-08T08:00"),
        (CHICAGO, "2026-03-08", "03:00", "2026-03-08T08:00"),
        (CHICAGO, "2026-03-09", "02:30", "2026-03-09T07:30"),
        (CHICAGO, "2026-11-01", "01:30", "2026-11-01T06:30"),  # the first of two
        (CHICAGO, "2026-11-01", "02:00", "2026-11-01T08:00"),
        (CHICAGO, "2026-11-02", "01:30", "2026-11-02T07:30"),
        (LORD_HOWE, "2026-10-04", "01:45", "2026-10-03T15:15"),
        (LORD_HOWE, "2026-10-04", "02:00", "2026-10-03T15:30"),
        (LORD_HOWE, "2026-10-04", "02:15", "2026-10-03T15:30"),
        (LORD_HOWE, "2026-10-04", "02:30", "2026-10-03T15:30"),
        (LORD_HOWE, "2026-10-05", "02:15", "2026-10-04T15:15"),
        (LORD_HOWE, "2026-04-05", "01:30", "2026-04-04T14:30"),  # the first of two
        (LORD_HOWE, "2026-04-05", "01:45", "2026-04-04T14:45"),
        (LORD_HOWE, "2026-04-05", "02:00", "2026-04-04T15:30"),
        (LORD_HOWE, "2026-04-06", "01:45", "2026-04-05T15:15"),
        (SHANGHAI, "2026-03-08", "02:30", "2026-03-07T18:30"),
        (SHANGHAI, "2026-11-01", "01:30", "2026-10-31T17:30"),
    ],
)
def test_a_daily_rotation_hands_off_once_a_day_across_clock_changes(
    zone: str, day: str, handoff: str, utc: str
) -> None:
    changing = date.fromisoformat(day)
    daily = rotation(
        "wang", "li", "zhao", start=changing - 2 * DAY, handoff=time.fromisoformat(handoff),
        zone=zone,
    )  # fmt: skip
    at = datetime.fromisoformat(utc).replace(tzinfo=UTC)
    found = spans(rota(rotations=(daily,)), at - 3 * HOUR, at + 3 * HOUR)
    assert [(span.engineer, span.since) for span in found] == [
        ("li", at - 3 * HOUR), ("zhao", at),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        (CHICAGO, "2026-03-07", 23),
        (CHICAGO, "2026-10-31", 25),
        (LORD_HOWE, "2026-10-03", 23.5),
        (LORD_HOWE, "2026-04-04", 24.5),
        (SHANGHAI, "2026-03-07", 24),
        (SHANGHAI, "2026-10-31", 24),
    ],
)
def test_a_day_is_as_long_as_the_clocks_make_it_but_hours_are_elapsed_hours(
    zone: str, day: str, hours: float
) -> None:
    start = date.fromisoformat(day)
    for unit, expected in ((Unit.DAY, hours), (Unit.HOUR, 24.0)):
        one = rotation(
            "wang", "li", unit=unit, length=1 if unit is Unit.DAY else 24, start=start, zone=zone
        )
        first, *_ = (
            span
            for span in spans(
                rota(rotations=(one,)),
                local(f"{day} 00:00", zone),
                local(f"{start + 3 * DAY} 00:00", zone),
            )
            if span.engineer
        )
        assert (first.until - first.since) / HOUR == expected


# Fixed shifts and windows


def test_a_fixed_shift_is_in_the_local_time_of_each_site() -> None:
    plan = rota(sites=(GZ, CHI), shifts=(shift("day", "wang", "08:00", "20:00"),))
    found = spans(plan, local("2026-11-02 00:00"), local("2026-11-04 00:00"))
    starts = [(s.site, s.since.isoformat()) for s in found if s.engineer and s.since.minute == 0]
    assert ("gz", "2026-11-02T00:00:00+00:00") in starts
    assert ("chi", "2026-11-02T14:00:00+00:00") in starts


def test_a_shift_in_the_gap_does_not_happen_and_one_that_begins_there_begins_after_it() -> None:
    plan = rota(
        sites=(CHI,),
        shifts=(shift("a", "wang", "02:15", "02:45"), shift("b", "li", "02:30", "10:00")),
    )
    start = local("2026-03-08 00:00", CHICAGO)
    found = [span for span in spans(plan, start, start + 12 * HOUR) if span.engineer]
    assert told(found, CHICAGO) == [("li", "03-08 03:00", "03-08 10:00")]


def test_a_dated_member_works_the_shifts_that_begin_on_their_dates() -> None:
    member = Member(engineer="wang", since=date(2026, 11, 3), until=date(2026, 11, 5))
    plan = rota(shifts=(shift("night", "", "22:00", "06:00", member=member),))
    found = spans(plan, local("2026-11-02 00:00"), local("2026-11-08 00:00"))
    assert told(span for span in found if span.engineer) == [
        ("wang", "11-03 22:00", "11-04 06:00"),
        ("wang", "11-04 22:00", "11-05 06:00"),
    ]


def test_a_resident_is_there_ten_minutes_before_and_after_the_customers_hours() -> None:
    window = Window(
        key="resident", team="desk", member=Member(engineer="wang"), hours=OFFICE,
        margin=RESIDENT_MARGIN,
    )  # fmt: skip
    plan = rota(windows=(window,))
    assert between(plan, "2026-11-02 00:00", "2026-11-03 00:00") == [
        (HOLE, "11-02 00:00", "11-02 08:50"),
        ("wang", "11-02 08:50", "11-02 12:10"),
        (HOLE, "11-02 12:10", "11-02 12:50"),
        ("wang", "11-02 12:50", "11-02 18:10"),
        (HOLE, "11-02 18:10", "11-03 00:00"),
    ]


def test_margins_that_meet_in_a_short_break_are_one_duty() -> None:
    window = Window(
        key="resident", team="desk", hours=SHORT_BREAK, margin=RESIDENT_MARGIN,
        member=Member(engineer="wang", since=date(2026, 11, 3), until=date(2026, 11, 4)),
    )  # fmt: skip
    found = spans(
        rota(windows=(window,)),
        local("2026-11-02 00:00", CHICAGO),
        local("2026-11-05 00:00", CHICAGO),
    )
    assert told(found, CHICAGO)[1] == ("wang", "11-03 00:00", "11-04 00:00")


# Swaps and overrides


def test_a_swap_exchanges_what_two_people_hold_each_in_their_own_time() -> None:
    week = Stint(engineer="wang", start=local("2026-11-02 09:00"), end=local("2026-11-03 09:00"))
    other = Stint(engineer="li", start=local("2026-11-05 00:00"), end=local("2026-11-06 00:00"))
    plan = rota(rotations=(rotation("wang", "li"),), swaps=(Swap(key="s", one=week, other=other),))
    found = spans(plan, local("2026-11-02 09:00"), local("2026-11-06 09:00"))
    assert told(found) == [
        ("li", "11-02 09:00", "11-03 09:00"),
        ("li", "11-03 09:00", "11-04 09:00"),
        ("wang", "11-04 09:00", "11-05 09:00"),
        ("wang", "11-05 09:00", "11-06 00:00"),
        ("li", "11-06 00:00", "11-06 09:00"),
    ]
    assert found[0].why == (Cause(kind=Why.ROTATION, key="night"), Cause(kind=Why.SWAP, key="s"))
    assert found[0].instead_of == "wang"


def override(key: str, engineer: str, start: str, end: str, **changes: Any) -> Override:
    values: dict[str, Any] = {
        "key": key, "tier": 1, "engineer": engineer, "start": local(start), "end": local(end),
    }  # fmt: skip
    return Override(**(values | changes))


def test_an_override_replaces_one_person_and_leaves_the_others() -> None:
    plan = rota(
        shifts=(shift("a", "wang", "00:00", "00:00"), shift("b", "li", "00:00", "00:00")),
        overrides=(override("o", "zhao", "2026-11-02 08:00", "2026-11-02 09:00", replaces="wang"),),
    )
    found = spans(plan, local("2026-11-02 08:30"), local("2026-11-02 08:31"))
    assert [(s.engineer, s.instead_of) for s in found] == [("li", ""), ("zhao", "wang")]


def test_a_span_keeps_the_team_of_its_layer_unless_somebody_took_over_the_tier() -> None:
    plan = rota(
        rotations=(rotation("wang"),),
        overrides=(
            override("a", "li", "2026-11-03 00:00", "2026-11-04 00:00", replaces="wang"),
            override("b", "zhao", "2026-11-05 00:00", "2026-11-06 00:00"),
        ),
    )
    found = spans(plan, local("2026-11-03 00:00"), local("2026-11-06 00:00"))
    assert {(span.engineer, span.team) for span in found} == {
        ("li", "desk"), ("wang", "desk"), ("zhao", ""),
    }  # fmt: skip


def test_a_site_of_no_team_is_told_unless_somebody_took_it_over() -> None:
    other = replace(GZ, key="zh")
    teams = (replace(DESK, sites=("gz",)),)
    plan = rota(sites=(GZ, other), teams=teams, rotations=(rotation("wang"),))
    line = "site zh: nobody is on duty at any time; its floor number rings"
    assert line in complaints(plan)
    taken = override("a", "li", "2026-11-03 00:00", "2026-11-04 00:00", sites=("zh",))
    assert line not in complaints(replace(plan, overrides=(taken,)))


def test_an_override_of_nobody_takes_over_its_whole_tier_at_its_sites() -> None:
    plan = rota(
        sites=(GZ, CHI),
        shifts=(shift("a", "wang", "00:00", "00:00"), shift("b", "li", "00:00", "00:00")),
        overrides=(override("o", "zhao", "2026-11-02 08:00", "2026-11-02 09:00", sites=("gz",)),),
    )
    found = spans(plan, local("2026-11-02 08:30"), local("2026-11-02 08:31"))
    assert [(s.site, s.engineer) for s in found] == [("gz", "zhao"), ("chi", "wang"), ("chi", "li")]


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [((0, 0), ["li", "zhao"]), ((0, 1), ["zhao"]), ((1, 0), ["li"])],
)
def test_of_two_who_take_over_a_tier_the_higher_rank_does_and_equals_share_it(
    ranks: tuple[int, int], expected: list[str]
) -> None:
    first, second = ranks
    plan = rota(
        overrides=(
            override("o", "li", "2026-11-02 08:00", "2026-11-02 09:00", rank=first),
            override("p", "zhao", "2026-11-02 08:00", "2026-11-02 09:00", rank=second),
        )
    )
    found = spans(plan, local("2026-11-02 08:00"), local("2026-11-02 09:00"))
    assert [span.engineer for span in found] == expected


def test_a_stand_in_can_be_stood_in_for_by_a_higher_rank_but_not_by_a_lower() -> None:
    def stack(rank: int) -> list[str]:
        plan = rota(
            shifts=(shift("a", "wang", "00:00", "00:00"),),
            overrides=(
                override("p", "zhao", "2026-11-02 08:00", "2026-11-02 09:00", replaces="li",
                         rank=rank),
                override("o", "li", "2026-11-02 08:00", "2026-11-02 09:00", replaces="wang",
                         rank=1),
            ),
        )  # fmt: skip
        found = spans(plan, local("2026-11-02 08:00"), local("2026-11-02 09:00"))
        return [span.engineer for span in found]

    assert stack(rank=2) == ["zhao"]
    assert stack(rank=0) == ["li"]


# Leave


def leave(key: str, engineer: str, start: str, end: str, backup: str = "") -> Leave:
    return Leave(key=key, engineer=engineer, start=local(start), end=local(end), backup=backup)


def test_who_is_on_leave_mid_shift_is_stood_in_for_by_the_named_backup() -> None:
    plan = rota(
        shifts=(shift("day", "wang", "08:00", "20:00"),),
        leaves=(leave("l", "wang", "2026-11-02 12:00", "2026-11-02 14:00", "zhao"),),
    )
    found = spans(plan, local("2026-11-02 08:00"), local("2026-11-02 20:00"))
    assert told(found) == [
        ("wang", "11-02 08:00", "11-02 12:00"),
        ("zhao", "11-02 12:00", "11-02 14:00"),
        ("wang", "11-02 14:00", "11-02 20:00"),
    ]
    assert (str(found[1].why[-1]), found[1].instead_of) == ("leave l", "wang")


def test_a_named_backup_on_leave_is_stood_in_for_by_rule_in_that_time_only() -> None:
    plan = rota(
        shifts=(shift("day", "wang", "08:00", "20:00"),),
        leaves=(
            leave("l", "wang", "2026-11-02 00:00", "2026-11-03 00:00", "zhao"),
            leave("m", "zhao", "2026-11-02 10:00", "2026-11-02 12:00"),
        ),
    )
    assert between(plan, "2026-11-02 08:00", "2026-11-02 20:00") == [
        ("zhao", "11-02 08:00", "11-02 10:00"),
        ("li", "11-02 10:00", "11-02 12:00"),
        ("zhao", "11-02 12:00", "11-02 20:00"),
    ]


def test_the_stand_in_has_a_number_the_skills_and_the_sites_and_is_longest_off_duty() -> None:
    # wang has not the skill, sun no number, li is on duty then, zhao was on duty an hour ago.
    plan = rota(
        sites=(GZ, CHI),
        teams=(DESK, FIELD),
        engineers=(*PEOPLE, replace(PEOPLE[3], key="zhou", sites=frozenset({"gz"}))),
        shifts=(
            shift("field", "boss", "08:00", "09:00", team="field", sites=("chi",),
                  member=Member(engineer="zhao")),
            shift("late", "", "09:00", "10:00", team="field", sites=("chi",),
                  member=Member(engineer="li")),
            shift("busy", "", "10:00", "11:00", sites=("chi",), member=Member(engineer="li")),
            shift("away", "", "10:00", "11:00", team="field", sites=("chi",),
                  member=Member(engineer="zhao")),
        ),
        leaves=(
            Leave(key="l", engineer="zhao", start=local("2026-11-02 10:00", CHICAGO),
                  end=local("2026-11-02 11:00", CHICAGO)),
        ),
    )  # fmt: skip
    start = local("2026-11-02 10:00", CHICAGO)
    found = [span for span in spans(plan, start, start + HOUR) if span.site == "chi"]
    assert {(s.engineer, s.instead_of) for s in found} == {("li", ""), ("chen", "zhao")}


def test_if_only_people_on_duty_elsewhere_are_left_one_of_them_stands_in() -> None:
    plan = rota(
        engineers=PEOPLE[:2],
        shifts=(shift("a", "wang", "00:00", "00:00"), shift("b", "li", "00:00", "00:00")),
        leaves=(leave("l", "wang", "2026-11-02 00:00", "2026-11-03 00:00"),),
    )
    found = spans(plan, local("2026-11-02 00:00"), local("2026-11-02 12:00"))
    assert [span.engineer for span in found] == ["li", "li"]


def test_nobody_found_is_a_hole_but_only_while_nobody_is_there() -> None:
    plan = rota(
        engineers=PEOPLE[:3],
        shifts=(shift("day", "wang", "08:00", "20:00"),),
        leaves=(
            leave("l", "wang", "2026-11-02 00:00", "2026-11-03 00:00"),
            leave("m", "li", "2026-11-02 07:00", "2026-11-02 16:00"),
            leave("n", "zhao", "2026-11-02 12:00", "2026-11-02 21:00"),
        ),
    )
    found = spans(plan, local("2026-11-02 08:00"), local("2026-11-02 20:00"))
    assert told(found) == [
        ("zhao", "11-02 08:00", "11-02 12:00"),
        (HOLE, "11-02 12:00", "11-02 16:00"),
        ("li", "11-02 16:00", "11-02 20:00"),
    ]
    assert found[1].instead_of == "wang"


def test_two_people_on_leave_at_once_are_not_given_the_same_stand_in() -> None:
    plan = rota(
        engineers=EVERYWHERE,
        shifts=(shift("a", "wang", "08:00", "20:00"), shift("b", "li", "08:00", "20:00")),
        leaves=(
            leave("l", "wang", "2026-11-02 00:00", "2026-11-04 00:00"),
            leave("m", "li", "2026-11-02 00:00", "2026-11-04 00:00"),
        ),
    )
    found = spans(plan, local("2026-11-03 08:00"), local("2026-11-03 20:00"))
    assert sorted(span.engineer for span in found) == ["chen", "zhao"]


def test_one_stand_in_is_found_for_all_sites_of_one_shift() -> None:
    plan = rota(
        sites=(GZ, replace(GZ, key="sz")),
        rotations=(rotation("wang"),),
        leaves=(leave("l", "wang", "2026-11-03 09:00", "2026-11-04 09:00"),),
    )
    found = spans(plan, local("2026-11-03 12:00"), local("2026-11-03 13:00"))
    assert [(s.site, s.engineer) for s in found] == [("gz", "li"), ("sz", "li")]


def test_a_long_leave_is_shared_week_by_week_and_its_end_need_not_be_known() -> None:
    window = Window(key="w", team="desk", member=Member(engineer="wang"), hours=ALWAYS)
    away = Leave(
        key="l", engineer="wang", start=local("2026-11-02 00:00"),
        end=datetime.max.replace(tzinfo=UTC),
    )  # fmt: skip
    plan = rota(engineers=PEOPLE[:3], windows=(window,), leaves=(away,))
    assert between(plan, "2026-11-02 00:00", "2026-11-20 00:00") == [
        ("li", "11-02 00:00", "11-09 00:00"),
        ("zhao", "11-09 00:00", "11-16 00:00"),
        ("li", "11-16 00:00", "11-20 00:00"),
    ]


@pytest.mark.parametrize(("gap", "expected"), [(27, "zhao"), (28, "li")])
def test_a_stand_in_of_four_weeks_ago_is_forgotten(gap: int, expected: str) -> None:
    first = leave("l", "wang", "2026-11-02 00:00", "2026-11-03 00:00")
    second = replace(first, key="m", start=first.end + gap * DAY, end=first.end + (gap + 1) * DAY)
    plan = rota(shifts=(shift("a", "wang", "00:00", "00:00"),), leaves=(second, first))
    (found,) = spans(plan, second.start, second.start + HOUR)
    assert found.engineer == expected


def test_a_stand_in_is_chosen_with_duty_in_mind_that_was_not_asked_for() -> None:
    day = shift("day", "wang", "08:00", "20:00")
    away = leave("l", "wang", "2026-11-02 00:00", "2026-11-03 00:00")
    for when in (date(2026, 11, 2), date(2026, 10, 23)):  # later that day, ten days before
        once = Member(engineer="li", since=when, until=when + DAY)
        plan = rota(shifts=(day, shift("once", "", "19:00", "20:00", member=once)), leaves=(away,))
        (found,) = spans(plan, local("2026-11-02 08:00"), local("2026-11-02 09:00"))
        assert found.engineer == "zhao"


def test_somebody_put_on_duty_by_an_override_while_on_leave_is_stood_in_for() -> None:
    plan = rota(
        shifts=(shift("a", "wang", "00:00", "00:00"),),
        overrides=(override("o", "li", "2026-11-02 08:00", "2026-11-02 09:00", replaces="wang"),),
        leaves=(leave("l", "li", "2026-11-02 00:00", "2026-11-03 00:00", "chen"),),
    )
    (found,) = spans(plan, local("2026-11-02 08:00"), local("2026-11-02 09:00"))
    assert (found.engineer, found.instead_of) == ("chen", "li")
    assert [str(cause) for cause in found.why] == ["shift a", "override o", "leave l"]


# Reading spans


def test_who_is_on_duty_is_each_person_once_the_lowest_tier_first() -> None:
    plan = rota(
        sites=(GZ, CHI),
        teams=(EXPERTS, DESK),
        shifts=(
            shift("x", "wang", "00:00", "00:00", team="experts"),
            shift("y", "li", "00:00", "00:00", team="experts"),
            shift("a", "wang", "00:00", "00:00", sites=("gz",)),
            shift("b", "zhao", "00:00", "00:00", sites=("chi",)),
        ),
    )
    found = spans(plan, local("2026-11-02 00:00"), local("2026-11-03 00:00"))
    at = local("2026-11-02 12:00")
    assert [(s.tier, s.engineer) for s in who(found, "gz", at)] == [(1, "wang"), (2, "li")]
    assert {s.engineer for s in who(found, ANYWHERE, at)} == {"wang", "li", "zhao"}
    assert who(found, "gz", local("2026-11-03 00:00")) == ()


def test_a_span_explains_who_when_and_why() -> None:
    span = Span(
        site="gz", tier=1, engineer="zhao", instead_of="wang",
        since=local("2026-11-02 09:00"), until=local("2026-11-03 09:00:30"),
        why=(Cause(kind=Why.ROTATION, key="night"), Cause(kind=Why.LEAVE, key="l")),
    )  # fmt: skip
    assert explain(span, SHANGHAI) == (
        "gz tier 1: zhao instead of wang, 2026-11-02 09:00:00–2026-11-03 09:00:30, "
        "by rotation night, then leave l"
    )
    hole = replace(span, engineer=HOLE, instead_of="", why=(Cause(kind=Why.UNPLANNED),))
    assert explain(hole).startswith("gz tier 1: nobody, 2026-11-02 01:00:00–")
    assert explain(hole).endswith("by unplanned")


# What is wrong with a rota


def complaints(plan: Rota, start: str = "2026-11-02 00:00", days: int = 7) -> list[str]:
    return [str(problem) for problem in problems(plan, local(start), local(start) + days * DAY)]


def test_a_sound_rota_has_no_problems() -> None:
    plan = rota(
        engineers=EVERYWHERE,
        rotations=(rotation("wang", "li", start=date(2026, 10, 1)),),
        overrides=(override("o", "zhao", "2026-11-03 00:00", "2026-11-04 00:00", replaces="wang"),),
        leaves=(leave("l", "wang", "2026-11-05 00:00", "2026-11-06 00:00"),),
    )
    assert complaints(plan) == []


def test_all_that_is_unknown_or_missing_is_told_at_once() -> None:
    plan = Rota(
        sites=(replace(GZ, floor=" "), CHI),
        teams=(replace(DESK, sites=("gz", "sz")),),
        engineers=(PEOPLE[0], replace(PEOPLE[1], number=" ", sites=frozenset({"zh"}))),
        rotations=(rotation("wang", "wong", sites=("fs", "chi"), start=date(2026, 10, 1)),),
        shifts=(shift("a", "wang", "00:00", "00:00", team="dask"),),
        swaps=(
            Swap(
                key="s",
                one=Stint(engineer="wang", start=local("2026-10-01"), end=local("2026-10-02")),
                other=Stint(engineer="lee", start=local("2026-10-01"), end=local("2026-10-02")),
            ),
        ),
        overrides=(override("o", "lu", "2026-11-03 00:00", "2026-11-04 00:00", sites=("zq",)),),
        leaves=(leave("l", "wan", "2026-11-03 00:00", "2026-11-04 00:00", "lo"),),
    )
    assert complaints(plan) == [
        "site gz: it has no floor number",
        "engineer li: there is no number to ring",
        "team desk: there is no site 'sz'",
        "engineer li: there is no site 'zh'",
        "rotation night: there is no site 'fs'",
        "rotation night: there is no engineer 'wong'",
        "shift a: there is no team 'dask'",
        "swap s: there is no engineer 'lee'",
        "override o: there is no site 'zq'",
        "override o: there is no engineer 'lu'",
        "leave l: there is no engineer 'lo'",
        "leave l: there is no engineer 'wan'",
        "rotation night: team desk has no site 'chi'",
        "site chi: nobody is on duty at any time; its floor number rings",
        "site gz, tier 1: nobody is on duty 2026-11-02 00:00–2026-11-09 00:00",
    ]


def test_times_without_anybody_are_told_as_ranges() -> None:
    plan = rota(engineers=EVERYWHERE, shifts=(shift("a", "wang", "06:00", "05:30"),))
    assert complaints(plan) == [
        "site gz, tier 1: nobody is on duty 2026-11-02 05:30–2026-11-02 06:00, "
        "2026-11-03 05:30–2026-11-03 06:00, 2026-11-04 05:30–2026-11-04 06:00 "
        "and 4 times more, 3.5 h in all"
    ]


def test_a_hole_in_one_layer_is_told_though_others_are_on_duty() -> None:
    plan = rota(
        engineers=PEOPLE[:2],
        shifts=(shift("a", "wang", "00:00", "00:00"), shift("b", "li", "09:00", "17:00")),
        rotations=(rotation(),),
        leaves=(
            leave("l", "li", "2026-11-03 00:00", "2026-11-04 00:00"),
            leave("m", "wang", "2026-11-03 12:00", "2026-11-03 13:00"),
        ),
    )
    assert complaints(plan) == [
        "site gz, tier 1: nobody is on duty 2026-11-03 12:00–2026-11-03 13:00",
        "rotation night: nobody belongs to it at gz 2026-11-02 09:00–2026-11-09 00:00",
        "leave m: nobody stands in for wang in shift a at gz 2026-11-03 12:00–2026-11-03 13:00",
        "leave l: nobody stands in for li in shift b at gz 2026-11-03 12:00–2026-11-03 13:00",
    ]


def test_a_field_engineer_at_two_sites_at_once_is_told_and_a_remote_one_is_not() -> None:
    sz = replace(GZ, key="sz")

    def at_both(engineer: str, **changes: Any) -> list[Flaw]:
        plan = rota(
            sites=(GZ, sz),
            engineers=EVERYWHERE,
            shifts=(
                shift("a", engineer, "00:00", "00:00", sites=("sz",)),
                shift("b", engineer, "00:00", "00:00", sites=("gz",)),
                shift("all", engineer, "00:00", "00:00"),
            )[changes.get("only", slice(2))],
        )  # fmt: skip
        found = problems(plan, local("2026-11-02 00:00"), local("2026-11-03 00:00"))
        assert [p.text for p in found] in (
            [], ["is on duty at gz and at sz 2026-11-02 00:00–2026-11-03 00:00"],
        )  # fmt: skip
        return [problem.flaw for problem in found]

    assert at_both("zhao") == [Flaw.TWO_PLACES]
    assert at_both("li") == []
    assert at_both("zhao", only=slice(2, 3)) == []  # one shift for both sites: by telephone


def test_a_swap_or_an_override_that_changes_nothing_is_told() -> None:
    plan = rota(
        engineers=EVERYWHERE,
        shifts=(shift("a", "wang", "00:00", "00:00"),),
        swaps=(
            Swap(
                key="s",
                one=Stint(engineer="li", start=local("2026-11-03"), end=local("2026-11-04")),
                other=Stint(engineer="zhao", start=local("2026-11-03"), end=local("2026-11-04")),
            ),
        ),
        overrides=(
            override("o", "li", "2026-11-03 00:00", "2026-11-04 00:00", replaces="zhao"),
            override("later", "li", "2026-12-03 00:00", "2026-12-04 00:00", replaces="zhao"),
        ),
    )
    found = problems(plan, local("2026-11-02 00:00"), local("2026-11-09 00:00"))
    assert [(p.flaw, p.where) for p in found] == [(Flaw.IDLE, "swap s"), (Flaw.IDLE, "override o")]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: replace(GZ, zone="Asia/Guangzhou"), "site 'gz': zone: 'Asia/Guangzhou' is not"),
        (lambda: replace(GZ, key=""), "site: key: must not be empty"),
        (lambda: replace(PEOPLE[0], key=""), "engineer: key: must not be empty"),
        (lambda: rotation("wang", zone="../x"), "rotation 'night': zone: '../x' is not"),
        (lambda: rotation("wang", length=0), "rotation 'night': length: must be 1 or more"),
        (
            lambda: Member(engineer="li", since=date(2026, 1, 2), until=date(2026, 1, 2)),
            "member 'li': until: must be after 2026-01-02",
        ),
        (
            lambda: shift("a", "wang", "08:00", "09:00", weekdays=frozenset({7})),
            "shift 'a': weekdays: must be 0 ",
        ),
        (
            lambda: Window(
                key="w", team="desk", member=Member(engineer="li"), hours=ALWAYS, margin=-MINUTE
            ),
            "window 'w': margin: must not be negative",
        ),
        (
            lambda: leave("l", "wang", "2026-11-02 00:00", "2026-11-02 00:00"),
            "leave 'l': end: must be after",
        ),
        (
            lambda: replace(
                leave("l", "li", "2026-11-02", "2026-11-03"),
                start=datetime(2026, 11, 2),  # noqa: DTZ001
            ),
            "leave 'l': start and end: must have a time zone",
        ),
        (
            lambda: Swap(
                key="s",
                one=Stint(engineer="li", start=local("2026-11-02"), end=local("2026-11-03")),
                other=Stint(engineer="li", start=local("2026-11-02"), end=local("2026-11-03")),
            ),
            "swap 's': other: must be somebody else",
        ),
        (
            lambda: rota(sites=(GZ, GZ), rotations=(rotation(), rotation(), rotation())),
            "site 'gz': is there 2 times\nrotation 'night': is there 3 times",
        ),
        (
            lambda: spans(rota(), local("2026-11-03"), local("2026-11-02")),
            "spans: end: must be after",
        ),
    ],
)
def test_values_that_make_no_sense_are_refused(make: Callable[[], object], text: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        make()
    assert str(refused.value).startswith(text)


# The reference: a clock that ticks

MINUTES = 3 * 24 * 60 + 12 * 60
BEGINNINGS = [  # three days and a half around the clock changes of 2026, at noon UTC
    datetime(2026, 3, 6, 12, tzinfo=UTC),  # Chicago forward
    datetime(2026, 10, 30, 12, tzinfo=UTC),  # Chicago back
    datetime(2026, 4, 3, 12, tzinfo=UTC),  # Lord Howe back
    datetime(2026, 10, 2, 12, tzinfo=UTC),  # Lord Howe forward
]
people = st.sampled_from([*KEYS, "nobody"])
times = st.builds(time, st.integers(0, 23), st.sampled_from([0, 7, 15, 30, 45]))
early = st.builds(time, st.integers(1, 3), st.sampled_from([0, 15, 30, 45]))  # clocks change then
calendars = st.sampled_from([ALWAYS, ALWAYS, OFFICE, SHORT_BREAK])
zones = st.sampled_from([SHANGHAI, CHICAGO, LORD_HOWE])
some_sites = st.sampled_from([(), (), ("gz",), ("chi", "lhi")])


def dates(begin: datetime, first: int, last: int) -> st.SearchStrategy[date]:
    return st.integers(first, last).map(lambda n: begin.date() + n * DAY)


@st.composite
def stretches(draw: st.DrawFn, begin: datetime) -> tuple[datetime, datetime]:
    since = draw(st.integers(0, MINUTES - 2))
    until = draw(st.integers(since + 1, MINUTES - 1))
    return begin + since * MINUTE, begin + until * MINUTE


@st.composite
def dated(draw: st.DrawFn, begin: datetime, earliest: int | None) -> Member:
    """A member; with `earliest` from that many days after the beginning at the earliest."""
    since = draw(st.one_of(st.none(), dates(begin, 1, 3)))
    if since is None and earliest is not None:
        since = begin.date() + earliest * DAY
    until = draw(st.one_of(st.none(), dates(begin, 2, 4)))
    if since is not None and until is not None and until <= since:
        until = None
    return Member(engineer=draw(people), since=since, until=until)


@st.composite
def rotations(draw: st.DrawFn, key: str, begin: datetime) -> Rotation:
    unit = draw(st.sampled_from([Unit.HOUR, Unit.DAY, Unit.DAY, Unit.WEEK, Unit.MONTH]))
    can_count = unit in (Unit.HOUR, Unit.DAY)
    return Rotation(
        key=key,
        team=draw(st.sampled_from(["desk", "desk", "field", "dask"])),
        sites=draw(some_sites),
        members=tuple(draw(st.lists(dated(begin, None), max_size=4))),
        unit=unit,
        length=draw(st.integers(1, 3 if unit is not Unit.HOUR else 30)),
        start=draw(dates(begin, 1, 2)),
        handoff=draw(st.one_of(times, early)),
        zone=draw(zones),
        count=draw(st.sampled_from(list(Count))) if can_count else Count.CALENDAR,
        hours=draw(calendars),
    )


@st.composite
def rotas(draw: st.DrawFn) -> tuple[datetime, Rota]:
    begin = draw(st.sampled_from(BEGINNINGS))
    place = {"team": st.sampled_from(["desk", "field"]), "sites": some_sites}
    since_until = stretches(begin)
    overrides = []
    for n in range(draw(st.integers(0, 3))):
        start, end = draw(since_until)
        overrides.append(
            Override(
                key=f"o{n}", tier=1, sites=draw(some_sites), engineer=draw(people), start=start,
                end=end, replaces=draw(st.one_of(st.just(""), people)),
                rank=draw(st.integers(0, 1)),
            )
        )  # fmt: skip
    swaps = []
    for n in range(draw(st.integers(0, 2))):
        one, other = draw(st.permutations(KEYS))[:2]
        first, second = draw(since_until), draw(since_until)
        swaps.append(
            Swap(
                key=f"s{n}",
                one=Stint(engineer=one, start=first[0], end=first[1]),
                other=Stint(engineer=other, start=second[0], end=second[1]),
            )
        )
    leaves = []
    for n in range(draw(st.integers(0, 4))):
        start, end = draw(since_until)
        leaves.append(
            Leave(
                key=f"l{n}", engineer=draw(people), start=start, end=end,
                backup=draw(st.one_of(st.just(""), people)),
            )
        )  # fmt: skip
    shifts = st.builds(
        FixedShift, key=st.just("f"), member=dated(begin, 1), **place,
        weekdays=st.frozensets(st.integers(0, 6), min_size=3),
        start=st.one_of(times, early), end=st.one_of(times, early),
    )  # fmt: skip
    windows = st.builds(
        Window, key=st.just("w"), member=dated(begin, 1), **place, hours=calendars,
        margin=st.sampled_from([timedelta(), RESIDENT_MARGIN]),
    )  # fmt: skip
    return begin, Rota(
        sites=(GZ, CHI, LHI),
        teams=(DESK, FIELD),
        engineers=tuple(draw(st.permutations(PEOPLE))),
        rotations=tuple(draw(rotations(f"r{n}", begin)) for n in range(draw(st.integers(0, 2)))),
        shifts=tuple(draw(st.lists(shifts, max_size=1))),
        windows=tuple(draw(st.lists(windows, max_size=1))),
        swaps=tuple(swaps),
        overrides=tuple(overrides),
        leaves=tuple(leaves),
    )


Minutes = list[tuple[str, object, str] | None]  # engineer, why, instead of whom


def painted(found: Iterable[Span], begin: datetime) -> dict[tuple[str, int], dict[Cause, Minutes]]:
    """Return the spans minute by minute, by site and tier and by layer; none may overlap."""
    table: dict[tuple[str, int], dict[Cause, Minutes]] = {}
    for span in found:
        since, until = ((at - begin) // MINUTE for at in (span.since, span.until))
        rows = table.setdefault((span.site, span.tier), {})
        row = rows.setdefault(span.why[0], [None] * MINUTES)
        assert row[since:until] == [None] * (until - since)
        why = tuple((str(cause.kind), cause.key) for cause in span.why)
        row[since:until] = [(span.engineer, why, span.instead_of)] * (until - since)
    return table


def expected(table: Table) -> dict[tuple[str, int], dict[Cause, Minutes]]:
    unplanned = Cause(kind=Why.UNPLANNED)
    hole = (HOLE, (("unplanned", ""),), "")
    found: dict[tuple[str, int], dict[Cause, Minutes]] = {}
    for place, rows in table.items():
        found[place] = {
            Cause(kind=Why(kind), key=key): [
                (cell.engineer, cell.why, cell.instead_of) if cell else None for cell in row
            ]
            for (kind, key), row in rows.items()
        }
        is_planned = [any(cells) for cells in zip(*rows.values(), strict=True)]
        is_planned = is_planned or [False] * MINUTES
        if not all(is_planned):
            found[place][unplanned] = [None if planned else hole for planned in is_planned]
    return found


@settings(max_examples=EXAMPLES, deadline=None)
@given(drawn=rotas())
def test_each_minute_is_what_a_clock_that_ticks_through_the_rota_says(
    drawn: tuple[datetime, Rota],
) -> None:
    begin, plan = drawn
    found = painted(spans(plan, begin, begin + MINUTES * MINUTE), begin)
    reference = expected(minute_table(plan, begin, MINUTES))
    assert set(found) == set(reference)
    for place, rows in reference.items():
        assert set(found[place]) == set(rows)
        for layer, row in rows.items():
            differs = (n for n in range(MINUTES) if found[place][layer][n] != row[n])
            if (n := next(differs, None)) is not None:
                told = (place, layer, begin + n * MINUTE, found[place][layer][n], row[n])
                pytest.fail(f"module and reference differ: {told}")


@settings(max_examples=EXAMPLES * 3, deadline=None)
@given(drawn=rotas(), data=st.data())
def test_what_is_asked_for_cuts_the_spans_and_changes_nothing_else(
    drawn: tuple[datetime, Rota], data: st.DataObject
) -> None:
    begin, plan = drawn
    start, end = data.draw(stretches(begin))
    whole = spans(plan, begin - 40 * DAY, begin + 20 * DAY)
    cut = [
        replace(span, since=max(span.since, start), until=min(span.until, end))
        for span in whole
        if span.since < end and span.until > start
    ]
    found = spans(plan, start, end)
    assert len(found) == len(cut)
    assert set(found) == set(cut)
