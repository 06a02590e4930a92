"""What a browser keeps for us between two pages: readable to it, but nobody can change it."""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

LONGEST: Final = 3_000  # browsers keep 4 KiB of a cookie


def seal(key: bytes, purpose: str, values: Mapping[str, Any], until: datetime) -> str:
    """Return `values` as a cookie's value that `unseal` takes back until `until`."""
    body = json.dumps({**values, "until": until.timestamp()}, ensure_ascii=False).encode()
    return f"{_encoded(body)}.{_encoded(_mac(key, purpose, body))}"


def unseal(key: bytes, purpose: str, text: str, now: datetime) -> Mapping[str, Any] | None:
    """Return what was sealed for this purpose; None if it was not by us, or is over."""
    body, _, mac = text.partition(".")
    try:
        found, shown = _decoded(body), _decoded(mac)
    except (ValueError, binascii.Error):
        return None
    if len(text) > LONGEST or not hmac.compare_digest(shown, _mac(key, purpose, found)):
        return None
    values: dict[str, Any] = json.loads(found)
    return values if values.pop("until") > now.timestamp() else None


def _mac(key: bytes, purpose: str, body: bytes) -> bytes:
    return hmac.digest(key, f"sealed:{purpose}:".encode() + body, hashlib.sha256)


def _encoded(body: bytes) -> str:
    return base64.urlsafe_b64encode(body).decode().rstrip("=")


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
