"""The clocks of a ticket: what was promised until when, and why (pure).

`recompute` folds everything that is known of a ticket into its clocks. Nothing else is true: a
stored clock is a copy of its answer. How it is meant to be used, in one transaction with what
changes the ticket:

1. Read the ticket's journal into facts (`Fact.entry` is the entry's place in it) and recorded
   breaches, and call `recompute`. A fact that was learned late is given with the instant at which
   it happened; one that proved wrong is left out.
2. Store the clocks. Where `breach(clock, now)` gives something, write it to the journal, once.
3. Arm one timer for each of `alarms(clock)`, known by metric, `Clock.entry`, goal and percentage,
   so that each fires once. A timer that fires begins at 1 and decides from what it then finds.

Promises are snapshots: what a key of `Targets` or `Calendars` stands for does not change. A
contract or opening hours that do get a new key, and a ticket to which that applies a fact. Only
public holidays change under a key, so that deadlines move when they are announced.

The present does not enter into the fold: the same facts give the same clocks at any time. Whether
a clock that runs is overdue by now, `breach` says.

A clock runs while its metric is promised and the ticket is not paused. Its life, from start to
stop, is cut into segments at every fact that pauses, resumes or changes its target. What is spent
stays spent when that changes, counted by the calendar that applied then. A clock is due at the
first instant at which its goal is spent (at the change, if a change makes the goal smaller than
that) and breached if it runs on after it. Sources: requirements C1 to C5; "Clocks, duty,
escalation" and invariant 6 of the design.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum
from itertools import pairwise
from typing import Final

from contactd.routing.calendars import Due, WorkingCalendar, add, between
from contactd.tickets.priority import Priority

DUE: Final = 100  # percent
_NONE: Final = timedelta()


class Metric(StrEnum):
    """What is promised, from which fact to which: see `RULES`."""

    ANSWER = "answer"
    FIRST_UPDATE = "first_update"
    REMOTE = "remote"
    OFFER = "offer"
    ARRIVAL = "arrival"
    RESOLUTION = "resolution"


class Kind(StrEnum):
    """What can happen to a ticket that its clocks must know."""

    OPENED = "opened"
    CONTACT_RECEIVED = "contact_received"
    ANSWERED = "answered"  # by a person: call picked up, call-back, personal reply
    UPDATED = "updated"  # the requester was told how it stands
    REMOTE_ASKED = "remote_asked"
    IN_SESSION = "in_session"
    DISPATCH_OFFERED = "dispatch_offered"
    DISPATCH_ACCEPTED = "dispatch_accepted"
    DISPATCH_DECLINED = "dispatch_declined"
    DISPATCH_CANCELLED = "dispatch_cancelled"  # nobody is sent any more
    DISPATCH_ARRIVED = "dispatch_arrived"
    PAUSED = "paused"
    RESUMED = "resumed"
    PRIORITY_CHANGED = "priority_changed"
    CONTRACT_CHANGED = "contract_changed"
    CALENDAR_CHANGED = "calendar_changed"
    RESOLVED = "resolved"
    REOPENED = "reopened"
    CLOSED = "closed"
    CANCELLED = "cancelled"


class State(StrEnum):
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"  # what was promised has happened
    CANCELLED = "cancelled"  # it is not wanted any more


class Breached(StrEnum):
    NO = "no"
    FOUND = "found"  # by what is known now; not recorded yet
    RECORDED = "recorded"
    STANDS = "recorded, would not be now"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """Something that happened to the ticket.

    `at` is when it happened, `entry` the place of the journal entry that says so, which also says
    who comes first of two at the same instant. One entry may tell several facts of different kinds.
    The other fields belong to the kinds that say so: `OPENED` needs `contract`, `priority` and
    `calendar`, a change what it changes, `PAUSED` its `reason`.
    """

    kind: Kind
    at: datetime
    entry: int
    reason: str = ""
    contract: str = ""
    priority: Priority | None = None
    calendar: str = ""  # the ticket's own, its site's


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is promised for one metric. `goal` is working time, `warnings` are percent of it."""

    goal: timedelta
    calendar: str = ""  # a calendar's key, or "" for the ticket's own
    warnings: tuple[int, ...] = (50, 75, 90)
    pausable: bool = False


Targets = Mapping[tuple[str, Priority], Mapping[Metric, Target]]  # by contract and priority
Calendars = Mapping[str, WorkingCalendar]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What a kind of fact means for which metrics.

    A pause is the ticket's: it holds for clocks that start later, too. Starting does nothing to a
    clock that has not stopped. Reopening goes on with the last clock of the metric; the time since
    it stopped counts as a pause. Retargeting looks up the target anew.
    """

    pauses: frozenset[Metric] = frozenset()
    resumes: frozenset[Metric] = frozenset()
    stops: frozenset[Metric] = frozenset()
    cancels: frozenset[Metric] = frozenset()
    starts: frozenset[Metric] = frozenset()
    reopens: frozenset[Metric] = frozenset()
    retargets: frozenset[Metric] = frozenset()


def _only(*metrics: Metric) -> frozenset[Metric]:
    return frozenset(metrics)


_ALL: Final = frozenset(Metric)
_PAUSABLE: Final = _ALL - {Metric.ANSWER}  # C1: never paused, whatever a target says

RULES: Final[Mapping[Kind, Rule]] = {
    Kind.OPENED: Rule(starts=_only(Metric.FIRST_UPDATE, Metric.RESOLUTION)),
    Kind.CONTACT_RECEIVED: Rule(starts=_only(Metric.ANSWER)),
    Kind.ANSWERED: Rule(stops=_only(Metric.ANSWER)),
    Kind.UPDATED: Rule(stops=_only(Metric.FIRST_UPDATE)),
    Kind.REMOTE_ASKED: Rule(starts=_only(Metric.REMOTE)),
    Kind.IN_SESSION: Rule(stops=_only(Metric.REMOTE)),
    # Offering it to the next person does not start the offer again (C3: it cannot be gamed).
    Kind.DISPATCH_OFFERED: Rule(starts=_only(Metric.OFFER)),
    Kind.DISPATCH_ACCEPTED: Rule(stops=_only(Metric.OFFER), starts=_only(Metric.ARRIVAL)),
    # Who accepted and now cannot come leaves it open to be accepted; the requester's promise runs.
    Kind.DISPATCH_DECLINED: Rule(starts=_only(Metric.OFFER)),
    Kind.DISPATCH_CANCELLED: Rule(cancels=_only(Metric.OFFER, Metric.ARRIVAL)),
    Kind.DISPATCH_ARRIVED: Rule(stops=_only(Metric.OFFER, Metric.ARRIVAL)),
    Kind.PAUSED: Rule(pauses=_PAUSABLE),
    Kind.RESUMED: Rule(resumes=_PAUSABLE),
    Kind.PRIORITY_CHANGED: Rule(retargets=_ALL),
    Kind.CONTRACT_CHANGED: Rule(retargets=_ALL),
    Kind.CALENDAR_CHANGED: Rule(retargets=_ALL),
    # That it is resolved does not answer whom nobody has spoken to.
    Kind.RESOLVED: Rule(
        resumes=_PAUSABLE,
        stops=_only(Metric.FIRST_UPDATE, Metric.RESOLUTION),
        cancels=_only(Metric.REMOTE, Metric.OFFER, Metric.ARRIVAL),
    ),
    Kind.REOPENED: Rule(resumes=_PAUSABLE, reopens=_only(Metric.RESOLUTION)),
    Kind.CLOSED: Rule(
        resumes=_PAUSABLE, stops=_only(Metric.RESOLUTION), cancels=_ALL - {Metric.RESOLUTION}
    ),
    Kind.CANCELLED: Rule(resumes=_PAUSABLE, cancels=_ALL),
}

_NEEDS: Final[Mapping[Kind, tuple[str, ...]]] = {
    Kind.OPENED: ("contract", "priority", "calendar"),
    Kind.PAUSED: ("reason",),
    Kind.PRIORITY_CHANGED: ("priority",),
    Kind.CONTRACT_CHANGED: ("contract",),
    Kind.CALENDAR_CHANGED: ("calendar",),
}
_ORDER: Final = {kind: place for place, kind in enumerate(Kind)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A part of a clock's life in which nothing changes; `end` None: it goes on.

    `reason` is the kind of the fact by which it runs, or why it is paused; `entry` says where that
    is written. `worked` is the working time counted: none while it is paused, or goes on.
    """

    start: datetime
    end: datetime | None
    running: bool
    reason: str
    entry: int
    goal: timedelta
    calendar: WorkingCalendar = field(repr=False)
    worked: timedelta = _NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """One promise. All instants are UTC.

    Attributes:
        entry: the journal entry that started it; with the metric it names the clock.
        target: the one that applies, or applied last, as it was when it began to apply.
        due_at: None while nobody can say: paused before the goal was spent.
        provisional: `due_at` rests on a calendar that is not confirmed.
        stopped_at: when it stopped or was cancelled, by the entry `stopped_by`.
        breached_at: the recorded instant if one is recorded.
        spent: working time of the segments that have ended.
        segments: share its life between them, without gap or overlap.
    """

    metric: Metric
    state: State
    entry: int
    target: Target
    started_at: datetime
    due_at: datetime | None
    provisional: bool
    stopped_at: datetime | None
    stopped_by: int | None
    breached_at: datetime | None
    breached: Breached
    spent: timedelta
    segments: tuple[Segment, ...]

    @property
    def goal(self) -> timedelta:
        return self.target.goal


@dataclass(frozen=True, slots=True, kw_only=True)
class Breach:
    """A breach as the journal keeps it, with what is needed should its clock be gone later."""

    metric: Metric
    entry: int  # of the clock
    at: datetime
    started_at: datetime
    target: Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of a clock's explanation; instants are in the reader's zone."""

    since: datetime
    until: datetime | None
    running: bool
    reason: str
    entry: int
    goal: timedelta
    calendar: str  # the calendar's name
    worked: timedelta
    total: timedelta  # worked up to here


# What is asked of a clock


def breach(clock: Clock, now: datetime) -> Breach | None:
    """Return the breach that must be recorded by `now`; None if none is, or it is recorded."""
    at = clock.breached_at
    if at is None and clock.state is State.RUNNING and clock.due_at and clock.due_at <= now:
        at = clock.due_at
    if at is None or clock.breached in (Breached.RECORDED, Breached.STANDS):
        return None
    return Breach(
        metric=clock.metric,
        entry=clock.entry,
        at=at,
        started_at=clock.started_at,
        target=clock.target,
    )


def alarms(clock: Clock) -> list[tuple[int, datetime]]:
    """Return when a clock that runs reaches each warning and (`DUE` percent) its goal.

    An instant may be past. It is that at which so much of the present goal was spent, so that a
    later pause does not move it. A clock that does not run has no alarms.
    """
    if clock.state is not State.RUNNING:
        return []
    percents = (*clock.target.warnings, DUE)
    levels = ((percent, list(_levels(clock.segments, percent))[-1]) for percent in percents)
    return [(percent, level.due.at) for percent, level in levels if level.due is not None]


def spent_at(clock: Clock, at: datetime) -> timedelta:
    """Return the working time spent by `at`, which is not before the last fact of the clock."""
    return clock.spent + sum((_so_far(part, at) for part in clock.segments[-1:]), _NONE)


def explain(clock: Clock, zone: tzinfo, *, at: datetime) -> list[Row]:
    """Return each interval of a clock's life as it stands at the instant `at`."""
    rows, total = [], _NONE
    for segment in clock.segments:
        worked = segment.worked + _so_far(segment, at)
        total += worked
        rows.append(
            Row(
                since=segment.start.astimezone(zone),
                until=segment.end.astimezone(zone) if segment.end else None,
                running=segment.running,
                reason=segment.reason,
                entry=segment.entry,
                goal=segment.goal,
                calendar=segment.calendar.name,
                worked=worked,
                total=total,
            )
        )
    return rows


def _so_far(segment: Segment, at: datetime) -> timedelta:
    """Return what a segment that goes on has counted by `at`."""
    if segment.end is not None or not segment.running or at <= segment.start:
        return _NONE
    return between(segment.calendar, segment.start, at)


# What is wrong with a table of targets


def problems(targets: Targets, calendars: Calendars) -> list[str]:
    """Return what is wrong with `targets`, one line each, beginning with the key."""
    return [
        line
        for terms, row in targets.items()
        for metric, target in row.items()
        for line in _wrong(terms, metric, target, calendars)
    ]


def _wrong(
    terms: tuple[str, Priority], metric: Metric, target: Target, calendars: Calendars
) -> Iterator[str]:
    key = f"targets.{terms[0]}.{terms[1]}.{metric}"
    if target.goal <= _NONE:
        yield f"{key}.goal: must be longer than 0"
    if target.calendar and target.calendar not in calendars:
        yield f"{key}.calendar: there is no calendar {target.calendar!r}"
    levels = (0, *target.warnings, DUE)
    if any(before >= after for before, after in pairwise(levels)):
        yield f"{key}.warnings: must rise between 1 and 99 percent"
    if target.pausable and metric not in _PAUSABLE:
        yield f"{key}.pausable: this clock can never be paused"


# From facts to clocks


def recompute(
    facts: Iterable[Fact],
    targets: Targets,
    calendars: Calendars,
    breaches: Iterable[Breach] = (),
) -> tuple[Clock, ...]:
    """Return every clock the ticket ever had, by start; in which order facts come is the same.

    A metric without a target has no clock; if it gets one while it is promised, its clock starts
    then, and if it loses it, the clock is cancelled. What is in `breaches` stays breached: by the
    clock it was recorded for, else by the one of its metric that was alive then, else by a
    cancelled clock without segments.

    Raises:
        ValueError: `facts` lack `OPENED` or what its kind needs, contradict each other or have
            instants without a zone; `targets` or `calendars` lack what is asked for, or a target
            is wrong. The text names the key.
        ConfigurationError: a calendar does not open long enough for a goal (see `calendars.add`).
    """
    ordered = _ordered(facts)
    if not ordered:
        return _kept([], breaches)
    opened = next((fact for fact in ordered if fact.kind is Kind.OPENED), None)
    if opened is None:
        raise ValueError("facts: none is opened")
    fold = _Fold(opened, targets, calendars)
    for fact in ordered:
        fold.take(fact)
    return _kept([_clock(life) for life in fold.ever], breaches)


def _ordered(facts: Iterable[Fact]) -> list[Fact]:
    known: dict[tuple[int, Kind], Fact] = {}
    for fact in set(facts):
        called = f"fact {fact.entry} ({fact.kind})"
        if fact.at.utcoffset() is None:
            raise ValueError(f"{called}: at has no zone")
        for name in _NEEDS.get(fact.kind, ()):
            if not getattr(fact, name):
                raise ValueError(f"{called}: {name} is missing")
        if known.setdefault((fact.entry, fact.kind), fact) != fact:
            raise ValueError(f"{called}: the entry says two different things")
    return sorted(known.values(), key=lambda fact: (fact.at, fact.entry, _ORDER[fact.kind]))


@dataclass(slots=True, kw_only=True)
class _Life:
    """A clock while it is being folded: what it was from when on, and how it ended."""

    metric: Metric
    entry: int
    target: Target
    marks: list[Segment]
    before: tuple[datetime, Target] | None = None  # the last change of target, and from which
    ended: Fact | None = None
    state: State = State.RUNNING

    def retarget(self, target: Target, at: datetime) -> None:
        if target != self.target and (self.before is None or self.before[0] != at):
            self.before = (at, self.target)
        self.target = target

    def end(self, fact: Fact, state: State) -> None:
        self.ended, self.state = fact, state
        # What changed in the very instant in which it ended was nothing to it any more.
        if lived := [mark for mark in self.marks if mark.start < fact.at]:
            self.marks = lived
            if self.before is not None and self.before[0] == fact.at:
                self.target = self.before[1]


class _Fold:
    """A ticket while its facts are being folded, one after the other."""

    def __init__(self, opened: Fact, targets: Targets, calendars: Calendars) -> None:
        # What the ticket was opened with applies to what came before it, too: a contact that was
        # found later, in the PBX's records.
        self._contract, self._priority = opened.contract, opened.priority
        self._calendar = opened.calendar
        self._targets, self._calendars = targets, calendars
        self._known: dict[Metric, tuple[Target, WorkingCalendar] | None] = {}
        self._pauses: dict[Metric, Fact] = {}
        self._promised: set[Metric] = set()
        self._last: dict[Metric, _Life] = {}
        self.ever: list[_Life] = []

    def take(self, fact: Fact) -> None:
        rule = RULES[fact.kind]
        if rule.retargets:
            self._contract = fact.contract or self._contract
            self._priority = fact.priority or self._priority
            self._calendar = fact.calendar or self._calendar
            self._known = {}
        for metric in rule.pauses:
            self._pauses[metric] = fact
        for metric in rule.resumes:
            self._pauses.pop(metric, None)
        for metric in rule.stops | rule.cancels:
            self._promised.discard(metric)
            self._end(metric, fact, State.STOPPED if metric in rule.stops else State.CANCELLED)
        for metric in (rule.starts | rule.reopens) - self._promised:
            self._promised.add(metric)
            self._begin(metric, fact, again=metric in rule.reopens)
        for metric in (rule.pauses | rule.resumes | rule.retargets) & self._promised:
            self._adjust(metric, fact)

    def _begin(self, metric: Metric, fact: Fact, *, again: bool) -> None:
        mark = self._mark(metric, fact)
        if mark is None:
            return
        target, segment = mark
        life = self._last.get(metric) if again else None
        if life is None or life.ended is None:
            life = _Life(metric=metric, entry=fact.entry, target=target, marks=[])
            self._last[metric] = life
            self.ever.append(life)
        else:
            rest = replace(
                life.marks[-1],
                start=life.ended.at.astimezone(UTC),
                running=False,
                reason=life.ended.kind.value,
                entry=life.ended.entry,
            )
            life.marks.append(rest)
            life.ended, life.state = None, State.RUNNING
        life.retarget(target, fact.at)
        life.marks.append(segment)

    def _end(self, metric: Metric, fact: Fact, state: State) -> None:
        life = self._last.get(metric)
        if life is not None and life.ended is None:
            life.end(fact, state)

    def _adjust(self, metric: Metric, fact: Fact) -> None:
        """Pause, resume or retarget the clock of a metric that is promised, if that is a change."""
        mark, life = self._mark(metric, fact), self._last.get(metric)
        if life is None or life.ended is not None:
            self._begin(metric, fact, again=False)  # it had no target so far
        elif mark is None:
            self._end(metric, fact, State.CANCELLED)
        else:
            target, segment = mark
            life.retarget(target, fact.at)
            if _differ(life.marks[-1], segment):
                life.marks.append(segment)

    def _mark(self, metric: Metric, fact: Fact) -> tuple[Target, Segment] | None:
        """Return the target of `metric` from `fact` on, and how its clock goes on from there."""
        if metric not in self._known:
            self._known[metric] = self._look_up(metric)
        known = self._known[metric]
        if known is None:
            return None
        target, calendar = known
        pause = self._pauses.get(metric) if target.pausable else None
        segment = Segment(
            start=fact.at.astimezone(UTC),
            end=None,
            running=pause is None,
            reason=pause.reason if pause else fact.kind.value,
            entry=pause.entry if pause else fact.entry,
            goal=target.goal,
            calendar=calendar,
        )
        return target, segment

    def _look_up(self, metric: Metric) -> tuple[Target, WorkingCalendar] | None:
        contract, priority = self._contract, self._priority
        if priority is None or (contract, priority) not in self._targets:
            raise ValueError(f"targets: none for contract {contract!r} and priority {priority}")
        target = self._targets[contract, priority].get(metric)
        if target is None:
            return None
        if wrong := list(_wrong((contract, priority), metric, target, self._calendars)):
            raise ValueError("\n".join(wrong))
        name = target.calendar or self._calendar
        if name not in self._calendars:
            raise ValueError(f"calendars: there is no calendar {name!r}")
        return target, self._calendars[name]


def _differ(one: Segment, other: Segment) -> bool:
    """Tell whether a clock goes on otherwise than it did."""
    if (one.running, one.goal, one.calendar) != (other.running, other.goal, other.calendar):
        return True
    return not one.running and (one.reason, one.entry) != (other.reason, other.entry)


def _clock(life: _Life) -> Clock:
    segments = _segments(life)
    levels = list(_levels(segments, DUE))
    due, breached_at = levels[-1].due, _overrun(levels)
    return Clock(
        metric=life.metric,
        state=life.state if life.ended or segments[-1].running else State.PAUSED,
        entry=life.entry,
        target=life.target,
        started_at=segments[0].start,
        due_at=due.at if due else None,
        provisional=due is not None and due.provisional,
        stopped_at=segments[-1].end,
        stopped_by=life.ended.entry if life.ended else None,
        breached_at=breached_at,
        breached=Breached.FOUND if breached_at else Breached.NO,
        spent=sum((segment.worked for segment in segments), _NONE),
        segments=segments,
    )


def _segments(life: _Life) -> tuple[Segment, ...]:
    last = life.ended.at.astimezone(UTC) if life.ended else None
    ends = [*(mark.start for mark in life.marks[1:]), last]
    pieces = list(zip(life.marks, ends, strict=True))
    # Of what happened at one instant the last counts; a life of one instant has one segment.
    pieces = [(mark, end) for mark, end in pieces if mark.start != end] or pieces[-1:]
    return tuple(_piece(mark, end) for mark, end in pieces)


def _piece(mark: Segment, end: datetime | None) -> Segment:
    if end is None:
        return mark
    worked = between(mark.calendar, mark.start, end) if mark.running and end > mark.start else _NONE
    return replace(mark, end=end, worked=worked)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Level:
    """How far a clock was when a segment began, and when it reaches what is asked."""

    segment: Segment
    spent: timedelta
    due: Due | None  # None as long as it is not reached; the last one says when it would be


def _levels(segments: tuple[Segment, ...], percent: int) -> Iterator[_Level]:
    """Return for each segment when `percent` of its goal is spent, as far as it can say."""
    spent, wanted, due = _NONE, _NONE, None
    for place, segment in enumerate(segments, start=1):
        if wanted != (wanted := segment.goal * percent / 100):
            due = Due(at=segment.start, provisional=False) if spent >= wanted else None
        reached = spent + segment.worked >= wanted or place == len(segments)
        if due is None and segment.running and reached:
            due = add(segment.calendar, segment.start, wanted - spent)
        yield _Level(segment=segment, spent=spent, due=due)
        spent += segment.worked


def _overrun(levels: Iterable[_Level]) -> datetime | None:
    """Return the first due instant after which the clock ran on, in segments that have ended."""
    for level in levels:
        if level.due is None:
            continue
        end = level.segment.end
        ran_on = level.segment.running and end is not None and end > level.due.at
        if ran_on or level.spent > level.segment.goal:
            return level.due.at
    return None


# Breaches stay


def _kept(clocks: list[Clock], breaches: Iterable[Breach]) -> tuple[Clock, ...]:
    """Return `clocks` with the recorded breaches, each clock with the first of its own."""
    for known in sorted(set(breaches), key=lambda known: (known.at, known.metric, known.entry)):
        place = _place(clocks, known)
        if place is None:
            clocks.append(_remembered(known))
        elif clocks[place].breached in (Breached.NO, Breached.FOUND):
            clocks[place] = _recorded(clocks[place], known)
    return tuple(sorted(clocks, key=lambda clock: (clock.started_at, clock.entry, clock.metric)))


def _place(clocks: list[Clock], known: Breach) -> int | None:
    mine = [(n, clock) for n, clock in enumerate(clocks) if clock.metric is known.metric]
    named = (n for n, clock in mine if clock.entry == known.entry)
    alive = (
        n
        for n, clock in mine
        if clock.started_at <= known.at and (not clock.stopped_at or known.at <= clock.stopped_at)
    )
    return next(named, next(alive, None))


def _recorded(clock: Clock, known: Breach) -> Clock:
    overdue = clock.state is State.RUNNING and clock.due_at is not None and clock.due_at <= known.at
    shown = overdue or clock.breached is Breached.FOUND
    return replace(
        clock,
        breached_at=known.at.astimezone(UTC),
        breached=Breached.RECORDED if shown else Breached.STANDS,
    )


def _remembered(known: Breach) -> Clock:
    """Return a clock for a breach whose own clock is gone by what is known now."""
    started_at = known.started_at.astimezone(UTC)
    return Clock(
        metric=known.metric,
        state=State.CANCELLED,
        entry=known.entry,
        target=known.target,
        started_at=started_at,
        due_at=None,
        provisional=False,
        stopped_at=started_at,
        stopped_by=None,
        breached_at=known.at.astimezone(UTC),
        breached=Breached.STANDS,
        spent=_NONE,
        segments=(),
    )
