"""The shell of the workbench in headless Chromium: keys, kept words, lost connections."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from playwright.async_api import Browser, Page, expect

from contactd.clock import SystemClock
from contactd.httpd import Route
from contactd.lab.ports import free_port
from contactd.signals import Signals
from contactd.tickets.people import Role
from contactd.web.callspage import CallsPage
from contactd.web.desklive import DeskLive
from contactd.web.pages import Pages
from tests.fakes.site import Site, running_site
from tests.real.test_status_page import TOO_FAINT, chromium, opened

__all__ = ["chromium"]  # the fixture

pytestmark = pytest.mark.real

LOST: Final = "#lost"


class Nothing:
    """A database in which nothing is."""

    async def caller_card(self, number: str) -> None:
        return None

    async def tickets(self, numbers: Any) -> list[Any]:
        return []

    async def changed(self, since: Any) -> list[Any]:
        return []

    async def recent(self, shown: Any, now: Any) -> list[Any]:
        return []

    async def names(self, keys: Any) -> dict[str, str]:
        return {}

    async def call(self, click: Any) -> None: ...

    async def callee(self, ticket: str) -> Any: ...

    async def sites(self) -> list[Any]:
        return []


@asynccontextmanager
async def shell(port: int | None = None) -> AsyncIterator[Site]:
    nothing, clock, lives = Nothing(), SystemClock(), list[DeskLive]()

    def make(pages: Pages) -> list[Route]:
        lives.append(
            DeskLive(
                pages=pages, look=tuple, reads=nothing, sites=nothing.sites, signals=Signals(),
                clock=clock, max_streams=10,
            )
        )  # fmt: skip
        page = CallsPage(
            pages=pages, look=tuple, reads=nothing, sites=nothing.sites, names=nothing.names,
            call=nothing.call, clock=clock,
        )  # fmt: skip
        return [*lives[0].routes(), *page.routes()]

    more: dict[str, Any] = {} if port is None else {"port": port}
    async with running_site(make_routes=make, **more) as site, lives[0].running():
        site.accounts.roles["li"] = Role.ADMIN
        yield site
        lives[0].end_streams()


async def log_in(page: Page, url: str) -> None:
    await page.goto(f"{url}/login?next=/desk/calls")
    await page.locator("#name").fill("li")
    await page.locator("#password").fill("correct horse")
    await page.locator("button.primary").first.click()
    await page.wait_for_url("**/desk/calls")


async def test_keys_lead_about_and_can_be_switched_off(chromium: Browser) -> None:
    async with shell() as site, opened(chromium, site.url) as page:
        await log_in(page, site.url)
        await page.keyboard.press("/")
        await expect(page.locator("#seek")).to_be_focused()
        await page.keyboard.type("g s?")  # words, while somebody writes
        await expect(page.locator("#seek")).to_have_value("g s?")
        await page.keyboard.press("Escape")
        await page.keyboard.press("?")
        keys = page.locator("#keys")
        await expect(keys).to_be_visible()
        await expect(keys).to_contain_text("快捷键")
        await expect(keys.locator("kbd").first).to_be_visible()
        await keys.locator("[name=on]").uncheck()
        await page.keyboard.press("Escape")
        await page.keyboard.press("?")
        await expect(keys).to_be_hidden()
        await page.reload()
        await page.keyboard.press("g")
        await page.keyboard.press("s")
        assert page.url.endswith("/desk/calls"), "it is remembered"
        await page.locator("button.keys").click()
        await keys.locator("[name=on]").check()
        await keys.get_by_role("button").click()
        await page.keyboard.press("Control+g")
        await page.keyboard.press("g")
        await page.keyboard.press("s")
        await page.wait_for_url(f"{site.url}/")


WRITING: Final = """(action) => document.querySelector("main").insertAdjacentHTML("beforeend",
    `<form method="post" action="${action}"><textarea data-keep="note"></textarea>
     <input name="name" value="li"><input name="password" value="correct horse">
     <input name="next" value="/desk/calls"></form>`)"""
DRAWN: Final = """() => document.dispatchEvent(new CustomEvent("htmx:afterSettle",
    { detail: { elt: document.querySelector("form:has(textarea)") } }))"""
KEPT: Final = "Object.keys(sessionStorage).filter((key) => key.endsWith(' note')).length"
SEND: Final = "document.querySelector('form:has(textarea)').requestSubmit()"


async def test_words_are_kept_until_it_is_known_that_they_were_taken(chromium: Browser) -> None:
    async with shell() as site, opened(chromium, site.url) as page:
        await log_in(page, site.url)
        await page.evaluate(WRITING, "/nowhere")
        await page.locator("textarea").fill("写了一半的话")
        async with page.expect_navigation():
            await page.evaluate(SEND)  # it fails
        await page.goto(f"{site.url}/desk/calls")
        assert await page.evaluate(KEPT) == 1
        await page.evaluate(WRITING, "/login")
        await page.evaluate(DRAWN)
        await expect(page.locator("textarea")).to_have_value("写了一半的话")
        async with page.expect_navigation():
            await page.evaluate(SEND)  # it is taken: 303
        await page.wait_for_url("**/desk/calls")
        assert await page.evaluate(KEPT) == 0


async def test_a_lost_connection_is_said_and_taken_up_again(chromium: Browser) -> None:
    port = free_port()
    async with opened(chromium, "about:blank") as page:
        async with shell(port) as site:
            await log_in(page, site.url)
            sessions = dict(site.accounts.sessions)
            await expect(page.locator(LOST)).to_be_hidden()
            await page.evaluate(
                "window.raised = 0; document.body.addEventListener('calls-changed', "
                "() => { window.raised += 1; })"
            )
        await expect(page.locator(LOST)).to_be_visible()
        async with shell(port) as site:
            site.accounts.sessions |= sessions
            await expect(page.locator(LOST)).to_be_hidden()
            await page.wait_for_function("window.raised >= 1")


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1440, "dark")])
async def test_the_shell_fits_is_legible_and_works_without_scripts(
    chromium: Browser, width: int, scheme: str
) -> None:
    async with (
        shell() as site,
        opened(
            chromium, site.url, width=width, color_scheme=scheme, java_script_enabled=False
        ) as page,
    ):
        await log_in(page, site.url)
        if width == 360:
            await page.locator(".rail .more summary").click()
        people = page.get_by_role("link", name="人员")
        await expect(people.first if width > 360 else people.last).to_be_visible()
        await page.locator(".account summary").click()
        await page.get_by_role("link", name="English").click()
        await expect(page.get_by_role("heading", name="Calls")).to_be_visible()
    async with (
        shell() as site,
        opened(chromium, site.url, width=width, color_scheme=scheme) as page,
    ):
        await log_in(page, site.url)
        assert await page.evaluate("document.documentElement.scrollWidth") == width
        assert await page.evaluate(TOO_FAINT) == []
