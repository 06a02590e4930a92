"""Who calls and reaches nobody is called back; who was served makes nobody's phone ring."""

import pytest

from contactd.routing.notify import Reason
from contactd.tickets.contact import Medium, Outcome
from contactd.tickets.states import Action, State
from tests.fakes.desk import AT_GZ, AT_SZ, Desk, calm, hours, minutes


async def test_a_caller_who_reached_nobody_is_called_back(desk: Desk) -> None:
    ticket = await desk.call(AT_GZ, Outcome.UNREACHED)
    assert desk.told() == [("wang", Medium.CALL, Reason.MISSED)]
    assert desk.network[0].notification.facts["pbx"] == "pbx1"
    await desk.press("wang", "1")
    assert await desk.assignee(ticket) == "wang"


async def test_who_answers_in_the_queue_has_the_ticket_and_nobody_is_paged(desk: Desk) -> None:
    ticket = await desk.call(AT_GZ, answered_by="li")
    await desk.fast_forward(minutes(20))
    assert desk.network == []
    assert await desk.assignee(ticket) == "li"
    assert (await desk.clocks(ticket))["answer"]["state"] == "stopped"


async def test_a_message_on_the_voicemail_rings_somebody_at_once(desk: Desk) -> None:
    await desk.call(AT_GZ, Outcome.VOICEMAIL)
    assert desk.told() == [("wang", Medium.CALL, Reason.VOICEMAIL)]


@pytest.mark.parametrize(
    "outcome", [Outcome.ABANDONED_GREETING, Outcome.ABANDONED_MENU, Outcome.ABANDONED_QUEUE]
)
async def test_who_hangs_up_is_left_two_minutes_to_call_again(desk: Desk, outcome: Outcome) -> None:
    await desk.call(AT_GZ, outcome)
    await desk.fast_forward(minutes(1.9))
    assert desk.network == []
    await desk.fast_forward(minutes(0.1))
    assert desk.told() == [("wang", Medium.CALL, Reason.MISSED)]


async def test_who_calls_again_and_is_answered_makes_nobody_else_s_phone_ring(desk: Desk) -> None:
    ticket = await desk.call(AT_GZ, Outcome.ABANDONED_QUEUE)
    await desk.fast_forward(minutes(1))
    assert await desk.call(AT_GZ, answered_by="li") == ticket
    await desk.fast_forward(minutes(10))
    assert desk.network == []


async def test_while_they_are_in_the_line_again_the_queue_rings_people(desk: Desk) -> None:
    await desk.call(AT_GZ, Outcome.ABANDONED_QUEUE)
    await desk.fast_forward(minutes(1.5))
    again = await desk.ring(AT_GZ)
    await desk.fast_forward(minutes(3))
    assert desk.network == []
    await desk.hang_up(again, Outcome.ANSWERED, answered_by="li")
    await desk.fast_forward(minutes(10))
    assert desk.network == []


async def test_who_gives_up_twice_is_called_back_after_the_second_time(desk: Desk) -> None:
    await desk.call(AT_GZ, Outcome.ABANDONED_QUEUE)
    await desk.fast_forward(minutes(1))
    await desk.call(AT_GZ, Outcome.ABANDONED_QUEUE)
    await desk.fast_forward(minutes(1.9))
    assert desk.network == []
    await desk.fast_forward(minutes(0.1))
    assert desk.phones_that_rang() == ["wang"]


async def test_a_call_whose_end_nobody_hears_of_is_not_waited_for(desk: Desk) -> None:
    await desk.call(AT_GZ, Outcome.ABANDONED_QUEUE)
    await desk.ring(AT_GZ)
    await desk.fast_forward(minutes(9))
    assert desk.network == []
    await desk.fast_forward(minutes(1))
    assert desk.phones_that_rang() == ["wang"]


async def test_who_asks_the_machine_needs_nobody(desk: Desk) -> None:
    await desk.call(AT_GZ, Outcome.SELF_SERVICE)
    await desk.fast_forward(minutes(10))
    assert desk.network == []


async def test_who_asks_the_machine_while_waiting_is_still_called_back(desk: Desk) -> None:
    await desk.call(AT_GZ, Outcome.ABANDONED_QUEUE)
    await desk.fast_forward(minutes(1))
    await desk.call(AT_GZ, Outcome.SELF_SERVICE)
    await desk.fast_forward(minutes(1))
    assert desk.phones_that_rang() == ["wang"]


async def test_who_calls_about_a_ticket_that_somebody_has_rings_that_person_first(
    desk: Desk,
) -> None:
    await desk.load(**calm())
    ticket = await desk.write(AT_GZ)
    await desk.press("wang", "2")
    assert await desk.press("li", "1") == "taken"
    desk.forget()
    await desk.load(**calm(), shifts=[_always("wang"), _always("li"), _always("chen")])
    await desk.fast_forward(minutes(30))
    assert desk.network == []
    assert await desk.call(AT_GZ) == ticket
    assert desk.told() == [("li", Medium.CALL, Reason.MISSED)]
    await desk.press("li", "2")
    assert desk.phones_that_rang() == ["li", "wang"], "and then the others"


async def test_a_second_call_takes_nothing_from_who_has_the_ticket(desk: Desk) -> None:
    ticket = await desk.write(AT_GZ)
    await desk.press("wang", "1")
    await desk.call(AT_GZ, answered_by="li")
    assert await desk.assignee(ticket) == "wang"


async def test_an_answered_call_ends_a_page(desk: Desk) -> None:
    ticket = await desk.write(AT_GZ)
    await desk.fast_forward(minutes(1))
    await desk.call(AT_GZ, answered_by="li")
    assert await desk.assignee(ticket) == "li"
    await desk.fast_forward(minutes(10))
    assert desk.told() == [("wang", Medium.CALL, Reason.NEW)]
    assert await desk.press("wang", "1") == "late"


async def test_a_ticket_that_is_taken_on_a_page_of_the_site_ends_the_ladder(desk: Desk) -> None:
    ticket = await desk.write(AT_GZ)
    await desk.when(desk.tickets.take(ticket, "li", how="web", actor="user:desk"))
    escalation = await desk.escalation(ticket)
    assert escalation is not None
    assert escalation.acks == ("li",), "who has it, not who said so"
    await desk.fast_forward(minutes(10))
    assert desk.told() == [("wang", Medium.CALL, Reason.NEW)]


async def test_a_reply_to_a_ticket_that_somebody_has_is_told_to_them(desk: Desk) -> None:
    await desk.load(**calm())
    ticket = await desk.write(AT_GZ)
    await desk.press("wang", "1")
    desk.forget()
    await desk.fast_forward(minutes(10))
    assert await desk.write(AT_GZ, text="还是不行") == ticket
    assert desk.phones_that_rang() == ["wang"]
    assert await desk.press("wang", "1") == "taken"
    assert await desk.state(ticket) is State.IN_PROGRESS


async def test_a_contact_about_something_else_is_followed_up_on_its_own(desk: Desk) -> None:
    first = await desk.call(AT_SZ, answered_by="chen")
    again = await desk.ring(AT_SZ)
    await desk.when(desk.tickets.separate(Medium.CALL, again.external_id))
    second = await desk.hang_up(again, Outcome.UNREACHED)
    assert second != first
    assert desk.told(first) == []
    assert desk.told(second) == [("chen", Medium.CALL, Reason.MISSED)]


async def test_a_caller_whom_the_machine_serves_in_the_end_makes_no_more_phones_ring(
    desk: Desk,
) -> None:
    waiting = await desk.ring(AT_GZ)
    await desk.fast_forward(minutes(28))
    ticket = await desk.hang_up(waiting, Outcome.SELF_SERVICE)
    desk.forget()
    await desk.fast_forward(minutes(20))
    assert desk.told(ticket) == []


def _always(engineer: str) -> dict[str, object]:
    return {"site": "gz", "tier": 1, "engineer": engineer, "start": "00:00", "end": "24:00"}


async def test_who_was_in_the_line_when_the_ticket_was_closed_is_called_back_once(
    desk: Desk,
) -> None:
    ticket = await desk.call(AT_GZ, answered_by="wang")
    await desk.when(desk.tickets.act(ticket, Action.RESOLVE, actor="engineer:wang"))
    waiting = await desk.ring(AT_GZ)
    await desk.when(desk.tickets.confirm(ticket, solved=True, actor="requester", how="text"))
    desk.forget()
    assert await desk.hang_up(waiting, Outcome.UNREACHED) == ticket
    assert desk.phones_that_rang() == ["wang"]
    assert await desk.press("wang", "1") == "taken"
    desk.forget()
    await desk.fast_forward(hours(3))
    assert desk.phones_that_rang() == []
