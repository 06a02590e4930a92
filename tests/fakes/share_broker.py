"""A broker for the helper alone: a real WebSocket that opens a leg on a yes, and an engineer."""

import asyncio
import json
import struct
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import WSMsgType, web

from contactd.lab.ports import free_port

SOON_S: Final = 30.0
RIGHTS: Final = ("view", "control", "clipboard")


@dataclass(slots=True, kw_only=True)
class ShareBroker:
    """`asks`: each helper that comes is asked for its user's consent at once."""

    port: int
    asks: bool = True
    heard: list[dict[str, Any]] = field(default_factory=list)
    heard_at: list[float] = field(default_factory=list)
    shown: bytearray = field(default_factory=bytearray)  # by the VNC server of the last leg
    code: int | None = None
    legs: int = 0
    ws: web.WebSocketResponse | None = None

    @property
    def invitation(self) -> dict[str, str]:
        return {
            "url": f"http://127.0.0.1:{self.port}", "key": "the key", "language": "zh",
            "service": "南方服务台", "ticket": "2611220017",
        }  # fmt: skip

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(compress=False, heartbeat=4)
        await ws.prepare(request)
        self.ws, self.code = ws, None
        async for message in ws:
            if message.type is WSMsgType.BINARY:
                self.shown += message.data[1:]
            else:
                await self._take(json.loads(message.data))
        self.code = ws.close_code
        return ws

    async def _take(self, words: dict[str, Any]) -> None:
        self.heard.append(words)
        self.heard_at.append(time.monotonic())
        if words["type"] == "hello":
            self.shown.clear()  # before its user answers: `shake` must not see the last helper's
            await self.tell(
                "welcome", session=1, ticket="2611220017", service="南方服务台", language="zh",
                resume="another key", hotkey="ctrl+alt+q", recorded=True,
            )  # fmt: skip
            if self.asks:
                await self.ask()
        elif words["type"] == "answer" and words["yes"] and words["rights"]:
            self.legs += 1
            self.shown.clear()
            await self.open(self.legs, rights=words["rights"])

    async def tell(self, kind: str, /, **more: Any) -> None:
        assert self.ws is not None
        await self.ws.send_str(json.dumps({"type": kind, **more}))

    async def ask(
        self, number: int = 1, kind: str = "consent", rights: Sequence[str] = RIGHTS, **more: Any
    ) -> None:
        await self.tell("ask", ask=number, kind=kind, engineer="王伟", rights=list(rights), **more)

    async def open(self, leg: int, *, rights: Sequence[str], engineer: str = "王伟") -> None:
        await self.tell("open", leg=leg, engineer=engineer, purpose="help", rights=list(rights))

    def said(self, kind: str) -> list[dict[str, Any]]:
        return [each for each in self.heard if each["type"] == kind]

    async def until(self, happened: Callable[[], Any], within_s: float = SOON_S) -> Any:
        async with asyncio.timeout(within_s):
            while not (found := happened()):
                await asyncio.sleep(0.005)
            return found

    # The engineer

    async def send(self, data: bytes) -> None:
        assert self.ws is not None
        await self.ws.send_bytes(bytes((self.legs,)) + data)

    async def shake(self) -> None:
        """Do the handshake of RFB with the VNC server, and ask for its first picture."""
        await self.until(lambda: bytes(self.shown[:12]) == b"RFB 003.008\n")
        await self.send(b"RFB 003.008\n")
        await self.until(lambda: len(self.shown) >= 14)
        await self.send(b"\x01")
        await self.until(lambda: len(self.shown) >= 18)
        await self.send(b"\x01")
        await self.until(lambda: len(self.shown) >= 18 + 24)
        begun = len(self.shown)
        await self.send(struct.pack(">BxHi", 2, 1, 0))
        await self.send(struct.pack(">BBHHHH", 3, 0, 0, 0, 8, 8))
        await self.until(lambda: len(self.shown) > begun + 8 * 8 * 4)

    async def key(self, keysym: int, *, down: bool) -> None:
        await self.send(struct.pack(">BBxxI", 4, down, keysym))

    async def type(self, text: str) -> None:
        for each in text:
            code = ord(each)
            keysym = 0xFF0D if each == "\n" else code if code < 0x100 else 0x1000000 + code
            await self.key(keysym, down=True)
            await self.key(keysym, down=False)

    async def pointer(self, x: int, y: int, buttons: int = 0) -> None:
        await self.send(struct.pack(">BBHH", 5, buttons, x, y))

    async def click(self, x: int, y: int) -> None:
        for buttons in (0, 1, 0):
            await self.pointer(x, y, buttons)


@asynccontextmanager
async def running_share_broker() -> AsyncIterator[ShareBroker]:
    broker = ShareBroker(port=free_port())
    app = web.Application()
    app.router.add_get("/s/connect", broker.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", broker.port).start()
    try:
        yield broker
    finally:
        await runner.cleanup()
