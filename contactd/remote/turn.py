"""STUN and TURN servers for two browsers that cannot reach each other (pure).

A TURN relay of ours is coturn with `use-auth-secret`: whoever shows a name that is the end of its
own validity, and the HMAC of that name, is let in (draft-uberti-behave-turn-rest-00). So pages get
credentials that end by themselves, and the secret never leaves the service.
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from contactd.settings import RemoteSettings


def credentials(secret: str, who: str, until: datetime) -> tuple[str, str]:
    """Return the name and the password with which a relay lets `who` in until then."""
    name = f"{int(until.timestamp())}:{who}"
    made = hmac.new(secret.encode(), name.encode(), hashlib.sha1).digest()  # what coturn computes
    return name, base64.b64encode(made).decode()


def ice_servers(
    settings: RemoteSettings, session_id: int, now: datetime
) -> tuple[Mapping[str, Any], ...]:
    """Return the `iceServers` for a page of one session (W3C WebRTC, RTCConfiguration).

    They last as long as the session can, for a relay asks again when a call is half over.
    """
    found: list[Mapping[str, Any]] = []
    if settings.stun:
        found.append({"urls": list(settings.stun)})
    if settings.turn:
        lasts = timedelta(seconds=settings.wait_s + settings.frozen_s + settings.total_s)
        secret = settings.turn_secret.get_secret_value()
        name, password = credentials(secret, str(session_id), now + lasts)
        found.append({"urls": list(settings.turn), "username": name, "credential": password})
    return tuple(found)
