"""Contracts, calendars, policies, rules: from the desk file over versions to what is in force."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from contactd.routing import terms, termsfile
from contactd.routing.calendars import ALWAYS, HolidayData, add, is_open
from contactd.routing.clocks import Metric, Target, problems
from contactd.routing.closing import Closing
from contactd.routing.entries import Hours, Length, Span, WallClock
from contactd.routing.escalation import Policy, Whom
from contactd.routing.escalation import Target as Told
from contactd.routing.terms import Assignment, Terms, Version, assign
from contactd.routing.termsfile import (
    CalendarEntry,
    ClosingEntry,
    ContractEntry,
    PolicyEntry,
    RuleEntry,
)
from contactd.tickets.priority import Priority

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
FILE = """
[[calendars]]
key = "gz-hours"
name = "广州上班时间"
weekly = { mon-fri = ["09:00-12:00", "13:00-18:00"], sat = "10:00-24:00" }
days = [{ date = 2026-12-24, hours = [] }]
holidays = "cn"

[[contracts]]
key = "gold"
[contracts.promises.all]
answer = "30m"
resolution = { goal = "1d", calendar = "gz-hours" }
[contracts.promises.P1]
answer = { goal = "10m", warnings = [80], calendar = "always" }
arrival = { goal = "4h", pausable = false }

[[policies]]
key = "network"
steps = [
  { tell = ["team net", "person sun"], parallel = true, conference = true, need = 2 },
  { after = "90s", tell = "tier 2 at sz", each = "45s" },
  { after = "5m", tell = ["everybody at sz", "everybody", "supervisor", "floor"] },
]
rounds = 2
again_after = "10m"
ack_expires = "20m"
group_within = "0m"

[[rules]]
when = { system = ["ERP", "OA"], priority = ["P1", "P2"] }
team = "apps"
[[rules]]
when = { site = "gz", vip = true }
policy = "network"
skill = "english"

[closing]
remind_after = "12h"
reminders = 1
close_after = "2d"
survey_after = "36h"
"""
HOLIDAYS = HolidayData(
    confirmed_through=date(2026, 12, 31),
    holidays={date(2026, 10, 1): "国庆节"},
    working={date(2026, 10, 10): None},
    sources={},
)


@dataclass(frozen=True, kw_only=True)
class Desk:
    calendars: Sequence[CalendarEntry] = ()
    contracts: Sequence[ContractEntry] = ()
    policies: Sequence[PolicyEntry] = ()
    rules: Sequence[RuleEntry] = ()
    closing: ClosingEntry = field(default_factory=ClosingEntry)


def desk(text: str = FILE) -> Desk:
    return TypeAdapter(Desk).validate_python(tomllib.loads(text))


def loaded(*files: str) -> list[Version]:
    """Load these files one after the other."""
    versions: list[Version] = []
    for text in files:
        versions += terms.news(desk(text), versions)
    return versions


def in_force(*files: str, holidays: HolidayData | None = HOLIDAYS) -> Terms:
    return terms.in_force(loaded(*files), holidays, answer=30 * MINUTE, remote=2 * HOUR)


# What people write


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("45s", timedelta(seconds=45)),
        ("30m", 30 * MINUTE),
        ("1d 12h", timedelta(hours=36)),
        ("1h30m", 90 * MINUTE),
        ("0m", timedelta()),
    ],
)
def test_lengths_are_written_with_their_units(text: str, length: timedelta) -> None:
    assert TypeAdapter(Length).validate_python(text) == length


@pytest.mark.parametrize("text", ["30", "m", "1.5h", "-5m", "5 m", 30, "", "PT30M"])
def test_a_length_without_a_unit_is_refused(text: object) -> None:
    with pytest.raises(ValidationError, match="must be a length of time"):
        TypeAdapter(Length).validate_python(text)


def test_a_goal_of_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match="longer than 0"):
        TypeAdapter(Span).validate_python("0m")


def test_hours_are_periods_in_order_that_end_by_midnight() -> None:
    read = TypeAdapter(Hours).validate_python
    assert read("18:00-24:00") == ((time(18), time()),)
    assert read([]) == ()
    assert read(["09:00-12:00", "12:00-13:00"]) == (
        (time(9), time(12)),
        (time(12), time(13)),
    )
    for wrong, why in (
        (["13:00-14:00", "09:00-12:00"], "in order"),
        (["09:00-24:00", "10:00-11:00"], "must not overlap"),
        ("22:00-06:00", "split it at midnight"),
        ("all day", "is no period"),
        ("9-12", "time of the day"),
        (9, "must be hours"),
        ([9], "is no period"),
    ):
        with pytest.raises(ValidationError, match=why):
            read(wrong)


def test_a_wall_clock_time_is_to_the_minute() -> None:
    read = TypeAdapter(WallClock).validate_python
    assert (read("24:00"), read(time(8, 30))) == (time(), time(8, 30))
    for wrong in ("8:00", "25:00", time(8, 30, 5), 8):
        with pytest.raises(ValidationError):
            read(wrong)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("mon-fri = [", "mon-sat = ["), "day 6 of the week has hours already"),
        (('weekly = { mon-fri = ["09:00-12:00", "13:00-18:00"], ', "weekly = { someday = [], "),
         "'someday' is not a day"),
        (('{ mon-fri = ["09:00-12:00", "13:00-18:00"], sat = "10:00-24:00" }', "{ mon = [] }"),
         "must be open at some time"),
        (('{ mon-fri = ["09:00-12:00", "13:00-18:00"], sat = "10:00-24:00" }', '"always"'),
         "must be a table like"),
        (("date = 2026-12-24", 'date = "2026-12-24"'), "without quotes"),
        (('holidays = "cn"', 'holidays = "us"'), "Input should be '' or 'cn'"),
        (("warnings = [80]", "warnings = [80, 80]"), "must rise between 1 and 99"),
        (("warnings = [80]", "warnings = [100]"), "must rise between 1 and 99"),
        (('answer = "30m"', 'answr = "30m"'), "Input should be 'answer'"),
        (('"team net"', '"everyone"'), "'everyone' is nobody"),
        (("need = 2", "need = 0"), "greater than or equal to 1"),
        (('close_after = "2d"', 'close_after = "12h"'), "later than the last reminder"),
        (("vip = true", "vip = 1"), "valid boolean"),
        (('skill = "english"', 'skills = "english"'), "not permitted"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(change: tuple[str, str], why: str) -> None:
    assert change[0] in FILE
    with pytest.raises(ValidationError, match=why):
        desk(FILE.replace(*change))


def wrong(text: str = FILE, **more: Any) -> list[str]:
    read = desk(text)
    known: dict[str, Any] = {
        "sites": [("gz", "gold", "gz-hours"), ("sz", "", "")],
        "engineers": ["sun"],
        "teams": ["net", "apps"],
    }
    return termsfile.problems(
        calendars=read.calendars,
        contracts=read.contracts,
        policies=read.policies,
        rules=read.rules,
        **known | more,
    )


def test_references_that_lead_nowhere_are_all_reported() -> None:
    assert wrong() == []
    assert wrong(sites=[("gz", "silver", "moon")], engineers=[], teams=[]) == [
        "sites.gz.contract: there is no contract 'silver'",
        "sites.gz.calendar: there is no calendar 'moon'",
        "policies.network.steps.1.tell: there is no team 'net'",
        "policies.network.steps.1.tell: there is no engineer 'sun'",
        "policies.network.steps.2.tell: there is no site 'sz'",
        "policies.network.steps.3.tell: there is no site 'sz'",
        "rules.#1.team: there is no team 'apps'",
    ]
    assert wrong(FILE.replace('policy = "network"', 'policy = "nobody"')) == [
        "rules.#2.policy: there is no policy 'nobody'"
    ]


def test_what_is_built_in_cannot_be_redefined_and_an_answer_is_never_paused() -> None:
    text = FILE.replace('key = "gz-hours"', 'key = "always"').replace(
        'calendar = "gz-hours"', 'calendar = "always"'
    )
    text = text.replace("warnings = [80]", "pausable = true").replace('"gold"', '"standard"')
    assert wrong(text, sites=[("gz", "standard", "always"), ("sz", "", "")]) == [
        "calendars.always.key: 'always' is built in",
        "contracts.standard.key: 'standard' is built in",
        "contracts.standard.promises.P1.answer.pausable: this clock can never be paused",
    ]


def test_a_goal_that_takes_longer_than_a_year_of_its_calendar_is_refused() -> None:
    text = FILE.replace('{ mon-fri = ["09:00-12:00", "13:00-18:00"], sat = "10:00-24:00" }',
                        '{ mon = "09:00-10:00", sat = "23:00-24:00" }')  # fmt: skip
    assert wrong(text.replace('goal = "1d"', 'goal = "104h"')) == []
    assert wrong(text.replace('goal = "1d"', 'goal = "105h"')) == [
        "contracts.gold.promises.all.resolution.goal: takes longer than a year of calendar "
        "'gz-hours'"
    ]


# Versions


def names(versions: Sequence[Version]) -> list[str]:
    return [f"{each.kind} {each.name}{'' if each.body else ' gone'}" for each in versions]


def test_a_first_load_makes_first_versions_and_the_same_file_again_makes_none() -> None:
    versions = loaded(FILE)
    assert names(versions) == [
        "calendar gz-hours.1",
        "closing closing.1",
        "contract gold.1",
        "policy network.1",
        "rules rules.1",
    ]
    assert terms.news(desk(), versions) == []


def test_other_hours_make_a_new_version_of_the_contracts_that_count_by_them() -> None:
    later = FILE.replace("13:00-18:00", "13:00-17:00")
    versions = loaded(FILE, later)
    assert names(versions[5:]) == ["calendar gz-hours.2", "contract gold.2"]
    known = in_force(FILE, later)
    goal = Target(goal=24 * HOUR, calendar="gz-hours.1", pausable=True)
    assert known.targets["gold.1", Priority.P3][Metric.RESOLUTION] == goal
    assert known.targets["gold.2", Priority.P3][Metric.RESOLUTION].calendar == "gz-hours.2"
    friday = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)  # 17:30 in Shanghai
    assert is_open(known.calendars["gz-hours.1"], friday)
    assert not is_open(known.calendars["gz-hours.2"], friday)
    assert known.contracts == {"gold": "gold.2"}


def test_what_leaves_the_file_is_no_longer_in_force_but_stays_promised() -> None:
    known = in_force(FILE, "")
    assert names(loaded(FILE, "")[5:]) == [
        "calendar gz-hours.2 gone",
        "closing closing.2",
        "contract gold.2 gone",
        "policy network.2 gone",
        "rules rules.2",
    ]
    assert known.contracts == {}
    assert set(known.policies) == {"standard", "p1"}
    assert (known.rules, known.closing) == ((), Closing())
    assert ("gold.1", Priority.P1) in known.targets
    assert "gz-hours.1" in known.calendars
    assert names(loaded(FILE, "", FILE)[-5:])[0] == "calendar gz-hours.3"


def test_a_policy_of_the_file_can_stand_in_for_one_that_is_built_in() -> None:
    text = '[[policies]]\nkey = "standard"\nsteps = [{ tell = "floor" }]'
    mine = in_force(text).policies["standard"]
    assert (mine.version, mine.steps[0].targets) == (2, (Told(whom=Whom.FLOOR),))
    assert in_force(text, "").policies["standard"] == terms.STANDARD_POLICY


# What is in force


def test_a_contract_promises_what_it_says_of_the_priority_or_of_all() -> None:
    known = in_force(FILE)
    assert known.targets["gold.1", Priority.P2] == {
        Metric.ANSWER: Target(goal=30 * MINUTE),
        Metric.RESOLUTION: Target(goal=24 * HOUR, calendar="gz-hours.1", pausable=True),
    }
    p1 = known.targets["gold.1", Priority.P1]
    assert p1[Metric.ANSWER] == Target(goal=10 * MINUTE, calendar="always", warnings=(80,))
    assert p1[Metric.ARRIVAL] == Target(goal=4 * HOUR, pausable=False)
    assert Metric.RESOLUTION in p1
    assert problems(known.targets, known.calendars) == []


def test_a_calendar_is_what_was_written_with_the_public_holidays() -> None:
    calendar = in_force(FILE).calendars["gz-hours.1"]
    assert (calendar.name, calendar.zone) == ("广州上班时间", "Asia/Shanghai")
    assert calendar.weekly[5] == ((time(10), time()),)
    assert calendar.days[date(2026, 12, 24)] == ()
    assert calendar.days[date(2026, 10, 1)] == ()
    assert calendar.days[date(2026, 10, 10)] == calendar.weekly[0]
    assert calendar.confirmed_through == date(2026, 12, 31)


def test_without_imported_holidays_every_deadline_by_them_is_provisional() -> None:
    known = in_force(FILE, holidays=None)
    at = datetime(2026, 11, 20, 1, tzinfo=UTC)
    assert add(known.calendars["gz-hours.1"], at, HOUR).provisional
    plain = FILE.replace('holidays = "cn"\n', "")
    known = in_force(plain, holidays=None)
    assert not add(known.calendars["gz-hours.1"], at, HOUR).provisional


def test_the_built_in_contract_and_calendar_are_always_there() -> None:
    known = in_force("", holidays=None)
    assert known.calendars == {"always": ALWAYS}
    for priority in Priority:
        promised = known.targets["standard", priority]
        assert {metric: each.goal for metric, each in promised.items()} == {
            Metric.ANSWER: 30 * MINUTE,
            Metric.REMOTE: 2 * HOUR,
            Metric.OFFER: 15 * MINUTE,
            Metric.ARRIVAL: 4 * HOUR,
        }
        assert [metric for metric, each in promised.items() if each.pausable] == [
            Metric.REMOTE,
            Metric.ARRIVAL,
        ]
    assert problems(known.targets, known.calendars) == []


def test_a_policy_is_the_ladder_that_was_written() -> None:
    found = in_force(FILE).policies["network"]
    assert isinstance(found, Policy)
    first, second, third = found.steps
    assert first.targets == (Told(whom=Whom.TEAM, team="net"), Told(whom=Whom.PERSON, person="sun"))
    assert (first.parallel, first.conference, first.need_acks) == (True, True, 2)
    assert second.targets == (Told(whom=Whom.TEAM, tier=2, site="sz"),)
    assert (second.delay, second.each) == (timedelta(seconds=90), timedelta(seconds=45))
    assert third.targets == (
        Told(whom=Whom.EVERYBODY, site="sz"),
        Told(whom=Whom.EVERYBODY),
        Told(whom=Whom.SUPERVISOR),
        Told(whom=Whom.FLOOR),
    )
    assert (found.rounds, found.again_after, found.ack_expires) == (2, 10 * MINUTE, 20 * MINUTE)
    assert (found.group_within, found.version) == (timedelta(), 1)


def test_acknowledgements_of_p1_expire_sooner_and_its_tiers_are_told_together() -> None:
    policies = in_force("").policies
    assert (policies["p1"].ack_expires, policies["standard"].ack_expires) == (15 * MINUTE, HOUR)
    first = policies["p1"].steps[0]
    assert (first.parallel, first.conference, first.need_acks) == (True, True, 2)
    assert [target.tier for target in first.targets] == [1, 2, 3]
    whom = [step.targets[0].whom for step in policies["standard"].steps]
    assert whom == [Whom.TEAM, Whom.TEAM, Whom.TEAM, Whom.SUPERVISOR, Whom.EVERYBODY, Whom.FLOOR]


def test_closing_is_as_written() -> None:
    assert in_force(FILE).closing == Closing(
        remind_after=12 * HOUR, reminders=1, close_after=48 * HOUR, survey_after=36 * HOUR
    )


def test_closing_from_before_there_were_surveys_asks_as_is_usual() -> None:
    old = {"remind_after_s": 3600, "reminders": 1, "close_after_s": 7200}
    versions = [Version(kind=terms.Kind.CLOSING, key="closing", version=1, body=old)]
    found = terms.in_force(versions, answer=HOUR, remote=HOUR)
    assert found.closing == Closing(remind_after=HOUR, reminders=1, close_after=2 * HOUR)


# Assignment


def assigned(**about: Any) -> Assignment:
    ticket: dict[str, Any] = {
        "site": "sz",
        "category": "",
        "system": "",
        "priority": Priority.P3,
        "vip": False,
    }
    return assign(in_force(FILE).rules, **ticket | about)


def test_without_a_rule_the_priority_says_which_policy_and_no_team_has_it() -> None:
    assert assigned() == Assignment(policy="standard")
    assert assigned(priority=Priority.P1) == Assignment(policy="p1")


def test_all_that_a_rule_says_must_hold() -> None:
    assert assigned(system="erp", priority=Priority.P2).team == "apps"  # however it is written
    assert assigned(system="ERP").team == ""
    assert assigned(system="CRM", priority=Priority.P2).team == ""
    assert assigned(site="gz").policy == "standard"
    assert assigned(vip=True).policy == "standard"


def test_of_each_part_the_first_rule_that_names_it_decides() -> None:
    both = assigned(site="gz", vip=True, system="OA", priority=Priority.P1)
    assert both == Assignment(team="apps", policy="network", skill="english")
