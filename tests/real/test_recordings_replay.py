"""What was recorded of a real session: as the engineer saw it, also cut off, also as a film."""

import asyncio
import hashlib
import os
import struct
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.async_api import Browser, Page, expect

from contactd.remote import fbs
from tests.fakes.waiting import eventually
from tests.real.test_remote_viewer import Help, helping, invite
from tests.real.test_status_page import chromium
from tests.real.workbench import Workbench

__all__ = ["chromium"]  # the fixture

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

ROOT: Final = Path(__file__).parents[2]
FILM_S: Final = 100.0
# What is on a canvas of noVNC: its size, and a number for all of its pixels.
PIXELS: Final = """() => {
  const canvas = document.querySelector("#screen canvas");
  const all = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  let sum = 17;
  for (const each of new Uint32Array(all.buffer)) sum = (Math.imul(sum, 31) + each) | 0;
  const kinds = new Set(new Uint32Array(all.buffer)).size;
  return { width: canvas.width, height: canvas.height, sum, kinds };
}"""


@pytest.fixture
async def help_(tmp_path: Path, chromium: Browser) -> AsyncIterator[Help]:
    async with helping(tmp_path, chromium) as help_:
        yield help_


async def pixels(page: Page) -> dict[str, Any]:
    found: dict[str, Any] = await page.evaluate(PIXELS)
    return found


async def at_rest(page: Page) -> dict[str, Any]:
    """Return the pixels, once there is a picture that has not changed for half a second."""
    while True:
        before = await pixels(page)
        await page.wait_for_timeout(500)
        if before["kinds"] > 1 and before == await pixels(page):
            return before


async def worked(help_: Help, folder: Path) -> tuple[str, list[dict[str, Any]], dict[str, Any]]:
    """Help somebody; return the session, what the engineer saw first (thrice), and last."""
    typed = folder / "typed"
    await invite(help_)
    page = await help_.share()
    first = [await at_rest(page) for _ in range(3)]
    await help_.user.xterm(typed)
    await page.locator("#screen canvas").focus()
    for words in ("it prints again", "the queue is empty", "goodbye"):
        await page.keyboard.type(words, delay=10)
        await page.keyboard.press("Enter")
    await eventually(lambda: _has(typed, "goodbye"))
    last = await at_rest(page)
    session = await page.evaluate("document.body.dataset.session")
    help_.user.press_hotkey()
    await expect(page.locator("#what")).to_have_text("用户已停止协助。")
    return str(session), first, last


async def _has(path: Path, words: str) -> bool:
    return words in path.read_text(encoding="utf-8", errors="replace")


async def replayed(bench: Workbench, chromium: Browser, session: str) -> Page:
    """Open the recording as a supervisor, once it is kept."""
    path = f"/desk/remote/{session}/legs/1"
    page = await bench.page(chromium, "tan", path)
    for _ in range(150):
        if await page.locator("#play").count():
            break
        await page.wait_for_timeout(200)
        await page.goto(bench.url + path)
    await expect(page.locator("#play")).to_be_enabled()
    return page


async def go(page: Page, to: int) -> None:
    """Move the slider, and wait until that place is on the screen."""
    await page.locator("#at").evaluate(
        "(at, to) => { at.value = to; at.dispatchEvent(new Event('input'));"
        " at.dispatchEvent(new Event('change')); }",
        to,
    )
    shown = await page.locator("#at").input_value()
    await expect(page.locator("#player")).to_have_attribute("data-at", shown)


async def all_shown(page: Page, times: list[int]) -> list[dict[str, Any]]:
    """Return the pixels that the recording shows at these times."""
    await page.locator("#at").evaluate("at => { at.step = 1; }")
    found = []
    for at in times:
        await go(page, at)
        found.append(await pixels(page))
    return found


def kept(folder: Path) -> Path:
    """Return the file of the only recording."""
    (found,) = [each for each in folder.rglob("blobs/*/*") if _is_recording(each)]
    return found


def _is_recording(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(fbs.MAGIC)) == fbs.MAGIC


async def test_a_recording_shows_what_the_engineer_saw_forth_and_back(
    help_: Help, tmp_path: Path, chromium: Browser
) -> None:
    session, first, last = await worked(help_, tmp_path)
    assert last not in first
    page = await replayed(help_.bench, chromium, session)
    lasts = int(await page.locator("#player").get_attribute("data-lasts") or "0")
    with kept(tmp_path).open("rb") as file:
        times = sorted({each.at_ms for each in fbs.read(file)})
    # The user's own bar counts and blinks: which moment it was is not known, only that it was.
    # On a machine that stands still a picture may seem at rest that is only half drawn.
    shown = await all_shown(page, times)
    assert last in shown, (last, shown)
    assert sum(each in shown for each in first) >= 2, (first, shown)
    await go(page, lasts)
    end = await pixels(page)
    await go(page, 0)
    assert await pixels(page) != end
    await page.locator("#speed").select_option("8")
    await page.locator("#play").click()
    await expect(page.locator("#play")).to_have_text("播放")
    await expect(page.locator("#at")).to_have_value(str(lasts))
    assert await pixels(page) == end
    journal = await help_.bench.page(chromium, "tan", f"/desk/tickets/{help_.ticket}")
    heard = await journal.locator("body").inner_text()
    assert heard.count("录像") >= 1
    assert kept(tmp_path).name == hashlib.sha256(kept(tmp_path).read_bytes()).hexdigest()


async def test_a_recording_that_was_cut_off_plays_up_to_there(
    help_: Help, tmp_path: Path, chromium: Browser
) -> None:
    session, _, last = await worked(help_, tmp_path)
    await replayed(help_.bench, chromium, session)  # it is kept now
    path = kept(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    page = await replayed(help_.bench, chromium, session)
    await go(page, int(await page.locator("#at").get_attribute("max") or "0"))
    await page.locator("#play").click()
    await expect(page.locator("#told")).to_have_text("录像到此中断。")
    seen = await pixels(page)
    assert (seen["width"], seen["height"]) == (last["width"], last["height"])
    assert seen["kinds"] > 1


async def test_a_recording_becomes_a_film(help_: Help, tmp_path: Path, chromium: Browser) -> None:
    session, _, _ = await worked(help_, tmp_path)
    page = await replayed(help_.bench, chromium, session)
    async with page.expect_download() as begun:
        await page.get_by_role("link", name="保存录像").click()
    download = await begun.value
    assert download.suggested_filename == f"{help_.ticket}-{session}-1.fbs"
    recording, film = tmp_path / "it.fbs", tmp_path / "it.mp4"
    await download.save_as(recording)
    script = str(ROOT / "scripts/recording-to-mp4.sh")
    await _run(script, str(recording), str(film), "--speed", "2")
    told = await _run(
        "ffprobe", "-v", "error", "-count_frames", "-select_streams", "v", "-show_entries",
        "stream=codec_name,width,height,nb_read_frames", "-of", "csv=p=0", str(film),
    )  # fmt: skip
    codec, width, height, frames = told.decode().strip().split(",")
    with recording.open("rb") as file:
        blocks = list(fbs.read(file))
    assert (codec, int(width), int(height)) == ("h264", *struct.unpack(">HH", blocks[2].data[:4]))
    lasts = blocks[-1].at_ms / 1000
    assert int(frames) == pytest.approx(12 * lasts, rel=0.35, abs=24)
    raw = await _run(
        "ffmpeg", "-v", "error", "-sseof", "-0.5", "-i", str(film), "-frames:v", "1",
        "-f", "rawvideo", "-pix_fmt", "gray", "-",
    )  # fmt: skip
    assert max(raw) > 200  # the terminal
    assert min(raw) < 60


async def _run(*command: str) -> bytes:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ
    )
    async with asyncio.timeout(FILM_S):
        out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return out
