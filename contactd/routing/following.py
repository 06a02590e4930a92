"""What follows from what happened to a ticket: clocks, pages, questions to the requester (pure).

`follow` looks at a ticket's whole journal and brings everything that hangs on it up to date;
`heard` does so for one thing that was heard of a page (a key, a receipt, a timer, a hand-off).
Both return what belongs into one commit. Nothing is decided from the event that asked for the look:
looking twice, late, or in another process changes nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

from contactd.errors import ConfigurationError
from contactd.routing import closing, needs, promises
from contactd.routing.clocks import DUE, Clock
from contactd.routing.closing import Quiet
from contactd.routing.escalation import (
    Acknowledged,
    Arm,
    Assign,
    Context,
    Effect,
    Escalated,
    Escalation,
    Event,
    Group,
    GroupChanged,
    Notify,
    OnDuty,
    OpenConference,
    Outcome,
    Phase,
    Policy,
    Progressed,
    Reconcile,
    Record,
    Reopened,
    Reported,
    Resolved,
    Step,
    StopOthers,
    Target,
    TicketFacts,
    Whom,
    handle,
    start,
)
from contactd.routing.needs import Need
from contactd.routing.notify import REQUESTER, URGENT, Notification, Reason
from contactd.routing.oncall import FLOOR_KEY, Duties, Duty, Engineer, Why, on_duty
from contactd.routing.terms import STANDARD_POLICY, Assignment, Terms, assign
from contactd.routing.wallclock import ANYWHERE
from contactd.tickets import model
from contactd.tickets.contact import Medium
from contactd.tickets.contact import Outcome as CallOutcome
from contactd.tickets.events import (
    Due,
    EscalationDue,
    GroupDue,
    NoticeDue,
    NoticesStopped,
    TicketDue,
)
from contactd.tickets.journal import REQUESTER as REQUESTER_ACTOR
from contactd.tickets.journal import SYSTEM, Draft, Entry, instant_text
from contactd.tickets.model import ENGINEER, Decision, Ticket
from contactd.tickets.people import MAIL, PHONE, Address
from contactd.tickets.phone import is_mobile
from contactd.tickets.priority import Priority
from contactd.tickets.states import OPEN, Action, State
from contactd.tickets.texting import Says

DISPATCH_LOST: Final = "dispatch.lost"  # the message to who was sent cannot reach them
HURRIES_FROM: Final = 90  # percent of a promise's time at which who has the ticket is not enough
_STALE: Final = timedelta(hours=1)  # of a ticket that nobody was ever paged for: only mentioned
_NO_ROTA: Final = timedelta(minutes=1)
_TEAM_FIRST: Final = timedelta(minutes=1)  # the ticket's own team has so long before others


@dataclass(frozen=True, slots=True, kw_only=True)
class Requester:
    name: str
    language: str  # zh, en
    vip: bool
    addresses: tuple[Address, ...]  # the preferred first


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A ticket with everything that hangs on it, as it is stored."""

    ticket: Ticket
    journal: tuple[Entry, ...]
    requester: Requester
    escalation: Escalation | None = None
    seen: int = 0  # the place of the last journal entry that the escalation knows of
    group: Group | None = None  # the open page of the same site and symptom
    codes: Mapping[int, str] = field(default_factory=dict)  # arrival code by dispatch
    # The address from which the requester wrote about it last, by medium; without, any of theirs.
    wrote_from: Mapping[Medium, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What is true for all tickets at the instant of a look."""

    now: datetime
    terms: Terms
    duties: Duties
    present: tuple[Duty, ...]  # everybody who is on duty at any site now, without floors
    media: frozenset[Medium]  # by which people can be told at all
    redial_within: timedelta
    zone: str  # of a ticket without a site
    language: str
    quiet: Quiet = closing.NEVER  # no texts that can wait


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """The rota, and who of it is on duty now at any site (without floors)."""

    duties: Duties
    present: tuple[Duty, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A notification with its place in the escalation; generation 0: it is in none."""

    notification: Notification
    dedup_key: str
    step: int = 0
    generation: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Follow:
    """What belongs into one commit. `clocks` None: they were not looked at."""

    ticket: Ticket  # its journal's end is already that after `entries`
    entries: tuple[Entry, ...]
    escalation: Escalation | None
    seen: int
    clocks: tuple[Clock, ...] | None
    messages: tuple[Message, ...]
    stopped: tuple[str, ...]
    doubtful: tuple[str, ...]  # notifications whose outcome is unknown: to be looked up
    events: tuple[Due, ...]
    trouble: str = ""  # why the clocks cannot be computed


def present(duties: Duties, now: datetime) -> tuple[Duty, ...]:
    """Return everybody who is on duty somewhere, site by site in the order of the rota."""
    found = (duty for site in duties.sites for duty in on_duty(duties, site.key, now))
    return tuple(duty for duty in found if duty.why is not Why.FLOOR)


def follow(case: Case, world: World) -> Follow:
    """Bring everything up to date with the ticket's journal.

    Should its clocks make no sense, they stay as they are and `trouble` says why: somebody has to
    hear of the ticket all the same.
    """
    work = _Work(case=case, world=world, ticket=case.ticket, escalation=case.escalation)
    clocks, trouble = _clocks(case.journal, world.terms)
    news = promises.news(case.journal, clocks, world.now)
    for found in news:
        work.write(found.action, SYSTEM, found.body)
    _consume(work)
    _meet(work)
    for found in sorted(news, key=lambda each: -each.percent):
        if found.acts:
            _alarm(work, found)
    _inform(work)
    _close(work)
    _survey(work)
    look_at = promises.next_look(clocks, case.journal, world.now)
    if look_at is not None:
        work.look_again(look_at)
    result = work.result()
    if result.entries and not trouble:
        clocks, trouble = _clocks((*case.journal, *result.entries), world.terms)
    seen = case.ticket.journal_seq + len(result.entries)
    return replace(result, clocks=None if trouble else clocks, seen=seen, trouble=trouble)


def _clocks(journal: Iterable[Entry], terms: Terms) -> tuple[promises.Clocks, str]:
    """Return the clocks, or why there are none."""
    try:
        return promises.clocks(journal, terms), ""
    except (ValueError, ConfigurationError) as error:
        return (), str(error)


def heard(case: Case, event: Event, world: World) -> Follow:
    """Let the ticket's escalation know of `event`; without one nothing changes."""
    work = _Work(
        case=case, world=world, ticket=case.ticket, escalation=case.escalation, is_answer=True
    )
    work.tell(event)
    is_taken = work.escalation is not None and work.escalation.phase is Phase.TAKEN
    if is_taken and work.ticket.state not in OPEN:
        work.tell(Progressed())  # of what is over nothing more can be written down
    _inform(work)
    return work.result()


def saying(  # noqa: PLR0913 - who is told what, by what
    case: Case,
    world: World,
    *,
    recipient: str,
    medium: Medium,
    address: str,
    key: str,
    facts: Mapping[str, str],
    reason: Reason = Reason.HEARD,
) -> Follow:
    """Tell whoever wrote back what became of it; `recipient` is an engineer's key or REQUESTER."""
    work = _Work(case=case, world=world, ticket=case.ticket, escalation=case.escalation)
    engineer = work.engineer(recipient) if recipient != REQUESTER else None
    language = engineer.language if engineer else case.requester.language or world.language
    ref = f"{reason}-{case.ticket.number}-{key}-{recipient}"
    notification = Notification(
        ref=ref,
        ticket=case.ticket.number,
        recipient=recipient,
        name=engineer.name if engineer else case.requester.name,
        medium=medium,
        address=address,
        language=language,
        reason=reason,
        facts={name: value for name, value in {**work.about(language), **facts}.items() if value},
    )
    work.send(notification, f"notify-{ref}")
    return work.result()


def writing(  # noqa: PLR0913 - who says what by which medium
    case: Case,
    world: World,
    *,
    key: str,
    words: str,
    actor: str,
    medium: Medium = Medium.TEXT,
    subject: str = "",
) -> Follow:
    """Let somebody of the desk write to the requester; no messages: they cannot be reached so.

    A mail has a `subject`, "": that of what it answers.
    """
    work = _Work(case=case, world=world, ticket=case.ticket, escalation=case.escalation)
    told = {"note": words, **({"subject": subject} if subject else {})}
    work.write(promises.WRITTEN_TO, actor, {"medium": medium.value, **told})
    work.write_to(Reason.SAID, key, told, {medium})
    return work.result()


# Work in progress: nothing of it outlives one call of `follow` or `heard`


@dataclass(slots=True, kw_only=True)
class _Work:
    case: Case
    world: World
    ticket: Ticket
    escalation: Escalation | None
    is_answer: bool = False  # to a page: the ticket does not know of it yet
    is_hurried: bool = False
    is_telling: bool = False  # the escalation of what cannot be sent
    drafts: list[Draft] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    doubtful: list[str] = field(default_factory=list)
    events: list[Due] = field(default_factory=list)
    hopeless: list[str] = field(default_factory=list)  # refs of notices that cannot be sent

    # The ticket

    def write(self, action: str, actor: str, body: Mapping[str, Any]) -> None:
        self.decide(
            model.note(self.ticket, action, actor=actor, body=dict(body), now=self.world.now)
        )

    def decide(self, decision: Decision) -> None:
        self.ticket = decision.ticket
        self.drafts += decision.entries

    @property
    def site(self) -> str:
        """Return the ticket's site; one that the rota has no more counts as not known."""
        known = any(site.key == self.ticket.site for site in self.world.duties.sites)
        return self.ticket.site if known else ANYWHERE

    @property
    def zone(self) -> str:
        zones = {site.key: site.zone for site in self.world.duties.sites}
        return zones.get(self.site, self.world.zone)

    @property
    def assignment(self) -> Assignment:
        return self.assignment_at(self.ticket.priority)

    def assignment_at(self, priority: Priority) -> Assignment:
        return assign(
            self.world.terms.rules,
            site=self.site,
            category=self.ticket.category,
            system=self.ticket.system,
            priority=priority,
            vip=self.case.requester.vip,
        )

    # The escalation

    def begin(self, *, first: str = "") -> None:
        """Begin to tell people: `first`, then as the policy says."""
        facts = TicketFacts(
            ticket=self.ticket.number,
            priority=self.ticket.priority.value,
            site=self.site,
            symptom=symptom(self.ticket),
        )
        assignment = self.assignment
        policy = self.policy(assignment)
        if team := self.ticket.team or assignment.team:
            target = Target(whom=Whom.TEAM, team=team)
            policy = _led_by(policy, replace(policy.steps[0], targets=(target,)))
        if first:
            target = Target(whom=Whom.PERSON, person=first)
            policy = _led_by(policy, Step(delay=policy.steps[0].delay, targets=(target,)))
        self.escalation, effects = start(
            policy, facts, self.context(), self.world.now, after=self.escalation
        )
        self.apply(effects)

    def policy(self, assignment: Assignment) -> Policy:
        policies = self.world.terms.policies
        return policies.get(assignment.policy, policies[STANDARD_POLICY.key])

    def tell(self, event: Event) -> None:
        if self.escalation is None:
            return
        self.escalation, effects = handle(self.escalation, event, self.context(), self.world.now)
        self.apply(effects)

    def context(self) -> Context:
        duties, skill = self.world.duties, self.assignment.skill
        people = sorted(
            self.world.present,
            key=lambda duty: (
                self.site not in (ANYWHERE, duty.site),
                duty.engineer.key != self.ticket.assignee,
                bool(skill) and skill not in duty.engineer.skills,
            ),
        )
        places = [site for site in duties.sites if self.site in (ANYWHERE, site.key)]
        return Context(
            on_duty=tuple(
                OnDuty(person=duty.engineer.key, site=duty.site, tier=duty.tier, team=duty.team)
                for duty in people
            ),
            floor=places[0].floor if places else "",
            rules={each.key: each.rules for each in duties.engineers if each.rules},
            supervisor=next((site.supervisor for site in places if site.supervisor), ""),
            group=self.case.group,
        )

    def apply(self, effects: Iterable[Effect]) -> None:
        """Do what the escalation decided; what cannot be sent at all it hears of at once."""
        for effect in effects:
            _EFFECTS[type(effect)](self, effect)
        if self.is_telling:
            return  # whoever does hears of the new ones, too
        self.is_telling = True
        while self.hopeless:
            self.tell(Reported(ref=self.hopeless.pop(), outcome=Outcome.FAILED))
        self.is_telling = False

    # Messages

    def notification(
        self, ref: str, person: str, medium: Medium, reason: Reason, facts: Mapping[str, str]
    ) -> Notification | None:
        """Return a message to an engineer or the floor; None if it has no way to reach them."""
        engineer = self.engineer(person)
        address = _address(engineer, medium) if engineer else ""
        if engineer is None or not address or medium not in self.world.media:
            return None
        known = {
            "vip": "1" if self.case.requester.vip else "",
            "pbx": self.pbx,
            "pin": "1" if engineer.pin else "",
            **self.about(engineer.language),
            **facts,
        }
        return Notification(
            ref=ref,
            ticket=self.ticket.number,
            recipient=person,
            name=engineer.name,
            medium=medium,
            address=address,
            language=engineer.language,
            reason=reason,
            facts={name: value for name, value in known.items() if value},
        )

    def engineer(self, person: str) -> Engineer | None:
        if person == FLOOR_KEY:
            for site in self.world.duties.sites:
                if self.site in (ANYWHERE, site.key):
                    return Engineer(
                        key=FLOOR_KEY, name="", number=site.floor, language=site.language
                    )
        return next((each for each in self.world.duties.engineers if each.key == person), None)

    @property
    def pbx(self) -> str:
        """Return the PBX of the last call about this ticket, "" if there was none."""
        calls = (
            str(entry.body["contact"])
            for entry in reversed(self.case.journal)
            if entry.body.get("medium") == Medium.CALL
        )
        return next(calls, "").rpartition("-")[0]

    def send(
        self, notification: Notification, dedup_key: str, step: int = 0, generation: int = 0
    ) -> None:
        self.messages.append(
            Message(
                notification=notification, dedup_key=dedup_key, step=step, generation=generation
            )
        )
        event = NoticeDue(ref=notification.ref)
        self.events.append(Due(event=event, due_at=self.world.now, dedup_key=dedup_key))

    def mention(self, person: str, reason: Reason, key: str, facts: Mapping[str, str]) -> bool:
        """Let somebody know by the first of their media that does not ring them, if there is one;
        return whether there was.
        """
        engineer = self.engineer(person)
        media = [rule.medium for rule in engineer.rules] if engineer else []
        for medium in [*media, Medium.TEXT, Medium.MAIL]:
            ref = f"{reason}-{self.ticket.number}-{key}-{person}"
            found = self.notification(ref, person, medium, reason, facts)
            if medium is not Medium.CALL and found is not None:
                self.send(found, f"notify-{ref}")
                return True
        return False

    def reach(self, person: str, reason: Reason, key: str, facts: Mapping[str, str]) -> bool:
        """Tell an engineer by all of their media; return False if there is none."""
        engineer = self.engineer(person)
        rules = [rule.medium for rule in engineer.rules] if engineer else []
        reached = False
        for medium in dict.fromkeys(rules or [Medium.CALL]):
            ref = _ref(reason, self.ticket, key, person, medium)
            found = self.notification(ref, person, medium, reason, facts)
            if found is not None:
                self.send(found, f"notify-{ref}")
                reached = True
        return reached

    def ask(self, reason: Reason, key: str, facts: Mapping[str, str], *, call: bool) -> bool:
        """Tell the requester, by a text if possible; return False if there is no way."""
        media = {Medium.TEXT, Medium.MAIL, *([Medium.CALL] if call else [])}
        return self.write_to(reason, key, facts, media)

    def can_write(self) -> bool:
        """Return whether there is a way to tell the requester without ringing them."""
        return self.way({Medium.TEXT, Medium.MAIL}) is not None

    def way(self, media: Set[Medium]) -> tuple[Medium, str] | None:
        """Return the best way to tell the requester: the medium, and where they wrote from."""
        found = next(_ways(self.case.requester, media & self.world.media), None)
        if found is None:
            return None
        medium, address = found
        wrote_from = self.case.wrote_from.get(medium, "")
        is_theirs = any(each.value == wrote_from for each in self.case.requester.addresses)
        return medium, wrote_from if is_theirs else address

    def polite(self, at: datetime) -> datetime:
        """Return `at`, or the first instant after it at which the requester may get a text that can
        wait; by mail it is `at` always.
        """
        way = self.way({Medium.TEXT, Medium.MAIL})
        if way is None or way[0] is not Medium.TEXT or self.ticket.priority in URGENT:
            return at
        return self.world.quiet.over(at, self.zone)

    def write_to(
        self, reason: Reason, key: str, facts: Mapping[str, str], media: Set[Medium]
    ) -> bool:
        """Tell the requester by the best of `media`; return False if none reaches them."""
        found = self.way(media)
        if found is None:
            return False
        medium, address = found
        ref = f"{reason}-{self.ticket.number}-{key}-{REQUESTER}"
        language = self.case.requester.language or self.world.language
        known = {"pbx": self.pbx, **self.about(language), **facts}
        notification = Notification(
            ref=ref,
            ticket=self.ticket.number,
            recipient=REQUESTER,
            name=self.case.requester.name,
            medium=medium,
            address=address,
            language=language,
            reason=reason,
            facts={name: value for name, value in known.items() if value},
        )
        self.send(notification, f"notify-{ref}")
        return True

    def about(self, language: str) -> dict[str, str]:
        """Return what the words of a message say of the ticket."""
        names = {site.key: (site.name_zh, site.name_en) for site in self.world.duties.sites}
        zh, en = names.get(self.site, ("", ""))
        return {
            "site": self.site,
            "site_name": en if language == "en" else zh,
            "title": self.ticket.title,
            "priority": self.ticket.priority.value,
            "zone": self.zone,
        }

    def look_again(self, at: datetime) -> None:
        # To the microsecond: a look that comes a moment too early must be able to arm the next.
        key = f"look-{self.ticket.id}-{instant_text(at)}"
        event = TicketDue(ticket_id=self.ticket.id)
        self.events.append(Due(event=event, due_at=at, dedup_key=key))

    def _speaks_for_others(self) -> bool:
        """Return whether tickets that wait for this one's page have to hear of a change."""
        before, after = self.case.escalation, self.escalation
        is_changed = before is not None and after is not None and before.phase is not after.phase
        return is_changed and bool(symptom(self.ticket))

    def result(self) -> Follow:
        if self._speaks_for_others():
            self.events.append(Due(event=GroupDue(ticket_id=self.ticket.id), due_at=self.world.now))
        if self.stopped:
            event = NoticesStopped(refs=list(self.stopped))
            self.events.append(Due(event=event, due_at=self.world.now))
        ticket, entries = model.sealed(self.ticket, self.drafts)
        return Follow(
            ticket=ticket,
            entries=entries,
            escalation=self.escalation,
            seen=self.case.seen,
            clocks=None,
            messages=tuple(self.messages),
            stopped=tuple(self.stopped),
            doubtful=tuple(self.doubtful),
            events=tuple(self.events),
        )


def _ref(reason: Reason, ticket: Ticket, key: str, person: str, medium: Medium) -> str:
    return f"{reason}-{ticket.number}-{key}-{person}-{medium.value}"


def symptom(ticket: Ticket) -> str:
    """Return what storm control groups tickets of a site by; "" while nobody has classified it."""
    return "/".join(part for part in (ticket.category, ticket.system) if part)


def _led_by(policy: Policy, leader: Step) -> Policy:
    """Return `policy` with one more step at its beginning."""
    first, *others = policy.steps
    later = replace(first, delay=max(first.delay, _TEAM_FIRST))
    return replace(policy, steps=(leader, later, *others))


def _address(engineer: Engineer, medium: Medium) -> str:
    match medium:
        case Medium.CALL:
            return engineer.number
        case Medium.TEXT:
            return engineer.text
        case Medium.MAIL:
            return engineer.mails[0] if engineer.mails else ""
        case _:
            return ""


def _ways(requester: Requester, media: Set[Medium]) -> Iterator[tuple[Medium, str]]:
    """Return how the requester can be told, the best way first: text, mail, call."""
    phones = [each.value for each in requester.addresses if each.kind == PHONE]
    mails = [each.value for each in requester.addresses if each.kind == MAIL]
    ways = [
        *((Medium.TEXT, number) for number in phones if is_mobile(number)),
        *((Medium.MAIL, mail) for mail in mails),
        *((Medium.CALL, number) for number in phones),
    ]
    return (way for way in ways if way[0] in media)


# Effects of the escalation


def _record(work: _Work, effect: Record) -> None:
    work.write(effect.action, effect.actor, effect.body)


def _assign(work: _Work, effect: Assign) -> None:
    """Give the ticket to who takes it, whoever had it: they were rung because nobody else came.

    It stays with whoever has it if the journal has said that already, or if its group was taken.
    """
    person, ticket = effect.person, work.ticket
    if ":" in person:
        return  # a user of the pages, who is nobody's assignee
    decision = model.take(ticket, person, how="page", now=work.world.now)
    in_group = work.escalation is not None and bool(work.escalation.leader)
    if decision is None and work.is_answer and not in_group and ticket.state in OPEN:
        decision = model.assign(ticket, person, how="page", now=work.world.now)
    if decision is not None:
        work.decide(decision)
    if in_group and work.escalation is not None:  # nobody has rung them about this one: once
        work.mention(person, Reason.ASSIGNED, f"by-{work.escalation.leader}", {})


def _arm(work: _Work, effect: Arm) -> None:
    event = EscalationDue(
        ticket_id=work.ticket.id, timer=effect.timer.value, generation=effect.generation
    )
    work.events.append(Due(event=event, due_at=effect.at, dedup_key=f"escalation-{effect.key}"))


def _notify(work: _Work, effect: Notify) -> None:
    escalation = work.escalation
    conference = "1" if escalation is not None and escalation.conference else ""
    reason = _reason(work, effect.person)
    found = work.notification(
        effect.ref, effect.person, effect.medium, reason, {"conference": conference}
    )
    if found is None:
        work.hopeless.append(effect.ref)
    else:
        work.send(found, effect.dedup_key, effect.step, effect.generation)


def _reason(work: _Work, person: str) -> Reason:
    """Return why somebody is paged: what the requester needs, or that it was handed to them."""
    need, _ = needs.latest(work.case.journal, redial_within=work.world.redial_within)
    handed = [entry for entry in work.case.journal if entry.action == "handed_over"]
    is_theirs = bool(handed) and handed[-1].body["engineer"] == person
    if is_theirs and (need is None or need.entry < handed[-1].seq):
        return Reason.ASSIGNED
    return need.reason if need else Reason.NEW


def _look_up(work: _Work, effect: Reconcile) -> None:
    work.doubtful.append(effect.ref)
    work.events.append(Due(event=NoticeDue(ref=effect.ref), due_at=work.world.now))


def _stop(work: _Work, effect: StopOthers) -> None:
    work.stopped += effect.refs


def _confer(_work: _Work, _effect: OpenConference) -> None:
    """The room is there once somebody enters it; pages from now on say so."""


_EFFECTS: Final[Mapping[type[Effect], Callable[[_Work, Any], None]]] = {
    Record: _record,
    Assign: _assign,
    Arm: _arm,
    Notify: _notify,
    Reconcile: _look_up,
    StopOthers: _stop,
    OpenConference: _confer,
}


# What new journal entries mean for the escalation


def _consume(work: _Work) -> None:
    for entry in work.case.journal:
        if entry.seq > work.case.seen and (means := _MEANS.get(entry.action)):
            means(work, entry)


def _taken(work: _Work, entry: Entry) -> None:
    """Somebody took the ticket, or spoke to the requester, without a page."""
    escalation = work.escalation
    if escalation is None or entry.body.get("how") == "page":
        return
    need, _ = needs.latest(work.case.journal, redial_within=work.world.redial_within)
    if need is not None and not needs.meets(entry, need):
        return  # it is told late: since then the requester has needed somebody again
    if escalation.phase is Phase.TAKEN:
        work.tell(Progressed())
        return
    person = str(entry.body.get("engineer") or entry.actor.removeprefix(ENGINEER))
    how = str(entry.body.get("how", "call"))
    work.tell(Acknowledged(person=person, generation=escalation.generation, how=how))


def _progressed(work: _Work, entry: Entry) -> None:
    """Somebody works on it: they have it if others are still told, and it does not expire."""
    escalation = work.escalation
    if escalation is None or entry.actor in (SYSTEM, REQUESTER_ACTOR):
        return
    if escalation.phase in (Phase.PAGING, Phase.ATTACHED):
        person = entry.actor.removeprefix(ENGINEER)
        work.tell(Acknowledged(person=person, generation=escalation.generation, how="work"))
    work.tell(Progressed())


def _over(work: _Work, _entry: Entry) -> None:
    work.tell(Resolved())


def _reopened(work: _Work, _entry: Entry) -> None:
    """Go on one step higher; a ladder that never began does so as the open need says."""
    if work.escalation is not None and work.escalation.phase is Phase.OVER:
        work.tell(Reopened())


def _more_urgent(work: _Work, entry: Entry) -> None:
    """Begin as the policy of the new priority says, if it is higher than before."""
    body, escalation = entry.body, work.escalation
    is_rise = body["priority"] < body["before"] and body["priority"] == work.ticket.priority
    if not is_rise or work.ticket.state not in _WORKED_ON or not work.world.duties.sites:
        return
    if escalation is None:
        before = work.policy(work.assignment_at(Priority(body["before"])))
    else:
        before = escalation.policy
    if work.policy(work.assignment).key != before.key:
        work.begin()


def _classified(work: _Work, _entry: Entry) -> None:
    """Storm control knows a ticket by its symptom from when somebody names that."""
    escalation = work.escalation
    if escalation is None or escalation.facts.symptom == symptom(work.ticket):
        return
    facts = replace(escalation.facts, symptom=symptom(work.ticket))
    work.escalation = named = replace(escalation, facts=facts)
    if named.phase is Phase.ATTACHED:
        work.tell(GroupChanged())
    elif named.phase is Phase.PAGING and not named.acks:
        joined, effects = start(named.policy, facts, work.context(), work.world.now, after=named)
        if joined.leader:  # else nobody speaks for it, and its ladder goes on
            work.escalation = joined
            work.apply(effects)


def _handed_over(work: _Work, entry: Entry) -> None:
    person = str(entry.body["engineer"])
    if any(duty.engineer.key == person for duty in work.world.present):
        work.begin(first=person)
    elif work.mention(person, Reason.ASSIGNED, str(entry.seq), {}):
        escalation = work.escalation
        if escalation is not None and escalation.phase in (Phase.PAGING, Phase.ATTACHED):
            generation = escalation.generation
            work.tell(Acknowledged(person=person, generation=generation, how="hand_over"))
    else:
        # The desk has decided so, and nobody else is woken; but somebody has to hear of it.
        work.write("hand_over.not_told", SYSTEM, {"engineer": person})
        if work.world.duties.sites:
            work.begin()


def _team_assigned(work: _Work, entry: Entry) -> None:
    """Tell the team, unless somebody of it has the ticket already."""
    team = entry.body["team"]
    if not team or team != work.ticket.team or work.ticket.state not in _WORKED_ON:
        return
    members = {duty.engineer.key for duty in work.world.present if duty.team == team}
    if members and work.ticket.assignee not in members:
        work.begin()


def _offered(work: _Work, entry: Entry) -> None:
    """Tell who is sent to the site: they accept by key, reply or click."""
    number, person = str(entry.body["dispatch"]), str(entry.body["engineer"])
    if not work.reach(person, Reason.DISPATCH, number, {"dispatch": number}):
        work.write("dispatch.not_told", SYSTEM, {"dispatch": int(number), "engineer": person})


def _settled(work: _Work, entry: Entry) -> None:
    """Stop what still asks about a dispatch that was answered or is not wanted any more."""
    number, person = str(entry.body["dispatch"]), str(entry.body["engineer"])
    work.stopped += [
        _ref(Reason.DISPATCH, work.ticket, number, person, medium)
        for medium in (Medium.CALL, Medium.TEXT, Medium.MAIL)
    ]


def _called_off(work: _Work, entry: Entry) -> None:
    """Spare an engineer the way who has said that they go."""
    _settled(work, entry)
    number, person = str(entry.body["dispatch"]), str(entry.body["engineer"])
    goes = any(
        each.action == "dispatch.accepted" and str(each.body["dispatch"]) == number
        for each in work.case.journal
    )
    if goes and entry.actor != ENGINEER + person:
        work.reach(person, Reason.CALLED_OFF, number, {})


def _declined(work: _Work, entry: Entry) -> None:
    _settled(work, entry)
    _send_another(work, entry)


def _send_another(work: _Work, entry: Entry) -> None:
    """Have somebody else sent by who has the ticket, or else by the supervisor."""
    number, person = str(entry.body["dispatch"]), str(entry.body["engineer"])
    engineer = work.engineer(person)
    facts = {"engineer": engineer.name if engineer else person}
    for other in (work.ticket.assignee, work.context().supervisor):
        if other not in ("", person) and work.reach(other, Reason.DECLINED, number, facts):
            return
    work.write("dispatch.not_told", SYSTEM, {"dispatch": int(number), "engineer": ""})


def _accepted(work: _Work, entry: Entry) -> None:
    """Send the requester the code that the engineer will ask for."""
    _settled(work, entry)
    number = int(entry.body["dispatch"])
    code, engineer = work.case.codes.get(number, ""), work.engineer(str(entry.body["engineer"]))
    facts = {"code": code, "engineer": engineer.name if engineer else ""}
    if not code or not work.ask(Reason.CODE, str(number), facts, call=True):
        work.write("dispatch.code_not_sent", SYSTEM, {"dispatch": number})
    _progressed(work, entry)


def _ended(work: _Work, entry: Entry) -> None:
    """Let go of a ticket that only a question about another one has opened."""
    is_all = sum(each.action in ("opened", "contact.added") for each in work.case.journal) == 1
    asked_only = entry.body["outcome"] == CallOutcome.SELF_SERVICE
    if asked_only and is_all:
        _let_go(work, "asked for the progress of another ticket")


def _let_go(work: _Work, note: str) -> None:
    """Cancel a ticket of which nobody wants anything."""
    if work.ticket.state is State.NEW:
        work.decide(
            model.act(work.ticket, Action.CANCEL, actor=SYSTEM, note=note, now=work.world.now)
        )
        work.tell(Resolved())


def _opened(work: _Work, entry: Entry) -> None:
    """Confirm at once that what somebody wrote has a ticket: the one answer it gets unasked."""
    wish = _WISHES.get(entry.body.get("says", ""))
    if wish and sum(each.action == "contact.added" for each in work.case.journal) == 0:
        _let_go(work, wish)
    medium = closing.confirmed_by(entry, work.world.now)
    if medium is not None:
        work.write_to(Reason.RECEIVED, str(entry.seq), {}, {medium})
    elif closing.is_from_portal(entry, work.world.now):
        # Anybody may have written it: what they wrote must not reach somebody else through us.
        written = {Medium.TEXT, Medium.MAIL}
        work.write_to(Reason.RECEIVED, str(entry.seq), {"title": ""}, written)


_WISHES: Final[Mapping[str, str]] = {
    Says.STOP: "wants no texts",
    Says.START: "wants texts again",
}


def _reply_heard(work: _Work, entry: Entry) -> None:
    """Let go of a ticket that only a reply has opened, of an engineer who mistyped a number."""
    contacts = [e for e in work.case.journal if e.action in ("opened", "contact.added")]
    if len(contacts) == 1 and contacts[0].body["contact"] == entry.body["contact"]:
        _let_go(work, "a reply that was answered")


def _rated(work: _Work, entry: Entry) -> None:
    """Note a low mark for quality, once a ticket."""
    known = (*work.case.journal, *_as_entries(work))
    if entry.body["mark"] <= closing.LOW_UNTIL and not any(
        each.action == closing.LOW for each in known
    ):
        work.write(closing.LOW, SYSTEM, {"mark": entry.body["mark"]})


_MEANS: Final[Mapping[str, Callable[[_Work, Entry], None]]] = {
    "opened": _opened,
    "call.ended": _ended,
    "call.answered": _taken,
    "answered": _taken,
    "acknowledged": _taken,
    "assigned": _taken,
    "updated": _progressed,
    "on_my_way": _progressed,
    "held": _progressed,
    "remote.started": _progressed,
    "dispatch.offered": _offered,
    "dispatch.accepted": _accepted,
    "dispatch.declined": _declined,
    DISPATCH_LOST: _send_another,
    "dispatch.cancelled": _called_off,
    "dispatch.on_way": _progressed,
    "dispatch.arrived": _progressed,
    "classified": _classified,
    "priority.changed": _more_urgent,
    "handed_over": _handed_over,
    "team.assigned": _team_assigned,
    "resolved": _over,
    "closed": _over,
    "cancelled": _over,
    "reopened": _reopened,
    model.RATED: _rated,
    needs.REPLY_HEARD: _reply_heard,
}


def _meet(work: _Work) -> None:
    """Begin to tell people if somebody has to hear of the ticket and nobody is being told."""
    need, is_open = needs.latest(work.case.journal, redial_within=work.world.redial_within)
    # Also of a ticket that is over: whoever called meanwhile has spoken to nobody.
    if need is None or not is_open:
        return
    if need.due_at > work.world.now:
        work.look_again(need.due_at)
    elif not work.world.duties.sites:  # no rota is loaded: nobody can be told yet
        # On the minute: however many looks there are, they become one.
        work.look_again((work.world.now + _NO_ROTA).replace(second=0, microsecond=0))
    elif not _is_served(work, need):
        work.begin()


_WORKED_ON: Final = frozenset({State.NEW, State.IN_PROGRESS, State.PENDING})


def _is_served(work: _Work, need: Need) -> bool:
    """Return whether people are being told, or were since the need arose."""
    escalation = work.escalation
    if escalation is not None and escalation.phase in (Phase.PAGING, Phase.ATTACHED):
        return True
    return any(
        entry.seq > need.entry and entry.action in ("escalation.started", "escalation.reopened")
        for entry in work.case.journal
    )


# Promises


def _alarm(work: _Work, found: promises.News) -> None:
    """A share of a promise's time is spent: hurry those who are told, or tell who has it."""
    escalation, now = work.escalation, work.world.now
    is_told = escalation is not None and escalation.phase in (Phase.PAGING, Phase.ATTACHED)
    if not is_told:
        _mention_alarm(work, found)
        if found.percent < HURRIES_FROM or work.ticket.state not in _WORKED_ON:
            return
    if escalation is None:
        if work.world.duties.sites and now - found.at < _STALE:
            work.begin()
    elif escalation.started_at < now and not work.is_hurried:
        # Several clocks hurry once, and a ladder that begins now needs no haste.
        work.is_hurried = True
        work.tell(Escalated(by=SYSTEM, generation=escalation.generation))


def _mention_alarm(work: _Work, found: promises.News) -> None:
    if not work.ticket.assignee:
        return
    facts = {
        "metric": found.metric.value,
        "percent": str(found.percent),
        "due": found.due_at.isoformat() if found.due_at else "",
    }
    reason = Reason.BREACH if found.percent >= DUE else Reason.WARNING
    body = found.body
    key = f"{found.metric}-{body['entry']}-{body['goal_s']}-{found.percent}"
    work.mention(work.ticket.assignee, reason, key, facts)


# What the requester is told, and their word


def _inform(work: _Work) -> None:
    """Tell the requester how it goes on, if there is something new and a way to tell it."""
    telling = closing.next_telling((*work.case.journal, *_as_entries(work)))
    if telling is None or work.ticket.state not in _WORKED_ON or not work.can_write():
        return
    due_at = work.polite(telling.due_at)
    if due_at > work.world.now:
        work.look_again(due_at)
        return
    if due_at <= work.world.now - closing.STALE:
        return
    news = telling.news
    engineer = work.engineer(news.engineer)
    facts = {
        "stage": news.stage.value,
        "engineer": engineer.name if engineer else "",
        "note": news.note,
    }
    work.write(closing.TOLD, SYSTEM, closing.told_body(telling))
    work.write_to(Reason.PROGRESS, str(telling.number), facts, {Medium.TEXT, Medium.MAIL})


def _close(work: _Work) -> None:
    """Ask whether it is solved, ask again, and close it at last."""
    settled = (*work.case.journal, *_as_entries(work))
    step = closing.next_step(settled, work.world.terms.closing)
    if step is None:
        return
    if step.due_at > work.world.now:
        work.look_again(step.due_at)
    elif step.act is closing.Act.CLOSE:
        work.decide(
            model.act(work.ticket, Action.CLOSE, actor=SYSTEM, note="no answer", now=work.world.now)
        )
        work.tell(Resolved())
        work.ask(Reason.CLOSED, str(work.ticket.journal_seq), {}, call=False)
    else:
        _ask(work, step)


def _survey(work: _Work) -> None:
    """Ask for a mark, some time after the ticket was closed; nobody is rung for it."""
    settled = (*work.case.journal, *_as_entries(work))
    asked_at = closing.survey_due(settled, work.world.terms.closing)
    if asked_at is None or asked_at <= work.world.now - closing.SURVEY_STALE:
        return
    due_at = work.polite(max(asked_at, work.world.now))
    if due_at > work.world.now:
        work.look_again(due_at)
        return
    media = {Medium.TEXT, Medium.MAIL}
    reached = work.write_to(Reason.SURVEY, str(work.ticket.journal_seq), {}, media)
    work.write(closing.SURVEYED, SYSTEM, {"reached": reached})


def _as_entries(work: _Work) -> tuple[Entry, ...]:
    return model.sealed(work.ticket, work.drafts)[1]


def _ask(work: _Work, step: closing.Step) -> None:
    reason = Reason.SOLVED if step.act is closing.Act.ASK else Reason.REMINDER
    # Asked in the morning, they have the whole time to answer.
    if (due_at := work.polite(work.world.now)) > work.world.now:
        work.look_again(due_at)
        return
    key = str(work.ticket.journal_seq)
    written = work.ask(reason, key, {}, call=False)
    allowed_at = closing.may_call(work.world.now, work.zone)
    if not written and allowed_at > work.world.now and Medium.CALL in work.world.media:
        work.look_again(allowed_at)
        return
    reached = written or work.ask(reason, key, {}, call=True)
    work.write(
        closing.ASKED, SYSTEM, {"reached": reached, "again": step.act is not closing.Act.ASK}
    )
    following = closing.next_step(
        (*work.case.journal, *_as_entries(work)), work.world.terms.closing
    )
    if following is not None:
        work.look_again(following.due_at)
