"""How texts go out: in which encoding, in how many segments, and what is in each (pure)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

# 3GPP TS 23.038 section 6.2.1: the default alphabet, and what needs an escape before it.
BASIC: Final = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
EXTENSION: Final = frozenset("\f^{}\\[~]|€")


class Encoding(StrEnum):
    """What a text is sent in: septets of the default alphabet, or UTF-16 units."""

    GSM7 = "GSM-7"
    UCS2 = "UCS-2"


# Units in a segment: of one alone, and of each of several, whose rest is the concatenation header.
# 140 octets less none or 6: 3GPP TS 23.040 section 9.2.3.24.1.
_ROOM: Final[Mapping[Encoding, tuple[int, int]]] = {
    Encoding.GSM7: (160, 153),
    Encoding.UCS2: (70, 67),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What a text costs. `units` are septets or UTF-16 units; `left` is the last segment's room."""

    encoding: Encoding
    segments: int
    units: int
    left: int


def encoding(text: str) -> Encoding:
    """Return what `text` is sent in: one Chinese character or curly quote makes it all UCS-2."""
    return Encoding.GSM7 if set(text) <= BASIC | EXTENSION else Encoding.UCS2


def segment_count(text: str) -> int:
    """Return how many segments `text` is sent, and billed, as."""
    return len(_packed(text))


def parts(text: str) -> tuple[str, ...]:
    """Return what goes into each segment: an escape or a surrogate pair is never split."""
    return tuple(part for part, _ in _packed(text))


def size(text: str) -> Size:
    """Return what a page shows before `text` is sent."""
    known, packed = encoding(text), _packed(text)
    alone, joined = _ROOM[known]
    room = alone if len(packed) == 1 else joined
    return Size(
        encoding=known,
        segments=len(packed),
        units=sum(units for _, units in packed),
        left=room - packed[-1][1],
    )


def fitting(texts: Iterable[str]) -> str:
    """Return the first of `texts` that is one segment, or else the last.

    Raises:
        ValueError: there are none.
    """
    text = None
    for text in texts:
        if segment_count(text) == 1:
            break
    if text is None:
        raise ValueError("there is no text")
    return text


def _packed(text: str) -> list[tuple[str, int]]:
    """Return each segment's part of `text` and the units it takes."""
    known = encoding(text)
    alone, joined = _ROOM[known]
    if known is Encoding.GSM7:
        widths = [2 if char in EXTENSION else 1 for char in text]
    else:
        widths = [2 if char > "\uffff" else 1 for char in text]
    if sum(widths) <= alone:
        return [(text, sum(widths))]
    packed, begin, units = [], 0, 0
    for end, width in enumerate(widths):
        if units + width > joined:
            packed.append((text[begin:end], units))
            begin, units = end, 0
        units += width
    packed.append((text[begin:], units))
    return packed
