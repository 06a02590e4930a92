"""A ticket's number survives being keyed in: what is mistyped is noticed."""

from datetime import date

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from contactd.tickets.numbers import check_digit, day_key, digits_of, is_valid, ticket_number

days = st.dates(min_value=date(2000, 1, 1), max_value=date(2099, 12, 31))
sequences = st.integers(min_value=1, max_value=99_999_999)


def test_a_number_is_its_day_its_place_and_a_check_digit() -> None:
    assert ticket_number(date(2026, 11, 22), 1) == "26112200014"
    assert ticket_number(date(2026, 1, 2), 12345)[:-1] == "26010212345"
    assert day_key(date(2026, 1, 2)) == "260102"


@pytest.mark.parametrize(
    ("body", "digit"), [("7992739871", "3"), ("1789372997", "4"), ("411111111111111", "1")]
)
def test_the_check_digit_is_luhns(body: str, digit: str) -> None:
    assert check_digit(body) == digit


@given(days, sequences)
def test_every_number_is_valid(day: date, sequence: int) -> None:
    number = ticket_number(day, sequence)
    assert is_valid(number)
    assert number.startswith(day_key(day))


@given(days, sequences, sequences)
def test_two_places_are_two_numbers(day: date, one: int, other: int) -> None:
    assert (ticket_number(day, one) == ticket_number(day, other)) == (one == other)


@given(days, sequences, st.data())
def test_one_wrong_digit_is_found(day: date, sequence: int, data: st.DataObject) -> None:
    number = ticket_number(day, sequence)
    place = data.draw(st.integers(0, len(number) - 1))
    digit = data.draw(st.sampled_from("0123456789"))
    assume(digit != number[place])
    assert not is_valid(number[:place] + digit + number[place + 1 :])


@given(days, sequences, st.data())
def test_two_swapped_neighbours_are_found_but_nine_and_zero(
    day: date, sequence: int, data: st.DataObject
) -> None:
    number = ticket_number(day, sequence)
    place = data.draw(st.integers(0, len(number) - 2))
    pair = number[place : place + 2]
    assume(pair[0] != pair[1])
    swapped = number[:place] + pair[::-1] + number[place + 2 :]
    assert is_valid(swapped) == (pair in ("09", "90"))


@pytest.mark.parametrize(
    "text",
    ["", "0", "2611220001", "26112200015", "２６１１２２０００１４", "2611220001x", "0" * 21],
)  # fmt: skip
def test_what_is_no_number_is_not_valid(text: str) -> None:
    assert not is_valid(text)


@given(st.text(max_size=40))
def test_no_text_raises(text: str) -> None:
    is_valid(text)
    assert digits_of(text).isascii()


def test_digits_are_read_in_any_script_and_among_anything() -> None:
    assert digits_of("＃２６ 1122-0001 4") == "26112200014"
