"""A clamd and an rspamd: they answer as clamd 1.4.6 and rspamd 3.4 did, with switches."""

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"


@dataclass(slots=True, kw_only=True)
class FakeClamd:
    address: str = ""
    longest: int = 25 << 20  # StreamMaxLength
    resets: bool = True  # over `longest`; else it says so first
    says: bytes = b""  # instead of the reply
    hangs: bool = False
    cuts: bool = False  # before the reply
    scanned: list[bytes] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.hangs:
            await asyncio.sleep(3600)
        if await reader.readuntil(b"\0") != b"zINSTREAM\0":
            writer.write(b"UNKNOWN COMMAND\0")
            return
        content = bytearray()
        while (length := struct.unpack(">I", await reader.readexactly(4))[0]) > 0:
            if len(content) + length > self.longest:
                if not self.resets:  # which of the two it is depends on what is on its way
                    writer.write(b"INSTREAM size limit exceeded. ERROR\0")
                    return
                writer.transport.abort()
                return
            content += await reader.readexactly(length)
        self.scanned.append(bytes(content))
        if self.cuts:
            return
        found = b"Eicar-Test-Signature.UNOFFICIAL FOUND" if EICAR in content else b"OK"
        writer.write(self.says or b"stream: " + found + b"\0")
        await writer.drain()


@asynccontextmanager
async def fake_clamd(socket: Path | None = None) -> AsyncIterator[FakeClamd]:
    clamd = FakeClamd()
    if socket is None:
        server = await asyncio.start_server(clamd.serve, "127.0.0.1", 0)
        clamd.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    else:
        server = await asyncio.start_unix_server(clamd.serve, socket)
        clamd.address = str(socket)
    try:
        yield clamd
    finally:
        server.close()


GTUBE_ANSWER = {
    "is_skipped": True, "score": 15.0, "required_score": 15.0, "action": "reject",
    "symbols": {"GTUBE": {"name": "GTUBE", "score": 0.0, "metric_score": 0.0}},
    "messages": {"smtp_message": "Gtube pattern"}, "message-id": "undef", "time_real": 0.000326,
}  # fmt: skip


@dataclass(slots=True, kw_only=True)
class FakeRspamd:
    url: str = ""
    answer: dict[str, Any] = field(
        default_factory=lambda: {
            "is_skipped": False, "score": 1.5, "required_score": 15.0, "action": "no action",
            "symbols": {"ARC_NA": {"name": "ARC_NA", "score": 0.0, "metric_score": 0.0}},
            "messages": {}, "message-id": "m1@example.cn", "time_real": 0.000326,
        }
    )  # fmt: skip
    says: bytes | None = None  # instead of the answer's JSON
    status: int = 200
    instead: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
    asked: list[tuple[list[tuple[str, str]], bytes]] = field(default_factory=list)

    async def check(self, request: web.Request) -> web.StreamResponse:
        if self.instead is not None and request.path == "/checkv2":
            return await self.instead(request)
        self.asked.append(([*request.headers.items()], await request.read()))
        body = json.dumps(self.answer).encode() if self.says is None else self.says
        return web.Response(body=body, status=self.status, content_type="application/json")


@asynccontextmanager
async def fake_rspamd() -> AsyncIterator[FakeRspamd]:
    rspamd = FakeRspamd()
    app = web.Application(client_max_size=64 << 20)
    app.router.add_post("/checkv2", rspamd.check)
    app.router.add_get("/elsewhere", rspamd.check)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        rspamd.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield rspamd
    finally:
        await runner.cleanup()
