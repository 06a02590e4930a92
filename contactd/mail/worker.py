"""The child that reads mails: request and answer, over its pipes, until the pipe is closed.

Whatever a hostile mail does to the parser happens in this process, which has limits and can be
thrown away. `mail.workers` starts it. A frame is four bytes of length (big-endian), then JSON; the
first one has the `Orders`, which are answered with an empty frame once all is imported.
"""

import ctypes
import errno
import hashlib
import json
import math
import os
import resource
import signal
import struct
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, Final

from pydantic import TypeAdapter
from pydantic_core import PydanticSerializationError

from contactd.mail.parsed import (
    Origin,
    Parsed,
    Part,
    Read,
    Stored,
    Verdict,
)

LARGEST_FRAME: Final = 16 << 20  # bytes; the longest text and HTML that are shown are far below
NICENESS: Final = 5  # the daemon answers people meanwhile
CHUNK: Final = 1 << 20
RAW_TYPE: Final = "message/rfc822"
RAW_NAME: Final = "message.eml"
UNFINISHED: Final = ".new-"  # in front of files that are being written, then the writer's pid
_FILE_ROOM: Final = 64 << 20  # bytes; a part may be larger than the mail when it was compressed
_SYNCERS: Final = 8  # threads; they only wait
_STACK_BYTES: Final = 1 << 18
_PR_SET_PDEATHSIG: Final = 1  # prctl(2)
_SURROGATES: Final = dict.fromkeys(range(55296, 57344), "�")
# What is wrong with the disk and not with the mail.
_DISK: Final = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES, errno.ENOENT}
)

ParseMail = Callable[..., Parsed]  # of bytes; with own_addresses=


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What a child is told at its start."""

    parent: int  # its pid
    blobs: str
    memory_bytes: int
    own_addresses: tuple[str, ...] = ()
    nameserver: str = ""
    verdict_s: float = 5.0  # for all that one verdict takes


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """`length` bytes from `offset` of the file `path` are a mail."""

    path: str
    offset: int
    length: int
    reverse_path: str | None = None  # "" is <>; None: nobody knows


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Mails whose files are synced together; `cpu_s` is for all of them."""

    spans: tuple[Span, ...]
    cpu_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One of the three: what a mail says, why it cannot be read, why it cannot be kept now."""

    read: Read | None = None
    failed: str = ""
    deferred: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """One answer a mail, in the order of the request."""

    answers: tuple[Answer, ...]
    resident_bytes: int  # of the child, now


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Asks for the verdict on a mail; `author` is its sender's address as it was read."""

    number: int
    path: str
    offset: int
    length: int
    origin: Origin
    author: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    number: int
    verdict: Verdict
    is_reachable: bool  # the name server


def unsure(author: str) -> Verdict:
    """Return the verdict on a mail that nobody could judge."""
    domain = author.rpartition("@")[2]
    return Verdict(spf="temperror", dkim="temperror", dmarc="temperror", from_domain=domain)


@cache
def adapter(kind: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


# Frames


def write_frame(out: BinaryIO, content: bytes) -> None:
    out.write(frame(content))
    out.flush()


def frame(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content


def read_frame(source: BinaryIO) -> bytes:
    """Return the next frame.

    Raises:
        EOFError: the other side is gone.
    """
    head = source.read(4)
    if len(head) < 4:
        raise EOFError
    (length,) = struct.unpack(">I", head)
    content = source.read(length)
    if len(content) < length:
        raise EOFError
    return content


def encoded(answers: Answers) -> bytes:
    """Return the answers as JSON; a half of a surrogate pair in a text becomes U+FFFD."""
    try:
        return adapter(Answers).dump_json(answers)
    except PydanticSerializationError:
        told = json.dumps(adapter(Answers).dump_python(answers), default=_plain, ensure_ascii=False)
        return told.translate(_SURROGATES).encode()


def _plain(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else list(value)  # type: ignore[call-overload]


# Files


def keep(folder: Path, contents: Sequence[bytes]) -> list[str]:
    """Write what is not there yet as `store.blobs` does, durably; return the SHA-256 of each.

    All are synced at the same time: the file system then has one commit for them, not one each
    (measured on ext4: 0.7 ms a file instead of 8).

    Raises:
        OSError: the disk is full or broken; some of them may be there.
    """
    digests = [hashlib.sha256(content).hexdigest() for content in contents]
    missing = {
        digest: content
        for digest, content in zip(digests, contents, strict=True)
        if not (folder / digest[:2] / digest).exists()
    }
    written: list[tuple[Path, str]] = []
    try:
        for digest, content in missing.items():
            descriptor, name = _new_file(folder)
            written.append((Path(name), digest))
            with os.fdopen(descriptor, "wb") as out:
                out.write(content)
        _sync(path for path, _ in written)
        for path, digest in written:
            _rename(path, folder / digest[:2] / digest)
    finally:
        for path, _ in written:
            path.unlink(missing_ok=True)  # is there only if something failed
    # Also of those that were there: who wrote them may not have come so far.
    _sync(folder / digest[:2] for digest in digests)
    return digests


def keep_range(folder: Path, path: Path, offset: int, length: int) -> Stored:
    """Keep a raw mail, without reading it into memory as a whole.

    Raises:
        OSError: it cannot be read, or not be written.
    """
    digest = hashlib.sha256()
    descriptor, name = _new_file(folder)
    copy = Path(name)
    try:
        with path.open("rb") as source, os.fdopen(descriptor, "wb") as out:
            source.seek(offset)
            left = length
            while chunk := source.read(min(CHUNK, left)):
                left -= len(chunk)
                digest.update(chunk)
                out.write(chunk)
            if left:
                raise OSError(errno.EIO, "it ends early")
            out.flush()
            os.fsync(out.fileno())
        target = folder / digest.hexdigest()[:2] / digest.hexdigest()
        _rename(copy, target)
    finally:
        copy.unlink(missing_ok=True)
    _sync([target.parent])
    return raw_stored(digest.hexdigest(), length)


def raw_stored(sha256: str, size_bytes: int) -> Stored:
    return Stored(sha256=sha256, size_bytes=size_bytes, media_type=RAW_TYPE, name=RAW_NAME)


def _sync(paths: Iterable[Path]) -> None:
    """Raises OSError."""
    several = {*paths}
    if len(several) == 1:
        _sync_one(several.pop())
    elif several:
        for _ in _syncers().map(_sync_one, several):
            pass


@cache
def _syncers() -> ThreadPoolExecutor:
    threading.stack_size(_STACK_BYTES)
    return ThreadPoolExecutor(_SYNCERS)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _new_file(folder: Path) -> tuple[int, str]:
    return tempfile.mkstemp(dir=folder, prefix=f"{UNFINISHED}{os.getpid()}-")


def _rename(path: Path, target: Path) -> None:
    if not target.parent.is_dir():
        target.parent.mkdir(exist_ok=True)
        _sync([target.parent.parent])
    path.replace(target)


# Mails


@dataclass(frozen=True, slots=True)
class _Opened:
    raw: bytes = field(repr=False)
    parsed: Parsed = field(repr=False)

    def contents(self) -> list[bytes]:
        return [self.raw, *(part.content for part in self.parsed.parts)]

    def read(self, digests: Sequence[str]) -> Read:
        """Return what is told of it; `digests` are those of `contents`."""
        said = {each.name: getattr(self.parsed, each.name) for each in fields(self.parsed)}
        parts = said.pop("parts")
        return Read(
            **said,
            raw=raw_stored(digests[0], len(self.raw)),
            stored=tuple(_stored(part, sha) for part, sha in zip(parts, digests[1:], strict=True)),
        )


def _stored(part: Part, sha256: str) -> Stored:
    return Stored(
        sha256=sha256,
        size_bytes=len(part.content),
        media_type=part.media_type,
        name=part.name,
        content_id=part.content_id,
        is_inline=part.is_inline,
    )


def answers_to(request: Request, orders: Orders, parse: ParseMail) -> Answers:
    """Parse mails and keep their files, with one sync for all."""
    limit_mails(request.cpu_s, sum(span.length for span in request.spans))
    opened = [_opened(span, orders, parse) for span in request.spans]
    contents = [each.contents() if isinstance(each, _Opened) else [] for each in opened]
    try:
        digests = iter(keep(Path(orders.blobs), list(chain.from_iterable(contents))))
    except Exception as error:
        failure = _failure(error)
        answers = [failure if isinstance(each, _Opened) else each for each in opened]
    else:
        answers = [
            Answer(read=each.read([*islice(digests, len(kept))]))
            if isinstance(each, _Opened)
            else each
            for each, kept in zip(opened, contents, strict=True)
        ]
    return Answers(answers=tuple(answers), resident_bytes=_resident_bytes())


def _opened(span: Span, orders: Orders, parse: ParseMail) -> _Opened | Answer:
    """Return a parsed mail, or why there is none; the boundary of what parsing can do."""
    try:
        raw = _raw(span)
        own = frozenset(orders.own_addresses)
        parsed = parse(raw, own_addresses=own, reverse_path=span.reverse_path)
        return _Opened(raw, parsed)
    except Exception as error:
        return _failure(error)


def _raw(span: Span) -> bytes:
    """Raises OSError."""
    with Path(span.path).open("rb") as source:
        source.seek(span.offset)
        raw = source.read(span.length)
    if len(raw) < span.length:
        raise OSError(errno.EIO, "it ends early")
    return raw


def _failure(error: Exception) -> Answer:
    if isinstance(error, OSError) and error.errno in _DISK:
        return Answer(deferred=os.strerror(error.errno or 0))
    return Answer(failed=_where(error))


def _where(error: Exception) -> str:
    """Return what failed where, without the error's text: it may quote the mail."""
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1] if frames else None
    at = f" at {Path(last.filename).name}:{last.lineno}" if last else ""
    return f"{type(error).__name__}{at}"


def _resident_bytes() -> int:
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * resource.getpagesize()


# The process


def limit_process(orders: Orders) -> None:
    """Take the limits that hold for life, and end when the daemon ends."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != orders.parent:  # it ended before that
        sys.exit(0)
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (orders.memory_bytes, orders.memory_bytes))
    with suppress(OSError):
        # The kernel's choice when memory runs out: us, not the database.
        Path("/proc/self/oom_score_adj").write_text("800", encoding="ascii")


def limit_mails(cpu_s: int, length: int) -> None:
    """Set what the next mails may use; the kernel ends the process at more CPU time."""
    cpu = math.ceil(time.process_time() + cpu_s)
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    size = length + _FILE_ROOM
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def serve(parse: ParseMail) -> int:
    """Take orders, then read mails with `parse` until there is nobody who asks."""
    source, out = sys.stdin.buffer, sys.stdout.buffer
    try:
        orders: Orders = adapter(Orders).validate_json(read_frame(source))
        limit_process(orders)
        write_frame(out, b"")
        while True:
            request: Request = adapter(Request).validate_json(read_frame(source))
            write_frame(out, encoded(answers_to(request, orders, parse)))
    except (EOFError, BrokenPipeError):
        return os.EX_OK


def main(arguments: Collection[str]) -> int:
    # Imported here: the daemon needs this module's values, not the parser.
    if "judge" in arguments:
        from contactd.mail.verdicts import serve_verdicts

        return serve_verdicts()
    from contactd.mail.parsing import parse

    return serve(parse)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
