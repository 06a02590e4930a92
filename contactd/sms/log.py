"""A stand-in for a gateway: texts go to the log, to the demo's page, and to a file if one is named.

It is the gateway called `log`. Nobody gets these texts. The log has no words and no numbers; the
file has both, for trials of one's own.
"""

import asyncio
import json
import os
import re
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from contactd.clock import Clock
from contactd.errors import PermanentFailure, TemporaryFailure
from contactd.log import get_logger
from contactd.routing import words
from contactd.routing.notify import Notification, Trace
from contactd.sms.segments import fitting, segment_count
from contactd.tickets.phone import mask

log = get_logger()

_NUMBER: Final = re.compile(r"\+?[0-9]{3,15}")  # E.164, or an extension; RFC 3966's signs are gone


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptText:
    ref: str
    at: datetime
    ticket: str
    recipient: str  # engineer's key, …
    address: str
    reason: str
    text: str


class LogTexts:
    """A `Notifier`. The last `keep` texts stay in memory, for `kept()`."""

    def __init__(self, clock: Clock, *, keep: int, path: Path | None = None) -> None:
        self._clock = clock
        self._keep = keep
        self._path = path
        self._kept: OrderedDict[str, KeptText] = OrderedDict()
        self._turn = asyncio.Lock()  # one line of the file after the other

    async def send(self, notification: Notification) -> None:
        """Note the text; the second time for one `ref` nothing happens."""
        if not _NUMBER.fullmatch(notification.address):
            raise PermanentFailure("a text needs a telephone number")
        text = fitting(words.texts(notification))
        async with self._turn:
            if notification.ref in self._kept:
                return
            kept = KeptText(
                ref=notification.ref,
                at=self._clock.now(),
                ticket=notification.ticket,
                recipient=notification.recipient,
                address=notification.address,
                reason=notification.reason.value,
                text=text,
            )
            if self._path is not None:
                await asyncio.to_thread(_append, self._path, kept)
            self._kept[kept.ref] = kept
            while len(self._kept) > self._keep:
                self._kept.popitem(last=False)
        log.info(
            "text.sent", ref=kept.ref, gateway="log", ticket=kept.ticket, reason=kept.reason,
            recipient=kept.recipient, to=mask(kept.address), segments=segment_count(text),
        )  # fmt: skip

    async def find(self, ref: str) -> Trace:
        """Look into memory, then into the file; without a file a restart forgets."""
        if ref in self._kept:
            return Trace.SENT
        if self._path is None:
            return Trace.UNKNOWN
        async with self._turn:
            known = await asyncio.to_thread(_has, self._path, ref)
        return Trace.SENT if known else Trace.NEVER

    async def stop(self, refs: Collection[str]) -> None:
        """Do nothing: a text that has gone out stays out."""

    def kept(self) -> tuple[KeptText, ...]:
        """Return the last texts, the latest first."""
        return tuple(reversed(self._kept.values()))


def _append(path: Path, kept: KeptText) -> None:
    """Write one line and bring it to the disk: `find` may then say that others never were sent."""
    line = json.dumps({**asdict(kept), "at": kept.at.isoformat()}, ensure_ascii=False) + "\n"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, line.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise TemporaryFailure(f"sms.log_file: {path}: {error.strerror}") from error


def _has(path: Path, ref: str) -> bool:
    try:
        with path.open(encoding="utf-8") as lines:
            return any(_ref(line) == ref for line in lines)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise TemporaryFailure(f"sms.log_file: {path}: {error.strerror}") from error


def _ref(line: str) -> object:
    try:
        return json.loads(line)["ref"]
    except (ValueError, KeyError, TypeError):  # cut short by a full disk
        return None
