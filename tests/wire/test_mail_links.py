"""The page behind a mail's links: it changes nothing until a button is pressed, and then once."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import aiohttp
import pytest

from contactd.httpd import Route
from contactd.mail.outgoing import LINKS, Letterhead, Mails
from contactd.routing.notify import (
    LINK_LASTS,
    REQUESTER,
    Reason,
    SendState,
    link,
    linked,
)
from contactd.settings import MailSettings
from contactd.store.engine import Database
from contactd.tickets import signing
from contactd.tickets.contact import MailFacts, Medium
from contactd.tickets.signing import Purpose
from contactd.tickets.states import Action, State
from contactd.web.maillinks import PATH, MailLinks, routes
from contactd.web.pages import Pages
from tests.fakes.clock import FakeClock
from tests.fakes.desk import Desk, engineers, minutes
from tests.fakes.site import Site, running_site
from tests.fakes.smart_host import smart_host

KEY = b"k" * 32
QIAN = "qian@x.cn"
HTML = {"Accept": "text/html"}
BROWSER = {**HTML, "Sec-Fetch-Site": "same-origin"}


async def key() -> bytes:
    return KEY


@dataclass(slots=True, kw_only=True)
class Reader:
    """Somebody with a browser and a mail of ours."""

    desk: Desk
    site: Site
    http: aiohttp.ClientSession
    headers: dict[str, str] = field(default_factory=lambda: dict(BROWSER))

    def path(self, who: str, medium: Medium = Medium.MAIL) -> str:
        """Return the page of the last message to somebody."""
        return f"{PATH}/{link(KEY, self.desk.ref(who, medium))}"

    async def open(self, path: str, **more: Any) -> tuple[int, str]:
        async with self.http.get(self.site.url + path, headers=self.headers, **more) as answer:
            return answer.status, await answer.text()

    async def press(self, path: str, do: str, **more: str) -> tuple[int, str]:
        """Press a button; return the page to which the browser is sent."""
        data = {"do": do, **more}
        url = self.site.url + path
        async with self.http.post(url, data=data, headers=self.headers) as answer:
            status, html = answer.status, await answer.text()
        await self.desk.drain()
        return status, html


@pytest.fixture
async def desk(database: Database, clock: FakeClock) -> Desk:
    desk = Desk(database, clock)
    people = engineers(page=["mail"], mails=["wang@x.cn"])
    li = next(person for person in people if person["key"] == "li")
    li |= {"page": ["mail"], "mails": ["li@x.cn"], "language": "en"}
    await desk.load(engineers=people)
    return desk


@pytest.fixture
async def reader(desk: Desk) -> AsyncIterator[Reader]:
    def make_routes(pages: Pages) -> Iterable[Route]:
        links = MailLinks(pages=pages, answering=desk.core.follow_up, key=key, clock=desk.clock)
        return routes(links)

    async with (
        running_site(make_routes=make_routes) as site,
        aiohttp.ClientSession() as http,
    ):
        yield Reader(desk=desk, site=site, http=http)
    await desk.check()


async def resolved(desk: Desk) -> str:
    """Let 钱 write a mail, 王伟 take the ticket and resolve it: 钱 is asked."""
    ticket = await desk.write(QIAN, mail=MailFacts(subject="打印机 <坏了>"))
    await desk.when(desk.tickets.take(ticket, "wang", how="web"))
    await desk.when(desk.tickets.act(ticket, Action.RESOLVE, actor="engineer:wang"))
    return ticket


def test_mails_and_pages_agree_where_the_pages_are() -> None:
    assert LINKS == PATH


# The requester -----------------------------------------------------------------------------------


async def test_opening_the_page_changes_nothing_however_often(reader: Reader) -> None:
    ticket = await resolved(reader.desk)
    before = await reader.desk.journal(ticket)
    path = reader.path(REQUESTER)
    for query in ("", "?do=1", "?do=2", "?lang=en"):
        status, html = await reader.open(path + query)
        assert status == 200
        assert ticket in html
        async with reader.http.head(reader.site.url + path + query) as answer:
            assert answer.status == 200
    await reader.desk.drain()
    assert await reader.desk.journal(ticket) == before
    assert await reader.desk.state(ticket) is State.RESOLVED


async def test_it_shows_number_title_site_and_state_and_two_buttons(reader: Reader) -> None:
    ticket = await resolved(reader.desk)
    _, html = await reader.open(reader.path(REQUESTER))
    assert "问题解决了吗？" in html
    assert ticket in html
    assert "打印机 &lt;坏了&gt;" in html
    assert '<html lang="zh-CN">' in html
    assert re.findall(r'<button class="(\w+)" name="do" value="(\d)">(.*?)<', html) == [
        ("primary", "1", "已解决"), ("second", "2", "未解决"),
    ]  # fmt: skip
    assert QIAN not in html
    assert "王伟" not in html
    assert "wang" not in html


async def test_the_button_that_was_clicked_in_the_mail_is_the_one_to_press(reader: Reader) -> None:
    await resolved(reader.desk)
    _, html = await reader.open(reader.path(REQUESTER) + "?do=2")
    assert re.findall(r'<button class="(\w+)"', html) == ["second", "primary"]


async def test_solved_closes_the_ticket_and_the_page_says_so_from_then_on(reader: Reader) -> None:
    ticket = await resolved(reader.desk)
    path = reader.path(REQUESTER)
    status, html = await reader.press(path, "1", note="ignored")
    assert (status, await reader.desk.state(ticket)) == (200, State.CLOSED)
    assert "谢谢，工单已关闭" in html
    assert "<button class" not in html.partition("<main")[2]
    (closed,) = await reader.desk.journal(ticket, "closed")
    assert dict(closed.body) == {"how": "mail", "confirmed": True}
    _, again = await reader.press(path, "2", note="no!")
    assert "谢谢，工单已关闭" in again
    assert await reader.desk.state(ticket) is State.CLOSED


async def test_not_solved_reopens_with_what_is_still_wrong(reader: Reader) -> None:
    ticket = await resolved(reader.desk)
    _, html = await reader.press(reader.path(REQUESTER), "2", note="还是卡纸\r\n第二页")
    assert "我们会继续处理" in html
    (reopened,) = await reader.desk.journal(ticket, "reopened")
    assert dict(reopened.body) == {"how": "mail", "note": "还是卡纸\n第二页"}
    assert reader.desk.told()[-1] == ("li", Medium.MAIL, Reason.REOPENED), "one above wang"


async def test_a_note_has_an_end(reader: Reader) -> None:
    ticket = await resolved(reader.desk)
    await reader.press(reader.path(REQUESTER), "2", note="x" * 10_000)
    (reopened,) = await reader.desk.journal(ticket, "reopened")
    assert len(reopened.body["note"]) == 2000


async def test_two_presses_at_once_are_one(reader: Reader) -> None:
    ticket = await resolved(reader.desk)
    path = reader.path(REQUESTER)
    await asyncio.gather(*(reader.press(path, "2") for _ in range(4)))
    assert len(await reader.desk.journal(ticket, "reopened")) == 1


async def test_the_page_of_a_ticket_that_closed_meanwhile_says_so(reader: Reader) -> None:
    ticket = await resolved(reader.desk)
    path = reader.path(REQUESTER)
    await reader.desk.fast_forward(timedelta(days=4))
    assert await reader.desk.state(ticket) is State.CLOSED
    status, html = await reader.open(path)
    assert status == 200
    assert "工单已关闭" in html
    assert "谢谢" not in html


async def test_after_two_weeks_the_link_says_that_it_has_expired(reader: Reader) -> None:
    ticket = await resolved(reader.desk)
    path = reader.path(REQUESTER)
    reader.desk.clock.advance(LINK_LASTS)
    assert (await reader.open(path))[0] == 200
    reader.desk.clock.advance(timedelta(seconds=1))
    for status, html in (await reader.open(path), await reader.press(path, "1")):
        assert status == 410
        assert "此链接已过期" in html
        assert "坏了" not in html
    assert await reader.desk.state(ticket) is State.RESOLVED, "nothing was due in this story"


async def test_a_question_that_was_asked_again_is_answered_by_either_link(reader: Reader) -> None:
    ticket = await resolved(reader.desk)
    first = reader.path(REQUESTER)
    await reader.desk.fast_forward(timedelta(days=1.1))
    assert reader.path(REQUESTER) != first
    assert "谢谢" in (await reader.press(first, "1"))[1]
    assert "工单已关闭" in (await reader.open(reader.path(REQUESTER)))[1]
    assert await reader.desk.state(ticket) is State.CLOSED


# Engineers ---------------------------------------------------------------------------------------


async def test_an_engineer_takes_the_ticket_by_the_page(reader: Reader) -> None:
    ticket = await reader.desk.write(QIAN, mail=MailFacts(subject="打印机"))
    path = reader.path("wang")
    _, html = await reader.open(path)
    assert "您接这张工单吗？" in html
    assert re.findall(r'value="(\d)">(.*?)<', html) == [
        ("1", "接单"), ("4", "接单并出发"), ("2", "转下一位"),
    ]  # fmt: skip
    assert "<textarea" not in html
    _, html = await reader.press(path, "1")
    assert "工单已由您处理" in html
    assert await reader.desk.assignee(ticket) == "wang"
    assert (await reader.desk.sent_states(ticket))[reader.desk.ref("wang")] is SendState.TAKEN


async def test_on_my_way_is_one_press(reader: Reader) -> None:
    ticket = await reader.desk.write(QIAN, mail=MailFacts())
    await reader.press(reader.path("wang"), "4")
    assert await reader.desk.assignee(ticket) == "wang"
    assert await reader.desk.journal(ticket, "on_my_way")


async def test_who_passes_it_on_reads_so_and_the_next_is_told(reader: Reader) -> None:
    ticket = await reader.desk.write(QIAN, mail=MailFacts())
    path = reader.path("wang")
    assert "已转给下一位" in (await reader.press(path, "2"))[1]
    assert reader.desk.told(ticket)[-1] == ("li", Medium.MAIL, Reason.NEW)
    assert "已转给下一位" in (await reader.open(path))[1]


async def test_who_comes_too_late_reads_so_in_their_language(reader: Reader) -> None:
    ticket = await reader.desk.write(QIAN, mail=MailFacts())
    await reader.desk.fast_forward(minutes(4))
    first, second = reader.path("wang"), reader.path("li")
    _, html = await reader.open(second)
    assert "Will you take this ticket?" in html
    assert '<html lang="en">' in html
    assert "您接这张工单吗" in (await reader.open(second + "?lang=zh"))[1]
    await reader.press(first, "1")
    status, html = await reader.press(second, "1")
    assert status == 200
    assert "You are not needed any more" in html
    assert await reader.desk.assignee(ticket) == "wang"
    assert "You are not needed any more" in (await reader.open(second))[1]


async def test_a_press_that_the_ladder_refuses_is_late_and_not_an_open_page(
    reader: Reader,
) -> None:
    """It was open when the page was read: the outcome is told all the same."""
    ticket = await reader.desk.write(QIAN, mail=MailFacts())
    path = reader.path("wang")
    _, html = await reader.open(path + "?heard=late")
    assert "不再需要您处理" in html
    await reader.desk.when(reader.desk.tickets.act(ticket, Action.CANCEL, actor="user:desk"))
    assert "工单已关闭" in (await reader.press(path, "1"))[1]


async def test_a_visit_is_accepted_by_the_page(reader: Reader) -> None:
    ticket = await reader.desk.write(QIAN, mail=MailFacts())
    await reader.desk.when(reader.desk.tickets.take(ticket, "wang", how="web"))
    await reader.desk.when(reader.desk.tickets.dispatch(ticket, "wang", actor="user:desk"))
    path = reader.path("wang")
    assert "您去现场吗？" in (await reader.open(path))[1]
    assert "请前往现场" in (await reader.press(path, "1"))[1]
    assert await reader.desk.journal(ticket, "dispatch.accepted")


async def test_who_was_spared_the_way_reads_so(reader: Reader) -> None:
    ticket = await reader.desk.write(QIAN, mail=MailFacts())
    await reader.desk.when(reader.desk.tickets.dispatch(ticket, "wang", actor="user:desk"))
    path = reader.path("wang")
    await reader.desk.when(
        reader.desk.tickets.act(ticket, Action.CANCEL, actor="user:desk", note="x")
    )
    assert "<textarea" not in (await reader.open(path))[1]
    assert '<button class="' not in (await reader.open(path))[1].partition("<main")[2]


# Who may -----------------------------------------------------------------------------------------


async def test_a_link_that_we_did_not_make_is_none(reader: Reader) -> None:
    ticket = await resolved(reader.desk)
    ref = reader.desk.ref(REQUESTER, Medium.MAIL)
    forged = [
        link(b"another key" * 3, ref),
        link(KEY, ref)[:-1] + ("x" if link(KEY, ref)[-1] != "x" else "y"),
        ref,
        signing.sign(KEY, Purpose.REPLY, ticket),
        signing.sign(KEY, Purpose.BOUNCE, ref),
        link(KEY, "solved-26112000018-99-requester"),
        "x" * 5000,
        "%00",
    ]
    for token in forged:
        status, _ = await reader.open(f"{PATH}/{token}")
        assert status == 404, token
        assert (await reader.press(f"{PATH}/{token}", "1"))[0] == 404
    assert await reader.desk.state(ticket) is State.RESOLVED


async def test_what_nobody_asks_has_no_page(reader: Reader) -> None:
    await reader.desk.write(QIAN, mail=MailFacts())
    ref = reader.desk.courtesies[-1].notification.ref
    assert (await reader.open(f"{PATH}/{link(KEY, ref)}"))[0] == 404


@pytest.mark.parametrize("do", ["", "3", "4", "11", "1\n"])
async def test_a_button_that_there_is_not_does_nothing(reader: Reader, do: str) -> None:
    ticket = await resolved(reader.desk)
    status, _ = await reader.press(reader.path(REQUESTER), do)
    assert status == 400
    assert await reader.desk.state(ticket) is State.RESOLVED


async def test_the_one_click_of_a_mail_program_presses_no_button(reader: Reader) -> None:
    """RFC 8058: some send this to whatever List-Unsubscribe names."""
    ticket = await resolved(reader.desk)
    data = {"List-Unsubscribe": "One-Click"}
    url = reader.site.url + reader.path(REQUESTER)
    async with reader.http.post(url, data=data) as answer:
        assert answer.status == 400
    assert await reader.desk.state(ticket) is State.RESOLVED


async def test_another_site_cannot_press_a_button(reader: Reader) -> None:
    ticket = await resolved(reader.desk)
    path = reader.path(REQUESTER)
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}):
        reader.headers = {**HTML, **headers}
        assert (await reader.press(path, "1"))[0] == 403
    assert await reader.desk.state(ticket) is State.RESOLVED


async def test_no_search_engine_and_no_cache_keeps_the_page(reader: Reader) -> None:
    await resolved(reader.desk)
    async with reader.http.get(reader.site.url + reader.path(REQUESTER)) as answer:
        assert answer.headers["X-Robots-Tag"] == "noindex"
        assert answer.headers["Cache-Control"] == "no-store"
        assert "Set-Cookie" not in answer.headers


# From the mail to the journal --------------------------------------------------------------------


async def test_a_link_of_a_real_mail_confirms_and_nobody_is_asked_again(
    reader: Reader, clock: FakeClock
) -> None:
    async with smart_host() as host:
        settings = MailSettings(
            host="127.0.0.1", port=host.port, sender="support@desk.example.cn", security="none"
        )
        head = Letterhead(
            key=key, mailbox="support@desk.example.cn", public_url=reader.site.url + "/"
        )
        reader.desk.media[Medium.MAIL] = Mails(  # type: ignore[assignment]
            settings, service="服务台", clock=clock, letterhead=head
        )
        reader.desk.restart()
        ticket = await resolved(reader.desk)
        bodies = [mail.get_body(["plain"]) for mail in host.mails()]
    texts = [body.get_content() for body in bodies if body is not None]
    found = [each[1] for text in texts if (each := re.search(r"未解决：(\S+)", text))]
    path = found[0].removeprefix(reader.site.url)
    assert (await reader.open(path))[0] == 200
    await reader.press(path.partition("?")[0], "2", note="还是坏的")
    (reopened,) = await reader.desk.journal(ticket, "reopened")
    assert reopened.body["note"] == "还是坏的"


def test_a_token_holds_every_sign_of_an_engineers_key() -> None:
    for ref in ("page-26112000017-1-li_na-mail", "page-1-zhao-zu_zz_-mail", "page-1-z-mail"):
        assert linked(KEY, link(KEY, ref)) == ref
        assert linked(KEY, link(KEY, ref).upper()) == ref
    assert link(KEY, "page-" + "x" * 80) == ""
    assert link(KEY, "王") == ""
