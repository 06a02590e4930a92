"""Texts go out by the first gateway that can, once, and within limits."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from contactd.errors import PermanentFailure, TemporaryFailure
from contactd.httpd import Route
from contactd.routing.notify import Busy, Notification, SendState, SendUnknown, Trace
from contactd.service import Health, HealthState
from contactd.settings import GatewaySettings
from contactd.sms.gateway import (
    Blocked,
    Delivery,
    Found,
    Handed,
    Incoming,
    Outgoing,
    Report,
    Unroutable,
)
from contactd.sms.receiving import Receiving
from contactd.sms.sending import Sending, Way
from contactd.store.blobs import Blobs
from contactd.store.engine import Database
from contactd.store.ledger import Ledger
from contactd.store.texts import Texts
from contactd.tickets.contact import Medium
from contactd.tickets.service import TicketService
from tests.fakes.clock import FakeClock
from tests.fakes.sms import outgoing
from tests.fakes.waiting import WITHIN_S, until


@dataclass(slots=True, kw_only=True)
class FakeGateway:
    """A gateway with switches; `failures` are raised by the next texts, one each."""

    name: str
    failures: list[Exception] = field(default_factory=list)
    taken: list[Outgoing] = field(default_factory=list)
    found: Found = field(default_factory=lambda: Found(trace=Trace.UNKNOWN))
    asked: list[Handed] = field(default_factory=list)
    list_: list[Incoming] | None = None
    gives_ids: bool = True
    before_answer: Callable[[Outgoing], Awaitable[None]] | None = None

    async def submit(self, text: Outgoing) -> str:
        if self.failures:
            raise self.failures.pop(0)
        self.taken.append(text)
        if self.before_answer is not None:
            await self.before_answer(text)
        return f"{self.name}-{len(self.taken)}" if self.gives_ids else ""

    async def find(self, text: Handed) -> Found:
        self.asked.append(text)
        return self.found

    async def listed(self, since: datetime, until: datetime) -> Sequence[Incoming] | None:
        if self.list_ is None:
            return None
        return [each for each in self.list_ if since <= each.received_at < until]

    def routes(self) -> Sequence[Route]:
        return ()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        yield

    def health(self) -> list[Health]:
        return [Health(component=f"sms:{self.name}", state=HealthState.UP)]


@dataclass(slots=True, kw_only=True)
class Office:
    """Everything that texts pass through, with fake gateways."""

    sending: Sending
    receiving: Receiving
    texts: Texts
    database: Database
    outcomes: list[tuple[str, SendState]]
    gateways: Mapping[str, FakeGateway]

    async def send(self, **changes: Any) -> None:
        await self.sending.send(notification(**changes))


def notification(**changes: Any) -> Notification:
    return replace(outgoing().notification, **changes)


@pytest.fixture
def office(database: Database, clock: FakeClock, tickets: TicketService, tmp_path: Any) -> Office:
    return build(database, clock, tickets, tmp_path)


def build(
    database: Database, clock: FakeClock, tickets: TicketService, folder: Any,
    **settings: GatewaySettings,
) -> Office:  # fmt: skip
    outcomes: list[tuple[str, SendState]] = []

    async def outcome(ref: str, state: SendState) -> None:
        outcomes.append((ref, state))

    texts = Texts(database, clock)
    receiving = Receiving(
        receive=tickets.receive,
        outcome=outcome,
        put=Blobs(folder).put_bytes,
        texts=texts,
        make_way=database.make_way,
    )
    gateways = {name: FakeGateway(name=name) for name in ("one", "two")}
    sending = Sending(
        [
            Way(gateway=gateway, settings=settings.get(name, GatewaySettings()))
            for name, gateway in gateways.items()
        ],
        texts=texts,
        receiving=receiving,
        settle=Ledger(database, clock, "Asia/Shanghai").settle,
        clock=clock,
        zone="Asia/Shanghai",
        most_per_hour=3,
    )
    return Office(
        sending=sending, receiving=receiving, texts=texts, database=database, outcomes=outcomes,
        gateways=gateways,
    )  # fmt: skip


async def test_the_first_gateway_sends_and_what_it_says_is_kept(office: Office) -> None:
    await office.send()
    (text,) = office.gateways["one"].taken
    assert "26112000017" in text.text
    assert not office.gateways["two"].taken
    stored = await office.texts.text("n-1")
    assert stored is not None
    assert (stored.gateway, stored.message_id, stored.number, stored.body) == (
        "one", "one-1", "+8613800000001", text.text,
    )  # fmt: skip
    assert await office.sending.find("n-1") is Trace.SENT
    assert not office.gateways["one"].asked  # what is known need not be asked


async def test_the_log_has_neither_number_nor_words(office: Office) -> None:
    with capture_logs() as events:
        await office.send()
    (event,) = events
    assert (event["event"], event["ref"], event["segments"]) == ("text.sent", "n-1", 1)
    assert not any(secret in str(event) for secret in ("138", "王伟", "广州", "回复"))


@pytest.mark.parametrize("failure", [TemporaryFailure("away"), Busy("no"), Unroutable("no")])
async def test_what_one_gateway_cannot_send_the_next_one_does(
    office: Office, failure: Exception
) -> None:
    office.gateways["one"].failures = [failure]
    await office.send()
    assert [text.ref for text in office.gateways["two"].taken] == ["n-1"]
    stored = await office.texts.text("n-1")
    assert stored is not None
    assert stored.gateway == "two"


async def test_what_may_have_gone_out_is_given_to_no_other_gateway(office: Office) -> None:
    office.gateways["one"].failures = [SendUnknown("no answer")]
    with pytest.raises(SendUnknown):
        await office.send()
    assert not office.gateways["two"].taken
    assert await office.sending.find("n-1") is Trace.UNKNOWN
    office.gateways["one"].found = Found(trace=Trace.SENT, message_id="x-7")
    assert await office.sending.find("n-1") is Trace.SENT
    assert office.gateways["one"].asked[0].text  # by number and words, too
    stored = await office.texts.text("n-1")
    assert stored is not None
    assert stored.message_id == "x-7"


async def test_what_the_provider_has_never_seen_may_be_sent_again(office: Office) -> None:
    office.gateways["one"].failures = [SendUnknown("no answer")]
    with pytest.raises(SendUnknown):
        await office.send()
    office.gateways["one"].found = Found(trace=Trace.NEVER)
    assert await office.sending.find("n-1") is Trace.NEVER
    assert await office.texts.text("n-1") is None


async def test_a_text_that_was_never_handed_over_has_never_gone_out(office: Office) -> None:
    assert await office.sending.find("n-9") is Trace.NEVER
    for gateway in office.gateways.values():
        gateway.failures = [TemporaryFailure("away")]
    with pytest.raises(TemporaryFailure):
        await office.send()
    assert await office.sending.find("n-1") is Trace.NEVER


async def test_what_can_be_tried_again_weighs_more_than_what_never_will_be(office: Office) -> None:
    office.gateways["one"].failures = [TemporaryFailure("away")]
    office.gateways["two"].failures = [Unroutable("no template")]
    with pytest.raises(TemporaryFailure):
        await office.send()
    office.gateways["one"].failures = [Unroutable("no template")]
    office.gateways["two"].failures = [Unroutable("no template")]
    with pytest.raises(PermanentFailure):
        await office.send(ref="n-2")


async def test_a_number_that_is_wrong_is_wrong_for_every_gateway(office: Office) -> None:
    office.gateways["one"].failures = [PermanentFailure("no such number")]
    with pytest.raises(PermanentFailure):
        await office.send()
    assert not office.gateways["two"].taken


async def test_a_gateway_that_failed_rests_while_another_works(
    office: Office, clock: FakeClock
) -> None:
    one, two = office.gateways.values()
    one.failures = [TemporaryFailure("away")]
    await office.send()
    await office.send(ref="n-2", address="+8613800000002")
    assert ([len(one.taken), len(two.taken)]) == [0, 2]
    assert [each.state for each in office.sending.health()] == [
        HealthState.DEGRADED, HealthState.UP,
    ]  # fmt: skip
    clock.advance(timedelta(seconds=31))
    await office.send(ref="n-3", address="+8613800000003")
    assert ([len(one.taken), len(two.taken)]) == [1, 2]
    assert {each.state for each in office.sending.health()} == {HealthState.UP}


async def test_who_has_failed_is_asked_all_the_same_if_there_is_no_other(office: Office) -> None:
    one, two = office.gateways.values()
    one.failures = [TemporaryFailure("away")]
    two.failures = [TemporaryFailure("away")]
    with pytest.raises(TemporaryFailure):
        await office.send()
    await office.send()
    assert len(one.taken) == 1


async def test_a_gateway_sends_only_to_the_countries_that_it_serves(
    database: Database, clock: FakeClock, tickets: TicketService, tmp_path: Any
) -> None:
    office = build(
        database, clock, tickets, tmp_path,
        one=GatewaySettings(countries=("+86",)), two=GatewaySettings(countries=("+852",)),
    )  # fmt: skip
    await office.send(address="+85291234567")
    assert len(office.gateways["two"].taken) == 1
    with pytest.raises(PermanentFailure, match="countries"):
        await office.send(ref="n-2", address="+12025550123")


async def test_the_signature_stands_in_front_and_counts(
    database: Database, clock: FakeClock, tickets: TicketService, tmp_path: Any
) -> None:
    office = build(
        database, clock, tickets, tmp_path, one=GatewaySettings(signature="【示例公司服务台】")
    )
    await office.send(facts={"site_name": "广州", "title": "打" * 20})
    (text,) = office.gateways["one"].taken
    assert text.text.startswith("【示例公司服务台】已收到")
    assert len(text.text) <= 70
    assert "打打" not in text.text  # with it the title has no room


@pytest.mark.parametrize("address", ["", "wang", "wang@example.cn", "13", "1380000\n0001"])
async def test_what_is_no_number_is_refused_for_good(office: Office, address: str) -> None:
    with pytest.raises(PermanentFailure):
        await office.send(address=address)


async def test_who_wants_no_texts_gets_none_until_they_want_them_again(office: Office) -> None:
    await office.texts.opt_out("+8613800000001", "退订")
    await office.texts.opt_out("+8613800000001", "STOP")
    with pytest.raises(PermanentFailure, match="wants no texts"):
        await office.send()
    await office.send(ref="n-2", address="+8613800000002")
    await office.texts.opt_in("+8613800000001")
    await office.send()
    assert len(office.gateways["one"].taken) == 2


async def test_whom_the_provider_has_blocked_wants_no_texts(office: Office) -> None:
    office.gateways["one"].failures = [Blocked("21610")]
    for _ in range(2):
        with pytest.raises(PermanentFailure):
            await office.send()
    assert not office.gateways["one"].taken
    assert not office.gateways["two"].taken


async def test_one_number_gets_so_many_texts_an_hour(office: Office, clock: FakeClock) -> None:
    for number in range(3):
        await office.send(ref=f"n-{number}")
    with pytest.raises(TemporaryFailure, match="most_per_hour"):
        await office.send(ref="n-3")
    await office.send(ref="n-4", address="+8613800000002")
    clock.advance(timedelta(minutes=61))
    await office.send(ref="n-3")


async def test_a_gateway_gets_so_many_texts_a_second(
    database: Database, clock: FakeClock, tickets: TicketService, tmp_path: Any
) -> None:
    slow = GatewaySettings(rate_per_s=20)
    office = build(database, clock, tickets, tmp_path, one=slow, two=slow)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await asyncio.gather(
        *(office.send(ref=f"n-{n}", address=f"+86138000001{n:02}") for n in range(10))
    )
    assert loop.time() - began > 0.4
    busy = await asyncio.gather(
        *(office.send(ref=f"m-{n}", address=f"+86138000002{n:02}") for n in range(60)),
        return_exceptions=True,
    )
    assert any(isinstance(each, Busy) for each in busy)


async def test_a_report_that_comes_before_the_answer_is_not_lost(office: Office) -> None:
    async def report(text: Outgoing) -> None:
        early = Report(delivery=Delivery.DELIVERED, message_id="one-1")
        await office.receiving.reported("one", early)
        assert not office.outcomes  # nobody knows yet whose it is

    office.gateways["one"].before_answer = report
    await office.send()
    assert office.outcomes == [("n-1", SendState.DELIVERED)]
    stored = await office.texts.text("n-1")
    assert stored is not None
    assert stored.delivery == "delivered"


async def test_a_report_that_waited_for_a_text_to_be_looked_up_is_not_lost(
    office: Office,
) -> None:
    office.gateways["one"].failures = [SendUnknown("no answer")]
    with pytest.raises(SendUnknown):
        await office.send()
    await office.receiving.reported("one", Report(delivery=Delivery.DELIVERED, message_id="x-7"))
    office.gateways["one"].found = Found(trace=Trace.SENT, message_id="x-7")
    assert await office.sending.find("n-1") is Trace.SENT
    assert office.outcomes == [("n-1", SendState.DELIVERED)]


async def test_reports_in_any_order_end_with_the_last_state(office: Office) -> None:
    await office.send()
    for delivery in (Delivery.DELIVERED, Delivery.SENT, Delivery.FAILED, Delivery.DELIVERED):
        await office.receiving.reported("one", Report(delivery=delivery, message_id="one-1"))
    assert office.outcomes == [("n-1", SendState.DELIVERED)]


async def test_a_text_that_failed_is_told_with_the_providers_code(office: Office) -> None:
    await office.send()
    failed = Report(delivery=Delivery.FAILED, ref="n-1", error="30003")
    await office.receiving.reported("one", failed)
    stored = await office.texts.text("n-1")
    assert stored is not None
    assert (stored.delivery, stored.error) == ("failed", "30003")
    assert office.outcomes == [("n-1", SendState.FAILED)]


async def test_what_only_the_list_has_is_filed_and_counted_as_repaired(
    office: Office, clock: FakeClock, database: Database
) -> None:
    came = clock.now() - timedelta(minutes=10)
    texts = [
        Incoming(
            id=f"SM{number}", sender="+8613900000002", recipient="10690000", text="打印机坏了",
            received_at=came, is_repaired=True,
        )
        for number in range(2)
    ]  # fmt: skip
    await office.receiving.received("one", replace(texts[0], is_repaired=False))
    office.gateways["one"].list_ = texts
    ledger = Ledger(database, clock, "Asia/Shanghai")
    async with office.sending.running():
        async with asyncio.timeout(WITHIN_S):
            while (day := await ledger.stored(ledger.today(), "one", Medium.TEXT)) is None:
                await asyncio.sleep(0.01)
    assert (day.outside, day.contacts, day.difference) == (2, 2, 0)
    assert day.repaired == ("one-SM1",)


async def test_what_a_gateway_without_ids_has_taken_has_been_sent(office: Office) -> None:
    office.gateways["one"].gives_ids = False
    await office.send()
    assert await office.sending.find("n-1") is Trace.SENT


async def test_a_crash_between_handing_over_and_noting_is_looked_up(office: Office) -> None:
    async def crash(_text: Outgoing) -> None:
        raise asyncio.CancelledError

    office.gateways["one"].before_answer = crash
    with pytest.raises(asyncio.CancelledError):
        await office.send()
    office.gateways["one"].found = Found(trace=Trace.SENT, message_id="one-1")
    assert await office.sending.find("n-1") is Trace.SENT
    await until(lambda: len(office.gateways["one"].asked) == 1)
