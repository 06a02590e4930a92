"""A Twilio on this machine: its REST API as the official client uses it, and its webhooks, signed.

It is no mock of answers: what is taken is kept, is in the list, and is reported. The signatures are
made by Twilio's own library. What the API's answers look like was compared with Twilio's OpenAPI
document (`make texts-contract`).
"""

import asyncio
import base64
import hashlib
from collections import deque
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import format_datetime
from enum import StrEnum
from io import BytesIO
from typing import Any, Final
from urllib.parse import quote, urlencode

import aiohttp
from aiohttp import web
from multidict import MultiDict
from twilio.request_validator import RequestValidator  # type: ignore[import-untyped]
from yarl import URL

from contactd.clock import Clock
from contactd.httpd import Httpd
from contactd.lab.ports import free_port
from contactd.settings import HttpSettings, TwilioSettings
from contactd.sms.twilio import INBOUND, SETTLES, STATUS, TwilioGateway
from tests.fakes.clock import FakeClock
from tests.fakes.site import FakeAccounts
from tests.fakes.sms import FakeInbox, Fault

ACCOUNT: Final = "AC" + "0a" * 16
TOKEN: Final = "0123456789abcdef0123456789abcdef"
SENDER: Final = "+15005550006"
PUBLIC: Final = "https://desk.example.cn"  # a proxy in front; we are called as 127.0.0.1
TIMEOUT_S: Final = 0.5
_ROOT: Final = f"/2010-04-01/Accounts/{ACCOUNT}"


class Trouble(StrEnum):
    """What the API does with the next POST, beside plain refusals."""

    HANG = "hang"  # not taken, no answer
    TAKE_AND_HANG = "take and hang"
    TAKE_AND_DROP = "take and drop"  # the connection
    DROP = "drop"
    TAKE_AND_CUT = "take and cut"  # half of the answer
    TAKE_AND_BABBLE = "take and babble"  # an answer that is none


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    status: int
    code: int | None = None
    text: str = "no"


@dataclass(slots=True, kw_only=True)
class FakeTwilio:
    """The API of one account. `lag`: how long a text is not yet in the list."""

    clock: Clock
    messages: list[dict[str, Any]] = field(default_factory=list)  # the latest last
    coming: deque[Trouble | Refusal] = field(default_factory=deque)
    files: dict[str, tuple[str, bytes] | str] = field(default_factory=dict)  # or: redirected to
    posts: int = 0
    lag: timedelta = timedelta(0)
    seen: list[tuple[str, bool]] = field(default_factory=list)  # files asked for, with credentials?
    forms: list[Mapping[str, str]] = field(default_factory=list)
    lookups: list[str] = field(default_factory=list)
    list_status: int = 200
    url: str = ""
    store_url: str = ""
    _over: asyncio.Event = field(default_factory=asyncio.Event)

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post(f"{_ROOT}/Messages.json", self._create)
        app.router.add_get(f"{_ROOT}/Messages.json", self._list)
        app.router.add_get(_ROOT + "/Messages/{sid}.json", self._fetch)
        app.router.add_get("/{path:.*}", self._file)
        return app

    def store(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._stored)
        return app

    def end(self) -> None:
        self._over.set()

    def keep(self, direction: str, sender: str, to: str, body: str, **more: Any) -> dict[str, Any]:
        """Keep a text as the API shows it."""
        now = self.clock.now()
        is_in = direction == "inbound"
        record = {
            "account_sid": ACCOUNT, "api_version": "2010-04-01", "body": body,
            "date_created": _date(now), "date_sent": _date(now) if is_in else None,
            "date_updated": _date(now), "direction": direction, "error_code": None,
            "error_message": None, "from": sender, "messaging_service_sid": None, "num_media": "0",
            "num_segments": "1", "price": None, "price_unit": None,
            "sid": f"SM{len(self.messages):032x}", "status": "received" if is_in else "queued",
            "subresource_uris": {}, "to": to, **more,
        }  # fmt: skip
        record["uri"] = f"{_ROOT}/Messages/{record['sid']}.json"
        self.messages.append({**record, "_at": now})
        return record

    # The API

    async def _create(self, request: web.Request) -> web.StreamResponse:
        self.posts += 1
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.forms.append(form)
        if not _is_ours(request):
            return _refused(Refusal(status=401, code=20003))
        trouble = self.coming.popleft() if self.coming else None
        if isinstance(trouble, Refusal):
            return _refused(trouble)
        if trouble not in (Trouble.HANG, Trouble.DROP):
            sender = form.get("From") or form.get("MessagingServiceSid", "")
            record = self.keep("outbound-api", sender, form["To"], form["Body"])
            if trouble is None:
                return web.json_response(record, status=201)
        return await self._troubled(request, trouble)

    async def _troubled(self, request: web.Request, trouble: Trouble) -> web.StreamResponse:
        if trouble in (Trouble.HANG, Trouble.TAKE_AND_HANG):
            await self._over.wait()
        if trouble is Trouble.TAKE_AND_CUT:
            return web.Response(status=201, text='{"sid": "SM0', content_type=_JSON)
        if trouble is Trouble.TAKE_AND_BABBLE:
            return web.Response(status=201, text="[]", content_type=_JSON)
        return _dropped(request)

    async def _list(self, request: web.Request) -> web.StreamResponse:
        if not _is_ours(request):
            return _refused(Refusal(status=401, code=20003))
        if self.list_status != 200:
            return _refused(Refusal(status=self.list_status))
        asked = request.query
        self.lookups.append(request.query_string)
        found = [each for each in reversed(self.messages) if self._fits(each, asked)]
        page, size = int(asked.get("Page", 0)), int(asked["PageSize"])
        rest = found[(page + 1) * size :]
        following = dict(asked) | {"Page": str(page + 1), "PageToken": f"PA{page + 1}"}
        path = f"{_ROOT}/Messages.json?"
        return web.json_response(
            {
                "messages": [_shown(each) for each in found[page * size : (page + 1) * size]],
                "page": page, "page_size": size, "start": page * size, "end": 0,
                "first_page_uri": path, "previous_page_uri": None, "uri": request.path_qs,
                "next_page_uri": path + urlencode(following) if rest else None,
            }
        )  # fmt: skip

    def _fits(self, record: Mapping[str, Any], asked: Mapping[str, str]) -> bool:
        sent = record["_at"].strftime("%Y-%m-%dT%H:%M:%SZ") if record["date_sent"] else None
        after, before = asked.get("DateSent>"), asked.get("DateSent<")
        return (
            asked.get("To") in (None, record["to"])
            and (after is None or (sent is not None and sent >= after))
            and (before is None or (sent is not None and sent <= before))
            and self.clock.now() - record["_at"] >= self.lag
        )

    async def _fetch(self, request: web.Request) -> web.StreamResponse:
        for record in self.messages:
            if record["sid"] == request.match_info["sid"]:
                return web.json_response(_shown(record))
        return _refused(Refusal(status=404, code=20404))

    # Files: the API knows where they lie, the store has them

    async def _file(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.path, "Authorization" in request.headers))
        known = self.files.get(request.path)
        if known is None or not _is_ours(request):
            return web.Response(status=404 if known is None else 401)
        target = known if isinstance(known, str) else f"{self.store_url}{request.path}"
        return web.Response(status=307, headers={"Location": target})

    async def _stored(self, request: web.Request) -> web.StreamResponse:
        has_credentials = "Authorization" in request.headers
        self.seen.append((f"store:{request.path}", has_credentials))
        known = self.files.get(request.path)
        if has_credentials or known is None or isinstance(known, str):
            return web.Response(status=400)  # as Amazon S3 does with two proofs
        kind, content = known
        if kind == "hangs":
            await self._over.wait()
        if kind == "chunked":
            answer = web.StreamResponse(headers={"Content-Type": "image/png"})
            await answer.prepare(request)
            await answer.write(content)
            return answer
        return web.Response(body=content, headers={"Content-Type": kind})


_JSON: Final = "application/json"


def _date(at: datetime) -> str:
    return format_datetime(at.replace(microsecond=0))


def _shown(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if not name.startswith("_")}


def _is_ours(request: web.Request) -> bool:
    wanted = base64.b64encode(f"{ACCOUNT}:{TOKEN}".encode()).decode()
    return request.headers.get("Authorization") == f"Basic {wanted}"


def _refused(refusal: Refusal) -> web.Response:
    if refusal.code is None:
        return web.Response(status=refusal.status, text="<html>", content_type="text/html")
    told = {"code": refusal.code, "message": refusal.text, "status": refusal.status}
    return web.json_response(told, status=refusal.status)


def _dropped(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def signature(url: str, pairs: Sequence[tuple[str, str]], token: str = TOKEN) -> str:
    return str(RequestValidator(token).compute_signature(url, MultiDict(pairs)))


def sid_of(external_id: str, kind: str = "SM") -> str:
    return kind + hashlib.md5(external_id.encode()).hexdigest()


_FAULTS: Final[Mapping[Fault, Trouble | Refusal]] = {
    Fault.BUSY: Refusal(status=429, code=20429),
    Fault.DOWN: Refusal(status=403, code=20005),
    Fault.REFUSED: Refusal(status=400, code=21211, text="+8613800000001 is not a phone number"),
    Fault.BLOCKED: Refusal(status=400, code=21610),
    Fault.LOST: Trouble.HANG,
    Fault.SILENT: Trouble.TAKE_AND_HANG,
}


@dataclass(slots=True, kw_only=True)
class TwilioProvider:
    """A `Provider`, and what else Twilio can be made to do."""

    gateway: TwilioGateway
    inbox: FakeInbox
    twilio: FakeTwilio
    clock: Clock
    site: str  # where our routes are
    http: aiohttp.ClientSession
    public: str  # where Twilio is told to call
    able: Collection[str] = frozenset({*_FAULTS, "in", "list", "find", "report", "words"})
    _brought: int = 0

    def fail(self, fault: Fault) -> None:
        self.twilio.coming.append(_FAULTS[fault])

    async def sent(self) -> Sequence[tuple[str, str]]:
        return [
            (each["to"], each["body"])
            for each in self.twilio.messages
            if each["direction"] != "inbound"
        ]

    async def bring(self, sender: str, text: str, external_id: str = "") -> bool:
        self._brought += 1
        sid = sid_of(external_id or f"brought {self._brought}")
        if not any(each["sid"] == sid for each in self.twilio.messages):
            self.twilio.keep("inbound", sender, SENDER, text, sid=sid)
        return await self.call(INBOUND, inbound(sid, sender, text)) == 200

    def long_ago(self) -> datetime:
        return self.clock.now() - SETTLES

    def today(self) -> tuple[datetime, datetime]:
        start = self.clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
        return start, start + timedelta(days=1)

    async def report(self, message_id: str, ref: str, *, delivered: bool) -> bool:
        status = "delivered" if delivered else "undelivered"
        fields = [("MessageSid", message_id), ("MessageStatus", status)]
        if not delivered:
            fields.append(("ErrorCode", "30003"))
        return await self.call(f"{STATUS}?ref={quote(ref, safe='')}", fields) == 200

    async def call(self, path: str, pairs: Sequence[tuple[str, str]]) -> int:
        """Call one of our routes as Twilio does; return the status."""
        headers = {"X-Twilio-Signature": signature(self.public + path, pairs)}
        return await self.send(path, urlencode(pairs).encode(), headers)

    async def send(self, path: str, body: bytes, headers: Mapping[str, str], kind: str = "") -> int:
        kind = kind or "application/x-www-form-urlencoded; charset=UTF-8"
        given = {"Content-Type": kind, "Host": "127.0.0.1:8080", **headers}
        url = URL(self.site + path, encoded=True)  # as it is: it is signed
        async with self.http.post(url, data=BytesIO(body), headers=given) as answer:
            text = await answer.text()
            assert answer.status != 200 or text.endswith("<Response/>")
            return answer.status


def inbound(sid: str, sender: str, text: str, *files: tuple[str, str]) -> list[tuple[str, str]]:
    """Return the fields of a text that came in; `files` are address and type."""
    fields = [
        ("ToCountry", "US"), ("ToState", ""), ("SmsMessageSid", sid), ("NumMedia", str(len(files))),
        ("SmsStatus", "received"), ("Body", text), ("To", SENDER), ("NumSegments", "1"),
        ("MessageSid", sid), ("AccountSid", ACCOUNT), ("From", sender),
        ("ApiVersion", "2010-04-01"),
    ]  # fmt: skip
    for number, (url, kind) in enumerate(files):
        fields += [(f"MediaUrl{number}", url), (f"MediaContentType{number}", kind)]
    return fields


@asynccontextmanager
async def twilio_provider(
    clock: Clock | None = None, *, public: str = PUBLIC, **changes: Any
) -> AsyncIterator[TwilioProvider]:
    """Start a Twilio, the gateway, and our HTTP server with its routes."""
    clock = clock or FakeClock()
    twilio = FakeTwilio(clock=clock)
    async with AsyncExitStack() as opened:
        twilio.url = await opened.enter_async_context(serving(twilio.app()))
        twilio.store_url = await opened.enter_async_context(serving(twilio.store()))
        opened.callback(twilio.end)
        given = {
            "account_sid": ACCOUNT, "auth_token": TOKEN, "sender": SENDER, "api_url": twilio.url,
            "timeout_s": TIMEOUT_S, "media_hosts": ("127.0.0.1",), **changes,
        }  # fmt: skip
        inbox = FakeInbox()
        settings = TwilioSettings.model_validate(given)
        gateway = TwilioGateway(settings, inbox, clock, public)
        await opened.enter_async_context(gateway.running())
        port = free_port()
        httpd = Httpd(
            HttpSettings(port=port, public_url=PUBLIC),
            routes=gateway.routes(),
            accounts=FakeAccounts(),
        )
        await opened.enter_async_context(httpd.running())
        http = await opened.enter_async_context(aiohttp.ClientSession())
        yield TwilioProvider(
            gateway=gateway,
            inbox=inbox,
            twilio=twilio,
            clock=clock,
            site=f"http://127.0.0.1:{port}",
            http=http,
            public=public.rstrip("/"),
        )


@asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()
