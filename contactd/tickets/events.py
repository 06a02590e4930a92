"""Facts and timers, stored in the outbox in the commit that caused them. They say *look*."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEnded:
    """The facts of a call are final: fetch its recording, page somebody if nobody took it."""

    ticket_id: int
    contact_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PageDue:
    """Somebody has to hear of a contact: ring the next one of those on duty.

    `reason` is the prompt that says what it is about (`page-voicemail`, `page-missed`). `step`
    counts the people who were rung; `since` is the step at which this round of rounds began.
    """

    ticket_id: int
    contact_id: int
    step: int
    reason: str
    since: int = 0


Event = CallEnded | PageDue

KINDS: Final[dict[str, type[Event]]] = {kind.__name__: kind for kind in (CallEnded, PageDue)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """An event with the instant from which it is due, and an optional key that makes it unique."""

    event: Event
    due_at: datetime
    dedup_key: str | None = None
