"""Server-sent events for open pages of the workbench: to each user what concerns them, and no more.

A page says what it shows (`/desk/live?ticket=…&list=1&calls=1`) and hears

* `call`: the cards of the calls that ring at this user's phone, or that they talk in or make;
* `ticket`: how far the journal of its ticket is;
* `list`: a number that changes with any ticket of the user's sites;
* `calls`: one that changes with the calls at the user's sites;
* `presence`: who else has its ticket open, and who is writing.

The database is asked once a change for all pages together, and once for a call that rings. Who is
there is known to this process alone: with several, each tells of its own readers.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Protocol

from aiohttp import web

from contactd.clock import Clock
from contactd.errors import TemporaryFailure
from contactd.httpd import HTTPD, Identity, Problem, Refused, Route
from contactd.log import get_logger
from contactd.metrics import DESK_STREAMS, PEERS_REFUSED
from contactd.service import Health, HealthState
from contactd.signals import Signals, Topic, wait
from contactd.store.callviews import CallerCard, Moved
from contactd.store.views import SiteView
from contactd.tickets.people import Role
from contactd.web.access import PERSONAL, sees
from contactd.web.board import CallStage
from contactd.web.calling import DeskCall, Look
from contactd.web.i18n import Language
from contactd.web.pages import Pages
from contactd.web.streams import (
    RECHECK_S,
    RETRY_MS,
    event,
    shrink_send_buffer,
    write,
)

log = get_logger()

LOOK_S: Final = 5.0  # without any signal; also the streams' heartbeat
COALESCE_S: Final = 0.1  # a burst of changes is looked at that often at most
READ_S: Final = 1.0  # a card is shown without what the database has not said by then
OVER_FOR: Final = timedelta(minutes=2)  # the card of a call that was talked in stays so long
WRITES_FOR: Final = timedelta(seconds=15)  # a page says every 10 s that its user writes
OVERLAP: Final = timedelta(seconds=2)  # clocks of several processes need not agree

BEAT_S: Final = 4.0  # a page hears that often at least that it is still told

_RINGING: Final = frozenset({CallStage.OFFERED})


class Reads(Protocol):
    """What is asked of the database; `store.callviews.CallViews` has it."""

    async def caller_card(self, number: str) -> CallerCard | None: ...

    async def tickets(self, numbers: Collection[str]) -> list[Moved]: ...

    async def changed(self, since: datetime) -> list[Moved]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Who:
    """Whose page it is; as an `Identity` it can be asked what it sees."""

    name: str
    role: Role
    sites: frozenset[str]
    engineer: str

    @classmethod
    def of(cls, identity: Identity) -> "Who":
        return cls(
            name=identity.name,
            role=identity.role,
            sites=identity.sites,
            engineer=identity.engineer,
        )


@dataclass(slots=True, kw_only=True, eq=False)
class _Reader:
    """One open page. `wake` is set when there may be something new, and at the end."""

    who: Who
    language: Language
    ticket: str  # number, "": none
    has_list: bool
    has_calls: bool
    wake: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ended:
    """A call that somebody talked in, and when it was over."""

    call: DeskCall
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class _Caller:
    """What the database said of a caller when the call was as `key` says."""

    key: tuple[str, CallStage | None, str]
    card: CallerCard | None
    sites: Mapping[str, SiteView]


class DeskLive:
    """Watches for all open pages of the workbench, as a service."""

    name = "desk-live"

    def __init__(  # noqa: PLR0913 - the composition root's words
        self,
        *,
        pages: Pages,
        look: Look,
        reads: Reads,
        sites: Callable[[], Awaitable[Iterable[SiteView]]],
        signals: Signals,
        clock: Clock,
        max_streams: int,
    ) -> None:
        self._pages = pages
        self._look_at_calls = look
        self._reads = reads
        self._read_sites = sites
        self._signals = signals
        self._clock = clock
        self._max_streams = max_streams
        self._readers: set[_Reader] = set()
        self._changed = asyncio.Event()
        self._opened = asyncio.Event()
        self._is_over = False
        self._calls: Mapping[str, DeskCall] = {}
        self._ended: dict[str, _Ended] = {}
        self._callers: dict[str, _Caller] = {}
        self._tickets: dict[str, Moved] = {}  # those that pages show
        self._known: dict[str, Moved] = {}  # those that changed lately
        self._since: datetime | None = None
        self._versions: dict[str, int] = {}  # site -> counts what happened there
        self._version = 0
        self._writing: dict[tuple[str, str], datetime] = {}  # ticket, user -> until
        self._drawn: dict[object, str] = {}  # since the last look

    # The service

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(self._watch(), name=self.name)
            try:
                yield
            finally:
                watch.cancel()

    def end_streams(self) -> None:
        """Let the open pages go: their browsers come back when the next daemon is there."""
        self._is_over = True
        for reader in self._readers:
            reader.wake.set()

    def health(self) -> list[Health]:
        open_, most = len(self._readers), self._max_streams
        full = open_ >= most
        return [
            Health(
                component="desk",
                state=HealthState.DEGRADED if full else HealthState.UP,
                detail=f"all {most} pages are open: raise http.max_streams" if full else "",
                figures={"streams": open_},
            )
        ]

    async def _watch(self) -> None:
        with self._signals.listening(Topic.BOARD) as self._changed:
            while True:
                if not self._readers:  # nobody looks: cost nothing
                    self._forget()
                    await self._opened.wait()
                await wait(self._changed, LOOK_S)
                await self._look()
                for reader in self._readers:
                    reader.wake.set()
                await asyncio.sleep(COALESCE_S)

    def _forget(self) -> None:
        """Begin anew with the next page: what happens until then concerns nobody."""
        self._opened.clear()
        self._since, self._calls = None, {}
        for kept in (self._tickets, self._known, self._callers, self._ended, self._writing):
            kept.clear()

    # What there is to tell

    async def _look(self) -> None:
        now = self._clock.now()
        self._see_calls(now)
        try:
            async with asyncio.timeout(LOOK_S):
                await self._see_tickets()
                await self._see_list(now)
                await self._see_callers()
        except (TemporaryFailure, TimeoutError) as failure:
            log.warning("desk.stale", reason=str(failure) or "the database is slow")
        self._drawn.clear()

    def _see_calls(self, now: datetime) -> None:
        calls = {call.call_id: call for call in self._look_at_calls()}
        for call_id, call in self._calls.items():
            talked = call.stage is CallStage.TALKING and call.engineer and call.ours is None
            if call_id not in calls and talked:
                self._ended[call_id] = _Ended(call=call, at=now)
        self._ended = {
            call_id: each
            for call_id, each in self._ended.items()
            if call_id not in calls and now - each.at < OVER_FOR
        }
        self._calls = calls

    async def _see_tickets(self) -> None:
        shown = {reader.ticket for reader in self._readers} - {""}
        self._tickets = {number: m for number, m in self._tickets.items() if number in shown}
        if shown:
            self._tickets |= {moved.number: moved for moved in await self._reads.tickets(shown)}

    async def _see_list(self, now: datetime) -> None:
        if not any(reader.has_list for reader in self._readers):
            self._since = None
            return
        if self._since is None:
            self._since = now - OVERLAP
        since, self._since = self._since, now - OVERLAP
        known = self._known
        self._known = {}
        for moved in await self._reads.changed(since):
            before = known.get(moved.number)
            self._known[moved.number] = moved
            if before != moved:
                self._version += 1
                for site in {moved.site, before.site if before else moved.site}:
                    self._versions[site] = self._version

    async def _see_callers(self) -> None:
        """Read who calls, once for each stage of a call that somebody here is shown."""
        wanted = {
            call.call_id: call for reader in self._readers for call in self._calls_of(reader.who)
        }
        self._callers = {
            call_id: caller for call_id, caller in self._callers.items() if call_id in wanted
        }
        news = [
            call
            for call in wanted.values()
            if call.call_id not in self._callers or self._callers[call.call_id].key != _key(call)
        ]
        if not news:
            return
        async with asyncio.timeout(READ_S):
            sites = {site.key: site for site in await self._read_sites()}
            for call in news:
                card = await self._reads.caller_card(call.caller)
                self._callers[call.call_id] = _Caller(key=_key(call), card=card, sites=sites)

    def _calls_of(self, who: Who) -> list[DeskCall]:
        """Return the calls of which somebody is shown a card, those that ring first."""
        calls = [call for call in self._calls.values() if _concerns(call, who)]
        calls += [
            each.call
            for each in self._ended.values()
            if who.engineer and each.call.engineer == who.engineer
        ]
        return sorted(calls, key=lambda call: (call.stage not in _RINGING, call.arrived_at))

    def _events(self, reader: _Reader) -> Mapping[str, bytes]:
        """Return what the page should know now; each is sent when it has changed."""
        told = {"call": self._cards(reader)}
        if reader.ticket:
            moved = self._tickets.get(reader.ticket)
            told["ticket"] = str(moved.seq) if moved is not None else ""
            told["presence"] = self._presence(reader)
        if reader.has_list:
            seen = (n for site, n in self._versions.items() if sees(reader.who, site))
            told["list"] = str(max(seen, default=0))
        if reader.has_calls:
            told["calls"] = self._calls_version(reader.who)
        return {name: event(name, text) for name, text in told.items()}

    def _beat(self) -> bytes:
        """Return the event that says that the stream lives, and what time it is here."""
        return event("beat", str(int(self._clock.now().timestamp() * 1000)))

    def _cards(self, reader: _Reader) -> str:
        return "\n".join(self._card(call, reader) for call in self._calls_of(reader.who))

    def _card(self, call: DeskCall, reader: _Reader) -> str:
        key = (call.call_id, reader.language, reader.who.sites)
        if key not in self._drawn:
            caller = self._callers.get(call.call_id)
            site = caller.sites.get(call.site) if caller is not None else None
            name = "" if site is None else site.name_en
            if site is not None and reader.language is Language.ZH:
                name = site.name_zh
            card = caller.card if caller is not None else None
            seen = [each for each in card.tickets if sees(reader.who, each.site)] if card else []
            self._drawn[key] = self._pages.draw(
                "parts/desk/call.html",
                reader.language,
                call=call,
                card=card,
                same=[each for each in seen if each.number == call.ticket],
                others=[each for each in seen if each.number != call.ticket],
                ended=self._ended.get(call.call_id),
                site=name,
                opens=bool(call.ticket) and sees(reader.who, call.site),
                now=self._clock.now(),
            )
        return self._drawn[key]

    def _calls_version(self, who: Who) -> str:
        shown = [
            (call.call_id, call.stage, call.ticket, call.offered, call.engineer)
            for call in self._calls.values()
            if sees(who, call.site)
        ]
        return hashlib.sha256(repr(sorted(map(repr, shown))).encode()).hexdigest()[:16]

    def _presence(self, reader: _Reader) -> str:
        others = {
            each.who.name
            for each in self._readers
            if each.ticket == reader.ticket and each.who.name != reader.who.name
        }
        if not others:
            return ""
        now = self._clock.now()
        self._writing = {key: until for key, until in self._writing.items() if until > now}
        writers = tuple(sorted(name for name in others if (reader.ticket, name) in self._writing))
        idle = tuple(sorted(others - set(writers)))
        key = (reader.language, writers, idle)
        if key not in self._drawn:
            self._drawn[key] = self._pages.draw(
                "parts/desk/presence.html", reader.language, writers=writers, idle=idle
            )
        return self._drawn[key]

    # One open page

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Tell one page until it leaves, is cut off, its user may no longer see it, or the end.

        Raises:
            Refused: there are `max_streams` pages already.
        """
        if request.method == "HEAD":
            return web.Response(content_type="text/event-stream")
        if self._is_over or len(self._readers) >= self._max_streams:
            PEERS_REFUSED.labels(listener="http", reason="max_streams").inc()
            raise Refused(
                Problem(status=503, detail="too many open pages", headers={"Retry-After": "10"})
            )
        reader = await self._reader(request)
        self._readers.add(reader)
        DESK_STREAMS.set(len(self._readers))
        try:
            response = web.StreamResponse(
                headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
            )
            shrink_send_buffer(request)
            await response.prepare(request)
            await write(request, response, b"retry: %d\n\n" % RETRY_MS + self._beat())
            self._opened.set()
            self._changed.set()
            await self._send_all(request, response, reader)
        finally:
            self._readers.discard(reader)
            DESK_STREAMS.set(len(self._readers))
            self._changed.set()  # who has the same ticket open is told
        return response

    async def _reader(self, request: web.Request) -> _Reader:
        who = Who.of(await _identity(request))
        return _Reader(
            who=who,
            language=self._pages.language(request),
            ticket=await self._visible(request.query.get("ticket", ""), who),
            has_list="list" in request.query,
            has_calls="calls" in request.query,
        )

    async def _visible(self, ticket: str, who: Who) -> str:
        """Return the number of a ticket that somebody may see, "" for any other."""
        if not ticket:
            return ""
        found = await self._reads.tickets([ticket])
        return ticket if any(sees(who, moved.site) for moved in found) else ""

    async def _send_all(
        self, request: web.Request, response: web.StreamResponse, reader: _Reader
    ) -> None:
        loop = asyncio.get_running_loop()
        sent: Mapping[str, bytes] = {}
        checked_at = wrote_at = loop.time()
        while not self._is_over:
            await wait(reader.wake, LOOK_S * 2)
            events = self._events(reader)
            news = [each for name, each in events.items() if sent.get(name) != each]
            if news or loop.time() - wrote_at > BEAT_S:
                await write(request, response, b"".join(news) or self._beat())
                sent, wrote_at = events, loop.time()
            if loop.time() - checked_at > RECHECK_S:
                identity = await request.app[HTTPD].identify_again(request)
                if identity is None or Who.of(identity) != reader.who:
                    return
                checked_at = loop.time()

    async def writes(self, request: web.Request) -> web.Response:
        """Note that somebody is writing on a ticket that they have open."""
        who = await _identity(request)
        ticket = str((await request.post()).get("ticket", ""))
        is_there = any(
            each.ticket == ticket and each.who.name == who.name for each in self._readers
        )
        if ticket and is_there:
            self._writing[ticket, who.name] = self._clock.now() + WRITES_FOR
            self._changed.set()
        return web.Response(status=204)

    def routes(self) -> Iterable[Route]:
        return (
            Route(method="GET", path="/desk/live", handler=self.stream, roles=PERSONAL),
            Route(method="POST", path="/desk/live/writing", handler=self.writes, roles=PERSONAL),
        )


def _key(call: DeskCall) -> tuple[str, CallStage | None, str]:
    return call.caller, call.stage, call.ticket


def _concerns(call: DeskCall, who: Who) -> bool:
    """Return whether a call is shown on somebody's pages as a card."""
    if call.ours is not None:
        return call.ours.user == who.name
    return bool(who.engineer) and who.engineer in (*call.offered, call.engineer)


async def _identity(request: web.Request) -> Identity:
    identity = await request.app[HTTPD].identify(request)
    assert identity is not None  # noqa: S101 - the routes ask for roles
    return identity
