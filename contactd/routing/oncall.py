"""Who is on duty at an instant: shifts and overrides per site and tier (pure).

The full rota (rotations, leave, swaps) will come behind the same function, `on_duty`.

A shift's wall-clock times are resolved for each date in the site's zone: a time that a clock
change skips becomes the first instant after the gap (GoAlert's rule, not RFC 5545's), a time that
comes twice becomes the first of the two. So shifts that touch on the clock also touch in time.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from itertools import combinations
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from contactd.errors import NotFound

EVERYWHERE: Final = "*"
ANYWHERE: Final = ""  # the site of a caller whose site nobody knows
FLOOR_KEY: Final = "floor"  # key of the engineer that stands for a site's floor number
FLOOR_TIER: Final = 9  # behind every tier

_DAY: Final = timedelta(days=1)
_LOOK_BACK: Final = timedelta(days=1)
_LOOK_AHEAD: Final = timedelta(days=8)  # a weekly shift comes again within it
# A shift lasts a day at most (and the hours of a clock change), so that it began at most two
# dates ago in any zone.
_DATES_BACK: Final = 2
_REFERENCE_WEEK: Final = date(2026, 1, 5)  # a Monday; no zone changes its clocks in that week
_DAY_NAMES: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


class Why(StrEnum):
    SHIFT = "shift"
    OVERRIDE = "override"
    FLOOR = "floor"  # nobody has a shift: the floor target is rung


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """A weekly shift in the site's local time; `end` at or before `start` is on the next day."""

    site: str  # site key, or EVERYWHERE: at each site, in its own zone
    tier: int  # 1, 2, 3
    engineer: str
    weekdays: frozenset[int]  # of the start; 0 is Monday, as in datetime.weekday()
    start: time
    end: time


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """`engineer` stands in from `start` to `end`.

    With `replaces` it is that person who is stood in for, whenever they would be on duty in this
    site and tier; without, `engineer` takes over the whole tier, be anybody on duty or not. Those
    who take over one tier at the same time share it. Replacements apply in the order of the rota,
    so that a later one can stand in for a stand-in.
    """

    site: str  # site key, or EVERYWHERE
    tier: int
    engineer: str
    start: datetime
    end: datetime
    replaces: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engineer:
    key: str
    name: str
    number: str  # E.164, or an extension of the PBX
    language: str = "zh"


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    key: str
    name_zh: str
    name_en: str
    zone: str  # IANA name
    queue: str
    floor: str  # number that is rung when nobody else is there; never empty
    area_code: str = ""  # mainland area code without 0, e.g. 755
    language: str = "zh"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rota:
    sites: tuple[Site, ...]
    engineers: tuple[Engineer, ...]
    shifts: tuple[Shift, ...]
    overrides: tuple[Override, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Duty:
    """One person (or the floor) on duty at a site from `since` until `until`, both UTC.

    A shift of the same person that follows at once is another duty.
    """

    site: str
    tier: int
    engineer: Engineer
    why: Why
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class _Post:
    """A place in a tier that somebody holds for a while, before it is known who that is."""

    tier: int
    engineer: str
    why: Why
    since: datetime
    until: datetime
    everywhere: bool = False  # from a shift or override of EVERYWHERE


def on_duty(rota: Rota, site: str, at: datetime) -> tuple[Duty, ...]:
    """Return who is on duty at `site` at the instant `at`, the lowest tier first.

    There is always somebody: with no engineer on duty it is the site's floor number, as an
    engineer `FLOOR_KEY` of tier `FLOOR_TIER`. Engineers whom the rota does not know are left out.
    For `ANYWHERE` it is everybody who is on duty at some site, each once, at their lowest tier.

    Raises:
        NotFound: the rota has no such site (or, for `ANYWHERE`, none at all).
    """
    if site == ANYWHERE:
        return _on_duty_anywhere(rota, at)
    found = duties(rota, site, at - _LOOK_BACK, at + _LOOK_AHEAD)
    return tuple(duty for duty in found if duty.since <= at < duty.until)


def _on_duty_anywhere(rota: Rota, at: datetime) -> tuple[Duty, ...]:
    if not rota.sites:
        raise NotFound("the rota has no sites")
    found = [duty for site in rota.sites for duty in on_duty(rota, site.key, at)]
    people = [duty for duty in found if duty.why is not Why.FLOOR] or found
    once: dict[tuple[str, str], Duty] = {}
    for duty in sorted(people, key=lambda duty: duty.tier):
        once.setdefault((duty.engineer.key, duty.engineer.number), duty)
    return tuple(once.values())


def next_duties(rota: Rota, site: str, at: datetime) -> tuple[Duty, ...]:
    """Return who comes next at `site` after `at`, for each tier where that changes in 8 days.

    Somebody who goes on in a next shift of the same tier does not count as coming.

    Raises:
        NotFound: the rota has no such site.
    """
    by_tier: dict[int, list[Duty]] = defaultdict(list)
    for duty in duties(rota, site, at - _LOOK_BACK, at + _LOOK_AHEAD):
        by_tier[duty.tier].append(duty)
    coming = []
    for tier in by_tier.values():
        new = [duty for duty in tier if duty.since > at and not _goes_on(duty, tier)]
        first = min((duty.since for duty in new), default=None)
        coming += [duty for duty in new if duty.since == first]
    return tuple(sorted(coming, key=lambda duty: (duty.since, duty.tier)))


def _goes_on(duty: Duty, others: Iterable[Duty]) -> bool:
    """Return whether the person of `duty` was on duty in its tier right before it."""
    return any(
        other.engineer.key == duty.engineer.key and other.since < duty.since <= other.until
        for other in others
    )


def duties(rota: Rota, site: str, start: datetime, end: datetime) -> tuple[Duty, ...]:
    """Return every duty at `site` that touches the time from `start` to `end`, sorted by tier.

    A time without anybody is a duty of the floor, cut to `start` and `end`.

    Raises:
        NotFound: the rota has no such site.
    """
    place = _site(rota, site)
    engineers = {engineer.key: (n, engineer) for n, engineer in enumerate(rota.engineers)}
    posts = [
        post for post in _posts(rota, place, start, end) if post.since < end and post.until > start
    ]
    posts.sort(key=lambda post: (post.tier, engineers[post.engineer][0], post.since))
    found = [_duty(place, engineers[post.engineer][1], post) for post in posts]
    return (*found, *_floor(place, found, start, end))


def _duty(site: Site, engineer: Engineer, post: _Post) -> Duty:
    return Duty(
        site=site.key,
        tier=post.tier,
        engineer=engineer,
        why=post.why,
        since=post.since,
        until=post.until,
    )


def _floor(site: Site, found: Iterable[Duty], start: datetime, end: datetime) -> Iterator[Duty]:
    target = Engineer(key=FLOOR_KEY, name=FLOOR_KEY, number=site.floor, language=site.language)
    covered = ((duty.since, duty.until) for duty in found)
    for since, until in _holes(covered, start.astimezone(UTC), end.astimezone(UTC)):
        yield Duty(
            site=site.key,
            tier=FLOOR_TIER,
            engineer=target,
            why=Why.FLOOR,
            since=since,
            until=until,
        )


def _holes(
    covered: Iterable[tuple[datetime, datetime]], start: datetime, end: datetime
) -> Iterator[tuple[datetime, datetime]]:
    """Return what none of `covered` touches between `start` and `end`."""
    reached = start
    for since, until in sorted(covered):
        if since > reached:
            yield reached, min(since, end)
        reached = max(reached, until)
    if reached < end:
        yield reached, end


def _site(rota: Rota, key: str) -> Site:
    for site in rota.sites:
        if site.key == key:
            return site
    raise NotFound(f"the rota has no site {key!r}")


# From shifts and overrides to posts


def _posts(rota: Rota, site: Site, start: datetime, end: datetime) -> list[_Post]:
    """Return who holds which tier, at least for everything between `start` and `end`."""
    known = {engineer.key for engineer in rota.engineers}  # a typing error must not empty a tier
    overrides = [
        o for o in rota.overrides if o.site in (site.key, EVERYWHERE) and o.engineer in known
    ]
    takeovers = [o for o in overrides if not o.replaces and o.start < o.end]
    shifts = [s for s in rota.shifts if s.site in (site.key, EVERYWHERE) and s.engineer in known]
    posts = list(_worked(shifts, site, start, end))
    for takeover in takeovers:
        posts = [piece for post in posts for piece in _left_of(post, takeover)]
    posts += [
        _Post(
            tier=takeover.tier,
            engineer=takeover.engineer,
            why=Why.OVERRIDE,
            since=takeover.start.astimezone(UTC),
            until=takeover.end.astimezone(UTC),
            everywhere=takeover.site == EVERYWHERE,
        )
        for takeover in takeovers
    ]
    for override in overrides:
        if override.replaces:
            posts = [piece for post in posts for piece in _replaced(post, override)]
    return _joined(posts)


def _worked(shifts: Iterable[Shift], site: Site, start: datetime, end: datetime) -> Iterator[_Post]:
    zone = ZoneInfo(site.zone)
    first = start.astimezone(zone).date() - _DATES_BACK * _DAY
    days = [first + n * _DAY for n in range((end.astimezone(zone).date() - first).days + 1)]
    for shift in shifts:
        over_midnight = shift.end <= shift.start
        for day in days:
            if day.weekday() not in shift.weekdays:
                continue
            since = instant(day, shift.start, zone)
            until = instant(day + _DAY if over_midnight else day, shift.end, zone)
            if since < until:  # a gap can swallow a short shift
                yield _Post(
                    tier=shift.tier,
                    engineer=shift.engineer,
                    why=Why.SHIFT,
                    since=since,
                    until=until,
                    everywhere=shift.site == EVERYWHERE,
                )


def instant(day: date, wall: time, zone: ZoneInfo) -> datetime:
    """Return when the clocks of `zone` show `wall` on `day`, in UTC (see the module's top)."""
    naive = datetime.combine(day, wall)
    late = naive.replace(tzinfo=zone).astimezone(UTC)  # the first of two, or after the gap
    if late.astimezone(zone).replace(tzinfo=None) == naive:
        return late
    # In a gap `fold=0` counts with the offset before it, `fold=1` with the one after it: the
    # clocks change between the two instants. Transitions are on whole seconds.
    early = naive.replace(tzinfo=zone, fold=1).astimezone(UTC)
    after = late.astimezone(zone).utcoffset()
    low, high = 0, int((late - early).total_seconds())
    while high - low > 1:
        middle = (low + high) // 2
        changed = (early + timedelta(seconds=middle)).astimezone(zone).utcoffset() == after
        low, high = (low, middle) if changed else (middle, high)
    return (early + timedelta(seconds=high)).replace(microsecond=0)


def _left_of(post: _Post, override: Override) -> Iterator[_Post]:
    """Return the pieces of `post` that `override` leaves."""
    if post.tier != override.tier:
        yield post
        return
    if post.since < (until := min(post.until, override.start)):
        yield replace(post, until=until.astimezone(UTC))
    if (since := max(post.since, override.end)) < post.until:
        yield replace(post, since=since.astimezone(UTC))


def _replaced(post: _Post, override: Override) -> Iterator[_Post]:
    """Return `post`, or its pieces with the stand-in in the time of `override`."""
    since, until = max(post.since, override.start), min(post.until, override.end)
    if post.tier != override.tier or post.engineer != override.replaces or since >= until:
        yield post
        return
    yield from _left_of(post, override)
    yield replace(
        post,
        engineer=override.engineer,
        why=Why.OVERRIDE,
        since=since.astimezone(UTC),
        until=until.astimezone(UTC),
    )


def _joined(posts: list[_Post]) -> list[_Post]:
    """Make one post of several that the same person holds in the same tier at the same time."""
    joined: list[_Post] = []
    for post in sorted(posts, key=lambda post: (post.tier, post.engineer, post.since, post.why)):
        last = joined[-1] if joined else None
        if (
            last is not None
            and (last.tier, last.engineer) == (post.tier, post.engineer)
            and post.since < last.until
        ):
            joined[-1] = replace(
                last,
                until=max(last.until, post.until),
                everywhere=last.everywhere and post.everywhere,
            )
        else:
            joined.append(post)
    return joined


# What is wrong with a rota


def problems(rota: Rota) -> list[str]:
    """Return what an operator should mend, one sentence each; the rota works all the same.

    Unknown names, zones and times that make no sense; weekly times without anybody; one person at
    two sites at once; stand-ins for somebody who is not on duty.
    """
    found = [line for check in _CHECKS for line in check(rota)]
    if any(_zone(site) is None for site in rota.sites):
        return found  # nothing more can be computed
    return found + [line for check in _TIME_CHECKS for line in check(rota)]


def _unknown(rota: Rota) -> Iterator[str]:
    sites = {site.key for site in rota.sites} | {EVERYWHERE}
    engineers = {engineer.key for engineer in rota.engineers}
    entries = [
        *((_called("shift", n, shift), shift.site, {shift.engineer})
          for n, shift in enumerate(rota.shifts, 1)),
        *((_called("override", n, o), o.site, {o.engineer, o.replaces} - {""})
          for n, o in enumerate(rota.overrides, 1)),
    ]  # fmt: skip
    for called, site, names in entries:
        if site not in sites:
            yield f"{called}: there is no site {site!r}"
        for name in sorted(names - engineers):
            yield f"{called}: there is no engineer {name!r}"


def _called(kind: str, number: int, entry: Shift | Override) -> str:
    return f"{kind} {number} (site {entry.site}, tier {entry.tier})"


def _senseless(rota: Rota) -> Iterator[str]:
    for site in rota.sites:
        if _zone(site) is None:
            yield f"site {site.key}: {site.zone!r} is not a time zone"
        if not site.floor:
            yield f"site {site.key}: it has no floor number"
    for number, override in enumerate(rota.overrides, 1):
        if override.end <= override.start:
            yield f"{_called('override', number, override)}: it ends before it starts"


def _zone(site: Site) -> ZoneInfo | None:
    try:
        return ZoneInfo(site.zone)
    except (ZoneInfoNotFoundError, ValueError):
        return None


def _uncovered(rota: Rota) -> Iterator[str]:
    plain = replace(rota, overrides=())
    for site in rota.sites:
        start, end = _reference_week(site)
        holes = [
            (duty.since, duty.until)
            for duty in duties(plain, site.key, start, end)
            if duty.why is Why.FLOOR
        ]
        if holes == [(start, end)]:
            yield f"site {site.key}: nobody is on duty at any time; its floor number rings"
        elif holes:
            ranges = ", ".join(_weekly(since, until, site) for since, until in _wrapped(holes))
            yield f"site {site.key}: nobody is on duty {ranges}; its floor number rings"


def _reference_week(site: Site) -> tuple[datetime, datetime]:
    zone = ZoneInfo(site.zone)
    return (
        instant(_REFERENCE_WEEK, time(), zone),
        instant(_REFERENCE_WEEK + 7 * _DAY, time(), zone),
    )


def _wrapped(holes: list[tuple[datetime, datetime]]) -> list[tuple[datetime, datetime]]:
    """Join a hole at the week's end with the one at its beginning."""
    (first_since, first_until), (last_since, last_until) = holes[0], holes[-1]
    if len(holes) > 1 and last_until - first_since == 7 * _DAY:
        return [*holes[1:-1], (last_since, first_until)]
    return holes


def _weekly(since: datetime, until: datetime, site: Site) -> str:
    zone = ZoneInfo(site.zone)
    start, end = since.astimezone(zone), until.astimezone(zone)
    return f"{_DAY_NAMES[start.weekday()]} {start:%H:%M}–{_DAY_NAMES[end.weekday()]} {end:%H:%M}"


def _at_two_sites(rota: Rota) -> Iterator[str]:
    """Report people of two sites at one time. EVERYWHERE is no place: it is done by telephone."""
    plain = replace(rota, overrides=())
    for first, second in combinations(rota.sites, 2):
        clashes = set(_clashes(plain, first, second, *_reference_week(first)))
        for engineer, since, until in sorted(clashes):
            yield (
                f"engineer {engineer} is on duty at {first.key} and at {second.key} "
                f"{_weekly(since, until, first)}"
            )
        overridden = {
            clash
            for override in rota.overrides
            if override.site in (first.key, second.key) and override.start < override.end
            for clash in _clashes(rota, first, second, override.start, override.end)
            if clash[0] == override.engineer
        }
        for engineer, since, until in sorted(overridden):
            start, end = (at.astimezone(ZoneInfo(first.zone)) for at in (since, until))
            yield (
                f"engineer {engineer} is on duty at {first.key} and at {second.key} "
                f"{start:%Y-%m-%d %H:%M}–{end:%Y-%m-%d %H:%M}"
            )


def _clashes(
    rota: Rota, first: Site, second: Site, start: datetime, end: datetime
) -> Iterator[tuple[str, datetime, datetime]]:
    here, there = (
        [post for post in _posts(rota, site, start, end) if not post.everywhere]
        for site in (first, second)
    )
    for one in here:
        for other in there:
            since = max(one.since, other.since, start)
            until = min(one.until, other.until, end)
            if one.engineer == other.engineer and since < until:
                yield one.engineer, since, until


def _idle_overrides(rota: Rota) -> Iterator[str]:
    for number, override in enumerate(rota.overrides, 1):
        if not override.replaces or override.start >= override.end:
            continue
        before = replace(rota, overrides=rota.overrides[: number - 1])
        on_watch = (
            post
            for site in rota.sites
            if override.site in (site.key, EVERYWHERE)
            for post in _posts(before, site, override.start, override.end)
        )
        if not any(
            (post.tier, post.engineer) == (override.tier, override.replaces)
            and post.since < override.end
            and post.until > override.start
            for post in on_watch
        ):
            yield (
                f"{_called('override', number, override)}: {override.replaces} is not on duty "
                f"then, so that {override.engineer} is not either"
            )


_Check = Callable[[Rota], Iterable[str]]
_CHECKS: Final[tuple[_Check, ...]] = (_unknown, _senseless)
_TIME_CHECKS: Final[tuple[_Check, ...]] = (_uncovered, _at_two_sites, _idle_overrides)
