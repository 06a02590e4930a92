"""What the entries of a ticket's journal mean for its clocks, and what is promised (pure).

Until contracts and calendars are configured there is one contract, and its time runs always.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from contactd.routing.calendars import ALWAYS
from contactd.routing.clocks import (
    Clock,
    Fact,
    Kind,
    Metric,
    Target,
    Targets,
    breach,
    recompute,
)
from contactd.tickets.journal import Entry
from contactd.tickets.priority import Priority

CONTRACT: Final = "standard"


def targets(*, answer: timedelta, remote: timedelta) -> Targets:
    """Return the contract's promises that can be timed so far, the same for every priority."""
    promised = {
        Metric.ANSWER: Target(goal=answer),
        Metric.REMOTE: Target(goal=remote, pausable=True),
    }
    return {(CONTRACT, priority): promised for priority in Priority}


def clocks(journal: Iterable[Entry], promised: Targets) -> tuple[Clock, ...]:
    """Return the clocks of a ticket with this journal, the whole of it, in its order."""
    return recompute(facts(journal), promised, {ALWAYS.name: ALWAYS})


def breached_at(clock: Clock, now: datetime) -> datetime | None:
    """Return when the promise was broken, as far as that is known at `now`."""
    found = breach(clock, now)
    return found.at if found else clock.breached_at


def facts(journal: Iterable[Entry]) -> list[Fact]:
    """Return what the entries say happened.

    A contact that was separated belongs to another ticket, with everything that was noted of it.
    """
    entries = list(journal)
    gone = {entry.body["contact"] for entry in entries if entry.action == "ticket.separated"}
    return [
        fact
        for entry in entries
        for fact in _MEANING.get(entry.action, _nothing)(entry)
        if fact.kind not in _OF_A_CONTACT or entry.body["contact"] not in gone
    ]


_OF_A_CONTACT: Final = frozenset({Kind.CONTACT_RECEIVED, Kind.ANSWERED})


def _nothing(_entry: Entry) -> Iterator[Fact]:
    return iter(())


def _opened(entry: Entry) -> Iterator[Fact]:
    yield Fact(
        kind=Kind.OPENED,
        at=_instant(entry.body, "received_at"),
        entry=entry.seq,
        contract=CONTRACT,
        priority=Priority(entry.body["priority"]),
        calendar=ALWAYS.name,
    )
    yield from _received(entry)


def _received(entry: Entry) -> Iterator[Fact]:
    at = _instant(entry.body, "received_at")
    yield Fact(kind=Kind.CONTACT_RECEIVED, at=at, entry=entry.seq)


def _answered(entry: Entry) -> Iterator[Fact]:
    yield Fact(kind=Kind.ANSWERED, at=_instant(entry.body, "answered_at"), entry=entry.seq)


def _held(entry: Entry) -> Iterator[Fact]:
    reason = str(entry.body.get("note", "")) or "pending"
    yield Fact(kind=Kind.PAUSED, at=entry.at, entry=entry.seq, reason=reason)


def _said(kind: Kind) -> Callable[[Entry], Iterator[Fact]]:
    def said(entry: Entry) -> Iterator[Fact]:
        yield Fact(kind=kind, at=entry.at, entry=entry.seq)

    return said


# That somebody has taken the ticket is not yet an answer: nobody has spoken to the requester (C1).
_MEANING: Final[Mapping[str, Callable[[Entry], Iterator[Fact]]]] = {
    "opened": _opened,
    "contact.added": _received,
    "call.answered": _answered,
    "held": _held,
    "resumed": _said(Kind.RESUMED),
    "resolved": _said(Kind.RESOLVED),
    "reopened": _said(Kind.REOPENED),
    "closed": _said(Kind.CLOSED),
    "cancelled": _said(Kind.CANCELLED),
}


def _instant(body: Mapping[str, Any], key: str) -> datetime:
    return datetime.fromisoformat(body[key])
