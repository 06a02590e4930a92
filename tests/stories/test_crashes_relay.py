"""The process dies at any await, often several times in a row; the media themselves never fail."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.stories.crash_checks import faults
from tests.stories.crash_plots import story
from tests.stories.crash_trials import Stage, batches, failures, failures_at_each_step, opened_stage

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def stage(sqlite_template: Path) -> Iterator[Stage]:
    with opened_stage(sqlite_template) as opened:
        yield opened


@pytest.mark.parametrize("seeds", batches(), ids=str)
async def test_crashes_change_neither_who_is_reached_nor_what_becomes_of_a_ticket(
    stage: Stage, seeds: range
) -> None:
    assert await failures(stage, seeds, troubled=False) == []


async def test_any_await_may_be_the_last(stage: Stage) -> None:
    """A page is taken, the ticket is resolved, the requester confirms."""
    assert await failures_at_each_step(stage, story(25, troubled=False)) == []


@pytest.mark.parametrize("number", range(5))
async def test_nothing_is_lost_when_the_process_is_away_for_hours(
    stage: Stage, number: int
) -> None:
    """All timers are late then, and other people may be told: but nobody twice or in vain."""
    plot = story(number, troubled=False)
    away = (timedelta(hours=3),)
    calm = await stage.tell(plot)
    for step in range(10, calm.steps, max(calm.steps // 4, 1)):
        account = await stage.tell(plot, calm=calm, deaths=[step], restarts=away)
        assert account.deaths
        assert list(faults(account)) == [], account.deaths
