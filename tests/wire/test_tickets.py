"""The ticket service on both databases: what is received is filed once, and found again."""

import asyncio
import random
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import delete, event, func, insert, select, text, update

from contactd.errors import ActionNotAllowed, NotFound, TemporaryFailure
from contactd.routing.clocks import Metric
from contactd.routing.clocks import State as ClockState
from contactd.signals import Topic
from contactd.store.engine import Database
from contactd.store.schema import (
    addresses,
    contacts,
    cursors,
    journal,
    outbox,
    people,
    sequences,
    sites,
)
from contactd.store.schema import (
    tickets as tickets_table,
)
from contactd.tickets.contact import (
    CallFacts,
    Contact,
    Cursor,
    Filed,
    Leg,
    Medium,
    Outcome,
    Replay,
    Source,
)
from contactd.tickets.journal import Entry, verify
from contactd.tickets.model import Promise, TicketPolicy
from contactd.tickets.numbers import is_valid, ticket_number
from contactd.tickets.ports import Conflict
from contactd.tickets.service import TicketService
from contactd.tickets.states import Action, State
from tests.fakes.clock import FakeClock
from tests.fakes.promised import promise

START = datetime(2026, 11, 20, 2, 0, tzinfo=UTC)  # ten in the morning in Shanghai
CALLER = "13912345678"


def call(number: int = 1, caller: str = CALLER, **fields: Any) -> Contact:
    values: dict[str, Any] = {
        "medium": Medium.CALL,
        "external_id": f"pbx1-1795140000.{number}",
        "received_at": START,
        "from_value": caller,
        "to_value": "4008001234",
        "call": CallFacts(pbx="pbx1", did="4008001234"),
    }
    return Contact(**(values | fields))


def taken_by(*engineers: str, final: bool = False, **fields: Any) -> CallFacts:
    return CallFacts(
        pbx="pbx1",
        did="4008001234",
        final=final,
        answered_at=START + timedelta(seconds=9),
        legs=tuple(
            Leg(engineer=key, answered_at=START + timedelta(seconds=9 + place))
            for place, key in enumerate(engineers)
        ),
        **fields,
    )


async def rows(database: Database, statement: Any) -> list[Mapping[str, Any]]:
    async with database.reading() as connection:
        return [dict(row) for row in (await connection.execute(statement)).mappings()]


async def count(database: Database, table: Any) -> int:
    return int((await rows(database, select(func.count().label("n")).select_from(table)))[0]["n"])


async def journal_of(database: Database, number: str) -> list[Entry]:
    """Read a ticket's journal, and check its chain on the way."""
    found = await rows(
        database,
        select(journal, tickets_table.c.journal_hash)
        .join(tickets_table)
        .where(tickets_table.c.number == number)
        .order_by(journal.c.seq),
    )
    last_hash = found[-1]["journal_hash"]
    entries = [
        Entry(
            ticket=number,
            **{key: row[key] for key in row if key not in ("ticket_id", "journal_hash")},
        )
        for row in found
    ]
    assert verify(entries, last_hash=last_hash) == ""
    return entries


async def actions(database: Database, number: str) -> list[str]:
    return [entry.action for entry in await journal_of(database, number)]


async def events(database: Database) -> list[str]:
    return [row["kind"] for row in await rows(database, select(outbox).order_by(outbox.c.id))]


@pytest.fixture
async def desk(database: Database) -> None:
    """Two sites, an engineer of each tier, and a VIP with two numbers."""
    now = START
    async with database.writing() as connection:
        await connection.execute(
            insert(sites),
            [
                {
                    "key": key,
                    "name_zh": name,
                    "name_en": name,
                    "zone": "Asia/Shanghai",
                    "language": "zh",
                    "queue": key,
                    "floor": "13800000009",
                    "area_code": code,
                }
                for key, name, code in (("gz", "Guangzhou", "20"), ("sz", "Shenzhen", "755"))
            ],
        )
        await connection.execute(
            insert(people),
            [
                {"id": 101, "key": "wang", "name": "王伟", "role": "engineer", "created_at": now},
                {"id": 102, "key": "li", "name": "李娜", "role": "engineer", "created_at": now},
            ],
        )
        await connection.execute(
            insert(people),
            {"id": 103, "key": "chen", "name": "陈总", "site": "gz", "vip": True,
             "language": "en", "created_at": now},
        )  # fmt: skip
        await connection.execute(
            insert(addresses),
            [
                {"kind": "phone", "value": "+8613700000001", "person_id": 103, "rank": 0},
                {"kind": "phone", "value": "+862088880001", "person_id": 103, "rank": 1},
                {"kind": "mail", "value": "chen@example.cn", "person_id": 103, "rank": 0},
            ],
        )
        if database.dialect == "postgresql":
            await connection.execute(text("SELECT setval('people_id_seq', 1000)"))


async def test_a_first_call_opens_a_ticket_of_an_unknown_person(
    tickets: TicketService, database: Database
) -> None:
    filed = await tickets.receive(call())
    assert filed == Filed(
        contact_id=filed.contact_id,
        ticket_id=filed.ticket_id,
        ticket=ticket_number(START.date(), 1),
        new_contact=True,
        opened=True,
        joined=False,
        open_ticket="",
        person_id=filed.person_id,
        vip=False,
        language="zh",
        site="",
        queue="",
    )
    assert is_valid(filed.ticket)
    stored = (await rows(database, select(addresses)))[0]
    assert (stored["kind"], stored["value"]) == ("phone", "+8613912345678")
    assert await actions(database, filed.ticket) == ["opened"]
    assert await events(database) == ["TicketDue"]


async def test_the_same_call_again_is_the_same_contact_and_tells_the_same(
    tickets: TicketService, database: Database
) -> None:
    first = await tickets.receive(call())
    again = await tickets.receive(call())
    assert again == replace(first, new_contact=False)
    assert await count(database, contacts) == 1
    assert await actions(database, first.ticket) == ["opened"]
    assert await events(database) == ["TicketDue"]


async def test_a_repeat_caller_joins_the_open_ticket_and_is_told_its_number(
    tickets: TicketService, database: Database
) -> None:
    first = await tickets.receive(call(1))
    later = START + timedelta(hours=3)
    second = await tickets.receive(call(2, "+86 139 1234 5678", received_at=later))
    assert second.ticket == first.ticket
    assert (second.joined, second.opened, second.open_ticket) == (True, False, first.ticket)
    assert second.person_id == first.person_id
    again = await tickets.receive(call(2, "+86 139 1234 5678", received_at=later))
    assert again == replace(second, new_contact=False)
    assert await actions(database, first.ticket) == ["opened", "contact.added"]
    assert await events(database) == ["TicketDue"] * 2


async def test_each_contact_renews_the_time_within_which_a_caller_joins(
    tickets: TicketService,
) -> None:
    first = await tickets.receive(call(1))
    for number in (1, 2, 3):
        at = START + timedelta(hours=3 * number)
        filed = await tickets.receive(call(number + 1, received_at=at))
        assert filed.ticket == first.ticket


async def test_a_caller_after_the_time_gets_a_new_ticket_and_hears_of_the_old_one(
    tickets: TicketService,
) -> None:
    first = await tickets.receive(call(1))
    late = START + timedelta(hours=4, seconds=1)
    second = await tickets.receive(call(2, received_at=late))
    assert second.opened
    assert second.open_ticket == first.ticket
    again = await tickets.receive(call(2, received_at=late))
    assert again == replace(second, new_contact=False)


async def test_nobody_joins_a_closed_ticket_nor_with_joining_turned_off(
    tickets: TicketService, database: Database, clock: FakeClock
) -> None:
    first = await tickets.receive(call(1))
    await tickets.act(first.ticket, Action.CANCEL, actor="user:amy")
    second = await tickets.receive(call(2))
    assert second.opened
    assert second.open_ticket == ""
    never = TicketService(database.new_work, clock, TicketPolicy(join_within=timedelta(0)))
    third = await never.receive(call(3))
    assert third.opened
    assert third.open_ticket == second.ticket


@pytest.mark.parametrize("caller", ["", "anonymous", "unavailable", "1" * 300, "'; DROP"])
async def test_a_caller_without_a_number_never_joins(tickets: TicketService, caller: str) -> None:
    first = await tickets.receive(call(1, caller))
    second = await tickets.receive(call(2, caller))
    assert first.ticket != second.ticket
    assert first.person_id != second.person_id


@pytest.mark.usefixtures("desk")
async def test_a_person_is_recognised_by_each_of_their_addresses(
    tickets: TicketService, database: Database
) -> None:
    mobile = await tickets.receive(call(1, "13700000001"))
    assert (mobile.person_id, mobile.vip, mobile.language) == (103, True, "en")
    assert (mobile.site, mobile.queue) == ("gz", "gz")
    landline = await tickets.receive(call(2, "020-88880001"))
    mail = await tickets.receive(
        Contact(
            medium=Medium.MAIL,
            external_id="<1@example.cn>",
            received_at=START,
            from_value="Chen@Example.cn",
            text="ERP 打不开\n第二行",
        )
    )
    assert {mobile.ticket} == {landline.ticket, mail.ticket}
    ticket = (await rows(database, select(tickets_table)))[0]
    assert ticket["priority_reason"] == "impact person, urgency high (raised by one: VIP)"


@pytest.mark.usefixtures("desk")
async def test_an_unknown_landline_belongs_to_the_site_of_its_area_code(
    tickets: TicketService,
) -> None:
    assert (await tickets.receive(call(1, "0755-83456789"))).site == "sz"
    assert (await tickets.receive(call(2, "075783456789"))).site == ""


async def test_whatever_a_stranger_sends_as_name_or_text_can_be_stored(
    tickets: TicketService, database: Database
) -> None:
    name = '张三 "; DROP TABLE tickets;\r\nAction: Originate\x00\ud800' + "x" * 300
    filed = await tickets.receive(
        call(1, from_name=name, to_value="4" * 500, text="a\x00b\ud800\nc", caller="1\r\n2")
    )
    stored = (await rows(database, select(contacts)))[0]
    assert stored["from_name"].startswith('张三 "; DROP TABLE tickets; Action: Originate x')
    assert len(stored["from_name"]) == 254
    assert stored["text"] == "ab?\nc"
    assert (await tickets.receive(call(1, from_name=name))) == replace(filed, new_contact=False)


async def test_an_external_id_of_any_length_keeps_its_identity(
    tickets: TicketService, database: Database
) -> None:
    ids = ["<" + "a" * 400 + end for end in ("1>", "2>")]
    for external_id in ids * 2:
        await tickets.receive(call(external_id=external_id, call=None))
    assert await count(database, contacts) == 2


async def test_the_day_of_a_number_is_the_day_in_the_service_zone(tickets: TicketService) -> None:
    late = datetime(2026, 11, 20, 15, 59, 59, tzinfo=UTC)
    before = await tickets.receive(call(1, "", received_at=late))
    after = await tickets.receive(call(2, "", received_at=late + timedelta(seconds=1)))
    assert (before.ticket[:6], after.ticket[:6]) == ("261120", "261121")


async def test_an_answered_call_gives_a_new_ticket_to_who_answered(
    tickets: TicketService, database: Database, desk: None
) -> None:
    filed = await tickets.receive(call())
    await tickets.receive(call(call=taken_by("wang"), outcome=Outcome.ANSWERED))
    progress = await tickets.progress(filed.ticket)
    assert progress is not None
    assert (progress.state, progress.engineer) == (State.IN_PROGRESS, "wang")
    assert progress.engineer_name == "王伟"
    # A transfer adds a second engineer; the ticket stays with the first.
    await tickets.receive(call(call=taken_by("wang", "li"), outcome=Outcome.ANSWERED))
    entries = await journal_of(database, filed.ticket)
    assert [(entry.actor, entry.action) for entry in entries] == [
        ("requester", "opened"),
        ("engineer:wang", "call.answered"),
        ("engineer:wang", "acknowledged"),
        ("engineer:li", "call.answered"),
    ]
    stored = (await rows(database, select(tickets_table)))[0]
    assert stored["acknowledged_at"] == START + timedelta(seconds=9)
    assert stored["assignee_id"] == 101


async def test_a_call_answered_at_the_floor_is_acknowledged_though_nobody_knows_by_whom(
    tickets: TicketService,
) -> None:
    filed = await tickets.receive(call(call=taken_by("floor")))
    progress = await tickets.progress(filed.ticket)
    assert progress is not None
    assert (progress.state, progress.engineer) == (State.IN_PROGRESS, None)


async def test_final_facts_replace_live_ones_and_stay(
    tickets: TicketService, database: Database
) -> None:
    await tickets.receive(call(from_name="live"))
    live = taken_by("wang", queue="gz", keys="1")
    await tickets.receive(call(call=live, outcome=Outcome.ANSWERED))
    exact = START + timedelta(milliseconds=417)
    final = taken_by("wang", final=True, queue="gz", talked=timedelta(seconds=61.25))
    told = call(
        source=Source.REPLAY,
        received_at=exact,
        from_name="record",
        outcome=Outcome.ANSWERED,
        call=final,
    )
    filed = await tickets.receive(told)
    await tickets.receive(told)
    await tickets.receive(call(outcome=Outcome.ABANDONED_QUEUE, call=replace(live, queue="sz")))
    stored = (await rows(database, select(contacts)))[0]
    assert stored["outcome"] == "answered"
    assert stored["source"] == "live"
    assert stored["received_at"] == exact
    assert stored["from_name"] == "record"
    assert stored["call_final"]
    assert stored["call"]["queue"] == "gz"
    assert stored["call"]["keys"] == ""
    assert stored["call"]["talked_s"] == 61.25
    assert (await actions(database, filed.ticket))[-1] == "call.ended"
    assert await events(database) == [*["TicketDue"] * 3, "CallEnded"]


async def test_a_correction_of_final_facts_is_an_entry_and_no_second_end(
    tickets: TicketService, database: Database
) -> None:
    await tickets.receive(call(call=taken_by(final=True), source=Source.REPLAY))
    filed = await tickets.receive(
        call(call=taken_by("wang", final=True), outcome=Outcome.ANSWERED, source=Source.REPLAY)
    )
    assert await actions(database, filed.ticket) == [
        "opened",
        "call.ended",
        "call.answered",
        "acknowledged",
        "call.corrected",
    ]
    assert await events(database) == ["TicketDue", "CallEnded", "TicketDue"]


async def test_a_caller_who_reports_a_new_fault_gets_a_ticket_of_its_own(
    tickets: TicketService, database: Database
) -> None:
    first = await tickets.receive(call(1))
    joined = await tickets.receive(call(2))
    assert joined.joined
    own = await tickets.separate(Medium.CALL, call(2).external_id)
    assert own.opened
    assert own.ticket != first.ticket
    assert own.open_ticket == first.ticket
    assert own.contact_id == joined.contact_id
    assert await tickets.separate(Medium.CALL, call(2).external_id) == own
    assert await tickets.receive(call(2)) == own
    assert (await tickets.separate(Medium.CALL, call(1).external_id)).ticket == first.ticket
    entries = await journal_of(database, first.ticket)
    assert [entry.action for entry in entries] == ["opened", "contact.added", "ticket.separated"]
    assert entries[-1].body["to"] == own.ticket
    assert await actions(database, own.ticket) == ["opened"]
    assert await events(database) == ["TicketDue"] * 4
    with pytest.raises(NotFound):
        await tickets.separate(Medium.CALL, "pbx1-0.0")


async def test_the_life_cycle_is_kept_and_each_step_is_an_entry(
    tickets: TicketService, database: Database, clock: FakeClock
) -> None:
    filed = await tickets.receive(call())
    for action in (Action.ACKNOWLEDGE, Action.HOLD, Action.RESUME, Action.RESOLVE, Action.CLOSE):
        clock.advance(timedelta(minutes=1))
        await tickets.act(filed.ticket, action, actor="user:amy", note="因为")
    entries = await journal_of(database, filed.ticket)
    assert [(entry.action, entry.state) for entry in entries[1:]] == [
        ("acknowledged", "in_progress"),
        ("held", "pending"),
        ("resumed", "in_progress"),
        ("resolved", "resolved"),
        ("closed", "closed"),
    ]
    assert entries[1].body == {"note": "因为"}
    stored = (await rows(database, select(tickets_table)))[0]
    assert stored["acknowledged_at"] == START + timedelta(minutes=1)
    assert stored["closed_at"] == START + timedelta(minutes=5)
    with pytest.raises(ActionNotAllowed):
        await tickets.act(filed.ticket, Action.REOPEN, actor="user:amy")
    with pytest.raises(NotFound):
        await tickets.act("26112099990", Action.HOLD, actor="user:amy")
    assert len(await journal_of(database, filed.ticket)) == 6


@pytest.mark.usefixtures("desk")
async def test_an_engineer_who_acknowledges_has_the_ticket(tickets: TicketService) -> None:
    filed = await tickets.receive(call())
    await tickets.act(filed.ticket, Action.ACKNOWLEDGE, actor="engineer:li")
    progress = await tickets.progress(filed.ticket)
    assert progress is not None
    assert progress.engineer == "li"
    assert not await tickets.take(filed.ticket, "wang", how="page")


async def test_what_is_seen_live_adds_up_and_leaves_the_ticket_alone(
    tickets: TicketService, database: Database
) -> None:
    filed = await tickets.receive(call())
    facts = CallFacts(pbx="pbx1", did="4008001234", stage="menu", keys="1")
    await tickets.receive(call(call=facts))
    await tickets.receive(call(call=replace(facts, stage="queue", keys="", queue="desk")))
    await tickets.receive(call(call=None, outcome=Outcome.ABANDONED_QUEUE))
    stored = (await rows(database, select(contacts)))[0]
    told = {key: stored["call"][key] for key in ("stage", "keys", "queue")}
    assert told == {"stage": "queue", "keys": "1", "queue": "desk"}
    assert stored["outcome"] == "abandoned_queue"
    assert await actions(database, filed.ticket) == ["opened"]


@pytest.mark.usefixtures("desk")
async def test_the_first_engineer_who_takes_a_ticket_has_it(
    tickets: TicketService, database: Database
) -> None:
    filed = await tickets.receive(call())
    taken = await asyncio.gather(
        *(tickets.take(filed.ticket, key, how="page") for key in ("wang", "li") * 5)
    )
    winner = "wang" if taken[0] else "li"
    assert taken == [winner == key for key in ("wang", "li") * 5]
    assert await actions(database, filed.ticket) == ["opened", "acknowledged"]
    assert await tickets.take(filed.ticket_id, winner, how="web")
    progress = await tickets.progress(filed.ticket)
    assert progress is not None
    assert progress.engineer == winner
    with pytest.raises(NotFound):
        await tickets.take(99, "wang", how="page")


@pytest.mark.usefixtures("desk")
async def test_a_ticket_that_is_closed_cannot_be_taken(tickets: TicketService) -> None:
    filed = await tickets.receive(call())
    await tickets.act(filed.ticket, Action.CANCEL, actor="user:amy")
    assert not await tickets.take(filed.ticket, "wang", how="page")


async def test_progress_tells_what_was_promised_next(
    tickets: TicketService, database: Database, clock: FakeClock
) -> None:
    """The first of the clocks that run, but for whether an engineer accepts to be sent."""
    filed = await tickets.receive(call())
    unpromised = await tickets.progress(filed.ticket)
    assert unpromised is not None
    assert (unpromised.promise, unpromised.promise_at) == (Promise.NONE, None)
    assert not unpromised.overdue
    soon = START + timedelta(minutes=20)
    await promise(database, filed.ticket, Metric.OFFER, START + timedelta(minutes=1))
    await promise(database, filed.ticket, Metric.RESOLUTION, START + timedelta(hours=8))
    await promise(database, filed.ticket, Metric.ARRIVAL, START + timedelta(hours=4))
    await promise(database, filed.ticket, Metric.REMOTE, None, state=ClockState.PAUSED)
    await promise(database, filed.ticket, Metric.ANSWER, START, state=ClockState.STOPPED)
    await promise(database, filed.ticket, Metric.FIRST_UPDATE, soon)
    progress = await tickets.progress(" ".join(filed.ticket))
    assert progress is not None
    assert (progress.promise, progress.promise_at) == (Promise.FIRST_UPDATE, soon)
    assert (progress.zone, progress.overdue) == ("Asia/Shanghai", False)
    clock.advance(timedelta(minutes=20))
    assert await tickets.progress(filed.ticket) == replace(progress, overdue=True)


async def test_a_promise_that_was_broken_is_late_though_time_was_added(
    tickets: TicketService, database: Database
) -> None:
    filed = await tickets.receive(call())
    due_at = START + timedelta(hours=1)
    await promise(database, filed.ticket, Metric.ARRIVAL, due_at, breached_at=START)
    progress = await tickets.progress(filed.ticket)
    assert progress is not None
    assert (progress.promise, progress.promise_at) == (Promise.ARRIVAL, due_at)
    assert progress.overdue


def test_all_that_can_be_promised_to_a_requester_has_a_name() -> None:
    known = {each.value for each in Promise} - {Promise.NONE.value}
    assert known == {metric.value for metric in Metric} - {Metric.OFFER.value}


@pytest.mark.parametrize("keyed", ["", "1", "26112000018", "12345678901", "x" * 500])
async def test_a_wrong_number_has_no_progress(tickets: TicketService, keyed: str) -> None:
    assert await tickets.progress(keyed) is None


async def test_an_actor_of_any_length_leaves_the_journal_whole(
    tickets: TicketService, database: Database
) -> None:
    filed = await tickets.receive(call())
    await tickets.act(filed.ticket, Action.ACKNOWLEDGE, actor="user:" + "艾" * 80)
    await tickets.note(filed.ticket, "page.sent", actor="engineer:" + "9" * 200, body={})
    entries = await journal_of(database, filed.ticket)
    assert [len(entry.actor) for entry in entries[1:]] == [80, 80]
    assert verify(entries) == ""


async def test_a_note_is_an_entry_that_changes_nothing_else(
    tickets: TicketService, database: Database
) -> None:
    filed = await tickets.receive(call())
    await tickets.note(filed.ticket_id, "page.sent", actor="system", body={"to": "wang", "step": 0})
    entry = (await journal_of(database, filed.ticket))[-1]
    assert (entry.action, entry.state, entry.body) == (
        "page.sent",
        "new",
        {"to": "wang", "step": 0},
    )


async def test_fifty_at_once_of_one_call_are_one_contact(
    tickets: TicketService, database: Database
) -> None:
    filed = await asyncio.gather(*(tickets.receive(call()) for _ in range(50)))
    assert sum(each.new_contact for each in filed) == 1
    assert len({each.ticket for each in filed}) == 1
    assert await count(database, contacts) == 1
    assert await count(database, people) == 1
    assert await events(database) == ["TicketDue"]


async def test_fifty_calls_of_one_caller_at_once_are_one_ticket(
    tickets: TicketService, database: Database
) -> None:
    filed = await asyncio.gather(*(tickets.receive(call(number)) for number in range(50)))
    assert sum(each.opened for each in filed) == 1
    assert len({each.ticket for each in filed}) == 1
    assert await count(database, contacts) == 50
    assert len(await journal_of(database, filed[0].ticket)) == 50


async def test_two_processes_that_file_at_once_agree(
    database: Database, database_url: str, clock: FakeClock
) -> None:
    other = Database(database_url, clock=clock)
    async with other.running():
        services = [
            TicketService(each.new_work, clock, TicketPolicy()) for each in (database, other)
        ]
        filed = await asyncio.gather(
            *(
                service.receive(call(number, f"1391234{caller:04d}"))
                for number, caller in ((n, n % 5) for n in range(40))
                for service in services
            )
        )
    assert sum(each.new_contact for each in filed) == 40
    assert len({each.ticket for each in filed}) == 5
    assert await count(database, contacts) == 40
    assert await count(database, people) == 5


async def test_numbers_of_calls_at_once_differ(tickets: TicketService) -> None:
    filed = await asyncio.gather(*(tickets.receive(call(number, "")) for number in range(50)))
    assert len({each.ticket for each in filed}) == 50
    assert all(is_valid(each.ticket) for each in filed)


async def test_a_replay_files_a_batch_with_its_cursor(
    tickets: TicketService, database: Database
) -> None:
    live = await tickets.receive(call(1))
    batch = [
        call(
            number,
            f"1391234{number % 7:04d}",
            source=Source.REPLAY,
            received_at=START + timedelta(seconds=number),
            outcome=Outcome.ANSWERED,
            call=taken_by("wang", final=True),
        )
        for number in range(1, 31)
    ]
    # The records may name the later call first, and one call twice.
    told = [*reversed(batch), batch[3]]
    cursor = Cursor(source="pbx1/cel", position="7:1234")
    filed = await tickets.replay(Replay(contacts=told, cursors=[cursor]))
    assert [each.new_contact for each in filed[:30]] == [True] * 29 + [False]
    assert filed[29].ticket == live.ticket
    assert filed[30].contact_id == filed[26].contact_id
    assert await count(database, contacts) == 30
    # Each of the seven callers opened one ticket with the first of the calls, the known call's
    # caller another before.
    opened = {each.ticket for each in filed if each.opened}
    assert len(opened) == 8
    for number in opened:
        await journal_of(database, number)
    assert (await rows(database, select(cursors)))[0]["position"] == "7:1234"

    kinds = await events(database)
    again = await tickets.replay(
        Replay(contacts=told, cursors=[Cursor(source="pbx1/cel", position="7:9999")])
    )
    assert again == [replace(each, new_contact=False) for each in filed]
    assert await events(database) == kinds
    assert (await rows(database, select(cursors)))[0]["position"] == "7:9999"
    only = [row["source"] for row in await rows(database, select(contacts).order_by(contacts.c.id))]
    assert only == ["live"] + ["replay"] * 29


async def test_a_replay_files_as_if_the_calls_had_come_one_by_one(
    tickets: TicketService, database: Database, desk: None
) -> None:
    chance = random.Random(20261120)
    told = [
        call(
            number,
            chance.choice(["", "13700000001", "020 88880001", "075583456789", CALLER, "8001"]),
            received_at=START + timedelta(minutes=chance.randrange(3000)),
            call=chance.choice([None, taken_by(final=True), taken_by("li", final=True)]),
        )
        for number in range(120)
    ]
    one_by_one = [
        await tickets.receive(each) for each in sorted(told, key=lambda each: each.received_at)
    ]
    expected = {each.contact_id: each for each in one_by_one}
    journals = [await actions(database, number) for number in _numbers(one_by_one)]
    stored = await rows(database, select(contacts).order_by(contacts.c.received_at))

    # Forget it all but the people of the desk, and read the same calls as records.
    async with database.writing() as connection:
        await connection.execute(
            text("DROP TRIGGER journal_refuses_delete")
            if database.dialect == "sqlite"
            else text("ALTER TABLE journal DISABLE TRIGGER ALL")
        )
        for table in (journal, contacts, tickets_table, sequences):
            await connection.execute(delete(table))
        await connection.execute(delete(addresses).where(addresses.c.person_id > 103))
        await connection.execute(delete(people).where(people.c.id > 103))
    replayed = await tickets.replay(Replay(contacts=told, cursors=[]))
    assert len(expected) == 120
    by_key = {row["external_id"]: expected[row["id"]] for row in stored}
    for contact, filed in zip(told, replayed, strict=True):
        before = by_key[contact.external_id]
        assert replace(filed, contact_id=0, ticket_id=0, person_id=0) == replace(
            before, contact_id=0, ticket_id=0, person_id=0
        )
    assert [await actions(database, number) for number in _numbers(one_by_one)] == journals


def _numbers(filed: list[Filed]) -> list[str]:
    return sorted({each.ticket for each in filed})


async def test_a_replay_without_contacts_moves_the_cursor(
    tickets: TicketService, database: Database
) -> None:
    cursor = Cursor(source="pbx1/queue_log", position="1")
    assert await tickets.replay(Replay(contacts=[], cursors=[cursor])) == []
    assert await tickets.replay(Replay(contacts=[], cursors=[])) == []
    assert (await rows(database, select(cursors)))[0]["source"] == "pbx1/queue_log"


async def test_waiters_are_told_after_the_commit(database: Database, clock: FakeClock) -> None:
    told: list[Topic] = []
    tickets = TicketService(database.new_work, clock, TicketPolicy(), told.append)
    await tickets.receive(call())
    assert set(told) == {Topic.OUTBOX, Topic.BOARD}


async def test_a_conflict_is_tried_again_and_then_given_back(
    database: Database, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    from contactd.store.unit_of_work import SqlUnitOfWork

    commit, failures = SqlUnitOfWork.commit, [2]

    async def fails(self: SqlUnitOfWork) -> None:
        if failures[0]:
            failures[0] -= 1
            raise Conflict("another transaction was faster")
        await commit(self)

    monkeypatch.setattr(SqlUnitOfWork, "commit", fails)
    tickets = TicketService(database.new_work, clock, TicketPolicy())
    assert (await tickets.receive(call())).new_contact
    failures[0] = 3
    with pytest.raises(TemporaryFailure):
        await tickets.receive(call(2))
    assert await count(database, contacts) == 1


async def test_filing_a_call_takes_few_statements(
    tickets: TicketService, database: Database, desk: None
) -> None:
    said: list[str] = []
    assert database._engines is not None
    event.listen(
        database._engines.writer.sync_engine,
        "before_cursor_execute",
        lambda _c, _cursor, statement, *_: said.append(statement),
    )

    async def statements(contact: Contact) -> int:
        said.clear()
        await tickets.receive(contact)
        return len([each for each in said if not each.startswith(("BEGIN", "SELECT pg_adv"))])

    assert await statements(call(1)) <= 9
    assert await statements(call(2)) <= 6
    assert await statements(call(2)) <= 2
    assert await statements(call(3, "13700000001")) <= 8
    assert await statements(call(4, "")) <= 8


async def test_people_told_apart_stay_apart_when_their_number_moves(
    tickets: TicketService, database: Database, desk: None
) -> None:
    before = await tickets.receive(call(1))
    async with database.writing() as connection:
        await connection.execute(
            update(addresses).where(addresses.c.value == "+8613912345678").values(person_id=103)
        )
    after = await tickets.receive(call(2))
    assert after.person_id == 103
    assert after.ticket != before.ticket
    assert (await tickets.receive(call(1))).person_id == before.person_id
