"""What the requester hears of their ticket, what they are asked, and when it closes (pure).

Source: requirements B7, B9 and B10. The journal says what the requester has been told, when the
ticket was resolved and how often they were asked since; a reopened ticket begins anew. Nobody is
called at night, nor sent a text that can wait.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from enum import StrEnum
from typing import Final
from zoneinfo import ZoneInfo

from contactd.routing.wallclock import instant
from contactd.tickets.contact import PORTAL, Medium, Writer
from contactd.tickets.journal import Entry
from contactd.tickets.model import ENGINEER, RATED
from contactd.tickets.states import State
from contactd.tickets.texting import Says

ASKED: Final = "confirm.asked"
TOLD: Final = "requester.told"  # of a stage: body stage, engineer, note, entry
TOLD_AGAIN_AFTER: Final = timedelta(minutes=10)  # of a ticket; only who takes it is told at once
WISHES: Final = frozenset({Says.STOP, Says.START})  # of texts: nobody need hear of them
STALE: Final = timedelta(hours=1)  # what happened longer ago is no news
CALLS_FROM: Final = time(8)  # local; no source but good manners
CALLS_UNTIL: Final = time(20)
SURVEYED: Final = "survey.asked"  # for a mark: body reached
LOW: Final = "survey.low"  # a mark that quality has to look into: body mark
LOW_UNTIL: Final = 2  # of 1 to 5; no source: three is neither good nor bad
SURVEY_STALE: Final = timedelta(days=7)  # whoever is asked later does not know any more


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """How the requester's word is waited for; the first lengths count from when it was resolved.

    Raises:
        ValueError: the times make no sense; one line for each, with its name.
    """

    remind_after: timedelta = timedelta(days=1)  # and again after each
    reminders: int = 2
    close_after: timedelta = timedelta(days=3)
    survey_after: timedelta = timedelta(days=1)  # after it was closed; 0: nobody is asked

    def __post_init__(self) -> None:
        checks = {
            "closing.remind_after: must be longer than 0": self.remind_after > timedelta(),
            "closing.reminders: must not be negative": self.reminders >= 0,
            "closing.close_after: must be later than the last reminder": (
                self.close_after > self.reminders * self.remind_after
            ),
            "closing.survey_after: must not be negative": self.survey_after >= timedelta(),
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


def survey_due(journal: Iterable[Entry], closing: Closing) -> datetime | None:
    """Return when the requester is asked for a mark; None: never, they were, or they gave one.

    Nobody is asked about what was not resolved, or what only machines have written about.
    """
    closed_at, state = None, ""
    is_resolved = by_a_person = False
    for entry in journal:
        state = entry.state
        if entry.action in (SURVEYED, RATED):
            return None
        if entry.action == "closed":
            closed_at = entry.at
        is_resolved = is_resolved or entry.action == "resolved"
        by_a_person = by_a_person or _is_of_a_person(entry)
    if not (is_resolved and by_a_person and closing.survey_after) or state != State.CLOSED:
        return None
    return closed_at + closing.survey_after if closed_at is not None else None


def _is_of_a_person(entry: Entry) -> bool:
    body = entry.body
    if entry.action not in ("opened", "contact.added") or body.get("engineer"):
        return False
    return body["medium"] != Medium.MAIL or _is_by_hand(entry)


def _is_by_hand(entry: Entry) -> bool:
    """Return whether a mail was written by whom it says, and not by a program."""
    is_person = entry.body.get("writer") == Writer.PERSON.value
    return is_person and not entry.body.get("forged")


# When nobody is disturbed


@dataclass(frozen=True, slots=True, kw_only=True)
class Quiet:
    """The hours of each day in which nobody is disturbed; `starts` is `ends`: there are none."""

    starts: time
    ends: time

    def over(self, at: datetime, zone: str) -> datetime:
        """Return `at`, or the first instant after it at which it is not quiet at `zone`."""
        place = ZoneInfo(zone)
        local = at.astimezone(place)
        has_begun, is_over = local.time() >= self.starts, local.time() >= self.ends
        is_night = self.ends < self.starts
        if not (has_begun or not is_over if is_night else has_begun and not is_over):
            return at
        return instant(local.date() + timedelta(days=int(is_over)), self.ends, place)


NEVER: Final = Quiet(starts=time(), ends=time())
_NO_CALLS: Final = Quiet(starts=CALLS_UNTIL, ends=CALLS_FROM)


def may_call(at: datetime, zone: str) -> datetime:
    """Return `at`, or the first instant after it at which a person at `zone` may be rung."""
    return _NO_CALLS.over(at, zone)


# What the requester hears unasked


def confirmed_by(entry: Entry, now: datetime) -> Medium | None:
    """Return by what the requester is told that their ticket was opened: as they wrote.

    None if nobody is: who called has heard it, who used the web sees it, who wants no texts gets
    none, and no machine is ever answered (RFC 3834 section 2), nor whom a forged mail is said to be
    from.
    """
    body = entry.body
    medium = Medium(body["medium"])
    wrote = medium is Medium.TEXT or (medium is Medium.MAIL and _is_by_hand(entry))
    if not wrote or body.get("says") in WISHES or entry.at <= now - STALE:
        return None
    return medium


def is_from_portal(entry: Entry, now: datetime) -> bool:
    """Return whether somebody has just opened the ticket on the portal, by an address of theirs."""
    is_theirs = str(entry.body["contact"]).startswith(PORTAL)
    return entry.body["medium"] == Medium.WEB and is_theirs and entry.at > now - STALE


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
