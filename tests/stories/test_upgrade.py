"""A desk of revision 0001 with open tickets: after the upgrade somebody is told of each."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, MetaData
from sqlalchemy.ext.asyncio import create_async_engine

from contactd.routing.notify import Reason, SendState
from contactd.settings import Settings, SmsSettings
from contactd.store.engine import Database, driver_url, upgrade
from contactd.store.migrations.run import run
from contactd.tickets import journal
from contactd.tickets.contact import Medium
from contactd.tickets.journal import Draft, instant_text
from contactd.tickets.states import State
from tests.fakes.clock import FakeClock
from tests.fakes.desk import FLOOR, Desk, minutes
from tests.fakes.postgres import PostgresServer

PAGED, TAKEN, SOLVED = "26111900016", "26111900024", "26111900032"


@pytest.fixture
def opened() -> datetime:
    """Return when the tickets came in: the migration reads the machine's clock, not ours."""
    return datetime.now(UTC) - timedelta(hours=2)


@pytest.fixture
async def upgraded(
    database_url: str, request: pytest.FixtureRequest, tmp_path: Path, opened: datetime
) -> AsyncIterator[Desk]:
    """Make a database of revision 0001, upgrade it and open a desk on it."""
    server: PostgresServer | None = None
    if database_url.startswith("sqlite"):
        url = f"sqlite:///{tmp_path}/old.sqlite3"
    else:
        server = request.getfixturevalue("postgres")
        assert server is not None
        url = server.create("contactd_old")
    engine = create_async_engine(driver_url(url))
    async with engine.begin() as connection:
        await connection.run_sync(run, "0001")
        await connection.run_sync(old_desk, opened)
    await engine.dispose()
    await upgrade(url)
    clock = FakeClock(datetime.now(UTC))
    database = Database(url, clock=clock)
    async with database.running():
        # It may be night: what texts wait for is another story.
        any_hour = SmsSettings.model_validate({"quiet_from": "00:00", "quiet_until": "00:00"})
        desk = Desk(database, clock, settings=Settings(sms=any_hour))
        await desk.keep_duty()
        yield desk
        await desk.check()
    if server is not None:
        server.drop("contactd_old")


def old_desk(connection: Connection, opened: datetime) -> None:
    """Write what revision 0001 held: one caller is being paged for, two have been helped."""
    tables = MetaData()
    tables.reflect(connection)
    is_sqlite = connection.dialect.name == "sqlite"

    def insert(table: str, *rows: dict[str, Any]) -> None:
        for row in rows:
            stored = {
                name: instant_text(value) if is_sqlite and isinstance(value, datetime) else value
                for name, value in row.items()
            }
            connection.execute(tables.tables[table].insert().values(**stored))

    site = {
        "key": "gz", "name_zh": "广州", "name_en": "gz", "zone": "Asia/Shanghai",
        "language": "zh", "queue": "gz", "floor": FLOOR, "area_code": "20",
    }  # fmt: skip
    insert("sites", site)
    insert(
        "people",
        {"id": 1, "name": "张三", "site": "gz", "role": "requester", "created_at": opened},
        {"id": 2, "key": "wang", "name": "王伟", "role": "engineer", "created_at": opened},
    )
    insert("addresses", {"kind": "phone", "value": "+8613922223333", "person_id": 1})
    insert("rotas", {"id": 1, "body": old_rota(site), "loaded_at": opened})
    for place, (number, entries) in enumerate(old_journals(opened).items(), start=1):
        chained = journal.chain(number, entries, seq=0, prev_hash="")
        taken = {"assignee_id": 2, "acknowledged_at": opened} if number != PAGED else {}
        insert(
            "tickets",
            {
                "id": place, "number": number, "requester_id": 1, "site": "gz",
                "state": entries[-1].state, "impact": 3, "urgency": 2, "priority": "P3",
                "priority_reason": "impact person, urgency medium", "opened_at": opened,
                "last_contact_at": opened, "updated_at": opened,
                "journal_seq": len(chained), "journal_hash": chained[-1].hash, **taken,
            },
        )  # fmt: skip
        insert(
            "contacts",
            {
                "id": place, "ticket_id": place, "person_id": 1, "medium": "call",
                "external_id": f"pbx1-{place}.1", "direction": "in", "source": "live",
                "received_at": opened, "outcome": "unreached", "filed_at": opened,
            },
        )  # fmt: skip
        insert("journal", *({**_stored(entry), "ticket_id": place} for entry in chained))
    page = {"ticket_id": 1, "contact_id": 1, "step": 1, "reason": "missed", "since": 0}
    insert(
        "outbox",
        {
            "kind": "PageDue", "body": page, "dedup_key": "page-1-1", "created_at": opened,
            "due_at": opened, "attempts": 0, "error": "",
        },
    )  # fmt: skip
    insert(
        "notifications",
        {
            "dedup_key": "page-1-0", "ticket_id": 1, "contact_id": 1, "step": 0,
            "engineer": "wang", "address": "+8613800000001", "medium": "call",
            "client_ref": "page-pbx1-1.1-0", "state": "sending", "created_at": opened,
            "updated_at": opened,
        },
    )  # fmt: skip


def old_rota(site: dict[str, str]) -> dict[str, Any]:
    wang = {"key": "wang", "name": "王伟", "number": "+8613800000001", "language": "zh"}
    shift = {
        "site": "gz", "tier": 1, "engineer": "wang", "weekdays": list(range(7)),
        "start": "00:00:00", "end": "00:00:00",
    }  # fmt: skip
    return {"sites": [site], "engineers": [wang], "shifts": [shift], "overrides": []}


def old_journals(opened: datetime) -> dict[str, Sequence[Draft]]:
    return {
        PAGED: [
            _opened(opened, 1),
            _ended(opened, 1, "unreached"),
            _said(opened, "system", "page.sent", "new", engineer="wang", step=0),
        ],
        TAKEN: [
            _opened(opened, 2),
            _ended(opened, 2, "unreached"),
            _said(opened, "engineer:wang", "acknowledged", "in_progress", how="page",
                  acknowledged_at=instant_text(opened)),
            _said(opened, "engineer:wang", "page.taken", "in_progress", engineer="wang", step=0),
        ],
        SOLVED: [
            _opened(opened, 3),
            _said(opened, "engineer:wang", "call.answered", "new", contact="pbx1-3.1",
                  answered_at=instant_text(opened)),
            _said(opened, "engineer:wang", "acknowledged", "in_progress", how="call",
                  acknowledged_at=instant_text(opened)),
            _ended(opened, 3, "answered"),
            _said(opened, "engineer:wang", "resolved", "resolved"),
        ],
    }  # fmt: skip


def _opened(at: datetime, place: int) -> Draft:
    return _said(
        at, "requester", "opened", "new", medium="call", contact=f"pbx1-{place}.1", source="live",
        received_at=instant_text(at), priority="P3", reason="impact person, urgency medium",
    )  # fmt: skip


def _ended(at: datetime, place: int, outcome: str) -> Draft:
    return _said(
        at, "system", "call.ended", "new" if outcome == "unreached" else "in_progress",
        contact=f"pbx1-{place}.1", outcome=outcome, ended_at=instant_text(at), waited_s=None,
        talked_s=None, reason="", voicemail=False,
    )  # fmt: skip


def _said(at: datetime, actor: str, action: str, state: str, **body: Any) -> Draft:
    return Draft(at=at, actor=actor, action=action, state=state, body=body)


def _stored(entry: journal.Entry) -> dict[str, Any]:
    names = ("seq", "at", "actor", "action", "state", "prev_hash", "hash")
    return {**{name: getattr(entry, name) for name in names}, "body": dict(entry.body)}


async def test_who_was_being_paged_for_is_paged_for_again(upgraded: Desk) -> None:
    await upgraded.drain()
    assert upgraded.told(PAGED) == [("wang", Medium.CALL, Reason.MISSED)]
    assert (await upgraded.sent_states(PAGED))["page-pbx1-1.1-0"] is SendState.DOUBTFUL
    assert await upgraded.press("wang", "1") == "taken"
    assert await upgraded.assignee(PAGED) == "wang"


async def test_who_was_helped_is_asked_and_nobody_else_is_rung(upgraded: Desk) -> None:
    await upgraded.drain()
    assert upgraded.told(SOLVED) == [("requester", Medium.TEXT, Reason.SOLVED)]
    await upgraded.press("wang", "1")
    upgraded.forget()
    await upgraded.fast_forward(minutes(30))
    assert upgraded.phones_that_rang() == []


async def test_promises_of_before_have_clocks(upgraded: Desk) -> None:
    await upgraded.drain()
    clocks = {number: await upgraded.clocks(number) for number in (PAGED, TAKEN, SOLVED)}
    states = {number: found["answer"]["state"] for number, found in clocks.items()}
    assert states == {PAGED: "running", TAKEN: "running", SOLVED: "stopped"}


@pytest.mark.parametrize("opened", [datetime.now(UTC) - timedelta(days=7)])
async def test_who_was_helped_a_week_before_is_asked_once_and_has_time_to_answer(
    upgraded: Desk,
) -> None:
    for _ in range(10):
        upgraded.clock.advance(timedelta(milliseconds=20))
        await upgraded.drain()
    assert upgraded.told(SOLVED) == [("requester", Medium.TEXT, Reason.SOLVED)]
    assert await upgraded.state(SOLVED) is State.RESOLVED
