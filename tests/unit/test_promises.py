"""What the journal's entries mean for the clocks of a ticket."""

from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta
from typing import Any

import pytest

from contactd.routing import promises, terms
from contactd.routing.calendars import ALWAYS, WorkingCalendar
from contactd.routing.clocks import Breached, Clock, Metric, State, Target
from contactd.routing.terms import Terms
from contactd.tickets import journal
from contactd.tickets.journal import Draft, Entry, instant_text
from contactd.tickets.priority import Priority

OPENED_AT = datetime(2026, 11, 22, 9, tzinfo=UTC)  # a Sunday
MINUTE = timedelta(minutes=1)
LUNCH = WorkingCalendar(  # open in the first five minutes of each day's ninth hour
    name="短", zone="UTC", weekly=dict.fromkeys(range(7), ((time(9), time(9, 5)),))
)
PROMISED = Terms(
    targets={
        **terms.standard(answer=30 * MINUTE, remote=120 * MINUTE),
        **{
            ("gold.2", priority): {
                Metric.ANSWER: Target(goal=10 * MINUTE, calendar="always"),
                Metric.RESOLUTION: Target(
                    goal=(60 if priority is Priority.P1 else 240) * MINUTE, pausable=True
                ),
            }
            for priority in Priority
        },
    },
    calendars={"always": ALWAYS, "gz-hours.1": LUNCH},
    policies={},
)


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


def the_clock(*drafts: Draft, metric: Metric = Metric.ANSWER) -> Clock:
    [clock] = [clock for clock in clocks(*drafts) if clock.metric is metric]
    return clock


def gold(*, priority: str = "P3") -> Draft:
    opened = received("opened", 0)
    body = {**opened.body, "contract": "gold.2", "calendar": "always", "priority": priority}
    return Draft(at=opened.at, actor="system", action="opened", state="new", body=body)


class Ledger:
    """A ticket's journal as it grows: what is found is written, as `FollowUp` does it."""

    def __init__(self, *drafts: Draft) -> None:
        self.drafts = list(drafts)

    @property
    def journal(self) -> Sequence[Entry]:
        return chained(*self.drafts)

    @property
    def clocks(self) -> promises.Clocks:
        return promises.clocks(self.journal, PROMISED)

    def look(self, minutes: float) -> list[str]:
        """Record what there is at that minute; return it, what is late with a star."""
        found = promises.news(self.journal, self.clocks, after(minutes))
        self.drafts += [wrote(each.action, minutes, **each.body) for each in found]
        assert promises.news(self.journal, self.clocks, after(minutes)) == []
        return [f"{each.metric} {each.percent}{'' if each.acts else ' *'}" for each in found]

    def next_look(self, minutes: float) -> float | None:
        at = promises.next_look(self.clocks, self.journal, after(minutes))
        return (at - OPENED_AT) / MINUTE if at else None


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


# What the entries of other use cases mean


def test_a_personal_reply_is_an_answer_when_it_was_given() -> None:
    said = wrote("answered", 25, answered_at=instant_text(after(20)), how="call-back")
    clock = the_clock(received("opened", 0), said)
    assert (clock.state, clock.stopped_at) == (State.STOPPED, after(20))


@pytest.mark.parametrize(
    ("metric", "drafts", "minutes"),
    [
        (Metric.REMOTE, ["remote.asked", "remote.started"], (10, 20)),
        (Metric.OFFER, ["dispatch.offered", "dispatch.accepted"], (10, 20)),
        (Metric.OFFER, ["dispatch.offered", "dispatch.arrived"], (10, 20)),
        (
            Metric.ARRIVAL,
            ["dispatch.offered", "dispatch.accepted", "dispatch.on_way", "dispatch.arrived"],
            (20, 40),
        ),
    ],
)
def test_each_promise_is_timed_from_and_to_its_entries(
    metric: Metric, drafts: list[str], minutes: tuple[float, float]
) -> None:
    told = [wrote(action, 10 * n, dispatch=1) for n, action in enumerate(drafts, 1)]
    clock = the_clock(received("opened", 0), *told, metric=metric)
    assert (clock.started_at, clock.stopped_at) == (after(minutes[0]), after(minutes[1]))
    assert clock.state is State.STOPPED


def test_what_an_entry_says_of_the_past_counts_from_then() -> None:
    asked = wrote("remote.asked", 30, at=instant_text(after(10)))
    assert the_clock(received("opened", 0), asked, metric=Metric.REMOTE).started_at == after(10)


def test_one_of_two_engineers_who_declines_leaves_the_promise_to_the_other() -> None:
    both = (
        received("opened", 0),
        wrote("dispatch.offered", 1, dispatch=1),
        wrote("dispatch.accepted", 2, dispatch=1),
        wrote("dispatch.offered", 3, dispatch=2),
        wrote("dispatch.accepted", 4, dispatch=2),
        wrote("dispatch.declined", 5, dispatch=2),
    )
    offers = [clock.state for clock in clocks(*both) if clock.metric is Metric.OFFER]
    assert offers == [State.STOPPED, State.STOPPED]
    alone = [*both, wrote("dispatch.cancelled", 6, dispatch=1)]
    assert the_clock(*both, metric=Metric.ARRIVAL).state is State.RUNNING
    assert the_clock(*alone, metric=Metric.ARRIVAL).state is State.CANCELLED


def test_an_engineer_alone_who_declines_after_all_is_to_be_replaced() -> None:
    drafts = (
        received("opened", 0),
        wrote("dispatch.offered", 1, dispatch=1),
        wrote("dispatch.accepted", 2, dispatch=1),
        wrote("dispatch.declined", 5, dispatch=1),
    )
    offers = [clock.started_at for clock in clocks(*drafts) if clock.metric is Metric.OFFER]
    assert offers == [after(1), after(5)]


def test_a_pause_has_the_reason_that_was_given() -> None:
    for body, reason in (
        ({"reason": "vendor", "note": "x"}, "vendor"),
        ({"note": "part"}, "part"),
        ({}, "pending"),
    ):
        held = the_clock(gold(), wrote("held", 5, **body), metric=Metric.RESOLUTION)
        assert (held.state, held.segments[-1].reason) == (State.PAUSED, reason)


def test_terms_that_change_count_from_then_on() -> None:
    drafts = [gold(), wrote("priority.changed", 20, priority="P1", before="P3")]
    clock = the_clock(*drafts, metric=Metric.RESOLUTION)
    assert (clock.goal, clock.due_at) == (60 * MINUTE, after(60))
    drafts.append(wrote("calendar.changed", 30, calendar="gz-hours.1"))
    clock = the_clock(*drafts, metric=Metric.RESOLUTION)
    assert clock.due_at == datetime(2026, 11, 28, 9, 5, tzinfo=UTC)  # 30 minutes, five a day
    drafts.append(wrote("contract.changed", 40, contract="standard"))
    clock = the_clock(*drafts, metric=Metric.RESOLUTION)
    assert (clock.state, clock.stopped_at) == (State.CANCELLED, after(40))


def test_a_ticket_of_before_contracts_has_the_one_that_is_built_in() -> None:
    assert the_clock(received("opened", 0)).due_at == after(30)
    assert the_clock(gold()).due_at == after(10)


def test_terms_that_there_are_not_change_nothing() -> None:
    body = {**gold().body, "contract": "silver.9", "calendar": "moon.1"}
    opened = wrote("opened", 0, **body)
    known = clocks(opened)
    assert [clock.goal for clock in known] == [30 * MINUTE]
    more = (
        wrote("contract.changed", 5, contract="silver.9"),
        wrote("calendar.changed", 5, calendar="moon.1"),
    )
    assert clocks(opened, *more) == known


# What is recorded, and when to look


def test_warnings_and_the_breach_are_recorded_once_each_when_they_are_reached() -> None:
    ledger = Ledger(received("opened", 0))
    assert (ledger.look(14), ledger.next_look(14)) == ([], 15)
    assert (ledger.look(15), ledger.next_look(15)) == (["answer 50"], 22.5)
    assert (ledger.look(22.5), ledger.next_look(22.5)) == (["answer 75"], 27)
    assert (ledger.look(27), ledger.next_look(27)) == (["answer 90"], 30)
    assert (ledger.look(30), ledger.next_look(30)) == (["answer 100"], None)
    [clock] = ledger.clocks
    assert (clock.breached, clock.breached_at) == (Breached.RECORDED, after(30))
    assert ledger.look(300) == []


def test_of_what_was_reached_meanwhile_only_the_worst_is_to_be_acted_upon() -> None:
    ledger = Ledger(received("opened", 0))
    assert ledger.look(23) == ["answer 50 *", "answer 75"]
    late = [draft.body.get(promises.LATE, False) for draft in ledger.drafts[1:]]
    assert late == [True, False]
    assert ledger.look(40) == ["answer 90 *", "answer 100"]


def test_news_say_when_it_was_reached_and_what_is_due() -> None:
    journal = chained(received("opened", 0))
    first = promises.news(journal, promises.clocks(journal, PROMISED), after(16))[0]
    assert (first.at, first.due_at, first.metric) == (after(15), after(30), Metric.ANSWER)
    assert first.body == {
        "metric": "answer",
        "entry": 1,
        "goal_s": 1800,
        "percent": 50,
        "at": instant_text(after(15)),
    }


def test_a_breach_that_was_learned_of_late_is_recorded_though_its_clock_has_stopped() -> None:
    ledger = Ledger(received("opened", 0), answered(31, noted=5))
    assert (ledger.look(36), ledger.next_look(36)) == (["answer 100"], None)


def test_another_goal_has_warnings_of_its_own() -> None:
    ledger = Ledger(gold(), answered(1))
    assert ledger.look(130) == ["resolution 50"]
    ledger.drafts.append(wrote("priority.changed", 131, priority="P2"))
    assert ledger.look(132) == []  # the same goal: nothing is said twice
    ledger.drafts.append(wrote("priority.changed", 133, priority="P1"))
    assert ledger.look(134) == ["resolution 50 *", "resolution 75 *", "resolution 90 *",
                                "resolution 100"]  # fmt: skip


def test_a_paused_clock_has_no_news_and_needs_no_look() -> None:
    ledger = Ledger(gold(), answered(1), wrote("held", 10))
    assert (ledger.look(1000), ledger.next_look(10)) == ([], None)


def test_a_recorded_breach_stays_when_an_earlier_answer_is_learned_of() -> None:
    ledger = Ledger(received("opened", 0))
    ledger.look(31)
    ledger.drafts.append(answered(10, noted=50))
    [clock] = ledger.clocks
    assert (clock.state, clock.breached) == (State.STOPPED, Breached.STANDS)
    assert promises.breached_at(clock, after(100)) == after(30)


def test_a_breach_comes_back_from_the_journal_whole() -> None:
    ledger = Ledger(gold(priority="P1"), answered(1))
    ledger.look(61)
    [known] = promises.breaches(ledger.journal)
    assert promises.breach_of(promises.breach_body(known)) == known
    assert (known.metric, known.entry, known.at) == (Metric.RESOLUTION, 1, after(60))
    assert known.target == Target(goal=60 * MINUTE, pausable=True)


def test_the_row_of_a_clock_holds_what_the_clock_says() -> None:
    row = promises.clock_row(the_clock(gold(), wrote("held", 7), metric=Metric.RESOLUTION))
    assert (row["state"], row["goal_s"], row["due_at"], row["entry"]) == ("paused", 14400, None, 1)
    assert row["segments"] == [
        {
            "start": instant_text(after(0)),
            "end": instant_text(after(7)),
            "running": True,
            "reason": "opened",
            "entry": 1,
            "goal_s": 14400,
            "calendar": "always",
            "worked_s": 420,
        },
        {
            "start": instant_text(after(7)),
            "end": None,
            "running": False,
            "reason": "pending",
            "entry": 2,
            "goal_s": 14400,
            "calendar": "always",
            "worked_s": 0,
        },
    ]
