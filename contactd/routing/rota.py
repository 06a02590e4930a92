"""The rota: from rotations, shifts, windows, swaps, overrides and leave to who is on duty (pure).

`spans` is the only place where duty is decided. It is meant to be stored: whoever changes the rota
asks `problems` first (a rota without a floor target is refused, the rest is shown), then replaces
the stored spans from now on, 60 days ahead, in the same transaction; what is past stays. Queue
members, pages, the status page and iCal read the stored spans, with `who` and `explain`. Nobody on
duty is the caller's to handle: it rings the floor target of the site.

How it is put together, each step on the result of the one before:

1. each layer (a rotation, a fixed shift, a window) says who has its time, or that nobody has;
2. swaps exchange what two people hold, in the order of the rota;
3. overrides apply by rank, the lowest first; of one rank those that take over a whole tier come
   before those that replace a person, each in the order of the rota;
4. whoever is on leave is stood in for (see `Leave`), whatever put them on duty;
5. what is left of a tier is a hole.

Spans are cut to the time that is asked for; but for that cut, the answer for a moment does not
depend on it. For the same reason leave that is past still counts: see `OFF_DUTY_SEEN`.

Wall-clock times are resolved as `wallclock.instant` does it: a time that a clock change skips is
the first instant after the gap (GoAlert's rule, not RFC 5545's), one that comes twice is the first
of the two.
"""

from bisect import bisect_left, bisect_right
from calendar import monthrange
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from itertools import groupby, pairwise
from typing import Final
from zoneinfo import ZoneInfo

from contactd.routing.calendars import ALWAYS, WorkingCalendar, open_periods
from contactd.routing.wallclock import ANYWHERE, instant

HOLE: Final = ""  # the engineer of a span that nobody has
RESIDENT_MARGIN: Final = timedelta(minutes=10)  # the contract's, before and after the hours
# Of two stand-ins the one longer off duty is taken; who has been off longer than this counts as
# off for this long, and the order of the rota decides. Leave that begins later than this after
# all earlier leave has ended does not depend on it: only such earlier leave may be deleted.
OFF_DUTY_SEEN: Final = timedelta(days=28)
LONGEST_STAND_IN: Final = timedelta(days=7)  # then the next is looked for

_DAY: Final = timedelta(days=1)
_HOUR: Final = timedelta(hours=1)
# A shift lasts a day at most (and the hours of a clock change), so that it began at most two
# dates ago in any zone.
_DATES_BACK: Final = 2
_FIRST: Final = datetime.min.replace(tzinfo=UTC)
_LAST: Final = datetime.max.replace(tzinfo=UTC)
_SHOWN_RANGES: Final = 3  # of one problem; the others are counted

Stretch = tuple[datetime, datetime]  # half-open, UTC
Held = tuple[str, datetime, datetime]  # engineer or HOLE, since, until
Opened = Callable[[WorkingCalendar, datetime, datetime], list[Stretch]]


class Kind(StrEnum):
    RESIDENT = "resident"
    FIELD = "field"
    BACKUP = "backup"
    REMOTE = "remote"
    SECOND_LINE = "second line"


BOUND: Final = frozenset({Kind.RESIDENT, Kind.FIELD})  # can be in one place only


class Unit(StrEnum):
    HOUR = "hour"  # elapsed, whatever the clocks do
    DAY = "day"
    WEEK = "week"
    MONTH = "month"  # from the 31st on: the last day of shorter months


_SHORTEST: Final = {
    Unit.HOUR: _HOUR,
    Unit.DAY: _DAY,
    Unit.WEEK: 7 * _DAY,
    Unit.MONTH: 28 * _DAY,
}


class Count(StrEnum):
    """Which units make a turn of a rotation longer."""

    CALENDAR = "calendar"  # all of them
    ACTIVE = "active"  # only those in which its hours are open at some time


class Why(StrEnum):
    ROTATION = "rotation"
    SHIFT = "shift"
    WINDOW = "window"
    SWAP = "swap"
    OVERRIDE = "override"
    LEAVE = "leave"
    UNPLANNED = "unplanned"  # nobody has this time in any layer


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    key: str
    zone: str  # IANA name
    floor: str  # number that is rung when nobody else is there; never empty

    def __post_init__(self) -> None:
        _check_key("site", self.key)
        _check_zone(f"site {self.key!r}", self.zone)


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    key: str
    tier: int  # 1, 2, 3
    sites: tuple[str, ...] = ()  # site keys; none: all sites
    skills: frozenset[str] = frozenset()  # a stand-in must have them all


@dataclass(frozen=True, slots=True, kw_only=True)
class Engineer:
    key: str
    name: str
    number: str  # E.164, or an extension of the PBX; without one nobody is rung
    kind: Kind
    skills: frozenset[str] = frozenset()
    sites: frozenset[str] = frozenset()  # site keys; none: all sites

    def __post_init__(self) -> None:
        _check_key("engineer", self.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """An engineer who belongs to a layer from one local date on, and up to the day before another.

    A date begins at the hand-off in a rotation, and at midnight in a window; a fixed shift belongs
    to the date of its start.
    """

    engineer: str
    since: date | None = None
    until: date | None = None  # the first date on which they do not belong to it any more

    def __post_init__(self) -> None:
        if self.since is not None and self.until is not None and self.until <= self.since:
            raise ValueError(f"member {self.engineer!r}: until: must be after {self.since}")

    def belongs(self, day: date) -> bool:
        return (self.since is None or self.since <= day) and (
            self.until is None or day < self.until
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """Members who have turns of `length` units, one after the other, from a date on.

    After each member comes the next in the list who belongs to it when the turn begins. If
    somebody ceases to belong during a turn, the next in the list has the rest of it; whose turn
    comes then does not change. If nobody belongs, that turn is lost by whoever is next in the list.

    With `Count.ACTIVE` a unit in which `hours` are closed throughout makes no turn longer: in a
    rotation of days on working hours nobody loses a turn to a weekend or a holiday.
    """

    key: str
    team: str
    sites: tuple[str, ...] = ()  # some of the team's; none: all of them
    members: tuple[Member, ...]
    unit: Unit
    length: int = 1
    start: date  # of the first turn
    handoff: time  # on the clocks of `zone`; with `Unit.HOUR` that of the first turn
    zone: str  # IANA name
    count: Count = Count.CALENDAR
    hours: WorkingCalendar = ALWAYS  # nobody is on duty outside of them

    def __post_init__(self) -> None:
        _check_zone(f"rotation {self.key!r}", self.zone)
        if self.length < 1:
            raise ValueError(f"rotation {self.key!r}: length: must be 1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedShift:
    """A weekly shift in the local time of each site; `end` at or before `start`: the next day."""

    key: str
    team: str
    sites: tuple[str, ...] = ()  # some of the team's; none: all of them
    member: Member
    weekdays: frozenset[int]  # of the start; 0 is Monday, as in datetime.weekday()
    start: time
    end: time

    def __post_init__(self) -> None:
        if not self.weekdays <= set(range(7)):
            raise ValueError(f"shift {self.key!r}: weekdays: must be 0 (Monday) to 6 (Sunday)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """On duty whenever a working calendar is open, and `margin` before and after that.

    Residents are there on the customer's hours with `RESIDENT_MARGIN`.
    """

    key: str
    team: str
    sites: tuple[str, ...] = ()  # some of the team's; none: all of them
    member: Member
    hours: WorkingCalendar
    margin: timedelta = timedelta()

    def __post_init__(self) -> None:
        if self.margin < timedelta():
            raise ValueError(f"window {self.key!r}: margin: must not be negative")


Layer = Rotation | FixedShift | Window


@dataclass(frozen=True, slots=True, kw_only=True)
class Stint:
    """What an engineer holds in a time."""

    engineer: str
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """Two people exchange all duty that each has in a time of their own."""

    key: str
    one: Stint
    other: Stint

    def __post_init__(self) -> None:
        for stint in (self.one, self.other):
            _check_order(f"swap {self.key!r}", stint.start, stint.end)
        if self.one.engineer == self.other.engineer:
            raise ValueError(f"swap {self.key!r}: other: must be somebody else")


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """`engineer` stands in from `start` to `end`.

    With `replaces` it is that person who is stood in for, whenever they would be on duty in this
    tier; without, `engineer` takes over the whole tier, be anybody on duty or not. Those who take
    over one tier at the same time with the same rank share it. A higher rank has the last word.
    """

    key: str
    tier: int
    sites: tuple[str, ...] = ()  # site keys; none: all sites
    engineer: str
    start: datetime
    end: datetime
    replaces: str = ""
    rank: int = 0

    def __post_init__(self) -> None:
        _check_order(f"override {self.key!r}", self.start, self.end)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """`engineer` is away from `start` to `end`; whatever they hold then goes to a stand-in.

    That is `backup`, when they are not on leave themselves. Otherwise it is chosen for each thing
    held, and anew after `LONGEST_STAND_IN`, in order of time: an engineer with a number, the
    team's skills and all its sites concerned, who is not on leave; rather one who is not on duty
    at that time; then the one longest off duty; then the first in the rota. If leave lets nobody
    do all of it, it is divided where somebody's leave begins or ends. Nobody found is a hole.
    """

    key: str
    engineer: str
    start: datetime
    end: datetime
    backup: str = ""

    def __post_init__(self) -> None:
        _check_order(f"leave {self.key!r}", self.start, self.end)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rota:
    """Everything that decides who is on duty. Entries that name what is not there are left out.

    Raises:
        ValueError: two entries of one kind have the same key; the text names all of them.
    """

    sites: tuple[Site, ...]
    teams: tuple[Team, ...]
    engineers: tuple[Engineer, ...]
    rotations: tuple[Rotation, ...] = ()
    shifts: tuple[FixedShift, ...] = ()
    windows: tuple[Window, ...] = ()
    swaps: tuple[Swap, ...] = ()
    overrides: tuple[Override, ...] = ()
    leaves: tuple[Leave, ...] = ()

    def __post_init__(self) -> None:
        kinds = (
            self.sites, self.teams, self.engineers, self.rotations, self.shifts,
            self.windows, self.swaps, self.overrides, self.leaves,
        )  # fmt: skip
        counted = Counter(
            f"{type(entry).__name__.lower()} {entry.key!r}" for kind in kinds for entry in kind
        )
        double = [f"{called}: is there {n} times" for called, n in counted.items() if n > 1]
        if double:
            raise ValueError("\n".join(double))


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Cause:
    """What had a part in a span: the kind of entry and its key."""

    kind: Why
    key: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.key}".rstrip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Somebody on duty in a tier at a site, or a hole; spans with one `why[0]` do not overlap.

    `why` is the layer (or the override that took over the tier), then each swap, override and
    leave that changed it; `instead_of` is whom the last of these put aside.
    """

    site: str
    tier: int
    engineer: str  # key, or HOLE
    since: datetime  # UTC
    until: datetime  # UTC
    why: tuple[Cause, ...]
    instead_of: str = ""
    team: str = ""  # of the layer; "" for an override that took over the tier, and for no layer


def spans(rota: Rota, start: datetime, end: datetime) -> tuple[Span, ...]:
    """Return who is on duty from `start` to `end` at each site and tier that a team covers.

    Sorted by site and engineer as in the rota, tier and time. In each tier every instant is in at
    least one span; those of `HOLE` are the time that a layer has and nobody does, and the time
    that is in no layer.

    Raises:
        ValueError: an instant has no zone, or `end` is not after `start`.
    """
    _check_order("spans", start, end)
    start, end = start.astimezone(UTC), end.astimezone(UTC)
    leaves = _leaves_that_matter(rota, start, end)
    since, until = start, end
    if leaves:
        since = min(start, min(leave.start for leave in leaves) - OFF_DUTY_SEEN)
        until = end + LONGEST_STAND_IN
    planned = _overridden(rota, _swapped(rota, _base(rota, since, until)), since, until)
    present = _stood_in_for(rota, planned, leaves, end)
    found = [cut for span in present if (cut := _within(span, start, end)) is not None]
    found += _unplanned(rota, found, start, end)
    sites = {site.key: n for n, site in enumerate(rota.sites)}
    engineers = {engineer.key: n for n, engineer in enumerate(rota.engineers)}
    found.sort(
        key=lambda span: (
            sites[span.site],
            span.tier,
            span.since,
            engineers.get(span.engineer, len(engineers)),
            span.until,
            span.why[0].kind,
            span.why[0].key,
        )
    )
    return tuple(found)


def who(spans: Iterable[Span], site: str, at: datetime) -> tuple[Span, ...]:
    """Return who is on duty at `site` at an instant, the lowest tier first, each person once.

    For `ANYWHERE` it is everybody who is on duty at some site. Nobody: the floor target is rung.
    """
    now = (
        span
        for span in spans
        if span.engineer != HOLE
        and span.since <= at < span.until
        and (site in (span.site, ANYWHERE))
    )
    once: dict[str, Span] = {}
    for span in sorted(now, key=lambda span: span.tier):
        once.setdefault(span.engineer, span)
    return tuple(once.values())


def explain(span: Span, zone: str = "UTC") -> str:
    """Return one line for `contactd oncall`: who, where, when on the clocks of `zone`, and why."""
    person = span.engineer or "nobody"
    instead = f" instead of {span.instead_of}" if span.instead_of else ""
    reasons = ", then ".join(str(cause) for cause in span.why)
    shown = _shown((span.since, span.until), ZoneInfo(zone))
    return f"{span.site} tier {span.tier}: {person}{instead}, {shown}, by {reasons}"


# 1. Layers


_WHY: Final = {Rotation: Why.ROTATION, FixedShift: Why.SHIFT, Window: Why.WINDOW}


def _layers(rota: Rota) -> tuple[Layer, ...]:
    return (*rota.rotations, *rota.shifts, *rota.windows)


def _cause(layer: Layer) -> Cause:
    return Cause(kind=_WHY[type(layer)], key=layer.key)


def _sites_of(rota: Rota, team: Team, only: tuple[str, ...] = ()) -> list[Site]:
    return [
        site
        for site in rota.sites
        if (not team.sites or site.key in team.sites) and (not only or site.key in only)
    ]


def _base(rota: Rota, start: datetime, end: datetime) -> Iterator[Span]:
    teams = {team.key: team for team in rota.teams}
    known = {engineer.key for engineer in rota.engineers}  # a typing error must not empty a layer
    opened = _opened()
    for layer in _layers(rota):
        if (team := teams.get(layer.team)) is None:
            continue
        why = (_cause(layer),)
        held: dict[str, list[Held]] = {}
        for site in _sites_of(rota, team, layer.sites):
            zone = site.zone if isinstance(layer, FixedShift) else ""  # others have their own
            if zone not in held:
                held[zone] = list(_held(layer, zone, opened, known, (start, end)))
            for engineer, since, until in held[zone]:
                yield Span(
                    site=site.key,
                    tier=team.tier,
                    engineer=engineer,
                    since=since,
                    until=until,
                    why=why,
                    team=team.key,
                )


def _opened() -> Opened:
    """Return `open_periods` as lists, each computed once: many layers share a calendar."""
    known: dict[tuple[int, datetime, datetime], list[Stretch]] = {}

    def opened(calendar: WorkingCalendar, start: datetime, end: datetime) -> list[Stretch]:
        key = (id(calendar), start, end)  # a calendar has no hash, and the rota keeps it alive
        if key not in known:
            known[key] = list(open_periods(calendar, start, end))
        return known[key]

    return opened


def _held(
    layer: Layer, zone: str, opened: Opened, known: set[str], time_asked: Stretch
) -> Iterator[Held]:
    if isinstance(layer, Rotation):
        yield from _rotated(layer, opened, known, *time_asked)
    elif layer.member.engineer in known:
        stretches = (
            _worked(layer, ZoneInfo(zone), *time_asked)
            if isinstance(layer, FixedShift)
            else _windows(layer, opened, *time_asked)
        )
        for since, until in stretches:
            yield layer.member.engineer, since, until


def _worked(shift: FixedShift, zone: ZoneInfo, start: datetime, end: datetime) -> Iterator[Stretch]:
    overnight = _DAY if shift.end <= shift.start else timedelta()
    day, last = start.astimezone(zone).date() - _DATES_BACK * _DAY, end.astimezone(zone).date()
    while day <= last:
        if day.weekday() in shift.weekdays and shift.member.belongs(day):
            since = max(instant(day, shift.start, zone), start)
            until = min(instant(day + overnight, shift.end, zone), end)
            if since < until:  # a gap can swallow a short shift
                yield since, until
        day += _DAY


def _windows(window: Window, opened: Opened, start: datetime, end: datetime) -> Iterator[Stretch]:
    zone, margin = ZoneInfo(window.hours.zone), window.margin
    first, last = _membership(window.member, time(), zone)
    hours = opened(window.hours, start - margin, end + margin)
    wide = _merged([(since - margin, until + margin) for since, until in hours])
    yield from _overlaps(wide, max(first, start), min(last, end))


def _membership(member: Member, wall: time, zone: ZoneInfo) -> Stretch:
    return (
        _FIRST if member.since is None else instant(member.since, wall, zone),
        _LAST if member.until is None else instant(member.until, wall, zone),
    )


def _rotated(
    rotation: Rotation, opened: Opened, known: set[str], start: datetime, end: datetime
) -> Iterator[Held]:
    begin, count = _turns(rotation, opened, end)
    hours = opened(rotation.hours, start, end)
    roster = _Roster(rotation, known, begin, count)
    for turn in range(max(bisect_right(range(count), start, key=begin) - 1, 0), count):
        since = max(begin(turn), start)
        until = begin(turn + 1) if turn + 1 < count else end
        pieces = pairwise(_divided(since, until, roster.changes))
        parts = [(roster.holder(turn, first), first, last) for first, last in pieces]
        for engineer, same in groupby(parts, key=lambda part: part[0]):
            theirs = list(same)
            for opens, closes in _overlaps(hours, theirs[0][1], theirs[-1][2]):
                yield engineer, opens, closes


def _turns(
    rotation: Rotation, opened: Opened, end: datetime
) -> tuple[Callable[[int], datetime], int]:
    """Return when each turn begins, by its number from 0 on, and how many begin before `end`."""
    unit_begin = _unit_begin(rotation)
    origin = unit_begin(0)
    units = max((end - origin) // _SHORTEST[rotation.unit] + 3, 0)  # at least as many
    units = bisect_left(range(units), end, key=unit_begin)
    if rotation.count is Count.CALENDAR:
        return (lambda turn: unit_begin(turn * rotation.length)), -(-units // rotation.length)
    begins = [unit_begin(unit) for unit in range(units + 1)]
    hours = opened(rotation.hours, origin, begins[-1])
    active = [since for since, until in pairwise(begins) if any(_overlaps(hours, since, until))]
    turns = active[:: rotation.length]
    return turns.__getitem__, len(turns)


def _unit_begin(rotation: Rotation) -> Callable[[int], datetime]:
    zone, start, handoff = ZoneInfo(rotation.zone), rotation.start, rotation.handoff
    origin = instant(start, handoff, zone)

    def month_later(months: int) -> date:
        year, month = divmod(start.year * 12 + start.month - 1 + months, 12)
        return date(year, month + 1, min(start.day, monthrange(year, month + 1)[1]))

    begins: Mapping[Unit, Callable[[int], datetime]] = {
        Unit.HOUR: lambda unit: origin + unit * _HOUR,
        Unit.DAY: lambda unit: instant(start + unit * _DAY, handoff, zone),
        Unit.WEEK: lambda unit: instant(start + unit * 7 * _DAY, handoff, zone),
        Unit.MONTH: lambda unit: instant(month_later(unit), handoff, zone),
    }
    return begins[rotation.unit]


class _Roster:
    """Who has a turn of a rotation. Between two changes of membership the turns are a circle."""

    def __init__(
        self, rotation: Rotation, known: set[str], begin: Callable[[int], datetime], count: int
    ) -> None:
        zone = ZoneInfo(rotation.zone)
        self._members = [
            (member.engineer, *_membership(member, rotation.handoff, zone))
            for member in rotation.members
            if member.engineer in known
        ]
        edges = {edge for _, since, until in self._members for edge in (since, until)}
        self.changes = sorted(edges - {_FIRST, _LAST})
        self._circles: list[tuple[int, list[int]]] = []  # first turn, places in the list in order
        if not self._members:
            return
        last = -1
        for since, until in pairwise([_FIRST, *self.changes, _LAST]):
            first, after = (bisect_left(range(count), at, key=begin) for at in (since, until))
            if first < after:
                order = self._after(last, since)
                self._circles.append((first, order))
                last = order[(after - first - 1) % len(order)]

    def _after(self, last: int, at: datetime) -> list[int]:
        """Return the places of those who belong, or else of all, as they follow on `last`."""
        size = len(self._members)
        places = [(last + 1 + n) % size for n in range(size)]
        return [place for place in places if self._belongs(place, at)] or places

    def _belongs(self, place: int, at: datetime) -> bool:
        _, since, until = self._members[place]
        return since <= at < until

    def holder(self, turn: int, at: datetime) -> str:
        """Return who has the instant `at` of a turn: whose turn it is, or the next who belongs."""
        if not self._members:
            return HOLE
        circle = bisect_right(self._circles, turn, key=lambda circle: circle[0]) - 1
        first, order = self._circles[circle]
        places = self._after(order[(turn - first) % len(order)] - 1, at)
        return self._members[places[0]][0] if self._belongs(places[0], at) else HOLE


# 2. Swaps


def _swapped(rota: Rota, held: Iterable[Span]) -> list[Span]:
    by_engineer: dict[str, list[Span]] = defaultdict(list)
    for span in held:
        by_engineer[span.engineer].append(span)
    known = {engineer.key for engineer in rota.engineers}
    for swap in rota.swaps:
        if not {swap.one.engineer, swap.other.engineer} <= known:
            continue
        cause = Cause(kind=Why.SWAP, key=swap.key)
        given, kept = {}, {}
        for stint, to in ((swap.one, swap.other.engineer), (swap.other, swap.one.engineer)):
            inside, kept[stint.engineer] = _split(
                by_engineer[stint.engineer], stint.start, stint.end
            )
            given[to] = [_handed(span, to, cause) for span in inside]
        for engineer, spans_kept in kept.items():
            by_engineer[engineer] = spans_kept + given[engineer]
    return [span for mine in by_engineer.values() for span in mine]


def _handed(span: Span, engineer: str, cause: Cause) -> Span:
    return replace(span, engineer=engineer, why=(*span.why, cause), instead_of=span.engineer)


# 3. Overrides


def _overridden(rota: Rota, held: list[Span], start: datetime, end: datetime) -> list[Span]:
    known = {engineer.key for engineer in rota.engineers}
    tiers: dict[tuple[str, int], list[Span]] = defaultdict(list)
    for span in held:
        tiers[span.site, span.tier].append(span)
    overrides: dict[tuple[str, int], list[Override]] = defaultdict(list)
    for override in sorted(rota.overrides, key=lambda override: override.rank):
        if override.engineer in known and override.start < end and override.end > start:
            for site in rota.sites:
                if not override.sites or site.key in override.sites:
                    overrides[site.key, override.tier].append(override)
    for (site_key, tier), stacked in overrides.items():
        for _, same_rank in groupby(stacked, key=lambda override: override.rank):
            tiers[site_key, tier] = _with_overrides(
                tiers[site_key, tier], site_key, list(same_rank), start, end
            )
    return [span for found in tiers.values() for span in found]


def _with_overrides(
    held: list[Span], site: str, overrides: Sequence[Override], start: datetime, end: datetime
) -> list[Span]:
    takeovers = [override for override in overrides if not override.replaces]
    for takeover in takeovers:
        _, held = _split(held, takeover.start, takeover.end)
    held = held + [
        Span(
            site=site,
            tier=takeover.tier,
            engineer=takeover.engineer,
            since=max(takeover.start.astimezone(UTC), start),
            until=min(takeover.end.astimezone(UTC), end),
            why=(Cause(kind=Why.OVERRIDE, key=takeover.key),),
        )
        for takeover in takeovers
    ]
    for override in overrides:
        if override.replaces:
            cause = Cause(kind=Why.OVERRIDE, key=override.key)
            theirs = [span for span in held if span.engineer == override.replaces]
            inside, kept = _split(theirs, override.start, override.end)
            held = [span for span in held if span.engineer != override.replaces] + kept
            held += [_handed(span, override.engineer, cause) for span in inside]
    return held


# 4. Leave


# Since, number of the leave, why and until: what is held so at several sites is one thing.
Missed = dict[tuple[datetime, int, tuple[Cause, ...], datetime], list[Span]]


def _leaves_that_matter(rota: Rota, start: datetime, end: datetime) -> list[Leave]:
    """Return the leave that can decide who stands in for whom between two instants.

    Who stands in for one leave depends on who does for another if they overlap, or if one comes
    less than `OFF_DUTY_SEEN` after the other; so does that on the one before it, and so on.
    """
    known = {engineer.key for engineer in rota.engineers}
    chains: list[list[Leave]] = []
    reached = _FIRST
    for leave in sorted(rota.leaves, key=lambda leave: leave.start):
        if leave.engineer in known:
            if not chains or leave.start - reached >= OFF_DUTY_SEEN:
                chains.append([])
            chains[-1].append(leave)
            reached = max(reached, leave.end)
    keys = {
        leave.key
        for chain in chains
        if chain[0].start < end and max(leave.end for leave in chain) > start
        for leave in chain
    }
    return [leave for leave in rota.leaves if leave.key in keys]


def _stood_in_for(
    rota: Rota, planned: Iterable[Span], leaves: Sequence[Leave], end: datetime
) -> list[Span]:
    """Return `planned` with a stand-in, or a hole, wherever somebody is on leave before `end`.

    One stand-in is found for all sites at which the same thing is held at the same time.
    """
    present, missed = _missed(planned, leaves)
    bench = _Bench(rota, leaves, present)
    for (since, number, why, until), held in sorted(missed.items(), key=lambda item: item[0]):
        if since >= end:
            break
        leave = leaves[number]
        cause = Cause(kind=Why.LEAVE, key=leave.key)
        sites = frozenset(span.site for span in held)
        for engineer, first, last in bench.stand_ins(leave, (since, until), why[0], sites):
            present += [
                _handed(replace(span, since=first, until=last), engineer, cause) for span in held
            ]
    return present


def _missed(planned: Iterable[Span], leaves: Sequence[Leave]) -> tuple[list[Span], Missed]:
    """Return what is held by people who are there, and what by people on leave."""
    by_engineer: dict[str, list[int]] = defaultdict(list)
    for number, leave in enumerate(leaves):
        by_engineer[leave.engineer].append(number)
    present: list[Span] = []
    missed: Missed = defaultdict(list)
    for span in planned:
        rest = [span]
        for number in by_engineer.get(span.engineer, ()):
            inside, rest = _split(rest, leaves[number].start, leaves[number].end)
            for piece in (piece for whole in inside for piece in _in_turns(whole)):
                missed[piece.since, number, piece.why, piece.until].append(piece)
        present += rest
    return present, missed


def _in_turns(span: Span) -> Iterator[Span]:
    since = span.since
    while since < span.until:
        until = min(since + LONGEST_STAND_IN, span.until)
        yield replace(span, since=since, until=until)
        since = until


class _Bench:
    """Those who can stand in, and when each of them is on duty; it learns whom it has chosen."""

    def __init__(self, rota: Rota, leaves: Iterable[Leave], present: Iterable[Span]) -> None:
        self._engineers = rota.engineers
        self._known = {engineer.key for engineer in rota.engineers}
        teams = {team.key: team for team in rota.teams}
        self._skills = {
            _cause(layer): teams[layer.team].skills
            for layer in _layers(rota)
            if layer.team in teams
        }
        away: dict[str, list[Stretch]] = defaultdict(list)
        for leave in leaves:
            away[leave.engineer].append((leave.start.astimezone(UTC), leave.end.astimezone(UTC)))
        self._away = {engineer: _merged(stretches) for engineer, stretches in away.items()}
        duty: dict[str, list[Stretch]] = defaultdict(list)
        for span in present:
            duty[span.engineer].append((span.since, span.until))
        self._duty = {engineer: _merged(stretches) for engineer, stretches in duty.items()}
        self._able: dict[tuple[Cause, frozenset[str]], list[str]] = {}

    def stand_ins(
        self, leave: Leave, missed: Stretch, layer: Cause, sites: frozenset[str]
    ) -> Iterator[Held]:
        able = self._able_to(layer, sites)
        named = leave.backup if leave.backup in self._known else HOLE
        for first, last in pairwise(_divided(*missed, self._edges([named]))):
            if named and self._is_there(named, first, last):
                yield self._chosen(named, first, last)
            elif engineer := self._choice(first, last, able):
                yield self._chosen(engineer, first, last)
            else:
                for a, b in pairwise(_divided(first, last, self._edges(able))):
                    yield self._chosen(self._choice(a, b, able), a, b)

    def _able_to(self, layer: Cause, sites: frozenset[str]) -> list[str]:
        if (layer, sites) not in self._able:
            skills = self._skills.get(layer, frozenset())  # an override asks for none
            self._able[layer, sites] = [
                engineer.key
                for engineer in self._engineers
                if engineer.number
                and engineer.skills >= skills
                and (not engineer.sites or engineer.sites >= sites)
            ]
        return self._able[layer, sites]

    def _choice(self, since: datetime, until: datetime, able: Sequence[str]) -> str:
        there = (engineer for engineer in able if self._is_there(engineer, since, until))
        return min(there, key=lambda engineer: self._burden(engineer, since, until), default=HOLE)

    def _is_there(self, engineer: str, since: datetime, until: datetime) -> bool:
        return all(start >= until or end <= since for start, end in self._away.get(engineer, ()))

    def _burden(self, engineer: str, since: datetime, until: datetime) -> tuple[bool, datetime]:
        """Return whether they are on duty in that time, and when they last were before it."""
        duty = self._duty.get(engineer, [])
        after = bisect_left(duty, since, key=lambda stretch: stretch[0])
        last = min(duty[after - 1][1], since) if after else _FIRST
        is_busy = any(
            first < until and end > since for first, end in duty[max(after - 1, 0) : after + 1]
        )
        return is_busy, max(last, since - OFF_DUTY_SEEN)

    def _chosen(self, engineer: str, since: datetime, until: datetime) -> Held:
        if engineer != HOLE:
            self._duty[engineer] = _merged([*self._duty.get(engineer, ()), (since, until)])
        return engineer, since, until

    def _edges(self, engineers: Iterable[str]) -> list[datetime]:
        return sorted(
            edge for engineer in engineers for away in self._away.get(engineer, ()) for edge in away
        )


# 5. Holes


def _tiers(rota: Rota) -> Iterator[tuple[Site, int]]:
    """Return each site with each tier that a team covers there, in the order of the rota."""
    for site in rota.sites:
        tiers = {team.tier for team in rota.teams if not team.sites or site.key in team.sites}
        for tier in sorted(tiers):
            yield site, tier


def _unplanned(rota: Rota, found: Iterable[Span], start: datetime, end: datetime) -> Iterator[Span]:
    covered: dict[tuple[str, int], list[Stretch]] = defaultdict(list)
    for span in found:
        covered[span.site, span.tier].append((span.since, span.until))
    for site, tier in _tiers(rota):
        for since, until in _gaps(covered[site.key, tier], start, end):
            yield Span(
                site=site.key,
                tier=tier,
                engineer=HOLE,
                since=since,
                until=until,
                why=(Cause(kind=Why.UNPLANNED),),
            )


# What is wrong with a rota


class Flaw(StrEnum):
    NO_FLOOR = "no floor"  # refuse the rota: nobody must never be the answer
    UNKNOWN_KEY = "unknown key"
    NO_NUMBER = "no number"
    UNCOVERED = "uncovered"  # a tier without anybody
    UNFILLED = "unfilled"  # a layer without anybody, be there others in its tier or not
    TWO_PLACES = "two places"
    IDLE = "idle"  # a swap or an override that changes nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    flaw: Flaw
    where: str  # the entry to mend, e.g. "rotation night"
    text: str  # without `where`

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


def problems(rota: Rota, start: datetime, end: datetime) -> list[Problem]:
    """Return all that an operator should mend; the rota works all the same.

    Times are looked for from `start` to `end` and told on the clocks of the site.

    Raises:
        ValueError: an instant has no zone, or `end` is not after `start`.
    """
    found = spans(rota, start, end)
    return [
        *_without_numbers(rota),
        *_unknown(rota),
        *_forgotten(rota, found),
        *_uncovered(rota, found, start, end),
        *_unfilled(rota, found),
        *_in_two_places(rota, found),
        *_idle(rota, found, start, end),
    ]


def _without_numbers(rota: Rota) -> Iterator[Problem]:
    for site in rota.sites:
        if not site.floor.strip():
            yield Problem(
                flaw=Flaw.NO_FLOOR, where=f"site {site.key}", text="it has no floor number"
            )
    for engineer in rota.engineers:
        if not engineer.number.strip():
            yield Problem(
                flaw=Flaw.NO_NUMBER,
                where=f"engineer {engineer.key}",
                text="there is no number to ring",
            )


def _unknown(rota: Rota) -> Iterator[Problem]:
    known = {
        "site": {site.key for site in rota.sites},
        "team": {team.key for team in rota.teams},
        "engineer": {engineer.key for engineer in rota.engineers},
    }
    for where, noun, keys in _references(rota):
        for key in sorted(set(keys) - known[noun]):
            yield Problem(flaw=Flaw.UNKNOWN_KEY, where=where, text=f"there is no {noun} {key!r}")
    teams = {team.key: team for team in rota.teams}
    for layer in _layers(rota):
        team = teams.get(layer.team)
        for key in layer.sites:
            if team is not None and team.sites and key in known["site"] - set(team.sites):
                yield Problem(
                    flaw=Flaw.UNKNOWN_KEY,
                    where=str(_cause(layer)),
                    text=f"team {team.key} has no site {key!r}",
                )


def _references(rota: Rota) -> Iterator[tuple[str, str, Iterable[str]]]:
    """Return which keys of which noun each entry names."""
    for team in rota.teams:
        yield f"team {team.key}", "site", team.sites
    for engineer in rota.engineers:
        yield f"engineer {engineer.key}", "site", engineer.sites
    for layer in _layers(rota):
        members = layer.members if isinstance(layer, Rotation) else (layer.member,)
        yield str(_cause(layer)), "team", [layer.team]
        yield str(_cause(layer)), "site", layer.sites
        yield str(_cause(layer)), "engineer", [member.engineer for member in members]
    for swap in rota.swaps:
        yield f"swap {swap.key}", "engineer", [swap.one.engineer, swap.other.engineer]
    for override in rota.overrides:
        yield f"override {override.key}", "site", override.sites
        yield f"override {override.key}", "engineer", {override.engineer, override.replaces} - {""}
    for leave in rota.leaves:
        yield f"leave {leave.key}", "engineer", {leave.engineer, leave.backup} - {""}


def _forgotten(rota: Rota, found: Iterable[Span]) -> Iterator[Problem]:
    """Report the sites of no team, where nobody took over a tier either."""
    known = {span.site for span in found}
    for site in rota.sites:
        if site.key not in known:
            yield Problem(
                flaw=Flaw.UNCOVERED,
                where=f"site {site.key}",
                text="nobody is on duty at any time; its floor number rings",
            )


def _uncovered(
    rota: Rota, found: Iterable[Span], start: datetime, end: datetime
) -> Iterator[Problem]:
    covered: dict[tuple[str, int], list[Stretch]] = defaultdict(list)
    for span in found:
        if span.engineer != HOLE:
            covered[span.site, span.tier].append((span.since, span.until))
    for site, tier in _tiers(rota):
        gaps = _gaps(covered[site.key, tier], start.astimezone(UTC), end.astimezone(UTC))
        if gaps:
            yield Problem(
                flaw=Flaw.UNCOVERED,
                where=f"site {site.key}, tier {tier}",
                text=f"nobody is on duty {_ranges(gaps, site)}",
            )


def _unfilled(rota: Rota, found: Iterable[Span]) -> Iterator[Problem]:
    sites = {site.key: site for site in rota.sites}
    holes: dict[tuple[tuple[Cause, ...], str, str], list[Stretch]] = defaultdict(list)
    for span in found:
        if span.engineer == HOLE and span.why[0].kind is not Why.UNPLANNED:
            holes[span.why, span.instead_of, span.site].append((span.since, span.until))
    for (why, missing, site), stretches in holes.items():
        whose = f"stands in for {missing} in {why[0]}" if missing else "belongs to it"
        yield Problem(
            flaw=Flaw.UNFILLED,
            where=str(why[-1]),
            text=f"nobody {whose} at {site} {_ranges(stretches, sites[site])}",
        )


def _in_two_places(rota: Rota, found: Iterable[Span]) -> Iterator[Problem]:
    """Report residents and field engineers. One layer of several sites is done by telephone."""
    sites = {site.key: site for site in rota.sites}
    bound = {engineer.key for engineer in rota.engineers if engineer.kind in BOUND}
    by_engineer: dict[str, list[Span]] = defaultdict(list)
    for span in found:
        if span.engineer in bound:
            by_engineer[span.engineer].append(span)
    for engineer, mine in by_engineer.items():
        clashes: dict[tuple[str, str], list[Stretch]] = defaultdict(list)
        begun: list[Span] = []
        for span in sorted(mine, key=lambda span: span.since):
            begun = [other for other in begun if other.until > span.since]
            for other in begun:
                if other.site != span.site and other.why[0] != span.why[0]:
                    first, second = sorted((span.site, other.site))
                    clashes[first, second].append((span.since, min(span.until, other.until)))
            begun.append(span)
        for (first, second), stretches in sorted(clashes.items()):
            yield Problem(
                flaw=Flaw.TWO_PLACES,
                where=f"engineer {engineer}",
                text=f"is on duty at {first} and at {second} {_ranges(stretches, sites[first])}",
            )


def _idle(rota: Rota, found: Iterable[Span], start: datetime, end: datetime) -> Iterator[Problem]:
    """Report what is wholly in the time looked at and has no part in any span."""
    causes = {cause for span in found for cause in span.why}
    entries = [
        *(
            (
                Cause(kind=Why.SWAP, key=swap.key),
                min(swap.one.start, swap.other.start),
                max(swap.one.end, swap.other.end),
            )
            for swap in rota.swaps
        ),
        *(
            (Cause(kind=Why.OVERRIDE, key=override.key), override.start, override.end)
            for override in rota.overrides
            if override.replaces
        ),
    ]
    for cause, since, until in entries:
        if start <= since and until <= end and cause not in causes:
            yield Problem(
                flaw=Flaw.IDLE,
                where=str(cause),
                text="it changes nothing: whom it is about is not on duty then, or an override "
                "of a higher rank has the last word",
            )


def _ranges(stretches: Iterable[Stretch], site: Site) -> str:
    merged, zone = _merged(stretches), ZoneInfo(site.zone)
    shown = ", ".join(_shown(stretch, zone) for stretch in merged[:_SHOWN_RANGES])
    if len(merged) > _SHOWN_RANGES:
        total = sum((until - since for since, until in merged), timedelta())
        more = len(merged) - _SHOWN_RANGES
        shown += f" and {more} times more, {total / _HOUR:.1f} h in all"
    return shown


def _shown(stretch: Stretch, zone: ZoneInfo) -> str:
    since, until = (at.astimezone(zone).replace(tzinfo=None) for at in stretch)
    form = "seconds" if since.second or until.second else "minutes"
    return f"{since.isoformat(' ', form)}–{until.isoformat(' ', form)}"


# Stretches of time


def _split(held: Iterable[Span], start: datetime, end: datetime) -> tuple[list[Span], list[Span]]:
    """Return what of `held` is between `start` and `end`, and what is not."""
    start, end = start.astimezone(UTC), end.astimezone(UTC)
    inside, outside = [], []
    for span in held:
        if (cut := _within(span, start, end)) is None:
            outside.append(span)
            continue
        inside.append(cut)
        if span.since < start:
            outside.append(replace(span, until=start))
        if end < span.until:
            outside.append(replace(span, since=end))
    return inside, outside


def _within(span: Span, start: datetime, end: datetime) -> Span | None:
    if span.since >= end or span.until <= start:
        return None
    if start <= span.since and span.until <= end:
        return span
    return replace(span, since=max(span.since, start), until=min(span.until, end))


def _divided(since: datetime, until: datetime, edges: Iterable[datetime]) -> list[datetime]:
    """Return `since`, those of the sorted `edges` that are between, and `until`."""
    return [since, *(edge for edge in edges if since < edge < until), until]


def _overlaps(stretches: Sequence[Stretch], start: datetime, end: datetime) -> Iterator[Stretch]:
    """Return the parts between `start` and `end` of stretches that are sorted and apart."""
    for n in range(bisect_right(stretches, start, key=lambda stretch: stretch[1]), len(stretches)):
        since, until = stretches[n]
        if since >= end:
            return
        yield max(since, start), min(until, end)


def _merged(stretches: Iterable[Stretch]) -> list[Stretch]:
    """Return what is in any of `stretches`, sorted; what touches is one."""
    merged: list[Stretch] = []
    for since, until in sorted(stretches):
        if merged and since <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], until))
        else:
            merged.append((since, until))
    return merged


def _gaps(stretches: Iterable[Stretch], start: datetime, end: datetime) -> list[Stretch]:
    """Return what none of `stretches` touches between `start` and `end`."""
    edges = [start, *(edge for stretch in _merged(stretches) for edge in stretch), end]
    pairs = zip(edges[::2], edges[1::2], strict=True)
    return [
        (max(since, start), min(until, end))
        for since, until in pairs
        if max(since, start) < min(until, end)
    ]


# What values refuse


def _check_key(noun: str, key: str) -> None:
    if not key:  # it would mean a hole, or any site
        raise ValueError(f"{noun}: key: must not be empty")


def _check_zone(where: str, zone: str) -> None:
    try:
        ZoneInfo(zone)
    except (OSError, KeyError, ValueError):  # a folder of zones, an unknown one, a path
        raise ValueError(
            f"{where}: zone: {zone!r} is not a time zone of the IANA database"
        ) from None


def _check_order(where: str, start: datetime, end: datetime) -> None:
    if start.tzinfo is None or end.tzinfo is None:
        raise ValueError(f"{where}: start and end: must have a time zone")
    if end <= start:
        raise ValueError(f"{where}: end: must be after {start}")
