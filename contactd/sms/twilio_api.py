"""Twilio's REST API through its official client, in our words and with our failures.

The client is imported when it is opened: it takes 12 MB, and few installations use it. Of it we
leave alone what is unsafe: its time limit has no effect, its repetitions send texts twice, its log
has numbers.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final

import aiohttp

from contactd.errors import TemporaryFailure
from contactd.routing.notify import Busy, SendUnknown
from contactd.settings import TwilioSettings
from contactd.sms import twilio_faults

PAGE: Final = 200  # records; 1,000 is the most
MOST_PAGES: Final = 50
_NETWORK: Final = "see the way to sms.twilio.api_url, and status.twilio.com"
# Whether a connection for a request was there: before that nothing of it can have gone out.
_REACHED: Final[ContextVar[list[bool]]] = ContextVar("twilio_reached")


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A text to hand over."""

    to: str
    body: str
    status_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What Twilio keeps of a text, in or out."""

    sid: str
    sender: str
    recipient: str
    body: str
    direction: str  # inbound, outbound-api, outbound-call, outbound-reply
    service: str  # the messaging service, if one was in it
    files: int
    created_at: datetime | None
    sent_at: datetime | None


class Api:
    """The client of one account."""

    def __init__(self, settings: TwilioSettings) -> None:
        self._settings = settings
        self._messages: Any = None

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Return a block in which it can be used."""
        from twilio.http.async_http_client import (  # type: ignore[import-untyped]
            AsyncTwilioHttpClient,
        )
        from twilio.rest import Client  # type: ignore[import-untyped]

        quiet = logging.Logger("twilio")  # belongs to no other: nothing comes out of it
        client = AsyncTwilioHttpClient(trace_configs=[_tracing()], logger=quiet)
        try:
            twilio = Client(
                account_sid=self._settings.account_sid,
                http_client=client,
                environment={"TWILIO_EDGE": ""},  # nothing from the environment, as aiohttp has it
                credential_provider=_Credentials(basic(self._settings)),
            )
            twilio.api.base_url = self._settings.api_url.rstrip("/")
            self._messages = twilio.messages
            yield
        finally:
            self._messages = None
            await client.close()

    async def create(self, draft: Draft) -> str:
        """Hand a text over; return its id.

        Raises:
            SendUnknown: nobody knows whether it was taken.
            Busy, TemporaryFailure: it was surely not.
            Unroutable, Blocked, PermanentFailure: it never will be.
        """
        reached = [False]
        _REACHED.set(reached)
        sender = self._settings.sender
        from_ = {"messaging_service_sid" if sender.startswith("MG") else "from_": sender}
        try:
            record = await self._ask(
                partial(
                    self._list().create_async,
                    to=draft.to,
                    body=draft.body,
                    status_callback=draft.status_url,
                    smart_encoded=False,  # the words stay ours: they are looked up by
                    **from_,
                )
            )
        except _Refused as refused:
            raise twilio_faults.failure(refused.status, refused.code) from None
        except _NoAnswer as silence:
            if not reached[0]:
                raise TemporaryFailure(f"Twilio is not reached: {silence}; {_NETWORK}") from None
            raise SendUnknown(f"the text was handed to Twilio, but {silence}; {_NETWORK}") from None
        sid = record.sid
        if not isinstance(sid, str) or not sid:
            raise SendUnknown("the text was handed to Twilio, but its answer has no id")
        return sid

    async def fetch(self, sid: str) -> Message | None:
        """Return what Twilio keeps under an id, None if nothing.

        Raises:
            Busy, TemporaryFailure: it cannot be asked now.
        """
        with _reading():
            try:
                return _message(await self._ask(self._list()(sid).fetch_async))
            except _Refused as refused:
                if refused.status == 404:
                    return None
                raise

    async def pages(self, **filters: Any) -> AsyncGenerator[list[Message], None]:
        """Yield Twilio's list page by page, the latest first, `MOST_PAGES` at most.

        Raises:
            Busy, TemporaryFailure: it cannot be asked now; or the list has more pages.
        """
        with _reading():
            page = await self._ask(partial(self._list().page_async, page_size=PAGE, **filters))
            for _ in range(MOST_PAGES):
                yield [_message(record) for record in page]
                if not page.next_page_url:
                    return
                page = await self._ask(page.next_page_async)
        raise TemporaryFailure(f"Twilio's list has more than {MOST_PAGES * PAGE} texts")

    def _list(self) -> Any:
        if self._messages is None:
            raise TemporaryFailure("the gateway is not running")
        return self._messages

    async def _ask(self, question: Callable[[], Awaitable[Any]]) -> Any:
        """Return the answer to one request.

        Raises:
            _Refused: it is an error.
            _NoAnswer: there is none in time, or none that makes sense.
        """
        from twilio.base.exceptions import TwilioException  # type: ignore[import-untyped]

        try:
            async with asyncio.timeout(self._settings.timeout_s):
                return await question()
        except TwilioException as error:
            raise _refusal(error) from None  # its text has the number
        except TimeoutError:
            raise _NoAnswer(f"no answer within {self._settings.timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise _NoAnswer(_said(error)) from None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise _NoAnswer("its answer makes no sense") from None


def basic(settings: TwilioSettings) -> str:
    """Return the account's credentials as the header `Authorization` has them (RFC 7617)."""
    return aiohttp.encode_basic_auth(settings.account_sid, settings.auth_token.get_secret_value())


class _Credentials:
    """What the client asks for the header; by itself it uses a way that aiohttp 3.14 deprecates."""

    def __init__(self, header: str) -> None:
        self._header = header

    def to_auth_strategy(self) -> "_Credentials":
        return self

    def get_auth_string(self) -> str:
        return self._header


class _Refused(Exception):
    def __init__(self, status: int, code: object) -> None:
        super().__init__(status, code)
        self.status = status
        self.code = code


class _NoAnswer(Exception):
    pass


@contextmanager
def _reading() -> Iterator[None]:
    """Turn what goes wrong with a question into a failure that harms nobody."""
    try:
        yield
    except _Refused as refused:
        failure = twilio_faults.failure(refused.status, refused.code)
        kind = Busy if isinstance(failure, Busy) else TemporaryFailure
        raise kind(str(failure)) from None
    except _NoAnswer as silence:
        raise TemporaryFailure(f"Twilio cannot be asked: {silence}; {_NETWORK}") from None


def _refusal(error: Any) -> Exception:
    """Return what an exception of the client says; a page's has the response for its argument."""
    if isinstance(status := getattr(error, "status", None), int):
        return _Refused(status, getattr(error, "code", None))
    response = error.args[1] if len(error.args) > 1 else None
    if isinstance(status := getattr(response, "status_code", None), int):
        return _Refused(status, None)
    return _NoAnswer("its answer makes no sense")


def _tracing() -> aiohttp.TraceConfig:
    """Return what notes that a connection is there."""

    async def reached(*_: object) -> None:
        if (noted := _REACHED.get(None)) is not None:
            noted[0] = True

    tracing = aiohttp.TraceConfig()
    tracing.on_connection_create_end.append(reached)
    tracing.on_connection_reuseconn.append(reached)
    return tracing


def _message(record: Any) -> Message:
    """Return a record of the client in our words."""
    files = str(record.num_media or "")
    return Message(
        sid=str(record.sid or ""),
        sender=str(record.from_ or ""),
        recipient=str(record.to or ""),
        body=str(record.body or ""),
        direction=str(record.direction or ""),
        service=str(record.messaging_service_sid or ""),
        files=int(files) if files.isdecimal() else 0,
        created_at=record.date_created,
        sent_at=record.date_sent,
    )


def _said(error: BaseException) -> str:
    """Return why there is no answer, without what the peer wrote."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return "its certificate is not trusted"
        case aiohttp.ClientConnectorError(strerror=str(why)):
            return why
        case OSError(strerror=str(why)):
            return why
        case _:
            return f"the connection broke ({type(error).__name__})"
