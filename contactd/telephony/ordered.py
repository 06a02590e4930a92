"""Work that keeps its order within a key (a call) and runs side by side across keys."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from contactd.log import get_logger
from contactd.metrics import HANDLER_FAILURES

log = get_logger()

Handler = Callable[[], Awaitable[None]]


class OrderedByKey:
    """Runs handlers one after the other per key; a slow one delays its own key only.

    At most `limit` handlers wait or run. When there is no room the next ones are refused until
    half of the room is free, and `on_gap` is called then: what the refused ones had to say must be
    learned in another way (`Ami.resynchronise`). A handler that raises, or takes longer than
    `timeout_s` seconds, is logged and counted, and costs itself only.
    """

    def __init__(
        self,
        name: str,
        *,
        on_gap: Callable[[], None],
        limit: int = 10_000,
        timeout_s: float = 30.0,
    ) -> None:
        self._name = name
        self._on_gap = on_gap
        self._limit = limit
        self._timeout_s = timeout_s
        self._waiting: dict[str, deque[Handler]] = {}
        self._pending = 0
        self._shedding = False
        self._tasks: asyncio.TaskGroup | None = None

    @property
    def pending(self) -> int:
        """How many handlers wait or run."""
        return self._pending

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Accept work inside the block; leaving it finishes what was accepted."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                yield
            finally:
                self._tasks = None

    def submit(self, key: str, handler: Handler) -> bool:
        """Run `handler` after those submitted before under `key`; return False if refused."""
        tasks = self._tasks
        if tasks is None or self._shedding:
            return False
        if self._pending >= self._limit:
            self._shedding = True
            log.error("events.refused", name=self._name, pending=self._pending)
            return False
        self._pending += 1
        waiting = self._waiting.get(key)
        if waiting is None:
            self._waiting[key] = deque([handler])
            tasks.create_task(self._work(key), name=f"{self._name}-{key}")
        else:
            waiting.append(handler)
        return True

    async def _work(self, key: str) -> None:
        waiting = self._waiting[key]
        try:
            while waiting:
                await self._handle(waiting.popleft())
                self._done(1)
        finally:
            del self._waiting[key]
            self._done(len(waiting))  # not 0 only when cancelled

    async def _handle(self, handler: Handler) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                await handler()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            self._note_failure()  # of somebody else's task, whose result the handler awaited
        except Exception:  # the boundary: one event costs itself, not its successors
            self._note_failure()

    def _note_failure(self) -> None:
        HANDLER_FAILURES.labels(where=self._name).inc()
        log.exception("event.failed", name=self._name)

    def _done(self, count: int) -> None:
        self._pending -= count
        if self._shedding and self._pending <= self._limit // 2:
            self._shedding = False
            if self._tasks is not None:
                self._on_gap()
