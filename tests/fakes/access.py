"""Log-in, account, users and acts on a real database, a real socket and a clock that is pushed."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from http.cookies import SimpleCookie
from typing import Any, Final
from zoneinfo import ZoneInfo

import aiohttp
from aiohttp import web
from argon2 import PasswordHasher

from contactd.httpd import HTTPD, Httpd, Route
from contactd.lab.ports import free_port
from contactd.settings import HttpSettings
from contactd.store.accounts import Accounts
from contactd.store.acts import Act, ActFilters, Acts
from contactd.store.attempts import Attempts
from contactd.store.desk import load_desk
from contactd.store.engine import Database
from contactd.store.keys import Keys
from contactd.store.views import Views
from contactd.tickets.people import Role
from contactd.web import account, login, usersadmin
from contactd.web.access import EVERYBODY
from contactd.web.i18n import Language
from contactd.web.pages import Pages, static_routes
from tests.fakes.clock import FakeClock
from tests.fakes.rota import small_desk

PASSWORD: Final = "correct horse"
ZONE: Final = "Asia/Shanghai"


@dataclass(slots=True, kw_only=True)
class Browser:
    """Cookies and headers of one browser; it follows no redirect."""

    http: aiohttp.ClientSession
    url: str
    cookies: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=lambda: {"Sec-Fetch-Site": "same-origin"})
    address: str = "203.0.113.1"

    async def ask(self, method: str, path: str, **fields: Any) -> "Answer":
        headers = {
            "Accept": "text/html",
            "Accept-Language": "en",
            "X-Forwarded-For": self.address,
            **self.headers,
        }
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{key}={value}" for key, value in self.cookies.items())
        async with self.http.request(
            method, self.url + path, headers=headers, data=fields or None, allow_redirects=False
        ) as answer:
            for line in answer.headers.getall("Set-Cookie", []):
                for key, morsel in SimpleCookie(line).items():
                    self.cookies[key] = morsel.value
                    if morsel["max-age"] == "0":
                        del self.cookies[key]
            return Answer(answer.status, answer.headers, await answer.text())

    async def get(self, path: str) -> "Answer":
        return await self.ask("GET", path)

    async def post(self, path: str, **fields: Any) -> "Answer":
        return await self.ask("POST", path, **fields)

    async def log_in(self, name: str = "li", password: str = PASSWORD, **more: str) -> "Answer":
        return await self.post("/login", name=name, password=password, **more)

    async def who(self) -> str:
        """Return whom the server takes us for, "" for nobody."""
        answer = await self.get("/who")
        return answer.text if answer.status == 200 else ""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def location(self) -> str:
        return self.headers.get("Location", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessSite:
    accounts: Accounts
    acts: Acts
    clock: FakeClock
    url: str
    http: aiohttp.ClientSession
    browser: Callable[[], Browser]

    async def told(self, action: str = "") -> list[Act]:
        """Return the acts, the oldest first."""
        return [*(await self.acts.page(ActFilters(action=action), limit=200)).items][::-1]


async def who(request: web.Request) -> web.Response:
    identity = await request.app[HTTPD].identify(request)
    return web.Response(text=identity.name if identity else "")


@asynccontextmanager
async def access_site(
    database: Database,
    clock: FakeClock,
    *,
    pages: Pages,
    provider: login.Provider | None = None,
    **settings: Any,
) -> AsyncIterator[AccessSite]:
    """Run the pages; there is `li`, who administers, and the small desk."""
    await load_desk(database, small_desk(), clock)
    accounts, guard = Accounts(database, clock), Attempts(database, clock)
    accounts._hasher = PasswordHasher(time_cost=1, memory_cost=64)
    acts, keys, views = Acts(database, clock), Keys(database, clock), Views(database, clock)
    await accounts.add_user("li", PASSWORD, Role.ADMIN)
    httpd = Httpd(
        HttpSettings(**{"port": free_port()} | settings),
        routes=[
            *login.routes(
                login.Login(
                    pages=pages, logins=accounts, guard=guard, acts=acts, clock=clock,
                    key=keys.signing, provider=provider,
                )
            ),
            *account.routes(
                account.AccountPage(
                    pages=pages, accounts=accounts, guard=guard, sites=views, clock=clock,
                    service="contactd", public_url=settings.get("public_url", ""),
                )
            ),
            *usersadmin.routes(
                usersadmin.UsersPage(pages=pages, accounts=accounts, sites=views, clock=clock),
                usersadmin.ActsPage(pages=pages, acts=acts, clock=clock, zone=ZONE),
            ),
            Route(method="GET", path="/who", handler=who, roles=EVERYBODY),
        ],
        accounts=accounts,
        static=static_routes(),
        page=pages.problem,
    )  # fmt: skip
    async with AsyncExitStack() as opened:
        http = await opened.enter_async_context(
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        )
        await opened.enter_async_context(httpd.running())
        url = f"http://127.0.0.1:{httpd.port}"
        yield AccessSite(
            accounts=accounts, acts=acts, clock=clock, url=url, http=http,
            browser=partial(Browser, http=http, url=url),
        )  # fmt: skip


def all_pages() -> Pages:
    return Pages(name="contactd", zone=ZoneInfo(ZONE), language=Language.ZH)
