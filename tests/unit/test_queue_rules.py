"""What the queues' files have to agree on, for app_queue says nothing if they do not."""

import re
from itertools import pairwise
from pathlib import Path
from typing import Final

ASTERISK: Final = Path(__file__).parents[2] / "etc" / "asterisk"


def numbers(file: str, pattern: str) -> list[int]:
    text = (ASTERISK / file).read_text(encoding="utf-8")
    return [int(found) for found in re.findall(pattern, text, re.MULTILINE)]


def test_a_phone_rings_as_long_as_a_step_of_the_rules() -> None:
    """app_queue looks at the rules when a round of ringing ends: else a tier waits for the next."""
    (ring_s,) = numbers("contactd_globals.conf", r"^OFFER_RING=(\d+)$")
    times = [0, *numbers("queuerules.conf", r"^penaltychange => (\d+),")]
    assert len(times) == 4
    assert all(later - earlier <= ring_s for earlier, later in pairwise(times))


def test_who_waits_first_does_not_keep_the_others_from_a_free_engineer() -> None:
    """While the first caller pauses between two rounds, nobody behind him is offered."""
    assert numbers("contactd_queues.conf", r"^retry=(\d+)$") == [1]
