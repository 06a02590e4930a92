"""What the portal keeps: one-time codes, requesters' sessions, files before their form, counts.

A code is not stored: it is made of its challenge and the installation's key. Whether an address is
known is not looked up before the code is due, so that asking takes as long for one that nobody has.
"""

import hashlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    RowMapping,
    Select,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from contactd.clock import Clock
from contactd.signals import Topic
from contactd.store.engine import Database
from contactd.store.schema import (
    Instant,
    addresses,
    dispatches,
    people,
    portal_codes,
    portal_counts,
    portal_files,
    portal_sessions,
    tickets,
)
from contactd.store.unit_of_work import SqlUnitOfWork
from contactd.tickets.contact import Blob
from contactd.tickets.dispatching import LIVE
from contactd.tickets.events import CodeDue
from contactd.tickets.people import Address
from contactd.tickets.states import OPEN, State

MOST_TRIES: Final = 5  # of 1,000,000 codes: one guess in 200,000 would be right
KEPT: Final = timedelta(days=1)  # files of a form that was never sent
WINDOW: Final = timedelta(hours=1)
MOST_LISTED: Final = 50

_COUNT: Final = text(
    "INSERT INTO portal_counts (key, count, expires_at) VALUES (:key, :amount, :expires)"
    " ON CONFLICT (key) DO UPDATE SET count = portal_counts.count + excluded.count"
    " RETURNING count"
).bindparams(bindparam("expires", type_=Instant))
_TRY: Final = (
    update(portal_codes)
    .where(
        portal_codes.c.challenge == bindparam("asked"),
        portal_codes.c.tries < MOST_TRIES,
        portal_codes.c.used_at.is_(None),
        portal_codes.c.expires_at > bindparam("now", type_=portal_codes.c.expires_at.type),
    )
    .values(tries=portal_codes.c.tries + 1)
    .returning(portal_codes.c.kind, portal_codes.c.value)
)
_USE: Final = (
    update(portal_codes)
    .where(portal_codes.c.challenge == bindparam("asked"))
    .values(used_at=bindparam("now", type_=portal_codes.c.used_at.type))
)
_CODE: Final = select(portal_codes).where(portal_codes.c.challenge == bindparam("asked"))
_PERSON_OF: Final = select(addresses.c.person_id).where(
    addresses.c.kind == bindparam("kind"), addresses.c.value == bindparam("value")
)
_SESSION: Final = (
    select(
        portal_sessions.c.person_id, portal_sessions.c.kind, portal_sessions.c.value,
        people.c.name, people.c.department, people.c.site,
    )
    .select_from(portal_sessions.join(people, people.c.id == portal_sessions.c.person_id))
    .where(
        portal_sessions.c.hash == bindparam("secret"),
        portal_sessions.c.expires_at > bindparam("now", type_=portal_sessions.c.expires_at.type),
    )
)  # fmt: skip
_FILES: Final = (
    select(portal_files)
    .where(portal_files.c.form == bindparam("of"))
    .order_by(portal_files.c.stored_at, portal_files.c.sha256)
)
_ADD_FILE: Final = {
    name: dialect.insert(portal_files).on_conflict_do_nothing(index_elements=["form", "sha256"])
    for name, dialect in (("sqlite", sqlite), ("postgresql", postgresql))
}
_LATEST: Final = (
    select(tickets.c.number)
    .where(tickets.c.requester_id == bindparam("person"))
    .order_by(tickets.c.last_contact_at.desc(), tickets.c.id.desc())
    .limit(1)
)
_OF_PERSON: Final = (
    select(tickets.c.number, tickets.c.title, tickets.c.state, tickets.c.opened_at,
           tickets.c.updated_at)
    .where(tickets.c.requester_id == bindparam("person"), tickets.c.merged_into.is_(None))
    .order_by(
        case((tickets.c.state.in_(sorted(OPEN)), 0), else_=1),
        tickets.c.last_contact_at.desc(), tickets.c.id.desc(),
    )
    .limit(MOST_LISTED)
)  # fmt: skip
_VISITS: Final = (
    select(dispatches.c.number, dispatches.c.state, dispatches.c.code, people.c.name)
    .select_from(
        dispatches.join(tickets, tickets.c.id == dispatches.c.ticket_id).outerjoin(
            people, people.c.key == dispatches.c.engineer
        )
    )
    .where(
        tickets.c.number == bindparam("ticket"), dispatches.c.state.in_(sorted(LIVE)),
        dispatches.c.state != "offered",
    )
    .order_by(dispatches.c.number)
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """A requester who has shown that an address is theirs."""

    person_id: int
    address: Address
    name: str
    department: str
    site: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnTicket:
    """One line of somebody's own list."""

    number: str
    title: str
    state: State
    opened_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """Somebody who comes to the requester; the code is for the requester to tell."""

    number: int
    state: str
    engineer: str  # name, "" when unknown
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Who wants a code; they may be nobody we know."""

    address: Address
    language: str
    expires_at: datetime


class Portal:
    """Every method raises `TemporaryFailure` when the database is away."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        on_commit: Callable[[Topic], None] = lambda _topic: None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._on_commit = on_commit

    # Limits

    async def take(self, what: str, by: str, most: int, amount: int = 1) -> bool:
        """Count something that somebody does; return False if it is too much within the hour.

        Counted before it is done: what is refused counts, too. `by` is kept as a hash only.
        """
        now = self._clock.now()
        hour = int(now.timestamp() // WINDOW.total_seconds())
        key = hashlib.sha256(f"{what}\0{by}\0{hour}".encode("utf-8", "replace")).hexdigest()
        row = {"key": key, "amount": amount, "expires": now + WINDOW}
        async with self._database.writing() as connection:
            count = (await connection.execute(_COUNT, row)).scalar_one()
            if count == amount:  # the first of its hour clears away what is over
                await connection.execute(
                    delete(portal_counts).where(portal_counts.c.expires_at <= now)
                )
        return bool(count <= most)

    # One-time codes

    async def ask_code(self, address: Address, language: str, lasts: timedelta) -> str:
        """Have a code sent, if the address is known; return the challenge that it answers."""
        challenge, now = secrets.token_hex(16), self._clock.now()
        row = {
            "challenge": challenge, "kind": address.kind, "value": address.value[:254],
            "language": language, "expires_at": now + lasts,
        }  # fmt: skip
        async with self._database.writing() as connection:
            await connection.execute(
                delete(portal_codes).where(portal_codes.c.expires_at <= now - KEPT)
            )
            await connection.execute(insert(portal_codes), row)
            work = SqlUnitOfWork(connection, self._clock)
            work.emit(CodeDue(challenge=challenge))
            await work.commit()
        self._on_commit(Topic.OUTBOX)
        return challenge

    async def asked(self, challenge: str) -> Asked | None:
        """Return who asked for a code, if it can still be used."""
        async with self._database.reading() as connection:
            row = (await connection.execute(_CODE, {"asked": challenge})).mappings().first()
        if row is None or row["used_at"] or row["expires_at"] <= self._clock.now():
            return None
        return Asked(
            address=Address(kind=row["kind"], value=row["value"]),
            language=row["language"],
            expires_at=row["expires_at"],
        )

    async def latest_ticket(self, address: Address) -> str:
        """Return the number of the latest ticket of who has this address, "" if there is none."""
        async with self._database.reading() as connection:
            person = await connection.scalar(_PERSON_OF, _row(address))
            found = await connection.scalar(_LATEST, {"person": person})
        return found or ""

    async def answer(self, challenge: str, *, is_right: bool, lasts: timedelta) -> str:
        """Count one try; return the secret of a new session, "" if the answer does not count.

        That is: it is wrong, or too late, or the sixth, or the second; all look the same.
        """
        now, secret = self._clock.now(), secrets.token_urlsafe(32)
        asked = {"asked": challenge, "now": now}
        async with self._database.writing() as connection:
            row = (await connection.execute(_TRY, asked)).first()
            if row is None or not is_right:
                return ""
            await connection.execute(_USE, asked)
            mine = {"kind": row.kind, "value": row.value}
            person = await connection.scalar(_PERSON_OF, mine)
            if person is None:
                return ""
            await connection.execute(
                delete(portal_sessions).where(portal_sessions.c.expires_at <= now)
            )
            values = {
                "hash": _digest(secret), "person_id": person, "expires_at": now + lasts, **mine
            }  # fmt: skip
            await connection.execute(insert(portal_sessions), values)
        return secret

    async def visitor(self, secret: str) -> Visitor | None:
        """Return whose session it is, as long as the address is still theirs."""
        asked = {"secret": _digest(secret), "now": self._clock.now()}
        async with self._database.reading() as connection:
            row = (await connection.execute(_SESSION, asked)).first()
            if row is None:
                return None
            owner = await connection.scalar(_PERSON_OF, {"kind": row.kind, "value": row.value})
        if owner != row.person_id:
            return None
        return Visitor(
            person_id=row.person_id, address=Address(kind=row.kind, value=row.value),
            name=row.name, department=row.department, site=row.site or "",
        )  # fmt: skip

    async def leave(self, secret: str) -> None:
        async with self._database.writing() as connection:
            await connection.execute(
                delete(portal_sessions).where(portal_sessions.c.hash == _digest(secret))
            )

    # Files

    async def add_file(self, form: str, blob: Blob, *, most_files: int, most_bytes: int) -> bool:
        """Keep a file for a form; False: it would be one too many, or too much. Harmless twice."""
        now = self._clock.now()
        row = {
            "form": form, "sha256": blob.sha256, "size_bytes": blob.size_bytes,
            "media_type": blob.media_type, "name": blob.name, "stored_at": now,
        }  # fmt: skip
        async with self._database.writing() as connection:
            await connection.execute(
                delete(portal_files).where(portal_files.c.stored_at <= now - KEPT)
            )
            await connection.execute(_ADD_FILE[self._database.dialect], row)
            sums = select(func.count(), func.sum(portal_files.c.size_bytes))
            sums = sums.where(portal_files.c.form == form)
            count, size = (await connection.execute(sums)).one()
            if count <= most_files and size <= most_bytes:
                return True
            await connection.execute(_without(form, blob.sha256))
        return False

    async def files(self, form: str) -> tuple[Blob, ...]:
        async with self._database.reading() as connection:
            rows = (await connection.execute(_FILES, {"of": form})).mappings().all()
        names = Blob.__dataclass_fields__
        return tuple(Blob(**{name: row[name] for name in names}) for row in rows)

    async def drop_file(self, form: str, sha256: str) -> None:
        async with self._database.writing() as connection:
            await connection.execute(_without(form, sha256))

    # Tickets

    async def tickets_of(self, person_id: int) -> tuple[OwnTicket, ...]:
        """Return somebody's tickets, those that are open first."""
        rows = await self._rows(_OF_PERSON, {"person": person_id})
        return tuple(OwnTicket(**{**row, "state": State(row["state"])}) for row in rows)

    async def visits(self, number: str) -> tuple[Visit, ...]:
        """Return who has said that they come, with the code to tell them."""
        rows = await self._rows(_VISITS, {"ticket": number})
        return tuple(
            Visit(number=row["number"], state=row["state"], engineer=row["name"] or "",
                  code=row["code"])
            for row in rows
        )  # fmt: skip

    async def _rows(self, query: Select[Any], asked: dict[str, Any]) -> Sequence[RowMapping]:
        async with self._database.reading() as connection:
            found = await connection.execute(query, asked)
            rows: Sequence[RowMapping] = found.mappings().all()
        return rows


def _row(address: Address) -> dict[str, str]:
    return {"kind": address.kind, "value": address.value}


def _without(form: str, sha256: str) -> Any:
    return delete(portal_files).where(
        and_(portal_files.c.form == form, portal_files.c.sha256 == sha256)
    )


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "replace")).digest()
