"""The engineer's pages of remote help: who may go in, what they are told, and what they cannot."""

import gzip
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from contactd.clock import SystemClock
from contactd.errors import ActionNotAllowed, PermanentFailure
from contactd.remote.admissions import Admissions, Door
from contactd.settings import RemoteSettings
from contactd.store.blobs import Blobs
from contactd.store.engine import Database
from contactd.store.ticketviews import TicketViews
from contactd.store.views import Views
from contactd.tickets.contact import Medium
from contactd.tickets.people import Role
from contactd.tickets.remote import State
from contactd.tickets.sharing import FileState, Session
from contactd.web import remotepage, ticketpage
from contactd.web.pages import STATIC, Pages
from contactd.web.remotepage import Inviting, Panel, RemotePages
from contactd.web.ticketpage import TicketPage
from tests.fakes.clock import FakeClock
from tests.fakes.desk import AT_GZ, Desk, engineers
from tests.fakes.portal import ZONE
from tests.fakes.remote_desk import Guest, active, agreed, invited
from tests.fakes.site import FakeIdentity, Site, running_site

MOST_BYTES: Final = 150_000
IMPORTED: Final = re.compile(r'(?:import|from)\s*\(?"(\.{1,2}/[^"]+\.js)"')
CODE: Final = re.compile(r"\d{9}")


@dataclass(slots=True, kw_only=True)
class Invites:
    """Sends nothing; `sent` is what would have been, `failure` what is raised instead."""

    media: frozenset[Medium] = frozenset({Medium.TEXT, Medium.MAIL})
    sent: list[tuple[str, str, Medium]] = field(default_factory=list)
    failure: Exception | None = None

    async def invite(self, number: str, *, actor: str, medium: Medium) -> None:
        if self.failure is not None:
            raise self.failure
        self.sent.append((number, actor, medium))


@dataclass(slots=True, kw_only=True)
class Case:
    desk: Desk
    site: Site
    invites: Invites
    admissions: Admissions
    http: aiohttp.ClientSession

    @property
    def ours(self) -> dict[str, str]:
        return {"Origin": self.site.url}

    async def ask(self, who: str, method: str, path: str, **form: str) -> tuple[int, str, str]:
        """Return the status, where it leads, and the page, as somebody by name."""
        headers = {"Cookie": f"contactd_session={who}", "Accept": "text/html", **self.ours}
        async with self.http.request(
            method, f"{self.site.url}{path}?lang=en", headers=headers, data=form or None,
            allow_redirects=False,
        ) as answer:  # fmt: skip
            return answer.status, answer.headers.get("Location", ""), await answer.text()

    async def send(self, who: str, session: int, data: bytes) -> int:
        """Offer a file."""
        form = aiohttp.FormData(quote_fields=False)
        form.add_field("file", data, filename="../修复.txt")
        headers = {"Cookie": f"contactd_session={who}", **self.ours}
        url = f"{self.site.url}/desk/remote/{session}/files"
        async with self.http.post(url, data=form, headers=headers, allow_redirects=False) as answer:
            return answer.status

    async def session(self, number: int) -> Session:
        found = await self.desk.remote.session(number)
        assert found is not None
        return found


# `wang` has the tickets, `other` is an engineer without any; `far` works at another site.
PEOPLE: Final = {
    each.name: each
    for each in (
        FakeIdentity(name="wang", role=Role.ENGINEER, engineer="wang"),
        FakeIdentity(name="other", role=Role.ENGINEER, engineer="nobody"),
        FakeIdentity(name="ling", role=Role.DESK),
        FakeIdentity(name="tan", role=Role.SUPERVISOR),
        FakeIdentity(name="far", role=Role.ENGINEER, engineer="wang", sites=frozenset({"sz"})),
    )
}


class People:
    """Who is named in the cookie is signed in."""

    async def find_token(self, secret: str) -> FakeIdentity | None:
        return None

    async def find_session(self, secret: str) -> FakeIdentity | None:
        return PEOPLE.get(secret)


@pytest.fixture
async def case(database: Database, clock: FakeClock, tmp_path: Path) -> AsyncIterator[Case]:
    desk, invites = Desk(database, clock), Invites()
    await desk.load(engineers=engineers(name="王伟"))
    admissions = Admissions(SystemClock())

    def make(pages: Pages) -> list[Any]:
        views, more = Views(database, clock), TicketViews(database, clock)
        panel = Panel(sessions=desk.remote, more=more, invites=invites)
        ticket = TicketPage(
            pages=pages, views=views, more=more, terms=desk.core.terms, clock=clock, zone=ZONE,
            panel=panel.standing,
        )  # fmt: skip
        remote = RemotePages(
            pages=pages, views=views, sessions=desk.remote, panel=panel, admits=admissions,
            cut=desk.remote.end, blobs=Blobs(tmp_path / "blobs"),
            settings=RemoteSettings(max_file_bytes=1000),
            clock=clock, zone=ZONE,
        )  # fmt: skip
        inviting = Inviting(page=ticket, invites=invites)
        return [
            *ticketpage.routes(ticket), *remotepage.routes(remote),
            *remotepage.invite_routes(inviting),
        ]  # fmt: skip

    async with running_site(make_routes=make) as site, aiohttp.ClientSession() as http:
        site.httpd._accounts = People()
        yield Case(desk=desk, site=site, invites=invites, admissions=admissions, http=http)


async def taken(case: Case, by: str = "wang") -> str:
    ticket = await case.desk.call(AT_GZ)
    await case.desk.when(case.desk.tickets.take(ticket, by, how="web"))
    return ticket


async def waits(case: Case) -> Guest:
    """Return a user who agreed, on a ticket of `wang`'s."""
    return await agreed(case.desk, ticket=await taken(case))


async def test_an_engineer_sends_a_link_and_is_never_shown_its_code(case: Case) -> None:
    ticket = await taken(case)
    path = f"/desk/tickets/{ticket}"
    assert "Only the user can begin one" in (await case.ask("wang", "GET", path))[2]
    status, where, _ = await case.ask("wang", "POST", f"{path}/remote/invite", medium="text")
    assert (status, where) == (303, f"{path}?did=remote_link#remote")
    assert case.invites.sent == [(ticket, "user:wang", Medium.TEXT)]
    invitation = await invited(case.desk, ticket)
    for page in (path, "/desk/remote", f"/desk/remote/{invitation.session}"):
        assert invitation.code not in (await case.ask("wang", "GET", page))[2]


@pytest.mark.parametrize(
    ("failure", "status", "words"),
    [
        (PermanentFailure("no number takes texts"), 422, "no number takes texts"),
        (ActionNotAllowed("is under way"), 409, "a session is under way"),
    ],
)
async def test_a_link_that_cannot_be_sent_says_why(
    case: Case, failure: Exception, status: int, words: str
) -> None:
    ticket = await taken(case)
    case.invites.failure = failure
    path = f"/desk/tickets/{ticket}/remote/invite"
    found, _, page = await case.ask("wang", "POST", path, medium="text")
    assert found == status
    assert words in page


async def test_a_medium_that_is_not_offered_sends_nothing(case: Case) -> None:
    ticket = await taken(case)
    case.invites.media = frozenset({Medium.MAIL})
    path = f"/desk/tickets/{ticket}"
    assert "by text" not in (await case.ask("wang", "GET", path))[2]
    assert (await case.ask("wang", "POST", f"{path}/remote/invite", medium="text"))[0] == 400
    case.invites.media = frozenset()
    assert "No link can be sent" in (await case.ask("wang", "GET", path))[2]
    assert case.invites.sent == []


async def test_who_has_the_ticket_goes_in_and_is_named_to_the_user(case: Case) -> None:
    guest = await waits(case)
    path = f"/desk/remote/{guest.session}"
    assert "Go in and help" in (await case.ask("wang", "GET", path))[2]
    assert (await case.ask("wang", "POST", f"{path}/join"))[:2] == (303, path)
    session = await case.session(guest.session)
    assert (session.user, session.engineer, session.state) == ("wang", "王伟", State.AGREED)
    assert session.legs == ()  # nobody sees anything by it


async def test_nobody_else_goes_in_without_the_user_s_code(case: Case) -> None:
    guest = await waits(case)
    for who in ("other", "ling", "tan"):
        status, _, page = await case.ask(who, "POST", f"/desk/remote/{guest.session}/join")
        assert status == 409, who
        assert "type the code" in page
    assert (await case.session(guest.session)).user == ""


async def test_one_claims_and_the_second_is_told_to_wait(case: Case) -> None:
    guest = await waits(case)
    await case.desk.remote.claim(guest.session, user="li", engineer="李娜")
    status, _, page = await case.ask("wang", "POST", f"/desk/remote/{guest.session}/join")
    assert (status, "Somebody else helps" in page) == (409, True)
    assert (await case.session(guest.session)).user == "li"


async def test_a_code_that_the_user_reads_out_lets_anybody_who_works_here_in_once(
    case: Case,
) -> None:
    guest = await waits(case)
    spoken = f"{guest.code[:3]} {guest.code[3:6]} {guest.code[6:]}"
    status, where, _ = await case.ask("ling", "POST", "/desk/remote/claim", code=spoken)
    assert (status, where) == (303, f"/desk/remote/{guest.session}")
    assert (await case.session(guest.session)).user == "ling"
    status, _, page = await case.ask("tan", "POST", "/desk/remote/claim", code=guest.code)
    assert (status, "This code opens nothing" in page) == (404, True)


async def test_a_wrong_a_short_and_another_site_s_code_open_nothing(case: Case) -> None:
    guest = await waits(case)
    wrong = str((int(guest.code) + 1) % 10**9).zfill(9)
    _, _, page = await case.ask("far", "POST", "/desk/remote/claim", code=wrong)
    status, _, foreign = await case.ask("far", "POST", "/desk/remote/claim", code=guest.code)
    assert status == 404
    assert foreign == page
    status, _, short = await case.ask("wang", "POST", "/desk/remote/claim", code="12 34")
    assert (status, "nine digits" in short) == (422, True)
    assert (await case.session(guest.session)).user == ""


async def test_another_site_s_session_is_not_there(case: Case) -> None:
    guest = await waits(case)
    path = f"/desk/remote/{guest.session}"
    for method, tail in (
        ("GET", ""), ("POST", "/join"), ("POST", "/end"), ("POST", "/release"),
        ("POST", "/admission"), ("GET", "/files/1"), ("POST", "/files/1/answer"),
    ):  # fmt: skip
        assert (await case.ask("far", method, path + tail, purpose="desk"))[0] == 404, tail
    assert await case.send("far", guest.session, b"x") == 404
    assert guest.ticket not in (await case.ask("far", "GET", "/desk/remote"))[2]
    assert guest.ticket in (await case.ask("wang", "GET", "/desk/remote"))[2]


@pytest.mark.parametrize("number", ["0", "99", "x", "9" * 30, "１"])
async def test_a_number_of_no_session_is_not_there(case: Case, number: str) -> None:
    assert (await case.ask("wang", "GET", f"/desk/remote/{number}"))[0] == 404


async def test_an_admission_opens_one_door_for_who_asked(case: Case) -> None:
    guest = await waits(case)
    path = f"/desk/remote/{guest.session}/admission"
    status, _, told = await case.ask("wang", "POST", path, purpose="screen")
    assert status == 200
    known = case.admissions.take(json.loads(told)["admission"], Door.SCREEN)
    assert known is not None
    assert (known.session, known.person, known.name) == (guest.session, "wang", "王伟")
    assert (await case.ask("wang", "POST", path, purpose="share"))[0] == 400
    await case.ask("tan", "POST", f"/desk/remote/{guest.session}/end")
    assert (await case.ask("wang", "POST", path, purpose="desk"))[0] == 409


async def test_only_who_helps_or_decides_ends_it(case: Case) -> None:
    guest = await active(case.desk, ticket=await taken(case))
    path = f"/desk/remote/{guest.session}/end"
    assert (await case.ask("other", "POST", path))[0] == 409
    assert (await case.session(guest.session)).state is State.ACTIVE
    assert (await case.ask("wang", "POST", path))[0] == 303
    assert (await case.session(guest.session)).state is State.ENDED
    assert (await case.ask("wang", "POST", path))[0] == 303  # twice is once
    page = (await case.ask("wang", "GET", f"/desk/tickets/{guest.ticket}"))[2]
    assert "Sessions so far" in page
    assert "An engineer has ended it." in page


async def test_who_helps_can_let_a_colleague_do_it(case: Case) -> None:
    guest = await waits(case)
    path = f"/desk/remote/{guest.session}"
    await case.ask("wang", "POST", f"{path}/join")
    assert (await case.ask("other", "POST", f"{path}/release"))[0] == 303
    assert (await case.session(guest.session)).user == "wang"
    await case.ask("wang", "POST", f"{path}/release")
    assert (await case.session(guest.session)).user == ""


async def test_a_file_is_offered_by_who_helps_and_by_nobody_else(case: Case) -> None:
    guest = await active(case.desk, ticket=await taken(case))
    assert await case.send("other", guest.session, b"x") == 409
    assert await case.send("wang", guest.session, b"x" * 2000) == 413
    assert await case.send("wang", guest.session, b"hello") == 303
    (file,) = await case.desk.remote.files(guest.session)
    assert (file.sender, file.blob.name, file.state) == (
        "user:wang", "修复.txt", FileState.OFFERED,
    )  # fmt: skip
    path = f"/desk/remote/{guest.session}/files/1"
    assert (await case.ask("wang", "POST", f"{path}/answer", do="yes"))[0] == 409  # the user's
    assert (await case.ask("wang", "GET", path))[0] == 404


async def test_a_file_of_the_user_is_saved_once_it_was_accepted(case: Case, tmp_path: Path) -> None:
    guest = await active(case.desk, ticket=await taken(case))
    blob = await Blobs(tmp_path / "blobs").put_bytes(b"hi", media_type="text/plain", name="a.txt")
    remote = case.desk.remote
    for sender in ("requester", "user:wang"):
        await remote.offer_file(guest.session, sender=sender, blob=blob)
    path = f"/desk/remote/{guest.session}/files"
    assert (await case.ask("wang", "GET", f"{path}/1"))[0] == 404
    assert (await case.ask("wang", "POST", f"{path}/1/answer", do="yes"))[0] == 303
    assert (await case.ask("wang", "GET", f"{path}/1"))[::2] == (200, "hi")
    assert (await case.ask("other", "GET", f"{path}/1"))[0] == 409
    await remote.answer_file(guest.session, 2, by="requester", yes=True)
    assert (await case.ask("wang", "GET", f"{path}/2"))[0] == 404  # it went the other way


async def test_the_panel_says_how_it_stands(case: Case) -> None:
    ticket = await taken(case)
    path = f"/desk/tickets/{ticket}"
    await invited(case.desk, ticket)
    assert "link sent" in (await case.ask("wang", "GET", path))[2]
    guest = await agreed(case.desk, ticket=ticket)
    assert "the user waits" in (await case.ask("wang", "GET", path))[2]
    await case.desk.remote.claim(guest.session, user="wang", engineer="王伟")
    assert "Back to the session" in (await case.ask("wang", "GET", path))[2]
    assert "Go in and wait" in (await case.ask("ling", "GET", path))[2]
    case.desk.clock.advance(timedelta(hours=4))
    await case.desk.remote.freeze(guest.session)
    assert "the user waits" in (await case.ask("wang", "GET", path))[2]  # nothing was shared


def test_neither_the_page_nor_the_picture_that_it_fetches_later_weighs_much() -> None:
    """noVNC is many modules: they come when a user is asked, each packed as it is sent."""
    own = [STATIC / name for name in ("remote.js", "media.js", "remote.css", "app.css")]
    assert sum(map(weight, filter(Path.is_file, own))) <= 40_000
    left, found = [STATIC / "vendor/novnc/core/rfb.js"], set[Path]()
    while left:
        file = left.pop().resolve()
        if file not in found:
            found.add(file)
            left += [file.parent / each for each in IMPORTED.findall(file.read_text("utf-8"))]
    assert len(found) > 20
    assert sum(map(weight, found)) <= MOST_BYTES


def weight(file: Path) -> int:
    return len(gzip.compress(file.read_bytes(), 9))
