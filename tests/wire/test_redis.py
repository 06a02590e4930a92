"""Signals between two processes through a real Redis, and what happens when it is away."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager

import pytest
import redis.asyncio

from contactd.errors import ConfigurationError
from contactd.redis_signals import CHANNEL, RedisSignals
from contactd.service import HealthState
from contactd.signals import Signals, Topic, wait
from tests.fakes.redis_server import RedisServer, redis_server
from tests.fakes.waiting import WITHIN_S


@pytest.fixture(scope="module")
def module_server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def server(module_server: RedisServer) -> Iterator[RedisServer]:
    yield module_server
    module_server.kill()  # a test may have left it frozen or dead
    module_server.start()


@asynccontextmanager
async def process(url: str) -> AsyncIterator[tuple[Signals, RedisSignals]]:
    """One process's signals, connected to the others as soon as Redis is there."""
    signals = Signals()
    link = RedisSignals(signals, url, retry_max_s=0.05, ping_s=0.1)
    async with link.running():
        yield signals, link


async def until(link: RedisSignals, state: HealthState) -> None:
    async with asyncio.timeout(WITHIN_S):
        while link.health()[0].state is not state:
            await asyncio.sleep(0.005)


@asynccontextmanager
async def two(url: str) -> AsyncIterator[tuple[Signals, Signals, RedisSignals]]:
    """Two connected processes, the first one's link, and nothing raised any more."""
    async with AsyncExitStack() as stack:
        here, link = await stack.enter_async_context(process(url))
        there, other = await stack.enter_async_context(process(url))
        await until(link, HealthState.UP)
        await until(other, HealthState.UP)
        yield here, there, link


async def test_a_signal_wakes_a_waiter_of_another_process(server: RedisServer) -> None:
    async with two(server.url) as (here, there, _):
        with there.listening(Topic.ROSTER) as roster, there.listening(Topic.BOARD) as board:
            here.raise_(Topic.ROSTER)
            assert await wait(roster, WITHIN_S)
            assert not board.is_set()


async def test_a_signal_wakes_its_own_process_once_and_does_not_echo(server: RedisServer) -> None:
    async with two(server.url) as (here, there, _):
        with here.listening(Topic.ROSTER) as mine, there.listening(Topic.ROSTER) as theirs:
            here.raise_(Topic.ROSTER)
            assert mine.is_set()
            mine.clear()
            assert await wait(theirs, WITHIN_S)
            there.raise_(Topic.BOARD)  # comes after an echo would have
            with here.listening(Topic.BOARD) as board:
                assert await wait(board, WITHIN_S)
            assert not mine.is_set()


async def test_without_redis_signals_work_within_the_process() -> None:
    with redis_server() as dead:
        dead.kill()
        async with process(dead.url) as (signals, link):
            with signals.listening(Topic.OUTBOX) as event:
                signals.raise_(Topic.OUTBOX)
                assert event.is_set()
            (health,) = link.health()
            assert health.state is HealthState.DEGRADED
            assert "by polling" in health.detail


async def test_a_lost_redis_is_found_again_and_what_was_missed_is_made_up_for(
    server: RedisServer,
) -> None:
    async with two(server.url) as (here, there, link):
        server.kill()
        await until(link, HealthState.DEGRADED)
        here.raise_(Topic.REPLAY)
        with there.listening(Topic.REPLAY) as event:
            server.start()
            assert await wait(event, WITHIN_S)
        await until(link, HealthState.UP)
        with there.listening(Topic.REPLAY) as event:
            event.clear()
            here.raise_(Topic.REPLAY)
            assert await wait(event, WITHIN_S)


async def test_a_redis_that_hangs_is_noticed(server: RedisServer) -> None:
    async with two(server.url) as (here, _there, link):
        server.freeze()
        await until(link, HealthState.DEGRADED)
        with here.listening(Topic.OUTBOX) as event:
            here.raise_(Topic.OUTBOX)
            assert event.is_set()
        server.thaw()
        await until(link, HealthState.UP)


async def test_garbage_on_the_channel_is_ignored(server: RedisServer) -> None:
    async with two(server.url) as (here, there, link):
        with there.listening(Topic.ROSTER) as roster, there.listening(Topic.BOARD) as board:
            async with redis.asyncio.Redis.from_url(server.url) as stranger:
                for payload in (
                    b"",
                    b"x",
                    b"x \xff\xfe",
                    b"x nonsense",
                    b"a" * 100_000,
                    b"x board",
                ):
                    await stranger.publish(CHANNEL, payload)
            assert await wait(board, WITHIN_S)
            assert not roster.is_set()
            here.raise_(Topic.ROSTER)
            assert await wait(roster, WITHIN_S)
        assert link.health()[0].state is HealthState.UP


async def test_many_signals_of_a_topic_are_one(server: RedisServer) -> None:
    async with (
        two(server.url) as (here, there, _),
        redis.asyncio.Redis.from_url(server.url) as stranger,
        stranger.pubsub() as heard,
    ):
        await heard.subscribe(CHANNEL)
        await heard.get_message(timeout=2)
        with there.listening(Topic.OUTBOX) as event:
            for _n in range(1000):
                here.raise_(Topic.OUTBOX)
            assert await wait(event, WITHIN_S)
        assert await heard.get_message(timeout=2) is not None
        assert await heard.get_message(timeout=0.05) is None


async def test_a_stopped_link_leaves_no_connection(server: RedisServer) -> None:
    async with two(server.url):
        pass
    async with redis.asyncio.Redis.from_url(server.url) as stranger:
        assert len(await stranger.client_list()) == 1


def test_a_wrong_url_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match=r"redis\.url"):
        RedisSignals(Signals(), "http://127.0.0.1")


def test_without_a_listener_a_signal_is_harmless() -> None:
    signals = Signals()
    with ExitStack() as stack:
        event = stack.enter_context(signals.listening(Topic.BOARD))
    signals.raise_(Topic.BOARD)
    assert not event.is_set()


async def test_a_stop_that_meets_a_failure_of_the_link_still_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun = asyncio.Event()

    async def fails_when_it_is_cancelled(_link: RedisSignals) -> None:
        async def child() -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise TimeoutError from None

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(child())
            await asyncio.Event().wait()

    monkeypatch.setattr(RedisSignals, "_exchange", fails_when_it_is_cancelled)
    async with asyncio.timeout(WITHIN_S):
        async with RedisSignals(Signals(), "redis://127.0.0.1:1/0").running():
            await begun.wait()
