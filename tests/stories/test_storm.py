"""Many tickets about one fault: one page speaks for all of them, once it has gone out."""

from contactd.routing.escalation import Escalation, Phase
from contactd.tickets.contact import Medium
from contactd.tickets.model import Category, Classification
from contactd.tickets.priority import Impact, Urgency
from contactd.tickets.states import Action, State
from tests.fakes.desk import AT_GZ, AT_SZ, BY_MAIL, BY_PHONE, Desk, calm, hours, minutes

ERP_IS_DOWN = Classification(category=Category.SOFTWARE, system="ERP")


async def about_erp(desk: Desk, sender: str) -> str:
    """Let somebody write, and the desk say what it is about."""
    ticket = await desk.write(sender)
    await desk.when(desk.tickets.classify(ticket, ERP_IS_DOWN, actor="user:desk"))
    return ticket


async def escalation(desk: Desk, ticket: str) -> Escalation:
    found = await desk.escalation(ticket)
    assert found is not None
    return found


async def test_a_second_ticket_of_the_same_site_and_symptom_rings_nobody(desk: Desk) -> None:
    await desk.load(**calm())
    first = await about_erp(desk, AT_GZ)
    second = await about_erp(desk, BY_MAIL)
    assert (await escalation(desk, second)).leader == first
    await desk.fast_forward(minutes(3))
    assert desk.phones_that_rang(first) == ["wang", "li"]
    assert desk.phones_that_rang(second) == ["wang"], "before anybody said what it is about"
    assert desk.phones.stopped == [desk.phones.sent[1].notification.ref]


async def test_who_takes_the_page_has_all_its_tickets(desk: Desk) -> None:
    await desk.load(**calm())
    tickets = [await about_erp(desk, sender) for sender in (AT_GZ, BY_MAIL, BY_PHONE)]
    first = next(note for note in desk.phones.sent if note.notification.ticket == tickets[0])
    assert await desk.press(first.notification.ref, "1") == "taken"
    assert [await desk.assignee(ticket) for ticket in tickets] == ["wang"] * 3
    assert [await desk.state(ticket) for ticket in tickets] == [State.IN_PROGRESS] * 3
    desk.forget()
    await desk.fast_forward(minutes(50))
    assert desk.network == []


async def test_no_page_waits_for_one_that_has_not_gone_out(desk: Desk) -> None:
    await desk.load(**calm())
    desk.phones.down = True
    first = await about_erp(desk, AT_GZ)
    second = await about_erp(desk, BY_MAIL)
    assert (await escalation(desk, second)).leader == ""
    desk.phones.down = False
    await desk.fast_forward(minutes(1))
    assert desk.phones_that_rang(first) == ["wang"]
    assert desk.phones_that_rang(second) == ["wang"]


async def test_another_site_or_symptom_has_a_page_of_its_own(desk: Desk) -> None:
    await desk.load(**calm())
    await about_erp(desk, AT_GZ)
    elsewhere = await about_erp(desk, AT_SZ)
    other = await desk.write(BY_MAIL)
    printer = Classification(category=Category.HARDWARE)
    await desk.when(desk.tickets.classify(other, printer, actor="user:desk"))
    unknown = await desk.write(BY_PHONE)
    for ticket in (elsewhere, other, unknown):
        assert (await escalation(desk, ticket)).phase is Phase.PAGING


async def test_what_is_more_urgent_has_a_page_of_its_own(desk: Desk) -> None:
    await desk.load(**calm())
    await about_erp(desk, AT_GZ)
    urgent = await desk.write(BY_MAIL)
    said = Classification(
        category=Category.SOFTWARE, system="ERP", impact=Impact.COMPANY, urgency=Urgency.HIGH
    )
    await desk.when(desk.tickets.classify(urgent, said, actor="user:desk"))
    found = await escalation(desk, urgent)
    assert (found.phase, found.leader, found.policy.key) == (Phase.PAGING, "", "p1")


async def test_a_ticket_turns_out_to_be_about_something_else(desk: Desk) -> None:
    await desk.load(**calm())
    await about_erp(desk, AT_GZ)
    second = await about_erp(desk, BY_MAIL)
    desk.forget()
    printer = Classification(category=Category.HARDWARE, system="打印机")
    await desk.when(desk.tickets.classify(second, printer, actor="user:desk"))
    assert desk.phones_that_rang(second) == ["wang"]
    assert (await escalation(desk, second)).leader == ""


async def test_a_page_that_ends_leaves_nobody_behind(desk: Desk) -> None:
    """The first ticket was a mistake: who waits for its page is told of their own."""
    await desk.load(**calm())
    first = await about_erp(desk, AT_GZ)
    second = await about_erp(desk, BY_MAIL)
    desk.forget()
    await desk.when(desk.tickets.act(first, Action.CANCEL, actor="user:desk"))
    assert desk.told(second)[0][:2] == ("wang", Medium.CALL)
    assert (await escalation(desk, second)).phase is Phase.PAGING


async def test_work_on_the_first_ticket_is_work_on_all(desk: Desk) -> None:
    await desk.load(**calm())
    first = await about_erp(desk, AT_GZ)
    await about_erp(desk, BY_MAIL)
    leader = next(note for note in desk.phones.sent if note.notification.ticket == first)
    await desk.press(leader.notification.ref, "1")
    await desk.when(desk.tickets.updated(first, actor="engineer:wang", note="查看中"))
    desk.forget()
    await desk.fast_forward(hours(2.1))
    assert desk.network == []


async def test_a_new_page_speaks_for_others_though_an_old_ticket_is_still_open(desk: Desk) -> None:
    await desk.load(**calm())
    old = await about_erp(desk, AT_GZ)
    await desk.press("wang", "1")
    await desk.when(desk.tickets.updated(old, actor="engineer:wang", note="等配件"))
    await desk.fast_forward(hours(24))
    first = await about_erp(desk, BY_MAIL)
    second = await about_erp(desk, BY_PHONE)
    assert (await escalation(desk, second)).leader == first
