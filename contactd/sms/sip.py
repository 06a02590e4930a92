"""The sip gateway: texts through a GSM gateway that the PBX reaches by SIP MESSAGE (RFC 3428).

In: the dialplan (context `contactd-texts`) writes each text as one line of a file, one file a day,
and we read the files from where we were: it does not matter when we are there. But the PBX has said
202 to the gateway before the line is written, and nobody brings a text again that it loses then.
Of a text of more than 1,023 bytes Asterisk 22 (`res_pjsip_messaging`) passes on nothing but the
length: that is filed.

Out: AMI's `MessageSend`. Its success says that the PBX will try; nobody tells how that ended, and
there is no id to ask for.
"""

import asyncio
import base64
import binascii
import hashlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import unquote

from contactd.clock import Clock
from contactd.errors import PermanentFailure, TemporaryFailure
from contactd.httpd import Route
from contactd.log import get_logger
from contactd.metrics import HANDLER_FAILURES
from contactd.routing.notify import SendUnknown, Trace
from contactd.service import Health, HealthState
from contactd.settings import SipSettings
from contactd.sms.gateway import Found, Handed, Inbox, Incoming, Outgoing, Unroutable

log = get_logger()

# A line of AMI has 1,024 bytes with its end; "Base64Body: " and 1,008 of Base64 fit into it.
LONGEST_OUT: Final = 756  # bytes of UTF-8
AT_ONCE: Final = 32  # texts are brought in together: they share a commit
_TRIMMED: Final = 4  # bytes: Asterisk takes line breaks off the end of a text
BLOCK_BYTES: Final = (
    256 * 1024
)  # are read at once; the longest line of the dialplan has about 3,000
NOT_PASSED_ON: Final = (
    "[短信内容未能由电话交换机转交 / the PBX did not pass on the words: {} bytes]"
)

_REMEDIES: Final = {  # Asterisk 22, main/message.c and manager.c
    "Permission denied": "Its user in manager.conf needs write=…,message.",
    "Message failed to send.": "Does the endpoint in sms.sip.destination exist?",
    "Message technology not found.": "Is res_pjsip_messaging.so loaded (modules.conf)?",
}
_A_DAY: Final = timedelta(days=1)

_MARK: Final = b"contactd-text,"
_DAY: Final = "[0-9]" * 8
_BASE64: Final = rb"([A-Za-z0-9+/]*={0,2})"
_LINE: Final = re.compile(
    _MARK + rb"(\d{9,11}\.\d{6})," + b",".join([_BASE64] * 3) + rb",(\d{0,9})," + _BASE64
)
_USER: Final = re.compile(
    r"\s*(?:(?:sips?|pjsip):([^@;>\s]*)[^@>\s]*@|tel:([^@;>\s]*))", re.IGNORECASE
)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_LONGEST_NUMBER: Final = 64  # characters
_NUMBER: Final = re.compile(r"\+?[0-9]{3,15}")  # E.164, or an extension

SendAction = Callable[[Mapping[str, str]], Awaitable[Mapping[str, str]]]
"""Send `MessageSend` with these headers to the PBX and return those of its answer.

Raises `TemporaryFailure` if it was not written, `SendUnknown` if it was and no answer came.
"""


class Bookmark(Protocol):
    """Where the position in the files is kept; both raise `TemporaryFailure`."""

    async def load(self) -> str | None:
        """Return what was saved last, None if nothing was."""
        ...

    async def save(self, position: str) -> None: ...


class SipGateway:
    """An `SmsGateway`. A text that is read twice has the same id: a lost bookmark is harmless."""

    name = "sip"

    def __init__(
        self,
        settings: SipSettings,
        inbox: Inbox,
        clock: Clock,
        *,
        send_action: SendAction,
        bookmark: Bookmark,
    ) -> None:
        self._settings = settings
        self._inbox = inbox
        self._clock = clock
        self._send_action = send_action
        self._bookmark = bookmark
        self._files = None if settings.inbox is None else _Files(settings.inbox)
        self._places: dict[str, int] | None = None  # file -> bytes that are done; None: not loaded
        self._saved = ""
        self._read_trouble = ""
        self._send_trouble = ""
        self._texts = self._bad_lines = 0
        self._last: datetime | None = None  # text that came in

    # The service

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Bring in what the dialplan has written, and what it writes."""
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(self._keep_reading(), name="sms-sip")
            try:
                yield
            finally:
                reading.cancel()

    def health(self) -> list[Health]:
        state = HealthState.UP
        if self._read_trouble or self._send_trouble:
            state = HealthState.DOWN if self._read_trouble else HealthState.DEGRADED
        figures = {"texts": float(self._texts), "bad_lines": float(self._bad_lines)}
        if self._last is not None:
            figures["silent_s"] = (self._clock.now() - self._last).total_seconds()
        detail = "; ".join(filter(None, (self._read_trouble, self._send_trouble)))
        return [Health(component=f"sms:{self.name}", state=state, detail=detail, figures=figures)]

    def routes(self) -> Sequence[Route]:
        return ()

    # Out

    async def submit(self, text: Outgoing) -> str:
        """Have the PBX send a text. "": there is no id; it may still fail, and nobody hears of it.

        Raises:
            SendUnknown: the PBX did not answer.
            TemporaryFailure: the PBX is away, or refuses.
            Unroutable: it is longer than AMI takes.
            PermanentFailure: it has no number.
        """
        if not _NUMBER.fullmatch(text.number):
            raise PermanentFailure("a text needs a telephone number")
        body = text.text.encode("utf-8", "replace")
        if len(body) > LONGEST_OUT:
            raise Unroutable(f"a text of more than {LONGEST_OUT} bytes does not fit into AMI")
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                answer = await self._send_action(self._headers(text.number, body))
        except TimeoutError as error:
            self._send_trouble = f"the PBX did not answer in {self._settings.timeout_s:g} s"
            raise SendUnknown(self._send_trouble) from error
        except TemporaryFailure as failure:
            self._send_trouble = str(failure)
            raise
        if answer.get("Response") != "Success":
            self._send_trouble = _remedy(answer.get("Message", ""))
            raise TemporaryFailure(self._send_trouble)
        self._send_trouble = ""
        return ""

    def _headers(self, number: str, body: bytes) -> dict[str, str]:
        to = self._settings.destination
        for name, value in (("{number}", number), ("{digits}", number.lstrip("+"))):
            to = to.replace(name, value)
        headers = {"To": to, "Base64Body": base64.b64encode(body).decode("ascii")}
        return headers | ({"From": self._settings.sender} if self._settings.sender else {})

    async def find(self, text: Handed) -> Found:
        """Say that nobody knows."""
        return Found(trace=Trace.UNKNOWN)

    # In

    async def listed(self, since: datetime, until: datetime) -> Sequence[Incoming] | None:
        """Return the texts in the files; None: we do not read any."""
        if self._files is None:
            return None
        try:
            return await asyncio.to_thread(self._files.listed, since, until)
        except OSError as error:
            raise TemporaryFailure(_trouble(error)) from error

    async def _keep_reading(self) -> None:
        while self._files is not None:
            try:
                await self._read(self._files)
                trouble = ""
            except OSError as error:
                trouble = _trouble(error)
            except TemporaryFailure as failure:
                trouble = f"texts wait in {self._settings.inbox}-…: {failure}"
            if trouble and trouble != self._read_trouble:
                log.warning("texts.not_read", gateway=self.name, reason=trouble)
            self._read_trouble = trouble
            await asyncio.sleep(self._settings.look_every_s)

    async def _read(self, files: "_Files") -> None:
        """Bring in what is new.

        Raises:
            OSError: a file cannot be read.
            TemporaryFailure: a text was not stored; the next look begins with it.
        """
        if self._places is None:
            self._places = _places(await self._bookmark.load())
        places = self._places
        more = True
        while more:
            batch = await asyncio.to_thread(files.read, places)
            more = bool(batch.lines)
            await self._take(batch, places)
            for gone in places.keys() - batch.there:
                del places[gone]
            position = json.dumps(places)
            if position != self._saved:
                await self._bookmark.save(position)
                self._saved = position

    async def _take(self, batch: "_Batch", places: dict[str, int]) -> None:
        for start in range(0, len(batch.lines), AT_ONCE):
            lines = batch.lines[start : start + AT_ONCE]
            found = [parsed(line) for _, line in lines]
            await self._bring_all([text for texts, _ in found for text in texts])
            if bad := sum(bad_here for _, bad_here in found):
                self._bad_lines += bad
                log.warning("texts.lines_skipped", gateway=self.name, file=batch.file, lines=bad)
            places[batch.file] = lines[-1][0]

    async def _bring_all(self, texts: Sequence[Incoming]) -> None:
        """Bring texts in, those of one person one after the other.

        Raises:
            TemporaryFailure: not all of them; twice is harmless.
        """
        people: dict[str, list[Incoming]] = {}
        for text in texts:
            people.setdefault(text.sender, []).append(text)
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(self._bring(theirs)) for theirs in people.values()]
        for failure in filter(None, (task.result() for task in running)):
            raise failure
        for text in texts:
            self._texts += 1
            self._last = text.received_at

    async def _bring(self, texts: Sequence[Incoming]) -> TemporaryFailure | None:
        for text in texts:
            try:
                await self._inbox.received(self.name, text)
            except TemporaryFailure as failure:
                return failure
            except Exception:  # the boundary: one text costs itself, not those behind it
                HANDLER_FAILURES.labels(where=f"sms:{self.name}").inc()
                log.exception("text.failed", gateway=self.name, text=text.id)
        return None


def _remedy(refusal: str) -> str:
    """Return Asterisk's words, with what to do about them."""
    return f"the PBX refuses: {refusal} {_REMEDIES.get(refusal, 'See sms.sip in the settings.')}"


def _trouble(error: OSError) -> str:
    return f"cannot read {error.filename} ({error.strerror}): see sms.sip.inbox"


# The files


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """Lines of one file with where they end; none: nothing is new. `there` are all files."""

    file: str = ""
    lines: Sequence[tuple[int, bytes]] = ()
    there: frozenset[str]


class _Files:
    """The files that the dialplan writes: `<path>-YYYYMMDD`, in UTC. Nobody renames them."""

    def __init__(self, path: Path) -> None:
        self._folder = path.parent
        self._name = re.compile(rf"{re.escape(path.name)}-({_DAY})")

    def read(self, places: Mapping[str, int]) -> _Batch:
        """Return the next block of whole lines behind `places`, of the oldest file that has one."""
        there = self._there()
        for name, path in there.items():
            for lines in _blocks(path, places.get(name, 0)):
                return _Batch(file=name, lines=lines, there=frozenset(there))
        return _Batch(there=frozenset(there))

    def listed(self, since: datetime, until: datetime) -> list[Incoming]:
        # The dialplan looks twice at the clock: first for the file, then for the time.
        first, last = (f"{at.astimezone(UTC):%Y%m%d}" for at in (since - _A_DAY, until))
        found: dict[str, Incoming] = {}
        for name, path in self._there().items():
            if not first <= name[-8:] <= last:
                continue
            for lines in _blocks(path, 0):
                for _, line in lines:
                    for text in parsed(line)[0]:
                        found.setdefault(text.id, text)
        return [text for text in found.values() if since <= text.received_at < until]

    def _there(self) -> dict[str, Path]:
        """Return the files by their names, the oldest first."""
        names = {path.name: path for path in self._folder.iterdir()}
        return {name: names[name] for name in sorted(names) if self._name.fullmatch(name)}


def _blocks(path: Path, start: int) -> Iterator[list[tuple[int, bytes]]]:
    """Yield whole lines behind `start`, each with where it ends, by blocks."""
    try:
        size = path.stat().st_size
        if size == start:
            return
        with path.open("rb") as stream:
            at = start if start < size else 0  # another file under its name: read again
            while True:
                stream.seek(at)
                block = stream.read(BLOCK_BYTES)
                lines = list(_lines(block, at))
                if not lines:
                    return
                yield lines
                at = lines[-1][0]
    except FileNotFoundError:
        return  # it was old


def _lines(block: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    if len(block) == BLOCK_BYTES and b"\n" not in block:  # no text is so long
        # What begins at its end may be one.
        end = max(block.rfind(_MARK), 0) or BLOCK_BYTES - len(_MARK)
        yield at + end, block[:end]
        return
    for line in block.split(b"\n")[:-1]:
        at += len(line) + 1
        yield at, line


# The lines


def parsed(line: bytes) -> tuple[list[Incoming], int]:
    """Return the texts of a line, and how much of it is none.

    There are several, and halves, if the PBX or its disk failed while it wrote.
    """
    before, *records = line.split(_MARK)
    texts = [text for record in records if (text := _text(_MARK + record)) is not None]
    return texts, len(records) - len(texts) + bool(before or not records)


def _text(record: bytes) -> Incoming | None:
    match = _LINE.fullmatch(record)
    if match is None:
        return None
    at, to, sender, call, length, body = match.groups()
    words = _decoded(body)
    text = words.decode("utf-8", "replace").replace("\0", "")  # no database keeps a NUL
    if len(words) + _TRIMMED < int(length or 0):
        text = f"{text} {NOT_PASSED_ON.format(int(length))}".lstrip()
    day = int(float(at)) // 86_400
    # A gateway that did not hear the 202 sends the same request again (RFC 3261 section 17.1.2.2),
    # and Asterisk takes it again. Without a Call-ID each is one of its own.
    request = call if _decoded(call)[:1].strip() else at
    same = b",".join((str(day).encode(), to, sender, request, body))
    return Incoming(
        id=hashlib.sha256(same).hexdigest()[:32],
        sender=number_of(_decoded(sender).decode("utf-8", "replace")),
        recipient=_shown(_decoded(to).decode("utf-8", "replace")),
        text=text,
        received_at=datetime.fromtimestamp(float(at), UTC),
    )


def _decoded(value: bytes) -> bytes:
    """Return what Base64 holds; of one that is cut, what is whole."""
    try:
        return base64.b64decode(value[: len(value) // 4 * 4])
    except binascii.Error:
        return b""


def number_of(origin: str) -> str:
    """Return the number in a From: its user, "" if it has none."""
    found = _USER.match(origin.rpartition("<")[2])
    return _shown(unquote(found[1] or found[2])) if found else ""


def _shown(value: str) -> str:
    return _CONTROL.sub("", value)[:_LONGEST_NUMBER]


def _places(stored: str | None) -> dict[str, int]:
    """Return what a bookmark says; nothing it does not: then all files are read again."""
    try:
        values = json.loads(stored or "{}")
        return {str(name): max(int(place), 0) for name, place in values.items()}
    except (ValueError, TypeError, AttributeError):
        log.warning("texts.bookmark_unreadable", gateway=SipGateway.name)
        return {}
