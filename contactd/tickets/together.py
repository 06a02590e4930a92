"""Lets requests that come at the same time share one transaction, as databases group commits.

Whoever comes while nothing is under way is served at once, alone. Only when very many come are they
made to wait for each other: a transaction of five costs little more than one of one, and one of
`ENOUGH` is not worth waiting any longer for.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, Generic, TypeVar

from contactd.errors import TemporaryFailure

CROWD: Final = 12  # so many requests …
CROWD_S: Final = 0.5  # … within this time are a crowd: more than ten calls a second
APART_S: Final = 0.15  # from one go to the next, in a crowd …
ENOUGH: Final = 8  # … unless so many wait: SMSCs offer ten at a time, and would wait in turn
# Whoever was answered together asks again together, and a request takes three or four turns of the
# event loop from its bytes to here: after so many without another, nobody is coming.
TURNS: Final = 12

Request = TypeVar("Request")
Answer = TypeVar("Answer")


@dataclass(slots=True, eq=False)
class _Waiting(Generic[Request, Answer]):
    """`news`: it has its outcome, or it is its turn to serve."""

    request: Request
    news: "asyncio.Future[None]"
    outcome: Callable[[], Answer] | None = None  # returns the answer or raises what became of it

    def end(self, outcome: Callable[[], Answer]) -> None:
        self.outcome = outcome
        self.tell()

    def tell(self) -> None:
        if not self.news.done():  # whoever asked may be gone
            self.news.set_result(None)


class Together(Generic[Request, Answer]):
    """`serve` does several requests in one go, all or none, and answers them in their order.

    Two requests of the same `key` never share a go. There is no task of its own: whoever's turn
    it is serves everybody who waits, up to `most`.
    """

    def __init__(
        self,
        serve: Callable[[Sequence[Request]], Awaitable[Sequence[Answer]]],
        *,
        key: Callable[[Request], Hashable],
        most: int,
    ) -> None:
        self._serve = serve
        self._key = key
        self._most = most
        self._leader: _Waiting[Request, Answer] | None = None  # serves those who wait
        self._waiting: list[_Waiting[Request, Answer]] = []
        self._asked: deque[float] = deque(maxlen=CROWD)  # when; event loop's clock
        self._enough = asyncio.Event()
        self._went = 0.0  # when the last go began

    async def ask(self, request: Request) -> Answer:
        """Return the answer to `request`.

        Raises:
            TemporaryFailure: who was serving it was cancelled, or as `serve`.
        """
        loop = asyncio.get_running_loop()
        self._asked.append(loop.time())
        mine = _Waiting[Request, Answer](request, loop.create_future())
        self._waiting.append(mine)
        if len(self._waiting) >= ENOUGH:
            self._enough.set()
        try:
            if self._leader is None:
                self._leader = mine
            else:
                await mine.news
            while mine.outcome is None:
                await self._go()
        finally:
            if mine in self._waiting:  # cancelled before its turn came
                self._waiting.remove(mine)
            if mine is self._leader:
                self._leader = next(iter(self._waiting), None)
                if self._leader is not None:
                    self._leader.tell()
        return mine.outcome()

    async def _go(self) -> None:
        await self._gather()
        batch: dict[Hashable, _Waiting[Request, Answer]] = {}
        for one in self._waiting:
            if len(batch) < self._most:
                batch.setdefault(self._key(one.request), one)
        group, taken = list(batch.values()), set(batch.values())
        self._waiting = [one for one in self._waiting if one not in taken]
        if len(self._waiting) < ENOUGH:
            self._enough.clear()
        try:
            if not await self._shared(group):
                for one in group:
                    await self._shared([one])
        finally:  # nobody else has them any more
            gone = TemporaryFailure("who was serving it was cancelled")
            _fail([one for one in group if one.outcome is None], gone)

    async def _gather(self) -> None:
        loop = asyncio.get_running_loop()
        if len(self._asked) == CROWD and loop.time() - self._asked[0] < CROWD_S:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._went + APART_S):
                    await self._enough.wait()
            await self._let_in()
        self._went = loop.time()

    async def _let_in(self) -> None:
        """Wait as long as others keep coming."""
        known, still = len(self._waiting), 0
        while still < TURNS and known < self._most:
            await asyncio.sleep(0)
            still = 0 if len(self._waiting) > known else still + 1
            known = len(self._waiting)

    async def _shared(self, group: Sequence[_Waiting[Request, Answer]]) -> bool:
        """Serve `group`; return False if that failed because of one of them, nobody knows which."""
        try:
            answers = await self._serve([one.request for one in group])
        except Exception as error:  # handed to those whose request it was, who raise it
            if len(group) > 1 and not isinstance(error, TemporaryFailure):
                return False
            _fail(group, error)
        else:
            for one, answer in zip(group, answers, strict=True):
                one.end(partial(_same, answer))
        return True


def _fail(group: Sequence[_Waiting[Request, Answer]], error: Exception) -> None:
    def fail() -> Answer:
        raise error

    for one in group:
        one.end(fail)


def _same(answer: Answer) -> Answer:
    return answer
