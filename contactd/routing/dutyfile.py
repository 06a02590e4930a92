"""The desk file's entries for duty: teams, rotations, shifts, windows, swaps, overrides, leave.

Each becomes a value of `rota`. An entry without a `key` gets one from what it says, so that the
same entry keeps its key when others are added or removed.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from typing import Annotated, Final, Literal, TypeVar
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from contactd.routing import rota
from contactd.routing.calendars import ALWAYS, WorkingCalendar
from contactd.routing.entries import (
    Day,
    Days,
    FileEntry,
    Key,
    Length,
    Moment,
    WallClock,
    Zone,
)
from contactd.routing.plan import free
from contactd.routing.rota import RESIDENT_MARGIN, Count, Kind, Member, Unit
from contactd.routing.wallclock import instant

EVERYWHERE: Final = "*"
TEAM_OF_TIER: Final = "tier-{}"  # of shifts that name a tier and no team

_TURN: Final = re.compile(r"(?:([1-9][0-9]{0,2}) )?(hour|day|week|month)s?")
_DAY: Final = timedelta(days=1)
_ANY_ZONE: Final = ZoneInfo("UTC")

E = TypeVar("E", bound=FileEntry)
R = TypeVar("R", rota.Rotation, rota.FixedShift, rota.Window, rota.Swap, rota.Override, rota.Leave)


def _turn(value: object) -> object:
    """Read `"week"`, `"2 weeks"`, `"12 hours"`."""
    found = _TURN.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        raise ValueError('must be a length of turns, like "week", "2 days" or "12 hours"')
    return Unit(found[2]), int(found[1] or 1)


def _member(value: object) -> object:
    return {"engineer": value} if isinstance(value, str) else value


Tier = Annotated[int, Field(ge=1, le=3, strict=True)]
Place = Annotated[str, StringConstraints(pattern=r"^(\*|[a-z0-9][a-z0-9_-]{0,31})$")]
Turn = Annotated[tuple[Unit, int], BeforeValidator(_turn)]


class TeamEntry(FileEntry):
    key: Key
    tier: Tier
    sites: tuple[Key, ...] = ()  # none: all sites
    skills: tuple[Key, ...] = ()  # a stand-in must have them all


class MemberEntry(FileEntry):
    """Somebody who belongs to it from one date on, and up to the day before another."""

    engineer: Key
    since: Day | None = None
    until: Day | None = None

    @model_validator(mode="after")
    def _dates_make_sense(self) -> "MemberEntry":
        if self.since is not None and self.until is not None and self.until <= self.since:
            raise ValueError("until must be after since: it is the first day without them")
        return self

    def member(self) -> Member:
        return Member(engineer=self.engineer, since=self.since, until=self.until)


class RotationEntry(FileEntry):
    key: Key
    team: Key
    sites: tuple[Key, ...] = ()
    members: Annotated[
        tuple[Annotated[MemberEntry, BeforeValidator(_member)], ...], Field(min_length=1)
    ]
    turn: Turn
    start: Day  # of the first turn
    handoff: WallClock = time(8)
    zone: Zone = "Asia/Shanghai"
    calendar: Key | None = None  # nobody is on duty outside of these hours
    count: Count = Count.CALENDAR


class ShiftEntry(FileEntry):
    """Weekly hours of a `team`, or of a `tier` at a `site`."""

    key: Key | None = None
    team: Key | None = None
    tier: Tier | None = None
    site: Place | None = None
    sites: tuple[Key, ...] = ()
    engineer: Key
    since: Day | None = None
    until: Day | None = None
    days: Days = frozenset(range(7))
    start: WallClock
    end: WallClock

    @model_validator(mode="after")
    def _says_whose_it_is(self) -> "ShiftEntry":
        if (self.team is None) == (self.tier is None):
            raise ValueError("give either a team or a tier")
        if self.tier is not None and self.site is None and not self.sites:
            raise ValueError(f"with a tier, site must be given; {EVERYWHERE!r} is every site")
        _one_place(self.site, self.sites)
        MemberEntry(engineer=self.engineer, since=self.since, until=self.until)
        return self


class WindowEntry(FileEntry):
    """On duty while a calendar is open. Residents come early and stay late by the margin."""

    key: Key | None = None
    team: Key
    sites: tuple[Key, ...] = ()
    engineer: Key
    since: Day | None = None
    until: Day | None = None
    calendar: Key
    margin: Length | None = None  # 10 minutes for residents, none for others

    @model_validator(mode="after")
    def _dates_make_sense(self) -> "WindowEntry":
        MemberEntry(engineer=self.engineer, since=self.since, until=self.until)
        return self


class _Timed(FileEntry):
    """`start` and `end` without an offset are local time."""

    start: Moment
    end: Moment

    @model_validator(mode="after")
    def _times_make_sense(self) -> "_Timed":
        _check_times(self.start, self.end)
        return self


def _check_times(start: datetime, end: datetime) -> None:
    if (start.tzinfo is None) != (end.tzinfo is None):
        raise ValueError("give an offset with both start and end, or with none of them")
    if end <= start:
        raise ValueError("end must be after start")


class StintEntry(_Timed):
    engineer: Key


class SwapEntry(FileEntry):
    """Two people exchange what each has in a time of their own."""

    key: Key | None = None
    one: StintEntry
    other: StintEntry
    zone: Zone = "Asia/Shanghai"

    @model_validator(mode="after")
    def _is_with_somebody_else(self) -> "SwapEntry":
        if self.one.engineer == self.other.engineer:
            raise ValueError("other must be somebody else")
        return self


class OverrideEntry(_Timed):
    """`start` and `end` without an offset are the site's local time."""

    key: Key | None = None
    site: Place | None = None
    sites: tuple[Key, ...] = ()
    tier: Tier
    engineer: Key
    replaces: Key | None = None
    rank: Annotated[int, Field(strict=True)] = 0  # a higher one has the last word

    @model_validator(mode="after")
    def _place_makes_sense(self) -> "OverrideEntry":
        if self.site is None and not self.sites:
            raise ValueError(f"site must be given; {EVERYWHERE!r} is every site")
        _one_place(self.site, self.sites)
        if self.site == EVERYWHERE and self.start.tzinfo is None:
            raise ValueError(
                f"site {EVERYWHERE!r} has no time zone: give start and end an offset, "
                "like 2026-12-24T08:00:00+08:00"
            )
        return self


class LeaveEntry(FileEntry):
    """Away on whole days from `first` to `last`, or from `start` to `end`."""

    key: Key | None = None
    engineer: Key
    first: Day | None = None
    last: Day | None = None  # included; one day only, unless said otherwise
    start: Moment | None = None
    end: Moment | None = None
    backup: Key | None = None
    zone: Zone = "Asia/Shanghai"

    @model_validator(mode="after")
    def _times_make_sense(self) -> "LeaveEntry":
        if self.start is not None and self.end is not None:
            if self.first is not None or self.last is not None:
                raise ValueError("give either first and last, or start and end")
            _check_times(self.start, self.end)
        elif self.first is None or self.start is not None or self.end is not None:
            raise ValueError("give first and last (days), or start and end (times)")
        elif self.last is not None and self.last < self.first:
            raise ValueError("last must not be before first")
        return self


class FeedEntry(FileEntry):
    """An external calendar (iCalendar); its events are leave of the engineer."""

    key: Key
    url: Annotated[str, StringConstraints(pattern=r"^(https?|webcal)://[^\s]+$", max_length=500)]
    engineer: Key
    kind: Literal["leave"] = "leave"


def _one_place(site: str | None, sites: Sequence[str]) -> None:
    if site is not None and sites:
        raise ValueError("give either site or sites")


# From entries to the rota's values


@dataclass(frozen=True, slots=True, kw_only=True)
class DutyEntries:
    """What the file says of duty, with what its entries refer to."""

    teams: tuple[TeamEntry, ...]
    rotations: tuple[RotationEntry, ...]
    shifts: tuple[ShiftEntry, ...]
    windows: tuple[WindowEntry, ...]
    swaps: tuple[SwapEntry, ...]
    overrides: tuple[OverrideEntry, ...]
    leaves: tuple[LeaveEntry, ...]
    zones: Mapping[str, ZoneInfo]  # of the sites
    kinds: Mapping[str, Kind]  # of the engineers
    calendars: Mapping[str, WorkingCalendar]

    def rota_teams(self) -> tuple[rota.Team, ...]:
        """Return the teams; shifts without one make a team of their tier."""
        named = [
            rota.Team(key=t.key, tier=t.tier, sites=t.sites, skills=frozenset(t.skills))
            for t in self.teams
        ]
        for tier in sorted({shift.tier for shift in self.shifts if shift.tier is not None}):
            places = [_places(s.site, s.sites) for s in self.shifts if s.tier == tier]
            sites = dict.fromkeys(key for keys in places for key in keys)
            named.append(
                rota.Team(
                    key=TEAM_OF_TIER.format(tier), tier=tier,
                    sites=tuple(sites) if all(places) else (),
                )
            )  # fmt: skip
        return tuple(named)

    def rota_rotations(self) -> tuple[rota.Rotation, ...]:
        return tuple(
            rota.Rotation(
                key=entry.key,
                team=entry.team,
                sites=entry.sites,
                members=tuple(member.member() for member in entry.members),
                unit=entry.turn[0],
                length=entry.turn[1],
                start=entry.start,
                handoff=entry.handoff,
                zone=entry.zone,
                count=entry.count,
                hours=self._hours(entry.calendar),
            )
            for entry in self.rotations
        )

    def rota_shifts(self) -> tuple[rota.FixedShift, ...]:
        return _keyed(self.shifts, self._shift)

    def _shift(self, entry: ShiftEntry) -> rota.FixedShift:
        return rota.FixedShift(
            key=entry.key or _name(entry.engineer, entry.site or entry.team),
            team=entry.team or TEAM_OF_TIER.format(entry.tier),
            sites=_places(entry.site, entry.sites),
            member=Member(engineer=entry.engineer, since=entry.since, until=entry.until),
            weekdays=entry.days,
            start=entry.start,
            end=entry.end,
        )

    def rota_windows(self) -> tuple[rota.Window, ...]:
        return _keyed(self.windows, self._window)

    def _window(self, entry: WindowEntry) -> rota.Window:
        usual = RESIDENT_MARGIN if self.kinds.get(entry.engineer) is Kind.RESIDENT else timedelta()
        return rota.Window(
            key=entry.key or _name(entry.engineer, entry.team),
            team=entry.team,
            sites=entry.sites,
            member=Member(engineer=entry.engineer, since=entry.since, until=entry.until),
            hours=self._hours(entry.calendar),
            margin=usual if entry.margin is None else entry.margin,
        )

    def rota_swaps(self) -> tuple[rota.Swap, ...]:
        return _keyed(self.swaps, self._swap)

    def _swap(self, entry: SwapEntry) -> rota.Swap:
        one, other = (
            rota.Stint(
                engineer=stint.engineer,
                start=_resolved(stint.start, ZoneInfo(entry.zone)),
                end=_resolved(stint.end, ZoneInfo(entry.zone)),
            )
            for stint in (entry.one, entry.other)
        )
        return rota.Swap(key=entry.key or _name(one.engineer, other.engineer), one=one, other=other)

    def rota_overrides(self) -> tuple[rota.Override, ...]:
        return _keyed(self.overrides, self._override)

    def _override(self, entry: OverrideEntry) -> rota.Override:
        sites = _places(entry.site, entry.sites)
        zone = self.zones[sites[0]] if sites else _ANY_ZONE  # at every site they have an offset
        return rota.Override(
            key=entry.key or _name(entry.engineer, entry.replaces or entry.site),
            tier=entry.tier,
            sites=sites,
            engineer=entry.engineer,
            start=_resolved(entry.start, zone),
            end=_resolved(entry.end, zone),
            replaces=entry.replaces or "",
            rank=entry.rank,
        )

    def rota_leaves(self) -> tuple[rota.Leave, ...]:
        return _keyed(self.leaves, self._leave)

    def _leave(self, entry: LeaveEntry) -> rota.Leave:
        start, end = _times_of(entry)
        return rota.Leave(
            key=entry.key or f"{entry.engineer}-{start.astimezone(ZoneInfo(entry.zone)):%Y%m%d}",
            engineer=entry.engineer,
            start=start,
            end=end,
            backup=entry.backup or "",
        )

    def _hours(self, calendar: str | None) -> WorkingCalendar:
        return self.calendars.get(calendar or ALWAYS.name, ALWAYS)


def _times_of(entry: LeaveEntry) -> tuple[datetime, datetime]:
    zone = ZoneInfo(entry.zone)
    if entry.start is not None and entry.end is not None:
        return _resolved(entry.start, zone), _resolved(entry.end, zone)
    first = entry.first or date.min
    return instant(first, time(), zone), instant((entry.last or first) + _DAY, time(), zone)


def _places(site: str | None, sites: tuple[str, ...]) -> tuple[str, ...]:
    """Return site keys; none: all sites (of the team)."""
    if site is None:
        return sites
    return () if site == EVERYWHERE else (site,)


def _name(first: str, second: str | None) -> str:
    return first if second in (None, EVERYWHERE) else f"{first}-{second}"


def _keyed(entries: Iterable[E], convert: Callable[[E], R]) -> tuple[R, ...]:
    """Return the entries converted, those whose key was made up with one that is free."""
    values = [(getattr(entry, "key", None) is not None, convert(entry)) for entry in entries]
    taken = {value.key for is_given, value in values if is_given}
    found: list[R] = []
    for is_given, value in values:
        key = value.key if is_given else free(value.key, taken)
        taken.add(key)
        found.append(replace(value, key=key))
    return tuple(found)


def _resolved(moment: datetime, zone: ZoneInfo) -> datetime:
    if moment.tzinfo is not None:
        return moment
    return instant(moment.date(), moment.time(), zone)
