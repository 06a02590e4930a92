"""Asks clamd for viruses and rspamd for spam, where they are configured.

A scanner helps and decides nothing: while it is away, slow or mad a mail is `UNSCANNED` and goes on
to its ticket. After a failure it is left alone for `AWAY_S`, so that it holds up few mails.
"""

import asyncio
import json
import math
import re
import struct
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import aiohttp

from contactd.errors import ContactdError, TemporaryFailure
from contactd.log import get_logger
from contactd.mail.parsed import Origin
from contactd.service import Health, HealthState

log = get_logger()

AT_ONCE: Final = 8  # mails; clamd's MaxThreads is 10 unless it is told otherwise
AWAY_S: Final = 10.0
CHUNK: Final = 256 << 10
LARGE: Final = 1 << 20  # bytes; StreamMaxLength is 25 MB unless somebody set it
REPLY_LIMIT: Final = 4 << 10  # bytes of clamd's reply
ANSWER_LIMIT: Final = 1 << 20  # bytes of rspamd's answer; with hundreds of symbols it has 50 KB
NAME_LIMIT: Final = 200

# clamd(8): the reply to INSTREAM is "stream: OK", "stream: NAME FOUND", or ends in " ERROR".
_FOUND: Final = re.compile(rb"stream: ([\x21-\x7e]+) FOUND")
_TOO_LARGE: Final = b"INSTREAM size limit exceeded"
# rspamd's actions; the others let a mail pass, now or later (greylist, soft reject).
_SPAM: Final = frozenset({"add header", "rewrite subject", "reject", "quarantine", "discard"})
_UNSAFE: Final = re.compile(r"[^\x21-\x7e]+")


class State(StrEnum):
    CLEAN = "clean"
    INFECTED = "infected"
    SPAM = "spam"
    UNSCANNED = "unscanned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Virus:
    """clamd's word. `name` is the virus's."""

    state: State
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spam:
    """rspamd's word. `action` is what it would do, e.g. "add header"."""

    state: State
    score: float = 0.0
    action: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """`length` bytes from `offset` of the file `path`, and who handed them over to whom."""

    path: Path
    offset: int
    length: int
    origin: Origin | None = None
    recipients: Sequence[str] = field(default=(), repr=False)

    async def pieces(self) -> AsyncIterator[bytes]:
        """Raises OSError."""
        offset, left = self.offset, self.length
        while left > 0 and (piece := await asyncio.to_thread(self._piece, offset, left)):
            offset, left = offset + len(piece), left - len(piece)
            yield piece

    def _piece(self, offset: int, left: int) -> bytes:
        with self.path.open("rb") as source:
            source.seek(offset)
            return source.read(min(CHUNK, left))


class _NotScanned(ContactdError):
    """The scanner is well, but this mail is none for it."""


class _Scanner:
    """What both have in common: when they are asked, and what their silence means."""

    def __init__(self, component: str, remedy: str, timeout: timedelta) -> None:
        self._component = component
        self._remedy = remedy
        self._timeout_s = timeout.total_seconds()
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._fault = ""
        self._away_until = 0.0
        self._scanned = self._unscanned = 0

    def health(self) -> list[Health]:
        figures = {"scanned": self._scanned, "unscanned": self._unscanned}
        state = HealthState.DEGRADED if self._fault else HealthState.UP
        detail = f"{self._fault}: mail is taken unscanned; {self._remedy}" if self._fault else ""
        return [Health(component=self._component, state=state, detail=detail, figures=figures)]

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """Keep in mind how an attempt ends, and let only `_NotScanned` out.

        Raises:
            _NotScanned: there is no result.
        """
        try:
            yield
        except _NotScanned:
            self._fault = ""
            self._unscanned += 1
            raise
        except (TemporaryFailure, TimeoutError, OSError, aiohttp.ClientError, EOFError) as error:
            self._fault = _said(error)
            self._away_until = asyncio.get_running_loop().time() + AWAY_S
            self._unscanned += 1
            log.warning("mail.unscanned", scanner=self._component, reason=self._fault)
            raise _NotScanned(self._fault) from error
        else:
            self._fault = ""
            self._scanned += 1

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Wait for a turn and keep the time limit.

        Raises:
            _NotScanned: it is being left alone.
        """
        async with self._turns:
            if asyncio.get_running_loop().time() < self._away_until:
                self._unscanned += 1
                raise _NotScanned(self._fault)
            with self._noting():
                async with asyncio.timeout(self._timeout_s):
                    yield


class Clamd(_Scanner):
    """`address` is HOST:PORT, or the path of clamd's socket."""

    def __init__(self, address: str, *, timeout: timedelta) -> None:
        super().__init__("clamd", "see smtp.clamd and whether it runs", timeout)
        self._address = address

    async def scan(self, mail: Mail) -> Virus:
        """Return what clamd says; `UNSCANNED` if it does not. Never raises."""
        try:
            async with self._turn():
                return virus_in(await self._reply(mail))
        except _NotScanned:
            return Virus(state=State.UNSCANNED)

    async def _reply(self, mail: Mail) -> bytes:
        """Return its reply.

        Raises:
            _NotScanned: it hung up on a large mail.
            OSError, EOFError, TemporaryFailure: it is away or not well.
        """
        reader, writer = await self._connect()
        try:
            # It closes when a mail is too large: its reply may be there all the same.
            with suppress(ConnectionError):
                await _stream(mail, writer)
            return await reader.readuntil(b"\0")
        except asyncio.LimitOverrunError:
            raise TemporaryFailure("its answer makes no sense") from None
        except (ConnectionError, EOFError):
            # clamd 1.4.6 resets the connection over StreamMaxLength, and its reply is lost.
            if mail.length > LARGE:
                raise _NotScanned("it hung up: larger than StreamMaxLength?") from None
            raise
        finally:
            writer.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._address.startswith("/"):
            return await asyncio.open_unix_connection(self._address, limit=REPLY_LIMIT)
        host, _, port = self._address.rpartition(":")
        return await asyncio.open_connection(host.strip("[]"), int(port), limit=REPLY_LIMIT)


async def _stream(mail: Mail, writer: asyncio.StreamWriter) -> None:
    """Send a mail as clamd(8) wants it: pieces, each behind its length, then one of no length."""
    writer.write(b"zINSTREAM\0")
    async for piece in mail.pieces():
        writer.write(struct.pack(">I", len(piece)))
        writer.write(piece)
        await writer.drain()
    writer.write(struct.pack(">I", 0))
    await writer.drain()


def virus_in(reply: bytes) -> Virus:
    """Return what a reply of clamd says.

    Raises:
        _NotScanned: the mail is larger than it takes.
        TemporaryFailure: it has an error, or is none of clamd's replies.
    """
    reply = reply.rstrip(b"\0\r\n")
    if reply == b"stream: OK":
        return Virus(state=State.CLEAN)
    if found := _FOUND.fullmatch(reply):
        return Virus(state=State.INFECTED, name=found[1].decode()[:NAME_LIMIT])
    if _TOO_LARGE in reply:
        raise _NotScanned("it is larger than StreamMaxLength")
    raise TemporaryFailure("it has an error" if reply.endswith(b"ERROR") else "it is no clamd")


class Rspamd(_Scanner):
    """`url` is that of its normal worker, e.g. http://127.0.0.1:11333."""

    def __init__(self, url: str, *, timeout: timedelta, password: str = "") -> None:
        super().__init__("rspamd", "see smtp.rspamd and whether it runs", timeout)
        self._url = f"{url.rstrip('/')}/checkv2"
        self._password = password
        self._client: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        # Its default would wait five minutes, and follow the proxy of the environment if told so.
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(self._timeout_s)) as client:
            self._client = client
            try:
                yield
            finally:
                self._client = None

    async def scan(self, mail: Mail) -> Spam:
        """Return what rspamd says; `UNSCANNED` if it does not. Never raises."""
        try:
            async with self._turn():
                return spam_in(await self._answer(mail))
        except _NotScanned:
            return Spam(state=State.UNSCANNED)

    async def _answer(self, mail: Mail) -> bytes:
        """Raises aiohttp.ClientError, OSError, TemporaryFailure."""
        if self._client is None:
            raise TemporaryFailure("it is not being asked")
        async with self._client.post(
            self._url, data=mail.pieces(), headers=self._headers(mail), allow_redirects=False
        ) as answer:
            if answer.status != 200:
                raise TemporaryFailure(f"its answer is {answer.status}")
            content = bytearray()
            async for piece in answer.content.iter_chunked(1 << 16):
                content += piece
                if len(content) > ANSWER_LIMIT:
                    raise TemporaryFailure("its answer is too long")
            return bytes(content)

    def _headers(self, mail: Mail) -> list[tuple[str, str]]:
        """Return the envelope as rspamd's protocol has it; nothing in it can end a line."""
        told = [("Content-Length", str(mail.length)), ("Content-Type", "text/plain")]
        if self._password:
            told.append(("Password", self._password))
        if mail.origin is not None:
            origin = mail.origin
            told += [("IP", origin.peer), ("Helo", origin.helo), ("From", origin.reverse_path)]
        told += [("Rcpt", recipient) for recipient in mail.recipients]
        return [(name, _UNSAFE.sub("", value)) for name, value in told if value]


def spam_in(answer: bytes) -> Spam:
    """Return what an answer of rspamd says.

    Raises:
        _NotScanned: it skipped the mail.
        TemporaryFailure: it is none of rspamd's answers.
    """
    try:
        told: Any = json.loads(answer)
        score, action = float(told["score"]), str(told["action"])
        is_skipped = bool(told.get("is_skipped"))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise TemporaryFailure("it is no rspamd") from None
    if not math.isfinite(score):
        raise TemporaryFailure("it is no rspamd")
    state = State.SPAM if action in _SPAM else State.CLEAN
    if is_skipped and state is State.CLEAN:  # rspamd 3.4 also skips the rest of what is GTUBE
        raise _NotScanned("rspamd skipped it")
    return Spam(state=state, score=score, action=action[:NAME_LIMIT])


def _said(error: BaseException) -> str:
    """Return why it failed, without what the peer wrote."""
    match error:
        case TimeoutError():
            return "no answer in time"
        case TemporaryFailure():
            return str(error)
        case EOFError():
            return "it closed the connection"
        case OSError(strerror=str(why)):
            return why
        case _:
            return type(error).__name__
