"""Mails against a real SMTP server: what arrives, and what each fault of the smart host means."""

import asyncio
import base64
import re
import subprocess
from email import message_from_bytes
from email.header import decode_header, make_header
from email.utils import parseaddr, parsedate_to_datetime
from pathlib import Path
from typing import Any

import dkim  # type: ignore[import-untyped]
import pytest

from contactd.errors import ConfigurationError, PermanentFailure, TemporaryFailure
from contactd.mail.dkim_sign import signer
from contactd.mail.ours import LONGEST_LOCAL_PART, Ours, Proof, proof
from contactd.mail.outgoing import MOST_REFERENCES, Letterhead, Mails
from contactd.mail.templates import parse as parse_letters
from contactd.routing.notify import REQUESTER, Notification, Reason, SendUnknown, Trace, linked
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


KEY = b"k" * 32
MAILBOX = "support@desk.example.cn"
PUBLIC = "https://desk.example.cn"


async def key() -> bytes:
    return KEY


def lettered(port: int, clock: FakeClock, **changes: Any) -> Mails:
    """Return mails of an installation that takes mail, and has pages."""
    head = Letterhead(**{"key": key, "mailbox": MAILBOX, "public_url": PUBLIC, **changes})
    settings = MailSettings(host="127.0.0.1", port=port, sender=SENDER, security="none")
    return Mails(settings, service="服务台", clock=clock, letterhead=head)


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


# What makes a mail part of a conversation --------------------------------------------------------


def asked(**changes: Any) -> Notification:
    """Return what a requester is asked."""
    given = {
        "ref": "solved-26112000017-9-requester", "recipient": REQUESTER, "reason": Reason.SOLVED,
    }  # fmt: skip
    return notification(**{**given, **changes})


async def sent(clock: FakeClock, *notes: Notification, **changes: Any) -> list[tuple[str, Any]]:
    """Send notifications; return envelope sender and mail of each."""
    async with smart_host() as host:
        out = lettered(host.port, clock, **changes)
        for each in notes:
            await out.send(each)
    return [
        (envelope.mail_from or "", mail)
        for envelope, mail in zip(host.taken, host.mails(), strict=True)
    ]


async def test_an_answer_and_a_delivery_report_name_what_they_are_about(clock: FakeClock) -> None:
    ((envelope, mail),) = await sent(clock, asked())
    (reply_to,) = mail["Reply-To"].addresses
    assert proof(KEY, [reply_to.addr_spec], []) == Proof(ticket="26112000017")
    assert proof(KEY, [envelope], []) == Proof(ref="solved-26112000017-9-requester")
    assert envelope.startswith("support+b-")
    by_id = proof(KEY, [], [mail["Message-ID"]])
    assert by_id == Proof(ref="solved-26112000017-9-requester")
    by_root = proof(KEY, [], mail["References"].split())
    assert by_root == Proof(ticket="26112000017")


async def test_without_a_mailbox_answers_go_to_the_sender(clock: FakeClock) -> None:
    ((envelope, mail),) = await sent(clock, asked(), mailbox="")
    assert envelope == SENDER
    assert mail["Reply-To"] is None
    assert "发送短信" in mail.get_body(["plain"]).get_content()
    assert proof(KEY, [], [mail["Message-ID"]]).ref, "its id proves it all the same"


async def test_mails_of_a_ticket_are_one_conversation_for_each_reader(clock: FakeClock) -> None:
    refs = [f"progress-26112000017-{seq}-requester" for seq in (3, 5)]
    (_, first), (_, second) = await sent(clock, *(asked(ref=ref) for ref in refs))
    assert first["In-Reply-To"] == first["References"] == second["In-Reply-To"]
    assert first["Message-ID"] != second["Message-ID"]


async def test_a_mail_answers_what_the_requester_wrote_last(clock: FakeClock) -> None:
    wanted = []

    async def thread_of(ticket: str, address: str) -> list[str]:
        wanted.append((ticket, address))
        return ["<second@qq.com>", "<first@qq.com>"]

    ((_, mail),) = await sent(clock, asked(facts={"title": "打印机坏了"}), thread_of=thread_of)
    assert wanted == [("26112000017", "wang.wei@example.cn")]
    assert mail["In-Reply-To"] == "<second@qq.com>"
    root, *others = mail["References"].split()
    assert proof(KEY, [], [root]).ticket == "26112000017"
    assert others == ["<first@qq.com>", "<second@qq.com>"]
    assert mail["Subject"] == "[26112000017] 打印机坏了"


async def test_ids_of_others_are_their_text_and_their_number_has_an_end(clock: FakeClock) -> None:
    hostile = ["<a@b>\r\nBcc: x@y", "no id", "<>", "<a b@c>", "<" + "x" * 500 + "@y>", "<王@x>"]
    long = [f"<{number}-{'x' * 150}@example.org>" for number in range(50)]

    async def thread_of(*_: str) -> list[str]:
        return [*hostile, *long]

    async with smart_host() as host:
        await lettered(host.port, clock, thread_of=thread_of).send(asked())
    (mail,), (envelope,) = host.mails(), host.taken
    assert mail["Bcc"] is None
    assert mail["In-Reply-To"] == long[0]
    assert mail["References"].split()[1:] == long[: MOST_REFERENCES - 1][::-1]
    lines = (envelope.original_content or b"").split(b"\r\n")
    assert max(map(len, lines)) < 998
    assert b"=?" not in b"".join(line for line in lines if line.lstrip().startswith(b"<"))


async def test_a_thread_that_cannot_be_read_now_lets_the_mail_wait(clock: FakeClock) -> None:
    async def thread_of(*_: str) -> list[str]:
        raise TemporaryFailure("the database is away")

    with pytest.raises(TemporaryFailure):
        await sent(clock, asked(), thread_of=thread_of)


async def test_only_the_confirmation_is_an_answer_of_a_machine(clock: FakeClock) -> None:
    (_, received), (_, solved) = await sent(
        clock, asked(ref="received-1-1-requester", reason=Reason.RECEIVED), asked()
    )
    assert received["Auto-Submitted"] == "auto-replied"
    assert solved["Auto-Submitted"] == "auto-generated"
    for mail in (received, solved):
        assert mail["X-Contactd"] == "服务台"
        assert mail["Content-Language"] == "zh-CN"
        assert mail["Precedence"] is None


async def test_only_what_comes_again_can_be_ended(clock: FakeClock) -> None:
    """RFC 2369; and no RFC 8058: a mail program must not press a button by itself."""
    mails_sent = await sent(
        clock,
        *(asked(ref=f"{reason}-1-1-requester", reason=reason)
          for reason in (Reason.RECEIVED, Reason.SOLVED, Reason.REMINDER)),
    )  # fmt: skip
    received, solved, reminder = (mail["List-Unsubscribe"] for _, mail in mails_sent)
    assert (received, solved) == (None, None)
    assert reminder.startswith(f"<{PUBLIC}/m/reminder-1-1-requester.")
    assert mails_sent[2][1]["List-Unsubscribe-Post"] is None


async def test_buttons_lead_to_the_page_of_the_message(clock: FakeClock) -> None:
    ((_, mail),) = await sent(clock, notification(ref="page-26112000017-1-li_na-mail"))
    html = mail.get_body(["html"]).get_content()
    links = re.findall(r'href="([^"]+)"', html)
    assert [link.partition("?")[2] for link in links] == ["do=1", "do=4", "do=2"]
    (token,) = {link.removeprefix(f"{PUBLIC}/m/").partition("?")[0] for link in links}
    assert linked(KEY, token) == "page-26112000017-1-li_na-mail"


@pytest.mark.parametrize("changes", [{"public_url": ""}, {"key": None}])
async def test_without_pages_there_are_no_links(clock: FakeClock, changes: dict[str, Any]) -> None:
    ((_, mail),) = await sent(clock, asked(), **changes)
    assert "href" not in mail.get_body(["html"]).get_content()


async def test_words_of_the_installation_are_sent(clock: FakeClock) -> None:
    letters = parse_letters('[solved.zh]\nsentence = "{ticket} 好了"\nsubject = "好了"')
    ((_, mail),) = await sent(clock, asked(), letters=letters)
    assert mail["Subject"] == "[26112000017] 好了"
    assert mail.get_body(["plain"]).get_content().startswith("26112000017 好了\r\n")


@pytest.mark.parametrize("name", ["王" * 300, "W" * 900, 'Wang, "Wei"', "=?utf-8?b?546L?=", "Wang"])
async def test_a_name_of_any_length_arrives_in_lines_that_every_server_takes(
    clock: FakeClock, name: str
) -> None:
    async with smart_host() as host:
        await lettered(host.port, clock).send(asked(name=name, facts={"title": name}))
    ((envelope,), (mail,)) = host.taken, host.mails()
    raw = bytes(envelope.original_content or b"")
    assert max(map(len, raw.split(b"\r\n"))) <= 998  # RFC 5321 section 4.5.3.1.6
    # Not by the policy that reads `mail`: it has spaces between the encoded words of a name.
    shown, address = parseaddr(message_from_bytes(raw)["To"].replace("\r\n", ""))
    assert str(make_header(decode_header(shown))) == name
    assert address == mail["To"].addresses[0].addr_spec
    body = mail.get_body(["plain"])
    assert body is not None
    assert name in body.get_content()


# Addresses and ids ------------------------------------------------------------------------------


def ours(mailbox: str = MAILBOX) -> Ours:
    return Ours(key=KEY, mailbox=mailbox, domain="desk.example.cn")


def test_what_is_not_ours_proves_nothing() -> None:
    address, message_id = ours().reply_address("26112000017"), ours().message_id("page-1")
    wrong = [
        address.replace("17.", "18."),
        "support+26112000017@desk.example.cn",
        "support+b-page-1@desk.example.cn",
        "support@desk.example.cn",
        "",
        "@",
        "support+",
        message_id.replace("page-1", "page-2"),
        "<page-1@desk.example.cn>",
        Ours(key=b"other", mailbox=MAILBOX, domain="x").reply_address("26112000017"),
    ]
    assert proof(KEY, wrong, wrong) == Proof()
    assert proof(KEY, [*wrong, address], [*wrong, message_id]) == Proof(
        ticket="26112000017", ref="page-1"
    )


def test_case_does_not_matter_and_our_domain_neither() -> None:
    address = ours().reply_address("26112000017").upper().replace("DESK.EXAMPLE.CN", "mx.test")
    assert proof(KEY, [address], []).ticket == "26112000017"


@pytest.mark.parametrize("engineer", ["li", "li_na", "zhao", "x" * 32])
@pytest.mark.parametrize("mailbox", [MAILBOX, "it.helpdesk.guangzhou@example.com"])
def test_a_local_part_has_at_most_64_octets_and_proves_at_least_the_ticket(
    engineer: str, mailbox: str
) -> None:
    ref = f"dispatch-26112000017-12-{engineer}-mail"
    address = ours(mailbox).bounce_address("26112000017", ref)
    assert len(address.partition("@")[0]) <= LONGEST_LOCAL_PART
    found = proof(KEY, [address], [])
    assert found in (Proof(ref=ref), Proof(ticket="26112000017"))
    assert proof(KEY, [], [ours().message_id(ref)]) == Proof(ref=ref), "the report quotes it"


# DKIM -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rsa_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dkim") / "rsa.pem"
    command = ["openssl", "genrsa", "-out", str(path), "2048"]
    subprocess.run(command, check=True, capture_output=True)
    return path


def public_half(path: Path) -> bytes:
    command = ["openssl", "rsa", "-in", str(path), "-pubout", "-outform", "DER"]
    made = subprocess.run(command, check=True, capture_output=True).stdout
    return b"v=DKIM1; k=rsa; p=" + base64.b64encode(made)


async def test_a_signed_mail_is_proved_by_the_key_in_the_dns(
    clock: FakeClock, rsa_key: Path
) -> None:
    sign = signer(selector="desk1", domain="desk.example.cn", key_file=rsa_key)
    async with smart_host() as host:
        await lettered(host.port, clock, sign=sign).send(asked(facts={"title": "打印机" * 60}))
    content = host.taken[0].original_content or b""
    asked_for = []

    def dns(name: bytes, timeout: float = 5) -> bytes:
        asked_for.append(name)
        return public_half(rsa_key)

    assert dkim.verify(content, dnsfunc=dns)
    assert asked_for == [b"desk1._domainkey.desk.example.cn."]
    assert not dkim.verify(content.replace(b"Subject: ", b"Subject: x"), dnsfunc=dns)
    # A second one in front is what some mail programs would show (RFC 6376 section 8.15).
    assert not dkim.verify(b"Subject: pay\r\n" + content, dnsfunc=dns)


def test_a_key_that_cannot_sign_is_an_error_of_the_configuration(
    tmp_path: Path, rsa_key: Path
) -> None:
    files = {"absent": None, "text": b"no key", "pem": b"-----BEGIN RSA PRIVATE KEY-----\nx\n"}
    for name, content in files.items():
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ConfigurationError, match=r"mail\.dkim_key_file"):
            signer(selector="s", domain="d.example", key_file=path)
