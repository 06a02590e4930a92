"""Names of files that came by mail: what senders wrote, made safe to store and show (pure)."""

import mimetypes
import re
import unicodedata
from collections.abc import Mapping
from typing import Final

from contactd.mail import charsets

NAME_LIMIT: Final = 120  # characters, its extension included
BYTES_LIMIT: Final = 240  # in UTF-8; file systems end at 255
EXTENSION_LIMIT: Final = 16  # characters

# Not allowed in names on Windows; / and \ separate folders.
_RESERVED: Final = re.compile(r'[<>:"|?*]+')
# Devices of DOS, with any extension ("Naming Files, Paths, and Namespaces", Microsoft).
_DEVICE: Final = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d|conin\$|conout\$)(?:\.|\Z)", re.I)
_EXTENSION: Final = re.compile(rf"\.[^.\s]{{1,{EXTENSION_LIMIT - 1}}}\Z")
_INVISIBLE: Final = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufff9-\ufffb\u00ad]")
# Without the system's files: a name must not depend on the machine.
_TYPES: Final = mimetypes.MimeTypes(filenames=())
_EXTENSIONS: Final[Mapping[str, str]] = {
    "application/octet-stream": ".bin", "application/ms-tnef": ".dat", "text/plain": ".txt",
    "application/pgp-signature": ".asc", "application/pkcs7-signature": ".p7s",
    "application/x-pkcs7-signature": ".p7s", "application/pkcs7-mime": ".p7m",
    "application/x-pkcs7-mime": ".p7m", "application/pgp-encrypted": ".asc",
    "text/calendar": ".ics", "message/rfc822": ".eml", "message/global": ".eml",
    "image/jpeg": ".jpg", "image/jpg": ".jpg", "image/pjpeg": ".jpg", "image/tiff": ".tif",
    "image/webp": ".webp", "image/heic": ".heic", "text/vcard": ".vcf", "text/x-vcard": ".vcf",
    "text/html": ".html", "text/rtf": ".rtf", "application/rtf": ".rtf", "audio/amr": ".amr",
    "audio/mpeg": ".mp3", "video/mp4": ".mp4", "application/zip": ".zip",
    "application/x-zip-compressed": ".zip", "application/gzip": ".gz",
}  # fmt: skip
# What a nameless file is called; others are "attachment".
_STEMS: Final[Mapping[str, str]] = {
    "text/calendar": "invitation", "message/rfc822": "message", "message/global": "message",
    "message/delivery-status": "delivery-status", "text/rfc822-headers": "headers",
    "message/disposition-notification": "disposition", "application/pgp-signature": "signature",
    "application/pkcs7-signature": "smime", "application/x-pkcs7-signature": "smime",
    "application/pkcs7-mime": "smime", "application/x-pkcs7-mime": "smime",
    "message/feedback-report": "report", "application/ms-tnef": "winmail",
}  # fmt: skip


def safe_name(given: str, media_type: str) -> str:
    """Return a name for a file: never empty, no path, nothing that acts or reorders.

    A name that says nothing is made of the type. The extension stays, however long the name is:
    it is what people go by.
    """
    name = unicodedata.normalize("NFC", _INVISIBLE.sub("", charsets.one_line(given[:4096])))
    name = re.split(r"[/\\]", name.rstrip("/\\ "))[-1]
    name = _RESERVED.sub("_", name).strip(" .")
    if not name.strip("_ ."):
        return nameless(media_type)
    if _DEVICE.match(name):
        name = f"_{name}"
    return _cut(name)


def nameless(media_type: str) -> str:
    """Return the name of a file of that type that has none."""
    guessed = _EXTENSIONS.get(media_type) or _TYPES.guess_extension(media_type, strict=False)
    if guessed is None and media_type.startswith(("text/", "message/")):
        guessed = ".txt"
    if guessed is None and media_type.startswith("image/"):
        subtype = media_type.partition("/")[2].removeprefix("x-")
        guessed = f".{subtype}" if re.fullmatch(r"[a-z0-9]{2,5}", subtype) else None
    kind = "image" if media_type.startswith("image/") else "attachment"
    return _STEMS.get(media_type, kind) + (guessed or ".bin")


def type_of(name: str) -> str:
    """Return the media type that a file's name suggests."""
    return _TYPES.guess_type(name, strict=False)[0] or "application/octet-stream"


def _cut(name: str) -> str:
    if len(name) <= NAME_LIMIT and len(name.encode()) <= BYTES_LIMIT:
        return name
    found = _EXTENSION.search(name)
    extension = found[0] if found else ""
    stem = name[: -len(extension) or None][: NAME_LIMIT - len(extension)]
    room = BYTES_LIMIT - len(extension.encode())
    return stem.encode()[:room].decode("utf-8", "ignore").rstrip(" .") + extension
