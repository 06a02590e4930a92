"""Remote help by the API: who saw whose screen, sending the link, the end."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from contactd.errors import PermanentFailure
from contactd.signals import Signals
from contactd.store import duty
from contactd.store.blobs import Blobs
from contactd.store.engine import Database
from contactd.store.terms import LastTerms
from contactd.store.views import Views
from contactd.tickets.contact import Medium
from contactd.tickets.people import Role
from contactd.tickets.remote import Ending, State
from contactd.tickets.sharing import Counts, Invitation
from contactd.web.api import Api
from contactd.web.api_remote import RemoteApi
from contactd.web.endpoints import PREFIX
from contactd.web.live import Live
from tests.fakes.clock import FakeClock
from tests.fakes.desk import AT_GZ, AT_SZ, Desk, minutes
from tests.fakes.remote_desk import active, agreed, invited
from tests.fakes.site import FakeIdentity, running_site


@dataclass(slots=True, kw_only=True)
class FakeInviting:
    """Sends links to nobody; the real one is tested with the share page."""

    desk: Desk
    sent: list[tuple[str, str, Medium]]

    async def invite(self, number: str, *, actor: str, medium: Medium) -> "Sent":
        if medium is Medium.MAIL:
            raise PermanentFailure("the requester has no mail address")
        made = await self.desk.remote.invite(
            number, actor=actor, language="zh", medium=medium.value
        )
        self.sent.append((number, actor, medium))
        return Sent(made, medium)


class Sent:
    def __init__(self, made: Invitation, medium: Medium) -> None:
        self.session, self.expires_at, self.medium = made.session, made.expires_at, medium
        self.code = made.code


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    desk: Desk
    inviting: FakeInviting
    url: str
    http: aiohttp.ClientSession

    async def ask(
        self, method: str, path: str, body: Any = None, token: str = f"cd_{Role.DESK}", **more: str
    ) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {token}", **more}
        async with self.http.request(
            method, f"{self.url}{PREFIX}/{path}", json=body, headers=headers
        ) as answer:
            return answer.status, await answer.json()

    async def get(self, path: str, **more: str) -> Any:
        status, body = await self.ask("GET", path, **more)
        assert status == 200, body
        return body


@pytest.fixture
async def world(database: Database, clock: FakeClock, tmp_path: Path) -> AsyncIterator[World]:
    desk = Desk(database, clock)
    await desk.load()
    inviting = FakeInviting(desk=desk, sent=[])

    def make_api(live: Live) -> Api:
        return Api(
            views=Views(database, clock),
            tickets=desk.tickets,
            blobs=Blobs(tmp_path / "blobs"),
            duties=partial(duty.duties, database, clock),
            live=live,
            clock=clock,
            zone="Asia/Shanghai",
            terms=LastTerms(database, answer=minutes(30), remote=minutes(120)),
            database=database,
            signals=Signals(),
            extra=RemoteApi(
                sessions=desk.remote, invites=inviting, cut=desk.remote.end
            ).endpoints(),
        )

    async with running_site(make_api=make_api) as site, aiohttp.ClientSession() as http:
        site.accounts.tokens["cd_gz"] = FakeIdentity(
            name="gz", role=Role.ADMIN, sites=frozenset({"gz"})
        )
        yield World(desk=desk, inviting=inviting, url=site.url, http=http)


async def test_a_session_says_who_saw_the_screen_and_how_much_they_did(world: World) -> None:
    guest = await active(world.desk)
    await world.desk.remote.close_leg(guest.session, 1, Ending.DONE, Counts(keys=3, clicks=2))
    found = await world.get(f"remote-sessions/{guest.session}")
    assert (found["ticket"], found["state"], found["mode"]) == (guest.ticket, "active", "control")
    [leg] = found["legs"]
    assert (leg["engineer"], leg["user"], leg["keys"], leg["ending"]) == ("王伟", "wang", 3, "done")
    assert leg["rights"] == ["clipboard", "control", "view"]
    assert leg["recording"] is None
    assert guest.code not in str(found)
    assert guest.secret not in str(found)


async def test_the_list_goes_page_by_page_and_by_ticket_and_state(world: World) -> None:
    first = await agreed(world.desk)
    second = await invited(world.desk, await world.desk.call(AT_SZ))
    page = await world.get("remote-sessions?limit=1")
    assert [each["id"] for each in page["items"]] == [second.session]
    page = await world.get(f"remote-sessions?limit=1&cursor={page['next']}")
    assert [each["id"] for each in page["items"]] == [first.session]
    assert page["next"] is None
    for query, expected in (
        (f"ticket={first.ticket}", [first.session]),
        ("state=invited", [second.session]),
        ("ticket=nothing", []),
    ):
        found = await world.get(f"remote-sessions?{query}")
        assert [each["id"] for each in found["items"]] == expected
    for wrong in ("cursor=x", "cursor=-1", "cursor=１", "state=open", "limit=0"):
        assert (await world.ask("GET", f"remote-sessions?{wrong}"))[0] == 400
    huge = "9" * 19
    assert (await world.get(f"remote-sessions?cursor={huge}"))["items"]


async def test_what_is_of_another_site_is_not_there(world: World) -> None:
    ours = await agreed(world.desk, ticket=await world.desk.call(AT_GZ))
    theirs = await agreed(world.desk, ticket=await world.desk.call(AT_SZ))
    found = await world.get("remote-sessions", token="cd_gz")
    assert [each["id"] for each in found["items"]] == [ours.session]
    for path, method in (("", "GET"), ("/end", "POST")):
        answers = [
            await world.ask(method, f"remote-sessions/{session}{path}", token="cd_gz")
            for session in (theirs.session, 10**9, 10**17)
        ]
        assert [status for status, _ in answers] == [404] * 3
        assert len({body["detail"] for _, body in answers}) == 1
    session = await world.desk.remote.session(theirs.session)
    assert session is not None
    assert session.state is State.AGREED
    invite = f"tickets/{theirs.ticket}/remote-sessions"
    assert (await world.ask("POST", invite, {"medium": "text"}, token="cd_gz"))[0] == 404
    assert world.inviting.sent == []


async def test_a_link_is_sent_and_never_told_to_who_sends_it(world: World) -> None:
    ticket = await world.desk.call(AT_GZ)
    status, made = await world.ask(
        "POST", f"tickets/{ticket}/remote-sessions", {"medium": "text"}, **{"Idempotency-Key": "a"}
    )
    assert status == 201
    assert set(made) == {"session", "url", "medium", "expires_at"}
    assert world.inviting.sent == [(ticket, "user:oa-desk", Medium.TEXT)]
    again = await world.ask(
        "POST", f"tickets/{ticket}/remote-sessions", {"medium": "text"}, **{"Idempotency-Key": "a"}
    )
    assert again == (201, made)
    assert len(world.inviting.sent) == 1
    path = made["url"].removeprefix(f"{PREFIX}/")
    assert (await world.get(path))["state"] == "invited"


@pytest.mark.parametrize(
    ("body", "expected"), [({"medium": "mail"}, 422), ({"medium": "call"}, 422), ({}, 422)]
)
async def test_a_link_that_cannot_be_sent_is_refused(
    world: World, body: dict[str, str], expected: int
) -> None:
    ticket = await world.desk.call(AT_GZ)
    status, said = await world.ask("POST", f"tickets/{ticket}/remote-sessions", body)
    assert status == expected, said


async def test_nobody_is_invited_while_somebody_sees_the_screen(world: World) -> None:
    guest = await active(world.desk)
    path = f"tickets/{guest.ticket}/remote-sessions"
    assert (await world.ask("POST", path, {"medium": "text"}))[0] == 409


async def test_the_end_is_immediate_and_harmless_twice(world: World) -> None:
    guest = await active(world.desk)
    for _ in range(2):
        status, body = await world.ask("POST", f"remote-sessions/{guest.session}/end", {})
        assert (status, body["state"], body["ending"]) == (200, "ended", "done")
    [ended] = await world.desk.journal(guest.ticket, "remote.ended")
    assert ended.actor == "user:oa-desk"


@pytest.mark.parametrize("role", [Role.QUALITY, Role.MANAGER])
async def test_who_may_not_work_on_tickets_only_reads(world: World, role: Role) -> None:
    guest = await agreed(world.desk)
    token = f"cd_{role}"
    assert (await world.ask("GET", f"remote-sessions/{guest.session}", token=token))[0] == 200
    for path in (f"remote-sessions/{guest.session}/end", f"tickets/{guest.ticket}/remote-sessions"):
        assert (await world.ask("POST", path, {}, token=token))[0] == 403
