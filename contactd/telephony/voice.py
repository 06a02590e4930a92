"""Calls to people: pages to engineers, call-backs to those who reported a fault.

What makes a call safe to repeat is the channel's id: it is the notification's `ref`, chosen by us,
and looked up in the PBX's live channels and in its records before anything is dialled again. What
the person presses comes by FastAGI (`ivr`), which has it on disk before the person hears so.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from contactd.errors import TemporaryFailure
from contactd.routing.notify import Busy, Notification, Reason, SendState, SendUnknown, Trace

# The dialplan's context for each reason; everything else is a page.
CONFIRM: Final = "contactd-confirm"
PAGE: Final = "contactd-page"
TELL: Final = "contactd-tell"
CONTEXTS: Final[Mapping[Reason, str]] = {
    Reason.SOLVED: CONFIRM,
    Reason.REMINDER: CONFIRM,
    Reason.CODE: TELL,
    Reason.CLOSED: TELL,
    Reason.CALLED_OFF: TELL,
    Reason.DECLINED: TELL,
}
_CONTEXTS: Final = frozenset({PAGE, CONFIRM, TELL})

# A page that nobody answers with a key takes up to 75 s. Who is on the line for longer talks in the
# conference, and an event was lost perhaps: neither may keep others from being rung.
DIALOGUE_S: Final = 90.0
YOUNG_S: Final = 1.0  # so long after it was begun, a call need not have a channel yet


class Line(Protocol):
    """One PBX, as far as calls to people go; `pbx.Pbx` is one."""

    name: str

    @property
    def connected(self) -> bool: ...

    async def dial(self, notification: Notification) -> None:
        """Ring the person, once for a `ref` while its channel lives.

        Raises:
            Busy: as many calls as allowed are under way; try again soon.
            SendUnknown: it may or may not ring: ask `has_dialled` before dialling again.
            TemporaryFailure: nothing was dialled.
            PermanentFailure: the PBX refuses to dial that; the text is its words.
        """
        ...

    async def has_dialled(self, ref: str) -> bool:
        """Return whether the PBX has, or ever had, a channel for `ref`.

        Raises:
            TemporaryFailure: it cannot be asked now.
        """
        ...

    async def hang_up(self, refs: Collection[str]) -> None:
        """End those of `refs` that still ring; nothing becomes of them any more.

        Raises:
            TemporaryFailure: it cannot be told now, though it has one of them.
        """
        ...


class Voice:
    """The medium "call", through whichever PBX is there.

    That somebody picked up (`DELIVERED`) or could not be reached (`NOT_REACHED`) is told by the PBX
    later, through `pbx.Shared.call_outcome`.
    """

    def __init__(self, lines: Sequence[Line]) -> None:
        self._lines = lines

    async def send(self, notification: Notification) -> None:
        """Ring through the PBX that the facts name, else through any that is there and has room."""
        failure = TemporaryFailure("no PBX is connected to ring through")
        wanted = notification.facts.get("pbx", "")
        for line in sorted(self._lines, key=lambda line: line.name != wanted):
            if not line.connected:
                continue
            try:
                await line.dial(notification)
            except SendUnknown:
                raise  # it may ring already
            except TemporaryFailure as other:
                failure = failure if isinstance(failure, Busy) else other
            else:
                return
        raise failure

    async def find(self, ref: str) -> Trace:
        """Look `ref` up: `NEVER` only if every PBX says so."""
        failure: TemporaryFailure | None = None
        for line in self._lines:
            try:
                if await line.has_dialled(ref):
                    return Trace.SENT
            except TemporaryFailure as away:
                failure = away
        if failure is not None:
            raise failure
        return Trace.NEVER

    async def stop(self, refs: Collection[str]) -> None:
        """Have the phones of `refs` ring no longer; who has picked up is not cut off."""
        failure: TemporaryFailure | None = None
        for line in self._lines:
            try:
                await line.hang_up(refs)
            except TemporaryFailure as away:
                failure = away
        if failure is not None:
            raise failure


@dataclass(slots=True, kw_only=True)
class _Call:
    begun: float
    until: float  # when it counts as over, whatever is heard
    picked_up: bool = False


class Outgoing:
    """The calls that one PBX has been told to make: how many there are, and what became of them.

    No I/O. Times are seconds of the event loop's clock. A call counts from before it is dialled
    until its channel has gone, or for as long as such a call can take.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._calls: dict[str, _Call] = {}
        self._unwanted: set[str] = set()  # hung up by us: nobody is told how they end

    def begin(self, ref: str, *, ring_s: float, now: float) -> None:
        """Count a call that is about to be dialled, once for a `ref`.

        Raises:
            Busy: as many as allowed are under way.
        """
        self._calls = {ref: call for ref, call in self._calls.items() if call.until > now}
        if ref not in self._calls and len(self._calls) >= self._most:
            raise Busy(f"{self._most} calls to people are under way")
        self._calls[ref] = _Call(begun=now, until=now + ring_s + DIALOGUE_S)
        self._unwanted.discard(ref)

    def forget(self, ref: str) -> None:
        """Count a call no longer: it was not dialled, or is over."""
        self._calls.pop(ref, None)
        self._unwanted.discard(ref)

    def give_up(self, ref: str) -> None:
        """Note that we hang up on a phone that rings."""
        self._unwanted.add(ref)

    def holds(self, refs: Collection[str], now: float) -> bool:
        """Return whether one of `refs` is under way."""
        return any(call.until > now for ref, call in self._calls.items() if ref in refs)

    def feed(self, event: Mapping[str, str], now: float) -> Iterator[tuple[str, SendState]]:
        """Follow OriginateResponse and Hangup; yield what became of which call.

        Also of calls that were dialled in an earlier life of this process.
        """
        ref = event.get("Uniqueid", "")
        if event["Event"] == "Hangup":  # a moment before or after an OriginateResponse "Failure"
            self._calls.pop(ref, None)
        elif event["Event"] != "OriginateResponse" or event.get("Context") not in _CONTEXTS:
            return
        elif event.get("Response") == "Success":
            if (call := self._calls.get(ref)) is not None:
                call.picked_up, call.until = True, now + DIALOGUE_S
            yield ref, SendState.DELIVERED
        else:
            if ref not in self._unwanted:
                yield ref, SendState.NOT_REACHED
            self.forget(ref)

    def resync(self, live: Collection[str], asked_at: float) -> Iterator[tuple[str, SendState]]:
        """Believe the list of channels that the PBX was asked for, after the link was away."""
        for ref, call in list(self._calls.items()):
            if ref in live or call.begun > asked_at - YOUNG_S:
                continue
            if not call.picked_up and ref not in self._unwanted:
                yield ref, SendState.NOT_REACHED
            self.forget(ref)
