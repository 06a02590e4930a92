"""The desk file: what an operator may write, and how each mistake is told."""

import re
import tomllib
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest

from contactd.errors import ConfigurationError
from contactd.routing import rota
from contactd.routing.calendars import ALWAYS
from contactd.routing.deskfile import DeskFile, parse, read
from contactd.routing.escalation import Rule
from contactd.routing.oncall import Duties, Why, on_duty
from contactd.routing.rota import RESIDENT_MARGIN, Count, Kind, Unit
from contactd.tickets.contact import Medium

SAMPLE = Path(__file__).parents[2] / "etc" / "desk.toml"


def desk(**parts: Any) -> dict[str, Any]:
    return {
        "sites": [{"key": "gz", "name_zh": "广州", "name_en": "Guangzhou", "floor": "8000"}],
        "engineers": [
            {"key": "wang", "name": "王伟", "number": "138 0000 0001"},
            {"key": "li", "name": "李娜", "number": "8002"},
        ],
    } | parts


def errors(document: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        parse(document)
    return str(caught.value).splitlines()


def shift(**changes: object) -> dict[str, Any]:
    return {
        "site": "gz", "tier": 1, "engineer": "wang", "start": "08:00", "end": "20:00", **changes
    }  # fmt: skip


def override(**changes: object) -> dict[str, Any]:
    times = {"start": datetime(2026, 12, 24, 8), "end": datetime(2026, 12, 24, 20)}  # noqa: DTZ001
    return {"site": "gz", "tier": 1, "engineer": "wang", **times, **changes}


STINT = {
    "engineer": "li",
    "start": datetime(2026, 12, 24, tzinfo=UTC),
    "end": datetime(2026, 12, 25, tzinfo=UTC),
}


# The sample


def duties(sample: DeskFile, start: datetime, end: datetime) -> Duties:
    return sample.plan().resolved(sample.holiday_data(), start, end)


DECEMBER = datetime(2026, 12, 1, tzinfo=UTC)


@pytest.mark.parametrize("days", [60, 365])
def test_the_sample_is_right_and_its_rota_has_no_problems(days: int) -> None:
    sample = read(SAMPLE)
    assert [site.key for site in sample.sites] == ["gz", "sz", "zh", "fs", "zq"]
    plan = sample.plan().rota(sample.holiday_data())
    assert rota.problems(plan, DECEMBER, DECEMBER + timedelta(days=days)) == []


def test_the_examples_of_the_sample_are_right_when_their_mark_is_taken_away(
    tmp_path: Path,
) -> None:
    (tmp_path / "calendars").mkdir()
    data = SAMPLE.parent / "calendars" / "cn.toml"
    (tmp_path / "calendars" / "cn.toml").write_text(data.read_text("utf-8"), encoding="utf-8")
    text = SAMPLE.read_text(encoding="utf-8")
    full = re.sub(r"(?m)^#(?=[a-z\[])", "", text)
    (tmp_path / "desk.toml").write_text(full, encoding="utf-8")
    found = read(tmp_path / "desk.toml")
    assert len(found.swaps) == len(found.feeds) == len(found.policies) == len(found.rules) == 1
    assert found.engineers[11].pin == "4711"
    plan = found.plan().rota(found.holiday_data())
    assert rota.problems(plan, DECEMBER, DECEMBER + timedelta(days=60)) == []


def test_at_each_site_of_the_sample_three_tiers_are_on_duty_at_any_time() -> None:
    found = duties(read(SAMPLE), DECEMBER, DECEMBER + timedelta(days=60))
    for site in found.sites:
        for hour in range(8 * 24, 29 * 24):
            there = on_duty(found, site.key, DECEMBER + timedelta(hours=hour))
            assert {duty.tier for duty in there} == {1, 2, 3}


def test_the_resident_engineer_of_the_sample_comes_ten_minutes_early_and_has_a_stand_in() -> None:
    found = duties(read(SAMPLE), DECEMBER, DECEMBER + timedelta(days=60))

    def tier_1(day: int, hour: int, minute: int, month: int = 12) -> list[str]:
        at = datetime(
            2026 + month // 12 - 1 + (month < 12), month, day, hour - 8, minute, tzinfo=UTC
        )
        return [duty.engineer.key for duty in on_duty(found, "gz", at) if duty.tier == 1]

    assert tier_1(23, 8, 49) == ["chen"]
    assert tier_1(23, 8, 50) == ["wang", "chen"]
    assert tier_1(23, 18, 9) == ["wang", "chen"]
    assert tier_1(23, 18, 10) == ["chen"]
    assert tier_1(24, 8, 50) == ["chen", "zhou"]
    assert tier_1(26, 10, 0) == ["chen"]  # a Saturday


def test_on_a_public_holiday_the_resident_engineer_of_the_sample_is_not_there() -> None:
    day = datetime(2026, 10, 1, 2, tzinfo=UTC)
    found = duties(read(SAMPLE), day - timedelta(days=2), day + timedelta(days=10))

    def residents(date: int) -> list[str]:
        there = on_duty(found, "gz", day.replace(day=date))
        return [duty.engineer.key for duty in there if duty.team == "resident"]

    assert residents(1) == []
    assert residents(9) == ["wang"]
    assert residents(10) == ["wang"]  # a Saturday that is worked


# What may be written


def test_numbers_become_e164_and_extensions_stay() -> None:
    found = parse(
        desk(
            people=[
                {"key": "zhang", "name": "张三", "numbers": ["020-3888 0001", "+852 2123 4567"]}
            ]
        )
    )
    assert [engineer.number for engineer in found.engineers] == ["+8613800000001", "8002"]
    assert found.people[0].numbers == ("+862038880001", "+85221234567")


def test_a_site_has_sensible_defaults() -> None:
    (site,) = parse(desk()).plan().sites
    assert (site.zone, site.queue, site.language) == ("Asia/Shanghai", "gz", "zh")


@pytest.mark.parametrize(
    ("written", "days"),
    [
        ("mon", {0}),
        ("mon-fri", {0, 1, 2, 3, 4}),
        ("sat-mon", {5, 6, 0}),
        ("Mon, Wed-Thu", {0, 2, 3}),
        (["sun", "tue-wed"], {6, 1, 2}),
    ],
)
def test_days_are_written_as_people_write_them(written: object, days: set[int]) -> None:
    (found,) = parse(desk(shifts=[shift(days=written)])).plan().shifts
    assert found.weekdays == days


def test_a_shift_is_on_every_day_unless_said_otherwise() -> None:
    assert parse(desk(shifts=[shift()])).plan().shifts[0].weekdays == set(range(7))


def test_times_are_strings_or_toml_times_and_a_day_ends_at_24() -> None:
    found = parse(desk(shifts=[shift(start=time(8, 30), end="24:00")])).plan().shifts[0]
    assert (found.start, found.end) == (time(8, 30), time())


def test_times_of_an_override_are_local_unless_they_have_an_offset() -> None:
    document = tomllib.loads(
        """
        [[overrides]]
        site = "gz"
        tier = 1
        engineer = "wang"
        start = 2026-12-24T08:00:00
        end = 2026-12-25
        [[overrides]]
        site = "*"
        tier = 2
        engineer = "wang"
        replaces = "li"
        start = 2026-12-24T08:00:00Z
        end = 2026-12-24T20:00:00+08:00
        """
    )
    first, second = parse(desk() | document).plan().overrides
    assert first.start == datetime(2026, 12, 24, 0, tzinfo=UTC)
    assert first.end == datetime(2026, 12, 24, 16, tzinfo=UTC)
    assert (first.replaces, second.replaces) == ("", "li")
    assert second.start == datetime(2026, 12, 24, 8, tzinfo=UTC)
    assert second.end == datetime(2026, 12, 24, 12, tzinfo=UTC)


def test_without_shifts_the_floor_is_on_duty() -> None:
    (duty,) = on_duty(duties(parse(desk()), DECEMBER, DECEMBER + timedelta(days=9)), "gz", DECEMBER)
    assert (duty.why, duty.engineer.number) == (Why.FLOOR, "8000")


def from_toml(text: str) -> DeskFile:
    return parse(desk() | tomllib.loads(text))


def test_shifts_of_a_tier_belong_to_a_team_of_that_tier_with_their_sites() -> None:
    sites = [
        {"key": key, "name_zh": key, "name_en": key, "floor": "8000"} for key in ("gz", "sz", "zh")
    ]
    found = parse(
        desk(
            sites=sites,
            shifts=[shift(), shift(site="zh", engineer="li"), shift(site="*", tier=2), shift()],
        )
    ).plan()
    assert [(team.key, team.tier, team.sites) for team in found.teams] == [
        ("tier-1", 1, ("gz", "zh")), ("tier-2", 2, ()),
    ]  # fmt: skip
    assert [(each.key, each.team, each.sites) for each in found.shifts] == [
        ("wang-gz", "tier-1", ("gz",)), ("li-zh", "tier-1", ("zh",)), ("wang", "tier-2", ()),
        ("wang-gz-2", "tier-1", ("gz",)),
    ]  # fmt: skip


def test_a_made_up_key_leaves_those_that_were_given_alone() -> None:
    found = parse(desk(shifts=[shift(), shift(key="wang-gz", engineer="li")])).plan().shifts
    assert [each.key for each in found] == ["wang-gz-2", "wang-gz"]


def test_an_engineers_details_are_kept_beside_the_rota() -> None:
    found = from_toml(
        """
        [[engineers]]
        key = "sun"
        name = "孙明"
        number = "020-3888 0001"
        text = "138 0000 0021"
        kind = "second line"
        skills = ["network"]
        sites = ["gz"]
        pin = "0471"
        mails = ["sun@example.com"]
        page = ["call", "text after 2m", "mail  after 1h 30m"]
        [[engineers]]
        key = "wu"
        name = "吴磊"
        number = "138 0000 0004"
        [[engineers]]
        key = "ext"
        name = "Ext"
        number = "8004"
        [[engineers]]
        key = "land"
        name = "Land"
        number = "020-3888 0002"
        """
    ).plan()
    sun, wu, ext, land = found.engineers
    assert (sun.number, sun.text, sun.pin, sun.kind) == (
        "+862038880001", "+8613800000021", "0471", Kind.SECOND_LINE,
    )  # fmt: skip
    assert sun.rules == (
        Rule(medium=Medium.CALL),
        Rule(medium=Medium.TEXT, after=timedelta(minutes=2)),
        Rule(medium=Medium.MAIL, after=timedelta(minutes=90)),
    )
    assert (sun.skills, sun.sites) == (frozenset({"network"}), frozenset({"gz"}))
    assert sun.mails == ("sun@example.com",)
    assert [engineer.text for engineer in (wu, ext, land)] == ["+8613800000004", "", ""]
    assert (wu.kind, wu.rules, wu.pin) == (Kind.REMOTE, (), "")


NIGHT = """
[[teams]]
key = "night"
tier = 2
sites = ["gz"]
skills = ["net"]
[[calendars]]
key = "nights"
weekly = { mon-sun = "20:00-24:00" }
holidays = "cn"
"""


def test_a_rotation_is_written_with_its_turn_and_dated_members() -> None:
    (found,) = (
        from_toml(
            NIGHT
            + """
        [[rotations]]
        key = "r"
        team = "night"
        members = ["wang", { engineer = "li", since = 2026-12-01, until = 2027-01-01 }]
        turn = "2 weeks"
        start = 2026-11-02
        handoff = "09:30"
        calendar = "nights"
        count = "active"
        """
        )
        .plan()
        .rotations
    )
    assert (found.unit, found.length, found.count) == (Unit.WEEK, 2, Count.ACTIVE)
    assert (found.start, found.handoff, found.zone) == (
        date(2026, 11, 2),
        time(9, 30),
        "Asia/Shanghai",
    )
    assert [(each.engineer, each.since, each.until) for each in found.members] == [
        ("wang", None, None), ("li", date(2026, 12, 1), date(2027, 1, 1)),
    ]  # fmt: skip
    assert found.hours.name == "nights"


@pytest.mark.parametrize(
    ("turn", "unit", "length"),
    [
        ("hour", Unit.HOUR, 1),
        ("12 hours", Unit.HOUR, 12),
        ("day", Unit.DAY, 1),
        ("month", Unit.MONTH, 1),
    ],
)
def test_a_turn_is_a_number_of_units(turn: str, unit: Unit, length: int) -> None:
    entry = {"key": "r", "team": "n", "members": ["li"], "turn": turn, "start": date(2026, 1, 1)}
    document = desk(teams=[{"key": "n", "tier": 1}], rotations=[entry])
    (found,) = parse(document).plan().rotations
    assert (found.unit, found.length, found.hours) == (unit, length, ALWAYS)


def test_residents_have_their_margin_unless_said_otherwise_and_others_none() -> None:
    window = {"team": "n", "calendar": "always"}
    document = desk(
        engineers=[
            {"key": "wang", "name": "王伟", "number": "8001", "kind": "resident"},
            {"key": "li", "name": "李娜", "number": "8002"},
        ],
        teams=[{"key": "n", "tier": 1}],
        windows=[
            window | {"engineer": "wang"},
            window | {"engineer": "wang", "margin": "0m"},
            window | {"engineer": "li"},
            window | {"engineer": "li", "margin": "15m"},
        ],
    )
    assert [each.margin for each in parse(document).plan().windows] == [
        RESIDENT_MARGIN, timedelta(), timedelta(), timedelta(minutes=15),
    ]  # fmt: skip


def test_leave_is_whole_days_or_times_and_its_key_says_whose_and_when() -> None:
    found = (
        from_toml(
            """
        [[leaves]]
        engineer = "wang"
        first = 2026-12-24
        last = 2026-12-25
        backup = "li"
        [[leaves]]
        engineer = "wang"
        first = 2026-12-24
        [[leaves]]
        engineer = "li"
        start = 2026-12-24T08:00:00Z
        end = 2026-12-24T20:00:00Z
        """
        )
        .plan()
        .leaves
    )
    assert [(each.key, each.backup) for each in found] == [
        ("wang-20261224", "li"), ("wang-20261224-2", ""), ("li-20261224", ""),
    ]  # fmt: skip
    assert (found[0].start, found[0].end) == (
        datetime(2026, 12, 23, 16, tzinfo=UTC), datetime(2026, 12, 25, 16, tzinfo=UTC),
    )  # fmt: skip
    assert found[1].end == datetime(2026, 12, 24, 16, tzinfo=UTC)
    assert found[2].start == datetime(2026, 12, 24, 8, tzinfo=UTC)


def test_swaps_are_in_local_time_and_overrides_have_a_rank_and_several_sites() -> None:
    found = from_toml(
        """
        [[swaps]]
        one = { engineer = "wang", start = 2026-12-12T20:00:00, end = 2026-12-13T08:00:00 }
        other = { engineer = "li", start = 2026-12-19T20:00:00, end = 2026-12-20T08:00:00 }
        [[overrides]]
        key = "move"
        sites = ["gz"]
        tier = 1
        engineer = "li"
        rank = 7
        start = 2026-12-12T20:00:00
        end = 2026-12-13T02:00:00
        """
    ).plan()
    (swap,), (override,) = found.swaps, found.overrides
    assert (swap.key, swap.one.start) == ("wang-li", datetime(2026, 12, 12, 12, tzinfo=UTC))
    assert (override.key, override.rank, override.sites) == ("move", 7, ("gz",))
    assert override.start == datetime(2026, 12, 12, 12, tzinfo=UTC)


def test_a_site_names_its_supervisor_contract_and_hours() -> None:
    document = tomllib.loads(NIGHT)
    site = desk()["sites"][0] | {"supervisor": "li", "contract": "standard", "calendar": "nights"}
    (found,) = parse(desk() | document | {"sites": [site]}).plan().sites
    assert (found.supervisor, found.contract, found.calendar) == ("li", "standard", "nights")


def test_hours_follow_the_public_holidays_that_are_known(tmp_path: Path) -> None:
    text = NIGHT + '[[windows]]\nteam = "night"\nengineer = "li"\ncalendar = "nights"\n'
    found = from_toml(text)
    assert found.plan().follows == {"nights": "cn"}
    holiday = datetime(2026, 10, 1, 13, tzinfo=UTC)
    data = read(SAMPLE).holiday_data()
    for holidays, there in (({}, True), (data, False)):
        spans = found.plan().resolved(holidays, holiday, holiday + timedelta(hours=1)).spans
        assert [span.engineer == "li" for span in spans] == [there]


# Mistakes


def test_every_mistake_is_told_at_once_with_its_place() -> None:
    assert errors(
        desk(
            people=[{"key": "zhang", "name": "张三", "site": "bj", "numbers": ["12x"], "vip": 1}],
            shifts=[shift(), shift(tier=4, engineer="wagn", days="mo", start="8")],
            overrides=[override(replaces="nobody", note="why not")],
            queues=[],
        )
    ) == [
        "people.zhang.vip: Input should be a valid boolean",
        "people.zhang.numbers.0: '12x' is neither a telephone number nor an extension (1–5 digits)",
        "shifts.#2.tier: Input should be less than or equal to 3",
        "shifts.#2.days: 'mo' is not a day or a range of days, e.g. mon or mon-fri",
        'shifts.#2.start: must be a time of the day to the minute, like "08:00"',
        "overrides.#1.note: no such setting",
        "queues: no such setting",
        "people.zhang.site: there is no site 'bj'",
        "shifts.#2.engineer: there is no engineer 'wagn'",
        "overrides.#1.replaces: there is no engineer 'nobody'",
    ]


@pytest.mark.parametrize(
    ("document", "line"),
    [
        ({}, "sites: is missing"),
        ({"sites": []}, "sites: Tuple should have at least 1 item"),
        ({"sites": "gz"}, "sites: Input should be a valid tuple"),
        ({"sites": ["gz"]}, "sites.#1: Input should be a valid dictionary"),
        (desk(sites=[{"key": "gz"}]), "sites.gz.floor: is missing"),
        (desk(sites=[{"key": "GZ"}]), "sites.GZ.key: 'GZ' is not of the form ^[a-z0-9]"),
        (desk(sites=[{"key": 7}]), "sites.#1.key: Input should be a valid string"),
        (desk(sites=[{"key": "gz", "zone": "Asia/Canton"}]), "sites.gz.zone: 'Asia/Canton' is not"),
        (desk(engineers=[{"key": "li", "name": "a\nb"}]), "engineers.li.name: must not contain"),
        (desk(engineers=[{"key": "floor"}]), "engineers.#1.key: 'floor' means the floor number"),
        (desk(people=[{"key": "li"}]), "people.#1.key: 'li' is used twice"),
        (desk(people=[{"key": "x", "numbers": ["8002"]}]), "people.x: 8002 already belongs to e"),
        (
            desk(people=[{"key": "x", "numbers": ["+86 13800000001"]}]),
            "people.x: +8613800000001 already belongs to engineers.wang",
        ),
        (
            desk(people=[{"key": "x", "mails": ["A@b.cn"]}, {"key": "y", "mails": ["a@B.cn"]}]),
            "people.y: a@b.cn already belongs to people.x",
        ),
        (desk(shifts=[shift(site="sz")]), "shifts.#1.site: there is no site 'sz'"),
        (desk(shifts=[shift(days=[1])]), "shifts.#1.days: must be days like"),
        (desk(shifts=[shift(end="25:00")]), "shifts.#1.end: must be a time of the day"),
        (desk(shifts=[shift(end=800)]), "shifts.#1.end: must be a time of the day"),
        (desk(shifts=[shift(end=time(8, 0, 30))]), "shifts.#1.end: must be a time of the day"),
        (desk(overrides=[override(start=1)]), "overrides.#1.start: must be a date, like"),
        (desk(overrides=[override(start="2026-12-24")]), "overrides.#1.start: must be a date"),
        (desk(overrides=[override(end=date(2026, 12, 24))]), "overrides.#1: end must be after"),
        (
            desk(overrides=[override(end=datetime(2026, 12, 25, tzinfo=UTC))]),
            "overrides.#1: give an offset with both start and end",
        ),
        (desk(overrides=[override(site="*")]), "overrides.#1: site '*' has no time zone"),
        (desk(overrides=[override(sites=["gz"])]), "overrides.#1: give either site or sites"),
        (desk(sites=[{"key": "gz", "floor": ""}]), "sites.gz.floor: '' is neither a telephone"),
        (desk(sites=[{"key": "gz", "floor": "  "}]), "sites.gz.floor: '' is neither a telephone"),
        (desk(shifts=[shift(team="desk")]), "shifts.#1: give either a team or a tier"),
        (desk(shifts=[{**shift(), "site": None}]), "shifts.#1: with a tier, site must be given"),
        (desk(shifts=[shift(since=date(2026, 1, 2), until=date(2026, 1, 1))]), "shifts.#1: "),
        (desk(teams=[{"key": "t", "tier": 1, "sites": ["bj"]}]), "teams.t.sites: there is no site"),
        (desk(teams=[{"key": "tier-2", "tier": 1}]), "teams.#1.key: 'tier-2' is the team of those"),
        (desk(teams=[{"key": "t", "tier": 1}] * 2), "teams.#2.key: 't' is used twice"),
        (desk(engineers=[{"key": "x", "page": ["fax"]}]), "engineers.x.page.0: must be call, text"),
        (desk(engineers=[{"key": "x", "page": ["call after 2"]}]), "engineers.x.page.0: must be a"),
        (desk(engineers=[{"key": "x", "pin": "12"}]), "engineers.x.pin: '12' is not of the form"),
        (desk(engineers=[{"key": "x", "text": "8002"}]), "engineers.x.text: '8002' is not a tele"),
        (
            desk(
                engineers=[
                    {"key": "x", "text": "138-0000-0001"},
                    {"key": "y", "number": "+86 13800000001"},
                ]
            ),
            "engineers.y: +8613800000001 already belongs to engineers.x",
        ),
        (desk(engineers=[{"key": "x", "kind": "cook"}]), "engineers.x.kind: Input should be"),
        (
            desk(rotations=[{"key": "r", "members": ["li", {"engineer": "lee"}]}]),
            "rotations.r.members.engineer: there is no engineer 'lee'",
        ),
        (desk(rotations=[{"key": "r", "members": ["lu"]}]), "rotations.r.members: there is no eng"),
        (desk(rotations=[{"key": "r", "members": []}]), "rotations.r.members: Tuple should have"),
        (desk(rotations=[{"key": "r", "turn": "0 days"}]), "rotations.r.turn: must be a length"),
        (desk(rotations=[{"key": "r", "turn": 7}]), "rotations.r.turn: must be a length of turns"),
        (desk(windows=[{"calendar": "x"}]), "windows.#1.calendar: there is no calendar 'x'"),
        (desk(windows=[{"margin": "10"}]), "windows.#1.margin: must be a length of time"),
        (desk(leaves=[{"engineer": "li"}]), "leaves.#1: give first and last (days), or start"),
        (
            desk(leaves=[{"engineer": "li", "first": date(2026, 1, 2), "last": date(2026, 1, 1)}]),
            "leaves.#1: last must not be before first",
        ),
        (
            desk(leaves=[{"engineer": "li", "backup": "x"}]),
            "leaves.#1.backup: there is no engineer",
        ),
        (desk(swaps=[{"one": {"engineer": "x"}}]), "swaps.#1.one.engineer: there is no engineer"),
        (
            desk(swaps=[{"one": STINT, "other": STINT}]),
            "swaps.#1: other must be somebody else",
        ),
        (desk(overrides=[{**override(), "site": None}]), "overrides.#1: site must be given"),
        (
            desk(leaves=[{**STINT, "first": date(2026, 12, 24)}]),
            "leaves.#1: give either first and last, or start and end",
        ),
        (desk(leaves=[{**STINT, "end": STINT["start"]}]), "leaves.#1: end must be after start"),
        (desk(feeds=[{"key": "f", "url": "ftp://x"}]), "feeds.f.url: 'ftp://x' is not of the form"),
        (desk(sites=[{"key": "gz", "supervisor": "x"}]), "sites.gz.supervisor: there is no engin"),
        (desk(closing={"reminders": -1}), "closing.reminders: Input should be greater"),
        (desk(holidays="x"), "holidays: not TOML"),
    ],
)
def test_a_mistake_is_told_with_its_place(document: dict[str, Any], line: str) -> None:
    assert any(found.startswith(line) for found in errors(document)), errors(document)


def test_one_number_may_ring_and_take_texts() -> None:
    number = "138 0000 0001"
    both = {"key": "wang", "name": "王伟", "number": number, "text": number.replace(" ", "")}
    assert parse(desk(engineers=[both])).plan().engineers[0].text == "+8613800000001"


def test_a_file_that_cannot_be_read_is_told_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"missing\.toml: cannot be read: No such file"):
        read(tmp_path / "missing.toml")
    (tmp_path / "broken.toml").write_text("[[sites", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=re.escape("broken.toml: not TOML: ")):
        read(tmp_path / "broken.toml")
    (tmp_path / "odd.toml").write_text('holidays = "latin"', encoding="utf-8")
    (tmp_path / "latin").write_bytes(b"\xe4")
    with pytest.raises(ConfigurationError, match=r"holidays: .*latin: not UTF-8"):
        read(tmp_path / "odd.toml")
    (tmp_path / "lonely.toml").write_text('holidays = "none.toml"', encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"holidays: .*none\.toml: No such file"):
        read(tmp_path / "lonely.toml")


def test_a_checked_file_is_the_same_when_read_twice() -> None:
    assert read(SAMPLE) == read(SAMPLE)
    assert isinstance(read(SAMPLE), DeskFile)
