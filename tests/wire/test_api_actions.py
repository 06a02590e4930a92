"""What people of the desk do to tickets through the API, and what a ticket then shows."""

import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sqlalchemy import insert, select

from contactd.errors import PermanentFailure, TemporaryFailure
from contactd.routing.notify import REQUESTER, Reason, SendState
from contactd.routing.oncall import Duties
from contactd.signals import Signals
from contactd.store.blobs import Blobs
from contactd.store.engine import Database
from contactd.store.schema import dispatches, notifications
from contactd.store.terms import LastTerms
from contactd.store.texts import Texts
from contactd.store.views import Views
from contactd.tickets.people import Role
from contactd.tickets.service import TicketService
from contactd.web.access import PERSONAL
from contactd.web.api import Api
from contactd.web.endpoints import PREFIX
from contactd.web.live import Live
from tests.fakes.clock import FakeClock
from tests.fakes.site import running_site
from tests.fakes.texting import FakeWriting
from tests.wire.test_tickets import START, call, desk, rows

__all__ = ["desk"]  # the fixture


class Ticket:
    """A new ticket of the VIP's, asked through the API."""

    def __init__(self, http: aiohttp.ClientSession, url: str, number: str, ticket_id: int) -> None:
        self.http = http
        self.url = f"{url}{PREFIX}/tickets/{number}"
        self.number = number
        self.id = ticket_id

    async def try_to(
        self, action: str, role: Role = Role.DESK, **body: Any
    ) -> tuple[int, dict[str, Any]]:
        headers = {"Authorization": f"Bearer cd_{role}"}
        url = f"{self.url}/actions/{action}"
        async with self.http.post(url, json=body, headers=headers) as answer:
            return answer.status, json.loads(await answer.read())

    async def do(self, action: str, role: Role = Role.DESK, **body: Any) -> dict[str, Any]:
        status, ticket = await self.try_to(action, role, **body)
        assert status == 200, ticket
        return ticket

    async def preview(self, words: Any, role: Role = Role.DESK) -> tuple[int, dict[str, Any]]:
        headers = {"Authorization": f"Bearer cd_{role}"}
        url, body = f"{self.url}/text-preview", {"words": words}
        async with self.http.post(url, json=body, headers=headers) as answer:
            return answer.status, json.loads(await answer.read())

    async def read(self, role: Role = Role.DESK) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer cd_{role}"}
        async with self.http.get(self.url, headers=headers) as answer:
            ticket: dict[str, Any] = json.loads(await answer.read())
        return ticket


@pytest.fixture
def writing() -> FakeWriting:
    return FakeWriting()


@pytest.fixture
async def ticket(
    database: Database,
    clock: FakeClock,
    tickets: TicketService,
    tmp_path: Path,
    desk: None,
    writing: FakeWriting,
) -> AsyncIterator[Ticket]:
    filed = await tickets.receive(call(1, "13700000001"))

    async def nobody(at: datetime | None) -> Duties:
        raise AssertionError("nobody asked who is on duty")

    def make_api(live: Live) -> Api:
        lengths = {"answer": timedelta(minutes=30), "remote": timedelta(hours=2)}
        return Api(
            views=Views(database, clock),
            tickets=tickets,
            blobs=Blobs(tmp_path / "blobs"),
            duties=nobody,
            live=live,
            clock=clock,
            zone="Asia/Shanghai",
            terms=LastTerms(database, **lengths),
            writing=writing.writing,
            database=database,
            signals=Signals(),
        )

    async with running_site(make_api=make_api) as site, aiohttp.ClientSession() as http:
        yield Ticket(http, site.url, filed.ticket, filed.ticket_id)


def last(ticket: dict[str, Any]) -> tuple[str, str, Any]:
    entry = ticket["journal"][-1]
    return entry["actor"], entry["action"], entry["body"]


async def test_a_ticket_is_classified_and_shows_it(ticket: Ticket) -> None:
    new = await ticket.read()
    assert [new[name] for name in ("category", "system", "team", "dispatches", "messages")] == [
        "", "", "", [], [],
    ]  # fmt: skip
    shown = await ticket.do("classify", impact=1, category="network", system="ERP", title="断网")
    assert [shown[name] for name in ("priority", "impact", "category", "system", "title")] == [
        "P1", 1, "network", "ERP", "断网",
    ]  # fmt: skip
    assert last(shown)[:2] == ("user:oa-desk", "priority.changed")
    assert (await ticket.do("assign_team", team="network"))["team"] == "network"


async def test_a_ticket_is_taken_once_and_handed_over(ticket: Ticket) -> None:
    shown = await ticket.do("take", engineer="wang")
    assert (shown["state"], shown["assignee"]["key"]) == ("in_progress", "wang")
    assert last(shown)[:2] == ("user:oa-desk", "acknowledged")
    assert (await ticket.try_to("take", engineer="li"))[0] == 409
    shown = await ticket.do("hand_over", engineer="li", note="夜班")
    assert shown["assignee"] == {"key": "li", "name": "李娜"}
    assert last(shown)[2] == {"engineer": "li", "before": "wang", "note": "夜班"}


async def test_a_call_back_stops_the_clock_at_the_instant_at_which_it_was(
    ticket: Ticket, clock: FakeClock
) -> None:
    clock.advance(timedelta(minutes=40))
    at = START + timedelta(minutes=10)
    shown = await ticket.do("answered", how="call_back", at=at.isoformat(), engineer="wang")
    assert shown["assignee"]["key"] == "wang"
    (answer,) = [each for each in shown["clocks"] if each["metric"] == "answer"]
    assert answer["state"] == "stopped"
    assert datetime.fromisoformat(answer["stopped_at"]) == at
    status, problem = await ticket.try_to("answered", how="reply", at="2026-11-20T00:00:00Z")
    assert status == 422
    assert "opening" in problem["detail"]
    assert last(await ticket.do("updated", note="配件明天到"))[2] == {"note": "配件明天到"}


async def test_the_requesters_word_closes_or_reopens(ticket: Ticket) -> None:
    await ticket.do("take", engineer="wang")
    assert (await ticket.try_to("confirm", solved=True))[0] == 409
    await ticket.do("resolve")
    shown = await ticket.do("confirm", solved=False, note="还是不行")
    assert shown["state"] == "in_progress"
    assert last(shown)[1:] == ("reopened", {"how": "web", "note": "还是不行"})
    await ticket.do("resolve")
    assert (await ticket.do("confirm", solved=True))["state"] == "closed"


async def test_only_who_decides_may_change_what_is_promised(ticket: Ticket) -> None:
    assert (await ticket.try_to("set_contract", contract="standard"))[0] == 403
    shown = await ticket.do("set_contract", Role.SUPERVISOR, contract="standard")
    assert last(shown)[1:] == ("contract.changed", {"contract": "standard"})
    assert (await ticket.try_to("set_contract", Role.ADMIN, contract="gold"))[0] == 422


async def test_a_dispatch_is_shown_without_its_code_and_the_code_proves_the_arrival(
    ticket: Ticket, database: Database
) -> None:
    await ticket.do("dispatch", engineer="wang")
    (row,) = await rows(database, select(dispatches))
    wrong = f"{(int(row['code']) + 1) % 10_000:04}"
    await ticket.do("dispatch_step", step="set_out", dispatch=1)
    status, problem = await ticket.try_to("dispatch_step", step="arrive", code=wrong)
    assert status == 422
    assert "4 more" in problem["detail"]
    shown = await ticket.do("dispatch_step", step="arrive", code=row["code"])
    (visit,) = shown["dispatches"]
    assert visit.pop("updated_at")
    assert visit == {
        "number": 1, "engineer": {"key": "wang", "name": "王伟"}, "state": "arrived",
        "proved": True,
    }  # fmt: skip
    assert "code" not in json.dumps(shown["dispatches"])
    assert not any("code" in entry["body"] for entry in shown["journal"])
    assert (await ticket.try_to("dispatch_step", step="decline"))[0] == 409
    assert (await ticket.try_to("dispatch_step", step="finish", dispatch=7))[0] == 404


async def sent(
    ticket: Ticket,
    database: Database,
    clock: FakeClock,
    *told: tuple[str, str, str, Reason, SendState],
) -> None:
    row = {"ticket_id": ticket.id, "created_at": clock.now(), "updated_at": clock.now()}
    async with database.writing() as connection:
        await connection.execute(
            insert(notifications),
            [
                {
                    **row, "dedup_key": f"notify-{n}", "client_ref": str(n), "recipient": recipient,
                    "medium": medium, "address": address, "reason": reason.value,
                    "state": state.value, "facts": {"code": "4711"},
                }
                for n, (recipient, medium, address, reason, state) in enumerate(told)
            ],
        )  # fmt: skip


async def test_what_was_sent_is_shown_without_its_words_and_addresses(
    ticket: Ticket, database: Database, clock: FakeClock
) -> None:
    await sent(
        ticket, database, clock,
        ("wang", "call", "13800000001", Reason.NEW, SendState.NOT_REACHED),
        ("floor", "call", "8000", Reason.NEW, SendState.TAKEN),
        (REQUESTER, "text", "+8613700000001", Reason.CODE, SendState.SENT),
    )  # fmt: skip
    messages = (await ticket.read())["messages"]
    assert [
        (each["recipient"], each["name"], each["medium"], each["reason"], each["state"])
        for each in messages
    ] == [
        ("wang", "王伟", "call", "new", "not_reached"),
        ("floor", "", "call", "new", "taken"),
        ("requester", "陈总", "text", "code", "sent"),
    ]
    for secret in ("4711", "13800000001", "8000"):
        assert secret not in json.dumps(messages)
    assert [each["text"] for each in messages] == [None] * 3


@pytest.mark.parametrize("role", sorted(PERSONAL))
async def test_where_a_message_went_is_told_to_few(
    ticket: Ticket, database: Database, clock: FakeClock, role: Role
) -> None:
    told = ("wang", "call", "+8613800000001", Reason.NEW, SendState.SENT)
    await sent(ticket, database, clock, told)
    (message,) = (await ticket.read(role))["messages"]
    few = role in (Role.SUPERVISOR, Role.ADMIN)
    assert message["address"] == ("+8613800000001" if few else None)


async def test_how_far_a_text_has_come_is_told(
    ticket: Ticket, database: Database, clock: FakeClock
) -> None:
    texts = Texts(database, clock)
    told = (REQUESTER, "text", "+8613700000001", Reason.SAID, SendState.SENT)
    await sent(ticket, database, clock, told)
    clock.advance(timedelta(seconds=7))
    await texts.handing(
        ref="0", gateway="twilio", number="+8613700000001", body="secret words", segments=2
    )
    expected = {
        "gateway": "twilio", "segments": 2, "delivery": "", "error": "", "trouble": "",
        "at": (START + timedelta(seconds=7)).isoformat().replace("+00:00", "Z"),
    }  # fmt: skip
    (message,) = (await ticket.read())["messages"]
    assert message["text"] == expected
    assert "secret words" not in json.dumps(message)
    await texts.reported(
        gateway="twilio", ref="0", message_id="", delivery="failed", error="30003", after=[]
    )
    (message,) = (await ticket.read())["messages"]
    trouble = "the telephone is off or out of reach: try again later, or call"
    failed = {"delivery": "failed", "error": "30003", "trouble": trouble}
    assert message["text"] == expected | failed


async def test_a_text_to_the_requester_is_previewed_and_sent(
    ticket: Ticket, writing: FakeWriting
) -> None:
    status, shown = await ticket.preview("明天上午十点到")
    assert status == 200
    text = f"【服务台】工单{ticket.number}：明天上午十点到。"
    assert shown.pop("text").startswith(text)
    assert shown.pop("left") in range(1, 70)
    assert shown == {
        "gateway": "twilio", "encoding": "UCS-2", "segments": 1, "price": 0.045, "cost": 0.045,
        "currency": "CNY",
    }  # fmt: skip
    assert writing.written == {}
    shown = await ticket.do("text", words=" 明天上午十点到\r\n")
    assert shown["number"] == ticket.number
    sent = (ticket.number, "user:oa-desk", "明天上午十点到")
    assert [*writing.written.values()] == [sent]


async def test_a_text_with_a_key_of_its_own_is_sent_once(
    ticket: Ticket, writing: FakeWriting
) -> None:
    for _ in range(2):
        await ticket.do("text", words="一", key="0" * 16)
    assert len(writing.written) == 1
    await ticket.do("text", words="二", key="0" * 16)
    assert len(writing.written) == 2
    for _ in range(2):
        await ticket.do("text", words="一")
    assert len(writing.written) == 4


async def test_a_text_that_cannot_be_written_is_refused(
    ticket: Ticket, writing: FakeWriting
) -> None:
    writing.failure = PermanentFailure("the requester has no number")
    for status, problem in (await ticket.preview("一"), await ticket.try_to("text", words="一")):
        assert status == 422
        assert problem["detail"] == "the requester has no number"
    writing.failure = TemporaryFailure("the database is away")
    assert (await ticket.try_to("text", words="一"))[0] == 503
    assert writing.written == {}


@pytest.mark.parametrize("words", ["", " \n", "x" * 501, None, "\x00"])
async def test_a_text_without_words_or_with_too_many_is_refused(ticket: Ticket, words: Any) -> None:
    assert (await ticket.preview(words))[0] == 422
    assert (await ticket.try_to("text", words=words))[0] == 422


@pytest.mark.parametrize(
    ("action", "body", "status"),
    [
        ("take", {}, 422), ("take", {"engineer": "chen"}, 422), ("take", {"engineer": ""}, 422),
        ("classify", {"impact": 4}, 422), ("classify", {"category": "weather"}, 422),
        ("classify", {"colour": "red"}, 422), ("classify", {"title": "x" * 201}, 422),
        ("answered", {"how": "telepathy"}, 422),
        ("answered", {"how": "reply", "at": "2026-11-20T10:00:00"}, 422),
        ("updated", {"note": ""}, 422), ("hand_over", {"engineer": "nobody"}, 422),
        ("assign_team", {"team": "x" * 33}, 422), ("confirm", {"solved": "perhaps"}, 422),
        ("dispatch", {"engineer": "nobody"}, 422), ("dispatch_step", {"step": "fly"}, 422),
        ("dispatch_step", {"step": "arrive", "code": "12345"}, 422),
        ("dispatch_step", {"step": "arrive", "code": "١٢٣٤"}, 422),
        ("dispatch_step", {"step": "accept", "dispatch": 2**70}, 422),
        ("dispatch_step", {"step": "accept"}, 404), ("dance", {}, 404),
        ("reopen", {}, 409),
    ],
)  # fmt: skip
async def test_what_makes_no_sense_is_refused_and_changes_nothing(
    ticket: Ticket, action: str, body: dict[str, Any], status: int
) -> None:
    found, problem = await ticket.try_to(action, **body)
    assert found == status, problem
    assert len((await ticket.read())["journal"]) == 1


async def test_nobody_acts_who_only_reads(ticket: Ticket) -> None:
    for role in (Role.MANAGER, Role.QUALITY, Role.OPERATIONS):
        for action in ("take", "classify", "dispatch", "confirm", "text"):
            assert (await ticket.try_to(action, role))[0] == 403
        assert (await ticket.preview("一", role))[0] == 403
