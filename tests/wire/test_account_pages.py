"""One's own account; users and tokens, for administrators; the journal of acts."""

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from html import unescape

import pyotp
import pytest
from sqlalchemy import insert, update

from contactd.errors import NotFound, PermanentFailure
from contactd.httpd import SESSION_COOKIE
from contactd.store.accounts import Grant, Identity
from contactd.store.engine import Database
from contactd.store.schema import acts, users
from contactd.tickets.people import Role
from contactd.web.pages import Pages
from tests.fakes.access import PASSWORD, AccessSite, Browser, access_site, all_pages
from tests.fakes.clock import FakeClock

NEW = "battery staple"
HOSTILE = "<script>alert(1)</script>&\"'"


@pytest.fixture(scope="module")
def pages() -> Pages:
    return all_pages()


@pytest.fixture
async def site(database: Database, clock: FakeClock, pages: Pages) -> AsyncIterator[AccessSite]:
    async with access_site(database, clock, pages=pages) as running:
        yield running


@pytest.fixture
async def li(site: AccessSite) -> Browser:
    browser = site.browser()
    await browser.log_in()
    return browser


async def logged_in(site: AccessSite, name: str, role: Role, **more: object) -> Browser:
    await site.accounts.add_user(name, PASSWORD, role, **more)  # type: ignore[arg-type]
    browser = site.browser()
    await browser.log_in(name)
    return browser


def seen(text: str, pattern: str) -> str:
    found = re.search(pattern, text)
    assert found is not None, pattern
    return unescape(found[1])


# One's own account


@pytest.mark.parametrize("role", sorted(set(Role) - {Role.CALENDAR}))
async def test_everybody_has_an_account_in_both_languages(site: AccessSite, role: Role) -> None:
    browser = await logged_in(site, "wang", role, sites={"gz"})
    english = (await browser.get("/account")).text
    assert "gz" in english
    assert "All sites" not in english
    assert "我的账号" in (await browser.get("/account?lang=zh")).text


async def test_a_token_has_no_account_even_of_the_same_name(site: AccessSite, li: Browser) -> None:
    with pytest.raises(PermanentFailure, match="there is a user 'li'"):
        await site.accounts.create_token("li", Role.ADMIN)
    secret = await site.accounts.create_token("oa", Role.ADMIN)
    program = site.browser()
    program.headers = {"Authorization": f"Bearer {secret}"}
    assert (await program.get("/account")).status == 403
    program.cookies = dict(li.cookies)
    answer = await program.post("/account/sessions")
    assert answer.status == 403
    with pytest.raises(PermanentFailure, match="there is a token 'oa'"):
        await site.accounts.add_user("oa", PASSWORD, Role.DESK)


async def test_a_new_password_ends_the_other_sessions_and_not_this_one(
    site: AccessSite, li: Browser
) -> None:
    other = site.browser()
    await other.log_in()
    answer = await li.post("/account/password", old=PASSWORD, new=NEW, again=NEW)
    assert answer.location == "/account?done=password"
    assert "Your password is changed" in (await li.get(answer.location)).text
    assert (await li.who(), await other.who()) == ("li", "")
    assert (await other.log_in()).status == 401
    assert (await other.log_in(password=NEW)).status == 303
    assert [act.subject for act in await site.told("user.password_changed")] == ["li"]


@pytest.mark.parametrize(
    ("old", "new", "again", "said"),
    [
        ("wrong", NEW, NEW, "The password is wrong."),
        (PASSWORD, "1234567", "1234567", "A password has at least 8 characters."),
        (PASSWORD, NEW, NEW + "x", "The two new passwords differ."),
        (PASSWORD, "x" * 201, "x" * 201, "200 characters at most"),
        ("x" * 5000, NEW, NEW, "The password is wrong."),
    ],
)
async def test_a_password_that_cannot_be_changed_says_why(
    site: AccessSite, li: Browser, old: str, new: str, again: str, said: str
) -> None:
    answer = await li.post("/account/password", old=old, new=new, again=again)
    assert answer.status == 422
    assert said in answer.text
    assert new not in answer.text
    assert await site.accounts.check_password("li", PASSWORD) is not None


async def test_a_machine_that_was_left_open_lets_nobody_guess_the_password(
    site: AccessSite, li: Browser
) -> None:
    found = [
        (await li.post("/account/password", old=f"guess {n}", new=NEW, again=NEW)).status
        for n in range(6)
    ]
    assert found == [422] * 5 + [429]


async def test_a_second_factor_is_asked_for_once_the_telephone_has_shown_a_code(
    site: AccessSite, li: Browser
) -> None:
    page = (await li.get("/account/factor")).text
    key = seen(page, r'name="key" value="([A-Z2-7]{32})"')
    assert "<svg" in page
    assert "style=" not in page
    wrong = await li.post("/account/factor", key=key, code="000000", old=PASSWORD)
    assert wrong.status == 422
    assert f'value="{key}"' in wrong.text  # the same picture: it may be scanned already
    code = pyotp.TOTP(key).at(site.clock.now())
    assert (await li.post("/account/factor", key=key, code=code, old="wrong")).status == 422
    assert not (await site.accounts.user("li")).has_factor
    answer = await li.post("/account/factor", key=key, code=code, old=PASSWORD)
    assert answer.location == "/account?done=factor"
    other = site.browser()
    assert (await other.log_in()).location == "/login/code"
    assert (await other.post("/login/code", code=code)).status == 401  # was used to set it up
    assert (await li.post("/account/factor/remove", old="wrong")).status == 422
    assert (await li.post("/account/factor/remove", old=PASSWORD)).status == 303
    assert (await other.log_in()).location == "/"
    told = [act.action for act in await site.told("user")]
    assert told[-2:] == ["user.factor_set", "user.factor_removed"]


@pytest.mark.parametrize("key", ["", "AAAA", "not base32!", "é" * 32])
async def test_a_secret_of_somebody_else_is_no_second_factor(
    site: AccessSite, li: Browser, key: str
) -> None:
    answer = await li.post("/account/factor", key=key, code="000000", old=PASSWORD)
    assert answer.status == 422
    assert "no longer good" in answer.text


async def test_one_sees_and_ends_ones_own_sessions_only(site: AccessSite, li: Browser) -> None:
    wang = await logged_in(site, "wang", Role.DESK)
    other = site.browser()
    other.headers["User-Agent"] = HOSTILE
    await other.log_in()
    page = (await li.get("/account")).text
    assert HOSTILE not in page
    assert page.count("<strong>this browser") == 1
    ids = re.findall(r'name="id" value="([0-9a-f]{16})"', page)
    assert len(ids) == 1
    assert (await wang.post("/account/sessions", id=ids[0])).status == 404
    assert await other.who() == "li"
    assert (await li.post("/account/sessions", id=ids[0])).status == 303
    assert (await li.who(), await other.who(), await wang.who()) == ("li", "", "wang")
    await other.log_in()
    await li.post("/account/sessions")
    assert (await li.who(), await other.who(), await wang.who()) == ("li", "", "wang")


async def test_an_engineer_makes_the_address_of_their_calendar_and_a_new_one_ends_it(
    site: AccessSite,
) -> None:
    wang = await logged_in(site, "wang-w", Role.ENGINEER, engineer="wang")
    tokens = []
    for _ in range(2):
        page = (await wang.post("/account/calendar")).text
        address = seen(page, r'id="feed" class="secret" value="([^"]+)"')
        path, _, token = address.partition("?token=")
        assert path == f"{site.url}/api/v1/oncall/person/wang.ics"
        tokens.append(token)
    assert await site.accounts.find_token(tokens[0]) is None
    assert await site.accounts.find_token(tokens[1]) == Identity(
        name="calendar:wang-w", role=Role.CALENDAR
    )
    assert tokens[1] not in (await wang.get("/account")).text


async def test_who_is_no_engineer_has_no_calendar(site: AccessSite, li: Browser) -> None:
    assert (await li.post("/account/calendar")).status == 409
    assert "/account/calendar" not in (await li.get("/account")).text


# Users


async def test_an_administrator_adds_somebody_who_can_log_in_then(
    site: AccessSite, li: Browser
) -> None:
    answer = await li.post(
        "/desk/users/new", name="陈静 & co", password=NEW, role="desk", site="gz", engineer="chen"
    )
    assert answer.status == 303
    page = (await li.get(answer.location)).text
    assert "Added." in page
    browser = site.browser()
    await browser.log_in("陈静 & co", NEW)
    found = await site.accounts.find_session(browser.cookies[SESSION_COOKIE])
    assert found == Identity(
        name="陈静 & co", role=Role.DESK, sites=frozenset({"gz"}), engineer="chen"
    )
    (act,) = [act for act in await site.told("user.added") if act.actor == "user:li"]
    assert (act.subject, act.body) == (
        "陈静 & co", {"role": "desk", "sites": ["gz"], "engineer": "chen"}
    )  # fmt: skip
    assert "陈静 &amp; co" in (await li.get("/desk/users")).text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"site": ""}, "Choose the sites, or all of them."),
        ({"site": "moon"}, "there is no site &#39;moon&#39;"),
        ({"role": "king"}, "Choose a role."),
        ({"role": "calendar"}, "Choose a role."),
        ({"engineer": "nobody"}, "there is no engineer &#39;nobody&#39;"),
        ({"password": "1234567"}, "at least 8"),
        ({"name": "li"}, "there is a user &#39;li&#39; already"),
        ({"name": ""}, "a name has"),
        ({"name": "a\nb"}, "a name has"),
    ],
)
async def test_a_user_who_cannot_be_says_why_and_keeps_what_was_typed(
    site: AccessSite, li: Browser, changes: dict[str, str], said: str
) -> None:
    fields = {"name": "wang", "password": NEW, "role": "desk", "site": "gz", **changes}
    fields = {key: value for key, value in fields.items() if value or key != "site"}
    answer = await li.post("/desk/users/new", **fields)
    assert answer.status == 422
    assert said in answer.text
    assert NEW not in answer.text
    assert [user.name for user in await site.accounts.users()] == ["li"]


async def test_a_change_counts_from_the_next_click_on(site: AccessSite, li: Browser) -> None:
    wang = await logged_in(site, "wang", Role.ADMIN)
    assert (await wang.get("/desk/users")).status == 200
    changed = await li.post(
        "/desk/users/one", name="wang", do="changed", role="quality", everywhere="1", site="gz"
    )
    assert changed.status == 303
    assert (await wang.get("/desk/users")).status == 403
    assert (await wang.get("/desk/acts")).status == 200
    assert (await site.accounts.user("wang")).grant == Grant(role=Role.QUALITY)


async def test_an_administrator_of_some_sites_gives_nobody_others(site: AccessSite) -> None:
    browser = await logged_in(site, "wang", Role.ADMIN, sites={"gz"})
    for method, path in (
        ("GET", "/desk/users"), ("GET", "/desk/users/new"), ("POST", "/desk/users/new"),
        ("GET", "/desk/users/one?name=li"), ("POST", "/desk/users/one"),
        ("GET", "/desk/users/tokens"), ("POST", "/desk/users/tokens"), ("GET", "/desk/acts"),
    ):  # fmt: skip
        answer = await browser.ask(method, path, name="wang", do="changed", everywhere="1")
        assert answer.status == 403, path
    assert (await site.accounts.user("wang")).grant.sites == {"gz"}


async def test_the_last_administrator_stays_one(site: AccessSite, li: Browser) -> None:
    fields = {"name": "li", "role": "desk", "everywhere": "1", "do": "changed"}
    answer = await li.post("/desk/users/one", **fields)
    assert answer.status == 422
    assert "is the last administrator" in answer.text
    assert (await li.post("/desk/users/one", name="li", do="disabled")).status == 409
    await site.accounts.add_user("wang", PASSWORD, Role.ADMIN)
    await site.accounts.disable_user("wang")
    with pytest.raises(PermanentFailure, match="last administrator"):
        await site.accounts.disable_user("li")
    await site.accounts.enable_user("wang")
    assert (await li.post("/desk/users/one", **fields)).status == 303


async def test_an_administrator_disables_resets_and_gives_a_password(
    site: AccessSite, li: Browser
) -> None:
    wang = await logged_in(site, "wang", Role.DESK)
    await site.accounts.set_factor("wang", b"x" * 20)
    page = (await li.get("/desk/users/one?name=wang")).text
    assert "Reset the second factor" in page
    assert (await li.post("/desk/users/one", name="wang", do="factor")).status == 303
    assert not (await site.accounts.user("wang")).has_factor
    await li.post("/desk/users/one", name="wang", do="password", password=NEW)
    assert await wang.who() == ""
    assert (await wang.log_in("wang", NEW)).status == 303
    await li.post("/desk/users/one", name="wang", do="disabled")
    assert await wang.who() == ""
    await li.post("/desk/users/one", name="wang", do="enabled")
    assert (await wang.log_in("wang", NEW)).status == 303
    told = [(act.actor, act.action) for act in await site.told("user") if act.subject == "wang"]
    assert told[2:] == [
        ("user:li", "user.factor_removed"), ("user:li", "user.password_changed"),
        ("user:li", "user.disabled"), ("user:li", "user.enabled"),
    ]  # fmt: skip
    assert (await li.post("/desk/users/one", name="wang", do="what")).status == 400
    assert (await li.get("/desk/users/one?name=nobody")).status == 404
    assert (await li.get("/desk/users/one?name=%00")).status == 404


async def test_hostile_names_are_shown_as_text(site: AccessSite, li: Browser) -> None:
    await site.accounts.add_user(HOSTILE, PASSWORD, Role.DESK)
    await site.accounts.create_token(HOSTILE + "!", Role.DESK)
    await site.acts.note(
        actor=f"user:{HOSTILE}", action="user.added", subject=HOSTILE, body={HOSTILE: [HOSTILE]}
    )
    one = seen(
        (await li.get("/desk/users")).text, r'href="(/desk/users/one\?name=[^"]*script[^"]*)"'
    )
    for path in ("/desk/users", "/desk/users/tokens", "/desk/acts", one):
        answer = await li.get(path)
        assert answer.status == 200
        assert "<script>alert" not in answer.text
        assert "&lt;script&gt;" in answer.text


# Tokens


async def test_a_token_is_shown_once_and_works_until_it_is_over(
    site: AccessSite, li: Browser
) -> None:
    page = await li.post(
        "/desk/users/tokens", do="create", name="oa", role="desk", site="gz", lasts="30"
    )
    secret = seen(page.text, r'class="secret" value="(cd_[^"]+)"')
    known = Identity(name="oa", role=Role.DESK, sites=frozenset({"gz"}))
    assert await site.accounts.find_token(secret) == known
    assert secret not in (await li.get("/desk/users/tokens")).text
    site.clock.advance(timedelta(days=30) - timedelta(seconds=1))
    assert await site.accounts.find_token(secret) == known
    site.clock.advance(timedelta(seconds=1))
    assert await site.accounts.find_token(secret) is None
    await li.log_in()
    page = await li.post(
        "/desk/users/tokens", do="create", name="oa", role="desk", everywhere="1", lasts="0"
    )
    secret = seen(page.text, r'class="secret" value="(cd_[^"]+)"')
    answer = await li.post("/desk/users/tokens", do="revoke", name="oa")
    assert answer.location == "/desk/users/tokens?done=revoked"
    assert await site.accounts.find_token(secret) is None
    told = [act.action for act in await site.told("token")]
    assert told == ["token.created", "token.created", "token.revoked"]
    with pytest.raises(NotFound):
        await site.accounts.revoke_token("oa")


@pytest.mark.parametrize(
    ("changes", "status"),
    [({"lasts": "7"}, 422), ({"role": "king"}, 422), ({"site": "moon"}, 422), ({"do": "x"}, 400),
     ({"name": "li"}, 422)],
)  # fmt: skip
async def test_a_token_that_cannot_be_is_not_made(
    site: AccessSite, li: Browser, changes: dict[str, str], status: int
) -> None:
    fields = {"do": "create", "name": "oa", "role": "desk", "site": "gz", "lasts": "30"} | changes
    assert (await li.post("/desk/users/tokens", **fields)).status == status
    assert await site.accounts.tokens() == ()


# The journal of acts


async def test_acts_are_shown_newest_first_page_by_page(site: AccessSite, li: Browser) -> None:
    for number in range(120):
        site.clock.advance(timedelta(seconds=number % 2))  # some at the same instant
        await site.acts.note(actor="user:x", action="test.done", subject=f"s{number:03}")
    path, found = "/desk/acts?actor=user:x", list[str]()
    while path:
        page = (await li.get(path)).text
        found += re.findall(r"<bdi>(s\d{3})</bdi>", page)
        following = re.search(r'href="([^"]+)" rel="next"', page)
        path = unescape(following[1]) if following else ""
    assert found == [f"s{number:03}" for number in reversed(range(120))]


async def test_acts_can_be_asked_for(site: AccessSite, li: Browser) -> None:
    await site.acts.note(actor="user:wang", action="desk.changed", subject="sites")
    site.clock.advance(timedelta(days=2))
    await site.acts.note(actor="token:oa", action="desk.loaded", subject="file", body={"n": [1]})

    async def told(query: str) -> list[str]:
        page = (await li.get(f"/desk/acts?{query}")).text
        return re.findall(r"<code>([a-z_.]+)</code>", page)

    await li.log_in()
    assert await told("action=desk") == ["desk.loaded", "desk.changed"]
    assert await told("action=desk.changed") == ["desk.changed"]
    assert await told("actor=token:oa") == ["desk.loaded"]
    assert await told("subject=sites") == ["desk.changed"]
    assert await told("action=desk&since=2026-11-21") == ["desk.loaded"]
    assert await told("action=desk&until=2026-11-20") == ["desk.changed"]  # that day, too
    assert await told("action=nothing") == []
    for bad in ("since=x", "until=9999-12-31", "cursor=x", "cursor=%00"):
        assert (await li.get(f"/desk/acts?{bad}")).status == 400
    assert (await li.get("/desk/acts?actor=%00&subject=%00&action=%00")).status == 200


async def test_nobody_changes_the_journal_of_acts(site: AccessSite, database: Database) -> None:
    await site.acts.note(actor="user:x", action="test.done")
    for statement in (update(acts).values(actor="user:y"), acts.delete()):
        with pytest.raises(Exception, match="acts are only added"):
            async with database.writing() as connection:
                await connection.execute(statement)
    assert [act.actor for act in await site.told("test")] == ["user:x"]


async def test_a_change_that_fails_leaves_no_act(site: AccessSite) -> None:
    with pytest.raises(NotFound):
        await site.accounts.change_user("nobody", Grant(role=Role.DESK))
    assert [act.action for act in await site.told()] == ["user.added"]


async def test_the_company_account_of_somebody_has_no_password_here(
    site: AccessSite, li: Browser, database: Database
) -> None:
    row = {"name": "wang", "role": "desk", "password_hash": "", "created_at": site.clock.now(),
           "subject": "https://idp 1"}  # fmt: skip
    async with database.writing() as connection:
        await connection.execute(insert(users).values(row))
    for password in ("", "x" * 8):
        assert (await site.browser().log_in("wang", password)).status == 401
    page = (await li.get("/desk/users/one?name=wang")).text
    assert "company account" in page
    assert 'value="password"' not in page
    answer = await li.post("/desk/users/one", name="wang", do="password", password=NEW)
    assert answer.status == 400
