"""What the ticket service needs from storage."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Protocol

from contactd.errors import TemporaryFailure
from contactd.tickets.contact import Cursor
from contactd.tickets.dispatching import Dispatch
from contactd.tickets.events import Due, Event
from contactd.tickets.filing import (
    Caller,
    ContactKey,
    ContactSlip,
    Named,
    PersonSlip,
    Seen,
)
from contactd.tickets.journal import Entry
from contactd.tickets.model import Promised, Ticket
from contactd.tickets.people import Address, Branch, Person


class Conflict(TemporaryFailure):
    """Another transaction was faster and changed what this one had read: do it again."""


class People(Protocol):
    async def callers(self, addresses: Collection[Address]) -> Mapping[Address, Caller]: ...

    async def branches(
        self, keys: Collection[str], area_codes: Collection[str]
    ) -> Mapping[str, Branch]:
        """Return the sites of these keys, and those that have one of the area codes."""
        ...

    async def add(self, slips: Sequence[PersonSlip]) -> list[int]:
        """Store new people with their addresses; return their ids in the same order."""
        ...

    async def engineer_name(self, key: str) -> str | None: ...

    async def person(self, person_id: int) -> Person | None: ...

    async def owner(self, address: Address) -> int | None:
        """Return whose address it is."""
        ...

    async def known_by(self, person_id: int) -> Sequence[Address]:
        """Return somebody's addresses, the preferred first."""
        ...

    async def put(self, person_id: int, values: Mapping[str, Any]) -> int:
        """Store what is said of a person (0: a new one), by column; return their id."""
        ...

    async def add_address(self, person_id: int, address: Address) -> None: ...

    async def drop_address(self, person_id: int, value: str) -> None: ...

    async def merge(self, person_id: int, into: int) -> None:
        """Give somebody everything of another, who is no more: tickets, contacts, addresses."""
        ...

    async def open_tickets(self, person_id: int) -> Sequence[Ticket]: ...


class Tickets(Protocol):
    async def find(self, ticket: int | str) -> Ticket | None:
        """Return the ticket with this id, or with this number."""
        ...

    async def named(self, numbers: Collection[str]) -> Mapping[str, Named]:
        """Return the tickets of these numbers that there are, with who takes part in them."""
        ...

    async def answered(self, message_ids: Collection[str]) -> Mapping[str, str]:
        """Return the number of the ticket of each mail that was received."""
        ...

    async def asked(self, numbers: Collection[str], now: datetime) -> Mapping[str, tuple[str, ...]]:
        """Return, by telephone number, the tickets about which a text of the last days asks them
        something that they have not answered, the latest first; without any, the last that they
        gave a mark.
        """
        ...

    async def next_sequence(self, day: str, count: int) -> int:
        """Take `count` places of the day's sequence; return the first."""
        ...

    async def add(self, tickets: Sequence[Ticket]) -> Mapping[str, int]:
        """Store new tickets; return the id of each number."""
        ...

    async def save(self, tickets: Sequence[Ticket]) -> None: ...

    async def append(self, entries: Sequence[tuple[int, Entry]]) -> None:
        """Append to the journals of the tickets with these ids."""
        ...

    async def journal(self, ticket: Ticket) -> Sequence[Entry]: ...

    async def changed_since(self, ticket_id: int, seq: int, actions: Collection[str]) -> bool:
        """Return whether one of `actions` was written into the journal after the entry `seq`."""
        ...

    async def merge(self, ticket_id: int, into: int) -> int:
        """Give a ticket the contacts of another, and what was merged into that; how many?"""
        ...

    async def next_promise(self, ticket_id: int) -> Promised | None:
        """Return what comes due first of what the requester was promised; None: nothing does."""
        ...


class Dispatches(Protocol):
    async def of_ticket(self, ticket_id: int) -> Sequence[Dispatch]:
        """Return who was ever sent to the site for a ticket, in the order of their numbers."""
        ...

    async def add(self, dispatch: Dispatch) -> None: ...

    async def save(self, dispatches: Sequence[Dispatch]) -> None: ...


class Contracts(Protocol):
    async def current(self, name: str) -> str | None:
        """Return the versioned key of a contract (`gold` is `gold.3` now; `gold.2` is itself)."""
        ...


class Contacts(Protocol):
    async def seen(self, keys: Collection[ContactKey]) -> Mapping[ContactKey, Seen]: ...

    async def key(self, contact_id: int) -> ContactKey | None: ...

    async def add(self, slips: Sequence[ContactSlip]) -> Mapping[ContactKey, int]:
        """Store new contacts; return the id of each."""
        ...

    async def save(self, slips: Sequence[ContactSlip]) -> None: ...


class UnitOfWork(Protocol):
    """One transaction. Leaving the block without `commit` undoes everything.

    Transactions that file contacts or change tickets wait for each other, in this process and
    between processes: what was read stays true until the commit.
    """

    @property
    def people(self) -> People: ...

    @property
    def tickets(self) -> Tickets: ...

    @property
    def contacts(self) -> Contacts: ...

    @property
    def dispatches(self) -> Dispatches: ...

    @property
    def contracts(self) -> Contracts: ...

    async def once(self, key: str) -> bool:
        """Return whether `key` is new; it is not any more once this commits."""
        ...

    async def note_act(
        self, actor: str, action: str, subject: str, body: Mapping[str, Any]
    ) -> None:
        """Write into the journal of what people did beside tickets."""
        ...

    async def read_to(self, cursors: Sequence[Cursor]) -> None:
        """Note how far replayed sources were read."""
        ...

    def emit(self, event: Event | Due) -> None:
        """Store an event in the outbox when this work commits."""
        ...

    async def commit(self) -> None: ...


class NewWork(Protocol):
    def __call__(self, *, reads_only: bool = False) -> AbstractAsyncContextManager[UnitOfWork]:
        """Begin one transaction; with `reads_only` it waits for no other, and cannot commit."""
        ...
