"""Names and numbers from strangers: whatever they hold, the call is filed and rings somebody."""

import asyncio
from dataclasses import dataclass

import pytest
import pytest_asyncio

from contactd.lab.network import Leg
from contactd.tickets.contact import Outcome
from contactd.web.resources import ContactItem
from tests.real.desk import Desk, Setup

SETUP = Setup(
    tiers={
        "gz": [["wang"]],
        "sz": [["chen"]],
        "zh": [["lin"]],
        "fs": [["he"]],
        "zq": [["liang"]],
    },
    options={"GREETING": "no", "QUEUE_WAIT": "30"},
)

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stranger:
    site: str
    engineer: str
    name: str
    shown: str  # on the engineer's phone: what the dialplan leaves of it


STRANGERS = {
    "quotes": Stranger(site="gz", engineer="wang", name='"张三 \\"; DROP', shown="张三  DROP"),
    "300 characters": Stranger(site="sz", engineer="chen", name="x" * 300, shown="x" * 60),
    "300 Chinese ones": Stranger(site="zh", engineer="lin", name="字" * 300, shown="字" * 20),
    "carriage return": Stranger(
        site="fs", engineer="he", name="cr\rAction: Originate", shown="crAction Originate"
    ),
    "commas and pipes": Stranger(
        site="zq", engineer="liang", name="a,b|c&d;e${EXTEN}'--", shown="abcdeEXTEN--"
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    ring: Leg
    contact: ContactItem


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stories(open_desk: Desk) -> dict[str, Story]:
    """Each stranger calls another site, waits until a phone rings there, and hangs up."""
    desk = open_desk

    async def play(stranger: Stranger) -> Story:
        call = await desk.call("w600", site=stranger.site, name=stranger.name)
        ring = await desk.ring(stranger.engineer, call)
        await call.hangup()
        return Story(ring=ring, contact=await desk.contact(call))

    played = await asyncio.gather(*map(play, STRANGERS.values()))
    return dict(zip(STRANGERS, played, strict=True))


@pytest.mark.parametrize("who", STRANGERS)
async def test_whatever_the_name_is_the_call_is_filed_and_rings_somebody(
    desk: Desk, stories: dict[str, Story], who: str
) -> None:
    stranger, story = STRANGERS[who], stories[who]
    assert story.contact.outcome is Outcome.ABANDONED_QUEUE
    assert story.ring.name == stranger.shown
    assert story.contact.from_name.isprintable()
    assert len(story.contact.from_name.encode()) <= 79 + 3  # a channel's caller name
    ticket = await desk.ticket(story.contact.ticket)
    assert (ticket.site, len(ticket.contacts)) == (stranger.site, 1)
    assert [entry.action for entry in ticket.journal] == ["opened", "call.ended"]


async def test_letters_of_a_hostile_name_survive(stories: dict[str, Story]) -> None:
    assert "张三" in stories["quotes"].contact.from_name
    assert "DROP" in stories["quotes"].contact.from_name


async def test_a_name_with_a_line_break_does_no_harm(desk: Desk) -> None:
    """PJSIP drops such an INVITE (no SIP parser takes it); who calls properly gets through."""
    evil = await desk.call("w600", site="gz", name="x\r\nX-Evil: 1\r\n\r\nAction: Originate")
    good = await desk.call("w600", site="gz")
    await desk.ring("wang", good)
    await good.hangup()
    contact = await desk.contact(good)
    assert contact.outcome is Outcome.ABANDONED_QUEUE
    assert await desk.contacts_of(evil) == []
    assert evil.caller not in desk.lab.pbx.cel_path.read_text(encoding="utf-8")
    await evil.hangup()


async def test_callers_without_a_number_each_have_a_ticket_of_their_own(desk: Desk) -> None:
    contacts = []
    for _ in range(2):
        call = await desk.call("w600", caller="")
        ring = await desk.ring("wang", None)  # nobody knows the site: everybody is rung
        assert ring.caller in ("", "anonymous")
        await call.hangup()
        contacts.append(await desk.contact(call))
    assert [one.from_ for one in contacts] == ["anonymous"] * 2  # the word of the network
    assert len({one.ticket for one in contacts}) == 2
    tickets = [await desk.ticket(one.ticket) for one in contacts]
    assert len({one.requester.id for one in tickets}) == 2
    assert [one.site for one in tickets] == [None, None]
    assert [one.call.queue for one in contacts if one.call is not None] == ["desk", "desk"]
