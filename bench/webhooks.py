"""A provider that calls webhooks as fast as they answer: a program of its own.

`python -m bench.webhooks PORT WARM_UP TEXTS`: signs that many texts, then posts them over
`CONNECTIONS` connections that stay open, and prints how long the last `TEXTS` of them took and
how many were answered with 200. Each text has an id and words of its own; `EACH` of them come from
one number, in any order. The requests are bytes before the time runs: what is left of them costs
this process a tenth of what it costs the other side.
"""

import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlencode

from twilio.request_validator import RequestValidator  # type: ignore[import-untyped]

ACCOUNT: Final = f"AC{5:032x}"
TOKEN: Final = "an auth token of thirty-two signs"
OURS: Final = "+8613900000000"
PUBLIC_URL: Final = "https://desk.example"
INBOUND: Final = "/sms/twilio/inbound"
HOST: Final = "127.0.0.1"
CONNECTIONS: Final = 32
EACH: Final = 3
ANSWERED_S: Final = 60.0

_SENTENCES: Final = (
    "打印机又卡纸了，三楼财务室，型号 M428。",
    "重启以后还是一样，屏幕上显示错误代码 0x0000011b。",
    "会议室的投影仪没有信号，十点有会，请尽快来人🙏",
    "VPN 连不上，提示证书过期。",
)


def requests(number: int) -> Iterator[bytes]:
    """Yield what Twilio would send: always the same."""
    choose = random.Random(2026)
    senders = [each // EACH for each in range(number)]
    choose.shuffle(senders)
    validator = RequestValidator(TOKEN)
    for each, sender in enumerate(senders):
        body = f"{''.join(choose.sample(_SENTENCES, k=2))} {each}"
        fields = _fields(f"SM{each:032x}", f"+8613800{sender:06}", body)
        yield _request(fields, validator.compute_signature(PUBLIC_URL + INBOUND, fields))


def _fields(sid: str, sender: str, body: str) -> dict[str, str]:
    """Return the fields that come with a text ("Twilio's Request to your Webhook URL")."""
    return {
        "ToCountry": "CN", "ToState": "", "ToCity": "", "ToZip": "", "To": OURS,
        "FromCountry": "CN", "FromState": "Guangdong", "FromCity": "", "FromZip": "",
        "From": sender, "SmsMessageSid": sid, "SmsSid": sid, "MessageSid": sid,
        "SmsStatus": "received", "NumMedia": "0", "NumSegments": "1", "Body": body,
        "AccountSid": ACCOUNT, "ApiVersion": "2010-04-01",
    }  # fmt: skip


def _request(fields: dict[str, str], signature: str) -> bytes:
    body = urlencode(fields).encode()
    head = (
        f"POST {INBOUND} HTTP/1.1\r\nHost: desk.example\r\nUser-Agent: TwilioProxy/1.1\r\n"
        f"Accept: */*\r\nX-Twilio-Signature: {signature}\r\nI-Twilio-Idempotency-Token: {signature}"
        "\r\nContent-Type: application/x-www-form-urlencoded; charset=UTF-8\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Caller(asyncio.Protocol):
    """One connection: it posts the next text as soon as the one before is answered."""

    def __init__(self, texts: Iterator[bytes], statuses: Counter[str]) -> None:
        self._texts = texts
        self._statuses = statuses
        self._heard = b""
        self._wire: asyncio.Transport | None = None
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._wire = transport
        self._next()

    def data_received(self, data: bytes) -> None:
        self._heard += data
        head, end, body = self._heard.partition(b"\r\n\r\n")
        if not end or len(body) < _length(head):
            return
        self._heard = b""
        self._statuses[head[9:12].decode()] += 1
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self._statuses["cut"] += 1
            self.done.set_result(None)

    def _next(self) -> None:
        assert self._wire is not None
        text = next(self._texts, None)
        if text is None:
            if not self.done.done():
                self.done.set_result(None)
            self._wire.close()
        else:
            self._wire.write(text)


def _length(head: bytes) -> int:
    _, _, rest = head.lower().partition(b"content-length:")
    return int(rest.partition(b"\r\n")[0])


async def post(port: int, texts: list[bytes]) -> dict[str, Any]:
    left, statuses = iter(texts), Counter[str]()
    loop = asyncio.get_running_loop()
    began, worked = time.perf_counter(), time.process_time()
    callers = [
        (await loop.create_connection(lambda: Caller(left, statuses), HOST, port))[1]
        for _ in range(CONNECTIONS)
    ]
    async with asyncio.timeout(ANSWERED_S):
        await asyncio.wait([each.done for each in callers])
    return {
        "seconds": time.perf_counter() - began,
        "worked_s": time.process_time() - worked,
        "statuses": dict(statuses),
    }


async def main(port: int, warm_up: int, number: int) -> None:
    texts = list(requests(warm_up + number))
    first = await post(port, texts[:warm_up])
    then = await post(port, texts[warm_up:])
    print(json.dumps({"warm_up": first, "then": then}))


if __name__ == "__main__":
    asyncio.run(main(*(int(each) for each in sys.argv[1:])))
