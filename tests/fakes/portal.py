"""The portal on a socket, over a desk, and a visitor with a browser that has no JavaScript."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from html import unescape
from io import BytesIO
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import aiohttp

from contactd.httpd import Httpd, Identity
from contactd.lab.ports import free_port
from contactd.routing.notify import Reason
from contactd.settings import HttpSettings, PortalSettings
from contactd.store.blobs import Blobs
from contactd.store.keys import Keys
from contactd.store.portal import Portal
from contactd.store.views import Views
from contactd.web.i18n import Language
from contactd.web.pages import Pages, static_routes
from contactd.web.portal import Help, routes
from contactd.web.portalaccess import Door
from contactd.web.portalforms import Intake
from tests.fakes.desk import AT_GZ, Desk

Invite = Callable[[str, str], Awaitable[str]]  # to remote help: see `Help.invite`

ZONE: Final = "Asia/Shanghai"
PNG: Final = (
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x02\0\0\0\x90wS\xde\0\0\0\x0cIDAT"
    b"x\x9cc\xf8\xcf\xc0\0\0\x03\x01\x01\0\xc9\xfe\x92\xef\0\0\0\0IEND\xaeB`\x82"
)
USUAL: Final = {
    "what": "打印机卡纸，打不出来", "name": "张三", "phone": AT_GZ, "site": "gz",
    "since": "2026-11-20T09:50", "impact": "department", "device": "GZ-PR-017",
    "department": "财务部", "error": "E-052", "wished": "下午三点前",
}  # fmt: skip


class _Nobody:
    async def find_token(self, secret: str) -> Identity | None:
        return None

    async def find_session(self, secret: str) -> Identity | None:
        return None


@cache
def _pages() -> Pages:
    return Pages(name="contactd", zone=ZoneInfo(ZONE), language=Language.ZH)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    status: int
    url: str  # path and query
    html: str
    headers: Any

    @property
    def words(self) -> str:
        """Return what is shown: no marks, no blanks twice."""
        return " ".join(unescape(re.sub(r"<[^>]*>", " ", self.html)).split())

    @property
    def form(self) -> str:
        """Return the key of its form."""
        found = re.search(r'name="form" value="([0-9a-f]{32})"', self.html)
        assert found, self.html
        return found[1]

    @property
    def kept(self) -> list[str]:
        """Return the names of the files that the form has already."""
        return [unescape(each) for each in re.findall(r"<bdi>(.+?)</bdi> <small>", self.html)]


@dataclass(slots=True, kw_only=True)
class Visitor:
    """Somebody with a browser."""

    url: str
    http: aiohttp.ClientSession
    headers: dict[str, str] = field(
        default_factory=lambda: {
            "Accept": "text/html",
            "Accept-Language": "zh",
            "Sec-Fetch-Site": "same-origin",
        }
    )

    async def get(self, path: str, **more: Any) -> Page:
        async with self.http.get(
            self.url + path, headers=self.headers | more.pop("headers", {}), **more
        ) as answer:
            return await _page(answer)

    async def post(self, path: str, data: Any = None, **more: Any) -> Page:
        async with self.http.post(
            self.url + path, headers=self.headers | more.pop("headers", {}), data=data, **more
        ) as answer:
            return await _page(answer)

    async def report(self, *files: tuple[str, bytes], form: str = "", **fields: str) -> Page:
        """Fill in the form and send it, with files as a browser without JavaScript does."""
        form = form or (await self.get("/help/new")).form
        return await self.post("/help/new", _parts({"form": form, **USUAL, **fields}, *files))

    async def reply(self, page: Page, words: str, *files: tuple[str, bytes]) -> Page:
        path = page.url.partition("?")[0]
        return await self.post(f"{path}/reply", _parts({"form": page.form, "words": words}, *files))

    async def upload(self, form: str, name: str, content: Any) -> tuple[int, Any]:
        """Send a file as the script does."""
        headers = self.headers | {"Accept": "*/*", "X-File-Name": name}
        url = f"{self.url}/help/files?form={form}"
        async with self.http.post(url, headers=headers, data=content) as answer:
            told = await answer.json(content_type=None)
            return answer.status, told


@dataclass(slots=True, kw_only=True)
class HelpSite:
    desk: Desk
    url: str
    help: Help
    blobs: Path

    @asynccontextmanager
    async def visitor(self) -> AsyncIterator[Visitor]:
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
            yield Visitor(url=self.url, http=http)

    async def link(self, number: str) -> str:
        """Return the path that a mail about this ticket leads to."""
        return await self.help.door.link(number)

    def code(self) -> str:
        """Return the code that was sent last."""
        return self.codes()[-1]

    def codes(self) -> list[str]:
        sent = [each.notification for each in self.desk.everything]
        return [note.facts["code"] for note in sent if note.reason is Reason.LOGIN]

    async def sign_in(self, visitor: Visitor, address: str) -> Page:
        asked = await visitor.post("/help/my", {"address": address})
        await self.desk.drain()
        return await visitor.post(asked.url, {"code": self.code()})


@asynccontextmanager
async def running_help(desk: Desk, folder: Path, **settings: Any) -> AsyncIterator[HelpSite]:
    """Run the portal over a desk; `settings` are those of the section `portal`, and `invite`."""
    invite: Invite | None = settings.pop("invite", None)
    options = PortalSettings(**{"hotline": "400-800-1234"} | settings)
    blobs, portal = Blobs(folder / "blobs"), Portal(desk.database, desk.clock)
    help_ = Help(
        pages=_pages(),
        settings=options,
        door=Door(
            portal=portal, settings=options, key=Keys(desk.database, desk.clock).signing,
            clock=desk.clock,
        ),
        intake=Intake(portal=portal, blobs=blobs, settings=options),
        portal=portal,
        views=Views(desk.database, desk.clock),
        tickets=desk.tickets,
        blobs=blobs,
        terms=desk.core.terms,
        clock=desk.clock,
        zone=ZONE,
        texts=True,
        invite=invite,
    )  # fmt: skip
    httpd = Httpd(
        HttpSettings(port=free_port()),
        routes=routes(help_),
        accounts=_Nobody(),
        static=static_routes(),
        page=_pages().problem,
        drain_s=2,
    )
    async with httpd.running():
        yield HelpSite(
            desk=desk, url=f"http://127.0.0.1:{httpd.port}", help=help_, blobs=folder / "blobs"
        )


async def _page(answer: aiohttp.ClientResponse) -> Page:
    body = await answer.read()
    return Page(
        status=answer.status, url=answer.url.path_qs, html=body.decode("utf-8", "replace"),
        headers=answer.headers,
    )  # fmt: skip


def _parts(fields: dict[str, str], *files: tuple[str, bytes]) -> aiohttp.MultipartWriter:
    """Return a form as browsers send it: `quote_fields` would escape names that are not ASCII."""
    data = aiohttp.FormData(quote_fields=False)
    for name, value in fields.items():
        data.add_field(name, value)
    if not files:  # nobody chose one
        data.add_field("files", b"", filename="", content_type="application/octet-stream")
    for name, content in files:
        data.add_field(
            "files", BytesIO(content), filename=name, content_type="application/octet-stream"
        )
    payload = data()
    assert isinstance(payload, aiohttp.MultipartWriter)
    return payload
