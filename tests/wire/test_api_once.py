"""Idempotency keys: a request that is sent again does nothing again, however the first ended."""

from datetime import timedelta
from io import BytesIO
from typing import Any

import pytest
from sqlalchemy import func, insert, select

from contactd.errors import TemporaryFailure
from contactd.store.engine import Database
from contactd.store.idempotency import (
    LASTS,
    LEASE,
    Idempotency,
    InProgress,
    Lost,
    Reused,
    Stored,
    fingerprint,
)
from contactd.store.keyed import Mark, Taken, marking
from contactd.store.schema import api_keys, cursors
from contactd.tickets.people import Role
from contactd.web.endpoints import Rates
from tests.fakes.clock import FakeClock
from tests.wire.test_api import World, world

__all__ = ["world"]  # the fixture

WHO = "token:oa"
REQUEST = fingerprint([b"POST", b"/x"])
PROBLEM = "urn:problem-type:contactd:"


async def act(database: Database, clock: FakeClock, name: str) -> None:
    row = {"source": name, "position": "", "updated_at": clock.now()}
    async with database.writing() as connection:
        await connection.execute(insert(cursors), row)


async def count(database: Database, table: Any) -> int:
    async with database.reading() as connection:
        found = await connection.execute(select(func.count()).select_from(table))
        return int(found.scalar_one())


async def begun(keys: Idempotency) -> Mark:
    mark = await keys.begin(WHO, "k", REQUEST)
    assert isinstance(mark, Mark)
    return mark


# What is stored


async def test_an_answer_that_was_kept_is_given_again(database: Database, clock: FakeClock) -> None:
    keys = Idempotency(database, clock)
    answer = Stored(status=201, body=b"{}", location="/x/1")
    await keys.keep(await begun(keys), answer)
    assert await keys.begin(WHO, "k", REQUEST) == answer
    assert isinstance(await keys.begin("token:other", "k", REQUEST), Mark)


async def test_a_key_belongs_to_one_request(database: Database, clock: FakeClock) -> None:
    keys = Idempotency(database, clock)
    await begun(keys)
    with pytest.raises(Reused):
        await keys.begin(WHO, "k", fingerprint([b"POST", b"/y"]))
    assert fingerprint([b"ab", b"c"]) != fingerprint([b"a", b"bc"])


async def test_a_request_that_is_being_done_is_not_done_beside(
    database: Database, clock: FakeClock
) -> None:
    keys = Idempotency(database, clock)
    await begun(keys)
    with pytest.raises(InProgress):
        await keys.begin(WHO, "k", REQUEST)


async def test_a_crash_before_the_commit_leaves_it_to_be_done(
    database: Database, clock: FakeClock
) -> None:
    keys = Idempotency(database, clock)
    mark = await begun(keys)
    with pytest.raises(ZeroDivisionError), marking(mark):
        async with database.writing():
            raise ZeroDivisionError
    clock.advance(LEASE + timedelta(seconds=1))
    assert isinstance(await keys.begin(WHO, "k", REQUEST), Mark)


async def test_a_crash_between_commit_and_answer_is_never_done_again(
    database: Database, clock: FakeClock
) -> None:
    keys = Idempotency(database, clock)
    mark = await begun(keys)
    with marking(mark):
        await act(database, clock, "done")
    clock.advance(LEASE + timedelta(seconds=1))
    with pytest.raises(Lost):
        await keys.begin(WHO, "k", REQUEST)


async def test_who_took_too_long_does_nothing_beside_its_successor(
    database: Database, clock: FakeClock
) -> None:
    keys = Idempotency(database, clock)
    slow = await begun(keys)
    clock.advance(LEASE + timedelta(seconds=1))
    quick = await begun(keys)
    with pytest.raises(Taken), marking(slow):
        await act(database, clock, "slow")
    with marking(quick):
        await act(database, clock, "quick")
    async with database.reading() as connection:
        assert list((await connection.execute(select(cursors.c.source))).scalars()) == ["quick"]


async def test_a_unit_of_work_marks_what_it_commits(database: Database, clock: FakeClock) -> None:
    keys = Idempotency(database, clock)
    mark = await begun(keys)
    with marking(mark):
        async with database.new_work() as work:
            await work.commit()
    assert not await keys.free(mark)
    with pytest.raises(Lost):  # and at once: nobody is at it any more
        await keys.begin(WHO, "k", REQUEST)


async def test_a_key_under_which_nothing_was_stored_is_free(
    database: Database, clock: FakeClock
) -> None:
    keys = Idempotency(database, clock)
    assert await keys.free(await begun(keys))
    assert isinstance(await keys.begin(WHO, "k", fingerprint([b"other"])), Mark)


async def test_keys_are_forgotten_after_a_day(database: Database, clock: FakeClock) -> None:
    keys = Idempotency(database, clock)
    await keys.keep(await begun(keys), Stored(status=200, body=b"{}"))
    clock.advance(LASTS - timedelta(minutes=1))
    await keys.begin(WHO, "later", REQUEST)
    assert await count(database, api_keys) == 2
    clock.advance(timedelta(minutes=2))
    await keys.begin(WHO, "latest", REQUEST)
    assert await count(database, api_keys) == 2


# What is asked


async def comments(world: World) -> int:
    ticket = await world.get(f"tickets/{world.call.ticket}")
    return sum(entry["action"] == "comment" for entry in ticket["journal"])


async def comment(world: World, words: str, key: str, **options: Any) -> tuple[int, Any]:
    return await world.ask(
        "POST", f"tickets/{world.call.ticket}/actions/comment",
        json={"words": words}, headers={"Idempotency-Key": key}, **options,
    )  # fmt: skip


async def test_the_same_request_is_done_once_and_answered_the_same(world: World) -> None:
    first = await comment(world, "换了硒鼓", '"8e03978e-40d5"')
    again = await comment(world, "换了硒鼓", "8e03978e-40d5")  # quoted or bare
    assert first[0] == 200
    assert again == first
    assert await comments(world) == 1
    await comment(world, "换了硒鼓", "8e03978e-40d5", role=Role.DESK)  # another token's key
    assert await comments(world) == 2


async def test_another_request_with_the_key_is_refused(world: World) -> None:
    await comment(world, "one", "k")
    status, problem = await comment(world, "two", "k")
    assert (status, problem["type"]) == (422, PROBLEM + "idempotency-key-reused")
    assert await comments(world) == 1


async def test_a_refused_request_does_not_use_its_key_up(world: World) -> None:
    headers, path = {"Idempotency-Key": "k"}, f"tickets/{world.call.ticket}/actions"
    status, _ = await world.ask("POST", f"{path}/close", headers=headers)
    assert status == 409
    status, ticket = await world.ask("POST", f"{path}/resolve", headers=headers)
    assert (status, ticket["state"]) == (200, "resolved")
    status, ticket = await world.ask("POST", f"{path}/resolve", headers=headers)
    assert (status, ticket["state"]) == (200, "resolved")  # not 409: it was done


async def test_a_ticket_is_opened_once_by_key_even_if_the_answer_was_lost(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = {"from": "0755 8888 1234", "text": "打印机卡纸"}
    options: dict[str, Any] = {"json": sent, "headers": {"Idempotency-Key": "k"}}

    async def fails(*_: object) -> None:
        raise TemporaryFailure("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(Idempotency, "keep", fails)
        status, opened = await world.ask("POST", "tickets", **options)
        assert status == 201  # it was done, so it is said
    status, problem = await world.ask("POST", "tickets", **options)
    assert (status, problem["type"]) == (409, PROBLEM + "idempotency-in-progress")
    world.clock.advance(LEASE + timedelta(seconds=1))
    status, again = await world.ask("POST", "tickets", **options)
    assert (status, again["ticket"], again["opened"]) == (200, opened["ticket"], False)


async def test_a_secret_is_not_kept_for_who_asks_again(world: World, database: Database) -> None:
    options: dict[str, Any] = {
        "json": {"name": "crm", "role": "desk"}, "headers": {"Idempotency-Key": "k"},
    }  # fmt: skip
    status, made = await world.ask("POST", "tokens", **options)
    assert (status, made["secret"][:3]) == (201, "cd_")
    status, problem = await world.ask("POST", "tokens", **options)
    assert (status, problem["type"]) == (409, PROBLEM + "idempotency-answer-lost")
    async with database.reading() as connection:
        assert (await connection.execute(select(api_keys.c.answer))).scalars().all() == [None]


@pytest.mark.parametrize("key", ["", '""', "a b", "x" * 256, "schlüssel", 'a"b'])
async def test_a_key_that_is_none_is_refused(world: World, key: str) -> None:
    status, problem = await comment(world, "one", key)
    assert (status, problem["type"]) == (400, PROBLEM + "bad-request")
    assert await comments(world) == 0


async def upload(world: World, name: str, content: bytes) -> tuple[int, Any]:
    return await world.ask(
        "POST", f"tickets/{world.call.ticket}/attachments", data=BytesIO(content),
        params={"name": name}, headers={"Idempotency-Key": "k", "Content-Type": "image/png"},
    )  # fmt: skip


async def test_a_file_is_added_once(world: World) -> None:
    content = b"\x89PNG\r\n\x1a\n" + bytes(3 << 20)  # longer than other bodies may be
    status, added = await upload(world, "screen.png", content)
    assert (status, added["attachment"]["size_bytes"]) == (201, len(content))
    assert added["attachment"]["media_type"] == "image/png"
    assert await upload(world, "screen.png", content) == (status, added)
    assert (await upload(world, "screen.png", content + b"x"))[0] == 422
    ticket = await world.get(f"tickets/{world.call.ticket}")
    assert [each["action"] for each in ticket["journal"]].count("file.added") == 1
    assert await world.get(added["attachment"]["url"]) == content


async def test_a_file_that_is_too_long_or_empty_or_badly_named_is_refused(world: World) -> None:
    for content, name, status in (
        (bytes((20 << 20) + 1), "x", 413), (b"", "x", 422), (b"x", "../x", 400),
        (b"x", "", 400), (b"x", "a\n", 400),
    ):  # fmt: skip
        assert (await upload(world, name, content))[0] == status, name


async def test_who_asks_too_much_has_to_wait() -> None:
    now = 0.0
    rates = Rates(60, lambda: now)
    assert [rates.wait_s("oa") for _ in range(60)] == [0.0] * 60
    assert rates.wait_s("oa") == pytest.approx(1.0)
    assert rates.wait_s("other") == 0
    now = 1.5
    assert rates.wait_s("oa") == 0
    assert rates.wait_s("oa") == pytest.approx(0.5)
