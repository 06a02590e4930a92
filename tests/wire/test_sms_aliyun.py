"""Aliyun: the SDK against its service, templates instead of words, callbacks that nobody signs."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client import generate_latest
from structlog.testing import capture_logs

from contactd.errors import ConfigurationError, PermanentFailure, TemporaryFailure
from contactd.lab.ports import free_port
from contactd.routing.notify import Busy, Reason, SendUnknown, Trace
from contactd.service import HealthState
from contactd.settings import AliyunSettings
from contactd.sms.aliyun import _CODES, AT_ONCE, SETTLES, AliyunGateway
from contactd.sms.aliyun_templates import LONGEST_PARAMETER, Template, parse
from contactd.sms.gateway import Delivery, Found, Report, Unroutable
from tests.fakes.clock import FakeClock
from tests.fakes.sms import FakeInbox, Fault, handed, outgoing
from tests.fakes.sms_aliyun import (
    KEY,
    PATH_SECRET,
    TEMPLATES,
    AliyunProvider,
    aliyun_provider,
    settings,
)

ETC = Path(__file__).parents[2] / "etc"
UP = {
    "phone_number": "13800000001", "content": "打印机坏了", "send_time": "2026-11-20 10:00:00",
    "dest_code": "1234", "sequence_id": "1234567890",
}  # fmt: skip
REPORT = {
    "phone_number": "13800000001", "success": True, "err_code": "DELIVERED", "biz_id": "12345^0",
    "out_id": "n-1", "report_time": "2026-11-20 10:00:05",
}  # fmt: skip


@pytest.fixture
async def aliyun() -> AsyncIterator[AliyunProvider]:
    async with aliyun_provider() as provider:
        yield provider


def params_of(aliyun: AliyunProvider) -> dict[str, str]:
    known: dict[str, str] = json.loads(aliyun.asked[-1]["TemplateParam"])
    return known


# Texts out ---------------------------------------------------------------------------------------


async def test_a_text_goes_out_as_a_template_with_its_parameters(aliyun: AliyunProvider) -> None:
    assert await aliyun.gateway.submit(outgoing(ref="received-1")) == "1^0"
    (asked,) = aliyun.asked
    names = ("PhoneNumbers", "SignName", "TemplateCode", "OutId")
    assert [asked[name] for name in names] == [
        "13800000001", "示例公司", "SMS_100000001", "received-1",
    ]  # fmt: skip
    assert params_of(aliyun) == {"ticket": "26112000017", "site": "广州"}


async def test_parameters_are_as_short_as_they_have_to_be_and_never_empty(
    aliyun: AliyunProvider,
) -> None:
    title = "【紧急】" + "打印机卡纸" * 20
    facts = {"title": title}
    await aliyun.gateway.submit(outgoing(reason=Reason.NEW, facts=facts))
    assert params_of(aliyun)["title"] == ("[紧急]" + "打印机卡纸" * 20)[:LONGEST_PARAMETER]
    await aliyun.gateway.submit(outgoing(reason=Reason.NEW, facts={}))
    assert params_of(aliyun)["title"] == "-"


@pytest.mark.parametrize(
    "changes",
    [
        {"reason": Reason.SOLVED},
        {"language": "en"},
        {"number": "+447700900123"},
        {"number": "8001"},
    ],
)
async def test_what_no_template_is_for_is_left_to_another_gateway(
    aliyun: AliyunProvider, changes: dict[str, Any]
) -> None:
    with pytest.raises(Unroutable):
        await aliyun.gateway.submit(outgoing(**changes))
    assert aliyun.asked == []


@pytest.mark.parametrize(("code", "kind", "remedy"), [(c, *known) for c, known in _CODES.items()])
async def test_each_code_says_what_became_of_the_text_and_what_to_do(
    aliyun: AliyunProvider, code: str, kind: type[Exception], remedy: str
) -> None:
    aliyun.says = (200, json.dumps({"Code": code, "Message": "…"}))
    with pytest.raises(kind) as raised:
        await aliyun.gateway.submit(outgoing())
    assert type(raised.value) is kind
    (health,) = aliyun.gateway.health()
    assert (health.state is HealthState.DEGRADED) == bool(remedy)
    assert remedy in health.detail
    await aliyun.gateway.submit(outgoing())
    assert aliyun.gateway.health()[0].state is HealthState.UP


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, '{"Code": "isv.NEVER_HEARD_OF"}', TemporaryFailure),
        (400, '{"Code": "SignatureDoesNotMatch"}', TemporaryFailure),
        (404, '{"Code": "Never.Heard.Of"}', TemporaryFailure),
        (429, '{"Code": "Throttling.User"}', Busy),
        (503, '{"Code": "ServiceUnavailable"}', TemporaryFailure),
        (500, '{"Code": "InternalError"}', SendUnknown),
        (502, "<html>Bad Gateway</html>", SendUnknown),
        (200, '{"Code": "OK", "BizI', SendUnknown),
        (200, "", SendUnknown),
        (200, "[]", SendUnknown),
        (200, '"OK"', SendUnknown),
        (200, "{}", SendUnknown),
        (200, '{"Code": 0}', SendUnknown),
    ],
)
async def test_an_answer_that_is_none_leaves_the_outcome_open(
    aliyun: AliyunProvider, status: int, body: str, kind: type[Exception]
) -> None:
    aliyun.says = (status, body)
    with pytest.raises(kind) as raised:
        await aliyun.gateway.submit(outgoing())
    assert type(raised.value) is kind
    assert len(aliyun.asked) == 1, "it is not sent a second time"
    expected = HealthState.UP if kind is Busy else HealthState.DEGRADED
    assert aliyun.gateway.health()[0].state is expected


async def test_a_wrong_key_is_told_to_the_operator_and_the_key_to_nobody() -> None:
    async with aliyun_provider(access_key_secret="another") as aliyun:
        with pytest.raises(TemporaryFailure, match="SignatureDoesNotMatch") as raised:
            await aliyun.gateway.submit(outgoing())
        (health,) = aliyun.gateway.health()
    assert "sms.aliyun.access_key_id" in health.detail
    assert "another" not in health.detail + str(raised.value)


@pytest.mark.parametrize("fault", [Fault.SILENT, Fault.LOST])
async def test_silence_ends_within_the_deadline_and_says_nothing(
    aliyun: AliyunProvider, fault: Fault
) -> None:
    aliyun.fail(fault)
    async with asyncio.timeout(3):
        with pytest.raises(SendUnknown):
            await aliyun.gateway.submit(outgoing())
    assert len(aliyun.asked) == 1


async def test_a_cut_connection_leaves_the_outcome_open(aliyun: AliyunProvider) -> None:
    aliyun.drops = True
    with pytest.raises(SendUnknown):
        await aliyun.gateway.submit(outgoing())
    assert len(await aliyun.sent()) == 1


async def test_without_a_connection_nothing_has_gone_out() -> None:
    async with aliyun_provider(endpoint=f"127.0.0.1:{free_port()}") as aliyun:
        with pytest.raises(TemporaryFailure) as raised:
            await aliyun.gateway.submit(outgoing())
        assert type(raised.value) is TemporaryFailure
        assert "sms.aliyun.endpoint" in aliyun.gateway.health()[0].detail


async def test_only_so_many_texts_are_on_their_way_at_once(aliyun: AliyunProvider) -> None:
    for _ in range(AT_ONCE):
        aliyun.fail(Fault.SILENT)
    sends = [aliyun.gateway.submit(outgoing(ref=f"n-{number}")) for number in range(AT_ONCE + 2)]
    ends = await asyncio.gather(*sends, return_exceptions=True)
    assert [type(end) for end in ends] == [SendUnknown] * AT_ONCE + [Busy] * 2
    assert await aliyun.gateway.submit(outgoing())


async def test_nothing_is_sent_before_it_runs(tmp_path: Path) -> None:
    gateway = AliyunGateway(settings(tmp_path), FakeInbox(), FakeClock())
    with pytest.raises(TemporaryFailure, match="not running"):
        await gateway.submit(outgoing())


# What became of a text ---------------------------------------------------------------------------


async def test_a_text_of_unknown_outcome_is_found_by_its_ref(aliyun: AliyunProvider) -> None:
    aliyun.fail(Fault.SILENT)
    with pytest.raises(SendUnknown):
        await aliyun.gateway.submit(outgoing(ref="n-7"))
    at = aliyun.clock.now()
    aliyun.clock.advance(SETTLES)
    found = await aliyun.gateway.find(handed(outgoing(ref="n-7"), "aliyun", at))
    assert found == Found(trace=Trace.SENT)
    other = await aliyun.gateway.find(handed(outgoing(ref="n-8"), "aliyun", at))
    assert other == Found(trace=Trace.NEVER)


async def test_it_is_not_taken_for_lost_before_the_records_have_settled(
    aliyun: AliyunProvider,
) -> None:
    text = handed(outgoing(), "aliyun", aliyun.clock.now())
    with pytest.raises(TemporaryFailure, match="not have it yet"):
        await aliyun.gateway.find(text)
    aliyun.clock.advance(SETTLES)
    assert (await aliyun.gateway.find(text)).trace is Trace.NEVER


async def test_the_day_is_that_of_china_and_midnight_belongs_to_two(aliyun: AliyunProvider) -> None:
    at = datetime(2026, 11, 20, 15, 59, 30, tzinfo=UTC)  # 23:59:30 in China
    query = {"PhoneNumbers": "13800000001", "OutId": "n-1", "TemplateCode": "SMS_100000001"}
    aliyun.take("9^0", query, at + timedelta(seconds=40))
    found = await aliyun.gateway.find(handed(outgoing(), "aliyun", at))
    assert found.trace is Trace.SENT
    assert [asked["SendDate"] for asked in aliyun.asked] == ["20261120", "20261121"]


async def test_every_page_of_the_records_is_looked_at(aliyun: AliyunProvider) -> None:
    at = datetime(2026, 11, 20, 4, tzinfo=UTC)
    for number in range(120):
        query = {"PhoneNumbers": "13800000001", "TemplateCode": "SMS_1"}
        aliyun.take(f"{number}^0", query | {"OutId": f"n-{number}"}, at)
    found = await aliyun.gateway.find(handed(outgoing(ref="n-119"), "aliyun", at))
    assert found.trace is Trace.SENT
    assert [asked["CurrentPage"] for asked in aliyun.asked] == ["1", "2", "3"]


async def test_a_text_with_an_id_is_asked_for_by_it(aliyun: AliyunProvider) -> None:
    biz_id = await aliyun.gateway.submit(outgoing())
    found = await aliyun.gateway.find(handed(outgoing(), "aliyun", aliyun.clock.now(), biz_id))
    assert found == Found(trace=Trace.SENT, message_id=biz_id)
    assert aliyun.asked[-1]["BizId"] == biz_id


@pytest.mark.parametrize(
    "said",
    [
        (200, '{"Code": "isv.MOBILE_NUMBER_ILLEGAL"}'),
        (500, "{}"),
        (200, '{"Code": "OK"}'),
        (200, '{"Code": "OK", "SmsSendDetailDTOs": {"SmsSendDetailDTO": []}, "TotalCount": "x"}'),
        (
            200,
            '{"Code": "OK", "SmsSendDetailDTOs": {"SmsSendDetailDTO": []}, "TotalCount": "9999"}',
        ),
        (200, '{"Code": "OK", "SmsSendDetailDTOs": {"SmsSendDetailDTO": 5}}'),
    ],
)
async def test_records_that_cannot_be_read_say_nothing(
    aliyun: AliyunProvider, said: tuple[int, str]
) -> None:
    aliyun.says, aliyun.keeps_saying = said, True
    at = aliyun.clock.now() - timedelta(hours=1)
    with pytest.raises(TemporaryFailure) as raised:
        await aliyun.gateway.find(handed(outgoing(), "aliyun", at))
    assert type(raised.value) is TemporaryFailure


async def test_there_is_no_list_of_what_came_in(aliyun: AliyunProvider) -> None:
    now = aliyun.clock.now()
    await aliyun.gateway.listed(now, now)
    assert aliyun.asked == []


# What Aliyun calls -------------------------------------------------------------------------------


async def test_a_text_is_acknowledged_once_it_is_stored(aliyun: AliyunProvider) -> None:
    aliyun.inbox.failing = True
    assert await aliyun.call("up", json.dumps([UP])) == 503
    aliyun.inbox.failing = False
    assert await aliyun.call("up", json.dumps([UP])) == 200
    (text,) = aliyun.inbox.texts
    assert (text.id, text.sender, text.recipient, text.text, text.received_at) == (
        "1234567890", "+8613800000001", "1234", "打印机坏了", datetime(2026, 11, 20, 2, tzinfo=UTC),
    )  # fmt: skip


async def test_a_report_is_acknowledged_once_it_is_stored(aliyun: AliyunProvider) -> None:
    aliyun.inbox.failing = True
    assert await aliyun.call("report", json.dumps([REPORT])) == 503
    aliyun.inbox.failing = False
    failed = REPORT | {"success": False, "err_code": "MOBILE_IN_BLACK", "biz_id": "12346^0"}
    assert await aliyun.call("report", json.dumps([REPORT, failed])) == 200
    assert aliyun.inbox.reports == [
        Report(delivery=Delivery.DELIVERED, message_id="12345^0", ref="n-1"),
        Report(delivery=Delivery.FAILED, message_id="12346^0", ref="n-1", error="MOBILE_IN_BLACK"),
    ]


@pytest.mark.parametrize("end", ["up", "report"])
async def test_a_wrong_secret_and_a_foreign_address_see_a_path_that_does_not_exist(
    aliyun: AliyunProvider, end: str
) -> None:
    body = json.dumps([UP | REPORT])
    for secret in ("guess", PATH_SECRET[:-1], PATH_SECRET + "x", PATH_SECRET.lower(), "%E4%B8%AD"):
        assert await aliyun.call(end, body, secret=secret) == 404
    assert await aliyun.call(end, body, peer="127.0.0.2") == 404
    assert (aliyun.inbox.texts, aliyun.inbox.reports) == ([], [])
    assert await aliyun.call(end, body) == 200


async def test_a_wrong_secret_is_answered_like_any_unknown_path(aliyun: AliyunProvider) -> None:
    answers = set()
    async with aiohttp.ClientSession() as client:
        for path in ("/sms/aliyun/guess/up", "/sms/aliyun/guess/nothing", "/sms/nobody/guess/up"):
            async with client.post(aliyun.url + path, data="[]") as answer:
                kept = {name for name in answer.headers if name != "Date"}
                answers.add((answer.status, await answer.text(), frozenset(kept)))
    assert len(answers) == 1


@pytest.mark.parametrize(
    ("changes", "forwarded", "status"),
    [
        ({"allowed": ()}, None, 404),
        ({"allowed": ("10.0.0.0/8",)}, "10.1.2.3", 404),  # nobody's word but a proxy's
        ({"allowed": ("10.0.0.0/8",), "proxies": ("127.0.0.1",)}, "10.1.2.3", 200),
        ({"allowed": ("10.0.0.0/8",), "proxies": ("127.0.0.1",)}, "10.1.2.3, 192.0.2.1", 404),
        ({"allowed": ("10.0.0.0/8",), "proxies": ("127.0.0.1",)}, "192.0.2.1, 10.1.2.3", 200),
        (
            {"allowed": ("10.0.0.0/8",), "proxies": ("127.0.0.1", "192.0.2.0/24")},
            "198.51.100.1, 10.1.2.3, 192.0.2.1",
            200,
        ),
        ({"allowed": ("127.0.0.1",), "proxies": ("127.0.0.1",)}, None, 404),  # the proxy's own
        ({"allowed": ("127.0.0.1",), "proxies": ("127.0.0.1",)}, "nonsense", 404),
        ({"allowed": ("2001:db8::/32",), "proxies": ("127.0.0.1",)}, "2001:db8::7", 200),
        ({"allowed": ("10.0.0.0/8",), "proxies": ("127.0.0.1",)}, "::ffff:10.1.2.3", 200),
    ],
)
async def test_behind_a_proxy_its_word_counts_and_nobody_elses(
    changes: dict[str, Any], forwarded: str | None, status: int
) -> None:
    headers = {"X-Forwarded-For": forwarded} if forwarded else {}
    async with aliyun_provider(**changes) as aliyun:
        assert await aliyun.call("up", json.dumps([UP]), **headers) == status
        assert len(aliyun.inbox.texts) == (status == 200)


async def test_without_a_secret_there_is_no_path(tmp_path: Path) -> None:
    gateway = AliyunGateway(settings(tmp_path, path_secret=""), FakeInbox(), FakeClock())
    assert gateway.routes() == ()


async def test_the_secret_is_in_no_log_and_no_metric(aliyun: AliyunProvider) -> None:
    with capture_logs() as logs:
        await aliyun.call("up", json.dumps([UP, {}]))
        await aliyun.call("up", "no JSON")
        await aliyun.call("up", json.dumps([UP]), peer="127.0.0.2")
        await aliyun.call("nothing", json.dumps([UP]))
    kept = repr(logs) + generate_latest().decode()
    assert "{secret}" in kept, "requests are on the log"
    assert PATH_SECRET not in kept
    assert UP["content"] not in kept
    assert UP["phone_number"] not in kept
    assert KEY not in kept


@pytest.mark.parametrize(
    "broken",
    [
        None, 5, "text", [], {}, {"content": "x"}, {"phone_number": "13800000001"},
        UP | {"content": ""}, UP | {"content": " \n"}, UP | {"content": None},
        UP | {"content": {"a": 1}}, UP | {"phone_number": True}, UP | {"phone_number": " "},
    ],
)  # fmt: skip
async def test_a_broken_text_costs_no_other(aliyun: AliyunProvider, broken: Any) -> None:
    items = [UP | {"sequence_id": 1}, broken, UP | {"sequence_id": 2}]
    assert await aliyun.call("up", json.dumps(items)) == 200
    assert [text.id for text in aliyun.inbox.texts] == ["1", "2"]
    assert aliyun.gateway.health()[0].figures["broken_items"] == 1


@pytest.mark.parametrize(
    "broken",
    [
        None, "text", {}, REPORT | {"success": "maybe"}, REPORT | {"success": 1},
        {"success": True}, REPORT | {"biz_id": "", "out_id": None},
    ],
)  # fmt: skip
async def test_a_broken_report_costs_no_other(aliyun: AliyunProvider, broken: Any) -> None:
    items = [REPORT | {"out_id": "n-1"}, broken, REPORT | {"out_id": "n-2"}]
    assert await aliyun.call("report", json.dumps(items)) == 200
    assert [report.ref for report in aliyun.inbox.reports] == ["n-1", "n-2"]


@pytest.mark.parametrize("body", ["", "no JSON", "{}", "5", '"text"', "[" * 100_000, b"\xff\xfe["])
async def test_what_is_no_array_is_refused(aliyun: AliyunProvider, body: str | bytes) -> None:
    assert await aliyun.call("up", body) == 400


@pytest.mark.parametrize("refusal", [PermanentFailure("too long"), TemporaryFailure("away")])
async def test_a_text_that_cannot_be_stored_costs_no_other(
    aliyun: AliyunProvider, refusal: Exception
) -> None:
    class Choosy(FakeInbox):
        async def received(self, gateway: str, text: Any) -> None:
            if text.id == "2":
                raise refusal
            await FakeInbox.received(self, gateway, text)

    inbox = aliyun.gateway._inbox = Choosy()
    items = [UP | {"sequence_id": number} for number in (1, 2, 3)]
    expected = 503 if isinstance(refusal, TemporaryFailure) else 200
    assert await aliyun.call("up", json.dumps(items)) == expected
    assert [text.id for text in inbox.texts] == ["1", "3"]


async def test_a_text_without_an_id_has_the_same_one_whenever_it_comes(
    aliyun: AliyunProvider,
) -> None:
    bare = {name: value for name, value in UP.items() if name != "sequence_id"}
    for item in (bare, bare, bare | {"content": "别的"}):
        assert await aliyun.call("up", json.dumps([item])) == 200
    first, again, other = (text.id for text in aliyun.inbox.texts)
    assert first == again
    assert first != other


@pytest.mark.parametrize("told", ["", "gestern", "0001-01-01 00:00:00", "2026-13-01 00:00:00"])
async def test_a_text_with_a_wrong_time_came_in_now(aliyun: AliyunProvider, told: str) -> None:
    assert await aliyun.call("up", json.dumps([UP | {"send_time": told}])) == 200
    assert aliyun.inbox.texts[0].received_at == aliyun.clock.now()


async def test_words_that_no_database_takes_are_mended(aliyun: AliyunProvider) -> None:
    content = "坏\0了\ud83d\ude00\ud83d"
    assert await aliyun.call("up", json.dumps([UP | {"content": content}])) == 200
    assert aliyun.inbox.texts[0].text == "坏了😀�"


# The file of templates, and the settings ---------------------------------------------------------


def test_every_error_of_the_templates_is_told_at_once() -> None:
    text = """
        [received.zh]
        code = "SMS_1"
        params.ticket = "{ticket}"
        [nothing.zh]
        code = "SMS_2"
        [solved]
        [code.fr]
        code = "SMS_3"
        [closed.zh]
        code = "123"
        params.ticket = "{ticket}"
        colour = "red"
        [new.zh]
        code = "SMS_5"
        params.site = "{site}"
        [new.en]
        code = "SMS_6"
        params = "{ticket}"
        [missed.zh]
        code = "SMS_7"
        params.ticket = "{ticket.__class__}"
        params.a = "{ticket:99999}"
        params.b = "{ticket"
        params.c = "{send}"
        params.d = ""
        params.e = 5
        params."f-g" = "x"
    """
    with pytest.raises(ConfigurationError) as raised:
        parse(text)
    lines = str(raised.value).splitlines()
    assert [line.partition(": ")[0] for line in lines] == [
        "nothing", "solved", "code.fr", "closed.zh.colour", "closed.zh.code", "new.zh.params",
        "new.en.params", "missed.zh.params.ticket", "missed.zh.params.a", "missed.zh.params.b",
        "missed.zh.params.c", "missed.zh.params.d", "missed.zh.params.e", "missed.zh.params.f-g",
        "missed.zh.params",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", "# only words", "[received.zh", "received = 5"])
def test_a_file_without_templates_is_an_error(text: str) -> None:
    with pytest.raises(ConfigurationError):
        parse(text)


def test_the_sample_is_right_once_its_examples_are_used() -> None:
    text = (ETC / "aliyun-templates.toml").read_text(encoding="utf-8")
    used = re.sub(r"(?m)^# (\[[a-z-]+\.zh\]|code = |params\.)", r"\1", text)
    templates = parse(used)
    assert len(templates.known) == len(re.findall("(?m)^code = ", used)) == 6
    for (reason, language), template in templates.known.items():
        note = outgoing(reason=reason, language=language).notification
        assert template.filled(note)["ticket"] == "26112000017"
    for reason in Reason:
        assert reason in text, f"the sample names {reason}"


def test_a_parameter_is_filled_with_the_words_of_a_mail() -> None:
    facts = {
        "metric": "arrival", "percent": "75", "due": "2026-11-22T10:30:00+00:00",
        "zone": "Asia/Shanghai", "vip": "1",
    }  # fmt: skip
    note = outgoing(reason=Reason.WARNING, facts=facts, name="王伟\n李娜").notification
    template = Template(
        code="SMS_1",
        params={"a": "{metric}{percent}%", "b": "{due}", "c": "{vip}", "d": "{name}", "e": "{{x}}"},
    )
    assert template.filled(note) == {
        "a": "到场75%", "b": "11月22日18:30", "c": "VIP", "d": "王伟 李娜", "e": "{x}",
    }  # fmt: skip


def test_every_error_of_the_section_is_told_at_once(tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text(TEMPLATES.replace("SMS_", "S"), encoding="utf-8")
    with pytest.raises(ConfigurationError) as raised:
        AliyunGateway(AliyunSettings(templates_file=bad), FakeInbox(), FakeClock())
    lines = str(raised.value).splitlines()
    assert len(lines) == 5
    for number, key in enumerate(("access_key_id", "access_key_secret", "sign_name")):
        assert lines[number].startswith(f"sms.aliyun.{key}: ")
    assert all(line.startswith(f"sms.aliyun.templates_file: {bad}: ") for line in lines[3:])


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "absent.toml"
    if content is not None:
        path.write_bytes(content)
    given = settings(tmp_path, templates_file=path)
    with pytest.raises(ConfigurationError, match=r"absent\.toml"):
        AliyunGateway(given, FakeInbox(), FakeClock())


@pytest.mark.parametrize("secret", ["short", "x" * 19, "with/slash-and-more-signs", "中" * 30])
def test_a_secret_that_can_be_guessed_is_an_error(tmp_path: Path, secret: str) -> None:
    with pytest.raises(ValueError, match="path_secret must be"):
        settings(tmp_path, path_secret=secret)


@pytest.mark.parametrize("name", ["allowed", "proxies"])
def test_a_network_that_is_none_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        settings(tmp_path, **{name: ("aliyun.com",)})
