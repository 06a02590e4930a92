"""Calendars against worked checks, laws, a reference minute by minute and two other sources."""

import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import chinese_calendar  # type: ignore[import-untyped]
import holidays
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contactd.errors import ConfigurationError
from contactd.routing.calendars import (
    ALWAYS,
    Due,
    HolidayData,
    Period,
    Periods,
    WorkingCalendar,
    add,
    between,
    is_open,
    moved,
    needs_confirmation,
    open_periods,
    read_calendar_data,
    with_holidays,
)

EXAMPLES = int(os.environ.get("CONTACTD_EXAMPLES", "100"))
CN = Path(__file__).parents[2] / "etc" / "calendars" / "cn.toml"
SHANGHAI = ZoneInfo("Asia/Shanghai")
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


def period(text: str) -> Period:
    opens, closes = text.replace("24:00", "00:00").split("-")
    return time.fromisoformat(opens), time.fromisoformat(closes)


def hours(text: str) -> Periods:
    return tuple(period(part) for part in text.split())


def calendar(text: str, weekdays: str = "01234", zone: str = "Asia/Shanghai") -> WorkingCalendar:
    return WorkingCalendar(
        name="test", zone=zone, weekly={int(weekday): hours(text) for weekday in weekdays}
    )


def at(text: str, zone: str = "Asia/Shanghai") -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))


OFFICE = calendar("09:00-12:00 13:00-18:00")


@cache
def cn() -> HolidayData:
    return read_calendar_data(CN.read_text(encoding="utf-8"))


@cache
def chinese_office() -> WorkingCalendar:
    return with_holidays(OFFICE, cn())


def due(start: str, work: timedelta) -> str:
    return f"{add(chinese_office(), at(start), work).at.astimezone(SHANGHAI):%a %Y-%m-%d %H:%M}"


# Worked checks


@pytest.mark.parametrize(
    ("start", "work", "expected"),
    [
        ("2026-02-14 17:30", 2, "Tue 2026-02-24 10:30"),  # a make-up Saturday, then nine days off
        ("2026-09-30 17:30", 4, "Thu 2026-10-08 13:30"),
        ("2026-10-10 09:00", 2, "Sat 2026-10-10 11:00"),  # a make-up Saturday
        ("2026-11-20 11:30", 1, "Fri 2026-11-20 13:30"),  # over lunch
        ("2026-11-20 11:00", 1, "Fri 2026-11-20 12:00"),  # ends with the period, not after lunch
        ("2026-11-20 17:00", 2, "Mon 2026-11-23 10:00"),
        ("2026-11-21 03:00", 1, "Mon 2026-11-23 10:00"),
    ],
)
def test_the_worked_checks_of_the_facts_come_out(start: str, work: int, expected: str) -> None:
    assert due(start, work * HOUR) == expected


def test_no_work_is_due_at_once_even_when_closed() -> None:
    closed = at("2027-01-02 03:00")
    assert add(chinese_office(), closed, timedelta()) == Due(
        at=closed.astimezone(UTC), provisional=False
    )


def test_a_period_holds_from_its_start_until_just_before_its_end() -> None:
    assert not is_open(OFFICE, at("2026-11-20 08:59:59.999999"))
    assert is_open(OFFICE, at("2026-11-20 09:00"))
    assert is_open(OFFICE, at("2026-11-20 11:59:59.999999"))
    assert not is_open(OFFICE, at("2026-11-20 12:00"))


def test_a_period_may_end_at_midnight_and_go_on_the_next_day() -> None:
    night = replace(OFFICE, weekly={4: hours("22:00-24:00"), 5: hours("00:00-06:00")})
    found = list(open_periods(night, at("2026-11-20 12:00"), at("2026-11-22 12:00")))
    assert found == [(at("2026-11-20 22:00"), at("2026-11-21 06:00"))]
    assert all(edge.tzinfo is UTC for pair in found for edge in pair)
    assert is_open(night, at("2026-11-20 23:59:59"))
    assert not is_open(night, at("2026-11-21 06:00"))
    assert between(night, at("2026-11-20 23:00"), at("2026-11-21 01:00")) == 2 * HOUR


def test_open_periods_are_cut_to_what_was_asked_for() -> None:
    found = list(open_periods(OFFICE, at("2026-11-20 10:00"), at("2026-11-20 14:00")))
    assert found == [
        (at("2026-11-20 10:00"), at("2026-11-20 12:00")),
        (at("2026-11-20 13:00"), at("2026-11-20 14:00")),
    ]
    assert list(open_periods(OFFICE, at("2026-11-21 10:00"), at("2026-11-22 14:00"))) == []


def test_always_is_open_without_end_and_never_provisional() -> None:
    start = datetime(2026, 12, 31, 23, 59, 59, 5, tzinfo=UTC)
    assert add(ALWAYS, start, 30 * DAY) == Due(at=start + 30 * DAY, provisional=False)
    assert list(open_periods(ALWAYS, start, start + 9 * DAY)) == [(start, start + 9 * DAY)]
    assert is_open(ALWAYS, start)


# Clock changes. Chicago: a gap at 02:00 on 2026-03-08, 01:00–02:00 twice on 2026-11-01.
# Lord Howe moves by half an hour: a gap at 02:00 on 2026-10-04, 01:30–02:00 twice on 2026-04-05.
# Samoa had no 2011-12-30. In Newfoundland 23:01–24:00 came twice on 2010-11-06, the second time
# after the first minute of the next day.


@pytest.mark.parametrize(
    ("zone", "day", "text", "minutes"),
    [
        ("America/Chicago", "2026-03-08", "00:00-24:00", 23 * 60),
        ("America/Chicago", "2026-03-08", "01:00-04:00", 120),
        ("America/Chicago", "2026-03-08", "01:00-02:30", 60),
        ("America/Chicago", "2026-03-08", "02:30-04:00", 60),
        ("America/Chicago", "2026-03-08", "02:15-02:45", 0),
        ("America/Chicago", "2026-11-01", "00:00-24:00", 25 * 60),
        ("America/Chicago", "2026-11-01", "00:00-03:00", 240),
        ("America/Chicago", "2026-11-01", "00:30-01:30", 60),
        ("America/Chicago", "2026-11-01", "01:30-02:00", 90),
        ("Australia/Lord_Howe", "2026-10-04", "01:00-03:00", 90),
        ("Australia/Lord_Howe", "2026-04-05", "01:00-03:00", 150),
        ("Pacific/Apia", "2011-12-30", "00:00-24:00", 0),
        ("America/St_Johns", "2010-11-06", "22:00-24:00", 120),
        ("America/St_Johns", "2010-11-07", "00:00-01:00", 120),
        ("Asia/Shanghai", "2026-03-08", "01:00-04:00", 180),
    ],
)
def test_what_a_clock_change_leaves_of_a_period_is_its_elapsed_time(
    zone: str, day: str, text: str, minutes: int
) -> None:
    only = replace(calendar(text, "", zone=zone), days={date.fromisoformat(day): hours(text)})
    start = at(day, zone)
    assert between(only, start - 2 * DAY, start + 3 * DAY) == minutes * MINUTE


def test_work_goes_on_in_real_time_through_a_clock_change() -> None:
    night = calendar("00:00-06:00", "6", zone="America/Chicago")
    gap = add(night, at("2026-03-08 01:30", "America/Chicago"), HOUR)
    twice = add(night, at("2026-11-01 00:30", "America/Chicago"), 2 * HOUR)
    assert gap.at == datetime(2026, 3, 8, 8, 30, tzinfo=UTC)  # 03:30 on the clock
    assert twice.at == datetime(2026, 11, 1, 7, 30, tzinfo=UTC)  # the second 01:30


def test_an_hour_that_comes_twice_is_measured_by_its_instants_not_by_its_clock() -> None:
    night = calendar("00:00-06:00", "6", zone="America/Chicago")
    first = at("2026-11-01 01:30", "America/Chicago")
    second = at("2026-11-01 01:10", "America/Chicago").replace(fold=1)
    assert between(night, first, second) == 40 * MINUTE
    assert list(open_periods(night, first, second)) == [
        (first.astimezone(UTC), second.astimezone(UTC))
    ]


def test_a_date_that_began_before_the_clocks_went_back_over_midnight_stays_begun() -> None:
    sunday = calendar("00:00-01:00", "6", zone="America/St_Johns")
    again = datetime(2010, 11, 7, 2, 45, tzinfo=UTC)  # the second 23:15 of Saturday
    assert is_open(sunday, again)
    assert between(sunday, again, again + 5 * MINUTE) == 5 * MINUTE
    saturday = calendar("22:00-24:00", "5", zone="America/St_Johns")
    assert not is_open(saturday, again)


# Bad input


def test_a_calendar_without_open_time_fails_instead_of_looking_for_ever() -> None:
    closed = calendar("09:00-12:00", "")
    start = at("2026-11-20 09:00")
    with pytest.raises(ConfigurationError) as error:
        add(closed, start, HOUR)
    assert str(error.value) == (
        "calendar 'test': 1:00:00 of open time after 2026-11-20T01:00:00Z "
        "does not pass within five years"
    )
    late = replace(closed, days={date(2031, 11, 20): hours("09:00-12:00")})
    assert add(late, start, HOUR).at == at("2031-11-20 10:00")
    once = replace(closed, days={date(2026, 12, 1): hours("09:00-12:00")})
    assert add(once, start, 3 * HOUR).at == at("2026-12-01 12:00")
    with pytest.raises(ConfigurationError, match=r"within five years"):
        add(once, start, 3 * HOUR + timedelta.resolution)


def test_an_instant_without_a_zone_is_refused_by_its_name() -> None:
    naive = datetime(2026, 11, 20, 9, 0)  # noqa: DTZ001
    aware = at("2026-11-20 09:00")
    with pytest.raises(ValueError, match=r"^start: .* has no time zone$"):
        add(OFFICE, naive, HOUR)
    with pytest.raises(ValueError, match=r"^at: .* has no time zone$"):
        is_open(OFFICE, naive)
    with pytest.raises(ValueError, match=r"^end: .* has no time zone$"):
        between(OFFICE, aware, naive)
    with pytest.raises(ValueError, match=r"^start: .* has no time zone$"):
        open_periods(OFFICE, naive, aware)


def test_time_does_not_run_backwards() -> None:
    start = at("2026-11-20 09:00")
    with pytest.raises(ValueError, match=r"^work: must not be negative"):
        add(OFFICE, start, -HOUR)
    with pytest.raises(ValueError, match=r"^end: .* is before the start"):
        between(OFFICE, start, start - HOUR)


def test_a_senseless_calendar_says_everything_that_is_wrong_with_it() -> None:
    with pytest.raises(ValueError, match=r"senseless") as error:
        WorkingCalendar(
            name="senseless",
            zone="Asia/Nowhere",
            weekly={
                0: hours("12:00-09:00"),
                1: hours("09:00-12:00 11:00-13:00"),
                2: hours("20:00-24:00 21:00-22:00"),
                7: hours("09:00-12:00"),
            },
            days={date(2026, 11, 20): ((time(9, tzinfo=UTC), time(10, tzinfo=UTC)),)},
        )
    assert str(error.value).splitlines() == [
        "calendar 'senseless': zone: 'Asia/Nowhere' is not a time zone of the IANA database",
        "calendar 'senseless': weekly[0]: 12:00–09:00 must end after it starts; "
        "split it at midnight",
        "calendar 'senseless': weekly[1]: 11:00–13:00 must not start before 09:00–12:00 has ended",
        "calendar 'senseless': weekly[2]: 21:00–22:00 must not start before 20:00–24:00 has ended",
        "calendar 'senseless': weekly: 7 is not a weekday (0 is Monday, 6 is Sunday)",
        "calendar 'senseless': days[2026-11-20]: times must be without a zone: "
        "the calendar has one",
    ]


# Laws, around clock changes and in a plain week. Boundaries are on tens of minutes; instants and
# work are not.

AROUND = (
    ("America/Chicago", datetime(2026, 3, 8, tzinfo=UTC)),
    ("America/Chicago", datetime(2026, 11, 1, tzinfo=UTC)),
    ("America/Havana", datetime(2026, 3, 8, tzinfo=UTC)),
    ("America/Havana", datetime(2026, 11, 1, tzinfo=UTC)),
    ("America/St_Johns", datetime(2010, 11, 7, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 4, 5, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 10, 4, tzinfo=UTC)),
    ("Pacific/Apia", datetime(2011, 12, 30, tzinfo=UTC)),
    ("Asia/Shanghai", datetime(2026, 7, 15, tzinfo=UTC)),
)


@st.composite
def some_periods(draw: st.DrawFn, *, at_least: int = 0) -> Periods:
    count = draw(st.integers(at_least, 3))
    edge = st.integers(0, 24) | st.integers(0, 144)  # clocks change early in the day
    edges = draw(st.lists(edge, min_size=2 * count, max_size=2 * count, unique=True))
    edges.sort()
    clock = [time(tens // 6 % 24, tens % 6 * 10) for tens in edges]
    found = list(zip(clock[::2], clock[1::2], strict=True))
    if len(found) > 1 and draw(st.booleans()):  # two that touch
        found[1] = (found[0][1], found[1][1])
    return tuple(found)


@st.composite
def cases(
    draw: st.DrawFn, instants: int, *, daily: bool = False
) -> tuple[WorkingCalendar, list[datetime]]:
    """Return a calendar and so many instants in order, all around one of AROUND."""
    zone, around = draw(st.sampled_from(AROUND))
    open_days = range(7) if daily else draw(st.sets(st.integers(0, 6), min_size=1))
    some = WorkingCalendar(
        name="drawn",
        zone=zone,
        weekly={weekday: draw(some_periods(at_least=1)) for weekday in open_days},
        days={
            around.date() + offset * DAY: draw(some_periods())
            for offset in draw(st.sets(st.integers(-2, 3), max_size=3))
        },
    )
    offsets = st.timedeltas(-2 * DAY, 3 * DAY)
    return some, sorted(around + draw(offsets) for _ in range(instants))


works = st.timedeltas(timedelta(), 20 * HOUR)


@settings(max_examples=EXAMPLES)
@given(cases(1), works)
def test_between_a_start_and_its_due_date_lies_the_work(
    case: tuple[WorkingCalendar, list[datetime]], work: timedelta
) -> None:
    some, (start,) = case
    found = add(some, start, work).at
    assert between(some, start, found) == work
    assert not work or is_open(some, found - timedelta.resolution)  # and it is the first such


@settings(max_examples=EXAMPLES)
@given(cases(2), works, works)
def test_who_starts_later_or_has_more_to_do_is_not_done_earlier(
    case: tuple[WorkingCalendar, list[datetime]], work: timedelta, more: timedelta
) -> None:
    some, (start, later) = case
    found = add(some, start, work).at
    assert add(some, later, work).at >= found
    assert add(some, start, work + more).at >= found
    assert add(some, found, more).at == add(some, start, work + more).at or not more


@settings(max_examples=EXAMPLES)
@given(cases(3))
def test_open_time_adds_up(case: tuple[WorkingCalendar, list[datetime]]) -> None:
    some, (first, middle, last) = case
    whole = between(some, first, last)
    assert between(some, first, middle) + between(some, middle, last) == whole
    periods = list(open_periods(some, first, last))
    assert sum((until - since for since, until in periods), timedelta()) == whole


@settings(max_examples=EXAMPLES)
@given(cases(2))
def test_open_periods_come_in_order_do_not_touch_and_are_open(
    case: tuple[WorkingCalendar, list[datetime]],
) -> None:
    some, (start, end) = case
    periods = list(open_periods(some, start, end))
    assert all(start <= since < until <= end for since, until in periods)
    assert all(until < since for (_, until), (since, _) in pairwise(periods))
    assert all(is_open(some, since) for since, _ in periods)
    assert not any(is_open(some, until) for _, until in periods if until < end)


# The reference knows no intervals: it looks at the clock each minute. The clock's furthest reading
# so far decides, so that an hour that comes twice does not reopen what has ended.


def open_minutes(some: WorkingCalendar, start: datetime, end: datetime) -> Iterator[datetime]:
    """Return each minute that begins in the time from `start` to `end` and is open."""
    zone = ZoneInfo(some.zone)
    furthest = datetime.min  # noqa: DTZ901
    minute = start - 2 * DAY
    while minute < end:
        furthest = max(furthest, minute.astimezone(zone).replace(tzinfo=None))
        of_the_day = some.weekly.get(furthest.weekday(), ())
        for opens, closes in some.days.get(furthest.date(), of_the_day):
            begun = opens <= furthest.time()
            ended = closes != time() and closes <= furthest.time()
            if begun and not ended and minute >= start:
                yield minute
        minute += MINUTE


def on_the_minute(instant: datetime) -> datetime:
    return instant.replace(second=0, microsecond=0)


@settings(max_examples=EXAMPLES)
@given(cases(2))
def test_open_time_is_the_number_of_minutes_that_the_reference_finds_open(
    case: tuple[WorkingCalendar, list[datetime]],
) -> None:
    some, (start, end) = case[0], map(on_the_minute, case[1])
    expected = set(open_minutes(some, start, end))
    assert between(some, start, end) == len(expected) * MINUTE
    found = {
        since + n * MINUTE
        for since, until in open_periods(some, start, end)
        for n in range((until - since) // MINUTE)
    }
    assert found == expected


@settings(max_examples=EXAMPLES)
@given(cases(1, daily=True), st.integers(1, 600))
def test_work_is_due_when_the_reference_has_counted_its_minutes(
    case: tuple[WorkingCalendar, list[datetime]], minutes: int
) -> None:
    some, start = case[0], on_the_minute(case[1][0])
    counted = open_minutes(some, start, start + 9 * DAY)
    last = next((minute for n, minute in enumerate(counted, 1) if n == minutes), None)
    if last is None:
        assert add(some, start, minutes * MINUTE).at > start + 9 * DAY
    else:
        assert add(some, start, minutes * MINUTE).at == last + MINUTE


# Holidays


def test_a_holiday_closes_and_a_make_up_day_has_the_hours_of_the_first_working_weekday() -> None:
    shop = calendar("10:00-20:00", "123456")
    found = with_holidays(shop, cn())
    assert found.days[date(2026, 10, 1)] == ()
    assert found.days[date(2026, 2, 14)] == hours("10:00-20:00")
    short_fridays = replace(OFFICE, weekly={**OFFICE.weekly, 4: hours("09:00-12:00")})
    said = replace(cn(), working={date(2026, 2, 14): 4, date(2026, 2, 28): None})
    assert with_holidays(short_fridays, said).days[date(2026, 2, 14)] == hours("09:00-12:00")
    assert with_holidays(short_fridays, said).days[date(2026, 2, 28)] == OFFICE.weekly[0]


def test_a_make_up_day_does_not_open_a_calendar_that_is_never_open() -> None:
    assert with_holidays(calendar("09:00-12:00", ""), cn()).days[date(2026, 2, 14)] == ()


def test_the_days_of_the_site_itself_win_over_the_public_ones() -> None:
    own = {date(2026, 10, 1): hours("09:00-12:00"), date(2026, 2, 14): ()}
    found = with_holidays(replace(OFFICE, days=own), cn())
    assert is_open(found, at("2026-10-01 09:00"))
    assert not is_open(found, at("2026-02-14 09:00"))
    assert not is_open(found, at("2026-10-02 09:00"))


def test_holidays_are_not_put_on_top_of_older_ones() -> None:
    with pytest.raises(ValueError, match=r"^calendar 'test': it has public holidays already$"):
        with_holidays(chinese_office(), cn())


def test_a_due_date_after_the_last_confirmed_day_is_provisional() -> None:
    start = at("2026-12-31 17:00")
    last = add(chinese_office(), start, HOUR)
    assert last == Due(at=at("2026-12-31 18:00"), provisional=False)
    over = add(chinese_office(), start, HOUR + timedelta.resolution)
    assert over.at.astimezone(SHANGHAI).date() == date(2027, 1, 1)
    assert over.provisional
    assert not add(OFFICE, start, 4 * HOUR).provisional  # it follows no holidays


def test_a_due_date_at_the_midnight_that_ends_the_last_confirmed_day_is_settled() -> None:
    whole_days = with_holidays(calendar("00:00-24:00", "0123456"), cn())
    start = at("2026-12-31 22:00")
    assert add(whole_days, start, 2 * HOUR) == Due(at=at("2027-01-01"), provisional=False)
    assert add(whole_days, start, 2 * HOUR + timedelta.resolution).provisional


def test_an_import_previews_which_deadlines_move_and_which_are_settled_by_it() -> None:
    new_year = {date(2027, 1, day): "元旦" for day in (1, 2, 3)}
    newer = replace(
        cn(), confirmed_through=date(2027, 12, 31), holidays={**cn().holidays, **new_year}
    )
    deadlines = [
        ("unmoved", at("2026-12-30 10:00"), HOUR),
        ("moved", at("2026-12-31 17:00"), 3 * HOUR),
        ("settled", at("2027-03-01 09:00"), HOUR),
    ]
    found = moved(chinese_office(), with_holidays(OFFICE, newer), deadlines)
    assert found == [
        (
            "moved",
            Due(at=at("2027-01-01 11:00"), provisional=True),
            Due(at=at("2027-01-04 11:00"), provisional=False),
        ),
        (
            "settled",
            Due(at=at("2027-03-01 10:00"), provisional=True),
            Due(at=at("2027-03-01 10:00"), provisional=False),
        ),
    ]


@pytest.mark.parametrize(
    ("today", "expected"),
    [
        ("2026-10-31", False),
        ("2026-11-01", True),
        ("2026-12-31", True),
        ("2027-01-01", True),  # nobody has done it: it does not end by itself
        ("2025-11-01", False),
    ],
)
def test_the_next_year_must_be_confirmed_from_november_on(today: str, expected: bool) -> None:
    assert needs_confirmation(cn(), date.fromisoformat(today)) is expected


# The data file

SMALL = """
confirmed_through = 2026-12-31
[[year]]
year = 2026
sources = ["notice"]
holidays = [
  { name = "元旦", first = 2025-12-31, last = 2026-01-02 },
  { name = "国庆节", first = 2026-10-01 },
]
working = [2026-01-04, { day = 2026-02-14, as = "fri" }]
"""


def test_a_data_file_is_read_with_its_ranges_and_weekdays() -> None:
    assert read_calendar_data(SMALL) == HolidayData(
        confirmed_through=date(2026, 12, 31),
        holidays={
            date(2025, 12, 31): "元旦",
            date(2026, 1, 1): "元旦",
            date(2026, 1, 2): "元旦",
            date(2026, 10, 1): "国庆节",
        },
        working={date(2026, 1, 4): None, date(2026, 2, 14): 4},
        sources={2026: ("notice",)},
    )


def test_a_year_without_make_up_days_says_so() -> None:
    start = SMALL.index("working")
    assert read_calendar_data(SMALL[:start] + "working = []").working == {}
    with pytest.raises(ConfigurationError, match=r"^year 1, working: is missing or empty$"):
        read_calendar_data(SMALL[:start])


def test_every_error_of_a_data_file_is_reported_at_once_with_its_key() -> None:
    text = """
confirmed_through = 2027-12-31T00:00:00
colour = "red"
[[year]]
year = 2026
sources = ["", 7]
holidays = [
  { name = "a", first = 2026-10-07, last = 2026-10-01 },
  { name = "b", first = "2026-10-01" },
  { first = 2026-10-01, until = 2026-10-02 },
  { name = "c", first = 2026-05-01, last = 2026-05-03 },
  { name = "d", first = 2026-05-03 },
  { name = "e", first = 2025-11-30 },
  2026-05-05,
]
working = [2026-05-01, 2027-01-01, { day = 2026-05-09, as = "friday" }, { as = "fri" }, 5]
[[year]]
year = 2026
[[year]]
year = 10000
[[year]]
year = true
"""
    with pytest.raises(ConfigurationError) as error:
        read_calendar_data(text)
    a_date = "must be a date without quotes, like 2026-10-01"
    assert str(error.value).splitlines() == [
        "colour: there is no such key",
        f"confirmed_through: {a_date}, not datetime.datetime(2027, 12, 31, 0, 0)",
        "year 1, sources 1, text: is missing or empty",
        "year 1, sources 2, text: must be a text, not 7",
        "year 1, holidays 1, last: 2026-10-01 is before 2026-10-07",
        f"year 1, holidays 2, first: {a_date}, not '2026-10-01'",
        "year 1, holidays 3, until: there is no such key",
        "year 1, holidays 3, name: is missing or empty",
        "year 1, holidays 5, 2026-05-03: the file has this day already",
        "year 1, holidays 6, 2025-11-30: is not in 2026, nor in the December before",
        "year 1, holidays 7: must be a table, like { first = 2026-10-01 }, "
        "not datetime.date(2026, 5, 5)",
        "year 1, working 1, 2026-05-01: the file has this day already",
        "year 1, working 2, 2027-01-01: is not in 2026, nor in the December before",
        "year 1, working 3, as: 'friday' is none of mon, tue, wed, thu, fri, sat, sun",
        "year 1, working 4, day: is missing or empty",
        f"year 1, working 5, day: {a_date}, not 5",
        "year 2, year: 2026 is no year, or the file has it already",
        "year 3, year: 10000 is no year, or the file has it already",
        "year 4, year: must be a whole number, not True",
    ]


def test_a_file_cannot_confirm_a_year_that_it_does_not_have() -> None:
    with pytest.raises(ConfigurationError, match=r"^confirmed_through: the file has no year 2027$"):
        read_calendar_data(SMALL.replace("= 2026-12-31", "= 2027-12-31"))


def test_what_is_not_toml_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^not TOML: "):
        read_calendar_data("confirmed_through = ")


# Three sources: our file (the data of holiday-cn and the notices themselves), chinesecalendar and
# holidays. There is no real difference in these years; if one comes up, it goes here with its
# reason: {day: "who is wrong and why"}.
KNOWN_DIFFERENCES: dict[date, str] = {}
FIRST, LAST = date(2007, 1, 1), date(2026, 12, 31)


def test_three_sources_agree_on_every_working_day_of_2007_to_2026() -> None:
    third = holidays.country_holidays("CN", years=range(FIRST.year, LAST.year + 2))
    days = [FIRST + n * DAY for n in range((LAST - FIRST).days + 1)]
    assert len(days) == 7305
    differences = {}
    for day in days:
        noon = datetime.combine(day, time(11), SHANGHAI)
        verdicts = (
            is_open(chinese_office(), noon),
            bool(chinese_calendar.is_workday(day)),
            third.is_working_day(day),
        )
        if len(set(verdicts)) > 1:
            differences[day] = verdicts
    assert differences.keys() == KNOWN_DIFFERENCES.keys()


def test_our_file_has_every_year_with_its_notices_and_only_weekends_to_make_up() -> None:
    assert sorted(cn().sources) == list(range(FIRST.year, LAST.year + 1))
    assert all(cn().sources.values())
    assert cn().confirmed_through == LAST
    assert {day.weekday() for day in cn().working} == {5, 6}
