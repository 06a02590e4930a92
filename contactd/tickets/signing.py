"""Short proofs that we wrote something: in reply addresses, Message-IDs and links (pure).

A token is what it names, a dot and the first 80 bits of an HMAC-SHA256 over it: guessing one takes
10^23 tries. It says nothing secret; what it opens looks at the present. Only those of `sign_until`
expire.
"""

import base64
import hashlib
import hmac
import re
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

_HOUR_S: Final = 3600
_MAC_BYTES: Final = 10  # 16 signs of base32
_TOKEN: Final = re.compile(r"([a-z0-9-]{1,80})\.([a-z2-7]{16})")


class Purpose(StrEnum):
    """What a token is good for; one of another purpose opens nothing."""

    REPLY = "reply"  # names a ticket's number: whoever has the address may join the ticket
    BOUNCE = "bounce"  # names a mail of ours by its id: where its DSN goes (VERP)
    LINK = "link"  # names a notification by its id: the page behind a mail's links
    TICKET = "ticket"  # names a ticket's number, for a while: its requester's page
    SENT = "sent"  # names what the portal says after a report, for a while


def sign(key: bytes, purpose: Purpose, name: str) -> str:
    """Return `name` with its proof; it is a local part, a path and an id as it is."""
    return f"{name}.{_mac(key, purpose, name)}"


def verify(key: bytes, purpose: Purpose, token: str) -> str | None:
    """Return what a token names; None if we did not make it for this purpose.

    Case does not matter: mail programs and people change that of addresses.
    """
    found = _TOKEN.fullmatch(token.strip().lower())
    if found is None or not hmac.compare_digest(found[2], _mac(key, purpose, found[1])):
        return None
    return found[1]


def sign_until(key: bytes, purpose: Purpose, name: str, until: datetime) -> str:
    """Return `name` with a proof that is good until `until`, to the hour."""
    hour = int(until.timestamp()) // _HOUR_S
    return sign(key, purpose, f"{name}-{hour}")


def verify_until(key: bytes, purpose: Purpose, token: str) -> tuple[str, datetime] | None:
    """Return what a token of `sign_until` names, and until when; None if we did not make it."""
    found = verify(key, purpose, token)
    if found is None:
        return None
    name, _, hour = found.rpartition("-")
    return name, datetime.fromtimestamp(int(hour) * _HOUR_S, UTC)


def _mac(key: bytes, purpose: Purpose, name: str) -> str:
    digest = hmac.digest(key, f"{purpose.value}:{name}".encode(), hashlib.sha256)
    return base64.b32encode(digest[:_MAC_BYTES]).decode().lower()
