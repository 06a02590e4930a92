"""Whom to tell next: stories, a reference that looks at every minute, and a machine of accidents.

CONTACTD_EXAMPLES raises the number of examples for the nightly run.
"""

import itertools
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from contactd.errors import ConfigurationError
from contactd.routing.escalation import (
    FLOOR,
    AckExpired,
    Acknowledged,
    Arm,
    Assign,
    Context,
    DutyChanged,
    Effect,
    Escalated,
    Escalation,
    Event,
    GroupChanged,
    Notify,
    OnDuty,
    OpenConference,
    Outcome,
    Passed,
    Phase,
    Policy,
    Progressed,
    Reconcile,
    Record,
    Reopened,
    Reported,
    Resolved,
    Rule,
    Step,
    StepDue,
    StopOthers,
    Target,
    TicketFacts,
    Timer,
    Whom,
    handle,
    open_page,
    start,
)
from contactd.tickets.contact import Medium

EXAMPLES = int(os.environ.get("CONTACTD_EXAMPLES", "100"))

NOW = datetime(2026, 11, 20, 2, 0, tzinfo=UTC)
CALL, TEXT, MAIL = Medium.CALL, Medium.TEXT, Medium.MAIL
FACTS = TicketFacts(ticket="2611220017", priority="P3", site="gz", symptom="pos")


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


def tier(number: int, site: str = "") -> Target:
    return Target(whom=Whom.TEAM, tier=number, site=site)


EVERYBODY = Target(whom=Whom.EVERYBODY)
SUPERVISOR = Target(whom=Whom.SUPERVISOR)
LADDER = Policy(
    key="standard",
    version=3,
    steps=(
        Step(targets=(tier(1),)),
        Step(targets=(tier(2),), delay=minutes(5)),
        Step(targets=(SUPERVISOR,), delay=minutes(10)),
        Step(targets=(EVERYBODY,), delay=minutes(10), parallel=True),
    ),
    rounds=1,
)
P1 = Policy(
    key="emergency",
    version=1,
    steps=(
        Step(
            targets=(tier(1), tier(2), tier(3)),
            parallel=True,
            conference=True,
            need_acks=2,
        ),
        Step(targets=(SUPERVISOR,), delay=minutes(2)),
    ),
    rounds=1,
    ack_expires=minutes(15),
)


def on_duty(text: str) -> tuple[OnDuty, ...]:
    """Read "wang:1 li:2 chen:1@sz"; the site is gz if none is named."""
    found = []
    for each in text.split():
        person, _, post = each.partition(":")
        number, _, site = post.partition("@")
        found.append(OnDuty(person=person, site=site or "gz", tier=int(number)))
    return tuple(found)


def context(duty: str = "wang:1 li:2", **more: Any) -> Context:
    values: dict[str, Any] = {"floor": "8000", "supervisor": "boss", **more}
    return Context(on_duty=on_duty(duty), **values)


@dataclass
class Drill:
    """One escalation with its timer and everything that was done about it."""

    context: Context
    policy: Policy = LADDER
    facts: TicketFacts = FACTS
    now: datetime = NOW
    log: list[tuple[datetime, Effect]] = field(default_factory=list)
    state: Escalation = field(init=False)

    def __post_init__(self) -> None:
        self.state, effects = start(self.policy, self.facts, self.context, self.now)
        self._note(effects)

    def _note(self, effects: Iterable[Effect]) -> None:
        self.log += [(self.now, effect) for effect in effects]

    def send(self, event: Event) -> list[Effect]:
        self.state, effects = handle(self.state, event, self.context, self.now)
        self._note(effects)
        return effects

    def wait(self, count: float) -> None:
        """Let time pass and the timer fire whenever it is due."""
        until = self.now + minutes(count)
        while (timer := self.state.timer) is not None and timer.at <= until:
            self.now = max(self.now, timer.at)
            self.send(fired(timer))
            assert self.state.timer != timer, "the timer that fired is still armed"
        self.now = until

    def take(self, person: str, generation: int | None = None) -> list[Effect]:
        generation = self.state.generation if generation is None else generation
        return self.send(Acknowledged(person=person, generation=generation, how="call"))

    def pass_on(self, person: str, generation: int | None = None) -> list[Effect]:
        generation = self.state.generation if generation is None else generation
        return self.send(Passed(person=person, generation=generation))

    def escalate(self) -> list[Effect]:
        return self.send(Escalated(by="user:desk", generation=self.state.generation))

    def duty(self, text: str) -> list[Effect]:
        self.context = replace(self.context, on_duty=on_duty(text))
        return self.send(DutyChanged())

    def told(self) -> list[str]:
        """Return who was told, as "5 li call": minutes since the beginning, person, medium."""
        return [f"{since(at)} {shown(effect)}" for at, effect in self.log if is_notify(effect)]

    def last(self, kind: type[Any] = Notify) -> Any:
        return [effect for _, effect in self.log if isinstance(effect, kind)][-1]

    def report(self, outcome: Outcome, person: str = "") -> list[Effect]:
        """Report what became of the last message (to `person`)."""
        sent = [
            effect
            for _, effect in self.log
            if isinstance(effect, Notify) and person in ("", effect.person)
        ]
        return self.send(Reported(ref=sent[-1].ref, outcome=outcome))


def fired(timer: Arm) -> StepDue | AckExpired:
    if timer.timer is Timer.STEP:
        return StepDue(generation=timer.generation)
    return AckExpired(generation=timer.generation)


def since(at: datetime) -> str:
    return f"{(at - NOW).total_seconds() / 60:g}"


def is_notify(effect: Effect) -> bool:
    return isinstance(effect, Notify)


def shown(effect: Effect) -> str:
    assert isinstance(effect, Notify)
    return f"{effect.person} {effect.medium.value}"


def notified(effects: Iterable[Effect]) -> list[str]:
    return [shown(effect) for effect in effects if isinstance(effect, Notify)]


def actions(effects: Iterable[Effect]) -> list[str]:
    return [effect.action for effect in effects if isinstance(effect, Record)]


def reasons(effects: Iterable[Effect]) -> list[str]:
    return [effect.body["reason"] for effect in effects if isinstance(effect, Record)]


# The ladder


def test_silence_climbs_from_tier_1_over_its_second_medium_to_everybody_and_the_floor() -> None:
    rules = {"wang": (Rule(medium=CALL), Rule(medium=TEXT, after=minutes(2)))}
    drill = Drill(context(rules=rules))
    drill.wait(45)
    assert drill.told() == [
        "0 wang call",
        "2 wang text",
        "5 li call",
        "15 boss call",
        "25 wang call",
        "25 li call",
        "27 wang text",
        "30 floor call",
        "35 floor call",
        "40 floor call",
        "45 floor call",
    ]


def test_the_floor_is_told_for_ever() -> None:
    drill = Drill(context())
    drill.wait(7 * 24 * 60)
    assert drill.told()[-1] == "10080 floor call"
    assert len(drill.state.notices) < 10


def test_the_whole_ladder_is_repeated_before_the_floor() -> None:
    drill = Drill(context("wang:1"), policy=replace(LADDER, steps=LADDER.steps[:1], rounds=3))
    drill.wait(16)
    assert drill.told() == ["0 wang call", "5 wang call", "10 wang call", "15 floor call"]


def test_people_of_a_step_are_told_one_after_the_other_in_the_order_of_duty() -> None:
    drill = Drill(context("zhao:1 wang:1 li:2"))
    drill.wait(6)
    assert drill.told() == ["0 zhao call", "1 wang call", "6 li call"]


def test_a_step_that_finds_nobody_is_skipped_at_once() -> None:
    drill = Drill(context("li:2"))
    assert drill.told() == ["0 li call"]


def test_a_delay_before_the_first_step_is_waited_for() -> None:
    steps = (replace(LADDER.steps[0], delay=minutes(3)), *LADDER.steps[1:])
    drill = Drill(context(), policy=replace(LADDER, steps=steps))
    drill.wait(4)
    assert drill.told() == ["3 wang call"]


def test_the_first_of_a_persons_rules_is_used_at_once_and_each_only_once() -> None:
    rules = {
        "wang": (
            Rule(medium=MAIL, after=minutes(3)),
            Rule(medium=TEXT, after=minutes(1)),
            Rule(medium=MAIL, after=minutes(3)),
        )
    }
    drill = Drill(context(rules=rules))
    drill.wait(4)
    assert drill.told() == ["0 wang text", "3 wang mail"]


def test_a_timer_that_comes_late_tells_one_step_and_gives_it_its_full_time() -> None:
    drill = Drill(context())
    drill.now += minutes(60)
    assert drill.state.timer is not None
    drill.send(fired(drill.state.timer))
    assert drill.told() == ["0 wang call", "60 li call"]
    assert drill.state.timer.at == drill.now + minutes(10)


def test_a_timer_that_comes_early_is_armed_again() -> None:
    drill = Drill(context())
    assert drill.state.timer is not None
    effects = drill.send(fired(drill.state.timer))
    assert [type(effect) for effect in effects] == [Arm]
    drill.wait(5)
    assert drill.told() == ["0 wang call", "5 li call"]


def test_persons_teams_of_other_sites_and_the_floor_can_be_targets() -> None:
    targets = (
        Target(whom=Whom.PERSON, person="wang"),
        Target(whom=Whom.PERSON, person="ill"),
        tier(1, site="sz"),
        Target(whom=Whom.FLOOR),
    )
    policy = replace(LADDER, steps=(Step(targets=targets, parallel=True),))
    drill = Drill(context("wang:2 li:1 chen:1@sz"), policy=policy)
    assert drill.told() == ["0 wang call", "0 chen call", "0 floor call"]


def test_a_ticket_of_an_unknown_site_is_for_whoever_is_on_duty_anywhere() -> None:
    drill = Drill(context("wang:1@sz li:1@zh"), facts=replace(FACTS, site=""))
    drill.wait(1)
    assert drill.told() == ["0 wang call", "1 li call"]


# Answers


def test_an_acknowledgement_assigns_stops_the_others_and_silences_the_ladder() -> None:
    drill = Drill(context("wang:1 zhao:1"))
    drill.wait(1)
    first = drill.log[0]
    effects = drill.take("zhao")
    assert Assign(person="zhao") in effects
    (stop,) = [effect for effect in effects if isinstance(effect, StopOthers)]
    assert stop.refs == (f"page-{FACTS.ticket}-1-wang-call",)
    assert first[0] == NOW
    drill.wait(59)
    assert drill.told() == ["0 wang call", "1 zhao call"]
    assert drill.state.phase is Phase.TAKEN


def test_whoever_was_told_earlier_may_still_take_it_when_the_next_one_rings() -> None:
    drill = Drill(context())
    early = drill.state.generation
    drill.wait(5)
    assert Assign(person="wang") in drill.take("wang", early)


def test_an_acknowledgement_without_progress_reopens_the_ladder() -> None:
    drill = Drill(context())
    drill.wait(1)
    drill.take("wang")
    drill.wait(60)
    assert drill.told() == ["0 wang call", "61 wang call"]
    assert drill.state.acks == ()


def test_an_acknowledgement_of_p1_expires_after_its_own_time() -> None:
    drill = Drill(context(), policy=P1)
    drill.take("wang")
    drill.take("li")
    drill.wait(15)
    assert drill.told()[2:] == ["15 wang call", "15 li call"]


def test_progress_keeps_an_acknowledgement_from_expiring() -> None:
    drill = Drill(context())
    drill.take("wang")
    old = drill.state.timer
    drill.send(Progressed())
    assert drill.state.timer is None
    assert old is not None
    assert drill.send(fired(old)) == []
    drill.wait(600)
    assert drill.told() == ["0 wang call"]


def test_an_answer_from_before_the_ladder_began_anew_changes_nothing_and_says_so() -> None:
    drill = Drill(context())
    early = drill.state.generation
    drill.take("wang")
    drill.wait(60)
    before = drill.state
    effects = drill.take("wang", early)
    assert drill.state == before
    assert actions(effects) == ["escalation.ignored"]
    assert reasons(effects) == ["old"]


@pytest.mark.parametrize("offset", [-1, 1])
def test_escalate_and_pass_on_from_another_generation_change_nothing_and_say_so(
    offset: int,
) -> None:
    drill = Drill(context())
    drill.wait(5)
    before, generation = drill.state, drill.state.generation + offset
    for event in (
        Escalated(by="engineer:wang", generation=generation),
        Passed(person="wang", generation=generation),
    ):
        effects = drill.send(event)
        assert drill.state == before
        assert reasons(effects) == ["old"]


def test_an_answer_that_comes_too_late_or_twice_changes_nothing_and_says_why() -> None:
    drill = Drill(context(), policy=P1)
    drill.take("wang")
    assert reasons(drill.take("wang")) == ["again"]
    drill.take("li")
    assert reasons(drill.take("boss")) == ["taken"]
    drill.send(Resolved())
    assert reasons(drill.take("boss")) == ["over"]


def test_passing_on_rings_the_next_person_at_once() -> None:
    drill = Drill(context("wang:1 zhao:1 li:2"))
    drill.now += minutes(0.5)
    drill.pass_on("wang")
    drill.pass_on("zhao")
    assert drill.told() == ["0 wang call", "0.5 zhao call", "0.5 li call"]


def test_whoever_passed_is_not_told_again_in_this_round_nor_by_another_medium() -> None:
    rules = {"wang": (Rule(medium=CALL), Rule(medium=TEXT, after=minutes(2)))}
    drill = Drill(context(rules=rules))
    drill.pass_on("wang")
    drill.wait(24)
    assert drill.told() == ["0 wang call", "0 li call", "10 boss call", "20 li call"]


def test_in_parallel_the_ladder_goes_on_when_all_have_passed() -> None:
    drill = Drill(context(), policy=P1)
    assert notified(drill.pass_on("wang")) == []
    assert notified(drill.pass_on("li")) == ["boss call"]


def test_when_everybody_has_passed_the_floor_is_told_at_once_and_not_again_for_its_own_pass() -> (
    None
):
    drill = Drill(context("wang:1", supervisor=""))
    assert notified(drill.pass_on("wang")) == ["floor call"]
    assert notified(drill.pass_on(FLOOR)) == []
    drill.wait(5)
    assert drill.told() == ["0 wang call", "0 floor call", "5 floor call"]


def test_escalating_by_hand_leaves_out_the_rest_of_the_step() -> None:
    drill = Drill(context("wang:1 zhao:1 li:2"))
    assert notified(drill.escalate()) == ["li call"]
    assert notified(drill.escalate()) == ["boss call"]
    assert notified(drill.escalate()) == ["wang call", "zhao call", "li call"]
    assert notified(drill.escalate()) == ["floor call"]


def test_escalating_what_somebody_has_begins_one_step_above() -> None:
    drill = Drill(context("wang:1 zhao:1 li:2"))
    drill.take("wang")
    assert notified(drill.escalate()) == ["li call"]
    effects = drill.take("li")
    assert Assign(person="li") in effects


@pytest.mark.parametrize(("taken_after", "told"), [(0, "li"), (20, "wang"), (40, "floor")])
def test_a_ticket_that_is_not_solved_reopens_one_step_above_where_it_was_taken(
    taken_after: int, told: str
) -> None:
    drill = Drill(context())
    drill.wait(taken_after)
    drill.take("zhao")
    drill.send(Resolved())
    assert drill.state.timer is None
    drill.wait(60)
    expected = {"li": ["li call"], "wang": ["wang call", "li call"], "floor": ["floor call"]}
    if taken_after == 20:  # at the supervisor's step
        assert drill.state.step == 2
    assert notified(drill.send(Reopened())) == expected[told]


def test_a_ticket_that_nobody_had_taken_reopens_at_the_bottom() -> None:
    drill = Drill(context())
    drill.wait(5)
    (stop,) = [each for each in drill.send(Resolved()) if isinstance(each, StopOthers)]
    assert len(stop.refs) == 2
    assert notified(drill.send(Reopened())) == ["wang call"]


# Duty


def test_at_a_hand_off_who_comes_is_told_and_who_left_is_not_rung_again() -> None:
    rules = {"wang": (Rule(medium=CALL), Rule(medium=TEXT, after=minutes(2)))}
    drill = Drill(context(rules=rules))
    drill.wait(1)
    assert notified(drill.duty("zhao:1 li:2")) == ["zhao call"]
    assert drill.state.pending == ()
    drill.wait(29)
    assert drill.told() == [
        "0 wang call",
        "1 zhao call",
        "5 li call",
        "15 boss call",
        "25 zhao call",
        "25 li call",
        "30 floor call",
    ]


def test_who_left_is_not_told_by_a_timer_that_comes_before_the_news() -> None:
    rules = {"wang": (Rule(medium=CALL), Rule(medium=TEXT, after=minutes(2)))}
    drill = Drill(context(rules=rules))
    drill.context = replace(drill.context, on_duty=on_duty("li:2"))
    drill.wait(5)
    assert drill.told() == ["0 wang call", "5 li call"]


def test_when_the_only_one_who_was_told_leaves_the_next_one_is_told_at_once() -> None:
    drill = Drill(context("wang:1 zhao:1 li:2"))
    drill.wait(0.5)
    assert notified(drill.duty("zhao:1 li:2")) == ["zhao call"]
    assert notified(drill.duty("li:2")) == ["li call"]


def test_whoever_waits_for_the_turn_is_not_told_early_by_a_change_of_duty() -> None:
    drill = Drill(context("wang:1 zhao:1"))
    assert drill.duty("wang:1 zhao:1 chen:3") == []
    assert notified(drill.duty("wang:1 zhao:1 chen:1")) == ["chen call"]
    drill.wait(1)
    assert drill.told() == ["0 wang call", "0 chen call", "1 zhao call"]


def test_who_comes_while_only_the_floor_is_told_hears_of_it() -> None:
    drill = Drill(context("wang:1"))
    drill.wait(62)
    assert notified(drill.duty("wang:1 li:2")) == ["li call"]


def test_in_a_hole_of_the_rota_the_floor_is_told_and_then_the_supervisor() -> None:
    drill = Drill(context(""))
    drill.wait(16)
    assert drill.told() == ["0 floor call", "5 floor call", "15 boss call"]


def test_a_hole_that_opens_during_a_page_tells_the_floor() -> None:
    drill = Drill(context())
    assert notified(drill.duty("")) == ["floor call"]


def test_with_nobody_that_any_step_means_the_floor_is_told_at_once() -> None:
    policy = replace(LADDER, steps=(Step(targets=(SUPERVISOR,)),))
    drill = Drill(context(supervisor=""), policy=policy)
    drill.wait(5)
    assert drill.told() == ["0 floor call", "5 floor call"]


# P1


def test_p1_rings_all_tiers_at_once_opens_a_conference_and_stops_when_enough_have_it() -> None:
    drill = Drill(context("wang:1 li:2 chen:3"), policy=P1)
    assert drill.told() == ["0 wang call", "0 li call", "0 chen call"]
    assert drill.last(OpenConference) == OpenConference(ticket=FACTS.ticket)
    effects = drill.take("li")
    assert Assign(person="li") in effects
    assert not any(isinstance(effect, StopOthers) for effect in effects)
    effects = drill.take("wang")
    assert not any(isinstance(effect, Assign) for effect in effects)
    assert drill.last(StopOthers).refs == (f"page-{FACTS.ticket}-1-chen-call",)
    drill.wait(14)
    assert len(drill.told()) == 3


def test_p1_with_one_acknowledgement_too_few_climbs_on_and_then_makes_do() -> None:
    drill = Drill(context(), policy=P1)
    drill.take("li")
    drill.wait(2)
    assert drill.told()[2:] == ["2 boss call"]
    drill.wait(5)
    assert drill.told()[3:] == ["7 floor call"]
    assert drill.state.phase is Phase.TAKEN
    assert "escalation.short" in actions(effect for _, effect in drill.log)


def test_a_floor_that_has_taken_it_is_not_rung_while_others_are_sought() -> None:
    drill = Drill(context(""), policy=P1)
    drill.take(FLOOR)
    drill.wait(10)
    assert drill.told() == ["0 floor call", "0 boss call"]
    assert drill.state.phase is Phase.TAKEN


def test_p1_goes_on_at_once_when_those_who_have_not_taken_it_passed() -> None:
    drill = Drill(context(), policy=P1)
    drill.pass_on("wang")
    assert notified(drill.take("li")) == ["boss call"]


def test_a_higher_priority_begins_its_own_policy_and_stops_the_pages_of_the_old_one() -> None:
    drill = Drill(context())
    raised = replace(FACTS, priority="P1")
    state, effects = start(P1, raised, drill.context, NOW + minutes(1), drill.state)
    assert notified(effects) == ["wang call", "li call"]
    assert StopOthers(refs=(drill.last(Notify).ref,)) in effects
    assert state.generation > drill.state.generation
    with pytest.raises(ValueError, match=r"after\.facts\.ticket"):
        start(P1, replace(FACTS, ticket="26112000018"), drill.context, NOW, drill.state)


# Outcomes


@pytest.mark.parametrize("outcome", [Outcome.SENT, Outcome.DELIVERED, Outcome.NOT_REACHED])
def test_an_answering_machine_changes_nothing(outcome: Outcome) -> None:
    drill = Drill(context())
    assert drill.report(outcome) == []
    drill.wait(5)
    assert drill.told() == ["0 wang call", "5 li call"]


def test_a_failed_medium_is_followed_at_once_by_the_next_one_and_then_the_next_person() -> None:
    rules = {"wang": (Rule(medium=CALL), Rule(medium=TEXT, after=minutes(2)))}
    drill = Drill(context(rules=rules))
    assert notified(drill.report(Outcome.FAILED)) == ["wang text"]
    assert notified(drill.report(Outcome.FAILED)) == ["li call"]


def test_when_nothing_gets_through_the_ladder_ends_at_the_floor_and_does_not_spin() -> None:
    drill = Drill(context())
    refs = [drill.last(Notify).ref]
    while refs:
        effects = [e for ref in refs for e in drill.send(Reported(ref=ref, outcome=Outcome.FAILED))]
        refs = [effect.ref for effect in effects if isinstance(effect, Notify)]
    assert drill.told() == [
        "0 wang call",
        "0 li call",
        "0 boss call",
        "0 wang call",
        "0 li call",
        "0 floor call",
    ]
    drill.wait(5)
    assert drill.told()[-1] == "5 floor call"


def test_an_unknown_outcome_is_looked_up_before_the_same_person_is_rung_again() -> None:
    drill = Drill(context("wang:1"), policy=replace(LADDER, steps=LADDER.steps[:1], rounds=9))
    ref = drill.last(Notify).ref
    assert drill.report(Outcome.UNKNOWN) == [Reconcile(ref=ref)]
    drill.wait(5)
    assert drill.told() == ["0 wang call"]
    assert drill.log[-2] == (drill.now, Reconcile(ref=ref))
    drill.wait(5)  # still unknown: a second ring is better than none
    assert drill.told() == ["0 wang call", "10 wang call"]


def test_a_call_that_is_looked_up_is_not_also_made_when_two_reasons_for_it_meet() -> None:
    both = (Step(targets=(tier(1),)), Step(targets=(tier(1),), delay=minutes(2)))
    rules = {"wang": (Rule(medium=CALL), Rule(medium=CALL, after=minutes(2)))}
    drill = Drill(context("wang:1", rules=rules), policy=replace(LADDER, steps=both))
    drill.report(Outcome.UNKNOWN)
    drill.wait(2)
    assert drill.told() == ["0 wang call"]


def test_an_unknown_outcome_that_was_cleared_up_is_told_again_as_usual() -> None:
    drill = Drill(context("wang:1"), policy=replace(LADDER, steps=LADDER.steps[:1], rounds=9))
    drill.report(Outcome.UNKNOWN)
    drill.report(Outcome.NOT_REACHED)
    drill.wait(5)
    assert drill.told() == ["0 wang call", "5 wang call"]


def test_an_unknown_outcome_is_still_looked_up_after_the_ticket_was_reopened() -> None:
    drill = Drill(context())
    drill.report(Outcome.UNKNOWN)
    drill.send(Resolved())
    effects = drill.send(Reopened())
    assert notified(effects) == []
    assert any(isinstance(effect, Reconcile) for effect in effects)


def test_reports_that_come_late_twice_or_of_nothing_undo_nothing() -> None:
    drill = Drill(context())
    drill.report(Outcome.NOT_REACHED)
    before = drill.state
    for outcome in Outcome:
        assert drill.report(outcome) == []
    assert drill.send(Reported(ref="page-of-somebody-else", outcome=Outcome.FAILED)) == []
    assert drill.state == before


# Storms


def group(leader: Drill) -> Context:
    return replace(leader.context, group=open_page(leader.state))


def later(leader: Drill, after: float, **facts: Any) -> Drill:
    second = replace(FACTS, ticket="26112000018", **facts)
    return Drill(group(leader), facts=second, now=NOW + minutes(after))


def test_nothing_is_grouped_before_the_first_page_has_gone_out() -> None:
    leader = Drill(context())
    assert open_page(leader.state) is None
    assert later(leader, 1).told() == ["1 wang call"]


def test_a_later_ticket_of_the_same_site_and_symptom_is_attached_to_the_open_page() -> None:
    leader = Drill(context())
    leader.report(Outcome.SENT)
    follower = later(leader, 1)
    assert follower.told() == []
    assert follower.state.phase is Phase.ATTACHED
    assert follower.state.timer is not None
    assert open_page(follower.state) is None
    follower.wait(600)  # the group's page stays open
    assert follower.told() == []


def test_a_late_receipt_from_an_earlier_ladder_does_not_make_the_new_page_one_to_attach_to() -> (
    None
):
    leader = Drill(context())
    early = leader.last(Notify).ref
    leader.take("wang")
    leader.wait(60)
    leader.send(Reported(ref=early, outcome=Outcome.SENT))
    assert open_page(leader.state) is None
    leader.report(Outcome.SENT)
    assert open_page(leader.state) is not None


@pytest.mark.parametrize(
    ("after", "facts"),
    [
        (30, {}),
        (1, {"site": "sz"}),
        (1, {"symptom": "printer"}),
        (1, {"symptom": ""}),
        (1, {"priority": "P2"}),
    ],
)
def test_a_ticket_out_of_the_window_of_another_kind_or_more_urgent_rings_by_itself(
    after: int, facts: dict[str, str]
) -> None:
    leader = Drill(context())
    leader.report(Outcome.SENT)
    follower = later(leader, after, **facts)
    assert len(follower.told()) == 1


def test_an_attached_ticket_rings_by_itself_when_the_groups_page_is_over() -> None:
    leader = Drill(context())
    leader.report(Outcome.SENT)
    follower = later(leader, 1)
    leader.send(Resolved())
    follower.context = group(leader)
    assert notified(follower.send(GroupChanged())) == ["wang call"]


def test_an_attached_ticket_of_which_nobody_told_that_the_page_is_over_finds_out_itself() -> None:
    leader = Drill(context())
    leader.report(Outcome.SENT)
    follower = later(leader, 1)
    leader.send(Resolved())
    follower.context = group(leader)
    follower.wait(5)
    assert follower.told() == ["6 wang call"]


def test_whoever_takes_the_groups_page_has_the_attached_tickets_too() -> None:
    leader = Drill(context())
    leader.report(Outcome.SENT)
    follower = later(leader, 1)
    leader.take("wang")
    follower.context = group(leader)
    assert Assign(person="wang") in follower.send(GroupChanged())
    assert follower.state.phase is Phase.TAKEN
    follower.wait(60)  # without progress, but the group's page is still open
    assert follower.told() == []
    follower.context = replace(follower.context, group=None)
    follower.wait(60)
    assert follower.told() == ["121 wang call"]


def test_an_attached_ticket_can_be_taken_or_escalated_by_itself() -> None:
    leader = Drill(context())
    leader.report(Outcome.SENT)
    follower = later(leader, 1)
    seen = follower.state.generation
    follower.wait(20)
    assert notified(
        handle(
            follower.state,
            Escalated(by="user:desk", generation=seen),
            follower.context,
            follower.now,
        )[1]
    ) == ["wang call"]
    assert Assign(person="li") in follower.take("li", seen)


def test_two_tickets_that_were_attached_to_each_other_by_a_race_begin_to_ring() -> None:
    one = Drill(context())
    one.report(Outcome.SENT)
    other = later(one, 1)
    one.context = replace(group(one), group=open_page(other.state))
    other.context = replace(other.context, group=None)  # `one` has no page of its own any more
    other.wait(5)
    assert other.told() == ["6 wang call"]


# Bad input


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"key": ""}, "key: must not be empty"),
        ({"version": 0}, "version: must be 1 or more"),
        ({"steps": ()}, "steps: must not be empty"),
        ({"rounds": 0}, "rounds: must be 1 or more"),
        ({"again_after": minutes(0)}, "again_after: must be longer than 0"),
        ({"ack_expires": minutes(0)}, "ack_expires: must be longer than 0"),
        ({"group_within": minutes(-1)}, "group_within: must not be negative"),
        ({"steps": (Step(targets=()),)}, r"steps\[0\].targets: must not be empty"),
        ({"steps": (Step(targets=(EVERYBODY,), delay=minutes(-1)),)}, r"\[0\].delay: must not be"),
        ({"steps": (Step(targets=(EVERYBODY,), each=minutes(0)),)}, r"\[0\].each: must be longer"),
        ({"steps": (Step(targets=(EVERYBODY,), need_acks=0),)}, r"\[0\].need_acks: must be 1"),
        ({"steps": (Step(targets=(tier(0),)),)}, r"\[0\].targets\[0\].tier: must be 1 or more"),
        (
            {"steps": (Step(targets=(Target(whom=Whom.PERSON),)),)},
            r"\[0\].targets\[0\].person: must not be empty",
        ),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused_with_the_keys_name(
    changes: dict[str, Any], line: str
) -> None:
    with pytest.raises(ConfigurationError, match=line):
        replace(LADDER, **changes)


def test_all_faults_of_a_policy_are_named_at_once() -> None:
    with pytest.raises(ConfigurationError) as refused:
        replace(LADDER, rounds=0, steps=())
    assert str(refused.value).count("\n") == 1


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: context(floor=""), "context.floor: must not be empty"),
        (lambda: Rule(medium=Medium.WEB), "rule.medium: nobody can be paged by web"),
        (lambda: Drill(context(), facts=replace(FACTS, ticket="")), "facts.ticket"),
        (lambda: Drill(context(), now=NOW.replace(tzinfo=None)), "now: must have a zone"),
    ],
)
def test_bad_input_is_refused_with_its_name(call: Callable[[], object], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        call()


# Properties

PEOPLE = ("wang", "li", "zhao", "chen")
media = st.sampled_from([CALL, TEXT, MAIL])
targets = st.one_of(
    st.builds(tier, st.integers(1, 3)),
    st.sampled_from([EVERYBODY, SUPERVISOR, Target(whom=Whom.FLOOR)]),
    st.builds(Target, whom=st.just(Whom.PERSON), person=st.sampled_from(PEOPLE)),
)
steps = st.builds(
    Step,
    delay=st.integers(0, 6).map(minutes),
    targets=st.lists(targets, min_size=1, max_size=3).map(tuple),
    need_acks=st.integers(1, 2),
    parallel=st.booleans(),
    each=st.integers(1, 3).map(minutes),
    conference=st.booleans(),
)
policies = st.builds(
    Policy,
    key=st.just("any"),
    version=st.just(1),
    steps=st.lists(steps, min_size=1, max_size=4).map(tuple),
    rounds=st.integers(1, 3),
    again_after=st.integers(1, 6).map(minutes),
    ack_expires=st.sampled_from([minutes(15), minutes(60)]),
)
rotas = st.lists(
    st.builds(
        OnDuty,
        person=st.sampled_from(PEOPLE),
        site=st.sampled_from(["gz", "gz", "sz"]),
        tier=st.integers(1, 3),
    ),
    max_size=4,
).map(tuple)
rules_of_people = st.dictionaries(
    st.sampled_from((*PEOPLE, "boss")),
    st.lists(st.builds(Rule, medium=media, after=st.integers(0, 8).map(minutes)), max_size=3).map(
        tuple
    ),
)
contexts = st.builds(
    Context,
    on_duty=rotas,
    floor=st.just("8000"),
    rules=rules_of_people,
    supervisor=st.sampled_from(["", "boss"]),
)


several_media = st.lists(
    st.builds(Rule, medium=media, after=st.integers(0, 8).map(minutes)), min_size=2, max_size=3
).map(tuple)
busy_contexts = st.builds(
    Context,
    on_duty=rotas,
    floor=st.just("8000"),
    rules=st.fixed_dictionaries(dict.fromkeys((*PEOPLE, "boss"), several_media)),
    supervisor=st.sampled_from(["", "boss"]),
)


def whom(policy: Policy, around: Context, step: int) -> list[str]:
    """Return whom a step is for, the long way."""
    here = [duty for duty in around.on_duty if duty.site == "gz"]
    found: list[str] = []
    for target in policy.steps[step].targets:
        if target.whom is Whom.FLOOR:
            found.append(FLOOR)
        elif target.whom is Whom.SUPERVISOR and around.supervisor:
            found.append(around.supervisor)
        elif target.whom is Whom.PERSON and target.person in [d.person for d in around.on_duty]:
            found.append(target.person)
        elif target.whom in (Whom.TEAM, Whom.EVERYBODY) and not here:
            found.append(FLOOR)
        elif target.whom is Whom.EVERYBODY:
            found += [duty.person for duty in here]
        elif target.whom is Whom.TEAM:
            found += [duty.person for duty in here if duty.tier == target.tier]
    return sorted(set(found), key=found.index)


def whole(length: timedelta) -> int:
    return int(length.total_seconds()) // 60


@dataclass
class Silence:
    """What is told if nobody ever answers: looks at one minute after the other."""

    policy: Policy
    around: Context
    told: set[tuple[int, str, Medium]] = field(default_factory=set)
    plan: dict[str, list[tuple[int, Medium]]] = field(default_factory=dict)
    queue: list[tuple[int, str]] = field(default_factory=list)  # (step, person) of this round
    rounds: int = 0
    ring_at: int = 0
    is_new_round: bool = True
    somebody_told: bool = False

    def watch(self, length: int) -> set[tuple[int, str, Medium]]:
        self.ring_at = whole(self.policy.steps[0].delay)
        for minute in range(length):
            self.further_media(minute)
            while self.ring_at == minute:
                self.ring(minute)
        return self.told

    def further_media(self, minute: int) -> None:
        for person, wanted in self.plan.items():
            self.told |= {(minute, person, medium) for at, medium in wanted if at == minute}

    def ring(self, minute: int) -> None:
        if self.is_new_round:
            self.rounds += 1
            self.is_new_round = self.somebody_told = False
            self.plan.clear()
            if self.rounds <= self.policy.rounds:
                numbers = range(len(self.policy.steps))
                self.queue = [(n, p) for n in numbers for p in whom(self.policy, self.around, n)]
        if self.queue:
            self.ring_next(minute)
            return
        if not self.somebody_told:
            self.told.add((minute, FLOOR, CALL))
        self.pause(minute)

    def ring_next(self, minute: int) -> None:
        number = self.queue[0][0]
        step = self.policy.steps[number]
        people = [person for n, person in self.queue if n == number]
        count = len(people) if step.parallel else 1
        self.queue = self.queue[count:]
        self.somebody_told = True
        for person in people[:count]:
            self.begin_with(person, minute)
        self.further_media(minute)
        if count < len(people):
            self.ring_at = minute + whole(step.each)
        elif number + 1 < len(self.policy.steps):
            self.ring_at = minute + whole(self.policy.steps[number + 1].delay)
        else:
            self.pause(minute)

    def begin_with(self, person: str, minute: int) -> None:
        rules = () if person == FLOOR else self.around.rules.get(person, ())
        first, *others = sorted(rules, key=lambda each: each.after) or [Rule(medium=CALL)]
        self.plan[person] = [(minute, first.medium)]
        self.plan[person] += [(minute + whole(each.after), each.medium) for each in others]

    def pause(self, minute: int) -> None:
        self.ring_at = minute + whole(self.policy.again_after)
        self.is_new_round = True


def test_a_second_medium_from_the_step_before_does_not_stand_for_the_turn_in_this_one() -> None:
    both = (Step(targets=(tier(1),)), Step(targets=(tier(1),)))
    rules = {"li": (Rule(medium=CALL), Rule(medium=CALL, after=minutes(1)))}
    drill = Drill(context("wang:1 li:1", rules=rules), policy=replace(LADDER, steps=both))
    drill.wait(3)
    assert drill.told()[-2:] == ["2 li call", "3 li call"]


@settings(max_examples=2 * EXAMPLES, deadline=None)
@given(policies, contexts)
def test_silence_is_answered_as_a_reference_that_looks_at_every_minute_says(
    policy: Policy, around: Context
) -> None:
    length = 60
    drill = Drill(around, policy=policy)
    drill.wait(length - 1)
    told = {
        (int((at - NOW).total_seconds()) // 60, effect.person, effect.medium)
        for at, effect in drill.log
        if isinstance(effect, Notify)
    }
    assert told == Silence(policy, around).watch(length)


EVENTS: tuple[Event, ...] = (
    StepDue(generation=0),
    AckExpired(generation=0),
    Acknowledged(person="chen", generation=0, how="web"),
    Passed(person="chen", generation=0),
    Escalated(by="user:desk", generation=0),
    Reported(ref="page-none", outcome=Outcome.SENT),
    DutyChanged(),
    GroupChanged(),
    Progressed(),
    Resolved(),
    Reopened(),
)
LEADS: dict[tuple[Phase, type[Event]], Phase] = {
    (Phase.PAGING, Acknowledged): Phase.TAKEN,
    (Phase.PAGING, Resolved): Phase.OVER,
    (Phase.ATTACHED, Acknowledged): Phase.TAKEN,
    (Phase.ATTACHED, Escalated): Phase.PAGING,
    (Phase.ATTACHED, Resolved): Phase.OVER,
    (Phase.TAKEN, AckExpired): Phase.PAGING,
    (Phase.TAKEN, Escalated): Phase.PAGING,
    (Phase.TAKEN, Resolved): Phase.OVER,
    (Phase.OVER, Reopened): Phase.PAGING,
}


def in_phase(phase: Phase) -> Drill:
    leader = Drill(context())
    leader.report(Outcome.SENT)
    drill = later(leader, 1) if phase is Phase.ATTACHED else leader
    if phase is Phase.TAKEN:
        drill.take("wang")
    if phase is Phase.OVER:
        drill.send(Resolved())
    assert drill.state.phase is phase
    return drill


@pytest.mark.parametrize(("phase", "event"), list(itertools.product(Phase, EVENTS)))
def test_every_event_leads_from_every_phase_where_the_table_says(
    phase: Phase, event: Event
) -> None:
    drill = in_phase(phase)
    if isinstance(event, StepDue | AckExpired | Acknowledged | Passed | Escalated):
        event = replace(event, generation=drill.state.generation)
    drill.send(event)
    assert drill.state.phase is LEADS.get((phase, type(event)), phase)


class Accidents(RuleBasedStateMachine):
    """Everything that can happen, in any order, to one escalation."""

    @initialize(policy=policies, around=busy_contexts)
    def begin(self, policy: Policy, around: Context) -> None:
        self.keys: set[str] = set()
        self.armed: list[Arm] = []
        self.outcomes: dict[str, tuple[str, Medium, Outcome]] = {}  # of the last for each ref
        self.silent_since = NOW
        self.drill = Drill(around, policy=policy)
        self.check(None, [effect for _, effect in self.drill.log])

    def send(self, event: Event) -> list[Effect]:
        before = self.drill.state
        effects = self.drill.send(event)
        self.check(before, effects)
        return effects

    def check(self, before: Escalation | None, effects: list[Effect]) -> None:
        state, around = self.drill.state, self.drill.context
        present = {duty.person for duty in around.on_duty} | {around.supervisor, FLOOR}
        for effect in effects:
            if isinstance(effect, Notify):
                assert effect.dedup_key not in self.keys
                assert effect.ref not in self.outcomes
                assert effect.person in present
                assert effect.generation == state.generation
                assert state.phase is not Phase.OVER
                same = [o for p, m, o in self.outcomes.values() if (p, m) == self.who(effect)]
                assert not same or same[-1] is not Outcome.UNKNOWN
                self.keys.add(effect.dedup_key)
                self.outcomes[effect.ref] = (*self.who(effect), Outcome.QUEUED)
            if isinstance(effect, Reconcile):
                person, medium, _ = self.outcomes[effect.ref]
                asked_before = before is not None and any(
                    each.ref == effect.ref and each.outcome is Outcome.UNKNOWN
                    for each in before.notices
                )
                outcome = Outcome.DOUBTFUL if asked_before else Outcome.UNKNOWN
                self.outcomes[effect.ref] = (person, medium, outcome)
            if isinstance(effect, Arm):
                assert effect.key not in self.keys
                self.keys.add(effect.key)
                self.armed.append(effect)
        if before is not None:
            assert state.generation >= before.generation
            if state.generation == before.generation:
                assert state.timer == before.timer

    @staticmethod
    def who(effect: Notify) -> tuple[str, Medium]:
        return effect.person, effect.medium

    @rule(count=st.integers(0, 20))
    def pass_time(self, count: int) -> None:
        until = self.drill.now + minutes(count)
        while (timer := self.drill.state.timer) is not None and timer.at <= until:
            self.drill.now = max(self.drill.now, timer.at)
            self.send(fired(timer))
            assert timer != self.drill.state.timer
        self.drill.now = until

    @rule(data=st.data())
    def an_old_timer_comes(self, data: st.DataObject) -> None:
        timer = data.draw(st.sampled_from(self.armed))
        if timer != self.drill.state.timer:
            before = self.drill.state
            assert self.send(fired(timer)) == []
            assert self.drill.state == before

    def answered(self, back: int) -> int:
        return self.drill.state.generation - back

    @rule(person=st.sampled_from((*PEOPLE, "boss", FLOOR)), back=st.integers(-1, 6))
    def somebody_takes_it(self, person: str, back: int) -> None:
        before, generation = self.drill.state, self.answered(back)
        open_ = before.phase in (Phase.PAGING, Phase.ATTACHED)
        good = open_ and back >= 0 and generation >= before.since and person not in before.acks
        effects = self.send(Acknowledged(person=person, generation=generation, how="call"))
        assert (person in self.drill.state.acks) == (good or person in before.acks)
        if not good:
            assert self.drill.state == before
            assert actions(effects) == ["escalation.ignored"]

    @rule(person=st.sampled_from(PEOPLE), back=st.integers(-1, 3))
    def somebody_passes(self, person: str, back: int) -> None:
        before, generation = self.drill.state, self.answered(back)
        effects = self.send(Passed(person=person, generation=generation))
        if back < 0 or generation < before.turn:
            assert self.drill.state == before
            assert actions(effects) == ["escalation.ignored"]
        assert not any(isinstance(e, Notify) and e.person == person for e in effects)

    @rule(back=st.integers(-1, 3))
    def somebody_escalates(self, back: int) -> None:
        self.send(Escalated(by="user:desk", generation=self.answered(back)))

    @precondition(lambda self: self.drill.state.notices)
    @rule(
        data=st.data(),
        outcome=st.sampled_from(
            [
                Outcome.SENT,
                Outcome.DELIVERED,
                Outcome.NOT_REACHED,
                Outcome.UNKNOWN,
                Outcome.FAILED,
            ]
        ),
    )
    def a_report_comes(self, data: st.DataObject, outcome: Outcome) -> None:
        ref = data.draw(st.sampled_from([each.ref for each in self.drill.state.notices]))
        person, medium, _ = self.outcomes[ref]
        before = {each.ref: each.outcome for each in self.drill.state.notices}
        after, _ = handle(
            self.drill.state,
            Reported(ref=ref, outcome=outcome),
            self.drill.context,
            self.drill.now,
        )
        now = {each.ref: each.outcome for each in after.notices}
        if now[ref] is not before[ref]:
            self.outcomes[ref] = (person, medium, now[ref])
        self.send(Reported(ref=ref, outcome=outcome))

    @rule(rota=rotas)
    def duty_changes(self, rota: tuple[OnDuty, ...]) -> None:
        self.drill.context = replace(self.drill.context, on_duty=rota)
        self.send(DutyChanged())
        state = self.drill.state
        everybody_left = not rota and state.phase is Phase.PAGING and state.step >= 0
        kinds = {
            target.whom for step in state.policy.steps[: state.step + 1] for target in step.targets
        }
        if everybody_left and kinds & {Whom.TEAM, Whom.EVERYBODY} and FLOOR not in state.acks:
            assert FLOOR in state.meant or FLOOR in state.asked or self.told_in_round(FLOOR)

    def told_in_round(self, person: str) -> bool:
        state = self.drill.state
        return any(
            each.person == person and each.generation >= state.round_since for each in state.notices
        )

    @rule(taken=st.sampled_from(["", "zhao"]), open_=st.booleans())
    def the_group_changes(self, taken: str, open_: bool) -> None:
        leader = Drill(context())
        leader.report(Outcome.SENT)
        page = open_page(leader.state)
        assert page is not None
        there = replace(page, ticket="26112000018", paged_at=self.drill.now, taken_by=taken)
        self.drill.context = replace(self.drill.context, group=there if open_ else None)
        self.send(GroupChanged())

    @rule(event=st.sampled_from([Progressed(), Resolved(), Reopened(), Reopened()]))
    def the_ticket_changes(self, event: Event) -> None:
        self.send(event)

    @invariant()
    def what_is_open_and_not_taken_has_exactly_one_timer(self) -> None:
        state = self.drill.state
        alive = [arm for arm in self.armed if arm.generation == state.generation]
        if state.phase in (Phase.PAGING, Phase.ATTACHED):
            assert alive == [state.timer]
            assert alive[0].timer is Timer.STEP
        else:
            assert alive in ([], [state.timer])
        if state.phase is Phase.OVER:
            assert state.timer is None

    @invariant()
    def generations_are_in_order(self) -> None:
        state = self.drill.state
        marks = [state.since, state.round_since, state.turn, state.generation]
        assert marks == sorted(marks)

    @invariant()
    def nobody_who_left_or_answered_is_waited_for_with_another_medium(self) -> None:
        state, around = self.drill.state, self.drill.context
        present = {duty.person for duty in around.on_duty} | {around.supervisor, FLOOR}
        planned = {each.person for each in state.pending}
        assert planned <= present
        assert not planned & (state.passed | set(state.acks))

    @invariant()
    def the_books_stay_small(self) -> None:
        assert len(self.drill.state.notices) <= 80

    def teardown(self) -> None:
        """If from now on nobody does anything, somebody is told before long, and again."""
        if not hasattr(self, "drill") or self.drill.state.phase is not Phase.PAGING:
            return
        self.drill.context = replace(self.drill.context, group=None)
        for _ in range(2):
            before = len(self.drill.log)
            self.pass_time(60)
            after = [effect for _, effect in self.drill.log[before:]]
            assert any(isinstance(effect, Notify | Reconcile) for effect in after)


TestAccidents = Accidents.TestCase
TestAccidents.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def test_who_answers_a_text_is_not_rung_any_longer() -> None:
    rules = {"wang": (Rule(medium=CALL), Rule(medium=TEXT, after=minutes(1)))}
    drill = Drill(context(rules=rules))
    drill.report(Outcome.SENT)
    drill.wait(1)
    event = Acknowledged(person="wang", generation=drill.state.generation, how="text")
    effects = drill.send(event)
    stopped = [ref for effect in effects if isinstance(effect, StopOthers) for ref in effect.refs]
    assert stopped == [f"page-{FACTS.ticket}-1-wang-call"]


def test_the_call_in_which_somebody_takes_it_is_not_cut_off() -> None:
    drill = Drill(context())
    drill.report(Outcome.SENT)
    effects = drill.take("wang")
    assert not [effect for effect in effects if isinstance(effect, StopOthers)]


def test_hurrying_at_the_last_step_does_not_put_off_the_next_round() -> None:
    policy = replace(LADDER, steps=(Step(targets=(Target(whom=Whom.FLOOR),)),), rounds=3)
    drill = Drill(context(), policy=policy)
    drill.wait(3)
    drill.escalate()
    drill.wait(2)
    assert drill.told() == ["0 floor call", "5 floor call"]


def test_tickets_that_wait_for_a_page_go_on_waiting_when_its_acknowledgement_expires() -> None:
    drill = Drill(context())
    drill.report(Outcome.SENT)
    before = open_page(drill.state)
    drill.take("wang")
    drill.wait(61)
    assert drill.state.phase is Phase.PAGING
    after = open_page(drill.state)
    assert before is not None
    assert after is not None
    assert after.paged_at == before.paged_at


def test_a_round_in_which_nobody_is_left_to_be_told_has_a_turn_of_its_own() -> None:
    step = Step(
        delay=minutes(0), targets=(tier(1),), need_acks=2, parallel=False, each=minutes(1),
        conference=False,
    )  # fmt: skip
    policy = Policy(
        key="any", version=1, steps=(step, replace(step, need_acks=1)), rounds=2,
        again_after=minutes(2), ack_expires=minutes(15),
    )  # fmt: skip
    state = Accidents()
    state.begin(policy=policy, around=Context(on_duty=(), floor="8000", rules={}, supervisor=""))
    state.somebody_takes_it(back=0, person=FLOOR)
    state.pass_time(count=2)
    state.generations_are_in_order()
