"""Edit the text of a desk file entry by entry, and say what a change means (pure).

Only the lines of the entry that changes are touched, so that comments stay where people wrote them.
Each edit is checked: what the new text says must be exactly what was meant, or it is refused.

An entry is known by its fingerprint, a digest of what it says: who edits one names the entry as it
was when the form was drawn. Whatever others change meanwhile elsewhere is kept; if they changed
this very entry, the edit is refused (`Stale`).
"""

import hashlib
import json
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import Item

from contactd.errors import ConfigurationError, PermanentFailure
from contactd.routing import deskfile
from contactd.routing.deskfile import DeskFile

# In the order of the file; `closing` is one table, the others are lists of tables.
SECTIONS: Final = (
    "sites", "engineers", "people", "teams", "rotations", "shifts", "windows", "overrides",
    "swaps", "leaves", "feeds", "calendars", "contracts", "policies", "rules", "closing",
)  # fmt: skip
CLOSING: Final = "closing"

Document = Mapping[str, Any]
Entry = Mapping[str, Any]

# A header line: names in brackets. Lines of lists (`["09:00"]`, `[1, 2]`) are none.
_HEADER: Final = re.compile(
    r"\s*\[\[?\s*([A-Za-z0-9_-]+)((?:\.[A-Za-z0-9_-]+)*)\s*\]\]?\s*(?:#.*)?"
)
_LINE: Final = re.compile(
    r"(?P<section>[a-z]+)(?:\.(?P<name>#?[^.:\s]+))?(?P<rest>[^:]*): (?P<text>.*)"
)
_WIDE: Final = 80  # characters of a list that goes on one line


class Stale(PermanentFailure):
    """The entry that was to be changed is not there any more as it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is wrong, and where: `name` is an entry's key, or `#3`; `field` "" is all of it."""

    section: str
    name: str
    field: str
    text: str

    def __str__(self) -> str:
        place = ".".join(part for part in (self.section, self.name, self.field) if part)
        return f"{place}: {self.text}" if place else self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What becomes of one entry: `before` None if it is new, `after` None if it goes."""

    section: str
    before: Entry | None
    after: Entry | None

    @property
    def fields(self) -> list[tuple[str, Any, Any]]:
        """Return each field that changes, with what it said and says; None where it is not."""
        before, after = self.before or {}, self.after or {}
        names = dict.fromkeys([*before, *after])
        return [
            (name, before.get(name), after.get(name))
            for name in names
            if before.get(name) != after.get(name)
        ]


def document(text: str) -> dict[str, Any]:
    """Return what a text says.

    Raises:
        ConfigurationError: it is not TOML.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"(file): not TOML: {error}") from error


def check(text: str) -> DeskFile:
    """Check a text as `contactd load` does it, but for the public holidays, which are stored.

    Raises:
        ConfigurationError: every error found, one a line, each with its place.
    """
    found = document(text)
    found.pop("holidays", None)  # the name of a file that only `contactd load` can read
    return deskfile.parse(found)


def faults(error: ConfigurationError) -> list[Fault]:
    """Return the lines of an error, each with its place."""
    return [_fault(line) for line in str(error).splitlines()]


def _fault(line: str) -> Fault:
    found = _LINE.fullmatch(line)
    if found is None or found["section"] not in SECTIONS:
        return Fault(section="", name="", field="", text=line)
    name, rest = found["name"] or "", found["rest"].strip(".")
    if found["section"] == CLOSING:
        name, rest = "", ".".join(part for part in (name, rest) if part)
    return Fault(section=found["section"], name=name, field=rest, text=found["text"])


def entries(found: Document, section: str) -> list[dict[str, Any]]:
    """Return the entries of a section in their order; `closing` is one or none."""
    value = found.get(section)
    if isinstance(value, Mapping):
        return [dict(value)]
    return [dict(entry) for entry in value or () if isinstance(entry, Mapping)]


def fingerprint(entry: Entry) -> str:
    """Return what tells whether an entry still says the same."""
    said = json.dumps(entry, sort_keys=True, default=repr)
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def place(found: Document, section: str, was: str) -> int:
    """Return where the entry is that says what it said.

    Raises:
        Stale: there is none.
    """
    for number, entry in enumerate(entries(found, section)):
        if fingerprint(entry) == was:
            return number
    raise Stale("somebody else has changed or removed this entry meanwhile")


# Editing


def put(text: str, section: str, entry: Entry, *, was: str = "") -> str:
    """Return the text with `entry` in place of the one with the fingerprint `was`, "": added.

    Raises:
        Stale: there is no such entry any more.
        PermanentFailure: this cannot be written by editing one entry.
    """
    found = document(text)
    if section == CLOSING and not was:
        was = fingerprint(found[CLOSING]) if CLOSING in found else ""
    number = place(found, section, was) if was else None
    wanted = _with(found, section, number, entry)
    return _proved(
        wanted,
        lambda: _in_place(text, section, number, lambda old: _changed(section, old, entry)),
        lambda: _in_place(text, section, number, lambda _: _written(section, entry)),
        lambda: _rewritten(text, section, wanted),
    )


def drop(text: str, section: str, was: str) -> str:
    """Return the text without the entry with the fingerprint `was`; comments above it stay.

    Raises:
        Stale: there is no such entry any more.
        PermanentFailure: this cannot be written by editing one entry.
    """
    found = document(text)
    number = place(found, section, was)
    wanted = _with(found, section, number, None)
    return _proved(
        wanted,
        lambda: _in_place(text, section, number, lambda _: ""),
        lambda: _rewritten(text, section, wanted),
    )


def move(text: str, section: str, was: str, step: int) -> str:
    """Return the text with an entry `step` places further down, negative: up, as far as it goes.

    Raises:
        Stale: there is no such entry any more.
    """
    found = document(text)
    number = place(found, section, was)
    listed = entries(found, section)
    to = max(0, min(len(listed) - 1, number + step))
    listed.insert(to, listed.pop(number))
    changed = text
    wanted = {**found, section: listed}
    if to != number:
        spans = _spans(text, section)
        if len(spans) == len(listed):
            changed = _swapped(text, spans, number, to)
    return _proved(wanted, lambda: changed, lambda: _rewritten(text, section, wanted))


def _with(found: Document, section: str, number: int | None, entry: Entry | None) -> dict[str, Any]:
    """Return what the text is to say."""
    wanted = deepcopy(dict(found))
    if section == CLOSING:
        wanted.pop(CLOSING, None)
        return {**wanted, CLOSING: dict(entry)} if entry else wanted
    listed = entries(found, section)
    if number is None:
        listed.append(dict(entry or {}))
    else:
        listed[number : number + 1] = [] if entry is None else [dict(entry)]
    wanted[section] = listed
    if not listed:
        del wanted[section]
    return wanted


def _proved(wanted: Document, *ways: Callable[[], str]) -> str:
    """Return the first text that says exactly what is wanted."""
    for way in ways:
        try:
            text = way()
            if _same(tomllib.loads(text), wanted):
                return text
        except (TOMLKitError, tomllib.TOMLDecodeError, ValueError):
            continue
    raise PermanentFailure("the file is written in a way that only editing it as text can change")


def _same(one: Document, other: Document) -> bool:
    return {k: v for k, v in one.items() if v != []} == {k: v for k, v in other.items() if v != []}


def _in_place(text: str, section: str, number: int | None, make: Callable[[str], str]) -> str:
    """Return the text with the lines of one entry made anew; a new one follows the last."""
    lines, spans = text.splitlines(), _spans(text, section)
    if number is not None:
        first, last = spans[number] if number < len(spans) else _nowhere()
        made = make("\n".join(lines[first:last])).strip("\n")
        if not made and last < len(lines) and not lines[last].strip():
            last += 1  # with the entry goes the line that set it apart
        lines[first:last] = made.splitlines()
        return "\n".join(lines) + "\n"
    added = make("").strip("\n").splitlines()
    at = spans[-1][1] if spans else len(lines)
    lines[at:at] = ["", *added] if at else added
    return "\n".join(lines) + "\n"


def _nowhere() -> tuple[int, int]:
    raise ValueError("the entry has no lines of its own")


def _swapped(text: str, spans: Sequence[tuple[int, int]], number: int, to: int) -> str:
    """Return the text with the lines of the entries in another order, comments where they are."""
    lines = text.splitlines()
    blocks = [lines[first:last] for first, last in spans]
    blocks.insert(to, blocks.pop(number))
    for (first, last), block in reversed(list(zip(spans, blocks, strict=True))):
        lines[first:last] = block
    return "\n".join(lines) + "\n"


def _spans(text: str, section: str) -> list[tuple[int, int]]:
    """Return the lines of each entry of a section, from its header to its last line."""
    lines = text.splitlines()
    headers = list(_headers(lines))
    spans = []
    for n, (at, name, rest) in enumerate(headers):
        if name == section and not rest:
            ends = next(
                (later for later, other, more in headers[n + 1 :] if other != section or not more),
                len(lines),
            )
            spans.append((at, _last(lines, at, ends)))
    return spans


def _headers(lines: Sequence[str]) -> Iterator[tuple[int, str, str]]:
    quote = ""  # of the text of several lines that we are in
    for at, line in enumerate(lines):
        if not quote and (found := _HEADER.fullmatch(line)):
            yield at, found[1], found[2]
        for mark in ('"""', "'''"):
            if quote in ("", mark) and line.count(mark) % 2:
                quote = "" if quote else mark


def _last(lines: Sequence[str], first: int, ends: int) -> int:
    """Return where an entry's own lines end: comments after a blank line belong to what follows."""
    at = first + 1
    last = at
    while at < ends:
        line = lines[at].strip()
        if line and (not line.startswith("#") or last == at):
            last = at + 1
        at += 1
    return last


def _changed(section: str, old: str, entry: Entry) -> str:
    """Return the lines of an entry with what changed; the rest is as somebody wrote it."""
    if not old:
        raise ValueError("it is new")
    parsed = tomlkit.parse(old)
    table: Any = parsed[section] if section == CLOSING else parsed[section][0]
    before = tomllib.loads(old)[section]
    said = before if section == CLOSING else before[0]
    for name in said.keys() - entry.keys():
        del table[name]
    for name, value in entry.items():
        if said.get(name) != value:
            table[name] = _item(value)
    return tomlkit.dumps(parsed)


def _written(section: str, entry: Entry) -> str:
    """Return the lines of an entry that is new, or cannot be changed in its own words."""
    header = f"[{section}]" if section == CLOSING else f"[[{section}]]"
    flat, nested = [], []
    for name, value in entry.items():
        if name == "promises" and isinstance(value, Mapping):
            nested += [_row(f"{section}.{name}", key, row) for key, row in value.items()]
            nested += [] if value else [f"[{section}.{name}]"]
        elif name == "steps" and isinstance(value, list):
            nested += ["\n".join([f"[[{section}.{name}]]", *_lines(step)]) for step in value]
        else:
            flat.append(_line(name, value))
    return "\n".join([header, *flat, *nested])


def _row(path: str, key: str, row: Entry) -> str:
    return "\n".join([f"[{path}.{key}]", *_lines(row)])


def _lines(entry: Entry) -> list[str]:
    return [_line(name, value) for name, value in entry.items()]


def _line(name: str, value: Any) -> str:
    return f"{tomlkit.key(name).as_string()} = {_item(value).as_string()}"


def _rewritten(text: str, section: str, wanted: Document) -> str:
    """Return the text with one section written anew, wherever and however it was written."""
    parsed = tomlkit.parse(text)
    parsed.pop(section, None)
    value = wanted.get(section)
    listed = [] if not value else [value] if section == CLOSING else value
    written = [_written(section, entry) for entry in listed]
    return "\n\n".join([tomlkit.dumps(parsed).rstrip("\n"), *written]) + "\n"


def _item(value: Any) -> Item:
    """Return a value as it is written in the file: tables and lists on lines of their own."""
    if isinstance(value, Mapping):
        table = tomlkit.inline_table()
        for name, each in value.items():
            table[name] = _item(each)
        return table
    if isinstance(value, list):
        listed = tomlkit.array()
        for each in value:
            listed.append(_item(each))
        listed.multiline(len(listed.as_string()) > _WIDE)
        return listed
    item: Item = tomlkit.item(value)
    return item


# What a change means


def summary(before: Document, after: Document) -> list[Change]:
    """Return what becomes of each entry that does not stay as it was, section by section."""
    return [change for section in SECTIONS for change in _changes(section, before, after)]


def _changes(section: str, before: Document, after: Document) -> Iterator[Change]:
    old, new = (entries(each, section) for each in (before, after))
    if old == new:
        return
    both = {fingerprint(entry) for entry in old} & {fingerprint(entry) for entry in new}
    left = [entry for entry in old if fingerprint(entry) not in both]
    added = [entry for entry in new if fingerprint(entry) not in both]
    for was, now in _paired(section, left, added):
        yield Change(section=section, before=was, after=now)
    if not left and not added:  # the order is all that changed
        yield Change(section=section, before={}, after={})


def _paired(
    section: str, left: Sequence[Entry], added: Sequence[Entry]
) -> Iterable[tuple[Entry | None, Entry | None]]:
    """Match entries by key; those without one in their order, if there are as many of both."""
    if section == CLOSING:
        return [(left[0] if left else None, added[0] if added else None)]
    keyed = {entry["key"]: entry for entry in left if "key" in entry}
    pairs: list[tuple[Entry | None, Entry | None]] = [
        (keyed.pop(entry.get("key"), None), entry) for entry in added if entry.get("key") in keyed
    ]
    matched = [after for _, after in pairs]
    gone = [*keyed.values(), *(entry for entry in left if "key" not in entry)]
    fresh = [entry for entry in added if entry not in matched]
    if len(gone) == len(fresh) == 1:
        return [*pairs, (gone[0], fresh[0])]
    return [*pairs, *((entry, None) for entry in gone), *((None, entry) for entry in fresh)]
