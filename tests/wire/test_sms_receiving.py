"""What providers bring is stored before they hear so: whole texts, texts in parts, files."""

import asyncio
import random
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from contactd.errors import TemporaryFailure
from contactd.routing.notify import SendState
from contactd.sms.gateway import Incoming, Media, Part
from contactd.sms.receiving import GAP, Receiving
from contactd.store.blobs import Blobs
from contactd.store.engine import Database
from contactd.store.schema import attachments, contacts, outbox
from contactd.store.texts import Texts
from contactd.tickets.service import TicketService
from tests.fakes.clock import FakeClock

SENDER, OURS = "+8613900000002", "10690000"
MINUTE = timedelta(minutes=1)


@pytest.fixture
def receiving(
    database: Database, clock: FakeClock, tickets: TicketService, tmp_path: Path
) -> Receiving:
    async def outcome(_ref: str, _state: SendState) -> None:
        raise AssertionError("nothing is reported here")

    return Receiving(
        receive=tickets.receive,
        outcome=outcome,
        put=Blobs(tmp_path / "blobs").put_bytes,
        texts=Texts(database, clock),
        make_way=database.make_way,
    )


def parts(words: Iterable[str], clock: FakeClock, reference: int = 7) -> list[Part]:
    given = list(words)
    return [
        Part(
            sender=SENDER, recipient=OURS, reference=reference, total=len(given), number=number,
            text=text, received_at=clock.now(),
        )
        for number, text in enumerate(given, start=1)
    ]  # fmt: skip


async def heard(database: Database) -> list[str]:
    async with database.reading() as connection:
        found = await connection.execute(select(contacts.c.text).order_by(contacts.c.id))
        return list(found.scalars())


async def bring(receiving: Receiving, *given: Part) -> None:
    for part in given:
        await receiving.received_part("smpp", part)


async def test_parts_in_any_order_and_more_than_once_are_one_text(
    receiving: Receiving, database: Database, clock: FakeClock
) -> None:
    for seed in range(6):
        words = [f"{seed}: 网络断了，", "三楼的人😀", "都上不去"]
        given = parts(words, clock, reference=seed) * 2
        random.Random(seed).shuffle(given)
        await bring(receiving, *given)
        assert (await heard(database))[seed:] == ["".join(words)]


async def test_parts_that_come_at_the_same_moment_are_one_text(
    receiving: Receiving, database: Database, clock: FakeClock
) -> None:
    given = parts("一二三四五六七八", clock)
    await asyncio.gather(*(receiving.received_part("smpp", part) for part in given))
    assert await heard(database) == ["一二三四五六七八"]


async def test_an_emoji_that_is_cut_in_two_is_whole_again(
    receiving: Receiving, database: Database, clock: FakeClock
) -> None:
    await bring(receiving, *reversed(parts(["好的\ud83d", "\ude00谢谢"], clock)))
    assert await heard(database) == ["好的😀谢谢"]


async def test_a_reference_that_is_used_again_is_another_text(
    receiving: Receiving, database: Database, clock: FakeClock
) -> None:
    await bring(receiving, *parts(["一", "二"], clock))
    await bring(receiving, *parts(["三", "四"], clock))  # at once
    clock.advance(20 * MINUTE)
    await bring(receiving, *parts(["三", "四"], clock))  # the same words, much later
    assert await heard(database) == ["一二", "三四", "三四"]


async def test_the_same_words_to_two_gateways_are_two_texts(
    receiving: Receiving, database: Database, clock: FakeClock
) -> None:
    for gateway in ("smpp", "other"):
        for part in parts(["一", "二"], clock):
            await receiving.received_part(gateway, part)
    assert await heard(database) == ["一二", "一二"]


async def test_a_text_of_which_a_part_never_comes_is_filed_with_a_gap(
    receiving: Receiving, database: Database, clock: FakeClock
) -> None:
    first, second, third = parts(["一", "二", "三"], clock)
    began = clock.now()
    await bring(receiving, first, third)
    await bring(receiving, *parts(["完", "整"], clock, reference=8))
    clock.advance(9 * MINUTE)
    await receiving.file_unfinished(began, clock.now())
    assert await heard(database) == ["完整"]
    clock.advance(2 * MINUTE)
    for _ in range(2):
        await receiving.file_unfinished(began, clock.now())
    assert await heard(database) == ["完整", f"一{GAP}三"]
    await bring(receiving, second)  # after all: nothing of it is lost
    assert await heard(database) == ["完整", f"一{GAP}三", "一二三"]


async def test_a_part_that_comes_late_is_no_gap_in_the_text(
    receiving: Receiving, database: Database, clock: FakeClock
) -> None:
    began, (first, second) = clock.now(), parts(["一", "二"], clock)
    await bring(receiving, first)
    clock.advance(8 * MINUTE)
    await bring(receiving, replace(second, received_at=clock.now()))
    for since in (began + 4 * MINUTE, began):  # a time may hold one of them only
        for _ in range(4):
            clock.advance(3 * MINUTE)
            await receiving.file_unfinished(since, clock.now())
    assert await heard(database) == ["一二"]


async def test_parts_are_forgotten_after_days_and_texts_are_not(
    receiving: Receiving, database: Database, clock: FakeClock
) -> None:
    texts = Texts(database, clock)
    await bring(receiving, *parts(["一", "二"], clock))
    clock.advance(timedelta(days=4))
    await texts.forget_parts()
    await bring(receiving, parts(["一", "二"], clock)[0])
    assert await heard(database) == ["一二"]


async def test_what_cannot_be_stored_is_an_error_for_the_provider(
    receiving: Receiving, database: Database, clock: FakeClock
) -> None:
    await database.close()
    for part in parts(["一", "二"], clock):
        with pytest.raises(TemporaryFailure):
            await receiving.received_part("smpp", part)
    with pytest.raises(TemporaryFailure):
        await receiving.received(
            "smpp",
            Incoming(id="1", sender=SENDER, recipient=OURS, text="一", received_at=clock.now()),
        )


async def test_a_file_that_came_with_a_text_is_kept_with_it(
    receiving: Receiving, database: Database, clock: FakeClock, tmp_path: Path
) -> None:
    photo = Media(content=b"\x89PNG", media_type="image/png", name="photo.png")
    text = Incoming(
        id="SM1", sender=SENDER, recipient=OURS, text="", received_at=clock.now(), media=(photo,)
    )
    for _ in range(2):
        await receiving.received("twilio", text)
    async with database.reading() as connection:
        (file,) = (await connection.execute(select(attachments))).mappings().all()
    assert (file["kind"], file["media_type"], file["name"]) == (
        "attachment", "image/png", "photo.png",
    )  # fmt: skip
    assert Blobs(tmp_path / "blobs").path(file["sha256"]).read_bytes() == b"\x89PNG"


@pytest.mark.parametrize(
    ("words", "asks"),
    [
        ("打印机坏了", False), ("退订", True), ("TD", True), ("stop", True), ("恢复", True),
        ("进度", True), ("OK", True), ("5", True), ("OK 打印机又坏了", False), ("", False),
        ("T恤", False), ("N楼没网", False), ("stop the printer", False),
    ],
)  # fmt: skip
async def test_only_a_text_that_says_what_to_do_is_looked_at_again(
    receiving: Receiving, database: Database, clock: FakeClock, words: str, asks: bool
) -> None:
    await receiving.received(
        "smpp", Incoming(id="1", sender=SENDER, recipient=OURS, text=words, received_at=clock.now())
    )
    async with database.reading() as connection:
        kinds = set((await connection.execute(select(outbox.c.kind))).scalars())
    assert ("TextDue" in kinds) is asks
    assert await heard(database) == [words]
