"""A day at the workbench: Chromium, the whole daemon, real mail, texts as Twilio brings them.

The story of a call is in test_call_popup.py, that of the portal in test_portal_page.py, that of a
rota with a hole in test_admin_page.py.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest
from playwright.async_api import Browser, Error, Locator, Page, Route, expect

from tests.fakes.waiting import eventually
from tests.real.test_status_page import chromium
from tests.real.workbench import (
    WANG_NUMBER,
    ZHANG_MAIL,
    ZHANG_NUMBER,
    Workbench,
    workbench,
)

__all__ = ["chromium"]  # the fixture

pytestmark = pytest.mark.real


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Workbench]:
    async with workbench(tmp_path) as running:
        yield running


async def open_act(page: Page, act: str) -> None:
    """Open what a form is folded into."""
    await page.locator("details.act", has=page.locator(act)).locator("summary").click()


async def test_a_mail_is_answered_and_the_answer_to_that_is_on_the_ticket(
    chromium: Browser, here: Workbench
) -> None:
    await here.mail("打印机卡纸", "三楼财务室的打印机又卡纸了。")
    number = await here.ticket_of("mail")
    page = await here.page(chromium, "ling")
    await page.get_by_role("link", name=number).first.click()
    await page.wait_for_url(f"**/desk/tickets/{number}")  # the list has these words, too
    await expect(page.locator("main")).to_contain_text("三楼财务室的打印机又卡纸了。")
    if not await page.locator("#mail-words").is_visible():
        await open_act(page, "#mail-words")
    await page.locator("#mail-words").fill("您好，请先关机五分钟再开机。\n如仍卡纸请回复本邮件。")
    await page.locator("#mail").get_by_role("button", name="预览").click()
    await expect(page.locator(".letter")).to_contain_text("请先关机五分钟再开机")
    await page.locator("#mail").get_by_role("button", name="发送").click()
    await expect(page.locator("#line-box")).to_contain_text("请先关机五分钟再开机")

    def answers() -> list[str]:
        bodies = []
        for mail in here.mails_to(ZHANG_MAIL):
            part = mail.get_body(("plain",))
            content = part.get_content() if part is not None else ""
            if "关机五分钟" in content:
                bodies.append(str(mail["Message-ID"]))
        return bodies

    async def has_come() -> bool:
        return bool(answers())

    await eventually(has_come)
    (sent,) = answers()
    await here.mail("Re: 打印机卡纸", "谢谢，现在可以了。", answers=sent)
    await expect(page.locator("#line-box")).to_contain_text("谢谢，现在可以了。")
    clocks = (await here.api(f"/tickets/{number}"))["clocks"]
    first = next(each for each in clocks if each["metric"] == "answer")
    assert first["state"] == "stopped"


async def test_a_text_arrives_while_the_ticket_is_open_and_nothing_that_is_written_is_lost(
    chromium: Browser, here: Workbench
) -> None:
    await here.text("三楼打印机坏了", name="first")
    number = await here.ticket_of("text")
    page = await here.page(chromium, "ling", f"/desk/tickets/{number}")
    await page.evaluate("window.sameDocument = true")
    await page.locator("#words").fill("工程师下午三点到")
    await here.text(f"{number} 请带一个新硒鼓", name="second")
    await expect(page.locator("#line-box")).to_contain_text("请带一个新硒鼓")
    assert await page.evaluate("window.sameDocument")
    await expect(page.locator("#words")).to_have_value("工程师下午三点到")
    await page.locator("#text").get_by_role("button", name="发送").click()
    await expect(page.locator("#line-box")).to_contain_text("工程师下午三点到")

    async def has_come() -> bool:
        return any("工程师下午三点到" in each for each in here.texts_to(ZHANG_NUMBER))

    await eventually(has_come)


A_THUMB_FINDS_IT: Final = """(which) => {
  const button = document.querySelector(which);
  return button !== null && button.getBoundingClientRect().height >= 40;
}"""


async def test_an_engineer_is_sent_and_does_it_all_on_a_telephone(
    chromium: Browser, here: Workbench
) -> None:
    await here.text("收银机开不了机", name="first")
    number = await here.ticket_of("text")
    desk = await here.page(chromium, "ling", f"/desk/tickets/{number}")
    await open_act(desk, "#s-engineer")
    await desk.locator("#s-engineer").select_option("wang")
    await desk.get_by_role("button", name="派其前往").click()
    await expect(desk.locator("#visits")).to_contain_text("王伟")

    phone = await here.page(chromium, "wang", f"/desk/tickets/{number}", width=360)
    visits = phone.locator("#visits")
    assert await phone.evaluate("document.documentElement.scrollWidth") == 360
    for step, state in (("accept", "accepted"), ("set_out", "on_way")):
        # Asked within the page: what arrives live may put a new button in the place of the old one.
        await phone.wait_for_function(A_THUMB_FINDS_IT, arg=f"#visits button[value={step}]")
        await visits.locator(f"button[value={step}]").click()
        await expect(visits.locator(f".dispatch-{state}")).to_be_visible()
    code = await code_of(here)
    await visits.locator("input[name=code]").fill(code)
    await visits.locator("button[value=arrive]").click()
    await visits.locator("button[value=finish]").click()
    await expect(visits).to_contain_text("验证码")
    await expect(desk.locator("#visits .dispatch-done")).to_be_visible()
    (dispatch,) = (await here.api(f"/tickets/{number}"))["dispatches"]
    assert (dispatch["state"], dispatch["proved"]) == ("done", True)


async def test_a_button_that_is_pressed_while_the_ticket_changes_is_pressed(
    chromium: Browser, here: Workbench
) -> None:
    await here.text("打印机卡纸了", name="first")
    number = await here.ticket_of("text")
    page = await here.page(chromium, "ling", f"/desk/tickets/{number}")
    button = page.locator("#moves button").first
    place = await button.bounding_box()
    assert place is not None
    act = await button.inner_text()
    await page.mouse.move(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
    async with page.expect_response(f"**/desk/tickets/{number}") as drawn:
        await page.mouse.down()
        await here.text("是三楼的那台", name="second")
    await (await drawn.value).finished()
    await page.wait_for_timeout(100)  # in which it would be drawn
    async with page.expect_response(lambda each: each.request.method == "POST") as sent:
        await page.mouse.up()
    assert f"/desk/tickets/{number}/acts/" in (await sent.value).url, act
    await expect(page.locator("#line-box")).to_contain_text("是三楼的那台")  # what was late


async def test_nothing_in_a_form_can_be_pressed_while_it_is_under_way(
    chromium: Browser, here: Workbench
) -> None:
    page, visits = await sent_to(chromium, here)
    may_go_on = asyncio.Event()

    async def slow(route: Route) -> None:
        await may_go_on.wait()
        await route.continue_()

    await page.route("**/acts/step", slow)
    await visits.locator("button[value=accept]").click()
    await expect(visits.locator("button[value=decline]")).to_be_disabled()
    may_go_on.set()
    await expect(visits.locator(".dispatch-accepted")).to_be_visible()
    await expect(visits.locator("button[value=set_out]")).to_be_enabled()


async def test_what_was_asked_for_before_an_act_does_not_undo_it_on_the_page(
    chromium: Browser, here: Workbench
) -> None:
    page, visits = await sent_to(chromium, here)
    asked, answered = asyncio.Event(), asyncio.Event()

    async def late(route: Route) -> None:
        if asked.is_set():
            await route.continue_()
            return
        found = await route.fetch()  # as it was before
        asked.set()
        await answered.wait()
        with suppress(Error):  # nobody waits for it any more
            await route.fulfill(response=found)

    await page.route(re.compile(r"/desk/tickets/\d+$"), late)
    await here.text("还有一台", name="second")
    await asked.wait()
    await visits.locator("button[value=accept]").click()
    await expect(visits.locator(".dispatch-accepted")).to_be_visible()
    await page.wait_for_timeout(1000)  # what else there was to draw is drawn
    answered.set()
    await page.wait_for_timeout(300)  # in which it would be drawn
    assert await visits.locator(".dispatch-accepted").is_visible()
    await expect(page.locator("#line-box")).to_contain_text("还有一台")


async def sent_to(chromium: Browser, here: Workbench) -> tuple[Page, Locator]:
    """Send an engineer to the site; return their page of the ticket, and its part of visits."""
    await here.text("收银机开不了机", name="first")
    number = await here.ticket_of("text")
    await here.act(number, "dispatch", engineer="wang")
    page = await here.page(chromium, "wang", f"/desk/tickets/{number}", width=360)
    return page, page.locator("#visits")


async def code_of(here: Workbench) -> str:
    """Return the code that the requester was sent for the arrival."""
    found: list[str] = []

    async def is_there() -> bool:
        for each in here.texts_to(ZHANG_NUMBER):
            if code := re.search(r"(?<!\d)\d{4}(?!\d)", each):
                found.append(code[0])
        return bool(found)

    await eventually(is_there)
    return found[-1]


async def test_two_people_edit_one_ticket_and_neither_loses_a_word(
    chromium: Browser, here: Workbench
) -> None:
    await here.text("会议室没有网络", name="first")
    number = await here.ticket_of("text")
    ling = await here.page(chromium, "ling", f"/desk/tickets/{number}")
    tan = await here.page(chromium, "tan", f"/desk/tickets/{number}")
    for page in (ling, tan):
        await open_act(page, "#d-what")
    await ling.locator("#d-what").fill("会议室交换机指示灯不亮")
    await tan.locator("#d-what").fill("三楼会议室所有人都上不了网")
    await ling.locator("form", has=ling.locator("#d-what")).get_by_role("button").click()
    await expect(ling.locator("#described")).to_contain_text("交换机指示灯不亮")
    await tan.locator("form", has=tan.locator("#d-what")).get_by_role("button").click()
    await expect(tan.get_by_role("alert")).to_be_visible()
    await expect(tan.locator("#d-what")).to_have_value("三楼会议室所有人都上不了网")
    await expect(tan.locator("main")).to_contain_text("会议室交换机指示灯不亮")
    both = "三楼会议室所有人都上不了网；交换机指示灯不亮"
    await tan.locator("#d-what").fill(both)
    await tan.locator("form", has=tan.locator("#d-what")).get_by_role("button").click()
    await expect(tan.locator("#described")).to_contain_text(both)
    await expect(ling.locator("#described")).to_contain_text(both)
    journal = (await here.api(f"/tickets/{number}"))["journal"]
    said = [each["actor"] for each in journal if each["action"] == "ticket.described"]
    assert said == ["user:ling", "user:tan"]


async def test_the_engineer_who_is_told_by_text_finds_the_ticket_in_the_workbench(
    chromium: Browser, here: Workbench
) -> None:
    await here.text("扫描仪没有反应", name="first")
    number = await here.ticket_of("text")

    async def is_told() -> bool:
        return any(number in each for each in here.texts_to(WANG_NUMBER))

    await eventually(is_told)
    page = await here.page(chromium, "wang", "/desk", width=360)
    await page.get_by_role("link", name=number).first.click()
    await page.get_by_role("button", name="接单").first.click()
    await expect(page.locator("#head")).to_contain_text("王伟")
