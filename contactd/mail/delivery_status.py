"""Delivery-status texts (RFC 3464), whatever is broken in them (pure)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from contactd.mail.bounce_text import (
    HEADER,
    LINES_LIMIT,
    STATUS,
    TEXT_LIMIT,
    VALUE_LIMIT,
    addresses_in,
    header_text,
    one_line,
    telling,
)

# RFC 3464 section 2.3; the first that names an address is the one that was written to.
_RECIPIENT_FIELDS: Final = ("original-recipient", "final-recipient", "x-actual-recipient")
_GROUP_FIELDS: Final = frozenset({*_RECIPIENT_FIELDS, "action", "status"})
DELAYING: Final = frozenset({"delayed", "delay", "deferred", "warning"})
ARRIVED: Final = frozenset({"delivered", "relayed", "expanded", "deliverable", "success"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipient:
    """A per-recipient group of RFC 3464 section 2.3."""

    address: str
    action: str  # lower-case, "" when it is not said
    status: str
    diagnostic: str


def groups_in(text: str) -> Iterator[Recipient]:
    """Yield the per-recipient groups of a delivery-status text.

    Blank lines do not end a group by themselves: some systems put them between the fields.
    """
    fields: dict[str, str] = {}
    last, gap = "", False
    for line in text[:TEXT_LIMIT].splitlines()[:LINES_LIMIT]:
        found = HEADER.match(line)
        if found is not None:
            name = found[1].lower()
            if name in _GROUP_FIELDS and name in fields and (gap or name in _RECIPIENT_FIELDS):
                yield from _group(fields)
                fields = {}
            last, gap = name, False
            fields.setdefault(name, line.split(":", 1)[1].strip()[:VALUE_LIMIT])
        elif not line.strip():
            last, gap = "", True
        elif last and line[:1] in " \t":
            fields[last] = f"{fields[last]} {line.strip()}"[:VALUE_LIMIT]
    yield from _group(fields)


def _group(fields: Mapping[str, str]) -> Iterator[Recipient]:
    given = [_plain(fields[name]) for name in _RECIPIENT_FIELDS if name in fields]
    if not given or not ({"action", "status", "diagnostic-code"} & fields.keys()):
        return
    found = [address for address in map(_field_address, given) if address]
    status = STATUS.search(fields.get("status", ""))
    kind, semicolon, said = fields.get("diagnostic-code", "").partition(";")
    yield Recipient(
        address=found[0] if found else "",
        action=fields.get("action", "").split("(")[0].strip().lower(),
        status=status[0] if status else "",
        diagnostic=one_line(header_text(said if semicolon and len(kind) < 40 else kind + said)),
    )


def _plain(value: str) -> str:
    """Return an address field without its type (rfc822;, utf-8;)."""
    kind, semicolon, address = value.partition(";")
    return address if semicolon and "@" not in kind else value


def _field_address(value: str) -> str:
    """Return the address of a field; there it is taken as it is, however odd."""
    bare = one_line(value).strip("<> ")
    local = bare.rpartition("@")[0]
    if local.endswith("...") and not local.endswith("...."):
        return ""  # an archive shortened it
    if local and " " not in bare and len(bare) <= 320:
        return bare
    return next(addresses_in(value), "")


def reply_status(group: Recipient) -> str:
    """Return the most telling status of the group's own and those in its diagnostic."""
    codes = [found[0] for found in STATUS.finditer(group.diagnostic) if found[1] != "2"]
    return max([*codes, group.status], key=telling)
