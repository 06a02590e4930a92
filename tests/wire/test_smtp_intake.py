"""What the intake takes, from whom, and what it answers; by real clients and by single commands."""

import asyncio
import base64
import smtplib
import socket
import ssl
from collections.abc import AsyncIterator
from email.message import EmailMessage
from pathlib import Path

import aiosmtplib
import pytest
from aiosmtpd.smtp import SMTP

from contactd.errors import ConfigurationError, TemporaryFailure
from contactd.mail.listeners import Listener
from contactd.mail.session import SmtpSession
from contactd.mail.spool import DiskFull
from tests.fakes.smart_host import make_certificate
from tests.fakes.smtp import (
    BODY,
    MAILBOX,
    STRANGER,
    Peer,
    Site,
    listens,
    peer,
    reader,
    site,
    smtp_settings,
)
from tests.fakes.waiting import WITHIN_S


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path) as running:
        yield running


@pytest.fixture
async def client(desk: Site) -> AsyncIterator[Peer]:
    async with peer(desk.port) as connected:
        yield connected


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


# Mail


async def test_a_mail_is_in_the_spool_with_its_envelope_when_it_has_its_250(
    desk: Site, client: Peer
) -> None:
    assert (await client.mail()).startswith("250 2.0.0 ")

    [mail] = desk.mails()
    assert mail.raw() == BODY
    assert mail.envelope.peer == "127.0.0.1"
    assert mail.envelope.helo == "me"
    assert mail.envelope.reverse_path == STRANGER
    assert mail.envelope.recipients == (MAILBOX,)
    assert mail.envelope.protocol == "ESMTP"


async def test_the_250_waits_for_the_disk(desk: Site, client: Peer) -> None:
    desk.disk.slow = asyncio.Event()
    await client.begin()
    client.send(BODY + b".\r\n")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.reader.readline(), 0.2)

    desk.disk.slow.set()

    assert (await client.hear()).startswith("250")


def _message() -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = STRANGER, MAILBOX, "Printer"
    message.set_content(".hidden\n..twice\n.\nend\n")
    message.add_attachment(b"\x89PNG" * 5000, maintype="image", subtype="png", filename="a.png")
    return message


async def test_smtplib_delivers(desk: Site) -> None:
    def send() -> None:
        with smtplib.SMTP("127.0.0.1", desk.port) as smtp:
            assert smtp.send_message(_message()) == {}

    await asyncio.to_thread(send)

    [raw] = desk.raws()
    assert b"\r\n.hidden\r\n..twice\r\n.\r\nend\r\n" in raw


async def test_aiosmtplib_delivers_two_mails_over_one_connection(desk: Site) -> None:
    async with aiosmtplib.SMTP(hostname="127.0.0.1", port=desk.port) as smtp:
        for _ in range(2):
            await smtp.send_message(_message())

    assert len(desk.mails()) == 2


async def test_pipelined_commands_are_answered_together_and_in_order(
    desk: Site, client: Peer
) -> None:
    await client.say("EHLO me")
    client.send(
        f"MAIL FROM:<>\r\nRCPT TO:<{MAILBOX}>\r\nRCPT TO:<nobody@desk.test>\r\nDATA\r\n".encode()
    )
    said = [await client.hear() for _ in range(4)]
    assert [each[:9] for each in said] == ["250 2.1.0", "250 2.1.5", "550 5.1.1", "354 End w"]

    client.send(BODY + b".\r\nMAIL FROM:<>\r\nNOOP\r\nQUIT\r\n")
    said = [await client.hear() for _ in range(4)]
    assert [each[:9] for each in said] == ["250 2.0.0", "250 2.1.0", "250 2.0.0", "221 2.0.0"]
    assert desk.raws() == [BODY]


async def test_a_mail_that_comes_before_the_354_is_taken_once(desk: Site, client: Peer) -> None:
    await client.say("EHLO me")
    client.send(
        f"MAIL FROM:<>\r\nRCPT TO:<{MAILBOX}>\r\nDATA\r\n".encode() + BODY * 500 + b".\r\nQUIT\r\n"
    )

    said = [await client.hear() for _ in range(5)]

    assert said[3].startswith("250")
    assert said[4].startswith("221")
    assert desk.raws() == [BODY * 500]


async def test_a_client_that_says_everything_at_once_and_closes_its_side_is_answered(
    desk: Site,
) -> None:
    async with peer(desk.port) as client:
        client.send(f"HELO me\r\nMAIL FROM:<>\r\nRCPT TO:<{MAILBOX}>\r\nDATA\r\n".encode())
        client.send(BODY + b".\r\nQUIT\r\n")
        client.writer.write_eof()
        said = (await client.reader.read()).decode().splitlines()

    assert [line[:3] for line in said] == ["250", "250", "250", "354", "250", "221"]
    assert desk.mails()[0].envelope.protocol == "SMTP"


@pytest.mark.parametrize(
    "content", [b"", b"..\r\n", b"a\r\n..b\r\n...\r\n", b"\r\n", b"x" * 5000 + b"\r\n"]
)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 10_000])
async def test_a_mail_is_the_same_in_pieces_of_any_size(
    desk: Site, client: Peer, content: bytes, size: int
) -> None:
    await client.begin()
    stuffed = (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n"
    for at in range(0, len(stuffed), size if len(stuffed) < 100 else max(size, 500)):
        client.send(stuffed[at : at + (size if len(stuffed) < 100 else max(size, 500))])
        await asyncio.sleep(0)
    assert (await client.hear()).startswith("250")

    assert desk.raws() == [content]


async def test_lines_of_one_mebibyte_are_taken_and_longer_ones_are_not(
    desk: Site, client: Peer
) -> None:
    long = b"a" * (1 << 20) + b"\r\n"
    assert (await client.mail(b"\r\n" + long + long)).startswith("250")

    assert (await client.mail(b"\r\n" + b"a" + long)).startswith("550 5.6.0")


# Whose mail


@pytest.mark.parametrize(
    ("recipient", "reply"),
    [
        ("support@desk.test", "250 2.1.5"),
        ("SUPPORT@Desk.Test", "250 2.1.5"),
        ("support+t-2024.abc@desk.test", "250 2.1.5"),
        ("support+@desk.test", "250 2.1.5"),
        ('"support"@desk.test', "250 2.1.5"),
        ("support@desk.test.", "250 2.1.5"),
        ("other@desk.test", "550 5.1.1"),
        ("supporter@desk.test", "550 5.1.1"),
        ("+support@desk.test", "550 5.1.1"),
        ("support%other.test@desk.test", "550 5.1.1"),
        ("support@other.test", "554 5.7.1"),
        ("support@sub.desk.test", "554 5.7.1"),
        ("support", "550 5.1.1"),
        ("@relay.test:support@desk.test", "553 5.1.3"),
        ("@a.test,@b.test:support@desk.test", "553 5.1.3"),
        ("support@desk.test\x00", "500 5.5.2"),
        ("support@", "553 5.1.3"),
        ("@desk.test", "553 5.1.3"),
        ("a b@desk.test", "553 5.1.3"),
        ("support@desk..test", "553 5.1.3"),
        ("support@" + "a" * 600 + ".test", "553 5.1.3"),
        ("", "550 5.1.1"),
    ],
)
async def test_only_mail_to_a_mailbox_is_taken(client: Peer, recipient: str, reply: str) -> None:
    await client.say("EHLO me")
    await client.say("MAIL FROM:<>")

    assert (await client.say(f"RCPT TO:<{recipient}>")).startswith(reply)


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        ("MAIL FROM:<>", "250 2.1.0"),
        ("mail from: <a@b.test>", "250 2.1.0"),
        ("MAIL FROM:a@b.test SIZE=5", "250 2.1.0"),
        ("MAIL FROM:<a@b.test> SIZE=1000 BODY=8BITMIME", "250 2.1.0"),
        ("MAIL FROM:<a@b.test> AUTH=<>", "250 2.1.0"),
        ('MAIL FROM:<"a b"@b.test>', "250 2.1.0"),
        ("MAIL FROM:<a@b.test> SIZE=40000000", "552 5.3.4"),
        ("MAIL FROM:<a@b.test> SIZE=", "501 5.5.4"),
        ("MAIL FROM:<a@b.test> SIZE=x", "501 5.5.4"),
        ("MAIL FROM:<a@b.test> SIZE=1 SIZE=2", "501 5.5.4"),
        ("MAIL FROM:<a@b.test> BODY=BINARYMIME", "501 5.5.4"),
        ("MAIL FROM:<a@b.test> RET=HDRS", "555 5.5.4"),
        ("MAIL FROM:<@relay.test:a@b.test>", "553 5.1.7"),
        ("MAIL FROM:<a>", "553 5.1.7"),
        ("MAIL TO:<a@b.test>", "501 5.5.4"),
        ("MAIL", "501 5.5.4"),
        ("MAIL FROM:<ü@b.test>", "553 5.6.7"),
        ("MAIL FROM:<ü@b.test> SMTPUTF8", "250 2.1.0"),
        ("MAIL FROM:<a@b.test> SMTPUTF8=1", "501 5.5.4"),
    ],
)
async def test_what_is_said_to_mail(client: Peer, command: str, reply: str) -> None:
    await client.say("EHLO me")

    assert (await client.say(command)).startswith(reply)


async def test_addresses_in_utf_8_need_smtputf8(desk: Site, client: Peer) -> None:
    await client.say("EHLO me")
    await client.say("MAIL FROM:<a@b.test>")
    assert (await client.say("RCPT TO:<support+ü@desk.test>")).startswith("553 5.6.7")
    await client.say("RSET")
    await client.say("MAIL FROM:<用户@例子.测试> SMTPUTF8")
    assert (await client.say(b"RCPT TO:<support+\xff@desk.test>")).startswith("553 5.1.3")
    assert (await client.say("RCPT TO:<support+ü@desk.test>")).startswith("250")
    await client.say("DATA")
    client.send(b".\r\n")
    await client.hear()

    [mail] = desk.mails()
    assert mail.envelope.smtputf8
    assert mail.envelope.reverse_path == "用户@例子.测试"
    assert mail.envelope.recipients == ("support+ü@desk.test",)


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        ("MAIL FROM:<>", "503 5.5.1"),
        ("RCPT TO:<support@desk.test>", "503 5.5.1"),
        ("DATA", "503 5.5.1"),
        ("EHLO", "501 5.5.4"),
        ("VRFY support", "252 2.5.0"),
        ("EXPN support", "502 5.5.1"),
        ("HELP", "214 2.0.0"),
        ("NOOP anything", "250 2.0.0"),
        ("RSET", "250 2.0.0"),
        ("STARTTLS", "502 5.5.1"),
        ("AUTH PLAIN AGEAYg==", "502 5.5.1"),
        ("LHLO me", "500 5.5.1"),
        ("XFORWARD ADDR=192.0.2.1", "500 5.5.1"),
        ("GET / HTTP/1.1", "500 5.5.1"),
        ("", "500 5.5.1"),
        ("NOOP \x00", "500 5.5.2"),
        ("NOOP " + "x" * 10_000, "500 5.5.2"),
        ("QUIT", "221 2.0.0"),
    ],
)
async def test_what_is_said_to_a_command_before_a_greeting(
    client: Peer, command: str, reply: str
) -> None:
    assert (await client.say(command)).startswith(reply)


async def test_a_command_with_a_bare_line_feed_is_refused(client: Peer) -> None:
    client.send(b"NOOP\nNOOP\r\n")

    assert (await client.hear()).startswith("500 5.5.2")
    assert (await client.hear()).startswith("250")


async def test_chunks_are_not_offered_and_not_read_as_commands(desk: Site, client: Peer) -> None:
    offered = await client.say("EHLO me")
    assert "CHUNKING" not in offered
    evil = f"RSET\r\nMAIL FROM:<>\r\nRCPT TO:<{MAILBOX}>\r\nDATA\r\n".encode()
    client.send(f"BDAT {len(evil)} LAST\r\n".encode() + evil + b"VRFY me\r\n")

    assert (await client.hear()).startswith("502 5.5.1")
    assert (await client.hear()).startswith("252 2.5.0")


async def test_at_most_so_many_recipients_and_the_others_later(tmp_path: Path) -> None:
    async with site(tmp_path, max_recipients=3) as desk, peer(desk.port) as client:
        await client.say("EHLO me")
        await client.say("MAIL FROM:<>")
        said = [await client.say(f"RCPT TO:<support+{n}@desk.test>") for n in range(30)]

        assert [each[:9] for each in said] == ["250 2.1.5"] * 3 + ["452 4.5.3"] * 27
        assert (await client.say("DATA")).startswith("354")


async def test_a_mail_over_the_size_is_refused_and_the_next_one_taken(tmp_path: Path) -> None:
    async with site(tmp_path, max_message_bytes=1 << 16) as desk, peer(desk.port) as client:
        exact = b"a" * ((1 << 16) - 2) + b"\r\n"
        assert "SIZE 65536" in await client.say("EHLO me")
        assert (await client.mail(b"a" + exact)).startswith("552 5.3.4")
        assert (await client.mail(exact)).startswith("250 2.0.0")
        assert desk.raws() == [exact]


# Doubt


@pytest.mark.parametrize(
    ("fault", "reply"),
    [(TemporaryFailure("the disk is ill"), "451 4.3.0"), (DiskFull("no room"), "452 4.3.1")],
)
async def test_a_mail_that_cannot_be_kept_is_deferred_and_the_next_try_works(
    desk: Site, client: Peer, fault: Exception, reply: str
) -> None:
    desk.disk.fault = fault
    assert (await client.mail()).startswith(reply)
    assert desk.intake.fault == str(fault)

    desk.disk.fault = None
    assert (await client.mail()).startswith("250")
    assert desk.intake.fault == ""
    assert len(desk.mails()) == 1


async def test_a_bug_costs_one_connection_only(desk: Site, client: Peer) -> None:
    desk.disk.fault = ZeroDivisionError()
    assert (await client.mail()).startswith("421 4.3.0")

    desk.disk.fault = None
    async with peer(desk.port) as another:
        assert (await another.mail()).startswith("250")


# TLS and logins


def _trusting(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificate)


async def _upgrade(client: Peer, certificate: Path) -> None:
    assert (await client.say("STARTTLS")).startswith("220")
    await client.writer.start_tls(_trusting(certificate), server_hostname="127.0.0.1")


async def test_mail_over_starttls(tmp_path: Path, certificate: Path) -> None:
    async with site(tmp_path, certificate_file=certificate, key_file=certificate) as desk:
        async with aiosmtplib.SMTP(
            hostname="127.0.0.1", port=desk.port, start_tls=True, tls_context=_trusting(certificate)
        ) as smtp:
            await smtp.send_message(_message())
        assert [mail.envelope.protocol for mail in desk.mails()] == ["ESMTPS"]


async def test_what_was_said_before_tls_is_forgotten(tmp_path: Path, certificate: Path) -> None:
    async with (
        site(tmp_path, certificate_file=certificate, key_file=certificate) as desk,
        peer(desk.port) as client,
    ):
        assert "STARTTLS" in await client.say("EHLO me")
        await client.say("MAIL FROM:<a@b.test>")
        await _upgrade(client, certificate)

        assert (await client.say("RCPT TO:<support@desk.test>")).startswith("503")
        assert (await client.say("MAIL FROM:<a@b.test>")).startswith("503")
        assert "STARTTLS" not in await client.say("EHLO me")


async def test_commands_slipped_in_before_the_handshake_are_not_obeyed(
    tmp_path: Path, certificate: Path
) -> None:
    async with (
        site(tmp_path, certificate_file=certificate, key_file=certificate) as desk,
        peer(desk.port) as client,
    ):
        await client.say("EHLO me")
        client.send(b"STARTTLS\r\nRSET\r\n")

        assert (await client.hear()).startswith("554 5.5.1")


async def test_a_failed_handshake_ends_the_connection(tmp_path: Path, certificate: Path) -> None:
    async with (
        site(tmp_path, certificate_file=certificate, key_file=certificate) as desk,
        peer(desk.port) as client,
    ):
        await client.say("STARTTLS")
        client.send(b"this is no handshake\r\n" * 100)

        assert await client.is_closed()


async def test_a_new_certificate_is_used_without_a_restart(
    tmp_path: Path, certificate: Path
) -> None:
    chain = tmp_path / "chain.pem"
    chain.write_bytes(certificate.read_bytes())
    (tmp_path / "new").mkdir()
    other = make_certificate(tmp_path / "new")
    async with site(tmp_path, certificate_file=chain, key_file=chain) as desk:
        async with peer(desk.port) as client:
            await _upgrade(client, certificate)

        chain.write_bytes(b"half a certificate")
        async with peer(desk.port) as client:
            await _upgrade(client, certificate)  # the old one, as long as the new one is none
        assert desk.intake.certificate is not None
        assert desk.intake.certificate.fault

        chain.write_bytes(other.read_bytes())
        async with peer(desk.port) as client:
            await _upgrade(client, other)
        assert not desk.intake.certificate.fault


async def test_mail_without_tls_can_be_refused(tmp_path: Path, certificate: Path) -> None:
    async with (
        site(
            tmp_path, certificate_file=certificate, key_file=certificate, require_tls=True
        ) as desk,
        peer(desk.port) as client,
    ):
        await client.say("EHLO me")
        assert (await client.say("MAIL FROM:<>")).startswith("530 5.7.0")
        await _upgrade(client, certificate)
        assert (await client.mail()).startswith("250")


def _plain(name: str, password: str) -> str:
    return base64.b64encode(f"\0{name}\0{password}".encode()).decode()


SUBMITTERS = ({"name": "scanner", "password": "s3cret"}, {"name": "nas", "password": "geheim"})


async def test_a_submitter_logs_in_after_tls_only(tmp_path: Path, certificate: Path) -> None:
    async with (
        site(
            tmp_path, certificate_file=certificate, key_file=certificate, submitters=SUBMITTERS
        ) as desk,
        peer(desk.port) as client,
    ):
        assert "AUTH" not in await client.say("EHLO me")
        assert (await client.say(f"AUTH PLAIN {_plain('nas', 'geheim')}")).startswith("538 5.7.11")
        await _upgrade(client, certificate)
        assert "AUTH PLAIN LOGIN" in await client.say("EHLO me")
        assert (await client.say(f"AUTH PLAIN {_plain('nas', 'geheim')}")).startswith("235 2.7.0")
        await client.mail()

        [mail] = desk.mails()
        assert (mail.envelope.protocol, mail.envelope.submitter) == ("ESMTPSA", "nas")


async def test_smtplib_logs_in_by_either_mechanism(tmp_path: Path, certificate: Path) -> None:
    def send(mechanism: str, port: int) -> None:
        with smtplib.SMTP("127.0.0.1", port) as smtp:
            smtp.starttls(context=_trusting(certificate))
            smtp.ehlo()
            smtp.user, smtp.password = "scanner", "s3cret"
            method = getattr(smtp, f"auth_{mechanism.lower()}")
            smtp.auth(mechanism, method, initial_response_ok=False)
            smtp.send_message(_message())

    async with site(
        tmp_path, certificate_file=certificate, key_file=certificate, submitters=SUBMITTERS
    ) as desk:
        for mechanism in ("PLAIN", "LOGIN"):
            await asyncio.to_thread(send, mechanism, desk.port)
        assert [mail.envelope.submitter for mail in desk.mails()] == ["scanner"] * 2


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        (f"AUTH PLAIN {_plain('scanner', 'geheim')}", "535 5.7.8"),
        (f"AUTH PLAIN {_plain('nobody', 's3cret')}", "535 5.7.8"),
        (f"AUTH PLAIN {_plain('', '')}", "535 5.7.8"),
        ("AUTH PLAIN !!!", "501 5.5.2"),
        ("AUTH PLAIN AAAA", "501 5.5.2"),
        ("AUTH PLAIN YQ==", "501 5.5.2"),
        ("AUTH CRAM-MD5", "504 5.5.4"),
        ("AUTH", "504 5.5.4"),
    ],
)
async def test_nobody_else_logs_in(
    tmp_path: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch, command: str, reply: str
) -> None:
    monkeypatch.setattr("contactd.mail.session.LOGIN_PAUSE_S", 0)
    async with (
        site(
            tmp_path, certificate_file=certificate, key_file=certificate, submitters=SUBMITTERS
        ) as desk,
        peer(desk.port) as client,
    ):
        await _upgrade(client, certificate)
        await client.say("EHLO me")

        assert (await client.say(command)).startswith(reply)


async def test_an_abandoned_login_has_one_reply(tmp_path: Path, certificate: Path) -> None:
    async with (
        site(
            tmp_path, certificate_file=certificate, key_file=certificate, submitters=SUBMITTERS
        ) as desk,
        peer(desk.port) as client,
    ):
        await _upgrade(client, certificate)
        await client.say("EHLO me")
        assert await client.say("AUTH PLAIN") == "334 "
        assert (await client.say("*")).startswith("501 5.7.0")
        assert (await client.say("NOOP")).startswith("250")


async def test_guessing_passwords_ends_the_connection_and_then_the_address_waits(
    tmp_path: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("contactd.mail.session.LOGIN_PAUSE_S", 0)
    monkeypatch.setattr("contactd.mail.session.ADDRESS_LOGINS_LIMIT", 3)
    async with site(
        tmp_path, certificate_file=certificate, key_file=certificate, submitters=SUBMITTERS
    ) as desk:
        async with peer(desk.port) as client:
            await _upgrade(client, certificate)
            await client.say("EHLO me")
            said = [await client.say(f"AUTH PLAIN {_plain('nas', str(n))}") for n in range(3)]
            assert [each[:3] for each in said] == ["535"] * 3
            assert (await client.hear()).startswith("421 4.7.0")
        async with peer(desk.port) as client:
            await _upgrade(client, certificate)
            await client.say("EHLO me")
            reply = await client.say(f"AUTH PLAIN {_plain('nas', 'geheim')}")
            assert reply.startswith("454 4.7.0")


# LMTP


async def test_lmtp_answers_once_for_each_recipient(tmp_path: Path) -> None:
    path = tmp_path / "lmtp"
    async with site(tmp_path, lmtp_socket=path) as desk, peer(path) as client:
        assert (await client.say("EHLO me")).startswith("500 5.5.1")
        assert "PIPELINING" in await client.say("LHLO me")
        await client.say("XFORWARD NAME=mail.example.org ADDR=192.0.2.7 HELO=mail.example.org")
        await client.say("MAIL FROM:<a@b.test>")
        assert (await client.say("DATA")).startswith("503 5.5.1")
        for recipient in ("support", "nobody", "support+x"):
            await client.say(f"RCPT TO:<{recipient}@desk.test>")
        await client.say("DATA")
        client.send(BODY + b".\r\n")

        assert [(await client.hear())[:9] for _ in range(2)] == ["250 2.0.0"] * 2
        assert (await client.say("NOOP")).startswith("250 2.0.0 Ok")
        [mail] = desk.mails()
        assert mail.envelope.recipients == ("support@desk.test", "support+x@desk.test")
        assert mail.envelope.protocol == "LMTP"
        assert (mail.envelope.peer, mail.envelope.helo) == ("192.0.2.7", "mail.example.org")


async def test_lmtp_by_pythons_own_client(tmp_path: Path) -> None:
    path = tmp_path / "lmtp"

    def send() -> None:
        with smtplib.LMTP(str(path)) as lmtp:
            lmtp.sendmail(STRANGER, [MAILBOX], BODY)

    async with site(tmp_path, lmtp_socket=path) as desk:
        await asyncio.to_thread(send)
        assert desk.raws() == [BODY]


async def test_a_deferred_mail_is_deferred_for_each_recipient(tmp_path: Path) -> None:
    path = tmp_path / "lmtp"
    async with site(tmp_path, lmtp_socket=path) as desk, peer(path) as client:
        desk.disk.fault = DiskFull("no room")
        await client.begin(MAILBOX, "support+x@desk.test", hello="LHLO me")
        client.send(BODY + b".\r\n")
        assert [(await client.hear())[:9] for _ in range(2)] == ["452 4.3.1"] * 2


async def test_a_socket_that_a_killed_process_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "lmtp"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    async with site(tmp_path, lmtp_socket=path), peer(path) as client:
        assert (await client.say("LHLO me")).startswith("250")


# The end


async def test_at_a_stop_idle_peers_are_told_and_a_mail_on_its_way_is_taken(
    tmp_path: Path,
) -> None:
    async with site(tmp_path) as desk:
        desk.disk.slow = asyncio.Event()
        async with peer(desk.port) as idle, peer(desk.port) as sending, peer(desk.port) as storing:
            await sending.begin()
            await storing.begin()
            storing.send(BODY + b".\r\n")
            sending.send(BODY)
            await asyncio.sleep(0.05)
            stopping = asyncio.create_task(desk.intake.stop(5))
            assert (await idle.hear()).startswith("421 4.3.2")
            async with peer(desk.port, greeting=False) as late:
                assert (await late.hear()).startswith("421 4.3.2")
            desk.disk.slow.set()
            assert (await storing.hear()).startswith("250")
            sending.send(b".\r\n")
            assert (await sending.hear()).startswith("250")
            assert (await sending.hear()).startswith("421 4.3.2")
            await stopping
        assert len(desk.mails()) == 2


# The service


async def test_the_service_takes_mail_in_two_processes_and_says_so(tmp_path: Path) -> None:
    woken = asyncio.Event()
    listener = Listener(smtp_settings(processes=2), tmp_path / "spool", on_kept=woken.set)
    async with listener.running():
        async with peer(listener.port) as client:
            assert (await client.mail()).startswith("250")
        await asyncio.wait_for(woken.wait(), 1)
        assert len(reader(tmp_path / "spool").poll()) == 1
        async with asyncio.timeout(WITHIN_S):
            while listener.health()[0].figures.get("kept") != 1:
                await asyncio.sleep(0.05)
    assert not listens(listener.port)


async def test_a_taken_port_is_an_error_of_the_configuration(tmp_path: Path) -> None:
    async with site(tmp_path) as desk:
        listener = Listener(smtp_settings(port=desk.port), tmp_path / "spool")
        with pytest.raises(ConfigurationError, match=r"smtp\.host, smtp\.port.*in use"):
            async with listener.running():
                pass


async def test_a_certificate_that_is_none_is_an_error_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "no.pem").write_text("no")
    settings = smtp_settings(certificate_file=tmp_path / "no.pem", key_file=tmp_path / "no.pem")
    with pytest.raises(ConfigurationError, match=r"smtp\.certificate_file"):
        async with Listener(settings, tmp_path / "spool").running():
            pass


async def test_our_constructor_sets_what_that_of_aiosmtpd_sets(desk: Site) -> None:
    theirs = SMTP(object(), hostname="mx.desk.test", loop=asyncio.get_running_loop())
    # What only methods look at that are replaced here.
    replaced = {
        "__ident__", "_auth_callback", "_auth_methods", "_auth_require_tls", "_auth_required",
        "_authenticator", "_decode_data", "_ehlo_hook_ver",
        "_enforce_call_limit", "_proxy_timeout", "_smtp_methods", "_timeout_duration",
        "_timeout_handle", "data_size_limit", "event_handler", "hostname",
        "require_starttls",
    }  # fmt: skip

    assert vars(theirs).keys() - vars(SmtpSession(desk.intake)).keys() == replaced
