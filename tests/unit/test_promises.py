"""What the journal's entries mean for the clocks of a ticket."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from contactd.routing import promises
from contactd.routing.clocks import Clock, Metric, State
from contactd.tickets import journal
from contactd.tickets.journal import Draft, Entry, instant_text

OPENED_AT = datetime(2026, 11, 22, 9, tzinfo=UTC)
PROMISED = promises.targets(answer=timedelta(minutes=30), remote=timedelta(hours=2))


def after(minutes: float) -> datetime:
    return OPENED_AT + timedelta(minutes=minutes)


def wrote(action: str, minutes: float, **body: Any) -> Draft:
    return Draft(at=after(minutes), actor="system", action=action, state="new", body=body)


def received(action: str, minutes: float, contact: str = "pbx1-1.0", noted: float = 0) -> Draft:
    """Write of a contact that came in at `minutes`, learned of `noted` minutes later."""
    body = {"contact": contact, "received_at": instant_text(after(minutes)), "priority": "P3"}
    return wrote(action, minutes + noted, **body)


def answered(minutes: float, contact: str = "pbx1-1.0", noted: float = 0) -> Draft:
    body = {"contact": contact, "answered_at": instant_text(after(minutes))}
    return wrote("call.answered", minutes + noted, **body)


def chained(*drafts: Draft) -> Sequence[Entry]:
    return journal.chain("26112200014", drafts, seq=0, prev_hash="")


def clocks(*drafts: Draft) -> list[Clock]:
    return list(promises.clocks(chained(*drafts), PROMISED))


def the_clock(*drafts: Draft) -> Clock:
    [clock] = clocks(*drafts)
    assert clock.metric is Metric.ANSWER
    return clock


def test_a_call_that_is_answered_stops_the_answer_clock_when_it_was_answered() -> None:
    clock = the_clock(received("opened", 0), answered(1), wrote("call.ended", 5))
    assert (clock.state, clock.spent) == (State.STOPPED, timedelta(minutes=1))
    assert clock.due_at == after(30)


def test_taking_a_ticket_answers_nobody() -> None:
    clock = the_clock(received("opened", 0), wrote("acknowledged", 2, engineer="wang"))
    assert clock.state is State.RUNNING
    assert promises.breached_at(clock, after(29)) is None
    assert promises.breached_at(clock, after(31)) == after(30)


def test_what_was_learned_late_counts_from_when_it_happened() -> None:
    clock = the_clock(received("opened", 0, noted=40), answered(20, noted=45))
    assert clock.started_at == OPENED_AT
    assert clock.stopped_at == after(20)
    assert promises.breached_at(clock, after(60)) is None


def test_an_answer_that_came_too_late_is_a_breach() -> None:
    clock = the_clock(received("opened", 0), answered(31))
    assert promises.breached_at(clock, after(60)) == after(30)


def test_who_calls_again_is_to_be_answered_again() -> None:
    first, second = clocks(
        received("opened", 0), answered(1), received("contact.added", 10, "pbx1-2.0")
    )
    assert (first.state, second.state) == (State.STOPPED, State.RUNNING)
    assert second.started_at == after(10)


def test_a_contact_that_went_to_another_ticket_is_answered_there() -> None:
    clock = the_clock(
        received("opened", 0),
        answered(1),
        received("contact.added", 10, "pbx1-2.0"),
        answered(11, "pbx1-2.0"),
        received("ticket.separated", 10, "pbx1-2.0", noted=2),
    )
    assert clock.stopped_at == after(1)


def test_the_answer_clock_is_never_paused() -> None:
    clock = the_clock(received("opened", 0), wrote("held", 5, note="waits for a part"))
    assert clock.state is State.RUNNING


@pytest.mark.parametrize("action", ["closed", "cancelled"])
def test_a_ticket_that_is_over_asks_for_no_answer(action: str) -> None:
    assert the_clock(received("opened", 0), wrote(action, 5)).state is State.CANCELLED


def test_a_ticket_without_a_journal_has_no_clocks() -> None:
    assert clocks() == []
