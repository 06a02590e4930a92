"""What the pages ask the database about calls and about what has changed; nothing is locked."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import RowMapping, bindparam, case, func, or_, select

from contactd.errors import NotFound
from contactd.store.engine import Database
from contactd.store.repositories import call_facts
from contactd.store.schema import addresses, contacts, people, sites, tickets
from contactd.tickets.contact import CallFacts, Direction, Medium, Outcome
from contactd.tickets.numbers import is_valid
from contactd.tickets.people import PHONE
from contactd.tickets.phone import address
from contactd.tickets.priority import Priority
from contactd.tickets.states import OPEN, State

ON_CARD: Final = 5  # tickets of a caller
RECENT: Final = 60  # calls
MOST_CHANGED: Final = 500  # tickets; more at a time are as good as all


@dataclass(frozen=True, slots=True, kw_only=True)
class CardTicket:
    number: str
    title: str
    state: State
    priority: Priority
    system: str
    site: str
    opened_at: datetime
    engineer: str  # name, "" when nobody has it

    @property
    def is_open(self) -> bool:
        return self.state in OPEN


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerCard:
    """Who calls. `tickets`: open ones first, then the newest; `total`: how many there are."""

    person_id: int
    name: str  # "" when nobody knows
    department: str
    site: str
    vip: bool
    language: str
    tickets: tuple[CardTicket, ...] = ()
    total: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Callee:
    """Whom a call from a ticket would reach."""

    ticket: str
    site: str
    name: str
    language: str
    numbers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """A ticket that something happened to."""

    number: str
    site: str
    seq: int
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PastCall:
    """One line of the list of calls; `person` is "" when nobody knows."""

    contact_id: int
    external_id: str
    ticket: str
    title: str
    site: str
    person: str
    vip: bool
    direction: Direction
    number: str  # the other end's; "" when withheld
    received_at: datetime
    outcome: Outcome
    facts: CallFacts | None


_assignee = people.alias("assignee")
_is_open = tickets.c.state.in_(sorted(state.value for state in OPEN))

_CALLER: Final = (
    select(people)
    .select_from(people.join(addresses, addresses.c.person_id == people.c.id))
    .where(addresses.c.kind == PHONE, addresses.c.value == bindparam("number"))
)
# The count runs over what the index of the person's tickets finds; the rows are the first few.
_TICKETS: Final = (
    select(
        tickets.c.number,
        tickets.c.title,
        tickets.c.state,
        tickets.c.priority,
        tickets.c.system,
        tickets.c.site,
        tickets.c.opened_at,
        _assignee.c.name.label("engineer"),
        func.count().over().label("total"),
    )
    .select_from(tickets.outerjoin(_assignee, _assignee.c.id == tickets.c.assignee_id))
    .where(tickets.c.requester_id == bindparam("person"), tickets.c.merged_into.is_(None))
    .order_by(case((_is_open, 0), else_=1), tickets.c.opened_at.desc())
    .limit(bindparam("most"))
)
_CALLEE: Final = (
    select(
        tickets.c.number,
        tickets.c.site,
        people.c.id,
        people.c.name,
        people.c.language,
        sites.c.language.label("site_language"),
    )
    .select_from(
        tickets.join(people, people.c.id == tickets.c.requester_id).outerjoin(
            sites, sites.c.key == tickets.c.site
        )
    )
    .where(tickets.c.number == bindparam("ticket"))
)
_NUMBERS: Final = (
    select(addresses.c.value)
    .where(addresses.c.kind == PHONE, addresses.c.person_id == bindparam("person"))
    .order_by(addresses.c.rank, addresses.c.value)
)
_MOVED: Final = select(
    tickets.c.number, tickets.c.site, tickets.c.journal_seq, tickets.c.updated_at
)
_NAMED: Final = _MOVED.where(tickets.c.number.in_(bindparam("numbers", expanding=True)))
_SINCE: Final = (
    _MOVED.where(tickets.c.updated_at >= bindparam("since"))
    .order_by(tickets.c.updated_at.desc())
    .limit(MOST_CHANGED)
)
_RECENT: Final = (
    select(
        contacts,
        tickets.c.number.label("ticket"),
        tickets.c.title,
        tickets.c.site,
        people.c.name.label("person"),
        people.c.vip,
    )
    .select_from(
        contacts.join(tickets, tickets.c.id == contacts.c.ticket_id).join(
            people, people.c.id == contacts.c.person_id
        )
    )
    .where(contacts.c.medium == Medium.CALL.value, contacts.c.received_at >= bindparam("since"))
    .order_by(contacts.c.received_at.desc(), contacts.c.id.desc())
    .limit(bindparam("most"))
)


class CallViews:
    """Every method raises `TemporaryFailure` when the database is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def caller_card(self, number: str) -> CallerCard | None:
        """Return who calls from `number`, as the network gave it; None: nobody who is known."""
        value = address(number)
        if not value:
            return None
        async with self._database.reading() as connection:
            found = await connection.execute(_CALLER, {"number": value})
            person = found.mappings().one_or_none()
            if person is None:
                return None
            asked = {"person": person["id"], "most": ON_CARD}
            rows = (await connection.execute(_TICKETS, asked)).mappings().all()
        return CallerCard(
            person_id=person["id"],
            name=person["name"],
            department=person["department"],
            site=person["site"] or "",
            vip=person["vip"],
            language=person["language"],
            tickets=tuple(map(_card_ticket, rows)),
            total=rows[0]["total"] if rows else 0,
        )

    async def callee(self, ticket: str) -> Callee:
        """Return whom a call from a ticket would reach.

        Raises:
            NotFound: there is no such ticket.
        """
        if not is_valid(ticket):
            raise NotFound("that is not the number of a ticket")
        async with self._database.reading() as connection:
            found = await connection.execute(_CALLEE, {"ticket": ticket})
            row = found.mappings().one_or_none()
            if row is None:
                raise NotFound(f"there is no ticket {ticket}")
            numbers = await connection.execute(_NUMBERS, {"person": row["id"]})
            values = tuple(numbers.scalars())
        return Callee(
            ticket=row["number"],
            site=row["site"] or "",
            name=row["name"],
            language=row["language"] or row["site_language"] or "",
            numbers=values,
        )

    async def tickets(self, numbers: Collection[str]) -> list[Moved]:
        """Return how far the journals of these tickets are."""
        async with self._database.reading() as connection:
            found = await connection.execute(_NAMED, {"numbers": sorted(numbers)})
            return [_moved(row) for row in found.mappings()]

    async def changed(self, since: datetime) -> list[Moved]:
        """Return the tickets that were changed at or after an instant, the latest first."""
        async with self._database.reading() as connection:
            found = await connection.execute(_SINCE, {"since": since})
            return [_moved(row) for row in found.mappings()]

    async def recent(
        self, shown: Collection[str], now: datetime, lately: timedelta = timedelta(days=7)
    ) -> Sequence[PastCall]:
        """Return the last calls at the sites `shown` (none: all), the latest first."""
        query = _RECENT
        if shown:
            query = query.where(or_(tickets.c.site.in_(sorted(shown)), tickets.c.site.is_(None)))
        async with self._database.reading() as connection:
            found = await connection.execute(query, {"since": now - lately, "most": RECENT})
            return [_past(row) for row in found.mappings()]


def _card_ticket(row: RowMapping) -> CardTicket:
    return CardTicket(
        number=row["number"],
        title=row["title"],
        state=State(row["state"]),
        priority=Priority(row["priority"]),
        system=row["system"],
        site=row["site"] or "",
        opened_at=row["opened_at"],
        engineer=row["engineer"] or "",
    )


def _moved(row: RowMapping) -> Moved:
    return Moved(
        number=row["number"],
        site=row["site"] or "",
        seq=row["journal_seq"],
        updated_at=row["updated_at"],
    )


def _past(row: RowMapping) -> PastCall:
    direction = Direction(row["direction"])
    return PastCall(
        contact_id=row["id"],
        external_id=row["external_id"],
        ticket=row["ticket"],
        title=row["title"],
        site=row["site"] or "",
        person=row["person"],
        vip=row["vip"],
        direction=direction,
        number=row["from_value"] if direction is Direction.IN else row["to_value"],
        received_at=row["received_at"],
        outcome=Outcome(row["outcome"]),
        facts=call_facts(row["call"]) if row["call"] is not None else None,
    )
