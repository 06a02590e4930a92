"""Texts in headless Chromium: the page of them, and writing one with a preview that follows."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Route, expect

from contactd.routing.notify import Reason, SendState
from contactd.store.engine import Database
from contactd.web.textpage import PATH
from contactd.web.ticketpage import PATH as TICKETS
from tests.fakes.clock import FakeClock
from tests.real.test_status_page import TOO_FAINT, chromium, opened
from tests.real.test_ticket_page import CUT_OFF, log_in
from tests.wire.test_text_page import HOSTILE, Reader, Setup, reading

__all__ = ["chromium"]  # the fixture

pytestmark = pytest.mark.real


@pytest.fixture
async def reader(sqlite_url: str, clock: FakeClock) -> AsyncIterator[Reader]:
    database = Database(sqlite_url, clock=clock)
    async with database.running(), reading(database, clock, Setup()) as reader:
        yield reader


@pytest.fixture
async def ticket(reader: Reader) -> str:
    """A ticket with texts of every fate."""
    ticket = await reader.comes_in("三楼会议室无法上网，打印机也连不上。\n我们下午三点要开会。")
    await reader.goes_out(
        ticket, reason=Reason.RECEIVED, segments=2, delivery="delivered",
        body=f"【服务台】工单{ticket}（广州珠江新城）已受理，我们会尽快联系您。回复“进度”查询进度，回复“退订”不再接收。",
    )  # fmt: skip
    await reader.goes_out(
        ticket, recipient="wang", reason=Reason.NEW, number="+8613800000001", gateway="smpp",
        body=f"新工单{ticket}，广州珠江新城，三楼会议室无法上网。回复1接单，2转给他人，4已出发。",
        delivery="sent",
    )  # fmt: skip
    await reader.goes_out(ticket, reason=Reason.CODE, body="到场验证码 4711", gateway="aliyun")
    await reader.goes_out(
        ticket, recipient="floor", reason=Reason.MISSED, number="+8613800000090",
        body="Ticket: nobody has it yet.", delivery="failed", error="30006",
        state=SendState.FAILED,
    )  # fmt: skip
    await reader.comes_in("Could you send somebody before three? " * 4, sender="+4915112345678")
    await reader.comes_in(HOSTILE, sender="106912345678901234567890")
    return ticket


@pytest.mark.parametrize("path", [PATH, TICKETS])
@pytest.mark.parametrize(
    ("width", "height", "scheme", "language"),
    [
        (360, 780, "light", "zh-CN"), (360, 780, "dark", "en"), (768, 1024, "light", "en"),
        (1440, 900, "light", "zh-CN"), (1440, 900, "dark", "en"), (1920, 1080, "light", "en"),
    ],
)  # fmt: skip
async def test_everything_fits_from_a_phone_to_a_large_screen(
    chromium: Browser, reader: Reader, ticket: str, tmp_path: Path,
    width: int, height: int, scheme: str, language: str, path: str,
) -> None:  # fmt: skip
    url = f"{reader.site.url}{path}" + (f"/{ticket}" if path == TICKETS else "")
    said: list[str] = []
    options: dict[str, Any] = {"color_scheme": scheme, "locale": language}
    async with opened(chromium, url, width=width, height=height, **options) as page:
        page.on("console", lambda message: said.append(f"{message.text} {message.location}"))
        page.on("dialog", lambda _: pytest.fail("a script of a stranger ran"))
        await log_in(page)
        if path == TICKETS:
            await page.locator("#words").fill("配件明天上午十点到，工程师届时带去。" * 5)
            await expect(page.locator(".bubble")).to_be_visible()
        await expect(page.locator("main")).to_be_visible()
        assert await page.evaluate("document.documentElement.scrollWidth") == width
        assert await page.evaluate(CUT_OFF) == []
        assert await page.evaluate(TOO_FAINT) == []
        name = f"texts{path.replace('/', '-')}-{width}-{scheme}-{language}.png"
        await page.screenshot(path=tmp_path / name, full_page=True)
    # The shell of the workbench asks for what is live, which is not there without the daemon.
    assert [each for each in said if "/desk/live" not in each] == []


async def test_the_preview_follows_what_is_written_and_the_text_is_sent_once(
    chromium: Browser, reader: Reader, ticket: str
) -> None:
    async with opened(chromium, f"{reader.site.url}{TICKETS}/{ticket}") as page:
        await log_in(page)
        await page.locator("#words").press_sequentially("配件明天到")
        await expect(page.locator(".bubble")).to_contain_text(f"【服务台】工单{ticket}：配件明天到")
        await expect(page.locator(".segments")).to_have_text("1")
        await expect(page.locator(".cost")).to_have_text("¥0.045")
        await page.locator("#words").press_sequentially("，" + "请在办公室等候，" * 8)
        await expect(page.locator(".segments")).to_have_text("2")
        await expect(page.locator(".cost")).to_have_text("¥0.09")
        await page.get_by_role("button", name="发送").dblclick()
        await expect(page.locator(".remark.good")).to_contain_text("短信已提交发送")
        await expect(page.locator("#words")).to_have_value("")
    ((number, actor, words),) = reader.writing.written.values()
    assert (number, actor) == (ticket, "user:li")
    assert words.startswith("配件明天到，请在办公室等候")


async def test_words_written_before_the_scripts_came_or_kept_by_the_browser_have_a_preview(
    chromium: Browser, reader: Reader, ticket: str
) -> None:
    scripts_come = asyncio.Event()

    async def late(route: Route) -> None:
        await scripts_come.wait()
        await route.continue_()

    async with opened(chromium, f"{reader.site.url}/login") as page:
        await log_in(page)
        await expect(page.locator("main")).to_be_visible()
        await page.route("**/vendor/htmx.js*", late)
        await page.goto(f"{reader.site.url}{TICKETS}/{ticket}", wait_until="commit")
        await page.locator("#words").fill("配件明天到")
        assert await page.locator(".bubble").count() == 0
        scripts_come.set()
        await expect(page.locator(".bubble")).to_contain_text("配件明天到")
        await page.locator("#words").press_sequentially("，请等候")
        await expect(page.locator(".bubble")).to_contain_text("配件明天到，请等候")
        await page.reload()
        await expect(page.locator("#words")).to_have_value("配件明天到，请等候")
        await expect(page.locator(".bubble")).to_contain_text("配件明天到，请等候")


async def test_without_scripts_there_is_a_step_before_it_is_sent(
    chromium: Browser, reader: Reader, ticket: str
) -> None:
    url = f"{reader.site.url}{TICKETS}/{ticket}"
    async with opened(chromium, url, java_script_enabled=False) as page:
        await log_in(page)
        await expect(page.get_by_role("button", name="发送")).to_have_count(0)
        await page.locator("#words").fill("配件明天到\n第二行")
        await page.get_by_role("button", name="预览").click()
        await expect(page.locator(".bubble")).to_contain_text("配件明天到")
        assert reader.writing.written == {}
        await page.get_by_role("button", name="发送").click()
        await expect(page.locator(".remark.good")).to_be_visible()
    ((_, _, words),) = reader.writing.written.values()
    assert words == "配件明天到\n第二行"


async def test_the_page_of_texts_leads_to_tickets_and_is_one_click_away(
    chromium: Browser, reader: Reader, ticket: str
) -> None:
    async with opened(chromium, f"{reader.site.url}/login") as page:
        await log_in(page)
        await page.get_by_role("link", name="短信", exact=True).click()
        await expect(page.locator("#out")).to_be_visible()
        await page.get_by_role("link", name=ticket).first.click()
        await expect(page.locator("#told")).to_be_visible()
