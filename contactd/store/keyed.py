"""Marks a request of the API as done in the very transaction that does it.

A request with an idempotency key runs with a mark in its context. The first transaction that
commits there sets it, together with what it does: however the process dies, a second request with
the key sees either nothing done and nothing marked, or both.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from sqlalchemy import bindparam, func, update
from sqlalchemy.ext.asyncio import AsyncConnection

from contactd.clock import Clock
from contactd.errors import ActionNotAllowed
from contactd.store.schema import api_keys


class Taken(ActionNotAllowed):
    """Another request with the same idempotency key is doing it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Whose key it is, and which of its requests this one is."""

    scope: str
    key: str
    owner: str
    clock: Clock


_MARK: Final[ContextVar[Mark | None]] = ContextVar("idempotency_mark", default=None)
_ACT: Final = (
    update(api_keys)
    .where(
        api_keys.c.scope == bindparam("whose"),
        api_keys.c.key == bindparam("named"),
        api_keys.c.owner == bindparam("mine"),
    )
    .values(
        acted_at=func.coalesce(
            api_keys.c.acted_at, bindparam("now", type_=api_keys.c.acted_at.type)
        )
    )
)


@contextmanager
def marking(mark: Mark | None) -> Iterator[None]:
    """Let every commit inside the block set `mark`; None: none does.

    None is for work that others may do for us, or we for others (`tickets.together`): what it
    does must be harmless twice by itself.
    """
    token = _MARK.set(mark)
    try:
        yield
    finally:
        _MARK.reset(token)


async def set_mark(connection: AsyncConnection) -> None:
    """Set the mark, if there is one, in a transaction that is about to commit.

    Raises:
        Taken: the request took so long that another one has its key now; nothing must commit.
    """
    mark = _MARK.get()
    if mark is None:
        return
    values = {
        "whose": mark.scope, "named": mark.key, "mine": mark.owner, "now": mark.clock.now(),
    }  # fmt: skip
    if (await connection.execute(_ACT, values)).rowcount != 1:
        raise Taken("another request with the same Idempotency-Key is doing this")
