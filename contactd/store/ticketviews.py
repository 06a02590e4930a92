"""What the ticket page and the pages of people ask the database; a ticket may be very long.

Nothing here reads a whole ticket but `journal`, which the clocks need: what was said comes a
`slice` at a time, the newest first.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

from sqlalchemy import ColumnElement, RowMapping, and_, bindparam, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from contactd.clock import Clock
from contactd.errors import NotFound
from contactd.routing.notify import REQUESTER, Reason, SendState
from contactd.routing.oncall import FLOOR_KEY
from contactd.store import duty, views
from contactd.store.engine import Database
from contactd.store.repositories import journal_entry
from contactd.store.schema import (
    addresses,
    attachments,
    contacts,
    journal,
    notifications,
    people,
    spans,
    texts,
    tickets,
)
from contactd.store.views import (
    AttachmentView,
    ContactView,
    DispatchView,
    MessageView,
    PersonView,
    TextView,
    TicketView,
)
from contactd.tickets.contact import Medium
from contactd.tickets.describing import Standard, standard_of
from contactd.tickets.journal import Entry
from contactd.tickets.model import COMMENT
from contactd.tickets.numbers import is_valid
from contactd.tickets.people import Role
from contactd.tickets.phone import address
from contactd.tickets.priority import Impact, Urgency

SLICE: Final = 100  # entries and contacts of the time line, at a time
MOST_MESSAGES: Final = 60
MOST_HISTORY: Final = 8
MOST_FOUND: Final = 30
_LARGEST_ID: Final = 2**63 - 1
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_CONTACT, _ENTRY = 1, 0  # of one instant the entry came after the contact that it tells of
# Entries that may hold somebody's own words.
NOTED: Final = frozenset(
    {
        COMMENT, "held", "resolved", "reopened", "closed", "cancelled", "updated", "handed_over",
        "acknowledged", "answered",
    }
)  # fmt: skip
WRITTEN: Final = "requester.written_to"
_SAYS: Final[Mapping[str, frozenset[str] | None]] = {  # actions of the journal, by filter
    "all": None,
    "said": frozenset({WRITTEN}),
    "notes": NOTED,
}
FILTERS: Final = tuple(_SAYS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A place in a time line: what is older comes after it."""

    at: datetime
    rank: int  # _CONTACT, _ENTRY
    id: int  # contact's id, entry's seq

    def text(self) -> str:
        micros = (self.at - _EPOCH) // timedelta(microseconds=1)
        return f"{micros}.{self.rank}.{self.id}"

    @classmethod
    def read(cls, text: str) -> Self | None:
        """Return what `text` wrote down; None if it is none of ours."""
        parts = text.split(".")
        if len(parts) != 3 or not all(p.isascii() and p.isdigit() and len(p) < 19 for p in parts):
            return None
        micros, rank, number = map(int, parts)
        try:
            return cls(at=_EPOCH + timedelta(microseconds=micros), rank=rank, id=number)
        except OverflowError:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A ticket without what was said."""

    id: int
    ticket: TicketView
    impact: Impact
    urgency: Urgency
    priority_reason: str
    journal_seq: int
    journal_hash: str
    standard: Standard
    merged_into: str  # number, ""
    requester: PersonView
    dispatches: tuple[DispatchView, ...]
    messages: tuple[MessageView, ...]  # the newest, in the order in which they were sent
    message_count: int
    contact_count: int
    has_picture: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What somebody of the desk wrote, and how far it has come."""

    medium: Medium
    words: str
    address: str
    state: SendState
    detail: str
    created_at: datetime
    text: TextView | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """A part of a time line, the newest first; `older` is where the next part begins."""

    contacts: tuple[ContactView, ...]
    entries: tuple[Entry, ...]
    sent: tuple[Sent, ...]
    older: Place | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Staff:
    """Who can be given a ticket. `tiers` are those on duty at its site now, by key."""

    engineers: tuple[tuple[str, str], ...]  # key, name
    tiers: Mapping[str, int]
    teams: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What there was with somebody before."""

    tickets: tuple[TicketView, ...]
    count: int
    devices: tuple[str, ...]


_TICKETS: Final = views._TICKETS
_MERGED: Final = tickets.alias("merged")
_HEAD: Final = _TICKETS.add_columns(_MERGED.c.number.label("into_number")).outerjoin(
    _MERGED, _MERGED.c.id == tickets.c.merged_into
)
_SITE: Final = select(tickets.c.id, tickets.c.site).where(tickets.c.number == bindparam("ticket"))
_SITE_OF_CONTACT: Final = (
    select(tickets.c.site, tickets.c.number)
    .join(contacts, contacts.c.ticket_id == tickets.c.id)
    .where(contacts.c.id == bindparam("contact"))
)
_MESSAGES: Final = (
    select(
        notifications, people.c.name, texts.c.gateway, texts.c.segments, texts.c.delivery,
        texts.c.error, texts.c.handed_at,
    )
    .select_from(
        notifications.outerjoin(people, people.c.key == notifications.c.recipient).outerjoin(
            texts, texts.c.ref == notifications.c.client_ref
        )
    )
    .where(notifications.c.ticket_id == bindparam("ticket"))
    .order_by(notifications.c.id.desc())
)  # fmt: skip
_SAID: Final = _MESSAGES.where(
    notifications.c.reason == Reason.SAID.value,
    notifications.c.created_at.between(
        bindparam("since", type_=notifications.c.created_at.type),
        bindparam("until", type_=notifications.c.created_at.type),
    ),
)
_DISPATCHES: Final = views._DISPATCHES
_HAS_PICTURE: Final = (
    select(attachments.c.id)
    .join(contacts, contacts.c.id == attachments.c.contact_id)
    .where(contacts.c.ticket_id == bindparam("ticket"), attachments.c.media_type.like("image/%"))
    .limit(1)
)
_JOURNAL: Final = (
    select(journal).where(journal.c.ticket_id == bindparam("ticket")).order_by(journal.c.seq)
)
_ENGINEERS: Final = (
    select(people.c.key, people.c.name)
    .where(people.c.role == Role.ENGINEER.value, people.c.key.is_not(None))
    .order_by(people.c.name, people.c.key)
)
_ON_DUTY: Final = select(spans.c.engineer, spans.c.tier).where(
    spans.c.site == bindparam("site"),
    spans.c.since <= bindparam("now", type_=spans.c.since.type),
    spans.c.until > bindparam("now", type_=spans.c.until.type),
    spans.c.engineer.not_in(["", FLOOR_KEY]),
)


class TicketViews:
    """Every method raises `TemporaryFailure` when the database is away."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def site_of(self, number: str) -> str:
        """Return the key of a ticket's site, "" if it has none.

        Raises:
            NotFound: there is no such ticket.
        """
        if not is_valid(number):
            raise NotFound("there is no such ticket")
        async with self._database.reading() as connection:
            row = (await connection.execute(_SITE, {"ticket": number})).first()
        if row is None:
            raise NotFound("there is no such ticket")
        return row.site or ""

    async def ticket_of(self, contact_id: int) -> tuple[str, str]:
        """Return the number and the site of the ticket that a contact belongs to.

        Raises:
            NotFound: there is no such contact.
        """
        asked = {"contact": min(contact_id, _LARGEST_ID)}
        async with self._database.reading() as connection:
            row = (await connection.execute(_SITE_OF_CONTACT, asked)).first()
        if row is None:
            raise NotFound("there is no such contact")
        return row.number, row.site or ""

    async def head(self, number: str) -> Head:
        """Return a ticket without what was said.

        Raises:
            NotFound: there is no ticket with this number.
        """
        if not is_valid(number):
            raise NotFound("there is no such ticket")
        async with self._database.reading() as connection:
            found = await connection.execute(_HEAD.where(tickets.c.number == number))
            row = found.mappings().one_or_none()
            if row is None:
                raise NotFound("there is no such ticket")
            mine = {"ticket": row["id"]}
            whose = select(people).where(people.c.id == row["requester_id"])
            asked = (await connection.execute(whose)).mappings().all()
            (requester,) = await views._people(connection, asked)
            visits = (await connection.execute(_DISPATCHES, mine)).mappings().all()
            sent = await connection.execute(_MESSAGES.limit(MOST_MESSAGES), mine)
            messages = sent.mappings().all()
            counts = [
                (await connection.execute(
                    select(func.count()).where(table.c.ticket_id == row["id"])
                )).scalar_one()
                for table in (notifications, contacts)
            ]  # fmt: skip
            picture = (await connection.execute(_HAS_PICTURE, mine)).first()
        return Head(
            id=row["id"],
            ticket=views._ticket(row),
            impact=Impact(row["impact"]),
            urgency=Urgency(row["urgency"]),
            priority_reason=row["priority_reason"],
            journal_seq=row["journal_seq"],
            journal_hash=row["journal_hash"],
            standard=standard_of(row["standard"]),
            merged_into=row["into_number"] or "",
            requester=requester,
            dispatches=tuple(map(views._dispatch, visits)),
            messages=tuple(views._message(each, requester.name) for each in reversed(messages)),
            message_count=counts[0],
            contact_count=counts[1],
            has_picture=picture is not None,
        )

    async def journal(self, number: str, ticket_id: int) -> tuple[Entry, ...]:
        """Return the whole journal of a ticket."""
        async with self._database.reading() as connection:
            rows = (await connection.execute(_JOURNAL, {"ticket": ticket_id})).mappings().all()
        return tuple(journal_entry(number, row) for row in rows)

    async def slice(
        self, head: Head, *, kind: str = "all", before: Place | None = None, seq: int = 0
    ) -> Slice:
        """Return what came before a place, or up to the entry `seq`, or the newest."""
        actions = _SAYS.get(kind)
        async with self._database.reading() as connection:
            if seq:
                before = await _above(connection, head.id, seq)
            entries = await _entries(connection, head, actions, before)
            heard: Sequence[RowMapping] = ()
            if kind != "notes":
                heard = await _heard(connection, head.id, before)
            places = sorted(
                [_place(_ENTRY, each["at"], each["seq"]) for each in entries]
                + [_place(_CONTACT, each["received_at"], each["id"]) for each in heard],
                key=_newest_first,
            )
            shown = set(places[:SLICE])
            entries = [e for e in entries if _place(_ENTRY, e["at"], e["seq"]) in shown]
            heard = [c for c in heard if _place(_CONTACT, c["received_at"], c["id"]) in shown]
            files = await views._attachments(connection, [each["id"] for each in heard])
            sent = await _said(connection, head.id, entries)
        return Slice(
            contacts=tuple(
                views._contact(_named(each, head), files.get(each["id"], ())) for each in heard
            ),
            entries=tuple(journal_entry(head.ticket.number, each) for each in entries),
            sent=sent,
            older=places[SLICE - 1] if len(places) > SLICE else None,
        )

    async def staff(self, site: str) -> Staff:
        """Return who can be given a ticket of this site."""
        async with self._database.reading() as connection:
            engineers = (await connection.execute(_ENGINEERS)).all()
            asked = {"site": site, "now": self._clock.now()}
            on_duty = (await connection.execute(_ON_DUTY, asked)).all()
            plan = await duty.plan(connection)
        tiers = {row.engineer: row.tier for row in sorted(on_duty, key=lambda r: -r.tier)}
        return Staff(
            engineers=tuple((row.key, row.name) for row in engineers),
            tiers=tiers,
            teams=tuple(team.key for team in plan.teams) if plan is not None else (),
        )

    async def history(
        self, person_id: int, sites: Collection[str] = (), *, without: str = ""
    ) -> History:
        """Return somebody's last tickets but `without`; `sites` are those that may be seen."""
        theirs = and_(tickets.c.requester_id == person_id, tickets.c.number != without, _of(sites))
        latest = _TICKETS.where(theirs).order_by(tickets.c.opened_at.desc(), tickets.c.id.desc())
        said = (
            select(tickets.c.standard)
            .where(tickets.c.requester_id == person_id, _of(sites))
            .order_by(tickets.c.id.desc())
            .limit(50)
        )
        async with self._database.reading() as connection:
            rows = (await connection.execute(latest.limit(MOST_HISTORY))).mappings().all()
            count = await connection.execute(
                select(func.count()).select_from(tickets).where(theirs)
            )
            told = (await connection.execute(said)).scalars().all()
            total = count.scalar_one()
        devices = dict.fromkeys(device for each in told if (device := standard_of(each).device))
        return History(
            tickets=tuple(map(views._ticket, rows)),
            count=total,
            devices=tuple(devices)[:6],
        )

    # People

    async def person(self, person_id: int) -> PersonView:
        """Return somebody.

        Raises:
            NotFound: there is nobody with this id.
        """
        asked = select(people).where(people.c.id == min(person_id, _LARGEST_ID))
        async with self._database.reading() as connection:
            rows = (await connection.execute(asked)).mappings().all()
            found = await views._people(connection, rows)
        if not found:
            raise NotFound("there is no such person")
        return found[0]

    async def find_people(self, words: str, sites: Collection[str] = ()) -> tuple[PersonView, ...]:
        """Return people by a part of their name, number or mail address; without words the last.

        `sites` are those whose people may be seen, empty: all.
        """
        words = " ".join(words.split())[:80]
        query = select(people).where(people.c.role != Role.ENGINEER.value)
        if sites:
            query = query.where(or_(people.c.site.is_(None), people.c.site.in_(sorted(sites))))
        if words:
            like = "%" + words.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
            number = address(words)
            digits = number.removeprefix("+") or words.lower()
            part = like.lower() if not number else f"%{digits}%"
            known = select(addresses.c.person_id).where(addresses.c.value.like(part, escape="\\"))
            query = query.where(
                or_(
                    func.lower(people.c.name).like(like.lower(), escape="\\"),
                    people.c.department.like(like, escape="\\"),
                    people.c.id.in_(known),
                )
            )
        query = query.order_by(people.c.id.desc()).limit(MOST_FOUND)
        if not words.isprintable():
            return ()
        async with self._database.reading() as connection:
            rows = (await connection.execute(query)).mappings().all()
            return await views._people(connection, rows)

    async def file(self, file_id: int) -> tuple[AttachmentView, ContactView]:
        """Return what is known of a file, and of the contact that it came with.

        Raises:
            NotFound: there is none with this id.
        """
        shown = views.Views(self._database, self._clock)
        found = await shown.attachment(file_id)
        return found, await shown.contact(found.contact_id)


def _of(sites: Collection[str]) -> ColumnElement[bool]:
    seen = tickets.c.site.in_(sorted(sites)) if sites else tickets.c.id.is_not(None)
    return or_(seen, tickets.c.site.is_(None))


def _place(rank: int, at: datetime, number: int) -> Place:
    return Place(at=at, rank=rank, id=number)


def _newest_first(place: Place) -> tuple[float, int, int]:
    micros = (place.at - _EPOCH) // timedelta(microseconds=1)
    return -micros, place.rank, -place.id


def _older_than(
    place: Place | None, rank: int, at: ColumnElement[datetime], number: ColumnElement[int]
) -> list[ColumnElement[bool]]:
    """Return what says that a row comes after a place in the order of `_newest_first`."""
    if place is None:
        return []
    if rank < place.rank:
        return [at < place.at]
    if rank > place.rank:
        return [at <= place.at]
    return [or_(at < place.at, and_(at == place.at, number < place.id))]


async def _above(connection: AsyncConnection, ticket_id: int, seq: int) -> Place | None:
    asked = select(journal.c.at).where(journal.c.ticket_id == ticket_id, journal.c.seq == seq)
    at = (await connection.execute(asked)).scalar_one_or_none()
    return None if at is None else Place(at=at, rank=_ENTRY, id=seq + 1)


async def _entries(
    connection: AsyncConnection, head: Head, actions: Collection[str] | None, before: Place | None
) -> Sequence[RowMapping]:
    query = select(journal).where(
        journal.c.ticket_id == head.id,
        *_older_than(before, _ENTRY, journal.c.at, journal.c.seq),
    )
    if actions is not None:
        query = query.where(journal.c.action.in_(sorted(actions)))
    rows = await connection.execute(query.order_by(journal.c.seq.desc()).limit(SLICE + 1))
    return rows.mappings().all()


async def _heard(
    connection: AsyncConnection, ticket_id: int, before: Place | None
) -> Sequence[RowMapping]:
    query = (
        select(contacts)
        .where(
            contacts.c.ticket_id == ticket_id,
            *_older_than(before, _CONTACT, contacts.c.received_at, contacts.c.id),
        )
        .order_by(contacts.c.received_at.desc(), contacts.c.id.desc())
        .limit(SLICE + 1)
    )
    return (await connection.execute(query)).mappings().all()


async def _said(
    connection: AsyncConnection, ticket_id: int, entries: Sequence[RowMapping]
) -> tuple[Sent, ...]:
    """Return what became of what the entries say was written."""
    times = [each["at"] for each in entries if each["action"] == WRITTEN]
    if not times:
        return ()
    about = timedelta(minutes=1)
    asked = {"ticket": ticket_id, "since": min(times) - about, "until": max(times) + about}
    rows = (await connection.execute(_SAID, asked)).mappings().all()
    return tuple(
        Sent(
            medium=Medium(row["medium"]),
            words=str(row["facts"].get("note", "")),
            address=row["address"],
            state=SendState(row["state"]),
            detail=row["detail"],
            created_at=row["created_at"],
            text=views._text(row) if row["gateway"] else None,
        )
        for row in rows
        if row["recipient"] == REQUESTER
    )


def _named(row: RowMapping, head: Head) -> Any:
    return {**row, "ticket": head.ticket.number, "ticket_site": head.ticket.site}
