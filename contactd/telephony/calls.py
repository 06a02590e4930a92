"""The calls of this moment, from AMI events: who rings, waits, talks, and with whom (pure).

This is for speed and for the status page. It forgets a call when it ends, and after a lost
connection it believes what the PBX lists (`resync`); what counts is worked out in `cel`.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

AmiEvent = Mapping[str, str]

MAX_CALLS: Final = 10_000  # more at a time are filed, but not followed

# Where a caller can be, by etc/asterisk/contactd.conf; engineers' legs and pages have other ones.
CALLER_CONTEXTS: Final = frozenset(
    {
        "contactd-hotline",
        "contactd-clean-name",
        "contactd-greeting",
        "contactd-menu",
        "contactd-queue",
        "contactd-transfer",
        "contactd-voicemail",
        "contactd-voicemail-left",
    }
)
_ESCAPE: Final = re.compile(r"\\(.)")
_MEMBER: Final = re.compile(r"(Local/[^@;]+@engineer-(?:zh|en))(?:-[0-9a-f]{8};[12])?(?:/n)?")


class State(StrEnum):
    RINGING = "ringing"
    GREETING = "greeting"  # notice, greeting, menu
    QUEUED = "queued"
    OFFERED = "offered"  # queued, and somebody's phone rings or asks for the key
    TALKING = "talking"
    TRANSFERRED = "transferred"  # an engineer sent the caller to somebody else
    VOICEMAIL = "voicemail"  # out of the queue without a person
    ENDED = "ended"


class Action(StrEnum):
    GREET = "greet"
    JOIN = "join"
    CALL = "call"  # a member is rung
    REFUSE = "refuse"  # the last member who was rung did not take it
    CONNECT = "connect"
    LEAVE = "leave"  # the queue; a moment later CONNECT, if somebody took the call
    TRANSFER = "transfer"
    HANG_UP = "hang_up"


TRANSITIONS: Final[Mapping[tuple[State, Action], State]] = {
    (State.RINGING, Action.GREET): State.GREETING,
    (State.RINGING, Action.JOIN): State.QUEUED,
    (State.GREETING, Action.JOIN): State.QUEUED,
    (State.VOICEMAIL, Action.JOIN): State.QUEUED,  # from one queue to the next
    (State.TRANSFERRED, Action.JOIN): State.QUEUED,  # nobody answered there
    (State.TALKING, Action.JOIN): State.QUEUED,
    (State.QUEUED, Action.CALL): State.OFFERED,
    (State.OFFERED, Action.CALL): State.OFFERED,
    (State.OFFERED, Action.REFUSE): State.QUEUED,
    (State.QUEUED, Action.LEAVE): State.VOICEMAIL,
    (State.OFFERED, Action.LEAVE): State.VOICEMAIL,
    (State.QUEUED, Action.CONNECT): State.TALKING,
    (State.OFFERED, Action.CONNECT): State.TALKING,
    (State.VOICEMAIL, Action.CONNECT): State.TALKING,
    (State.TALKING, Action.TRANSFER): State.TRANSFERRED,
    (State.RINGING, Action.HANG_UP): State.ENDED,
    (State.GREETING, Action.HANG_UP): State.ENDED,
    (State.QUEUED, Action.HANG_UP): State.ENDED,
    (State.OFFERED, Action.HANG_UP): State.ENDED,
    (State.TALKING, Action.HANG_UP): State.ENDED,
    (State.TRANSFERRED, Action.HANG_UP): State.ENDED,
    (State.VOICEMAIL, Action.HANG_UP): State.ENDED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveCall:
    """A call as it is now. `offered` are those whose phone rings, `engineer` is who talks."""

    call_id: str
    channel: str
    caller: str  # number, "" when withheld
    name: str
    did: str  # "" when contactd was not there when it came in
    arrived_at: datetime
    state: State
    since: datetime  # when it came into `state`
    queue: str = ""
    offered: tuple[str, ...] = ()
    engineer: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    call_id: str
    channel: str
    caller: str
    name: str
    did: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    call_id: str
    queue: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    call_id: str
    engineer: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """Somebody who was rung did not take the call."""

    call_id: str
    engineer: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    call_id: str
    engineer: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftQueue:
    call_id: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Transferred:
    call_id: str
    to: str  # the number that was keyed
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    call_id: str
    at: datetime


Change = Arrived | Queued | Offered | Passed | Answered | LeftQueue | Transferred | Ended


class CallTracker:
    """The live calls of one PBX."""

    def __init__(
        self,
        *,
        hotline_contexts: Collection[str] = ("hotline",),
        caller_contexts: Collection[str] = CALLER_CONTEXTS,
        max_calls: int = MAX_CALLS,
    ) -> None:
        self._hotline_contexts = frozenset(hotline_contexts)
        self._caller_contexts = self._hotline_contexts | frozenset(caller_contexts)
        self._max_calls = max_calls
        self._calls: dict[str, LiveCall] = {}

    def snapshot(self) -> tuple[LiveCall, ...]:
        """Return the live calls, the oldest first."""
        return tuple(sorted(self._calls.values(), key=lambda call: call.arrived_at))

    def find(self, call_id: str) -> LiveCall | None:
        return self._calls.get(call_id)

    def feed(self, event: AmiEvent, at: datetime) -> list[Change]:
        """Take an AMI event, received `at`; return what changed. Unknown events are ignored."""
        handler = self._HANDLERS.get(event.get("Event", ""))
        return handler(self, event, _event_time(event, at)) if handler else []

    def greeted(self, call_id: str, at: datetime) -> None:
        """Note that the dialplan has asked for the greeting (AMI does not say that)."""
        self._move(call_id, Action.GREET, at)

    def resync(
        self, channels: Iterable[AmiEvent], queue_events: Iterable[AmiEvent], at: datetime
    ) -> list[Change]:
        """Believe what the PBX lists instead of what was known; return what changed.

        `channels` are the CoreShowChannel events of CoreShowChannels, `queue_events` the QueueEntry
        and QueueMember events of QueueStatus, both read at about `at`.
        """
        listing = _Listing.of(channels, queue_events)
        before = self._calls
        self._calls = {}
        for channel in listing.channels:
            known = before.get(channel.get("Uniqueid", ""))
            if known is None and not self._is_caller(channel):
                continue
            if len(self._calls) < self._max_calls:
                call = listing.call(channel, known or self._found(channel, at), at)
                self._calls[call.call_id] = call
        ended: list[Change] = [
            Ended(call_id=call_id, at=at) for call_id in before if call_id not in self._calls
        ]
        return ended + [
            change
            for call in self._calls.values()
            for change in _differences(before.get(call.call_id), call, at)
        ]

    def _found(self, channel: AmiEvent, at: datetime) -> LiveCall:
        """Return the call of a channel that came in while nobody looked."""
        in_hotline = channel.get("Context", "") in self._hotline_contexts
        did = channel.get("Exten", "") if in_hotline else ""
        return _new_call(channel, at - _duration(channel.get("Duration", "")), did=did)

    def _is_caller(self, channel: AmiEvent) -> bool:
        """Whether a channel which nobody told of is a hotline call's, not an engineer's leg."""
        if channel.get("Context", "") not in self._caller_contexts:
            return False
        if channel.get("Channel", "").startswith("Local/"):
            return False
        if channel.get("Application", "").startswith(("AppDial", "AppQueue")):
            return False
        first = channel.get("Uniqueid", "") == channel.get("Linkedid", "") != ""
        return first and not self._is_outgoing(channel)

    def _is_outgoing(self, channel: AmiEvent) -> bool:
        """Whether the PBX dials it: the trunk's context is the hotline's, but without extension."""
        in_hotline = channel.get("Context", "") in self._hotline_contexts
        return in_hotline and channel.get("Exten", "") in ("", "s")

    # One method an event

    def _new_channel(self, event: AmiEvent, at: datetime) -> list[Change]:
        call_id = event.get("Uniqueid", "")
        wanted = event.get("Context", "") in self._hotline_contexts
        if not call_id or not wanted or self._is_outgoing(event) or call_id in self._calls:
            return []
        return [self._arrive(event, at, did=event.get("Exten", ""))]

    def _arrive(self, event: AmiEvent, at: datetime, *, did: str) -> Arrived:
        call = _new_call(event, at, did=did)
        if len(self._calls) < self._max_calls:
            self._calls[call.call_id] = call
        return _arrived(call)

    def _joined(self, event: AmiEvent, at: datetime) -> list[Change]:
        call_id, queue = event.get("Uniqueid", ""), event.get("Queue", "")
        changes: list[Change] = []
        if call_id not in self._calls:
            if event.get("Context", "") not in self._caller_contexts or not call_id:
                return []  # another queue of this PBX
            # Sent to the hotline from elsewhere in the PBX: Newchannel was not shown to us.
            changes.append(self._arrive(event, at, did=""))
        if self._move(call_id, Action.JOIN, at, queue=queue, offered=(), engineer=""):
            changes.append(Queued(call_id=call_id, queue=queue, at=at))
        return changes

    def _called(self, event: AmiEvent, at: datetime) -> list[Change]:
        call_id, engineer = event.get("Uniqueid", ""), event.get("MemberName", "")
        call = self._calls.get(call_id)
        if call is None or engineer in call.offered:
            return []
        if self._move(call_id, Action.CALL, at, offered=(*call.offered, engineer)):
            return [Offered(call_id=call_id, engineer=engineer, at=at)]
        return []

    def _not_taken(self, event: AmiEvent, at: datetime) -> list[Change]:
        call_id, engineer = event.get("Uniqueid", ""), event.get("MemberName", "")
        call = self._calls.get(call_id)
        if call is None or engineer not in call.offered:
            return []
        left = tuple(one for one in call.offered if one != engineer)
        if left:
            self._calls[call_id] = replace(call, offered=left)
        else:
            self._move(call_id, Action.REFUSE, at, offered=())
        return [Passed(call_id=call_id, engineer=engineer, at=at)]

    def _connected(self, event: AmiEvent, at: datetime) -> list[Change]:
        call_id, engineer = event.get("Uniqueid", ""), event.get("MemberName", "")
        if self._move(call_id, Action.CONNECT, at, engineer=engineer, offered=()):
            return [Answered(call_id=call_id, engineer=engineer, at=at)]
        return []

    def _left(self, event: AmiEvent, at: datetime) -> list[Change]:
        call_id = event.get("Uniqueid", "")
        if self._move(call_id, Action.LEAVE, at, offered=()):
            return [LeftQueue(call_id=call_id, at=at)]
        return []

    def _transferred(self, event: AmiEvent, at: datetime) -> list[Change]:
        """Follow a blind transfer (to Extension) or an attended one (to TransferTarget…)."""
        if event.get("Result", "Success") != "Success":
            return []
        ids = [event.get(f"Transferee{key}", "") for key in ("Uniqueid", "Linkedid")]
        call_id = next((one for one in ids if one in self._calls), "")
        to = event.get("Extension") or _known(event.get("TransferTargetCallerIDNum", ""))
        if self._move(call_id, Action.TRANSFER, at, engineer=to):
            return [Transferred(call_id=call_id, to=to, at=at)]
        return []

    def _hung_up(self, event: AmiEvent, at: datetime) -> list[Change]:
        call_id = event.get("Uniqueid", "")
        if self._calls.pop(call_id, None) is None:
            return []
        return [Ended(call_id=call_id, at=at)]

    _HANDLERS: Final[Mapping[str, Callable[["CallTracker", AmiEvent, datetime], list[Change]]]] = {
        "Newchannel": _new_channel,
        "QueueCallerJoin": _joined,
        "QueueCallerLeave": _left,
        "AgentCalled": _called,
        "AgentRingNoAnswer": _not_taken,
        "AgentConnect": _connected,
        "BlindTransfer": _transferred,
        "AttendedTransfer": _transferred,
        "Hangup": _hung_up,
    }

    def _move(
        self, call_id: str, action: Action, at: datetime, **values: str | tuple[str, ...]
    ) -> bool:
        """Bring a call into the state that `action` leads to; False: there is no such way."""
        call = self._calls.get(call_id)
        state = call and TRANSITIONS.get((call.state, action))
        if call is None or state is None:
            return False
        since = call.since if state is call.state else at
        self._calls[call_id] = replace(call, state=state, since=since, **values)  # type: ignore[arg-type]
        return True


CALL_EVENTS: Final = frozenset(CallTracker._HANDLERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listing:
    """What CoreShowChannels and QueueStatus said."""

    channels: Sequence[AmiEvent]
    waiting: Mapping[str, AmiEvent]  # QueueEntry by the caller's uniqueid
    names: Mapping[str, str]  # Local/<number>@engineer-<language> -> name of the queue member

    @classmethod
    def of(cls, channels: Iterable[AmiEvent], queue_events: Iterable[AmiEvent]) -> "_Listing":
        events = list(queue_events)
        return cls(
            channels=list(channels),
            waiting={e.get("Uniqueid", ""): e for e in events if e.get("Event") == "QueueEntry"},
            names={
                found[1]: event.get("Name", "")
                for event in events
                if event.get("Event") == "QueueMember"
                and (found := _MEMBER.fullmatch(event.get("Location", "")))
            },
        )

    def call(self, channel: AmiEvent, call: LiveCall, at: datetime) -> LiveCall:
        """Return `call`, whose channel this is, as it is listed."""
        entry = self.waiting.get(call.call_id)
        since, queue, engineer = at, call.queue, ""
        offered: tuple[str, ...] = ()
        if entry is not None:
            offered = self._offered(call.call_id)
            state = State.OFFERED if offered else State.QUEUED
            queue = entry.get("Queue", "")
            wait = entry.get("Wait", "")
            since = at - timedelta(seconds=int(wait) if wait.isdecimal() else 0)
        elif channel.get("BridgeId"):
            state = State.TALKING
            engineer = self._partner(channel)
        else:
            state = _state_outside(channel)
            engineer = call.engineer if state is State.TRANSFERRED else ""
        return replace(
            call,
            state=state,
            since=call.since if call.state is state else since,
            queue=queue,
            offered=offered,
            engineer=engineer,
        )

    def _offered(self, call_id: str) -> tuple[str, ...]:
        """Return the members that are rung: their Local channels belong to the call."""
        names = [
            self._member(other.get("Channel", ""))
            for other in self.channels
            if other.get("Linkedid") == call_id
            and other.get("Channel", "").endswith(";1")
            and not other.get("BridgeId")
        ]
        return tuple(dict.fromkeys(name for name in names if name))

    def _partner(self, channel: AmiEvent) -> str:
        """Return who is in the same bridge: a member's name, else the other's number."""
        for other in self.channels:
            if other is not channel and other.get("BridgeId") == channel.get("BridgeId"):
                name = self._member(other.get("Channel", ""))
                return name or _known(other.get("CallerIDNum", ""))
        return ""

    def _member(self, channel_name: str) -> str:
        found = _MEMBER.fullmatch(channel_name)
        return self.names.get(found[1], "") if found else ""


def _state_outside(channel: AmiEvent) -> State:
    """Return the state of a caller who is neither in a queue nor in a bridge."""
    context = channel.get("Context", "")
    if context.startswith("contactd-voicemail"):
        return State.VOICEMAIL
    if context == "contactd-transfer":
        return State.TRANSFERRED
    return State.RINGING if channel.get("ChannelStateDesc") == "Ring" else State.GREETING


def _differences(before: LiveCall | None, now: LiveCall, at: datetime) -> list[Change]:
    """Return the changes that lead from one view of a call to the other."""
    changes: list[Change] = []
    if before is None:
        changes.append(_arrived(now))
    same = before is not None and (before.state, before.queue) == (now.state, now.queue)
    if now.state in (State.QUEUED, State.OFFERED) and not same:
        changes.append(Queued(call_id=now.call_id, queue=now.queue, at=now.since))
    known = before.offered if before else ()
    changes += [
        Offered(call_id=now.call_id, engineer=name, at=at)
        for name in now.offered
        if name not in known
    ]
    talked = before is not None and before.state is State.TALKING
    if now.state is State.TALKING and not (talked and before and before.engineer == now.engineer):
        changes.append(Answered(call_id=now.call_id, engineer=now.engineer, at=now.since))
    return changes


def _new_call(event: AmiEvent, at: datetime, *, did: str) -> LiveCall:
    return LiveCall(
        call_id=event.get("Uniqueid", ""),
        channel=event.get("Channel", ""),
        caller=_known(event.get("CallerIDNum", "")),
        name=_unescaped(_known(event.get("CallerIDName", ""))),
        did=did,
        arrived_at=at,
        state=State.RINGING,
        since=at,
    )


def _arrived(call: LiveCall) -> Arrived:
    return Arrived(
        call_id=call.call_id,
        channel=call.channel,
        caller=call.caller,
        name=call.name,
        did=call.did,
        at=call.arrived_at,
    )


def _unescaped(value: str) -> str:
    """Undo what Asterisk does to a name in channel events: C escapes (`\\"`, `\\r`)."""
    return _ESCAPE.sub(lambda found: found[1] if found[1] in '"\\' else " ", value)


def _known(value: str) -> str:
    """AMI writes `<unknown>` for a number or name that is not there."""
    return "" if value == "<unknown>" else value


def _event_time(event: AmiEvent, at: datetime) -> datetime:
    """Return when the PBX raised an event (timestampevents=yes in manager.conf), else `at`."""
    try:
        return datetime.fromtimestamp(float(event["Timestamp"]), UTC)
    except (LookupError, ValueError, OverflowError, OSError):
        return at


def _duration(text: str) -> timedelta:
    """Return the length of `HH:MM:SS`, as CoreShowChannel writes it."""
    parts = text.split(":")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts):
        return timedelta()
    hours, minutes, seconds = map(int, parts)
    return timedelta(hours=hours, minutes=minutes, seconds=seconds)
