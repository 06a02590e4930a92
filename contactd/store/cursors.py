"""Reads how far a replayed source was read; `UnitOfWork.read_to` writes it."""

from typing import Final

from sqlalchemy import bindparam, select

from contactd.store.engine import Database
from contactd.store.schema import cursors

_POSITION: Final = select(cursors.c.position).where(cursors.c.source == bindparam("source"))


async def position(database: Database, source: str) -> str | None:
    """Return the stored cursor's position, None if the source was never read.

    Raises:
        TemporaryFailure: the database is away.
    """
    async with database.reading() as connection:
        return (await connection.execute(_POSITION, {"source": source})).scalar_one_or_none()
