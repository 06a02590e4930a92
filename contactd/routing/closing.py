"""What the requester is asked once a ticket is resolved, and when it closes by itself (pure).

Source: requirement B9. The journal says when it was resolved and how often the requester was
asked since; a reopened ticket begins anew. Nobody is called at night.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from enum import StrEnum
from typing import Final
from zoneinfo import ZoneInfo

from contactd.routing.wallclock import instant
from contactd.tickets.journal import Entry
from contactd.tickets.states import State

ASKED: Final = "confirm.asked"
CALLS_FROM: Final = time(8)  # local; no source but good manners
CALLS_UNTIL: Final = time(20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """How the requester's word is waited for; both lengths count from when it was resolved.

    Raises:
        ValueError: the times make no sense; one line for each, with its name.
    """

    remind_after: timedelta = timedelta(days=1)  # and again after each
    reminders: int = 2
    close_after: timedelta = timedelta(days=3)

    def __post_init__(self) -> None:
        checks = {
            "closing.remind_after: must be longer than 0": self.remind_after > timedelta(),
            "closing.reminders: must not be negative": self.reminders >= 0,
            "closing.close_after: must be later than the last reminder": (
                self.close_after > self.reminders * self.remind_after
            ),
        }
        if wrong := [line for line, holds in checks.items() if not holds]:
            raise ValueError("\n".join(wrong))


class Act(StrEnum):
    ASK = "ask"
    REMIND = "remind"
    CLOSE = "close"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    act: Act
    due_at: datetime


def next_step(journal: Iterable[Entry], closing: Closing) -> Step | None:
    """Return what comes next for a ticket that waits for its requester's word, else None.

    However late it is looked at, there is `remind_after` between one question and the next, and
    before the end. Who writes meanwhile has the whole time again.
    """
    since, asked_at, asked, state = None, None, 0, ""
    for entry in journal:
        state = entry.state
        if entry.action == "resolved":
            since, asked_at, asked = entry.at, None, 0
        elif entry.action == "contact.added" and since is not None:
            since = entry.at
        elif entry.action == ASKED:
            asked_at, asked = entry.at, asked + 1
    if since is None or state != State.RESOLVED:
        return None
    if asked_at is None:
        return Step(act=Act.ASK, due_at=since)
    is_last = asked > closing.reminders
    wait = closing.close_after if is_last else asked * closing.remind_after
    due_at = max(since + wait, asked_at + min(closing.remind_after, wait))
    return Step(act=Act.CLOSE if is_last else Act.REMIND, due_at=due_at)


def may_call(at: datetime, zone: str) -> datetime:
    """Return `at`, or the first instant after it at which a person at `zone` may be rung."""
    place = ZoneInfo(zone)
    local = at.astimezone(place)
    if local.time() < CALLS_FROM:
        return instant(local.date(), CALLS_FROM, place)
    if local.time() >= CALLS_UNTIL:
        return instant(local.date() + timedelta(days=1), CALLS_FROM, place)
    return at
