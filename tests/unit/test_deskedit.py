"""Editing the desk file's text: only the entry changes, comments stay, and nothing else is said."""

import tomllib
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contactd.errors import ConfigurationError, PermanentFailure
from contactd.routing import deskedit
from contactd.routing.deskedit import Fault, Stale
from contactd.routing.deskfile import parse
from contactd.routing.holes import NO_TIER, effect
from contactd.web import adminforms, adminwords
from tests.fakes.rota import desk_document

SAMPLE = (Path(__file__).parents[2] / "etc" / "desk.toml").read_text(encoding="utf-8")
NOW = datetime(2026, 11, 23, 2, tzinfo=UTC)
AHEAD = NOW + timedelta(days=60)


def entry(section: str, number: int, text: str = SAMPLE) -> dict[str, Any]:
    return deskedit.entries(deskedit.document(text), section)[number]


def was(section: str, number: int, text: str = SAMPLE) -> str:
    return deskedit.fingerprint(entry(section, number, text))


def lines_of(text: str) -> list[str]:
    return text.splitlines()


def test_a_change_touches_the_lines_of_its_field_only() -> None:
    changed = deskedit.put(
        SAMPLE, "sites", {**entry("sites", 4), "area_code": "759"}, was=was("sites", 4)
    )
    differing = [
        pair for pair in zip(lines_of(SAMPLE), lines_of(changed), strict=True) if len(set(pair)) > 1
    ]
    assert differing == [('area_code = "758"', 'area_code = "759"')]


def test_a_comment_inside_an_entry_stays() -> None:
    text = (
        '[[sites]]\nkey = "gz" # for good\nname_zh = "广州"\n# here\nname_en = "GZ"\nfloor = "1"\n'
    )
    changed = deskedit.put(text, "sites", {**entry("sites", 0, text), "floor": "2"},
                           was=was("sites", 0, text))  # fmt: skip
    assert changed == text.replace('floor = "1"', 'floor = "2"')


def test_a_new_entry_follows_the_last_of_its_section() -> None:
    site = {"key": "dg", "name_zh": "东莞", "name_en": "Dongguan", "floor": "13800000090"}
    lines = lines_of(deskedit.put(SAMPLE, "sites", site))
    at = lines.index('key = "dg"')
    assert lines[at - 3] == 'area_code = "758"'
    assert lines.index("# Engineers " + "-" * 87) > at


def test_the_first_entry_of_a_section_is_added_at_the_end() -> None:
    steps = [{"tell": ["tier 1"]}, {"tell": ["floor"], "after": "5m"}]
    changed = deskedit.put(SAMPLE, "policies", {"key": "shops", "steps": steps})
    assert tomllib.loads(changed)["policies"] == [{"key": "shops", "steps": steps}]
    assert changed.startswith(SAMPLE.rstrip("\n"))


def test_an_entry_that_goes_leaves_the_comments_of_the_next_section() -> None:
    changed = deskedit.drop(SAMPLE, "people", was("people", 5))
    assert 'key = "feng"' not in changed
    assert "# Calendars " in changed
    assert len(deskedit.entries(deskedit.document(changed), "people")) == 5


def test_an_entry_with_tables_of_its_own_is_changed_as_a_whole() -> None:
    text = (
        '[[policies]]\nkey = "a"\n[[policies.steps]]\ntell = ["tier 1"]\n\n'
        '[[policies]]\nkey = "b"\n[[policies.steps]]\ntell = ["tier 2"]\n'
    )
    steps = [{"tell": ["tier 1"]}, {"tell": ["supervisor"], "after": "10m"}]
    changed = deskedit.put(text, "policies", {"key": "a", "rounds": 5, "steps": steps},
                           was=was("policies", 0, text))  # fmt: skip
    assert tomllib.loads(changed)["policies"] == [
        {"key": "a", "rounds": 5, "steps": steps},
        {"key": "b", "steps": [{"tell": ["tier 2"]}]},
    ]


def test_a_section_that_is_written_in_one_line_can_be_edited_too() -> None:
    text = 'teams = [{ key = "desk", tier = 1 }]\nrules = [] # none\n'
    changed = deskedit.put(text, "teams", {"key": "desk", "tier": 2}, was=was("teams", 0, text))
    assert tomllib.loads(changed) == {"rules": [], "teams": [{"key": "desk", "tier": 2}]}


def test_closing_is_one_table() -> None:
    once = deskedit.put(SAMPLE, "closing", {"reminders": 1})
    twice = deskedit.put(once, "closing", {"reminders": 3, "close_after": "96h"})
    assert tomllib.loads(twice)["closing"] == {"reminders": 3, "close_after": "96h"}


def test_rules_change_places_and_keep_their_words() -> None:
    text = '# top\n[[rules]]\npolicy = "p1"\n\n# below\n[[rules]]\nteam = "desk" # first\n'
    moved = deskedit.move(text, "rules", was("rules", 1, text), -1)
    assert moved == '# top\n[[rules]]\nteam = "desk" # first\n\n# below\n[[rules]]\npolicy = "p1"\n'
    assert deskedit.move(text, "rules", was("rules", 0, text), -1) == text


def test_an_entry_that_somebody_else_changed_is_not_overwritten() -> None:
    seen = was("sites", 0)
    theirs = deskedit.put(SAMPLE, "sites", {**entry("sites", 0), "area_code": "21"}, was=seen)
    with pytest.raises(Stale):
        deskedit.put(theirs, "sites", {**entry("sites", 0), "name_en": "Canton"}, was=seen)
    with pytest.raises(Stale):
        deskedit.drop(theirs, "sites", seen)


def test_what_others_change_elsewhere_is_kept() -> None:
    theirs = deskedit.drop(SAMPLE, "sites", was("sites", 0))
    both = deskedit.put(theirs, "sites", {**entry("sites", 3), "area_code": "1234"},
                        was=was("sites", 3))  # fmt: skip
    sites = deskedit.entries(deskedit.document(both), "sites")
    assert [site["key"] for site in sites] == ["sz", "zh", "fs", "zq"]
    assert sites[2]["area_code"] == "1234"


@given(
    st.sampled_from([s for s in deskedit.SECTIONS if s not in ("closing", "rules")]),
    st.integers(0, 30),
    st.dictionaries(
        st.sampled_from(["name", "note", "x-y"]),
        st.one_of(
            st.text(max_size=12), st.integers(-9, 9), st.booleans(), st.dates(),
            st.lists(st.text(max_size=5), max_size=3),
            st.dictionaries(st.text("ab. \"'", min_size=1, max_size=4), st.integers(), max_size=2),
        ),
        min_size=1,
    ),
)  # fmt: skip
def test_whatever_is_put_is_exactly_what_the_text_says_then(
    section: str, number: int, more: dict[str, Any]
) -> None:
    before = deskedit.document(SAMPLE)
    listed = deskedit.entries(before, section)
    changed: dict[str, Any] = {**(listed[number] if number < len(listed) else {}), **more}
    seen = deskedit.fingerprint(listed[number]) if number < len(listed) else ""
    try:
        text = deskedit.put(SAMPLE, section, changed, was=seen)
    except PermanentFailure:
        pytest.fail(f"{changed} could not be written")
    after = deskedit.document(text)
    wanted = [*listed[:number], changed, *listed[number + 1 :]]
    assert after[section] == wanted
    assert {**after, section: 0} == {**before, section: 0}


def test_a_change_is_told_by_entry_and_field() -> None:
    changed = deskedit.put(SAMPLE, "shifts", {**entry("shifts", 0), "end": "19:00"},
                           was=was("shifts", 0))  # fmt: skip
    changed = deskedit.drop(changed, "people", was("people", 0))
    told = deskedit.summary(deskedit.document(SAMPLE), deskedit.document(changed))
    assert [(change.section, change.fields, change.after is None) for change in told] == [
        ("people", told[0].fields, True),
        ("shifts", [("end", "20:00", "19:00")], False),
    ]


def test_every_fault_has_its_place() -> None:
    text = SAMPLE.replace('floor = "138 0000 0091"', 'floor = "nobody"', 1)
    text = text.replace('members = ["chen", "zhou"]', 'members = ["chen", "zhuo"]')
    with pytest.raises(ConfigurationError) as caught:
        deskedit.check(text)
    faults = deskedit.faults(caught.value)
    assert [(f.section, f.name, f.field) for f in faults] == [
        ("sites", "zh", "floor"),
        ("rotations", "desk-days", "members"),
    ]
    assert deskedit.faults(ConfigurationError("no place at all")) == [
        Fault(section="", name="", field="", text="no place at all")
    ]


# What a change does to duty


def rota(document: dict[str, Any]) -> Any:
    return parse(document).plan().rota({})


def test_a_shift_that_goes_makes_a_hole_that_names_who_is_rung_instead() -> None:
    before = desk_document(sites=("gz",))
    after = {**before, "shifts": [each for each in before["shifts"] if each["tier"] != 1]}
    found = effect(rota(before), rota(after), NOW, AHEAD)
    (hole,) = found.holes
    assert (hole.site, hole.tier, hole.instead) == ("gz", 1, ("li",))
    assert (hole.since, hole.until) == (NOW, AHEAD)
    assert found.sites == {"gz"}


def test_with_nobody_left_the_floor_is_rung() -> None:
    before = desk_document(sites=("gz",))
    found = effect(rota(before), rota({**before, "shifts": []}), NOW, AHEAD)
    assert {hole.instead for hole in found.holes} == {()}


def test_a_hole_that_was_there_before_is_none_of_this_change() -> None:
    before = desk_document()  # nobody at zh
    shorter = [{**each, "end": "12:00"} if each["site"] == "gz" else each
               for each in before["shifts"]]  # fmt: skip
    found = effect(rota(before), rota({**before, "shifts": shorter}), NOW, AHEAD)
    assert {hole.site for hole in found.holes} == {"gz"}
    assert effect(rota(before), rota(before), NOW, AHEAD).holes == ()


def test_a_new_site_without_anybody_is_a_hole() -> None:
    found = effect(rota(desk_document(sites=("gz",))), rota(desk_document()), NOW, AHEAD)
    assert [(hole.site, hole.tier) for hole in found.holes] == [("zh", NO_TIER)]


# Forms


@pytest.mark.parametrize("section", list(adminforms.MODELS))
def test_a_form_that_nobody_touched_says_what_the_file_says(section: str) -> None:
    document = deskedit.document(SAMPLE)
    for found in deskedit.entries(document, section):
        assert adminforms.read(section, adminforms.filled(section, found), found) == found


@pytest.mark.parametrize(
    ("section", "wanted"),
    [
        ("calendars", {"key": "a", "weekly": {"mon-fri": ["09:00-12:00", "13:00-18:00"],
                       "sun": "10:00-11:00"}, "days": [{"date": date(2026, 12, 31), "hours": []}]}),
        ("contracts", {"key": "a", "promises": {"all": {"answer": "15m", "arrival": {"goal": "4h",
                       "calendar": "days", "warnings": [50, 90], "pausable": False}}}}),
        ("policies", {"key": "a", "steps": [{"tell": ["tier 1", "team field"], "after": "2m",
                      "parallel": True}], "rounds": 2}),
        ("rules", {"when": {"site": ["gz"], "priority": ["P1"], "vip": True}, "team": "desk"}),
        ("swaps", {"one": {"engineer": "wu", "start": datetime(2026, 12, 12, 20),  # noqa: DTZ001
                           "end": datetime(2026, 12, 13, 8)},  # noqa: DTZ001
                   "other": {"engineer": "li", "start": datetime(2026, 12, 19, 20),  # noqa: DTZ001
                             "end": datetime(2026, 12, 20, 8)}}),  # noqa: DTZ001
        ("rotations", {"key": "a", "team": "desk", "members": ["wu", {"engineer": "li",
                       "since": date(2027, 1, 1)}], "turn": "2 weeks", "start": date(2026, 1, 5)}),
        ("shifts", {"engineer": "wu", "tier": 1, "site": "*", "days": ["mon-wed", "sat"],
                    "start": "08:00", "end": "24:00"}),
    ],
)  # fmt: skip
def test_a_form_can_say_what_the_file_can_say(section: str, wanted: dict[str, Any]) -> None:
    assert adminforms.read(section, adminforms.filled(section, wanted)) == wanted


def test_rows_go_where_their_number_says_and_empty_ones_are_left_out() -> None:
    sent = {"members.0.engineer": ["chen"], "members.1.engineer": ["zhou"],
            "members.1.no": ["1"], "members.0.no": ["2"], "members.2.engineer": [""]}  # fmt: skip
    assert adminforms.read("rotations", sent)["members"] == ["zhou", "chen"]


def test_a_shift_of_no_day_is_refused() -> None:
    sent = {"engineer": ["wang"], "tier": ["1"], "site": ["gz"], "start": ["08:00"],
            "end": ["12:00"]}  # fmt: skip
    shift = adminforms.read("shifts", sent)
    with pytest.raises(ConfigurationError, match="is not a day"):
        deskedit.check(deskedit.put(SAMPLE, "shifts", shift))


def test_what_the_check_says_has_words_in_both_languages() -> None:
    for line, words in (
        ("there is no engineer 'zhuo'", "“%(name)s” does not exist (any more)."),
        ("'x' is neither a telephone number nor an extension (1–5 digits)",
         "“%(name)s” is neither a telephone number nor an extension (1–5 digits)."),
        ("is missing", "This is missing."),
    ):  # fmt: skip
        assert adminwords.said(line).text == words
    assert adminwords.said("something new").raw == "something new"
