"""What peers do to the intake on purpose: it costs them, and nobody else."""

import asyncio
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from contactd.mail.listeners import Listener
from contactd.mail.session import Reason
from contactd.service import HealthState
from tests.fakes.peers import PEERS, visit
from tests.fakes.smtp import BODY, MAILBOX, Peer, Site, peer, reader, send_all, site, smtp_settings
from tests.fakes.waiting import WITHIN_S

PROMPT_S = 1.0  # in which another mail has its 250 meanwhile


async def other_mail_flows(desk: Site, host: str = "127.0.0.9") -> bool:
    """Send a mail from another address; return whether it is taken promptly.

    It is tried thrice: this machine may be busy with something else.
    """
    for _ in range(3):
        try:
            async with asyncio.timeout(PROMPT_S), peer(desk.port, host=host) as client:
                return (await client.mail()).startswith("250")
        except TimeoutError:
            continue
    return False


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path) as running:
        yield running


# Smuggling: one or no mail, never two

ENDS = [
    b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\r\n", b"\r\n.\r", b"\r\r\n.\r\r\n",
    b"\n\n.\r\n",
    b"\r\n\x00.\r\n", b"\r\n.\x00\r\n", b"\r\n.\r\r\n", b"\n\r.\n\r", b"\r\n\n.\n\r\n",
    b"\r\n .\r\n",
    b"\r\n. \r\n", b"\xc2\x85.\xc2\x85", b"\r\n..\r\n", b"\x0b.\x0b", b"\r\n.\r\x00\n",
]  # fmt: skip


@pytest.mark.parametrize("end", ENDS, ids=repr)
@pytest.mark.parametrize("in_pieces", [False, True])
async def test_nothing_but_the_true_end_ends_a_mail(
    desk: Site, end: bytes, in_pieces: bool
) -> None:
    smuggled = f"MAIL FROM:<evil@x.test>\r\nRCPT TO:<{MAILBOX}>\r\nDATA\r\nevil\r\n".encode()
    async with peer(desk.port) as client:
        await client.begin()
        sent = BODY[:-2] + end + smuggled + b".\r\n"
        for at in range(0, len(sent), 1 if in_pieces else len(sent)):
            client.send(sent[at : at + (1 if in_pieces else len(sent))])
            await asyncio.sleep(0)
        said = await client.hear()
        assert (await client.say("NOOP")).startswith("250 2.0.0 Ok")  # nothing else was answered

    mails = desk.mails()
    assert len(mails) == said.startswith("250")
    assert all(mail.envelope.reverse_path != "evil@x.test" for mail in mails)
    has_bare = end.replace(b"\r\n", b"").count(b"\r") + end.replace(b"\r\n", b"").count(b"\n")
    assert said.startswith("550 5.6.0" if has_bare else "250")


# Places


async def test_connections_of_one_address_are_limited_and_others_come_in(tmp_path: Path) -> None:
    async with site(tmp_path, max_per_address=5) as desk, AsyncExitStack() as crowd:
        for _ in range(5):
            await crowd.enter_async_context(peer(desk.port))
        async with peer(desk.port, greeting=False) as client:
            assert (await client.hear()).startswith("421 4.7.0")
            assert await client.is_closed()
        assert await other_mail_flows(desk)
        assert desk.intake.counts.refused == {Reason.CROWDING: 1}

        await crowd.aclose()
        async with asyncio.timeout(WITHIN_S):
            while desk.intake.connections:
                await asyncio.sleep(0)
        async with peer(desk.port) as client:
            assert (await client.mail()).startswith("250")


async def test_five_hundred_idle_connections_make_room_for_who_has_a_mail(tmp_path: Path) -> None:
    async with site(tmp_path) as desk, AsyncExitStack() as crowd:
        for number in range(500):
            await crowd.enter_async_context(peer(desk.port, host=f"127.0.1.{number // 50 + 1}"))
        assert desk.intake.connections == 500

        assert await other_mail_flows(desk)
        assert desk.intake.counts.refused == {Reason.EVICTED: 1}


async def test_a_crowd_that_dribbles_crowds_out_itself(tmp_path: Path) -> None:
    async with site(tmp_path, max_connections=20) as desk, AsyncExitStack() as crowd:
        first = [
            await crowd.enter_async_context(peer(desk.port, host="127.0.1.1")) for _ in range(20)
        ]
        for client in first:
            await client.begin()
            client.send(b"x")
        await asyncio.sleep(0)
        async with peer(desk.port, host="127.0.1.2") as honest:
            await honest.begin()
            for _ in range(5):
                assert await other_mail_flows(desk)
            honest.send(BODY + b".\r\n")
            assert (await honest.hear()).startswith("250")
        assert desk.intake.counts.refused[Reason.FULL] == 0


# Time


async def test_a_peer_that_says_nothing_is_cut(tmp_path: Path) -> None:
    async with site(tmp_path, command_timeout_s=0.2) as desk, peer(desk.port) as client:
        assert (await client.hear()).startswith("421 4.4.2")
        assert await client.is_closed()
        assert desk.intake.counts.refused == {Reason.SLOW: 1}


async def test_a_slow_mail_is_cut_at_its_deadline_although_it_never_stops(tmp_path: Path) -> None:
    async with (
        site(tmp_path, command_timeout_s=0.4, transaction_timeout_s=0.8) as desk,
        peer(desk.port) as client,
    ):
        await client.begin()
        loop = asyncio.get_running_loop()
        began = loop.time()
        hearing = asyncio.create_task(client.hear())
        while not hearing.done():
            client.send(b"x\r\n")
            await asyncio.wait({hearing}, timeout=0.05)
        assert hearing.result().startswith("421 4.4.2")
        assert 0.7 < loop.time() - began < 2
        assert desk.mails() == []


async def test_a_disk_that_hangs_costs_the_mail_its_deadline_only(tmp_path: Path) -> None:
    async with site(tmp_path, transaction_timeout_s=0.3) as desk, peer(desk.port) as client:
        desk.disk.slow = asyncio.Event()
        assert (await client.mail()).startswith("421 4.4.2")
        assert desk.intake.in_flight == 0


async def test_a_peer_that_does_not_read_its_replies_is_cut(tmp_path: Path) -> None:
    async with site(tmp_path, command_timeout_s=0.4) as desk, peer(desk.port) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(b"HELP " + b"x" * 1000 + b"\r\n")
        client.send(b"NOOP\r\n" * 50)
        async with asyncio.timeout(WITHIN_S):
            while desk.intake.connections:
                await asyncio.sleep(0.05)


# Errors


async def test_a_peer_that_asks_to_send_and_closes_its_side_is_not_waited_for(desk: Site) -> None:
    async with peer(desk.port) as client:
        client.send(TO_DATA)
        client.writer.write_eof()
        assert await client.is_closed()


async def test_too_many_errors_end_the_connection(desk: Site) -> None:
    async with peer(desk.port) as client:
        said = [await client.say("WHAT") for _ in range(20)]
        assert {each[:9] for each in said} == {"500 5.5.1"}
        assert (await client.hear()).startswith("421 4.7.0")
        assert await client.is_closed()


async def test_guessing_recipients_ends_the_connection(desk: Site) -> None:
    async with peer(desk.port) as client:
        await client.say("EHLO me")
        await client.say("MAIL FROM:<>")
        guesses = b"".join(b"RCPT TO:<user%d@desk.test>\r\n" % n for n in range(10_000))
        client.send(guesses)
        assert await client.is_closed()
        assert desk.intake.counts.recipients_refused == 20


async def test_commands_without_a_mail_among_them_are_limited(desk: Site) -> None:
    said = await send_all(desk.port, [b"NOOP\r\n" * 1000])
    assert said.count(b"250 2.0.0") == 100
    assert said.endswith(b"421 4.7.0 mx.desk.test Too many errors\r\n")


async def test_a_client_that_sends_many_mails_is_not_cut(desk: Site) -> None:
    async with peer(desk.port) as client:
        for _ in range(150):
            assert (await client.mail()).startswith("250")


# Bytes


async def test_mails_beyond_the_room_there_is_are_deferred(tmp_path: Path) -> None:
    async with site(tmp_path, max_in_flight_bytes=1 << 20) as desk, peer(desk.port) as hog:
        await hog.begin()
        hog.send(b"x" * ((1 << 20) - 100))
        async with asyncio.timeout(WITHIN_S):
            while desk.intake.in_flight < (1 << 20) - 100:
                await asyncio.sleep(0)
        async with peer(desk.port) as client:
            assert (await client.mail(BODY * 100)).startswith("452 4.3.1")
            await client.say("EHLO me")
            assert (await client.say("MAIL FROM:<> SIZE=10000")).startswith("452 4.3.1")

        hog.send(b"\r\n.\r\n")
        assert (await hog.hear()).startswith("250")
        assert desk.intake.in_flight == 0
        assert await other_mail_flows(desk)


async def test_a_mail_that_stalls_gives_its_room_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("contactd.mail.session.STALLED_S", 0.1)
    async with site(tmp_path, max_in_flight_bytes=1 << 20) as desk, AsyncExitStack() as stack:
        for host in ("127.0.1.1", "127.0.1.2"):
            hog = await stack.enter_async_context(peer(desk.port, host=host))
            await hog.begin()
            hog.send(b"x" * ((1 << 19) - 50))
        await asyncio.sleep(0.3)
        async with asyncio.timeout(PROMPT_S), peer(desk.port) as client:
            assert (await client.mail(BODY * 100)).startswith("250")
        assert desk.intake.counts.refused == {Reason.SLOW: 1}


async def test_a_connection_that_breaks_gives_its_room_back(desk: Site) -> None:
    async with peer(desk.port) as client:
        await client.begin()
        client.send(b"x" * 100_000)
        async with asyncio.timeout(WITHIN_S):
            while desk.intake.in_flight < 100_000:
                await asyncio.sleep(0)
    async with asyncio.timeout(WITHIN_S):
        while desk.intake.connections:
            await asyncio.sleep(0)
    assert desk.intake.in_flight == 0


async def _pour(client: Peer, desk: Site, octets: int) -> int:
    """Send so much, or until the other side closes; return how much it was."""
    chunk = (b"x" * 998 + b"\r\n") * 256
    sent = 0
    try:
        while sent < octets:
            client.send(chunk)
            await client.writer.drain()
            sent += len(chunk)
            assert desk.intake.in_flight <= (1 << 20) + (1 << 18)
    except ConnectionError:
        pass
    return sent


async def test_a_mail_without_end_takes_no_memory_and_is_cut(tmp_path: Path) -> None:
    """Two gigabytes are promised, one more line at a time."""
    async with site(tmp_path, max_message_bytes=1 << 20) as desk, peer(desk.port) as client:
        await client.begin()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        sent = await _pour(client, desk, 2 << 30)
        assert sent < 32 << 20
        grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown_kib < 16 << 10
        assert desk.intake.counts.refused == {Reason.OVERSIZED: 1}
        assert await other_mail_flows(desk)


async def test_a_long_mail_over_the_size_is_read_to_its_end_and_refused(tmp_path: Path) -> None:
    async with site(tmp_path, max_message_bytes=1 << 20) as desk, peer(desk.port) as client:
        reply = await client.mail((b"x" * 998 + b"\r\n") * 3000)
        assert reply.startswith("552 5.3.4")
        assert (await client.mail()).startswith("250")
        assert len(desk.mails()) == 1


# The usual suspects, at each point of the conversation

TO_MAIL = b"EHLO me\r\nMAIL FROM:<>\r\n"
TO_DATA = TO_MAIL + f"RCPT TO:<{MAILBOX}>\r\nDATA\r\n".encode()


@pytest.mark.parametrize("misbehaviour", PEERS)
@pytest.mark.parametrize("prefix", [b"EHLO me\r\n", TO_MAIL, TO_DATA], ids=["EHLO", "MAIL", "DATA"])
async def test_a_peer_that_misbehaves_is_cut_while_mail_flows(
    tmp_path: Path, misbehaviour: str, prefix: bytes
) -> None:
    async with site(
        tmp_path, command_timeout_s=0.3, transaction_timeout_s=0.6, max_message_bytes=1 << 16
    ) as desk:
        visiting = asyncio.create_task(visit(desk.port, PEERS[misbehaviour], prefix))
        await asyncio.sleep(0.02)
        assert await other_mail_flows(desk)
        async with asyncio.timeout(WITHIN_S):
            await visiting
        async with asyncio.timeout(WITHIN_S):
            while desk.intake.connections:
                await asyncio.sleep(0.01)
        assert desk.intake.in_flight == 0
        assert len(desk.mails()) >= 1


# The daemon and its processes


async def test_a_listener_process_that_dies_is_started_again_and_nobody_is_refused(
    tmp_path: Path,
) -> None:
    listener = Listener(smtp_settings(), tmp_path / "spool")
    async with listener.running():
        [first] = listener.pids
        _kill(first)
        async with asyncio.timeout(WITHIN_S):
            while listener.health()[0].state is not HealthState.DOWN:
                await asyncio.sleep(0)
        assert "0 of 1 listener processes take mail" in listener.health()[0].detail
        async with asyncio.timeout(WITHIN_S), peer(listener.port) as client:
            assert (await client.mail()).startswith("250")
        assert listener.pids != [first]
        assert listener.health()[0].state is HealthState.UP
        assert len(reader(tmp_path / "spool").poll()) == 1


async def test_a_listener_process_ends_with_its_daemon(tmp_path: Path) -> None:
    daemon = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _DAEMON, str(tmp_path / "spool"), str(smtp_settings().port),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert daemon.stdout is not None
    pid = int(await asyncio.wait_for(daemon.stdout.readline(), 20))
    daemon.kill()
    await daemon.wait()
    async with asyncio.timeout(WITHIN_S):
        while _is_alive(pid):
            await asyncio.sleep(0.05)


_DAEMON = """
import asyncio, sys
from pathlib import Path
from contactd import log
from contactd.mail.listeners import Listener
from tests.fakes.smtp import smtp_settings

async def main():
    log.configure()
    listener = Listener(smtp_settings(port=int(sys.argv[2])), Path(sys.argv[1]))
    async with listener.running():
        sys.stdout.write(f"{listener.pids[0]}\\n")
        sys.stdout.flush()
        await asyncio.sleep(60)

asyncio.run(main())
"""


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
