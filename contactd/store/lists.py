"""The ticket list of the workbench: what it shows, in which order, and the filters people saved.

Of a million tickets a few thousand are open: those are filtered and sorted as they are. Any others
are reached through the search index, the newest first, so that no filter reads a million rows.
"""

import asyncio
import base64
import binascii
import json
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Any, Final, TypeVar

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Select,
    and_,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from contactd.clock import Clock
from contactd.errors import NotFound, PermanentFailure
from contactd.routing.clocks import Metric
from contactd.routing.clocks import State as ClockState
from contactd.store.engine import Database
from contactd.store.finding import Query
from contactd.store.schema import (
    clocks,
    contacts,
    list_defaults,
    list_filters,
    people,
    search_texts,
    tickets,
)
from contactd.store.search import MOST_COUNTED, Facets, Wanted, candidates, month
from contactd.store.upsert import upsert
from contactd.store.views import TicketView, tickets_of
from contactd.tickets.contact import Direction, Medium
from contactd.tickets.priority import Priority
from contactd.tickets.states import OPEN, State

PAGE: Final = 50
SOON: Final = timedelta(hours=1)
MOST_FILTERS: Final = 50  # of one person
MOST_REMEMBERED: Final = 500
REMEMBER_S: Final = 2.0
LONGEST_NAME: Final = 60
LONGEST_FILTER: Final = 1_000
NOBODY: Final = ""
_NEVER: Final = datetime(9999, 1, 1, tzinfo=UTC)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ROUNDS: Final = 12  # batches of candidates a page is made of; then it is as long as it is
_MORE: Final = 500
_MOST_MONTHS: Final = 36
# In words, not by parameters: PostgreSQL knows of these states how few tickets are in them.
_IS_OPEN: Final[ColumnElement[bool]] = literal_column(
    "tickets.state IN ('new', 'in_progress', 'pending', 'resolved')"
)


class Sort(StrEnum):
    DUE = "due"  # what comes due next
    PRIORITY = "priority"  # then who waits longest
    NEWEST = "newest"
    WAITING = "waiting"  # who has heard nothing for the longest time


class Due(StrEnum):
    SOON = "soon"  # within `SOON`
    BREACHED = "breached"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """All must hold; empty and None do not ask. `states` empty: any."""

    words: str = ""
    states: Collection[State] = OPEN
    site: str | None = None  # "": of no site
    priorities: Collection[Priority] = ()
    assignee: str | None = None  # key; NOBODY
    team: str = ""
    medium: Medium | None = None
    due: Due | None = None
    vip: bool = False
    category: str = ""
    opened_from: datetime | None = None
    opened_to: datetime | None = None  # exclusive

    @property
    def is_open(self) -> bool:
        """Return whether only open tickets are wanted."""
        return bool(self.states) and set(self.states) <= OPEN


@dataclass(frozen=True, slots=True, kw_only=True)
class NextDue:
    """The promise that comes due first of those whose time is running."""

    metric: Metric
    at: datetime
    goal: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class NewestContact:
    medium: Medium
    direction: Direction
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One line. `found`: where in what was said the words are, "" if they are in the line."""

    ticket: TicketView
    due: NextDue | None
    newest: NewestContact | None
    found: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListPage:
    """`count` None: nobody counted (it is not the first page); at most `MOST_COUNTED` + 1."""

    items: tuple[Listed, ...]
    next_cursor: str
    count: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How many open tickets there are of what people look at all the time."""

    open: int = 0
    mine: int = 0
    nobodys: int = 0
    soon: int = 0
    breached: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedFilter:
    id: int
    name: str
    query: str
    owner: str
    shared: bool
    is_default: bool


# All running clocks at once, of which there are a few thousand: asked for ticket by ticket, SQLite
# (which keeps no statistics of ours) goes through all of them for each ticket.
_RUNNING: Final = (
    select(clocks.c.ticket_id, func.min(clocks.c.due_at).label("due_at"))
    .where(clocks.c.state == ClockState.RUNNING.value)
    .group_by(clocks.c.ticket_id)
    .subquery()
)
_KEYS: Final[Mapping[Sort, Sequence[ColumnElement[Any]]]] = {
    Sort.DUE: (
        func.coalesce(_RUNNING.c.due_at, bindparam("never", _NEVER, type_=clocks.c.due_at.type)),
        tickets.c.id,
    ),
    Sort.PRIORITY: (tickets.c.priority, tickets.c.opened_at, tickets.c.id),
    Sort.NEWEST: (tickets.c.id,),
    Sort.WAITING: (tickets.c.last_contact_at, tickets.c.id),
}
_FROM: Final[Mapping[Sort, FromClause]] = {
    Sort.DUE: tickets.outerjoin(_RUNNING, _RUNNING.c.ticket_id == tickets.c.id)
}
_KINDS: Final[Mapping[Sort, Sequence[type]]] = {  # of what is in a cursor
    Sort.DUE: (datetime, int),
    Sort.PRIORITY: (str, datetime, int),
    Sort.NEWEST: (int,),
    Sort.WAITING: (datetime, int),
}
_FALLING: Final = frozenset({Sort.NEWEST})

_CLOCKS: Final = (
    select(
        clocks.c.ticket_id, clocks.c.metric, clocks.c.due_at, clocks.c.goal_s, clocks.c.state
    )  # the running ones are picked out of these: asked for, SQLite would go through all of them
    .where(
        clocks.c.ticket_id.in_(bindparam("tickets", expanding=True)), clocks.c.due_at.is_not(None)
    )
    .order_by(clocks.c.due_at.desc())
)
_CONTACTS: Final = (
    select(contacts.c.ticket_id, contacts.c.medium, contacts.c.direction, contacts.c.received_at)
    .where(contacts.c.ticket_id.in_(bindparam("tickets", expanding=True)))
    .order_by(contacts.c.received_at, contacts.c.id)
)
_BODIES: Final = select(search_texts.c.ticket_id, search_texts.c.body).where(
    search_texts.c.ticket_id.in_(bindparam("tickets", expanding=True))
)
_MY_FILTERS: Final = (
    select(list_filters, list_defaults.c.filter_id.label("default"))
    .select_from(
        list_filters.outerjoin(
            list_defaults,
            and_(
                list_defaults.c.filter_id == list_filters.c.id,
                list_defaults.c.owner == bindparam("me"),
            ),
        )
    )
    .where(or_(list_filters.c.owner == bindparam("me"), list_filters.c.shared.is_(True)))
    .order_by(list_filters.c.name, list_filters.c.id)
)
_SET_DEFAULT: Final = upsert(list_defaults, ["owner"])
_TEAMS: Final = (
    select(tickets.c.team).where(_IS_OPEN, tickets.c.team != "").distinct().order_by(tickets.c.team)
)
_ENGINEERS: Final = (
    select(people.c.key, people.c.name).where(people.c.role == "engineer").order_by(people.c.name)
)


_Told = TypeVar("_Told")


class Lists:
    """Every method raises `TemporaryFailure` when the database is away.

    What stands around the list (`tally`, `choices`) is told again for `remember_s`: everybody at
    the desk asks for it with each page, and it costs more than the page.
    """

    def __init__(self, database: Database, clock: Clock, *, remember_s: float = 0) -> None:
        self._database = database
        self._clock = clock
        self._remember_s = remember_s
        self._told: dict[object, tuple[float, Any]] = {}  # when, what; event loop's clock

    async def _recent(self, key: object, ask: Callable[[], Awaitable[_Told]]) -> _Told:
        now = asyncio.get_running_loop().time()
        if key in self._told and now - self._told[key][0] < self._remember_s:
            found: _Told = self._told[key][1]
            return found
        if len(self._told) >= MOST_REMEMBERED:
            self._told.clear()
        found = await ask()
        self._told[key] = now, found
        return found

    # The list

    async def page(
        self,
        filters: Filters,
        *,
        sites: Collection[str] = (),
        sort: Sort = Sort.DUE,
        cursor: str = "",
        limit: int = PAGE,
    ) -> ListPage:
        """Return tickets of these sites (empty: all), and of no site.

        What is searched for, and tickets that are over, come the newest first whatever `sort`.

        Raises:
            PermanentFailure: the cursor is none of ours.
        """
        query = Query(filters.words)
        conditions = self._conditions(filters, sites)
        after = _read_cursor(cursor)
        async with self._database.reading() as connection:
            if query.needles or not filters.is_open:
                wanted = Wanted(query=query, facets=_facets(filters, sites))
                found, count = await _by_index(connection, wanted, conditions, after, limit)
                following = _cursor([found[limit - 1]]) if len(found) > limit else ""
            else:
                rows = await _by_key(connection, conditions, sort, after, limit + 1)
                found = [row[-1] for row in rows]
                following = _cursor(rows[limit - 1]) if len(rows) > limit else ""
                count = None if cursor else await _count(connection, conditions, len(rows), limit)
            items = await _listed(connection, found[:limit], query)
        return ListPage(items=items, next_cursor=following, count=count)

    async def tally(self, *, sites: Collection[str] = (), mine: str = "") -> Tally:
        """Count open tickets; `mine` is the key of the engineer who asks."""
        key = ("tally", frozenset(sites), mine)
        return await self._recent(key, partial(self._tally, sites, mine))

    async def _tally(self, sites: Collection[str], mine: str) -> Tally:
        of_open = [
            select(func.count()).select_from(tickets).where(*conditions).scalar_subquery()
            for conditions in (
                self._conditions(filters, sites)
                for filters in (
                    Filters(),
                    Filters(assignee=mine or "-"),
                    Filters(assignee=NOBODY),
                    Filters(due=Due.SOON),
                    Filters(due=Due.BREACHED),
                )
            )
        ]
        async with self._database.reading() as connection:
            row = (await connection.execute(select(*of_open))).one()
        return Tally(open=row[0], mine=row[1], nobodys=row[2], soon=row[3], breached=row[4])

    async def choices(self) -> tuple[Mapping[str, str], Sequence[str]]:
        """Return the names of engineers by key, and teams that have open tickets."""
        return await self._recent("choices", self._choices)

    async def _choices(self) -> tuple[Mapping[str, str], Sequence[str]]:
        async with self._database.reading() as connection:
            engineers = (await connection.execute(_ENGINEERS)).all()
            teams = (await connection.execute(_TEAMS)).scalars().all()
        return {row.key: row.name or row.key for row in engineers}, teams

    def _conditions(self, filters: Filters, sites: Collection[str]) -> list[ColumnElement[bool]]:
        found: list[ColumnElement[bool]] = []
        if filters.is_open:
            found.append(_IS_OPEN)
        if filters.states and set(filters.states) != OPEN:
            found.append(tickets.c.state.in_(sorted(each.value for each in filters.states)))
        if sites:
            found.append(or_(tickets.c.site.in_(sorted(sites)), tickets.c.site.is_(None)))
        if filters.site is not None:
            is_there = tickets.c.site == filters.site if filters.site else tickets.c.site.is_(None)
            found.append(is_there)
        if filters.priorities:
            found.append(tickets.c.priority.in_(sorted(each.value for each in filters.priorities)))
        for column, value in (
            (tickets.c.team, filters.team),
            (tickets.c.category, filters.category),
        ):
            if value:
                found.append(column == value)
        return [*found, *_joined(filters), *_period(filters), *self._due(filters.due)]

    def _due(self, due: Due | None) -> Iterable[ColumnElement[bool]]:
        if due is None:
            return
        now = self._clock.now()
        is_running = clocks.c.state == ClockState.RUNNING.value
        if due is Due.SOON:  # few at any time; of broken promises there are more every day
            soon = and_(is_running, clocks.c.due_at >= now, clocks.c.due_at < now + SOON)
            yield tickets.c.id.in_(select(clocks.c.ticket_id).where(soon))
            return
        broken = or_(clocks.c.breached_at.is_not(None), and_(is_running, clocks.c.due_at < now))
        yield select(clocks.c.entry).where(clocks.c.ticket_id == tickets.c.id, broken).exists()

    # Saved filters

    async def filters(self, owner: str) -> tuple[SavedFilter, ...]:
        """Return somebody's filters and those that others share."""
        async with self._database.reading() as connection:
            rows = (await connection.execute(_MY_FILTERS, {"me": owner})).all()
        return tuple(
            SavedFilter(
                id=row.id,
                name=row.name,
                query=row.query,
                owner=row.owner,
                shared=row.shared,
                is_default=row.default is not None,
            )
            for row in rows
        )

    async def save_filter(self, owner: str, name: str, query: str, *, shared: bool) -> int:
        """Keep a filter; one of the same name is replaced. Return its id.

        Raises:
            PermanentFailure: it has no name, is too long, or there are too many.
        """
        name = " ".join(name.split())
        if not name or len(name) > LONGEST_NAME or not name.isprintable():
            raise PermanentFailure(f"name: 1 to {LONGEST_NAME} characters")
        if len(query) > LONGEST_FILTER:
            raise PermanentFailure(f"a filter has at most {LONGEST_FILTER} characters")
        is_it = and_(list_filters.c.owner == owner, list_filters.c.name == name)
        values = {"query": query, "shared": shared}
        async with self._database.writing() as connection:
            known = (
                await connection.execute(select(list_filters.c.id).where(is_it))
            ).scalar_one_or_none()
            if known is not None:
                await connection.execute(update(list_filters).where(is_it).values(values))
                return int(known)
            count = select(func.count()).where(list_filters.c.owner == owner)
            if (await connection.execute(count)).scalar_one() >= MOST_FILTERS:
                raise PermanentFailure(f"{MOST_FILTERS} filters are kept: drop one first")
            added = await connection.execute(
                insert(list_filters).returning(list_filters.c.id),
                {**values, "owner": owner, "name": name, "created_at": self._clock.now()},
            )
            return int(added.scalar_one())

    async def drop_filter(self, owner: str, filter_id: int) -> None:
        """Forget one of somebody's own filters.

        Raises:
            NotFound: they have none of this id.
        """
        is_it = and_(list_filters.c.owner == owner, list_filters.c.id == filter_id)
        async with self._database.writing() as connection:
            found = await connection.execute(select(list_filters.c.id).where(is_it))
            if found.scalar_one_or_none() is None:
                raise NotFound("there is no such filter of yours")
            await connection.execute(
                delete(list_defaults).where(list_defaults.c.filter_id == filter_id)
            )
            await connection.execute(delete(list_filters).where(is_it))

    async def set_default(self, owner: str, filter_id: int | None) -> None:
        """Say what somebody's list shows when nothing is asked of it; None: open tickets.

        Raises:
            NotFound: there is no such filter, or it is somebody else's alone.
        """
        may = or_(list_filters.c.owner == owner, list_filters.c.shared.is_(True))
        async with self._database.writing() as connection:
            if filter_id is None:
                await connection.execute(
                    delete(list_defaults).where(list_defaults.c.owner == owner)
                )
                return
            wanted = select(list_filters.c.id).where(may, list_filters.c.id == filter_id)
            if (await connection.execute(wanted)).scalar_one_or_none() is None:
                raise NotFound("there is no such filter")
            values = {"owner": owner, "filter_id": filter_id}
            await connection.execute(_SET_DEFAULT[connection.dialect.name], values)


def _joined(filters: Filters) -> Iterable[ColumnElement[bool]]:
    """Yield what is asked of other tables than that of tickets."""
    if filters.assignee == NOBODY:
        yield tickets.c.assignee_id.is_(None)
    elif filters.assignee is not None:
        key = select(people.c.id).where(people.c.key == filters.assignee).scalar_subquery()
        yield tickets.c.assignee_id == key
    if filters.vip:
        yield (
            select(people.c.id)
            .where(people.c.id == tickets.c.requester_id, people.c.vip.is_(True))
            .exists()
        )
    if filters.medium is not None:
        yield (
            select(contacts.c.id)
            .where(contacts.c.ticket_id == tickets.c.id, contacts.c.medium == filters.medium.value)
            .exists()
        )


def _period(filters: Filters) -> Iterable[ColumnElement[bool]]:
    if filters.opened_from is not None:
        yield tickets.c.opened_at >= filters.opened_from
    if filters.opened_to is not None:
        yield tickets.c.opened_at < filters.opened_to


def _facets(filters: Filters, sites: Collection[str]) -> Facets:
    """Return what the index knows of the filters; what it has is a second old."""
    wanted_sites = {*sites, NOBODY} if sites else set()
    if filters.site is not None:
        wanted_sites = {filters.site}
    return Facets(
        sites=wanted_sites,
        states=filters.states if set(filters.states) != set(State) else (),
        priorities=filters.priorities,
        media=(filters.medium,) if filters.medium else (),
        categories=(filters.category,) if filters.category else (),
        teams=(filters.team,) if filters.team else (),
        assignees=() if filters.assignee is None else (filters.assignee,),
        months=_months(filters.opened_from, filters.opened_to),
        vip=filters.vip,
    )


def _months(start: datetime | None, end: datetime | None) -> list[str]:
    """Return the months of a period that is bounded and not too long; else it is not asked."""
    if start is None or end is None or not timedelta() <= end - start < timedelta(days=900):
        return []
    days = range((end - start).days + 2)
    return sorted({month(min(start + timedelta(days=day), end)) for day in days})[:_MOST_MONTHS]


async def _by_key(
    connection: AsyncConnection,
    conditions: Sequence[ColumnElement[bool]],
    sort: Sort,
    after: Sequence[Any],
    limit: int,
) -> list[Any]:
    """Return sort keys, of which the last is the ticket's id."""
    keys = _KEYS[sort]
    falls = sort in _FALLING
    query: Select[Any] = select(*(key.label(f"k{place}") for place, key in enumerate(keys)))
    query = query.select_from(_FROM.get(sort, tickets)).where(*conditions)
    if after:
        if [type(each) for each in after] != list(_KINDS[sort]):
            raise PermanentFailure("the cursor is none of ours")
        query = query.where(_beyond(keys, after, falls=falls))
    order = [key.desc() if falls else key for key in keys]
    return list((await connection.execute(query.order_by(*order).limit(limit))).all())


def _beyond(
    keys: Sequence[ColumnElement[Any]], after: Sequence[Any], *, falls: bool
) -> ColumnElement[bool]:
    """Return what holds for rows after the one with these keys."""
    key, value = keys[0], after[0]
    further: ColumnElement[bool] = key < value if falls else key > value
    if len(keys) == 1:
        return further
    return or_(further, and_(key == value, _beyond(keys[1:], after[1:], falls=falls)))


async def _count(
    connection: AsyncConnection, conditions: Sequence[ColumnElement[bool]], found: int, limit: int
) -> int:
    if found <= limit:
        return found
    some = select(tickets.c.id).where(*conditions).limit(MOST_COUNTED + 1).subquery()
    return int((await connection.execute(select(func.count()).select_from(some))).scalar_one())


async def _by_index(
    connection: AsyncConnection,
    wanted: Wanted,
    conditions: Sequence[ColumnElement[bool]],
    after: Sequence[Any],
    limit: int,
) -> tuple[list[int], int | None]:
    """Return one ticket more than a page has, the newest first, and how many there are."""
    if wanted.is_empty:  # all tickets, whatever they are
        rows = await _by_key(connection, conditions, Sort.NEWEST, after, limit + 1)
        count = None if after else await _count(connection, conditions, len(rows), limit)
        return [row[-1] for row in rows], count
    before = _id(after)
    found: list[int] = []
    some = await candidates(connection, wanted, before=before, most=MOST_COUNTED + 1)
    count = None if after else len(some)
    whole = len(some) <= MOST_COUNTED
    for _ in range(_ROUNDS):
        while some and len(found) <= limit:
            batch, some = some[: limit + 10], some[limit + 10 :]
            found += await _fitting(connection, batch, wanted.query, conditions)
            before = batch[-1]
        if whole or len(found) > limit:
            break
        some = await candidates(connection, wanted, before=before, most=_MORE)
        whole = len(some) < _MORE
    if whole and len(found) <= limit and count is not None:
        count = len(found)
    return found[: limit + 1], count


async def _fitting(
    connection: AsyncConnection,
    ids: Sequence[int],
    query: Query,
    conditions: Sequence[ColumnElement[bool]],
) -> list[int]:
    """Return which of the candidates are what is asked for, as they are now."""
    are_so = select(tickets.c.id).where(tickets.c.id.in_(ids), *conditions)
    kept = set((await connection.execute(are_so)).scalars())
    if kept and not query.is_exact:
        rows = await connection.execute(_BODIES, {"tickets": sorted(kept)})
        kept = {row.ticket_id for row in rows if query.fits(row.body)}
    return [each for each in ids if each in kept]


async def _listed(
    connection: AsyncConnection, ids: Sequence[int], query: Query
) -> tuple[Listed, ...]:
    if not ids:
        return ()
    asked = {"tickets": list(ids)}
    shown = await tickets_of(connection, ids)
    due: dict[int, NextDue] = {}
    for row in (await connection.execute(_CLOCKS, asked)).all():  # the earliest comes last
        if row.state != ClockState.RUNNING.value:
            continue
        due[row.ticket_id] = NextDue(
            metric=Metric(row.metric), at=row.due_at, goal=timedelta(seconds=row.goal_s)
        )
    newest: dict[int, NewestContact] = {}
    for said in (await connection.execute(_CONTACTS, asked)).all():
        newest[said.ticket_id] = NewestContact(
            medium=Medium(said.medium), direction=Direction(said.direction), at=said.received_at
        )
    places: dict[int, str] = {}
    if query.needles:
        for text in (await connection.execute(_BODIES, asked)).all():
            places[text.ticket_id] = _place(query, shown[text.ticket_id], text.body)
    return tuple(
        Listed(
            ticket=shown[each],
            due=due.get(each),
            newest=newest.get(each),
            found=places.get(each, ""),
        )
        for each in ids
    )


def _place(query: Query, ticket: TicketView, body: str) -> str:
    """Return where the words are, unless what the list shows of a ticket has them all."""
    shown = {ticket.number, ticket.title, ticket.requester, ticket.caller}
    if query.fits("\n".join(shown)):
        return ""
    lines = (line for line in body.split("\n") if line not in shown)
    return next(filter(None, map(query.snippet, lines)), "")


# Cursors: the sort keys of the last row; an instant is microseconds since 1970.


def _cursor(keys: Sequence[Any]) -> str:
    plain = [
        {"at": (key - _EPOCH) // timedelta(microseconds=1)} if isinstance(key, datetime) else key
        for key in keys
    ]
    return base64.urlsafe_b64encode(json.dumps(plain).encode()).decode()


def _read_cursor(cursor: str) -> list[Any]:
    if not cursor:
        return []
    try:
        plain = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        keys = [
            _EPOCH + timedelta(microseconds=int(key["at"])) if isinstance(key, dict) else key
            for key in plain
        ]
    except (ValueError, OverflowError, KeyError, TypeError, binascii.Error) as error:
        raise PermanentFailure("the cursor is none of ours") from error
    if not all(isinstance(key, int | str | datetime) for key in keys) or not keys:
        raise PermanentFailure("the cursor is none of ours")
    _id(keys)
    return keys


def _id(keys: Sequence[Any]) -> int:
    """Return the id at the end of a cursor; without one, larger than any."""
    last = keys[-1] if keys else 2**63 - 1
    if not isinstance(last, int) or not 0 <= last < 2**63:
        raise PermanentFailure("the cursor is none of ours")
    return last
