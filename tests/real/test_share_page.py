"""The share page in Chromium over the real broker: what the user sees, says, and ends."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.async_api import Browser, BrowserContext, Page, Route, expect

from contactd.httpd import SHARE_COOKIE
from contactd.store.engine import Database
from contactd.tickets.journal import REQUESTER
from contactd.tickets.remote import Ending, Mode, State
from tests.fakes.clock import FakeClock
from tests.fakes.desk import Desk
from tests.fakes.remote import Helping
from tests.fakes.remote_desk import Guest, agreed, invited
from tests.fakes.share import live_share
from tests.real.test_accessibility import MOST_BYTES, WEIGHT, found_by_axe
from tests.real.test_status_page import chromium

__all__ = ["chromium"]  # the fixture

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]

# In place of `media.js`: the page says to it what it would share, and when it ends.
FAKE_MEDIA: Final = """
export function sharer() {
  window.said = [];
  return {
    open: (leg) => window.said.push(`open ${leg}`),
    close: (leg) => window.said.push(`close ${leg}`),
    signal: () => {}, end: () => window.said.push("end"),
  };
}
export function viewer() { return { signal: () => {}, end: () => {} }; }
"""
PICKED: Final = """
navigator.mediaDevices.getDisplayMedia = async () => {
  const canvas = document.createElement("canvas");
  canvas.getContext("2d").fillRect(0, 0, 9, 9);
  return canvas.captureStream(5);
};
"""
CANCELLED: Final = """
navigator.mediaDevices.getDisplayMedia = async () => {
  throw new DOMException("", "NotAllowedError");
};
"""


@pytest.fixture
async def here(sqlite_url: str, clock: FakeClock, tmp_path: Path) -> AsyncIterator[Helping]:
    database = Database(sqlite_url, clock=clock)
    async with database.running():
        desk = Desk(database, clock)
        await desk.load()
        async with live_share(desk, tmp_path) as running:
            yield running


@asynccontextmanager
async def browsing(
    chromium: Browser, here: Helping, guest: Guest | None = None, **options: Any
) -> AsyncIterator[tuple[BrowserContext, Page]]:
    """Open a browser, that of who agreed if there is one; no page of it may report an error."""
    settings = {"locale": "zh-CN", "base_url": here.site.url} | options
    context = await chromium.new_context(**settings)
    if guest is not None:
        cookie = {"name": SHARE_COOKIE, "value": guest.secret, "url": here.site.url}
        await context.add_cookies([cookie])  # type: ignore[list-item]
    page = await context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda each: errors.append(each.text) if "Policy" in each.text else None)
    yield context, page
    await context.close()
    assert errors == []


async def fake_media(page: Page, capture: str) -> None:
    async def fulfil(route: Route) -> None:
        await route.fulfill(body=FAKE_MEDIA, content_type="text/javascript")

    await page.route("**/static/media.js*", fulfil)
    await page.add_init_script(capture)


async def test_the_link_leads_to_a_page_that_follows_the_session_and_ends_it(
    chromium: Browser, here: Helping
) -> None:
    invitation = await invited(here.desk)
    async with browsing(chromium, here) as (_, page):
        await page.goto(f"/s/{invitation.code}")
        await expect(page.get_by_text("现在没有人能看到您的屏幕")).to_be_visible()
        await page.get_by_role("button", name="同意：工程师可以操作鼠标和键盘").click()
        await expect(page).to_have_url(f"{here.site.url}/s/session")
        assert invitation.code not in await page.content()
        await here.desk.remote.claim(invitation.session, user="wang", engineer="王伟")
        engineer = await here.engineer(invitation.session, "wang", "王伟")
        await engineer.say("chat", text="您好，我是王伟")
        await expect(page.locator("#log")).to_contain_text("您好，我是王伟")
        await page.get_by_label("给工程师留言").fill("在二楼")
        await page.get_by_label("给工程师留言").press("Enter")
        await engineer.told("chat", text="在二楼", who=REQUESTER)
        await expect(page.locator("#log")).to_contain_text("在二楼")
        guest = Guest(session=invitation.session, ticket="", code="", secret="")
        helper = await here.helper(guest, agrees=True)
        await expect(page.locator("#stands")).to_contain_text("有人正在看您的屏幕")
        await expect(page.locator("#steps")).to_be_hidden()
        await page.get_by_role("button", name="停止").click()
        await expect(page.locator("#stands")).to_contain_text("远程协助已结束")
        assert await engineer.closed() == 4001
        await helper.socket.close()
    session = await here.desk.remote.session(invitation.session)
    assert session is not None
    assert (session.state, session.ending) == (State.ENDED, Ending.STOPPED)


async def test_without_javascript_the_user_agrees_downloads_and_stops(
    chromium: Browser, here: Helping
) -> None:
    invitation = await invited(here.desk)
    async with browsing(chromium, here, java_script_enabled=False) as (_, page):
        await page.goto("/s")
        await page.locator("#code").fill(invitation.code)
        await page.get_by_role("button", name="继续").click()
        await page.get_by_role("button", name="同意：工程师可以操作鼠标和键盘").click()
        async with page.expect_download() as download:
            await page.get_by_role("link", name="保存程序").click()
        file = await (await download.value).path()
        assert json.loads(file.read_bytes())["key"]
        await page.get_by_label("给工程师留言").fill("没有脚本")
        await page.get_by_role("button", name="发送").click()
        await expect(page.locator("#log")).to_contain_text("没有脚本")
        await page.get_by_role("button", name="停止").click()
        await expect(page.locator("#stands")).to_contain_text("远程协助已结束")


async def test_in_the_bare_browser_the_user_is_asked_by_name_chooses_and_only_then_is_seen(
    chromium: Browser, here: Helping
) -> None:
    guest = await agreed(here.desk, Mode.VIEW)
    async with browsing(chromium, here, guest) as (_, page):
        await fake_media(page, PICKED)
        await page.goto("/s/session")
        await here.desk.remote.claim(guest.session, user="wang", engineer="王<b>伟")
        engineer = await here.engineer(guest.session, "wang", "王<b>伟")
        await expect(page.locator("#ask-text")).to_contain_text("允许王<b>伟查看您的屏幕吗")
        session = await here.desk.remote.session(guest.session)
        assert session is not None
        assert session.legs == ()
        await page.get_by_role("button", name="同意，并选择共享内容").click()
        await engineer.state("active")
        await expect(page.locator("#ask")).to_be_hidden()
        await expect(page.locator("#screen")).to_contain_text("工程师看到的画面")
        await page.wait_for_function("window.said && window.said.includes('open 1')")
        await page.get_by_role("button", name="不再共享").click()
        assert await engineer.closed() == 4001
        await expect(page.locator("#stands")).to_contain_text("远程协助已结束")
        await page.wait_for_function("window.said.includes('end')")


@pytest.mark.parametrize("how", ["button", "escape"])
async def test_a_no_to_the_engineer_is_a_no_and_nothing_is_chosen(
    chromium: Browser, here: Helping, how: str
) -> None:
    guest = await agreed(here.desk, Mode.VIEW)
    async with browsing(chromium, here, guest) as (_, page):
        await fake_media(page, CANCELLED)
        await page.goto("/s/session")
        await here.desk.remote.claim(guest.session, user="wang", engineer="王伟")
        engineer = await here.engineer(guest.session, "wang", "王伟")
        await page.get_by_role("button", name="同意，并选择共享内容").click()
        await expect(page.locator("#ask-fault")).to_contain_text("没有选择共享内容")
        if how == "button":
            await page.get_by_role("button", name="不同意").click()
        else:
            await page.keyboard.press("Escape")
        await engineer.told("answered", yes=False)
        session = await here.desk.remote.session(guest.session)
        assert session is not None
        assert session.legs == ()


@pytest.mark.parametrize("language", ["zh-CN", "en"])
@pytest.mark.parametrize("width", [1440, 360])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_pages_have_no_serious_fault_and_fit(
    chromium: Browser, here: Helping, width: int, language: str, scheme: str
) -> None:
    guest = await agreed(here.desk)
    await here.desk.remote.say(guest.session, "user:wang", "https://example.cn/" + "x" * 200)
    blob = await here.blobs.put_bytes(b"x", media_type="x/y", name="y" * 150 + ".zip")
    await here.desk.remote.offer_file(guest.session, sender="user:wang", blob=blob)
    code = (await invited(here.desk, await here.desk.call("13922224444"))).code
    options = {
        "viewport": {"width": width, "height": 800}, "locale": language, "color_scheme": scheme,
    }  # fmt: skip
    async with browsing(chromium, here, guest, **options) as (_, page):
        for path in (f"/s/{code}", "/s/session"):
            await page.goto(path)
            assert await page.evaluate("document.documentElement.scrollWidth") == width
            assert await page.evaluate(WEIGHT) < MOST_BYTES
            assert await found_by_axe(page) == []
