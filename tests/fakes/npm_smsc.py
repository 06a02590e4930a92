"""The npm package `smpp` as an SMSC, a process of its own: see `smsc/smsc.cjs`."""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from contactd.lab.ports import free_port
from tests.fakes.waiting import WITHIN_S

PASSWORD: Final = "a password of more than 8"
MODULES: Final = Path(__file__).parents[2] / "build/peers/node_modules"


class NpmSmsc:
    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self._tasks = tasks
        self.port = free_port()
        self.events: list[dict[str, Any]] = []
        self._news = asyncio.Condition()
        self._process: asyncio.subprocess.Process | None = None
        self._keys = 0

    async def start(self) -> None:
        """Start it, also once more, on the same port."""
        if not (MODULES / "smpp").is_dir() or shutil.which("node") is None:
            raise AssertionError("the npm package smpp is missing: make setup")
        self._process = await asyncio.create_subprocess_exec(
            *("setpriv", "--pdeathsig", "KILL", "--", "node"),
            *(str(Path(__file__).parent / "smsc/smsc.cjs"), str(self.port), PASSWORD),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "NODE_PATH": str(MODULES)},
        )  # fmt: skip
        assert self._process.stdout is not None
        self._tasks.create_task(self._listen(self._process.stdout))
        await self.heard("listening", len(self._of("listening")) + 1)

    async def _listen(self, said: asyncio.StreamReader) -> None:
        """Note what it says, until it ends."""
        async for line in said:
            async with self._news:
                self.events.append(json.loads(line))
                self._news.notify_all()

    async def heard(self, event: str, count: int = 1) -> list[dict[str, Any]]:
        """Return what it said of one kind, once there is so much of it."""
        async with asyncio.timeout(WITHIN_S), self._news:
            await self._news.wait_for(lambda: len(self._of(event)) >= count)
            return self._of(event)

    async def tell(self, **order: Any) -> None:
        """Have it do something; it has when this returns."""
        before = len(self._of("told"))
        self._order(**order)
        await self.heard("told", before + 1)

    def _order(self, **order: Any) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")

    async def deliver(self, **pdu: Any) -> int:
        """Bring a deliver_sm and return the status of its answer."""
        self._keys += 1
        key = self._keys
        self._order(do="deliver", key=key, pdu=pdu)
        async with asyncio.timeout(WITHIN_S), self._news:
            await self._news.wait_for(lambda: self._status(key) is not None)
        status = self._status(key)
        assert status is not None
        return status

    def _of(self, event: str) -> list[dict[str, Any]]:
        return [each for each in self.events if each["event"] == event]

    def _status(self, key: int) -> int | None:
        found = [each["status"] for each in self._of("acknowledged") if each["key"] == key]
        return found[0] if found else None

    async def kill(self) -> None:
        """End it at once; harmless when it has ended."""
        if self._process is not None:
            if self._process.returncode is None:
                self._process.kill()
            await self._process.wait()
            self._process = None


@asynccontextmanager
async def npm_smsc() -> AsyncIterator[NpmSmsc]:
    async with asyncio.TaskGroup() as tasks:
        smsc = NpmSmsc(tasks)
        try:
            await smsc.start()
            yield smsc
        finally:
            await smsc.kill()
