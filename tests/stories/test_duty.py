"""The rota changes while people are being told: who comes is rung, who leaves is left alone."""

from datetime import UTC, datetime
from typing import Any

from contactd.routing.notify import Reason
from contactd.store.engine import Database
from contactd.tickets.contact import Medium
from contactd.tickets.states import State
from tests.fakes.clock import FakeClock
from tests.fakes.desk import (
    AT_GZ,
    STRANGER,
    Desk,
    calm,
    engineer,
    engineers,
    minutes,
    policy,
    shift,
)

SLOW: dict[str, Any] = policy(
    {"tell": "tier 1", "each": "30m"}, {"after": "30m", "tell": "tier 2"}, rounds=1
)


def day(engineer: str, start: str, end: str, tier: int = 1) -> dict[str, Any]:
    return shift("gz", tier, engineer, start=start, end=end)


async def test_a_hand_off_during_an_open_page_rings_who_comes(desk: Desk) -> None:
    """It is 10 o'clock; 王伟 leaves at 10:05."""
    shifts = [day("wang", "08:00", "10:05"), day("li", "10:05", "20:00")]
    await desk.load(**calm(), shifts=shifts, policies=[SLOW])
    ticket = await desk.write(AT_GZ)
    await desk.fast_forward(minutes(4.9))
    assert desk.phones_that_rang() == ["wang"]
    await desk.fast_forward(minutes(0.1))
    assert desk.phones_that_rang() == ["wang", "li"]
    assert await desk.press("wang", "1") == "taken", "he was rung, and takes it on his way home"
    assert await desk.assignee(ticket) == "wang"


async def test_who_leaves_in_the_middle_of_a_page_is_not_told_by_their_second_medium(
    desk: Desk,
) -> None:
    shifts = [day("wang", "08:00", "10:01"), day("li", "08:00", "20:00", tier=2)]
    await desk.load(**calm(), shifts=shifts, policies=[SLOW])
    await desk.write(AT_GZ)
    await desk.fast_forward(minutes(1))
    assert desk.phones_that_rang() == ["wang", "li"], "nobody is left in tier 1"
    await desk.fast_forward(minutes(4))
    assert [medium for _, medium, _ in desk.told()] == [Medium.CALL, Medium.CALL]


async def test_leave_in_the_middle_of_a_shift_rings_the_stand_in(desk: Desk) -> None:
    await desk.load(**calm(), policies=[SLOW])
    await desk.write(AT_GZ)
    await desk.fast_forward(minutes(1))
    start = datetime(2026, 11, 20, 2, 1, tzinfo=UTC)
    leave = {"engineer": "wang", "start": start, "end": start.replace(hour=12), "backup": "zhao"}
    await desk.load(**calm(), policies=[SLOW], leaves=[leave])
    assert desk.phones_that_rang() == ["wang", "zhao"]
    await desk.fast_forward(minutes(5))
    assert Medium.TEXT not in [medium for _, medium, _ in desk.told()]


async def test_a_hole_in_the_rota_rings_the_floor(desk: Desk) -> None:
    await desk.load(**calm(), shifts=[day("wang", "08:00", "10:05")], policies=[SLOW])
    ticket = await desk.write(AT_GZ)
    await desk.press("wang", "2")
    desk.forget()
    await desk.fast_forward(minutes(5))
    assert desk.told()[-1] == ("floor", Medium.CALL, Reason.NEW)
    assert await desk.press("floor", "1") == "taken"
    assert await desk.state(ticket) is State.IN_PROGRESS


async def test_a_rota_that_is_loaded_during_a_page_rings_who_is_new(desk: Desk) -> None:
    await desk.load(**calm(), policies=[SLOW])
    await desk.write(AT_GZ)
    await desk.fast_forward(minutes(1))
    shifts = [shift("gz", 1, "zhao"), shift("gz", 2, "li")]
    await desk.load(**calm(), policies=[SLOW], shifts=shifts)
    assert desk.phones_that_rang() == ["wang", "zhao"]
    await desk.load(**calm(), policies=[SLOW], shifts=shifts)
    assert desk.phones_that_rang() == ["wang", "zhao"], "the same rota again changes nothing"


async def test_who_took_over_for_an_hour_is_rung_in_place_of_the_tier(desk: Desk) -> None:
    start = datetime(2026, 11, 20, 2, 0, tzinfo=UTC)
    override = {
        "site": "gz", "tier": 1, "engineer": "sun", "start": start, "end": start.replace(hour=3)
    }  # fmt: skip
    await desk.load(**calm(), policies=[SLOW], overrides=[override])
    await desk.write(AT_GZ)
    assert desk.phones_that_rang() == ["sun"]


async def test_before_a_rota_is_loaded_a_ticket_waits_for_it(
    database: Database, clock: FakeClock
) -> None:
    desk = Desk(database, clock)
    ticket = await desk.write(STRANGER)
    await desk.fast_forward(minutes(3))
    assert desk.network == []
    await desk.load()
    await desk.fast_forward(minutes(1))
    assert desk.phones_that_rang() == ["wang"]
    await desk.press("wang", "1")
    assert await desk.assignee(ticket) == "wang"
    await desk.check()


async def test_a_restart_forgets_nobody(desk: Desk) -> None:
    ticket = await desk.write(AT_GZ)
    desk.restart()
    await desk.fast_forward(minutes(3))
    assert desk.phones_that_rang() == ["wang", "li"]
    desk.restart()
    assert await desk.press("wang", "1") == "taken"
    assert await desk.assignee(ticket) == "wang"


async def test_who_is_taken_out_of_the_desk_file_leaves_their_tickets_to_others(desk: Desk) -> None:
    await desk.load(**calm(), policies=[SLOW])
    ticket = await desk.write(AT_GZ)
    await desk.press("wang", "1")
    desk.forget()
    others = [one for one in engineers() if one["key"] != "wang"]
    shifts = [shift("gz", 1, "zhao"), shift("gz", 2, "li")]
    await desk.load(**calm(), policies=[SLOW], engineers=others, shifts=shifts)
    assert desk.phones_that_rang(ticket) == ["zhao"]
    await desk.press("zhao", "1")
    assert await desk.assignee(ticket) == "zhao"
    assert len(await desk.journal(ticket, "engineer.left")) == 1


async def test_three_hundred_people_who_cannot_be_told_at_all_are_passed_over(desk: Desk) -> None:
    crowd = [f"e{count:03}" for count in range(300)]
    await desk.load(
        **calm(),
        engineers=[engineer(key, count) for count, key in enumerate([*crowd, "sun"])],
        shifts=[shift("gz", 1, key) for key in crowd],
    )
    del desk.media[Medium.CALL]
    desk.restart()
    ticket = await desk.write(AT_GZ)
    assert desk.failures == []
    assert await desk.journal(ticket, "escalation.exhausted") == []
