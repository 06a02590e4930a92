"""Texts: a ticket for every one; a word or a digit is enough where it is clear what it means."""

from datetime import timedelta

import pytest

from contactd.routing import closing
from contactd.routing.follow_up import TOO_MANY
from contactd.routing.needs import REPLY_HEARD
from contactd.routing.notify import MOST_COURTESIES, REQUESTER, Notification, Reason
from contactd.routing.words import texts
from contactd.settings import Settings, SmsSettings
from contactd.store.texts import Texts
from contactd.tickets.contact import MailFacts, Medium, Outcome, Writer
from contactd.tickets.model import RATED, Classification
from contactd.tickets.phone import address
from contactd.tickets.priority import Impact, Urgency
from contactd.tickets.states import Action, State
from tests.fakes.desk import (
    AT_GZ,
    BY_MAIL,
    BY_PHONE,
    STRANGER,
    VIP,
    Desk,
    Told,
    calm,
    engineers,
    hours,
    minutes,
)

WANG, LI, ZHAO = (f"1380000000{number}" for number in (1, 2, 6))
QIAN = "qian@x.cn"
DAY = timedelta(days=1)
BY_TEXT = {"engineers": engineers(page=["text"]), **calm()}


def answers(desk: Desk) -> list[tuple[str, str]]:
    """Return who was told what of a reply, in order."""
    notes = [each.notification for each in desk.courtesies]
    return [(note.recipient, note.facts["heard"]) for note in notes if note.reason is Reason.HEARD]


def confirmations(desk: Desk) -> list[str]:
    """Return the tickets whose requester was told their number."""
    notes = [each.notification for each in desk.courtesies]
    return [note.ticket for note in notes if note.reason is Reason.RECEIVED]


def sent(desk: Desk, reason: Reason) -> list[Notification]:
    notes = [each.notification for each in desk.everything]
    return [note for note in notes if note.reason is reason]


async def marks(desk: Desk, ticket: str) -> list[int]:
    return [entry.body["mark"] for entry in await desk.journal(ticket, RATED)]


async def solved(desk: Desk, requester: str = AT_GZ) -> str:
    """Let 王伟 speak to somebody and solve it; they are asked for their word."""
    ticket = await desk.call(requester, answered_by="wang")
    await desk.when(desk.tickets.act(ticket, Action.RESOLVE, actor="engineer:wang"))
    return ticket


async def closed(desk: Desk, requester: str = AT_GZ) -> str:
    ticket = await solved(desk, requester)
    await desk.when(desk.tickets.confirm(ticket, solved=True, actor=REQUESTER, how="web"))
    return ticket


async def surveyed(desk: Desk, requester: str = AT_GZ) -> str:
    """Let a day pass after the end of a ticket: its requester was asked for a mark."""
    ticket = await closed(desk, requester)
    await desk.fast_forward(1.1 * DAY)
    assert [note.ticket for note in sent(desk, Reason.SURVEY)] == [ticket]
    desk.forget()
    return ticket


async def told_next(desk: Desk) -> list[Told]:
    """Return what engineers are told in the next half an hour: nothing if all is well."""
    desk.forget()
    await desk.fast_forward(minutes(30))
    return [told for told in desk.told() if told[0] != REQUESTER]


# What belongs to which ticket


async def test_a_text_has_a_ticket_and_is_told_its_number(desk: Desk) -> None:
    ticket = await desk.write(AT_GZ, text="打印机坏了")
    (note,) = sent(desk, Reason.RECEIVED)
    assert (note.medium, note.address, note.recipient) == (
        Medium.TEXT,
        f"+86{AT_GZ}",
        REQUESTER,
    )
    assert all(ticket in text for text in texts(note))
    assert desk.told() == [("wang", Medium.CALL, Reason.NEW)]


async def test_the_next_text_joins_in_time_and_a_later_one_has_a_ticket_of_its_own(
    desk: Desk,
) -> None:
    await desk.load(**calm())
    first = await desk.write(AT_GZ, text="打印机坏了")
    await desk.press("wang", "1")
    await desk.fast_forward(hours(3.9))
    assert await desk.write(AT_GZ, text="三楼的那台") == first
    await desk.fast_forward(hours(4.1))
    second = await desk.write(AT_GZ, text="网络也断了")
    assert second != first
    assert confirmations(desk) == [first, second], "one for each ticket"
    assert [number for _, number in await desk.contacts()] == [first, first, second]


async def test_a_number_in_a_text_joins_its_ticket_whenever(desk: Desk) -> None:
    await desk.load(**calm())
    first = await desk.write(AT_GZ, text="打印机坏了")
    await desk.press("wang", "1")
    await desk.fast_forward(hours(5))
    second = await desk.write(AT_GZ, text="网络断了")
    assert await desk.write(AT_GZ, text=f"工单{first}是三楼的那台") == first
    assert await desk.write(AT_GZ, text="交换机的灯不亮") == second


async def test_nobody_writes_into_somebody_else_s_ticket(desk: Desk) -> None:
    ticket = await desk.write(AT_GZ, text="打印机坏了")
    theirs = await desk.write(STRANGER, text=f"{ticket}已经好了，谢谢")
    assert theirs != ticket
    assert len(await desk.journal(ticket, "contact.added")) == 0
    assert await desk.write(STRANGER, text=f"OK {ticket}") == theirs
    assert answers(desk) == [(REQUESTER, "no_ticket")]
    assert sent(desk, Reason.HEARD)[0].ticket == theirs, "nothing is said of the other one"


async def test_a_reply_of_somebody_who_has_no_ticket_is_read_by_a_person(desk: Desk) -> None:
    """They are told that they have none of this number; what they want nobody knows."""
    ticket = await desk.write(STRANGER, text="OK 99010100017")
    assert answers(desk) == [(REQUESTER, "no_ticket")]
    await desk.fast_forward(minutes(1))
    assert desk.phones_that_rang() == ["wang"]
    assert await desk.state(ticket) is State.NEW


async def test_a_ticket_that_is_over_is_not_opened_again_by_its_number(desk: Desk) -> None:
    ticket = await closed(desk)
    again = await desk.write(AT_GZ, text=f"工单{ticket}的问题又出现了")
    assert again != ticket
    assert await desk.state(ticket) is State.CLOSED
    assert confirmations(desk) == [again]


async def test_the_same_text_twice_is_one_contact(desk: Desk) -> None:
    ticket = await desk.write(AT_GZ, text="打印机坏了", name="twilio-SM1")
    await desk.fast_forward(hours(5))
    assert await desk.write(AT_GZ, text="打印机坏了", name="twilio-SM1") == ticket
    assert await desk.contacts() == [("打印机坏了", ticket)]
    assert confirmations(desk) == [ticket]


@pytest.mark.parametrize("words", ["打印机坏了", "STOP", "进度", "1", "OK 26112000018"])
async def test_a_text_without_a_number_has_a_ticket_and_no_answer(desk: Desk, words: str) -> None:
    first = await desk.write("", text=words)
    assert await desk.write("", text=words) != first, "nobody knows that it is the same person"
    await desk.fast_forward(minutes(2))
    assert desk.courtesies == []
    is_wish = words == "STOP"
    assert bool(desk.phones_that_rang()) is not is_wish
    assert await desk.state(first) is (State.CANCELLED if is_wish else State.NEW)


# How it stands


@pytest.mark.parametrize("words", ["进度 {}", "STATUS {}", "进度{}", "查询", "status"])
async def test_who_asks_how_it_stands_is_told_and_wakes_nobody(desk: Desk, words: str) -> None:
    await desk.load(**calm())
    ticket = await desk.call(AT_GZ, answered_by="wang")
    await desk.fast_forward(hours(6))
    assert await desk.write(AT_GZ, text=words.format(ticket)) == ticket
    assert answers(desk) == [(REQUESTER, "in_progress")]
    (note,) = sent(desk, Reason.HEARD)
    assert (note.ticket, note.address, note.facts["engineer"]) == (ticket, f"+86{AT_GZ}", "wang")
    assert await told_next(desk) == []


async def test_a_question_about_a_ticket_that_is_over_opens_none(desk: Desk) -> None:
    ticket = await closed(desk)
    assert await desk.write(AT_GZ, text=f"进度 {ticket}") == ticket
    assert answers(desk) == [(REQUESTER, "closed")]
    assert await told_next(desk) == []


async def test_who_asks_about_nothing_is_called_by_a_person(desk: Desk) -> None:
    """They may have called from another telephone: no ticket of this number is open."""
    ticket = await desk.write(AT_GZ, text="进度")
    assert answers(desk) == [], "the ticket that the question has opened is no answer"
    assert confirmations(desk) == [ticket]
    assert desk.told() == [("wang", Medium.CALL, Reason.NEW)]


async def test_who_asks_of_somebody_else_s_ticket_hears_nothing_of_it(desk: Desk) -> None:
    ticket = await desk.write(AT_GZ, text="打印机坏了")
    theirs = await desk.write(STRANGER, text=f"进度 {ticket}")
    assert theirs != ticket
    assert answers(desk) == [(REQUESTER, "no_ticket")]


# Engineers


async def test_an_engineer_works_by_text_and_nothing_but_the_ticket_hears_of_it(
    desk: Desk,
) -> None:
    """王伟 takes it, 赵强 goes there: each text lies on the ticket, opens none and pages nobody."""
    await desk.load(**calm())
    ticket = await desk.call(AT_GZ)
    assert await desk.write(WANG, text=f"1 {ticket}") == ticket
    assert await desk.assignee(ticket) == "wang"
    await desk.when(desk.tickets.dispatch(ticket, "zhao", actor="engineer:wang"))
    desk.forget()
    assert await desk.write(ZHAO, text=f"接单 {ticket}") == ticket
    code = sent(desk, Reason.CODE)[-1].facts["code"]
    wrong = "4711" if code != "4711" else "4712"
    for words in ("出发 {}", f"到 {{}} {wrong}", f"到 {{}} {code}", "完成 {}"):
        await desk.fast_forward(minutes(5))
        assert await desk.write(ZHAO, text=words.format(ticket)) == ticket
    steps = [entry.action for entry in await desk.journal(ticket) if "dispatch." in entry.action]
    assert [step.removeprefix("dispatch.") for step in steps] == [
        "offered", "accepted", "on_way", "code_refused", "arrived", "done",
    ]  # fmt: skip
    assert answers(desk) == [("zhao", "wrong_code")]
    await desk.fast_forward(minutes(5))
    assert desk.told() == [(REQUESTER, Medium.TEXT, Reason.CODE)]
    assert await desk.write(WANG, text=f"解决 {ticket}") == ticket
    assert await desk.state(ticket) is State.RESOLVED
    assert await told_next(desk) == []
    assert {number for _, number in await desk.contacts()} == {ticket}


async def test_who_was_slower_is_told_so_and_nobody_is_rung_for_it(desk: Desk) -> None:
    await desk.load(**calm())
    ticket = await desk.call(AT_GZ)
    await desk.press("wang", "1")
    await desk.fast_forward(minutes(1))
    assert await desk.write(LI, text=f"1 {ticket}") == ticket
    assert answers(desk) == [("li", "late")]
    (entry,) = await desk.journal(ticket, REPLY_HEARD)
    assert entry.body["heard"] == "late"
    assert await told_next(desk) == []


async def test_a_mistyped_number_leaves_no_ticket_behind(desk: Desk) -> None:
    await desk.load(**calm())
    ticket = await desk.call(AT_GZ)
    wrong = f"{int(ticket) + 10}"
    other = await desk.write(WANG, text=f"1 {wrong}")
    assert other != ticket
    assert answers(desk) == [("wang", "no_ticket")]
    assert await desk.state(other) is State.CANCELLED
    await desk.press("wang", "1")
    assert await told_next(desk) == [], "nobody is rung about the engineer's text"


async def test_a_reply_is_no_contact_that_waits_for_an_answer(desk: Desk) -> None:
    """Neither what engineers say of the ticket nor a question starts another clock (C1)."""
    ticket = await desk.call(AT_GZ, answered_by="sun")
    await desk.when(desk.tickets.hand_over(ticket, "wang", actor="user:desk"))
    for sender, words in ((WANG, "1 {}"), (AT_GZ, "进度"), (AT_GZ, "OK {}"), (WANG, "4 {}")):
        await desk.write(sender, text=words.format(ticket))
    assert (await desk.clocks(ticket))["answer"]["state"] == "stopped"
    await desk.write(AT_GZ, text="快点")
    assert (await desk.clocks(ticket))["answer"]["state"] == "running"


async def test_a_page_is_passed_on_by_a_text(desk: Desk) -> None:
    await desk.load(**calm())
    ticket = await desk.call(AT_GZ)
    assert await desk.write(WANG, text=f"2 {ticket}") == ticket
    assert desk.phones_that_rang() == ["wang", "li"]
    await desk.press("li", "1")
    assert await told_next(desk) == []


@pytest.mark.parametrize("words", ["1", "１", " 接单。", "take"])
async def test_a_bare_digit_takes_the_one_open_page(desk: Desk, words: str) -> None:
    await desk.load(**BY_TEXT)
    ticket = await desk.write(AT_GZ)
    assert await desk.write(WANG, text=words) == ticket
    assert (await desk.state(ticket), await desk.assignee(ticket)) == (State.IN_PROGRESS, "wang")
    assert await told_next(desk) == []


async def test_a_bare_digit_is_no_answer_to_two_pages(desk: Desk) -> None:
    await desk.load(**BY_TEXT)
    tickets = [await desk.write(AT_GZ), await desk.write(BY_MAIL)]
    filed = await desk.write(WANG, text="1")
    assert filed in tickets
    assert answers(desk) == [("wang", "which")]
    assert [await desk.assignee(ticket) for ticket in tickets] == ["", ""]
    assert await desk.write(WANG, text=f"1 {tickets[0]}") == tickets[0]
    assert await desk.write(WANG, text="1") == tickets[1], "only that is left"
    assert [await desk.assignee(ticket) for ticket in tickets] == ["wang", "wang"]
    assert answers(desk) == [("wang", "which")]
    assert await told_next(desk) == []


async def test_a_page_that_somebody_else_has_answered_is_not_meant(desk: Desk) -> None:
    await desk.load(**BY_TEXT)
    old = await desk.write(AT_GZ)
    await desk.fast_forward(minutes(3))
    assert await desk.press("li", "1") == "taken"
    ticket = await desk.write(BY_MAIL)
    await desk.write(WANG, text="1")
    assert await desk.assignee(ticket) == "wang"
    assert await desk.assignee(old) == "li"
    assert answers(desk) == []


async def test_an_engineer_s_ok_to_a_page_solves_nothing(desk: Desk) -> None:
    await desk.load(**BY_TEXT)
    ticket = await desk.write(AT_GZ)
    await desk.write(WANG, text="OK")
    assert await desk.state(ticket) is State.NEW


# The requester's word


@pytest.mark.parametrize("words", ["1", "解决", "已解决。", "OK", "ok!"])
async def test_one_word_confirms_what_was_asked_last(desk: Desk, words: str) -> None:
    await desk.load(**calm())
    ticket = await solved(desk)
    assert await desk.write(AT_GZ, text=words) == ticket
    assert await desk.state(ticket) is State.CLOSED
    (entry,) = await desk.journal(ticket, "closed")
    assert (entry.actor, entry.body["how"]) == (REQUESTER, "text")
    assert answers(desk) == []
    assert await told_next(desk) == []


@pytest.mark.parametrize("words", ["2", "未解决", "NO"])
async def test_one_word_says_that_it_is_not_solved(desk: Desk, words: str) -> None:
    await desk.load(**calm())
    ticket = await solved(desk)
    desk.forget()
    assert await desk.write(AT_GZ, text=words) == ticket
    assert await desk.state(ticket) is State.IN_PROGRESS
    assert desk.told() == [("wang", Medium.CALL, Reason.REOPENED)]


async def test_not_solved_said_too_late_is_heard_by_a_person(desk: Desk) -> None:
    await desk.load(**calm(closing={"survey_after": "0m"}))
    ticket = await closed(desk)
    desk.forget()
    assert await desk.write(AT_GZ, text=f"未解决 {ticket}") == ticket
    assert answers(desk) == [(REQUESTER, "late")]
    await desk.fast_forward(minutes(2))
    assert desk.phones_that_rang() == ["wang"]


async def test_one_word_after_two_questions_is_asked_about(desk: Desk) -> None:
    await desk.load(**calm())
    first = await solved(desk)
    await desk.fast_forward(hours(5))
    second = await solved(desk)
    assert first != second
    await desk.write(AT_GZ, text="OK")
    assert answers(desk) == [(REQUESTER, "which")]
    assert [await desk.state(each) for each in (first, second)] == [State.RESOLVED] * 2
    await desk.write(AT_GZ, text=f"OK {first}")
    await desk.write(AT_GZ, text="OK")
    assert [await desk.state(each) for each in (first, second)] == [State.CLOSED] * 2


# The survey


async def test_the_day_after_the_end_the_requester_is_asked_for_a_mark(desk: Desk) -> None:
    ticket = await closed(desk)
    desk.forget()
    await desk.fast_forward(0.99 * DAY)
    assert desk.network == []
    await desk.fast_forward(0.02 * DAY)
    assert desk.told() == [(REQUESTER, Medium.TEXT, Reason.SURVEY)]
    assert [entry.body for entry in await desk.journal(ticket, closing.SURVEYED)] == [
        {"reached": True}
    ]
    await desk.when(desk.tickets.note(ticket, "note", actor="user:desk", body={}))
    await desk.fast_forward(10 * DAY)
    assert len(desk.network) == 1, "once"


async def test_a_digit_is_the_mark_and_the_last_one_counts(desk: Desk) -> None:
    ticket = await surveyed(desk)
    assert await desk.write(AT_GZ, text="4") == ticket
    assert answers(desk) == [(REQUESTER, "rated")]
    assert await desk.write(AT_GZ, text="5") == ticket
    assert await marks(desk, ticket) == [4, 5]
    assert {entry.body["how"] for entry in await desk.journal(ticket, RATED)} == {"text"}
    assert await desk.journal(ticket, closing.LOW) == []
    assert len({entry.body["contact"] for entry in await desk.journal(ticket, RATED)}) == 2
    assert await told_next(desk) == []
    assert len(await desk.contacts()) == 3


@pytest.mark.parametrize("mark", [1, 2])
@pytest.mark.parametrize("words", ["{mark}", "{mark} {ticket}"])
async def test_a_low_mark_is_noted_for_quality_once(desk: Desk, mark: int, words: str) -> None:
    ticket = await surveyed(desk)
    for _ in range(2):
        await desk.write(AT_GZ, text=words.format(mark=mark, ticket=ticket))
    assert await marks(desk, ticket) == [mark, mark]
    assert [entry.body for entry in await desk.journal(ticket, closing.LOW)] == [{"mark": mark}]
    assert await desk.state(ticket) is State.CLOSED
    assert await told_next(desk) == []


async def test_three_is_neither_good_nor_bad(desk: Desk) -> None:
    ticket = await surveyed(desk)
    await desk.write(AT_GZ, text="3")
    assert await marks(desk, ticket) == [3]
    assert await desk.journal(ticket, closing.LOW) == []


@pytest.mark.parametrize("mark", [1, 5])
async def test_a_mark_can_be_given_by_mail(desk: Desk, mark: int) -> None:
    ticket = await surveyed(desk, BY_MAIL)
    answer = await desk.reply(QIAN, f"{mark} {ticket}", Medium.MAIL)
    assert answer is not None
    assert answer.heard == "rated"
    assert await marks(desk, ticket) == [mark]
    assert (await desk.journal(ticket, RATED))[0].body["how"] == "mail"


@pytest.mark.parametrize("mark", [1, 2, 5])
async def test_the_mail_that_asks_for_a_mark_is_answered_by_a_digit(desk: Desk, mark: int) -> None:
    ticket = await closed(desk, BY_MAIL)
    await desk.fast_forward(1.1 * DAY)
    (asked,) = sent(desk, Reason.SURVEY)
    assert asked.medium is Medium.MAIL
    desk.forget()
    answer = MailFacts(reply=str(mark), about=asked.ref, proved=ticket)
    assert await desk.write(asked.address, mail=answer) == ticket
    assert await marks(desk, ticket) == [mark]
    assert answers(desk) == [(REQUESTER, "rated")]
    assert await told_next(desk) == []


async def test_a_digit_means_a_mark_only_once_it_was_asked_for(desk: Desk) -> None:
    """1 is "solved" before the survey and a bad mark after it."""
    ticket = await solved(desk)
    await desk.write(AT_GZ, text="1")
    assert await desk.state(ticket) is State.CLOSED
    await desk.write(AT_GZ, text=f"1 {ticket}")
    assert (await marks(desk, ticket), answers(desk)) == ([], [(REQUESTER, "late")])
    await desk.fast_forward(1.1 * DAY)
    await desk.write(AT_GZ, text="1")
    assert await marks(desk, ticket) == [1]


async def test_a_mark_is_of_the_ticket_that_asks_for_one(desk: Desk) -> None:
    """Two questions are open: 5 answers the one, OK the other, 1 either."""
    await desk.load(**calm())
    first = await surveyed(desk)
    second = await solved(desk)
    await desk.write(AT_GZ, text="1")
    assert answers(desk) == [(REQUESTER, "which")]
    await desk.write(AT_GZ, text="5")
    assert (await marks(desk, first), await marks(desk, second)) == ([5], [])
    assert await desk.state(second) is State.RESOLVED
    await desk.write(AT_GZ, text="OK")
    assert await desk.state(second) is State.CLOSED
    assert await told_next(desk) == []


async def test_a_mark_is_of_the_last_ticket_that_has_none(desk: Desk) -> None:
    first = await surveyed(desk)
    await desk.write(AT_GZ, text="5")
    second = await surveyed(desk)
    await desk.write(AT_GZ, text="4")
    assert (await marks(desk, first), await marks(desk, second)) == ([5], [4])


async def test_nobody_else_s_mark_counts(desk: Desk) -> None:
    ticket = await surveyed(desk)
    await desk.write(STRANGER, text=f"1 {ticket}")
    assert answers(desk) == [(REQUESTER, "no_ticket")]
    assert await marks(desk, ticket) == []


async def test_who_has_given_a_mark_already_is_not_asked(desk: Desk) -> None:
    ticket = await closed(desk)
    assert await desk.write(AT_GZ, text=f"5 {ticket}") == ticket
    assert await marks(desk, ticket) == [5]
    await desk.fast_forward(3 * DAY)
    assert sent(desk, Reason.SURVEY) == []
    assert await desk.journal(ticket, closing.SURVEYED) == []


async def test_who_gives_a_mark_before_the_question_is_sent_is_not_asked(desk: Desk) -> None:
    ticket = await closed(desk)
    await desk.fast_forward(0.9 * DAY)
    desk.texts.down = True
    await desk.fast_forward(0.2 * DAY)
    assert len(await desk.journal(ticket, closing.SURVEYED)) == 1
    await desk.write(AT_GZ, text=f"5 {ticket}")
    desk.texts.down = False
    await desk.fast_forward(DAY)
    assert await marks(desk, ticket) == [5]
    assert sent(desk, Reason.SURVEY) == []


async def test_nobody_is_rung_for_a_mark(desk: Desk) -> None:
    ticket = await closed(desk, BY_PHONE)
    desk.forget()
    await desk.fast_forward(3 * DAY)
    assert desk.network == []
    (entry,) = await desk.journal(ticket, closing.SURVEYED)
    assert entry.body == {"reached": False}


async def test_the_desk_says_when_it_asks_for_a_mark_and_whether(desk: Desk) -> None:
    await desk.load(closing={"survey_after": "2h"})
    await closed(desk)
    await desk.fast_forward(hours(2.1))
    assert len(sent(desk, Reason.SURVEY)) == 1
    await desk.load(closing={"survey_after": "0m"})
    desk.clock.advance(minutes(1))
    ticket = await closed(desk, VIP)
    await desk.fast_forward(5 * DAY)
    assert len(sent(desk, Reason.SURVEY)) == 1
    assert await desk.journal(ticket, closing.SURVEYED) == []


async def test_no_mark_is_asked_for_what_was_cancelled(desk: Desk) -> None:
    ticket = await desk.write(AT_GZ)
    await desk.when(desk.tickets.act(ticket, Action.CANCEL, actor="user:desk"))
    await desk.fast_forward(3 * DAY)
    assert sent(desk, Reason.SURVEY) == []


@pytest.mark.parametrize("by_a_person", [False, True])
async def test_no_program_is_asked_for_a_mark(desk: Desk, by_a_person: bool) -> None:
    ticket = await desk.write(QIAN, mail=MailFacts(writer=Writer.AUTO))
    if by_a_person:
        await desk.write(QIAN, mail=MailFacts(proved=ticket))
    await desk.press("wang", "1")
    await desk.when(desk.tickets.act(ticket, Action.RESOLVE, actor="engineer:wang"))
    await desk.when(desk.tickets.confirm(ticket, solved=True, actor=REQUESTER, how="web"))
    await desk.fast_forward(3 * DAY)
    assert len(sent(desk, Reason.SURVEY)) == int(by_a_person)


async def test_after_a_week_of_silence_nobody_is_asked_for_a_mark(desk: Desk) -> None:
    await closed(desk)
    desk.clock.advance(DAY + closing.SURVEY_STALE)
    await desk.fast_forward(DAY)
    assert sent(desk, Reason.SURVEY) == []


# Who wants no texts


@pytest.mark.parametrize(
    ("words", "note", "is_out"),
    [("STOP", "wants no texts", True), ("退订", "wants no texts", True),
     ("ＴＤ", "wants no texts", True), ("START", "wants texts again", False)],
)  # fmt: skip
async def test_a_wish_is_kept_and_asks_nothing_of_anybody(
    desk: Desk, words: str, note: str, is_out: bool
) -> None:
    ticket = await desk.write(AT_GZ, text=words)
    assert await desk.state(ticket) is State.CANCELLED
    (entry,) = await desk.journal(ticket, "cancelled")
    assert entry.body["note"] == note
    assert await desk.contacts() == [(words, ticket)]
    await desk.fast_forward(hours(1))
    assert desk.everything == []
    assert await Texts(desk.database, desk.clock).is_out(address(AT_GZ)) is is_out


async def test_a_wish_on_an_open_ticket_leaves_it_as_it_is(desk: Desk) -> None:
    await desk.load(**calm())
    ticket = await desk.write(AT_GZ)
    await desk.press("wang", "1")
    assert await desk.write(AT_GZ, text="退订") == ticket
    store = Texts(desk.database, desk.clock)
    assert await store.is_out(address(AT_GZ))
    assert await desk.write(AT_GZ, text="START") == ticket
    assert not await store.is_out(address(AT_GZ))
    assert await desk.state(ticket) is State.IN_PROGRESS
    assert await told_next(desk) == []


async def test_who_wants_no_texts_is_still_helped(desk: Desk) -> None:
    await desk.write(AT_GZ, text="STOP")
    ticket = await desk.write(AT_GZ, text="打印机坏了")
    assert await desk.state(ticket) is State.NEW
    assert desk.told() == [("wang", Medium.CALL, Reason.NEW)]


# At night, and too many


async def test_a_text_that_can_wait_comes_in_the_morning(desk: Desk) -> None:
    """It is solved at 23 o'clock: they are asked at 8, and have the whole time from then on."""
    await desk.load(**calm(closing={"remind_after": "2h", "reminders": 1, "close_after": "6h"}))
    ticket = await desk.call(AT_GZ, answered_by="wang")
    await desk.fast_forward(hours(13))
    await desk.when(desk.tickets.act(ticket, Action.RESOLVE, actor="engineer:wang"))
    await desk.fast_forward(hours(8.99))
    assert desk.everything == []
    morning = desk.clock.now() + hours(0.01)
    await desk.fast_forward(hours(2.1))
    assert [(each.at - morning, each.notification.reason) for each in desk.network] == [
        (hours(0), Reason.SOLVED),
        (hours(2), Reason.REMINDER),
    ]
    assert await desk.state(ticket) is State.RESOLVED


async def test_the_survey_comes_in_the_morning_too(desk: Desk) -> None:
    ticket = await desk.call(AT_GZ, answered_by="wang")
    await desk.fast_forward(hours(13))
    await desk.when(desk.tickets.act(ticket, Action.RESOLVE, actor="engineer:wang"))
    await desk.when(desk.tickets.confirm(ticket, solved=True, actor=REQUESTER, how="web"))
    await desk.fast_forward(DAY + hours(8.9))
    assert sent(desk, Reason.SURVEY) == []
    await desk.fast_forward(hours(0.2))
    assert len(sent(desk, Reason.SURVEY)) == 1


async def test_only_the_latest_news_of_the_night_is_told_in_the_morning(desk: Desk) -> None:
    await desk.load(**calm())
    ticket = await desk.call(AT_GZ, answered_by="wang")
    await desk.fast_forward(hours(12))
    for note in ("等备件", "备件到了"):
        await desk.when(desk.tickets.updated(ticket, actor="engineer:wang", note=note))
        await desk.fast_forward(hours(1))
    assert desk.courtesies == []
    await desk.fast_forward(hours(8.1))
    assert [note.facts["note"] for note in sent(desk, Reason.PROGRESS)] == ["备件到了"]


async def test_what_answers_somebody_comes_at_night_too(desk: Desk) -> None:
    await desk.fast_forward(hours(13))
    ticket = await desk.write(AT_GZ)
    assert confirmations(desk) == [ticket]
    assert desk.phones_that_rang() == ["wang"]
    await desk.press("wang", "1")
    assert sent(desk, Reason.PROGRESS) == []
    await desk.write(AT_GZ, text="进度")
    assert answers(desk) == [(REQUESTER, "in_progress")]
    await desk.when(desk.tickets.dispatch(ticket, "wang", actor="user:desk"))
    await desk.press("wang", "1")
    assert len(sent(desk, Reason.CODE)) == 1


async def test_an_urgent_ticket_waits_for_no_morning(desk: Desk) -> None:
    ticket = await desk.call(AT_GZ, answered_by="wang")
    said = Classification(impact=Impact.COMPANY, urgency=Urgency.HIGH)
    await desk.when(desk.tickets.classify(ticket, said, actor="engineer:wang"))
    assert (await desk.ticket(ticket)).priority.value in ("P1", "P2")
    await desk.fast_forward(hours(13))
    desk.forget()
    await desk.when(desk.tickets.act(ticket, Action.RESOLVE, actor="engineer:wang"))
    assert desk.told() == [(REQUESTER, Medium.TEXT, Reason.SOLVED)]


async def test_a_text_that_waited_for_its_gateway_wakes_nobody(desk: Desk) -> None:
    """Closed at 20:30; the gateway is back at 22 o'clock."""
    await desk.load(**calm(closing={"remind_after": "1h", "reminders": 0, "close_after": "2h"}))
    ticket = await desk.call(AT_GZ, answered_by="wang")
    await desk.fast_forward(hours(8.5))
    await desk.when(desk.tickets.act(ticket, Action.RESOLVE, actor="engineer:wang"))
    desk.texts.down = True
    await desk.fast_forward(hours(3.5))
    assert await desk.state(ticket) is State.CLOSED
    desk.texts.down = False
    desk.forget()
    await desk.fast_forward(hours(9.9))
    assert desk.network == []
    await desk.fast_forward(hours(0.2))
    assert [reason for _, _, reason in desk.told()] == [Reason.CLOSED]


async def test_no_morning_is_waited_for_where_no_hours_are_quiet(desk: Desk) -> None:
    quiet = SmsSettings.model_validate({"quiet_from": "00:00", "quiet_until": "00:00"})
    desk.settings = Settings(sms=quiet)
    desk.restart()
    ticket = await desk.call(AT_GZ, answered_by="wang")
    await desk.fast_forward(hours(14))
    await desk.when(desk.tickets.act(ticket, Action.RESOLVE, actor="engineer:wang"))
    assert desk.told() == [(REQUESTER, Medium.TEXT, Reason.SOLVED)]


async def test_a_program_that_answers_our_texts_is_left_alone(desk: Desk) -> None:
    tickets = []
    for number in range(MOST_COURTESIES + 4):
        tickets.append(await desk.write(STRANGER, text=f"自动回复 {number}"))
        await desk.when(desk.tickets.act(tickets[-1], Action.CANCEL, actor="user:desk"))
    assert len(set(tickets)) == len(tickets)
    assert len(desk.courtesies) == MOST_COURTESIES
    said = [len(await desk.journal(ticket, TOO_MANY)) for ticket in tickets]
    assert said == [0] * MOST_COURTESIES + [1] * 4
    await desk.write(AT_GZ)
    assert len(desk.courtesies) == MOST_COURTESIES + 1, "the limit is each number's own"
    await desk.fast_forward(hours(1.1))
    await desk.write(STRANGER, text="真的坏了")
    assert len(desk.courtesies) == MOST_COURTESIES + 2


async def test_a_caller_may_go_on_by_text(desk: Desk) -> None:
    ticket = await desk.call(AT_GZ, Outcome.UNREACHED)
    await desk.press("wang", "1")
    assert await desk.write(AT_GZ, text="是三楼的打印机") == ticket
    assert confirmations(desk) == [], "they have heard the number"
