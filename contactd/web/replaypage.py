"""The page on which a recording of remote help is watched, and the recording itself.

What was on somebody's screen is for those who may listen to recordings; that it was watched is
written into the ticket's journal each time.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import BinaryIO, Final, Protocol
from zoneinfo import ZoneInfo

from aiohttp import web

from contactd.clock import Clock
from contactd.errors import NotFound
from contactd.httpd import Route
from contactd.log import get_logger
from contactd.store.blobs import Blobs
from contactd.tickets.contact import Blob
from contactd.tickets.sharing import LegRecord, Session
from contactd.web.access import LISTENING, check_site
from contactd.web.actions import actor_of
from contactd.web.i18n import Clockwork
from contactd.web.pages import Pages
from contactd.web.ticketfiles import begins
from contactd.web.ticketpage import identity_of

log = get_logger()

PATH: Final = "/desk/remote/{session}/legs/{leg}"
VIDEO: Final = "video/webm"
# How each kind of recording is called when it is saved; nothing else is sent.
ENDINGS: Final = {"application/x-vnc-fbs": "fbs", VIDEO: "webm"}
WATCHING: Final = timedelta(hours=1)
MOST_WATCHED: Final = 1000
_MISSING: Final = "there is no such recording"
_GONE: Final = "the file of this recording is gone: restore it from the backup"


class Sessions(Protocol):
    """What is kept; `store.remote.RemoteSessions` has it."""

    async def session(self, session_id: int) -> Session | None: ...

    async def replayed(self, session_id: int, leg: int, actor: str) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayPage:
    """`length_ms` tells how long a recording of RFB plays; it raises if the file is none."""

    pages: Pages
    sessions: Sessions
    blobs: Blobs
    length_ms: Callable[[BinaryIO], int]
    clock: Clock
    zone: str
    watched: dict[tuple[str, int, int], datetime] = field(default_factory=dict)

    async def show(self, request: web.Request) -> web.Response:
        session, record, blob = await self._recorded(request)
        path = self.blobs.path(blob.sha256)
        is_video = blob.media_type == VIDEO
        lasts = 0 if is_video else await asyncio.to_thread(_length, self.length_ms, path)
        return self.pages.respond(
            request, "remote/replay.html", identity=await identity_of(request), session=session,
            leg=record.leg, counts=record.counts, note=record.note, is_video=is_video,
            lasts=lasts, size=blob.size_bytes, is_there=path.is_file(), section="tickets",
            now=self.clock.now(),
            times=Clockwork(language=self.pages.language(request), zone=ZoneInfo(self.zone)),
        )  # fmt: skip

    async def send(self, request: web.Request) -> web.StreamResponse:
        """Send the recording, or the range that is asked for.

        Raises:
            NotFound: there is none, or its file is gone.
        """
        session, record, blob = await self._recorded(request)
        path = self.blobs.path(blob.sha256)
        if not path.is_file():
            log.error("remote.recording_lost", session=session.id, leg=record.leg.number)
            raise NotFound(_GONE)
        await self._noted(request, session.id, record.leg.number)
        return web.FileResponse(path, headers=_headers(session, record, blob))

    async def _noted(self, request: web.Request, session: int, leg: int) -> None:
        """Write down that somebody watches; a player that asks for the rest is the same watching.

        Who asks for a part without having begun, begins: all but the first byte is as good.
        """
        actor = actor_of(await identity_of(request))
        now, whose = self.clock.now(), (actor, session, leg)
        if begins(request) or whose not in self.watched or now - self.watched[whose] > WATCHING:
            await self.sessions.replayed(session, leg, actor)
            if len(self.watched) >= MOST_WATCHED:
                self.watched.clear()
            self.watched[whose] = now

    async def _recorded(self, request: web.Request) -> tuple[Session, LegRecord, Blob]:
        """Return what was recorded of a leg, if who asks sees its site.

        Raises:
            NotFound: nothing was, it is not finished yet, or it is another site's.
        """
        session = await self.sessions.session(_number(request, "session"))
        if session is None:
            raise NotFound(_MISSING)
        check_site(await identity_of(request), session.site, _MISSING)
        wanted = _number(request, "leg")
        record = next((each for each in session.legs if each.leg.number == wanted), None)
        if record is None or record.recording is None:
            raise NotFound(_MISSING)
        if record.recording.media_type not in ENDINGS:
            raise NotFound(_MISSING)
        return session, record, record.recording


def routes(page: ReplayPage) -> Iterable[Route]:
    """Return the page and the file. They stay when remote help is turned off: it was recorded."""
    return (
        Route(method="GET", path=PATH, handler=page.show, roles=LISTENING),
        Route(method="GET", path=f"{PATH}/recording", handler=page.send, roles=LISTENING),
    )


def _length(measure: Callable[[BinaryIO], int], path: Path) -> int:
    """Return how long a recording plays (ms); 0 if it is gone or none."""
    try:
        with path.open("rb") as file:
            return measure(file)
    except (OSError, ValueError):
        return 0


def _headers(session: Session, record: LegRecord, blob: Blob) -> dict[str, str]:
    name = f"{session.ticket}-{session.id}-{record.leg.number}.{ENDINGS[blob.media_type]}"
    place = "inline" if blob.media_type == VIDEO else "attachment"
    return {
        "Content-Type": blob.media_type,
        "Content-Disposition": f'{place}; filename="{name}"',
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "Cache-Control": "private, no-cache",
    }


def _number(request: web.Request, what: str) -> int:
    asked = request.match_info[what]
    if not asked.isascii() or not asked.isdigit() or len(asked) > 18:
        raise NotFound(_MISSING)
    return int(asked)
