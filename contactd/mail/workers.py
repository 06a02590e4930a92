"""Reads mails in processes that may be lost: `Parsers` gives them work, limits and no second look.

A mail is read by one of `count` children with little processor time (`_QUICK`), which is plenty
for what people send. What that child cannot do is tried once more by a child of its own with the
whole limit, one such mail at a time, so hard mails wait for each other and nobody else does. A mail
that cannot be read then either is `Note.UNREADABLE`: it has a title for its ticket, and its raw
bytes are kept.
"""

import asyncio
import math
import os
import re
import struct
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import deque
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from contactd.errors import ContactdError, TemporaryFailure
from contactd.log import get_logger
from contactd.mail.parsed import Kind, Mailbox, Note, Origin, Read, Verdict
from contactd.mail.worker import (
    LARGEST_FRAME,
    UNFINISHED,
    Answers,
    Judged,
    Judgement,
    Orders,
    Request,
    Span,
    adapter,
    frame,
    keep_range,
    raw_stored,
    unsure,
)
from contactd.service import Health, HealthState

log = get_logger()

MODULE: Final = "contactd.mail.worker"
HARD_MAILS: Final = 16  # may wait for their second try; the next one is not tried again
JUDGED_AT_ONCE: Final = 32  # mails; the next one has no verdict
JUDGING_SPARE_S: Final = 1.0  # for the way there and back, beyond what the child takes
AWAY_S: Final = 10.0  # a name server that is away is not asked again before that
MAILS_A_CHILD: Final = 500  # then it is replaced: what a parser leaks is given back
TOGETHER: Final = 16  # mails; their files are synced together, which takes as long as one
TOGETHER_BYTES: Final = 1 << 20
SCANNED_BYTES: Final = 64 << 10  # of a mail that cannot be read

_QUICK: Final = 0.1  # of the time limit; the slowest mail of 20 MB seen took 1.1 s
_QUICK_LEAST_S: Final = 1
_GROWN: Final = 0.4  # of the memory limit: there is room for the next large mail below it
_START_S: Final = 30.0  # the machine may be busy
_VALUE_CHARS: Final = 1_000  # of a header of an unreadable mail
_HEADER: Final = re.compile(rb"(from|subject|message-id)[ \t]*:(.*)", re.IGNORECASE | re.DOTALL)
_ADDRESS: Final = re.compile(r"[^\s<>\"(),:;@]{1,64}@[^\s<>\"(),:;@]{1,253}")
_MESSAGE_ID: Final = re.compile(r"<[^\s<>]{1,250}>")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


class _Broken(ContactdError):
    """A child is gone, silent or mad; the mail it had may be why."""


@dataclass(slots=True, eq=False)
class _Job:
    path: Path
    offset: int
    length: int
    reverse_path: str | None
    read: asyncio.Future[Read] = field(repr=False)
    is_alone: bool = False  # it is not read together with others again

    def span(self) -> Span:
        return Span(
            path=str(self.path),
            offset=self.offset,
            length=self.length,
            reverse_path=self.reverse_path,
        )

    def finish(self, read: Read) -> None:
        if not self.read.done():
            self.read.set_result(read)

    def defer(self, why: str) -> None:
        if not self.read.done():
            self.read.set_exception(TemporaryFailure(why))


class Child:
    """A process that answers frames; anything unusual about it raises `_Broken`."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.asked = 0

    @property
    def pid(self) -> int:
        return self._process.pid

    @classmethod
    async def start(cls, module: str, arguments: Collection[str], orders: Orders) -> "Child":
        """Start one and wait until it is ready.

        Raises:
            TemporaryFailure: it does not come up, which no mail is to blame for.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", module, *arguments, stdin=PIPE, stdout=PIPE, stderr=DEVNULL,
                env=_environment(),
            )  # fmt: skip
        except OSError as error:
            raise TemporaryFailure(f"cannot start a reader: {error.strerror}") from error
        child = cls(process)
        try:
            async with asyncio.timeout(_START_S):
                await child.tell(adapter(Orders).dump_json(orders))
                await child.hear()
        except (_Broken, TimeoutError) as error:
            await child.end()
            raise TemporaryFailure("a reader of mails does not start") from error
        except BaseException:
            await child.end()
            raise
        return child

    async def tell(self, content: bytes) -> None:
        """Send a frame.

        Raises:
            _Broken: it is gone.
        """
        writer = self._process.stdin
        if writer is None:
            raise _Broken("it has no input")
        try:
            writer.write(frame(content))
            await writer.drain()
        except OSError as error:
            raise _Broken("it is gone") from error

    async def hear(self) -> bytes:
        """Return its next frame.

        Raises:
            _Broken: it is gone, or what it says is no frame.
        """
        reader = self._process.stdout
        if reader is None:
            raise _Broken("it has no output")
        try:
            (length,) = struct.unpack(">I", await reader.readexactly(4))
            if length > LARGEST_FRAME:
                raise _Broken("its answer is too long")
            return await reader.readexactly(length)
        except (asyncio.IncompleteReadError, OSError):
            code = await self._process.wait()
            raise _Broken(f"it ended with {code}") from None

    async def ask(self, request: Request, wait_s: float) -> Answers:
        """Have mails read.

        Raises:
            _Broken: there is no answer that makes sense in time.
        """
        self.asked += len(request.spans)
        try:
            async with asyncio.timeout(wait_s):
                await self.tell(adapter(Request).dump_json(request))
                content = await self.hear()
        except TimeoutError:
            raise _Broken("it takes too long") from None
        try:
            answers: Answers = adapter(Answers).validate_json(content)
        except ValidationError:
            raise _Broken("its answer makes no sense") from None
        if len(answers.answers) != len(request.spans):
            raise _Broken("it does not answer for each mail")
        return answers

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()

    async def end(self) -> None:
        """Kill it, and wait until it is gone."""
        self.kill()
        if self._process.stdin is not None:
            self._process.stdin.close()
        # asyncio waits for the end of the pipe, which it does not see behind a full buffer.
        while self._process.stdout is not None and await self._process.stdout.read(1 << 16):
            pass
        await self._process.wait()


class Judges:
    """Gets verdicts from a child that judges many mails at a time (`mail.verdicts`).

    It never holds a mail up for longer than it is told (`Orders.verdict_s`, and a second). A name
    server that is away is left alone for `AWAY_S`: meanwhile every verdict is a temporary error, at
    once.
    """

    def __init__(self, module: str, orders: Orders) -> None:
        self._module = module
        self._orders = orders
        self._patience_s = orders.verdict_s + JUDGING_SPARE_S
        self._wanted = asyncio.Event()
        self._unsent: list[bytes] = []  # while it is being started
        self._child: Child | None = None
        self._up_since = 0.0
        self._waiting: dict[int, asyncio.Future[Judged]] = {}
        self._number = 0
        self._away_until = 0.0
        self._fault = ""

    def health(self) -> list[Health]:
        if not self._orders.nameserver:
            return []
        state = HealthState.DEGRADED if self._fault else HealthState.UP
        detail = (
            f"{self._fault}: no verdicts on senders; see smtp.nameserver" if self._fault else ""
        )
        return [Health(component="verdicts", state=state, detail=detail * bool(self._fault))]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        if self._orders.nameserver:
            self._wanted.set()  # the first mail does not wait for its start
        async with asyncio.TaskGroup() as tasks:
            server = tasks.create_task(self._serve(), name="mail-judge")
            try:
                yield
            finally:
                server.cancel()

    async def verdict(self, job: "_Job", origin: Origin, author: str) -> Verdict:
        """Return what there is to say in time; never raises."""
        loop = asyncio.get_running_loop()
        if not self._orders.nameserver:
            return Verdict(from_domain=author.rpartition("@")[2])
        if loop.time() < self._away_until or len(self._waiting) >= JUDGED_AT_ONCE:
            return unsure(author)
        self._number += 1
        number = self._number
        wanted = Judgement(
            number=number, path=str(job.path), offset=job.offset, length=job.length,
            origin=origin, author=author,
        )  # fmt: skip
        self._waiting[number] = loop.create_future()
        try:
            async with asyncio.timeout(self._patience_s):
                await self._put(adapter(Judgement).dump_json(wanted))
                return self._note(await self._waiting[number])
        except TimeoutError:
            # It had its time: one of its mails keeps it from all others.
            if self._child is not None and loop.time() - self._up_since > self._patience_s:
                self._child.kill()
        except _Broken:
            pass
        finally:
            self._waiting.pop(number).cancel()
        return unsure(author)

    async def _put(self, content: bytes) -> None:
        """Raises _Broken."""
        if self._child is not None:
            await self._child.tell(content)
        else:
            self._unsent.append(content)
            self._wanted.set()

    def _note(self, judged: Judged) -> Verdict:
        self._fault = "" if judged.is_reachable else "the name server does not answer"
        if self._fault:
            self._away_until = asyncio.get_running_loop().time() + AWAY_S
        return judged.verdict

    async def _serve(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                child = await Child.start(self._module, ("judge",), self._orders)
            except TemporaryFailure:
                self._fault = "the process that asks DNS does not start; see the log"
                self._away_until = asyncio.get_running_loop().time() + AWAY_S
                self._drop("it does not start")
                continue
            try:
                self._child, self._up_since = child, asyncio.get_running_loop().time()
                unsent, self._unsent = self._unsent, []
                for content in unsent:
                    await child.tell(content)
                await self._listen(child)
            except _Broken as broken:
                log.warning("mail.judge_lost", reason=str(broken), mails=len(self._waiting))
                self._drop("it is gone")
            finally:
                self._child = None
                await child.end()

    async def _listen(self, child: Child) -> None:
        """Hand out answers until there are no more.

        Raises:
            _Broken: always, at the end.
        """
        while True:
            try:
                judged: Judged = adapter(Judged).validate_json(await child.hear())
            except ValidationError:
                raise _Broken("its answer makes no sense") from None
            answer = self._waiting.get(judged.number)
            if answer is not None and not answer.done():
                answer.set_result(judged)

    def _drop(self, why: str) -> None:
        self._unsent.clear()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(_Broken(why))


class Parsers:
    """Reads mails. `blobs` is the folder of `store.blobs`; `timeout` is for one mail.

    `nameserver` is asked about senders (`mail.verdicts.Nameserver`); "": nobody is.
    """

    def __init__(  # noqa: PLR0913 - limits, which belong together here only
        self,
        *,
        count: int,
        timeout: timedelta,
        memory_bytes: int,
        blobs: Path,
        own_addresses: Collection[str] = (),
        nameserver: str = "",
        verdict_timeout: timedelta = timedelta(seconds=5),
        module: str = MODULE,
    ) -> None:
        self._count = count
        self._timeout_s = timeout.total_seconds()
        self._blobs = blobs
        self._module = module
        self._orders = Orders(
            parent=os.getpid(),
            blobs=str(blobs.absolute()),
            memory_bytes=memory_bytes,
            own_addresses=tuple(own_addresses),
            nameserver=nameserver,
            verdict_s=verdict_timeout.total_seconds(),
        )
        self._judges = Judges(module, self._orders)
        self._first: deque[_Job] = deque()
        self._arrived = asyncio.Event()
        self._second: asyncio.Queue[_Job] = asyncio.Queue()
        self._open: set[_Job] = set()
        self._children: set[Child] = set()
        self._is_running = False
        self._fault = ""
        self._done = self._lost = self._unreadable = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Read mails inside the block; leaving it gives up what is in hand."""
        await asyncio.to_thread(self._tidy)
        try:
            async with self._judges.running(), asyncio.TaskGroup() as tasks:
                servers = [
                    tasks.create_task(self._serve_first(), name=f"parser-{number}")
                    for number in range(self._count)
                ]
                servers.append(tasks.create_task(self._serve_second(), name="parser-again"))
                self._is_running = True
                try:
                    yield
                finally:
                    self._is_running = False
                    for server in servers:
                        server.cancel()
        finally:
            for job in self._open:
                job.defer("the reading of mails was stopped")
            for child in [*self._children]:
                await self._end(child)

    def health(self) -> list[Health]:
        state = HealthState.DOWN if self._fault else HealthState.UP
        figures = {
            "children": len(self._children),
            "waiting": len(self._first),
            "hard": self._second.qsize(),
            "read": self._done,
            "lost_children": self._lost,
            "unreadable": self._unreadable,
        }
        detail = f"{self._fault}; see the log and the machine's memory" if self._fault else ""
        own = Health(component="parsers", state=state, detail=detail, figures=figures)
        return [own, *self._judges.health()]

    async def read(
        self,
        path: Path,
        offset: int,
        length: int,
        origin: Origin | None = None,
        reverse_path: str | None = None,
    ) -> Read:
        """Return what the mail says that is `length` bytes from `offset` of `path`.

        Its files are durable when this returns. With an `origin` the sender is judged;
        `reverse_path` is the envelope's, if nobody else is known.

        Raises:
            TemporaryFailure: the disk or this machine cannot do it now; nothing is lost.
        """
        if not self._is_running:
            raise TemporaryFailure("mails are not being read")
        if origin is not None:
            reverse_path = origin.reverse_path
        answer: asyncio.Future[Read] = asyncio.get_running_loop().create_future()
        job = _Job(path, offset, length, reverse_path, answer)
        self._open.add(job)
        try:
            self._first.append(job)
            self._arrived.set()
            read = await job.read
            if origin is None:
                return read
            verdict = await self._judges.verdict(job, origin, read.sender.address)
            return replace(read, verdict=verdict)
        finally:
            self._open.discard(job)
            with suppress(ValueError):  # whoever asked has gone
                self._first.remove(job)

    # The two lines

    async def _serve_first(self) -> None:
        child: Child | None = None
        cpu_s = max(_QUICK_LEAST_S, math.ceil(self._timeout_s * _QUICK))
        while True:
            child = child or await self._start_early()
            jobs = await self._take()
            try:
                child = child or await self._start()
                answers = await self._ask(child, jobs, cpu_s)
            except TemporaryFailure as failure:
                for job in jobs:
                    job.defer(str(failure))
            except _Broken as broken:
                await self._lose(child, jobs, str(broken))
                child = None
                await self._again(jobs)
            else:
                failed = self._finish(jobs, answers)
                if failed or self._is_worn(child, answers):
                    await self._end(child)
                    child = None
                for job in failed:
                    await self._hard(job)

    async def _serve_second(self) -> None:
        while True:
            job = await self._second.get()
            if job.read.done():
                continue
            child: Child | None = None
            try:
                child = await self._start()
                answers = await self._ask(child, [job], math.ceil(self._timeout_s))
            except TemporaryFailure as failure:
                job.defer(str(failure))
            except _Broken as broken:
                await self._lose(child, [job], str(broken))
                child = None
                await self._give_up(job)
            else:
                for failed in self._finish([job], answers):
                    await self._give_up(failed)
            if child is not None:
                await self._end(child)

    async def _take(self) -> list[_Job]:
        """Return the next mails that are read together: more than one only if there is a queue."""
        while not self._first:
            self._arrived.clear()
            await self._arrived.wait()
        share = min(TOGETHER, math.ceil(len(self._first) / self._count))
        jobs = [self._first.popleft()]
        length = jobs[0].length
        while self._first and len(jobs) < share and not jobs[0].is_alone:
            length += self._first[0].length
            if length > TOGETHER_BYTES or self._first[0].is_alone:
                break
            jobs.append(self._first.popleft())
        return jobs

    async def _ask(self, child: Child, jobs: list[_Job], cpu_s: int) -> Answers:
        """Raises _Broken."""
        request = Request(spans=tuple(job.span() for job in jobs), cpu_s=cpu_s)
        return await child.ask(request, self._timeout_s)

    def _finish(self, jobs: list[_Job], answers: Answers) -> list[_Job]:
        """Finish the jobs with what was answered; return those that could not be read."""
        failed: list[_Job] = []
        for job, answer in zip(jobs, answers.answers, strict=True):
            if answer.read is not None:
                self._done += 1
                job.finish(answer.read)
            elif answer.deferred:
                job.defer(f"the files of a mail cannot be kept: {answer.deferred}")
            else:
                log.warning("mail.reading_failed", reason=answer.failed, size_bytes=job.length)
                failed.append(job)
        return failed

    async def _again(self, jobs: list[_Job]) -> None:
        """Give mails that a child was lost over another chance: each alone, then to the hard."""
        if len(jobs) == 1:
            await self._hard(jobs[0])
            return
        for job in reversed(jobs):
            job.is_alone = True
            self._first.appendleft(job)
        self._arrived.set()

    async def _hard(self, job: _Job) -> None:
        if self._second.qsize() < HARD_MAILS:
            self._second.put_nowait(job)
        else:
            await self._give_up(job)

    async def _give_up(self, job: _Job) -> None:
        self._unreadable += 1
        log.warning("mail.unreadable", size_bytes=job.length)
        try:
            job.finish(
                await asyncio.to_thread(unread, job.path, job.offset, job.length, self._blobs)
            )
        except OSError as error:
            job.defer(f"a mail cannot be kept: {error.strerror}")

    # Children

    async def _start(self) -> Child:
        try:
            child = await Child.start(self._module, (), self._orders)
        except TemporaryFailure as failure:
            self._fault = str(failure)
            raise
        self._fault = ""
        self._children.add(child)
        return child

    async def _start_early(self) -> Child | None:
        """Start one before there is a mail: it imports for half a second."""
        with suppress(TemporaryFailure):
            return await self._start()
        return None

    async def _end(self, child: Child) -> None:
        await child.end()
        self._children.discard(child)  # not before: what is cancelled here is ended at the end

    async def _lose(self, child: Child | None, jobs: list[_Job], why: str) -> None:
        self._lost += 1
        log.warning("mail.reader_lost", reason=why, mails=len(jobs))
        if child is not None:
            await self._end(child)
            await asyncio.to_thread(self._tidy, child.pid)

    def _is_worn(self, child: Child, answers: Answers) -> bool:
        grown = answers.resident_bytes > self._orders.memory_bytes * _GROWN
        return grown or child.asked >= MAILS_A_CHILD

    def _tidy(self, pid: int | None = None) -> None:
        """Delete what killed children have left half written: one's, or everybody's."""
        self._blobs.mkdir(parents=True, exist_ok=True)
        for path in self._blobs.glob(f"{UNFINISHED}{'' if pid is None else f'{pid}-'}*"):
            path.unlink(missing_ok=True)


def _environment() -> dict[str, str]:
    """Return what a child needs of ours; the settings' secrets are not among it."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("CONTACTD_")}
    return {**kept, "MALLOC_ARENA_MAX": "2"}  # each of a thread would take 64 MB of addresses


# Mails that cannot be read


def unread(path: Path, offset: int, length: int, blobs: Path) -> Read:
    """Keep the raw bytes, and say what their beginning tells without being parsed.

    Raises:
        OSError: of the disk.
    """
    raw = keep_range(blobs, path, offset, length)
    with path.open("rb") as source:
        source.seek(offset)
        beginning = source.read(min(length, SCANNED_BYTES))
    return replace(scanned(beginning), raw=raw)


def scanned(beginning: bytes) -> Read:
    """Return sender, subject and Message-ID, each from the first such header, cut if it is long."""
    found: dict[str, str] = {}
    for field_ in _fields(beginning):
        if match := _HEADER.match(field_):
            found.setdefault(match[1].decode().lower(), _decoded(match[2][: 4 * _VALUE_CHARS]))
    sender = found.get("from", "")
    address = _ADDRESS.search(sender)
    message_id = _MESSAGE_ID.search(found.get("message-id", ""))
    return Read(
        raw=raw_stored("", 0),
        subject=found.get("subject", ""),
        sender=Mailbox(
            address=address[0].lower() if address else "",
            name=sender.partition("<")[0].strip(' "') if "<" in sender else "",
        ),
        message_id=message_id[0] if message_id else "",
        kind=Kind.PERSON,
        notes=frozenset({Note.UNREADABLE}),
    )


def _fields(beginning: bytes) -> list[bytes]:
    """Return the header fields, without the one that the end of `beginning` may have cut."""
    head, end, _ = beginning.replace(b"\r\n", b"\n").partition(b"\n\n")
    fields_: list[bytes] = []
    for line in head.split(b"\n"):
        if line[:1] in {b" ", b"\t"} and fields_:
            fields_[-1] = (fields_[-1] + line)[: 8 * _VALUE_CHARS]
        else:
            fields_.append(line)
    return fields_ if end or len(beginning) < SCANNED_BYTES else fields_[:-1]


def _decoded(value: bytes) -> str:
    """Return a header's value as one line of text, as well as it goes."""
    text = value.decode("utf-8", "replace")
    with suppress(HeaderParseError, LookupError, ValueError):  # else it is shown as it came
        text = str(make_header(decode_header(text)))
    return " ".join(_CONTROL.sub(" ", text).split())[:_VALUE_CHARS]
