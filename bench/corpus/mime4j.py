"""Apache James mime4j: each leaf of a mail has to be somewhere, decoded."""

import binascii
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from email import message_from_string
from email.message import Message
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from bench.corpus import words
from bench.corpus.marks import Case, Judgement, MailSet, Rate, SetReader, judgement
from contactd.mail import htmltext
from contactd.mail.parsed import Parsed
from contactd.mail.parsing import parse

LEAVES: Final = ("text-body", "binary-body")
RICH: Final = ("text/richtext", "text/enriched")  # RFC 1341, RFC 1896: shown without its marks
DEEPEST: Final = 20
_UUENCODED: Final = re.compile(
    rb"(?m)^begin [0-7]{3,4} [^\r\n]*\r?\n(?:[ -`]*\r?\n)*?end[ \t]*\r?$\n?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    name: str  # of the file that holds it
    content: bytes = field(repr=False)
    media_type: str
    charset: str


@dataclass(slots=True)
class Found:
    """What contactd shows of a mail and of the mails in it; `files` still want an owner."""

    texts: list[str] = field(default_factory=list)
    pages: list[str] = field(default_factory=list)
    files: list[bytes] = field(default_factory=list)
    taken: set[int] = field(default_factory=set)


def recognises(folder: Path) -> bool:
    return folder.name == "mime4j" or any(folder.glob("*/*_decoded.xml"))


def read(folder: Path) -> MailSet:
    """Return the mails that have leaves first; the others (no decoded part) are only answered."""
    cases = [_case(path, folder) for path in sorted(folder.rglob("*.msg"))]
    return MailSet(
        name="mime4j", cases=cases, rates=(Rate("leaves", "every leaf is there", 72 / 77),)
    )


def _case(path: Path, folder: Path) -> Case:
    leaves, subject = _expected(path)

    def judge(mail: Parsed) -> Judgement:
        return compare(mail, leaves, subject)

    return Case(name=str(path.relative_to(folder)), raw=path.read_bytes(), judge=judge)


def _expected(path: Path) -> tuple[list[Leaf], str | None]:
    root = ElementTree.parse(path.with_name(f"{path.stem}_decoded.xml")).getroot()
    leaves = list(_leaves(root, path.parent))
    subject = _headers(root).get("Subject")
    return leaves, None if subject is None else words.subject_of(str(subject))


def _headers(entity: ElementTree.Element) -> Message:
    fields = (one.text or "" for one in entity.findall("header/field"))
    return message_from_string("\n".join(one.lstrip("\r\n") for one in fields) + "\n\n")


def _leaves(entity: ElementTree.Element, folder: Path) -> Iterator[Leaf]:
    headers = _headers(entity)
    for child in entity:
        if child.tag in LEAVES:
            name = child.attrib["name"]
            yield Leaf(
                name=name,
                content=(folder / name).read_bytes(),
                media_type=headers.get_content_type(),
                charset=str(headers.get_content_charset() or ""),
            )
        else:
            yield from _leaves(child, folder)


def compare(mail: Parsed, leaves: Sequence[Leaf], subject: str | None) -> Judgement:
    """Return whether each leaf's content is in the text, the HTML or a file of `mail`.

    Nothing to be found is nothing lost: blank leaves count as there. What is in `mail` beyond the
    leaves is near: another reading of a broken structure.
    """
    found = Found()
    _collect(mail, found, 0)
    absent = [leaf for leaf in leaves if not _take(leaf, found)]
    scattered = [leaf for leaf in absent if _is_scattered(leaf, found)]
    wrong = [f"{_named(leaf)} is missing" for leaf in absent if leaf not in scattered]
    near = [f"{_named(leaf)} has other lines in it" for leaf in scattered]
    if subject is not None and words.fingerprint(subject) != words.fingerprint(mail.subject):
        near.append(f"subject {words.short(mail.subject)}, expected {words.short(subject)}")
    near += [
        f"a file beyond the leaves ({len(content)} bytes, "
        f"{words.short(content[:200].decode('latin-1'), 40)})"
        for number, content in enumerate(found.files)
        if number not in found.taken and content.strip()
    ]
    facts = {"leaves": not wrong} if leaves else {}
    return judgement(wrong, near, facts)


def _named(leaf: Leaf) -> str:
    begins = next(words.readings(leaf.content[:200], leaf.charset), "")
    return f"{leaf.name} ({leaf.media_type}, {len(leaf.content)} bytes, {words.short(begins, 40)})"


def _collect(mail: Parsed, found: Found, depth: int) -> None:
    found.texts.append(words.plain(mail.text))
    found.pages.append(_page(mail.html))
    for part in mail.parts:
        found.files.append(part.content)
        if part.media_type == "message/rfc822" and depth < DEEPEST:
            found.taken.add(len(found.files) - 1)
            _collect(parse(part.content), found, depth + 1)


def _take(leaf: Leaf, found: Found) -> bool:
    """Find `leaf` and mark the files that hold it as taken."""
    if not leaf.content.strip():
        return True
    if _take_file(leaf, found):
        return True
    rest = _without_uuencoded(leaf, found)
    if rest.content != leaf.content:
        return _take(rest, found)
    return any(
        _is_shown(leaf, reading, found) for reading in words.readings(leaf.content, leaf.charset)
    )


def _take_file(leaf: Leaf, found: Found) -> bool:
    for number, content in enumerate(found.files):
        if number not in found.taken and _is_same(leaf, content):
            found.taken.add(number)
            return True
    return False


def _without_uuencoded(leaf: Leaf, found: Found) -> Leaf:
    """Leave out of a text the uuencoded files that contactd shows as files, and take these."""
    if leaf.media_type != "text/plain":
        return leaf

    def shown(block: re.Match[bytes]) -> bytes:
        file = replace(leaf, content=_uudecoded(block[0]), media_type="application/octet-stream")
        return b"" if _take_file(file, found) else block[0]

    return replace(leaf, content=_UUENCODED.sub(shown, leaf.content))


def _uudecoded(block: bytes) -> bytes:
    """Return what is encoded, as far as it can be read; a line's padding may be cut or longer."""
    pieces = []
    for line in block.splitlines()[1:-1]:
        characters = (((line[0] - 32) & 63) + 2) // 3 * 4 if line else 0
        with suppress(binascii.Error):
            pieces.append(binascii.a2b_uu(line[: 1 + characters]))
    return b"".join(pieces)


def _is_same(leaf: Leaf, content: bytes) -> bool:
    if words.digest(words.newlines(leaf.content)) == words.digest(words.newlines(content)):
        return True
    if not leaf.media_type.startswith("text/"):
        return False
    # a file may end with the line end that SMTP or the boundary needs
    return leaf.content.strip() == content.strip() or any(
        words.fingerprint(one) == words.fingerprint(other)
        for one in words.readings(leaf.content, leaf.charset)
        for other in words.readings(content, leaf.charset)
    )


def _is_shown(leaf: Leaf, reading: str, found: Found) -> bool:
    if leaf.media_type in RICH:
        text = _page(words.without_tags(reading))
        return bool(text) and any(text in _page(one) for one in found.texts)
    if leaf.media_type == "text/html" and (page := _page(htmltext.safe(reading) or "")):
        return any(page in one for one in found.pages)
    if leaf.media_type == "text/html":
        reading = htmltext.text_from(reading)
    return _is_in(words.plain(reading), found.texts)


def _is_scattered(leaf: Leaf, found: Found) -> bool:
    """Tell whether all lines are there with others between: another idea of where a part ends."""
    lines = words.lines(next(words.readings(leaf.content, leaf.charset), ""))
    return bool(lines) and any(not words.missing(lines, text.split("\n")) for text in found.texts)


def _is_in(text: str, texts: Sequence[str]) -> bool:
    """Tell whether the lines of `text` are together in one of `texts`, nothing between them."""
    return not text or any(f"\n{text}\n" in f"\n{one}\n" for one in texts)


def _page(html: str) -> str:
    return re.sub(r"\s+", "", html)


SET: Final = SetReader(recognises, read)
