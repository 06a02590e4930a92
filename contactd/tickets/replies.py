"""What a text message answers: `1 26112200017`, `到 26112200017 4711`, `OK 26112200017` (pure).

A reply is a verb, a ticket's number and nothing else, but for the code of an arrival. Anything more
is for a person to read: "OK 26112200017 but the printer is still broken" closes no ticket.
"""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Final

from contactd.tickets.numbers import CODE_DIGITS, LONGEST, is_valid


class Verb(StrEnum):
    TAKE = "take"  # the ticket, or the dispatch that was offered
    PASS = "pass"  # noqa: S105 - on to the next person
    SET_OUT = "set_out"
    ARRIVE = "arrive"
    FINISH = "finish"  # the work at the site
    SOLVED = "solved"
    NOT_SOLVED = "not_solved"
    STATUS = "status"
    RATE = "rate"  # 1 to 5, once the ticket is closed


class Sender(StrEnum):
    """From whom it is: the digits mean what the message before has said, as in calls."""

    ENGINEER = "engineer"
    REQUESTER = "requester"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """`ticket` is what was typed, its digits only: there may be no such ticket; "" with `bare`.

    `mark` is the digit that it was said by, 1 to 5: a mark, if that is what was asked for.
    """

    verb: Verb
    ticket: str
    code: str = field(default="", repr=False)
    mark: int = 0


_ALL: Final[Mapping[Verb, str]] = {
    Verb.SOLVED: "解决 已解决 解决了 ok okay solved yes",
    Verb.NOT_SOLVED: "未解决 没解决 没有解决 no not",
    Verb.STATUS: "进度 查询 查询进度 status",
}
_WORDS: Final[Mapping[Sender, Mapping[Verb, str]]] = {
    Sender.ENGINEER: {
        **_ALL,
        Verb.TAKE: "1 接单 接 接受 take accept",
        Verb.PASS: "2 转 转单 转派 拒绝 pass decline",
        Verb.SET_OUT: "4 出发 已出发 在路上 go going",
        Verb.ARRIVE: "到 到场 到达 已到 已到场 arr arrive arrived",
        Verb.FINISH: "完成 已完成 完工 done finished",
    },
    Sender.REQUESTER: {
        Verb.SOLVED: f"1 {_ALL[Verb.SOLVED]}",
        Verb.NOT_SOLVED: f"2 {_ALL[Verb.NOT_SOLVED]}",
        Verb.STATUS: _ALL[Verb.STATUS],
        Verb.RATE: "3 4 5",
    },
}
_VERBS: Final = {
    sender: {word: verb for verb, words in verbs.items() for word in words.split()}
    for sender, verbs in _WORDS.items()
}
_ENDS: Final = frozenset({Verb.SOLVED, Verb.NOT_SOLVED, Verb.FINISH})
_LONGEST_TEXT: Final = 80  # characters; a reply is a dozen
_SHORTEST: Final = 10  # digits that are surely no code
_GAP: Final = r"[\s,.;:#。、!-]"  # NFKC has made the full-width forms these
_BARE: Final = re.compile(rf"{_GAP}*([^\W\d_]+|\d){_GAP}*(?:(\d{{{CODE_DIGITS}}}){_GAP}*)?")
_MARKS: Final = frozenset("12345")
_REPLY: Final = re.compile(rf"{_GAP}*([^\W\d_]+|\d(?={_GAP})){_GAP}*(\d(?:\d|{_GAP})*)")


def parse(text: str, sender: Sender = Sender.ENGINEER) -> Reply | None:
    """Return what the text answers, or None if a person has to read it.

    Full-width letters and digits, case and blanks do not matter.
    """
    text = _plain(text)
    found = _REPLY.fullmatch(text)
    if found is None or len(text) > _LONGEST_TEXT:
        return None
    verb = _VERBS[sender].get(found[1])
    groups = ["".join(str(int(sign)) for sign in group) for group in re.findall(r"\d+", found[2])]
    ticket, code = _number(groups)
    if verb is None or not ticket or (code and verb is not Verb.ARRIVE):
        return None
    return Reply(verb=verb, ticket=ticket, code=code, mark=_mark(found[1], sender))


def bare(text: str, sender: Sender) -> Reply | None:
    """Return what a text answers that names no ticket: it is about what was asked last.

    None if a person has to read it; an engineer's "OK" to a page is no word that all is solved.
    """
    text = _plain(text)
    found = _BARE.fullmatch(text)
    verb = _VERBS[sender].get(found[1]) if found is not None else None
    if found is None or verb is None or len(text) > _LONGEST_TEXT:
        return None
    if sender is Sender.ENGINEER and verb in _ENDS:
        return None
    code = found[2] or ""
    if bool(code) != (verb is Verb.ARRIVE):
        return None
    code = "".join(str(int(sign)) for sign in code)
    return Reply(verb=verb, ticket="", code=code, mark=_mark(found[1], sender))


@lru_cache(maxsize=1)  # each text is read as either sender's, with a number and without
def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text[: _LONGEST_TEXT + 1]).casefold()


def _mark(word: str, sender: Sender) -> int:
    return int(word) if word in _MARKS and sender is Sender.REQUESTER else 0


def _number(groups: list[str]) -> tuple[str, str]:
    """Return the ticket's number and the code, "" if there is none.

    Whoever types a number in pieces has its check digit to tell where it ends.
    """
    digits = "".join(groups)
    end = len(digits) - CODE_DIGITS
    if is_valid(digits[:end]):
        return digits[:end], digits[end:]
    if len(groups) == 2 and len(groups[0]) >= _SHORTEST and len(groups[1]) == CODE_DIGITS:
        return groups[0], groups[1]
    if is_valid(digits) or (len(groups) == 1 and _SHORTEST <= len(digits) <= LONGEST):
        return digits, ""
    return "", ""
