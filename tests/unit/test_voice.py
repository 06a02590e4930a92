"""Calls to people: through which PBX, how many at a time, and what became of them."""

import pytest

from contactd.errors import PermanentFailure, TemporaryFailure
from contactd.routing.notify import Busy, Notification, Reason, SendState, SendUnknown, Trace
from contactd.telephony.voice import DIALOGUE_S, YOUNG_S, Outgoing, Voice
from contactd.tickets.contact import Medium
from tests.fakes.line import FakeLine
from tests.fakes.pbx import Transcript

RING_S = 30.0
RECORDED = Transcript.load("ami-22-pages")


def notification(ref: str = "notice-1", pbx: str = "") -> Notification:
    return Notification(
        ref=ref, ticket="26112000015", recipient="wang", medium=Medium.CALL,
        address="+8613800000001", language="zh", reason=Reason.NEW, facts={"pbx": pbx},
    )  # fmt: skip


# Through which PBX


async def test_the_pbx_of_the_call_rings_if_it_is_there_else_another() -> None:
    first, second = FakeLine(), FakeLine(name="pbx2")
    voice = Voice([first, second])
    await voice.send(notification("a", pbx="pbx2"))
    await voice.send(notification("b"))
    second.down = True
    await voice.send(notification("c", pbx="pbx2"))
    assert (first.dialled, second.dialled) == (["b", "c"], ["a"])


async def test_a_pbx_without_room_is_passed_over_and_none_with_room_is_busy() -> None:
    first, second = FakeLine(full=True), FakeLine(name="pbx2")
    voice = Voice([first, second])
    await voice.send(notification("a"))
    assert second.dialled == ["a"]
    second.full = True
    with pytest.raises(Busy):
        await voice.send(notification("b"))
    second.down = True
    with pytest.raises(Busy):
        await voice.send(notification("b"))


async def test_a_pbx_that_does_not_answer_is_passed_over() -> None:
    first, second = FakeLine(failure=TemporaryFailure("lost")), FakeLine(name="pbx2")
    voice = Voice([first, second])
    await voice.send(notification("a"))
    assert second.dialled == ["a"]
    second.full = True
    for order in ([first, second], [second, first]):
        with pytest.raises(Busy):  # soon there is room
            await Voice(order).send(notification("b"))


async def test_without_any_pbx_nothing_is_sent() -> None:
    with pytest.raises(TemporaryFailure, match="no PBX is connected"):
        await Voice([FakeLine(down=True)]).send(notification())


@pytest.mark.parametrize("failure", [SendUnknown("who knows"), PermanentFailure("not that")])
async def test_what_may_ring_already_is_not_tried_elsewhere(failure: Exception) -> None:
    second = FakeLine(name="pbx2")
    with pytest.raises(type(failure)):
        await Voice([FakeLine(failure=failure), second]).send(notification())
    assert second.dialled == []


async def test_a_call_is_found_at_whichever_pbx_dialled_it() -> None:
    first, second = FakeLine(), FakeLine(name="pbx2")
    voice = Voice([first, second])
    await voice.send(notification("a", pbx="pbx2"))
    assert await voice.find("a") is Trace.SENT
    assert await voice.find("b") is Trace.NEVER


async def test_never_is_not_said_while_a_pbx_cannot_be_asked() -> None:
    first, second = FakeLine(down=True), FakeLine(name="pbx2", dialled=["a"])
    voice = Voice([first, second])
    assert await voice.find("a") is Trace.SENT
    with pytest.raises(TemporaryFailure, match="pbx1 is away"):
        await voice.find("b")


async def test_stopping_reaches_every_pbx_that_is_there_and_tells_of_the_others() -> None:
    first, second = FakeLine(down=True), FakeLine(name="pbx2", dialled=["a"])
    with pytest.raises(TemporaryFailure, match="pbx1 is away"):
        await Voice([first, second]).stop(["a", "b"])
    assert second.hung_up == ["a"]


# How many, and what became of them


class Calls:
    """The calls of one PBX, and a clock."""

    def __init__(self, most: int = 2) -> None:
        self.outgoing = Outgoing(most)
        self.now = 1000.0

    def begin(self, *refs: str) -> None:
        for ref in refs:
            self.outgoing.begin(ref, ring_s=RING_S, now=self.now)

    def hear(self, event: str, ref: str, **headers: str) -> list[tuple[str, SendState]]:
        headers = {"Event": event, "Uniqueid": ref, "Context": "contactd-page"} | headers
        return list(self.outgoing.feed(headers, self.now))

    def replay(self, number: int) -> list[tuple[str, SendState]]:
        """Hear what the recorded PBX said after its `number`-th Originate."""
        heard: list[tuple[str, SendState]] = []
        for message in RECORDED.answers("Originate", number):
            event = dict(message)
            if "Event" in event:
                heard += self.outgoing.feed(event, self.now)
        return heard


@pytest.fixture
def calls() -> Calls:
    return Calls()


def test_as_many_calls_as_allowed(calls: Calls) -> None:
    calls.begin("a", "b")
    calls.begin("a")  # the same one
    with pytest.raises(Busy, match="2 calls"):
        calls.begin("c")
    calls.outgoing.forget("a")
    calls.begin("c")


def test_a_recorded_phone_that_is_not_answered_makes_room(calls: Calls) -> None:
    calls.begin("notice-1", "b")
    assert calls.replay(0) == [("notice-1", SendState.NOT_REACHED)]
    calls.begin("c")


def test_a_recorded_phone_that_is_picked_up_counts_until_it_hangs_up(calls: Calls) -> None:
    calls.begin("notice-2", "b")
    heard: list[tuple[str, SendState]] = []
    for message in RECORDED.answers("Originate", 1)[1:]:
        heard += calls.outgoing.feed(dict(message), calls.now)
        if dict(message)["Uniqueid"] != "notice-2" or dict(message)["Event"] != "Hangup":
            with pytest.raises(Busy):
                calls.begin("c")
    assert heard == [("notice-2", SendState.DELIVERED)]
    calls.begin("c")


def test_a_recorded_phone_that_we_hung_up_on_is_nobodys_news(calls: Calls) -> None:
    calls.begin("notice-3", "b")
    calls.outgoing.give_up("notice-3")
    heard: list[tuple[str, SendState]] = []
    for message in RECORDED.answers("Hangup"):
        heard += calls.outgoing.feed({"Event": "", **dict(message)}, calls.now)
    assert heard == []
    calls.begin("c")
    calls.outgoing.forget("c")
    calls.begin("notice-3")  # wanted again
    assert calls.hear("OriginateResponse", "notice-3", Response="Failure") == [
        ("notice-3", SendState.NOT_REACHED)
    ]


@pytest.mark.parametrize(
    "events", [("Hangup", "OriginateResponse"), ("OriginateResponse", "Hangup")]
)
def test_the_order_of_the_two_events_of_a_failure_does_not_matter(
    calls: Calls, events: tuple[str, str]
) -> None:
    calls.begin("a", "b")
    heard = [one for event in events for one in calls.hear(event, "a", Response="Failure")]
    assert heard == [("a", SendState.NOT_REACHED)]
    calls.begin("c")


def test_a_call_of_an_earlier_life_is_told_of_and_another_programs_is_not(calls: Calls) -> None:
    assert calls.hear("OriginateResponse", "old", Response="Success") == [
        ("old", SendState.DELIVERED)
    ]
    assert calls.hear("OriginateResponse", "x", Response="Failure", Context="from-internal") == []


def test_a_call_whose_end_was_lost_does_not_count_for_ever(calls: Calls) -> None:
    calls.begin("a", "b")
    calls.now += RING_S
    calls.hear("OriginateResponse", "a", Response="Success")
    calls.now += DIALOGUE_S - 1
    with pytest.raises(Busy):
        calls.begin("c")
    assert calls.outgoing.holds(["a"], calls.now)
    calls.now += 1
    assert not calls.outgoing.holds(["a", "b", "never"], calls.now)
    calls.begin("c", "d")


def test_after_a_lost_link_what_is_gone_unanswered_was_not_reached() -> None:
    calls = Calls(most=5)
    calls.begin("rings", "gone", "talked", "stopped")
    calls.hear("OriginateResponse", "talked", Response="Success")
    calls.outgoing.give_up("stopped")
    calls.now += YOUNG_S
    calls.begin("young")  # its channel may not be there yet
    found = list(calls.outgoing.resync({"rings", "other"}, calls.now))
    assert found == [("gone", SendState.NOT_REACHED)]
    calls.begin("a", "b", "c")
    with pytest.raises(Busy):
        calls.begin("d")
