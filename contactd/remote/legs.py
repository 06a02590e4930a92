"""One leg as it lives: the gate, the filter, what is recorded, how much and how fast."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, Protocol

from contactd.remote.peers import Peer
from contactd.tickets.remote import Ending, Leg, Mode, Right
from contactd.tickets.sharing import Counts

HELD_BYTES: Final = 64 * 1024  # of a VNC server whose viewer is not there yet
BEGIN_S: Final = 30.0  # server and viewer must be there by then
ONLY_VIEW: Final = frozenset({Right.VIEW})
# What a recording is called while it grows, and what it is.
KINDS: Final = {
    Mode.CONTROL: (".fbs", "application/x-vnc-fbs"),
    Mode.REPEATER: (".fbs", "application/x-vnc-fbs"),
    Mode.VIEW: (".webm", "video/webm"),
}


class RecorderFailed(Exception):
    """What is seen cannot be recorded any more."""


class Filter(Protocol):
    """What stands between a VNC server and its viewer; `remote.rfb` has it.

    Both raise `rfb.Forbidden` when the peer sends what it must not.
    """

    rights: frozenset[Right]

    def from_server(self, data: bytes) -> bytes: ...

    def from_client(self, data: bytes) -> bytes: ...

    def release(self) -> bytes: ...

    keys: int
    clicks: int


class Recorder(Protocol):
    """What makes a recording of what a viewer gets; `remote.fbs` has it."""

    def record(self, data: bytes) -> None: ...


class Tape:
    """The file of a recording while it grows. It is written before anybody sees what is in it."""

    def __init__(self, path: Path, most: int) -> None:
        self.path = path
        self.size = 0
        self._most = most
        self._file: IO[bytes] | None = None

    def begin(self) -> None:
        """Make the file.

        Raises:
            RecorderFailed: it cannot be made.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("xb", buffering=0)
        except OSError as error:
            raise RecorderFailed(f"cannot make a recording: {error.strerror}") from error

    def write(self, data: bytes) -> None:
        """Append.

        Raises:
            RecorderFailed: the disk is full, or the recording too long.
        """
        if self._file is None or self.size + len(data) > self._most:
            raise RecorderFailed("the recording is closed, or as long as it may be")
        try:
            while data:
                written = self._file.write(data)
                self.size += written
                data = data[written:]
        except OSError as error:
            raise RecorderFailed(f"cannot go on recording: {error.strerror}") from error

    def end(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class Pace:
    """A cap of bytes a second: whoever is faster waits (token bucket of a quarter second)."""

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._due = 0.0  # when all that has passed would have passed at that pace

    async def pay(self, count: int) -> None:
        now = asyncio.get_running_loop().time()
        self._due = max(self._due, now - _BURST_S) + count / self._per_second
        if self._due > now:
            await asyncio.sleep(self._due - now)


_BURST_S: Final = 0.25


@dataclass(slots=True, kw_only=True, eq=False)
class LiveLeg:
    """`viewer` is the engineer's picture; a leg of the bare browser has none (nor a filter)."""

    leg: Leg
    mode: Mode
    tape: Tape
    filter: Filter | None
    recorder: Recorder | None
    opened_at: float  # of the loop's clock
    viewer: Peer | None = None
    has_begun: bool = False  # something was recorded
    is_open: bool = True
    ending: Ending | None = None
    views_only: bool = False  # the engineer's own switch
    limit: frozenset[Right] = frozenset(Right)  # what the user has left them, at this moment
    passed: int = 0  # bytes that were seen
    held: list[bytes] = field(default_factory=list)

    @property
    def rights(self) -> frozenset[Right]:
        return self.leg.rights & self.limit

    @property
    def counts(self) -> Counts:
        known = self.filter
        keys, clicks = (known.keys, known.clicks) if known is not None else (0, 0)
        return Counts(keys=keys, clicks=clicks, bytes=self.passed)

    def gate(self, *, asked: bool) -> bytes:
        """Let pass what the leg's rights say; nothing but the picture while the user is asked.

        Otherwise the engineer could answer for them. Return what lets go of the keys that they
        hold just then.
        """
        if self.filter is None:
            return b""
        rights = self.rights & ONLY_VIEW if asked or self.views_only else self.rights
        loses = Right.CONTROL in self.filter.rights and Right.CONTROL not in rights
        self.filter.rights = rights
        return self.filter.release() if loses else b""

    def cut(self, ending: Ending) -> None:
        """Let nothing pass any more, at once."""
        self.is_open = False
        self.ending = self.ending or ending
        self.held.clear()
        self.tape.end()

    def record(self, data: bytes) -> None:
        """Keep what the viewer is about to get.

        Raises:
            RecorderFailed: that.
        """
        self.passed += len(data)
        self.has_begun = True
        if self.recorder is not None:
            self.recorder.record(data)
        else:
            self.tape.write(data)


MakeFilter = Callable[[Leg], Filter]
MakeRecorder = Callable[[Filter, Tape], Recorder]
