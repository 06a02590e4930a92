"""A second, slow rota to compare with: a clock that ticks minute by minute, and no intervals.

Written from the docstrings of `contactd.routing.rota`; it uses only its values. It knows nothing
from before its first minute: rotations and memberships must begin after it, and leave must end
before its last one.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from functools import cache
from zoneinfo import ZoneInfo

from contactd.routing.calendars import WorkingCalendar, is_open
from contactd.routing.rota import (
    HOLE,
    Count,
    FixedShift,
    Layer,
    Leave,
    Member,
    Override,
    Rota,
    Rotation,
    Site,
    Unit,
    Window,
)

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
Why = tuple[tuple[str, str], ...]  # kind and key of each entry that had a part in it
Place = tuple[str, int]  # site and tier


@dataclass(frozen=True, slots=True)
class Cell:
    """What is written in the rota for one minute of one layer at one site and tier."""

    engineer: str
    stint: object  # the same in all minutes of one turn or shift
    why: Why
    instead_of: str = ""


Row = list[Cell | None]
Rows = dict[tuple[str, str], Row]  # by layer
Table = dict[Place, Rows]


@cache
def walls(zone: str, begin: datetime, count: int) -> list[datetime]:
    """What the clocks of `zone` show each minute; while they are put back, the latest so far."""
    shown: list[datetime] = []
    for n in range(count):
        wall = (begin + n * MINUTE).astimezone(ZoneInfo(zone)).replace(tzinfo=None)
        shown.append(max(wall, shown[-1]) if shown else wall)
    return shown


_OPEN: dict[tuple[str, datetime], list[bool]] = {}


def open_minutes(calendar: WorkingCalendar, begin: datetime, count: int) -> list[bool]:
    """Return for each minute whether `calendar` is open; its name must be its own."""
    known = _OPEN.setdefault((calendar.name, begin), [])
    known += [is_open(calendar, begin + n * MINUTE) for n in range(len(known), count)]
    return known[:count]


def belongs(member: Member, wall: datetime, day_begins: time) -> bool:
    if member.since is not None and wall < datetime.combine(member.since, day_begins):
        return False
    return member.until is None or wall < datetime.combine(member.until, day_begins)


# Layers


def unit_dates(rotation: Rotation) -> Iterator[date]:
    """The date of each hand-off but for rotations of hours."""
    day, months = rotation.start, 0
    while True:
        yield day
        if rotation.unit is Unit.MONTH:
            months += 1
            first = rotation.start.replace(day=1)
            for _ in range(months):
                first = (first + 31 * DAY).replace(day=1)
            day = first
            while day.day < rotation.start.day and (day + DAY).month == first.month:
                day += DAY
        else:
            day += 7 * DAY if rotation.unit is Unit.WEEK else DAY


def units(rotation: Rotation, begin: datetime, count: int) -> list[int]:
    """The number of the unit in which each minute is, from 0; -1 before the first."""
    dates = unit_dates(rotation)
    coming = datetime.combine(next(dates), rotation.handoff)
    number, elapsed = -1, -1
    found: list[int] = []
    for wall in walls(rotation.zone, begin, count):
        if rotation.unit is Unit.HOUR and wall >= coming:
            elapsed += 1
            number = elapsed // 60
        while rotation.unit is not Unit.HOUR and wall >= coming:
            number += 1
            coming = datetime.combine(next(dates), rotation.handoff)
        found.append(number)
    return found


def rotation_row(rotation: Rotation, known: set[str], begin: datetime, count: int) -> Row:
    more = 25 * 60  # to see whether the last unit becomes active
    numbers = units(rotation, begin, count + more)
    is_at_work = open_minutes(rotation.hours, begin, count + more)
    counted = sorted(
        {number for number, work in zip(numbers, is_at_work, strict=True) if work and number >= 0}
        if rotation.count is Count.ACTIVE
        else set(numbers) - {-1}
    )
    turn_of = {number: place // rotation.length for place, number in enumerate(counted)}
    members = [member for member in rotation.members if member.engineer in known]
    row: Row = []
    turn, pointer = -1, -1
    for n, wall in enumerate(walls(rotation.zone, begin, count)):
        there = [belongs(member, wall, rotation.handoff) for member in members]

        def following(place: int, there: list[bool] = there) -> int | None:
            for step in range(1, len(there) + 1):
                if there[(place + step) % len(there)]:
                    return (place + step) % len(there)
            return None

        now = turn_of.get(numbers[n], turn)
        while turn < now:
            turn += 1
            follower = following(pointer)
            pointer = pointer + 1 if follower is None else follower
        if turn < 0 or not is_at_work[n]:
            row.append(None)
            continue
        holder = following(pointer - 1)
        engineer = HOLE if holder is None else members[holder].engineer
        row.append(Cell(engineer, turn, (("rotation", rotation.key),)))
    return row


def shift_row(shift: FixedShift, zone: str, begin: datetime, count: int) -> Row:
    row: Row = []
    for wall in walls(zone, begin, count):
        cell = None
        for back in range(3):
            day = wall.date() - back * DAY
            member = shift.member
            if (
                day.weekday() not in shift.weekdays
                or (member.since is not None and day < member.since)
                or (member.until is not None and day >= member.until)
            ):
                continue
            last = day + DAY if shift.end <= shift.start else day
            if datetime.combine(day, shift.start) <= wall < datetime.combine(last, shift.end):
                cell = Cell(shift.member.engineer, day, (("shift", shift.key),))
        row.append(cell)
    return row


def window_row(window: Window, begin: datetime, count: int) -> Row:
    margin = round(window.margin / MINUTE)
    work = open_minutes(window.hours, begin - window.margin, count + 2 * margin)
    cell = Cell(window.member.engineer, None, (("window", window.key),))
    row: Row = []
    for n, wall in enumerate(walls(window.hours.zone, begin, count)):
        near = any(work[n : n + 2 * margin + 1])
        row.append(cell if near and belongs(window.member, wall, time()) else None)
    return row


def layer_row(layer: Layer, zone: str, known: set[str], begin: datetime, count: int) -> Row:
    if isinstance(layer, Rotation):
        return rotation_row(layer, known, begin, count)
    if layer.member.engineer not in known:
        return [None] * count
    if isinstance(layer, FixedShift):
        return shift_row(layer, zone, begin, count)
    return window_row(layer, begin, count)


# Changes

Cells = dict[tuple[str, str], Cell]  # of one minute, by layer


def changed(cell: Cell, engineer: str, kind: str, key: str) -> Cell:
    return replace(cell, engineer=engineer, instead_of=cell.engineer, why=(*cell.why, (kind, key)))


def swap_minute(rota: Rota, known: set[str], cells: Cells, at: datetime) -> None:
    for swap in rota.swaps:
        one, other = swap.one, swap.other
        if one.engineer not in known or other.engineer not in known:
            continue
        for layer, cell in cells.items():
            if cell.engineer == one.engineer and one.start <= at < one.end:
                cells[layer] = changed(cell, other.engineer, "swap", swap.key)
            elif cell.engineer == other.engineer and other.start <= at < other.end:
                cells[layer] = changed(cell, one.engineer, "swap", swap.key)


def override_minute(overrides: list[Override], cells: Cells, at: datetime) -> Cells:
    now = [override for override in overrides if override.start <= at < override.end]
    for rank in sorted({override.rank for override in now}):
        same = [override for override in now if override.rank == rank]
        taken = {
            ("override", override.key): Cell(override.engineer, None, (("override", override.key),))
            for override in same
            if not override.replaces
        }
        cells = taken or cells
        for override in same:
            if override.replaces:
                cells = {
                    layer: changed(cell, override.engineer, "override", override.key)
                    if cell.engineer == override.replaces
                    else cell
                    for layer, cell in cells.items()
                }
    return cells


def planned_rows(rota: Rota, site: Site, tier: int, begin: datetime, count: int) -> Rows:
    known = {engineer.key for engineer in rota.engineers}
    teams = {
        team.key
        for team in rota.teams
        if team.tier == tier and (not team.sites or site.key in team.sites)
    }
    return {
        (kind, layer.key): layer_row(layer, site.zone, known, begin, count)
        for kind, layers in layers_of(rota).items()
        for layer in layers
        if layer.team in teams and (not layer.sites or site.key in layer.sites)
    }


def layers_of(rota: Rota) -> dict[str, tuple[Layer, ...]]:
    return {"rotation": rota.rotations, "shift": rota.shifts, "window": rota.windows}


def plan(rota: Rota, begin: datetime, count: int) -> Table:
    """Everything but leave, at each site and tier that a team covers."""
    known = {engineer.key for engineer in rota.engineers}
    table: Table = {}
    for site in rota.sites:
        for tier in {t.tier for t in rota.teams if not t.sites or site.key in t.sites}:
            rows = planned_rows(rota, site, tier, begin, count)
            overrides = [
                override
                for override in rota.overrides
                if override.tier == tier
                and override.engineer in known
                and (not override.sites or site.key in override.sites)
            ]
            finished: Rows = defaultdict(lambda: [None] * count)
            for n in range(count):
                at = begin + n * MINUTE
                cells = {layer: cell for layer, row in rows.items() if (cell := row[n])}
                swap_minute(rota, known, cells, at)
                for layer, cell in override_minute(overrides, cells, at).items():
                    finished[layer][n] = cell
            table[site.key, tier] = finished
    return table


# Leave


WEEK = 7 * 24 * 60  # minutes


@dataclass(slots=True)
class Missed:
    """Minutes of one thing held by somebody on leave."""

    since: int
    until: int
    leave: int
    cell: Cell
    layer: tuple[str, str]
    places: list[Place]


def runs(values: list[object]) -> Iterator[tuple[int, int, object]]:
    since = 0
    for n in range(1, len(values) + 1):
        if n == len(values) or values[n] != values[since]:
            yield since, n, values[since]
            since = n


class Leaves:
    """Leave applied to a table, in place."""

    def __init__(self, rota: Rota, table: Table, begin: datetime, count: int) -> None:
        self.rota = rota
        self.table = table
        self.known = {engineer.key for engineer in rota.engineers}
        # Per engineer and minute: the number of the leave that counts, the first in the rota
        self.away: dict[str, list[int | None]] = {key: [None] * count for key in self.known}
        for number, leave in reversed(list(enumerate(rota.leaves))):
            for n in range(count):
                if leave.start <= begin + n * MINUTE < leave.end and leave.engineer in self.known:
                    self.away[leave.engineer][n] = number
        self.duty = {key: bytearray(count) for key in self.known}
        for row in (row for rows in table.values() for row in rows.values()):
            for n, cell in enumerate(row):
                if cell and cell.engineer and self.away[cell.engineer][n] is None:
                    self.duty[cell.engineer][n] = 1

    def missed(self) -> list[Missed]:
        found: dict[object, Missed] = {}
        for place, rows in self.table.items():
            for layer, row in rows.items():
                marked: list[object] = [
                    (cell, self.away[cell.engineer][n]) if cell and cell.engineer else None
                    for n, cell in enumerate(row)
                ]
                for first, last, mark in runs(marked):
                    if not isinstance(mark, tuple) or mark[1] is None:
                        continue
                    cell, leave = mark
                    for since in range(first, last, WEEK):
                        until = min(since + WEEK, last)
                        new = Missed(since, until, leave, cell, layer, [])
                        key = (since, leave, cell.why, until)
                        found.setdefault(key, new).places.append(place)
        return sorted(found.values(), key=lambda m: (m.since, m.leave, m.cell.why, m.until))

    def apply(self) -> None:
        for one in self.missed():
            leave = self.rota.leaves[one.leave]
            for engineer, since, until in self.stand_ins(leave, one):
                for n in range(since, until):
                    for place in one.places:
                        cell = changed(one.cell, engineer, "leave", leave.key)
                        self.table[place][one.layer][n] = cell
                    if engineer:
                        self.duty[engineer][n] = 1

    def stand_ins(self, leave: Leave, one: Missed) -> Iterator[tuple[str, int, int]]:
        able = self.able(one)
        named = [leave.backup] if leave.backup in self.known else []
        for first, last in self.parts(named, one.since, one.until):
            if named and self.is_there(named[0], first, last):
                yield named[0], first, last
            elif engineer := self.choice(able, first, last):
                yield engineer, first, last
            else:
                for since, until in self.parts(able, first, last):
                    yield self.choice(able, since, until), since, until

    def able(self, one: Missed) -> list[str]:
        kind, key = one.layer
        layers = layers_of(self.rota).get(kind, ())  # none for an override
        team_keys = {layer.team for layer in layers if layer.key == key}
        skills = {s for team in self.rota.teams if team.key in team_keys for s in team.skills}
        sites = {site for site, _ in one.places}
        return [
            engineer.key
            for engineer in self.rota.engineers
            if engineer.number
            and skills <= engineer.skills
            and (not engineer.sites or sites <= engineer.sites)
        ]

    def is_there(self, engineer: str, since: int, until: int) -> bool:
        return all(leave is None for leave in self.away[engineer][since:until])

    def burden(self, engineer: str, since: int, until: int) -> tuple[bool, int]:
        off_since = self.duty[engineer].rfind(1, 0, since) + 1 or -(10**9)
        is_busy = 1 in self.duty[engineer][since:until]
        return is_busy, max(off_since, since - 28 * 24 * 60)

    def choice(self, able: list[str], since: int, until: int) -> str:
        there = [engineer for engineer in able if self.is_there(engineer, since, until)]
        return min(there, key=lambda engineer: self.burden(engineer, since, until), default=HOLE)

    def parts(self, engineers: list[str], since: int, until: int) -> list[tuple[int, int]]:
        states: list[object] = [
            tuple(self.away[engineer][n] is None for engineer in engineers)
            for n in range(since, until)
        ]
        return [(since + first, since + last) for first, last, _ in runs(states)]


def minute_table(rota: Rota, begin: datetime, count: int) -> Table:
    """Who has each minute from `begin` on, by site and tier, and by layer."""
    table = plan(rota, begin, count)
    Leaves(rota, table, begin, count).apply()
    return table
