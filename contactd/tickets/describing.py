"""The standard information of a fault (requirement B1): what was said of it, and what is missing.

Title, system and impact are the ticket's own, since its priority and its assignment rest on them;
everything else is kept as it was said (`Standard`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from contactd.tickets.journal import instant_text
from contactd.tickets.priority import Impact

LONGEST_LINE: Final = 120  # characters
LONGEST_TEXT: Final = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class Standard:
    """What was said of a fault; "" and None: nothing yet."""

    what: str = ""  # what happened, in somebody's words
    happened_at: datetime | None = None
    device: str = ""  # its label, or what it is
    version: str = ""  # of the software
    error: str = ""  # the words of the error message
    impact: Impact | None = None  # said by a person; a ticket has one before anybody was asked
    wished: str = ""  # by when they want it done, in their words


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What somebody says of a fault now; None: nothing about that, "": it is taken back."""

    title: str | None = None
    system: str | None = None
    what: str | None = None
    happened_at: datetime | None = None
    device: str | None = None
    version: str | None = None
    error: str | None = None
    impact: Impact | None = None
    wished: str | None = None


_TEXTS: Final = frozenset({"what", "error"})  # of several lines
_OF_STANDARD: Final = tuple(each.name for each in fields(Standard))


def told(known: Standard, said: Description) -> tuple[Standard, dict[str, Any]]:
    """Return what is known then, and what of it is new, as a journal keeps it."""
    new: dict[str, Any] = {}
    for name in _OF_STANDARD:
        value = _clean(name, getattr(said, name))
        if value is not None and value != getattr(known, name):
            new[name] = value
    return replace(known, **new), {name: _plain(value) for name, value in new.items()}


def row_of(known: Standard) -> dict[str, Any]:
    """Return it as a JSON column keeps it: what was said and nothing else."""
    values = {name: getattr(known, name) for name in _OF_STANDARD}
    return {name: _plain(value) for name, value in values.items() if value not in ("", None)}


def standard_of(row: Mapping[str, Any] | None) -> Standard:
    """Return what `row_of` wrote down."""
    values = {name: value for name, value in (row or {}).items() if name in _OF_STANDARD}
    if "happened_at" in values:
        values["happened_at"] = datetime.fromisoformat(values["happened_at"])
    if "impact" in values:
        values["impact"] = Impact(values["impact"])
    return Standard(**values)


def _clean(name: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    kept = "".join(sign if sign.isprintable() or sign == "\n" else " " for sign in value)
    if name in _TEXTS:
        return kept.strip()[:LONGEST_TEXT].rstrip()
    return " ".join(kept.split())[:LONGEST_LINE]


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return instant_text(value)
    return int(value) if isinstance(value, Impact) else value


# What is still missing


class Item(StrEnum):
    """What a ticket should say, in the order in which people are asked for it."""

    NAME = "name"
    DEPARTMENT = "department"
    PHONE = "phone"
    MAIL = "mail"
    SITE = "site"
    WHAT = "what"
    HAPPENED_AT = "happened_at"
    DEVICE = "device"  # or the system, if it is about one
    VERSION = "version"
    ERROR = "error"
    PICTURE = "picture"  # a screenshot
    IMPACT = "impact"
    WISHED = "wished"


# Nobody is asked for these as long as they say otherwise what is wrong.
OPTIONAL: Final = frozenset({Item.VERSION, Item.ERROR, Item.PICTURE, Item.WISHED})


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What else is known of a ticket than its description."""

    name: str = ""
    department: str = ""
    has_phone: bool = False
    has_mail: bool = False
    site: str = ""
    title: str = ""
    system: str = ""
    has_picture: bool = False
    has_impact: bool = False  # somebody has classified it


def present(known: Standard, about: About) -> Mapping[Item, bool]:
    """Return of each item whether it is known."""
    return {
        Item.NAME: bool(about.name),
        Item.DEPARTMENT: bool(about.department),
        Item.PHONE: about.has_phone,
        Item.MAIL: about.has_mail,
        Item.SITE: bool(about.site),
        Item.WHAT: bool(known.what or about.title),
        Item.HAPPENED_AT: known.happened_at is not None,
        Item.DEVICE: bool(known.device or about.system),
        Item.VERSION: bool(known.version),
        Item.ERROR: bool(known.error),
        Item.PICTURE: about.has_picture,
        Item.IMPACT: known.impact is not None or about.has_impact,
        Item.WISHED: bool(known.wished),
    }


def missing(known: Standard, about: About) -> Iterator[Item]:
    """Yield what is not known yet, the order in which to ask for it."""
    found = present(known, about)
    yield from (item for item in Item if not found[item] and item not in OPTIONAL)
    yield from (item for item in Item if not found[item] and item in OPTIONAL)
