"""Bad weather over a desk: contactd, its link and the PBX are hurt at random moments, then healed.

Every spell is noted with its beginning and end, so that a test can say what was broken when.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import Final

from contactd.lab.desk import DeskLab
from tests.fakes.cable import Cable

CALM_S: Final = 5.0  # longest pause between two troubles


class Trouble(StrEnum):
    DEAD = "contactd is dead"
    FROZEN = "contactd is frozen"
    UNLINKED = "the manager link is down"
    NO_PBX = "Asterisk is down"


@dataclass(slots=True, kw_only=True)
class Spell:
    """One trouble; instants are epoch seconds."""

    trouble: Trouble
    began: float
    ended: float = inf


class Storm:
    """`rage` until the event is set; afterwards everything runs again, and nobody is told."""

    def __init__(self, desk: DeskLab, cable: Cable, chance: random.Random) -> None:
        self._daemon = desk.daemon
        self._pbx = desk.pbx
        self._cable = cable
        self._chance = chance
        self.spells: list[Spell] = []
        self.done: list[str] = []  # what was done, in order

    async def rage(self, over: asyncio.Event) -> None:
        """Take the troubles from a bag, and fill it again when it is empty: each gets its turn.

        Raises:
            RuntimeError: contactd ended although nobody had killed it, or did not come up.
        """
        bag: list[Callable[[], Awaitable[None]]] = []
        while not over.is_set():
            if not bag:
                bag = [
                    *[self._kill] * 4, *[self._freeze] * 4, *[self._kill_while_starting] * 2,
                    *[self._cut] * 2, *[self._silence] * 2, self._stop, self._kill_pbx,
                    self._restart_pbx, self._kill_both, self._freeze_and_kill_pbx,
                ]  # fmt: skip
                self._chance.shuffle(bag)
            try:
                async with asyncio.timeout(self._chance.uniform(0.2, CALM_S)):
                    await over.wait()
            except TimeoutError:
                if not self._daemon.running:
                    raise RuntimeError("contactd ended by itself") from None
                trouble = bag.pop()
                self.done.append(trouble.__name__.strip("_").replace("_", " "))
                await trouble()

    def during(self, *troubles: Trouble, between: tuple[float, float]) -> Sequence[Spell]:
        """Return the spells of `troubles` that touch a time (epoch seconds)."""
        start, end = between
        return [
            spell
            for spell in self.spells
            if spell.trouble in troubles and spell.began <= end and spell.ended >= start
        ]

    @contextmanager
    def _spell(self, trouble: Trouble) -> Iterator[None]:
        spell = Spell(trouble=trouble, began=time.time())
        self.spells.append(spell)
        yield
        spell.ended = time.time()

    async def _for(self, least_s: float, most_s: float) -> None:
        await asyncio.sleep(self._chance.uniform(least_s, most_s))

    # contactd

    async def _kill(self) -> None:
        with self._spell(Trouble.DEAD):
            await self._daemon.kill()
            await self._for(0, 4)
            await self._daemon.start()

    async def _stop(self) -> None:
        with self._spell(Trouble.DEAD):
            await self._daemon.stop()
            await self._for(0, 2)
            await self._daemon.start()

    async def _kill_while_starting(self) -> None:
        with self._spell(Trouble.DEAD):
            await self._daemon.kill()
            await self._for(0, 2)
            for _ in range(2):  # most likely while it replays
                await self._daemon.start(wait=False)
                await self._for(0.5, 2)
                await self._daemon.kill()
            await self._daemon.start()

    async def _freeze(self) -> None:
        self._daemon.freeze()
        with self._spell(Trouble.FROZEN):
            await self._for(0.3, 6)
        self._daemon.thaw()

    # the link

    async def _cut(self) -> None:
        with self._spell(Trouble.UNLINKED):
            self._cable.cut()
            await self._for(0, 3)
            self._cable.plug()

    async def _silence(self) -> None:
        with self._spell(Trouble.UNLINKED):
            self._cable.silence()
            await self._for(0.5, 4)
            self._cable.plug()

    # Asterisk

    async def _kill_pbx(self) -> None:
        with self._spell(Trouble.NO_PBX):
            await self._pbx.kill()
            await self._for(0, 1)
            await self._pbx.boot()

    async def _restart_pbx(self) -> None:
        with self._spell(Trouble.NO_PBX):
            await self._pbx.restart()

    async def _kill_both(self) -> None:
        with self._spell(Trouble.DEAD):
            await self._daemon.kill()
            await self._kill_pbx()
            await self._for(0, 3)
            await self._daemon.start()

    async def _freeze_and_kill_pbx(self) -> None:
        self._daemon.freeze()
        with self._spell(Trouble.FROZEN):
            await self._kill_pbx()
            await self._for(0, 3)
        self._daemon.thaw()
