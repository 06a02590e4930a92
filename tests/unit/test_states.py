"""The life cycle: every pair of state and action is either in the table or refused."""

import itertools

import pytest

from contactd.errors import ActionNotAllowed
from contactd.tickets.states import OPEN, TRANSITIONS, Action, State, next_state


@pytest.mark.parametrize(("state", "action"), list(itertools.product(State, Action)))
def test_every_pair_is_allowed_by_the_table_or_refused(state: State, action: Action) -> None:
    if (state, action) in TRANSITIONS:
        assert next_state(state, action) is TRANSITIONS[state, action]
    else:
        with pytest.raises(ActionNotAllowed, match=f"cannot {action} a ticket that is {state}"):
            next_state(state, action)


def test_every_state_can_be_reached_and_every_open_one_can_be_left() -> None:
    reached, new = {State.NEW}, {State.NEW}
    while new:
        new = {after for (before, _), after in TRANSITIONS.items() if before in new} - reached
        reached |= new
    assert reached == set(State)
    assert {before for before, _ in TRANSITIONS} == OPEN


def test_every_action_is_of_use() -> None:
    assert {action for _, action in TRANSITIONS} == set(Action)
