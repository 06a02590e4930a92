"""What a ticket is found by, and what a search asks for (pure).

Chinese is written without spaces: of a run of its signs every pair of neighbours is a term, and
every sign alone. Words of letters are found by their beginning, numbers by their end. One rule,
`Query.fits`, says what is found; terms narrow a million tickets down to those it is asked of.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

LONGEST_QUERY: Final = 100  # characters
MOST_WORDS: Final = 8  # of a query
LONGEST_TEXT: Final = 20_000  # of a ticket: what is said beyond is not searched
LONGEST_WORD: Final = 40  # letters: PostgreSQL's lexemes, SQLite's tokens are bounded, too
SHORTEST_PREFIX: Final = 3  # letters; fewer are a word of their own
SHORTEST_TAIL: Final = 4  # digits at the end of a number
SHORTEST_HEAD: Final = 6  # digits at its beginning: a day's tickets, a range of numbers
TAIL: Final = "~"  # before a number's digits, the last first; part of no word
FACET: Final = "_"  # before what a ticket is, not what it says

# Han with its extensions and compatibility forms, kana, Hangul, iteration marks.
_CJK: Final = (
    "々〇\u3041-\u3096\u30a1-\u30fa\u30fc-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
    "\uf900-\ufaff\U00020000-\U0003ffff"
)
_RUN: Final = re.compile(rf"[{_CJK}]+|[^\W_{_CJK}]+")
_IS_CJK: Final = re.compile(f"[{_CJK}]")
_GROUP: Final = re.compile(r"\d+|\D+")
# A number of the mainland in E.164, and how it is dialled there.
_MOBILE: Final = re.compile(r"86(1[3-9]\d{9})")
_LANDLINE: Final = re.compile(r"86([2-9]\d{8,10})")
# Numbers are written in groups: 138 0013 8000, 020-38880002, +86 138….
_GAPS: Final = (
    re.compile(r"(?<!\d)(1[3-9]\d)[ -](\d{4})[ -](\d{4})(?!\d)"),
    re.compile(r"(?<!\d)(0\d{2,3})[ -](\d{7,8})(?!\d)"),
    re.compile(r"(?<!\d)(86)[ -](?=1[3-9]\d{9}(?!\d))"),
)


def plain(text: str) -> str:
    """Return a text as it is compared: full width is half width, capitals are small letters."""
    once = unicodedata.normalize("NFKC", text).casefold()
    found = unicodedata.normalize("NFKC", once)
    for gaps in _GAPS:
        found = gaps.sub(lambda parts: "".join(parts.groups()), found)
    return found


def terms(text: str) -> set[str]:
    """Return everything that a text is found by."""
    found: set[str] = set()
    for run in _RUN.findall(plain(text)):
        found.update(_signs(run) if _IS_CJK.match(run) else _word(run))
    return found


def _signs(run: str) -> Iterator[str]:
    yield from run
    for start in range(len(run) - 1):
        yield run[start : start + 2]


def _word(run: str) -> Iterator[str]:
    for piece in _pieces(run):
        yield piece
        if len(piece) >= SHORTEST_TAIL and piece.isdigit():
            yield TAIL + piece[::-1]


def _pieces(run: str) -> set[str]:
    """Return what a word can be asked for as: `hp1020n` is also `1020n`, `1020` and `n`."""
    groups = _GROUP.findall(run)
    tails = {run[len(run) - size :][:LONGEST_WORD] for size in _sizes(groups)}
    return tails | {group[:LONGEST_WORD] for group in groups} | _dialled(run)


def _dialled(run: str) -> set[str]:
    """Return how a telephone number is dialled in the mainland."""
    if mobile := _MOBILE.fullmatch(run):
        return {mobile[1]}
    landline = _LANDLINE.fullmatch(run)
    return {f"0{landline[1]}"} if landline else set()


def _sizes(groups: Sequence[str]) -> Iterator[int]:
    """Yield how long the ends of a word are that begin with one of its first groups."""
    size = sum(map(len, groups))
    for group in groups[:8]:
        yield size
        size -= len(group)


@dataclass(frozen=True, slots=True)
class Term:
    """One term of the index; `is_prefix`: everything that begins so."""

    text: str
    is_prefix: bool = False


@dataclass(frozen=True)
class Query:
    """What somebody looks for: all its words must be there, whatever their order."""

    text: str

    @cached_property
    def needles(self) -> tuple[str, ...]:
        """Return the runs of the query, as they are compared."""
        runs = _RUN.findall(plain(self.text[:LONGEST_QUERY]))
        return tuple(dict.fromkeys(runs))[:MOST_WORDS]

    @cached_property
    def groups(self) -> tuple[tuple[Term, ...], ...]:
        """Return terms: of each group one must be there."""
        return tuple(group for needle in self.needles for group in _groups(needle))

    @property
    def is_exact(self) -> bool:
        """Return whether the terms say all there is to say."""
        return not any(_IS_CJK.match(needle) and len(needle) > 2 for needle in self.needles)

    def fits(self, text: str) -> bool:
        """Return whether all of it is in a text."""
        runs = _RUN.findall(plain(text))
        return all(any(_is_in(needle, run) for run in runs) for needle in self.needles)

    def marked(self, text: str) -> list[tuple[str, bool]]:
        """Return a text in parts, and whether a part is a hit."""
        shown = unicodedata.normalize("NFC", text)
        # What is compared may be longer than what is shown (㎏ is kg): each sign by itself.
        signs = [
            sign.lower() if sign.isascii() else unicodedata.normalize("NFKC", sign).casefold()
            for sign in shown
        ]
        spans = [
            (run.start() + start, run.start() + end - 1)
            for run in _RUN.finditer("".join(signs))
            for needle in self.needles
            for start, end in _hits(needle, run[0])
        ]
        if not spans:
            return [(shown, False)] if shown else []
        place = [index for index, sign in enumerate(signs) for _ in sign]
        hit = [False] * len(shown)
        for start, end in spans:
            first, last = place[start], place[end]
            hit[first : last + 1] = [True] * (last + 1 - first)
        return list(_parts(shown, hit))

    def snippet(self, text: str, around: int = 18) -> str:
        """Return the place of the first hit with what stands around it, "" if there is none."""
        before = 0
        for part, is_hit in self.marked(text):
            if is_hit:
                start, end = max(0, before - around), before + len(part) + 3 * around
                shown = unicodedata.normalize("NFC", text)
                cut = " ".join(shown[start:end].split())
                return f"{'…' if start else ''}{cut}{'…' if end < len(shown) else ''}"
            before += len(part)
        return ""


def _groups(needle: str) -> Iterator[tuple[Term, ...]]:
    if _IS_CJK.match(needle):
        pairs = {needle[start : start + 2] for start in range(len(needle) - 1)}
        for pair in sorted(pairs or {needle}):
            yield (Term(pair),)
    elif needle.isdigit():
        yield tuple(_numbers(needle))
    else:
        yield (Term(needle[:LONGEST_WORD], is_prefix=len(needle) >= SHORTEST_PREFIX),)


def _numbers(digits: str) -> Iterator[Term]:
    digits = digits[:LONGEST_WORD]
    yield Term(digits, is_prefix=len(digits) >= SHORTEST_HEAD)
    if len(digits) >= SHORTEST_TAIL:
        yield Term(TAIL + digits[::-1], is_prefix=True)


def _is_in(needle: str, run: str) -> bool:
    return next(iter(_hits(needle, run)), None) is not None


def _hits(needle: str, run: str) -> Iterable[tuple[int, int]]:
    """Yield where a run of a text has what is looked for."""
    if _IS_CJK.match(needle):
        start = run.find(needle)
        while start >= 0:
            yield start, start + len(needle)
            start = run.find(needle, start + 1)
        return
    for piece in _pieces(run):
        start = run.find(piece)
        if start < 0:  # 0 stands for 86
            start = len(run) - len(piece)
        if needle.isdigit() and piece.isdigit():
            yield from ((start + a, start + b) for a, b in _in_number(needle, piece))
        elif _begins(needle[:LONGEST_WORD], piece):
            yield start, start + len(needle)


def _begins(needle: str, piece: str) -> bool:
    if needle.isdigit() or len(needle) < SHORTEST_PREFIX:
        return piece == needle
    return piece.startswith(needle)


def _in_number(needle: str, digits: str) -> Iterator[tuple[int, int]]:
    if digits == needle or (len(needle) >= SHORTEST_HEAD and digits.startswith(needle)):
        yield 0, len(needle)
    elif len(needle) >= SHORTEST_TAIL and digits.endswith(needle):
        yield len(digits) - len(needle), len(digits)


def _parts(shown: str, hit: Sequence[bool]) -> Iterator[tuple[str, bool]]:
    start = 0
    for end in range(1, len(shown) + 1):
        if end == len(shown) or hit[end] != hit[start]:
            yield shown[start:end], hit[start]
            start = end
