"""Working calendars: when a promise's time runs, with holidays and make-up days (pure).

A calendar as its owner writes it (`WorkingCalendar`: weekly hours and the site's own dated days)
and the public holidays (`HolidayData`, from `etc/calendars/cn.toml`) are kept apart; those who
compute with them put them together each time: `with_holidays(calendar, data)`. Then
`add(calendar, resumed, goal - spent)` is when a clock is due, and `between` what it has spent.

`contactd calendar import FILE` reads the new file with `read_calendar_data`, shows `moved(...)`
for the open deadlines, keeps the file's text and stores the new due dates. The alarm asks
`needs_confirmation` once a day.

Wall-clock times are resolved as `wallclock.instant` does it: a time that a clock change skips is
the first instant after the gap, a time that comes twice is the first of the two. So a gap shortens
a period, an hour that comes twice lengthens it, and periods that touch on the clock touch in time.
What is added and measured is real elapsed time.
"""

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import Any, Final, TypeVar
from zoneinfo import ZoneInfo

from contactd.errors import ConfigurationError
from contactd.routing.wallclock import instant

Period = tuple[time, time]  # half-open; local; an end of 00:00 is the end of the day (24:00)
Periods = tuple[Period, ...]

K = TypeVar("K")
T = TypeVar("T")

_DAY: Final = timedelta(days=1)
_MIDNIGHT: Final = time()
_HORIZON: Final = timedelta(days=5 * 366)  # a due date further away means a senseless calendar
_FIRST_YEAR: Final = 1950
_WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
# The notices for 2021 to 2026 came between 25 October and 8 December of the year before.
_ASK_FROM_MONTH: Final = 11


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkingCalendar:
    """Weekly hours and dated exceptions in one time zone.

    `weekly` maps a weekday (0 is Monday) to its periods; a weekday that is left out is closed.
    `days` replaces the hours of single dates, `()` closes one. `confirmed_through` is the last
    date whose public holidays are known for sure; None for a calendar that does not follow any.

    Raises:
        ValueError: every error found, one a line, with the calendar's name and the key.
    """

    name: str
    zone: str  # IANA name
    weekly: Mapping[int, Periods]
    days: Mapping[date, Periods] = field(default_factory=dict)
    confirmed_through: date | None = None

    def __post_init__(self) -> None:
        problems = [f"calendar {self.name!r}: {line}" for line in _calendar_problems(self)]
        if problems:
            raise ValueError("\n".join(problems))


def _calendar_problems(calendar: WorkingCalendar) -> Iterator[str]:
    try:
        ZoneInfo(calendar.zone)
    except (OSError, KeyError, ValueError):  # a folder of zones, an unknown one, a path
        yield f"zone: {calendar.zone!r} is not a time zone of the IANA database"
    for weekday, periods in calendar.weekly.items():
        if weekday not in range(7):
            yield f"weekly: {weekday!r} is not a weekday (0 is Monday, 6 is Sunday)"
        yield from (f"weekly[{weekday}]: {line}" for line in _period_problems(periods))
    for day, periods in calendar.days.items():
        yield from (f"days[{day}]: {line}" for line in _period_problems(periods))


def _period_problems(periods: Periods) -> Iterator[str]:
    if any(edge.tzinfo for period in periods for edge in period):
        yield "times must be without a zone: the calendar has one"
        return
    for opens, closes in periods:
        if closes != _MIDNIGHT and closes <= opens:
            yield f"{_shown((opens, closes))} must end after it starts; split it at midnight"
    for earlier, later in pairwise(periods):
        if earlier[1] == _MIDNIGHT or later[0] < earlier[1]:
            yield f"{_shown(later)} must not start before {_shown(earlier)} has ended"


def _shown(period: Period) -> str:
    opens, closes = period
    return f"{opens:%H:%M}–{'24:00' if closes == _MIDNIGHT else f'{closes:%H:%M}'}"


ALWAYS: Final = WorkingCalendar(
    name="always",
    zone="UTC",
    weekly=dict.fromkeys(range(7), ((_MIDNIGHT, _MIDNIGHT),)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """When something is due, in UTC; provisional if holidays not yet confirmed may move it."""

    at: datetime
    provisional: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HolidayData:
    """Public holidays and make-up working days, and how far they are settled."""

    confirmed_through: date
    holidays: Mapping[date, str]  # day off -> name of the holiday
    working: Mapping[date, int | None]  # make-up day -> weekday whose hours it has, if it is said
    sources: Mapping[int, tuple[str, ...]]  # year -> its notices


# Open time


def add(calendar: WorkingCalendar, start: datetime, work: timedelta) -> Due:
    """Return the first instant at which `work` of open time has passed since `start`.

    Work that ends with a period is due at its end, not when the next one starts. No work is due at
    once, open or not.

    Raises:
        ValueError: `start` has no zone, or `work` is negative.
        ConfigurationError: there is not as much open time in the five years after `start`.
    """
    start = _utc("start", start)
    if work < timedelta():
        raise ValueError(f"work: must not be negative, it is {work}")
    if not work:
        return Due(at=start, provisional=False)
    left = work
    for since, until in _pieces(calendar, start, start + _HORIZON):
        if left <= until - since:
            at = since + left
            return Due(at=at, provisional=_is_unconfirmed(calendar, at))
        left -= until - since
    raise ConfigurationError(
        f"calendar {calendar.name!r}: {work} of open time after "
        f"{start:%Y-%m-%dT%H:%M:%SZ} does not pass within five years"
    )


def _is_unconfirmed(calendar: WorkingCalendar, due: datetime) -> bool:
    last = calendar.confirmed_through
    return last is not None and due > instant(last + _DAY, _MIDNIGHT, ZoneInfo(calendar.zone))


def between(calendar: WorkingCalendar, start: datetime, end: datetime) -> timedelta:
    """Return how much open time lies between two instants.

    Raises:
        ValueError: an instant has no zone, or `end` is before `start`.
    """
    pieces = _pieces(calendar, *_in_order(start, end))
    return sum((until - since for since, until in pieces), timedelta())


def is_open(calendar: WorkingCalendar, at: datetime) -> bool:
    """Return whether `at` is in a period; its start is, its end is not.

    Raises:
        ValueError: `at` has no zone.
    """
    at = _utc("at", at)
    return any(True for _ in _pieces(calendar, at, at + timedelta.resolution))


def open_periods(
    calendar: WorkingCalendar, start: datetime, end: datetime
) -> Iterator[tuple[datetime, datetime]]:
    """Return the open times between two instants, in UTC, in order; what touches is one.

    Raises:
        ValueError: an instant has no zone, or `end` is before `start`.
    """
    return _merged(_pieces(calendar, *_in_order(start, end)))


def _merged(
    pieces: Iterator[tuple[datetime, datetime]],
) -> Iterator[tuple[datetime, datetime]]:
    opened = next(pieces, None)
    if opened is None:
        return
    since, until = opened
    for opens, closes in pieces:
        if opens > until:
            yield since, until
            since = opens
        until = closes
    yield since, until


def _pieces(
    calendar: WorkingCalendar, start: datetime, end: datetime
) -> Iterator[tuple[datetime, datetime]]:
    """Return the periods of each date, cut to `start` and `end` (UTC), lazily and in order."""
    zone = ZoneInfo(calendar.zone)
    # One date more at the end: where clocks go back over midnight, a date has begun already when
    # the one before it comes again.
    day, last = start.astimezone(zone).date(), end.astimezone(zone).date() + _DAY
    while day <= last:
        for opens, closes in calendar.days.get(day, calendar.weekly.get(day.weekday(), ())):
            closing_day = day + _DAY if closes == _MIDNIGHT else day
            since = max(instant(day, opens, zone), start)
            until = min(instant(closing_day, closes, zone), end)
            if since < until:  # a gap can swallow a period
                yield since, until
        day += _DAY


def _utc(name: str, at: datetime) -> datetime:
    if at.tzinfo is None:
        raise ValueError(f"{name}: {at} has no time zone")
    return at.astimezone(UTC)


def _in_order(start: datetime, end: datetime) -> tuple[datetime, datetime]:
    # In UTC first: Python compares two instants of one zone by their clocks, and errs in an hour
    # that comes twice.
    start, end = _utc("start", start), _utc("end", end)
    if end < start:
        raise ValueError(f"end: {end} is before the start, {start}")
    return start, end


# Holidays


def with_holidays(calendar: WorkingCalendar, data: HolidayData) -> WorkingCalendar:
    """Return `calendar` with public holidays closed and make-up days open.

    A make-up day has the periods of the weekday that the data say, or else of the calendar's first
    weekday with any. The calendar's own dated days win over both.

    Raises:
        ValueError: `calendar` has holidays already; days that are none any more would stay closed.
    """
    if calendar.confirmed_through is not None:
        raise ValueError(f"calendar {calendar.name!r}: it has public holidays already")
    usual = next(filter(None, (calendar.weekly.get(n, ()) for n in range(7))), ())
    closed: dict[date, Periods] = dict.fromkeys(data.holidays, ())
    made_up = {
        day: usual if weekday is None else calendar.weekly.get(weekday, ())
        for day, weekday in data.working.items()
    }
    return replace(
        calendar,
        days={**closed, **made_up, **calendar.days},
        confirmed_through=data.confirmed_through,
    )


def moved(
    before: WorkingCalendar,
    after: WorkingCalendar,
    deadlines: Iterable[tuple[K, datetime, timedelta]],
) -> list[tuple[K, Due, Due]]:
    """Return the deadlines that a change of calendar changes: (key, old, new), in their order.

    A deadline is (key, start, work), as for `add`. One that keeps its instant and is provisional
    no more, or is so now, is among them.

    Raises:
        ValueError, ConfigurationError: as `add`.
    """
    compared = (
        (key, add(before, start, work), add(after, start, work)) for key, start, work in deadlines
    )
    return [(key, old, new) for key, old, new in compared if old != new]


def needs_confirmation(data: HolidayData, today: date) -> bool:
    """Return whether somebody should look for a newer file: an alarm.

    From 1 November on the whole next year must be confirmed, before that the current one.
    """
    year = today.year + 1 if today.month >= _ASK_FROM_MONTH else today.year
    return data.confirmed_through < date(year, 12, 31)


# The data file


def read_calendar_data(text: str) -> HolidayData:
    """Read a file of public holidays, in the form that `etc/calendars/cn.toml` explains.

    Raises:
        ConfigurationError: every error found, one a line, each with its key.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"not TOML: {error}") from error
    reading = _Reading()
    reading.only(document, "", {"confirmed_through", "year"})
    last = reading.value(document, "", "confirmed_through", date)
    for place, table in reading.tables(document, "", "year"):
        reading.year(table, place)
    if last is not None and last.year not in reading.sources:
        reading.errors.append(f"confirmed_through: the file has no year {last.year}")
    if reading.errors or last is None:
        raise ConfigurationError("\n".join(reading.errors))
    return HolidayData(
        confirmed_through=last,
        holidays=reading.holidays,
        working=reading.working,
        sources=reading.sources,
    )


_KINDS: Final[Mapping[type, str]] = {
    date: "a date without quotes, like 2026-10-01",
    dict: "a table, like { first = 2026-10-01 }",
    int: "a whole number",
    list: "a list",
    str: "a text",
}


@dataclass(slots=True, kw_only=True)
class _Reading:
    """What has been read of a file so far, and what is wrong with it.

    A `place` is how the operator finds a key, e.g. "year 3, holidays 2, ".
    """

    errors: list[str] = field(default_factory=list)
    holidays: dict[date, str] = field(default_factory=dict)
    working: dict[date, int | None] = field(default_factory=dict)
    sources: dict[int, tuple[str, ...]] = field(default_factory=dict)

    def only(self, table: Mapping[str, Any], place: str, known: set[str]) -> None:
        self.errors += [f"{place}{key}: there is no such key" for key in sorted({*table} - known)]

    def value(self, table: Mapping[str, Any], place: str, key: str, kind: type[T]) -> T | None:
        """Return a value of just this type (a datetime is no date) that is not empty."""
        value = table.get(key)
        if not value:
            self.errors.append(f"{place}{key}: is missing or empty")
        elif type(value) is not kind or not isinstance(value, kind):
            self.errors.append(f"{place}{key}: must be {_KINDS[kind]}, not {value!r}")
        else:
            return value
        return None

    def items(self, table: Mapping[str, Any], place: str, key: str) -> Iterator[tuple[str, Any]]:
        """Return the list `key`, each item with its place; they count from 1."""
        for number, item in enumerate(self.value(table, place, key, list) or (), 1):
            yield f"{place}{key} {number}, ", item

    def tables(
        self, table: Mapping[str, Any], place: str, key: str
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        for where, item in self.items(table, place, key):
            if isinstance(item, dict):
                yield where, item
            else:
                self.errors.append(f"{where.rstrip(', ')}: must be {_KINDS[dict]}, not {item!r}")

    def year(self, table: Mapping[str, Any], place: str) -> None:
        self.only(table, place, {"year", "sources", "holidays", "working"})
        year = self.value(table, place, "year", int)
        if year is None:
            return  # nothing to check the days against
        if year in self.sources or not _FIRST_YEAR <= year < date.max.year:
            self.errors.append(f"{place}year: {year} is no year, or the file has it already")
            return
        sources = [
            source
            for where, item in self.items(table, place, "sources")
            if (source := self.value({"text": item}, where, "text", str))
        ]
        self.sources[year] = tuple(sources)
        for where, item in self.tables(table, place, "holidays"):
            self.holiday(item, where, year)
        if table.get("working") != []:  # a year without make-up days says so
            for where, item in self.items(table, place, "working"):
                self.make_up_day(item, where, year)

    def holiday(self, table: Mapping[str, Any], place: str, year: int) -> None:
        self.only(table, place, {"name", "first", "last"})
        name = self.value(table, place, "name", str)
        first = self.value(table, place, "first", date)
        last = self.value(table, place, "last", date) if "last" in table else first
        if name is None or first is None or last is None:
            return
        if last < first:
            self.errors.append(f"{place}last: {last} is before {first}")
        day = first
        while day <= last and self.is_new(day, place, year):
            self.holidays[day] = name
            day += _DAY

    def make_up_day(self, item: object, place: str, year: int) -> None:
        table = item if isinstance(item, dict) else {"day": item}
        self.only(table, place, {"day", "as"})
        day = self.value(table, place, "day", date)
        name = self.value(table, place, "as", str) if "as" in table else None
        if name is not None and name not in _WEEKDAYS:
            self.errors.append(f"{place}as: {name!r} is none of {', '.join(_WEEKDAYS)}")
        elif day is not None and self.is_new(day, place, year):
            self.working[day] = None if name is None else _WEEKDAYS.index(name)

    def is_new(self, day: date, place: str, year: int) -> bool:
        """Note an error unless `day` is one that a notice for `year` can be about, and new."""
        if not date(year - 1, 12, 1) <= day <= date(year, 12, 31):
            self.errors.append(f"{place}{day}: is not in {year}, nor in the December before")
        elif day in self.holidays or day in self.working:
            self.errors.append(f"{place}{day}: the file has this day already")
        else:
            return True
        return False
