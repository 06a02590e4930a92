"""One engineer and more callers than that: who comes first, and who is never rung twice."""

import asyncio
from itertools import pairwise

import pytest

from contactd.lab.network import Leg
from contactd.tickets.contact import Outcome
from tests.fakes.waiting import WITHIN_S
from tests.real.desk import Desk, Setup

VIP = "13900000001"
SETUP = Setup(
    tiers={"gz": [["wang"]], "sz": [["wang"]], "fs": [["he"]], "zq": [["liang"]]},
    requesters=f"""
[[people]]
key = "boss"
name = "梁总"
site = "gz"
vip = true
numbers = ["{VIP}"]
""",
    options={"GREETING": "no", "OFFER_RING": "20", "QUEUE_WAIT": "90"},
)
TAKES = "w0.3-a-w1-d1-w2-h"  # picks up, presses 1 a second later, talks for two

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]


async def test_a_vip_who_comes_later_is_answered_earlier(desk: Desk) -> None:
    await desk.phone("wang", "w0.3-a-w1-d1-w3-h")
    talking = await desk.call("w60")
    ring = await desk.ring("wang", talking)
    await ring.answered(WITHIN_S)
    staff = await desk.call("w60")
    await staff.answered(WITHIN_S)
    vip = await desk.call("w60", caller=VIP)
    await vip.answered(WITHIN_S)
    await desk.phone("wang", "w0.3-a-w3.8-d1-w1-h")  # listens to who calls before pressing 1

    first, second, third = [await desk.contact(call, 40) for call in (talking, vip, staff)]

    times = [one.call.answered_at for one in (first, second, third) if one.call is not None]
    assert [one.outcome for one in (first, second, third)] == [Outcome.ANSWERED] * 3
    assert times == sorted(times, key=lambda at: at.timestamp() if at else 0.0)
    assert [ring.caller for ring in _rings_of_wang(desk, [talking, staff, vip])] == [
        talking.caller, vip.caller, staff.caller
    ]  # fmt: skip
    ticket = await desk.ticket(second.ticket)
    assert (ticket.requester.name, ticket.requester.vip) == ("梁总", True)
    assert "VIP" in ticket.priority_reason
    offered = [sound for sound, _ in desk.heard_by_engineers(second)]
    assert offered[:3] == ["contactd/offer-call-from", "contactd/site-gz", "contactd/offer-vip"]


@pytest.mark.parametrize("sites", [("gz", "gz"), ("gz", "sz")], ids=["one queue", "two queues"])
async def test_two_calls_at_once_ring_one_engineer_one_after_the_other(
    desk: Desk, sites: tuple[str, str]
) -> None:
    await desk.phone("wang", TAKES)
    calls = await asyncio.gather(*(desk.call("w60", site=site) for site in sites))

    contacts = [await desk.contact(call, 30) for call in calls]

    assert [one.outcome for one in contacts] == [Outcome.ANSWERED] * 2
    assert len({one.ticket for one in contacts}) == 2
    rings = _rings_of_wang(desk, calls)
    assert sorted(ring.caller for ring in rings) == sorted(call.caller for call in calls)
    for earlier, later in pairwise(rings):
        assert earlier.ended_at is not None
        assert later.started_at > earlier.ended_at


async def test_an_engineer_sends_the_caller_on_to_somebody_else(desk: Desk) -> None:
    expert = "13800010099"
    await desk.lab.network.phone(expert, "w0.5-a-w2-h")
    await desk.phone("he", f"w0.3-a-w1-d1-w1.5-d##-w1.5-d{expert}-w600")
    call = await desk.call("w60", site="fs")
    ring = await desk.ring("he", call)

    contact = await desk.contact(call, 30)

    assert desk.rang(call) == ["he", expert]
    assert contact.call is not None
    assert contact.outcome is Outcome.ANSWERED
    assert [leg.engineer for leg in contact.call.legs] == ["he", expert]
    assert contact.call.end_reason == "BLINDTRANSFER"
    he, other = contact.call.legs
    assert he.ended_at is not None
    assert other.ended_at is not None
    assert he.ended_at < other.answered_at
    talked = (he.ended_at - he.answered_at) + (other.ended_at - other.answered_at)
    assert contact.call.talked_s == pytest.approx(talked.total_seconds(), abs=0.2)
    assert (other.ended_at - other.answered_at).total_seconds() == pytest.approx(2, abs=0.4)
    assert await ring.ended(1) is not None  # he is free again
    ticket = await desk.ticket(contact.ticket)
    assert ticket.assignee is not None
    assert ticket.assignee.key == "he"
    assert len(ticket.contacts) == 1


async def test_a_caller_who_leaves_while_the_engineer_is_asked_was_not_answered(
    desk: Desk,
) -> None:
    await desk.phone("liang", "w0.3-a-w3-d1-w600")
    call = await desk.call("w2-h", site="zq")
    ring = await desk.ring("liang", call)
    await ring.ended(WITHIN_S)  # the engineer is told and let go

    contact = await desk.contact(call)
    assert contact.outcome is Outcome.ABANDONED_QUEUE
    assert contact.call is not None
    assert (contact.call.answered_at, contact.call.legs) == (None, ())
    assert contact.call.end_reason == "ABANDON"
    assert desk.heard_by_engineers(contact)[-1] == ("contactd/offer-gone", "zh")
    ticket = await desk.ticket(contact.ticket)
    assert (ticket.state, ticket.assignee) == ("new", None)
    assert ring.answered_at is not None
    assert call.ended_at is not None
    assert ring.answered_at < call.ended_at  # in the middle of the question; 1 comes later


def _rings_of_wang(desk: Desk, calls: list[Leg]) -> list[Leg]:
    rings = [ring for call in calls for ring in desk.rings(call)]
    assert {desk.engineer(ring) for ring in rings} == {"wang"}
    return sorted(rings, key=lambda ring: ring.started_at)
