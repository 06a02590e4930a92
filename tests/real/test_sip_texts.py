"""Texts through two real Asterisks: the PBX with our dialplan, and one that is the GSM gateway."""

import asyncio
import hashlib
import random
import re
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio

from contactd.clock import SystemClock
from contactd.errors import TemporaryFailure
from contactd.lab.gsm import OWN_NUMBER, Gsm
from contactd.lab.pbx import Lab, open_lab
from contactd.routing.notify import SendUnknown
from contactd.settings import SipSettings
from contactd.sms.sip import LONGEST_OUT, NOT_PASSED_ON, SipGateway
from contactd.telephony.ami import Ami, AmiEvent, AmiSettings, OutcomeUnknown
from tests.fakes.sms import FakeInbox, outgoing
from tests.fakes.sms_sip import LONGEST_IN, FakeBookmark, line
from tests.fakes.waiting import WITHIN_S, eventually, until

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

WANG: Final = "+8613800000001"
DID: Final = "4008001234"
PASSWORD: Final = "change-me-gsm"
PIECES: Final = (
    "打印机着火了", "，", "退订", "😀", "👨‍👩‍👧", "é", "ﷺ", ",", ";", "|", "&", "%", "=", "x", "1",
    "\n", "\r\n", "\t", " ", '"', "'", "(", ")", "[", "]", "{", "}",
    "\\n", "${EPOCH}", "$[1+1]", "contactd-text,",
)  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="lab")
async def _lab() -> AsyncIterator[Lab]:
    async with open_lab(with_gsm=True) as lab:
        yield lab


@pytest.fixture(name="gsm")
def _gsm(lab: Lab) -> Gsm:
    assert lab.gsm is not None
    return lab.gsm


@dataclass(slots=True, kw_only=True)
class Desk:
    """contactd, as far as texts concern it."""

    lab: Lab
    inbox: FakeInbox = field(default_factory=FakeInbox)
    bookmark: FakeBookmark = field(default_factory=FakeBookmark)

    @property
    def path(self) -> Path:
        return self.lab.pbx.path("/var/spool/asterisk/contactd-texts")

    @asynccontextmanager
    async def running(self, ami: Ami | None = None, **changes: Any) -> AsyncIterator[SipGateway]:
        async def send(headers: Mapping[str, str]) -> AmiEvent:
            assert ami is not None
            try:
                reply = await ami.action("MessageSend", 5.0, **headers)
            except OutcomeUnknown as error:
                raise SendUnknown(str(error)) from error
            return reply.headers

        given = {"inbox": self.path, "look_every_s": 0.05, **changes}
        gateway = SipGateway(
            SipSettings.model_validate(given), self.inbox, SystemClock(),
            send_action=send, bookmark=self.bookmark,
        )  # fmt: skip
        async with gateway.running():
            yield gateway

    def lines(self) -> int:
        files = self.path.parent.glob(f"{self.path.name}-*")
        return sum(file.read_bytes().count(b"\n") for file in files)


@pytest.fixture(name="desk")
def _desk(lab: Lab) -> Desk:
    """Return a desk that knows of no text that is there already."""
    desk = Desk(lab=lab)
    sizes = {
        file.name: file.stat().st_size
        for file in desk.path.parent.glob(f"{desk.path.name}-*")
    }  # fmt: skip
    desk.bookmark.position = str(sizes).replace("'", '"')
    return desk


@asynccontextmanager
async def manager(lab: Lab, username: str = "contactd", secret: str = "") -> AsyncIterator[Ami]:
    ready = asyncio.Event()

    async def connected(ami: Ami) -> None:
        ready.set()

    ami = Ami(
        AmiSettings(
            name="pbx1", host=lab.pbx.host, port=lab.pbx.ami_port,
            username=username, secret=secret or lab.pbx.ami_secret,
        ),
        on_event=lambda event: None,
        on_connected=connected,
    )  # fmt: skip
    async with ami.running():
        await ready.wait()
        yield ami


def some_text(draw: random.Random, number: int) -> str:
    """Return what a text can be, with its number: not longer than Asterisk takes, and without
    line breaks at the end, which it takes off.
    """
    text = f"{number} " + "".join(draw.choices(PIECES, k=draw.randrange(40)))
    if number % 10 == 0:
        text += "x" * (1_000 - len(text.encode()))  # about as long as it can be
    if number % 10 == 5:
        text = f"{number} " + "中" * 339
    assert len(text.encode()) <= LONGEST_IN
    return text.rstrip("\r\n")


def cel(lab: Lab) -> str:
    return lab.pbx.cel_path.read_text(encoding="utf-8") if lab.pbx.cel_path.exists() else ""


def counted(texts: list[tuple[str, str]]) -> Counter[tuple[str, str]]:
    return Counter(texts)


# In


async def test_300_texts_reach_the_inbox_byte_by_byte(desk: Desk, gsm: Gsm) -> None:
    draw = random.Random(5)
    texts = [(f"+86138{n:08}", some_text(draw, n)) for n in range(300)]
    began = datetime.now(UTC)
    async with desk.running() as gateway:
        for sender, text in texts:
            await gsm.bring(sender, text)
        await until(lambda: len(desk.inbox.texts) >= 300)
        listed = await gateway.listed(began - timedelta(seconds=1), datetime.now(UTC))
    assert counted(desk.inbox.heard()) == counted(texts)
    assert len({text.id for text in desk.inbox.texts}) == 300
    assert {text.recipient for text in desk.inbox.texts} == {OWN_NUMBER}
    assert all(began - timedelta(seconds=1) < text.received_at for text in desk.inbox.texts)
    assert listed is not None
    assert {text.id for text in listed} == {text.id for text in desk.inbox.texts}


async def test_texts_that_come_while_we_are_dead_are_there_afterwards(desk: Desk, gsm: Gsm) -> None:
    async with desk.running():
        await gsm.bring(WANG, "before")
        await until(lambda: len(desk.inbox.texts) == 1)
    lines = desk.lines()
    texts = [(WANG, f"text {n}") for n in range(50)]
    for sender, text in texts:
        await gsm.bring(sender, text)
    await until(lambda: desk.lines() == lines + 50)
    assert len(desk.inbox.texts) == 1
    async with desk.running():
        await until(lambda: len({text.id for text in desk.inbox.texts}) >= 51)
        await asyncio.sleep(0.2)
    # What was read just before the end is read again: its id is the same.
    heard = {text.id: (text.sender, text.text) for text in desk.inbox.texts}
    assert counted(list(heard.values())) == counted([(WANG, "before"), *texts])


async def test_the_pbx_may_be_killed_between_two_texts(desk: Desk, gsm: Gsm, lab: Lab) -> None:
    async with desk.running():
        await gsm.bring(WANG, "before")
        await until(lambda: len(desk.inbox.texts) == 1)
        await lab.pbx.kill()
        await lab.pbx.boot()
        await gsm.bring(WANG, "after")
        await until(lambda: len(desk.inbox.texts) == 2)
    assert [text.text for text in desk.inbox.texts] == ["before", "after"]


@pytest.mark.parametrize(("size", "whole"), [(LONGEST_IN, True), (LONGEST_IN + 1, False)])
async def test_of_a_text_that_is_too_long_for_asterisk_its_length_comes(
    desk: Desk, gsm: Gsm, size: int, whole: bool
) -> None:
    async with desk.running():
        await gsm.bring(WANG, "x" * size)
        await until(lambda: bool(desk.inbox.texts))
    text = "x" * size if whole else NOT_PASSED_ON.format(size)
    assert desk.inbox.heard() == [(WANG, text)]


async def test_the_fakes_lines_are_those_of_the_dialplan(desk: Desk, gsm: Gsm) -> None:
    lines = desk.lines()
    await gsm.bring(WANG, "打印机,\n着火了")
    await until(lambda: desk.lines() == lines + 1)
    (file,) = sorted(desk.path.parent.glob(f"{desk.path.name}-*"))[-1:]
    written = file.read_bytes().splitlines(keepends=True)[-1]
    fake = line(WANG, "打印机,\n着火了", at=datetime.now(UTC))
    mine, theirs = written.split(b","), fake.split(b",")
    assert len(mine) == len(theirs)
    # All but the time and the Call-ID.
    assert [mine[n] for n in (0, 2, 3, 5, 6)] == [theirs[n] for n in (0, 2, 3, 5, 6)]
    assert re.fullmatch(rb"\d{10}\.\d{6}", mine[1])


async def test_texts_are_no_calls(lab: Lab, desk: Desk, gsm: Gsm) -> None:
    async with desk.running():
        await gsm.bring(WANG, "x")
        await until(lambda: bool(desk.inbox.texts))
    rows = cel(lab)
    assert "HOTLINE" not in rows
    assert "CHAN_END" not in rows


# Requests that no gateway sends, by hand


@dataclass(slots=True, kw_only=True)
class Peer:
    """A SIP client on an address, which need not be anybody."""

    lab: Lab
    socket: socket.socket
    calls: int = 0

    async def send(
        self, body: bytes, *, to: str = OWN_NUMBER, sender: str = f"<sip:{WANG}@gsm>",
        kind: str = "text/plain", call: str = "", user: str = "gsm",
    ) -> int:  # fmt: skip
        """Send a MESSAGE, with the password if it is asked for; return the last status."""
        self.calls += 1
        call = call or f"by-hand-{self.calls}-{random.random()}"
        uri = f"sip:{to}@pbx"
        lines = [
            f"MESSAGE {uri} SIP/2.0",
            "Max-Forwards: 70",
            f"From: {sender};tag=1",
            f"To: <{uri}>",
            f"Call-ID: {call}",
            f"Content-Type: {kind}",
            f"Content-Length: {len(body)}",
        ]
        status, head = await self._ask(lines, body, 1)
        if status == 401:
            status, head = await self._ask([*lines, _answer(head, uri, user)], body, 2)
        return status

    async def _ask(self, lines: list[str], body: bytes, number: int) -> tuple[int, str]:
        branch = f"z9hG4bK-{random.getrandbits(64)}"
        via = f"Via: SIP/2.0/UDP {self.socket.getsockname()[0]};rport;branch={branch}"
        head = [lines[0], via, f"CSeq: {number} MESSAGE", *lines[1:], "", ""]
        loop = asyncio.get_running_loop()
        request = "\r\n".join(head).encode() + body
        await loop.sock_sendto(self.socket, request, (self.lab.pbx.host, self.lab.pbx.sip_port))
        async with asyncio.timeout(WITHIN_S):
            while True:
                answer = (await loop.sock_recv(self.socket, 65_535)).decode()
                if branch in answer:
                    return int(answer.split(" ")[1]), answer


def _answer(challenge: str, uri: str, user: str) -> str:
    """Return the Authorization of RFC 2617 for the challenge with MD5."""
    (found,) = (
        each for each in challenge.split("\r\n")
        if each.startswith("WWW-Authenticate:") and "SHA" not in each
    )  # fmt: skip
    asked = dict(re.findall(r'(\w+)="([^"]*)"', found))

    def md5(*parts: str) -> str:
        return hashlib.md5(":".join(parts).encode()).hexdigest()

    own = md5(user, asked["realm"], PASSWORD)
    proof = md5(own, asked["nonce"], "00000001", "c", "auth", md5("MESSAGE", uri))
    return (
        f'Authorization: Digest username="{user}", realm="{asked["realm"]}", '
        f'nonce="{asked["nonce"]}", uri="{uri}", response="{proof}", algorithm=MD5, '
        f'cnonce="c", opaque="{asked.get("opaque", "")}", qop=auth, nc=00000001'
    )


@asynccontextmanager
async def peer(lab: Lab, host: str) -> AsyncIterator[Peer]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.setblocking(False)
        opened.bind((host, 0))
        yield Peer(lab=lab, socket=opened)


async def test_only_the_gateway_with_its_password_may_send_texts(
    desk: Desk, gsm: Gsm, lab: Lab
) -> None:
    lines = desk.lines()
    async with peer(lab, gsm.asterisk.host) as gateway:
        assert await gateway.send(b"with the password") == 202
        assert await gateway.send(b"without", user="somebody") == 401
        assert await gateway.send(b"<x/>", kind="application/xml") == 415
        assert await gateway.send(b"x", to="h") == 404
        assert await gateway.send(b"x", to="s") == 404
    async with peer(lab, lab.network.asterisk.host) as carrier:
        assert await carrier.send(b"from the carrier", to=DID) == 404
        assert await carrier.send(b"from the carrier") == 404
    async with peer(lab, lab.pbx.host) as stranger:
        assert await stranger.send(b"from a stranger", user="gsm") in (401, 403)
    await asyncio.sleep(0.2)
    assert desk.lines() == lines + 1


async def test_a_request_that_comes_again_is_one_text(desk: Desk, gsm: Gsm, lab: Lab) -> None:
    lines = desk.lines()
    async with desk.running(), peer(lab, gsm.asterisk.host) as gateway:
        for _ in range(3):
            assert await gateway.send(b"again", call="the-same") == 202
        await until(lambda: len(desk.inbox.texts) == 3)
    assert desk.lines() == lines + 3
    assert len({text.id for text in desk.inbox.texts}) == 1


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (bytes(range(1, 128)), bytes(range(1, 128)).decode()),
        (b"\xff\xfe latin", "\ufffd\ufffd latin"),
        (b"before\0behind", f"before {NOT_PASSED_ON.format(13)}"),
        (b"contactd-text,1,2,3\ncontactd-text,", "contactd-text,1,2,3\ncontactd-text,"),
        (b"${SHELL(touch /tmp/x)}${UNIQUEID}", "${SHELL(touch /tmp/x)}${UNIQUEID}"),
        (b"", ""),
        (b"line breaks at the end\r\n\r\n", "line breaks at the end"),
    ],
)
async def test_whatever_a_text_holds_is_one_line(
    desk: Desk, gsm: Gsm, lab: Lab, body: bytes, text: str
) -> None:
    lines = desk.lines()
    async with desk.running(), peer(lab, gsm.asterisk.host) as gateway:
        assert await gateway.send(body) == 202
        await until(lambda: bool(desk.inbox.texts))
    assert desk.lines() == lines + 1
    assert desk.inbox.heard() == [(WANG, text)]


@pytest.mark.parametrize(
    ("sender", "number"),
    [
        ('"Wang, <x>; ${EPOCH}" <sip:10086@gsm>', "10086"),
        ("<sip:1%0d%0acontactd-text,@gsm>", ""),
        ("<sip:%2B8613800000001@gsm;user=phone>", WANG),
        ("<tel:+8613800000001>", WANG),
        (f"<sip:{'9' * 300}@gsm>", "9" * 64),
    ],
)
async def test_whatever_its_sender_is_called_is_no_more_than_a_number(
    desk: Desk, gsm: Gsm, lab: Lab, sender: str, number: str
) -> None:
    lines = desk.lines()
    async with desk.running(), peer(lab, gsm.asterisk.host) as gateway:
        assert await gateway.send(b"x", sender=sender) == 202
        await until(lambda: bool(desk.inbox.texts))
    assert desk.lines() == lines + 1
    assert desk.inbox.heard() == [(number, "x")]


async def test_a_text_that_gets_into_the_hotline_is_no_call_and_stops_no_text(
    desk: Desk, gsm: Gsm, lab: Lab
) -> None:
    """A PBX of long ago, whose trunk has no message_context."""
    settings = lab.pbx.path("/etc/asterisk/pjsip.conf")
    before = settings.read_text(encoding="utf-8")
    rows = cel(lab)
    settings.write_text(before.replace("message_context=contactd-no-texts", ""), encoding="utf-8")
    await lab.pbx.cli("module reload res_pjsip.so")
    try:
        async with manager(lab) as ami, peer(lab, lab.network.asterisk.host) as carrier:
            assert await carrier.send(b"x", to=DID) == 202
            log = lab.pbx.path("/var/log/asterisk/messages")
            await until(lambda: "a text came to the hotline" in log.read_text(encoding="utf-8"))
            channels = await ami.list("CoreShowChannels")
    finally:
        settings.write_text(before, encoding="utf-8")
        await lab.pbx.cli("module reload res_pjsip.so")
    assert "HOTLINE" not in cel(lab).removeprefix(rows)
    assert {channel["Context"] for channel in channels} == {"contactd-not-a-call"}
    async with desk.running():
        await gsm.bring(WANG, "afterwards")
        await until(lambda: bool(desk.inbox.texts))


# Out


async def test_texts_go_out_byte_by_byte(desk: Desk, gsm: Gsm, lab: Lab) -> None:
    draw = random.Random(7)
    texts = [f"{n} " + "".join(draw.choices(PIECES, k=20)) + "." for n in range(100)]
    texts += ["x" * LONGEST_OUT, "中" * (LONGEST_OUT // 3), "😀" * (LONGEST_OUT // 4)]
    before = len(gsm.sent())
    async with manager(lab) as ami, desk.running(ami) as gateway:
        for text in texts:
            assert await gateway.submit(outgoing(text)) == ""

        async def all_there() -> bool:
            return len(gsm.sent()) >= before + len(texts)

        await eventually(all_there)
    # In any order: what comes within a millisecond may overtake.
    assert Counter(gsm.sent()[before:]) == Counter((WANG, text.encode()) for text in texts)


@pytest.mark.parametrize(
    ("destination", "remedy"),
    [
        ("pjsip:PJSIP/{number}@nobody", "sms.sip.destination"),
        ("nothing:{number}", "res_pjsip_messaging"),
        ("", "sms.sip"),
    ],
)
async def test_what_asterisk_refuses_names_the_remedy(
    desk: Desk, lab: Lab, destination: str, remedy: str
) -> None:
    async with manager(lab) as ami, desk.running(ami, destination=destination) as gateway:
        with pytest.raises(TemporaryFailure, match=remedy):
            await gateway.submit(outgoing())


async def test_a_manager_that_may_not_send_texts_names_the_remedy(desk: Desk, lab: Lab) -> None:
    settings = lab.pbx.path("/etc/asterisk/manager.conf")
    with settings.open("a", encoding="utf-8") as opened:
        opened.write("\n[old]\nsecret=old\nread=system\nwrite=call\n")
    await lab.pbx.cli("manager reload")
    async with manager(lab, "old", "old") as ami, desk.running(ami) as gateway:
        with pytest.raises(TemporaryFailure, match=r"manager\.conf"):
            await gateway.submit(outgoing())


async def test_a_pbx_that_hangs_leaves_the_outcome_open(desk: Desk, lab: Lab) -> None:
    async with manager(lab) as ami, desk.running(ami, timeout_s=0.5) as gateway:
        lab.pbx.signal(signal.SIGSTOP)
        try:
            with pytest.raises(SendUnknown):
                await gateway.submit(outgoing())
        finally:
            lab.pbx.signal(signal.SIGCONT)
