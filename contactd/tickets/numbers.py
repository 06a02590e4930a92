"""Ticket numbers: digits only, so that a phone can key them in (pure).

`YYMMDD`, the day's sequence in four digits or more, a check digit by Luhn's formula (ISO/IEC
7812-1 annex B): it finds every single wrong digit and every swap of two neighbours but 09 and 90.
"""

import re
import unicodedata
from collections.abc import Iterable
from datetime import date
from functools import lru_cache
from itertools import islice
from typing import Final

SEQUENCE_DIGITS: Final = 4
CODE_DIGITS: Final = 4  # of the code by which an arrival is proved (D4)
SHORTEST: Final = 6 + SEQUENCE_DIGITS + 1
LONGEST: Final = 20
MOST_MENTIONED: Final = 5
_NUMBER: Final = re.compile(rf"(?<!\d)\d{{{SHORTEST},{LONGEST}}}(?!\d)")
_DOUBLED: Final = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)


def day_key(day: date) -> str:
    """Return the first six digits of the numbers of `day`."""
    return day.strftime("%y%m%d")


def check_digit(digits: str) -> str:
    total = sum(
        _DOUBLED[int(digit)] if place % 2 == 0 else int(digit)
        for place, digit in enumerate(reversed(digits))
    )
    return str(-total % 10)


def ticket_number(day: date, sequence: int) -> str:
    """Return the number of the ticket that is number `sequence` (1, 2, …) of `day`."""
    return numbered(day_key(day), sequence)


def numbered(key: str, sequence: int) -> str:
    """Return the number for a day's key, see `day_key`."""
    body = f"{key}{sequence:0{SEQUENCE_DIGITS}d}"
    return body + check_digit(body)


def is_valid(number: str) -> bool:
    """Tell whether `number` can be a ticket's: worth looking up, and not mistyped."""
    return (
        SHORTEST <= len(number) <= LONGEST
        and number.isascii()
        and number.isdigit()
        and check_digit(number[:-1]) == number[-1]
    )


def digits_of(keyed: Iterable[str]) -> str:
    """Return the ASCII digits among what somebody keyed, typed or pasted (`２６` is 26)."""
    return "".join(str(int(sign)) for sign in keyed if sign.isdecimal())


@lru_cache(maxsize=64)  # a text is asked twice on its way to a ticket
def mentioned(words: str) -> tuple[str, ...]:
    """Return the first ticket numbers in what somebody wrote, as their check digits say."""
    plain = unicodedata.normalize("NFKC", words)
    found = (number for number in _NUMBER.findall(plain) if is_valid(number))
    return tuple(islice(dict.fromkeys(found), MOST_MENTIONED))
