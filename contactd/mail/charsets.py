"""Bytes of mails into text: labels that lie, no labels, encoded words, parameters (pure).

What is here never raises: a mail that is shown a little wrong is better than none. Everything is
linear in its input.
"""

import binascii
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_to_bytes

VALUE_LIMIT: Final = 64 * 1024  # characters of one header; longer ones are attacks
PIECES_LIMIT: Final = 500  # parameters of one header, pieces counted (RFC 2231 section 3)

# Labels whose writers mean a superset of what they say (WHATWG Encoding Standard, section 4.2).
# The second name is tried when the first cannot read a byte.
_CHINESE: Final = ("gb18030",)
_TAIWANESE: Final = ("cp950", "big5hkscs")
_JAPANESE: Final = ("cp932", "shift_jis_2004")
_KOREAN: Final = ("cp949",)
_WESTERN: Final = ("cp1252", "latin-1")
_NOBODY: Final[tuple[str, ...]] = ()
CODECS: Final[Mapping[str, tuple[str, ...]]] = {
    "gb2312": _CHINESE, "gbk": _CHINESE, "gb18030": _CHINESE, "cp936": _CHINESE,
    "gb_2312-80": _CHINESE, "gb2312-80": _CHINESE, "x-gbk": _CHINESE, "euc-cn": _CHINESE,
    "windows-936": _CHINESE, "ms936": _CHINESE, "chinese": _CHINESE, "csgb2312": _CHINESE,
    "gb": _CHINESE, "gb-2312": _CHINESE, "gb_2312": _CHINESE, "iso-ir-58": _CHINESE,
    "gb_1988-80": _CHINESE, "x-euc-cn": _CHINESE, "936": _CHINESE,
    "hz-gb-2312": ("hz",), "hz": ("hz",),
    "big5": _TAIWANESE, "big-5": _TAIWANESE, "cn-big5": _TAIWANESE, "x-x-big5": _TAIWANESE,
    "cp950": _TAIWANESE, "csbig5": _TAIWANESE, "x-big5": _TAIWANESE, "big5-eten": _TAIWANESE,
    "windows-950": _TAIWANESE, "big5-hkscs": ("big5hkscs", "cp950"), "big5hkscs": ("big5hkscs",),
    "shift_jis": _JAPANESE, "shift-jis": _JAPANESE, "x-sjis": _JAPANESE, "sjis": _JAPANESE,
    "windows-31j": _JAPANESE, "ms_kanji": _JAPANESE, "cp932": _JAPANESE, "csshiftjis": _JAPANESE,
    "euc-jp": ("euc_jp", "euc_jis_2004"), "x-euc-jp": ("euc_jp", "euc_jis_2004"),
    "eucjp": ("euc_jp", "euc_jis_2004"),
    "euc-kr": _KOREAN, "ks_c_5601-1987": _KOREAN, "ks_c_5601": _KOREAN, "ksc5601": _KOREAN,
    "ks_c_5601-1989": _KOREAN, "korean": _KOREAN, "cp949": _KOREAN, "windows-949": _KOREAN,
    "iso-8859-1": _WESTERN, "latin1": _WESTERN, "latin-1": _WESTERN, "windows-1252": _WESTERN,
    "cp1252": _WESTERN, "iso8859-1": _WESTERN, "iso_8859-1": _WESTERN, "cp-1252": _WESTERN,
    "x-ansi": _WESTERN, "iso-8859-9": ("cp1254", "iso8859_9"), "windows-874": ("cp874",),
    "tis-620": ("cp874", "tis_620"), "iso-8859-11": ("cp874",), "iso-8859-8-i": ("iso8859_8",),
    "iso-8859-8-e": ("iso8859_8",), "koi8-ru": ("koi8_u",), "x-mac-cyrillic": ("mac_cyrillic",),
    "macintosh": ("mac_roman",), "x-mac-roman": ("mac_roman",), "mac": ("mac_roman",),
    "utf8": ("utf-8",), "x-utf-8": ("utf-8",), "utf-8mb4": ("utf-8",), "unicode": ("utf-8",),
    "unicode-1-1-utf-8": ("utf-8",), "unicode-1-1-utf-7": ("utf-7",), "x-unicode-2-0-utf-7":
    ("utf-7",), "unicode-2-0-utf-7": ("utf-7",), "utf7": ("utf-7",),
    "us-ascii": _NOBODY, "ascii": _NOBODY, "ansi_x3.4-1968": _NOBODY, "iso646-us": _NOBODY,
    "unknown-8bit": _NOBODY, "x-unknown": _NOBODY, "unknown": _NOBODY, "8bit": _NOBODY,
    "binary": _NOBODY, "default": _NOBODY, "x-user-defined": _NOBODY, "_autodetect": _NOBODY,
}  # fmt: skip
_STATEFUL: Final = ("iso2022", "hz", "utf_7", "utf-7", "utf7")  # 7-bit, and yet not ASCII
_EAST_ASIAN: Final = frozenset(
    {"gb18030", "cp950", "big5hkscs", "cp932", "euc_jp", "cp949", "shift_jis_2004", "euc_jis_2004"}
)
# Codecs of Python that are no charsets: a mail that names one gets none.
_NO_TEXT: Final = frozenset(
    {"base64", "bz2", "hex", "quopri", "rot-13", "rot13", "uu", "zip", "zlib", "idna", "punycode",
     "unicode-escape", "raw-unicode-escape", "undefined", "mbcs", "oem", "palmos", "bz2_codec"}
)  # fmt: skip

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufeff\ufffe\uffff]")
# Explicit embeddings, overrides and isolates (UAX 9): they make exe.txt out of txt.exe.
_BIDI: Final = re.compile("[\u202a-\u202e\u2066-\u2069]")
_HIGH: Final = re.compile(rb"[\x80-\xff]")
_LONG_UTF8: Final = re.compile(rb"[\xe0-\xf4][\x80-\xbf]{2}")


def text_of(data: bytes, declared: str, hint: str = "") -> tuple[str, bool]:
    """Return `data` as text, and whether we are sure of it.

    The ladder: a byte order mark, valid UTF-8 even against the label, the label, then `hint` if
    it makes plausible Chinese, Big5 on the same terms (unsure), else windows-1252 (unsure).
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace"), True
    names = codecs_of(declared)
    if data.isascii():
        return _seven_bit(data, names)
    if names and names[0].startswith(("utf-16", "utf-32", "utf_16", "utf_32")):
        return data.decode(names[0], "replace"), True
    if (text := _strict(data, "utf-8")) is not None and _utf8_wins(data, names):
        return text, True
    return _labelled(data, names, hint) or _unlabelled(data, names, hint)


def _seven_bit(data: bytes, names: tuple[str, ...]) -> tuple[str, bool]:
    if names and names[0].replace("-", "_").startswith(_STATEFUL):
        return _stateful(data, names[0])
    if names and names[0].startswith(("utf-16", "utf_16", "utf-32", "utf_32")) and b"\0" in data:
        return data.decode(names[0], "replace"), True
    if b"\x1b$" in data:  # nobody else writes this
        return _stateful(data, "iso2022_jp")
    return data.decode("ascii"), True


def _stateful(data: bytes, name: str) -> tuple[str, bool]:
    if (text := _strict(data, name)) is not None:
        return text, True
    if name.startswith("iso2022") and "kr" not in name and "cn" not in name:
        return _microsoft_jis(data), True
    return data.decode(name, "replace"), False


def _microsoft_jis(data: bytes) -> str:
    """Return ISO-2022-JP with the signs that Windows adds to it (code page 50221).

    Python knows neither NEC's row 13 nor half-width kana in it; Shift JIS has them in other places.
    """
    found: list[str] = []
    state = b"(B"
    for index, piece in enumerate(re.split(rb"\x1b(\$\([A-DO-Q]|\$[@AB]|\([BIJ])", data)):
        if index % 2:
            state = piece
        elif state == b"(I":
            found.append(bytes(byte | 0x80 for byte in piece).decode("cp932", "replace"))
        elif state.startswith(b"$"):
            found.append(_shifted(piece).decode("cp932", "replace"))
        else:
            found.append(piece.decode("ascii", "replace"))
    return "".join(found)


def _shifted(pairs: bytes) -> bytes:
    """Return JIS X 0208 as Shift JIS; line ends inside stay (RFC 1468 forbids them)."""
    shifted = bytearray()
    for line in pairs.splitlines(keepends=True):
        body = line.rstrip(b"\r\n")
        for first, second in zip(body[::2], body[1::2], strict=False):
            lead = (first + 1) // 2 + (0x70 if first < 0x5F else 0xB0)
            odd = first % 2
            trail = second + (0x1F if second < 0x60 else 0x20) if odd else second + 0x7E
            shifted += bytes((min(lead, 255), min(trail, 255)))
        shifted += line[len(body) :]
    return bytes(shifted)


def _utf8_wins(data: bytes, names: tuple[str, ...]) -> bool:
    """Tell a text in UTF-8 from one in an East Asian charset that looks like it by accident.

    A few characters of those make valid two-byte sequences; three-byte ones need real UTF-8.
    """
    if not names or names[0] not in _EAST_ASIAN or _LONG_UTF8.search(data):
        return True
    text = _strict(data, names[0])
    return text is None or names[0] not in _COMMON or not _is_common(data, names[0])


def _labelled(data: bytes, names: tuple[str, ...], hint: str) -> tuple[str, bool] | None:
    for name in names:
        if (text := _strict(data, name)) is None:
            continue
        if names is _WESTERN and len(_HIGH.findall(data)) >= 8:
            # A label that programs put there without looking: iso-8859-1 on Chinese.
            guess = _plausible(data, hint)
            return (text, True) if guess is None else (guess, False)
        return text, True
    return None


def _unlabelled(data: bytes, names: tuple[str, ...], hint: str) -> tuple[str, bool]:
    if names:  # its label, with marks where it does not fit, unless it does not fit at all
        text = data.decode(names[0], "replace")
        if text.count("\ufffd") * 10 <= len(_HIGH.findall(data)):
            return text, False
    if (guess := _plausible(data, hint)) is not None:
        return guess, not names
    for name in codecs_of(hint)[:1]:
        if name not in _EAST_ASIAN and (text2 := _strict(data, name)) is not None:
            return text2, True
    guess = _plausible(data, "big5")
    return (guess if guess is not None else _western(data)), False


def _western(data: bytes) -> str:
    text = _strict(data, "cp1252")
    return data.decode("latin-1") if text is None else text


def _plausible(data: bytes, label: str) -> str | None:
    """Return `data` read as `label`, an East Asian charset, if that makes sense, else None.

    A guess of gb18030 turns a German o-umlaut into a rare character: everyday text is made of
    the frequent ones, which the charsets have in a block of their own.
    """
    for name in codecs_of(label):
        if name in _COMMON and (text := _strict(data, name)) is not None and _is_common(data, name):
            return text
    return None


# By codec: one sign beyond ASCII, and one that is frequent. GB 2312: level 1 (B0–D7) and signs;
# Big5: level 1 (A4–C6) and signs; Japanese: kana, level 1 and signs; Korean: Hangul and signs.
_GB_SIGN: Final = re.compile(
    rb"[\x81-\xfe][\x30-\x39][\x81-\xfe][\x30-\x39]|[\x80-\xff][\x40-\xff]"
)
_PAIR: Final = re.compile(rb"[\x80-\xff][\x40-\xff]")
_COMMON: Final[Mapping[str, tuple[re.Pattern[bytes], re.Pattern[bytes]]]] = {
    "gb18030": (_GB_SIGN, re.compile(rb"[\xb0-\xd7\xa1\xa3][\xa1-\xfe]")),
    "cp950": (_PAIR, re.compile(rb"[\xa1\xa4-\xc6][\x40-\x7e\xa1-\xfe]")),
    "big5hkscs": (_PAIR, re.compile(rb"[\xa1\xa4-\xc6][\x40-\x7e\xa1-\xfe]")),
    "cp932": (
        re.compile(rb"[\x81-\x9f\xe0-\xfc][\x40-\xfc]|[\xa1-\xdf]"),
        re.compile(rb"[\x81-\x83\x88-\x97][\x40-\xfc]"),
    ),
    "euc_jp": (_PAIR, re.compile(rb"[\xa1\xa4\xa5\xb0-\xcf][\xa1-\xfe]")),
    "cp949": (_PAIR, re.compile(rb"[\xa1\xb0-\xc8][\xa1-\xfe]")),
}


def _is_common(data: bytes, name: str) -> bool:
    """Return whether nine in ten of the signs beyond ASCII are frequent in charset `name`."""
    sign, common = _COMMON[name]
    signs = sign.findall(data)
    return sum(1 for found in signs if common.fullmatch(found)) * 10 >= len(signs) * 9


def _strict(data: bytes, name: str) -> str | None:
    try:
        return data.decode(name)
    except (UnicodeError, LookupError, ValueError):
        return None


@lru_cache(maxsize=512)
def codecs_of(label: str) -> tuple[str, ...]:
    """Return the codecs that a label stands for, () if none that Python knows."""
    name = label.strip(" \t\r\n\"'").lower()[:40]
    if (known := CODECS.get(name)) is not None:
        return known
    if not name or name in _NO_TEXT or name.replace("_", "-") in _NO_TEXT:
        return ()
    if name.startswith("iso-2022-jp"):
        return ("iso2022_jp_ext",)
    try:
        b"a".decode(name)
    except (LookupError, ValueError, TypeError):
        return _codec_of_code_page(name)
    return (name,)


def _codec_of_code_page(name: str) -> tuple[str, ...]:
    found = re.fullmatch(r"(?:windows|cp|ibm|dos|x-cp)?[-_ ]?(\d{3,5})", name)
    if found is None:
        return ()
    page = {"936": "gb2312", "950": "big5", "932": "shift_jis", "949": "euc-kr", "65001": "utf-8",
            "54936": "gb18030", "20936": "gb2312", "50220": "iso-2022-jp", "50221": "iso-2022-jp",
            "51932": "euc-jp", "28591": "iso-8859-1"}.get(found[1])  # fmt: skip
    if page is not None:
        return codecs_of(page)
    return () if _strict(b"a", f"cp{found[1]}") is None else (f"cp{found[1]}",)


def clean(text: str) -> str:
    """Return `text` with \\n for every line end and without control signs but \\n and \\t."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = text.replace("\x0c", "\n").replace("\u2028", "\n").replace("\u2029", "\n")
    return _CONTROL.sub("", text) if _CONTROL.search(text) else text


def one_line(text: str) -> str:
    """Return `text` on one line, without control signs and without reordering signs."""
    line = re.sub(r"[\t\n]+", " ", clean(text))
    return (_BIDI.sub("", line) if _BIDI.search(line) else line).strip()


# Headers

_WORD: Final = re.compile(rb"=\?([^?\s=]{1,80})\?([bBqQ])\?")
_Q_ESCAPE: Final = re.compile(rb"=([0-9A-Fa-f]{2})")
_FOLD: Final = re.compile(rb"\r?\n(?=[ \t])|[\r\n]+\Z")


@dataclass(frozen=True, slots=True)
class _Encoded:
    charset: str
    encoding: bytes  # b"b" or b"q"
    text: bytes


def raw_bytes(value: str | bytes) -> bytes:
    """Return a header's value as it came, if `str`: with surrogates in place of 8-bit bytes."""
    if isinstance(value, bytes):
        return value
    try:
        return value.encode("ascii", "surrogateescape")
    except UnicodeEncodeError:  # it is text already
        return value.encode("utf-8", "surrogateescape" if _has_only_escapes(value) else "replace")


def _has_only_escapes(value: str) -> bool:
    return not re.search("[\ud800-\udc7f\udd00-\udfff]", value)


def header_text(raw: str | bytes, hint: str = "") -> tuple[str, bool]:
    """Return a header's value as one line of text, and whether we are sure of it.

    Reads encoded words (RFC 2047) wherever they stand, with a character split over two of them,
    with a wrong or no charset, and bytes beyond ASCII that nobody encoded.
    """
    data = _FOLD.sub(b"", raw_bytes(raw)[:VALUE_LIMIT])
    if b"=?" not in data:
        text, sure = text_of(data, "", hint)
        return one_line(text), sure
    texts: list[str] = []
    all_sure = True
    for run in _runs(data):
        text, sure = _run_text(run, hint) if isinstance(run, list) else text_of(run, "", hint)
        texts.append(text)
        all_sure = all_sure and sure
    return one_line("".join(texts)), all_sure


def _runs(data: bytes) -> Iterator[bytes | list[_Encoded]]:
    """Yield plain text and runs of neighbouring encoded words; white space between is dropped."""
    run: list[_Encoded] = []
    at = 0
    while found := _WORD.search(data, at):
        end = data.find(b"?=", found.end())
        if end < 0:
            break
        between = data[at : found.start()]
        if between.strip(b" \t\r\n") or not run:
            if run:
                yield run
                run = []
            if between:
                yield between
        charset = found[1].partition(b"*")[0].decode("ascii", "replace")
        run.append(_Encoded(charset, found[2].lower(), data[found.end() : end]))
        at = end + 2
    if run:
        yield run
    if at < len(data):
        yield data[at:]


def _run_text(run: list[_Encoded], hint: str) -> tuple[str, bool]:
    """Decode words of one charset together: some writers cut characters in two."""
    texts: list[str] = []
    all_sure = True
    at = 0
    while at < len(run):
        charset = run[at].charset.lower()
        content = bytearray()
        left_over = b""  # base64 that was cut between groups of four
        while at < len(run) and run[at].charset.lower() == charset:
            word = run[at]
            at += 1
            if word.encoding == b"q":
                content += unbase64(left_over) + _unquoted(word.text)
                left_over = b""
                continue
            text = left_over + re.sub(rb"[^A-Za-z0-9+/=_-]+", b"", word.text)
            whole = len(text) if text.endswith(b"=") else len(text) // 4 * 4
            content += unbase64(text[:whole])
            left_over = text[whole:]
        content += unbase64(left_over)
        text2, sure = text_of(bytes(content), charset, hint)
        texts.append(text2)
        all_sure = all_sure and sure
    return "".join(texts), all_sure


def _unquoted(text: bytes) -> bytes:
    return _Q_ESCAPE.sub(lambda found: bytes((int(found[1], 16),)), text.replace(b"_", b" "))


def unbase64(text: bytes) -> bytes:
    """Return base64 decoded as far as it goes; signs that are none of it do not matter."""
    try:
        content = binascii.a2b_base64(text)
    except binascii.Error:
        content = _broken_base64(text)
    else:
        padding = text.find(b"=")
        if 0 <= padding < len(text.rstrip(b"=\r\n\t -")) - 2:
            content = _broken_base64(text)  # several, one after the other
    return content


def _broken_base64(text: bytes) -> bytes:
    found = bytearray()
    for piece in re.sub(rb"[^A-Za-z0-9+/=]+", b"", text).split(b"="):
        whole = piece if len(piece) % 4 != 1 else piece[:-1]
        if whole:
            found += binascii.a2b_base64(whole + b"=" * (-len(whole) % 4))
    return bytes(found)


# Parameters

_VALUE: Final = re.compile(rb"[ \t\r\n]*([^;=\s]+)[ \t\r\n]*=[ \t\r\n]*")
_SECTION: Final = re.compile(r"([^*]+)(?:\*(\d{1,5}))?(\*)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameterised:
    """A header's value with parameters (RFC 2045 section 5.1, RFC 2183); names lower-case."""

    value: str
    parameters: Mapping[str, str]
    sure: bool = True


def parameterised(raw: str | bytes, hint: str = "") -> Parameterised:
    """Read Content-Type or Content-Disposition.

    Knows RFC 2231's charsets and continuations, and what is common without being allowed:
    encoded words, bare bytes beyond ASCII, spaces without quotes, quotes without an end.
    """
    data = _FOLD.sub(b"", raw_bytes(raw)[:VALUE_LIMIT])
    head, _, rest = data.partition(b";")
    pieces: dict[str, dict[int, tuple[bytes, bool]]] = {}
    for key, value in _attributes(rest):
        found = _SECTION.fullmatch(key)
        if found is not None:
            section = int(found[2] or 0)
            # An encoded whole goes before a plain one: `filename*` is there for who can read it.
            if found[3] is None and found[2] is None and 0 in pieces.get(found[1], {}):
                continue
            pieces.setdefault(found[1], {})[section] = (value, found[3] is not None)
    parameters: dict[str, str] = {}
    all_sure = True
    for key, sections in pieces.items():
        parameters[key], sure = _joined(sections, hint)
        all_sure = all_sure and sure
    value_text = one_line(head.decode("ascii", "replace")).lower()
    return Parameterised(value=value_text, parameters=parameters, sure=all_sure)


def _attributes(data: bytes) -> Iterator[tuple[str, bytes]]:
    at = 0
    for _ in range(PIECES_LIMIT):
        found = _VALUE.match(data, at)
        if found is None:
            at = data.find(b";", at) + 1
            if at == 0:
                return
            continue
        value, at = _value(data, found.end())
        yield found[1].decode("ascii", "replace").lower(), value


def _value(data: bytes, at: int) -> tuple[bytes, int]:
    """Return the value that begins at `at`, and where the next parameter may begin."""
    if data[at : at + 1] == b'"':
        end = at + 1
        while (end := data.find(b'"', end)) >= 0 and _escaped(data, at + 1, end):
            end += 1
        if end > 0:
            semicolon = data.find(b";", end)
            value = re.sub(rb"\\([\"\\])", rb"\1", data[at + 1 : end])
            return value, len(data) if semicolon < 0 else semicolon + 1
        at += 1
    semicolon = data.find(b";", at)
    end = len(data) if semicolon < 0 else semicolon
    return data[at:end].strip(b" \t\r\n"), end + 1


def _escaped(data: bytes, start: int, at: int) -> bool:
    """Return whether an odd number of backslashes stands before `at`."""
    before = data[start:at]
    return (len(before) - len(before.rstrip(b"\\"))) % 2 == 1


def _joined(sections: Mapping[int, tuple[bytes, bool]], hint: str) -> tuple[str, bool]:
    charset = ""
    content = bytearray()
    was_encoded = False
    for index in sorted(sections):
        value, encoded = sections[index]
        if encoded and not was_encoded and value.count(b"'") >= 2:
            name, _, value = value.split(b"'", 2)
            charset = name.decode("ascii", "replace")
        was_encoded = was_encoded or encoded
        content += unquote_to_bytes(value) if encoded else value
    if was_encoded:
        text, sure = text_of(bytes(content), charset, hint)
        return one_line(text), sure
    return header_text(bytes(content), hint)
