"""Counts the hotline calls of a day in the PBX's CEL, to be held against the contacts.

This shares nothing with the replay but the list of files: no cursor, no grouping, another way of
reading. An error there must show up here as a difference.
"""

import asyncio
import re
from collections.abc import Collection, Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import IO, Final
from zoneinfo import ZoneInfo

from contactd.errors import TemporaryFailure
from contactd.telephony.replay import DAMAGED, open_logs

LONGEST_CALL: Final = timedelta(hours=24)  # between a channel's start and its way to the hotline
_BLOCK_BYTES: Final = 1 << 20
_OVERLAP_BYTES: Final = 2_048  # longer than the columns that are looked at

# A quote within a field is doubled, so text that a caller sends cannot look like this.
_ROW: Final = re.compile(
    rb'"(\d{9,11}\.\d{6})","(CHAN_START|USER_DEFINED)","([^"]*)","([^"]+)"'
    rb',"[^"]*","[^"]*","([^"]*)","([^"]*)"'
)

_TIME: Final = re.compile(rb'"(\d{9,11}\.\d{6})",')


async def hotline_calls(
    cel_path: Path, *, day: date, zone: str, hotline_contexts: Collection[str]
) -> dict[str, datetime]:
    """Return the ids of the hotline calls that started on `day` in `zone`, and when they did.

    Raises:
        TemporaryFailure: cel.csv, or a file it was renamed to, cannot be read.
    """
    start = datetime.combine(day, time(), ZoneInfo(zone))
    end = datetime.combine(day + timedelta(days=1), time(), ZoneInfo(zone))
    try:
        return await asyncio.to_thread(
            _scan, cel_path, start.timestamp(), end.timestamp(), frozenset(hotline_contexts)
        )
    except OSError as error:
        raise TemporaryFailure(f"cannot read {cel_path}: {error.strerror}") from error


def _scan(
    cel_path: Path, start: float, end: float, contexts: Collection[str]
) -> dict[str, datetime]:
    started: dict[str, float] = {}
    hotline: dict[str, float] = {}
    contexts_b = {context.encode() for context in contexts}
    earliest = start - LONGEST_CALL.total_seconds()
    with ExitStack() as stack:
        for one in open_logs(cel_path, stack):
            if one.modified_at < earliest:
                continue
            for at, event, userevent, uniqueid, context, exten in _rows(one.stream):
                if event == b"CHAN_START":
                    started[uniqueid.decode()] = at
                # What the PBX dials through the trunk has its context too, but no extension.
                arrived = event == b"CHAN_START" and context in contexts_b
                if userevent == b"HOTLINE" or (arrived and exten not in (b"", b"s")):
                    hotline.setdefault(uniqueid.decode(), at)
    calls = {uniqueid: started.get(uniqueid, at) for uniqueid, at in hotline.items()}
    return {
        uniqueid: datetime.fromtimestamp(at, UTC)
        for uniqueid, at in sorted(calls.items(), key=lambda call: call[1])
        if start <= at < end
    }


def _rows(stream: IO[bytes]) -> Iterator[tuple[float, bytes, bytes, bytes, bytes, bytes]]:
    """Find the rows that matter in a whole file; some come twice."""
    for block in _blocks(stream):
        for found in _ROW.finditer(block):
            at, event, userevent, uniqueid, context, exten = found.groups()
            yield float(at), event, userevent, uniqueid, context, exten


def _blocks(stream: IO[bytes]) -> Iterator[bytes]:
    """Return a file in overlapping pieces, to its end or to where it is damaged.

    The replay reports the damage.
    """
    before = b""
    with suppress(*DAMAGED):
        while block := stream.read(_BLOCK_BYTES):
            yield before + block
            before = (before + block)[-_OVERLAP_BYTES:]


async def records_since(cel_path: Path) -> datetime | None:
    """Return the time of the oldest record that is kept; None if there is none.

    Raises:
        TemporaryFailure: cel.csv, or a file it was renamed to, cannot be read.
    """

    def look() -> list[float]:
        with ExitStack() as stack:
            logs = open_logs(cel_path, stack)
            firsts = [_TIME.match(next(_blocks(one.stream), b"")) for one in logs]
        return [float(found[1]) for found in firsts if found is not None]

    try:
        times = await asyncio.to_thread(look)
    except OSError as error:
        raise TemporaryFailure(f"cannot read {cel_path}: {error.strerror}") from error
    return datetime.fromtimestamp(min(times), UTC) if times else None


async def has_channel(cel_path: Path, uniqueid: str) -> bool:
    """Return whether the PBX has ever begun a channel of this id, as its CEL has it.

    Raises:
        TemporaryFailure: cel.csv cannot be read.
    """
    start = f'"CHAN_START","","{uniqueid}"'.encode()

    def look() -> bool:
        with ExitStack() as stack:
            logs = open_logs(cel_path, stack)
            return any(start in block for one in logs for block in _blocks(one.stream))

    try:
        return await asyncio.to_thread(look)
    except OSError as error:
        raise TemporaryFailure(f"cannot read {cel_path}: {error.strerror}") from error
