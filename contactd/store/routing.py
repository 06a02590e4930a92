"""What routing knows of tickets, in SQL: cases, escalations, clocks, notifications."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from pydantic import TypeAdapter
from sqlalchemy import RowMapping, and_, bindparam, delete, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from contactd.routing.clocks import Clock
from contactd.routing.escalation import Escalation, Group, Phase, open_page
from contactd.routing.follow_up import Author, StoredNotice
from contactd.routing.following import Case, Message, Requester, symptom
from contactd.routing.notify import ANSWERED_BY_KEY, Notification, Reason, SendState
from contactd.routing.promises import clock_row
from contactd.store.repositories import SqlTickets, journal_entry
from contactd.store.schema import (
    addresses,
    clocks,
    contacts,
    dispatches,
    escalations,
    journal,
    notifications,
    people,
    tickets,
)
from contactd.store.sqlite import SOON
from contactd.store.upsert import upsert
from contactd.tickets.contact import Medium
from contactd.tickets.model import Ticket
from contactd.tickets.people import Address
from contactd.tickets.phone import address as phone_address

_ESCALATION: Final = TypeAdapter(Escalation)

_JOURNAL: Final = (
    select(journal).where(journal.c.ticket_id == bindparam("ticket")).order_by(journal.c.seq)
)
_REQUESTER: Final = (
    select(people.c.name, people.c.language, people.c.vip, addresses.c.kind, addresses.c.value)
    .select_from(
        tickets.join(people, people.c.id == tickets.c.requester_id).outerjoin(
            addresses,
            and_(addresses.c.person_id == people.c.id, addresses.c.bounced_at.is_(None)),
        )
    )
    .where(tickets.c.id == bindparam("ticket"))
    .order_by(addresses.c.rank, addresses.c.value)
)
_WROTE_FROM: Final = (  # the last one of each medium is the one
    select(contacts.c.medium, contacts.c.from_value)
    .where(
        contacts.c.ticket_id == bindparam("ticket"),
        contacts.c.person_id == bindparam("requester"),
        contacts.c.medium.in_([Medium.MAIL.value, Medium.TEXT.value]),
    )
    .order_by(contacts.c.received_at, contacts.c.id)
)
_ONE: Final = select(escalations).where(escalations.c.ticket_id == bindparam("ticket"))
_OPEN_PHASES: Final = (Phase.PAGING.value, Phase.TAKEN.value)
_SAME: Final = (
    select(escalations.c.body)
    .where(
        escalations.c.phase.in_(_OPEN_PHASES),
        escalations.c.site == bindparam("site"),
        escalations.c.symptom == bindparam("symptom"),
        escalations.c.leader == "",
    )
    .order_by(escalations.c.ticket_id)
)
_CODES: Final = select(dispatches.c.number, dispatches.c.code).where(
    dispatches.c.ticket_id == bindparam("ticket")
)
_PUT: Final = upsert(escalations, ["ticket_id"])
_DROP_CLOCKS: Final = (
    delete(clocks).where(clocks.c.ticket_id == bindparam("ticket")).execution_options(**SOON)
)
_ADD_CLOCKS: Final = insert(clocks).execution_options(**SOON)
# What was decided once is not decided again: the first one counts.
_ADD_NOTES: Final = {
    name: dialect.insert(notifications)
    .on_conflict_do_nothing(index_elements=["dedup_key"])
    .execution_options(**SOON)
    for name, dialect in (("sqlite", sqlite), ("postgresql", postgresql))
}
_NOTE: Final = (
    select(notifications, tickets.c.number.label("ticket"))
    .join(tickets, tickets.c.id == notifications.c.ticket_id)
    .where(notifications.c.client_ref == bindparam("ref"))
)
_LATEST_PAGE: Final = (
    select(notifications.c.client_ref)
    .join(tickets, tickets.c.id == notifications.c.ticket_id)
    .where(
        tickets.c.number == bindparam("ticket"),
        notifications.c.recipient == bindparam("engineer"),
        notifications.c.reason.in_(sorted(reason.value for reason in ANSWERED_BY_KEY)),
    )
    .order_by(notifications.c.id.desc())
    .limit(1)
)
_AUTHOR: Final = (
    select(people.c.id, people.c.key, people.c.role)
    .join(addresses, addresses.c.person_id == people.c.id)
    .where(
        addresses.c.kind == bindparam("kind"),
        addresses.c.value == bindparam("value"),
    )
)
_ATTACHED: Final = select(escalations.c.ticket_id).where(
    escalations.c.phase == Phase.ATTACHED.value, escalations.c.leader == bindparam("leader")
)
_PAGING: Final = select(escalations.c.ticket_id).where(
    escalations.c.phase == Phase.PAGING.value,
    escalations.c.site.in_(bindparam("sites", expanding=True)),
)
_UNDER_WAY: Final = [
    state.value
    for state in (
        SendState.QUEUED,
        SendState.SENDING,
        SendState.SENT,
        SendState.DELIVERED,
        SendState.UNKNOWN,
        SendState.DOUBTFUL,
    )
]


class SqlRouting:
    """The part of a unit of work that `routing.follow_up` uses."""

    def __init__(self, connection: AsyncConnection, tickets: SqlTickets) -> None:
        self._connection = connection
        self._tickets = tickets

    async def case(self, ticket_id: int) -> Case | None:
        """Return a ticket with everything that hangs on it."""
        ticket = await self._tickets.find(ticket_id)
        if ticket is None:
            return None
        mine = {"ticket": ticket_id}
        entries = (await self._connection.execute(_JOURNAL, mine)).mappings().all()
        known_by = (await self._connection.execute(_REQUESTER, mine)).mappings().all()
        stored = (await self._connection.execute(_ONE, mine)).mappings().first()
        codes = (await self._connection.execute(_CODES, mine)).all()
        return Case(
            ticket=ticket,
            journal=tuple(journal_entry(ticket.number, entry) for entry in entries),
            requester=_requester(known_by),
            escalation=_escalation(stored),
            seen=stored["seen_seq"] if stored else 0,
            group=await self._group(ticket, stored["leader"] if stored else ""),
            codes={row.number: row.code for row in codes},
            wrote_from=await self._wrote_from(ticket),
        )

    async def _wrote_from(self, ticket: Ticket) -> dict[Medium, str]:
        """Return the addresses from which the requester wrote last, as people are known by them."""
        asked = {"ticket": ticket.id, "requester": ticket.requester_id}
        rows = (await self._connection.execute(_WROTE_FROM, asked)).all()
        return {
            Medium(row.medium): row.from_value.lower()
            if row.medium == Medium.MAIL
            else phone_address(row.from_value)
            for row in rows
        }

    async def _group(self, ticket: Ticket, leader: str) -> Group | None:
        """Return the open page that speaks for the ticket already, else the latest of its site
        and symptom.
        """
        if not (what := symptom(ticket)):
            return None
        asked = {"site": ticket.site, "symptom": what}
        bodies = (await self._connection.execute(_SAME, asked)).scalars()
        pages = [
            page
            for body in bodies
            if (page := open_page(_ESCALATION.validate_python(body))) is not None
            and page.ticket != ticket.number
        ]
        return max(pages, key=lambda page: (page.ticket == leader, page.paged_at), default=None)

    async def save_escalation(
        self, ticket_id: int, escalation: Escalation | None, seen: int
    ) -> None:
        """Keep what is known of telling people, and which journal entries it knows of."""
        row = {"ticket_id": ticket_id, "seen_seq": seen, **_row(escalation)}
        await self._connection.execute(_PUT[self._connection.dialect.name], row)

    async def save_clocks(self, ticket_id: int, found: Sequence[Clock]) -> None:
        await self._connection.execute(_DROP_CLOCKS, {"ticket": ticket_id})
        if found:
            rows = [{"ticket_id": ticket_id, **clock_row(clock)} for clock in found]
            await self._connection.execute(_ADD_CLOCKS, rows)

    async def add_notifications(
        self, ticket_id: int, messages: Sequence[Message], now: datetime
    ) -> None:
        if messages:
            rows = [_note_row(ticket_id, each, now) for each in messages]
            await self._connection.execute(_ADD_NOTES[self._connection.dialect.name], rows)

    async def notification(self, ref: str) -> StoredNotice | None:
        row = (await self._connection.execute(_NOTE, {"ref": ref})).mappings().first()
        return None if row is None else _stored(row)

    async def note(
        self, refs: Sequence[str], state: SendState, now: datetime, detail: str = ""
    ) -> None:
        """Note what became of notifications; what is over cannot be stopped any more."""
        if not refs:
            return
        noted = (
            update(notifications)
            .where(notifications.c.client_ref.in_(refs))
            .values(state=state.value, detail=detail[:200], updated_at=now)
        )
        if state is SendState.STOPPED:
            noted = noted.where(notifications.c.state.in_(_UNDER_WAY))
        await self._connection.execute(noted, execution_options=SOON)

    async def latest_page(self, ticket: str, engineer: str) -> str:
        """Return the `ref` of the last message to an engineer about a ticket, "" without one."""
        asked = {"ticket": ticket, "engineer": engineer}
        return (await self._connection.execute(_LATEST_PAGE, asked)).scalar() or ""

    async def author(self, address: Address) -> Author | None:
        """Return who has this address."""
        asked = {"kind": address.kind, "value": address.value}
        row = (await self._connection.execute(_AUTHOR, asked)).first()
        if row is None:
            return None
        return Author(person_id=row.id, engineer=row.key if row.role == "engineer" else "")

    async def attached(self, leader: str) -> list[int]:
        """Return the tickets that the page of ticket `leader` speaks for."""
        return list((await self._connection.execute(_ATTACHED, {"leader": leader})).scalars())

    async def paging(self, sites: Sequence[str]) -> list[int]:
        """Return the tickets of these sites about which people are being told now."""
        return list((await self._connection.execute(_PAGING, {"sites": list(sites)})).scalars())


def _escalation(row: RowMapping | None) -> Escalation | None:
    if row is None or row["body"] is None:
        return None
    return _ESCALATION.validate_python(row["body"])


def _row(escalation: Escalation | None) -> dict[str, Any]:
    if escalation is None:
        return {"phase": "", "site": "", "symptom": "", "leader": "", "body": None}
    return {
        "phase": escalation.phase.value,
        "site": escalation.facts.site,
        "symptom": escalation.facts.symptom,
        "leader": escalation.leader,
        "body": _ESCALATION.dump_python(escalation, mode="json"),
    }


def _requester(rows: Sequence[RowMapping]) -> Requester:
    first = rows[0]
    return Requester(
        name=first["name"],
        language=first["language"],
        vip=first["vip"],
        addresses=tuple(
            Address(kind=row["kind"], value=row["value"]) for row in rows if row["kind"]
        ),
    )


def _note_row(ticket_id: int, message: Message, now: datetime) -> dict[str, Any]:
    notification = message.notification
    return {
        "dedup_key": message.dedup_key,
        "ticket_id": ticket_id,
        "recipient": notification.recipient,
        "medium": notification.medium.value,
        "address": notification.address,
        "client_ref": notification.ref,
        "reason": notification.reason.value,
        "facts": {
            **notification.facts,
            "name": notification.name,
            "language": notification.language,
        },
        "step": message.step,
        "generation": message.generation,
        "state": SendState.QUEUED.value,
        "created_at": now,
        "updated_at": now,
    }


def _stored(row: RowMapping) -> StoredNotice:
    facts = dict(row["facts"])
    return StoredNotice(
        notification=Notification(
            ref=row["client_ref"],
            ticket=row["ticket"],
            recipient=row["recipient"],
            name=facts.pop("name", ""),
            medium=Medium(row["medium"]),
            address=row["address"],
            language=facts.pop("language", "zh"),
            reason=Reason(row["reason"]),
            facts=facts,
        ),
        ticket_id=row["ticket_id"],
        state=SendState(row["state"]),
        step=row["step"],
        generation=row["generation"],
        updated_at=row["updated_at"],
    )
