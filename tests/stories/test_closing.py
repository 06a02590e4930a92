"""A resolved ticket waits for its requester's word, and not for ever."""

from datetime import timedelta

import pytest

from contactd.errors import ActionNotAllowed
from contactd.routing.notify import REQUESTER, Reason, SendState
from contactd.tickets.contact import Medium
from contactd.tickets.states import Action, State
from tests.fakes.desk import AT_GZ, BY_MAIL, BY_PHONE, Desk, hours, minutes

DAY = timedelta(days=1)


async def resolved(desk: Desk, requester: str = AT_GZ) -> str:
    """Let 王伟 take a ticket on a page and resolve it; who was told is forgotten."""
    ticket = await desk.write(requester)
    await desk.press("wang", "1")
    await desk.when(desk.tickets.answered(ticket, actor="engineer:wang", how="call-back"))
    desk.forget()
    await desk.when(desk.tickets.act(ticket, Action.RESOLVE, actor="engineer:wang"))
    return ticket


async def tick(desk: Desk) -> None:
    """Let a moment pass between one due row and the next."""
    for _ in range(10):
        desk.clock.advance(timedelta(milliseconds=20))
        await desk.drain()


@pytest.mark.parametrize(
    ("requester", "medium"), [(AT_GZ, Medium.TEXT), (BY_MAIL, Medium.MAIL), (BY_PHONE, Medium.CALL)]
)
async def test_the_requester_is_asked_at_once_the_best_way(
    desk: Desk, requester: str, medium: Medium
) -> None:
    await resolved(desk, requester)
    assert desk.told() == [(REQUESTER, medium, Reason.SOLVED)]


async def test_who_says_that_it_is_solved_is_asked_no_more(desk: Desk) -> None:
    ticket = await resolved(desk)
    await desk.when(desk.tickets.confirm(ticket, solved=True, actor=REQUESTER, how="text"))
    assert await desk.state(ticket) is State.CLOSED
    assert (await desk.journal(ticket))[-1].body["confirmed"] is True
    await desk.fast_forward(4 * DAY)
    assert [reason for _, _, reason in desk.told()] == [Reason.SOLVED, Reason.SURVEY]


async def test_a_key_in_the_call_back_closes_the_ticket(desk: Desk) -> None:
    ticket = await resolved(desk, BY_PHONE)
    assert await desk.confirm("1") == "closed"
    assert await desk.state(ticket) is State.CLOSED
    assert await desk.confirm("2") == "late"
    assert await desk.state(ticket) is State.CLOSED


async def test_no_key_in_the_call_back_is_no_answer(desk: Desk) -> None:
    ticket = await resolved(desk, BY_PHONE)
    assert await desk.confirm("") == "late"
    assert await desk.state(ticket) is State.RESOLVED
    assert SendState.NOT_REACHED in (await desk.sent_states(ticket)).values()
    await desk.fast_forward(DAY)
    assert desk.told()[-1] == (REQUESTER, Medium.CALL, Reason.REMINDER)


async def test_nobody_is_called_at_night(desk: Desk) -> None:
    """It is 10 o'clock; the ticket is resolved at 21 o'clock."""
    ticket = await desk.call(BY_PHONE, answered_by="wang")
    await desk.fast_forward(hours(11))
    await desk.when(desk.tickets.act(ticket, Action.RESOLVE, actor="engineer:wang"))
    await desk.fast_forward(hours(10.9))
    assert desk.network == []
    await desk.fast_forward(hours(0.1))
    assert desk.told() == [(REQUESTER, Medium.CALL, Reason.SOLVED)]


async def test_a_mail_is_sent_at_any_time(desk: Desk) -> None:
    ticket = await desk.call(BY_MAIL, answered_by="wang")
    await desk.fast_forward(hours(14))
    await desk.when(desk.tickets.act(ticket, Action.RESOLVE, actor="engineer:wang"))
    assert desk.told() == [(REQUESTER, Medium.MAIL, Reason.SOLVED)]


async def test_who_does_not_answer_is_reminded_twice_and_then_it_is_closed(desk: Desk) -> None:
    ticket = await resolved(desk)
    start = desk.clock.now()
    await desk.fast_forward(3.5 * DAY)
    assert [(each.at - start, each.notification.reason) for each in desk.network] == [
        (0 * DAY, Reason.SOLVED),
        (1 * DAY, Reason.REMINDER),
        (2 * DAY, Reason.REMINDER),
        (3 * DAY, Reason.CLOSED),
    ]
    assert await desk.state(ticket) is State.CLOSED
    assert "confirmed" not in (await desk.journal(ticket, "closed"))[0].body


async def test_the_desk_says_how_long_it_waits(desk: Desk) -> None:
    closing = {"remind_after": "2h", "reminders": 1, "close_after": "5h"}
    await desk.load(closing=closing)
    ticket = await resolved(desk)
    await desk.fast_forward(hours(5))
    assert [reason for _, _, reason in desk.told()] == [
        Reason.SOLVED,
        Reason.REMINDER,
        Reason.CLOSED,
    ]
    assert await desk.state(ticket) is State.CLOSED


async def test_whoever_cannot_be_asked_is_waited_for_all_the_same(desk: Desk) -> None:
    ticket = await desk.call("", answered_by="wang")
    await desk.when(desk.tickets.act(ticket, Action.RESOLVE, actor="engineer:wang"))
    asked = await desk.journal(ticket, "confirm.asked")
    assert [entry.body["reached"] for entry in asked] == [False]
    await desk.fast_forward(4 * DAY)
    assert desk.network == []
    assert await desk.state(ticket) is State.CLOSED


async def test_not_solved_goes_to_the_one_above_who_had_it(desk: Desk) -> None:
    ticket = await resolved(desk, BY_PHONE)
    assert await desk.confirm("2") == "reopened"
    assert await desk.state(ticket) is State.IN_PROGRESS
    assert desk.told()[-1] == ("li", Medium.CALL, Reason.REOPENED)
    assert await desk.press("li", "1") == "taken"
    assert await desk.assignee(ticket) == "li"
    desk.forget()
    await desk.when(desk.tickets.act(ticket, Action.RESOLVE, actor="engineer:li"))
    assert desk.told() == [(REQUESTER, Medium.CALL, Reason.SOLVED)], "asked anew"


async def test_not_solved_rings_who_had_it_first_if_nobody_was_paged_before(desk: Desk) -> None:
    ticket = await desk.call(AT_GZ, answered_by="wang")
    await desk.when(desk.tickets.act(ticket, Action.RESOLVE, actor="engineer:wang"))
    desk.forget()
    await desk.when(desk.tickets.confirm(ticket, solved=False, actor=REQUESTER, how="text"))
    assert desk.told() == [("wang", Medium.CALL, Reason.REOPENED)]
    await desk.fast_forward(minutes(3))
    assert desk.phones_that_rang() == ["wang", "li"]


async def test_the_desk_reopens_it_by_hand(desk: Desk) -> None:
    ticket = await resolved(desk)
    await desk.when(desk.tickets.act(ticket, Action.REOPEN, actor="user:desk"))
    assert desk.told()[-1] == ("li", Medium.CALL, Reason.REOPENED)


async def test_nobody_is_asked_about_what_is_not_resolved(desk: Desk) -> None:
    ticket = await desk.write(AT_GZ)
    with pytest.raises(ActionNotAllowed):
        await desk.tickets.confirm(ticket, solved=True, actor=REQUESTER, how="text")


async def test_who_writes_instead_of_confirming_is_heard(desk: Desk) -> None:
    ticket = await resolved(desk)
    desk.forget()
    assert await desk.write(AT_GZ, text="还是不行") == ticket
    assert desk.phones_that_rang() == ["wang"]


async def test_after_days_of_silence_the_requester_is_asked_once_and_has_time_to_answer(
    desk: Desk,
) -> None:
    """The daemon was down for five days; a real clock moves on between two rows."""
    ticket = await desk.call(AT_GZ, answered_by="wang")
    await desk.tickets.act(ticket, Action.RESOLVE, actor="engineer:wang")
    desk.clock.advance(5 * DAY)
    await tick(desk)
    assert [reason for _, _, reason in desk.told()] == [Reason.SOLVED]
    assert await desk.state(ticket) is State.RESOLVED


async def test_a_requester_who_could_not_be_called_at_night_is_called_once_in_the_morning(
    desk: Desk,
) -> None:
    """It is resolved at 21 o'clock; by 8 o'clock all reminders would have been due."""
    await desk.load(closing={"remind_after": "2h", "reminders": 2, "close_after": "6h"})
    ticket = await desk.call(BY_PHONE, answered_by="wang")
    await desk.fast_forward(hours(11))
    await desk.tickets.act(ticket, Action.RESOLVE, actor="engineer:wang")
    await desk.fast_forward(hours(10.99))
    assert desk.network == []
    desk.clock.advance(hours(0.01))
    await tick(desk)
    assert desk.phones_that_rang() == [REQUESTER]
    assert await desk.state(ticket) is State.RESOLVED


async def test_a_call_back_that_waited_for_the_pbx_rings_nobody_at_night(desk: Desk) -> None:
    ticket = await desk.call(BY_PHONE, answered_by="wang")
    await desk.fast_forward(hours(9.9))
    desk.phones.down = True
    await desk.when(desk.tickets.act(ticket, Action.RESOLVE, actor="engineer:wang"))
    await desk.fast_forward(hours(1))
    desk.phones.down = False
    await desk.fast_forward(hours(1))
    assert desk.network == []


async def test_nobody_is_called_back_about_a_ticket_that_was_closed_meanwhile(desk: Desk) -> None:
    ticket = await desk.call(BY_PHONE, answered_by="wang")
    desk.phones.down = True
    await desk.when(desk.tickets.act(ticket, Action.RESOLVE, actor="engineer:wang"))
    await desk.when(desk.tickets.confirm(ticket, solved=True, actor=REQUESTER, how="web"))
    desk.phones.down = False
    await desk.fast_forward(minutes(10))
    assert desk.network == []


async def test_what_is_written_just_before_the_end_is_not_closed_over(desk: Desk) -> None:
    await desk.load(closing={"remind_after": "1h", "reminders": 1, "close_after": "3h"})
    ticket = await desk.call(AT_GZ, answered_by="wang")
    await desk.when(desk.tickets.act(ticket, Action.RESOLVE, actor="engineer:wang"))
    await desk.fast_forward(hours(2.97))
    assert await desk.write(AT_GZ, text="还是不行") == ticket
    desk.forget()
    await desk.fast_forward(hours(0.25))
    assert desk.phones_that_rang() != []
    assert await desk.state(ticket) is not State.CLOSED
