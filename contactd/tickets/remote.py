"""A remote session: what its user has agreed to, who may see the screen, and how it ends (pure).

A session hangs on a ticket and begins with an invitation. Only the user moves it forward: they
agree on the share page (`AGREED`), and again to each person who would see their screen; each such
yes opens a *leg*: one engineer, one set of rights, one recorded consent, one VNC server (or one
stream of the browser), one recording. A hand-over is the next leg, a supervisor's look a second
one that only views. Nothing of a screen passes without an open leg (`may_pass`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from contactd.errors import ActionNotAllowed


class Mode(StrEnum):
    """How the screen reaches the engineer; the user chooses when they agree."""

    CONTROL = "control"  # contactd-share: view, and what the user lets them do
    VIEW = "view"  # the bare browser: nothing to install, nothing to press
    REPEATER = "repeater"  # a VNC server of the user's own, by `ID:`; off unless configured


class Right(StrEnum):
    """What the user lets an engineer do; each can be taken back at any time."""

    VIEW = "view"
    CONTROL = "control"
    CLIPBOARD = "clipboard"


class Purpose(StrEnum):
    HELP = "help"
    LOOK = "look"  # a supervisor who watches


class State(StrEnum):
    INVITED = "invited"  # there is a link; nobody has agreed to anything
    AGREED = "agreed"  # the user agreed and waits; nobody sees anything
    ACTIVE = "active"  # somebody sees the screen
    FROZEN = "frozen"  # a connection was lost: nothing passes until the user says so
    ENDED = "ended"


class Action(StrEnum):
    AGREE = "agree"
    SHOW = "show"  # a leg opens, with the user's consent on record
    FREEZE = "freeze"
    END = "end"


TRANSITIONS: Final[Mapping[tuple[State, Action], State]] = {
    (State.INVITED, Action.AGREE): State.AGREED,
    (State.INVITED, Action.END): State.ENDED,
    (State.AGREED, Action.SHOW): State.ACTIVE,
    (State.AGREED, Action.END): State.ENDED,
    (State.ACTIVE, Action.SHOW): State.ACTIVE,
    (State.ACTIVE, Action.FREEZE): State.FROZEN,
    (State.ACTIVE, Action.END): State.ENDED,
    (State.FROZEN, Action.SHOW): State.ACTIVE,
    (State.FROZEN, Action.END): State.ENDED,
}


class Ending(StrEnum):
    """Why a leg or a session ended."""

    DONE = "done"  # the engineer is finished
    STOPPED = "stopped"  # the user: hot key, button, closed window, locked screen, log-out
    REFUSED = "refused"  # the user said no
    EXPIRED = "expired"  # nobody came in time
    IDLE = "idle"
    TOO_LONG = "too_long"
    LOST = "lost"  # a connection
    HANDED_OVER = "handed_over"
    RECORDER = "recorder"  # what is seen could not be recorded any more
    FORBIDDEN = "forbidden"  # a peer sent what it must not
    REPLACED = "replaced"  # by a newer invitation
    CLOSED = "closed"  # the ticket was


# What a browser is told as the WebSocket closes (RFC 6455 section 7.4.2: 4000-4999 are ours).
CLOSE_CODES: Final[Mapping[Ending, int]] = {
    Ending.DONE: 4000,
    Ending.STOPPED: 4001,
    Ending.REFUSED: 4002,
    Ending.EXPIRED: 4003,
    Ending.IDLE: 4004,
    Ending.TOO_LONG: 4005,
    Ending.LOST: 4006,
    Ending.HANDED_OVER: 4007,
    Ending.RECORDER: 4008,
    Ending.FORBIDDEN: 4009,
    Ending.REPLACED: 4010,
    Ending.CLOSED: 4011,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """One person who sees the screen. `consent` is the id of the user's recorded yes (0: none)."""

    number: int  # 1, 2, … within the session; the first byte of each frame of the helper
    user: str  # the name with which the engineer logs in
    engineer: str  # their name as the user was told
    purpose: Purpose
    rights: frozenset[Right]
    consent: int
    opened_at: datetime
    ended_at: datetime | None = None
    ending: Ending | None = None


def next_state(state: State, action: Action) -> State:
    """Return the state that `action` leads to.

    Raises:
        ActionNotAllowed: the table has no such transition.
    """
    try:
        return TRANSITIONS[state, action]
    except KeyError:
        raise ActionNotAllowed(f"cannot {action} a remote session that is {state}") from None


def may_pass(state: State, leg: Leg | None, right: Right) -> bool:
    """Tell whether something that needs `right` may pass on `leg` now (invariant 8)."""
    return (
        state is State.ACTIVE
        and leg is not None
        and leg.consent > 0
        and leg.ended_at is None
        and right in leg.rights
    )
