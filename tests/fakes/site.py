"""The web half of the daemon on a real socket, with a fake board and accounts in memory."""

import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

import aiohttp

from contactd.clock import SystemClock
from contactd.httpd import Httpd, Route
from contactd.lab.ports import free_port
from contactd.settings import HttpSettings
from contactd.signals import Signals
from contactd.store import attempts
from contactd.store.accounts import Grant
from contactd.tickets.people import Role
from contactd.web import api, login, status
from contactd.web.api import Api
from contactd.web.i18n import Language
from contactd.web.live import Live
from contactd.web.pages import Pages, static_routes
from tests.fakes.board import FakeBoard


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeIdentity:
    name: str
    role: Role
    sites: frozenset[str] = frozenset()
    engineer: str = ""


@dataclass(slots=True, kw_only=True)
class FakeAccounts:
    """Users and tokens in memory."""

    passwords: dict[str, str] = field(default_factory=lambda: {"li": "correct horse"})
    roles: dict[str, Role] = field(default_factory=lambda: {"li": Role.SUPERVISOR})
    sessions: dict[str, str] = field(default_factory=dict)
    acts: list[tuple[str, str, str, dict[str, Any]]] = field(default_factory=list)
    tokens: dict[str, FakeIdentity] = field(
        default_factory=lambda: {
            f"cd_{role}": FakeIdentity(name=f"oa-{role}", role=role) for role in Role
        }
    )

    async def find_token(self, secret: str) -> FakeIdentity | None:
        return self.tokens.get(secret)

    async def find_session(self, secret: str) -> FakeIdentity | None:
        name = self.sessions.get(secret)
        return self._identity(name) if name else None

    async def check_password(self, name: str, password: str) -> FakeIdentity | None:
        known = self.passwords.get(name)
        return self._identity(name) if known is not None and known == password else None

    async def factor_key(self, name: str) -> bytes | None:
        return None

    async def use_step(self, name: str, step: int) -> bool:
        return False

    async def admit(self, subject: str, name: str, grant: Grant) -> FakeIdentity:
        return self._identity(name)

    async def note(
        self, *, actor: str, action: str, subject: str = "", body: Mapping[str, Any] | None = None
    ) -> None:
        self.acts.append((actor, action, subject, dict(body or {})))

    async def key(self) -> bytes:
        return b"k" * 32

    async def open_session(self, name: str, *, lasts: timedelta, agent: str = "") -> str:
        secret = secrets.token_urlsafe()
        self.sessions[secret] = name
        return secret

    async def close_session(self, secret: str) -> None:
        self.sessions.pop(secret, None)

    def _identity(self, name: str) -> FakeIdentity:
        return FakeIdentity(name=name, role=self.roles[name])


@dataclass(slots=True)
class FakeGuard:
    """Lock-outs in memory: ten failures of a name, then a minute."""

    failures: Counter[str] = field(default_factory=Counter)

    async def begin(self, counters: Sequence[attempts.Counter]) -> timedelta:
        name = next(each.key for each in counters if each.key.startswith("name:"))
        if self.failures[name] >= 10:
            return timedelta(minutes=1)
        self.failures[name] += 1
        return timedelta()

    async def succeeded(
        self, name: attempts.Counter, others: Sequence[attempts.Counter] = ()
    ) -> None:
        del self.failures[name.key]


@dataclass(slots=True, kw_only=True)
class Site:
    httpd: Httpd
    live: Live
    board: FakeBoard
    signals: Signals
    accounts: FakeAccounts
    url: str
    port: int


@cache
def _pages() -> Pages:
    """Return the templates, compiled once for all tests: they keep nothing of a site."""
    return Pages(name="contactd", zone=ZoneInfo("Asia/Shanghai"), language=Language.ZH)


@asynccontextmanager
async def running_site(
    *,
    routes: Iterable[Route] = (),
    make_routes: Callable[[Pages], Iterable[Route]] | None = None,
    make_api: Callable[[Live], Api] | None = None,
    board: FakeBoard | None = None,
    **settings: Any,
) -> AsyncIterator[Site]:
    """Run the pages, and the API if one is made; `settings` are those of the section `http`.

    `make_routes` makes further pages.
    """
    options = HttpSettings(**{"port": free_port(), "public_status": True} | settings)
    board = board or FakeBoard()
    accounts, signals, clock = FakeAccounts(), Signals(), SystemClock()
    pages = _pages()
    live = Live(
        board=board,
        health=lambda: board.health,
        draw=status.Status(pages, "Asia/Shanghai").draw,
        signals=signals,
        clock=clock,
        max_streams=options.max_streams,
    )
    httpd = Httpd(
        options,
        routes=[
            *status.routes(options, pages=pages, live=live, health=lambda: board.health),
            *login.routes(
                login.Login(
                    pages=pages,
                    logins=accounts,
                    guard=FakeGuard(),
                    acts=accounts,
                    clock=clock,
                    key=accounts.key,
                )
            ),
            *routes,
            *(make_routes(pages) if make_routes else ()),
            *(api.routes(make_api(live)) if make_api else ()),
        ],
        accounts=accounts,
        static=static_routes(),
        page=pages.problem,
        on_stop=[live.end_streams],
        drain_s=2,
    )
    async with AsyncExitStack() as opened:
        await opened.enter_async_context(live.running())
        await opened.enter_async_context(httpd.running())
        yield Site(
            httpd=httpd, live=live, board=board, signals=signals, accounts=accounts,
            url=f"http://127.0.0.1:{httpd.port}", port=httpd.port,
        )  # fmt: skip


@asynccontextmanager
async def browser() -> AsyncIterator[aiohttp.ClientSession]:
    """A client that keeps cookies, also those of an address without a name."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        yield session
