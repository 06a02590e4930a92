"""A fake PBX: the manager interface (AMI) as recorded from Asterisk 22, with switches for faults.

What it answers comes from `tests/transcripts/ami-22-*.txt`; `tests/wire/test_ami.py` replays the
transcripts against it.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from contactd.lab.ports import free_port
from tests.fakes.peers import Misbehave
from tests.fakes.waiting import WITHIN_S

TRANSCRIPTS: Final = Path(__file__).parents[1] / "transcripts"
USERNAME: Final = "contactd"
SECRET: Final = "transcript-only"  # as in the transcripts
BANNER: Final = b"Asterisk Call Manager/11.0.0\r\n"

Headers = tuple[tuple[str, str], ...]


def first(message: Headers, name: str) -> str:
    """Return the value of the first header of that name, or an empty string."""
    return next((value for key, value in message if key == name), "")


def replaced(message: Headers, **values: str) -> Headers:
    return tuple((key, values.get(key, value)) for key, value in message)


def wire(message: Iterable[tuple[str, str]]) -> bytes:
    return "".join(f"{key}: {value}\r\n" for key, value in message).encode() + b"\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What the client sent (None: the PBX spoke first) and what came before the next action."""

    sent: Headers | None
    received: tuple[Headers, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    made_by: str
    steps: tuple[Step, ...]

    @classmethod
    def load(cls, name: str) -> Self:
        """Read a recording: `>` to the PBX, `<` from it, `!` a remark, an empty one ends."""
        made_by, *lines = (TRANSCRIPTS / f"{name}.txt").read_text(encoding="utf-8").splitlines()
        steps: list[tuple[Headers | None, list[Headers]]] = [(None, [])]
        message: list[tuple[str, str]] = []
        for line in lines:
            direction, text = line[0], line[2:]
            if text:
                key, _, value = text.partition(": ")
                message.append((key, value))
                if key.startswith("Asterisk Call Manager"):  # the banner has no empty line
                    message.clear()
            elif direction == ">":
                steps.append((tuple(message), []))
                message.clear()
            elif direction == "<":
                steps[-1][1].append(tuple(message))
                message.clear()
        return cls(
            made_by=made_by.removeprefix("# "),
            steps=tuple(Step(sent=sent, received=tuple(received)) for sent, received in steps),
        )

    def answers(self, action: str, number: int = 0) -> tuple[Headers, ...]:
        """Return what followed the `number`-th `action`."""
        found = [step for step in self.steps if step.sent and first(step.sent, "Action") == action]
        return found[number].received


@dataclass(eq=False)
class _Client:
    writer: asyncio.StreamWriter
    logged_in: bool = False
    gone: asyncio.StreamReader | None = None  # ends when the client has gone, if somebody reads it


@dataclass
class Faults:
    """Switches; each may be turned while somebody is connected."""

    mute: bool = False  # nothing is written any more: a half-open link
    unanswered: set[str] = field(default_factory=set)  # actions that get no answer
    cut_after: set[str] = field(default_factory=set)  # actions that are done, then the link breaks
    boots_silently: bool = False  # no FullyBooted
    shuts_down: bool = False  # every action is refused from now on
    banner: bytes = BANNER


class FakePbx:
    """Listens inside `async with`; `stop` and `start` are a PBX that goes and comes back."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.received: list[Headers] = []  # every action, of whomever
        self.channels: list[str] = []  # uniqueids of live channels
        self.details: dict[str, dict[str, str]] = {}  # channel -> headers that differ in the list
        self.members: dict[tuple[str, str], dict[str, str]] = {}  # (queue, interface) -> headers
        self.refused: set[tuple[str, str]] = set()  # members that cannot be changed
        self.dialled: list[str] = []  # ChannelIds, in order; one that was live is not dialled
        self.hung_up: list[str] = []  # uniqueids, in order
        self.logins = 0
        self.port = free_port()
        self._changed = asyncio.Event()
        self._clients: list[_Client] = []
        self._server: asyncio.Server | None = None
        self._tasks = asyncio.TaskGroup()
        login = Transcript.load("ami-22-login")
        queues = Transcript.load("ami-22-queues")
        originate = Transcript.load("ami-22-originate")
        self._login = login.answers("Login")
        self._refusal = Transcript.load("ami-22-wrong-password").answers("Login")
        self._denied = login.answers("Command")
        self._goodbye = [replaced(self._denied[0], Message="Asterisk is shutting down")]
        self._listed = originate.answers("CoreShowChannels", 1)
        self._recorded: dict[str, tuple[Headers, ...]] = {
            name: login.answers(name) for name in ("Ping", "CoreStatus", "Logoff")
        } | {
            "CoreSettings": queues.answers("CoreSettings"),
        }
        not_there = queues.answers("QueueRemove", 1)
        self._queue_actions = {  # what is answered, and the refusal
            "QueueAdd": (queues.answers("QueueAdd"), queues.answers("QueueAdd", 1)),
            "QueuePenalty": (queues.answers("QueuePenalty"), not_there),
            "QueueRemove": (queues.answers("QueueRemove"), not_there),
        }
        self._queue_status = queues.answers("QueueStatus")
        self._queued = originate.answers("Originate")[0]
        pages = Transcript.load("ami-22-pages")
        self._hung_up = pages.answers("Hangup")[0], pages.answers("Hangup", 1)[0]

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        await self._tasks.__aexit__(kind, error, traceback)

    async def start(self) -> None:
        """Listen, on the same port as the last time."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self.cut()

    def cut(self) -> None:
        """Break every connection, without a word."""
        for client in self._clients:
            client.writer.transport.abort()

    def event(self, name: str, **headers: str) -> None:
        self.write(wire((("Event", name), *headers.items())))

    def write(self, raw: bytes) -> None:
        """Send bytes to everybody who is logged in."""
        for client in self._clients:
            if client.logged_in:
                self._write(client, raw)

    def misbehave(self, peer: Misbehave, prefix: bytes) -> None:
        """Let `peer` take over every connection; who comes later meets the usual PBX."""
        for client in self._clients:
            # Its reader is in use: a stream of its own tells the peer that the client is gone.
            client.gone = asyncio.StreamReader()
            self._tasks.create_task(self._misbehave(client, client.gone, peer, prefix))

    def actions(self, name: str) -> list[Headers]:
        return [action for action in self.received if first(action, "Action") == name]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds; it is looked at after each action and login."""
        async with asyncio.timeout(WITHIN_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def logged_in(self, times: int = 1) -> None:
        await self.until(lambda: self.logins >= times)

    async def _misbehave(
        self, client: _Client, gone: asyncio.StreamReader, peer: Misbehave, prefix: bytes
    ) -> None:
        with suppress(ConnectionError):
            await peer(gone, client.writer, prefix)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.create_task(self._converse(reader, _Client(writer)), name="pbx-client")

    async def _converse(self, reader: asyncio.StreamReader, client: _Client) -> None:
        self._clients.append(client)
        try:
            self._write(client, self.faults.banner)
            while raw := await reader.readuntil(b"\r\n\r\n"):
                lines = raw.decode().removesuffix("\r\n\r\n").split("\r\n")
                action = tuple((k, v) for k, _, v in (line.partition(": ") for line in lines))
                self.received.append(action)
                self._obey(client, action)
                self._changed.set()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._clients.remove(client)
            if client.gone is not None:
                client.gone.feed_eof()
            client.writer.transport.abort()
            self._changed.set()

    def _obey(self, client: _Client, action: Headers) -> None:
        name = first(action, "Action")
        answers = self._goodbye if self.faults.shuts_down else self._answers(client, name, action)
        if name not in self.faults.unanswered and name not in self.faults.cut_after:
            for message in answers:
                self._write(client, wire(replaced(message, ActionID=first(action, "ActionID"))))
        if name in self.faults.cut_after:
            client.writer.transport.abort()
        elif name == "Logoff" or (name == "Login" and not client.logged_in):
            client.writer.close()

    def _answers(self, client: _Client, name: str, action: Headers) -> Sequence[Headers]:
        if name == "Login":
            return self._log_in(client, action)
        if not client.logged_in:
            return self._denied
        if name == "CoreShowChannels":
            return self._list_channels()
        if name == "Originate":
            return self._originate(first(action, "ChannelId"))
        if name == "Hangup":
            return self._hang_up(first(action, "Channel"))
        if name in self._queue_actions:
            return self._change_members(name, action)
        if name == "QueueStatus":
            return self._list_members()
        return self._recorded.get(name, self._denied)

    def _log_in(self, client: _Client, action: Headers) -> Sequence[Headers]:
        if (first(action, "Username"), first(action, "Secret")) != (USERNAME, SECRET):
            return self._refusal
        client.logged_in = True
        self.logins += 1
        return self._login[:1] if self.faults.boots_silently else self._login

    def _list_channels(self) -> Sequence[Headers]:
        answer, shown, *_, complete = self._listed
        return [
            answer,
            *(
                replaced(shown, **{"Uniqueid": channel, "Linkedid": channel, **self._of(channel)})
                for channel in self.channels
            ),
            replaced(complete, ListItems=str(len(self.channels))),
        ]

    def _of(self, channel: str) -> dict[str, str]:
        return self.details.get(channel, {})

    def _list_members(self) -> Sequence[Headers]:
        answer, _params, shown, complete = self._queue_status
        return [
            answer,
            *(
                replaced(shown, **{"Queue": queue, "Location": interface, **headers})
                for (queue, interface), headers in self.members.items()
            ),
            replaced(complete, ListItems=str(len(self.members))),
        ]

    def _change_members(self, name: str, action: Headers) -> Sequence[Headers]:
        """Obey and say so; a second QueueAdd or QueueRemove is refused."""
        key = first(action, "Queue"), first(action, "Interface")
        (done, told), refusal = self._queue_actions[name]
        if key in self.refused or (name == "QueueAdd") == (key in self.members):
            return refusal
        headers = self.members.pop(key, {"Name": first(action, "MemberName")})
        if name != "QueueRemove":
            self.members[key] = headers | {"Penalty": first(action, "Penalty")}
        changed = {"Queue": key[0], "Interface": key[1], "MemberName": headers["Name"]}
        return [done, replaced(told, **changed)]

    def _originate(self, channel: str) -> Sequence[Headers]:
        if channel not in self.channels:  # "Channel Unique ID already in use", says its log
            self.channels.append(channel)
            self.dialled.append(channel)
        return [self._queued]

    def _hang_up(self, channel: str) -> Sequence[Headers]:
        done, refusal = self._hung_up
        if channel not in self.channels:
            return [refusal]
        self.channels.remove(channel)
        self.hung_up.append(channel)
        return [done]

    def _write(self, client: _Client, raw: bytes) -> None:
        if client.gone is None and not self.faults.mute and not client.writer.is_closing():
            client.writer.write(raw)
