"""Which text that comes in over SMPP is a repetition; stories over links are in `tests/wire`."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contactd.sms import smpp_repeats
from contactd.sms.smpp_pdu import Address, ShortMessage, Tag
from contactd.sms.smpp_repeats import DOUBT, LATE, Progress, Repeats

NOW = datetime(2026, 11, 20, 2, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def text(words: str = "1", sender: str = "8613800000001", **changes: object) -> ShortMessage:
    given = {"source": Address(value=sender), "destination": Address(value="10690001"),
             "content": words.encode(), **changes}  # fmt: skip
    return ShortMessage(**given)  # type: ignore[arg-type]


def test_what_differs_in_anything_is_another_text() -> None:
    repeats, link = Repeats(), Progress()
    different = [text(), text("2"), text(sender="8613800000002"), text(data_coding=8),
                 text(esm_class=0x40), text(tlvs={Tag.SAR_TOTAL: b"\1"})]  # fmt: skip
    over = Progress()
    for each in different:
        repeats.came(each, link, NOW)  # none is acknowledged, and the link ends
    found = [repeats.came(each, over, NOW).id for each in different]
    assert len(set(found)) == len(different)


def test_each_of_two_equal_texts_is_repeated_once() -> None:
    repeats, link, next_link = Repeats(), Progress(), Progress()
    first, second = repeats.came(text(), link, NOW), repeats.came(text(), link, NOW)
    assert first.id != second.id
    again = [repeats.came(text(), next_link, NOW).id for _ in range(3)]
    assert again[:2] == [first.id, second.id]
    assert again[2] not in again[:2]


def test_a_repetition_may_be_repeated() -> None:
    repeats = Repeats()
    ids = {repeats.came(text(), Progress(), NOW).id for _ in range(5)}  # every link ends at once
    assert len(ids) == 1


@pytest.mark.parametrize(("asked", "answered", "is_repeated"), [(3, 3, True), (3, 4, False)])
def test_an_answer_to_what_was_asked_later_proves_the_acknowledgement(
    asked: int, answered: int, *, is_repeated: bool
) -> None:
    repeats, link = Repeats(), Progress(asked=asked)
    came = repeats.came(text(), link, NOW)
    came.answered(NOW, is_taken=True)
    link.answered = answered
    assert (repeats.came(text(), Progress(), NOW).id == came.id) == is_repeated


@pytest.mark.parametrize(("took", "is_repeated"), [(LATE, False), (LATE + SECOND, True)])
def test_what_was_acknowledged_late_may_be_repeated_over_the_same_link(
    took: timedelta, *, is_repeated: bool
) -> None:
    repeats, link = Repeats(), Progress()
    came = repeats.came(text(), link, NOW)
    came.answered(NOW + took, is_taken=True)
    assert (repeats.came(text(), link, NOW + took).id == came.id) == is_repeated


@pytest.mark.parametrize(("later", "is_repeated"), [(DOUBT, True), (DOUBT + SECOND, False)])
def test_doubt_ends(later: timedelta, *, is_repeated: bool) -> None:
    repeats = Repeats()
    came = repeats.came(text(), Progress(), NOW)
    assert (repeats.came(text(), Progress(), NOW + later).id == came.id) == is_repeated


def test_ids_are_not_those_of_before_a_restart() -> None:
    before = Repeats().came(text(), Progress(), NOW).id
    assert Repeats().came(text(), Progress(), NOW + timedelta(microseconds=1)).id != before


@given(st.lists(st.tuples(st.sampled_from("123"), st.integers(0, 600)), max_size=40))
def test_over_one_link_that_is_prompt_every_text_is_its_own(events: list[tuple[str, int]]) -> None:
    repeats, link, now = Repeats(), Progress(), NOW
    ids = set()
    for words, seconds in events:
        now += timedelta(seconds=seconds)
        came = repeats.came(text(words), link, now)
        came.answered(now, is_taken=True)
        ids.add(came.id)
    assert len(ids) == len(events)


def test_only_so_many_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smpp_repeats, "REMEMBERED", 3)
    repeats, link = Repeats(), Progress()
    ids = [repeats.came(text(str(number)), link, NOW).id for number in range(4)]
    assert repeats.came(text("3"), Progress(), NOW).id == ids[3]
    assert repeats.came(text("0"), Progress(), NOW).id != ids[0]
    assert len(repeats._by_key) == 3
