"""One PBX as contactd follows it: a fake manager interface, real record files, both databases.

What only the PBX hears of (members, pages) is told on SQLite alone.
"""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import structlog
from pydantic import SecretStr

from contactd.board import DeskBoard
from contactd.errors import PermanentFailure, TemporaryFailure
from contactd.metrics import REPLAY_ROWS
from contactd.routing.notify import Busy, Notification, Reason, SendState, SendUnknown
from contactd.service import HealthState
from contactd.settings import AgiSettings, HotlineSettings, PbxSettings
from contactd.signals import Signals, Topic
from contactd.store import cursors, duty
from contactd.store.boardviews import BoardViews
from contactd.store.desk import load_desk
from contactd.store.engine import Database
from contactd.store.ledger import Ledger, LedgerDay
from contactd.store.views import ContactFilters, ContactView, TicketDetail, Views
from contactd.telephony import pbx as pbx_module
from contactd.telephony import voice
from contactd.telephony.calls import State as CallState
from contactd.telephony.intake import Intake
from contactd.telephony.ivr import Ivr
from contactd.telephony.pbx import Pbx, Shared
from contactd.telephony.service import Telephony
from contactd.tickets.contact import Contact, Filed, Medium, Outcome, Replay, Source
from contactd.tickets.service import TicketService
from contactd.tickets.states import State
from contactd.web.board import CallStage, LiveCall
from tests.fakes.clock import FakeClock
from tests.fakes.pbx import SECRET, USERNAME, FakePbx, first
from tests.fakes.records import EPOCH, Recorder
from tests.fakes.rota import FLOOR, FROM_GZ, small_desk
from tests.fakes.waiting import eventually, until

ZONE = "Asia/Shanghai"
CALL_ID = "pbx1-1795140000.1"
REF = "26112000015-1-wang-call"
WANG = "Local/8613800000001@engineer-zh/n"
LI = "Local/8613800000002@engineer-zh/n"
STALE = "Local/8613800000077@engineer-zh/n"
FOREIGN = "PJSIP/4711"


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gather signals for no time: here nothing else is under way."""
    for name in ("SETTLE_S", "GATHER_S", "BOOK_S", "RETRY_S"):
        monkeypatch.setattr(pbx_module, name, 0.001)


class Office:
    """The ticket service, which `down` makes say that the database is away."""

    def __init__(self, tickets: TicketService) -> None:
        self._tickets = tickets
        self.down = False
        self.outcomes: dict[str, list[SendState]] = {}  # of calls to people

    async def receive(self, contact: Contact) -> Filed:
        self._look()
        return await self._tickets.receive(contact)

    async def outcome(self, ref: str, state: SendState) -> None:
        self._look()
        self.outcomes.setdefault(ref, []).append(state)

    async def replay(self, batch: Replay) -> list[Filed]:
        self._look()
        return await self._tickets.replay(batch)

    def _look(self) -> None:
        if self.down:
            raise TemporaryFailure("the database is away")


class NoIvr:
    """Nobody asks anything."""

    def handlers(self) -> dict[str, Any]:
        return {}


class Desk:
    """A PBX with its files, the database, and contactd's view of that PBX."""

    def __init__(
        self, exchange: FakePbx, database: Database, tickets: TicketService, clock: FakeClock,
        folder: Path,
    ) -> None:  # fmt: skip
        self.exchange = exchange
        self.database = database
        self.office = Office(tickets)
        self.clock = clock
        self.views = Views(database, clock)
        self.records = Recorder()
        self.cel = folder / "cel.csv"
        self.queue_log = folder / "queue_log"
        self.write()

    def write(self) -> None:
        """Let the PBX write what has been recorded."""
        self.cel.write_bytes(self.records.cel)
        self.queue_log.write_bytes(self.records.queue_log)

    @asynccontextmanager
    async def following(self, **settings: Any) -> AsyncIterator[Pbx]:
        """Run contactd's part; `settings` are of the PBX or the hotline."""
        hotline = {"replay_interval_s": 3600, "roster_interval_s": 3600, "ledger_interval_s": 3600}
        hotline |= {key: settings.pop(key) for key in tuple(settings) if key in hotline}
        values = {
            "host": "127.0.0.1", "port": self.exchange.port, "username": USERNAME,
            "secret": SecretStr(SECRET), "cel_path": self.cel, "queue_log_path": self.queue_log,
            "reconnect_max_s": 0.05,
        }  # fmt: skip
        self.signals = Signals()
        ledger = Ledger(self.database, self.clock, ZONE)
        shared = Shared(
            tickets=cast(TicketService, self.office),
            intake=Intake(self.office.receive),
            duties=partial(duty.duties, self.database, self.clock),
            load_cursor=partial(cursors.position, self.database),
            settle=ledger.settle,
            call_outcome=self.office.outcome,
            clock=self.clock,
            signals=self.signals,
            zone=ZONE,
        )
        pbx = Pbx(PbxSettings(**values | settings), HotlineSettings(**hotline), shared)
        async with pbx.running():
            yield pbx

    @asynccontextmanager
    async def connected(self, **settings: Any) -> AsyncIterator[Pbx]:
        async with self.following(**settings) as pbx:
            await until(lambda: pbx.health()[0].state is HealthState.UP)
            yield pbx

    # What the manager interface says

    def ring(self, call_id: str = CALL_ID, caller: str = FROM_GZ) -> None:
        self.exchange.event(
            "Newchannel", Channel="PJSIP/trunk-00000000", CallerIDNum=caller, CallerIDName="zhang",
            Context="hotline", Exten="4008001234", Uniqueid=call_id, Linkedid=call_id,
        )  # fmt: skip

    def tell(self, event: str, call_id: str = CALL_ID, **headers: str) -> None:
        self.exchange.event(event, Uniqueid=call_id, **headers)

    def live(self, call_id: str, **headers: str) -> None:
        """Show a channel in CoreShowChannels."""
        self.exchange.channels.append(call_id)
        self.exchange.details[call_id] = {
            "Channel": "PJSIP/trunk-00000000", "Context": "contactd-menu", "Exten": "s",
            "CallerIDNum": FROM_GZ, "Application": "Read", "BridgeId": "", "Duration": "00:00:07",
        } | headers  # fmt: skip

    # What contactd knows

    async def contacts(self) -> tuple[ContactView, ...]:
        return tuple((await self.views.contacts_page(ContactFilters())).items)

    async def filed(self, count: int = 1) -> tuple[ContactView, ...]:
        """Return the contacts once there are `count`."""

        async def look() -> tuple[ContactView, ...]:
            found = await self.contacts()
            return found if len(found) == count else ()

        return await eventually(look)

    async def final(self, count: int = 1) -> tuple[ContactView, ...]:
        """Return the contacts once the PBX's records have confirmed `count`."""

        async def look() -> tuple[ContactView, ...]:
            found = tuple(one for one in await self.contacts() if one.call and one.call.final)
            return found if len(found) == count else ()

        return await eventually(look)

    async def ticket(self, contact: ContactView) -> TicketDetail:
        return await self.views.ticket(contact.ticket)

    async def balance(self) -> LedgerDay | None:
        days = await self.views.ledger(self.today, self.today)
        return next(iter(days), None)

    @property
    def today(self) -> Any:
        return Ledger(self.database, self.clock, ZONE).today()

    @property
    def outcomes(self) -> dict[str, list[SendState]]:
        return self.office.outcomes

    @property
    def in_gz(self) -> dict[str, str]:
        """Return the members of the queue gz: interface -> penalty."""
        return {
            interface: headers["Penalty"]
            for (queue, interface), headers in self.exchange.members.items()
            if queue == "gz"
        }


PAGE = Notification(
    ref=REF, ticket="26112000015", recipient="wang", medium=Medium.CALL,
    address="+8613800000001", language="zh", reason=Reason.VOICEMAIL,
    facts={"site": "gz", "vip": "1", "conference": "1", "pin": "1"},
)  # fmt: skip


@pytest.fixture
async def desk(
    database: Database, tickets: TicketService, clock: FakeClock, tmp_path: Path
) -> AsyncIterator[Desk]:
    await load_desk(database, small_desk(), clock)
    async with FakePbx() as exchange:
        yield Desk(exchange, database, tickets, clock, tmp_path)


on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


# Fast path


async def test_a_call_is_filed_at_first_sight(desk: Desk) -> None:
    async with desk.connected() as pbx:
        desk.ring()
        (contact,) = await desk.filed()
        assert (contact.external_id, contact.from_value) == (CALL_ID, FROM_GZ)
        assert (contact.to_value, contact.source) == ("4008001234", Source.LIVE)
        await until(lambda: pbx.live_calls()[0][1] is not None)
        ((call, filed),) = pbx.live_calls()
        assert filed is not None
        assert (call.state, filed.ticket) == (CallState.GREETING, contact.ticket)
        assert filed.site == "gz"


async def test_who_takes_a_call_has_its_ticket_at_once(desk: Desk) -> None:
    async with desk.connected() as pbx:
        desk.ring()
        desk.tell("QueueCallerJoin", Queue="gz", Context="contactd-queue")
        desk.tell("AgentCalled", MemberName="li")
        desk.tell("AgentConnect", MemberName="li")
        (contact,) = await desk.filed()

        async def taken() -> bool:
            return (await desk.ticket(contact)).ticket.engineer == "li"

        await eventually(taken)
        assert (await desk.ticket(contact)).ticket.state is State.IN_PROGRESS
        (contact,) = await desk.contacts()
        assert (contact.outcome, contact.call and contact.call.queue) == (Outcome.ANSWERED, "gz")
        assert pbx.live_calls()[0][0].state is CallState.TALKING


async def test_the_floor_answering_is_not_taken_for_an_engineer(desk: Desk) -> None:
    async with desk.connected() as pbx:
        desk.ring()
        desk.tell("QueueCallerJoin", Queue="gz", Context="contactd-queue")
        desk.tell("AgentCalled", MemberName="floor")
        desk.tell("AgentConnect", MemberName="floor")
        await until(lambda: bool(pbx.live_calls()))
        await until(lambda: pbx.live_calls()[0][0].state is CallState.TALKING)
        (contact,) = await desk.filed()
    assert (await desk.ticket(contact)).ticket.state is State.NEW


async def test_a_call_that_is_over_is_forgotten_by_the_page(desk: Desk) -> None:
    async with desk.connected() as pbx:
        desk.ring()
        await desk.filed()
        await until(lambda: bool(pbx.filed))
        desk.tell("Hangup")
        await until(lambda: pbx.live_calls() == ())
        assert pbx.filed == {}


async def test_with_the_database_away_a_call_costs_nothing_and_the_records_bring_it(
    desk: Desk,
) -> None:
    async with desk.connected() as pbx:
        desk.office.down = True
        desk.ring()
        desk.tell("QueueCallerJoin", Queue="gz", Context="contactd-queue")
        desk.tell("AgentConnect", MemberName="wang")
        await until(lambda: bool(pbx.live_calls()))
        await until(lambda: pbx.live_calls()[0][0].state is CallState.TALKING)
        desk.records.answered()
        desk.write()
        desk.clock.advance(timedelta(minutes=5))
        desk.signals.raise_here(Topic.REPLAY)
        await until(lambda: pbx.health()[1].detail == "records: the database is away")
        assert await desk.contacts() == ()
        desk.office.down = False  # it is tried again without a signal
        (contact,) = await desk.final()
        assert contact.outcome is Outcome.ANSWERED
        await until(lambda: pbx.health()[1].state is HealthState.UP)


async def test_the_board_shows_who_rings_waits_and_talks_by_their_names(desk: Desk) -> None:
    async with desk.connected() as pbx:
        telephony = Telephony(agi=AgiSettings(), ivr=cast(Ivr, NoIvr()), pbxs=[pbx])
        board = DeskBoard(
            views=desk.views, counts=BoardViews(desk.database, ZONE), telephony=telephony,
            duties=partial(duty.duties, desk.database, desk.clock),
            clock=desk.clock, zone=ZONE,
        )  # fmt: skip
        desk.ring()
        desk.tell("QueueCallerJoin", Queue="gz", Context="contactd-queue")
        desk.tell("AgentCalled", MemberName="wang")
        desk.tell("AgentCalled", MemberName="li")

        async def shown(stage: CallStage) -> LiveCall | None:
            call = next(iter((await board.snapshot()).calls), None)
            return call if call and call.stage is stage and call.ticket else None

        offered = await eventually(partial(shown, CallStage.OFFERED))
        assert offered is not None
        assert (offered.engineer, offered.site, offered.caller) == ("王伟, 李娜", "gz", FROM_GZ)
        desk.tell("AgentConnect", MemberName="li")
        talking = await eventually(partial(shown, CallStage.TALKING))
        assert talking is not None
        assert talking.engineer == "李娜"
        now = await board.snapshot()
    assert {site.key: site.name_zh for site in now.sites}["gz"] == "广州"
    assert {duty.engineer for duty in now.duties if duty.site == "gz"} == {"王伟", "李娜"}
    assert [ticket.number for ticket in now.tickets.latest] == [talking.ticket]
    assert now.at == desk.clock.now()


# Truth path


async def test_the_records_of_a_call_are_read_when_it_ends(desk: Desk) -> None:
    async with desk.connected() as pbx:
        call = desk.records.to_voicemail()
        desk.ring(call.uniqueid, call.number)
        await desk.filed()
        desk.write()
        desk.clock.advance(timedelta(minutes=5))
        desk.tell("Hangup", call.uniqueid)
        (contact,) = await desk.final()
        assert (contact.outcome, contact.source) == (Outcome.VOICEMAIL, Source.LIVE)
        assert pbx.live_calls() == ()


async def test_what_happened_before_the_start_is_caught_up_with(desk: Desk) -> None:
    for _ in range(3):
        desk.records.in_queue()
        desk.records.wait(20)
    desk.write()
    desk.clock.advance(timedelta(minutes=5))
    async with desk.connected():
        found = await desk.final(3)
        assert {one.source for one in found} == {Source.REPLAY}


async def test_the_records_are_read_without_the_manager_interface(desk: Desk) -> None:
    desk.exchange.stop()
    desk.records.answered()
    desk.write()
    desk.clock.advance(timedelta(minutes=5))
    async with desk.following() as pbx:
        (contact,) = await desk.final()
        assert contact.outcome is Outcome.ANSWERED
        link, records = pbx.health()
        assert (link.state, records.state) == (HealthState.DOWN, HealthState.UP)
        assert "is Asterisk running" in link.detail


async def test_a_call_whose_channel_lives_is_not_closed_by_its_records(desk: Desk) -> None:
    call = desk.records.arrive()
    desk.records.stage(call, "queue")
    desk.write()
    desk.live(call.uniqueid)
    desk.clock.advance(timedelta(minutes=5))
    async with desk.connected():
        (contact,) = await desk.filed()
        assert contact.call is not None
        assert not contact.call.final


async def test_missing_files_are_named_with_the_setting_to_look_at(desk: Desk) -> None:
    desk.cel.unlink()
    desk.queue_log.unlink()
    async with desk.connected() as pbx:
        await until(lambda: pbx.health()[1].state is HealthState.DEGRADED)
        detail = pbx.health()[1].detail
        assert f"{desk.cel} is not there: see cel_path" in detail
        assert f"{desk.queue_log} is not there" in detail
        desk.write()
        desk.records.in_menu()
        desk.write()
        desk.signals.raise_here(Topic.REPLAY)
        await until(lambda: str(desk.cel) not in pbx.health()[1].detail)


@on_sqlite
async def test_records_that_cannot_be_read_are_down_until_they_can(desk: Desk) -> None:
    desk.cel.unlink()
    desk.cel.mkdir()
    async with desk.connected() as pbx:
        await until(lambda: pbx.health()[1].state is HealthState.DOWN)
        assert f"cannot read {desk.cel}" in pbx.health()[1].detail
        desk.cel.rmdir()
        desk.write()
        await until(lambda: pbx.health()[1].state is HealthState.UP)


@on_sqlite
async def test_a_damaged_file_is_named_and_the_others_are_read(desk: Desk) -> None:
    broken = desk.cel.with_name("cel.csv.1.gz")
    broken.write_bytes(b"not compressed at all")
    os.utime(broken, (EPOCH, EPOCH))
    desk.records.in_menu()
    desk.write()
    desk.clock.advance(timedelta(minutes=5))
    async with desk.connected() as pbx:
        await desk.final()
        await until(lambda: pbx.health()[1].detail != "")
        health = pbx.health()[1]
        assert (health.state, health.detail) == (
            HealthState.DEGRADED, f"{broken} is damaged and skipped: restore or remove it",
        )  # fmt: skip


@on_sqlite
async def test_a_clock_that_was_set_back_does_not_stop_the_reading(desk: Desk) -> None:
    desk.records.in_menu()
    desk.write()  # this call ends an hour from now
    desk.clock.advance(timedelta(hours=-1))
    read = REPLAY_ROWS.labels(pbx="pbx1", source="cel")._value
    before = read.get()
    desk.exchange.stop()  # a connection would be a reason to look again
    async with desk.following(replay_interval_s=0.02):
        await until(lambda: read.get() > before)
        desk.clock.advance(timedelta(hours=2))
        await desk.final()


# Reconnecting


async def test_after_a_cut_the_live_calls_are_those_that_the_pbx_lists(desk: Desk) -> None:
    async with desk.connected() as pbx:
        desk.ring()
        await desk.filed()
        desk.exchange.stop()
        await until(lambda: not pbx.connected)
        missed = "pbx1-1795140030.9"  # came while nobody looked; the first one has ended
        desk.live(missed)
        await desk.exchange.start()
        await until(lambda: [call.call_id for call, _ in pbx.live_calls()] == [missed])
        found = await desk.filed(2)
        arrived = {one.external_id: one.received_at for one in found}
        assert arrived[missed] == desk.clock.now() - timedelta(seconds=7)


async def test_after_a_cut_the_records_are_read_and_the_members_compared(desk: Desk) -> None:
    async with desk.connected() as pbx:
        await until(lambda: desk.in_gz.keys() >= {WANG, LI})
        desk.exchange.stop()
        await until(lambda: not pbx.connected)
        del desk.exchange.members["gz", LI]
        desk.records.in_menu()
        desk.write()
        desk.clock.advance(timedelta(minutes=5))
        await desk.exchange.start()
        await until(lambda: LI in desk.in_gz)
        assert (await desk.final())[0].outcome is Outcome.ABANDONED_MENU


async def test_a_call_that_was_taken_while_nobody_looked_is_told_to_its_ticket(
    desk: Desk,
) -> None:
    desk.exchange.members["gz", WANG] = {"Name": "wang", "Penalty": "1"}
    desk.live(CALL_ID, Context="contactd-queue", Application="Queue", BridgeId="b1")
    desk.live("pbx1-1795140000.2", Channel="Local/8613800000001@engineer-zh-00000001;1",
              Context="engineer-zh", Linkedid=CALL_ID, BridgeId="b1")  # fmt: skip
    async with desk.connected():
        (contact,) = await desk.filed()

        async def taken() -> bool:
            return (await desk.ticket(contact)).ticket.engineer == "wang"

        await eventually(taken)


# The queues' members


@on_sqlite
async def test_the_members_are_written_on_connecting(desk: Desk) -> None:
    async with desk.connected():
        floor = f"Local/86{FLOOR}@engineer-zh/n"
        await until(lambda: desk.in_gz == {WANG: "1", LI: "2", floor: "9"})
        # Three in gz and sz each, the floor alone in zh, everybody in the default queue.
        await until(lambda: len(desk.exchange.members) == 3 + 3 + 1 + 5)
        assert ("desk", WANG) in desk.exchange.members


@on_sqlite
async def test_the_members_stay_when_contactd_stops(desk: Desk) -> None:
    async with desk.connected():
        await until(lambda: len(desk.exchange.members) == 12)
    assert len(desk.exchange.members) == 12
    assert desk.exchange.actions("QueueRemove") == []
    sent = len(desk.exchange.actions("QueueAdd"))
    async with desk.connected():
        await desk.exchange.until(lambda: len(desk.exchange.actions("QueueStatus")) >= 4)
    assert len(desk.exchange.actions("QueueAdd")) == sent, "they are there already"


@on_sqlite
async def test_a_member_that_somebody_removes_is_put_back(desk: Desk) -> None:
    async with desk.connected():
        await until(lambda: len(desk.exchange.members) == 12)
        del desk.exchange.members["gz", WANG]
        desk.exchange.event("QueueMemberRemoved", Queue="gz", Interface=WANG, MemberName="wang")
        await until(lambda: WANG in desk.in_gz)


@on_sqlite
async def test_a_removal_that_nobody_told_of_is_found_in_time(desk: Desk) -> None:
    async with desk.connected(roster_interval_s=0.02):
        await until(lambda: len(desk.exchange.members) == 12)
        del desk.exchange.members["gz", WANG]
        await until(lambda: WANG in desk.in_gz)


@on_sqlite
async def test_who_is_not_on_duty_goes_and_who_is_not_ours_stays(desk: Desk) -> None:
    desk.exchange.members["gz", STALE] = {"Name": "zhao", "Penalty": "1"}
    desk.exchange.members["gz", FOREIGN] = {"Name": "reception", "Penalty": "0"}
    desk.exchange.members["gz", LI] = {"Name": "li", "Penalty": "1"}
    desk.exchange.members["billing", STALE] = {"Name": "zhao", "Penalty": "1"}
    async with desk.connected():
        await until(lambda: STALE not in desk.in_gz)
        assert desk.in_gz[FOREIGN] == "0"
        assert desk.in_gz[LI] == "2"
        assert ("billing", STALE) in desk.exchange.members
    actions = [first(one, "Action") for one in desk.exchange.received]
    assert actions.index("QueueRemove") > actions.index("QueueAdd"), "no queue is ever empty"


@on_sqlite
async def test_a_new_rota_changes_the_members_at_once(desk: Desk) -> None:
    async with desk.connected():
        await until(lambda: len(desk.exchange.members) == 12)
        loaded = small_desk()
        shifts = tuple(one for one in loaded.shifts if one.engineer != "li")
        changed = loaded.model_copy(update={"shifts": shifts})
        await load_desk(desk.database, changed, desk.clock)
        desk.signals.raise_here(Topic.ROSTER)
        await until(lambda: LI not in desk.in_gz)
        assert WANG in desk.in_gz


@on_sqlite
async def test_a_pbx_whose_members_are_not_ours_to_write_is_left_alone(desk: Desk) -> None:
    async with desk.connected(write_roster=False) as pbx:
        desk.signals.raise_here(Topic.ROSTER)
        desk.ring()
        await desk.filed()
        assert pbx.connected
    assert desk.exchange.members == {}


@on_sqlite
async def test_a_refused_step_does_not_keep_the_others_from_their_queues(desk: Desk) -> None:
    desk.exchange.refused = {("gz", WANG)}
    async with desk.connected() as pbx:
        await until(lambda: len(desk.exchange.members) == 11)
        assert (WANG in desk.in_gz, LI in desk.in_gz) == (False, True)
        desk.exchange.refused = set()
        desk.signals.raise_here(Topic.ROSTER)
        await until(lambda: WANG in desk.in_gz)
        assert pbx.health()[1].state is HealthState.UP


@on_sqlite
async def test_an_answer_that_does_not_come_is_a_trouble_until_the_members_are_written(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pbx_module, "RETRY_S", 1.0)  # so long it can be seen
    desk.exchange.faults.cut_after = {"QueueAdd"}
    async with desk.connected() as pbx:
        await until(lambda: "roster: " in pbx.health()[1].detail)
        desk.exchange.faults.cut_after = set()
        await until(lambda: len(desk.exchange.members) == 12)
        await until(lambda: pbx.health()[1].state is HealthState.UP)


# Ledger


async def test_the_ledger_of_today_is_balanced_after_calls_were_filed(desk: Desk) -> None:
    desk.records.answered()
    desk.records.in_menu()
    desk.write()
    desk.clock.advance(timedelta(minutes=5))
    async with desk.connected():

        async def balanced() -> LedgerDay | None:
            found = await desk.balance()
            return found if found is not None and found.contacts == 2 else None

        day = await eventually(balanced)
        assert day is not None
        assert day.balanced
        assert (day.source, day.outside, len(day.repaired)) == ("pbx1", 2, 2)


async def test_in_the_first_hour_of_a_day_the_day_before_is_balanced_too(desk: Desk) -> None:
    desk.records.in_menu()
    desk.write()
    midnight = datetime(2026, 11, 20, 16, tzinfo=UTC)
    desk.clock.advance(midnight + timedelta(minutes=30) - desk.clock.now())
    async with desk.connected():

        async def both() -> bool:
            days = await desk.views.ledger(desk.today - timedelta(days=1), desk.today)
            return {one.day.day: one.contacts for one in days} == {20: 1, 21: 0}

        await eventually(both)


# Calls to people


@on_sqlite
async def test_a_page_is_dialled_with_what_its_dialplan_needs(desk: Desk) -> None:
    async with desk.connected() as pbx:
        await pbx.dial(PAGE)
    (sent,) = desk.exchange.actions("Originate")
    expected = {
        "Channel": "Local/8613800000001@contactd-call/n", "ChannelId": REF,
        "Context": "contactd-page", "Exten": "s", "Timeout": "30000", "Async": "true",
    }  # fmt: skip
    assert expected.items() <= dict(sent).items()
    assert [value for key, value in sent if key == "Variable"] == [
        f"NOTIFICATION={REF}", "TICKET=26112000015", "LANG=zh", "WHAT=voicemail", "SITE=gz",
        "VIP=1", "CONFERENCE=1", "PIN_NEEDED=1", "CODE=",
    ]  # fmt: skip


@on_sqlite
@pytest.mark.parametrize(
    ("reason", "context"),
    [
        (Reason.NEW, "contactd-page"),
        (Reason.BREACH, "contactd-page"),
        (Reason.SOLVED, "contactd-confirm"),
        (Reason.CODE, "contactd-tell"),
    ],
)
async def test_what_a_call_is_about_decides_what_is_asked(
    desk: Desk, reason: Reason, context: str
) -> None:
    async with desk.connected() as pbx:
        await pbx.dial(replace(PAGE, reason=reason, facts={"code": "0429"}))
    (sent,) = desk.exchange.actions("Originate")
    assert first(sent, "Context") == context
    assert {f"WHAT={reason}", "CODE=0429", "SITE="} <= {value for _, value in sent}


@on_sqlite
async def test_a_page_is_dialled_once_if_the_link_breaks_after_the_dialling(desk: Desk) -> None:
    desk.exchange.faults.cut_after = {"Originate"}
    async with desk.connected() as pbx:
        with pytest.raises(SendUnknown):
            await pbx.dial(PAGE)
        desk.exchange.faults.cut_after = set()
        await until(lambda: pbx.connected)
        assert await pbx.has_dialled(REF)
        await pbx.dial(PAGE)  # its channel lives
    assert desk.exchange.dialled == [REF]
    assert len(desk.exchange.actions("Originate")) == 1


@on_sqlite
async def test_a_page_that_was_dialled_and_is_over_is_known_from_the_records(desk: Desk) -> None:
    channel = desk.records.channel("Local/1@contactd-call-#", context="contactd-call", exten="1")
    channel.uniqueid = channel.linkedid = REF
    desk.records.row("CHAN_START", channel)
    desk.records.hang_up(channel)
    desk.write()
    async with desk.connected() as pbx:
        assert await pbx.has_dialled(REF)
    assert await pbx.has_dialled(REF), "the records tell it though the link is down"


@on_sqlite
async def test_a_page_that_was_never_dialled_is_known_from_the_pbx_only(desk: Desk) -> None:
    desk.records.answered()
    desk.write()
    async with desk.connected() as pbx:
        assert not await pbx.has_dialled(REF)
    with pytest.raises(TemporaryFailure, match="cannot be asked"):
        await pbx.has_dialled(REF)


@on_sqlite
async def test_a_page_through_a_pbx_that_is_away_is_a_temporary_failure(desk: Desk) -> None:
    desk.exchange.stop()
    async with desk.following(page_channels=1) as pbx:
        for _ in range(2):  # and takes no channel
            with pytest.raises(TemporaryFailure, match="not connected"):
                await pbx.dial(PAGE)
        await pbx.hang_up([REF])  # nothing of it is there


@on_sqlite
async def test_a_page_that_cannot_be_written_as_a_question_is_refused(desk: Desk) -> None:
    async with desk.connected(page_channels=1) as pbx:
        for _ in range(2):
            with pytest.raises(PermanentFailure, match="channel variable"):
                await pbx.dial(replace(PAGE, ticket='1,"2'))
    assert desk.exchange.dialled == []


@on_sqlite
async def test_no_more_calls_than_channels_until_one_has_gone(desk: Desk) -> None:
    async with desk.connected(page_channels=2) as pbx:
        await pbx.dial(PAGE)
        await pbx.dial(replace(PAGE, ref="second"))
        with pytest.raises(Busy):
            await pbx.dial(replace(PAGE, ref="third"))
        desk.exchange.channels.remove(REF)
        desk.tell("Hangup", REF, Context="contactd-page")
        await eventually(partial(_dials, pbx, replace(PAGE, ref="third")))
    assert desk.exchange.dialled == [REF, "second", "third"]


@on_sqlite
async def test_what_became_of_a_call_is_told(desk: Desk) -> None:
    async with desk.connected() as pbx:
        await pbx.dial(PAGE)
        await pbx.dial(replace(PAGE, ref="second"))
        desk.tell("OriginateResponse", REF, Context="contactd-page", Response="Success")
        desk.tell("OriginateResponse", "second", Context="contactd-page", Response="Failure")
        await until(lambda: len(desk.outcomes) == 2)
    assert desk.outcomes == {REF: [SendState.DELIVERED], "second": [SendState.NOT_REACHED]}


@on_sqlite
async def test_that_nobody_can_note_what_became_of_a_call_costs_nothing_else(desk: Desk) -> None:
    async with desk.connected() as pbx:
        desk.office.down = True
        desk.tell("OriginateResponse", REF, Context="contactd-page", Response="Success")
        desk.office.down = False
        desk.ring()
        await desk.filed()
        assert pbx.connected


@on_sqlite
async def test_a_call_that_ended_while_the_link_was_away_was_not_reached(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voice, "YOUNG_S", 0)
    async with desk.connected(page_channels=2) as pbx:
        await pbx.dial(PAGE)
        await pbx.dial(replace(PAGE, ref="second"))
        desk.exchange.channels.remove(REF)
        desk.exchange.cut()
        await until(lambda: bool(desk.outcomes))
        await pbx.dial(replace(PAGE, ref="third"))
    assert desk.outcomes == {REF: [SendState.NOT_REACHED]}


@on_sqlite
async def test_only_phones_that_ring_are_hung_up_on_and_that_is_no_news(desk: Desk) -> None:
    async with desk.connected() as pbx:
        for ref, state in ((REF, "Ringing"), ("second", "Up"), ("third", "Ringing")):
            await pbx.dial(replace(PAGE, ref=ref))
            desk.exchange.details[ref] = {"ChannelStateDesc": state}
        await pbx.hang_up([REF, "second", "never heard of"])
        assert desk.exchange.hung_up == [REF]
        for ref in (REF, "third"):
            desk.tell("OriginateResponse", ref, Context="contactd-page", Response="Failure")
        await until(lambda: bool(desk.outcomes))
    assert desk.outcomes == {"third": [SendState.NOT_REACHED]}


@on_sqlite
async def test_stopping_what_rings_on_a_pbx_that_is_away_has_to_be_asked_again(desk: Desk) -> None:
    async with desk.connected() as pbx:
        await pbx.dial(PAGE)
        desk.exchange.stop()
        await until(lambda: not pbx.connected)
        with pytest.raises(TemporaryFailure, match="not connected"):
            await pbx.hang_up([REF])
        await pbx.hang_up(["elsewhere"])


async def _dials(pbx: Pbx, notification: Notification) -> bool:
    try:
        await pbx.dial(notification)
    except Busy:
        return False
    return True


# Its end


@on_sqlite
async def test_leaving_finishes_what_is_being_filed(desk: Desk) -> None:
    async with desk.connected() as pbx:
        desk.ring()
        await until(lambda: bool(pbx.live_calls()))
    assert len(await desk.contacts()) == 1


@on_sqlite
async def test_a_bug_in_a_loop_ends_the_service(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(duty, "duties", lambda database, clock: broken())
    with pytest.raises(BaseExceptionGroup) as caught:
        async with desk.connected():
            await until(lambda: False)
    assert caught.group_contains(ZeroDivisionError)


def test_the_records_begin_where_the_clock_starts() -> None:
    assert FakeClock().now().timestamp() == EPOCH
