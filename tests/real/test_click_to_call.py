"""A requester is called by a click: through a real PBX, the engineer's phone first."""

import asyncio
import secrets
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio

from contactd.lab.network import Leg
from contactd.tickets.contact import Direction, Medium, Outcome
from contactd.web.resources import ContactItem
from tests.fakes.waiting import WITHIN_S
from tests.real.desk import Desk, Setup, eventually

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

SETUP = Setup(tiers={"gz": [["wang"], ["li"]]}, options={"OFFER_KEY_WAIT": "2", "MENU_WAIT": "2"})
PASSWORD = "correct horse battery"
TAKES = "w0.5-a-w1-d1-w600"  # picks up, presses 1, stays


class Clicker:
    """Somebody who is signed in."""

    def __init__(self, desk: Desk, http: aiohttp.ClientSession) -> None:
        self.desk = desk
        self._http = http

    async def post(self, path: str, **form: str) -> int:
        url = self.desk.lab.daemon.url
        headers = {"Origin": url, "Accept": "application/json"}
        async with self._http.post(
            url + path, data=form, headers=headers, allow_redirects=False
        ) as answer:
            return answer.status

    async def click(self, ticket: str, number: str, key: str = "") -> int:
        key = key or secrets.token_hex(8)
        return await self.post("/desk/calls", ticket=ticket, number=number, key=key)


@pytest_asyncio.fixture(loop_scope="module", name="wang")
async def _wang(desk: Desk) -> AsyncIterator[Clicker]:
    listed = await desk.lab.daemon.run("user", "list")
    if "wang" not in listed:
        who = ("--name", "wang", "--role", "engineer", "--engineer", "wang")
        await desk.lab.daemon.run("user", "add", *who, said=f"{PASSWORD}\n")
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(cookie_jar=jar) as http:
        wang = Clicker(desk, http)
        assert await wang.post("/login", name="wang", password=PASSWORD) == 303
        yield wang


async def called(desk: Desk, ticket: str, *, number: int = 1) -> ContactItem:
    """Return the call on a ticket that the desk has made, once its records are filed."""

    async def final() -> ContactItem | None:
        found = [
            each
            for each in (await desk.ticket(ticket)).contacts
            if each.medium is Medium.CALL and each.direction is Direction.OUT
        ]
        assert len(found) <= number, found
        done = [each for each in found if each.call is not None and each.call.final]
        return done[-1] if len(done) == number else None

    return await eventually(final, WITHIN_S, f"call {number} of {ticket} is on it")


async def ring_of(desk: Desk, number: str, since: float) -> Leg:
    """Return the ring of a requester's phone, in the carrier's words for the number."""

    async def rings() -> Leg | None:
        found = [r for r in desk.lab.network.rings if r.number == number and r.started >= since]
        return found[-1] if found else None

    return await eventually(rings, WITHIN_S, f"{number} rings")


def dialled(desk: Desk, ticket: str) -> int:
    """Return how often the PBX was told to call from a ticket."""
    rows = desk.lab.pbx.cel_path.read_text(encoding="utf-8", errors="replace").splitlines()
    return len([row for row in rows if f'"CHAN_START","","out-{ticket}' in row and ";2" not in row])


async def test_the_engineer_is_rung_then_the_requester_and_the_ticket_has_the_call(
    desk: Desk, wang: Clicker
) -> None:
    requester = "13911110001"
    ticket = await desk.open_ticket(requester)
    await desk.phone("wang", TAKES)
    await desk.lab.network.phone(requester, "w1-a-p9-h")
    assert await wang.click(ticket, f"+86{requester}") == 303
    first = await desk.ring("wang", None)
    theirs = await ring_of(desk, requester, first.started)
    assert theirs.answered_at is None or theirs.started > first.started
    contact = await called(desk, ticket)
    assert (contact.outcome, contact.to) == (Outcome.ANSWERED, f"+86{requester}")
    assert contact.call is not None
    assert [leg.engineer for leg in contact.call.legs] == ["wang"]
    assert contact.call.talked_s is not None
    assert 0 < contact.call.talked_s < 12
    found = await desk.ticket(ticket)
    actions = [(entry.action, entry.actor) for entry in found.journal]
    assert ("calling.placed", "user:wang") in actions
    assert ("call.answered", "engineer:wang") in actions
    assert ("acknowledged", "engineer:wang") in actions
    assert not [action for action, _ in actions if action in ("contact.added", "call.ended")]
    ledger = await desk.ledger()
    assert (ledger.missing, ledger.extra) == ((), ())

    async def kept() -> bool:
        calls = (await desk.ticket(ticket)).contacts
        return any(a.kind == "recording" for call in calls for a in call.attachments)

    await eventually(kept, WITHIN_S, "the recording is on the ticket")


async def test_nobody_picks_up_or_the_line_is_busy(desk: Desk, wang: Clicker) -> None:
    requester = "13911110002"
    ticket = await desk.open_ticket(requester)
    await desk.phone("wang", TAKES)
    await desk.lab.network.phone(requester, "b")
    assert await wang.click(ticket, f"+86{requester}") == 303
    await desk.ring("wang", None)  # or the next test would take this ring for its own
    contact = await called(desk, ticket)
    assert contact.outcome is Outcome.BUSY
    assert contact.call is not None
    assert contact.call.answered_at is None
    actions = [entry.action for entry in (await desk.ticket(ticket)).journal]
    assert "call.answered" not in actions
    assert "call.ended" not in actions, "nobody has to call back whom we did not reach"


async def test_a_phone_that_is_not_picked_up_calls_nobody(desk: Desk, wang: Clicker) -> None:
    requester = "13911110003"
    ticket = await desk.open_ticket(requester)
    await desk.phone("wang", "w0.5-a-w600")  # picks up, but no key: a machine
    since = len(desk.lab.network.rings)
    assert await wang.click(ticket, f"+86{requester}") == 303
    ring = await desk.ring("wang", None)
    await ring.ended(40)
    await asyncio.sleep(3)
    assert requester not in [ring.number for ring in desk.lab.network.rings[since:]]
    assert len((await desk.ticket(ticket)).contacts) == 1


async def test_one_click_is_one_call_and_one_call_at_a_time(desk: Desk, wang: Clicker) -> None:
    requester = "13911110004"
    ticket, key = await desk.open_ticket(requester), secrets.token_hex(8)
    await desk.phone("wang", "w3-a-w600")
    assert await wang.click(ticket, f"+86{requester}", key) == 303
    assert await wang.click(ticket, f"+86{requester}", key) == 303
    assert await wang.click(ticket, f"+86{requester}") == 409
    ring = await desk.ring("wang", None)
    await desk.lab.network.hang_up_all()
    await ring.ended(WITHIN_S)
    await asyncio.sleep(1)
    assert dialled(desk, ticket) == 1
    assert await wang.click(ticket, f"+86{requester}", key) == 303, "made before: nothing rings"
    await asyncio.sleep(2)
    assert dialled(desk, ticket) == 1


async def test_only_numbers_of_the_requester_are_called(desk: Desk, wang: Clicker) -> None:
    ticket = await desk.open_ticket("13911110005")
    other = await desk.open_ticket("02096123456")  # a service number is somebody's, too
    assert await wang.click(ticket, "+8613911110001") == 409
    assert await wang.click(ticket, "") == 409
    assert await wang.click(other, "02096123456") == 409
    await asyncio.sleep(1)
    assert (dialled(desk, ticket), dialled(desk, other)) == (0, 0)
    assert await wang.click("26112099999", "+8613911110005") == 404


async def test_the_call_goes_on_and_is_kept_although_contactd_dies(
    desk: Desk, wang: Clicker
) -> None:
    requester = "13911110006"
    ticket = await desk.open_ticket(requester)
    await desk.phone("wang", "w0.5-a-w4-d1-w600")
    await desk.lab.network.phone(requester, "w1-a-p10-h")
    assert await wang.click(ticket, f"+86{requester}") == 303
    ring = await desk.ring("wang", None)
    await ring.answered(WITHIN_S)
    await desk.lab.daemon.kill()
    theirs = await ring_of(desk, requester, ring.started)
    await theirs.ended(WITHIN_S)
    await desk.lab.daemon.start()
    contact = await called(desk, ticket)
    assert contact.outcome is Outcome.ANSWERED
    assert contact.call is not None
    assert [leg.engineer for leg in contact.call.legs] == ["wang"]
    ledger = await desk.ledger()
    assert (ledger.missing, ledger.extra) == ((), ())
