"""An SMSC for one client, as cheap as it can be: every PDU is bytes before the time runs.

`python -m bench.peers.smsc in|out PORT WARM_UP TEXTS WINDOW`: with `in` it brings so many texts,
`WINDOW` at a time, each from a number that sends three; with `out` it takes so many. Each
submit_sm gets an id of its own. It prints how many seconds the last `TEXTS` took, from the first of
them to the last answer, and ends; a status other than 0 is an error.
"""

import asyncio
import json
import random
import struct
import sys
import time
from collections.abc import Iterator
from typing import Final

HOST: Final = "127.0.0.1"
SYSTEM_ID: Final = "contactd"
PASSWORD: Final = "password"
OURS: Final = "10690001"
EACH: Final = 3
TEXT: Final = "会议室的投影仪没有信号，十点有会，请尽快来人🙏 {:06}"

_HEAD: Final = struct.Struct(">IIII")
_RESPONSE: Final = 0x8000_0000
_SUBMIT, _DELIVER, _UNBIND = 0x04, 0x05, 0x06
_LINGERS_S: Final = 2.0  # for the client's last words


def deliveries(number: int) -> Iterator[bytes]:
    """Yield deliver_sm, numbered from 1: always the same."""
    senders = [each // EACH for each in range(number)]
    random.Random(2026).shuffle(senders)
    for each, sender in enumerate(senders, start=1):
        text = TEXT.format(each).encode("utf-16-be")
        body = b"\0" + b"\1\1" + f"8613800{sender:06}".encode() + b"\0"
        body += b"\0\0" + OURS.encode() + b"\0" + b"\0\0\0" + b"\0\0" + b"\0\0\x08\0"
        body += bytes([len(text)]) + text
        yield _HEAD.pack(16 + len(body), _DELIVER, 0, each) + body


class Smsc(asyncio.Protocol):
    def __init__(self, texts: list[bytes], *, warm_up: int, number: int, window: int) -> None:
        self._texts = iter(texts)
        self._brings = bool(texts)
        self._warm_up = warm_up
        self._number = number
        self._window = window
        self._heard = b""
        self._settled = 0  # texts brought and acknowledged, or taken
        self._ids = 0
        self._began = 0.0
        self._wire: asyncio.Transport | None = None
        self.took: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._wire = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.took.done():
            self.took.set_exception(ConnectionError("the client has left"))

    def data_received(self, data: bytes) -> None:
        assert self._wire is not None
        heard, at, answers = self._heard + data, 0, []
        while len(heard) - at >= 16:
            size, command, status, sequence = _HEAD.unpack_from(heard, at)
            if len(heard) - at < size:
                break
            at += size
            answers += self._answers(command, status, sequence)
        self._heard = heard[at:]
        self._wire.write(b"".join(answers))

    def _answers(self, command: int, status: int, sequence: int) -> list[bytes]:
        if command == _DELIVER | _RESPONSE:
            if status and not self.took.done():
                self.took.set_exception(ValueError(f"deliver_sm_resp with {status:#x}"))
            self._settle()
            return [text for text in [next(self._texts, None)] if text is not None]
        if command & _RESPONSE:
            return []
        if command == _SUBMIT:
            self._ids += 1
            if not self._brings:
                self._settle()
            return [_answer(command, sequence, f"{self._ids:08x}".encode() + b"\0")]
        if command in (0x01, 0x02, 0x09):  # bind
            first = [text for _, text in zip(range(self._window), self._texts, strict=False)]
            self._begin()
            return [_answer(command, sequence, b"smsc\0"), *first]
        return [_answer(command, sequence, b"")]

    def _settle(self) -> None:
        self._settled += 1
        if self._settled == self._warm_up:
            self._begin()
        if self._settled == self._warm_up + self._number and not self.took.done():
            self.took.set_result(time.perf_counter() - self._began)

    def _begin(self) -> None:
        self._began = time.perf_counter()


def _answer(command: int, sequence: int, body: bytes) -> bytes:
    return _HEAD.pack(16 + len(body), command | _RESPONSE, 0, sequence) + body


async def main(way: str, port: int, warm_up: int, number: int, window: int) -> None:
    texts = list(deliveries(warm_up + number)) if way == "in" else []
    smsc = Smsc(texts, warm_up=warm_up, number=number, window=window)
    server = await asyncio.get_running_loop().create_server(lambda: smsc, HOST, port)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    took = await smsc.took
    sys.stdout.write(json.dumps({"seconds": took}) + "\n")
    sys.stdout.flush()
    await asyncio.sleep(_LINGERS_S)
    server.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], *(int(each) for each in sys.argv[2:])))
