"""The lab's public network: a second Asterisk that plays callers and the engineers' phones.

What a phone or a caller does is a script of steps, see `network/extensions.conf`: `w1-a-w3-d1-w600`
rings for a second, answers, presses 1 three seconds later and stays on the line for ten minutes.
"""

import asyncio
import base64
import itertools
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

from contactd.lab.asterisk import Asterisk, LabError, Seat, configuration

CONFIGURATION: Final = Path(__file__).with_name("network")

# A mobile whose owner is away: rings, then a greeting, a beep, and it records for a minute.
VOICEMAIL: Final = "w2-a-p6-w0.5-p0.4-w60"

_SCRIPT: Final = re.compile(
    r"(?:[wp]\d+(?:\.\d+)?|d[0-9A-D*#]+|[ahnbru])(?:-(?:[wp]\d+(?:\.\d+)?|d[0-9A-D*#]+|[ahnbru]))*"
)
_LINE: Final = 1024  # manager.c reads a line into 1,025 bytes and drops what is longer
_ANSWER_S: Final = 10.0  # an AMI action is answered within milliseconds

_EMPTY: Final = ("acl", "ccss", "cel", "features", "indications", "pjproject", "udptl")

# AMI writes the texts of a channel with C's escapes (ast_escape_c).
_ESCAPE: Final = re.compile(r"\\(.)")
_CONTROLS: Final = {"n": "\n", "r": "\r", "t": "\t"}

_NEVER: Final = datetime.min.replace(tzinfo=UTC)

Headers = Mapping[str, str]


class Manager(asyncio.Protocol):
    """One AMI connection, no more than the lab needs: ordered events, actions with answers."""

    def __init__(self, on_event: Callable[[Headers], None], on_loss: Callable[[], None]) -> None:
        self._on_event = on_event
        self._on_loss = on_loss
        self._waiting: dict[str, asyncio.Future[Headers]] = {}
        self._ids = itertools.count(1)
        self._received = b""
        self._transport: asyncio.WriteTransport | None = None  # None: gone

    async def action(self, *headers: tuple[str, str], action_id: str = "") -> Headers:
        """Send one action and return its response.

        Raises:
            LabError: refused, no answer, or the connection is gone.
            ValueError: a value that AMI cannot carry (control character, line too long).
        """
        number = action_id or f"lab-{next(self._ids)}"
        lines = [f"{key}: {value}" for key, value in (*headers, ("ActionID", number))]
        for line in lines:
            if not line.isprintable() or len(line.encode()) > _LINE:
                raise ValueError(f"not a line for AMI: {line!r}")
        if self._transport is None:
            raise LabError("the public network's Asterisk is gone")
        answer = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        self._transport.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        try:
            async with asyncio.timeout(_ANSWER_S):
                response: Headers = await answer
        except TimeoutError:
            raise LabError(f"no answer to {lines[0]!r} within {_ANSWER_S:g} s") from None
        finally:
            del self._waiting[number]
        if response["Response"] != "Success":
            raise LabError(f"{lines[0]!r} was refused: {response.get('Message', '')}")
        return response

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        *blocks, self._received = (self._received + data).split(b"\r\n\r\n")
        for block in blocks:
            headers = _parse(block)
            answer = self._waiting.get(headers.get("ActionID", ""))
            if "Event" in headers:
                self._on_event(headers)
            elif answer is not None and not answer.done():
                answer.set_result(headers)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(LabError("the public network's Asterisk is gone"))
        self._on_loss()


def _parse(block: bytes) -> Headers:
    lines = block.decode("utf-8", errors="replace").split("\r\n")
    return {key: value for key, found, value in (line.partition(": ") for line in lines) if found}


@dataclass(slots=True, kw_only=True, eq=False)
class Leg:
    """One call as the network sees it: placed by a caller, or arrived at a phone ("a ring").

    `number` is who was dialled, `caller` and `name` who calls ("" if hidden). `started_at` is the
    instant of the INVITE (sent or received), `started` the same on the monotonic clock.
    """

    id: str
    number: str
    caller: str
    name: str
    channel: str = ""
    started_at: datetime = _NEVER
    started: float = 0.0
    answered_at: datetime | None = None
    ended_at: datetime | None = None
    cause: int | None = None  # Q.850, as Asterisk gives it; 16 is a normal end
    _is_there: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    _is_decided: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    _is_over: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    _hang_up: Callable[["Leg"], Awaitable[None]] = field(repr=False)

    @property
    def at(self) -> datetime:
        return self.started_at

    @property
    def is_over(self) -> bool:
        return self._is_over.is_set()

    async def answered(self, timeout_s: float) -> datetime:
        """Return when it was answered; for a caller that is when the hotline did.

        Raises:
            LabError: it was not answered within `timeout_s`, or ended without.
        """
        await _within(timeout_s, self._is_decided, f"not answered: {self}")
        if self.answered_at is None:
            raise LabError(f"ended without being answered: {self}")
        return self.answered_at

    async def ended(self, timeout_s: float) -> int:
        """Return the cause with which it ended.

        Raises:
            LabError: it still lives after `timeout_s`.
        """
        await _within(timeout_s, self._is_over, f"not ended: {self}")
        return self.cause or 0

    async def hangup(self) -> None:
        """Hang up; nothing happens if it is over. Await `ended` to see it done."""
        await self._hang_up(self)


class PublicNetwork:
    """Callers and phones around one PBX. Use `async with PublicNetwork.start(…) as net`.

    `rings` are the calls that arrived at phones, `calls` those that callers placed, both in order
    and never emptied.
    """

    def __init__(self, asterisk: Asterisk) -> None:
        self.asterisk = asterisk
        self.rings: list[Leg] = []
        self.calls: list[Leg] = []
        self._legs: dict[str, Leg] = {}  # those which live, by id
        self._handed_out: set[str] = set()  # rings that a wait_ring has returned
        self._rang = asyncio.Event()  # set and replaced at each ring
        self._prefix = secrets.token_hex(3)
        self._numbers = itertools.count(1)
        self._manager = Manager(self._on_event, self._on_loss)

    @classmethod
    @asynccontextmanager
    async def start(
        cls, *, seat: Seat, pbx: Seat, default_script: str = "n", keep: bool = False
    ) -> AsyncIterator[Self]:
        """Run the network on `seat`, with its trunk to the PBX on `pbx` (which may be dead).

        `default_script` is what a phone does that `phone` was not called for.
        """
        _check(default_script)
        files = network_configuration(seat, pbx, default_script)
        async with Asterisk.start(name="network", files=files, seat=seat, keep=keep) as asterisk:
            network = cls(asterisk)
            manager = network._manager
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: manager, seat.host, seat.ami)
            try:
                await manager.action(("Action", "Login"), ("Username", "lab"), ("Secret", "lab"))
                yield network
            finally:
                manager.close()

    # what a test does

    async def phone(self, number: str, script: str) -> None:
        """From now on the phone `number` (as the PBX dials it) behaves like `script`."""
        _check(script)
        await self._manager.action(
            ("Action", "DBPut"), ("Family", "script"), ("Key", number), ("Val", script)
        )

    async def call(
        self, *, caller: str, did: str, script: str, name: str = "", ring_s: float = 3600.0
    ) -> Leg:
        """Let `caller` dial `did`; return as soon as the INVITE leaves.

        `script` begins when the call is answered. Without `caller` the number is hidden. `name` is
        the display name, any text: quotes, UTF-8, control characters, 700 bytes and more.

        Raises:
            LabError: the network could not place it (a dead PBX is no such case: see `ended`).
        """
        _check(script)
        leg = Leg(
            id=f"{self._prefix}-{next(self._numbers)}",
            number=did,
            caller=caller,
            name=name,
            _hang_up=self._hang_up,
        )
        headers = [
            ("Action", "Originate"),
            ("Channel", f"PJSIP/{did}@pbx" if _is_plain(name) else f"Local/{did}@named/n"),
            ("ChannelId", leg.id),
            ("Context", "callers"),
            ("Exten", "s"),
            ("Priority", "1"),
            ("Async", "true"),
            ("Timeout", str(int(ring_s * 1000))),
            ("Variable", f"SCRIPT={script}"),
        ]
        if caller:
            headers.append(("CallerID", f"<{caller}>"))
        headers += _name_headers(name)
        self._legs[leg.id] = leg
        self.calls.append(leg)
        await self._manager.action(*headers, action_id=leg.id)
        await _within(_ANSWER_S, leg._is_there, f"not placed: {leg}")
        if not leg.channel:
            raise LabError(f"the network cannot place calls\n{self.asterisk.logs()}")
        return leg

    async def wait_ring(self, number: str, timeout_s: float, *, caller: str = "") -> Leg:
        """Return the next ring of the phone `number` (and from `caller`) that none has returned.

        Raises:
            LabError: it did not ring within `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            for ring in self.rings:
                if (
                    ring.number == number
                    and caller in ("", ring.caller)
                    and ring.id not in self._handed_out
                ):
                    self._handed_out.add(ring.id)
                    return ring
            left = max(0.0, deadline - time.monotonic())
            await _within(left, self._rang, f"phone {number} did not ring in {timeout_s:g} s")

    async def hang_up_all(self, timeout_s: float = 10.0) -> None:
        """End every call and wait until the network is silent (between two tests)."""
        legs = list(self._legs.values())
        for leg in legs:
            await self._hang_up(leg)
        for leg in legs:
            await leg.ended(timeout_s)

    async def _hang_up(self, leg: Leg) -> None:
        with suppress(LabError):  # "No such channel": it ended meanwhile
            if not leg.is_over:
                await self._manager.action(
                    ("Action", "Hangup"), ("Channel", leg.channel), ("Cause", "16")
                )

    # what the network tells

    def _on_event(self, event: Headers) -> None:
        number = event.get("Uniqueid", "")
        match event["Event"]:
            case "Newchannel":
                leg = self._legs.get(number)
                if leg is None and event["ChannelStateDesc"] == "Ring":  # it came in
                    leg = self._ring(event)
                if leg is not None:
                    leg.channel = event["Channel"]
                    leg.started_at, leg.started = _instant(event)
                    leg._is_there.set()
            case "Newstate" if event["ChannelStateDesc"] == "Up" and number in self._legs:
                self._legs[number].answered_at, _ = _instant(event)
                self._legs[number]._is_decided.set()
            case "Hangup" if number in self._legs:
                self._over(self._legs[number], _instant(event)[0], int(event["Cause"]))
            case "OriginateResponse" if event["Response"] == "Failure":
                # If there was a channel, its Hangup follows and knows the cause.
                failed = self._legs.get(event.get("ActionID", ""))
                if failed and not failed.channel:
                    self._over(failed, _instant(event)[0], None)

    def _ring(self, event: Headers) -> Leg:
        leg = Leg(
            id=event["Uniqueid"],
            number=event["Exten"],
            caller=_known(event["CallerIDNum"]),
            name=_known(event["CallerIDName"]),
            _hang_up=self._hang_up,
        )
        self._legs[leg.id] = leg
        self.rings.append(leg)
        self._rang.set()
        self._rang = asyncio.Event()
        return leg

    def _over(self, leg: Leg, at: datetime, cause: int | None) -> None:
        leg.ended_at, leg.cause = at, cause
        del self._legs[leg.id]
        for news in (leg._is_there, leg._is_decided, leg._is_over):
            news.set()

    def _on_loss(self) -> None:
        for leg in list(self._legs.values()):
            self._over(leg, datetime.now(UTC), None)


def network_configuration(seat: Seat, pbx: Seat, default_script: str) -> dict[str, str]:
    """Return the network's files for its place in the lab."""
    files = configuration(
        CONFIGURATION,
        {
            "pjsip.conf": {
                "bind = 127.0.0.2:5060": f"bind = {seat.host}:{seat.sip}",
                "contact = sip:127.0.0.1:5060": f"contact = sip:{pbx.host}:{pbx.sip}",
                "match = 127.0.0.1": f"match = {pbx.host}",
            },
            "manager.conf": {
                "bindaddr = 127.0.0.2": f"bindaddr = {seat.host}",
                "port = 5038": f"port = {seat.ami}",
            },
            "rtp.conf": {
                "rtpstart = 10000": f"rtpstart = {seat.rtp[0]}",
                "rtpend = 10999": f"rtpend = {seat.rtp[1]}",
            },
            "extensions.conf": {"DEFAULT_SCRIPT = n": f"DEFAULT_SCRIPT = {default_script}"},
        },
    )
    # Asterisk logs an error for each it does not find, which hides those that matter.
    return {f"{name}.conf": "" for name in _EMPTY} | files


def _check(script: str) -> None:
    if not _SCRIPT.fullmatch(script) or len(script) > 900:
        raise ValueError(f"not a script of the network's: {script!r}")


def _is_plain(name: str) -> bool:
    """Whether AMI's header `Variable` carries `name` as it is (it splits at commas, unquotes).

    What is longer than a channel's 79 bytes is left out by CONNECTEDLINE, without a word.
    """
    return name.isprintable() and not set(name) & set(',"\\') and len(name.encode()) < 80


def _name_headers(name: str) -> list[tuple[str, str]]:
    if not name:
        return []
    if _is_plain(name):
        return [("Variable", f"CONNECTEDLINE(name)={name}")]
    encoded = base64.b64encode(name.encode()).decode()
    parts = [encoded[start : start + 900] for start in range(0, len(encoded), 900)]
    if len(parts) > 4:
        raise ValueError("a display name of more than 2,700 bytes")
    return [("Variable", f"NAME{n}={part}") for n, part in enumerate(parts, start=1)]


def _known(value: str) -> str:
    if value == "<unknown>":
        return ""
    return _ESCAPE.sub(lambda found: _CONTROLS.get(found[1], found[1]), value)


def _instant(event: Headers) -> tuple[datetime, float]:
    """Return when the event was raised, on the wall clock and on the monotonic one."""
    stamp = float(event["Timestamp"])  # manager.conf: timestampevents, microseconds
    return datetime.fromtimestamp(stamp, UTC), time.monotonic() - (time.time() - stamp)


async def _within(timeout_s: float, event: asyncio.Event, failure: str) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        raise LabError(f"{failure} ({timeout_s:g} s)") from None
