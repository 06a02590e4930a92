"""Codes and secrets of remote help: kept as an HMAC only, and wrong codes are counted."""

import hashlib
import hmac
import secrets
import unicodedata
from datetime import datetime, timedelta
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

from sqlalchemy import bindparam, delete, text
from sqlalchemy.ext.asyncio import AsyncConnection

from contactd.log import get_logger
from contactd.store.schema import Instant, remote_tries

log = get_logger()

CODE_DIGITS: Final = 9
MOST_WRONG: Final = 10  # codes of one address, or one user, within an hour
# 1,000 guesses of 10^9 codes hit one of 40 open invitations once in 25,000 hours.
MOST_WRONG_IN_ALL: Final = 1000
WINDOW: Final = timedelta(hours=1)

_COUNT: Final = text(
    "INSERT INTO remote_tries (key, count, expires_at) VALUES (:key, 1, :expires)"
    " ON CONFLICT (key) DO UPDATE SET count = remote_tries.count + 1 RETURNING count"
).bindparams(bindparam("expires", type_=Instant))
_UNCOUNT: Final = text("UPDATE remote_tries SET count = count - 1 WHERE key = :key")


def digits(count: int) -> str:
    return f"{secrets.randbelow(10**count):0{count}}"


def code_of(said: str) -> str:
    """Return the digits of a code as somebody types it: with blanks, dashes, in full width."""
    return "".join(
        each
        for each in unicodedata.normalize("NFKC", said[:40])
        if each.isascii() and each.isdigit()
    )[: CODE_DIGITS + 1]


def hash_of(key: bytes, what: str, value: str) -> bytes:
    return hmac.digest(key, f"remote-{what}:{value}".encode("utf-8", "replace"), hashlib.sha256)


def network(peer: str) -> str:
    """Return what is counted: an address, of IPv6 the network of one customer."""
    try:
        address = ip_address(peer)
    except ValueError:
        return peer
    is_large = isinstance(address, IPv6Address) and address.ipv4_mapped is None
    return str(ip_network((address, 64), strict=False)) if is_large else str(address)


class Try:
    """One code that somebody shows, in a transaction: counted first, looked up then.

    However many come at once, they wait for each other's count.
    """

    def __init__(self, connection: AsyncConnection, key: bytes, now: datetime) -> None:
        self._connection = connection
        self._key = key
        self._now = now
        self._counted: list[str] = []

    async def may(self, by: str) -> bool:
        """Count a try of `by`; return False if there were too many wrong ones, theirs or all."""
        is_locked = False
        hour = int(self._now.timestamp() // WINDOW.total_seconds())
        for name, most in ((by, MOST_WRONG), ("", MOST_WRONG_IN_ALL)):
            hashed = hash_of(self._key, "tries", f"{name}\0{hour}").hex()
            row = {"key": hashed, "expires": self._now + WINDOW}
            count = int((await self._connection.execute(_COUNT, row)).scalar_one())
            self._counted.append(hashed)
            is_locked = is_locked or count > most
            if count == most + 1:
                log.warning("remote.codes_locked", everybody=not name)
        return not is_locked

    async def was_right(self) -> None:
        """Count it no more."""
        for key in self._counted:
            await self._connection.execute(_UNCOUNT, {"key": key})

    async def tidy(self) -> None:
        await self._connection.execute(
            delete(remote_tries).where(remote_tries.c.expires_at <= self._now)
        )
