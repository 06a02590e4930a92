"""What a change of the rota does to duty: the holes it makes, and the sites it touches (pure)."""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Final

from contactd.routing.rota import HOLE, Rota, Span, Stretch, spans

NO_TIER: Final = 0  # nobody is on duty in any tier of the site
_Where = tuple[str, int]  # site, tier


@dataclass(frozen=True, slots=True, kw_only=True)
class Hole:
    """Nobody is on duty in a tier; `instead` are the engineers rung then, none: the floor."""

    site: str
    tier: int
    since: datetime
    until: datetime
    instead: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What a change does from now on: times without anybody, and where duty is another."""

    holes: tuple[Hole, ...]  # that were not there before
    sites: frozenset[str]  # where anything changes


def effect(before: Rota | None, after: Rota, start: datetime, end: datetime) -> Effect:
    """Compare two rotas from `start` to `end`; without one before nothing was covered.

    A tier that somebody had and nobody has any more is a hole, even if nobody need have it.

    Raises:
        ValueError: an instant has no zone, or `end` is not after `start`.
    """
    old = spans(before, start, end) if before is not None else ()
    new = spans(after, start, end)
    was, now = _covered(old), _covered(new)
    missed, missing = _open(old, was), _open(new, now)
    keys = [site.key for site in after.sites]
    known = {site.key for site in before.sites} if before is not None else set()
    found: list[Hole] = []
    for where in sorted({*missing, *was}):
        if where[0] in keys:
            lost = _without(was.get(where, []), now.get(where, []))
            opened = _without(missing.get(where, []), missed.get(where, []))
            found += _told(where, _joined([*lost, *opened]), new)
    staffed = {site for site, _ in now} | {hole.site for hole in found}
    for key in keys:
        if key not in staffed and (key not in known or any(key == site for site, _ in was)):
            found.append(Hole(site=key, tier=NO_TIER, since=start, until=end, instead=()))
    return Effect(
        holes=tuple(sorted(found, key=lambda hole: (hole.since, hole.site, hole.tier))),
        sites=frozenset(span.site for span in set(old) ^ set(new)),
    )


def _covered(held: Iterable[Span]) -> dict[_Where, list[Stretch]]:
    found: dict[_Where, list[Stretch]] = defaultdict(list)
    for span in held:
        if span.engineer != HOLE:
            found[span.site, span.tier].append((span.since, span.until))
    return {where: _joined(stretches) for where, stretches in found.items()}


def _open(
    held: Iterable[Span], covered: dict[_Where, list[Stretch]]
) -> dict[_Where, list[Stretch]]:
    """Return the times in which a tier has nobody at all."""
    found: dict[_Where, list[Stretch]] = defaultdict(list)
    for span in held:
        if span.engineer == HOLE:
            found[span.site, span.tier].append((span.since, span.until))
    return {
        where: _without(_joined(stretches), covered.get(where, []))
        for where, stretches in found.items()
    }


def _told(where: _Where, stretches: Sequence[Stretch], held: Sequence[Span]) -> list[Hole]:
    """Return the holes, divided where those who are rung instead change."""
    site, tier = where
    others = [span for span in held if span.site == site and span.engineer != HOLE]
    found: list[Hole] = []
    edges = sorted({edge for span in others for edge in (span.since, span.until)})
    for since, until in stretches:
        within = edges[bisect_right(edges, since) : bisect_left(edges, until)]
        for start, end in pairwise([since, *within, until]):
            begin = start
            instead = _rung(others, begin)
            last = found[-1] if found else None
            if last is not None and last.until == begin and last.instead == instead:
                begin = found.pop().since  # it goes on
            found.append(Hole(site=site, tier=tier, since=begin, until=end, instead=instead))
    return found


def _rung(others: Iterable[Span], at: datetime) -> tuple[str, ...]:
    rung = sorted((span.tier, span.engineer) for span in others if span.since <= at < span.until)
    return tuple(dict.fromkeys(engineer for _, engineer in rung))


def _joined(stretches: Iterable[Stretch]) -> list[Stretch]:
    joined: list[Stretch] = []
    for since, until in sorted(stretches):
        if joined and since <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], until))
        else:
            joined.append((since, until))
    return joined


def _without(stretches: Iterable[Stretch], covered: Sequence[Stretch]) -> list[Stretch]:
    """Return what of `stretches` none of `covered` touches; both are sorted and apart."""
    left: list[Stretch] = []
    for start, end in stretches:
        reached = start
        for since, until in covered:
            if since < end and until > reached:
                if since > reached:
                    left.append((reached, since))
                reached = max(reached, until)
        if reached < end:
            left.append((reached, end))
    return left
