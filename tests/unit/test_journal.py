"""The hash chain of a journal: whatever is changed, removed, moved or added shows."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contactd.tickets.journal import Draft, Entry, canonical, chain, verify

START = datetime(2026, 11, 20, 2, 0, tzinfo=UTC)
TICKET = "26112000018"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=6,
)
drafts = st.builds(
    Draft,
    at=st.datetimes(timezones=st.just(UTC), min_value=datetime(2020, 1, 1)),  # noqa: DTZ001
    actor=st.sampled_from(["requester", "system", "engineer:wang", "user:艾米"]),
    action=st.sampled_from(["opened", "acknowledged", "page.sent"]),
    state=st.sampled_from(["new", "in_progress"]),
    body=st.dictionaries(st.text(max_size=8), json_values, max_size=4),
)
journals = st.lists(drafts, min_size=1, max_size=6)


def chained(some: list[Draft]) -> list[Entry]:
    return list(chain(TICKET, some, seq=0, prev_hash=""))


def example(count: int = 4) -> list[Entry]:
    return chained(
        [
            Draft(
                at=START + timedelta(minutes=number),
                actor="system",
                action="opened",
                state="new",
                body={"n": number},
            )
            for number in range(count)
        ]
    )


@settings(max_examples=30)
@given(journals, st.integers(0, 6))
def test_a_journal_written_in_parts_is_the_journal_written_at_once(
    some: list[Draft], cut: int
) -> None:
    whole = chained(some)
    first = chain(TICKET, some[:cut], seq=0, prev_hash="")
    last = first[-1].hash if first else ""
    rest = chain(TICKET, some[cut:], seq=len(first), prev_hash=last)
    assert [*first, *rest] == whole
    assert verify(whole, last_hash=whole[-1].hash) == ""


@settings(max_examples=30)
@given(journals)
def test_a_body_that_went_through_json_is_the_same_entry(some: list[Draft]) -> None:
    stored = [replace(each, body=json.loads(json.dumps(each.body))) for each in chained(some)]
    assert verify(stored) == ""


@settings(max_examples=30)
@given(journals, st.data())
def test_a_change_of_any_field_of_any_entry_shows(some: list[Draft], data: st.DataObject) -> None:
    entries = chained(some)
    place = data.draw(st.integers(0, len(entries) - 1))
    changes: dict[str, Any] = {
        "at": entries[place].at + timedelta(microseconds=1),
        "actor": "user:mallory",
        "action": "closed",
        "state": "closed",
        "body": {"other": True},
        "hash": "0" * 64,
        "prev_hash": "1" * 64,
        "ticket": "26112000026",
        "seq": 99,
    }
    name = data.draw(st.sampled_from(sorted(changes)))
    entries[place] = replace(entries[place], **{name: changes[name]})
    assert verify(entries) != ""


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_missing_entry_shows(place: int) -> None:
    entries = example()
    del entries[place]
    assert verify(entries) == f"entry {place + 1} is missing"


def test_a_cut_off_end_shows_in_the_hash_of_the_ticket() -> None:
    entries = example()
    last_hash = entries[-1].hash
    assert verify(entries[:2]) == ""
    assert verify(entries[:2], last_hash=last_hash) == "entries after 2 are missing"
    assert verify([], last_hash=last_hash) == "entries after 0 are missing"


def test_a_forged_entry_that_keeps_its_own_hash_right_breaks_the_next() -> None:
    entries = example()
    forged = Draft(at=START, actor="system", action="opened", state="new", body={"n": "x"})
    entries[1] = chain(TICKET, [forged], seq=1, prev_hash=entries[0].hash)[0]
    assert verify(entries) == "entry 3 does not follow entry 2"


def test_an_entry_is_written_down_in_one_way_only() -> None:
    china = timezone(timedelta(hours=8))
    one = Draft(at=START, actor="system", action="a", state="new", body={"b": 1, "a": "张"})
    other = replace(one, at=START.astimezone(china), body={"a": "张", "b": 1})
    assert canonical(TICKET, 1, one) == canonical(TICKET, 1, other)
    assert canonical(TICKET, 1, one) == (
        rb'{"action":"a","actor":"system","at":"2026-11-20T02:00:00.000000Z",'
        rb'"body":{"a":"\u5f20","b":1},"seq":1,"state":"new","ticket":"26112000018"}'
    )


def test_a_number_that_json_does_not_have_is_refused() -> None:
    draft = Draft(at=START, actor="system", action="a", state="new", body={"x": float("nan")})
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical(TICKET, 1, draft)
