"""Idempotency keys of the API (draft-ietf-httpapi-idempotency-key-header).

What a request with a key stored is never stored again by another with the same key:

1. A transaction notes the key, with what was sent, and gives it to one request for `LEASE`.
2. The first transaction of what the request does also marks the key as done (`store.keyed`).
3. A last transaction keeps the answer; a request that stored nothing and failed frees the key.

A crash before 2 leaves nothing done: after the lease the same request does it. A crash between 2
and 3 leaves it done and the answer lost: the same request is told so (`Lost`), and does nothing.
What remains: an act of several transactions that is cut in two is not finished by a retry.
"""

import hashlib
import secrets
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import bindparam, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from contactd.clock import Clock
from contactd.errors import ActionNotAllowed, PermanentFailure
from contactd.store.engine import Database
from contactd.store.keyed import Mark
from contactd.store.schema import api_keys

LASTS: Final = timedelta(hours=24)
LEASE: Final = timedelta(seconds=60)  # longer than a request can take


class Reused(PermanentFailure):
    """The key came with another request before."""


class InProgress(ActionNotAllowed):
    """A request with this key is being done."""


class Lost(ActionNotAllowed):
    """A request with this key was done, and its answer was lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """An answer; `body` is JSON, or a problem when `status` says so."""

    status: int
    body: bytes
    location: str = ""


_KEY: Final = (
    api_keys.c.scope == bindparam("whose"), api_keys.c.key == bindparam("named"),
)  # fmt: skip
_OURS: Final = (*_KEY, api_keys.c.owner == bindparam("mine"))
_ADD: Final = {
    name: dialect.insert(api_keys).on_conflict_do_nothing(index_elements=["scope", "key"])
    for name, dialect in (("sqlite", sqlite), ("postgresql", postgresql))
}
_FIND: Final = select(api_keys).where(*_KEY).with_for_update()
_TAKE: Final = (
    update(api_keys)
    .where(*_KEY)
    .values(
        owner=bindparam("new_owner"),
        lease_until=bindparam("lease", type_=api_keys.c.lease_until.type),
    )
)
_ANSWER: Final = (
    update(api_keys)
    .where(*_OURS)
    .values(
        answer=bindparam("new_answer"),
        status=bindparam("new_status"),
        location=bindparam("new_location"),
    )
)
_FREE: Final = delete(api_keys).where(*_OURS, api_keys.c.acted_at.is_(None))
_LET_GO: Final = (
    update(api_keys)
    .where(*_OURS)
    .values(lease_until=bindparam("now", type_=api_keys.c.lease_until.type))
)
_FORGET: Final = delete(api_keys).where(
    api_keys.c.at < bindparam("before", type_=api_keys.c.at.type)
)


def fingerprint(parts: Iterable[bytes]) -> bytes:
    """Return what tells whether two requests are the same."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.digest()


class Idempotency:
    """Every method raises `TemporaryFailure` when the database is away."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def begin(self, scope: str, key: str, request: bytes) -> Mark | Stored:
        """Return the mark to do a request under, or what was answered when it was done.

        Raises:
            Reused: `request` (a fingerprint) is another one than the key's.
            InProgress: it is being done right now.
            Lost: it was done, and the answer was lost.
        """
        now, owner = self._clock.now(), secrets.token_hex(8)
        named = {"whose": scope, "named": key}
        async with self._database.writing() as connection:
            await connection.execute(_FORGET, {"before": now - LASTS})
            row = {
                "scope": scope, "key": key, "request": request, "owner": owner,
                "lease_until": now + LEASE, "at": now, "location": "",
            }  # fmt: skip
            added = await connection.execute(_ADD[connection.dialect.name], row)
            if added.rowcount != 1:
                found = (await connection.execute(_FIND, named)).mappings().one()
                if (stored := _known(found, request)) is not None:
                    return stored
                if found["lease_until"] > now:
                    raise InProgress("a request with this Idempotency-Key is being done")
                if found["acted_at"] is not None:
                    raise Lost(
                        "this was done already, but its answer was lost: look at what it changed"
                    )
                await connection.execute(_TAKE, {**named, "new_owner": owner, "lease": now + LEASE})
        return Mark(scope=scope, key=key, owner=owner, clock=self._clock)

    async def keep(self, mark: Mark, answer: Stored) -> None:
        """Remember what was answered, for whoever asks again."""
        values = {
            **_mine(mark), "new_answer": zlib.compress(answer.body), "new_status": answer.status,
            "new_location": answer.location,
        }  # fmt: skip
        async with self._database.writing() as connection:
            await connection.execute(_ANSWER, values)

    async def free(self, mark: Mark) -> bool:
        """Let go of a key whose request failed; return whether it had stored nothing.

        If it had, the key stays: the same must not be done again.
        """
        async with self._database.writing() as connection:
            if (await connection.execute(_FREE, _mine(mark))).rowcount == 1:
                return True
            await connection.execute(_LET_GO, {**_mine(mark), "now": self._clock.now()})
        return False


def _known(row: Any, request: bytes) -> Stored | None:
    if row["request"] != request:
        raise Reused("this Idempotency-Key came with another request before: take a new one")
    if row["answer"] is None:
        return None
    return Stored(
        status=row["status"], body=zlib.decompress(row["answer"]), location=row["location"]
    )


def _mine(mark: Mark) -> dict[str, Any]:
    return {"whose": mark.scope, "named": mark.key, "mine": mark.owner}
