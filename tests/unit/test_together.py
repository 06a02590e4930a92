"""Requests that share a transaction: who waits for whom, and who gets whose failure."""

import asyncio
from collections.abc import Sequence

import pytest

from contactd.errors import TemporaryFailure
from contactd.tickets.together import CROWD, ENOUGH, TURNS, Together
from tests.fakes.waiting import WITHIN_S


class Server:
    """Doubles numbers, as many goes as it is allowed. 13 is a bug, 14 a database that is away."""

    def __init__(self) -> None:
        self.goes: list[list[int]] = []
        self._allowed = asyncio.Semaphore(0)

    def allow(self, goes: int = 99) -> None:
        for _ in range(goes):
            self._allowed.release()

    async def serve(self, numbers: Sequence[int]) -> list[int]:
        self.goes.append(list(numbers))
        await self._allowed.acquire()
        if 13 in numbers:
            raise ValueError("13")
        if 14 in numbers:
            raise TemporaryFailure("away")
        return [2 * number for number in numbers]


def together(server: Server, most: int = 50) -> Together[int, int]:
    return Together(server.serve, key=lambda number: number % 100, most=most)


async def turns() -> None:
    """Let everything run that can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_who_comes_alone_is_served_alone_and_at_once() -> None:
    server = Server()
    server.allow()
    assert await together(server).ask(1) == 2
    assert server.goes == [[1]]


async def test_who_comes_while_one_is_under_way_shares_the_next() -> None:
    server = Server()
    served = together(server)
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(served.ask(number)) for number in range(5)]
        await turns()
        server.allow()
    assert [task.result() for task in asked] == [0, 2, 4, 6, 8]
    assert server.goes == [[0], [1, 2, 3, 4]]


async def test_no_more_than_the_limit_share_a_go() -> None:
    server = Server()
    served = together(server, most=2)
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(served.ask(number)) for number in range(5)]
        await turns()
        server.allow()
    assert [task.result() for task in asked] == [0, 2, 4, 6, 8]
    assert max(map(len, server.goes)) == 2


async def test_two_requests_of_one_key_do_not_share_a_go() -> None:
    server = Server()
    served = together(server)
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(served.ask(number)) for number in (1, 7, 107, 2)]
        await turns()
        server.allow()
    assert [task.result() for task in asked] == [2, 14, 214, 4]
    assert not [go for go in server.goes if {7, 107} <= set(go)]


async def test_who_is_answered_waits_for_no_go_of_others() -> None:
    server = Server()
    served = together(server)
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(served.ask(number)) for number in (1, 7, 107, 2)]
        await turns()
        server.allow(2)
        await turns()
        assert server.goes == [[1], [7, 2], [107]]
        assert [task.done() for task in asked] == [True, True, False, True]
        server.allow()


@pytest.mark.parametrize("steps", range(8))
async def test_whoever_is_cancelled_as_its_turn_comes_hands_it_on(steps: int) -> None:
    server = Server()
    served = together(server, most=1)
    asked = [asyncio.create_task(served.ask(number)) for number in range(4)]
    await turns()
    server.allow(1)
    for _ in range(steps):
        await asyncio.sleep(0)
    asked[1].cancel()
    await turns()
    server.allow()
    async with asyncio.timeout(WITHIN_S):
        found = await asyncio.gather(*asked, return_exceptions=True)
    assert [found[0], *found[2:]] == [0, 4, 6]


async def test_a_bug_in_one_request_is_its_own() -> None:
    server = Server()
    served = together(server)
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(served.ask(1))
        bad = asyncio.ensure_future(served.ask(13))
        second = tasks.create_task(served.ask(2))
        await turns()
        server.allow()
    with pytest.raises(ValueError, match="13"):
        await bad
    assert (first.result(), second.result()) == (2, 4)
    assert server.goes == [[1], [13, 2], [13], [2]]


async def test_a_database_that_is_away_is_tried_once_for_all() -> None:
    server = Server()
    served = together(server)
    asked = [asyncio.ensure_future(served.ask(number)) for number in (1, 14, 2, 3)]
    await turns()
    server.allow()
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert outcomes[0] == 2
    assert all(isinstance(outcome, TemporaryFailure) for outcome in outcomes[1:])
    assert server.goes == [[1], [14, 2, 3]]


async def test_who_gives_up_waiting_is_not_served_and_the_others_are() -> None:
    server = Server()
    served = together(server)
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(served.ask(1))
        await turns()
        second = tasks.create_task(served.ask(2))
        third = tasks.create_task(served.ask(3))
        await turns()
        second.cancel()
        await turns()
        server.allow()
    assert (first.result(), third.result()) == (2, 6)
    assert second.cancelled()
    assert server.goes == [[1], [3]]


async def test_who_is_cancelled_while_serving_others_fails_them_for_now() -> None:
    server = Server()
    served = together(server, most=2)
    first = asyncio.ensure_future(served.ask(1))
    await turns()
    others = [asyncio.ensure_future(served.ask(number)) for number in (2, 3, 4)]
    await turns()
    server.allow(1)
    await first
    await turns()  # 2 serves itself and 3
    others[0].cancel()
    await turns()
    server.allow()
    outcomes = await asyncio.gather(*others, return_exceptions=True)
    assert isinstance(outcomes[0], asyncio.CancelledError)
    assert isinstance(outcomes[1], TemporaryFailure)
    assert outcomes[2] == 8


async def test_a_crowd_waits_only_until_enough_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("contactd.tickets.together.APART_S", 1_000)
    server = Server()
    server.allow()
    served = together(server)
    for number in range(CROWD - 1):
        await served.ask(number)
    async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as tasks:
        for number in range(50, 50 + ENOUGH - 1):
            tasks.create_task(served.ask(number))
        await turns()
        assert len(server.goes) == CROWD - 1
        tasks.create_task(served.ask(99))
    assert server.goes[CROWD - 1 :] == [[*range(50, 50 + ENOUGH - 1), 99]]


async def test_the_next_of_a_crowd_wait_for_enough_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("contactd.tickets.together.APART_S", 1_000)
    server = Server()
    served = together(server)
    first = [asyncio.ensure_future(served.ask(number)) for number in range(1 + CROWD)]
    await turns()
    server.allow()
    async with asyncio.timeout(WITHIN_S):
        await asyncio.gather(*first)
    late = asyncio.ensure_future(served.ask(70))
    await turns()
    assert server.goes == [[0], [*range(1, 1 + CROWD)]]
    late.cancel()


async def test_a_crowd_lets_in_whoever_is_on_the_way() -> None:
    server = Server()
    server.allow()
    served = together(server)

    async def comes(number: int, after: int) -> None:
        for _ in range(after):
            await asyncio.sleep(0)
        await served.ask(number)

    for number in range(CROWD - 1):
        await served.ask(number)
    async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as tasks:
        for number in range(50, 50 + ENOUGH):
            tasks.create_task(comes(number, 0))
        for number in range(4):  # each as late as it may be
            tasks.create_task(comes(70 + number, (number + 1) * (TURNS - 1)))
        tasks.create_task(comes(90, 10 * TURNS))
    assert server.goes[CROWD - 1 :] == [[*range(50, 50 + ENOUGH), 70, 71, 72, 73], [90]]


async def test_a_crowd_that_keeps_coming_is_let_in_up_to_the_most() -> None:
    server = Server()
    server.allow()
    served = together(server, most=ENOUGH + 2)
    for number in range(CROWD - 1):
        await served.ask(number)
    async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as tasks:
        for number in range(50, 50 + ENOUGH):
            tasks.create_task(served.ask(number))
        while len(server.goes) < CROWD:
            tasks.create_task(served.ask(50 + ENOUGH + len(asyncio.all_tasks())))
            await asyncio.sleep(0)
        assert len(server.goes[CROWD - 1]) == ENOUGH + 2


async def test_whoever_shared_a_go_with_a_bug_is_told_when_its_server_is_cancelled() -> None:
    server = Server()
    served = together(server)
    first = asyncio.create_task(served.ask(0))
    await turns()
    others = [asyncio.create_task(served.ask(number)) for number in (1, 13, 2)]
    await turns()
    server.allow(2)  # the first, and the go of three, which fails: then one by one
    await turns()
    assert server.goes == [[0], [1, 13, 2], [1]]
    others[0].cancel()
    async with asyncio.timeout(WITHIN_S):
        outcomes = await asyncio.gather(first, *others, return_exceptions=True)
    assert outcomes[0] == 0
    assert isinstance(outcomes[1], asyncio.CancelledError)
    assert all(isinstance(each, TemporaryFailure) for each in outcomes[2:])
