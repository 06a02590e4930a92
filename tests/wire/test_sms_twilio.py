"""The gateway to Twilio against a Twilio on this machine: what each fault means, who may call."""

import asyncio
import hashlib
import json
import logging
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import MultiDict
from twilio.request_validator import RequestValidator  # type: ignore[import-untyped]

from contactd.errors import ConfigurationError, PermanentFailure, TemporaryFailure
from contactd.lab.ports import free_port
from contactd.routing.notify import Busy, SendUnknown, Trace
from contactd.service import HealthState
from contactd.settings import TwilioSettings
from contactd.sms import twilio_api, twilio_media
from contactd.sms.gateway import Blocked, Delivery, Handed, Unroutable
from contactd.sms.twilio import INBOUND, STATUS, TwilioGateway
from contactd.sms.twilio_faults import CODES
from contactd.sms.twilio_media import Located, MediaStore
from contactd.sms.twilio_signing import Forged, signature_of, verified
from tests.fakes.clock import FakeClock
from tests.fakes.sms import FakeInbox, Fault, handed, outgoing
from tests.fakes.sms_twilio import (
    ACCOUNT,
    PUBLIC,
    SENDER,
    TOKEN,
    Refusal,
    Trouble,
    TwilioProvider,
    inbound,
    sid_of,
    signature,
    twilio_provider,
)

FORM = "application/x-www-form-urlencoded"
ROOT = f"/2010-04-01/Accounts/{ACCOUNT}"


@pytest.fixture
async def provider(clock: FakeClock) -> AsyncIterator[TwilioProvider]:
    async with twilio_provider(clock) as provider:
        yield provider


def settings(**changes: Any) -> TwilioSettings:
    given = {"account_sid": ACCOUNT, "auth_token": TOKEN, "sender": SENDER, **changes}
    return TwilioSettings.model_validate(given)


# Out


async def test_a_text_is_handed_over_and_says_where_its_reports_go(
    provider: TwilioProvider,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.DEBUG, logger="twilio.async_http_client"):
        sid = await provider.gateway.submit(outgoing("您好 “工单” 1", ref="n-1/7 &ü"))
    assert sid == provider.twilio.messages[0]["sid"]
    (form,) = provider.twilio.forms
    assert form == {
        "To": "+8613800000001", "From": SENDER, "Body": "您好 “工单” 1", "SmartEncoded": "false",
        "StatusCallback": f"{PUBLIC}/sms/twilio/status?ref=n-1%2F7%20%26%C3%BC",
    }  # fmt: skip
    told = "".join([*capfd.readouterr(), caplog.text])
    assert "BEGIN Twilio API Request" not in told
    assert "800000001" not in told
    assert "工单" not in told


async def test_a_messaging_service_chooses_the_number(clock: FakeClock) -> None:
    async with twilio_provider(clock, sender="MG" + "1" * 32) as provider:
        await provider.gateway.submit(outgoing())
    (form,) = provider.twilio.forms
    assert form["MessagingServiceSid"] == "MG" + "1" * 32
    assert "From" not in form


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        (Refusal(status=429), Busy),
        (Refusal(status=429, code=20429), Busy),
        (Refusal(status=400, code=14107), Busy),
        (Refusal(status=400, code=21611), Busy),
        (Refusal(status=500), SendUnknown),
        (Refusal(status=500, code=20500), SendUnknown),
        (Refusal(status=502), SendUnknown),
        (Refusal(status=503, code=20503), SendUnknown),
        (Refusal(status=401, code=20003), TemporaryFailure),
        (Refusal(status=403), TemporaryFailure),
        (Refusal(status=404, code=20404), TemporaryFailure),
        (Refusal(status=302), TemporaryFailure),
        (Refusal(status=400, code=21660), TemporaryFailure),
        (Refusal(status=400, code=21408), Unroutable),
        (Refusal(status=400, code=21606), Unroutable),
        (Refusal(status=400, code=21612), Unroutable),
        (Refusal(status=400, code=21614), Unroutable),
        (Refusal(status=400, code=29999), Unroutable),
        (Refusal(status=400), Unroutable),
        (Refusal(status=400, code=21610), Blocked),
        (Refusal(status=400, code=21211, text="+8613800000001 is none"), PermanentFailure),
    ],
)  # fmt: skip
async def test_each_refusal_has_its_meaning_and_nothing_is_posted_again(
    provider: TwilioProvider, refusal: Refusal, kind: type[Exception]
) -> None:
    provider.twilio.coming.append(refusal)
    with pytest.raises(kind) as raised:
        await provider.gateway.submit(outgoing())
    assert type(raised.value) is kind
    assert "800000001" not in str(raised.value)
    assert provider.twilio.posts == 1


def test_every_known_code_has_one_meaning_that_a_5xx_overrules() -> None:
    from contactd.sms.twilio_faults import failure

    for code, (fate, remedy) in CODES.items():
        said = failure(400, code)
        assert type(said) is fate.value
        assert str(said).endswith(remedy or str(code))
        assert type(failure(500, code)) is SendUnknown


@pytest.mark.parametrize(
    ("trouble", "is_taken"),
    [
        (Trouble.HANG, False), (Trouble.DROP, False), (Trouble.TAKE_AND_HANG, True),
        (Trouble.TAKE_AND_DROP, True), (Trouble.TAKE_AND_CUT, True),
        (Trouble.TAKE_AND_BABBLE, True),
    ],
)  # fmt: skip
@pytest.mark.parametrize("is_connected", [False, True])
async def test_what_became_of_a_text_without_an_answer_is_looked_up_not_guessed(
    provider: TwilioProvider, clock: FakeClock, trouble: Trouble, is_taken: bool, is_connected: bool
) -> None:
    if is_connected:  # a connection that is kept open may break, too
        await provider.gateway.submit(outgoing("the first"))
    provider.twilio.coming.append(trouble)
    text, begun = outgoing(), asyncio.get_running_loop().time()
    with pytest.raises(SendUnknown):
        await provider.gateway.submit(text)
    assert asyncio.get_running_loop().time() - begun < 2
    assert provider.twilio.posts == 1 + is_connected
    lost = handed(text, "twilio", clock.now())
    clock.advance(timedelta(seconds=30))
    found = await provider.gateway.find(lost)
    if is_taken:
        assert found.trace is Trace.SENT
        assert found.message_id == provider.twilio.messages[-1]["sid"]
    else:
        assert found.trace is Trace.NEVER


async def test_a_text_has_surely_not_gone_out_when_nobody_listens(clock: FakeClock) -> None:
    async with twilio_provider(clock, api_url=f"http://127.0.0.1:{free_port()}") as provider:
        with pytest.raises(TemporaryFailure, match="not reached") as raised:
            await provider.gateway.submit(outgoing())
    assert type(raised.value) is TemporaryFailure


async def test_a_text_has_surely_not_gone_out_when_the_network_swallows_everything(
    clock: FakeClock,
) -> None:
    with socket.socket() as deaf, socket.socket() as first, socket.socket() as second:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)  # Linux drops the SYN of who comes after its queue is full
        for each in (first, second):
            each.setblocking(False)
            each.connect_ex(deaf.getsockname())
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        async with twilio_provider(clock, api_url=url) as provider:
            with pytest.raises(
                TemporaryFailure, match=r"not reached: no answer within 0\.5 s"
            ) as e:
                await provider.gateway.submit(outgoing())
    assert type(e.value) is TemporaryFailure


async def test_health_names_the_remedy_until_twilio_takes_a_text(provider: TwilioProvider) -> None:
    gateway = provider.gateway
    provider.fail(Fault.BUSY)
    with pytest.raises(Busy):
        await gateway.submit(outgoing())
    assert gateway.health()[0].component == "sms:twilio"
    assert gateway.health()[0].state is HealthState.UP
    provider.twilio.coming.append(Refusal(status=401, code=20003))
    with pytest.raises(TemporaryFailure):
        await gateway.submit(outgoing())
    assert gateway.health()[0].state is HealthState.DEGRADED
    assert "sms.twilio.auth_token" in gateway.health()[0].detail
    provider.fail(Fault.BUSY)
    with pytest.raises(Busy):
        await gateway.submit(outgoing())
    assert gateway.health()[0].state is HealthState.DEGRADED
    await gateway.submit(outgoing())
    assert gateway.health()[0].state is HealthState.UP


async def test_a_gateway_that_is_not_running_sends_nothing() -> None:
    gateway = TwilioGateway(settings(), FakeInbox(), FakeClock(), PUBLIC)
    with pytest.raises(TemporaryFailure):
        await gateway.submit(outgoing())


# Looking up


async def test_twilios_silence_means_nothing_while_its_list_settles(
    provider: TwilioProvider, clock: FakeClock
) -> None:
    provider.twilio.lag = timedelta(seconds=20)
    provider.fail(Fault.SILENT)
    text = outgoing()
    with pytest.raises(SendUnknown):
        await provider.gateway.submit(text)
    lost = handed(text, "twilio", clock.now())
    clock.advance(timedelta(seconds=19))
    assert (await provider.gateway.find(lost)).trace is Trace.UNKNOWN
    clock.advance(timedelta(seconds=2))
    assert (await provider.gateway.find(lost)).trace is Trace.SENT


@pytest.mark.parametrize(
    ("direction", "number", "body", "minutes"),
    [
        ("outbound-api", "+8613800000001", "工单26112000018已收到。", 0),
        ("outbound-api", "+8613800000002", "工单26112000017已收到。", 0),
        ("outbound-api", "+8613800000001", "工单26112000017已收到。", -2),
        ("outbound-api", "+8613800000001", "工单26112000017已收到。", 11),
        ("inbound", "+8613800000001", "工单26112000017已收到。", 0),
    ],
)  # fmt: skip
async def test_another_text_is_not_taken_for_ours(
    provider: TwilioProvider,
    clock: FakeClock,
    direction: str,
    number: str,
    body: str,
    minutes: int,
) -> None:
    at = clock.now()
    clock.advance(timedelta(minutes=minutes))
    provider.twilio.keep(direction, SENDER, number, body)
    clock.advance(timedelta(minutes=20))
    found = await provider.gateway.find(handed(outgoing(), "twilio", at))
    assert found.trace is Trace.NEVER


async def test_a_trial_accounts_prefix_does_not_hide_a_text(
    provider: TwilioProvider, clock: FakeClock
) -> None:
    text = outgoing()
    body = f"Sent from your Twilio trial account - {text.text} "
    provider.twilio.keep("outbound-api", SENDER, text.number, body)
    found = await provider.gateway.find(handed(text, "twilio", clock.now()))
    assert found.trace is Trace.SENT


async def test_a_text_is_found_on_a_later_page_and_old_pages_are_not_read(
    provider: TwilioProvider, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twilio_api, "PAGE", 3)
    text = outgoing()
    for number in range(30):
        provider.twilio.keep("outbound-api", SENDER, text.number, f"old {number}")
    clock.advance(timedelta(hours=1))
    lost = handed(text, "twilio", clock.now())
    sid = provider.twilio.keep("outbound-api", SENDER, text.number, text.text)["sid"]
    for number in range(7):
        provider.twilio.keep("outbound-api", SENDER, text.number, f"new {number}")
    assert (await provider.gateway.find(lost)).message_id == sid
    assert len(provider.twilio.lookups) == 3
    del provider.twilio.lookups[:], provider.twilio.messages[30]
    clock.advance(timedelta(seconds=31))
    assert (await provider.gateway.find(lost)).trace is Trace.NEVER
    assert len(provider.twilio.lookups) == 4
    assert not any("DateSent" in asked for asked in provider.twilio.lookups)


async def test_a_text_whose_id_is_known_is_looked_up_by_it(
    provider: TwilioProvider, clock: FakeClock
) -> None:
    text = outgoing()
    sid = await provider.gateway.submit(text)
    known = handed(text, "twilio", clock.now(), sid)
    assert (await provider.gateway.find(known)).trace is Trace.SENT
    other = handed(text, "twilio", clock.now(), sid_of("gone"))
    assert (await provider.gateway.find(other)).trace is Trace.UNKNOWN
    assert provider.twilio.lookups == []


@pytest.mark.parametrize(
    ("status", "kind"), [(503, TemporaryFailure), (429, Busy), (404, TemporaryFailure)]
)
async def test_what_cannot_be_asked_now_says_so(
    provider: TwilioProvider, clock: FakeClock, status: int, kind: type[Exception]
) -> None:
    provider.twilio.list_status = status
    lost = Handed(
        ref="n-1", gateway="twilio", number="+8613800000001", text="x", message_id="",
        handed_at=clock.now(),
    )  # fmt: skip
    for question in (
        provider.gateway.find(lost),
        provider.gateway.listed(clock.now(), clock.now()),
    ):
        with pytest.raises(TemporaryFailure) as raised:
            await question
        assert type(raised.value) is kind


# The list


async def test_the_list_has_what_came_in_between_two_instants(
    provider: TwilioProvider, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twilio_api, "PAGE", 2)
    start = clock.now()
    for number in range(9):
        provider.twilio.keep("inbound", "+8613800000001", SENDER, f"No. {number}\x00")
        provider.twilio.keep("outbound-api", SENDER, "+8613800000001", "an answer")
        clock.advance(timedelta(minutes=1))
    provider.twilio.keep("inbound", "+8613800000001", "+15005550009", "to another number of ours")
    listed = await provider.gateway.listed(
        start + timedelta(minutes=2), start + timedelta(minutes=7)
    )
    assert [text.text for text in listed] == ["No. 6", "No. 5", "No. 4", "No. 3", "No. 2"]
    assert {(text.sender, text.recipient) for text in listed} == {("+8613800000001", SENDER)}
    assert all(text.is_repaired and text.id.startswith("SM") for text in listed)
    assert listed[-1].received_at == start + timedelta(minutes=2)


async def test_a_list_that_is_too_long_is_none(
    provider: TwilioProvider, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twilio_api, "PAGE", 2)
    monkeypatch.setattr(twilio_api, "MOST_PAGES", 3)
    for _ in range(6):
        provider.twilio.keep("inbound", "+8613800000001", SENDER, "x")
    ago = clock.now() - timedelta(hours=1)
    later = clock.now() + timedelta(hours=1)
    assert len(await provider.gateway.listed(ago, later)) == 6
    provider.twilio.keep("inbound", "+8613800000001", SENDER, "x")
    with pytest.raises(TemporaryFailure, match="more than 6"):
        await provider.gateway.listed(ago, later)


async def test_a_messaging_service_lists_its_own_texts_and_names_their_files(
    clock: FakeClock,
) -> None:
    service = "MG" + "1" * 32
    async with twilio_provider(clock, sender=service) as provider:
        keep = provider.twilio.keep
        its_own = {"messaging_service_sid": service, "num_media": "2"}
        mine = keep("inbound", "+8613800000001", "+15005550001", "mine", **its_own)
        keep("inbound", "+8613800000001", "+15005550002", "another's")
        later = clock.now() + timedelta(hours=1)
        (text,) = await provider.gateway.listed(clock.now(), later)
    assert text.id == mine["sid"]
    assert text.text.startswith("mine\n[2 ")
    assert f"/Messages/{mine['sid']}/Media" in text.text


# In: who may call. Source of the vectors: twilio-python, test_request_validator.py (MIT).

VECTOR_TOKEN = "12345"
CALL = [
    ("CallSid", "CA1234567890ABCDE"), ("Digits", "1234"), ("From", "+14158675309"),
    ("To", "+18005551212"), ("Caller", "+14158675309"),
]  # fmt: skip
AGAIN = [
    ("Sid", "CA123"), ("SidAccount", "AC123"), ("Digits", "5678"), ("Digits", "1234"),
    ("Digits", "1234"),
]  # fmt: skip
PUBLISHED = "https://mycompany.com/myapp.php?foo=1&bar=2"
HASHED = f"{PUBLISHED}&bodySHA256=0a1ff7634d9ab3b95db5c9a2dfe9416e41502b283a80c7cf19632632f96e6620"
BODY = b'{"property": "value", "boolean": true}'


@pytest.mark.parametrize(
    ("url", "pairs", "signed"),
    [
        (PUBLISHED, CALL, "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
        (PUBLISHED.replace(".com/", ".com:1234/"), CALL, "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
        ("http://mycompany.com:1234/myapp.php?foo=1&bar=2", CALL, "Zmvh+3yNM1Phv2jhDCwEM3q5ebU="),
        (PUBLISHED, CALL, "kvajT1Ptam85bY51eRf/AJRuM3w="),  # made with :443
        ("http://mycompany.com/myapp.php?foo=1&bar=2", CALL, "0ZXoZLH/DfblKGATFgpif+LLRf4="),
        (PUBLISHED, AGAIN, "IK+Dwps556ElfBT0I3Rgjkr1wJU="),
    ],
)  # fmt: skip
def test_the_published_signatures_are_right(
    url: str, pairs: list[tuple[str, str]], signed: str
) -> None:
    fields = verified(VECTOR_TOKEN, url, FORM, urlencode(pairs).encode(), signed)
    assert set(fields) == {name for name, _ in pairs}
    for changed in (
        (f"{VECTOR_TOKEN}6", url, pairs, signed),
        (VECTOR_TOKEN, f"{url}&x=1", pairs, signed),
        (VECTOR_TOKEN, url.replace("mycompany", "yourcompany"), pairs, signed),
        (VECTOR_TOKEN, url, [*pairs, ("Digits", "9")], signed),
        (VECTOR_TOKEN, url, [*pairs, ("Empty", "")], signed),
        (VECTOR_TOKEN, url, pairs[1:], signed),
        (VECTOR_TOKEN, url, pairs, signed.swapcase()),
        (VECTOR_TOKEN, url, pairs, ""),
    ):
        token, where, what, how = changed
        with pytest.raises(Forged):
            verified(token, where, FORM, urlencode(what).encode(), how)


def test_the_published_signature_of_a_body_is_right_and_the_body_counts() -> None:
    signed = "a9nBmqA0ju/hNViExpshrM61xv4="
    fields = verified(VECTOR_TOKEN, HASHED, "application/json", BODY, signed)
    assert fields == {"property": "value", "boolean": "True"}
    with pytest.raises(Forged):
        verified(VECTOR_TOKEN, HASHED, "application/json", BODY + b" ", signed)
    with pytest.raises(Forged):  # as if it were a form that has no fields
        verified(VECTOR_TOKEN, HASHED, "text/plain", b"MessageSid=SM1", signed)
    bare = signature_of(VECTOR_TOKEN, PUBLISHED, [])
    with pytest.raises(Forged):  # what signs the URL alone does not cover a body
        verified(VECTOR_TOKEN, PUBLISHED, "application/json", BODY, bare)


_NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)


@given(
    st.lists(st.tuples(_NAMES, st.text(st.characters(codec="utf-8"), max_size=12)), max_size=12),
    st.sampled_from(
        ["https://a.example/x?y=%20z", "https://a.example:8443/", "http://a.example:80"]
    ),
)
def test_signatures_agree_with_twilios_own_library(pairs: list[tuple[str, str]], url: str) -> None:
    validator = RequestValidator(TOKEN)
    signed = str(validator.compute_signature(url, MultiDict(pairs)))
    assert signature_of(TOKEN, url, pairs) == signed
    fields = verified(TOKEN, url, FORM, urlencode(pairs).encode(), signed)
    assert fields == dict(reversed(pairs))
    assert validator.validate(url, MultiDict(pairs), signed)


@given(st.text(st.sampled_from("a%b=&+4E1f;é打~"), max_size=30), st.booleans())
def test_a_form_is_read_as_pythons_own_parser_reads_it(form: str, is_quoted: bool) -> None:
    body = (quote(form, safe="=&+%") if is_quoted else form).encode()
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, errors="strict")
    except ValueError:
        with pytest.raises(Forged):
            verified(TOKEN, "https://a.example/", FORM, body, "any")
        return
    signed = signature_of(TOKEN, "https://a.example/", pairs)
    fields = verified(TOKEN, "https://a.example/", FORM, body, signed)
    assert fields == dict(reversed(pairs))


@pytest.mark.parametrize("body", [b"[1]", b"{", b"\xff", b"[" * 100_000])
def test_a_signed_body_that_is_no_object_has_no_fields(body: bytes) -> None:
    url = f"{PUBLISHED}&bodySHA256={hashlib.sha256(body).hexdigest()}"
    signed = signature_of(TOKEN, url, [])
    assert verified(TOKEN, url, "application/json", body, signed) == {}


def test_a_url_that_is_none_is_signed_as_it_is() -> None:
    url = "https://a.example:x/"
    signed = signature_of(TOKEN, url, [("a", "b")])
    assert verified(TOKEN, url, FORM, b"a=b", signed) == {"a": "b"}


async def test_a_signed_text_is_stored_before_twilio_hears_so(
    provider: TwilioProvider, clock: FakeClock
) -> None:
    assert await provider.bring("+8613800000001", "打印机 🖨\x00坏了\n第二行", "t-1")
    (text,) = provider.inbox.texts
    assert text.id == sid_of("t-1")
    assert (text.sender, text.recipient) == ("+8613800000001", SENDER)
    assert text.text == "打印机 🖨坏了\n第二行"
    assert text.received_at == clock.now()
    assert not text.is_repaired


async def test_one_text_brought_many_times_is_one_by_its_id(provider: TwilioProvider) -> None:
    for _ in range(5):
        assert await provider.bring("+8613800000001", "hello", "t-1")
    assert {text.id for text in provider.inbox.texts} == {sid_of("t-1")}


async def test_what_was_not_stored_is_not_acknowledged(provider: TwilioProvider) -> None:
    provider.inbox.failing = True
    assert await provider.call(INBOUND, inbound(sid_of("t"), "+8613800000001", "x")) == 503
    assert not await provider.report(sid_of("o"), "n-1", delivered=True)
    provider.inbox.failing = False
    assert await provider.bring("+8613800000001", "x", "t")
    assert len(provider.inbox.texts) == 1


PAIRS = inbound(sid_of("t"), "+8613800000001", "hello")
REF = f"{STATUS}?ref=n-1"
REPORT = [("MessageSid", sid_of("t")), ("MessageStatus", "delivered")]
SIGNED = signature(PUBLIC + INBOUND, PAIRS)


@pytest.mark.parametrize(
    ("path", "pairs", "signed"),
    [
        (INBOUND, PAIRS, None),
        (INBOUND, PAIRS, ""),
        (INBOUND, PAIRS, "é\udce9"),
        (INBOUND, PAIRS, signature(PUBLIC + INBOUND, PAIRS, "another token")),
        (INBOUND, PAIRS, signature(f"http://127.0.0.1:8080{INBOUND}", PAIRS)),  # behind the proxy
        (INBOUND, PAIRS, signature(f"https://other.example.cn{INBOUND}", PAIRS)),
        (INBOUND, PAIRS, signature(f"http://desk.example.cn{INBOUND}", PAIRS)),
        (INBOUND, [*PAIRS, ("Body2", "")], SIGNED),
        (INBOUND, [*PAIRS, ("Body", "more")], SIGNED),
        (INBOUND, PAIRS[1:], SIGNED),
        (INBOUND + "?x=1", PAIRS, SIGNED),
        (STATUS, PAIRS, SIGNED),  # replayed elsewhere
        (f"{STATUS}?ref=n-2", REPORT, signature(PUBLIC + REF, REPORT)),
        (STATUS, REPORT, signature(PUBLIC + REF, REPORT)),
        (INBOUND, REPORT, signature(PUBLIC + REF, REPORT)),
    ],
)  # fmt: skip
async def test_who_is_not_twilio_gets_403_and_nothing_is_stored(
    provider: TwilioProvider, path: str, pairs: list[tuple[str, str]], signed: str | None
) -> None:
    headers = {} if signed is None else {"X-Twilio-Signature": signed}
    assert await provider.send(path, urlencode(pairs).encode(), headers) == 403
    assert provider.inbox.texts == []
    assert provider.inbox.reports == []
    assert provider.gateway.health()[0].figures["forged"] == 1


async def test_two_signatures_are_none(provider: TwilioProvider) -> None:
    body = urlencode(PAIRS).encode()
    headers = [("X-Twilio-Signature", SIGNED), ("X-Twilio-Signature", "x"), ("Content-Type", FORM)]
    async with provider.http.post(provider.site + INBOUND, data=body, headers=headers) as answer:
        assert answer.status == 403


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"Body=%ff%fe", FORM, 403),
        (b"&".join(b"a%d=1" % number for number in range(201)), FORM, 403),
        (b'{"MessageSid": "SM1"}', "application/json", 403),
        (b"--x\r\n\r\n--x--", "multipart/form-data; boundary=x", 403),
        (b"Body=" + b"x" * (128 << 10), FORM, 413),
        (b"Body=" + b"x" * (1 << 20), FORM, 413),
    ],
)  # fmt: skip
async def test_a_body_that_no_signature_can_cover_is_refused(
    provider: TwilioProvider, body: bytes, kind: str, status: int
) -> None:
    pairs = parse_qsl(body.decode(errors="replace"), keep_blank_values=True)
    for signed in (pairs, []):
        headers = {"X-Twilio-Signature": signature(PUBLIC + INBOUND, signed)}
        assert await provider.send(INBOUND, body, headers, kind) == status
    assert provider.inbox.texts == []


async def test_a_signed_request_that_is_no_text_is_refused(provider: TwilioProvider) -> None:
    assert await provider.call(INBOUND, [("MessageSid", "../x"), ("Body", "x")]) == 422
    assert await provider.call(STATUS, [("MessageStatus", "sent")]) == 422
    assert provider.inbox.texts == []


@pytest.mark.parametrize("kind", ["application/json", FORM])
async def test_a_body_with_its_hash_in_the_url_is_taken(
    provider: TwilioProvider, kind: str
) -> None:
    is_form = kind == FORM
    fields: list[tuple[str, Any]] = [*PAIRS, ("Body2", "\ud83d" if not is_form else "x")]
    body = urlencode(fields).encode() if is_form else json.dumps(dict(fields)).encode()
    path = f"{INBOUND}?bodySHA256={hashlib.sha256(body).hexdigest()}"
    headers = {"X-Twilio-Signature": signature(PUBLIC + path, fields if is_form else [])}
    assert await provider.send(path, body.replace(b"hello", b"hallo"), headers, kind) == 403
    assert await provider.send(path, body, headers, kind) == 200
    (text,) = provider.inbox.texts
    assert (text.id, text.text) == (sid_of("t"), "hello")


async def test_a_public_url_may_have_a_path(clock: FakeClock) -> None:
    async with twilio_provider(clock, public="https://example.cn/desk/") as provider:
        assert await provider.bring("+8613800000001", "hello", "t-1")
        await provider.gateway.submit(outgoing(ref="n-1"))
    (form,) = provider.twilio.forms
    assert form["StatusCallback"] == "https://example.cn/desk/sms/twilio/status?ref=n-1"


# Reports


@pytest.mark.parametrize(
    ("status", "delivery"),
    [
        ("accepted", None), ("scheduled", None), ("queued", None), ("sending", None),
        ("sent", Delivery.SENT), ("partially_delivered", Delivery.SENT),
        ("delivered", Delivery.DELIVERED), ("read", Delivery.DELIVERED),
        ("undelivered", Delivery.FAILED), ("failed", Delivery.FAILED),
        ("canceled", Delivery.FAILED), ("receiving", None), ("new in 2030", None), ("", None),
    ],
)  # fmt: skip
async def test_a_report_says_how_far_a_text_has_come(
    provider: TwilioProvider, status: str, delivery: Delivery | None
) -> None:
    pairs = [("MessageSid", sid_of("o")), ("MessageStatus", status), ("ErrorCode", "30007")]
    ref = "n-1/7 &ü"
    assert await provider.call(f"{STATUS}?ref={quote(ref, safe='')}", pairs) == 200
    if delivery is None:
        assert provider.inbox.reports == []
    else:
        (report,) = provider.inbox.reports
        assert (report.delivery, report.message_id) == (delivery, sid_of("o"))
        assert (report.ref, report.error) == (ref, "30007")


async def test_a_report_that_overtakes_the_answer_names_the_text(provider: TwilioProvider) -> None:
    provider.fail(Fault.SILENT)
    async with asyncio.TaskGroup() as tasks:
        sending = tasks.create_task(_unknown(provider))
        while not provider.twilio.messages:
            await asyncio.sleep(0.01)
        url = provider.twilio.forms[0]["StatusCallback"]
        sid = provider.twilio.messages[0]["sid"]
        pairs = [("MessageSid", sid), ("MessageStatus", "delivered")]
        assert await provider.call(url.removeprefix(PUBLIC), pairs) == 200
        assert not sending.done()
    (report,) = provider.inbox.reports
    assert (report.ref, report.message_id) == ("n-1", sid)


async def _unknown(provider: TwilioProvider) -> None:
    with pytest.raises(SendUnknown):
        await provider.gateway.submit(outgoing(ref="n-1"))


# Files


def _file(provider: TwilioProvider, name: str) -> tuple[str, str]:
    """Return the path of a file, and its address."""
    path = f"{ROOT}/Messages/{sid_of('m', 'MM')}/Media/{name}"
    return path, provider.twilio.url + path


async def _bring_files(provider: TwilioProvider, *urls: str) -> int:
    pairs = inbound(sid_of("m", "MM"), "+8613800000001", "see", *[(u, "image/jpeg") for u in urls])
    return await provider.call(INBOUND, pairs)


async def test_files_are_fetched_and_credentials_stay_with_the_api(
    provider: TwilioProvider,
) -> None:
    path, url = _file(provider, "ME1")
    provider.twilio.files[path] = ("image/png; x=y", b"\x89PNG")
    assert await _bring_files(provider, url) == 200
    (text,) = provider.inbox.texts
    (file,) = text.media
    assert (file.content, file.media_type, file.name) == (b"\x89PNG", "image/png", "ME1.png")
    assert text.text == "see"
    assert provider.twilio.seen == [(path, True), (f"store:{path}", False)]


async def test_a_file_that_cannot_be_fetched_is_named_and_the_text_is_kept(
    provider: TwilioProvider,
) -> None:
    path, url = _file(provider, "ME1")
    provider.twilio.files[path] = ("image/png", b"\x89PNG")
    gone, gone_url = _file(provider, "ME2")
    assert await _bring_files(provider, gone_url, url) == 200
    (text,) = provider.inbox.texts
    assert len(text.media) == 1
    assert text.text == (
        "see\n[1 个文件未能取回；1 file could not be fetched: " + gone.removeprefix(ROOT) + "]"
    )


async def test_a_redirection_to_a_stranger_is_not_followed(provider: TwilioProvider) -> None:
    asked = []

    async def stranger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.close()

    server = await asyncio.start_server(stranger, "127.0.0.2", 0)
    port = server.sockets[0].getsockname()[1]
    path, url = _file(provider, "ME1")
    for target in (f"http://127.0.0.2:{port}/x", "file:///etc/passwd", "//", "http://[::1", ""):
        provider.twilio.files[path] = target
        assert await _bring_files(provider, url) == 200
    async with server:
        server.close()
    assert asked == []
    assert [text.media for text in provider.inbox.texts] == [()] * 5
    assert all("1 file could not be fetched" in text.text for text in provider.inbox.texts)


@pytest.mark.parametrize(
    "url",
    [
        "http://api.twilio.com/x", "https://api.twilio.com:8443/x", "https://127.0.0.1/x",
        "https://api.twilio.com.example.cn/x", "https://api.twilio.com@127.0.0.1/x",
        "https://me:it@api.twilio.com/x", "https://example.cn\\@api.twilio.com/x",
        "ftp://api.twilio.com/x", "/x", "", "https://[x/", "https://api.twilio.com:x/",
    ],
)  # fmt: skip
async def test_files_come_from_twilios_hosts_by_https_only(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def connect(*_: object, **__: object) -> None:
        raise AssertionError("it was asked")

    monkeypatch.setattr(aiohttp.TCPConnector, "connect", connect)
    store = MediaStore(settings())
    async with store.opened():
        fetched = await store.fetch([Located(url=url, media_type="")])
        assert (fetched.files, len(fetched.missed)) == ((), 1)
        with pytest.raises(AssertionError):  # what is allowed is asked
            await store.fetch([Located(url="https://mms.twiliocdn.com/x", media_type="")])


async def test_files_have_limits_of_size_number_and_time(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twilio_media, "ALL_S", 0.5)
    monkeypatch.setattr(twilio_media, "MOST_TOGETHER", 250)
    async with twilio_provider(clock, most_media_bytes=100) as provider:
        urls = []
        contents: list[tuple[str, bytes]] = [
            ("a/b", b"x" * 100), ("a/b", b"x" * 101), ("chunked", b"x" * 101), ("a/b", b"y" * 100),
            ("a/b", b"z" * 51), ("a/b", b"z" * 50), *[("a/b", b"")] * 6,
        ]  # fmt: skip
        for number, content in enumerate(contents):
            path, url = _file(provider, f"ME{number}")
            provider.twilio.files[path] = content
            urls.append(url)
        assert await _bring_files(provider, *urls) == 200
        path, url = _file(provider, "MEhangs")
        provider.twilio.files[path] = ("hangs", b"")
        begun = asyncio.get_running_loop().time()
        assert await _bring_files(provider, urls[0], url, urls[3]) == 200
        assert asyncio.get_running_loop().time() - begun < 2
    many, slow = provider.inbox.texts
    assert [len(file.content) for file in many.media] == [100, 100, 50, 0, 0, 0, 0]
    assert "[5 " in many.text
    assert [len(file.content) for file in slow.media] == [100]
    assert "2 files could not be fetched" in slow.text
    assert "MEhangs" in slow.text


async def test_a_text_without_files_does_not_wait_for_the_files_of_others(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twilio_media, "AT_ONCE", 1)
    monkeypatch.setattr(twilio_media, "ALL_S", 5.0)
    async with twilio_provider(clock) as provider, asyncio.TaskGroup() as tasks:
        path, url = _file(provider, "MEhangs")
        provider.twilio.files[path] = ("hangs", b"")
        slow = tasks.create_task(_bring_files(provider, url))
        await asyncio.sleep(0.3)
        begun = asyncio.get_running_loop().time()
        assert await provider.call(INBOUND, PAIRS) == 200
        assert asyncio.get_running_loop().time() - begun < 2
        assert not slow.done()
        slow.cancel()


async def test_a_count_of_files_that_is_none_does_no_harm(provider: TwilioProvider) -> None:
    for told in ("-1", "x", "99999999", "²", ""):
        pairs = [*[p for p in PAIRS if p[0] != "NumMedia"], ("NumMedia", told)]
        assert await provider.call(INBOUND, pairs) == 200
    assert [text.text for text in provider.inbox.texts] == ["hello"] * 5


# Configuration


def test_everything_that_is_missing_is_said_at_once() -> None:
    given = TwilioSettings.model_validate({"sender": "+1 500", "api_url": "ftp://x"})
    with pytest.raises(ConfigurationError) as raised:
        TwilioGateway(given, FakeInbox(), FakeClock(), "http://desk.example.cn")
    said = str(raised.value)
    assert len(said.splitlines()) == 5
    for key in ("account_sid", "auth_token", "sender", "api_url", "http.public_url"):
        assert key in said


@pytest.mark.parametrize("url", ["", "desk.example.cn", "http://desk.example.cn", "https://a/?x=1"])
def test_twilio_needs_an_address_to_call(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"http\.public_url"):
        TwilioGateway(settings(), FakeInbox(), FakeClock(), url)


def test_the_client_costs_nothing_where_it_is_not_used() -> None:
    code = "import sys, contactd.sms.twilio; sys.exit('twilio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
