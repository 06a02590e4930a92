"""Whose word counts in a mail, for what, and what they hear of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from contactd.mail.acting import Acting
from contactd.routing.notify import SendState
from contactd.routing.replying import Answer, Heard
from contactd.store.mails import FiledMail, SentMail
from contactd.tickets.contact import MailFacts, Medium, Undelivered
from contactd.tickets.events import MailDue
from contactd.tickets.model import Progress, Promise
from contactd.tickets.people import MAIL, Address
from contactd.tickets.states import State

TICKET, OTHER = "26112200014", "26112200022"
ZHANG, WANG = Address(kind=MAIL, value="zhang@x.cn"), Address(kind=MAIL, value="wang@x.cn")
PAGE, QUESTION = "page-1", "solved-1"
SENT = {
    PAGE: SentMail(address=WANG.value),
    QUESTION: SentMail(address=ZHANG.value),
}
DUE = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)


@dataclass(slots=True)
class World:
    """One mail that was filed, two that we had sent; what was done because of it."""

    mail: FiledMail | None
    heard: Heard = Heard.TAKEN
    replies: list[tuple[str, str]] = field(default_factory=list)  # who, text
    bounces: list[str] = field(default_factory=list)
    outcomes: list[tuple[str, SendState]] = field(default_factory=list)
    said: list[tuple[str, str, Mapping[str, str]]] = field(default_factory=list)

    async def filed(self, contact_id: int) -> FiledMail | None:
        return self.mail

    async def sent(self, ref: str) -> SentMail | None:
        return SENT.get(ref)

    async def bounced(self, address: str) -> None:
        self.bounces.append(address)

    async def outcome(self, ref: str, state: SendState) -> None:
        self.outcomes.append((ref, state))

    async def reply(
        self, address: Address, text: str, medium: Medium, contact: str = ""
    ) -> Answer | None:
        self.replies.append((address.value, text))
        if TICKET not in text:
            return None
        progress = Progress(
            number=TICKET, state=State.IN_PROGRESS, engineer="wang", engineer_name="王伟",
            promise=Promise.NONE, promise_at=DUE, overdue=False, zone="Asia/Shanghai",
        )  # fmt: skip
        is_asked = self.heard is Heard.STATUS
        return Answer(heard=self.heard, ticket=TICKET, progress=progress if is_asked else None)

    async def say(
        self, number: str, to: Address, medium: Medium, key: str, facts: Mapping[str, str]
    ) -> None:
        self.said.append((number, to.value, facts))


async def due(mail: FiledMail | None, heard: Heard = Heard.TAKEN) -> World:
    world = World(mail, heard)
    acting = Acting(mails=world, replies=world, messages=world)
    await acting.mail_due(MailDue(ticket_id=1, contact_id=7))
    return world


def filed(sender: Address = WANG, **facts: Any) -> FiledMail:
    return FiledMail(sender=sender, ticket=TICKET, facts=MailFacts(**facts))


async def test_a_reply_to_a_mail_of_ours_is_its_recipients_word() -> None:
    world = await due(filed(reply="take", about=PAGE))
    assert world.replies[-1] == (WANG.value, f"take {TICKET}")
    world = await due(filed(ZHANG, reply="OK", about=QUESTION))
    assert world.replies[-1] == (ZHANG.value, f"OK {TICKET}")


@pytest.mark.parametrize("line", ["take", f"1 {OTHER}", "OK"])
async def test_who_answers_their_own_mail_in_another_name_is_not_believed(line: str) -> None:
    assert (await due(filed(WANG, reply=line, about=QUESTION))).replies == []
    assert (await due(filed(ZHANG, reply=line, about=PAGE))).replies == []


async def test_an_address_that_everybody_on_the_ticket_knows_proves_nobody() -> None:
    assert (await due(filed(reply="take", proved=TICKET))).replies == []
    assert (await due(filed(reply="take", about="unknown"))).replies == []


async def test_a_domain_that_vouches_for_the_sender_is_enough() -> None:
    world = await due(filed(reply=f"take {TICKET}", checks={"aligned": "x.cn"}))
    assert world.replies == [(WANG.value, f"take {TICKET}")]


async def test_a_forged_mail_does_nothing() -> None:
    assert (await due(filed(reply="take", about=PAGE, forged=True))).replies == []


async def test_a_bounce_marks_the_address_that_our_mail_was_for_and_no_other() -> None:
    lost = (Undelivered(address="wang@x.cn", status="5.1.1"),)
    world = await due(filed(undelivered=lost, about=QUESTION))
    assert world.bounces == [ZHANG.value]
    assert world.outcomes == [(QUESTION, SendState.FAILED)]


@pytest.mark.parametrize(
    "facts",
    [
        {"undelivered": (Undelivered(address=ZHANG.value),)},
        {"undelivered": (Undelivered(address=ZHANG.value),), "about": "unknown"},
        {"undelivered": (Undelivered(address=ZHANG.value, permanent=False),), "about": QUESTION},
    ],
)
async def test_what_is_no_bounce_of_ours_or_not_for_good_marks_nothing(
    facts: dict[str, Any],
) -> None:
    world = await due(filed(**facts))
    assert (world.bounces, world.outcomes) == ([], [])


async def test_who_asks_for_progress_hears_it() -> None:
    world = await due(filed(ZHANG, reply="进度", about=QUESTION), Heard.STATUS)
    ((number, to, facts),) = world.said
    assert (number, to) == (TICKET, ZHANG.value)
    assert facts == {"heard": "in_progress", "engineer": "王伟", "due": DUE.isoformat()}


@pytest.mark.parametrize("heard", [Heard.LATE, Heard.WRONG_CODE, Heard.NO_TICKET])
async def test_who_was_too_late_or_wrong_hears_it(heard: Heard) -> None:
    world = await due(filed(reply="take", about=PAGE), heard)
    assert world.said == [(TICKET, WANG.value, {"heard": heard.value})]


async def test_what_was_done_is_not_said_twice() -> None:
    assert (await due(filed(reply="take", about=PAGE))).said == []


async def test_a_mail_that_is_gone_asks_for_nothing() -> None:
    assert (await due(None)).replies == []
