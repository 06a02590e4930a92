"""Somebody else's calendar on a real web server, with faults."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web


def away(*days: tuple[str, str]) -> str:
    """Return a calendar with whole days away, each from a date to the one after the last."""
    return vcalendar(
        [f"DTSTART;VALUE=DATE:{first}", f"DTEND;VALUE=DATE:{after}"] for first, after in days
    )


def vcalendar(events: Iterable[Iterable[str]]) -> str:
    lines = ["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//office//EN"]
    for number, event in enumerate(events):
        lines += ["BEGIN:VEVENT", f"UID:{number}@office", "DTSTAMP:20260101T000000Z", *event]
        lines += ["SUMMARY:年假", "END:VEVENT"]
    return "\r\n".join([*lines, "END:VCALENDAR", ""])


@dataclass(slots=True, kw_only=True)
class Office:
    """`body` is what it has; `asked` counts requests, `unchanged` those answered with 304."""

    body: str | bytes = field(default_factory=away)
    etag: str = '"1"'
    status: int = 200
    endless: bool = False
    silent: bool = False
    asked: int = 0
    unchanged: int = 0
    url: str = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        if self.silent:
            await asyncio.sleep(3600)
        if self.endless:
            return await self._pour(request)
        headers = {"ETag": self.etag} if self.etag else {}
        if self.etag and request.headers.get("If-None-Match") == self.etag:
            self.unchanged += 1
            return web.Response(status=304, headers=headers)
        body = self.body.encode() if isinstance(self.body, str) else self.body
        return web.Response(body=body, status=self.status, headers=headers)

    async def _pour(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"X" * (1 << 16))


@asynccontextmanager
async def office() -> AsyncIterator[Office]:
    here = Office()
    app = web.Application()
    app.router.add_get("/leave.ics", here.answer)

    async def elsewhere(request: web.Request) -> web.Response:
        raise web.HTTPFound("/elsewhere")  # for ever

    app.router.add_get("/elsewhere", elsewhere)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    here.url = f"http://127.0.0.1:{port}/leave.ics"
    try:
        yield here
    finally:
        await runner.cleanup()
