"""Engineers who do not take a call: somebody else is rung, and the ticket knows who did what.

Five callers at five sites call at once; at each site the first engineer does something else.
"""

import asyncio
from dataclasses import dataclass

import pytest
import pytest_asyncio

from contactd.lab.network import VOICEMAIL, Leg
from contactd.tickets.contact import Outcome
from contactd.web.resources import ContactItem, TicketDetail
from tests.real.desk import Desk, Setup

WIDEN_S = 4
SETUP = Setup(
    tiers={
        "gz": [["busy"], ["anna"]],
        "sz": [["rejecting"], ["bert"]],
        "zh": [["silent"], ["carl"]],
        "fs": [["away"], ["dora"]],
        "zq": [["passing"], ["emil"]],
    },
    english=["passing"],
    options={"GREETING": "no", "OFFER_RING": "4", "OFFER_KEY_WAIT": "1", "QUEUE_WAIT": "60"},
    widen_s=(WIDEN_S, 60, 70),
)
FIRST = {
    "gz": "b",
    "sz": "r",
    "zh": "n",
    "fs": VOICEMAIL,
    "zq": "w0.5-a-w1-d2-w30",
}
TAKES = "w0.5-a-w1-d1-w2-h"  # picks up, presses 1 a second later, talks for two

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    call: Leg
    contact: ContactItem
    ticket: TicketDetail


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stories(open_desk: Desk) -> dict[str, Story]:
    """Play all five; who is in tier 2 takes the call and hangs up two seconds later."""
    desk = open_desk
    for site, (first, second) in SETUP.tiers.items():
        await desk.phone(first[0], FIRST[site])
        await desk.phone(second[0], TAKES)
    calls = {site: await desk.call("w50-h", site=site) for site in FIRST}
    contacts = await asyncio.gather(*(desk.contact(call, 55) for call in calls.values()))
    return {
        site: Story(call=call, contact=contact, ticket=await desk.ticket(contact.ticket))
        for (site, call), contact in zip(calls.items(), contacts, strict=True)
    }


@pytest.mark.parametrize("site", FIRST)
async def test_the_second_tier_takes_what_the_first_does_not(
    desk: Desk, stories: dict[str, Story], site: str
) -> None:
    (first,), (second,) = SETUP.tiers[site]
    story, facts = stories[site], stories[site].contact.call
    assert facts is not None
    assert desk.rang(story.call)[0] == first
    # Whose phone rang in vain is rung again until somebody answers; nobody else is.
    again = [first] if site == "zh" else []
    assert sorted(set(desk.rang(story.call)[1:])) == sorted([*again, second])
    assert desk.rang(story.call).count(second) == 1
    assert story.contact.outcome is Outcome.ANSWERED
    assert [leg.engineer for leg in facts.legs] == [second]
    assert facts.passed_by == (first,)
    assert (facts.queue, facts.stage, facts.end_reason) == (site, "queue", "COMPLETEAGENT")
    assert story.ticket.assignee is not None
    assert story.ticket.assignee.key == second
    assert (story.ticket.state, story.ticket.site) == ("in_progress", site)
    assert [entry.action for entry in story.ticket.journal] == [
        "opened", "call.answered", "acknowledged", "call.ended"
    ]  # fmt: skip


@pytest.mark.parametrize("site", FIRST)
async def test_the_second_tier_is_not_rung_before_its_time(
    desk: Desk, stories: dict[str, Story], site: str
) -> None:
    first, second = _first_and_second(desk, stories[site].call)
    facts = stories[site].contact.call
    assert facts is not None
    assert facts.queued_at is not None
    assert (first.started_at - facts.queued_at).total_seconds() < 1
    assert (second.started_at - facts.queued_at).total_seconds() >= WIDEN_S


@pytest.mark.parametrize("site", FIRST)
async def test_waiting_and_talking_times_are_those_of_the_phones(
    desk: Desk, stories: dict[str, Story], site: str
) -> None:
    _, second = _first_and_second(desk, stories[site].call)
    facts = stories[site].contact.call
    assert facts is not None
    assert facts.queued_at is not None
    assert second.answered_at is not None
    assert second.ended_at is not None
    pressed = second.answered_at.timestamp() + 1.12  # the script's second, and the digit's length
    assert facts.waited_s == pytest.approx(pressed - facts.queued_at.timestamp(), abs=0.4)
    assert facts.talked_s == pytest.approx(second.ended_at.timestamp() - pressed, abs=0.4)


async def test_a_mobiles_voicemail_hears_the_question_twice_and_never_the_caller(
    desk: Desk, stories: dict[str, Story]
) -> None:
    ring, _ = desk.rings(stories["fs"].call)
    assert ring.answered_at is not None
    sounds = [sound for sound, _ in desk.heard_by_engineers(stories["fs"].contact)]
    assert sounds.count("contactd/offer-keys") >= 2
    told = [row for row in desk.records(stories["fs"].contact) if row[1:3] == _told("NOKEY")]
    assert len(told) == 1
    channel = told[0][5]
    rows = [row for row in desk.records(stories["fs"].contact) if row[5] == channel]
    assert not any(row[1] == "BRIDGE_ENTER" for row in rows)


async def test_who_passes_is_asked_in_their_language_and_let_go(
    desk: Desk, stories: dict[str, Story]
) -> None:
    story = stories["zq"]
    passed, taken = desk.rings(story.call)
    heard = desk.heard_by_engineers(story.contact)
    assert heard[:2] == [("contactd/offer-call-from", "en"), ("contactd/goodbye", "en")]
    assert ("contactd/offer-call-from", "zh") in heard
    assert passed.ended_at is not None
    assert passed.ended_at < taken.started_at
    assert any(row[1:3] == _told("PASSED") for row in desk.records(story.contact))


def _first_and_second(desk: Desk, call: Leg) -> tuple[Leg, Leg]:
    """Return the first ring, and the first of somebody else."""
    first, *later = desk.rings(call)
    return first, next(ring for ring in later if ring.number != first.number)


def _told(event: str) -> list[str]:
    return ["USER_DEFINED", event]
