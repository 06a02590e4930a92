"""A 20 Hz ticker: shows how long anything kept the event loop from its work."""

import asyncio
from types import TracebackType
from typing import Final, Self

PERIOD_S: Final = 0.05
LIMIT_S: Final = 0.25  # "never misses 250 ms"


class Ticker:
    """Ticks inside `async with`; `worst_s` is the longest time between two ticks."""

    def __init__(self) -> None:
        self.worst_s = 0.0
        self.ticks = 0
        self._stop = asyncio.Event()
        self._tasks = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._tasks.create_task(self._tick(), name="ticker")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        await self._tasks.__aexit__(kind, error, traceback)

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        last = loop.time()
        while not self._stop.is_set():
            await asyncio.sleep(PERIOD_S)
            now = loop.time()
            self.worst_s = max(self.worst_s, now - last)
            last = now
            self.ticks += 1
