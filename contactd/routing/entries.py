"""How people write days, times and lengths in the desk file: the types of its entries' fields."""

import re
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from itertools import pairwise
from typing import Annotated, ClassVar, Final
from zoneinfo import available_timezones

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, StringConstraints

DAY_NAMES: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_UNITS: Final[Mapping[str, str]] = {
    "d": "days",
    "h": "hours",
    "m": "minutes",
    "s": "seconds",
}
_LENGTH: Final = re.compile(r"(?:[0-9]{1,5}[dhms]\s*)+")
_PART: Final = re.compile(r"([0-9]+)([dhms])")
_MIDNIGHT: Final = time()


def weekdays(value: object) -> frozenset[int]:
    """Read `"mon-fri"`, `"sat-mon"` or `["mon", "wed-fri"]`; numbers start at Monday = 0."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)) or not all(isinstance(part, str) for part in parts):
        raise ValueError('must be days like "mon-fri" or ["mon", "wed-fri"]')
    days: set[int] = set()
    for part in parts:
        first, _, last = part.strip().lower().partition("-")
        if first not in DAY_NAMES or (last or first) not in DAY_NAMES:
            raise ValueError(f"{part!r} is not a day or a range of days, e.g. mon or mon-fri")
        start, end = DAY_NAMES.index(first), DAY_NAMES.index(last or first)
        days |= {(start + n) % 7 for n in range((end - start) % 7 + 1)}
    return frozenset(days)


def wall_clock(value: object) -> time:
    """Read `"08:00"`; `"24:00"` is the midnight at the end of the day."""
    if isinstance(value, time) and value.tzinfo is None:
        value = value.isoformat("minutes") if not (value.second or value.microsecond) else value
    if isinstance(value, str) and re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]|24:00", value):
        return time() if value == "24:00" else time.fromisoformat(value)
    raise ValueError('must be a time of the day to the minute, like "08:00"')


def length(value: object) -> timedelta:
    """Read `"45s"`, `"30m"`, `"2h"`, `"1d 12h"`: a day is 24 hours."""
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str) or not _LENGTH.fullmatch(value.strip()):
        raise ValueError('must be a length of time, like "30m", "2h" or "1d 12h"')
    return sum(
        (timedelta(**{_UNITS[unit]: int(number)}) for number, unit in _PART.findall(value)),
        timedelta(),
    )


def _longer_than_nothing(value: timedelta) -> timedelta:
    if not value:
        raise ValueError("must be longer than 0")
    return value


def periods(value: object) -> tuple[tuple[time, time], ...]:
    """Read `["09:00-12:00", "13:00-18:00"]`, one of them alone, or `[]`: closed."""
    parts = [value] if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)):
        raise ValueError('must be hours like "09:00-18:00", or a list of them')  # noqa: TRY004
    found = tuple(_period(part) for part in parts)
    for (_, until), (since, _) in pairwise(found):
        if until == _MIDNIGHT or since < until:
            raise ValueError(f"{value!r}: hours must be in order and must not overlap")
    return found


def _period(value: object) -> tuple[time, time]:
    if isinstance(value, (tuple, list)) and all(isinstance(edge, time) for edge in value):
        since, until = value
        return since, until
    first, dash, last = value.partition("-") if isinstance(value, str) else ("", "", "")
    if not dash:
        raise ValueError(f'{value!r} is no period, like "09:00-12:00"')
    since, until = wall_clock(first.strip()), wall_clock(last.strip())
    if until != _MIDNIGHT and until <= since:
        raise ValueError(f"{value!r} must end after it starts; split it at midnight")
    return since, until


def _moment(value: object) -> object:
    """Take only TOML's own dates: pydantic would read a number as seconds since 1970."""
    if isinstance(value, date):
        return value
    raise ValueError("must be a date, like 2026-12-24T08:00:00 (without quotes)")


def _day(value: object) -> object:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    raise ValueError("must be a date, like 2026-12-24 (without quotes)")


def _known_zone(value: str) -> str:
    if value not in available_timezones():
        raise ValueError(f"{value!r} is not a time zone of the IANA database, e.g. Asia/Shanghai")
    return value


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("must not contain control characters")
    return value


Key = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
Name = Annotated[str, StringConstraints(min_length=1, max_length=80), AfterValidator(_printable)]
Label = Annotated[str, StringConstraints(max_length=120), AfterValidator(_printable)]
Zone = Annotated[str, AfterValidator(_known_zone)]
Days = Annotated[frozenset[int], BeforeValidator(weekdays)]
WallClock = Annotated[time, BeforeValidator(wall_clock)]
Moment = Annotated[datetime, BeforeValidator(_moment)]
Day = Annotated[date, BeforeValidator(_day)]
Hours = Annotated[tuple[tuple[time, time], ...], BeforeValidator(periods)]
Length = Annotated[timedelta, BeforeValidator(length)]  # may be 0
Span = Annotated[timedelta, BeforeValidator(length), AfterValidator(_longer_than_nothing)]


class FileEntry(BaseModel):
    """A table of the desk file: nothing in it is ignored."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", frozen=True, str_strip_whitespace=True
    )
