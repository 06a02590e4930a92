"""Calls that people of the desk make by a click: the id of each, where it stands, what may be
called (pure).

The id of the call's channel is chosen by us and names the ticket. So the PBX's records alone say
where the call belongs, and a second click on one form rings nobody twice.
"""

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from contactd.tickets.numbers import is_valid

CONTEXT: Final = "contactd-out"  # of the dialplan
EVENT: Final = "ContactdOut"  # UserEvent by which the dialplan says how far a call is
LONGEST: Final = timedelta(hours=4)  # the end of an older one was not heard
SHOWN_AFTER: Final = timedelta(seconds=20)  # the end of a call stays on the page so long

_REF: Final = re.compile(r"out-([0-9]+)-[0-9a-f]{24}")
_EXTENSION: Final = re.compile(r"[1-9][0-9]{3,4}")
# What an ordinary subscriber has; numbers that begin with 1 or 9 after the area code are services,
# some of which cost by the minute (160, 168, 95…, 96…).
_MAINLAND: Final = re.compile(
    r"\+86(?:1[3-9][0-9]{9}|(?:10|2[0-9])[2-8][0-9]{7}|(?![48]00)[3-9][0-9]{2}[2-8][0-9]{6,7})"
)


class Step(StrEnum):
    YOU = "you"  # the phone of who clicked rings, or has been asked for the key
    THEM = "them"  # the requester's phone rings
    TALKING = "talking"
    OVER = "over"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingCall:
    """A call that somebody makes. `word` says how it ended, in Dial's words; "" by then."""

    ref: str
    ticket: str  # its number
    user: str  # who clicked
    engineer: str  # key
    number: str  # the requester's
    pbx: str
    began_at: datetime
    step: Step
    since: datetime
    word: str = ""
    talked_from: datetime | None = None


def ref_of(ticket: str, user: str, key: str) -> str:
    """Return the id of the channel for one click; `key` is the form's."""
    digest = hashlib.sha256(f"{ticket}\0{user}\0{key}".encode("utf-8", "replace")).hexdigest()
    return f"out-{ticket}-{digest[:24]}"


def number_of_ref(ref: str) -> str:
    """Return the number of the ticket that a call of ours belongs to, "" if it is none."""
    found = _REF.fullmatch(ref)
    return found[1] if found is not None and is_valid(found[1]) else ""


def may_call(number: str, prefixes: Collection[str]) -> bool:
    """Return whether a number may be called: none that costs more than usual, none unknown.

    Extensions of four or five digits, subscribers in mainland China, and what begins with one of
    `prefixes` (`+852`).
    """
    if _EXTENSION.fullmatch(number) or _MAINLAND.fullmatch(number):
        return True
    foreign = number.startswith("+") and not number.startswith("+86") and number[1:].isdecimal()
    return foreign and any(number.startswith(prefix) for prefix in prefixes if len(prefix) > 1)


class OutgoingCalls:
    """The calls of this moment, followed by what the PBX says; at most one a user."""

    def __init__(self) -> None:
        self._calls: dict[str, OutgoingCall] = {}

    def begin(self, call: OutgoingCall) -> None:
        self._calls[call.ref] = call

    def forget(self, ref: str) -> None:
        self._calls.pop(ref, None)

    def of_user(self, user: str, now: datetime) -> OutgoingCall | None:
        """Return the call that somebody makes now."""
        self._sweep(now)
        mine = (call for call in self._calls.values() if call.user == user)
        return next((call for call in mine if call.step is not Step.OVER), None)

    def snapshot(self, now: datetime) -> tuple[OutgoingCall, ...]:
        """Return the calls, with those that have ended just now; the oldest first."""
        self._sweep(now)
        return tuple(sorted(self._calls.values(), key=lambda call: call.began_at))

    def feed(self, event: Mapping[str, str], now: datetime) -> OutgoingCall | None:
        """Follow OriginateResponse, UserEvent and Hangup; return the call that moved."""
        name = event.get("Event", "")
        ref = event.get("Ref" if name == "UserEvent" else "Uniqueid", "")
        call = self._calls.get(ref)
        if call is None or call.step is Step.OVER:
            return None
        moved = _moved(call, event, now)
        if moved is not None:
            self._calls[ref] = moved
        return moved

    def resync(self, pbx: str, live: Collection[str], now: datetime) -> list[OutgoingCall]:
        """Believe the list of a PBX's channels, after the link was away."""
        gone = [
            replace(call, step=Step.OVER, since=now)
            for call in self._calls.values()
            if call.pbx == pbx and call.step is not Step.OVER and call.ref not in live
            and now - call.began_at > timedelta(seconds=2)
        ]  # fmt: skip
        self._calls |= {call.ref: call for call in gone}
        return gone

    def _sweep(self, now: datetime) -> None:
        self._calls = {ref: call for ref, call in self._calls.items() if not _is_past(call, now)}


def _is_past(call: OutgoingCall, now: datetime) -> bool:
    if call.step is Step.OVER:
        return now - call.since > SHOWN_AFTER
    return now - call.began_at > LONGEST


_STEPS: Final[Mapping[str, Step]] = {"dial": Step.THEM, "answered": Step.TALKING}


def _moved(call: OutgoingCall, event: Mapping[str, str], now: datetime) -> OutgoingCall | None:
    match event.get("Event", ""):
        case "Hangup":
            return replace(call, step=Step.OVER, since=now)
        case "OriginateResponse" if event.get("Response") != "Success":
            return replace(call, step=Step.OVER, since=now, word=_NOT_YOU)
        case "UserEvent" if event.get("UserEvent") == EVENT:
            return _said(call, event.get("Step", ""), now)
        case _:
            return None


def _said(call: OutgoingCall, said: str, now: datetime) -> OutgoingCall:
    step = _STEPS.get(said)
    if step is None:  # how the dialling ended; the hang-up follows
        return replace(call, word=said)
    talked_from = now if step is Step.TALKING else call.talked_from
    return replace(call, step=step, since=now, talked_from=talked_from)


_NOT_YOU: Final = "NOTYOU"


def waiting(calls: Iterable[OutgoingCall]) -> list[OutgoingCall]:
    """Return the calls that are under way."""
    return [call for call in calls if call.step is not Step.OVER]
