"""What may become of a remote session, and what may pass: every state, action, leg and right."""

from dataclasses import replace
from datetime import UTC, datetime
from itertools import product

import pytest

from contactd.errors import ActionNotAllowed
from contactd.tickets.remote import (
    CLOSE_CODES,
    TRANSITIONS,
    Action,
    Ending,
    Leg,
    Mode,
    Purpose,
    Right,
    State,
    may_pass,
    next_state,
)
from contactd.web import words

AT = datetime(2026, 11, 20, 2, 0, tzinfo=UTC)
LEG = Leg(
    number=1, user="wang", engineer="王伟", purpose=Purpose.HELP, rights=frozenset(Right),
    consent=7, opened_at=AT,
)  # fmt: skip

# Written down a second time, so that a slip in the table is noticed.
EXPECTED = {
    "invited": {"agree": "agreed", "end": "ended"},
    "agreed": {"show": "active", "end": "ended"},
    "active": {"show": "active", "freeze": "frozen", "end": "ended"},
    "frozen": {"show": "active", "end": "ended"},
    "ended": {},
}


@pytest.mark.parametrize(("state", "action"), list(product(State, Action)))
def test_every_state_and_action_leads_where_it_should_or_nowhere(
    state: State, action: Action
) -> None:
    leads_to = EXPECTED[state].get(action)
    if leads_to is None:
        with pytest.raises(ActionNotAllowed, match=f"cannot {action} a remote session that is"):
            next_state(state, action)
    else:
        assert next_state(state, action) == leads_to


def test_nothing_leads_out_of_the_end() -> None:
    assert not any(state is State.ENDED for state, _ in TRANSITIONS)


def test_somebody_sees_a_screen_only_after_the_user_agreed() -> None:
    """On every way from the invitation, AGREE comes before the first SHOW."""
    ways: list[tuple[State, tuple[Action, ...]]] = [(State.INVITED, ())]
    for _ in range(4):
        ways += [
            (after, (*done, action))
            for at, done in ways
            for (state, action), after in TRANSITIONS.items()
            if state is at and len(done) < 4
        ]
    shown = [done for state, done in ways if state is State.ACTIVE]
    assert shown
    for done in shown:
        assert done.index(Action.AGREE) < done.index(Action.SHOW)


@pytest.mark.parametrize(("state", "right"), list(product(State, Right)))
def test_only_an_open_leg_of_an_active_session_lets_something_pass(
    state: State, right: Right
) -> None:
    assert may_pass(state, LEG, right) is (state is State.ACTIVE)


@pytest.mark.parametrize("right", Right)
def test_without_leg_consent_or_right_nothing_passes(right: Right) -> None:
    assert not may_pass(State.ACTIVE, None, right)
    assert not may_pass(State.ACTIVE, replace(LEG, consent=0), right)
    assert not may_pass(State.ACTIVE, replace(LEG, ended_at=AT), right)
    assert not may_pass(State.ACTIVE, replace(LEG, rights=frozenset(Right) - {right}), right)


def test_every_ending_has_a_close_code_of_its_own_among_ours() -> None:
    assert set(CLOSE_CODES) == set(Ending)
    assert len(set(CLOSE_CODES.values())) == len(Ending)
    assert all(4000 <= code <= 4999 for code in CLOSE_CODES.values())
    assert CLOSE_CODES[Ending.STOPPED] == 4001


def test_every_state_mode_right_and_ending_has_words() -> None:
    assert set(words.REMOTE_STATES) == set(State)
    assert set(words.REMOTE_MODES) == set(Mode)
    assert set(words.REMOTE_RIGHTS) == set(Right)
    assert set(words.REMOTE_ENDINGS) == set(Ending)
