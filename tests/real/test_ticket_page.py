"""A ticket's page in headless Chromium: what people see, at a desk and on a phone."""

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
from playwright.async_api import Browser, Page, expect

from contactd.store.blobs import Blobs
from contactd.store.engine import Database
from contactd.tickets.contact import Contact, File, MailFacts, Medium
from contactd.tickets.describing import Description
from contactd.web.ticketpage import PATH
from tests.fakes.clock import FakeClock
from tests.fakes.desk import Desk
from tests.fakes.history import HOSTILE_TITLE, code, eventful, keep_recording, page_of
from tests.fakes.site import Site, running_site
from tests.real.test_status_page import TOO_FAINT, chromium, opened

__all__ = ["chromium"]  # the fixture

pytestmark = pytest.mark.real

PNG: Final = base64.b64decode(  # one pixel
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


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
async def site(desk: Desk, tmp_path: Path) -> AsyncIterator[Site]:
    async with running_site(make_routes=page_of(desk, tmp_path / "blobs")) as running:
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
    url = f"{site.url}{PATH}/{ticket}"
    said: list[str] = []
    async with opened(
        chromium, url, width=width, height=height, color_scheme=scheme, locale=language
    ) as page:
        page.on("console", lambda message: said.append(message.text))
        await page.route("**/desk/live*", lambda route: route.fulfill(status=204))
        await log_in(page)
        for panel in ("clocks", "requester", "standard", "writing", "dispatches", "line", "told"):
            await expect(page.locator(f"#{panel}")).to_be_visible()
        await page.evaluate(OPEN_ALL)
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
        await expect(page.locator("#clocks")).to_be_visible()
        shares = await page.evaluate(SHARES)
    assert [round(share, 2) for share in shares] == [0.83, 0.72, 0.38, 0.33, 0.05, 0.54]


async def test_the_entry_that_caused_an_interval_is_one_click_away(
    chromium: Browser, site: Site, ticket: str
) -> None:
    async with opened(chromium, f"{site.url}{PATH}/{ticket}") as page:
        await log_in(page)
        await page.locator(".counted:has(tr.rests) summary").first.click()
        await page.locator("tr.rests").first.get_by_role("link").click()
        entry = page.locator(".entries li:target")
        await expect(entry).to_be_in_viewport()
        await expect(entry).to_contain_text("挂起")
        await expect(entry).to_contain_text("等待配件")


async def test_an_entry_that_is_folded_away_shows_when_somebody_asks_for_it(
    chromium: Browser, site: Site, desk: Desk, ticket: str
) -> None:
    journal = await desk.journal(ticket)
    hidden = next(each.seq for each in journal if each.action == "escalation.started")
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
        await page.locator("nav").get_by_role("link", name="状态").first.click()
        await expect(page.locator("#tickets")).to_be_visible()


async def test_words_that_are_being_written_stay_when_the_ticket_changes(
    chromium: Browser, site: Site, desk: Desk, ticket: str
) -> None:
    async with opened(chromium, f"{site.url}{PATH}/{ticket}") as page:
        await log_in(page)
        note = page.locator("#w-note")
        await note.fill("还没写完")
        await page.locator("#move-hold summary").click()
        await page.locator("#note-hold").fill("等配件")
        await desk.tickets.comment(ticket, "别人刚写的", actor="user:x")
        await page.evaluate("document.body.dispatchEvent(new Event('ticket-changed'))")
        await expect(page.locator("#line-box")).to_contain_text("别人刚写的")
        await expect(note).to_have_value("还没写完")
        await expect(page.locator("#note-hold")).to_have_value("等配件")
        await expect(page.locator("#note-hold")).to_be_visible()


async def test_a_picture_of_the_screen_is_shown_where_it_came(
    chromium: Browser, site: Site, desk: Desk, tmp_path: Path
) -> None:
    await desk.load()
    kept = await Blobs(tmp_path / "blobs").put_bytes(PNG, media_type="image/png", name="屏幕.png")
    mail = Contact(
        medium=Medium.MAIL, external_id="m", received_at=desk.clock.now(), from_value="a@x.cn",
        text="见截图", mail=MailFacts(subject="x"), files=(File(kind="inline", blob=kept),),
    )  # fmt: skip
    number = (await desk.when(desk.tickets.receive(mail))).ticket
    async with opened(chromium, f"{site.url}{PATH}/{number}", width=360) as page:
        await log_in(page)
        picture = page.get_by_role("img", name="屏幕.png")
        await picture.scroll_into_view_if_needed()
        await expect(picture).to_have_js_property("naturalWidth", 1)


async def test_an_act_is_done_in_place_and_the_page_says_so(
    chromium: Browser, site: Site, ticket: str
) -> None:
    async with opened(chromium, f"{site.url}{PATH}/{ticket}", width=360) as page:
        await log_in(page)
        await page.evaluate("window.same = true")
        await page.locator("#move-hold summary").click()
        await page.locator("#note-hold").fill("等配件 <b>A</b>")
        await page.locator("#move-hold button").click()
        await expect(page.locator("#done")).to_contain_text("已完成")
        await expect(page.locator("#line-box")).to_contain_text("等配件 <b>A</b>")
        await expect(page.locator("#moves")).to_contain_text("继续处理")
        assert await page.evaluate("window.same")
        assert await page.evaluate("document.documentElement.scrollWidth") == 360


async def test_of_two_who_change_one_ticket_the_slower_sees_both(
    chromium: Browser, site: Site, desk: Desk, ticket: str
) -> None:
    async with opened(chromium, f"{site.url}{PATH}/{ticket}") as page:
        await log_in(page)
        await page.get_by_text("填写故障信息").first.click()
        await page.locator("#d-device").fill("PC-0815")
        said = Description(device="PC-0816")
        await desk.tickets.describe(ticket, said, actor="user:x")
        await page.locator("form[action$=describe] button").click()
        await expect(page.locator("#done")).to_contain_text("期间已有人修改")
        await expect(page.locator("#d-device")).to_have_value("PC-0815")
        await expect(page.locator(".theirs").first).to_contain_text("PC-0816")
        await page.locator("form[action$=describe] button").click()
        await expect(page.locator("#described")).to_contain_text("PC-0815")


async def test_a_dispatch_is_carried_out_on_a_telephone(
    chromium: Browser, site: Site, desk: Desk, ticket: str
) -> None:
    await desk.when(desk.tickets.dispatch(ticket, "huang", actor="user:x"))
    async with opened(chromium, f"{site.url}{PATH}/{ticket}", width=360, height=780) as page:
        await log_in(page)
        for step, state in (("接受派单", "accepted"), ("已出发", "on_way")):
            await page.locator("#visits").get_by_role("button", name=step).click()
            # `#done` says the same of both: what is drawn tells that it is this one's answer.
            await expect(page.locator(f"#visits .dispatch-{state}")).to_be_visible()
            await expect(page.locator("#done")).to_contain_text("已完成")
            await desk.drain()
        await page.locator("#visits input[name=code]").fill(code(desk))
        button = page.locator("#visits").get_by_role("button", name="已到场")
        assert await button.evaluate("(each) => each.getBoundingClientRect().height") >= 44
        await button.click()
        await expect(page.locator("#visits")).to_contain_text("到场验证码已核实")


# Folds of one name are open one at a time: they must all be seen.
OPEN_ALL: Final = """() => document.querySelectorAll("main details")
  .forEach((fold) => { fold.removeAttribute("name"); fold.open = true; })"""

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
