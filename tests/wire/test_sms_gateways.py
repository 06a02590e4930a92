"""What every gateway for texts does: the same stories against each with its provider."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from contactd.errors import PermanentFailure, TemporaryFailure
from contactd.routing.notify import SendUnknown, Trace
from contactd.service import HealthState
from contactd.sms.gateway import Blocked, Delivery
from contactd.sms.gateways import GATEWAYS
from tests.fakes.clock import FakeClock
from tests.fakes.sms import Fault, Provider, handed, outgoing
from tests.fakes.sms_aliyun import aliyun_provider
from tests.fakes.sms_log import log_provider
from tests.fakes.sms_sip import sip_provider
from tests.fakes.sms_smpp import smpp_provider
from tests.fakes.sms_twilio import twilio_provider
from tests.fakes.waiting import until

PROVIDERS: Mapping[str, Callable[[], AbstractAsyncContextManager[Any]]] = {
    "aliyun": aliyun_provider,
    "log": log_provider,
    "sip": sip_provider,
    "smpp": smpp_provider,
    "twilio": twilio_provider,
}
LONG = "网络又断了😀，" * 30  # four segments; emoji at every place of a cut


@pytest.fixture(params=sorted(PROVIDERS))
async def provider(request: pytest.FixtureRequest) -> AsyncIterator[Provider]:
    async with PROVIDERS[request.param]() as found:
        yield found


def able(provider: Provider, *wanted: str) -> None:
    """Skip a story that a provider cannot tell: the table of what each can is tested below."""
    if not set(wanted) <= set(provider.able):
        pytest.skip(f"{provider.gateway.name}: no {', '.join(wanted)}")


ABLE: Mapping[str, set[str]] = {
    "aliyun": {"in", "find", "report", *(set(Fault) - {Fault.BLOCKED})},
    "log": {"find", "words"},
    "sip": {"in", "list", "words", Fault.DOWN, Fault.SILENT, Fault.LOST},
    "smpp": {"in", "report", "words", *(set(Fault) - {Fault.BLOCKED})},
    "twilio": {"in", "list", "find", "report", "words", *Fault},
}


def test_there_is_a_provider_for_every_gateway() -> None:
    assert set(PROVIDERS) == set(GATEWAYS) == set(ABLE)


async def test_no_story_is_left_out_by_accident(provider: Provider) -> None:
    assert set(provider.able) == ABLE[provider.gateway.name]


async def test_a_text_arrives_as_it_was_written(provider: Provider) -> None:
    able(provider, "words")
    for number, words in enumerate(("工单26112000017已收到。", "Ticket 1: [ok] {~} €5", LONG)):
        await provider.gateway.submit(outgoing(words, ref=f"n-{number}"))
        assert (await provider.sent())[-1] == ("+8613800000001", words)


async def test_texts_at_the_same_time_do_not_get_mixed(provider: Provider) -> None:
    able(provider, "words")
    texts = [outgoing(f"{number} {LONG}", ref=f"n-{number}") for number in range(8)]
    await asyncio.gather(*map(provider.gateway.submit, texts))
    assert sorted(await provider.sent()) == sorted((each.number, each.text) for each in texts)


@pytest.mark.parametrize("fault", [Fault.BUSY, Fault.DOWN])
async def test_what_is_refused_for_now_has_not_gone_out(provider: Provider, fault: Fault) -> None:
    able(provider, fault)
    provider.fail(fault)
    with pytest.raises(TemporaryFailure) as failure:
        await provider.gateway.submit(outgoing())
    assert not isinstance(failure.value, SendUnknown)
    assert not await provider.sent()
    await provider.gateway.submit(outgoing())
    assert len(await provider.sent()) == 1


async def test_a_number_that_is_refused_is_not_tried_again(provider: Provider) -> None:
    able(provider, Fault.REFUSED)
    provider.fail(Fault.REFUSED)
    with pytest.raises(PermanentFailure) as failure:
        await provider.gateway.submit(outgoing())
    assert not isinstance(failure.value, Blocked)
    assert not await provider.sent()


async def test_who_wants_no_texts_is_known_as_such(provider: Provider) -> None:
    able(provider, Fault.BLOCKED)
    provider.fail(Fault.BLOCKED)
    with pytest.raises(Blocked):
        await provider.gateway.submit(outgoing())


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.SILENT])
async def test_without_an_answer_nobody_says_that_it_has_not_gone_out(
    provider: Provider, fault: Fault
) -> None:
    able(provider, fault)
    provider.fail(fault)
    with pytest.raises(SendUnknown):
        await asyncio.wait_for(provider.gateway.submit(outgoing()), 20)
    assert len(await provider.sent()) == (fault is Fault.SILENT)


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.SILENT])
async def test_a_text_of_unknown_outcome_can_be_looked_up(
    provider: Provider, fault: Fault, clock: FakeClock
) -> None:
    able(provider, fault, "find")
    provider.fail(fault)
    text = outgoing()
    with pytest.raises(SendUnknown):
        await provider.gateway.submit(text)
    found = await provider.gateway.find(handed(text, provider.gateway.name, provider.long_ago()))
    assert found.trace is (Trace.SENT if fault is Fault.SILENT else Trace.NEVER)


async def test_a_text_comes_in_whole(provider: Provider) -> None:
    able(provider, "in")
    for number, words in enumerate(("打印机坏了，3楼", "line\nbreak, “quotes” €", LONG)):
        assert await provider.bring("+8613900000002", words, f"in-{number}")
        await until(lambda: len(provider.inbox.heard()) == number + 1)  # noqa: B023 - waited for
        assert ("+8613900000002", words) in provider.inbox.heard()
    assert len(provider.inbox.heard()) == 3


async def test_a_text_that_cannot_be_stored_is_not_acknowledged_and_comes_again(
    provider: Provider,
) -> None:
    able(provider, "in")
    provider.inbox.failing = True
    acknowledged = await provider.bring("+8613900000002", "打印机坏了", "in-1")
    assert not acknowledged
    provider.inbox.failing = False
    if not provider.inbox.heard():  # some read it again by themselves
        assert await provider.bring("+8613900000002", "打印机坏了", "in-1") or True
    await until(lambda: provider.inbox.heard() == [("+8613900000002", "打印机坏了")])


async def test_the_same_text_again_has_the_same_id(provider: Provider) -> None:
    able(provider, "in")
    provider.inbox.failing = True
    await provider.bring("+8613900000002", "打印机坏了", "in-1")
    provider.inbox.failing = False
    for _ in range(2):
        await provider.bring("+8613900000002", "打印机坏了", "in-1")
    await until(lambda: bool(provider.inbox.texts))
    assert len({each.id for each in provider.inbox.texts}) == 1


@pytest.mark.parametrize("delivered", [True, False])
async def test_a_report_reaches_the_text_that_it_is_about(
    provider: Provider, delivered: bool
) -> None:
    able(provider, "report")
    text = outgoing()
    message_id = await provider.gateway.submit(text)
    assert await provider.report(message_id, text.ref, delivered=delivered)
    await until(lambda: bool(provider.inbox.reports))
    last = provider.inbox.reports[-1]
    assert last.delivery is (Delivery.DELIVERED if delivered else Delivery.FAILED)
    assert message_id == last.message_id or text.ref == last.ref


async def test_a_report_that_cannot_be_stored_is_not_acknowledged(provider: Provider) -> None:
    able(provider, "report")
    text = outgoing()
    message_id = await provider.gateway.submit(text)
    provider.inbox.failing = True
    assert not await provider.report(message_id, text.ref, delivered=True)


async def test_the_list_names_what_came_in(provider: Provider) -> None:
    able(provider, "in", "list")
    for number in range(3):
        await provider.bring("+8613900000002", f"文字{number}", f"in-{number}")
    await until(lambda: len(provider.inbox.texts) == 3)
    day = provider.today()
    listed = await provider.gateway.listed(*day)
    assert listed is not None
    ids = {each.id for each in provider.inbox.texts}
    assert {each.id for each in listed} == ids
    assert {each.text for each in listed} == {f"文字{number}" for number in range(3)}
    earlier = await provider.gateway.listed(day[0] - (day[1] - day[0]), day[0])
    assert not earlier


async def test_health_names_the_gateway(provider: Provider) -> None:
    (health,) = provider.gateway.health()
    assert health.component == f"sms:{provider.gateway.name}"
    assert health.state is HealthState.UP
