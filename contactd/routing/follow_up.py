"""Follows tickets up: promises are timed, people are told, answers are heard.

Each use case is one transaction around a decision of `following`; messages are sent between two of
them, never inside one.
"""

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from contactd.clock import Clock
from contactd.errors import ActionNotAllowed, NotFound, PermanentFailure, TemporaryFailure
from contactd.log import get_logger
from contactd.metrics import BREACHES, DUPLICATES, PAGES
from contactd.routing import escalation as ladder
from contactd.routing.clocks import Clock as PromiseClock
from contactd.routing.closing import NEVER, Quiet, may_call
from contactd.routing.escalation import Escalation, Outcome, Phase
from contactd.routing.following import (
    DISPATCH_LOST,
    Case,
    Follow,
    Message,
    Watch,
    World,
    follow,
    heard,
    saying,
    writing,
)
from contactd.routing.needs import HAND_OVER_DECLINED
from contactd.routing.notify import (
    ASKS,
    CAN_WAIT,
    COURTESIES,
    REQUESTER,
    URGENT,
    Busy,
    Notification,
    Notifier,
    Notifiers,
    Quota,
    Reason,
    SendState,
    SendUnknown,
    Trace,
)
from contactd.routing.terms import Terms
from contactd.routing.wallclock import ANYWHERE
from contactd.signals import Topic
from contactd.tickets import model
from contactd.tickets.contact import Medium
from contactd.tickets.dispatching import Step as DispatchStep
from contactd.tickets.events import (
    Due,
    DutyDue,
    EscalationDue,
    GroupDue,
    NoticeDue,
    NoticesStopped,
    TicketDue,
)
from contactd.tickets.journal import SYSTEM
from contactd.tickets.model import ENGINEER, Ticket
from contactd.tickets.numbers import is_valid
from contactd.tickets.people import Address
from contactd.tickets.ports import UnitOfWork
from contactd.tickets.service import TicketService
from contactd.tickets.states import State
from contactd.tickets.together import Together

log = get_logger()

SEND_WITHIN: Final = timedelta(seconds=40)  # shorter than a handler may take: its outcome is noted
# As long as a handler may take: two rows may ask for one notification, and one of them sends it.
IN_HAND: Final = timedelta(seconds=50)
BUSY_AGAIN: Final = timedelta(seconds=1)  # a page takes half a minute: some channel ends soon
TOO_MANY: Final = "requester.not_told"  # an address gets no more of what it has not asked for
MOST_TOGETHER: Final = 25  # tickets looked at in one transaction

# What of a notification's states is still to be done.
_PENDING: Final = frozenset({SendState.QUEUED, SendState.SENDING, SendState.UNKNOWN})
_UNHEARD: Final = frozenset({SendState.SENT, SendState.DELIVERED, *_PENDING, SendState.DOUBTFUL})
_OUTCOMES: Final[Mapping[SendState, Outcome]] = {
    SendState.SENT: Outcome.SENT,
    SendState.DELIVERED: Outcome.DELIVERED,
    SendState.NOT_REACHED: Outcome.NOT_REACHED,
    SendState.UNKNOWN: Outcome.UNKNOWN,
    SendState.FAILED: Outcome.FAILED,
}
_TIMERS: Final[Mapping[str, Callable[[int], ladder.Event]]] = {
    ladder.Timer.STEP: lambda generation: ladder.StepDue(generation=generation),
    ladder.Timer.ACK: lambda generation: ladder.AckExpired(generation=generation),
}
_TAKES: Final = frozenset({"1", "4", "5"})  # keys by which somebody takes the ticket
_DISPATCH_KEYS: Final = {
    "1": DispatchStep.ACCEPT,
    "2": DispatchStep.DECLINE,
    "4": DispatchStep.SET_OUT,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredNotice:
    """A notification as it is stored; generation 0: it belongs to no escalation."""

    notification: Notification
    ticket_id: int
    state: SendState
    step: int
    generation: int
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A message that was sent, and how its ticket stands now: what the page of its links shows."""

    notice: StoredNotice
    ticket: Ticket
    site: str  # in the recipient's language, "" when unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class Author:
    """Who has an address; `engineer` is "" for a requester."""

    person_id: int
    engineer: str


class RoutingStore(Protocol):
    """What following tickets up needs from storage; see `store.routing.SqlRouting`."""

    async def case(self, ticket_id: int) -> Case | None: ...

    async def save_escalation(
        self, ticket_id: int, escalation: Escalation | None, seen: int
    ) -> None: ...

    async def save_clocks(self, ticket_id: int, found: Sequence[PromiseClock]) -> None: ...

    async def add_notifications(
        self, ticket_id: int, messages: Sequence[Message], now: datetime
    ) -> None: ...

    async def notification(self, ref: str) -> StoredNotice | None: ...

    async def note(
        self, refs: Sequence[str], state: SendState, now: datetime, detail: str = ""
    ) -> None: ...

    async def latest_page(self, ticket: str, engineer: str) -> str: ...

    async def author(self, address: Address) -> Author | None: ...

    async def attached(self, leader: str) -> list[int]: ...

    async def paging(self, sites: Sequence[str]) -> list[int]: ...


class RoutingWork(UnitOfWork, Protocol):
    @property
    def routing(self) -> RoutingStore: ...


class NewRoutingWork(Protocol):
    def __call__(self, *, reads_only: bool = False) -> AbstractAsyncContextManager[RoutingWork]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowUpSettings:
    redial_within: timedelta
    zone: str
    language: str
    quiet: Quiet = NEVER  # no texts to requesters that can wait


class FollowUp:
    """The handlers of everything that comes due, and of what people answer.

    Every method raises `TemporaryFailure` when the database or a medium is away: the same may be
    asked again.
    """

    def __init__(  # noqa: PLR0913 - the composition root's words
        self,
        *,
        new_work: NewRoutingWork,
        tickets: TicketService,
        terms: Callable[[], Awaitable[Terms]],
        watch: Callable[[], Awaitable[Watch]],
        notifiers: Notifiers,
        clock: Clock,
        settings: FollowUpSettings,
        on_commit: Callable[[Topic], None],
    ) -> None:
        self._new_work = new_work
        self._tickets = tickets
        self._terms = terms
        self._watch = watch
        self._notifiers = notifiers
        self._clock = clock
        self._settings = settings
        self._on_commit = on_commit
        self._quota = Quota()
        self._looking = Together(self._look, key=lambda ticket: ticket, most=MOST_TOGETHER)
        self._hearing = Together(self._hear_together, key=_first, most=MOST_TOGETHER)

    # What comes due

    async def ticket_due(self, due: TicketDue) -> None:
        await self._looking.ask(due.ticket_id)

    async def _look(self, ticket_ids: Sequence[int]) -> list[None]:
        world = await self._world()
        async with self._new_work() as work:
            for ticket_id in ticket_ids:
                case = await work.routing.case(ticket_id)
                if case is not None:
                    await self._store(work, case, follow(case, world))
            await work.commit()
        self._tell()
        return [None] * len(ticket_ids)

    async def escalation_due(self, due: EscalationDue) -> None:
        await self._hear([due.ticket_id], _TIMERS[due.timer](due.generation))

    async def group_due(self, due: GroupDue) -> None:
        async with self._new_work(reads_only=True) as work:
            case = await work.routing.case(due.ticket_id)
            waiting = await work.routing.attached(case.ticket.number) if case else []
        await self._hear(waiting, ladder.GroupChanged())

    async def duty_due(self, due: DutyDue) -> None:
        """Who is on duty has changed: queues, open pages, the status page."""
        self._on_commit(Topic.ROSTER)
        async with self._new_work(reads_only=True) as work:
            ringing = await work.routing.paging([due.site, ANYWHERE])
        await self._hear(ringing, ladder.DutyChanged())

    async def _hear(self, ticket_ids: Collection[int], event: ladder.Event) -> None:
        """Let the ladders of these tickets hear of it; one that fails holds up no other."""
        asked = [self._hearing.ask((ticket_id, event)) for ticket_id in ticket_ids]
        for answer in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(answer, BaseException):
                raise answer

    async def _hear_together(self, asked: Sequence[tuple[int, ladder.Event]]) -> list[None]:
        world = await self._world()
        async with self._new_work() as work:
            for ticket_id, event in asked:
                case = await work.routing.case(ticket_id)
                if case is not None and case.escalation is not None:
                    await self._store(work, case, heard(case, event, world))
            await work.commit()
        self._tell()
        return [None] * len(asked)

    async def _world(self) -> World:
        now, watch = self._clock.now(), await self._watch()
        return World(
            now=now,
            terms=await self._terms(),
            duties=watch.duties,
            present=watch.present,
            media=frozenset(self._notifiers),
            redial_within=self._settings.redial_within,
            zone=self._settings.zone,
            language=self._settings.language,
            quiet=self._settings.quiet,
        )

    async def _store(self, work: RoutingWork, case: Case, found: Follow) -> None:
        now = self._clock.now()
        routing, ticket_id = work.routing, case.ticket.id
        if found.entries:
            await work.tickets.save([found.ticket])
            await work.tickets.append([(ticket_id, entry) for entry in found.entries])
            for entry in found.entries:
                if entry.action == "clock.breached":
                    BREACHES.labels(metric=entry.body["metric"]).inc()
        if found.trouble:
            log.error("clocks.senseless", ticket=case.ticket.number, reason=found.trouble)
        if (found.escalation, found.seen) != (case.escalation, case.seen):
            await routing.save_escalation(ticket_id, found.escalation, found.seen)
        if found.clocks is not None:
            await routing.save_clocks(ticket_id, found.clocks)
        await routing.add_notifications(ticket_id, found.messages, now)
        await routing.note(found.stopped, SendState.STOPPED, now)
        await routing.note(found.doubtful, SendState.UNKNOWN, now)
        for event in found.events:
            work.emit(event)

    def _tell(self) -> None:
        self._on_commit(Topic.OUTBOX)
        self._on_commit(Topic.BOARD)

    # Sending

    async def notice_due(self, due: NoticeDue) -> None:
        """Send a notification that is still wanted; one that may have gone out is looked up.

        Raises:
            TemporaryFailure: it has not gone out, or nobody knows yet; ask again.
        """
        found = await self._claim(due.ref)
        if found is None:
            return
        notifier = self._notifiers.get(found.notification.medium)
        if notifier is None:
            await self._report(found, SendState.FAILED, "this medium is not configured any more")
        elif found.state is SendState.QUEUED:
            await self._send(found, notifier)
        else:
            await self._look_up(found, notifier)

    async def _claim(self, ref: str) -> StoredNotice | None:
        """Mark it as being sent, and return it as it was; None if nothing is to be done."""
        now = self._clock.now()
        async with self._new_work() as work:
            found = await work.routing.notification(ref)
            if found is None or found.state not in _PENDING:
                return None
            is_wanted = await self._is_wanted(work, found) and await self._is_few(work, found)
            in_hand = found.state is SendState.SENDING and now - found.updated_at < IN_HAND
            if is_wanted and in_hand:
                raise TemporaryFailure("it is being sent, or was when somebody died")
            if is_wanted and (later := self._not_before(found.notification, now)) > now:
                work.emit(Due(event=NoticeDue(ref=ref), due_at=later))
                await work.commit()
                return None
            state = SendState.SENDING if is_wanted else SendState.STOPPED
            await work.routing.note([ref], state, now)
            await work.commit()
        return found if is_wanted else None

    async def _is_wanted(self, work: RoutingWork, found: StoredNotice) -> bool:
        """Return whether its ladder, or the requester's ticket, still wants it sent."""
        asks_in = _ASKS_IN.get(found.notification.reason)
        until = found.notification.facts.get("until", "")
        if until and datetime.fromisoformat(until) <= self._clock.now():
            return False  # what it leads to is over: a link of remote help
        if asks_in is None and not found.generation:
            return True
        case = await work.routing.case(found.ticket_id)
        if asks_in is not None:
            return case is not None and case.ticket.state is asks_in and not _has_mark(case)
        notice = _notice(case, found.notification.ref)
        if case is None or case.escalation is None or notice is None:
            return False
        has_answered = {*case.escalation.acks, *case.escalation.passed}
        # While the medium was away another turn may have come: one message is enough.
        turns = [
            each
            for each in case.escalation.notices
            if (each.person, each.medium) == (notice.person, notice.medium)
        ]
        return (
            turns[-1] == notice and notice.outcome in _WANTED and notice.person not in has_answered
        )

    def _not_before(self, notification: Notification, now: datetime) -> datetime:
        """Return when it may be sent: a requester is not rung at night because the PBX was away,
        nor woken by a text that can wait.
        """
        zone, medium = notification.facts.get("zone", "UTC"), notification.medium
        if notification.recipient != REQUESTER:
            return now
        if medium is Medium.CALL:
            return may_call(now, zone)
        is_urgent = notification.facts.get("priority") in URGENT
        can_wait = medium is Medium.TEXT and notification.reason in CAN_WAIT and not is_urgent
        return self._settings.quiet.over(now, zone) if can_wait else now

    async def _is_few(self, work: RoutingWork, found: StoredNotice) -> bool:
        """Return whether one more courtesy is not too many for its address; if it is, say so on
        the ticket, once. What asks for an answer, and pages, have no limit.
        """
        page, now = found.notification, self._clock.now()
        if page.reason not in COURTESIES or self._quota.take(page.address, page.ref, now):
            return True
        case = await work.routing.case(found.ticket_id)
        if case is not None and not any(entry.action == TOO_MANY for entry in case.journal):
            await self._note(work, case.ticket, TOO_MANY, {"medium": page.medium.value})
        log.warning("notice.too_many", ticket=page.ticket, about=page.reason.value)
        return False

    async def _look_up(self, found: StoredNotice, notifier: Notifier) -> None:
        """Ask whether it has gone out; send it if it has not, and in the end if nobody knows."""
        try:
            trace = await notifier.find(found.notification.ref)
        except TemporaryFailure:
            await self._put_back(found, SendState.UNKNOWN)
            raise
        if trace is Trace.SENT:
            await self._report(found, SendState.SENT)
        elif trace is Trace.NEVER:
            await self._send(found, notifier)
        elif await self._is_repeated(found):
            DUPLICATES.labels(medium=found.notification.medium.value).inc()
            log.warning("notice.repeated", ticket=found.notification.ticket)
            await self._send(replace(found, state=SendState.DOUBTFUL), notifier)
        else:
            await self._report(found, SendState.UNKNOWN)

    async def _is_repeated(self, found: StoredNotice) -> bool:
        """Return whether to send again what may have gone out: silence is the worse mistake.

        A ladder goes on to others first; where there is none, nobody else will tell.
        """
        if not found.generation:
            return True
        async with self._new_work(reads_only=True) as work:
            notice = _notice(await work.routing.case(found.ticket_id), found.notification.ref)
        return notice is not None and notice.outcome is Outcome.DOUBTFUL

    async def _send(self, found: StoredNotice, notifier: Notifier) -> None:
        notification = found.notification
        try:
            async with asyncio.timeout(SEND_WITHIN.total_seconds()):
                await notifier.send(notification)
        except (SendUnknown, TimeoutError) as unknown:
            if found.state is SendState.DOUBTFUL:  # once more was enough
                await self._report(found, SendState.DOUBTFUL)
                return
            await self._report(found, SendState.UNKNOWN)
            raise SendUnknown("nobody knows whether it has gone out") from unknown
        except Busy:
            await self._put_back(found, SendState.QUEUED, again_after=BUSY_AGAIN)
        except TemporaryFailure:
            await self._put_back(found, SendState.QUEUED)
            raise
        except PermanentFailure as failure:
            log.warning("notice.refused", ticket=notification.ticket, reason=str(failure))
            await self._report(found, SendState.FAILED, str(failure))
        else:
            log.info(
                "notice.sent",
                ticket=notification.ticket,
                recipient=notification.recipient,
                medium=notification.medium.value,
                about=notification.reason.value,
            )
            await self._report(found, SendState.SENT)

    async def _put_back(
        self, found: StoredNotice, state: SendState, *, again_after: timedelta | None = None
    ) -> None:
        """Have it sent later: `again_after`, or whenever the outbox tries again."""
        ref, now = found.notification.ref, self._clock.now()
        async with self._new_work() as work:
            stored = await work.routing.notification(ref)
            if stored is None or stored.state is not SendState.SENDING:
                return  # somebody has answered, or it was stopped
            await work.routing.note([ref], state, now)
            if again_after is not None:
                work.emit(Due(event=NoticeDue(ref=ref), due_at=now + again_after))
            await work.commit()

    async def notices_stopped(self, event: NoticesStopped) -> None:
        async with self._new_work(reads_only=True) as work:
            found = [await work.routing.notification(ref) for ref in event.refs]
        by_medium: dict[Medium, list[str]] = {}
        for each in found:
            if each is not None:
                by_medium.setdefault(each.notification.medium, []).append(each.notification.ref)
        for medium, refs in by_medium.items():
            if medium in self._notifiers:
                await self._notifiers[medium].stop(refs)

    async def outcome(self, ref: str, state: SendState) -> None:
        """Take a receipt: what a medium says later of a notification that it has sent."""
        async with self._new_work(reads_only=True) as work:
            found = await work.routing.notification(ref)
        if found is not None and found.state in _UNHEARD:
            await self._report(found, state)

    async def _report(self, found: StoredNotice, state: SendState, detail: str = "") -> None:
        """Note what became of a notification, and let its ladder know."""
        ref = found.notification.ref
        PAGES.labels(medium=found.notification.medium.value, outcome=state.value).inc()
        world = await self._world()
        async with self._new_work() as work:
            stored = await work.routing.notification(ref)
            if stored is None or stored.state not in _UNHEARD:
                return  # somebody has answered, or it was stopped
            if state is SendState.SENT and stored.state is SendState.DELIVERED:
                return  # the receipt was faster than the answer
            await work.routing.note([ref], state, self._clock.now(), detail)
            outcome = _OUTCOMES.get(state)
            case = await work.routing.case(found.ticket_id) if found.generation else None
            if case is not None and outcome is not None:
                event = ladder.Reported(ref=ref, outcome=outcome)
                await self._store(work, case, heard(case, event, world))
            if state is SendState.FAILED and not found.generation:
                await self._not_told(work, found)
            await work.commit()
        self._tell()

    async def _not_told(self, work: RoutingWork, found: StoredNotice) -> None:
        """Say on the ticket that a message outside of a ladder can never reach its recipient."""
        page, ticket = found.notification, await work.tickets.find(found.ticket_id)
        bodies: Mapping[Reason, tuple[str, dict[str, Any]]] = {
            Reason.ASSIGNED: (HAND_OVER_DECLINED, {"reason": "not reached"}),
            Reason.DISPATCH: (
                DISPATCH_LOST,
                {"engineer": page.recipient, "dispatch": int(page.facts.get("dispatch", 0))},
            ),
        }
        if ticket is None or page.reason not in bodies or await self._has_other_way(work, page):
            return
        action, body = bodies[page.reason]
        await self._note(work, ticket, action, body)

    async def _note(
        self, work: RoutingWork, ticket: Ticket, action: str, body: Mapping[str, Any]
    ) -> None:
        noted = model.note(ticket, action, actor=SYSTEM, body=dict(body), now=self._clock.now())
        ticket, entries = model.sealed(noted.ticket, noted.entries)
        await work.tickets.save([ticket])
        await work.tickets.append([(ticket.id, entry) for entry in entries])
        work.emit(TicketDue(ticket_id=ticket.id))

    async def _has_other_way(self, work: RoutingWork, page: Notification) -> bool:
        """Return whether the same message may reach them by another medium; see `_Work.reach`."""
        stem = page.ref.removesuffix(page.medium.value)
        same = [await work.routing.notification(f"{stem}{medium.value}") for medium in Medium]
        return any(each is not None and each.state is not SendState.FAILED for each in same)

    # Answers

    async def answer(self, ref: str, digit: str, pin: str = "") -> str:
        """Take the key that somebody pressed in a page: 1 take, 2 pass on, 4 on my way, 5 take
        and join the conference, "" none.

        Return what they hear: taken, on_way, passed, late, or pin (it is wrong).
        """
        async with self._new_work(reads_only=True) as work:
            found = await work.routing.notification(ref)
        if found is None:
            return "late"
        if digit in _TAKES and not await self._may_answer(found.notification.recipient, pin):
            return "pin"
        return await self._answer(found, digit, found.notification.medium)

    async def answered(self, ref: str, digit: str, medium: Medium) -> str:
        """Take an answer from an address that only this person has: no PIN is asked for."""
        async with self._new_work(reads_only=True) as work:
            found = await work.routing.notification(ref)
        return "late" if found is None else await self._answer(found, digit, medium)

    async def _answer(self, found: StoredNotice, digit: str, medium: Medium) -> str:
        if found.notification.reason is Reason.DISPATCH:
            return await self._answer_dispatch(found, digit)
        if digit == "2":
            await self._pass_on(found)
            return "passed"
        if digit not in _TAKES:
            await self._report(found, SendState.NOT_REACHED)
            return "passed"
        return await self._take(found, digit, medium)

    async def _pass_on(self, found: StoredNotice) -> None:
        """Let the others hear first: a crash before it is noted costs nobody the page."""
        person = found.notification.recipient
        if found.generation:
            if not await self.give_back(found.ticket_id, person):
                generation = await self._generation(found)
                event = ladder.Passed(person=person, generation=generation)
                await self._hear([found.ticket_id], event)
        elif found.notification.reason is Reason.ASSIGNED:  # off duty: no ladder goes on by itself
            actor = ENGINEER + person
            await self._tickets.note(found.ticket_id, HAND_OVER_DECLINED, actor=actor, body={})
        await self._settle(found, SendState.PASSED)

    async def _generation(self, found: StoredNotice) -> int:
        """Return the last one in which this message was wanted."""
        async with self._new_work(reads_only=True) as work:
            notice = _notice(await work.routing.case(found.ticket_id), found.notification.ref)
        return notice.generation if notice is not None else found.generation

    async def give_back(self, ticket_id: int, person: str) -> bool:
        """Have others told of a ticket that `person` has and cannot go on with.

        Return False if they do not have it, or if people are being told of it now.
        """
        async with self._new_work(reads_only=True) as work:
            case = await work.routing.case(ticket_id)
        if case is None or case.ticket.assignee != person or case.ticket.state not in _IN_HAND:
            return False
        escalation, actor = case.escalation, ENGINEER + person
        phase = escalation.phase if escalation else Phase.OVER
        if phase in (Phase.PAGING, Phase.ATTACHED):
            return False
        if escalation is not None and phase is Phase.TAKEN:
            event = ladder.Escalated(by=actor, generation=escalation.generation)
            await self._hear([ticket_id], event)
        else:
            await self._tickets.note(ticket_id, HAND_OVER_DECLINED, actor=actor, body={})
        return True

    async def escalate(self, number: str, *, actor: str) -> None:
        """Have the next people told at once, because somebody says so.

        Raises:
            NotFound: there is no such ticket.
            ActionNotAllowed: nobody need work on it any more.
        """
        async with self._new_work(reads_only=True) as work:
            case = await self._case(work, number)
        if case.ticket.state not in (State.NEW, *_IN_HAND):
            raise ActionNotAllowed(f"cannot escalate a ticket that is {case.ticket.state}")
        escalation = case.escalation
        if escalation is None or escalation.phase is Phase.OVER:
            await self._tickets.note(case.ticket.id, HAND_OVER_DECLINED, actor=actor, body={})
            return
        event = ladder.Escalated(by=actor, generation=escalation.generation)
        await self._hear([case.ticket.id], event)

    async def _take(self, found: StoredNotice, digit: str, medium: Medium) -> str:
        person = found.notification.recipient
        if not await self._has_taken(found, person, medium.value):
            return "late"
        await self._settle(found, SendState.TAKEN)
        if digit == "4":
            await self._tickets.note(found.ticket_id, "on_my_way", actor=ENGINEER + person, body={})
            return "on_way"
        return "taken"

    async def _has_taken(self, found: StoredNotice, person: str, how: str) -> bool:
        if not found.generation:  # they were told outside of a ladder: it was handed to them
            return await self._tickets.take(found.ticket_id, person, how=how)
        event = ladder.Acknowledged(person=person, generation=found.generation, how=how)
        await self._hear([found.ticket_id], event)
        async with self._new_work(reads_only=True) as work:
            case = await work.routing.case(found.ticket_id)
        escalation = case.escalation if case else None
        if escalation is None or escalation.phase is Phase.OVER:
            return False
        return person in escalation.acks

    async def _answer_dispatch(self, found: StoredNotice, digit: str) -> str:
        step = _DISPATCH_KEYS.get(digit)
        if step is None:
            await self._report(found, SendState.NOT_REACHED)
            return "passed"
        page = found.notification
        actor, number = ENGINEER + page.recipient, int(page.facts["dispatch"])
        try:
            await self._tickets.dispatch_step(page.ticket, step, actor=actor, dispatch=number)
        except PermanentFailure:
            return "late"
        await self._settle(found, SendState.PASSED if digit == "2" else SendState.TAKEN)
        return {"1": "taken", "2": "passed", "4": "on_way"}[digit]

    async def _may_answer(self, person: str, pin: str) -> bool:
        known = (await self._watch()).duties.by_key.get(person)
        wanted = known.pin if known is not None else ""
        return not wanted or hmac.compare_digest(wanted.encode(), pin.encode())

    async def _settle(self, found: StoredNotice, state: SendState) -> None:
        PAGES.labels(medium=found.notification.medium.value, outcome=state.value).inc()
        async with self._new_work() as work:
            await work.routing.note([found.notification.ref], state, self._clock.now())
            await work.commit()

    async def confirm(
        self, ref: str, digit: str, medium: Medium = Medium.CALL, note: str = ""
    ) -> str:
        """Take what a requester answers when asked whether it is solved: 1 yes, 2 no.

        `medium` is by what they do, `note` what they say to it. Return what they hear: closed,
        reopened, or late.
        """
        async with self._new_work(reads_only=True) as work:
            found = await work.routing.notification(ref)
        if found is None or found.notification.recipient != REQUESTER:
            return "late"
        if digit not in ("1", "2"):
            await self._report(found, SendState.NOT_REACHED)
            return "late"
        number, word = found.notification.ticket, "closed" if digit == "1" else "reopened"
        try:
            await self._tickets.confirm(
                number, solved=digit == "1", actor=REQUESTER, how=medium.value, note=note
            )
        except PermanentFailure:  # too late, or they say again what nobody answered
            progress = await self._tickets.progress(number)
            if progress is None or progress.state is not _CONFIRMED[digit]:
                return "late"
        await self._settle(found, SendState.TAKEN)
        return word

    async def say(  # noqa: PLR0913 - who is told what, by what
        self,
        number: str,
        to: Address,
        medium: Medium,
        key: str,
        facts: Mapping[str, str],
        reason: Reason = Reason.HEARD,
    ) -> None:
        """Tell whoever wrote back what became of it; `key` makes it unique, so that twice is once.

        Nothing is said by a medium that is not there, or about a ticket that is not.
        """
        world = await self._world()
        async with self._new_work() as work:
            ticket = await work.tickets.find(number)
            case = await work.routing.case(ticket.id) if ticket is not None else None
            author = await work.routing.author(to)
            if case is None or author is None or medium not in world.media:
                return
            told = saying(
                case,
                world,
                recipient=author.engineer or REQUESTER,
                medium=medium,
                address=to.value,
                key=key,
                facts=facts,
                reason=reason,
            )
            await self._store(work, case, told)
            await work.commit()
        self._tell()

    async def draft(
        self, number: str, words: str, medium: Medium = Medium.TEXT, subject: str = ""
    ) -> Notification:
        """Return what `write` would send; raises what it does."""
        world = await self._world()
        said = _Said(key="draft", words=words, medium=medium, subject=subject)
        async with self._new_work(reads_only=True) as work:
            case = await self._case(work, number)
            return _written(case, world, said)[1].notification

    async def write(  # noqa: PLR0913 - who says what by which medium
        self,
        number: str,
        *,
        actor: str,
        words: str,
        key: str,
        medium: Medium = Medium.TEXT,
        subject: str = "",
    ) -> str:
        """Write to the requester of a ticket, by text or mail; return the message's ref.

        The second time for one `key` nothing happens. A mail without a `subject` has that of what
        it answers.

        Raises:
            NotFound: there is no such ticket.
            PermanentFailure: no number of the requester takes texts, or they have no mail address.
        """
        said = _Said(key=key, words=words, medium=medium, subject=subject)
        world = await self._world()
        async with self._new_work() as work:
            case = await self._case(work, number)
            told, message = _written(case, world, said, actor)
            ref = message.notification.ref
            if await work.routing.notification(ref) is not None:
                return ref
            await self._store(work, case, told)
            work.emit(TicketDue(ticket_id=case.ticket.id))  # the clocks hear of it, too
            await work.commit()
        self._tell()
        log.info("requester.written_to", ticket=number, actor=actor)
        return ref

    async def _case(self, work: RoutingWork, number: str) -> Case:
        ticket = await work.tickets.find(number) if is_valid(number) else None
        case = await work.routing.case(ticket.id) if ticket is not None else None
        if case is None:
            raise NotFound(f"there is no ticket {number}")
        return case

    async def standing(self, ref: str) -> Standing | None:
        """Return a message and how its ticket stands; None if there is none such."""
        async with self._new_work(reads_only=True) as work:
            found = await work.routing.notification(ref)
            ticket = await work.tickets.find(found.ticket_id) if found is not None else None
        if found is None or ticket is None:
            return None
        sites = {site.key: site for site in (await self._watch()).duties.sites}
        site = sites.get(ticket.site)
        is_zh = found.notification.language.startswith("zh")
        name = (site.name_zh if is_zh else site.name_en) if site is not None else ""
        return Standing(notice=found, ticket=ticket, site=name)


_CONFIRMED: Final = {"1": State.CLOSED, "2": State.IN_PROGRESS}
_IN_HAND: Final = frozenset({State.IN_PROGRESS, State.PENDING})
# Outcomes of a page's notice at which it may still have to be sent.
_WANTED: Final = frozenset({Outcome.QUEUED, Outcome.UNKNOWN, Outcome.DOUBTFUL})


# What asks for the requester's word, and the state in which their ticket waits for it.
_ASKS_IN: Final[Mapping[Reason, State]] = {
    **dict.fromkeys(sorted(ASKS), State.RESOLVED),
    Reason.SURVEY: State.CLOSED,
}


def _has_mark(case: Case) -> bool:
    return any(entry.action == model.RATED for entry in case.journal)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Said:
    """What somebody of the desk writes to a requester."""

    key: str
    words: str
    medium: Medium
    subject: str


def _written(case: Case, world: World, said: _Said, actor: str = SYSTEM) -> tuple[Follow, Message]:
    told = writing(
        case, world, key=said.key, words=said.words, actor=actor, medium=said.medium,
        subject=said.subject,
    )  # fmt: skip
    if not told.messages and said.medium is Medium.MAIL:
        raise PermanentFailure("no mail address of this requester is known")
    if not told.messages:
        raise PermanentFailure("no number of this requester takes texts")
    return told, told.messages[0]


def _first(asked: tuple[int, ladder.Event]) -> int:
    return asked[0]


def _notice(case: Case | None, ref: str) -> ladder.Notice | None:
    if case is None or case.escalation is None or case.escalation.phase is Phase.OVER:
        return None
    return next((each for each in case.escalation.notices if each.ref == ref), None)
