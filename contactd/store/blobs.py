"""Recordings and attachments as content-addressed files below `data_dir/blobs`.

A file is written, synced and renamed before the commit that names it; one that no row names (a
crash in between) is harmless and is written again under the same name.
"""

import asyncio
import hashlib
import os
import tempfile
from io import BytesIO
from pathlib import Path
from typing import IO

from contactd.errors import PermanentFailure, TemporaryFailure
from contactd.tickets.contact import Blob

CHUNK = 1 << 20


class Blobs:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, sha256: str) -> Path:
        """Return where the content with this hash is kept (it need not exist)."""
        if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
            raise PermanentFailure("not a SHA-256 in hexadecimal")
        return self._folder / sha256[:2] / sha256

    async def put(self, source: Path, media_type: str) -> Blob:
        """Copy the file `source` in, durably.

        Raises:
            TemporaryFailure: it cannot be read or the disk is full.
        """
        try:
            return await asyncio.to_thread(self._put, source, media_type)
        except OSError as error:
            raise TemporaryFailure(f"cannot keep a copy of {source}: {error.strerror}") from error

    async def put_bytes(self, content: bytes, *, media_type: str, name: str) -> Blob:
        """Keep `content`, durably.

        Raises:
            TemporaryFailure: the disk is full.
        """
        try:
            return await asyncio.to_thread(self._keep, BytesIO(content), media_type, name)
        except OSError as error:
            raise TemporaryFailure(f"cannot keep a file: {error.strerror}") from error

    def _put(self, source: Path, media_type: str) -> Blob:
        with source.open("rb") as incoming:
            return self._keep(incoming, media_type, source.name)

    def _keep(self, incoming: IO[bytes], media_type: str, name: str) -> Blob:
        self._folder.mkdir(parents=True, exist_ok=True)
        digest, size = hashlib.sha256(), 0
        with (
            tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as copy,
        ):
            try:
                while chunk := incoming.read(CHUNK):
                    digest.update(chunk)
                    size += len(chunk)
                    copy.write(chunk)
                copy.flush()
                os.fsync(copy.fileno())
                target = self.path(digest.hexdigest())
                target.parent.mkdir(exist_ok=True)
                Path(copy.name).replace(target)
            except BaseException:
                Path(copy.name).unlink(missing_ok=True)
                raise
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the rename itself
        finally:
            os.close(folder)
        return Blob(sha256=digest.hexdigest(), size_bytes=size, media_type=media_type, name=name)
