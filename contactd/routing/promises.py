"""What the entries of a ticket's journal mean for its clocks, and what must be recorded (pure).

How it is meant to be used, in one transaction with what changes the ticket, and again whenever
`next_look` says so: `clocks`, then write what `news` finds to the journal, store a `clock_row` for
each clock, and arm one timer for `next_look`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from contactd.routing.clocks import (
    DUE,
    Breach,
    Breached,
    Clock,
    Fact,
    Kind,
    Metric,
    Segment,
    Target,
    alarms,
    breach,
    recompute,
)
from contactd.routing.needs import REPLY_HEARD, asks_nobody
from contactd.routing.terms import Terms
from contactd.tickets.journal import Entry, instant_text
from contactd.tickets.model import CALENDAR, CONTRACT, RATED
from contactd.tickets.priority import Priority

BREACHED: Final = "clock.breached"
WARNED: Final = "clock.warned"
LATE: Final = "late"  # in the body of what was reached together with something worse

Clocks = tuple[Clock, ...]


def clocks(journal: Iterable[Entry], terms: Terms) -> Clocks:
    """Return the clocks of a ticket with this journal, the whole of it, in its order.

    A change to a contract or calendar that there is not changes nothing; a ticket that was opened
    with one has the built-in one.
    """
    entries = list(journal)
    told = (_possible(fact, terms) for fact in facts(entries))
    possible = [fact for fact in told if fact is not None]
    return recompute(possible, terms.targets, terms.calendars, breaches(entries))


def _possible(fact: Fact, terms: Terms) -> Fact | None:
    no_contract = bool(fact.contract) and (fact.contract, Priority.P1) not in terms.targets
    no_calendar = bool(fact.calendar) and fact.calendar not in terms.calendars
    if not (no_contract or no_calendar):
        return fact
    if fact.kind is not Kind.OPENED:
        return None
    return Fact(
        kind=fact.kind,
        at=fact.at,
        entry=fact.entry,
        contract=CONTRACT if no_contract else fact.contract,
        priority=fact.priority,
        calendar=CALENDAR if no_calendar else fact.calendar,
    )


def breached_at(clock: Clock, now: datetime) -> datetime | None:
    """Return when the promise was broken, as far as that is known at `now`."""
    found = breach(clock, now)
    return found.at if found else clock.breached_at


# What must be recorded, and when to look again


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """An entry for the journal, and whether somebody should hear of it.

    Of what a clock has reached meanwhile, only the worst is worth telling: `acts`. The others
    have `LATE` in their body.
    """

    action: str
    metric: Metric
    percent: int  # `DUE` for a breach
    at: datetime  # when it was reached, not when it was found
    due_at: datetime | None
    acts: bool
    body: Mapping[str, Any]


def news(journal: Iterable[Entry], clocks: Iterable[Clock], now: datetime) -> list[News]:
    """Return the breaches and warnings that were reached by `now` and are not recorded.

    `clocks` are those of this journal. A clock whose breach is recorded warns no more.
    """
    known = warned(journal)
    return [each for clock in clocks for each in _news(clock, known, now)]


def _news(clock: Clock, known: frozenset["Warned"], now: datetime) -> Iterator[News]:
    broken = breach(clock, now)
    coming = _coming(clock, known)
    reached = [(percent, at) for percent, at in coming if percent != DUE and at <= now]
    for place, (percent, at) in enumerate(reached, start=1):
        acts = broken is None and place == len(reached)
        yield News(
            action=WARNED,
            metric=clock.metric,
            percent=percent,
            at=at,
            due_at=clock.due_at,
            acts=acts,
            body={**_warned_body(clock, percent), "at": instant_text(at), **_late(acts)},
        )
    if broken is not None:
        yield News(
            action=BREACHED,
            metric=clock.metric,
            percent=DUE,
            at=broken.at,
            due_at=clock.due_at,
            acts=True,
            body=breach_body(broken),
        )


def _late(acts: bool) -> dict[str, bool]:
    return {} if acts else {LATE: True}


def _coming(clock: Clock, known: frozenset["Warned"]) -> list[tuple[int, datetime]]:
    """Return the alarms of a clock that were not recorded, in their order."""
    if clock.breached in (Breached.RECORDED, Breached.STANDS):
        return []
    return [(percent, at) for percent, at in alarms(clock) if _warning(clock, percent) not in known]


def next_look(clocks: Iterable[Clock], journal: Iterable[Entry], now: datetime) -> datetime | None:
    """Return the first instant after `now` at which a clock, as it runs now, has news."""
    known = warned(journal)
    return min(
        (at for clock in clocks for _, at in _coming(clock, known) if at > now), default=None
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """What a warning is known by: a clock that gets another goal warns of that one, too."""

    metric: Metric
    entry: int
    goal: timedelta
    percent: int


def _warning(clock: Clock, percent: int) -> Warned:
    return Warned(metric=clock.metric, entry=clock.entry, goal=clock.goal, percent=percent)


def _warned_body(clock: Clock, percent: int) -> dict[str, Any]:
    return {
        "metric": clock.metric.value,
        "entry": clock.entry,
        "goal_s": _seconds(clock.goal),
        "percent": percent,
    }


def warned(journal: Iterable[Entry]) -> frozenset[Warned]:
    """Return the warnings that are recorded."""
    return frozenset(
        Warned(
            metric=Metric(entry.body["metric"]),
            entry=entry.body["entry"],
            goal=timedelta(seconds=entry.body["goal_s"]),
            percent=entry.body["percent"],
        )
        for entry in journal
        if entry.action == WARNED
    )


def breaches(journal: Iterable[Entry]) -> list[Breach]:
    """Return the breaches that are recorded."""
    return [breach_of(entry.body) for entry in journal if entry.action == BREACHED]


def breach_body(found: Breach) -> dict[str, Any]:
    """Return a breach as its entry keeps it: whole, should its clock be gone later."""
    target = found.target
    return {
        "metric": found.metric.value,
        "entry": found.entry,
        "at": instant_text(found.at),
        "started_at": instant_text(found.started_at),
        "goal_s": _seconds(target.goal),
        "calendar": target.calendar,
        "warnings": list(target.warnings),
        "pausable": target.pausable,
    }


def breach_of(body: Mapping[str, Any]) -> Breach:
    """Return the breach that an entry with this body keeps."""
    return Breach(
        metric=Metric(body["metric"]),
        entry=body["entry"],
        at=_instant(body, "at"),
        started_at=_instant(body, "started_at"),
        target=Target(
            goal=timedelta(seconds=body["goal_s"]),
            calendar=body["calendar"],
            warnings=tuple(body["warnings"]),
            pausable=body["pausable"],
        ),
    )


def clock_row(clock: Clock) -> dict[str, Any]:
    """Return a clock as its row in the table `clocks`, without the ticket's id."""
    return {
        "metric": clock.metric.value,
        "entry": clock.entry,
        "state": clock.state.value,
        "goal_s": _seconds(clock.goal),
        "started_at": clock.started_at,
        "due_at": clock.due_at,
        "provisional": clock.provisional,
        "stopped_at": clock.stopped_at,
        "breached_at": clock.breached_at,
        "segments": [_segment_row(segment) for segment in clock.segments],
    }


def _segment_row(segment: Segment) -> dict[str, Any]:
    return {
        "start": instant_text(segment.start),
        "end": instant_text(segment.end) if segment.end else None,
        "running": segment.running,
        "reason": segment.reason,
        "entry": segment.entry,
        "goal_s": _seconds(segment.goal),
        "calendar": segment.calendar.name,
        "worked_s": _seconds(segment.worked),
    }


def _seconds(length: timedelta) -> int:
    return round(length.total_seconds())


# What the entries say


def facts(journal: Iterable[Entry]) -> list[Fact]:
    """Return what the entries say happened.

    A contact that was separated belongs to another ticket, with everything that was noted of it;
    a reply that we have done ourselves, or a mark, waits for nobody.
    While somebody else is still sent, that one engineer declines or is called back changes nothing.
    """
    entries = list(journal)
    gone = {entry.body["contact"] for entry in entries if entry.action in _SETTLED}
    sent = _Sent()
    return [
        fact
        for entry in entries
        if sent.matters(entry)
        for fact in _MEANING.get(entry.action, _nothing)(entry)
        if fact.kind not in _OF_A_CONTACT or entry.body.get("contact", "") not in gone
    ]


_SETTLED: Final = frozenset({"ticket.separated", RATED, REPLY_HEARD})
_OF_A_CONTACT: Final = frozenset({Kind.CONTACT_RECEIVED, Kind.ANSWERED})


@dataclass(slots=True, kw_only=True)
class _Sent:
    """The dispatches that are not over, by number."""

    numbers: set[Any] = field(default_factory=set)

    def matters(self, entry: Entry) -> bool:
        """Take in `entry`, and tell whether its meaning for the clocks holds."""
        number = entry.body.get("dispatch")
        if entry.action == "dispatch.offered":
            self.numbers.add(number)
        if entry.action not in _BACK:
            return True
        self.numbers.discard(number)
        return not self.numbers


_BACK: Final = frozenset({"dispatch.declined", "dispatch.cancelled", "dispatch.done"})

Meaning = Callable[[Entry], Iterator[Fact]]


def _nothing(_entry: Entry) -> Iterator[Fact]:
    return iter(())


def _opened(entry: Entry) -> Iterator[Fact]:
    yield Fact(
        kind=Kind.OPENED,
        at=_instant(entry.body, "received_at"),
        entry=entry.seq,
        contract=entry.body.get("contract") or CONTRACT,
        priority=Priority(entry.body["priority"]),
        calendar=entry.body.get("calendar") or CALENDAR,
    )
    yield from _received(entry)


def _received(entry: Entry) -> Iterator[Fact]:
    if asks_nobody(entry):
        return
    at = _instant(entry.body, "received_at")
    yield Fact(kind=Kind.CONTACT_RECEIVED, at=at, entry=entry.seq)


def _answered(entry: Entry) -> Iterator[Fact]:
    yield Fact(kind=Kind.ANSWERED, at=_instant(entry.body, "answered_at"), entry=entry.seq)


def _held(entry: Entry) -> Iterator[Fact]:
    said = (str(entry.body.get(key) or "") for key in ("reason", "note"))
    reason = next(filter(None, said), "pending")
    yield Fact(kind=Kind.PAUSED, at=_when(entry), entry=entry.seq, reason=reason)


def _prioritised(entry: Entry) -> Iterator[Fact]:
    priority = Priority(entry.body["priority"])
    yield Fact(kind=Kind.PRIORITY_CHANGED, at=_when(entry), entry=entry.seq, priority=priority)


def _contracted(entry: Entry) -> Iterator[Fact]:
    contract = entry.body["contract"] or CONTRACT
    yield Fact(kind=Kind.CONTRACT_CHANGED, at=_when(entry), entry=entry.seq, contract=contract)


def _scheduled(entry: Entry) -> Iterator[Fact]:
    calendar = entry.body["calendar"] or CALENDAR
    yield Fact(kind=Kind.CALENDAR_CHANGED, at=_when(entry), entry=entry.seq, calendar=calendar)


def _said(kind: Kind) -> Meaning:
    def said(entry: Entry) -> Iterator[Fact]:
        yield Fact(kind=kind, at=_when(entry), entry=entry.seq)

    return said


WRITTEN_TO: Final = "requester.written_to"  # somebody of the desk did: body medium, note

# That somebody has taken the ticket is not yet an answer: nobody has spoken to the requester (C1).
_MEANING: Final[Mapping[str, Meaning]] = {
    "opened": _opened,
    "contact.added": _received,
    "call.answered": _answered,
    "answered": _answered,
    "updated": _said(Kind.UPDATED),
    WRITTEN_TO: _said(Kind.UPDATED),
    "remote.asked": _said(Kind.REMOTE_ASKED),
    "remote.started": _said(Kind.IN_SESSION),
    "dispatch.offered": _said(Kind.DISPATCH_OFFERED),
    "dispatch.accepted": _said(Kind.DISPATCH_ACCEPTED),
    "dispatch.declined": _said(Kind.DISPATCH_DECLINED),
    "dispatch.cancelled": _said(Kind.DISPATCH_CANCELLED),
    "dispatch.arrived": _said(Kind.DISPATCH_ARRIVED),
    "held": _held,
    "resumed": _said(Kind.RESUMED),
    "priority.changed": _prioritised,
    "contract.changed": _contracted,
    "calendar.changed": _scheduled,
    "resolved": _said(Kind.RESOLVED),
    "reopened": _said(Kind.REOPENED),
    "closed": _said(Kind.CLOSED),
    "cancelled": _said(Kind.CANCELLED),
}


def _when(entry: Entry) -> datetime:
    """Return when it happened: an entry that was written later says so."""
    return _instant(entry.body, "at") if "at" in entry.body else entry.at


def _instant(body: Mapping[str, Any], key: str) -> datetime:
    return datetime.fromisoformat(body[key])
