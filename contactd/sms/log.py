"""A stand-in for a provider: nobody gets its texts. They are on the page of texts, and in a file
or on the console if the settings say so: for trials and the demo.

The log has no words and no numbers.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

from contactd.clock import Clock
from contactd.errors import TemporaryFailure
from contactd.httpd import Route
from contactd.routing.notify import Trace
from contactd.service import Health, HealthState
from contactd.settings import LogSettings
from contactd.sms.gateway import Found, Handed, Incoming, Outgoing


class LogGateway:
    name = "log"

    def __init__(self, settings: LogSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._turn = asyncio.Lock()  # one line of the file after the other

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        yield

    def health(self) -> list[Health]:
        detail = "nobody gets these texts"
        return [Health(component="sms:log", state=HealthState.UP, detail=detail)]

    def routes(self) -> Sequence[Route]:
        return ()

    async def submit(self, text: Outgoing) -> str:
        """Note the text; the second time for one `ref` nothing happens."""
        async with self._turn:
            if self._settings.file is not None:
                await asyncio.to_thread(_append, self._settings.file, text, self._clock.now())
        if self._settings.show:
            sys.stderr.write(f"text to {text.number}: {text.text}\n")
        return text.ref[:80]

    async def find(self, text: Handed) -> Found:
        """Look into the file; without one nobody can tell."""
        if self._settings.file is None:
            return Found(trace=Trace.UNKNOWN)
        async with self._turn:
            known = await asyncio.to_thread(_has, self._settings.file, text.ref)
        if known:
            return Found(trace=Trace.SENT, message_id=text.ref[:80])
        return Found(trace=Trace.NEVER)

    async def listed(self, since: datetime, until: datetime) -> Sequence[Incoming] | None:
        return None


def _append(path: Path, text: Outgoing, at: datetime) -> None:
    """Write one line and bring it to the disk, unless the text is in it already."""
    if _has(path, text.ref):
        return
    notification = text.notification
    told = {
        "ref": text.ref,
        "at": at.isoformat(),
        "ticket": notification.ticket,
        "recipient": notification.recipient,
        "address": text.number,
        "reason": notification.reason.value,
        "text": text.text,
    }
    line = json.dumps(told, ensure_ascii=False) + "\n"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, line.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise TemporaryFailure(f"sms.log.file: {path}: {error.strerror}") from error


def _has(path: Path, ref: str) -> bool:
    try:
        with path.open(encoding="utf-8") as lines:
            return any(_ref(line) == ref for line in lines)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise TemporaryFailure(f"sms.log.file: {path}: {error.strerror}") from error


def _ref(line: str) -> object:
    try:
        return json.loads(line)["ref"]
    except (ValueError, KeyError, TypeError):  # cut short by a full disk
        return None
