"""Somebody is sent to the site, says how it goes, and proves the arrival by a code."""

import pytest

from contactd.errors import ActionNotAllowed, NotFound
from contactd.routing.notify import REQUESTER, Reason, SendState
from contactd.tickets.contact import Medium
from contactd.tickets.dispatching import MOST_WRONG_CODES, Step, WrongCode
from contactd.tickets.states import Action
from tests.fakes.desk import AT_GZ, BY_MAIL, Desk, calm, hours, minutes


async def offered(desk: Desk, requester: str = AT_GZ, engineer: str = "zhao") -> str:
    """Let 王伟 answer a call and send somebody; return the ticket."""
    ticket = await desk.call(requester, answered_by="wang")
    await desk.when(desk.tickets.dispatch(ticket, engineer, actor="engineer:wang"))
    return ticket


async def step(desk: Desk, ticket: str, step: Step, code: str = "") -> None:
    actor = "engineer:zhao"
    await desk.when(desk.tickets.dispatch_step(ticket, step, actor=actor, code=code))


def code(desk: Desk) -> str:
    """Return what the requester was sent last."""
    notes = [each.notification for each in desk.network]
    return [note.facts["code"] for note in notes if note.reason is Reason.CODE][-1]


async def steps(desk: Desk, ticket: str) -> list[str]:
    prefix = "dispatch."
    entries = await desk.journal(ticket)
    return [entry.action.removeprefix(prefix) for entry in entries if prefix in entry.action]


async def test_who_accepts_by_a_key_is_expected_and_proves_the_arrival(desk: Desk) -> None:
    ticket = await offered(desk)
    assert desk.told() == [("zhao", Medium.CALL, Reason.DISPATCH)]
    assert await desk.press("zhao", "1") == "taken"
    assert desk.told()[-1] == (REQUESTER, Medium.TEXT, Reason.CODE)
    assert desk.network[-1].notification.facts["engineer"] == "zhao"
    assert SendState.TAKEN in (await desk.sent_states(ticket)).values()
    await step(desk, ticket, Step.SET_OUT)
    await step(desk, ticket, Step.ARRIVE, code(desk))
    await step(desk, ticket, Step.FINISH)
    assert await steps(desk, ticket) == ["offered", "accepted", "on_way", "arrived", "done"]
    arrived = (await desk.journal(ticket, "dispatch.arrived"))[0]
    assert arrived.body["proved"] is True
    clocks = await desk.clocks(ticket)
    assert (clocks["offer"]["state"], clocks["arrival"]["state"]) == ("stopped", "stopped")


async def test_key_4_says_that_they_are_on_the_way(desk: Desk) -> None:
    ticket = await offered(desk)
    assert await desk.press("zhao", "4") == "on_way"
    assert await steps(desk, ticket) == ["offered", "accepted", "on_way"]
    assert desk.told()[-1][2] is Reason.CODE


async def test_the_same_key_again_sends_no_second_code(desk: Desk) -> None:
    await offered(desk)
    assert [await desk.press("zhao", key) for key in ("1", "1", "4", "4")] == [
        "taken", "taken", "on_way", "on_way",
    ]  # fmt: skip
    assert [reason for _, _, reason in desk.told()] == [Reason.DISPATCH, Reason.CODE]


async def test_the_code_goes_by_mail_where_no_text_can_go(desk: Desk) -> None:
    await offered(desk, BY_MAIL)
    await desk.press("zhao", "1")
    assert desk.told()[-1] == (REQUESTER, Medium.MAIL, Reason.CODE)


async def test_somebody_who_cannot_be_told_the_code_arrives_without(desk: Desk) -> None:
    desk.media = {Medium.MAIL: desk.mails}
    desk.restart()
    ticket = await offered(desk)
    assert (await steps(desk, ticket))[-1] == "not_told"
    await step(desk, ticket, Step.ACCEPT)
    assert (await steps(desk, ticket))[-1] == "code_not_sent"
    await step(desk, ticket, Step.ARRIVE)
    assert (await desk.journal(ticket, "dispatch.arrived"))[0].body["proved"] is False


async def test_wrong_codes_are_counted_and_end(desk: Desk) -> None:
    ticket = await offered(desk)
    await desk.press("zhao", "1")
    right = code(desk)
    wrong = "0000" if right != "0000" else "1111"
    for left in reversed(range(MOST_WRONG_CODES)):
        with pytest.raises(WrongCode, match=f"{left} more"):
            await step(desk, ticket, Step.ARRIVE, wrong)
    with pytest.raises(WrongCode, match="too many"):
        await step(desk, ticket, Step.ARRIVE, right)
    await step(desk, ticket, Step.ARRIVE)
    assert (await desk.journal(ticket, "dispatch.arrived"))[0].body["proved"] is False
    refused = await desk.journal(ticket, "dispatch.code_refused")
    assert len(refused) == MOST_WRONG_CODES
    assert all(right not in str(entry.body) for entry in await desk.journal(ticket))


async def test_who_declines_is_not_asked_again_and_the_offer_goes_on(desk: Desk) -> None:
    ticket = await offered(desk)
    assert await desk.press("zhao", "2") == "passed"
    assert desk.told()[-1] == ("wang", Medium.TEXT, Reason.DECLINED), "who sent them"
    assert (await desk.clocks(ticket))["offer"]["state"] == "running"
    assert await desk.press("zhao", "1") == "late"
    await desk.when(desk.tickets.dispatch(ticket, "sun", actor="engineer:wang"))
    assert desk.told()[-1] == ("sun", Medium.CALL, Reason.DISPATCH)
    assert await desk.press("sun", "1") == "taken"
    assert (await desk.clocks(ticket))["offer"]["state"] == "stopped"


async def test_a_key_answers_the_dispatch_that_it_was_asked_for(desk: Desk) -> None:
    ticket = await offered(desk)
    first = desk.ref("zhao")
    await desk.press("zhao", "2")
    await desk.when(desk.tickets.dispatch(ticket, "zhao", actor="engineer:wang"))
    assert await desk.press(first, "1") == "late"
    assert await desk.press("zhao", "1") == "taken"


async def test_a_page_is_taken_back_when_nobody_need_go(desk: Desk) -> None:
    desk.phones.down = True
    ticket = await offered(desk, engineer="wang")
    assert desk.told() == [("wang", Medium.TEXT, Reason.DISPATCH)]
    cancel = desk.tickets.dispatch_step(ticket, Step.CANCEL, actor="user:desk")
    await desk.when(cancel)
    desk.phones.down = False
    await desk.fast_forward(minutes(6))
    assert ("wang", Medium.CALL, Reason.DISPATCH) not in desk.told()
    states = await desk.sent_states(ticket)
    asked = {state for ref, state in states.items() if ref.startswith("dispatch")}
    assert asked == {SendState.STOPPED}


async def test_a_resolved_ticket_needs_nobody_at_the_site(desk: Desk) -> None:
    ticket = await offered(desk)
    await desk.when(desk.tickets.act(ticket, Action.RESOLVE, actor="engineer:wang"))
    assert (await steps(desk, ticket))[-1] == "cancelled"
    assert await desk.press("zhao", "1") == "late"
    with pytest.raises(ActionNotAllowed):
        await step(desk, ticket, Step.ARRIVE)


async def test_nobody_speaks_for_somebody_else_s_dispatch(desk: Desk) -> None:
    ticket = await offered(desk)
    with pytest.raises(NotFound):
        await desk.tickets.dispatch_step(ticket, Step.ACCEPT, actor="engineer:li")


async def test_who_sent_somebody_hears_that_nobody_has_accepted(desk: Desk) -> None:
    """The offer is promised within 15 minutes; at 14 minutes the ladder is told, too."""
    await offered(desk)
    desk.forget()
    await desk.fast_forward(minutes(8))
    assert desk.told() == [("wang", Medium.TEXT, Reason.WARNING)]
    assert desk.network[0].notification.facts["metric"] == "offer"
    await desk.fast_forward(minutes(6))
    assert "wang" in desk.phones_that_rang()


async def test_a_visit_keeps_the_ticket_from_going_back(desk: Desk) -> None:
    await desk.load(**calm())
    ticket = await desk.write(AT_GZ)
    await desk.press("wang", "1")
    await desk.when(desk.tickets.dispatch(ticket, "zhao", actor="engineer:wang"))
    await desk.press("zhao", "1")
    desk.forget()
    await desk.fast_forward(hours(2))
    assert desk.network == []
