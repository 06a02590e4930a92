"""What the PBX's own records say of each hotline call: CEL rows and queue_log lines -> contacts.

A call is a caller's channel, and its uniqueid is the call's id; the linkedid is not, for a transfer
may change it. Who talked with the caller is found by following bridges (and the two halves of Local
channels), because queue_log is wrong once a call was transferred. Why a caller left the queue is
known to queue_log alone.

Rows of one channel come in order; rows of different channels need not. Everything is worked out
from the rows at hand, so that the same rows always give the same facts. Pure: no I/O, no clock.
"""

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Final, Generic, NamedTuple, TypeVar

from contactd.telephony.outgoing import number_of_ref
from contactd.tickets.contact import CallFacts, Contact, Direction, Leg, Medium, Outcome, Source

COLUMNS: Final = 17  # of etc/asterisk/cel_custom.conf; more may follow
SETTLE_S: Final = 2.0  # app_queue writes COMPLETE* after the channel's end, from another thread
FORGOTTEN_S: Final = 24 * 3600.0  # a call without an end this old will never get one
DEAD_S: Final = 60.0  # a call that the PBX does not list is over, if it is at least this old
YEAR_3000: Final = 32_503_680_000  # epoch seconds; later is not a time
KEEP_S: Final = 60.0  # how long rows of ended channels are kept for others that come late
MOMENT_S: Final = 0.1  # while bridges are rebuilt for a transfer, others meet for a moment
TEXTS: Final = "Message/"  # the one channel of all SIP MESSAGEs: it lives as long as the PBX
MAX_NAME: Final = 254  # characters; the column of the contact
EXTENSION_DIGITS: Final = 5  # a longer number is E.164, without its "+"
MAX_HOPS: Final = 8  # Local channels between the caller and a person

_KEPT: Final = frozenset(
    {
        "CHAN_START", "ANSWER", "APP_START", "BRIDGE_ENTER", "BRIDGE_EXIT", "HANGUP", "CHAN_END",
        "LINKEDID_END", "USER_DEFINED",
    }
)  # fmt: skip
# Channels without anybody at the other end (core_local.c, bridge.c, app_confbridge.c, …).
_MACHINES: Final = ("Local", "CBAnn", "CBRec", "Announcer", "Recorder", "Surrogate", "Message")
_OFFER_EVENTS: Final = frozenset({"TAKEN", "PASSED", "NOKEY"})
_LEFT_UNANSWERED: Final = frozenset(
    {"ABANDON", "EXITWITHTIMEOUT", "EXITEMPTY", "EXITWITHKEY", "WITHDRAW"}
)
_QUEUE_ENDS: Final = _LEFT_UNANSWERED | {
    "COMPLETECALLER",
    "COMPLETEAGENT",
    "BLINDTRANSFER",
    "ATTENDEDTRANSFER",
    "TRANSFER",  # its name before Asterisk 12
}
_COUNTER: Final = re.compile(r"(\d+)\.(\d+)$")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")

Span = tuple[float, float]  # from, until; epoch seconds, may be infinite
Position = TypeVar("Position")


class CelRow(NamedTuple):
    """One row of cel.csv (see etc/asterisk/cel_custom.conf).

    A tuple and not a dataclass: a replay makes a hundred thousand of them.
    """

    at: float  # epoch seconds
    event: str
    userevent: str
    uniqueid: str
    linkedid: str
    channel: str
    context: str
    exten: str
    cid_num: str
    cid_name: str
    app: str
    peer: str
    extra: str

    def detail(self, key: str) -> str:
        """Return a value of the row's JSON object, "" if it has none."""
        try:
            value = json.loads(self.extra)[key]
        except (ValueError, LookupError, TypeError):
            return ""
        return str(value)


def cel_row(fields: Sequence[str]) -> CelRow:
    """Return the row that `fields` say.

    Raises:
        ValueError: these are not the columns of our cel_custom.conf.
    """
    if len(fields) < COLUMNS:
        raise ValueError(f"{len(fields)} columns instead of {COLUMNS}")
    at = float(fields[0])
    if not 0 < at < YEAR_3000 or not fields[1] or not fields[3]:
        raise ValueError("no time, event or uniqueid")
    return CelRow(
        at, fields[1], fields[2], fields[3], fields[4], fields[5], fields[6], fields[7],
        fields[8], fields[9], fields[13], fields[15], fields[16],
    )  # fmt: skip


class QueueLine(NamedTuple):
    """One line of queue_log: time|call id|queue|agent|event|values. Times are whole seconds."""

    at: float
    call_id: str
    queue: str
    agent: str
    event: str
    values: tuple[str, ...] = ()


def queue_line(text: str) -> QueueLine:
    """Return the line that `text` says.

    Raises:
        ValueError: it is not a line of queue_log.
    """
    parts = text.rstrip("\r\n").split("|")
    if len(parts) < 5 or not parts[4]:
        raise ValueError("not time|call id|queue|agent|event")
    at, call_id, queue, agent, event = parts[:5]
    if not 0 < int(at) < YEAR_3000:
        raise ValueError("no time")
    return QueueLine(float(at), call_id, queue, agent, event, tuple(parts[5:]))


def is_hotline_start(row: CelRow, contexts: Collection[str]) -> bool:
    """Return whether this CHAN_START is a call that came in on a DID of the hotline.

    A channel that the PBX dials through the same endpoint has its context too, but no extension
    (chan_pjsip sets none, the core makes that "s").
    """
    return row.context in contexts and row.exten not in ("", "s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The channels that the PBX had at an instant. `at`: epoch seconds, before it was asked."""

    at: float
    uniqueids: frozenset[str]

    def proves_dead(self, uniqueid: str, started_at: float) -> bool:
        """Return whether a channel was there long before, and is not in the list."""
        return uniqueid not in self.uniqueids and self.at - started_at > DEAD_S


class _Channel(Generic[Position]):
    """What is kept of a channel. `first` is where its first row is in the file."""

    __slots__ = (
        "ended", "first", "last_at", "linkedid", "name", "order", "other_half", "rows", "uniqueid",
    )  # fmt: skip

    def __init__(self, row: CelRow, first: Position, order: int) -> None:
        self.order = order  # of the first row in the file
        self.uniqueid = row.uniqueid
        self.name = row.channel
        self.linkedid = row.linkedid
        self.first = first
        self.rows: list[CelRow] = []
        self.last_at = row.at
        self.ended = False
        self.other_half = ""  # uniqueid of the other end of a Local channel

    def row(self, *events: str) -> CelRow | None:
        """Return the first row of one of `events`."""
        return next((row for row in self.rows if row.event in events), None)

    @property
    def started_at(self) -> float:
        row = self.row("CHAN_START")
        return (row or self.rows[0]).at if self.rows else self.last_at

    @property
    def ended_at(self) -> float | None:
        row = self.row("HANGUP", "CHAN_END")
        return row.at if row else None


@dataclass(slots=True)
class _Bridge:
    rows: list[tuple[float, str, bool, tuple[str, ...]]] = field(default_factory=list)
    last_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """What an engineer's leg said of a call."""

    at: float
    event: str  # TAKEN, PASSED, NOKEY
    engineer: str
    uniqueid: str  # the engineer's channel


class CallRecords(Generic[Position]):
    """The hotline calls in a stream of records, each from its first row until it is forgotten.

    `pbx` is the PBX's name. Rows of calls that had been finished before the place where reading
    began may still come; `oldest` is the uniqueid of the channel whose first row is at that place,
    and calls that are older than it are not looked at again.
    """

    def __init__(self, *, pbx: str, hotline_contexts: Collection[str], oldest: str = "") -> None:
        self._pbx = pbx
        self._contexts = frozenset(hotline_contexts)
        self._oldest = _age_key(oldest)
        self._seen = 0
        self._channels: dict[str, _Channel[Position]] = {}
        self._names: dict[str, str] = {}
        self._open: dict[str, _Channel[Position]] = {}  # not ended, or a call not yet forgotten
        self._calls: dict[str, _Channel[Position]] = {}
        self._bridges: dict[str, _Bridge] = {}
        self._queue: dict[str, list[QueueLine]] = {}
        self._told: dict[str, list[_Told]] = {}
        self._linkedid_ends: dict[str, float] = {}
        self._restarts: list[float] = []
        self._changed: dict[str, None] = {}  # in order

    def anew(self) -> "CallRecords[Position]":
        """Return an empty one, for reading from the very beginning."""
        return CallRecords(pbx=self._pbx, hotline_contexts=self._contexts)

    # Records in

    def add(self, row: CelRow, first: Position) -> None:
        """Take a row; `first` is where it begins in the file."""
        channel = self._channels.get(row.uniqueid)
        if channel is None:
            self._seen += 1
            channel = self._channels[row.uniqueid] = _Channel(row, first, self._seen)
            self._pair(channel)
        channel.last_at = max(channel.last_at, row.at)
        channel.linkedid = row.linkedid
        channel.name = row.channel
        self._names[row.channel] = row.uniqueid
        if row.event not in _KEPT:
            return
        channel.rows.append(row)
        handler = self._HANDLERS.get(row.event)
        if handler is not None:
            handler(self, row, channel)
        if row.uniqueid in self._calls:
            self._changed[row.uniqueid] = None

    def add_queue(self, line: QueueLine) -> None:
        """Take a line of queue_log."""
        if line.event == "QUEUESTART":
            self._restarts.append(line.at)
            return
        self._queue.setdefault(line.call_id, []).append(line)
        if line.call_id in self._calls:
            self._changed[line.call_id] = None

    def _pair(self, channel: _Channel[Position]) -> None:
        """Join the halves of a Local channel. Names come again after a restart, pairs do not."""
        name = channel.name
        if not name.startswith("Local/") or name[-2:] not in (";1", ";2"):
            return
        partner = name[:-1] + ("2" if name.endswith("1") else "1")
        other = self._channels.get(self._names.get(partner, ""))
        if other is not None and not other.other_half:
            other.other_half, channel.other_half = channel.uniqueid, other.uniqueid

    def _started(self, row: CelRow, channel: _Channel[Position]) -> None:
        if row.channel.startswith(TEXTS):
            return
        self._open[row.uniqueid] = channel
        if is_hotline_start(row, self._contexts):
            self._calls[row.uniqueid] = channel

    def _ended(self, row: CelRow, channel: _Channel[Position]) -> None:
        channel.ended = True
        if row.uniqueid not in self._calls:
            self._open.pop(row.uniqueid, None)

    def _linkedid_ended(self, row: CelRow, channel: _Channel[Position]) -> None:
        self._linkedid_ends[row.linkedid] = row.at

    def _bridged(self, row: CelRow, channel: _Channel[Position]) -> None:
        bridge = self._bridges.setdefault(row.detail("bridge_id"), _Bridge())
        entered = row.event == "BRIDGE_ENTER"
        # Who was there already, in case their own row is before the place where reading began.
        there = row.peer.split(",") if entered and row.peer else ()
        peers = tuple(self._names[name] for name in there if name in self._names)
        bridge.rows.append((row.at, row.uniqueid, entered, peers))
        bridge.last_at = max(bridge.last_at, row.at)

    def _told_by_dialplan(self, row: CelRow, channel: _Channel[Position]) -> None:
        if row.userevent == "HOTLINE" or (row.userevent == "OUTGOING" and _is_ours(row.uniqueid)):
            self._hotline(channel)
        elif row.userevent in _OFFER_EVENTS:
            call_id, _, engineer = row.detail("extra").partition("|")
            self._told.setdefault(call_id, []).append(
                _Told(at=row.at, event=row.userevent, engineer=engineer, uniqueid=row.uniqueid)
            )
            if call_id in self._calls:
                self._changed[call_id] = None

    def _hotline(self, channel: _Channel[Position]) -> None:
        """Note that a channel which began elsewhere was sent to the hotline, or calls out."""
        if channel.row("CHAN_START") is None and _age_key(channel.uniqueid) < self._oldest:
            return  # a late row of a call that was finished long ago
        if channel.uniqueid not in self._calls:
            self._open[channel.uniqueid] = self._calls[channel.uniqueid] = channel

    _HANDLERS: Final[Mapping[str, Callable[..., None]]] = {
        "CHAN_START": _started,
        "CHAN_END": _ended,
        "LINKEDID_END": _linkedid_ended,
        "BRIDGE_ENTER": _bridged,
        "BRIDGE_EXIT": _bridged,
        "USER_DEFINED": _told_by_dialplan,
    }

    # What follows from them

    def calls(self) -> list[str]:
        """Return the ids of the calls that were not forgotten, oldest first."""
        return list(self._calls)

    def changed(self) -> set[str]:
        """Return the calls that records came for since this was last asked."""
        changed = set(self._changed)
        self._changed.clear()
        return changed

    def started_at(self, call_id: str) -> float:
        return self._calls[call_id].started_at

    def ended_at(self, call_id: str) -> float | None:
        """Return when the PBX noted the end of a call, None if it has not."""
        channel = self._calls[call_id]
        if channel.ended:
            return channel.ended_at
        return self._linkedid_ends.get(channel.linkedid)

    def finished(self, call_id: str, *, horizon: float, live: Listing | None = None) -> bool:
        """Return whether nothing more can come for a call.

        All records before `horizon` (epoch seconds) must have been added. `live`, if given, is from
        before that, however long.
        """
        ended_at = self.ended_at(call_id)
        if ended_at is not None:
            return ended_at <= horizon - SETTLE_S
        restarted_at = self._restarted_at(call_id)
        if restarted_at is not None and restarted_at <= horizon - SETTLE_S:
            return True
        started_at = self.started_at(call_id)
        gone = live is not None and live.proves_dead(call_id, started_at)
        return gone or horizon - started_at > FORGOTTEN_S

    def forget(self, call_id: str) -> None:
        """Drop a call: it was filed and finished."""
        self._calls.pop(call_id)
        self._open.pop(call_id, None)
        self._changed.pop(call_id, None)

    def low_water(self) -> tuple[Position, str, float] | None:
        """Return where reading must begin again after a restart: place, uniqueid, epoch seconds.

        None: nothing is unfinished. Channels that are not (or not yet) hotline calls count too, for
        the dialplan may send them to the hotline later.
        """
        channel = min(self._open.values(), key=lambda channel: channel.order, default=None)
        if channel is None:
            return None
        return channel.first, channel.uniqueid, channel.started_at

    def sweep(self, *, horizon: float, live: Listing | None = None) -> None:
        """Drop what no unfinished call can need any more."""
        for channel in list(self._open.values()):
            if channel.uniqueid not in self._calls and self._is_gone(channel, horizon, live):
                del self._open[channel.uniqueid]
        oldest = min((channel.started_at for channel in self._open.values()), default=inf)
        before = min(oldest, horizon) - KEEP_S
        for uniqueid, channel in list(self._channels.items()):
            if uniqueid not in self._open and channel.last_at < before:
                del self._channels[uniqueid]
        self._names = {n: u for n, u in self._names.items() if u in self._channels}
        self._bridges = {k: b for k, b in self._bridges.items() if b.last_at >= before}
        self._queue = {k: q for k, q in self._queue.items() if q[-1].at >= before}
        self._told = {k: t for k, t in self._told.items() if t[-1].at >= before}
        self._linkedid_ends = {k: at for k, at in self._linkedid_ends.items() if at >= before}
        self._restarts = [at for at in self._restarts if at >= before]

    def _is_gone(self, channel: _Channel[Position], horizon: float, live: Listing | None) -> bool:
        started_at = channel.started_at
        restarted = any(started_at < at <= horizon - SETTLE_S for at in self._restarts)
        gone = live is not None and live.proves_dead(channel.uniqueid, started_at)
        return restarted or gone or horizon - started_at > FORGOTTEN_S

    def contact(self, call_id: str, *, final: bool) -> Contact:
        """Return everything that is known of a call. `final` as `finished` says."""
        channel = self._calls[call_id]
        started = channel.row("CHAN_START") or channel.rows[0]
        facts, lost = self._facts(channel, final=final)
        if _is_ours(call_id):
            return _called(channel, facts, lost=lost)
        return Contact(
            medium=Medium.CALL,
            external_id=call_id,
            received_at=_instant(channel.started_at),
            source=Source.REPLAY,
            from_value=_clean(started.cid_num),
            from_name=_clean(started.cid_name),
            to_value=facts.did,
            outcome=_outcome(facts, lost=lost),
            call=facts,
        )

    def _facts(self, channel: _Channel[Position], *, final: bool) -> tuple[CallFacts, bool]:
        story = _Story(
            rows=channel.rows,
            queue=self._queue.get(channel.uniqueid, []),
            told=sorted(self._told.get(channel.uniqueid, []), key=lambda told: told.at),
        )
        ended_at, lost = self._end(channel, final=final)
        talks = self._talks(channel, story, until=inf if ended_at is None else ended_at)
        talks = talks or story.talks_by_queue_log(ended_at)
        answered_at = min((talk.span[0] for talk in talks), default=None)
        queued_at = story.queued_at()
        left_at = answered_at if answered_at is not None else story.left_queue_at()
        legs = _legs(talks)
        return CallFacts(
            pbx=self._pbx,
            did=story.did(self._contexts),
            final=final,
            stage=story.last("STAGE"),
            queue=story.queue_name(),
            queued_at=_maybe_instant(queued_at),
            answered_at=_maybe_instant(answered_at),
            ended_at=_maybe_instant(ended_at),
            waited=_length(queued_at, left_at),
            talked=_total(talk.span for talk in talks) if talks and ended_at is not None else None,
            legs=legs,
            passed_by=story.passed_by(took={leg.engineer for leg in legs}),
            end_reason=story.end_reason(),
            hangup_cause=story.hangup_cause(),
            keys=story.keys(),
            recording=story.last("RECORDING"),
            voicemail=story.last("VOICEMAIL"),
        ), lost

    def _end(self, channel: _Channel[Position], *, final: bool) -> tuple[float | None, bool]:
        """Return when a call ended, and whether the PBX lost it (it never noted the end)."""
        ended_at = channel.ended_at
        if ended_at is None:
            ended_at = self._linkedid_ends.get(channel.linkedid)
        if ended_at is not None or not final:
            return ended_at, False
        restarted_at = self._restarted_at(channel.uniqueid)
        return (channel.last_at if restarted_at is None else restarted_at), True

    def _restarted_at(self, call_id: str) -> float | None:
        """Return when the PBX started again after a call had begun."""
        started_at = self.started_at(call_id)
        return min((at for at in self._restarts if at > started_at), default=None)

    # Who talked with the caller

    def _talks(
        self, channel: _Channel[Position], story: "_Story", *, until: float
    ) -> list["_Talk"]:
        life = (channel.started_at, until)
        offered = {line.values[1]: line.agent for line in story.connects()}
        met = sorted(
            self._met(channel.uniqueid, life, frozenset({channel.uniqueid})),
            key=lambda met: met.span,
        ) or list(self._members_met(channel.uniqueid, life, offered))
        talked = [one for one in met if one.span[1] - one.span[0] >= MOMENT_S]
        takers = {told.uniqueid: told.engineer for told in story.told if told.event == "TAKEN"}
        first_by_way: dict[str, str] = {}
        talks = []
        for one in talked or met:
            first = first_by_way.setdefault(one.way, one.uniqueid)
            # Behind a member's Local channel somebody else may be later: an attended transfer.
            member = offered.get(one.way, "") if one.uniqueid == first else ""
            engineer = takers.get(one.uniqueid) or member or self._number(one.uniqueid)
            talks.append(_Talk(engineer=engineer, span=one.span))
        return talks

    def _met(
        self, uniqueid: str, span: Span, seen: frozenset[str], way: str = ""
    ) -> Iterator["_Met"]:
        """Find the people that a channel was connected with, through however many Local channels.

        `way` is the channel in the caller's own bridge through which they were reached.
        """
        for bridge in self._bridges_of(uniqueid):
            stays = self._stays(bridge)
            mine = [_overlap(stay, span) for stay in stays.get(uniqueid, ())]
            for other, theirs in stays.items():
                if other in seen:
                    continue
                for both in _overlaps(mine, theirs):
                    yield from self._behind(other, both, seen | {other}, way or other)

    def _members_met(self, uniqueid: str, span: Span, members: Collection[str]) -> Iterator["_Met"]:
        """Find the members' channels in the caller's own bridge, whoever was behind them.

        A caller who hangs up just as the call is taken has met the member's Local channel, but not
        yet the phone behind it: it was taken all the same.
        """
        for bridge in self._bridges_of(uniqueid):
            stays = self._stays(bridge)
            mine = [_overlap(stay, span) for stay in stays.get(uniqueid, ())]
            for member in stays.keys() & members:
                for both in _overlaps(mine, stays[member]):
                    yield _Met(uniqueid=member, way=member, span=both)

    def _behind(
        self, uniqueid: str, span: Span, seen: frozenset[str], way: str
    ) -> Iterator["_Met"]:
        channel = self._channels[uniqueid]  # it has a row in the bridge
        if not channel.name.startswith(_MACHINES):
            yield _Met(uniqueid=uniqueid, way=way, span=span)
        elif channel.other_half and len(seen) < 2 * MAX_HOPS:
            half = channel.other_half
            yield from self._met(half, span, seen | {half}, way)

    def _bridges_of(self, uniqueid: str) -> list[_Bridge]:
        channel = self._channels.get(uniqueid)
        rows = channel.rows if channel else ()
        ids = {
            row.detail("bridge_id"): None
            for row in rows
            if row.event in ("BRIDGE_ENTER", "BRIDGE_EXIT")
        }
        return [self._bridges[bridge_id] for bridge_id in ids if bridge_id in self._bridges]

    def _stays(self, bridge: _Bridge) -> dict[str, list[Span]]:
        """Return when each channel was in a bridge."""
        stays: dict[str, list[Span]] = {}
        entered: dict[str, float] = {}
        for at, uniqueid, enters, peers in sorted(bridge.rows, key=lambda row: row[0]):
            if enters:
                for one in (uniqueid, *peers):
                    entered.setdefault(one, at)
            else:
                stays.setdefault(uniqueid, []).append((entered.pop(uniqueid, -inf), at))
        for uniqueid, at in entered.items():
            channel = self._channels.get(uniqueid)
            end = channel.ended_at if channel else None
            stays.setdefault(uniqueid, []).append((at, inf if end is None else end))
        return stays

    def _number(self, uniqueid: str) -> str:
        """Return a name for somebody who is no queue member: the number that was dialled."""
        channel = self._channels[uniqueid]
        answered = channel.row("ANSWER")
        if answered and answered.cid_num:
            return _clean(answered.cid_num)
        return channel.name.partition("/")[2].rpartition("-")[0]


def _is_ours(call_id: str) -> bool:
    """Return whether somebody of the desk made a call, by the id that we chose for it."""
    return bool(number_of_ref(call_id))


def _called(channel: _Channel[Position], facts: CallFacts, *, lost: bool) -> Contact:
    """Return a call that the desk made; it begins when the requester is dialled."""
    rows = [row for row in channel.rows if row.userevent == "OUTGOING"]
    number, _, engineer = _clean(rows[0].detail("extra")).partition("|")
    legs = tuple(replace(leg, engineer=engineer) for leg in facts.legs)
    facts = replace(facts, did="", stage="", legs=legs)
    ends = [row.detail("extra") for row in channel.rows if row.userevent == "DIALLED"]
    return Contact(
        medium=Medium.CALL,
        external_id=channel.uniqueid,
        received_at=_instant(rows[0].at),
        direction=Direction.OUT,
        source=Source.REPLAY,
        to_value=number if len(number) <= EXTENSION_DIGITS else f"+{number}",
        outcome=_outcome_of_ours(facts, ends[-1] if ends else "", lost=lost),
        call=facts,
        ticket=number_of_ref(channel.uniqueid),
    )


def _outcome_of_ours(facts: CallFacts, dialled: str, *, lost: bool) -> Outcome:
    """Say how it went; `dialled` is Dial's word for it (DIALSTATUS)."""
    if facts.ended_at is None:
        return Outcome.RECEIVED
    if facts.answered_at is not None:
        return Outcome.ANSWERED
    if lost:
        return Outcome.PBX_LOST
    return Outcome.BUSY if dialled == "BUSY" else Outcome.NO_ANSWER


@dataclass(frozen=True, slots=True, kw_only=True)
class _Met:
    uniqueid: str
    way: str
    span: Span


@dataclass(frozen=True, slots=True, kw_only=True)
class _Talk:
    engineer: str
    span: Span


@dataclass(frozen=True, slots=True, kw_only=True)
class _Story:
    """What was written about one call: its channel's rows, queue_log, and the engineers' legs."""

    rows: Sequence[CelRow]
    queue: Sequence[QueueLine]
    told: Sequence[_Told]

    def said(self, userevent: str) -> Iterator[str]:
        for row in self.rows:
            if row.userevent == userevent and row.event == "USER_DEFINED":
                yield row.detail("extra")

    def last(self, userevent: str) -> str:
        return ([""] + [text for text in self.said(userevent) if text])[-1]

    def did(self, contexts: Collection[str]) -> str:
        said = next(self.said("HOTLINE"), "")
        return said or next((row.exten for row in self.rows if row.context in contexts), "")

    def keys(self) -> str:
        return "".join(self.said("KEY"))

    def hangup_cause(self) -> int | None:
        hangup = next((row for row in self.rows if row.event == "HANGUP"), None)
        cause = hangup.detail("hangupcause") if hangup else ""
        return int(cause) if cause.isdecimal() else None

    def connects(self) -> list[QueueLine]:
        """CONNECT: seconds waited, uniqueid of the member's channel, seconds rung."""
        return [line for line in self.queue if line.event == "CONNECT" and len(line.values) > 1]

    def queue_name(self) -> str:
        return ([""] + [line.queue for line in self.queue if line.event in _QUEUE_EVENTS])[-1]

    def end_reason(self) -> str:
        return ([""] + [line.event for line in self.queue if line.event in _QUEUE_ENDS])[-1]

    def queued_at(self) -> float | None:
        """Return when the caller first entered a queue: to the second, finer where CEL knows."""
        noted = [
            row.at
            for row in self.rows
            if (row.event == "APP_START" and row.app.lower() == "queue")
            or (row.userevent == "STAGE" and row.detail("extra") == "queue")
        ]
        second = next((line.at for line in self.queue if line.event == "ENTERQUEUE"), None)
        if second is None:
            return next(iter(noted), None)
        return max((at for at in noted if abs(at - second) < 1.1), default=second)

    def left_queue_at(self) -> float | None:
        """Return when the caller last left a queue without having been answered."""
        ends = [line.at for line in self.queue if line.event in _LEFT_UNANSWERED]
        if not ends:
            return None
        second = ends[-1]
        noted = [row.at for row in self.rows if row.event == "HANGUP" or row.userevent == "STAGE"]
        return min((at for at in noted if 0 <= at - second < 1.1), default=second)

    def passed_by(self, *, took: Collection[str]) -> tuple[str, ...]:
        """Return who was offered the call and did not take it, in the order of the offers."""
        offers = [(line.at, line.agent) for line in self.queue if line.event == "RINGNOANSWER"]
        offers += [(told.at, told.engineer) for told in self.told if told.event != "TAKEN"]
        names = dict.fromkeys(name for _, name in sorted(offers))
        return tuple(name for name in names if name and name not in took)

    def talks_by_queue_log(self, ended_at: float | None) -> list[_Talk]:
        """Return who talked by queue_log alone, for a call whose bridges are not in CEL.

        COMPLETECALLER and COMPLETEAGENT: seconds waited, seconds talked, first position.
        """
        ends = {
            line.agent: line.at
            for line in self.queue
            if line.event in ("COMPLETECALLER", "COMPLETEAGENT") and line.values[1:2] > ("0",)
        }
        return [
            _Talk(engineer=line.agent, span=(line.at, min(ends[line.agent], ended_at or inf)))
            for line in self.connects()
            if line.agent in ends
        ]


_QUEUE_EVENTS: Final = _QUEUE_ENDS | {"ENTERQUEUE", "CONNECT", "RINGNOANSWER", "RINGCANCELED"}

_UNANSWERED: Final[Mapping[str, Outcome]] = {
    "": Outcome.ABANDONED_GREETING,
    "greeting": Outcome.ABANDONED_GREETING,
    "menu": Outcome.ABANDONED_MENU,
    "voicemail": Outcome.ABANDONED_VOICEMAIL,
    "direct": Outcome.UNREACHED,
}


def _outcome(facts: CallFacts, *, lost: bool) -> Outcome:
    if facts.ended_at is None:
        return Outcome.RECEIVED
    if facts.voicemail and facts.answered_at is None:
        return Outcome.VOICEMAIL  # also if the PBX died right after it
    if lost:
        return Outcome.PBX_LOST
    if facts.answered_at is not None:
        return Outcome.ANSWERED
    if facts.stage == "menu" and "2" in facts.keys:
        return Outcome.SELF_SERVICE  # asked for the progress of a ticket, and for nothing else
    if facts.stage == "queue":
        gave_up = facts.end_reason in ("", "ABANDON")
        return Outcome.ABANDONED_QUEUE if gave_up else Outcome.UNREACHED
    return _UNANSWERED.get(facts.stage, Outcome.UNREACHED)


def _legs(talks: Sequence[_Talk]) -> tuple[Leg, ...]:
    """Join what one engineer talked without another in between (on hold, back from a transfer)."""
    joined: list[_Talk] = []
    for talk in talks:
        if joined and joined[-1].engineer == talk.engineer:
            start, end = joined[-1].span
            talk = _Talk(engineer=talk.engineer, span=(start, max(end, talk.span[1])))
            joined.pop()
        joined.append(talk)
    return tuple(
        Leg(
            engineer=talk.engineer,
            answered_at=_instant(talk.span[0]),
            ended_at=None if talk.span[1] == inf else _instant(talk.span[1]),
        )
        for talk in joined
    )


def _total(spans: Iterable[Span]) -> timedelta:
    """Return how long at least one of `spans` lasted."""
    total, until = 0.0, -inf
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return timedelta(microseconds=round(total * 1_000_000))


def _overlap(one: Span, two: Span) -> Span:
    return max(one[0], two[0]), min(one[1], two[1])


def _overlaps(ones: Iterable[Span], twos: Sequence[Span]) -> Iterator[Span]:
    for one in ones:
        for two in twos:
            both = _overlap(one, two)
            if both[0] < both[1]:
                yield both


def _age_key(uniqueid: str) -> tuple[int, int]:
    """Return what orders channels by age: `systemname-epoch.counter` -> (epoch, counter).

    A channel whose id was chosen by whoever dialled it has none and counts as new.
    """
    found = _COUNTER.search(uniqueid)
    if found is None:
        return (0, 0) if not uniqueid else (1 << 62, 0)
    return int(found[1]), int(found[2])


def _clean(text: str) -> str:
    """Return what a caller's network sent as one line of bounded length."""
    return " ".join(_CONTROL.sub(" ", text).split())[:MAX_NAME]


def _instant(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def _maybe_instant(at: float | None) -> datetime | None:
    return None if at is None else _instant(at)


def _length(start: float | None, end: float | None) -> timedelta | None:
    if start is None or end is None:
        return None
    return timedelta(microseconds=max(0, round((end - start) * 1_000_000)))
