"""Secrets that an installation makes itself, once, and that all of its processes share."""

import secrets
from typing import Final

from sqlalchemy import bindparam, select
from sqlalchemy.dialects import postgresql, sqlite

from contactd.clock import Clock
from contactd.store.engine import Database
from contactd.store.schema import keys

KEY_BYTES: Final = 32
SIGNING: Final = "signing"  # tickets.signing: reply addresses, Message-IDs, links

_KEY: Final = select(keys.c.value).where(keys.c.name == bindparam("wanted"))
_ADD: Final = {
    "sqlite": sqlite.insert(keys).on_conflict_do_nothing(index_elements=["name"]),
    "postgresql": postgresql.insert(keys).on_conflict_do_nothing(index_elements=["name"]),
}


class Keys:
    """Reads the installation's keys; the first who asks for one makes it."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._known: dict[str, bytes] = {}

    async def signing(self) -> bytes:
        """Return the key of `tickets.signing`.

        Raises:
            TemporaryFailure: the database is away.
        """
        if SIGNING not in self._known:
            self._known[SIGNING] = await self._read_or_make(SIGNING)
        return self._known[SIGNING]

    async def _read_or_make(self, name: str) -> bytes:
        made = {
            "name": name,
            "value": secrets.token_bytes(KEY_BYTES),
            "created_at": self._clock.now(),
        }
        async with self._database.writing() as connection:
            await connection.execute(_ADD[self._database.dialect], made)
            return bytes((await connection.execute(_KEY, {"wanted": name})).scalar_one())
