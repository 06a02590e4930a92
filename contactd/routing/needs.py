"""Whether somebody has to hear of a ticket: read from its journal (pure).

A requester who wrote, or who called and spoke to nobody, is a need. It is met once somebody takes
the ticket, or speaks to the requester, after it arose: whoever had the ticket before does not know
of it. Who hung up by themselves get a while to call again before anybody is rung, and while they
are in the line again the queue rings people.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from contactd.routing.closing import WISHES
from contactd.routing.notify import Reason
from contactd.tickets.contact import Medium, Outcome
from contactd.tickets.journal import Entry, asks_nothing
from contactd.tickets.model import RATED
from contactd.tickets.texting import Says

ENGINEER_LEFT: Final = "engineer.left"  # who had it is in no desk file any more
HAND_OVER_DECLINED: Final = "hand_over.declined"  # by whom it was given to while off duty

_GAVE_UP: Final = frozenset(
    {Outcome.ABANDONED_GREETING, Outcome.ABANDONED_MENU, Outcome.ABANDONED_QUEUE}
)
_CONTENT: Final = frozenset(
    {Outcome.ANSWERED, Outcome.SELF_SERVICE, Outcome.RECEIVED, Outcome.NO_ANSWER, Outcome.BUSY}
)  # or a call of ours, which nobody waits for
REPLY_HEARD: Final = "reply.heard"  # its sender was told what became of it: body contact, heard
# What a text says that nobody need hear of: a question is answered by ourselves.
_NOT_ASKED: Final = {"opened": WISHES, "contact.added": WISHES | {Says.STATUS}}
_HEARD_WITHIN: Final = timedelta(minutes=1)  # by then a mail has done what it says: "OK", "take"
_IN_LINE: Final = timedelta(minutes=10)  # a call whose end was not heard by then is given up


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """`entry` is the place of the journal entry that it arose from; `contact` "" if from none."""

    reason: Reason
    since: datetime
    due_at: datetime  # when people are told
    entry: int
    contact: str = ""


def latest(journal: Iterable[Entry], *, redial_within: timedelta) -> tuple[Need | None, bool]:
    """Return the last need that arose, and whether it is still unmet.

    `redial_within` is the time in which somebody who hung up is left to call again.
    """
    need: Need | None = None
    is_open = False
    spoken: set[str] = set()  # contacts in which somebody answered
    needed: set[str] = set()  # contacts that were a need: their facts may be corrected later
    in_line: dict[str, datetime] = {}  # calls that have not ended, and when they came in
    for entry in journal:
        if entry.action == "call.answered":
            spoken.add(entry.body["contact"])
        _follow_line(in_line, entry)
        if need is not None and meets(entry, need):
            is_open = False
        arises = _ARISES.get(entry.action)
        found = arises(entry, spoken, redial_within) if arises else None
        if found is not None and found.contact not in needed:
            need, is_open = found, True
            needed |= {found.contact} - {""}
    if need is not None and need.reason is Reason.MISSED and in_line:
        need = replace(need, due_at=max(need.due_at, max(in_line.values()) + _IN_LINE))
    return need, is_open


def asks_nobody(entry: Entry) -> bool:
    """Return whether a contact wants nothing that a person has to do."""
    return asks_nothing(entry) or entry.body.get("says") in _NOT_ASKED.get(entry.action, ())


def meets(entry: Entry, need: Need) -> bool:
    """Return whether an entry says that `need` is met: not what happened before it arose."""
    check = _MEETS.get(entry.action)
    return check is not None and check(entry, need)


def _follow_line(in_line: dict[str, datetime], entry: Entry) -> None:
    body = entry.body
    if entry.action in ("opened", "contact.added") and body["medium"] == Medium.CALL:
        in_line[body["contact"]] = datetime.fromisoformat(body["received_at"])
    elif entry.action in ("call.ended", "ticket.separated"):
        in_line.pop(body["contact"], None)


def _written(entry: Entry, _spoken: set[str], _redial_within: timedelta) -> Need | None:
    if entry.body["medium"] == Medium.CALL:
        return None  # the queue rings people for as long as it goes on
    if asks_nobody(entry):
        return None
    return Need(
        reason=Reason.NEW,
        since=datetime.fromisoformat(entry.body["received_at"]),
        due_at=entry.at + (_HEARD_WITHIN if entry.body.get("reply") else timedelta()),
        entry=entry.seq,
        contact=entry.body["contact"],
    )


def _ended(entry: Entry, spoken: set[str], redial_within: timedelta) -> Need | None:
    body, outcome = entry.body, Outcome(entry.body["outcome"])
    left_message = outcome is Outcome.VOICEMAIL or body.get("voicemail", False)
    if not left_message and (outcome in _CONTENT or body["contact"] in spoken):
        return None
    ended_at = datetime.fromisoformat(body["ended_at"]) if body["ended_at"] else entry.at
    return Need(
        reason=Reason.VOICEMAIL if left_message else Reason.MISSED,
        since=ended_at,
        due_at=max(ended_at + redial_within, entry.at) if outcome in _GAVE_UP else entry.at,
        entry=entry.seq,
        contact=body["contact"],
    )


def _at_once(reason: Reason) -> Callable[[Entry, set[str], timedelta], Need]:
    def arises(entry: Entry, _spoken: set[str], _redial_within: timedelta) -> Need:
        return Need(reason=reason, since=entry.at, due_at=entry.at, entry=entry.seq)

    return arises


_ARISES: Final[Mapping[str, Callable[[Entry, set[str], timedelta], Need | None]]] = {
    "opened": _written,
    "contact.added": _written,
    "call.ended": _ended,
    "call.corrected": _ended,
    "reopened": _at_once(Reason.REOPENED),
    ENGINEER_LEFT: _at_once(Reason.NEW),
    HAND_OVER_DECLINED: _at_once(Reason.NEW),
}


def _always(_entry: Entry, _need: Need) -> bool:
    return True


def _since(key: str) -> Callable[[Entry, Need], bool]:
    def since(entry: Entry, need: Need) -> bool:
        at = entry.body.get(key)
        return (datetime.fromisoformat(at) if at else entry.at) >= need.since

    return since


def _of_the_contact(entry: Entry, need: Need) -> bool:
    return bool(entry.body["contact"] == need.contact)


_MEETS: Final[Mapping[str, Callable[[Entry, Need], bool]]] = {
    "call.answered": _since("answered_at"),
    "answered": _since("answered_at"),
    "acknowledged": _since("acknowledged_at"),
    "assigned": _since("acknowledged_at"),
    "page.taken": _always,
    "escalation.acknowledged": _always,
    "handed_over": _always,
    "ticket.separated": _of_the_contact,
    RATED: _of_the_contact,
    REPLY_HEARD: _of_the_contact,
    "resolved": _always,
    "closed": _always,
    "cancelled": _always,
}
