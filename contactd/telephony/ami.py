"""AMI client: the manager interface of one PBX, kept connected, with panoramisk's faults closed.

panoramisk 1.4 knows the actions and how their answers are put together. What it does to a
connection is replaced here, because it

* decodes each TCP segment by itself, which loses the characters that a segment cuts;
* sends actions that were not answered again after a reconnect, which rings somebody twice;
* never waits for the pong, so that a half-open link looks healthy;
* writes CR and LF inside values, so that a caller's name can add headers;
* fails with AttributeError before the connection is up, and keeps unanswered actions for ever;
* runs callbacks as tasks that nobody owns and in no order.

Every fault has a test in `tests/wire/test_ami.py` that shows it in panoramisk and not here.
"""

import asyncio
import os
import re
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from random import SystemRandom
from typing import Any, Final, NoReturn

from panoramisk.actions import Action
from panoramisk.ami_protocol import AMIProtocol
from panoramisk.manager import Manager
from panoramisk.message import Message

from contactd.errors import ContactdError, PermanentFailure, TemporaryFailure
from contactd.log import get_logger
from contactd.metrics import (
    AMI_CONNECTED,
    AMI_EVENTS,
    AMI_RECONNECTS,
    HANDLER_FAILURES,
    PEERS_REFUSED,
)
from contactd.service import Health, HealthState
from contactd.settings import PbxSettings

log = get_logger()

AmiEvent = Mapping[str, str]
"""Headers as Asterisk wrote them, by their original names; a repeated header's values are joined
by a line feed. Asterisk writes the names of people C-escaped (`张三 \\"; DROP`), but not in
OriginateResponse (seen in 22.10.1, `tests/transcripts/ami-22-originate.txt`)."""

HeaderValue = str | int | Sequence[str]

MESSAGE_LIMIT: Final = 64 * 1024  # bytes; the largest event of a busy PBX is about 4 KiB
BANNER_LIMIT: Final = 256  # bytes; "Asterisk Call Manager/11.0.0"
LINE_LIMIT: Final = 1_024  # bytes; Asterisk 22 refuses more with an answer that has no ActionID
LIST_LIMIT: Final = 50_000  # events that answer one action
HELD_LIMIT: Final = 20_000  # events that arrive during one resynchronisation
FLUSH_SLICE: Final = 100  # held events handled before the loop gets a turn
CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
HEADER_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
VARIABLE_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
VARIABLE_UNSAFE: Final = re.compile(r'[,"\\]')  # Asterisk splits a Variable header at commas
SHUTTING_DOWN: Final = "Asterisk is shutting down"  # manager.c 22: then it obeys no action
LIST_ID: Final = "list-"  # ActionIDs of actions that are answered by a list of events


class OutcomeUnknown(TemporaryFailure):
    """The action was written, but no answer came: it may or may not have been carried out."""


class LoginRefused(TemporaryFailure):
    """The PBX does not know the user, the secret or our address."""


class OriginateOutcome(StrEnum):
    STARTED = "started"  # the PBX dials; how it ends is told by OriginateResponse and by CEL
    LIVE = "live"  # a channel of this id exists: it was dialled before
    UNKNOWN = "unknown"  # the link broke between asking and answer; look in CEL before repeating


@dataclass(frozen=True, slots=True, kw_only=True)
class AmiSettings:
    """Where a PBX is and how patient we are with it. All times in seconds."""

    name: str  # the PBX's systemname
    host: str
    port: int = 5038
    username: str
    secret: str = field(repr=False)
    connect_timeout_s: float = 5.0  # TCP, banner and login, together
    boot_timeout_s: float = 2.0  # for FullyBooted; a user without `read = system` never sees it
    resync_timeout_s: float = 60.0  # for `on_connected`
    ping_interval_s: float = 5.0
    liveness_s: float = 15.0  # no byte for so long: the link is dead
    reconnect_min_s: float = 0.2
    reconnect_max_s: float = 10.0
    login_retry_s: float = 30.0  # a wrong password does not get right by trying often


def ami_settings(pbx: PbxSettings) -> AmiSettings:
    """Return what the configuration says of a PBX's manager interface."""
    return AmiSettings(
        name=pbx.name,
        host=pbx.host,
        port=pbx.port,
        username=pbx.username,
        secret=pbx.secret.get_secret_value(),
        ping_interval_s=pbx.ping_interval_s,
        liveness_s=pbx.liveness_s,
        reconnect_max_s=pbx.reconnect_max_s,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AmiReply:
    success: bool
    message: str
    headers: AmiEvent


def parse(raw: bytes) -> dict[str, str]:
    """Return the headers of one AMI message, without its final empty line.

    Decoding whole messages cannot cut a character in two; bytes that are not UTF-8 (Asterisk cuts
    names at a byte count) become U+FFFD and cost nothing else.
    """
    headers: dict[str, str] = {}
    for line in raw.decode("utf-8", "replace").split("\r\n"):
        key, colon, value = line.partition(": ")
        if not colon:
            key = line.removesuffix(":")
        if key in headers:
            headers[key] += "\n" + value
        else:
            headers[key] = value
    return headers


class _Protocol(AMIProtocol):  # type: ignore[misc]  # panoramisk has no types
    """One connection: bounded, decoded by whole messages; it forgets what was not answered."""

    def __init__(self, on_event: Callable[[AmiEvent], None], wanted: frozenset[bytes] | None):
        self._loop = asyncio.get_running_loop()
        self._on_event = on_event
        self._wanted = wanted
        self._buffer = bytearray()
        self.greeted = asyncio.Event()  # the banner was read, or the connection ended
        self.booted = asyncio.Event()
        self.attention = asyncio.Event()  # the connection ended, or somebody wants a resync
        self.loss = ""  # why the connection ended; empty while it lives
        self.clogged = False  # the PBX does not read what we write
        self.heard_at = self._loop.time()

    def data_received(self, data: bytes) -> None:
        self.heard_at = self._loop.time()
        searched = max(len(self._buffer) - 3, 0)  # an end mark may be cut by the segment
        self._buffer += data
        if self.version is None:
            if not self._read_banner():
                return
            searched = 0
        if self._buffer.find(b"\r\n\r\n", searched) >= 0:
            *messages, rest = bytes(self._buffer).split(b"\r\n\r\n")
            self._buffer = bytearray(rest)
            for raw in messages:
                if self.loss:
                    return
                self._take(raw)
        if len(self._buffer) > MESSAGE_LIMIT:
            self._refuse("oversized", f"it sent {MESSAGE_LIMIT} bytes without ending a message")

    def _read_banner(self) -> bool:
        """Take the first line off the buffer, if it is there and is what AMI says first."""
        line, end, rest = self._buffer.partition(b"\r\n")
        if not end and len(line) <= BANNER_LIMIT and b"\n" not in line:
            return False
        if not end or not line.startswith(b"Asterisk Call Manager/"):
            self._refuse("no_banner", f"not a manager interface: it says {bytes(line[:40])!r}")
            return False
        self.version = line.partition(b"/")[2].decode("ascii", "replace").strip()
        self._buffer = rest
        self.greeted.set()
        return True

    def _take(self, raw: bytes) -> None:
        """Give one message to the action it answers, or to the listener."""
        if len(raw) > MESSAGE_LIMIT:
            self._refuse("oversized", f"it sent a message of {len(raw)} bytes")
        elif raw.startswith(b"Event: "):
            name = raw[7 : raw.find(b"\r\n")] if b"\r\n" in raw else raw[7:]
            # Most events interest nobody: they cost one look, unless they may be part of a list.
            if self._wanted is None or name in self._wanted or name in _OURS:
                self._take_event(parse(raw))
            elif self.responses and b"\r\nActionID: " in raw:
                self._take_listed(parse(raw))
        elif raw.startswith(b"Response: "):
            self._take_answer(parse(raw))
        # Anything else is the rest of an event in whose value an end mark was hidden.

    def _take_event(self, headers: dict[str, str]) -> None:
        if self._take_listed(headers):
            return
        name = headers["Event"]
        if name == "FullyBooted":
            self.booted.set()
            self.attention.set()
        self._on_event(headers)
        if name == "Shutdown":
            self.lose("the PBX is shutting down")

    def _take_listed(self, headers: dict[str, str]) -> bool:
        """Add the event to the list that asked for it; return whether it was for a list at all.

        Only lists: OriginateResponse carries an ActionID too, and it may overtake the answer.
        """
        if not headers.get("ActionID", "").startswith(LIST_ID):
            return False
        self._take_answer(headers)
        return True

    def _take_answer(self, headers: dict[str, str]) -> None:
        action = self.responses.get(headers.get("ActionID"))
        if action is None:
            return  # it came too late
        if action.add_message(Message(headers)):
            self.forget(action)
        elif len(action.responses) > LIST_LIMIT:
            self._refuse("oversized", f"it sent a list of more than {LIST_LIMIT} events")

    def send(self, data: Action, as_list: bool | None = None) -> "asyncio.Future[Any]":
        """Write the action once.

        Raises:
            PermanentFailure: it holds what must not be written.
            TemporaryFailure: the connection is over, or its peer does not read.
        """
        wire = _encode(data)
        if self.loss or self.clogged:
            raise TemporaryFailure(self.loss or "the PBX does not read what is sent to it")
        data.as_list = as_list
        self.responses[data.id] = data
        self.transport.write(wire)
        answer: asyncio.Future[Any] = data.future
        return answer

    def forget(self, action: Action) -> None:
        self.responses.pop(action.id, None)

    def pause_writing(self) -> None:
        self.clogged = True

    def resume_writing(self) -> None:
        self.clogged = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lose(str(exc) if exc else "the PBX closed the connection")

    def close(self) -> None:
        self.lose("closed by contactd")

    def _refuse(self, reason: str, text: str) -> None:
        PEERS_REFUSED.labels(listener="ami", reason=reason).inc()
        self.lose(text)

    def lose(self, reason: str) -> None:
        """End the connection. Nobody gets an answer any more, and nothing is sent again."""
        if self.loss:
            return
        self.loss = reason
        self.closed = True
        self._buffer.clear()
        for action in self.responses.values():
            action.future.cancel()
        self.responses.clear()
        self.greeted.set()
        self.attention.set()
        self.transport.abort()  # what is still unwritten shall not arrive later


_OURS: Final = frozenset({b"FullyBooted", b"Shutdown"})


class _Manager(Manager):  # type: ignore[misc]  # panoramisk has no types
    """panoramisk's manager for one connection: who reconnects and who pings is decided above."""

    def ping(self) -> None:
        """Do nothing: a ping that nobody waits for proves nothing."""


def _encode(action: Action) -> bytes:
    """Return the bytes of `action`; a value never becomes a second header.

    Raises:
        PermanentFailure: a name or value that cannot be written as one line. The text does not
            repeat it: it may be a password or a person's name.
    """
    for name, value in action.items():
        if not HEADER_NAME.fullmatch(name):
            raise PermanentFailure("not the name of an AMI header")
        for line in value if isinstance(value, list | tuple) else (value,):
            text = f"{name}: {line}"
            if CONTROL.search(text):
                raise PermanentFailure(f"a control character in the AMI header {name}")
            if len(text.encode("utf-8", "replace")) > LINE_LIMIT - 2:
                raise PermanentFailure(f"the AMI header {name} is longer than Asterisk accepts")
    try:
        return str(action).encode()
    except UnicodeEncodeError as error:
        raise PermanentFailure("half a surrogate pair in an AMI header") from error


class Ami:
    """The connection to one PBX: opened, watched, opened again, resynchronised.

    `on_connected` is awaited after each login and whenever `resynchronise` was called; it asks the
    PBX how things are. Events that arrive meanwhile are kept back and follow in their order.
    `on_event` is called for each event, in order, and must return at once (`OrderedByKey` is for
    work). `on_lost` is called once when such a connection is over. `wanted` names the events to
    pass on, None for all: what manager.conf lets through and nobody wants costs next to nothing.
    """

    def __init__(
        self,
        settings: AmiSettings,
        *,
        on_event: Callable[[AmiEvent], None],
        on_connected: Callable[["Ami"], Awaitable[None]],
        on_lost: Callable[[], None] = lambda: None,
        wanted: Collection[str] | None = None,
    ) -> None:
        self._settings = settings
        self._on_event = on_event
        self._on_connected = on_connected
        self._on_lost = on_lost
        self._wanted = None if wanted is None else frozenset(name.encode() for name in wanted)
        self._events = AMI_EVENTS.labels(pbx=settings.name)
        self._random = SystemRandom()
        self._link: _Protocol | None = None  # logged in
        self._held: deque[AmiEvent] | None = None  # events kept back; None: they pass at once
        self._serial = 0
        self._resync = False
        self._received = 0
        self._logins = 0
        self._version = ""
        self._last_error = "not connected yet"
        self._logged_error = ""

    @property
    def name(self) -> str:
        return self._settings.name

    @property
    def connected(self) -> bool:
        """Whether actions can be sent: logged in, though perhaps still resynchronising."""
        return self._link is not None and not self._link.loss

    @property
    def last_error(self) -> str:
        """Why the PBX is or was last away, with the remedy; empty if it never was."""
        return self._last_error

    @property
    def version(self) -> str:
        """Asterisk's version; AMI's own (`AMI 11.0.0`) if the user may not ask; empty at first."""
        return self._version

    def health(self) -> Health:
        figures = {
            "events": self._received,
            "logins": self._logins,
            "unanswered": len(self._link.responses) if self._link is not None else 0,
        }
        component = f"pbx:{self.name}"
        if not self.connected:
            return Health(
                component=component,
                state=HealthState.DOWN,
                detail=self._last_error,
                figures=figures,
            )
        if self._held is not None:
            return Health(
                component=component,
                state=HealthState.DEGRADED,
                detail="connected; asking the PBX what it is doing",
                figures=figures,
            )
        return Health(
            component=component,
            state=HealthState.UP,
            detail=f"Asterisk {self._version}",
            figures=figures,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the connection up inside the block; an absent PBX is no error."""
        async with asyncio.TaskGroup() as tasks:
            keeper = tasks.create_task(self._keep_connected(), name=f"ami-{self.name}")
            yield
            keeper.cancel()

    def resynchronise(self) -> None:
        """Have `on_connected` called again, soon and once, because something was missed."""
        self._resync = True
        if self._link is not None:
            self._link.attention.set()

    async def action(
        self, name: str, /, timeout_s: float = 5.0, **headers: HeaderValue
    ) -> AmiReply:
        """Send one action, once, and return the PBX's answer, whether it is a yes or a no.

        Raises:
            PermanentFailure: a value that must not be written, e.g. with a control character.
            OutcomeUnknown: written, but not answered within `timeout_s` seconds or before the
                connection was lost.
            TemporaryFailure: not connected; nothing was written.
        """
        reply = await self._exchange(self._logged_in(), name, headers, timeout_s)
        return _reply(reply)

    async def list(
        self, name: str, /, timeout_s: float = 10.0, **headers: HeaderValue
    ) -> list[AmiEvent]:
        """Return the events that answer a listing action, such as CoreShowChannels.

        Raises:
            PermanentFailure: the PBX says no (its words), or a value must not be written.
            TemporaryFailure: not connected, or no complete answer within `timeout_s` seconds.
        """
        answer = await self._exchange(self._logged_in(), name, headers, timeout_s, as_list=True)
        messages = answer if isinstance(answer, list) else [answer]
        first = _reply(messages[0])
        if not first.success:
            raise PermanentFailure(f"the PBX refuses {name}: {first.message}")
        return [_headers(message) for message in messages[1:-1]]

    async def originate(  # noqa: PLR0913 - the action has them
        self,
        *,
        channel: str,
        channel_id: str,
        context: str,
        exten: str,
        caller_id: str,
        variables: Mapping[str, str],
        timeout_s: float,
    ) -> OriginateOutcome:
        """Ring `channel` for at most `timeout_s` seconds and connect who answers to the dialplan.

        `channel_id` becomes the channel's uniqueid and makes asking again safe while the channel
        lives: it is looked up first, and Asterisk refuses a second one. Whether it lived and ended
        is in CEL, where the caller looks before repeating. STARTED is Asterisk's "queued"; success
        or failure of the dialling follows as an OriginateResponse event with this Uniqueid.

        Raises:
            PermanentFailure: the PBX says no, or a value must not be written.
            TemporaryFailure: nothing was dialled.
        """
        assignments = _assignments(variables)
        try:
            channels = await self.list("CoreShowChannels")
        except OutcomeUnknown as error:  # of a question; nothing was dialled
            raise TemporaryFailure(str(error)) from error
        if any(live.get("Uniqueid") == channel_id for live in channels):
            return OriginateOutcome.LIVE
        try:
            reply = await self.action(
                "Originate",
                Channel=channel,
                ChannelId=channel_id,
                Context=context,
                Exten=exten,
                Priority=1,
                CallerID=caller_id,
                Timeout=round(timeout_s * 1000),
                Async="true",
                Variable=assignments,
            )
        except OutcomeUnknown as error:
            log.warning("originate.unknown", pbx=self.name, channel=channel_id, reason=str(error))
            return OriginateOutcome.UNKNOWN
        if not reply.success:
            raise PermanentFailure(f"the PBX refuses to dial: {reply.message}")
        return OriginateOutcome.STARTED

    def _logged_in(self) -> _Protocol:
        if self._link is None or self._link.loss:
            raise TemporaryFailure(f"PBX {self.name} is not connected: {self._last_error}")
        return self._link

    async def _exchange(
        self,
        link: _Protocol,
        name: str,
        headers: Mapping[str, HeaderValue],
        timeout_s: float,
        *,
        as_list: bool = False,
    ) -> Any:
        """Return panoramisk's message, or list of messages; the action is forgotten afterwards."""
        self._serial += 1
        action_id = f"{LIST_ID if as_list else ''}{self._serial}"
        action = Action({"Action": name, "ActionID": action_id, **headers})
        # as_list=None: panoramisk sees from the answer whether a list follows or an error.
        answer = link.factory.send_action(action, as_list=None if as_list else False)
        try:
            # Not asyncio.timeout: after a freeze of this process the answer is often there
            # together with the end of the time, and it shall count.
            await asyncio.wait({answer}, timeout=timeout_s)
            if not answer.done():
                raise OutcomeUnknown(f"PBX {self.name} did not answer {name} in {timeout_s:g} s")
            if answer.cancelled():
                raise OutcomeUnknown(f"PBX {self.name} was lost during {name}: {link.loss}")
            result = answer.result()
        finally:
            link.forget(action)
        reply = _reply(result[0] if isinstance(result, list) else result)
        if not reply.success and reply.message == SHUTTING_DOWN:
            raise TemporaryFailure(f"PBX {self.name} is shutting down: {name} was not done")
        return result

    async def _keep_connected(self) -> None:
        """Connect for ever; an end of a connection is never an end of this task."""
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            started = loop.time()
            try:
                await self._connection()
            except LoginRefused as error:
                self._note_loss(str(error))
                pause = self._settings.login_retry_s
            except ContactdError as error:
                self._note_loss(str(error))
                if loop.time() - started > self._settings.reconnect_max_s:
                    failures = 0  # it had held; one that breaks at once is not hurried
                pause = self._pause(failures)
                failures += 1
            await asyncio.sleep(pause)

    def _pause(self, failures: int) -> float:
        """Return seconds: doubled each time up to the limit, less up to half by chance."""
        doubled = self._settings.reconnect_min_s * 2.0 ** min(failures, 30)
        return min(doubled, self._settings.reconnect_max_s) * self._random.uniform(0.5, 1)

    def _note_loss(self, reason: str) -> None:
        self._last_error = reason
        if reason != self._logged_error:  # a PBX that is away for a day is one line
            log.warning("ami.lost", pbx=self.name, reason=reason)
        self._logged_error = reason

    async def _connection(self) -> NoReturn:
        """Log in, then serve until the connection is lost.

        Raises:
            TemporaryFailure: why there is no connection, or none any more.
        """
        manager = _Manager(loop=asyncio.get_running_loop(), encoding="utf-8")
        try:
            try:
                async with asyncio.timeout(self._settings.connect_timeout_s):
                    link = await self._open(manager)
                    await self._log_in(link)
            except TimeoutError as error:
                where = f"{self._settings.host}:{self._settings.port}"
                raise TemporaryFailure(f"{where} does not answer as a manager interface") from error
            await self._serve(link)
        finally:
            AMI_CONNECTED.labels(pbx=self.name).set(0)
            self._link = None
            manager.close()

    async def _open(self, manager: _Manager) -> _Protocol:
        settings = self._settings
        loop = asyncio.get_running_loop()
        opened = loop.create_future()
        try:
            opened.set_result(
                await loop.create_connection(
                    lambda: _Protocol(self._take_event, self._wanted), settings.host, settings.port
                )
            )
        except OSError as error:
            raise TemporaryFailure(
                f"cannot connect to {settings.host}:{settings.port} ({_reason(error)}): "
                "is Asterisk running, with enabled=yes and this address in manager.conf?"
            ) from error
        manager.connection_made(opened)
        link: _Protocol = manager.protocol
        await link.greeted.wait()
        if link.loss:
            raise TemporaryFailure(
                f"no manager interface at {settings.host}:{settings.port}: {link.loss}"
            )
        return link

    async def _log_in(self, link: _Protocol) -> None:
        settings = self._settings
        credentials = {"Username": settings.username, "Secret": settings.secret, "Events": "on"}
        self._held = deque()
        reply = _reply(await self._exchange(link, "Login", credentials, settings.connect_timeout_s))
        if not reply.success:
            raise LoginRefused(
                f"the PBX refuses the user {settings.username} ({reply.message}): compare secret "
                f"and permit in its manager.conf; next try in {settings.login_retry_s:g} s"
            )
        self._logins += 1
        AMI_RECONNECTS.labels(pbx=self.name).inc()
        core = _reply(await self._exchange(link, "CoreSettings", {}, settings.connect_timeout_s))
        self._version = core.headers.get("AsteriskVersion", f"AMI {link.version}")

    async def _serve(self, link: _Protocol) -> NoReturn:
        """Resynchronise and pass events on, again and again, until the connection is lost."""
        self._link = link
        AMI_CONNECTED.labels(pbx=self.name).set(1)
        self._logged_error = ""
        log.info("ami.connected", pbx=self.name, version=self._version)
        await _wait(link.booted, self._settings.boot_timeout_s)
        try:
            while True:
                booted = link.booted.is_set()
                self._held = self._held if self._held is not None else deque()
                self._resync = False
                await self._ask_around()
                await self._release_held()
                await self._watch(link, booted=booted)
        finally:
            self._held = None
            self._on_lost()

    async def _ask_around(self) -> None:
        limit_s = self._settings.resync_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                await self._on_connected(self)
        except TimeoutError as error:
            raise TemporaryFailure(f"the resynchronisation took more than {limit_s:g} s") from error

    async def _release_held(self) -> None:
        """Pass on what was kept back, in slices; the last slice and the first live event adjoin."""
        while self._held:
            for _ in range(min(FLUSH_SLICE, len(self._held))):
                self._pass_on(self._held.popleft())
            await asyncio.sleep(0)
        self._held = None

    async def _watch(self, link: _Protocol, *, booted: bool) -> None:
        """Ping; return when a resynchronisation is due.

        Raises:
            TemporaryFailure: the connection is lost, or silent, or does not answer.
        """
        while True:
            link.attention.clear()
            if link.loss:
                raise TemporaryFailure(f"connection lost: {link.loss}")
            if self._resync or link.booted.is_set() != booted:
                return
            if await _wait(link.attention, self._settings.ping_interval_s):
                continue
            silence = asyncio.get_running_loop().time() - link.heard_at
            try:
                await self._exchange(
                    link, "Ping", {}, max(self._settings.liveness_s - silence, 0.01)
                )
            except OutcomeUnknown as error:
                link.lose("it answers no ping")
                raise TemporaryFailure(f"connection lost: {error}") from error

    def _take_event(self, event: AmiEvent) -> None:
        self._received += 1
        self._events.inc()
        if self._held is None:
            self._pass_on(event)
        elif len(self._held) < HELD_LIMIT:
            self._held.append(event)
        elif self._link is not None:
            self._link.lose(f"more than {HELD_LIMIT} events during a resynchronisation")

    def _pass_on(self, event: AmiEvent) -> None:
        try:
            self._on_event(event)
        except Exception:  # the boundary: one event costs itself, not the connection
            HANDLER_FAILURES.labels(where="ami").inc()
            log.exception("ami.event_failed", pbx=self.name, ami_event=event.get("Event"))


async def _wait(event: asyncio.Event, timeout_s: float) -> bool:
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return False
    return True


def _reason(error: OSError) -> str:
    """Return the system's own words: asyncio's name the address, which is in the text already."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)


def _headers(message: Message) -> dict[str, str]:
    # `content` is panoramisk's own, for answers of old that were not headers.
    return {key: value for key, value in message.items() if key != "content"}


def _reply(message: Message) -> AmiReply:
    return AmiReply(success=message.success, message=message.message, headers=_headers(message))


def _assignments(variables: Mapping[str, str]) -> list[str]:
    """Return the values of Originate's Variable headers, one variable each.

    Raises:
        PermanentFailure: a name that is not one (a function could be called by it), or a value
            that Asterisk would take apart.
    """
    for name, value in variables.items():
        if not VARIABLE_NAME.fullmatch(name):
            raise PermanentFailure("not the name of a channel variable")
        if VARIABLE_UNSAFE.search(value):
            raise PermanentFailure(f"a comma, quote or backslash in the channel variable {name}")
    return [f"{name}={value}" for name, value in variables.items()]
