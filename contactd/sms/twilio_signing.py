"""Whether Twilio has made a request: its signature over URL and body (pure).

Source: Twilio, "Webhook security". HMAC-SHA1 with the account's auth token over the URL as Twilio
called it, followed by each name and value of the form, in order of the names. A body that is no
form has its SHA-256 in the URL, as `bodySHA256`, and only the URL is signed.
"""

import base64
import hashlib
import hmac
import json
import re
from binascii import unhexlify
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit, urlunsplit

HEADER: Final = "X-Twilio-Signature"
FORM: Final = "application/x-www-form-urlencoded"
JSON: Final = "application/json"
MOST_FIELDS: Final = 200  # a text with ten files has about 45
_PORTS: Final = {"https": 443, "http": 80}

_QUOTED: Final = re.compile(rb"(?:%[0-9A-Fa-f]{2})+")

Pairs = Sequence[tuple[str, str]]


class Forged(Exception):
    """It is not shown that Twilio has made the request."""


def verified(token: str, url: str, kind: str, body: bytes, signature: str) -> Mapping[str, str]:
    """Return the fields of a request's body.

    `url` is the one that Twilio called, with its query, as it wrote it; `kind` is the body's
    media type. Of a field that comes twice the first counts.

    Raises:
        Forged: it is not signed, or not so, or has a body that no signature covers.
    """
    match kind:
        case "application/x-www-form-urlencoded":
            pairs = _form(body)
            _verify(token, url, pairs, signature)
        case "application/json":
            _verify_hash(url, body)
            _verify(token, url, (), signature)
            pairs = _json(body)
        case _:
            raise Forged("its body is neither a form nor JSON")
    fields: dict[str, str] = {}
    for name, value in pairs:
        fields.setdefault(name, value)
    return fields


def signature_of(token: str, url: str, pairs: Pairs) -> str:
    """Return the signature of a URL and a form; a value that a name has twice counts once."""
    signed = url + "".join(map("".join, sorted(set(pairs))))
    return base64.b64encode(hmac.digest(token.encode(), _bytes(signed), "sha1")).decode()


def _verify(token: str, url: str, pairs: Pairs, signature: str) -> None:
    # Twilio's own libraries try both: "sig generation on back end is inconsistent".
    told = _bytes(signature)
    if not signature:
        raise Forged("its signature is missing")
    if not any(  # which of the two it is, is no secret
        hmac.compare_digest(signature_of(token, each, pairs).encode(), told)
        for each in _spellings(url)
    ):
        raise Forged("its signature is wrong")


def _spellings(url: str) -> Iterator[str]:
    """Yield a URL as it was called, then with a port if it had none, without if it had one."""
    yield url
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return
    bare = parts.netloc.rpartition(":")[0] if port is not None else parts.netloc
    other = f"{bare}:{_PORTS.get(parts.scheme, 443)}" if port is None else bare
    yield urlunsplit(parts._replace(netloc=other))


def _verify_hash(url: str, body: bytes) -> None:
    told = parse_qs(urlsplit(url).query).get("bodySHA256", [""])[0]
    if not hmac.compare_digest(hashlib.sha256(body).hexdigest().encode(), _bytes(told.lower())):
        raise Forged("its body has no hash in the URL, or another")


def _bytes(text: str) -> bytes:
    """Return what a peer wrote as bytes again, whatever it was."""
    return text.encode("utf-8", "surrogatepass")


def _form(body: bytes) -> Pairs:
    """Return the names and values of a form (WHATWG URL, section 5.1).

    `parse_qsl` says the same and takes twice as long, most of it for Chinese: each of its signs is
    nine characters of a form.
    """
    pieces = [piece for piece in body.split(b"&") if piece]
    if len(pieces) > MOST_FIELDS:
        raise Forged("its body has too many fields")
    try:
        return [
            (_unquoted(name), _unquoted(value))
            for name, _, value in (piece.partition(b"=") for piece in pieces)
        ]
    except UnicodeDecodeError:
        raise Forged("its body is no form in UTF-8") from None


def _unquoted(part: bytes) -> str:
    plain = part.replace(b"+", b" ")
    return (_QUOTED.sub(_bytes_of, plain) if b"%" in plain else plain).decode()


def _bytes_of(quoted: re.Match[bytes]) -> bytes:
    return unhexlify(quoted[0].replace(b"%", b""))


def _json(body: bytes) -> Pairs:
    """Return the plain values of an object; the body is known to be Twilio's."""
    try:
        told: Any = json.loads(body)
    except (ValueError, RecursionError):
        return ()
    if not isinstance(told, dict):
        return ()
    return [(k, str(v)) for k, v in told.items() if isinstance(v, str | int)][:MOST_FIELDS]
