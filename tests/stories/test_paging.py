"""Who is told until somebody takes a ticket, in which order, and whose answer counts."""

from datetime import datetime, timedelta

import pytest

from contactd.metrics import DUPLICATES
from contactd.routing import follow_up
from contactd.routing.escalation import Phase
from contactd.routing.notify import Reason, SendState
from contactd.tickets.contact import Medium
from contactd.tickets.model import Classification
from contactd.tickets.priority import Impact, Urgency
from contactd.tickets.states import Action, State
from tests.fakes.desk import (
    AT_GZ,
    AT_ZH,
    FLOOR,
    STRANGER,
    VIP,
    Desk,
    calm,
    engineers,
    hours,
    minutes,
    policy,
)

P1 = Classification(impact=Impact.COMPANY, urgency=Urgency.HIGH)


def times(desk: Desk, start: datetime) -> list[tuple[float, str]]:
    """Return who was told after how many minutes."""
    return [
        ((each.at - start).total_seconds() / 60, each.notification.recipient)
        for each in desk.network
    ]


async def test_silence_climbs_from_the_second_medium_to_everybody_and_the_floor(desk: Desk) -> None:
    await desk.write(AT_GZ)
    assert desk.told() == [("wang", Medium.CALL, Reason.NEW)]
    await desk.fast_forward(minutes(13))
    assert [(who, medium) for who, medium, _ in desk.told()] == [
        ("wang", Medium.CALL),
        ("wang", Medium.TEXT),  # a second medium of his own, after 2 min
        ("li", Medium.CALL),  # tier 2
        ("sun", Medium.CALL),  # nobody is in tier 3: the supervisor
        ("wang", Medium.CALL),  # everybody at once
        ("li", Medium.CALL),
        ("wang", Medium.TEXT),
        ("floor", Medium.CALL),
    ]


async def test_the_floor_is_rung_again_and_again_until_it_takes_the_ticket(desk: Desk) -> None:
    await desk.load(**calm(), policies=[policy({"tell": "tier 1"}, rounds=1)])
    start = desk.clock.now()
    ticket = await desk.write(AT_GZ)
    await desk.fast_forward(minutes(22))
    assert times(desk, start) == [
        *((0, "wang"), (2, "wang"), (5, "floor"), (10, "floor"), (15, "floor"), (20, "floor"))
    ]
    assert {each.notification.address for each in desk.network[2:]} == {FLOOR}
    assert await desk.press("floor", "1") == "taken"
    desk.forget()
    await desk.fast_forward(minutes(30))
    assert desk.network == []
    assert await desk.state(ticket) is State.IN_PROGRESS


async def test_whoever_presses_1_has_the_ticket_and_nobody_else_is_told(desk: Desk) -> None:
    ticket = await desk.write(AT_GZ)
    assert await desk.press("wang", "1") == "taken"
    assert await desk.assignee(ticket) == "wang"
    assert await desk.state(ticket) is State.IN_PROGRESS
    await desk.fast_forward(minutes(14))
    assert desk.phones_that_rang() == ["wang"]
    assert (await desk.sent_states(ticket)).popitem()[1] is SendState.TAKEN


async def test_who_takes_it_and_does_nothing_has_an_hour(desk: Desk) -> None:
    await desk.load(**calm())
    ticket = await desk.write(AT_GZ)
    await desk.press("wang", "1")
    desk.forget()
    await desk.fast_forward(minutes(59))
    assert desk.network == []
    await desk.fast_forward(minutes(1))
    assert desk.phones_that_rang() == ["wang"]
    await desk.fast_forward(minutes(3))
    assert await desk.press("li", "1") == "taken"
    assert await desk.assignee(ticket) == "li", "the newer word counts"


async def test_an_emergency_that_is_taken_has_a_quarter_of_an_hour(desk: Desk) -> None:
    await desk.load(**calm())
    ticket = await desk.write(AT_GZ)
    await desk.when(desk.tickets.classify(ticket, P1, actor="user:desk"))
    await desk.press("wang", "1")
    await desk.press("li", "1")
    desk.forget()
    await desk.fast_forward(minutes(14))
    assert desk.network == []
    await desk.fast_forward(minutes(1))
    assert desk.phones_that_rang() == ["wang", "li"]


async def test_work_on_the_ticket_keeps_it_from_going_back(desk: Desk) -> None:
    await desk.load(**calm())
    ticket = await desk.write(AT_GZ)
    await desk.press("wang", "1")
    desk.forget()
    await desk.fast_forward(minutes(30))
    await desk.tickets.updated(ticket, actor="engineer:wang", note="查看中")
    await desk.fast_forward(hours(3))
    assert desk.network == []


async def test_who_is_on_the_way_is_at_work(desk: Desk) -> None:
    await desk.load(**calm())
    ticket = await desk.write(AT_GZ)
    assert await desk.press("wang", "4") == "on_way"
    assert [entry.actor for entry in await desk.journal(ticket, "on_my_way")] == ["engineer:wang"]
    desk.forget()
    await desk.fast_forward(hours(3))
    assert desk.network == []


async def test_passing_on_rings_the_next_person_at_once(desk: Desk) -> None:
    ticket = await desk.write(AT_GZ)
    assert await desk.press("wang", "2") == "passed"
    assert desk.phones_that_rang() == ["wang", "li"]
    await desk.press("li", "2")
    assert desk.phones_that_rang() == ["wang", "li", "sun"]
    assert await desk.press("sun", "1") == "taken"
    assert await desk.assignee(ticket) == "sun"
    await desk.fast_forward(minutes(10))
    assert desk.told()[-1][0] == "sun", "王伟 had passed it on: no text either"


async def test_passing_on_twice_skips_nobody(desk: Desk) -> None:
    ticket = await desk.write(AT_GZ)
    first = desk.ref("wang")
    await desk.press(first, "2")
    await desk.press(first, "2")
    assert desk.phones_that_rang() == ["wang", "li"]
    ignored = await desk.journal(ticket, "escalation.ignored")
    assert [entry.body["reason"] for entry in ignored] == ["old"]


async def test_a_key_for_a_page_of_another_ladder_takes_nothing(desk: Desk) -> None:
    await desk.load(**calm())
    ticket = await desk.write(AT_GZ)
    old = desk.ref("wang")
    await desk.press("wang", "1")
    await desk.fast_forward(minutes(60))
    assert await desk.press(old, "1") == "late"
    escalation = await desk.escalation(ticket)
    assert escalation is not None
    assert escalation.phase is Phase.PAGING


async def test_no_key_is_not_an_answer(desk: Desk) -> None:
    """An answering machine picks up, and nothing more."""
    ticket = await desk.write(AT_GZ)
    await desk.report("wang", SendState.DELIVERED)
    await desk.press("wang", "")
    assert await desk.state(ticket) is State.NEW
    await desk.fast_forward(minutes(3))
    assert desk.phones_that_rang() == ["wang", "li"]


async def test_a_phone_that_nobody_answers_is_not_a_receipt(desk: Desk) -> None:
    ticket = await desk.write(AT_GZ)
    await desk.report("wang", SendState.NOT_REACHED)
    assert list((await desk.sent_states(ticket)).values()) == [SendState.NOT_REACHED]
    assert await desk.press("wang", "1") == "taken", "he calls back"


async def test_who_is_second_hears_that_it_is_taken(desk: Desk) -> None:
    ticket = await desk.write(AT_GZ)
    await desk.fast_forward(minutes(3))
    assert await desk.press("li", "1") == "taken"
    assert await desk.press("wang", "1") == "late"
    assert await desk.assignee(ticket) == "li"
    assert await desk.press("li", "1") == "taken", "twice is harmless"


async def test_nobody_takes_what_is_over(desk: Desk) -> None:
    ticket = await desk.write(AT_GZ)
    await desk.press("wang", "1")
    await desk.when(desk.tickets.act(ticket, Action.RESOLVE, actor="engineer:wang"))
    assert await desk.press("wang", "1") == "late"


async def test_the_others_are_stopped_once_somebody_has_it(desk: Desk) -> None:
    ticket = await desk.write(AT_GZ)
    await desk.fast_forward(minutes(3))
    await desk.press("li", "1")
    refs = [each.notification.ref for each in desk.phones.sent]
    assert desk.phones.stopped == refs[:1]
    states = await desk.sent_states(ticket)
    assert states[refs[0]] is SendState.STOPPED
    assert states[refs[1]] is SendState.TAKEN


async def test_a_pin_is_asked_for_by_who_has_one(desk: Desk) -> None:
    await desk.load(engineers=engineers(pin="4711"))
    ticket = await desk.write(AT_GZ)
    assert desk.network[0].notification.facts["pin"] == "1"
    assert await desk.press("wang", "1") == "pin"
    assert await desk.press("wang", "1", "4712") == "pin"
    assert await desk.state(ticket) is State.NEW
    assert await desk.press("wang", "1", "4711") == "taken"
    assert await desk.assignee(ticket) == "wang"


async def test_a_vip_is_more_urgent_and_the_page_says_so(desk: Desk) -> None:
    vip, other = await desk.write(VIP), await desk.write(AT_GZ)
    about = {each.notification.ticket: each.notification for each in desk.network}
    assert about[vip].facts["vip"] == "1"
    assert "vip" not in about[other].facts
    low = Classification(urgency=Urgency.LOW)
    for ticket in (vip, other):
        await desk.tickets.classify(ticket, low, actor="user:desk")
    assert (await desk.ticket(vip)).priority == "P3"
    assert (await desk.ticket(other)).priority == "P4"


# Emergencies


async def test_an_emergency_rings_every_tier_at_once_with_a_conference(desk: Desk) -> None:
    await desk.load(**calm())
    ticket = await desk.write(AT_GZ)
    desk.forget()
    await desk.when(desk.tickets.classify(ticket, P1, actor="user:desk"))
    assert desk.phones_that_rang() == ["wang", "li"]
    assert {each.notification.facts["conference"] for each in desk.network} == {"1"}
    await desk.fast_forward(minutes(3))
    assert desk.phones_that_rang() == ["wang", "li", "sun", "wang", "li"]


async def test_an_emergency_needs_two_who_take_it(desk: Desk) -> None:
    await desk.load(**calm())
    ticket = await desk.write(AT_GZ)
    await desk.when(desk.tickets.classify(ticket, P1, actor="user:desk"))
    assert await desk.press("li", "5") == "taken"
    await desk.fast_forward(minutes(3))
    assert desk.phones_that_rang()[-2:] == ["sun", "wang"], "李娜 alone is not enough"
    desk.phones.stopped.clear()
    assert await desk.press("sun", "1") == "taken"
    assert [ref.split("-")[3] for ref in desk.phones.stopped if "call" in ref][-1] == "wang"
    assert await desk.assignee(ticket) == "li", "the first who took it"
    desk.forget()
    await desk.fast_forward(minutes(14))
    assert desk.network == []
    assert await desk.press("wang", "1") == "late"


async def test_what_turns_out_to_be_an_emergency_begins_anew(desk: Desk) -> None:
    ticket = await desk.write(AT_GZ)
    await desk.fast_forward(minutes(1))
    desk.forget()
    await desk.when(desk.tickets.classify(ticket, P1, actor="engineer:li"))
    escalation = await desk.escalation(ticket)
    assert escalation is not None
    assert escalation.policy.key == "p1"
    assert desk.phones_that_rang() == ["wang", "li"]
    await desk.fast_forward(minutes(1))
    assert [who for who, medium, _ in desk.told() if medium is Medium.TEXT] == []
    await desk.fast_forward(minutes(1))
    assert [who for who, medium, _ in desk.told() if medium is Medium.TEXT] == ["wang"]


async def test_an_emergency_that_the_hotline_took_rings_the_others_too(desk: Desk) -> None:
    ticket = await desk.call(AT_GZ, answered_by="wang")
    assert desk.network == []
    await desk.when(desk.tickets.classify(ticket, P1, actor="engineer:wang"))
    assert desk.phones_that_rang() == ["wang", "li"]


# Media with faults


async def test_a_gateway_that_is_down_is_tried_until_it_is_up(desk: Desk) -> None:
    desk.phones.down = True
    ticket = await desk.write(AT_GZ)
    await desk.fast_forward(minutes(2))
    assert desk.told() == [("wang", Medium.TEXT, Reason.NEW)]
    desk.phones.down = False
    await desk.fast_forward(minutes(3))
    assert desk.phones_that_rang() == ["wang", "li"]
    assert await desk.press("li", "1") == "taken"
    assert await desk.assignee(ticket) == "li"


async def test_what_nobody_wants_any_more_is_not_sent_when_the_gateway_is_back(desk: Desk) -> None:
    desk.phones.down = True
    await desk.write(AT_GZ)
    await desk.fast_forward(minutes(2))
    assert await desk.press(desk.ref("wang", Medium.TEXT), "1") == "taken"
    desk.phones.down = False
    await desk.fast_forward(minutes(10))
    assert desk.phones_that_rang() == []


async def test_a_busy_trunk_delays_a_page_by_seconds(desk: Desk) -> None:
    start = desk.clock.now()
    desk.phones.busy = True
    await desk.write(AT_GZ)
    await desk.fast_forward(minutes(0.5))
    assert desk.network == []
    desk.phones.busy = False
    await desk.fast_forward(minutes(0.1))
    assert [who for _, who in times(desk, start)] == ["wang"]
    assert times(desk, start)[0][0] < 0.53


async def test_a_page_that_is_refused_goes_to_the_next_medium_and_person(desk: Desk) -> None:
    desk.phones.refused = {"+8613800000001"}
    ticket = await desk.write(AT_GZ)
    assert desk.told() == [("wang", Medium.TEXT, Reason.NEW)], "his second medium, at once"
    assert await desk.press("wang", "1") == "taken"
    assert await desk.assignee(ticket) == "wang"


async def test_who_can_be_reached_by_nothing_is_skipped(desk: Desk) -> None:
    desk.phones.refused = desk.texts.refused = {"+8613800000001"}
    await desk.write(AT_GZ)
    assert desk.told() == [("li", Medium.CALL, Reason.NEW)]


async def test_a_page_that_may_have_gone_out_is_looked_up_first(desk: Desk) -> None:
    desk.phones.mute = 1
    ticket = await desk.write(AT_GZ)
    assert desk.phones_that_rang() == ["wang"]
    assert desk.phones.lookups == 1
    assert list((await desk.sent_states(ticket)).values()) == [SendState.SENT]


async def test_a_page_that_was_lost_is_sent_again_at_once(desk: Desk) -> None:
    desk.phones.mute, desk.phones.loses = 1, True
    ticket = await desk.write(AT_GZ)
    assert desk.told() == [("wang", Medium.CALL, Reason.NEW)]
    assert desk.phones.lookups == 1
    assert list((await desk.sent_states(ticket)).values()) == [SendState.SENT]


async def test_a_gateway_that_never_answers_is_given_up_and_looked_up(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow_up, "SEND_WITHIN", timedelta(milliseconds=20))
    desk.phones.hangs = True
    ticket = await desk.write(AT_GZ)
    assert desk.phones_that_rang() == ["wang"]
    assert desk.phones.lookups == 1
    assert list((await desk.sent_states(ticket)).values()) == [SendState.SENT]


async def test_a_page_of_which_nobody_can_tell_is_repeated_in_the_next_round(desk: Desk) -> None:
    """Silence is the worse mistake; that somebody may have been rung twice is counted."""
    await desk.load(**calm(), policies=[policy({"tell": "tier 1"})])
    before = DUPLICATES.labels(medium="call")._value.get()
    desk.phones.mute, desk.phones.blind = 1, True
    ticket = await desk.write(AT_GZ)
    assert list((await desk.sent_states(ticket)).values()) == [SendState.UNKNOWN]
    await desk.fast_forward(minutes(5))
    assert desk.phones_that_rang() == ["wang", "wang"]
    assert len({each.notification.ref for each in desk.phones.sent}) == 1
    assert DUPLICATES.labels(medium="call")._value.get() == before + 1
    assert await desk.press("wang", "1") == "taken"


async def test_one_medium_is_enough(desk: Desk) -> None:
    """Without a PBX nobody can be called, not even the floor: texts go on."""
    del desk.media[Medium.CALL]
    desk.restart()
    ticket = await desk.write(AT_GZ)
    assert desk.told() == [("wang", Medium.TEXT, Reason.NEW)]
    await desk.fast_forward(minutes(40))
    assert {who for who, _, _ in desk.told()} == {"wang"}
    assert await desk.press("wang", "1") == "taken"
    assert await desk.assignee(ticket) == "wang"


async def test_a_ticket_of_no_site_rings_whoever_is_on_duty_anywhere(desk: Desk) -> None:
    await desk.write(STRANGER)
    await desk.fast_forward(minutes(2))
    assert desk.phones_that_rang() == ["wang", "chen"]


async def test_a_site_with_nobody_on_duty_rings_its_floor(desk: Desk) -> None:
    ticket = await desk.call(AT_ZH)
    assert desk.told() == [("floor", Medium.CALL, Reason.MISSED)]
    assert await desk.press("floor", "1") == "taken"
    assert await desk.state(ticket) is State.IN_PROGRESS


async def test_after_an_outage_of_the_pbx_nobody_is_rung_twice(desk: Desk) -> None:
    await desk.load(**calm())
    desk.phones.down = True
    await desk.write(AT_GZ)
    await desk.fast_forward(minutes(11))
    desk.phones.down = False
    desk.forget()
    await desk.fast_forward(minutes(5))
    rang = desk.phones_that_rang()
    assert rang != []
    assert len(rang) == len(set(rang))


async def test_a_page_that_waited_for_the_pbx_goes_out_within_a_minute(desk: Desk) -> None:
    await desk.load(**calm(), policies=[policy({"tell": "floor"})])
    desk.phones.down = True
    await desk.write(AT_GZ)
    await desk.fast_forward(minutes(4.3))
    desk.phones.down = False
    await desk.fast_forward(minutes(1))
    assert "floor" in desk.phones_that_rang()


async def test_an_old_answer_that_is_noted_late_ends_no_page_for_what_came_after_it(
    desk: Desk,
) -> None:
    await desk.load(**calm())
    ticket = await desk.call(AT_GZ, answered_by="li")
    answered_at = desk.clock.now()
    await desk.fast_forward(minutes(20))
    await desk.write(AT_GZ, text="现在服务器也坏了")
    await desk.fast_forward(minutes(0.5))
    said = desk.tickets.answered(
        ticket, actor="user:desk", how="call", at=answered_at, engineer="li"
    )
    await desk.when(said)
    desk.forget()
    await desk.fast_forward(minutes(10))
    assert desk.phones_that_rang() != []


async def test_a_ticket_that_is_handed_over_rings_nobody_else(desk: Desk) -> None:
    await desk.load(**calm())
    ticket = await desk.write(AT_GZ)
    await desk.when(desk.tickets.hand_over(ticket, "zhao", actor="user:desk"))
    desk.forget()
    await desk.fast_forward(minutes(10))
    assert desk.phones_that_rang() == []
