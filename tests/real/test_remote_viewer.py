"""The engineer's page of remote help in headless Chromium: real daemon, helper, Xvfb, x11vnc."""

import io
import json
import random
import re
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
import pytest
from playwright.async_api import Browser, Page, expect

from contactd.tickets import agreement
from tests.fakes.desktop import UserDesktop, running_desktop
from tests.fakes.waiting import eventually
from tests.real.test_status_page import chromium
from tests.real.workbench import ZHANG_NUMBER, Workbench, workbench

__all__ = ["chromium"]  # the fixture

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

SIGNS: Final = "".join(map(chr, range(0x21, 0x7F)))
HAN: Final = "".join(map(chr, range(0x4E00, 0x9FA6)))
SAID: Final = "工单已处理，请重启电脑后再试一次：打印机“二楼”恢复正常。 OK? Größe\t✓"


@dataclass(slots=True, kw_only=True)
class Help:
    """A ticket, its engineer's page, and its user with a browser and a computer."""

    bench: Workbench
    user: UserDesktop
    browser: aiohttp.ClientSession  # the user's
    ticket: str
    desk: Page  # the ticket's page of wang
    cookie: str = ""  # of who agreed

    async def agree(self, choice: str = "control") -> str:
        """Open the link of the newest text and agree; return its code."""
        found: list[str] = []

        async def has_come() -> bool:
            texts = self.bench.texts_to(ZHANG_NUMBER)
            found[:] = [m for text in texts for m in re.findall(r"/s/(\d{9})", text)]
            return bool(found)

        await eventually(has_come)
        fields = {"choice": choice, "language": "zh", "version": agreement.CURRENT}
        url = f"{self.bench.url}/s/{found[-1]}/answer"
        async with self.browser.post(url, data=fields, allow_redirects=False) as answer:
            assert answer.headers["Location"] == "/s/session"
            self.cookie = answer.headers["Set-Cookie"].partition(";")[
                0
            ]  # for TLS, which we are not
        return found[-1]

    async def start_helper(self) -> None:
        url = f"{self.bench.url}/s/session/helper"
        async with self.browser.get(url, headers={"Cookie": self.cookie}) as answer:
            packed = zipfile.ZipFile(io.BytesIO(await answer.read()))
        invitation: dict[str, str] = json.loads(packed.read("invitation.json"))
        self.user.helper(invitation | {"url": self.bench.url})

    async def share(self, *, tick: tuple[int, ...] = ()) -> Page:
        """Bring wang into the session, with the user's yes; return their page of the screen."""
        await self.desk.locator("#remote-now").get_by_role("button", name="进入协助").click()
        await self.start_helper()
        await self.user.answer(yes=True, tick=tick)
        await expect(self.desk.locator("#tools")).to_be_visible()
        return self.desk


@asynccontextmanager
async def helping(
    folder: Path, chromium: Browser, size: str = "1024x768x24"
) -> AsyncIterator[Help]:
    async with (
        workbench(folder) as bench,
        running_desktop(folder / "user", size) as user,
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser,
    ):
        await bench.text("打印机连不上，请帮忙看一下", name="one")
        ticket = await bench.ticket_of("text")
        desk = await bench.page(chromium, "wang", f"/desk/tickets/{ticket}")
        take = desk.locator("#moves").get_by_role("button", name="接单")
        if await take.count():
            await take.first.click()
        yield Help(bench=bench, user=user, browser=browser, ticket=ticket, desk=desk)


@pytest.fixture
async def help_(tmp_path: Path, chromium: Browser) -> AsyncIterator[Help]:
    async with helping(tmp_path, chromium) as help_:
        yield help_


async def invite(help_: Help) -> None:
    await help_.desk.get_by_role("button", name="用短信发送链接").click()
    await expect(help_.desk.locator("#remote-now")).to_contain_text("已发链接")
    await help_.agree()
    await expect(help_.desk.locator("#remote-now")).to_contain_text("用户在等")


async def test_an_engineer_types_into_the_user_s_terminal_and_the_hot_key_cuts(
    help_: Help, tmp_path: Path
) -> None:
    typed = tmp_path / "typed"
    await invite(help_)
    page = await help_.share()
    await help_.user.xterm(typed)
    words = "".join(random.Random(7).choices(SIGNS, k=60))
    await page.locator("#screen canvas").focus()
    await page.keyboard.type(words, delay=15)
    await page.keyboard.press("Enter")
    await eventually(lambda: _reads(typed, f"{words}\n"))
    said = SAID + "".join(random.Random(8).sample(HAN, k=100))
    await page.locator("#text").fill(f"{said}\n")
    await page.get_by_role("button", name="开始输入").click()
    await expect(page.locator("#text")).to_have_value("")
    await eventually(lambda: _reads(typed, f"{words}\n{said}\n"))
    help_.user.press_hotkey()
    await expect(page.locator("#what")).to_have_text("用户已停止协助。")
    assert help_.user.servers() == []
    assert help_.user.keys_down() == []
    await page.goto(f"{help_.bench.url}/desk/tickets/{help_.ticket}")
    await expect(page.locator("#remote-now")).to_contain_text("用户已停止协助")


async def _reads(path: Path, words: str) -> bool:
    return path.read_text(encoding="utf-8", errors="replace") == words


async def test_two_monitors_can_be_looked_at_one_by_one_and_keys_come_back_to_the_page(
    chromium: Browser, tmp_path: Path
) -> None:
    async with helping(tmp_path, chromium, "2400x700x24") as help_:
        await invite(help_)
        page = await help_.share()
        await expect(page.locator("#monitor")).to_be_visible()
        whole = await page.evaluate(SHOWN)
        await page.locator("#monitor").select_option("1")

        async def is_larger() -> bool:  # noVNC draws it when the frame has changed
            return bool(await page.evaluate(SHOWN) > 1.5 * whole)

        await eventually(is_larger)
        await page.locator("#fit").select_option("full")
        await expect(page.locator("#pan")).to_be_visible()
        assert await page.evaluate(SHOWN) > 0
        await page.locator("#fit").select_option("fit")
        await page.locator("#screen canvas").focus()
        await page.keyboard.down("Control")
        await page.keyboard.down("Alt")
        await eventually(lambda: _is_down(help_.user, 2))
        await page.keyboard.down("Shift")
        await expect(page.locator("#keys > summary")).to_be_focused()
        await eventually(lambda: _is_down(help_.user, 0))


async def test_with_only_look_nothing_that_is_typed_arrives(help_: Help, tmp_path: Path) -> None:
    typed = tmp_path / "typed"
    await invite(help_)
    page = await help_.share()
    await help_.user.xterm(typed)
    await page.get_by_role("button", name="仅查看").click()
    await page.locator("#screen canvas").focus()
    await page.keyboard.type("no")
    await page.get_by_role("button", name="仅查看").click()
    await page.locator("#screen canvas").focus()
    await page.keyboard.type("yes\n", delay=20)
    await eventually(lambda: _reads(typed, "yes\n"))


async def test_a_colleague_who_waits_takes_over_with_the_user_s_yes(
    help_: Help, chromium: Browser
) -> None:
    await invite(help_)
    page = await help_.share()
    tan = await help_.bench.page(chromium, "tan", page.url.removeprefix(help_.bench.url))
    await expect(tan.locator("#what")).to_contain_text("同事正在协助")
    assert await tan.locator("#screen canvas").count() == 0
    await page.locator("#more > summary").click()
    await expect(page.locator("#to option")).to_have_text("tan")
    await page.get_by_role("button", name="征求用户同意").click()
    await expect(page.locator("#asking")).to_be_visible()
    await help_.user.answer(yes=True)
    await expect(tan.locator("#screen canvas")).to_be_visible()
    await expect(page.locator("#cover")).to_be_visible()
    await expect(page.locator("#tools")).to_be_hidden()


# How wide the picture of the user's screen is drawn.
SHOWN: Final = """() => document.querySelector("#screen canvas").getBoundingClientRect().width"""


async def _is_down(user: UserDesktop, count: int) -> bool:
    return len(user.keys_down()) == count
