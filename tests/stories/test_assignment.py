"""Which team is told first, and what a hand-over means for who was told before."""

from typing import Any

import pytest

from contactd.errors import PermanentFailure
from contactd.routing.notify import Reason
from contactd.tickets.contact import Medium
from contactd.tickets.model import Category, Classification
from contactd.tickets.priority import Impact, Urgency
from contactd.tickets.states import State
from tests.fakes.desk import AT_GZ, VIP, Desk, calm, engineer, engineers, minutes, shift

TEAMS: dict[str, Any] = {
    "teams": [{"key": "network", "tier": 2, "sites": ["gz"]}],
    "shifts": [
        shift("gz", 1, "wang"),
        {"team": "network", "engineer": "sun", "start": "00:00", "end": "24:00"},
        shift("gz", 2, "li"),
    ],
}


async def test_a_rule_tells_a_team_before_the_others(desk: Desk) -> None:
    await desk.load(**calm(), **TEAMS, rules=[{"when": {"site": "gz"}, "team": "network"}])
    ticket = await desk.write(AT_GZ)
    assert desk.phones_that_rang() == ["sun"]
    await desk.fast_forward(minutes(1))
    assert desk.phones_that_rang() == ["sun", "wang"]
    await desk.press("sun", "1")
    assert await desk.assignee(ticket) == "sun"


async def test_a_rule_gives_vips_a_policy_of_their_own(desk: Desk) -> None:
    swift = {"key": "swift", "steps": [{"tell": ["tier 1", "tier 2"], "parallel": True}]}
    rules = [{"when": {"vip": True}, "policy": "swift"}]
    await desk.load(**calm(), policies=[swift], rules=rules)
    await desk.write(AT_GZ)
    assert desk.phones_that_rang() == ["wang"]
    desk.forget()
    await desk.write(VIP)
    assert desk.phones_that_rang() == ["wang", "li"]


async def test_a_rule_asks_for_a_skill(desk: Desk) -> None:
    people = [*engineers()[1:], engineer("wang", 1), engineer("zhou", 7, skills=["sap"])]
    shifts = [shift("gz", 1, "wang"), shift("gz", 1, "zhou")]
    rules = [{"when": {"system": "SAP"}, "skill": "sap"}]
    await desk.load(**calm(), engineers=people, shifts=shifts, rules=rules)
    ticket = await desk.write(AT_GZ)
    assert desk.phones_that_rang() == ["wang"]
    desk.forget()
    sap = Classification(category=Category.SOFTWARE, system="SAP")
    await desk.when(desk.tickets.classify(ticket, sap, actor="user:desk"))
    await desk.press("wang", "2")
    assert desk.phones_that_rang() == ["zhou"]


async def test_an_emergency_of_a_team_still_needs_two_and_a_conference(desk: Desk) -> None:
    await desk.load(**calm(), **TEAMS, rules=[{"when": {"site": "gz"}, "team": "network"}])
    ticket = await desk.write(AT_GZ)
    desk.forget()
    p1 = Classification(impact=Impact.COMPANY, urgency=Urgency.HIGH)
    await desk.when(desk.tickets.classify(ticket, p1, actor="user:desk"))
    assert desk.phones_that_rang() == ["sun"]
    assert desk.network[0].notification.facts["conference"] == "1"
    assert await desk.press("sun", "1") == "taken"
    assert desk.phones_that_rang() == ["sun", "wang", "li"], "one is not enough"


async def test_the_desk_gives_a_ticket_to_a_team_by_hand(desk: Desk) -> None:
    await desk.load(**calm(), **TEAMS)
    ticket = await desk.write(AT_GZ)
    assert desk.phones_that_rang() == ["wang"]
    await desk.when(desk.tickets.assign_team(ticket, "network", actor="user:desk"))
    assert desk.phones_that_rang() == ["wang", "sun"]
    await desk.press("sun", "1")
    assert await desk.assignee(ticket) == "sun"
    await desk.when(desk.tickets.assign_team(ticket, "", actor="user:desk"))
    await desk.when(desk.tickets.assign_team(ticket, "network", actor="engineer:sun"))
    assert desk.phones_that_rang() == ["wang", "sun"], "somebody of the team has it"


async def test_who_is_on_duty_is_rung_about_what_was_handed_to_them(desk: Desk) -> None:
    await desk.load(**calm())
    ticket = await desk.write(AT_GZ)
    await desk.press("wang", "1")
    desk.forget()
    await desk.when(desk.tickets.hand_over(ticket, "li", actor="engineer:wang"))
    assert desk.told() == [("li", Medium.CALL, Reason.ASSIGNED)]
    assert await desk.assignee(ticket) == "li"
    assert await desk.press("li", "1") == "taken"
    await desk.fast_forward(minutes(30))
    assert desk.phones_that_rang() == ["li"]


async def test_a_second_medium_says_the_same_as_the_first(desk: Desk) -> None:
    await desk.load(**calm())
    ticket = await desk.call(AT_GZ, answered_by="li")
    await desk.when(desk.tickets.hand_over(ticket, "wang", actor="engineer:li"))
    await desk.fast_forward(minutes(3))
    assert desk.told() == [
        ("wang", Medium.CALL, Reason.ASSIGNED),
        ("wang", Medium.CALL, Reason.ASSIGNED),
        ("wang", Medium.TEXT, Reason.ASSIGNED),
    ]


async def test_who_does_not_want_what_was_handed_to_them_passes_it_on(desk: Desk) -> None:
    await desk.load(**calm())
    ticket = await desk.call(AT_GZ, answered_by="wang")
    await desk.when(desk.tickets.hand_over(ticket, "li", actor="engineer:wang"))
    await desk.press("li", "2")
    assert desk.phones_that_rang() == ["li", "wang"]


async def test_who_is_off_duty_is_written_to_and_nobody_is_woken(desk: Desk) -> None:
    await desk.load(**calm())
    ticket = await desk.write(AT_GZ)
    await desk.when(desk.tickets.hand_over(ticket, "zhao", actor="user:desk"))
    assert desk.told() == [
        ("wang", Medium.CALL, Reason.NEW),
        ("zhao", Medium.TEXT, Reason.ASSIGNED),
    ]
    assert await desk.press("zhao", "1") == "taken"
    assert await desk.assignee(ticket) == "zhao"
    assert await desk.state(ticket) is State.IN_PROGRESS
    desk.forget()
    await desk.fast_forward(minutes(30))
    assert desk.network == []


async def test_who_is_off_duty_says_no_and_those_on_duty_are_told(desk: Desk) -> None:
    await desk.load(**calm())
    ticket = await desk.call(AT_GZ, answered_by="li")
    await desk.when(desk.tickets.hand_over(ticket, "zhao", actor="engineer:li"))
    assert await desk.press("zhao", "2") == "passed"
    assert desk.phones_that_rang() == ["wang"]
    await desk.press("wang", "1")
    assert await desk.assignee(ticket) == "wang"


async def test_who_cannot_be_written_to_is_not_the_only_one_who_should_know(desk: Desk) -> None:
    """An extension of the PBX takes no texts."""
    people = [*engineers()[:-1], {"key": "zhao", "name": "zhao", "number": "8001"}]
    await desk.load(**calm(), engineers=people)
    ticket = await desk.call(AT_GZ, answered_by="li")
    await desk.when(desk.tickets.hand_over(ticket, "zhao", actor="engineer:li"))
    assert desk.phones_that_rang() == ["wang"]
    assert len(await desk.journal(ticket, "hand_over.not_told")) == 1


async def test_nothing_is_handed_to_somebody_nobody_knows(desk: Desk) -> None:
    ticket = await desk.write(AT_GZ)
    with pytest.raises(PermanentFailure, match="no such engineer"):
        await desk.tickets.hand_over(ticket, "nobody", actor="user:desk")
