"""Facts and timers, stored in the outbox in the commit that caused them. They say *look*."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEnded:
    """The facts of a call are final: fetch its recording."""

    ticket_id: int
    contact_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MailDue:
    """A mail was filed that says more than words: it takes a ticket, confirms, or came back."""

    ticket_id: int
    contact_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TextDue:
    """A text was filed that says more than words: it takes a ticket, confirms, wants no more."""

    ticket_id: int
    contact_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketDue:
    """Something happened to a ticket, or one of its promises comes due: see what that means."""

    ticket_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EscalationDue:
    """The timer of an escalation: `timer` is `step` or `ack` (routing.escalation.Timer)."""

    ticket_id: int
    timer: str
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupDue:
    """The page of this ticket, which may speak for others, was taken or is over."""

    ticket_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DutyDue:
    """Somebody comes on duty or leaves at a site, or the rota was changed."""

    site: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeDue:
    """A notification has to be sent, or looked up if it was sent and nobody knows how it went."""

    ref: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticesStopped:
    """Notifications are no longer wanted: take back what can be taken back."""

    refs: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeDue:
    """Somebody wants to see their tickets on the portal: send them a code, if they are known."""

    challenge: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteDue:
    """A limit of time of a remote session is reached: nobody came, or nobody went on."""

    session_id: int


Event = (
    CallEnded
    | MailDue
    | TextDue
    | TicketDue
    | EscalationDue
    | GroupDue
    | DutyDue
    | NoticeDue
    | NoticesStopped
    | CodeDue
    | RemoteDue
)

KINDS: Final[dict[str, type[Event]]] = {
    kind.__name__: kind
    for kind in (
        CallEnded, MailDue, TextDue, TicketDue, EscalationDue, GroupDue, DutyDue, NoticeDue,
        NoticesStopped, CodeDue, RemoteDue,
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """An event with the instant from which it is due, and an optional key that makes it unique."""

    event: Event
    due_at: datetime
    dedup_key: str | None = None
