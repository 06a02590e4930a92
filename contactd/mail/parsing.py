"""Raw bytes of a mail into `Parsed` (pure): whatever they are, there is something to read.

What is broken is read as far as it goes, and what had to be left out is noted. Every step is linear
and bounded; what time and memory a hostile mail may cost is for `mail.workers` to say.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from contactd.mail import (
    addresses,
    bounces,
    charsets,
    entities,
    filenames,
    htmltext,
    invitations,
    machines,
    quotes,
    tnef,
)
from contactd.mail.entities import Entity
from contactd.mail.parsed import Kind, Mailbox, Note, Parsed, Part

TEXT_LIMIT: Final = 1 << 20  # characters that are shown
SUBJECT_LIMIT: Final = 998  # characters; RFC 5322 section 2.1.1
IDS_LIMIT: Final = 100  # of References: its first ones and its last ones
DEFAULT_CHARSET: Final = "gb18030"  # of mail that does not say: this desk is in China

_ID: Final = re.compile(r"<[^<>\s]{1,990}>")
_BARE_ID: Final = re.compile(r"[^<>\s,;]{1,990}@[^<>\s,;]{1,990}")
_TNEF_TYPES: Final = frozenset({"application/ms-tnef", "application/vnd.ms-tnef"})
_MESSAGE_TYPES: Final = frozenset({"message/rfc822", "message/global"})
# Texts that are files when they stand beside another text.
_READABLE: Final = frozenset(
    {"text/plain", "text/html", "text/markdown", "text/enriched", "text/richtext",
     "text/x-markdown", "text/x-plain"}
)  # fmt: skip
_NO_BOUNCE: Final = frozenset({Kind.PERSON, Kind.OWN})
# RFC 1896 and RFC 1341: read without their marks, and kept with them.
_MARKED_UP: Final = frozenset({"text/enriched", "text/richtext"})
_MARK_UP: Final = re.compile(r"</?[a-zA-Z][^<>]{0,60}>")
# Further versions of what the plain text and the HTML say; the raw mail has them.
_LEFT_OUT: Final = frozenset({"text/x-amp-html", "text/watch-html"})
_META_CHARSET: Final = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]{2,40})", re.I)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Saying:
    """One stretch of what the mail says: as text, as HTML, or both."""

    text: str | None = None
    html: str | None = None


@dataclass(slots=True)
class _Reading:
    """What has been found while the tree is walked."""

    hint: str
    notes: set[Note]
    parts: list[Part] = field(default_factory=list)
    calendars: list[str] = field(default_factory=list)
    outlook: list[_Saying] = field(default_factory=list)  # what winmail.dat says
    named: list[_Saying] = field(default_factory=list)  # files that are texts to show


def parse(
    raw: bytes,
    *,
    own_addresses: Collection[str] = frozenset(),
    reverse_path: str | None = None,
    hint: str = DEFAULT_CHARSET,
) -> Parsed:
    """Return what a mail says; never raises.

    `reverse_path` is the envelope's, "" for <>; None: nobody knows.
    `own_addresses`, lower-case, are those we write from: a mail from one came back. `hint` is the
    charset of bytes that nobody declared, if that makes plausible text.
    """
    root, notes = entities.read(raw, hint=hint)
    reading = _Reading(_first_charset(root) or hint, notes)
    sayings = _sayings(root, reading, depth=0)
    if not any((saying.text or "").strip() or (saying.html or "").strip() for saying in sayings):
        sayings = reading.outlook or reading.named or sayings
    text, html = _joined(sayings)
    parsed = _with_headers(root, reading)
    html = _shown(html, reading)
    kind = machines.recognise(root.message, reverse_path=reverse_path)
    if kind is Kind.PERSON and parsed.sender.address in own_addresses:
        kind = Kind.OWN
    if not text.strip() and reading.calendars:
        text = "\n".join(filter(None, map(invitations.line, reading.calendars)))
    text = _cut(text.strip("\n").rstrip(), notes)
    return replace(
        parsed,
        kind=kind,
        bounce=None
        if kind in _NO_BOUNCE
        else bounces.read(root.message, reverse_path=reverse_path),
        text=text,
        folds=quotes.folds(text),
        html=html,
        parts=tuple(_inlined(reading.parts, html)),
        notes=frozenset(notes),
    )


def _first_charset(root: Entity) -> str:
    """Return the charset that the first part with one declares: what is in headers has it, too."""
    waiting = [root]
    while waiting:
        entity = waiting.pop()
        names = charsets.codecs_of(entity.charset) if entity.charset else ()
        if names and names[0] not in {"utf-8", "ascii"}:
            return entity.charset
        if not entity.kind.startswith("message/"):
            waiting += reversed(entity.children)
    return ""


# Headers


def _with_headers(root: Entity, reading: _Reading) -> Parsed:
    message = root.message
    subject, sure = charsets.header_text(entities.first(message, "Subject"), reading.hint)
    _note(sure, reading)
    if len(subject) > SUBJECT_LIMIT:
        reading.notes.add(Note.BAD_HEADER)
    senders = _mailboxes(root, "From", reading)
    return Parsed(
        subject=subject[:SUBJECT_LIMIT],
        sender=next(
            (one for one in senders if one.address), senders[0] if senders else Mailbox(address="")
        ),
        reply_to=_mailboxes(root, "Reply-To", reading),
        to=_mailboxes(root, "To", reading),
        cc=_mailboxes(root, "Cc", reading),
        date=_date(entities.first(message, "Date")),
        message_id=next(iter(_ids(_all(root, "Message-ID"))), ""),
        in_reply_to=_ids(_all(root, "In-Reply-To")),
        references=_ids(_all(root, "References")),
    )


def _note(sure: bool, reading: _Reading) -> None:
    if not sure:
        reading.notes.add(Note.ENCODING_UNSURE)


def _all(root: Entity, name: str) -> str:
    """Return all headers of that name in one: some programs write To once for each address."""
    wanted = name.lower()
    values = [value for key, value in root.message.raw_items() if key.lower() == wanted]
    return values[0] if len(values) == 1 else ",\n ".join(values[: addresses.MAILBOXES_LIMIT])


def _mailboxes(root: Entity, name: str, reading: _Reading) -> tuple[Mailbox, ...]:
    value = _all(root, name)
    if not value.strip():
        return ()
    found = addresses.mailboxes(value, reading.hint)
    _note(found.sure, reading)
    if found.cut:
        reading.notes.add(Note.BAD_HEADER)
    return found.found


def _date(value: str) -> datetime | None:
    """Return an instant in UTC, None for what is none; without a zone it is taken for UTC."""
    try:
        moment = parsedate_to_datetime(charsets.header_text(value[:200])[0])
        return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError, TypeError, IndexError):
        return None


def _ids(value: str) -> tuple[str, ...]:
    """Return the Message-IDs in a header, each once; one without <> gets them."""
    text = charsets.one_line(charsets.raw_bytes(value).decode("utf-8", "replace"))
    found = _ID.findall(text) or [f"<{one}>" for one in _BARE_ID.findall(text[:4096])]
    if not found and text and not re.search(r"\s", text):
        found = [f"<{text.strip('<>')[:990]}>"]
    unique = list(dict.fromkeys(found))
    if len(unique) > IDS_LIMIT:
        unique = unique[: IDS_LIMIT // 2] + unique[-IDS_LIMIT // 2 :]
    return tuple(unique)


# The tree


def _sayings(entity: Entity, reading: _Reading, *, depth: int) -> list[_Saying]:
    """Return what `entity` says; the files in it go into `reading`."""
    if _is_file(entity, depth):
        _add_file(entity, reading)
        return []
    if entity.kind.startswith("multipart/"):
        if not entity.children:
            return [_Saying(text=_text(entity, reading))]
        if entity.kind == "multipart/alternative":
            return _alternative(entity, reading, depth)
        return [
            one for child in entity.children for one in _sayings(child, reading, depth=depth + 1)
        ]
    if entity.kind == "text/html":
        return [_Saying(html=_html(entity, reading))]
    return [_Saying(text=_plain(entity, reading))]


def _is_file(entity: Entity, depth: int) -> bool:
    """Return whether `entity` is kept as a file rather than read."""
    if entity.kind.startswith("multipart/"):
        return depth >= entities.DEEPEST
    if entity.disposition == "attachment":
        return True
    if entity.kind in _READABLE:
        return depth > 0 and bool(entity.filename)
    return True


def _alternative(entity: Entity, reading: _Reading, depth: int) -> list[_Saying]:
    """Return one saying: each child says the same another way (RFC 2046 section 5.1.4)."""
    text: str | None = None
    html: str | None = None
    for child in entity.children:
        if child.kind in _LEFT_OUT:
            continue
        for saying in _sayings(child, reading, depth=depth + 1):
            if saying.text is not None:
                text = saying.text if not (text or "").strip() else _both(text or "", saying.text)
            if saying.html is not None:
                html = saying.html if not (html or "").strip() else f"{html}\n{saying.html}"
    return [_Saying(text=text, html=html)] if text is not None or html is not None else []


def _both(one: str, other: str) -> str:
    return one if other.strip() in one else f"{one.rstrip()}\n\n{other}"


def _joined(sayings: Sequence[_Saying]) -> tuple[str, str]:
    """Return all that is said as text, and as HTML ("" if none of it is HTML)."""
    texts = []
    has_html = any(saying.html and saying.html.strip() for saying in sayings)
    pages = []
    for saying in sayings:
        text = saying.text
        if saying.html is not None and not (text or "").strip():
            text = htmltext.text_from(saying.html)
        if text is not None and text.strip():
            texts.append(charsets.clean(text).strip("\n"))
        if has_html:
            pages.append(saying.html if saying.html is not None else _as_html(saying.text or ""))
    if len(texts) == 1:
        return texts[0], "\n".join(pages)
    return "\n\n".join(text.rstrip() for text in texts), "\n".join(pages)


def _as_html(text: str) -> str:
    if not text.strip():
        return ""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f'<div style="white-space: pre-wrap">{escaped}</div>'


def _shown(html: str, reading: _Reading) -> str:
    if not html.strip():
        return ""
    safe = htmltext.safe(html)
    if safe is None:
        reading.notes.add(Note.HTML_TOO_BIG)
        return ""
    return safe


def _cut(text: str, notes: set[Note]) -> str:
    if len(text) <= TEXT_LIMIT:
        return text
    notes.add(Note.CUT)
    return text[:TEXT_LIMIT]


# Texts


def _text(entity: Entity, reading: _Reading) -> str:
    """Return a part's text in its charset."""
    text, sure = charsets.text_of(entity.content(), entity.charset, reading.hint)
    _note(sure, reading)
    return charsets.clean(text)


def _plain(entity: Entity, reading: _Reading) -> str:
    """Return a plain text; uuencoded files in it become files."""
    content = entity.content()
    if b"begin" in content:
        content = _without_uuencoded(content, reading)
    text, sure = charsets.text_of(content, entity.charset, reading.hint)
    _note(sure, reading)
    text = charsets.clean(text)
    if entity.kind in _MARKED_UP:
        _add_part(Part(name=entity.filename, media_type=entity.kind, content=content), reading)
        text = _MARK_UP.sub("", text).replace("<<", "<")
    return text


def _without_uuencoded(content: bytes, reading: _Reading) -> bytes:
    kept = bytearray()
    at = 0
    for file in entities.uuencoded(content):
        kept += content[at : file.start]
        at = file.end
        name, sure = charsets.header_text(file.name, reading.hint)
        _note(sure, reading)
        _add_part(Part(name=name, media_type="", content=file.content), reading)
    return bytes(kept + content[at:])


def _html(entity: Entity, reading: _Reading) -> str:
    content = entity.content()
    declared = entity.charset
    if not charsets.codecs_of(declared):
        meta = _META_CHARSET.search(content[:4096])
        declared = meta[1].decode("ascii", "replace") if meta else declared
    text, sure = charsets.text_of(content, declared, reading.hint)
    _note(sure, reading)
    return charsets.clean(text)


# Files


def _add_file(entity: Entity, reading: _Reading) -> None:
    content = entity.content()
    _note(entity.sure, reading)
    if entity.kind in _TNEF_TYPES or content.startswith(tnef.SIGNATURE):
        try:
            _add_tnef(tnef.read(content), reading)
        except tnef.NotTnef:
            pass
        else:
            return
    if entity.kind == "text/calendar":
        reading.calendars.append(charsets.text_of(content, entity.charset or "utf-8")[0])
    if entity.kind in {"text/plain", "text/html"} and entity.disposition != "attachment":
        html = entity.kind == "text/html"
        text = _html(entity, reading) if html else _text(entity, reading)
        reading.named.append(_Saying(html=text) if html else _Saying(text=text))
    name = entity.filename or _name_of_message(entity, reading)
    _add_part(
        Part(name=name, media_type=entity.kind, content=content, content_id=entity.content_id),
        reading,
    )


def _name_of_message(entity: Entity, reading: _Reading) -> str:
    """Return the subject of a message inside as the name of its file."""
    if entity.kind not in _MESSAGE_TYPES or not entity.children:
        return ""
    raw = entities.first(entity.children[0].message, "Subject")
    subject = re.sub(r"[/\\]", "_", charsets.header_text(raw, reading.hint)[0][:80]).strip(" ._")
    return f"{subject}.eml" if subject else ""


def _add_part(part: Part, reading: _Reading) -> None:
    if len(reading.parts) >= entities.PARTS_LIMIT:
        reading.notes.add(Note.TOO_MANY_PARTS)
        return
    media_type = part.media_type or filenames.type_of(part.name)
    name = filenames.safe_name(part.name, media_type)
    reading.parts.append(replace(part, name=name, media_type=media_type))


def _add_tnef(found: tnef.Tnef, reading: _Reading) -> None:
    for file in found.files:
        part = Part(name=file.name, media_type=_type(file.media_type), content=file.content,
                    content_id=file.content_id)  # fmt: skip
        _add_part(part, reading)
    reading.outlook.append(_Saying(text=found.text or None, html=found.html or None))


def _type(given: str) -> str:
    return given if re.fullmatch(r"[\w!#$&^.+-]{1,80}/[\w!#$&^.+-]{1,80}", given) else ""


def _inlined(parts: Iterable[Part], html: str) -> Iterable[Part]:
    """Yield the parts, those marked that the HTML shows."""
    shown = htmltext.content_ids(html) if "cid:" in html.lower() else frozenset()
    for part in parts:
        yield replace(part, is_inline=True) if part.content_id in shown else part
