"""clamd and rspamd over their sockets: what they say, and what their faults cost (nothing)."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from contactd.mail import scanners
from contactd.mail.parsed import Origin
from contactd.mail.scanners import Clamd, Mail, Rspamd, Spam, State, Virus
from contactd.service import HealthState
from tests.fakes.scanners import EICAR, GTUBE_ANSWER, fake_clamd, fake_rspamd
from tests.fakes.smart_host import stranger

SECOND = timedelta(seconds=1)
UNSCANNED = Virus(state=State.UNSCANNED)
ORIGIN = Origin(peer="198.51.100.7", helo="mail.example.cn", reverse_path="li@example.cn")


@pytest.fixture(autouse=True)
def _asked_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanners, "AWAY_S", 0.0)


def mail(folder: Path, raw: bytes, **changes: Any) -> Mail:
    path = folder / "segment"
    path.write_bytes(b"what is before" + raw + b"and behind")
    return Mail(path=path, offset=len(b"what is before"), length=len(raw), **changes)


# clamd


@pytest.mark.parametrize("is_local", [False, True])
async def test_clamd_gets_the_mail_and_only_it(tmp_path: Path, is_local: bool) -> None:
    raw = b"Subject: x\r\n\r\n" + b"y" * 1_000_000
    async with fake_clamd(tmp_path / "clamd.sock" if is_local else None) as clamd:
        scanner = Clamd(clamd.address, timeout=SECOND)
        assert await scanner.scan(mail(tmp_path, raw)) == Virus(state=State.CLEAN)
        found = await scanner.scan(mail(tmp_path, b"Subject: x\r\n\r\n" + EICAR))
        assert found == Virus(state=State.INFECTED, name="Eicar-Test-Signature.UNOFFICIAL")
        assert clamd.scanned[0] == raw
        (health,) = scanner.health()
    assert health.state is HealthState.UP
    assert health.figures == {"scanned": 2, "unscanned": 0}


@pytest.mark.parametrize("resets", [False, True])
@pytest.mark.parametrize("size", [1_100_000, 20_000_000])
async def test_a_mail_larger_than_clamd_takes_is_not_scanned_and_no_fault(
    tmp_path: Path, size: int, resets: bool
) -> None:
    """clamd 1.4.6 resets the connection then; it may be before anybody could read its reply."""
    async with fake_clamd() as clamd:
        clamd.longest, clamd.resets = 300_000, resets
        scanner = Clamd(clamd.address, timeout=SECOND)
        assert await scanner.scan(mail(tmp_path, b"x" * size)) == UNSCANNED
        assert scanner.health()[0].state is HealthState.UP
        assert (await scanner.scan(mail(tmp_path, b"x"))).state is State.CLEAN


@pytest.mark.parametrize(
    "reply",
    [b"\0", b"stream: OKAY\0", b"stream: FOUND\0", b"PONG\0", b"x" * 100_000, b"stream: OK",
     b"stream: a b FOUND\0", b"\xff\xfe FOUND\0", b"Can't allocate memory ERROR\0"],
)  # fmt: skip
async def test_a_reply_that_makes_no_sense_is_no_result(tmp_path: Path, reply: bytes) -> None:
    async with fake_clamd() as clamd:
        clamd.says = reply
        scanner = Clamd(clamd.address, timeout=SECOND)
        assert await scanner.scan(mail(tmp_path, b"x")) == UNSCANNED
        (health,) = scanner.health()
    assert health.state is HealthState.DEGRADED
    assert "smtp.clamd" in health.detail


async def test_a_clamd_that_is_away_hangs_or_cuts_costs_its_result_only(tmp_path: Path) -> None:
    small = mail(tmp_path, b"x" * 900_000)
    async with fake_clamd() as clamd:
        scanner = Clamd(clamd.address, timeout=timedelta(seconds=0.3))
        clamd.cuts = True
        assert await scanner.scan(small) == UNSCANNED
        assert "closed" in scanner.health()[0].detail
        clamd.cuts, clamd.hangs = False, True
        began = time.monotonic()
        assert await scanner.scan(small) == UNSCANNED
        assert time.monotonic() - began < 1
        assert "in time" in scanner.health()[0].detail
        clamd.hangs = False
        assert (await scanner.scan(small)).state is State.CLEAN
        assert scanner.health()[0].state is HealthState.UP
    for address in (clamd.address, str(tmp_path / "none.sock")):
        assert await Clamd(address, timeout=SECOND).scan(small) == UNSCANNED
    gone = Mail(path=tmp_path / "none", offset=0, length=5)
    async with fake_clamd() as clamd:
        assert await Clamd(clamd.address, timeout=SECOND).scan(gone) == UNSCANNED


async def test_a_scanner_that_is_away_is_left_alone_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanners, "AWAY_S", 0.5)
    async with fake_clamd() as clamd:
        clamd.hangs = True
        scanner = Clamd(clamd.address, timeout=timedelta(seconds=0.2))
        began = time.monotonic()
        crowd = await asyncio.gather(*(scanner.scan(mail(tmp_path, b"x")) for _ in range(50)))
        assert set(crowd) == {UNSCANNED}
        assert time.monotonic() - began < 0.5
        clamd.hangs = False
        await asyncio.sleep(0.5)
        assert (await scanner.scan(mail(tmp_path, b"x"))).state is State.CLEAN


async def test_a_stranger_at_clamds_port_is_no_clamd(tmp_path: Path) -> None:
    async with stranger(b"220 mail.example.cn ESMTP\r\n") as port:
        scanner = Clamd(f"127.0.0.1:{port}", timeout=timedelta(seconds=0.3))
        assert await scanner.scan(mail(tmp_path, b"x")) == UNSCANNED


# rspamd


@asynccontextmanager
async def asking(url: str, **changes: Any) -> AsyncIterator[Rspamd]:
    scanner = Rspamd(url, **{"timeout": SECOND, **changes})
    async with scanner.running():
        yield scanner


async def test_rspamd_gets_the_mail_and_its_envelope(tmp_path: Path) -> None:
    raw = b"Subject: x\r\n\r\n" + b"y" * 1_000_000
    async with fake_rspamd() as rspamd, asking(rspamd.url, password="s3cret") as scanner:
        asked = mail(tmp_path, raw, origin=ORIGIN, recipients=["a@desk.cn", "b@desk.cn"])
        found = await scanner.scan(asked)
        assert found == Spam(state=State.CLEAN, score=1.5, action="no action")
        ((headers, body),) = rspamd.asked
        assert scanner.health()[0].state is HealthState.UP
    assert body == raw
    told = [(name, value) for name, value in headers if name in {"IP", "Helo", "From", "Rcpt"}]
    assert told == [
        ("IP", "198.51.100.7"), ("Helo", "mail.example.cn"), ("From", "li@example.cn"),
        ("Rcpt", "a@desk.cn"), ("Rcpt", "b@desk.cn"),
    ]  # fmt: skip
    assert dict(headers)["Password"] == "s3cret"
    assert dict(headers)["Content-Length"] == str(len(raw))


async def test_nothing_of_an_envelope_becomes_a_header_of_its_own(tmp_path: Path) -> None:
    hostile = Origin(peer="::1", helo="a\r\nSettings: {}", reverse_path="李@\x00\udc80例子.cn")
    async with fake_rspamd() as rspamd, asking(rspamd.url) as scanner:
        assert (await scanner.scan(mail(tmp_path, b"x", origin=hostile))).state is State.CLEAN
        ((headers, _),) = rspamd.asked
    assert dict(headers)["Helo"] == "aSettings:{}"
    assert "Settings" not in dict(headers)


@pytest.mark.parametrize(
    ("action", "state"),
    [("no action", State.CLEAN), ("greylist", State.CLEAN), ("soft reject", State.CLEAN),
     ("add header", State.SPAM), ("rewrite subject", State.SPAM), ("reject", State.SPAM),
     ("my own", State.CLEAN)],
)  # fmt: skip
async def test_what_rspamd_would_do_says_what_a_mail_is(
    tmp_path: Path, action: str, state: State
) -> None:
    async with fake_rspamd() as rspamd, asking(rspamd.url) as scanner:
        rspamd.answer |= {"action": action, "score": 7}
        assert await scanner.scan(mail(tmp_path, b"x")) == Spam(state=state, score=7, action=action)


async def test_what_rspamd_skips_is_unscanned_and_no_fault(tmp_path: Path) -> None:
    async with fake_rspamd() as rspamd, asking(rspamd.url) as scanner:
        rspamd.answer["is_skipped"] = True
        assert (await scanner.scan(mail(tmp_path, b"x"))).state is State.UNSCANNED
        assert scanner.health()[0].state is HealthState.UP
        rspamd.answer = GTUBE_ANSWER
        found = await scanner.scan(mail(tmp_path, b"x"))
        assert found == Spam(state=State.SPAM, score=15, action="reject")


@pytest.mark.parametrize(
    "answer",
    [b"", b"{", b"[]", b"null", b"{}", b'{"score": 1}', b'{"score": "x", "action": "reject"}',
     b'{"score": NaN, "action": "reject"}', b'{"score": 1e999, "action": "reject"}', b"[" * 100_000,
     b'{"error": "cannot process"}', b'"' + b"x" * (2 << 20) + b'"', b"\xff\xfe"],
)  # fmt: skip
async def test_an_answer_that_makes_no_sense_is_no_result(tmp_path: Path, answer: bytes) -> None:
    async with fake_rspamd() as rspamd, asking(rspamd.url) as scanner:
        rspamd.says = answer
        assert await scanner.scan(mail(tmp_path, b"x")) == Spam(state=State.UNSCANNED)
        (health,) = scanner.health()
    assert health.state is HealthState.DEGRADED
    assert "smtp.rspamd" in health.detail


async def _endless(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse()
    await answer.prepare(request)
    while True:
        await answer.write(b" " * 65_536)


async def _hanging(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(3600)
    raise AssertionError


async def _cut(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def _elsewhere(request: web.Request) -> web.StreamResponse:
    raise web.HTTPFound("/elsewhere")


async def _broken(request: web.Request) -> web.StreamResponse:
    return web.Response(status=500, text='{"score": 1, "action": "reject"}')


@pytest.mark.parametrize("fault", [_endless, _hanging, _cut, _elsewhere, _broken])
async def test_an_rspamd_that_fails_costs_its_result_only(tmp_path: Path, fault: Any) -> None:
    limit = timedelta(seconds=0.5)
    async with fake_rspamd() as rspamd, asking(rspamd.url, timeout=limit) as scanner:
        rspamd.instead = fault
        began = time.monotonic()
        assert await scanner.scan(mail(tmp_path, b"x")) == Spam(state=State.UNSCANNED)
        assert time.monotonic() - began < 1.5
        assert scanner.health()[0].state is HealthState.DEGRADED
        assert ("too long" in scanner.health()[0].detail) == (fault is _endless)
        assert not rspamd.asked
        rspamd.instead = None
        assert (await scanner.scan(mail(tmp_path, b"x"))).state is State.CLEAN


async def test_an_rspamd_that_is_away_costs_its_result_only(tmp_path: Path) -> None:
    async with fake_rspamd() as rspamd:
        url = rspamd.url
    async with asking(url) as scanner:
        assert await scanner.scan(mail(tmp_path, b"x")) == Spam(state=State.UNSCANNED)
    assert await scanner.scan(mail(tmp_path, b"x")) == Spam(state=State.UNSCANNED)  # stopped
    async with (
        stranger(b"220 mail.example.cn ESMTP\r\n") as port,
        asking(f"http://127.0.0.1:{port}") as scanner,
    ):
        assert await scanner.scan(mail(tmp_path, b"x")) == Spam(state=State.UNSCANNED)
