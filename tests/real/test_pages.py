"""Whose phone rings about a ticket, in which order and how often, and what their keys do.

The real daemon, a real PBX, phones. Five requesters at five sites report a fault at once; at each
site the first engineer on duty does something else with the page.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import pytest
import pytest_asyncio

from contactd.lab.network import VOICEMAIL, Leg
from contactd.routing.notify import Reason, SendState
from contactd.web.resources import JournalEntry, TicketDetail
from tests.fakes.waiting import WITHIN_S
from tests.real.desk import Desk, Setup, eventually

RING_S: Final = 8.0
TURN_S: Final = 16.0  # until the next tier is told
POLICIES: Final = f"""
[[policies]]
key = "quick"
steps = [
    {{ tell = "tier 1", each = "{TURN_S:.0f}s" }},
    {{ after = "{TURN_S:.0f}s", tell = "tier 2", each = "{TURN_S:.0f}s" }},
]

[[policies]]
key = "great"
steps = [
    {{ tell = ["tier 1", "tier 2", "tier 3"], parallel = true, need = 2, conference = true }},
]

[[rules]]
when = {{ priority = "P1" }}
policy = "great"

[[rules]]
policy = "quick"
"""


def where_it_is_noon() -> str:
    """Return the zone in which it is noon now: requesters are not called back at night."""
    ahead = 12 - datetime.now(UTC).hour
    return f"Etc/GMT{-ahead:+d}" if ahead else "Etc/GMT"


SETUP = Setup(
    tiers={
        "gz": [["declines"], ["anna"]],
        "sz": [["absent"], ["bert"]],
        "zh": [["machine"], ["carl"]],
        "fs": [["misdials"], ["dora"]],
        "zq": [["passes"], ["emil"], ["fay"]],
    },
    options={"MENU_WAIT": "1"},
    terms=POLICIES,
    page_ring_s=RING_S,
    zone=where_it_is_noon(),
)
PRESSED_S: Final = 1.4  # when the key of who picks up and presses one has arrived
TAKES: Final = "w0.3-a-w1-d1-w30"
FIRST: Final = {
    "gz": "w0.5-r",
    "sz": "n",
    "zh": VOICEMAIL,
    "fs": "w0.3-a-w1-d7-w2-d0-w2-d8-w60",
    "zq": "w0.3-a-w1-d2-w30",
}

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    opened_at: datetime
    ticket: TicketDetail
    rings: tuple[Leg, ...]

    def after_s(self, ring: Leg) -> float:
        """Return how long after the ticket was opened a phone rang."""
        return (ring.started_at - self.opened_at).total_seconds()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stories(open_desk: Desk) -> Mapping[str, Story]:
    """Play all five; who is in tier 2 takes the ticket."""
    desk = open_desk
    for site, (first, second, *_) in SETUP.tiers.items():
        await desk.phone(first[0], FIRST[site])
        await desk.phone(second[0], TAKES)
    opened_at = datetime.now(UTC)
    tickets = {site: await desk.open_ticket(desk.somebody_at(site)) for site in FIRST}
    for ticket in tickets.values():
        await taken(desk, ticket, 40)
    await asyncio.sleep(TURN_S)  # nobody else may be rung any more
    found = {}
    for site, ticket in tickets.items():
        people = {SETUP.phones[key] for tier in SETUP.tiers[site] for key in tier}
        rings = tuple(ring for ring in desk.lab.network.rings if ring.number in people)
        for ring in rings:  # what rings from now on is of another story
            await desk.ring(desk.engineer(ring), None, 0)
        found[site] = Story(opened_at=opened_at, ticket=await desk.ticket(ticket), rings=rings)
    return found


@pytest.mark.parametrize("site", FIRST)
async def test_each_is_rung_once_and_the_second_takes_the_ticket(
    desk: Desk, stories: Mapping[str, Story], site: str
) -> None:
    (first,), (second,), *_ = SETUP.tiers[site]
    story = stories[site]
    assert [desk.engineer(ring) for ring in story.rings] == [first, second]
    assert story.ticket.assignee is not None
    assert story.ticket.assignee.key == second
    assert (story.ticket.state, story.ticket.site) == ("in_progress", site)
    told = [entry.body["people"] for entry in entries(story, "escalation.told")]
    assert told == [[first], [second]]
    assert {message.recipient: message.state for message in story.ticket.messages} == {
        first: {
            "gz": SendState.NOT_REACHED,
            "sz": SendState.NOT_REACHED,
            "zh": SendState.STOPPED,  # still talking to itself when the ticket was taken
            "fs": SendState.NOT_REACHED,
            "zq": SendState.PASSED,
        }[site],
        second: SendState.TAKEN,
    }


@pytest.mark.parametrize(
    ("site", "after_s"),
    # Who could not be reached may still call back, or be reached by another medium.
    [("gz", TURN_S), ("sz", TURN_S), ("zh", TURN_S), ("fs", TURN_S), ("zq", PRESSED_S)],
)
async def test_the_second_is_rung_after_the_firsts_turn_or_at_once_if_it_is_passed_on(
    stories: Mapping[str, Story], site: str, after_s: float
) -> None:
    first, second = stories[site].rings
    assert stories[site].after_s(first) < 3
    later_s = (second.started_at - first.started_at).total_seconds()
    assert after_s - 1 <= later_s <= after_s + 4
    passed = [entry.actor for entry in entries(stories[site], "escalation.passed")]
    assert passed == (["engineer:passes"] if site == "zq" else [])


async def test_an_emergency_rings_all_until_two_have_it_and_they_meet(desk: Desk) -> None:
    await desk.phone("passes", TAKES)
    ticket = await desk.open_ticket(desk.somebody_at("zq"))
    page = await desk.ring("passes", None)
    await taken(desk, ticket, 10)
    await page.hangup()
    for engineer in ("passes", "emil"):
        await desk.phone(engineer, "w1-a-w2-d5-w600")
    await desk.phone("fay", "n")
    await desk.act(ticket, "classify", impact=1, urgency=1)
    joined = [await desk.ring(engineer, None) for engineer in ("passes", "emil")]
    third = await desk.ring("fay", None)

    async def met() -> bool:
        listing = await desk.lab.pbx.cli(f"confbridge list ticket-{ticket}")
        return listing.count("Local/") == 2

    await eventually(met, 15, "two engineers are in the conference")
    await third.ended(WITHIN_S)
    assert third.answered_at is None, "nobody else is wanted"
    assert (third.ended_at or third.started_at).timestamp() - third.started_at.timestamp() < RING_S
    assert not any(ring.is_over for ring in joined)
    found = await desk.ticket(ticket)
    assert found.priority == "P1"
    assert found.assignee is not None
    assert found.assignee.key == "passes"
    acks = [e.actor for e in found.journal if e.action == "escalation.acknowledged"]
    assert sorted(acks[-2:]) == ["engineer:emil", "engineer:passes"]


async def test_a_page_that_was_out_when_contactd_died_is_not_dialled_again(desk: Desk) -> None:
    await desk.phone("absent", "w4-a-w8-d1-w10")  # contactd has twelve seconds to be back
    ticket = await desk.open_ticket(desk.somebody_at("sz"))
    page = await desk.ring("absent", None)
    await desk.lab.daemon.kill()
    await desk.lab.daemon.start()
    await taken(desk, ticket, 20)
    await page.ended(WITHIN_S)
    numbers = {SETUP.phones[key] for key in ("absent", "bert")}
    rings = [ring for ring in desk.lab.network.rings if ring.number in numbers]
    assert rings[-1] is page
    found = await desk.ticket(ticket)
    assert found.assignee is not None
    assert found.assignee.key == "absent"
    assert [message.state for message in found.messages] == [SendState.TAKEN]


@pytest.mark.parametrize(("key", "state"), [("1", "closed"), ("2", "in_progress")])
async def test_the_requester_is_called_back_and_has_the_last_word(
    desk: Desk, key: str, state: str
) -> None:
    requester = desk.somebody_at("gz")
    await desk.lab.network.phone(requester, f"w0.3-a-w1-d{key}-w30")
    await desk.phone("declines", TAKES)
    ticket = await desk.open_ticket(requester)
    page = await desk.ring("declines", None)
    await taken(desk, ticket, 10)
    await desk.act(ticket, "resolve")

    async def said() -> bool:
        found = await desk.ticket(ticket)
        asked = [message for message in found.messages if message.recipient == "requester"]
        told = [(message.reason, message.state) for message in asked]
        return found.state == state and told == [(Reason.SOLVED, SendState.TAKEN)]

    await eventually(said, 20, f"the ticket is {state}, by the requester's word")
    rang = [ring for ring in desk.lab.network.rings if ring.number == requester]
    assert len(rang) == 1
    if key == "2":  # who did not solve it was tier 1: the next one hears of it
        again = await desk.ring("anna", None, 15)
        assert again.started_at > page.started_at


def entries(story: Story, action: str) -> list[JournalEntry]:
    return [entry for entry in story.ticket.journal if entry.action == action]


async def taken(desk: Desk, number: str, within_s: float) -> TicketDetail:
    async def look() -> TicketDetail | None:
        ticket = await desk.ticket(number)
        return ticket if ticket.assignee else None

    return await eventually(look, within_s, f"somebody takes ticket {number}")
