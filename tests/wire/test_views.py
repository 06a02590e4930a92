"""What pages and the API read, on both databases."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert

from contactd.errors import NotFound, PermanentFailure
from contactd.routing.deskfile import parse
from contactd.store.desk import load_desk
from contactd.store.engine import Database
from contactd.store.schema import attachments
from contactd.store.views import ContactFilters, TicketFilters, Views
from contactd.tickets import journal
from contactd.tickets.contact import CallFacts, Contact, Direction, Filed, Leg, Medium, Outcome
from contactd.tickets.priority import Priority
from contactd.tickets.service import TicketService
from contactd.tickets.states import Action, State
from tests.fakes.clock import FakeClock

START = datetime(2026, 11, 20, 2, tzinfo=UTC)  # 10:00 in Shanghai
ZONE = "Asia/Shanghai"
DESK = {
    "sites": [
        {
            "key": "gz",
            "name_zh": "广州",
            "name_en": "Guangzhou",
            "floor": "8000",
            "area_code": "20",
        },
        {"key": "sz", "name_zh": "深圳", "name_en": "Shenzhen", "floor": "8000"},
    ],
    "engineers": [{"key": "wang", "name": "王伟", "number": "13800000001"}],
    "people": [
        {
            "key": "ceo",
            "name": "梁总",
            "department": "总经理办公室",
            "site": "sz",
            "vip": True,
            "numbers": ["13900000001", "8011"],
            "mails": ["liang@example.com"],
        }
    ],
}


@pytest.fixture
async def views(database: Database, clock: FakeClock) -> Views:
    await load_desk(database, parse(DESK), clock)
    return Views(database, clock)


async def call(tickets: TicketService, number: str, at: datetime = START, **more: Any) -> Filed:
    call_id = more.pop("external_id", f"pbx1-{at.timestamp()}.{number}")
    return await tickets.receive(
        Contact(
            medium=more.pop("medium", Medium.CALL), external_id=call_id, received_at=at,
            from_value=number, to_value="4008001234", **more,
        )
    )  # fmt: skip


async def test_a_ticket_has_its_requester_contacts_and_journal(
    views: Views, tickets: TicketService, clock: FakeClock
) -> None:
    filed = await call(tickets, "13900000001", from_name='张三 "; DROP')
    await call(tickets, "8011", START + timedelta(minutes=5))
    await tickets.take(filed.ticket_id, "wang", how="page")
    found = await views.ticket(filed.ticket)

    assert found.ticket.number == filed.ticket
    assert (found.ticket.state, found.ticket.priority) == (State.IN_PROGRESS, Priority.P3)
    assert (found.ticket.engineer, found.ticket.engineer_name) == ("wang", "王伟")
    assert (found.ticket.requester, found.ticket.vip, found.ticket.site) == ("梁总", True, "sz")
    assert found.ticket.caller == "8011"
    assert found.priority_reason.endswith("(raised by one: VIP)")
    assert found.requester.numbers == ("+8613900000001", "8011")
    assert found.requester.mails == ("liang@example.com",)
    assert found.requester.department == "总经理办公室"
    first, second = found.contacts
    assert (first.from_name, first.received_at) == ('张三 "; DROP', START)
    assert (second.from_value, second.ticket) == ("8011", filed.ticket)
    assert [entry.action for entry in found.journal][:2] == ["opened", "contact.added"]


async def test_the_journal_of_a_ticket_can_be_verified(
    views: Views, tickets: TicketService
) -> None:
    filed = await call(tickets, "13900000001")
    await tickets.act(filed.ticket, Action.ACKNOWLEDGE, actor="user:chen", note="看一下")
    found = await views.ticket(filed.ticket)
    assert journal.verify(found.journal, last_hash=found.journal_hash) == ""
    changed = replace(found.journal[1], actor="user:li")
    assert journal.verify([found.journal[0], changed], last_hash=found.journal_hash) != ""


@pytest.mark.parametrize(
    "number", ["", "0", "26112000018", "26112000019", "'; DROP TABLE tickets", "\x00", "9" * 10_000]
)
async def test_a_ticket_that_does_not_exist_is_not_found(views: Views, number: str) -> None:
    with pytest.raises(NotFound):
        await views.ticket(number)


async def test_a_call_has_its_facts(views: Views, tickets: TicketService) -> None:
    facts = CallFacts(
        pbx="pbx1",
        did="4008001234",
        final=True,
        stage="queue",
        queue="gz",
        queued_at=START,
        answered_at=START + timedelta(seconds=9),
        ended_at=START + timedelta(minutes=2),
        waited=timedelta(seconds=9.5),
        talked=timedelta(seconds=100),
        legs=(Leg(engineer="wang", answered_at=START + timedelta(seconds=9)),),
        passed_by=("li",),
        keys="12",
    )
    filed = await call(tickets, "13900000009", call=facts, outcome=Outcome.ANSWERED)
    found = await views.contact(filed.contact_id)
    assert found.call == facts
    assert (found.outcome, found.ticket) == (Outcome.ANSWERED, filed.ticket)
    assert found.attachments == ()


async def test_a_contact_has_its_attachments(
    views: Views, tickets: TicketService, database: Database, clock: FakeClock
) -> None:
    filed = await call(tickets, "13900000009")
    row = {
        "contact_id": filed.contact_id,
        "size_bytes": 3 << 30,
        "media_type": "audio/wav",
        "stored_at": clock.now(),
    }
    async with database.writing() as connection:
        await connection.execute(
            insert(attachments),
            [
                {**row, "kind": "recording", "sha256": "a" * 64, "name": "call.wav"},
                {**row, "kind": "voicemail", "sha256": "b" * 64, "name": "message.wav"},
            ],
        )
    files = (await views.contact(filed.contact_id)).attachments
    assert [(each.kind, each.sha256[0]) for each in files] == [
        ("recording", "a"),
        ("voicemail", "b"),
    ]
    assert await views.attachment(files[1].id) == files[1]
    assert (await views.ticket(filed.ticket)).contacts[0].attachments == files
    assert (await views.contacts_page(ContactFilters())).items[0].attachments == files


@pytest.mark.parametrize("number", [0, -1, 2**31, 2**63, 10**30])
async def test_ids_that_nothing_has_are_not_found(views: Views, number: int) -> None:
    with pytest.raises(NotFound):
        await views.contact(number)
    with pytest.raises(NotFound):
        await views.attachment(number)


async def test_pages_show_each_ticket_once_the_latest_first(
    views: Views, tickets: TicketService
) -> None:
    opened = []
    for n in range(25):
        at = START + timedelta(minutes=n // 5)  # five were opened at the same instant
        opened.append((await call(tickets, f"1370000{n:04d}", at)).ticket)
    seen: list[str] = []
    cursor, pages = "", 0
    while pages == 0 or cursor:
        page = await views.tickets_page(TicketFilters(), cursor, limit=7)
        seen += [ticket.number for ticket in page.items]
        cursor, pages = page.next_cursor, pages + 1
    assert seen == opened[::-1]
    assert pages == 4


async def test_a_ticket_opened_between_two_pages_shifts_nothing(
    views: Views, tickets: TicketService
) -> None:
    opened = [
        (await call(tickets, f"1370000{n:04d}", START + timedelta(minutes=n))).ticket
        for n in range(4)
    ]
    first = await views.tickets_page(TicketFilters(), limit=2)
    await call(tickets, "13799999999", START + timedelta(hours=1))
    second = await views.tickets_page(TicketFilters(), first.next_cursor, limit=2)
    assert [ticket.number for ticket in (*first.items, *second.items)] == opened[::-1]


async def test_a_page_has_at_least_one_and_at_most_200_lines(
    views: Views, tickets: TicketService
) -> None:
    for n in range(3):
        await call(tickets, f"1370000{n:04d}")
    assert len((await views.tickets_page(TicketFilters(), limit=-5)).items) == 1
    assert len((await views.tickets_page(TicketFilters(), limit=10**9)).items) == 3


@pytest.mark.parametrize(
    "cursor", ["x", "ä", "MTIz", "LjE=", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OS4x", "a" * 10_000]
)
async def test_a_cursor_of_somebody_else_is_refused(views: Views, cursor: str) -> None:
    with pytest.raises(PermanentFailure, match="cursor"):
        await views.tickets_page(TicketFilters(), cursor)
    with pytest.raises(PermanentFailure, match="cursor"):
        await views.contacts_page(ContactFilters(), cursor)


async def test_a_cursor_with_an_enormous_id_is_harmless(views: Views) -> None:
    page = await views.tickets_page(TicketFilters(), "MC45OTk5OTk5OTk5OTk5OTk5OTk5OTk5")
    assert page.items == ()


async def test_tickets_are_filtered(views: Views, tickets: TicketService) -> None:
    vip = await call(tickets, "13900000001", START)
    landline = await call(tickets, "02038880001", START + timedelta(hours=1))
    mobile = await call(tickets, "13700000001", START + timedelta(hours=2))
    await tickets.take(mobile.ticket_id, "wang", how="page")

    async def numbers(**filters: Any) -> list[str]:
        page = await views.tickets_page(TicketFilters(**filters))
        return [ticket.number for ticket in page.items]

    assert await numbers() == [mobile.ticket, landline.ticket, vip.ticket]
    assert await numbers(states=[State.NEW]) == [landline.ticket, vip.ticket]
    assert await numbers(states=[State.NEW, State.IN_PROGRESS], site="sz") == [vip.ticket]
    assert await numbers(site="gz") == [landline.ticket]
    assert await numbers(requester="139 0000 0001") == [vip.ticket]
    assert await numbers(requester="Liang@Example.com") == [vip.ticket]
    for garbage in ("nobody", "", "\x00", "\ud800@", "1" * 10_000):
        assert await numbers(requester=garbage) == []
        assert await numbers(site=garbage) == []
    assert await numbers(opened_from=START + timedelta(hours=1)) == [mobile.ticket, landline.ticket]
    assert await numbers(opened_to=START + timedelta(hours=1)) == [vip.ticket]


async def test_contacts_are_listed_and_filtered(views: Views, tickets: TicketService) -> None:
    first = await call(tickets, "13900000001", START)
    second = await call(tickets, "13900000001", START + timedelta(minutes=1))
    web = await call(
        tickets, "liang@example.com", START + timedelta(days=1), medium=Medium.WEB, text="蓝屏"
    )

    async def ids(**filters: Any) -> list[int]:
        page = await views.contacts_page(ContactFilters(**filters))
        return [contact.id for contact in page.items]

    assert await ids() == [web.contact_id, second.contact_id, first.contact_id]
    assert await ids(medium=Medium.WEB) == [web.contact_id]
    assert await ids(ticket=first.ticket) == [second.contact_id, first.contact_id]
    assert await ids(received_from=START + timedelta(minutes=1)) == [
        web.contact_id, second.contact_id,
    ]  # fmt: skip
    assert await ids(received_to=START + timedelta(minutes=1)) == [first.contact_id]
    page = await views.contacts_page(ContactFilters(), limit=2)
    rest = await views.contacts_page(ContactFilters(), page.next_cursor, limit=2)
    assert [contact.id for contact in rest.items] == [first.contact_id]
    assert rest.next_cursor == ""


async def test_the_latest_tickets_are_those_of_the_local_day(
    views: Views, tickets: TicketService
) -> None:
    midnight = datetime(2026, 11, 19, 16, tzinfo=UTC)
    await call(tickets, "13700000001", midnight - timedelta(seconds=1))
    first = await call(tickets, "13700000002", midnight)
    await call(tickets, "13900000001", START)
    last = await call(tickets, "13700000003", midnight + timedelta(hours=23, minutes=59))
    await call(tickets, "13700000004", midnight + timedelta(days=1))
    await call(tickets, "13700000002", START, direction=Direction.OUT, external_id="out")
    await tickets.take(first.ticket_id, "wang", how="page")

    found = await views.latest(date(2026, 11, 20), ZONE, 10)
    assert found[0].number == last.ticket
    assert [ticket.state for ticket in found].count(State.IN_PROGRESS) == 1
    assert len(found) == 4
    assert len(await views.latest(date(2026, 11, 20), ZONE, 1)) == 1
    assert await views.latest(date(2026, 11, 22), ZONE, 10) == ()


async def test_people_are_those_of_the_file_and_those_who_called(
    views: Views, tickets: TicketService
) -> None:
    await call(tickets, "13700000001")
    found = await views.people()
    assert [(each.key, each.name, each.numbers) for each in found] == [
        ("wang", "王伟", ("+8613800000001",)),
        ("ceo", "梁总", ("+8613900000001", "8011")),
        ("", "", ("+8613700000001",)),
    ]
    assert len(await views.people(limit=1)) == 1


async def test_names_are_those_of_the_keys_that_are_known(views: Views) -> None:
    assert await views.names({"wang", "ceo", "nobody", "a\0b"}) == {"wang": "王伟", "ceo": "梁总"}
    assert await views.names(()) == {}
