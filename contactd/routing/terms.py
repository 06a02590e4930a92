"""What is promised and who is told: contracts, calendars, policies and rules in force (pure).

An entry of the desk file that changes gets the next version, and what a version says never
changes: `gold.3` promises the same for ever, and so does `gz-hours.2`, but for public holidays.
Contracts and calendars are known by such names; a policy needs none, since each escalation keeps
the one with which it began. Contract `standard` and calendar `always` have no versions: they are
built in, `standard` with the lengths of `contactd.toml`.

`news` says which versions a desk file makes necessary, `in_force` puts the stored ones together.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, time, timedelta
from enum import StrEnum
from typing import Any, Final, Protocol

from contactd.routing.calendars import ALWAYS, HolidayData, Periods, WorkingCalendar, with_holidays
from contactd.routing.clocks import Calendars, Metric, Target, Targets
from contactd.routing.closing import Closing
from contactd.routing.escalation import Policy, Step, Whom
from contactd.routing.escalation import Target as Told
from contactd.routing.termsfile import (
    CalendarEntry,
    ClosingEntry,
    ContractEntry,
    PolicyEntry,
    RuleEntry,
    named,
)
from contactd.tickets.model import CONTRACT
from contactd.tickets.priority import Priority

PAUSABLE: Final = frozenset({Metric.REMOTE, Metric.ARRIVAL, Metric.RESOLUTION})
_OFFER: Final = timedelta(minutes=15)  # requirement C3
_ARRIVAL: Final = timedelta(hours=4)
_MINUTE: Final = timedelta(minutes=1)

# A calendar whose holidays nobody has told yet: every due date is provisional.
_NO_HOLIDAYS: Final = HolidayData(
    confirmed_through=date(2000, 1, 1), holidays={}, working={}, sources={}
)


# Which team and policy a ticket gets


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    team: str = ""  # key, "" for none in particular
    policy: str
    skill: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignmentRule:
    """What a ticket of this kind gets. An empty set, and None, mean that it does not matter."""

    sites: frozenset[str] = frozenset()
    categories: frozenset[str] = frozenset()  # casefolded, as are `systems`
    systems: frozenset[str] = frozenset()
    priorities: frozenset[Priority] = frozenset()
    vip: bool | None = None
    team: str = ""
    policy: str = ""
    skill: str = ""


def assign(  # noqa: PLR0913 - what a rule can ask for
    rules: Sequence[AssignmentRule],
    *,
    site: str,
    category: str,
    system: str,
    priority: Priority,
    vip: bool,
) -> Assignment:
    """Return what the rules say of a ticket: for each part, the first rule that names it decides.

    Where none does, P1 has policy `p1` and everything else `standard`, and no team.
    """
    matching = [
        rule
        for rule in rules
        if _has(rule.sites, site)
        and _has(rule.categories, category.casefold())
        and _has(rule.systems, system.casefold())
        and _has(rule.priorities, priority)
        and rule.vip in (None, vip)
    ]
    usual = P1.key if priority is Priority.P1 else STANDARD_POLICY.key
    return Assignment(
        team=next((rule.team for rule in matching if rule.team), ""),
        policy=next((rule.policy for rule in matching if rule.policy), usual),
        skill=next((rule.skill for rule in matching if rule.skill), ""),
    )


def _has(wanted: frozenset[Any], value: object) -> bool:
    return not wanted or value in wanted


# What is built in


def _tier(number: int) -> Told:
    return Told(whom=Whom.TEAM, tier=number)


STANDARD_POLICY: Final = Policy(
    key="standard",
    version=1,
    steps=(
        Step(targets=(_tier(1),)),
        # Three minutes: a second medium of one's own (a text after two) comes before the next tier.
        Step(delay=3 * _MINUTE, targets=(_tier(2),)),
        Step(delay=3 * _MINUTE, targets=(_tier(3),)),
        Step(delay=3 * _MINUTE, targets=(Told(whom=Whom.SUPERVISOR),)),
        Step(delay=3 * _MINUTE, targets=(Told(whom=Whom.EVERYBODY),), parallel=True),
        Step(delay=3 * _MINUTE, targets=(Told(whom=Whom.FLOOR),)),
    ),
)
P1: Final = Policy(
    key="p1",
    version=1,
    steps=(
        Step(
            targets=(_tier(1), _tier(2), _tier(3)),
            need_acks=2,
            parallel=True,
            conference=True,
        ),
        Step(
            delay=3 * _MINUTE,
            targets=(Told(whom=Whom.SUPERVISOR), Told(whom=Whom.EVERYBODY)),
            need_acks=2,
            parallel=True,
            conference=True,
        ),
        Step(delay=3 * _MINUTE, targets=(Told(whom=Whom.FLOOR),)),
    ),
    ack_expires=15 * _MINUTE,
)
_BUILT_IN: Final = {policy.key: policy for policy in (STANDARD_POLICY, P1)}


def standard(*, answer: timedelta, remote: timedelta) -> Targets:
    """Return the promises of the contract that is built in: C1 to C3, for every priority."""
    promised = {
        Metric.ANSWER: Target(goal=answer, calendar=ALWAYS.name),
        Metric.REMOTE: Target(goal=remote, pausable=True),
        Metric.OFFER: Target(goal=_OFFER, calendar=ALWAYS.name),
        Metric.ARRIVAL: Target(goal=_ARRIVAL, pausable=True),
    }
    return {(CONTRACT, priority): promised for priority in Priority}


# Everything together


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Everything that is promised, and who is told.

    Attributes:
        targets: of every version of every contract.
        calendars: every version of every calendar, with public holidays.
        policies: those that are in force, by key.
        contracts: the names of those that are in force (`gold.3`) by key (`gold`).
        holidays: the public holidays as they were imported last; None if they never were.
    """

    targets: Targets
    calendars: Calendars
    policies: Mapping[str, Policy]
    rules: tuple[AssignmentRule, ...] = ()
    closing: Closing = field(default_factory=Closing)
    holidays: HolidayData | None = None
    contracts: Mapping[str, str] = field(default_factory=dict)


class Kind(StrEnum):
    CALENDAR = "calendar"
    CONTRACT = "contract"
    POLICY = "policy"
    RULES = "rules"  # one key: all the rules
    CLOSING = "closing"  # one key


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """What one entry said from a load on; an empty body: it was taken out of the file.

    `body` holds what JSON keeps unchanged; lengths are in seconds.
    """

    kind: Kind
    key: str
    version: int  # 1, 2, …
    body: Mapping[str, Any]

    @property
    def name(self) -> str:
        return f"{self.key}.{self.version}"


class TermsFile(Protocol):
    """What of the desk file is needed here."""

    @property
    def calendars(self) -> Sequence[CalendarEntry]: ...
    @property
    def contracts(self) -> Sequence[ContractEntry]: ...
    @property
    def policies(self) -> Sequence[PolicyEntry]: ...
    @property
    def rules(self) -> Sequence[RuleEntry]: ...
    @property
    def closing(self) -> ClosingEntry: ...


def latest(versions: Iterable[Version]) -> dict[tuple[Kind, str], Version]:
    """Return the last version of each entry, whether it is in force or was taken out."""
    found: dict[tuple[Kind, str], Version] = {}
    for each in sorted(versions, key=lambda each: each.version):
        found[each.kind, each.key] = each
    return found


def names(versions: Iterable[Version], kind: Kind) -> dict[str, str]:
    """Return the name of what is in force by key, of a kind that has names."""
    return {
        each.key: each.name for each in latest(versions).values() if each.kind is kind and each.body
    }


def news(file: TermsFile, stored: Iterable[Version]) -> list[Version]:
    """Return the versions that must be added so that what is in force is what the file says."""
    known = latest(stored)
    found: list[Version] = []
    for each in file.calendars:
        found += _next(known, Kind.CALENDAR, each.key, _calendar_body(each))
    calendars = {ALWAYS.name: ALWAYS.name, **names([*known.values(), *found], Kind.CALENDAR)}
    for contract in file.contracts:
        body = _contract_body(contract, calendars)
        found += _next(known, Kind.CONTRACT, contract.key, body)
    for policy in file.policies:
        found += _next(known, Kind.POLICY, policy.key, _policy_body(policy))
    found += _next(known, Kind.RULES, "rules", {"rules": [_rule_body(rule) for rule in file.rules]})
    found += _next(known, Kind.CLOSING, "closing", _closing_body(file.closing))
    there = {
        *((Kind.CALENDAR, each.key) for each in file.calendars),
        *((Kind.CONTRACT, each.key) for each in file.contracts),
        *((Kind.POLICY, each.key) for each in file.policies),
        (Kind.RULES, "rules"),
        (Kind.CLOSING, "closing"),
    }
    for kind, key in known.keys() - there:
        found += _next(known, kind, key, {})
    return sorted(found, key=lambda each: (each.kind, each.key))


def _next(
    known: Mapping[tuple[Kind, str], Version], kind: Kind, key: str, body: Mapping[str, Any]
) -> Iterator[Version]:
    before = known.get((kind, key))
    if before is None or before.body != body:
        # What is built in counts as the first version of its key.
        first = 2 if kind is Kind.POLICY and key in _BUILT_IN else 1
        version = before.version + 1 if before else first
        yield Version(kind=kind, key=key, version=version, body=body)


def in_force(
    versions: Iterable[Version],
    holidays: HolidayData | None = None,
    *,
    answer: timedelta,
    remote: timedelta,
) -> Terms:
    """Put together what was stored; `answer` and `remote` are the built-in contract's."""
    every = list(versions)
    last = {place: each.body for place, each in latest(every).items() if each.body}
    rules = last.get((Kind.RULES, "rules"), {"rules": []})["rules"]
    closing = last.get((Kind.CLOSING, "closing"))
    return Terms(
        targets={
            **standard(answer=answer, remote=remote),
            **{
                (each.name, priority): row
                for each in every
                if each.kind is Kind.CONTRACT and each.body
                for priority, row in _promised(each.body)
            },
        },
        calendars=calendars(every, holidays),
        policies={
            **_BUILT_IN,
            **{
                key: _policy(each)
                for (kind, key), each in latest(every).items()
                if kind is Kind.POLICY and each.body
            },
        },
        rules=tuple(_rule(body) for body in rules),
        closing=_closing(closing) if closing else Closing(),
        holidays=holidays,
        contracts=names(every, Kind.CONTRACT),
    )


def calendars(versions: Iterable[Version], holidays: HolidayData | None) -> Calendars:
    """Return every version of every calendar, with these public holidays."""
    return {
        ALWAYS.name: ALWAYS,
        **{
            each.name: _calendar(each, holidays or _NO_HOLIDAYS)
            for each in versions
            if each.kind is Kind.CALENDAR and each.body
        },
    }


# Entries as they are stored, and back


def _seconds(length: timedelta) -> int:
    return round(length.total_seconds())


def _shown(periods: Periods) -> list[list[str]]:
    return [[f"{opens:%H:%M}", f"{closes:%H:%M}"] for opens, closes in periods]


def _periods(shown: Sequence[Sequence[str]]) -> Periods:
    return tuple((time.fromisoformat(opens), time.fromisoformat(closes)) for opens, closes in shown)


def _calendar_body(entry: CalendarEntry) -> dict[str, Any]:
    return {
        "name": entry.name or entry.key,
        "zone": entry.zone,
        "weekly": {str(day): _shown(hours) for day, hours in entry.weekly.items()},
        "days": {each.date.isoformat(): _shown(each.hours) for each in entry.days},
        "holidays": entry.holidays,
    }


def _calendar(stored: Version, holidays: HolidayData) -> WorkingCalendar:
    body = stored.body
    calendar = WorkingCalendar(
        name=body["name"],
        zone=body["zone"],
        weekly={int(day): _periods(hours) for day, hours in body["weekly"].items()},
        days={date.fromisoformat(day): _periods(hours) for day, hours in body["days"].items()},
    )
    return with_holidays(calendar, holidays) if body["holidays"] else calendar


def _contract_body(entry: ContractEntry, calendars: Mapping[str, str]) -> dict[str, Any]:
    """Return a contract with its calendars' names: other hours make another contract of it."""
    return {
        priority.value: {
            metric.value: {
                "goal_s": _seconds(promised.goal),
                "calendar": calendars[promised.calendar] if promised.calendar else "",
                "warnings": list(promised.warnings),
                "pausable": metric in PAUSABLE if promised.pausable is None else promised.pausable,
            }
            for metric, promised in entry.of(priority).items()
        }
        for priority in Priority
    }


def _promised(body: Mapping[str, Any]) -> Iterator[tuple[Priority, Mapping[Metric, Target]]]:
    for priority, row in body.items():
        yield (
            Priority(priority),
            {
                Metric(metric): Target(
                    goal=timedelta(seconds=each["goal_s"]),
                    calendar=each["calendar"],
                    warnings=tuple(each["warnings"]),
                    pausable=each["pausable"],
                )
                for metric, each in row.items()
            },
        )


def _policy_body(entry: PolicyEntry) -> dict[str, Any]:
    return {
        "steps": [
            {
                "after_s": _seconds(step.after),
                "tell": list(step.tell),
                "need": step.need,
                "parallel": step.parallel,
                "each_s": _seconds(step.each),
                "conference": step.conference,
            }
            for step in entry.steps
        ],
        "rounds": entry.rounds,
        "again_after_s": _seconds(entry.again_after),
        "ack_expires_s": _seconds(entry.ack_expires),
        "group_within_s": _seconds(entry.group_within),
    }


def _policy(stored: Version) -> Policy:
    body = stored.body
    return Policy(
        key=stored.key,
        version=stored.version,
        steps=tuple(
            Step(
                delay=timedelta(seconds=step["after_s"]),
                targets=tuple(_told(line) for line in step["tell"]),
                need_acks=step["need"],
                parallel=step["parallel"],
                each=timedelta(seconds=step["each_s"]),
                conference=step["conference"],
            )
            for step in body["steps"]
        ),
        rounds=body["rounds"],
        again_after=timedelta(seconds=body["again_after_s"]),
        ack_expires=timedelta(seconds=body["ack_expires_s"]),
        group_within=timedelta(seconds=body["group_within_s"]),
    )


_WHOM: Final[Mapping[str, Whom]] = {
    "tier": Whom.TEAM,
    "team": Whom.TEAM,
    "person": Whom.PERSON,
    "everybody": Whom.EVERYBODY,
    "supervisor": Whom.SUPERVISOR,
    "floor": Whom.FLOOR,
}


def _told(line: str) -> Told:
    names = named(line)
    return Told(
        whom=_WHOM[line.split()[0]],
        person=names.get("person", ""),
        site=names.get("site", ""),
        tier=int(names.get("tier", "tier 0").removeprefix("tier ")),
        team=names.get("team", ""),
    )


def _rule_body(entry: RuleEntry) -> dict[str, Any]:
    when = entry.when
    return {
        "sites": sorted(when.site),
        "categories": sorted(each.casefold() for each in when.category),
        "systems": sorted(each.casefold() for each in when.system),
        "priorities": sorted(each.value for each in when.priority),
        "vip": when.vip,
        "team": entry.team or "",
        "policy": entry.policy or "",
        "skill": entry.skill or "",
    }


def _rule(body: Mapping[str, Any]) -> AssignmentRule:
    return AssignmentRule(
        sites=frozenset(body["sites"]),
        categories=frozenset(body["categories"]),
        systems=frozenset(body["systems"]),
        priorities=frozenset(map(Priority, body["priorities"])),
        vip=body["vip"],
        team=body["team"],
        policy=body["policy"],
        skill=body["skill"],
    )


def _closing_body(entry: ClosingEntry) -> dict[str, Any]:
    return {
        "remind_after_s": _seconds(entry.remind_after),
        "reminders": entry.reminders,
        "close_after_s": _seconds(entry.close_after),
        "survey_after_s": _seconds(entry.survey_after),
    }


def _closing(body: Mapping[str, Any]) -> Closing:
    usual = _seconds(Closing().survey_after)  # of a version from before there were surveys
    return Closing(
        remind_after=timedelta(seconds=body["remind_after_s"]),
        reminders=body["reminders"],
        close_after=timedelta(seconds=body["close_after_s"]),
        survey_after=timedelta(seconds=body.get("survey_after_s", usual)),
    )
