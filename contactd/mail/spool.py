"""Mail that was accepted and is not a ticket yet: files that are only appended to.

A writer (one listener process) has at most one segment open and holds a lock on it (flock); the
kernel gives the lock back when the process is gone, however it went. So a reader knows without a
word from the writer which segments grow no more, and these it reads to their last complete record.
Of a segment that still grows it reads what the writer has marked as durable, no further: a mail
that is taken back because the disk is full was never seen by anybody.

A segment is 16 bytes that say what it is, the mark (its durable length), then the records: their
head (`_HEAD`), the envelope as JSON, the raw mail. Nothing is ever written twice but the mark.
"""

import asyncio
import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import struct
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

from contactd.clock import Clock
from contactd.errors import ConfigurationError, TemporaryFailure
from contactd.log import get_logger

log = get_logger()

Raw = bytes | bytearray | memoryview

SEGMENT_BYTES: Final = 32 << 20  # then the next one is begun
SEGMENT_AGE_S: Final = 60.0  # so that a quiet day's mail is not kept twice until the evening
RESERVE_BYTES: Final = 64 << 20  # left to those who make tickets of the mails: they need it first
GROUP_BYTES: Final = 32 << 20  # of mails that wait for the same sync
GROUP_MAILS: Final = 300  # three pieces each: IOV_MAX of Linux is 1,024
HEAD_BYTES: Final = 64 << 10  # of a mail, in which a Message-ID is looked for
CHUNK: Final = 1 << 20  # of what a reader has in memory at a time
SUFFIX: Final = ".mail"
DAMAGED: Final = ".damaged"  # is not read any more

_MESSAGE_ID: Final = re.compile(rb"^message-id[ \t]*:[ \t]*<[^\r\n]{6,}", re.I | re.M)
_MAGIC: Final = b"contactd spool 1"
_MARK: Final = struct.Struct(">Q")
_HEAD: Final = struct.Struct(">4sIII")  # _RECORD, length of the envelope, of the mail, CRC-32
_RECORD: Final = b"mail"
_LENGTHS: Final = struct.Struct(">II")
_BEGINNING: Final = len(_MAGIC) + _MARK.size  # offset of the first record
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class DiskFull(TemporaryFailure):
    """There is no room for a mail now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """What SMTP said about a mail.

    `protocol` is RFC 3848's word. `recipients` are as RCPT gave them.
    """

    received_at: datetime  # aware, UTC
    peer: str  # address; "" behind a local socket
    helo: str
    reverse_path: str  # "" is <>
    recipients: tuple[str, ...]
    protocol: str = "ESMTP"
    smtputf8: bool = False
    submitter: str = ""  # who logged in


_ENVELOPE: Final = tuple(each.name for each in fields(Envelope))


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A mail in the spool: `length` raw bytes from `offset` of the file at `path`.

    `digest` says that two mails are the same mail to the same recipients: a sender that did not
    hear our 250 sends it again.
    """

    id: str
    path: Path
    offset: int
    length: int
    envelope: Envelope
    digest: str

    def raw(self) -> bytes:
        """Return the mail. Raises OSError."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.length)


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A line of the book of accepted mail."""

    id: str
    received_at: datetime
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Waiting:
    """A mail on its way to the disk."""

    envelope: bytes
    raw: Raw
    kept: asyncio.Future[str]


class _Open:
    """The segment that a writer appends to; used by one thread at a time.

    Raises:
        OSError: it could not be made, and is not there.
    """

    def __init__(self, folder: Path, stem: str) -> None:
        self.stem = stem
        self.length = _BEGINNING
        self.since = time.monotonic()
        unnamed = folder / f"{stem}.new"  # until it is locked no reader may take it for finished
        self._file = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _write(self._file, [_MAGIC, _MARK.pack(_BEGINNING)])
            os.fsync(self._file)
            unnamed.rename(folder / f"{stem}{SUFFIX}")
            _sync_folder(folder)
        except OSError:
            os.close(self._file)
            for name in (f"{stem}.new", f"{stem}{SUFFIX}"):
                (folder / name).unlink(missing_ok=True)
            raise

    def append(self, mails: Sequence[_Waiting]) -> list[str]:
        """Write mails, durably, and return their ids. Raises OSError: call `give_up`."""
        pieces: list[Raw] = []
        ids: list[str] = []
        length = self.length
        for mail in mails:
            head = _head(mail.envelope, mail.raw)
            pieces += (head, mail.envelope, mail.raw)
            ids.append(f"{self.stem}-{length}")
            length += len(head) + len(mail.envelope) + len(mail.raw)
        os.lseek(self._file, self.length, os.SEEK_SET)
        _write(self._file, pieces)
        os.fdatasync(self._file)
        os.pwrite(self._file, _MARK.pack(length), len(_MAGIC))
        self.length = length
        return ids

    def give_up(self) -> None:
        """Take back what the last `append` may have written, and close.

        The file is not used again: an id names one mail for ever.
        """
        with suppress(OSError):  # then readers find it, and the sender's second try is the same
            os.ftruncate(self._file, self.length)
            os.fdatasync(self._file)
        self.close()

    def close(self) -> None:
        os.close(self._file)  # and with it the lock


class Spool:
    """The writing end. `name` tells the writers of one folder apart.

    A mail that would leave less than `reserve_bytes` of the disk is not taken: on a disk that is
    full to the brim nobody could turn the mails there are into tickets, and so make room.
    """

    def __init__(  # noqa: PLR0913 - limits that tests make small
        self,
        folder: Path,
        *,
        name: str,
        clock: Clock,
        segment_bytes: int = SEGMENT_BYTES,
        segment_age_s: float = SEGMENT_AGE_S,
        reserve_bytes: int = RESERVE_BYTES,
    ) -> None:
        self._folder = folder
        self._name = name
        self._clock = clock
        self._segment_bytes = segment_bytes
        self._segment_age_s = segment_age_s
        self._reserve_bytes = reserve_bytes
        self._open: _Open | None = None
        self._waiting: list[_Waiting] = []
        self._wake = asyncio.Event()
        self._accepting = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Take mail inside the block; leaving it writes what waits.

        Raises:
            ConfigurationError: the folder cannot be used.
        """
        try:
            await asyncio.to_thread(_prepare, self._folder)
        except OSError as error:
            raise ConfigurationError(
                f"service.data_dir: cannot keep mail in {self._folder}: {error.strerror}"
            ) from error
        async with asyncio.TaskGroup() as tasks:
            self._accepting = True
            tasks.create_task(self._commit_groups(), name="spool")
            try:
                yield
            finally:
                self._accepting = False
                self._wake.set()

    async def keep(self, envelope: Envelope, raw: Raw) -> str:
        """Return the mail's id once it is durable; many mails share one sync.

        Cancelled, the mail may or may not be kept.

        Raises:
            DiskFull, TemporaryFailure: it is not kept.
        """
        if not self._accepting:
            raise TemporaryFailure("the spool is closed")
        kept: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(envelope=_envelope_json(envelope), raw=raw, kept=kept))
        self._wake.set()
        return await kept

    async def _commit_groups(self) -> None:
        while True:
            await self._wait()
            while group := self._next_group():
                await self._commit_group(group)
            if self._is_due():
                await asyncio.to_thread(self._close)
            if not self._accepting:
                return

    async def _wait(self) -> None:
        """Return when there is mail, when the segment is old, or at the end."""
        try:
            async with asyncio.timeout(self._segment_age_s if self._open is not None else None):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    def _next_group(self) -> list[_Waiting]:
        """Take the mails that are written next; those nobody waits for any more are left out."""
        group: list[_Waiting] = []
        size = count = 0
        for mail in self._waiting:
            if group and (size + len(mail.raw) > GROUP_BYTES or len(group) == GROUP_MAILS):
                break
            count += 1
            if not mail.kept.done():
                group.append(mail)
                size += len(mail.raw)
        del self._waiting[:count]
        return group

    async def _commit_group(self, group: Sequence[_Waiting]) -> None:
        try:
            ids = await asyncio.to_thread(self._commit, group)
        except OSError as error:
            log.warning("spool.failed", reason=error.strerror, mails=len(group))
            for mail in group:
                if not mail.kept.done():
                    mail.kept.set_exception(_failure(error))
            return
        for mail, mail_id in zip(group, ids, strict=True):
            if not mail.kept.done():
                mail.kept.set_result(mail_id)

    # In the thread

    def _commit(self, group: Sequence[_Waiting]) -> list[str]:
        if self._is_due():
            self._close()
        disk = os.statvfs(self._folder)
        room = disk.f_bavail * disk.f_frsize - sum(len(mail.raw) for mail in group)
        if room < self._reserve_bytes:
            self._close()  # readers can then remove it, which makes room
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self._open is None:
            stem = f"{self._clock.now():%Y%m%dT%H%M%S%f}-{self._name}-{secrets.token_hex(4)}"
            self._open = _Open(self._folder, stem)
        try:
            return self._open.append(group)
        except OSError:
            self._open.give_up()
            self._open = None
            raise

    def _is_due(self) -> bool:
        """Return whether the open segment should be closed."""
        return self._open is not None and (
            not self._accepting
            or self._open.length >= self._segment_bytes
            or time.monotonic() - self._open.since >= self._segment_age_s
        )

    def _close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None


@dataclass(slots=True, kw_only=True)
class _Read:
    """What a reader knows of a segment."""

    path: Path
    next: int = _BEGINNING  # offset of the first record that was not handed out
    complete: bool = False  # nothing more will come
    damaged: bool = False  # what a writer called durable cannot be read: the disk has lost it
    records: dict[int, Accepted] = field(default_factory=dict)  # of those handed out
    pending: set[int] = field(default_factory=set)  # those that are not done

    @property
    def stem(self) -> str:
        return self.path.name.removesuffix(SUFFIX)


class SpoolReader:
    """The reading end: one a folder, used by one thread at a time (but `done`: by any).

    `day_of` says on which day, in the ledger's zone, an instant is.
    """

    def __init__(self, folder: Path, accepted: Path, *, day_of: Callable[[datetime], date]) -> None:
        self._folder = folder
        self._accepted = accepted
        self._day_of = day_of
        self._segments: dict[str, _Read] = {}
        self._fault = ""

    @property
    def fault(self) -> str:
        """Why finished segments could not be put away the last time; "": they were."""
        return self._fault

    @property
    def damaged(self) -> list[str]:
        """The segments of which mail was accepted that cannot be read any more. Blocks."""
        return sorted(path.name for path in self._folder.glob(f"*{DAMAGED}"))

    @property
    def pending(self) -> int:
        """How many mails were handed out and are not done."""
        return sum(len(segment.pending) for segment in list(self._segments.values()))

    def poll(self, limit: int = 1000) -> list[Receipt]:
        """Return at most `limit` mails that were not returned before; put away what is done.

        A new reader returns everything again that its predecessor had not seen put away. Blocks.

        Raises:
            TemporaryFailure: the folder cannot be read.
        """
        try:
            self._find()
            self._retire()
            found: list[Receipt] = []
            for segment in list(self._segments.values()):
                if len(found) >= limit:
                    break
                if not segment.complete:
                    found += _read_more(segment, limit - len(found))
        except OSError as error:
            raise TemporaryFailure(f"cannot read the spool: {error.strerror}") from error
        return found

    def done(self, receipt: Receipt) -> None:
        """Say that the mail needs its place in the spool no more; harmless twice."""
        segment = self._segments.get(receipt.path.name)
        if segment is not None:
            head = receipt.id.rpartition("-")[2]
            segment.pending.discard(int(head))

    def accepted(self, day: date) -> Iterator[Accepted]:
        """Yield each mail that was accepted on `day`, once; also those not handed out yet.

        Blocks. Raises OSError.
        """
        seen: set[str] = set()
        # The segments first: one that is put away meanwhile is then found in the book.
        for entry in [*self._live(), *_lines(self._book(day))]:
            if entry.id not in seen and self._day_of(entry.received_at) == day:
                seen.add(entry.id)
                yield entry

    def _live(self) -> list[Accepted]:
        found: list[Accepted] = []
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            segment = _Read(path=path)
            with suppress(FileNotFoundError):
                _read_more(segment, None)
            found += segment.records.values()
        return found

    def _find(self) -> None:
        names = {path.name for path in self._folder.glob(f"*{SUFFIX}")}
        for name in sorted(names - self._segments.keys()):
            self._segments[name] = _Read(path=self._folder / name)

    def _retire(self) -> None:
        for name, segment in list(self._segments.items()):
            if segment.complete and not segment.pending:
                try:
                    self._book_all(segment)
                    _put_away(segment)
                except OSError as error:
                    self._fault = f"cannot write to {self._accepted}: {error.strerror}"
                    log.warning("spool.not_put_away", segment=segment.stem, reason=error.strerror)
                    return
                del self._segments[name]
                self._fault = ""
                if segment.damaged:
                    log.error("spool.damaged", segment=segment.stem, at=segment.next)

    def _book(self, day: date) -> Path:
        return self._accepted / f"{day:%Y-%m-%d}.log"

    def _book_all(self, segment: _Read) -> None:
        days: dict[date, list[str]] = {}
        for entry in segment.records.values():
            line = f"{entry.id} {entry.received_at.isoformat()} {entry.digest}\n"
            days.setdefault(self._day_of(entry.received_at), []).append(line)
        for day, lines in days.items():
            _append_lines(self._book(day), lines)


def digest_of(raw_sha256: str, recipients: Sequence[str], *, hour: str = "") -> str:
    """Return what is equal for the same mail to the same recipients, and for no other.

    `hour` is when a mail without a Message-ID came: devices say the same again and again, and
    somebody who repeats a mail because our answer was lost does so at once.
    """
    other = "\n".join((*sorted(each.lower() for each in recipients), *filter(None, [hour])))
    return f"{raw_sha256[:40]}-{hashlib.sha256(other.encode()).hexdigest()[:8]}"


def _hour_of(head: bytes, received_at: datetime) -> str:
    """Return "" if a mail has a Message-ID, else the hour in which it came; `head` begins it."""
    return "" if _MESSAGE_ID.search(head.partition(b"\r\n\r\n")[0]) else f"{received_at:%Y%m%d%H}"


def _put_away(segment: _Read) -> None:
    """Delete a segment, or keep what an operator may still save of it. Raises OSError."""
    if segment.damaged:
        segment.path.rename(segment.path.with_suffix(DAMAGED))
    else:
        segment.path.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Make a folder that only we can look into, durably. Raises OSError."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
        _sync_folder(folder.parent)


def _prepare(folder: Path) -> None:
    """Make the folder and drop what a killed writer had only begun. Raises OSError."""
    make_folder(folder)
    for path in folder.glob("*.new"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > SEGMENT_AGE_S:
                path.unlink()


def _failure(error: OSError) -> TemporaryFailure:
    kind = DiskFull if error.errno in _FULL else TemporaryFailure
    return kind(f"cannot keep mail: {error.strerror}")


def _head(envelope: bytes, raw: Raw) -> bytes:
    lengths = len(envelope), len(raw)
    crc = zlib.crc32(raw, zlib.crc32(envelope, zlib.crc32(_LENGTHS.pack(*lengths))))
    return _HEAD.pack(_RECORD, *lengths, crc)


def _write(file: int, pieces: Sequence[Raw]) -> None:
    """Write all of it. Raises OSError: some of it may be written."""
    left = [memoryview(piece) for piece in pieces if len(piece)]
    while left:
        written = os.writev(file, left)
        while left and written >= len(left[0]):
            written -= len(left.pop(0))
        if written:
            left[0] = left[0][written:]


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _envelope_json(envelope: Envelope) -> bytes:
    values = {name: getattr(envelope, name) for name in _ENVELOPE}
    values["received_at"] = envelope.received_at.isoformat()
    return json.dumps(values, separators=(",", ":")).encode()


def _envelope_from(document: bytes) -> Envelope:
    values: dict[str, Any] = json.loads(document)
    values["received_at"] = datetime.fromisoformat(values["received_at"]).astimezone(UTC)
    values["recipients"] = tuple(values["recipients"])
    return Envelope(**values)


def _read_more(segment: _Read, limit: int | None) -> list[Receipt]:
    """Return further mails of a segment and note them. Raises OSError."""
    found: list[Receipt] = []
    with segment.path.open("rb", buffering=0) as file:
        grows = not _lock(file.fileno())
        size, mark = _durable(file.fileno())
        end = min(size, mark) if grows else size
        while limit is None or len(found) < limit:
            receipt = _receipt(file.fileno(), segment, end)
            if receipt is None:
                segment.complete = not grows
                break
            found.append(receipt)
    if segment.complete and segment.next < end:
        # A writer was killed, or lost its disk, in the middle of a mail: nobody has its 250.
        log.warning("spool.rest_left_out", segment=segment.stem, bytes=end - segment.next)
        segment.damaged = segment.next < mark
    return found


def _lock(file: int) -> bool:
    """Return whether no writer has the segment open."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _durable(file: int) -> tuple[int, int]:
    """Return how long a segment is, and how much of it its writer has called durable."""
    size = os.fstat(file).st_size
    beginning = os.pread(file, _BEGINNING, 0)
    if beginning[: len(_MAGIC)] != _MAGIC or len(beginning) < _BEGINNING:
        return 0, 0
    mark: int = _MARK.unpack_from(beginning, len(_MAGIC))[0]
    return size, mark


def _receipt(file: int, segment: _Read, end: int) -> Receipt | None:
    """Return the next mail of a segment; None if there is no complete one before `end`."""
    start = segment.next
    head = os.pread(file, _HEAD.size, start) if start + _HEAD.size <= end else b""
    if len(head) < _HEAD.size:
        return None
    kind, envelope_length, length, crc = _HEAD.unpack(head)
    offset = start + _HEAD.size + envelope_length
    if kind != _RECORD or offset + length > end:
        return None
    envelope_json = os.pread(file, envelope_length, start + _HEAD.size)
    found = zlib.crc32(envelope_json, zlib.crc32(_LENGTHS.pack(envelope_length, length)))
    sha256 = hashlib.sha256()
    beginning = os.pread(file, min(HEAD_BYTES, length), offset)
    for at in range(offset, offset + length, CHUNK):
        chunk = os.pread(file, min(CHUNK, offset + length - at), at)
        found = zlib.crc32(chunk, found)
        sha256.update(chunk)
    if found != crc:
        return None
    envelope = _envelope_from(envelope_json)
    receipt = Receipt(
        id=f"{segment.stem}-{start}", path=segment.path, offset=offset, length=length,
        envelope=envelope, digest=digest_of(
            sha256.hexdigest(), envelope.recipients, hour=_hour_of(beginning, envelope.received_at)
        ),
    )  # fmt: skip
    segment.next = offset + length
    segment.pending.add(start)
    segment.records[start] = Accepted(
        id=receipt.id, received_at=envelope.received_at, digest=receipt.digest
    )
    return receipt


def _append_lines(path: Path, lines: Sequence[str]) -> None:
    """Append to a book, durably. Raises OSError."""
    make_folder(path.parent)
    is_new = not path.exists()
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b"\n":
            _write(file, [b"\n"])  # a crash has cut the last line
        _write(file, ["".join(lines).encode()])
        os.fsync(file)
    finally:
        os.close(file)
    if is_new:
        _sync_folder(path.parent)


def _lines(book: Path) -> Iterator[Accepted]:
    """Yield the entries of a book; a line that a crash has cut is none. Raises OSError."""
    try:
        text = book.read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return
    for line in text.splitlines():
        match line.split(" "):
            case [mail_id, received_at, digest] if len(digest) == 49:
                with suppress(ValueError):
                    at = datetime.fromisoformat(received_at)
                    yield Accepted(id=mail_id, received_at=at, digest=digest)
