"""A ticket's page in headless Chromium: what people see, at a desk and on a phone."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from contactd.store.engine import Database
from contactd.web.ticketpage import PATH
from tests.fakes.clock import FakeClock
from tests.fakes.desk import Desk
from tests.fakes.history import HOSTILE_TITLE, eventful, keep_recording, page_of
from tests.fakes.site import Site, running_site
from tests.real.test_status_page import TOO_FAINT, chromium, opened

__all__ = ["chromium"]  # the fixture

pytestmark = pytest.mark.real


@pytest.fixture
async def desk(sqlite_url: str, clock: FakeClock) -> AsyncIterator[Desk]:
    database = Database(sqlite_url, clock=clock)
    async with database.running():
        yield Desk(database, clock)


@pytest.fixture
async def ticket(desk: Desk, tmp_path: Path) -> str:
    number = await eventful(desk)
    await keep_recording(desk, number, tmp_path)
    return number


@pytest.fixture
async def site(desk: Desk) -> AsyncIterator[Site]:
    async with running_site(make_routes=page_of(desk)) as running:
        yield running


async def log_in(page: Page) -> None:
    await page.locator("#name").fill("li")
    await page.locator("#password").fill("correct horse")
    await page.locator("button.primary").click()


@pytest.mark.parametrize(
    ("width", "height", "scheme", "language"),
    [
        (360, 780, "light", "zh-CN"), (360, 780, "dark", "en"), (768, 1024, "dark", "zh-CN"),
        (1440, 900, "light", "zh-CN"), (1440, 900, "dark", "en"), (1920, 1080, "light", "en"),
    ],
)  # fmt: skip
async def test_everything_fits_from_a_phone_to_a_large_screen(
    chromium: Browser, site: Site, ticket: str, tmp_path: Path,
    width: int, height: int, scheme: str, language: str,
) -> None:  # fmt: skip
    url, options = f"{site.url}{PATH}/{ticket}", {"color_scheme": scheme, "locale": language}
    said: list[str] = []
    async with opened(chromium, url, width=width, height=height, **options) as page:
        page.on("console", lambda message: said.append(message.text))
        await log_in(page)
        for panel in ("clocks", "told", "dispatches", "contacts", "journal"):
            await expect(page.locator(f"#{panel}")).to_be_visible()
        for fold in await page.locator("summary").all():
            await fold.click()
        assert await page.evaluate("document.documentElement.scrollWidth") == width
        assert await page.evaluate(CUT_OFF) == []
        assert await page.evaluate(TOO_FAINT) == []
        name = f"ticket-{width}-{scheme}-{language}.png"
        await page.screenshot(path=tmp_path / name, full_page=True)
    assert said == []


async def test_the_bars_are_drawn_although_nothing_inline_may_style_them(
    chromium: Browser, site: Site, ticket: str
) -> None:
    async with opened(chromium, f"{site.url}{PATH}/{ticket}") as page:
        await log_in(page)
        shares = await page.evaluate(SHARES)
    assert [round(share, 2) for share in shares] == [0.83, 0.72, 0.38, 0.33, 0.05, 0.54]


async def test_the_entry_that_caused_an_interval_is_one_click_away(
    chromium: Browser, site: Site, ticket: str
) -> None:
    async with opened(chromium, f"{site.url}{PATH}/{ticket}") as page:
        await log_in(page)
        await page.locator("tr.rests").first.get_by_role("link").click()
        entry = page.locator(".entries li:target")
        await expect(entry).to_be_in_viewport()
        await expect(entry).to_contain_text("挂起")
        await expect(entry).to_contain_text("等待配件")


async def test_an_entry_that_is_folded_away_shows_when_somebody_asks_for_it(
    chromium: Browser, site: Site, desk: Desk, ticket: str
) -> None:
    for _ in range(5):
        await desk.tickets.updated(ticket, actor="engineer:wang", note="仍在处理")
    hidden = (await desk.journal(ticket))[-3].seq
    async with opened(chromium, f"{site.url}{PATH}/{ticket}") as page:
        await log_in(page)
        await expect(page.locator(f"#entry-{hidden}")).to_be_hidden()
        await page.goto(f"{site.url}{PATH}/{ticket}#entry-{hidden}")
        await expect(page.locator(f"#entry-{hidden}")).to_be_visible()


async def test_a_hostile_title_is_shown_as_text(chromium: Browser, site: Site, desk: Desk) -> None:
    await desk.load()
    ticket = await desk.write("13922223333", text=HOSTILE_TITLE)
    async with opened(chromium, f"{site.url}{PATH}/{ticket}", width=360) as page:
        page.on("dialog", lambda _: pytest.fail("a script of the requester ran"))
        await log_in(page)
        await expect(page.locator("h1")).to_contain_text("<script>alert(1)</script>")
        assert await page.evaluate("document.documentElement.scrollWidth") == 360


async def test_a_ticket_is_opened_from_the_status_page_and_left_again(
    chromium: Browser, site: Site, ticket: str
) -> None:
    latest = site.board.shown.tickets.latest[0]
    async with opened(chromium, f"{site.url}/login") as page:
        await log_in(page)
        link = page.locator("tr.ticket").first.get_by_role("link")
        await expect(link).to_have_text(latest.number)
        await page.goto(f"{site.url}{PATH}/{ticket}")
        await page.get_by_role("link", name="状态页").click()
        await expect(page.locator("#tickets")).to_be_visible()


# How far each bar is filled, of its whole width as it is drawn.
SHARES = """() => [...document.querySelectorAll("svg.bar")].map((bar) =>
  bar.querySelector(".fill").getBoundingClientRect().width / bar.getBoundingClientRect().width)"""

# Texts that reach over the edge of their panel: what nothing scrolls to shows nowhere.
CUT_OFF = """() => [...document.querySelectorAll(".panel *")]
  .filter((e) => e.checkVisibility() && !e.closest("svg, .unseen, thead, audio"))
  .filter((e) => {
    const panel = e.closest(".panel").getBoundingClientRect();
    const box = e.getBoundingClientRect();
    return box.width && (box.right > panel.right + 1 || box.left < panel.left - 1);
  })
  .map((e) => `${e.className || e.tagName} ${e.textContent.trim().slice(0, 60)}`)"""
