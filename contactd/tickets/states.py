"""The ticket's life cycle as one table."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from contactd.errors import ActionNotAllowed


class State(StrEnum):
    NEW = "new"
    IN_PROGRESS = "in_progress"
    PENDING = "pending"  # waits for the requester, a part, a vendor
    RESOLVED = "resolved"  # waits for the requester's word
    CLOSED = "closed"
    CANCELLED = "cancelled"


class Action(StrEnum):
    ACKNOWLEDGE = "acknowledge"
    HOLD = "hold"
    RESUME = "resume"
    RESOLVE = "resolve"
    REOPEN = "reopen"
    CLOSE = "close"
    CANCEL = "cancel"


OPEN: Final = frozenset({State.NEW, State.IN_PROGRESS, State.PENDING, State.RESOLVED})

TRANSITIONS: Final[Mapping[tuple[State, Action], State]] = {
    (State.NEW, Action.ACKNOWLEDGE): State.IN_PROGRESS,
    (State.NEW, Action.CANCEL): State.CANCELLED,
    (State.IN_PROGRESS, Action.HOLD): State.PENDING,
    (State.IN_PROGRESS, Action.RESOLVE): State.RESOLVED,
    (State.IN_PROGRESS, Action.CANCEL): State.CANCELLED,
    (State.PENDING, Action.RESUME): State.IN_PROGRESS,
    (State.PENDING, Action.RESOLVE): State.RESOLVED,
    (State.PENDING, Action.CANCEL): State.CANCELLED,
    (State.RESOLVED, Action.REOPEN): State.IN_PROGRESS,
    (State.RESOLVED, Action.CLOSE): State.CLOSED,
}


def next_state(state: State, action: Action) -> State:
    """Return the state that `action` leads to.

    Raises:
        ActionNotAllowed: the table has no such transition.
    """
    try:
        return TRANSITIONS[state, action]
    except KeyError:
        raise ActionNotAllowed(f"cannot {action} a ticket that is {state}") from None
