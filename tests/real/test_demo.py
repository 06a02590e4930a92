"""`contactd demo` ended by its user: whenever that is, nothing of it is left."""

import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from contactd.lab.asterisk import asterisk_root
from tests.fakes.waiting import until

pytestmark = pytest.mark.real

READY_S = 30.0
END_S = 15.0


@dataclass(slots=True, kw_only=True)
class Demo:
    """A running demo: what it says, and what it has started."""

    process: Process
    folder: Path  # for temporary files: its own
    said: list[str] = field(default_factory=list)

    async def says(self, text: str) -> None:
        """Wait for a line with `text`."""
        assert self.process.stdout is not None
        async with asyncio.timeout(READY_S):
            while raw := await self.process.stdout.readline():
                self.said.append(raw.decode())
                if text in self.said[-1]:
                    return
        raise AssertionError(f"it ended without saying {text!r}: {self.said}")

    async def ended(self) -> int:
        assert self.process.stdout is not None
        async with asyncio.timeout(END_S):
            rest = await self.process.stdout.read()
            self.said += rest.decode().splitlines(keepends=True)
            return await self.process.wait()

    def descendants(self) -> set[int]:
        """Return the pids of everything that it has started."""
        return set(_descendants(self.process.pid))

    def instances(self) -> set[Path]:
        """Return the folders of the Asterisks that it has started."""
        found = set()
        for pid in self.descendants():
            for name in re.findall(r"/srv/contactd-lab/(\d+\.\w+\.\w+)/", _mounts(pid)):
                found.add(asterisk_root() / "srv" / "contactd-lab" / name)
        return found


def _descendants(pid: int) -> Iterator[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except FileNotFoundError:
        return
    for child in map(int, children):
        yield child
        yield from _descendants(child)


def _mounts(pid: int | str) -> str:
    try:
        return Path(f"/proc/{pid}/mountinfo").read_text(encoding="utf-8")
    except OSError:
        return ""  # it has ended


def _alive(pid: int) -> str:
    """Return what the process is called; "" if it has ended, be it that nobody has asked how."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return ""
    name, _, rest = status.rpartition(") ")
    return "" if rest.startswith("Z") else name


@asynccontextmanager
async def demo_of(folder: Path) -> AsyncIterator[Demo]:
    process = await asyncio.create_subprocess_exec(
        *("setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "contactd", "demo"),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=STDOUT,
        env=os.environ | {"TMPDIR": str(folder)},
    )
    demo = Demo(process=process, folder=folder)
    try:
        yield demo
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def nothing_is_left(demo: Demo, pids: set[int], instances: set[Path]) -> None:
    with suppress(TimeoutError):  # a `mount` that loses its shell ends by itself a moment later
        await until(lambda: left_behind(demo, pids, instances) == [])
    assert left_behind(demo, pids, instances) == []


def left_behind(demo: Demo, pids: set[int], instances: set[Path]) -> list[str]:
    """Return what is still there of a demo that has ended."""
    return [
        *(name for pid in pids if (name := _alive(pid))),
        *(f"folder {path}" for path in instances if path.exists()),
        *(f"folder {path}" for path in demo.folder.iterdir()),
        *(f"mount {path}" for path in instances if path.name in _mounts("self")),
    ]


async def test_ctrl_c_on_a_demo_that_is_ready_leaves_nothing_behind(tmp_path: Path) -> None:
    async with demo_of(tmp_path) as demo:
        await demo.says("ready; the status page is http://127.0.0.1:")
        await demo.says("calls 4008001234")
        pids, instances = demo.descendants(), demo.instances()
        assert len(instances) == 2, "a PBX and the public network"
        assert len(pids) >= 3, "and contactd"
        assert list(tmp_path.iterdir()) != []
        demo.process.send_signal(signal.SIGINT)
        assert await demo.ended() == os.EX_OK, demo.said
        await nothing_is_left(demo, pids, instances)
    assert "stopped: everything that was started has been ended" in demo.said[-1]
    assert "Traceback" not in "".join(demo.said)


async def test_a_demo_that_is_ended_while_it_starts_leaves_nothing_behind(tmp_path: Path) -> None:
    async with demo_of(tmp_path) as demo:
        await demo.says("starting a PBX")
        async with asyncio.timeout(READY_S):
            while not (instances := demo.instances()):  # the first Asterisk is booting
                await asyncio.sleep(0.01)
        pids = demo.descendants()
        demo.process.send_signal(signal.SIGTERM)
        assert await demo.ended() == os.EX_OK, demo.said
        await nothing_is_left(demo, pids, instances)
    assert "Traceback" not in "".join(demo.said)
