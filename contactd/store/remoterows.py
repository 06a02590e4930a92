"""Rows of remote help and what they mean; `store.remote` decides what becomes of them."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, RowMapping, bindparam, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from contactd.store.schema import (
    Instant,
    people,
    remote_chat,
    remote_consents,
    remote_files,
    remote_keys,
    remote_legs,
    remote_sessions,
    tickets,
)
from contactd.tickets.contact import Blob
from contactd.tickets.remote import Ending, Leg, Mode, Purpose, Right, State
from contactd.tickets.sharing import Counts, FileState, Filters, LegRecord, Session, SharedFile
from contactd.tickets.states import OPEN

SESSIONS: Final = select(
    remote_sessions, tickets.c.number.label("ticket"), tickets.c.site
).select_from(remote_sessions.join(tickets, tickets.c.id == remote_sessions.c.ticket_id))
_ONE: Final = SESSIONS.where(remote_sessions.c.id == bindparam("session"))
BY_SHARE: Final = SESSIONS.where(remote_sessions.c.share_hash == bindparam("hash"))
BY_CODE: Final = SESSIONS.where(
    remote_sessions.c.code_hash == bindparam("hash"),
    remote_sessions.c.state == State.INVITED.value,
    tickets.c.state.in_(sorted(OPEN)),  # it may be over for a moment before its sessions are
    remote_sessions.c.code_until > bindparam("now", type_=Instant),
)
BY_CLAIM: Final = SESSIONS.where(
    remote_sessions.c.claim_hash == bindparam("hash"),
    remote_sessions.c.state != State.ENDED.value,
    remote_sessions.c.code_until > bindparam("now", type_=Instant),
)
LIVE: Final = SESSIONS.where(remote_sessions.c.state != State.ENDED.value).order_by(
    remote_sessions.c.id
)
OF_TICKET: Final = SESSIONS.where(tickets.c.number == bindparam("number")).order_by(
    remote_sessions.c.id
)
LIVE_OF: Final = LIVE.where(remote_sessions.c.ticket_id == bindparam("ticket"))
HAS_LIVE: Final = (
    select(remote_sessions.c.id)
    .where(
        remote_sessions.c.ticket_id == bindparam("ticket"),
        remote_sessions.c.state != State.ENDED.value,
    )
    .limit(1)
)
_LEGS: Final = (
    select(remote_legs)
    .where(remote_legs.c.session_id.in_(bindparam("sessions", expanding=True)))
    .order_by(remote_legs.c.session_id, remote_legs.c.number)
)
UNSETTLED: Final = (
    select(remote_legs.c.session_id, remote_legs.c.number)
    .where(remote_legs.c.ended_at.is_not(None), ~remote_legs.c.settled)
    .order_by(remote_legs.c.session_id, remote_legs.c.number)
)
_ASSIGNEE: Final = (
    select(people.c.name)
    .select_from(tickets.join(people, people.c.id == tickets.c.assignee_id))
    .where(tickets.c.id == bindparam("ticket"))
)
HAS_CODE: Final = select(remote_sessions.c.id).where(
    or_(
        remote_sessions.c.code_hash == bindparam("hash"),
        remote_sessions.c.claim_hash == bindparam("hash"),
    )
)
ADD_CONSENT: Final = insert(remote_consents).returning(remote_consents.c.id)
KEY: Final = select(remote_keys).where(
    remote_keys.c.hash == bindparam("hash"),
    remote_keys.c.expires_at > bindparam("now", type_=Instant),
)
OLD_KEYS: Final = (
    select(remote_keys.c.hash)
    .where(remote_keys.c.session_id == bindparam("session"), remote_keys.c.kind != "resume")
    .order_by(remote_keys.c.expires_at.desc())
    .offset(bindparam("kept"))
)
CHAT: Final = (
    select(remote_chat.c.at, remote_chat.c.who, remote_chat.c.text)
    .where(remote_chat.c.session_id == bindparam("session"))
    .order_by(remote_chat.c.id)
)
_FILES: Final = (
    select(remote_files)
    .where(remote_files.c.session_id == bindparam("session"))
    .order_by(remote_files.c.number)
)


async def one(connection: AsyncConnection, session_id: int) -> Session | None:
    return await first(connection, _ONE, {"session": session_id})


async def first(
    connection: AsyncConnection, query: Any, asked: Mapping[str, Any]
) -> Session | None:
    found = await sessions(connection, query, asked)
    return found[0] if found else None


async def sessions(
    connection: AsyncConnection, query: Any, asked: Mapping[str, Any]
) -> tuple[Session, ...]:
    rows: Sequence[RowMapping] = (await connection.execute(query, asked)).mappings().all()
    if not rows:
        return ()
    ids = [row["id"] for row in rows]
    legs: dict[int, list[LegRecord]] = {}
    for row in (await connection.execute(_LEGS, {"sessions": ids})).mappings():
        legs.setdefault(row["session_id"], []).append(_leg(row))
    return tuple(_of(row, legs.get(row["id"], ())) for row in rows)


_SAME: Final = (
    "id", "ref", "ticket", "ticket_id", "since", "language", "medium", "invited_by", "invited_at",
    "code_until", "agreed_at", "engineer", "claimed_at", "started_at", "ended_at",
)  # fmt: skip


def _of(row: RowMapping, legs: Sequence[LegRecord]) -> Session:
    return Session(
        **{name: row[name] for name in _SAME},
        site=row["site"] or "",
        user=row["user_name"],
        state=State(row["state"]),
        mode=Mode(row["mode"]) if row["mode"] else None,
        ending=Ending(row["ending"]) if row["ending"] else None,
        legs=tuple(legs),
    )


def _leg(row: RowMapping) -> LegRecord:
    leg = Leg(
        number=row["number"], user=row["user_name"], engineer=row["engineer"],
        purpose=Purpose(row["purpose"]), rights=frozenset(map(Right, row["rights"])),
        consent=row["consent_id"], opened_at=row["opened_at"], ended_at=row["ended_at"],
        ending=Ending(row["ending"]) if row["ending"] else None,
    )  # fmt: skip
    return LegRecord(
        leg=leg,
        settled=row["settled"],
        counts=Counts(keys=row["keys"], clicks=row["clicks"], bytes=row["bytes"]),
        recording=Blob(**row["recording"]) if row["recording"] else None,
        note=row["note"],
    )


def leg_row(session_id: int, leg: Leg) -> dict[str, Any]:
    return {
        "session_id": session_id, "number": leg.number, "user_name": leg.user[:80],
        "engineer": leg.engineer[:120], "purpose": leg.purpose.value, "rights": sorted(leg.rights),
        "consent_id": leg.consent, "opened_at": leg.opened_at,
    }  # fmt: skip


async def files(connection: AsyncConnection, session_id: int) -> tuple[SharedFile, ...]:
    rows = (await connection.execute(_FILES, {"session": session_id})).mappings().all()
    names = Blob.__dataclass_fields__
    return tuple(
        SharedFile(
            number=row["number"], sender=row["sender"], state=FileState(row["state"]),
            blob=Blob(**{name: row[name] for name in names}), offered_at=row["offered_at"],
            answered_at=row["answered_at"],
        )
        for row in rows
    )  # fmt: skip


async def name_of(connection: AsyncConnection, session: Session) -> str:
    """Return who will help: who has claimed it, else who has the ticket; "" if nobody has."""
    if session.engineer:
        return session.engineer
    found = await connection.execute(_ASSIGNEE, {"ticket": session.ticket_id})
    return found.scalar_one_or_none() or ""


def conditions(filters: Filters) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if filters.ticket:
        found.append(tickets.c.number == filters.ticket)
    if filters.state is not None:
        found.append(remote_sessions.c.state == filters.state.value)
    if filters.sites:
        site = tickets.c.site
        found.append(or_(site.in_(sorted(filters.sites)), site.is_(None)))
    return found
