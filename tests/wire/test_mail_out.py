"""Mails against a real SMTP server: what arrives, and what each fault of the smart host means."""

import asyncio
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest

from contactd.errors import ConfigurationError, PermanentFailure, TemporaryFailure
from contactd.mail.outgoing import Mails
from contactd.routing.notify import Notification, Reason, SendUnknown, Trace
from contactd.service import HealthState
from contactd.settings import MailSettings
from contactd.tickets.contact import Medium
from tests.fakes.clock import FakeClock
from tests.fakes.smart_host import (
    PASSWORD,
    USERNAME,
    make_certificate,
    smart_host,
    stranger,
)

SENDER = "desk@desk.example.cn"


def mails(port: int, clock: FakeClock, **settings: Any) -> Mails:
    given = {"host": "127.0.0.1", "port": port, "sender": SENDER, "security": "none", **settings}
    return Mails(MailSettings.model_validate(given), service="服务台", clock=clock)


def notification(**changes: Any) -> Notification:
    given: dict[str, Any] = {
        "ref": "n-1-7", "ticket": "26112000017", "recipient": "wang", "name": "王伟",
        "medium": Medium.MAIL, "address": "wang.wei@example.cn", "language": "zh",
        "reason": Reason.NEW, "facts": {"site_name": "广州", "title": "打印机 <b>不动"},
    }  # fmt: skip
    return Notification(**{**given, **changes})


async def test_a_mail_arrives_in_both_forms_with_its_number_and_how_to_answer(
    clock: FakeClock,
) -> None:
    async with smart_host() as host:
        await mails(host.port, clock).send(notification())
    (mail,), (envelope,) = host.mails(), host.taken
    assert (envelope.mail_from, envelope.rcpt_tos) == (SENDER, ["wang.wei@example.cn"])
    assert str(mail["From"]) == f"服务台 <{SENDER}>"
    assert str(mail["To"]) == "王伟 <wang.wei@example.cn>"
    assert str(mail["Subject"]).startswith("[26112000017] 新工单")
    text, html = (mail.get_body([kind]) for kind in ("plain", "html"))
    assert text is not None
    assert html is not None
    assert "“1 26112000017”接单" in text.get_content()
    assert "打印机 &lt;b&gt;不动" in html.get_content()
    assert parsedate_to_datetime(mail["Date"]) == clock.now()


async def test_no_machine_answers_a_mail_of_ours(clock: FakeClock) -> None:
    async with smart_host() as host:
        await mails(host.port, clock).send(notification())
    (mail,) = host.mails()
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["X-Auto-Response-Suppress"] == "All"
    assert mail["In-Reply-To"] is None


async def test_the_message_id_is_made_of_the_ref_and_stays_the_same(clock: FakeClock) -> None:
    async with smart_host() as host:
        for _ in range(2):  # two daemons, or one that was started again
            await mails(host.port, clock).send(notification())
        await mails(host.port, clock).send(notification(ref="n-1>.8"))
    first, again, other = (mail["Message-ID"] for mail in host.mails())
    assert first == again == "<n-1-7@desk.example.cn>"
    assert other == "<n-1=3e==2e=8@desk.example.cn>"


async def test_what_was_accepted_is_known_and_not_sent_again(clock: FakeClock) -> None:
    async with smart_host() as host:
        out = mails(host.port, clock)
        await out.send(notification())
        await out.send(notification())
        assert len(host.taken) == 1
        assert await out.find("n-1-7") is Trace.SENT
        assert await out.find("n-1-8") is Trace.UNKNOWN
        await out.stop(["n-1-7"])
        assert await out.find("n-1-7") is Trace.SENT


@pytest.mark.parametrize(
    "address",
    ["", "wang", "wang@", "@example.cn", "wang@example.cn\r\nRCPT TO:<x@y>", "wang@a, li@b",
     "王@example.cn", "a@[", "wang <wang@example.cn>"],
)  # fmt: skip
async def test_what_is_no_address_is_refused_for_good_without_asking_anybody(
    clock: FakeClock, address: str
) -> None:
    async with smart_host() as host:
        with pytest.raises(PermanentFailure):
            await mails(host.port, clock).send(notification(address=address))
    assert host.connections == 0


async def test_a_name_or_a_title_cannot_add_a_header(clock: FakeClock) -> None:
    hostile = "王伟\r\nBcc: everybody@example.cn\r\n\r\nhello"
    async with smart_host() as host:
        await mails(host.port, clock).send(notification(name=hostile, facts={"title": hostile}))
    (mail,) = host.mails()
    assert mail["Bcc"] is None
    assert mail["To"].addresses[0].addr_spec == "wang.wei@example.cn"
    assert host.taken[0].rcpt_tos == ["wang.wei@example.cn"]


# What a fault means: failed now, failed for good, or nobody knows ------------------------------


@pytest.mark.parametrize(
    ("command", "answer", "meaning"),
    [
        ("MAIL", "451 later", TemporaryFailure),
        ("MAIL", "550 not from you", TemporaryFailure),  # ours to mend: the mail waits
        ("RCPT", "450 busy", TemporaryFailure),
        ("RCPT", "550 5.1.1 nobody", PermanentFailure),
        ("RCPT", "what?", TemporaryFailure),
        ("DATA", "452 full", TemporaryFailure),
        ("DATA", "554 5.6.0 no", PermanentFailure),
    ],
)
async def test_a_refusal_is_for_now_or_for_good_and_never_unknown(
    clock: FakeClock, command: str, answer: str, meaning: type[Exception]
) -> None:
    async with smart_host() as host:
        host.answers[command] = answer
        out = mails(host.port, clock)
        with pytest.raises(meaning) as caught:
            await out.send(notification())
        assert not isinstance(caught.value, SendUnknown)
        assert "wang" not in str(caught.value)
        host.answers.clear()
        await out.send(notification())
    assert len(host.taken) == 1


@pytest.mark.parametrize("fault", ["silent", "cut"])
@pytest.mark.parametrize("command", ["MAIL", "RCPT"])
async def test_before_the_mail_itself_nothing_has_gone_out(
    clock: FakeClock, fault: str, command: str
) -> None:
    async with smart_host() as host:
        setattr(host, fault, command)
        with pytest.raises(TemporaryFailure) as caught:
            await mails(host.port, clock, timeout_s=0.3).send(notification())
    assert not isinstance(caught.value, SendUnknown)


@pytest.mark.parametrize("fault", ["silent", "cut"])
async def test_without_an_answer_to_the_mail_nobody_knows(clock: FakeClock, fault: str) -> None:
    async with smart_host() as host:
        setattr(host, fault, "DATA")
        host.takes_before_fault = True
        out = mails(host.port, clock, timeout_s=0.3)
        with pytest.raises(SendUnknown):
            await out.send(notification())
        assert await out.find("n-1-7") is Trace.UNKNOWN
        assert len(host.taken) == 1, "the smart host has it: sending again would be twice"


@pytest.mark.parametrize("answer", ["299 perhaps", "what?"])
async def test_an_answer_that_is_neither_yes_nor_no_leaves_it_unknown(
    clock: FakeClock, answer: str
) -> None:
    async with smart_host() as host:
        host.answers["DATA"] = answer
        with pytest.raises(SendUnknown):
            await mails(host.port, clock).send(notification())


async def test_a_smart_host_that_is_away_or_says_nothing_is_waited_for(clock: FakeClock) -> None:
    async with smart_host() as host:
        pass  # its port is free again
    with pytest.raises(TemporaryFailure, match=f"smart host 127.0.0.1:{host.port}"):
        await mails(host.port, clock).send(notification())
    async with stranger(b"") as port, asyncio.timeout(5):
        with pytest.raises(TemporaryFailure, match="no answer in time"):
            await mails(port, clock, timeout_s=0.2).send(notification())


@pytest.mark.parametrize(
    "said", [b"SSH-2.0-x\r\n", b"421 4.3.2 busy\r\n", b"x" * 100_000, b"220-\r\n" * 20_000]
)
async def test_a_peer_that_is_no_smart_host_is_a_fault_for_now(
    clock: FakeClock, said: bytes
) -> None:
    async with stranger(said) as port, asyncio.timeout(5):
        with pytest.raises(TemporaryFailure) as caught:
            await mails(port, clock, timeout_s=0.5).send(notification())
    assert len(str(caught.value)) < 300


async def test_the_health_says_why_until_the_smart_host_answers_again(clock: FakeClock) -> None:
    async with smart_host() as host:
        out = mails(host.port, clock)
        assert [health.state for health in out.health()] == [HealthState.UP]
        host.answers["MAIL"] = "550 not from you"
        with pytest.raises(TemporaryFailure):
            await out.send(notification())
        (health,) = out.health()
        assert health.state is HealthState.DEGRADED
        assert "it refuses mail.sender (550)" in health.detail
        host.answers = {"RCPT": "550 nobody"}
        with pytest.raises(PermanentFailure):
            await out.send(notification())
        assert [health.state for health in out.health()] == [HealthState.UP]


# TLS and login ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_a_mail_goes_over_tls_with_a_login(
    clock: FakeClock, certificate: Path, security: str
) -> None:
    implicit = security == "tls"
    async with smart_host(certificate=certificate, implicit_tls=implicit, auth=True) as host:
        given = {"security": security, "ca_file": certificate, "username": USERNAME}
        await mails(host.port, clock, password=PASSWORD, **given).send(notification())
        assert (host.logins, len(host.taken)) == ([USERNAME], 1)
        with pytest.raises(TemporaryFailure, match=r"refuses mail\.username"):
            await mails(host.port, clock, password="wrong", **given).send(notification())


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_a_certificate_that_nobody_vouches_for_gets_no_mail_and_no_password(
    clock: FakeClock, certificate: Path, security: str
) -> None:
    async with smart_host(
        certificate=certificate, implicit_tls=security == "tls", auth=True
    ) as host:
        given = {"security": security, "username": USERNAME, "password": PASSWORD}
        with pytest.raises(TemporaryFailure, match="certificate is not trusted"):
            await mails(host.port, clock, **given).send(notification())
    assert (host.logins, host.taken) == ([], [])


async def test_without_starttls_on_offer_nothing_is_sent_in_clear(
    clock: FakeClock, certificate: Path
) -> None:
    async with smart_host() as host:
        given = {"security": "starttls", "ca_file": certificate}
        with pytest.raises(TemporaryFailure, match="STARTTLS extension not supported"):
            await mails(host.port, clock, **given).send(notification())
    assert host.taken == []


def test_a_ca_file_without_certificates_is_an_error_of_the_configuration(
    clock: FakeClock, tmp_path: Path
) -> None:
    (tmp_path / "ca.pem").write_text("not one", encoding="utf-8")
    for name in ("ca.pem", "absent.pem"):
        with pytest.raises(ConfigurationError, match=r"mail\.ca_file"):
            mails(25, clock, security="tls", ca_file=tmp_path / name)


async def test_a_probe_logs_in_and_sends_nothing(clock: FakeClock) -> None:
    async with smart_host() as host:
        await mails(host.port, clock).probe()
    assert (host.connections, host.taken) == (1, [])


async def test_at_most_eight_mails_are_on_their_way_at_once(clock: FakeClock) -> None:
    async with smart_host() as host:
        host.silent = "DATA"
        out = mails(host.port, clock, timeout_s=0.5)
        sends = [out.send(notification(ref=f"n-{number}")) for number in range(20)]
        running = asyncio.gather(*sends, return_exceptions=True)
        await asyncio.sleep(0.3)
        first = host.connections
        await running
    assert (first, host.connections) == (8, 20)
