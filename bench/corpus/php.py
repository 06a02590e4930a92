"""php-mime-mail-parser: subject, sender, text, HTML and files of each mail."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench.corpus import words
from bench.corpus.generic import definite
from bench.corpus.marks import Case, Judgement, MailSet, Rate, SetReader, judgement
from contactd.mail import htmltext
from contactd.mail.parsed import Parsed, Part

# What that parser calls a file without a name; any name of ours will do.
NAMELESS: Final = "noname"


def recognises(folder: Path) -> bool:
    return folder.name == "php-mime-mail-parser" and (folder / "expected.json").is_file()


def read(folder: Path) -> MailSet:
    facts = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    expected = {one["file"]: one for one in facts}
    cases = [
        _case(path, expected.get(path.name) or expected.get(path.stem))
        for path in sorted((folder / "mails").iterdir())
        if path.is_file()
    ]
    missing = sorted(set(expected) - {case.name for case in cases})
    return MailSet(
        name="php-mime-mail-parser",
        cases=cases,
        rates=(Rate("expected", "as expected", 24 / 25),),
        remark=f"no file for {words.listed(missing)}" if missing else "",
    )


def _case(path: Path, expected: Mapping[str, Any] | None) -> Case:
    def judge(mail: Parsed) -> Judgement:
        return definite(mail) if expected is None else compare(mail, expected)

    return Case(name=path.name, raw=path.read_bytes(), judge=judge)


def compare(mail: Parsed, expected: Mapping[str, Any]) -> Judgement:
    wrong = [
        *_heading(mail, expected),
        *_text(mail, expected["text"], expected["html"]),
        *_html(mail, expected["html"]),
        *_files(mail.parts, expected["attachments"]),
    ]
    return judgement(wrong, facts={"expected": not wrong})


def _heading(mail: Parsed, expected: Mapping[str, Any]) -> Iterator[str]:
    if words.fingerprint(mail.subject) != words.fingerprint(expected["subject"]):
        yield f"subject {words.short(mail.subject)}, not {words.short(expected['subject'])}"
    name, address = words.mailbox(expected["from"])
    if mail.sender.address != address:
        yield f"from {mail.sender.address!r}, not {address!r}"
    # a name that only repeats the address may be left out
    allowed = [name, ""] if name.lower() == address else [name]
    if words.plain(mail.sender.name) not in map(words.plain, allowed):
        yield f"name of the sender {mail.sender.name!r}, not {name!r}"


def _text(mail: Parsed, expected: Sequence[Any], html: Sequence[Any]) -> Iterator[str]:
    match expected:
        case ["COUNT", times, needle]:
            found = words.plain(mail.text).count(words.plain(needle))
            # the set counts in the plain text only, where the HTML may say it as well
            if found != times:
                yield f"{words.short(needle)} is {found} times in the text, not {times}"
        case ["MATCH", whole]:
            allowed = {words.fingerprint(whole)}
            if not whole.strip() and html[-1].strip():
                allowed.add(words.fingerprint(htmltext.text_from(mail.html)))
            if words.fingerprint(mail.text) not in allowed:
                yield f"text {words.short(mail.text)}, not {words.short(whole)}"
        case _:
            raise ValueError(f"not known: {expected}")


def _html(mail: Parsed, expected: Sequence[Any]) -> Iterator[str]:
    """Compare what can be seen of it: tags that are not safe or show nothing may be gone."""
    needle = expected[-1]
    if mail.html and not needle.strip():
        yield f"HTML {words.short(mail.html)} where there is none"
    if words.without_tags(needle) not in words.without_tags(mail.html):
        yield f"{words.short(needle)} is not in the HTML"


def _files(parts: Sequence[Part], expected: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if len(parts) != len(expected):
        yield (
            f"files {words.listed(part.name for part in parts)}, "
            f"not {words.listed(one['filename'] for one in expected)}"
        )
        return
    for part, one in zip(parts, expected, strict=True):
        yield from _file(part, one)


def _file(part: Part, expected: Mapping[str, Any]) -> Iterator[str]:
    name = expected["filename"]
    if part.name != name and not name.startswith(NAMELESS):
        yield f"file {part.name!r}, not {name!r}"
    if part.media_type != expected["mime"]:
        yield f"{name} is {part.media_type}, not {expected['mime']}"
    sizes = {len(part.content), len(words.newlines(part.content))}
    if expected["size"] not in sizes:
        yield f"{name} has {len(part.content)} bytes, not {expected['size']}"
    needle = expected["contains"]
    if needle and part.content.count(needle.encode()) != expected["count"]:
        yield f"{needle!r} is not {expected['count']} times in {name}"


SET: Final = SetReader(recognises, read)
