"""Nobody answers: voicemail, and people on duty are rung until one of them takes the ticket."""

import io
import wave

import pytest

from contactd.lab.network import Leg
from contactd.tickets.contact import Outcome
from contactd.web.resources import TicketDetail
from tests.fakes.waiting import WITHIN_S
from tests.real.desk import Desk, Setup, eventually

SETUP = Setup(
    tiers={"gz": [["wang"], ["zhao"]], "sz": [["chen"]]},
    # The wait ends between two rounds of ringing only.
    options={"GREETING": "no", "OFFER_RING": "3", "QUEUE_WAIT": "3"},
)
TAKES = "w0.3-a-w1-d1-w5"

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]


async def test_a_voicemail_is_passed_on_until_somebody_takes_the_ticket(desk: Desk) -> None:
    # Three seconds in the queue, twelve of prompt, the beep; a second, then three of message.
    call = await desk.call("w16.5-p3-h")
    ring = await desk.ring("wang", call)
    await ring.ended(WITHIN_S)
    await desk.phone("wang", "w0.3-a-w1-d2-w5")
    await desk.phone("zhao", TAKES)

    contact, message = await desk.kept(call, "voicemail", 30)
    first = await desk.ring("wang", None, 15)
    second = await desk.ring("zhao", None, 15)
    ticket = await _taken(desk, contact.ticket)

    assert desk.rang(call) == ["wang"]
    assert first.started_at < second.started_at
    assert contact.outcome is Outcome.VOICEMAIL
    assert contact.call is not None
    assert (contact.call.stage, contact.call.end_reason) == ("voicemail", "EXITWITHTIMEOUT")
    assert contact.call.waited_s == pytest.approx(3, abs=1.1)
    assert (contact.call.answered_at, contact.call.talked_s) == (None, None)
    assert [one.kind for one in contact.attachments] == ["voicemail"]
    with wave.open(io.BytesIO((await desk.play(message)).wav)) as sound:
        assert sound.getnframes() / sound.getframerate() == pytest.approx(4.3, abs=1.2)
    assert (ticket.state, ticket.site) == ("in_progress", "gz")
    assert ticket.assignee is not None
    assert ticket.assignee.key == "zhao"
    assert _journal(ticket) == [
        ("requester", "opened", None),
        ("system", "call.ended", None),
        ("system", "escalation.started", None),
        ("system", "escalation.told", ["wang"]),
        ("engineer:wang", "escalation.passed", None),
        ("system", "escalation.told", ["zhao"]),
        ("engineer:zhao", "escalation.acknowledged", None),
        ("engineer:zhao", "acknowledged", "zhao"),
    ]
    await second.ended(WITHIN_S)
    await _nobody_else_is_rung(desk, [first, second])


async def test_who_waited_in_vain_and_said_nothing_is_called_back_too(desk: Desk) -> None:
    call = await desk.call("w5-h", site="sz")
    ring = await desk.ring("chen", call)
    await ring.ended(WITHIN_S)
    await desk.phone("chen", TAKES)

    contact = await desk.contact(call, 15)
    page = await desk.ring("chen", None, 15)
    ticket = await _taken(desk, contact.ticket)

    assert contact.outcome is Outcome.ABANDONED_VOICEMAIL
    assert contact.attachments == ()
    assert ticket.assignee is not None
    assert ticket.assignee.key == "chen"
    assert ("system", "escalation.told", ["chen"]) in _journal(ticket)
    await page.ended(WITHIN_S)


async def _taken(desk: Desk, number: str) -> TicketDetail:
    async def taken() -> TicketDetail | None:
        ticket = await desk.ticket(number)
        return ticket if ticket.assignee else None

    return await eventually(taken, 10, f"somebody takes ticket {number}")


def _journal(ticket: TicketDetail) -> list[tuple[str, str, object]]:
    return [
        (one.actor, one.action, one.body.get("engineer") or one.body.get("people"))
        for one in ticket.journal
    ]


async def _nobody_else_is_rung(desk: Desk, pages: list[Leg]) -> None:
    last = max(page.started_at for page in pages)
    assert [one for one in desk.lab.network.rings if one.started_at > last] == []
