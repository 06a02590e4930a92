"""Compare texts that went different ways: by the hash of what is left of them (pure)."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from email.header import decode_header
from email.utils import parseaddr
from typing import Final

_BLANKS: Final = re.compile(r"[ \t\xa0]+")
_LINE_END: Final = re.compile(rb"\r*\n|\r")
_TAGS: Final = re.compile(r"<[^>]*>")
# The first that fits is not enough: a set rarely says in which charset its files are.
_CHARSETS: Final = ("utf-8", "cp1252", "latin-1")


def lines(text: str) -> list[str]:
    """Return the lines of `text` that are not blank, without blanks around and runs of them."""
    unified = text.replace("\r\n", "\n").replace("\r", "\n")
    squeezed = (_BLANKS.sub(" ", line).strip() for line in unified.split("\n"))
    return [line for line in squeezed if line]


def plain(text: str) -> str:
    return "\n".join(lines(text))


def fingerprint(text: str) -> str:
    return digest(plain(text).encode("utf-8", "surrogatepass"))


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def newlines(content: bytes) -> bytes:
    """Return `content` with LF only: SMTP knows no bare LF, so a file may have gained CRs."""
    return content.replace(b"\r\n", b"\n")


def as_sent(raw: bytes) -> bytes:
    """Return `raw` as SMTP can carry it: each line end is CRLF (RFC 5321 section 2.3.8)."""
    return _LINE_END.sub(b"\r\n", raw)


def readings(content: bytes, declared: str) -> Iterator[str]:
    """Yield what `content` may say: in its declared charset, and in those often meant."""
    for charset in (declared, *_CHARSETS):
        try:
            yield content.decode(charset or "ascii")
        except (LookupError, UnicodeDecodeError):
            continue


def missing(these: Sequence[str], others: Sequence[str]) -> list[str]:
    """Return the lines of `these` that are not, in this order, among `others`."""
    lost, at = [], 0
    for line in these:
        try:
            at = others.index(line, at) + 1
        except ValueError:
            lost.append(line)
    return lost


def without_tags(html: str) -> str:
    return plain(_TAGS.sub(" ", html))


def subject_of(field: str) -> str:
    """Return a Subject field's text; the standard library is the second opinion here."""
    try:
        pieces = decode_header(field)
        return "".join(
            piece if isinstance(piece, str) else piece.decode(charset or "latin-1")
            for piece, charset in pieces
        )
    except (LookupError, ValueError):
        return field


def mailbox(field: str) -> tuple[str, str]:
    """Return name and lower-case address of a From field."""
    name, address = parseaddr(field)
    return name, address.lower()


def short(text: str, width: int = 60) -> str:
    """Return `text` on one line, at most `width` characters."""
    line = " ".join(text.split())
    return repr(line if len(line) <= width else line[: width - 1] + "…")


def listed(found: Iterable[str]) -> str:
    return ", ".join(sorted(found)) or "nothing"
