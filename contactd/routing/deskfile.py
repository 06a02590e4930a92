"""The desk file (`etc/desk.toml`): who calls, who answers, when, and what was promised.

Reading it reports every error at once, each with the place it is at. The entries for duty are in
`dutyfile`, those for promises and escalation in `termsfile`.
"""

import re
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StrictBool,
    StringConstraints,
    ValidationError,
)

from contactd.errors import ConfigurationError
from contactd.routing import termsfile
from contactd.routing.calendars import ALWAYS, HolidayData, WorkingCalendar, read_calendar_data
from contactd.routing.dutyfile import (
    EVERYWHERE,
    TEAM_OF_TIER,
    DutyEntries,
    FeedEntry,
    LeaveEntry,
    OverrideEntry,
    RotationEntry,
    ShiftEntry,
    SwapEntry,
    TeamEntry,
    WindowEntry,
)
from contactd.routing.entries import FileEntry, Key, Label, Name, Zone, length
from contactd.routing.escalation import Rule
from contactd.routing.oncall import FLOOR_KEY, Engineer, Site
from contactd.routing.plan import Feed, Plan
from contactd.routing.rota import Kind
from contactd.routing.termsfile import (
    CalendarEntry,
    ClosingEntry,
    ContractEntry,
    PolicyEntry,
    RuleEntry,
)
from contactd.tickets.contact import Medium
from contactd.tickets.phone import e164

HOLIDAYS: Final = "cn"  # whose public holidays the file's data are

_EXTENSION: Final = re.compile(r"[0-9]{1,5}")  # of the PBX; E.164 numbers are longer
_PAGE: Final = re.compile(r"(call|text|mail)(?: after (.+))?")
_NO_TEXTS: Final = re.compile(r"\+86(?!1)|(?!\+)")  # landlines of the mainland, extensions


def _number(value: str) -> str:
    """Return a telephone number as E.164, or an extension of the PBX as it is."""
    if _EXTENSION.fullmatch(value):
        return value
    found = e164(value)
    if not found:
        raise ValueError(f"{value!r} is neither a telephone number nor an extension (1–5 digits)")
    return found


def _outside_number(value: str) -> str:
    found = e164(value)
    if not found:
        raise ValueError(f"{value!r} is not a telephone number")
    return found


def _page_rule(value: object) -> object:
    """Read `"call"`, `"text after 2m"`."""
    found = _PAGE.fullmatch(" ".join(value.split())) if isinstance(value, str) else None
    if found is None:
        raise ValueError('must be call, text or mail, and when: "call", "text after 2m"')
    after = length(found[2]) if found[2] else timedelta()
    return {"medium": Medium(found[1]), "after": after}


Number = Annotated[str, AfterValidator(_number)]
TextNumber = Annotated[str, AfterValidator(_outside_number)]
Mail = Annotated[str, StringConstraints(pattern=r"^[^@\s]+@[^@\s]+$", max_length=254)]
Pin = Annotated[str, StringConstraints(pattern=r"^[0-9]{4,8}$")]
PageRule = Annotated[Rule, BeforeValidator(_page_rule)]
Language = Literal["zh", "en"]


class SiteEntry(FileEntry):
    key: Key
    name_zh: Name
    name_en: Name
    zone: Zone = "Asia/Shanghai"
    language: Language = "zh"
    queue: Key | None = None  # the key, unless said otherwise
    floor: Number  # is rung when nobody else is there
    area_code: Annotated[str, StringConstraints(pattern=r"^([1-9][0-9]{1,3})?$")] = ""
    supervisor: Key | None = None  # an engineer
    contract: Key | None = None
    calendar: Key | None = None  # its working hours


class EngineerEntry(FileEntry):
    key: Key
    name: Name
    number: Number
    department: Label = ""
    site: Key | None = None
    language: Language = "zh"
    mails: tuple[Mail, ...] = ()
    kind: Kind = Kind.REMOTE
    skills: tuple[Key, ...] = ()
    sites: tuple[Key, ...] = ()  # where they can stand in; none: everywhere
    text: TextNumber | None = None  # for texts; `number`, if it can be sent any
    pin: Pin | None = None
    page: tuple[PageRule, ...] = ()  # how they want to be told; none: by a call


class PersonEntry(FileEntry):
    """A requester who is recognised when calling."""

    key: Key
    name: Name
    department: Label = ""
    site: Key | None = None
    vip: StrictBool = False
    language: Language | None = None  # the site's, unless said otherwise
    numbers: tuple[Number, ...] = ()
    mails: tuple[Mail, ...] = ()


class DeskFile(FileEntry):
    """`holidays` is what the file that is named there says; `read` puts it in its place."""

    sites: Annotated[tuple[SiteEntry, ...], Field(min_length=1)]
    engineers: tuple[EngineerEntry, ...] = ()
    people: tuple[PersonEntry, ...] = ()
    teams: tuple[TeamEntry, ...] = ()
    rotations: tuple[RotationEntry, ...] = ()
    shifts: tuple[ShiftEntry, ...] = ()
    windows: tuple[WindowEntry, ...] = ()
    swaps: tuple[SwapEntry, ...] = ()
    overrides: tuple[OverrideEntry, ...] = ()
    leaves: tuple[LeaveEntry, ...] = ()
    feeds: tuple[FeedEntry, ...] = ()
    calendars: tuple[CalendarEntry, ...] = ()
    contracts: tuple[ContractEntry, ...] = ()
    policies: tuple[PolicyEntry, ...] = ()
    rules: tuple[RuleEntry, ...] = ()
    closing: ClosingEntry = ClosingEntry()
    holidays: str = ""

    def plan(self) -> Plan:
        """Return the part that says who is on duty."""
        duty = DutyEntries(
            teams=self.teams,
            rotations=self.rotations,
            shifts=self.shifts,
            windows=self.windows,
            swaps=self.swaps,
            overrides=self.overrides,
            leaves=self.leaves,
            zones={site.key: ZoneInfo(site.zone) for site in self.sites},
            kinds={engineer.key: engineer.kind for engineer in self.engineers},
            calendars={entry.key: _calendar(entry) for entry in self.calendars},
        )
        return Plan(
            sites=tuple(map(_site, self.sites)),
            engineers=tuple(map(_engineer, self.engineers)),
            teams=duty.rota_teams(),
            rotations=duty.rota_rotations(),
            shifts=duty.rota_shifts(),
            windows=duty.rota_windows(),
            swaps=duty.rota_swaps(),
            overrides=duty.rota_overrides(),
            leaves=duty.rota_leaves(),
            follows={entry.key: entry.holidays for entry in self.calendars if entry.holidays},
            feeds=tuple(Feed(key=f.key, url=f.url, engineer=f.engineer) for f in self.feeds),
        )

    def holiday_data(self) -> Mapping[str, HolidayData]:
        return {HOLIDAYS: read_calendar_data(self.holidays)} if self.holidays else {}


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
        supervisor=entry.supervisor or "",
        contract=entry.contract or "",
        calendar=entry.calendar or "",
    )


def _engineer(entry: EngineerEntry) -> Engineer:
    own = "" if _NO_TEXTS.match(entry.number) else entry.number
    return Engineer(
        key=entry.key,
        name=entry.name,
        number=entry.number,
        language=entry.language,
        text=entry.text or own,
        mails=entry.mails,
        pin=entry.pin or "",
        rules=entry.page,
        kind=entry.kind,
        skills=frozenset(entry.skills),
        sites=frozenset(entry.sites),
    )


def _calendar(entry: CalendarEntry) -> WorkingCalendar:
    return WorkingCalendar(
        name=entry.key,
        zone=entry.zone,
        weekly=entry.weekly,
        days={day.date: day.hours for day in entry.days},
    )


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
    if isinstance(name := document.get("holidays"), str) and name:
        document["holidays"] = _text_of(path.parent / name)
    return parse(document)


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"holidays: {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"holidays: {path}: not UTF-8: {error}") from error


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
    if not errors and desk is not None:
        errors += _contradictions(desk)
    if errors or desk is None:
        raise ConfigurationError("\n".join(errors))
    return desk


def _contradictions(desk: DeskFile) -> list[str]:
    """Return what is wrong with entries that are right each by itself."""
    errors = termsfile.problems(
        calendars=desk.calendars,
        contracts=desk.contracts,
        policies=desk.policies,
        rules=desk.rules,
        sites=[(site.key, site.contract or "", site.calendar or "") for site in desk.sites],
        engineers=[engineer.key for engineer in desk.engineers],
        teams=[team.key for team in desk.teams],
    )
    try:
        desk.holiday_data()
    except ConfigurationError as error:
        errors += [f"holidays: {line}" for line in str(error).splitlines()]
    return errors


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
    if len(loc) < 2 or not isinstance(loc[1], int):
        return ".".join(map(str, loc)) if loc else "(file)"
    kind, number = str(loc[0]), loc[1]
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


# Which entries name which others: the kind of entry, the path of the field, the kind that is named.
NAMES: Final = (
    ("engineers", "site", "sites"),
    ("engineers", "sites", "sites"),
    ("people", "site", "sites"),
    ("sites", "supervisor", "engineers"),
    ("teams", "sites", "sites"),
    ("rotations", "team", "teams"),
    ("rotations", "sites", "sites"),
    ("rotations", "members", "engineers"),
    ("rotations", "members.engineer", "engineers"),
    ("rotations", "calendar", "calendars"),
    ("shifts", "site", "places"),
    ("shifts", "sites", "sites"),
    ("shifts", "team", "teams"),
    ("shifts", "engineer", "engineers"),
    ("windows", "team", "teams"),
    ("windows", "sites", "sites"),
    ("windows", "engineer", "engineers"),
    ("windows", "calendar", "calendars"),
    ("swaps", "one.engineer", "engineers"),
    ("swaps", "other.engineer", "engineers"),
    ("overrides", "site", "places"),
    ("overrides", "sites", "sites"),
    ("overrides", "engineer", "engineers"),
    ("overrides", "replaces", "engineers"),
    ("leaves", "engineer", "engineers"),
    ("leaves", "backup", "engineers"),
    ("feeds", "engineer", "engineers"),
)


def _unknown_names(document: Mapping[str, Any]) -> Iterator[str]:
    known = {kind: _keys(document, kind) for kind in ("sites", "engineers", "teams", "calendars")}
    known["places"] = known["sites"] | {EVERYWHERE}
    known["calendars"] |= {ALWAYS.name}
    for kind, path, named in NAMES:
        what = "site" if named == "places" else named.removesuffix("s")
        for n, entry in _entries(document, kind):
            for name in _named(entry, path.split(".")):
                if name not in known[named]:
                    place = _place(document, (kind, n, *path.split(".")))
                    yield f"{place}: there is no {what} {name!r}"


def _named(value: object, path: Sequence[str]) -> Iterator[str]:
    """Return the texts at the end of `path`, through lists."""
    if isinstance(value, list):
        for each in value:
            yield from _named(each, path)
    elif path and isinstance(value, Mapping):
        yield from _named(value.get(path[0]), path[1:])
    elif not path and isinstance(value, str):
        yield value


_OWN_KEYS: Final = (  # kinds of entries within which a key must be used once
    ("sites",),
    ("engineers", "people"),
    *(
        (kind,)
        for kind in (
            "teams", "rotations", "shifts", "windows", "swaps", "overrides", "leaves", "feeds",
            "calendars", "contracts", "policies",
        )
    ),
)  # fmt: skip


def _doubles(document: Mapping[str, Any]) -> Iterator[str]:
    """Report keys, numbers and mail addresses that are given to two, and keys that mean another."""
    for kinds in _OWN_KEYS:
        yield from _used_twice(document, kinds)
    for kind, keys, meaning in (
        ("engineers", {FLOOR_KEY}, "means the floor number"),
        ("teams", {TEAM_OF_TIER.format(n) for n in (1, 2, 3)}, "is the team of those without one"),
    ):
        for n, entry in _entries(document, kind):
            if isinstance(key := entry.get("key"), str) and key in keys:
                yield f"{kind}.#{n + 1}.key: {key!r} {meaning}"
    yield from _shared_addresses(document)


def _used_twice(document: Mapping[str, Any], kinds: Iterable[str]) -> Iterator[str]:
    seen: set[str] = set()
    for kind in kinds:
        for n, entry in _entries(document, kind):
            key = entry.get("key")
            if isinstance(key, str) and key in seen:
                yield f"{kind}.#{n + 1}.key: {key!r} is used twice"
            seen |= {key} if isinstance(key, str) else set()


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
    # Somebody's one number may be both: that is still one person's.
    own = [entry.get(field) for field in ("number", "text")]
    yield from dict.fromkeys(_canonical(each, "numbers") for each in own if isinstance(each, str))


def _canonical(value: str, field: str) -> str:
    if field == "mails":
        return value.strip().lower()  # as `people.address_of` has it
    try:
        return _number(value.strip())
    except ValueError:
        return value


_Check = Callable[[Mapping[str, Any]], Iterator[str]]
_CHECKS: Final[tuple[_Check, ...]] = (_unknown_names, _doubles)
