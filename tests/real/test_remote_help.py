"""Remote help from the link in a text to the cut, with the real things on both sides.

The user's browser and the engineer's are Chromium; the user's desktop is an Xvfb with xterm, x11vnc
or TigerVNC, and the helper as the page gives it.
"""

import hashlib
import random
import re
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
from playwright.async_api import Browser, Page, expect
from yarl import URL

from contactd.lab.ports import free_port
from contactd.remote import fbs
from tests.fakes.desktop import UserDesktop, running_desktop
from tests.fakes.waiting import eventually
from tests.real.test_remote_viewer import SAID, SIGNS
from tests.real.test_status_page import chromium
from tests.real.workbench import ZHANG_NUMBER, Workbench, workbench

__all__ = ["chromium"]  # the fixture

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

PACE_MS: Final = 12


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Workbench]:
    port = free_port()
    http = {"port": port, "public_url": f"http://127.0.0.1:{port}"}
    async with workbench(tmp_path, http=http) as running:
        yield running


@pytest.fixture
async def user(tmp_path: Path) -> AsyncIterator[UserDesktop]:
    async with running_desktop(tmp_path / "user") as desktop:
        yield desktop


async def invited(bench: Workbench, chromium: Browser) -> tuple[Page, str]:
    """Let wang take the ticket of a text and send its requester a link; return page and link."""
    await bench.text("打印机连不上，请帮忙看一下", name="one")
    ticket = await bench.ticket_of("text")
    desk = await bench.page(chromium, "wang", f"/desk/tickets/{ticket}")
    await desk.locator("#moves").get_by_role("button", name="接单").click()
    await desk.get_by_role("button", name="用短信发送链接").click()
    links: list[str] = []

    async def has_come() -> bool:
        links[:] = re.findall(r"http://[^\s/]+/s/\d{9}", " ".join(bench.texts_to(ZHANG_NUMBER)))
        return bool(links)

    await eventually(has_come)
    return desk, links[-1]


async def downloaded(page: Page, link: str, folder: Path) -> Path:
    """Follow the link as the user does, read, agree, and save the helper."""
    await page.goto(link)
    await expect(page.locator("main")).to_contain_text("王伟")
    await page.locator("button[value=control]").click()
    await page.wait_for_url("**/s/session")
    async with page.expect_download() as coming:
        await page.locator("a[href$='/s/session/helper']").first.click()
    path = folder / "contactd-share.pyz"
    await (await coming.value).save_as(path)
    return path


async def in_session(desk: Page, user: UserDesktop, path: Path, env: dict[str, str]) -> None:
    await desk.reload()
    await desk.locator("#remote-now").get_by_role("button", name="进入协助").click()
    assert user.servers() == []
    user.start(sys.executable, str(path), env=env)
    await user.answer(yes=True)
    await expect(desk.locator("#tools")).to_be_visible()


async def test_from_the_link_to_the_cut(
    bench: Workbench, chromium: Browser, user: UserDesktop, tmp_path: Path
) -> None:
    desk, link = await invited(bench, chromium)
    theirs = await bench.page(chromium, "", "/s")
    path = await downloaded(theirs, link, tmp_path)
    number = URL(desk.url).name
    clock = {each["metric"]: each for each in (await bench.api(f"/tickets/{number}"))["clocks"]}
    assert "remote" not in clock  # nobody has asked: the engineer has offered
    await in_session(desk, user, path, {})
    typed = tmp_path / "typed"
    await user.xterm(typed)
    words = "".join(random.Random(2026).choices(SIGNS, k=200))
    await desk.locator("#screen canvas").focus()
    await desk.keyboard.type(words, delay=PACE_MS)
    await desk.keyboard.press("Enter")
    await desk.locator("#text").fill(SAID + "\n")
    await desk.get_by_role("button", name="开始输入").click()
    wanted = f"{words}\n{SAID}\n".encode()

    async def has_all() -> bool:
        return typed.read_bytes() == wanted

    try:
        await eventually(has_all, within_s=30)
    except TimeoutError:
        assert typed.read_bytes() == wanted
    user.press_hotkey()
    await expect(desk.locator("#what")).to_have_text("用户已停止协助。")
    await expect(theirs.locator("main")).to_contain_text("远程协助已结束")
    assert (user.servers(), user.keys_down()) == ([], [])
    # What is left: the journal's steps, a recording that reads, nothing running.
    ticket = await bench.api(f"/tickets/{number}")
    steps = [e["action"] for e in ticket["journal"] if e["action"].startswith("remote.")]
    assert steps == [
        "remote.invited", "remote.agreed", "remote.claimed", "remote.started", "remote.left",
        "remote.ended",
    ]  # fmt: skip
    (left,) = (e for e in ticket["journal"] if e["action"] == "remote.left")
    recording = left["body"]["recording"]
    (file,) = (p for p in bench.daemon.config.parent.rglob(f"*{recording}*") if p.is_file())
    assert hashlib.sha256(file.read_bytes()).hexdigest() == recording
    with file.open("rb") as opened:
        assert sum(len(each.data) for each in fbs.read(opened)) > 10_000
    assert link.rsplit("/", 1)[-1] not in bench.daemon.tail(100_000)


async def test_a_user_who_asked_stops_the_clock_when_the_engineer_sees_the_screen(
    bench: Workbench, chromium: Browser, user: UserDesktop, tmp_path: Path
) -> None:
    """The portal's way, with TigerVNC: it types no Chinese, but shows, and is cut as fast."""
    desk, link = await invited(bench, chromium)
    number = URL(desk.url).name
    await bench.act(number, "ask_remote")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("X0tigervnc", "sh", "dbus-monitor"):
        if found := shutil.which(name):
            (programs / name).symlink_to(found)
    theirs = await bench.page(chromium, "", "/s")
    path = await downloaded(theirs, link, tmp_path)
    await in_session(desk, user, path, {"PATH": str(programs)})
    assert "X0tigervnc" in "".join(user.programs())
    typed = tmp_path / "typed"
    await user.xterm(typed)
    await desk.locator("#screen canvas").focus()
    await desk.keyboard.type("seen by tigervnc", delay=30)
    await desk.keyboard.press("Enter")

    async def is_typed() -> bool:
        return typed.read_text() == "seen by tigervnc\n"

    await eventually(is_typed)
    clocks = (await bench.api(f"/tickets/{number}"))["clocks"]
    (remote,) = (each for each in clocks if each["metric"] == "remote")
    assert remote["stopped_at"] is not None
    await theirs.locator("form[action$='/stop'] button").first.click()
    await expect(desk.locator("#what")).to_have_text("用户已停止协助。")

    async def is_gone() -> bool:
        return user.servers() == []

    await eventually(is_gone)
