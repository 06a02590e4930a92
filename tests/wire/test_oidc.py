"""Logging in at an OpenID Connect provider: a real one, one that lies, and one that is away."""

import base64
import hashlib
import json
import os
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from aiohttp import web
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey
from oidc_provider_mock import User, run_server_in_thread  # type: ignore[import-untyped]

from contactd.clock import SystemClock
from contactd.errors import ConfigurationError
from contactd.lab.ports import free_port
from contactd.settings import OidcSettings
from contactd.store.accounts import Identity
from contactd.store.engine import Database
from contactd.tickets.people import Role
from contactd.web.login import STEP_COOKIE
from contactd.web.oidc import CALLBACK, Provider
from contactd.web.pages import Pages
from tests.fakes.access import AccessSite, Answer, Browser, access_site, all_pages

# The provider's own library warns of how the provider uses it.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

PUBLIC = "http://127.0.0.1:1"
ROLES = ("it-desk=desk", "it-heads=supervisor")


@pytest.fixture(scope="module")
def pages() -> Pages:
    return all_pages()


def settings_of(issuer: str, **changes: Any) -> OidcSettings:
    fields = {"issuer": issuer, "client_secret": "s3cret", "roles": ROLES, "timeout_s": 5}
    return OidcSettings(**(fields | {"sites_claim": "sites"} | changes))


@asynccontextmanager
async def site_of(
    database: Database, pages: Pages, issuer: str, **changes: Any
) -> AsyncIterator[AccessSite]:
    clock: Any = SystemClock()  # tokens are signed with the provider's own time
    settings = settings_of(issuer, **changes)
    provider = Provider(settings, public_url=PUBLIC, clock=clock)
    async with access_site(database, clock, pages=pages, provider=provider) as site:
        yield site


# A real provider


@pytest.fixture(scope="module")
def real() -> Iterator[str]:
    users = [
        User(sub="1", claims={"preferred_username": "chen", "groups": ["it-desk", "x"],
                              "sites": ["gz"]}),
        User(sub="2", claims={"preferred_username": "wang", "groups": ["cooks"], "sites": ["gz"]}),
        User(sub="3", claims={"preferred_username": "li", "groups": ["it-desk"], "sites": ["*"]}),
        User(sub="4", claims={"preferred_username": "zhao", "groups": ["it-heads", "it-desk"],
                              "sites": ["*"]}),
        User(sub="5", claims={"preferred_username": "sun", "groups": ["it-desk"]}),
    ]  # fmt: skip
    before = os.environ.get("AUTHLIB_INSECURE_TRANSPORT")
    os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"  # it is on loopback
    with run_server_in_thread(free_port(), user_claims=users, require_nonce=True) as server:
        yield f"http://localhost:{server.server_port}"
    if before is None:
        del os.environ["AUTHLIB_INSECURE_TRANSPORT"]


async def go_through(browser: Browser, subject: str, path: str = "/account") -> Answer:
    """Log in at the provider as `subject` and come back."""
    start = await browser.get(f"/login/oidc?next={path}")
    assert start.status == 303, start.text
    async with browser.http.post(
        start.location, data={"sub": subject}, allow_redirects=False
    ) as answer:
        back = urlsplit(answer.headers["Location"])
    assert f"{back.scheme}://{back.netloc}{back.path}" == PUBLIC + CALLBACK
    return await browser.get(f"{back.path}?{back.query}")


async def test_who_the_provider_knows_comes_in_with_its_role_and_sites(
    database: Database, pages: Pages, real: str
) -> None:
    async with site_of(database, pages, real) as site:
        browser = site.browser()
        assert "/login/oidc?next=" in (await browser.get("/login")).text
        answer = await go_through(browser, "1")
        assert (answer.status, answer.location) == (303, "/account")
        assert STEP_COOKIE not in browser.cookies
        session = browser.cookies["contactd_session"]
        known = Identity(name="chen", role=Role.DESK, sites=frozenset({"gz"}))
        assert await site.accounts.find_session(session) == known
        zhao = site.browser()
        await go_through(zhao, "4")
        found = await site.accounts.find_session(zhao.cookies["contactd_session"])
        assert found == Identity(name="zhao", role=Role.SUPERVISOR)
        assert (await site.told("login"))[0].body["how"] == "oidc"


@pytest.mark.parametrize("subject", ["2", "3", "5"], ids=["no role", "name is taken", "no site"])
async def test_who_may_not_come_in_is_told_what_to_do(
    database: Database, pages: Pages, real: str, subject: str
) -> None:
    async with site_of(database, pages, real) as site:
        browser = site.browser()
        answer = await go_through(browser, subject)
        assert answer.status == 403
        assert "Ask an administrator for a role" in answer.text
        assert await browser.who() == ""
        assert [user.name for user in await site.accounts.users()] == ["li"]
        assert [act.action for act in await site.told("login")] == ["login.refused"]


async def test_who_is_disabled_here_stays_out(database: Database, pages: Pages, real: str) -> None:
    async with site_of(database, pages, real) as site:
        browser = site.browser()
        await go_through(browser, "1")
        await site.accounts.disable_user("chen")
        assert (await go_through(site.browser(), "1")).status == 403


async def test_only_the_browser_that_set_out_comes_in(
    database: Database, pages: Pages, real: str
) -> None:
    async with site_of(database, pages, real) as site:
        victim, thief = site.browser(), site.browser()
        start = await thief.get("/login/oidc")
        async with thief.http.post(
            start.location, data={"sub": "1"}, allow_redirects=False
        ) as answer:
            back = urlsplit(answer.headers["Location"])
        path = f"{back.path}?{back.query}"
        assert (await victim.get(path)).location == "/login?late=1"  # log-in CSRF
        await victim.get("/login/oidc")  # set out, too, with a state of its own
        assert (await victim.get(path)).location == "/login?late=1"
        assert await victim.who() == ""
        assert (await thief.get(path)).status == 303
        assert await thief.who() == "chen"


# One that lies


@dataclass(slots=True)
class Liar:
    """A provider that signs whatever it is told to."""

    issuer: str = ""
    nonce: str = ""
    challenge: str = ""
    key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "1"}))
    shown: RSAKey | None = None  # instead of its own public key
    changes: Mapping[str, Any] = field(default_factory=dict)
    algorithm: str = "RS256"
    secret: Any = None
    verifiers: list[str] = field(default_factory=list)

    async def metadata(self, request: web.Request) -> web.Response:
        return web.json_response(
            {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/keys",
            }
        )

    async def keys(self, request: web.Request) -> web.Response:
        public = (self.shown or self.key).as_dict(private=False)
        return web.json_response({"keys": [public]})

    async def token(self, request: web.Request) -> web.Response:
        fields = await request.post()
        self.verifiers.append(str(fields["code_verifier"]))
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": self.issuer, "aud": "contactd", "sub": "1", "nonce": self.nonce, "iat": now,
            "exp": now + 300, "preferred_username": "chen", "groups": "it-desk", "sites": "gz",
        }  # fmt: skip
        claims = {k: v for k, v in {**claims, **self.changes}.items() if v is not None}
        if self.algorithm == "none":

            def part(value: Any) -> str:
                return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

            signed = f"{part({'alg': 'none'})}.{part(claims)}."
        else:
            header = {"alg": self.algorithm, "kid": "1"}
            signed = jwt.encode(header, claims, self.secret or self.key, [self.algorithm])
        return web.json_response({"access_token": "x", "token_type": "Bearer", "id_token": signed})


@pytest.fixture
async def liar() -> AsyncIterator[Liar]:
    liar, port = Liar(), free_port()
    liar.issuer = f"http://127.0.0.1:{port}"
    app = web.Application()
    app.router.add_get("/.well-known/openid-configuration", liar.metadata)
    app.router.add_get("/keys", liar.keys)
    app.router.add_post("/token", liar.token)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield liar
    await runner.cleanup()


async def come_back(site: AccessSite, liar: Liar, **more: str) -> tuple[Answer, Browser]:
    browser = site.browser()
    start = await browser.get("/login/oidc")
    asked = {key: values[0] for key, values in parse_qs(urlsplit(start.location).query).items()}
    liar.nonce, liar.challenge = asked["nonce"], asked["code_challenge"]
    query = "&".join(f"{k}={v}" for k, v in ({"code": "c", "state": asked["state"]} | more).items())
    return await browser.get(f"{CALLBACK}?{query}"), browser


async def test_the_code_is_bound_to_the_browser_by_pkce(
    sqlite_database: Database, pages: Pages, liar: Liar
) -> None:
    async with site_of(sqlite_database, pages, liar.issuer) as site:
        answer, browser = await come_back(site, liar)
        assert answer.status == 303
        assert await browser.who() == "chen"
    digest = hashlib.sha256(liar.verifiers[0].encode()).digest()
    assert base64.urlsafe_b64encode(digest).decode().rstrip("=") == liar.challenge


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://evil.cn"}, {"aud": "another"}, {"aud": ["contactd", "another"]},
        {"azp": "another"}, {"nonce": "another"}, {"nonce": None}, {"exp": 1}, {"exp": None},
        {"iat": 4102444800}, {"sub": None}, {"sub": 1}, {"sub": "x" * 300},
        {"iss": ["x"]}, {"preferred_username": ""}, {"preferred_username": 5},
        {"groups": ["cooks"]}, {"groups": {"it-desk": 1}}, {"sites": []},
    ],
    ids=str,
)  # fmt: skip
async def test_a_token_that_is_not_for_us_opens_nothing(
    sqlite_database: Database, pages: Pages, liar: Liar, changes: Mapping[str, Any]
) -> None:
    liar.changes = changes
    async with site_of(sqlite_database, pages, liar.issuer) as site:
        answer, browser = await come_back(site, liar)
        assert answer.status == 403
        assert await browser.who() == ""


@pytest.mark.parametrize("algorithm", ["none", "HS256", "another key"])
async def test_a_token_that_is_not_signed_by_the_provider_opens_nothing(
    sqlite_database: Database, pages: Pages, liar: Liar, algorithm: str
) -> None:
    if algorithm == "another key":
        liar.shown = RSAKey.generate_key(2048, {"kid": "1"})
    else:
        liar.algorithm = algorithm
        liar.secret = OctKey.import_key("s3cret-s3cret-s3cret-s3cret-s3cret")
    async with site_of(sqlite_database, pages, liar.issuer) as site:
        answer, browser = await come_back(site, liar)
        assert answer.status == 403
        assert await browser.who() == ""


async def test_an_answer_of_another_provider_and_a_refusal_open_nothing(
    sqlite_database: Database, pages: Pages, liar: Liar
) -> None:
    async with site_of(sqlite_database, pages, liar.issuer) as site:
        answer, _ = await come_back(site, liar, iss="https://evil.cn")
        assert answer.status == 403
        browser = site.browser()
        start = await browser.get("/login/oidc")
        state = parse_qs(urlsplit(start.location).query)["state"][0]
        answer = await browser.get(f"{CALLBACK}?error=access_denied&state={state}")
        assert answer.status == 403
        assert "did not let you in" in answer.text


# One that is away, or was never there


async def test_without_the_provider_passwords_still_work(
    sqlite_database: Database, pages: Pages
) -> None:
    async with site_of(sqlite_database, pages, f"http://127.0.0.1:{free_port()}") as site:
        browser = site.browser()
        answer = await browser.get("/login/oidc?next=/account")
        assert answer.status == 503
        assert "Use a password" in answer.text
        assert 'value="/account"' in answer.text
        assert (await browser.log_in()).status == 303


async def test_where_none_is_configured_there_is_none(
    sqlite_database: Database, pages: Pages
) -> None:
    clock: Any = SystemClock()
    async with access_site(sqlite_database, clock, pages=pages) as site:
        assert (await site.browser().get("/login/oidc")).status == 404
        assert (await site.browser().get(CALLBACK)).status == 404
        assert "/login/oidc" not in (await site.browser().get("/login")).text


def test_a_provider_needs_a_way_back_and_tls() -> None:
    with pytest.raises(ConfigurationError, match="public_url"):
        Provider(settings_of("https://idp.example.cn"), public_url="", clock=SystemClock())
    with pytest.raises(ValueError, match="https"):
        settings_of("http://idp.example.cn")
    with pytest.raises(ValueError, match="roles must be given"):
        settings_of("https://idp.example.cn", roles=())
    with pytest.raises(ValueError, match="pattern"):
        settings_of("https://idp.example.cn", roles=("x=king",))


@pytest.fixture
async def sqlite_database(sqlite_url: str) -> AsyncIterator[Database]:
    database = Database(sqlite_url, clock=SystemClock())
    async with database.running():
        yield database
