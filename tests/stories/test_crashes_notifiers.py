"""The process dies while media fail: they are away, busy, refuse, or nobody knows what they did.

A message may go out twice only after a medium could not say whether it had, and each time that one
is sent again is counted.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from contactd.tickets.contact import Medium
from tests.stories.crash_plots import Fault, story
from tests.stories.crash_trials import Stage, batches, failures, failures_at_each_step, opened_stage

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def stage(sqlite_template: Path) -> Iterator[Stage]:
    with opened_stage(sqlite_template) as opened:
        yield opened


@pytest.mark.parametrize("seeds", batches(), ids=str)
async def test_failing_media_and_crashes_together_lose_and_repeat_nothing(
    stage: Stage, seeds: range
) -> None:
    assert await failures(stage, seeds, troubled=True) == []


@pytest.mark.parametrize(
    ("number", "ref", "medium"),
    [
        (22, "page-26112000018-1-chen-text", Medium.TEXT),
        # and before that a call is refused, so that a page goes out by a text at once
        (57, "dispatch-26112000018-1-wang-text", Medium.TEXT),
    ],
)
async def test_any_await_may_be_the_last_while_a_message_is_lost(
    stage: Stage, number: int, ref: str, medium: Medium
) -> None:
    """It gets no answer and has not gone out: it is looked up, and sent again."""
    plot = story(number, troubled=True)
    assert plot.faults(ref, medium) == [Fault.LOST]
    assert await failures_at_each_step(stage, plot) == []
