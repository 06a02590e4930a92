"""A screen that is shown in the bare browser: two Chromiums in two networks, and coturn between.

The real daemon, its real pages, a real screen (Xvfb) on each side; only the clicks are ours.
"""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from tests.fakes.apart import TURN_PORT, Apart, apart
from tests.fakes.desktop import UserDesktop, running_desktop
from tests.fakes.waiting import eventually
from tests.real.test_status_page import CHROMIUM
from tests.real.workbench import ZHANG_NUMBER, Workbench, workbench

pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(240),
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces: only root can"),
]

SECRET: Final = "what coturn and contactd know"
USER_SIZE: Final = "1600x1000x24"
# A window of half the screen: beside it the screen itself is seen.
FLAGS: Final = (
    "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-position=0,0",
    "--window-size=700,700", "--auto-select-desktop-capture-source=Entire screen",
)  # fmt: skip
# What Chromium itself says of its connections: there is no other way to ask which path was taken.
LISTEN: Final = """
const Real = RTCPeerConnection;
window.wires = [];
window.RTCPeerConnection = class extends Real {
  constructor(...given) { super(...given); window.wires.push(this); }
};
"""
PATH: Final = """async () => {
  for (const wire of window.wires.filter((each) => each.connectionState === "connected")) {
    const all = await wire.getStats();
    for (const each of all.values()) {
      if (each.type !== "transport" || !each.selectedCandidatePairId) continue;
      const pair = all.get(each.selectedCandidatePairId);
      return [all.get(pair.localCandidateId).candidateType,
              all.get(pair.remoteCandidateId).candidateType];
    }
  }
  return [];
}"""
SENT: Final = """async () => {
  let found = 0;
  for (const wire of window.wires) {
    for (const each of (await wire.getStats()).values()) {
      if (each.type === "outbound-rtp") found += each.packetsSent;
    }
  }
  return found;
}"""
# The colour of the screen at its right edge, as a video shows it just now.
COLOUR: Final = """(id) => {
  const video = document.getElementById(id);
  if (!video.srcObject && !video.currentSrc || !video.videoWidth) return null;
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  const brush = canvas.getContext("2d");
  brush.drawImage(video, 0, 0);
  return [...brush.getImageData(canvas.width * 0.93, canvas.height / 2, 1, 1).data].slice(0, 3);
}"""
RED, GREEN, BLUE = (0xC0, 0x20, 0x20), (0x20, 0xA0, 0x20), (0x20, 0x40, 0xC0)


def paint(desktop: UserDesktop, colour: tuple[int, int, int]) -> None:
    desktop.start("xsetroot", "-solid", "#{:02x}{:02x}{:02x}".format(*colour))


async def shows(page: Page, video: str, colour: tuple[int, int, int], within_s: float = 30) -> None:
    """Wait until a video shows the colour, as near as a video codec comes."""

    async def is_so() -> bool:
        seen = await page.evaluate(COLOUR, video)
        return bool(seen) and all(abs(a - b) < 40 for a, b in zip(seen, colour, strict=True))

    await eventually(is_so, within_s=within_s)


@dataclass(slots=True, kw_only=True)
class Case:
    """`user` and `desk` are pages; each has a screen of its own."""

    bench: Workbench
    nets: Apart
    ticket: str
    user_screen: UserDesktop
    desk_screen: UserDesktop
    user: Page
    desk: Page
    browser: Browser  # of the desk
    faults: list[str]

    async def agree(self) -> None:
        """Let the engineer invite, and the user agree to show their screen in the browser."""
        await self.desk.get_by_role("button", name="用短信发送链接").click()
        found: list[str] = []

        async def has_come() -> bool:
            texts = self.bench.texts_to(ZHANG_NUMBER)
            found[:] = [m for text in texts for m in re.findall(r"/s/(\d{9})", text)]
            return bool(found)

        await eventually(has_come)
        await self.user.goto(f"{self.bench.url}/s/{found[-1]}")
        await self.user.locator("button[value=view]").click()
        await self.user.wait_for_url("**/s/session")

    async def show(self) -> None:
        """Let the engineer come in and the user say yes, and choose their whole screen."""
        await self.desk.goto(f"{self.bench.url}/desk/tickets/{self.ticket}")
        join = self.desk.locator("#remote-now").get_by_role("button", name="进入协助")
        await join.click()
        await self.user.locator("#ask-yes").click()

    async def session(self) -> dict[str, Any]:
        found = (await self.bench.api(f"/remote-sessions?ticket={self.ticket}"))["items"]
        return dict(found[0])


@asynccontextmanager
async def browser_of(nets: Apart, side: str, screen: UserDesktop) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=nets.program(side, str(CHROMIUM)), headless=False, args=[*FLAGS],
            env=dict(screen.env),
        )  # fmt: skip
        yield browser
        await browser.close()


@asynccontextmanager
async def standing(folder: Path, **remote: Any) -> AsyncIterator[Case]:
    async with (
        apart(folder / "nets") as nets,
        workbench(folder, remote=remote) as bench,
        running_desktop(folder / "user", USER_SIZE) as user_screen,
        running_desktop(folder / "desk", "1800x1100x24") as desk_screen,
        browser_of(nets, "user", user_screen) as theirs,
        browser_of(nets, "desk", desk_screen) as ours,
    ):
        port = int(bench.url.rpartition(":")[2])
        for side in ("user", "desk"):
            await nets.door(side, port)
        await bench.text("打印机连不上，请帮忙看一下", name="one")
        ticket = await bench.ticket_of("text")
        desk = await bench.page(ours, "wang", f"/desk/tickets/{ticket}")
        take = desk.locator("#moves").get_by_role("button", name="接单")
        if await take.count():
            await take.first.click()
        context = await theirs.new_context(locale="zh-CN", no_viewport=True)
        user, faults = await context.new_page(), list[str]()
        for page in (user, desk):
            await page.add_init_script(LISTEN)
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.on("console", lambda e: faults.append(e.text) if "Security" in e.text else None)
        paint(user_screen, RED)
        paint(desk_screen, BLUE)
        case = Case(
            bench=bench, nets=nets, ticket=ticket, user_screen=user_screen,
            desk_screen=desk_screen, user=user, desk=desk, browser=ours, faults=faults,
        )  # fmt: skip
        try:
            yield case
        finally:
            while bench.contexts:  # before their browser goes
                await bench.contexts.popitem()[1].close()
        assert faults == []


async def test_a_screen_is_seen_directly_and_its_recording_plays(tmp_path: Path) -> None:
    async with standing(tmp_path, stun=[f"stun:10.201.1.1:{TURN_PORT}"]) as case:
        case.nets.joined(directly=True)
        await case.nets.start_coturn(SECRET)
        await case.agree()
        assert await case.user.evaluate(SENT) == 0
        await case.show()
        await shows(case.desk, "video", RED)
        paint(case.user_screen, GREEN)  # it is their screen, and as it is now
        await shows(case.desk, "video", GREEN)
        assert "relay" not in await case.desk.evaluate(PATH)
        width = await case.desk.evaluate("document.getElementById('video').videoWidth")
        assert width == 1600  # not made smaller: letters are read
        await asyncio.sleep(3)  # for the recording to have some length
        await case.user.locator("#stop button").click()
        await expect(case.desk.locator("#video")).to_be_hidden()
        await expect(case.desk.locator("#what")).to_have_text("用户已停止协助。")

        async def is_kept() -> bool:
            legs = (await case.session())["legs"]
            return bool(legs) and bool(legs[0]["recording"])

        await eventually(is_kept)
        number = (await case.session())["id"]
        path = f"/desk/remote/{number}/legs/1"
        page = await case.bench.page(case.browser, "tan", path)  # who may look at recordings
        video = page.locator("#video")
        await video.evaluate("(video) => { video.muted = true; return video.play(); }")
        await shows(page, "video", GREEN)
        played = json.loads(await video.evaluate("(v) => JSON.stringify([v.videoWidth, v.error])"))
        assert played == [1600, None]


async def test_a_screen_is_seen_through_a_relay_where_no_direct_way_is(tmp_path: Path) -> None:
    async with standing(
        tmp_path,
        stun=[f"stun:10.201.1.1:{TURN_PORT}"],
        turn=[f"turn:10.201.1.1:{TURN_PORT}?transport=udp"],
        turn_secret=SECRET,
    ) as case:
        await case.agree()
        await case.show()
        await expect(case.desk.locator("#video")).to_be_visible()
        await asyncio.sleep(5)  # without the relay nothing comes through
        assert await case.desk.evaluate(PATH) == []
        assert await case.desk.evaluate(COLOUR, "video") is None
        await case.nets.start_coturn(SECRET)
        await shows(case.desk, "video", RED, within_s=60)
        assert "relay" in await case.desk.evaluate(PATH)

        # A relay that starts again knows nobody: the page makes another connection by itself.
        await case.nets.stop_coturn()
        await case.nets.start_coturn(SECRET)
        paint(case.user_screen, GREEN)
        await shows(case.desk, "video", GREEN, within_s=90)

        # And the other way round: the engineer shows theirs.
        await case.desk.locator("#teach").click()
        await shows(case.user, "picture", BLUE)
        assert await case.desk.evaluate("document.getElementById('video').srcObject !== null")
        await case.desk.locator("#teach").click()
        await shows(case.user, "picture", GREEN)  # their own screen, as before
        await case.desk.locator("#end button").click()
        await expect(case.user.locator("#part")).to_have_attribute("data-state", "ended")
