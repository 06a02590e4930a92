"""Forms of the entries of the desk file, made from the models that check them.

A field's kind follows from its type in the model. What a form sends becomes an entry as the file
has it; what nobody changed stays as it was written, so that no edit rewrites what it did not touch.
Whether an entry is right is not decided here: the whole file is checked, and each error is shown at
its field.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from enum import Enum, StrEnum
from itertools import groupby
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints
from zoneinfo import ZoneInfo, available_timezones

from pydantic import BaseModel, StrictBool, StrictInt
from pydantic.fields import FieldInfo

from contactd.routing import deskfile, dutyfile, termsfile
from contactd.routing.clocks import Metric
from contactd.routing.deskedit import CLOSING, Document, entries
from contactd.routing.dutyfile import EVERYWHERE, Tier, Turn
from contactd.routing.entries import (
    DAY_NAMES,
    Day,
    Days,
    Hours,
    Length,
    Moment,
    Span,
    WallClock,
    Zone,
    weekdays,
)
from contactd.routing.termsfile import Promises, Warnings, Weekly
from contactd.web.adminwords import HINTS, LABELS

Values = Mapping[str, Sequence[str]]  # what a form shows or sends, by the name of the input

BLANK_ROWS: Final = 1
MOST_ROWS: Final = 60
_SEPARATORS: Final = re.compile(r"[\n,，、;；]+")  # as people write Chinese
_TURN: Final = re.compile(r"(?:([0-9]+) )?(hour|day|week|month)s?")


class Widget(StrEnum):
    TEXT = "text"
    NUMBER = "number"
    SELECT = "select"
    MANY = "many"  # of entries that exist
    LINES = "lines"  # texts, one a line
    YES = "yes"
    MAYBE = "maybe"  # yes, no, or nothing said
    DATE = "date"
    MOMENT = "moment"
    TIME = "time"
    DAYS = "days"
    LENGTH = "length"
    TURN = "turn"
    HOURS = "hours"
    WEEKLY = "weekly"
    WARNINGS = "warnings"
    ROWS = "rows"  # a list of small tables
    GROUP = "group"  # one small table
    PROMISES = "promises"


class _Absent:
    """What a field says that says nothing."""


ABSENT: Final = _Absent()


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of an entry. `refs` is the kind of entries that it names, "" if none."""

    name: str  # in the model
    path: str  # below the entry: "when.site"
    widget: Widget
    label: str  # message ids
    hint: str = ""
    required: bool = False
    default: str = ""  # what holds when nothing is said
    refs: str = ""
    options: tuple[str, ...] = ()
    numeric: bool = False
    fields: tuple["Field", ...] = ()  # of a small table
    short: str = ""  # the field that a row may be written as alone


MODELS: Final[Mapping[str, type[BaseModel]]] = {
    "sites": deskfile.SiteEntry,
    "engineers": deskfile.EngineerEntry,
    "people": deskfile.PersonEntry,
    "teams": dutyfile.TeamEntry,
    "rotations": dutyfile.RotationEntry,
    "shifts": dutyfile.ShiftEntry,
    "windows": dutyfile.WindowEntry,
    "overrides": dutyfile.OverrideEntry,
    "swaps": dutyfile.SwapEntry,
    "leaves": dutyfile.LeaveEntry,
    "feeds": dutyfile.FeedEntry,
    "calendars": termsfile.CalendarEntry,
    "contracts": termsfile.ContractEntry,
    "policies": termsfile.PolicyEntry,
    "rules": termsfile.RuleEntry,
    CLOSING: termsfile.ClosingEntry,
}
_REFS: Final[Mapping[tuple[str, str], str]] = {
    **{(section, path): kind for section, path, kind in deskfile.NAMES},
    ("sites", "contract"): "contracts",
    ("sites", "calendar"): "calendars",
    ("rules", "team"): "teams",
    ("rules", "policy"): "policies",
    ("rules", "when.site"): "sites",
    ("contracts", "promises.calendar"): "calendars",
}
# Types of the models that have a widget of their own; compared, since some cannot be hashed.
_WIDGETS: Final[Sequence[tuple[Any, Widget]]] = (
    (StrictBool, Widget.YES),
    (StrictInt, Widget.NUMBER),
    (Day, Widget.DATE),
    (Days, Widget.DAYS),
    (Hours, Widget.HOURS),
    (Length, Widget.LENGTH),
    (Moment, Widget.MOMENT),
    (Promises, Widget.PROMISES),
    (Span, Widget.LENGTH),
    (Turn, Widget.TURN),
    (WallClock, Widget.TIME),
    (Warnings, Widget.WARNINGS),
    (Weekly, Widget.WEEKLY),
)
_SHORT: Final[Mapping[tuple[str, str], str]] = {("rotations", "members"): "engineer"}
_MANY_OPTIONS: Final[Mapping[tuple[str, str], tuple[str, ...]]] = {
    ("rules", "when.priority"): ("P1", "P2", "P3", "P4"),
}
_OPTIONS: Final[Mapping[str, tuple[str, ...]]] = {"tier": ("1", "2", "3")}


def fields(section: str) -> tuple[Field, ...]:
    """Return the fields of a section's entries, in the order of the model."""
    return _FIELDS[section]


def _fields(section: str, model: type[BaseModel], above: str = "") -> tuple[Field, ...]:
    hints = get_type_hints(model, include_extras=True)
    found = [
        _field(section, f"{above}{name}", name, hints[name], info)
        for name, info in model.model_fields.items()
    ]
    return tuple(sorted(found, key=_rank))


def _rank(field: Field) -> int:
    """Put times after whom they are about, and a key that nobody need give at the end."""
    if field.name == "key" and not field.required:
        return 2
    return 1 if field.widget is Widget.MOMENT else 0


def _field(section: str, path: str, name: str, hint: Any, info: FieldInfo) -> Field:
    told, optional = _without_none(hint)
    widget, model = _widget(section, path, told, optional)
    refs = _REFS.get((section, path), "")
    if section == "contracts" and path == "promises":
        widget, below = Widget.PROMISES, _PROMISE_FIELDS
    else:
        below = _fields(section, model, f"{path}.") if model is not None else ()
    return Field(
        name=name,
        path=path,
        widget=widget,
        label=LABELS.get(f"{section}.{path}") or LABELS[name],
        hint=HINTS.get(f"{section}.{path}") or HINTS.get(name, ""),
        required=info.is_required(),
        default=_default(info.default),
        refs=refs,
        options=_MANY_OPTIONS.get((section, path)) or _options(told, name),
        numeric=_is(told, Tier),
        fields=below,
        short=_SHORT.get((section, path), ""),
    )


def _default(value: Any) -> str:
    """Return what holds when nothing is said, as far as it is one word."""
    if isinstance(value, bool) or not isinstance(value, str | int | time | timedelta):
        return ""
    if isinstance(value, timedelta):
        minutes = round(value / timedelta(minutes=1))
        return f"{minutes // 60}h" if minutes and not minutes % 60 else f"{minutes}m"
    return value.isoformat("minutes") if isinstance(value, time) else str(value)


def _without_none(hint: Any) -> tuple[Any, bool]:
    """Return the type without `| None`, and whether it had that."""
    if get_origin(hint) in (Union, UnionType):
        kinds = [each for each in get_args(hint) if each is not NoneType]
        return kinds[0], True
    return hint, False


def _is(told: Any, kind: Any) -> bool:
    return bool(told == kind)


def _widget(
    section: str, path: str, told: Any, optional: bool
) -> tuple[Widget, type[BaseModel] | None]:
    """Return how a type is edited, and the model of its small tables."""
    if optional and _is(told, StrictBool):
        return Widget.MAYBE, None
    for kind, widget in _WIDGETS:
        if _is(told, kind):
            return widget, None
    plain = get_args(told)[0] if get_origin(told) is Annotated else told
    if get_origin(plain) is tuple:
        return _widget_of_list(section, path, get_args(plain)[0])
    if isinstance(plain, type) and issubclass(plain, BaseModel):
        return Widget.GROUP, plain
    if (section, path) in _REFS or _options(told, path) or _is(told, Zone):
        return Widget.SELECT, None
    return (Widget.NUMBER if plain is int else Widget.TEXT), None


def _widget_of_list(section: str, path: str, each: Any) -> tuple[Widget, type[BaseModel] | None]:
    plain = get_args(each)[0] if get_origin(each) is Annotated else each
    is_told = (section, path) in _REFS or (section, path) in _MANY_OPTIONS
    if isinstance(plain, type) and issubclass(plain, BaseModel) and path != "page":
        return Widget.ROWS, plain
    return (Widget.MANY if is_told else Widget.LINES), None


def _options(told: Any, name: str) -> tuple[str, ...]:
    plain = get_args(told)[0] if get_origin(told) is Annotated else told
    if get_origin(plain) is Literal:
        return tuple(str(each) for each in get_args(plain))
    if isinstance(plain, type) and issubclass(plain, Enum):
        return tuple(str(each.value) for each in plain)
    if _is(told, Zone):
        return _ZONES
    return _OPTIONS.get(name, ())


_ZONES: Final = tuple(
    sorted(zone for zone in available_timezones() if "/" in zone and not zone.startswith("Etc/"))
)
_PROMISE_FIELDS: Final = tuple(
    Field(
        name=name, path=f"promises.{name}", widget=widget, label=LABELS[f"promises.{name}"],
        hint=HINTS.get(f"promises.{name}", ""), refs=refs, options=options,
        required=name in ("priority", "metric", "goal"),
    )
    for name, widget, refs, options in (
        ("priority", Widget.SELECT, "", ("all", "P1", "P2", "P3", "P4")),
        ("metric", Widget.SELECT, "", tuple(each.value for each in Metric)),
        ("goal", Widget.LENGTH, "", ()),
        ("calendar", Widget.SELECT, "calendars", ()),
        ("warnings", Widget.WARNINGS, "", ()),
        ("pausable", Widget.MAYBE, "", ()),
    )
)  # fmt: skip
_FIELDS: Final[Mapping[str, tuple[Field, ...]]] = {
    section: _fields(section, model) for section, model in MODELS.items()
}


# From an entry to a form


def filled(section: str, entry: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return what a form shows of an entry."""
    shown: dict[str, list[str]] = {}
    for field in fields(section):
        if field.name in entry:
            _fill(field, field.name, entry[field.name], shown)
        elif field.widget is Widget.DAYS:
            shown[field.name] = list(DAY_NAMES)  # nothing said is every day
    return shown


def _fill(field: Field, name: str, raw: Any, shown: dict[str, list[str]]) -> None:
    several = _FILLS.get(field.widget)
    if several is not None:
        several(field, name, raw, shown)
    else:
        shown[name] = _SHOWS.get(field.widget, _as_text)(raw)


def _as_text(raw: Any) -> list[str]:
    return ["1" if raw else ""] if isinstance(raw, bool) else [str(raw)]


def _as_list(raw: Any) -> list[str]:
    return [str(each) for each in (raw if isinstance(raw, list) else [raw])]


def _as_maybe(raw: Any) -> list[str]:
    return ["yes" if raw else "no"]


def _as_moment(raw: Any) -> list[str]:
    return [raw.isoformat(timespec="minutes")] if isinstance(raw, datetime) else [str(raw)]


def _as_days(raw: Any) -> list[str]:
    try:
        return [DAY_NAMES[day] for day in sorted(weekdays(raw))]
    except ValueError:
        return []


_SHOWS: Final[Mapping[Widget, Callable[[Any], list[str]]]] = {
    Widget.MANY: _as_list,
    Widget.LINES: lambda raw: ["\n".join(_as_list(raw))],
    Widget.MAYBE: _as_maybe,
    Widget.MOMENT: _as_moment,
    Widget.DAYS: _as_days,
    Widget.HOURS: lambda raw: [", ".join(_as_list(raw))],
    Widget.WARNINGS: lambda raw: [", ".join(_as_list(raw))],
}


def _fill_turn(_field: Field, name: str, raw: Any, shown: dict[str, list[str]]) -> None:
    found = _TURN.fullmatch(str(raw))
    shown[f"{name}.count"] = [found[1] or "1" if found else ""]
    shown[f"{name}.unit"] = [found[2] if found else ""]


def _fill_weekly(_field: Field, name: str, raw: Any, shown: dict[str, list[str]]) -> None:
    for days, periods in raw.items() if isinstance(raw, Mapping) else ():
        for day in _as_days(str(days)):
            shown[f"{name}.{day}"] = [", ".join(_as_list(periods))]


def _fill_group(field: Field, name: str, raw: Any, shown: dict[str, list[str]]) -> None:
    for each in field.fields:
        if isinstance(raw, Mapping) and each.name in raw:
            _fill(each, f"{name}.{each.name}", raw[each.name], shown)


def _fill_rows(field: Field, name: str, raw: Any, shown: dict[str, list[str]]) -> None:
    for number, row in enumerate(raw if isinstance(raw, list) else []):
        told = row if isinstance(row, Mapping) else {field.short: row}
        _fill_group(field, f"{name}.{number}", told, shown)


def _fill_promises(field: Field, name: str, raw: Any, shown: dict[str, list[str]]) -> None:
    rows = [
        {"priority": priority, "metric": metric, **_promise(promised)}
        for priority, promises in (raw.items() if isinstance(raw, Mapping) else ())
        for metric, promised in (promises.items() if isinstance(promises, Mapping) else ())
    ]
    _fill_rows(field, name, rows, shown)


def _promise(promised: Any) -> Mapping[str, Any]:
    return promised if isinstance(promised, Mapping) else {"goal": promised}


_FILLS: Final[Mapping[Widget, Callable[[Field, str, Any, dict[str, list[str]]], None]]] = {
    Widget.TURN: _fill_turn,
    Widget.WEEKLY: _fill_weekly,
    Widget.GROUP: _fill_group,
    Widget.ROWS: _fill_rows,
    Widget.PROMISES: _fill_promises,
}


# From a form to an entry


def read(section: str, sent: Values, before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the entry that a form says; what is not in the form's words stays as in `before`."""
    old = before or {}
    entry: dict[str, Any] = {}
    for field in fields(section):
        raw = _kept(field, sent, old)
        if raw is not ABSENT:
            entry[field.name] = raw
    return {**{name: entry[name] for name in old if name in entry}, **entry}


def _kept(field: Field, sent: Values, old: Mapping[str, Any]) -> Any:
    """Return what the form says of a field; as it was written, if it says the same."""
    said = _read(field, field.name, sent)
    if field.name not in old:
        return said
    shown: dict[str, list[str]] = {}
    _fill(field, field.name, old[field.name], shown)
    return old[field.name] if _read(field, field.name, shown) == said else said


def _read(field: Field, name: str, sent: Values) -> Any:
    several = _READS_MORE.get(field.widget)
    if several is not None:
        return several(field, name, sent)
    values = [each.strip() for each in sent.get(name, ())]
    if field.widget not in _READS_NOTHING and not any(values):
        return ABSENT
    return _READS.get(field.widget, _text)(values, field)


def _text(values: Sequence[str], field: Field) -> Any:
    return _number(values, field) if field.numeric else values[0]


def _number(values: Sequence[str], _field: Field) -> Any:
    text = values[0]
    return int(text) if re.fullmatch(r"-?[0-9]{1,9}", text) else text


def _date(values: Sequence[str], _field: Field) -> Any:
    try:
        return date.fromisoformat(values[0])
    except ValueError:
        return values[0]


def _moment(values: Sequence[str], _field: Field) -> Any:
    try:
        return datetime.fromisoformat(values[0].replace(" ", "T", 1))
    except ValueError:
        return values[0]


def _days(values: Sequence[str], _field: Field) -> Any:
    chosen = sorted(DAY_NAMES.index(each) for each in values if each in DAY_NAMES)
    if len(chosen) == len(DAY_NAMES):
        return ABSENT
    if not chosen:
        return ""  # which the check refuses: a shift of no day is a slip
    runs = [[day for _, day in run] for _, run in groupby(enumerate(chosen), _apart)]
    named = [_range(run) for run in runs]
    return named[0] if len(named) == 1 else named


def _apart(numbered: tuple[int, int]) -> int:
    return numbered[1] - numbered[0]


def _range(run: Sequence[int]) -> str:
    first, last = DAY_NAMES[run[0]], DAY_NAMES[run[-1]]
    return first if first == last else f"{first}-{last}"


def _listed(values: Sequence[str], _field: Field) -> list[str]:
    return [part.strip() for part in _SEPARATORS.split("\n".join(values)) if part.strip()]


def _warnings(values: Sequence[str], field: Field) -> list[Any]:
    return [_number([part], field) for part in _listed(values, field)]


_READS: Final[Mapping[Widget, Callable[[Sequence[str], Field], Any]]] = {
    Widget.NUMBER: _number,
    Widget.MANY: lambda values, _field: [each for each in values if each],
    Widget.LINES: _listed,
    Widget.YES: lambda values, _field: True,
    Widget.MAYBE: lambda values, _field: values[0] == "yes",
    Widget.DATE: _date,
    Widget.MOMENT: _moment,
    Widget.DAYS: _days,
    Widget.HOURS: _listed,
    Widget.WARNINGS: _warnings,
}
_READS_NOTHING: Final = frozenset(
    {Widget.DAYS, Widget.HOURS}
)  # they say something even if nothing is chosen


def _read_turn(_field: Field, name: str, sent: Values) -> Any:
    count, unit = ("".join(sent.get(f"{name}.{part}", ())).strip() for part in ("count", "unit"))
    if not count or not unit:
        return ABSENT
    return unit if count == "1" else f"{count} {unit}s"


def _read_weekly(field: Field, name: str, sent: Values) -> Any:
    hours = {
        day: _listed(sent.get(f"{name}.{day}", ()), field)
        for day in DAY_NAMES
        if any(each.strip() for each in sent.get(f"{name}.{day}", ()))
    }
    weekly: dict[str, Any] = {}
    days = list(hours)
    while days:
        same = [days[0]]
        for day in days[1:]:
            follows = DAY_NAMES.index(day) == DAY_NAMES.index(same[-1]) + 1
            if follows and hours[day] == hours[days[0]]:
                same.append(day)
        periods = hours[days[0]]
        weekly[_range([DAY_NAMES.index(day) for day in same])] = (
            periods[0] if len(periods) == 1 else periods
        )
        days = [day for day in days if day not in same]
    return weekly or ABSENT


def _read_group(field: Field, name: str, sent: Values) -> Any:
    told = {each.name: _read(each, f"{name}.{each.name}", sent) for each in field.fields}
    return {key: value for key, value in told.items() if value is not ABSENT} or ABSENT


def _read_rows(field: Field, name: str, sent: Values) -> Any:
    rows = []
    for number in _row_numbers(name, sent):
        row = _read_group(field, f"{name}.{number}", sent)
        if row is not ABSENT and any(value != [] for value in row.values()):
            only = field.short and set(row) == {field.short}
            rows.append(
                (_order(f"{name}.{number}", number, sent), row[field.short] if only else row)
            )
    rows.sort(key=lambda row: row[0])
    return [row for _, row in rows] or ABSENT


def _row_numbers(name: str, sent: Values) -> list[int]:
    found = {
        int(each[len(name) + 1 :].split(".")[0])
        for each in sent
        if re.match(rf"{re.escape(name)}\.[0-9]{{1,3}}\.", each)
    }
    return sorted(found)[:MOST_ROWS]


def _order(prefix: str, number: int, sent: Values) -> tuple[float, int]:
    """Return where a row belongs: as its number says; who has none stays where it is."""
    told = "".join(sent.get(f"{prefix}.no", ())).strip()
    return (float(told) if re.fullmatch(r"[0-9]{1,3}", told) else number + 1, number)


def _read_promises(field: Field, name: str, sent: Values) -> Any:
    rows = _read_rows(field, name, sent)
    promises: dict[str, dict[str, Any]] = {}
    for row in [] if rows is ABSENT else rows:
        told = {key: value for key, value in row.items() if key not in ("priority", "metric")}
        if told:
            short = told["goal"] if set(told) == {"goal"} else told
            metrics = promises.setdefault(str(row.get("priority", "all")), {})
            metrics[str(row.get("metric", ""))] = short
    return promises


_READS_MORE: Final[Mapping[Widget, Callable[[Field, str, Values], Any]]] = {
    Widget.TURN: _read_turn,
    Widget.WEEKLY: _read_weekly,
    Widget.GROUP: _read_group,
    Widget.ROWS: _read_rows,
    Widget.PROMISES: _read_promises,
}


# What a template asks


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What is drawn: the values, the choices, and what is wrong by the name of the field."""

    section: str
    values: Values
    choices: Mapping[str, Sequence[tuple[str, str]]]  # kind -> (key, what people call it)
    errors: Mapping[str, Sequence[str]]
    blank: int = BLANK_ROWS  # rows more than there are

    @property
    def fields(self) -> tuple[Field, ...]:
        return fields(self.section)

    def value(self, name: str) -> str:
        return next(iter(self.values.get(name, ())), "")

    def has(self, name: str, value: str) -> bool:
        return value in self.values.get(name, ())

    def rows(self, name: str) -> range:
        numbers = _row_numbers(name, self.values)
        return range(min(MOST_ROWS, (numbers[-1] + 1 if numbers else 0) + self.blank))

    def options(self, field: Field, name: str) -> list[tuple[str, str]]:
        """Return what can be chosen, and what is chosen even if it is not there any more."""
        found = list(self.choices.get(field.refs, ())) or [(key, key) for key in field.options]
        known = {key for key, _ in found}
        return [
            *found,
            *((key, key) for key in self.values.get(name, ()) if key not in known | {""}),
        ]

    def said(self, field: Field) -> Sequence[str]:
        return self.errors.get(field.name, ())


def choices(found: Document, language: str) -> dict[str, list[tuple[str, str]]]:
    """Return the entries that fields can name, by kind, with what people call them."""
    told: dict[str, list[tuple[str, str]]] = {}
    for kind in ("sites", "engineers", "teams", "calendars", "contracts", "policies"):
        told[kind] = [(key, called(each, language)) for each in entries(found, kind)
                      if (key := str(each.get("key", "")))]  # fmt: skip
    told["places"] = [*told["sites"], (EVERYWHERE, EVERYWHERE)]
    told["calendars"].append(("always", "always"))
    known = {key for key, _ in told["policies"]}
    told["policies"] += [(key, key) for key in ("standard", "p1") if key not in known]
    return told


def called(
    entry: Mapping[str, Any], language: str = "zh", names: Mapping[str, str] | None = None
) -> str:
    """Return what people call an entry: its name, its key, or whom it is about.

    `names` are those of people and sites, by key.
    """
    key = str(entry.get("key", ""))
    name = str(entry.get("name") or entry.get(f"name_{language}") or "")
    if key or name:
        return f"{name} ({key})" if name and key and name != key else name or key
    stints = [entry[part]["engineer"] for part in ("one", "other")
              if isinstance(entry.get(part), Mapping) and "engineer" in entry[part]]  # fmt: skip
    about = [
        *stints,
        entry.get("engineer"),
        entry.get("team"),
        entry.get("policy"),
        entry.get("site"),
    ]
    return " · ".join((names or {}).get(str(each), str(each)) for each in about if each)


def with_offset(section: str, entry: dict[str, Any], zone: ZoneInfo) -> dict[str, Any]:
    """Give the times of an override of every site an offset: they have no one time zone."""
    if section == "overrides" and entry.get("site") == EVERYWHERE:
        for name in ("start", "end"):
            value = entry.get(name)
            if isinstance(value, datetime) and value.tzinfo is None:
                entry[name] = datetime.fromisoformat(value.replace(tzinfo=zone).isoformat())
    return entry


def names_of(sent: Iterable[tuple[str, Any]]) -> dict[str, list[str]]:
    """Return a form's texts by name, lines as everywhere; files are nobody's words."""
    found: dict[str, list[str]] = {}
    for name, value in sent:
        if isinstance(value, str):
            found.setdefault(name, []).append(value.replace("\r\n", "\n"))
    return found
