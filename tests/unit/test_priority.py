"""Priority: the whole matrix, and what a VIP changes."""

import itertools

import pytest

from contactd.tickets.priority import MATRIX, Impact, Priority, Urgency, priority


def test_the_matrix_is_complete() -> None:
    assert set(MATRIX) == set(itertools.product(Impact, Urgency))
    assert MATRIX[Impact.COMPANY, Urgency.HIGH] is Priority.P1
    assert MATRIX[Impact.PERSON, Urgency.LOW] is Priority.P4


@pytest.mark.parametrize(("impact", "urgency"), list(itertools.product(Impact, Urgency)))
def test_a_vip_is_one_step_more_urgent_and_the_reason_says_so(
    impact: Impact, urgency: Urgency
) -> None:
    plain, reason = priority(impact, urgency, vip=False)
    assert plain is MATRIX[impact, urgency]
    assert reason == f"impact {impact.name.lower()}, urgency {urgency.name.lower()}"
    raised, why = priority(impact, urgency, vip=True)
    assert raised <= plain
    assert ("VIP" in why) == (urgency is not Urgency.HIGH)


@pytest.mark.parametrize("impact", Impact)
def test_more_urgent_is_never_less_important(impact: Impact) -> None:
    levels = [priority(impact, urgency, vip=False)[0] for urgency in sorted(Urgency)]
    assert levels == sorted(levels)


def test_an_installation_may_have_its_own_matrix() -> None:
    matrix = dict.fromkeys(MATRIX, Priority.P2)
    assert priority(Impact.PERSON, Urgency.LOW, vip=False, matrix=matrix)[0] is Priority.P2
