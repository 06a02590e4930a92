"""The gateway to Twilio: texts out by its REST API, texts and reports in by its webhooks.

Twilio is told "taken" once a text is stored. When that fails it gets 503 and calls the number's
fallback URL, once; what is lost all the same is found in its list (`listed`).
"""

import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import quote, urlsplit

from aiohttp import web

from contactd.clock import Clock
from contactd.errors import ConfigurationError, PermanentFailure, TemporaryFailure
from contactd.httpd import Problem, Refused, Route
from contactd.log import get_logger
from contactd.routing.notify import Busy, Trace
from contactd.service import Health, HealthState
from contactd.settings import TwilioSettings
from contactd.sms.gateway import Delivery, Found, Handed, Inbox, Incoming, Outgoing, Report
from contactd.sms.twilio_api import Api, Draft, Message
from contactd.sms.twilio_media import MediaStore, located
from contactd.sms.twilio_signing import HEADER, Forged, verified

log = get_logger()

INBOUND: Final = "/sms/twilio/inbound"
STATUS: Final = "/sms/twilio/status"
TWIML: Final = '<?xml version="1.0" encoding="UTF-8"?><Response/>'  # answers nothing
MOST_BODY: Final = 128 << 10  # bytes of a webhook; 4,096 characters, each %-encoded, are 48 KiB
LONGEST_TEXT: Final = 10_000  # characters; 1,600 by SMS, 4,096 by other channels
LONGEST_ADDRESS: Final = 64
LONGEST_REF: Final = 200
# Twilio's list is not complete at once; before that its silence means nothing.
SETTLES: Final = timedelta(seconds=30)
SKEW: Final = timedelta(seconds=60)  # between Twilio's clock and ours
LATEST: Final = timedelta(minutes=10)  # from when a text was handed over to when it is in the list
TRIAL: Final = "Sent from your Twilio trial account - "  # put before every text of such an account

_SENDER: Final = re.compile(r"\+[1-9][0-9]{6,14}|[0-9]{3,8}|MG[0-9a-fA-F]{32}|[A-Za-z0-9 ]{1,11}")
_SID: Final = re.compile(r"[A-Z]{2}[0-9a-fA-F]{32}")
_CODE: Final = re.compile(r"[0-9]{1,6}")
# Controls but tab and line ends, and what is left of characters in two halves: none can be stored.
_UNSTORABLE: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")

# What does not stand here has happened before the text left Twilio, or to no text of ours.
DELIVERIES: Final[Mapping[str, Delivery]] = {
    "sent": Delivery.SENT,
    "partially_delivered": Delivery.SENT,
    "delivered": Delivery.DELIVERED,
    "read": Delivery.DELIVERED,
    "undelivered": Delivery.FAILED,
    "failed": Delivery.FAILED,
    "canceled": Delivery.FAILED,
}


class TwilioGateway:
    """An `SmsGateway`. `public_url` is where Twilio reaches us, e.g. https://desk.example.cn.

    Raises:
        ConfigurationError: something is missing.
    """

    name = "twilio"

    def __init__(
        self, settings: TwilioSettings, inbox: Inbox, clock: Clock, public_url: str
    ) -> None:
        _check(settings, public_url)
        self._settings = settings
        self._inbox = inbox
        self._clock = clock
        self._public_url = public_url.rstrip("/")
        self._api = Api(settings)
        self._media = MediaStore(settings)
        self._fault = ""  # why Twilio could not be used the last time; "": it could
        self._forged = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with AsyncExitStack() as opened:
            await opened.enter_async_context(self._api.opened())
            await opened.enter_async_context(self._media.opened())
            yield

    def health(self) -> list[Health]:
        state = HealthState.DEGRADED if self._fault else HealthState.UP
        figures = {"forged": self._forged}
        return [
            Health(component=f"sms:{self.name}", state=state, detail=self._fault, figures=figures)
        ]

    # Out

    async def submit(self, text: Outgoing) -> str:
        draft = Draft(
            to=text.number,
            body=text.text,
            status_url=f"{self._public_url}{STATUS}?ref={quote(text.ref, safe='')}",
        )
        with self._noting_faults():
            return await self._api.create(draft)

    async def find(self, text: Handed) -> Found:
        """Look a text up: by its id, or else by number, words and time.

        Two texts of the same words to the same number within `LATEST` cannot be told apart.
        """
        with self._noting_faults():
            if text.message_id:
                known = await self._api.fetch(text.message_id)
                trace = Trace.UNKNOWN if known is None else Trace.SENT
                return Found(trace=trace, message_id=text.message_id)
            return await self._find_in_list(text)

    async def _find_in_list(self, text: Handed) -> Found:
        """Look through what was sent to a number.

        There is no filter by time in it: Twilio's is by the time of sending, which a text that
        still waits in Twilio's queue does not have.
        """
        asked_at = self._clock.now()
        async with aclosing(self._api.pages(to=text.number)) as pages:
            async for page in pages:
                for message in page:
                    if _is(message, text):
                        return Found(trace=Trace.SENT, message_id=message.sid)
                if page and all(_is_older(message, text) for message in page):
                    break
        is_settled = asked_at - text.handed_at >= SETTLES
        return Found(trace=Trace.NEVER if is_settled else Trace.UNKNOWN)

    async def listed(self, since: datetime, until: datetime) -> Sequence[Incoming]:
        """Return the texts that came in from `since` up to `until`, the latest first."""
        sender = self._settings.sender
        mine = {"to": sender} if sender.startswith("+") else {}
        found: list[Incoming] = []
        with self._noting_faults():
            # Both are inclusive. A day more: nothing may depend on whether its time counts, too.
            until_at_least = until + timedelta(days=1)
            async with aclosing(
                self._api.pages(date_sent_after=since, date_sent_before=until_at_least, **mine)
            ) as pages:
                async for page in pages:
                    found += self._incoming(page, since, until)
        return found

    def _incoming(
        self, page: Sequence[Message], since: datetime, until: datetime
    ) -> Iterator[Incoming]:
        sender = self._settings.sender
        for message in page:
            at = message.sent_at or message.created_at
            if message.direction != "inbound" or at is None or not since <= at < until:
                continue
            if sender.startswith("MG") and message.service != sender:
                continue
            paths = [f"/Messages/{message.sid}/Media"] * message.files
            yield Incoming(
                id=message.sid,
                sender=_line(message.sender),
                recipient=_line(message.recipient),
                text=_with_note(_words(message.body), paths),
                received_at=at,
                is_repaired=True,
            )

    @contextmanager
    def _noting_faults(self) -> Iterator[None]:
        """Keep for `health` why Twilio could not be used."""
        try:
            yield
        except Busy:
            raise
        except TemporaryFailure as failure:
            self._fault = str(failure)
            raise
        except PermanentFailure:
            self._fault = ""  # it answered
            raise
        else:
            self._fault = ""

    # In

    def routes(self) -> Sequence[Route]:
        return (
            Route(method="POST", path=INBOUND, handler=self._take_text, roles=None),
            Route(method="POST", path=STATUS, handler=self._take_status, roles=None),
        )

    async def _take_text(self, request: web.Request) -> web.Response:
        """File a text; 503 (by `TemporaryFailure`) if it was not stored."""
        fields = await self._fields(request)
        sid = _sid(fields, "MessageSid", "SmsMessageSid", "SmsSid")
        fetched = await self._media.fetch(located(fields))
        text = Incoming(
            id=sid,
            sender=_line(fields.get("From", "")),
            recipient=_line(fields.get("To", "")),
            text=_with_note(_words(fields.get("Body", "")), fetched.missed),
            received_at=self._clock.now(),
            media=fetched.files,
        )
        await self._inbox.received(self.name, text)
        return _taken()

    async def _take_status(self, request: web.Request) -> web.Response:
        fields = await self._fields(request)
        sid = _sid(fields, "MessageSid", "SmsSid")
        delivery = DELIVERIES.get(fields.get("MessageStatus") or fields.get("SmsStatus", ""))
        if delivery is not None:
            error = fields.get("ErrorCode", "")
            report = Report(
                delivery=delivery,
                message_id=sid,
                ref=_line(request.query.get("ref", ""), LONGEST_REF),
                error=error if _CODE.fullmatch(error) else "",
            )
            await self._inbox.reported(self.name, report)
        return _taken()

    async def _fields(self, request: web.Request) -> Mapping[str, str]:
        """Return the fields of a request that Twilio has made.

        The URL is what Twilio was told to call, whatever a proxy in front has made of it.

        Raises:
            Refused: another has, or it was made for another address.
        """
        url = self._public_url + request.raw_path
        token = self._settings.auth_token.get_secret_value()
        body = await request.read()
        if len(body) > MOST_BODY:
            raise Refused(Problem(status=413))
        try:
            return verified(token, url, request.content_type, body, _signature(request))
        except Forged as why:
            self._forged += 1
            log.warning("text.forged", gateway=self.name, reason=str(why))
            raise Refused(Problem(status=403, detail="not signed by Twilio")) from None


def _check(settings: TwilioSettings, public_url: str) -> None:
    """Raises ConfigurationError."""
    wrong = []
    if not settings.account_sid:
        wrong.append("sms.twilio.account_sid must be given (AC…)")
    if not settings.auth_token.get_secret_value():
        wrong.append("sms.twilio.auth_token or auth_token_file must be given")
    if not _SENDER.fullmatch(settings.sender):
        wrong.append("sms.twilio.sender must be a number in E.164 or a messaging service (MG…)")
    api = urlsplit(settings.api_url)
    if api.scheme not in ("https", "http") or not api.hostname or api.path.strip("/"):
        wrong.append("sms.twilio.api_url must be https://host")
    schemes = ("https", "http") if api.scheme == "http" else ("https",)
    public = urlsplit(public_url)
    if public.scheme not in schemes or not public.hostname or public.query or public.fragment:
        wrong.append("http.public_url must be https://…: Twilio calls it and signs it")
    if wrong:
        raise ConfigurationError("\n".join(wrong))


def _is(message: Message, text: Handed) -> bool:
    """Return whether a message is what was handed over."""
    if message.direction == "inbound" or message.created_at is None:
        return False
    is_then = text.handed_at - SKEW <= message.created_at <= text.handed_at + LATEST
    words = message.body.removeprefix(TRIAL).strip()
    return is_then and words == text.text.strip()


def _is_older(message: Message, text: Handed) -> bool:
    return message.created_at is not None and message.created_at < text.handed_at - SKEW


def _signature(request: web.Request) -> str:
    told = request.headers.getall(HEADER, [])
    return told[0] if len(told) == 1 else ""


def _sid(fields: Mapping[str, str], *names: str) -> str:
    """Return the id of a text.

    Raises:
        Refused: there is none.
    """
    for name in names:
        if _SID.fullmatch(fields.get(name, "")):
            return fields[name]
    raise Refused(Problem(status=422, detail="there is no MessageSid"))


def _words(text: str) -> str:
    return _UNSTORABLE.sub("", text)[:LONGEST_TEXT]


def _line(text: str, most: int = LONGEST_ADDRESS) -> str:
    return " ".join(_words(text).split())[:most]


def _with_note(text: str, missed: Sequence[str]) -> str:
    """Return a text, and below it which files were to come with it; nobody asks for them again."""
    if not missed:
        return text
    count = len(missed)
    files = "1 file" if count == 1 else f"{count} files"
    note = f"[{count} 个文件未能取回；{files} could not be fetched: "
    return f"{text}\n{note}{', '.join(_line(path, LONGEST_REF) for path in missed[:10])}]".lstrip(
        "\n"
    )


def _taken() -> web.Response:
    return web.Response(text=TWIML, content_type="text/xml")
