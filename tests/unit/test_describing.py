"""The standard information of a fault: what is kept of it, and what is still to be asked for."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from contactd.tickets.describing import (
    LONGEST_LINE,
    OPTIONAL,
    About,
    Description,
    Item,
    Standard,
    missing,
    present,
    row_of,
    standard_of,
    told,
)
from contactd.tickets.priority import Impact

AT = datetime(2026, 11, 20, 1, 30, tzinfo=UTC)
WHOLE = Standard(
    what="打不开\n第二行", happened_at=AT, device="PC-0815", version="5.2", error="0x80070005",
    impact=Impact.DEPARTMENT, wished="明天上午",
)  # fmt: skip
KNOWN = About(
    name="张三", department="财务", has_phone=True, has_mail=True, site="gz", title="打不开",
    system="ERP", has_picture=True, has_impact=True,
)  # fmt: skip


def test_what_is_not_said_stays_and_only_what_is_new_is_told() -> None:
    known, new = told(WHOLE, Description(device="PC-0816", version="5.2"))
    assert known == replace(WHOLE, device="PC-0816")
    assert new == {"device": "PC-0816"}


def test_what_was_said_can_be_taken_back() -> None:
    known, new = told(WHOLE, Description(error=""))
    assert known.error == ""
    assert new == {"error": ""}


def test_it_is_told_in_values_that_a_journal_keeps() -> None:
    _, new = told(Standard(), Description(happened_at=AT, impact=Impact.COMPANY))
    assert new == {"happened_at": "2026-11-20T01:30:00.000000Z", "impact": 1}


def test_lines_are_lines_and_texts_keep_theirs() -> None:
    known, _ = told(
        Standard(), Description(device="A\nB\x00\u202e" + "x" * 500, what="A\nB\x00C\r\n")
    )
    assert known.device.startswith("A B x")
    assert len(known.device) == LONGEST_LINE
    assert known.what == "A\nB C"


@pytest.mark.parametrize("known", [Standard(), WHOLE, Standard(device="x")])
def test_what_a_row_keeps_comes_back(known: Standard) -> None:
    assert standard_of(row_of(known)) == known


def test_a_row_of_another_release_does_no_harm() -> None:
    assert standard_of({"device": "x", "colour": "red"}) == Standard(device="x")
    assert standard_of(None) == Standard()


def test_nothing_is_missing_once_everything_was_said() -> None:
    assert list(missing(WHOLE, KNOWN)) == []
    assert all(present(WHOLE, KNOWN).values())


def test_what_is_asked_for_first_is_what_nobody_can_do_without() -> None:
    wanted = list(missing(Standard(), About()))
    assert set(wanted) == set(Item)
    assert wanted[: -len(OPTIONAL)] == [each for each in Item if each not in OPTIONAL]


@pytest.mark.parametrize(
    ("item", "known", "about"),
    [
        (Item.WHAT, Standard(what="x"), About()),
        (Item.WHAT, Standard(), About(title="x")),
        (Item.DEVICE, Standard(device="x"), About()),
        (Item.DEVICE, Standard(), About(system="ERP")),
        (Item.IMPACT, Standard(impact=Impact.PERSON), About()),
        (Item.IMPACT, Standard(), About(has_impact=True)),
        (Item.HAPPENED_AT, Standard(happened_at=AT), About()),
        (Item.PHONE, Standard(), About(has_phone=True)),
        (Item.MAIL, Standard(), About(has_mail=True)),
        (Item.SITE, Standard(), About(site="gz")),
        (Item.DEPARTMENT, Standard(), About(department="x")),
        (Item.PICTURE, Standard(), About(has_picture=True)),
    ],
)
def test_each_thing_is_known_by_what_says_it(item: Item, known: Standard, about: About) -> None:
    found = present(known, about)
    assert [each for each in Item if found[each]] == [item]
