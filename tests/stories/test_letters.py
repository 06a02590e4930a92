"""What requesters hear unasked: that there is a ticket, and how it goes on."""

from dataclasses import replace

import pytest

from contactd.routing import closing
from contactd.routing.closing import TOLD_AGAIN_AFTER
from contactd.routing.follow_up import TOO_MANY
from contactd.routing.following import follow
from contactd.routing.notify import MOST_COURTESIES, REQUESTER, Notification, Reason
from contactd.tickets.contact import Contact, MailFacts, Medium, Outcome, Writer
from contactd.tickets.dispatching import Step
from contactd.tickets.states import Action, State
from tests.fakes.desk import AT_GZ, BY_PHONE, Desk, calm, engineers, hours, minutes

QIAN = "qian@x.cn"  # of the desk's people, in Chinese
NOBODY = "nobody@example.org"


def heard(desk: Desk, ticket: str = "") -> list[tuple[Medium, Reason, str]]:
    """Return what requesters heard unasked: by what, why, and the stage."""
    notes = [each.notification for each in desk.courtesies]
    assert {note.recipient for note in notes} <= {REQUESTER}
    return [
        (note.medium, note.reason, note.facts.get("stage", ""))
        for note in notes
        if ticket in ("", note.ticket)
    ]


def stages(desk: Desk, ticket: str = "") -> list[str]:
    return [stage for _, reason, stage in heard(desk, ticket) if reason is Reason.PROGRESS]


def last(desk: Desk) -> Notification:
    return desk.courtesies[-1].notification


async def taken(desk: Desk) -> str:
    """Let somebody write and 王伟 take the ticket; what they heard is forgotten."""
    ticket = await desk.write(AT_GZ)
    await desk.press("wang", "1")
    desk.forget()
    return ticket


# That there is a ticket --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sender", "mail", "medium"),
    [(AT_GZ, None, Medium.TEXT), (QIAN, MailFacts(), Medium.MAIL)],
)
async def test_who_writes_has_the_number_at_once_by_what_they_wrote(
    desk: Desk, sender: str, mail: MailFacts | None, medium: Medium
) -> None:
    ticket = await desk.write(sender, text="打印机坏了", mail=mail)
    assert heard(desk) == [(medium, Reason.RECEIVED, "")]
    note = last(desk)
    assert (note.ticket, note.language) == (ticket, "zh")
    assert note.address in (f"+86{AT_GZ}", QIAN)
    assert desk.everything[0].notification == note, "before anybody is paged"


async def test_a_stranger_who_writes_a_mail_has_an_answer_too(desk: Desk) -> None:
    await desk.write(NOBODY, mail=MailFacts(subject="VPN"))
    assert heard(desk) == [(Medium.MAIL, Reason.RECEIVED, "")]
    assert last(desk).address == NOBODY
    assert last(desk).facts["title"] == "VPN"


@pytest.mark.parametrize("writer", [each for each in Writer if each is not Writer.PERSON])
async def test_no_machine_is_answered(desk: Desk, writer: Writer) -> None:
    ticket = await desk.write(NOBODY, mail=MailFacts(writer=writer))
    assert heard(desk) == []
    assert await desk.journal(ticket, "opened"), "but it has its ticket"


async def test_a_mail_of_which_nobody_knows_who_wrote_it_is_not_answered(desk: Desk) -> None:
    await desk.write(NOBODY, Medium.MAIL)
    assert heard(desk) == []


async def test_who_calls_has_heard_the_number(desk: Desk) -> None:
    await desk.call(AT_GZ, Outcome.UNREACHED)
    assert heard(desk) == []


async def test_who_writes_again_is_not_told_again(desk: Desk) -> None:
    ticket = await desk.write(AT_GZ)
    assert await desk.write(AT_GZ, text="还没好吗") == ticket
    assert heard(desk) == [(Medium.TEXT, Reason.RECEIVED, "")]


async def test_what_came_hours_ago_is_not_confirmed_any_more(desk: Desk) -> None:
    """The daemon was away: by now they have called, or somebody has called them."""
    desk.mails.down = True
    await desk.write(QIAN, mail=MailFacts())
    desk.mails.down = False
    await desk.tickets.receive(_contact(desk))
    desk.clock.advance(closing.STALE)
    await desk.drain()
    tickets = {each.notification.ticket for each in desk.courtesies}
    assert len(tickets) == 1, "that of the mail that only waited for the smart host"


def _contact(desk: Desk) -> Contact:
    return Contact(
        medium=Medium.TEXT, external_id="late", received_at=desk.clock.now(),
        from_value="13700000009", text="?",
    )  # fmt: skip


async def test_two_programs_that_answer_each_other_stop(desk: Desk) -> None:
    """Nothing in its mails says that it is one, and each has a subject of its own."""
    tickets = []
    for number in range(20):
        tickets.append(await desk.write(NOBODY, mail=MailFacts(subject=f"Re: {number}")))
        await desk.tickets.act(tickets[-1], Action.CANCEL, actor="user:desk")
        await desk.fast_forward(minutes(1))
    assert len(set(tickets)) == 20, "each of them is kept"
    assert len(heard(desk)) == MOST_COURTESIES
    said = [len(await desk.journal(ticket, TOO_MANY)) for ticket in tickets]
    assert said == [0] * MOST_COURTESIES + [1] * (20 - MOST_COURTESIES)
    await desk.fast_forward(hours(1))
    await desk.write(NOBODY, mail=MailFacts(subject="really"))
    assert len(heard(desk)) == MOST_COURTESIES + 1


async def test_the_limit_of_one_address_is_nobody_elses(desk: Desk) -> None:
    for number in range(MOST_COURTESIES + 1):
        ticket = await desk.write(NOBODY, mail=MailFacts(subject=str(number)))
        await desk.tickets.act(ticket, Action.CANCEL, actor="user:desk")
    desk.forget()
    await desk.write(QIAN, mail=MailFacts())
    assert len(heard(desk)) == 1
    await desk.press("wang", "1")
    assert stages(desk) == ["taken"]


async def test_that_too_many_were_sent_is_said_once_a_ticket(desk: Desk) -> None:
    ticket = await taken(desk)
    for engineer in ["li", "wang"] * MOST_COURTESIES:
        await desk.when(desk.tickets.hand_over(ticket, engineer, actor="user:desk"))
    assert len(heard(desk)) == MOST_COURTESIES - 2, "two were sent before"
    assert len(await desk.journal(ticket, TOO_MANY)) == 1


# How it goes on ----------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["1", "4"])
async def test_the_requester_hears_who_has_taken_it(desk: Desk, key: str) -> None:
    ticket = await desk.write(AT_GZ)
    desk.forget()
    await desk.press("wang", key)
    assert stages(desk) == ["taken"]
    assert last(desk).facts["engineer"] == "wang"
    (entry,) = await desk.journal(ticket, closing.TOLD)
    assert entry.body == {"stage": "taken", "engineer": "wang", "entry": entry.seq - 1}


async def test_who_has_spoken_to_the_engineer_knows_who_it_is(desk: Desk) -> None:
    await desk.call(AT_GZ, answered_by="wang")
    assert heard(desk) == []
    ticket = await desk.write("13700000001")
    desk.forget()
    await desk.when(desk.tickets.answered(ticket, actor="engineer:wang", how="call_back"))
    assert heard(desk) == []


async def test_news_come_at_most_every_ten_minutes_and_only_the_latest(desk: Desk) -> None:
    ticket = await taken(desk)
    await desk.fast_forward(minutes(2))
    await desk.when(desk.tickets.note(ticket, "on_my_way", actor="engineer:wang", body={}))
    await desk.fast_forward(minutes(3))
    await desk.when(desk.tickets.act(ticket, Action.HOLD, actor="engineer:wang", note="等备件"))
    assert heard(desk) == []
    before = desk.clock.now()
    await desk.fast_forward(minutes(10))
    assert stages(desk) == ["held"]
    assert last(desk).facts["note"] == "等备件"
    assert desk.courtesies[0].at - before == minutes(5)


async def test_a_second_engineer_is_told_at_once(desk: Desk) -> None:
    ticket = await taken(desk)
    await desk.fast_forward(minutes(1))
    await desk.when(desk.tickets.hand_over(ticket, "li", actor="user:desk"))
    await desk.press("li", "1")
    assert await desk.assignee(ticket) == "li"
    assert stages(desk) == ["taken"]
    assert last(desk).facts["engineer"] == "li"


async def test_what_was_told_is_not_told_again(desk: Desk) -> None:
    ticket = await taken(desk)
    for _ in range(3):
        await desk.fast_forward(2 * TOLD_AGAIN_AFTER)
        await desk.when(desk.tickets.updated(ticket, actor="engineer:wang", note="等备件"))
    assert stages(desk) == ["updated"]


async def test_a_pause_of_which_nobody_heard_needs_no_end(desk: Desk) -> None:
    ticket = await taken(desk)
    await desk.when(desk.tickets.act(ticket, Action.HOLD, actor="engineer:wang"))
    await desk.fast_forward(minutes(2))
    await desk.when(desk.tickets.act(ticket, Action.RESUME, actor="engineer:wang"))
    await desk.fast_forward(hours(0.5))
    assert heard(desk) == []
    await desk.when(desk.tickets.act(ticket, Action.HOLD, actor="engineer:wang"))
    await desk.fast_forward(hours(0.5))
    await desk.when(desk.tickets.act(ticket, Action.RESUME, actor="engineer:wang"))
    assert stages(desk) == ["held", "resumed"]


async def test_an_update_without_words_is_none(desk: Desk) -> None:
    ticket = await taken(desk)
    await desk.fast_forward(hours(0.5))
    await desk.when(desk.tickets.updated(ticket, actor="engineer:wang", note=""))
    assert heard(desk) == []


async def test_a_visit_is_followed_from_the_code_to_the_door(desk: Desk) -> None:
    ticket = await taken(desk)
    await desk.when(desk.tickets.dispatch(ticket, "wang", actor="user:desk"))
    await desk.press("wang", "1")
    assert desk.told()[-1] == (REQUESTER, Medium.TEXT, Reason.CODE)
    assert heard(desk) == [], "the code comes with a name"
    await desk.fast_forward(minutes(20))
    step = desk.tickets.dispatch_step
    await desk.when(step(ticket, Step.SET_OUT, actor="engineer:wang"))
    await desk.fast_forward(minutes(20))
    await desk.when(step(ticket, Step.ARRIVE, actor="engineer:wang"))
    assert stages(desk) == ["on_way", "arrived"]
    assert last(desk).facts["engineer"] == "wang"


async def test_a_ticket_that_was_only_given_to_somebody_is_not_taken_yet(desk: Desk) -> None:
    ticket = await desk.write(AT_GZ)
    desk.forget()
    await desk.when(desk.tickets.hand_over(ticket, "li", actor="user:desk"))
    assert heard(desk) == []
    await desk.press("li", "1")
    assert stages(desk) == ["taken"]


async def test_what_waited_is_dropped_once_it_is_solved(desk: Desk) -> None:
    ticket = await taken(desk)
    await desk.when(desk.tickets.updated(ticket, actor="engineer:wang", note="快好了"))
    await desk.when(desk.tickets.act(ticket, Action.RESOLVE, actor="engineer:wang"))
    await desk.fast_forward(hours(1))
    assert heard(desk) == []
    assert (REQUESTER, Medium.TEXT, Reason.SOLVED) in desk.told()


async def test_after_not_solved_who_takes_it_is_news_again(desk: Desk) -> None:
    ticket = await taken(desk)
    await desk.when(desk.tickets.act(ticket, Action.RESOLVE, actor="engineer:wang"))
    await desk.when(desk.tickets.confirm(ticket, solved=False, actor=REQUESTER, how="mail"))
    assert await desk.state(ticket) is State.IN_PROGRESS
    await desk.press("li", "1")
    assert stages(desk) == ["taken"]


async def test_nobody_is_rung_to_hear_how_it_goes_on(desk: Desk) -> None:
    ticket = await desk.call(BY_PHONE, Outcome.UNREACHED)
    await desk.press("wang", "1")
    await desk.fast_forward(hours(0.5))
    await desk.when(desk.tickets.updated(ticket, actor="engineer:wang", note="等备件"))
    assert heard(desk) == []
    assert await desk.journal(ticket, closing.TOLD) == []


async def test_what_happened_hours_ago_is_no_news(desk: Desk) -> None:
    ticket = await taken(desk)
    await desk.tickets.updated(ticket, actor="engineer:wang", note="等备件")
    desk.clock.advance(closing.STALE + TOLD_AGAIN_AFTER)
    await desk.drain()
    assert heard(desk) == []


async def test_a_restart_between_two_news_tells_nothing_twice(desk: Desk) -> None:
    ticket = await taken(desk)
    await desk.when(desk.tickets.updated(ticket, actor="engineer:wang", note="等备件"))
    desk.restart()
    await desk.fast_forward(hours(0.5))
    desk.restart()
    await desk.fast_forward(hours(0.5))
    assert stages(desk) == ["updated"]


async def test_the_answer_goes_to_the_address_that_was_written_from(desk: Desk) -> None:
    """Somebody with two: it is of no use in the one that they do not look at."""
    ticket = await desk.write(QIAN, mail=MailFacts())
    case, world = await desk.case(ticket), await desk.core.follow_up._world()
    mine = case.requester.addresses
    second = replace(mine[-1], kind="mail", value="qian@home.example")
    requester = replace(case.requester, addresses=(*mine, second))
    fresh = replace(case, seen=0, requester=requester)

    def told(**wrote_from: str) -> str:
        from_ = {Medium(medium): address for medium, address in wrote_from.items()}
        messages = follow(replace(fresh, wrote_from=from_), world).messages
        notes = [each.notification for each in messages]
        return next(note.address for note in notes if note.reason is Reason.RECEIVED)

    assert told() == QIAN
    assert told(mail="qian@home.example") == "qian@home.example"
    assert told(mail="stranger@example.org") == QIAN, "whoever took part is not the requester"


async def test_who_has_two_mailboxes_is_answered_at_the_one_they_wrote_from(desk: Desk) -> None:
    other = "q@home.cn"
    person = {"key": "qian", "name": "钱", "site": "gz", "numbers": [], "mails": [QIAN, other]}
    await desk.load(people=[person])
    await desk.write(other, Medium.MAIL, mail=MailFacts())
    assert [last(desk).reason, last(desk).address] == [Reason.RECEIVED, other]


async def test_who_is_forged_is_told_nothing(desk: Desk) -> None:
    await desk.write(QIAN, Medium.MAIL, mail=MailFacts(forged=True))
    assert heard(desk) == []


async def solved(desk: Desk) -> str:
    """Let 钱 write, 王伟 take the ticket and solve it, and forget who rang."""
    await desk.load(**calm())
    ticket = await desk.write(QIAN, Medium.MAIL, mail=MailFacts())
    await desk.press("wang", "1")
    await desk.when(desk.tickets.act(ticket, Action.RESOLVE, actor="engineer:wang"))
    desk.forget()
    return ticket


async def test_an_ok_that_closes_the_ticket_wakes_nobody(desk: Desk) -> None:
    ticket = await solved(desk)
    await desk.write(QIAN, Medium.MAIL, mail=MailFacts(reply="OK", proved=ticket))
    confirmed = desk.tickets.confirm(ticket, solved=True, actor="requester", how="mail")
    await desk.when(confirmed)
    await desk.fast_forward(minutes(5))
    assert desk.phones_that_rang() == []


async def test_an_ok_that_nobody_believes_is_read_by_a_person_after_a_minute(desk: Desk) -> None:
    ticket = await solved(desk)
    await desk.write(QIAN, Medium.MAIL, mail=MailFacts(reply="OK", proved=ticket))
    await desk.fast_forward(minutes(0.9))
    assert desk.phones_that_rang() == []
    await desk.fast_forward(minutes(0.2))
    assert desk.phones_that_rang() == ["wang"]


async def test_words_of_the_engineer_who_has_the_ticket_wake_nobody(desk: Desk) -> None:
    mailed = [each | {"mails": ["wang@x.cn"]} if each["key"] == "wang" else each
              for each in engineers()]  # fmt: skip
    await desk.load(**calm(), engineers=mailed)
    ticket = await desk.write(QIAN, Medium.MAIL, mail=MailFacts())
    await desk.press("wang", "1")
    desk.forget()
    note = MailFacts(proved=ticket)
    assert await desk.write("wang@x.cn", Medium.MAIL, mail=note) == ticket
    await desk.fast_forward(minutes(5))
    assert desk.phones_that_rang() == []
    await desk.write(QIAN, Medium.MAIL, mail=note)
    assert desk.phones_that_rang() == ["wang"], "the requester's words do"
