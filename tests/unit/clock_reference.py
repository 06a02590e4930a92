"""The clocks of a ticket once more, second by second: nothing is computed as an interval.

It shares values with `clocks.py`, but neither the table of rules nor any arithmetic: each second
the facts of that second are applied, then every clock that runs while its calendar is open has
spent one second more. Instants are whole seconds from `zero`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from contactd.routing.clocks import Fact, Kind, Metric, Target, Targets
from contactd.tickets.priority import Priority

PERCENTS = (50, 75, 90, 100)
IsOpen = Callable[[str, int], bool]  # a calendar's key and a second


@dataclass(kw_only=True)
class Label:
    """What a clock is in one second."""

    running: bool
    reason: str
    entry: int
    goal: int
    calendar: str

    def condition(self) -> tuple[object, ...]:
        why = () if self.running else (self.reason, self.entry)
        return (self.running, self.goal, self.calendar, *why)


@dataclass(kw_only=True)
class Seen:
    """A clock as it was seen; `due` None: not within the seconds looked at."""

    metric: Metric
    entry: int
    started: int
    label: Label
    lived: Label | None = None  # in the last second that it had
    labels: list[Label] = field(default_factory=list)  # of each second of its life
    gone: list[Label] = field(default_factory=list)  # of each second since it stopped
    stopped: int | None = None
    stopped_by: Fact | None = None
    cancelled: bool = False
    goal: int = 0
    spent: int = 0
    at_now: int = 0  # spent by now
    reached: dict[int, int] = field(default_factory=dict)  # percent -> second
    breached: int | None = None


@dataclass(kw_only=True)
class Terms:
    contract: str
    priority: Priority
    calendar: str

    def target(self, targets: Targets, metric: Metric) -> Target | None:
        return targets[self.contract, self.priority].get(metric)


def begins(metric: Metric, kind: Kind) -> bool:
    match metric:
        case Metric.ANSWER:
            return kind is Kind.CONTACT_RECEIVED
        case Metric.REMOTE:
            return kind is Kind.REMOTE_ASKED
        case Metric.OFFER:
            return kind in (Kind.DISPATCH_OFFERED, Kind.DISPATCH_DECLINED)
        case Metric.ARRIVAL:
            return kind is Kind.DISPATCH_ACCEPTED
        case Metric.FIRST_UPDATE | Metric.RESOLUTION:
            return kind is Kind.OPENED


def ends(metric: Metric, kind: Kind) -> str:
    """Return "kept", "void", or "" if the promise goes on."""
    kept: dict[Metric, set[Kind]] = {
        Metric.ANSWER: {Kind.ANSWERED},
        Metric.FIRST_UPDATE: {Kind.UPDATED, Kind.RESOLVED},
        Metric.REMOTE: {Kind.IN_SESSION},
        Metric.OFFER: {Kind.DISPATCH_ACCEPTED, Kind.DISPATCH_ARRIVED},
        Metric.ARRIVAL: {Kind.DISPATCH_ARRIVED},
        Metric.RESOLUTION: {Kind.RESOLVED, Kind.CLOSED},
    }
    if kind in kept[metric]:
        return "kept"
    if kind in (Kind.CLOSED, Kind.CANCELLED):
        return "void"
    if kind is Kind.DISPATCH_CANCELLED:
        return "void" if metric in (Metric.OFFER, Metric.ARRIVAL) else ""
    return "void" if kind is Kind.RESOLVED and metric is not Metric.ANSWER else ""


def watch(
    facts: Iterable[Fact], targets: Targets, is_open: IsOpen, *, zero: datetime, now: int, end: int
) -> list[Seen]:
    """Return every clock, watched from second 0 to `end`; a breach counts up to `now`."""
    ordered = sorted(facts, key=lambda fact: (fact.at, fact.entry))
    at: dict[int, list[Fact]] = {}
    for fact in ordered:
        at.setdefault((fact.at - zero) // timedelta(seconds=1), []).append(fact)
    opened = next(fact for fact in ordered if fact.kind is Kind.OPENED)
    assert opened.priority is not None
    seen: list[Seen] = []
    for metric in Metric:
        terms = Terms(contract=opened.contract, priority=opened.priority, calendar=opened.calendar)
        seen += Watcher(metric, targets, terms).watch(at, is_open, now, end)
    return seen


class Watcher:
    """Somebody who looks at one metric all the time."""

    def __init__(self, metric: Metric, targets: Targets, terms: Terms) -> None:
        self.metric, self.targets, self.terms = metric, targets, terms
        self.promised = False
        self.pause: Fact | None = None
        self.seen: list[Seen] = []
        self.current: Seen | None = None

    def watch(self, at: dict[int, list[Fact]], is_open: IsOpen, now: int, end: int) -> list[Seen]:
        for second in range(end):
            for fact in at.get(second, ()):
                self.hear(fact, second)
            clock = self.current
            if clock is not None:
                clock.lived = clock.label
                self.look(clock, second, second <= now)
                if clock.label.running and is_open(clock.label.calendar, second):
                    clock.spent += 1
                if second < now:
                    clock.labels.append(clock.label)
                    clock.at_now = clock.spent
            if self.seen and self.current is None and second < now:
                last = self.seen[-1]
                assert last.stopped_by is not None
                last.gone.append(
                    Label(
                        running=False,
                        reason=last.stopped_by.kind.value,
                        entry=last.stopped_by.entry,
                        goal=last.label.goal,
                        calendar=last.label.calendar,
                    )
                )
        return self.seen

    def look(self, clock: Seen, second: int, counts: bool) -> None:
        if clock.goal != clock.label.goal:
            clock.goal, clock.reached = clock.label.goal, {}
        self.note(clock, second)
        over = clock.spent > clock.goal or (clock.spent == clock.goal and clock.label.running)
        if over and counts and clock.breached is None:
            clock.breached = clock.reached[100]

    def note(self, clock: Seen, second: int) -> None:
        for percent in PERCENTS:
            if clock.spent * 100 >= clock.goal * percent:
                clock.reached.setdefault(percent, second)

    def hear(self, fact: Fact, second: int) -> None:
        if fact.kind in (Kind.PRIORITY_CHANGED, Kind.CONTRACT_CHANGED, Kind.CALENDAR_CHANGED):
            self.terms.contract = fact.contract or self.terms.contract
            self.terms.priority = fact.priority or self.terms.priority
            self.terms.calendar = fact.calendar or self.terms.calendar
        if fact.kind is Kind.PAUSED:
            self.pause = fact
        elif fact.kind in (
            Kind.RESUMED, Kind.RESOLVED, Kind.REOPENED, Kind.CLOSED, Kind.CANCELLED
        ):  # fmt: skip
            self.pause = None
        how = ends(self.metric, fact.kind)
        if how:
            self.promised = False
            self.stop(fact, second, cancelled=how == "void")
        if begins(self.metric, fact.kind) and not self.promised:
            self.promised = True
            self.start(fact, second)
        elif self.metric is Metric.RESOLUTION and fact.kind is Kind.REOPENED and not self.promised:
            self.promised = True
            self.go_on(fact, second)
        elif self.promised and not how:
            self.compare(fact, second)

    def label(self, fact: Fact) -> Label | None:
        target = self.terms.target(self.targets, self.metric)
        if target is None:
            return None
        paused = self.pause if target.pausable and self.metric is not Metric.ANSWER else None
        return Label(
            running=paused is None,
            reason=paused.reason if paused else fact.kind.value,
            entry=paused.entry if paused else fact.entry,
            goal=target.goal // timedelta(seconds=1),
            calendar=target.calendar or self.terms.calendar,
        )

    def start(self, fact: Fact, second: int) -> None:
        label = self.label(fact)
        if label is not None:
            self.current = Seen(
                metric=self.metric, entry=fact.entry, started=second, label=label, goal=label.goal
            )
            self.seen.append(self.current)

    def stop(self, fact: Fact, second: int, *, cancelled: bool) -> None:
        clock = self.current
        if clock is None:
            return
        # What changed in the very second in which it stopped was nothing to it any more.
        clock.label = clock.lived or clock.label
        self.note(clock, second)
        clock.stopped, clock.stopped_by, clock.cancelled = second, fact, cancelled
        clock.gone = []
        self.current = None

    def go_on(self, fact: Fact, second: int) -> None:
        label = self.label(fact)
        if label is None:
            return
        if not self.seen:
            self.start(fact, second)
            return
        clock = self.current = self.seen[-1]
        clock.labels += clock.gone
        clock.stopped, clock.stopped_by, clock.label = None, None, label

    def compare(self, fact: Fact, second: int) -> None:
        label = self.label(fact)
        if self.current is None:
            if label is not None:
                self.start(fact, second)
        elif label is None:
            self.stop(fact, second, cancelled=True)
        elif label.condition() != self.current.label.condition():
            self.current.label = label
