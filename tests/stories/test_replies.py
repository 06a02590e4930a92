"""What people write back is done at once: engineers by text, requesters by text or mail."""

import pytest

from contactd.routing.notify import REQUESTER, Reason
from contactd.routing.replying import Heard
from contactd.tickets.contact import Medium
from contactd.tickets.model import Promise
from contactd.tickets.states import Action, State
from tests.fakes.desk import AT_GZ, BY_MAIL, STRANGER, Desk, calm, engineers, hours, minutes

WANG, LI, SUN, ZHAO = (f"1380000000{number}" for number in (1, 2, 5, 6))
MAIL_OF_QIAN = "qian@x.cn"
FULL_WIDTH = str.maketrans("0123456789", "０１２３４５６７８９")


async def heard(desk: Desk, sender: str, text: str, medium: Medium = Medium.TEXT) -> Heard | None:
    answer = await desk.reply(sender, text, medium)
    return answer.heard if answer else None


async def how_taken(desk: Desk, ticket: str) -> list[str]:
    """Return how each of those who took the ticket after a page said so."""
    return [entry.body["how"] for entry in await desk.journal(ticket, "escalation.acknowledged")]


async def dispatched(desk: Desk, requester: str = AT_GZ) -> tuple[str, str]:
    """Let 王伟 send 赵强, who accepts by text; return the ticket and the requester's code."""
    ticket = await desk.call(requester, answered_by="wang")
    await desk.when(desk.tickets.dispatch(ticket, "zhao", actor="engineer:wang"))
    assert await heard(desk, ZHAO, f"1 {ticket}") is Heard.TAKEN
    note = desk.network[-1].notification
    assert (note.recipient, note.reason) == (REQUESTER, Reason.CODE)
    return ticket, note.facts["code"]


async def steps(desk: Desk, ticket: str) -> list[str]:
    prefix = "dispatch."
    entries = await desk.journal(ticket)
    return [entry.action.removeprefix(prefix) for entry in entries if prefix in entry.action]


async def resolved(desk: Desk, requester: str = AT_GZ) -> str:
    ticket = await desk.call(requester, answered_by="wang")
    await desk.when(desk.tickets.act(ticket, Action.RESOLVE, actor="engineer:wang"))
    return ticket


# Engineers: pages


@pytest.mark.parametrize("words", ["1 {}", "１　{}", "接单{}", "TAKE #{}"])
async def test_an_engineer_takes_a_ticket_by_text(desk: Desk, words: str) -> None:
    ticket = await desk.call(AT_GZ)
    text = words.format(ticket if words.isascii() else ticket.translate(FULL_WIDTH))
    assert await heard(desk, WANG, text) is Heard.TAKEN
    assert (await desk.state(ticket), await desk.assignee(ticket)) == (State.IN_PROGRESS, "wang")
    assert await how_taken(desk, ticket) == ["text"], "though it was a call that told them"
    await desk.fast_forward(minutes(20))
    assert desk.phones_that_rang() == ["wang"]


async def test_a_text_passes_a_page_on_to_the_next_at_once(desk: Desk) -> None:
    ticket = await desk.call(AT_GZ)
    assert await heard(desk, WANG, f"2 {ticket}") is Heard.PASSED
    assert desk.phones_that_rang() == ["wang", "li"]
    assert await heard(desk, LI, f"接单 {ticket}") is Heard.TAKEN
    assert await desk.assignee(ticket) == "li"


async def test_who_was_slower_is_told_so_and_takes_nothing_away(desk: Desk) -> None:
    ticket = await desk.call(AT_GZ)
    await desk.fast_forward(minutes(2))
    assert await heard(desk, LI, f"1 {ticket}") is Heard.TAKEN
    assert await heard(desk, WANG, f"1 {ticket}") is Heard.LATE
    assert await desk.assignee(ticket) == "li"
    assert await how_taken(desk, ticket) == ["text"]


async def test_a_reply_answers_the_last_page_and_not_one_of_an_old_ladder(desk: Desk) -> None:
    """王伟 is paged, the ticket is resolved and comes back: his old page has an end."""
    ticket = await desk.call(AT_GZ)
    await desk.press("wang", "1")
    await desk.when(desk.tickets.act(ticket, Action.RESOLVE, actor="engineer:wang"))
    assert await heard(desk, WANG, f"1 {ticket}") is Heard.LATE
    await desk.when(desk.tickets.act(ticket, Action.REOPEN, actor="user:desk"))
    assert desk.phones_that_rang() == ["wang", "li"], "one step higher than before"
    assert await heard(desk, WANG, f"1 {ticket}") is Heard.LATE
    assert await heard(desk, LI, f"1 {ticket}") is Heard.TAKEN
    assert await desk.assignee(ticket) == "li"


async def test_the_same_text_again_changes_nothing(desk: Desk) -> None:
    ticket = await desk.call(AT_GZ)
    said = [await heard(desk, WANG, f"4 {ticket}") for _ in range(2)]
    assert said == [Heard.ON_WAY, Heard.ON_WAY]
    assert await how_taken(desk, ticket) == ["text"]
    assert len(await desk.journal(ticket, "acknowledged")) == 1


async def test_a_ticket_can_be_taken_by_who_was_never_told_of_it(desk: Desk) -> None:
    ticket = await desk.call(AT_GZ)
    assert await heard(desk, SUN, f"2 {ticket}") is Heard.LATE, "it was not theirs to pass on"
    assert await heard(desk, SUN, f"1 {ticket}") is Heard.TAKEN
    assert await desk.assignee(ticket) == "sun"
    assert await heard(desk, ZHAO, f"1 {ticket}") is Heard.LATE
    await desk.fast_forward(minutes(20))
    assert desk.phones_that_rang() == ["wang"], "the ladder knows of it"


async def test_who_was_never_told_says_that_they_are_on_the_way(desk: Desk) -> None:
    ticket = await desk.call(AT_GZ)
    assert await heard(desk, SUN, f"出发 {ticket}") is Heard.ON_WAY
    assert await desk.assignee(ticket) == "sun"
    assert [entry.actor for entry in await desk.journal(ticket, "on_my_way")] == ["engineer:sun"]


async def test_who_has_a_ticket_and_passes_it_on_has_others_told(desk: Desk) -> None:
    ticket = await desk.call(AT_GZ)
    await desk.press("wang", "1")
    assert await heard(desk, WANG, f"转单 {ticket}") is Heard.PASSED
    assert desk.phones_that_rang() == ["wang", "li"]
    assert await heard(desk, LI, f"1 {ticket}") is Heard.TAKEN
    assert await desk.assignee(ticket) == "li"
    assert await heard(desk, WANG, f"转单 {ticket}") is Heard.PASSED, "it was, long ago"
    assert (await desk.assignee(ticket), desk.phones_that_rang()) == ("li", ["wang", "li"])


async def test_an_answered_call_can_be_passed_on_too(desk: Desk) -> None:
    await desk.load(**calm())
    ticket = await desk.call(AT_GZ, answered_by="sun")
    assert await heard(desk, SUN, f"2 {ticket}") is Heard.PASSED
    assert desk.phones_that_rang() == ["wang"]
    assert await desk.press("wang", "1") == "taken"
    assert await desk.assignee(ticket) == "wang"


async def test_a_text_can_come_from_a_number_of_its_own_or_by_mail(desk: Desk) -> None:
    """The phone on the desk rings; texts and mails come from elsewhere."""
    own = {"number": "8001", "text": "137 0000 0009", "mails": ["Wang@x.cn"]}
    wang, *others = engineers()
    await desk.load(engineers=[{**wang, **own}, *others])
    first, second = await desk.call(AT_GZ), await desk.call(BY_MAIL)
    assert await heard(desk, "13700000009", f"1 {first}") is Heard.TAKEN
    assert await heard(desk, "wang@x.cn", f"1 {second}", Medium.MAIL) is Heard.TAKEN
    assert [await desk.assignee(ticket) for ticket in (first, second)] == ["wang", "wang"]
    assert await how_taken(desk, second) == ["mail"]
    assert await desk.reply(WANG, f"1 {first}") is None, "this number is not theirs any more"


async def test_who_is_no_engineer_any_more_takes_nothing(desk: Desk) -> None:
    ticket = await desk.call(AT_GZ)
    team = [each for each in engineers() if each["key"] != "zhao"]
    await desk.load(engineers=team)
    desk.clock.advance(minutes(0.1))  # who there is may be known for a second
    for words in ("1", "解决", "STATUS"):
        assert await heard(desk, ZHAO, f"{words} {ticket}") is Heard.NO_TICKET
    assert (await desk.state(ticket), await desk.assignee(ticket)) == (State.NEW, "")


# Engineers: dispatches


async def test_an_engineer_goes_to_the_site_by_text(desk: Desk) -> None:
    ticket, code = await dispatched(desk)
    assert await heard(desk, ZHAO, f"出发 {ticket}") is Heard.ON_WAY
    assert await heard(desk, ZHAO, f"ARR {ticket} {code}") is Heard.ARRIVED
    assert (await desk.journal(ticket, "dispatch.arrived"))[0].body["proved"] is True
    assert await heard(desk, ZHAO, f"完成 {ticket}") is Heard.DONE
    assert await steps(desk, ticket) == ["offered", "accepted", "on_way", "arrived", "done"]
    assert await desk.assignee(ticket) == "wang"
    assert await heard(desk, WANG, f"OK {ticket}") is Heard.SOLVED
    assert await desk.state(ticket) is State.RESOLVED


async def test_an_arrival_without_a_code_is_noted_and_proved_by_it_later(desk: Desk) -> None:
    ticket, code = await dispatched(desk)
    assert await heard(desk, ZHAO, f"到 {ticket}") is Heard.ARRIVED
    assert (await desk.journal(ticket, "dispatch.arrived"))[0].body["proved"] is False
    assert (await desk.clocks(ticket))["arrival"]["state"] == "stopped"
    assert await heard(desk, ZHAO, f"到{ticket}{code}") is Heard.ARRIVED
    assert (await steps(desk, ticket))[-1] == "proved"


async def test_a_wrong_code_is_no_arrival(desk: Desk) -> None:
    ticket, code = await dispatched(desk)
    wrong = "4711" if code != "4711" else "4712"
    assert await heard(desk, ZHAO, f"到 {ticket} {wrong}") is Heard.WRONG_CODE
    assert (await steps(desk, ticket))[-1] == "code_refused"
    assert (await desk.clocks(ticket))["arrival"]["state"] == "running"
    assert await heard(desk, ZHAO, f"到 {ticket} {code}") is Heard.ARRIVED


async def test_a_dispatch_is_declined_by_text(desk: Desk) -> None:
    ticket = await desk.call(AT_GZ, answered_by="wang")
    await desk.when(desk.tickets.dispatch(ticket, "zhao", actor="engineer:wang"))
    assert await heard(desk, ZHAO, f"2 {ticket}") is Heard.PASSED
    assert (await steps(desk, ticket))[-1] == "declined"
    assert desk.told()[-1] == ("wang", Medium.TEXT, Reason.DECLINED)
    assert await heard(desk, ZHAO, f"1 {ticket}") is Heard.LATE
    assert await heard(desk, ZHAO, f"到 {ticket}") is Heard.LATE
    assert await desk.assignee(ticket) == "wang"


async def test_who_sets_out_has_accepted(desk: Desk) -> None:
    ticket = await desk.call(AT_GZ, answered_by="wang")
    await desk.when(desk.tickets.dispatch(ticket, "zhao", actor="engineer:wang"))
    assert await heard(desk, ZHAO, f"GO {ticket}") is Heard.ON_WAY
    assert await steps(desk, ticket) == ["offered", "accepted", "on_way"]


async def test_nobody_arrives_who_was_not_sent(desk: Desk) -> None:
    ticket, code = await dispatched(desk)
    assert await heard(desk, LI, f"ARR {ticket} {code}") is Heard.NO_TICKET
    assert (await steps(desk, ticket))[-1] == "accepted"


async def test_key_4_of_a_page_can_be_written_by_who_was_sent_before(desk: Desk) -> None:
    """An earlier visit is over: "on my way" is then about the page."""
    ticket, code = await dispatched(desk)
    await heard(desk, ZHAO, f"到 {ticket} {code}")
    await heard(desk, ZHAO, f"完成 {ticket}")
    await desk.when(desk.tickets.hand_over(ticket, "zhao", actor="user:desk"))
    assert desk.told()[-1][0] == "zhao"
    assert await heard(desk, ZHAO, f"4 {ticket}") is Heard.ON_WAY
    assert await desk.journal(ticket, "on_my_way")


# Engineers: the end


async def test_what_an_engineer_has_solved_before_taking_it_is_theirs(desk: Desk) -> None:
    ticket = await desk.call(AT_GZ)
    assert await heard(desk, WANG, f"解决 {ticket}") is Heard.SOLVED
    assert (await desk.state(ticket), await desk.assignee(ticket)) == (State.RESOLVED, "wang")
    assert await heard(desk, WANG, f"解决 {ticket}") is Heard.LATE
    assert await heard(desk, WANG, f"未解决 {ticket}") is Heard.REOPENED
    assert await desk.state(ticket) is State.IN_PROGRESS
    assert await heard(desk, WANG, f"未解决 {ticket}") is Heard.LATE


# Requesters


@pytest.mark.parametrize("words", ["1 {}", "OK {}", "解决了，{}。"])
async def test_a_requester_confirms_by_text(desk: Desk, words: str) -> None:
    ticket = await resolved(desk)
    assert await heard(desk, AT_GZ, words.format(ticket)) is Heard.SOLVED
    assert await desk.state(ticket) is State.CLOSED
    closed = (await desk.journal(ticket, "closed"))[0]
    assert (closed.actor, closed.body["how"]) == ("requester", "text")
    assert await heard(desk, AT_GZ, words.format(ticket)) is Heard.LATE


async def test_a_requester_says_by_mail_that_it_is_not_solved(desk: Desk) -> None:
    ticket = await resolved(desk, BY_MAIL)
    desk.forget()
    assert await heard(desk, MAIL_OF_QIAN, f"NO {ticket}", Medium.MAIL) is Heard.REOPENED
    assert await desk.state(ticket) is State.IN_PROGRESS
    assert desk.told() == [("wang", Medium.CALL, Reason.REOPENED)]
    assert await heard(desk, MAIL_OF_QIAN, f"NO {ticket}", Medium.MAIL) is Heard.LATE


@pytest.mark.parametrize("words", ["1", "2", "OK", "NO", "STATUS"])
async def test_nobody_speaks_for_somebody_else_s_ticket(desk: Desk, words: str) -> None:
    ticket = await resolved(desk)
    before = await desk.journal(ticket)
    assert await heard(desk, BY_MAIL, f"{words} {ticket}") is Heard.NO_TICKET
    assert await desk.reply(STRANGER, f"{words} {ticket}") is None, "nobody knows this number"
    await desk.call(STRANGER, answered_by="wang")
    assert await heard(desk, STRANGER, f"{words} {ticket}") is Heard.NO_TICKET
    assert await desk.state(ticket) is State.RESOLVED
    assert await desk.journal(ticket) == before


async def test_a_number_that_no_ticket_has_is_said_to_be_none(desk: Desk) -> None:
    await resolved(desk)
    for sender in (WANG, AT_GZ):
        for words in ("1", "2", "OK", "STATUS"):
            assert await heard(desk, sender, f"{words} 99010100017") is Heard.NO_TICKET


async def test_a_requester_can_neither_take_nor_arrive(desk: Desk) -> None:
    ticket = await desk.call(AT_GZ)
    for words in ("接单", "到", "DONE"):
        assert await desk.reply(AT_GZ, f"{words} {ticket}") is None
    assert await heard(desk, AT_GZ, f"1 {ticket}") is Heard.LATE, "it is not resolved"
    assert await heard(desk, AT_GZ, f"4 {ticket}") is Heard.LATE, "nor has anybody asked for a mark"
    assert (await desk.state(ticket), await desk.assignee(ticket)) == (State.NEW, "")


@pytest.mark.parametrize(
    "text", ["", "好的", "打印机又坏了", "OK {} but it is still broken", "1 1 {}", "{}"]
)
async def test_a_text_that_is_no_reply_is_for_a_person_to_read(desk: Desk, text: str) -> None:
    ticket = await resolved(desk)
    for sender in (AT_GZ, WANG):
        assert await desk.reply(sender, text.format(ticket)) is None
    assert await desk.state(ticket) is State.RESOLVED


# How it stands


async def test_status_says_what_was_promised_by_the_ticket_s_own_clocks(desk: Desk) -> None:
    """The contract's times, not the usual ones; and what comes due first of all that runs."""
    promises = {"all": {"answer": "20m", "arrival": "3h", "offer": "5m", "resolution": "8h"}}
    contract = {"key": "gold", "promises": promises}
    await desk.load(**calm(contracts=[{**contract, "key": "calm"}]))
    ticket = await desk.call(AT_GZ)
    opened_at = (await desk.ticket(ticket)).opened_at

    async def told(sender: str = AT_GZ) -> tuple[Promise, object, bool]:
        answer = await desk.reply(sender, f"进度 {ticket}")
        assert answer is not None
        assert answer.heard is Heard.STATUS
        assert answer.progress is not None
        found = answer.progress
        assert found.state is await desk.state(ticket)
        return found.promise, found.promise_at, found.overdue

    assert await told() == (Promise.ANSWER, opened_at + minutes(20), False)
    await desk.press("wang", "1")
    assert (await told())[0] is Promise.ANSWER, "taken is not answered"
    await desk.fast_forward(minutes(20))
    assert await told(WANG) == (Promise.ANSWER, opened_at + minutes(20), True)
    await desk.when(desk.tickets.answered(ticket, actor="engineer:wang", how="call"))
    assert await told() == (Promise.RESOLUTION, opened_at + hours(8), False)
    await desk.when(desk.tickets.dispatch(ticket, "zhao", actor="engineer:wang"))
    assert (await told())[0] is Promise.RESOLUTION, "whether somebody accepts is our own affair"
    await heard(desk, ZHAO, f"1 {ticket}")
    accepted_at = desk.clock.now()
    assert await told() == (Promise.ARRIVAL, accepted_at + hours(3), False)
    await heard(desk, ZHAO, f"到 {ticket}")
    assert (await told())[0] is Promise.RESOLUTION
    await desk.when(desk.tickets.act(ticket, Action.RESOLVE, actor="engineer:wang"))
    assert await told() == (Promise.NONE, None, False)


async def test_status_of_a_ticket_that_waits_for_a_part_promises_what_goes_on(desk: Desk) -> None:
    promises = {"all": {"answer": "20m", "resolution": {"goal": "8h", "pausable": True}}}
    await desk.load(**calm(contracts=[{"key": "calm", "promises": promises}]))
    ticket = await desk.call(AT_GZ, answered_by="wang")
    await desk.when(desk.tickets.act(ticket, Action.HOLD, actor="engineer:wang", note="part"))
    answer = await desk.reply(AT_GZ, f"STATUS {ticket}")
    assert answer is not None
    assert answer.progress is not None
    assert answer.progress.promise is Promise.NONE
    assert answer.progress.engineer == "wang"
