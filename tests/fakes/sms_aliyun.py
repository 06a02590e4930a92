"""Aliyun's text service: its API as the SDK 4.6.0 calls it, and what it calls itself.

Requests are RPC over HTTP, parameters in the query, signed with ACS3-HMAC-SHA256 in a header; that
is checked here as the documents have it (help.aliyun.com/document_detail/315526.html), not with the
SDK's own code. Answers have the form of document_detail/419273.html and 419277.html.
"""

import asyncio
import hashlib
import hmac
import json
import re
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from urllib.parse import quote

import aiohttp
from aiohttp import web
from pydantic import SecretStr

from contactd.httpd import Httpd
from contactd.lab.ports import free_port
from contactd.settings import AliyunSettings, HttpSettings
from contactd.sms.aliyun import SETTLES, AliyunGateway
from tests.fakes.clock import FakeClock
from tests.fakes.site import FakeAccounts
from tests.fakes.sms import FakeInbox, Fault

KEY_ID: Final = "LTAI-test"
KEY: Final = "a-key-of-nobody"
PATH_SECRET: Final = "Zq3_a-path-that-nobody-guesses"
TEMPLATES: Final = """
[received.zh]
code = "SMS_100000001"
params.ticket = "{ticket}"
params.site = "{site}"
[new.zh]
code = "SMS_100000002"
params.ticket = "{ticket}"
params.title = "{title}"
"""
_REFUSALS: Final = {
    Fault.BUSY: (200, "isv.BUSINESS_LIMIT_CONTROL"),
    Fault.DOWN: (503, "ServiceUnavailable"),
    Fault.REFUSED: (200, "isv.MOBILE_NUMBER_ILLEGAL"),
}


def signature(method: str, query: dict[str, str], headers: dict[str, str], body: bytes) -> str:
    """Return what the Authorization of a request has to be (version 3 of the signature)."""
    # The client says which it has signed; these it has to.
    named = re.findall(r"SignedHeaders=([^,]*)", headers["authorization"])[0].split(";")
    assert named == sorted(named)
    assert {"host", *(name for name in headers if name.startswith("x-acs-"))} <= set(named)
    canonical = "\n".join(
        [
            method,
            "/",
            "&".join(
                f"{quote(name, safe='')}={quote(query[name], safe='')}" for name in sorted(query)
            ),
            "".join(f"{name}:{headers[name].strip()}\n" for name in named),
            ";".join(named),
            hashlib.sha256(body).hexdigest(),
        ]
    )
    to_sign = f"ACS3-HMAC-SHA256\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    signed = hmac.new(KEY.encode(), to_sign.encode(), hashlib.sha256).hexdigest()
    return (
        f"ACS3-HMAC-SHA256 Credential={KEY_ID},SignedHeaders={';'.join(named)},Signature={signed}"
    )


@dataclass(slots=True, kw_only=True)
class AliyunProvider:
    """A `Provider`. Everything that it was asked is in `asked`, newest last."""

    gateway: AliyunGateway
    inbox: FakeInbox
    clock: FakeClock
    url: str  # of contactd, as Aliyun calls it
    able: Collection[str] = frozenset(
        {Fault.BUSY, Fault.DOWN, Fault.REFUSED, Fault.LOST, Fault.SILENT, "in", "find", "report"}
    )
    says: tuple[int, str] | None = None  # status and body instead of the next answer
    keeps_saying: bool = False  # and of all that follow
    drops: bool = False  # takes the next text and cuts the connection
    asked: list[dict[str, str]] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    _faults: list[Fault] = field(default_factory=list)
    _ids: Any = field(default_factory=lambda: count(1))

    def fail(self, fault: Fault) -> None:
        self._faults.append(fault)

    async def sent(self) -> Sequence[tuple[str, str]]:
        """Return number, and template code with parameters: Aliyun knows no other words."""
        taken = [each for each in self.records if each["params"] is not None]
        return [
            (f"+86{each['PhoneNum']}", f"{each['TemplateCode']} {each['params']}") for each in taken
        ]

    async def bring(self, sender: str, text: str, external_id: str = "") -> bool:
        item = {
            "phone_number": sender.removeprefix("+86"), "content": text, "dest_code": "1234",
            "send_time": "2026-11-20 10:00:00", "sequence_id": external_id or str(next(self._ids)),
        }  # fmt: skip
        return await self.call("up", json.dumps([item])) == 200

    def long_ago(self) -> datetime:
        return self.clock.now() - SETTLES

    def today(self) -> tuple[datetime, datetime]:
        start = datetime(2026, 11, 20, tzinfo=UTC)
        return start, start + timedelta(days=1)

    async def report(self, message_id: str, ref: str, *, delivered: bool) -> bool:
        item = {
            "phone_number": "13800000001", "send_time": "2026-11-20 10:00:00", "sms_size": "1",
            "report_time": "2026-11-20 10:00:05", "success": delivered, "biz_id": message_id,
            "err_code": "DELIVERED" if delivered else "MOBILE_NOT_ON_SERVICE", "out_id": ref,
            "err_msg": "用户接收成功" if delivered else "停机",
        }  # fmt: skip
        return await self.call("report", json.dumps([item])) == 200

    async def call(
        self, end: str, body: str | bytes, *, secret: str = PATH_SECRET, peer: str = "127.0.0.1",
        **headers: str,
    ) -> int:  # fmt: skip
        """Call contactd back from the address `peer`; return the status of its answer.

        What says 200 has to be what Aliyun's documents want to read.
        """
        connector = aiohttp.TCPConnector(local_addr=(peer, 0))
        sent = {"Content-Type": "application/json"} | headers
        async with (
            aiohttp.ClientSession(connector=connector) as client,
            client.post(f"{self.url}/sms/aliyun/{secret}/{end}", data=body, headers=sent) as answer,
        ):
            if answer.status == 200:
                assert await answer.json() == {"code": 0, "msg": "成功"}
            return answer.status

    # Its API

    async def serve(self, request: web.Request) -> web.StreamResponse:
        query, body = dict(request.query), await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        action = headers.get("x-acs-action", "")
        self.asked.append({"Action": action} | query)
        assert headers["x-acs-version"] == "2017-05-25"
        if headers["authorization"] != signature(request.method, query, headers, body):
            return _answer(400, Code="SignatureDoesNotMatch", Message="see the documents")
        if self.says is not None:
            status, said = self.says
            self.says = self.says if self.keeps_saying else None
            return web.Response(status=status, text=said, content_type="application/json")
        match action:
            case "SendSms":
                return await self._send(request, query)
            case "QuerySendDetails":
                return self._details(query)
            case _:
                return _answer(404, Code="InvalidAction.NotFound", Message=action)

    async def _send(self, request: web.Request, query: dict[str, str]) -> web.StreamResponse:
        fault = self._faults.pop(0) if self._faults else None
        if fault in _REFUSALS:
            status, code = _REFUSALS[fault]
            return _answer(status, Code=code, Message="as the test says")
        biz_id = f"{next(self._ids)}^0"
        if fault is not Fault.LOST:
            self.take(biz_id, query)
        if fault is not None:
            await self.over.wait()
        if self.drops:
            self.drops = False
            assert request.transport is not None
            request.transport.abort()
        return _answer(200, Code="OK", Message="OK", BizId=biz_id)

    def take(self, biz_id: str, query: dict[str, str], at: datetime | None = None) -> None:
        """Keep a record of a text, of `at` or of now."""
        shanghai = (at or self.clock.now()).astimezone(UTC) + timedelta(hours=8)
        self.records.append(
            {
                "BizId": biz_id, "PhoneNum": query["PhoneNumbers"], "OutId": query["OutId"],
                "TemplateCode": query["TemplateCode"], "SendStatus": 1, "ErrCode": "",
                "Content": "【签名】…", "SendDate": f"{shanghai:%Y-%m-%d %H:%M:%S}",
                "params": query.get("TemplateParam"),
            }
        )  # fmt: skip

    def _details(self, query: dict[str, str]) -> web.Response:
        day = f"{query['SendDate'][:4]}-{query['SendDate'][4:6]}-{query['SendDate'][6:]}"
        size, page = int(query["PageSize"]), int(query["CurrentPage"])
        assert size <= 50
        found = [
            {name: value for name, value in each.items() if name not in ("BizId", "params")}
            for each in self.records
            if each["PhoneNum"] == query["PhoneNumber"]
            and each["SendDate"].startswith(day)
            and query.get("BizId", each["BizId"]) == each["BizId"]
        ]
        some = found[(page - 1) * size : page * size]
        return _answer(
            200,
            Code="OK",
            Message="OK",
            TotalCount=str(len(found)),
            SmsSendDetailDTOs={"SmsSendDetailDTO": some},
        )


def _answer(status: int, **said: Any) -> web.Response:
    return web.json_response(
        {"RequestId": "819BE656-D2E0-4858-8B21-B2E477085AAF"} | said, status=status
    )


def settings(folder: Path, **changes: Any) -> AliyunSettings:
    """Return complete settings; the templates are in `folder`."""
    templates = folder / "templates.toml"
    if not templates.exists():
        templates.write_text(TEMPLATES, encoding="utf-8")
    given: dict[str, Any] = {
        "access_key_id": KEY_ID, "access_key_secret": SecretStr(KEY), "sign_name": "示例公司",
        "protocol": "http", "templates_file": templates, "path_secret": SecretStr(PATH_SECRET),
        "allowed": ("127.0.0.1",), "timeout_s": 1,
    }  # fmt: skip
    return AliyunSettings(**{**given, **changes})


@asynccontextmanager
async def aliyun_provider(**changes: Any) -> AsyncIterator[AliyunProvider]:
    """Run the provider, and contactd's side; `changes` are of its settings."""
    # Its records are looked at once they have settled, whether the caller's time is true or not.
    clock = FakeClock(datetime.now(UTC) + 2 * SETTLES)
    inbox, port = FakeInbox(), free_port()
    async with AsyncExitStack() as opened:
        folder = Path(opened.enter_context(TemporaryDirectory()))
        given = settings(folder, **{"endpoint": f"127.0.0.1:{port}", **changes})
        gateway = AliyunGateway(given, inbox, clock)
        http = HttpSettings(port=free_port())
        httpd = Httpd(http, routes=gateway.routes(), accounts=FakeAccounts(), drain_s=1)
        provider = AliyunProvider(
            gateway=gateway, inbox=inbox, clock=clock, url=f"http://127.0.0.1:{http.port}"
        )
        app = web.Application()
        app.router.add_post("/", provider.serve)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        opened.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", port).start()
        opened.callback(provider.over.set)
        await opened.enter_async_context(gateway.running())
        await opened.enter_async_context(httpd.running())
        yield provider
