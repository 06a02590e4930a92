"""Key 3 of the hotline: a caller is sent the link with which only they can begin remote help."""

from collections.abc import Collection
from enum import StrEnum
from typing import Final, Protocol

from contactd.clock import Clock
from contactd.errors import ActionNotAllowed, PermanentFailure
from contactd.log import get_logger
from contactd.routing.notify import Quota
from contactd.tickets.contact import Medium
from contactd.tickets.journal import REQUESTER
from contactd.tickets.people import PHONE, Address
from contactd.tickets.phone import e164, is_mobile

log = get_logger()

MOST_CALLS: Final = 2_000  # remembered; what is forgotten may be sent once more


class Said(StrEnum):
    """What became of it: the dialplan has a prompt for each, and connects to a person then."""

    SENT = "sent"
    NO_MOBILE = "no_mobile"  # nothing reaches the number by text, or it is withheld
    FAILED = "failed"


class Inviting(Protocol):
    """What sends invitations; `remote.inviting.Inviting` does."""

    @property
    def media(self) -> Collection[Medium]: ...

    async def invite(
        self, number: str, *, actor: str, medium: Medium, to: Address | None = None
    ) -> object: ...


class HelpLink:
    """Sends the link to the number that calls, and to no other: once a call.

    A caller's number can be forged, so one number gets no more links in an hour than it gets
    courtesies (`Quota`), however often somebody calls in its name.
    """

    def __init__(self, inviting: Inviting, clock: Clock, *, country: str) -> None:
        self._inviting = inviting
        self._clock = clock
        self._country = country
        self._quota = Quota()
        self._sent: dict[str, None] = {}  # call ids, the oldest first

    @property
    def offered(self) -> bool:
        """Return whether callers need be told of the key: a text can go out."""
        return Medium.TEXT in self._inviting.media

    async def send(self, call_id: str, ticket: str, caller: str) -> Said:
        """Send it; the requester's wish for help is noted on the ticket by that (C2).

        Raises:
            TemporaryFailure: nothing was sent; try again.
        """
        number = e164(caller, country=self._country)
        if not is_mobile(number):
            return Said.NO_MOBILE
        if call_id in self._sent:
            return Said.SENT
        if not self._quota.take(number, call_id, self._clock.now()):
            log.warning("remote.too_many_links", ticket=ticket)
            return Said.FAILED
        self._sent[call_id] = None  # already now: who presses the key twice is one wish
        said = Said.FAILED
        try:
            said = await self._invite(ticket, number)
        finally:
            if said is not Said.SENT:
                self._sent.pop(call_id, None)
        while len(self._sent) > MOST_CALLS:
            del self._sent[next(iter(self._sent))]
        return said

    async def _invite(self, ticket: str, number: str) -> Said:
        to = Address(kind=PHONE, value=number)
        try:
            await self._inviting.invite(ticket, actor=REQUESTER, medium=Medium.TEXT, to=to)
        except (ActionNotAllowed, PermanentFailure) as error:
            log.info("remote.link_not_sent", ticket=ticket, why=str(error))
            return Said.FAILED
        return Said.SENT
