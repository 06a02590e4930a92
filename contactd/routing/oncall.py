"""Who is on duty, for everybody who has to ring or to show them: from the stored spans (pure).

`rota` decides who has which time, `store.duty` keeps its answer, and this adds what must never be
missing: nobody is never the answer, it is the site's floor number.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cached_property
from typing import Final

from contactd.errors import NotFound
from contactd.routing import escalation
from contactd.routing.rota import Cause, Kind, Span
from contactd.routing.wallclock import ANYWHERE

FLOOR_KEY: Final = "floor"  # key of the engineer that stands for a site's floor number
FLOOR_TIER: Final = 9  # behind every tier
LOOK_BACK: Final = timedelta(days=1)
LOOK_AHEAD: Final = timedelta(days=8)  # a weekly shift comes again within it


class Why(StrEnum):
    """What put somebody on duty, in the end."""

    ROTATION = "rotation"
    SHIFT = "shift"
    WINDOW = "window"
    SWAP = "swap"
    OVERRIDE = "override"
    LEAVE = "leave"  # they stand in for somebody on leave
    FLOOR = "floor"  # nobody is on duty: the floor target is rung


@dataclass(frozen=True, slots=True, kw_only=True)
class Engineer:
    key: str
    name: str
    number: str  # E.164, or an extension of the PBX
    language: str = "zh"
    text: str = ""  # E.164, "": cannot be sent texts
    mails: tuple[str, ...] = ()
    pin: str = ""  # asked for on the telephone; "": none
    rules: tuple[escalation.Rule, ...] = ()  # how they want to be told; none: by a call
    kind: Kind = Kind.REMOTE
    skills: frozenset[str] = frozenset()
    sites: frozenset[str] = frozenset()  # site keys where they can stand in; none: all


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
    supervisor: str = ""  # engineer's key, "" if there is none
    contract: str = ""  # key, "": the usual one
    calendar: str = ""  # key of its working hours, "": always open


@dataclass(frozen=True, kw_only=True)
class Duties:
    """The sites, the people and who has which time; `spans` need not hold more than is asked for.

    `stored` is False for spans that were worked out just now because none are kept for that time.
    """

    sites: tuple[Site, ...] = ()
    engineers: tuple[Engineer, ...] = ()
    spans: tuple[Span, ...] = ()
    stored: bool = True

    @cached_property
    def by_key(self) -> dict[str, Engineer]:
        return {engineer.key: engineer for engineer in self.engineers}

    @cached_property
    def by_site(self) -> dict[str, tuple[Site, list[Span]]]:
        """Return each site with its spans."""
        found: dict[str, tuple[Site, list[Span]]] = {site.key: (site, []) for site in self.sites}
        for span in self.spans:
            if span.site in found:
                found[span.site][1].append(span)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Duty:
    """One person (or the floor) on duty at a site from `since` until `until`, both UTC.

    `causes` are what had a part in it, the first one first; `instead_of` is whom the last of them
    put aside. A time of the same person that follows at once is another duty.
    """

    site: str
    tier: int
    team: str = ""  # key, "" for the floor and for who took over a tier
    engineer: Engineer
    why: Why
    since: datetime
    until: datetime
    causes: tuple[Cause, ...] = ()
    instead_of: str = ""


def on_duty(duties: Duties, site: str, at: datetime) -> tuple[Duty, ...]:
    """Return who is on duty at `site` at the instant `at`, the lowest tier first.

    There is always somebody: with no engineer on duty it is the site's floor number, as an
    engineer `FLOOR_KEY` of tier `FLOOR_TIER`. Engineers whom nobody knows are left out. For
    `ANYWHERE` it is everybody who is on duty at some site, each once, at their lowest tier.

    Raises:
        NotFound: there is no such site (or, for `ANYWHERE`, none at all).
    """
    if site == ANYWHERE:
        return _on_duty_anywhere(duties, at)
    found = between(duties, site, at - LOOK_BACK, at + LOOK_AHEAD)
    return tuple(duty for duty in found if duty.since <= at < duty.until)


def _on_duty_anywhere(duties: Duties, at: datetime) -> tuple[Duty, ...]:
    if not duties.sites:
        raise NotFound("the rota has no sites")
    found = [duty for site in duties.sites for duty in on_duty(duties, site.key, at)]
    people = [duty for duty in found if duty.why is not Why.FLOOR] or found
    once: dict[tuple[str, str], Duty] = {}
    for duty in sorted(people, key=lambda duty: duty.tier):
        once.setdefault((duty.engineer.key, duty.engineer.number), duty)
    return tuple(once.values())


def next_duties(duties: Duties, site: str, at: datetime) -> tuple[Duty, ...]:
    """Return who comes next at `site` after `at`, for each tier where that changes in 8 days.

    Somebody who goes on in a next time of the same tier does not count as coming.

    Raises:
        NotFound: there is no such site.
    """
    by_tier: dict[int, list[Duty]] = defaultdict(list)
    for duty in between(duties, site, at - LOOK_BACK, at + LOOK_AHEAD):
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


def between(duties: Duties, site: str, start: datetime, end: datetime) -> tuple[Duty, ...]:
    """Return every duty at `site` that touches the time from `start` to `end`, sorted by tier.

    Within a tier they are in the order of the engineers, then of time. A time without anybody is a
    duty of the floor, cut to `start` and `end`.

    Raises:
        NotFound: there is no such site.
    """
    if site not in duties.by_site:
        raise NotFound(f"the rota has no site {site!r}")
    place, spans = duties.by_site[site]
    found = [
        _duty(span, engineer)
        for span in spans
        if span.since < end
        and span.until > start
        and (engineer := duties.by_key.get(span.engineer)) is not None
        and engineer.number
    ]
    ranks = {key: n for n, key in enumerate(duties.by_key)}
    found = _joined(found)
    found.sort(key=lambda duty: (duty.tier, ranks[duty.engineer.key], duty.since))
    return (*found, *_floor(place, found, start, end))


def _duty(span: Span, engineer: Engineer) -> Duty:
    return Duty(
        site=span.site,
        tier=span.tier,
        team=span.team,
        engineer=engineer,
        why=Why(span.why[-1].kind),
        since=span.since,
        until=span.until,
        causes=span.why,
        instead_of=span.instead_of,
    )


def _joined(duties: Iterable[Duty]) -> list[Duty]:
    """Make one duty of several that the same person has in the same tier at the same time."""
    joined: list[Duty] = []
    for duty in sorted(duties, key=lambda duty: (duty.tier, duty.engineer.key, duty.since)):
        last = joined[-1] if joined else None
        if (
            last is not None
            and (last.tier, last.engineer.key) == (duty.tier, duty.engineer.key)
            and duty.since < last.until
        ):
            joined[-1] = replace(last, until=max(last.until, duty.until))
        else:
            joined.append(duty)
    return joined


def _floor(site: Site, found: Iterable[Duty], start: datetime, end: datetime) -> Iterator[Duty]:
    covered = ((duty.since, duty.until) for duty in found)
    for since, until in _holes(covered, start.astimezone(UTC), end.astimezone(UTC)):
        yield Duty(
            site=site.key,
            tier=FLOOR_TIER,
            engineer=floor(site),
            why=Why.FLOOR,
            since=since,
            until=until,
        )


def floor(site: Site) -> Engineer:
    """Return the engineer that stands for the site's floor number."""
    return Engineer(key=FLOOR_KEY, name=FLOOR_KEY, number=site.floor, language=site.language)


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
