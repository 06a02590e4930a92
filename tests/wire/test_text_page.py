"""Texts on pages, on both databases: how far each has come, to whom, and writing one."""

import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from html import unescape
from typing import Any

import aiohttp
import pytest
from sqlalchemy import insert, select

from contactd.errors import NotFound, PermanentFailure, TemporaryFailure
from contactd.httpd import Route
from contactd.routing.notify import REQUESTER, Reason, SendState
from contactd.service import Health, HealthState
from contactd.sms.gateway import Delivery
from contactd.store.engine import Database
from contactd.store.schema import notifications, tickets
from contactd.store.texts import Texts
from contactd.store.ticketviews import TicketViews
from contactd.store.views import Views
from contactd.tickets.contact import Contact, Medium, Source
from contactd.tickets.people import Role
from contactd.web import textpage, ticketpage
from contactd.web.access import ACTING, ADDRESSED, PERSONAL
from contactd.web.board import BoardLedger
from contactd.web.pages import Pages
from contactd.web.textpage import PATH, TextPage
from contactd.web.ticketpage import PATH as TICKETS
from contactd.web.ticketpage import TicketPage
from contactd.web.words import DELIVERIES
from contactd.web.writing import LONGEST, cleaned
from tests.fakes.clock import FakeClock
from tests.fakes.desk import Desk
from tests.fakes.history import CALLER, ZONE, document
from tests.fakes.site import Site, running_site
from tests.fakes.texting import FakeWriting

HOSTILE = (
    "<script>alert(1)</script>\"'{{ 7 * 7 }} %(number)s </textarea><img src=x onerror=alert(1)>"
)
KEY = "0123456789abcdef"
HTML = {"Accept": "text/html", "Accept-Language": "zh"}


@dataclass(slots=True, kw_only=True)
class Reader:
    """Asks for pages as somebody of a role; `texts` is what went out."""

    desk: Desk
    site: Site
    http: aiohttp.ClientSession
    writing: FakeWriting
    texts: Texts
    count: int = 0

    async def ask(
        self, method: str, path: str, role: Role | None = Role.ADMIN, **more: Any
    ) -> tuple[int, str, str]:
        headers = HTML | ({"Authorization": f"Bearer cd_{role}"} if role else {})
        headers |= more.pop("headers", {})
        url = f"{self.site.url}{path}"
        async with self.http.request(
            method, url, headers=headers, allow_redirects=False, **more
        ) as answer:
            return answer.status, await answer.text(), answer.headers.get("Location", "")

    async def page(self, path: str, role: Role = Role.ADMIN, language: str = "zh") -> str:
        status, html, _ = await self.ask("GET", f"{path}?lang={language}", role)
        assert status == 200, html
        return html

    async def post(
        self, ticket: str, words: str, do: str = "preview", seen: str = "", **more: Any
    ) -> tuple[int, str, str]:
        fields = {"key": more.pop("key", KEY), "words": words, "do": do, "shown": seen}
        role = more.pop("role", Role.DESK)
        return await self.ask("POST", f"{TICKETS}/{ticket}", role, data=fields, **more)

    async def send(self, ticket: str, words: str, **more: Any) -> tuple[int, str, str]:
        """Preview the words and press the button below."""
        _, html, _ = await self.post(ticket, words, **more)
        return await self.post(ticket, words, "send", seen_in(html), **more)

    async def goes_out(
        self,
        ticket: str,
        *,
        recipient: str = REQUESTER,
        reason: Reason = Reason.SAID,
        number: str = "+8613922223333",
        body: str = "您好",
        gateway: str = "twilio",
        delivery: str = "",
        error: str = "",
        segments: int = 1,
        state: SendState = SendState.SENT,
    ) -> None:
        """Note a text as the daemon does when it hands it over and hears of it later."""
        self.count += 1
        ref, now = f"text-{self.count}", self.desk.clock.now()
        async with self.desk.database.writing() as connection:
            of = select(tickets.c.id).where(tickets.c.number == ticket)
            ticket_id = (await connection.execute(of)).scalar_one()
            row = {
                "dedup_key": f"notify-{ref}", "ticket_id": ticket_id,
                "recipient": recipient, "medium": "text", "address": number, "client_ref": ref,
                "reason": reason.value, "facts": {}, "state": state.value, "created_at": now,
                "updated_at": now,
            }  # fmt: skip
            await connection.execute(insert(notifications), row)
        await self.texts.handing(
            ref=ref, gateway=gateway, number=number, body=body, segments=segments
        )
        await self.texts.handed(ref, gateway, f"SM{self.count}")
        if delivery:
            await self.texts.reported(
                gateway=gateway, ref=ref, message_id="", delivery=delivery, error=error, after=[]
            )

    async def comes_in(self, text: str, sender: str = CALLER, **more: Any) -> str:
        self.count += 1
        filed = await self.desk.tickets.receive(
            Contact(
                medium=Medium.TEXT,
                external_id=f"twilio-SM{self.count}",
                received_at=self.desk.clock.now(),
                from_value=sender,
                text=text,
                **more,
            )
        )
        return filed.ticket


@dataclass(slots=True, kw_only=True)
class Setup:
    has_gateways: bool = True
    writes: bool = True
    writing: FakeWriting = field(default_factory=FakeWriting)


@pytest.fixture
def setup() -> Setup:
    return Setup()


@pytest.fixture
async def reader(database: Database, clock: FakeClock, setup: Setup) -> AsyncIterator[Reader]:
    async with reading(database, clock, setup) as reader:
        yield reader


@asynccontextmanager
async def reading(database: Database, clock: FakeClock, setup: Setup) -> AsyncIterator[Reader]:
    desk, texts = Desk(database, clock), Texts(database, clock)
    await desk.load(**document())

    def make(pages: Pages) -> Iterable[Route]:
        views = Views(database, clock)
        writing = setup.writing.writing if setup.writes else None
        ticket = TicketPage(
            pages=pages, views=views, more=TicketViews(database, clock), terms=desk.core.terms,
            clock=clock, zone=ZONE, writing=writing,
        )  # fmt: skip
        page = TextPage(
            pages=pages, texts=texts, views=views, clock=clock, zone=ZONE,
            has_gateways=setup.has_gateways,
        )  # fmt: skip
        return (*ticketpage.routes(ticket), *textpage.routes(page))

    async with running_site(make_routes=make) as site, aiohttp.ClientSession() as http:
        yield Reader(desk=desk, site=site, http=http, writing=setup.writing, texts=texts)


def seen_in(html: str) -> str:
    """Return what the button below a preview sends along."""
    (seen,) = re.findall(r'name="shown" value="([0-9a-f]+)"', html)
    return str(seen)


def told(html: str) -> str:
    """Return who was told, as plain text."""
    panel = html.partition('id="told"')[2].partition("</section>")[0]
    return unescape(" ".join(re.sub(r"<[^>]+>", " ", panel).split()))


def bubble(html: str) -> str:
    (shown,) = re.findall(r'<p class="bubble">(.*?)</p>', html, re.DOTALL)
    return unescape(shown)


def form_in(html: str) -> str:
    """Return the form where a text is written, "" if there is none."""
    found = re.search(r'<details[^>]* id="text".*?</details>', html, re.DOTALL)
    return found[0] if found else ""


def words_in(html: str) -> str:
    """Return what stands in the field where a text is written."""
    (shown,) = re.findall(r'<textarea id="words"[^>]*>(.*?)</textarea>', html, re.DOTALL)
    return unescape(shown).removeprefix("\n")


# On the ticket


async def test_a_ticket_shows_how_far_each_text_has_come(reader: Reader) -> None:
    ticket = await reader.desk.call(CALLER)
    await reader.goes_out(ticket, segments=3)
    await reader.goes_out(ticket, gateway="smpp", delivery="sent")
    await reader.goes_out(ticket, gateway="aliyun", delivery="delivered")
    shown = told(await reader.page(f"{TICKETS}/{ticket}"))
    for line in ("twilio · 3 条 · 已交付网关", "smpp · 1 条 · 发送途中", "aliyun · 1 条 · 已送达"):
        assert line in shown, shown
    shown = told(await reader.page(f"{TICKETS}/{ticket}", language="en"))
    for line in ("twilio · 3 segments · with the gateway", "smpp · 1 segment · on its way"):
        assert line in shown, shown


async def test_a_text_that_failed_says_why_and_what_to_do(reader: Reader) -> None:
    ticket = await reader.desk.call(CALLER)
    lost: dict[str, Any] = {"delivery": "failed", "state": SendState.FAILED}
    await reader.goes_out(ticket, error="30006", **lost)
    await reader.goes_out(ticket, gateway="aliyun", error="MOBILE_IN_BLACK", **lost)
    await reader.goes_out(ticket, gateway="smpp", error="<b>4b9", **lost)
    html = await reader.page(f"{TICKETS}/{ticket}")
    shown = told(html)
    for line in (
        "错误码 30006：该号码不能接收短信（例如座机）：请补充手机号码",
        "错误码 MOBILE_IN_BLACK：对方已退订短信：请改打电话或发邮件",
        "错误码 <b>4b9",
    ):
        assert line in shown, shown
    assert shown.count("未送达") == 6  # of each: the state, and what the gateway says
    assert "<b>4b9" not in html


async def test_a_text_that_nobody_took_says_why(reader: Reader, database: Database) -> None:
    ticket = await reader.desk.call(CALLER)
    now = reader.desk.clock.now()
    async with database.writing() as connection:
        of = select(tickets.c.id).where(tickets.c.number == ticket)
        row = {
            "dedup_key": "x", "ticket_id": (await connection.execute(of)).scalar_one(),
            "recipient": REQUESTER, "medium": "text", "address": "+8613922223333",
            "client_ref": "x", "reason": "said", "facts": {}, "state": "failed",
            "detail": "the recipient wants no texts (they wrote STOP)", "created_at": now,
            "updated_at": now,
        }  # fmt: skip
        await connection.execute(insert(notifications), row)
    assert "they wrote STOP" in told(await reader.page(f"{TICKETS}/{ticket}"))


@pytest.mark.parametrize("role", sorted(PERSONAL))
async def test_where_a_message_went_is_shown_to_few(reader: Reader, role: Role) -> None:
    ticket = await reader.desk.call(CALLER)
    await reader.goes_out(ticket, recipient="wang", number="+8613800000001")
    shown = told(await reader.page(f"{TICKETS}/{ticket}", role))
    assert "王伟" in shown
    assert ("+8613800000001" in shown) == (role in ADDRESSED)


def test_every_state_of_a_delivery_has_words() -> None:
    assert DELIVERIES.keys() == {"", *(each.value for each in Delivery)}


# The page of texts


async def test_the_page_lists_what_went_out_and_what_came_in(reader: Reader) -> None:
    ticket = await reader.comes_in("打印机坏了", source=Source.REPLAY)
    await reader.goes_out(ticket, body="【服务台】已派王伟", segments=2, delivery="delivered")
    reader.desk.clock.advance(timedelta(minutes=5))
    await reader.goes_out(
        ticket, recipient="wang", reason=Reason.NEW, number="+8613800000001", body="新工单",
        gateway="smpp", delivery="failed", error="11",
    )  # fmt: skip
    html = await reader.page(PATH)
    for shown in (
        "【服务台】已派王伟", "报修人", "2 条", "已送达", "+8613922223333", "twilio",
        "新工单", "王伟", "smpp", "未送达", "错误码 11", "11月20日 10:05", CALLER, "打印机坏了",
        f'href="/desk/tickets/{ticket}"', "据服务商记录补录",
    ):  # fmt: skip
        assert shown in html, shown
    assert html.index("新工单") < html.index("已派王伟")  # the latest first
    english = await reader.page(PATH, language="en")
    for shown in ("Texts", "Requester", "2 segments", "delivered", "Error 11", "20 Nov 10:05"):
        assert shown in english, shown


async def test_the_page_shows_the_last_hundred_of_each_and_no_old_ones(reader: Reader) -> None:
    ticket = await reader.comes_in("这是很久以前的")
    reader.desk.clock.advance(timedelta(days=32))
    for n in range(101):
        await reader.goes_out(ticket, body=f"第{n}条")
        reader.desk.clock.advance(timedelta(seconds=1))
    html = await reader.page(PATH)
    assert "这是很久以前的" not in html
    assert "还没有收到过短信" in html
    assert "第100条" in html
    assert "第0条" not in html
    assert '<span class="count">100+</span>' in html


@pytest.mark.parametrize("role", [*Role])
async def test_numbers_are_masked_unless_the_role_may_see_them(reader: Reader, role: Role) -> None:
    ticket = await reader.comes_in("打印机坏了")
    await reader.goes_out(ticket)
    status, html, _ = await reader.ask("GET", PATH, role)
    assert status == (200 if role in PERSONAL else 403)
    assert ("…3333" in html) == (role in PERSONAL - ADDRESSED)
    assert ("13922223333" in html) == (role in ADDRESSED)


async def test_the_code_that_proves_an_arrival_is_not_for_the_desk(reader: Reader) -> None:
    ticket = await reader.desk.call(CALLER)
    await reader.goes_out(ticket, reason=Reason.CODE, body="到场验证码 4711")
    html = await reader.page(PATH)
    assert "4711" not in html
    assert "不显示" in html


async def test_words_of_strangers_are_shown_as_text(reader: Reader) -> None:
    ticket = await reader.comes_in(HOSTILE)
    await reader.comes_in("发送人可疑", sender='"><script>alert(2)</script>')
    await reader.goes_out(ticket, body=HOSTILE)
    html = await reader.page(PATH)
    assert "<script>" not in html
    assert "<img" not in html
    assert html.count("&lt;script&gt;alert(1)") == 2
    assert "{{ 7 * 7 }}" in html


async def test_an_empty_page_says_what_to_do(reader: Reader) -> None:
    html = await reader.page(PATH, language="en")
    assert "No text has gone out yet" in html
    assert "No text has come in yet" in html
    assert "no gateway is configured" not in html


async def test_without_a_gateway_the_page_says_so(database: Database, clock: FakeClock) -> None:
    async with reading(database, clock, Setup(has_gateways=False)) as reader:
        assert "未配置短信网关" in await reader.page(PATH)


async def test_nobody_can_write_where_no_text_can_be_sent(
    database: Database, clock: FakeClock
) -> None:
    async with reading(database, clock, Setup(writes=False)) as reader:
        ticket = await reader.desk.call(CALLER)
        assert not form_in(await reader.page(f"{TICKETS}/{ticket}"))
        assert (await reader.post(ticket, "您好"))[0] == 404


async def test_who_is_not_logged_in_is_sent_to_do_so(reader: Reader) -> None:
    status, _, location = await reader.ask("GET", PATH, None)
    assert (status, location) == (303, "/login?next=%2Ftexts")


@pytest.mark.parametrize("role", [Role.DESK, Role.OPERATIONS])
async def test_the_way_to_the_page_is_on_every_page_of_those_who_may_see_it(
    reader: Reader, role: Role
) -> None:
    html = await reader.page("/", role)
    assert ('href="/texts"' in html) == (role in PERSONAL)


async def test_the_status_page_names_each_gateway_and_its_ledger(reader: Reader) -> None:
    board = reader.site.board
    board.health = [Health(component="sms:twilio", state=HealthState.UP)]
    day = reader.desk.clock.now().date()
    board.show(
        ledger=tuple(
            BoardLedger(
                day=day, medium=medium, source=source, outside=3, contacts=2, missing=missing,
                extra=0, repaired=0,
            )
            for medium, source, missing in (
                (Medium.CALL, "pbx1", 0), (Medium.TEXT, "twilio", 1),
            )
        )
    )  # fmt: skip
    html = await reader.page("/", language="en")
    assert re.search(r'<a href="/texts">Texts</a> <small>twilio</small>', html)
    assert "<small>twilio</small></th>" in html
    assert "texts on the provider’s list that contactd has not filed" in html
    assert "calls that the PBX recorded" not in html


# Writing one


@pytest.mark.parametrize("role", sorted(PERSONAL))
async def test_the_form_is_for_those_who_act(reader: Reader, role: Role) -> None:
    ticket = await reader.desk.call(CALLER)
    html = await reader.page(f"{TICKETS}/{ticket}", role)
    assert ("<textarea" in html) == (role in ACTING)
    status, _, _ = await reader.post(ticket, "您好", role=role)
    assert status == (200 if role in ACTING else 403)
    status, _, _ = await reader.ask(
        "POST", f"{TICKETS}/{ticket}/preview", role, data={"key": KEY, "words": "您好"}
    )
    assert status == (200 if role in ACTING else 403)


async def test_the_preview_is_what_will_be_sent_and_what_it_costs(reader: Reader) -> None:
    ticket = await reader.desk.call(CALLER)
    status, html, _ = await reader.post(ticket, "配件明天到，" * 14)
    assert status == 200
    assert bubble(html).startswith(f"【服务台】工单{ticket}：配件明天到，")
    assert re.search(r'class="num segments">2<', html)
    assert re.search(r'class="num cost">¥0.09<', html)
    for shown in ("UCS-2", "twilio", "+8613922223333", "最后一条还可写"):
        assert shown in html, shown
    assert words_in(html) == cleaned("配件明天到，" * 14)
    assert reader.writing.written == {}


async def test_what_was_seen_is_sent_once_however_often_the_button_is_pressed(
    reader: Reader,
) -> None:
    ticket = await reader.desk.call(CALLER)
    status, _, location = await reader.send(ticket, "配件明天到")
    assert (status, location) == (303, f"{TICKETS}/{ticket}?did=text#done")
    assert (await reader.send(ticket, "配件明天到"))[0] == 303
    assert [*reader.writing.written.values()] == [(ticket, "user:oa-desk", "配件明天到")]
    (key,) = reader.writing.written
    assert re.fullmatch(r"[0-9a-f-]{33}", key)
    assert "短信已提交发送" in (await reader.ask("GET", f"{TICKETS}/{ticket}?did=text"))[1]


async def test_other_words_of_the_same_form_are_another_text(reader: Reader) -> None:
    ticket = await reader.desk.call(CALLER)
    await reader.send(ticket, "配件明天到")
    await reader.send(ticket, "配件后天到")
    assert len(reader.writing.written) == 2
    await reader.send(ticket, "配件后天到", key="f" * 16)
    assert len(reader.writing.written) == 3


async def test_words_that_were_not_shown_as_they_will_be_are_not_sent(reader: Reader) -> None:
    ticket = await reader.desk.call(CALLER)
    _, html, _ = await reader.post(ticket, "配件明天到")
    for seen in (seen_in(html), ""):
        status, html, _ = await reader.post(ticket, "配件后天到", "send", seen)
        assert status == 200
        assert "内容已修改" in html
        assert "配件后天到" in bubble(html)
    assert reader.writing.written == {}
    assert (await reader.post(ticket, "配件后天到", "send", seen_in(html)))[0] == 303


@pytest.mark.parametrize(
    ("words", "remark"),
    [("", "还没有内容"), (" \n ", "还没有内容"), ("好" * (LONGEST + 1), f"最多 {LONGEST} 个字")],
)
async def test_nothing_and_too_much_are_not_sent(reader: Reader, words: str, remark: str) -> None:
    ticket = await reader.desk.call(CALLER)
    status, html, _ = await reader.post(ticket, words, "send", "")
    assert status == 200
    assert remark in html
    assert 'value="send"' not in html
    assert reader.writing.written == {}


async def test_as_much_as_is_allowed_is_sent(reader: Reader) -> None:
    ticket = await reader.desk.call(CALLER)
    assert (await reader.send(ticket, "好" * LONGEST))[0] == 303


@pytest.mark.parametrize(
    ("words", "sent"),
    [
        ("一\r\n二", "一\n二"), ("一\x00二\x1b[31m", "一 二 [31m"), ("  您好  ", "您好"),
        ("👨‍👩‍👧 é", "👨‍👩‍👧 é"), ("一\r二\t三", "一\n二 三"),
    ],
)  # fmt: skip
async def test_words_are_sent_without_what_no_telephone_shows(
    reader: Reader, words: str, sent: str
) -> None:
    ticket = await reader.desk.call(CALLER)
    assert (await reader.send(ticket, words))[0] == 303
    assert [each[2] for each in reader.writing.written.values()] == [sent]


async def test_hostile_words_are_shown_as_text(reader: Reader) -> None:
    ticket = await reader.desk.call(CALLER)
    _, html, _ = await reader.post(ticket, HOSTILE)
    assert words_in(html) == HOSTILE
    assert HOSTILE in bubble(html)
    assert "<script>alert" not in html
    assert "<img" not in html
    fragment = {"key": KEY, "words": HOSTILE}
    _, html, _ = await reader.ask("POST", f"{TICKETS}/{ticket}/preview", data=fragment)
    assert HOSTILE in bubble(html)
    assert "<script" not in html
    assert "<html" not in html


async def test_a_requester_without_a_number_cannot_be_written_to(reader: Reader) -> None:
    ticket = await reader.desk.call("")
    html = await reader.page(f"{TICKETS}/{ticket}")
    assert "<textarea" not in form_in(html)
    assert "没有该报修人的号码" in html
    reader.writing.failure = PermanentFailure("no gateway serves this number")
    ticket = await reader.desk.call(CALLER)
    status, html, _ = await reader.post(ticket, "您好")
    assert status == 200
    assert "无法给该报修人发短信" in html
    assert "no gateway serves this number" in html
    assert words_in(html) == "您好"


async def test_what_cannot_be_done_now_is_said_and_nothing_is_sent(reader: Reader) -> None:
    ticket = await reader.desk.call(CALLER)
    _, html, _ = await reader.post(ticket, "您好")
    reader.writing.failure = TemporaryFailure("the database is away")
    assert (await reader.post(ticket, "您好", "send", seen_in(html)))[0] == 503
    reader.writing.failure = NotFound("there is no such ticket")
    assert (await reader.post(ticket, "您好"))[0] == 404


async def test_nobody_else_makes_a_browser_send_a_text(reader: Reader) -> None:
    ticket = await reader.desk.call(CALLER)
    secret = await reader.site.accounts.open_session("li", lasts=timedelta(hours=1))
    cookie = {"Cookie": f"contactd_session={secret}"}
    _, html, _ = await reader.post(
        ticket, "您好", role=None, headers=cookie | {"Sec-Fetch-Site": "same-origin"}
    )
    foreign = cookie | {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
    for headers in (foreign, cookie):
        status, _, _ = await reader.post(
            ticket, "您好", "send", seen_in(html), role=None, headers=headers
        )
        assert status == 403
    assert reader.writing.written == {}


@pytest.mark.parametrize("key", ["", "x" * 16, "0123456789abcde", "../../etc/passwd", "0" * 200])
async def test_a_form_that_is_none_of_ours_is_refused(reader: Reader, key: str) -> None:
    ticket = await reader.desk.call(CALLER)
    assert (await reader.post(ticket, "您好", key=key))[0] == 400


async def test_each_form_has_a_key_of_its_own(reader: Reader) -> None:
    ticket = await reader.desk.call(CALLER)
    keys = [
        re.findall(
            r'name="key" value="([0-9a-f]{16})"',
            form_in(await reader.page(f"{TICKETS}/{ticket}")),
        )
        for _ in range(2)
    ]
    assert len(keys[0]) == len(keys[1]) == 1
    assert keys[0] != keys[1]
