"""Strangers at the share page: what they may not learn, begin, see or have another's browser do."""

import asyncio
import re
import statistics
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from contactd.httpd import COOKIES, SECURE_SHARE_COOKIE, SHARE_COOKIE
from contactd.store.engine import Database
from contactd.store.remotecodes import MOST_WRONG
from contactd.tickets import agreement
from contactd.tickets.journal import REQUESTER
from contactd.tickets.remote import Ending, Mode, State
from tests.fakes.clock import FakeClock
from tests.fakes.desk import AT_GZ, Desk
from tests.fakes.portal import Page, Visitor
from tests.fakes.remote_desk import EVERYTHING, active, agreed, consent, invited
from tests.fakes.share import ShareSite, running_share

HOSTILE = "\"'><script>alert(1)</script>{{7*7}}%(x)s\u202e<img src=x onerror=alert(1)>"
FORM = {"version": agreement.CURRENT, "language": "zh", "choice": "control"}
SESSION_PATHS = [
    ("GET", "/s/session"),
    ("GET", "/s/session/part"),
    ("GET", "/s/session/helper"),
    ("GET", "/s/session/files/1"),
    ("POST", "/s/session/admission"),
    ("POST", "/s/session/stop"),
    ("POST", "/s/session/chat"),
    ("POST", "/s/session/files"),
    ("POST", "/s/session/files/1/answer"),
]


@pytest.fixture
async def desk(sqlite_url: str, clock: FakeClock) -> AsyncIterator[Desk]:
    database = Database(sqlite_url, clock=clock)
    async with database.running():
        desk = Desk(database, clock)
        await desk.load()
        yield desk
        await desk.check()


@pytest.fixture
async def site(desk: Desk, tmp_path: Path) -> AsyncIterator[ShareSite]:
    async with running_share(desk, tmp_path) as running:
        yield running


@pytest.fixture
async def user(site: ShareSite) -> AsyncIterator[Visitor]:
    async with site.visitor() as somebody:
        yield somebody


def as_guest(user: Visitor, secret: str) -> None:
    user.http.cookie_jar.update_cookies({SHARE_COOKIE: secret})


async def dead_codes(desk: Desk) -> dict[str, str]:
    """Return codes that open nothing, by why."""
    used = (await agreed(desk)).code
    ended = await invited(desk, await desk.call("13922224444"))
    await desk.remote.end(ended.session, Ending.STOPPED, REQUESTER)
    expired = await invited(desk, await desk.call("13922225555"))
    desk.clock.advance(timedelta(minutes=11))
    replaced = await invited(desk, await desk.call("13922226666"))
    await invited(desk, replaced.ticket)
    return {
        "never was": "000000000", "used": used, "ended": ended.code, "expired": expired.code,
        "replaced": replaced.code, "too short": "123", "letters": "abcdefghi",
        "too long": "1" * 200, "hostile": "%3Cscript%3E", "another language": "一二三",
    }  # fmt: skip


def same(page: Page) -> tuple[int, str, dict[str, str]]:
    """Return all that a stranger sees of an answer but its time and how to change the language."""
    kept = {name: value for name, value in page.headers.items() if name != "Date"}
    return page.status, page.html, kept


async def test_a_code_that_opens_nothing_gets_one_answer_whatever_the_reason(
    desk: Desk, site: ShareSite
) -> None:
    answers = {}
    for why, code in (await dead_codes(desk)).items():
        async with site.visitor() as stranger:
            answers[why] = same(await stranger.get(f"/s/{code}"))
            assert (await stranger.post(f"/s/{code}/answer", FORM)).status == 404
    first = answers["never was"]
    assert first[0] == 404
    assert {why for why, each in answers.items() if each != first} == set()


async def test_who_tries_codes_is_locked_out_and_cannot_tell_it_from_a_wrong_code(
    desk: Desk, user: Visitor
) -> None:
    invitation = await invited(desk)
    wrong = [await user.get(f"/s/{number:09}") for number in range(MOST_WRONG + 2)]
    assert {page.html for page in wrong} == {wrong[0].html}
    locked = await user.get(f"/s/{invitation.code}")
    assert (locked.status, locked.html) == (404, wrong[0].html)
    assert (await user.post(f"/s/{invitation.code}/answer", FORM)).status == 404
    session = await desk.remote.session(invitation.session)
    assert session is not None
    assert session.state is State.INVITED
    desk.clock.advance(timedelta(minutes=61))
    fresh = await invited(desk, invitation.ticket)
    assert (await user.get(f"/s/{fresh.code}")).status == 200


async def test_an_answer_counts_as_a_try_as_a_look_does(desk: Desk, user: Visitor) -> None:
    invitation = await invited(desk)
    for number in range(MOST_WRONG + 1):
        choice = ("control", "view", "no")[number % 3]
        page = await user.post(f"/s/{number:09}/answer", FORM | {"choice": choice})
        assert page.status == 404
    assert (await user.get(f"/s/{invitation.code}")).status == 404


async def test_many_guesses_at_once_are_not_more_than_one_after_the_other(
    desk: Desk, user: Visitor
) -> None:
    invitation = await invited(desk)
    codes = [f"{number:09}" for number in range(MOST_WRONG * 3)] + [invitation.code]
    pages = await asyncio.gather(*(user.get(f"/s/{code}") for code in codes[:-1]))
    assert {page.status for page in pages} == {404}
    assert (await user.get(f"/s/{codes[-1]}")).status == 404


async def test_the_time_of_an_answer_says_nothing_of_why(desk: Desk, site: ShareSite) -> None:
    codes = await dead_codes(desk)
    times: dict[str, list[float]] = {"never was": [], "used": [], "expired": []}
    for _ in range(30):
        for why, found in times.items():
            desk.clock.advance(timedelta(hours=1))  # nobody is locked out
            async with site.visitor() as stranger:
                began = time.perf_counter()
                assert (await stranger.get(f"/s/{codes[why]}")).status == 404
                found.append(time.perf_counter() - began)
    middle = {why: statistics.median(found) for why, found in times.items()}
    assert max(middle.values()) < 2 * min(middle.values()), middle


async def test_a_code_is_used_up_by_one_of_many_who_press_the_button_at_once(
    desk: Desk, site: ShareSite
) -> None:
    code = (await invited(desk)).code

    async def press() -> str:
        async with site.visitor() as somebody:
            return (await somebody.post(f"/s/{code}/answer", FORM)).url

    answers = await asyncio.gather(*(press() for _ in range(8)))
    assert answers.count("/s/session") == 1


@pytest.mark.parametrize(("method", "path"), SESSION_PATHS)
@pytest.mark.parametrize("secret", ["", "x" * 43, "../../etc", "一" * 20])
async def test_nobody_but_who_agreed_sees_or_does_anything_of_a_session(
    desk: Desk, site: ShareSite, method: str, path: str, secret: str
) -> None:
    guest = await active(desk)
    headers = {"Accept": "*/*", "Sec-Fetch-Site": "same-origin"}
    if secret:
        headers["Cookie"] = f"{SHARE_COOKIE}={secret}; contactd_session={guest.secret}"
    async with (
        site.visitor() as stranger,
        stranger.http.request(
            method, site.url + path, headers=headers, allow_redirects=False
        ) as told,
    ):
        assert told.status in (404, 400)
        assert guest.ticket not in await told.text()
    assert site.stopped == site.admitted == []
    assert await desk.remote.chat(guest.session) == ()


async def test_the_cookie_of_one_session_opens_no_other(
    desk: Desk, site: ShareSite, user: Visitor
) -> None:
    mine = await active(desk, Mode.VIEW)
    other = await active(desk, Mode.VIEW, await desk.call("13922224444"))
    blob = await site.blobs.put_bytes(b"secret", media_type="x/y", name="theirs.txt")
    await desk.remote.offer_file(other.session, sender="user:wang", blob=blob)
    await desk.remote.say(other.session, "user:wang", "their words")
    as_guest(user, mine.secret)
    page = await user.get("/s/session")
    assert other.ticket not in page.html
    assert "their words" not in page.html
    assert (await user.post("/s/session/files/1/answer", {"do": "yes"})).status == 404
    assert (await user.get("/s/session/files/1")).status == 404
    await user.post("/s/session/stop")
    assert site.stopped == [mine.session]


async def test_an_hour_after_the_end_the_cookie_opens_nothing(desk: Desk, user: Visitor) -> None:
    guest = await active(desk)
    as_guest(user, guest.secret)
    await desk.remote.end(guest.session, Ending.STOPPED, REQUESTER)
    assert guest.ticket in (await user.get("/s/session")).html
    desk.clock.advance(timedelta(minutes=61))
    assert (await user.get("/s/session")).url == "/s"


@pytest.mark.parametrize(
    "foreign",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {},
    ],
)
async def test_no_other_site_has_a_users_browser_stop_or_answer_anything(
    desk: Desk, site: ShareSite, foreign: dict[str, str]
) -> None:
    guest = await active(desk, Mode.VIEW)
    blob = await site.blobs.put_bytes(b"x", media_type="x/y", name="a")
    await desk.remote.offer_file(guest.session, sender="user:wang", blob=blob)
    assert {SHARE_COOKIE, SECURE_SHARE_COOKIE} <= COOKIES
    headers = {"Cookie": f"{SHARE_COOKIE}={guest.secret}", "Accept": "*/*", **foreign}
    async with site.visitor() as stranger:
        for path in (
            "stop", "chat", "admission", "files", "files/1/answer",
        ):  # fmt: skip
            async with stranger.http.post(
                f"{site.url}/s/session/{path}", headers=headers, data={"text": "x", "do": "yes"}
            ) as told:
                assert told.status == 403, path
    assert site.stopped == site.admitted == []
    assert await desk.remote.chat(guest.session) == ()


@pytest.mark.parametrize("foreign", [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://e.x"}])
async def test_no_other_site_has_a_users_browser_agree(
    desk: Desk, site: ShareSite, foreign: dict[str, str]
) -> None:
    invitation = await invited(desk)
    async with (
        site.visitor() as stranger,
        stranger.http.post(
            f"{site.url}/s/{invitation.code}/answer", headers=foreign, data=FORM
        ) as told,
    ):
        assert told.status == 403
    session = await desk.remote.session(invitation.session)
    assert session is not None
    assert session.state is State.INVITED


async def test_what_others_wrote_is_text_on_every_page(
    desk: Desk, site: ShareSite, user: Visitor
) -> None:
    guest = await agreed(desk, Mode.VIEW)
    await desk.remote.claim(guest.session, user="wang", engineer=HOSTILE)
    said = consent("wang", HOSTILE, rights=EVERYTHING)
    await desk.remote.open_leg(guest.session, said)
    blob = await site.blobs.put_bytes(b"x", media_type="x/y", name=HOSTILE)
    number = (await desk.remote.offer_file(guest.session, sender="user:wang", blob=blob)).number
    await desk.remote.say(guest.session, "user:wang", HOSTILE)
    await desk.remote.say(guest.session, REQUESTER, HOSTILE)
    as_guest(user, guest.secret)
    for path in ("/s/session", "/s/session/part", f"/s/session?done={HOSTILE}&lang=en"):
        page = await user.get(path)
        assert page.status == 200
        assert "<script>alert" not in page.html
        assert "<img src=x" not in page.html
        assert "alert(1)" in page.words
    typed = await user.post("/s", {"code": HOSTILE})
    assert "<script>alert" not in typed.html
    await user.post(f"/s/session/files/{number}/answer", {"do": "yes"})
    async with user.http.get(f"{user.url}/s/session/files/{number}") as told:
        header = told.headers["Content-Disposition"]
        assert told.headers["Content-Security-Policy"].startswith("sandbox")
    assert not re.search(r"[<>\"\r\n]", header)


async def test_no_code_secret_or_word_is_in_a_log(
    desk: Desk, site: ShareSite, user: Visitor, capsys: pytest.CaptureFixture[str]
) -> None:
    invitation = await invited(desk, await desk.call(AT_GZ))
    await user.get(f"/s/{invitation.code}")
    await user.get("/s/987654321")
    await user.post(f"/s/{invitation.code}/answer", FORM)
    (cookie,) = [each for each in user.http.cookie_jar if each.key == SHARE_COOKIE]
    async with user.http.get(f"{user.url}/s/session/helper", headers=user.headers) as told:
        packed = await told.text()
    key = re.findall(r'"key": "([^"]+)"', packed)[0]
    async with user.http.post(f"{user.url}/s/session/admission", headers=user.headers) as told:
        admission = (await told.json())["admission"]
    await user.post("/s/session/chat", {"text": "my password is hunter2"})
    await user.post("/s/session/stop")
    written = "".join(capsys.readouterr())
    assert "/s/{code}" in written
    for secret in (invitation.code, "987654321", cookie.value, key, admission, "hunter2"):
        assert secret not in written
