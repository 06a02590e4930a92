"""Any other folder of mails: each gets a definite answer, compared with what is said beside it.

What is said is a .json with the name of the mail, or the folder's expected.json (by file name, or a
list of objects with "file"), as far as it has the keys of `COMPARERS`.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from bench.corpus import words
from bench.corpus.marks import Case, Judgement, MailSet, Rate, SetReader, judgement
from contactd.mail.parsed import Note, Parsed

SUFFIXES: Final = (".eml", ".msg")
OTHERS: Final = (".json", ".md", ".xml", ".yml", ".html", ".py", ".out", ".mbox")
EXPECTED: Final = "expected.json"
_OUTLOOK: Final = b"\xd0\xcf\x11\xe0"  # Outlook's own .msg is no mail of the Internet's
_FROM_LINE: Final = re.compile(rb"(?:\A|(?<=\n\n)|(?<=\n\r\n))From [^\n]*\n")
_HEADER: Final = re.compile(
    rb"(?im)\A(?:From |(?:Return-Path|Received|Delivered-To|Envelope-to|From|To|Cc|Subject|Date"
    rb"|Reply-To|Message-ID|MIME-Version|Content-Type|X-[!-9;-~]+|DKIM-Signature|Sender)[ \t]*:)"
)


def recognises(folder: Path) -> bool:
    return any(True for _ in _mails(folder))


def read(folder: Path) -> MailSet:
    said = _said(folder)
    return MailSet(
        name=folder.name,
        cases=[_case(name, raw, said) for name, raw in _mails(folder)],
        rates=(Rate("compared", "as is said beside it"),),
    )


def _mails(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield what is a mail by its name or by its first line, and the mails of mbox files."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        name = str(path.relative_to(folder))
        if path.suffix.lower() == ".mbox":
            yield from _unpacked(name, path)
        elif _is_mail(path):
            yield name, path.read_bytes()


def _is_mail(path: Path) -> bool:
    with path.open("rb") as file:
        beginning = file.read(1000)
    if path.suffix.lower() in SUFFIXES:
        return not beginning.startswith(_OUTLOOK)
    return path.suffix.lower() not in OTHERS and _HEADER.match(beginning) is not None


def _unpacked(name: str, path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the mails of an mbox (RFC 4155) without their From lines."""
    for number, raw in enumerate(_FROM_LINE.split(path.read_bytes())[1:]):
        yield f"{name}#{number}", raw


def _said(folder: Path) -> Mapping[str, Mapping[str, Any]]:
    """Return what is known of each mail, by its name below `folder`."""
    said: dict[str, Mapping[str, Any]] = {}
    for path in sorted(folder.rglob("*.json")):
        with suppress(ValueError):
            content = json.loads(path.read_text(encoding="utf-8"))
            inside = path.parent.relative_to(folder)
            if path.name == EXPECTED:
                said |= {str(inside / name): one for name, one in _by_name(content)}
            elif isinstance(content, dict):
                said[str(inside / path.stem)] = content
    return said


def _by_name(content: Any) -> Sequence[tuple[str, Mapping[str, Any]]]:
    named = (
        content.items()
        if isinstance(content, dict)
        else [(one.get("file", ""), one) for one in content if isinstance(one, dict)]
    )
    return [(name, one) for name, one in named if isinstance(one, dict)]


def _case(name: str, raw: bytes, said: Mapping[str, Mapping[str, Any]]) -> Case:
    expected = said.get(name) or said.get(str(Path(name).with_suffix("")))

    def judge(mail: Parsed) -> Judgement:
        if expected is None or not set(expected) & set(COMPARERS):
            return definite(mail)
        return compare(mail, expected)

    return Case(name=name, raw=raw, judge=judge)


def definite(mail: Parsed) -> Judgement:
    """Judge a mail of which nobody says what is right: it has to be readable at all."""
    summary = (
        f"{mail.kind}, from {words.short(mail.sender.address)}, {words.short(mail.subject)}, "
        f"{len(mail.text)} characters, {len(mail.parts)} files, notes: {words.listed(mail.notes)}"
    )
    return judgement((), (summary,) if Note.UNREADABLE in mail.notes else ())


def compare(mail: Parsed, expected: Mapping[str, Any]) -> Judgement:
    wrong = [
        difference
        for key, comparer in COMPARERS.items()
        if key in expected
        for difference in comparer(mail, expected[key])
    ]
    return judgement(wrong, facts={"compared": not wrong})


def _subject(mail: Parsed, expected: Any) -> Iterator[str]:
    if words.fingerprint(mail.subject) != words.fingerprint(str(expected or "")):
        yield f"subject {words.short(mail.subject)}, not {words.short(str(expected))}"


def _from(mail: Parsed, expected: Any) -> Iterator[str]:
    _, address = words.mailbox(str(expected or ""))
    if mail.sender.address != address:
        yield f"from {mail.sender.address!r}, not {address!r}"


def _text(mail: Parsed, expected: Any) -> Iterator[str]:
    if words.fingerprint(mail.text) != words.fingerprint(str(expected or "")):
        yield f"text {words.short(mail.text)}, not {words.short(str(expected))}"


def _kind(mail: Parsed, expected: Any) -> Iterator[str]:
    if mail.kind != expected:
        yield f"kind {mail.kind}, not {expected}"


def _files(mail: Parsed, expected: Any) -> Iterator[str]:
    """Compare by hash where there is one, else by name."""
    if all(one.get("sha256") for one in expected):
        wanted = {one["sha256"].lower(): str(one.get("filename") or "") for one in expected}
        found = {words.digest(part.content): part.name for part in mail.parts}
    else:
        wanted = {str(one.get("filename")): "" for one in expected}
        found = {part.name: part.name for part in mail.parts}
    for key in sorted(wanted.keys() - found.keys()):
        yield f"file {wanted[key]!r} ({key[:12]}) is missing"
    for key in sorted(found.keys() - wanted.keys()):
        yield f"file {found[key]!r} ({key[:12]}) is not expected"
    for key in sorted(wanted.keys() & found.keys()):
        if wanted[key] and wanted[key] != found[key]:
            yield f"file {found[key]!r}, not {wanted[key]!r}"


COMPARERS: Final[Mapping[str, Callable[[Parsed, Any], Iterator[str]]]] = {
    "subject": _subject,
    "from": _from,
    "text": _text,
    "kind": _kind,
    "attachments": _files,
}
SET: Final = SetReader(recognises, read)
