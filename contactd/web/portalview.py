"""What a requester sees of their ticket (pure): how it stands, and what happened, in plain words.

Only what is named here is shown: their own contacts, what was written to them, and the stages that
they are told of anyway. Notes, other people, numbers of engineers and recordings never are.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from contactd.errors import ConfigurationError
from contactd.routing import promises
from contactd.routing.clocks import State as ClockState
from contactd.routing.promises import WRITTEN_TO
from contactd.routing.terms import Terms
from contactd.store.views import AttachmentView, ContactView, TicketDetail
from contactd.tickets import phone
from contactd.tickets.contact import PORTAL, Direction, Medium, Writer
from contactd.tickets.journal import REQUESTER, Entry
from contactd.tickets.model import CALL_BACK_ASKED, ENGINEER, RATED, REMOTE_ASKED, Promise
from contactd.tickets.states import OPEN, State
from contactd.web.i18n import Say
from contactd.web.portalaccess import Access
from contactd.web.words import N_

# A browser may show these in place; everything else it must save.
PICTURES: Final = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
_SHARED: Final = frozenset({"attachment", "inline"})  # kinds of files that are the requester's own

PROMISES: Final[Mapping[Promise, str]] = {
    Promise.ANSWER: N_("An engineer answers you"),
    Promise.FIRST_UPDATE: N_("You hear how it stands"),
    Promise.REMOTE: N_("Remote help begins"),
    Promise.ARRIVAL: N_("An engineer is on site"),
    Promise.RESOLUTION: N_("It is solved"),
}
STATES: Final[Mapping[State, str]] = {
    State.NEW: N_("Received"),
    State.IN_PROGRESS: N_("Being worked on"),
    State.PENDING: N_("Waiting"),
    State.RESOLVED: N_("Solved?"),
    State.CLOSED: N_("Closed"),
    State.CANCELLED: N_("Cancelled"),
}
_STANDS: Final[Mapping[State, str]] = {
    State.NEW: N_("We have your report, and an engineer is being told."),
    State.IN_PROGRESS: N_("An engineer is working on it."),
    State.PENDING: N_("It has to wait for something. We go on as soon as that is there."),
    State.RESOLVED: N_("We think that it is solved. Is it?"),
    State.CLOSED: N_("It is solved and closed."),
    State.CANCELLED: N_("This ticket was cancelled."),
}
_WORKED_ON_BY: Final = N_("%(engineer)s is working on it.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One line of the time line. `note` are somebody's own words."""

    at: datetime
    is_own: bool
    text: str
    note: str = ""
    files: tuple[AttachmentView, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a ticket stands, and what its requester may do now."""

    state: State
    text: str
    is_open: bool
    asks: bool  # whether it is solved
    rates: bool  # for a mark
    waits_for_remote: bool


def standing(detail: TicketDetail, say: Say) -> Standing:
    ticket = detail.ticket
    name = ticket.engineer_name if ticket.acknowledged_at else ""
    has_name = ticket.state is State.IN_PROGRESS and name
    words = say(_WORKED_ON_BY, engineer=name) if has_name else say(_STANDS[ticket.state])
    actions = [entry.action for entry in detail.journal]
    return Standing(
        state=ticket.state,
        text=words,
        is_open=ticket.state in OPEN,
        asks=ticket.state is State.RESOLVED,
        rates=ticket.state is State.CLOSED and RATED not in actions,
        waits_for_remote=_last_of(actions, REMOTE_ASKED) > _last_of(actions, "remote.started"),
    )


def _last_of(actions: Sequence[str], wanted: str) -> int:
    return max((place for place, each in enumerate(actions) if each == wanted), default=-1)


def items(detail: TicketDetail, access: Access, names: Mapping[str, str], say: Say) -> list[Item]:
    """Return what happened, the newest first."""
    stages = _stages(detail.journal, names, say)
    if not access.is_proved:  # our words are for the requester, who may be somebody else
        stages = (replace(stage, note="") for stage in stages)
    found = [*_contacts(detail, access, say), *stages]
    return sorted(found, key=lambda item: item.at)[::-1]  # of one instant the last is the newest


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A promise that has still to be kept; `due_at` None: it rests."""

    metric: Promise
    due_at: datetime | None
    is_late: bool


def promised(journal: Sequence[Entry], terms: Terms, now: datetime) -> list[Due]:
    """Return what the requester was promised and has not got yet, the next first."""
    if not journal or journal[-1].state not in _WORKED_ON:
        return []  # nobody waits for it any more
    try:
        found = promises.clocks(journal, terms)
    except (ValueError, ConfigurationError):
        return []  # the desk's own page says why
    dues = [
        Due(
            metric=Promise(clock.metric.value),
            due_at=clock.due_at if clock.state is ClockState.RUNNING else None,
            is_late=promises.breached_at(clock, now) is not None,
        )
        for clock in found
        if clock.state in _UNTIL_NOW and clock.metric.value in PROMISES
    ]
    return sorted(dues, key=lambda due: (due.due_at is None, due.due_at or now))


_WORKED_ON: Final = frozenset({State.NEW, State.IN_PROGRESS, State.PENDING})
_UNTIL_NOW: Final = frozenset({ClockState.RUNNING, ClockState.PAUSED})

# What they said themselves

_SAID: Final[Mapping[Medium, str]] = {
    Medium.CALL: N_("You called us"),
    Medium.MAIL: N_("You wrote an e-mail"),
    Medium.TEXT: N_("You sent a text"),
    Medium.WEB: N_("You wrote to us here"),
}


def is_own(detail: TicketDetail, access: Access, contact: ContactView) -> bool:
    """Return whether a contact is the visitor's: the requester's, or written on this very page.

    Who has only said who they are sees what opened the ticket, and what they wrote since.
    """
    here = contact.external_id.startswith(access.mark)
    if not access.is_proved:
        return here or contact.id == reported(detail)
    theirs = contact.person_id == detail.requester.id
    by_hand = contact.mail is None or contact.mail.writer is Writer.PERSON
    forged = contact.mail is not None and contact.mail.forged
    is_in = contact.direction is Direction.IN and contact.medium in _SAID
    return is_in and by_hand and not forged and (theirs or here)


def reported(detail: TicketDetail) -> int:
    """Return the id of the report that opened the ticket, 0 if none of the portal did."""
    first = detail.journal[0].body.get("contact", "") if detail.journal else ""
    found = (each.id for each in detail.contacts if each.external_id == first)
    return next(found, 0) if str(first).startswith(PORTAL) else 0


def numbers(detail: TicketDetail, access: Access) -> list[str]:
    """Return the numbers on which the visitor may be called, without giving another one."""
    if access.is_proved:
        return list(detail.requester.numbers)
    theirs = reported(detail)
    typed = [phone.address(each.from_value) for each in detail.contacts if each.id == theirs]
    return [number for number in typed if number]


def shared_files(contact: ContactView) -> tuple[AttachmentView, ...]:
    """Return the files that somebody added: no recording, no mail as it came."""
    return tuple(file for file in contact.attachments if file.kind in _SHARED)


def _said(detail: TicketDetail, contact: ContactView) -> str:
    is_report = contact.id == reported(detail)
    return N_("You reported it here") if is_report else _SAID[contact.medium]


def _contacts(detail: TicketDetail, access: Access, say: Say) -> Iterator[Item]:
    for contact in detail.contacts:
        if is_own(detail, access, contact):
            is_call = contact.medium is Medium.CALL
            yield Item(
                at=contact.received_at,
                is_own=True,
                text=say(_said(detail, contact)),
                note="" if is_call else _without_quotes(contact),
                files=() if is_call else shared_files(contact),
            )


def _without_quotes(contact: ContactView) -> str:
    """Return the words of a contact without the earlier mails that it quotes."""
    end, parts = 0, []
    for start, stop in contact.mail.folds if contact.mail is not None else ():
        parts.append(contact.text[end:start])
        end = stop
    return "".join([*parts, contact.text[end:]]).strip()


# What became of it

Tell = Callable[[Entry, str, Say], tuple[str, str] | None]


def _plain(words: str) -> Tell:
    def tell(_entry: Entry, _name: str, say: Say) -> tuple[str, str]:
        return say(words), ""

    return tell


def _named(words: str, nameless: str) -> Tell:
    def tell(_entry: Entry, name: str, say: Say) -> tuple[str, str]:
        return (say(words, engineer=name) if name else say(nameless)), ""

    return tell


def _noted(words: str) -> Tell:
    """Return what tells a stage with the words that the requester was sent of it."""

    def tell(entry: Entry, _name: str, say: Say) -> tuple[str, str]:
        return say(words), str(entry.body.get("note") or "")

    return tell


def _own_note(words: str, ours: str) -> Tell:
    """Return what tells of what the requester did, with their words; ours stay with us."""

    def tell(entry: Entry, _name: str, say: Say) -> tuple[str, str]:
        is_theirs = entry.actor == REQUESTER
        return say(words if is_theirs else ours), str(
            (entry.body.get("note") or "") if is_theirs else ""
        )

    return tell


def _rated(entry: Entry, _name: str, say: Say) -> tuple[str, str]:
    return say(N_("You gave the mark %(mark)s of 5"), mark=str(entry.body["mark"])), ""


def _cancelled(entry: Entry, _name: str, say: Say) -> tuple[str, str]:
    if into := entry.body.get("into"):
        return say(N_("It goes on as ticket %(ticket)s"), ticket=str(into)), ""
    return say(N_("The ticket was cancelled")), ""


def _remote_over(entry: Entry, _name: str, say: Say) -> tuple[str, str] | None:
    """Tell that remote help ended, if it ever began."""
    return (say(N_("Remote help ended")), "") if "lasted_s" in entry.body else None


def _call_back(entry: Entry, _name: str, say: Say) -> tuple[str, str]:
    return say(N_("You asked to be called back")), str(entry.body.get("wished") or "")


_TAKEN: Final = _named(
    N_("%(engineer)s takes care of it"), N_("An engineer takes care of it")
)  # fmt: skip
_SPOKEN: Final = _named(N_("%(engineer)s spoke to you"), N_("An engineer spoke to you"))
_STAGES: Final[Mapping[str, Tell]] = {
    "acknowledged": _TAKEN,
    "assigned": _TAKEN,
    "handed_over": _TAKEN,
    "call.answered": _SPOKEN,
    "answered": _SPOKEN,
    "on_my_way": _named(
        N_("%(engineer)s is on the way to you"), N_("An engineer is on the way to you")
    ),
    "dispatch.accepted": _named(N_("%(engineer)s will come to you"), N_("An engineer will come")),
    "dispatch.on_way": _named(
        N_("%(engineer)s is on the way to you"), N_("An engineer is on the way to you")
    ),
    "dispatch.arrived": _named(N_("%(engineer)s has arrived"), N_("The engineer has arrived")),
    "dispatch.done": _plain(N_("The work on site is done")),
    "held": _noted(N_("It has to wait")),
    "resumed": _plain(N_("Work goes on")),
    "updated": _noted(N_("News")),
    WRITTEN_TO: _noted(N_("We wrote to you")),
    "resolved": _plain(N_("We think that it is solved")),
    "reopened": _own_note(N_("You said that it is not solved"), N_("We go on with it")),
    "closed": _own_note(N_("You confirmed that it is solved"), N_("The ticket was closed")),
    "cancelled": _cancelled,
    RATED: _rated,
    REMOTE_ASKED: _plain(N_("You asked for remote help")),
    "remote.started": _plain(N_("Remote help began")),
    "remote.ended": _remote_over,
    CALL_BACK_ASKED: _call_back,
}


def _stages(journal: Sequence[Entry], names: Mapping[str, str], say: Say) -> Iterator[Item]:
    before = ""
    for entry in journal:
        tell = _STAGES.get(entry.action)
        told = tell(entry, names.get(_engineer(entry), ""), say) if tell else None
        if entry.action == "handed_over" and entry.state == State.NEW:
            continue  # who has not said anything yet
        if told is None or (told[0] == before and not told[1]):
            continue  # nobody needs to hear twice who takes care of it
        before = told[0]
        is_theirs = entry.actor == REQUESTER
        yield Item(at=entry.at, is_own=is_theirs, text=told[0], note=told[1])


def _engineer(entry: Entry) -> str:
    actor = entry.actor.removeprefix(ENGINEER) if entry.actor.startswith(ENGINEER) else ""
    return str(entry.body.get("engineer") or actor)


def engineers(journal: Sequence[Entry]) -> set[str]:
    """Return the keys of the engineers whose names are shown."""
    return {_engineer(entry) for entry in journal if entry.action in _STAGES} - {""}
