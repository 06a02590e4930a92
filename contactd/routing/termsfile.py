"""The desk file's entries for what is promised and who is told: calendars, contracts, policies.

The references between entries are checked by `problems`, of the whole file at once.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import time, timedelta
from itertools import pairwise
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool, StrictInt, model_validator

from contactd.routing.calendars import ALWAYS, Periods
from contactd.routing.clocks import DUE, Metric
from contactd.routing.entries import Day, FileEntry, Hours, Key, Label, Length, Span, Zone, weekdays
from contactd.tickets.model import CONTRACT
from contactd.tickets.priority import Priority

_MINUTE: Final = timedelta(minutes=1)
_DAY: Final = 24 * 60  # minutes
_TELL: Final = re.compile(
    r"(?:(?P<tier>tier [1-9])|team (?P<team>[a-z0-9][a-z0-9_-]{0,31})|(?P<everybody>everybody))"
    r"(?: at (?P<site>[a-z0-9][a-z0-9_-]{0,31}))?"
    r"|person (?P<person>[a-z0-9][a-z0-9_-]{0,31})|supervisor|floor"
)


def _tell(value: str) -> str:
    line = " ".join(value.split())
    if not _TELL.fullmatch(line):
        raise ValueError(
            f"{value!r} is nobody: tell is made of tier 1, team KEY, person KEY, everybody, "
            "supervisor or floor (and tier 1 at SITE)"
        )
    return line


def _rising(value: tuple[int, ...]) -> tuple[int, ...]:
    if any(before >= after for before, after in pairwise((0, *value, DUE))):
        raise ValueError("must rise between 1 and 99 percent, like [50, 75, 90]")
    return value


def _one_or_more(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _weekly(value: object) -> object:
    """Read `{ mon-fri = [...], sat = [...] }` as the hours of each weekday; 0 is Monday."""
    if not isinstance(value, Mapping):
        raise ValueError('must be a table like { mon-fri = ["09:00-18:00"] }')  # noqa: TRY004
    hours: dict[int, Any] = {}
    for days, periods in value.items():
        named = {days} if isinstance(days, int) else weekdays(str(days))
        if again := sorted(named & hours.keys()):
            raise ValueError(f"{days!r}: day {again[0] + 1} of the week has hours already")
        hours |= dict.fromkeys(named, periods)
    return dict(sorted(hours.items()))


def _opens(value: dict[int, Periods]) -> dict[int, Periods]:
    if not any(value.values()):
        raise ValueError("must be open at some time of the week")
    return value


Tell = Annotated[str, AfterValidator(_tell)]
Warnings = Annotated[tuple[StrictInt, ...], AfterValidator(_rising)]
Weekly = Annotated[dict[int, Hours], BeforeValidator(_weekly), AfterValidator(_opens)]


class DayEntry(FileEntry):
    """The hours of one date, in place of the week's and of public holidays; `[]`: closed."""

    date: Day
    hours: Hours


class CalendarEntry(FileEntry):
    """Opening hours. `holidays` says whose public holidays it follows: `"cn"`, or none."""

    key: Key
    name: Label = ""  # the key, unless said otherwise
    zone: Zone = "Asia/Shanghai"
    weekly: Weekly
    days: tuple[DayEntry, ...] = ()
    holidays: Literal["", "cn"] = ""


class PromiseEntry(FileEntry):
    """What is promised for one metric; `"30m"` alone is a goal."""

    goal: Span
    calendar: Key | None = None  # the site's own, unless said otherwise
    warnings: Warnings = (50, 75, 90)
    pausable: StrictBool | None = None  # as is usual for the metric (terms.PAUSABLE)


def _promise(value: object) -> object:
    return {"goal": value} if isinstance(value, str) else value


Promises = dict[Metric, Annotated[PromiseEntry, BeforeValidator(_promise)]]


class ContractEntry(FileEntry):
    """What is promised by priority; what `all` says holds where a priority says nothing else."""

    key: Key
    promises: dict[Literal["all", "P1", "P2", "P3", "P4"], Promises]

    def of(self, priority: Priority) -> Promises:
        shared = self.promises.get("all", {})
        return {**shared, **self.promises.get(priority.value, {})}


class StepEntry(FileEntry):
    """Who is told, how long after the step before; `need` of them must take it."""

    after: Length = timedelta()
    tell: Annotated[tuple[Tell, ...], BeforeValidator(_one_or_more), Field(min_length=1)]
    need: Annotated[StrictInt, Field(ge=1)] = 1
    parallel: StrictBool = False
    each: Span = timedelta(minutes=1)  # one after the other: the time that each one has
    conference: StrictBool = False


class PolicyEntry(FileEntry):
    key: Key
    steps: Annotated[tuple[StepEntry, ...], Field(min_length=1)]
    rounds: Annotated[StrictInt, Field(ge=1)] = 3
    again_after: Span = timedelta(minutes=5)
    ack_expires: Span = timedelta(minutes=60)
    group_within: Length = timedelta(minutes=30)


class WhenEntry(FileEntry):
    """All that is said must hold; what is not said does not matter."""

    site: Annotated[tuple[Key, ...], BeforeValidator(_one_or_more)] = ()
    category: Annotated[tuple[Label, ...], BeforeValidator(_one_or_more)] = ()
    system: Annotated[tuple[Label, ...], BeforeValidator(_one_or_more)] = ()
    priority: Annotated[tuple[Priority, ...], BeforeValidator(_one_or_more)] = ()
    vip: StrictBool | None = None


class RuleEntry(FileEntry):
    """Which team and policy a ticket gets; of each, the first rule that names one decides."""

    when: WhenEntry = WhenEntry()
    team: Key | None = None
    policy: Key | None = None
    skill: Key | None = None


class ClosingEntry(FileEntry):
    """How long a resolved ticket waits for the requester's word."""

    remind_after: Span = timedelta(hours=24)  # after it was resolved, and again after each
    reminders: Annotated[StrictInt, Field(ge=0)] = 2
    close_after: Span = timedelta(hours=72)  # after it was resolved
    survey_after: Length = timedelta(hours=24)  # after it was closed; 0: nobody is asked

    @model_validator(mode="after")
    def _closes_last(self) -> "ClosingEntry":
        if self.close_after <= self.reminders * self.remind_after:
            raise ValueError("close_after must be later than the last reminder")
        return self


def problems(  # noqa: PLR0913 - the lists of the file
    *,
    calendars: Sequence[CalendarEntry],
    contracts: Sequence[ContractEntry],
    policies: Sequence[PolicyEntry],
    rules: Sequence[RuleEntry],
    sites: Iterable[tuple[str, str, str]],
    engineers: Iterable[str],
    teams: Iterable[str],
) -> list[str]:
    """Return each reference that leads nowhere, with its place.

    `sites` are (key, contract, calendar), "" where a site names none.
    """
    places = list(sites)
    known = _Known(
        calendar={ALWAYS.name, *(each.key for each in calendars)},
        contract={CONTRACT, *(each.key for each in contracts)},
        policy={"standard", "p1", *(each.key for each in policies)},
        team=set(teams),
        engineer=set(engineers),
        site={key for key, _, _ in places},
    )
    return [
        *known.reserved(calendars, contracts),
        *known.of_sites(places),
        *known.of_contracts(contracts),
        *_endless(contracts, calendars),
        *known.of_policies(policies),
        *known.of_rules(rules),
    ]


def _endless(
    contracts: Iterable[ContractEntry], calendars: Sequence[CalendarEntry]
) -> Iterator[str]:
    """Return the goals that would take more than a year of a calendar they may be counted by."""
    for entry in contracts:
        for priority, row in entry.promises.items():
            for metric, promised in row.items():
                for calendar in calendars:
                    may_count = promised.calendar in (None, calendar.key)
                    if may_count and promised.goal > 52 * _week(calendar):
                        place = f"contracts.{entry.key}.promises.{priority}.{metric}.goal"
                        yield f"{place}: takes longer than a year of calendar {calendar.key!r}"


def _week(calendar: CalendarEntry) -> timedelta:
    """Return how long a calendar is open in a week."""
    edges = [(opens, closes) for hours in calendar.weekly.values() for opens, closes in hours]
    return sum((_minutes(closes) or _DAY) - _minutes(opens) for opens, closes in edges) * _MINUTE


def _minutes(at: time) -> int:
    return at.hour * 60 + at.minute


class _Known:
    """The keys that can be referred to."""

    def __init__(self, **keys: set[str]) -> None:
        self._keys = keys

    def missing(self, place: str, kind: str, key: str | None) -> Iterator[str]:
        if key and key not in self._keys[kind]:
            yield f"{place}: there is no {kind} {key!r}"

    def reserved(
        self, calendars: Iterable[CalendarEntry], contracts: Iterable[ContractEntry]
    ) -> Iterator[str]:
        for kind, entries, key in (
            ("calendars", calendars, ALWAYS.name),
            ("contracts", contracts, CONTRACT),
        ):
            if any(entry.key == key for entry in entries):
                yield f"{kind}.{key}.key: {key!r} is built in"

    def of_sites(self, sites: Iterable[tuple[str, str, str]]) -> Iterator[str]:
        for key, contract, calendar in sites:
            yield from self.missing(f"sites.{key}.contract", "contract", contract)
            yield from self.missing(f"sites.{key}.calendar", "calendar", calendar)

    def of_contracts(self, contracts: Iterable[ContractEntry]) -> Iterator[str]:
        for entry in contracts:
            for priority, row in entry.promises.items():
                for metric, promised in row.items():
                    place = f"contracts.{entry.key}.promises.{priority}.{metric}"
                    yield from self.missing(f"{place}.calendar", "calendar", promised.calendar)
                    if promised.pausable and metric is Metric.ANSWER:
                        yield f"{place}.pausable: this clock can never be paused"

    def of_policies(self, policies: Iterable[PolicyEntry]) -> Iterator[str]:
        for entry in policies:
            for number, step in enumerate(entry.steps, 1):
                for told in step.tell:
                    place = f"policies.{entry.key}.steps.{number}.tell"
                    names = named(told)
                    yield from self.missing(place, "team", names.get("team"))
                    yield from self.missing(place, "engineer", names.get("person"))
                    yield from self.missing(place, "site", names.get("site"))

    def of_rules(self, rules: Iterable[RuleEntry]) -> Iterator[str]:
        for number, entry in enumerate(rules, 1):
            place = f"rules.#{number}"
            yield from self.missing(f"{place}.team", "team", entry.team)
            yield from self.missing(f"{place}.policy", "policy", entry.policy)
            for site in entry.when.site:
                yield from self.missing(f"{place}.when.site", "site", site)


def named(told: str) -> dict[str, str]:
    """Return what a line of `tell` names: tier, team, person, site; nothing that it does not."""
    found = _TELL.fullmatch(told)
    return {key: value for key, value in found.groupdict().items() if value} if found else {}
