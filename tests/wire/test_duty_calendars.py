"""Duty as calendars to subscribe to: what a program gets for which token, and when it is news."""

from collections.abc import AsyncIterator
from datetime import date, timedelta
from typing import Any

import aiohttp
import pytest
from icalendar import Calendar

from contactd.routing.deskfile import parse
from contactd.store.desk import load_desk
from contactd.store.engine import Database
from contactd.tickets.people import Role
from contactd.web import feeds
from contactd.web.endpoints import PREFIX
from tests.fakes.clock import FakeClock
from tests.fakes.rota import desk_document
from tests.fakes.site import FakeAccounts, running_site

TEAM = {"key": "network", "tier": 3, "sites": ["gz", "sz"]}
DAILY = {
    "key": "net", "team": "network", "members": ["wang", "chen"], "turn": "day",
    "start": date(2026, 11, 2), "handoff": "08:00",
}  # fmt: skip


class Subscriber:
    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self.url = url
        self.http = http

    async def ask(
        self, path: str, *, bearer: str = "", headers: dict[str, str] | None = None
    ) -> tuple[int, bytes, Any]:
        sent = {**(headers or {}), **({"Authorization": f"Bearer {bearer}"} if bearer else {})}
        async with self.http.get(f"{self.url}{PREFIX}/oncall/{path}", headers=sent) as answer:
            return answer.status, await answer.read(), answer.headers

    async def events(self, path: str) -> list[Any]:
        status, body, headers = await self.ask(path, bearer="cd_admin")
        assert status == 200, body
        assert headers["Content-Type"] == "text/calendar; charset=utf-8"
        return list(Calendar.from_ical(body).walk("VEVENT"))


@pytest.fixture
async def subscriber(database: Database, clock: FakeClock) -> AsyncIterator[Subscriber]:
    document = {**desk_document(), "teams": [TEAM], "rotations": [DAILY]}
    await load_desk(database, parse(document), clock)
    calendars = feeds.Calendars(
        database=database, tokens=FakeAccounts(), clock=clock, zone="Asia/Shanghai",
        language="zh", host="desk.example.cn",
    )  # fmt: skip
    routes = feeds.routes(calendars)
    async with (
        running_site(routes=routes, public_status=False) as site,
        aiohttp.ClientSession() as http,
    ):
        yield Subscriber(site.url, http)


async def test_a_person_sees_their_own_duty_for_sixty_days(
    subscriber: Subscriber, clock: FakeClock
) -> None:
    found = await subscriber.events("person/wang.ics")
    assert {str(event["SUMMARY"]) for event in found} == {"广州 一线值班", "广州、深圳 三线值班"}
    assert max(event["DTEND"].dt for event in found) > clock.now() + timedelta(days=59)


async def test_a_team_sees_whose_turn_it_is(subscriber: Subscriber) -> None:
    found = await subscriber.events("team/network.ics")
    people = [str(event["SUMMARY"]) for event in found]
    assert people[:4] == ["陈静 广州、深圳 三线", "王伟 广州、深圳 三线"] * 2
    assert len({str(event["UID"]) for event in found}) == len(found) >= 60


async def test_a_site_sees_everybody_who_is_there(subscriber: Subscriber) -> None:
    found = await subscriber.events("site/gz.ics")
    assert {str(event["SUMMARY"]) for event in found} == {
        "王伟（一线）", "李娜（二线）", "王伟（三线）", "陈静（三线）",
    }  # fmt: skip
    english = await subscriber.events("site/gz.ics?lang=en")
    assert {str(event["SUMMARY"]) for event in english} == {
        "王伟 (tier 1)", "李娜 (tier 2)", "王伟 (tier 3)", "陈静 (tier 3)",
    }  # fmt: skip


async def test_what_nobody_has_is_not_there(subscriber: Subscriber) -> None:
    for path in ("person/nobody.ics", "team/nobody.ics", "site/xx.ics", "city/gz.ics"):
        status, _, _ = await subscriber.ask(path, bearer="cd_admin")
        assert status == 404, path


async def test_a_calendar_that_did_not_change_is_not_sent_again(
    subscriber: Subscriber, clock: FakeClock, database: Database
) -> None:
    _, _, first = await subscriber.ask("person/wang.ics", bearer="cd_admin")
    known = {"If-None-Match": first["ETag"]}
    clock.advance(timedelta(minutes=15))
    status, body, _ = await subscriber.ask("person/wang.ics", bearer="cd_admin", headers=known)
    assert (status, body) == (304, b"")
    document = desk_document()
    document["leaves"] = [{"engineer": "wang", "first": date(2026, 11, 25)}]
    await load_desk(database, parse(document), clock)
    status, _, second = await subscriber.ask("person/wang.ics", bearer="cd_admin", headers=known)
    assert status == 200
    assert second["ETag"] != first["ETag"]


# Who may ---------------------------------------------------------------------------------------


async def test_everybody_with_a_role_may_send_a_bearer_token(subscriber: Subscriber) -> None:
    for role in Role:
        status, _, _ = await subscriber.ask("site/gz.ics", bearer=f"cd_{role}")
        assert status == 200, role


async def test_only_a_token_for_calendars_may_be_in_the_address(subscriber: Subscriber) -> None:
    for role in Role:
        status, body, _ = await subscriber.ask(f"site/gz.ics?token=cd_{role}")
        assert status == (200 if role is Role.CALENDAR else 403), role
        assert (b"VEVENT" in body) == (status == 200)


@pytest.mark.parametrize("query", ["", "?token=", "?token=cd_guess", f"?token={'x' * 4000}"])
async def test_without_a_token_that_is_known_nothing_is_shown(
    subscriber: Subscriber, query: str
) -> None:
    status, body, headers = await subscriber.ask(f"site/gz.ics{query}")
    assert status == 401
    assert "Bearer" in headers["WWW-Authenticate"]
    assert b"VEVENT" not in body


async def test_a_token_for_calendars_opens_nothing_else(subscriber: Subscriber) -> None:
    for role, expected in ((Role.CALENDAR, 403), (Role.OPERATIONS, 200)):
        asked = {"Authorization": f"Bearer cd_{role}"}
        async with subscriber.http.get(f"{subscriber.url}/", headers=asked) as answer:
            assert answer.status == expected
    async with subscriber.http.get(f"{subscriber.url}/?token=cd_admin") as answer:
        assert answer.status == 401
