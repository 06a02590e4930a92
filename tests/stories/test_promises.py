"""Promises are timed: who has the ticket is warned, the ladder is hurried, and a breach is one."""

from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

import pytest

from contactd.routing import promises
from contactd.routing.notify import Reason
from contactd.store import holidays
from contactd.tickets.contact import Medium
from contactd.tickets.model import Classification
from contactd.tickets.priority import Urgency
from contactd.tickets.states import Action
from tests.fakes.desk import AT_GZ, Desk, calm, hours, minutes, policy, sites

TEN = datetime(2026, 11, 20, 2, 0, tzinfo=UTC)  # 10 o'clock on a Friday in Shanghai


def promised(**promises: Any) -> dict[str, Any]:
    """Return a desk where gz was promised this, whatever the priority."""
    return {"sites": sites(contract="gold"), "contracts": [gold(all=promises)]}


def gold(**promises: Any) -> dict[str, Any]:
    return {"key": "gold", "promises": promises}


async def percents(desk: Desk, ticket: str) -> list[int]:
    return [entry.body["percent"] for entry in await desk.journal(ticket, "clock.warned")]


async def breaches(desk: Desk, ticket: str) -> list[str]:
    return [entry.body["metric"] for entry in await desk.journal(ticket, "clock.breached")]


async def test_who_has_the_ticket_is_warned_and_then_others_are_rung(desk: Desk) -> None:
    await desk.load(**promised(resolution="100m"))
    ticket = await desk.call(AT_GZ, answered_by="wang")
    await desk.fast_forward(minutes(89))
    assert await percents(desk, ticket) == [50, 75]
    assert desk.told() == [("wang", Medium.TEXT, Reason.WARNING)] * 2
    facts = desk.network[0].notification.facts
    assert (facts["metric"], facts["percent"]) == ("resolution", "50")
    assert facts["due"] == (TEN + minutes(100)).isoformat()
    await desk.fast_forward(minutes(1))
    assert desk.phones_that_rang() == ["wang"]
    assert await desk.press("wang", "1") == "taken"
    await desk.fast_forward(minutes(10))
    assert desk.told()[-2:] == [
        ("wang", Medium.TEXT, Reason.BREACH),
        ("li", Medium.CALL, Reason.NEW),
    ]
    await desk.press("li", "1")
    desk.forget()
    await desk.fast_forward(minutes(50))
    assert desk.network == []
    assert await percents(desk, ticket) == [50, 75, 90]
    assert await breaches(desk, ticket) == ["resolution"]


async def test_work_on_a_ticket_silences_the_ladder_that_a_warning_began(desk: Desk) -> None:
    await desk.load(**promised(resolution="100m"))
    ticket = await desk.call(AT_GZ, answered_by="wang")
    await desk.fast_forward(minutes(90))
    assert desk.phones_that_rang() == ["wang"]
    await desk.when(desk.tickets.updated(ticket, actor="engineer:wang", note="在换硬盘"))
    desk.forget()
    await desk.fast_forward(minutes(9))
    assert desk.phones_that_rang() == []
    assert await desk.assignee(ticket) == "wang"


async def test_a_warning_hurries_those_who_have_not_been_told_yet(desk: Desk) -> None:
    slow = policy({"tell": "tier 1"}, {"after": "2h", "tell": "tier 2"})
    await desk.load(**promised(answer="60m"), policies=[slow])
    await desk.write(AT_GZ)
    await desk.fast_forward(minutes(29))
    assert desk.phones_that_rang() == ["wang"]
    await desk.fast_forward(minutes(1))
    assert desk.phones_that_rang() == ["wang", "li"]


async def test_what_was_missed_while_the_daemon_was_down_is_told_once(desk: Desk) -> None:
    await desk.load(**promised(resolution="100m"))
    ticket = await desk.call(AT_GZ, answered_by="wang")
    desk.clock.advance(hours(3))
    desk.restart()
    await desk.drain()
    assert desk.told()[0] == ("wang", Medium.TEXT, Reason.BREACH)
    assert [reason for _, _, reason in desk.told()].count(Reason.WARNING) == 0
    assert await percents(desk, ticket) == [50, 75, 90]
    assert await breaches(desk, ticket) == ["resolution"]
    breach = (await desk.journal(ticket, "clock.breached"))[0]
    assert datetime.fromisoformat(breach.body["at"]) == TEN + minutes(100)


async def test_a_ticket_on_hold_costs_no_time_but_for_the_answer(desk: Desk) -> None:
    await desk.load(**promised(answer="5h", resolution={"goal": "100m", "pausable": True}))
    ticket = await desk.write(AT_GZ)
    await desk.press("wang", "1")
    await desk.fast_forward(minutes(10))
    await desk.when(desk.tickets.act(ticket, Action.HOLD, actor="engineer:wang", note="缺配件"))
    assert (await desk.clocks(ticket))["resolution"]["state"] == "paused"
    await desk.fast_forward(hours(2))
    assert await percents(desk, ticket) == []
    await desk.when(desk.tickets.act(ticket, Action.RESUME, actor="engineer:wang"))
    clocks = await desk.clocks(ticket)
    assert clocks["resolution"]["due_at"] == TEN + minutes(100) + hours(2)
    assert clocks["answer"]["due_at"] == TEN + hours(5)
    await desk.fast_forward(minutes(39))
    assert "resolution" not in [
        e.body["metric"] for e in await desk.journal(ticket, "clock.warned")
    ]
    await desk.fast_forward(minutes(1))
    assert "resolution" in [e.body["metric"] for e in await desk.journal(ticket, "clock.warned")]


async def test_another_contract_moves_what_is_due(desk: Desk) -> None:
    contracts = [
        gold(all={"resolution": "100m"}),
        {**gold(all={"resolution": "200m"}), "key": "tin"},
    ]
    await desk.load(sites=sites(contract="gold"), contracts=contracts)
    ticket = await desk.call(AT_GZ, answered_by="wang")
    await desk.fast_forward(minutes(50))
    await desk.when(desk.tickets.set_contract(ticket, "tin", actor="user:boss"))
    assert (await desk.clocks(ticket))["resolution"]["due_at"] == TEN + minutes(200)
    await desk.fast_forward(minutes(50))
    assert desk.told() == [("wang", Medium.TEXT, Reason.WARNING)] * 2, "half of each"
    assert await percents(desk, ticket) == [50, 50]


async def test_a_new_version_of_a_contract_leaves_open_tickets_their_promise(desk: Desk) -> None:
    await desk.load(**promised(resolution="100m"))
    ticket = await desk.call(AT_GZ, answered_by="wang")
    await desk.load(**promised(resolution="10m"))
    assert (await desk.clocks(ticket))["resolution"]["due_at"] == TEN + minutes(100)


async def test_another_priority_has_another_goal_and_warns_of_it(desk: Desk) -> None:
    contract = gold(all={"resolution": "100m"}, P4={"resolution": "1000m"})
    await desk.load(sites=sites(contract="gold"), contracts=[contract])
    ticket = await desk.call(AT_GZ, answered_by="wang")
    await desk.fast_forward(minutes(50))
    low = Classification(urgency=Urgency.LOW)
    await desk.when(desk.tickets.classify(ticket, low, actor="engineer:wang"))
    assert (await desk.clocks(ticket))["resolution"]["due_at"] == TEN + minutes(1000)
    await desk.fast_forward(minutes(450))
    assert await percents(desk, ticket) == [50, 50]
    assert desk.told() == [("wang", Medium.TEXT, Reason.WARNING)] * 2


async def test_an_answer_that_is_told_late_counts_from_when_it_was(desk: Desk) -> None:
    await desk.load(**promised(answer="60m"))
    ticket = await desk.write(AT_GZ)
    await desk.press("wang", "1")
    await desk.fast_forward(minutes(70))
    assert await breaches(desk, ticket) == ["answer"]
    at = TEN + minutes(20)
    told = desk.tickets.answered(ticket, actor="engineer:wang", how="call-back", at=at)
    await desk.when(told)
    clock = (await desk.clocks(ticket))["answer"]
    assert (clock["state"], clock["stopped_at"]) == ("stopped", at)
    assert await breaches(desk, ticket) == ["answer"], "what is written stays written"
    desk.forget()
    await desk.fast_forward(minutes(50))
    assert desk.network == []


async def test_an_answer_in_time_warns_nobody(desk: Desk) -> None:
    await desk.load(**promised(answer="60m"))
    ticket = await desk.write(AT_GZ)
    await desk.fast_forward(minutes(1))
    told = desk.tickets.answered(ticket, actor="user:desk", how="call-back", engineer="li")
    await desk.when(told)
    assert await desk.assignee(ticket) == "li"
    assert (await desk.clocks(ticket))["answer"]["state"] == "stopped"
    desk.forget()
    await desk.fast_forward(hours(3))
    assert desk.network == []


# Calendars

OFFICE: dict[str, Any] = {
    "key": "office",
    "weekly": {"mon-fri": ["09:00-18:00"]},
    "holidays": "cn",
}


def public_holidays(*days: str, through: str = "2026-12-31") -> str:
    listed = ", ".join(f'{{ name = "节", first = {day} }}' for day in ("2026-10-01", *days))
    lines = [f"confirmed_through = {through}"]
    for year, days_off in ((2026, listed), (2027, '{ name = "节", first = 2027-10-01 }')):
        lines += ["[[year]]", f"year = {year}", 'sources = ["https://x.cn"]']
        lines += [f"holidays = [{days_off}]", "working = []"]
    return "\n".join(lines)


async def office_hours(desk: Desk, **more: Any) -> str:
    """Open a ticket that must be solved within 16 working hours: on Monday at 17 o'clock."""
    await desk.load(
        sites=sites(contract="gold", calendar="office"),
        contracts=[gold(all={"resolution": "15h"})],
        calendars=[OFFICE],
        **more,
    )
    return await desk.call(AT_GZ, answered_by="wang")


async def test_a_holiday_that_is_announced_moves_what_is_due_and_its_timers(desk: Desk) -> None:
    ticket = await office_hours(desk, holidays=public_holidays())
    monday = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
    assert (await desk.clocks(ticket))["resolution"]["due_at"] == monday
    await desk.fast_forward(hours(20))
    text = public_holidays("2026-11-23", through="2027-12-31")
    found = await holidays.preview(desk.database, text, await desk.core.terms())
    assert [move.after.at for move in found.moves] == [monday + timedelta(days=1)]
    assert (await desk.clocks(ticket))["resolution"]["due_at"] == monday, "only looked at"
    await holidays.apply(desk.database, text, await desk.core.terms(), desk.clock)
    await desk.drain()
    assert (await desk.clocks(ticket))["resolution"]["due_at"] == monday + timedelta(days=1)
    await desk.fast_forward(monday + minutes(1) - desk.clock.now())
    assert await breaches(desk, ticket) == []
    await desk.when(desk.tickets.updated(ticket, actor="engineer:wang", note="进行中"))
    await desk.fast_forward(timedelta(days=1))
    assert await breaches(desk, ticket) == ["resolution"]


async def test_a_due_date_that_nobody_has_settled_is_provisional(desk: Desk) -> None:
    ticket = await office_hours(desk, holidays=public_holidays(through="2026-11-21"))
    assert (await desk.clocks(ticket))["resolution"]["provisional"] is True
    text = public_holidays(through="2026-12-31")
    await holidays.apply(desk.database, text, await desk.core.terms(), desk.clock)
    await desk.drain()
    assert (await desk.clocks(ticket))["resolution"]["provisional"] is False


async def test_new_opening_hours_of_a_site_count_for_its_open_tickets(desk: Desk) -> None:
    ticket = await office_hours(desk)
    longer = {**OFFICE, "weekly": {"mon-fri": ["09:00-20:00"]}}
    await desk.load(
        sites=sites(contract="gold", calendar="office"),
        contracts=[gold(all={"resolution": "15h"})],
        calendars=[longer],
    )
    assert len(await desk.journal(ticket, "calendar.changed")) == 1
    due = (await desk.clocks(ticket))["resolution"]["due_at"]
    assert due == datetime(2026, 11, 23, 6, 0, tzinfo=UTC), "10 hours on Friday, 5 on Monday"


async def test_a_desk_that_promises_nothing_has_no_clocks(desk: Desk) -> None:
    await desk.load(**calm())
    ticket = await desk.call(AT_GZ, answered_by="wang")
    assert await desk.clocks(ticket) == {}


async def test_two_warnings_at_one_instant_hurry_the_ladder_once(desk: Desk) -> None:
    goal = {"goal": "20m", "calendar": "always", "warnings": [50]}
    later = [{"tell": f"person {who}", "after": "1h"} for who in ("li", "sun")]
    await desk.load(
        **promised(answer=goal, first_update=goal, resolution=goal),
        policies=[policy({"tell": "person wang"}, *later)],
    )
    await desk.write(AT_GZ)
    await desk.fast_forward(minutes(10.1))
    assert desk.phones_that_rang() == ["wang", "li"]


async def test_a_promise_that_cannot_be_computed_keeps_nobody_from_being_told(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> NoReturn:
        raise ValueError("no promise can be computed")

    with monkeypatch.context() as patched:
        patched.setattr(promises, "clocks", broken)
        ticket = await desk.write(AT_GZ)
        await desk.fast_forward(minutes(5))
    assert desk.phones_that_rang() == ["wang", "li"]
    await desk.when(desk.tickets.updated(ticket, actor="engineer:wang", note="查看中"))
    await desk.fast_forward(minutes(1))
