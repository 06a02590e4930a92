"""The ticket list's queries on both databases: every filter and order is what a scan would say."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.dialects import postgresql, sqlite

from contactd.errors import NotFound, PermanentFailure
from contactd.signals import Signals
from contactd.store import lists, search
from contactd.store.engine import Database
from contactd.store.lists import (
    LONGEST_FILTER,
    MOST_FILTERS,
    SOON,
    Due,
    Filters,
    ListPage,
    Lists,
    Sort,
)
from contactd.store.schema import clocks, contacts, people, sites, tickets
from contactd.store.search import SearchIndex
from contactd.tickets.contact import Medium
from contactd.tickets.priority import Priority
from contactd.tickets.states import OPEN, State
from tests.fakes.clock import FakeClock

AT = datetime(2026, 11, 20, 2, tzinfo=UTC)  # the fake clock's now
COUNT = 130


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A ticket as it was stored."""

    id: int
    state: State
    priority: Priority
    site: str
    team: str
    category: str
    assignee: str
    vip: bool
    media: frozenset[Medium]
    opened: datetime
    spoken: datetime
    due: datetime | None  # of a clock that runs
    breached: bool
    title: str


def made(pen: random.Random, number: int) -> Known:
    state = pen.choice(list(State))
    runs = state in OPEN and pen.random() < 0.6
    return Known(
        id=number,
        state=state,
        priority=pen.choice(list(Priority)),
        site=pen.choice(("gz", "sz", "")),
        team=pen.choice(("field", "")),
        category=pen.choice(("network", "hardware", "")),
        assignee=pen.choice(("wang", "li", "")),
        vip=pen.random() < 0.2,
        media=frozenset(pen.sample(list(Medium), pen.randint(1, 2))),
        opened=AT - timedelta(hours=pen.randrange(2_000)),
        spoken=AT - timedelta(minutes=pen.randrange(3)),  # many at the same instant
        due=AT + timedelta(minutes=pen.randrange(-100, 200)) if runs else None,
        breached=pen.random() < 0.2,
        title=pen.choice(("打印机卡纸", "网络很慢", "打印很慢")),
    )


async def store(database: Database, known: Sequence[Known]) -> None:
    async with database.writing() as connection:
        for key in ("gz", "sz"):
            names = {"key": key, "name_zh": key, "name_en": key, "queue": key}
            await connection.execute(insert(sites), {**names, "zone": "UTC", "floor": "8000"})
        rows: list[dict[str, Any]] = [
            {"key": key, "name": key or "", "role": role, "vip": vip, "created_at": AT}
            for key, role, vip in (
                ("wang", "engineer", False), ("li", "engineer", False),
                (None, "requester", False), (None, "requester", True),
            )
        ]  # fmt: skip
        await connection.execute(insert(people), rows)
        ids = (await connection.execute(select(people.c.id).order_by(people.c.id))).scalars().all()
        for each in known:
            await connection.execute(insert(tickets), _row(each, ids))
            for medium in each.media:
                await connection.execute(insert(contacts), _contact(each, medium, ids[2]))
            if each.due is not None:
                await connection.execute(insert(clocks), _clock(each, "resolution", each.due))
            if each.breached:
                row = {**_clock(each, "answer", None), "state": "stopped", "breached_at": AT}
                await connection.execute(insert(clocks), row)
        if connection.dialect.name == "postgresql":
            await connection.execute(text("ANALYZE"))


def _row(each: Known, persons: Sequence[int]) -> dict[str, Any]:
    return {
        "id": each.id, "number": f"{each.id:011}", "requester_id": persons[3 if each.vip else 2],
        "site": each.site or None, "state": each.state.value, "impact": 3, "urgency": 2,
        "priority": each.priority.value, "priority_reason": "", "title": each.title,
        "assignee_id": {"wang": persons[0], "li": persons[1], "": None}[each.assignee],
        "opened_at": each.opened, "last_contact_at": each.spoken, "updated_at": AT,
        "category": each.category, "team": each.team,
    }  # fmt: skip


def _contact(each: Known, medium: Medium, person: int) -> dict[str, Any]:
    return {
        "ticket_id": each.id, "person_id": person, "medium": medium.value,
        "external_id": f"{each.id}-{medium}", "direction": "in", "source": "live",
        "received_at": each.spoken, "outcome": "received", "filed_at": AT,
    }  # fmt: skip


def _clock(each: Known, metric: str, due: datetime | None) -> dict[str, Any]:
    return {
        "ticket_id": each.id, "metric": metric, "entry": 1, "state": "running", "goal_s": 3600,
        "started_at": each.opened, "due_at": due, "provisional": False, "segments": [],
    }  # fmt: skip


def naive(known: Sequence[Known], filters: Filters, seen: frozenset[str]) -> list[Known]:
    """Say which tickets are wanted, one by one."""

    def is_due(each: Known) -> bool:
        if filters.due is Due.SOON:
            return each.due is not None and AT <= each.due < AT + SOON
        return each.breached or (each.due is not None and each.due < AT)

    def is_wanted(each: Known) -> bool:
        return all(
            (
                not filters.states or each.state in filters.states,
                filters.site is None or each.site == filters.site,
                not seen or each.site in {*seen, ""},
                not filters.priorities or each.priority in filters.priorities,
                filters.assignee is None or each.assignee == filters.assignee,
                not filters.team or each.team == filters.team,
                not filters.category or each.category == filters.category,
                filters.medium is None or filters.medium in each.media,
                not filters.vip or each.vip,
                filters.due is None or is_due(each),
                filters.opened_from is None or each.opened >= filters.opened_from,
                filters.opened_to is None or each.opened < filters.opened_to,
                all(word in each.title for word in filters.words.split()),
            )
        )

    return [each for each in known if is_wanted(each)]


NEVER = datetime(9999, 1, 1, tzinfo=UTC)
ORDERS: dict[Sort, Any] = {
    Sort.DUE: lambda each: (each.due or NEVER, each.id),
    Sort.PRIORITY: lambda each: (each.priority, each.opened, each.id),
    Sort.WAITING: lambda each: (each.spoken, each.id),
    Sort.NEWEST: lambda each: -each.id,
}


def wish(pen: random.Random) -> Filters:
    """Return some filters, of which each is set now and then."""

    def maybe(value: Any, otherwise: Any) -> Any:
        return value if pen.random() < 0.25 else otherwise

    return Filters(
        words=maybe(pen.choice(("打印", "打印 很慢", "打印机卡", "没有")), ""),
        states=pen.choice((OPEN, OPEN, frozenset(), {State.CLOSED}, {State.NEW, State.PENDING})),
        site=maybe(pen.choice(("gz", "sz", "")), None),
        priorities=maybe((pen.choice(list(Priority)),), ()),
        assignee=maybe(pen.choice(("wang", "")), None),
        team=maybe("field", ""),
        medium=maybe(pen.choice(list(Medium)), None),
        due=maybe(pen.choice(list(Due)), None),
        vip=maybe(True, False),
        category=maybe("network", ""),
        opened_from=maybe(AT - timedelta(hours=1_500), None),
        opened_to=maybe(AT - timedelta(hours=200), None),
    )


@pytest.mark.parametrize("seed", range(3))
async def test_every_list_is_what_a_scan_of_all_tickets_says(
    database: Database, clock: FakeClock, seed: int
) -> None:
    pen = random.Random(seed)
    known = [made(pen, number + 1) for number in range(COUNT)]
    await store(database, known)
    await SearchIndex(database, clock, Signals()).catch_up()
    ours = Lists(database, clock)
    for _ in range(60):
        filters, sort = wish(pen), pen.choice(list(Sort))
        seen = pen.choice((frozenset[str](), frozenset({"sz"})))
        found = await all_of(ours, filters, seen, sort, limit=pen.choice((7, 50)))
        by_key = filters.is_open and not filters.words
        order = ORDERS[sort if by_key else Sort.NEWEST]
        expected = sorted(naive(known, filters, seen), key=order)
        assert found == [f"{each.id:011}" for each in expected], (filters, sort, seen)


async def all_of(
    ours: Lists, filters: Filters, seen: frozenset[str], sort: Sort, limit: int
) -> list[str]:
    """Read a list page by page; its count must be how many there are."""
    found: list[str] = []
    cursor, count = "", None
    while True:
        page = await ours.page(filters, sites=seen, sort=sort, cursor=cursor, limit=limit)
        assert len(page.items) <= limit
        count = page.count if not cursor else count
        found += [each.ticket.number for each in page.items]
        cursor = page.next_cursor
        if not cursor:
            break
    assert count is not None
    assert count >= len(found)
    if len(found) <= limit:
        assert count == len(found)
    return found


async def test_what_changed_since_it_was_indexed_is_not_listed_as_it_was(
    database: Database, clock: FakeClock
) -> None:
    pen = random.Random(1)
    known = [
        replace(made(pen, number), state=State.NEW, title="网络很慢") for number in range(1, 4)
    ]
    await store(database, known)
    await SearchIndex(database, clock, Signals()).catch_up()
    async with database.writing() as connection:
        await connection.execute(text("UPDATE tickets SET state = 'closed' WHERE id = 2"))
    ours = Lists(database, clock)
    for filters in (
        Filters(states={State.NEW}),
        Filters(states={State.NEW, State.CANCELLED}),  # these two ask the index, which says new
        Filters(states={State.NEW}, words="很慢"),
    ):
        assert 2 not in numbers(await ours.page(filters)), filters
    assert numbers(await ours.page(Filters(states={State.NEW, State.CANCELLED}))) == [3, 1]


async def test_a_line_has_the_promise_that_comes_first_and_the_newest_contact(
    database: Database, clock: FakeClock
) -> None:
    known = replace(made(random.Random(3), 1), state=State.NEW, due=AT + timedelta(minutes=90))
    await store(database, [known])
    async with database.writing() as connection:
        sooner = _clock(known, "first_update", AT + timedelta(minutes=5))
        await connection.execute(insert(clocks), sooner)
        (person,) = (await connection.execute(select(people.c.id).limit(1))).scalars()
        last = {**_contact(known, Medium.REMOTE, person), "external_id": "last"}
        await connection.execute(insert(contacts), {**last, "received_at": AT})
    (line,) = (await Lists(database, clock).page(Filters())).items
    assert line.due is not None
    assert (line.due.metric, line.due.at) == ("first_update", AT + timedelta(minutes=5))
    assert line.newest is not None
    assert line.newest.medium is Medium.REMOTE


async def test_counts_end_at_a_bound(
    database: Database, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "MOST_COUNTED", 20)
    pen = random.Random(4)
    await store(database, [replace(made(pen, n + 1), state=State.NEW) for n in range(40)])
    await SearchIndex(database, clock, Signals()).catch_up()
    ours = Lists(database, clock)
    for filters in (Filters(), Filters(states=()), Filters(words="很慢")):
        page = await ours.page(filters, limit=10)
        assert page.count is not None
        assert 10 < page.count <= 21


async def test_of_common_words_only_the_newest_tickets_are_looked_through(
    database: Database, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "BUCKET_BITS", 2)  # 4 tickets
    pen = random.Random(5)
    known = [replace(made(pen, n + 1), title="打印机") for n in range(COUNT)]
    known[2] = replace(known[2], title="投影仪")
    await store(database, known)
    await SearchIndex(database, clock, Signals()).catch_up()
    ours = Lists(database, clock)
    everything = Filters(states=(), words="打印")
    found = await all_of(ours, everything, frozenset(), Sort.NEWEST, limit=9)
    assert found == [f"{n:011}" for n in range(COUNT, 0, -1) if n != 3]
    assert numbers(await ours.page(Filters(states=(), words="投影仪"))) == [3]


async def test_indexes_serve_what_is_asked_all_the_time(
    database: Database, clock: FakeClock
) -> None:
    pen = random.Random(6)
    await store(database, [made(pen, n + 1) for n in range(COUNT)])
    ours = Lists(database, clock)
    is_open = select(tickets.c.id).where(*ours._conditions(Filters(), ()))
    assert "ix_tickets_state_priority" in await plan(database, is_open)
    changed = search._CHANGED.limit(None).params(at=AT, last=1)
    assert "ix_tickets_updated_at" in await plan(database, changed)


async def test_what_stands_around_the_list_is_told_again_for_a_moment(
    database: Database, clock: FakeClock
) -> None:
    pen = random.Random(8)
    now, soon = Lists(database, clock), Lists(database, clock, remember_s=60)
    assert (await now.tally()).open == (await soon.tally()).open == 0
    await store(database, [made(pen, n + 1) for n in range(COUNT)])
    counted = await now.tally()
    assert counted.open > 0
    assert (await soon.tally()).open == 0
    assert (await soon.tally(sites={"gz"})) == await now.tally(sites={"gz"})  # another question


async def test_on_sqlite_a_few_tickets_are_not_looked_for_among_all(
    database: Database, clock: FakeClock
) -> None:
    if database.dialect != "sqlite":  # PostgreSQL has statistics of what is there
        return
    ours = Lists(database, clock)
    closed = Filters(states=frozenset({State.CLOSED}), site="gz")
    some = select(tickets.c.id).where(tickets.c.id.in_([1, 2]), *ours._conditions(closed, ()))
    assert "ix_tickets_state_priority" not in await plan(database, some)
    soon = select(tickets.c.id).where(*ours._conditions(Filters(due=Due.SOON), ()))
    by_due = select(*lists._KEYS[Sort.DUE]).select_from(lists._FROM[Sort.DUE])
    for each in (soon, by_due.where(*ours._conditions(Filters(), ()))):
        assert "CORRELATED" not in await plan(database, each)


async def plan(database: Database, statement: Any) -> str:
    """Return how a database would answer if its tables were large."""
    dialect = {"sqlite": sqlite.dialect, "postgresql": postgresql.dialect}[database.dialect]()
    told = statement.compile(dialect=dialect, compile_kwargs={"literal_binds": True})
    async with database.writing() as connection:
        if database.dialect == "postgresql":
            await connection.execute(text("SET LOCAL enable_seqscan = off"))
            rows = await connection.exec_driver_sql(f"EXPLAIN {told}")
        else:
            rows = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {told}")
        return str(rows.all())


async def test_filters_are_bounded_and_refused_when_they_are_none(
    database: Database, clock: FakeClock
) -> None:
    ours = Lists(database, clock)
    for name, query in (("", ""), ("x" * 61, ""), ("a\u200bb", ""), ("x", "q" * 1_001)):
        with pytest.raises(PermanentFailure):
            await ours.save_filter("user:li", name, query, shared=False)
    assert LONGEST_FILTER == 1_000
    for number in range(MOST_FILTERS):
        await ours.save_filter("user:li", f"f{number}", "", shared=False)
    with pytest.raises(PermanentFailure):
        await ours.save_filter("user:li", "one more", "", shared=False)
    await ours.save_filter("user:li", "f0", "vip=1", shared=True)  # one that is there
    await ours.save_filter("user:wang", "f0", "", shared=False)
    assert len(await ours.filters("user:wang")) == 2


async def test_a_filter_that_is_dropped_is_nobodys_default(
    database: Database, clock: FakeClock
) -> None:
    ours = Lists(database, clock)
    number = await ours.save_filter("user:li", "P1", "priority=P1", shared=True)
    for who in ("user:li", "user:wang"):
        await ours.set_default(who, number)
        assert [each.is_default for each in await ours.filters(who)] == [True]
    with pytest.raises(NotFound):
        await ours.drop_filter("user:wang", number)
    await ours.drop_filter("user:li", number)
    assert await ours.filters("user:wang") == ()
    with pytest.raises(NotFound):
        await ours.set_default("user:wang", number)


def numbers(page: ListPage) -> list[int]:
    return [int(each.ticket.number) for each in page.items]
