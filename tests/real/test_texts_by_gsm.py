"""Texts from the air to the ticket and back: the daemon, the PBX and its GSM gateway."""

import asyncio
import re
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import closing
from typing import Any

import pytest
import pytest_asyncio

from contactd.lab.desk import DeskLab, open_desk
from contactd.lab.gsm import Gsm
from tests.fakes.waiting import eventually

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

LI = "+8613900000002"


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="desk")
async def _desk() -> AsyncIterator[DeskLab]:
    async with open_desk(with_gsm=True) as desk:
        yield desk


@pytest.fixture(name="gsm")
def _gsm(desk: DeskLab) -> Gsm:
    assert desk.lab.gsm is not None
    return desk.lab.gsm


def contacts(desk: DeskLab) -> list[Mapping[str, Any]]:
    path = desk.folder / "data" / "contactd.sqlite3"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        database.row_factory = sqlite3.Row
        return database.execute("SELECT * FROM contacts WHERE medium = 'text'").fetchall()


def sent_to(gsm: Gsm, number: str) -> list[str]:
    return [words.decode() for to, words in gsm.sent() if to == number]


async def test_a_text_becomes_a_ticket_and_is_confirmed_with_its_number(
    desk: DeskLab, gsm: Gsm
) -> None:
    await gsm.bring(LI, "打印机着火了，\n3楼 😀")

    async def answers() -> list[str]:
        return sent_to(gsm, LI)

    confirmation = (await eventually(answers))[0]
    with closing(sqlite3.connect(desk.folder / "data" / "contactd.sqlite3")) as database:
        ((number,),) = database.execute("SELECT number FROM tickets").fetchall()
    assert re.search(rf"(?<!\d){number}(?!\d)", confirmation)
    (contact,) = contacts(desk)
    assert (contact["text"], contact["from_value"]) == ("打印机着火了，\n3楼 😀", LI)


async def test_300_texts_survive_the_death_of_contactd(desk: DeskLab, gsm: Gsm) -> None:
    texts = [(f"+86138{n:08}", f"{n}: 没有网络,\n房间 {n} 😀") for n in range(300)]

    async def bring() -> None:
        for n, (sender, text) in enumerate(texts):
            await gsm.bring(sender, text)
            if n % 10 == 0:
                await asyncio.sleep(0.1)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(bring())
        await asyncio.sleep(1)
        await desk.daemon.kill()
        await asyncio.sleep(1)
        await desk.daemon.start()
        await asyncio.sleep(0.5)
        await desk.daemon.kill()
        await desk.daemon.start()

    def theirs() -> list[Mapping[str, Any]]:
        return [row for row in contacts(desk) if row["from_value"] != LI]

    async def all_there() -> bool:
        return len(theirs()) >= 300

    await eventually(all_there, within_s=90)
    rows = theirs()
    assert Counter((row["from_value"], row["text"]) for row in rows) == Counter(texts)
    assert not [row for row in rows if row["source"] == "replay"]
