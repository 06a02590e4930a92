"""A ticket's page, on both databases: what it says, to whom, and that nothing on it runs."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from sqlalchemy import update
from yarl import URL

from contactd import commands
from contactd.routing.deskfile import parse
from contactd.settings import Settings
from contactd.signals import Signals, Topic
from contactd.store import duty
from contactd.store.blobs import Blobs
from contactd.store.engine import Database
from contactd.store.schema import tickets as tickets_table
from contactd.store.ticketviews import SLICE
from contactd.store.views import Views
from contactd.tickets.contact import Blob, Contact, File, MailFacts, Medium
from contactd.tickets.model import Classification
from contactd.tickets.people import Role
from contactd.tickets.states import Action
from contactd.web.access import LISTENING, PERSONAL
from contactd.web.api import Api
from contactd.web.live import Live
from contactd.web.ticketpage import PATH
from tests.fakes.board import FakeBoard, call
from tests.fakes.clock import FakeClock
from tests.fakes.desk import Desk, hours
from tests.fakes.history import (
    CALLER,
    HOSTILE_TITLE,
    NOTE,
    ZONE,
    code,
    document,
    eventful,
    keep_recording,
    page_of,
)
from tests.fakes.site import Site, running_site
from tests.fakes.waiting import WITHIN_S

HTML = {"Accept": "text/html", "Accept-Language": "zh"}
TOKYO = "+81312345678"


class Tables(HTMLParser):
    """The rows of the tables of intervals as the texts of their cells, and where links lead."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self._cell = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        self.ids.add(known.get("id") or "")
        if tag == "a":
            self.links.append(known.get("href") or "")
        if tag == "tr":
            self.rows.append([])
        if tag == "td":
            self._cell = True
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._cell = self._cell and tag != "td"

    def handle_data(self, data: str) -> None:
        if self._cell:
            self.rows[-1][-1] += data

    @property
    def intervals(self) -> list[tuple[str, str, str]]:
        """Return entry, working time counted, and calendar of each interval."""
        cells = [[" ".join(cell.split()) for cell in row] for row in self.rows if row]
        last = [tuple(cell.split()[-1] for cell in row[3:]) for row in cells]
        return [(entry, worked, calendar) for entry, worked, _total, calendar in last]


@dataclass(slots=True, kw_only=True)
class Reader:
    """Reads pages of one desk; `wanted` are the headers of a browser."""

    desk: Desk
    site: Site
    http: aiohttp.ClientSession
    wanted: dict[str, str] = field(default_factory=lambda: dict(HTML))

    async def ask(self, path: str, role: Role | None = Role.ADMIN, **more: Any) -> tuple[int, str]:
        headers = self.wanted | ({"Authorization": f"Bearer cd_{role}"} if role else {})
        url = f"{self.site.url}{path}"
        async with self.http.get(url, headers=headers, allow_redirects=False, **more) as answer:
            return answer.status, await answer.text()

    async def page(self, ticket: str, role: Role = Role.ADMIN, language: str = "zh") -> str:
        status, html = await self.ask(f"{PATH}/{ticket}?lang={language}", role)
        assert status == 200, html
        return html

    async def api(self, ticket: str) -> Any:
        headers = {"Authorization": "Bearer cd_admin"}
        url = f"{self.site.url}/api/v1/tickets/{ticket}"
        async with self.http.get(url, headers=headers) as answer:
            return await answer.json()


@asynccontextmanager
async def reading(desk: Desk, tmp_path: Path, **settings: Any) -> AsyncIterator[Reader]:
    def make_api(live: Live) -> Api:
        async def duties(_: Any) -> Any:
            return await duty.duties(desk.database, desk.clock)

        return Api(
            views=Views(desk.database, desk.clock),
            tickets=desk.tickets,
            blobs=Blobs(tmp_path / "blobs"),
            duties=duties,
            live=live,
            clock=desk.clock,
            zone=ZONE,
            terms=desk.core.terms,
            database=desk.database,
            signals=Signals(),
        )

    async with (
        running_site(make_routes=page_of(desk), make_api=make_api, **settings) as site,
        aiohttp.ClientSession() as http,
    ):
        yield Reader(desk=desk, site=site, http=http)


@pytest.fixture
async def desk(database: Database, clock: FakeClock) -> Desk:
    desk = Desk(database, clock)
    await desk.load_file(parse(document()))
    return desk


@pytest.fixture
async def reader(desk: Desk, tmp_path: Path) -> AsyncIterator[Reader]:
    async with reading(desk, tmp_path) as reader:
        yield reader


def hms(seconds: int) -> str:
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


# What it shows


async def test_the_whole_story_of_a_ticket_is_on_its_page(reader: Reader) -> None:
    ticket = await eventful(reader.desk)
    html = await reader.page(ticket)
    for shown in (
        "三楼会议室无法上网", "P2", "VIP", "梁总", "总经理办公室", "liang@example.com",
        "广州珠江新城", "王伟", "网络", "ERP", "gold.1", "影响范围：部门", "重要客户，提高一级",
        "超时", "达标", "计时中", "等待配件", "当时视为已解决", "重新打开",
        "未接来电", "谭丽华", "保底号码",
        "黄强", "已拒绝", "赵云鹏", "到场验证码已核实", "电源模块到了吗", "还是上不了网",
        "由 P3 改为 P2", "转给他人", "承诺超时：响应",
    ):  # fmt: skip
        assert shown in html, shown
    assert not re.findall(r">[^<]*\b(?:escalation|dispatch|clock|call)\.[a-z_]+", html)
    tables = Tables(html)
    entries = {link for link in tables.links if link.startswith("#entry-")}
    assert len(entries) > 5
    assert {link[1:] for link in entries} <= tables.ids


async def test_in_english_too(reader: Reader) -> None:
    ticket = await eventful(reader.desk)
    html = await reader.page(ticket, language="en")
    for shown in (
        "Guangzhou", "Broken", "Kept", "Running", "it counted as solved", "missed call",
        "Floor number", "Declined", "arrival proved by the code", "20 Nov 10:00:00",
        "impact: department, urgency: high (one higher: VIP)",
    ):  # fmt: skip
        assert shown in html, shown


async def test_its_clocks_are_those_of_the_api(reader: Reader) -> None:
    ticket = await eventful(reader.desk)
    html = await reader.page(ticket)
    clocks = (await reader.api(ticket))["clocks"]
    told = [
        (str(each["entry"]), hms(each["worked_s"]), each["calendar"])
        for clock in clocks
        for each in clock["segments"]
    ]
    assert len(told) > 8
    assert Tables(html).intervals == told
    spent = re.findall(r'class="spent">([\d:]+) / ([\d:]+)<', html)
    assert spent == [(hms(each["spent_s"]), hms(each["goal_s"])) for each in clocks]
    due = re.findall(r"(?:到期|应于) <time class=\"at\" datetime=\"([^\"]+)\"", html)
    assert [each.replace("+00:00", "Z") for each in due] == [each["due_at"] for each in clocks]


async def test_its_clocks_are_those_of_the_command(
    reader: Reader, database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    desk = reader.desk
    ticket = await eventful(desk)
    await desk.when(desk.tickets.act(ticket, Action.RESOLVE, actor="engineer:wang"))
    solved = desk.tickets.confirm(ticket, solved=True, actor="requester", how="call")
    await desk.when(solved)  # nothing runs any more: the command's clock is the real one
    settings = Settings(database={"url": database_url})
    assert await commands.explain(settings, ticket) == 0
    printed = capsys.readouterr().out
    told = re.findall(r"\(entry (\d+)\), ([\d:]+) counted by (\S+)", printed)
    assert len(told) > 8
    assert Tables(await reader.page(ticket)).intervals == told


async def test_times_are_those_of_the_site(reader: Reader) -> None:
    ticket = await reader.desk.call(TOKYO, waited=timedelta(seconds=5))
    html = await reader.page(ticket)
    assert "Asia/Tokyo" in html
    assert "11月20日 11:00:00" in html  # ten o'clock in China
    assert "11月20日 10:00:00" not in html


async def test_a_new_ticket_that_nobody_knows_anything_about(reader: Reader) -> None:
    ticket = await reader.desk.call("")
    html = await reader.page(ticket)
    for shown in ("号码隐藏", "没有派人到现场", "未分类", "未知"):
        assert shown in html, shown


async def test_what_rests_on_holidays_nobody_knows_is_marked(reader: Reader) -> None:
    desk = reader.desk
    calendar = {
        "key": "gz-hours", "zone": ZONE, "weekly": {"mon-fri": "09:00-18:00"}, "holidays": "cn"
    }  # fmt: skip
    assert "暂定" not in await reader.page(await desk.call(CALLER))
    await desk.load_file(parse(document() | {"calendars": [calendar]}))
    desk.clock.advance(hours(5))  # later than what joins an open ticket
    assert "暂定" in await reader.page(await desk.call("02038880009"))


async def test_many_messages_are_folded_and_so_is_what_says_the_same(reader: Reader) -> None:
    desk = reader.desk
    ticket = await desk.write(CALLER)
    await desk.fast_forward(hours(3))
    html = await reader.page(ticket)
    assert re.search(r"<summary>更早的 \d+ 条</summary>", html)
    assert re.search(r"<summary>系统步骤 \d+ 项 ", html)
    newest = (await desk.journal(ticket))[-SLICE + 1 :]
    assert len(newest) > 40
    assert {f"entry-{entry.seq}" for entry in newest} <= Tables(html).ids


async def test_an_action_without_words_is_shown_as_it_is_written(reader: Reader) -> None:
    desk = reader.desk
    ticket = await desk.call(CALLER)
    await desk.tickets.note(ticket, "robot.did", actor="user:oa", body={"what": "<b>it</b>"})
    html = await reader.page(ticket)
    assert "robot.did" in html
    assert "&lt;b&gt;it&lt;/b&gt;" in html


async def test_of_a_journal_that_was_changed_no_clock_is_shown(
    reader: Reader, database: Database
) -> None:
    ticket = await reader.desk.call(CALLER)
    assert Tables(await reader.page(ticket)).intervals
    async with database.writing() as connection:
        await connection.execute(update(tickets_table).values(journal_hash="0" * 64))
    html = await reader.page(ticket)
    assert "处理记录已损坏" in html
    assert not Tables(html).intervals


async def test_the_page_of_hundreds_of_entries_is_there_within_seconds(reader: Reader) -> None:
    desk = reader.desk
    ticket = await desk.call(CALLER)
    for n in range(300):
        await desk.tickets.updated(ticket, actor="engineer:wang", note=f"第 {n} 次")
    async with asyncio.timeout(5):
        html = await reader.page(ticket)
    assert "第 299 次" in html


# To whom


async def test_who_is_not_logged_in_is_sent_to_do_so(reader: Reader) -> None:
    ticket = await reader.desk.call(CALLER)
    async with reader.http.get(
        f"{reader.site.url}{PATH}/{ticket}", headers=HTML, allow_redirects=False
    ) as answer:
        assert answer.status == 303
        assert answer.headers["Location"] == f"/login?next={quote(f'{PATH}/{ticket}', safe='')}"
    fields = {"name": "li", "password": "correct horse", "next": f"{PATH}/{ticket}"}
    jar = aiohttp.CookieJar(unsafe=True)
    async with (
        aiohttp.ClientSession(cookie_jar=jar) as http,
        http.post(f"{reader.site.url}/login", data=fields, headers=HTML) as answer,
    ):
        assert answer.url.path == f"{PATH}/{ticket}"
        assert ticket in await answer.text()


@pytest.mark.parametrize("role", [*Role])
async def test_it_is_for_the_roles_that_see_tickets_in_the_api(reader: Reader, role: Role) -> None:
    ticket = await reader.desk.call(CALLER)
    status, html = await reader.ask(f"{PATH}/{ticket}", role)
    assert status == (200 if role in PERSONAL else 403)
    assert ("梁总" in html) == (role in PERSONAL)


async def test_recordings_are_for_those_who_may_listen(reader: Reader, tmp_path: Path) -> None:
    ticket = await reader.desk.call(CALLER)
    await keep_recording(reader.desk, ticket, tmp_path)
    for role in PERSONAL:
        html = await reader.page(ticket, role)
        assert "录音" in html
        assert ("<audio" in html) == (role in LISTENING)


@pytest.mark.parametrize("number", ["26112000999", "1", "x" * 300, "%00", "..%2f..%2fetc"])
async def test_a_number_of_no_ticket_is_a_page_that_says_so(reader: Reader, number: str) -> None:
    url = f"{reader.site.url}{PATH}/{number}"
    headers = HTML | {"Authorization": "Bearer cd_admin"}
    async with reader.http.get(URL(url, encoded=True), headers=headers) as answer:
        html = await answer.text()
        assert answer.status == 404
    assert "这个地址没有内容" in html or "404" in html


# Nothing on it runs, and nothing is told that must not be


async def test_what_strangers_wrote_is_shown_as_text(reader: Reader) -> None:
    desk = reader.desk
    contact = Contact(
        medium=Medium.MAIL,
        external_id="<script>1</script>",
        received_at=desk.clock.now(),
        from_value='"><script>alert(2)</script>@x.cn',
        from_name="<img src=x onerror=alert(3)>",
        text=HOSTILE_TITLE,
    )
    ticket = (await desk.tickets.receive(contact)).ticket
    said = Classification(title=HOSTILE_TITLE, system="<svg onload=alert(4)>")
    await desk.tickets.classify(ticket, said, actor="user:<b>bold</b>")
    await desk.tickets.act(
        ticket, Action.ACKNOWLEDGE, actor="engineer:<i>wang", note="</p><script>alert(5)</script>"
    )
    await desk.tickets.act(ticket, Action.HOLD, actor="engineer:wang", note="<script>%(x)s 100%")
    for language in ("zh", "en"):
        html = await reader.page(ticket, language=language)
        assert not re.search(r"<script(?! src=\"/static)|<img|<svg onload|<b>|<i>", html)
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
        assert "{{ 7 * 7 }} %(number)s" in html
        assert "&lt;script&gt;%(x)s 100%" in html


async def test_the_arrival_code_is_nowhere_on_it(reader: Reader) -> None:
    ticket = await eventful(reader.desk)
    secret = code(reader.desk)
    for language in ("zh", "en"):
        text = re.sub(r"<[^>]+>", " ", await reader.page(ticket, language=language))
        assert not re.search(rf"(?<![\d:+]){secret}(?!\d)", text)


async def test_a_note_of_several_lines_keeps_them(reader: Reader) -> None:
    desk = reader.desk
    ticket = await desk.call(CALLER, answered_by="wang")
    await desk.tickets.act(ticket, Action.HOLD, actor="engineer:wang", note=NOTE)
    assert NOTE in await reader.page(ticket)


# From the status page


async def test_the_status_page_leads_to_tickets_for_those_who_may_see_them(
    desk: Desk, tmp_path: Path
) -> None:
    board = FakeBoard()
    board.show(calls=(call(ticket="26112000018"),))
    newest = board.shown.tickets.latest[0].number
    async with reading(desk, tmp_path, board=board) as reader:
        for role in (None, *Role):
            status, html = await reader.ask("/", role)
            assert status == 200 or role is Role.CALENDAR
            links = Tables(html).links
            for number in (newest, "26112000018"):
                assert (f"{PATH}/{number}" in links) == (role in PERSONAL), role
                assert number in html or status != 200


async def test_an_open_status_page_keeps_its_links_when_it_changes(
    desk: Desk, tmp_path: Path
) -> None:
    async with reading(desk, tmp_path) as reader:
        headers = HTML | {"Authorization": "Bearer cd_desk"}
        async with reader.http.get(f"{reader.site.url}/live", headers=headers) as stream:
            await stream.content.readuntil(b"event: tickets")
            reader.site.board.show(calls=(call(ticket="26112000018"),))
            reader.site.signals.raise_(Topic.BOARD)
            async with asyncio.timeout(WITHIN_S):
                await stream.content.readuntil(f'href="{PATH}/26112000018"'.encode())


async def test_a_mail_is_shown_with_its_quotes_folded_and_its_files(reader: Reader) -> None:
    text = "还是卡纸。\n> 请重启打印机\n> 谢谢\n王五"
    blob = Blob(sha256="a" * 64, size_bytes=2048, media_type="application/pdf", name="<b>账单.pdf")
    mail = Contact(
        medium=Medium.MAIL,
        external_id="mail-1",
        received_at=reader.desk.clock.now(),
        from_value="zhang@x.cn",
        text=text,
        mail=MailFacts(
            subject="Re: <i>打印机",
            folds=((6, 21),),
            checks={"spf": "pass", "dkim": "fail"},
            notes=("encoding_unsure",),
        ),
        html="<p>还是卡纸。</p>",
        files=(File(kind="attachment", blob=blob),),
    )
    filed = await reader.desk.tickets.receive(mail)
    html = await reader.page(filed.ticket)
    quoted = html.partition('<details class="quoted"')[2].partition("</details>")[0]
    assert "&gt; 请重启打印机" in quoted
    assert "还是卡纸" not in quoted
    assert "王五" not in quoted
    assert "Re: &lt;i&gt;打印机" in html
    assert "SPF：pass" in html
    assert "文字编码存疑" in html
    assert "&lt;b&gt;账单.pdf" in html
    assert f"/desk/mails/{filed.contact_id}" in html


async def test_files_of_a_mail_with_a_virus_are_named_and_not_linked(reader: Reader) -> None:
    blob = Blob(sha256="b" * 64, size_bytes=9, media_type="application/zip", name="发票.zip")
    mail = Contact(
        medium=Medium.MAIL,
        external_id="mail-2",
        received_at=reader.desk.clock.now(),
        from_value="zhang@x.cn",
        text="见附件",
        mail=MailFacts(subject="发票", checks={"virus": "Eicar-Test"}),
        files=(File(kind="attachment", blob=blob),),
    )
    html = await reader.page((await reader.desk.tickets.receive(mail)).ticket)
    assert "Eicar-Test" in html
    assert "发票.zip" in html
    assert "/api/v1/attachments/" not in html
    assert "/desk/files/" not in html
