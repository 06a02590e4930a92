"""Strangers at the portal: what they may not see, do, send or learn."""

import asyncio
import re
import statistics
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sqlalchemy import select

from contactd.errors import TemporaryFailure
from contactd.httpd import PORTAL_COOKIE
from contactd.store.engine import Database
from contactd.store.schema import outbox, portal_codes
from contactd.store.views import Views
from contactd.tickets import signing
from contactd.tickets.signing import Purpose
from contactd.tickets.states import State
from contactd.web import portalforms
from contactd.web.portalforms import kind_of, name_for
from tests.fakes.clock import FakeClock
from tests.fakes.desk import AT_GZ, AT_SZ, STRANGER, Desk, hours
from tests.fakes.portal import PNG, HelpSite, Page, Visitor, running_help

HOSTILE = "\"'><script>alert(1)</script>{{7*7}}%(x)s\u202e<img src=x onerror=alert(1)>"


@pytest.fixture
async def desk(sqlite_url: str, clock: FakeClock) -> AsyncIterator[Desk]:
    database = Database(sqlite_url, clock=clock)
    async with database.running():
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


def is_harmless(page: Page) -> bool:
    return "<script>alert" not in page.html and "<img src=x" not in page.html


def link_of(page: Page) -> str:
    found = re.search(r'href="(/help/t/[^"]+)"', page.html)
    assert found, page.words
    return found[1]


# What strangers write


@pytest.mark.parametrize(
    "name", ["what", "name", "phone", "mail", "department", "site", "device", "version", "error",
             "since", "impact", "wished", "form"],
)  # fmt: skip
async def test_nothing_that_is_filled_in_runs(visitor: Visitor, name: str) -> None:
    if name == "form":
        form = (await visitor.get("/help/new")).form
        assert (await visitor.report(form=form + HOSTILE)).status == 400
        return
    page = await visitor.report(("<script>alert(1).png", PNG), **{name: HOSTILE})
    assert is_harmless(page)
    if page.status == 200:
        assert is_harmless(await visitor.get(link_of(page)))


@pytest.mark.parametrize("path", ["/help/new?device=", "/help/t/", "/help/code/", "/help/sent/",
                                  "/help?lang=", "/help/my/"])  # fmt: skip
async def test_nothing_in_an_address_runs(visitor: Visitor, path: str) -> None:
    for words in ("%22%3E%3Cscript%3Ealert(1)%3C/script%3E", "%00", "%F0%9F%92%A9", "..%2f.."):
        page = await visitor.get(path + words)
        assert is_harmless(page)
        assert page.status in (200, 400, 404), (path, words)


async def test_every_page_refuses_scripts_that_are_not_ours(
    site: HelpSite, visitor: Visitor, desk: Desk
) -> None:
    ticket = await desk.call(AT_GZ)
    for path in ("/help", "/help/new", "/help/my", await site.link(ticket), "/help/t/x"):
        page = await visitor.get(path)
        policy = page.headers["Content-Security-Policy"]
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert not re.search(r"<script(?![^>]*src=)|\son\w+=|\sstyle=|javascript:", page.html)


async def test_a_long_or_odd_form_is_refused_and_not_a_failure(visitor: Visitor) -> None:
    assert (await visitor.report(what="x" * 100_000)).status == 413
    assert (await visitor.report(what="好" * 5000)).status == 200  # cut to what is stored
    assert (await visitor.post("/help/new", b"--x\r\n", headers={
        "Content-Type": "multipart/form-data; boundary=y"})).status == 400  # fmt: skip
    rubbish = b"--y\r\nno header at all\r\n\r\nx\r\n--y--\r\n"
    assert (await visitor.post("/help/new", data=rubbish, headers={
        "Content-Type": "multipart/form-data; boundary=y"})).status == 400  # fmt: skip
    assert (await visitor.post("/help/new", {})).status == 400
    assert (await visitor.report(name="\x00\ud83d"[:1], what="\x00a")).status == 422


# Other people's tickets


async def test_a_link_opens_its_ticket_and_no_other(
    site: HelpSite, visitor: Visitor, desk: Desk
) -> None:
    mine, other = await desk.call(AT_GZ), await desk.call(AT_SZ)
    token = (await site.link(mine)).removeprefix("/help/t/")
    key = await site.help.door.key()
    until = desk.clock.now() + timedelta(days=1)
    forged = [
        token.replace(mine, other),
        token[:-1] + ("a" if token[-1] != "a" else "b"),
        mine, f"{mine}.aaaaaaaaaaaaaaaa",
        signing.sign(key, Purpose.REPLY, mine),  # of another purpose
        signing.sign_until(key, Purpose.SENT, f"{mine}-o", until),
        signing.sign_until(key, Purpose.TICKET, mine, desk.clock.now() - hours(2)),
    ]  # fmt: skip
    assert (await visitor.get(f"/help/t/{token}")).status == 200
    for each in forged:
        for path in ("", "/progress", "/files/1"):
            assert (await visitor.get(f"/help/t/{each}{path}")).status == 404, each
        for act in ("confirm", "rate", "call-back", "remote", "reply"):
            page = await visitor.post(f"/help/t/{each}/{act}", {"form": "0" * 32})
            assert page.status == 404, (each, act)
    assert await desk.state(other) is State.NEW


async def test_a_link_expires(site: HelpSite, visitor: Visitor, desk: Desk) -> None:
    link = await site.link(await desk.call(AT_GZ))
    desk.clock.advance(timedelta(days=29))
    assert (await visitor.get(link)).status == 200
    desk.clock.advance(timedelta(days=1, hours=1))
    page = await visitor.get(link)
    assert page.status == 404
    assert "用验证码登录" in page.words


async def test_without_a_code_nothing_is_shown_by_number(visitor: Visitor, desk: Desk) -> None:
    ticket = await desk.call(AT_GZ)
    for path in ("", "/progress", "/files/1"):
        assert (await visitor.get(f"/help/my/{ticket}{path}")).url == "/help/my"
    assert (await visitor.post(f"/help/my/{ticket}/remote", {"form": "0" * 32})).url == "/help/my"
    assert await desk.journal(ticket, "remote.asked") == []


async def test_a_cookie_of_ones_own_making_is_worth_nothing(visitor: Visitor, desk: Desk) -> None:
    ticket = await desk.call(AT_GZ)
    for value in ("", "x", "1", "' OR 1=1 --", "\u00e9"):
        page = await visitor.get(f"/help/my/{ticket}", headers={
            "Cookie": f"{PORTAL_COOKIE}={value}".encode().decode("latin-1")})  # fmt: skip
        assert page.url == "/help/my"


async def test_a_session_is_new_after_each_code_and_for_the_portal_only(
    site: HelpSite, visitor: Visitor, desk: Desk
) -> None:
    await desk.call(AT_GZ)
    asked = await visitor.post("/help/my", {"address": AT_GZ})
    await desk.drain()
    planted = {"Cookie": f"{PORTAL_COOKIE}=planted"}
    page = await visitor.post(asked.url, {"code": site.code()}, headers=planted,
                              allow_redirects=False)  # fmt: skip
    cookie = page.headers["Set-Cookie"]
    assert "planted" not in cookie
    for part in ("HttpOnly", "SameSite=Lax", "Path=/help"):
        assert part in cookie


@pytest.mark.parametrize(
    "headers",
    [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
     {"Origin": "https://evil.example"}, {}],
)  # fmt: skip
async def test_another_site_cannot_make_a_browser_act(
    site: HelpSite, visitor: Visitor, desk: Desk, headers: dict[str, str]
) -> None:
    ticket = await desk.call(AT_GZ)
    await site.sign_in(visitor, AT_GZ)
    visitor.headers = {"Accept": "text/html", **headers}
    page = await visitor.post(f"/help/my/{ticket}/remote", {"form": "0" * 32})
    assert page.status == 403
    assert await desk.journal(ticket, "remote.asked") == []


# Codes


async def test_a_code_is_not_found_by_trying(site: HelpSite, visitor: Visitor, desk: Desk) -> None:
    await desk.call(AT_GZ)
    asked = await visitor.post("/help/my", {"address": AT_GZ})
    await desk.drain()
    right = site.code()
    wrong = [f"{(int(right) + step) % 10**6:06}" for step in range(1, 6)]
    pages = [await visitor.post(asked.url, {"code": code}) for code in wrong]
    assert {page.status for page in pages} == {422}
    sixth = await visitor.post(asked.url, {"code": right})
    assert sixth.status == 422
    assert sixth.words == pages[0].words
    assert (await visitor.get("/help/my")).words.count("获取验证码") == 1


async def test_tries_at_many_challenges_are_counted_together(desk: Desk, tmp_path: Path) -> None:
    async with running_help(desk, tmp_path, codes_per_client=6) as site, site.visitor() as visitor:
        statuses = [
            (await visitor.post(f"/help/code/{place:032x}", {"code": "123456"})).status
            for place in range(8)
        ]
    assert statuses == [422] * 6 + [429] * 2


async def test_whether_somebody_is_known_cannot_be_told(
    site: HelpSite, visitor: Visitor, desk: Desk
) -> None:
    await desk.call(AT_GZ)
    known = await visitor.post("/help/my", {"address": AT_GZ})
    unknown = await visitor.post("/help/my", {"address": STRANGER})
    assert known.words == unknown.words
    assert known.status == unknown.status
    assert {*known.headers} == {*unknown.headers}
    assert len(known.url) == len(unknown.url)
    # Until somebody is told, exactly the same is stored of both.
    async with desk.database.reading() as connection:
        kinds = (await connection.execute(select(outbox.c.kind))).scalars().all()
        rows = (await connection.execute(select(portal_codes.c.tries))).scalars().all()
    assert kinds.count("CodeDue") == 2
    assert rows == [0, 0]
    wrong = [await visitor.post(page.url, {"code": "000000"}) for page in (known, unknown)]
    assert wrong[0].words == wrong[1].words


async def test_asking_takes_as_long_for_somebody_whom_nobody_knows(
    desk: Desk, tmp_path: Path
) -> None:
    await desk.call(AT_GZ)
    most = {"codes_per_person": 1000, "codes_per_client": 1000}
    async with running_help(desk, tmp_path, **most) as site, site.visitor() as visitor:
        lasted: dict[str, list[float]] = {AT_GZ: [], STRANGER: []}
        for _ in range(25):
            for address, times in lasted.items():
                began = time.perf_counter()
                await visitor.post("/help/my", {"address": address}, allow_redirects=False)
                times.append(time.perf_counter() - began)
    known, unknown = (statistics.median(times) for times in lasted.values())
    assert abs(known - unknown) < 0.5 * max(known, unknown)


async def test_nobody_is_flooded_with_codes(site: HelpSite, visitor: Visitor, desk: Desk) -> None:
    await desk.call(AT_GZ)
    pages = []
    for form in (AT_GZ, "+86 139 2222 3333", "0086-13922223333", AT_GZ, AT_GZ, AT_GZ):
        pages.append(await visitor.post("/help/my", {"address": form}))
        await desk.drain()
    assert [page.status for page in pages] == [200] * 5 + [429]
    assert "400-800-1234" in pages[-1].words
    assert len(site.codes()) == 5
    desk.restart()
    assert (await visitor.post("/help/my", {"address": AT_GZ})).status == 429
    desk.clock.advance(hours(1))
    assert (await visitor.post("/help/my", {"address": AT_GZ})).status == 200


# Limits


async def test_reports_are_limited_by_person_and_by_client_and_nothing_is_lost(
    desk: Desk, tmp_path: Path
) -> None:
    limits = {"reports_per_person": 2, "reports_per_client": 4}
    async with running_help(desk, tmp_path, **limits) as site, site.visitor() as visitor:
        pages = [await visitor.report(what=f"第{place}次") for place in range(3)]
        assert [page.status for page in pages] == [200, 200, 429]
        assert "第2次" in pages[-1].html
        assert "400-800-1234" in pages[-1].words
        others = [await visitor.report(phone=f"1391234000{place}") for place in range(2)]
        assert [page.status for page in others] == [200, 429]


@pytest.mark.parametrize(
    ("header", "sent", "limited"),
    [("", [{"X-Forwarded-For": f"10.0.0.{n}"} for n in range(3)], True),
     ("X-Forwarded-For", [{"X-Forwarded-For": f"10.0.0.{n}"} for n in range(3)], False),
     ("X-Forwarded-For", [{"X-Forwarded-For": f"9.9.9.{n}, 10.0.0.1"} for n in range(3)], True),
     ("X-Forwarded-For", [{"X-Forwarded-For": f"2001:db8::{n}"} for n in range(3)], True)],
)  # fmt: skip
async def test_a_client_is_told_apart_by_what_only_our_proxy_can_say(
    desk: Desk, tmp_path: Path, header: str, sent: list[dict[str, str]], limited: bool
) -> None:
    options = {"client_header": header, "codes_per_client": 2}
    async with running_help(desk, tmp_path, **options) as site, site.visitor() as visitor:
        pages = [
            await visitor.post("/help/my", {"address": f"n{place}@x.cn"}, headers=headers)
            for place, headers in enumerate(sent)
        ]
    assert (pages[-1].status == 429) is limited


# Files

_MB = 1 << 20


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.html", b"<!DOCTYPE html><script>alert(1)</script>"),
     ("a.png", b"  \n<html><body onload=alert(1)>"),
     ("a.svg", b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>'),
     ("a.txt", b"\xef\xbb\xbf<?xml version='1.0'?><svg/>"),
     ("a.txt", "\ufeff<svg onload=alert(1)>".encode("utf-16")),
     ("a.exe", b"MZ\x90\x00\x03\x00\x00\x00"), ("a.bin", bytes(range(256))), ("a.png", b"")],
)  # fmt: skip
async def test_what_a_browser_or_a_desk_could_run_is_refused(
    visitor: Visitor, desk: Desk, name: str, content: bytes
) -> None:
    form = (await visitor.get("/help/new")).form
    status, told = await visitor.upload(form, name, content)
    assert status == 422
    assert told["error"]
    page = await visitor.report((name, content), form=form)
    assert page.status == 422
    assert page.kept == []
    assert 'value="GZ-PR-017"' in page.html
    assert await desk.contacts() == []


@pytest.mark.parametrize(
    ("given", "content", "shown"),
    [("../../etc/passwd", b"root", "passwd.txt"), ("C:\\x\\a.png", PNG, "a.png"),
     ("x.html", b"words", "x.html.txt"), ("x.html", PNG, "x.html.png"),
     ("evil\u202egnp.exe", PNG, "evil gnp.exe.png"), ("", PNG, "file.png"),
     ("....", PNG, "file.png"),
     ("a" * 400 + ".PNG", PNG, "a" * 120 + ".png"), ("<b>.png", PNG, "_b_.png"),
     ("x.docx", b"PK\x03\x04rest", "x.docx"), ("x.exe", b"PK\x03\x04rest", "x.exe.zip")],
)  # fmt: skip
def test_a_name_is_made_safe_and_says_what_the_file_is(
    given: str, content: bytes, shown: str
) -> None:
    kind = kind_of(content)
    assert kind is not None
    assert name_for(given, kind) == shown


def test_text_is_known_in_the_encodings_that_windows_writes() -> None:
    for encoding in ("utf-8", "utf-8-sig", "gb18030", "utf-16"):
        head = ("错误代码 0x80070005，拒绝访问。" * 400).encode(encoding)[:4095]
        kind = kind_of(head)
        assert kind is not None
        assert kind.media_type == "text/plain"


async def test_a_polyglot_is_a_picture_and_nothing_else(visitor: Visitor, desk: Desk) -> None:
    page = await visitor.report(("a.gif", b"GIF89a/*<script>alert(1)</script>*/=1"))
    link = link_of(page)
    path = re.findall(rf'href="({re.escape(link)}/files/\d+)"', (await visitor.get(link)).html)[0]
    file = await visitor.get(path)
    assert file.headers["Content-Type"] == "image/gif"
    assert file.headers["Content-Security-Policy"] == "sandbox; default-src 'none'"
    assert file.headers["X-Content-Type-Options"] == "nosniff"


async def test_files_larger_than_allowed_are_refused_with_the_words_kept(
    desk: Desk, site: HelpSite, visitor: Visitor
) -> None:
    large = PNG + b"\0" * (25 * _MB)
    form = (await visitor.get("/help/new")).form
    status, told = await visitor.upload(form, "a.png", BytesIO(large))
    assert (status, told["error"]) == (422, "所有文件合计不能超过 20 MB。")
    page = await visitor.report(("a.png", large), ("b.png", PNG), form=form)
    assert page.status == 422
    assert page.kept == ["b.png"]
    assert "打印机卡纸" in page.html
    assert sum(each.stat().st_size for each in site.blobs.rglob("*") if each.is_file()) < _MB


async def test_what_is_far_too_long_is_not_even_read(visitor: Visitor) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield PNG
        for _ in range(200):
            yield b"\0" * _MB

    form = (await visitor.get("/help/new")).form
    try:
        status, _ = await visitor.upload(form, "a.png", endless())
    except (OSError, asyncio.IncompleteReadError, Exception) as error:
        assert "Disconnected" in type(error).__name__ or "Connection" in str(error)  # noqa: PT017
    else:
        assert status == 413


async def test_all_files_of_a_form_together_have_a_limit(desk: Desk, tmp_path: Path) -> None:
    options = {"max_upload_bytes": 100_000, "max_files": 3}
    async with running_help(desk, tmp_path, **options) as site, site.visitor() as visitor:
        form = (await visitor.get("/help/new")).form
        sizes = [await visitor.upload(form, "a.png", PNG + bytes([n]) * 40_000) for n in range(3)]
        assert [status for status, _ in sizes] == [201, 201, 422]
        other = (await visitor.get("/help/new")).form
        many = await asyncio.gather(
            *(visitor.upload(other, "a.png", PNG + bytes([n])) for n in range(4))
        )
        assert sorted(status for status, _ in many) == [201, 201, 201, 422]


async def test_a_hundred_files_are_no_hundred_attachments(visitor: Visitor, desk: Desk) -> None:
    files = [(f"{place}.png", PNG + bytes([place])) for place in range(100)]
    page = await visitor.report(*files)
    assert page.status == 422
    assert len(page.kept) == 10
    assert "最多可添加 10 个文件" in page.words
    assert await desk.contacts() == []


async def test_one_client_cannot_fill_the_disk(desk: Desk, tmp_path: Path) -> None:
    most = {"max_upload_bytes": 1 << 16}
    async with running_help(desk, tmp_path, **most) as site, site.visitor() as visitor:
        statuses = []
        for place in range(20):
            content = PNG + bytes([place]) * 60_000
            statuses.append((await visitor.upload(f"{place:032x}", "a.png", content))[0])
    assert statuses[:16] == [201] * 16
    assert set(statuses[17:]) == {422}


async def test_a_slow_upload_is_cut_and_holds_nobody_up(
    site: HelpSite, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portalforms, "STALL_S", 0.2)
    stopped = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield PNG
        await stopped.wait()
        yield b""

    form = (await visitor.get("/help/new")).form
    uploads = [asyncio.ensure_future(_tried(visitor, form, slow())) for _ in range(4)]
    await asyncio.sleep(0.1)
    assert (await visitor.get("/help")).status == 200
    fifth = await _tried(visitor, form, PNG)  # of the same client: all its places are taken
    assert fifth == 503
    found = await asyncio.gather(*uploads)
    assert set(found) <= {408, 0}
    stopped.set()
    assert await _tried(visitor, form, PNG) == 201
    assert not [each for each in site.blobs.glob("tmp*") if each.is_file()]


async def _tried(visitor: Visitor, form: str, content: Any) -> int:
    try:
        return (await visitor.upload(form, "a.png", content))[0]
    except (aiohttp.ClientError, OSError):  # the connection was closed on us
        return 0


async def test_a_full_disk_is_said_and_the_report_goes_without_files(
    site: HelpSite, visitor: Visitor, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: Any, **__: Any) -> None:
        raise TemporaryFailure("cannot keep a file: No space left on device")

    monkeypatch.setattr(type(site.help.blobs), "put_stream", full)
    page = await visitor.report(("a.png", PNG))
    assert page.status == 422
    assert "请先不带文件提交" in page.words
    assert (await visitor.report(form=page.form)).url.startswith("/help/sent/")


async def test_files_of_another_form_cannot_be_taken(visitor: Visitor, desk: Desk) -> None:
    mine, other = [(await visitor.get("/help/new")).form for _ in range(2)]
    _, told = await visitor.upload(mine, "a.png", PNG)
    await visitor.post(f"/help/files/{told['id']}/drop?form={other}")
    page = await visitor.report(form=other, file=told["id"])
    number = re.findall(r'class="number num">(\d+)<', page.html)[0]
    detail = await Views(desk.database, desk.clock).ticket(number)
    assert detail.contacts[0].attachments == ()
    assert (await visitor.report(form=mine, name="")).kept == ["a.png"]
