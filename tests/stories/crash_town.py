"""Tells a story with a process that may die, in a town that goes on without it.

The town outlives every crash: phones that rang have rung, media know what they sent (or cannot
tell), and people press their key again until they hear an answer. The first telling, without
crashes, finds quiet moments for the plot to go on; the others do everything at the same times.
"""

import heapq
import itertools
import random
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, closing, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from contactd.core import Core, core
from contactd.errors import PermanentFailure, TemporaryFailure
from contactd.metrics import DUPLICATES, HANDLER_FAILURES
from contactd.routing import promises
from contactd.routing.following import Case
from contactd.routing.notify import REQUESTER, Busy, Notification, Reason, SendUnknown, Trace
from contactd.settings import Settings
from contactd.signals import Signals
from contactd.store.duty import LastDuties
from contactd.store.outbox import Relay
from contactd.tickets.contact import CallFacts, Contact, Medium, Outcome
from contactd.tickets.model import Classification
from contactd.tickets.priority import Impact, Urgency
from contactd.tickets.states import Action
from tests.fakes.clock import FakeClock
from tests.fakes.process import Machine, Process
from tests.stories.crash_plots import BEGIN, BLIND, THINKS, Fault, Story, Temper, Turn

QUIET: Final = timedelta(minutes=6)  # longer than all crashes of a story together
HASTE: Final = timedelta(minutes=5)
AT_ONCE: Final = timedelta(seconds=10)  # what follows on a refusal
RESTARTS: Final = (timedelta(seconds=1), timedelta(seconds=61))  # after 61 s leases have run out
AGAIN: Final = timedelta(seconds=5)  # somebody who heard nothing presses the key again

_LAST: Final = QUIET - timedelta(seconds=1)
_MOST_MOMENTS: Final = 500  # a story has some 50 instants: more means that it turns in circles


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    at: datetime
    notification: Notification


@dataclass(slots=True, kw_only=True)
class Town:
    """Everything outside the process."""

    story: Story
    clock: FakeClock
    network: list[Sent] = field(default_factory=list)  # what went out
    doubts: set[str] = field(default_factory=set)  # refs of which a medium could not tell
    repeats: list[str] = field(default_factory=list)  # those that were sent again after that
    words: dict[str, str] = field(default_factory=dict)  # what people heard, by ref
    stirred_at: datetime = BEGIN  # when somebody last did something
    _tries: Counter[str] = field(default_factory=Counter)
    _open_doubts: set[str] = field(default_factory=set)  # those not sent since

    def begin(self, ref: str) -> None:
        """Note that somebody begins to send `ref`, again perhaps."""
        if ref in self._open_doubts:
            self.repeats.append(ref)
            self._open_doubts.discard(ref)

    def take(self, notification: Notification) -> None:
        """Be handed a message.

        Raises:
            TemporaryFailure, PermanentFailure: as `Notifier.send`.
        """
        ref = notification.ref
        if (notification.recipient, notification.medium) in self.story.refuses:
            raise PermanentFailure("this address is refused")
        faults = self.story.faults(ref, notification.medium)
        fault = faults[self._tries[ref]] if self._tries[ref] < len(faults) else None
        self._tries[ref] += 1
        if fault in (None, Fault.MUTE):
            self.network.append(Sent(at=self.clock.now(), notification=notification))
            self.stirred_at = self.clock.now()
        if fault is not None:
            raise _FAILURES[fault](fault.value)

    def trace(self, medium: Medium, ref: str) -> Trace:
        if medium in BLIND:
            self.doubts.add(ref)
            self._open_doubts.add(ref)
            return Trace.UNKNOWN
        return Trace.SENT if self.copies(ref) else Trace.NEVER

    def copies(self, ref: str) -> int:
        return sum(each.notification.ref == ref for each in self.network)


_FAILURES: Final[Mapping[Fault, type[TemporaryFailure]]] = {
    Fault.AWAY: TemporaryFailure,
    Fault.BUSY: Busy,
    Fault.LOST: SendUnknown,
    Fault.MUTE: SendUnknown,
}


class Line:
    """A medium as one life of the process has it; it may die before and after each message."""

    def __init__(self, medium: Medium, town: Town, process: Process) -> None:
        self._medium = medium
        self._town = town
        self._process = process

    async def send(self, notification: Notification) -> None:
        self._town.begin(notification.ref)
        turns = self._town.story.turns(notification.ref)
        await self._process.step(f"send {notification.ref}", turns=turns)
        try:
            self._town.take(notification)
        finally:
            await self._process.step(f"sent {notification.ref}")

    async def find(self, ref: str) -> Trace:
        await self._process.step(f"find {ref}")
        found = self._town.trace(self._medium, ref)
        await self._process.step(f"found {ref}")
        return found

    async def stop(self, refs: Collection[str]) -> None:
        await self._process.step(f"stop {refs}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """How a story went."""

    story: Story
    town: Town
    times: tuple[datetime, ...]  # of the plot's turns
    is_hasty: bool  # things happened so soon after each other that a crash changes their order
    steps: int  # of the last life
    deaths: tuple[str, ...]  # before what it died
    cases: Mapping[str, Case]  # by ticket number, at the end
    notices: tuple[Mapping[str, Any], ...]  # table notifications
    overdue: tuple[Mapping[str, Any], ...]  # rows of the outbox that nobody handles
    armed: frozenset[str]  # keys of its other rows
    wrong_clocks: tuple[str, ...]
    repeated: Mapping[Medium, float]  # what the metric counted
    failures: float  # of handlers


Doing = Callable[[], Awaitable[None]]


class Teller:
    """Tells a story; `deaths` are the steps at which its lives end, `times` when its turns are.

    Without `times` each turn waits for a quiet moment. After a death it takes one of `restarts`
    until the process runs again.
    """

    def __init__(
        self,
        story: Story,
        machine: Machine,
        *,
        deaths: Sequence[int] = (),
        times: Sequence[datetime] = (),
        restarts: Sequence[timedelta] = RESTARTS,
    ) -> None:
        self.clock = FakeClock(BEGIN)
        self.town = Town(story=story, clock=self.clock)
        self.deaths: list[str] = []
        self.numbers: list[str] = []  # of tickets, as they were opened
        self._story = story
        self._machine = machine
        self._lives = itertools.chain(deaths, itertools.repeat(0))
        self._times = times
        self._restarts = restarts
        self._chance = random.Random(f"restarts-{story.seed}-{deaths}")
        self._seen = 0  # of what went out: who has begun to think about it
        self._agenda: list[tuple[datetime, int, Doing]] = []  # what people will do
        self._count = itertools.count()
        self._done: list[tuple[str, datetime, str]] = []  # ticket, when, by whom
        self._stack = AsyncExitStack()

    async def tell(self) -> Account:
        before = {medium: _repeated(medium) for medium in Medium}
        failures = _failures()
        with closing(sqlite3.connect(self._machine.path, isolation_level=None)) as self._looker:
            self._looker.row_factory = sqlite3.Row
            await self._begin_life()
            times = []
            for number, turn in enumerate(self._story.plot):
                if self._times:
                    await self._until(self._times[number])
                else:
                    await self._until(self.clock.now() + turn.after)
                    await self._until_quiet()
                times.append(self.clock.now())
                if turn.about.isdigit() and int(turn.about) < len(self.numbers):
                    self._done.append((self.numbers[int(turn.about)], self.clock.now(), _DESK))
                if turn.act != "end":
                    await self._insist(_ACTS[turn.act](self, number, turn))
            self._process.spare()
            await self._until(self.clock.now() + _LAST)  # what died at the end is late
            try:
                return await self._account(times, before, failures)
            finally:
                await self._stack.aclose()

    # Lives

    async def _begin_life(self) -> None:
        """Start the process, again if need be."""
        while True:
            self._stack = AsyncExitStack()
            self._process = Process(next(self._lives))
            if await self._lives_through(self._boot):
                return

    async def _boot(self) -> None:
        self.database = await self._stack.enter_async_context(
            self._machine.running(self._process, self.clock)
        )
        signals = Signals()
        self.core: Core = core(
            _SETTINGS,
            database=self.database,
            clock=self.clock,
            signals=signals,
            duties=LastDuties(self.database, self.clock),
            notifiers={
                medium: Line(medium, self.town, self._process)
                for medium in (Medium.CALL, Medium.TEXT, Medium.MAIL)
            },
        )
        self._relay = Relay(self.database, self.core.handlers, self.clock, signals)

    async def _lives_through(self, doing: Doing) -> bool:
        """Return whether the process survived what it did."""
        try:
            await doing()
        except BaseException:
            if not self._process.dead:
                raise
        if not self._process.dead:
            return True
        self.deaths.append(f"step {self._process.steps}: {self._process.last_words}")
        await self._stack.aclose()
        self.clock.advance(self._chance.choice(self._restarts))
        return False

    async def _insist(self, doing: Doing) -> None:
        """Do something with the program until it answers, and see what follows at once."""
        while not await self._lives_through(doing):
            await self._begin_life()
            self.clock.advance(AGAIN)
        self.town.stirred_at = self.clock.now()
        await self._drain()

    async def _drain(self) -> None:
        async def drain() -> None:
            await self._relay.drain()

        for _ in range(_MOST_MOMENTS):
            if not self._is_due():
                return self._let_them_think()
            if not await self._lives_through(drain):
                await self._begin_life()
        raise AssertionError("what is due is never done")

    # Time

    async def _until(self, end: datetime) -> None:
        for _ in range(_MOST_MOMENTS):
            await self._drain()
            coming = [at for at in (self._next_row(), self._next_doing()) if at and at <= end]
            if not coming:
                self.clock.advance(max(end - self.clock.now(), timedelta()))
                return
            self.clock.advance(max(min(coming) - self.clock.now(), timedelta()))
            while self._agenda and self._agenda[0][0] <= self.clock.now():
                await self._insist(heapq.heappop(self._agenda)[2])
        raise AssertionError("the story turns in circles")

    async def _until_quiet(self) -> None:
        """Wait until nobody has done anything for a while, and nothing is about to happen."""
        for _ in range(600):
            now = self.clock.now()
            coming = [at for at in (self._next_row(), self._next_doing()) if at]
            if (
                now - self.town.stirred_at >= QUIET
                and min(coming, default=now + QUIET) >= now + QUIET
            ):
                return
            await self._until(now + timedelta(minutes=1))
        raise AssertionError("no moment is quiet")

    def _next_doing(self) -> datetime | None:
        return self._agenda[0][0] if self._agenda else None

    def _next_row(self) -> datetime | None:
        """Return when the next row of the outbox is due, perhaps now."""
        found: str = self._looker.execute(_NEXT_ROW).fetchone()[0]
        return datetime.strptime(found, _SQLITE_TIME).replace(tzinfo=UTC) if found else None

    def _is_due(self) -> bool:
        coming = self._next_row()
        return coming is not None and coming <= self.clock.now()

    # People

    def _let_them_think(self) -> None:
        """Have those who were just reached answer after a while, once for each message."""
        while self._seen < len(self.town.network):
            sent = self.town.network[self._seen]
            earlier = self.town.network[: self._seen]
            self._seen += 1
            note = sent.notification
            doing = self._answer(note)
            if doing is not None and all(each.notification.ref != note.ref for each in earlier):
                at = sent.at + THINKS[note.recipient]
                self._done.append((note.ticket, at, note.recipient))
                heapq.heappush(self._agenda, (at, next(self._count), doing))

    def _answer(self, note: Notification) -> Doing | None:
        """Return how somebody answers a message, None if they do not."""
        if note.recipient == REQUESTER:
            return (
                self._requester(note) if note.reason in (Reason.SOLVED, Reason.REMINDER) else None
            )
        digit = _digit(self._story.tempers[note.recipient], note)
        if digit is None:
            return None

        async def press() -> None:
            word = await self.core.follow_up.answer(note.ref, digit)
            self.town.words[note.ref] = word

        return press

    def _requester(self, note: Notification) -> Doing | None:
        """Say what the plot has them say of the solution; by a call they press a key."""
        number = self.numbers.index(note.ticket)
        said = [
            turn.word for turn in self._story.plot
            if (turn.act, turn.about) == ("resolve", str(number))
        ]  # fmt: skip
        digit = said[0] if said else ""
        if not digit and note.medium is not Medium.CALL:
            return None

        async def confirm() -> None:
            if note.medium is Medium.CALL:
                self.town.words[note.ref] = await self.core.follow_up.confirm(note.ref, digit)
            else:
                await _whatever(
                    self.core.tickets.confirm(
                        note.ticket, solved=digit == "1", actor=REQUESTER, how="text"
                    )
                )

        return confirm

    # At the end

    async def _account(
        self, times: Sequence[datetime], before: Mapping[Medium, float], failures: float
    ) -> Account:
        now = self.clock.now().strftime(_SQLITE_TIME)
        steps = self._process.steps
        cases = {}
        async with self.database.new_work(reads_only=True) as work:
            for row in self._looker.execute("SELECT id FROM tickets ORDER BY id").fetchall():
                case = await work.routing.case(row[0])
                assert case is not None
                cases[case.ticket.number] = case
        terms = await self.core.terms()
        wrong_clocks = [
            number for number, case in cases.items()
            if len(promises.clocks(case.journal, terms)) != self._clocks(case.ticket.id)
        ]  # fmt: skip
        return Account(
            story=self._story,
            town=self.town,
            times=tuple(times),
            is_hasty=_is_hasty(self._done, cases.values()),
            steps=steps,
            deaths=tuple(self.deaths),
            cases=cases,
            notices=self._rows("SELECT * FROM notifications ORDER BY id"),
            overdue=self._rows(
                "SELECT * FROM outbox WHERE parked_at IS NOT NULL OR due_at <= ?", now
            ),
            armed=frozenset(row["dedup_key"] for row in self._rows("SELECT dedup_key FROM outbox")),
            wrong_clocks=tuple(wrong_clocks),
            repeated={medium: _repeated(medium) - before[medium] for medium in Medium},
            failures=_failures() - failures,
        )

    def _clocks(self, ticket_id: int) -> int:
        found = self._looker.execute(
            "SELECT count(*) FROM clocks WHERE ticket_id = ?", (ticket_id,)
        )
        return int(found.fetchone()[0])

    def _rows(self, statement: str, *values: str) -> tuple[Mapping[str, Any], ...]:
        return tuple(dict(row) for row in self._looker.execute(statement, values).fetchall())


def _is_hasty(done: Collection[tuple[str, datetime, str]], cases: Collection[Case]) -> bool:
    """Return whether two people act on a ticket, or two steps follow, while a crash may last."""
    for (ticket, at, who), (other, then, person) in itertools.pairwise(sorted(done)):
        if ticket == other and who != person and then - at < HASTE:
            return True
    for case in cases:
        told = [entry.at for entry in case.journal if entry.action == "escalation.told"]
        if any(AT_ONCE < then - at < HASTE for at, then in itertools.pairwise(told)):
            return True
    return False


_SETTINGS: Final = Settings()
_SQLITE_TIME: Final = "%Y-%m-%dT%H:%M:%S.%fZ"
_NEXT_ROW: Final = (
    "SELECT min(max(due_at, coalesce(lease_until, ''))) FROM outbox WHERE parked_at IS NULL"
)


def _repeated(medium: Medium) -> float:
    return float(DUPLICATES.labels(medium=medium.value)._value.get())


def _failures() -> float:
    return float(HANDLER_FAILURES.labels(where=Relay.name)._value.get())


async def _whatever(doing: Awaitable[object]) -> None:
    """Do it, or hear that it is too late: who asks again hears so of what they did themselves."""
    with suppress(PermanentFailure):
        await doing


def _digit(temper: Temper, note: Notification) -> str | None:
    """Return the key that somebody presses, or the link that they click; None: nothing."""
    is_call = note.medium is Medium.CALL
    match temper:
        case Temper.TAKES:
            return "1"
        case Temper.PASSES:
            return "2"
        case Temper.SETS_OUT:
            return "4"
        case Temper.MACHINE:
            return "" if is_call else None
        case Temper.READS:
            return None if is_call or note.medium in BLIND else "1"
        case Temper.IGNORES:
            return None


# What can happen


def _write(teller: Teller, number: int, turn: Turn) -> Doing:
    contact = Contact(
        medium=Medium.TEXT,
        external_id=f"text-{number}",
        received_at=teller.clock.now(),
        from_value=turn.about,
        text="the printer is broken",
    )

    async def write() -> None:
        _note(teller, (await teller.core.tickets.receive(contact)).ticket)

    return write


def _call(teller: Teller, number: int, turn: Turn) -> Doing:
    now = teller.clock.now()
    facts = CallFacts(pbx="pbx1", did="4008001234", stage="queue")
    begun = Contact(
        medium=Medium.CALL,
        external_id=f"pbx1-{number}",
        received_at=now,
        from_value=turn.about,
        call=facts,
    )
    voicemail = "/voicemail/1.wav" if turn.word == Outcome.VOICEMAIL else ""
    ended = replace(
        begun,
        outcome=Outcome(turn.word),
        call=replace(facts, final=True, ended_at=now, voicemail=voicemail),
    )

    async def call() -> None:
        await teller.core.tickets.receive(begun)
        _note(teller, (await teller.core.tickets.receive(ended)).ticket)

    return call


def _note(teller: Teller, ticket: str) -> None:
    if ticket not in teller.numbers:
        teller.numbers.append(ticket)


def _on_ticket(do: Callable[[Core, str, str], Awaitable[object]]) -> Callable[..., Doing]:
    """Return what is said of a ticket; there may be none in this place of the story."""

    def act(teller: Teller, _number: int, turn: Turn) -> Doing:
        async def doing() -> None:
            if int(turn.about) < len(teller.numbers):
                await _whatever(do(teller.core, teller.numbers[int(turn.about)], turn.word))

        return doing

    return act


_DESK: Final = "user:desk"
_URGENT: Final = Classification(impact=Impact.COMPANY, urgency=Urgency.HIGH)
_ACTS: Final[Mapping[str, Callable[[Teller, int, Turn], Doing]]] = {
    "write": _write,
    "call": _call,
    "resolve": _on_ticket(
        lambda core, ticket, _: core.tickets.act(ticket, Action.RESOLVE, actor=_DESK, note="done")
    ),
    "dispatch": _on_ticket(
        lambda core, ticket, who: core.tickets.dispatch(ticket, who, actor=_DESK)
    ),
    "urge": _on_ticket(lambda core, ticket, _: core.tickets.classify(ticket, _URGENT, actor=_DESK)),
    "hand over": _on_ticket(
        lambda core, ticket, who: core.tickets.hand_over(ticket, who, actor=_DESK)
    ),
}
