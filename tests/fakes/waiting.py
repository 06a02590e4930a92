"""Waiting for what nobody tells: looks again and again, and fails after half a minute.

A test machine may stand still for twenty seconds; what must be quick is measured, not waited for.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

T = TypeVar("T")

LOOK_S: Final = 0.005
WITHIN_S: Final = 30.0


async def eventually(
    look: Callable[[], Awaitable[T]], *, within_s: float = WITHIN_S, every_s: float = LOOK_S
) -> T:
    """Return the first true thing that `look` brings."""
    async with asyncio.timeout(within_s):
        while not (found := await look()):
            await asyncio.sleep(every_s)
    return found


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not condition():
            await asyncio.sleep(LOOK_S)
