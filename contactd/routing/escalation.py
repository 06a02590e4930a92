"""Whom to tell next about a ticket until somebody takes it: steps and acknowledgements (pure).

How it is meant to be used: one `Escalation` is stored per ticket. `start` makes it; every timer,
key press, reply, click, receipt and change of the rota goes through `handle`. Both return the new
value and effects, and both belong into one commit: a `Notify` becomes an outbox row under its
`dedup_key`, an `Arm` becomes the timer that later comes back as `StepDue` or `AckExpired`, a
`Record` becomes an entry of the ticket's journal. Duty, people's rules, the floor's number and the
group's page come in as a `Context` that is true at `now`. Key 1 is `Acknowledged`, key 2 `Passed`,
key 4 `Acknowledged` and then `Progressed`.

What is old changes nothing. Each time something fires, the generation rises, and answers carry the
generation of the page that they answer. A timer is old unless it is of the present generation.
"Pass on" and "escalate" are old once other people are being told: else they would skip those. "I
take it" is good for as long as this ladder lasts: whoever presses 1 a second after tier 2 began to
ring has the ticket all the same, but not if the ladder was begun anew since.

Source: requirements B5 and D3; design.md, "Clocks, duty, escalation".
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from contactd.errors import ConfigurationError
from contactd.tickets.contact import Medium

FLOOR: Final = "floor"  # stands for a site's floor number, as oncall.FLOOR_KEY
SYSTEM: Final = "system"
_ENGINEER: Final = "engineer:"  # before a person's key, as the journal names actors
_NOTHING: Final = timedelta(0)
_MEDIA: Final = frozenset({Medium.CALL, Medium.TEXT, Medium.MAIL})


# What was decided beforehand: policies


class Whom(StrEnum):
    PERSON = "person"  # if on duty
    TEAM = "team"  # those on duty at a site in one team, or one tier
    EVERYBODY = "everybody"  # those on duty at the site, in any tier
    SUPERVISOR = "supervisor"  # on duty or not
    FLOOR = "floor"  # the site's floor number


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """`person` is for PERSON, `team` or else `tier` for TEAM; `site` "" is the ticket's own."""

    whom: Whom
    person: str = ""
    site: str = ""
    tier: int = 0
    team: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Some people to tell, all at the same time or one after the other.

    With nobody on duty at the site at all, its floor is told in place of a team or of everybody.
    A step that still finds nobody is skipped at once.
    """

    delay: timedelta = _NOTHING  # after the last people of the step before were told
    targets: tuple[Target, ...]
    need_acks: int = 1  # the most that a step so far has asked for counts
    parallel: bool = False
    each: timedelta = timedelta(minutes=1)  # one after the other: the time that each one has
    conference: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A version of a ladder; an escalation keeps the one with which it started.

    Raises:
        ConfigurationError: it makes no sense; one line for each fault, with the key's name.
    """

    key: str
    version: int
    steps: tuple[Step, ...]
    rounds: int = 3  # how often the whole ladder is gone through before only the floor is told
    again_after: timedelta = timedelta(minutes=5)  # between rounds, and between calls to the floor
    ack_expires: timedelta = timedelta(minutes=60)  # 15 for P1 (issue 3)
    group_within: timedelta = timedelta(minutes=30)  # storm control; 0: every ticket rings

    def __post_init__(self) -> None:
        if found := list(_faults(self)):
            raise ConfigurationError("\n".join(f"policy {self.key!r}: {line}" for line in found))


def _faults(policy: Policy) -> Iterable[str]:
    checks = {
        "key: must not be empty": bool(policy.key),
        "version: must be 1 or more": policy.version >= 1,
        "steps: must not be empty": bool(policy.steps),
        "rounds: must be 1 or more": policy.rounds >= 1,
        "again_after: must be longer than 0": policy.again_after > _NOTHING,
        "ack_expires: must be longer than 0": policy.ack_expires > _NOTHING,
        "group_within: must not be negative": policy.group_within >= _NOTHING,
    }
    for number, step in enumerate(policy.steps):
        at = f"steps[{number}]"
        checks |= {
            f"{at}.targets: must not be empty": bool(step.targets),
            f"{at}.delay: must not be negative": step.delay >= _NOTHING,
            f"{at}.each: must be longer than 0": step.each > _NOTHING,
            f"{at}.need_acks: must be 1 or more": step.need_acks >= 1,
        }
        for place, target in enumerate(step.targets):
            named = bool(target.person) or target.whom is not Whom.PERSON
            checks[f"{at}.targets[{place}].person: must not be empty"] = named
            tiered = target.tier >= 1 or bool(target.team) or target.whom is not Whom.TEAM
            checks[f"{at}.targets[{place}].tier: must be 1 or more, or give a team"] = tiered
    return (line for line, holds in checks.items() if not holds)


# What is true now: comes in with each event


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One of a person's own rules. The first medium is used at once whatever `after` says."""

    medium: Medium
    after: timedelta = _NOTHING  # since the person's turn came

    def __post_init__(self) -> None:
        if self.medium not in _MEDIA:
            raise ValueError(f"rule.medium: nobody can be paged by {self.medium.value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class OnDuty:
    person: str  # engineer's key
    site: str
    tier: int
    team: str = ""  # whoever took over a whole tier is of none


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketFacts:
    ticket: str  # number
    priority: str  # P1 … P4
    site: str = ""  # site key, "" when unknown: whoever is on duty anywhere
    symptom: str = ""  # what storm control groups by, with the site; "": never grouped


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The page that is open for a site and symptom, as `open_page` makes it."""

    ticket: str
    site: str
    symptom: str
    priority: str
    paged_at: datetime  # when its first message had gone out
    taken_by: str  # "" while nobody has


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What is true at the instant of an event.

    `on_duty` is in the order in which people are told one after the other (e.g. the assignee and
    the nearest first). Somebody without rules is called.

    Raises:
        ValueError: the floor has no number; it may never be empty (requirement D1).
    """

    on_duty: tuple[OnDuty, ...]
    floor: str  # the site's floor number
    rules: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict)  # by person
    supervisor: str = ""  # key, "" if there is none
    group: Group | None = None

    def __post_init__(self) -> None:
        if not self.floor:
            raise ValueError("context.floor: must not be empty")


# What is kept per ticket


class Phase(StrEnum):
    PAGING = "paging"  # people are being told
    ATTACHED = "attached"  # the page of another ticket with this site and symptom speaks for it
    TAKEN = "taken"
    OVER = "over"  # resolved, closed or cancelled


class Outcome(StrEnum):
    QUEUED = "queued"  # decided
    SENT = "sent"  # it has gone out: the phone rings, the gateway has accepted it
    DELIVERED = "delivered"  # picked up, or a receipt came: proves nothing yet
    NOT_REACHED = "not_reached"  # no answer or no key: also what an answering machine does
    UNKNOWN = "unknown"  # a crash fell between sending and noting
    DOUBTFUL = "doubtful"  # looked up twice and still unknown: telling again is the lesser evil
    FAILED = "failed"  # refused for good, after the notifier's own retries
    STOPPED = "stopped"  # no longer wanted


# What may follow on what: a receipt that comes late or twice undoes nothing.
_FOLLOWS: Final[Mapping[Outcome, frozenset[Outcome]]] = {
    Outcome.QUEUED: frozenset(
        {
            Outcome.SENT,
            Outcome.DELIVERED,
            Outcome.NOT_REACHED,
            Outcome.UNKNOWN,
            Outcome.FAILED,
        }
    ),
    Outcome.SENT: frozenset(
        {Outcome.DELIVERED, Outcome.NOT_REACHED, Outcome.UNKNOWN, Outcome.FAILED}
    ),
    Outcome.DELIVERED: frozenset({Outcome.NOT_REACHED}),
    Outcome.UNKNOWN: frozenset(
        {Outcome.SENT, Outcome.DELIVERED, Outcome.NOT_REACHED, Outcome.FAILED}
    ),
    Outcome.DOUBTFUL: frozenset(
        {Outcome.SENT, Outcome.DELIVERED, Outcome.NOT_REACHED, Outcome.FAILED}
    ),
    Outcome.NOT_REACHED: frozenset(),
    Outcome.FAILED: frozenset(),
    Outcome.STOPPED: frozenset(),
}
_GONE_OUT: Final = frozenset({Outcome.SENT, Outcome.DELIVERED, Outcome.NOT_REACHED})
_STOPPABLE: Final = frozenset({Outcome.QUEUED, Outcome.SENT, Outcome.DELIVERED})
_UNHEARD: Final = frozenset({Outcome.QUEUED, Outcome.SENT})  # not picked up
_IN_DOUBT: Final = frozenset({Outcome.UNKNOWN, Outcome.DOUBTFUL})
_USELESS: Final = frozenset({Outcome.FAILED, Outcome.STOPPED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One message to one person; `generation` is that of the last time it was wanted."""

    ref: str
    person: str
    medium: Medium
    step: int
    generation: int
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A further medium of somebody whose turn has come."""

    person: str
    medium: Medium
    at: datetime


class Timer(StrEnum):
    STEP = "step"  # comes back as StepDue
    ACK = "ack"  # comes back as AckExpired


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """A timer to be made; that of an earlier generation is dead and may stay or be removed."""

    key: str  # unique over all time
    timer: Timer
    at: datetime
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Escalation:
    """What is known of telling people about one ticket.

    The generations are in order: `since` (this ladder began), `round_since`, `turn` (those who are
    `asked` now were told), `generation`. A step's index equal to the number of steps means the
    floor. Notices are those of this round and the last one for each person and medium.
    """

    policy: Policy
    facts: TicketFacts
    started_at: datetime  # this ladder
    phase: Phase = Phase.PAGING
    generation: int = 0
    since: int = 0
    round_since: int = 0
    turn: int = 0
    round: int = 1  # beyond policy.rounds only the floor is told
    step: int = -1  # the last one that fired, -1 before the first
    need: int = 1
    next_at: datetime | None = None  # next people, next look at the group, expiry of the ack
    asked: tuple[str, ...] = ()  # the ladder goes on at once if none of them can answer
    told: frozenset[str] = frozenset()  # whose turn came in this step
    meant: frozenset[str] = frozenset()  # everybody whom this round's steps were meant for
    pending: tuple[Pending, ...] = ()
    notices: tuple[Notice, ...] = ()
    acks: tuple[str, ...] = ()
    passed: frozenset[str] = frozenset()  # in this round
    conference: bool = False
    paged_at: datetime | None = None  # when this ladder's first message had gone out
    leader: str = ""  # the ticket whose page speaks for this one
    timer: Arm | None = None  # the only one that is alive


# Events


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDue:
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AckExpired:
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledged:
    """Somebody takes the ticket by a key, a reply or a click; an answered call is none."""

    person: str
    generation: int
    how: str  # call, text, mail, web, group


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    person: str
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Escalated:
    """By hand, or by a clock's warning: the next step at once."""

    by: str  # actor, as the journal names it
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """What became of a message: SENT, DELIVERED, NOT_REACHED, UNKNOWN or FAILED."""

    ref: str
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class DutyChanged:
    """Somebody came on duty or left: a hand-off, leave, a swap; the context says who is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupChanged:
    """The page that speaks for this ticket was taken or is over; the context says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progressed:
    """Work goes on (a session, a dispatch, an update, a hold): the ack no longer expires."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """The ticket is resolved, closed or cancelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reopened:
    """Not solved: the ladder begins one step above the one at which the ticket was taken."""


Event = (
    StepDue
    | AckExpired
    | Acknowledged
    | Passed
    | Escalated
    | Reported
    | DutyChanged
    | GroupChanged
    | Progressed
    | Resolved
    | Reopened
)


# Effects


@dataclass(frozen=True, slots=True, kw_only=True)
class Notify:
    """Tell `person` by `medium`, if the notice `ref` of the stored escalation is still queued."""

    dedup_key: str  # unique over all time
    person: str  # engineer's key, or FLOOR
    medium: Medium
    step: int
    generation: int  # answers carry it back
    ref: str  # the channel's id or the client reference at the gateway


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconcile:
    """Look `ref` up where it was sent; send it if it never went out; report the outcome."""

    ref: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StopOthers:
    """Hang up or take back what is still under way."""

    refs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenConference:
    ticket: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Assign:
    person: str  # engineer's key, or FLOOR


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """An entry for the ticket's journal; `body` is what JSON keeps."""

    at: datetime
    actor: str
    action: str
    body: Mapping[str, Any]


Effect = Notify | Reconcile | Arm | StopOthers | OpenConference | Assign | Record


# Interface


def start(
    policy: Policy,
    facts: TicketFacts,
    context: Context,
    now: datetime,
    after: Escalation | None = None,
) -> tuple[Escalation, list[Effect]]:
    """Begin to tell people about a ticket, unless its group's page speaks for it already.

    `after` is the ticket's escalation so far, when another policy takes its place (the priority
    was raised): its pages are stopped, its generations go on.

    Raises:
        ValueError: `now` has no zone, the ticket has no number, or `after` is another ticket's.
    """
    _check(now)
    if not facts.ticket:
        raise ValueError("facts.ticket: must not be empty")
    if after is not None and after.facts.ticket != facts.ticket:
        raise ValueError(f"after.facts.ticket: is {after.facts.ticket}, not {facts.ticket}")
    new = Escalation(policy=policy, facts=facts, started_at=now)
    work = _Work(context=context, now=now, state=new)
    if after is not None:
        work.set(generation=after.generation, notices=after.notices)
        _stop(work, keep=())
    work.rise()
    work.record("started", policy=policy.key, version=policy.version)
    _begin_or_attach(work)
    return _done(work)


def handle(
    escalation: Escalation, event: Event, context: Context, now: datetime
) -> tuple[Escalation, list[Effect]]:
    """Return what becomes of the escalation, and what is to be done.

    An event that is old, or that makes no sense at this point, changes nothing; if a person sent
    it, a `Record` "escalation.ignored" says why.

    Raises:
        ValueError: `now` has no zone.
    """
    _check(now)
    work = _Work(context=context, now=now, state=escalation)
    if _is_old(escalation, event):
        _ignore(work, event, "old")
    elif (handler := _HANDLERS[escalation.phase].get(type(event))) is None:
        _ignore(work, event, escalation.phase.value)
    else:
        handler(work, event)
    return _done(work)


def open_page(escalation: Escalation) -> Group | None:
    """Return the page to which later tickets of the same site and symptom may be attached.

    There is none before its first message has gone out, so that grouping never delays a page.
    """
    facts = escalation.facts
    is_open = escalation.phase in (Phase.PAGING, Phase.TAKEN) and not escalation.leader
    if not is_open or not facts.symptom or escalation.paged_at is None:
        return None
    return Group(
        ticket=facts.ticket,
        site=facts.site,
        symptom=facts.symptom,
        priority=facts.priority,
        paged_at=escalation.paged_at,
        taken_by=escalation.acks[0] if escalation.phase is Phase.TAKEN else "",
    )


def _check(now: datetime) -> None:
    if now.utcoffset() is None:
        raise ValueError("now: must have a zone")


# Work in progress: nothing of it outlives one call of `start` or `handle`


@dataclass(slots=True, kw_only=True)
class _Work:
    context: Context
    now: datetime
    state: Escalation
    effects: list[Effect] = field(default_factory=list)

    def set(self, **changes: Any) -> None:
        self.state = replace(self.state, **changes)

    def rise(self) -> None:
        """Make what is armed and what was asked for before old."""
        self.set(generation=self.state.generation + 1)

    def record(self, action: str, *, actor: str = SYSTEM, **body: Any) -> None:
        entry = {**body, "generation": self.state.generation}
        self.effects.append(
            Record(at=self.now, actor=actor, action=f"escalation.{action}", body=entry)
        )


def _done(work: _Work) -> tuple[Escalation, list[Effect]]:
    """Arm the one timer that is needed if what was armed is dead."""
    state = work.state
    if state.next_at is None:
        work.set(timer=None)
    elif state.timer is None or state.timer.generation != state.generation:
        timer = Timer.ACK if state.phase is Phase.TAKEN else Timer.STEP
        arm = Arm(
            key=f"{state.facts.ticket}-{timer.value}-{state.generation}",
            timer=timer,
            at=min([state.next_at, *(each.at for each in state.pending)]),
            generation=state.generation,
        )
        work.set(timer=arm)
        work.effects.append(arm)
    return work.state, work.effects


def _is_old(state: Escalation, event: Event) -> bool:
    match event:
        case StepDue(generation=generation) | AckExpired(generation=generation):
            return generation != state.generation
        case Acknowledged(generation=generation):
            return not state.since <= generation <= state.generation
        case Passed(generation=generation) | Escalated(generation=generation):
            return not state.turn <= generation <= state.generation
        case _:
            return False


def _ignore(work: _Work, event: Event, reason: str) -> None:
    match event:
        case (
            Acknowledged(person=person, generation=generation)
            | Passed(person=person, generation=generation)
        ):
            actor = _ENGINEER + person
        case Escalated(by=actor, generation=generation):
            pass
        case _:
            return  # a machine's: old timers and late receipts are nothing to write down
    body = {"event": type(event).__name__, "reason": reason, "answered": generation}
    work.record("ignored", actor=actor, **body)


# Who is meant, and who may be told


def _people(work: _Work, step: int) -> list[str]:
    """Return whom `step` is meant for now, each once, in order."""
    found: dict[str, None] = {}
    for target in work.state.policy.steps[step].targets:
        found |= dict.fromkeys(_WHO[target.whom](work, target))
    return list(found)


def _person(work: _Work, target: Target) -> list[str]:
    return [target.person] if _may_hear(work, target.person) else []


def _team(work: _Work, target: Target) -> list[str]:
    present = _present(work, target.site)
    if not present:
        return [FLOOR]
    if target.team:
        return [duty.person for duty in present if duty.team == target.team]
    return [duty.person for duty in present if duty.tier == target.tier]


def _everybody(work: _Work, target: Target) -> list[str]:
    return [duty.person for duty in _present(work, target.site)] or [FLOOR]


def _supervisor(work: _Work, _: Target) -> list[str]:
    return [work.context.supervisor] if work.context.supervisor else []


def _floor(_: _Work, __: Target) -> list[str]:
    return [FLOOR]


_WHO: Final[Mapping[Whom, Callable[[_Work, Target], list[str]]]] = {
    Whom.PERSON: _person,
    Whom.TEAM: _team,
    Whom.EVERYBODY: _everybody,
    Whom.SUPERVISOR: _supervisor,
    Whom.FLOOR: _floor,
}


def _present(work: _Work, site: str) -> list[OnDuty]:
    at = site or work.state.facts.site
    return [duty for duty in work.context.on_duty if at in ("", duty.site)]


def _may_hear(work: _Work, person: str) -> bool:
    return person in (FLOOR, work.context.supervisor) or any(
        duty.person == person for duty in work.context.on_duty
    )


def _left(work: _Work, step: int) -> list[str]:
    """Return whom `step` has still to tell: nobody twice, nobody who has answered."""
    state = work.state
    told = set(state.acks) | state.passed
    if step == state.step:
        told |= state.told
    return [person for person in _people(work, step) if person not in told]


def _waits(work: _Work, person: str) -> bool:
    """Return whether an answer may still come from somebody who was told in this round."""
    state = work.state
    if person in state.passed or person in state.acks or not _may_hear(work, person):
        return False
    return any(each.person == person for each in state.pending) or any(
        each.person == person
        and each.generation >= state.round_since
        and each.outcome not in _USELESS
        for each in state.notices
    )


# Telling


def _tell(work: _Work, people: list[str]) -> None:
    """Begin with each one's first medium and plan the others."""
    planned = [each for each in work.state.pending if each.person not in people]
    for person in people:
        call = (Rule(medium=Medium.CALL),)
        rules = (work.context.rules.get(person) if person != FLOOR else None) or call
        first, *others = sorted(rules, key=lambda rule: rule.after)
        planned.append(Pending(person=person, medium=first.medium, at=work.now))
        planned += [
            Pending(person=person, medium=rule.medium, at=work.now + rule.after) for rule in others
        ]
    work.set(pending=tuple(planned), told=work.state.told | frozenset(people))
    work.record("told", people=people, step=work.state.step, round=work.state.round)
    _send_due(work)


def _send_due(work: _Work) -> None:
    state = work.state
    due = [each for each in state.pending if each.at <= work.now]
    work.set(pending=tuple(each for each in state.pending if each.at > work.now))
    for person, medium in dict.fromkeys((each.person, each.medium) for each in due):
        if _may_hear(work, person):
            _send(work, person, medium)


def _send(work: _Work, person: str, medium: Medium) -> None:
    state = work.state
    same = [each for each in state.notices if (each.person, each.medium) == (person, medium)]
    if same and same[-1].generation == state.generation:
        return  # a further medium and the next turn were due in the same moment
    if same and same[-1].outcome is Outcome.UNKNOWN:
        # Perhaps the phone did ring. Once only: a floor must not stay silent for ever because
        # one call of it could never be cleared up.
        doubtful = replace(
            same[-1],
            outcome=Outcome.DOUBTFUL,
            generation=state.generation,
            step=state.step,
        )
        _put(work, doubtful)
        work.effects.append(Reconcile(ref=doubtful.ref))
        return
    key = f"{state.facts.ticket}-{state.generation}-{person}-{medium.value}"
    notice = Notice(
        ref=f"page-{key}",
        person=person,
        medium=medium,
        step=state.step,
        generation=state.generation,
        outcome=Outcome.QUEUED,
    )
    work.set(notices=(*state.notices, notice))
    work.effects.append(
        Notify(
            dedup_key=f"notify-{key}",
            person=person,
            medium=medium,
            step=state.step,
            generation=state.generation,
            ref=notice.ref,
        )
    )


def _put(work: _Work, notice: Notice) -> None:
    """Put `notice` in the place of the one with its `ref`."""
    notices = tuple(notice if each.ref == notice.ref else each for each in work.state.notices)
    work.set(notices=notices)


def _stop(work: _Work, *, keep: Iterable[str]) -> None:
    """Stop what is under way to anybody but `keep`. What is unknown stays so until looked up."""
    stopped = frozenset(keep)
    wanted = [each for each in work.state.notices if each.person not in stopped]
    refs = tuple(each.ref for each in wanted if each.outcome in _STOPPABLE | _IN_DOUBT)
    for each in wanted:
        if each.outcome in _STOPPABLE:
            _put(work, replace(each, outcome=Outcome.STOPPED))
    work.set(pending=(), asked=())
    if refs:
        work.effects.append(StopOthers(refs=refs))


# Climbing


def _begin(work: _Work, step: int | None = None) -> None:
    """Begin the ladder: at its bottom, or at once at `step`."""
    state, now = work.state, work.now
    work.set(phase=Phase.PAGING, acks=(), need=1, leader="")
    _mark(work)
    _begin_round(work)
    if step is not None:
        work.set(step=step - 1)
        _advance(work, skip=True)
    elif delay := state.policy.steps[0].delay:
        work.set(next_at=now + delay)
    else:
        _advance(work)


def _mark(work: _Work) -> None:
    """Begin another ladder here: what was answered before is old."""
    generation = work.state.generation
    work.set(
        started_at=work.now,
        since=generation,
        round_since=generation,
        turn=generation,
        round=1,
        step=-1,
        conference=False,
        paged_at=None,
    )


def _begin_round(work: _Work) -> None:
    last = {(each.person, each.medium): each.ref for each in work.state.notices}
    kept = frozenset(last.values())
    work.set(
        round_since=work.state.generation,
        turn=work.state.generation,  # also if nobody is left to be told
        step=-1,
        asked=(),
        told=frozenset(),
        meant=frozenset(),
        pending=(),
        passed=frozenset(),
        notices=tuple(each for each in work.state.notices if each.ref in kept),
    )


def _advance(work: _Work, *, waited: bool = False, skip: bool = False) -> None:
    """Tell the next people: of this step (unless `skip`), of a later one, or at last the floor.

    `waited`: the time that those before had is over.
    """
    state = work.state
    steps = state.policy.steps
    step, people = state.step, []
    if 0 <= step < len(steps) and not steps[step].parallel and not skip:
        people = _left(work, step)
    if not people and waited and step >= len(steps) - 1:
        _go_round(work)
        return
    while not people and step < len(steps) - 1:
        step += 1
        people = _left(work, step)
    if people:
        _turn(work, step, people)
    else:
        _end_round(work, hurried=skip)


def _turn(work: _Work, step: int, people: list[str]) -> None:
    """Tell the first of `people`, or all of them if the step is parallel."""
    state = work.state
    steps, spec = state.policy.steps, state.policy.steps[step]
    asked = people if spec.parallel else people[:1]
    wait = steps[step + 1].delay if step + 1 < len(steps) else state.policy.again_after
    work.set(
        step=step,
        told=state.told if step == state.step else frozenset(),
        turn=state.generation,
        need=max(state.need, spec.need_acks),
        meant=state.meant | frozenset(_people(work, step)),
        asked=tuple(asked),
        next_at=work.now + (spec.each if len(asked) < len(people) else wait),
    )
    if spec.conference and not state.conference:
        work.set(conference=True)
        work.effects.append(OpenConference(ticket=state.facts.ticket))
    _tell(work, asked)


def _end_round(work: _Work, *, hurried: bool) -> None:
    """Wait for those who may still answer; if there are none the floor is told at once."""
    state = work.state
    end = len(state.policy.steps)
    told = [each.person for each in state.notices if each.generation >= state.round_since]
    waiting = tuple(person for person in dict.fromkeys(told) if _waits(work, person))
    tell_floor = (hurried or not waiting) and FLOOR not in (*state.asked, *state.acks)
    if state.step < end or tell_floor:
        again_at = work.now + state.policy.again_after
        # Who is in a hurry must not put off what is due before.
        work.set(next_at=min(again_at, state.next_at) if hurried and state.next_at else again_at)
    if tell_floor:
        _tell_floor(work)
    else:
        work.set(step=end, asked=waiting or state.asked)


def _go_round(work: _Work) -> None:
    """Begin the ladder anew; after the last round tell the floor, again and again."""
    state = work.state
    if state.round < state.policy.rounds:
        _begin_round(work)
        work.set(round=state.round + 1)
        _advance(work)
    elif state.acks:
        # Fewer than were wanted have taken it, and everybody was told: that has to do.
        work.record("short", acks=list(state.acks), need=state.need)
        _settle(work)
        if FLOOR not in state.acks:
            _send(work, FLOOR, Medium.CALL)
    else:
        meant, passed = state.meant, state.passed
        _begin_round(work)
        work.set(round=state.round + 1, need=1, meant=meant, passed=passed)
        work.set(next_at=work.now + state.policy.again_after)
        _tell_floor(work)


def _tell_floor(work: _Work) -> None:
    end, generation = len(work.state.policy.steps), work.state.generation
    work.set(step=end, turn=generation, asked=(FLOOR,))
    _tell(work, [FLOOR])


def _go_on(work: _Work) -> None:
    """Go on at once if no answer can come any more from those who are asked now."""
    asked = work.state.asked
    if asked and not any(_waits(work, person) for person in asked):
        _advance(work)


def _settle(work: _Work) -> None:
    """Enough have acknowledged: stop the others and wait for progress."""
    state = work.state
    _stop(work, keep=state.acks)
    work.set(
        phase=Phase.TAKEN,
        turn=state.generation,
        next_at=work.now + state.policy.ack_expires,
    )


# Storm control


def _speaks_for(work: _Work) -> Group | None:
    """Return the open page that makes ringing about this ticket needless, if there is one.

    Only a page that is at least as urgent does: it rings at least as many people.
    """
    state, group = work.state, work.context.group
    facts = state.facts
    if group is None or not facts.symptom or group.ticket == facts.ticket:
        return None
    if ":" in group.taken_by:
        return None  # a user of the pages, who cannot be given the others
    same = (group.site, group.symptom) == (facts.site, facts.symptom)
    recent = work.now - group.paged_at < state.policy.group_within
    if same and group.priority <= facts.priority and (recent or group.ticket == state.leader):
        return group
    return None


def _begin_or_attach(work: _Work) -> None:
    group = _speaks_for(work)
    if group is None:
        _begin(work)
        return
    state = work.state
    if state.phase is not Phase.ATTACHED or state.leader != group.ticket:
        work.set(phase=Phase.ATTACHED, leader=group.ticket, acks=(), need=1)
        _mark(work)
        work.record("attached", to=group.ticket)
    # Look again, lest it be forgotten.
    work.set(next_at=work.now + state.policy.again_after)
    if group.taken_by:
        _accept(work, group.taken_by, how="group")


# Handlers of events


def _step_due(work: _Work, _: StepDue) -> None:
    work.rise()
    _send_due(work)
    # The timer may have been for somebody's second medium only.
    if work.state.next_at is not None and work.state.next_at <= work.now:
        _advance(work, waited=True)


def _look_at_group(work: _Work, _: Event) -> None:
    work.rise()
    _begin_or_attach(work)


def _acknowledged(work: _Work, event: Acknowledged) -> None:
    if event.person in work.state.acks:
        _ignore(work, event, "again")
    else:
        work.rise()
        _accept(work, event.person, how=event.how)


def _hush(work: _Work, person: str, *, but: str) -> None:
    """Stop what still rings somebody who has answered by another medium."""
    mine = [each for each in work.state.notices if each.person == person and each.medium != but]
    unheard = [each for each in mine if each.outcome in _UNHEARD]
    for each in unheard:
        _put(work, replace(each, outcome=Outcome.STOPPED))
    if unheard:
        work.effects.append(StopOthers(refs=tuple(each.ref for each in unheard)))


def _accept(work: _Work, person: str, *, how: str) -> None:
    state = work.state
    acks = (*state.acks, person)
    pending = tuple(each for each in state.pending if each.person != person)
    work.set(acks=acks, pending=pending)
    _hush(work, person, but=how)
    actor = person if ":" in person else _ENGINEER + person
    work.record("acknowledged", actor=actor, how=how, acks=len(acks), need=state.need)
    if len(acks) == 1:
        work.effects.append(Assign(person=person))
    if state.phase is Phase.ATTACHED or len(acks) >= state.need:
        _settle(work)
    else:
        _go_on(work)


def _passed_on(work: _Work, event: Passed) -> None:
    if event.person in work.state.passed:
        _ignore(work, event, "again")
        return
    work.rise()
    work.record("passed", actor=_ENGINEER + event.person)
    if event.person == FLOOR:
        return  # there is nobody behind the floor: it is rung again in its time
    state = work.state
    pending = tuple(each for each in state.pending if each.person != event.person)
    work.set(passed=state.passed | {event.person}, pending=pending)
    _go_on(work)


def _duty_changed(work: _Work, _: DutyChanged) -> None:
    """Tell who comes on duty now; plan nothing more for who has left."""
    state = work.state
    told = {each.person for each in state.notices if each.generation >= state.round_since}
    known = state.meant | told | state.passed | frozenset(state.acks)
    fired = range(min(state.step + 1, len(state.policy.steps)))
    now_meant = dict.fromkeys(person for step in fired for person in _people(work, step))
    come = [person for person in now_meant if person not in known]
    stay = tuple(each for each in state.pending if _may_hear(work, each.person))
    gone = bool(state.asked) and not any(_waits(work, person) for person in state.asked)
    if not come and not gone and stay == state.pending:
        return
    work.rise()
    work.set(pending=stay, meant=state.meant | frozenset(come), asked=(*state.asked, *come))
    if come:
        _tell(work, come)
    _go_on(work)


def _escalated(work: _Work, event: Escalated) -> None:
    work.rise()
    work.record("escalated", actor=event.by)
    _advance(work, skip=True)


def _escalated_higher(work: _Work, event: Escalated) -> None:
    """Somebody has it, and it is not enough."""
    work.rise()
    work.record("escalated", actor=event.by)
    _begin(work, _above(work.state))


def _above(state: Escalation) -> int:
    """Return the step above the one at which the ticket was taken; the last one has none."""
    last = len(state.policy.steps) - 1
    return state.step if state.step >= last else state.step + 1


def _reported(work: _Work, event: Reported) -> None:
    found = [each for each in work.state.notices if each.ref == event.ref]
    if not found or event.outcome not in _FOLLOWS[found[0].outcome]:
        return
    notice = replace(found[0], outcome=event.outcome)
    _put(work, notice)
    if event.outcome is Outcome.UNKNOWN:
        work.effects.append(Reconcile(ref=event.ref))
    is_ours = notice.generation >= work.state.since  # not of an earlier ladder
    if event.outcome in _GONE_OUT and is_ours and work.state.paged_at is None:
        work.set(paged_at=work.now)
    if event.outcome is Outcome.FAILED and work.state.phase is Phase.PAGING:
        _after_failure(work, notice)


def _after_failure(work: _Work, failed: Notice) -> None:
    """Use the person's next medium at once, or go on to the next person if there is none."""
    work.rise()
    state = work.state
    own = sorted(
        (each for each in state.pending if each.person == failed.person), key=lambda each: each.at
    )
    if own:
        hurried = replace(own[0], at=work.now)
        work.set(pending=tuple(hurried if each is own[0] else each for each in state.pending))
        _send_due(work)
    _go_on(work)


def _ack_expired(work: _Work, _: AckExpired) -> None:
    work.rise()
    work.record("expired", acks=list(work.state.acks))
    paged_at = work.state.paged_at
    _begin_or_attach(work)
    if work.state.phase is Phase.PAGING:
        # Those that wait for this page go on to: it has gone out once.
        work.set(paged_at=paged_at)


def _progressed(work: _Work, _: Progressed) -> None:
    work.rise()
    work.set(next_at=None)


def _resolved(work: _Work, _: Resolved) -> None:
    work.rise()
    work.record("over")
    _stop(work, keep=work.state.acks)
    work.set(phase=Phase.OVER, next_at=None)


def _reopened(work: _Work, _: Reopened) -> None:
    work.rise()
    work.record("reopened")
    _begin(work, _above(work.state) if work.state.acks else None)


# What is not here is ignored.
_Handlers = Mapping[type[Event], Callable[[_Work, Any], None]]
_HANDLERS: Final[Mapping[Phase, _Handlers]] = {
    Phase.PAGING: {
        StepDue: _step_due,
        Acknowledged: _acknowledged,
        Passed: _passed_on,
        Escalated: _escalated,
        Reported: _reported,
        DutyChanged: _duty_changed,
        Resolved: _resolved,
    },
    Phase.ATTACHED: {
        StepDue: _look_at_group,
        GroupChanged: _look_at_group,
        Acknowledged: _acknowledged,
        Escalated: _escalated_higher,
        Reported: _reported,
        Resolved: _resolved,
    },
    Phase.TAKEN: {
        AckExpired: _ack_expired,
        Escalated: _escalated_higher,
        Reported: _reported,
        Progressed: _progressed,
        Resolved: _resolved,
    },
    Phase.OVER: {
        Reported: _reported,
        Reopened: _reopened,
    },
}
