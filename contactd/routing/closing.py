"""What the requester hears of their ticket, what they are asked, and when it closes (pure).

Source: requirements B7 and B9. The journal says what the requester has been told, when the ticket
was resolved and how often they were asked since; a reopened ticket begins anew. Nobody is called
at night.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from enum import StrEnum
from typing import Final
from zoneinfo import ZoneInfo

from contactd.routing.wallclock import instant
from contactd.tickets.contact import Medium, Writer
from contactd.tickets.journal import Entry
from contactd.tickets.model import ENGINEER
from contactd.tickets.states import State

ASKED: Final = "confirm.asked"
TOLD: Final = "requester.told"  # of a stage: body stage, engineer, note, entry
TOLD_AGAIN_AFTER: Final = timedelta(minutes=10)  # of a ticket; only who takes it is told at once
STALE: Final = timedelta(hours=1)  # what happened longer ago is no news
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


# What the requester hears unasked


def confirmed_by(entry: Entry, now: datetime) -> Medium | None:
    """Return by what the requester is told that their ticket was opened: as they wrote.

    None if nobody is: who called has heard it, who used the web sees it, and no machine is ever
    answered (RFC 3834 section 2), nor whom a forged mail is said to be from.
    """
    body = entry.body
    medium = Medium(body["medium"])
    wrote = medium is Medium.TEXT or (
        medium is Medium.MAIL
        and body.get("writer") == Writer.PERSON.value
        and not body.get("forged")
    )
    return medium if wrote and entry.at > now - STALE else None


class Stage(StrEnum):
    """How a ticket goes on, as its requester sees it."""

    TAKEN = "taken"
    ON_WAY = "on_way"
    ARRIVED = "arrived"
    HELD = "held"
    RESUMED = "resumed"
    UPDATED = "updated"  # in the words of who works on it


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What the requester has not heard yet."""

    stage: Stage
    engineer: str = ""  # key, "" if it does not matter who
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Telling:
    news: News
    entry: int  # of the journal
    number: int  # 1, 2, 3, … of the ticket's
    due_at: datetime


def next_telling(journal: Iterable[Entry]) -> Telling | None:
    """Return what to tell the requester next, and when; None: they know.

    Only the latest stage counts. What they were told already is no news until something else was;
    nor is what they have heard from the engineer: on the telephone, or with the arrival code.
    """
    told: News | None = None
    told_at: datetime | None = None
    coming: Telling | None = None
    number = 1
    for entry in journal:
        if entry.action in _NEW_STATES:
            told, coming = None, None
        elif entry.action == TOLD:
            told, told_at, coming, number = _told(entry), entry.at, None, number + 1
        elif (news := _news(entry)) is None:
            continue
        elif _has_heard(entry):
            told, coming = news, None
        elif news == told or _undoes(news, told):
            coming = None
        else:
            due_at = _due_at(news, entry, told_at)
            coming = Telling(news=news, entry=entry.seq, number=number, due_at=due_at)
    return coming


def _due_at(news: News, entry: Entry, told_at: datetime | None) -> datetime:
    if news.stage is Stage.TAKEN or told_at is None:
        return entry.at
    return max(entry.at, told_at + TOLD_AGAIN_AFTER)


def _news(entry: Entry) -> News | None:
    made = _STAGES.get(entry.action)
    return made(entry) if made else None


def _by(stage: Stage) -> Callable[[Entry], News]:
    """Return what makes news of what an engineer did; the desk may write it down for them."""

    def news(entry: Entry) -> News:
        actor = entry.actor.removeprefix(ENGINEER) if entry.actor.startswith(ENGINEER) else ""
        return News(stage=stage, engineer=str(entry.body.get("engineer") or actor))

    return news


def _said(stage: Stage) -> Callable[[Entry], News | None]:
    """Return what makes news of somebody's words; without any there is nothing to tell."""

    def news(entry: Entry) -> News | None:
        note = str(entry.body.get("note", ""))
        return News(stage=stage, note=note) if note or stage is Stage.HELD else None

    return news


def _handed_over(entry: Entry) -> News | None:
    """Make news of another engineer; of a ticket that nobody has taken yet there is none."""
    return _by(Stage.TAKEN)(entry) if entry.state != State.NEW else None


def _resumed(_entry: Entry) -> News:
    return News(stage=Stage.RESUMED)


_STAGES: Final[Mapping[str, Callable[[Entry], News | None]]] = {
    "acknowledged": _by(Stage.TAKEN),
    "assigned": _by(Stage.TAKEN),
    "handed_over": _handed_over,
    "on_my_way": _by(Stage.ON_WAY),
    "dispatch.on_way": _by(Stage.ON_WAY),
    "dispatch.arrived": _by(Stage.ARRIVED),
    "held": _said(Stage.HELD),
    "resumed": _resumed,
    "updated": _said(Stage.UPDATED),
}
# Of these the requester hears otherwise, and everything after them is new.
_NEW_STATES: Final = frozenset({"resolved", "reopened", "closed", "cancelled"})
# By these they have spoken to each other, or the requester has got a code with a name.
_HEARD_HOW: Final = frozenset({"call", "answer", "dispatch"})


def _undoes(news: News, told: News | None) -> bool:
    """Return whether work goes on of which the requester never heard that it rested."""
    return news.stage is Stage.RESUMED and (told is None or told.stage is not Stage.HELD)


def _has_heard(entry: Entry) -> bool:
    return entry.action in ("acknowledged", "assigned") and entry.body.get("how") in _HEARD_HOW


def told_body(telling: Telling) -> dict[str, str | int]:
    """Return the body of the entry that says what the requester was told."""
    news = telling.news
    body: dict[str, str | int] = {"stage": news.stage.value, "entry": telling.entry}
    return body | {
        name: value for name, value in (("engineer", news.engineer), ("note", news.note)) if value
    }


def _told(entry: Entry) -> News:
    body = entry.body
    return News(
        stage=Stage(body["stage"]),
        engineer=str(body.get("engineer", "")),
        note=str(body.get("note", "")),
    )
