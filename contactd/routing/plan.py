"""What the desk says of duty, as it is stored: the people, the sites and the rota's entries (pure).

`rota.Rota` is what `Plan.rota` makes of it. Working hours are kept here without public holidays,
which change on their own; those who resolve put them together.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeVar

from contactd.routing import rota
from contactd.routing.calendars import HolidayData, WorkingCalendar, with_holidays
from contactd.routing.oncall import Duties, Engineer, Site
from contactd.routing.rota import (
    OFF_DUTY_SEEN,
    FixedShift,
    Leave,
    Override,
    Rotation,
    Swap,
    Team,
    Window,
)

Holidays = Mapping[str, HolidayData]  # by whose they are, e.g. "cn"

L = TypeVar("L", Rotation, Window)


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """An external calendar; its events are leave of `engineer`."""

    key: str
    url: str
    engineer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    sites: tuple[Site, ...] = ()
    engineers: tuple[Engineer, ...] = ()
    teams: tuple[Team, ...] = ()
    rotations: tuple[Rotation, ...] = ()
    shifts: tuple[FixedShift, ...] = ()
    windows: tuple[Window, ...] = ()
    swaps: tuple[Swap, ...] = ()
    overrides: tuple[Override, ...] = ()
    leaves: tuple[Leave, ...] = ()
    follows: Mapping[str, str] = field(default_factory=dict)  # name of a calendar -> whose holidays
    feeds: tuple[Feed, ...] = ()

    def rota(self, holidays: Holidays, more_leaves: Iterable[Leave] = ()) -> rota.Rota:
        """Return the rota, with the public holidays and the leave that is known from elsewhere.

        Raises:
            ValueError: two entries of one kind have the same key.
        """
        put_together: dict[str, WorkingCalendar] = {}  # one each: the rota compares by identity
        return rota.Rota(
            sites=tuple(rota.Site(key=s.key, zone=s.zone, floor=s.floor) for s in self.sites),
            teams=self.teams,
            engineers=tuple(map(_engineer, self.engineers)),
            rotations=tuple(self._on_hours(r, holidays, put_together) for r in self.rotations),
            shifts=self.shifts,
            windows=tuple(self._on_hours(w, holidays, put_together) for w in self.windows),
            swaps=self.swaps,
            overrides=self.overrides,
            leaves=keyed((*self.leaves, *more_leaves)),
        )

    def _on_hours(self, layer: L, holidays: Holidays, known: dict[str, WorkingCalendar]) -> L:
        hours = layer.hours
        if hours.name not in known:
            data = holidays.get(self.follows.get(hours.name, ""))
            known[hours.name] = hours if data is None else with_holidays(hours, data)
        return replace(layer, hours=known[hours.name])

    def resolved(self, holidays: Holidays, start: datetime, end: datetime) -> Duties:
        """Return who has which time from `start` to `end`, worked out now.

        Raises:
            ValueError: an instant has no zone, or `end` is not after `start`.
        """
        return Duties(
            sites=self.sites,
            engineers=self.engineers,
            spans=rota.spans(self.rota(holidays), start, end),
            stored=False,
        )


def _engineer(engineer: Engineer) -> rota.Engineer:
    return rota.Engineer(
        key=engineer.key,
        name=engineer.name,
        number=engineer.number,
        kind=engineer.kind,
        skills=engineer.skills,
        sites=engineer.sites,
    )


def keyed(leaves: Iterable[Leave]) -> tuple[Leave, ...]:
    """Return the leaves with keys that are all different."""
    taken: set[str] = set()
    found = []
    for leave in leaves:
        key = free(leave.key, taken)
        taken.add(key)
        found.append(leave if key == leave.key else replace(leave, key=key))
    return tuple(found)


def free(wanted: str, taken: set[str]) -> str:
    """Return `wanted`, or what becomes of it when somebody has that key already."""
    key, number = wanted, 1
    while key in taken:
        number += 1
        key = f"{wanted}-{number}"
    return key


def with_past(new: Plan, old: Plan, now: datetime) -> Plan:
    """Return `new` with the leave of `old` that has begun and is in no file any more.

    Who stands in depends on who did before, so that such leave is kept, up to `now`, as long as
    leave that comes later, or may still be entered, hangs on it by gaps of `OFF_DUTY_SEEN`.
    """
    stated = {_what(leave) for leave in new.leaves}
    past = [
        replace(leave, end=min(leave.end, now))
        for leave in old.leaves
        if leave.start < now and _what(leave) not in stated
    ]
    kept = _hanging_on(new.leaves, past, now)
    return replace(new, leaves=keyed((*new.leaves, *kept)))


def _what(leave: Leave) -> tuple[str, datetime, datetime, str]:
    return leave.engineer, leave.start, leave.end, leave.backup


def _hanging_on(leaves: Sequence[Leave], past: Iterable[Leave], now: datetime) -> list[Leave]:
    """Return those of `past` from which a chain of leave leads to now, in their order."""
    reached = now - OFF_DUTY_SEEN  # what ended later can hang on leave that is entered today
    both = sorted(
        [(leave, True) for leave in past] + [(leave, False) for leave in leaves],
        key=lambda each: each[0].end,
        reverse=True,
    )
    kept = []
    for leave, is_past in both:
        if leave.end > reached:
            reached = min(reached, leave.start - OFF_DUTY_SEEN)
            kept += [leave] if is_past else []
    return kept[::-1]
