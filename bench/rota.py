"""rota: how long it takes to say who is on duty, for 200 engineers.

Forty sites in China, Chicago and Lord Howe share ten desks (around the clock, in turns of a week),
eight second lines (turns of a day on working days) and an engineer of their own on the customer's
hours. Everybody is on leave twice a year, half of them with a named backup; a hundred nights are
swapped, a hundred are taken over. `rota_year` resolves a year, `rota_60d` what is stored whenever
the rota changes. The bare thing makes and sorts as many spans, whose answer is known.
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from datetime import time as wall
from pathlib import Path
from statistics import median
from typing import Final

from bench.figures import Figure, Judged
from contactd.routing.calendars import WorkingCalendar, read_calendar_data, with_holidays
from contactd.routing.rota import (
    RESIDENT_MARGIN,
    Count,
    Engineer,
    Kind,
    Leave,
    Member,
    Override,
    Rota,
    Rotation,
    Site,
    Span,
    Stint,
    Swap,
    Team,
    Unit,
    Window,
    spans,
)

HOLIDAYS: Final = Path(__file__).parents[1] / "etc" / "calendars" / "cn.toml"
ENGINEERS: Final = 200
SITES: Final = 40
DESKS: Final = 10
SECOND_LINES: Final = 8
SWAPS: Final = 100
OVERRIDES: Final = 100
ROUNDS: Final = 3
START: Final = datetime(2026, 1, 1, tzinfo=UTC)
DAY: Final = timedelta(days=1)
ZONES: Final = ("Asia/Shanghai", "Asia/Shanghai", "America/Chicago", "Australia/Lord_Howe")
# Whose they are: 100 take turns at the desks, 60 in the second lines, 40 are at a site.
PEOPLE: Final = [f"e{number:03}" for number in range(ENGINEERS)]
AT_DESKS, SECOND, RESIDENTS = PEOPLE[:100], PEOPLE[100:160], PEOPLE[160:]


def rota() -> Rota:
    sites = tuple(
        Site(key=f"s{number:02}", zone=ZONES[number % len(ZONES)], floor="8000")
        for number in range(SITES)
    )
    office = with_holidays(
        WorkingCalendar(
            name="office",
            zone="Asia/Shanghai",
            weekly=dict.fromkeys(range(5), ((wall(9), wall(12)), (wall(13), wall(18)))),
        ),
        read_calendar_data(HOLIDAYS.read_text(encoding="utf-8")),
    )
    offices = {zone: replace(office, zone=zone) for zone in ZONES}
    return Rota(
        sites=sites,
        teams=tuple(_teams(sites)),
        engineers=tuple(_engineer(number, key) for number, key in enumerate(PEOPLE)),
        rotations=tuple(_rotations(office)),
        windows=tuple(
            Window(
                key=f"w-{site.key}",
                team=f"at-{site.key}",
                member=Member(engineer=engineer),
                hours=offices[site.zone],
                margin=RESIDENT_MARGIN,
            )
            for site, engineer in zip(sites, RESIDENTS, strict=True)
        ),
        swaps=tuple(_swaps()),
        overrides=tuple(_overrides()),
        leaves=tuple(_leaves()),
    )


def _teams(sites: tuple[Site, ...]) -> Iterator[Team]:
    keys = [site.key for site in sites]
    for number in range(DESKS):
        yield Team(key=f"desk-{number}", tier=1, sites=tuple(keys[number::DESKS]))
    for number in range(SECOND_LINES):
        yield Team(
            key=f"second-{number}",
            tier=2,
            sites=tuple(keys[number::SECOND_LINES]),
            skills=frozenset({f"skill-{number % 3}"}),
        )
    for key in keys:
        yield Team(key=f"at-{key}", tier=1, sites=(key,))


def _engineer(number: int, key: str) -> Engineer:
    kinds = {True: Kind.RESIDENT, False: Kind.REMOTE}
    return Engineer(
        key=key,
        name=key,
        number=f"+86138{number:08}",
        kind=kinds[key in RESIDENTS],
        skills=frozenset({f"skill-{number % 3}", f"skill-{(number + 1) % 3}"}),
    )


def _rotations(office: WorkingCalendar) -> Iterator[Rotation]:
    for number in range(DESKS):
        yield Rotation(
            key=f"desk-{number}",
            team=f"desk-{number}",
            members=tuple(Member(engineer=key) for key in AT_DESKS[number::DESKS]),
            unit=Unit.WEEK,
            start=date(2025, 1, 6),
            handoff=wall(9),
            zone="Asia/Shanghai",
        )
    for number in range(SECOND_LINES):
        yield Rotation(
            key=f"second-{number}",
            team=f"second-{number}",
            members=tuple(Member(engineer=key) for key in SECOND[number::SECOND_LINES]),
            unit=Unit.DAY,
            start=date(2025, 1, 6),
            handoff=wall(0),
            zone="Asia/Shanghai",
            count=Count.ACTIVE,
            hours=office,
        )


def _swaps() -> Iterator[Swap]:
    for number in range(SWAPS):
        at = START + number * 3.5 * DAY
        one, other = PEOPLE[number % 160], PEOPLE[(number + DESKS) % 160]
        yield Swap(
            key=f"swap-{number}",
            one=Stint(engineer=one, start=at, end=at + DAY),
            other=Stint(engineer=other, start=at + 7 * DAY, end=at + 8 * DAY),
        )


def _overrides() -> Iterator[Override]:
    for number in range(OVERRIDES):
        at = START + number * 3.5 * DAY
        yield Override(
            key=f"override-{number}",
            tier=1 + number % 2,
            sites=(f"s{number % SITES:02}",),
            engineer=PEOPLE[number],
            start=at,
            end=at + DAY / 2,
            replaces=PEOPLE[(number + 1) % ENGINEERS] if number % 2 else "",
            rank=number % 3,
        )


def _leaves() -> Iterator[Leave]:
    for number, key in enumerate(PEOPLE):
        for half in range(2):
            at = START + (number * 37 % 170 + 180 * half) * DAY
            yield Leave(
                key=f"leave-{key}-{half}",
                engineer=key,
                start=at,
                end=at + (5 + number % 6) * DAY,
                backup=PEOPLE[(number + 1) % ENGINEERS] if number % 2 else "",
            )


async def measure() -> list[Figure]:
    plan = rota()
    return [
        _figure("rota_year", "a year", plan, 365 * DAY),
        _figure("rota_60d", "the 60 days that are stored", plan, 60 * DAY),
    ]


def _figure(name: str, called: str, plan: Rota, length: timedelta) -> Figure:
    ours, bare = [], []
    found: tuple[Span, ...] = ()
    for _ in range(ROUNDS):
        began = time.perf_counter()
        found = spans(plan, START + 30 * DAY, START + 30 * DAY + length)
        ours.append(time.perf_counter() - began)
        began = time.perf_counter()
        _bare(found)
        bare.append(time.perf_counter() - began)
    return Figure(
        name=name,
        what=f"{called} of {ENGINEERS} engineers resolved, {len(found):,} spans;"
        " bare: as many made and sorted",
        unit="s",
        ours=median(ours),
        bare=median(bare),
        judged=Judged.NOTHING,
    )


def _bare(found: tuple[Span, ...]) -> list[Span]:
    made = [
        Span(
            site=span.site,
            tier=span.tier,
            engineer=span.engineer,
            since=span.since,
            until=span.until,
            why=span.why,
            instead_of=span.instead_of,
            team=span.team,
        )
        for span in found
    ]
    return sorted(made, key=lambda span: (span.site, span.tier, span.since, span.engineer))
