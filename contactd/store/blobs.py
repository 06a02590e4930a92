"""Recordings and attachments as content-addressed files below `data_dir/blobs`.

A file is written, synced and renamed before the commit that names it; one that no row names (a
crash in between) is harmless and is written again under the same name.
"""

import asyncio
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator
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

    async def put_stream(self, chunks: AsyncIterator[bytes], *, media_type: str, name: str) -> Blob:
        """Keep what comes in pieces, durably, without ever holding all of it.

        What `chunks` raises leaves nothing behind.

        Raises:
            TemporaryFailure: the disk is full.
        """
        digest, size = hashlib.sha256(), 0
        try:
            copy = await asyncio.to_thread(self._begin)
            try:
                async for chunk in chunks:
                    digest.update(chunk)
                    size += len(chunk)
                    await asyncio.to_thread(copy.write, chunk)
                await asyncio.to_thread(self._end, copy, digest.hexdigest())
            except BaseException:
                _discard(copy)
                raise
        except OSError as error:
            if isinstance(error, ConnectionError | TimeoutError):  # of who sends it
                raise
            raise TemporaryFailure(f"cannot keep a file: {error.strerror}") from error
        return Blob(sha256=digest.hexdigest(), size_bytes=size, media_type=media_type, name=name)

    def _begin(self) -> "tempfile._TemporaryFileWrapper[bytes]":
        self._folder.mkdir(parents=True, exist_ok=True)
        return tempfile.NamedTemporaryFile(dir=self._folder, delete=False)

    def _end(self, copy: "tempfile._TemporaryFileWrapper[bytes]", sha256: str) -> None:
        """Give what was written its name, durably."""
        copy.flush()
        os.fsync(copy.fileno())
        copy.close()
        target = self.path(sha256)
        target.parent.mkdir(exist_ok=True)
        Path(copy.name).replace(target)
        _sync(target.parent)

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
        _sync(target.parent)
        return Blob(sha256=digest.hexdigest(), size_bytes=size, media_type=media_type, name=name)


def _discard(copy: "tempfile._TemporaryFileWrapper[bytes]") -> None:
    copy.close()
    Path(copy.name).unlink(missing_ok=True)


def _sync(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself
    finally:
        os.close(folder)
