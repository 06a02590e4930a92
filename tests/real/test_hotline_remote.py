"""Key 3: a caller is texted the link to remote help; the real PBX, its GSM gateway, the daemon."""

import re
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import pytest
import pytest_asyncio

from contactd.lab.desk import DID, DeskLab, open_desk
from contactd.lab.gsm import Gsm
from tests.fakes.waiting import eventually

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

PUBLIC: Final = "https://desk.example.cn"
LINK: Final = re.compile(rf"{re.escape(PUBLIC)}/s/\d{{9}}(?!\d)")
PLAYED: Final = re.compile(r"<([^>]+)> Playing '([^']+)\.\w+'")
PRESS: Final = "w5.6-d3"  # the notice ends 5 s after the answer; a key before that does nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    said: Sequence[str]  # in answer to the key
    ticket: str
    asked: int  # how often the journal has that the requester wants remote help


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="desk")
async def _desk() -> AsyncIterator[DeskLab]:
    settings = {"http": {"public_url": PUBLIC}}
    options = {"MENU_WAIT": "1", "RECORD": "no"}
    async with open_desk(with_gsm=True, options=options, settings=settings) as desk:
        await desk.pbx.cli("logger add channel heard verbose(3)")
        yield desk


@pytest.fixture(name="gsm")
def _gsm(desk: DeskLab) -> Gsm:
    assert desk.lab.gsm is not None
    return desk.lab.gsm


def rows(desk: DeskLab, query: str, *values: object) -> list[Any]:
    path = desk.folder / "data" / "contactd.sqlite3"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return database.execute(query, values).fetchall()


def links_to(gsm: Gsm, number: str) -> list[str]:
    texts = [words.decode() for to, words in gsm.sent() if to == number]
    return [found[0] for text in texts for found in LINK.finditer(text)]


def heard(desk: DeskLab) -> dict[str, list[str]]:
    """Return what was played to whom, by channel."""
    log = desk.pbx.path("/var/log/asterisk/heard").read_text(encoding="utf-8", errors="replace")
    found: dict[str, list[str]] = {}
    for channel, sound in PLAYED.findall(log):
        found.setdefault(channel, []).append(sound.removeprefix("contactd/"))
    return found


async def said_to(desk: DeskLab, caller: str, script: str) -> list[str]:
    """Let somebody call; return what that call was told after the key."""
    before = set(heard(desk))
    call = await desk.network.call(caller=caller, did=DID, script=script)
    await call.ended(60)
    (said,) = (said for name, said in heard(desk).items() if name not in before)
    start = next(n for n, sound in enumerate(said) if sound.startswith("remote"))
    return said[start:]


async def story(desk: DeskLab, caller: str, script: str) -> Story:
    said = await said_to(desk, caller, script)
    ((ticket, ticket_id),) = rows(
        desk,
        "SELECT t.number, t.id FROM contacts c JOIN tickets t ON t.id = c.ticket_id "
        "WHERE c.medium = 'call' AND c.from_value LIKE ?",
        f"%{caller.lstrip('0')}",
    )
    wish = "SELECT 1 FROM journal WHERE ticket_id = ? AND action = 'remote.asked'"
    return Story(said=said, ticket=ticket, asked=len(rows(desk, wish, ticket_id)))


async def test_key_3_texts_the_caller_a_link_that_opens_the_share_page(
    desk: DeskLab, gsm: Gsm
) -> None:
    told = await story(desk, "13912345601", f"{PRESS}-w3-h")
    assert told.said == ["remote-sent"]
    assert told.asked == 1

    async def links() -> list[str]:
        return links_to(gsm, "+8613912345601")

    (link,) = await eventually(links)
    async with aiohttp.ClientSession() as http:
        async with http.get(desk.daemon.url + link.removeprefix(PUBLIC)) as page:
            assert page.status == 200
            assert told.ticket in await page.text()
        async with http.get(f"{desk.daemon.url}/s/000000000") as wrong:
            assert wrong.status == 404
    log = desk.daemon.log.read_text(encoding="utf-8", errors="replace")
    assert "remote.link_sent" in log
    assert link.rpartition("/")[2] not in log


async def test_key_3_is_offered_in_the_menu_while_texts_can_go_out(desk: DeskLab) -> None:
    before = set(heard(desk))
    call = await desk.network.call(caller="13912345602", did=DID, script="w60-h")

    async def offered() -> list[str]:
        new = (said for name, said in heard(desk).items() if name not in before)
        found = [said for said in new if "menu-language" in said]
        return [sound for said in found for sound in said if sound.startswith("menu")]

    assert await eventually(offered) == ["menu", "menu-remote", "menu-language"]
    await call.hangup()


async def test_a_landline_is_told_what_to_do_and_is_connected(desk: DeskLab, gsm: Gsm) -> None:
    told = await story(desk, "02038889901", f"{PRESS}-w14-h")
    assert told.said[:2] == ["remote-no-mobile", "connecting"]
    assert told.asked == 0
    assert links_to(gsm, "+862038889901") == []


async def test_without_contactd_key_3_leads_to_a_person(desk: DeskLab) -> None:
    await desk.daemon.kill()
    try:
        said = await said_to(desk, "13912345603", f"{PRESS}-w10-h")
    finally:
        await desk.daemon.start()
    assert said[:2] == ["remote-failed", "connecting"]
