"""Outlook's winmail.dat: the files and the text in it (pure).

tnefparse is not used: it cuts zero bytes off the ends of files, gives all properties up for one
name in an unexpected code page, and copies what is left for each object, which makes small objects
quadratic. Sources: [MS-OXTNEF] sections 2.1.3 and 2.1.3.4, [MS-OXPROPS], [MS-OXRTFCP] section 2.
"""

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from contactd.mail import charsets

SIGNATURE: Final = b"\x78\x9f\x3e\x22"
OBJECTS_LIMIT: Final = 20_000
PROPERTIES_LIMIT: Final = 10_000  # of one object
BODY_LIMIT: Final = 4 << 20  # bytes of RTF

_TITLE, _DATA, _RENDERING, _ATTACHMENT = 0x8010, 0x800F, 0x9002, 0x9005
_CODE_PAGE, _MESSAGE, _BODY, _ATTACHMENT_LEVEL = 0x9007, 0x9003, 0x800C, 2
# Properties: of a message, of a file.
_TEXT, _HTML, _RTF, _INTERNET_CODE_PAGE = 0x1000, 0x1013, 0x1009, 0x3FDE
_FILENAME, _LONG_FILENAME, _DISPLAY_NAME, _CONTENT = 0x3704, 0x3707, 0x3001, 0x3701
_MIME_TAG, _CONTENT_ID = 0x370E, 0x3712
_STRING8, _UNICODE, _OBJECT, _BINARY, _INTEGER = 0x1E, 0x1F, 0x0D, 0x102, 0x03
# Bytes of a value of fixed length, padding included.
_FIXED: Final[Mapping[int, int]] = {
    0x00: 0, 0x01: 0, 0x02: 4, 0x03: 4, 0x04: 4, 0x05: 8, 0x06: 8, 0x07: 8, 0x0A: 4, 0x0B: 4,
    0x14: 8, 0x40: 8, 0x48: 16,
}  # fmt: skip
_OBJECT_ID: Final = 16  # bytes in front of an embedded object


@dataclass(frozen=True, slots=True, kw_only=True)
class TnefFile:
    name: str
    content: bytes = field(repr=False)
    media_type: str = ""
    content_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tnef:
    """`text` and `html` are "" where there is none."""

    text: str = ""
    html: str = ""
    files: tuple[TnefFile, ...] = ()


class NotTnef(Exception):
    """It is no TNEF, or a broken one."""


@dataclass(slots=True)
class _Draft:
    """A file while its objects are read."""

    name: bytes | str = b""
    content: bytes = b""
    properties: dict[int, bytes | str] = field(default_factory=dict)


@dataclass(slots=True)
class _Message:
    charset: str = "windows-1252"
    body: bytes = b""
    properties: dict[int, bytes | str] = field(default_factory=dict)
    drafts: list[_Draft] = field(default_factory=list)


def read(content: bytes) -> Tnef:
    """Return what is in a winmail.dat.

    Raises:
        NotTnef: nothing in it can be read; it should be kept as the file that it is.
    """
    if not content.startswith(SIGNATURE):
        raise NotTnef("no TNEF signature")
    message = _Message()
    try:
        for level, name, value in _objects(content):
            _take(message, level, name, value)
    except struct.error as error:
        raise NotTnef("a TNEF object ends early") from error
    files = tuple(file for draft in message.drafts if (file := _file(draft, message)) is not None)
    text, html = _texts(message)
    if not files and not text and not html:
        raise NotTnef("nothing in it")
    return Tnef(text=text, html=html, files=files)


def _objects(content: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield (level, name, value) of each object; a cut one ends them."""
    at = 6
    for _ in range(OBJECTS_LIMIT):
        if at + 11 > len(content):
            return
        level, name, _type, length = struct.unpack_from("<BHHI", content, at)
        at += 9
        yield level, name, content[at : at + length]
        at += length + 2  # its checksum
    raise NotTnef("too many objects")


def _take(message: _Message, level: int, name: int, value: bytes) -> None:
    if name == _RENDERING:
        message.drafts.append(_Draft())
    elif level == _ATTACHMENT_LEVEL and message.drafts:
        _take_of_file(message.drafts[-1], name, value)
    elif name == _CODE_PAGE:
        page = struct.unpack_from("<I", value)[0]
        message.charset = str(page) if charsets.codecs_of(str(page)) else message.charset
    elif name == _MESSAGE:
        message.properties.update(_properties(value))
    elif name == _BODY:
        message.body = value


def _take_of_file(draft: _Draft, name: int, value: bytes) -> None:
    if name == _TITLE:
        draft.name = value
    elif name == _DATA:
        draft.content = value
    elif name == _ATTACHMENT:
        draft.properties.update(_properties(value))


def _properties(data: bytes) -> Iterator[tuple[int, bytes | str]]:
    """Yield (id, value) of properties with a value that is text, bytes or a number."""
    count = min(struct.unpack_from("<I", data)[0], PROPERTIES_LIMIT)
    at = 4
    for _ in range(count):
        kind, name = struct.unpack_from("<HH", data, at)
        at += 4
        if name >= 0x8000:
            at = _after_name(data, at)
        values = 1
        if kind & 0x1000:
            kind &= 0xFFF
            values = min(struct.unpack_from("<I", data, at)[0], PROPERTIES_LIMIT)
            at += 4
            if kind in _FIXED:
                at += values * (_FIXED[kind] if kind not in {0x02, 0x0B} else 2)
                at += -at % 4
                continue
        elif kind not in _FIXED:
            values = min(struct.unpack_from("<I", data, at)[0], PROPERTIES_LIMIT)
            at += 4
        if kind in _FIXED:
            yield name, data[at : at + _FIXED[kind]]
            at += _FIXED[kind]
            continue
        for _ in range(values):
            length = struct.unpack_from("<I", data, at)[0]
            value = data[at + 4 : at + 4 + length]
            yield name, _text_or_bytes(kind, value)
            at += 4 + length + -length % 4


def _after_name(data: bytes, at: int) -> int:
    """Skip the name of a named property: a GUID, then a number or a text."""
    kind, length = struct.unpack_from("<II", data, at + 16)
    return at + 24 + (length + -length % 4 if kind else 0)


def _text_or_bytes(kind: int, value: bytes) -> bytes | str:
    if kind == _UNICODE:
        return value.decode("utf-16-le", "replace").rstrip("\0")
    return value.rstrip(b"\0") if kind == _STRING8 else value


def _file(draft: _Draft, message: _Message) -> TnefFile | None:
    properties = draft.properties
    content = draft.content
    embedded = properties.get(_CONTENT)
    if not content and isinstance(embedded, bytes):
        content = embedded[_OBJECT_ID:]
    if not content:
        return None
    names = (properties.get(_LONG_FILENAME), draft.name, properties.get(_FILENAME),
             properties.get(_DISPLAY_NAME))  # fmt: skip
    name = next((text for given in names if given and (text := _said(given, message))), "")
    return TnefFile(
        name=name,
        content=content,
        media_type=_said(properties.get(_MIME_TAG, b""), message).lower(),
        content_id=_said(properties.get(_CONTENT_ID, b""), message).strip("<>"),
    )


def _said(value: bytes | str, message: _Message) -> str:
    if isinstance(value, str):
        return value
    return charsets.text_of(value.rstrip(b"\0"), message.charset)[0]


def _texts(message: _Message) -> tuple[str, str]:
    properties = message.properties
    page = properties.get(_INTERNET_CODE_PAGE, b"")
    charset = message.charset
    if isinstance(page, bytes) and len(page) == 4:
        number = str(struct.unpack("<I", page)[0])
        charset = number if charsets.codecs_of(number) else charset
    html = properties.get(_HTML, b"")
    if isinstance(html, bytes):
        html = charsets.text_of(html.rstrip(b"\0"), charset)[0]
    text = _said(properties.get(_TEXT, b"") or message.body, message)
    rtf = properties.get(_RTF, b"")
    if not text and not html and isinstance(rtf, bytes):
        text = rtf_text(decompressed(rtf), message.charset)
    return text, html


# RTF

# What every dictionary begins with ([MS-OXRTFCP] section 2.1.2.1).
_PRIMED: Final = (
    rb"{\rtf1\ansi\mac\deff0\deftab720{\fonttbl;}{\f0\fnil \froman \fswiss \fmodern \fscript "
    rb"\fdecor MS Sans SerifSymbolArialTimes New RomanCourier{\colortbl\red0\green0\blue0"
    b"\r\n\\par \\pard\\plain\\f0\\fs20\\b\\i\\u\\tab\\tx"
)


def decompressed(data: bytes) -> bytes:
    """Return compressed RTF as RTF, b"" if it is none; what is cut as far as it goes."""
    if len(data) < 16:
        return b""
    _, raw_size, kind = struct.unpack_from("<III", data)
    if kind == 0x414C454D:  # "MELA": not compressed
        return data[16 : 16 + min(raw_size, BODY_LIMIT)]
    if kind != 0x75465A4C:  # "LZFu"
        return b""
    return _unpacked(data[16:], min(raw_size, BODY_LIMIT))


def _unpacked(data: bytes, limit: int) -> bytes:
    out = bytearray(_PRIMED)
    at = 0
    start = len(_PRIMED)
    while at < len(data) and len(out) - start < limit:
        flags = data[at]
        at += 1
        for bit in range(8):
            if not flags >> bit & 1:
                out += data[at : at + 1]
                at += 1
                continue
            if at + 2 > len(data):
                return bytes(out[start:])
            word = data[at] << 8 | data[at + 1]
            at += 2
            # The dictionary is a ring of 4,096 bytes: its place is the output's, modulo that.
            back = (len(out) - (word >> 4)) % 4096
            if back == 0:
                return bytes(out[start:])
            for _ in range((word & 15) + 2):
                out.append(out[-back] if back <= len(out) else 0x20)
    return bytes(out[start:])


_RTF_TOKEN: Final = re.compile(
    rb"\\([a-z]{1,32})(-?\d{1,10})? ?|\\'([0-9a-fA-F]{2})|\\([^a-z])|([{}])|[\r\n]+|([^\\{}\r\n]+)"
)
_SKIPPED: Final = frozenset(
    {b"fonttbl", b"colortbl", b"stylesheet", b"info", b"pict", b"object", b"header", b"footer",
     b"generator", b"listtable", b"listoverridetable", b"themedata", b"htmltag", b"mhtmltag",
     b"latentstyles", b"datastore", b"xmlnstbl"}
)  # fmt: skip
_BREAKS: Final[Mapping[bytes, bytes]] = {
    b"par": b"\n", b"line": b"\n", b"tab": b"\t", b"cell": b"\t", b"row": b"\n", b"page": b"\n",
    b"emdash": b"--", b"endash": b"-", b"bullet": b"-", b"lquote": b"'", b"rquote": b"'",
    b"ldblquote": b'"', b"rdblquote": b'"',
}  # fmt: skip


@dataclass(slots=True)
class _Group:
    """What holds inside a pair of braces."""

    is_skipped: bool = False
    after_unicode: int = 1  # signs that follow \\u for readers without Unicode


def rtf_text(rtf: bytes, charset: str) -> str:
    """Return what RTF says, without its looks; its \\ansicpg goes before `charset`."""
    page = re.search(rb"\\ansicpg(\d{1,5})", rtf[:2000])
    named = page[1].decode() if page else ""
    reader = _RtfReader(named if charsets.codecs_of(named) else charset)
    for token in _RTF_TOKEN.finditer(rtf):
        reader.take(token)
    return reader.text()


class _RtfReader:
    def __init__(self, charset: str) -> None:
        self._charset = charset
        self._texts: list[str] = []
        self._run = bytearray()  # not decoded yet: a character can be several \\'xx
        self._groups = [_Group()]
        self._left_out = 0

    def take(self, token: re.Match[bytes]) -> None:
        word, number, code, symbol, brace, plain = token.groups()
        group = self._groups[-1]
        if brace:
            self._brace(brace, group)
        elif word in _SKIPPED or symbol == b"*":
            group.is_skipped = True
        elif group.is_skipped:
            return
        elif word:
            self._word(word, number, group)
        elif code:
            self._bytes(bytes((int(code, 16),)))
        else:
            self._bytes(plain or _SYMBOLS.get(symbol or b"", symbol or b""))

    def text(self) -> str:
        self._flush()
        joined = "".join(self._texts).encode("utf-16", "surrogatepass")
        return joined.decode("utf-16", "replace").strip("\0")

    def _brace(self, brace: bytes, group: _Group) -> None:
        if brace == b"{":
            self._groups.append(_Group(group.is_skipped, group.after_unicode))
        elif len(self._groups) > 1:
            self._groups.pop()

    def _word(self, word: bytes, number: bytes | None, group: _Group) -> None:
        if word == b"uc":
            group.after_unicode = max(0, min(int(number or 1), 8))
        elif word == b"u" and number:
            self._flush()
            self._texts.append(chr(int(number) % 65536))
            self._left_out = group.after_unicode
        else:
            self._run += _BREAKS.get(word, b"")

    def _bytes(self, text: bytes) -> None:
        left_out = min(self._left_out, len(text))
        self._left_out -= left_out
        self._run += text[left_out:]

    def _flush(self) -> None:
        if self._run:
            self._texts.append(charsets.text_of(bytes(self._run), self._charset)[0])
            self._run.clear()


_SYMBOLS: Final[Mapping[bytes, bytes]] = {b"~": b" ", b"_": b"-", b"-": b"", b"\n": b"\n"}
