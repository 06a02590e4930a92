"""What a notification is: one message to one person, and what may become of it (pure).

A notification is stored in the commit that decided on it, together with the event that sends it.
Sending marks it `SENDING` first; who finds it so again cannot know whether it went out, and looks
it up by its `ref` before anything is sent a second time.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

from contactd.errors import TemporaryFailure
from contactd.tickets.contact import Medium

REQUESTER: Final = "requester"  # recipient of what goes to the person who reported the fault


class Reason(StrEnum):
    """What a message is about: its prompt (`page-<reason>`), its text and its mail."""

    # to engineers: answered by a key, a reply or a click
    NEW = "new"  # a ticket that nobody has
    MISSED = "missed"  # somebody called and reached nobody
    VOICEMAIL = "voicemail"
    REOPENED = "reopened"
    ASSIGNED = "assigned"  # handed over
    DISPATCH = "dispatch"  # go to the site
    # to engineers: to know
    WARNING = "warning"  # a share of a promise's time is spent: facts metric, percent, due
    BREACH = "breach"  # facts metric, due
    CALLED_OFF = "called-off"  # nobody need go to the site any more
    DECLINED = "declined"  # who was sent cannot go: fact engineer
    # to the requester
    CODE = "code"  # the engineer who arrives asks for it: facts engineer, code
    SOLVED = "solved"  # please confirm; by call: 1 solved, 2 not
    REMINDER = "reminder"  # the same, again
    CLOSED = "closed"


ANSWERED_BY_KEY: Final = frozenset(
    {
        Reason.NEW, Reason.MISSED, Reason.VOICEMAIL, Reason.REOPENED, Reason.ASSIGNED,
        Reason.DISPATCH,
    }
)  # fmt: skip


class SendState(StrEnum):
    QUEUED = "queued"
    SENDING = "sending"  # handed to the medium; found again after a crash: nobody knows
    SENT = "sent"
    DELIVERED = "delivered"
    NOT_REACHED = "not_reached"  # no answer, no key
    UNKNOWN = "unknown"  # to be looked up
    DOUBTFUL = "doubtful"  # nobody knows, not even after it was sent once more
    TAKEN = "taken"
    PASSED = "passed"
    FAILED = "failed"  # refused for good
    STOPPED = "stopped"  # no longer wanted


class Trace(StrEnum):
    """What a medium knows of a `ref`."""

    SENT = "sent"
    NEVER = "never"  # it has surely not gone out
    UNKNOWN = "unknown"  # the medium cannot tell


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """One message. `ref` is ours and unique: the channel's id, the gateway's client reference.

    `facts` are what its words need, as text: `site` (key), `vip` ("1"), `conference` ("1": key 5
    joins the ticket's conference), and what the reason says.
    """

    ref: str
    ticket: str  # number
    recipient: str  # engineer's key, oncall.FLOOR_KEY or REQUESTER
    name: str = ""  # of the recipient, "" when nobody knows
    medium: Medium
    address: str  # E.164, an extension, or a mail address
    language: str
    reason: Reason
    facts: Mapping[str, str] = field(default_factory=dict)


class SendUnknown(TemporaryFailure):
    """It was handed over, but no answer came: it may or may not have gone out."""


class Busy(TemporaryFailure):
    """It has not gone out: as many as the medium allows are under way. Try again in a moment."""


class Notifier(Protocol):
    """The outbound half of a medium."""

    async def send(self, notification: Notification) -> None:
        """Send it, once for its `ref` as far as the medium can tell.

        Raises:
            SendUnknown: it may have gone out: look it up before sending again.
            Busy, TemporaryFailure: it has surely not gone out; try again.
            PermanentFailure: it never will; the text is the medium's own.
        """
        ...

    async def find(self, ref: str) -> Trace:
        """Look up what became of `ref`.

        Raises:
            TemporaryFailure: the medium cannot be asked now.
        """
        ...

    async def stop(self, refs: Collection[str]) -> None:
        """Take back what has not been picked up yet, as far as that is possible.

        Raises:
            TemporaryFailure: the medium cannot be asked now.
        """
        ...


Notifiers = Mapping[Medium, Notifier]
