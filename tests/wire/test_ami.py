"""The AMI client against a fake PBX: panoramisk's faults, one by one, and their absence here.

Each "plain panoramisk …" test shows the fault in panoramisk 1.4 itself. When one of them fails, the
library has been repaired and what closes the fault in `contactd/telephony/ami.py` can go. (The
fault of its FastAGI server is in `test_agi.py`.)
"""

import asyncio
import dataclasses
import functools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
from panoramisk.manager import Manager

from contactd.errors import PermanentFailure, TemporaryFailure
from contactd.service import HealthState
from contactd.telephony.ami import (
    LIST_ID,
    MESSAGE_LIMIT,
    Ami,
    AmiEvent,
    AmiSettings,
    OriginateOutcome,
    OutcomeUnknown,
    parse,
)
from contactd.telephony.ordered import OrderedByKey
from tests.fakes.pbx import BANNER, SECRET, USERNAME, FakePbx, Headers, Transcript, first, wire
from tests.fakes.waiting import WITHIN_S

NAME_EVENT = "Event: Newchannel\r\nCallerIDName: 张三丰\r\n\r\n".encode()
INSIDE_SAN = NAME_EVENT.index("三".encode()) + 1  # between two bytes of one character


class Heard:
    """What the client told its owner, and a way to wait for more of it."""

    def __init__(self) -> None:
        self.events: list[AmiEvent] = []
        self.connected = 0
        self.lost = 0
        self.resync: Callable[[Ami], Any] | None = None
        self._changed = asyncio.Event()

    def on_event(self, event: AmiEvent) -> None:
        self.events.append(event)
        self._changed.set()

    async def on_connected(self, ami: Ami) -> None:
        self.connected += 1
        if self.resync is not None:
            await self.resync(ami)
        self._changed.set()

    def on_lost(self) -> None:
        self.lost += 1
        self._changed.set()

    def named(self, name: str) -> list[AmiEvent]:
        return [event for event in self.events if event["Event"] == name]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


def settings(port: int, **changes: Any) -> AmiSettings:
    quick = AmiSettings(
        name="pbx1",
        host="127.0.0.1",
        port=port,
        username=USERNAME,
        secret=SECRET,
        reconnect_min_s=0.01,
        reconnect_max_s=0.05,
        login_retry_s=0.05,
    )
    return dataclasses.replace(quick, **changes)


@asynccontextmanager
async def client(
    pbx: FakePbx, heard: Heard, *, wanted: set[str] | None = None, **changes: Any
) -> AsyncIterator[Ami]:
    ami = Ami(
        settings(pbx.port, **changes),
        on_event=heard.on_event,
        on_connected=heard.on_connected,
        on_lost=heard.on_lost,
        wanted=wanted,
    )
    async with ami.running():
        yield ami


@asynccontextmanager
async def connected(pbx: FakePbx, heard: Heard, **changes: Any) -> AsyncIterator[Ami]:
    async with client(pbx, heard, **changes) as ami:
        await heard.until(lambda: heard.connected > 0)
        await healthy(ami)
        yield ami


async def healthy(ami: Ami) -> None:
    async with asyncio.timeout(WITHIN_S):
        while ami.health().state is not HealthState.UP:
            await asyncio.sleep(0)


@asynccontextmanager
async def plain(pbx: FakePbx) -> AsyncIterator[Manager]:
    """panoramisk as it comes."""
    manager = Manager(
        host="127.0.0.1",
        port=pbx.port,
        username=USERNAME,
        secret=SECRET,
        ping_delay=3600,
        reconnect_timeout=0,
    )
    logins = pbx.logins
    await manager.connect()
    await pbx.logged_in(logins + 1)
    while not manager.authenticated:
        await asyncio.sleep(0)
    try:
        yield manager
    finally:
        manager.connection_lost = lambda _: None  # else it connects again, for ever
        manager.close()


async def turns(count: int = 20) -> None:
    """Let the event loop go round, so that what is on the loopback wire arrives."""
    for _ in range(count):
        await asyncio.sleep(0.001)


def originate_arguments(**changes: Any) -> dict[str, Any]:
    return {
        "channel": "PJSIP/13800000001@trunk",
        "channel_id": "page-7-0",
        "context": "contactd-page",
        "exten": "s",
        "caller_id": '"contactd" <4008001234>',
        "variables": {"NOTIFICATION": "page-7-0", "LANG": "zh"},
        "timeout_s": 30,
    } | changes


# The fake is like the real thing


def shape(message: Headers) -> list[str]:
    """Header names, with the values that say what kind of message it is."""
    telling = {"Response", "Event", "Message", "EventList"}
    return sorted(f"{key}: {value}" if key in telling else key for key, value in message)


@pytest.mark.parametrize("name", ["ami-22-login", "ami-22-wrong-password"])
async def test_fake_answers_as_the_recorded_asterisk_did(name: str) -> None:
    transcript = Transcript.load(name)
    assert transcript.made_by.startswith("Asterisk 22")
    async with FakePbx() as pbx:
        reader, writer = await asyncio.open_connection("127.0.0.1", pbx.port)
        assert await reader.readline() == BANNER
        for step in transcript.steps:
            if step.sent is None or first(step.sent, "Action") in {"Nonsense", "QueueAdd"}:
                continue
            writer.write(wire(step.sent))
            for expected in step.received:
                raw = (await reader.readuntil(b"\r\n\r\n")).decode().removesuffix("\r\n\r\n")
                pairs = [line.partition(": ") for line in raw.split("\r\n")]
                assert shape(tuple((key, value) for key, _, value in pairs)) == shape(expected)
        assert await reader.read() == b""  # the wrong password and the Logoff end it
        writer.close()


# Fault 2: a character cut by a TCP segment


async def test_plain_panoramisk_loses_a_character_that_a_segment_cuts() -> None:
    async with FakePbx() as pbx, plain(pbx) as manager:
        names: list[str] = []
        manager.register_event("Newchannel", lambda _, event: names.append(event.calleridname))
        manager.protocol.data_received(NAME_EVENT[:INSIDE_SAN])
        manager.protocol.data_received(NAME_EVENT[INSIDE_SAN:])
        assert names == ["张丰"]


async def test_a_character_cut_by_a_segment_arrives_whole() -> None:
    heard = Heard()
    async with FakePbx() as pbx, connected(pbx, heard):
        pbx.write(NAME_EVENT[:INSIDE_SAN])
        await turns()
        pbx.write(NAME_EVENT[INSIDE_SAN:])
        await heard.until(lambda: bool(heard.named("Newchannel")))
    assert heard.named("Newchannel")[0]["CallerIDName"] == "张三丰"


async def test_events_are_the_same_however_the_stream_is_cut() -> None:
    heard = Heard()
    async with FakePbx() as pbx, connected(pbx, heard):
        for byte in NAME_EVENT * 2:
            pbx.write(bytes([byte]))
            await asyncio.sleep(0)
        pbx.write(NAME_EVENT * 3)
        await heard.until(lambda: len(heard.named("Newchannel")) == 5)
    assert {event["CallerIDName"] for event in heard.named("Newchannel")} == {"张三丰"}


async def test_bytes_that_are_not_utf_8_cost_themselves_only() -> None:
    heard = Heard()
    async with FakePbx() as pbx, connected(pbx, heard):
        cut_by_asterisk = (
            b"Event: Newchannel\r\nCallerIDName: \xe5\xbc\xa0\xe4\xb8\r\nExten: 1\r\n\r\n"
        )
        pbx.write(cut_by_asterisk)
        await heard.until(lambda: bool(heard.named("Newchannel")))
    event = heard.named("Newchannel")[0]
    assert (event["CallerIDName"], event["Exten"]) == ("张\ufffd", "1")


# Fault 3: an action sent again


async def test_plain_panoramisk_dials_twice_when_the_link_breaks() -> None:
    async with FakePbx() as pbx:
        pbx.faults.cut_after = {"Originate"}
        async with plain(pbx) as manager:
            manager.send_action({"Action": "Originate", "Channel": "PJSIP/1"})
            await pbx.until(lambda: len(pbx.actions("Originate")) >= 2)


async def test_an_action_is_never_sent_again() -> None:
    heard = Heard()
    async with FakePbx() as pbx:
        pbx.faults.cut_after = {"Originate"}
        async with connected(pbx, heard) as ami:
            with pytest.raises(OutcomeUnknown):
                await ami.action("Originate", Channel="PJSIP/1")
            await heard.until(lambda: heard.connected == 2)
            await ami.action("Ping")
            assert len(pbx.actions("Originate")) == 1


async def test_dialling_whose_outcome_is_unknown_is_not_repeated_while_the_channel_lives() -> None:
    heard = Heard()
    async with FakePbx() as pbx:
        pbx.faults.cut_after = {"Originate"}
        async with connected(pbx, heard) as ami:
            assert await ami.originate(**originate_arguments()) is OriginateOutcome.UNKNOWN
            await heard.until(lambda: heard.connected == 2)
            pbx.faults.cut_after = set()
            assert await ami.originate(**originate_arguments()) is OriginateOutcome.LIVE
            other = originate_arguments(channel_id="page-8-0")
            assert await ami.originate(**other) is OriginateOutcome.STARTED
        assert pbx.dialled == ["page-7-0", "page-8-0"]


async def test_dialling_carries_its_identity_and_its_variables() -> None:
    heard = Heard()
    async with FakePbx() as pbx, connected(pbx, heard) as ami:
        assert await ami.originate(**originate_arguments()) is OriginateOutcome.STARTED
        (sent,) = pbx.actions("Originate")
    assert [value for key, value in sent if key == "Variable"] == [
        "NOTIFICATION=page-7-0",
        "LANG=zh",
    ]
    expected = {"ChannelId": "page-7-0", "Timeout": "30000", "Async": "true", "Priority": "1"}
    assert expected.items() <= dict(sent).items()


async def test_dialling_is_not_tried_when_the_live_channels_cannot_be_learned() -> None:
    heard = Heard()
    async with FakePbx() as pbx:
        pbx.faults.cut_after = {"CoreShowChannels"}
        async with connected(pbx, heard) as ami:
            with pytest.raises(TemporaryFailure) as caught:
                await ami.originate(**originate_arguments())
        assert not isinstance(caught.value, OutcomeUnknown)
        assert pbx.dialled == []


async def test_an_event_of_the_dialling_that_overtakes_the_answer_is_an_event() -> None:
    heard = Heard()
    async with FakePbx() as pbx:
        pbx.faults.unanswered = {"Originate"}
        async with connected(pbx, heard) as ami, asyncio.TaskGroup() as tasks:
            dialling = tasks.create_task(ami.originate(**originate_arguments()))
            await pbx.until(lambda: bool(pbx.actions("Originate")))
            action_id = first(pbx.actions("Originate")[0], "ActionID")
            pbx.event("OriginateResponse", ActionID=action_id, Response="Failure", Reason="0")
            pbx.write(wire((("Response", "Success"), ("ActionID", action_id), ("Message", ""))))
            assert await dialling is OriginateOutcome.STARTED
            await heard.until(lambda: bool(heard.named("OriginateResponse")))


# Fault 4: a half-open link


async def test_plain_panoramisk_does_not_notice_a_silent_link() -> None:
    async with FakePbx() as pbx, plain(pbx) as manager:
        pbx.faults.mute = True
        manager.ping_interval = 0.001
        manager.ping()
        await pbx.until(lambda: len(pbx.actions("Ping")) >= 50)
        assert manager._connected


async def test_a_silent_link_is_noticed_and_replaced() -> None:
    heard = Heard()
    async with (
        FakePbx() as pbx,
        connected(pbx, heard, ping_interval_s=0.05, liveness_s=0.2) as ami,
    ):
        pbx.faults.mute = True
        await heard.until(lambda: heard.lost == 1)
        assert not ami.connected
        assert "did not answer Ping" in ami.last_error
        pbx.faults.mute = False
        await heard.until(lambda: heard.connected == 2)


async def test_a_link_that_is_alive_is_kept() -> None:
    heard = Heard()
    async with (
        FakePbx() as pbx,
        connected(pbx, heard, ping_interval_s=0.01, liveness_s=0.5) as ami,
    ):
        await pbx.until(lambda: len(pbx.actions("Ping")) >= 20)
        assert ami.connected
        assert heard.lost == 0


# Fault 5: headers hidden in values

INJECTION = "x\r\nVariable: CONTACTD=stolen"


async def test_plain_panoramisk_lets_a_value_add_a_header() -> None:
    async with FakePbx() as pbx, plain(pbx) as manager:
        manager.send_action({"Action": "Originate", "CallerID": INJECTION})
        await pbx.until(lambda: bool(pbx.actions("Originate")))
        assert first(pbx.actions("Originate")[0], "Variable") == "CONTACTD=stolen"


@pytest.mark.parametrize(
    "value",
    [INJECTION, "a\nb", "a\rb", "\x00", "a\x7f", "\x85", "\u2028", "\ud800", "长" * 400],
    ids=ascii,
)
async def test_a_value_that_is_not_one_line_of_text_is_refused_and_not_sent(value: str) -> None:
    heard = Heard()
    async with FakePbx() as pbx, connected(pbx, heard) as ami:
        for headers in ({"CallerID": value}, {"Variable": ["A=1", value]}):
            with pytest.raises(PermanentFailure) as caught:
                await ami.action("Originate", **headers)
            assert value not in str(caught.value)
        await ami.action("Ping")
        assert pbx.actions("Originate") == []
        assert ami.health().figures["unanswered"] == 0


@pytest.mark.parametrize("name", ["Bad\r\nHeader", "Bad: Header", "", "名"])
async def test_a_header_name_that_is_none_is_refused(name: str) -> None:
    heard = Heard()
    headers: dict[str, Any] = {name: "1"}
    async with FakePbx() as pbx, connected(pbx, heard) as ami:
        with pytest.raises(PermanentFailure):
            await ami.action("Ping", **headers)


@pytest.mark.parametrize(
    "variables", [{"A": "1,B=2"}, {"A": '"'}, {"A": "\\"}, {"SHELL(id)": "x"}, {"A\r\nB": "1"}]
)
async def test_a_variable_that_asterisk_would_take_apart_is_refused(
    variables: dict[str, str],
) -> None:
    heard = Heard()
    async with FakePbx() as pbx, connected(pbx, heard) as ami:
        with pytest.raises(PermanentFailure):
            await ami.originate(**originate_arguments(variables=variables))
        assert pbx.actions("Originate") == []


# Fault 6: before the connection, unanswered actions, callbacks


async def test_plain_panoramisk_breaks_when_used_before_it_is_connected() -> None:
    with pytest.raises(AttributeError):
        Manager().send_action({"Action": "Ping"})


async def test_an_action_before_the_connection_is_a_temporary_failure() -> None:
    async with FakePbx() as pbx:
        heard = Heard()
        pbx.stop()
        async with client(pbx, heard) as ami:
            with pytest.raises(TemporaryFailure, match="not connected"):
                await ami.action("Ping")
            with pytest.raises(TemporaryFailure, match="not connected"):
                await ami.list("QueueStatus")


async def test_plain_panoramisk_keeps_what_is_never_answered() -> None:
    async with FakePbx() as pbx, plain(pbx) as manager:
        pbx.faults.unanswered = {"CoreStatus"}
        for _ in range(10):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(manager.send_action({"Action": "CoreStatus"}), 0.01)
        assert len(manager.responses) >= 10


async def test_an_action_that_is_never_answered_ends_and_is_forgotten() -> None:
    heard = Heard()
    async with FakePbx() as pbx, connected(pbx, heard) as ami:
        pbx.faults.unanswered = {"CoreStatus", "CoreShowChannels"}
        for _ in range(10):
            with pytest.raises(OutcomeUnknown, match="did not answer CoreStatus"):
                await ami.action("CoreStatus", timeout_s=0.01)
            with pytest.raises(OutcomeUnknown, match="did not answer CoreShowChannels"):
                await ami.list("CoreShowChannels", timeout_s=0.01)
        assert ami.health().figures["unanswered"] == 0
        assert ami.connected


async def test_an_action_whose_caller_gives_up_is_forgotten() -> None:
    heard = Heard()
    async with FakePbx() as pbx, connected(pbx, heard) as ami:
        pbx.faults.unanswered = {"CoreStatus"}
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await ami.action("CoreStatus")
        assert ami.health().figures["unanswered"] == 0


async def test_a_list_that_comes_too_late_is_not_taken_for_live_events() -> None:
    heard = Heard()
    async with FakePbx() as pbx, connected(pbx, heard) as ami:
        pbx.faults.unanswered = {"CoreShowChannels"}
        with pytest.raises(OutcomeUnknown):
            await ami.list("CoreShowChannels", timeout_s=0.01)
        pbx.event("CoreShowChannel", ActionID=f"{LIST_ID}99", Uniqueid="pbx1-1.1")
        pbx.event("Newchannel", Uniqueid="pbx1-1.2")
        await heard.until(lambda: bool(heard.named("Newchannel")))
        assert heard.named("CoreShowChannel") == []


async def test_plain_panoramisk_handles_events_out_of_order() -> None:
    handled: list[str] = []
    async with FakePbx() as pbx, plain(pbx) as manager:

        async def handle(_: Manager, event: Any) -> None:
            await asyncio.sleep(0.02 if event.exten == "1" else 0)
            handled.append(event.exten)

        manager.register_event("Newchannel", handle)
        for number in "12":
            pbx.event("Newchannel", Exten=number, Linkedid="pbx1-1.1")
        async with asyncio.timeout(WITHIN_S):
            while len(handled) < 2:
                await asyncio.sleep(0.001)
    assert handled == ["2", "1"]


async def test_events_of_one_call_are_handled_in_order() -> None:
    handled: list[str] = []
    heard = Heard()
    work = OrderedByKey("test", on_gap=lambda: None)

    async def handle(event: AmiEvent) -> None:
        await asyncio.sleep(0.02 if event["Exten"] == "1" else 0)
        handled.append(event["Exten"])

    async with FakePbx() as pbx, work.running(), connected(pbx, heard):
        for number in "12":
            pbx.event("Newchannel", Exten=number, Linkedid="pbx1-1.1")
        await heard.until(lambda: len(heard.named("Newchannel")) == 2)
        for event in heard.named("Newchannel"):
            assert work.submit(event["Linkedid"], functools.partial(handle, event))
    assert handled == ["1", "2"]


async def test_nothing_is_left_running() -> None:
    heard = Heard()
    async with FakePbx() as pbx:
        before = len(asyncio.all_tasks())
        async with connected(pbx, heard) as ami:
            await ami.action("Ping")
        assert (heard.connected, heard.lost) == (1, 1)
        await pbx.until(lambda: len(asyncio.all_tasks()) == before)
        assert not ami.connected


# Connecting, and connecting again


async def test_the_pbx_is_asked_before_live_events_pass_and_their_order_is_kept() -> None:
    order: list[str] = []
    heard = Heard()
    asked = asyncio.Event()
    answered = asyncio.Event()

    async def resync(ami: Ami) -> None:
        assert ami.connected
        assert ami.health().state is HealthState.DEGRADED
        await ami.action("CoreStatus")
        asked.set()
        await answered.wait()
        order.append("resynchronised")

    heard.resync = resync
    async with FakePbx() as pbx, client(pbx, heard):
        await asked.wait()
        for number in range(1000):
            pbx.event("Newchannel", Exten=str(number))
        await turns()
        assert heard.named("Newchannel") == []
        answered.set()
        pbx.event("Newchannel", Exten="1000")
        await heard.until(lambda: len(heard.named("Newchannel")) == 1001)
    assert order == ["resynchronised"]
    assert [event["Exten"] for event in heard.named("Newchannel")] == [*map(str, range(1001))]


async def test_a_resynchronisation_can_be_asked_for() -> None:
    heard = Heard()
    async with FakePbx() as pbx, connected(pbx, heard) as ami:
        ami.resynchronise()
        await heard.until(lambda: heard.connected == 2)
        await healthy(ami)
        assert (pbx.logins, heard.lost) == (1, 0)


async def test_a_pbx_that_is_still_starting_is_asked_again_when_it_is_ready() -> None:
    heard = Heard()
    async with FakePbx() as pbx:
        pbx.faults.boots_silently = True
        async with connected(pbx, heard, boot_timeout_s=0.01):
            pbx.event("FullyBooted", Status="Fully Booted")
            await heard.until(lambda: heard.connected == 2)
            assert heard.lost == 0


async def test_the_connection_comes_back_after_the_pbx_was_away() -> None:
    heard = Heard()
    async with FakePbx() as pbx, connected(pbx, heard) as ami:
        assert ami.connected
        pbx.stop()
        await heard.until(lambda: heard.lost == 1)
        assert not ami.connected
        async with asyncio.timeout(WITHIN_S):
            while "Connection refused" not in ami.last_error:
                await asyncio.sleep(0.001)
        assert ami.health().state is HealthState.DOWN
        assert "manager.conf" in ami.health().detail
        await pbx.start()
        await heard.until(lambda: heard.connected == 2)
        await healthy(ami)
        assert "22.10.1" in ami.version


async def test_a_pbx_that_shuts_down_is_believed_at_once() -> None:
    heard = Heard()
    async with FakePbx() as pbx, connected(pbx, heard, wanted={"Newchannel"}):
        pbx.event("Shutdown", Shutdown="Cleanly", Restart="False")
        await heard.until(lambda: heard.lost == 1)


async def test_what_a_pbx_that_shuts_down_refuses_is_tried_again_later() -> None:
    """It says so to every action until its last event, which can be seconds later."""
    heard = Heard()
    async with FakePbx() as pbx, connected(pbx, heard) as ami:
        pbx.faults.shuts_down = True
        for refused in (
            ami.list("CoreShowChannels"),
            ami.action("Hangup", Channel="1"),
            ami.originate(**originate_arguments()),
        ):
            with pytest.raises(TemporaryFailure, match="shutting down") as caught:
                await refused
            assert not isinstance(caught.value, OutcomeUnknown)
        assert pbx.dialled == []


async def test_waiting_actions_end_when_the_link_breaks() -> None:
    heard = Heard()
    async with FakePbx() as pbx, connected(pbx, heard) as ami:
        pbx.faults.unanswered = {"CoreStatus"}
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(_outcome(ami.action("CoreStatus", timeout_s=60)))
            await pbx.until(lambda: bool(pbx.actions("CoreStatus")))
            pbx.cut()
        assert waiting.result() is OutcomeUnknown


async def _outcome(action: Any) -> type[Exception] | None:
    try:
        await action
    except TemporaryFailure as failure:
        return type(failure)
    return None


def test_pauses_double_up_to_their_limit_and_differ_by_chance() -> None:
    ami = Ami(
        settings(5038, reconnect_min_s=0.2, reconnect_max_s=10),
        on_event=Heard().on_event,
        on_connected=Heard().on_connected,
    )
    for failures, longest in enumerate([0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10]):
        pauses = [ami._pause(failures) for _ in range(50)]
        assert longest / 2 <= min(pauses) < max(pauses) <= longest
    assert ami._pause(100_000) <= 10


async def test_a_wrong_password_is_a_state_with_a_remedy_and_is_tried_again() -> None:
    heard = Heard()
    async with FakePbx() as pbx:
        with structlog.testing.capture_logs() as logged:
            async with client(pbx, heard, secret="not-the-password") as ami:
                await pbx.until(lambda: len(pbx.actions("Login")) >= 3)
                health = ami.health()
        assert health.state is HealthState.DOWN
        assert "refuses the user contactd (Authentication failed)" in health.detail
        assert "manager.conf" in health.detail
        assert heard.connected == 0
    assert [entry["event"] for entry in logged] == ["ami.lost"], "one line, not one a try"
    assert "not-the-password" not in repr(logged) + repr(ami._settings)


async def test_a_password_that_is_two_lines_is_not_sent_and_not_told() -> None:
    heard = Heard()
    async with FakePbx() as pbx, client(pbx, heard, secret="se\r\nAction: x") as ami:
        async with asyncio.timeout(WITHIN_S):
            while "control character" not in ami.last_error:
                await asyncio.sleep(0.001)
        assert "Action: x" not in ami.last_error
        assert pbx.actions("Login") == []


async def test_a_resynchronisation_that_fails_is_tried_again() -> None:
    heard = Heard()

    async def fail_once(_: Ami) -> None:
        if heard.connected == 1:
            raise TemporaryFailure("the database is away")

    heard.resync = fail_once
    async with FakePbx() as pbx, client(pbx, heard):
        await heard.until(lambda: heard.connected == 2)
        assert heard.lost == 1


async def test_a_resynchronisation_that_hangs_ends() -> None:
    heard = Heard()

    async def hang(_: Ami) -> None:
        await asyncio.Event().wait()

    heard.resync = hang
    async with FakePbx() as pbx, client(pbx, heard, resync_timeout_s=0.02) as ami:
        await heard.until(lambda: heard.lost == 1)
        assert "resynchronisation" in ami.last_error


# What the PBX says


async def test_lists_are_returned_whole_and_a_refusal_is_told() -> None:
    heard = Heard()
    async with FakePbx() as pbx, connected(pbx, heard) as ami:
        assert await ami.list("CoreShowChannels") == []
        pbx.channels = ["pbx1-1.1", "pbx1-1.2"]
        channels = await ami.list("CoreShowChannels")
        assert [channel["Uniqueid"] for channel in channels] == pbx.channels
        assert channels[0]["ChannelStateDesc"] == "Up"
        with pytest.raises(PermanentFailure, match="Permission denied"):
            await ami.list("Nonsense")
    assert heard.named("CoreShowChannel") == []


async def test_queue_actions_are_answered_at_once_though_panoramisk_expects_a_list() -> None:
    heard = Heard()
    async with FakePbx() as pbx, connected(pbx, heard) as ami:
        reply = await ami.action("QueueAdd", Queue="gz", Interface="Local/1@engineer-zh/n")
        assert (reply.success, reply.message) == (True, "Added interface to queue")
        assert set(reply.headers) == {"Response", "ActionID", "Message"}
        assert not (await ami.action("Nonsense")).success


async def test_only_wanted_events_are_passed_on() -> None:
    heard = Heard()
    async with FakePbx() as pbx, connected(pbx, heard, wanted={"Hangup"}):
        pbx.event("VarSet", Variable="A")
        pbx.event("Hangup", Cause="16")
        await heard.until(lambda: bool(heard.named("Hangup")))
    assert [event["Event"] for event in heard.events if event["Event"] != "FullyBooted"] == [
        "Hangup"
    ]


async def test_an_event_whose_handler_fails_costs_itself_only() -> None:
    handled: list[str] = []
    ready = asyncio.Event()

    def on_event(event: AmiEvent) -> None:
        if event["Event"] == "Newchannel":
            handled.append(event["Exten"])
            if event["Exten"] == "1":
                raise KeyError("Linkedid")
            ready.set()

    async with FakePbx() as pbx:
        ami = Ami(settings(pbx.port), on_event=on_event, on_connected=Heard().on_connected)
        async with ami.running():
            await pbx.logged_in()
            pbx.event("Newchannel", Exten="1")
            pbx.event("Newchannel", Exten="2")
            await ready.wait()
            assert pbx.logins == 1
    assert handled == ["1", "2"]


async def test_an_end_mark_hidden_in_a_value_costs_that_event_only() -> None:
    heard = Heard()
    async with FakePbx() as pbx, connected(pbx, heard):
        pbx.write(b"Event: UserEvent\r\nText: a\r\n\r\nb: c\r\n\r\n" + NAME_EVENT)
        await heard.until(lambda: bool(heard.named("Newchannel")))
        assert heard.lost == 0


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"x" * (MESSAGE_LIMIT + 1), "without ending a message"),
        (b"Event: A\r\n" + b"B: c\r\n" * MESSAGE_LIMIT + b"\r\n", "a message of 393224 bytes"),
    ],
    ids=["a line without end", "an event in one piece"],
)
async def test_what_is_larger_than_any_event_costs_the_connection(raw: bytes, told: str) -> None:
    heard = Heard()
    async with FakePbx() as pbx, connected(pbx, heard) as ami:
        assert ami._link is not None
        ami._link.data_received(raw)  # as it may come in one read
        await heard.until(lambda: heard.lost == 1)
        assert told in ami.last_error
        await heard.until(lambda: heard.connected == 2)


async def test_a_port_that_is_not_a_manager_interface_is_told() -> None:
    heard = Heard()
    async with FakePbx() as pbx:
        pbx.faults.banner = b"SSH-2.0-OpenSSH_9.2\r\n"
        async with client(pbx, heard) as ami:
            async with asyncio.timeout(WITHIN_S):
                while "SSH-2.0" not in ami.last_error:
                    await asyncio.sleep(0.001)


def test_repeated_headers_are_kept() -> None:
    raw = b"Event: A\r\nChanVariable: x=1\r\nChanVariable: y=2\r\nEmpty: \r\nBare:"
    assert parse(raw) == {"Event": "A", "ChanVariable": "x=1\ny=2", "Empty": "", "Bare": ""}
