"""Duty as it is stored: 60 days ahead, the past as it was, and the events of its changes."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import delete, insert, select

from contactd.errors import PermanentFailure, TemporaryFailure
from contactd.routing import rota
from contactd.routing.deskfile import parse
from contactd.routing.oncall import Duties, Why, next_duties, on_duty
from contactd.routing.rota import Cause, Span
from contactd.service import HealthState
from contactd.store import duty
from contactd.store.desk import load_desk
from contactd.store.duty import Difference, DutyKeeper, LastDuties, difference
from contactd.store.engine import Database
from contactd.store.schema import holidays, outbox, spans
from tests.fakes.clock import FakeClock
from tests.fakes.rota import small_desk
from tests.fakes.waiting import until

DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)
ZONE = "Asia/Shanghai"
NIGHT = {
    "key": "night", "zone": "UTC", "holidays": "cn",
    "weekly": {"mon-sun": ["00:00-08:00", "20:00-24:00"]},
}  # fmt: skip


def desk(**parts: Any) -> dict[str, Any]:
    """A desk where wang has the days of Guangzhou (in UTC) and li the nights."""
    return {
        "sites": [
            {"key": "gz", "name_zh": "广州", "name_en": "gz", "floor": "8000", "zone": "UTC"}
        ],
        "engineers": [
            {"key": key, "name": key, "number": f"800{n}"}
            for n, key in enumerate(("wang", "li", "chen"), start=1)
        ],
        "shifts": [
            {"site": "gz", "tier": 1, "engineer": "wang", "start": "08:00", "end": "20:00"},
            {"site": "gz", "tier": 1, "engineer": "li", "start": "20:00", "end": "08:00"},
        ],
    } | parts


async def load(database: Database, clock: FakeClock, **parts: Any) -> bool:
    return (await load_desk(database, parse(desk(**parts)), clock)).changed


async def rows(database: Database) -> list[Mapping[str, Any]]:
    async with database.reading() as connection:
        found = await connection.execute(
            select(spans).order_by(spans.c.site, spans.c.tier, spans.c.since, spans.c.engineer)
        )
        return [dict(row) for row in found.mappings()]


async def due(database: Database, clock: FakeClock) -> list[tuple[str, float]]:
    """Return the site and the hours from now of each `DutyDue`."""
    async with database.reading() as connection:
        found = await connection.execute(
            select(outbox).where(outbox.c.kind == "DutyDue").order_by(outbox.c.due_at, outbox.c.id)
        )
        return [
            (row["body"]["site"], (row["due_at"] - clock.now()) / timedelta(hours=1))
            for row in found.mappings()
        ]


async def forget_events(database: Database) -> None:
    async with database.writing() as connection:
        await connection.execute(delete(outbox))


async def who(database: Database, clock: FakeClock, at: datetime | None = None) -> list[str]:
    found = await duty.duties(database, clock, at)
    return [each.engineer.key for each in on_duty(found, "gz", at or clock.now())]


# What is stored


async def test_duty_is_stored_for_sixty_days_and_holes_are_rows(
    database: Database, clock: FakeClock
) -> None:
    shift = {"site": "gz", "tier": 1, "engineer": "wang", "start": "08:00", "end": "20:00"}
    await load(database, clock, shifts=[shift])
    found = await rows(database)
    assert found[-1]["until"] >= clock.now() + 60 * DAY
    assert {(row["engineer"], row["team"]) for row in found} == {("wang", "tier-1"), ("", "")}
    for before, after in pairwise(found):
        assert before["until"] == after["since"]
    hole = next(row for row in found if not row["engineer"])
    assert hole["why"] == [["unplanned", ""]]


async def test_what_is_read_is_what_the_rota_says(database: Database, clock: FakeClock) -> None:
    """Rotation, window, swap, override and leave come back from the table as they went in."""
    document = desk(
        teams=[{"key": "desk", "tier": 2}],
        calendars=[NIGHT],
        rotations=[
            {"key": "r", "team": "desk", "members": ["chen", "li"], "turn": "day",
             "start": clock.now().date(), "handoff": "08:00", "zone": "UTC"},
        ],
        windows=[{"team": "desk", "engineer": "wang", "calendar": "night", "margin": "10m"}],
        leaves=[{"engineer": "li", "first": clock.now().date() + 2 * DAY, "zone": "UTC"}],
    )  # fmt: skip
    read = parse(document)
    await load_desk(database, read, clock)
    stored = await duty.duties(database, clock)
    assert stored.stored
    first, last = clock.now() + MINUTE, clock.now() + 10 * DAY
    wanted = rota.spans(read.plan().rota({}), first, last)

    def told(found: Sequence[Span]) -> list[tuple[Any, ...]]:
        return sorted(
            (span.tier, span.team, span.engineer, max(span.since, first), min(span.until, last),
             span.why, span.instead_of)
            for span in found
            if span.since < last and span.until > first
        )  # fmt: skip

    assert told(stored.spans) == told(wanted)
    assert any(span.why[-1].kind is rota.Why.LEAVE for span in stored.spans)


async def test_at_the_first_load_duty_that_runs_has_its_own_beginning(
    database: Database, clock: FakeClock
) -> None:
    await load(database, clock)
    (there,) = on_duty(await duty.duties(database, clock), "gz", clock.now())
    assert (there.engineer.key, there.since) == ("li", datetime(2026, 11, 19, 20, tzinfo=UTC))


async def test_loading_the_same_again_changes_no_row_and_emits_nothing_new(
    database: Database, clock: FakeClock
) -> None:
    assert await load(database, clock)
    before, events = await rows(database), await due(database, clock)
    clock.advance(timedelta(hours=3))
    assert not await load(database, clock)
    assert await rows(database) == before
    assert len(await due(database, clock)) == len(events)


async def test_a_later_load_stores_what_has_come_into_sight(
    database: Database, clock: FakeClock
) -> None:
    await load(database, clock)
    before = await rows(database)
    clock.advance(2 * DAY)
    await load(database, clock)
    after = await rows(database)
    assert after[-1]["until"] == before[-1]["until"] + 2 * DAY
    assert [row for row in after if row in before][: len(before) - 1] == before[:-1]


# The past is as it was


async def test_a_change_cuts_what_runs_now_and_leaves_the_past_alone(
    database: Database, clock: FakeClock
) -> None:
    await load(database, clock)
    start = clock.now()
    clock.advance(DAY + timedelta(hours=9))  # 11:00, wang's time
    now = clock.now()
    past = [row for row in await rows(database) if row["until"] <= now]
    shift = {"site": "gz", "tier": 1, "engineer": "chen", "start": "00:00", "end": "24:00"}
    assert await load(database, clock, shifts=[shift])
    after = await rows(database)
    assert after[: len(past)] == past
    cut, fresh = after[len(past)], after[len(past) + 1]
    assert (cut["engineer"], cut["until"]) == ("wang", now)
    assert (fresh["engineer"], fresh["since"]) == ("chen", now)
    assert await who(database, clock, start) == ["li"]
    assert await who(database, clock) == ["chen"]
    assert {row["engineer"] for row in after if row["since"] >= now} == {"chen"}


async def test_duty_that_goes_on_unchanged_is_not_cut(database: Database, clock: FakeClock) -> None:
    await load(database, clock)
    clock.advance(timedelta(hours=9))
    (before,) = on_duty(await duty.duties(database, clock), "gz", clock.now())
    evening = {"site": "gz", "tier": 2, "engineer": "chen", "start": "18:00", "end": "20:00"}
    assert await load(database, clock, shifts=[*desk()["shifts"], evening])
    (after,) = on_duty(await duty.duties(database, clock), "gz", clock.now())
    assert after == before


async def test_leave_that_begins_mid_shift_hands_over_at_once(
    database: Database, clock: FakeClock
) -> None:
    await load(database, clock)
    clock.advance(timedelta(hours=9))
    leave = {
        "engineer": "wang", "start": clock.now(), "end": clock.now() + DAY, "backup": "chen"
    }  # fmt: skip
    await load(database, clock, leaves=[leave])
    (there,) = on_duty(await duty.duties(database, clock), "gz", clock.now())
    assert (there.engineer.key, there.why, there.instead_of) == ("chen", Why.LEAVE, "wang")
    assert there.since == clock.now()


async def test_past_leave_that_was_deleted_from_the_file_is_kept(
    database: Database, clock: FakeClock
) -> None:
    leave = {"engineer": "wang", "start": clock.now() - DAY, "end": clock.now() + DAY}
    await load(database, clock, leaves=[leave])
    clock.advance(timedelta(hours=2))
    await load(database, clock)
    async with database.reading() as connection:
        stored = await duty.plan(connection)
    assert stored is not None
    assert [(each.engineer, each.end) for each in stored.leaves] == [("wang", clock.now())]
    assert not await load(database, clock)


# What is read


async def test_duty_out_of_the_stored_time_is_worked_out(
    database: Database, clock: FakeClock
) -> None:
    await load(database, clock)
    for at, is_stored in (
        (clock.now(), True),
        (clock.now() + 50 * DAY, True),
        (clock.now() + 58 * DAY, False),  # who comes next would be missing
        (clock.now() + 400 * DAY, False),
        (clock.now() - 3 * DAY, False),
    ):
        found = await duty.duties(database, clock, at)
        assert found.stored is is_stored
        assert [each.engineer.key for each in on_duty(found, "gz", at)] == ["li"]
        assert [each.engineer.key for each in next_duties(found, "gz", at)] == ["wang"]


@pytest.mark.parametrize("year", [1, 1999, 2032, 9999])
async def test_duty_of_another_time_is_not_worked_out(
    database: Database, clock: FakeClock, year: int
) -> None:
    await load(database, clock)
    with pytest.raises(PermanentFailure, match=str(year)):
        await duty.duties(database, clock, datetime(year, 1, 1, tzinfo=UTC))


async def test_without_a_desk_file_there_are_no_sites(database: Database, clock: FakeClock) -> None:
    found = await duty.duties(database, clock)
    assert (found.sites, found.engineers, found.spans) == ((), (), ())
    assert await duty.problems(database, clock) == []


async def test_public_holidays_close_the_hours_that_follow_them(
    database: Database, clock: FakeClock
) -> None:
    document = {
        "teams": [{"key": "desk", "tier": 1}],
        "calendars": [NIGHT],
        "windows": [{"team": "desk", "engineer": "wang", "calendar": "night"}],
        "shifts": [],
    }
    await load(database, clock, **document)
    assert await who(database, clock) == ["wang"]
    body = (
        "confirmed_through = 2026-12-31\n[[year]]\nyear = 2026\nsources = ['x']\nworking = []\n"
        "holidays = [{ name = 'x', first = 2026-11-20 }]\n"
    )
    async with database.new_work() as work:
        await work.connection.execute(
            insert(holidays),
            {"key": "cn", "body": body, "confirmed_through": "2026-12-31",
             "imported_at": clock.now()},
        )  # fmt: skip
        assert await duty.resolve(work, clock) == {"gz"}
        await work.commit()
    assert await who(database, clock) == ["floor"]
    assert await who(database, clock, clock.now() + DAY) == ["wang"]


async def test_while_the_database_is_away_the_last_duties_go_on_counting(
    database: Database, clock: FakeClock
) -> None:
    read, unread = LastDuties(database, clock), LastDuties(database, clock)
    plan = small_desk().plan()
    first = plan.resolved({}, clock.now(), clock.now() + DAY)
    from_file = LastDuties(database, clock, first)
    await load_desk(database, small_desk(sites=("gz",)), clock)
    loaded = await read()
    assert [site.key for site in loaded.sites] == ["gz"]
    await database.close()
    assert await read() is loaded
    assert await from_file() is first
    for ask in (unread(), read(clock.now())):
        with pytest.raises(TemporaryFailure):
            await ask
    await database.open()
    assert await from_file() == loaded


async def test_duty_is_read_again_only_when_somebody_has_changed_it_or_the_hour_is_over(
    database: Database, clock: FakeClock
) -> None:
    read = LastDuties(database, clock)
    assert await read() == Duties()
    await load_desk(database, small_desk(sites=("gz",)), clock)
    first = await read()
    clock.advance(timedelta(minutes=59))
    assert await read() is first
    await load_desk(database, small_desk(), clock)
    second = await read()
    assert [site.key for site in second.sites] == ["gz", "sz", "zh"]
    clock.advance(timedelta(minutes=59))
    assert await read() is second
    clock.advance(timedelta(minutes=2))
    assert await read() is not second


# Events


async def test_each_change_of_duty_in_two_days_has_its_event(
    database: Database, clock: FakeClock
) -> None:
    await load(database, clock)  # at 02:00
    assert await due(database, clock) == [
        ("gz", 0), ("gz", 6), ("gz", 18), ("gz", 30), ("gz", 42)
    ]  # fmt: skip


async def test_a_change_that_does_not_touch_now_has_no_event_at_once(
    database: Database, clock: FakeClock
) -> None:
    await load(database, clock)
    await forget_events(database)
    leave = {"engineer": "wang", "start": clock.now() + DAY, "end": clock.now() + 2 * DAY}
    await load(database, clock, leaves=[leave])
    assert [hours for _, hours in await due(database, clock)] == [6, 18, 30, 42]


async def test_only_the_sites_where_duty_changes_hear_of_it_at_once(
    database: Database, clock: FakeClock
) -> None:
    await load_desk(database, small_desk(), clock)
    await forget_events(database)
    shifts = tuple(each for each in small_desk().shifts if each.engineer != "james")
    await load_desk(database, small_desk().model_copy(update={"shifts": shifts}), clock)
    assert [site for site, hours in await due(database, clock) if hours == 0] == ["sz"]


# Keeping


async def test_the_keeper_stores_what_is_missing_and_then_leaves_it(
    database: Database, clock: FakeClock
) -> None:
    await load(database, clock)
    async with database.writing() as connection:  # as after the migration
        await connection.execute(delete(spans))
    keeper = DutyKeeper(database, clock, ZONE)
    await keeper.look()
    stored = await rows(database)
    assert stored[-1]["until"] >= clock.now() + 60 * DAY
    await keeper.look()
    assert await rows(database) == stored
    clock.advance(DAY)
    await forget_events(database)
    await keeper.look()
    assert (await rows(database))[-1]["until"] == stored[-1]["until"] + DAY
    assert [hours for _, hours in await due(database, clock)] == [6, 18, 30, 42]


async def test_what_is_wrong_with_the_rota_is_said_once_a_night(
    database: Database, clock: FakeClock
) -> None:
    await load_desk(database, small_desk(), clock)
    keeper = DutyKeeper(database, clock, ZONE)
    assert keeper.health()[0].detail == ""

    async def said() -> list[str]:
        with structlog.testing.capture_logs() as logs:
            await keeper.look()
        return [f"{entry['where']}: {entry['text']}" for entry in logs if "flaw" in entry]

    line = "site zh: nobody is on duty at any time; its floor number rings"
    assert await said() == [line]
    assert keeper.health()[0].state is HealthState.UP
    assert keeper.health()[0].detail == "1 problems: contactd check"
    clock.advance(timedelta(hours=13))  # 23:00 in Shanghai
    assert await said() == []
    clock.advance(timedelta(hours=1))
    assert await said() == [line]


async def test_the_keeper_waits_for_the_database(
    database: Database, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await load(database, clock)
    async with database.writing() as connection:
        await connection.execute(delete(spans))
    monkeypatch.setattr(duty, "RETRY_S", 0.01)
    await database.close()
    keeper = DutyKeeper(database, clock, ZONE)
    async with keeper.running():
        await until(lambda: keeper.health()[0].state is HealthState.DEGRADED)
        await database.open()
        await until(lambda: keeper.health()[0].state is HealthState.UP)
        assert await rows(database)


async def test_two_who_resolve_at_once_store_the_same_once(
    database: Database, clock: FakeClock
) -> None:
    await load(database, clock)
    before = [{**row, "id": 0} for row in await rows(database)]
    async with database.writing() as connection:
        await connection.execute(delete(spans))
    await asyncio.gather(*(DutyKeeper(database, clock, ZONE).look() for _ in range(4)))
    assert [{**row, "id": 0} for row in await rows(database)] == before


# What makes one the other

NOW = datetime(2026, 11, 20, tzinfo=UTC)


@st.composite
def some_spans(draw: st.DrawFn, earliest: int) -> list[Span]:
    """Spans of layers that do not overlap themselves, from an hour on."""
    found = []
    for key in "ab":
        hour = earliest
        for _ in range(draw(st.integers(0, 4))):
            since = hour + draw(st.integers(0, 3))
            hour = since + draw(st.integers(1, 5))
            found.append(
                Span(
                    site=draw(st.sampled_from(["gz", "sz"])), tier=1,
                    engineer=draw(st.sampled_from(["li", "wang"])),
                    since=NOW + timedelta(hours=since), until=NOW + timedelta(hours=hour),
                    why=(Cause(kind=rota.Why.SHIFT, key=key),),
                )
            )  # fmt: skip
    return found


def applied(stored: Sequence[tuple[int, Span]], news: Difference) -> list[Span]:
    ended = dict(news.ended)
    return [
        Span(**{**{name: getattr(span, name) for name in Span.__dataclass_fields__},
                "until": ended.get(row, span.until)})
        for row, span in stored
        if row not in news.dropped
    ] + list(news.added)  # fmt: skip


@given(old=some_spans(-8), fresh=some_spans(0))
def test_whatever_was_stored_now_and_later_is_as_fresh_and_before_is_as_stored(
    old: list[Span], fresh: list[Span]
) -> None:
    stored = [(n, span) for n, span in enumerate(old) if span.until > NOW]
    after = applied(stored, difference(stored, fresh, NOW))

    def there(found: Sequence[Span], hour: int) -> list[tuple[str, str, str]]:
        at = NOW + timedelta(hours=hour)
        return sorted(
            (span.site, span.engineer, span.why[0].key)
            for span in found
            if span.since <= at < span.until
        )

    for hour in range(-8, 0):
        assert there(after, hour) == there([span for _, span in stored], hour)
    for hour in range(40):
        assert there(after, hour) == there(fresh, hour)
    before_now, since_now = there([span for _, span in stored], 0), there(fresh, 0)
    news = difference(stored, fresh, NOW)
    if before_now == since_now and all(span.since < NOW for _, span in stored):
        assert news.changed == frozenset()
    left = [(n, span) for n, span in enumerate(after) if span.until > NOW]
    assert difference(left, fresh, NOW) == Difference(
        dropped=(), ended=(), added=(), changed=frozenset()
    )
