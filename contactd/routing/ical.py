"""Calendars (iCalendar, RFC 5545): duty as others subscribe to it, absences as others keep them.

Pure: bytes and values in and out. What `absences` reads is a stranger's: it can take any time and
memory, so that it is called in a process of its own (`calendar_reader`).
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

from contactd.routing.oncall import Site
from contactd.routing.rota import HOLE, Span
from contactd.routing.wallclock import instant

if TYPE_CHECKING:
    from icalendar import Event

REFRESH: Final = timedelta(minutes=15)  # how often a subscriber should look again
MOST_ABSENCES: Final = 2_000

_PRODUCT: Final = "-//contactd//duty//EN"
_UID_DIGITS: Final = 32


# Out ------------------------------------------------------------------------------------------


class View(StrEnum):
    """Whose duty a calendar shows."""

    PERSON = "person"
    TEAM = "team"
    SITE = "site"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a calendar is about, and what it calls the people and places in it.

    `host` makes the events' UIDs those of this installation; `stamp` is when the rota was changed
    last (RFC 5545 section 3.8.7.2): the same rota gives the same bytes.
    """

    view: View
    name: str  # of the calendar
    language: str  # zh, en
    zone: str  # IANA name, for programs that show one
    host: str
    stamp: datetime
    people: Mapping[str, str]  # key -> name
    sites: Mapping[str, Site]


_TIERS: Final[Mapping[int, tuple[str, str]]] = {
    1: ("一线", "tier 1"), 2: ("二线", "tier 2"), 3: ("三线", "tier 3"),
}  # fmt: skip
_WHY: Final[Mapping[str, tuple[str, str]]] = {
    "rotation": ("轮值", "rotation"),
    "shift": ("固定班次", "shift"),
    "window": ("客户工作时间", "customer's hours"),
    "swap": ("换班", "swap"),
    "override": ("临时调整", "override"),
    "leave": ("因请假代班", "stands in: leave"),
    "unplanned": ("无排班", "not in the rota"),
}


def calendar(spans: Iterable[Span], about: Subject) -> bytes:
    """Return the calendar of `spans`, which are those of its subject.

    What one person has at several sites for the same reason is one event. An event keeps its UID
    as long as the same person begins at the same time in the same place and layer: a subscriber
    sees it grow or shrink, and not another one.
    """
    from icalendar import Calendar  # here and below: 8 MB that few processes need

    made = Calendar()
    made.add("prodid", _PRODUCT)
    made.add("version", "2.0")
    made.add("method", "PUBLISH")
    name = "".join(c if c.isprintable() else " " for c in about.name)
    made.add("name", name)  # RFC 7986 section 5.1
    made.add("x-wr-calname", name)
    made.add("x-wr-timezone", about.zone)
    made.add("refresh-interval", REFRESH, parameters={"VALUE": "DURATION"})  # RFC 7986 5.7
    made.add("x-published-ttl", f"PT{int(REFRESH.total_seconds()) // 60}M")
    for group in _together(spans, about):
        made.add_component(_event(group, about))
    return bytes(made.to_ical())


def _together(spans: Iterable[Span], about: Subject) -> list[list[Span]]:
    """Return the spans of each event, in order of time."""
    order = {key: n for n, key in enumerate(about.sites)}
    groups: dict[tuple[Any, ...], list[Span]] = {}
    for span in sorted(spans, key=lambda s: (s.since, s.tier, order.get(s.site, -1), s.until)):
        same = (span.since, span.until, span.tier, span.team, span.engineer, span.why)
        groups.setdefault(same, []).append(span)
    return list(groups.values())


def _event(group: Sequence[Span], about: Subject) -> "Event":
    from icalendar import Event

    first, language = group[0], int(about.language != "zh")
    event = Event()
    event.add("uid", _uid(first, about.host))
    event.add("dtstamp", about.stamp.astimezone(UTC))
    event.add("dtstart", first.since.astimezone(UTC))
    event.add("dtend", first.until.astimezone(UTC))
    event.add("summary", _summary(group, about, language))
    event.add("location", _places(group, about, language))
    event.add("description", _reasons(first, about, language))
    # Somebody on duty is still free for appointments; a hole is nobody's time.
    event.add("transp", "TRANSPARENT")
    return event


def _uid(span: Span, host: str) -> str:
    what = (
        span.site, span.tier, span.team, span.engineer, str(span.why[0]), span.since.isoformat(),
    )  # fmt: skip
    digest = hashlib.sha256("\n".join(map(str, what)).encode()).hexdigest()
    return f"{digest[:_UID_DIGITS]}@{host}"


def _summary(group: Sequence[Span], about: Subject, language: int) -> str:
    span = group[0]
    person = _person(span.engineer, about, language)
    tier = _TIERS[span.tier][language] if span.tier in _TIERS else str(span.tier)
    places = _places(group, about, language)
    match about.view:
        case View.PERSON:
            return (f"{places} {tier}值班", f"On duty, {tier}: {places}")[language]
        case View.TEAM:
            return (f"{person} {places} {tier}", f"{person}, {tier}: {places}")[language]
        case View.SITE:
            return (f"{person}（{tier}）", f"{person} ({tier})")[language]


def _person(key: str, about: Subject, language: int) -> str:
    return ("无人值班", "Nobody on duty")[language] if key == HOLE else about.people.get(key, key)


def _places(group: Sequence[Span], about: Subject, language: int) -> str:
    known = [about.sites[span.site] for span in group if span.site in about.sites]
    return ("、", ", ")[language].join((site.name_zh, site.name_en)[language] for site in known)


def _reasons(span: Span, about: Subject, language: int) -> str:
    told = [f"{_WHY[cause.kind.value][language]} {cause.key}".strip() for cause in span.why]
    if span.instead_of:
        instead = about.people.get(span.instead_of, span.instead_of)
        told.append((f"代替{instead}", f"instead of {instead}")[language])
    return ("；", "; ")[language].join(told)


# In -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Absence:
    start: datetime  # UTC
    end: datetime  # UTC


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """What a calendar says; not `complete`: events that make no sense were left out."""

    absences: tuple[Absence, ...]
    complete: bool = True


def absences(content: bytes, *, start: datetime, end: datetime, zone: str) -> Read:
    """Return the time of all events that touch the time from `start` to `end`, merged.

    Events that repeat are each of their occurrences; those that are cancelled do not count, those
    shown as free do (all-day leave often is). Whole days and times without a zone are those of
    `zone`; occurrences in a gap of the clocks are where RFC 5545 section 3.3.5 puts them.

    Raises:
        ValueError: it is no calendar, or has too many events; the text quotes nothing of it.
    """
    from icalendar import Calendar

    try:
        calendars = Calendar.from_ical(content, multiple=True)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise ValueError("it is not a calendar (iCalendar)") from error
    if not calendars or any(each.name != "VCALENDAR" for each in calendars):
        raise ValueError("it is not a calendar (iCalendar)")
    found: list[Absence] = []
    complete = True
    for each in calendars:
        events, flawless = _occurrences(each, start, end)
        complete = complete and flawless
        found += [absence for event in events if (absence := _absence(event, zone)) is not None]
    if len(found) > MOST_ABSENCES:
        raise ValueError(f"more than {MOST_ABSENCES} events")
    return Read(absences=_merged(found), complete=complete)


def _occurrences(calendar: Any, start: datetime, end: datetime) -> tuple[list[Any], bool]:
    """Return the events of a time, and whether all of them could be read."""
    import recurring_ical_events

    sensible = [each for each in calendar.subcomponents if _makes_sense(each)]
    flawless = len(sensible) == len(calendar.subcomponents)
    calendar.subcomponents = sensible  # the library would stop at the others
    try:
        return list(recurring_ical_events.of(calendar).between(start, end)), flawless
    except ValueError:  # its InvalidCalendar: one bad rule must not hide the other events
        some = recurring_ical_events.of(calendar, skip_bad_series=True)
        return list(some.between(start, end)), False


def _makes_sense(component: Any) -> bool:
    if component.name != "VEVENT":
        return True
    first, last = _moment(component, "DTSTART"), _moment(component, "DTEND")
    if component.errors or first is None:
        return False
    return last is None or _instant(first, "UTC") <= _instant(last, "UTC")


def _absence(event: Any, zone: str) -> Absence | None:
    if str(event.get("STATUS", "")).upper() == "CANCELLED":
        return None
    first, last = _moment(event, "DTSTART"), _moment(event, "DTEND")
    if first is None or last is None:
        return None
    start, end = _instant(first, zone), _instant(last, zone)
    return Absence(start=start, end=end) if start < end else None


def _moment(event: Any, name: str) -> date | datetime | None:
    try:
        found = getattr(event.get(name), "dt", None)
    except ValueError:  # icalendar's BrokenCalendarProperty
        return None
    return found if isinstance(found, date) else None


def _instant(moment: date | datetime, zone: str) -> datetime:
    if not isinstance(moment, datetime):
        return instant(moment, time(), ZoneInfo(zone))
    if moment.tzinfo is None:  # "floating"
        moment = moment.replace(tzinfo=ZoneInfo(zone))
    return moment.astimezone(UTC)


def _merged(found: Iterable[Absence]) -> tuple[Absence, ...]:
    """Return the same time without overlaps, in order."""
    merged: list[Absence] = []
    for each in sorted(found):
        if merged and each.start <= merged[-1].end:
            merged[-1] = Absence(start=merged[-1].start, end=max(merged[-1].end, each.end))
        else:
            merged.append(each)
    return tuple(merged)
