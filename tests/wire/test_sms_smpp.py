"""The SMPP gateway against two real SMSCs (npm's smpp, PyPI's smpp34) and against one with faults.

That the one with faults is an SMSC is shown by another client, smpplib.
"""

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import smpp34
import smpplib.client

from contactd.errors import ConfigurationError, PermanentFailure, TemporaryFailure
from contactd.lab.ports import free_port
from contactd.routing.notify import Busy, SendUnknown, Trace
from contactd.service import HealthState
from contactd.sms import smpp, smpp_link
from contactd.sms.gateway import Delivery, Incoming, Part, Report, Unroutable, joined
from contactd.sms.smpp import SmppGateway
from contactd.sms.smpp_link import Link
from contactd.sms.smpp_pdu import LONGEST, Command, Pdu, ShortMessage, Status, Tag
from contactd.sms.smpp_repeats import DOUBT, LATE
from tests.fakes import npm_smsc as npm
from tests.fakes.clock import FakeClock
from tests.fakes.npm_smsc import NpmSmsc, npm_smsc
from tests.fakes.smart_host import make_certificate
from tests.fakes.sms import FakeInbox, Fault, handed, outgoing
from tests.fakes.sms_smpp import (
    OURS,
    PASSWORD,
    SYSTEM_ID,
    SmppProvider,
    Smsc,
    deliveries,
    delivery_report,
    fake_smsc,
    settings,
    smpp_provider,
)
from tests.fakes.waiting import WITHIN_S, until

WANG = "+8613800000001"
# 135 UTF-16 units: three parts; the cuts at 67 and 134 are inside of emoji if one is not careful.
THREE_PARTS = "打" * 66 + "😀" + "印" * 65 + "🖨️"[:1] + "机坏了"
SEPTETS = "[printer] {down} ~ 5€ " * 12  # extension characters everywhere


@asynccontextmanager
async def bound(
    port: int, inbox: FakeInbox, clock: FakeClock | None = None, **changes: Any
) -> AsyncIterator[SmppGateway]:
    gateway = SmppGateway(settings(port, **changes), inbox, clock or FakeClock())
    async with gateway.running():
        await until(lambda: is_up(gateway))
        yield gateway


def is_up(gateway: SmppGateway) -> bool:
    return gateway.health()[0].state is HealthState.UP


@pytest.fixture
async def real() -> AsyncIterator[NpmSmsc]:
    async with npm_smsc() as smsc:
        yield smsc


@pytest.fixture
async def fake() -> AsyncIterator[Smsc]:
    async with fake_smsc() as smsc:
        yield smsc


@pytest.fixture
def inbox() -> FakeInbox:
    return FakeInbox()


# npm's smpp ------------------------------------------------------------------------------------


async def test_a_text_of_three_parts_is_read_by_another_smsc(
    real: NpmSmsc, inbox: FakeInbox
) -> None:
    async with bound(real.port, inbox, password=npm.PASSWORD) as gateway:
        message_id = await gateway.submit(outgoing(THREE_PARTS))
        parts = await real.heard("submit", 3)
    assert "".join(part["message"] for part in parts) == THREE_PARTS
    assert all(
        (part["destination"], part["ton"], part["coding"]) == ("8613800000001", 1, 8)
        for part in parts
    )
    headers = [bytes.fromhex(part["udh"][0]) for part in parts]
    assert [header[-2:] for header in headers] == [b"\3\1", b"\3\2", b"\3\3"]
    assert len({header[:-2] for header in headers}) == 1
    assert [part["wants"] for part in parts] == [0, 0, 1]  # one text, one receipt
    assert message_id == "1f2"  # of the last part
    await real.heard("unbound")


@pytest.mark.parametrize("text", ["Ticket 26112000017", "5€ for {printer}~", SEPTETS])
async def test_latin_words_go_out_in_septets_and_are_read_by_another_smsc(
    real: NpmSmsc, inbox: FakeInbox, text: str
) -> None:
    async with bound(real.port, inbox, password=npm.PASSWORD) as gateway:
        await gateway.submit(outgoing(text))
        parts = await real.heard("submit")
    assert "".join(part["message"] for part in parts) == text
    assert {part["coding"] for part in parts} == {0}


async def test_parts_that_come_out_of_order_and_twice_make_the_text(
    real: NpmSmsc, inbox: FakeInbox
) -> None:
    parts = cut_anywhere(THREE_PARTS)
    async with bound(real.port, inbox, password=npm.PASSWORD):
        for number in (3, 1, 3, 2):
            pdu = {
                "source_addr": WANG[1:], "source_addr_ton": 1, "destination_addr": OURS,
                "esm_class": 0x40, "data_coding": 8,
                "short_message": (bytes([5, 0, 3, 9, 3, number]) + parts[number - 1]).hex(),
            }  # fmt: skip
            assert await real.deliver(**pdu) == 0
    assert [part.number for part in inbox.parts] == [3, 1, 3, 2]
    assert put_together(inbox.parts) == {(WANG, OURS): THREE_PARTS}


async def test_a_receipt_may_come_before_the_answer(real: NpmSmsc, inbox: FakeInbox) -> None:
    async with bound(real.port, inbox, password=npm.PASSWORD) as gateway:
        await real.tell(do="answer", how="receipt-first")
        message_id = await gateway.submit(outgoing())
    assert inbox.reports == [Report(delivery=Delivery.DELIVERED, message_id=message_id)]


@pytest.mark.parametrize(
    ("how", "failure"),
    [("throttled", Busy), ("refused", PermanentFailure), ("silent", SendUnknown)],
)
async def test_what_a_real_smsc_makes_of_a_text_is_told(
    real: NpmSmsc, inbox: FakeInbox, how: str, failure: type[Exception]
) -> None:
    async with bound(real.port, inbox, password=npm.PASSWORD, timeout_s=0.5) as gateway:
        await real.tell(do="answer", how=how)
        with pytest.raises(failure) as raised:
            await gateway.submit(outgoing())
        assert raised.type is failure
        await real.tell(do="answer", how="taken")
        assert await gateway.submit(outgoing())  # the link lives


async def test_an_smsc_that_is_killed_in_a_submit_leaves_the_outcome_unknown_and_is_found_again(
    real: NpmSmsc, inbox: FakeInbox
) -> None:
    async with bound(real.port, inbox, password=npm.PASSWORD) as gateway:
        await real.tell(do="answer", how="dies")
        with pytest.raises(SendUnknown):
            await gateway.submit(outgoing())
        with pytest.raises(TemporaryFailure) as raised:
            await gateway.submit(outgoing(ref="n-2"))
        assert not isinstance(raised.value, SendUnknown)  # surely not gone out
        await real.kill()
        await real.start()
        await until(lambda: is_up(gateway))
        await gateway.submit(outgoing(ref="n-3"))
        assert len(await real.heard("submit", 2)) == 2  # n-2 was not kept to be sent one day


async def test_a_real_smsc_that_does_not_answer_enquire_link_is_left_for_a_new_link(
    real: NpmSmsc, inbox: FakeInbox
) -> None:
    async with bound(
        real.port, inbox, password=npm.PASSWORD, enquire_every_s=0.2, timeout_s=0.3
    ) as gateway:
        await real.tell(do="mute")
        await real.heard("bound", 2)
        await until(lambda: is_up(gateway))


async def test_what_was_not_acknowledged_comes_again_over_the_next_link(
    real: NpmSmsc, inbox: FakeInbox
) -> None:
    pdu = {"source_addr": WANG[1:], "source_addr_ton": 1, "destination_addr": OURS,
           "data_coding": 8, "short_message": "打印机".encode("utf-16-be").hex()}  # fmt: skip
    async with bound(real.port, inbox, password=npm.PASSWORD):
        inbox.failing = True
        assert await real.deliver(**pdu) == Status.APPLICATION_TEMPORARY
        await real.tell(do="cut")
        await real.heard("bound", 2)
        inbox.failing = False
        assert await real.deliver(**pdu) == 0
    assert inbox.heard() == [(WANG, "打印机")]


async def test_a_wrong_password_is_said_and_tried_again(real: NpmSmsc, inbox: FakeInbox) -> None:
    gateway = SmppGateway(settings(real.port, password="wrong"), inbox, FakeClock())
    async with gateway.running():
        await real.heard("closed", 2)
        (health,) = gateway.health()
    assert health.state is HealthState.DEGRADED
    assert "it refuses sms.smpp.system_id and its password" in health.detail


# PyPI's smpp34, a Rust core --------------------------------------------------------------------


async def test_the_gateway_and_smpp34_understand_each_other(inbox: FakeInbox) -> None:
    port = free_port()
    server = smpp34.Server(host="127.0.0.1", port=port, system_id="smpp34")
    await server.start()
    try:
        async with bound(port, inbox) as gateway, asyncio.TaskGroup() as tasks:
            esme = await server.next()
            assert isinstance(esme, smpp34.Esme)
            submitting = tasks.create_task(gateway.submit(outgoing(THREE_PARTS)))
            parts = []
            for number in range(3):
                event = await server.next()
                assert isinstance(event, smpp34.SubmitSmEvent)
                parts.append(event)
                event.accept(f"A{number}")
            assert await submitting == "a2"
            content = b"".join(part.short_message[6:] for part in parts)
            assert content.decode("utf-16-be") == THREE_PARTS
            assert {part.esm_class for part in parts} == {0x40}

            answers = [
                await esme.deliver_sm(
                    OURS, piece, source_addr=WANG[1:], source_addr_ton=1, dest_addr_ton=0,
                    data_coding=8,
                    tlvs=[
                        smpp34.Tlv(Tag.SAR_REFERENCE, b"\x12\x34"),
                        smpp34.Tlv(Tag.SAR_TOTAL, b"\3"),
                        smpp34.Tlv(Tag.SAR_NUMBER, bytes([number])),
                    ],
                )
                for number, piece in reversed([*enumerate(cut_anywhere(THREE_PARTS), 1)])
            ]  # fmt: skip
            assert all(answer.is_success for answer in answers)
            receipt = [
                smpp34.Tlv(Tag.RECEIPTED_MESSAGE_ID, b"A2\0"),
                smpp34.Tlv(Tag.MESSAGE_STATE, b"\5"),
            ]
            await esme.deliver_sm(OURS, b"", source_addr=WANG[1:], esm_class=4, tlvs=receipt)
    finally:
        await server.stop()
    assert put_together(inbox.parts) == {(WANG, OURS): THREE_PARTS}
    assert inbox.reports == [Report(delivery=Delivery.FAILED, message_id="a2")]


async def test_smpp34_may_refuse_for_now_and_for_good(inbox: FakeInbox) -> None:
    port = free_port()
    server = smpp34.Server(host="127.0.0.1", port=port)
    await server.start()
    try:
        async with bound(port, inbox) as gateway, asyncio.TaskGroup() as tasks:
            await server.next()
            for status, failure in ((Status.QUEUE_FULL, Busy),
                                    (Status.SYSTEM_ERROR, TemporaryFailure),
                                    (Status.INVALID_SOURCE, Unroutable)):  # fmt: skip
                submitting = tasks.create_task(outcome(gateway))
                event = await server.next()
                assert isinstance(event, smpp34.SubmitSmEvent)
                event.reject(status)
                assert type(await submitting) is failure
    finally:
        await server.stop()


# The SMSC with faults --------------------------------------------------------------------------


async def test_the_smsc_with_faults_is_one_to_another_client(fake: Smsc) -> None:
    def talk() -> tuple[list[bytes], list[bytes]]:
        client = smpplib.client.Client("127.0.0.1", fake.port, allow_unknown_opt_params=True)
        ids: list[bytes] = []
        came: list[bytes] = []
        client.set_message_sent_handler(lambda pdu: ids.append(pdu.message_id))
        client.set_message_received_handler(lambda pdu: came.append(pdu.short_message))
        client.connect()
        client.bind_transceiver(system_id=SYSTEM_ID, password=fake.password)
        client.send_message(
            source_addr=OURS, dest_addr_ton=1, dest_addr_npi=1, destination_addr=WANG[1:],
            short_message="你好".encode("utf-16-be"), data_coding=8,
        )  # fmt: skip
        client.read_once()
        asyncio.run_coroutine_threadsafe(bring(), loop).result(10)
        client.read_once()
        client.unbind()
        client.disconnect()
        return ids, came

    async def bring() -> None:
        fake.sessions[-1].waiting.clear()
        pieces.append(asyncio.ensure_future(fake.deliver(*deliveries(WANG, "hello"))))

    fake.password = "eight"  # smpplib's longest is 8
    loop = asyncio.get_running_loop()
    pieces: list[asyncio.Future[int | None]] = []
    ids, came = await asyncio.to_thread(talk)
    assert fake.texts() == [(WANG, "你好")]
    assert (ids, came) == ([b"000000A0"], [b"hello"])
    assert await pieces[0] == 0
    assert fake.unbinds == 1


@pytest.mark.parametrize(
    ("status", "failure"),
    [(0x58, Busy), (0x14, Busy), (0x0B, PermanentFailure), (0x66, PermanentFailure),
     (0x0A, Unroutable), (0x01, Unroutable), (0x08, TemporaryFailure), (0x45, TemporaryFailure),
     (0x64, TemporaryFailure), (0x4FF, TemporaryFailure)],
)  # fmt: skip
async def test_a_refusal_means_what_the_specification_says(
    fake: Smsc, inbox: FakeInbox, status: int, failure: type[Exception]
) -> None:
    fake.faults.append(status)
    async with bound(fake.port, inbox) as gateway:
        assert type(await outcome(gateway)) is failure
        assert await gateway.submit(outgoing(ref="n-2"))
    assert len(fake.taken) == 1


async def test_who_says_that_we_are_not_bound_is_bound_to_again(
    fake: Smsc, inbox: FakeInbox
) -> None:
    fake.faults.append(Status.WRONG_BIND_STATE)
    async with bound(fake.port, inbox) as gateway:
        assert type(await outcome(gateway)) is TemporaryFailure
        await until(lambda: len(fake.binds) == 2 and is_up(gateway))


@pytest.mark.parametrize("number", ["", "wang", "+86 138", "+8613800000001\0", "1" * 16])
async def test_what_is_no_number_is_refused_without_asking_anybody(
    fake: Smsc, inbox: FakeInbox, number: str
) -> None:
    async with bound(fake.port, inbox) as gateway:
        with pytest.raises(PermanentFailure):
            await gateway.submit(outgoing(number=number))
    assert fake.taken == []


async def test_a_text_is_never_queued_while_there_is_no_link(inbox: FakeInbox) -> None:
    gateway = SmppGateway(settings(free_port()), inbox, FakeClock())
    async with gateway.running():
        assert type(await outcome(gateway)) is TemporaryFailure
    assert type(await outcome(gateway)) is TemporaryFailure
    assert gateway.health()[0].state is HealthState.DEGRADED


async def test_a_full_window_is_said_and_nothing_waits(fake: Smsc, inbox: FakeInbox) -> None:
    fake.faults += ["late", "late"]
    async with bound(fake.port, inbox, window=2) as gateway, asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(gateway.submit(outgoing(ref=f"n-{n}"))) for n in range(2)]
        await until(lambda: len(fake.late) == 2)
        assert type(await outcome(gateway)) is Busy
        fake.answer_late()
        assert await asyncio.gather(*waiting) == ["a0", "a1"]
        assert await gateway.submit(outgoing())


async def test_an_answer_that_comes_too_late_is_found(fake: Smsc, inbox: FakeInbox) -> None:
    fake.faults.append("late")
    async with bound(fake.port, inbox, timeout_s=0.3) as gateway:
        text = outgoing()
        with pytest.raises(SendUnknown):
            await gateway.submit(text)
        asked = handed(text, "smpp", FakeClock().now())
        assert (await gateway.find(asked)).trace is Trace.UNKNOWN
        assert "1 texts were not answered" in gateway.health()[0].detail
        fake.answer_late()
        await until(lambda: is_up(gateway))
        found = await gateway.find(asked)
        assert (found.trace, found.message_id) == (Trace.SENT, "a0")
        unknown = handed(outgoing(ref="n-2"), "smpp", FakeClock().now())
        assert (await gateway.find(unknown)).trace is Trace.UNKNOWN


@pytest.mark.parametrize(("words", "status"), [(THREE_PARTS, 0), ("hello", Status.THROTTLED)])
async def test_a_late_answer_that_does_not_say_all_is_none(
    fake: Smsc, inbox: FakeInbox, words: str, status: int
) -> None:
    fake.faults.append("late")
    async with bound(fake.port, inbox, timeout_s=0.3) as gateway:
        text = outgoing(words)
        with pytest.raises(SendUnknown):
            await gateway.submit(text)
        fake.answer_late(status)
        await until(lambda: is_up(gateway))
        asked = handed(text, "smpp", FakeClock().now())
        assert (await gateway.find(asked)).trace is Trace.UNKNOWN


async def test_a_later_part_without_room_is_offered_again_and_sent_once(
    fake: Smsc, inbox: FakeInbox
) -> None:
    async with bound(fake.port, inbox) as gateway, asyncio.TaskGroup() as tasks:
        fake.faults += ["late", Fault.BUSY]
        submitting = tasks.create_task(gateway.submit(outgoing(THREE_PARTS)))
        await until(lambda: bool(fake.late))
        fake.answer_late()
        assert await submitting == "a2"
    assert fake.texts() == [(WANG, THREE_PARTS)]
    assert len(fake.taken) == 3


async def test_a_text_half_out_is_unknown_unless_it_is_refused_for_good(
    fake: Smsc, inbox: FakeInbox
) -> None:
    async with bound(fake.port, inbox) as gateway:
        for fault, failure in (
            (Fault.DOWN, SendUnknown),
            (Fault.REFUSED, PermanentFailure),
            ("dies", SendUnknown),
        ):
            fake.faults += ["late", fault]
            async with asyncio.TaskGroup() as tasks:
                submitting = tasks.create_task(outcome(gateway, THREE_PARTS))
                await until(lambda: bool(fake.late))
                fake.answer_late()
                assert type(await submitting) is failure


async def test_an_empty_id_is_no_id(fake: Smsc, inbox: FakeInbox) -> None:
    fake.ids = [""]
    async with bound(fake.port, inbox) as gateway:
        fake.faults.append("late")
        async with asyncio.TaskGroup() as tasks:
            submitting = tasks.create_task(gateway.submit(outgoing()))
            await until(lambda: bool(fake.late))
            fake.late[0] = (*fake.late[0][:2], "")
            fake.answer_late()
            assert await submitting == ""


async def test_receipts_in_decimal_find_ids_in_hexadecimal(fake: Smsc, inbox: FakeInbox) -> None:
    async with bound(fake.port, inbox, receipt_ids="decimal") as gateway:
        message_id = await gateway.submit(outgoing())
        assert fake.ids == ["000000A0"]
        assert await fake.deliver(delivery_report("0000000160")) == 0
    assert inbox.reports == [Report(delivery=Delivery.DELIVERED, message_id=message_id)]


async def test_a_receipt_that_says_nothing_is_not_asked_for_again(
    fake: Smsc, inbox: FakeInbox
) -> None:
    async with bound(fake.port, inbox):
        message = delivery_report("1", stat="WHATEVER")
        assert await fake.deliver(message) == 0
    assert (inbox.reports, inbox.texts) == ([], [])


# The same text once more -----------------------------------------------------------------------


async def test_two_equal_texts_over_one_link_are_two(fake: Smsc, inbox: FakeInbox) -> None:
    (good,) = deliveries(WANG, "好")
    async with bound(fake.port, inbox):
        assert await fake.deliver(good) == 0
        assert await fake.deliver(good) == 0
    assert len({text.id for text in inbox.texts}) == 2


async def test_a_text_whose_acknowledgement_may_be_lost_is_the_same_over_the_next_link(
    fake: Smsc, inbox: FakeInbox
) -> None:
    (good,) = deliveries(WANG, "好")
    async with bound(fake.port, inbox) as gateway:
        assert await fake.deliver(good) == 0  # the SMSC got it, but nobody here knows
        await relinked(fake, gateway)
        assert await fake.deliver(good) == 0
        assert await fake.deliver(good) == 0  # one repetition; this is another text
    first, again, another = (text.id for text in inbox.texts)
    assert first == again != another


async def test_a_text_whose_acknowledgement_was_read_is_another_one_over_the_next_link(
    fake: Smsc, inbox: FakeInbox
) -> None:
    (good,) = deliveries(WANG, "好")
    async with bound(fake.port, inbox) as gateway:
        assert await fake.deliver(good) == 0
        await gateway.submit(outgoing())  # it answers this, so it has read what was before it
        await relinked(fake, gateway)
        assert await fake.deliver(good) == 0
    assert len({text.id for text in inbox.texts}) == 2


async def test_after_a_quarter_of_an_hour_an_equal_text_is_another_one(
    fake: Smsc, inbox: FakeInbox, clock: FakeClock
) -> None:
    (good,) = deliveries(WANG, "好")
    async with bound(fake.port, inbox, clock) as gateway:
        await fake.deliver(good)
        await relinked(fake, gateway)
        clock.advance(DOUBT + timedelta(seconds=1))
        await fake.deliver(good)
    assert len({text.id for text in inbox.texts}) == 2


async def test_what_was_refused_for_now_keeps_its_id(fake: Smsc) -> None:
    class Forgetful(FakeInbox):
        async def received(self, gateway: str, text: Incoming) -> None:
            self.texts.append(text)  # stored, but the database's answer was lost
            self._check()

    inbox = Forgetful(failing=True)
    (good,) = deliveries(WANG, "好")
    async with bound(fake.port, inbox):
        assert await fake.deliver(good) == Status.APPLICATION_TEMPORARY
        inbox.failing = False
        assert await fake.deliver(good) == 0
    assert len(inbox.texts) == 2
    assert len({text.id for text in inbox.texts}) == 1


async def test_a_text_that_was_long_in_hand_may_be_repeated_over_the_same_link(
    fake: Smsc, clock: FakeClock
) -> None:
    inbox = Slow()
    (good,) = deliveries(WANG, "好")
    async with bound(fake.port, inbox, clock), asyncio.TaskGroup() as tasks:
        tasks.create_task(fake.deliver(good))
        await until(lambda: len(inbox.texts) == 1)
        tasks.create_task(fake.deliver(good))  # at once: somebody sent it twice
        await until(lambda: len(inbox.texts) == 2)
        clock.advance(LATE + timedelta(seconds=1))
        tasks.create_task(fake.deliver(good))  # the SMSC's patience has ended
        await until(lambda: len(inbox.texts) == 3)
        inbox.goes_on.set()
    first, second, again = (text.id for text in inbox.texts)
    assert first != second
    assert again == first


async def test_a_restart_takes_no_text_for_another_one(fake: Smsc, inbox: FakeInbox) -> None:
    (good,) = deliveries(WANG, "好")
    clock = FakeClock()
    for _ in range(2):
        async with bound(fake.port, inbox, clock):
            await fake.deliver(good)
        clock.advance(timedelta(seconds=1))
    assert len({text.id for text in inbox.texts}) == 2


# The link --------------------------------------------------------------------------------------


async def test_no_more_than_so_many_texts_are_in_work_and_none_is_lost(fake: Smsc) -> None:
    inbox = Slow()
    texts = [deliveries(WANG, f"text {number}")[0] for number in range(smpp.AT_ONCE + 20)]
    async with bound(fake.port, inbox) as gateway, asyncio.TaskGroup() as tasks:
        bringing = [tasks.create_task(fake.deliver(text)) for text in texts]
        await until(lambda: len(inbox.texts) == smpp.AT_ONCE)
        fake.sessions[-1].write(0x15, 9999)  # an enquire_link behind them is not read
        assert not any(each.done() for each in bringing)
        inbox.goes_on.set()
        assert {await each for each in bringing} == {0}
        assert is_up(gateway)
    assert len(inbox.texts) == len(texts)


async def test_a_gateway_that_is_held_up_by_its_own_store_keeps_its_link(fake: Smsc) -> None:
    inbox = Slow()
    texts = [deliveries(WANG, f"text {number}")[0] for number in range(smpp.AT_ONCE + 1)]
    async with bound(fake.port, inbox, enquire_every_s=0.1, timeout_s=0.1):
        async with asyncio.TaskGroup() as tasks:
            for text in texts:
                tasks.create_task(fake.deliver(text))
            await until(lambda: fake.enquiries > 3)  # they wait for an answer that is not read
            inbox.goes_on.set()
        assert len(fake.binds) == 1


async def test_texts_in_hand_are_stored_and_acknowledged_before_the_gateway_leaves(
    fake: Smsc,
) -> None:
    inbox = Slow()
    (good,) = deliveries(WANG, "好")
    async with asyncio.TaskGroup() as tasks:
        async with bound(fake.port, inbox):
            bringing = tasks.create_task(fake.deliver(good))
            await until(lambda: len(inbox.texts) == 1)
            tasks.create_task(let_go(inbox))
        assert await bringing == 0
    assert fake.unbinds == 1


@pytest.mark.parametrize(
    "said",
    [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0\0\0\x0f" * 4, struct.pack(">I", LONGEST + 1), b"\0"],
)
async def test_who_speaks_no_smpp_is_left_and_tried_again(
    fake: Smsc, inbox: FakeInbox, said: bytes
) -> None:
    fake.says_on_bind = said
    gateway = SmppGateway(settings(fake.port, timeout_s=0.3), inbox, FakeClock())
    async with gateway.running():
        await until(lambda: len(fake.binds) == 2)
        assert not is_up(gateway)
        fake.says_on_bind = b""
        await until(lambda: is_up(gateway))


async def test_nothing_is_written_over_a_link_that_is_lost(fake: Smsc) -> None:
    async def deliver(link: Link, request: Pdu, message: ShortMessage) -> None:
        """Take it."""

    reader, writer = await asyncio.open_connection("127.0.0.1", fake.port)
    link = Link(reader, writer, deliver=deliver)
    waiting = link.request(Command.ENQUIRE_LINK)
    link.lose("cut by a test")
    link.lose("and once more")
    assert await waiting is None
    with pytest.raises(TemporaryFailure, match="cut by a test"):
        await link.request(Command.ENQUIRE_LINK)


async def test_a_damaged_pdu_costs_itself_and_not_the_link(fake: Smsc, inbox: FakeInbox) -> None:
    async with bound(fake.port, inbox):
        damaged = struct.pack(">IIII", 20, 0x05, 0, 77) + b"abcd"
        unknown = struct.pack(">IIII", 16, 0x0102, 0, 78)
        session = fake.sessions[-1]
        for content, sequence in ((damaged, 77), (unknown, 78)):
            session.waiting[sequence] = asyncio.get_running_loop().create_future()
            session.writer.write(content)
            async with asyncio.timeout(WITHIN_S):
                answer = await session.waiting[sequence]
            assert answer is not None
            assert answer.command == 0x8000_0000
            assert answer.status in (Status.INVALID_COMMAND_LENGTH, Status.INVALID_COMMAND)
        assert await fake.deliver(*deliveries(WANG, "好")) == 0
    assert len(fake.binds) == 1


async def test_a_damaged_answer_leaves_the_outcome_unknown(fake: Smsc, inbox: FakeInbox) -> None:
    fake.faults.append("late")
    async with bound(fake.port, inbox) as gateway, asyncio.TaskGroup() as tasks:
        submitting = tasks.create_task(outcome(gateway))
        await until(lambda: bool(fake.late))
        session, pdu, _ = fake.late.pop()
        session.writer.write(struct.pack(">IIII", 17, 0x80000004, 0, pdu.sequence) + b"x")
        assert type(await submitting) is SendUnknown
        assert is_up(gateway)


async def test_an_smsc_that_asks_is_answered_and_one_that_leaves_is_come_back_to(
    fake: Smsc, inbox: FakeInbox
) -> None:
    async with bound(fake.port, inbox) as gateway:
        for command, sequence in ((Command.ENQUIRE_LINK, 77), (Command.UNBIND, 78)):
            session = fake.sessions[-1]
            session.waiting[sequence] = asyncio.get_running_loop().create_future()
            session.write(command, sequence)
            async with asyncio.timeout(WITHIN_S):
                answer = await session.waiting[sequence]
            assert answer is not None
            assert (answer.command, answer.status) == (command | 0x8000_0000, 0)
        await until(lambda: len(fake.binds) == 2 and is_up(gateway))


async def test_what_comes_while_the_gateway_leaves_is_left_with_the_smsc(fake: Smsc) -> None:
    inbox = Slow()
    first, second = deliveries(WANG, "1")[0], deliveries(WANG, "2")[0]
    async with asyncio.TaskGroup() as tasks:
        async with bound(fake.port, inbox) as gateway:
            bringing = tasks.create_task(fake.deliver(first))
            await until(lambda: len(inbox.texts) == 1)
            tasks.create_task(come_and_go(fake, gateway, second, inbox))
        assert await bringing == 0
    assert [text.text for text in inbox.texts] == ["1"]


async def test_an_unexpected_failure_costs_one_text_its_acknowledgement(fake: Smsc) -> None:
    class Broken(FakeInbox):
        async def received(self, gateway: str, text: Incoming) -> None:
            raise KeyError("a bug")

    async with bound(fake.port, Broken()) as gateway:
        assert await fake.deliver(*deliveries(WANG, "好")) == Status.APPLICATION_TEMPORARY
        assert is_up(gateway)


async def test_an_smsc_that_answers_nothing_at_all_is_given_up(
    fake: Smsc, inbox: FakeInbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smpp_link, "MOST_OWED", 3)
    fake.faults += [Fault.LOST] * 4
    async with bound(fake.port, inbox, timeout_s=0.1) as gateway:
        for _ in range(4):
            assert type(await outcome(gateway)) is SendUnknown
        await until(lambda: len(fake.binds) == 2 and is_up(gateway))


async def test_a_link_over_tls_checks_the_certificate(inbox: FakeInbox, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    async with fake_smsc(ssl=context) as smsc:
        changes: dict[str, Any] = {"tls": True}
        stranger = SmppGateway(settings(smsc.port, **changes), inbox, FakeClock())
        async with stranger.running():
            await until(lambda: "its certificate is not trusted" in stranger.health()[0].detail)
        async with bound(smsc.port, inbox, ca_file=certificate, **changes) as gateway:
            assert await gateway.submit(outgoing())
    missing = settings(1, tls=True, ca_file=tmp_path / "missing")
    with pytest.raises(ConfigurationError):
        SmppGateway(missing, inbox, FakeClock())


async def test_a_peer_without_tls_is_told_apart(inbox: FakeInbox) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(struct.pack(">IIII", 16, Command.ENQUIRE_LINK, 0, 1))
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port := free_port())
    async with server:
        gateway = SmppGateway(settings(port, tls=True, timeout_s=2), inbox, FakeClock())
        async with gateway.running():
            await until(lambda: "it speaks no TLS" in gateway.health()[0].detail)
            assert type(await outcome(gateway)) is TemporaryFailure


async def test_neither_words_nor_numbers_nor_the_password_are_logged(
    fake: Smsc, inbox: FakeInbox, capsys: pytest.CaptureFixture[str]
) -> None:
    async with bound(fake.port, inbox) as gateway:
        await gateway.submit(outgoing("secret words"))
        inbox.failing = True
        await fake.deliver(*deliveries(WANG, "secret words"))
        fake.faults.append(Fault.REFUSED)
        failure = await outcome(gateway)
    said = capsys.readouterr()
    for hidden in ("secret words", "13800000001", PASSWORD):
        assert hidden not in said.out + said.err + str(failure)
        assert hidden not in repr(deliveries(WANG, "secret words")) + repr(fake.binds)


# The provider of the shared suite --------------------------------------------------------------


async def test_the_provider_brings_the_same_text_as_the_same(inbox: FakeInbox) -> None:
    async with smpp_provider() as provider:
        assert isinstance(provider, SmppProvider)
        assert await provider.bring(WANG, "好", "one")
        assert await provider.bring(WANG, "好", "one")
        assert await provider.bring(WANG, "好", "two")
        assert await provider.bring(WANG, THREE_PARTS)
        ids = [text.id for text in provider.inbox.texts]
        assert ids[0] == ids[1] != ids[2]
        assert put_together(provider.inbox.parts) == {(WANG, OURS): THREE_PARTS}


async def test_who_refuses_us_every_time_is_asked_less_and_less_often(
    fake: Smsc,
    inbox: FakeInbox,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(smpp, "FIRST_PAUSE_S", 0.05)
    gateway = SmppGateway(settings(fake.port, password="wrong"), inbox, FakeClock())
    async with gateway.running():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await asyncio.Event().wait()
    assert 1 <= len(fake.binds) <= 7  # after 0, 50, 150, 350, 750 ms, or up to half of that
    logged = capsys.readouterr().out  # that it hung up after its refusal is no news
    assert "refuses" in logged
    assert "closed" not in logged


@pytest.mark.parametrize(
    ("changes", "fault"),
    [({"host": "no..host"}, "label"), ({"system_id": "桌面"}, "not Latin-1")],
)
async def test_a_wrong_setting_is_said(
    fake: Smsc, inbox: FakeInbox, changes: dict[str, Any], fault: str
) -> None:
    gateway = SmppGateway(settings(fake.port, **changes), inbox, FakeClock())
    async with gateway.running():
        await until(lambda: fault in gateway.health()[0].detail)


async def test_a_sender_that_smpp_cannot_write_leaves_the_text_to_another_gateway(
    fake: Smsc, inbox: FakeInbox
) -> None:
    async with bound(fake.port, inbox, sender="服务台") as gateway:
        assert type(await outcome(gateway)) is Unroutable


@pytest.mark.parametrize(
    ("sender", "kind"), [("+8610690001", 1), ("10690001", 0), ("ExampleDesk", 5)]
)
async def test_the_kind_of_our_sender_is_told(
    fake: Smsc, inbox: FakeInbox, sender: str, kind: int
) -> None:
    async with bound(fake.port, inbox, sender=sender) as gateway:
        await gateway.submit(outgoing())
    assert fake.taken[0].source.kind == kind
    assert fake.taken[0].source.value == sender.removeprefix("+")


async def test_more_parts_than_smpp_can_number_are_refused_for_good(
    fake: Smsc, inbox: FakeInbox
) -> None:
    async with bound(fake.port, inbox) as gateway:
        assert type(await outcome(gateway, "工" * 67 * 256)) is PermanentFailure


# Helpers ---------------------------------------------------------------------------------------


class Slow(FakeInbox):
    """Keeps a text in hand until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.goes_on = asyncio.Event()

    async def received(self, gateway: str, text: Incoming) -> None:
        await super().received(gateway, text)
        await self.goes_on.wait()


async def let_go(inbox: Slow) -> None:
    inbox.goes_on.set()


async def come_and_go(fake: Smsc, gateway: SmppGateway, message: ShortMessage, inbox: Slow) -> None:
    """Bring a text once the gateway takes no more, and let it go on."""
    await until(lambda: "stopped" in gateway.health()[0].detail)
    before = fake.sessions[-1]
    async with asyncio.TaskGroup() as tasks:
        bringing = tasks.create_task(fake.deliver(message))
        asked = before.asked
        await until(lambda: before.asked > asked)
        inbox.goes_on.set()
        assert await bringing is None  # the link ended without an answer


async def outcome(gateway: SmppGateway, text: str = "hello") -> Exception | str:
    try:
        return await gateway.submit(outgoing(text))
    except (TemporaryFailure, PermanentFailure) as failure:
        return failure


async def relinked(fake: Smsc, gateway: SmppGateway) -> None:
    before = len(fake.binds)
    fake.cut()
    await until(lambda: len(fake.binds) > before and bool(fake.sessions) and is_up(gateway))


def cut_anywhere(text: str) -> list[bytes]:
    """Return three parts as a sender cuts them who knows of no surrogate pairs."""
    content = text.encode("utf-16-be")
    return [content[:134], content[134:268], content[268:]]


def put_together(parts: Sequence[Part]) -> dict[tuple[str, str], str]:
    texts: dict[tuple[str, str, int], dict[int, str]] = {}
    for part in parts:
        key = (part.sender, part.recipient, part.reference)
        texts.setdefault(key, {})[part.number] = part.text
        assert part.total == 3
    return {
        key[:2]: joined([pieces[number] for number in sorted(pieces)])
        for key, pieces in texts.items()
    }
