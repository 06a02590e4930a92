"""Files that programs and people add to what was said, with an entry in the ticket's journal."""

from typing import Final

from sqlalchemy import bindparam, select
from sqlalchemy.dialects import postgresql, sqlite

from contactd.clock import Clock
from contactd.errors import NotFound
from contactd.signals import Signals, Topic
from contactd.store.engine import Database
from contactd.store.schema import attachments, contacts
from contactd.tickets import model
from contactd.tickets.contact import Blob
from contactd.tickets.events import TicketDue

KIND: Final = "attachment"
FILE_ADDED: Final = "file.added"
_FIRST: Final = (
    select(contacts.c.id)
    .where(contacts.c.ticket_id == bindparam("ticket"))
    .order_by(contacts.c.received_at, contacts.c.id)
    .limit(1)
)
_ADD: Final = {
    name: dialect.insert(attachments).on_conflict_do_nothing(
        index_elements=["contact_id", "kind", "sha256"]
    )
    for name, dialect in (("sqlite", sqlite), ("postgresql", postgresql))
}
_FIND: Final = select(attachments.c.id).where(
    attachments.c.contact_id == bindparam("contact"),
    attachments.c.kind == KIND,
    attachments.c.sha256 == bindparam("sha256"),
)


class Uploads:
    def __init__(self, database: Database, clock: Clock, signals: Signals) -> None:
        self._database = database
        self._clock = clock
        self._signals = signals

    async def add(self, number: str, blob: Blob, *, actor: str) -> tuple[int, int]:
        """Add a file, kept by now, to what a ticket was opened with; harmless twice.

        Return its id and the contact's.

        Raises:
            NotFound: there is no such ticket.
            TemporaryFailure: nothing was stored.
        """
        now = self._clock.now()
        async with self._database.new_work() as work:
            ticket = await work.tickets.find(number)
            if ticket is None:
                raise NotFound("there is no such ticket")
            first = await work.connection.execute(_FIRST, {"ticket": ticket.id})
            found = first.scalar_one_or_none()
            if found is None:
                raise NotFound("the ticket has no contact any more: see merged_into")
            row = {
                "contact_id": found, "kind": KIND, "sha256": blob.sha256,
                "size_bytes": blob.size_bytes, "media_type": blob.media_type, "name": blob.name,
                "stored_at": now,
            }  # fmt: skip
            dialect = work.connection.dialect.name
            added = await work.connection.execute(_ADD[dialect], row)
            asked = {"contact": found, "sha256": blob.sha256}
            attachment = int((await work.connection.execute(_FIND, asked)).scalar_one())
            if added.rowcount == 1:
                body = {"name": blob.name, "size_bytes": blob.size_bytes}
                noted = model.note(ticket, FILE_ADDED, actor=actor, body=body, now=now)
                ticket, entries = model.sealed(noted.ticket, noted.entries)
                await work.tickets.save([ticket])
                await work.tickets.append([(ticket.id, entry) for entry in entries])
                work.emit(TicketDue(ticket_id=ticket.id))
            await work.commit()
        for topic in (Topic.OUTBOX, Topic.BOARD):
            self._signals.raise_(topic)
        return attachment, int(found)
