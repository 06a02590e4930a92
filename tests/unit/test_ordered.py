"""Order within a key, side by side across keys, and a bound."""

import asyncio
from collections.abc import Callable

from contactd.telephony.ordered import Handler, OrderedByKey
from tests.fakes.waiting import WITHIN_S


class Log:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.gaps = 0

    def on_gap(self) -> None:
        self.gaps += 1

    def note(self, line: str, gate: asyncio.Event | None = None) -> Handler:
        async def handler() -> None:
            if gate is not None:
                await gate.wait()
            self.lines.append(line)

        return handler


async def settle(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not condition():
            await asyncio.sleep(0)


async def test_a_slow_event_delays_its_own_call_only() -> None:
    log, gate = Log(), asyncio.Event()
    work = OrderedByKey("test", on_gap=log.on_gap)
    async with work.running():
        work.submit("a", log.note("a1", gate))
        work.submit("a", log.note("a2"))
        work.submit("b", log.note("b1"))
        await settle(lambda: log.lines == ["b1"])
        gate.set()
    assert log.lines == ["b1", "a1", "a2"]
    assert work.pending == 0


async def test_leaving_finishes_what_was_accepted_and_refuses_the_rest() -> None:
    log = Log()
    work = OrderedByKey("test", on_gap=log.on_gap)
    assert not work.submit("a", log.note("too early"))
    async with work.running():
        for number in range(100):
            assert work.submit("a", log.note(str(number)))
    assert log.lines == [str(number) for number in range(100)]
    assert not work.submit("a", log.note("too late"))


async def test_a_handler_that_fails_or_hangs_costs_its_event_alone() -> None:
    log = Log()

    async def fail() -> None:
        raise KeyError("Linkedid")

    async def wait_for_somebody_who_was_cancelled() -> None:
        gone = asyncio.get_running_loop().create_future()
        gone.cancel()
        await gone

    work = OrderedByKey("test", on_gap=log.on_gap, timeout_s=0.01)
    async with work.running():
        work.submit("a", fail)
        work.submit("a", log.note("never", asyncio.Event()))
        work.submit("a", wait_for_somebody_who_was_cancelled)
        work.submit("a", log.note("next"))
    assert log.lines == ["next"]
    assert work.pending == 0


async def test_without_room_events_are_refused_and_the_gap_is_told_once_there_is_room() -> None:
    log, gate = Log(), asyncio.Event()
    work = OrderedByKey("test", on_gap=log.on_gap, limit=10)
    async with work.running():
        accepted = [work.submit(str(number % 3), log.note("", gate)) for number in range(50)]
        assert accepted == [True] * 10 + [False] * 40
        assert (work.pending, log.gaps) == (10, 0)
        gate.set()
        await settle(lambda: work.pending == 0)
        assert log.gaps == 1
        assert work.submit("a", log.note("again"))
