"""Full-text search: keeps the index of tickets and asks it. See docs/adr/0009-search.md.

The index follows what is filed, a second behind, in transactions of its own: whoever files a call
does not wait for it. Several processes may keep it at once: each row is only replaced by a newer
one, and what one has done the other finds done.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import and_, bindparam, delete, func, or_, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from contactd.clock import Clock
from contactd.errors import TemporaryFailure
from contactd.log import get_logger
from contactd.service import Health, HealthState
from contactd.signals import Signals, Topic, wait
from contactd.store.engine import Database
from contactd.store.finding import FACET, LONGEST_TEXT, Query, Term, terms
from contactd.store.schema import (
    Instant,
    addresses,
    contacts,
    cursors,
    journal,
    people,
    search_people,
    search_texts,
    tickets,
)
from contactd.tickets.contact import Medium
from contactd.tickets.priority import Priority
from contactd.tickets.states import State

log = get_logger()

SOURCE: Final = "search"
BATCH: Final = 100  # tickets a transaction: some ten milliseconds
EVERY_S: Final = 1.0  # however much is filed
POLL_S: Final = 5.0  # without any signal
FEW: Final = 1_000  # so many are indexed before anybody need hear of it
REST: Final = 1.0  # while a million is caught up with: as long as a batch took, nothing
# A transaction commits later than the instant that its rows have, by ten seconds at most; clocks of
# two machines differ. What is filed meanwhile is looked for again.
OVERLAP: Final = timedelta(minutes=2)
FIRST_OVERLAP: Final = timedelta(hours=1)
MOST_COUNTED: Final = 1_000
BUCKET_BITS: Final = 14  # 16,384 tickets: PostgreSQL looks through the newest first
_WINDOWS: Final = (2, 8, None)  # buckets; None: all that are left
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NO_TERM: Final = re.compile(r"[^a-z0-9.~-]")
_LARGEST_ID: Final = 2**63 - 1


# What is asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Facets:
    """What tickets are; empty does not ask. Of `sites`, "" stands for tickets of no site."""

    sites: Collection[str] = ()
    states: Collection[State] = ()
    priorities: Collection[Priority] = ()
    media: Collection[Medium] = ()
    categories: Collection[str] = ()
    teams: Collection[str] = ()
    assignees: Collection[str] = ()  # keys of engineers; "": nobody has it
    months: Collection[str] = ()  # YYYYMM of when they were opened, UTC
    vip: bool = False

    def groups(self) -> list[tuple[Term, ...]]:
        """Return terms: of each group one must be there."""
        asked = {
            "s": self.sites,
            "t": self.states,
            "p": self.priorities,
            "m": self.media,
            "c": self.categories,
            "g": self.teams,
            "a": self.assignees,
            "d": self.months,
            "v": ("",) if self.vip else (),
        }
        return [
            tuple(Term(facet(kind, value)) for value in sorted(values))
            for kind, values in asked.items()
            if values
        ]


def facet(kind: str, value: str) -> str:
    """Return the term for what a ticket is, of signs that both databases take as one word."""
    safe = _NO_TERM.sub(lambda sign: f"~{ord(sign[0]):x}~", value.lower())
    return f"{FACET}{kind}{safe}"


def month(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y%m}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    query: Query
    facets: Facets = field(default_factory=Facets)

    @property
    def groups(self) -> list[tuple[Term, ...]]:
        return [*self.query.groups, *self.facets.groups()]

    @property
    def is_empty(self) -> bool:
        return not self.groups


_SQLITE: Final = text(
    "SELECT rowid FROM search_index WHERE search_index MATCH :wanted AND rowid < :before"
    " ORDER BY rowid DESC LIMIT :most"
)
# Materialized: else the planner goes through the newest tickets for what is rare.
_POSTGRESQL: Final = text(
    "WITH hits AS MATERIALIZED"
    " (SELECT ticket_id FROM search_texts WHERE terms @@ CAST(CAST(:wanted AS text) AS tsquery))"
    " SELECT ticket_id FROM hits WHERE ticket_id < :before ORDER BY ticket_id DESC LIMIT :most"
)
_NEWEST: Final = select(func.max(search_texts.c.ticket_id))


async def candidates(
    connection: AsyncConnection, wanted: Wanted, *, before: int = _LARGEST_ID, most: int
) -> list[int]:
    """Return ids of tickets that have all the terms, the newest first, below the id `before`.

    Of runs of three and more Chinese signs this says that each pair is there, not that they are
    neighbours: `Query.fits` must be asked, unless `Query.is_exact`.
    """
    groups = wanted.groups
    if not groups:
        return []
    if connection.dialect.name == "sqlite":
        asked = {"wanted": match_expression(groups), "before": before, "most": most}
        return [int(row[0]) for row in (await connection.execute(_SQLITE, asked)).all()]
    return await _by_windows(connection, groups, before, most)


async def _by_windows(
    connection: AsyncConnection, groups: list[tuple[Term, ...]], before: int, most: int
) -> list[int]:
    """Look through the newest tickets, through more of those before them, then through all.

    A GIN index knows no order: of a common word it would bring, and sort, every ticket there is.
    """
    newest = (await connection.execute(_NEWEST)).scalar_one() or 0
    above = (min(before - 1, newest) >> BUCKET_BITS) + 1
    found: list[int] = []
    for size in _WINDOWS:
        last = 0 if size is None else max(0, above - size)
        # What is rare among the newest has few hits in all. To name all buckets of a million
        # tickets would take longer than to bring its 5,000 hits: 838 ms, not 13.
        window = [] if last == 0 else [tuple(Term(bucket(each)) for each in range(last, above))]
        asked = {
            "wanted": tsquery([*window, *groups]),
            "before": min(before, above << BUCKET_BITS),
            "most": most - len(found),
        }
        rows = (await connection.execute(_POSTGRESQL, asked)).all()
        found += [int(row[0]) for row in rows]
        above = last
        if len(found) >= most or above == 0:
            break
    return found


def bucket(number: int) -> str:
    return facet("b", str(number))


def match_expression(groups: Iterable[Sequence[Term]]) -> str:
    """Return what FTS5's MATCH takes (sqlite.org/fts5.html section 3). Terms have no quotes."""

    def one(term: Term) -> str:
        return f'"{term.text}"*' if term.is_prefix else f'"{term.text}"'

    return " AND ".join(f"({' OR '.join(map(one, group))})" for group in groups)


def tsquery(groups: Iterable[Sequence[Term]]) -> str:
    """Return PostgreSQL's text of a tsquery (manual, section 8.11.2). Terms have no quotes."""

    def one(term: Term) -> str:
        return f"'{term.text}':*" if term.is_prefix else f"'{term.text}'"

    return " & ".join(f"({' | '.join(map(one, group))})" for group in groups)


# What is indexed

_KNOWN: Final = select(
    search_texts.c.ticket_id, search_texts.c.journal_seq, search_texts.c.seen_at
).where(search_texts.c.ticket_id.in_(bindparam("tickets", expanding=True)))
_assignee = people.alias("assignee")
_TICKETS: Final = (
    select(
        tickets,
        people.c.name.label("requester"),
        people.c.department,
        people.c.vip,
        _assignee.c.key.label("engineer"),
    )
    .select_from(
        tickets.join(people, people.c.id == tickets.c.requester_id).outerjoin(
            _assignee, _assignee.c.id == tickets.c.assignee_id
        )
    )
    .where(tickets.c.id.in_(bindparam("tickets", expanding=True)))
)
_CONTACTS: Final = (
    select(
        contacts.c.ticket_id,
        contacts.c.medium,
        contacts.c.from_value,
        contacts.c.from_name,
        contacts.c.mail["subject"].as_string().label("subject"),
        func.substr(contacts.c.text, 1, LONGEST_TEXT).label("text"),
    )
    .where(contacts.c.ticket_id.in_(bindparam("tickets", expanding=True)))
    .order_by(contacts.c.id)
)
_NOTES: Final = (
    select(journal.c.ticket_id, journal.c.body["note"].as_string().label("note"))
    .where(
        journal.c.ticket_id.in_(bindparam("tickets", expanding=True)),
        journal.c.body["note"].as_string() > "",
    )
    .order_by(journal.c.ticket_id, journal.c.seq)
)
_ADDRESSES: Final = select(addresses.c.person_id, addresses.c.value).where(
    addresses.c.person_id.in_(bindparam("people", expanding=True))
)
_UPSERT: Final = {
    name: statement.on_conflict_do_update(
        index_elements=["ticket_id"],
        set_={
            each: statement.excluded[each] for each in ("body", "terms", "journal_seq", "seen_at")
        },
        # Another process may have read a newer state of the ticket, and was faster.
        where=search_texts.c.journal_seq <= statement.excluded.journal_seq,
    )
    for name, statement in (
        ("sqlite", sqlite.insert(search_texts)),
        ("postgresql", postgresql.insert(search_texts)),
    )
}


async def documents(connection: AsyncConnection, wanted: Sequence[int]) -> list[dict[str, Any]]:
    """Return the rows of the index for some tickets, without their terms; see `with_terms`."""
    asked = {"tickets": list(wanted)}
    found = (await connection.execute(_TICKETS, asked)).mappings().all()
    if not found:
        return []
    said: dict[int, list[str]] = {row["id"]: [] for row in found}
    media: dict[int, set[str]] = {row["id"]: set() for row in found}
    for contact in (await connection.execute(_CONTACTS, asked)).mappings():
        media[contact["ticket_id"]].add(contact["medium"])
        said[contact["ticket_id"]] += [
            contact[name] or "" for name in ("from_name", "from_value", "subject", "text")
        ]
    for note in (await connection.execute(_NOTES, asked)).mappings():
        said[note["ticket_id"]].append(note["note"])
    of_person: dict[int, list[str]] = {}
    persons = {"people": sorted({row["requester_id"] for row in found})}
    for address in (await connection.execute(_ADDRESSES, persons)).mappings():
        of_person.setdefault(address["person_id"], []).append(address["value"])
    return [
        {
            "ticket_id": row["id"],
            "body": _body(
                row["number"], row["title"], row["requester"], row["department"], row["system"],
                *of_person.get(row["requester_id"], ()), *_told(row["standard"]), *said[row["id"]],
            ),
            "facets": facets_of(row, media[row["id"]]),
            "journal_seq": row["journal_seq"],
            "seen_at": row["updated_at"],
        }
        for row in found
    ]  # fmt: skip


def facets_of(row: Mapping[Any, Any], media: Iterable[str]) -> set[str]:
    """Return the terms for what a ticket is, from its row."""
    one = {
        "s": row["site"] or "",
        "t": row["state"],
        "p": row["priority"],
        "c": row["category"],
        "g": row["team"],
        "a": row["engineer"] or "",
        "d": month(row["opened_at"]),
        "b": str(row["id"] >> BUCKET_BITS),
    }
    found = {facet(kind, value) for kind, value in one.items()}
    return (
        found | {facet("m", each) for each in media} | ({facet("v", "")} if row["vip"] else set())
    )


def with_terms(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return rows as they are stored. Takes a tenth of a millisecond a row, and more for mails."""
    return [
        {
            "ticket_id": row["ticket_id"],
            "body": row["body"],
            "terms": terms(row["body"]) | row["facets"],
            "journal_seq": row["journal_seq"],
            "seen_at": row["seen_at"],
        }
        for row in rows
    ]


def _told(standard: Mapping[str, Any]) -> list[str]:
    """Return the words of the standard information (B1)."""
    return [value for value in standard.values() if isinstance(value, str)]


def _body(*lines: str) -> str:
    """Return what was said, each thing once, a line each."""
    told = (" ".join(line.replace("\x00", " ").split()) for line in lines)
    return "\n".join(dict.fromkeys(filter(None, told)))[:LONGEST_TEXT]


# The service

_AT: Final = bindparam("at", type_=tickets.c.updated_at.type)
_CHANGED: Final = (
    select(tickets.c.id, tickets.c.journal_seq, tickets.c.updated_at)
    .where(
        or_(
            tickets.c.updated_at > _AT,
            and_(tickets.c.updated_at == _AT, tickets.c.id > bindparam("last")),
        ),
        tickets.c.updated_at >= _AT,  # what an index is used for
    )
    .order_by(tickets.c.updated_at, tickets.c.id)
    .limit(bindparam("most"))
)
_MISSED: Final = (
    select(tickets.c.id)
    .select_from(tickets.outerjoin(search_texts, search_texts.c.ticket_id == tickets.c.id))
    .where(
        tickets.c.updated_at >= _AT,
        or_(
            search_texts.c.ticket_id.is_(None),
            search_texts.c.journal_seq < tickets.c.journal_seq,
            and_(
                search_texts.c.journal_seq == tickets.c.journal_seq,
                search_texts.c.seen_at != tickets.c.updated_at,
            ),
        ),
    )
    .limit(bindparam("most"))
)
_POSITION: Final = select(cursors.c.position).where(cursors.c.source == SOURCE)
_MOVE: Final = text(
    "INSERT INTO cursors (source, position, updated_at) VALUES (:source, :position, :now)"
    " ON CONFLICT (source) DO UPDATE"
    " SET position = excluded.position, updated_at = excluded.updated_at"
).bindparams(bindparam("now", type_=Instant))
_COUNTS: Final = select(
    select(func.count()).select_from(tickets).scalar_subquery().label("total"),
    select(func.count()).select_from(search_texts).scalar_subquery().label("done"),
)
_PEOPLE: Final = (
    select(search_people.c.person_id, search_people.c.version)
    .order_by(search_people.c.person_id)
    .limit(BATCH)
)
_OF_PERSON: Final = (
    select(tickets.c.id)
    .where(tickets.c.requester_id == bindparam("person"), tickets.c.id > bindparam("last"))
    .order_by(tickets.c.id)
    .limit(BATCH)
)
_DONE: Final = delete(search_people).where(
    search_people.c.person_id == bindparam("person"),
    search_people.c.version == bindparam("seen"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a long catching up has come, in tickets."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class _Place:
    """All tickets up to here have been read: by `updated_at`, then by id."""

    at: datetime = _EPOCH
    last: int = 0

    @classmethod
    def read(cls, position: str | None) -> "_Place":
        if position is None:
            return cls()
        told = json.loads(position)
        return cls(datetime.fromisoformat(told["at"]), int(told["last"]))

    def __str__(self) -> str:
        return json.dumps({"at": self.at.isoformat(), "last": self.last})


class SearchIndex:
    """The service that keeps the index."""

    name = "search"

    def __init__(self, database: Database, clock: Clock, signals: Signals) -> None:
        self._database = database
        self._clock = clock
        self._signals = signals
        self._progress: Progress | None = None
        self._trouble = ""
        self._overlap = FIRST_OVERLAP

    @property
    def progress(self) -> Progress | None:
        """Return how far it is while it catches up, None if it is a second behind, as always."""
        return self._progress

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            keeping = tasks.create_task(self._keep(), name="search")
            yield
            keeping.cancel()

    def health(self) -> list[Health]:
        told = self._trouble
        if self._progress is not None:
            told = f"indexing {self._progress.done:,} of {self._progress.total:,} tickets"
        return [
            Health(
                component="search",
                state=HealthState.DEGRADED if told else HealthState.UP,
                detail=told,
            )
        ]

    async def _keep(self) -> None:
        with self._signals.listening(Topic.BOARD) as changed:
            while True:
                try:
                    await self.catch_up()
                    self._trouble = ""
                except TemporaryFailure as failure:
                    self._trouble = "the database is away: what is new is not found yet"
                    log.warning("search.deferred", reason=str(failure))
                await asyncio.sleep(EVERY_S)
                await wait(changed, POLL_S)

    async def catch_up(self) -> None:
        """Index everything that has changed.

        Raises:
            TemporaryFailure: the database is away; what was done is kept.
        """
        while await self._next_batch():
            pass
        self._progress = None
        await self._missed()
        await self._people()

    async def _next_batch(self) -> bool:
        """Index the next tickets in the order in which they changed; return whether more wait."""
        began = asyncio.get_running_loop().time()
        async with self._database.reading() as connection:
            place = _Place.read((await connection.execute(_POSITION)).scalar_one_or_none())
            asked = {"at": place.at, "last": place.last, "most": BATCH}
            rows = (await connection.execute(_CHANGED, asked)).all()
            if not rows:
                return False
            known = {row[0]: (row[1], row[2]) for row in await _rows(connection, rows)}
            new = [row[0] for row in rows if known.get(row[0]) != (row[1], row[2])]
            found = await documents(connection, new) if new else []
            if len(rows) == BATCH and self._progress is None:
                counts = (await connection.execute(_COUNTS)).one()
                if counts.total - counts.done > FEW:
                    self._progress = Progress(done=counts.done, total=counts.total)
        last = rows[-1]
        await self._store(found, _Place(last[2], last[0]))
        if self._progress is not None:
            fresh = sum(row["ticket_id"] not in known for row in found)
            done = min(self._progress.done + fresh, self._progress.total)
            self._progress = Progress(done=done, total=self._progress.total)
        if len(rows) == BATCH:
            await self._rest(asyncio.get_running_loop().time() - began)
        return len(rows) == BATCH

    async def _rest(self, took_s: float) -> None:
        """Let others work; what comes in goes before what is old."""
        await asyncio.sleep(took_s * REST)
        if self._database.is_storm:
            await asyncio.sleep(EVERY_S)

    async def _missed(self) -> None:
        """Index what was committed late, or by another clock."""
        while True:
            async with self._database.reading() as connection:
                place = _Place.read((await connection.execute(_POSITION)).scalar_one_or_none())
                since = max(_EPOCH, place.at - self._overlap)
                rows = (await connection.execute(_MISSED, {"at": since, "most": BATCH})).all()
                found = await documents(connection, [row[0] for row in rows])
            await self._store(found)
            if len(rows) < BATCH:
                break
            await asyncio.sleep(0)
        self._overlap = OVERLAP

    async def _people(self) -> None:
        """Index the tickets of people of whom something else is known than before."""
        async with self._database.reading() as connection:
            changed = (await connection.execute(_PEOPLE)).all()
        for person, version in changed:
            await self._tickets_of(person)
            async with self._database.writing() as connection:
                await connection.execute(_DONE, {"person": person, "seen": version})

    async def _tickets_of(self, person: int) -> None:
        last, is_more = 0, True
        while is_more:
            async with self._database.reading() as connection:
                asked = {"person": person, "last": last}
                ids = (await connection.execute(_OF_PERSON, asked)).scalars().all()
                found = await documents(connection, ids) if ids else []
            await self._store(found)
            is_more = len(ids) == BATCH
            last = ids[-1] if ids else last

    async def _store(self, found: Sequence[Mapping[str, Any]], place: _Place | None = None) -> None:
        rows = await asyncio.to_thread(with_terms, found)
        if not rows and place is None:
            return
        async with self._database.writing() as connection:
            if rows:
                await connection.execute(_UPSERT[connection.dialect.name], rows)
            if place is not None:
                moved = {"source": SOURCE, "position": str(place), "now": self._clock.now()}
                await connection.execute(_MOVE, moved)


async def _rows(connection: AsyncConnection, changed: Sequence[Any]) -> Sequence[Any]:
    asked = {"tickets": [row[0] for row in changed]}
    return (await connection.execute(_KNOWN, asked)).all()
