"""The share page: what it says before anything is shared, and what each answer does."""

import json
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest
from sqlalchemy import select

from contactd.errors import ActionNotAllowed, NotFound, PermanentFailure
from contactd.httpd import SECURE_SHARE_COOKIE, SHARE_COOKIE
from contactd.lab.ports import free_port
from contactd.remote.inviting import Inviting
from contactd.routing.notify import Reason
from contactd.settings import HttpSettings
from contactd.store.engine import Database
from contactd.store.schema import remote_consents
from contactd.tickets import agreement
from contactd.tickets.contact import Medium
from contactd.tickets.journal import REQUESTER
from contactd.tickets.numbers import ticket_number
from contactd.tickets.people import PHONE, Address
from contactd.tickets.remote import Ending, Mode, State
from contactd.tickets.sharing import FileState
from contactd.tickets.states import Action
from contactd.web import sharepage
from tests.fakes.clock import FakeClock
from tests.fakes.desk import AT_GZ, BY_MAIL, BY_PHONE, Desk
from tests.fakes.portal import Page, Visitor, running_help
from tests.fakes.remote_desk import active, agreed, invited
from tests.fakes.share import HOTLINE, ShareSite, running_share

PUBLIC = "https://desk.example.cn"
WINDOWS = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/130"
PHONE_AGENT = "Mozilla/5.0 (Linux; Android 14) Chrome/130 Mobile"


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
    """Let the user's browser be the one in which somebody has agreed."""
    user.http.cookie_jar.update_cookies({SHARE_COOKIE: secret})


async def answer(user: Visitor, code: str, choice: str, language: str = "zh") -> str:
    """Press a button of the invitation; return where that leads."""
    form = {"version": agreement.CURRENT, "language": language, "choice": choice}
    return (await user.post(f"/s/{code}/answer", form)).url


def stands(page: Page) -> str:
    """Return what the page says of how the session stands."""
    found = re.search(r'id="stands".*?</section>', page.html, re.DOTALL)
    assert found, page.html
    return found[0]


async def consents(desk: Desk) -> list[tuple[str, bool, str, str, str, str]]:
    kept = remote_consents.c
    asked = select(kept.kind, kept.yes, kept.mode, kept.language, kept.version, kept.text_hash)
    async with desk.database.reading() as connection:
        rows = (await connection.execute(asked.order_by(kept.id))).all()
    return [tuple(row) for row in rows]


# The invitation


async def test_the_page_says_who_what_is_recorded_how_to_stop_and_every_word_of_the_agreement(
    desk: Desk, user: Visitor
) -> None:
    invitation = await invited(desk)
    page = await user.get(f"/s/{invitation.code}")
    assert page.status == 200
    assert "值班工程师想为您提供远程协助" in page.words
    for said in (invitation.ticket, "会记录什么", "怎样停止", "Ctrl+Alt+Q", "不同意", HOTLINE):
        assert said in page.words
    for paragraph in agreement.text_of(agreement.CURRENT, "zh").splitlines():
        assert paragraph in page.words
    assert page.headers["Referrer-Policy"] == "no-referrer"
    assert page.headers["Cache-Control"] == "no-store"
    assert page.headers["X-Robots-Tag"] == "noindex"


async def test_who_has_the_ticket_is_named_and_the_page_speaks_the_users_language(
    desk: Desk, user: Visitor
) -> None:
    invitation = await invited(desk)
    await desk.tickets.take(invitation.ticket, "wang", how="web", actor="user:wang")
    page = await user.get(f"/s/{invitation.code}", headers={"Accept-Language": "en-GB"})
    assert "wang would like to help you" in page.words
    for paragraph in agreement.text_of(agreement.CURRENT, "en").splitlines():
        assert paragraph in page.words


async def test_on_a_phone_it_says_how_to_go_on_at_the_computer_and_on_windows_what_works_there(
    desk: Desk, user: Visitor
) -> None:
    code = (await invited(desk)).code
    on_phone = await user.get(f"/s/{code}", headers={"User-Agent": PHONE_AGENT})
    assert f"{code[:3]} {code[3:6]} {code[6:]}" in on_phone.words
    assert f"{user.url.removeprefix('http://')}/s" in on_phone.words
    on_windows = await user.get(f"/s/{code}", headers={"User-Agent": WINDOWS})
    assert f"{code[:3]} {code[3:6]}" not in on_windows.words
    choices = re.findall(r'name="choice" value="(\w+)"', on_windows.html)
    assert choices == ["view", "control", "no"]
    on_linux = await user.get(f"/s/{code}", headers={"User-Agent": "Mozilla/5.0 (X11; Linux)"})
    assert re.findall(r'name="choice" value="(\w+)"', on_linux.html)[0] == "control"


async def test_looking_changes_nothing_however_often_a_mail_scanner_does_it(
    desk: Desk, user: Visitor
) -> None:
    invitation = await invited(desk)
    for _ in range(30):
        assert (await user.get(f"/s/{invitation.code}")).status == 200
        async with user.http.head(f"{user.url}/s/{invitation.code}") as told:
            assert told.status == 200
    session = await desk.remote.session(invitation.session)
    assert session is not None
    assert (session.state, session.legs) == (State.INVITED, ())
    assert await consents(desk) == []
    assert await answer(user, invitation.code, "control") == "/s/session"


@pytest.mark.parametrize("choice", ["control", "view"])
async def test_agreeing_is_stored_word_for_word_uses_up_the_code_and_leads_to_an_address_without_it(
    desk: Desk, user: Visitor, choice: str
) -> None:
    invitation = await invited(desk)
    assert await answer(user, invitation.code, choice, "en") == "/s/session"
    session = await desk.remote.session(invitation.session)
    assert session is not None
    assert (session.state, session.mode, session.language) == (State.AGREED, Mode(choice), "en")
    text = agreement.text_of(agreement.CURRENT, "en")
    assert await consents(desk) == [
        ("agree", True, choice, "en", agreement.CURRENT, agreement.hash_of(text))
    ]
    assert (await user.get(f"/s/{invitation.code}")).status == 404
    assert invitation.code not in (await user.get("/s/session")).html


async def test_a_no_is_kept_and_nothing_is_shared(desk: Desk, user: Visitor) -> None:
    invitation = await invited(desk)
    assert await answer(user, invitation.code, "no") == "/s?done=refused"
    assert "没有共享任何内容" in (await user.get("/s?done=refused")).words
    session = await desk.remote.session(invitation.session)
    assert session is not None
    assert (session.state, session.ending) == (State.ENDED, Ending.REFUSED)
    assert [(kind, yes) for kind, yes, *_ in await consents(desk)] == [("agree", False)]
    assert not list(user.http.cookie_jar)


@pytest.mark.parametrize(
    "form",
    [
        {"choice": "control", "language": "zh", "version": "2001-01"},
        {"choice": "control", "language": "fr", "version": agreement.CURRENT},
        {"choice": "everything", "language": "zh", "version": agreement.CURRENT},
        {"choice": "repeater", "language": "zh", "version": agreement.CURRENT},
        {"language": "zh", "version": agreement.CURRENT},
        {"choice": "no"},
        {},
    ],
)
async def test_an_answer_to_another_text_is_none_and_the_page_is_shown_again(
    desk: Desk, user: Visitor, form: dict[str, str]
) -> None:
    invitation = await invited(desk)
    page = await user.post(f"/s/{invitation.code}/answer", form)
    assert (page.status, page.url) == (200, f"/s/{invitation.code}")
    assert await consents(desk) == []


async def test_the_repeater_can_be_chosen_where_it_is_configured(
    desk: Desk, tmp_path: Path
) -> None:
    async with running_share(desk, tmp_path, repeater_port=5500) as site, site.visitor() as user:
        code = (await invited(desk)).code
        assert await answer(user, code, "repeater") == "/s/session"
        page = await user.post("/s/session/repeater")
        assert re.search(r"ID:\d{10}\b", page.words)
        assert "127.0.0.1:5500" in page.words


async def test_a_code_that_was_read_out_is_typed_with_blanks_and_in_full_width(
    desk: Desk, user: Visitor
) -> None:
    code = (await invited(desk)).code
    typed = f" {code[:3]}-{code[3:6]} {code[6:]}"
    wide = typed.translate({ord(str(each)): chr(0xFF10 + each) for each in range(10)})
    for each in (typed, wide):
        assert (await user.post("/s", {"code": each})).url == f"/s/{code}"
    short = await user.post("/s", {"code": "12345"})
    assert (short.status, "验证码是九位数字" in short.words) == (422, True)


async def test_by_tls_the_cookie_has_a_name_that_no_other_host_can_set(
    desk: Desk, tmp_path: Path
) -> None:
    http = HttpSettings(port=free_port(), public_url=PUBLIC)
    async with running_share(desk, tmp_path, http=http) as site, site.visitor() as user:
        code = (await invited(desk)).code
        form = {"version": agreement.CURRENT, "language": "zh", "choice": "view"}
        async with user.http.post(
            f"{site.url}/s/{code}/answer", data=form, headers=user.headers, allow_redirects=False
        ) as told:
            cookie = told.headers["Set-Cookie"]
        assert cookie.startswith(f"{SECURE_SHARE_COOKIE}=")
        for part in ("HttpOnly", "Path=/", "SameSite=Strict", "Secure"):
            assert part in cookie
        assert "Domain" not in cookie


async def test_there_are_no_pages_where_remote_help_is_turned_off(
    desk: Desk, tmp_path: Path
) -> None:
    async with running_share(desk, tmp_path, enabled=False) as site, site.visitor() as user:
        assert (await user.get("/s")).status == 404
        assert (await user.get(f"/s/{(await invited(desk)).code}")).status == 404


# The session


async def test_who_agreed_gets_a_helper_with_a_key_of_its_own_each_time(
    desk: Desk, site: ShareSite, user: Visitor
) -> None:
    guest = await agreed(desk)
    as_guest(user, guest.secret)
    keys = []
    for _ in range(2):
        async with user.http.get(f"{user.url}/s/session/helper", headers=user.headers) as told:
            assert "contactd-share.pyz" in told.headers["Content-Disposition"]
            packed = json.loads(await told.read())
        assert (packed["url"], packed["ticket"], packed["language"]) == (
            site.url, guest.ticket, "zh",
        )  # fmt: skip
        keys.append(packed["key"])
    assert len(set(keys)) == 2
    for _ in range(6):  # a look uses up no key: of six more the first would be gone
        desk.clock.advance(timedelta(seconds=1))
        async with user.http.head(f"{user.url}/s/session/helper") as told:
            assert told.status == 200
    taken = await desk.remote.take_key(keys[0])
    assert taken is not None
    assert taken.session.id == guest.session


async def test_who_agreed_to_be_watched_only_gets_no_helper(desk: Desk, user: Visitor) -> None:
    as_guest(user, (await agreed(desk, Mode.VIEW)).secret)
    page = await user.get("/s/session")
    assert "/s/session/helper" not in page.html
    assert (await user.get("/s/session/helper")).url == "/s/session?done=late"


async def test_stop_without_javascript_ends_it_and_says_how_it_went(
    desk: Desk, site: ShareSite, user: Visitor
) -> None:
    guest = await active(desk)
    as_guest(user, guest.secret)
    assert "有人正在看您的屏幕" in stands(await user.get("/s/session"))
    page = await user.post("/s/session/stop")
    assert site.stopped == [guest.session]
    assert "远程协助已结束" in page.words
    assert "您已结束远程协助" in page.words
    assert "/s/session/stop" not in page.html
    await user.post("/s/session/stop")
    assert site.stopped == [guest.session]


@pytest.mark.parametrize("state", ["agreed", "active", "frozen"])
async def test_the_page_says_in_each_state_whether_somebody_sees_the_screen(
    desk: Desk, user: Visitor, state: str
) -> None:
    guest = await (agreed(desk) if state == "agreed" else active(desk))
    if state == "frozen":
        await desk.remote.freeze(guest.session)
    as_guest(user, guest.secret)
    words = stands(await user.get("/s/session"))
    assert ("有人正在看您的屏幕" in words) == (state == "active")
    assert ("没有人能看到您的屏幕" in words) == (state != "active")
    assert ("王伟" in words) == (state == "active")


async def test_an_open_page_is_drawn_again_only_when_something_has_changed(
    desk: Desk, user: Visitor
) -> None:
    guest = await active(desk)
    as_guest(user, guest.secret)
    page = await user.get("/s/session")
    found = re.search(r'data-seen="(\w+)"', page.html)
    assert found
    assert (await user.get(f"/s/session/part?seen={found[1]}")).status == 204
    await desk.remote.say(guest.session, "user:wang", "请稍等")
    part = await user.get(f"/s/session/part?seen={found[1]}")
    assert part.status == 200
    assert "请稍等" in part.words
    assert "王伟" in part.words


async def test_what_the_user_writes_without_javascript_is_in_the_chat(
    desk: Desk, user: Visitor
) -> None:
    guest = await agreed(desk)
    as_guest(user, guest.secret)
    page = await user.post("/s/session/chat", {"text": "打印机在二楼"})
    assert "打印机在二楼" in page.words
    (line,) = await desk.remote.chat(guest.session)
    assert (line.who, line.text) == (REQUESTER, "打印机在二楼")


async def test_the_page_is_admitted_to_the_socket_only_while_the_session_lives(
    desk: Desk, site: ShareSite, user: Visitor
) -> None:
    guest = await agreed(desk)
    as_guest(user, guest.secret)
    async with user.http.post(f"{user.url}/s/session/admission", headers=user.headers) as told:
        assert (await told.json())["admission"] == "admission-1"
    assert site.admitted == [guest.session]
    await desk.remote.end(guest.session, Ending.STOPPED, REQUESTER)
    plain = user.headers | {"Accept": "*/*"}
    async with user.http.post(f"{user.url}/s/session/admission", headers=plain) as told:
        assert told.status == 409
    assert site.admitted == [guest.session]


# Files


async def offered(desk: Desk, site: ShareSite, guest: int, name: str = "driver.zip") -> int:
    blob = await site.blobs.put_bytes(b"PK-data", media_type="application/zip", name=name)
    return (await desk.remote.offer_file(guest, sender="user:wang", blob=blob)).number


async def test_a_file_of_the_engineers_is_given_only_after_the_users_yes(
    desk: Desk, site: ShareSite, user: Visitor
) -> None:
    guest = await active(desk, Mode.VIEW)
    as_guest(user, guest.secret)
    first, second = [await offered(desk, site, guest.session) for _ in range(2)]
    assert (await user.get(f"/s/session/files/{first}")).status == 404
    await user.post(f"/s/session/files/{first}/answer", {"do": "yes"})
    await user.post(f"/s/session/files/{second}/answer", {"do": "no"})
    async with user.http.get(f"{user.url}/s/session/files/{first}") as told:
        assert await told.read() == b"PK-data"
        assert told.headers["Content-Disposition"].startswith("attachment;")
        assert told.headers["Content-Type"] == "application/octet-stream"
    assert (await user.get(f"/s/session/files/{second}")).status == 404
    kept = [(kind, yes) for kind, yes, *_ in await consents(desk) if kind == "file"]
    assert kept == [("file", True), ("file", False)]
    assert (await user.post(f"/s/session/files/{first}/answer", {"do": "no"})).url == (
        "/s/session?done=late"
    )


async def test_where_somebody_controls_the_screen_no_button_of_the_page_takes_a_file(
    desk: Desk, site: ShareSite, user: Visitor
) -> None:
    guest = await active(desk)
    as_guest(user, guest.secret)
    number = await offered(desk, site, guest.session)
    page = await user.get("/s/session")
    assert "请在您运行的程序窗口里回答" in page.words
    assert f"files/{number}/answer" not in page.html
    await user.post(f"/s/session/files/{number}/answer", {"do": "yes"})
    (file,) = await desk.remote.files(guest.session)
    assert file.state is FileState.OFFERED


async def test_the_users_file_waits_for_the_engineers_yes_and_has_a_limit(
    desk: Desk, tmp_path: Path
) -> None:
    async with running_share(desk, tmp_path, max_file_bytes=1000) as site, site.visitor() as user:
        guest = await active(desk)
        as_guest(user, guest.secret)

        def form(size: int, name: str = "../截图 1.png") -> aiohttp.FormData:
            data = aiohttp.FormData(quote_fields=False)
            data.add_field("file", b"x" * size, filename=name, content_type="image/png")
            return data

        page = await user.post("/s/session/files", form(1000))
        assert "等工程师接收" in page.words
        assert (await user.post("/s/session/files", form(1001))).status == 413
        await user.post("/s/session/files", form(0, ""))
        (file,) = await desk.remote.files(guest.session)
        assert (file.sender, file.blob.name, file.blob.size_bytes) == (
            REQUESTER, "截图 1.png", 1000,
        )  # fmt: skip
        assert (await user.get(f"/s/session/files/{file.number}")).status == 404


async def test_a_form_that_is_none_takes_no_file(desk: Desk, user: Visitor) -> None:
    guest = await active(desk)
    as_guest(user, guest.secret)
    assert (await user.post("/s/session/files", {"file": "x"})).status == 400
    broken = {"Content-Type": "multipart/form-data; boundary=b"}
    page = await user.post("/s/session/files", b"--b\r\nnonsense", headers=broken)
    assert page.status == 400
    assert await desk.remote.files(guest.session) == ()


# Invitations by text and mail, and from the portal


def inviting(desk: Desk) -> Inviting:
    return Inviting(
        sessions=desk.remote, messages=desk.core.follow_up, public_url=PUBLIC, clock=desk.clock,
        has=lambda: {Medium.TEXT, Medium.MAIL, Medium.CALL},
    )  # fmt: skip


def links(desk: Desk) -> list[tuple[Medium, str, str]]:
    sent = [each.notification for each in desk.everything]
    return [
        (each.medium, each.address, each.facts["link"])
        for each in sent
        if each.reason is Reason.REMOTE
    ]


@pytest.mark.parametrize(
    ("caller", "medium", "address"),
    [(AT_GZ, Medium.TEXT, "+8613922223333"), (BY_MAIL, Medium.MAIL, "qian@x.cn")],
)
async def test_an_engineer_sends_a_link_that_the_requester_alone_learns(
    desk: Desk, user: Visitor, caller: str, medium: Medium, address: str
) -> None:
    ticket = await desk.call(caller)
    sent = await desk.when(inviting(desk).invite(ticket, actor="user:wang", medium=medium))
    assert (sent.ticket, sent.medium, sent.address) == (ticket, medium, address)
    ((by, to, link),) = links(desk)
    assert (by, to) == (medium, address)
    code = link.removeprefix(f"{PUBLIC}/s/")
    assert re.fullmatch(r"\d{9}", code)
    assert code not in repr(sent)
    assert all(code not in repr(entry.body) for entry in await desk.journal(ticket))
    assert (await user.get(f"/s/{code}")).status == 200
    (entry,) = await desk.journal(ticket, "remote.invited")
    assert (entry.actor, entry.body["medium"]) == ("user:wang", medium.value)


async def test_who_cannot_be_sent_a_link_keeps_the_one_they_have(desk: Desk) -> None:
    ticket = await desk.call(BY_PHONE)
    older = await invited(desk, ticket)
    for medium in (Medium.TEXT, Medium.MAIL, Medium.CALL):
        with pytest.raises(PermanentFailure):
            await inviting(desk).invite(ticket, actor="user:wang", medium=medium)
    assert await desk.remote.shown(older.code, "192.0.2.7") is not None


async def test_a_caller_can_have_the_link_sent_to_the_number_that_they_call_from(
    desk: Desk,
) -> None:
    ticket = await desk.call(AT_GZ)
    to = Address(kind=PHONE, value="+8613922223333")
    await desk.when(inviting(desk).invite(ticket, actor=REQUESTER, medium=Medium.TEXT, to=to))
    assert [each[:2] for each in links(desk)] == [(Medium.TEXT, to.value)]


async def test_no_link_is_sent_for_a_ticket_that_is_over_or_that_there_is_not(desk: Desk) -> None:
    ticket = await desk.call(AT_GZ)
    await desk.tickets.act(ticket, Action.CANCEL, actor="user:wang")
    with pytest.raises(ActionNotAllowed):
        await inviting(desk).invite(ticket, actor="user:wang", medium=Medium.TEXT)
    with pytest.raises(NotFound):
        await inviting(desk).invite("26110100017", actor="user:wang", medium=Medium.TEXT)


async def test_a_link_that_could_not_be_sent_in_time_is_never_sent(desk: Desk) -> None:
    ticket = await desk.call(AT_GZ)
    desk.media[Medium.TEXT].down = True
    await desk.when(inviting(desk).invite(ticket, actor="user:wang", medium=Medium.TEXT))
    await desk.fast_forward(timedelta(minutes=11))
    desk.media[Medium.TEXT].down = False
    await desk.fast_forward(timedelta(hours=1))
    assert links(desk) == []


async def test_the_portal_leads_whoever_asks_for_remote_help_straight_to_the_page(
    desk: Desk, tmp_path: Path
) -> None:
    async with running_share(desk, tmp_path) as share:

        async def invite(number: str, language: str) -> str:
            made = await desk.remote.invite(
                number, actor=REQUESTER, language=language, medium="web"
            )
            return f"{sharepage.PATH}/{made.code}"

        async with running_help(desk, tmp_path, invite=invite) as help_, help_.visitor() as user:
            await user.report()
            await desk.drain()
            ticket = ticket_number(desk.clock.now().date(), 1)
            page = await user.get(await help_.link(ticket))
            asked = {"form": page.form}
            async with user.http.post(
                f"{user.url}{page.url}/remote", data=asked, headers=user.headers,
                allow_redirects=False,
            ) as told:  # fmt: skip
                path = told.headers["Location"]
        assert re.fullmatch(r"/s/\d{9}", path)
        async with share.visitor() as user:
            assert ticket in (await user.get(path)).words
    await desk.drain()


def test_every_ending_has_words() -> None:
    assert set(sharepage.ENDINGS) == set(Ending)
