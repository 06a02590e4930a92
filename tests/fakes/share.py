"""The share page on a socket, over a desk: what runs of a session is kept in a list."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from zoneinfo import ZoneInfo

import aiohttp

from contactd.httpd import Httpd, Identity, Route
from contactd.lab.ports import free_port
from contactd.remote import picture
from contactd.remote.admissions import Admissions
from contactd.remote.broker import Broker
from contactd.remote.sockets import Sockets
from contactd.settings import HttpSettings, RemoteSettings
from contactd.store.blobs import Blobs
from contactd.tickets.journal import REQUESTER
from contactd.tickets.remote import Ending
from contactd.web.access import ACTING, DECIDING, sees
from contactd.web.i18n import Language
from contactd.web.pages import Pages, static_routes
from contactd.web.sharepage import SharePage, routes
from tests.fakes.desk import Desk
from tests.fakes.portal import ZONE, Visitor
from tests.fakes.remote import Helping
from tests.fakes.site import running_site

HOTLINE = "400-800-1234"


class _Nobody:
    async def find_token(self, secret: str) -> Identity | None:
        return None

    async def find_session(self, secret: str) -> Identity | None:
        return None


@cache
def _pages() -> Pages:
    return Pages(name="contactd", zone=ZoneInfo(ZONE), language=Language.ZH)


@dataclass(slots=True, kw_only=True)
class ShareSite:
    desk: Desk
    url: str
    blobs: Blobs
    stopped: list[int] = field(default_factory=list)
    admitted: list[int] = field(default_factory=list)

    @asynccontextmanager
    async def visitor(self) -> AsyncIterator[Visitor]:
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
            yield Visitor(url=self.url, http=http)

    def admit(self, session: int) -> str:
        self.admitted.append(session)
        return f"admission-{len(self.admitted)}"

    async def cut(self, session: int) -> None:
        self.stopped.append(session)
        await self.desk.remote.end(session, Ending.STOPPED, REQUESTER)


def packed(invitation: Mapping[str, str]) -> bytes:
    """Return what stands for the helper: its invitation and nothing else."""
    return json.dumps(dict(invitation)).encode()


@asynccontextmanager
async def running_share(
    desk: Desk,
    folder: Path,
    more: tuple[Route, ...] = (),
    http: HttpSettings | None = None,
    **settings: object,
) -> AsyncIterator[ShareSite]:
    """Run the page over a desk; `settings` are those of the section `remote`."""
    options, blobs = http or HttpSettings(port=free_port()), Blobs(folder / "blobs")
    site = ShareSite(desk=desk, url="", blobs=blobs)
    page = SharePage(
        pages=_pages(),
        sessions=desk.remote,
        admit=site.admit,
        cut=site.cut,
        blobs=blobs,
        helper=packed,
        settings=RemoteSettings(**settings),
        public_url=options.public_url,
        service="contactd",
        hotline=HOTLINE,
        clock=desk.clock,
        zone=ZONE,
    )
    httpd = Httpd(
        options,
        routes=[*routes(page), *more],
        accounts=_Nobody(),
        static=static_routes(),
        page=_pages().problem,
        drain_s=2,
    )
    async with httpd.running():
        site.url = f"http://127.0.0.1:{httpd.port}"
        yield site


@asynccontextmanager
async def live_share(desk: Desk, folder: Path) -> AsyncIterator[Helping]:
    """Run the page with the real broker behind it: everything of the user's in one place."""
    admissions, blobs = Admissions(desk.clock), Blobs(folder / "blobs")
    settings, kept = RemoteSettings(), folder / "remote"
    broker = Broker(
        sessions=desk.remote, signals=desk.signals, clock=desk.clock, settings=settings,
        service="contactd", folder=kept, put=blobs.put, make_filter=picture.make_filter,
        make_recorder=picture.make_recorder,
    )  # fmt: skip
    sockets = Sockets(
        broker=broker, admissions=admissions, clock=desk.clock, public_url="", acting=ACTING,
        looking=DECIDING, sees=sees,
    )  # fmt: skip
    page = SharePage(
        pages=_pages(),
        sessions=desk.remote,
        admit=lambda session: admissions.give(session, REQUESTER, "share"),
        cut=broker.stop,
        blobs=blobs,
        helper=packed,
        settings=settings,
        public_url="",
        service="contactd",
        hotline=HOTLINE,
        clock=desk.clock,
        zone=ZONE,
    )
    async with (
        broker.running(),
        running_site(routes=[*sockets.routes(), *routes(page)]) as site,
        aiohttp.ClientSession() as http,
    ):
        try:
            yield Helping(
                site=site, desk=desk, broker=broker, admissions=admissions, blobs=blobs,
                folder=kept, http=http,
            )  # fmt: skip
        finally:
            broker.end_streams()
