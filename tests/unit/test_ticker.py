"""The ticker that other tests rely on sees what our loop does, and not what the machine does."""

import asyncio
import gc
import os
import subprocess
import time

from tests.fakes.ticker import LIMIT_S, Ticker


async def test_a_loop_that_does_nothing_else_for_a_while_is_seen() -> None:
    async with Ticker() as ticker:
        await asyncio.sleep(0.1)
        time.sleep(0.4)
        await asyncio.sleep(0.1)
    assert ticker.worst_s > LIMIT_S


async def test_a_machine_that_stops_every_process_is_not_held_against_the_loop() -> None:
    async with Ticker() as ticker:
        await asyncio.sleep(0.2)
        everybody = f"{os.getpid()} {ticker.twin}"
        stall = f"kill -STOP {everybody}; sleep 0.6; kill -CONT {everybody}"
        with subprocess.Popen(["/bin/sh", "-c", stall]):
            await asyncio.sleep(0.2)
    assert ticker.longest_s > 0.5
    assert ticker.worst_s < LIMIT_S


async def test_what_other_tests_left_is_not_looked_through_meanwhile() -> None:
    async with Ticker():
        frozen = gc.get_freeze_count()
    assert frozen > 10_000
    assert gc.get_freeze_count() == 0
