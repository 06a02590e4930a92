"""Segments of texts: against smsutil, and against a packer that counts bits as the air does.

smsutil's gaps: it takes the escape's own code for a character of the alphabet, and an empty text
for UCS-2. Neither is drawn for it; `packed` has both.
"""

import pytest
import smsutil
from hypothesis import assume, given
from hypothesis import strategies as st

from contactd.sms.segments import (
    BASIC,
    EXTENSION,
    Encoding,
    Size,
    encoding,
    fitting,
    parts,
    segment_count,
    size,
)

OCTETS = 140  # TP-User-Data: 3GPP TS 23.040 section 9.2.3.16
HEADER = 6  # octets of it, where there are several
ESCAPE = 0x1B
LATIN = st.text(st.sampled_from(sorted(BASIC | EXTENSION)), max_size=700)
ESCAPES = st.text(st.sampled_from("a€"), min_size=140, max_size=700)
PAIRS = st.text(st.sampled_from("中😀"), min_size=30, max_size=300)
ANY = st.text(st.characters(codec="utf-8"), max_size=300)
TEXTS = LATIN | ESCAPES | PAIRS | ANY


def septets(text: str) -> bytes | None:
    """Return a text in the default alphabet, a septet a byte; None if it cannot be."""
    if "\x1b" in text:
        return None
    try:
        return text.encode("gsm0338")  # the codec is smsutil's
    except UnicodeEncodeError:
        return None


def on_air(part: str, *, latin: bool, joined: bool) -> str:
    """Return the bits of one segment's TP-User-Data: a header, fill bits, then the text."""
    bits = "0" * 8 * HEADER if joined else ""
    if latin:
        bits += "0" * (-len(bits) % 7)  # text begins at a septet: section 9.2.3.24
        return bits + "".join(f"{septet:07b}" for septet in septets(part) or b"")
    return bits + "".join(f"{octet:08b}" for octet in part.encode("utf-16-be"))


def packed(text: str) -> list[str]:
    """Return what goes into each segment: whole characters, until one would not fit any more."""
    latin = septets(text) is not None
    if len(on_air(text, latin=latin, joined=False)) <= OCTETS * 8:
        return [text]
    segments = [""]
    for char in text:
        if len(on_air(segments[-1] + char, latin=latin, joined=True)) > OCTETS * 8:
            segments.append("")
        segments[-1] += char
    return segments


@given(TEXTS)
def test_a_text_is_cut_where_no_further_character_fits_its_octets(text: str) -> None:
    assert list(parts(text)) == packed(text)


@given(TEXTS)
def test_a_text_is_cut_as_another_program_cuts_it(text: str) -> None:
    assume(text and "\x1b" not in text)
    known = smsutil.split(text)
    assert parts(text) == tuple(part.content for part in known.parts)
    found = size(text)
    if found.encoding is Encoding.GSM7:
        assert (known.encoding, known.total_bytes) == ("gsm0338", found.units)
    else:
        assert (known.encoding, known.total_bytes) == ("utf_16_be", 2 * found.units)


@given(TEXTS)
def test_there_are_as_many_parts_as_are_billed(text: str) -> None:
    assert len(parts(text)) == segment_count(text) == size(text).segments


@given(TEXTS)
def test_a_handset_that_reads_each_part_by_itself_reads_the_whole_text(text: str) -> None:
    latin = septets(text) is not None
    for part in parts(text):
        sent = septets(part) if latin else part.encode("utf-16-be")
        assert sent is not None
        assert not latin or sent[-1:] != bytes([ESCAPE])
        assert sent.decode("gsm0338" if latin else "utf-16-be") == part
    assert "".join(parts(text)) == text


@given(TEXTS)
def test_latin_is_what_the_other_codec_takes(text: str) -> None:
    assert (encoding(text) is Encoding.GSM7) == (septets(text) is not None)


@given(TEXTS)
def test_what_is_left_can_still_be_written_and_no_more(text: str) -> None:
    known = size(text)
    filler = "a" if known.encoding is Encoding.GSM7 else "中"
    full = text + filler * known.left
    assert size(full) == Size(
        encoding=known.encoding,
        segments=known.segments,
        units=known.units + known.left,
        left=0,
    )
    assert segment_count(full + filler) == known.segments + 1


@given(st.text("ab€中😀", max_size=200), st.text(st.characters(categories=["Cs"]), min_size=1))
def test_half_a_character_counts_as_one(text: str, halves: str) -> None:
    """JSON can bring half a surrogate pair: it is no character, but nothing breaks."""
    assume("😀" not in text)
    assert "".join(parts(text + halves)) == text + halves
    assert size(text + halves).units == len(text + halves)


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


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("", [0]),
        ("a" * 161, [153, 8]),
        ("a" * 152 + "€" + "a" * 10, [152, 11]),  # an escape would stand alone
        ("中" * 66 + "😀" + "中" * 10, [66, 11]),  # half a pair would
        ("中" * 65 + "😀" + "中" * 10, [66, 10]),
    ],
)
def test_where_a_text_is_cut(text: str, cut: list[int]) -> None:
    assert [len(part) for part in parts(text)] == cut


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (Encoding.GSM7, 1, 0, 160)),
        ("a€", (Encoding.GSM7, 1, 3, 157)),
        ("a" * 152 + "€" + "a" * 10, (Encoding.GSM7, 2, 164, 141)),
        ("工单26112000017已收到。", (Encoding.UCS2, 1, 17, 53)),
        ("中" * 180, (Encoding.UCS2, 3, 180, 21)),
    ],
)
def test_what_a_page_shows(text: str, expected: tuple[Encoding, int, int, int]) -> None:
    found = size(text)
    assert (found.encoding, found.segments, found.units, found.left) == expected


def test_the_first_that_fits_is_taken_or_else_the_last() -> None:
    assert fitting(["中" * 99, "中" * 70, "中"]) == "中" * 70
    assert fitting(["中" * 99, "中" * 80]) == "中" * 80
    with pytest.raises(ValueError, match="no text"):
        fitting([])
