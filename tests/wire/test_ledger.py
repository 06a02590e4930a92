"""The ledger on both databases: what the PBX says came in against the contacts."""

from collections.abc import Iterator, MutableMapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import structlog

from contactd.metrics import LEDGER_DIFFERENCE
from contactd.store.engine import Database
from contactd.store.ledger import Ledger, LedgerDay
from contactd.store.views import Views
from contactd.tickets.contact import Contact, Direction, Medium, Source
from contactd.tickets.service import TicketService
from tests.fakes.clock import FakeClock

DAY = date(2026, 11, 20)
NOON = datetime(2026, 11, 20, 4, tzinfo=UTC)  # 12:00 in Shanghai
MIDNIGHT = datetime(2026, 11, 19, 16, tzinfo=UTC)  # the day begins in Shanghai


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[MutableMapping[str, Any]]]:
    with structlog.testing.capture_logs() as entries:
        yield entries


@pytest.fixture
def ledger(database: Database, clock: FakeClock) -> Ledger:
    clock.advance(timedelta(hours=20))  # the day is over
    return Ledger(database, clock, "Asia/Shanghai")


async def file(tickets: TicketService, call_id: str, at: datetime = NOON, **changes: Any) -> None:
    await tickets.receive(
        Contact(
            medium=changes.pop("medium", Medium.CALL), external_id=call_id, received_at=at,
            **changes,
        )
    )  # fmt: skip


async def test_a_day_whose_calls_all_have_contacts_is_balanced(
    ledger: Ledger, tickets: TicketService, clock: FakeClock
) -> None:
    await file(tickets, "pbx1-1.1")
    await file(tickets, "pbx1-1.2", source=Source.REPLAY)
    found = await ledger.settle(DAY, "pbx1", {"pbx1-1.1": NOON, "pbx1-1.2": NOON})
    assert found == LedgerDay(
        day=DAY, medium=Medium.CALL, source="pbx1", outside=2, contacts=2, missing=(), extra=(),
        repaired=("pbx1-1.2",), computed_at=clock.now(),
    )  # fmt: skip
    assert found.balanced


async def test_a_call_without_a_contact_and_a_contact_without_a_call_are_found(
    ledger: Ledger, tickets: TicketService
) -> None:
    await file(tickets, "pbx1-1.1")
    await file(tickets, "pbx1-1.9")
    found = await ledger.settle(DAY, "pbx1", {"pbx1-1.1": NOON, "pbx1-1.3": NOON, "pbx1-1.2": NOON})
    assert (found.missing, found.extra) == (("pbx1-1.2", "pbx1-1.3"), ("pbx1-1.9",))
    assert (found.outside, found.contacts) == (3, 2)
    assert not found.balanced


async def test_other_days_pbxs_media_and_directions_do_not_count(
    ledger: Ledger, tickets: TicketService
) -> None:
    await file(tickets, "pbx2-1.1")
    await file(tickets, "pbx11-1.1")
    await file(tickets, "pbx1-1.2", at=MIDNIGHT - timedelta(minutes=1))
    await file(tickets, "pbx1-1.3", at=MIDNIGHT + timedelta(days=1, minutes=1))
    await file(tickets, "pbx1-1.4", medium=Medium.WEB)
    await file(tickets, "pbx1-1.5", direction=Direction.OUT, to_value="13900000001")
    found = await ledger.settle(DAY, "pbx1", {})
    assert (found.contacts, found.balanced) == (0, True)


async def test_the_day_begins_at_midnight_of_the_services_zone(
    ledger: Ledger, tickets: TicketService
) -> None:
    await file(tickets, "pbx1-1.1", at=MIDNIGHT + timedelta(minutes=1))
    await file(tickets, "pbx1-1.2", at=MIDNIGHT + timedelta(hours=23, minutes=59))
    assert len((await ledger.settle(DAY, "pbx1", {})).extra) == 2


async def test_a_call_seen_on_the_other_side_of_midnight_makes_no_difference(
    ledger: Ledger, tickets: TicketService
) -> None:
    await file(tickets, "pbx1-1.1", at=MIDNIGHT - timedelta(milliseconds=3))
    await file(tickets, "pbx1-1.2", at=MIDNIGHT + timedelta(milliseconds=3))
    today = await ledger.settle(DAY, "pbx1", {"pbx1-1.1": MIDNIGHT + timedelta(milliseconds=3)})
    assert (today.contacts, today.balanced) == (1, True)
    before = DAY - timedelta(days=1)
    at = MIDNIGHT - timedelta(milliseconds=3)
    yesterday = await ledger.settle(before, "pbx1", {"pbx1-1.2": at})
    assert (yesterday.contacts, yesterday.balanced) == (1, True)


async def test_a_call_of_this_moment_may_be_in_one_book_only(
    database: Database, tickets: TicketService, clock: FakeClock
) -> None:
    ledger = Ledger(database, clock, "Asia/Shanghai")
    await file(tickets, "pbx1-1.1", at=clock.now())
    found = await ledger.settle(DAY, "pbx1", {"pbx1-1.2": clock.now()})
    assert found.balanced
    clock.advance(timedelta(seconds=10))
    found = await ledger.settle(DAY, "pbx1", {"pbx1-1.2": clock.now() - timedelta(seconds=10)})
    assert (found.missing, found.extra) == (("pbx1-1.2",), ("pbx1-1.1",))


async def test_settling_again_replaces_the_days_row(
    ledger: Ledger, tickets: TicketService, database: Database, clock: FakeClock
) -> None:
    await ledger.settle(DAY, "pbx1", {"pbx1-1.1": NOON})
    await ledger.settle(DAY, "pbx2", {})
    await file(tickets, "pbx1-1.1", source=Source.REPLAY)
    repaired = await ledger.settle(DAY, "pbx1", {"pbx1-1.1": NOON})
    stored = await Views(database, clock).ledger(DAY, DAY)
    assert [day.source for day in stored] == ["pbx1", "pbx2"]
    assert stored[0] == repaired
    assert (repaired.balanced, repaired.repaired) == (True, ("pbx1-1.1",))


async def test_a_difference_is_an_error_in_the_log_once_and_a_metric(
    ledger: Ledger, clock: FakeClock, logged: list[MutableMapping[str, Any]]
) -> None:
    today = ledger.today()
    at = clock.now() - timedelta(minutes=5)
    for _ in range(3):
        await ledger.settle(today, "pbx1", {"pbx1-1.1": at})
    assert LEDGER_DIFFERENCE.labels(pbx="pbx1")._value.get() == 1
    await ledger.settle(today, "pbx1", {})
    assert LEDGER_DIFFERENCE.labels(pbx="pbx1")._value.get() == 0
    told = [(entry["event"], entry["log_level"]) for entry in logged]
    assert told == [("ledger.differed", "error"), ("ledger.balanced", "info")]


async def test_yesterdays_difference_stays_in_the_metric_until_it_is_repaired(
    ledger: Ledger, clock: FakeClock
) -> None:
    figure = LEDGER_DIFFERENCE.labels(pbx="pbx1")._value
    at = clock.now() - timedelta(minutes=5)
    yesterday = ledger.today()
    await ledger.settle(yesterday, "pbx1", {"pbx1-1.1": at, "pbx1-1.2": at})
    clock.advance(timedelta(days=1))
    await ledger.settle(ledger.today(), "pbx1", {"pbx1-1.3": at + timedelta(days=1)})
    assert figure.get() == 2
    await ledger.settle(yesterday, "pbx1", {})
    assert figure.get() == 1
    clock.advance(timedelta(days=2))
    await ledger.settle(ledger.today(), "pbx1", {})
    assert figure.get() == 0


async def test_a_day_before_yesterday_is_compared_but_keeps_its_row(
    ledger: Ledger, clock: FakeClock
) -> None:
    kept = await ledger.settle(DAY, "pbx1", {"pbx1-1.1": NOON})
    clock.advance(timedelta(days=1))
    found = await ledger.settle(DAY, "pbx1", {})
    assert found.balanced
    assert await ledger.stored(DAY, "pbx1") == kept
    assert await ledger.stored(DAY, "pbx2") is None


async def test_a_day_with_thousands_of_calls_is_settled(
    ledger: Ledger, tickets: TicketService
) -> None:
    await file(tickets, "pbx1-1.7")
    outside = {f"pbx1-1.{number}": NOON for number in range(5000)}
    found = await ledger.settle(DAY, "pbx1", outside)
    assert (found.outside, found.contacts, len(found.missing)) == (5000, 1, 4999)
