"""Aliyun's text service (Dysmsapi 2017-05-25) through its own SDK: reviewed templates only.

Its callbacks are not signed: they come by a path that nobody can guess, from addresses that are
named. It tries four times (at once, after 1, 5 and 10 minutes); what is not taken then is lost, for
it has no list of the texts that came in.
"""

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from itertools import count
from typing import Any, Final
from zoneinfo import ZoneInfo

import aiohttp
from aiohttp import web

from contactd.clock import Clock
from contactd.errors import ConfigurationError, ContactdError, PermanentFailure, TemporaryFailure
from contactd.httpd import Problem, Refused, Route
from contactd.log import get_logger
from contactd.metrics import PEERS_REFUSED
from contactd.routing.notify import Busy, SendUnknown, Trace
from contactd.service import Health, HealthState
from contactd.settings import AliyunSettings
from contactd.sms.aliyun_templates import Templates, parse
from contactd.sms.gateway import (
    Delivery,
    Found,
    Handed,
    Inbox,
    Incoming,
    Outgoing,
    Report,
    Unroutable,
    joined,
)
from contactd.tickets.phone import address

log = get_logger()

AT_ONCE: Final = 8  # texts and questions on their way
PAGE: Final = 50  # records of one answer: the most that QuerySendDetails gives
# What was handed over is in its records by then; nothing says how soon. Too early a look would
# find nothing, and the text would be sent twice.
SETTLES: Final = timedelta(minutes=1)
LONGEST_ID: Final = 64
_MAINLAND: Final = "+86"
_ZONE: Final = ZoneInfo("Asia/Shanghai")  # of all its times and days
_TIME: Final = "%Y-%m-%d %H:%M:%S"
_TAKEN: Final = {"code": 0, "msg": "成功"}

_TOP_UP: Final = "top up the account in Aliyun's console"
_ACCOUNT: Final = "see the account in Aliyun's console"
_KEY: Final = "see sms.aliyun.access_key_id and access_key_secret"
_SIGNATURE: Final = "see sms.aliyun.sign_name and whether it was reviewed"
_TEMPLATE: Final = "see sms.aliyun.templates_file and the templates in Aliyun's console"
_LIMIT: Final = "raise the limit in Aliyun's console"

# By the code of an answer: what that means for the text, and what the operator can do, "" nothing.
# Source: help.aliyun.com/document_detail/101346.html (isv., isp.), and for the others the common
# errors of its API gateway. A code that is not here is taken for temporary.
_CODES: Final[Mapping[str, tuple[type[ContactdError], str]]] = {
    # One signature and template: 50 a day to one number; ten codes.
    "isv.BUSINESS_LIMIT_CONTROL": (Busy, ""),
    "Throttling": (Busy, ""),
    "Throttling.User": (Busy, ""),
    "Throttling.Api": (Busy, ""),
    "isv.MOBILE_NUMBER_ILLEGAL": (PermanentFailure, ""),
    # The words of this very text: it would be refused again.
    "isv.BLACK_KEY_CONTROL_LIMIT": (Unroutable, ""),
    "isv.SMS_CONTENT_ILLEGAL": (Unroutable, ""),
    "isv.PARAM_NOT_SUPPORT_URL": (Unroutable, ""),
    "isv.PARAM_LENGTH_LIMIT": (Unroutable, _TEMPLATE),
    "isv.INVALID_JSON_PARAM": (Unroutable, _TEMPLATE),
    "isv.INVALID_PARAMETERS": (Unroutable, _TEMPLATE),
    "isv.TEMPLATE_MISSING_PARAMETERS": (Unroutable, _TEMPLATE),
    "isv.TEMPLATE_PARAMS_ILLEGAL": (Unroutable, _TEMPLATE),
    "isv.SMS_TEMPLATE_ILLEGAL": (Unroutable, _TEMPLATE),
    "isv.SMS_SIGNATURE_SCENE_ILLEGAL": (Unroutable, _TEMPLATE),
    "isv.DOMESTIC_NUMBER_NOT_SUPPORTED": (Unroutable, _TEMPLATE),
    # The installation's: every text fails so until somebody does something.
    "isv.OUT_OF_SERVICE": (TemporaryFailure, _TOP_UP),
    "isv.AMOUNT_NOT_ENOUGH": (TemporaryFailure, _TOP_UP),
    "isv.DAY_LIMIT_CONTROL": (TemporaryFailure, _LIMIT),
    "isv.MONTH_LIMIT_CONTROL": (TemporaryFailure, _LIMIT),
    "isv.SMS_SIGNATURE_ILLEGAL": (TemporaryFailure, _SIGNATURE),
    "isv.SMS_SIGN_ILLEGAL": (TemporaryFailure, _SIGNATURE),
    "isv.SIGN_STATE_ILLEGAL": (TemporaryFailure, _SIGNATURE),
    "isv.PRODUCT_UN_SUBSCRIPT": (TemporaryFailure, _ACCOUNT),
    "isv.PRODUCT_UNSUBSCRIBE": (TemporaryFailure, _ACCOUNT),
    "isv.ACCOUNT_NOT_EXISTS": (TemporaryFailure, _ACCOUNT),
    "isv.ACCOUNT_ABNORMAL": (TemporaryFailure, _ACCOUNT),
    "isv.DENY_IP_RANGE": (TemporaryFailure, "send from an address of the mainland"),
    "isp.RAM_PERMISSION_DENY": (TemporaryFailure, "give the key AliyunDysmsFullAccess"),
    "Forbidden.RAM": (TemporaryFailure, "give the key AliyunDysmsFullAccess"),
    "SignatureDoesNotMatch": (TemporaryFailure, _KEY),
    "IncompleteSignature": (TemporaryFailure, _KEY),
    "InvalidAccessKeyId.NotFound": (TemporaryFailure, _KEY),
    "InvalidAccessKeyId.Inactive": (TemporaryFailure, _KEY),
    "InvalidTimeStamp.Expired": (TemporaryFailure, "set this machine's clock"),
    "ServiceUnavailable": (TemporaryFailure, "see sms.aliyun.endpoint"),
    "isp.SYSTEM_ERROR": (TemporaryFailure, ""),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sdk:
    """What is used of Aliyun's SDK. It is imported where it is configured: it takes 18 MB."""

    client: Any
    models: Any
    options: Any
    failure: type[Exception]  # whatever its requests raise


def _sdk(settings: AliyunSettings) -> _Sdk:
    """Raises ConfigurationError: it is not installed."""
    try:
        from alibabacloud_dysmsapi20170525 import models
        from alibabacloud_dysmsapi20170525.client import Client
        from alibabacloud_tea_openapi.utils_models import Config
        from darabonba.runtime import RuntimeOptions
        from Tea.exceptions import TeaException
    except ImportError as error:
        raise ConfigurationError(
            "sms.aliyun: its SDK is missing: install contactd[aliyun]"
        ) from error
    # It never repeats a request unless it is told to: Aliyun cannot tell a repeated text.
    milliseconds = int(settings.timeout_s * 1000)
    config = Config(
        access_key_id=settings.access_key_id,
        access_key_secret=settings.access_key_secret.get_secret_value(),
        endpoint=settings.endpoint,
        protocol=settings.protocol,
    )
    options = RuntimeOptions(connect_timeout=milliseconds // 2, read_timeout=milliseconds)
    return _Sdk(client=Client(config), models=models, options=options, failure=TeaException)


class AliyunGateway:
    """An `SmsGateway`.

    Raises:
        ConfigurationError: everything that is wrong with its section and its file of templates.
    """

    name = "aliyun"

    def __init__(self, settings: AliyunSettings, inbox: Inbox, clock: Clock) -> None:
        self._settings = settings
        self._inbox = inbox
        self._clock = clock
        self._templates = _templates(settings)
        self._sdk = _sdk(settings)
        self._allowed = tuple(map(ip_network, settings.allowed))
        self._proxies = tuple(map(ip_network, settings.proxies))
        self._threads: ThreadPoolExecutor | None = None
        self._under_way = 0
        self._broken = 0
        self._fault = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self._threads = threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="aliyun")
        try:
            yield
        finally:
            self._threads = None
            await asyncio.to_thread(threads.shutdown)  # each ends within its deadline

    def health(self) -> list[Health]:
        state = HealthState.DEGRADED if self._fault else HealthState.UP
        figures = {"under_way": self._under_way, "broken_items": self._broken}
        return [Health(component="sms:aliyun", state=state, detail=self._fault, figures=figures)]

    # Texts out

    async def submit(self, text: Outgoing) -> str:
        template = self._templates.of(text.notification)
        if template is None:
            raise Unroutable(f"aliyun has no template for {text.notification.reason}")
        if not text.number.startswith(_MAINLAND):
            raise Unroutable("aliyun's templates are for numbers of the mainland")
        params = template.filled(text.notification)
        request = self._sdk.models.SendSmsRequest(
            phone_numbers=text.number.removeprefix(_MAINLAND),
            sign_name=self._settings.sign_name,
            template_code=template.code,
            template_param=json.dumps(params, ensure_ascii=False),
            out_id=text.ref,
        )
        send = self._sdk.client.send_sms_with_options_async
        answer = await self._asked(partial(send, request, self._sdk.options))
        return str(answer.biz_id or "")

    async def find(self, text: Handed) -> Found:
        """Look for the text's ref among what that number was sent on that day."""
        days = {_day(text.handed_at), _day(text.handed_at + SETTLES)}
        try:
            for day in sorted(days):
                if await self._has(text, day):
                    return Found(trace=Trace.SENT, message_id=text.message_id)
        except (ContactdError, AttributeError, TypeError, ValueError) as error:
            raise TemporaryFailure("aliyun's records cannot be read now") from error
        if self._clock.now() - text.handed_at < SETTLES:
            raise TemporaryFailure("aliyun's records may not have it yet")
        return Found(trace=Trace.NEVER)

    async def listed(self, since: datetime, until: datetime) -> None:
        """Return None: there is no list of the texts that came in."""

    async def _has(self, text: Handed, day: str) -> bool:
        """Raises ContactdError; AttributeError, TypeError or ValueError: it is no answer."""
        for page in count(1):
            request = self._sdk.models.QuerySendDetailsRequest(
                phone_number=text.number.removeprefix(_MAINLAND),
                send_date=day,
                biz_id=text.message_id or None,
                page_size=PAGE,
                current_page=page,
            )
            query = self._sdk.client.query_send_details_with_options_async
            answer = await self._asked(partial(query, request, self._sdk.options))
            records = answer.sms_send_detail_dtos.sms_send_detail_dto
            if any(each.out_id == text.ref for each in records):
                return True
            if page * PAGE >= int(answer.total_count):
                break
            if not records:
                raise ValueError("fewer records than there are said to be")
        return False

    async def _asked(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Return the body of an answer that says OK; raise as `submit` has to."""
        if self._threads is None:
            raise TemporaryFailure("aliyun: not running")
        if self._under_way >= AT_ONCE:
            raise Busy("aliyun: as many requests are on their way as may be")
        self._under_way += 1
        loop = asyncio.get_running_loop()
        try:
            body = (await loop.run_in_executor(self._threads, self._alone, call)).body
            code = body.code
        except (self._sdk.failure, TimeoutError) as error:
            raise self._failed(error) from error
        except (AttributeError, TypeError, ValueError) as error:  # its models read anything
            raise self._noted(SendUnknown("aliyun: no answer of its API")) from error
        finally:
            self._under_way -= 1
        if not isinstance(code, str):
            raise self._noted(SendUnknown("aliyun: an answer without a code"))
        if code != "OK":
            raise self._refused(code)
        self._fault = ""
        return body

    def _alone(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Run a request in a thread's own loop: for each it reads all certificates, for 40 ms."""

        async def within() -> Any:
            async with asyncio.timeout(self._settings.timeout_s):
                return await call()

        return asyncio.run(within())

    def _failed(self, error: Exception) -> ContactdError:
        """Return what a failed request means: it has gone out, unless it surely has not."""
        status = getattr(error, "status_code", None)
        code = getattr(error, "code", None)
        if isinstance(status, int) and isinstance(code, str):
            if code in _CODES or status < 500:
                return self._refused(code)
            return self._noted(SendUnknown(f"aliyun: {status} {code[:60]}"))
        if any(isinstance(each, _NOT_CONNECTED) for each in _causes(error)):
            return self._noted(TemporaryFailure("aliyun: no connection; see sms.aliyun.endpoint"))
        return self._noted(SendUnknown("aliyun: no answer; see sms.aliyun.endpoint"))

    def _refused(self, code: str) -> ContactdError:
        kind, remedy = _CODES.get(code, (TemporaryFailure, _ACCOUNT))
        said = f"aliyun: {code[:60]}"
        self._fault = f"{said}; {remedy}" if remedy else ""
        return kind(said)

    def _noted(self, failure: ContactdError) -> ContactdError:
        self._fault = str(failure)
        return failure

    # What Aliyun calls

    def routes(self) -> Sequence[Route]:
        if not self._settings.path_secret.get_secret_value():
            return ()
        paths = {"up": self._received, "report": self._reported}
        return [
            Route(
                method="POST",
                path=f"/sms/aliyun/{{secret}}/{end}",
                handler=self._callback(take),
                roles=None,
            )
            for end, take in paths.items()
        ]

    def _callback(
        self, take: Callable[[Any], Awaitable[None]]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        """Return a handler of one kind of callback: `take` stores one item of it."""

        async def handler(request: web.Request) -> web.Response:
            self._check(request)
            await self._take(_items(await request.read()), take)
            return web.json_response(_TAKEN)

        return handler

    def _check(self, request: web.Request) -> None:
        """Raises Refused: as a path that does not exist."""
        secret = self._settings.path_secret.get_secret_value().encode()
        shown = request.match_info["secret"].encode(errors="replace")
        if hmac.compare_digest(shown, secret) and self._is_allowed(request):
            return
        PEERS_REFUSED.labels(listener="http", reason="sms_callback").inc()
        raise Refused(Problem(status=404))

    def _is_allowed(self, request: web.Request) -> bool:
        """Return whether it comes from an address that is named, through our own proxies or not."""
        hops = ",".join(request.headers.getall("X-Forwarded-For", [])).split(",")
        peer = _address(request.remote or "")
        while peer is not None and hops and any(peer in each for each in self._proxies):
            peer = _address(hops.pop())
        return peer is not None and any(peer in each for each in self._allowed)

    async def _take(self, items: Sequence[Any], take: Callable[[Any], Awaitable[None]]) -> None:
        """Store the items one by one: one that cannot be costs no other.

        Raises:
            TemporaryFailure: one could not be stored now. All of them come again, with the status
                503 that this becomes, and the second time does nothing to the others.
        """
        deferred: TemporaryFailure | None = None
        for item in items:
            try:
                await take(item)
            except TemporaryFailure as failure:
                deferred = failure
            except (_Broken, PermanentFailure) as failure:
                self._broken += 1
                log.warning("text.broken", gateway=self.name, reason=str(failure))
        if deferred is not None:
            raise deferred

    async def _received(self, item: Any) -> None:
        """Store an item of SmsUp (document_detail/101847)."""
        sender, content = _text(item, "phone_number"), _text(item, "content", strip=False)
        sent = _text(item, "send_time", needed=False)
        known = _text(item, "sequence_id", needed=False)
        await self._inbox.received(
            self.name,
            Incoming(
                id=known or _fingerprint(sender, sent, content),
                # Its numbers are bare, and of the mainland wherever this installation is.
                sender=address(sender, country="CN") or sender,
                recipient=_text(item, "dest_code", needed=False),
                text=content,
                received_at=self._instant(sent),
            ),
        )

    async def _reported(self, item: Any) -> None:
        """Store an item of SmsReport (document_detail/101867)."""
        message_id = _text(item, "biz_id", needed=False)
        ref = _text(item, "out_id", needed=False)
        success = item.get("success")
        if not isinstance(success, bool):
            raise _Broken("success is neither true nor false")
        if not message_id and not ref:
            raise _Broken("it names no text")
        report = Report(
            delivery=Delivery.DELIVERED if success else Delivery.FAILED,
            message_id=message_id,
            ref=ref,
            error="" if success else _text(item, "err_code", needed=False)[:LONGEST_ID],
        )
        await self._inbox.reported(self.name, report)

    def _instant(self, told: str) -> datetime:
        try:
            return datetime.strptime(told, _TIME).replace(tzinfo=_ZONE).astimezone(UTC)
        except (ValueError, OverflowError):  # a text is worth more than its time
            return self._clock.now()


class _Broken(ContactdError):
    """An item of a callback that is none."""


# The request has not been sent.
_NOT_CONNECTED: Final = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Return an error and what was behind it: the SDK wraps each twice, and forgets to say from
    what.
    """
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        inner = getattr(each, "inner_exception", None)
        waiting += [each.__cause__, each.__context__]
        waiting += [inner] if isinstance(inner, BaseException) else []


def _templates(settings: AliyunSettings) -> Templates:
    """Return the templates, and check the rest of the section on the way.

    Raises:
        ConfigurationError: everything that is wrong, a line each.
    """
    needed = {
        "access_key_id": settings.access_key_id,
        "access_key_secret": settings.access_key_secret.get_secret_value(),
        "sign_name": settings.sign_name,
        "endpoint": settings.endpoint,
        "templates_file": settings.templates_file,
    }
    wrong = [f"sms.aliyun.{name}: is missing" for name, value in needed.items() if not value]
    templates = Templates()
    if (path := settings.templates_file) is not None:
        try:
            templates = parse(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            wrong.append(f"sms.aliyun.templates_file: {path}: {error}")
        except ConfigurationError as error:
            wrong += [
                f"sms.aliyun.templates_file: {path}: {each}" for each in str(error).split("\n")
            ]
    if wrong:
        raise ConfigurationError("\n".join(wrong))
    return templates


def _day(at: datetime) -> str:
    return f"{at.astimezone(_ZONE):%Y%m%d}"


def _items(body: bytes) -> list[Any]:
    """Raises Refused: it is no JSON array."""
    try:
        items = json.loads(body)
    except (ValueError, RecursionError):
        items = None
    if not isinstance(items, list):
        log.warning("callback.malformed", gateway=AliyunGateway.name)
        raise Refused(Problem(status=400, detail="not a JSON array"))
    return items


def _text(item: Any, name: str, *, needed: bool = True, strip: bool = True) -> str:
    """Return a field of an item; numbers are text, too (they were, until 2023).

    Raises:
        _Broken: there is none, or the item is none.
    """
    if not isinstance(item, dict):
        raise _Broken("not a JSON object")
    value = item.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    told = joined([value]).replace("\0", "") if isinstance(value, str) else ""
    if needed and not told.strip():
        raise _Broken(f"{name} is missing")
    return told.strip()[:LONGEST_ID] if strip else told


def _fingerprint(*told: str) -> str:
    """Return an id for a text without one: the same whenever it comes."""
    return hashlib.sha256("\0".join(told).encode()).hexdigest()[:32]


def _address(told: str) -> IPv4Address | IPv6Address | None:
    try:
        found = ip_address(told.strip())
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found
