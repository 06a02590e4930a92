"""Pages on both databases: who is rung about a message that nobody took, and until when."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import pytest
import structlog
from sqlalchemy import delete

from contactd.errors import PermanentFailure, TemporaryFailure
from contactd.signals import Signals
from contactd.store import desk as desk_store
from contactd.store.desk import load_desk
from contactd.store.engine import Database
from contactd.store.outbox import Handlers, Relay
from contactd.store.paging import Paging
from contactd.store.schema import rotas
from contactd.store.views import Views
from contactd.telephony.pager import Pager
from contactd.tickets.contact import CallFacts, Contact, Filed, Leg, Medium, Outcome
from contactd.tickets.events import CallEnded, PageDue
from contactd.tickets.paging import PageState
from contactd.tickets.service import TicketService
from contactd.tickets.states import Action, State
from tests.fakes.clock import FakeClock
from tests.fakes.line import FakeLine
from tests.fakes.rota import FLOOR, FROM_GZ, FROM_SZ, FROM_ZH, STRANGER, VIP, small_desk

NEXT_AFTER = timedelta(seconds=60)
ROUNDS = 2
AGAIN_AFTER = timedelta(minutes=30)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


@dataclass(slots=True, kw_only=True)
class Desk:
    """Callers, people on duty with their phones, and time."""

    database: Database
    clock: FakeClock
    tickets: TicketService
    line: FakeLine
    other_line: FakeLine
    pager: Pager
    relay: Relay
    calls: int = 0

    async def call(
        self, caller: str = FROM_GZ, outcome: Outcome = Outcome.VOICEMAIL, *, pbx: str = "pbx1"
    ) -> Filed:
        """File a call that is over, and let happen what follows."""
        self.calls += 1
        now = self.clock.now()
        answered = outcome is Outcome.ANSWERED
        facts = CallFacts(
            pbx=pbx, did="4008001234", final=True, stage="queue", ended_at=now,
            answered_at=now if answered else None,
            legs=(Leg(engineer="wang", answered_at=now),) if answered else (),
            voicemail="/spool/1.wav" if outcome is Outcome.VOICEMAIL else "",
        )  # fmt: skip
        filed = await self.tickets.receive(
            Contact(
                medium=Medium.CALL, external_id=f"{pbx}-1795140000.{self.calls}", received_at=now,
                from_value=caller, to_value="4008001234", outcome=outcome, call=facts,
            )
        )  # fmt: skip
        await self.relay.drain()
        return filed

    async def fast_forward(self, length: timedelta) -> None:
        self.clock.advance(length)
        await self.relay.drain()

    async def press(self, digit: str) -> str:
        """Let whoever was rung last press a key (or none)."""
        heard = await self.pager.answer(self.line.rings[-1].ref, digit)
        await self.relay.drain()
        return heard

    async def journal(self, filed: Filed) -> list[tuple[str, str, int]]:
        """Return what the journal says of pages: action, engineer, step."""
        found = await Views(self.database, self.clock).ticket(filed.ticket)
        return [
            (entry.action, entry.body["engineer"], entry.body["step"])
            for entry in found.journal
            if entry.action.startswith("page.")
        ]

    async def state(self, filed: Filed) -> tuple[State, str]:
        ticket = (await Views(self.database, self.clock).ticket(filed.ticket)).ticket
        return ticket.state, ticket.engineer


@pytest.fixture
async def desk(database: Database, clock: FakeClock, tickets: TicketService) -> Desk:
    await load_desk(database, small_desk(), clock)
    line, other_line = FakeLine(), FakeLine(down=True)
    book = Paging(database, clock)
    pager = Pager(
        book=book,
        rota=partial(desk_store.rota, database),
        tickets=tickets,
        lines={"pbx1": line, "pbx2": other_line},
        clock=clock,
        next_after=NEXT_AFTER,
        rounds=ROUNDS,
        again_after=AGAIN_AFTER,
    )

    async def call_ended(event: CallEnded) -> None:
        contact = await book.call(event.contact_id)
        assert contact is not None
        await pager.call_ended(event, contact)

    handlers: Handlers = {CallEnded: call_ended, PageDue: pager.page}
    return Desk(
        database=database, clock=clock, tickets=tickets, line=line, other_line=other_line,
        pager=pager, relay=Relay(database, handlers, clock, Signals()),
    )  # fmt: skip


# Who is rung


async def test_a_message_rings_the_first_person_on_duty_at_the_callers_site(desk: Desk) -> None:
    filed = await desk.call(FROM_GZ)
    (ring,) = desk.line.rings
    assert (ring.engineer, ring.number, ring.language) == ("wang", "+8613800000001", "zh")
    assert (ring.ticket, ring.site, ring.what) == (filed.ticket, "gz", "page-voicemail")
    assert ring.ref == "page-pbx1-1795140000.1-0"
    assert await desk.journal(filed) == [("page.sent", "wang", 0)]


async def test_only_who_waited_to_the_end_in_vain_has_somebody_rung(desk: Desk) -> None:
    said: dict[Outcome, str] = {}
    for number, outcome in enumerate(set(Outcome) - {Outcome.RECEIVED}):
        await desk.call(f"1391234{number:04}", outcome)
        for ring in desk.line.rings:
            said[outcome] = ring.what
        desk.line.rings.clear()
    assert said == {
        Outcome.VOICEMAIL: "page-voicemail",
        Outcome.ABANDONED_VOICEMAIL: "page-missed",
        Outcome.UNREACHED: "page-missed",
        Outcome.PBX_LOST: "page-missed",
    }


async def test_pages_go_round_everybody_then_pause_with_an_alarm_and_begin_anew(
    desk: Desk,
) -> None:
    filed = await desk.call(FROM_GZ)
    for _ in range(6):
        await desk.fast_forward(NEXT_AFTER)
    assert desk.line.rung == ["wang", "li"] * ROUNDS
    assert await desk.journal(filed) == [
        ("page.sent", "wang", 0),
        ("page.sent", "li", 1),
        ("page.sent", "wang", 2),
        ("page.sent", "li", 3),
        ("page.exhausted", "", 4),
    ]
    assert await desk.state(filed) == (State.NEW, "")
    await desk.fast_forward(AGAIN_AFTER)
    await desk.fast_forward(NEXT_AFTER)
    assert desk.line.rung == ["wang", "li"] * (ROUNDS + 1)
    assert await desk.press("1") == "taken"


async def test_nobody_is_rung_before_the_others_time_is_up(desk: Desk) -> None:
    await desk.call(FROM_GZ)
    await desk.fast_forward(NEXT_AFTER - timedelta(seconds=1))
    assert desk.line.rung == ["wang"]
    await desk.fast_forward(timedelta(seconds=1))
    assert desk.line.rung == ["wang", "li"]


async def test_each_site_rings_its_own_people(desk: Desk) -> None:
    await desk.call(FROM_SZ)
    await desk.fast_forward(NEXT_AFTER)
    assert desk.line.rung == ["chen", "james"]
    assert [ring.language for ring in desk.line.rings] == ["zh", "en"]


async def test_a_caller_whose_site_nobody_knows_has_everybody_rung(desk: Desk) -> None:
    await desk.call(STRANGER)
    for _ in range(3):
        await desk.fast_forward(NEXT_AFTER)
    assert desk.line.rung == ["wang", "chen", "li", "james"]
    assert {ring.site for ring in desk.line.rings} == {""}


async def test_a_site_that_left_the_rota_has_everybody_rung(desk: Desk) -> None:
    await load_desk(desk.database, small_desk(sites=("sz",)), desk.clock)
    await desk.call(FROM_GZ)
    assert desk.line.rung == ["chen"]


async def test_with_nobody_on_duty_the_floor_is_rung_and_can_take_it(desk: Desk) -> None:
    filed = await desk.call(FROM_ZH)
    assert [(ring.engineer, ring.number) for ring in desk.line.rings] == [("floor", f"+86{FLOOR}")]
    assert await desk.press("1") == "taken"
    await desk.fast_forward(NEXT_AFTER * 10)
    assert desk.line.rung == ["floor"]
    assert await desk.state(filed) == (State.IN_PROGRESS, "")


async def test_without_any_rota_the_page_waits_until_one_is_loaded(desk: Desk) -> None:
    async with desk.database.writing() as connection:
        await connection.execute(delete(rotas))
    await desk.call(FROM_GZ)
    assert desk.line.rung == []
    await load_desk(desk.database, small_desk(), desk.clock)
    await desk.fast_forward(timedelta(seconds=5))
    assert desk.line.rung == ["wang"]


# What they press


async def test_whoever_presses_1_has_the_ticket_and_nobody_else_is_rung(desk: Desk) -> None:
    filed = await desk.call(FROM_GZ)
    await desk.fast_forward(NEXT_AFTER)
    assert await desk.press("1") == "taken"
    await desk.fast_forward(NEXT_AFTER * 10)
    assert desk.line.rung == ["wang", "li"]
    assert await desk.state(filed) == (State.IN_PROGRESS, "li")
    assert (await desk.journal(filed))[-1] == ("page.taken", "li", 1)


async def test_passing_rings_the_next_person_at_once(desk: Desk) -> None:
    filed = await desk.call(FROM_GZ)
    assert await desk.press("2") == "passed"
    assert desk.line.rung == ["wang", "li"]
    await desk.fast_forward(NEXT_AFTER)
    assert desk.line.rung == ["wang", "li", "wang"]
    assert await desk.journal(filed) == [
        ("page.sent", "wang", 0),
        ("page.passed", "wang", 0),
        ("page.sent", "li", 1),
        ("page.sent", "wang", 2),
    ]


async def test_no_key_rings_the_next_at_once_and_is_not_written_down_as_a_decision(
    desk: Desk,
) -> None:
    filed = await desk.call(FROM_GZ)
    assert await desk.press("") == "passed"
    assert desk.line.rung == ["wang", "li"]
    assert ("page.passed", "wang", 0) not in await desk.journal(filed)


async def test_passing_after_the_next_was_rung_hurries_nobody(desk: Desk) -> None:
    await desk.call(FROM_GZ)
    first = desk.line.rings[0].ref
    await desk.fast_forward(NEXT_AFTER)
    assert await desk.pager.answer(first, "2") == "passed"
    await desk.relay.drain()
    assert desk.line.rung == ["wang", "li"]


async def test_who_presses_1_second_is_told_that_it_is_late(desk: Desk) -> None:
    filed = await desk.call(FROM_GZ)
    first = desk.line.rings[0].ref
    await desk.fast_forward(NEXT_AFTER)
    assert await desk.press("1") == "taken"
    assert await desk.pager.answer(first, "1") == "late"
    assert await desk.state(filed) == (State.IN_PROGRESS, "li")


async def test_pressing_1_twice_is_harmless(desk: Desk) -> None:
    filed = await desk.call(FROM_GZ)
    assert [await desk.press("1"), await desk.press("1")] == ["taken", "taken"]
    assert await desk.state(filed) == (State.IN_PROGRESS, "wang")


async def test_a_page_that_nobody_sent_is_late(desk: Desk) -> None:
    for ref in ("", "page-99-0", "nonsense", "page-1"):
        assert await desk.pager.answer(ref, "1") == "late"


async def test_a_message_about_a_ticket_that_somebody_has_rings_that_person_first(
    desk: Desk,
) -> None:
    filed = await desk.call(FROM_GZ, Outcome.ABANDONED_QUEUE)
    await desk.tickets.act(filed.ticket, Action.ACKNOWLEDGE, actor="engineer:li")
    desk.clock.advance(timedelta(minutes=30))
    joined = await desk.call(FROM_GZ, Outcome.VOICEMAIL)
    assert joined.ticket == filed.ticket
    assert desk.line.rung == ["li"]
    await desk.fast_forward(NEXT_AFTER)
    assert desk.line.rung == ["li", "wang"]
    assert await desk.press("1") == "taken"  # who calls back need not be who has the ticket
    await desk.fast_forward(NEXT_AFTER * 10)
    assert desk.line.rung == ["li", "wang"]
    assert await desk.state(filed) == (State.IN_PROGRESS, "li")


async def test_a_caller_who_reached_somebody_meanwhile_needs_no_page(desk: Desk) -> None:
    await desk.call(FROM_GZ)
    desk.clock.advance(timedelta(seconds=30))
    await desk.call(FROM_GZ, Outcome.ANSWERED)
    await desk.fast_forward(NEXT_AFTER * 10)
    assert desk.line.rung == ["wang"]
    assert await desk.pager.answer(desk.line.rings[0].ref, "1") == "late"


async def test_a_ticket_that_is_closed_rings_nobody_any_more(desk: Desk) -> None:
    filed = await desk.call(FROM_GZ)
    await desk.tickets.act(filed.ticket, Action.CANCEL, actor="user:chen")
    await desk.fast_forward(NEXT_AFTER * 10)
    assert desk.line.rung == ["wang"]


async def test_two_messages_about_one_ticket_both_stop_when_somebody_takes_it(desk: Desk) -> None:
    filed = await desk.call(VIP)
    assert (await desk.call(VIP)).ticket == filed.ticket
    assert desk.line.rung == ["wang", "wang"]
    await desk.press("1")
    await desk.fast_forward(NEXT_AFTER * 10)
    assert desk.line.rung == ["wang", "wang"]


# What goes wrong


async def test_events_that_come_twice_ring_once(desk: Desk) -> None:
    filed = await desk.call(FROM_GZ)
    event = CallEnded(ticket_id=filed.ticket_id, contact_id=filed.contact_id)
    due = PageDue(ticket_id=filed.ticket_id, contact_id=filed.contact_id, step=0, reason="again")
    for _ in range(2):
        contact = await Paging(desk.database, desk.clock).call(filed.contact_id)
        assert contact is not None
        await desk.pager.call_ended(event, contact)
        await desk.pager.page(due)
        await desk.relay.drain()
    assert desk.line.rung == ["wang"]
    await desk.fast_forward(NEXT_AFTER)
    assert desk.line.rung == ["wang", "li"]


async def test_with_every_pbx_away_the_page_waits_and_rings_each_person_once(desk: Desk) -> None:
    desk.line.down = True
    filed = await desk.call(FROM_GZ)
    for _ in range(10):
        await desk.fast_forward(timedelta(minutes=6))
    assert await desk.journal(filed) == []
    desk.line.down = False
    await desk.fast_forward(timedelta(minutes=6))
    assert desk.line.rung == ["wang"]
    await desk.fast_forward(NEXT_AFTER)
    assert desk.line.rung == ["wang", "li"]


async def test_another_pbx_rings_when_the_calls_own_is_away(desk: Desk) -> None:
    desk.other_line.down = False
    await desk.call(FROM_GZ, pbx="pbx2")
    assert (desk.line.rung, desk.other_line.rung) == ([], ["wang"])
    desk.other_line.down = True
    await desk.fast_forward(NEXT_AFTER)
    assert (desk.line.rung, desk.other_line.rung) == (["li"], ["wang"])


async def test_an_unknown_outcome_is_asked_again_with_the_same_reference(desk: Desk) -> None:
    desk.line.failure = TemporaryFailure("not known whether the page was dialled")
    filed = await desk.call(FROM_GZ)
    assert await desk.journal(filed) == []
    desk.line.failure = None
    await desk.fast_forward(timedelta(seconds=5))
    first, second = desk.line.rings
    assert first.ref == second.ref
    # Only the second may have been dialled before: the line looks it up.
    assert (first.state, second.state) == (PageState.QUEUED, PageState.SENDING)
    assert await desk.journal(filed) == [("page.sent", "wang", 0)]


async def test_the_next_person_is_rung_even_if_the_first_outcome_stays_unknown(desk: Desk) -> None:
    desk.line.failure = TemporaryFailure("not known whether the page was dialled")
    await desk.call(FROM_GZ)
    await desk.fast_forward(NEXT_AFTER)
    assert set(desk.line.rung) == {"wang", "li"}


async def test_a_key_that_overtakes_the_note_that_it_was_sent_counts(desk: Desk) -> None:
    desk.line.failure = TemporaryFailure("the link broke after the question")
    filed = await desk.call(FROM_GZ)
    assert await desk.press("1") == "taken"
    desk.line.failure = None
    await desk.fast_forward(NEXT_AFTER * 10)
    assert desk.line.rung == ["wang"]
    assert await desk.state(filed) == (State.IN_PROGRESS, "wang")


async def test_a_page_that_the_pbx_refuses_is_written_down_and_the_next_is_rung(desk: Desk) -> None:
    desk.line.failure = PermanentFailure("the PBX refuses to dial: Extension does not exist.")
    filed = await desk.call(FROM_GZ)
    desk.line.failure = None
    await desk.fast_forward(NEXT_AFTER)
    assert await desk.journal(filed) == [("page.failed", "wang", 0), ("page.sent", "li", 1)]
