"""The ticket and everything that is decided about it: values in, values out (pure)."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from contactd.errors import ActionNotAllowed, PermanentFailure
from contactd.tickets import journal
from contactd.tickets.contact import (
    CallFacts,
    Contact,
    Direction,
    MailFacts,
    Medium,
    Outcome,
    Source,
)
from contactd.tickets.describing import Description, Standard, told
from contactd.tickets.journal import Draft, Entry, instant_text
from contactd.tickets.people import Branch, Person
from contactd.tickets.priority import MATRIX, Impact, Matrix, Priority, Urgency, priority
from contactd.tickets.states import OPEN, Action, State, next_state
from contactd.tickets.texting import Says, says


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketPolicy:
    """What an installation decides about tickets."""

    zone: str = "Asia/Shanghai"  # IANA name; the day in a ticket's number
    language: str = "zh"
    join_within: timedelta = timedelta(hours=4)  # 0: never
    default_queue: str = "desk"
    home_country: str = "CN"  # ISO 3166; how numbers without a country are read
    matrix: Matrix = field(default_factory=lambda: MATRIX)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """One ticket as it stands; `id` 0 and `number` "" mean that it is not stored yet."""

    id: int
    number: str
    requester_id: int
    site: str  # site key, "" when unknown
    state: State
    impact: Impact
    urgency: Urgency
    priority: Priority
    priority_reason: str
    title: str
    category: str  # Category, "" while nobody has said
    system: str  # business system (ERP, OA, …), "" while nobody has said
    team: str  # key of the team that is responsible, "" when none
    assignee: str  # engineer's key, "" when nobody
    opened_at: datetime
    acknowledged_at: datetime | None
    closed_at: datetime | None
    last_contact_at: datetime
    updated_at: datetime
    journal_seq: int
    journal_hash: str
    standard: Standard = field(default_factory=Standard)  # what was said of the fault
    merged_into: int = 0  # id of the ticket that has its contacts now, 0: none


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What became of a ticket, and what its journal says of it."""

    ticket: Ticket
    entries: tuple[Draft, ...] = ()


class Category(StrEnum):
    """The nature of a fault (requirement B2); what system it is about is in the desk's words."""

    HARDWARE = "hardware"
    SOFTWARE = "software"
    NETWORK = "network"
    ACCOUNT = "account"  # and permissions
    CONFIGURATION = "configuration"
    CONSUMABLES = "consumables"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """What somebody says of a ticket; None: nothing."""

    impact: Impact | None = None
    urgency: Urgency | None = None
    category: Category | None = None
    system: str | None = None
    title: str | None = None


class Promise(StrEnum):
    """What the requester was promised to happen: `routing.clocks.Metric`, as far as they know."""

    ANSWER = "answer"  # a person answers
    FIRST_UPDATE = "first_update"  # they are told how it stands
    REMOTE = "remote"  # remote help begins
    ARRIVAL = "arrival"  # an engineer is at the site
    RESOLUTION = "resolution"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Promised:
    """A promise that has still to be kept; `is_broken` once it is late, even if time was added."""

    promise: Promise
    due_at: datetime
    is_broken: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What somebody who asks for the progress of a ticket is told."""

    number: str
    state: State
    engineer: str | None  # key
    engineer_name: str | None
    promise: Promise
    promise_at: datetime | None
    overdue: bool
    zone: str  # IANA name; where the promise is spoken


_DONE: Final = {
    Action.ACKNOWLEDGE: "acknowledged",
    Action.HOLD: "held",
    Action.RESUME: "resumed",
    Action.RESOLVE: "resolved",
    Action.REOPEN: "reopened",
    Action.CLOSE: "closed",
    Action.CANCEL: "cancelled",
}
ENGINEER: Final = "engineer:"
# Promised where a site has nothing of its own; `routing` has them whatever is configured.
CONTRACT: Final = "standard"
CALENDAR: Final = "always"


def clean_line(value: str, limit: int) -> str:
    """Return `value` on one line of at most `limit` characters, without control characters.

    A caller's name comes from strangers: it may hold CR, LF, NUL or half a surrogate pair, which
    headers, logs and PostgreSQL refuse.
    """
    if len(value) <= limit and value.isprintable() and value == " ".join(value.split()):
        return value
    shown = "".join(sign if sign.isprintable() else " " for sign in value[: 4 * limit])
    return " ".join(shown.split())[:limit]


def clean_text(value: str) -> str:
    """Return `value` with its lines but without what a database cannot hold."""
    return value.replace("\x00", "").encode("utf-8", "replace").decode("utf-8")


def clean(contact: Contact) -> Contact:
    """Return `contact` as it can be stored: one-line fields cut to their columns."""
    found = {
        "external_id": _key(contact.external_id),
        "from_value": clean_line(contact.from_value, 254),
        "from_name": clean_line(contact.from_name, 254),
        "to_value": clean_line(contact.to_value, 254),
        "text": clean_text(contact.text),
    }
    changed: dict[str, Any] = {
        name: value for name, value in found.items() if getattr(contact, name) != value
    }
    return replace(contact, **changed) if changed else contact


def _key(external_id: str) -> str:
    """Return the external id as a column holds it; a longer one keeps its identity by a digest."""
    if len(external_id) <= 200 and external_id.isprintable():
        return external_id
    digest = hashlib.sha256(external_id.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{clean_line(external_id, 120)}#{digest}"


def merge(known: Contact, told: Contact) -> Contact:
    """Return what is known of one contact after it was told again.

    The PBX's records (replay) replace what was seen live, live replaces earlier live, and nothing
    that is not final replaces final facts. `source` stays: it says who brought the contact.

    Records that are read again, after a restart, may lack a call's first rows: two threads of the
    PBX write the starts of two calls in either order. So a call does not begin later than the
    records said before.
    """
    if known.mail is not None:  # a mail is what it was
        return known
    settled = known.call is not None and known.call.final
    if settled and not (told.call is not None and told.call.final):
        return known
    is_record = told.source is Source.REPLAY
    began = min(known.received_at, told.received_at) if settled else told.received_at
    return replace(
        known,
        received_at=began if is_record else known.received_at,
        from_value=_newer(known.from_value, told.from_value, is_record),
        from_name=_newer(known.from_name, told.from_name, is_record),
        to_value=_newer(known.to_value, told.to_value, is_record),
        outcome=known.outcome if told.outcome is Outcome.RECEIVED else told.outcome,
        text=known.text or told.text,
        call=_merge_call(known.call, told.call),
    )


def _newer(known: str, told: str, is_record: bool) -> str:
    return (told or known) if is_record else (known or told)


def _merge_call(known: CallFacts | None, told: CallFacts | None) -> CallFacts | None:
    if known is None or told is None or told.final:
        return told or known
    changes: dict[str, Any] = {}
    for each in fields(CallFacts):
        if (value := getattr(told, each.name)) not in (None, "", ()):
            changes[each.name] = value
    return replace(known, **changes)


def may_join(ticket: Ticket | None, contact: Contact, policy: TicketPolicy) -> bool:
    """Tell whether a repeat contact joins `ticket`, the requester's latest open one."""
    if ticket is None or ticket.state not in OPEN or not policy.join_within:
        return False
    return abs(contact.received_at - ticket.last_contact_at) <= policy.join_within


def open_ticket(
    contact: Contact, person: Person, branch: Branch | None, policy: TicketPolicy, now: datetime
) -> Decision:
    """Open a ticket for `contact`; its number, id and requester's id come when it is stored."""
    impact, urgency = Impact.PERSON, Urgency.MEDIUM  # nobody has asked yet
    level, reason = priority(impact, urgency, vip=person.vip, matrix=policy.matrix)
    ticket = Ticket(
        id=0,
        number="",
        requester_id=person.id,
        site=branch.key if branch else "",
        state=State.NEW,
        impact=impact,
        urgency=urgency,
        priority=level,
        priority_reason=reason,
        title=_title(contact),
        category="",
        system="",
        team="",
        assignee="",
        opened_at=contact.received_at,
        acknowledged_at=None,
        closed_at=None,
        last_contact_at=contact.received_at,
        updated_at=now,
        journal_seq=0,
        journal_hash="",
    )
    body = {
        **_naming(contact),
        "priority": level.value,
        "reason": reason,
        "contract": (branch.contract if branch else "") or CONTRACT,
        "calendar": (branch.calendar if branch else "") or CALENDAR,
    }
    opened = Draft(
        at=now, actor=journal.REQUESTER, action="opened", state=State.NEW.value, body=body
    )
    return _with_call(Decision(ticket=ticket, entries=(opened,)), None, contact, now)


def _title(contact: Contact) -> str:
    subject = contact.mail.subject if contact.mail is not None else ""
    return clean_line(subject, 200) or clean_line(contact.text, 200)


def join(ticket: Ticket, contact: Contact, person: Person, now: datetime) -> Decision:
    """Add a contact to the ticket that it belongs to; `person` is whose it is."""
    if contact.direction is Direction.OUT:  # the requester asks for nothing by being called
        called = draft(ticket, now, journal.SYSTEM, "calling.dialled", _naming(contact))
        return _with_call(
            Decision(ticket=replace(ticket, updated_at=now), entries=(called,)), None, contact, now
        )
    writes = contact.mail is not None or contact.medium is Medium.TEXT
    has_it = writes and person.key != "" and person.key == ticket.assignee
    body = {**_naming(contact), **({"engineer": person.key} if has_it else {})}
    added = draft(ticket, now, journal.REQUESTER, "contact.added", body)
    joined = replace(
        ticket,
        last_contact_at=max(ticket.last_contact_at, contact.received_at),
        updated_at=now,
    )
    return _with_call(Decision(ticket=joined, entries=(added,)), None, contact, now)


def learn(ticket: Ticket, before: Contact, after: Contact, now: datetime) -> Decision:
    """Say what new facts of one of its contacts mean for the ticket."""
    return _with_call(Decision(ticket=ticket), before, after, now)


def separate(
    ticket: Ticket, contact: Contact, number: str, now: datetime, actor: str = journal.REQUESTER
) -> Decision:
    """Let go of a contact that is about something else and now has the ticket `number`."""
    body = {**_naming(contact), "to": number}
    entry = draft(ticket, now, actor, "ticket.separated", body)
    return Decision(ticket=replace(ticket, updated_at=now), entries=(entry,))


def act(ticket: Ticket, action: Action, *, actor: str, note: str, now: datetime) -> Decision:
    """Move a ticket along its life cycle.

    Raises:
        ActionNotAllowed: the table of states has no such transition.
    """
    moved = _moved(ticket, next_state(ticket.state, action), now)
    acknowledges = action is Action.ACKNOWLEDGE and ticket.acknowledged_at is None
    assignee = ticket.assignee
    if action is Action.ACKNOWLEDGE and actor.startswith(ENGINEER):
        assignee = assignee or actor.removeprefix(ENGINEER)
    moved = replace(
        moved,
        assignee=assignee,
        acknowledged_at=now if acknowledges else ticket.acknowledged_at,
    )
    entry = draft(moved, now, actor, _DONE[action], _noted(note))
    return Decision(ticket=moved, entries=(entry,))


def place_call(ticket: Ticket, ref: str, engineer: str, *, actor: str, now: datetime) -> Decision:
    """Note that somebody's phone is rung, to call the requester then."""
    entry = draft(ticket, now, actor, "calling.placed", {"contact": ref, "engineer": engineer})
    return Decision(ticket=ticket, entries=(entry,))


def take(
    ticket: Ticket, engineer: str, *, how: str, now: datetime, actor: str = ""
) -> Decision | None:
    """Give the ticket to the first engineer who says so; None if it is too late.

    `how` says by what they took it (`page`, `web`, …). Taking twice is harmless: no entry. A new
    ticket that was handed to somebody who has not said anything yet is still anybody's to take.
    """
    is_new = ticket.state is State.NEW
    if ticket.state not in OPEN or (ticket.assignee not in ("", engineer) and not is_new):
        return None
    if ticket.assignee == engineer and not is_new:
        return Decision(ticket=ticket)
    return assign(ticket, engineer, how=how, now=now, actor=actor)


def assign(ticket: Ticket, engineer: str, *, how: str, now: datetime, actor: str = "") -> Decision:
    """Give the ticket to an engineer who has said so, whoever has it: their word is the newer.

    For an escalation, which knows whose acknowledgement has expired.
    """
    return _acknowledged(ticket, engineer, how=how, at=now, now=now, actor=actor)


def classify(  # noqa: PLR0913 - what a classification depends on
    ticket: Ticket, said: Classification, *, vip: bool, matrix: Matrix, actor: str, now: datetime
) -> Decision:
    """Say what a ticket is about and how bad it is; the priority follows from that.

    Raises:
        ActionNotAllowed: the ticket is over.
    """
    _check_open(ticket, "classify")
    told = {each.name: getattr(said, each.name) for each in fields(said)}
    for name, limit in (("system", 40), ("title", 200)):
        if told[name] is not None:
            told[name] = clean_line(told[name], limit)
    new = {
        name: value
        for name, value in told.items()
        if value is not None and value != getattr(ticket, name)
    }
    changed = replace(ticket, **new)
    if said.impact is not None or said.urgency is not None:
        level, reason = priority(changed.impact, changed.urgency, vip=vip, matrix=matrix)
        changed = replace(changed, priority=level, priority_reason=reason)
    if changed == ticket:
        return Decision(ticket=ticket)
    changed = replace(changed, updated_at=now)
    body = {name: int(each) if isinstance(each, int) else str(each) for name, each in new.items()}
    entries = []
    if changed.priority is ticket.priority and changed.priority_reason != ticket.priority_reason:
        body["reason"] = changed.priority_reason
    if body:
        entries.append(draft(changed, now, actor, "classified", body))
    if changed.priority is not ticket.priority:
        levels = {
            "priority": changed.priority.value,
            "before": ticket.priority.value,
            "reason": changed.priority_reason,
        }
        entries.append(draft(changed, now, actor, "priority.changed", levels))
    return Decision(ticket=changed, entries=tuple(entries))


def describe(  # noqa: PLR0913 - what a priority depends on
    ticket: Ticket, said: Description, *, vip: bool, matrix: Matrix, actor: str, now: datetime
) -> Decision:
    """Say more of the fault; its priority follows if that says how many it concerns.

    Raises:
        ActionNotAllowed: the ticket is over.
    """
    _check_open(ticket, "describe")
    standard, new = told(ticket.standard, said)
    described = replace(ticket, standard=standard)
    entries: tuple[Draft, ...] = ()
    if new:
        described = replace(described, updated_at=now)
        body = {name: value for name, value in new.items() if name != "impact"}
        if body:
            entries = (draft(described, now, actor, "ticket.described", body),)
    kind = Classification(title=said.title, system=said.system, impact=said.impact)
    found = classify(described, kind, vip=vip, matrix=matrix, actor=actor, now=now)
    if new and not entries and not found.entries:  # somebody has said what was only assumed
        body = {"impact": int(standard.impact or ticket.impact)}
        entries = (draft(described, now, actor, "classified", body),)
    return Decision(ticket=found.ticket, entries=(*entries, *found.entries))


def comment(ticket: Ticket, words: str, *, actor: str, now: datetime) -> Decision:
    """Note something for the people who work on it; the requester never sees it.

    Raises:
        PermanentFailure: there are no words in it.
    """
    words = clean_text(words).strip()
    if not words:
        raise PermanentFailure("there are no words in it")
    return note(ticket, COMMENT, actor=actor, body={"note": words}, now=now)


def merged(ticket: Ticket, into: Ticket, *, actor: str, now: datetime) -> Decision:
    """End a ticket whose contacts are those of another one from now on.

    Raises:
        ActionNotAllowed: it is over or solved, or the other one is over.
    """
    if ticket.id == into.id:
        raise ActionNotAllowed("cannot merge a ticket into itself")
    _check_open(into, "merge into")
    state = next_state(ticket.state, Action.CANCEL)
    moved = replace(_moved(ticket, state, now), merged_into=into.id)
    entry = draft(moved, now, actor, _DONE[Action.CANCEL], {"into": into.number})
    return Decision(ticket=moved, entries=(entry,))


def absorbed(  # noqa: PLR0913 - two tickets, and what comes over
    ticket: Ticket, other: Ticket, carried: Sequence[Entry], *, contacts: int, actor: str,
    now: datetime,
) -> Decision:  # fmt: skip
    """Take over the contacts of a ticket that ends; `carried` are what nobody has answered yet.

    Those are written down here as they came in, so that the promise to answer them goes on.
    """
    latest = max(ticket.last_contact_at, other.last_contact_at)
    has_all = replace(ticket, last_contact_at=latest, updated_at=now)
    body = {"from": other.number, "contacts": contacts}
    entries = [draft(has_all, now, actor, "ticket.merged", body)]
    for entry in carried:
        action = "contact.added" if entry.action == "opened" else entry.action
        kept = {name: value for name, value in entry.body.items() if name not in _OF_OPENING}
        entries.append(draft(has_all, now, entry.actor, action, kept))
    return Decision(ticket=has_all, entries=tuple(entries))


def unanswered(entries: Iterable[Entry]) -> list[Entry]:
    """Return the contacts of a journal that nobody has answered, with how their calls ended."""
    waiting: list[Entry] = []
    for entry in entries:
        if entry.action in _ANSWERS:
            waiting = []
        if entry.action == "ticket.separated":
            waiting = [each for each in waiting if each.body["contact"] != entry.body["contact"]]
        if entry.action in _CONTACTS or (
            entry.action in _ENDINGS
            and entry.body["contact"] in {each.body["contact"] for each in waiting}
        ):
            waiting.append(entry)
    return waiting


COMMENT: Final = "comment"  # body note: words for the people who work on it
_OF_OPENING: Final = frozenset({"priority", "reason", "contract", "calendar"})
_CONTACTS: Final = frozenset({"opened", "contact.added"})
_ENDINGS: Final = frozenset({"call.ended", "call.corrected"})
_ANSWERS: Final = frozenset({"call.answered", "answered"})


def belong_to(  # noqa: PLR0913 - whose it was and is, and where they are
    ticket: Ticket, person: Person, names: tuple[str, str], branch: Branch | None, *,
    matrix: Matrix, actor: str, now: datetime,
) -> Decision:  # fmt: skip
    """Make it the ticket of somebody else; `names` are whose it was, and whose it is.

    Raises:
        ActionNotAllowed: the ticket is over.
    """
    _check_open(ticket, "give to somebody else")
    if ticket.requester_id == person.id:
        return Decision(ticket=ticket)
    theirs = replace(ticket, requester_id=person.id, updated_at=now)
    body = {"was": names[0], "requester": names[1]}
    entry = draft(theirs, now, actor, "requester.changed", body)
    found = suit(theirs, person, branch, matrix=matrix, actor=actor, now=now, moves=True)
    return Decision(ticket=found.ticket, entries=(entry, *found.entries))


def suit(  # noqa: PLR0913 - what follows from whose it is
    ticket: Ticket, person: Person, branch: Branch | None, *,
    matrix: Matrix, actor: str, now: datetime, moves: bool = False,
) -> Decision:  # fmt: skip
    """Let follow what does from whose an open ticket is: its site and promises, its priority.

    A site that is known stays, unless the ticket `moves` with its requester.
    """
    changed, entries = ticket, []
    if branch is not None and branch.key != ticket.site and (moves or not ticket.site):
        changed = replace(changed, site=branch.key, updated_at=now)
        body = {"site": branch.key, "site_before": ticket.site}
        entries.append(draft(changed, now, actor, "site.changed", body))
        for name, value in (
            ("contract", branch.contract or CONTRACT),
            ("calendar", branch.calendar or CALENDAR),
        ):
            entries.append(draft(changed, now, actor, f"{name}.changed", {name: value}))
    level, reason = priority(ticket.impact, ticket.urgency, vip=person.vip, matrix=matrix)
    if level is not ticket.priority:
        changed = replace(changed, priority=level, priority_reason=reason, updated_at=now)
        body = {"priority": level.value, "before": ticket.priority.value, "reason": reason}
        entries.append(draft(changed, now, actor, "priority.changed", body))
    return Decision(ticket=changed, entries=tuple(entries))


def answered(  # noqa: PLR0913 - who spoke to the requester when and how
    ticket: Ticket, *, engineer: str, actor: str, how: str, at: datetime, now: datetime
) -> Decision:
    """Note that a person has spoken to the requester: a call-back, a personal reply.

    Who did has the ticket, if nobody has it yet. It may be noted late, even after the end.

    Raises:
        PermanentFailure: that was before the ticket was opened, or will be.
    """
    if not ticket.opened_at <= at <= now:
        raise PermanentFailure("answered_at: not between the opening of the ticket and now")
    body = {"answered_at": instant_text(at), "how": clean_line(how, 40)}
    if engineer:
        body["engineer"] = engineer
    entry = draft(ticket, now, actor, "answered", body)
    free = ticket.state in OPEN and (
        not ticket.assignee or (ticket.state is State.NEW and ticket.assignee == engineer)
    )
    if not engineer or not free:
        return Decision(ticket=ticket, entries=(entry,))
    taken = _acknowledged(ticket, engineer, how="answer", at=at, now=now, actor=actor)
    return Decision(ticket=taken.ticket, entries=(entry, *taken.entries))


def updated(ticket: Ticket, *, actor: str, note: str, now: datetime) -> Decision:
    """Note that the requester was told how it stands.

    Raises:
        ActionNotAllowed: the ticket is over.
    """
    _check_open(ticket, "update")
    return Decision(ticket=ticket, entries=(draft(ticket, now, actor, "updated", _noted(note)),))


def hand_over(ticket: Ticket, engineer: str, *, actor: str, note: str, now: datetime) -> Decision:
    """Make somebody else responsible, who has not said anything yet; harmless twice.

    Raises:
        ActionNotAllowed: the ticket is over.
    """
    _check_open(ticket, "hand over")
    if ticket.assignee == engineer:
        return Decision(ticket=ticket)
    handed = replace(ticket, assignee=engineer, updated_at=now)
    body = {"engineer": engineer, "before": ticket.assignee, **_noted(note)}
    return Decision(ticket=handed, entries=(draft(handed, now, actor, "handed_over", body),))


def assign_team(ticket: Ticket, team: str, *, actor: str, now: datetime) -> Decision:
    """Make a team responsible ("": none); harmless twice.

    Raises:
        ActionNotAllowed: the ticket is over.
    """
    _check_open(ticket, "assign")
    team = clean_line(team, 32)
    if ticket.team == team:
        return Decision(ticket=ticket)
    given = replace(ticket, team=team, updated_at=now)
    body = {"team": team, "before": ticket.team}
    return Decision(ticket=given, entries=(draft(given, now, actor, "team.assigned", body),))


def set_contract(ticket: Ticket, contract: str, *, actor: str, now: datetime) -> Decision:
    """Promise from now on what `contract` (a versioned key) promises.

    Raises:
        ActionNotAllowed: the ticket is over.
    """
    _check_open(ticket, "promise anything for")
    return note(ticket, "contract.changed", actor=actor, body={"contract": contract}, now=now)


def confirm(  # noqa: PLR0913 - what the requester's word is made of
    ticket: Ticket, *, solved: bool, actor: str, how: str, note: str, now: datetime
) -> Decision:
    """Take the requester's word for it: solved or not (requirement B9).

    Raises:
        ActionNotAllowed: the ticket is not resolved, so nobody has asked.
    """
    state = next_state(ticket.state, Action.CLOSE if solved else Action.REOPEN)
    moved = _moved(ticket, state, now)
    body: dict[str, Any] = {"how": clean_line(how, 40), **_noted(note)}
    if solved:
        body["confirmed"] = True
    action = _DONE[Action.CLOSE if solved else Action.REOPEN]
    return Decision(ticket=moved, entries=(draft(moved, now, actor, action, body),))


RATED: Final = "rated"  # body mark, how, contact


def rate(  # noqa: PLR0913 - what a mark is made of
    ticket: Ticket, mark: int, *, actor: str, how: str, contact: str, now: datetime
) -> Decision:
    """Take what the requester thinks of the service: 1 (bad) to 5 (very good), requirement B10.

    `contact` is the external id of what they said it with, "" if it was no contact. The last mark
    counts.

    Raises:
        ActionNotAllowed: the ticket is not closed: nobody has asked yet.
    """
    if ticket.state is not State.CLOSED:
        raise ActionNotAllowed("the ticket is not closed")
    if mark not in range(1, 6):
        raise PermanentFailure("a mark is 1 to 5")
    body = {"mark": mark, "how": clean_line(how, 40), "contact": contact}
    return Decision(ticket=ticket, entries=(draft(ticket, now, actor, RATED, body),))


def ask_call_back(
    ticket: Ticket, number: str, wished: str, *, actor: str, now: datetime
) -> Decision:
    """Note that the requester wants to be called: on which number, and when, in their words.

    Raises:
        ActionNotAllowed: the ticket is over.
    """
    _check_open(ticket, "call back about")
    body = {"number": clean_line(number, 40), "wished": clean_line(wished, 120)}
    return note(ticket, CALL_BACK_ASKED, actor=actor, body=body, now=now)


def ask_remote(ticket: Ticket, entries: Iterable[Entry], *, actor: str, now: datetime) -> Decision:
    """Note that the requester wants remote help; harmless while they wait for it (E1, C2).

    Raises:
        ActionNotAllowed: the ticket is over.
    """
    _check_open(ticket, "help remotely with")
    waits = False
    for entry in entries:
        waits = entry.action == REMOTE_ASKED or (waits and entry.action not in _ENDS_WAITING)
    if waits:
        return Decision(ticket=ticket)
    return note(ticket, REMOTE_ASKED, actor=actor, body={}, now=now)


CALL_BACK_ASKED: Final = "call_back.asked"  # body number, wished
REMOTE_ASKED: Final = "remote.asked"
_ENDS_WAITING: Final = frozenset({"remote.started", "resolved", "reopened"})


def note(
    ticket: Ticket, action: str, *, actor: str, body: dict[str, Any], now: datetime
) -> Decision:
    """Write an entry that changes nothing else, e.g. `page.sent`."""
    return Decision(ticket=ticket, entries=(draft(ticket, now, actor, action, body),))


def draft(ticket: Ticket, now: datetime, actor: str, action: str, body: dict[str, Any]) -> Draft:
    """Return an entry for the journal of `ticket`, with the state that it has."""
    # Cut before it is hashed: the hash must be that of what is stored.
    who = actor[: journal.LONGEST_ACTOR]
    return Draft(at=now, actor=who, action=action, state=ticket.state.value, body=body)


def sealed(ticket: Ticket, drafts: Sequence[Draft]) -> tuple[Ticket, tuple[Entry, ...]]:
    """Chain `drafts` behind the journal of `ticket`, which has its number by now."""
    entries = journal.chain(
        ticket.number, drafts, seq=ticket.journal_seq, prev_hash=ticket.journal_hash
    )
    if not entries:
        return ticket, ()
    last = entries[-1]
    return replace(ticket, journal_seq=last.seq, journal_hash=last.hash), entries


def _moved(ticket: Ticket, state: State, now: datetime) -> Ticket:
    closed_at = None if state in OPEN else now
    return replace(ticket, state=state, closed_at=closed_at, updated_at=now)


def _noted(note: str) -> dict[str, Any]:
    return {"note": clean_text(note)} if note else {}


def _check_open(ticket: Ticket, verb: str) -> None:
    if ticket.state not in OPEN:
        raise ActionNotAllowed(f"cannot {verb} a ticket that is {ticket.state}")


def _writing(mail: MailFacts) -> dict[str, Any]:
    said = {"forged": mail.forged, "reply": bool(mail.reply)}
    return {"writer": mail.writer.value, **{name: True for name, is_so in said.items() if is_so}}


def _saying(contact: Contact) -> dict[str, Any]:
    said = says(contact.text) if contact.medium is Medium.TEXT else Says.WORDS
    return {
        **({"says": said.value} if said is not Says.WORDS else {}),
        **({"reply": True} if said is Says.REPLY else {}),
    }


def _naming(contact: Contact) -> dict[str, Any]:
    return {
        **(_writing(contact.mail) if contact.mail is not None else _saying(contact)),
        "medium": contact.medium.value,
        "contact": contact.external_id,
        "source": contact.source.value,
        "received_at": instant_text(contact.received_at),
    }


def _acknowledged(  # noqa: PLR0913 - two instants, and who says so for whom
    ticket: Ticket, engineer: str, *, how: str, at: datetime, now: datetime, actor: str = ""
) -> Decision:
    """Assign and, if nobody has yet, acknowledge; `at` is when the engineer did it."""
    taken = replace(
        ticket,
        assignee=engineer,
        state=State.IN_PROGRESS if ticket.state is State.NEW else ticket.state,
        acknowledged_at=ticket.acknowledged_at or at,
        updated_at=now,
    )
    body = {"how": how, "engineer": engineer, "acknowledged_at": instant_text(at)}
    action = "acknowledged" if ticket.state is State.NEW else "assigned"
    entry = draft(taken, now, actor or ENGINEER + engineer, action, body)
    return Decision(ticket=taken, entries=(entry,))


def _with_call(
    decision: Decision, before: Contact | None, after: Contact, now: datetime
) -> Decision:
    """Add what the facts of a call mean: who took it, and how it ended."""
    known = before.call if before is not None else None
    facts = after.call
    if facts is None or (known == facts and before == after):
        return decision
    ticket, entries = decision.ticket, list(decision.entries)
    heard = {leg.engineer for leg in known.legs} if known is not None else set()
    for leg in facts.legs:
        if leg.engineer in heard:
            continue
        heard.add(leg.engineer)
        actor = ENGINEER + leg.engineer
        body = {"contact": after.external_id, "answered_at": instant_text(leg.answered_at)}
        entries.append(draft(ticket, now, actor, "call.answered", body))
        if ticket.state is State.NEW or not ticket.assignee:
            taken = _acknowledged(ticket, leg.engineer, how="call", at=leg.answered_at, now=now)
            ticket = taken.ticket
            entries.extend(taken.entries)
    if facts.final:
        action = "call.corrected" if known is not None and known.final else "call.ended"
        if after.direction is Direction.OUT:  # nobody has to call back whom we did not reach
            action = "calling.ended"
        entries.append(draft(ticket, now, journal.SYSTEM, action, _ending(after, facts)))
    return Decision(ticket=ticket, entries=tuple(entries))


def _ending(contact: Contact, facts: CallFacts) -> dict[str, Any]:
    return {
        "contact": contact.external_id,
        "outcome": contact.outcome.value,
        "ended_at": instant_text(facts.ended_at) if facts.ended_at else None,
        "waited_s": round(facts.waited.total_seconds()) if facts.waited is not None else None,
        "talked_s": round(facts.talked.total_seconds()) if facts.talked is not None else None,
        "reason": facts.end_reason,
        "voicemail": bool(facts.voicemail),
    }
