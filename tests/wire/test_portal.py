"""The portal, on both databases: a fault is reported, followed, answered and confirmed."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contactd.errors import TemporaryFailure
from contactd.routing.clocks import Metric
from contactd.routing.notify import REQUESTER, Reason
from contactd.store.engine import Database
from contactd.store.views import Views
from contactd.tickets.contact import Contact, Filed, Medium
from contactd.tickets.dispatching import Step
from contactd.tickets.people import Card
from contactd.tickets.priority import Impact
from contactd.tickets.states import Action, State
from tests.fakes.clock import FakeClock
from tests.fakes.desk import AT_GZ, AT_SZ, BY_MAIL, STRANGER, Desk, hours, minutes
from tests.fakes.portal import PNG, HelpSite, Page, Visitor, running_help


@pytest.fixture
async def desk(database: Database, clock: FakeClock) -> AsyncIterator[Desk]:
    desk = Desk(database, clock)
    await desk.load()
    yield desk
    await desk.check()


@pytest.fixture
async def site(desk: Desk, tmp_path: Path) -> AsyncIterator[HelpSite]:
    async with running_help(desk, tmp_path) as running:
        yield running


@pytest.fixture
async def visitor(site: HelpSite) -> AsyncIterator[Visitor]:
    async with site.visitor() as somebody:
        yield somebody


def number_of(page: Page) -> str:
    found = re.search(r'class="number num">(\d+)<', page.html)
    assert found, page.words
    return found[1]


def link_of(page: Page) -> str:
    """Return where the page that says thank you leads."""
    found = re.search(r'href="(/help/t/[^"]+)"', page.html)
    assert found, page.words
    return found[1]


# A report


async def test_a_report_is_a_ticket_with_everything_that_was_said(
    visitor: Visitor, desk: Desk
) -> None:
    page = await visitor.report(("截图 1.png", PNG), ("..\\..\\x.log", b"error 5\n"))
    assert page.url.startswith("/help/sent/")
    detail = await Views(desk.database, desk.clock).ticket(number_of(page))
    (contact,) = detail.contacts
    assert (contact.medium, contact.from_name) == (Medium.WEB, "张三")
    assert contact.text == (
        "打印机卡纸，打不出来\n\n姓名：张三\n电话：13922223333\n部门：财务部\n网点：gz\n"
        "设备或系统：GZ-PR-017\n报错信息：E-052\n发生时间：2026-11-20 09:50\n"
        "影响范围：我们部门\n期望完成时间：下午三点前"
    )
    files = [(file.kind, file.name, file.media_type) for file in contact.attachments]
    assert sorted(files) == [
        ("attachment", "x.log", "text/plain"), ("attachment", "截图 1.png", "image/png"),
    ]  # fmt: skip
    ticket = await desk.ticket(number_of(page))
    assert (ticket.title, ticket.site, ticket.impact) == (
        "打印机卡纸，打不出来", "gz", Impact.DEPARTMENT,
    )  # fmt: skip
    assert ticket.standard.device == "GZ-PR-017"
    assert ticket.standard.happened_at is not None
    assert ticket.standard.happened_at.isoformat() == "2026-11-20T01:50:00+00:00"


async def test_what_is_missing_is_said_at_its_field_and_everything_is_kept(
    visitor: Visitor, desk: Desk
) -> None:
    page = await visitor.report(
        ("a.png", PNG),
        name="",
        phone="12",
        mail="x",
        site="nowhere",
        what="",
        since="x",
        impact="x",
    )
    assert page.status == 422
    for name in ("name", "phone", "mail", "site", "what", "since", "impact"):
        assert f'id="{name}-fault"' in page.html, name
    assert 'value="GZ-PR-017"' in page.html
    assert page.kept == ["a.png"]
    mended = await visitor.report(form=page.form)
    detail = await Views(desk.database, desk.clock).ticket(number_of(mended))
    assert [file.name for file in detail.contacts[0].attachments] == ["a.png"]


async def test_a_form_that_is_sent_twice_at_once_is_one_ticket(
    visitor: Visitor, desk: Desk
) -> None:
    form = (await visitor.get("/help/new")).form
    pages = await asyncio.gather(*(visitor.report(("a.png", PNG), form=form) for _ in range(4)))
    assert {page.status for page in pages} == {200}
    assert len({number_of(page) for page in pages}) == 1
    assert len(await desk.contacts()) == 1


async def test_who_reports_again_within_hours_adds_to_the_ticket_and_is_told_no_number(
    visitor: Visitor, desk: Desk
) -> None:
    first = number_of(await visitor.report())
    again = await visitor.report(what="还有一台也坏了")
    assert [ticket for _, ticket in await desk.contacts()] == [first, first]
    # It may be somebody else who has typed this number.
    assert first not in again.html
    assert "/help/t/" not in again.html
    assert (await desk.ticket(first)).title == "打印机卡纸，打不出来"


async def test_a_report_is_confirmed_to_its_sender_without_a_word_of_a_stranger(
    visitor: Visitor, desk: Desk
) -> None:
    await visitor.report(what="您中奖了 http://evil.example", phone=STRANGER)
    await desk.drain()
    (told,) = [each.notification for each in desk.courtesies]
    assert (told.reason, told.medium, told.address) == (
        Reason.RECEIVED, Medium.TEXT, "+8613912345678",
    )  # fmt: skip
    assert "title" not in told.facts


@pytest.mark.parametrize(
    ("phone", "mail", "medium"),
    [("", "new@x.cn", Medium.MAIL), ("02088886666", "new@x.cn", Medium.MAIL),
     ("13912340000", "new@x.cn", Medium.TEXT)],
)  # fmt: skip
async def test_a_report_counts_as_from_where_it_can_be_confirmed(
    visitor: Visitor, desk: Desk, phone: str, mail: str, medium: Medium
) -> None:
    await visitor.report(phone=phone, mail=mail)
    await desk.drain()
    assert [each.notification.medium for each in desk.courtesies] == [medium]


async def test_the_site_that_somebody_names_is_that_of_the_ticket(
    visitor: Visitor, desk: Desk
) -> None:
    ticket = number_of(await visitor.report(site="sz"))  # a person of gz is there today
    assert (await desk.ticket(ticket)).site == "sz"
    await desk.drain()
    assert desk.phones_that_rang(ticket)[0] == "chen"


async def test_nothing_is_said_to_be_taken_before_it_is_and_the_words_are_kept(
    site: HelpSite, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(_contact: Contact) -> Filed:
        raise TemporaryFailure("the database is away")

    async with site.visitor() as visitor:
        with monkeypatch.context() as patched:
            patched.setattr(desk.tickets, "receive", away)
            page = await visitor.report(what="网络不通")
        assert page.status == 503
        assert "网络不通" in page.html
        assert "暂时未能保存" in page.words
        assert await desk.contacts() == []
        again = await visitor.report(form=page.form, what="网络不通")
    assert number_of(again)


async def test_the_page_says_thank_you_with_what_was_promised(visitor: Visitor, desk: Desk) -> None:
    page = await visitor.report()
    assert "工程师响应 10:30 前" in page.words


async def test_a_label_with_a_qr_code_fills_in_the_device(visitor: Visitor) -> None:
    page = await visitor.get("/help/new?device=GZ-PR-017%22%3E%3Cscript%3E&site=sz")
    assert 'value="GZ-PR-017&#34;&gt;&lt;script&gt;"' in page.html
    assert '<option value="sz" selected>' in page.html


# Files


async def test_a_file_that_was_sent_before_the_form_comes_with_it(
    visitor: Visitor, desk: Desk
) -> None:
    form = (await visitor.get("/help/new")).form
    status, told = await visitor.upload(form, "%E5%9B%BE.png", PNG)
    assert (status, told["name"]) == (201, "图.png")
    status, other = await visitor.upload(form, "b.txt", b"words")
    dropped = await visitor.post(f"/help/files/{other['id']}/drop?form={form}")
    assert dropped.status == 204
    page = await visitor.report(form=form)
    detail = await Views(desk.database, desk.clock).ticket(number_of(page))
    assert [file.name for file in detail.contacts[0].attachments] == ["图.png"]


async def test_a_file_is_taken_away_without_a_script(visitor: Visitor, desk: Desk) -> None:
    page = await visitor.report(("a.png", PNG), name="")
    sha256 = re.findall(r'name="drop" value="([0-9a-f]+)"', page.html)[0]
    shown = await visitor.report(form=page.form, name="", drop=sha256)
    assert (shown.status, shown.kept) == (200, [])
    assert 'value="GZ-PR-017"' in shown.html


async def test_the_requester_gets_their_own_file_and_nobody_elses(
    site: HelpSite, visitor: Visitor, desk: Desk
) -> None:
    page = await visitor.report(("图.png", PNG), ("log.txt", b"<not html\n"[1:]))
    link = link_of(page)
    shown = await visitor.get(link)
    paths = sorted(set(re.findall(rf'href="({re.escape(link)}/files/\d+)"', shown.html)))
    assert len(paths) == 2
    found = [await visitor.get(path) for path in paths]
    kinds = {each.headers["Content-Type"]: each for each in found}
    assert kinds["image/png"].headers["Content-Disposition"].startswith("inline")
    text = kinds["application/octet-stream"]
    assert text.headers["Content-Disposition"].startswith("attachment")
    for each in found:
        assert each.headers["Content-Security-Policy"] == "sandbox; default-src 'none'"
        assert each.headers["X-Content-Type-Options"] == "nosniff"
    other = link_of(await visitor.report(phone=AT_SZ))
    assert (await visitor.get(paths[0].replace(link, other))).status == 404


# Progress


async def test_progress_is_followed_without_a_code_until_it_is_confirmed(
    visitor: Visitor, desk: Desk
) -> None:
    sent = await visitor.report()
    ticket, link = number_of(sent), link_of(sent)
    await desk.drain()
    before = await visitor.get(link)
    assert "您的报修已受理" in before.words
    await desk.press("wang", "1")
    seen = re.findall(r"progress\?seen=([0-9a-f]+)", before.html)[0]
    changed = await visitor.get(f"{link}/progress?seen={seen}")
    assert "wang已接手" in changed.words
    seen = re.findall(r"progress\?seen=([0-9a-f]+)", changed.html)[0]
    assert (await visitor.get(f"{link}/progress?seen={seen}")).status == 204
    await desk.when(desk.tickets.act(ticket, Action.RESOLVE, actor="engineer:wang", note="内部"))
    asked = await visitor.get(link)
    assert "请您确认" in asked.words
    assert "内部" not in asked.words
    done = await visitor.post(f"{link}/confirm", {"do": "solved", "note": "x"})
    assert "谢谢您的确认" in done.words
    assert await desk.state(ticket) is State.CLOSED
    (closed,) = await desk.journal(ticket, "closed")
    assert (closed.actor, closed.body) == ("requester", {"how": "web", "confirmed": True})
    rated = await visitor.post(f"{link}/rate", {"mark": "4"})
    assert "您的评分：4 分" in rated.words
    again = await visitor.post(f"{link}/rate", {"mark": "1"})
    assert "状态已变化" in again.words
    assert [entry.body["mark"] for entry in await desk.journal(ticket, "rated")] == [4]


async def test_not_solved_reopens_it_with_a_word_why(visitor: Visitor, desk: Desk) -> None:
    sent = await visitor.report()
    ticket, link = number_of(sent), link_of(sent)
    await desk.drain()
    await desk.press("wang", "1")
    await desk.when(desk.tickets.act(ticket, Action.RESOLVE, actor="engineer:wang"))
    page = await visitor.post(f"{link}/confirm", {"do": "not", "note": "还是卡纸"})
    assert "我们会继续处理" in page.words
    assert await desk.state(ticket) is State.IN_PROGRESS
    (reopened,) = await desk.journal(ticket, "reopened")
    assert reopened.body["note"] == "还是卡纸"
    late = await visitor.post(f"{link}/confirm", {"do": "solved"})
    assert "状态已变化" in late.words
    assert await desk.state(ticket) is State.IN_PROGRESS


async def test_a_requester_never_sees_notes_numbers_recordings_or_what_others_said(
    site: HelpSite, visitor: Visitor, desk: Desk
) -> None:
    ticket = await desk.call(AT_GZ)
    await desk.press("wang", "1")
    await desk.when(desk.tickets.comment(ticket, "客户很生气", actor="engineer:wang"))
    await desk.when(desk.tickets.act(ticket, Action.HOLD, actor="engineer:wang", note="等备件"))
    other = Contact(
        medium=Medium.MAIL, external_id="m-1", received_at=desk.clock.now(),
        from_value="other@x.cn", text="我是别人", ticket=ticket,
    )  # fmt: skip
    await desk.when(desk.tickets.receive(other))
    page = await visitor.get(await site.link(ticket))
    assert "您打来电话" in page.words
    assert "等备件" in page.words
    for secret in ("客户很生气", "我是别人", "138000000", "wav", "P3", AT_GZ):
        assert secret not in page.html, secret


async def test_who_has_only_said_who_they_are_sees_nothing_that_came_otherwise(
    visitor: Visitor, desk: Desk
) -> None:
    """Somebody types another's number; then the owner of that number writes about it."""
    sent = await visitor.report(phone=STRANGER)
    ticket, link = number_of(sent), link_of(sent)
    await desk.write(STRANGER, Medium.TEXT, "我的密码是 geheim")
    await desk.when(
        desk.tickets.complete_person(
            (await desk.ticket(ticket)).requester_id,
            Card(numbers=("13755556666",)),
            actor="user:li",
        )
    )
    assert {number for _, number in await desk.contacts()} == {ticket}
    page = await visitor.get(link)
    assert "打印机卡纸" in page.words
    assert "geheim" not in page.html
    assert "6666" not in page.html


async def test_a_reply_joins_its_ticket_with_its_files_however_late(
    site: HelpSite, visitor: Visitor, desk: Desk
) -> None:
    ticket = await desk.call(AT_GZ)
    await desk.press("wang", "1")
    await desk.fast_forward(hours(9))  # later than any repeat contact joins
    page = await visitor.get(await site.link(ticket))
    told = await visitor.reply(page, "拍了照片", ("p.png", PNG))
    assert "已收到您的留言" in told.words
    assert "拍了照片" in told.words
    again = await visitor.reply(page, "拍了照片", ("p.png", PNG))
    assert again.status == 200
    assert [number for _, number in await desk.contacts()] == [ticket, ticket]
    empty = await visitor.reply(await visitor.get(page.url), "  ")
    assert empty.status == 422
    assert "请输入内容" in empty.words


async def test_a_reply_to_what_is_over_opens_a_ticket(
    site: HelpSite, visitor: Visitor, desk: Desk
) -> None:
    ticket = await desk.call(AT_GZ)
    await desk.press("wang", "1")
    page = await visitor.get(await site.link(ticket))
    await desk.when(desk.tickets.act(ticket, Action.RESOLVE, actor="engineer:wang"))
    confirm = desk.tickets.confirm(ticket, solved=True, actor="requester", how="web")
    await desk.when(confirm)
    told = await visitor.reply(page, "又坏了")
    assert number_of(told) != ticket


async def test_a_call_back_pages_the_engineer_with_the_number(
    site: HelpSite, visitor: Visitor, desk: Desk
) -> None:
    ticket = await desk.call(AT_GZ)
    await desk.press("wang", "1")
    desk.forget()
    page = await visitor.get(await site.link(ticket))
    assert "…3333" in page.words
    form = {"form": page.form, "own": "0", "wished": "下午两点"}
    told = await visitor.post(f"{page.url}/call-back", form)
    await visitor.post(f"{page.url}/call-back", form)  # twice is once
    assert "值班工程师" in told.words
    (asked,) = await desk.journal(ticket, "call_back.asked")
    assert asked.body == {"number": "+8613922223333", "wished": "下午两点"}
    assert (await desk.contacts())[-1][0] == "请回电：+8613922223333 (下午两点)"
    await desk.drain()
    assert desk.phones_that_rang(ticket) == ["wang"]


async def test_another_number_is_called_only_for_who_has_typed_a_code(
    site: HelpSite, visitor: Visitor, desk: Desk
) -> None:
    ticket = await desk.call(AT_GZ)
    page = await visitor.get(await site.link(ticket))
    form = {"form": page.form, "number": STRANGER}
    assert (await visitor.post(f"{page.url}/call-back", form)).status == 422
    await site.sign_in(visitor, AT_GZ)
    done = await visitor.post(f"/help/my/{ticket}/call-back", form)
    assert done.status == 200
    (asked,) = await desk.journal(ticket, "call_back.asked")
    assert asked.body["number"] == "+8613912345678"


async def test_asking_for_remote_help_starts_its_promise_once(
    site: HelpSite, visitor: Visitor, desk: Desk
) -> None:
    ticket = await desk.call(AT_GZ)
    page = await visitor.get(await site.link(ticket))
    told = await visitor.post(f"{page.url}/remote", {"form": page.form})
    assert "会发给您一个链接" in told.words
    assert "我们会发链接给您" in told.words
    await visitor.post(f"{page.url}/remote", {"form": told.form})
    await desk.drain()
    assert len(await desk.journal(ticket, "remote.asked")) == 1
    assert (await desk.clocks(ticket))[Metric.REMOTE]["state"] == "running"


async def test_who_comes_and_the_code_for_them_are_shown_to_the_requester_alone(
    site: HelpSite, visitor: Visitor, desk: Desk
) -> None:
    ticket = await desk.call(AT_GZ)
    await desk.press("wang", "1")
    await desk.when(desk.tickets.dispatch(ticket, "zhao", actor="engineer:wang"))
    await desk.when(desk.tickets.dispatch_step(ticket, Step.ACCEPT, actor="engineer:zhao"))
    code = next(iter((await desk.case(ticket)).codes.values()))
    linked = await visitor.get(await site.link(ticket))
    assert "zhao上门处理" in linked.words
    assert f">{code}<" not in linked.html
    await site.sign_in(visitor, AT_GZ)
    assert f">{code}<" in (await visitor.get(f"/help/my/{ticket}")).html


# Codes


async def test_a_code_shows_ones_own_tickets_and_no_others(
    site: HelpSite, visitor: Visitor, desk: Desk
) -> None:
    mine, other = await desk.call(AT_GZ), await desk.call(AT_SZ)
    page = await site.sign_in(visitor, AT_GZ)
    assert mine in page.words
    assert other not in page.words
    assert (await visitor.get(f"/help/my/{mine}")).status == 200
    assert (await visitor.get(f"/help/my/{other}")).status == 404
    acted = await visitor.post(f"/help/my/{other}/remote", {"form": "0" * 32})
    assert acted.status == 404
    await visitor.post("/help/leave")
    assert (await visitor.get(f"/help/my/{mine}")).url == "/help/my"


async def test_a_code_goes_to_the_address_that_was_typed_and_only_if_it_is_known(
    site: HelpSite, visitor: Visitor, desk: Desk
) -> None:
    await desk.call(BY_MAIL)
    for typed in ("qian@x.cn", BY_MAIL, STRANGER, "nobody@x.cn"):
        await visitor.post("/help/my", {"address": typed})
        await desk.drain()
    sent = [each.notification for each in desk.everything]
    told = [(each.medium, each.address) for each in sent if each.reason is Reason.LOGIN]
    assert told == [(Medium.MAIL, "qian@x.cn")]  # a landline cannot show one
    assert {each.recipient for each in sent if each.reason is Reason.LOGIN} == {REQUESTER}


async def test_a_code_works_once_and_for_ten_minutes(
    site: HelpSite, visitor: Visitor, desk: Desk
) -> None:
    await desk.call(AT_GZ)
    asked = await visitor.post("/help/my", {"address": AT_GZ})
    await desk.drain()
    code = site.code()
    async with site.visitor() as thief:
        assert (await visitor.post(asked.url, {"code": f" {code[:3]} {code[3:]}"})).status == 200
        assert (await thief.post(asked.url, {"code": code})).status == 422
        late = await thief.post("/help/my", {"address": AT_GZ})
        await desk.drain()
        desk.clock.advance(minutes(10))
        assert (await thief.post(late.url, {"code": site.code()})).status == 422
    desk.clock.advance(minutes(120))
    assert (await visitor.get("/help/my")).words.count("获取验证码") == 1


async def test_the_portal_can_be_turned_off(desk: Desk, tmp_path: Path) -> None:
    async with running_help(desk, tmp_path, enabled=False) as site, site.visitor() as visitor:
        assert (await visitor.get("/help")).status == 404


async def test_every_page_is_in_both_languages_and_names_the_hotline(
    site: HelpSite, visitor: Visitor, desk: Desk
) -> None:
    ticket = await desk.call(AT_GZ)
    for path in ("/help", "/help/new", "/help/my", await site.link(ticket), "/help/t/x"):
        zh, en = await visitor.get(f"{path}?lang=zh"), await visitor.get(f"{path}?lang=en")
        assert not re.search(r"[\u4e00-\u9fff]", en.words.replace("中文", "")), path
        assert re.search(r"[\u4e00-\u9fff]", zh.words)
        assert 'href="tel:4008001234"' in zh.html
