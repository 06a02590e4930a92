"""What a notification is: one message to one person, and what may become of it (pure).

A notification is stored in the commit that decided on it, together with the event that sends it.
Sending marks it `SENDING` first; who finds it so again cannot know whether it went out, and looks
it up by its `ref` before anything is sent a second time.
"""

import re
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Protocol

from contactd.errors import TemporaryFailure
from contactd.tickets import signing
from contactd.tickets.contact import Medium
from contactd.tickets.priority import Priority
from contactd.tickets.signing import Purpose

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
    RECEIVED = "received"  # what they wrote has a ticket
    PROGRESS = "progress"  # facts stage (closing.Stage), engineer, note
    HEARD = "heard"  # what became of a reply: fact heard (a state, or why it changed nothing)
    CODE = "code"  # the engineer who arrives asks for it: facts engineer, code
    SOLVED = "solved"  # please confirm; by call: 1 solved, 2 not
    REMINDER = "reminder"  # the same, again
    CLOSED = "closed"
    SURVEY = "survey"  # the day after: a mark from 1 to 5 (B10)
    SAID = "said"  # somebody of the desk writes to them: fact note
    LOGIN = "login"  # the code for their tickets on the portal: facts code, minutes
    REMOTE = "remote"  # where they begin remote help: facts link, minutes, until (ISO 8601)


ANSWERED_BY_KEY: Final = frozenset(
    {
        Reason.NEW, Reason.MISSED, Reason.VOICEMAIL, Reason.REOPENED, Reason.ASSIGNED,
        Reason.DISPATCH,
    }
)  # fmt: skip


# To the requester: asks for their word.
ASKS: Final = frozenset({Reason.SOLVED, Reason.REMINDER})
ANSWERED_WITHIN: Final = timedelta(days=14)  # by a reply that names no ticket
# To the requester: to know, and of no use later. What a machine says unasked has a limit.
COURTESIES: Final = frozenset({Reason.RECEIVED, Reason.PROGRESS, Reason.HEARD})
# By text or mail only, whoever they are for.
NEVER_RING: Final = COURTESIES | {Reason.SURVEY, Reason.SAID, Reason.LOGIN, Reason.REMOTE}
# A text of these does not come at night, unless the ticket is urgent: the others answer what
# somebody has just done, or say that somebody is at the door.
CAN_WAIT: Final = ASKS | {Reason.PROGRESS, Reason.CLOSED, Reason.SURVEY}
URGENT: Final = frozenset({Priority.P1, Priority.P2})
MOST_COURTESIES: Final = 6  # to one address, about all of a requester's tickets
COURTESIES_WITHIN: Final = timedelta(hours=1)

LINK_LASTS: Final = timedelta(days=14)  # from when the message was sent
# What the page behind a message's links offers: the keys of a call (`FollowUp.answer`, `confirm`).
OFFERS: Final[Mapping[Reason, tuple[str, ...]]] = {
    **dict.fromkeys(sorted(ANSWERED_BY_KEY), ("1", "4", "2")),
    **dict.fromkeys(sorted(ASKS), ("1", "2")),
}


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


class Quota:
    """How many courtesies an address gets in an hour: `MOST_COURTESIES`.

    It is the brake of a loop between machines that none of the signs of one has stopped. Each
    process counts for itself and begins anew with a restart.
    """

    def __init__(self) -> None:
        self._order: deque[tuple[datetime, str, str]] = deque()  # when, address, ref
        self._refs: dict[str, set[str]] = {}  # by address

    def take(self, address: str, ref: str, now: datetime) -> bool:
        """Count a message; return False if it is one too many. The same one counts once."""
        while self._order and self._order[0][0] <= now - COURTESIES_WITHIN:
            _, old, gone = self._order.popleft()
            self._refs[old].discard(gone)
            if not self._refs[old]:
                del self._refs[old]
        mine = self._refs.get(address, set())
        if ref in mine:
            return True
        if len(mine) >= MOST_COURTESIES:
            return False
        self._refs.setdefault(address, set()).add(ref)
        self._order.append((now, address, ref))
        return True


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


# What a message is called where only some signs may stand: in a link, an address, a Message-ID


_NAME: Final = re.compile(r"[a-z0-9-]{1,80}")  # what `signing.sign` takes


def name_of(ref: str) -> str:
    """Return what stands for a `ref` in a token, "" if nothing can.

    A `ref` is made of keys: the only sign in it that a token cannot have is the underscore.
    """
    name = ref.replace("z", "zz").replace("_", "zu")
    return name if _NAME.fullmatch(name) else ""


def named(name: str) -> str:
    """Return the `ref` that `name_of` has made `name` of."""
    return re.sub(r"z([zu])", lambda found: {"z": "z", "u": "_"}[found[1]], name)


def link(key: bytes, ref: str) -> str:
    """Return the token of the page where the message `ref` is answered; "" if there can be none."""
    name = name_of(ref)
    return signing.sign(key, Purpose.LINK, name) if name else ""


def linked(key: bytes, token: str) -> str | None:
    """Return the `ref` of the message whose page a token opens; None if we did not make it."""
    name = signing.verify(key, Purpose.LINK, token)
    return None if name is None else named(name)


TICKET_LINKS: Final = "/help/t"  # where the page of one ticket is, for its requester


def ticket_link(key: bytes, name: str, until: datetime) -> str:
    """Return the path of a ticket's page on the portal; it needs nothing else until `until`."""
    return f"{TICKET_LINKS}/{signing.sign_until(key, Purpose.TICKET, name, until)}"
