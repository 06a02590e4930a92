"""Reads the PBX's own records (cel.csv, queue_log) from where it left off and files the calls.

Nothing of the records is stored. A cursor says where the first row of the oldest unfinished call
is; it commits together with the contacts that were read, so whatever is killed and when, the calls
behind it are read again and filing them twice is harmless. While this process lives it remembers
the unfinished calls and reads only what is new.

Files may be renamed (logrotate), compressed or copied and truncated at any time: a file is known by
a hash of its first line.
"""

import asyncio
import csv
import glob
import gzip
import hashlib
import json
import os
import re
import time
import zlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from math import inf
from pathlib import Path
from typing import IO, Final, cast

from contactd.clock import Clock
from contactd.errors import TemporaryFailure
from contactd.log import get_logger
from contactd.metrics import REPAIRED, REPLAY_BAD_ROWS, REPLAY_ROWS
from contactd.telephony.cel import (
    SETTLE_S,
    CallRecords,
    CelRow,
    Listing,
    QueueLine,
    cel_row,
    queue_line,
)
from contactd.tickets.contact import Contact, Cursor, Filed, Replay

log = get_logger()

MAX_RECORD_BYTES: Final = 64 * 1024  # a CEL row has about 350
BATCH_BYTES: Final = 1_750_000  # about 5,000 rows
QUIET_S: Final = 2.0  # a renamed file that was not written to for so long is complete
DAMAGED: Final = (EOFError, zlib.error, gzip.BadGzipFile)  # what reading a broken .gz raises

_ROTATED: Final = re.compile(r"[.-]\d[\d.-]*(\.gz)?")
_ROW_START: Final = re.compile(rb'"\d{9,11}\.\d{6}","[A-Z_]+","')

Place = tuple[str, int]  # a file's identity, a byte offset in it


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one look at the records brought.

    `again_in`: a call has ended but its records may not be complete yet; look again then.
    """

    rows: int = 0
    queue_lines: int = 0
    bad_rows: int = 0
    filed: Sequence[Filed] = ()
    unfinished: int = 0
    again_in: timedelta | None = None
    missing: tuple[Path, ...] = ()  # the PBX has not written such a file (yet)
    damaged: tuple[Path, ...] = ()  # compressed files that cannot be read to the end: skipped


@dataclass(frozen=True, slots=True, kw_only=True)
class PbxFiles:
    """Where one PBX writes its records, and which of its calls are the hotline's.

    `name` is its systemname; `batch_bytes` is how much of cel.csv is one transaction.
    """

    name: str
    cel_path: Path
    queue_log_path: Path
    hotline_contexts: tuple[str, ...] = ("hotline",)
    batch_bytes: int = BATCH_BYTES


class PbxRecords:
    """The records of one PBX.

    `load_cursor` answers with the position of a stored cursor; `replay` files a batch and its
    cursors in one transaction.
    """

    def __init__(
        self,
        files: PbxFiles,
        *,
        load_cursor: Callable[[str], Awaitable[str | None]],
        replay: Callable[[Replay], Awaitable[Sequence[Filed]]],
        clock: Clock,
    ) -> None:
        if files.batch_bytes < 2 * MAX_RECORD_BYTES:
            raise ValueError(f"batch_bytes must be at least {2 * MAX_RECORD_BYTES}")
        self._files = files
        self._name = files.name
        self._load_cursor = load_cursor
        self._replay = replay
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()
        self._reading: _Reading | None = None
        self._damaged: frozenset[Path] = frozenset()

    async def look(self, live: Listing | None = None) -> Look:
        """Read what is new and file it; return once everything that was there is committed.

        `live`, if given, are all channels of the PBX.

        Raises:
            TemporaryFailure: a file cannot be read, or the batch was not stored. What was committed
                stays; the next look goes on from there.
        """
        async with self._one_at_a_time:
            reading = self._reading or await self._begin()
            self._reading = None  # whatever goes wrong: begin again from the stored cursors
            looked = await self._look(reading, live)
            self._reading = reading
            return looked

    async def _look(self, reading: "_Reading", live: Listing | None) -> Look:
        rows = queue_lines = bad_rows = 0
        filed: list[Filed] = []
        while True:
            now = self._clock.now().timestamp()  # before reading: all older records are there
            try:
                batch = await asyncio.to_thread(reading.read, now, live)
            except OSError as error:
                raise TemporaryFailure(
                    f"cannot read {error.filename or self._files.cel_path}: {error.strerror}"
                ) from error
            rows += batch.rows
            queue_lines += batch.queue_lines
            bad_rows += self._note(batch)
            filed += await self._file(reading, batch)
            if not batch.more:
                break
        self._note_damaged(batch.damaged)
        return Look(
            rows=rows,
            queue_lines=queue_lines,
            bad_rows=bad_rows,
            filed=filed,
            unfinished=len(reading.records.calls()),
            again_in=reading.again_in(now),
            missing=batch.missing,
            damaged=batch.damaged,
        )

    async def _begin(self) -> "_Reading":
        cel = _stored(await self._load_cursor(f"{self._name}/cel"))
        queue_log = _stored(await self._load_cursor(f"{self._name}/queue_log"))
        return _Reading(
            stored={"cel": str(cel or ""), "queue_log": str(queue_log or "")},
            cel=RecordFile(self._files.cel_path, cel.place if cel else None),
            queue_log=RecordFile(
                self._files.queue_log_path, queue_log.place if queue_log else None
            ),
            records=CallRecords(
                pbx=self._name,
                hotline_contexts=self._files.hotline_contexts,
                oldest=cel.oldest if cel else "",
            ),
            batch_bytes=self._files.batch_bytes,
        )

    async def _file(self, reading: "_Reading", batch: "_Batch") -> Sequence[Filed]:
        cursors = [
            Cursor(source=f"{self._name}/{source}", position=position)
            for source, position in (("cel", batch.cel_cursor), ("queue_log", batch.queue_cursor))
            if position and position != reading.stored.get(source)
        ]
        if not batch.contacts and not cursors:
            return ()
        filed = await self._replay(Replay(contacts=batch.contacts, cursors=cursors))
        reading.stored.update(cel=batch.cel_cursor, queue_log=batch.queue_cursor)
        repaired = sum(one.new_contact for one in filed)
        if repaired:
            REPAIRED.labels(pbx=self._name).inc(repaired)
            log.warning("replay.calls_repaired", pbx=self._name, calls=repaired)
        return filed

    def _note(self, batch: "_Batch") -> int:
        """Count and log what was read; return how many records were not readable."""
        REPLAY_ROWS.labels(pbx=self._name, source="cel").inc(batch.rows)
        REPLAY_ROWS.labels(pbx=self._name, source="queue_log").inc(batch.queue_lines)
        for source, bad in (("cel", batch.bad_rows), ("queue_log", batch.bad_lines)):
            if bad:
                REPLAY_BAD_ROWS.labels(pbx=self._name, source=source).inc(len(bad))
                log.warning(
                    "replay.rows_skipped",
                    pbx=self._name,
                    source=source,
                    rows=len(bad),
                    first_offset=bad[0].offset,
                    reason=bad[0].reason,
                )
        for path in batch.lost:
            log.warning("replay.cursor_lost", pbx=self._name, file=str(path), goes_on="from start")
        return len(batch.bad_rows) + len(batch.bad_lines)

    def _note_damaged(self, damaged: tuple[Path, ...]) -> None:
        for path in sorted(set(damaged) - self._damaged):
            log.error("replay.file_damaged", pbx=self._name, file=str(path), goes_on="after it")
        self._damaged = frozenset(damaged)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    """A cursor as it is stored. `oldest`: the channel whose first row is at `place`."""

    place: Place
    oldest: str = ""

    def __str__(self) -> str:
        file, offset = self.place
        return json.dumps({"file": file, "offset": offset, "oldest": self.oldest})


def _stored(position: str | None) -> _Stored | None:
    if not position:
        return None
    try:
        values = json.loads(position)
        return _Stored(
            place=(str(values["file"]), int(values["offset"])),
            oldest=str(values.get("oldest", "")),
        )
    except (ValueError, LookupError, TypeError, AttributeError):
        log.warning("replay.cursor_unreadable", goes_on="from start")
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bad:
    """A record that could not be read."""

    offset: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    rows: int
    queue_lines: int
    bad_rows: Sequence[Bad]
    bad_lines: Sequence[Bad]
    contacts: Sequence[Contact]
    cel_cursor: str
    queue_cursor: str
    more: bool
    missing: tuple[Path, ...]
    lost: tuple[Path, ...]
    damaged: tuple[Path, ...]


@dataclass(slots=True, kw_only=True)
class _Reading:
    """Where reading stands and what is unfinished; used by one worker thread at a time."""

    cel: "RecordFile"
    queue_log: "RecordFile"
    records: CallRecords[Place]
    batch_bytes: int
    horizon: float = 0.0  # epoch seconds; all records before it were taken in
    dirty: set[str] = field(default_factory=set)  # calls to file although they are unfinished
    queue_places: deque[tuple[float, Place]] = field(default_factory=deque)
    stored: dict[str, str] = field(default_factory=dict)  # cursors as last stored

    def read(self, now: float, live: Listing | None) -> _Batch:
        """Take in one block of cel.csv and what belongs to it of queue_log; say what follows.

        cel.csv comes first: what queue_log says of a call is written after the call's first row.
        """
        with self.cel.opened(), self.queue_log.opened():
            if self.cel.from_start:
                self._begin_again()
            block = self.cel.block(self.batch_bytes)
            rows, bad_rows, consumed = cel_rows(block)
            for offset, row in rows:
                self.records.add(row, (block.file, block.offset + offset))
            self.cel.advance(block, consumed)
            more = block.closed or not block.at_end
            complete = not more and not self.cel.waiting
            if complete:
                self.horizon = now
            elif rows:
                self.horizon = max(self.horizon, rows[-1][1].at)
            # Behind: not all of queue_log, only what can belong to the calls read so far.
            lines, bad_lines = self._read_queue_log(inf if complete else self.horizon + SETTLE_S)
            contacts = self._contacts(live if complete else None)
            return _Batch(
                rows=len(rows),
                queue_lines=lines,
                bad_rows=bad_rows,
                bad_lines=bad_lines,
                contacts=contacts,
                cel_cursor=self._cel_cursor(),
                queue_cursor=self._queue_cursor(),
                more=more,
                missing=tuple(one.path for one in (self.cel, self.queue_log) if one.missing),
                lost=tuple(one.path for one in (self.cel, self.queue_log) if one.lost),
                damaged=(*self.cel.damaged, *self.queue_log.damaged),
            )

    def again_in(self, now: float) -> timedelta | None:
        """Return when to look again, because records of a call are about to be complete."""
        if self.cel.waiting:
            return timedelta(seconds=QUIET_S)
        waits = [self.records.ended_at(call_id) for call_id in self.records.calls()]
        waits += [self.records.started_at(call_id) for call_id in self.dirty]
        soon = [at + SETTLE_S - now for at in waits if at is not None]
        return timedelta(seconds=max(0.0, min(soon)) + 0.05) if soon else None

    def _begin_again(self) -> None:
        """All calls are read again, so all of queue_log is needed again."""
        self.queue_log.begin_again()
        self.records = self.records.anew()
        self.dirty.clear()
        self.queue_places.clear()

    def _read_queue_log(self, until: float) -> tuple[int, list[Bad]]:
        count, bad = 0, []
        while True:
            block = self.queue_log.block(self.batch_bytes)
            lines, bad_here, consumed = queue_lines(block, until)
            bad += bad_here
            for offset, line in lines:
                self.records.add_queue(line)
                self.queue_places.append((line.at, (block.file, block.offset + offset)))
            count += len(lines)
            self.queue_log.advance(block, consumed)
            more = block.closed or not block.at_end
            if not more or consumed < _complete_bytes(block):
                return count, bad

    def _contacts(self, live: Listing | None) -> list[Contact]:
        """Return the calls to file, and forget those that are finished."""
        self.dirty |= self.records.changed()
        contacts = []
        for call_id in self.records.calls():
            if self.records.finished(call_id, horizon=self.horizon, live=live):
                contacts.append(self.records.contact(call_id, final=True))
                self.records.forget(call_id)
                self.dirty.discard(call_id)
            elif call_id in self.dirty and self._is_settled(call_id):
                contacts.append(self.records.contact(call_id, final=False))
                self.dirty.discard(call_id)
        self.records.sweep(horizon=self.horizon, live=live)
        return contacts

    def _is_settled(self, call_id: str) -> bool:
        """Whether AMI and FastAGI had time to file the call: else it would count as repaired."""
        return self.records.started_at(call_id) <= self.horizon - SETTLE_S

    def _cel_cursor(self) -> str:
        low = self.records.low_water()
        if low is not None:
            return str(_Stored(place=low[0], oldest=low[1]))
        return str(_Stored(place=self.cel.place)) if self.cel.place else ""

    def _queue_cursor(self) -> str:
        low = self.records.low_water()
        oldest = min(self.horizon, low[2]) if low else self.horizon
        while self.queue_places and self.queue_places[0][0] < oldest - SETTLE_S:
            self.queue_places.popleft()
        place = self.queue_places[0][1] if self.queue_places else self.queue_log.place
        return str(_Stored(place=place)) if place else ""


# Files


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Bytes of a file from `offset` on. `closed`: the file ends with them, for good."""

    data: bytes
    file: str = ""
    offset: int = 0
    at_end: bool = True
    closed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFile:
    path: Path
    identity: str
    stream: IO[bytes]
    size: int | None  # None: compressed
    modified_at: float  # epoch seconds, by the file system's clock
    quiet: bool  # when it was opened

    def has(self, place: Place) -> bool:
        file, offset = place
        return file == self.identity and (self.size is None or offset <= self.size)


class RecordFile:
    """A log file and its rotated predecessors as one stream of bytes.

    Use inside `opened()`: files are opened newest first, so that one which is renamed meanwhile is
    met twice rather than never.
    """

    def __init__(self, path: Path, place: Place | None) -> None:
        self.path = path
        self.place = place
        self.missing = False
        self.lost = False  # the file that `place` named was gone
        self.from_start = False  # reading (re)starts with the oldest file there is
        self._files: list[OpenFile] = []  # oldest first, from the one that is being read
        self._packed: list[OpenFile] = []  # those of all files that are compressed
        self._unread: list[Path] = []  # whose beginning cannot be read
        self._cut: set[str] = set()  # identities of files whose end cannot be read

    @property
    def waiting(self) -> bool:
        """Whether a newer file is there, but this one may still get a last row."""
        return len(self._files) > 1 and not self._files[0].quiet

    @property
    def damaged(self) -> list[Path]:
        """Return the compressed files that cannot be read, or not to their end."""
        return self._unread + [one.path for one in self._packed if one.identity in self._cut]

    def opened(self) -> ExitStack:
        """Open what there is to read; leaving the block closes it.

        Raises:
            OSError: a file is there but cannot be read.
        """
        with ExitStack() as stack:
            self._unread = []
            files = list(open_logs(self.path, stack, self._unread))[::-1]
            self._packed = [one for one in files if one.size is None]
            self.missing = not files
            self.lost = self.from_start = False
            self._files = files
            if files:
                self._find_place()
            return stack.pop_all()

    def _find_place(self) -> None:
        for index, one in enumerate(self._files):
            if self.place is not None and one.has(self.place):
                del self._files[:index]
                return
        self.lost = self.place is not None
        self.begin_again()

    def begin_again(self) -> None:
        """Go to the beginning of the oldest file there is."""
        self.from_start = True
        self.place = (self._files[0].identity, 0) if self._files else None

    def block(self, size: int) -> Block:
        """Return up to `size` bytes from the place reached; call `advance` with what was used."""
        if not self._files or self.place is None:
            return Block(data=b"")
        one = self._files[0]
        offset = self.place[1]
        try:
            one.stream.seek(offset)
            data = one.stream.read(size)
        except DAMAGED:
            if not one.quiet:
                return Block(data=b"")  # it is being compressed: look again soon
            self._cut.add(one.identity)
            if len(self._files) == 1:
                return Block(data=b"")
            self._next_file()
            return self.block(size)
        at_end = len(data) < size
        closed = at_end and len(self._files) > 1 and one.quiet
        return Block(data=data, file=one.identity, offset=offset, at_end=at_end, closed=closed)

    def advance(self, block: Block, consumed: int) -> None:
        """Note that `consumed` bytes of `block` were used; go on to the next file after its end."""
        if not block.file:
            return
        self.place = (block.file, block.offset + consumed)
        if block.closed and consumed == len(block.data):
            self._next_file()

    def _next_file(self) -> None:
        del self._files[0]
        self.place = (self._files[0].identity, 0)


def open_logs(
    path: Path, stack: ExitStack, damaged: list[Path] | None = None
) -> Iterator[OpenFile]:
    """Open a log and its rotated predecessors, newest first; `stack` closes them.

    Files without one complete line are left out, and compressed ones whose beginning cannot be read
    (they are noted in `damaged`). Reading the rest of a compressed one may still raise `DAMAGED`.
    """
    seen: set[tuple[int, int]] = set()
    for one in log_files(path):
        try:
            opened = stack.enter_context(one.open("rb"))
        except FileNotFoundError:
            continue  # renamed since it was listed: it comes again under its new name
        status = os.fstat(opened.fileno())
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        packed = one.suffix == ".gz"
        stream = cast(IO[bytes], gzip.GzipFile(fileobj=opened)) if packed else opened
        quiet = time.time() - status.st_mtime > QUIET_S
        try:
            head = stream.read(MAX_RECORD_BYTES)
        except DAMAGED:
            if quiet and damaged is not None:  # else it is being compressed: its source is there
                damaged.append(one)
            continue
        stream.seek(0)
        line, newline, _ = head.partition(b"\n")
        if newline or len(head) == MAX_RECORD_BYTES:
            yield OpenFile(
                path=one,
                identity=hashlib.sha256(line).hexdigest()[:16],
                stream=stream,
                size=None if packed else status.st_size,
                modified_at=status.st_mtime,
                quiet=quiet,
            )


def log_files(path: Path) -> list[Path]:
    """Return a log file and its rotated predecessors, newest first.

    logrotate names them x.1, x.2.gz or x-20261122; which is older, their modification times tell.
    """
    rotated = []
    for one in path.parent.glob(f"{glob.escape(path.name)}*"):
        if _ROTATED.fullmatch(one.name, len(path.name)):
            with suppress(FileNotFoundError):
                rotated.append((-one.stat().st_mtime_ns, one.name, one))
    return [path, *(one for _, _, one in sorted(rotated))]


# Records


class _TooLong(ValueError):
    pass


class _Lines:
    """Feeds csv.reader line by line; a record may have at most MAX_RECORD_BYTES."""

    def __init__(self, lines: Sequence[bytes], index: int) -> None:
        self._lines = lines
        self.next = index
        self.record_bytes = 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        if self.next >= len(self._lines):
            raise StopIteration
        line = self._lines[self.next]
        self.next += 1
        self.record_bytes += len(line) + 1
        if self.record_bytes > MAX_RECORD_BYTES:
            raise _TooLong(f"longer than {MAX_RECORD_BYTES} bytes")
        return line.decode("utf-8", "replace") + "\n"


def cel_rows(block: Block) -> tuple[list[tuple[int, CelRow]], list[Bad], int]:
    """Return the rows of a block of cel.csv with their offsets in it, what is bad, bytes used.

    Rows are CSV after RFC 4180: a quoted field may contain line ends (a caller's name), so a lost
    quote would swallow what follows. Every row begins with a quoted number, so it does not get far:
    then the first line is given up and reading goes on with the second.
    """
    lines, starts, consumed, bad = _split(block)
    rows: list[tuple[int, CelRow]] = []
    index = 0
    while index < len(lines):
        feed = _Lines(lines, index)
        try:
            for fields in csv.reader(feed, strict=True):
                if fields:  # not an empty line
                    rows.append((starts[index], cel_row(fields)))
                index = feed.next
                feed.record_bytes = 0
        except (csv.Error, ValueError) as error:
            # Inside quotes at the end of the block: the rest of the record is still to come.
            unfinished = feed.next == len(lines) and str(error) == "unexpected end of data"
            if unfinished and not block.closed:
                return rows, bad, starts[index]
            bad.append(Bad(offset=block.offset + starts[index], reason=str(error)))
            index += _give_up(lines, starts, index)
    return rows, bad, consumed


def _give_up(lines: list[bytes], starts: list[int], index: int) -> int:
    """Skip a line that cannot be read, but not a whole row that begins within it.

    A PBX that dies while it writes leaves half a row, and the next one follows on the same line.
    """
    begins = _ROW_START.search(lines[index], 1)
    if begins is None:
        return 1
    lines[index] = lines[index][begins.start() :]
    starts[index] += begins.start()
    return 0


def queue_lines(block: Block, until: float) -> tuple[list[tuple[int, QueueLine]], list[Bad], int]:
    """Return the lines of a block of queue_log, as `cel_rows` does, up to `until` (epoch s)."""
    lines, starts, consumed, bad = _split(block)
    found: list[tuple[int, QueueLine]] = []
    for start, text in zip(starts, lines, strict=True):
        try:
            line = queue_line(text.decode("utf-8", "replace"))
        except ValueError as error:
            bad.append(Bad(offset=block.offset + start, reason=str(error)))
            continue
        if line.at > until:
            return found, bad, start
        found.append((start, line))
    return found, bad, consumed


def _complete_bytes(block: Block) -> int:
    return len(block.data) if block.closed else block.data.rfind(b"\n") + 1


def _split(block: Block) -> tuple[list[bytes], list[int], int, list[Bad]]:
    """Return the complete lines of a block, their offsets, the bytes in them, and what is bad."""
    end = block.data.rfind(b"\n") + 1
    lines = block.data[:end].split(b"\n")[:-1]
    starts, at = [], 0
    for line in lines:
        starts.append(at)
        at += len(line) + 1
    rest = len(block.data) - end
    if rest and (block.closed or rest > MAX_RECORD_BYTES):
        return lines, starts, len(block.data), [Bad(offset=block.offset + end, reason="no end")]
    return lines, starts, end, []
