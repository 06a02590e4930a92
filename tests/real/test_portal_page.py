"""The portal in headless Chromium, on a phone: from a pasted screenshot to a confirmed solution."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, FilePayload, Page, expect

from contactd.store.engine import Database
from contactd.store.views import Views
from contactd.tickets.states import Action, State
from tests.fakes.clock import FakeClock
from tests.fakes.desk import Desk
from tests.fakes.portal import PNG, HelpSite, running_help
from tests.real.test_status_page import TOO_FAINT, chromium, opened

__all__ = ["chromium"]  # the fixture

pytestmark = pytest.mark.real

# What Ctrl+V does with a screenshot in the clipboard.
PASTE = """(bytes) => {
  const data = new DataTransfer();
  data.items.add(new File([new Uint8Array(bytes)], "image.png", { type: "image/png" }));
  document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true }));
}"""
# The page asks every 15 s; nobody waits so long here.
ASK_NOW = """() => htmx.ajax("GET", document.querySelector("#progress").getAttribute("hx-get"),
  { target: "#progress", swap: "outerHTML" })"""
WIDER = """() => [...document.querySelectorAll("main *")]
  .filter((e) => e.checkVisibility() && !e.closest(".unseen"))
  .filter((e) => e.getBoundingClientRect().right > innerWidth + 1)
  .map((e) => `${e.tagName}.${e.className}`)"""


@pytest.fixture
async def desk(sqlite_url: str, clock: FakeClock) -> AsyncIterator[Desk]:
    database = Database(sqlite_url, clock=clock)
    async with database.running():
        desk = Desk(database, clock)
        await desk.load()
        yield desk


@pytest.fixture
async def site(desk: Desk, tmp_path: Path) -> AsyncIterator[HelpSite]:
    async with running_help(desk, tmp_path) as running:
        yield running


async def fill_in(page: Page) -> None:
    await page.get_by_label("发生了什么问题？").fill("打印机卡纸，打不出来")
    await page.get_by_label("您的姓名").fill("张三")
    await page.get_by_label("手机或电话").fill("13922223333")
    await page.get_by_label("网点").select_option("gz")


async def test_a_report_with_a_pasted_screenshot_is_followed_and_confirmed(
    chromium: Browser, site: HelpSite, desk: Desk
) -> None:
    async with opened(chromium, f"{site.url}/help", width=360, height=780) as page:
        await page.get_by_role("link", name="我要报修").click()
        await fill_in(page)
        await page.evaluate(PASTE, list(PNG))
        await expect(page.locator("[data-files] li.done")).to_contain_text("image.png")
        await page.get_by_label("只有我").press("ArrowDown")
        await page.locator("p.send button").dblclick()  # as people do
        await expect(page.get_by_role("heading", name="谢谢")).to_be_visible()
        ticket = (await page.locator(".number").inner_text()).strip()
        detail = await Views(desk.database, desk.clock).ticket(ticket)
        assert [file.name for each in detail.contacts for file in each.attachments] == ["image.png"]
        await desk.drain()
        await page.get_by_role("link", name="查看进度").click()
        await expect(page.locator("#stands ~ .text")).to_have_text(
            "您的报修已受理，正在通知工程师。"
        )
        await expect(page.locator(".shared img")).to_be_visible()
        await expect(page.locator(".shared img")).to_have_js_property("naturalWidth", 1)
        await page.get_by_label("您的留言").fill("还没写完")
        await desk.press("wang", "1")
        await page.evaluate(ASK_NOW)
        await expect(page.locator(".line li").first).to_contain_text("wang已接手")
        await expect(page.get_by_label("您的留言")).to_have_value("还没写完")
        resolve = desk.tickets.act(ticket, Action.RESOLVE, actor="engineer:wang")
        await desk.when(resolve)
        await page.evaluate(ASK_NOW)
        await page.get_by_role("button", name="已解决").click()
        await expect(page.get_by_role("status")).to_have_text("谢谢您的确认。")
        assert await page.evaluate(WIDER) == []
    assert await desk.state(ticket) is State.CLOSED


async def test_words_and_files_outlive_a_reload_and_a_mistake(
    chromium: Browser, site: HelpSite, desk: Desk
) -> None:
    async with opened(chromium, f"{site.url}/help/new", width=360, height=780) as page:
        await fill_in(page)
        await page.evaluate(PASTE, list(PNG))
        await expect(page.locator("[data-files] li.done")).to_have_count(1)
        await page.reload()
        await expect(page.get_by_label("您的姓名")).to_have_value("张三")
        await expect(page.locator("[data-files] li.done")).to_contain_text("image.png")
        await page.get_by_label("手机或电话").fill("12")
        await page.locator("p.send button").click()
        await expect(page.locator("#trouble")).to_be_focused()
        await expect(page.locator("#phone-fault")).to_be_visible()
        await expect(page.locator("[data-files] li")).to_contain_text("image.png")
        await page.get_by_label("手机或电话").fill("13922223333")
        await page.locator("p.send button").click()
        await expect(page.get_by_role("heading", name="谢谢")).to_be_visible()
        await page.goto(f"{site.url}/help/new")
        await expect(page.get_by_label("您的姓名")).to_have_value("")
    assert len(await desk.contacts()) == 1


async def test_a_file_that_is_not_taken_says_why_and_holds_nobody_up(
    chromium: Browser, site: HelpSite
) -> None:
    async with opened(chromium, f"{site.url}/help/new", width=360, height=780) as page:
        await fill_in(page)
        bad = FilePayload(name="a.html", mimeType="text/html", buffer=b"<html>")
        await page.locator("input[type=file]").first.set_input_files([bad])
        await expect(page.locator("li.failed")).to_contain_text("只能添加图片")
        await page.locator("p.send button").click()
        await expect(page.get_by_role("heading", name="谢谢")).to_be_visible()


async def test_a_report_without_javascript(chromium: Browser, site: HelpSite) -> None:
    url, options = f"{site.url}/help/new", dict[str, Any](java_script_enabled=False)
    async with opened(chromium, url, width=360, height=780, **options) as page:
        await fill_in(page)
        picture = FilePayload(name="a.png", mimeType="image/png", buffer=PNG)
        await page.locator("input[type=file]").first.set_input_files([picture])
        await page.locator("p.send button").click()
        await page.get_by_role("link", name="查看进度").click()
        await expect(page.locator(".shared img")).to_be_visible()


@pytest.mark.parametrize(
    ("width", "language", "scheme"),
    [(360, "zh-CN", "light"), (360, "en", "dark"), (1440, "zh-CN", "light")],
)
async def test_everything_fits_and_can_be_read(
    chromium: Browser, site: HelpSite, desk: Desk, width: int, language: str, scheme: str
) -> None:
    async with site.visitor() as visitor:
        sent = await visitor.report(("a.png", PNG))
    ticket = await desk.call("13922223333")
    await desk.press("wang", "1")
    options: dict[str, Any] = {"color_scheme": scheme, "locale": language, "width": width}
    paths = ("/help", "/help/new", "/help/my", sent.url, await site.link(ticket), "/help/code/x")
    async with opened(chromium, f"{site.url}/help", **options) as page:
        for path in paths:
            await page.goto(f"{site.url}{path}")
            for fold in await page.locator("summary").all():
                await fold.click()
            assert await page.evaluate("document.documentElement.scrollWidth") == width, path
            assert await page.evaluate(WIDER) == [], path
            assert await page.evaluate(TOO_FAINT) == [], path
