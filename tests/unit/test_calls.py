"""Live calls from AMI events: recorded ones of Asterisk 22, and made ones."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contactd.telephony.calls import (
    TRANSITIONS,
    Action,
    Answered,
    Arrived,
    CallTracker,
    Change,
    Ended,
    LeftQueue,
    Offered,
    Passed,
    Queued,
    State,
    Transferred,
)

TRANSCRIPT = Path(__file__).parent.parent / "transcripts" / "ami-22-calls.txt"
NOW = datetime(2026, 11, 20, 2, 0, tzinfo=UTC)
CALL = "pbx1-1795140000.0"
WANG = "Local/13800000001@engineer-zh"


def event(kind: str, call_id: str = CALL, **headers: str) -> Mapping[str, str]:
    return {
        "Event": kind,
        "Channel": "PJSIP/trunk-00000000",
        "CallerIDNum": "13912345678",
        "CallerIDName": "zhang san",
        "Context": "contactd-queue",
        "Exten": "s",
        "Uniqueid": call_id,
        "Linkedid": call_id,
        **headers,
    }


def arrives(call_id: str = CALL, **headers: str) -> Mapping[str, str]:
    values = {"Context": "hotline", "Exten": "4008001234", **headers}
    return event("Newchannel", call_id, **values)


def feed(tracker: CallTracker, *events: Mapping[str, str]) -> list[Change]:
    return [change for one in events for change in tracker.feed(one, NOW)]


def state_of(tracker: CallTracker, call_id: str = CALL) -> State | None:
    call = tracker.find(call_id)
    return call.state if call else None


@pytest.fixture
def tracker() -> CallTracker:
    return CallTracker()


def recorded() -> list[Mapping[str, str]]:
    text = TRANSCRIPT.read_text(encoding="utf-8")
    blocks = [block for block in text.split("\n\n") if "Event: " in block]
    return [dict(re.findall(r"^([A-Za-z-]+): ?(.*)$", block, re.MULTILINE)) for block in blocks]


# Recorded with a real Asterisk


def test_recorded_calls_come_and_go(tracker: CallTracker) -> None:
    changes = feed(tracker, *recorded())
    arrived = [change.call_id for change in changes if isinstance(change, Arrived)]
    assert len(arrived) == 8
    assert arrived == [change.call_id for change in changes if isinstance(change, Ended)]
    assert tracker.snapshot() == ()


def test_recorded_answered_call_goes_through_its_states(tracker: CallTracker) -> None:
    first = "pbx1-1795319588.0"
    mine = [change for change in feed(tracker, *recorded()) if change.call_id == first]
    assert [type(change) for change in mine] == [
        Arrived,
        Queued,
        Offered,
        LeftQueue,
        Answered,
        Ended,
    ]
    assert isinstance(mine[0], Arrived)
    assert (mine[0].caller, mine[0].did) == ("13912345678", "4008001234")
    assert mine[0].at.isoformat() == "2026-11-22T03:53:08.986503+00:00"
    assert isinstance(mine[4], Answered)
    assert mine[4].engineer == "wang"


def test_recorded_transfer_names_the_number_that_was_keyed(tracker: CallTracker) -> None:
    changes = feed(tracker, *recorded())
    (transfer,) = [change for change in changes if isinstance(change, Transferred)]
    assert transfer.to == "13800000003"


# The table


def test_every_state_but_the_last_can_end() -> None:
    for state in State:
        ends = TRANSITIONS.get((state, Action.HANG_UP))
        assert ends is (None if state is State.ENDED else State.ENDED)


@pytest.mark.parametrize(("state", "action"), list(product(State, Action)))
def test_table_leads_from_a_state_to_a_state(state: State, action: Action) -> None:
    target = TRANSITIONS.get((state, action))
    assert target is None or isinstance(target, State)
    if state is State.ENDED:
        assert target is None


# Events


def test_call_is_seen_at_its_first_event_and_once(tracker: CallTracker) -> None:
    (change,) = feed(tracker, arrives(), arrives())
    assert change == Arrived(
        call_id=CALL, channel="PJSIP/trunk-00000000", caller="13912345678", name="zhang san",
        did="4008001234", at=NOW,
    )  # fmt: skip
    assert state_of(tracker) is State.RINGING


def test_engineers_leg_through_the_same_trunk_is_no_call(tracker: CallTracker) -> None:
    assert feed(tracker, arrives("pbx1-1795140000.3", Exten="s", Linkedid=CALL)) == []
    assert feed(tracker, arrives("pbx1-1795140000.4", Exten="")) == []


def test_withheld_number_is_empty(tracker: CallTracker) -> None:
    (change,) = feed(tracker, arrives(CallerIDNum="<unknown>", CallerIDName="<unknown>"))
    assert isinstance(change, Arrived)
    assert (change.caller, change.name) == ("", "")


def test_call_waits_is_offered_and_is_answered(tracker: CallTracker) -> None:
    feed(tracker, arrives())
    tracker.greeted(CALL, NOW)
    assert state_of(tracker) is State.GREETING
    changes = feed(
        tracker,
        event("QueueCallerJoin", Queue="gz"),
        event("AgentCalled", MemberName="wang"),
        event("AgentCalled", MemberName="wang"),
        event("AgentCalled", MemberName="li"),
        event("AgentRingNoAnswer", MemberName="wang"),
        event("AgentRingNoAnswer", MemberName="wang"),
    )
    assert changes == [
        Queued(call_id=CALL, queue="gz", at=NOW),
        Offered(call_id=CALL, engineer="wang", at=NOW),
        Offered(call_id=CALL, engineer="li", at=NOW),
        Passed(call_id=CALL, engineer="wang", at=NOW),
    ]
    (call,) = tracker.snapshot()
    assert (call.state, call.offered, call.queue) == (State.OFFERED, ("li",), "gz")
    feed(tracker, event("QueueCallerLeave"), event("AgentConnect", MemberName="li"))
    (call,) = tracker.snapshot()
    assert (call.state, call.offered, call.engineer) == (State.TALKING, (), "li")


def test_call_that_everybody_passed_is_queued_again(tracker: CallTracker) -> None:
    feed(
        tracker,
        arrives(),
        event("QueueCallerJoin", Queue="gz"),
        event("AgentCalled", MemberName="wang"),
        event("AgentRingNoAnswer", MemberName="wang"),
    )
    assert state_of(tracker) is State.QUEUED


def test_call_out_of_the_queue_without_a_person_is_at_the_voicemail(tracker: CallTracker) -> None:
    feed(tracker, arrives(), event("QueueCallerJoin", Queue="gz"), event("QueueCallerLeave"))
    assert state_of(tracker) is State.VOICEMAIL


def test_events_that_cannot_follow_change_nothing(tracker: CallTracker) -> None:
    feed(tracker, arrives())
    odd = [event(kind, MemberName="wang") for kind in ("AgentCalled", "AgentConnect")]
    assert feed(tracker, *odd, event("QueueCallerLeave")) == []
    assert state_of(tracker) is State.RINGING
    join = event("QueueCallerJoin", Queue="gz")
    assert len(feed(tracker, join, join)) == 1


def test_attended_transfer_through_a_local_channel_is_followed(tracker: CallTracker) -> None:
    feed(tracker, arrives(), event("QueueCallerJoin"), event("AgentConnect", MemberName="wang"))
    (change,) = feed(
        tracker,
        {
            "Event": "AttendedTransfer",
            "Result": "Success",
            "TransfereeUniqueid": "pbx1-1795140000.2",
            "TransfereeLinkedid": CALL,
            "TransferTargetCallerIDNum": "1002",
        },
    )
    assert change == Transferred(call_id=CALL, to="1002", at=NOW)


def test_transfer_that_failed_changes_nothing(tracker: CallTracker) -> None:
    feed(tracker, arrives(), event("QueueCallerJoin"), event("AgentConnect", MemberName="wang"))
    failed = {"Event": "BlindTransfer", "Result": "Invalid", "TransfereeUniqueid": CALL}
    assert feed(tracker, failed) == []
    assert state_of(tracker) is State.TALKING


def test_transfer_that_nobody_answers_leads_back_to_the_queue(tracker: CallTracker) -> None:
    feed(tracker, arrives(), event("QueueCallerJoin"), event("AgentConnect", MemberName="wang"))
    feed(tracker, {"Event": "BlindTransfer", "TransfereeUniqueid": CALL, "Extension": "1"})
    feed(tracker, event("QueueCallerJoin", Queue="gz"))
    (call,) = tracker.snapshot()
    assert (call.state, call.engineer) == (State.QUEUED, "")


def test_caller_sent_to_the_hotline_by_the_pbx_is_seen_in_the_queue(tracker: CallTracker) -> None:
    changes = feed(tracker, event("QueueCallerJoin", Queue="gz"))
    assert [type(change) for change in changes] == [Arrived, Queued]


def test_other_queues_of_the_pbx_are_not_ours(tracker: CallTracker) -> None:
    assert feed(tracker, event("QueueCallerJoin", Queue="sales", Context="sales")) == []
    assert feed(tracker, event("AgentCalled", MemberName="x"), event("Hangup")) == []
    assert tracker.snapshot() == ()


def test_event_without_a_usable_time_happens_when_it_is_received(tracker: CallTracker) -> None:
    (change,) = feed(tracker, arrives(Timestamp="soon"))
    assert isinstance(change, Arrived)
    assert change.at == NOW


def test_flood_of_calls_is_reported_but_not_remembered() -> None:
    tracker = CallTracker(max_calls=10)
    changes = feed(tracker, *(arrives(f"pbx1-1795140000.{n}") for n in range(50)))
    assert len(changes) == 50
    assert len(tracker.snapshot()) == 10


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "Event": st.sampled_from(
                    [
                        "Newchannel",
                        "QueueCallerJoin",
                        "QueueCallerLeave",
                        "AgentCalled",
                        "AgentRingNoAnswer",
                        "AgentConnect",
                        "BlindTransfer",
                        "AttendedTransfer",
                        "Hangup",
                        "Unknown",
                    ]
                )
            },
            optional={
                "Uniqueid": st.sampled_from(["", CALL, "other"]),
                "TransfereeUniqueid": st.sampled_from(["", CALL]),
                "Context": st.sampled_from(["hotline", "contactd-queue", "x"]),
                "Exten": st.sampled_from(["s", "4008001234"]),
                "MemberName": st.sampled_from(["wang", "li"]),
                "Timestamp": st.text(max_size=5),
            },
        )
    )
)
def test_no_order_of_events_breaks_the_tracker(events: list[Mapping[str, str]]) -> None:
    tracker = CallTracker()
    changes = feed(tracker, *events)
    arrived = [change.call_id for change in changes if isinstance(change, Arrived)]
    ended = [change.call_id for change in changes if isinstance(change, Ended)]
    live = [call.call_id for call in tracker.snapshot()]
    assert sorted(arrived) == sorted(ended + live)
    assert all((call.state is State.OFFERED) == bool(call.offered) for call in tracker.snapshot())


# After a lost connection


def channel(call_id: str = CALL, **headers: str) -> Mapping[str, str]:
    values = {"ChannelStateDesc": "Up", "Duration": "00:01:00", "BridgeId": "", **headers}
    return event("CoreShowChannel", call_id, **values)


def leg(call_id: str = CALL, bridge: str = "") -> Mapping[str, str]:
    return channel(
        "pbx1-1795140000.1",
        Channel=f"{WANG}-00000000;1",
        Context="engineer-zh",
        Linkedid=call_id,
        BridgeId=bridge,
    )


MEMBER = {"Event": "QueueMember", "Queue": "gz", "Name": "wang", "Location": f"{WANG}/n"}
ENTRY = {"Event": "QueueEntry", "Queue": "gz", "Uniqueid": CALL, "Wait": "40"}


def test_call_that_came_in_meanwhile_arrives(tracker: CallTracker) -> None:
    changes = tracker.resync([channel(), leg()], [MEMBER, ENTRY], NOW)
    assert [type(change) for change in changes] == [Arrived, Queued, Offered]
    assert isinstance(changes[0], Arrived)
    assert changes[0].at == NOW - timedelta(minutes=1)
    assert isinstance(changes[1], Queued)
    assert changes[1].at == NOW - timedelta(seconds=40)
    (call,) = tracker.snapshot()
    assert (call.state, call.queue, call.offered) == (State.OFFERED, "gz", ("wang",))


def test_call_that_ended_meanwhile_ends(tracker: CallTracker) -> None:
    feed(tracker, arrives())
    assert tracker.resync([], [], NOW) == [Ended(call_id=CALL, at=NOW)]
    assert tracker.snapshot() == ()


def test_call_that_was_answered_meanwhile_is_answered(tracker: CallTracker) -> None:
    feed(tracker, arrives(), event("QueueCallerJoin", Queue="gz"))
    bridged = [channel(BridgeId="b1"), leg(bridge="b1")]
    changes = tracker.resync(bridged, [MEMBER], NOW)
    assert changes == [Answered(call_id=CALL, engineer="wang", at=NOW)]
    assert tracker.resync(bridged, [MEMBER], NOW) == []


def test_nothing_that_changed_is_no_change(tracker: CallTracker) -> None:
    feed(tracker, arrives(), event("QueueCallerJoin", Queue="gz"))
    before = tracker.snapshot()
    assert tracker.resync([channel()], [ENTRY], NOW + timedelta(seconds=9)) == []
    assert tracker.snapshot() == before


def test_call_that_was_not_new_keeps_its_did(tracker: CallTracker) -> None:
    feed(tracker, arrives())
    tracker.resync([channel(Context="contactd-menu")], [], NOW)
    (call,) = tracker.snapshot()
    assert (call.did, call.state) == ("4008001234", State.GREETING)


@pytest.mark.parametrize(
    ("headers", "state"),
    [
        ({"Context": "contactd-voicemail"}, State.VOICEMAIL),
        ({"Context": "contactd-transfer"}, State.TRANSFERRED),
        ({"Context": "contactd-greeting"}, State.GREETING),
        (
            {"Context": "hotline", "Exten": "4008001234", "ChannelStateDesc": "Ring"},
            State.RINGING,
        ),
    ],
)
def test_state_is_known_from_where_the_caller_is(
    tracker: CallTracker, headers: Mapping[str, str], state: State
) -> None:
    tracker.resync([channel(**headers)], [], NOW)
    assert state_of(tracker) is state


@pytest.mark.parametrize(
    "headers",
    [
        {"Context": "phones"},
        {"Channel": "Local/1002@contactd-transfer-00000001;2", "Context": "contactd-transfer"},
        {"Context": "hotline", "Exten": "13800000001", "Application": "AppDial"},
        {"Context": "hotline", "Exten": "s"},
        {"Context": "contactd-queue", "Linkedid": "pbx1-1.1"},
        {"Context": "contactd-page"},
        {"Uniqueid": "", "Linkedid": ""},
    ],
)
def test_other_channels_are_no_calls(tracker: CallTracker, headers: Mapping[str, str]) -> None:
    assert tracker.resync([channel(**headers)], [], NOW) == []


def test_partner_who_is_no_member_is_named_by_number(tracker: CallTracker) -> None:
    other = channel(
        "pbx1-1795140000.7", Channel="PJSIP/1002-00000007", CallerIDNum="1002", BridgeId="b1",
        Context="phones",
    )  # fmt: skip
    changes = tracker.resync([channel(BridgeId="b1"), other], [], NOW)
    assert changes[-1] == Answered(call_id=CALL, engineer="1002", at=NOW)


def test_listing_with_nonsense_in_it_is_survived(tracker: CallTracker) -> None:
    odd = {**ENTRY, "Wait": "long"}
    tracker.resync([channel(Duration="x", BridgeId=""), {}], [odd, {}], NOW)
    assert state_of(tracker) is State.QUEUED
    tracker.resync([channel(BridgeId="alone")], [], NOW)
    (call,) = tracker.snapshot()
    assert (call.state, call.engineer) == (State.TALKING, "")


def test_flood_is_capped_when_it_is_listed() -> None:
    tracker = CallTracker(max_calls=3)
    tracker.resync([channel(f"pbx1-1795140000.{n}") for n in range(9)], [], NOW)
    assert len(tracker.snapshot()) == 3
