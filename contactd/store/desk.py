"""The desk file in the database: sites, people with their numbers, and the rota.

Who is on duty follows from the rota in the same transaction: see `store.duty`.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar

from sqlalchemy import RowMapping, bindparam, delete, insert, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from contactd.clock import Clock
from contactd.log import get_logger
from contactd.routing.deskfile import DeskFile, EngineerEntry, PersonEntry
from contactd.routing.needs import ENGINEER_LEFT
from contactd.routing.plan import with_past
from contactd.store import duty
from contactd.store.engine import Database
from contactd.store.schema import (
    addresses,
    contacts,
    people,
    rotas,
    search_people,
    sites,
    tickets,
)
from contactd.store.terms import load_terms, note_on
from contactd.store.unit_of_work import SqlUnitOfWork
from contactd.store.upsert import upsert
from contactd.tickets.events import TicketDue
from contactd.tickets.model import Ticket
from contactd.tickets.people import MAIL, PHONE
from contactd.tickets.states import State

log = get_logger()

T = TypeVar("T")

REQUESTER: Final = "requester"
ENGINEER: Final = "engineer"

_CHUNK: Final = 400  # values in one IN (…)

_PUT_SITES: Final = upsert(sites, ["key"], kept=["contract", "calendar"])  # see load_terms
_PUT_ADDRESSES: Final = upsert(addresses, ["kind", "value"])
_ADD_PERSON: Final = insert(people).returning(people.c.id, sort_by_parameter_order=True)
_CHANGE_PERSON: Final = (
    update(people)
    .where(people.c.id == bindparam("person"))
    .values(
        {
            name: bindparam(f"new_{name}")
            for name in ("key", "name", "department", "site", "role", "vip", "language")
        }
    )
)
_DROP_ADDRESS: Final = delete(addresses).where(
    addresses.c.kind == bindparam("k"), addresses.c.value == bindparam("v")
)
_WORK_OF: Final = (
    select(tickets.c.id)
    .join(people, people.c.id == tickets.c.assignee_id)
    .where(
        people.c.key.in_(bindparam("keys", expanding=True)),
        tickets.c.state.in_(sorted({State.NEW, State.IN_PROGRESS, State.PENDING})),
    )
    .order_by(tickets.c.id)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """How many there are of each now; `changed` when the rota is not what it was before."""

    sites: int
    engineers: int
    people: int
    rota: int  # entries: rotations, shifts, windows, swaps, overrides, leave
    changed: bool


async def load_desk(database: Database, desk: DeskFile, clock: Clock) -> Loaded:
    """Make the database's sites, people and rota those of the desk file; safe to repeat.

    Sites and people who are not in the file any more stay, since tickets name them, but are not
    on duty. Somebody who called before and was only a number becomes the person who has this
    number now, tickets and all. Duty is worked out anew.

    Raises:
        TemporaryFailure: nothing was stored.
    """
    # Nobody files a contact meanwhile: a number must not become two people.
    async with database.new_work() as work:
        loaded = await load_within(work, desk, clock)
        await work.commit()
    return loaded


async def load_within(work: SqlUnitOfWork, desk: DeskFile, clock: Clock) -> Loaded:
    """Do what `load_desk` does in a transaction that the caller commits.

    Raises:
        TemporaryFailure: nothing may be stored.
    """
    connection = work.connection
    await _load_sites(connection, desk)
    await load_terms(connection, desk, clock)
    ids = await _load_people(connection, desk, clock)
    await _load_addresses(connection, desk, ids)
    changed = await _load_rota(work, desk, clock)
    loaded = Loaded(
        sites=len(desk.sites),
        engineers=len(desk.engineers),
        people=len(desk.people),
        rota=sum(
            len(entries)
            for entries in (
                desk.rotations, desk.shifts, desk.windows, desk.swaps, desk.overrides, desk.leaves
            )
        ),
        changed=changed,
    )  # fmt: skip
    log.info("desk.loaded", sites=loaded.sites, people=len(ids), rota_changed=changed)
    return loaded


async def _load_sites(connection: AsyncConnection, desk: DeskFile) -> None:
    await connection.execute(
        _PUT_SITES[connection.dialect.name],
        [
            {
                "key": site.key,
                "name_zh": site.name_zh,
                "name_en": site.name_en,
                "zone": site.zone,
                "language": site.language,
                "queue": site.queue,
                "floor": site.floor,
                "area_code": site.area_code,
            }
            for site in desk.plan().sites
        ],
    )


def _everybody(desk: DeskFile) -> list[EngineerEntry | PersonEntry]:
    return [*desk.engineers, *desk.people]


async def _load_people(
    connection: AsyncConnection, desk: DeskFile, clock: Clock
) -> Mapping[str, int]:
    """Store everybody in the file, as far as it is news; return their ids by key."""
    entries = _everybody(desk)
    known = await _by_key(connection, [entry.key for entry in entries])
    owners = await _owners(connection, [each for entry in entries for each in _values(entry)])
    ids = {key: int(row["id"]) for key, row in known.items()}
    added: list[dict[str, Any]] = []
    changed: list[dict[str, Any]] = []
    for entry in entries:
        row = _person(entry)
        stored = known.get(entry.key)
        if stored is None and (caller := _caller_of(entry, owners, ids.values())) is not None:
            ids[entry.key] = caller
        elif stored is None:
            added.append({**row, "created_at": clock.now()})
            continue
        if stored is None or any(stored[name] != value for name, value in row.items()):
            news = {f"new_{name}": value for name, value in row.items()}
            changed.append({"person": ids[entry.key], **news})
    if changed:
        await connection.execute(_CHANGE_PERSON, changed)
    if added:
        new_ids = (await connection.execute(_ADD_PERSON, added)).scalars()
        ids |= {row["key"]: int(new) for row, new in zip(added, new_ids, strict=True)}
    return ids


def _person(entry: EngineerEntry | PersonEntry) -> dict[str, Any]:
    is_engineer = isinstance(entry, EngineerEntry)
    return {
        "key": entry.key,
        "name": entry.name,
        "department": entry.department,
        "site": entry.site,
        "role": ENGINEER if is_engineer else REQUESTER,
        "vip": isinstance(entry, PersonEntry) and entry.vip,
        "language": entry.language or "",
    }


def _values(entry: EngineerEntry | PersonEntry) -> list[tuple[str, str]]:
    """Return what somebody is known by, as (kind, value), the preferred first."""
    return [
        *((PHONE, number) for number in dict.fromkeys(_numbers(entry))),
        *((MAIL, mail) for mail in dict.fromkeys(mail.lower() for mail in entry.mails)),
    ]


def _numbers(entry: EngineerEntry | PersonEntry) -> tuple[str, ...]:
    if isinstance(entry, PersonEntry):
        return entry.numbers
    return (entry.number,) if entry.text is None else (entry.number, entry.text)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Owner:
    person_id: int
    nameless: bool  # a caller of whom only the address is known


_Owners = Mapping[tuple[str, str], _Owner]


def _caller_of(
    entry: EngineerEntry | PersonEntry, owners: _Owners, taken: Iterable[int]
) -> int | None:
    """Return the caller that was only a number and turns out to be this person."""
    for value in _values(entry):
        owner = owners.get(value)
        if owner is not None and owner.nameless and owner.person_id not in taken:
            return owner.person_id
    return None


async def _by_key(connection: AsyncConnection, keys: Sequence[str]) -> dict[str, RowMapping]:
    found: dict[str, RowMapping] = {}
    for some in _chunks(keys):
        rows = await connection.execute(select(people).where(people.c.key.in_(some)))
        found |= {row["key"]: row for row in rows.mappings()}
    return found


async def _owners(
    connection: AsyncConnection, values: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], _Owner]:
    found: dict[tuple[str, str], _Owner] = {}
    for some in _chunks(values):
        rows = await connection.execute(
            select(addresses.c.kind, addresses.c.value, people.c.id, people.c.key)
            .select_from(addresses.join(people, people.c.id == addresses.c.person_id))
            .where(tuple_(addresses.c.kind, addresses.c.value).in_(some))
        )
        for row in rows:
            owner = _Owner(person_id=row.id, nameless=row.key is None)
            found[row.kind, row.value] = owner
    return found


async def _load_addresses(
    connection: AsyncConnection, desk: DeskFile, ids: Mapping[str, int]
) -> None:
    """Give everybody in the file exactly the addresses of the file."""
    wanted = {
        value: (ids[entry.key], rank)
        for entry in _everybody(desk)
        for rank, value in enumerate(_values(entry))
    }
    before = await _owners(connection, list(wanted))
    stored = await _stored_addresses(connection, list(ids.values()))
    stale = [{"k": kind, "v": value} for kind, value in stored.keys() - wanted.keys()]
    if stale:
        await connection.execute(_DROP_ADDRESS, stale)
    news = [
        {"kind": kind, "value": value, "person_id": person_id, "rank": rank}
        for (kind, value), (person_id, rank) in wanted.items()
        if stored.get((kind, value)) != (person_id, rank)
    ]
    if news:
        await connection.execute(_PUT_ADDRESSES[connection.dialect.name], news)
    for value, owner in before.items():
        person_id, _ = wanted[value]
        if owner.nameless and owner.person_id != person_id:
            await _absorb(connection, owner.person_id, person_id)


async def _stored_addresses(
    connection: AsyncConnection, person_ids: Sequence[int]
) -> dict[tuple[str, str], tuple[int, int]]:
    """Return whose each address is, and its rank."""
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for some in _chunks(person_ids):
        rows = await connection.execute(select(addresses).where(addresses.c.person_id.in_(some)))
        found |= {(row.kind, row.value): (row.person_id, row.rank) for row in rows}
    return found


def _chunks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(values), _CHUNK):
        yield values[start : start + _CHUNK]


async def _absorb(connection: AsyncConnection, caller: int, person: int) -> None:
    """Give `person` everything of a caller whose only address is theirs now."""
    names = {"caller": caller, "person": person}
    for statement in _ABSORB:
        await connection.execute(statement, names)


_ABSORB: Final = (
    update(tickets)
    .where(tickets.c.requester_id == bindparam("caller"))
    .values(requester_id=bindparam("person")),
    update(contacts)
    .where(contacts.c.person_id == bindparam("caller"))
    .values(person_id=bindparam("person")),
    delete(search_people).where(search_people.c.person_id == bindparam("caller")),
    delete(people).where(people.c.id == bindparam("caller")),
)


async def _load_rota(work: SqlUnitOfWork, desk: DeskFile, clock: Clock) -> bool:
    connection, now = work.connection, clock.now()
    plan, stored = desk.plan(), await duty.plan(connection)
    if stored is not None:
        plan = with_past(plan, stored, now)
    is_new = plan != stored
    if is_new:
        await connection.execute(delete(rotas))
        body = duty.plan_body(plan)
        await connection.execute(insert(rotas), {"id": 1, "body": body, "loaded_at": now})
    moved = await duty.resolve(work, clock)
    if stored is not None:  # once it is known who is on duty instead
        gone = {each.key for each in stored.engineers} - {each.key for each in plan.engineers}
        await _let_go(work, gone, now)
    return bool(moved) or is_new


async def _let_go(work: SqlUnitOfWork, gone: Collection[str], now: datetime) -> None:
    """Have others told of the tickets of engineers who are not in the file any more."""
    if not gone:
        return
    ids = (await work.connection.execute(_WORK_OF, {"keys": sorted(gone)})).scalars().all()

    def body(ticket: Ticket) -> dict[str, str]:
        return {"engineer": ticket.assignee}

    await note_on(work.connection, ids, ENGINEER_LEFT, body, now)
    for ticket_id in ids:  # after the events of duty, so that nobody asks who was on duty before
        work.emit(TicketDue(ticket_id=int(ticket_id)))
