"""Calls that are over, and what their recordings leave behind."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import RowMapping, bindparam, select
from sqlalchemy.dialects import postgresql, sqlite

from contactd.clock import Clock
from contactd.store.engine import Database
from contactd.store.repositories import call_facts
from contactd.store.schema import attachments, contacts
from contactd.tickets.contact import Blob, Contact, Medium, Outcome
from contactd.tickets.together import Together

_CALLS: Final = select(contacts).where(contacts.c.id.in_(bindparam("ids", expanding=True)))
_ATTACH: Final = {
    name: dialect.insert(attachments).on_conflict_do_nothing(
        index_elements=["contact_id", "kind", "sha256"]
    )
    for name, dialect in (("sqlite", sqlite), ("postgresql", postgresql))
}

MOST_TOGETHER: Final = 50  # rows in one transaction


class Calls:
    """`telephony.recordings.Attachments`, in SQL."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        # Calls end in bursts, as far as the records tell.
        self._calls = Together(self._read_calls, key=lambda each: each, most=MOST_TOGETHER)
        self._attaching = Together(self._attach, key=lambda each: each, most=MOST_TOGETHER)

    async def call(self, contact_id: int) -> Contact | None:
        """Return a call with what recordings need of it; None if it is not a call."""
        return await self._calls.ask(contact_id)

    async def _read_calls(self, contact_ids: Sequence[int]) -> list[Contact | None]:
        async with self._database.reading() as connection:
            rows = (await connection.execute(_CALLS, {"ids": contact_ids})).mappings().all()
        found = {row["id"]: _call(row) for row in rows}
        return [found.get(contact_id) for contact_id in contact_ids]

    async def attach(self, contact_id: int, kind: str, blob: Blob) -> None:
        await self._attaching.ask((contact_id, kind, blob))

    async def _attach(self, wanted: Sequence[tuple[int, str, Blob]]) -> list[None]:
        now = self._clock.now()
        rows: list[dict[str, Any]] = [
            {
                "contact_id": contact_id,
                "kind": kind,
                "sha256": blob.sha256,
                "size_bytes": blob.size_bytes,
                "media_type": blob.media_type,
                "name": blob.name,
                "stored_at": now,
            }
            for contact_id, kind, blob in wanted
        ]
        async with self._database.writing() as connection:
            await connection.execute(_ATTACH[self._database.dialect], rows)
        return [None] * len(rows)


def _call(row: RowMapping) -> Contact | None:
    if row["call"] is None:
        return None
    return Contact(
        medium=Medium(row["medium"]),
        external_id=row["external_id"],
        received_at=row["received_at"],
        outcome=Outcome(row["outcome"]),
        call=call_facts(row["call"]),
    )
