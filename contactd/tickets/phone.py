"""Telephone numbers: from whatever a trunk gives to E.164 (ITU-T), and back to a region (pure)."""

import re
from typing import Final

import phonenumbers
from phonenumbers import NumberParseException, PhoneNumberFormat, PhoneNumberType

# Digits with the separators people and PBXs use; letters would be read as a vanity number.
_DIALLABLE: Final = re.compile(r"\+?[0-9(][0-9 ().\-/]{1,38}")
_SEPARATORS: Final = re.compile(r"[ ().\-/]")
# China's numbering plan: mobile 1[3-9] + 9 digits, 400 and 800 + 7 digits. New mobile ranges are
# issued faster than the library's data is released, and a known caller must not become two people.
_MOBILE: Final = frozenset({PhoneNumberType.MOBILE, PhoneNumberType.FIXED_LINE_OR_MOBILE})
_MAINLAND: Final = re.compile(r"(?:\+86|0086|86)?(1[3-9][0-9]{9}|[48]00[0-9]{7})")


def e164(value: str, *, country: str = "CN") -> str:
    """Return `value`, as dialled or shown in `country` (ISO 3166), in E.164; "" if it is none.

    "" stands for everything that cannot be called back: withheld, `anonymous`, an extension, a
    local number without its area code, garbage of any length.
    """
    value = value.strip()
    if not _DIALLABLE.fullmatch(value):
        return ""
    if country == "CN" and (mainland := _MAINLAND.fullmatch(_SEPARATORS.sub("", value))):
        return f"+86{mainland[1]}"
    try:
        number = phonenumbers.parse(value, country)
    except NumberParseException:
        return ""
    if not phonenumbers.is_valid_number(number):
        return ""
    return phonenumbers.format_number(number, PhoneNumberFormat.E164)


def address(value: str, *, country: str = "CN") -> str:
    """Return what a caller is known by: E.164, else the bare digits shown, else "".

    Bare digits are extensions (`8001`), service numbers (`95588`) and local numbers that came
    without an area code: nobody can say more of them, but the same digits are the same caller.
    """
    if number := e164(value, country=country):
        return number
    value = value.strip()
    if not _DIALLABLE.fullmatch(value):
        return ""
    shown = _SEPARATORS.sub("", value)
    digits = shown.removeprefix("+")
    return shown if 2 < len(digits) <= 15 and digits.strip("0") else ""


def area_code(number: str) -> str:
    """Return the mainland area code of an E.164 number, without its 0 (`755`); "" if none."""
    if not number.startswith("+86") or _MAINLAND.fullmatch(number):
        return ""
    try:
        parsed = phonenumbers.parse(number)
    except NumberParseException:
        return ""
    length = phonenumbers.length_of_geographical_area_code(parsed)
    return phonenumbers.national_significant_number(parsed)[:length]


def mask(number: str) -> str:
    """Shorten a number for a log line or a page without rights: its last four digits."""
    return f"…{number[-4:]}" if len(number) > 4 else "…"


def is_mobile(number: str) -> bool:
    """Return whether texts can reach an E.164 number, as far as its numbering plan tells."""
    if found := _MAINLAND.fullmatch(number):
        return found[1].startswith("1")
    try:
        kind = phonenumbers.number_type(phonenumbers.parse(number))
    except NumberParseException:
        return False
    return kind in _MOBILE
