"""Whatever a trunk gives as caller ID becomes E.164, or honestly nothing."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contactd.tickets.phone import address, area_code, e164, mask


@pytest.mark.parametrize(
    ("given_number", "expected"),
    [
        ("13812345678", "+8613812345678"),
        ("+8613812345678", "+8613812345678"),
        ("008613812345678", "+8613812345678"),
        ("8613812345678", "+8613812345678"),
        ("+86 138 1234 5678", "+8613812345678"),
        (" 138-1234-5678 ", "+8613812345678"),
        ("19912345678", "+8619912345678"),
        ("075588888888", "+8675588888888"),
        ("0755 8888 8888", "+8675588888888"),
        ("(0755) 8888-8888", "+8675588888888"),
        ("+86 755 8888 8888", "+8675588888888"),
        ("8675588888888", "+8675588888888"),
        ("02088888888", "+862088888888"),
        ("4008001234", "+864008001234"),
        ("400-800-1234", "+864008001234"),
        ("+864008001234", "+864008001234"),
        ("8008101234", "+868008101234"),
        ("0085291234567", "+85291234567"),
        ("001 415 555 2671", "+14155552671"),
        ("+44 20 7946 0958", "+442079460958"),
    ],
)
def test_every_form_of_a_number_is_one_number(given_number: str, expected: str) -> None:
    assert e164(given_number) == expected
    assert address(given_number) == expected


@pytest.mark.parametrize(
    "given_number",
    ["", " ", "anonymous", "Anonymous", "unavailable", "restricted", "private", "asterisk",
     "<unknown>", "+", "0", "00000000", "-", "((((", "1" * 300, "9" * 16, "张三", "１３８", "\x00",
     "138\r\n12345678", "call4008001234now", "'; DROP TABLE"],
)  # fmt: skip
def test_what_is_no_number_is_nobody(given_number: str) -> None:
    assert e164(given_number) == ""
    assert address(given_number) == ""


@pytest.mark.parametrize(
    ("given_number", "digits"), [("8001", "8001"), ("95588", "95588"), ("8888 8888", "88888888")]
)
def test_a_number_that_is_only_local_is_known_by_its_digits(given_number: str, digits: str) -> None:
    assert e164(given_number) == ""
    assert address(given_number) == digits


@pytest.mark.parametrize(
    ("number", "code"),
    [
        ("+8675588888888", "755"),
        ("+862088888888", "20"),
        ("+861088888888", "10"),
        ("+867572222333", ""),
        ("+8613812345678", ""),
        ("+864008001234", ""),
        ("+14155552671", ""),
        ("8001", ""),
        ("+86", ""),
        ("", ""),
    ],
)
def test_only_a_mainland_landline_has_an_area_code(number: str, code: str) -> None:
    assert area_code(number) == code


def test_elsewhere_numbers_are_read_by_that_country() -> None:
    assert e164("(415) 555-2671", country="US") == "+14155552671"
    assert e164("13812345678", country="US") != "+8613812345678"


@settings(max_examples=50)
@given(st.text(max_size=60) | st.text("+0123456789 -()", max_size=60))
def test_no_text_raises(text: str) -> None:
    number = e164(text)
    assert number == "" or (number[0] == "+" and number[1:].isdigit() and len(number) <= 16)
    assert area_code(text).isdigit() or area_code(text) == ""


@settings(max_examples=50)
@given(st.from_regex(r"\A(\+|00)?[0-9 ]{3,16}\Z"))
def test_reading_a_number_again_changes_nothing(text: str) -> None:
    assert e164(e164(text)) == e164(text)
    assert address(address(text)) == address(text)


def test_a_masked_number_shows_its_last_four_digits_at_most() -> None:
    assert mask("+8613812345678") == "…5678"
    assert mask("8001") == "…"
    assert mask("") == "…"
