"""gzip for what the pages load: files once at the start, everything else as it is sent.

Compressing what is encrypted afterwards can give a secret away if somebody can have their own
words put beside it and see the lengths (BREACH). There is no such secret in our pages: the
session is a cookie, which is no part of the body and is not sent along when another site asks
(SameSite), and forms carry no token against CSRF: where they come from tells (see
`httpd._refuse_foreign_origin`). Tokens and codes are shown once, to who has just asked for them.
"""

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from mimetypes import guess_type
from pathlib import Path
from typing import Final

LEAST_BYTES: Final = 700  # less fits into one packet anyhow
LEVEL: Final = 5  # of pages; what 9 saves more is not worth the time
MOST_BYTES: Final = 8 << 20  # a larger body is rare, and no page
_TEXTUAL: Final = frozenset(
    {
        "application/json",
        "application/javascript",
        "application/problem+json",
        "application/manifest+json",
        "application/openapi+json",
        "image/svg+xml",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticFile:
    """A file in memory. `packed` is empty where gzip saves nothing."""

    media_type: str
    plain: bytes
    packed: bytes
    etag: str  # of the plain one, without quotes


def is_worth_it(media_type: str, size: int) -> bool:
    """Return whether a body of this kind and size should be compressed."""
    textual = media_type.startswith("text/") or media_type in _TEXTUAL
    return textual and media_type != "text/event-stream" and LEAST_BYTES <= size <= MOST_BYTES


def accepts_gzip(headers: Mapping[str, str]) -> bool:
    """Return whether an answer may be gzip (RFC 9110 section 12.5.3)."""
    weights: dict[str, str] = {}
    for part in headers.get("Accept-Encoding", "").lower().split(","):
        name, _, weight = part.partition(";")
        weights[name.strip()] = weight.replace(" ", "")
    weight = weights.get("gzip", weights.get("*", "q=0"))
    return weight not in ("q=0", "q=0.0", "q=0.00", "q=0.000")


def packed(data: bytes, level: int = LEVEL) -> bytes:
    return gzip.compress(data, level, mtime=0)


def read_folder(folder: Path) -> dict[str, StaticFile]:
    """Return every file below `folder` by its path in it; hidden ones are left out."""
    return {
        path.relative_to(folder).as_posix(): _read(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def _read(path: Path) -> StaticFile:
    plain = path.read_bytes()
    media_type = guess_type(path.name)[0] or "application/octet-stream"
    small = packed(plain, 9) if is_worth_it(media_type, len(plain)) else b""
    return StaticFile(
        media_type=media_type,
        plain=plain,
        packed=small if len(small) < len(plain) else b"",
        etag=hashlib.sha256(plain).hexdigest()[:16],
    )
