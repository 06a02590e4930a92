"""One interaction of somebody with the desk, as one frozen value."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum


class Medium(StrEnum):
    CALL = "call"
    MAIL = "mail"
    TEXT = "text"
    WEB = "web"
    REMOTE = "remote"


class Direction(StrEnum):
    IN = "in"
    OUT = "out"


class Source(StrEnum):
    """How contactd learned of the contact; `REPLAY` rows are what the ledger calls repaired."""

    LIVE = "live"
    REPLAY = "replay"


class Outcome(StrEnum):
    """How a call went, from the caller's side. Mail, text and web are `RECEIVED`."""

    RECEIVED = "received"  # not a call, or a call that is still going on
    ANSWERED = "answered"  # a person took it
    VOICEMAIL = "voicemail"  # nobody took it; a message was left
    ABANDONED_GREETING = "abandoned_greeting"
    ABANDONED_MENU = "abandoned_menu"
    ABANDONED_QUEUE = "abandoned_queue"
    ABANDONED_VOICEMAIL = "abandoned_voicemail"  # nobody took it; no message was left
    SELF_SERVICE = "self_service"  # heard the progress of a ticket and hung up
    UNREACHED = "unreached"  # the queue ended without a person and without a message
    PBX_LOST = "pbx_lost"  # the PBX was restarted under the call


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """One engineer's part in a call. `engineer` is the key of the queue member."""

    engineer: str
    answered_at: datetime
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFacts:
    """What is known of a call. Every instant is aware UTC; a field nobody knows yet is None.

    `final` means that the PBX's own records of this call are complete and these are them; facts
    that are not final never replace final ones.
    """

    pbx: str
    did: str
    final: bool = False
    stage: str = ""  # the last of greeting, menu, queue, voicemail, direct
    queue: str = ""
    queued_at: datetime | None = None
    answered_at: datetime | None = None  # by a person, not by the greeting
    ended_at: datetime | None = None
    waited: timedelta | None = None  # queue entry to answer, or to giving up
    talked: timedelta | None = None  # sum of the time bridged with a person
    legs: tuple[Leg, ...] = ()
    passed_by: tuple[str, ...] = ()  # engineers who were offered the call and did not take it
    end_reason: str = ""  # in Asterisk's words: ABANDON, EXITWITHTIMEOUT, COMPLETECALLER, …
    hangup_cause: int | None = None  # ITU-T Q.850
    keys: str = ""  # DTMF pressed in the menu, in order
    recording: str = ""  # path as the PBX wrote it
    voicemail: str = ""  # path as the PBX wrote it


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """One interaction. `(medium, external_id)` makes receiving it twice harmless.

    For a call `external_id` is the uniqueid of the caller's channel (with the PBX's systemname in
    front), `from_value` the caller's number as the network gave it ("" when withheld), `to_value`
    the DID that was dialled.
    """

    medium: Medium
    external_id: str
    received_at: datetime
    direction: Direction = Direction.IN
    source: Source = Source.LIVE
    from_value: str = ""
    from_name: str = ""
    to_value: str = ""
    outcome: Outcome = Outcome.RECEIVED
    text: str = ""
    call: CallFacts | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Filed:
    """Where a contact went: what the dialplan, a mail or a page tells the requester."""

    contact_id: int
    ticket_id: int
    ticket: str  # the ticket's number
    new_contact: bool  # False: this contact was known already
    opened: bool  # the ticket was opened for this contact
    joined: bool  # the contact joined an older open ticket
    open_ticket: str  # the requester's open ticket before this contact, or ""
    person_id: int
    vip: bool
    language: str  # zh, en
    site: str  # site key, "" when unknown
    queue: str  # queue of the site, "" when unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """How far a replayed source was read; it commits together with what was read from it."""

    source: str  # e.g. "pbx1/cel"
    position: str  # the source's own words


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """One batch of a replayed source: contacts and the cursors behind them, one transaction."""

    contacts: Sequence[Contact]
    cursors: Sequence[Cursor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A file that is kept: its content's SHA-256 (hexadecimal) is its name."""

    sha256: str
    size_bytes: int
    media_type: str
    name: str  # as people see it
