"""Sends a requester the link with which only they can begin remote help, by text or mail.

The code in it is told to them and to nobody else: who sends the link never sees it.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from contactd.clock import Clock
from contactd.errors import PermanentFailure
from contactd.log import get_logger
from contactd.routing.notify import Notification, Reason
from contactd.tickets.contact import Medium
from contactd.tickets.people import MAIL, PHONE, Address
from contactd.tickets.sharing import Invitation

log = get_logger()

PATH: Final = "/s"  # where `web.sharepage` is
_KINDS: Final[Mapping[Medium, str]] = {Medium.TEXT: PHONE, Medium.MAIL: MAIL}


class Sessions(Protocol):
    """What is kept; `store.remote.RemoteSessions` has it."""

    async def invite(
        self, number: str, *, actor: str, language: str, medium: str = ""
    ) -> Invitation: ...


class Messages(Protocol):
    """What tells people; `routing.follow_up.FollowUp` has it."""

    async def draft(
        self, number: str, words: str, medium: Medium = ..., subject: str = ""
    ) -> Notification: ...

    async def say(  # noqa: PLR0913 - who is told what, by what
        self,
        number: str,
        to: Address,
        medium: Medium,
        key: str,
        facts: Mapping[str, str],
        reason: Reason = ...,
    ) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Invited:
    """A link that is on its way. It has no code: nobody but its recipient needs that."""

    session: int
    ticket: str
    medium: Medium
    address: str  # E.164, or a mail address
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Inviting:
    """`public_url` is where users reach the pages; `has` tells by what somebody can be written to.

    `has` is asked each time: what notifies is known only once everything is built.
    """

    sessions: Sessions
    messages: Messages
    public_url: str
    clock: Clock
    has: Callable[[], Collection[Medium]]

    @property
    def media(self) -> frozenset[Medium]:
        """Return by what a link can be sent; by nothing if nobody could open it."""
        return frozenset(_KINDS) & frozenset(self.has()) if self.public_url else frozenset()

    async def invite(
        self, number: str, *, actor: str, medium: Medium, to: Address | None = None
    ) -> Invited:
        """Send a ticket's requester a link, to the address `to` or to the best that they have.

        An older link of the ticket works no more. With `actor` REQUESTER they have asked for it
        themselves, which begins the promise of remote help (C2).

        Raises:
            NotFound: there is no such ticket.
            ActionNotAllowed: it is over, or somebody sees its requester's screen just now.
            PermanentFailure: the requester cannot be sent that; the text says why.
            TemporaryFailure: nothing was sent; try again.
        """
        if medium not in self.media:
            raise PermanentFailure(f"nothing can be sent by {medium}: it is not configured")
        # Looked up first: an invitation that nobody can be told of would end an older one.
        drafted = await self.messages.draft(number, "-", medium) if to is None else None
        address = to or Address(kind=_KINDS[medium], value=drafted.address if drafted else "")
        language = drafted.language if drafted else ""
        made = await self.sessions.invite(
            number, actor=actor, language=language, medium=medium.value
        )
        lasts = made.expires_at - self.clock.now()
        facts = {
            "link": f"{self.public_url.rstrip('/')}{PATH}/{made.code}",
            "code": made.code,
            "minutes": str(max(round(lasts.total_seconds() / 60), 1)),
            "until": made.expires_at.isoformat(),
        }
        key = f"s{made.session}"
        await self.messages.say(number, address, medium, key, facts, Reason.REMOTE)
        log.info("remote.link_sent", ticket=number, session=made.session, medium=medium.value)
        return Invited(
            session=made.session, ticket=number, medium=medium, address=address.value,
            expires_at=made.expires_at,
        )  # fmt: skip
