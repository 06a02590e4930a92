"""`python -m bench.readers URL SECONDS`: people of the desk who read pages; JSON on stdin, stdout.

stdin: {"token": …, "users": …, "pauses": [shortest, longest], "pages": {kind: [path, …]}}. Each
user thinks, opens a page of some kind, reads it to its end, thinks again. stdout: {kind: [s, …]}.
"""

import asyncio
import json
import random
import sys
import time
from typing import Any

import aiohttp


async def read(url: str, seconds: float, told: dict[str, Any]) -> dict[str, list[float]]:
    """Return how long each page took, from the request to its last byte, by kind.

    Raises:
        RuntimeError: an answer was no 200.
    """
    took: dict[str, list[float]] = {kind: [] for kind in told["pages"]}
    end = time.monotonic() + seconds
    headers = {"Authorization": f"Bearer {told['token']}", "Accept": "text/html"}
    async with (
        aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0)) as http,
        asyncio.TaskGroup() as users,
    ):
        for number in range(told["users"]):
            users.create_task(_use(http, url, end, told, took, random.Random(number)))
    return took


async def _use(  # what one user does
    http: aiohttp.ClientSession, url: str, end: float, told: dict[str, Any],
    took: dict[str, list[float]], pen: random.Random,
) -> None:  # fmt: skip
    kinds = list(took)
    shortest, longest = told["pauses"]
    while time.monotonic() < end:
        await asyncio.sleep(pen.uniform(shortest, longest))
        kind = pen.choice(kinds)
        path = pen.choice(told["pages"][kind])
        began = time.perf_counter()
        async with http.get(url + path) as answer:
            body = await answer.read()
            if answer.status != 200:
                raise RuntimeError(f"{path}: {answer.status} {body[:200]!r}")
        took[kind].append(time.perf_counter() - began)


if __name__ == "__main__":
    found = asyncio.run(read(sys.argv[1], float(sys.argv[2]), json.load(sys.stdin)))
    json.dump(found, sys.stdout)
