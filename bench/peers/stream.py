"""A bare stream of events: `python -m bench.peers.stream PORT BYTES EVENTS_A_SECOND`.

aiohttp, a task a viewer that waits for the next event and writes it: so many bytes, so often, with
the instant at which they were made. It knows nothing and reads nothing.
"""

import asyncio
import sys
import time
from contextlib import suppress

from aiohttp import web


async def main(port: int, size: int, rate: float) -> None:
    news = asyncio.Condition()
    event = b""

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        with suppress(ConnectionResetError):  # the viewer left
            while True:
                async with news:
                    await news.wait()
                    mine = event
                await response.write(mine)
        return response

    app = web.Application()
    app.router.add_get("/live", stream)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
    while True:
        await asyncio.sleep(1 / rate)
        head = f"event: board\ndata: at {time.time():.6f} ".encode()
        event = head + b"x" * (size - len(head) - 2) + b"\n\n"
        async with news:
            news.notify_all()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
