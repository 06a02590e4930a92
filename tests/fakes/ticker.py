"""A 20 Hz ticker: shows how long anything kept the event loop from its work."""

import asyncio
import gc
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

PERIOD_S: Final = 0.05
LIMIT_S: Final = 0.25  # "never misses 250 ms"

# Sleeps, and writes when it should have woken and when it did, if those differ.
_TWIN: Final = """
import sys, time
while True:
    due = time.monotonic() + 0.01
    time.sleep(0.01)
    woke = time.monotonic()
    if woke - due > 0.002:
        sys.stdout.write(f"{due} {woke}\\n")
        sys.stdout.flush()
"""


@contextmanager
def sleeper() -> Iterator[Callable[[float, float], float]]:
    """Run a process that only sleeps; yield what tells how late it was between two instants.

    Both are seconds of the monotonic clock, and so is the answer: what the machine took from
    everybody then.
    """
    with tempfile.NamedTemporaryFile("w") as late:
        command = [sys.executable, "-I", "-S", "-c", _TWIN]
        twin = subprocess.Popen(command, stdout=late)

        def lateness(start: float, end: float) -> float:
            lines = Path(late.name).read_text().splitlines(keepends=True)
            times = [tuple(map(float, line.split())) for line in lines if line.endswith("\n")]
            return sum(max(0.0, min(woke, end) - max(due, start)) for due, woke in times)

        try:
            yield lateness
        finally:
            twin.kill()
            twin.wait()


class Ticker:
    """Ticks inside `async with`; look at it afterwards.

    `longest_s` is the longest time between two ticks. `worst_s` is that too, less what the machine
    took: a process that does nothing but sleep runs beside it, and when that one woke late, others
    had the processors. What our own loop does cannot make it late, there are two of them. And what
    a thousand tests left in this process is not looked through by the garbage collector meanwhile
    (0.1 s and more each time): the daemon, too, freezes what is there once it is up.
    """

    def __init__(self) -> None:
        self.longest_s = 0.0
        self.worst_s = 0.0
        self.ticks = 0
        self._gaps: list[tuple[float, float]] = []
        self._stop = asyncio.Event()
        self._tasks = asyncio.TaskGroup()

    @property
    def twin(self) -> int:
        """The process that only sleeps."""
        return self._twin.pid

    async def __aenter__(self) -> Self:
        gc.collect()
        gc.freeze()
        self._late: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed at the end
        command = [sys.executable, "-I", "-S", "-c", _TWIN]
        self._twin = subprocess.Popen(command, stdout=self._late)
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
        try:
            await self._tasks.__aexit__(kind, error, traceback)
        finally:
            self._twin.kill()
            self._twin.wait()
            self._judge()
            self._late.close()
            gc.unfreeze()

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        last = loop.time()  # the monotonic clock, the same in every process
        while not self._stop.is_set():
            await asyncio.sleep(PERIOD_S)
            now = loop.time()
            self._gaps.append((last, now))
            last = now
            self.ticks += 1

    def _judge(self) -> None:
        self._late.seek(0)
        # The last line may be half of one: the twin was killed.
        late = [[float(each) for each in line.split()] for line in self._late if line[-1] == "\n"]
        for began, ended in self._gaps:
            machine_s = sum(max(0.0, min(ended, woke) - max(began, due)) for due, woke in late)
            self.longest_s = max(self.longest_s, ended - began)
            self.worst_s = max(self.worst_s, ended - began - machine_s)
