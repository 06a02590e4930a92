"""What belongs to another site is, for the API, as if it were not there (requirement D6)."""

import re
from typing import Any

import pytest

from contactd.store.blobs import Blobs
from contactd.store.calls import Calls
from contactd.store.engine import Database
from contactd.tickets.contact import Contact, Filed, Medium
from contactd.tickets.people import Card, Role
from contactd.tickets.service import TicketService
from tests.fakes.clock import FakeClock
from tests.fakes.site import FakeIdentity
from tests.wire.test_api import World, world

__all__ = ["world"]  # the fixture

GZ, SZ = "02088881234", "075588881234"  # their area codes


class Two:
    """The API with a ticket of each of two sites; who asks sees that of Guangzhou only."""

    def __init__(self, world: World, ours: Filed, theirs: Filed, none: Filed) -> None:
        self.world, self.ours, self.theirs, self.none = world, ours, theirs, none

    async def ask(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        headers = {"Authorization": "Bearer cd_gz"} | options.pop("headers", {})
        return await self.world.ask(method, path, role=None, headers=headers, **options)

    async def get(self, path: str) -> Any:
        status, body = await self.ask("GET", path)
        assert status == 200, body
        return body


@pytest.fixture
async def two(
    world: World, database: Database, tickets: TicketService, clock: FakeClock, tmp_path: Any
) -> Two:
    world.site.accounts.tokens["cd_gz"] = FakeIdentity(
        name="gz-admin", role=Role.ADMIN, sites=frozenset({"gz"})
    )
    filed = [
        await tickets.receive(
            Contact(
                medium=Medium.WEB, external_id=f"web-{value}", received_at=clock.now(),
                from_value=value, text=f"printer of {value}",
            )
        )
        for value in (GZ, SZ, "anybody@example.cn")
    ]  # fmt: skip
    blob = await Blobs(tmp_path / "blobs").put_bytes(b"x", media_type="text/plain", name="x.txt")
    for each in filed:
        await Calls(database, clock).attach(each.contact_id, "attachment", blob)
    for each, site in zip(filed, ("gz", "sz", None), strict=True):
        ticket = await world.get(f"tickets/{each.ticket}")
        assert ticket["site"] == site
        if site:
            person = ticket["requester"]["id"]
            await tickets.complete_person(person, Card(site=site), actor="user:li")
    ours, theirs, none = filed
    return Two(world, ours, theirs, none)


async def ids(world: World, filed: Filed) -> dict[str, Any]:
    ticket = await world.get(f"tickets/{filed.ticket}")
    [contact] = ticket["contacts"]
    return {
        "number": filed.ticket, "contact": contact["id"], "action": "acknowledge",
        "attachment": contact["attachments"][0]["id"], "person": ticket["requester"]["id"],
    }  # fmt: skip


async def test_lists_leave_out_what_belongs_to_others(two: Two) -> None:
    ours = {two.ours.ticket, two.none.ticket}  # what is nobody's is everybody's
    for query in ("tickets", "tickets?sort=newest", "tickets?state=new&sort=priority"):
        found = {each["number"] for each in (await two.get(query))["items"]}
        assert two.theirs.ticket not in found
        assert two.ours.ticket in found
    contacts = {each["ticket"] for each in (await two.get("contacts?medium=web"))["items"]}
    assert contacts == ours
    assert (await two.get(f"contacts?ticket={two.theirs.ticket}"))["items"] == []
    assert (await two.get("tickets?site=sz"))["items"] == []
    people = (await two.get("people?limit=200"))["items"]
    assert {each["site"] for each in people} <= {"gz", None}
    assert [each["key"] for each in (await two.get("sites"))["items"]] == ["gz"]
    told = await two.get("oncall")
    assert {each["site"] for each in (*told["now"], *told["next"])} == {"gz"}
    assert {each["site"] for each in (await two.get("oncall/range"))["items"]} == {"gz"}
    assert {each["site"] for each in (await two.get("status"))["calls"]} <= {"gz", ""}
    for path in ("oncall?site=sz", "oncall/range?site=sz"):
        assert (await two.ask("GET", path))[0] == 404


async def test_nothing_of_another_site_is_found_by_any_end_point(two: Two) -> None:
    """The answer is the one for what does not exist, word for word."""
    document = (await two.world.ask("GET", "openapi.json", role=None))[1]
    theirs, mine = await ids(two.world, two.theirs), await ids(two.world, two.ours)
    unknown = {
        "number": "26010100019", "contact": 10**9, "attachment": 10**9, "person": 10**9,
        "action": "acknowledge",
    }  # fmt: skip
    checked = 0
    for path, operations in document["paths"].items():
        parts = set(re.findall(r"{(\w+)}", path)) & {"number", "contact", "attachment", "person"}
        if not parts:
            continue
        for method in operations:
            body = _body(path)
            status, found = await two.ask(method, path.format_map(theirs), **body)
            missing = await two.ask(method, path.format_map(unknown), **body)
            assert (status, found) == missing, (method, path)
            assert status == 404, (method, path)
            status, found = await two.ask(method, path.format_map(mine), **body)
            names_others = path.endswith(("/merge", "/set_requester", "/dispatch_step"))
            assert status != 404 or names_others, (method, path, found)
            checked += 1
    assert checked > 25


_BODIES: dict[str, dict[str, Any]] = {
    "take": {"engineer": "nobody"}, "answered": {"how": "reply"}, "updated": {"note": "x"},
    "hand_over": {"engineer": "nobody"}, "assign_team": {"team": ""},
    "set_contract": {"contract": "x"}, "confirm": {"solved": True},
    "dispatch": {"engineer": "nobody"}, "dispatch_step": {"step": "accept"},
    "comment": {"words": "x"}, "ask_call_back": {"phone": "1"}, "text": {"words": "x"},
    "mail": {"words": "x"}, "mail-preview": {"words": "x"}, "text-preview": {"words": "x"},
}  # fmt: skip


def _body(path: str) -> dict[str, Any]:
    last = path.rpartition("/")[2]
    if last == "attachments":
        return {"data": b"x", "params": {"name": "x.txt"}}
    if last == "set_requester":
        return {"json": {"person": 10**9}}
    if last == "merge":
        return {"json": {"into": "26010100019"} if "number" in path else {"into": 10**9}}
    return {"json": _BODIES.get(last, {})}


async def test_nothing_is_moved_to_another_site_unseen(two: Two) -> None:
    theirs = await ids(two.world, two.theirs)
    path = f"tickets/{two.ours.ticket}/actions"
    mine = await ids(two.world, two.ours)
    for url, body in (
        (f"{path}/merge", {"into": two.theirs.ticket}),
        (f"{path}/set_requester", {"person": theirs["person"]}),
        (f"people/{mine['person']}/merge", {"into": theirs["person"]}),
    ):
        assert (await two.ask("POST", url, json=body))[0] == 404, url
    ticket = await two.world.get(f"tickets/{two.ours.ticket}")
    assert ticket["state"] == "new"
    status, _ = await two.ask("PATCH", f"people/{mine['person']}", json={"site": "sz"})
    assert status == 422


async def test_nobody_gives_others_more_sites_than_they_have(two: Two) -> None:
    hook = {"name": "crm", "url": "https://crm.example.com/"}
    user = {"name": "wu", "password": "correct horse", "role": "desk"}
    for path, body in (("tokens", {"name": "crm", "role": "desk"}), ("users", user)):
        assert (await two.ask("POST", path, json=body | {"sites": ["gz"]}))[0] == 403
        assert (await two.ask("GET", path))[0] == 403
    assert (await two.ask("POST", "webhooks", json=hook))[0] == 403
    assert (await two.ask("POST", "webhooks", json=hook | {"sites": ["gz", "sz"]}))[0] == 403
    assert (await two.ask("POST", "webhooks", json=hook | {"sites": ["gz"]}))[0] == 201
    status, made = await two.world.ask("POST", "webhooks", json=hook)
    assert status == 201
    for method, rest in (("GET", ""), ("DELETE", ""), ("PATCH", ""), ("GET", "/deliveries")):
        assert (await two.ask(method, f"webhooks/{made['id']}{rest}", json={}))[0] == 404
    assert [each["sites"] for each in (await two.get("webhooks"))["items"]] == [["gz"]]


async def test_a_recording_is_for_few_and_other_files_for_those_who_work_on_it(two: Two) -> None:
    file = (await ids(two.world, two.ours))["attachment"]
    assert (await two.world.ask("GET", f"attachments/{file}", role=Role.DESK))[0] == 200
    recorded = (await ids(two.world, two.world.call))["attachment"]
    assert (await two.world.ask("GET", f"attachments/{recorded}", role=Role.DESK))[0] == 403
    assert (await two.world.ask("GET", f"attachments/{recorded}", role=Role.QUALITY))[0] == 200
