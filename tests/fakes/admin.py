"""A desk whose file is edited on the pages: people of every role, forms sent and read."""

import re
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path
from typing import Any, Final

import aiohttp

from contactd.clock import Clock
from contactd.httpd import Route
from contactd.lab.daemon import toml
from contactd.mail.letterbook import Letterbook
from contactd.routing import deskedit
from contactd.routing.deskfile import parse
from contactd.signals import Signals
from contactd.store.deskversions import DeskSource, DeskVersions
from contactd.store.dutyrequests import DutyRequests
from contactd.store.engine import Database
from contactd.tickets.people import Role
from contactd.web import adminpage, admintexts, dutypage
from contactd.web.adminpage import PATH, AdminPage
from contactd.web.admintexts import AdminTexts
from contactd.web.deskchanges import DeskChanges
from contactd.web.dutypage import DutyPage
from contactd.web.pages import Pages
from tests.fakes.rota import desk_document
from tests.fakes.site import FakeIdentity, Site, running_site

ZONE: Final = "Asia/Shanghai"
HTML: Final = {"Accept": "text/html", "Accept-Language": "en"}
ETC: Final = Path(__file__).parents[2] / "etc"


@dataclass(slots=True, kw_only=True)
class Admin:
    """Who looks and acts; `html` is the page that came last."""

    database: Database
    clock: Clock
    versions: DeskVersions
    changes: DeskChanges
    requests: DutyRequests
    letters: Letterbook
    signals: Signals
    site: Site
    http: aiohttp.ClientSession
    html: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def user(self, name: str, role: Role, *, engineer: str = "", sites: Iterable[str] = ()) -> None:
        self.site.accounts.tokens[name] = FakeIdentity(
            name=name, role=role, engineer=engineer, sites=frozenset(sites)
        )

    async def get(self, path: str, who: str = "cd_admin") -> int:
        return await self._ask("GET", path, who)

    async def post(self, path: str, who: str = "cd_admin", **fields: Any) -> int:
        names = {name.replace("__", "."): value for name, value in fields.items()}
        return await self._ask("POST", path, who, data=names)

    async def _ask(self, method: str, path: str, who: str, **more: Any) -> int:
        headers = HTML | self.headers | {"Authorization": f"Bearer {who}"}
        url = f"{self.site.url}{path}"
        async with self.http.request(
            method, url, headers=headers, allow_redirects=False, **more
        ) as answer:
            self.html = await answer.text()
            self.location = answer.headers.get("Location", "")
            return answer.status

    location: str = ""

    @property
    def words(self) -> str:
        """Return the page as people read it."""
        body = self.html.partition("<main")[2]
        return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())

    async def text(self) -> str:
        newest = await self.versions.newest()
        assert newest is not None
        return newest.text

    async def entry(self, section: str, number: int = 0) -> dict[str, Any]:
        return deskedit.entries(deskedit.document(await self.text()), section)[number]

    async def was(self, section: str, number: int = 0) -> str:
        return deskedit.fingerprint(await self.entry(section, number))

    async def send(
        self, section: str, do: str, sent: Mapping[str, Any], who: str = "cd_admin"
    ) -> int:
        return await self._ask("POST", f"{PATH}/desk/{section}", who, data={"do": do, **sent})


def source(document: Mapping[str, Any], folder: Path) -> DeskSource:
    text = "# the desk\n" + toml(document)
    return DeskSource(path=folder / "desk.toml", text=text, desk=parse(dict(document)))


@asynccontextmanager
async def administered(
    database: Database, clock: Clock, folder: Path, *, loaded: bool = True
) -> AsyncIterator[Admin]:
    """Run the pages over a desk (`tests.fakes.rota`) that was loaded from a file."""
    versions, signals = DeskVersions(database, clock), Signals()
    if loaded:
        await versions.take_file(source(desk_document(), folder))
    changes = DeskChanges(database, versions, clock, signals)
    requests = DutyRequests(database, clock)
    letters = Letterbook(versions, None, service="contactd")

    def make(pages: Pages) -> Iterable[Route]:
        yield from adminpage.routes(
            AdminPage(pages=pages, changes=changes, requests=requests, clock=clock, zone=ZONE)
        )
        yield from dutypage.routes(
            DutyPage(pages=pages, changes=changes, requests=requests, database=database,
                     clock=clock, zone=ZONE, public_url="https://desk.example.cn")
        )  # fmt: skip
        yield from admintexts.routes(
            AdminTexts(pages=pages, letters=letters, database=database, clock=clock,
                       prompts=ETC / "prompts.toml", sounds=folder)
        )  # fmt: skip

    async with running_site(make_routes=make) as site, aiohttp.ClientSession() as http:
        yield Admin(
            database=database, clock=clock, versions=versions, changes=changes,
            requests=requests, letters=letters, signals=signals, site=site, http=http,
        )  # fmt: skip
