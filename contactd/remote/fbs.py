"""Recordings of a screen: FBS 001.001, what a VNC server sent with the time at which it did.

A file is `FBS 001.001\\n` and blocks: length (4 bytes), data padded to a multiple of 4,
milliseconds since the beginning (4 bytes), all big-endian (rfbproxy's format, which TightVNC's
tools read, too). The data of all blocks is an RFB 3.3 session without security, which any viewer
shows: its description of the desktop has the pixel format that the viewer had asked for. A file
that was cut off plays up to there.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from os import SEEK_CUR
from typing import BinaryIO, Final

from contactd.remote.rfb import Filter

MAGIC: Final = b"FBS 001.001\n"
HANDSHAKE: Final = b"RFB 003.003\n"
NO_SECURITY: Final = struct.pack(">I", 1)
MOST_BLOCK: Final = 1 << 24  # bytes; ours have at most what came in one frame
MEDIA_TYPE: Final = "application/x-vnc-fbs"


class Recorder:
    """Writes what a filter lets through to the viewer; `now` is a clock that goes forward (s).

    `record` is to be called before the viewer gets the bytes: nobody sees what is not recorded.
    """

    def __init__(
        self, filter_: Filter, write: Callable[[bytes], None], now: Callable[[], float]
    ) -> None:
        self._filter = filter_
        self._write = write
        self._now = now
        self._seen = 0
        self._began: float | None = None

    def record(self, data: bytes) -> None:
        """Keep `data`, which `Filter.from_server` returned."""
        begins_at = self._seen
        self._seen += len(data)
        if begins_at < self._filter.handshake_bytes or not data:
            return  # pictures never come in one piece with the handshake: the filter sees to it
        if self._began is None:
            self._began = self._now()
            told = self._filter.server_init
            desktop = told[:4] + self._filter.pixel_format + told[20:]
            opening = [HANDSHAKE, NO_SECURITY, desktop]
            self._write(MAGIC + b"".join(block(each, 0) for each in opening))
        at = int((self._now() - self._began) * 1000)
        self._write(block(data, at))


def block(data: bytes, at_ms: int) -> bytes:
    """Return one block of a recording."""
    padding = -len(data) % 4
    return b"".join(
        (struct.pack(">I", len(data)), data, bytes(padding), struct.pack(">I", at_ms & 0xFFFFFFFF))
    )


@dataclass(frozen=True, slots=True)
class Block:
    at_ms: int
    data: bytes


class NoRecording(ValueError):
    """The file does not begin as one does."""


def read(file: BinaryIO) -> Iterator[Block]:
    """Yield the blocks of a recording, up to where it was cut off.

    Raises:
        NoRecording: that.
    """
    if file.read(len(MAGIC)) != MAGIC:
        raise NoRecording("this is no FBS 001.001")
    while len(head := file.read(4)) == 4:
        (length,) = struct.unpack(">I", head)
        if length > MOST_BLOCK:
            return
        body = file.read(length + -length % 4 + 4)
        if len(body) < length + -length % 4 + 4:
            return
        yield Block(int.from_bytes(body[-4:], "big"), body[:length])


def length_ms(file: BinaryIO) -> int:
    """Return how long a recording plays, without reading what it shows.

    Raises:
        NoRecording: it is none.
    """
    if file.read(len(MAGIC)) != MAGIC:
        raise NoRecording("this is no FBS 001.001")
    last = 0
    while len(head := file.read(4)) == 4:
        (length,) = struct.unpack(">I", head)
        if length > MOST_BLOCK:
            break
        file.seek(length + -length % 4, SEEK_CUR)
        if len(at := file.read(4)) < 4:
            break
        last = int.from_bytes(at, "big")
    return last
