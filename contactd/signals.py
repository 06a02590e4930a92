"""Wakes waiting parts of the program; `redis_signals` carries it to other processes.

A signal says *look*, never *what*: losing one costs latency, not truth, because every waiter also
polls. So nothing is stored and nothing is acknowledged.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum


class Topic(StrEnum):
    OUTBOX = "outbox"  # a row may be due
    BOARD = "board"  # something the status page shows has changed
    REPLAY = "replay"  # the PBX's records have probably grown
    ROSTER = "roster"  # who is on duty may have changed
    LEDGER = "ledger"  # calls were filed: the balance may be another one
    REMOTE = "remote"  # a remote session may have changed


class Signals:
    """One process's signals. `relay`, if set, also tells the other processes."""

    def __init__(self) -> None:
        self._waiters: dict[Topic, set[asyncio.Event]] = {topic: set() for topic in Topic}
        self.relay: Callable[[Topic], None] | None = None

    def raise_(self, topic: Topic) -> None:
        """Wake everybody who waits for `topic`, here and, if connected, in other processes."""
        self.raise_here(topic)
        if self.relay is not None:
            self.relay(topic)

    def raise_here(self, topic: Topic) -> None:
        for event in self._waiters[topic]:
            event.set()

    @contextmanager
    def listening(self, topic: Topic) -> Iterator[asyncio.Event]:
        """Return an event that is set whenever `topic` is raised; the listener clears it."""
        event = asyncio.Event()
        self._waiters[topic].add(event)
        try:
            yield event
        finally:
            self._waiters[topic].discard(event)


async def wait(event: asyncio.Event, timeout_s: float) -> bool:
    """Wait for `event`, at most `timeout_s` seconds; clear it; return whether it was set."""
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return False
    event.clear()
    return True
