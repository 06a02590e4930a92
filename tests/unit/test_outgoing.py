"""Calls by a click: which numbers may be called, and how a call is followed."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from contactd.telephony.cel import CallRecords, cel_row, queue_line
from contactd.telephony.outgoing import (
    OutgoingCall,
    OutgoingCalls,
    Step,
    may_call,
    number_of_ref,
    ref_of,
)
from contactd.tickets.contact import Contact, Direction, Outcome
from contactd.tickets.numbers import numbered
from tests.fakes.records import Channel, Recorder

AT = datetime(2026, 11, 22, 10, tzinfo=UTC)
TICKET = numbered("261120", 1)
REF = ref_of(TICKET, "li", "k")


@pytest.mark.parametrize(
    "number",
    ["+8613911112222", "+8619912345678", "+862038880000", "+861088880000", "+867557888000",
     "+8675528880000", "8001", "12345"],
)  # fmt: skip
def test_subscribers_and_extensions_may_be_called(number: str) -> None:
    assert may_call(number, ())


@pytest.mark.parametrize(
    "number",
    [
        "", "110", "119", "120", "95588", "10086", "0000", "+", "+86", "abc", "13911112222",
        "+8616812345", "+86201681234", "+8620160123456", "+862096123456", "+8620951234567",
        "+864008001234", "+8612345", "+85291234567", "+870123456789", "+8821612345678",
        "+97912345678", "+19005551234", "+8613911112222x", "+86139111122223", "\n8001", "8001\n",
        "+852 9123 4567", "+８６13911112222",
    ],
)  # fmt: skip
def test_what_may_cost_more_or_is_no_number_may_not(number: str) -> None:
    if number in ("95588", "10086"):  # five digits are an extension of the PBX: never the trunk's
        assert may_call(number, ())
    else:
        assert not may_call(number, ())


def test_a_country_can_be_allowed_but_the_own_country_s_services_cannot() -> None:
    assert may_call("+85291234567", ("+852",))
    assert not may_call("+85391234567", ("+852",))
    assert not may_call("+8616812345", ("+86", "+861", "+"))
    assert not may_call("+19005551234", ("", "+"))


def test_the_id_of_a_call_names_its_ticket_and_belongs_to_one_click() -> None:
    assert number_of_ref(REF) == TICKET
    assert ref_of(TICKET, "li", "k") == REF
    assert len({REF, ref_of(TICKET, "wang", "k"), ref_of(TICKET, "li", "other")}) == 3
    for other in ("", "pbx1-1700000000.1", f"out-{TICKET}-x", "out-1-" + "0" * 24, f"x{REF}"):
        assert number_of_ref(other) == ""


def call(**changed: object) -> OutgoingCall:
    known = {
        "ref": REF, "ticket": TICKET, "user": "li", "engineer": "li", "number": "+8613911112222",
        "pbx": "pbx1", "began_at": AT, "step": Step.YOU, "since": AT,
    }  # fmt: skip
    return OutgoingCall(**(known | changed))  # type: ignore[arg-type]


def said(step: str) -> dict[str, str]:
    return {"Event": "UserEvent", "UserEvent": "ContactdOut", "Ref": REF, "Step": step}


def test_a_call_is_followed_from_the_own_phone_to_its_end() -> None:
    calls = OutgoingCalls()
    calls.begin(call())
    steps = []
    for event in (said("dial"), said("answered"), said("ANSWER"),
                  {"Event": "Hangup", "Uniqueid": REF}):  # fmt: skip
        moved = calls.feed(event, AT + timedelta(seconds=1))
        assert moved is not None
        steps.append(moved.step)
    assert steps == [Step.THEM, Step.TALKING, Step.TALKING, Step.OVER]
    assert calls.of_user("li", AT + timedelta(seconds=2)) is None
    (over,) = calls.snapshot(AT + timedelta(seconds=2))
    assert over.talked_from == AT + timedelta(seconds=1)
    assert calls.snapshot(AT + timedelta(minutes=1)) == ()


def test_events_of_others_and_of_other_calls_change_nothing() -> None:
    calls = OutgoingCalls()
    calls.begin(call())
    for event in (
        said("dial") | {"Ref": "other"}, said("dial") | {"UserEvent": "Other"},
        {"Event": "Hangup", "Uniqueid": f"{REF};2"}, {"Event": "Newchannel", "Uniqueid": REF},
        {"Event": "OriginateResponse", "Uniqueid": REF, "Response": "Success"},
    ):  # fmt: skip
        assert calls.feed(event, AT) is None
    failed = {"Event": "OriginateResponse", "Uniqueid": REF, "Response": "Failure"}
    moved = calls.feed(failed, AT)
    assert moved is not None
    assert (moved.step, moved.word) == (Step.OVER, "NOTYOU")


def test_after_the_link_was_away_the_list_of_channels_is_believed() -> None:
    calls = OutgoingCalls()
    calls.begin(call())
    assert calls.resync("pbx1", {REF}, AT + timedelta(seconds=9)) == []
    assert calls.resync("pbx2", set(), AT + timedelta(seconds=9)) == []
    assert calls.resync("pbx1", set(), AT + timedelta(seconds=1)) == [], "it is being dialled"
    (gone,) = calls.resync("pbx1", set(), AT + timedelta(seconds=9))
    assert gone.step is Step.OVER
    assert calls.of_user("li", AT + timedelta(seconds=9)) is None


def test_a_call_whose_end_nobody_heard_holds_its_user_up_for_hours_only() -> None:
    calls = OutgoingCalls()
    calls.begin(call())
    assert calls.of_user("li", AT + timedelta(hours=3)) is not None
    assert calls.of_user("li", AT + timedelta(hours=5)) is None


# What the PBX's records say


@dataclass(frozen=True, slots=True)
class Dialled:
    """The channels of a call that the desk makes."""

    own: Channel
    phone: Channel
    theirs: Channel


def dial(pbx: Recorder, *, pressed: bool = True) -> Dialled:
    """Ring the engineer, who presses 1 (or not), and then the requester."""
    own = pbx.channel("Local/13800000001@contactd-call-#;1", context="contactd-out", exten="s")
    own.uniqueid = own.linkedid = REF
    other = pbx.channel("x", context="contactd-call", exten="1380", linkedid=REF)
    other.name, other.uniqueid = own.name[:-1] + "2", f"{REF};2"
    phone = pbx.channel("PJSIP/trunk-#", context="hotline", exten="s", linkedid=REF)
    for leg in (own, other, phone):
        pbx.row("CHAN_START", leg)
    pbx.row("ANSWER", phone)
    pbx.bridge(other, phone)
    theirs = pbx.channel("PJSIP/trunk-#", context="hotline", exten="s", linkedid=REF)
    theirs.number = "13911112222"
    if pressed:
        pbx.user("OUTGOING", own, "8613911112222|wang")
        pbx.user("RECORDING", own, "/var/spool/asterisk/monitor/x.wav")
        pbx.row("CHAN_START", theirs)
    return Dialled(own=own, phone=phone, theirs=theirs)


def read(pbx: Recorder) -> CallRecords[int]:
    records = CallRecords[int](pbx="pbx1", hotline_contexts=["hotline"])
    for number, row in enumerate(pbx.rows):
        records.add(cel_row(row), number)
    return records


def contact_of(pbx: Recorder) -> Contact:
    records = read(pbx)
    assert records.calls() == [REF]
    assert records.finished(REF, horizon=pbx.now + 3)
    return records.contact(REF, final=True)


def test_a_call_that_is_answered_is_the_engineer_s_on_the_ticket() -> None:
    pbx = Recorder()
    call = dial(pbx)
    pbx.row("ANSWER", call.theirs)
    pbx.wait(5)  # the notice
    pbx.bridge(call.own, call.theirs)
    pbx.wait(60)
    pbx.user("DIALLED", call.own, "ANSWER")
    pbx.hang_up(call.theirs, call.phone, call.own)
    contact = contact_of(pbx)
    assert contact.direction is Direction.OUT
    assert (contact.ticket, contact.to_value) == (TICKET, "+8613911112222")
    assert contact.outcome is Outcome.ANSWERED
    assert contact.call is not None
    assert [leg.engineer for leg in contact.call.legs] == ["wang"]
    assert contact.call.talked is not None
    assert round(contact.call.talked.total_seconds()) == 60
    assert contact.call.recording.endswith("x.wav")


@pytest.mark.parametrize(
    ("word", "outcome"),
    [("BUSY", Outcome.BUSY), ("NOANSWER", Outcome.NO_ANSWER), ("CANCEL", Outcome.NO_ANSWER),
     ("CHANUNAVAIL", Outcome.NO_ANSWER)],
)  # fmt: skip
def test_a_call_that_is_not_answered_says_why(word: str, outcome: Outcome) -> None:
    pbx = Recorder()
    call = dial(pbx)
    pbx.wait(20)
    pbx.user("DIALLED", call.own, word)
    pbx.hang_up(call.theirs, call.phone, call.own)
    contact = contact_of(pbx)
    assert contact.outcome is outcome
    assert contact.call is not None
    assert (contact.call.legs, contact.call.answered_at) == ((), None)


def test_who_does_not_press_the_key_has_called_nobody() -> None:
    pbx = Recorder()
    call = dial(pbx, pressed=False)
    pbx.hang_up(call.phone, call.own)
    assert read(pbx).calls() == []


def test_the_user_event_of_a_stranger_s_channel_is_no_call_of_ours() -> None:
    pbx = Recorder()
    caller = pbx.arrive()
    pbx.user("OUTGOING", caller, "8613911112222|wang")
    pbx.hang_up(caller)
    records = read(pbx)
    (call_id,) = records.calls()
    contact = records.contact(call_id, final=True)
    assert (contact.direction, contact.ticket) == (Direction.IN, "")


def test_a_pbx_that_dies_under_a_call_is_no_answer() -> None:
    pbx = Recorder()
    dial(pbx)
    records = read(pbx)
    records.add_queue(queue_line(f"{int(pbx.now) + 5}|NONE|NONE|NONE|QUEUESTART|"))
    assert records.contact(REF, final=True).outcome is Outcome.PBX_LOST
