"""Who is on duty by the spans that are held, and that nobody is never the answer."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contactd.errors import NotFound
from contactd.routing import rota
from contactd.routing.oncall import (
    FLOOR_KEY,
    FLOOR_TIER,
    Duties,
    Duty,
    Engineer,
    Site,
    Why,
    between,
    next_duties,
    on_duty,
)
from contactd.routing.rota import HOLE, Cause, Span
from contactd.routing.wallclock import ANYWHERE

GZ = Site(
    key="gz", name_zh="广州", name_en="Guangzhou", zone="Asia/Shanghai", queue="gz", floor="8000",
    language="en",
)  # fmt: skip
SZ = replace(GZ, key="sz", queue="sz", floor="8001")
PEOPLE = tuple(
    Engineer(key=key, name=key.title(), number=f"+861380000000{n}")
    for n, key in enumerate(("wang", "li", "zhao", "chen"))
)
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)  # a Friday
NOBODY = [(FLOOR_TIER, FLOOR_KEY)]


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def span(
    engineer: str,
    since: str,
    until: str,
    *causes: tuple[rota.Why, str],
    tier: int = 1,
    site: str = "gz",
    instead_of: str = "",
    team: str = "",
) -> Span:
    return Span(
        site=site,
        tier=tier,
        engineer=engineer,
        since=at(since),
        until=at(until),
        why=tuple(Cause(kind=kind, key=key) for kind, key in causes)
        or (Cause(kind=rota.Why.SHIFT, key=f"{engineer}-{since}"),),
        instead_of=instead_of,
        team=team,
    )


def held(*spans: Span, sites: tuple[Site, ...] = (GZ, SZ)) -> Duties:
    return Duties(sites=sites, engineers=PEOPLE, spans=spans)


def names(found: Iterable[Duty]) -> list[tuple[int, str]]:
    return [(duty.tier, duty.engineer.key) for duty in found]


DAY = ("2026-11-20 08:00", "2026-11-20 20:00")


def test_a_span_holds_from_its_start_until_just_before_its_end() -> None:
    duties = held(span("wang", *DAY))
    assert names(on_duty(duties, "gz", at("2026-11-20 07:59:59"))) == NOBODY
    assert names(on_duty(duties, "gz", at("2026-11-20 08:00"))) == [(1, "wang")]
    assert names(on_duty(duties, "gz", at("2026-11-20 19:59:59"))) == [(1, "wang")]
    assert names(on_duty(duties, "gz", at("2026-11-20 20:00"))) == NOBODY


def test_tiers_come_in_order_and_within_a_tier_as_the_engineers_are_listed() -> None:
    duties = held(
        span("chen", *DAY, tier=3), span("zhao", *DAY), span("li", *DAY, tier=2), span("wang", *DAY)
    )
    assert names(on_duty(duties, "gz", NOON)) == [(1, "wang"), (1, "zhao"), (2, "li"), (3, "chen")]


def test_the_floor_number_is_the_answer_when_nobody_is_on_duty() -> None:
    hole = span(HOLE, *DAY, (rota.Why.UNPLANNED, ""))
    for duties in (held(), held(hole), held(span("wang", *DAY, site="sz"))):
        (duty,) = on_duty(duties, "gz", NOON)
        assert duty.why is Why.FLOOR
        assert (duty.engineer.key, duty.engineer.number) == (FLOOR_KEY, "8000")
        assert duty.engineer.language == "en"
        assert duty.since < NOON < duty.until


def test_the_floor_is_on_duty_from_when_the_last_one_leaves_until_the_next_one_comes() -> None:
    duties = held(
        span("wang", "2026-11-20 08:00", "2026-11-20 11:00"),
        span("li", "2026-11-20 13:00", "2026-11-20 20:00", tier=3),
    )
    (duty,) = on_duty(duties, "gz", NOON)
    assert (duty.since, duty.until) == (at("2026-11-20 11:00"), at("2026-11-20 13:00"))


def test_a_site_that_does_not_exist_is_refused() -> None:
    for ask in (on_duty, next_duties):
        with pytest.raises(NotFound, match="nowhere"):
            ask(held(), "nowhere", NOON)


def test_for_a_caller_of_no_known_site_everybody_on_duty_is_found_once() -> None:
    duties = held(
        span("wang", *DAY),
        span("li", *DAY, tier=2),
        span("li", *DAY, site="sz"),
        span("chen", *DAY, tier=3),
        span("chen", *DAY, tier=3, site="sz"),
    )
    assert names(on_duty(duties, ANYWHERE, NOON)) == [(1, "wang"), (1, "li"), (3, "chen")]


def test_for_a_caller_of_no_known_site_floors_are_rung_only_when_nobody_is_on_duty() -> None:
    sites = (GZ, SZ, replace(GZ, key="zh"))
    found = on_duty(held(sites=sites), ANYWHERE, NOON)
    assert [duty.engineer.number for duty in found] == ["8000", "8001"]
    assert names(on_duty(held(span("wang", *DAY), sites=sites), ANYWHERE, NOON)) == [(1, "wang")]
    with pytest.raises(NotFound, match="no sites"):
        on_duty(held(sites=()), ANYWHERE, NOON)


def test_an_engineer_whom_nobody_knows_or_can_ring_is_nobody() -> None:
    assert names(on_duty(held(span("wagn", *DAY)), "gz", NOON)) == NOBODY
    mute = Duties(
        sites=(GZ,), engineers=(replace(PEOPLE[0], number=""),), spans=(span("wang", *DAY),)
    )
    assert names(on_duty(mute, "gz", NOON)) == NOBODY
    assert names(on_duty(held(span("wagn", *DAY), span("li", *DAY)), "gz", NOON)) == [(1, "li")]


def test_a_site_that_is_gone_has_left_its_duty_behind() -> None:
    duties = held(span("wang", *DAY, site="bj"), span("li", *DAY))
    assert names(on_duty(duties, ANYWHERE, NOON)) == [(1, "li")]


def test_a_duty_tells_since_when_until_when_and_why() -> None:
    stood_in = span(
        "li", *DAY, (rota.Why.ROTATION, "desk"), (rota.Why.SWAP, "s"), (rota.Why.LEAVE, "wang-1"),
        instead_of="wang", team="desk",
    )  # fmt: skip
    (duty,) = on_duty(held(stood_in), "gz", NOON)
    assert (duty.since, duty.until) == (at(DAY[0]), at(DAY[1]))
    assert (duty.site, duty.team, duty.why, duty.instead_of) == ("gz", "desk", Why.LEAVE, "wang")
    assert [str(cause) for cause in duty.causes] == ["rotation desk", "swap s", "leave wang-1"]
    assert duty.engineer is PEOPLE[1]


@pytest.mark.parametrize("why", [why for why in rota.Why if why is not rota.Why.UNPLANNED])
def test_everything_that_puts_somebody_on_duty_has_a_word(why: rota.Why) -> None:
    (duty,) = on_duty(held(span("li", *DAY, (why, "x"))), "gz", NOON)
    assert duty.why.value == why.value


def test_a_person_who_has_two_times_at_once_is_on_duty_once() -> None:
    duties = held(
        span("wang", "2026-11-20 12:00", "2026-11-20 20:00"),
        span("wang", "2026-11-20 08:00", "2026-11-20 18:00"),
        span("wang", "2026-11-20 20:00", "2026-11-21 08:00"),
    )
    (duty,) = on_duty(duties, "gz", at("2026-11-20 13:00"))
    assert (duty.since, duty.until) == (at("2026-11-20 08:00"), at("2026-11-20 20:00"))


# Who comes next


def test_next_is_who_comes_at_each_tier_and_when() -> None:
    duties = held(
        span("wang", *DAY),
        span("li", "2026-11-20 20:00", "2026-11-21 08:00"),
        span("wang", "2026-11-21 08:00", "2026-11-21 20:00"),
        span("zhao", "2026-11-20 09:00", "2026-11-20 18:00", tier=2),
        span("chen", "2026-11-21 09:00", "2026-11-21 18:00", tier=2),
        span("chen", "2026-11-20 09:00", "2026-12-20 18:00", tier=3),
    )
    found = next_duties(duties, "gz", NOON)
    assert [(duty.tier, duty.engineer.key, duty.since) for duty in found] == [
        (1, "li", at("2026-11-20 20:00")),
        (2, "chen", at("2026-11-21 09:00")),
    ]


def test_somebody_who_goes_on_does_not_come_next() -> None:
    duties = held(span("wang", *DAY), span("wang", "2026-11-20 20:00", "2026-12-20 20:00"))
    assert next_duties(duties, "gz", NOON) == ()


def test_the_floor_comes_next_when_everybody_leaves() -> None:
    duties = held(span("wang", *DAY), span("wang", "2026-11-21 08:00", "2026-12-20 20:00"))
    found = next_duties(duties, "gz", NOON)
    assert [(duty.engineer.key, duty.since) for duty in found] == [
        (FLOOR_KEY, at("2026-11-20 20:00")),
        ("wang", at("2026-11-21 08:00")),
    ]


# Anything


@st.composite
def some_spans(draw: st.DrawFn) -> list[Span]:
    found = []
    for n in range(draw(st.integers(0, 8))):
        since = NOON + timedelta(hours=draw(st.integers(-72, 72)))
        found.append(
            Span(
                site=draw(st.sampled_from(["gz", "sz"])),
                tier=draw(st.integers(1, 3)),
                engineer=draw(st.sampled_from(["wang", "li", "zhao", HOLE, "wagn"])),
                since=since,
                until=since + timedelta(hours=draw(st.integers(1, 48))),
                why=(Cause(kind=rota.Why.SHIFT, key=str(n)),),
            )
        )
    return found


@given(spans=some_spans(), hours=st.integers(-80, 80))
def test_somebody_is_always_on_duty_and_nobody_but_whom_a_span_names(
    spans: list[Span], hours: int
) -> None:
    now = NOON + timedelta(hours=hours)
    known = {engineer.key for engineer in PEOPLE}
    for site in ("gz", "sz"):
        found = on_duty(held(*spans), site, now)
        expected = {
            (each.tier, each.engineer)
            for each in spans
            if each.site == site and each.engineer in known and each.since <= now < each.until
        }
        assert set(names(found)) == (expected or set(NOBODY))
        assert len(found) == len(set(names(found)))
        assert all(duty.since <= now < duty.until for duty in found)


@given(spans=some_spans())
def test_every_minute_of_a_time_has_somebody_and_the_floor_only_when_nobody_else(
    spans: list[Span],
) -> None:
    start, end = NOON - timedelta(hours=60), NOON + timedelta(hours=60)
    found = between(held(*spans), "gz", start, end)
    for hour in range(120):
        now = start + timedelta(hours=hour)
        there = [duty for duty in found if duty.since <= now < duty.until]
        floors = [duty for duty in there if duty.why is Why.FLOOR]
        assert there
        assert len(floors) == (1 if len(there) == len(floors) else 0)
