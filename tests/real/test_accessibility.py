"""axe-core looks at every page, as each role that sees it, on a phone and on a screen."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.async_api import Browser, Page

from tests.real.test_status_page import chromium
from tests.real.workbench import Workbench, workbench

__all__ = ["chromium"]  # the fixture

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

AXE: Final = Path("build/peers/node_modules/axe-core/axe.min.js")
SERIOUS: Final = frozenset({"serious", "critical"})
# Pages by who looks at them; `{ticket}` is one with a mail and a text on it, `{person}` its
# requester. "" is somebody who has not signed in.
PAGES: Final = {
    "": ("/", "/?wall", "/login", "/help", "/help/new", "/help/my", "/nowhere",
         "/s", "/s/000000000"),
    "tan": (
        "/desk", "/desk?q=打印机", "/desk/tickets/{ticket}", "/desk/new", "/desk/calls", "/texts",
        "/desk/people", "/desk/people/{person}", "/desk/duty", "/account", "/desk/acts",
    ),
    "wang": ("/desk/duty", "/desk/tickets/{ticket}", "/desk/remote"),
    "root": ("/desk/admin", "/desk/users", "/desk/webhooks"),
}  # fmt: skip


MOST_BYTES: Final = 150_000
# What came by the wire, or would have without the browser's cache: compressed, without heads.
WEIGHT: Final = """() => ["navigation", "resource"]
  .flatMap((kind) => performance.getEntriesByType(kind))
  .reduce((sum, entry) => sum + entry.encodedBodySize, 0)"""


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Workbench]:
    async with workbench(tmp_path) as running:
        await running.mail("打印机卡纸", "三楼财务室的打印机卡纸了，型号 M428。\n请尽快处理。")
        await running.ticket_of("mail")
        await running.text("打印机又卡纸了", name="first")
        await running.ticket_of("text")
        yield running


async def found_by_axe(page: Page) -> list[str]:
    """Return what is seriously wrong with a page, by WCAG 2.1 A and AA and good practice."""
    await page.add_init_script(path=AXE)
    await page.reload()
    said: Any = await page.evaluate("async () => JSON.stringify(await axe.run(document))")
    return [
        f"{each['id']}: {each['help']}: {node['html'][:160]}"
        for each in json.loads(said)["violations"]
        if each["impact"] in SERIOUS
        for node in each["nodes"]
    ]


@pytest.mark.parametrize("language", ["zh-CN", "en"])
@pytest.mark.parametrize("width", [1440, 360])
async def test_no_page_has_a_serious_fault_or_weighs_much(
    chromium: Browser, here: Workbench, width: int, language: str
) -> None:
    ticket = await here.ticket_of("mail")
    person = (await here.api(f"/tickets/{ticket}"))["requester"]["id"]
    faults: list[str] = []
    for who, paths in PAGES.items():
        for path in paths:
            where = path.format(ticket=ticket, person=person)
            page = await here.page(chromium, who, where, width=width, language=language)
            wide = await page.evaluate("document.documentElement.scrollWidth")
            if wide > width:
                faults.append(f"{where} is {wide} wide at {width}")
            weight = await page.evaluate(WEIGHT)
            assert weight > 5_000, "a page and its style weigh something"
            if weight > MOST_BYTES:
                faults.append(f"{where} weighs {weight:,} bytes")
            faults += [f"{where}: {each}" for each in await found_by_axe(page)]
            await page.close()
    assert not faults, "\n".join(faults)
