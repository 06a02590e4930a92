"""Reads how far a replayed source was read; `UnitOfWork.read_to` writes it."""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import bindparam, select

from contactd.store.engine import Database
from contactd.store.schema import cursors
from contactd.tickets.contact import Cursor

_POSITION: Final = select(cursors.c.position).where(cursors.c.source == bindparam("source"))


async def position(database: Database, source: str) -> str | None:
    """Return the stored cursor's position, None if the source was never read.

    Raises:
        TemporaryFailure: the database is away.
    """
    async with database.reading() as connection:
        return (await connection.execute(_POSITION, {"source": source})).scalar_one_or_none()


@dataclass(frozen=True, slots=True)
class Bookmark:
    """The cursor of a source that may be read twice; both methods raise TemporaryFailure."""

    database: Database
    source: str

    async def load(self) -> str | None:
        return await position(self.database, self.source)

    async def save(self, place: str) -> None:
        async with self.database.new_work() as work:
            await work.read_to([Cursor(source=self.source, position=place)])
            await work.commit()
