"""What open pages of the workbench are told, on both databases: to whom, when, and no more."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import aiohttp
import pytest

from contactd.errors import TemporaryFailure
from contactd.httpd import Route
from contactd.routing.deskfile import parse
from contactd.signals import Signals, Topic
from contactd.store.callviews import CallerCard, CallViews, Moved
from contactd.store.engine import Database
from contactd.store.views import Views
from contactd.tickets.contact import Contact, Filed, Medium
from contactd.tickets.model import Classification
from contactd.tickets.people import Role
from contactd.web import desklive
from contactd.web.board import CallStage
from contactd.web.calling import DeskCall, Ours
from contactd.web.desklive import DeskLive
from contactd.web.pages import Pages
from tests.fakes.clock import FakeClock
from tests.fakes.desk import AT_GZ, AT_SZ, STRANGER, VIP, Desk, document
from tests.fakes.site import FakeIdentity, Site, running_site
from tests.fakes.waiting import until

HOSTILE = "<img src=x onerror=alert(1)>"


@dataclass(slots=True)
class Counted:
    """The database's views, and how often they were asked; `away`: as if it were."""

    views: CallViews
    asked: list[str] = field(default_factory=list)
    away: bool = False

    def _note(self, what: str) -> None:
        self.asked.append(what)
        if self.away:
            raise TemporaryFailure("the database is away")

    async def caller_card(self, number: str) -> CallerCard | None:
        self._note("card")
        return await self.views.caller_card(number)

    async def tickets(self, numbers: Collection[str]) -> list[Moved]:
        self._note("tickets")
        return await self.views.tickets(numbers)

    async def changed(self, since: datetime) -> list[Moved]:
        self._note("changed")
        return await self.views.changed(since)


@dataclass(slots=True)
class Heard:
    """What one page was told: the newest of each kind, and how often."""

    newest: dict[str, str] = field(default_factory=dict)
    count: dict[str, int] = field(default_factory=dict)
    is_over: bool = False

    def take(self, block: str) -> None:
        lines = block.split("\n")
        name = next((line[7:] for line in lines if line.startswith("event: ")), "")
        if name:
            self.newest[name] = "\n".join(
                line.removeprefix("data:").strip() for line in lines if line.startswith("data")
            )
            self.count[name] = self.count.get(name, 0) + 1

    @property
    def card(self) -> str:
        return self.newest.get("call", "")


@dataclass(slots=True, kw_only=True)
class Room:
    desk: Desk
    site: Site
    live: DeskLive
    reads: Counted
    signals: Signals
    http: aiohttp.ClientSession
    calls: list[DeskCall]

    def now(self, *calls: DeskCall) -> None:
        """Let these be the calls of this moment."""
        self.calls[:] = calls
        self.signals.raise_(Topic.BOARD)

    def person(self, name: str, role: Role = Role.ENGINEER, engineer: str = "", *sites: str) -> str:
        identity = FakeIdentity(name=name, role=role, engineer=engineer, sites=frozenset(sites))
        self.site.accounts.tokens[f"cd_{name}"] = identity
        return f"cd_{name}"

    @asynccontextmanager
    async def page(self, token: str, query: str = "") -> AsyncIterator[Heard]:
        """Keep a page open; it has been told everything once when the block is entered."""
        heard = Heard()
        headers = {"Authorization": f"Bearer {token}"}
        async with (
            self.http.get(f"{self.site.url}/desk/live?lang=zh{query}", headers=headers) as answer,
            asyncio.TaskGroup() as tasks,
        ):
            assert answer.status == 200, await answer.text()
            reading = tasks.create_task(_read(answer, heard))
            await until(lambda: "call" in heard.newest)
            yield heard
            reading.cancel()

    async def writes(self, token: str, ticket: str) -> int:
        headers = {"Authorization": f"Bearer {token}"}
        url = f"{self.site.url}/desk/live/writing"
        async with self.http.post(url, data={"ticket": ticket}, headers=headers) as answer:
            return answer.status


async def _read(answer: aiohttp.ClientResponse, heard: Heard) -> None:
    text = ""
    async for chunk in answer.content.iter_any():
        *blocks, text = (text + chunk.decode()).split("\n\n")
        for block in blocks:
            heard.take(block)
    heard.is_over = True


@pytest.fixture
async def room(database: Database, clock: FakeClock) -> AsyncIterator[Room]:
    async with furnished(database, clock) as room:
        yield room


@asynccontextmanager
async def furnished(
    database: Database, clock: FakeClock, max_streams: int = 20
) -> AsyncIterator[Room]:
    desk = Desk(database, clock)
    await desk.load_file(parse(document()))
    signals, calls, reads = Signals(), list[DeskCall](), Counted(CallViews(database))
    sites, made = Views(database, clock).sites, list[DeskLive]()

    def make(pages: Pages) -> list[Route]:
        made.append(
            DeskLive(
                pages=pages, look=lambda: tuple(calls), reads=reads, sites=sites,
                signals=signals, clock=clock, max_streams=max_streams,
            )
        )  # fmt: skip
        return [*made[0].routes()]

    async with (
        running_site(make_routes=make) as site,
        made[0].running(),
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as http,
    ):
        yield Room(
            desk=desk, site=site, live=made[0], reads=reads, signals=signals, http=http,
            calls=calls,
        )  # fmt: skip
        made[0].end_streams()


def ringing(filed: Filed | None, clock: FakeClock, caller: str = AT_GZ) -> DeskCall:
    return DeskCall(
        call_id="pbx1-1.1", stage=CallStage.OFFERED, since=clock.now(), arrived_at=clock.now(),
        caller=caller, name=HOSTILE, did="4008001234", site=filed.site if filed else "",
        ticket=filed.ticket if filed else "", offered=("wang",),
    )  # fmt: skip


async def reported(room: Room, number: str = AT_GZ) -> Filed:
    told = Contact(
        medium=Medium.WEB, external_id=secrets.token_hex(8), received_at=room.desk.clock.now(),
        from_value=number, text="网络不通",
    )  # fmt: skip
    return await room.desk.tickets.receive(told)


# Calls


async def test_who_is_rung_sees_who_calls_and_nobody_else_does(
    room: Room, clock: FakeClock
) -> None:
    filed = await reported(room)
    wang, li = room.person("wang", engineer="wang"), room.person("li", engineer="li")
    boss = room.person("tan", Role.SUPERVISOR)
    async with room.page(wang) as mine, room.page(li) as hers, room.page(boss) as his:
        began = asyncio.get_running_loop().time()
        room.now(ringing(filed, clock))
        await until(lambda: "张三" in mine.card)
        assert asyncio.get_running_loop().time() - began < 1.0
        for shown in ("张三", AT_GZ, "您的电话在响", "4008001234", filed.ticket, "网络不通"):
            assert shown in mine.card, shown
        assert f'href="/desk/tickets/{filed.ticket}"' in mine.card
        assert "<img" not in mine.card
        assert (hers.card, his.card) == ("", "")


async def test_a_caller_whom_nobody_knows_is_shown_by_the_number(
    room: Room, clock: FakeClock
) -> None:
    wang = room.person("wang", engineer="wang")
    async with room.page(wang) as mine:
        room.now(replace(ringing(None, clock, STRANGER), name=""))
        await until(lambda: STRANGER in mine.card)
        assert "首次来电" in mine.card
        room.now(replace(ringing(None, clock, ""), name=""))
        await until(lambda: "未显示号码" in mine.card)


async def test_the_card_follows_the_call_and_stays_a_while_after_it(
    room: Room, clock: FakeClock
) -> None:
    filed = await reported(room, VIP)
    wang = room.person("wang", engineer="wang")
    rings = ringing(filed, clock, VIP)
    async with room.page(wang) as mine:
        room.now(rings)
        await until(lambda: "VIP" in mine.card)
        room.now(replace(rings, stage=CallStage.TALKING, offered=(), engineer="wang"))
        await until(lambda: "通话中" in mine.card)
        room.now()
        await until(lambda: "通话已结束" in mine.card)
        assert filed.ticket in mine.card
        clock.advance(timedelta(minutes=3))
        room.now()
        await until(lambda: mine.card == "")
        room.now(rings)
        await until(lambda: mine.card != "")
        room.now()  # somebody else was faster, or the caller gave up
        await until(lambda: mine.card == "")


async def test_who_calls_is_read_once_a_stage_however_many_look(
    room: Room, clock: FakeClock
) -> None:
    filed = await reported(room)
    wang = room.person("wang", engineer="wang")
    async with room.page(wang) as one, room.page(wang) as two, room.page(wang) as three:
        room.now(ringing(filed, clock))
        await until(lambda: all("张三" in each.card for each in (one, two, three)))
        for _ in range(5):
            room.signals.raise_(Topic.BOARD)
            await asyncio.sleep(0.15)
        assert room.reads.asked.count("card") == 1
        assert [each.count["call"] for each in (one, two, three)] == [2, 2, 2]


async def test_a_call_that_ended_while_nobody_looked_is_not_shown_later(
    room: Room, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desklive, "BEAT_S", 0.0)  # who is gone is noticed by the next word
    wang = room.person("wang", engineer="wang")
    talking = replace(ringing(None, clock), stage=CallStage.TALKING, offered=(), engineer="wang")
    async with room.page(wang) as mine:
        room.now(talking)
        await until(lambda: "通话中" in mine.card)
    while room.live.health()[0].figures["streams"]:
        room.signals.raise_(Topic.BOARD)
        await asyncio.sleep(0.15)
    await asyncio.sleep(0.3)
    room.now()
    async with room.page(wang) as mine:
        await asyncio.sleep(0.3)
        assert mine.card == ""


async def test_tickets_of_other_sites_are_not_on_the_card(room: Room, clock: FakeClock) -> None:
    filed = await reported(room)
    other = room.person("wang", Role.ENGINEER, "wang", "sz")
    async with room.page(other) as mine:
        room.now(ringing(filed, clock))
        await until(lambda: "张三" in mine.card)
        assert filed.ticket not in mine.card


async def test_a_database_that_is_away_does_not_keep_the_card_back(
    room: Room, clock: FakeClock
) -> None:
    wang = room.person("wang", engineer="wang")
    async with room.page(wang) as mine:
        room.reads.away = True
        room.now(ringing(None, clock))
        await until(lambda: AT_GZ in mine.card)
        assert "张三" not in mine.card
        room.reads.away = False
        room.signals.raise_(Topic.BOARD)
        await until(lambda: "张三" in mine.card)


async def test_who_clicks_to_call_sees_how_it_goes(room: Room, clock: FakeClock) -> None:
    filed = await reported(room)
    wang, li = room.person("wang", engineer="wang"), room.person("li", engineer="li")
    mine_ = DeskCall(
        call_id="out-1", stage=CallStage.RINGING, since=clock.now(), arrived_at=clock.now(),
        caller=AT_GZ, ticket=filed.ticket, engineer="wang", ours=Ours(user="wang", talked=False),
    )  # fmt: skip
    async with room.page(wang) as mine, room.page(li) as hers:
        room.now(mine_)
        await until(lambda: "请接听并按 1" in mine.card)
        room.now(replace(mine_, stage=None, ours=Ours(user="wang", talked=False, end="busy")))
        await until(lambda: "对方正忙" in mine.card)
        assert hers.card == ""


async def test_the_page_of_calls_hears_of_calls_at_its_sites(room: Room, clock: FakeClock) -> None:
    filed = await reported(room)
    gz = room.person("gz", Role.DESK, "", "gz")
    sz = room.person("sz", Role.DESK, "", "sz")
    async with room.page(gz, "&calls=1") as here, room.page(sz, "&calls=1") as there:
        before = here.newest["calls"], there.newest["calls"]
        room.now(ringing(filed, clock))
        await until(lambda: here.newest["calls"] != before[0])
        await asyncio.sleep(0.3)
        assert there.newest["calls"] == before[1]


# Tickets and lists


async def test_the_page_of_a_ticket_hears_how_far_its_journal_is(room: Room) -> None:
    filed, other = await reported(room), await reported(room, AT_SZ)
    li = room.person("li", Role.DESK)
    async with room.page(li, f"&ticket={filed.ticket}") as page:
        await until(lambda: page.newest.get("ticket", "") != "")
        before = page.newest["ticket"]
        await room.desk.tickets.classify(other.ticket, Classification(title="x"), actor="user:li")
        room.signals.raise_(Topic.BOARD)
        await asyncio.sleep(0.4)
        assert page.newest["ticket"] == before
        await room.desk.tickets.comment(filed.ticket, "看过了", actor="user:li")
        room.signals.raise_(Topic.BOARD)
        await until(lambda: page.newest["ticket"] == str(int(before) + 1))


async def test_the_list_hears_of_tickets_of_its_sites_only(room: Room, clock: FakeClock) -> None:
    filed = await reported(room)
    clock.advance(timedelta(minutes=5))
    gz, sz = room.person("gz", Role.DESK, "", "gz"), room.person("sz", Role.DESK, "", "sz")
    async with room.page(gz, "&list=1") as here, room.page(sz, "&list=1") as there:
        await until(lambda: "list" in here.newest and "list" in there.newest)
        before = here.newest["list"], there.newest["list"]
        await room.desk.tickets.classify(filed.ticket, Classification(title="x"), actor="user:li")
        room.signals.raise_(Topic.BOARD)
        await until(lambda: here.newest["list"] != before[0])
        await asyncio.sleep(0.3)
        assert there.newest["list"] == before[1]
        again = here.newest["list"]
        room.signals.raise_(Topic.BOARD)
        await asyncio.sleep(0.4)
        assert here.newest["list"] == again, "the same change is told once"


async def test_one_change_is_one_question_for_all_pages(room: Room) -> None:
    filed = await reported(room)
    li = room.person("li", Role.DESK)
    query = f"&list=1&ticket={filed.ticket}"
    async with room.page(li, query), room.page(li, query), room.page(li, query):
        await asyncio.sleep(0.5)
        room.reads.asked.clear()
        room.signals.raise_(Topic.BOARD)
        await until(lambda: len(room.reads.asked) >= 2)
        await asyncio.sleep(0.3)
        assert sorted(room.reads.asked) == ["changed", "tickets"]


# Who is there


async def test_each_sees_who_else_has_the_ticket_open_and_who_writes(
    room: Room, clock: FakeClock
) -> None:
    filed, other = await reported(room), await reported(room, AT_SZ)
    li, tan = room.person("li", Role.DESK), room.person("tan", Role.SUPERVISOR)
    async with room.page(li, f"&ticket={filed.ticket}") as hers:
        assert hers.newest.get("presence", "") == ""
        async with room.page(tan, f"&ticket={filed.ticket}") as his:
            await until(lambda: "tan" in hers.newest["presence"])
            await until(lambda: "li" in his.newest["presence"])
            assert await room.writes(tan, filed.ticket) == 204
            await until(lambda: "正在输入" in hers.newest["presence"])
            assert "正在输入" not in his.newest["presence"]
            clock.advance(timedelta(seconds=20))
            room.signals.raise_(Topic.BOARD)
            await until(lambda: "正在输入" not in hers.newest["presence"])
        await until(lambda: hers.newest["presence"] == "")
        async with room.page(tan, f"&ticket={other.ticket}"):
            assert await room.writes(tan, filed.ticket) == 204, "but it is not open"
            await asyncio.sleep(0.3)
            assert hers.newest["presence"] == ""


async def test_a_ticket_of_another_site_tells_nothing(room: Room) -> None:
    filed = await reported(room)
    li, sz = room.person("li", Role.DESK), room.person("sz", Role.DESK, "", "sz")
    async with (
        room.page(li, f"&ticket={filed.ticket}") as hers,
        room.page(sz, f"&ticket={filed.ticket}") as theirs,
    ):
        await asyncio.sleep(0.4)
        assert "ticket" not in theirs.newest
        assert hers.newest["presence"] == ""


# Limits


async def test_who_may_not_see_requesters_has_no_stream(room: Room) -> None:
    for token, status in (("cd_operations", 403), ("cd_calendar", 403), ("wrong", 401)):
        headers = {"Authorization": f"Bearer {token}"}
        async with room.http.get(f"{room.site.url}/desk/live", headers=headers) as answer:
            assert answer.status == status


async def test_one_page_too_many_is_refused(database: Database, clock: FakeClock) -> None:
    async with furnished(database, clock, max_streams=1) as room:
        li = room.person("li", Role.DESK)
        headers = {"Authorization": f"Bearer {li}"}
        async with room.page(li):
            async with room.http.get(f"{room.site.url}/desk/live", headers=headers) as answer:
                assert (answer.status, answer.headers["Retry-After"]) == (503, "10")
            assert room.live.health()[0].state == "degraded"
        await until(lambda: room.live.health()[0].state == "up")


async def test_a_page_is_let_go_when_its_session_is_over_or_says_less(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desklive, "RECHECK_S", 0.0)
    li, tan = room.person("li", Role.DESK), room.person("tan", Role.DESK)
    async with room.page(li) as hers, room.page(tan) as his:
        del room.site.accounts.tokens[li]
        room.person("tan", Role.DESK, "", "sz")
        room.signals.raise_(Topic.BOARD)
        await until(lambda: hers.is_over and his.is_over)


async def test_nothing_is_asked_while_nobody_looks(room: Room) -> None:
    for _ in range(3):
        room.signals.raise_(Topic.BOARD)
        await asyncio.sleep(0.15)
    assert room.reads.asked == []
    async with room.page(room.person("li", Role.DESK), "&list=1"):
        await until(lambda: "changed" in room.reads.asked)
    await asyncio.sleep(0.3)
    room.reads.asked.clear()
    room.signals.raise_(Topic.BOARD)
    await asyncio.sleep(0.4)
    assert room.reads.asked in ([], ["changed"])


async def test_a_stop_lets_the_pages_go(room: Room) -> None:
    async with room.page(room.person("li", Role.DESK)) as page:
        room.live.end_streams()
        await until(lambda: page.is_over)
        headers = {"Authorization": "Bearer cd_li"}
        async with room.http.get(f"{room.site.url}/desk/live", headers=headers) as answer:
            assert answer.status == 503


# The card of a caller


async def test_open_tickets_come_first_and_all_are_counted(room: Room) -> None:
    views, numbers = room.reads.views, []
    for _ in range(7):
        filed = await reported(room)
        room.desk.clock.advance(timedelta(days=1))
        numbers.append(filed.ticket)
    card = await views.caller_card(f"0086{AT_GZ}")
    assert card is not None
    assert (card.name, card.total, len(card.tickets)) == ("张三", len(set(numbers)), 5)
    assert await views.caller_card("anonymous") is None
    assert await views.caller_card(STRANGER) is None
    assert await views.caller_card("") is None
