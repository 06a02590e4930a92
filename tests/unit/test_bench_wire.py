"""The WebSocket frames that benchmarks make and read by hand, against another implementation."""

import asyncio
import json
import os

import pytest
from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestServer

from bench.wire import BINARY, CLOSE, PING, TEXT, Wire, cut, frame

SIZES = (0, 1, 125, 126, 127, 65_535, 65_536, 100_000)


@pytest.mark.parametrize("size", SIZES)
def test_a_frame_is_cut_off_the_front_wherever_the_bytes_are_split(size: int) -> None:
    payload = os.urandom(size)
    whole = frame(BINARY, payload, masked=False) + frame(TEXT, b"next", masked=False)
    for split in {0, 1, 2, 3, 9, size, len(whole) - 1, len(whole)}:
        data = bytearray(whole[:split])
        found = [each for each in (cut(data), cut(data)) if each is not None]
        data += whole[split:]
        while (more := cut(data)) is not None:
            found.append(more)
        assert found == [(BINARY, payload), (TEXT, b"next")]
        assert not data


@pytest.mark.parametrize("size", SIZES)
async def test_aiohttp_reads_what_is_sent_and_is_read(size: int) -> None:
    async def echo(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(max_msg_size=1 << 20)
        await ws.prepare(request)
        async for message in ws:
            if message.type is WSMsgType.BINARY:
                await ws.ping()
                await ws.send_str("words")
                await ws.send_bytes(message.data)
            else:
                await ws.send_str(message.data)
        return ws

    app = web.Application()
    app.router.add_get("/", echo)
    async with TestServer(app) as server:
        assert server.port is not None
        wire = await asyncio.to_thread(Wire.opened, server.port, "/")
        payload = os.urandom(size)
        await asyncio.to_thread(wire.send, payload)
        assert await asyncio.to_thread(wire.bytes) == payload
        await asyncio.to_thread(wire.say, "state", leg=2)
        told = await asyncio.to_thread(wire.told, "state", leg=2)
        assert told == json.loads('{"type": "state", "leg": 2}')
        await asyncio.to_thread(wire.sock.sendall, frame(CLOSE, b"\x03\xe8"))
        assert (await asyncio.to_thread(wire.next))[0] == CLOSE
        wire.close()


def test_the_frames_of_control_are_known() -> None:
    assert cut(bytearray(b"\x89\x01x")) == (PING, b"x")
    assert cut(bytearray(b"\x88\x02\x0f\xa1")) == (CLOSE, b"\x0f\xa1")
