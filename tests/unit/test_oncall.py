"""Duty against worked examples and against a reference that looks at one minute after the other."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from contactd.errors import NotFound
from contactd.routing.oncall import (
    ANYWHERE,
    EVERYWHERE,
    FLOOR_KEY,
    FLOOR_TIER,
    Duty,
    Engineer,
    Override,
    Rota,
    Shift,
    Site,
    Why,
    duties,
    instant,
    next_duties,
    on_duty,
    problems,
)

ALL_DAYS = frozenset(range(7))
WORKDAYS = frozenset(range(5))
SHANGHAI = ZoneInfo("Asia/Shanghai")
CHICAGO = ZoneInfo("America/Chicago")

GZ = Site(
    key="gz", name_zh="广州", name_en="Guangzhou", zone="Asia/Shanghai", queue="gz", floor="8000"
)
CHI = Site(
    key="chi",
    name_zh="芝加哥",
    name_en="Chicago",
    zone="America/Chicago",
    queue="chi",
    floor="8009",
)
PEOPLE = tuple(
    Engineer(key=key, name=key.title(), number=f"+861380000000{n}")
    for n, key in enumerate(("wang", "li", "zhao", "chen"))
)


def shift(
    engineer: str,
    start: str,
    end: str,
    days: frozenset[int] = ALL_DAYS,
    tier: int = 1,
    site: str = "gz",
) -> Shift:
    return Shift(
        site=site,
        tier=tier,
        engineer=engineer,
        weekdays=days,
        start=time.fromisoformat(start),
        end=time.fromisoformat(end),
    )


def override(
    engineer: str, start: str, end: str, *, tier: int = 1, site: str = "gz", replaces: str = ""
) -> Override:
    zone = CHICAGO if site == "chi" else SHANGHAI
    return Override(
        site=site,
        tier=tier,
        engineer=engineer,
        start=datetime.fromisoformat(start).replace(tzinfo=zone),
        end=datetime.fromisoformat(end).replace(tzinfo=zone),
        replaces=replaces,
    )


def rota(*entries: Shift | Override, sites: tuple[Site, ...] = (GZ, CHI)) -> Rota:
    return Rota(
        sites=sites,
        engineers=PEOPLE,
        shifts=tuple(entry for entry in entries if isinstance(entry, Shift)),
        overrides=tuple(entry for entry in entries if isinstance(entry, Override)),
    )


def local(text: str, zone: ZoneInfo = SHANGHAI) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone)


def names(found: Iterable[Duty]) -> list[tuple[int, str]]:
    return [(duty.tier, duty.engineer.key) for duty in found]


def who(given_rota: Rota, at: str, site: str = "gz") -> list[tuple[int, str]]:
    zone = CHICAGO if site == "chi" else SHANGHAI
    return names(on_duty(given_rota, site, local(at, zone)))


# Worked examples. 2026-11-20 is a Friday.


def test_a_day_shift_holds_from_its_start_until_just_before_its_end() -> None:
    plan = rota(shift("wang", "08:00", "20:00"))
    assert who(plan, "2026-11-20 07:59:59") == [(FLOOR_TIER, FLOOR_KEY)]
    assert who(plan, "2026-11-20 08:00") == [(1, "wang")]
    assert who(plan, "2026-11-20 19:59:59") == [(1, "wang")]
    assert who(plan, "2026-11-20 20:00") == [(FLOOR_TIER, FLOOR_KEY)]


def test_a_shift_that_ends_before_it_starts_goes_over_midnight() -> None:
    plan = rota(shift("li", "20:00", "08:00", frozenset({4})))
    assert who(plan, "2026-11-20 19:59") == [(FLOOR_TIER, FLOOR_KEY)]
    assert who(plan, "2026-11-20 23:59") == [(1, "li")]
    assert who(plan, "2026-11-21 07:59") == [(1, "li")]
    assert who(plan, "2026-11-21 08:00") == [(FLOOR_TIER, FLOOR_KEY)]
    assert who(plan, "2026-11-20 07:00") == [(FLOOR_TIER, FLOOR_KEY)]


def test_a_shift_that_ends_when_it_starts_lasts_a_day() -> None:
    plan = rota(shift("li", "09:00", "09:00", frozenset({4})))
    assert who(plan, "2026-11-20 08:59") == [(FLOOR_TIER, FLOOR_KEY)]
    assert who(plan, "2026-11-21 08:59") == [(1, "li")]
    assert who(plan, "2026-11-21 09:00") == [(FLOOR_TIER, FLOOR_KEY)]


def test_tiers_come_in_order_and_within_a_tier_as_the_engineers_are_listed() -> None:
    plan = rota(
        shift("chen", "00:00", "00:00", tier=3),
        shift("zhao", "00:00", "00:00"),
        shift("li", "00:00", "00:00", tier=2),
        shift("wang", "00:00", "00:00"),
    )
    assert who(plan, "2026-11-20 12:00") == [(1, "wang"), (1, "zhao"), (2, "li"), (3, "chen")]


def test_a_shift_of_every_site_counts_in_the_time_zone_of_each() -> None:
    plan = rota(shift("wang", "08:00", "20:00", site=EVERYWHERE))
    noon_in_guangzhou = local("2026-11-20 12:00")  # 22:00 the day before in Chicago
    assert names(on_duty(plan, "gz", noon_in_guangzhou)) == [(1, "wang")]
    assert names(on_duty(plan, "chi", noon_in_guangzhou)) == [(FLOOR_TIER, FLOOR_KEY)]
    assert who(plan, "2026-11-20 12:00", "chi") == [(1, "wang")]


def test_the_floor_is_rung_when_nobody_has_a_shift() -> None:
    (duty,) = on_duty(rota(), "gz", local("2026-11-20 12:00"))
    assert duty.why is Why.FLOOR
    assert duty.engineer.number == "8000"
    assert duty.since < local("2026-11-20 12:00") < duty.until


def test_a_site_that_does_not_exist_is_refused() -> None:
    with pytest.raises(NotFound, match="nowhere"):
        on_duty(rota(), "nowhere", local("2026-11-20 12:00"))


def test_for_a_caller_of_no_known_site_everybody_on_duty_is_found_once() -> None:
    sz = replace(GZ, key="sz", queue="sz")
    plan = rota(
        shift("wang", "08:00", "20:00"),
        shift("li", "08:00", "20:00", tier=2),
        shift("li", "08:00", "20:00", site="sz"),
        shift("chen", "08:00", "20:00", tier=3, site=EVERYWHERE),
        sites=(GZ, sz),
    )
    assert who(plan, "2026-11-20 12:00", ANYWHERE) == [(1, "wang"), (1, "li"), (3, "chen")]


def test_for_a_caller_of_no_known_site_floors_are_rung_only_when_nobody_is_on_duty() -> None:
    sites = (GZ, replace(GZ, key="sz", floor="8001"), replace(GZ, key="zh"))
    found = on_duty(rota(sites=sites), ANYWHERE, local("2026-11-20 12:00"))
    assert [duty.engineer.number for duty in found] == ["8000", "8001"]
    half = rota(shift("wang", "00:00", "00:00"), sites=sites)
    assert who(half, "2026-11-20 12:00", ANYWHERE) == [(1, "wang")]
    with pytest.raises(NotFound, match="no sites"):
        on_duty(rota(sites=()), ANYWHERE, local("2026-11-20 12:00"))


def test_an_engineer_whom_nobody_knows_leaves_the_others_on_duty() -> None:
    plan = rota(
        shift("wang", "00:00", "00:00"),
        shift("wagn", "00:00", "00:00"),
        override("nobody", "2026-11-20 00:00", "2026-11-21 00:00"),
    )
    assert who(plan, "2026-11-20 12:00") == [(1, "wang")]


def test_a_replacement_works_when_the_replaced_person_would_have() -> None:
    plan = rota(
        shift("wang", "08:00", "20:00"),
        shift("zhao", "08:00", "20:00"),
        override("li", "2026-11-20 12:00", "2026-11-21 12:00", replaces="wang"),
    )
    assert who(plan, "2026-11-20 11:59") == [(1, "wang"), (1, "zhao")]
    assert who(plan, "2026-11-20 12:00") == [(1, "li"), (1, "zhao")]
    assert who(plan, "2026-11-20 22:00") == [(FLOOR_TIER, FLOOR_KEY)]
    assert who(plan, "2026-11-21 11:59") == [(1, "li"), (1, "zhao")]
    assert who(plan, "2026-11-21 12:00") == [(1, "wang"), (1, "zhao")]


def test_a_replacement_leaves_the_same_person_at_another_tier_alone() -> None:
    plan = rota(
        shift("wang", "08:00", "20:00"),
        shift("wang", "08:00", "20:00", tier=2),
        override("li", "2026-11-20 00:00", "2026-11-21 00:00", replaces="wang"),
    )
    assert who(plan, "2026-11-20 12:00") == [(1, "li"), (2, "wang")]


def test_a_stand_in_can_be_stood_in_for() -> None:
    plan = rota(
        shift("wang", "08:00", "20:00"),
        override("li", "2026-11-20 00:00", "2026-11-21 00:00", replaces="wang"),
        override("zhao", "2026-11-20 10:00", "2026-11-20 12:00", replaces="li"),
    )
    assert who(plan, "2026-11-20 09:00") == [(1, "li")]
    assert who(plan, "2026-11-20 11:00") == [(1, "zhao")]
    assert who(plan, "2026-11-20 13:00") == [(1, "li")]


def test_an_override_of_nobody_takes_over_its_whole_tier_even_without_a_shift() -> None:
    plan = rota(
        shift("wang", "08:00", "20:00"),
        shift("zhao", "08:00", "20:00"),
        shift("li", "08:00", "20:00", tier=2),
        override("chen", "2026-11-20 18:00", "2026-11-20 22:00"),
    )
    assert who(plan, "2026-11-20 17:59") == [(1, "wang"), (1, "zhao"), (2, "li")]
    assert who(plan, "2026-11-20 18:00") == [(1, "chen"), (2, "li")]
    assert who(plan, "2026-11-20 21:59") == [(1, "chen")]
    assert who(plan, "2026-11-20 22:00") == [(FLOOR_TIER, FLOOR_KEY)]


def test_two_who_take_over_the_same_tier_share_it() -> None:
    plan = rota(
        shift("wang", "08:00", "20:00"),
        override("chen", "2026-11-20 08:00", "2026-11-20 20:00"),
        override("li", "2026-11-20 12:00", "2026-11-20 20:00"),
    )
    assert who(plan, "2026-11-20 10:00") == [(1, "chen")]
    assert who(plan, "2026-11-20 13:00") == [(1, "li"), (1, "chen")]


def test_a_duty_tells_since_when_until_when_and_why() -> None:
    plan = rota(
        shift("wang", "08:00", "20:00"),
        override("li", "2026-11-20 12:00", "2026-11-20 13:00", replaces="wang"),
    )
    (before,) = on_duty(plan, "gz", local("2026-11-20 09:00"))
    (during,) = on_duty(plan, "gz", local("2026-11-20 12:30"))
    (after,) = on_duty(plan, "gz", local("2026-11-20 19:00"))
    assert (before.since, before.until, before.why) == (
        local("2026-11-20 08:00"), local("2026-11-20 12:00"), Why.SHIFT,
    )  # fmt: skip
    assert (during.since, during.until, during.why) == (
        local("2026-11-20 12:00"), local("2026-11-20 13:00"), Why.OVERRIDE,
    )  # fmt: skip
    assert (after.since, after.until) == (local("2026-11-20 13:00"), local("2026-11-20 20:00"))
    assert before.since.tzinfo is UTC
    assert during.until.tzinfo is UTC


def test_a_person_with_two_shifts_at_once_is_on_duty_once() -> None:
    plan = rota(shift("wang", "08:00", "18:00"), shift("wang", "12:00", "20:00", site=EVERYWHERE))
    (duty,) = on_duty(plan, "gz", local("2026-11-20 13:00"))
    assert (duty.since, duty.until) == (local("2026-11-20 08:00"), local("2026-11-20 20:00"))


# Clock changes: Chicago goes from 02:00 to 03:00 on 2026-03-08, from 02:00 to 01:00 on 2026-11-01.


@pytest.mark.parametrize(
    ("day", "wall", "zone", "utc"),
    [
        ("2026-03-08", "01:59", CHICAGO, "2026-03-08T07:59"),
        ("2026-03-08", "02:00", CHICAGO, "2026-03-08T08:00"),  # the first instant after the gap
        ("2026-03-08", "02:30", CHICAGO, "2026-03-08T08:00"),
        ("2026-03-08", "02:59:59.5", CHICAGO, "2026-03-08T08:00"),
        ("2026-03-08", "03:00", CHICAGO, "2026-03-08T08:00"),
        ("2026-11-01", "01:30", CHICAGO, "2026-11-01T06:30"),  # the first of two
        ("2026-11-01", "02:00", CHICAGO, "2026-11-01T08:00"),
        ("2026-11-20", "09:00", SHANGHAI, "2026-11-20T01:00"),
        ("2011-12-30", "12:00", ZoneInfo("Pacific/Apia"), "2011-12-30T10:00"),  # no such date
    ],
)
def test_a_wall_clock_time_is_one_instant(day: str, wall: str, zone: ZoneInfo, utc: str) -> None:
    found = instant(date.fromisoformat(day), time.fromisoformat(wall), zone)
    assert found == datetime.fromisoformat(utc).replace(tzinfo=UTC)


def test_a_shift_that_starts_in_the_gap_starts_right_after_it() -> None:
    plan = rota(shift("wang", "02:30", "10:00", site="chi"))
    (duty,) = on_duty(plan, "chi", local("2026-03-08 05:00", CHICAGO))
    assert duty.since == datetime(2026, 3, 8, 8, 0, tzinfo=UTC)


def test_a_shift_inside_the_gap_does_not_happen() -> None:
    plan = rota(shift("wang", "02:15", "02:45", site="chi"))
    day = datetime(2026, 3, 8, 6, tzinfo=UTC)
    found = duties(plan, "chi", day, day + timedelta(hours=12))
    assert names(found) == [(FLOOR_TIER, FLOOR_KEY)]


def test_shifts_that_touch_on_the_clock_leave_no_hole_when_the_clocks_change() -> None:
    plan = rota(
        shift("wang", "01:30", "02:30", site="chi"), shift("li", "02:30", "01:30", site="chi")
    )
    for day in (datetime(2026, 3, 7, tzinfo=UTC), datetime(2026, 10, 31, tzinfo=UTC)):
        found = duties(plan, "chi", day, day + timedelta(days=3))
        assert FLOOR_KEY not in {duty.engineer.key for duty in found}


def test_a_night_shift_lasts_an_hour_longer_when_the_clocks_go_back() -> None:
    plan = rota(shift("wang", "22:00", "06:00", site="chi"))
    (duty,) = on_duty(plan, "chi", local("2026-11-01 00:00", CHICAGO))
    assert duty.until - duty.since == timedelta(hours=9)


# Who comes next


def test_next_is_who_comes_at_each_tier_and_when() -> None:
    plan = rota(
        shift("wang", "08:00", "20:00"),
        shift("li", "20:00", "08:00"),
        shift("zhao", "09:00", "18:00", WORKDAYS, tier=2),
        shift("chen", "09:00", "18:00", frozenset({5, 6}), tier=2),
    )
    found = next_duties(plan, "gz", local("2026-11-20 12:00"))
    assert [(duty.tier, duty.engineer.key, duty.since) for duty in found] == [
        (1, "li", local("2026-11-20 20:00")),
        (2, "chen", local("2026-11-21 09:00")),
    ]


def test_somebody_who_goes_on_does_not_come_next() -> None:
    assert next_duties(rota(shift("wang", "08:00", "08:00")), "gz", local("2026-11-20 12:00")) == ()


def test_the_floor_comes_next_when_everybody_leaves() -> None:
    found = next_duties(rota(shift("wang", "08:00", "20:00")), "gz", local("2026-11-20 12:00"))
    assert [(duty.engineer.key, duty.since) for duty in found] == [
        (FLOOR_KEY, local("2026-11-20 20:00")),
        ("wang", local("2026-11-21 08:00")),
    ]


# What is wrong with a rota


def test_a_sound_rota_has_no_problems() -> None:
    plan = rota(
        shift("wang", "08:00", "20:00"),
        shift("li", "20:00", "08:00"),
        shift("chen", "00:00", "00:00", tier=3, site=EVERYWHERE),
        override("zhao", "2026-11-20 12:00", "2026-11-21 12:00", replaces="wang"),
        sites=(GZ,),
    )
    assert problems(plan) == []


def test_unknown_names_and_senseless_times_are_problems() -> None:
    plan = rota(
        shift("wagn", "00:00", "00:00", site="gz"),
        shift("wang", "00:00", "00:00", site=EVERYWHERE),
        shift("wang", "00:00", "00:00", tier=2, site="guangzhou"),
        override("li", "2026-11-21 00:00", "2026-11-20 00:00", replaces="wong"),
        sites=(replace(GZ, floor=""),),
    )
    assert problems(plan) == [
        "shift 1 (site gz, tier 1): there is no engineer 'wagn'",
        "shift 3 (site guangzhou, tier 2): there is no site 'guangzhou'",
        "override 1 (site gz, tier 1): there is no engineer 'wong'",
        "site gz: it has no floor number",
        "override 1 (site gz, tier 1): it ends before it starts",
    ]


def test_a_wrong_time_zone_is_a_problem_and_not_a_crash() -> None:
    plan = rota(shift("wang", "00:00", "00:00"), sites=(replace(GZ, zone="Asia/Guangzhou"),))
    assert problems(plan) == ["site gz: 'Asia/Guangzhou' is not a time zone"]


def test_weekly_times_without_anybody_are_told_as_ranges() -> None:
    plan = rota(
        shift("wang", "08:00", "18:00", WORKDAYS),
        shift("li", "18:00", "08:00", frozenset(range(4))),
        sites=(GZ,),
    )
    assert problems(plan) == [
        "site gz: nobody is on duty Fri 18:00–Mon 08:00; its floor number rings"
    ]


def test_several_ranges_without_anybody_are_told_in_one_line() -> None:
    plan = rota(shift("wang", "06:00", "05:30", frozenset({0, 1, 2, 3, 4, 5, 6})), sites=(GZ,))
    (line,) = problems(plan)
    assert line.startswith("site gz: nobody is on duty Mon 05:30–Mon 06:00, Tue 05:30–Tue 06:00, ")


def test_a_site_without_any_shift_is_a_problem() -> None:
    assert problems(rota(sites=(GZ,))) == [
        "site gz: nobody is on duty at any time; its floor number rings"
    ]


def test_one_person_at_two_sites_at_once_is_a_problem() -> None:
    sz = replace(GZ, key="sz", queue="sz")
    plan = rota(
        shift("wang", "00:00", "00:00"),
        shift("li", "00:00", "00:00", site="sz"),
        shift("wang", "12:00", "14:00", frozenset({2}), tier=2, site="sz"),
        sites=(GZ, sz),
    )
    assert problems(plan) == ["engineer wang is on duty at gz and at sz Wed 12:00–Wed 14:00"]


def test_an_override_that_puts_a_person_at_two_sites_is_a_problem_with_its_date() -> None:
    sz = replace(GZ, key="sz", queue="sz")
    plan = rota(
        shift("wang", "00:00", "00:00"),
        shift("li", "00:00", "00:00", site="sz"),
        override("wang", "2026-12-24 22:00", "2026-12-25 06:00", site="sz", replaces="li"),
        sites=(GZ, sz),
    )
    assert problems(plan) == [
        "engineer wang is on duty at gz and at sz 2026-12-24 22:00–2026-12-25 00:00",
        "engineer wang is on duty at gz and at sz 2026-12-25 00:00–2026-12-25 06:00",
    ]


def test_a_stand_in_for_somebody_who_is_not_on_duty_is_a_problem() -> None:
    plan = rota(
        shift("wang", "00:00", "00:00"),
        override("li", "2026-11-20 00:00", "2026-11-21 00:00", replaces="zhao"),
        sites=(GZ,),
    )
    assert problems(plan) == [
        "override 1 (site gz, tier 1): zhao is not on duty then, so that li is not either"
    ]


# The reference: everything is looked up for one minute, nothing is computed as an interval


@cache
def first_minute(naive: datetime, zone: ZoneInfo) -> datetime:
    """The first minute at which the clocks of `zone` show `naive` or anything later."""
    minute = naive.replace(tzinfo=UTC) - timedelta(hours=16)
    while minute.astimezone(zone).replace(tzinfo=None) < naive:
        minute += timedelta(minutes=1)
    return minute


def works(entry: Shift, site: Site, at: datetime) -> bool:
    zone = ZoneInfo(site.zone)
    today = at.astimezone(zone).date()
    for day in (today + timedelta(days=n) for n in range(-3, 3)):
        if day.weekday() in entry.weekdays:
            last = day + timedelta(days=1 if entry.end <= entry.start else 0)
            since = first_minute(datetime.combine(day, entry.start), zone)
            if since <= at < first_minute(datetime.combine(last, entry.end), zone):
                return True
    return False


def reference(plan: Rota, site: Site, at: datetime) -> set[tuple[int, str]]:
    here = (site.key, EVERYWHERE)
    now = [o for o in plan.overrides if o.site in here and o.start <= at < o.end]
    taken = {(o.tier, o.engineer) for o in now if not o.replaces}
    found = {
        (entry.tier, entry.engineer)
        for entry in plan.shifts
        if entry.site in here
        and entry.tier not in {tier for tier, _ in taken}
        and works(entry, site, at)
    } | taken
    for o in now:
        if o.replaces and (o.tier, o.replaces) in found:
            found = (found - {(o.tier, o.replaces)}) | {(o.tier, o.engineer)}
    return found or {(FLOOR_TIER, FLOOR_KEY)}


CHANGES = [  # around the clock changes of 2026, and at no change at all
    datetime(2026, 3, 6, tzinfo=UTC),
    datetime(2026, 10, 30, tzinfo=UTC),
    datetime(2026, 11, 20, tzinfo=UTC),
]
quarters = st.builds(time, st.integers(0, 23), st.sampled_from([0, 15, 30, 45]))
minutes = st.builds(
    lambda base, minute: base + timedelta(minutes=minute),
    st.sampled_from(CHANGES),
    st.integers(0, 4 * 24 * 60),
)
people = st.sampled_from([engineer.key for engineer in PEOPLE])
places = st.sampled_from(["gz", "chi", EVERYWHERE])
shifts = st.builds(
    Shift,
    site=places,
    tier=st.integers(1, 2),
    engineer=people,
    weekdays=st.frozensets(st.integers(0, 6), min_size=1),
    start=quarters,
    end=quarters,
)
overrides = st.builds(
    Override,
    site=places,
    tier=st.integers(1, 2),
    engineer=people,
    start=minutes,
    end=minutes,
    replaces=st.one_of(st.just(""), people),
)
rotas = st.builds(
    Rota,
    sites=st.just((GZ, CHI)),
    engineers=st.just(PEOPLE),
    shifts=st.lists(shifts, max_size=5).map(tuple),
    overrides=st.lists(overrides, max_size=3).map(tuple),
)


@settings(max_examples=150, deadline=None)
@given(plan=rotas, site=st.sampled_from([GZ, CHI]), at=minutes)
def test_duty_is_what_looking_at_the_minute_says(plan: Rota, site: Site, at: datetime) -> None:
    found = on_duty(plan, site.key, at)
    assert len(set(names(found))) == len(found) > 0
    assert set(names(found)) == reference(plan, site, at)
    assert all(duty.since <= at < duty.until for duty in found)


@settings(max_examples=60, deadline=None)
@given(
    plan=rotas, site=st.sampled_from([GZ, CHI]), start=minutes, length=st.integers(1, 3 * 24 * 60)
)
def test_the_duties_of_a_time_are_those_of_each_of_its_minutes(
    plan: Rota, site: Site, start: datetime, length: int
) -> None:
    found = duties(plan, site.key, start, start + timedelta(minutes=length))
    for minute in range(0, length, 17):
        at = start + timedelta(minutes=minute)
        now = {(d.tier, d.engineer.key) for d in found if d.since <= at < d.until}
        assert now == reference(plan, site, at)


@settings(max_examples=60, deadline=None)
@given(plan=rotas, site=st.sampled_from([GZ, CHI]), at=minutes)
def test_next_is_the_first_minute_at_which_somebody_joins_a_tier(
    plan: Rota, site: Site, at: datetime
) -> None:
    coming: dict[int, tuple[datetime, set[str]]] = {}
    before = reference(plan, site, at)
    for minute in range(1, 24 * 60):
        later = at + timedelta(minutes=minute)
        now = reference(plan, site, later)
        for tier, engineer in now - before:
            coming.setdefault(tier, (later, set()))
            if coming[tier][0] == later:
                coming[tier][1].add(engineer)
        before = now
    found = next_duties(plan, site.key, at)
    for tier, (since, engineers) in coming.items():
        mine = [duty for duty in found if duty.tier == tier]
        assert {duty.since for duty in mine} == {since}
        assert {duty.engineer.key for duty in mine} == engineers


@settings(max_examples=40, deadline=None)
@given(plan=rotas)
def test_problems_names_every_weekly_minute_without_anybody(plan: Rota) -> None:
    assume(all(entry.site == EVERYWHERE or entry.site == "gz" for entry in plan.shifts))
    plain = replace(plan, sites=(GZ,), overrides=())
    monday = local("2026-01-05 00:00")
    uncovered = any(
        reference(plain, GZ, monday + timedelta(minutes=15 * quarter)) == {(FLOOR_TIER, FLOOR_KEY)}
        for quarter in range(7 * 24 * 4)
    )
    assert any("nobody is on duty" in line for line in problems(plain)) is uncovered
