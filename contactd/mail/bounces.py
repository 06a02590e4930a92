"""Mails that came back: who was not reached, why, and which mail it was (pure).

A report in the form of RFC 3464 is read as such (`delivery_status`), everything else as a person
would (`bounce_text`); what both say is put together here. Texts, lines, parts and recipients are
capped and every pattern is linear, so a hostile mail costs at most tenths of a second.
"""

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
    DELAYED,
    FAILED,
    FORWARDED,
    GIVEN_UP,
    MAIL_PROGRAMS,
)
from contactd.mail.bounce_text import (
    HEADER,
    LINES_LIMIT,
    RECIPIENTS_LIMIT,
    TEXT_LIMIT,
    VALUE_LIMIT,
    VALUES_LIMIT,
    Mention,
    addresses_in,
    fields_of,
    header_text,
    html_text,
    is_daemon_name,
    local_names,
    mentions_in,
    one_line,
    own_and_returned,
    ranked,
    replies_in,
    said_of,
    says,
    status_of,
    telling,
)
from contactd.mail.delivery_status import ARRIVED, DELAYING, Recipient, groups_in, reply_status
from contactd.mail.parsed import Bounce, Failed, Kind

__all__ = [
    "Finding",
    "Headers",
    "addresses_in",
    "answers",
    "examine",
    "header_text",
    "headers_of",
    "is_daemon_name",
    "is_null",
    "media_type",
    "read",
]

_PARTS: Final = 64  # read of one mail
_DEPTH: Final = 8
_LINE: Final = 1_000  # signs; mail systems put a whole reply on a line
_HEADERS: Final = 1_000  # of a part; real mail has up to some hundred
_FIELDS: Final = 60  # of a group of RFC 3464
_DIAGNOSTIC: Final = 500  # signs

_FOR: Final = re.compile(r"\sfor\s+<?([^\s<>;@]{1,100}@[^\s<>;@]{1,255})>?\s*(?:;|$)")
_ID: Final = re.compile(r"<[^<>\s@]{1,400}@[^<>\s@]{1,400}>")
_ID_LABEL: Final = re.compile(r"^[\s>*|-]{0,20}(?:original )?message[ -]?id\b", re.I)
_SUBJECT_LABEL: Final = re.compile(r"^[\s>*|-]{0,20}(?:original )?subject:|^\s*主题:", re.I)
_CHARSET: Final = re.compile(r"charset\s*=\s*\"?([\w.:-]{1,40})", re.I)
_AWAY: Final = re.compile(
    rf"(?:{'|'.join(map(re.escape, AWAY_SUBJECTS))})\s*(?:[:：\[【(（]|[-–—]\s|$)"
)
_FIRST_PERSON: Final = re.compile(
    r"\b(?:i|we) (?:sent|got|get|have|am|tried|try|received|need|keep|can'?t)\b"
    r"|\bi'm (?:getting|trying)\b|\b(?:my|our) (?:e-?)?(?:mails?|messages?)\b|\bregards\b"
    r"|\bplease help\b|\bthanks\b|^\W*(?:hello|hi|dear)\b|你好|您好|谢谢|我的?邮件|我发|请问"
)

_STATUS_TYPES: Final = ("delivery-status", "disposition-notification")

Headers = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a mail reports about others: `kind` is None for one that reports nothing."""

    kind: Kind | None = None
    bounce: Bounce | None = None


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
    room: int = TEXT_LIMIT


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
        if len(values) < VALUES_LIMIT:
            values.append(str(value)[:VALUE_LIMIT])
    return headers


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
    own, returned = own_and_returned("\n".join(pieces.text).splitlines()[:LINES_LIMIT])
    if not any(line.strip() for line in own) and pieces.html:
        own, returned = own_and_returned(
            "\n".join(map(html_text, pieces.html)).splitlines()[:LINES_LIMIT]
        )
    pieces.lines = [line[:_LINE] for line in own]
    if not pieces.original:
        pieces.original = fields_of(returned)
        if "multipart/report" in _first(pieces.original, "content-type").lower():
            pieces.returned = _parsed(returned)
    return pieces


def _parsed(lines: Sequence[str]) -> Message | None:
    """Return a mail that stands in the text as the message that it is."""
    start = next((number for number, line in enumerate(lines) if HEADER.match(line)), 0)
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
    for group in groups[:RECIPIENTS_LIMIT]:
        lines = [f"{n}: {v}" for n, v in itertools.islice(group.raw_items(), _FIELDS)]
        body = _content(group, TEXT_LIMIT)
        texts.append("\n".join([*lines, body]))
    return "\n\n".join(texts)[:TEXT_LIMIT]


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
        pieces.original = pieces.original or fields_of(text.splitlines()[:LINES_LIMIT])
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
    groups = [group for text in pieces.statuses for group in groups_in(text)]
    groups = groups[:RECIPIENTS_LIMIT] or list(groups_in("\n".join(pieces.lines)))
    if groups and all(group.action in ARRIVED for group in groups):
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
    if any(True for text in pieces.statuses for _ in groups_in(text)):
        return True
    words = _words(pieces)
    if not (says(words, FAILED) or says(words, DELAYED)):
        return False
    return sure or bool(pieces.original) or bool(replies_in(pieces.lines)) or says(words, CERTAIN)


def _shows_failure(pieces: _Pieces) -> bool:
    """Return whether there is more than words: the mail that came back, or an address."""
    if pieces.original or pieces.statuses:
        return True
    return any(mention.rank > 1 for mention in ranked(pieces.lines))


def _is_personal(pieces: _Pieces) -> bool:
    headers = pieces.headers
    if "in-reply-to" in headers or "references" in headers:
        return True
    program = f"{_first(headers, 'user-agent')} {_first(headers, 'x-mailer')}".lower()
    return says(program, MAIL_PROGRAMS) or bool(_FIRST_PERSON.search(_words(pieces)[:2_000]))


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
        or says(name, ("mailer-daemon", "mail delivery"))
        or name.rstrip().endswith("<>")
    )


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
    if any("deleted" in text.lower() for text in texts) and says(_words(pieces), FAILED):
        groups = [group for text in texts for group in groups_in(text + "\nAction: failed")]
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
    message_id = str(mail.get("messageId", ""))[:VALUE_LIMIT] if isinstance(mail, dict) else ""
    if kind == "Complaint":
        return Finding(kind=Kind.REPORT)
    if kind == "Delivery":
        return Finding(kind=Kind.RECEIPT)
    details = notice.get("bounce")
    if kind != "Bounce" or not isinstance(details, dict):
        return None
    permanent = str(details.get("bounceType", "")) != "Transient"
    given = details.get("bouncedRecipients")
    listed = given[:RECIPIENTS_LIMIT] if isinstance(given, list) else []
    entries = [entry for entry in listed if isinstance(entry, dict)]
    recipients = [
        Failed(
            address=str(entry.get("emailAddress", ""))[:320],
            status=str(entry.get("status", ""))[:11],
            permanent=permanent,
            diagnostic=one_line(str(entry.get("diagnosticCode", "")))[:_DIAGNOSTIC],
        )
        for entry in entries
    ]
    return Finding(
        kind=Kind.BOUNCE, bounce=Bounce(recipients=tuple(recipients), message_id=message_id)
    )


# Putting it together


def _bounced(pieces: _Pieces, groups: Sequence[Recipient]) -> Finding:
    mentions = _mentions(pieces)
    heard = _heard(pieces, mentions)
    failed = [
        _from_group(group, group.address or mentions[0].address, mentions, heard)
        for group in groups
        if group.action not in ARRIVED and (group.address or mentions)
    ]
    if not failed:
        surely = [mention for mention in mentions if mention.rank > 1]
        if not surely and (inner := _inner(pieces)).bounce is not None:
            return inner
        guessed = _guessed(pieces) or _local_names(pieces, mentions)
        found = surely or [Mention(address, 0, 0) for address in guessed] or mentions
        failed = [_from_mention(mention, heard) for mention in found]
    if not (failed or pieces.statuses or pieces.report or says(_words(pieces), FAILED)):
        return Finding()
    bounce = Bounce(
        recipients=tuple(_once(failed)),
        message_id=_message_id(pieces),
        subject=_subject(pieces),
    )
    return Finding(kind=Kind.BOUNCE, bounce=bounce)


def _heard(pieces: _Pieces, mentions: Sequence[Mention]) -> _Heard:
    permanent = not _only_delayed(pieces)
    claimed = {line for mention in mentions for line in mention.said}
    replies = replies_in(pieces.lines)
    return _Heard(
        permanent=permanent,
        replies=replies,
        unclaimed=[line for line in replies if line not in claimed],
        of_all=status_of("", pieces.lines, permanent),
    )


def _inner(pieces: _Pieces) -> Finding:
    """Return what the mail says that came back, for a bounce that was wrapped into another."""
    if pieces.returned is None or pieces.depth >= 2:
        return Finding()
    found = _examine(pieces.returned, None, pieces.depth + 1)
    return found if found.kind is Kind.BOUNCE else Finding()


def _from_group(
    group: Recipient, address: str, mentions: Sequence[Mention], heard: _Heard
) -> Failed:
    """Return a recipient of a delivery-status.

    The reply of the other server says more than the status that the reporting one made of it.
    """
    said = [group.diagnostic] if group.diagnostic else []
    also = said_of(address, mentions) or heard.replies
    permanent = group.action not in DELAYING
    if not group.action:
        permanent = not group.status.startswith("4") or heard.permanent
    status = reply_status(group)
    if not telling(status):
        status = status_of(status, said, permanent)
    if not telling(status):
        status = status_of(status, [*said, *also], permanent)
    return Failed(
        address=address,
        status=status,
        permanent=permanent,
        diagnostic=one_line(" ".join(said or also))[:_DIAGNOSTIC],
    )


def _from_mention(mention: Mention, heard: _Heard) -> Failed:
    said = mention.said if replies_in(mention.said) else [*mention.said, *heard.unclaimed]
    status = status_of("", said, heard.permanent)
    if not telling(status):
        status = heard.of_all
    return Failed(
        address=mention.address,
        status=status,
        permanent=heard.permanent,
        diagnostic=one_line(" ".join(said))[:_DIAGNOSTIC],
    )


def _once(failed: Iterable[Failed]) -> list[Failed]:
    """Return each address once: the first that has a status."""
    kept: dict[str, Failed] = {}
    for one in failed:
        key = one.address.lower()
        if key not in kept or telling(one.status) > telling(kept[key].status):
            kept[key] = one
        if len(kept) >= RECIPIENTS_LIMIT:
            break
    return list(kept.values())


def _only_delayed(pieces: _Pieces) -> bool:
    words = f"{header_text(_first(pieces.headers, 'subject')).lower()}\n{_words(pieces)}"
    return says(words, DELAYED) and not says(words, GIVEN_UP)


def _words(pieces: _Pieces) -> str:
    """Return the text in lower case with single spaces: phrases are wrapped anywhere."""
    return " ".join("\n".join(pieces.lines).lower().split())


# Who and which, where text and headers have to agree


def _mentions(pieces: _Pieces) -> list[Mention]:
    """Return the addresses of which the text says that they failed, in order."""
    own = {address.lower() for address in _addresses(pieces.headers, "to")}
    own |= {address.lower() for address in _addresses(pieces.original, "from")}
    meant = {address.lower() for address in _addresses(pieces.original, "to", "cc")}
    return mentions_in(pieces.lines, own=own - meant, meant=meant)


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


def _local_names(pieces: _Pieces, mentions: Sequence[Mention]) -> list[str]:
    """Return the users that a mail system names without its domain, with it."""
    if any(mention.rank for mention in mentions):
        return []
    domain = next(_addresses(pieces.headers, "from"), "").rpartition("@")[2]
    return [f"{name}@{domain}" for name in local_names(pieces.lines)] if domain else []


def _addresses(headers: Headers, *names: str) -> Iterator[str]:
    for name in names:
        for value in headers.get(name, ()):
            yield from addresses_in(value)


def _message_id(pieces: _Pieces) -> str:
    """Return the Message-ID of the mail that came back, from the surest place that has one."""
    statuses = fields_of("\n".join(pieces.statuses).splitlines())
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


def _first(headers: Headers, name: str) -> str:
    return next(iter(headers.get(name, ())), "")


def media_type(headers: Headers) -> str:
    value = _first(headers, "content-type").partition(";")[0].strip().lower()
    return value if "/" in value else "text/plain"


def _report_type(headers: Headers) -> str:
    value = _first(headers, "content-type")
    found = re.search(r"report-type\s*=\s*\"?([\w-]{1,40})", value, re.I)
    return found[1].lower() if found and media_type(headers) == "multipart/report" else ""
