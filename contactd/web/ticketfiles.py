"""Files of contacts, for those who work on their tickets.

A picture is shown in place if its first bytes say that it is one of four kinds which browsers draw
and never run; a recording is for those who may listen, and that it was heard is written down;
everything else is handed over to be kept, whatever it says it is.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from aiohttp import web

from contactd.errors import NotFound
from contactd.httpd import HTTPD, Problem, Refused, Route
from contactd.log import get_logger
from contactd.store.acts import Acts
from contactd.store.blobs import Blobs
from contactd.store.ticketviews import TicketViews
from contactd.store.views import AttachmentView
from contactd.web.access import PERSONAL, Right, check_site, may
from contactd.web.actions import actor_of
from contactd.web.timeline import infected, is_picture, is_sound

log = get_logger()

PATH: Final = "/desk/files"
_HEAD_BYTES: Final = 12
_SOUNDS: Final = frozenset({"audio/wav", "audio/x-wav", "audio/mpeg", "audio/ogg", "audio/webm"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketFiles:
    more: TicketViews
    blobs: Blobs
    acts: Acts

    async def send(self, request: web.Request) -> web.StreamResponse:
        """Send a file, or the range that is asked for.

        Raises:
            NotFound: there is no such file, it is another site's, or it has a virus.
            Refused: a recording, and not with this role.
        """
        asked = request.match_info["id"]
        if not asked.isascii() or not asked.isdigit() or len(asked) > 18:
            raise NotFound("there is no such file")
        identity = await request.app[HTTPD].identify(request)
        assert identity is not None  # noqa: S101 - the route asks for roles
        file, contact = await self.more.file(int(asked))
        ticket, site = await self.more.ticket_of(contact.id)
        check_site(identity, site, "there is no such file")
        if infected(contact):
            raise NotFound("this file has a virus")
        if is_sound(file) and not may(identity, Right.LISTEN):
            raise Refused(Problem(status=403, detail="not with this role"))
        path = self.blobs.path(file.sha256)
        if not path.is_file():
            log.error("attachment.lost", attachment=file.id)
            raise NotFound("the file of this attachment is gone: restore it from the backup")
        log.info("attachment.sent", attachment=file.id, kind=file.kind, user=identity.name)
        if is_sound(file) and begins(request):
            body = {"contact": contact.id, "kind": file.kind}
            await self.acts.note(
                actor=actor_of(identity), action="recording.played", subject=ticket, body=body
            )
        return web.FileResponse(path, headers=_headers(file, path))


def routes(files: TicketFiles) -> Iterable[Route]:
    return (Route(method="GET", path=f"{PATH}/{{id}}", handler=files.send, roles=PERSONAL),)


def begins(request: web.Request) -> bool:
    """Return whether a file is asked for from its beginning: a player asks again for the rest."""
    asked = request.headers.get("Range", "bytes=0-")
    return request.method == "GET" and asked.strip().startswith("bytes=0-")


def _headers(file: AttachmentView, path: Path) -> dict[str, str]:
    kind = _shown_as(file, path)
    name = file.name if file.name.isprintable() else "file"
    place = "inline" if kind else "attachment"
    return {
        "Content-Type": kind or "application/octet-stream",
        "Content-Disposition": f"{place}; filename*=UTF-8''{quote(name, safe='')}",
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "Cache-Control": "private, no-cache",
    }


def _shown_as(file: AttachmentView, path: Path) -> str:
    """Return the media type by which a browser shows it in place, "" if it must not."""
    if is_sound(file):
        return file.media_type if file.media_type in _SOUNDS else ""
    if not is_picture(file):
        return ""
    with path.open("rb") as opened:
        return picture_kind(opened.read(_HEAD_BYTES))


def picture_kind(head: bytes) -> str:
    """Return the media type of a picture by its first bytes, "" if it is none that is shown."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    return ""
