"""The status page in headless Chromium: what people see, on a wallboard and on a phone."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from contactd.lab.ports import free_port
from contactd.signals import Topic
from contactd.web.board import CallStage
from tests.fakes.board import HOSTILE_NAME, FakeBoard, call, quiet
from tests.fakes.site import Site, running_site

pytestmark = pytest.mark.real

CHROMIUM: Final = Path("/usr/bin/chromium")
# As root in a container: no sandbox of its own, no GPU, a small /dev/shm.
FLAGS: Final = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")


@pytest.fixture
async def chromium() -> AsyncIterator[Browser]:
    if not CHROMIUM.exists():
        pytest.fail(f"{CHROMIUM} is missing: apt-get install chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS])
        yield browser
        await browser.close()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with running_site() as running:
        yield running


@asynccontextmanager
async def opened(
    chromium: Browser, url: str, *, width: int = 1440, height: int = 900, **options: Any
) -> AsyncIterator[Page]:
    """Open `url`; at the end there must have been no error on the page, nor a refusal by CSP."""
    context = await chromium.new_context(
        viewport={"width": width, "height": height}, **{"locale": "zh-CN"} | options
    )
    page = await context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on(
        "console",
        lambda message: (
            errors.append(message.text) if "Content Security Policy" in message.text else None
        ),
    )
    await page.goto(url)
    yield page
    await context.close()
    assert errors == []


async def test_a_call_appears_ticks_and_goes_without_reload(chromium: Browser, site: Site) -> None:
    site.board.show(calls=())
    async with opened(chromium, site.url) as page:
        await expect(page.locator("#calls ~ .empty")).to_have_text("目前没有通话。")
        await page.evaluate("window.sameDocument = true")
        site.board.show(calls=(call(stage=CallStage.QUEUED, site="gz"),))
        site.signals.raise_(Topic.BOARD)
        row = page.locator("tr.call.queued")
        await expect(row).to_be_visible(timeout=1000)
        await expect(row).to_contain_text("…5678")
        await expect(row).to_contain_text("广州珠江新城")
        clock = row.locator("time[data-since]")
        await expect(clock).to_have_text("0:02", timeout=4000)
        site.board.show(calls=(call(stage=CallStage.TALKING, engineer="王伟"),))
        site.signals.raise_(Topic.BOARD)
        await expect(page.locator("tr.call.talking")).to_contain_text("王伟", timeout=1000)
        site.board.show(calls=())
        site.signals.raise_(Topic.BOARD)
        await expect(page.locator("tr.call")).to_have_count(0, timeout=1000)
        assert await page.evaluate("window.sameDocument")


async def test_a_lost_stream_is_said_and_taken_up_again(chromium: Browser) -> None:
    port = free_port()
    board = FakeBoard()
    async with running_site(board=board, port=port) as first:
        context = opened(chromium, first.url)
        page = await context.__aenter__()
        await expect(page.locator("#lost")).to_be_hidden()
    await expect(page.locator("#lost")).to_be_visible(timeout=5000)
    await expect(page.locator("#lost")).to_contain_text("连接已断开")
    board.show(calls=(call(engineer="赵云鹏"),))
    async with running_site(board=board, port=port):
        await expect(page.locator("#lost")).to_be_hidden(timeout=10_000)
        await expect(page.locator("tr.call")).to_contain_text("赵云鹏")
        await context.__aexit__(None, None, None)


async def test_a_hostile_display_name_is_shown_as_text(chromium: Browser) -> None:
    async with running_site(public_status=False) as site:
        site.board.show(calls=())
        async with opened(chromium, site.url) as page:
            page.on("dialog", lambda _: pytest.fail("a script of the caller ran"))
            await page.get_by_label("用户名").fill("li")
            await page.get_by_label("密码").fill("wrong")
            await page.get_by_role("button", name="登录").click()
            await expect(page.get_by_role("alert")).to_have_text("用户名或密码不正确。")
            await page.get_by_label("密码").fill("correct horse")
            await page.get_by_role("button", name="登录").click()
            await expect(page.locator("#calls")).to_be_visible()
            site.board.show(calls=(call(name=HOSTILE_NAME),))
            site.signals.raise_(Topic.BOARD)
            await expect(page.locator("tr.call .who")).to_have_text(HOSTILE_NAME, timeout=2000)
            await page.get_by_role("button", name="退出").click()
            await expect(page.get_by_role("heading", name="登录")).to_be_visible()


async def test_the_language_is_switched_and_remembered(chromium: Browser, site: Site) -> None:
    async with opened(chromium, site.url) as page:
        await expect(page.locator("#tickets")).to_contain_text("今日工单")
        await page.get_by_role("link", name="English").click()
        await expect(page.locator("#tickets")).to_contain_text("Tickets today")
        await page.goto(site.url)
        await expect(page.locator("#tickets")).to_contain_text("Tickets today")
        site.board.show(calls=())
        site.signals.raise_(Topic.BOARD)
        await expect(page.locator("#calls ~ .empty")).to_have_text("No call at the moment.")
        assert await page.evaluate("document.documentElement.lang") == "en"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(360, 780), (768, 1024), (1440, 900), (1920, 1080)])
async def test_everything_fits_from_a_phone_to_a_wallboard(
    chromium: Browser, site: Site, tmp_path: Path, width: int, height: int, scheme: str
) -> None:
    async with opened(chromium, site.url, width=width, height=height, color_scheme=scheme) as page:
        for panel in ("calls", "duty", "tickets", "ledger", "health"):
            await expect(page.locator(f"#{panel}")).to_be_visible()
        assert await page.evaluate("document.documentElement.scrollWidth") == width
        assert await page.evaluate(TOO_FAINT) == []
        await page.screenshot(path=tmp_path / f"status-{width}-{scheme}.png", full_page=True)


async def test_an_empty_desk_says_what_to_do(chromium: Browser) -> None:
    async with (
        running_site(board=FakeBoard(quiet())) as site,
        opened(chromium, site.url, width=360) as page,
    ):
        await expect(page.locator("#duty ~ .empty")).to_contain_text("contactd load")
        await expect(page.locator("#tickets ~ .empty")).to_be_visible()
        assert await page.evaluate("document.documentElement.scrollWidth") == 360


# Texts whose contrast is below 4.5:1 (WCAG 2.2, 1.4.3), computed on the page.
TOO_FAINT: Final = """() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = channels(getComputedStyle(e).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const e of document.querySelectorAll("body *")) {
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
    if (!e.checkVisibility() || e.closest(".unseen, .skip, thead")) continue;
    const [a, b] = [light(channels(getComputedStyle(e).color)), light(ground(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push(`${e.className || e.tagName} ${e.textContent.trim()} ${ratio}`);
  }
  return found;
}"""
