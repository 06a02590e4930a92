"""How many segments a text is sent, and billed, as (pure)."""

from collections.abc import Iterable
from typing import Final

# 3GPP TS 23.038 section 6.2.1: the default alphabet, and what needs an escape before it.
BASIC: Final = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
EXTENSION: Final = frozenset("\f^{}\\[~]|€")


def segment_count(text: str) -> int:
    """Return how many segments `text` is sent, and billed, as.

    One segment holds 160 septets or 70 UTF-16 units. Each of several holds 153 or 67, the rest
    being the concatenation header. Source: 3GPP TS 23.040 section 9.2.3.24.1.
    """
    if set(text) <= BASIC | EXTENSION:
        widths, alone, joined = [2 if c in EXTENSION else 1 for c in text], 160, 153
    else:
        widths, alone, joined = [2 if c > "\uffff" else 1 for c in text], 70, 67
    if sum(widths) <= alone:
        return 1
    segments, room = 1, joined
    for width in widths:  # an escape or a surrogate pair is not split between segments
        if width > room:
            segments, room = segments + 1, joined
        room -= width
    return segments


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
