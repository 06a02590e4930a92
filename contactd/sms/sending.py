"""Texts go out: by the first gateway that can, once, within limits; what came in is counted.

Before a text is handed to a gateway a row says so, and after it what the provider calls it: found
again after a crash, or after a time-out, it is looked up there, never sent by another gateway.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from typing import Final, Protocol
from zoneinfo import ZoneInfo

from contactd.clock import Clock
from contactd.errors import PermanentFailure, TemporaryFailure
from contactd.httpd import Route
from contactd.log import bound, get_logger
from contactd.metrics import HANDLER_FAILURES, TEXT_SEGMENTS
from contactd.routing import words
from contactd.routing.notify import Busy, Notification, SendUnknown, Trace
from contactd.service import Health, HealthState
from contactd.settings import GatewaySettings
from contactd.sms.gateway import (
    Blocked,
    Delivery,
    Handed,
    Outgoing,
    SmsGateway,
    Unroutable,
)
from contactd.sms.receiving import Receiving, contact_id
from contactd.sms.segments import Size, fitting, segment_count, size
from contactd.store.ledger import LedgerDay
from contactd.store.texts import PARTS_LAST, StoredText, Texts
from contactd.tickets.contact import Medium
from contactd.tickets.phone import mask

log = get_logger()

NUMBER: Final = re.compile(r"\+?[0-9]{3,15}")  # E.164, or an extension; RFC 3966's signs are gone
REST: Final = timedelta(seconds=30)  # of a gateway that failed, while another one works
LEDGER_EVERY_S: Final = 300.0  # a list of a busy day is some twenty pages
# A provider's list shows a text some seconds late, and ours brings it in by the same list.
YOUNG: Final = timedelta(minutes=2)
_TOO_MANY: Final = timedelta(hours=1)


class Settle(Protocol):
    def __call__(
        self,
        day: date,
        source: str,
        outside: dict[str, datetime],
        medium: Medium,
        young: timedelta,
    ) -> Awaitable[LedgerDay]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """A text as it would be sent now."""

    way: "Way"
    text: str
    size: Size


@dataclass(slots=True, kw_only=True)
class Way:
    """A gateway with its settings, and how it is doing."""

    gateway: SmsGateway
    settings: GatewaySettings
    rests_until: datetime | None = None
    allowed_at: float = 0.0  # the next text; event loop's clock
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def name(self) -> str:
        return self.gateway.name

    def rests(self, now: datetime) -> bool:
        return self.rests_until is not None and self.rests_until > now

    def serves(self, number: str) -> bool:
        countries = self.settings.countries
        return not countries or number.startswith(countries)


class Sending:
    """The `Notifier` for texts over all gateways, and a service that runs them."""

    name = "texts"

    def __init__(  # noqa: PLR0913 - the composition root's words
        self,
        ways: Sequence[Way],
        *,
        texts: Texts,
        receiving: Receiving,
        settle: Settle,
        clock: Clock,
        zone: str,
        most_per_hour: int,
    ) -> None:
        self._ways = tuple(ways)
        self._texts = texts
        self._receiving = receiving
        self._settle = settle
        self._clock = clock
        self._zone = ZoneInfo(zone)
        self._most_per_hour = most_per_hour

    def routes(self) -> list[Route]:
        return [route for way in self._ways for route in way.gateway.routes()]

    def health(self) -> list[Health]:
        return [self._rested(way, each) for way in self._ways for each in way.gateway.health()]

    def _rested(self, way: Way, health: Health) -> Health:
        if way.rests_until is None or health.state is not HealthState.UP:
            return health
        return Health(
            component=health.component,
            state=HealthState.DEGRADED,
            detail=health.detail or "its last text failed: see text.not_handed in the log",
            figures=health.figures,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for way in self._ways:
                await stack.enter_async_context(way.gateway.running())
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            books = tasks.create_task(self._keep_books(), name="texts-books")
            try:
                yield
            finally:
                books.cancel()

    # Out

    async def send(self, notification: Notification) -> None:
        """Hand a text to the first gateway that takes it.

        Raises:
            SendUnknown: a gateway may have sent it.
            Busy, TemporaryFailure: none has; try again.
            PermanentFailure: none ever will.
        """
        number = notification.address
        await self._check(number)
        failure: Exception = PermanentFailure("no gateway serves this number: see countries")
        for way in self._in_order(number):
            try:
                return await self._hand(way, notification)
            except (SendUnknown, Blocked):
                raise
            except (TemporaryFailure, Unroutable) as error:
                log.warning(
                    "text.not_handed", ref=notification.ref, gateway=way.name, reason=str(error)
                )
                failure = _graver(failure, error)
        raise failure

    def quote(self, notification: Notification) -> Quote:
        """Return how a text would be sent now.

        Raises:
            PermanentFailure: nobody sends to this number.
        """
        number = notification.address
        way = next(iter(self._in_order(number)), None)
        if way is None or not NUMBER.fullmatch(number):
            raise PermanentFailure("no gateway serves this number: see countries")
        text = _worded(way, notification)
        return Quote(way=way, text=text, size=size(text))

    async def _check(self, number: str) -> None:
        """Raise if a number is none, wants no texts, or has had too many."""
        if not NUMBER.fullmatch(number):
            raise PermanentFailure("a text needs a telephone number")
        if await self._texts.is_out(number):
            raise PermanentFailure("the recipient wants no texts (they wrote STOP or 退订)")
        since = self._clock.now() - _TOO_MANY
        if await self._texts.sent_to(number, since) >= self._most_per_hour:
            raise TemporaryFailure("this number has had sms.most_per_hour texts within an hour")

    def _in_order(self, number: str) -> list[Way]:
        """Return who may send to a number, those last that have just failed."""
        now = self._clock.now()
        serving = [way for way in self._ways if way.serves(number)]
        return sorted(
            serving, key=lambda way: way.rests_until is not None and way.rests_until > now
        )

    async def _hand(self, way: Way, notification: Notification) -> None:
        text = _worded(way, notification)
        outgoing = Outgoing(number=notification.address, text=text, notification=notification)
        segments = segment_count(text)
        await self._take_turn(way)
        await self._texts.handing(
            ref=outgoing.ref, gateway=way.name, number=outgoing.number, body=text, segments=segments
        )
        try:
            message_id = await way.gateway.submit(outgoing)
        except SendUnknown:
            raise
        except (TemporaryFailure, PermanentFailure) as failure:
            await self._refused(way, outgoing, failure)
            raise
        way.rests_until = None
        TEXT_SEGMENTS.labels(gateway=way.name).inc(segments)
        log.info(
            "text.sent", ref=outgoing.ref, gateway=way.name, ticket=notification.ticket,
            reason=notification.reason.value, recipient=notification.recipient,
            to=mask(outgoing.number), segments=segments,
        )  # fmt: skip
        try:
            delivery, error = await self._texts.handed(outgoing.ref, way.name, message_id)
        except TemporaryFailure as failure:
            raise SendUnknown("it was handed over, and the database went away") from failure
        if delivery:
            await self._receiving.tell(outgoing.ref, Delivery(delivery), error)

    async def _take_turn(self, way: Way) -> None:
        """Wait as long as the gateway's rate wants, a second at most.

        Raises:
            Busy: that would take longer.
        """
        loop = asyncio.get_running_loop()
        async with way.turn:
            now = loop.time()
            wait_s = max(way.allowed_at - now, 0.0)
            if wait_s > 1.0:
                raise Busy(f"sms.{way.name}.rate_per_s: no more texts a second")
            way.allowed_at = max(way.allowed_at, now) + 1 / way.settings.rate_per_s
        await asyncio.sleep(wait_s)

    async def _refused(self, way: Way, text: Outgoing, failure: Exception) -> None:
        await self._texts.taken_back(text.ref)
        if isinstance(failure, Blocked):
            await self._texts.opt_out(text.number, way.name)
        if isinstance(failure, TemporaryFailure) and not isinstance(failure, Busy):
            way.rests_until = self._clock.now() + REST

    async def find(self, ref: str) -> Trace:
        """Look up what became of a text where it was handed over."""
        text = await self._texts.text(ref)
        if text is None:
            return Trace.NEVER
        if text.message_id or text.delivery:
            return Trace.SENT
        way = next((way for way in self._ways if way.name == text.gateway), None)
        if way is None:
            return Trace.UNKNOWN
        found = await way.gateway.find(_handed(text))
        if found.trace is Trace.NEVER:
            await self._texts.taken_back(ref)
        elif found.trace is Trace.SENT:
            delivery, error = await self._texts.handed(ref, text.gateway, found.message_id)
            if delivery:
                await self._receiving.tell(ref, Delivery(delivery), error)
        return found.trace

    async def stop(self, refs: Collection[str]) -> None:
        """Do nothing: a text that has gone out stays out."""

    # In

    async def _keep_books(self) -> None:
        """File what only a provider's list has, compare the rest, again and again."""
        since = self._clock.now() - PARTS_LAST
        while True:
            now = self._clock.now()
            with suppress(TemporaryFailure):
                await self._receiving.file_unfinished(since, now)
                await self._texts.forget_parts()
                since = now - timedelta(minutes=30)
            for way in self._ways:
                await self._compare(way, now)
            await asyncio.sleep(LEDGER_EVERY_S)

    async def _compare(self, way: Way, now: datetime) -> None:
        today = now.astimezone(self._zone).date()
        days = [today]
        if now - self._midnight(today) < timedelta(hours=1):
            days.append(today - timedelta(days=1))
        with bound(gateway=way.name):
            try:
                for day in days:
                    await self._compare_day(way, day)
            except TemporaryFailure as failure:
                log.warning("texts.not_compared", reason=str(failure))
            except Exception:
                HANDLER_FAILURES.labels(where=self.name).inc()
                log.exception("texts.not_compared")

    async def _compare_day(self, way: Way, day: date) -> None:
        start, end = self._midnight(day), self._midnight(day + timedelta(days=1))
        listed = await way.gateway.listed(start, end)
        if listed is None:
            return
        texts = {contact_id(way.name, text.id): text for text in listed}
        known = await self._texts.known(texts)
        for external_id, text in texts.items():
            # One that is young is on its way.
            if external_id not in known and text.received_at <= self._clock.now() - YOUNG:
                await self._receiving.received(way.name, text)
        outside = {external_id: text.received_at for external_id, text in texts.items()}
        await self._settle(day, way.name, outside, Medium.TEXT, YOUNG)

    def _midnight(self, day: date) -> datetime:
        return datetime.combine(day, time(), self._zone)


def _worded(way: Way, notification: Notification) -> str:
    return fitting(way.settings.signature + each for each in words.texts(notification))


def _graver(known: Exception, failure: Exception) -> Exception:
    """Return what decides: what can be tried again weighs more than what never will be."""
    return known if isinstance(known, TemporaryFailure) else failure


def _handed(text: StoredText) -> Handed:
    return Handed(
        ref=text.ref,
        gateway=text.gateway,
        number=text.number,
        text=text.body,
        message_id=text.message_id,
        handed_at=text.handed_at,
    )
