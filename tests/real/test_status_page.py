"""The status page in headless Chromium: what people see, on a wallboard and on a phone."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from contactd.lab.ports import free_port
from contactd.signals import Topic
from contactd.web import live
from contactd.web.board import BoardSite, CallStage
from contactd.web.i18n import Language
from contactd.web.live import View
from tests.fakes.board import HOSTILE_NAME, SITES, FakeBoard, busy, call, quiet, risks
from tests.fakes.site import Site, running_site
from tests.fakes.site import _pages as shared_pages

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
    chromium: Browser,
    url: str,
    *,
    width: int = 1440,
    height: int = 900,
    before: Callable[[Page], Awaitable[None]] | None = None,
    **options: Any,
) -> AsyncIterator[Page]:
    """Open `url`; at the end there must have been no error on the page, nor a refusal by CSP.

    `before` prepares the page that is to be opened.
    """
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
    if before:
        await before(page)
    await page.goto(url)
    yield page
    await context.close()
    assert errors == []


async def log_in(page: Page) -> None:
    await page.locator("[name=name]").fill("li")
    await page.locator("[name=password]").fill("correct horse")
    await page.locator("[name=password]").press("Enter")


async def test_a_call_appears_ticks_and_goes_without_reload(chromium: Browser, site: Site) -> None:
    site.board.show(calls=())
    async with opened(chromium, site.url) as page:
        await expect(page.locator("#calls ~ .empty")).to_have_text("目前没有通话。")
        await page.evaluate("window.sameDocument = true")
        site.board.show(calls=(call(stage=CallStage.QUEUED, site="gz"),))
        site.signals.raise_(Topic.BOARD)
        row = page.locator("tr.call.queued")
        await expect(row).to_be_visible()
        await expect(row).to_contain_text("…5678")
        await expect(row).to_contain_text("广州珠江新城")
        clock = row.locator("time[data-since]")
        await expect(clock).to_have_text(re.compile("0:0[2-9]|0:[1-3]"))
        site.board.show(calls=(call(stage=CallStage.TALKING, engineer="王伟"),))
        site.signals.raise_(Topic.BOARD)
        await expect(page.locator("tr.call.talking")).to_contain_text("王伟")
        site.board.show(calls=())
        site.signals.raise_(Topic.BOARD)
        await expect(page.locator("tr.call")).to_have_count(0)
        assert await page.evaluate("window.sameDocument")


async def test_a_lost_stream_is_said_and_taken_up_again(chromium: Browser) -> None:
    port = free_port()
    board = FakeBoard()
    async with running_site(board=board, port=port) as first:
        context = opened(chromium, first.url)
        page = await context.__aenter__()
        await expect(page.locator("#lost")).to_be_hidden()
    await expect(page.locator("#lost")).to_be_visible()
    await expect(page.locator("#lost")).to_contain_text("连接已断开")
    board.show(calls=(call(engineer="赵云鹏"),))
    async with running_site(board=board, port=port):
        await expect(page.locator("#lost")).to_be_hidden()
        await expect(page.locator("tr.call")).to_contain_text("赵云鹏")
        await context.__aexit__(None, None, None)


async def test_a_hostile_display_name_is_shown_as_text(chromium: Browser) -> None:
    async with running_site(public_status=False) as site:
        site.board.show(calls=())
        async with opened(chromium, site.url) as page:
            page.on("dialog", lambda _: pytest.fail("a script of the caller ran"))
            await log_in(page)
            await expect(page.locator("#calls")).to_be_visible()
            site.board.show(calls=(call(name=HOSTILE_NAME),))
            site.signals.raise_(Topic.BOARD)
            await expect(page.locator("tr.call .who")).to_have_text(HOSTILE_NAME)
            await page.get_by_role("button", name="退出").click()
            await expect(page.locator("[name=password]")).to_be_visible()


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
        for panel in ("risks", "queues", "calls", "intake", "duty", "tickets", "open", "promises",
                      "ledger", "health"):  # fmt: skip
            await expect(page.locator(f"#{panel}")).to_be_visible()
        assert await page.evaluate("document.documentElement.scrollWidth") == width
        assert await page.evaluate(OVERFLOWING) == []
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


async def test_the_charts_are_drawn_from_their_table_and_follow_it(
    chromium: Browser, site: Site
) -> None:
    async with opened(chromium, site.url) as page:
        figures = page.locator("#charts figure")
        await expect(figures).to_have_count(4)
        await expect(page.locator("#charts canvas")).to_have_count(4)
        before = await page.evaluate(PIXELS)
        contacts = [replace(each, count=each.count * 7 + 3) for each in busy().tickets.intake]
        site.board.show(tickets=replace(site.board.shown.tickets, intake=tuple(contacts)))
        await page.locator(".hours summary").click()
        site.signals.raise_(Topic.BOARD)
        total = sum(int(each.count) for each in contacts if each.medium == "call")
        await expect(page.locator(".intake .chips b").first).to_have_text(str(total))
        assert await page.evaluate(PIXELS) != before
        await expect(figures).to_have_count(4)  # the same ones
        assert await page.locator(".hours").get_attribute("open") is not None  # was not closed


async def test_it_is_read_without_a_script_too(chromium: Browser, site: Site) -> None:
    async with opened(chromium, site.url, java_script_enabled=False) as page:
        await expect(page.locator("#risks ~ .due .risk").first).to_contain_text("26112000000")
        await page.locator(".hours summary").click()
        await expect(page.locator("#hours tbody tr")).to_have_count(24)
        await expect(page.locator("#duty ~ .sites article")).to_have_count(5)
    async with opened(chromium, f"{site.url}/?wall", java_script_enabled=False) as page:
        for panel in ("risks", "queues", "duty", "open", "promises", "ledger", "health"):
            await expect(page.locator(f"#{panel}")).to_be_visible()


@pytest.mark.parametrize("language", ["zh-CN", "en"])
async def test_a_wall_is_read_from_four_metres_and_shows_each_panel_in_turn(
    chromium: Browser, tmp_path: Path, language: str
) -> None:
    """Nine sites, whose duty fills two pages; nothing may be cut off, nothing be too small."""
    more = tuple(
        BoardSite(key=f"x{n}", name_zh=f"新网点{n}", name_en=f"New site {n}") for n in range(4)
    )
    now = busy()
    duties = [replace(now.duties[n], site=f"x{n}") for n in range(4)]
    board = FakeBoard(replace(now, sites=(*SITES, *more), duties=(*now.duties, *duties)))

    async def with_clock(page: Page) -> None:
        await page.clock.install()

    async with (
        running_site(board=board) as site,
        opened(chromium, f"{site.url}/?wall", width=1920, height=1080, locale=language,
               color_scheme="light", before=with_clock) as page,
    ):  # fmt: skip
        await expect(page.locator("nav, a, button")).to_have_count(0)
        dark = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert dark == "rgb(13, 18, 24)"
        seen = []
        for turn in range(7):
            site.signals.raise_(Topic.BOARD)  # the page's clock has jumped
            await expect(page.locator("#lost")).to_be_hidden()
            assert await page.evaluate(TOO_SMALL) == [], turn
            assert await page.evaluate(CUT_OFF) == [], turn
            assert await page.evaluate(TOO_FAINT) == [], turn
            sizes = await page.evaluate(HEADLINES)
            assert min(sizes) >= 40, turn
            await page.screenshot(path=tmp_path / f"wall-{language}-{turn}.png")
            shown = await page.locator("[data-turns] > section:visible h2").inner_text()
            count = await page.locator("[data-turns] .site:visible").count()
            seen.append((shown.split("\n")[0], count))
            await page.clock.fast_forward(12_000)
        assert [count for _, count in seen[:3]] == [6, 3, 0]
        assert len({shown for shown, _ in seen}) == 6
        assert await page.locator("[data-turns] .site:visible").count() == 6  # from the beginning


async def test_a_promise_counts_down_without_the_server_and_goes_on_beyond(
    chromium: Browser, site: Site
) -> None:
    async def with_clock(page: Page) -> None:
        await page.clock.install()

    async with opened(chromium, site.url, before=with_clock) as page:
        row = page.locator(".risk", has_text="26112000033")  # due in less than a minute
        await expect(row.locator("time[data-due]")).to_have_text(re.compile(r"^0:\d\d$"))
        # Less than the silence after which the page begins anew.
        await page.clock.fast_forward(40_000)
        await expect(row.locator("time[data-due]")).to_have_text(re.compile(r"^\+0:\d\d$"))


async def test_another_version_is_taken_once(chromium: Browser) -> None:
    """The daemon was updated while the wall hung there: one reload, not a circle of them."""
    board, port = FakeBoard(), free_port()
    loads = 0

    def count(_: Any) -> None:
        nonlocal loads
        loads += 1

    async def counted(page: Page) -> None:
        page.on("load", count)

    async with running_site(board=board, port=port) as first:
        context = opened(chromium, f"{first.url}/?wall", before=counted)
        page = await context.__aenter__()
        await expect(page.locator("time[data-now]")).to_be_visible()
    drawn = [shared_pages()._environments[language].globals for language in Language]
    try:
        for each in drawn:
            each["version"] = "another"
        async with running_site(board=board, port=port):
            body = page.locator("body")
            await expect(body).to_have_attribute("data-version", "another")
            for each in drawn:  # a daemon beside it that is older, and one that is newer
                each["version"] = "older"
            await expect(body).to_have_attribute("data-version", "older")
            for each in drawn:
                each["version"] = "another"
            await page.wait_for_timeout(6_000)
    finally:
        for each in drawn:
            each["version"] = shared_pages().version
    assert loads <= 4
    await context.__aexit__(None, None, None)


async def test_a_session_that_ends_leads_to_the_login(
    chromium: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "RECHECK_S", 0.5)
    async with (
        running_site(public_status=False) as site,
        opened(chromium, f"{site.url}/?wall") as page,
    ):
        await log_in(page)
        await expect(page.locator("#risks")).to_be_visible()
        site.accounts.sessions.clear()
        await expect(page.locator("[name=password]")).to_be_visible()
        assert "next=" in page.url


async def test_days_of_changes_leave_nothing_behind(chromium: Browser, site: Site) -> None:
    """5,000 events, as they come in days: the heap and the document stay as they were."""

    async def without_stream(page: Page) -> None:
        await page.add_init_script(PUSHED)

    view = View(language=Language.ZH, public=True)
    draws = []
    for number in range(2):
        site.board.show(
            calls=(call(number, stage=CallStage.QUEUED, queue="gz"),),
            risks=risks(datetime.now(UTC))[number:],
            tickets=replace(
                site.board.shown.tickets,
                intake=tuple(replace(e, count=e.count + number) for e in busy().tickets.intake),
            ),
        )
        await site.live._look()
        draws.append(dict(await site.live.parts(view)))
    async with opened(chromium, site.url, before=without_stream) as page:
        session = await page.context.new_cdp_session(page)
        await session.send("Performance.enable")

        async def used() -> tuple[float, float]:
            await session.send("HeapProfiler.collectGarbage")
            found = await session.send("Performance.getMetrics")
            metrics = {each["name"]: each["value"] for each in found["metrics"]}
            return metrics["JSHeapUsedSize"], metrics["Nodes"]

        await page.evaluate(PUSH, [draws, 500])
        heap, nodes = await used()
        await page.evaluate(PUSH, [draws, 5_000])
        heap_after, nodes_after = await used()
    assert nodes_after <= nodes + 50
    assert heap_after <= heap * 1.1 + 200_000


# The browser's own stream replaced by one that the test feeds, as fast as it likes.
PUSHED: Final = """
  window.EventSource = class extends EventTarget {
    constructor() { super(); this.readyState = 1; window.stream = this; }
    close() {}
  };"""
PUSH: Final = """async ([draws, count]) => {
  for (let n = 0; n < count; n += 1) {
    const names = Object.keys(draws[0]);
    const type = names[n % names.length];
    const data = draws[Math.floor(n / names.length) % 2][type];
    window.stream.dispatchEvent(new MessageEvent(type, { data }));
    if (n % 50 === 0) await new Promise((done) => setTimeout(done));
  }
}"""
PIXELS: Final = "[...document.querySelectorAll('#charts canvas')].map((c) => c.toDataURL()).join()"

# What lies across the border of its panel.
OVERFLOWING: Final = """() => [...document.querySelectorAll(".panel, .tile")]
  .filter((panel) => panel.scrollWidth > panel.clientWidth + 1).map((panel) => panel.className)"""
# Panels of the wall of which something is not on the screen.
CUT_OFF: Final = """() => [...document.querySelectorAll(".panel, .stays, .turns, .tile")]
  .filter((e) => e.checkVisibility())
  .filter((e) => e.scrollHeight > e.clientHeight + 1 || e.scrollWidth > e.clientWidth + 1
    || e.getBoundingClientRect().bottom > innerHeight + 1)
  .map((e) => [e.className, e.scrollHeight, e.clientHeight, e.scrollWidth, e.clientWidth].join())"""
HEADLINES: Final = """() => [...document.querySelectorAll(".tile .value, .clock time")]
  .map((e) => parseFloat(getComputedStyle(e).fontSize))"""
TOO_SMALL: Final = """() => [...document.querySelectorAll("body *")]
  .filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
  .filter((e) => e.checkVisibility() && !e.closest(".unseen, noscript"))
  .map((e) => [parseFloat(getComputedStyle(e).fontSize), e.textContent.trim(), e.className])
  .filter(([size]) => size < 20)"""

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
