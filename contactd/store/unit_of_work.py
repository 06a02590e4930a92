"""One transaction: repositories in, rows and outbox out."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import bindparam, delete, insert, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from contactd.clock import Clock
from contactd.store.keyed import set_mark
from contactd.store.repositories import (
    SqlContacts,
    SqlContracts,
    SqlDispatches,
    SqlPeople,
    SqlTickets,
)
from contactd.store.routing import SqlRouting
from contactd.store.rows import Rows
from contactd.store.schema import Instant, acts, once, outbox
from contactd.store.sqlite import SOON
from contactd.tickets.contact import Cursor
from contactd.tickets.events import Due, Event

_ADD_EVENTS: Final = Rows(insert(outbox).execution_options(**SOON))
_ADD_UNIQUE_EVENTS: Final = {
    name: dialect.insert(outbox)
    .on_conflict_do_nothing(index_elements=["dedup_key"])
    .execution_options(**SOON)
    for name, dialect in (("sqlite", sqlite), ("postgresql", postgresql))
}
ONCE_FOR: Final = timedelta(days=7)  # nobody sends a form again after that
_ADD_ONCE: Final = {
    name: dialect.insert(once).on_conflict_do_nothing(index_elements=["key"])
    for name, dialect in (("sqlite", sqlite), ("postgresql", postgresql))
}
_FORGET_ONCE: Final = delete(once).where(once.c.at < bindparam("before", type_=once.c.at.type))
_ADD_ACT: Final = insert(acts)
_READ_TO: Final = (
    text(
        "INSERT INTO cursors (source, position, updated_at) VALUES (:source, :position, :now)"
        " ON CONFLICT (source) DO UPDATE"
        " SET position = excluded.position, updated_at = excluded.updated_at"
    )
    .bindparams(bindparam("now", type_=Instant))
    .execution_options(**SOON)
)


class SqlUnitOfWork:
    """See `tickets.ports.UnitOfWork`. `connection` is for repositories of other packages."""

    def __init__(self, connection: AsyncConnection, clock: Clock) -> None:
        self.connection = connection
        self.people = SqlPeople(connection, clock)
        self.tickets = SqlTickets(connection)
        self.contacts = SqlContacts(connection, clock)
        self.dispatches = SqlDispatches(connection)
        self.contracts = SqlContracts(connection)
        self.routing = SqlRouting(connection, self.tickets)
        self._clock = clock
        self._events: list[dict[str, Any]] = []
        self._unique_events: list[dict[str, Any]] = []

    async def read_to(self, cursors: Sequence[Cursor]) -> None:
        if cursors:
            now = self._clock.now()
            await self.connection.execute(
                _READ_TO,
                [
                    {"source": each.source, "position": each.position, "now": now}
                    for each in cursors
                ],
            )

    async def once(self, key: str) -> bool:
        now = self._clock.now()
        await self.connection.execute(_FORGET_ONCE, {"before": now - ONCE_FOR})
        statement = _ADD_ONCE[self.connection.dialect.name]
        added = await self.connection.execute(statement, {"key": key[:80], "at": now})
        return added.rowcount == 1

    async def note_act(
        self, actor: str, action: str, subject: str, body: Mapping[str, Any]
    ) -> None:
        row = {
            "at": self._clock.now(),
            "actor": actor[:80],
            "action": action,
            "subject": subject[:120],
            "body": dict(body),
        }
        await self.connection.execute(_ADD_ACT, row)

    def emit(self, event: Event | Due) -> None:
        """Store `event` in the outbox on commit; a `Due` whose key is there already is dropped."""
        now = self._clock.now()
        due = event if isinstance(event, Due) else Due(event=event, due_at=now)
        row = {
            "kind": type(due.event).__name__,
            "body": asdict(due.event),
            "dedup_key": due.dedup_key,
            "created_at": now,
            "due_at": due.due_at,
        }
        (self._events if due.dedup_key is None else self._unique_events).append(row)

    async def commit(self) -> None:
        if self._events:
            await _ADD_EVENTS.execute(self.connection, self._events)
        if self._unique_events:
            statement = _ADD_UNIQUE_EVENTS[self.connection.dialect.name]
            await self.connection.execute(statement, self._unique_events)
        self._events, self._unique_events = [], []
        await set_mark(self.connection)
        await self.connection.commit()
