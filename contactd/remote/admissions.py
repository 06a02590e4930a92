"""Admissions: what a page shows in the first frame of a WebSocket, so that no address holds it.

A page fetches one by a form, with its cookie and from our own site; it is good for one session,
one person, one purpose, once, for a minute. They are kept in memory only: after a restart each
page fetches another.
"""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from contactd.clock import Clock

LASTS: Final = timedelta(seconds=60)
MOST: Final = 10_000  # at a time; the oldest go first
MOST_OF_ONE: Final = 20  # of one person for one session


class Door(StrEnum):
    """What an admission opens."""

    SCREEN = "screen"  # the picture, on the engineer's page
    DESK = "desk"  # what goes on, on the engineer's page
    SHARE = "share"  # the same, on the user's


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """`person` is `requester`, or the name with which an engineer logs in; `name` is shown."""

    session: int
    person: str
    door: Door
    name: str
    until: datetime


class Admissions:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._given: dict[bytes, Admission] = {}  # in the order in which they end

    def give(self, session_id: int, person: str, purpose: str, name: str = "") -> str:
        """Return the secret of one more admission. Who may have it, the caller has seen to."""
        door, now = Door(purpose), self._clock.now()
        self._forget(now)
        same = [
            key
            for key, each in self._given.items()
            if each.session == session_id and each.person == person
        ]
        for key in same[: len(same) + 1 - MOST_OF_ONE] if len(same) >= MOST_OF_ONE else ():
            del self._given[key]
        secret = secrets.token_urlsafe(32)
        self._given[_hash(secret)] = Admission(
            session=session_id, person=person, door=door, name=name, until=now + LASTS
        )
        while len(self._given) > MOST:
            del self._given[next(iter(self._given))]
        return secret

    def take(self, secret: str, door: Door) -> Admission | None:
        """Use an admission; None if there is none of it. One shown at a wrong door is lost, too."""
        found = self._given.pop(_hash(secret), None)
        if found is None or found.door is not door or found.until <= self._clock.now():
            return None
        return found

    def _forget(self, now: datetime) -> None:
        for key in [key for key, each in self._given.items() if each.until <= now]:
            del self._given[key]


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "replace")).digest()
