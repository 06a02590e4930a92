"""The desk file (`etc/desk.toml`): sites, engineers, requesters, shifts and overrides.

Reading it reports every error at once, each with the place it is at.
"""

import re
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime, time
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StringConstraints,
    ValidationError,
    model_validator,
)

from contactd.errors import ConfigurationError
from contactd.routing.oncall import (
    EVERYWHERE,
    FLOOR_KEY,
    Engineer,
    Override,
    Rota,
    Shift,
    Site,
    instant,
)
from contactd.tickets.phone import e164

_DAY_NAMES: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_EXTENSION: Final = re.compile(r"[0-9]{1,5}")  # of the PBX; E.164 numbers are longer


def _known_zone(value: str) -> str:
    if value not in available_timezones():
        raise ValueError(f"{value!r} is not a time zone of the IANA database, e.g. Asia/Shanghai")
    return value


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("must not contain control characters")
    return value


def _number(value: str) -> str:
    """Return a telephone number as E.164, or an extension of the PBX as it is."""
    if _EXTENSION.fullmatch(value):
        return value
    found = e164(value)
    if not found:
        raise ValueError(f"{value!r} is neither a telephone number nor an extension (1–5 digits)")
    return found


def _weekdays(value: object) -> object:
    """Read `"mon-fri"`, `"sat-mon"` or `["mon", "wed-fri"]`; numbers start at Monday = 0."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)) or not all(isinstance(part, str) for part in parts):
        raise ValueError('must be days like "mon-fri" or ["mon", "wed-fri"]')
    days: set[int] = set()
    for part in parts:
        first, _, last = part.strip().lower().partition("-")
        if first not in _DAY_NAMES or (last or first) not in _DAY_NAMES:
            raise ValueError(f"{part!r} is not a day or a range of days, e.g. mon or mon-fri")
        start, end = _DAY_NAMES.index(first), _DAY_NAMES.index(last or first)
        days |= {(start + n) % 7 for n in range((end - start) % 7 + 1)}
    return frozenset(days)


def _wall_clock(value: object) -> object:
    """Read `"08:00"`; `"24:00"` is the midnight at the end of the day."""
    if isinstance(value, time) and value.tzinfo is None:
        value = value.isoformat("minutes") if not (value.second or value.microsecond) else value
    if isinstance(value, str) and re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]|24:00", value):
        return time() if value == "24:00" else time.fromisoformat(value)
    raise ValueError('must be a time of the day to the minute, like "08:00"')


def _moment(value: object) -> object:
    """Take only TOML's own dates: pydantic would read a number as seconds since 1970."""
    if isinstance(value, date):
        return value
    raise ValueError("must be a date, like 2026-12-24T08:00:00 (without quotes)")


Key = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
Name = Annotated[str, StringConstraints(min_length=1, max_length=80), AfterValidator(_printable)]
Label = Annotated[str, StringConstraints(max_length=120), AfterValidator(_printable)]
Number = Annotated[str, AfterValidator(_number)]
Mail = Annotated[str, StringConstraints(pattern=r"^[^@\s]+@[^@\s]+$", max_length=254)]
Place = Annotated[str, StringConstraints(pattern=r"^(\*|[a-z0-9][a-z0-9_-]{0,31})$")]
Tier = Annotated[int, Field(ge=1, le=3, strict=True)]
Days = Annotated[frozenset[int], BeforeValidator(_weekdays)]
WallClock = Annotated[time, BeforeValidator(_wall_clock)]
Moment = Annotated[datetime, BeforeValidator(_moment)]
Language = Literal["zh", "en"]


class _Entry(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", frozen=True, str_strip_whitespace=True
    )


class SiteEntry(_Entry):
    key: Key
    name_zh: Name
    name_en: Name
    zone: Annotated[str, AfterValidator(_known_zone)] = "Asia/Shanghai"
    language: Language = "zh"
    queue: Key | None = None  # the key, unless said otherwise
    floor: Number  # is rung when nobody else is there
    area_code: Annotated[str, StringConstraints(pattern=r"^([1-9][0-9]{1,3})?$")] = ""


class EngineerEntry(_Entry):
    key: Key
    name: Name
    number: Number
    department: Label = ""
    site: Key | None = None
    language: Language = "zh"
    mails: tuple[Mail, ...] = ()


class PersonEntry(_Entry):
    """A requester who is recognised when calling."""

    key: Key
    name: Name
    department: Label = ""
    site: Key | None = None
    vip: StrictBool = False
    language: Language | None = None  # the site's, unless said otherwise
    numbers: tuple[Number, ...] = ()
    mails: tuple[Mail, ...] = ()


class ShiftEntry(_Entry):
    site: Place
    tier: Tier
    engineer: Key
    days: Days = frozenset(range(7))
    start: WallClock
    end: WallClock


class OverrideEntry(_Entry):
    """`start` and `end` without an offset are the site's local time."""

    site: Place
    tier: Tier
    engineer: Key
    replaces: Key | None = None
    start: Moment
    end: Moment

    @model_validator(mode="after")
    def _times_make_sense(self) -> "OverrideEntry":
        if (self.start.tzinfo is None) != (self.end.tzinfo is None):
            raise ValueError("give an offset with both start and end, or with none of them")
        if self.end <= self.start:
            raise ValueError("end must be after start")
        if self.site == EVERYWHERE and self.start.tzinfo is None:
            raise ValueError(
                f"site {EVERYWHERE!r} has no time zone: give start and end an offset, "
                "like 2026-12-24T08:00:00+08:00"
            )
        return self


class DeskFile(_Entry):
    sites: Annotated[tuple[SiteEntry, ...], Field(min_length=1)]
    engineers: tuple[EngineerEntry, ...] = ()
    people: tuple[PersonEntry, ...] = ()
    shifts: tuple[ShiftEntry, ...] = ()
    overrides: tuple[OverrideEntry, ...] = ()

    def rota(self) -> Rota:
        """Return the part that says who is on duty."""
        zones = {site.key: ZoneInfo(site.zone) for site in self.sites}
        return Rota(
            sites=tuple(map(_site, self.sites)),
            engineers=tuple(
                Engineer(key=e.key, name=e.name, number=e.number, language=e.language)
                for e in self.engineers
            ),
            shifts=tuple(map(_shift, self.shifts)),
            overrides=tuple(_override(entry, zones.get(entry.site)) for entry in self.overrides),
        )


def _site(entry: SiteEntry) -> Site:
    return Site(
        key=entry.key,
        name_zh=entry.name_zh,
        name_en=entry.name_en,
        zone=entry.zone,
        queue=entry.queue or entry.key,
        floor=entry.floor,
        area_code=entry.area_code,
        language=entry.language,
    )


def _shift(entry: ShiftEntry) -> Shift:
    return Shift(
        site=entry.site,
        tier=entry.tier,
        engineer=entry.engineer,
        weekdays=entry.days,
        start=entry.start,
        end=entry.end,
    )


def _override(entry: OverrideEntry, zone: ZoneInfo | None) -> Override:
    return Override(
        site=entry.site,
        tier=entry.tier,
        engineer=entry.engineer,
        start=_resolved(entry.start, zone),
        end=_resolved(entry.end, zone),
        replaces=entry.replaces or "",
    )


def _resolved(moment: datetime, zone: ZoneInfo | None) -> datetime:
    if moment.tzinfo is not None:
        return moment
    if zone is None:
        raise ValueError(f"without a site, {moment} is not an instant")
    return instant(moment.date(), moment.time(), zone)


def read(path: Path) -> DeskFile:
    """Read and check the desk file at `path`.

    Raises:
        ConfigurationError: every error found, one a line, each with its place.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: not TOML: {error}") from error
    return parse(document)


def parse(document: Mapping[str, Any]) -> DeskFile:
    """Check the desk file's contents.

    Raises:
        ConfigurationError: every error found, one a line, each with its place.
    """
    errors: list[str] = []
    desk: DeskFile | None = None
    try:
        desk = DeskFile.model_validate(document)
    except ValidationError as error:
        errors += [_line(document, found) for found in error.errors()]
    # References are looked up in the raw document, so that an unknown name is reported together
    # with whatever else is wrong.
    errors += [line for check in _CHECKS for line in check(document)]
    if errors or desk is None:
        raise ConfigurationError("\n".join(errors))
    return desk


def _line(document: Mapping[str, Any], error: Mapping[str, Any]) -> str:
    message = {
        "extra_forbidden": "no such setting",
        "missing": "is missing",
        "string_pattern_mismatch": f"{error['input']!r} is not of the form {_pattern(error)}",
    }.get(error["type"], error["msg"].removeprefix("Value error, "))
    return f"{_place(document, error['loc'])}: {message}"


def _pattern(error: Mapping[str, Any]) -> str:
    return str(error.get("ctx", {}).get("pattern", ""))


def _place(document: Mapping[str, Any], loc: Sequence[int | str]) -> str:
    """Return where it is, with entries by their key or, without one, counted from 1."""
    if len(loc) < 2:
        return str(loc[0]) if loc else "(file)"
    kind, number = str(loc[0]), int(loc[1])
    entry = document[kind][number]
    key = entry.get("key") if isinstance(entry, Mapping) else None
    name = key if isinstance(key, str) and key and key.isprintable() else f"#{number + 1}"
    return ".".join([kind, name, *map(str, loc[2:])])


def _entries(document: Mapping[str, Any], kind: str) -> list[tuple[int, Mapping[str, Any]]]:
    """Return the entries of one kind that are tables at all, with their index."""
    entries = document.get(kind, [])
    if not isinstance(entries, list):
        return []
    return [(n, entry) for n, entry in enumerate(entries) if isinstance(entry, Mapping)]


def _keys(document: Mapping[str, Any], kind: str) -> set[Any]:
    return {
        key for _, entry in _entries(document, kind) if isinstance(key := entry.get("key"), str)
    }


def _unknown_names(document: Mapping[str, Any]) -> Iterator[str]:
    sites, engineers = _keys(document, "sites"), _keys(document, "engineers")
    for kind, field, known, what in (
        ("engineers", "site", sites, "site"),
        ("people", "site", sites, "site"),
        ("shifts", "site", sites | {EVERYWHERE}, "site"),
        ("shifts", "engineer", engineers, "engineer"),
        ("overrides", "site", sites | {EVERYWHERE}, "site"),
        ("overrides", "engineer", engineers, "engineer"),
        ("overrides", "replaces", engineers, "engineer"),
    ):
        for n, entry in _entries(document, kind):
            name = entry.get(field)
            if isinstance(name, str) and name not in known:
                yield f"{_place(document, (kind, n, field))}: there is no {what} {name!r}"


def _doubles(document: Mapping[str, Any]) -> Iterator[str]:
    """Report keys, numbers and mail addresses that are given to two."""
    for kinds in (("sites",), ("engineers", "people")):
        seen: set[str] = set()
        for kind in kinds:
            for n, entry in _entries(document, kind):
                key = entry.get("key")
                if isinstance(key, str) and key in seen:
                    yield f"{kind}.#{n + 1}.key: {key!r} is used twice"
                seen |= {key} if isinstance(key, str) else set()
    for n, entry in _entries(document, "engineers"):
        if entry.get("key") == FLOOR_KEY:
            yield f"engineers.#{n + 1}.key: {FLOOR_KEY!r} means the floor number"
    yield from _shared_addresses(document)


def _shared_addresses(document: Mapping[str, Any]) -> Iterator[str]:
    owners: dict[str, list[str]] = defaultdict(list)
    for kind in ("engineers", "people"):
        for n, entry in _entries(document, kind):
            place = _place(document, (kind, n))
            for address in _addresses(entry):
                owners[address].append(place)
    for address, places in owners.items():
        if len(places) > 1:
            yield f"{places[-1]}: {address} already belongs to {places[0]}"


def _addresses(entry: Mapping[str, Any]) -> Iterator[str]:
    for field in ("numbers", "mails"):
        for value in entry.get(field) or () if isinstance(entry.get(field), list) else ():
            if isinstance(value, str):
                yield _canonical(value, field)
    if isinstance(number := entry.get("number"), str):
        yield _canonical(number, "numbers")


def _canonical(value: str, field: str) -> str:
    if field == "mails":
        return value.strip().lower()  # as `people.address_of` has it
    try:
        return _number(value.strip())
    except ValueError:
        return value


_Check = Callable[[Mapping[str, Any]], Iterator[str]]
_CHECKS: Final[tuple[_Check, ...]] = (_unknown_names, _doubles)
