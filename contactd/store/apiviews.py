"""Lists that only the API has, page by page: people, and texts that gateways were handed."""

import base64
import binascii
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, func, or_, select

from contactd.errors import PermanentFailure
from contactd.routing.notify import SendState
from contactd.store import views
from contactd.store.engine import Database
from contactd.store.schema import addresses, notifications, people, texts, tickets
from contactd.store.views import PersonView
from contactd.tickets.people import Role
from contactd.tickets.phone import address

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LARGEST_ID: Final = 2**63 - 1
_TEXTS: Final = (
    select(texts, tickets.c.number.label("ticket"), notifications.c.state.label("send_state"))
    .select_from(
        texts.join(notifications, notifications.c.client_ref == texts.c.ref).join(
            tickets, tickets.c.id == notifications.c.ticket_id
        )
    )
    .order_by(texts.c.handed_at.desc(), texts.c.ref.desc())
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeopleFilters:
    """All must hold; empty and None do not ask. `sites`: those that may be seen, empty: all."""

    words: str = ""
    site: str | None = None
    role: str = ""  # requester, engineer
    sites: Collection[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SentText:
    ref: str
    ticket: str
    gateway: str
    number: str
    segments: int
    state: SendState
    delivery: str
    error: str
    handed_at: datetime
    updated_at: datetime


class ApiViews:
    """Every method raises `TemporaryFailure` when the database is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def people(
        self, filters: PeopleFilters, cursor: str, limit: int
    ) -> tuple[tuple[PersonView, ...], str]:
        """Return people, who was known last first, and where the next page begins.

        Raises:
            PermanentFailure: the cursor is none of ours.
        """
        query = select(people).where(*_people(filters))
        if cursor:
            query = query.where(people.c.id < _read(cursor, 1)[0])
        async with self._database.reading() as connection:
            found = await connection.execute(query.order_by(people.c.id.desc()).limit(limit + 1))
            rows = found.mappings().all()
            items = await views._people(connection, rows[:limit])
        return items, _write(items[-1].id) if len(rows) > limit else ""

    async def texts(
        self, sites: Collection[str], cursor: str, limit: int
    ) -> tuple[tuple[SentText, ...], str]:
        """Return texts about tickets of these sites (empty: all), the last handed over first.

        Raises:
            PermanentFailure: the cursor is none of ours.
        """
        query = _TEXTS.where(*_of(tickets.c.site, sites))
        if cursor:
            micros, ref = _read(cursor, 2)
            try:
                at = _EPOCH + timedelta(microseconds=micros)
            except OverflowError as error:
                raise PermanentFailure("the cursor is none of ours") from error
            query = query.where(
                or_(texts.c.handed_at < at, and_(texts.c.handed_at == at, texts.c.ref < ref))
            )
        async with self._database.reading() as connection:
            rows = (await connection.execute(query.limit(limit + 1))).mappings().all()
        items = tuple(
            SentText(
                ref=row["ref"], ticket=row["ticket"], gateway=row["gateway"],
                number=row["number"], segments=row["segments"],
                state=SendState(row["send_state"]), delivery=row["delivery"], error=row["error"],
                handed_at=row["handed_at"], updated_at=row["updated_at"],
            )
            for row in rows[:limit]
        )  # fmt: skip
        if len(rows) <= limit:
            return items, ""
        last = items[-1]
        return items, _write((last.handed_at - _EPOCH) // timedelta(microseconds=1), last.ref)


def _of(column: ColumnElement[Any], sites: Collection[str]) -> list[ColumnElement[bool]]:
    return [or_(column.in_(sorted(sites)), column.is_(None))] if sites else []


def _people(filters: PeopleFilters) -> list[ColumnElement[bool]]:
    found = _of(people.c.site, filters.sites)
    if filters.site is not None:
        found.append(people.c.site == filters.site if filters.site else people.c.site.is_(None))
    if filters.role:
        is_engineer = people.c.role == Role.ENGINEER.value
        found.append(is_engineer if filters.role == "engineer" else ~is_engineer)
    words = " ".join(filters.words.split())
    if words:
        found.append(_has(words))
    return found


def _has(words: str) -> ColumnElement[bool]:
    """Return what says that a name, department, number or mail address has these words in it."""
    escaped = words.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    number = address(words).removeprefix("+")
    part = f"%{number}%" if number else f"%{escaped.lower()}%"
    known = select(addresses.c.person_id).where(addresses.c.value.like(part, escape="\\"))
    return or_(
        func.lower(people.c.name).like(f"%{escaped.lower()}%", escape="\\"),
        func.lower(people.c.department).like(f"%{escaped.lower()}%", escape="\\"),
        people.c.id.in_(known),
    )


def _write(number: int, rest: str = "") -> str:
    return base64.urlsafe_b64encode(f"{number}.{rest}".encode()).decode()


def _read(cursor: str, parts: int) -> tuple[int, str]:
    try:
        number, _, rest = base64.urlsafe_b64decode(cursor).decode("ascii").partition(".")
        found = min(int(number), _LARGEST_ID)
    except (ValueError, binascii.Error) as error:
        raise PermanentFailure("the cursor is none of ours") from error
    if bool(rest) != (parts == 2) or not rest.isprintable():
        raise PermanentFailure("the cursor is none of ours")
    return found, rest
