"""What is done with a ticket after it was opened, on both databases; each act is an entry."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from contactd.errors import ActionNotAllowed, NotFound, PermanentFailure
from contactd.store.engine import Database
from contactd.store.schema import dispatches, outbox, people, sites, terms
from contactd.store.schema import tickets as tickets_table
from contactd.tickets.contact import Contact
from contactd.tickets.dispatching import Step, WrongCode
from contactd.tickets.journal import Entry
from contactd.tickets.model import Category, Classification
from contactd.tickets.priority import Impact, Urgency
from contactd.tickets.service import TicketService
from contactd.tickets.states import Action
from tests.fakes.clock import FakeClock
from tests.wire.test_tickets import START, call, desk, journal_of, rows

__all__ = ["desk"]  # the fixture

pytestmark = pytest.mark.usefixtures("desk")
AMY = "user:amy"


@pytest.fixture
async def number(tickets: TicketService, desk: None) -> str:
    """Return the number of a ticket of the VIP's, at gz."""
    return (await tickets.receive(call(1, "13700000001"))).ticket


async def last(database: Database, number: str, count: int = 1) -> list[tuple[str, str, Any]]:
    entries: list[Entry] = await journal_of(database, number)
    return [(entry.actor, entry.action, entry.body) for entry in entries[-count:]]


async def stored(database: Database) -> Mapping[str, Any]:
    return (await rows(database, select(tickets_table)))[0]


async def due(database: Database) -> int:
    return len(await rows(database, select(outbox).where(outbox.c.kind == "TicketDue")))


# What was promised


async def test_a_ticket_is_opened_with_what_its_site_was_promised(
    tickets: TicketService, database: Database
) -> None:
    plain = await tickets.receive(call(1))
    async with database.writing() as connection:
        await connection.execute(
            update(sites).where(sites.c.key == "gz").values(contract="gold.3", calendar="gz.2")
        )
    at_site = await tickets.receive(call(2, "13700000001"))
    promised = [
        [
            (await journal_of(database, filed.ticket))[0].body[name]
            for name in ("contract", "calendar")
        ]
        for filed in (plain, at_site)
    ]
    assert promised == [["standard", "always"], ["gold.3", "gz.2"]]


async def test_whoever_follows_tickets_up_hears_of_each_commit_that_wrote_to_a_journal(
    tickets: TicketService, database: Database
) -> None:
    filed = [await tickets.receive(call(n, f"1390000000{n}")) for n in (1, 2)]
    await tickets.note(filed[1].ticket, "page.sent", actor="system", body={})
    found = await rows(database, select(outbox).order_by(outbox.c.id))
    assert [(row["kind"], row["body"], row["dedup_key"]) for row in found] == [
        ("TicketDue", {"ticket_id": ticket_id}, None)
        for ticket_id in (filed[0].ticket_id, filed[1].ticket_id, filed[1].ticket_id)
    ]


async def test_another_contract_is_promised_from_now_on(
    tickets: TicketService, database: Database, number: str, clock: FakeClock
) -> None:
    async with database.writing() as connection:
        await connection.execute(
            insert(terms),
            [
                {
                    "kind": kind,
                    "key": "gold",
                    "version": version,
                    "body": {"P3": {}},
                    "since": clock.now(),
                }
                for kind, version in (("contract", 2), ("contract", 10), ("calendar", 11))
            ],
        )
    for asked, promised in (
        ("gold", "gold.10"), ("gold.2", "gold.2"), ("standard", "standard"),
    ):  # fmt: skip
        await tickets.set_contract(number, asked, actor=AMY)
        assert await last(database, number) == [(AMY, "contract.changed", {"contract": promised})]
    for wrong in ("silver", "gold.11", "gold.x", "", "gold.", "standard.1", "金"):
        with pytest.raises(PermanentFailure, match="contract"):
            await tickets.set_contract(number, wrong, actor=AMY)


# Classification


async def test_what_is_said_of_a_ticket_changes_its_priority_with_the_reason(
    tickets: TicketService, database: Database, number: str
) -> None:
    said = Classification(
        impact=Impact.COMPANY, category=Category.NETWORK, system=" ERP\n ", title="全公司断网"
    )
    await tickets.classify(number, said, actor=AMY)
    reason = "impact company, urgency high (raised by one: VIP)"
    assert await last(database, number, 2) == [
        (
            AMY,
            "classified",
            {"impact": 1, "category": "network", "system": "ERP", "title": "全公司断网"},
        ),
        (AMY, "priority.changed", {"priority": "P1", "before": "P3", "reason": reason}),
    ]
    row = await stored(database)
    names = ("impact", "priority", "priority_reason", "category", "system", "title")
    assert [row[name] for name in names] == [1, "P1", reason, "network", "ERP", "全公司断网"]


async def test_saying_the_same_again_says_nothing(
    tickets: TicketService, database: Database, number: str
) -> None:
    said = Classification(impact=Impact.PERSON, urgency=Urgency.MEDIUM, category=Category.OTHER)
    await tickets.classify(number, said, actor=AMY)
    assert await last(database, number) == [(AMY, "classified", {"category": "other"})]
    before = await due(database)
    await tickets.classify(number, said, actor=AMY)
    await tickets.classify(number, Classification(), actor=AMY)
    assert len(await journal_of(database, number)) == 2
    assert await due(database) == before


async def test_a_reason_that_changes_without_the_priority_is_kept_too(
    tickets: TicketService, database: Database, number: str
) -> None:
    await tickets.classify(number, Classification(impact=Impact.DEPARTMENT), actor=AMY)
    await tickets.classify(number, Classification(urgency=Urgency.HIGH), actor=AMY)
    body = {"urgency": 1, "reason": "impact department, urgency high"}
    assert await last(database, number) == [(AMY, "classified", body)]
    await tickets.classify(number, Classification(impact=Impact.PERSON), actor=AMY)
    reason = "impact person, urgency high"
    assert [entry.action for entry in await journal_of(database, number)] == [
        "opened", "classified", "priority.changed", "classified", "classified", "priority.changed",
    ]  # fmt: skip
    assert (await stored(database))["priority_reason"] == reason


async def test_who_is_no_vip_any_more_is_so_once_somebody_judges_the_ticket_anew(
    tickets: TicketService, database: Database, number: str
) -> None:
    await tickets.classify(number, Classification(impact=Impact.DEPARTMENT), actor=AMY)
    async with database.writing() as connection:
        await connection.execute(update(people).where(people.c.id == 103).values(vip=False))
    await tickets.classify(number, Classification(title="打印机"), actor=AMY)
    assert (await stored(database))["priority"] == "P2"
    await tickets.classify(number, Classification(urgency=Urgency.MEDIUM), actor=AMY)
    body = {"priority": "P3", "before": "P2", "reason": "impact department, urgency medium"}
    assert await last(database, number) == [(AMY, "priority.changed", body)]
    assert len(await journal_of(database, number)) == 5


# Answers and who has the ticket


async def test_a_call_back_is_an_answer_and_gives_the_ticket_to_who_made_it(
    tickets: TicketService, database: Database, number: str, clock: FakeClock
) -> None:
    clock.advance(timedelta(minutes=20))
    at = START + timedelta(minutes=10)
    await tickets.answered(number, actor="engineer:wang", how="call_back", at=at)
    body = {"answered_at": "2026-11-20T02:10:00.000000Z", "how": "call_back", "engineer": "wang"}
    taken = {
        "how": "answer", "engineer": "wang", "acknowledged_at": "2026-11-20T02:10:00.000000Z",
    }  # fmt: skip
    assert await last(database, number, 2) == [
        ("engineer:wang", "answered", body), ("engineer:wang", "acknowledged", taken),
    ]  # fmt: skip
    assert (await stored(database))["acknowledged_at"] == at
    await tickets.answered(number, actor=AMY, how="reply", engineer="li")
    assert (await last(database, number))[0][:2] == (AMY, "answered")
    assert (await stored(database))["assignee_id"] == 101


async def test_an_answer_by_nobody_in_particular_gives_the_ticket_to_nobody(
    tickets: TicketService, database: Database, number: str
) -> None:
    await tickets.answered(number, actor=AMY, how="reply")
    row = await stored(database)
    assert (row["state"], row["assignee_id"]) == ("new", None)


@pytest.mark.parametrize("off", [timedelta(seconds=-1), timedelta(seconds=61)])
async def test_an_answer_lies_between_the_opening_and_now(
    tickets: TicketService, number: str, clock: FakeClock, off: timedelta
) -> None:
    clock.advance(timedelta(seconds=60))
    with pytest.raises(PermanentFailure, match="answered_at"):
        await tickets.answered(number, actor=AMY, how="reply", at=START + off)


async def test_an_answer_may_be_noted_after_the_end_and_takes_nothing(
    tickets: TicketService, database: Database, number: str
) -> None:
    await tickets.act(number, Action.CANCEL, actor=AMY)
    await tickets.answered(number, actor="engineer:wang", how="reply")
    row = await stored(database)
    assert (row["state"], row["assignee_id"]) == ("cancelled", None)


async def test_an_update_and_a_team_are_on_the_journal(
    tickets: TicketService, database: Database, number: str
) -> None:
    await tickets.updated(number, actor=AMY, note="配件明天到")
    assert await last(database, number) == [(AMY, "updated", {"note": "配件明天到"})]
    await tickets.assign_team(number, "network", actor=AMY)
    await tickets.assign_team(number, "network", actor=AMY)
    await tickets.assign_team(number, "", actor=AMY)
    assert await last(database, number, 2) == [
        (AMY, "team.assigned", {"team": "network", "before": ""}),
        (AMY, "team.assigned", {"team": "", "before": "network"}),
    ]
    assert len(await journal_of(database, number)) == 4


async def test_a_hand_over_makes_somebody_else_responsible(
    tickets: TicketService, database: Database, number: str
) -> None:
    await tickets.take(number, "wang", how="page")
    await tickets.hand_over(number, "li", actor="engineer:wang", note="我下班了")
    await tickets.hand_over(number, "li", actor="engineer:wang", note="我下班了")
    body = {"engineer": "li", "before": "wang", "note": "我下班了"}
    assert await last(database, number) == [("engineer:wang", "handed_over", body)]
    assert (await stored(database))["assignee_id"] == 102
    assert not await tickets.take(number, "wang", how="page")


async def test_a_new_ticket_that_was_handed_to_somebody_is_anybodys_to_take(
    tickets: TicketService, database: Database, number: str
) -> None:
    await tickets.hand_over(number, "li", actor=AMY)
    row = await stored(database)
    assert (row["state"], row["assignee_id"], row["acknowledged_at"]) == ("new", 102, None)
    assert await tickets.take(number, "wang", how="page")
    assert not await tickets.take(number, "li", how="page")
    assert (await stored(database))["assignee_id"] == 101


async def test_who_was_handed_a_new_ticket_takes_it_by_saying_so(
    tickets: TicketService, database: Database, number: str
) -> None:
    await tickets.hand_over(number, "li", actor=AMY)
    assert await tickets.take(number, "li", how="web", actor=AMY)
    assert (await last(database, number))[0][:2] == (AMY, "acknowledged")
    assert (await stored(database))["state"] == "in_progress"


async def test_only_engineers_are_given_anything(
    tickets: TicketService, database: Database, number: str
) -> None:
    for key in ("chen", "nobody", ""):
        with pytest.raises(PermanentFailure, match="engineer"):
            await tickets.hand_over(number, key, actor=AMY)
        with pytest.raises(PermanentFailure, match="engineer"):
            await tickets.dispatch(number, key, actor=AMY)
        with pytest.raises(PermanentFailure, match="engineer"):
            await tickets.take(number, key, how="web", actor=AMY)
    with pytest.raises(PermanentFailure, match="engineer"):
        await tickets.answered(number, actor=AMY, how="reply", engineer="chen")
    assert [entry.action for entry in await journal_of(database, number)] == ["opened"]


async def test_a_ticket_that_is_over_stays_as_it_is(
    tickets: TicketService, database: Database, number: str
) -> None:
    await tickets.act(number, Action.CANCEL, actor=AMY)
    for refused in (
        tickets.classify(number, Classification(impact=Impact.COMPANY), actor=AMY),
        tickets.updated(number, actor=AMY, note="x"),
        tickets.hand_over(number, "li", actor=AMY),
        tickets.assign_team(number, "network", actor=AMY),
        tickets.set_contract(number, "standard", actor=AMY),
        tickets.dispatch(number, "wang", actor=AMY),
        tickets.confirm(number, solved=True, actor="requester", how="call"),
    ):
        with pytest.raises(ActionNotAllowed, match="cancelled"):
            await refused
    assert len(await journal_of(database, number)) == 2


async def test_what_nobody_knows_is_not_found(tickets: TicketService) -> None:
    for wrong in (
        tickets.classify("1", Classification(), actor=AMY),
        tickets.answered("1", actor=AMY, how="reply"),
        tickets.dispatch("1", "wang", actor=AMY),
        tickets.dispatch_step("1", Step.ACCEPT, actor=AMY),
        tickets.confirm("1", solved=True, actor="requester", how="call"),
    ):
        with pytest.raises(NotFound):
            await wrong


# The requester's word


async def test_a_requester_who_confirms_closes_the_ticket(
    tickets: TicketService, database: Database, number: str, clock: FakeClock
) -> None:
    await tickets.take(number, "wang", how="page")
    await tickets.act(number, Action.RESOLVE, actor="engineer:wang")
    clock.advance(timedelta(hours=1))
    await tickets.confirm(number, solved=True, actor="requester", how="call")
    assert await last(database, number) == [
        ("requester", "closed", {"how": "call", "confirmed": True})
    ]
    assert (await stored(database))["closed_at"] == START + timedelta(hours=1)
    with pytest.raises(ActionNotAllowed):
        await tickets.confirm(number, solved=False, actor="requester", how="call")


async def test_a_requester_who_says_no_reopens_the_ticket(
    tickets: TicketService, database: Database, number: str
) -> None:
    await tickets.take(number, "wang", how="page")
    with pytest.raises(ActionNotAllowed):
        await tickets.confirm(number, solved=False, actor="requester", how="text")
    await tickets.act(number, Action.RESOLVE, actor="engineer:wang")
    await tickets.confirm(number, solved=False, actor="requester", how="text", note="还是卡纸")
    assert await last(database, number) == [
        ("requester", "reopened", {"how": "text", "note": "还是卡纸"})
    ]
    row = await stored(database)
    assert (row["state"], row["closed_at"], row["assignee_id"]) == ("in_progress", None, 101)


# Dispatch


async def codes(database: Database) -> list[str]:
    found = await rows(database, select(dispatches).order_by(dispatches.c.number))
    return [row["code"] for row in found]


async def visits(database: Database) -> list[tuple[str, str]]:
    found = await rows(database, select(dispatches).order_by(dispatches.c.number))
    return [(row["engineer"], row["state"]) for row in found]


def wrong(code: str) -> str:
    return f"{(int(code) + 1) % 10_000:04}"


async def test_a_dispatch_goes_from_offered_to_done_and_its_code_is_on_no_journal(
    tickets: TicketService, database: Database, number: str, clock: FakeClock
) -> None:
    assert await tickets.dispatch(number, "wang", actor=AMY) == 1
    (code,) = await codes(database)
    assert len(code) == 4
    assert code.isdigit()
    for step in (Step.ACCEPT, Step.SET_OUT):
        await tickets.dispatch_step(number, step, actor="engineer:wang")
    clock.advance(timedelta(hours=1))
    await tickets.dispatch_step(number, Step.ARRIVE, actor="engineer:wang", code=code)
    await tickets.dispatch_step(number, Step.FINISH, actor="engineer:wang")
    entries = await journal_of(database, number)
    assert [(entry.actor, entry.action) for entry in entries[1:]] == [
        (AMY, "dispatch.offered"),
        ("engineer:wang", "dispatch.accepted"),
        ("engineer:wang", "acknowledged"),
        ("engineer:wang", "dispatch.on_way"),
        ("engineer:wang", "dispatch.arrived"),
        ("engineer:wang", "dispatch.done"),
    ]
    assert entries[5].body == {"dispatch": 1, "engineer": "wang", "proved": True}
    assert not any(code in str(entry.body.get("code", "")) for entry in entries)
    assert not any("code" in entry.body for entry in entries)
    (row,) = await rows(database, select(dispatches))
    assert (row["state"], row["is_proved"]) == ("done", True)
    assert row["updated_at"] == START + timedelta(hours=1)


async def test_who_accepts_gets_the_ticket_only_if_nobody_has_it(
    tickets: TicketService, database: Database, number: str
) -> None:
    await tickets.take(number, "li", how="page")
    await tickets.dispatch(number, "wang", actor="engineer:li")
    await tickets.dispatch_step(number, Step.ACCEPT, actor="engineer:wang")
    assert (await last(database, number))[0][1] == "dispatch.accepted"
    assert (await stored(database))["assignee_id"] == 102


async def test_a_wrong_code_is_refused_and_counted_although_it_is_refused(
    tickets: TicketService, database: Database, number: str
) -> None:
    await tickets.dispatch(number, "wang", actor=AMY)
    (code,) = await codes(database)
    for left in (4, 3, 2, 1, 0):
        with pytest.raises(WrongCode, match=f"{left} more"):
            await tickets.dispatch_step(
                number, Step.ARRIVE, actor="engineer:wang", code=wrong(code)
            )
    for _ in range(3):
        with pytest.raises(WrongCode, match="too many"):
            await tickets.dispatch_step(number, Step.ARRIVE, actor="engineer:wang", code=code)
    assert await visits(database) == [("wang", "offered")]
    actions = [entry.action for entry in await journal_of(database, number)]
    assert actions == ["opened", "dispatch.offered", *["dispatch.code_refused"] * 5]
    await tickets.dispatch_step(number, Step.ARRIVE, actor="engineer:wang")
    assert (await rows(database, select(dispatches)))[0]["is_proved"] is False


async def test_who_declines_is_followed_by_the_next_with_a_code_of_their_own(
    tickets: TicketService, database: Database, number: str
) -> None:
    for engineer in ("wang", "li", "wang"):
        await tickets.dispatch(number, engineer, actor=AMY)
        await tickets.dispatch_step(number, Step.DECLINE, actor=f"engineer:{engineer}")
    assert await tickets.dispatch(number, "li", actor=AMY) == 4
    assert await visits(database) == [
        ("wang", "declined"), ("li", "declined"), ("wang", "declined"), ("li", "offered"),
    ]  # fmt: skip
    assert len(set(await codes(database))) > 1
    with pytest.raises(ActionNotAllowed, match="declined"):
        await tickets.dispatch_step(number, Step.ACCEPT, actor="engineer:wang")
    with pytest.raises(ActionNotAllowed, match="somebody else"):
        await tickets.dispatch_step(number, Step.ACCEPT, actor="engineer:wang", dispatch=4)
    await tickets.dispatch_step(number, Step.ACCEPT, actor=AMY)
    assert (await visits(database))[3] == ("li", "accepted")


@pytest.mark.parametrize("action", [Action.RESOLVE, Action.CANCEL])
async def test_nobody_travels_for_a_ticket_that_is_over(
    tickets: TicketService, database: Database, number: str, action: Action
) -> None:
    for engineer in ("wang", "li"):
        await tickets.dispatch(number, engineer, actor=AMY)
        await tickets.dispatch_step(number, Step.SET_OUT, actor=f"engineer:{engineer}")
    await tickets.dispatch_step(number, Step.ARRIVE, actor="engineer:wang")
    await tickets.act(number, action, actor=AMY)
    assert await visits(database) == [("wang", "arrived"), ("li", "cancelled")]
    (entry,) = await last(database, number)
    assert entry[:2] == (AMY, "dispatch.cancelled")
    assert entry[2]["engineer"] == "li"
    await tickets.dispatch_step(number, Step.FINISH, actor="engineer:wang")
    assert (await visits(database))[0] == ("wang", "done")


async def test_a_step_said_twice_is_one_entry_and_wakes_nobody(
    tickets: TicketService, database: Database, number: str
) -> None:
    await tickets.dispatch(number, "wang", actor=AMY)
    await tickets.dispatch_step(number, Step.ACCEPT, actor="engineer:wang")
    before = (len(await journal_of(database, number)), await due(database))
    await tickets.dispatch_step(number, Step.ACCEPT, actor="engineer:wang")
    assert (len(await journal_of(database, number)), await due(database)) == before


async def test_tickets_keep_their_visits_apart(
    tickets: TicketService, database: Database, number: str
) -> None:
    other: Contact = call(2)
    second = (await tickets.receive(other)).ticket
    assert [await tickets.dispatch(each, "wang", actor=AMY) for each in (number, second)] == [1, 1]
    await tickets.dispatch_step(number, Step.ACCEPT, actor="engineer:wang")
    found = await rows(database, select(dispatches).order_by(dispatches.c.id))
    assert [row["state"] for row in found] == ["accepted", "offered"]
    instant: datetime = found[0]["updated_at"]
    assert instant.tzinfo is not None
