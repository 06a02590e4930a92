"""Whom a contact is from: the person, what they are known by, the branch office (pure)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from contactd.errors import PermanentFailure
from contactd.tickets import phone
from contactd.tickets.contact import Contact, Direction

PHONE = "phone"
MAIL = "mail"


class Role(StrEnum):
    """What somebody who works here may see and do (requirement D6)."""

    DESK = "desk"
    ENGINEER = "engineer"
    SUPERVISOR = "supervisor"
    MANAGER = "manager"
    QUALITY = "quality"
    OPERATIONS = "operations"
    ADMIN = "admin"
    CALENDAR = "calendar"  # a program that shows duty: its token is in an address, see web.feeds


PEOPLES_ROLES: Final = frozenset(Role) - {Role.CALENDAR}


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    id: int  # 0: not stored yet
    key: str = ""  # of engineers and the people of the desk file
    name: str = ""
    site: str = ""  # site key, "" when unknown
    vip: bool = False
    language: str = ""  # "": the site's


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What somebody says of a person; None: nothing. Numbers and mails are added to theirs."""

    name: str | None = None
    department: str | None = None
    site: str | None = None
    vip: bool | None = None
    language: str | None = None
    numbers: tuple[str, ...] = ()  # as people write them
    mails: tuple[str, ...] = ()
    without: tuple[str, ...] = ()  # addresses that are not theirs


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """What the tickets need to know of a site."""

    key: str
    queue: str
    language: str
    zone: str  # IANA name
    area_code: str  # mainland area code without 0, "" when it has none
    contract: str = ""  # versioned key, "" when it has none of its own
    calendar: str = ""  # versioned key of its working hours, "" when it has none


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """What somebody is recognised by; `value` is "" when the contact does not tell."""

    kind: str  # PHONE, MAIL
    value: str


def address_of(contact: Contact, *, country: str) -> Address:
    """Return the address of the requester, who is at the other end of the contact."""
    value = contact.from_value if contact.direction is Direction.IN else contact.to_value
    if "@" in value:
        return Address(kind=MAIL, value=value.strip().lower())
    return Address(kind=PHONE, value=phone.address(value, country=country))


def said_of(card: Card, *, country: str) -> tuple[dict[str, Any], list[Address]]:
    """Return what a card changes of a person, by column, and the addresses that it adds.

    Raises:
        PermanentFailure: a number is none, or a mail address.
    """
    lines = {"name": card.name, "department": card.department}
    values: dict[str, Any] = {
        name: " ".join(value.split())[:LONGEST_NAME]
        for name, value in lines.items()
        if value is not None
    }
    if card.site is not None:
        values["site"] = card.site or None
    values |= {
        name: value
        for name, value in (("vip", card.vip), ("language", card.language))
        if value is not None
    }
    numbers = [(each, phone.address(each, country=country)) for each in card.numbers]
    mails = [(each, each.strip().lower()) for each in card.mails]
    found = [Address(kind=PHONE, value=value) for _, value in numbers]
    found += [Address(kind=MAIL, value=value) for _, value in mails]
    if any(not each.value for each in found if each.kind == PHONE):
        raise PermanentFailure("that is not a telephone number")
    if any(not _MAIL_ADDRESS.fullmatch(each.value) for each in found if each.kind == MAIL):
        raise PermanentFailure("that is not a mail address")
    return values, list(dict.fromkeys(found))


LONGEST_NAME: Final = 120
_MAIL_ADDRESS: Final = re.compile(r"[^@\s<>\",;]{1,64}@[^@\s<>\",;]{1,180}")


def branch_of(person: Person, address: Address, branches: Mapping[str, Branch]) -> Branch | None:
    """Return the person's site, else the one whose area code the number has, else None."""
    if person.site:
        return branches.get(person.site)
    code = phone.area_code(address.value) if address.kind == PHONE else ""
    if not code:
        return None
    matching = sorted(key for key, branch in branches.items() if branch.area_code == code)
    return branches[matching[0]] if matching else None
