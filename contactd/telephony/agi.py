"""FastAGI listener: one question of the dialplan, one answer, then the connection is over.

panoramisk's FastAGI server is not used: one connection that opens and closes without a word
freezes its event loop for ever (`Application.handler` never looks for the end of the stream;
`tests/wire/test_agi.py` shows it). Here everything a peer can do is bounded in bytes, lines, time
and number. The dialplan goes on without an answer, so closing is always safe.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from contactd.errors import ConfigurationError, ContactdError, PermanentFailure, TemporaryFailure
from contactd.log import bound, get_logger
from contactd.metrics import AGI_REQUESTS, HANDLER_FAILURES, PEERS_REFUSED
from contactd.service import Health, HealthState
from contactd.settings import AgiSettings

log = get_logger()

Handler = Callable[["AgiRequest"], Awaitable[Sequence[str]]]

# Asterisk 22.10.1 sends 23 lines and one more an argument, 550 bytes in all
# (tests/transcripts/agi-22-arrive.txt); names and numbers come from strangers.
LINES_LIMIT: Final = 64
LINE_LIMIT: Final = 2 * 1024  # bytes
HEADER_LIMIT: Final = 8 * 1024  # bytes
COMMAND_LIMIT: Final = 2_000  # bytes; Asterisk's buffer for one command is 2,048 (res_agi.c)
REPLY_LINES: Final = 4  # "HANGUP" may come before "200 result=1"
LOG_EVERY_S: Final = 1.0  # a flood of peers is one line a second and reason, and exact in metrics
CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
UNSAFE: Final = re.compile(r'[\x00-\x1f\x7f-\x9f\u2028\u2029",\\\ud800-\udfff]+')


class Reason(StrEnum):
    """Why a connection ended without a question."""

    FULL = "full"
    EVICTED = "evicted"
    SLOW = "slow"
    OVERSIZED = "oversized"
    MALFORMED = "malformed"
    GONE = "gone"


class Outcome(StrEnum):
    OK = "ok"
    RETRY = "retry"  # nothing stored: the dialplan goes on without us
    FAILED = "failed"  # a bug, or a request that never succeeds
    UNKNOWN_SCRIPT = "unknown_script"
    TIMEOUT = "timeout"
    GONE = "gone"  # the dialplan did not wait
    REJECTED = "rejected"  # Asterisk did not take the answer


@dataclass(frozen=True, slots=True, kw_only=True)
class AgiRequest:
    """A question. `headers` are Asterisk's without the `agi_` in front: `uniqueid`, `callerid`
    and `calleridname` (`unknown` if withheld), `dnid`, `extension`, `channel`, `language`,
    `context`, …; nothing in them is longer than 2 KiB or has a control character."""

    script: str
    args: tuple[str, ...]
    headers: Mapping[str, str]


class Refused(ContactdError):
    """What a peer sent is not a request."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def parse_request(lines: Sequence[bytes]) -> AgiRequest:
    """Return the request that the header lines make.

    A line feed in a caller's name would look like further headers, or like the end of them. What
    Asterisk writes itself is known: each header once, `agi_threadid` last, then the arguments.

    Raises:
        Refused: it is anything else.
    """
    headers: dict[str, str] = {}
    args: list[str] = []
    for line in lines:
        key, colon, value = CONTROL.sub(" ", line.decode("utf-8", "replace")).partition(": ")
        if not colon or not key.startswith("agi_") or (args and not key.startswith("agi_arg_")):
            raise Refused(Reason.MALFORMED, "not a FastAGI header")
        key = key.removeprefix("agi_")
        if key.startswith("arg_"):
            if "threadid" not in headers or key != f"arg_{len(args) + 1}":
                raise Refused(Reason.MALFORMED, "an argument out of its place")
            args.append(value)
        elif key in headers:
            raise Refused(Reason.MALFORMED, "a FastAGI header came twice")
        else:
            headers[key] = value
    if not headers.get("uniqueid") or "network_script" not in headers or "threadid" not in headers:
        raise Refused(Reason.MALFORMED, "the FastAGI header ends early")
    return AgiRequest(script=headers["network_script"], args=tuple(args), headers=headers)


def answer_command(values: Sequence[str]) -> bytes:
    """Return the one command that hands `values` to the dialplan.

    What would end the string or a field becomes a space: in a value it is punctuation, in the
    dialplan it would be syntax.

    Raises:
        PermanentFailure: longer than Asterisk reads.
    """
    fields = ",".join(UNSAFE.sub(" ", value).strip() for value in values)
    command = f'SET VARIABLE CONTACTD "{fields}"\n'.encode()
    if len(command) > COMMAND_LIMIT:
        raise PermanentFailure(f"an answer of {len(command)} bytes")
    return command


@dataclass(slots=True, eq=False)
class _Peer:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    evicted: bool = False


class AgiListener:
    """Answers the dialplan with `handlers`, by script name.

    A handler that raises TemporaryFailure is answered `retry`, any other failure `failed`.
    """

    def __init__(self, settings: AgiSettings, handlers: Mapping[str, Handler]) -> None:
        self._settings = settings
        self._handlers = handlers
        self._tasks: asyncio.TaskGroup | None = None
        self._peers: set[_Peer] = set()
        self._silent: dict[_Peer, None] = {}  # those that have not asked yet, oldest first
        self._port = 0
        self._answered = 0
        self._logged: dict[Reason, float] = {}

    @property
    def name(self) -> str:
        return "agi"

    @property
    def port(self) -> int:
        """The TCP port; 0 before the start."""
        return self._port

    def health(self) -> list[Health]:
        listening = self._tasks is not None
        where = f"{self._settings.host}:{self._port or self._settings.port}"
        return [
            Health(
                component="agi",
                state=HealthState.UP if listening else HealthState.DOWN,
                detail=where if listening else f"not listening on {where}",
                figures={"connections": len(self._peers), "answered": self._answered},
            )
        ]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listen inside the block; leaving it refuses new peers and answers those that are in.

        Raises:
            ConfigurationError: the address cannot be used.
        """
        server = await self._bind()
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            await server.start_serving()
            try:
                yield
            finally:
                self._tasks = None
                server.close()

    async def _bind(self) -> asyncio.Server:
        settings = self._settings
        try:
            server = await asyncio.start_server(
                self._accept,
                settings.host,
                settings.port,
                limit=LINE_LIMIT,
                backlog=256,
                start_serving=False,
            )
        except OSError as error:
            raise ConfigurationError(
                f"agi: cannot listen on {settings.host}:{settings.port}: {error.strerror}"
            ) from error
        self._port = server.sockets[0].getsockname()[1]
        return server

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Not a coroutine function: asyncio would run it in a task that nobody owns.
        if self._tasks is None or not self._has_room():
            self._count_refused(Reason.FULL)
            writer.transport.abort()
            return
        peer = _Peer(reader, writer)
        self._peers.add(peer)
        self._silent[peer] = None
        self._tasks.create_task(self._serve(peer), name="agi-peer")

    def _has_room(self) -> bool:
        """Return whether one more may come in; the longest silent peer may have to go for it."""
        if len(self._peers) < self._settings.max_connections:
            return True
        oldest = next(iter(self._silent), None)
        if oldest is None:
            return False
        oldest.evicted = True
        self._release(oldest)
        oldest.writer.transport.abort()
        return True

    def _release(self, peer: _Peer) -> None:
        self._peers.discard(peer)
        self._silent.pop(peer, None)

    async def _serve(self, peer: _Peer) -> None:
        """One connection from its first byte to its last; the boundary of what may go wrong."""
        try:
            async with asyncio.timeout(self._settings.exchange_timeout_s):
                request = await self._read_request(peer)
                self._silent.pop(peer, None)
                await self._answer(peer, request)
        except Refused as refusal:
            self._count_refused(Reason.EVICTED if peer.evicted else refusal.reason)
        except TimeoutError:
            pass  # counted by _answer, which knows the script
        finally:
            self._release(peer)
            peer.writer.close()

    async def _read_request(self, peer: _Peer) -> AgiRequest:
        try:
            async with asyncio.timeout(self._settings.header_timeout_s):
                return parse_request(await _read_header(peer.reader))
        except TimeoutError as error:
            raise Refused(Reason.SLOW, "no complete header in time") from error
        except asyncio.LimitOverrunError as error:
            raise Refused(Reason.OVERSIZED, "an endless line") from error
        except (asyncio.IncompleteReadError, OSError) as error:
            raise Refused(Reason.GONE, "the peer closed") from error

    async def _answer(self, peer: _Peer, request: AgiRequest) -> None:
        known = request.script in self._handlers
        script = request.script if known else "other"  # a label comes from our names only
        outcome = Outcome.TIMEOUT
        with bound(call=request.headers["uniqueid"][:64], script=script):
            try:
                if not known:
                    outcome = Outcome.UNKNOWN_SCRIPT
                    return
                decided, command = await self._ask_handler(request)
                outcome = await self._say(peer, decided, command)
                self._answered += 1
            finally:
                AGI_REQUESTS.labels(script=script, outcome=outcome).inc()
                if outcome is not Outcome.OK:
                    log.warning("agi.unanswered", outcome=outcome)

    async def _ask_handler(self, request: AgiRequest) -> tuple[Outcome, bytes]:
        try:
            values = await self._handlers[request.script](request)
            return Outcome.OK, answer_command(values)
        except TemporaryFailure as failure:
            log.warning("agi.deferred", reason=str(failure))
            return Outcome.RETRY, answer_command(["retry"])
        except PermanentFailure as failure:
            log.warning("agi.declined", reason=str(failure))
            return Outcome.FAILED, answer_command(["failed"])
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return Outcome.RETRY, answer_command(["retry"])  # of work shared with another task
        except Exception:  # the boundary: one connection costs itself, not the daemon
            HANDLER_FAILURES.labels(where="agi").inc()
            log.exception("agi.failed")
            return Outcome.FAILED, answer_command(["failed"])

    async def _say(self, peer: _Peer, outcome: Outcome, command: bytes) -> Outcome:
        """Send the command and wait for Asterisk's word that the variable is set."""
        try:
            peer.writer.write(command)
            await peer.writer.drain()
            for _ in range(REPLY_LINES):
                line = await peer.reader.readuntil(b"\n")
                if line.startswith(b"200 "):
                    return outcome
                if line[:3].isdigit():
                    break
        except (asyncio.IncompleteReadError, OSError):
            return Outcome.GONE
        except asyncio.LimitOverrunError:
            pass
        return Outcome.REJECTED

    def _count_refused(self, reason: Reason) -> None:
        PEERS_REFUSED.labels(listener="agi", reason=reason).inc()
        now = asyncio.get_running_loop().time()
        if now - self._logged.get(reason, -LOG_EVERY_S) >= LOG_EVERY_S:
            self._logged[reason] = now
            log.warning("agi.refused", reason=reason, connections=len(self._peers))


async def _read_header(reader: asyncio.StreamReader) -> list[bytes]:
    """Return the lines before the empty one, without their ends.

    Raises:
        Refused: more than FastAGI ever sends.
        LimitOverrunError, IncompleteReadError, OSError: as `StreamReader.readuntil`.
    """
    lines: list[bytes] = []
    size = 0
    while (line := await reader.readuntil(b"\n")) != b"\n":
        size += len(line)
        if len(lines) == LINES_LIMIT or size > HEADER_LIMIT:
            raise Refused(Reason.OVERSIZED, "an endless header")
        lines.append(line[:-1])
    return lines
