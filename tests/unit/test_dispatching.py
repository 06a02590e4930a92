"""The life of a dispatch, step by step, and the code that proves an arrival."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest

from contactd.errors import ActionNotAllowed, NotFound, PermanentFailure
from contactd.tickets import dispatching
from contactd.tickets.dispatching import Dispatch, Moved, State, Step
from contactd.tickets.model import Ticket
from contactd.tickets.priority import Impact, Priority, Urgency
from contactd.tickets.states import State as TicketState

NOW = datetime(2026, 11, 22, 2, tzinfo=UTC)
WANG = "engineer:wang"
TICKET = Ticket(
    id=7, number="26112200014", requester_id=1, site="gz", state=TicketState.IN_PROGRESS,
    impact=Impact.PERSON, urgency=Urgency.MEDIUM, priority=Priority.P3, priority_reason="",
    title="", category="", system="", team="", assignee="li", opened_at=NOW,
    acknowledged_at=NOW, closed_at=None, last_contact_at=NOW, updated_at=NOW, journal_seq=1,
    journal_hash="",
)  # fmt: skip


def dispatch(state: State = State.OFFERED, **fields: Any) -> Dispatch:
    values: dict[str, Any] = {
        "ticket_id": 7, "number": 1, "engineer": "wang", "state": state, "code": "0471",
        "updated_at": NOW - timedelta(hours=1),
    }  # fmt: skip
    return Dispatch(**(values | fields))


def move(before: Dispatch, step: Step, code: str = "") -> Moved:
    return dispatching.move(TICKET, before, step, actor=WANG, code=code, now=NOW)


def said(moved: Moved) -> list[str]:
    return [entry.action for entry in moved.entries]


@pytest.mark.parametrize(("state", "step"), list(product(State, Step)))
def test_each_step_leads_where_the_table_says_or_nowhere(state: State, step: Step) -> None:
    expected = dispatching.TRANSITIONS.get((state, step))
    if expected is None:
        with pytest.raises(ActionNotAllowed, match=state.value):
            dispatching.next_state(state, step)
    else:
        assert dispatching.next_state(state, step) is expected


def test_every_state_can_be_reached_and_every_way_ends() -> None:
    reached = {State.OFFERED} | set(dispatching.TRANSITIONS.values())
    assert reached == set(State)
    going_on = {state for state, _ in dispatching.TRANSITIONS}
    assert going_on == dispatching.LIVE


def test_an_engineer_accepts_sets_out_arrives_and_is_done() -> None:
    one = dispatch()
    actions = []
    for step in (Step.ACCEPT, Step.SET_OUT, Step.ARRIVE, Step.FINISH):
        moved = move(one, step)
        one = moved.dispatch
        actions += said(moved)
    assert actions == [
        "dispatch.accepted", "dispatch.on_way", "dispatch.arrived", "dispatch.done",
    ]  # fmt: skip
    assert (one.state, one.updated_at, one.is_proved) == (State.DONE, NOW, False)


@pytest.mark.parametrize("step", [Step.SET_OUT, Step.ARRIVE])
def test_who_sets_out_or_arrives_at_once_has_accepted(step: Step) -> None:
    moved = move(dispatch(), step)
    assert said(moved)[0] == "dispatch.accepted"
    assert moved.accepted
    assert len(moved.entries) == 2


@pytest.mark.parametrize(
    ("state", "step"),
    [
        (State.ACCEPTED, Step.ACCEPT), (State.ON_WAY, Step.SET_OUT), (State.ARRIVED, Step.ARRIVE),
        (State.DONE, Step.FINISH), (State.DECLINED, Step.DECLINE), (State.CANCELLED, Step.CANCEL),
    ],
)  # fmt: skip
def test_the_same_step_again_is_harmless(state: State, step: Step) -> None:
    before = dispatch(state)
    assert move(before, step) == Moved(dispatch=before, entries=())


def test_the_right_code_proves_the_arrival_and_is_nowhere_to_be_read() -> None:
    moved = move(dispatch(State.ON_WAY), Step.ARRIVE, "0471")
    assert moved.dispatch.is_proved
    (arrived,) = moved.entries
    assert arrived.body == {"dispatch": 1, "engineer": "wang", "proved": True}
    assert "0471" not in repr(moved)


def test_without_a_code_an_arrival_is_not_proved_and_the_code_may_follow() -> None:
    moved = move(dispatch(State.ON_WAY), Step.ARRIVE)
    assert moved.entries[0].body["proved"] is False
    later = move(moved.dispatch, Step.ARRIVE, "0471")
    assert said(later) == ["dispatch.proved"]
    assert later.dispatch.is_proved
    with pytest.raises(ActionNotAllowed):
        move(later.dispatch, Step.PROVE, "0471")


def test_a_wrong_code_moves_nothing_and_after_five_none_is_looked_at() -> None:
    one = dispatch(State.ON_WAY)
    for number in range(1, 6):
        moved = move(one, Step.ARRIVE, "0000")
        assert said(moved) == ["dispatch.code_refused"]
        assert moved.refused
        assert moved.dispatch.state is State.ON_WAY
        assert moved.dispatch.wrong_codes == number
        one = moved.dispatch
    locked = move(one, Step.ARRIVE, "0471")
    assert locked.refused
    assert locked.dispatch == one
    assert locked.entries == ()
    assert move(one, Step.ARRIVE).dispatch.state is State.ARRIVED


@pytest.mark.parametrize("code", ["471", "04710", "０４７１", "", "\ud800"[:0] + "٠٤٧١"])
def test_only_the_code_itself_is_the_code(code: str) -> None:
    moved = move(dispatch(State.ON_WAY), Step.ARRIVE, code)
    assert not moved.dispatch.is_proved


@pytest.mark.parametrize("step", [Step.ACCEPT, Step.DECLINE, Step.SET_OUT, Step.FINISH])
def test_only_an_arrival_takes_a_code(step: Step) -> None:
    with pytest.raises(PermanentFailure, match="arrival"):
        move(dispatch(), step, "0471")


def test_a_proof_needs_its_code() -> None:
    with pytest.raises(PermanentFailure, match="missing"):
        move(dispatch(State.ARRIVED), Step.PROVE)


def offer(*known: Dispatch, ticket: Ticket = TICKET) -> Moved:
    return dispatching.offer(ticket, known, "wang", code="1234", actor="user:amy", now=NOW)


def test_an_offer_has_the_next_number_of_its_ticket() -> None:
    moved = offer(dispatch(State.DECLINED), dispatch(State.ON_WAY, number=2, engineer="li"))
    assert (moved.dispatch.number, moved.dispatch.state) == (3, State.OFFERED)
    (offered,) = moved.entries
    assert (offered.action, offered.actor) == ("dispatch.offered", "user:amy")
    assert offered.body == {"dispatch": 3, "engineer": "wang"}


@pytest.mark.parametrize("state", sorted(dispatching.LIVE))
def test_nobody_is_sent_twice_at_a_time(state: State) -> None:
    with pytest.raises(ActionNotAllowed, match="wang"):
        offer(dispatch(state))


@pytest.mark.parametrize("state", [TicketState.RESOLVED, TicketState.CLOSED, TicketState.CANCELLED])
def test_nobody_is_sent_for_a_ticket_that_is_over_and_who_has_not_arrived_is_called_off(
    state: TicketState,
) -> None:
    over = replace(TICKET, state=state)
    with pytest.raises(ActionNotAllowed):
        offer(ticket=over)
    known = [dispatch(each, number=n) for n, each in enumerate(State)]
    off = dispatching.called_off(over, known, actor="user:amy", now=NOW)
    assert {known[moved.dispatch.number].state for moved in off} == {
        State.OFFERED, State.ACCEPTED, State.ON_WAY,
    }  # fmt: skip
    for moved in off:
        assert moved.dispatch.state is State.CANCELLED
        assert moved.entries[0].action == "dispatch.cancelled"
        assert moved.entries[0].body["reason"] == state.value


def test_somebody_speaks_of_their_own_dispatch_the_one_under_way_first() -> None:
    known = [
        dispatch(State.ON_WAY, number=1),
        dispatch(State.DECLINED, number=2),
        dispatch(State.ACCEPTED, number=3, engineer="li"),
    ]

    def chosen(actor: str, number: int | None = None) -> int:
        return dispatching.chosen(known, actor=actor, number=number).number

    assert chosen(WANG) == 1
    assert chosen("engineer:li") == 3
    assert chosen("user:amy", 2) == 2
    with pytest.raises(PermanentFailure, match="several"):
        chosen("user:amy")
    with pytest.raises(ActionNotAllowed):
        chosen(WANG, 3)
    with pytest.raises(NotFound):
        chosen("engineer:zhao")
    with pytest.raises(NotFound):
        chosen("user:amy", 9)
    assert dispatching.chosen([known[1]], actor="user:amy").number == 2
