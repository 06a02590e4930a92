"""The ticket list in headless Chromium: it fits, keys go through it, it follows what happens."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from contactd.store.engine import Database
from contactd.tickets.contact import Medium
from contactd.tickets.model import Classification, TicketPolicy
from contactd.tickets.priority import Impact, Urgency
from contactd.tickets.service import TicketService
from contactd.web.listpage import PATH
from tests.fakes.clock import FakeClock
from tests.fakes.desk import AT_GZ, VIP
from tests.real.test_status_page import TOO_FAINT, chromium, opened
from tests.real.test_ticket_page import CUT_OFF
from tests.wire.test_list_page import AT_SZ, HOSTILE, Workbench, working

__all__ = ["chromium"]  # the fixture

pytestmark = pytest.mark.real

ADMIN: dict[str, Any] = {"extra_http_headers": {"Authorization": "Bearer cd_admin"}}


@pytest.fixture
async def bench(sqlite_url: str, clock: FakeClock) -> AsyncIterator[Workbench]:
    """A desk with seven open tickets of all kinds."""
    database = Database(sqlite_url, clock=clock)
    async with database.running():
        tickets = TicketService(database.new_work, clock, TicketPolicy())
        async with working(database, clock, tickets) as bench:
            numbers = [
                await bench.comes_in(text, sender, medium)
                for text, sender, medium in (
                    ("三楼打印机HP1020卡纸，无法打印", AT_GZ, Medium.TEXT),
                    (
                        "视频会议室网络断断续续，下午三点要开会，请尽快安排工程师过来",
                        VIP,
                        Medium.TEXT,
                    ),
                    ("OA系统登录失败", AT_SZ, Medium.TEXT),
                    ("Cannot print: error", "james.long.name@subsidiary.example.com", Medium.MAIL),
                    ("", "13800138007", Medium.CALL),
                    (HOSTILE * 3, "13800138008", Medium.TEXT),
                    ("A" * 150, "13800138009", Medium.WEB),
                )
            ]
            await tickets.classify(
                numbers[1],
                Classification(impact=Impact.COMPANY, urgency=Urgency.HIGH),
                actor="user:li",
            )
            for place, minutes in ((1, -17), (0, 25), (2, 300), (3, 3_000)):
                await bench.promises(numbers[place], timedelta(minutes=minutes))
            await bench.index.catch_up()
            yield bench


@pytest.mark.parametrize("query", ["", "q=打印", "state=open&priority=P3&site=gz", "q=没有"])
@pytest.mark.parametrize(
    ("width", "scheme", "language"),
    [(360, "light", "zh-CN"), (360, "dark", "en"), (1440, "light", "en"), (1440, "dark", "zh-CN")],
)
async def test_the_list_fits_and_can_be_read(
    chromium: Browser, bench: Workbench, tmp_path: Path,
    query: str, width: int, scheme: str, language: str,
) -> None:  # fmt: skip
    url = f"{bench.site.url}{PATH}?{query}"
    options: dict[str, Any] = {"color_scheme": scheme, "locale": language, **ADMIN}
    async with opened(chromium, url, width=width, height=800, **options) as page:
        await expect(page.locator("#rows")).to_be_visible()
        page.on("dialog", lambda _: pytest.fail("a script of a stranger ran"))
        assert await page.evaluate("document.documentElement.scrollWidth") == width
        assert [each for each in await page.evaluate(CUT_OFF) if "tabs" not in str(each)] == []
        assert await page.evaluate(TOO_FAINT) == []
        await page.screenshot(path=tmp_path / f"list-{width}-{scheme}.png", full_page=True)


async def test_keys_go_from_row_to_row_and_open_one(chromium: Browser, bench: Workbench) -> None:
    async with opened(chromium, f"{bench.site.url}{PATH}", **ADMIN) as page:
        rows = page.locator("[data-row]")
        await page.keyboard.press("j")
        await expect(rows.nth(0)).to_be_focused()
        await page.keyboard.press("j")
        await page.keyboard.press("ArrowDown")
        await expect(rows.nth(2)).to_be_focused()
        await page.keyboard.press("k")
        await expect(rows.nth(1)).to_be_focused()
        number = await rows.nth(1).inner_text()
        await page.keyboard.press("Enter")
        await page.wait_for_url(f"**/desk/tickets/{number}")


async def test_typing_into_a_field_moves_nothing(chromium: Browser, bench: Workbench) -> None:
    async with opened(chromium, f"{bench.site.url}{PATH}", **ADMIN) as page:
        field = page.locator("#seek")
        await field.focus()
        await page.keyboard.type("jk")
        await expect(field).to_be_focused()
        await expect(field).to_have_value("jk")


async def test_rows_are_fetched_anew_when_something_changed_and_the_focus_stays(
    chromium: Browser, bench: Workbench
) -> None:
    async with opened(chromium, f"{bench.site.url}{PATH}?sort=newest", **ADMIN) as page:
        rows = page.locator("[data-row]")
        await expect(rows).to_have_count(7)
        await rows.nth(0).focus()
        kept = await rows.nth(0).inner_text()
        new = await bench.comes_in("刚刚来的", "13800138010")
        await changed(page)
        await expect(rows).to_have_count(8)
        await expect(rows.nth(0)).to_have_text(new)
        await expect(page.locator(":focus")).to_have_text(kept)
        await bench.comes_in("还有一个", "13800138011")
        await changed(page)  # what was fetched listens, too
        await expect(rows).to_have_count(9)


async def test_a_filter_is_saved_and_used_without_a_script(
    chromium: Browser, bench: Workbench
) -> None:
    options: dict[str, Any] = {**ADMIN, "java_script_enabled": False, "locale": "zh-CN"}
    async with opened(chromium, f"{bench.site.url}{PATH}", **options) as page:
        await page.locator(".sieve > summary").click()
        await page.locator("[name=priority]").select_option("P1")
        await page.locator(".filters button").click()
        await expect(page.locator("[data-row]")).to_have_count(1)
        await page.locator("[name=name]").fill("最急的")
        await page.locator("button[value=save]").click()
        await expect(page.locator(".tabs [aria-current]")).to_contain_text("最急的")
        await page.locator(".tabs a").first.click()
        await expect(page.locator("[data-row]")).to_have_count(7)
        await page.locator("#seek").fill("打印")
        await page.locator("#seek").press("Enter")
        await expect(page.locator("mark").first).to_have_text("打印")


async def changed(page: Page) -> None:
    """Say what desk.js says when a ticket of the list has changed."""
    await page.evaluate("document.body.dispatchEvent(new CustomEvent('list-changed'))")
