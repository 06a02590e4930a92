"""One session as it lives: who is connected, what the user is asked, which legs are open.

What lasts is in the store; a room holds sockets and is gone with them. It cuts first and stores
then: whatever ends, nothing passes from that moment on, also when the database is slow or away.
A leg opens the other way round: the user's yes is stored first, with the leg, in one commit.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from contactd.clock import Clock
from contactd.errors import ActionNotAllowed, ContactdError, NotFound, TemporaryFailure
from contactd.log import get_logger
from contactd.metrics import REMOTE_BYTES, REMOTE_ENDINGS
from contactd.remote.asks import MOST_ASKS, NO, SILENT_S, Answer, Ask
from contactd.remote.legs import (
    BEGIN_S,
    HELD_BYTES,
    KINDS,
    LiveLeg,
    MakeFilter,
    MakeRecorder,
    Pace,
    RecorderFailed,
    Tape,
)
from contactd.remote.peers import Misbehaved, Peer
from contactd.settings import RemoteSettings
from contactd.tickets.contact import Blob
from contactd.tickets.journal import REQUESTER, SYSTEM
from contactd.tickets.remote import (
    CLOSE_CODES,
    Ending,
    Leg,
    Mode,
    Purpose,
    Right,
    State,
    may_pass,
)
from contactd.tickets.sharing import (
    Consent,
    Counts,
    FileState,
    Kind,
    Line,
    Session,
    SharedFile,
)

log = get_logger()

TRIES: Final = 60  # to store an end, a second apart, when the database is away
FIRST_CHUNK_S: Final = 60.0  # of a bare browser's recording
TOLD_LINES: Final = 200  # of the chat, to a page that comes
_EVERYTHING: Final = frozenset(Right)
_ONLY_VIEW: Final = frozenset({Right.VIEW})
OFFERED: Final[Mapping[Mode, frozenset[Right]]] = {
    Mode.CONTROL: _EVERYTHING,
    Mode.REPEATER: frozenset({Right.VIEW, Right.CONTROL}),  # nobody there takes our clipboard
    Mode.VIEW: _ONLY_VIEW,
}


class Sessions(Protocol):
    """What lasts; `store.remote.RemoteSessions` has it."""

    async def session(self, session_id: int) -> Session | None: ...

    async def open_leg(self, session_id: int, consent: Consent) -> Leg | None: ...

    async def change_rights(
        self,
        session_id: int,
        number: int,
        rights: frozenset[Right],
        by: str,
        consent: Consent | None = None,
    ) -> Leg: ...

    async def declined(self, session_id: int, consent: Consent) -> None: ...

    async def close_leg(  # noqa: PLR0913 - what is kept of a leg
        self,
        session_id: int,
        number: int,
        ending: Ending,
        counts: Counts,
        recording: Blob | None = None,
        note: str = "",
    ) -> bool: ...

    async def freeze(self, session_id: int) -> bool: ...

    async def end(self, session_id: int, ending: Ending, actor: str) -> bool: ...

    async def say(self, session_id: int, who: str, text: str) -> Line | None: ...

    async def chat(self, session_id: int) -> tuple[Line, ...]: ...

    async def files(self, session_id: int) -> tuple[SharedFile, ...]: ...

    async def answer_file(
        self, session_id: int, number: int, *, by: str, yes: bool, consent: Consent | None = None
    ) -> SharedFile: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What every room works with. `has_place`: may one more session show a screen?"""

    sessions: Sessions
    clock: Clock
    settings: RemoteSettings
    service: str
    folder: Path  # of recordings that grow
    put: Callable[[Path, str], Awaitable[Blob]]
    make_filter: MakeFilter
    make_recorder: MakeRecorder
    has_place: Callable[[], bool]
    spawn: Callable[[Coroutine[Any, Any, None]], None]
    ice: Callable[[int], Sequence[Mapping[str, Any]]]


class Room:
    """Everything that is not `async` happens at once: no await lies between two of its lines."""

    def __init__(self, session: Session, means: Means) -> None:
        self.session = session
        self.state = session.state
        self.over: Ending | None = None
        self.helper: Peer | None = None
        self.users: list[Peer] = []  # pages of the user
        self.sharer: Peer | None = None  # the page whose browser shows the screen
        self.desk: list[Peer] = []  # pages of engineers
        self.legs: dict[int, LiveLeg] = {}
        self.ask: Ask | None = None
        self.teaches = False
        self.settled = asyncio.Event()  # the end is stored
        self._means = means
        self._lock = asyncio.Lock()  # one change of what lasts at a time
        self._pending = 0  # changes that are made here and not stored yet
        self._asked = 0
        self._asked_files: set[int] = set()
        self._told_files: dict[int, FileState] = {}
        self._told_lines = 0
        self._pace = Pace(means.settings.bytes_per_second)
        self._acted_at = self._now()
        self._acts = 0

    # What is so

    @property
    def id(self) -> int:
        return self.session.id

    @property
    def mode(self) -> Mode:
        return self.session.mode or Mode.VIEW

    @property
    def is_empty(self) -> bool:
        """Nobody is connected, and nothing is left to store."""
        return not (self.helper or self.users or self.desk or self.legs or self._pending)

    @property
    def open_legs(self) -> list[LiveLeg]:
        return [each for each in self.legs.values() if each.is_open]

    @property
    def helping(self) -> LiveLeg | None:
        return next((each for each in self.open_legs if each.leg.purpose is Purpose.HELP), None)

    @property
    def _user_is_here(self) -> bool:
        has_helper, has_page = self.helper is not None, bool(self.users)
        return {
            Mode.CONTROL: has_helper,
            Mode.VIEW: has_page,
            Mode.REPEATER: has_helper and has_page,
        }[self.mode]

    @property
    def _judges(self) -> list[Peer]:
        """Return who shows the user a question: never what an engineer can click on."""
        if self.mode is Mode.CONTROL:
            return [self.helper] if self.helper is not None else []
        return self.users

    def is_judge(self, peer: Peer) -> bool:
        return peer in self._judges

    def leg_of(self, person: str) -> LiveLeg | None:
        return next((each for each in self.open_legs if each.leg.user == person), None)

    def page_of(self, person: str) -> Peer | None:
        return next((each for each in self.desk if each.person == person), None)

    def passes(self, live: LiveLeg, right: Right = Right.VIEW) -> bool:
        """Tell whether something may pass now: the one gate of every byte (invariant 8)."""
        is_open = self.over is None and live.is_open and right in live.limit
        return is_open and may_pass(self.state, live.leg, right)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def acted(self) -> None:
        """Note that somebody did something: idle sessions end."""
        self._acted_at = self._now()

    # Who comes and goes

    def helper_comes(self, peer: Peer, resume_key: str) -> None:
        before, self.helper = self.helper, peer
        if before is not None:
            before.close(CLOSE_CODES[Ending.LOST])
            self._user_is_gone()
        peer.tell(
            {
                "type": "welcome", "session": self.id, "ticket": self.session.ticket,
                "service": self._means.service, "language": self.session.language,
                "resume": resume_key, "hotkey": self._means.settings.hotkey, "recorded": True,
            }
        )  # fmt: skip
        self._anew()

    def helper_leaves(self, peer: Peer) -> None:
        if self.helper is peer:
            self.helper = None
            self._user_is_gone()
            self._anew()

    def user_comes(self, peer: Peer) -> None:
        self.users.append(peer)
        self._welcome(peer, "user")

    def user_leaves(self, peer: Peer) -> None:
        if peer in self.users:
            self.users.remove(peer)
        if peer is self.sharer:
            self.sharer = None
            self.freeze()
        if not self._user_is_here:
            self._user_is_gone()
        self._anew()

    def _user_is_gone(self) -> None:
        """Nobody is left who could say no: withdraw what they are asked, and freeze."""
        if self.ask is not None:
            self.ask.resolve(None)
        self.freeze()

    def desk_comes(self, peer: Peer) -> None:
        self.desk.append(peer)
        self._welcome(peer, self._part(peer))

    def _part(self, peer: Peer) -> str:
        live = self.leg_of(peer.person)
        if live is not None and live.leg.purpose is Purpose.LOOK:
            return "looker"
        return "engineer" if peer.person == self.session.user else "waiting"

    def desk_leaves(self, peer: Peer) -> None:
        if peer in self.desk:
            self.desk.remove(peer)
        if self.page_of(peer.person) is None:
            if self.ask is not None and self.ask.user == peer.person:
                self.ask.resolve(None)
            live = self.leg_of(peer.person)
            if live is not None and live.filter is None:  # the page is what shows the picture
                self.lost(live)
        self._anew()

    async def screen_comes(self, peer: Peer) -> LiveLeg | None:
        """Show a leg to whose it is; None if there is none, or it is shown already."""
        live = self.leg_of(peer.person)
        if live is None or live.filter is None or live.viewer is not None:
            return None
        if not self.passes(live):
            return None
        live.viewer = peer
        held, live.held = b"".join(live.held), []
        if held:
            await peer.send(held)
        return live

    def screen_leaves(self, live: LiveLeg) -> None:
        if live.is_open:
            self.lost(live)

    # What everybody is told

    def _welcome(self, peer: Peer, part: str) -> None:
        peer.tell({
            "type": "welcome", "you": part, "session": self._summary(),
            "ice": list(self._means.ice(self.id)),
        })  # fmt: skip
        self._means.spawn(self._catch_up(peer))
        self._anew()

    async def _catch_up(self, peer: Peer) -> None:
        """Tell a page what was said and which files there are, then what is asked."""
        async with self._lock:
            await self._tell_news()
            lines = await self._means.sessions.chat(self.id)
            for line in lines[-TOLD_LINES:]:
                peer.tell(_line(line))
            for file in await self._means.sessions.files(self.id):
                peer.tell(_file(file))
        if self.ask is not None and self.is_judge(peer):
            peer.tell(self.ask.message())

    async def _tell_news(self) -> None:
        """Tell all pages what was said and offered since."""
        lines = await self._means.sessions.chat(self.id)
        news, self._told_lines = lines[self._told_lines :], len(lines)
        for line in news:
            self.tell_pages(_line(line))
        for file in await self._means.sessions.files(self.id):
            if self._told_files.get(file.number) is not file.state:
                self._told_files[file.number] = file.state
                self.tell_pages(_file(file))
            self._ask_for(file)
        self._tell_bar(sum(1 for line in news if line.who != REQUESTER))

    def _summary(self) -> dict[str, Any]:
        known = self.session
        return {
            "id": known.id, "ticket": known.ticket, "mode": self.mode.value,
            "engineer": known.engineer, "language": known.language, "state": self.state.value,
        }  # fmt: skip

    def tell_pages(self, message: Mapping[str, Any]) -> None:
        for peer in (*self.users, *self.desk):
            peer.tell(message)

    def tell_desk(self, message: Mapping[str, Any]) -> None:
        for peer in self.desk:
            peer.tell(message)

    def tell_state(self) -> None:
        """Tell every page how it stands; each also which leg is its own."""
        state = self._state()
        for peer in self.users:
            peer.tell(state)
        waiting = {each.person: each.name for each in self.desk if self._part(each) == "waiting"}
        known = [{"user": user, "name": name} for user, name in sorted(waiting.items())]
        for peer in self.desk:
            own = self.leg_of(peer.person)
            peer.tell({**state, "waiting": known, "you": self._part(peer),
                       "you_leg": own.leg.number if own is not None else 0})  # fmt: skip

    def _state(self) -> dict[str, Any]:
        helping, counts = self.helping, [each.counts for each in self.legs.values()]
        legs = [
            {"leg": each.leg.number, "engineer": each.leg.engineer,
             "purpose": each.leg.purpose.value, "rights": sorted(each.rights)}
            for each in self.open_legs
        ]  # fmt: skip
        names = self._names()
        return {
            "type": "state",
            "state": State.ENDED.value if self.over else self.state.value,
            "mode": self.mode.value,
            "engineer": self.session.engineer,
            "engineers": names[Purpose.HELP],
            "lookers": names[Purpose.LOOK],
            "rights": sorted(helping.rights) if helping is not None else [],
            "leg": helping.leg.number if helping is not None else 0,
            "legs": legs,
            "since": self.session.since.isoformat(),
            "helper": self.helper is not None,
            "user": bool(self.users),
            "asked": self.ask.kind.value if self.ask is not None else "",
            "teach": self.teaches,
            "counts": {
                "keys": sum(each.keys for each in counts),
                "clicks": sum(each.clicks for each in counts),
                "bytes": sum(each.bytes for each in counts),
            },
            "ending": self.over.value if self.over else "",
        }

    def _names(self) -> dict[Purpose, list[str]]:
        return {
            purpose: [each.leg.engineer for each in self.open_legs if each.leg.purpose is purpose]
            for purpose in Purpose
        }

    def _tell_bar(self, unread: int = 0) -> None:
        if self.helper is not None:
            names = self._names()
            self.helper.tell({"type": "bar", "engineers": names[Purpose.HELP],
                              "lookers": names[Purpose.LOOK], "unread": unread})  # fmt: skip

    def _anew(self) -> None:
        """After any change: gates, what is told, and whether the user is to be asked."""
        self.shut()
        self.tell_state()
        self._consider()

    async def say(self, who: str, text: str) -> None:
        """Keep a line of the chat, and tell everybody."""
        async with self._lock:
            await self._means.sessions.say(self.id, who, text)
            await self._tell_news()

    # What the user is asked

    def _consider(self) -> None:
        """Ask the user for their consent once both sides are there."""
        known = self.session
        waits = self.over is None and not self._pending and self.ask is None
        page = self.page_of(known.user) if known.user else None
        if not waits or self.state not in (State.AGREED, State.FROZEN):
            return
        if page is None or not self._user_is_here:
            return
        if not self._means.has_place():
            page.tell({"type": "error", "text": "busy"})
            return
        offered = OFFERED[self.mode]
        self.put(Kind.CONSENT, person=known.user, name=known.engineer, rights=offered)

    def put(  # noqa: PLR0913 - what is asked
        self,
        kind: Kind,
        *,
        person: str,
        name: str,
        rights: frozenset[Right],
        purpose: Purpose = Purpose.HELP,
        file: SharedFile | None = None,
    ) -> bool:
        """Ask the user; False if they are asked something else just now, or were too often."""
        if self.over or self.ask is not None or not self._judges or self._asked >= MOST_ASKS:
            return False
        self._asked += 1
        self.ask = Ask(
            number=self._asked, kind=kind, user=person, engineer=name, rights=rights,
            purpose=purpose, file=file,
        )  # fmt: skip
        self.shut()
        for judge in self._judges:
            judge.tell(self.ask.message())
        self.tell_state()
        self._means.spawn(self._await_answer(self.ask))
        return True

    async def _await_answer(self, ask: Ask) -> None:
        answer: Answer | None = NO
        try:
            async with asyncio.timeout(SILENT_S):
                answer = await ask.answer
        except TimeoutError:
            pass
        try:
            told = {"type": "answered", "ask": ask.number, "kind": ask.kind.value}
            for judge in self._judges:
                if judge is not ask.by:
                    judge.tell({"type": "withdraw", "ask": ask.number})
            if answer is not None and self.over is None:
                self.tell_desk({**told, "yes": answer.yes})
                await self._act(ask, answer)
        finally:
            self.ask = None
            self._anew()

    async def _act(self, ask: Ask, answer: Answer) -> None:
        consent = ask.consent(answer, self.session.language)
        act = {Kind.RIGHTS: self._change_rights, Kind.FILE: self._answer_file}.get(
            ask.kind, self._let_in
        )
        try:
            async with self._lock:
                await act(ask, consent)
        except (ActionNotAllowed, NotFound, TemporaryFailure) as failure:
            log.warning("remote.not_opened", session=self.id, reason=str(failure))
            self.tell_desk({"type": "error", "text": "refused"})

    async def _let_in(self, ask: Ask, consent: Consent) -> None:
        """Store what the user said, then open the leg: in this order, always."""
        before = self.helping
        leg = await self._means.sessions.open_leg(self.id, consent)
        if leg is None:
            if ask.kind is Kind.CONSENT:
                self.finish(Ending.REFUSED, REQUESTER)
            return
        if consent.purpose is Purpose.HELP and before is not None:
            self._cut(before, Ending.HANDED_OVER)
        await self._reload()
        if self.over is not None:
            return  # stopped meanwhile: that settles the leg, too
        if not self._user_is_here:
            self.freeze()
            return
        self._open(leg, ask.by)
        if before is not None and not before.is_open:
            await self._settle(before.leg.number, Ending.HANDED_OVER)

    def _open(self, leg: Leg, by: Peer | None) -> None:
        suffix, _ = KINDS[self.mode]
        tape = Tape(
            self._means.folder / f"{self.id}-{leg.number}{suffix}",
            self._means.settings.max_recording_bytes,
        )
        live = LiveLeg(
            leg=leg, mode=self.mode, tape=tape, filter=None, recorder=None, opened_at=self._now()
        )
        self.legs[leg.number] = live
        try:
            tape.begin()
            if self.mode is not Mode.VIEW:
                live.filter = self._means.make_filter(leg)
                live.recorder = self._means.make_recorder(live.filter, tape)
        except RecorderFailed as failure:
            self._recorder_failed(failure)
            return
        if self.mode is Mode.VIEW and self.sharer is None:
            self.sharer = by if by in self.users else self.users[0]
        self.acted()
        if self.helper is not None:
            self.helper.tell({
                "type": "open", "leg": leg.number, "engineer": leg.engineer,
                "purpose": leg.purpose.value, "rights": sorted(leg.rights),
            })  # fmt: skip
        self._tell_bar()
        log.info("remote.leg_opened", session=self.id, leg=leg.number, purpose=leg.purpose.value)

    async def _change_rights(self, ask: Ask, consent: Consent) -> None:
        live = self.leg_of(ask.user)
        if not consent.yes or live is None:
            await self._means.sessions.declined(self.id, consent)
            return
        live.limit |= consent.rights
        await self._set_rights(live, consent.rights | live.rights, consent)

    async def switch_rights(self, rights: frozenset[Right]) -> None:
        """Do what the user has switched themselves; what they take back is gone at once."""
        live = self.helping
        if live is None:
            return
        if Right.VIEW not in rights:
            self.freeze()
            return
        wanted = rights & OFFERED[self.mode]
        live.limit = wanted
        self.shut()
        switched = Ask(number=0, kind=Kind.RIGHTS, user=live.leg.user, engineer=live.leg.engineer,
                       rights=wanted)  # fmt: skip
        said = switched.consent(Answer(yes=True, rights=wanted), self.session.language)
        async with self._lock:
            if live.is_open and live.limit == wanted:
                await self._set_rights(live, wanted, said)
        self._anew()

    async def _set_rights(self, live: LiveLeg, rights: frozenset[Right], consent: Consent) -> None:
        number = live.leg.number
        changed = await self._means.sessions.change_rights(
            self.id, number, rights, REQUESTER, consent
        )
        live.leg = changed
        if self.helper is not None:
            told = {"type": "rights", "leg": number, "rights": sorted(changed.rights)}
            self.helper.tell(told)

    def _ask_for(self, file: SharedFile) -> None:
        """Let the helper ask for a file: on a page that an engineer controls they could say yes."""
        if self.mode is not Mode.CONTROL or self.helper is None or file.sender == REQUESTER:
            return
        if file.state is not FileState.OFFERED or file.number in self._asked_files:
            return
        person = file.sender.removeprefix("user:")
        page = self.page_of(person)
        name = page.name if page is not None else self.session.engineer
        if self.put(Kind.FILE, person=person, name=name, rights=frozenset(), file=file):
            self._asked_files.add(file.number)

    async def _answer_file(self, ask: Ask, consent: Consent) -> None:
        assert ask.file is not None  # noqa: S101 - a question of a file has one
        await self._means.sessions.answer_file(
            self.id, ask.file.number, by=REQUESTER, yes=consent.yes, consent=consent
        )

    def shut(self) -> None:
        """Set every gate as it has to be; who loses the keyboard lets go of its keys."""
        for live in self.open_legs:
            released = live.gate(asked=self.ask is not None)
            if released:
                self._means.spawn(self._release(live, released))

    async def _release(self, live: LiveLeg, released: bytes) -> None:
        if self.helper is not None and self.passes(live):
            with suppress(ConnectionError):
                await self.helper.send(bytes((live.leg.number,)) + released)

    # What passes

    async def from_helper(self, data: bytes) -> None:
        """Take a frame of a VNC server: filter, record, then show it.

        Raises:
            Misbehaved: it is of no leg that ever was.
        """
        live = self.legs.get(data[0]) if data else None
        if live is None:
            if data and self.session.leg(data[0]) is not None:
                return  # of a leg that is closed: it was on its way
            raise Misbehaved("bytes of no leg")
        if live.filter is None or not self.passes(live):
            return
        shown = live.filter.from_server(data[1:])
        if not shown or not await self._recorded(live, shown):
            return
        if live.viewer is None:
            self._hold(live, shown)
            return
        try:
            await live.viewer.send(shown)
        except ConnectionError:
            self.lost(live)

    def _hold(self, live: LiveLeg, shown: bytes) -> None:
        live.held.append(shown)
        if sum(map(len, live.held)) > HELD_BYTES:
            raise Misbehaved("a VNC server talks to nobody")

    async def _recorded(self, live: LiveLeg, shown: bytes) -> bool:
        """Record, then wait for our turn; False if nothing may pass any more."""
        try:
            live.record(shown)
        except RecorderFailed as failure:
            self._recorder_failed(failure)
            return False
        REMOTE_BYTES.inc(len(shown))
        await self._pace.pay(len(shown))
        return self.passes(live)

    def _recorder_failed(self, failure: RecorderFailed) -> None:
        log.error("remote.recorder_failed", session=self.id, reason=str(failure))
        self.finish(Ending.RECORDER)

    async def from_viewer(self, live: LiveLeg, data: bytes) -> None:
        """Take what an engineer's picture sends: requests pass, input if the user lets it."""
        if live.filter is None or self.helper is None or not self.passes(live):
            return
        done = live.filter.from_client(data)
        if done and self.passes(live) and self.helper is not None:
            await self.helper.send(bytes((live.leg.number,)) + done)

    async def from_sharer(self, peer: Peer, data: bytes) -> None:
        """Take a piece of what the user's browser records of itself.

        Raises:
            Misbehaved: it is of no leg that ever was, or of a page that shows nothing.
        """
        live = self.legs.get(data[0]) if data else None
        if live is None or self.mode is not Mode.VIEW or peer is not self.sharer:
            if data and self.mode is Mode.VIEW and self.session.leg(data[0]) is not None:
                return
            raise Misbehaved("a recording of no leg")
        if self.passes(live):
            await self._recorded(live, data[1:])

    # How it goes on, and ends

    def lost(self, live: LiveLeg) -> None:
        """A leg's connection is gone: who helps freezes the session, who looks on just leaves."""
        if not live.is_open:
            return
        if live.leg.purpose is Purpose.HELP:
            self.freeze()
            return
        self.leave(live, Ending.LOST)

    def leave(self, live: LiveLeg, ending: Ending) -> None:
        """Close one leg and leave the others."""
        self._cut(live, ending)
        self._later(self._settled(live.leg.number, ending))
        self._anew()

    async def _settled(self, number: int, ending: Ending) -> None:
        await self._settle(number, ending)
        await self._reload()

    def _cut(self, live: LiveLeg, ending: Ending) -> None:
        if not live.is_open:
            return
        live.cut(ending)
        if live.viewer is not None:
            live.viewer.close(CLOSE_CODES[ending])
        if self.helper is not None:
            self.helper.tell({"type": "close", "leg": live.leg.number})

    def freeze(self) -> None:
        """Let nothing pass until the user says so again."""
        if self.state is not State.ACTIVE or self.over is not None:
            return
        self.state = State.FROZEN
        self.sharer = None
        for live in self.open_legs:
            self._cut(live, Ending.LOST)
        self._later(self._frozen())
        self._tell_bar()
        self.tell_state()

    async def _frozen(self) -> None:
        await self._means.sessions.freeze(self.id)
        await self._settle_all(Ending.LOST)
        await self._reload()

    def finish(self, ending: Ending, actor: str = SYSTEM) -> None:
        """End the session: cut, tell, store."""
        if self.over is not None:
            return
        self.over = ending
        for live in self.open_legs:
            self._cut(live, ending)
        if self.ask is not None:
            self.ask.resolve(None)
        if self.helper is not None:
            self.helper.tell({"type": "end", "ending": ending.value})
            self.helper.close(CLOSE_CODES[ending])
        self.tell_state()
        REMOTE_ENDINGS.labels(ending=ending.value).inc()
        log.info("remote.over", session=self.id, ending=ending.value)
        self._later(self._finished(ending, actor))

    async def _finished(self, ending: Ending, actor: str) -> None:
        await self._settle_all(ending)
        await self._means.sessions.end(self.id, ending, actor)
        self.settled.set()
        for peer in (*self.users, *self.desk):
            peer.close(CLOSE_CODES[ending])

    def _later(self, stored: Coroutine[Any, Any, None]) -> None:
        """Store what is done already; nothing is decided by what the store says before."""
        self._pending += 1
        self._means.spawn(self._store(stored))

    async def _store(self, stored: Coroutine[Any, Any, None]) -> None:
        try:
            async with self._lock:
                await stored
        except ContactdError as failure:
            log.warning("remote.not_stored", session=self.id, reason=str(failure))
        finally:
            self._pending -= 1
            self._anew()

    async def _settle_all(self, ending: Ending) -> None:
        """Settle every leg that is over here or in the store."""
        await self._patiently(self._reload)
        for record in self.session.legs:
            live = self.legs.get(record.leg.number)
            if not record.settled and (live is None or not live.is_open):
                await self._settle(record.leg.number, live.ending or ending if live else ending)

    async def _settle(self, number: int, ending: Ending) -> None:
        live = self.legs.get(number)
        counts = live.counts if live is not None else Counts()

        async def settle() -> None:
            kept = await self._keep(live) if live is not None and live.has_begun else None
            await self._means.sessions.close_leg(self.id, number, ending, counts, kept)

        await self._patiently(settle)
        self.legs.pop(number, None)
        if live is not None:
            await asyncio.to_thread(live.tape.path.unlink, missing_ok=True)

    async def _keep(self, live: LiveLeg) -> Blob:
        _, media_type = KINDS[live.mode]
        return await self._means.put(live.tape.path, media_type)

    async def _patiently(self, act: Callable[[], Awaitable[None]]) -> None:
        """Do it again while the database or the disk is away.

        Raises:
            TemporaryFailure: it was for a minute; the next start settles what is left.
        """
        for left in reversed(range(TRIES)):
            try:
                await act()
            except TemporaryFailure:
                if not left:
                    raise
                await asyncio.sleep(1)
            else:
                return

    async def _reload(self) -> None:
        found = await self._means.sessions.session(self.id)
        if found is not None:
            self.session, self.state = found, found.state

    # What others have done, and what time does

    async def look(self) -> None:
        """See what has changed in the store: claims, ends, words, files."""
        if self._pending or self.over is not None:
            return
        async with self._lock:
            await self._reload()
            self._follow()
            await self._tell_news()
        self._anew()

    def _follow(self) -> None:
        """Cut what is over in the store."""
        for live in self.open_legs:
            stored = self.session.leg(live.leg.number)
            if stored is None or stored.ended_at is not None:
                self._cut(live, (stored.ending if stored else None) or Ending.DONE)
        if self.session.state is State.ENDED:
            self.finish(self.session.ending or Ending.DONE)

    def tick(self) -> None:
        """Look at the limits of time."""
        if self.over is not None or self.state is not State.ACTIVE:
            return
        now, limits = self._now(), self._means.settings
        acts = sum(each.counts.keys + each.counts.clicks for each in self.legs.values())
        if acts != self._acts:
            self._acts = acts
            self.acted()
        started = self.session.started_at
        lasted = (self._means.clock.now() - started).total_seconds() if started else 0.0
        if lasted > limits.total_s:
            self.finish(Ending.TOO_LONG)
        elif now - self._acted_at > limits.idle_s:
            self.finish(Ending.IDLE)
        else:
            self._tick_legs(now)
            self.tell_state()

    def _tick_legs(self, now: float) -> None:
        for live in self.open_legs:
            age = now - live.opened_at
            if live.filter is None and not live.has_begun and age > FIRST_CHUNK_S:
                self._recorder_failed(RecorderFailed("the browser records nothing"))
            elif live.filter is not None and live.viewer is None and age > BEGIN_S:
                self.lost(live)

    def part(self, code: int) -> None:
        """Let everybody go: the daemon stops. What was shown is frozen."""
        if self.ask is not None:
            self.ask.resolve(None)
        self.freeze()
        for peer in self.everybody():
            peer.close(code)

    def everybody(self) -> Iterable[Peer]:
        viewers = [each.viewer for each in self.legs.values() if each.viewer is not None]
        return (*([self.helper] if self.helper else []), *viewers, *self.users, *self.desk)


def _line(line: Line) -> dict[str, Any]:
    return {"type": "chat", "at": line.at.isoformat(), "who": line.who, "text": line.text}


def _file(file: SharedFile) -> dict[str, Any]:
    return {
        "type": "file", "number": file.number, "name": file.blob.name,
        "size": file.blob.size_bytes, "from": file.sender, "state": file.state.value,
    }  # fmt: skip
