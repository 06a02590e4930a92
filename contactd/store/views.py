"""Read-only queries for pages and the API: rows become frozen values, nothing is locked."""

import base64
import binascii
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, RowMapping, Select, and_, bindparam, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from contactd.clock import Clock
from contactd.errors import NotFound, PermanentFailure
from contactd.routing.notify import REQUESTER, Reason, SendState
from contactd.store.engine import Database
from contactd.store.ledger import LedgerDay, ledger_day
from contactd.store.repositories import call_facts, journal_entry, mail_facts
from contactd.store.schema import (
    addresses,
    attachments,
    contacts,
    dispatches,
    journal,
    ledger_days,
    mail_pages,
    notifications,
    people,
    sites,
    texts,
    tickets,
)
from contactd.tickets.contact import CallFacts, Direction, MailFacts, Medium, Outcome, Source
from contactd.tickets.dispatching import State as DispatchState
from contactd.tickets.journal import Entry
from contactd.tickets.numbers import is_valid
from contactd.tickets.people import MAIL, PHONE
from contactd.tickets.phone import address
from contactd.tickets.priority import Impact, Priority, Urgency
from contactd.tickets.states import State

LONGEST_PAGE: Final = 200
_LARGEST_ID: Final = 2**63 - 1  # an id from a URL may be larger, which the databases refuse
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteView:
    key: str
    name_zh: str
    name_en: str
    zone: str
    language: str
    queue: str
    area_code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonView:
    """`numbers` and `mails` are in order of preference; `key` is "" for mere callers."""

    id: int
    key: str
    name: str
    department: str
    site: str
    role: str
    vip: bool
    language: str  # "": the site's
    numbers: tuple[str, ...] = ()
    mails: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketView:
    """One line of a list. `caller` is the number or address of the newest contact."""

    number: str
    title: str
    state: State
    priority: Priority
    site: str
    requester_id: int
    requester: str  # name, "" when unknown
    vip: bool
    caller: str
    engineer: str  # key, "" when nobody has it
    engineer_name: str
    category: str  # "" while nobody has said
    system: str
    team: str  # key, "" when none
    opened_at: datetime
    acknowledged_at: datetime | None
    closed_at: datetime | None
    last_contact_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachmentView:
    id: int
    contact_id: int
    kind: str  # recording, voicemail; of a mail: raw, attachment, inline
    sha256: str
    size_bytes: int
    media_type: str
    name: str
    stored_at: datetime
    content_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ContactView:
    id: int
    ticket: str
    person_id: int
    medium: Medium
    external_id: str
    direction: Direction
    source: Source
    received_at: datetime
    from_value: str
    from_name: str
    to_value: str
    outcome: Outcome
    text: str
    call: CallFacts | None
    mail: MailFacts | None
    filed_at: datetime
    attachments: tuple[AttachmentView, ...] = ()
    site: str = ""  # of its ticket


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchView:
    """Somebody who was sent to the site; the code is the requester's alone."""

    number: int
    engineer: str  # key
    engineer_name: str
    state: DispatchState
    is_proved: bool
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TextView:
    """What is known of a text that was handed to a gateway."""

    gateway: str
    segments: int
    delivery: str  # sent, delivered, failed; "" while nothing was reported
    error: str  # the provider's code, "" if there is none
    handed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageView:
    """Something that was sent because of the ticket, without its words."""

    recipient: str  # engineer's key, floor, requester
    name: str  # "" when nobody knows
    medium: Medium
    address: str
    reason: Reason
    state: SendState
    detail: str  # why it was refused, for operators
    created_at: datetime
    updated_at: datetime
    text: TextView | None = None  # of a text that a gateway has been handed


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketDetail:
    """Everything about one ticket; contacts and journal in the order in which they happened."""

    ticket: TicketView
    impact: Impact
    urgency: Urgency
    priority_reason: str
    journal_hash: str  # of its last entry, as the ticket's row has it
    requester: PersonView
    contacts: tuple[ContactView, ...]
    journal: tuple[Entry, ...]
    dispatches: tuple[DispatchView, ...]
    messages: tuple[MessageView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketFilters:
    """All must hold; None and empty do not filter. `requester` is a number or mail of theirs."""

    states: Collection[State] = ()
    site: str | None = None
    sites: frozenset[str] = frozenset()  # those that somebody sees, and what is of none; empty: all
    requester: str | None = None
    opened_from: datetime | None = None
    opened_to: datetime | None = None  # exclusive


@dataclass(frozen=True, slots=True, kw_only=True)
class ContactFilters:
    medium: Medium | None = None
    ticket: str | None = None  # number
    sites: frozenset[str] = frozenset()  # as of tickets
    received_from: datetime | None = None
    received_to: datetime | None = None  # exclusive


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketPage:
    """`next_cursor` asks for the page after this one; "" at the end."""

    items: tuple[TicketView, ...]
    next_cursor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ContactPage:
    items: tuple[ContactView, ...]
    next_cursor: str


_assignee = people.alias("assignee")
_requester = people.alias("requester")
_newest = contacts.alias("newest")

_CALLER: Final = (
    select(_newest.c.from_value)
    .where(_newest.c.ticket_id == tickets.c.id)
    .order_by(_newest.c.received_at.desc(), _newest.c.id.desc())
    .limit(1)
    .scalar_subquery()
)
_TICKETS: Final = select(
    tickets,
    _CALLER.label("caller"),
    _requester.c.name.label("requester"),
    _requester.c.vip.label("vip"),
    _assignee.c.key.label("engineer"),
    _assignee.c.name.label("engineer_name"),
).select_from(
    tickets.join(_requester, _requester.c.id == tickets.c.requester_id).outerjoin(
        _assignee, _assignee.c.id == tickets.c.assignee_id
    )
)
_TICKET: Final = _TICKETS.where(tickets.c.number == bindparam("ticket"))
_CONTACTS: Final = select(
    contacts, tickets.c.number.label("ticket"), tickets.c.site.label("ticket_site")
).select_from(contacts.join(tickets, tickets.c.id == contacts.c.ticket_id))
_CONTACTS_OF_TICKET: Final = _CONTACTS.where(contacts.c.ticket_id == bindparam("ticket")).order_by(
    contacts.c.received_at, contacts.c.id
)
_CONTACT: Final = _CONTACTS.where(contacts.c.id == bindparam("contact"))
_JOURNAL: Final = (
    select(journal).where(journal.c.ticket_id == bindparam("ticket")).order_by(journal.c.seq)
)
_DISPATCHES: Final = (
    select(
        dispatches.c.number,
        dispatches.c.engineer,
        dispatches.c.state,
        dispatches.c.is_proved,
        dispatches.c.updated_at,
        people.c.name,
    )
    .select_from(dispatches.outerjoin(people, people.c.key == dispatches.c.engineer))
    .where(dispatches.c.ticket_id == bindparam("ticket"))
    .order_by(dispatches.c.number)
)
_MESSAGES: Final = (
    select(
        notifications.c.recipient,
        notifications.c.medium,
        notifications.c.address,
        notifications.c.reason,
        notifications.c.state,
        notifications.c.detail,
        notifications.c.created_at,
        notifications.c.updated_at,
        people.c.name,
        texts.c.gateway,
        texts.c.segments,
        texts.c.delivery,
        texts.c.error,
        texts.c.handed_at,
    )
    .select_from(
        notifications.outerjoin(people, people.c.key == notifications.c.recipient).outerjoin(
            texts, texts.c.ref == notifications.c.client_ref
        )
    )
    .where(notifications.c.ticket_id == bindparam("ticket"))
    .order_by(notifications.c.id)
)
_ATTACHMENTS: Final = (
    select(attachments)
    .where(attachments.c.contact_id.in_(bindparam("contacts", expanding=True)))
    .order_by(attachments.c.id)
)
_MAIL_PAGE: Final = select(mail_pages.c.html).where(mail_pages.c.contact_id == bindparam("contact"))
_ATTACHMENT: Final = select(attachments).where(attachments.c.id == bindparam("attachment"))
_PEOPLE: Final = select(people).order_by(people.c.id).limit(bindparam("most"))
_NAMES: Final = select(people.c.key, people.c.name).where(
    people.c.key.in_(bindparam("keys", expanding=True))
)
_PERSON: Final = select(people).where(people.c.id == bindparam("person"))
_ADDRESSES: Final = (
    select(addresses)
    .where(addresses.c.person_id.in_(bindparam("people", expanding=True)))
    .order_by(addresses.c.rank, addresses.c.value)
)
_SITES: Final = select(sites).order_by(sites.c.key)
_LEDGER: Final = (
    select(ledger_days)
    .where(ledger_days.c.day >= bindparam("first"), ledger_days.c.day <= bindparam("last"))
    .order_by(ledger_days.c.day.desc(), ledger_days.c.medium, ledger_days.c.source)
)


def _between(column: ColumnElement[Any]) -> ColumnElement[bool]:
    return and_(
        column >= bindparam("start", type_=column.type),
        column < bindparam("end", type_=column.type),
    )


_LATEST: Final = (
    _TICKETS.where(_between(tickets.c.opened_at))
    .order_by(tickets.c.opened_at.desc(), tickets.c.id.desc())
    .limit(bindparam("most"))
)


class Views:
    """Every method raises `TemporaryFailure` when the database is away."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def tickets_page(
        self, filters: TicketFilters, cursor: str = "", limit: int = 50
    ) -> TicketPage:
        """Return tickets, the latest opened first.

        Raises:
            PermanentFailure: the cursor is none of ours.
        """
        query = _paged(
            _TICKETS.where(*_ticket_conditions(filters)),
            (tickets.c.opened_at, tickets.c.id),
            cursor,
            limit,
        )
        async with self._database.reading() as connection:
            rows = (await connection.execute(query)).mappings().all()
        items, following = _page(rows, limit, "opened_at")
        return TicketPage(items=tuple(map(_ticket, items)), next_cursor=following)

    async def ticket(self, number: str) -> TicketDetail:
        """Return everything about one ticket.

        Raises:
            NotFound: there is no ticket with this number.
        """
        if not is_valid(number):
            raise NotFound("that is not the number of a ticket")
        async with self._database.reading() as connection:
            found = await connection.execute(_TICKET, {"ticket": number})
            row = found.mappings().one_or_none()
            if row is None:
                raise NotFound(f"there is no ticket {number}")
            mine = {"ticket": row["id"]}
            heard = (await connection.execute(_CONTACTS_OF_TICKET, mine)).mappings().all()
            files = await _attachments(connection, [each["id"] for each in heard])
            entries = (await connection.execute(_JOURNAL, mine)).mappings().all()
            visits = (await connection.execute(_DISPATCHES, mine)).mappings().all()
            sent = (await connection.execute(_MESSAGES, mine)).mappings().all()
            asked = await connection.execute(_PERSON, {"person": row["requester_id"]})
            (requester,) = await _people(connection, asked.mappings().all())
        return TicketDetail(
            ticket=_ticket(row),
            impact=Impact(row["impact"]),
            urgency=Urgency(row["urgency"]),
            priority_reason=row["priority_reason"],
            journal_hash=row["journal_hash"],
            requester=requester,
            contacts=tuple(_contact(each, files.get(each["id"], ())) for each in heard),
            journal=tuple(journal_entry(row["number"], entry) for entry in entries),
            dispatches=tuple(map(_dispatch, visits)),
            messages=tuple(_message(each, requester.name) for each in sent),
        )

    async def contacts_page(
        self, filters: ContactFilters, cursor: str = "", limit: int = 50
    ) -> ContactPage:
        """Return contacts, the latest received first.

        Raises:
            PermanentFailure: the cursor is none of ours.
        """
        query = _paged(
            _CONTACTS.where(*_contact_conditions(filters)),
            (contacts.c.received_at, contacts.c.id),
            cursor,
            limit,
        )
        async with self._database.reading() as connection:
            rows = (await connection.execute(query)).mappings().all()
            items, following = _page(rows, limit, "received_at")
            files = await _attachments(connection, [row["id"] for row in items])
        found = tuple(_contact(row, files.get(row["id"], ())) for row in items)
        return ContactPage(items=found, next_cursor=following)

    async def contact(self, contact_id: int) -> ContactView:
        """Return one contact.

        Raises:
            NotFound: there is none with this id.
        """
        async with self._database.reading() as connection:
            found = await connection.execute(_CONTACT, {"contact": min(contact_id, _LARGEST_ID)})
            row = found.mappings().one_or_none()
            if row is None:
                raise NotFound(f"there is no contact {contact_id}")
            files = await _attachments(connection, [contact_id])
        return _contact(row, files.get(contact_id, ()))

    async def html(self, contact_id: int) -> str:
        """Return a mail's HTML, safe to show, "" if it has none."""
        asked = {"contact": min(contact_id, _LARGEST_ID)}
        async with self._database.reading() as connection:
            found: str | None = (await connection.execute(_MAIL_PAGE, asked)).scalar_one_or_none()
        return found or ""

    async def attachment(self, attachment_id: int) -> AttachmentView:
        """Return what is known of a file; its content is in `Blobs`.

        Raises:
            NotFound: there is none with this id.
        """
        async with self._database.reading() as connection:
            asked = {"attachment": min(attachment_id, _LARGEST_ID)}
            found = await connection.execute(_ATTACHMENT, asked)
            row = found.mappings().one_or_none()
        if row is None:
            raise NotFound(f"there is no attachment {attachment_id}")
        return AttachmentView(**row)

    async def latest(self, day: date, zone: str, most: int) -> tuple[TicketView, ...]:
        """Return the tickets that were opened last on `day` in the time zone `zone`."""
        local = ZoneInfo(zone)
        start, end = (
            datetime.combine(each, time(), local).astimezone(UTC)
            for each in (day, day + timedelta(days=1))
        )
        async with self._database.reading() as connection:
            asked = {"start": start, "end": end, "most": most}
            rows = (await connection.execute(_LATEST, asked)).mappings().all()
        return tuple(map(_ticket, rows))

    async def people(self, limit: int = 1000) -> tuple[PersonView, ...]:
        async with self._database.reading() as connection:
            rows = (await connection.execute(_PEOPLE, {"most": limit})).mappings().all()
            return await _people(connection, rows)

    async def names(self, keys: Collection[str]) -> dict[str, str]:
        """Return the names of people of the desk file by key; who is not known is left out."""
        wanted = {"keys": sorted(filter(str.isprintable, keys))}
        async with self._database.reading() as connection:
            rows = (await connection.execute(_NAMES, wanted)).all()
        return {row.key: row.name for row in rows}

    async def sites(self) -> tuple[SiteView, ...]:
        async with self._database.reading() as connection:
            rows = (await connection.execute(_SITES)).mappings().all()
        names = SiteView.__dataclass_fields__
        return tuple(SiteView(**{name: row[name] for name in names}) for row in rows)

    async def ledger(self, day_from: date, day_to: date) -> tuple[LedgerDay, ...]:
        """Return the settled days from `day_from` to `day_to`, both included, newest first."""
        days = {"first": day_from.isoformat(), "last": day_to.isoformat()}
        async with self._database.reading() as connection:
            rows = (await connection.execute(_LEDGER, days)).mappings().all()
        return tuple(map(ledger_day, rows))


async def tickets_of(connection: AsyncConnection, ids: Collection[int]) -> dict[int, TicketView]:
    """Return some tickets by their ids."""
    rows = await connection.execute(_TICKETS.where(tickets.c.id.in_(ids)))
    return {row["id"]: _ticket(row) for row in rows.mappings()}


def _ticket_conditions(filters: TicketFilters) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if filters.states:
        conditions.append(tickets.c.state.in_(sorted(state.value for state in filters.states)))
    if filters.site is not None:
        conditions.append(tickets.c.site == _storable(filters.site))
    if filters.sites:
        conditions.append(of_sites(filters.sites))
    if filters.requester is not None:
        value = filters.requester.strip()
        value = _storable(value.lower()) if "@" in value else address(value)
        of_person = select(addresses.c.person_id).where(addresses.c.value == value)
        conditions.append(tickets.c.requester_id.in_(of_person))
    if filters.opened_from is not None:
        conditions.append(tickets.c.opened_at >= filters.opened_from)
    if filters.opened_to is not None:
        conditions.append(tickets.c.opened_at < filters.opened_to)
    return conditions


def of_sites(keys: Collection[str]) -> ColumnElement[bool]:
    """Return the condition of tickets of some sites, or of no known one."""
    return or_(tickets.c.site.in_(sorted(keys)), tickets.c.site.is_(None))


def _storable(value: str) -> str:
    """Return a value from a URL, "" when no row can hold it (PostgreSQL refuses NUL)."""
    return value if value.isprintable() else ""


def _contact_conditions(filters: ContactFilters) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if filters.sites:
        conditions.append(of_sites(filters.sites))
    if filters.medium is not None:
        conditions.append(contacts.c.medium == filters.medium.value)
    if filters.ticket is not None:
        conditions.append(tickets.c.number == _storable(filters.ticket))
    if filters.received_from is not None:
        conditions.append(contacts.c.received_at >= filters.received_from)
    if filters.received_to is not None:
        conditions.append(contacts.c.received_at < filters.received_to)
    return conditions


# Pages: ordered by an instant and an id, both falling; the cursor is the last row's.


def _paged(
    query: Select[Any],
    order: tuple[ColumnElement[datetime], ColumnElement[int]],
    cursor: str,
    limit: int,
) -> Select[Any]:
    at, number = order
    if cursor:
        last_at, last_number = _position(cursor)
        query = query.where(or_(at < last_at, and_(at == last_at, number < last_number)))
    most = min(max(limit, 1), LONGEST_PAGE) + 1  # one more tells whether there is a next page
    return query.order_by(at.desc(), number.desc()).limit(most)


def _page(rows: Sequence[RowMapping], limit: int, instant: str) -> tuple[Sequence[RowMapping], str]:
    most = min(max(limit, 1), LONGEST_PAGE)
    if len(rows) <= most:
        return rows, ""
    last = rows[most - 1]
    micros = (last[instant] - _EPOCH) // timedelta(microseconds=1)
    return rows[:most], base64.urlsafe_b64encode(f"{micros}.{last['id']}".encode()).decode()


def _position(cursor: str) -> tuple[datetime, int]:
    try:
        micros, _, number = base64.urlsafe_b64decode(cursor).decode("ascii").partition(".")
        return _EPOCH + timedelta(microseconds=int(micros)), min(int(number), _LARGEST_ID)
    except (ValueError, OverflowError, binascii.Error) as error:
        raise PermanentFailure("the cursor is none of ours") from error


# Rows to values


def _dispatch(row: RowMapping) -> DispatchView:
    return DispatchView(
        number=row["number"],
        engineer=row["engineer"],
        engineer_name=row["name"] or "",
        state=DispatchState(row["state"]),
        is_proved=row["is_proved"],
        updated_at=row["updated_at"],
    )


def _message(row: RowMapping, requester: str) -> MessageView:
    return MessageView(
        recipient=row["recipient"],
        name=requester if row["recipient"] == REQUESTER else row["name"] or "",
        medium=Medium(row["medium"]),
        address=row["address"],
        reason=Reason(row["reason"]),
        state=SendState(row["state"]),
        detail=row["detail"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        text=_text(row) if row["gateway"] else None,
    )


def _text(row: RowMapping) -> TextView:
    return TextView(
        gateway=row["gateway"],
        segments=row["segments"],
        delivery=row["delivery"],
        error=row["error"],
        handed_at=row["handed_at"],
    )


def _ticket(row: RowMapping) -> TicketView:
    return TicketView(
        number=row["number"],
        title=row["title"],
        state=State(row["state"]),
        priority=Priority(row["priority"]),
        site=row["site"] or "",
        requester_id=row["requester_id"],
        requester=row["requester"],
        vip=row["vip"],
        caller=row["caller"] or "",
        engineer=row["engineer"] or "",
        engineer_name=row["engineer_name"] or "",
        category=row["category"],
        system=row["system"],
        team=row["team"],
        opened_at=row["opened_at"],
        acknowledged_at=row["acknowledged_at"],
        closed_at=row["closed_at"],
        last_contact_at=row["last_contact_at"],
        updated_at=row["updated_at"],
    )


def _contact(row: RowMapping, files: tuple[AttachmentView, ...]) -> ContactView:
    return ContactView(
        id=row["id"],
        ticket=row["ticket"],
        site=row["ticket_site"] or "",
        person_id=row["person_id"],
        medium=Medium(row["medium"]),
        external_id=row["external_id"],
        direction=Direction(row["direction"]),
        source=Source(row["source"]),
        received_at=row["received_at"],
        from_value=row["from_value"],
        from_name=row["from_name"],
        to_value=row["to_value"],
        outcome=Outcome(row["outcome"]),
        text=row["text"],
        call=None if row["call"] is None else call_facts(row["call"]),
        mail=mail_facts(row["mail"]),
        filed_at=row["filed_at"],
        attachments=files,
    )


async def _attachments(
    connection: AsyncConnection, contact_ids: Sequence[int]
) -> dict[int, tuple[AttachmentView, ...]]:
    found: dict[int, tuple[AttachmentView, ...]] = {}
    if contact_ids:
        rows = await connection.execute(_ATTACHMENTS, {"contacts": contact_ids})
        for row in rows.mappings():
            found[row["contact_id"]] = (
                *found.get(row["contact_id"], ()), AttachmentView(**row),
            )  # fmt: skip
    return found


async def _people(
    connection: AsyncConnection, rows: Sequence[RowMapping]
) -> tuple[PersonView, ...]:
    known: dict[tuple[int, str], list[str]] = {}
    ids = [row["id"] for row in rows]
    for start in range(0, len(ids), LONGEST_PAGE):
        some = {"people": ids[start : start + LONGEST_PAGE]}
        for row in (await connection.execute(_ADDRESSES, some)).mappings():
            known.setdefault((row["person_id"], row["kind"]), []).append(row["value"])
    return tuple(
        PersonView(
            id=row["id"],
            key=row["key"] or "",
            name=row["name"],
            department=row["department"],
            site=row["site"] or "",
            role=row["role"],
            vip=row["vip"],
            language=row["language"],
            numbers=tuple(known.get((row["id"], PHONE), ())),
            mails=tuple(known.get((row["id"], MAIL), ())),
        )
        for row in rows
    )
