"""Calling a requester by a click, on both databases: who may call whom, how often, and what is
left of it on the ticket."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import aiohttp
import pytest

from contactd.deskcalls import Clicks
from contactd.errors import PermanentFailure, TemporaryFailure
from contactd.httpd import Route
from contactd.routing.deskfile import parse
from contactd.routing.notify import SendUnknown
from contactd.routing.oncall import Duties
from contactd.signals import Signals
from contactd.store import duty
from contactd.store.callviews import CallViews
from contactd.store.engine import Database
from contactd.store.views import Views
from contactd.telephony.dialling import Dialling, Limits
from contactd.telephony.outgoing import OutgoingCall, OutgoingCalls
from contactd.tickets.contact import CallFacts, Contact, Direction, Leg, Medium, Outcome, Source
from contactd.tickets.people import Role
from contactd.tickets.states import Action, State
from contactd.web.board import CallStage
from contactd.web.calling import DeskCall
from contactd.web.callspage import CallsPage
from contactd.web.pages import Pages
from tests.fakes.clock import FakeClock
from tests.fakes.desk import AT_GZ, AT_SZ, Desk, document
from tests.fakes.site import FakeIdentity, Site, running_site

NUMBER = f"+86{AT_GZ}"


@dataclass(slots=True)
class FakeLine:
    """A PBX that notes whom it is to ring; `failure` is raised instead."""

    name: str = "pbx1"
    connected: bool = True
    failure: Exception | None = None
    rung: list[tuple[OutgoingCall, str]] = field(default_factory=list)

    async def call_out(self, call: OutgoingCall, *, phone: str, language: str, theirs: str) -> None:
        if self.failure is not None:
            raise self.failure
        self.rung.append((call, phone))


@dataclass(slots=True, kw_only=True)
class Room:
    desk: Desk
    site: Site
    http: aiohttp.ClientSession
    line: FakeLine
    calling: OutgoingCalls
    live: list[DeskCall]

    def person(
        self, name: str, role: Role = Role.ENGINEER, engineer: str = "wang", *sites: str
    ) -> None:
        self.site.accounts.tokens[f"cd_{name}"] = FakeIdentity(
            name=name, role=role, engineer=engineer, sites=frozenset(sites)
        )

    async def click(
        self, ticket: str, number: str = NUMBER, *, who: str = "wang", key: str | None = None,
        html: bool = False,
    ) -> tuple[int, str]:  # fmt: skip
        form = {"ticket": ticket, "number": number, "key": key or secrets.token_hex(8)}
        headers = {"Authorization": f"Bearer cd_{who}", "Accept-Language": "zh"}
        headers |= {"Accept": "text/html"} if html else {}
        url = f"{self.site.url}/desk/calls"
        async with self.http.post(url, data=form, headers=headers, allow_redirects=False) as answer:
            return answer.status, await answer.text()

    async def page(self, who: str = "wang", path: str = "/desk/calls?lang=zh") -> str:
        headers = {"Authorization": f"Bearer cd_{who}", "Accept": "text/html"}
        async with self.http.get(f"{self.site.url}{path}", headers=headers) as answer:
            assert answer.status == 200
            return await answer.text()

    async def report(self, number: str = AT_GZ) -> str:
        told = Contact(
            medium=Medium.WEB, external_id=secrets.token_hex(8),
            received_at=self.desk.clock.now(), from_value=number, text="网络不通",
        )  # fmt: skip
        return (await self.desk.tickets.receive(told)).ticket

    def over(self) -> None:
        """End the call that is under way."""
        ref = self.line.rung[-1][0].ref
        self.calling.feed({"Event": "Hangup", "Uniqueid": ref}, self.desk.clock.now())


@asynccontextmanager
async def furnished(
    database: Database, clock: FakeClock, per_hour: int = 30
) -> AsyncIterator[Room]:
    desk, line, calling = Desk(database, clock), FakeLine(), OutgoingCalls()
    await desk.load_file(parse(document()))
    live: list[DeskCall] = []

    async def duties() -> Duties:
        return await duty.duties(database, clock)

    def make(pages: Pages) -> list[Route]:
        dialling = Dialling(
            place=desk.tickets.place_call, lines=[line], duties=duties, calling=calling,
            limits=Limits(per_hour=per_hour), clock=clock, signals=Signals(),
        )  # fmt: skip
        views = Views(database, clock)
        page = CallsPage(
            pages=pages, look=lambda: tuple(live), reads=CallViews(database), sites=views.sites,
            names=views.names, call=Clicks(dialling), clock=clock,
        )  # fmt: skip
        return [*page.routes()]

    async with (
        running_site(make_routes=make) as site,
        aiohttp.ClientSession() as http,
    ):
        room = Room(desk=desk, site=site, http=http, line=line, calling=calling, live=live)
        room.person("wang")
        yield room


@pytest.fixture
async def room(database: Database, clock: FakeClock) -> AsyncIterator[Room]:
    async with furnished(database, clock) as room:
        yield room


async def journal(room: Room, ticket: str) -> list[tuple[str, str]]:
    found = await Views(room.desk.database, room.desk.clock).ticket(ticket)
    return [(entry.action, entry.actor) for entry in found.journal]


async def test_a_click_rings_the_own_phone_and_is_in_the_journal(room: Room) -> None:
    ticket = await room.report()
    assert (await room.click(ticket))[0] == 303
    ((call, phone),) = room.line.rung
    assert (call.ticket, call.number, call.engineer) == (ticket, NUMBER, "wang")
    duties = await duty.duties(room.desk.database, room.desk.clock)
    assert phone == duties.by_key["wang"].number
    assert ("calling.placed", "user:wang") in await journal(room, ticket)


async def test_the_same_form_twice_is_one_call_also_after_it_is_over(room: Room) -> None:
    ticket, key = await room.report(), secrets.token_hex(8)
    for _ in range(2):
        assert (await room.click(ticket, key=key))[0] == 303
    room.over()
    assert (await room.click(ticket, key=key))[0] == 303
    assert len(room.line.rung) == 1
    assert [action for action, _ in await journal(room, ticket)].count("calling.placed") == 1
    assert (await room.click(ticket))[0] == 303
    assert len(room.line.rung) == 2


async def test_one_calls_one_at_a_time_and_others_are_not_held_up(room: Room) -> None:
    ticket = await room.report()
    room.person("li", Role.ENGINEER, "li")
    await room.click(ticket)
    status, html = await room.click(ticket, html=True)
    assert status == 409
    assert "请先挂断，再重新呼叫" in html
    assert (await room.click(ticket, who="li"))[0] == 303
    room.calling.feed(
        {"Event": "Hangup", "Uniqueid": room.line.rung[0][0].ref}, room.desk.clock.now()
    )
    assert (await room.click(ticket))[0] == 303


async def test_only_so_many_an_hour(database: Database, clock: FakeClock) -> None:
    async with furnished(database, clock, per_hour=2) as room:
        ticket = await room.report()
        for wanted in (303, 303, 429):
            assert (await room.click(ticket))[0] == wanted
            room.over()
        clock.advance(timedelta(hours=1, seconds=1))
        assert (await room.click(ticket))[0] == 303


async def test_calling_can_be_switched_off(database: Database, clock: FakeClock) -> None:
    async with furnished(database, clock, per_hour=0) as room:
        status, html = await room.click(await room.report(), html=True)
        assert status == 409
        assert "hotline.calls_per_hour" in html
        assert room.line.rung == []


@pytest.mark.parametrize(
    "number", ["", "+8613911112222", "110", "95588", "+85212345678", NUMBER + "\r\nX: y", "1" * 400]
)
async def test_numbers_that_are_not_the_requester_s_are_not_called(room: Room, number: str) -> None:
    ticket = await room.report()
    assert (await room.click(ticket, number))[0] == 409
    assert room.line.rung == []
    assert "calling.placed" not in [action for action, _ in await journal(room, ticket)]


async def test_a_service_number_is_not_called_although_somebody_has_called_from_it(
    room: Room,
) -> None:
    ticket = await room.report("02096123456")
    views = CallViews(room.desk.database)
    (number,) = (await views.callee(ticket)).numbers
    status, html = await room.click(ticket, number, html=True)
    assert status == 409
    assert "hotline.call_prefixes" in html
    assert room.line.rung == []


async def test_who_has_no_phone_is_told_what_to_do(room: Room) -> None:
    ticket = await room.report()
    room.person("desk", Role.DESK, "")
    room.person("gone", Role.DESK, "nobody-of-this-key")
    for who in ("desk", "gone"):
        status, html = await room.click(ticket, who=who, html=True)
        assert status == 409
        assert "管理员" in html
    assert room.line.rung == []


async def test_a_ticket_of_another_site_is_as_if_it_were_not_there(room: Room) -> None:
    ticket, other = await room.report(), await room.report(AT_SZ)
    room.person("gz", Role.ENGINEER, "wang", "gz")
    assert (await room.click(other, f"+86{AT_SZ[1:]}", who="gz"))[0] == 404
    assert (await room.click("26112099999", who="gz"))[0] == 404
    assert (await room.click(ticket, who="gz"))[0] == 303


async def test_who_only_looks_cannot_call(room: Room) -> None:
    ticket = await room.report()
    for role in (Role.MANAGER, Role.QUALITY, Role.OPERATIONS):
        room.person("looks", role, "wang")
        assert (await room.click(ticket, who="looks"))[0] == 403
    assert room.line.rung == []


@pytest.mark.parametrize(
    ("failure", "status"),
    [(TemporaryFailure("away"), 503), (PermanentFailure("refused"), 503), (SendUnknown("?"), 303)],
)
async def test_a_pbx_that_cannot_is_said_and_frees_the_line(
    room: Room, failure: Exception, status: int
) -> None:
    ticket = await room.report()
    room.line.failure = failure
    assert (await room.click(ticket))[0] == status
    room.line.failure = None
    # It may ring: then another one is not begun.
    assert (await room.click(ticket))[0] == (409 if status == 303 else 303)


async def test_no_pbx_is_there(room: Room) -> None:
    room.line.connected = False
    assert (await room.click(await room.report()))[0] == 503


def called(room: Room, ticket: str, outcome: Outcome, *, final: bool) -> Contact:
    now = room.desk.clock.now()
    talks = outcome is Outcome.ANSWERED
    legs = (Leg(engineer="wang", answered_at=now),) if talks else ()
    return Contact(
        medium=Medium.CALL, external_id=f"out-{ticket}-" + "0" * 24, received_at=now,
        direction=Direction.OUT, to_value=NUMBER, outcome=outcome, ticket=ticket,
        source=Source.REPLAY if final else Source.LIVE,
        call=CallFacts(
            pbx="pbx1", did="", final=final, answered_at=now if talks else None, legs=legs,
            ended_at=now if final else None, talked=timedelta(seconds=75) if talks else None,
        ),
    )  # fmt: skip


async def test_an_answered_call_is_an_answer_and_a_failed_one_asks_nobody_to_call_back(
    room: Room,
) -> None:
    ticket = await room.report()
    for final in (False, True):
        await room.desk.tickets.receive(called(room, ticket, Outcome.ANSWERED, final=final))
    actions = [action for action, _ in await journal(room, ticket)]
    assert actions == [
        "opened", "calling.dialled", "call.answered", "acknowledged", "calling.ended",
    ]  # fmt: skip
    found = await Views(room.desk.database, room.desk.clock).ticket(ticket)
    assert (found.ticket.state, found.ticket.engineer) == (State.IN_PROGRESS, "wang")
    assert [contact.direction for contact in found.contacts] == [Direction.IN, Direction.OUT]
    other = await room.report(AT_SZ)
    await room.desk.tickets.receive(called(room, other, Outcome.NO_ANSWER, final=True))
    assert [action for action, _ in await journal(room, other)] == [
        "opened", "calling.dialled", "calling.ended",
    ]  # fmt: skip


async def test_a_call_after_the_end_stays_on_its_ticket_and_opens_none(room: Room) -> None:
    ticket = await room.report()
    await room.desk.tickets.act(ticket, Action.CANCEL, actor="user:wang", note="")
    filed = await room.desk.tickets.receive(called(room, ticket, Outcome.BUSY, final=True))
    assert (filed.ticket, filed.opened) == (ticket, False)


# The page


async def test_the_page_shows_the_calls_of_its_reader_s_sites(room: Room) -> None:
    now, ticket = room.desk.clock.now(), await room.report()
    room.live += [
        DeskCall(call_id="1", stage=CallStage.OFFERED, since=now, arrived_at=now, caller=AT_GZ,
                 name="<b>x", site="gz", ticket=ticket, offered=("wang",)),
        DeskCall(call_id="2", stage=CallStage.QUEUED, since=now, arrived_at=now, caller=AT_SZ,
                 site="sz"),
    ]  # fmt: skip
    await room.desk.tickets.receive(called(room, ticket, Outcome.ANSWERED, final=True))
    room.person("sz", Role.DESK, "", "sz")
    for path in ("/desk/calls?lang=zh", "/desk/calls/rows?lang=zh"):
        html = await room.page(path=path)
        for shown in (AT_GZ, AT_SZ, "<bdi>wang</bdi>", ticket, "1:15", "&lt;b&gt;x", "呼叫报修人"):
            assert shown in html, shown
        theirs = await room.page("sz", path)
        assert AT_SZ in theirs
        assert AT_GZ not in theirs
        assert ticket not in theirs


async def test_an_empty_page_says_what_it_is_for(room: Room) -> None:
    html = await room.page()
    assert "您的电话响起时" in html
    assert "七天内没有来电" in html
