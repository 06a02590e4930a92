"""The recording of a remote session: who may watch it, and that it is written down."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from contactd.remote import fbs
from contactd.store.blobs import Blobs
from contactd.store.engine import Database
from contactd.tickets.contact import Blob
from contactd.tickets.people import Role
from contactd.tickets.remote import Ending
from contactd.tickets.sharing import Counts
from contactd.web import replaypage
from contactd.web.pages import Pages
from contactd.web.replaypage import ReplayPage
from tests.fakes.clock import FakeClock
from tests.fakes.desk import Desk, engineers
from tests.fakes.portal import ZONE
from tests.fakes.remote_desk import Guest, active
from tests.fakes.site import FakeIdentity, Site, running_site

RECORDING: Final = fbs.MAGIC + b"".join(fbs.block(bytes(20), at) for at in (0, 0, 0, 1500, 61_000))
PEOPLE: Final = {
    each.name: each
    for each in (
        FakeIdentity(name="wang", role=Role.ENGINEER, engineer="wang"),
        FakeIdentity(name="tan", role=Role.SUPERVISOR),
        FakeIdentity(name="qa", role=Role.QUALITY),
        FakeIdentity(name="far", role=Role.SUPERVISOR, sites=frozenset({"sz"})),
    )
}


class People:
    """Who is named in the cookie is signed in."""

    async def find_token(self, secret: str) -> FakeIdentity | None:
        return None

    async def find_session(self, secret: str) -> FakeIdentity | None:
        return PEOPLE.get(secret)


@dataclass(slots=True, kw_only=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True, kw_only=True)
class Case:
    desk: Desk
    site: Site
    blobs: Blobs
    http: aiohttp.ClientSession

    async def get(self, who: str, path: str, **headers: str) -> Answer:
        asked = {"Cookie": f"contactd_session={who}", "Accept": "text/html", **headers}
        url = f"{self.site.url}/desk/remote/{path}"
        async with self.http.get(url, headers=asked, params={"lang": "en"}) as answer:
            return Answer(
                status=answer.status, headers=dict(answer.headers), body=await answer.read()
            )

    async def recorded(
        self, kind: str = fbs.MEDIA_TYPE, content: bytes = RECORDING
    ) -> tuple[Guest, Blob]:
        """Return a user who was helped, and what was recorded."""
        guest = await active(self.desk)
        blob = await self.blobs.put_bytes(content, media_type=kind, name="")
        counts = Counts(keys=12, clicks=3, bytes=99)
        await self.desk.remote.close_leg(guest.session, 1, Ending.DONE, counts, blob)
        return guest, blob

    async def times_watched(self, guest: Guest) -> int:
        return len(await self.desk.journal(guest.ticket, "remote.replayed"))


@pytest.fixture
async def case(database: Database, clock: FakeClock, tmp_path: Path) -> AsyncIterator[Case]:
    desk, blobs = Desk(database, clock), Blobs(tmp_path / "blobs")
    await desk.load(engineers=engineers(name="王伟"))

    def make(pages: Pages) -> list[Any]:
        return [
            *replaypage.routes(
                ReplayPage(
                    pages=pages, sessions=desk.remote, blobs=blobs, length_ms=fbs.length_ms,
                    clock=clock, zone=ZONE,
                )
            )
        ]  # fmt: skip

    async with running_site(make_routes=make) as site, aiohttp.ClientSession() as http:
        site.httpd._accounts = People()
        yield Case(desk=desk, site=site, blobs=blobs, http=http)


async def test_a_recording_is_sent_as_it_is_and_that_is_written_down(case: Case) -> None:
    guest, _ = await case.recorded()
    path = f"{guest.session}/legs/1/recording"
    sent = await case.get("tan", path)
    assert (sent.status, sent.body) == (200, RECORDING)
    assert sent.headers["Content-Type"] == fbs.MEDIA_TYPE
    assert sent.headers["Content-Disposition"].startswith("attachment; filename=")
    assert "sandbox" in sent.headers["Content-Security-Policy"]
    assert await case.times_watched(guest) == 1
    part = await case.get("tan", path, Range="bytes=100-")
    assert (part.status, part.body) == (206, RECORDING[100:])
    assert await case.times_watched(guest) == 1
    await case.get("qa", path, Range="bytes=0-")
    assert await case.times_watched(guest) == 2


async def test_a_part_without_the_beginning_is_written_down_too(
    case: Case, clock: FakeClock
) -> None:
    guest, _ = await case.recorded()
    path = f"{guest.session}/legs/1/recording"
    await case.get("tan", path, Range="bytes=1-")
    await case.get("tan", path, Range="bytes=50-")
    assert await case.times_watched(guest) == 1
    await case.get("qa", path, Range="bytes=1-")
    assert await case.times_watched(guest) == 2
    clock.advance(replaypage.WATCHING + timedelta(seconds=1))
    await case.get("tan", path, Range="bytes=1-")
    assert await case.times_watched(guest) == 3


async def test_its_page_says_how_long_it_plays_and_does_not_count_as_watching(case: Case) -> None:
    guest, _ = await case.recorded()
    page = (await case.get("qa", f"{guest.session}/legs/1")).body.decode()
    assert 'data-lasts="61000"' in page
    assert f'data-recording="/desk/remote/{guest.session}/legs/1/recording"' in page
    assert "12 keys, 3 clicks" in page
    assert "王伟" in page
    assert await case.times_watched(guest) == 0


async def test_a_recording_of_the_browser_is_shown_as_a_film(case: Case) -> None:
    guest, _ = await case.recorded(replaypage.VIDEO, b"\x1aE\xdf\xa3 webm")
    page = (await case.get("tan", f"{guest.session}/legs/1")).body.decode()
    assert "<video" in page
    sent = await case.get("tan", f"{guest.session}/legs/1/recording")
    assert sent.headers["Content-Type"] == "video/webm"
    assert sent.headers["Content-Disposition"].startswith("inline")


@pytest.mark.parametrize(("who", "status"), [("wang", 403), ("far", 404), ("", 401)])
async def test_others_do_not_get_it(case: Case, who: str, status: int) -> None:
    guest, _ = await case.recorded()
    for path in ("legs/1", "legs/1/recording"):
        answer = await case.get(who, f"{guest.session}/{path}")
        assert answer.status == status or (not who and b"<form" in answer.body)
        assert RECORDING not in answer.body
    assert await case.times_watched(guest) == 0


@pytest.mark.parametrize("path", ["999/legs/1", "{}/legs/2", "{}/legs/x", "x/legs/1"])
async def test_what_was_not_recorded_is_not_there(case: Case, path: str) -> None:
    guest, _ = await case.recorded()
    for more in ("", "/recording"):
        assert (await case.get("tan", path.format(guest.session) + more)).status == 404


async def test_what_is_being_recorded_is_not_there_yet(case: Case) -> None:
    guest = await active(case.desk)
    assert (await case.get("tan", f"{guest.session}/legs/1")).status == 404


async def test_a_file_of_another_kind_is_never_sent(case: Case) -> None:
    guest, _ = await case.recorded("text/html", b"<script>")
    assert (await case.get("tan", f"{guest.session}/legs/1/recording")).status == 404


async def test_a_file_that_is_gone_is_said_to_be(case: Case) -> None:
    guest, blob = await case.recorded()
    case.blobs.path(blob.sha256).unlink()
    page = await case.get("tan", f"{guest.session}/legs/1")
    assert "restored from the backup" in page.body.decode()
    assert (await case.get("tan", f"{guest.session}/legs/1/recording")).status == 404
    assert await case.times_watched(guest) == 0


async def test_a_file_that_is_no_recording_still_has_a_page(case: Case) -> None:
    guest, _ = await case.recorded(content=b"something else")
    assert 'data-lasts="0"' in (await case.get("tan", f"{guest.session}/legs/1")).body.decode()
