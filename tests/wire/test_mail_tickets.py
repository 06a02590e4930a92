"""Where a mail belongs: on the ticket that it surely names, on its sender's, or on its own."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from contactd.store.engine import Database
from contactd.store.keys import Keys
from contactd.store.mails import Mails
from contactd.store.schema import addresses, attachments, mail_pages, outbox, people
from contactd.tickets.contact import (
    Blob,
    Contact,
    File,
    MailFacts,
    Medium,
    Undelivered,
    Writer,
)
from contactd.tickets.service import TicketService
from contactd.tickets.states import Action
from tests.fakes.clock import FakeClock

START = datetime(2026, 11, 20, 2, 0, tzinfo=UTC)
ZHANG, LI, STRANGER = "zhang@x.cn", "li@x.cn", "stranger@y.cn"
LATER = timedelta(days=1)  # repeat contacts join within four hours


def mail(number: int, sender: str = ZHANG, *, after: timedelta = LATER, **facts: Any) -> Contact:
    """Return a mail that came a day after the one before, so that only what it names counts."""
    known = {"subject": f"打印机 {number}", "message_id": f"<{number}@x.cn>", **facts}
    return Contact(
        medium=Medium.MAIL,
        external_id=f"mail-{number}",
        received_at=START + number * after,
        from_value=sender,
        to_value="support@desk.cn",
        text=f"第{number}封",
        mail=MailFacts(**known),
    )


async def test_a_mail_opens_a_ticket_that_is_called_like_its_subject(
    tickets: TicketService, database: Database
) -> None:
    filed = await tickets.receive(mail(1))
    assert filed.opened
    async with database.new_work() as work:
        ticket = await work.tickets.find(filed.ticket)
    assert ticket is not None
    assert ticket.title == "打印机 1"


async def test_a_mail_without_a_subject_is_called_like_its_text(
    tickets: TicketService, database: Database
) -> None:
    filed = await tickets.receive(mail(1, subject=""))
    async with database.new_work() as work:
        ticket = await work.tickets.find(filed.ticket)
    assert ticket is not None
    assert ticket.title == "第1封"


async def test_an_answer_to_a_mail_that_we_have_lands_on_its_ticket(tickets: TicketService) -> None:
    first = await tickets.receive(mail(1))
    reply = mail(2, LI, references=("<unknown@x.cn>", "<1@x.cn>"))
    assert (await tickets.receive(reply)).ticket == first.ticket


async def test_mails_that_answer_each_other_come_in_one_batch(tickets: TicketService) -> None:
    first = await tickets.receive(mail(1))
    other = await tickets.receive(mail(3, LI))
    assert other.ticket != first.ticket
    chain = [mail(5, references=("<4@x.cn>",)), mail(4, references=("<3@x.cn>",))]
    filed = [await tickets.receive(each) for each in chain[::-1]]
    assert {each.ticket for each in filed} == {other.ticket}


async def test_an_address_that_only_we_can_have_made_is_stronger_than_what_a_mail_answers(
    tickets: TicketService,
) -> None:
    first, second = await tickets.receive(mail(1)), await tickets.receive(mail(2, LI))
    reply = mail(3, STRANGER, references=("<1@x.cn>",), proved=second.ticket)
    assert (await tickets.receive(reply)).ticket == second.ticket
    assert first.ticket != second.ticket


async def test_a_number_in_the_subject_counts_for_who_takes_part(tickets: TicketService) -> None:
    first = await tickets.receive(mail(1))
    again = mail(2, mentioned=(first.ticket,))
    assert (await tickets.receive(again)).ticket == first.ticket
    colleague = mail(3, LI, references=("<1@x.cn>",))
    await tickets.receive(colleague)
    assert (await tickets.receive(mail(4, LI, mentioned=(first.ticket,)))).ticket == first.ticket


async def test_a_stranger_with_a_number_in_the_subject_gets_a_ticket_of_their_own(
    tickets: TicketService,
) -> None:
    first = await tickets.receive(mail(1))
    filed = await tickets.receive(mail(2, STRANGER, mentioned=(first.ticket,)))
    assert filed.opened
    assert filed.ticket != first.ticket


async def test_who_forges_a_participant_gets_a_ticket_of_their_own(tickets: TicketService) -> None:
    first = await tickets.receive(mail(1))
    filed = await tickets.receive(mail(2, mentioned=(first.ticket,), forged=True))
    assert filed.ticket != first.ticket


async def test_an_engineer_takes_part_in_every_ticket(
    tickets: TicketService, database: Database
) -> None:
    first = await tickets.receive(mail(1))
    await tickets.receive(mail(2, LI))
    async with database.writing() as connection:
        li = select(addresses.c.person_id).where(addresses.c.value == LI).scalar_subquery()
        await connection.execute(update(people).where(people.c.id == li).values(role="engineer"))
    assert (await tickets.receive(mail(3, LI, mentioned=(first.ticket,)))).ticket == first.ticket


async def test_an_answer_to_a_ticket_that_is_closed_opens_a_new_one(tickets: TicketService) -> None:
    first = await tickets.receive(mail(1))
    await tickets.act(first.ticket, Action.CANCEL, actor="user:desk")
    filed = await tickets.receive(mail(2, references=("<1@x.cn>",), proved=first.ticket))
    assert filed.opened
    assert filed.ticket != first.ticket


@pytest.mark.parametrize("facts", [{"writer": Writer.AUTO_REPLY}, {"reply": "OK"}])
async def test_what_asks_for_nothing_lies_on_the_ticket_though_it_is_closed(
    tickets: TicketService, facts: dict[str, Any]
) -> None:
    first = await tickets.receive(mail(1))
    await tickets.act(first.ticket, Action.CANCEL, actor="user:desk")
    assert (await tickets.receive(mail(2, proved=first.ticket, **facts))).ticket == first.ticket


@pytest.mark.parametrize("writer", [Writer.AUTO, Writer.LIST])
async def test_an_alarm_opens_a_ticket_though_the_last_one_is_open_and_joins_none_that_is_closed(
    tickets: TicketService, writer: Writer
) -> None:
    soon = timedelta(minutes=1)
    first = await tickets.receive(mail(1, after=soon, writer=writer))
    second = await tickets.receive(mail(2, after=soon, writer=writer))
    assert second.ticket != first.ticket
    await tickets.act(first.ticket, Action.CANCEL, actor="user:desk")
    third = mail(3, after=soon, writer=writer, references=("<1@x.cn>",))
    assert (await tickets.receive(third)).opened


async def test_not_solved_after_the_end_is_a_new_ticket(tickets: TicketService) -> None:
    first = await tickets.receive(mail(1))
    await tickets.act(first.ticket, Action.CANCEL, actor="user:desk")
    assert (await tickets.receive(mail(2, proved=first.ticket, reply="NO"))).opened


async def test_another_sender_with_the_same_message_id_gets_a_ticket_of_their_own(
    tickets: TicketService,
) -> None:
    first = await tickets.receive(mail(1))
    other = await tickets.receive(mail(2, STRANGER, message_id="<1@x.cn>"))
    assert other.ticket != first.ticket


async def test_who_writes_again_soon_joins_their_open_ticket(tickets: TicketService) -> None:
    first = await tickets.receive(mail(1, after=timedelta(minutes=1)))
    assert (await tickets.receive(mail(2, after=timedelta(minutes=1)))).ticket == first.ticket


async def test_the_same_mail_for_another_of_our_mailboxes_joins_the_first(
    tickets: TicketService,
) -> None:
    first = await tickets.receive(mail(1))
    copy = replace(mail(1), external_id="mail-1-other", received_at=START + 5 * LATER)
    filed = await tickets.receive(copy)
    assert (filed.ticket, filed.new_contact, filed.opened) == (first.ticket, True, False)


async def test_files_and_html_are_stored_once_with_the_mail(
    tickets: TicketService, database: Database
) -> None:
    blob = Blob(sha256="a" * 64, size_bytes=3, media_type="image/png", name="屏幕.png")
    files = (
        File(kind="raw", blob=replace(blob, sha256="b" * 64, name="message.eml")),
        File(kind="inline", blob=blob, content_id="shot@x"),
        File(kind="inline", blob=replace(blob, name="again.png"), content_id="again@x"),
    )
    sent = replace(mail(1), html="<p>坏了</p>", files=files)
    filed = await tickets.receive(sent)
    assert not (await tickets.receive(sent)).new_contact
    async with database.reading() as connection:
        rows = (await connection.execute(select(attachments).order_by(attachments.c.id))).mappings()
        stored = [(row["kind"], row["name"], row["content_id"]) for row in rows]
        pages = (await connection.execute(select(mail_pages))).all()
    assert stored == [("raw", "message.eml", ""), ("inline", "屏幕.png", "shot@x")]
    assert pages == [(filed.contact_id, "<p>坏了</p>")]


@pytest.mark.parametrize(
    ("facts", "is_due"),
    [
        ({}, False),
        ({"reply": "OK"}, True),
        ({"undelivered": (Undelivered(address=LI),), "writer": Writer.BOUNCE}, True),
    ],
)
async def test_a_mail_that_says_what_to_do_is_acted_upon_once(
    tickets: TicketService, database: Database, facts: dict[str, Any], is_due: bool
) -> None:
    for _ in range(2):
        await tickets.receive(mail(1, **facts))
    async with database.reading() as connection:
        kinds = (await connection.execute(select(outbox.c.kind))).scalars().all()
    assert kinds.count("MailDue") == int(is_due)


async def test_an_address_that_bounced_works_again_once_its_owner_writes(
    tickets: TicketService, database: Database, clock: FakeClock
) -> None:
    async def bounced() -> list[str]:
        query = select(addresses.c.value).where(addresses.c.bounced_at.is_not(None))
        async with database.reading() as connection:
            return list((await connection.execute(query)).scalars())

    mails = Mails(database, clock)
    await tickets.receive(mail(1))
    await mails.bounced(ZHANG.upper())
    await mails.bounced("nobody@x.cn")
    assert await bounced() == [ZHANG]
    await tickets.receive(mail(2, writer=Writer.AUTO_REPLY))
    assert await bounced() == [ZHANG]
    await tickets.receive(mail(3))
    assert await bounced() == []


async def test_an_answer_is_threaded_below_what_this_person_wrote(
    tickets: TicketService, database: Database, clock: FakeClock
) -> None:
    mails = Mails(database, clock)
    first = await tickets.receive(mail(1))
    await tickets.receive(mail(2, proved=first.ticket))
    await tickets.receive(mail(3, LI, proved=first.ticket))
    await tickets.receive(mail(4, proved=first.ticket, writer=Writer.AUTO_REPLY))
    assert await mails.thread(first.ticket, ZHANG) == ("<2@x.cn>", "<1@x.cn>")
    found = await mails.filed(first.contact_id)
    assert found is not None
    assert (found.ticket, found.sender.value, found.facts.subject) == (
        first.ticket, ZHANG, "打印机 1",
    )  # fmt: skip


async def test_the_signing_key_is_made_once_for_every_process(
    database: Database, clock: FakeClock
) -> None:
    one, other = Keys(database, clock), Keys(database, clock)
    key = await one.signing()
    assert len(key) == 32
    assert await other.signing() == await one.signing() == key
