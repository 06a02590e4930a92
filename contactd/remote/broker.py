"""The broker of remote help: the rooms of all sessions that somebody is connected to, as a service.

All sockets of a session must reach this one process: what is live is known to it alone.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final, Protocol

from contactd.clock import Clock
from contactd.errors import ContactdError, NotFound
from contactd.log import get_logger
from contactd.metrics import HANDLER_FAILURES, REMOTE_SESSIONS
from contactd.remote.legs import KINDS, MakeFilter, MakeRecorder
from contactd.remote.room import Means, Room, Sessions
from contactd.service import Health, HealthState
from contactd.settings import RemoteSettings
from contactd.signals import Signals, Topic, wait
from contactd.tickets.contact import Blob
from contactd.tickets.journal import REQUESTER
from contactd.tickets.remote import Ending, State
from contactd.tickets.sharing import Counts, Session, Taken

log = get_logger()

TICK_S: Final = 2.0  # limits of time, and how it stands, are looked at that often
LOOK_S: Final = 10.0  # the store is, without any signal
STORED_S: Final = 2.0  # who stops a session on a page is answered then at the latest
GOING_AWAY: Final = 1001  # RFC 6455 section 7.4.1: the daemon stops


class Store(Sessions, Protocol):
    """What the broker asks besides what rooms do."""

    async def take_key(self, key: str, kind: str = "helper") -> Taken | None: ...

    async def settle(self) -> tuple[tuple[int, int], ...]: ...


class Broker:
    name = "remote"

    def __init__(  # noqa: PLR0913 - the composition root's words
        self,
        *,
        sessions: Store,
        signals: Signals,
        clock: Clock,
        settings: RemoteSettings,
        service: str,
        folder: Path,
        put: Callable[[Path, str], Awaitable[Blob]],
        make_filter: MakeFilter,
        make_recorder: MakeRecorder,
        ice: Callable[[int], Sequence[Mapping[str, Any]]] = lambda _session: (),
    ) -> None:
        self._sessions = sessions
        self._signals = signals
        self._settings = settings
        self._folder = folder
        self._put = put
        self._rooms: dict[int, Room] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._is_over = False
        self._means = Means(
            sessions=sessions,
            clock=clock,
            settings=settings,
            service=service,
            folder=folder,
            put=put,
            make_filter=make_filter,
            make_recorder=make_recorder,
            has_place=self._has_place,
            spawn=self._spawn,
            ice=ice,
        )

    # The service

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Freeze what was under way when the last daemon ended, then serve."""
        await self._adopt()
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            watches = [
                tasks.create_task(self._watch(), name="remote-watch"),
                tasks.create_task(self._tick(), name="remote-tick"),
            ]
            try:
                yield
            finally:
                self.end_streams()
                for watch in watches:
                    watch.cancel()
                # What is left in the group stores what was cut; leaving it waits for that.

    def end_streams(self) -> None:
        """Cut everything: the daemon stops. Sessions are frozen, and their users may go on."""
        self._is_over = True
        for room in self._rooms.values():
            room.part(GOING_AWAY)

    def health(self) -> list[Health]:
        active, most = self._active(), self._settings.max_sessions
        full = active >= most
        return [
            Health(
                component="remote",
                state=HealthState.DEGRADED if full else HealthState.UP,
                detail=f"all {most} sessions are in use: raise remote.max_sessions" if full else "",
                figures={"sessions": active, "rooms": len(self._rooms)},
            )
        ]

    def _active(self) -> int:
        return sum(1 for room in self._rooms.values() if room.state is State.ACTIVE)

    def _has_place(self) -> bool:
        return self._active() < self._settings.max_sessions

    # Rooms

    async def room(self, session_id: int) -> Room | None:
        """Return the room of a session that is under way; None if there is none such."""
        if self._is_over:
            return None
        if session_id not in self._rooms:
            found = await self._sessions.session(session_id)
            if found is None or found.state in (State.INVITED, State.ENDED):
                return None
            return self._room_of(found)
        room = self._rooms[session_id]
        return room if room.over is None else None

    async def take_key(self, key: str, kind: str = "helper") -> tuple[Room, str] | None:
        """Let a helper in with its key; return its room, and the key with which it comes back."""
        taken = await self._sessions.take_key(key, kind)
        if taken is None:
            return None
        room = await self.room(taken.session.id)
        return (room, taken.resume_key) if room is not None else None

    def _room_of(self, session: Session) -> Room:
        # Two that came at once share one room: no await lies between the look and this.
        return self._rooms.setdefault(session.id, Room(session, self._means))

    async def stop(self, session_id: int) -> None:
        """End a session because its user says so, on a page without a socket."""
        await self.end(session_id, Ending.STOPPED, REQUESTER)

    async def end(self, session_id: int, ending: Ending, actor: str) -> None:
        """End a session, as somebody says on a page or by the API; harmless twice.

        Raises:
            NotFound: there is none of this id.
        """
        room = await self.room(session_id)
        if room is None:
            await self._sessions.end(session_id, ending, actor)
            return
        room.finish(ending, actor)
        with suppress(TimeoutError):  # it is cut; storing that goes on by itself
            async with asyncio.timeout(STORED_S):
                await room.settled.wait()

    def tidy(self) -> None:
        """Forget rooms that nobody is in."""
        for session_id, room in list(self._rooms.items()):
            if room.is_empty:
                del self._rooms[session_id]
        REMOTE_SESSIONS.set(self._active())

    # What goes on beside the sockets

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        if self._tasks is None:
            work.close()
            raise RuntimeError("the broker does not run")
        self._tasks.create_task(self._contained(work))

    async def _contained(self, work: Coroutine[Any, Any, None]) -> None:
        """Do what belongs to one session; a bug there costs that one."""
        try:
            await work
        except ContactdError as failure:
            log.warning("remote.failed", reason=str(failure))
        except Exception:
            log.exception("remote.broken")
            HANDLER_FAILURES.labels(where="remote").inc()

    async def _watch(self) -> None:
        with self._signals.listening(Topic.REMOTE) as changed:
            while True:
                await wait(changed, LOOK_S)
                for room in list(self._rooms.values()):
                    await self._contained(room.look())
                self.tidy()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            for room in list(self._rooms.values()):
                room.tick()

    # What an earlier daemon left

    async def _adopt(self) -> None:
        """Settle legs that nobody has, with what was recorded of them."""
        try:
            unsettled = await self._sessions.settle()
            for session_id, number in unsettled:
                await self._settle(session_id, number)
        except ContactdError as failure:
            # Nothing can pass before a user says so: what is left waits for the next start.
            log.warning("remote.not_settled", reason=str(failure))
            return
        await asyncio.to_thread(self._clear)

    async def _settle(self, session_id: int, number: int) -> None:
        kept = None
        for suffix, media_type in sorted(set(KINDS.values())):
            path = self._folder / f"{session_id}-{number}{suffix}"
            if path.exists() and path.stat().st_size:
                kept = await self._put(path, media_type)
        try:
            await self._sessions.close_leg(
                session_id, number, Ending.LOST, Counts(), kept, "the service was restarted"
            )
        except NotFound:
            return
        log.info("remote.adopted", session=session_id, leg=number, recorded=kept is not None)

    def _clear(self) -> None:
        if self._folder.is_dir():
            for suffix in {suffix for suffix, _ in KINDS.values()}:
                for left in self._folder.glob(f"*-*{suffix}"):
                    left.unlink(missing_ok=True)
