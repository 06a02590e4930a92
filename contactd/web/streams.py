"""Server-sent events on the wire: what every stream of an open page has in common."""

import asyncio
import socket
from typing import Final

from aiohttp import web

from contactd.metrics import PEERS_REFUSED

WRITE_S: Final = 5.0  # a reader that has not taken an event by then is cut off
SEND_BUFFER_BYTES: Final = 64 * 1024  # in the kernel, per stream: a few boards
RECHECK_S: Final = 60.0  # how often an open page must still be allowed
RETRY_MS: Final = 2_000  # how soon a browser tries again
STILL_HERE: Final = b": still here\n\n"  # a comment (WHATWG HTML section 9.2.6)


async def write(request: web.Request, response: web.StreamResponse, data: bytes) -> None:
    """Send `data`; a page that does not take it in time is cut off.

    Raises:
        ConnectionResetError: it was, or is gone.
    """
    try:
        async with asyncio.timeout(WRITE_S):
            await response.write(data)
    except TimeoutError:
        PEERS_REFUSED.labels(listener="http", reason="slow_reader").inc()
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("the page does not read") from None


def shrink_send_buffer(request: web.Request) -> None:
    """Keep little in the kernel, so that a page that does not read is noticed soon."""
    connection = request.transport.get_extra_info("socket") if request.transport else None
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)


def event(name: str, html: str) -> bytes:
    """Return one event (WHATWG HTML section 9.2.5); a line break inside is a `data:` more."""
    lines = [line.strip() for line in html.splitlines()]
    data = "".join(f"data: {line}\n" for line in lines if line)
    return f"event: {name}\n{data or 'data:' + chr(10)}\n".encode()
