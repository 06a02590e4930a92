"""Contracts, calendars and public holidays in both databases: versions, imports, the alarm."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from sqlalchemy import delete, select

from contactd.errors import ConfigurationError, PermanentFailure, TemporaryFailure
from contactd.routing import promises, terms
from contactd.routing.calendars import ALWAYS, read_calendar_data
from contactd.routing.clocks import Metric
from contactd.routing.deskfile import DeskFile, parse
from contactd.routing.terms import Terms
from contactd.service import HealthState
from contactd.store import holidays
from contactd.store import terms as stored
from contactd.store.desk import load_desk
from contactd.store.engine import Database
from contactd.store.holidays import CalendarWatch, Deadline, Import, health_of
from contactd.store.schema import outbox, sites
from contactd.store.terms import LastTerms
from contactd.store.views import TicketDetail, Views
from contactd.tickets.contact import Contact, Medium
from contactd.tickets.journal import verify
from contactd.tickets.service import TicketService
from contactd.tickets.states import Action
from tests.fakes.clock import FakeClock

SAMPLE = (Path(__file__).parents[2] / "etc" / "calendars" / "cn.toml").read_text()
# Friday noon in Shanghai; the notice for 2027 is still to come.
FRIDAY = datetime(2026, 12, 25, 4, tzinfo=UTC)
NOTICE = """
confirmed_through = 2027-12-31
[[year]]
year = 2027
sources = ["https://example.com/2027"]
holidays = [{ name = "元旦", first = 2027-01-01, last = 2027-01-03 }]
working = [2026-12-26]
"""
QUIET = """
confirmed_through = 2027-12-31
[[year]]
year = 2027
sources = ["https://example.com/2027"]
holidays = [{ name = "国庆节", first = 2027-10-01 }]
working = []
"""
ANSWER, REMOTE = timedelta(minutes=30), timedelta(hours=2)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(FRIDAY)


def desk(
    *,
    hours: str = "09:00-18:00",
    goal: str = "48h",
    contract: str | None = "gold",
    calendar: str | None = "gz-hours",
    **parts: Any,
) -> DeskFile:
    site = {"key": "gz", "name_zh": "广州", "name_en": "Guangzhou", "floor": "8000"}
    site |= {key: value for key, value in (("contract", contract), ("calendar", calendar)) if value}
    days: dict[str, Any] = {"mon-fri": [hours]}
    return parse(
        {
            "sites": [site],
            "people": [{"key": "zhang", "name": "张三", "site": "gz", "numbers": ["13900000011"]}],
            "calendars": [{"key": "gz-hours", "weekly": days, "holidays": "cn"}],
            "contracts": [
                {"key": "gold", "promises": {"all": {"answer": "10m", "resolution": goal}}}
            ],
            "holidays": SAMPLE,
            **parts,
        }
    )


class Office:
    """The database with what the tests ask of it."""

    def __init__(self, database: Database, clock: FakeClock, tickets: TicketService) -> None:
        self.database, self.clock, self.tickets = database, clock, tickets
        self.last = LastTerms(database, answer=ANSWER, remote=REMOTE)

    async def load(self, **parts: Any) -> None:
        await load_desk(self.database, desk(**parts), self.clock)

    async def calls(self, number: str = "13900000011") -> str:
        filed = await self.tickets.receive(
            Contact(
                medium=Medium.CALL,
                external_id=f"pbx1-{self.clock.now().timestamp()}-{number}",
                received_at=self.clock.now(),
                from_value=number,
            )
        )
        return filed.ticket

    async def ticket(self, number: str) -> TicketDetail:
        return await Views(self.database, self.clock).ticket(number)

    async def due(self, number: str, metric: Metric = Metric.RESOLUTION) -> datetime | None:
        found = await self.ticket(number)
        [clock] = [
            each
            for each in promises.clocks(found.journal, await self.last())
            if each.metric is metric
        ]
        return clock.due_at

    async def looks(self) -> list[int]:
        """Return the tickets that are to be looked at, and forget them."""
        async with self.database.writing() as connection:
            rows = await connection.execute(
                select(outbox.c.body).where(outbox.c.kind == "TicketDue").order_by(outbox.c.id)
            )
            found = [row.body["ticket_id"] for row in rows]
            await connection.execute(delete(outbox))
        return found

    async def site(self) -> tuple[str, str]:
        async with self.database.reading() as connection:
            row = (await connection.execute(select(sites.c.contract, sites.c.calendar))).one()
        return row.contract, row.calendar


@pytest.fixture
async def office(database: Database, clock: FakeClock, tickets: TicketService) -> Office:
    return Office(database, clock, tickets)


def told(detail: TicketDetail, action: str) -> list[dict[str, Any]]:
    return [dict(entry.body) for entry in detail.journal if entry.action == action]


# Loading


async def test_a_ticket_is_opened_with_the_versions_that_its_site_has(office: Office) -> None:
    await office.load()
    assert await office.site() == ("gold.1", "gz-hours.1")
    opened = told(await office.ticket(await office.calls()), "opened")[0]
    assert (opened["contract"], opened["calendar"]) == ("gold.1", "gz-hours.1")


async def test_the_same_file_again_changes_nothing(office: Office) -> None:
    await office.load()
    await office.calls()
    await office.looks()
    before = await office.last()
    await office.load()
    assert await office.last() is before
    assert (await office.site(), await office.looks()) == (("gold.1", "gz-hours.1"), [])


async def test_another_contract_is_for_tickets_to_come(office: Office) -> None:
    await office.load()
    first = await office.calls()
    due = await office.due(first)
    await office.load(goal="4h")
    assert await office.site() == ("gold.2", "gz-hours.1")
    assert await office.due(first) == due
    assert told(await office.ticket(first), "contract.changed") == []
    office.clock.advance(timedelta(days=1))
    assert await office.due(await office.calls()) != due


async def test_other_hours_are_for_open_tickets_too_from_then_on(office: Office) -> None:
    await office.load(goal="8h")
    first, closed = await office.calls(), await office.calls("02038880011")
    await office.tickets.act(closed, Action.CANCEL, actor="user:li")
    assert await office.due(first) == datetime(2026, 12, 28, 3, tzinfo=UTC)
    await office.looks()

    office.clock.advance(timedelta(hours=4))  # 16:00
    await office.load(goal="8h", hours="09:00-17:00")
    detail = await office.ticket(first)
    assert told(detail, "calendar.changed") == [{"calendar": "gz-hours.2"}]
    assert verify(detail.journal, last_hash=detail.journal_hash) == ""
    assert len(await office.looks()) == 1
    # Four hours by the old ones, one more this Friday, three on Monday.
    assert await office.due(first) == datetime(2026, 12, 28, 4, tzinfo=UTC)
    assert told(await office.ticket(closed), "calendar.changed") == []


async def test_a_site_without_hours_and_contract_has_what_is_built_in(office: Office) -> None:
    await office.load()
    first = await office.calls()
    await office.load(contract=None, calendar=None)
    assert await office.site() == ("", "")
    assert told(await office.ticket(first), "calendar.changed") == [{"calendar": "always"}]
    office.clock.advance(timedelta(days=1))
    opened = told(await office.ticket(await office.calls()), "opened")[0]
    assert (opened["contract"], opened["calendar"]) == ("standard", "always")
    assert await office.due(await office.calls(), Metric.ANSWER) == office.clock.now() + ANSWER


async def test_a_file_that_was_imported_is_not_undone_by_loading_an_older_one(
    office: Office,
) -> None:
    await office.load()
    await holidays.apply(office.database, NOTICE, await office.last(), office.clock)
    await office.load(goal="4h")
    known = (await office.last()).holidays
    assert known is not None
    assert known.confirmed_through == date(2027, 12, 31)


async def test_a_newer_file_of_the_desk_is_taken_over_and_moves_deadlines(office: Office) -> None:
    await office.load()
    ticket = await office.calls()
    before = await office.due(ticket)
    await office.looks()
    await office.load(holidays=NOTICE)
    assert await office.due(ticket) != before
    assert len(await office.looks()) == 1


async def test_a_contract_that_was_taken_out_can_only_be_asked_for_by_its_version(
    office: Office,
) -> None:
    await office.load()
    ticket = await office.calls()
    await office.load(contract=None, contracts=[])
    for gone in ("gold", "gold.2"):
        with pytest.raises(PermanentFailure, match="no such contract"):
            await office.tickets.set_contract(ticket, gone, actor="user:li")
    await office.tickets.set_contract(ticket, "gold.1", actor="user:li")
    assert told(await office.ticket(ticket), "contract.changed") == [{"contract": "gold.1"}]


# Reading


async def test_terms_are_read_again_only_when_they_have_changed(office: Office) -> None:
    first = await office.last()
    assert first.calendars == {"always": ALWAYS}
    assert await office.last() is first
    await office.load()
    second = await office.last()
    assert second.contracts == {"gold": "gold.1"}
    await holidays.apply(office.database, NOTICE, second, office.clock)
    third = await office.last()
    assert third is not second
    assert third.holidays == read_calendar_data(NOTICE)


async def test_while_the_database_is_away_the_last_terms_count(office: Office) -> None:
    await office.load()
    known = await office.last()
    await office.database.close()
    assert await office.last() is known
    with pytest.raises(TemporaryFailure):
        await LastTerms(office.database, answer=ANSWER, remote=REMOTE)()


# Importing public holidays


def deadlines(found: Import) -> Sequence[tuple[str, datetime | None, datetime | None]]:
    return [(each.after.metric, each.before.at, each.after.at) for each in found.moves]


async def test_a_preview_says_which_deadlines_move_and_stores_nothing(office: Office) -> None:
    await office.load(goal="48h")
    ticket = await office.calls()
    await office.looks()
    known = await office.last()
    found = await holidays.preview(office.database, NOTICE, known)
    # Friday 6 h, then 9 h a day. With the notice a Saturday is worked and the first of January off.
    old, new = datetime(2027, 1, 1, 7, tzinfo=UTC), datetime(2026, 12, 31, 7, tzinfo=UTC)
    assert deadlines(found) == [("resolution", old, new)]
    assert found.moves[0].after.ticket == ticket
    assert (found.moves[0].before.provisional, found.moves[0].after.provisional) == (True, False)
    assert (found.confirmed_through, found.tickets) == (date(2027, 12, 31), 0)
    assert await office.due(ticket) == old
    assert (await office.looks(), await office.last()) == ([], known)


async def test_an_import_moves_them_and_every_open_ticket_is_looked_at(office: Office) -> None:
    await office.load(goal="48h")
    ticket = await office.calls()
    await office.looks()
    found = await holidays.apply(office.database, NOTICE, await office.last(), office.clock)
    assert (len(found.moves), found.tickets) == (1, 1)
    assert await office.due(ticket) == datetime(2026, 12, 31, 7, tzinfo=UTC)
    assert len(await office.looks()) == 1
    again = await holidays.preview(office.database, NOTICE, await office.last())
    assert again.moves == ()


async def test_a_deadline_that_only_becomes_certain_is_a_change_too(office: Office) -> None:
    await office.load(goal="48h")
    await office.calls()
    [move] = (await holidays.preview(office.database, QUIET, await office.last())).moves
    assert move.after == replace(move.before, provisional=False)


async def test_a_wrong_file_is_refused_as_a_whole(office: Office) -> None:
    await office.load()
    known = await office.last()
    with pytest.raises(ConfigurationError, match="confirmed_through: the file has no year"):
        await holidays.apply(
            office.database, NOTICE.replace("= 2027-12-31", "= 2028-12-31"), known, office.clock
        )
    assert await office.last() is known


async def test_the_standing_names_the_deadlines_that_are_not_certain(office: Office) -> None:
    nothing = await holidays.standing(office.database, await office.last())
    assert (nothing.confirmed_through, nothing.imported_at, nothing.provisional) == (None, None, ())
    await office.load(goal="48h")
    ticket = await office.calls()
    found = await holidays.standing(office.database, await office.last())
    assert (found.confirmed_through, found.imported_at) == (date(2026, 12, 31), FRIDAY)
    assert found.provisional == (
        Deadline(
            ticket=ticket,
            metric="resolution",
            entry=1,
            at=datetime(2027, 1, 1, 7, tzinfo=UTC),
            provisional=True,
        ),
    )


# The alarm


def known(*files: DeskFile, body: str | None = SAMPLE) -> Terms:
    versions: list[terms.Version] = []
    for file in files:
        versions += terms.news(file, versions)
    data = read_calendar_data(body) if body else None
    return terms.in_force(versions, data, answer=ANSWER, remote=REMOTE)


def test_from_the_first_of_november_on_the_next_year_is_asked_for() -> None:
    assert health_of(known(desk()), date(2026, 10, 31)).state is HealthState.UP
    found = health_of(known(desk()), date(2026, 11, 1))
    assert found.state is HealthState.DEGRADED
    assert "2026-12-31" in found.detail
    assert "contactd calendar import FILE" in found.detail
    assert health_of(known(desk(), body=NOTICE), date(2026, 11, 1)).state is HealthState.UP


def test_who_follows_holidays_must_have_some_and_who_does_not_need_not() -> None:
    assert health_of(known(desk(), body=None), date(2026, 6, 1)).state is HealthState.DEGRADED
    assert health_of(known(body=None), date(2026, 12, 1)).state is HealthState.UP


async def test_the_watch_says_it_in_its_health_and_in_the_log_once_a_day(
    office: Office,
) -> None:
    await office.load()
    watch = CalendarWatch(office.last, office.clock, zone="Asia/Shanghai")
    assert [each.state for each in watch.health()] == [HealthState.UP]
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            await watch.look()
        assert [each.state for each in watch.health()] == [HealthState.DEGRADED]
        office.clock.advance(timedelta(days=1))
        await watch.look()
    assert [each["event"] for each in logs] == ["calendar.not_confirmed"] * 2
    await holidays.apply(office.database, NOTICE, await office.last(), office.clock)
    await watch.look()
    assert [each.state for each in watch.health()] == [HealthState.UP]


async def test_the_watch_looks_when_it_starts_and_ends_with_the_daemon(office: Office) -> None:
    await office.load()
    looked: list[Terms] = []

    async def look() -> Terms:
        looked.append(await office.last())
        return looked[-1]

    watch = CalendarWatch(look, office.clock, zone="Asia/Shanghai")
    async with watch.running():
        while not looked:
            await office.last()
    assert len(looked) == 1


def test_the_stored_key_of_holidays_is_the_one_that_calendars_name() -> None:
    assert stored.HOLIDAYS == "cn"
