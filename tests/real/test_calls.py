"""Calls as callers know them: notice, greeting, menu, a person, or giving up somewhere before."""

import asyncio
import io
import wave
from array import array
from dataclasses import dataclass

import pytest
import pytest_asyncio

from contactd.lab.network import Leg
from contactd.tickets.contact import Outcome
from contactd.web.resources import ContactItem
from tests.real.desk import Desk, Setup, spelled

SETUP = Setup(
    tiers={"gz": [["wang"]], "sz": [["chen"]]},
    options={"QUEUE_WAIT": "90", "MENU_WAIT": "1"},
)
# The notice ends 5 s after the answer (zh prompts); a key before that does nothing.
NOTICE = "w5.6"

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]


async def test_an_answered_call_is_a_ticket_with_a_recording_of_the_talk(desk: Desk) -> None:
    # Both talk (a tone) from before the answer on; the engineer hangs up three seconds after it.
    await desk.phone("wang", "w0.5-a-w1-d1-p3-h")
    call = await desk.call(f"{NOTICE}-d0-w0.5-p60", name="张三")
    ring = await desk.ring("wang", call)
    assert ring.name == "张三"

    contact, recording = await desk.kept(call, "recording", 20)

    facts = contact.call
    assert facts is not None
    assert contact.outcome is Outcome.ANSWERED
    assert (contact.from_name, contact.to, contact.source) == ("张三", "4008001234", "live")
    assert [leg.engineer for leg in facts.legs] == ["wang"]
    assert (facts.keys, facts.stage, facts.queue) == ("0", "queue", "gz")
    assert (facts.end_reason, facts.hangup_cause) == ("COMPLETEAGENT", 16)
    assert ring.answered_at is not None
    assert ring.ended_at is not None
    pressed = ring.answered_at.timestamp() + 1.12  # the script's second, and the digit's length
    assert facts.queued_at is not None
    assert facts.waited_s == pytest.approx(pressed - facts.queued_at.timestamp(), abs=0.4)
    assert facts.talked_s == pytest.approx(ring.ended_at.timestamp() - pressed, abs=0.4)
    assert desk.rang(call) == ["wang"]

    ticket = await desk.ticket(contact.ticket)
    assert (ticket.state, ticket.site) == ("in_progress", "gz")
    assert ticket.assignee is not None
    assert ticket.assignee.key == "wang"
    assert [one.id for one in ticket.contacts] == [contact.id]
    assert [entry.action for entry in ticket.journal] == [
        "opened", "call.answered", "acknowledged", "call.ended"
    ]  # fmt: skip

    found = await desk.play(recording)
    assert found.media_type == "audio/wav"
    with wave.open(io.BytesIO(found.wav)) as sound:
        assert (sound.getframerate(), sound.getnchannels()) == (8000, 1)
        assert sound.getnframes() / 8000 == pytest.approx(facts.talked_s, abs=0.5)
        samples = array("h", sound.readframes(sound.getnframes()))
    assert max(samples) > 1000  # not silence


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    call: Leg
    contact: ContactItem


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def given_up(open_desk: Desk) -> dict[str, Story]:
    """Three callers of one site hang up: in the greeting, in the menu, and while they wait."""
    desk = open_desk
    await desk.phone("chen", "n")
    scripts = {
        "greeting": "w2-h",
        "menu": "w17-h",  # the greeting ends at 14 s
        "queue": "w30-h",  # no key: the menu ends at 24 s, then a second, then "connecting"
    }
    calls = {where: await desk.call(script, site="sz") for where, script in scripts.items()}
    contacts = await asyncio.gather(*(desk.contact(call, 40) for call in calls.values()))
    return {
        where: Story(call=calls[where], contact=contact)
        for where, contact in zip(calls, contacts, strict=True)
    }


@pytest.mark.parametrize(
    ("where", "outcome"),
    [
        ("greeting", Outcome.ABANDONED_GREETING),
        ("menu", Outcome.ABANDONED_MENU),
        ("queue", Outcome.ABANDONED_QUEUE),
    ],
)
async def test_it_is_known_where_a_caller_gave_up(
    desk: Desk, given_up: dict[str, Story], where: str, outcome: Outcome
) -> None:
    contact = given_up[where].contact
    assert contact.outcome is outcome
    assert contact.attachments == ()
    assert contact.call is not None
    assert contact.call.stage == where
    assert (contact.call.answered_at, contact.call.talked_s, contact.call.legs) == (None, None, ())
    ticket = await desk.ticket(contact.ticket)
    assert (ticket.state, ticket.site, ticket.assignee) == ("new", "sz", None)
    assert [entry.action for entry in ticket.journal] == ["opened", "call.ended"]


async def test_only_who_waits_makes_a_phone_ring(desk: Desk, given_up: dict[str, Story]) -> None:
    assert desk.rang(given_up["greeting"].call) == []
    assert desk.rang(given_up["menu"].call) == []
    (ring,) = desk.rings(given_up["queue"].call)
    assert desk.engineer(ring) == "chen"
    contact = given_up["queue"].contact
    assert contact.call is not None
    assert (contact.call.end_reason, contact.call.queue) == ("ABANDON", "sz")
    left = given_up["queue"].call.ended_at
    assert left is not None
    assert contact.call.queued_at is not None
    assert contact.call.waited_s == pytest.approx(
        (left - contact.call.queued_at).total_seconds(), abs=0.3
    )
    assert ring.ended_at is not None
    assert (ring.ended_at - left).total_seconds() < 1


async def test_the_greeting_speaks_the_tickets_number_and_no_key_means_a_person(
    desk: Desk, given_up: dict[str, Story]
) -> None:
    # Who hangs up in the menu leaves the second of its two prompts to be begun and not heard.
    for where, until in (("greeting", 1), ("menu", -1), ("queue", None)):
        contact = given_up[where].contact
        all_of_it = [
            "contactd/consent",
            "contactd/welcome",
            "contactd/your-ticket-is",
            *spelled(contact.ticket),
            "contactd/menu",
            "contactd/menu-language",
            "contactd/connecting",
        ]
        assert desk.heard(contact) == all_of_it[:until]


async def test_key_1_of_a_repeat_caller_opens_a_second_ticket(desk: Desk) -> None:
    caller = desk.somebody_at("gz")
    await desk.phone("wang", "n")
    call = await desk.call("w1-h", caller=caller)
    first = await desk.contact(call)
    # Welcome ends at 8 s, then comes "your open ticket is": the key is pressed then.
    again = await desk.call("w9-d1-w600", caller=caller)
    await desk.ring("wang", again, 20)
    await again.hangup()

    second = await desk.contact(again)

    assert second.ticket != first.ticket
    assert second.call is not None
    assert (second.call.keys, second.outcome) == ("1", Outcome.ABANDONED_QUEUE)
    assert desk.heard(second) == [
        "contactd/consent",
        "contactd/welcome",
        "contactd/joined-ticket",
        "contactd/your-ticket-is",
        *spelled(second.ticket),
        "contactd/connecting",
    ]
    old, new = await desk.ticket(first.ticket), await desk.ticket(second.ticket)
    assert [one.id for one in old.contacts] == [first.id]
    assert [one.id for one in new.contacts] == [second.id]
    assert old.requester.id == new.requester.id
    assert [entry.action for entry in old.journal] == [
        "opened", "call.ended", "contact.added", "ticket.separated"
    ]  # fmt: skip
    assert [entry.action for entry in new.journal] == ["opened", "call.ended"]


async def test_a_repeat_caller_without_key_1_joins_the_open_ticket(desk: Desk) -> None:
    caller = desk.somebody_at("gz")
    first = await desk.contact(await desk.call("w1-h", caller=caller))
    second = await desk.contact(await desk.call("w1-h", caller=caller))
    assert second.id != first.id
    assert second.ticket == first.ticket
    ticket = await desk.ticket(first.ticket)
    assert sorted(one.id for one in ticket.contacts) == [first.id, second.id]
