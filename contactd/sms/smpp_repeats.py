"""Which text comes once more, and which one was sent twice (pure).

SMPP gives a text that comes in no id, so two equal deliver_sm are one text that the SMSC repeats,
or two that somebody sent ("1", "好"). The second is a repetition only if the SMSC may not know that
we have the first:

* it came over a link that has ended before the SMSC showed that it had read our acknowledgement, by
  answering something that we asked later; or
* we refused it; or
* it has been in hand, or was, for more than `LATE`, when an SMSC's own patience may have ended;

and all that no longer than `DOUBT` ago, and once for each time that it came.

This is kept in memory: what was not yet acknowledged when contactd crashed may come in twice. It is
never the other way round: no text is taken for another one's repetition because of a restart.
"""

import hashlib
from collections import deque
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count
from typing import Final

from contactd.sms.smpp_pdu import ShortMessage

LATE: Final = timedelta(seconds=5)  # SMSCs wait 10 s and more for deliver_sm_resp
DOUBT: Final = timedelta(minutes=15)
REMEMBERED: Final = 10_000  # texts


@dataclass(slots=True)
class Progress:
    """How far a link has come, as sequence numbers of our requests; it outlives the link."""

    asked: int = 0
    answered: int = 0  # the highest: all that we wrote before it has been read over there


@dataclass(slots=True, kw_only=True, eq=False)
class Came:
    """A text that came in, while it may come once more."""

    key: str
    id: str
    at: datetime
    over: Progress
    mark: int | None = None  # our last request before we acknowledged it
    is_late: bool = False
    is_refused: bool = False

    def answered(self, now: datetime, *, is_taken: bool) -> None:
        """Note that it is about to be acknowledged, or refused."""
        self.mark = self.over.asked
        self.is_late = now - self.at > LATE
        self.is_refused = not is_taken

    def may_come_again(self, over: Progress, now: datetime) -> bool:
        """Return whether an equal text over a link, the same one or a later one, may be this."""
        if now - self.at > DOUBT:
            return False
        if self.is_refused or self.is_late or (self.mark is None and now - self.at > LATE):
            return True
        if self.over is over:
            return False
        return self.mark is None or self.over.answered <= self.mark


class Repeats:
    """Gives each text that comes in its id."""

    def __init__(self) -> None:
        self._came: deque[Came] = deque()
        self._by_key: dict[str, list[Came]] = {}
        self._numbers = count(1)

    def came(self, message: ShortMessage, over: Progress, now: datetime) -> Came:
        """Note a text; its `id` is that of the one that it repeats, or a new one."""
        key = _key(message)
        earlier = [each for each in self._by_key.get(key, ()) if each.may_come_again(over, now)]
        if earlier:
            self._forget(earlier[0])
        # The moment is in it, so that it is another one after a restart.
        new = f"{key}-{now:%Y%m%d%H%M%S%f}-{next(self._numbers)}"
        came = Came(key=key, id=earlier[0].id if earlier else new, at=now, over=over)
        self._came.append(came)
        self._by_key.setdefault(key, []).append(came)
        while len(self._came) > REMEMBERED or now - self._came[0].at > DOUBT:
            self._forget(self._came[0])
        return came

    def _forget(self, came: Came) -> None:
        self._came.remove(came)
        same = self._by_key[came.key]
        same.remove(came)
        if not same:
            del self._by_key[came.key]


def _key(message: ShortMessage) -> str:
    """Return the same for the same text of the same sender; no words are in it."""
    said = (message.source, message.destination, message.esm_class, message.data_coding,
            message.content, sorted(message.tlvs.items()))  # fmt: skip
    return hashlib.sha256(repr(said).encode()).hexdigest()[:24]
