"""Trials of stories: each is told without crashes once, and with crashes as often as one likes.

CONTACTD_CRASH_SEEDS is how often stories are told with crashes at random steps, in both test files
together; 640 more crashes are at each step of three small stories in turn. Reproduce a failure with
CONTACTD_CRASH_SEED, which it names, and its test file.
"""

import asyncio
import itertools
import os
import random
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final
from unittest import mock

from structlog.testing import capture_logs

from contactd.tickets import together
from tests.fakes.process import Machine
from tests.stories.crash_checks import differences, faults
from tests.stories.crash_plots import MOST_DEATHS, Story, story, write_desk
from tests.stories.crash_town import RESTARTS, Account, Teller

SEEDS: Final = int(os.environ.get("CONTACTD_CRASH_SEEDS", "1000"))
ONE_SEED: Final = os.environ.get("CONTACTD_CRASH_SEED", "")
FILES: Final = 2
TOGETHER: Final = 40  # seeds of one test
TELLINGS: Final = 6  # of one story with crashes: the one without crashes serves them all

_OTHERS: Final = 1_000_000
_MEMORY: Final = Path("/dev/shm")  # of files in it nothing waits for a disk


def batches() -> list[range]:
    """Return the seeds of one test file in the portions of its tests."""
    if ONE_SEED:
        return [range(int(ONE_SEED), int(ONE_SEED) + 1)]
    most = SEEDS // FILES
    return [range(first, min(first + TOGETHER, most)) for first in range(0, most, TOGETHER)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    machine: Machine
    template: Path

    async def tell(
        self,
        plot: Story,
        *,
        calm: Account | None = None,
        deaths: Sequence[int] = (),
        restarts: Sequence[timedelta] = RESTARTS,
    ) -> Account:
        self.machine.install(self.template)
        times = calm.times if calm is not None else ()
        # Whether requests are a crowd is a matter of real time: here they never are.
        with capture_logs(), mock.patch.object(together, "CROWD_S", 0.0):
            return await Teller(
                plot, self.machine, deaths=deaths, times=times, restarts=restarts
            ).tell()


@contextmanager
def opened_stage(empty: Path) -> Iterator[Stage]:
    """Return a machine, and the desk in a copy of the `empty` database to begin each story with."""
    memory = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory, prefix="contactd-crashes-") as folder:
        template = Path(folder) / "template.sqlite3"
        shutil.copyfile(empty, template)
        asyncio.run(write_desk(template))
        opened = Stage(machine=Machine(Path(folder) / "contactd.sqlite3"), template=template)
        asyncio.run(opened.tell(story(0, troubled=False)))  # a new machine takes more steps
        yield opened


async def failures(stage: Stage, seeds: range, *, troubled: bool) -> list[str]:
    """Return what goes wrong in the stories of `seeds`, told with crashes at random steps."""
    found: list[str] = []
    known: dict[int, Account] = {}
    for seed in seeds:
        number = seed // TELLINGS
        if number not in known:
            known = {number: await _calm(stage, number, troubled=troubled)}
            found += _words(f"story {number} without crashes", known[number], faults(known[number]))
        calm = known[number]
        stormy = await stage.tell(calm.story, calm=calm, deaths=_deaths(seed, calm.steps))
        name = f"CONTACTD_CRASH_SEED={seed}"
        found += _words(name, stormy, (*faults(stormy), *differences(calm, stormy)))
    return found


async def _calm(stage: Stage, number: int, *, troubled: bool) -> Account:
    """Tell a story without crashes: the first one from `number` on in which nothing is a close
    thing. In real life it does not matter who of two comes first, here it would be a difference.
    """
    for step in itertools.count():
        account = await stage.tell(story(number + step * _OTHERS, troubled=troubled))
        if not account.is_hasty:
            return account
    raise AssertionError("not reached")


async def failures_at_each_step(stage: Stage, plot: Story) -> list[str]:
    """Return what goes wrong in a story if the process dies once, at each of its steps in turn."""
    calm = await stage.tell(plot)
    found = _words("without crashes", calm, faults(calm))
    for step in range(1, calm.steps + 1):
        stormy = await stage.tell(plot, calm=calm, deaths=[step])
        found += _words(f"step {step}", stormy, (*faults(stormy), *differences(calm, stormy)))
    return found


def _deaths(seed: int, steps: int) -> list[int]:
    """Return at which of its steps each life ends; the first one has `steps`."""
    chance = random.Random(f"deaths-{seed}")
    again = chance.choice((0, 0, 1, MOST_DEATHS - 1))
    return [chance.randint(1, steps), *(chance.randint(1, 120) for _ in range(again))]


def _words(name: str, account: Account, problems: Iterator[str] | Sequence[str]) -> list[str]:
    """Return one text with all that is wrong, none if nothing is."""
    lines = [str(line)[:500] for line in problems]
    died = "; ".join(account.deaths) or "never"
    return ["\n  ".join([f"{name}, died {died}:", *lines])] if lines else []
