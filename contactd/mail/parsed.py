"""What a mail says, as one frozen value: made by `mail.parsing` out of its raw bytes (pure)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from contactd.tickets.contact import Writer as Kind

__all__ = [
    "Bounce", "Failed", "Kind", "Mailbox", "Note", "Origin", "Parsed", "Part", "Read", "Stored",
    "Verdict",
]  # fmt: skip


class Note(StrEnum):
    """What whoever reads a mail has to know about how it was read."""

    ENCODING_UNSURE = "encoding_unsure"  # some text may be shown wrong
    HTML_TOO_BIG = "html_too_big"  # its HTML is shown as text only
    TOO_DEEP = "too_deep"  # parts below the deepest level are kept as one attachment
    TOO_MANY_PARTS = "too_many_parts"  # what is beyond them is in the raw message only
    BAD_HEADER = "bad_header"  # a header was cut or left out
    CUT = "cut"  # its text is longer than is shown; the raw message has it
    UNREADABLE = "unreadable"  # it could not be parsed (in time): only the raw message is kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Mailbox:
    """`address` is lower-case, "" when there is none; `name` is one line."""

    address: str
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A file of a mail. `name` is safe as a file's name and never empty."""

    name: str
    media_type: str  # lower-case, e.g. image/png
    content: bytes = field(repr=False)
    content_id: str = ""  # without <>; HTML refers to it as cid:…
    is_inline: bool = False  # shown in the text, as a pasted screenshot is


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """One recipient of a bounce. `status` is RFC 3463's (5.1.1), "" when nobody says."""

    address: str
    status: str = ""
    permanent: bool = True
    diagnostic: str = ""  # the other side's words, one line


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounce:
    recipients: tuple[Failed, ...] = ()
    message_id: str = ""  # of the mail that came back, with <>
    subject: str = ""  # of that mail


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """A mail. Message-IDs have their <>; everything is text, decoded, without control signs.

    `text` is what there is to read: the plain text, else what the HTML says. `folds` are the
    ranges of `text` (start, end; in characters, in order, disjoint) that quote earlier mails: they
    are shown folded. `html` is safe to show (no script, no style that escapes, no remote image;
    images are `cid:…`), "" when there is none.
    """

    subject: str = ""
    sender: Mailbox = Mailbox(address="")
    reply_to: tuple[Mailbox, ...] = ()
    to: tuple[Mailbox, ...] = ()
    cc: tuple[Mailbox, ...] = ()
    date: datetime | None = None
    message_id: str = ""
    in_reply_to: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    kind: Kind = Kind.PERSON
    bounce: Bounce | None = None
    text: str = ""
    folds: tuple[tuple[int, int], ...] = ()
    html: str = ""
    parts: Sequence[Part] = ()
    notes: frozenset[Note] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Who handed a mail over, in SMTP's words. `reverse_path` is "" for <>."""

    peer: str  # IP address
    helo: str
    reverse_path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What SPF, DKIM and DMARC say, in the words of RFC 8601 section 2.7.

    `aligned`: the domain in From is proven, by SPF or by a signature (RFC 7489 section 3.1), be
    there a DMARC policy or not. Only then is the sender who the mail says.
    """

    spf: str = "none"
    dkim: str = "none"
    dkim_domains: tuple[str, ...] = ()  # whose signatures are good
    dmarc: str = "none"
    policy: str = ""  # of DMARC: none, quarantine or reject; "": no record
    from_domain: str = ""
    aligned: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A file of a mail as it is kept: below its SHA-256 (hexadecimal)."""

    sha256: str
    size_bytes: int
    media_type: str
    name: str
    content_id: str = ""
    is_inline: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """A mail as `Parsed` has it, its parts and its raw bytes kept as files."""

    raw: Stored
    subject: str = ""
    sender: Mailbox = Mailbox(address="")
    reply_to: tuple[Mailbox, ...] = ()
    to: tuple[Mailbox, ...] = ()
    cc: tuple[Mailbox, ...] = ()
    date: datetime | None = None
    message_id: str = ""
    in_reply_to: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    kind: Kind = Kind.PERSON
    bounce: Bounce | None = None
    text: str = ""
    folds: tuple[tuple[int, int], ...] = ()
    html: str = ""
    stored: tuple[Stored, ...] = ()
    notes: frozenset[Note] = frozenset()
    verdict: Verdict = Verdict()
