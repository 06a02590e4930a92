"""Click-to-call: rings the phone of somebody of the desk, then the requester's.

Who may be called is decided here once more, whatever a page has offered: an open line out of the
PBX is what toll fraud looks for. How often somebody has called is counted in this process.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Protocol

from contactd.clock import Clock
from contactd.errors import ContactdError, PermanentFailure
from contactd.log import get_logger
from contactd.routing.notify import SendUnknown
from contactd.routing.oncall import Duties, Engineer
from contactd.signals import Signals, Topic
from contactd.telephony.outgoing import OutgoingCall, OutgoingCalls, Step, may_call, ref_of

log = get_logger()

HOUR: Final = timedelta(hours=1)


class Why(StrEnum):
    """Why somebody cannot call."""

    NO_PHONE = "no_phone"  # the user is no engineer of the desk file, or has no number
    NUMBER = "number"  # not one of the requester's
    FORBIDDEN = "forbidden"  # costs more than usual, or nobody knows what
    BUSY = "busy"  # the user calls somebody already
    OFTEN = "often"  # so many an hour
    AWAY = "away"  # no PBX is connected, or it refuses
    OFF = "off"  # by the settings


class CannotCall(ContactdError):
    """Nobody is called; `why` says what to do."""

    def __init__(self, why: Why, detail: str = "") -> None:
        super().__init__(detail or why.value)
        self.why = why


class Line(Protocol):
    """One PBX, as far as it calls out; `pbx.Pbx` is one."""

    name: str

    @property
    def connected(self) -> bool: ...

    async def call_out(
        self, call: OutgoingCall, *, phone: str, language: str, theirs: str
    ) -> None: ...


class PlaceCall(Protocol):
    """`TicketService.place_call`."""

    def __call__(self, number: str, ref: str, *, engineer: str, actor: str) -> Awaitable[bool]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What somebody clicked: to call the requester of a ticket at `number`.

    `numbers` are the requester's, `language` is what they hear. `key` is the form's.
    """

    ticket: str
    number: str
    numbers: Collection[str]
    language: str
    user: str
    engineer: str
    actor: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    per_hour: int
    prefixes: Collection[str] = ()


class Dialling:
    """Makes the calls; `calling` is what the PBXs follow them in."""

    def __init__(  # noqa: PLR0913 - the composition root's words
        self,
        *,
        place: PlaceCall,
        lines: Sequence[Line],
        duties: Callable[[], Awaitable[Duties]],
        calling: OutgoingCalls,
        limits: Limits,
        clock: Clock,
        signals: Signals,
    ) -> None:
        self._place = place
        self._lines = lines
        self._duties = duties
        self._calling = calling
        self._limits = limits
        self._clock = clock
        self._signals = signals
        self._made: dict[str, deque[datetime]] = {}  # user -> when, within the last hour

    @property
    def is_on(self) -> bool:
        return self._limits.per_hour > 0 and bool(self._lines)

    def snapshot(self) -> tuple[OutgoingCall, ...]:
        return self._calling.snapshot(self._clock.now())

    def may_call(self, number: str) -> bool:
        return self.is_on and may_call(number, self._limits.prefixes)

    async def call(self, wish: Wish) -> OutgoingCall | None:
        """Ring who wishes it; return the call, None if this click has made it before.

        Raises:
            CannotCall: nobody is rung.
            NotFound: there is no such ticket.
            TemporaryFailure: the database is away; nobody is rung.
        """
        ref, now = ref_of(wish.ticket, wish.user, wish.key), self._clock.now()
        current = self._calling.of_user(wish.user, now)
        if current is not None and current.ref == ref:
            return None
        line = self._check(wish, current)
        engineer = (await self._duties()).by_key.get(wish.engineer) if wish.engineer else None
        if engineer is None or not engineer.number:
            raise CannotCall(Why.NO_PHONE)
        if self._calling.of_user(wish.user, now) is not None:
            raise CannotCall(Why.BUSY)  # somebody was faster while the rota was read
        call = OutgoingCall(
            ref=ref, ticket=wish.ticket, user=wish.user, engineer=wish.engineer,
            number=wish.number, pbx=line.name, began_at=now, step=Step.YOU, since=now,
        )  # fmt: skip
        self._calling.begin(call)
        try:
            rings = await self._ring(call, wish, engineer, line)
        except BaseException:
            self._calling.forget(ref)
            raise
        if not rings:
            self._calling.forget(ref)
            return None
        self._made.setdefault(wish.user, deque()).append(now)
        self._signals.raise_(Topic.BOARD)
        return call

    async def _ring(self, call: OutgoingCall, wish: Wish, engineer: Engineer, line: Line) -> bool:
        """Note the call, then make it; return False if it was noted before."""
        if not await self._place(call.ticket, call.ref, engineer=call.engineer, actor=wish.actor):
            return False
        try:
            await line.call_out(
                call, phone=engineer.number, language=engineer.language, theirs=wish.language
            )
        except SendUnknown:  # it may ring: the page shows what the PBX tells of it
            log.warning("call.unknown", call=call.ref)
        except PermanentFailure as refusal:
            raise CannotCall(Why.AWAY, str(refusal)) from refusal
        return True

    def _check(self, wish: Wish, current: OutgoingCall | None) -> Line:
        """Return the PBX that can ring.

        Raises:
            CannotCall: it must not be.
        """
        why = self._refusal(wish, current)
        if why is not None:
            raise CannotCall(why)
        line = next((each for each in self._lines if each.connected), None)
        if line is None:
            raise CannotCall(Why.AWAY)
        return line

    def _refusal(self, wish: Wish, current: OutgoingCall | None) -> Why | None:
        checks = (
            (not self.is_on, Why.OFF),
            (not wish.engineer, Why.NO_PHONE),
            (wish.number not in wish.numbers, Why.NUMBER),
            (not may_call(wish.number, self._limits.prefixes), Why.FORBIDDEN),
            (current is not None, Why.BUSY),
            (self._count(wish.user) >= self._limits.per_hour, Why.OFTEN),
        )
        return next((why for is_so, why in checks if is_so), None)

    def _count(self, user: str) -> int:
        since = self._clock.now() - HOUR
        for name, times in list(self._made.items()):
            while times and times[0] <= since:
                times.popleft()
            if not times:
                del self._made[name]
        return len(self._made.get(user, ()))
