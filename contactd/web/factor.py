"""The second factor: codes of six digits that a telephone shows (TOTP, RFC 6238).

30 s a step, SHA-1, six digits: what every authenticator takes. One step early or late is accepted
(section 5.2); which step a code was of is told, so that none is taken twice.
"""

import base64
import binascii
import hmac
from datetime import datetime
from typing import Final

import pyotp
import segno
from markupsafe import Markup

KEY_BYTES: Final = 20  # RFC 4226 section 4, R6
STEPS_OFF: Final = (0, -1, 1)


def new_key() -> str:
    """Return a new secret as authenticators take it when it is typed (base32)."""
    return pyotp.random_base32()


def key_bytes(text: str) -> bytes | None:
    """Return the secret that `text` is, None if it is none of `new_key`."""
    try:
        key = base64.b32decode(text)
    except (binascii.Error, ValueError):
        return None
    return key if len(key) == KEY_BYTES else None


def step_of(key: bytes, code: str, now: datetime) -> int | None:
    """Return the time step whose code this is, None if it is none of about now."""
    codes = pyotp.TOTP(base64.b32encode(key).decode())
    typed = "".join(code.split())
    found = None
    for off in STEPS_OFF:
        shown = codes.at(now, counter_offset=off)
        if hmac.compare_digest(shown.encode(), typed.encode("utf-8", "replace")):
            found = codes.timecode(now) + off
    return found


def picture(key: str, user: str, service: str) -> Markup:
    """Return the QR code that an authenticator reads, as an SVG that needs no style."""
    address = pyotp.TOTP(key).provisioning_uri(name=user, issuer_name=service)
    drawn = segno.make(address, error="m", micro=False).svg_inline(
        scale=5, dark="#000", light="#fff", border=4, omitsize=True, svgclass="qr", lineclass=None
    )
    return Markup(drawn)  # noqa: S704 - segno's own drawing, with nothing of the user's in it


def grouped(key: str) -> str:
    """Return a secret in groups of four, as people type it."""
    return " ".join(key[at : at + 4] for at in range(0, len(key), 4))
