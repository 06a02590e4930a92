"""Logging in: passwords, lock-outs, codes of a telephone, sessions, and where one is sent then."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pyotp
import pytest

from contactd.httpd import SECURE_SESSION_COOKIE, SESSION_COOKIE
from contactd.store.attempts import LONGEST_WAIT, by_address, by_name
from contactd.store.engine import Database
from contactd.tickets.people import Role
from contactd.web import factor
from contactd.web.login import STEP_COOKIE, own_page
from contactd.web.pages import Pages
from contactd.web.sealed import seal, unseal
from tests.fakes.access import PASSWORD, AccessSite, access_site, all_pages
from tests.fakes.clock import FakeClock


@pytest.fixture(scope="module")
def pages() -> Pages:
    return all_pages()


@pytest.fixture
async def site(database: Database, clock: FakeClock, pages: Pages) -> AsyncIterator[AccessSite]:
    async with access_site(database, clock, pages=pages) as running:
        yield running


async def with_factor(site: AccessSite, name: str = "li") -> str:
    key = factor.new_key()
    await site.accounts.set_factor(name, factor.key_bytes(key))
    return key


def code_of(key: str, clock: FakeClock) -> str:
    return pyotp.TOTP(key).at(clock.now())


# Sessions


async def test_a_log_in_makes_a_session_and_is_on_the_journal(site: AccessSite) -> None:
    browser = site.browser()
    answer = await browser.log_in(next="/account")
    assert (answer.status, answer.location) == (303, "/account")
    assert await browser.who() == "li"
    (act,) = await site.told("login")
    assert (act.actor, act.action, act.subject) == ("user:li", "login.succeeded", "li")
    assert act.body == {"how": "password", "address": "203.0.113.1"}
    await browser.post("/logout")
    assert await browser.who() == ""


async def test_a_session_somebody_else_has_planted_is_not_taken_over(site: AccessSite) -> None:
    browser = site.browser()
    browser.cookies[SESSION_COOKIE] = "planted"
    await browser.log_in()
    assert browser.cookies[SESSION_COOKIE] != "planted"
    thief = site.browser()
    thief.cookies[SESSION_COOKIE] = "planted"
    assert await thief.who() == ""


async def test_a_second_log_in_ends_the_session_before(site: AccessSite) -> None:
    browser, thief = site.browser(), site.browser()
    await browser.log_in()
    thief.cookies |= browser.cookies
    assert await thief.who() == "li"
    await browser.log_in()
    assert await browser.who() == "li"
    assert await thief.who() == ""


async def test_by_tls_the_cookie_has_a_name_that_no_other_host_can_set(
    database: Database, clock: FakeClock, pages: Pages
) -> None:
    public = "https://desk.example.cn"
    async with access_site(database, clock, pages=pages, public_url=public) as site:
        browser = site.browser()
        answer = await browser.log_in()
        said = answer.headers["Set-Cookie"]
        for attribute in ("HttpOnly", "SameSite=Lax", "Secure", "Path=/"):
            assert attribute in said
        assert "Domain" not in said
        secret = browser.cookies.pop(SECURE_SESSION_COOKIE)
        browser.cookies[SESSION_COOKIE] = secret  # as another host of the domain could set it
        assert await browser.who() == ""
        browser.cookies = {SECURE_SESSION_COOKIE: secret}
        assert await browser.who() == "li"


# Lock-outs


async def test_failures_lock_a_name_longer_and_longer_whether_anybody_has_it_or_not(
    site: AccessSite,
) -> None:
    for name in ("li", "nobody"):
        browser, waits = site.browser(), []
        for _ in range(14):
            answer = await browser.log_in(name, "wrong")
            while answer.status == 429:
                waits.append(int(answer.headers["Retry-After"]) - 1)
                site.clock.advance(timedelta(seconds=waits[-1]))
                answer = await browser.log_in(name, "wrong")
            assert answer.status == 401
            assert "The name or the password is wrong." in answer.text
        assert waits == [30, 60, 120, 240, 480, 900, 900, 900, 900], name


async def test_who_is_locked_cannot_get_in_with_the_right_password_until_it_is_over(
    site: AccessSite,
) -> None:
    browser = site.browser()
    for _ in range(5):
        await browser.log_in(password="wrong")
    answer = await browser.log_in()
    assert answer.status == 429
    assert "Try again in 1 minutes." in answer.text
    site.clock.advance(timedelta(seconds=29))
    assert (await browser.log_in()).status == 429
    site.clock.advance(timedelta(seconds=1))
    assert (await browser.log_in()).status == 303
    assert (await browser.log_in(password="wrong")).status == 401  # and it begins anew


async def test_a_hundred_guesses_at_once_are_no_more_than_one_after_the_other(
    site: AccessSite,
) -> None:
    guesses = [site.browser().log_in(password=f"guess {n}") for n in range(40)]
    found = [answer.status for answer in await asyncio.gather(*guesses)]
    assert (found.count(401), found.count(429)) == (5, 35)


async def test_an_address_that_tries_many_names_is_locked_and_others_are_not(
    site: AccessSite,
) -> None:
    guesser, good = site.browser(), site.browser()
    good.address = "203.0.113.2"
    found = [(await guesser.log_in(f"name{n}", "wrong")).status for n in range(52)]
    assert found == [401] * 50 + [429] * 2
    assert (await guesser.log_in()).status == 429
    assert (await good.log_in()).status == 303


async def test_ipv6_addresses_of_one_subscriber_count_as_one(site: AccessSite) -> None:
    found = []
    for number in range(51):
        browser = site.browser()
        browser.address = f"2001:db8:1:2::{number:x}"
        found.append((await browser.log_in(f"name{number}", "wrong")).status)
    assert found == [401] * 50 + [429]


async def test_a_client_cannot_name_another_address_than_its_own(
    database: Database, clock: FakeClock, pages: Pages
) -> None:
    async with access_site(database, clock, pages=pages, proxies=[]) as site:
        browser = site.browser()  # says X-Forwarded-For: 203.0.113.1, but no proxy is ours
        await browser.log_in()
        (act,) = await site.told("login")
    assert act.body["address"] == "127.0.0.1"


async def test_only_the_last_hop_before_our_proxies_is_believed(site: AccessSite) -> None:
    browser = site.browser()
    browser.address = "198.51.100.7, 203.0.113.9, 127.0.0.1"
    await browser.log_in()
    (act,) = await site.told("login")
    assert act.body["address"] == "203.0.113.9"


async def test_a_refusal_is_on_the_journal_without_what_was_typed(site: AccessSite) -> None:
    await site.browser().log_in("my secret password", "x")
    (act,) = await site.told("login")
    assert act.action == "login.refused"
    assert act.body == {"name": "my…", "step": "password", "address": "203.0.113.1"}


def test_waits_grow_and_have_an_end() -> None:
    counter = by_name("li")
    waits = [counter.wait(failures).total_seconds() for failures in range(4, 12)]
    assert waits == [0, 30, 60, 120, 240, 480, 900, 900]
    assert counter.wait(10**9) == LONGEST_WAIT
    assert "li" not in counter.key.partition(":")[2]
    assert by_address("li").key != counter.key


# The second step


async def test_with_a_second_factor_the_password_alone_opens_nothing(site: AccessSite) -> None:
    key = await with_factor(site)
    browser = site.browser()
    answer = await browser.log_in(next="/account")
    assert (answer.status, answer.location) == (303, "/login/code")
    assert await browser.who() == ""
    assert "six digits" in (await browser.get("/login/code")).text
    answer = await browser.post("/login/code", code=code_of(key, site.clock))
    assert (answer.status, answer.location) == (303, "/account")
    assert await browser.who() == "li"
    assert STEP_COOKIE not in browser.cookies


async def test_a_code_is_good_once(site: AccessSite) -> None:
    key = await with_factor(site)
    first, second = site.browser(), site.browser()
    code = code_of(key, site.clock)
    await first.log_in()
    assert (await first.post("/login/code", code=code)).status == 303
    await second.log_in()
    answer = await second.post("/login/code", code=code)
    assert answer.status == 401
    assert "was used already" in answer.text
    assert await second.who() == ""
    site.clock.advance(timedelta(seconds=30))
    assert (await second.post("/login/code", code=code_of(key, site.clock))).status == 303


async def test_codes_cannot_be_guessed(site: AccessSite) -> None:
    await with_factor(site)
    browser = site.browser()
    await browser.log_in()
    found = [(await browser.post("/login/code", code="000000")).status for _ in range(6)]
    assert found[:4] == [401] * 4
    assert found[4:] == [429, 429]  # with the password's own try they are five
    assert (await site.browser().log_in()).status == 429


async def test_the_second_step_needs_the_first(site: AccessSite) -> None:
    key = await with_factor(site)
    browser = site.browser()
    forged = seal(b"another key" * 3, "code", {"name": "li", "next": "/"}, site.clock.now())
    for cookie in ("", "x.y", forged, "." * 4000, "é.é"):
        browser.cookies[STEP_COOKIE] = cookie
        answer = await browser.post("/login/code", code=code_of(key, site.clock))
        assert (answer.status, answer.location) == (303, "/login?late=1")
    assert await browser.who() == ""
    assert "Please begin again" in (await browser.get("/login?late=1")).text


async def test_the_second_step_must_follow_soon(site: AccessSite) -> None:
    key = await with_factor(site)
    browser = site.browser()
    await browser.log_in()
    site.clock.advance(timedelta(minutes=10))
    answer = await browser.post("/login/code", code=code_of(key, site.clock))
    assert answer.location == "/login?late=1"


@pytest.mark.parametrize(
    ("off", "known"), [(-60, False), (-30, True), (0, True), (30, True), (60, False)]
)
def test_a_telephone_may_go_half_a_minute_wrong(off: int, known: bool, clock: FakeClock) -> None:
    key = factor.new_key()
    code = pyotp.TOTP(key).at(clock.now() + timedelta(seconds=off))
    secret = factor.key_bytes(key)
    assert secret is not None
    step = factor.step_of(secret, f" {code[:3]} {code[3:]} ", clock.now())
    assert (step is not None) == known
    if step is not None:
        assert step == int(clock.now().timestamp() + off) // 30


@pytest.mark.parametrize("code", ["", "12345", "1234567", "abcdef", "１２３４５６", "\ud800"])
def test_what_is_no_code_is_none(code: str, clock: FakeClock) -> None:
    assert factor.step_of(b"x" * 20, code, clock.now()) is None


# Somebody disabled


async def test_who_is_disabled_is_out_at_once_and_stays_out(site: AccessSite) -> None:
    await site.accounts.add_user("wang", PASSWORD, Role.DESK)
    browser = site.browser()
    await browser.log_in("wang")
    await site.accounts.disable_user("wang")
    assert await browser.who() == ""
    assert (await browser.log_in("wang")).status == 401
    await site.accounts.enable_user("wang")
    assert (await browser.log_in("wang")).status == 303


async def test_who_is_disabled_between_the_two_steps_does_not_come_in(site: AccessSite) -> None:
    await site.accounts.add_user("wang", PASSWORD, Role.DESK)
    key = await with_factor(site, "wang")
    browser = site.browser()
    await browser.log_in("wang")
    await site.accounts.disable_user("wang")
    answer = await browser.post("/login/code", code=code_of(key, site.clock))
    assert answer.status == 401
    assert await browser.who() == ""


# Where one is sent, and from where


@pytest.mark.parametrize(
    "path",
    ["//evil.cn", "/\\evil.cn", "https://evil.cn", "javascript:alert(1)", "/\t/evil.cn",
     "/\n/evil.cn", "evil.cn", "", "/" + "x" * 3000, "\\\\evil.cn", " //evil.cn"],
)  # fmt: skip
async def test_nobody_is_sent_to_another_site_after_the_log_in(site: AccessSite, path: str) -> None:
    assert own_page(path) == "/"
    answer = await site.browser().log_in(next=path)
    assert (answer.status, answer.location) == (303, "/")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, 303),
        ({"Sec-Fetch-Site": "none"}, 303),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "OWN"}, 403),
        ({"Origin": "OWN"}, 303),
        ({"Origin": "null"}, 403),
        ({"Origin": "https://evil.cn"}, 403),
        ({"Origin": ""}, 403),
        ({}, 303),  # a program
    ],
)
async def test_no_other_site_can_log_somebody_in(
    site: AccessSite, headers: dict[str, str], status: int
) -> None:
    browser = site.browser()
    browser.headers = {key: value.replace("OWN", site.url) for key, value in headers.items()}
    assert (await browser.log_in()).status == status


async def test_what_has_a_cookie_must_say_where_it_comes_from(site: AccessSite) -> None:
    browser = site.browser()
    await browser.log_in()
    browser.headers = {}
    assert (await browser.post("/account/sessions")).status == 403
    assert (await browser.post("/logout")).status == 403
    assert await browser.who() == "li"


# What a browser keeps


def test_what_was_sealed_is_taken_back_for_its_purpose_and_time_only(clock: FakeClock) -> None:
    key, until = b"k" * 32, clock.now() + timedelta(minutes=1)
    text = seal(key, "code", {"name": "陈静"}, until)
    assert unseal(key, "code", text, clock.now()) == {"name": "陈静"}
    assert unseal(key, "oidc", text, clock.now()) is None
    assert unseal(b"x" * 32, "code", text, clock.now()) is None
    assert unseal(key, "code", text, until) is None
    body, _, mac = text.partition(".")
    assert unseal(key, "code", f"{body[:-2]}AA.{mac}", clock.now()) is None
    for torn in ("", ".", body, f"{body}.", f".{mac}", "a.b.c", "=.=", "陈.静"):
        assert unseal(key, "code", torn, clock.now()) is None
