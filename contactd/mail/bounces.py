"""Mails that came back: who was not reached, why, and which mail it was (pure).

A report in the form of RFC 3464 is read as such, whatever is broken in it. Everything else is read
as a person would: the addresses that stand where a mail system says that it failed, with the
replies (RFC 5321 section 4.2) beside them. Texts, lines, parts and recipients are capped and every
pattern is linear, so a hostile mail costs at most tenths of a second.
"""

import itertools
import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from email import message_from_string
from email.message import Message
from typing import Final

from contactd.mail import charsets
from contactd.mail.bounce_phrases import (
    ANSWERING,
    AWAY_SUBJECTS,
    BOUNCE_ENDINGS,
    BOUNCE_SUBJECTS,
    CERTAIN,
    DAEMONS,
    DELAYED,
    FAILED,
    FORWARDED,
    GIVEN_UP,
    MAIL_PROGRAMS,
    REASONS,
    RETURNED,
    TRANSIENT,
)
from contactd.mail.parsed import Bounce, Failed, Kind

_PARTS: Final = 64  # read of one mail
_DEPTH: Final = 8
_TEXT: Final = 64 * 1024  # signs of all the text that is read
_LINES: Final = 1_500
_LINE: Final = 1_000  # signs; mail systems put a whole reply on a line
_VALUE: Final = 2_000  # signs of a header that are looked at
_HEADERS: Final = 1_000  # of a part; real mail has up to some hundred
_VALUES: Final = 20  # headers of one name
_RECIPIENTS: Final = 200
_SAID: Final = 12  # lines after an address that belong to it
_DIAGNOSTIC: Final = 500  # signs

# In text: Chinese writes no space around an address, so only ASCII belongs to it there.
_ADDRESS: Final = re.compile(
    r"(?<![A-Za-z0-9!#$%&*+/?^_{|}~.-])(?:\"[^\s\"@]{1,100}\"|[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,100})"
    r"@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,250}[A-Za-z0-9])?"
)
_REPLY: Final = re.compile(r"(?<![\w.@/-])(4[0257]\d|5[0-57]\d)(?=[\s\-\])>;,:'\"#]|$)(?!-\d)")
_STATUS: Final = re.compile(r"(?<![\d.])([245])\.(\d{1,3})\.(\d{1,3})(?!\d|\.\d)")
_RCPT: Final = re.compile(r"\brcpt to\b", re.I)
_ANSWER: Final = re.compile(r"^\W*(?:(?:received|replied|response|s)\W+)?([2345])\d\d[\s-]", re.I)
_SENDER_LABEL: Final = re.compile(
    r"^[\s>*#|.-]*(?:(?:sent\s*)?(?:>>>|<<<)\s*)?(?:mail from|from|sender|original sender|reply-to"
    r"|return-path|envelope-from|errors-to|message-id|in-reply-to|references|(?:system )?contact"
    r"|subject|x-[\w-]+|received)\b\s*(?::|=)|^from\s|envelope[ -](?:sender|from)",
    re.I,
)
_RECIPIENT_LABEL: Final = re.compile(
    r"^[\s>*#|.-]*(?:(?:failed |original |final |actual |intended )?recipients?(?: address)?"
    r"|rcpt to|addressed to|(?:undeliverable|failed|target mail|mail) address|error-for"
    r"|email|address|收信人|收件地址|宛先)\s*[:：=]",
    re.I,
)
_TO_LABEL: Final = re.compile(r"^[\s>*#|.-]*(?:to|cc|收件人)\s*[:：]", re.I)
_BULLETS: Final = re.compile(r"[\s>*#|•·.\-\"'<(\[]*(?:(?:rfc822|smtp|mailto)\s*[;:]\s*)?<?", re.I)
_FOR: Final = re.compile(r"\sfor\s+<?([^\s<>;@]{1,100}@[^\s<>;@]{1,255})>?\s*(?:;|$)")
_FROM: Final = re.compile(r"(?<!generated )(?<!expanded )\b(?:from|sender)\s*[:<]?\s*<?$", re.I)
_NAME: Final = re.compile(r"\s*<?([A-Za-z0-9][\w.+-]{0,63})>?\s*")
_PROSE: Final = re.compile(r"['\">)]? [a-z]+[ ,]")
_CONTACT: Final = re.compile(
    r"\b(?:contact|call|write to|e-?mail us|forward|send (?:an? )?(?:e-?)?mail"
    r"|for (?:assistance|help)|mailto|please (?:e-?mail|send)|questions)\b|联系|聯絡",
    re.I,
)
_HEADER: Final = re.compile(r"^[>\s|]{0,8}([A-Za-z][\w-]{1,60}):(?:\s|\S)")
_SURE_HEADERS: Final = frozenset(
    {"received", "message-id", "mime-version", "return-path", "content-type", "x-mailer",
     "delivered-to", "dkim-signature", "content-transfer-encoding"}
)  # fmt: skip
_COMMON_HEADERS: Final = _SURE_HEADERS | {"from", "to", "subject", "date", "cc", "reply-to"}
_ID: Final = re.compile(r"<[^<>\s@]{1,400}@[^<>\s@]{1,400}>")
_ID_LABEL: Final = re.compile(r"^[\s>*|-]{0,20}(?:original )?message[ -]?id\b", re.I)
_SUBJECT_LABEL: Final = re.compile(r"^[\s>*|-]{0,20}(?:original )?subject:|^\s*主题:", re.I)
_CHARSET: Final = re.compile(r"charset\s*=\s*\"?([\w.:-]{1,40})", re.I)
_TAG: Final = re.compile(r"<(?=[a-zA-Z/!?])[^<>]{0,4000}>")
_BLOCK: Final = re.compile(r"<(?:br|/?p|/?div|/?tr|/?li|/?h\d|hr)\b[^<>]{0,2000}>", re.I)
_HIDDEN: Final = re.compile(r"<(style|script|title)\b", re.I)
_ENTITIES: Final = {"&lt;": "<", "&gt;": ">", "&nbsp;": " ", "&quot;": '"', "&#39;": "'",
                    "&#64;": "@", "&amp;": "&"}  # fmt: skip
_AWAY: Final = re.compile(
    rf"(?:{'|'.join(map(re.escape, AWAY_SUBJECTS))})\s*(?:[:：\[【(（]|[-–—]\s|$)"
)
_FIRST_PERSON: Final = re.compile(
    r"\b(?:i|we) (?:sent|got|get|have|am|tried|try|received|need|keep|can'?t)\b"
    r"|\bi'm (?:getting|trying)\b|\b(?:my|our) (?:e-?)?(?:mails?|messages?)\b|\bregards\b"
    r"|\bplease help\b|\bthanks\b|^\W*(?:hello|hi|dear)\b|你好|您好|谢谢|我的?邮件|我发|请问"
)
_LINE_SIGNS: Final = " \t-=*#|>_[]().:~—"
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")

# RFC 3464 section 2.3; the first that names an address is the one that was written to.
_RECIPIENT_FIELDS: Final = ("original-recipient", "final-recipient", "x-actual-recipient")
_GROUP_FIELDS: Final = frozenset({*_RECIPIENT_FIELDS, "action", "status"})
_FIELDS: Final = 60  # of a group
_DELAYING: Final = frozenset({"delayed", "delay", "deferred", "warning"})
_ARRIVED: Final = frozenset({"delivered", "relayed", "expanded", "deliverable", "success"})

_STATUS_TYPES: Final = ("delivery-status", "disposition-notification")

Headers = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a mail reports about others: `kind` is None for one that reports nothing."""

    kind: Kind | None = None
    bounce: Bounce | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recipient:
    """A per-recipient group of RFC 3464 section 2.3."""

    address: str
    action: str  # lower-case, "" when it is not said
    status: str
    diagnostic: str


@dataclass(slots=True)
class _Pieces:
    """What a mail consists of, as far as it matters here."""

    headers: Headers
    root: str = ""  # media type
    report: str = ""  # report-type of the root
    types: set[str] = field(default_factory=set)
    text: list[str] = field(default_factory=list)
    html: list[str] = field(default_factory=list)
    statuses: list[str] = field(default_factory=list)
    original: dict[str, list[str]] = field(default_factory=dict)
    returned: Message | None = None  # the mail that came back, if it is there as a mail
    depth: int = 0  # how many bounces it is wrapped in
    lines: list[str] = field(default_factory=list)  # the mail system's own words
    room: int = _TEXT


@dataclass(slots=True)
class _Mention:
    """An address in a text; the higher the rank, the surer it is one that failed."""

    address: str
    rank: int
    line: int
    said: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Heard:
    """What the mail says about all of its recipients together."""

    permanent: bool
    replies: Sequence[str]
    unclaimed: Sequence[str]  # the replies that belong to no recipient in particular
    of_all: str  # the status in all of the text


def read(message: Message, *, reverse_path: str | None = None) -> Bounce | None:
    """Return what a bounce says; None for any other mail, also for a report of success.

    `permanent` speaks of the mail: it will not arrive. Whether the address is to blame is in
    `status`: 5.1.1 is, 4.4.7 and 5.2.2 may work tomorrow.
    """
    return examine(message, reverse_path=reverse_path).bounce


def examine(message: Message, *, reverse_path: str | None = None) -> Finding:
    """Return what a mail reports: a bounce, a receipt, a report, or nothing.

    `reverse_path` is the envelope's ("" is <>); None: look for a Return-Path header.
    """
    return _examine(message, reverse_path, 0)


def headers_of(message: Message) -> Headers:
    """Return the headers by lower-case name, raw; of each the first few, each cut."""
    headers: dict[str, list[str]] = {}
    for name, value in itertools.islice(message.raw_items(), _HEADERS):
        values = headers.setdefault(str(name).strip().lower()[:80], [])
        if len(values) < _VALUES:
            values.append(str(value)[:_VALUE])
    return headers


def header_text(raw: str) -> str:
    """Return a header's text, decoded as well as it goes, on one line."""
    return _one_line(charsets.header_text(raw)[0])


def addresses_in(text: str) -> Iterator[str]:
    """Yield what looks like a mail address."""
    for found in _ADDRESS.finditer(text):
        address = found[0].lstrip("'`*=.").rstrip(".-_")
        if address[:5].upper() == "SMTP=":  # an X.400 address: …;dda:SMTP=person@example.com
            address = address[5:]
        local, _, domain = address.rpartition("@")
        # Archives shorten them: per...@example.com, person@exam...
        cut = local.endswith(".") or ("." not in domain and text[found.end() :].startswith(".."))
        if local and domain and not cut:
            yield address


# Taking the mail apart


def _collected(message: Message) -> _Pieces:
    headers = headers_of(message)
    pieces = _Pieces(headers=headers, root=media_type(headers), report=_report_type(headers))
    todo: list[tuple[Message, int]] = [(message, 0)]
    for _ in range(_PARTS):
        if not todo:
            break
        part, depth = todo.pop()
        children = _take(pieces, part)
        if depth < _DEPTH:
            todo.extend((child, depth + 1) for child in reversed(children))
    own, returned = _split("\n".join(pieces.text).splitlines()[:_LINES])
    if not any(line.strip() for line in own) and pieces.html:
        own, returned = _split("\n".join(map(_html_text, pieces.html)).splitlines()[:_LINES])
    pieces.lines = [line[:_LINE] for line in own]
    if not pieces.original:
        pieces.original = _fields(returned)
        if "multipart/report" in _first(pieces.original, "content-type").lower():
            pieces.returned = _parsed(returned)
    return pieces


def _parsed(lines: Sequence[str]) -> Message | None:
    """Return a mail that stands in the text as the message that it is."""
    start = next((number for number, line in enumerate(lines) if _HEADER.match(line)), 0)
    try:
        return message_from_string("\n".join(lines[start:]))
    except RecursionError:  # parts within parts, by the hundred
        return None


def _take(pieces: _Pieces, part: Message) -> list[Message]:
    """Put a part where it belongs; return the parts in it that are to be looked at."""
    headers = headers_of(part)
    kind = media_type(headers)
    pieces.types.add(kind)
    if not part.is_multipart():  # asking a leaf for its payload may parse a hostile Content-Type
        _take_text(pieces, part, kind)
        return []
    children = [child for child in part.get_payload() if isinstance(child, Message)]
    if kind.startswith("message/"):
        _take_message(pieces, kind, children)
        return []
    return children[:_PARTS]


def _take_message(pieces: _Pieces, kind: str, children: Sequence[Message]) -> None:
    if kind.endswith(_STATUS_TYPES):
        pieces.statuses.append(_status_text(children))
    elif kind in ("message/rfc822", "message/global", "message/partial", "message/news"):
        for child in children[:1]:
            if not pieces.original:
                pieces.original = {n: list(v) for n, v in headers_of(child).items()}
                pieces.returned = child


def _status_text(groups: Sequence[Message]) -> str:
    """Return a delivery-status part as it was written: the parser makes a message of each group."""
    texts = []
    for group in groups[:_RECIPIENTS]:
        lines = [f"{n}: {v}" for n, v in itertools.islice(group.raw_items(), _FIELDS)]
        body = _content(group, _TEXT)
        texts.append("\n".join([*lines, body]))
    return "\n\n".join(texts)[:_TEXT]


def _take_text(pieces: _Pieces, part: Message, kind: str) -> None:
    textual = kind.startswith(("text/", "message/", "multipart/")) or not kind
    if not textual or pieces.room <= 0:
        return
    text = _content(part, pieces.room)
    pieces.room -= len(text)
    if kind.endswith(_STATUS_TYPES):
        pieces.statuses.append(text)
    elif kind.endswith(("rfc822-headers", "global-headers")) or kind in (
        "message/rfc822", "message/global",
    ):  # fmt: skip
        pieces.original = pieces.original or _fields(text.splitlines()[:_LINES])
    elif kind == "text/html":
        pieces.html.append(text)
    else:
        pieces.text.append(text)


def _content(part: Message, room: int) -> str:
    """Return the text of a leaf, at most `room` signs of it."""
    try:
        content = part.get_payload(decode=True)
    except (ValueError, LookupError, TypeError, AttributeError):
        content = None
    if not isinstance(content, bytes):
        return ""
    found = _CHARSET.search(_first(headers_of(part), "content-type"))
    return charsets.text_of(content[: room * 4], found[1] if found else "")[0][:room]


def _html_text(html: str) -> str:
    """Return the words of a page; what is not shown and all tags left out."""
    for found in reversed(list(_HIDDEN.finditer(html))[:50]):
        end = html.lower().find(f"</{found[1].lower()}", found.end())
        html = html[: found.start()] + (html[end:] if end >= 0 else "")
    text = _TAG.sub("", _BLOCK.sub("\n", html.replace("\r\n", " ").replace("\n", " ")))
    for entity, sign in _ENTITIES.items():
        text = text.replace(entity, sign)
    return text


def _split(lines: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the mail system's own lines, and those of the mail that it quotes below."""
    for number, line in enumerate(lines):
        if _begins_original(lines, number) and not _goes_on(lines, number):
            return list(lines[:number]), list(lines[number:])
        if number and _announces_original(line) and not _has_report(lines[number + 1 :]):
            return list(lines[:number]), list(lines[number + 1 :])
    return list(lines), []


def _announces_original(line: str) -> bool:
    return len(line) < 120 and line.lower().lstrip(_LINE_SIGNS).startswith(RETURNED)


def _has_report(lines: Sequence[str]) -> bool:
    """Return whether the mail system has more to say, further down."""
    for number, line in enumerate(lines[:40]):
        if _begins_original(lines, number):
            return False
        lower = line.lower()
        if "final-recipient:" in lower or "the following addresses" in lower:
            return True
        if "@" in line and (_REPLY.search(line) or _says(lower, FAILED)):
            return True
    return False


def _goes_on(lines: Sequence[str], number: int) -> bool:
    """Return whether the report itself goes on below some headers of the mail."""
    block = itertools.takewhile(str.strip, lines[number:])
    below = lines[number + sum(1 for _ in block) :][:8]
    return any(_says(line.lower(), FAILED) and line.rstrip().endswith(":") for line in below)


def _begins_original(lines: Sequence[str], number: int) -> bool:
    """Return whether the headers of a mail begin here: some that are common, one that is sure."""
    first = _HEADER.match(lines[number])
    if first is None or first[1].lower() not in _COMMON_HEADERS:
        return False
    names = set()
    for line in lines[number : number + 40]:
        if not line.strip(" >|"):
            break
        if found := _HEADER.match(line):
            names.add(found[1].lower())
    return len(names & _COMMON_HEADERS) >= 3 and bool(names & _SURE_HEADERS)


def _fields(lines: Iterable[str]) -> dict[str, list[str]]:
    """Return the header fields that the lines begin with, also quoted or indented ones."""
    fields: dict[str, list[str]] = {}
    last: list[str] | None = None
    for line in lines:
        found = _HEADER.match(line)
        if found:
            last = fields.setdefault(found[1].lower(), [])
            if len(last) < _VALUES:
                last.append(line.split(":", 1)[1].strip()[:_VALUE])
        elif last and line[:1] in " \t>" and line.strip():
            last[-1] = f"{last[-1]} {line.strip()}"[:_VALUE]
        elif not line.strip() and len(fields) > 2:
            break
    return fields


# What it is


def _examine(message: Message, reverse_path: str | None, depth: int) -> Finding:
    pieces = _collected(message)
    pieces.depth = depth
    if _is_report(pieces):
        return Finding(kind=Kind.REPORT)
    if found := _notified(pieces):
        return found
    if "disposition-notification" in (pieces.report, pieces.root.partition("/")[2]):
        return _disposition(pieces)
    if not _may_bounce(pieces, reverse_path):
        return Finding()
    groups = [group for text in pieces.statuses for group in _groups(text)]
    groups = groups[:_RECIPIENTS] or list(_groups("\n".join(pieces.lines)))
    if groups and all(group.action in _ARRIVED for group in groups):
        return Finding(kind=Kind.RECEIPT)
    return _bounced(pieces, groups)


def _is_report(pieces: _Pieces) -> bool:
    """Return whether it is of complaints (RFC 5965), DMARC (RFC 7489) or TLS (RFC 8460).

    Outlook.com sends complaints without any report: only the mail, in a mail with such a subject.
    Apple's mail program writes to leave a list, which is a complaint in kind (opt-out).
    """
    if pieces.report in ("feedback-report", "tlsrpt", "dmarc"):
        return True
    if "message/feedback-report" in pieces.types and pieces.report != "delivery-status":
        return True
    subject = header_text(_first(pieces.headers, "subject")).lower()
    if subject.startswith("complaint about message from "):
        return "x-hmxmroriginalrecipient" in pieces.original or "message/rfc822" in pieces.types
    if subject.startswith("report domain:") and "submitter:" in subject:
        return True
    return subject == "unsubscribe" and _words(pieces).startswith("apple mail sent this email")


def _may_bounce(pieces: _Pieces, reverse_path: str | None) -> bool:
    """Return whether a machine wrote it to say that a mail did not arrive.

    People write about bounces, quote them and attach them, and vacation notes come from <> too: the
    words alone do not count.
    """
    headers = pieces.headers
    if "x-failed-recipients" in headers or pieces.report == "delivery-status":
        return True
    if pieces.root.endswith("/delivery-status"):
        return True
    if answers(headers):
        return False
    subject = header_text(_first(headers, "subject")).lower().lstrip(" *[<(\"'")
    named = subject.startswith(BOUNCE_SUBJECTS) or (
        subject.endswith(BOUNCE_ENDINGS) and not subject.startswith(FORWARDED)
    )
    daemon = _is_daemon(headers)
    if daemon or is_null(headers, reverse_path):
        return named or _reports_failure(pieces, sure=daemon)
    return named and not _is_personal(pieces) and _shows_failure(pieces)


def _reports_failure(pieces: _Pieces, *, sure: bool) -> bool:
    """Return whether the text is about a mail that failed; what is not `sure` to be from a mail
    system has to show that mail or a reply.
    """
    if any(True for text in pieces.statuses for _ in _groups(text)):
        return True
    words = _words(pieces)
    if not (_says(words, FAILED) or _says(words, DELAYED)):
        return False
    return sure or bool(pieces.original) or bool(_replies(pieces.lines)) or _says(words, CERTAIN)


def _shows_failure(pieces: _Pieces) -> bool:
    """Return whether there is more than words: the mail that came back, or an address."""
    if pieces.original or pieces.statuses:
        return True
    return any(mention.rank > 1 for mention in _ranked(pieces.lines))


def _is_personal(pieces: _Pieces) -> bool:
    headers = pieces.headers
    if "in-reply-to" in headers or "references" in headers:
        return True
    program = f"{_first(headers, 'user-agent')} {_first(headers, 'x-mailer')}".lower()
    return _says(program, MAIL_PROGRAMS) or bool(_FIRST_PERSON.search(_words(pieces)[:2_000]))


def answers(headers: Headers) -> bool:
    """Return whether a program answers for somebody, by what only such programs write."""
    for name in ANSWERING & headers.keys():
        if _first(headers, name).strip().lower() not in ("no", "false", "0"):
            return True
    if "vacation" in _first(headers, "x-apple-action").lower():
        return True
    if _first(headers, "precedence").strip().lower() in ("auto_reply", "auto-reply"):
        return True
    return bool(_AWAY.match(header_text(_first(headers, "subject")).lower()))


def _is_daemon(headers: Headers) -> bool:
    sender = header_text(_first(headers, "from"))
    address = next(addresses_in(sender), sender).lower()
    local = address.rpartition("@")[0] or address
    name = sender.lower()
    return (
        is_daemon_name(local)
        or _says(name, ("mailer-daemon", "mail delivery"))
        or name.rstrip().endswith("<>")
    )


def is_daemon_name(local_part: str) -> bool:
    return local_part.strip(' <>"').lower() in DAEMONS


def is_null(headers: Headers, reverse_path: str | None) -> bool:
    """Return whether it came from <>, the reverse-path of what must not be answered (RFC 5321
    section 4.5.5); sendmail writes it as MAILER-DAEMON into Return-Path.
    """
    if reverse_path is not None:
        return reverse_path.strip() in ("", "<>")
    path = _first(headers, "return-path").strip().lower()
    return path == "<>" or path.startswith(("<mailer-daemon", "mailer-daemon@"))


def _disposition(pieces: _Pieces) -> Finding:
    """Return what an MDN is (RFC 8098): a receipt, even when it says that nobody read the mail.

    Dovecot's delivery agent refuses mail with one; then it is a bounce.
    """
    texts = [text for text in pieces.statuses if "disposition:" in text.lower()]
    if any("deleted" in text.lower() for text in texts) and _says(_words(pieces), FAILED):
        groups = [group for text in texts for group in _groups(text + "\nAction: failed")]
        return _bounced(pieces, groups)
    return Finding(kind=Kind.RECEIPT)


def _notified(pieces: _Pieces) -> Finding | None:
    """Return what a notification of Amazon SES as JSON says; None if it is none."""
    text = "".join(pieces.text[:1])
    sender = _first(pieces.headers, "from").lower()
    if not text.lstrip().startswith("{") or "amazon" not in sender:
        return None
    notice = _json(text)
    if isinstance(inside := notice.get("Message"), str):
        notice = _json(inside)
    return _notice(notice)


def _json(text: str) -> dict[str, object]:
    """Return the object in a text; long lines may have been broken on the way, with a "!"."""
    text = text[: text.rfind("}") + 1].replace("\r\n", "\n").replace("!\n ", "")
    try:
        found = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _notice(notice: dict[str, object]) -> Finding | None:
    kind = str(notice.get("notificationType", ""))
    mail = notice.get("mail")
    message_id = str(mail.get("messageId", ""))[:_VALUE] if isinstance(mail, dict) else ""
    if kind == "Complaint":
        return Finding(kind=Kind.REPORT)
    if kind == "Delivery":
        return Finding(kind=Kind.RECEIPT)
    details = notice.get("bounce")
    if kind != "Bounce" or not isinstance(details, dict):
        return None
    permanent = str(details.get("bounceType", "")) != "Transient"
    given = details.get("bouncedRecipients")
    listed = given[:_RECIPIENTS] if isinstance(given, list) else []
    entries = [entry for entry in listed if isinstance(entry, dict)]
    recipients = [
        Failed(
            address=str(entry.get("emailAddress", ""))[:320],
            status=str(entry.get("status", ""))[:11],
            permanent=permanent,
            diagnostic=_one_line(str(entry.get("diagnosticCode", "")))[:_DIAGNOSTIC],
        )
        for entry in entries
    ]
    return Finding(
        kind=Kind.BOUNCE, bounce=Bounce(recipients=tuple(recipients), message_id=message_id)
    )


# RFC 3464


def _groups(text: str) -> Iterator[_Recipient]:
    """Yield the per-recipient groups of a delivery-status text.

    Blank lines do not end a group by themselves: some systems put them between the fields.
    """
    fields: dict[str, str] = {}
    last, gap = "", False
    for line in text[:_TEXT].splitlines()[:_LINES]:
        found = _HEADER.match(line)
        if found is not None:
            name = found[1].lower()
            if name in _GROUP_FIELDS and name in fields and (gap or name in _RECIPIENT_FIELDS):
                yield from _group(fields)
                fields = {}
            last, gap = name, False
            fields.setdefault(name, line.split(":", 1)[1].strip()[:_VALUE])
        elif not line.strip():
            last, gap = "", True
        elif last and line[:1] in " \t":
            fields[last] = f"{fields[last]} {line.strip()}"[:_VALUE]
    yield from _group(fields)


def _group(fields: Mapping[str, str]) -> Iterator[_Recipient]:
    given = [_plain(fields[name]) for name in _RECIPIENT_FIELDS if name in fields]
    if not given or not ({"action", "status", "diagnostic-code"} & fields.keys()):
        return
    found = [address for address in map(_field_address, given) if address]
    status = _STATUS.search(fields.get("status", ""))
    kind, semicolon, said = fields.get("diagnostic-code", "").partition(";")
    yield _Recipient(
        address=found[0] if found else "",
        action=fields.get("action", "").split("(")[0].strip().lower(),
        status=status[0] if status else "",
        diagnostic=_one_line(header_text(said if semicolon and len(kind) < 40 else kind + said)),
    )


def _plain(value: str) -> str:
    """Return an address field without its type (rfc822;, utf-8;)."""
    kind, semicolon, address = value.partition(";")
    return address if semicolon and "@" not in kind else value


def _field_address(value: str) -> str:
    """Return the address of a field; there it is taken as it is, however odd."""
    bare = _one_line(value).strip("<> ")
    local = bare.rpartition("@")[0]
    if local.endswith("...") and not local.endswith("...."):
        return ""  # an archive shortened it
    if local and " " not in bare and len(bare) <= 320:
        return bare
    return next(addresses_in(value), "")


# Putting it together


def _bounced(pieces: _Pieces, groups: Sequence[_Recipient]) -> Finding:
    mentions = _mentions(pieces)
    heard = _heard(pieces, mentions)
    failed = [
        _from_group(group, group.address or mentions[0].address, mentions, heard)
        for group in groups
        if group.action not in _ARRIVED and (group.address or mentions)
    ]
    if not failed:
        surely = [mention for mention in mentions if mention.rank > 1]
        if not surely and (inner := _inner(pieces)).bounce is not None:
            return inner
        guessed = _guessed(pieces) or _local_names(pieces, mentions)
        found = surely or [_Mention(address, 0, 0) for address in guessed] or mentions
        failed = [_from_mention(mention, heard) for mention in found]
    if not (failed or pieces.statuses or pieces.report or _says(_words(pieces), FAILED)):
        return Finding()
    bounce = Bounce(
        recipients=tuple(_once(failed)),
        message_id=_message_id(pieces),
        subject=_subject(pieces),
    )
    return Finding(kind=Kind.BOUNCE, bounce=bounce)


def _heard(pieces: _Pieces, mentions: Sequence[_Mention]) -> _Heard:
    permanent = not _only_delayed(pieces)
    claimed = {line for mention in mentions for line in mention.said}
    replies = _replies(pieces.lines)
    return _Heard(
        permanent=permanent,
        replies=replies,
        unclaimed=[line for line in replies if line not in claimed],
        of_all=_status("", pieces.lines, permanent),
    )


def _inner(pieces: _Pieces) -> Finding:
    """Return what the mail says that came back, for a bounce that was wrapped into another."""
    if pieces.returned is None or pieces.depth >= 2:
        return Finding()
    found = _examine(pieces.returned, None, pieces.depth + 1)
    return found if found.kind is Kind.BOUNCE else Finding()


def _from_group(
    group: _Recipient, address: str, mentions: Sequence[_Mention], heard: _Heard
) -> Failed:
    """Return a recipient of a delivery-status.

    The reply of the other server says more than the status that the reporting one made of it.
    """
    said = [group.diagnostic] if group.diagnostic else []
    also = _said_of(address, mentions) or heard.replies
    permanent = group.action not in _DELAYING
    if not group.action:
        permanent = not group.status.startswith("4") or heard.permanent
    status = _reply_status(group)
    if not _telling(status):
        status = _status(status, said, permanent)
    if not _telling(status):
        status = _status(status, [*said, *also], permanent)
    return Failed(
        address=address,
        status=status,
        permanent=permanent,
        diagnostic=_one_line(" ".join(said or also))[:_DIAGNOSTIC],
    )


def _reply_status(group: _Recipient) -> str:
    codes = [found[0] for found in _STATUS.finditer(group.diagnostic) if found[1] != "2"]
    return max([*codes, group.status], key=_telling)


def _from_mention(mention: _Mention, heard: _Heard) -> Failed:
    said = mention.said if _replies(mention.said) else [*mention.said, *heard.unclaimed]
    status = _status("", said, heard.permanent)
    if not _telling(status):
        status = heard.of_all
    return Failed(
        address=mention.address,
        status=status,
        permanent=heard.permanent,
        diagnostic=_one_line(" ".join(said))[:_DIAGNOSTIC],
    )


def _once(failed: Iterable[Failed]) -> list[Failed]:
    """Return each address once: the first that has a status."""
    kept: dict[str, Failed] = {}
    for one in failed:
        key = one.address.lower()
        if key not in kept or _telling(one.status) > _telling(kept[key].status):
            kept[key] = one
        if len(kept) >= _RECIPIENTS:
            break
    return list(kept.values())


def _only_delayed(pieces: _Pieces) -> bool:
    words = f"{header_text(_first(pieces.headers, 'subject')).lower()}\n{_words(pieces)}"
    return _says(words, DELAYED) and not _says(words, GIVEN_UP)


def _words(pieces: _Pieces) -> str:
    """Return the text in lower case with single spaces: phrases are wrapped anywhere."""
    return " ".join("\n".join(pieces.lines).lower().split())


def _status(given: str, said: Sequence[str], permanent: bool) -> str:
    """Return the most telling status of the given one and those in the words.

    Without any it is made of the class of a reply and of what the words mean; x.0.0 is "other
    undefined status" (RFC 3463 section 3.1).
    """
    text = " ".join("\n".join(said)[:_TEXT].split())
    codes = [given] if given else []
    codes += [found[0] for found in _STATUS.finditer(text) if found[1] != "2"]
    best = max(codes, key=_telling, default="")
    if _telling(best) > 0:
        return best
    reply = _REPLY.search(text)
    told = (best or (reply[0] if reply else ""))[:1]
    words = text.lower()
    if not told:
        told = "5" if permanent and not _says(words, TRANSIENT) else "4"
    return f"{told}.{_reason(words)}"


def _telling(status: str) -> int:
    """Return how much a status says: nothing, roughly where, that time ran out, or why."""
    if not status or status.endswith(".0.0"):
        return 0
    if status.endswith(".0"):
        return 1
    return 2 if status.endswith(".4.7") else 3


def _reason(words: str) -> str:
    for detail, phrases in REASONS.items():
        if _says(words, phrases):
            return detail
    return "0.0"


def _replies(lines: Iterable[str]) -> list[str]:
    """Return the lines in which another server refuses something."""
    return [
        line for line in lines
        if _REPLY.search(line) or any(found[1] != "2" for found in _STATUS.finditer(line))
    ][:_SAID]  # fmt: skip


def _said_of(address: str, mentions: Sequence[_Mention]) -> list[str]:
    for mention in mentions:
        if mention.address.lower() == address.lower():
            return mention.said
    return []


# Text


def _mentions(pieces: _Pieces) -> list[_Mention]:
    """Return the addresses of which the text says that they failed, in order."""
    seen = list(itertools.islice(_ranked(pieces.lines), 10 * _RECIPIENTS))
    mentions = _blamed(pieces, seen)
    best = max((mention.rank for mention in mentions), default=0)
    kept: dict[str, _Mention] = {}
    for mention in mentions:
        if mention.rank == best and len(kept) < _RECIPIENTS:
            kept.setdefault(mention.address.lower(), mention)
    if best == 1 and len(kept) > 1:  # an address, but for what?
        meant = {address.lower() for address in _addresses(pieces.original, "to", "cc")}
        kept = {address: mention for address, mention in kept.items() if address in meant}
    chosen = list(kept.values())
    _hear(pieces.lines, chosen, mentions)
    return chosen


def _blamed(pieces: _Pieces, seen: Sequence[_Mention]) -> list[_Mention]:
    """Leave out who wrote the mail, and whom to ask unless there is no other.

    Who wrote to himself comes last: rank 0, where a line begins with his address.
    """
    own = {address.lower() for address in _addresses(pieces.headers, "to")}
    own |= {address.lower() for address in _addresses(pieces.original, "from")}
    own -= {address.lower() for address in _addresses(pieces.original, "to", "cc")}
    others = [one for one in seen if one.address.lower() not in own]
    users = [one for one in others if not is_daemon_name(one.address.rpartition("@")[0])]
    if any(one.rank > 1 for one in users):
        return users
    if found := [one for one in others if one.rank == 3] or users:
        return found
    return [replace(one, rank=0) for one in seen if _begins(pieces.lines, one.line, one.address)]


def _hear(lines: Sequence[str], chosen: Sequence[_Mention], mentions: Sequence[_Mention]) -> None:
    """Give each address the lines that follow it, up to the next one."""
    starts = sorted({mention.line for mention in chosen})
    others: dict[str, list[int]] = {}
    for mention in mentions:
        others.setdefault(mention.address.lower(), []).append(mention.line)
    for mention in chosen:
        place = bisect_right(starts, mention.line)
        end = starts[place] if place < len(starts) else len(lines)
        mention.said = _spoken(lines[mention.line : min(end, mention.line + 40)])[:_SAID]
        for line in others[mention.address.lower()]:
            if line >= end:  # further down, as in a transcript
                mention.said += _spoken(lines[line : line + 4])
                break


def _spoken(lines: Iterable[str]) -> list[str]:
    """Return the lines that say something: no rules, no blank ones."""
    return [line for line in lines if line.strip(_LINE_SIGNS)]


def _ranked(lines: Sequence[str]) -> Iterator[_Mention]:
    failed_at = -100
    for number, line in enumerate(lines):
        lower = line.lower()
        fails = _says(lower, FAILED) or _says(lower, DELAYED)
        if fails:
            failed_at = number
        if "@" not in line:
            continue
        for address in addresses_in(line):
            rank = _rank(lines, number, address, number - failed_at)
            if rank:
                yield _Mention(address, rank, number)


def _rank(lines: Sequence[str], number: int, address: str, since: int) -> int:
    """Return how sure it is that `address` failed; `since` lines ago the text spoke of failing."""
    line = lines[number]
    if _RCPT.search(line):
        return _rank_of_recipient(lines, number)
    if _SENDER_LABEL.search(line):
        return 0
    if _FROM.search(line.partition(address)[0]):
        return 0
    begins = _begins(lines, number, address)
    if begins and since < 60:
        return 3
    if _CONTACT.search(line):
        return 0
    if since == 0 or _REPLY.search(line):
        return 3
    if _TO_LABEL.match(line):  # before it says that anything failed: who it was written to
        return 2 if since < 60 else 1
    return 2 if _RECIPIENT_LABEL.match(line) or begins or since <= 3 else 1


def _begins(lines: Sequence[str], number: int, address: str) -> bool:
    """Return whether the line is about the address: in prose it may begin one by chance."""
    before, _, after = lines[number].partition(address)
    if not _BULLETS.fullmatch(before):
        return False
    above = lines[number - 1].rstrip() if number else ""
    wraps = above[-1:].isalnum() or above.endswith(",")
    return not (_PROSE.match(after) and wraps and _indent(above) == _indent(before))


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _rank_of_recipient(lines: Sequence[str], number: int) -> int:
    """Return the rank of an address in RCPT TO: low if the server took it, but perhaps not DATA."""
    for line in lines[number + 1 : number + 6]:
        if answer := _ANSWER.match(line):
            return 1 if answer[1] in "23" else 3
        if _RCPT.search(line):
            break
    return 2


def _guessed(pieces: _Pieces) -> list[str]:
    """Return the recipients when the text names none: as the headers tell.

    The To of a list's mail is the list, not who did not get it.
    """
    if given := list(_addresses(pieces.headers, "x-failed-recipients", "x-failed-recipient")):
        return given
    if {"list-id", "list-post"} & pieces.original.keys():
        return []
    meant = list(_addresses(pieces.original, "x-envelope-to", "to", "cc")) or [
        address
        for value in pieces.original.get("received", ())
        for found in _FOR.finditer(value)
        for address in addresses_in(found[1])
    ]
    return meant if len({address.lower() for address in meant}) == 1 else []


def _local_names(pieces: _Pieces, mentions: Sequence[_Mention]) -> list[str]:
    """Return users that a mail system names without its domain, below a line that ends in ":"."""
    if any(mention.rank for mention in mentions):
        return []
    domain = next(_addresses(pieces.headers, "from"), "").rpartition("@")[2]
    for number, line in enumerate(pieces.lines):
        if domain and line.rstrip().endswith(":") and _says_failed(pieces.lines, number):
            below = itertools.dropwhile(lambda one: not one.strip(), pieces.lines[number + 1 :])
            names = [_NAME.fullmatch(one) for one in itertools.takewhile(str.strip, below)]
            return [f"{name[1]}@{domain}" for name in names[:_RECIPIENTS] if name]
    return []


def _says_failed(lines: Sequence[str], number: int) -> bool:
    return _says(" ".join(lines[max(number - 2, 0) : number + 1]).lower(), FAILED)


def _addresses(headers: Headers, *names: str) -> Iterator[str]:
    for name in names:
        for value in headers.get(name, ()):
            yield from addresses_in(value)


def _message_id(pieces: _Pieces) -> str:
    """Return the Message-ID of the mail that came back, from the surest place that has one."""
    statuses = _fields("\n".join(pieces.statuses).splitlines())
    places = (
        _first(pieces.original, "message-id"),
        _first(statuses, "original-message-id"),
        *(line for line in pieces.lines if _ID_LABEL.match(line)),
        _first(pieces.headers, "in-reply-to"),
        " ".join(reversed(_first(pieces.headers, "references").split())),
    )
    found = (_ID.search(place) for place in places)
    return next((one[0] for one in found if one), "")


def _subject(pieces: _Pieces) -> str:
    quoted = (line.split(":", 1)[1] for line in pieces.lines if _SUBJECT_LABEL.match(line))
    return header_text(_first(pieces.original, "subject") or next(quoted, ""))


# Small things


def _says(words: str, phrases: Iterable[str]) -> bool:
    return any(phrase in words for phrase in phrases)


def _first(headers: Headers, name: str) -> str:
    return next(iter(headers.get(name, ())), "")


def media_type(headers: Headers) -> str:
    value = _first(headers, "content-type").partition(";")[0].strip().lower()
    return value if "/" in value else "text/plain"


def _report_type(headers: Headers) -> str:
    value = _first(headers, "content-type")
    found = re.search(r"report-type\s*=\s*\"?([\w-]{1,40})", value, re.I)
    return found[1].lower() if found and media_type(headers) == "multipart/report" else ""


def _one_line(text: str) -> str:
    return " ".join(_CONTROL.sub(" ", text).split())
