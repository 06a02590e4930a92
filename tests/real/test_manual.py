"""The users' manual says what the pages say: its labels, its addresses, its pictures.

`CONTACTD_MANUAL=1` writes the pictures to docs/manual/images, else they are only taken. In the
manual **bold** is a label of a page, and `/…` between back quotes an address.
"""

import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from babel.messages.catalog import Message
from babel.messages.pofile import read_po
from playwright.async_api import Browser, Page, expect

from tests.fakes.waiting import eventually
from tests.real.test_status_page import chromium
from tests.real.workbench import Workbench, workbench

__all__ = ["chromium"]  # the fixture

pytestmark = pytest.mark.real

ROOT: Final = Path(__file__).parents[2]
MANUAL: Final = ROOT / "docs" / "manual"
CATALOGUE: Final = ROOT / "contactd/web/locale/zh/LC_MESSAGES/contactd.po"
LANGUAGES: Final = {"zh": "zh-CN", "en": "en-GB"}
PAGES: Final = sorted(MANUAL.glob("*/*.md"))
LARGEST: Final = 120_000
DESK, PHONE = (1200, 800), (360, 740)
LABEL: Final = re.compile(r"\*\*([^*\n]+)\*\*")
ADDRESS: Final = re.compile(r"`(/[^`\s…]*)`")
PICTURE: Final = re.compile(r"!\[[^]]*]\(\.\./images/([a-z-]+\.png)\)")
LINK: Final = re.compile(r"(?<!!)\[[^]]*]\(([^)#:]+)(?:#[^)]*)?\)")


def _forms(one: str | tuple[str, ...] | list[str] | None) -> list[str]:
    return [one] if isinstance(one, str) else list(one or ())


def labels(language: str) -> set[str]:
    """Return what the pages can say, in a language."""

    def said(message: Message) -> list[str]:
        # The ids are the English words.
        return _forms(message.string if language == "zh" else message.id)

    with CATALOGUE.open("rb") as file:
        return {form for message in read_po(file) for form in said(message)}


def of(page: Path) -> str:
    return f"{page.parent.name}/{page.name}"


def test_the_manual_has_the_same_pages_in_both_languages() -> None:
    zh, en = ({page.name for page in PAGES if page.parent.name == each} for each in LANGUAGES)
    assert zh == en
    assert len(zh) >= 6


@pytest.mark.parametrize("page", PAGES, ids=of)
def test_each_label_in_the_manual_is_a_label_of_a_page(page: Path) -> None:
    known = labels(page.parent.name)
    quoted = LABEL.findall(page.read_text(encoding="utf-8"))
    assert [label for label in quoted if label not in known] == []


@pytest.mark.parametrize("page", PAGES, ids=of)
def test_each_link_in_the_manual_leads_to_a_file(page: Path) -> None:
    linked = LINK.findall(page.read_text(encoding="utf-8"))
    assert [link for link in linked if not (page.parent / link).exists()] == []


def test_the_manual_shows_each_picture_that_is_made_and_no_other() -> None:
    shown = {each for page in PAGES for each in PICTURE.findall(page.read_text(encoding="utf-8"))}
    made = {f"{language}-{name}.png" for language in LANGUAGES for name in SHOTS}
    assert shown == made
    assert {each.name for each in (MANUAL / "images").iterdir()} == made


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """What there is to see."""

    here: Workbench
    printer: str
    till: str
    report: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """One picture: who looks at which address, and what must be there."""

    who: str
    path: str
    shows: str  # a selector; the page is scrolled to it if it says so
    size: tuple[int, int] = DESK
    scrolls: bool = False
    before: Callable[[Page], Awaitable[None]] | None = None


async def _write(page: Page) -> None:
    await page.locator("#words").fill("工程师王伟下午三点到，请保持机器开机。")
    await expect(page.locator("#draft")).to_contain_text("工程师王伟")


async def _fill_in(page: Page) -> None:
    await page.locator("#what").fill("三楼财务室的打印机打不出来，红灯亮。")


SHOTS: Final[Mapping[str, Shot]] = {
    "list": Shot(who="ling", path="/desk", shows=".tickets-list table", size=(1200, 520)),
    "ticket": Shot(who="ling", path="/desk/tickets/{printer}", shows="#who"),
    "text": Shot(
        who="ling",
        path="/desk/tickets/{printer}",
        shows="#text",
        size=(1200, 600),
        scrolls=True,
        before=_write,
    ),
    "dispatch": Shot(
        who="wang", path="/desk/tickets/{till}", shows="#visits", size=PHONE, scrolls=True
    ),
    "duty": Shot(who="wang", path="/desk/duty", shows=".duty-page #calendar"),
    "rota": Shot(who="root", path="/desk/admin/desk/shifts", shows=".entries-list"),
    "report": Shot(who="", path="/help/new", shows="form.report", size=PHONE, before=_fill_in),
    "progress": Shot(who="", path="{report}", shows="#stands", size=PHONE),
    "wall": Shot(who="ling", path="/?wall", shows=".wall #risks"),
    "account": Shot(who="wang", path="/account", shows="main.mine #factor"),
}


async def _classify(page: Page, title: str, impact: str, urgency: str) -> None:
    await page.locator("details.act", has=page.locator("#c-title")).locator("summary").click()
    await page.locator("#c-title").fill(title)
    await page.locator("#c-impact").select_option(impact)
    await page.locator("#c-urgency").select_option(urgency)
    await page.locator("#c-category").select_option("hardware")
    await page.locator("details.act[open] button.primary", has_text="分类").click()
    await expect(page.locator("h1")).to_contain_text(title)


async def _report(here: Workbench, chromium: Browser) -> str:
    """Report a fault on the portal; return the address at which it is followed."""
    page = await here.page(chromium, "", "/help/new", width=PHONE[0])
    await page.locator("#what").fill("会议室 A 的投影仪没有信号，线已重新插过。")
    await page.locator("#name").fill("陈晓")
    await page.locator("#phone").fill("13922223333")
    await page.locator("#site").select_option("sz")
    await page.locator("input[name=impact]").first.check()
    await page.locator("p.send button").click()
    await page.get_by_role("link", name="查看进度").click()
    await expect(page.locator("#stands")).to_be_visible()
    return page.url.removeprefix(here.url)


async def _tickets(here: Workbench, count: int) -> None:
    async def are_there() -> bool:
        return len((await here.api("/tickets"))["items"]) >= count

    await eventually(are_there)


@pytest.fixture
async def day(chromium: Browser, tmp_path: Path) -> AsyncIterator[Day]:
    async with workbench(tmp_path) as here:
        await here.mail("三楼打印机卡纸", "财务室的打印机又卡纸了，今天要打发票。")
        printer = await here.ticket_of("mail")
        await here.text("收银机开不了机", sender="+8613911112222", name="till")
        till = await here.ticket_of("text")
        await here.mail("ERP 登录不了", "提示密码过期，改不了。", sender="he@x.cn")
        await here.mail("申请新显示器", "新同事下周一到岗。", sender="lin@x.cn")
        await here.text("二楼没有 Wi-Fi", sender="+8613911113333", name="wifi")
        report = await _report(here, chromium)
        await _tickets(here, 6)
        page = await here.page(chromium, "ling", f"/desk/tickets/{printer}", width=DESK[0])
        await _classify(page, "三楼财务室打印机卡纸", "2", "1")
        page = await here.page(chromium, "ling", f"/desk/tickets/{till}", width=DESK[0])
        await _classify(page, "一楼收银机开不了机", "3", "1")
        await (
            page.locator("details.act", has=page.locator("#s-engineer")).locator("summary").click()
        )
        await page.locator("#s-engineer").select_option("wang")
        await page.get_by_role("button", name="派其前往").click()
        await expect(page.locator("#visits")).to_contain_text("王伟")
        yield Day(here=here, printer=printer, till=till, report=report)


async def _forget(here: Workbench) -> None:
    """Close everybody's windows: the next ones are in another language."""
    while here.contexts:
        _, context = here.contexts.popitem()
        await context.close()


async def _take(day: Day, chromium: Browser, shot: Shot, language: str, file: Path) -> None:
    path = shot.path.format(printer=day.printer, till=day.till, report=day.report)
    width, height = shot.size
    page = await day.here.page(chromium, shot.who, path, width=width, language=language)
    await page.set_viewport_size({"width": width, "height": height})
    if shot.before:
        await shot.before(page)
    target = page.locator(shot.shows).first
    await expect(target).to_be_visible()
    if shot.scrolls:
        await target.evaluate("(it) => it.scrollIntoView({ block: 'center' })")
    await expect(page.locator("html")).to_have_attribute("lang", re.compile(language[:2]))
    await page.screenshot(path=file)
    await page.close()


@pytest.mark.timeout(300)
async def test_the_pictures_of_the_manual_can_be_taken_and_its_addresses_opened(
    chromium: Browser, day: Day, tmp_path: Path
) -> None:
    wanted = bool(os.environ.get("CONTACTD_MANUAL"))
    folder = MANUAL / "images" if wanted else tmp_path / "images"
    folder.mkdir(exist_ok=True)
    for language, locale in LANGUAGES.items():
        await _forget(day.here)
        for name, shot in SHOTS.items():
            await _take(day, chromium, shot, locale, folder / f"{language}-{name}.png")
    sizes = {each.name: each.stat().st_size for each in folder.iterdir()}
    assert {name: size for name, size in sizes.items() if size > LARGEST} == {}
    page = await day.here.page(chromium, "root", "/desk", width=DESK[0])
    addresses = {each for one in PAGES for each in ADDRESS.findall(one.read_text(encoding="utf-8"))}
    assert addresses
    for address in sorted(addresses):
        answer = await page.request.get(f"{day.here.url}{address}")
        assert answer.status == 200, address
