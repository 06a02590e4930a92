"""The tree of a MIME message: raw bytes into `email.message.Message` and decoded contents (pure).

The tree is the standard library's, so that what reads bounces and headers needs nothing of ours.
Its parser is not: it works line by line (a second for 20 MB), and raises RecursionError on deep
nesting. Here a multipart is cut at its boundaries, from outside to inside: a part can never reach
beyond what it stands in, and everything is bounded in depth and number.
"""

import binascii
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from email.policy import compat32
from typing import Final

from contactd.mail import charsets
from contactd.mail.parsed import Note

DEEPEST: Final = 30  # levels; mail programs write five, chains of forwards a few more
PARTS_LIMIT: Final = 1_000
FIELDS_LIMIT: Final = 1_000  # of one header
PAYLOAD_KEPT: Final = 1 << 20  # bytes of a leaf that its `Message` has too
CANDIDATES_LIMIT: Final = 50_000  # of one multipart: lines that could be its boundary

# RFC 5322 section 2.2; white space before the colon is obsolete (section 4.5) and common.
_FIELD: Final = re.compile(
    rb"([!-9;-~]{1,200})[ \t]*:([^\r\n]*(?:\r?\n[ \t][^\r\n]*)*)(?:\r?\n|\r|\Z)"
)
_KNOWN_FIELD: Final = re.compile(
    rb"(?:from|to|cc|subject|date|message-id|mime-version|received|return-path|reply-to|sender"
    rb"|references|in-reply-to|content-[a-z-]+|x-[a-z0-9-]+|dkim-signature):", re.I,
)  # fmt: skip
_LEADING: Final = re.compile(rb"[ \t]*(?:\r?\n[ \t]*){1,20}(?![ \t])")
_BROKEN_FIELD: Final = re.compile(rb"[^\s:]{1,100}[ \t]*:")
_LINE: Final = re.compile(rb"[^\r\n]*(?:\r?\n|\r|\Z)")
_TYPE: Final = re.compile(r"[a-z0-9!#$&^_.+-]{1,80}/[a-z0-9!#$&^_.+-]{1,80}")
_GUESSED: Final = re.compile(rb"(?:\A|\n)--([^\r\n]{1,200}?)[ \t]*\r?\n(?=content-|\r?\n)", re.I)
_BOUNDARY: Final = re.compile(rb";\s*boundary[ \t]*=[ \t]*(?:\"([^\"\\\r\n]+)\"|([^\s\";]+))", re.I)
_LINE_BLANKS: Final = re.compile(rb"(?<![ \t])[ \t]++(?=\r?\n)")
_UU_BEGIN: Final = re.compile(rb"(?:\A|\n)begin [0-7]{3,4} ([^\r\n]+)\r?\n")
_UU_LINE: Final = re.compile(rb"[ -`]{1,62}")


@dataclass(slots=True, kw_only=True)
class Entity:
    """A message or a part of one. `kind` is its media type, lower-case; `body` is encoded."""

    message: Message
    kind: str
    parameters: Mapping[str, str]
    disposition: str  # "", "inline", "attachment" or what else stands there
    filename: str  # as its sender wrote it: not safe
    content_id: str
    body: bytes = field(repr=False)
    children: list["Entity"] = field(default_factory=list)
    sure: bool = True  # of how the file's name is encoded

    @property
    def charset(self) -> str:
        return self.parameters.get("charset", "")

    def content(self) -> bytes:
        """Return the body without its transfer encoding."""
        return decoded(self.body, _encoding(self.message))


@dataclass(slots=True)
class _Reading:
    """What is shared while one message is read."""

    hint: str
    notes: set[Note] = field(default_factory=set)
    parts: int = 0


def read(raw: bytes, *, hint: str = "") -> tuple[Entity, set[Note]]:
    """Return the tree of a message, and what had to be left out of it."""
    if b"\r" in raw and b"\n" not in raw:
        raw = raw.replace(b"\r", b"\n")  # as old Macs wrote
    if b"\r\r\n" in raw:
        raw = raw.replace(b"\r\r\n", b"\r\n")  # as gateways write that add what is there already
    reading = _Reading(hint)
    return _entity(raw, reading, depth=0, default="text/plain"), reading.notes


def first(message: Message, name: str) -> str:
    """Return the first header of that name as it came (8-bit bytes as surrogates), or ""."""
    wanted = name.lower()
    return next((value for key, value in message.raw_items() if key.lower() == wanted), "")


# Headers


def _entity(data: bytes, reading: _Reading, *, depth: int, default: str) -> Entity:
    message: Message = Message(policy=compat32)
    message.set_default_type(default)
    body = data[_read_header(data, message, reading) :]
    content_type = charsets.parameterised(first(message, "Content-Type"), reading.hint)
    disposition = charsets.parameterised(first(message, "Content-Disposition"), reading.hint)
    kind = content_type.value.split(" ")[0]
    names = (disposition.parameters.get("filename"), content_type.parameters.get("name"))
    entity = Entity(
        message=message,
        kind=kind if _TYPE.fullmatch(kind) else _type_for(content_type.value, default),
        parameters=content_type.parameters,
        disposition=disposition.value.split(" ")[0],
        filename=next(filter(None, names), ""),
        content_id=charsets.one_line(first(message, "Content-ID"))[:500].strip("<> \t"),
        body=body,
        sure=content_type.sure and disposition.sure,
    )
    _fill(entity, reading, depth)
    return entity


def _type_for(value: str, default: str) -> str:
    """Return what a type without subtype, or none at all, means."""
    if not value:
        return default
    return {"html": "text/html", "multipart": "multipart/mixed"}.get(value, "text/plain")


def _read_header(data: bytes, message: Message, reading: _Reading) -> int:
    """Fill the header of `message`; return where its body begins."""
    at = _leading(data)
    fields = 0
    while at < len(data):
        found = _FIELD.match(data, at)
        if found is None:
            line = _LINE.match(data, at)
            end = line.end() if line else len(data)
            if not data[at:end].strip(b"\r\n"):
                return end
            if not _is_junk(data, at, end):
                return at  # the body begins without an empty line
            if not data.startswith((b"From ", b">From "), at):
                reading.notes.add(Note.BAD_HEADER)
        else:
            end = found.end()
            fields += 1
            if fields <= FIELDS_LIMIT:
                _add_field(message, found, reading)
            else:
                reading.notes.add(Note.BAD_HEADER)
        at = end
    return at


def _leading(data: bytes) -> int:
    """Return how much white space stands before the first field, if one follows it."""
    found = _LEADING.match(data)
    return found.end() if found and _KNOWN_FIELD.match(data, found.end()) else 0


def _add_field(message: Message, found: re.Match[bytes], reading: _Reading) -> None:
    value = found[2].lstrip(b" \t")
    if len(value) > charsets.VALUE_LIMIT:
        reading.notes.add(Note.BAD_HEADER)
        value = value[: charsets.VALUE_LIMIT]
    message.set_raw(found[1].decode("ascii"), value.decode("ascii", "surrogateescape"))


def _is_junk(data: bytes, at: int, end: int) -> bool:
    """Return whether a line that is no field stands in the middle of a header.

    That is so for the first line of a mailbox file, where a field that mails have follows, and
    for a field with a name that none may have, where any follows.
    """
    if at == 0 and data.startswith((b"From ", b">From ")):
        return True
    if at == 0:
        return False
    broken = _BROKEN_FIELD.match(data, at) is not None
    return (_FIELD if broken else _KNOWN_FIELD).match(data, end) is not None


# Bodies


def _fill(entity: Entity, reading: _Reading, depth: int) -> None:
    """Give `entity` its children, or its payload."""
    if depth >= DEEPEST and entity.kind.startswith(("multipart/", "message/")):
        reading.notes.add(Note.TOO_DEEP)
    elif entity.kind.startswith("multipart/"):
        _fill_multipart(entity, reading, depth)
    elif entity.kind == "message/delivery-status":
        _fill_status(entity)
    elif entity.kind.startswith("message/"):
        _fill_message(entity, reading, depth)
    if not entity.children and entity.message.get_payload() is None:
        kept = entity.body[:PAYLOAD_KEPT]
        entity.message.set_payload(kept.decode("ascii", "surrogateescape"))


def _fill_multipart(entity: Entity, reading: _Reading, depth: int) -> None:
    default = "message/rfc822" if entity.kind == "multipart/digest" else "text/plain"
    boundary = charsets.raw_bytes(first(entity.message, "Content-Type"))
    boundary = _boundary(boundary, entity.parameters.get("boundary", ""))
    pieces = _pieces(entity.body, boundary) if boundary else None
    if pieces is None and boundary.endswith((b" ", b"\t")):  # not allowed, and often lost
        pieces = _pieces(entity.body, boundary.rstrip())
    if pieces is None and (guessed := _GUESSED.search(entity.body)) is not None:
        pieces = _pieces(entity.body, guessed[1].removesuffix(b"--"))
    if pieces is None:
        return  # no multipart after all: its text is all there is
    preamble, slices = pieces
    entity.message.preamble = preamble.decode("ascii", "surrogateescape")
    for start, end in slices:
        reading.parts += 1
        if reading.parts > PARTS_LIMIT:
            reading.notes.add(Note.TOO_MANY_PARTS)
            break
        child = _entity(entity.body[start:end], reading, depth=depth + 1, default=default)
        entity.children.append(child)
        entity.message.attach(child.message)
    if not entity.children:
        entity.body = preamble


def _boundary(header: bytes, decoded_value: str) -> bytes:
    """Return the boundary as it stands: its bytes beyond ASCII and its blanks must match again."""
    found = _BOUNDARY.search(header)
    return (found[1] or found[2]) if found else decoded_value.encode("ascii", "replace")


def _pieces(body: bytes, boundary: bytes) -> tuple[bytes, Iterator[tuple[int, int]]] | None:
    """Cut `body` at the lines that are its boundary (RFC 2046 section 5.1.1).

    Returns:
        What stands before the first, and where the parts begin and end; None if there is none.
    """
    lines = _delimiters(body, boundary)
    found = next(lines, None)
    if found is None:
        return None
    return body[: _without_line_end(body, found[0])], _between(body, found, lines)


def _between(
    body: bytes, line: tuple[int, int, bool], lines: Iterator[tuple[int, int, bool]]
) -> Iterator[tuple[int, int]]:
    _, begin, closed = line
    for start, after, is_last in lines:
        end = max(begin, _without_line_end(body, start))
        # After the last boundary nothing should come; if something does, it is a part if it
        # begins like one (two messages glued together), else an epilogue.
        if not closed or _FIELD.match(body, begin):
            yield begin, end
        begin, closed = after, is_last
    if not closed:  # cut off, or nested in something that ended before
        yield begin, len(body)


def _delimiters(body: bytes, boundary: bytes) -> Iterator[tuple[int, int, bool]]:
    """Yield (start, end, whether it is the last one) of each line that is the boundary."""
    mark = b"--" + boundary
    at = -1
    for _ in range(CANDIDATES_LIMIT):
        at = body.find(mark, at + 1)
        if at < 0:
            return
        if at and body[at - 1] not in b"\r\n":
            continue
        line = _LINE.match(body, at + len(mark))
        end = line.end() if line else len(body)
        rest = body[at + len(mark) : min(end, at + len(mark) + 200)].strip()
        if rest in {b"", b"--"}:
            yield at, end, rest == b"--"
            at = end - 1


def _without_line_end(body: bytes, at: int) -> int:
    """Return `at` without the line end before it: that belongs to the boundary."""
    if at and body[at - 1] == 0x0A:
        at -= 1
    if at and body[at - 1] == 0x0D:
        at -= 1
    return at


def _fill_message(entity: Entity, reading: _Reading, depth: int) -> None:
    """Read the message inside; as the standard library, any message/* but a delivery status."""
    reading.parts += 1
    if reading.parts > PARTS_LIMIT:
        reading.notes.add(Note.TOO_MANY_PARTS)
        return
    child = _entity(entity.content(), reading, depth=depth + 1, default="text/plain")
    entity.children.append(child)
    entity.message.attach(child.message)


def _fill_status(entity: Entity) -> None:
    """Read a delivery status (RFC 3464 section 2.1): groups of fields, a message each."""
    at = 0
    body = entity.content()
    reading = _Reading("")
    while at < len(body) and reading.parts < PARTS_LIMIT:
        reading.parts += 1
        group: Message = Message(policy=compat32)
        end = _read_header(body[at:], group, reading) + at
        if end == at:  # words where fields should be: leave out the line
            line = _LINE.match(body, at)
            end = line.end() if line else len(body)
        if len(group):
            group.set_payload("")
            entity.message.attach(group)
        at = end


# Transfer encodings


def _encoding(message: Message) -> str:
    value = first(message, "Content-Transfer-Encoding")[:200]
    return charsets.one_line(value).lower().split(";")[0].split(" ")[0].strip("\"' ")


def decoded(body: bytes, encoding: str) -> bytes:
    """Return `body` without `encoding` (RFC 2045 section 6); what is broken as far as it goes."""
    match encoding:
        case "base64" | "b64" | "base-64":
            return charsets.unbase64(body)
        case "quoted-printable" | "quoted_printable" | "qp":
            return binascii.a2b_qp(_LINE_BLANKS.sub(b"", body))
        case "x-uuencode" | "uuencode" | "x-uue" | "uue":
            files = list(uuencoded(body))
            return files[0].content if files else body
        case _:
            return body


@dataclass(frozen=True, slots=True, kw_only=True)
class UuFile:
    """A file in a text: `start` and `end` are where its lines are, in bytes."""

    name: bytes
    content: bytes
    start: int
    end: int


def uuencoded(body: bytes) -> Iterator[UuFile]:
    """Yield the uuencoded files in `body` (POSIX uuencode); what only looks like one is not."""
    at = 0
    while (found := _UU_BEGIN.search(body, at)) is not None:
        start = found.start() + (body[found.start() : found.start() + 1] == b"\n")
        content, end = _uu_lines(body, found.end())
        if end < 0:
            at = found.end()
            continue
        yield UuFile(name=found[1].strip(), content=content, start=start, end=end)
        at = end - 1


def _uu_lines(body: bytes, at: int) -> tuple[bytes, int]:
    """Return the bytes of the lines from `at`, and where "end" ends; -1 if it never comes."""
    content = bytearray()
    while at < len(body):
        line = _LINE.match(body, at)
        text = line[0].rstrip(b"\r\n") if line else b""
        at = line.end() if line else len(body)
        if text.rstrip() == b"end":
            return (bytes(content), at) if content else (b"", -1)
        if not text.strip(b" `"):
            continue
        if _UU_LINE.fullmatch(text[:62]) is None:
            return b"", -1
        try:
            content += binascii.a2b_uu(text)
        except binascii.Error:
            # Some writers put a checksum behind; the first sign says how long the line is.
            length = (((text[0] - 32) & 63) * 4 + 5) // 3
            try:
                content += binascii.a2b_uu(text[:length])
            except binascii.Error:
                return b"", -1
    return b"", -1
