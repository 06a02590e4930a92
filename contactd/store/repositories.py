"""Rows <-> values of the tickets' domain; every statement is explicit and built once."""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from pydantic import TypeAdapter
from sqlalchemy import (
    RowMapping,
    and_,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from contactd.clock import Clock
from contactd.routing.clocks import State as ClockState
from contactd.routing.notify import (
    ANSWERED_BY_KEY,
    ANSWERED_WITHIN,
    ASKS,
    Reason,
    SendState,
)
from contactd.store.rows import Rows
from contactd.store.schema import (
    addresses,
    attachments,
    clocks,
    contacts,
    dispatches,
    journal,
    mail_ids,
    mail_pages,
    notifications,
    people,
    remote_sessions,
    search_people,
    sites,
    terms,
    tickets,
)
from contactd.store.sqlite import SOON
from contactd.tickets.contact import (
    CallFacts,
    Contact,
    Direction,
    Leg,
    MailFacts,
    Medium,
    Outcome,
    Source,
    Writer,
)
from contactd.tickets.describing import row_of, standard_of
from contactd.tickets.dispatching import Dispatch
from contactd.tickets.dispatching import State as DispatchState
from contactd.tickets.filing import Caller, ContactKey, ContactSlip, Named, PersonSlip, Seen
from contactd.tickets.journal import Entry, instant_text
from contactd.tickets.model import CONTRACT, RATED, Promise, Promised, Ticket
from contactd.tickets.people import MAIL, Address, Branch, Person, Role
from contactd.tickets.priority import Impact, Priority, Urgency
from contactd.tickets.states import OPEN, State

Row = dict[str, Any]
T = TypeVar("T")

_CHUNK: Final = 400  # values in one IN (…): SQLite before 3.32 takes 999 parameters in all
_OPEN: Final = sorted(state.value for state in OPEN)

_assignee = people.alias("assignee")
_older = tickets.alias("older")
_named = tickets.alias("named")

_TICKET_COLUMNS: Final = [
    *(column.label(f"t_{column.name}") for column in tickets.c),
    _assignee.c.key.label("t_assignee"),
]
_PERSON_COLUMNS: Final = [column.label(f"p_{column.name}") for column in people.c]

_FIND: Final = select(*_TICKET_COLUMNS).select_from(
    tickets.outerjoin(_assignee, _assignee.c.id == tickets.c.assignee_id)
)
_FIND_BY_ID: Final = _FIND.where(tickets.c.id == bindparam("ticket"))
_FIND_BY_NUMBER: Final = _FIND.where(tickets.c.number == bindparam("ticket"))

# Of each person the open ticket that somebody spoke about last.
_LATEST_OPEN: Final = (
    select(_older.c.id)
    .where(_older.c.requester_id == people.c.id, _older.c.state.in_(_OPEN))
    .order_by(_older.c.last_contact_at.desc(), _older.c.id.desc())
    .limit(1)
    .scalar_subquery()
)
_CALLERS: Final = (
    select(addresses.c.kind, addresses.c.value, *_PERSON_COLUMNS, *_TICKET_COLUMNS)
    .select_from(
        addresses.join(people, people.c.id == addresses.c.person_id)
        .outerjoin(tickets, tickets.c.id == _LATEST_OPEN)
        .outerjoin(_assignee, _assignee.c.id == tickets.c.assignee_id)
    )
    .where(
        addresses.c.kind == bindparam("kind"),
        addresses.c.value.in_(bindparam("values", expanding=True)),
    )
)

_SEEN: Final = (
    select(
        *(column.label(f"c_{column.name}") for column in contacts.c),
        *_PERSON_COLUMNS,
        *_TICKET_COLUMNS,
        journal.c.body.label("opening"),  # a contact of another ticket may have an older id
        select(_older.c.number)
        .where(
            _older.c.requester_id == people.c.id,
            _older.c.state.in_(_OPEN),
            _older.c.id < tickets.c.id,
        )
        .order_by(_older.c.last_contact_at.desc(), _older.c.id.desc())
        .limit(1)
        .scalar_subquery()
        .label("open_before"),
    )
    .select_from(
        contacts.join(tickets, tickets.c.id == contacts.c.ticket_id)
        .join(people, people.c.id == contacts.c.person_id)
        .outerjoin(_assignee, _assignee.c.id == tickets.c.assignee_id)
        .outerjoin(journal, and_(journal.c.ticket_id == tickets.c.id, journal.c.seq == 1))
    )
    .where(
        contacts.c.medium == bindparam("medium"),
        contacts.c.external_id.in_(bindparam("ids", expanding=True)),
    )
)

_BRANCHES: Final = select(
    sites.c.key,
    sites.c.queue,
    sites.c.language,
    sites.c.zone,
    sites.c.area_code,
    sites.c.contract,
    sites.c.calendar,
).where(
    or_(
        sites.c.key.in_(bindparam("keys", expanding=True)),
        sites.c.area_code.in_(bindparam("area_codes", expanding=True)),
    )
)
_ENGINEER_NAME: Final = select(people.c.name).where(
    people.c.key == bindparam("key"), people.c.role == Role.ENGINEER.value
)
_PERSON: Final = select(*_PERSON_COLUMNS).where(people.c.id == bindparam("person"))
_OWNER: Final = select(addresses.c.person_id).where(
    addresses.c.kind == bindparam("kind"), addresses.c.value == bindparam("value")
)
_KNOWN_BY: Final = (
    select(addresses.c.kind, addresses.c.value)
    .where(addresses.c.person_id == bindparam("person"))
    .order_by(addresses.c.rank, addresses.c.value)
)
_LAST_RANK: Final = select(func.max(addresses.c.rank)).where(
    addresses.c.person_id == bindparam("person")
)
_DROP_ADDRESS: Final = delete(addresses).where(
    addresses.c.person_id == bindparam("person"), addresses.c.value == bindparam("value")
)
_GIVE_ALL: Final = (  # to somebody what was another's
    update(tickets)
    .where(tickets.c.requester_id == bindparam("old"))
    .values(requester_id=bindparam("new")),
    update(contacts)
    .where(contacts.c.person_id == bindparam("old"))
    .values(person_id=bindparam("new")),
    update(addresses)
    .where(addresses.c.person_id == bindparam("old"))
    .values(person_id=bindparam("new"), rank=addresses.c.rank + bindparam("after")),
    delete(search_people).where(search_people.c.person_id == bindparam("old")),
    delete(people).where(people.c.id == bindparam("old")),
)
_OPEN_TICKETS: Final = _FIND.where(
    tickets.c.requester_id == bindparam("person"), tickets.c.state.in_(_OPEN)
).order_by(tickets.c.id)
_JOURNAL: Final = (
    select(journal).where(journal.c.ticket_id == bindparam("ticket")).order_by(journal.c.seq)
)
_CHANGED: Final = (
    select(journal.c.seq)
    .where(
        journal.c.ticket_id == bindparam("ticket"),
        journal.c.seq > bindparam("after"),
        journal.c.action.in_(bindparam("actions", expanding=True)),
    )
    .limit(1)
)
_MOVE_CONTACTS: Final = (
    update(contacts)
    .where(contacts.c.ticket_id == bindparam("old"))
    .values(ticket_id=bindparam("new"))
)
_MOVE_SESSIONS: Final = (  # of remote help: whoever is being helped notices nothing
    update(remote_sessions)
    .where(remote_sessions.c.ticket_id == bindparam("old"))
    .values(ticket_id=bindparam("new"))
)
_MOVE_MERGED: Final = (  # so that one step leads to who has the contacts, however often
    update(tickets)
    .where(tickets.c.merged_into == bindparam("old"))
    .values(merged_into=bindparam("new"))
    .execution_options(**SOON)
)
_CONTACT_KEY: Final = select(contacts.c.medium, contacts.c.external_id).where(
    contacts.c.id == bindparam("contact")
)
_ENGINEERS: Final = select(people.c.key, people.c.id).where(
    people.c.key.in_(bindparam("keys", expanding=True))
)
# In no order: new people differ in nothing yet. To keep it would take a statement each (SQLite).
_ADD_PEOPLE: Final = insert(people).returning(people.c.id)
_ADD_ADDRESSES: Final = insert(addresses).execution_options(**SOON)

_NEXT_SEQUENCE: Final = text(
    "INSERT INTO sequences (day, last) VALUES (:day, :count)"
    " ON CONFLICT (day) DO UPDATE SET last = sequences.last + excluded.last RETURNING last"
)
_ADD_TICKETS: Final = insert(tickets).returning(tickets.c.number, tickets.c.id)
_SAVE_TICKET: Final = Rows(
    update(tickets)
    .where(tickets.c.id == bindparam("ticket"))
    .values(
        {
            name: bindparam(f"new_{name}")
            for name in (
                "site",
                "state",
                "impact",
                "urgency",
                "priority",
                "priority_reason",
                "title",
                "category",
                "system",
                "team",
                "assignee_id",
                "acknowledged_at",
                "closed_at",
                "last_contact_at",
                "updated_at",
                "journal_seq",
                "journal_hash",
                "requester_id",
                "standard",
                "merged_into",
            )
        }
    )
    .execution_options(**SOON)
)
_APPEND: Final = Rows(insert(journal).execution_options(**SOON))
# Of clocks that run; who is sent to the site accepts or declines between ourselves (C3).
_NEXT_PROMISE: Final = (
    select(clocks.c.metric, clocks.c.due_at, clocks.c.breached_at)
    .where(
        clocks.c.ticket_id == bindparam("ticket"),
        clocks.c.state == ClockState.RUNNING.value,
        clocks.c.due_at.is_not(None),
        clocks.c.metric.in_(sorted(set(Promise) - {Promise.NONE})),
    )
    .order_by(clocks.c.due_at, clocks.c.metric)
    .limit(1)
)

_DISPATCHES: Final = (
    select(dispatches)
    .where(dispatches.c.ticket_id == bindparam("ticket"))
    .order_by(dispatches.c.number)
)
_ADD_DISPATCH: Final = insert(dispatches).execution_options(**SOON)
_SAVE_DISPATCH: Final = (
    update(dispatches)
    .where(dispatches.c.ticket_id == bindparam("ticket"), dispatches.c.number == bindparam("place"))
    .values(
        {
            name: bindparam(f"new_{name}")
            for name in ("state", "wrong_codes", "is_proved", "updated_at")
        }
    )
    .execution_options(**SOON)
)
_VERSIONS: Final = (
    select(terms.c.version, terms.c.body)
    .where(terms.c.kind == "contract", terms.c.key == bindparam("key"))
    .order_by(terms.c.version.desc())
)

_NAMED: Final = (  # who names a ticket that was merged means the one that has its contacts
    select(_named.c.number.label("asked"), *_TICKET_COLUMNS, *_PERSON_COLUMNS)
    .select_from(
        _named.join(tickets, tickets.c.id == func.coalesce(_named.c.merged_into, _named.c.id))
        .join(people, people.c.id == tickets.c.requester_id)
        .outerjoin(_assignee, _assignee.c.id == tickets.c.assignee_id)
    )
    .where(_named.c.number.in_(bindparam("numbers", expanding=True)))
)
_WRITERS: Final = select(contacts.c.ticket_id, contacts.c.person_id).where(
    contacts.c.ticket_id.in_(bindparam("tickets", expanding=True))
)
_EVERY_ENGINEER: Final = select(people.c.id).where(people.c.role == Role.ENGINEER.value)
# The same mail comes once for each of our mailboxes: its first ticket is the one.
_MAILS_ANSWERED: Final = (
    select(mail_ids.c.digest, tickets.c.number)
    .select_from(
        mail_ids.join(contacts, contacts.c.id == mail_ids.c.contact_id).join(
            tickets, tickets.c.id == contacts.c.ticket_id
        )
    )
    .where(mail_ids.c.digest.in_(bindparam("digests", expanding=True)))
    .order_by(mail_ids.c.contact_id.desc())
)
_UNANSWERED: Final = sorted(
    {
        SendState.SENDING, SendState.SENT, SendState.DELIVERED, SendState.UNKNOWN,
        SendState.DOUBTFUL,
    }
)  # fmt: skip
_HAS_MARK: Final = (
    select(journal.c.seq)
    .where(journal.c.ticket_id == tickets.c.id, journal.c.action == RATED)
    .exists()
)
_STILL_ASKED: Final = or_(  # there is something to answer yet
    notifications.c.reason.in_(sorted(ANSWERED_BY_KEY)),
    and_(notifications.c.reason.in_(sorted(ASKS)), tickets.c.state == State.RESOLVED.value),
    and_(
        notifications.c.reason == Reason.SURVEY.value,
        tickets.c.state == State.CLOSED.value,
    ),
)
_ASKED: Final = (
    select(notifications.c.address, tickets.c.number, _HAS_MARK)
    .select_from(notifications.join(tickets, tickets.c.id == notifications.c.ticket_id))
    .where(
        notifications.c.medium == Medium.TEXT.value,
        notifications.c.address.in_(bindparam("numbers", expanding=True)),
        notifications.c.state.in_(_UNANSWERED),
        _STILL_ASKED,
        notifications.c.created_at > bindparam("since", type_=notifications.c.created_at.type),
    )
    .order_by(notifications.c.id.desc())
)
_ADD_MAIL_IDS: Final = insert(mail_ids).execution_options(**SOON)
_ADD_MAIL_PAGES: Final = insert(mail_pages).execution_options(**SOON)
_IS_ALIVE: Final = (  # mail comes from it again
    update(addresses)
    .where(
        addresses.c.kind == MAIL,
        addresses.c.value.in_(bindparam("values", expanding=True)),
        addresses.c.bounced_at.is_not(None),
    )
    .values(bounced_at=None)
    .execution_options(**SOON)
)
_ADD_FILES: Final = insert(attachments).execution_options(**SOON)
_MAIL: Final = TypeAdapter(MailFacts)

_ADD_CONTACTS: Final = insert(contacts).returning(
    contacts.c.medium, contacts.c.external_id, contacts.c.id
)
_SAVE_CONTACT: Final = (
    update(contacts)
    .where(contacts.c.id == bindparam("contact"))
    .values(
        {
            name: bindparam(f"new_{name}")
            for name in (
                "ticket_id",
                "received_at",
                "from_value",
                "from_name",
                "to_value",
                "outcome",
                "text",
                "call",
                "call_final",
            )
        }
    )
    .execution_options(**SOON)
)


class SqlPeople:
    def __init__(self, connection: AsyncConnection, clock: Clock) -> None:
        self._connection = connection
        self._clock = clock

    async def callers(self, addresses: Collection[Address]) -> dict[Address, Caller]:
        found: dict[Address, Caller] = {}
        for kind in sorted({address.kind for address in addresses}):
            values = sorted(address.value for address in addresses if address.kind == kind)
            for some in _chunks(values):
                rows = await self._connection.execute(_CALLERS, {"kind": kind, "values": some})
                for row in rows.mappings():
                    address = Address(kind=row["kind"], value=row["value"])
                    ticket = None if row["t_id"] is None else _ticket(row)
                    found[address] = Caller(person=_person(row), ticket=ticket)
        return found

    async def branches(
        self, keys: Collection[str], area_codes: Collection[str]
    ) -> dict[str, Branch]:
        wanted = {"keys": sorted(keys), "area_codes": sorted(area_codes)}
        rows = await self._connection.execute(_BRANCHES, wanted)
        return {row["key"]: Branch(**row) for row in rows.mappings()}

    async def add(self, slips: Sequence[PersonSlip]) -> list[int]:
        now = self._clock.now()
        rows: list[Row] = [{"name": "", "created_at": now} for _ in slips]
        added = await self._connection.execute(_ADD_PEOPLE, rows)
        ids = sorted(int(number) for number in added.scalars())
        known_by = [
            {"kind": slip.address.kind, "value": slip.address.value, "person_id": person_id}
            for slip, person_id in zip(slips, ids, strict=True)
            if slip.address.value
        ]
        if known_by:
            await self._connection.execute(_ADD_ADDRESSES, known_by)
        return ids

    async def engineer_name(self, key: str) -> str | None:
        name = (await self._connection.execute(_ENGINEER_NAME, {"key": key})).scalar_one_or_none()
        return None if name is None else str(name)

    async def person(self, person_id: int) -> Person | None:
        found = await self._connection.execute(_PERSON, {"person": person_id})
        row = found.mappings().first()
        return None if row is None else _person(row)

    async def owner(self, address: Address) -> int | None:
        asked = {"kind": address.kind, "value": address.value}
        return (await self._connection.execute(_OWNER, asked)).scalar_one_or_none()

    async def known_by(self, person_id: int) -> list[Address]:
        rows = await self._connection.execute(_KNOWN_BY, {"person": person_id})
        return [Address(kind=row.kind, value=row.value) for row in rows]

    async def put(self, person_id: int, values: Mapping[str, Any]) -> int:
        if not person_id:
            row = {"name": "", "created_at": self._clock.now(), **values}
            return int((await self._connection.execute(_ADD_PEOPLE, [row])).scalar_one())
        if values:
            changed = update(people).where(people.c.id == person_id).values(dict(values))
            await self._connection.execute(changed)
        return person_id

    async def add_address(self, person_id: int, address: Address) -> None:
        row = {
            "kind": address.kind,
            "value": address.value,
            "person_id": person_id,
            "rank": await self._next_rank(person_id),
        }
        await self._connection.execute(insert(addresses), row)

    async def drop_address(self, person_id: int, value: str) -> None:
        await self._connection.execute(_DROP_ADDRESS, {"person": person_id, "value": value})

    async def merge(self, person_id: int, into: int) -> None:
        names = {"old": person_id, "new": into, "after": await self._next_rank(into)}
        for statement in _GIVE_ALL:
            await self._connection.execute(statement, names)

    async def open_tickets(self, person_id: int) -> list[Ticket]:
        rows = await self._connection.execute(_OPEN_TICKETS, {"person": person_id})
        return [_ticket(row) for row in rows.mappings()]

    async def _next_rank(self, person_id: int) -> int:
        last = await self._connection.execute(_LAST_RANK, {"person": person_id})
        found = last.scalar_one_or_none()
        return 0 if found is None else int(found) + 1


class SqlTickets:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def find(self, ticket: int | str) -> Ticket | None:
        statement = _FIND_BY_ID if isinstance(ticket, int) else _FIND_BY_NUMBER
        row = (await self._connection.execute(statement, {"ticket": ticket})).mappings().first()
        return None if row is None else _ticket(row)

    async def named(self, numbers: Collection[str]) -> dict[str, Named]:
        found: dict[str, tuple[Ticket, Person]] = {}
        for some in _chunks(sorted(numbers)):
            rows = await self._connection.execute(_NAMED, {"numbers": some})
            for row in rows.mappings():
                found[row["asked"]] = (_ticket(row), _person(row))
        if not found:
            return {}
        engineers = frozenset((await self._connection.execute(_EVERY_ENGINEER)).scalars())
        writers: dict[int, set[int]] = {}
        for ids in _chunks(sorted(ticket.id for ticket, _ in found.values())):
            for ticket_id, person in await self._connection.execute(_WRITERS, {"tickets": ids}):
                writers.setdefault(ticket_id, set()).add(person)
        return {
            number: Named(
                ticket=ticket,
                requester=requester,
                people=engineers | {requester.id} | writers.get(ticket.id, set()),
            )
            for number, (ticket, requester) in found.items()
        }

    async def answered(self, message_ids: Collection[str]) -> dict[str, str]:
        by_digest = {_digest(message_id): message_id for message_id in message_ids}
        found: dict[str, str] = {}
        for some in _chunks(sorted(by_digest)):
            rows = await self._connection.execute(_MAILS_ANSWERED, {"digests": some})
            found |= {by_digest[digest]: number for digest, number in rows}
        return found

    async def asked(self, numbers: Collection[str], now: datetime) -> dict[str, tuple[str, ...]]:
        wanted = {"numbers": sorted(numbers), "since": now - ANSWERED_WITHIN}
        waiting: dict[str, dict[str, None]] = {}
        marked: dict[str, str] = {}  # who thinks better of a mark says so in the same way
        for address, ticket, has_mark in await self._connection.execute(_ASKED, wanted):
            if has_mark:
                marked.setdefault(address, ticket)
            else:
                waiting.setdefault(address, {})[ticket] = None
        found = {address: tuple(asked) for address, asked in waiting.items()}
        return {**{address: (ticket,) for address, ticket in marked.items()}, **found}

    async def next_sequence(self, day: str, count: int) -> int:
        taken = await self._connection.execute(_NEXT_SEQUENCE, {"day": day, "count": count})
        return int(taken.scalar_one()) - count + 1

    async def add(self, tickets: Sequence[Ticket]) -> dict[str, int]:
        rows = await self._rows(tickets)
        for row, ticket in zip(rows, tickets, strict=True):
            row["number"] = ticket.number
            row["opened_at"] = ticket.opened_at
        added = await self._connection.execute(_ADD_TICKETS, rows)
        return {number: int(ticket_id) for number, ticket_id in added}

    async def save(self, tickets: Sequence[Ticket]) -> None:
        rows = [
            {"ticket": ticket.id, **{f"new_{name}": value for name, value in row.items()}}
            for ticket, row in zip(tickets, await self._rows(tickets), strict=True)
        ]
        await _SAVE_TICKET.execute(self._connection, rows)

    async def append(self, entries: Sequence[tuple[int, Entry]]) -> None:
        rows = [
            {
                "ticket_id": ticket_id,
                "seq": entry.seq,
                "at": entry.at,
                "actor": entry.actor,
                "action": entry.action,
                "state": entry.state,
                "body": dict(entry.body),
                "prev_hash": entry.prev_hash,
                "hash": entry.hash,
            }
            for ticket_id, entry in entries
        ]
        await _APPEND.execute(self._connection, rows)

    async def journal(self, ticket: Ticket) -> list[Entry]:
        rows = await self._connection.execute(_JOURNAL, {"ticket": ticket.id})
        return [journal_entry(ticket.number, row) for row in rows.mappings()]

    async def changed_since(self, ticket_id: int, seq: int, actions: Collection[str]) -> bool:
        asked = {"ticket": ticket_id, "after": seq, "actions": sorted(actions)}
        return (await self._connection.execute(_CHANGED, asked)).first() is not None

    async def merge(self, ticket_id: int, into: int) -> int:
        names = {"old": ticket_id, "new": into}
        moved = await self._connection.execute(_MOVE_CONTACTS, names)
        await self._connection.execute(_MOVE_SESSIONS, names)
        await self._connection.execute(_MOVE_MERGED, names)
        return moved.rowcount

    async def next_promise(self, ticket_id: int) -> Promised | None:
        row = (await self._connection.execute(_NEXT_PROMISE, {"ticket": ticket_id})).first()
        if row is None:
            return None
        return Promised(
            promise=Promise(row.metric),
            due_at=row.due_at,
            is_broken=row.breached_at is not None,
        )

    async def _rows(self, tickets: Sequence[Ticket]) -> list[Row]:
        """Return what may change of each ticket; an assignee nobody knows (the floor) is NULL."""
        keys = sorted({ticket.assignee for ticket in tickets} - {""})
        ids: dict[str, int] = {}
        if keys:
            found = await self._connection.execute(_ENGINEERS, {"keys": keys})
            ids = {row.key: row.id for row in found}
        return [
            {
                "site": ticket.site or None,
                "state": ticket.state.value,
                "impact": int(ticket.impact),
                "urgency": int(ticket.urgency),
                "priority": ticket.priority.value,
                "priority_reason": ticket.priority_reason,
                "title": ticket.title,
                "category": ticket.category,
                "system": ticket.system,
                "team": ticket.team,
                "assignee_id": ids.get(ticket.assignee),
                "acknowledged_at": ticket.acknowledged_at,
                "closed_at": ticket.closed_at,
                "last_contact_at": ticket.last_contact_at,
                "updated_at": ticket.updated_at,
                "journal_seq": ticket.journal_seq,
                "journal_hash": ticket.journal_hash,
                "requester_id": ticket.requester_id,
                "standard": row_of(ticket.standard),
                "merged_into": ticket.merged_into or None,
            }
            for ticket in tickets
        ]


class SqlContacts:
    def __init__(self, connection: AsyncConnection, clock: Clock) -> None:
        self._connection = connection
        self._clock = clock

    async def seen(self, keys: Collection[ContactKey]) -> dict[ContactKey, Seen]:
        found: dict[ContactKey, Seen] = {}
        for medium in sorted({medium for medium, _ in keys}):
            ids = sorted(external_id for each, external_id in keys if each is medium)
            for some in _chunks(ids):
                rows = await self._connection.execute(_SEEN, {"medium": medium.value, "ids": some})
                for row in rows.mappings():
                    seen = _seen(row)
                    found[seen.contact.medium, seen.contact.external_id] = seen
        return found

    async def key(self, contact_id: int) -> ContactKey | None:
        found = await self._connection.execute(_CONTACT_KEY, {"contact": contact_id})
        row = found.first()
        return None if row is None else (Medium(row.medium), row.external_id)

    async def add(self, slips: Sequence[ContactSlip]) -> dict[ContactKey, int]:
        now = self._clock.now()
        rows = [
            {
                "person_id": slip.person.person.id,
                "medium": slip.contact.medium.value,
                "external_id": slip.contact.external_id,
                "direction": slip.contact.direction.value,
                "source": slip.contact.source.value,
                "filed_at": now,
                "mail": _mail_row(slip.contact.mail),
                **_contact_row(slip),
            }
            for slip in slips
        ]
        added = await self._connection.execute(_ADD_CONTACTS, rows)
        ids = {(Medium(medium), external_id): int(key) for medium, external_id, key in added}
        await self._add_belongings(
            [(ids[each.contact.medium, each.contact.external_id], each.contact) for each in slips]
        )
        return ids

    async def _add_belongings(self, added: Sequence[tuple[int, Contact]]) -> None:
        """Store what belongs to new mails, their Message-IDs and HTML, and everybody's files."""
        now = self._clock.now()
        files = [row for each in added for row in _file_rows(*each, now)]
        mails = [(contact_id, each) for contact_id, each in added if each.mail is not None]
        for statement, rows in (
            (_ADD_MAIL_IDS, [row for each in mails for row in _mail_id_rows(*each)]),
            (_ADD_MAIL_PAGES, [{"contact_id": i, "html": m.html} for i, m in mails if m.html]),
            (_ADD_FILES, files),
        ):
            if rows:
                await self._connection.execute(statement, rows)
        if alive := sorted({_sender(each) for _, each in mails} - {""}):
            for some in _chunks(alive):
                await self._connection.execute(_IS_ALIVE, {"values": some})

    async def save(self, slips: Sequence[ContactSlip]) -> None:
        rows = [
            {
                "contact": slip.id,
                **{f"new_{name}": value for name, value in _contact_row(slip).items()},
            }
            for slip in slips
        ]
        await self._connection.execute(_SAVE_CONTACT, rows)


class SqlDispatches:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def of_ticket(self, ticket_id: int) -> list[Dispatch]:
        rows = await self._connection.execute(_DISPATCHES, {"ticket": ticket_id})
        return [_dispatch(row) for row in rows.mappings()]

    async def add(self, dispatch: Dispatch) -> None:
        row = {
            "ticket_id": dispatch.ticket_id,
            "number": dispatch.number,
            "engineer": dispatch.engineer,
            "code": dispatch.code,
            **_dispatch_row(dispatch),
        }
        await self._connection.execute(_ADD_DISPATCH, row)

    async def save(self, dispatches: Sequence[Dispatch]) -> None:
        rows = [
            {
                "ticket": dispatch.ticket_id,
                "place": dispatch.number,
                **{f"new_{name}": value for name, value in _dispatch_row(dispatch).items()},
            }
            for dispatch in dispatches
        ]
        if rows:
            await self._connection.execute(_SAVE_DISPATCH, rows)


class SqlContracts:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def current(self, name: str) -> str | None:
        key, is_versioned, version = name.partition(".")
        found = (await self._connection.execute(_VERSIONS, {"key": key})).all()
        # An empty body: it was taken out of the desk file then.
        if found and found[0].body and not is_versioned:
            return f"{key}.{found[0].version}"
        if version in {str(each.version) for each in found if each.body}:
            return name
        return CONTRACT if name == CONTRACT else None


def call_row(facts: CallFacts) -> Row:
    """Return the facts of a call as the JSON column and the API hold them; lengths in seconds."""
    return {
        "pbx": facts.pbx,
        "did": facts.did,
        "final": facts.final,
        "stage": facts.stage,
        "queue": facts.queue,
        "queued_at": _text(facts.queued_at),
        "answered_at": _text(facts.answered_at),
        "ended_at": _text(facts.ended_at),
        "waited_s": _seconds(facts.waited),
        "talked_s": _seconds(facts.talked),
        "legs": [
            {
                "engineer": leg.engineer,
                "answered_at": _text(leg.answered_at),
                "ended_at": _text(leg.ended_at),
            }
            for leg in facts.legs
        ],
        "passed_by": list(facts.passed_by),
        "end_reason": facts.end_reason,
        "hangup_cause": facts.hangup_cause,
        "keys": facts.keys,
        "recording": facts.recording,
        "voicemail": facts.voicemail,
    }


def call_facts(row: Mapping[str, Any]) -> CallFacts:
    """Return what `call_row` wrote down."""
    return CallFacts(
        pbx=row["pbx"],
        did=row["did"],
        final=row["final"],
        stage=row["stage"],
        queue=row["queue"],
        queued_at=_instant(row["queued_at"]),
        answered_at=_instant(row["answered_at"]),
        ended_at=_instant(row["ended_at"]),
        waited=_length(row["waited_s"]),
        talked=_length(row["talked_s"]),
        legs=tuple(
            Leg(
                engineer=leg["engineer"],
                answered_at=datetime.fromisoformat(leg["answered_at"]),
                ended_at=_instant(leg["ended_at"]),
            )
            for leg in row["legs"]
        ),
        passed_by=tuple(row["passed_by"]),
        end_reason=row["end_reason"],
        hangup_cause=row["hangup_cause"],
        keys=row["keys"],
        recording=row["recording"],
        voicemail=row["voicemail"],
    )


def _text(at: datetime | None) -> str | None:
    return None if at is None else instant_text(at)


def _instant(value: str | None) -> datetime | None:
    return None if value is None else datetime.fromisoformat(value)


def _seconds(length: timedelta | None) -> float | None:
    return None if length is None else length.total_seconds()


def _length(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)


def _contact_row(slip: ContactSlip) -> Row:
    contact = slip.contact
    return {
        "ticket_id": slip.ticket.ticket.id,
        "received_at": contact.received_at,
        "from_value": contact.from_value,
        "from_name": contact.from_name,
        "to_value": contact.to_value,
        "outcome": contact.outcome.value,
        "text": contact.text,
        "call": None if contact.call is None else call_row(contact.call),
        "call_final": contact.call is not None and contact.call.final,
    }


def _digest(message_id: str) -> str:
    return hashlib.sha256(message_id.encode("utf-8", "surrogatepass")).hexdigest()


def _mail_id_rows(contact_id: int, contact: Contact) -> list[Row]:
    message_id = contact.mail.message_id if contact.mail is not None else ""
    return [{"digest": _digest(message_id), "contact_id": contact_id}] if message_id else []


def _sender(contact: Contact) -> str:
    is_person = contact.mail is not None and contact.mail.writer is Writer.PERSON
    return contact.from_value.strip().lower() if is_person else ""


def _mail_row(facts: MailFacts | None) -> Any:
    return None if facts is None else _MAIL.dump_python(facts, mode="json")


def _file_rows(contact_id: int, contact: Contact, now: datetime) -> list[Row]:
    """Return the files of a contact, each content once for what it is."""
    rows = {
        (file.kind, file.blob.sha256): {
            "contact_id": contact_id,
            "kind": file.kind,
            "sha256": file.blob.sha256,
            "size_bytes": file.blob.size_bytes,
            "media_type": file.blob.media_type[:80],
            "name": file.blob.name[:200],
            "stored_at": now,
            "content_id": file.content_id[:254],
        }
        for file in reversed(contact.files)
    }
    return list(reversed(rows.values()))


def mail_facts(row: Mapping[str, Any] | None) -> MailFacts | None:
    """Return what the JSON column says of a mail."""
    return None if row is None else _MAIL.validate_python(row)


def _ticket(row: RowMapping) -> Ticket:
    return Ticket(
        id=row["t_id"],
        number=row["t_number"],
        requester_id=row["t_requester_id"],
        site=row["t_site"] or "",
        state=State(row["t_state"]),
        impact=Impact(row["t_impact"]),
        urgency=Urgency(row["t_urgency"]),
        priority=Priority(row["t_priority"]),
        priority_reason=row["t_priority_reason"],
        title=row["t_title"],
        category=row["t_category"],
        system=row["t_system"],
        team=row["t_team"],
        assignee=row["t_assignee"] or "",
        opened_at=row["t_opened_at"],
        acknowledged_at=row["t_acknowledged_at"],
        closed_at=row["t_closed_at"],
        last_contact_at=row["t_last_contact_at"],
        updated_at=row["t_updated_at"],
        journal_seq=row["t_journal_seq"],
        journal_hash=row["t_journal_hash"],
        standard=standard_of(row["t_standard"]),
        merged_into=row["t_merged_into"] or 0,
    )


def _dispatch_row(dispatch: Dispatch) -> Row:
    return {
        "state": dispatch.state.value,
        "wrong_codes": dispatch.wrong_codes,
        "is_proved": dispatch.is_proved,
        "updated_at": dispatch.updated_at,
    }


def _dispatch(row: RowMapping) -> Dispatch:
    return Dispatch(
        ticket_id=row["ticket_id"],
        number=row["number"],
        engineer=row["engineer"],
        state=DispatchState(row["state"]),
        code=row["code"],
        wrong_codes=row["wrong_codes"],
        is_proved=row["is_proved"],
        updated_at=row["updated_at"],
    )


def _person(row: RowMapping) -> Person:
    return Person(
        id=row["p_id"],
        key=row["p_key"] or "",
        name=row["p_name"],
        site=row["p_site"] or "",
        vip=row["p_vip"],
        language=row["p_language"],
    )


def _seen(row: RowMapping) -> Seen:
    contact = Contact(
        medium=Medium(row["c_medium"]),
        external_id=row["c_external_id"],
        received_at=row["c_received_at"],
        direction=Direction(row["c_direction"]),
        source=Source(row["c_source"]),
        from_value=row["c_from_value"],
        from_name=row["c_from_name"],
        to_value=row["c_to_value"],
        outcome=Outcome(row["c_outcome"]),
        text=row["c_text"],
        call=None if row["c_call"] is None else call_facts(row["c_call"]),
        mail=mail_facts(row["c_mail"]),
    )
    ticket = _ticket(row)
    opening = row["opening"] or {}
    first = (opening.get("medium"), opening.get("contact"))
    opened = first == (contact.medium.value, contact.external_id)
    return Seen(
        contact_id=row["c_id"],
        contact=contact,
        person=_person(row),
        ticket=ticket,
        opened=opened,
        open_ticket=(row["open_before"] or "") if opened else ticket.number,
    )


def journal_entry(number: str, row: RowMapping) -> Entry:
    """Return an entry of the journal of the ticket with this number."""
    return Entry(
        ticket=number,
        seq=row["seq"],
        at=row["at"],
        actor=row["actor"],
        action=row["action"],
        state=row["state"],
        body=row["body"],
        prev_hash=row["prev_hash"],
        hash=row["hash"],
    )


def _chunks(values: Sequence[T]) -> Iterable[Sequence[T]]:
    for start in range(0, len(values), _CHUNK):
        yield values[start : start + _CHUNK]
