"""One Asterisk: its link, its live calls, its queue members, its records, its ledger.

The fast path (AMI) files a call at first sight and keeps the page live; the truth path (the PBX's
records) says how it went. Each loop here only ever looks: a signal that is lost costs a minute.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import partial
from typing import Final
from zoneinfo import ZoneInfo

from contactd.clock import Clock
from contactd.errors import ContactdError, TemporaryFailure
from contactd.log import bound, get_logger
from contactd.metrics import ROSTER_CHANGES
from contactd.routing.notify import Notification, SendState, SendUnknown
from contactd.routing.oncall import Duties, on_duty
from contactd.service import Health, HealthState
from contactd.settings import HotlineSettings, PbxSettings
from contactd.signals import Signals, Topic, wait
from contactd.telephony import roster
from contactd.telephony.ami import (
    Ami,
    AmiEvent,
    OriginateOutcome,
    OutcomeUnknown,
    ami_settings,
)
from contactd.telephony.calls import (
    CALL_EVENTS,
    Answered,
    Arrived,
    CallTracker,
    Change,
    Ended,
    LiveCall,
)
from contactd.telephony.cel import Listing
from contactd.telephony.intake import Intake
from contactd.telephony.ledger import has_channel, hotline_calls
from contactd.telephony.ordered import OrderedByKey
from contactd.telephony.outgoing import CONTEXT as OUT
from contactd.telephony.outgoing import OutgoingCall, OutgoingCalls, Step
from contactd.telephony.replay import Look, PbxFiles, PbxRecords
from contactd.telephony.voice import CONTEXTS, PAGE, Outgoing
from contactd.tickets.contact import (
    CallFacts,
    Contact,
    Direction,
    Filed,
    Leg,
    Medium,
    Outcome,
)
from contactd.tickets.service import TicketService

log = get_logger()

ACTION_S: Final = 5.0
SETTLE_S: Final = 2.2  # the records of a call are complete so long after its end (see cel.SETTLE_S)
GATHER_S: Final = 0.1
ANSWERED_EVERY_S: Final = 0.25
BOOK_S: Final = 15.0  # the ledger reads a whole day: not after every call
RETRY_S: Final = 5.0  # after the turn of a loop failed for a reason that passes
YESTERDAY_FOR: Final = timedelta(hours=1)  # after midnight the day before is still balanced
MEMBERS_CHANGED: Final = frozenset(
    {"QueueMemberAdded", "QueueMemberRemoved", "QueueMemberPenalty", "Reload"}
)
EVENTS: Final = CALL_EVENTS | MEMBERS_CHANGED | {"Hangup", "OriginateResponse", "UserEvent"}
NORMAL_END: Final = 16  # Q.850


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What every PBX needs of the rest of the program.

    `settle` balances the ledger of one day with the calls that a PBX's records have. `call_outcome`
    is told what became of a notification by phone: `DELIVERED`, somebody picked up (perhaps a
    machine), or `NOT_REACHED`; a ref may be unknown, or the person has pressed a key already.
    """

    tickets: TicketService
    intake: Intake
    duties: Callable[[], Awaitable[Duties]]
    load_cursor: Callable[[str], Awaitable[str | None]]
    settle: Callable[[date, str, Mapping[str, datetime]], Awaitable[object]]
    call_outcome: Callable[[str, SendState], Awaitable[None]]
    clock: Clock
    signals: Signals
    zone: str
    calling: OutgoingCalls = field(default_factory=OutgoingCalls)  # calls that the desk makes


@dataclass(frozen=True, slots=True)
class _Loop:
    """`turn` returns in how many seconds it wants the next one, None for `every_s`.

    After a signal of `topic` others are gathered for `gather_s` seconds.
    """

    turn: Callable[[], Awaitable[float | None]]
    every_s: float
    topic: Topic
    gather_s: float


class Pbx:
    """One PBX as a service, and a `voice.Line`."""

    def __init__(self, settings: PbxSettings, hotline: HotlineSettings, shared: Shared) -> None:
        self.name = settings.name
        self._settings = settings
        self._hotline = hotline
        self._shared = shared
        self._clock = shared.clock
        self._zone = ZoneInfo(shared.zone)
        self.calls = CallTracker(hotline_contexts=settings.hotline_contexts)
        self.filed: dict[str, Filed] = {}  # of live calls
        self._ami = Ami(
            ami_settings(settings),
            on_event=self._on_event,
            on_connected=self._on_connected,
            on_lost=self._on_lost,
            wanted=EVENTS,
        )
        self._work = OrderedByKey(f"calls-{self.name}", on_gap=self._ami.resynchronise)
        self._records = PbxRecords(
            PbxFiles(
                name=settings.name,
                cel_path=settings.cel_path,
                queue_log_path=settings.queue_log_path,
                hotline_contexts=settings.hotline_contexts,
            ),
            load_cursor=shared.load_cursor,
            replay=shared.tickets.replay,
            clock=shared.clock,
        )
        self._troubles: dict[str, str] = {}  # loop -> why its last turn failed
        self._unread: tuple[str, ...] = ()  # what is wrong with the PBX's files
        self._list_again_at = float("-inf")  # event loop's clock
        self._keys: frozenset[str] | None = None  # of the engineers
        self._outgoing = Outgoing(settings.page_channels)

    # The service

    @property
    def connected(self) -> bool:
        return self._ami.connected

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Catch up with the PBX's records, then follow it."""
        times = self._hotline
        loops = {
            "records": _Loop(self._replay_records, times.replay_interval_s, Topic.REPLAY, SETTLE_S),
            "roster": _Loop(self._write_roster, times.roster_interval_s, Topic.ROSTER, GATHER_S),
            "ledger": _Loop(self._balance, times.ledger_interval_s, Topic.LEDGER, BOOK_S),
        }
        async with self._work.running(), self._ami.running(), asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(self._look_again(what, loop), name=f"{what}-{self.name}")
                for what, loop in loops.items()
            ]
            yield
            for task in running:
                task.cancel()

    def health(self) -> list[Health]:
        link = self._ami.health()
        troubles = [f"{what}: {why}" for what, why in self._troubles.items()]
        troubles += self._unread
        failing = HealthState.DOWN if "records" in self._troubles else HealthState.DEGRADED
        records = Health(
            component=f"records:{self.name}",
            state=failing if troubles else HealthState.UP,
            detail="; ".join(troubles),
        )
        return [link, records]

    async def _look_again(self, what: str, loop: "_Loop") -> None:
        """Take a turn now, after each signal, and at the latest when the last one said."""
        with self._shared.signals.listening(loop.topic) as wanted:
            while True:
                wanted.clear()  # before looking: what is raised meanwhile is looked at next
                try:
                    pause_s = min(await loop.turn() or loop.every_s, loop.every_s)
                    self._troubles.pop(what, None)
                except ContactdError as failure:
                    self._note_trouble(what, str(failure))
                    pause_s = RETRY_S
                if await wait(wanted, pause_s):
                    await asyncio.sleep(loop.gather_s)

    def _note_trouble(self, what: str, reason: str) -> None:
        if self._troubles.get(what) != reason:
            log.warning("pbx.loop_failed", pbx=self.name, loop=what, reason=reason)
        self._troubles[what] = reason

    # Fast path

    def _on_event(self, event: AmiEvent) -> None:
        if event["Event"] in MEMBERS_CHANGED:
            self._shared.signals.raise_here(Topic.ROSTER)
        self._tell(self._outgoing.feed(event, _loop_time()))
        now = self._clock.now()
        if (moved := self._shared.calling.feed(event, now)) is not None:
            self._follow_ours(moved)
        self._follow(self.calls.feed(event, now))

    def _follow(self, changes: list[Change]) -> None:
        for change in changes:
            match change:
                case Arrived():
                    self._work.submit(change.call_id, partial(self._arrived, change))
                case Answered():
                    self._work.submit(change.call_id, partial(self._answered, change))
                case Ended():
                    self.filed.pop(change.call_id, None)
                    self._shared.signals.raise_here(Topic.REPLAY)
                case _:
                    pass  # the page shows it, nothing else follows
        if changes:
            self._shared.signals.raise_(Topic.BOARD)

    async def _arrived(self, change: Arrived) -> None:
        contact = Contact(
            medium=Medium.CALL,
            external_id=change.call_id,
            received_at=change.at,
            from_value=change.caller,
            from_name=change.name,
            to_value=change.did,
            call=CallFacts(pbx=self.name, did=change.did),
        )
        with bound(call=change.call_id):
            try:
                filed = await self._shared.intake.file(contact)
            except TemporaryFailure as failure:  # the records bring it, at the latest
                log.warning("call.not_filed_yet", reason=str(failure))
                return
        if self.calls.find(change.call_id) is not None:
            self.filed[change.call_id] = filed
            self.calls.greeted(change.call_id, self._clock.now())  # the dialplan goes on now
            self._shared.signals.raise_(Topic.BOARD)

    async def _answered(self, change: Answered) -> None:
        """Tell the ticket at once who took the call; the records confirm it when it is over."""
        call = self.calls.find(change.call_id)
        if call is None or change.engineer not in await self._engineers():
            return  # the floor, a transfer's target, somebody who is not known after a reconnect
        contact = Contact(
            medium=Medium.CALL,
            external_id=change.call_id,
            received_at=call.arrived_at,
            from_value=call.caller,
            from_name=call.name,
            to_value=call.did,
            outcome=Outcome.ANSWERED,
            call=CallFacts(
                pbx=self.name,
                did=call.did,
                stage="queue",
                queue=call.queue,
                answered_at=change.at,
                legs=(Leg(engineer=change.engineer, answered_at=change.at),),
            ),
        )
        with bound(call=change.call_id):
            # Nobody waits for this; those of one moment share a transaction.
            await asyncio.sleep(-asyncio.get_running_loop().time() % ANSWERED_EVERY_S)
            try:
                await self._shared.tickets.receive(contact)
            except TemporaryFailure as failure:
                log.warning("call.answer_not_noted_yet", reason=str(failure))

    async def _engineers(self) -> frozenset[str]:
        """Return the keys of all engineers; since the members were written, without looking."""
        if self._keys is None:
            try:
                duties = await self._shared.duties()
            except TemporaryFailure:
                return frozenset()
            return _keys(duties)
        return self._keys

    async def _on_connected(self, ami: Ami) -> None:
        """Ask the PBX how things are, and believe it."""
        asked_at = _loop_time()
        channels = await ami.list("CoreShowChannels")
        queues = await ami.list("QueueStatus")
        self._list_again_at = float("-inf")
        live = frozenset(channel.get("Uniqueid", "") for channel in channels)
        self._tell(self._outgoing.resync(live, asked_at))
        for gone in self._shared.calling.resync(self.name, live, self._clock.now()):
            self._follow_ours(gone)
        self._follow(self.calls.resync(channels, queues, self._clock.now()))
        self._shared.signals.raise_here(Topic.ROSTER)
        self._shared.signals.raise_here(Topic.REPLAY)

    def _on_lost(self) -> None:
        self._shared.signals.raise_(Topic.BOARD)

    # Truth path

    async def _replay_records(self) -> float | None:
        """Read what the PBX has written; return in how many seconds to look again, if soon."""
        look: Look = await self._records.look(await self._live_channels())
        # One that is there but empty has no record yet.
        missing = [path for path in look.missing if not path.exists()]
        self._unread = (
            *(f"{path} is not there: see cel_path, queue_log_path" for path in missing),
            *(f"{path} is damaged and skipped: restore or remove it" for path in look.damaged),
        )
        if look.filed:
            self._shared.signals.raise_here(Topic.LEDGER)
        return look.again_in.total_seconds() if look.again_in is not None else None

    async def _live_channels(self) -> Listing | None:
        """Return the PBX's channels; None if it does not say.

        They only tell of calls whose end was never written, so one list in a while will do: a busy
        PBX has hundreds, and calls end several times a second.
        """
        now = asyncio.get_running_loop().time()
        if not self._ami.connected or now < self._list_again_at:
            return None
        self._list_again_at = now + self._hotline.replay_interval_s / 2
        at = self._clock.now().timestamp()
        try:
            channels = await self._ami.list("CoreShowChannels")
        except ContactdError:
            return None  # the records can be read all the same
        return Listing(at=at, uniqueids=frozenset(each.get("Uniqueid", "") for each in channels))

    async def _balance(self) -> float | None:
        """Hold the PBX's own count of today's calls against the contacts."""
        now = self._clock.now().astimezone(self._zone)
        days = [now.date()]
        if (now - YESTERDAY_FOR).date() != now.date():
            days.append(now.date() - timedelta(days=1))
        for day in days:
            calls = await hotline_calls(
                self._settings.cel_path,
                day=day,
                zone=self._shared.zone,
                hotline_contexts=self._settings.hotline_contexts,
            )
            await self._shared.settle(day, self.name, calls)
        self._shared.signals.raise_(Topic.BOARD)
        return None

    # The queues' members

    async def _write_roster(self) -> float | None:
        """Make the members of our queues those who are on duty."""
        if self._ami.connected and self._settings.write_roster:
            await self._write_members(await self._ami.list("QueueStatus"))
        return None

    async def _write_members(self, queue_events: list[AmiEvent]) -> None:
        duties = await self._shared.duties()
        self._keys = _keys(duties)  # before any of them can be rung
        now = self._clock.now()
        want = roster.wanted(
            duties.sites,
            {site.key: on_duty(duties, site.key, now) for site in duties.sites},
            default_queue=self._hotline.default_queue,
        )
        steps = roster.difference(want, roster.present(queue_events))
        for step in steps:
            action, headers = step.ami()
            reply = await self._ami.action(action, ACTION_S, **headers)
            change = type(step).__name__.lower()
            ROSTER_CHANGES.labels(pbx=self.name, change=change).inc()
            if not reply.success:
                log.warning("roster.refused", pbx=self.name, change=change, reason=reply.message)
        if steps:
            log.info("roster.written", pbx=self.name, changes=len(steps))

    # Calls to people: `voice.Line`

    async def dial(self, notification: Notification) -> None:
        """Ring a person; see `voice.Line`. The dialplan says what it is about.

        Of the facts: `site`, `vip`, `conference`, `pin` ("1": a PIN is asked for), `code`.
        """
        ref, facts = notification.ref, notification.facts
        number = _digits(notification.address)
        ring_s = self._hotline.page_ring_s
        self._outgoing.begin(ref, ring_s=ring_s, now=_loop_time())
        try:
            outcome = await self._ami.originate(
                channel=f"Local/{number}@contactd-call/n",
                channel_id=ref,
                context=CONTEXTS.get(notification.reason, PAGE),
                exten="s",
                caller_id="contactd",
                variables={
                    "NOTIFICATION": ref,
                    "TICKET": notification.ticket,
                    "LANG": notification.language,
                    "WHAT": notification.reason.value,
                    "SITE": facts.get("site", ""),
                    "VIP": facts.get("vip", ""),
                    "CONFERENCE": facts.get("conference", ""),
                    "PIN_NEEDED": facts.get("pin", ""),
                    "CODE": facts.get("code", ""),
                },
                timeout_s=ring_s,
            )
        except ContactdError:
            self._outgoing.forget(ref)
            raise
        if outcome is OriginateOutcome.UNKNOWN:
            raise SendUnknown("not known whether the call was dialled")

    async def has_dialled(self, ref: str) -> bool:
        """Return whether `ref` has or had a channel; see `voice.Line`."""
        # The list first: what has ended by then is in the records.
        if self._ami.connected:
            channels = await self._ami.list("CoreShowChannels")
            if any(channel.get("Uniqueid") == ref for channel in channels):
                return True
        if await has_channel(self._settings.cel_path, ref):
            return True
        if not self._ami.connected:
            raise TemporaryFailure(f"PBX {self.name} cannot be asked: {self._ami.last_error}")
        return False

    async def hang_up(self, refs: Collection[str]) -> None:
        """End those that still ring; see `voice.Line`."""
        if not self._ami.connected and not self._outgoing.holds(refs, _loop_time()):
            return
        for channel in await self._ami.list("CoreShowChannels"):
            ref = channel.get("Uniqueid", "")
            if ref in refs and channel.get("ChannelStateDesc") != "Up":
                self._outgoing.give_up(ref)
                await self._ami.action("Hangup", ACTION_S, Channel=ref, Cause=NORMAL_END)

    # Calls that the desk makes

    async def call_out(self, call: OutgoingCall, *, phone: str, language: str, theirs: str) -> None:
        """Ring `phone`; who answers and presses 1 is connected with the requester.

        `language` is spoken to who answers, `theirs` to the requester.

        Raises:
            SendUnknown: it may ring.
            TemporaryFailure: nothing rings.
            PermanentFailure: the PBX refuses to dial that.
        """
        number = _digits(call.number)
        outcome = await self._ami.originate(
            channel=f"Local/{_digits(phone)}@contactd-call/n",
            channel_id=call.ref,
            context=OUT,
            exten="s",
            caller_id="contactd",
            variables={
                "NUMBER": number,
                "ENGINEER": call.engineer,
                "LANG": language,
                "THEIR_LANG": theirs,
            },
            timeout_s=self._hotline.page_ring_s,
        )
        if outcome is OriginateOutcome.UNKNOWN:
            raise SendUnknown("not known whether the call was dialled")

    def _follow_ours(self, call: OutgoingCall) -> None:
        if call.step in (Step.THEM, Step.TALKING):
            self._work.submit(call.ref, partial(self._note_ours, call))
        elif call.step is Step.OVER:
            self._shared.signals.raise_here(Topic.REPLAY)
        self._shared.signals.raise_(Topic.BOARD)

    async def _note_ours(self, call: OutgoingCall) -> None:
        """Put the call on its ticket; the records say how it went when it is over."""
        talked_from = call.talked_from
        legs = (Leg(engineer=call.engineer, answered_at=talked_from),) if talked_from else ()
        contact = Contact(
            medium=Medium.CALL,
            external_id=call.ref,
            received_at=call.since,
            direction=Direction.OUT,
            to_value=call.number,
            outcome=Outcome.ANSWERED if legs else Outcome.RECEIVED,
            call=CallFacts(pbx=self.name, did="", answered_at=talked_from, legs=legs),
            ticket=call.ticket,
        )
        with bound(call=call.ref):
            try:
                await self._shared.tickets.receive(contact)
            except TemporaryFailure as failure:  # the records bring it
                log.warning("call.not_filed_yet", reason=str(failure))

    # Texts, through a GSM gateway

    async def send_text(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Send MessageSend with these headers; return the PBX's answer, a yes or a no.

        Raises:
            SendUnknown: it may have been sent.
            TemporaryFailure: it was not.
            PermanentFailure: a header cannot be written.
        """
        try:
            reply = await self._ami.action("MessageSend", ACTION_S, **headers)
        except OutcomeUnknown as error:
            raise SendUnknown(str(error)) from error
        return reply.headers

    def _tell(self, outcomes: Iterable[tuple[str, SendState]]) -> None:
        for ref, state in outcomes:
            self._work.submit(ref, partial(self._told, ref, state))

    async def _told(self, ref: str, state: SendState) -> None:
        try:
            await self._shared.call_outcome(ref, state)
        except TemporaryFailure as failure:  # timers go on without it
            log.warning("page.outcome_not_noted", ref=ref, state=state, reason=str(failure))

    # What the status page shows

    def live_calls(self) -> tuple[tuple[LiveCall, Filed | None], ...]:
        return tuple((call, self.filed.get(call.call_id)) for call in self.calls.snapshot())


def _keys(duties: Duties) -> frozenset[str]:
    return frozenset(engineer.key for engineer in duties.engineers)


def _digits(number: str) -> str:
    """Return a number as the dialplan dials it: E.164 without "+", or an extension."""
    return "".join(sign for sign in number if sign.isdigit())


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
