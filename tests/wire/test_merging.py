"""Tickets that become one or two, people who become one, and what was said of a fault."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from contactd.errors import ActionNotAllowed, NotFound, PermanentFailure
from contactd.routing.clocks import Metric
from contactd.routing.clocks import State as ClockState
from contactd.routing.notify import Reason
from contactd.routing.promises import clocks
from contactd.store.engine import Database
from contactd.store.schema import acts, contacts, people, tickets
from contactd.store.views import Views
from contactd.tickets.contact import Contact, MailFacts, Medium
from contactd.tickets.describing import Description
from contactd.tickets.model import Category, Classification
from contactd.tickets.people import Card
from contactd.tickets.priority import Impact, Priority, Urgency
from contactd.tickets.service import Outdated, Taken
from contactd.tickets.states import Action, State
from tests.fakes.clock import FakeClock
from tests.fakes.desk import Desk, hours, minutes
from tests.fakes.history import CALLER, document

AMY = "user:amy"
STRANGER = "13712340001"
OTHER = "13712340002"
KEY = "0123456789abcdef"


@pytest.fixture
async def desk(database: Database, clock: FakeClock) -> Desk:
    desk = Desk(database, clock)
    await desk.load(**document())
    return desk


async def rows(desk: Desk, statement: Any) -> list[dict[str, Any]]:
    async with desk.database.reading() as connection:
        return [dict(row) for row in (await connection.execute(statement)).mappings()]


async def ticket_row(desk: Desk, number: str) -> dict[str, Any]:
    return (await rows(desk, select(tickets).where(tickets.c.number == number)))[0]


async def person_of(desk: Desk, number: str) -> int:
    return int((await ticket_row(desk, number))["requester_id"])


async def tail(desk: Desk, number: str, *actions: str) -> list[tuple[str, str, Any]]:
    entries = await desk.journal(number)
    return [(each.actor, each.action, each.body) for each in entries if each.action in actions]


async def two(desk: Desk) -> tuple[str, str]:
    """Return two open tickets of two strangers, by text."""
    return await desk.write(STRANGER), await desk.write(OTHER)


# Merging tickets


async def test_a_merged_ticket_is_cancelled_and_both_journals_say_so(desk: Desk) -> None:
    one, other = await two(desk)
    await desk.when(desk.tickets.merge(one, other, actor=AMY))
    assert await tail(desk, one, "cancelled") == [(AMY, "cancelled", {"into": other})]
    assert await tail(desk, other, "ticket.merged") == [
        (AMY, "ticket.merged", {"from": one, "contacts": 1})
    ]
    gone, kept = await ticket_row(desk, one), await ticket_row(desk, other)
    assert (gone["state"], gone["merged_into"]) == ("cancelled", kept["id"])
    moved = await rows(desk, select(contacts).where(contacts.c.ticket_id == kept["id"]))
    assert len(moved) == 2


async def test_who_was_told_of_a_merged_ticket_is_told_no_more(desk: Desk) -> None:
    one, other = await two(desk)
    await desk.when(desk.tickets.take(other, "wang", how="web"))
    await desk.when(desk.tickets.merge(one, other, actor=AMY))
    desk.forget()
    await desk.fast_forward(hours(2))
    assert desk.told(one) == []
    terms = await desk.core.terms()
    found = clocks(await desk.journal(one), terms)
    assert {each.state for each in found} <= {ClockState.CANCELLED, ClockState.STOPPED}


async def test_a_promise_to_answer_goes_on_where_the_contact_is(desk: Desk) -> None:
    other = await desk.write(OTHER)
    await desk.when(desk.tickets.answered(other, actor="engineer:wang", how="call_back"))
    await desk.fast_forward(minutes(5))
    began = desk.clock.now()
    one = await desk.write(STRANGER)
    await desk.fast_forward(minutes(10))
    await desk.when(desk.tickets.merge(one, other, actor=AMY))
    found = clocks(await desk.journal(other), await desk.core.terms())
    running = [
        each for each in found if each.metric is Metric.ANSWER and each.state is ClockState.RUNNING
    ]
    assert [each.started_at for each in running] == [began]


async def test_what_was_answered_before_the_merge_is_not_asked_for_again(desk: Desk) -> None:
    one, other = await two(desk)
    for number in (one, other):
        await desk.when(desk.tickets.answered(number, actor="engineer:wang", how="call_back"))
    await desk.when(desk.tickets.merge(one, other, actor=AMY))
    found = clocks(await desk.journal(other), await desk.core.terms())
    assert all(each.state is not ClockState.RUNNING for each in found if each.metric == "answer")
    assert await tail(desk, other, "contact.added") == []


async def test_a_call_that_nobody_took_is_missed_in_the_other_ticket_too(desk: Desk) -> None:
    other = await desk.write(OTHER)
    await desk.when(desk.tickets.answered(other, actor="engineer:wang", how="call_back"))
    one = await desk.call(STRANGER)
    desk.forget()
    await desk.when(desk.tickets.merge(one, other, actor=AMY))
    await desk.fast_forward(minutes(5))
    assert Reason.MISSED in {reason for _, _, reason in desk.told(other)}


@pytest.mark.parametrize("times", [1, 2])
async def test_who_names_a_merged_ticket_reaches_the_other(desk: Desk, times: int) -> None:
    one, other = await two(desk)
    await desk.when(desk.tickets.merge(one, other, actor=AMY))
    if times == 2:
        third = await desk.write("13712340003")
        await desk.when(desk.tickets.merge(other, third, actor=AMY))
        other = third
    desk.clock.advance(hours(9))  # later than what joins by itself
    assert await desk.write(STRANGER, text=f"工单{one}怎么样了？") == other
    mail = MailFacts(subject="x", message_id="<1@x.cn>", proved=one)
    assert await desk.write("somebody@x.cn", mail=mail) == other
    progress = await desk.tickets.progress(one)
    assert progress is not None
    assert progress.number == other


async def test_an_answer_to_a_mail_that_moved_goes_where_the_mail_is(desk: Desk) -> None:
    first = MailFacts(subject="打不开", message_id="<first@x.cn>")
    one = await desk.write("a@x.cn", mail=first)
    other = await desk.write(OTHER)
    await desk.when(desk.tickets.merge(one, other, actor=AMY))
    answer = MailFacts(subject="Re: 打不开", message_id="<2@x.cn>", references=("<first@x.cn>",))
    assert await desk.write("b@x.cn", mail=answer) == other


async def test_only_open_tickets_are_merged_and_never_into_themselves(desk: Desk) -> None:
    one, other = await two(desk)
    with pytest.raises(ActionNotAllowed):
        await desk.tickets.merge(one, one, actor=AMY)
    await desk.when(desk.tickets.act(other, Action.CANCEL, actor=AMY))
    for pair in ((one, other), (other, one)):
        with pytest.raises(ActionNotAllowed):
            await desk.tickets.merge(*pair, actor=AMY)
    with pytest.raises(NotFound):
        await desk.tickets.merge(one, "26112000999", actor=AMY)
    assert (await ticket_row(desk, one))["state"] == "new"


# Splitting


async def test_a_contact_that_joined_gets_a_ticket_of_its_own(desk: Desk) -> None:
    ticket = await desk.write(STRANGER)
    assert await desk.write(STRANGER, text="还有，扫描仪也坏了") == ticket
    joined = (await rows(desk, select(contacts).order_by(contacts.c.id)))[-1]["id"]
    number = await desk.when(desk.tickets.split(joined, actor=AMY))
    assert number != ticket
    assert (await tail(desk, ticket, "ticket.separated"))[0][0] == AMY
    with pytest.raises(ActionNotAllowed):
        await desk.tickets.split(joined, actor=AMY)
    with pytest.raises(NotFound):
        await desk.tickets.split(10**6, actor=AMY)


async def test_what_was_merged_can_be_split_off_again_and_what_opened_it_cannot(desk: Desk) -> None:
    one, other = await two(desk)  # the contact that comes over is the older one
    await desk.when(desk.tickets.merge(one, other, actor=AMY))
    moved, own = [row["id"] for row in await rows(desk, select(contacts).order_by(contacts.c.id))]
    with pytest.raises(ActionNotAllowed):
        await desk.tickets.split(own, actor=AMY)
    assert await desk.when(desk.tickets.split(moved, actor=AMY)) not in (one, other)


# What was said of a fault


async def test_a_description_is_kept_and_its_impact_decides_the_priority(desk: Desk) -> None:
    ticket = await desk.write(STRANGER)
    said = Description(
        what="一直报错", device="PC-0815", impact=Impact.COMPANY, system="ERP", title="ERP打不开"
    )
    await desk.when(desk.tickets.describe(ticket, said, actor=AMY))
    row = await ticket_row(desk, ticket)
    assert row["standard"] == {"what": "一直报错", "device": "PC-0815", "impact": 1}
    assert (row["title"], row["system"], row["priority"]) == ("ERP打不开", "ERP", "P2")
    assert await tail(desk, ticket, "ticket.described") == [
        (AMY, "ticket.described", {"what": "一直报错", "device": "PC-0815"})
    ]
    before = len(await desk.journal(ticket))
    await desk.when(desk.tickets.describe(ticket, said, actor=AMY))
    assert len(await desk.journal(ticket)) == before


async def test_that_it_is_one_person_is_said_even_if_that_was_assumed(desk: Desk) -> None:
    ticket = await desk.write(STRANGER)
    await desk.tickets.describe(ticket, Description(impact=Impact.PERSON), actor=AMY)
    assert (await ticket_row(desk, ticket))["standard"] == {"impact": 3}
    assert len(await tail(desk, ticket, "classified")) == 1


async def test_who_saw_an_older_description_does_not_overwrite_a_newer(desk: Desk) -> None:
    ticket = await desk.write(STRANGER)
    seen = len(await desk.journal(ticket))
    await desk.tickets.comment(ticket, "x", actor=AMY)  # changes nothing of it
    await desk.tickets.describe(ticket, Description(device="A"), actor=AMY, seen=seen)
    with pytest.raises(Outdated):
        await desk.tickets.describe(ticket, Description(device="B"), actor=AMY, seen=seen)
    said = Classification(impact=Impact.COMPANY)
    await desk.tickets.classify(ticket, said, actor=AMY, seen=seen)
    with pytest.raises(Outdated):
        await desk.tickets.classify(ticket, said, actor=AMY, seen=seen)
    assert (await ticket_row(desk, ticket))["standard"] == {"device": "A"}


async def test_of_two_who_hand_over_at_once_the_second_looks_again(desk: Desk) -> None:
    ticket = await desk.write(STRANGER)
    seen = len(await desk.journal(ticket))
    await desk.tickets.hand_over(ticket, "wang", actor=AMY, seen=seen)
    with pytest.raises(Outdated):
        await desk.tickets.hand_over(ticket, "li", actor=AMY, seen=seen)
    with pytest.raises(Outdated):
        await desk.tickets.assign_team(ticket, "network", actor=AMY, seen=seen)


async def test_a_comment_of_one_form_is_written_once(desk: Desk) -> None:
    ticket = await desk.write(STRANGER)
    for key in (KEY, KEY, "fedcba9876543210", "", ""):
        await desk.tickets.comment(ticket, " 已联系供应商 ", actor=AMY, key=key)
    noted = await tail(desk, ticket, "comment")
    assert noted == [(AMY, "comment", {"note": "已联系供应商"})] * 4
    with pytest.raises(PermanentFailure):
        await desk.tickets.comment(ticket, " \n", actor=AMY)


# Whose it is


async def test_a_caller_who_turns_out_to_be_somebody_is_completed(desk: Desk) -> None:
    ticket = await desk.write(STRANGER)
    person = await person_of(desk, ticket)
    card = Card(name="周敏", department="财务", site="gz", vip=True, mails=("Zhou@X.cn",))
    await desk.when(desk.tickets.complete_person(person, card, actor=AMY))
    row = await ticket_row(desk, ticket)
    assert (row["site"], row["priority"]) == ("gz", "P3")
    assert "VIP" in row["priority_reason"] or row["priority"] == "P3"
    assert [each[1] for each in await tail(desk, ticket, "site.changed", "contract.changed")] == [
        "site.changed", "contract.changed",
    ]  # fmt: skip
    detail = await Views(desk.database, desk.clock).ticket(ticket)
    found = detail.requester
    assert (found.name, found.department, found.vip) == ("周敏", "财务", True)
    assert (found.numbers, found.mails) == (("+8613712340001",), ("zhou@x.cn",))
    noted = await rows(desk, select(acts))
    assert [(each["actor"], each["action"]) for each in noted] == [(AMY, "person.changed")]
    assert "周敏" not in str(noted)
    mail = MailFacts(subject="x", message_id="<9@x.cn>")
    assert await desk.write("zhou@x.cn", mail=mail) == ticket


async def test_that_somebody_is_a_vip_raises_their_open_tickets(desk: Desk) -> None:
    ticket = await desk.write(STRANGER)
    said = Classification(impact=Impact.COMPANY, urgency=Urgency.LOW)
    await desk.tickets.classify(ticket, said, actor=AMY)
    person = await person_of(desk, ticket)
    await desk.tickets.complete_person(person, Card(vip=True), actor=AMY)
    assert (await ticket_row(desk, ticket))["priority"] == Priority.P2


async def test_an_address_of_somebody_else_is_refused_and_says_whose(desk: Desk) -> None:
    one, other = await two(desk)
    person, owner = await person_of(desk, one), await person_of(desk, other)
    card = Card(name="x", numbers=("137 1234 0002",))
    with pytest.raises(Taken) as taken:
        await desk.tickets.complete_person(person, card, actor=AMY)
    assert taken.value.owner == owner
    assert (await rows(desk, select(people).where(people.c.id == person)))[0]["name"] == ""


@pytest.mark.parametrize(
    "card", [Card(numbers=("abc",)), Card(mails=("x",)), Card(mails=("a b@x",)), Card(site="mars")]
)
async def test_what_is_no_address_or_site_is_refused(desk: Desk, card: Card) -> None:
    person = await person_of(desk, await desk.write(STRANGER))
    with pytest.raises(PermanentFailure):
        await desk.tickets.complete_person(person, card, actor=AMY)


async def test_who_is_kept_in_the_desk_file_is_changed_there(desk: Desk) -> None:
    person = await person_of(desk, await desk.write(CALLER))
    other = await person_of(desk, await desk.write(STRANGER))
    with pytest.raises(PermanentFailure):
        await desk.tickets.complete_person(person, Card(name="x"), actor=AMY)
    with pytest.raises(PermanentFailure):
        await desk.tickets.merge_people(person, other, actor=AMY)
    with pytest.raises(NotFound):
        await desk.tickets.complete_person(10**6, Card(name="x"), actor=AMY)


async def test_two_people_become_one_with_all_that_is_theirs(desk: Desk) -> None:
    one, other = await two(desk)
    person, into = await person_of(desk, one), await person_of(desk, other)
    await desk.tickets.complete_person(person, Card(name="周敏"), actor=AMY)
    await desk.when(desk.tickets.merge_people(person, into, actor=AMY))
    assert [await person_of(desk, each) for each in (one, other)] == [into, into]
    assert await rows(desk, select(people).where(people.c.id == person)) == []
    found = (await Views(desk.database, desk.clock).ticket(one)).requester
    assert (found.name, found.numbers) == ("周敏", ("+8613712340002", "+8613712340001"))
    assert await desk.write(STRANGER) in (one, other)
    with pytest.raises(PermanentFailure):
        await desk.tickets.merge_people(into, into, actor=AMY)


async def test_a_ticket_given_to_somebody_else_goes_where_they_are(desk: Desk) -> None:
    ticket = await desk.write(STRANGER)
    liang = await person_of(desk, await desk.call(CALLER))
    said = Classification(impact=Impact.COMPANY, urgency=Urgency.LOW, category=Category.NETWORK)
    await desk.tickets.classify(ticket, said, actor=AMY)
    await desk.when(desk.tickets.set_requester(ticket, liang, actor=AMY))
    row = await ticket_row(desk, ticket)
    assert (row["requester_id"], row["site"], row["priority"]) == (liang, "gz", "P2")
    told = await tail(desk, ticket, "requester.changed", "contract.changed", "calendar.changed")
    assert told == [
        (AMY, "requester.changed", {"was": "+8613712340001", "requester": "梁总"}),
        (AMY, "contract.changed", {"contract": "gold.1"}),
        (AMY, "calendar.changed", {"calendar": "gz-hours.1"}),
    ]
    before = len(await desk.journal(ticket))
    await desk.tickets.set_requester(ticket, liang, actor=AMY)
    assert len(await desk.journal(ticket)) == before
    with pytest.raises(NotFound):
        await desk.tickets.set_requester(ticket, 10**6, actor=AMY)


# Writing to them by mail


async def test_a_mail_goes_out_once_with_its_lines_and_its_subject(desk: Desk) -> None:
    ticket = await desk.call(CALLER)
    write = desk.core.follow_up.write
    words = "您好，\n\n配件明天到。"
    for _ in range(2):
        await desk.when(
            write(ticket, actor=AMY, words=words, key=KEY, medium=Medium.MAIL, subject="配件")
        )
    said = [each.notification for each in desk.everything]
    (mail,) = [each for each in said if each.reason is Reason.SAID]
    assert (mail.medium, mail.address) == (Medium.MAIL, "liang@example.com")
    assert (mail.facts["note"], mail.facts["subject"]) == (words, "配件")
    assert await tail(desk, ticket, "requester.written_to") == [
        (AMY, "requester.written_to", {"medium": "mail", "note": words, "subject": "配件"})
    ]


async def test_who_has_no_mail_address_cannot_be_sent_one(desk: Desk) -> None:
    ticket = await desk.write(STRANGER)
    with pytest.raises(PermanentFailure):
        await desk.core.follow_up.draft(ticket, "x", Medium.MAIL)


async def test_a_web_contact_may_come_a_second_time(desk: Desk, clock: FakeClock) -> None:
    """What moved to another ticket is known there, too."""
    contact = Contact(
        medium=Medium.WEB, external_id="form-1", received_at=clock.now(), from_value=STRANGER,
        text="x",
    )  # fmt: skip
    first = await desk.tickets.receive(contact)
    other = await desk.write(OTHER)
    await desk.when(desk.tickets.merge(first.ticket, other, actor=AMY))
    clock.advance(timedelta(minutes=1))
    again = await desk.tickets.receive(contact)
    assert (again.ticket, again.opened, again.new_contact) == (other, False, False)
    assert (await ticket_row(desk, first.ticket))["state"] == State.CANCELLED
