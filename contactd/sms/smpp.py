"""The client (ESME, transceiver) of a carrier's SMSC over SMPP 3.4.

It is our own. aiosmpplib 0.7.4, the only kept asyncio client with inbound texts, was tried: a text
queued while the link was down was lost without a word, a silent SMSC raised no time-out in 15 s, an
UnboundLocalError ended its sender for good, and passwords have 8 characters at most. A guard for
each would be as long as the six requests that a transceiver needs, and would sit on its queue,
where nobody can tell any more whether a text was written.

Rules that no specification gives:

* Nothing is queued here. A text that cannot be written now fails now.
* SMPP gives a text that comes in no id: `smpp_repeats` says which one comes once more.
* **A text in parts** is submitted part by part, each after the answer to the one before, and only
  its last part asks for a receipt: that one's id is the text's. If a later part fails for now, the
  outcome is unknown, for the parts before it have gone out.
* An answer that comes too late is kept for `find`.
"""

import asyncio
import re
import secrets
import ssl
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import count
from random import SystemRandom
from typing import Final

from contactd.clock import Clock
from contactd.errors import ConfigurationError, PermanentFailure, TemporaryFailure
from contactd.httpd import Route
from contactd.log import get_logger
from contactd.metrics import HANDLER_FAILURES
from contactd.routing.notify import Busy, SendUnknown, Trace
from contactd.service import Health, HealthState
from contactd.settings import SmppSettings
from contactd.sms.gateway import (
    Delivery,
    Found,
    Handed,
    Inbox,
    Incoming,
    Outgoing,
    Part,
    Report,
    Unroutable,
)
from contactd.sms.smpp_link import Link
from contactd.sms.smpp_pdu import (
    Address,
    Bind,
    Command,
    Pdu,
    PduError,
    ShortMessage,
    Status,
    Taken,
)
from contactd.sms.smpp_repeats import Repeats
from contactd.sms.smpp_text import (
    Alphabet,
    Content,
    ReceiptIds,
    State,
    coded,
    content,
    is_receipt,
    receipt,
    submitted_id,
)
from contactd.tickets.phone import mask

log = get_logger()

AT_ONCE: Final = 64  # texts and receipts that come in, in work; then nothing more is read
REMEMBERED: Final = 10_000  # texts whose answer came late
FIRST_PAUSE_S: Final = 0.5  # before another connection; doubled up to the longest
LONGEST_PAUSE_S: Final = 30.0
PART_PAUSE_S: Final = 0.5  # before a part that the SMSC had no room for is offered again
UNBIND_S: Final = 2.0

_NUMBER: Final = re.compile(r"\+?[0-9]{3,15}")  # E.164, or an extension
_ADDRESS_CHARS: Final = 32  # what the store has room for; SMPP allows 20
_ID_CHARS: Final = 80

# Table 5-2 and section 5.1.3: what a refusal of submit_sm means. Anything else is for now: vendors
# have codes of their own from 0x400 on, and the next gateway is tried.
_REFUSALS: Final[Mapping[int, type[TemporaryFailure | PermanentFailure]]] = {
    Status.THROTTLED: Busy,
    Status.QUEUE_FULL: Busy,
    Status.INVALID_DESTINATION: PermanentFailure,
    Status.APPLICATION_PERMANENT: PermanentFailure,
    Status.APPLICATION_REFUSED: PermanentFailure,
    # Something of ours, or of sms.smpp, that this SMSC does not take: another gateway may.
    Status.INVALID_MESSAGE_LENGTH: Unroutable,
    Status.INVALID_COMMAND_LENGTH: Unroutable,
    Status.INVALID_COMMAND: Unroutable,
    Status.INVALID_PRIORITY: Unroutable,
    Status.INVALID_REGISTERED_DELIVERY: Unroutable,
    Status.INVALID_SOURCE: Unroutable,
    Status.INVALID_SERVICE_TYPE: Unroutable,
    Status.INVALID_ESM_CLASS: Unroutable,
    Status.INVALID_SOURCE_TON: Unroutable,
    Status.INVALID_SOURCE_NPI: Unroutable,
    Status.INVALID_DESTINATION_TON: Unroutable,
    Status.INVALID_DESTINATION_NPI: Unroutable,
    Status.INVALID_TLVS: Unroutable,
    Status.TLV_NOT_ALLOWED: Unroutable,
    Status.INVALID_TLV_LENGTH: Unroutable,
    Status.TLV_MISSING: Unroutable,
    Status.INVALID_TLV_VALUE: Unroutable,
}

# Section 5.2.28. What an SMSC knows nothing of may still arrive.
_DELIVERIES: Final[Mapping[State, Delivery]] = {
    State.ENROUTE: Delivery.SENT,
    State.ACCEPTED: Delivery.SENT,
    State.UNKNOWN: Delivery.SENT,
    State.DELIVERED: Delivery.DELIVERED,
    State.EXPIRED: Delivery.FAILED,
    State.DELETED: Delivery.FAILED,
    State.UNDELIVERABLE: Delivery.FAILED,
    State.REJECTED: Delivery.FAILED,
}


@dataclass(slots=True, kw_only=True)
class _Figures:
    sent: int = 0
    received: int = 0
    unanswered: int = 0  # one after the other: 0 after an answer


class SmppGateway:
    """An `SmsGateway`.

    Raises:
        ConfigurationError: `sms.smpp.ca_file` holds no certificates.
    """

    name = "smpp"

    def __init__(self, settings: SmppSettings, inbox: Inbox, clock: Clock) -> None:
        self._settings = settings
        self._inbox = inbox
        self._clock = clock
        self._tls = _tls(settings)
        self._alphabet = Alphabet(settings.default_alphabet)
        self._receipt_ids = ReceiptIds(settings.receipt_ids)
        self._link: Link | None = None
        self._fault = "not started"
        self._logged_fault = ""
        self._in_flight = 0
        self._references = count(secrets.randbelow(256))
        self._repeats = Repeats()
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._working: set[asyncio.Task[None]] = set()
        self._tasks: asyncio.TaskGroup | None = None
        self._is_leaving = False
        self._found: OrderedDict[str, Found] = OrderedDict()  # by answers that came late
        self._figures = _Figures()
        self._random = SystemRandom()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self._is_leaving = False
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            keeping = tasks.create_task(self._keep_bound(), name="smpp")
            yield
            await self._leave()
            keeping.cancel()
        self._tasks = None

    def health(self) -> list[Health]:
        figures = {
            "sent": self._figures.sent,
            "received": self._figures.received,
            "in_flight": self._in_flight,
        }
        state, detail = HealthState.UP, ""
        if self._link is None:
            state = HealthState.DEGRADED
            detail = f"{self._fault}; see sms.smpp.host and the others of section sms.smpp"
        elif self._figures.unanswered:
            state = HealthState.DEGRADED
            detail = f"{self._figures.unanswered} texts were not answered in time; ask the carrier"
        return [Health(component="sms:smpp", state=state, detail=detail, figures=figures)]

    def routes(self) -> Sequence[Route]:
        return ()

    async def listed(self, since: datetime, until: datetime) -> None:
        """Return None: an SMSC has no list of what came in; it keeps what we did not take."""

    async def find(self, text: Handed) -> Found:
        """Say what a late answer said; SMPP has no way to ask after a text without an id."""
        return self._found.get(text.ref, Found(trace=Trace.UNKNOWN))

    # Out

    async def submit(self, text: Outgoing) -> str:
        if not _NUMBER.fullmatch(text.number):
            raise PermanentFailure("a text needs a telephone number")
        link = self._link
        if link is None:
            raise TemporaryFailure(f"SMSC {self._where()}: {self._fault}")
        if self._in_flight >= self._settings.window:
            raise Busy(f"SMSC {self._where()}: sms.smpp.window is full")
        self._in_flight += 1
        try:
            return await self._submit(link, text)
        finally:
            self._in_flight -= 1

    async def _submit(self, link: Link, text: Outgoing) -> str:
        deadline = asyncio.get_running_loop().time() + self._settings.timeout_s
        try:
            messages = self._messages(text)
        except ValueError as error:
            raise PermanentFailure(f"the text has {error}") from error
        message_id = ""
        for index, message in enumerate(messages):
            late = partial(self._late, text.ref, index == len(messages) - 1)
            try:
                message_id = await self._hand_over(link, message, late, deadline, index > 0)
            except TemporaryFailure as failure:
                if index == 0 or isinstance(failure, SendUnknown):
                    raise
                raise SendUnknown(f"{index} of {len(messages)} parts went out: {failure}") from None
        self._figures.sent += 1
        log.info("sms.submitted", gateway=self.name, ref=text.ref, to=mask(text.number),
                 segments=len(messages))  # fmt: skip
        return message_id

    def _messages(self, text: Outgoing) -> list[ShortMessage]:
        """Return what is submitted. Raises ValueError: the text has too many parts."""
        pieces = coded(text.text, next(self._references), self._alphabet)
        return [
            ShortMessage(
                source=_address(self._settings.sender),
                destination=_address(text.number),
                content=piece.content,
                data_coding=piece.data_coding,
                esm_class=piece.esm_class,
                registered_delivery=1 if piece is pieces[-1] else 0,
            )
            for piece in pieces
        ]

    async def _hand_over(
        self, link: Link, message: ShortMessage, late: "_Late", deadline: float, is_later: bool
    ) -> str:
        """Submit one part and return its id.

        The text is half out when a later part is refused for want of room: that one is offered
        again while there is time. It has surely not been taken, so nothing goes out twice.
        """
        while True:
            try:
                return await self._answered(link, message, late, deadline)
            except Busy:
                left = deadline - asyncio.get_running_loop().time()
                if not is_later or left < 2 * PART_PAUSE_S:
                    raise
                await asyncio.sleep(PART_PAUSE_S)

    async def _answered(
        self, link: Link, message: ShortMessage, late: "_Late", deadline: float
    ) -> str:
        """Write a submit_sm and return the id that it is given. Raises as `submit` does."""
        try:
            waiting = link.request(Command.SUBMIT_SM, message)
        except PduError as error:
            raise Unroutable(f"sms.smpp.sender or a number is {error}") from error
        left = deadline - asyncio.get_running_loop().time()
        try:
            await asyncio.wait([waiting], timeout=max(left, 0))
        finally:
            if not waiting.done():  # out of time, or cancelled
                waiting.add_done_callback(late)
        if not waiting.done():
            self._figures.unanswered += 1
            raise SendUnknown(f"SMSC {self._where()}: no answer to submit_sm in time")
        answer = waiting.result()
        if answer is None:
            raise SendUnknown(f"SMSC {self._where()}: {link.fault or 'a damaged answer'}")
        self._figures.unanswered = 0
        if answer.status == Status.WRONG_BIND_STATE:
            link.lose("it says that we are not bound")
        if answer.status or answer.command != Command.SUBMIT_SM_RESP:
            raise _refused(f"SMSC {self._where()}", answer.status)
        return self._id(answer)

    def _id(self, answer: Pdu) -> str:
        message_id = answer.body.message_id if isinstance(answer.body, Taken) else ""
        return submitted_id(message_id[:_ID_CHARS], self._receipt_ids) if message_id else ""

    def _late(self, ref: str, is_last: bool, waiting: "asyncio.Future[Pdu | None]") -> None:
        """Keep an id that nobody waits for any more.

        A refusal that comes late says nothing: meanwhile the text may have been handed over again.
        """
        answer = waiting.result()
        if answer is None:
            return
        self._figures.unanswered = 0
        if answer.status or answer.command != Command.SUBMIT_SM_RESP or not is_last:
            return
        self._found[ref] = Found(trace=Trace.SENT, message_id=self._id(answer))
        while len(self._found) > REMEMBERED:
            self._found.popitem(last=False)

    # In

    async def _deliver(self, link: Link, request: Pdu, message: ShortMessage) -> None:
        """Have a deliver_sm worked on; wait while too many are."""
        if self._is_leaving or self._tasks is None:
            return  # not acknowledged: it comes again
        await self._turns.acquire()
        task = self._tasks.create_task(self._take(link, request, message), name="smpp-deliver")
        self._working.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._working.discard(task)
        self._turns.release()

    async def _take(self, link: Link, request: Pdu, message: ShortMessage) -> None:
        """Bring in what a deliver_sm says, and acknowledge it once that is stored."""
        now = self._clock.now()
        said = content(message, self._alphabet)
        came = None
        if not is_receipt(message) and said.place is None:
            came = self._repeats.came(message, link.progress, now)
        status = Status.OK
        try:
            if is_receipt(message):
                await self._report(message)
            else:
                await self._bring(message, said, came.id if came else "", now)
        except TemporaryFailure as failure:
            status = Status.APPLICATION_TEMPORARY
            log.warning("sms.deferred", gateway=self.name, reason=str(failure))
        except Exception:  # the boundary: one text costs itself, not the link
            status = Status.APPLICATION_TEMPORARY
            HANDLER_FAILURES.labels(where="smpp").inc()
            log.exception("sms.failed", gateway=self.name)
        if came is not None:
            came.answered(self._clock.now(), is_taken=status == Status.OK)
        await link.answer(request, status)

    async def _bring(
        self, message: ShortMessage, said: Content, text_id: str, now: datetime
    ) -> None:
        sender, recipient = _shown(message.source), _shown(message.destination)
        if said.place is None:
            incoming = Incoming(
                id=text_id, sender=sender, recipient=recipient, text=said.text, received_at=now
            )
            await self._inbox.received(self.name, incoming)
        else:
            part = Part(
                sender=sender, recipient=recipient, reference=said.place.reference,
                total=said.place.total, number=said.place.number, text=said.text, received_at=now,
            )  # fmt: skip
            await self._inbox.received_part(self.name, part)
        self._figures.received += 1

    async def _report(self, message: ShortMessage) -> None:
        found = receipt(message, self._receipt_ids)
        if found is None:  # it would be the same the next time
            log.warning("sms.receipt_unknown", gateway=self.name)
            return
        report = Report(
            delivery=_DELIVERIES[found.state],
            message_id=found.message_id[:_ID_CHARS],
            error=found.error,
        )
        await self._inbox.reported(self.name, report)

    # The link

    async def _keep_bound(self) -> None:
        """Connect for ever; an end of a link is never an end of this task."""
        loop = asyncio.get_running_loop()
        pause_s = FIRST_PAUSE_S
        while True:
            began = loop.time()
            await self._connection()
            if loop.time() - began > LONGEST_PAUSE_S:
                pause_s = FIRST_PAUSE_S  # it had held; one that breaks at once is not hurried
            if self._is_leaving:
                return
            if self._fault != self._logged_fault:  # an SMSC that is away for a day is one line
                log.warning("sms.link_lost", gateway=self.name, reason=self._fault)
            self._logged_fault = self._fault
            await asyncio.sleep(pause_s * self._random.uniform(0.5, 1))
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    async def _connection(self) -> None:
        """Serve one connection until it ends, and note why."""
        settings = self._settings
        try:
            async with asyncio.timeout(settings.timeout_s):
                streams = await asyncio.open_connection(settings.host, settings.port, ssl=self._tls)
        except TimeoutError:
            self._fault = "no connection in time"
            return
        except (OSError, ValueError) as error:  # ValueError: a host that cannot be one
            self._fault = _said(error)
            return
        link = Link(*streams, deliver=self._deliver)
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(link.read(), name="smpp-read")
            watching = tasks.create_task(
                link.watch(every_s=settings.enquire_every_s, timeout_s=settings.timeout_s),
                name="smpp-watch",
            )
            try:
                await self._bound(link)
                await link.lost.wait()
            finally:
                self._link = None
                link.lose("stopped")
                reading.cancel()
                watching.cancel()
                self._fault = "stopped" if self._is_leaving else link.fault

    async def _bound(self, link: Link) -> None:
        """Log in, and let texts out over the link if that works."""
        settings = self._settings
        who = Bind(
            system_id=settings.system_id,
            password=settings.password.get_secret_value(),
            system_type=settings.system_type,
        )
        try:
            await link.bind(who, timeout_s=settings.timeout_s)
        except TemporaryFailure as failure:
            link.lose(str(failure))
            link.fault = str(failure)  # it may have closed the connection at once
            return
        if self._is_leaving or link.lost.is_set():
            return
        self._link, self._logged_fault = link, ""
        self._figures.unanswered = 0
        log.info("sms.bound", gateway=self.name)

    async def _leave(self) -> None:
        """Take no more texts, finish those in hand, and say good-bye."""
        self._is_leaving = True
        link, self._link = self._link, None
        self._fault = "stopped"
        if self._working:
            await asyncio.wait(self._working)
        if link is not None:
            await link.settle(timeout_s=self._settings.timeout_s)
            await link.unbind(timeout_s=UNBIND_S)

    def _where(self) -> str:
        return f"{self._settings.host}:{self._settings.port}"


_Late = partial[None]


def _address(value: str) -> Address:
    """Return a number or a name as SMPP has it (sections 5.2.5 and 5.2.6)."""
    if value.startswith("+"):
        return Address(value=value[1:], kind=1, plan=1)  # international, E.164
    if value.isdigit():
        return Address(value=value)  # a short code or an extension: the SMSC knows
    return Address(value=value, kind=5)  # letters


def _shown(address: Address) -> str:
    is_international = address.kind == 1 and address.value[:1].isdigit()
    return f"{'+' if is_international else ''}{address.value}"[:_ADDRESS_CHARS]


def _refused(who: str, status: int) -> TemporaryFailure | PermanentFailure:
    kind = _REFUSALS.get(status, TemporaryFailure)
    return kind(f"{who} refused the text: {status:#x}")


def _tls(settings: SmppSettings) -> ssl.SSLContext | None:
    if not settings.tls:
        return None
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except OSError as error:  # also what is no certificate: SSLError
        raise ConfigurationError(f"sms.smpp.ca_file: {settings.ca_file}: {error}") from error


def _said(error: OSError | ValueError) -> str:
    match error:
        case ssl.SSLCertVerificationError(verify_message=why):
            return f"its certificate is not trusted: {why}"
        case ssl.SSLError():
            return "it speaks no TLS"
        case OSError(strerror=str(why)):
            return why
        case _:
            return str(error) or type(error).__name__
