"""Both ends of a gateway for texts: an inbox that keeps, and what a provider can be made to do."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from contactd.errors import TemporaryFailure
from contactd.routing.notify import Notification, Reason
from contactd.sms.gateway import (
    Handed,
    Incoming,
    Outgoing,
    Part,
    Report,
    SmsGateway,
    joined,
)
from contactd.tickets.contact import Medium


class Fault(StrEnum):
    """What a provider does with the next text that is handed to it."""

    BUSY = "busy"  # refuses: too many at once
    DOWN = "down"  # refuses: out of order
    REFUSED = "refused"  # refuses for good: no such number
    BLOCKED = "blocked"  # refuses for good: the recipient wants none
    LOST = "lost"  # says nothing, and has not taken it
    SILENT = "silent"  # takes it and says nothing


@dataclass(slots=True, kw_only=True)
class FakeInbox:
    """An `Inbox`. Parts are kept as they come; nobody puts them together here."""

    failing: bool = False
    texts: list[Incoming] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)

    async def received(self, gateway: str, text: Incoming) -> None:
        self._check()
        self.texts.append(text)

    async def received_part(self, gateway: str, part: Part) -> None:
        self._check()
        self.parts.append(part)

    async def reported(self, gateway: str, report: Report) -> None:
        self._check()
        self.reports.append(report)

    def _check(self) -> None:
        if self.failing:
            raise TemporaryFailure("the database is away")

    def heard(self) -> list[tuple[str, str]]:
        """Return sender and words of each text that has come in whole, or in all its parts."""
        whole = [(each.sender, each.text) for each in self.texts]
        sets: dict[tuple[str, int], dict[int, Part]] = {}
        for part in self.parts:
            sets.setdefault((part.sender, part.reference), {})[part.number] = part
        for (sender, _), parts in sets.items():
            if len(parts) == next(iter(parts.values())).total:
                whole.append((sender, joined(parts[number].text for number in sorted(parts))))
        return whole


class Provider(Protocol):
    """A provider with switches, and the gateway that is its client.

    `able` says what it can do of all this: the faults that it knows, "in" (it brings texts in by
    itself), "list" (it has a list of them), "find" (it can be asked what became of a text),
    "report" (it reports), "words" (any words can be sent, not only templates).
    """

    gateway: SmsGateway
    inbox: FakeInbox
    able: Collection[str]

    def fail(self, fault: Fault) -> None:
        """Have the next text that is handed over end so."""
        ...

    async def sent(self) -> Sequence[tuple[str, str]]:
        """Return number and words of each text that the provider has taken, put together."""
        ...

    async def bring(self, sender: str, text: str, external_id: str = "") -> bool:
        """Bring a text in, as one of several parts if it is long; return whether every part of it
        was acknowledged. The same `external_id` is the same text.
        """
        ...

    def long_ago(self) -> datetime:
        """Return a time of handing over by which the provider's answer to `find` is sure."""
        ...

    def today(self) -> tuple[datetime, datetime]:
        """Return the beginning and the end of the day in which `bring` brings."""
        ...

    async def report(self, message_id: str, ref: str, *, delivered: bool) -> bool:
        """Report on a text; return whether that was acknowledged."""
        ...


def outgoing(
    text: str = "工单26112000017已收到。", *, number: str = "+8613800000001", ref: str = "n-1",
    **changes: Any,
) -> Outgoing:  # fmt: skip
    given: dict[str, Any] = {
        "ref": ref, "ticket": "26112000017", "recipient": "requester", "name": "王伟",
        "medium": Medium.TEXT, "address": number, "language": "zh", "reason": Reason.RECEIVED,
        "facts": {"site_name": "广州"},
    }  # fmt: skip
    notification = Notification(**{**given, **changes})
    return Outgoing(number=number, text=text, notification=notification)


def handed(text: Outgoing, gateway: str, at: datetime, message_id: str = "") -> Handed:
    return Handed(
        ref=text.ref, gateway=gateway, number=text.number, text=text.text,
        message_id=message_id, handed_at=at,
    )  # fmt: skip
