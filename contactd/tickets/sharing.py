"""What is known of a remote session: consents, legs, files, and what was said (pure).

What may become of it is in `tickets.remote`; `store.remote` keeps it.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from contactd.tickets.contact import Blob
from contactd.tickets.remote import Ending, Leg, Mode, Purpose, Right, State


class Kind(StrEnum):
    """What a user was asked, or did of themselves."""

    AGREE = "agree"  # on the share page, before anything
    CONSENT = "consent"  # to the engineer who helps, each time their leg opens
    HAND_OVER = "hand_over"
    LOOK = "look"
    RIGHTS = "rights"
    FILE = "file"


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreed:
    """What a user answered on the share page; `text_hash` is of what was shown to them."""

    mode: Mode
    language: str
    version: str
    text_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Consent:
    """What a user answered when somebody wanted to see their screen, or to do more there."""

    kind: Kind
    user: str  # the name with which the engineer logs in
    engineer: str  # their name as the user was told
    purpose: Purpose = Purpose.HELP
    rights: frozenset[Right] = frozenset({Right.VIEW})
    yes: bool
    language: str
    version: str
    text_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How much somebody did on a leg, not what."""

    keys: int = 0
    clicks: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LegRecord:
    """A leg and what was kept of it; nothing of that is final before it is `settled`."""

    leg: Leg
    settled: bool
    counts: Counts
    recording: Blob | None
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A remote session as it stands, with its legs in the order of their numbers."""

    id: int
    ref: str  # what journals call it
    ticket: str  # number
    ticket_id: int
    site: str  # the ticket's, "" when unknown
    state: State
    since: datetime  # of its state
    mode: Mode | None  # None until the user agreed
    language: str
    medium: str  # how the link went out: text, mail, call, web (the portal), "": it was read out
    invited_by: str  # requester, user:<name>
    invited_at: datetime
    code_until: datetime
    agreed_at: datetime | None
    user: str  # who helps: log-in name, "" when nobody has said so
    engineer: str  # and as the user is told
    claimed_at: datetime | None
    started_at: datetime | None  # somebody saw the screen for the first time
    ended_at: datetime | None
    ending: Ending | None
    legs: tuple[LegRecord, ...] = ()

    @property
    def open_legs(self) -> tuple[Leg, ...]:
        return tuple(each.leg for each in self.legs if each.leg.ended_at is None)

    def leg(self, number: int) -> Leg | None:
        return next((each.leg for each in self.legs if each.leg.number == number), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """`code` is told to the user and to nobody else; it is kept nowhere."""

    session: int
    ticket: str
    code: str
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What somebody with a right code is shown; `engineer` is "" if nobody has the ticket."""

    session: int
    ticket: str
    engineer: str
    language: str
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A key was used: whose helper it is, and what it shows when it comes again."""

    session: Session
    resume_key: str
    resumed: bool  # it was here before


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """`who` is `requester` or `user:<name>`."""

    at: datetime
    who: str
    text: str


class FileState(StrEnum):
    OFFERED = "offered"
    ACCEPTED = "accepted"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedFile:
    """Only who takes it may have its content. `sender` is `requester` or `user:<name>`."""

    number: int
    sender: str
    blob: Blob
    state: FileState
    offered_at: datetime
    answered_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """All must hold; empty does not ask. `sites`: those that may be seen, empty: all."""

    ticket: str = ""
    state: State | None = None
    sites: Collection[str] = ()
