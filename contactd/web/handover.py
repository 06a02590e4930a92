"""Files that are handed over in remote help: taken in from a form, and given to who accepted them.

Any kind of file: nobody gets it who has not said yes to it, and then it is saved, never shown.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import quote

from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import BadHttpMessage

from contactd.errors import NotFound
from contactd.httpd import STALL_S, Problem, Refused
from contactd.store.blobs import Blobs
from contactd.tickets.contact import Blob
from contactd.tickets.model import clean_line
from contactd.tickets.sharing import FileState, SharedFile

FIELD: Final = "file"  # of the form, with enctype multipart/form-data
LONGEST_NAME: Final = 200
MOST_PARTS: Final = 8
CHUNK: Final = 65_536


async def take_file(request: web.Request, blobs: Blobs, most_bytes: int) -> Blob | None:
    """Keep the first file of a form; None if nobody chose one. The route must have `streams`.

    Raises:
        Refused: it is too large (413), too slow (408), or no such form (400).
        TemporaryFailure: there is no room for it.
    """
    if not request.content_type.startswith("multipart/"):
        raise Refused(Problem(status=400))
    try:
        reader = await request.multipart()
        for _ in range(MOST_PARTS):
            async with _no_stall():
                part = await reader.next()
            if part is None:
                return None
            if isinstance(part, BodyPartReader) and part.name == FIELD and part.filename:
                return await blobs.put_stream(
                    _limited(part, most_bytes),
                    media_type="application/octet-stream",
                    name=name_of(part.filename),
                )
            await _skip(part, most_bytes)
    except (ValueError, BadHttpMessage):  # of aiohttp's parser
        raise Refused(Problem(status=400)) from None
    raise Refused(Problem(status=400))


def give_file(blobs: Blobs, shared: SharedFile) -> web.FileResponse:
    """Return the answer with which a browser saves what its user has accepted.

    Raises:
        NotFound: it was not accepted, or its content is gone.
    """
    path = blobs.path(shared.blob.sha256)
    if shared.state is not FileState.ACCEPTED or not path.is_file():
        raise NotFound("there is no such file")
    return web.FileResponse(
        path,
        headers={
            "Content-Type": "application/octet-stream",
            "Content-Disposition": attachment(shared.blob.name),
            "Content-Security-Policy": "sandbox; default-src 'none'",
            "Cache-Control": "private, no-store",
        },
    )


def attachment(name: str) -> str:
    """Return the header with which something is saved by this name."""
    return f"attachment; filename*=UTF-8''{quote(name_of(name), safe='')}"


def name_of(told: str) -> str:
    """Return a file's name on one line and without folders."""
    bare = told.replace("\\", "/").rpartition("/")[2]
    return clean_line(bare, LONGEST_NAME).strip(". ") or "file"


async def _limited(part: BodyPartReader, most_bytes: int) -> AsyncIterator[bytes]:
    size = 0
    while True:
        async with _no_stall():
            chunk = await part.read_chunk(CHUNK)
        if not chunk:
            return
        size += len(chunk)
        if size > most_bytes:
            raise Refused(Problem(status=413, headers={"Connection": "close"}))
        yield chunk


async def _skip(part: object, most_bytes: int) -> None:
    if not isinstance(part, BodyPartReader):
        raise Refused(Problem(status=400))
    async for _ in _limited(part, most_bytes):
        pass


@asynccontextmanager
async def _no_stall() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(STALL_S):
            yield
    except TimeoutError:
        raise Refused(Problem(status=408, headers={"Connection": "close"})) from None
