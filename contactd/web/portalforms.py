"""What requesters fill in on the portal: read as it streams in, checked, and put into words.

Files go to the blobs piece by piece, never into memory as a whole, and are kept for their form
until it is sent. What a file is its content says (WHATWG MIME Sniffing), not its name or its
sender; what a browser would run as a page is refused.
"""

import asyncio
import hashlib
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from aiohttp import BodyPartReader, MultipartReader, web
from aiohttp.http_exceptions import BadHttpMessage

from contactd.errors import TemporaryFailure
from contactd.httpd import Problem, Refused
from contactd.settings import PortalSettings
from contactd.store.blobs import Blobs
from contactd.store.portal import Portal
from contactd.tickets import phone
from contactd.tickets.contact import Blob
from contactd.tickets.describing import Description
from contactd.tickets.model import clean_line, clean_text
from contactd.tickets.people import Address
from contactd.tickets.phone import is_mobile
from contactd.tickets.priority import Impact
from contactd.web.i18n import Say
from contactd.web.portalaccess import is_mail
from contactd.web.words import N_

FORM_KEY: Final = re.compile(r"[0-9a-f]{32}")
LONGEST_FIELD: Final = 16_384  # bytes of one field, and more than any may have characters
MOST_FIELDS: Final = 60
HEAD_BYTES: Final = 4096  # what tells a file's kind
MOST_UPLOADS: Final = 16  # at a time, and …
MOST_UPLOADS_EACH: Final = 4  # … of one network address
UPLOAD_S: Final = 300.0  # 20 MiB take so long at 0.6 Mbit/s
STALL_S: Final = 15.0  # without a byte
DRAINED: Final = 2  # times the limit: so much too much is read, so that a browser sees the answer
UPLOADED_HOURLY: Final = 15  # times the limit, from one network address
LONGEST_NAME: Final = 120

TOO_LARGE: Final = N_("All files together may have %(most)s MB.")
TOO_MANY: Final = N_("At most %(most)s files can be added.")
NOT_TAKEN: Final = N_("Only pictures, PDF, Office, text, ZIP and MP4 files can be added.")
EMPTY: Final = N_("The file is empty.")
TOO_OFTEN: Final = N_("Those were many files at once. Please wait some minutes.")
NO_ROOM: Final = N_("There is no room for files at the moment. Please send it without them.")


def new_form() -> str:
    return secrets.token_hex(16)


# What a file is


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    media_type: str
    extensions: tuple[str, ...]  # the first is given to a name that has none of them


_PICTURES: Final = (
    (b"\x89PNG\r\n\x1a\n", Kind(media_type="image/png", extensions=("png",))),
    (b"\xff\xd8\xff", Kind(media_type="image/jpeg", extensions=("jpg", "jpeg"))),
    (b"GIF87a", Kind(media_type="image/gif", extensions=("gif",))),
    (b"GIF89a", Kind(media_type="image/gif", extensions=("gif",))),
    (b"BM", Kind(media_type="image/bmp", extensions=("bmp",))),
)
_DOCUMENTS: Final = (
    (b"%PDF-", Kind(media_type="application/pdf", extensions=("pdf",))),
    (
        b"PK\x03\x04",
        Kind(media_type="application/zip", extensions=("zip", "docx", "xlsx", "pptx")),
    ),
    (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        Kind(media_type="application/x-ole-storage", extensions=("doc", "xls", "ppt", "msg")),
    ),
)
_WEBP: Final = Kind(media_type="image/webp", extensions=("webp",))
_HEIC: Final = Kind(media_type="image/heic", extensions=("heic", "heif"))
_MP4: Final = Kind(media_type="video/mp4", extensions=("mp4", "mov", "m4v"))
_TEXT: Final = Kind(media_type="text/plain", extensions=("txt", "log", "csv", "ini", "json"))
_STILL_BRANDS: Final = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"})
_CONTROLS: Final = frozenset(range(32)) - {9, 10, 12, 13, 27}


def kind_of(head: bytes) -> Kind | None:
    """Return what a file that begins so is; None if it is nothing that is taken."""
    for magic, kind in (*_PICTURES, *_DOCUMENTS):
        if head.startswith(magic):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return _WEBP
    if head[4:8] == b"ftyp":
        return _HEIC if head[8:12] in _STILL_BRANDS else _MP4
    return _TEXT if _is_text(head) else None


def _is_text(head: bytes) -> bool:
    """Return whether it is text, and no page: HTML, SVG and any other XML begin alike."""
    words = _decoded(head)
    if words is None:
        return False
    return bool(words) and not words.lstrip("\ufeff \t\r\n\f").startswith("<")


def _decoded(head: bytes) -> str | None:
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return head[: len(head) // 2 * 2].decode("utf-16", "ignore")
    if _CONTROLS & set(head):
        return None
    for encoding in ("utf-8", "gb18030"):
        for cut in range(4):  # the head may end within a character
            try:
                return head[: len(head) - cut].decode(encoding)
            except UnicodeDecodeError:
                continue
    return None


def name_for(given: str, kind: Kind) -> str:
    """Return a safe name for a file: no path, nothing that reorders, the extension of its kind."""
    line = clean_line(re.split(r"[/\\]", given)[-1], 4 * LONGEST_NAME)
    name = re.sub(r'[<>:"|?*]+', "_", line).strip(" .")
    stem, dot, extension = name.rpartition(".")
    if not dot or extension.lower() not in kind.extensions:
        stem, extension = name, kind.extensions[0]
    return f"{stem.strip(' .')[:LONGEST_NAME] or 'file'}.{extension.lower()}"


# Reading


class Unusable(Exception):
    """A file that is not kept: why, as a message id with its values."""

    def __init__(self, reason: str, **values: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.values = values


@dataclass(slots=True, kw_only=True)
class Sent:
    """What came of a form. `trouble` is why a file was not kept, "" if all were."""

    form: str = ""
    fields: dict[str, str] = field(default_factory=dict)
    trouble: str = ""
    values: dict[str, str] = field(default_factory=dict)

    def get(self, name: str) -> str:
        return self.fields.get(name, "")


class Intake:
    """Reads forms and files; at most `MOST_UPLOADS` at a time."""

    def __init__(self, *, portal: Portal, blobs: Blobs, settings: PortalSettings) -> None:
        self._portal = portal
        self._blobs = blobs
        self._settings = settings
        self._busy: dict[str, int] = {}

    @asynccontextmanager
    async def _turn(self, client: str) -> AsyncIterator[None]:
        """Hold one of the places for uploads.

        Raises:
            Refused: all are taken, or it took too long.
        """
        mine = self._busy.get(client, 0)
        if mine >= MOST_UPLOADS_EACH or sum(self._busy.values()) >= MOST_UPLOADS:
            raise Refused(Problem(status=503, headers={"Retry-After": "10"}))
        self._busy[client] = mine + 1
        try:
            async with asyncio.timeout(UPLOAD_S):
                yield
        except TimeoutError:
            raise Refused(Problem(status=408, headers={"Connection": "close"})) from None
        finally:
            self._busy[client] -= 1
            if not self._busy[client]:
                del self._busy[client]

    async def read(self, request: web.Request, client: str) -> Sent:
        """Read a form; its files are kept for it.

        Raises:
            Refused: it is no form of ours, too long, or too slow.
        """
        async with self._turn(client):
            if not request.content_type.startswith("multipart/"):
                async with asyncio.timeout(STALL_S):
                    posted = await request.post()
                told = {name: str(value) for name, value in posted.items()}
                return _with_key(Sent(fields=told))
            return await self._read_parts(request, client)

    async def _read_parts(self, request: web.Request, client: str) -> Sent:
        sent, room = Sent(), _Room(self._settings.max_upload_bytes * DRAINED)
        try:
            reader = await request.multipart()
            while (part := await _next(reader)) is not None:
                if not isinstance(part, BodyPartReader) or len(sent.fields) > MOST_FIELDS:
                    raise Refused(Problem(status=400))
                if part.filename is None and part.name != "files":
                    sent.fields[str(part.name)] = await _field(part, room)
                else:
                    await self._file_part(part, _with_key(sent), client, room)
        except (ValueError, BadHttpMessage):  # of aiohttp's parser
            raise Refused(Problem(status=400)) from None
        return _with_key(sent)

    async def _file_part(
        self, part: BodyPartReader, sent: Sent, client: str, room: "_Room"
    ) -> None:
        chunks = _chunks(lambda: part.read_chunk(65_536), room)
        try:
            first = await anext(chunks, b"")
            if first or part.filename:  # else nobody chose a file
                await self.keep(sent.form, part.filename or "", client, _after(first, chunks))
        except (Unusable, TemporaryFailure) as failure:
            unusable = failure if isinstance(failure, Unusable) else Unusable(NO_ROOM)
            sent.trouble, sent.values = unusable.reason, unusable.values
            async for _ in chunks:  # else the browser would never read the answer
                pass

    async def read_file(self, request: web.Request, client: str, form: str, name: str) -> Blob:
        """Keep the file that is the whole body.

        Raises:
            Unusable: it is not kept.
            Refused: too long or too slow.
        """
        if not FORM_KEY.fullmatch(form):
            raise Refused(Problem(status=400))
        async with self._turn(client):
            room = _Room(self._settings.max_upload_bytes * DRAINED)
            chunks = _chunks(lambda: request.content.read(65_536), room)
            try:
                return await self.keep(form, name, client, chunks)
            except Unusable:
                async for _ in chunks:
                    pass
                raise

    async def keep(self, form: str, name: str, client: str, chunks: AsyncIterator[bytes]) -> Blob:
        """Keep a file for a form.

        Raises:
            Unusable: it is nothing that is taken, or too much.
        """
        settings = self._settings
        known = await self._portal.files(form)
        if len(known) > settings.max_files:
            raise Unusable(TOO_MANY, most=str(settings.max_files))
        head = await _head(chunks)
        if not head:
            raise Unusable(EMPTY)
        kind = kind_of(head)
        if kind is None:
            raise Unusable(NOT_TAKEN)
        left = settings.max_upload_bytes - sum(each.size_bytes for each in known)
        pieces = self._limited(_after(head, chunks), left, client)
        try:
            blob = await self._blobs.put_stream(
                pieces, media_type=kind.media_type, name=name_for(name, kind)
            )
        except TemporaryFailure:
            raise Unusable(NO_ROOM) from None
        if not await self._portal.add_file(
            form, blob, most_files=settings.max_files, most_bytes=settings.max_upload_bytes
        ):
            is_many = len(known) >= settings.max_files
            raise self._too_many() if is_many else self._too_large()
        return blob

    async def _limited(
        self, chunks: AsyncIterator[bytes], left: int, client: str
    ) -> AsyncIterator[bytes]:
        counted = 0
        async for chunk in chunks:
            left -= len(chunk)
            counted += len(chunk)
            if left < 0:
                raise self._too_large()
            yield chunk
        hourly = self._settings.max_upload_bytes * UPLOADED_HOURLY
        if not await self._portal.take("upload", client, hourly, counted):
            raise Unusable(TOO_OFTEN)

    def _too_large(self) -> Unusable:
        return Unusable(TOO_LARGE, most=f"{self._settings.max_upload_bytes / (1 << 20):g}")

    def _too_many(self) -> Unusable:
        return Unusable(TOO_MANY, most=str(self._settings.max_files))


class _Room:
    """How much may still be read of a body."""

    def __init__(self, left: int) -> None:
        self._left = left

    def take(self, size: int) -> None:
        """Count what was read.

        Raises:
            Refused: it is far too long.
        """
        self._left -= size
        if self._left < 0:
            raise Refused(Problem(status=413, headers={"Connection": "close"}))


def _with_key(sent: Sent) -> Sent:
    """Return it with the key of its form, which must be known before its files are kept."""
    sent.form = sent.form or sent.get("form")
    if not FORM_KEY.fullmatch(sent.form):
        raise Refused(Problem(status=400, detail="form: not as the page has it"))
    return sent


async def _next(reader: MultipartReader) -> MultipartReader | BodyPartReader | None:
    async with _no_stall():
        return await reader.next()


async def _field(part: BodyPartReader, room: _Room) -> str:
    value = bytearray()
    async for chunk in _chunks(lambda: part.read_chunk(8192), room):
        value += chunk
        if len(value) > LONGEST_FIELD * 4:
            raise Refused(Problem(status=413, headers={"Connection": "close"}))
    return value.decode("utf-8", "replace")


async def _chunks(read: Callable[[], Awaitable[bytes]], room: _Room) -> AsyncIterator[bytes]:
    while True:
        async with _no_stall():
            chunk = await read()
        if not chunk:
            return
        room.take(len(chunk))
        yield chunk


@asynccontextmanager
async def _no_stall() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(STALL_S):
            yield
    except TimeoutError:
        raise Refused(Problem(status=408, headers={"Connection": "close"})) from None


async def _head(chunks: AsyncIterator[bytes]) -> bytes:
    head = b""
    while len(head) < HEAD_BYTES and (chunk := await anext(chunks, b"")):
        head += chunk
    return head


async def _after(first: bytes, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if first:
        yield first
    async for chunk in chunks:
        yield chunk


# A report


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What somebody fills in, as they wrote it."""

    name: str = ""
    phone: str = ""
    mail: str = ""
    department: str = ""
    site: str = ""
    device: str = ""
    version: str = ""
    what: str = ""
    error: str = ""
    since: str = ""  # as `<input type="datetime-local">` has it, in the service's zone
    impact: str = "person"
    wished: str = ""


IMPACTS: Final[Mapping[str, tuple[Impact, str]]] = {
    "person": (Impact.PERSON, N_("Only me")),
    "department": (Impact.DEPARTMENT, N_("My department")),
    "company": (Impact.COMPANY, N_("The whole company")),
}
LONGEST: Final[Mapping[str, int]] = {
    "name": 80, "phone": 40, "mail": 254, "department": 80, "site": 32, "device": 120,
    "version": 120, "what": 4000, "error": 4000, "since": 20, "impact": 12, "wished": 120,
}  # fmt: skip
_LONG_TEXTS: Final = frozenset({"what", "error"})
_EARLY: Final = timedelta(days=3650)
_LABELS: Final = (
    ("name", N_("Name")), ("phone", N_("Phone")), ("mail", N_("E-mail")),
    ("department", N_("Department")), ("site", N_("Site")), ("device", N_("Device or system")),
    ("version", N_("Version")), ("error", N_("Error message")), ("since", N_("Since when")),
    ("impact", N_("Who is affected")), ("wished", N_("Wanted by")),
)  # fmt: skip
# Where a fault is shown, and what it says.
Faults = dict[str, str]


def report_of(sent: Sent) -> Report:
    """Return what was filled in, cut to what can be stored."""
    return Report(**{name: _cleaned(name, sent.get(name)) for name in LONGEST})


def _cleaned(name: str, value: str) -> str:
    if name not in _LONG_TEXTS:
        return clean_line(value, LONGEST[name])
    lines = clean_text(value).replace("\r\n", "\n").replace("\r", "\n").strip()
    return lines[: LONGEST[name]].rstrip()


def faults(report: Report, sites: Mapping[str, str], zone: ZoneInfo, now: datetime) -> Faults:
    """Return what is wrong with a report, by field, in the order of the form."""
    at = happened_at(report, zone)
    is_past = at is not None and now - _EARLY < at < now + timedelta(hours=1)
    is_number = bool(phone.address(report.phone))
    checks = (
        ("what", report.what, N_("Please tell us what happened.")),
        ("since", is_past, N_("Please give the day and time when it began.")),
        ("impact", report.impact in IMPACTS, N_("Please choose who is affected.")),
        ("site", not sites or report.site in sites, N_("Please choose where it is.")),
        ("name", report.name, N_("Please tell us your name.")),
        ("phone", report.phone or report.mail,
         N_("Please give a phone number or an e-mail address.")),
        ("phone", is_number or not report.phone,
         N_("This is not a phone number. With a landline add the area code.")),
        ("mail", not report.mail or is_mail(report.mail), N_("This is not an e-mail address.")),
    )  # fmt: skip
    found: Faults = {}
    for name, holds, message in checks:
        if not holds:
            found.setdefault(name, message)
    return found


def happened_at(report: Report, zone: ZoneInfo) -> datetime | None:
    try:
        return datetime.fromisoformat(report.since).replace(tzinfo=zone)
    except ValueError:
        return None


def sender_of(report: Report, *, texts: bool) -> Address:
    """Return the address that a report counts as from: the one where it can be confirmed."""
    number = phone.address(report.phone)
    by_phone = Address(kind="phone", value=number)
    by_mail = Address(kind="mail", value=report.mail.lower())
    if number and (not report.mail or (texts and is_mobile(number))):
        return by_phone
    return by_mail


def description(report: Report, zone: ZoneInfo) -> Description:
    """Return the standard information of the ticket (requirement B1)."""
    return Description(
        title=title_of(report),
        what=report.what,
        happened_at=happened_at(report, zone),
        device=report.device or None,
        version=report.version or None,
        error=report.error or None,
        impact=IMPACTS[report.impact][0],
        wished=report.wished or None,
    )


def title_of(report: Report) -> str:
    first = next((line.strip() for line in report.what.splitlines() if line.strip()), "")
    return clean_line(first, 80)


def words_of(report: Report, say: Say, sites: Mapping[str, str]) -> str:
    """Return a report as one text, always in the same form: what happened, then the rest."""
    shown = replace(
        report,
        site=sites.get(report.site, report.site),
        since=report.since.replace("T", " "),
        impact=say(IMPACTS[report.impact][1]),
    )
    colon = say(N_(": "))
    told = [
        f"{say(label)}{colon}{value}" for name, label in _LABELS if (value := getattr(shown, name))
    ]
    return "\n".join([report.what, "", *told])


def digest(*parts: str) -> str:
    """Return what tells the words of a form from other words sent by the same form."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()[:12]
