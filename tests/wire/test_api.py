"""The REST API on a real database: what it gives, to whom, and that the document says the same."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from pydantic import TypeAdapter

from contactd.routing import deskfile
from contactd.signals import Signals
from contactd.store import duty
from contactd.store.blobs import Blobs
from contactd.store.calls import Calls
from contactd.store.desk import load_desk
from contactd.store.deskversions import DeskVersions
from contactd.store.engine import Database
from contactd.store.ledger import Ledger
from contactd.store.terms import LastTerms
from contactd.store.views import Views
from contactd.tickets.contact import CallFacts, Contact, Filed, Leg, Medium, Outcome
from contactd.tickets.people import Role
from contactd.tickets.service import TicketService
from contactd.web import resources, resources_more
from contactd.web.access import ACTING, LISTENING, PERSONAL, PLANNING
from contactd.web.api import Api
from contactd.web.deskchanges import DeskChanges
from contactd.web.endpoints import PREFIX
from contactd.web.live import Live
from tests.fakes.board import HOSTILE_NAME
from tests.fakes.clock import FakeClock
from tests.fakes.site import Site, running_site

DESK = Path(__file__).parents[2] / "etc" / "desk.toml"
AUDIO = bytes(range(256)) * 64
ZONE = "Asia/Shanghai"


class World:
    """An API over a database with one call in it, and a client that holds a role's token."""

    def __init__(
        self, site: Site, http: aiohttp.ClientSession, call: Filed, contact: Contact,
        clock: FakeClock,
    ) -> None:  # fmt: skip
        self.clock = clock
        self.site = site
        self.http = http
        self.call = call
        self.contact = contact

    async def ask(
        self, method: str, path: str, *, role: Role | None = Role.ADMIN, **options: Any
    ) -> tuple[int, Any]:
        headers = options.pop("headers", {})
        if role is not None:
            headers = headers | {"Authorization": f"Bearer cd_{role}"}
        url = path if path.startswith("/") else f"{PREFIX}/{path}"
        async with self.http.request(
            method, self.site.url + url, headers=headers, **options
        ) as answer:
            body = await answer.read()
        return answer.status, json.loads(body) if "json" in answer.content_type else body

    async def get(self, path: str, **options: Any) -> Any:
        status, body = await self.ask("GET", path, **options)
        assert status == 200, body
        return body


@pytest.fixture
async def world(
    database: Database, clock: FakeClock, tickets: TicketService, tmp_path: Path
) -> AsyncIterator[World]:
    desk = deskfile.read(DESK)
    await load_desk(database, desk, clock)
    engineer = desk.engineers[0].key
    started = clock.now()
    contact = Contact(
        medium=Medium.CALL,
        external_id="pbx1-1795140000.0",
        received_at=started,
        from_value="13912345678",
        from_name=HOSTILE_NAME,
        to_value="4008001234",
        outcome=Outcome.ANSWERED,
        call=CallFacts(
            pbx="pbx1",
            did="4008001234",
            final=True,
            stage="queue",
            answered_at=started + timedelta(seconds=20),
            ended_at=started + timedelta(seconds=80),
            waited=timedelta(seconds=12),
            talked=timedelta(seconds=60),
            legs=(Leg(engineer=engineer, answered_at=started + timedelta(seconds=20)),),
            keys="1",
        ),
    )
    filed = await tickets.receive(contact)
    blobs = Blobs(tmp_path / "blobs")
    recording = tmp_path / "call.wav"
    recording.write_bytes(AUDIO)
    blob = await blobs.put(recording, media_type="audio/wav")
    await Calls(database, clock).attach(filed.contact_id, "recording", blob)
    clock.advance(timedelta(minutes=5))
    ledger = Ledger(database, clock, ZONE)
    await ledger.settle(ledger.today(), "pbx1", {contact.external_id: started})

    def make_api(live: Live) -> Api:
        return Api(
            views=Views(database, clock),
            tickets=tickets,
            blobs=blobs,
            duties=partial(duty.duties, database, clock),
            live=live,
            clock=clock,
            zone=ZONE,
            terms=LastTerms(database, answer=timedelta(minutes=30), remote=timedelta(hours=2)),
            database=database,
            signals=Signals(),
            changes=DeskChanges(database, DeskVersions(database, clock), clock, Signals()),
        )

    async with running_site(make_api=make_api) as site, aiohttp.ClientSession() as http:
        yield World(site, http, filed, contact, clock)


async def test_a_ticket_comes_with_everything_about_it(world: World) -> None:
    ticket = await world.get(f"tickets/{world.call.ticket}")
    assert ticket["number"] == world.call.ticket
    assert ticket["requester"]["numbers"] == ["+8613912345678"]
    assert ticket["messages"] == []
    assert [entry["seq"] for entry in ticket["journal"]] == list(
        range(1, len(ticket["journal"]) + 1)
    )
    (contact,) = ticket["contacts"]
    assert contact["medium"] == "call"
    assert contact["from"] == "13912345678"
    assert contact["from_name"] == HOSTILE_NAME
    assert contact["call"]["waited_s"] == 12
    assert contact["call"]["legs"][0]["engineer"]
    assert "recording" not in contact["call"]  # a path of the PBX is nobody's business
    assert [file["kind"] for file in contact["attachments"]] == ["recording"]


async def test_tickets_are_listed_by_what_is_asked_page_by_page(
    world: World, tickets: TicketService, clock: FakeClock
) -> None:
    for number in range(5):
        clock.advance(timedelta(hours=1))
        await tickets.receive(
            Contact(
                medium=Medium.WEB,
                external_id=f"web-{number}",
                received_at=clock.now(),
                from_value=f"user{number}@example.cn",
            )
        )
    seen, cursor = [], ""
    while True:
        page = await world.get("tickets", params={"limit": 2, "cursor": cursor})
        seen += [ticket["number"] for ticket in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert len(seen) == len(set(seen)) == 6
    assert seen[-1] == world.call.ticket

    async def found(**params: Any) -> list[str]:
        page = await world.get("tickets", params=params)
        return [ticket["number"] for ticket in page["items"]]

    for form in ("139 1234 5678", "+8613912345678", "0086 139-1234-5678"):
        assert await found(requester=form) == [world.call.ticket]
    assert await found(requester="User3@example.cn") == [seen[1]]
    assert len(await found(state=["new", "pending"])) == 5
    assert await found(state="closed") == []
    opened = world.contact.received_at.isoformat()
    assert await found(opened_to=opened) == []
    assert len(await found(opened_from=opened)) == 6
    assert await found(site="nowhere") == []


@pytest.mark.parametrize(
    ("path", "where"),
    [
        ("tickets?limit=0", "query.limit"),
        ("tickets?limit=2&limit=3", "query.limit"),
        ("tickets?state=asleep", "query.state.0"),
        ("tickets?opened_from=2026-11-20T10:00:00", "query.opened_from"),
        ("tickets?colour=red", "query.colour"),
        ("tickets?cursor=%00%ff", None),
        ("contacts?cursor=AAAA", None),
        ("contacts?medium=fax", "query.medium"),
        ("ledger?from=2026-01-01&to=2025-01-01", None),
        ("ledger?from=1000-01-01", None),
        ("ledger?to=0001-01-01", None),
        ("oncall?at=9999-12-31T23:59:59Z", None),
        ("oncall?at=0001-01-01T00:00:00Z", None),
    ],
)
async def test_a_wrong_query_is_named_not_repeated(
    world: World, path: str, where: str | None
) -> None:
    status, problem = await world.ask("GET", path)
    assert status == 400
    if where:
        assert [error["where"] for error in problem["errors"]] == [where]
        assert "asleep" not in json.dumps(problem)


async def test_a_ticket_is_opened_once_however_often_it_is_sent(world: World) -> None:
    sent = {"from": "0755 8888 1234", "name": "张三", "text": "打印机卡纸", "external_id": "OA-7"}
    status, opened = await world.ask("POST", "tickets", json=sent, role=Role.DESK)
    assert status == 201
    assert opened["opened"]
    again = await world.ask("POST", "tickets", json=sent, role=Role.DESK)
    assert again == (200, opened | {"opened": False})
    other = await world.ask("POST", "tickets", json=sent, role=Role.ENGINEER)
    assert other[0] == 201  # another system's OA-7 is another contact
    ticket = await world.get(opened["url"])
    assert [contact["text"] for contact in ticket["contacts"]][:1] == ["打印机卡纸"]
    assert {contact["medium"] for contact in ticket["contacts"]} == {"web"}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{}", 422), (b"", 422), (b"[1]", 422), (b"{", 422), (b"\xff", 422),
        (b'{"from": "1", "text": ""}', 422), (b'{"from": "1", "text": "x", "more": 1}', 422),
        (b'{"from": "' + b"1" * 300 + b'", "text": "x"}', 422), (b"[" * 100_000, 422),
    ],
)  # fmt: skip
async def test_a_wrong_body_is_refused(world: World, body: bytes, status: int) -> None:
    headers = {"Content-Type": "application/json"}
    assert (await world.ask("POST", "tickets", data=body, headers=headers))[0] == status


async def test_a_form_is_not_json(world: World) -> None:
    assert (await world.ask("POST", "tickets", data={"from": "1", "text": "x"}))[0] == 415


async def test_a_ticket_says_how_its_clocks_stand(world: World) -> None:
    ticket = await world.get(f"tickets/{world.call.ticket}")
    started = world.contact.received_at
    [clock] = ticket["clocks"]
    assert (clock["metric"], clock["state"], clock["breached_at"]) == ("answer", "stopped", None)
    found = {
        key: datetime.fromisoformat(clock[key]) - started
        for key in ("started_at", "stopped_at", "due_at")
    }
    assert found == {
        "started_at": timedelta(0),
        "stopped_at": timedelta(seconds=20),
        "due_at": timedelta(minutes=30),
    }
    numbers = ("entry", "goal_s", "spent_s", "provisional", "breach_stands")
    assert [clock[name] for name in numbers] == [1, 1800, 20, False, False]
    [segment] = clock["segments"]
    shown = ("running", "reason", "entry", "goal_s", "calendar", "worked_s")
    assert [segment[name] for name in shown] == [True, "contact_received", 1, 1800, "always", 20]


async def test_actions_move_a_ticket_and_are_on_its_journal(world: World) -> None:
    path = f"tickets/{world.call.ticket}/actions"
    status, ticket = await world.ask("POST", f"{path}/resolve", json={"note": "换了硒鼓"})
    assert (status, ticket["state"]) == (200, "resolved")
    assert ticket["journal"][-1]["actor"] == "user:oa-admin"
    status, problem = await world.ask("POST", f"{path}/acknowledge")
    assert status == 409
    assert "resolved" in problem["detail"]
    assert (await world.ask("POST", f"{path}/explode"))[0] == 404
    assert (await world.ask("POST", "tickets/1/actions/close"))[0] == 404


async def test_a_recording_is_sent_whole_and_by_range(world: World) -> None:
    (contact,) = (await world.get("contacts"))["items"]
    (file,) = contact["attachments"]
    assert await world.get(file["url"]) == AUDIO
    status, part = await world.ask("GET", file["url"], headers={"Range": "bytes=100-199"})
    assert (status, part) == (206, AUDIO[100:200])
    status, _ = await world.ask("GET", file["url"], headers={"Range": "bytes=99999999-"})
    assert status == 416
    async with world.http.get(
        world.site.url + file["url"], headers={"Authorization": "Bearer cd_quality"}
    ) as answer:
        assert answer.headers["Content-Type"] == "audio/wav"
        assert answer.headers["Accept-Ranges"] == "bytes"
        assert answer.headers["Content-Disposition"].startswith("inline; filename*=UTF-8''")
        assert "sandbox" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize("id_", ["0", "9" * 18, "9" * 40, "-1", "x", "%2e%2e%2fetc%2fpasswd", "١"])
async def test_there_is_nothing_behind_other_ids(world: World, id_: str) -> None:
    for kind in ("attachments", "contacts"):
        assert (await world.ask("GET", f"{kind}/{id_}"))[0] == 404


async def test_duty_is_told_for_any_instant_and_site(world: World) -> None:
    at = "2026-11-21T20:30:00+08:00"
    told = await world.get("oncall", params={"at": at})
    assert datetime.fromisoformat(told["at"]) == datetime.fromisoformat(at)
    assert {duty["site"] for duty in told["now"]} == {"gz", "sz", "zh", "fs", "zq"}
    alone = await world.get("oncall", params={"at": at, "site": "gz"})
    assert alone["now"] == [duty for duty in told["now"] if duty["site"] == "gz"]
    assert all("number" not in duty["engineer"] for duty in told["now"])
    (backup,) = [duty for duty in alone["now"] if duty["tier"] == 2]
    assert (backup["team"], backup["causes"], backup["why"]) == (
        "field",
        ["shift xu-field"],
        "shift",
    )
    assert (await world.ask("GET", "oncall?site=mars"))[0] == 404


async def test_the_ledger_is_told_by_day(world: World) -> None:
    (day,) = (await world.get("ledger"))["items"]
    assert (day["outside"], day["contacts"], day["balanced"]) == (1, 1, True)
    assert (await world.get("ledger?from=2020-01-01&to=2020-01-31"))["items"] == []


async def test_status_masks_callers_and_names_the_worst(world: World) -> None:
    report = await world.get("status", role=Role.OPERATIONS)
    assert report["state"] == "degraded"
    assert report["phase"] == "serving"
    assert "…5678" in {call["caller"] for call in report["calls"]}
    assert "13912345678" not in json.dumps(report)


# The document

PARTS = {"number": "ticket", "action": "acknowledge"}
SENT: dict[str, Any] = {f"{PREFIX}/tickets": {"from": "13800138000", "text": "x"}}


async def described(world: World) -> dict[str, Any]:
    document: dict[str, Any] = await world.get("openapi.json", role=None)
    return document


async def test_every_route_is_in_the_document_and_the_other_way_round(world: World) -> None:
    document = await described(world)
    documented = {
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method in operations
    }
    routed = {
        (route.method, route.path)
        for route in world.site.httpd._routes
        if route.path.startswith("/api/")
    }
    assert routed - documented == {("GET", f"{PREFIX}/openapi.json")}
    assert documented <= routed


async def test_every_reference_of_the_document_leads_somewhere(world: World) -> None:
    document = await described(world)
    text = json.dumps(document)
    for part in text.split('"$ref": "')[1:]:
        name = part.partition('"')[0].removeprefix("#/components/schemas/")
        assert name in document["components"]["schemas"]
    identifiers = [
        operation["operationId"]
        for operations in document["paths"].values()
        for operation in operations.values()
    ]
    assert len(identifiers) == len(set(identifiers))


async def test_every_answer_is_what_the_document_says(world: World) -> None:
    """Each end point is asked with each role; answers are read back through the declared types."""
    document = await described(world)
    contact = (await world.get("contacts"))["items"][0]
    person = (await world.get("people"))["items"][0]["id"]
    schemas = {name.split("-")[0]: kind for name, kind in _kinds().items()}
    parts = {
        "number": world.call.ticket, "action": "hold", "contact": contact["id"],
        "attachment": contact["attachments"][0]["id"], "person": person, "version": 1,
        "webhook": 1, "user": "li", "token": "oa",
    }  # fmt: skip
    read = 0
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            url = path.format_map(parts)
            for role in Role:
                status, body = await world.ask(method, url, role=role, json=SENT.get(path))
                assert str(status) in operation["responses"], (method, path, role, body)
                allowed = role in operation["description"]
                if "{attachment}" in path:  # it is a recording
                    allowed = role in LISTENING
                if path.endswith("/duty-requests"):  # those of everybody
                    allowed = role in PLANNING
                assert (status == 403) == (not allowed), (method, path, role)
                content = operation["responses"][str(status)]["content"]
                schema = next(iter(content.values()))["schema"]
                if "$ref" in schema:
                    name = schema["$ref"].rpartition("/")[2].split("-")[0]
                    TypeAdapter(schemas[name]).validate_json(json.dumps(body), strict=True)
                    read += 1
            status, _ = await world.ask(method, url, role=None)
            assert status == 401
    assert read > 60


def _kinds() -> dict[str, Any]:
    kinds: dict[str, Any] = {
        name: kind
        for module in (resources, resources_more)
        for name, kind in vars(module).items()
        if isinstance(kind, type)
    }
    pages: list[Any] = [
        resources.Page.__class_getitem__(kind)
        for kind in kinds.values()
        if issubclass(kind, resources.Resource)
        and not kind.__pydantic_generic_metadata__["parameters"]
    ]
    return kinds | {page.__name__.replace("[", "_").replace("]", "_"): page for page in pages}


def test_operations_see_nothing_personal_and_few_hear_recordings() -> None:
    assert Role.OPERATIONS not in PERSONAL
    assert {Role.SUPERVISOR, Role.MANAGER, Role.QUALITY, Role.ADMIN} == LISTENING
    assert ACTING < PERSONAL


async def test_the_database_away_is_503_try_again(
    world: World, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await database.close()
    status, problem = await world.ask("GET", "tickets")
    assert status == 503
    assert problem["detail"] == "nothing was done; try again"
    await database.open()


async def test_fifty_askers_at_once_are_all_served(world: World) -> None:
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(world.ask("GET", "tickets")) for _ in range(50)]
    assert {task.result()[0] for task in asked} == {200}
