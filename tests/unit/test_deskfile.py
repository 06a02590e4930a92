"""The desk file: what an operator may write, and how each mistake is told."""

import re
import tomllib
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest

from contactd.errors import ConfigurationError
from contactd.routing.deskfile import DeskFile, parse, read
from contactd.routing.oncall import Why, on_duty, problems

SAMPLE = Path(__file__).parents[2] / "etc" / "desk.toml"


def desk(**parts: list[dict[str, Any]]) -> dict[str, Any]:
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


# The sample


def test_the_sample_is_right_and_its_rota_has_no_problems() -> None:
    sample = read(SAMPLE)
    assert [site.key for site in sample.sites] == ["gz", "sz", "zh", "fs", "zq"]
    assert problems(sample.rota()) == []


def test_at_each_site_of_the_sample_three_tiers_are_on_duty_at_any_time() -> None:
    rota = read(SAMPLE).rota()
    start = datetime(2026, 12, 7, tzinfo=UTC)
    for site in rota.sites:
        for hour in range(3 * 7 * 24):
            found = on_duty(rota, site.key, start + timedelta(hours=hour))
            assert {duty.tier for duty in found} == {1, 2, 3}


def test_the_resident_engineer_of_the_sample_comes_ten_minutes_early_and_has_a_stand_in() -> None:
    rota = read(SAMPLE).rota()

    def tier_1(day: int, hour: int, minute: int) -> list[str]:
        at = datetime(2026, 12, day, hour - 8, minute, tzinfo=UTC)
        return [duty.engineer.key for duty in on_duty(rota, "gz", at) if duty.tier == 1]

    assert tier_1(23, 8, 49) == ["chen"]
    assert tier_1(23, 8, 50) == ["wang", "chen"]
    assert tier_1(23, 18, 10) == ["chen"]
    assert tier_1(24, 8, 50) == ["chen", "zhou"]


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
    (site,) = parse(desk()).rota().sites
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
    (found,) = parse(desk(shifts=[shift(days=written)])).rota().shifts
    assert found.weekdays == days


def test_a_shift_is_on_every_day_unless_said_otherwise() -> None:
    assert parse(desk(shifts=[shift()])).rota().shifts[0].weekdays == set(range(7))


def test_times_are_strings_or_toml_times_and_a_day_ends_at_24() -> None:
    found = parse(desk(shifts=[shift(start=time(8, 30), end="24:00")])).rota().shifts[0]
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
    first, second = parse(desk() | document).rota().overrides
    assert first.start == datetime(2026, 12, 24, 0, tzinfo=UTC)
    assert first.end == datetime(2026, 12, 24, 16, tzinfo=UTC)
    assert (first.replaces, second.replaces) == ("", "li")
    assert second.start == datetime(2026, 12, 24, 8, tzinfo=UTC)
    assert second.end == datetime(2026, 12, 24, 12, tzinfo=UTC)


def test_without_shifts_the_floor_is_on_duty() -> None:
    (duty,) = on_duty(parse(desk()).rota(), "gz", datetime(2026, 12, 24, tzinfo=UTC))
    assert (duty.why, duty.engineer.number) == (Why.FLOOR, "8000")


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
    ],
)
def test_a_mistake_is_told_with_its_place(document: dict[str, Any], line: str) -> None:
    assert any(found.startswith(line) for found in errors(document)), errors(document)


def test_a_file_that_cannot_be_read_is_told_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"missing\.toml: cannot be read: No such file"):
        read(tmp_path / "missing.toml")
    (tmp_path / "broken.toml").write_text("[[sites", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=re.escape("broken.toml: not TOML: ")):
        read(tmp_path / "broken.toml")


def test_a_checked_file_is_the_same_when_read_twice() -> None:
    assert read(SAMPLE) == read(SAMPLE)
    assert isinstance(read(SAMPLE), DeskFile)
