"""What providers bring: texts become contacts, parts become texts, reports reach the ticket.

Nothing is kept here: everything is stored once a method returns, and only then is the provider
told that it has been taken.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final, Protocol

from contactd.log import get_logger
from contactd.routing.notify import SendState
from contactd.sms.gateway import Delivery, Incoming, Part, Report, joined
from contactd.store.texts import PartialText, StoredPart, Texts
from contactd.tickets.contact import Blob, Contact, File, Filed, Medium, Source

log = get_logger()

LONGEST_TEXT: Final = 40_000  # characters; 255 segments of 153 are 39,015
ATTACHMENT: Final = "attachment"
WAIT_FOR_PARTS: Final = timedelta(minutes=10)
GAP: Final = " […] "

# How far a text may have come for a report to be news: reports come in any order.
_AFTER: Final = {
    Delivery.SENT: (),
    Delivery.DELIVERED: (Delivery.SENT, Delivery.FAILED),
    Delivery.FAILED: (Delivery.SENT,),
}
_STATES: Final = {
    Delivery.SENT: SendState.SENT,
    Delivery.DELIVERED: SendState.DELIVERED,
    Delivery.FAILED: SendState.FAILED,
}


class Put(Protocol):
    def __call__(self, content: bytes, *, media_type: str, name: str) -> Awaitable[Blob]: ...


class Receiving:
    """The `Inbox` of every gateway."""

    def __init__(
        self,
        *,
        receive: Callable[[Contact], Awaitable[Filed]],
        outcome: Callable[[str, SendState], Awaitable[None]],
        put: Put,
        texts: Texts,
        make_way: Callable[[], None],
    ) -> None:
        self._receive = receive
        self._outcome = outcome
        self._put = put
        self._texts = texts
        self._make_way = make_way

    async def received(self, gateway: str, text: Incoming) -> None:
        self._make_way()
        files = [
            File(
                kind=ATTACHMENT,
                blob=await self._put(each.content, media_type=each.media_type, name=each.name),
            )
            for each in text.media
        ]
        contact = Contact(
            medium=Medium.TEXT,
            external_id=contact_id(gateway, text.id),
            received_at=text.received_at,
            source=Source.REPLAY if text.is_repaired else Source.LIVE,
            from_value=text.sender,
            to_value=text.recipient,
            text=text.text[:LONGEST_TEXT],
            files=tuple(files),
        )
        await self._receive(contact)

    async def received_part(self, gateway: str, part: Part) -> None:
        stored = StoredPart(
            gateway=gateway,
            sender=part.sender[:32],
            recipient=part.recipient[:32],
            reference=part.reference,
            total=part.total,
            number=part.number,
            body=_stored(part.text),
            received_at=part.received_at,
        )
        text = await self._texts.add_part(stored)
        if text.is_whole:
            await self._file(text)

    async def file_unfinished(self, since: datetime, now: datetime) -> None:
        """File texts of which parts have been missing for a while, with a sign for the gaps."""
        for text in await self._texts.unfinished(since, now - WAIT_FOR_PARTS):
            await self._file(text)
            await self._texts.give_up(text)
            log.warning("text.part_missing", gateway=text.part.gateway, parts=len(text.bodies))

    async def _file(self, text: PartialText) -> None:
        """File a text under an id of its own: a part that comes again changes nothing."""
        part = text.part
        # Ids stand in logs, numbers must not.
        who = sha256(f"{part.sender} {part.recipient}".encode()).hexdigest()[:12]
        when = f"{text.since:%Y%m%d%H%M%S}-{text.series}"
        name = f"{who}-{part.reference}-{part.total}-{when}"
        numbers = range(1, part.total + 1)
        incoming = Incoming(
            id=f"{name}-late" if text.given_up else name,
            sender=part.sender,
            recipient=part.recipient,
            text=joined(_read(text.bodies[n]) if n in text.bodies else GAP for n in numbers),
            received_at=text.since,
        )
        await self.received(part.gateway, incoming)

    async def reported(self, gateway: str, report: Report) -> None:
        ref = await self._texts.reported(
            gateway=gateway,
            ref=report.ref,
            message_id=report.message_id,
            delivery=report.delivery.value,
            error=report.error,
            after=[state.value for state in _AFTER[report.delivery]],
        )
        if ref:
            await self.tell(ref, report.delivery, report.error)

    async def tell(self, ref: str, delivery: Delivery, error: str) -> None:
        """Let whoever waits for a notification know how far it has come."""
        if delivery is Delivery.FAILED:
            log.warning("text.not_delivered", ref=ref, error=error)
        await self._outcome(ref, _STATES[delivery])


def contact_id(gateway: str, external_id: str) -> str:
    """Return the external id of a text; the ledger knows its gateway by the beginning."""
    return f"{gateway}-{external_id}"[:200]


def _stored(text: str) -> str:
    """Return a part as any database keeps it: half a surrogate pair is no text."""
    return text.encode("utf-16-be", "surrogatepass").hex()


def _read(stored: str) -> str:
    return bytes.fromhex(stored).decode("utf-16-be", "surrogatepass")
