"""What a gateway for texts is: one small protocol, and the values that pass through it (pure).

A gateway is the client of one provider. It keeps nothing: what was handed to it, what came in and
what was reported is stored by others (`sms.sending`, `sms.receiving`), on its word.
"""

from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from contactd.errors import PermanentFailure
from contactd.httpd import Route
from contactd.routing.notify import Notification, Trace
from contactd.service import Health


class Blocked(PermanentFailure):
    """The recipient wants no texts from us: by the provider's own list."""


class Unroutable(PermanentFailure):
    """This gateway will never send this text; another one may."""


class Delivery(StrEnum):
    """How far a text has come, as a provider reports it later; the later one counts."""

    SENT = "sent"  # on its way: the carrier has it
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A text to send. `number` is E.164, or an extension; `text` has its signature already."""

    number: str
    text: str
    notification: Notification  # for gateways that send templates

    @property
    def ref(self) -> str:
        return self.notification.ref


@dataclass(frozen=True, slots=True, kw_only=True)
class Handed:
    """A text that was handed to a gateway; `message_id` is the provider's, "" if it gave none."""

    ref: str
    gateway: str
    number: str
    text: str
    message_id: str
    handed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a provider knows of a text."""

    trace: Trace
    message_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """A file that came with a text (MMS)."""

    content: bytes
    media_type: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """A text that came in. `id` is the provider's: the same text twice has the same one."""

    id: str
    sender: str  # as the provider shows it
    recipient: str
    text: str
    received_at: datetime
    media: tuple[Media, ...] = ()
    is_repaired: bool = False  # it came by the provider's list, not by itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of a text that came in several (3GPP TS 23.040 section 9.2.3.24.1), numbered from 1.

    The text has all its parts once there are `total` of one `reference`, sender and recipient. Some
    phones cut an emoji in two: `text` may begin or end with half a surrogate pair.
    """

    sender: str
    recipient: str
    reference: int
    total: int
    number: int
    text: str
    received_at: datetime


def joined(parts: Iterable[str]) -> str:
    """Return a text from the texts of its parts; a half of a sign that has no other is `�`."""
    units = "".join(parts).encode("utf-16-be", "surrogatepass")
    return units.decode("utf-16-be", "replace")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a provider says later of a text: by its own `message_id`, or by our `ref`."""

    delivery: Delivery
    message_id: str = ""
    ref: str = ""
    error: str = ""  # the provider's code


class Inbox(Protocol):
    """Where a gateway brings what comes to it. Everything is stored once a method returns.

    Every method raises `TemporaryFailure` when it is not: the provider has to bring it again.
    """

    async def received(self, gateway: str, text: Incoming) -> None:
        """File a text; the second time for one `id` nothing happens."""
        ...

    async def received_part(self, gateway: str, part: Part) -> None:
        """Keep a part, and file the text once it is complete; twice is harmless."""
        ...

    async def reported(self, gateway: str, report: Report) -> None:
        """Note how far a text has come; in any order, and also before its id is known."""
        ...


class SmsGateway(Protocol):
    """The client of one provider; a `Service` besides."""

    @property
    def name(self) -> str:
        """Return its name in the settings, in paths, and in front of the ids of its texts."""
        ...

    async def submit(self, text: Outgoing) -> str:
        """Hand a text over; return the provider's id for it, "" if it gives none.

        It has to end by itself: within its own deadline.

        Raises:
            SendUnknown: it may have gone out; nothing is known.
            Busy: it has not: too many at once.
            TemporaryFailure: it has surely not gone out.
            Unroutable: this gateway never will; another may.
            Blocked, PermanentFailure: nobody ever will, to this number.
        """
        ...

    async def find(self, text: Handed) -> Found:
        """Look up what became of a text of unknown outcome.

        Raises:
            TemporaryFailure: the provider cannot be asked now.
        """
        ...

    async def listed(self, since: datetime, until: datetime) -> Sequence[Incoming] | None:
        """Return the texts that the provider's list says came in; None: it has no such list.

        Media are left out of it.

        Raises:
            TemporaryFailure: the provider cannot be asked now.
        """
        ...

    def routes(self) -> Sequence[Route]:
        """Return the routes that its provider calls, below `/sms/<name>/`."""
        ...

    def running(self) -> AbstractAsyncContextManager[None]: ...

    def health(self) -> list[Health]: ...
