"""Somebody who is sent to the site: the life of a dispatch as one table, and its decisions (pure).

An engineer is offered a dispatch and says how it goes: accepted, on the way, arrived, done. The
requester is sent a code of four digits; an engineer who can tell it has proved to be there
(requirement D4). Who sets out or arrives has accepted: nobody need say so twice.
"""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from contactd.errors import ActionNotAllowed, NotFound, PermanentFailure
from contactd.tickets.journal import Draft
from contactd.tickets.model import ENGINEER, Ticket, draft
from contactd.tickets.states import State as TicketState

MOST_WRONG_CODES: Final = 5  # of 10,000: one guess in 2,000 would be right


class WrongCode(PermanentFailure):
    """It is not the code of the dispatch; the attempt was counted."""


class State(StrEnum):
    OFFERED = "offered"
    ACCEPTED = "accepted"
    ON_WAY = "on_way"
    ARRIVED = "arrived"
    DONE = "done"
    DECLINED = "declined"  # also by who had accepted and now cannot come
    CANCELLED = "cancelled"  # nobody need go any more


class Step(StrEnum):
    ACCEPT = "accept"
    DECLINE = "decline"
    SET_OUT = "set_out"
    ARRIVE = "arrive"
    PROVE = "prove"  # the code, told after the arrival
    FINISH = "finish"
    CANCEL = "cancel"


TRANSITIONS: Final[Mapping[tuple[State, Step], State]] = {
    (State.OFFERED, Step.ACCEPT): State.ACCEPTED,
    (State.OFFERED, Step.DECLINE): State.DECLINED,
    (State.OFFERED, Step.CANCEL): State.CANCELLED,
    (State.ACCEPTED, Step.SET_OUT): State.ON_WAY,
    (State.ACCEPTED, Step.ARRIVE): State.ARRIVED,
    (State.ACCEPTED, Step.DECLINE): State.DECLINED,
    (State.ACCEPTED, Step.CANCEL): State.CANCELLED,
    (State.ON_WAY, Step.ARRIVE): State.ARRIVED,
    (State.ON_WAY, Step.DECLINE): State.DECLINED,
    (State.ON_WAY, Step.CANCEL): State.CANCELLED,
    (State.ARRIVED, Step.PROVE): State.ARRIVED,
    (State.ARRIVED, Step.FINISH): State.DONE,
}
_LEADS_TO: Final = {step: after for (_, step), after in TRANSITIONS.items()}
LIVE: Final = frozenset({State.OFFERED, State.ACCEPTED, State.ON_WAY, State.ARRIVED})
_EXPECTED: Final = LIVE - {State.ARRIVED}
# What a step also says when it comes this early.
_IMPLIES: Final[Mapping[tuple[State, Step], Step]] = {
    (State.OFFERED, Step.SET_OUT): Step.ACCEPT,
    (State.OFFERED, Step.ARRIVE): Step.ACCEPT,
}
_DONE: Final[Mapping[Step, str]] = {
    Step.ACCEPT: "dispatch.accepted",
    Step.DECLINE: "dispatch.declined",
    Step.SET_OUT: "dispatch.on_way",
    Step.ARRIVE: "dispatch.arrived",
    Step.PROVE: "dispatch.proved",
    Step.FINISH: "dispatch.done",
    Step.CANCEL: "dispatch.cancelled",
}
_PROVING: Final = frozenset({Step.ARRIVE, Step.PROVE})
_SENT_FROM: Final = frozenset({TicketState.NEW, TicketState.IN_PROGRESS, TicketState.PENDING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch:
    """One engineer sent to the site of one ticket. `code` is the requester's alone."""

    ticket_id: int
    number: int  # 1, 2, … of its ticket
    engineer: str  # key
    state: State
    code: str = field(repr=False)
    wrong_codes: int = 0
    is_proved: bool = False
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What became of a dispatch. `refused` is why the code was not taken, "" if it was."""

    dispatch: Dispatch
    entries: tuple[Draft, ...]
    refused: str = ""
    accepted: bool = False  # by its engineer, in this step


def offer(  # noqa: PLR0913 - what an offer is made of
    ticket: Ticket,
    dispatches: Sequence[Dispatch],
    engineer: str,
    *,
    code: str,
    actor: str,
    now: datetime,
) -> Moved:
    """Offer a ticket, which has these `dispatches` so far, to an engineer.

    Raises:
        ActionNotAllowed: nobody need go any more, or this engineer is asked or there already.
    """
    if is_over(ticket):
        raise ActionNotAllowed(f"cannot send anybody for a ticket that is {ticket.state}")
    if any(each.engineer == engineer and each.state in LIVE for each in dispatches):
        raise ActionNotAllowed(f"{engineer} has a dispatch for this ticket")
    dispatch = Dispatch(
        ticket_id=ticket.id,
        number=max((each.number for each in dispatches), default=0) + 1,
        engineer=engineer,
        state=State.OFFERED,
        code=code,
        updated_at=now,
    )
    offered = draft(ticket, now, actor, "dispatch.offered", _naming(dispatch))
    return Moved(dispatch=dispatch, entries=(offered,))


def chosen(dispatches: Sequence[Dispatch], *, actor: str, number: int | None = None) -> Dispatch:
    """Return the dispatch that `actor` speaks of: the one of that number, or their latest one.

    Somebody who is no engineer (`user:…`) may speak of anybody's, if it is clear whose.

    Raises:
        NotFound: there is none.
        ActionNotAllowed: it is another engineer's.
        PermanentFailure: several are under way: the number is needed.
    """
    engineer = actor.removeprefix(ENGINEER) if actor.startswith(ENGINEER) else ""
    if number is not None:
        found = [each for each in dispatches if each.number == number]
        if engineer and any(each.engineer != engineer for each in found):
            raise ActionNotAllowed(f"dispatch {number} is somebody else's")
    else:
        found = [each for each in dispatches if not engineer or each.engineer == engineer]
    if not found:
        raise NotFound("there is no such dispatch")
    live = [each for each in found if each.state in LIVE]
    if len(live) > 1:
        raise PermanentFailure("several dispatches are under way: say which")
    return (live or found)[-1]


def path(state: State, step: Step) -> tuple[Step, ...]:
    """Return the steps that `step` stands for in `state`: itself, and what goes without saying."""
    implied = _IMPLIES.get((state, step))
    return (step,) if implied is None else (implied, step)


def next_state(state: State, step: Step) -> State:
    """Return the state that `step` leads to.

    Raises:
        ActionNotAllowed: the table has no such transition.
    """
    try:
        return TRANSITIONS[state, step]
    except KeyError:
        words = step.replace("_", " ")
        raise ActionNotAllowed(f"cannot {words} a dispatch that is {state}") from None


def move(  # noqa: PLR0913 - what a step is made of
    ticket: Ticket,
    dispatch: Dispatch,
    step: Step,
    *,
    actor: str,
    code: str = "",
    now: datetime,
) -> Moved:
    """Take a step; arriving, and only that, may bring the requester's code.

    Without a code the arrival is written down as not proved; the code may follow. A wrong code
    changes nothing but the count of wrong ones. After `MOST_WRONG_CODES` no code is looked at any
    more, so that nobody can try them all. The same step again is harmless: no entry.

    Raises:
        ActionNotAllowed: the table has no such transition.
        PermanentFailure: a code is missing, or this step takes none.
    """
    if step is Step.ARRIVE and dispatch.state is State.ARRIVED and code and not dispatch.is_proved:
        step = Step.PROVE
    if dispatch.state is _LEADS_TO[step] and not code and step is not Step.PROVE:
        return Moved(dispatch=dispatch, entries=())
    _check_code(dispatch, step, code)
    steps = path(dispatch.state, step)
    states = []
    state = dispatch.state
    for each in steps:
        state = next_state(state, each)
        states.append(state)
    if code and (refused := _refused(dispatch, code)):
        return _wrong(ticket, dispatch, refused, actor=actor, now=now)
    moved = replace(
        dispatch, state=state, is_proved=dispatch.is_proved or bool(code), updated_at=now
    )
    return Moved(
        dispatch=moved,
        entries=tuple(
            draft(ticket, now, actor, _DONE[each], _naming(moved, each)) for each in steps
        ),
        accepted=Step.ACCEPT in steps,
    )


def is_over(ticket: Ticket) -> bool:
    """Tell whether nobody need go to the site any more."""
    return ticket.state not in _SENT_FROM


def called_off(
    ticket: Ticket, dispatches: Sequence[Dispatch], *, actor: str, now: datetime
) -> list[Moved]:
    """Cancel who has not arrived, because of the state that `ticket` has now."""
    body = {"reason": ticket.state.value}
    return [
        Moved(
            dispatch=replace(each, state=State.CANCELLED, updated_at=now),
            entries=(draft(ticket, now, actor, _DONE[Step.CANCEL], {**_naming(each), **body}),),
        )
        for each in dispatches
        if each.state in _EXPECTED
    ]


def _check_code(dispatch: Dispatch, step: Step, code: str) -> None:
    if code and step not in _PROVING:
        raise PermanentFailure("only an arrival is proved by a code")
    if step is Step.PROVE and dispatch.is_proved:
        raise ActionNotAllowed("the arrival is proved already")
    if step is Step.PROVE and not code:
        raise PermanentFailure("the requester's code is missing")


def _refused(dispatch: Dispatch, code: str) -> str:
    if dispatch.wrong_codes >= MOST_WRONG_CODES:
        return "too many wrong codes: the arrival can no longer be proved by a code"
    if hmac.compare_digest(dispatch.code.encode(), code.encode()):
        return ""
    left = MOST_WRONG_CODES - dispatch.wrong_codes - 1
    return f"that is not the requester's code; {left} more can be tried"


def _wrong(ticket: Ticket, dispatch: Dispatch, refused: str, *, actor: str, now: datetime) -> Moved:
    """Count a wrong code. Of one that was not looked at, nothing is kept: a journal has an end."""
    if dispatch.wrong_codes >= MOST_WRONG_CODES:
        return Moved(dispatch=dispatch, entries=(), refused=refused)
    counted = replace(dispatch, wrong_codes=dispatch.wrong_codes + 1, updated_at=now)
    body = {**_naming(counted), "wrong_codes": counted.wrong_codes}
    return Moved(
        dispatch=counted,
        entries=(draft(ticket, now, actor, "dispatch.code_refused", body),),
        refused=refused,
    )


def _naming(dispatch: Dispatch, step: Step | None = None) -> dict[str, Any]:
    body: dict[str, Any] = {"dispatch": dispatch.number, "engineer": dispatch.engineer}
    return {**body, "proved": dispatch.is_proved} if step is Step.ARRIVE else body
