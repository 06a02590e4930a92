"""Address headers (From, To, …) into mailboxes, in one pass whatever is in them (pure)."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from contactd.mail import charsets
from contactd.mail.parsed import Mailbox

MAILBOXES_LIMIT: Final = 200  # of one header; twice what RFC 5321 has for one mail
ADDRESS_LIMIT: Final = 320  # characters: 64 + 1 + 255 (RFC 5321 section 4.5.3.1)
NAME_LIMIT: Final = 200  # characters

_SPECIAL: Final = re.compile(r'[\\"()<>,;:]')
_AROUND: Final = re.compile(r" ?([@.]) ?")
_IN_COMMENT: Final = re.compile(r"[()\\]")
_QUOTED_LOCAL: Final = re.compile(r'"[^"]{1,200}"@[^\s<>()",;:@]{1,255}')
_BARE: Final = re.compile(r"[^\s<>()\",;:]{1,128}@[^\s<>()\",;:@]{1,255}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mailboxes:
    found: tuple[Mailbox, ...]
    sure: bool = True  # of how the names are encoded
    cut: bool = False  # there were more


@dataclass(slots=True)
class _Draft:
    """One mailbox while it is read."""

    words: list[str]
    comments: list[str]
    route: list[str] | None = None  # what stands in <>


def mailboxes(raw: str | bytes, hint: str = "") -> Mailboxes:
    """Read an address header (RFC 5322 section 3.4), however broken; groups give their members.

    Encoded words are decoded after the addresses are told apart: a comma in a name stays one.
    """
    data = charsets.raw_bytes(raw)
    value = data[: charsets.VALUE_LIMIT].decode("ascii", "surrogateescape")
    found: list[Mailbox] = []
    all_sure = True
    for draft in _drafts(value):
        mailbox, sure = _mailbox(draft, hint)
        if mailbox is None:
            continue
        if len(found) == MAILBOXES_LIMIT:
            return Mailboxes(found=tuple(found), sure=all_sure, cut=True)
        found.append(mailbox)
        all_sure = all_sure and sure
    cut = len(data) > charsets.VALUE_LIMIT
    return Mailboxes(found=tuple(found), sure=all_sure, cut=cut)


def _drafts(value: str) -> Iterator[_Draft]:
    """Split `value` into mailboxes; a quote that never ends is a sign like any other."""
    draft = _Draft([], [])
    at = 0
    while (special := _SPECIAL.search(value, at)) is not None:
        _add(draft, value[at : special.start()])
        at = special.end()
        if special[0] in ",;":
            yield draft
            draft = _Draft([], [])
        elif special[0] == ":":  # the name of a group (or a word of none)
            draft = _Draft([], [])
        elif (reader := _READERS.get(special[0])) is not None:
            at = reader(value, at, draft)
    _add(draft, value[at:])
    yield draft


def _add(draft: _Draft, text: str) -> None:
    if text.strip() and draft.route is None:
        draft.words.append(text)


def _quoted(value: str, at: int, draft: _Draft) -> int:
    """Read a quoted string that begins before `at`; return where it ends."""
    end = at
    while (end := value.find('"', end)) >= 0 and _is_escaped(value, at, end):
        end += 1
    if end < 0:
        # Nothing after it is quoted either: take the rest up to what may be an address.
        bracket = value.find("<", at)
        _add(draft, value[at : bracket if bracket >= 0 else len(value)].replace('"', " "))
        return bracket if bracket >= 0 else len(value)
    text = re.sub(r"\\(.)", r"\1", value[at:end])
    follows = value[end + 1 : end + 2] == "@"  # "john doe"@example.org
    _add(draft, f'"{text}"' if follows else text or " ")
    return end + 1


def _is_escaped(value: str, start: int, at: int) -> bool:
    count = 0
    while at - 1 - count >= start and value[at - 1 - count] == "\\":
        count += 1
    return count % 2 == 1


def _comment(value: str, at: int, draft: _Draft) -> int:
    """Read a comment (they nest) that begins before `at`; return where it ends."""
    depth, start = 1, at
    while depth:
        found = _IN_COMMENT.search(value, at)
        if found is None:
            return len(value)
        at = found.end() + (found[0] == "\\")
        depth += {"(": 1, ")": -1}.get(found[0], 0)
    draft.comments.append(value[start : at - 1])
    return at


def _backslash(value: str, at: int, draft: _Draft) -> int:
    _add(draft, value[at : at + 1])
    return at + 1


def _route(value: str, at: int, draft: _Draft) -> int:
    """Read what stands in <> (RFC 5322 sections 3.4.1 and 4.4); return where it ends."""
    route = draft.route = [] if draft.route is None else draft.route
    end = value.find(">", at)
    comma = value.find(",", at)
    if end < 0:
        end = comma if comma >= 0 else len(value)
        route.append(value[at:end])
        return end
    text = value[at:end]
    route.append(text.rpartition(":")[2] if text.startswith("@") else text)
    return end + 1


_READERS: Final[Mapping[str, Callable[[str, int, _Draft], int]]] = {
    '"': _quoted, "(": _comment, "<": _route, "\\": _backslash,
}  # fmt: skip


def _mailbox(draft: _Draft, hint: str) -> tuple[Mailbox | None, bool]:
    words = [word.strip() for word in draft.words]
    if draft.route is not None:
        address = "".join("".join(draft.route).split()).strip("<>")
        name, sure = charsets.header_text(" ".join(words), hint)
    else:
        address, name, sure = _without_route("".join(draft.words), draft.comments, hint)
    if not name and draft.comments:
        name, sure = charsets.header_text(draft.comments[0], hint)
    if "@" not in address:
        address, name = _hidden(address, name)
    if not address and not name:
        return None, True
    return Mailbox(address=_address(address), name=_name(name)), sure


def _without_route(text: str, comments: list[str], hint: str) -> tuple[str, str, bool]:
    """Read a mailbox without <>: user@host, perhaps with a name (comment) around it."""
    if "=?" not in text:
        compact = _AROUND.sub(r"\1", " ".join(text.split()))
        if "@" in compact and not re.search(r"[ \t\r\n]", compact):
            return compact, "", True
    if (quoted := _QUOTED_LOCAL.fullmatch(text.strip())) is not None:
        return quoted[0], "", True
    line, sure = charsets.header_text(text, hint)
    found = _BARE.search(line[: charsets.VALUE_LIMIT])
    if found is not None:
        rest = line[: found.start()] + line[found.end() :]
        return found[0], " ".join(rest.split()), sure
    return "", line, sure


def _hidden(address: str, name: str) -> tuple[str, str]:
    """Find an address in the name: some programs encode it together with the name."""
    decoded, _ = charsets.header_text(address)
    if (found := _BARE.search(decoded[:ADDRESS_LIMIT]) or _BARE.search(name[:1000])) is None:
        return "", name or decoded
    return found[0], name if name.strip(" <>") != found[0] else ""


def _address(address: str) -> str:
    text, _ = charsets.text_of(charsets.raw_bytes(address), "utf-8")
    return charsets.one_line(text).lower()[:ADDRESS_LIMIT]


def _name(name: str) -> str:
    text = name.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1].strip()
    return text[:NAME_LIMIT]
