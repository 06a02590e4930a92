"""What the status page counts, on both databases."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import pytest
from sqlalchemy import insert, text, update

from contactd.board import COUNTED_EVERY, DeskBoard
from contactd.errors import TemporaryFailure
from contactd.routing.clocks import Metric
from contactd.routing.deskfile import parse
from contactd.routing.oncall import Duties
from contactd.store import schema
from contactd.store.boardviews import (
    Age,
    Attained,
    BoardViews,
    IntakeCount,
    Marks,
    OpenCount,
    QueueDay,
    StateCount,
)
from contactd.store.desk import load_desk
from contactd.store.engine import Database
from contactd.store.views import Views
from contactd.tickets.contact import CallFacts, Contact, Filed, Medium, Outcome
from contactd.tickets.priority import Priority
from contactd.tickets.service import TicketService
from contactd.tickets.states import Action, State
from tests.fakes.clock import FakeClock
from tests.fakes.waiting import WITHIN_S, until
from tests.wire.test_views import DESK, START, ZONE

NOW = datetime(2026, 11, 20, 4, tzinfo=UTC)  # a Friday, 12:00 in Shanghai


@pytest.fixture
async def views(database: Database, clock: FakeClock) -> BoardViews:
    await load_desk(database, parse(DESK), clock)
    return BoardViews(database, ZONE)


async def said(tickets: TicketService, at: datetime, **more: Any) -> Filed:
    values: dict[str, Any] = {
        "medium": Medium.CALL, "external_id": uuid4().hex, "received_at": at,
        "from_value": "13900000001", "to_value": "4008001234",
    }  # fmt: skip
    return await tickets.receive(Contact(**values | more))


async def clocked(
    database: Database, filed: Filed, metric: Metric, due: float, **more: Any
) -> None:
    """Give the ticket a clock that is due so many minutes after `NOW`."""
    row: dict[str, Any] = {
        "ticket_id": filed.ticket_id, "metric": metric.value, "entry": 1, "state": "running",
        "goal_s": 1800, "started_at": START, "due_at": NOW + timedelta(minutes=due),
        "provisional": False, "segments": [], "stopped_at": None, "breached_at": None,
    }  # fmt: skip
    async with database.writing() as connection:
        await connection.execute(insert(schema.clocks), row | more)
        await connection.commit()


async def test_what_breaches_next_comes_after_what_is_broken(
    views: BoardViews, tickets: TicketService, database: Database
) -> None:
    theirs = await said(tickets, START)
    nobodys = await said(tickets, START + timedelta(minutes=1), from_value="075588880000")
    await tickets.take(theirs.ticket_id, "wang", how="page")
    await clocked(database, theirs, Metric.ARRIVAL, 90)
    await clocked(database, theirs, Metric.OFFER, -3)
    await clocked(database, nobodys, Metric.ANSWER, 0)  # due this very moment: still to be kept
    await clocked(database, nobodys, Metric.RESOLUTION, -200)
    await clocked(database, nobodys, Metric.REMOTE, -500, state="paused")
    await clocked(database, theirs, Metric.FIRST_UPDATE, -500, state="stopped")
    look = await views.look(NOW)

    found = [(risk.ticket, risk.metric, risk.engineer) for risk in look.risks]
    assert found == [
        (nobodys.ticket, Metric.RESOLUTION, ""),
        (theirs.ticket, Metric.OFFER, "王伟"),
        (nobodys.ticket, Metric.ANSWER, ""),
        (theirs.ticket, Metric.ARRIVAL, "王伟"),
    ]
    assert look.risks[0].due_at == NOW - timedelta(minutes=200)
    assert (look.risks[1].site, look.risks[1].priority) == ("sz", Priority.P3)
    by_site = {each.site: each.count for each in look.breached}
    assert by_site == {"sz": 1, look.risks[0].site: 1}


async def test_open_tickets_are_counted_by_site_priority_and_age(
    views: BoardViews, tickets: TicketService, database: Database
) -> None:
    for days, state in ((0, "new"), (0.2, "pending"), (2, "new"), (5, "resolved"), (40, "new")):
        filed = await said(tickets, START - timedelta(days=days), from_value=f"1380000{days:04}")
        async with database.writing() as connection:
            changed = {"state": state, "opened_at": NOW - timedelta(days=days), "site": "gz"}
            mine = schema.tickets.c.id == filed.ticket_id
            await connection.execute(update(schema.tickets).where(mine).values(changed))
            await connection.commit()
    done = await said(tickets, START, from_value="8011")
    await tickets.act(done.ticket, Action.CANCEL, actor="user:li", note="no")
    look = await views.look(NOW)
    assert sorted(look.open, key=lambda each: each.age) == [
        OpenCount(site="gz", priority=Priority.P3, age=age, count=1) for age in Age
    ]
    assert {each.state for each in look.counts} >= {State.NEW, State.CANCELLED}
    assert (
        StateCount(site="sz", state=State.CANCELLED, priority=Priority.P3, count=1) in look.counts
    )


async def test_contacts_are_counted_by_the_hours_of_the_local_day(
    views: BoardViews, tickets: TicketService
) -> None:
    midnight = datetime(2026, 11, 19, 16, tzinfo=UTC)
    for at, medium in (
        (midnight, Medium.CALL),
        (midnight + timedelta(minutes=59, seconds=59), Medium.CALL),
        (midnight + timedelta(minutes=60), Medium.CALL),
        (midnight - timedelta(seconds=1), Medium.CALL),  # yesterday
        (midnight + timedelta(hours=10), Medium.TEXT),
    ):
        await said(tickets, at, medium=medium)
    look = await views.look(NOW)
    assert sorted(look.intake, key=lambda each: (each.medium, each.hour)) == [
        IntakeCount(site="sz", medium=Medium.CALL, hour=0, count=2),
        IntakeCount(site="sz", medium=Medium.CALL, hour=1, count=1),
        IntakeCount(site="sz", medium=Medium.TEXT, hour=10, count=1),
    ]


async def test_usual_is_the_average_of_the_same_weekday_of_four_weeks(
    views: BoardViews, tickets: TicketService
) -> None:
    for weeks in (1, 1, 4):  # nothing came two and three weeks ago; five are too long ago
        await said(tickets, START - timedelta(weeks=weeks))
    await said(tickets, START - timedelta(weeks=5))
    await said(tickets, START - timedelta(days=6))
    assert await views.usual(date(2026, 11, 20)) == (
        IntakeCount(site="sz", medium=Medium.CALL, hour=10, count=3 / 4),
    )


async def test_waits_of_today_are_averaged_by_queue(
    views: BoardViews, tickets: TicketService
) -> None:
    waits = [("gz", float(s)) for s in range(1, 11)] + [("sz", None), ("", 99.0)]
    for number, (queue, waited) in enumerate(waits):
        facts = CallFacts(
            pbx="pbx1", did="4008001234", queue=queue, final=True,
            waited=None if waited is None else timedelta(seconds=waited),
        )  # fmt: skip
        gave_up = number in (0, 1, 11)
        await said(
            tickets, START + timedelta(seconds=number), external_id=f"q{number}", call=facts,
            outcome=Outcome.ABANDONED_QUEUE if gave_up else Outcome.ANSWERED,
        )  # fmt: skip
    assert (await views.figures(NOW)).queues == (
        QueueDay(queue="gz", calls=10, abandoned=2, average=timedelta(seconds=5.5),
                 p90=timedelta(seconds=9)),
        QueueDay(queue="sz", calls=1, abandoned=0, average=None, p90=None),
    )  # fmt: skip


async def test_promises_of_this_month_are_kept_or_broken_but_never_both(
    views: BoardViews, tickets: TicketService, database: Database
) -> None:
    filed = await said(tickets, START)
    month = datetime(2026, 10, 31, 16, tzinfo=UTC)
    before = month - timedelta(seconds=1)
    rows: Sequence[tuple[str, datetime | None, datetime | None]] = (
        ("stopped", month, None),  # kept
        ("stopped", NOW, None),  # kept
        ("stopped", NOW - timedelta(days=1), None),  # kept
        ("stopped", before, None),  # last month's
        ("stopped", NOW, month),  # done, but late
        ("running", None, NOW - timedelta(days=1)),  # not even done
        ("stopped", NOW, before),  # broken last month, done in this
        ("cancelled", NOW, None),  # nobody wanted it any more
        ("running", None, None),
    )
    for entry, (state, stopped, breached) in enumerate(rows, start=1):
        await clocked(
            database, filed, Metric.ANSWER, 0, entry=entry, state=state, stopped_at=stopped,
            breached_at=breached,
        )  # fmt: skip
    assert (await views.figures(NOW)).attained == (
        Attained(site="sz", metric=Metric.ANSWER, kept=3, missed=2),
    )


async def test_the_last_mark_of_a_ticket_counts(
    views: BoardViews, tickets: TicketService, clock: FakeClock
) -> None:
    for number, marks in enumerate(((5,), (2, 4), (3,))):
        filed = await said(tickets, START + timedelta(minutes=number), external_id=f"m{number}",
                           from_value=f"1380000000{number}")  # fmt: skip
        await tickets.act(filed.ticket, Action.ACKNOWLEDGE, actor="user:li")
        await tickets.act(filed.ticket, Action.RESOLVE, actor="user:li", note="done")
        await tickets.act(filed.ticket, Action.CLOSE, actor="user:li")
        for mark in marks:
            clock.advance(timedelta(seconds=1))
            await tickets.rate(filed.ticket, mark, actor="requester", how="text", contact="")
    found = (await views.figures(NOW)).marks
    assert (sum(each.satisfied for each in found), sum(each.marks for each in found)) == (2, 3)
    assert all(isinstance(each, Marks) for each in found)


async def test_the_slow_figures_lean_on_their_indexes(
    views: BoardViews, database: Database
) -> None:
    """Otherwise a month of a million tickets is read row by row."""
    sql = (
        ("ix_clocks_stopped_at", "clocks", "stopped_at >= '2026-11-01'"),
        ("ix_clocks_breached_at", "clocks", "breached_at >= '2026-11-01'"),
        ("ix_journal_rated", "journal", "action = 'rated' AND at >= '2026-11-01'"),
        ("ix_clocks_state_due_at", "clocks", "state = 'running' AND due_at < '2026-11-01'"),
    )
    explain = {"sqlite": "EXPLAIN QUERY PLAN", "postgresql": "EXPLAIN"}[database.dialect]
    async with database.reading() as connection:
        if database.dialect == "postgresql":
            await connection.execute(text("SET enable_seqscan = off"))
        for index, table, where in sql:
            asked = f"{explain} SELECT * FROM {table} WHERE {where}"
            rows = (await connection.execute(text(asked))).all()
            assert index in " ".join(str(row) for row in rows)


# The board

NO_PBX = SimpleNamespace(pbxs={})


class CountingViews:
    """BoardViews, counted; `down`: the database is away for the slow figures."""

    def __init__(self, views: BoardViews) -> None:
        self._views = views
        self.look = views.look
        self.figured = self.usual_asked = 0
        self.down = False

    async def figures(self, now: datetime) -> Any:
        self.figured += 1
        if self.down:
            raise TemporaryFailure("the database does not answer")
        return await self._views.figures(now)

    async def usual(self, day: date) -> Any:
        self.usual_asked += 1
        return await self._views.usual(day)


@pytest.fixture
def counting(views: BoardViews) -> CountingViews:
    return CountingViews(views)


@pytest.fixture
def board(database: Database, clock: FakeClock, counting: Any) -> DeskBoard:
    async def duties() -> Duties:
        return Duties()

    clock.advance(NOW - clock.now())
    return DeskBoard(
        views=Views(database, clock), counts=counting, duties=duties, clock=clock, zone=ZONE,
        telephony=cast(Any, NO_PBX),
    )  # fmt: skip


async def test_a_month_is_counted_once_a_minute_and_beside_the_snapshots(
    board: DeskBoard, counting: CountingViews, clock: FakeClock
) -> None:
    async with board.running():
        for _ in range(20):
            await board.snapshot()
        assert (counting.figured, counting.usual_asked) == (1, 1)
        clock.advance(COUNTED_EVERY)
        await board.snapshot()
        await until(lambda: counting.figured == 2)
        clock.advance(timedelta(days=1))
        await board.snapshot()
        await until(lambda: counting.usual_asked == 2)


async def test_a_page_does_not_wait_for_a_count_that_takes_long(
    board: DeskBoard, counting: CountingViews, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_end = asyncio.Event()
    figures = counting.figures

    async def slow(now: datetime) -> Any:
        await may_end.wait()
        return await figures(now)

    monkeypatch.setattr(counting, "figures", slow)
    async with board.running():
        async with asyncio.timeout(WITHIN_S):
            assert (await board.snapshot()).figures is None
        may_end.set()
        await until(lambda: counting.figured == 1)
        await until(lambda: board._counted is not None)
        assert (await board.snapshot()).figures is not None


async def test_a_failure_to_count_keeps_what_was_counted_and_the_next_minute_tries_again(
    board: DeskBoard, counting: CountingViews, clock: FakeClock, tickets: TicketService
) -> None:
    await said(tickets, START)
    async with board.running():
        first = await board.snapshot()
        counting.down = True
        clock.advance(COUNTED_EVERY)
        await board.snapshot()
        await until(lambda: counting.figured == 2)
        again = await board.snapshot()
        assert again.figures == first.figures
        counting.down = False
        await until(lambda: counting.figured == 3)
    assert replace(again, at=first.at).tickets.counts == first.tickets.counts
