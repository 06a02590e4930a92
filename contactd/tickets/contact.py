"""One interaction of somebody with the desk, as one frozen value."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

PORTAL: Final = "portal:"  # how external ids begin of what requesters wrote on the portal


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
    # Of calls that somebody of the desk makes: nobody picked up; the line was busy or refused
    NO_ANSWER = "no_answer"
    BUSY = "busy"


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


class Writer(StrEnum):
    """Who or what wrote a mail. Only a person is ever answered by a machine of ours."""

    PERSON = "person"
    AUTO_REPLY = "auto_reply"  # vacation notes and other answers of programs (RFC 3834)
    AUTO = "auto"  # programs that report something: alarms, scanners, invoices
    LIST = "list"  # mailing lists (RFC 2919, RFC 2369) and bulk
    BOUNCE = "bounce"  # could not be delivered, for good or so far
    RECEIPT = "receipt"  # delivered, relayed or read (RFC 3461, RFC 8098)
    REPORT = "report"  # feedback (RFC 5965), DMARC and TLS reports
    OWN = "own"  # we wrote it: it came back


# They say something about a mail of ours, and ask nobody for anything.
ECHOES: Final = frozenset(
    {Writer.AUTO_REPLY, Writer.BOUNCE, Writer.RECEIPT, Writer.REPORT, Writer.OWN}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Undelivered:
    """An address that a mail did not reach. `status` is RFC 3463's (5.1.1), "" if unknown."""

    address: str
    status: str = ""
    permanent: bool = True  # False: it is tried again


@dataclass(frozen=True, slots=True, kw_only=True)
class MailFacts:
    """What is known of a mail beside its text. Message-IDs have their <>.

    `proved` is the number of the ticket that it surely belongs to: it went to a signed address, or
    answers a Message-ID that only we can have made. `mentioned` are numbers in its subject, which
    anybody can write; they count only if the mail is not `forged`, and only for who takes part.
    """

    writer: Writer = Writer.PERSON
    subject: str = ""
    message_id: str = ""
    references: tuple[str, ...] = ()  # what it answers, nearest first
    to: tuple[str, ...] = ()
    cc: tuple[str, ...] = ()
    proved: str = ""
    mentioned: tuple[str, ...] = ()
    forged: bool = False  # SPF, DKIM and DMARC say that it is not from whom it says
    checks: Mapping[str, str] = field(default_factory=dict)  # spf, dkim, dmarc, virus, spam
    folds: tuple[tuple[int, int], ...] = ()  # ranges of the text that quote earlier mails
    notes: tuple[str, ...] = ()  # mail.parsed.Note
    reply: str = ""  # one line that says what to do: see tickets.replies
    undelivered: tuple[Undelivered, ...] = ()
    about: str = ""  # the ref of the notification that it answers, or that came back


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file of a contact. `kind` is `raw` (the mail as it came), `attachment` or `inline`."""

    kind: str
    blob: "Blob"
    content_id: str = ""  # the mail's HTML refers to it as cid:…


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """One interaction. `(medium, external_id)` makes receiving it twice harmless.

    Of a call that the desk makes (`direction` out) `to_value` is the requester's number.

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
    mail: MailFacts | None = None
    html: str = ""  # of a mail, safe to show
    files: tuple[File, ...] = ()  # kept by now; named by the commit that files the contact
    # Of what was written on the portal and of calls that the desk makes; neither is stored.
    ticket: str = ""  # number of the ticket that it surely belongs to
    site: str = ""  # key of the site that it says it is about


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
