"""What pages and recordings leave in both databases."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from sqlalchemy import select

from contactd.store import cursors
from contactd.store.engine import Database
from contactd.store.paging import Paging
from contactd.store.schema import attachments, notifications, outbox
from contactd.tickets.contact import (
    Blob,
    CallFacts,
    Contact,
    Cursor,
    Filed,
    Medium,
    Outcome,
    Replay,
)
from contactd.tickets.events import PageDue
from contactd.tickets.paging import Page, PageState, Settled, next_step
from contactd.tickets.service import TicketService
from tests.fakes.clock import FakeClock

RECORDING = Blob(sha256="a" * 64, size_bytes=8, media_type="audio/wav", name="call.wav")


@pytest.fixture
def book(database: Database, clock: FakeClock) -> Paging:
    return Paging(database, clock)


@pytest.fixture
async def filed(tickets: TicketService, clock: FakeClock) -> Filed:
    return await tickets.receive(
        Contact(
            medium=Medium.CALL, external_id="pbx1-1795140000.1", received_at=clock.now(),
            from_value="13912345678", outcome=Outcome.VOICEMAIL,
            call=CallFacts(pbx="pbx1", did="4008001234", voicemail="/spool/1.wav"),
        )
    )  # fmt: skip


@pytest.fixture
def due(filed: Filed) -> PageDue:
    return PageDue(
        ticket_id=filed.ticket_id, contact_id=filed.contact_id, step=0, reason="page-voicemail"
    )


def page_of(filed: Filed, step: int = 0, engineer: str = "wang") -> Page:
    return Page(
        ref=f"page-pbx1-1795140000.1-{step}", ticket_id=filed.ticket_id,
        contact_id=filed.contact_id, step=step, ticket=filed.ticket,
        engineer=engineer, address="+8613800000001", state=PageState.QUEUED,
    )  # fmt: skip


async def timers(database: Database) -> dict[str, datetime]:
    """Return when each page's timer is due."""
    async with database.reading() as connection:
        rows = await connection.execute(
            select(outbox.c.dedup_key, outbox.c.due_at).where(outbox.c.kind == "PageDue")
        )
        return {row.dedup_key: row.due_at for row in rows}


async def test_the_first_step_is_armed_once_and_due_at_once(
    book: Paging, database: Database, due: PageDue, clock: FakeClock
) -> None:
    armed_at = clock.now()
    await book.arm(due, clock.now())
    clock.advance(timedelta(seconds=9))
    await book.arm(due, clock.now())
    assert await timers(database) == {f"page-{due.contact_id}-0": armed_at}


async def test_a_page_and_the_next_steps_timer_are_stored_together(
    book: Paging, database: Database, due: PageDue, filed: Filed, clock: FakeClock
) -> None:
    later = clock.now() + timedelta(minutes=1)
    page = page_of(filed)
    assert await book.begin(due, page, next_due=later) == page
    assert await book.find(page.ref) == page
    assert await timers(database) == {f"page-{due.contact_id}-1": later}


async def test_the_same_page_again_is_the_stored_one_and_changes_nothing(
    book: Paging, database: Database, due: PageDue, filed: Filed, clock: FakeClock
) -> None:
    later = clock.now() + timedelta(minutes=1)
    page = await book.begin(due, page_of(filed), next_due=later)
    await book.note(page.ref, PageState.SENDING)
    again = await book.begin(due, page_of(filed, engineer="li"), next_due=later + later.resolution)
    assert again == replace(page, state=PageState.SENDING)
    assert await timers(database) == {f"page-{due.contact_id}-1": later}


async def test_what_a_person_said_is_not_overwritten_by_what_the_pbx_says(
    book: Paging, due: PageDue, filed: Filed, clock: FakeClock
) -> None:
    page = await book.begin(due, page_of(filed), next_due=clock.now())
    for state in (PageState.SENDING, PageState.TAKEN, PageState.SENT, PageState.FAILED):
        await book.note(page.ref, state, detail="x" * 500)
    found = await book.find(page.ref)
    assert found is not None
    assert found.state is PageState.TAKEN


async def test_hurrying_moves_the_next_steps_timer_to_now_and_no_other(
    book: Paging, database: Database, due: PageDue, filed: Filed, clock: FakeClock
) -> None:
    later = clock.now() + timedelta(minutes=1)
    await book.begin(due, page_of(filed), next_due=later)
    second = next_step(due)
    await book.begin(second, page_of(filed, 1), next_due=later)
    clock.advance(timedelta(seconds=5))
    await book.hurry(page_of(filed), clock.now())
    assert await timers(database) == {
        f"page-{due.contact_id}-1": clock.now(),
        f"page-{due.contact_id}-2": later,
    }
    clock.advance(timedelta(seconds=5))
    await book.hurry(page_of(filed), clock.now())  # what is due already does not wait longer
    assert (await timers(database))[f"page-{due.contact_id}-1"] < clock.now()
    await book.hurry(page_of(filed, 7), clock.now())  # no such timer: nothing happens


async def test_the_subject_is_the_ticket_as_it_is_now(
    book: Paging, tickets: TicketService, due: PageDue, filed: Filed
) -> None:
    before = await book.subject(due)
    assert before is not None
    assert (before.ticket, before.settled, before.pbx) == (filed.ticket, None, "pbx1")
    await tickets.take(filed.ticket_id, "wang", how="page")
    after = await book.subject(due)
    assert after is not None
    assert after.settled is Settled.TICKET
    assert await book.subject(replace(due, contact_id=999)) is None


async def test_only_the_first_of_two_pages_settles_the_matter(
    book: Paging, due: PageDue, filed: Filed, clock: FakeClock
) -> None:
    first = await book.begin(due, page_of(filed), next_due=clock.now())
    second = await book.begin(next_step(due), page_of(filed, 1, "li"), next_due=clock.now())
    assert await book.settle(second.ref)
    assert not await book.settle(first.ref)
    assert await book.settle(second.ref)  # asking again is harmless
    assert not await book.settle("page-nonsense")


async def test_a_call_is_found_with_its_facts_and_what_is_no_call_is_not(
    book: Paging, tickets: TicketService, filed: Filed, clock: FakeClock
) -> None:
    found = await book.call(filed.contact_id)
    assert found is not None
    assert (found.external_id, found.outcome) == ("pbx1-1795140000.1", Outcome.VOICEMAIL)
    assert found.call is not None
    assert (found.call.pbx, found.call.voicemail) == ("pbx1", "/spool/1.wav")
    mail = Contact(medium=Medium.MAIL, external_id="<1@x>", received_at=clock.now())
    assert await book.call((await tickets.receive(mail)).contact_id) is None
    assert await book.call(999) is None


async def test_an_attachment_is_named_once_however_often_it_is_told(
    book: Paging, database: Database, filed: Filed
) -> None:
    for blob in (RECORDING, RECORDING, replace(RECORDING, sha256="b" * 64)):
        await book.attach(filed.contact_id, "recording", blob)
    await book.attach(filed.contact_id, "voicemail", RECORDING)
    async with database.reading() as connection:
        rows = await connection.execute(select(attachments.c.kind, attachments.c.sha256))
        assert sorted(tuple(row) for row in rows) == [
            ("recording", "a" * 64),
            ("recording", "b" * 64),
            ("voicemail", "a" * 64),
        ]


async def test_a_page_outlives_the_process(
    book: Paging, database: Database, due: PageDue, filed: Filed, clock: FakeClock
) -> None:
    page = await book.begin(due, page_of(filed), next_due=clock.now())
    await book.note(page.ref, PageState.SENDING)
    found = await Paging(database, clock).find(page.ref)
    assert found == replace(page, state=PageState.SENDING)
    async with database.reading() as connection:
        (row,) = await connection.execute(select(notifications))
    assert (row.engineer, row.medium, row.updated_at) == ("wang", "call", clock.now())


async def test_a_cursor_is_where_the_last_replay_left_it(
    database: Database, tickets: TicketService
) -> None:
    assert await cursors.position(database, "pbx1/cel") is None
    for position in ("here", "there"):
        cursor = Cursor(source="pbx1/cel", position=position)
        await tickets.replay(Replay(contacts=(), cursors=(cursor,)))
    assert await cursors.position(database, "pbx1/cel") == "there"
    assert await cursors.position(database, "pbx2/cel") is None
