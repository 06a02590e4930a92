"""The composition root: builds every part in order, and runs them."""

import asyncio
from collections.abc import Iterable
from contextlib import AsyncExitStack
from datetime import timedelta

from contactd.log import get_logger
from contactd.service import Service

log = get_logger()


async def serve(services: Iterable[Service], stop: asyncio.Event, *, grace: timedelta) -> None:
    """Run `services` until `stop` is set or one of them breaks.

    They are opened in order and closed in reverse: list what others lean on first and what takes
    new work last, and no request ever meets a part that is already gone.

    Raises:
        ExceptionGroup: a service broke; the others were closed first. The process should exit
            non-zero and be started again: recovery and start are the same code.
        TimeoutError: draining took longer than `grace`; what was left has been cancelled.
    """
    async with asyncio.timeout(None) as deadline, AsyncExitStack() as opened:
        for service in services:
            await opened.enter_async_context(service.running())
            log.info("service.started", service=service.name)
        log.info("daemon.ready")
        await stop.wait()
        log.info("daemon.stopping")
        deadline.reschedule(asyncio.get_running_loop().time() + grace.total_seconds())
