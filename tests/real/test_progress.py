"""Key 2: a caller hears how a ticket is doing, found by the caller's number or keyed in.

All who ask call at once.
"""

import asyncio
from dataclasses import dataclass

import pytest
import pytest_asyncio

from contactd.lab.network import Leg
from contactd.tickets.contact import Outcome
from contactd.tickets.numbers import is_valid
from contactd.web.resources import ContactItem
from tests.real.desk import Desk, Setup

SETUP = Setup(
    tiers={"gz": [["wang"]], "sz": [["chen"]]},
    options={"QUEUE_WAIT": "60", "MENU_WAIT": "1"},
)
# The notice ends 5 s after the answer (zh prompts); a key before that does nothing.
PROGRESS = "w5.6-d2"
# Keyed in over "please key in your ticket's number", which begins at once.
KEYED_AFTER = "w1.5"
UNKNOWN = "w3.6"  # "we do not know this number" takes 3.4 s
NEW = ["contactd/progress-is", "contactd/state-new", "contactd/promise-is"]
DAYS = {"contactd/today", "contactd/tomorrow"}  # what was promised at 23:45 is due tomorrow

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    before: ContactItem  # the call that opened the ticket which is asked for
    call: Leg
    contact: ContactItem


async def _known_caller(desk: Desk) -> Story:
    caller = desk.somebody_at("gz")
    before = await desk.contact(await desk.call("w1-h", caller=caller))
    call = await desk.call(f"{PROGRESS}-w11-h", caller=caller)
    return Story(before=before, call=call, contact=await desk.contact(call, 30))


async def _stranger(desk: Desk) -> Story:
    before = await desk.contact(await desk.call("w1-h"))
    call = await desk.call(f"{PROGRESS}-{KEYED_AFTER}-d{before.ticket}#-w8-h")
    return Story(before=before, call=call, contact=await desk.contact(call, 30))


async def _caller_of_a_taken_ticket(desk: Desk) -> Story:
    caller = desk.somebody_at("sz")
    await desk.phone("chen", "w0.3-a-w1-d1-w1-h")
    before = await desk.contact(await desk.call("w5.6-d0-w600", caller=caller), 30)
    call = await desk.call(f"{PROGRESS}-w8-h", caller=caller)
    return Story(before=before, call=call, contact=await desk.contact(call, 30))


async def _mistaken(desk: Desk) -> Story:
    before = await desk.contact(await desk.call("w1-h"))
    wrong = [_mistyped(before.ticket), _unused(before.ticket), "1"]
    tries = f"-{UNKNOWN}-".join(f"{KEYED_AFTER}-d{number}#" for number in wrong)
    call = await desk.call(f"{PROGRESS}-{tries}-w600")
    await desk.ring("wang", call, 45)
    await call.hangup()
    return Story(before=before, call=call, contact=await desk.contact(call))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stories(open_desk: Desk) -> dict[str, Story]:
    plots = [_known_caller, _stranger, _caller_of_a_taken_ticket, _mistaken]
    await open_desk.phone("wang", "n")
    played = await asyncio.gather(*(plot(open_desk) for plot in plots))
    return dict(zip(("known", "stranger", "taken", "mistaken"), played, strict=True))


async def test_a_known_caller_hears_about_the_open_ticket(
    desk: Desk, stories: dict[str, Story]
) -> None:
    story = stories["known"]
    assert story.contact.ticket == story.before.ticket
    assert story.contact.outcome is Outcome.SELF_SERVICE
    assert story.contact.call is not None
    assert (story.contact.call.keys, story.contact.call.stage) == ("2", "menu")
    *said, day = desk.heard(story.contact)[:6]
    assert said == ["contactd/consent", "contactd/welcome", *NEW]
    assert day in DAYS
    assert desk.rang(story.call) == []


async def test_a_stranger_keys_in_the_tickets_number(desk: Desk, stories: dict[str, Story]) -> None:
    story = stories["stranger"]
    *said, day = desk.heard(story.contact)[2:7]
    assert said == ["contactd/key-in-ticket", *NEW]
    assert day in DAYS
    assert story.contact.outcome is Outcome.SELF_SERVICE
    assert desk.rang(story.call) == []
    # Asking about somebody's ticket is a contact of one's own, with its ticket.
    assert story.contact.ticket != story.before.ticket
    assert len((await desk.ticket(story.before.ticket)).contacts) == 1


async def test_who_asks_for_a_ticket_that_an_engineer_has_taken_is_told_so(
    desk: Desk, stories: dict[str, Story]
) -> None:
    story = stories["taken"]
    assert story.before.outcome is Outcome.ANSWERED
    assert story.contact.ticket == story.before.ticket
    assert desk.heard(story.contact)[2:6] == [
        "contactd/progress-is",
        "contactd/state-in-progress",
        "contactd/engineer-is",
        "contactd/person-chen",
    ]


async def test_a_wrong_number_is_asked_for_again_and_in_the_end_a_person_comes(
    desk: Desk, stories: dict[str, Story]
) -> None:
    """Mistyped, right in form but nobody's, and far too short."""
    story = stories["mistaken"]
    asked = ["contactd/key-in-ticket", "contactd/ticket-unknown"]
    assert desk.heard(story.contact)[2:] == [*asked, *asked, *asked, "contactd/connecting"]
    assert story.contact.outcome is Outcome.ABANDONED_QUEUE
    assert story.contact.call is not None
    assert (story.contact.call.keys, story.contact.call.stage) == ("2", "queue")
    assert desk.rang(story.call) == ["wang"]
    assert len((await desk.ticket(story.before.ticket)).contacts) == 1


def _mistyped(number: str) -> str:
    """Return `number` with two digits the wrong way round, which the check digit notices."""
    for n in range(len(number) - 1):
        swapped = number[:n] + number[n + 1] + number[n] + number[n + 2 :]
        if not is_valid(swapped):
            return swapped
    raise AssertionError(f"no two neighbours of {number} differ")


def _unused(number: str) -> str:
    """Return a number of the same day, with the right check digit, that nobody has."""
    body = f"{number[:6]}9876"
    return next(f"{body}{check}" for check in range(10) if is_valid(f"{body}{check}"))
