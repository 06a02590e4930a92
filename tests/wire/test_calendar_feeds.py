"""External calendars: their events are leave in the rota, and no fault of theirs forgets any."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest

from contactd import calendar_feeds, calendar_reader
from contactd.calendar_feeds import STALE, CalendarFeeds
from contactd.calendar_reader import read_absences
from contactd.errors import PermanentFailure
from contactd.routing.deskfile import parse
from contactd.routing.ical import View
from contactd.routing.oncall import on_duty
from contactd.service import HealthState
from contactd.signals import Signals, Topic
from contactd.store import duty
from contactd.store.desk import load_desk
from contactd.store.engine import Database
from contactd.store.feeds import copies, spans_of
from tests.fakes.calendars import Office, away, office, vcalendar
from tests.fakes.clock import FakeClock
from tests.fakes.rota import desk_document
from tests.fakes.waiting import WITHIN_S, eventually

TOMORROW = ("20261121", "20261122")
NOON = datetime(2026, 11, 21, 4, 0, tzinfo=UTC)  # tomorrow in Shanghai


class Desk:
    """A database whose desk file names the office's calendar as 王伟's leave."""

    def __init__(
        self, database: Database, clock: FakeClock, there: Office, client: aiohttp.ClientSession
    ) -> None:
        self.database = database
        self.clock = clock
        self.office = there
        self.client = client
        self.signals = Signals()
        self.feeds = CalendarFeeds(database, clock, zone="Asia/Shanghai", signals=self.signals)

    async def load(self, *urls: str) -> None:
        """Load the desk file with these calendars; li stands in for whoever is away."""
        document = desk_document()
        document["feeds"] = [
            {"key": f"wang-{n}", "url": url, "engineer": "wang"} for n, url in enumerate(urls)
        ]
        await load_desk(self.database, parse(document), self.clock)

    async def look(self) -> None:
        await self.feeds.look(self.client)

    async def look_later(self, **how_long: float) -> None:
        self.clock.advance(timedelta(**how_long) if how_long else timedelta(minutes=16))
        await self.look()

    async def on_duty(self, at: datetime = NOON) -> list[str]:
        """Return who has tier 1 in Guangzhou."""
        known = await duty.duties(self.database, self.clock, at)
        return [each.engineer.key for each in on_duty(known, "gz", at) if each.tier == 1]

    def health(self) -> tuple[HealthState, str]:
        (health,) = self.feeds.health()
        return health.state, health.detail


@pytest.fixture
async def desk(database: Database, clock: FakeClock) -> AsyncIterator[Desk]:
    async with office() as there, aiohttp.ClientSession() as client:
        desk = Desk(database, clock, there, client)
        await desk.load(there.url)
        yield desk


async def test_an_event_is_leave_and_somebody_stands_in(desk: Desk) -> None:
    assert await desk.on_duty() == ["wang"]
    desk.office.body = away(TOMORROW)
    with desk.signals.listening(Topic.ROSTER) as told:
        await desk.look()
        assert told.is_set()
    (stand_in,) = await desk.on_duty()
    assert stand_in != "wang"
    assert await desk.on_duty(NOON + timedelta(days=1)) == ["wang"]
    async with desk.database.reading() as connection:
        found = await spans_of(connection, View.SITE, "gz", NOON, NOON + timedelta(minutes=1))
    (span,) = [span for span in found if span.tier == 1]
    assert str(span.why[-1]) == "leave wang-0-20261120T1600"
    assert span.instead_of == "wang"


async def test_an_event_that_is_gone_is_leave_no_more(desk: Desk) -> None:
    desk.office.body = away(TOMORROW)
    await desk.look()
    desk.office.body, desk.office.etag = away(), '"2"'
    await desk.look_later()
    assert await desk.on_duty() == ["wang"]


async def test_it_is_asked_every_quarter_of_an_hour_and_sent_only_when_it_changed(
    desk: Desk,
) -> None:
    desk.office.body = away(TOMORROW)
    await desk.look()
    await desk.look_later(minutes=5)
    assert desk.office.asked == 1
    await desk.look_later(minutes=11)
    assert (desk.office.asked, desk.office.unchanged) == (2, 1)
    assert await desk.on_duty() != ["wang"]


async def test_without_news_nothing_is_worked_out_anew(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.office.body, desk.office.etag = away(TOMORROW), ""
    await desk.look()
    resolved: list[object] = []
    monkeypatch.setattr(duty, "resolve", lambda *given: resolved.append(given))
    read: list[object] = []
    monkeypatch.setattr(calendar_feeds, "read_absences", lambda *given, **_: read.append(given))
    await desk.look_later()
    assert (desk.office.asked, resolved, read) == (2, [], [])


FAULTS: dict[str, dict[str, Any]] = {
    "gone": {"status": 404}, "broken": {"status": 500}, "login page": {"body": "<html></html>"},
    "empty": {"body": ""}, "not text": {"body": b"\xff\x00" * 99}, "endless": {"endless": True},
    "silent": {"silent": True}, "a moment each second": {
        "body": vcalendar([["DTSTART:20261001T000000Z", "DURATION:PT1S",
                            "RRULE:FREQ=SECONDLY"]])
    },
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
async def test_while_it_cannot_be_had_or_read_the_last_good_copy_counts(
    desk: Desk, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calendar_feeds, "LARGEST_BYTES", 1 << 20)
    monkeypatch.setattr(calendar_reader, "CPU_S", 1)
    desk.office.body = away(TOMORROW)
    await desk.look()
    desk.office.etag = '"2"'
    for name, value in FAULTS[fault].items():
        setattr(desk.office, name, value)
    hurried = aiohttp.ClientTimeout(total=1.5)
    async with aiohttp.ClientSession(timeout=hurried) as desk.client:
        await desk.look_later()
    assert await desk.on_duty() != ["wang"]
    state, detail = desk.health()
    assert state is HealthState.UP, "for a day it is not an alarm"
    assert detail.startswith("wang-0: ")
    assert desk.office.url not in detail


async def test_after_a_day_it_is_an_alarm_and_with_the_next_good_copy_it_ends(desk: Desk) -> None:
    await desk.look()
    assert desk.health() == (HealthState.UP, "")
    desk.office.status, desk.office.etag = 500, '"2"'
    await desk.look_later(seconds=STALE.total_seconds())
    assert desk.health()[0] is HealthState.UP
    await desk.look_later()
    assert desk.health() == (
        HealthState.DEGRADED, "wang-0: the answer is 500; the last good copy counts",
    )  # fmt: skip
    desk.office.status = 200
    await desk.look_later()
    assert desk.health() == (HealthState.UP, "")


async def test_one_that_never_was_had_is_an_alarm_after_a_day_as_well(desk: Desk) -> None:
    desk.office.status = 403
    await desk.look()
    await desk.look_later(hours=25)
    assert desk.health()[0] is HealthState.DEGRADED


async def test_events_that_make_no_sense_are_an_alarm_and_the_others_count(desk: Desk) -> None:
    days = [["DTSTART;VALUE=DATE:20261121"], ["DTSTART:perhaps"]]
    desk.office.body = vcalendar(days)
    await desk.look()
    assert await desk.on_duty() != ["wang"]
    state, detail = desk.health()
    assert (state, "make no sense" in detail) == (HealthState.DEGRADED, True)
    await desk.look_later()
    assert desk.health()[0] is HealthState.DEGRADED, "still, when nothing changed"


async def test_a_copy_that_did_not_change_is_read_further_before_it_runs_out(desk: Desk) -> None:
    desk.office.body = vcalendar([["DTSTART;VALUE=DATE:20261121", "RRULE:FREQ=MONTHLY"]])
    await desk.look()
    for _ in range(3):
        await desk.look_later(days=61)
    at = NOON + timedelta(days=30 + 31 + 31 + 28 + 31 + 30 + 31)  # 2027-06-21
    assert await desk.on_duty(at) != ["wang"]


async def test_a_feed_that_is_not_in_the_desk_file_any_more_is_forgotten(desk: Desk) -> None:
    desk.office.body = away(TOMORROW)
    await desk.look()
    await desk.load()
    assert await desk.on_duty() == ["wang"]
    await desk.look()
    async with desk.database.reading() as connection:
        assert await copies(connection) == {}
    assert desk.health() == (HealthState.UP, "")


async def test_a_copy_of_another_address_does_not_count(desk: Desk) -> None:
    desk.office.body = away(TOMORROW)
    await desk.look()
    await desk.load(desk.office.url + "?other")
    assert await desk.on_duty() == ["wang"]
    await desk.look()
    assert await desk.on_duty() != ["wang"]


async def test_loading_the_desk_file_again_keeps_the_leave(desk: Desk) -> None:
    desk.office.body = away(TOMORROW)
    await desk.look()
    await desk.load(desk.office.url)
    assert await desk.on_duty() != ["wang"]


async def test_one_bad_calendar_does_not_keep_others_from_being_read(desk: Desk) -> None:
    desk.office.body = away(TOMORROW)
    circle = desk.office.url.replace("leave.ics", "elsewhere")
    await desk.load("webcal://127.0.0.1:1/x.ics", circle, desk.office.url)
    await desk.look()
    assert await desk.on_duty() != ["wang"]
    async with desk.database.reading() as connection:
        known = await copies(connection)
    assert known["wang-0"].error == "it cannot be had: ClientConnectorError"
    assert known["wang-1"].error == "it cannot be had: TooManyRedirects"


async def test_the_service_looks_by_itself_and_ends_while_it_waits(desk: Desk) -> None:
    desk.office.body = away(TOMORROW)

    async def somebody_stands_in() -> bool:
        return await desk.on_duty() != ["wang"]

    async with desk.feeds.running():
        await eventually(somebody_stands_in)
    desk.office.silent = True
    desk.clock.advance(timedelta(hours=1))
    async with asyncio.timeout(WITHIN_S), desk.feeds.running():
        asked = desk.office.asked

        async def is_asked() -> bool:
            return desk.office.asked > asked

        await eventually(is_asked)


async def test_the_reader_holds_nobody_up_and_leaves_no_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bomb = vcalendar([["DTSTART:20260101T000000Z", "DURATION:PT1S", "RRULE:FREQ=SECONDLY"]])
    start, end = datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
    monkeypatch.setattr(calendar_reader, "_WAIT_S", 0.5)
    asked = read_absences(bomb.encode(), start=start, end=end, zone="Asia/Shanghai")
    reading = asyncio.create_task(asked)
    loop, longest = asyncio.get_running_loop(), 0.0
    while not reading.done():
        before = loop.time()
        await asyncio.sleep(0.01)
        longest = max(longest, loop.time() - before)
    with pytest.raises(PermanentFailure, match="too long"):
        await reading
    assert longest < 0.3
