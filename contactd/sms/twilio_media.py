"""Fetches the files of a text (MMS) from Twilio, and from nobody else.

Where a file lies is said in a request that Twilio has signed; all the same only `media_hosts` are
asked, by https, and the account's credentials go to the API's own host alone: it redirects to a
store whose addresses carry a signature of their own.
"""

import asyncio
import mimetypes
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from contactd.errors import TemporaryFailure
from contactd.log import get_logger
from contactd.settings import TwilioSettings
from contactd.sms.gateway import Media
from contactd.sms.twilio_api import basic

log = get_logger()

MOST_FILES: Final = 10  # Twilio, Media resource
MOST_TOGETHER: Final = 20 << 20  # bytes of one text
AT_ONCE: Final = 2  # texts whose files are being fetched
ALL_S: Final = 8.0  # for all of a text: Twilio waits 15 s for the answer (11205)
MOST_REDIRECTS: Final = 3
_REDIRECTIONS: Final = frozenset({301, 302, 303, 307, 308})
_TYPE: Final = re.compile(r"[a-z0-9.+-]{1,60}/[a-z0-9.+-]{1,60}")
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """Where a file of a text lies."""

    url: str
    media_type: str

    @property
    def path(self) -> str:
        """Return what an operator finds it by at Twilio's: `/Messages/MM…/Media/ME…`."""
        try:
            path = urlsplit(self.url).path[:200]
        except ValueError:
            return ""
        _, begin, rest = path.partition("/Messages/")
        return begin + rest if begin else path


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    files: tuple[Media, ...]
    missed: tuple[str, ...]  # the paths of those that could not be fetched


def located(fields: Mapping[str, str]) -> list[Located]:
    """Return the files that a webhook names: `MediaUrl0`, `MediaContentType0`, …"""
    told = fields.get("NumMedia", "")
    count = int(told) if told.isdecimal() and len(told) < 4 else 0
    return [
        Located(
            url=fields.get(f"MediaUrl{n}", ""), media_type=fields.get(f"MediaContentType{n}", "")
        )
        for n in range(count)
    ]


class MediaStore:
    """Where the files of texts lie."""

    def __init__(self, settings: TwilioSettings) -> None:
        self._settings = settings
        self._api = URL(settings.api_url).origin()
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._client: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        # `fetch` keeps the time for all files; two limits that end at once hide each other.
        async with aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=None), cookie_jar=aiohttp.DummyCookieJar()
        ) as client:
            self._client = client
            try:
                yield
            finally:
                self._client = None

    async def fetch(self, wanted: Sequence[Located]) -> Fetched:
        """Fetch files, as many as the limits of size, number and time allow. Never raises."""
        if not wanted:  # most texts: they do not wait for the files of others
            return Fetched(files=(), missed=())
        files: list[Media] = []
        missed: list[str] = []
        waiting = list(wanted)
        try:
            async with asyncio.timeout(ALL_S), self._turns:
                while waiting and len(files) + len(missed) < MOST_FILES:
                    room = MOST_TOGETHER - sum(len(file.content) for file in files)
                    file = await self._try(waiting[0], room)
                    wanted_path = waiting.pop(0).path
                    if file is None:
                        missed.append(wanted_path)
                    else:
                        files.append(file)
        except TimeoutError:
            log.warning("text.file_missed", gateway="twilio", reason="no time left")
        missed += [each.path for each in waiting]
        return Fetched(files=tuple(files), missed=tuple(missed))

    async def _try(self, wanted: Located, room: int) -> Media | None:
        try:
            return await self._get(wanted, room)
        except TemporaryFailure as failure:
            reason = str(failure)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            reason = type(error).__name__
        log.warning("text.file_missed", gateway="twilio", reason=reason)
        return None

    async def _get(self, wanted: Located, room: int) -> Media:
        """Return a file.

        Raises:
            TemporaryFailure, aiohttp.ClientError, OSError, ValueError: it cannot be fetched.
        """
        if self._client is None:
            raise TemporaryFailure("the gateway is not running")
        url = URL(wanted.url)
        most = min(room, self._settings.most_media_bytes)
        for _ in range(MOST_REDIRECTS + 1):
            async with self._client.get(
                url,
                headers={"Accept-Encoding": "identity", **self._credentials(url)},
                allow_redirects=False,
            ) as answer:
                if answer.status in _REDIRECTIONS:
                    url = url.join(URL(answer.headers.get("Location", "")))
                    continue
                if answer.status != 200:
                    raise TemporaryFailure(f"the answer is {answer.status}")
                content = await _content(answer, most)
                return _media(wanted, answer.headers.get("Content-Type", ""), content)
        raise TemporaryFailure("redirected too often")

    def _credentials(self, url: URL) -> Mapping[str, str]:
        """Return what to show to the host of a URL.

        Raises:
            TemporaryFailure, ValueError: files do not come from there.
        """
        if url.origin() == self._api and url.user is None:
            return {"Authorization": basic(self._settings)}
        is_secure = url.scheme == "https" and url.port == 443
        is_trial = self._api.scheme == url.scheme == "http"
        is_known = url.host in self._settings.media_hosts and url.user is None
        if not (is_known and (is_secure or is_trial)):
            raise TemporaryFailure("not from there: see sms.twilio.media_hosts")
        return {}


async def _content(answer: aiohttp.ClientResponse, most: int) -> bytes:
    """Return a body.

    Raises:
        TemporaryFailure: it is longer than `most`.
    """
    content = bytearray()
    async for piece in answer.content.iter_chunked(1 << 16):
        content += piece
        if len(content) > most:
            raise TemporaryFailure("too large: see sms.twilio.most_media_bytes")
    return bytes(content)


def _media(wanted: Located, told: str, content: bytes) -> Media:
    kinds = (each.partition(";")[0].strip().lower() for each in (told, wanted.media_type))
    kind = next((each for each in kinds if _TYPE.fullmatch(each)), "application/octet-stream")
    last = wanted.path.rstrip("/").rpartition("/")[2]
    name = last if _NAME.fullmatch(last) else "file"
    return Media(
        content=content, media_type=kind, name=name + (mimetypes.guess_extension(kind) or "")
    )
