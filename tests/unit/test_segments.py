"""Segments of texts: against an encoder that cuts real octets, as a handset would join them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contactd.sms.segments import BASIC, EXTENSION, fitting, segment_count

GSM = st.text(st.sampled_from(sorted(BASIC | EXTENSION)), max_size=700)
ANY = st.text(st.characters(codec="utf-8"), max_size=300)


def septets(text: str) -> list[bytes]:
    """Return each character as its septets: an escape and one, or one."""
    return [b"\x1b?" if char in EXTENSION else b"?" for char in text]


def octets(text: str) -> list[bytes]:
    return [char.encode("utf-16-be") for char in text]


def packed(pieces: list[bytes], *, alone: int, joined: int) -> int:
    """Return how many segments hold the pieces, none of them cut."""
    if len(b"".join(pieces)) <= alone:
        return 1
    segments = [b""]
    for piece in pieces:
        if len(segments[-1]) + len(piece) > joined:
            segments.append(b"")
        segments[-1] += piece
    return len(segments)


@given(GSM)
def test_latin_texts_are_counted_in_septets(text: str) -> None:
    assert segment_count(text) == packed(septets(text), alone=160, joined=153)


@given(ANY)
def test_other_texts_are_counted_in_utf_16_octets(text: str) -> None:
    text = "中" + text  # one such character makes all of it UCS-2
    assert segment_count(text) == packed(octets(text), alone=140, joined=134)


@pytest.mark.parametrize(
    ("text", "segments"),
    [
        ("", 1), ("a" * 160, 1), ("a" * 161, 2), ("a" * 306, 2), ("a" * 307, 3), ("€" * 80, 1),
        ("€" * 81, 2), ("a" * 152 + "€" + "a" * 152, 3), ("中" * 70, 1), ("中" * 71, 2),
        ("中" * 134, 2), ("中" * 135, 3), ("😀" * 35, 1), ("😀" * 36, 2),
        ("中" * 66 + "😀" + "中" * 66, 3), ("a" * 70 + "’", 2),
    ],
)  # fmt: skip
def test_the_borders(text: str, segments: int) -> None:
    assert segment_count(text) == segments


def test_the_first_that_fits_is_taken_or_else_the_last() -> None:
    assert fitting(["中" * 99, "中" * 70, "中"]) == "中" * 70
    assert fitting(["中" * 99, "中" * 80]) == "中" * 80
    with pytest.raises(ValueError, match="no text"):
        fitting([])
