"""What the status page shows, as one frozen value, and who brings it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from typing import Protocol

from contactd.routing.oncall import Why
from contactd.store.boardviews import (
    BreachedCount,
    Figures,
    IntakeCount,
    OpenCount,
    Risk,
    StateCount,
)
from contactd.tickets.contact import Medium
from contactd.tickets.priority import Priority
from contactd.tickets.states import State


class CallStage(StrEnum):
    """Where a call is, from the caller's side."""

    RINGING = "ringing"  # the PBX has not answered yet
    GREETING = "greeting"  # consent notice, greeting, menu
    QUEUED = "queued"
    OFFERED = "offered"  # an engineer's phone rings, or has been asked for a key
    TALKING = "talking"
    VOICEMAIL = "voicemail"


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveCall:
    """One call now. `caller` and `name` are as the network gave them: the page masks them."""

    call_id: str
    stage: CallStage
    since: datetime  # when this stage began
    arrived_at: datetime  # when the call began
    caller: str = ""  # "" when withheld
    name: str = ""
    site: str = ""  # site key, "" when unknown
    ticket: str = ""
    engineer: str = ""  # name of whom it is offered to or who talks
    queue: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardSite:
    key: str
    name_zh: str
    name_en: str
    queue: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardDuty:
    """One person on duty, now or next."""

    site: str
    tier: int
    engineer: str  # name
    why: Why
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardTicket:
    number: str
    opened_at: datetime
    caller: str  # number or address, unmasked
    site: str
    state: State
    priority: Priority
    engineer: str = ""  # name, "" when nobody has it
    title: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardTickets:
    """Tickets of today, in the service's time zone, and open ones. `latest`: the newest first."""

    counts: tuple[StateCount, ...] = ()  # opened today
    open: tuple[OpenCount, ...] = ()  # whenever they were opened
    intake: tuple[IntakeCount, ...] = ()  # contacts of today
    latest: tuple[BoardTicket, ...] = ()

    @property
    def states(self) -> Mapping[State, int]:
        """How many tickets opened today are in each state by now."""
        found = dict.fromkeys(State, 0)
        for each in self.counts:
            found[each.state] += each.count
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardLedger:
    """One day of one source: what the outside says came in, and what contactd has."""

    day: date
    medium: Medium
    source: str  # the PBX's name
    outside: int
    contacts: int
    missing: int  # known outside only
    extra: int  # known to contactd only
    repaired: int  # that only the replay brought

    @property
    def balanced(self) -> bool:
        return self.missing == 0 and self.extra == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardSnapshot:
    at: datetime
    sites: tuple[BoardSite, ...] = ()
    calls: tuple[LiveCall, ...] = ()
    duties: tuple[BoardDuty, ...] = ()  # now
    next_duties: tuple[BoardDuty, ...] = ()
    tickets: BoardTickets = field(default_factory=BoardTickets)
    ledger: tuple[BoardLedger, ...] = ()  # today and the six days before it
    risks: tuple[Risk, ...] = ()  # the longest breached first, then what breaches next
    breached: tuple[BreachedCount, ...] = ()  # all that are, also those that `risks` leaves out
    usual: tuple[IntakeCount, ...] = ()  # an average day like this one
    figures: Figures | None = field(default_factory=Figures)  # a minute old; None: not counted yet


class Board(Protocol):
    async def snapshot(self) -> BoardSnapshot:
        """Return what there is to see now.

        Raises:
            TemporaryFailure: the database is away; the page says so and keeps what it showed.
        """
        ...


def masked(value: str) -> str:
    """Return an address as the board shows it: a number's last four digits, a mailbox's domain.

    Caller IDs are the caller's to choose: anything that is no number is not shown at all.
    """
    local, at, domain = value.rpartition("@")
    if at and local and domain.isprintable() and len(domain) <= 60:
        return f"…@{domain}"
    digits = "".join(c for c in value if c in "0123456789")
    if not digits or len(digits) < len(value) - 2:  # `+`, and what a stray separator is
        return ""
    return f"…{digits[-4:]}" if len(digits) > 4 else digits


def masked_name(name: str) -> str:
    """Return the first character of a name, for a page that anybody may read: 张三 → 张＊."""
    first = name.strip()[:1]
    return f"{first}＊" if first.isprintable() and first else ""
