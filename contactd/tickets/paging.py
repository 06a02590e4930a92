"""What a page is: one attempt to reach one person about a ticket that nobody has taken."""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol

from contactd.tickets.events import PageDue


class PageState(StrEnum):
    QUEUED = "queued"  # decided, not dialled
    SENDING = "sending"  # handed to the PBX: after a crash the outcome is unknown
    SENT = "sent"  # the PBX has dialled
    TAKEN = "taken"
    PASSED = "passed"
    FAILED = "failed"  # the PBX refused to dial


UNSETTLED: Final = frozenset({PageState.QUEUED, PageState.SENDING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """`ref` is the channel's id, chosen by us: looked up before anything is dialled again.

    It is made of the call's id, so that no other database has the same.
    """

    ref: str
    ticket_id: int
    contact_id: int
    step: int
    ticket: str
    engineer: str
    address: str
    state: PageState


class Settled(StrEnum):
    """Why nobody need be rung about a contact any more."""

    OVER = "over"  # the ticket is closed or cancelled
    PAGE = "page"  # somebody pressed 1
    CALL = "call"  # the requester has reached somebody since
    TICKET = "ticket"  # somebody has taken the ticket since


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a page is about, as it is now.

    `settled` says why nobody need be rung any more; None while somebody has to be.
    """

    ticket: str
    settled: Settled | None
    assignee: str  # key of who has the ticket, "" if nobody
    call_id: str
    site: str
    vip: bool
    pbx: str


def next_step(due: PageDue) -> PageDue:
    return replace(due, step=due.step + 1)


class PageBook(Protocol):
    """What the pager needs from storage."""

    async def arm(self, due: PageDue, at: datetime) -> None:
        """Make `due` due at `at`; nothing happens if that step was armed before."""
        ...

    async def subject(self, due: PageDue) -> Subject | None: ...

    async def begin(self, due: PageDue, page: Page, *, next_due: datetime) -> Page:
        """Store the page and the timer of the next step, in one transaction; return it as stored.

        Twice with the same `ref`: the stored one is returned and nothing is changed.
        """
        ...

    async def find(self, ref: str) -> Page | None: ...

    async def note(self, ref: str, state: PageState, detail: str = "") -> None: ...

    async def settle(self, ref: str) -> bool:
        """Note that this page was taken, unless the matter is settled already; the first one wins.

        Asking again for the page that was taken is harmless and still True.
        """
        ...

    async def hurry(self, page: Page, now: datetime) -> None:
        """Make the step after `page` due now, if its timer is still armed."""
        ...
