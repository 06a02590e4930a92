"""A PBX with a GSM gateway, without Asterisk: the file that its dialplan writes, and its AMI.

What the lines and the answers look like, `tests/real/test_sip_texts.py` has from Asterisk 22.
"""

import asyncio
import base64
from collections import deque
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from contactd.clock import Clock, SystemClock
from contactd.errors import TemporaryFailure
from contactd.settings import SipSettings
from contactd.sms.sip import SipGateway
from tests.fakes.sms import FakeInbox, Fault

OWN: Final = "106581234"  # the SIM's number
TIMEOUT_S: Final = 0.3
LOOK_EVERY_S: Final = 0.01
LONGEST_IN: Final = 1_023  # bytes; Asterisk 22 passes on nothing of a longer one
_SUCCESS: Final = {"Response": "Success", "Message": "Message successfully sent"}
_NO: Final = {"Response": "Error", "Message": "Message failed to send."}


@dataclass(slots=True, kw_only=True)
class FakeBookmark:
    position: str | None = None
    failing: bool = False
    saved: int = 0

    async def load(self) -> str | None:
        if self.failing:
            raise TemporaryFailure("the database is away")
        return self.position

    async def save(self, position: str) -> None:
        if self.failing:
            raise TemporaryFailure("the database is away")
        self.position = position
        self.saved += 1


def line(
    sender: str, text: str, *, at: datetime, call: str = "c-1", length: int | None = None
) -> bytes:
    """Return what the dialplan writes for a text from a number."""
    body = text.encode()
    length = len(body) if length is None else length
    fields = (OWN, f"<sip:{sender}@gsm>", f"{call} 1 MESSAGE")
    coded = [base64.b64encode(each.encode()).decode() for each in fields]
    words = base64.b64encode(body if len(body) <= LONGEST_IN else b"").decode()
    record = ("contactd-text", f"{at.timestamp():.6f}", *coded, str(length), words)
    return ",".join(record).encode() + b"\n"


@dataclass(slots=True, kw_only=True)
class FakePbx:
    """Its spool folder, and its `MessageSend`."""

    folder: Path
    clock: Clock
    coming: deque[Fault] = field(default_factory=deque)
    taken: list[Mapping[str, str]] = field(default_factory=list)

    @property
    def inbox(self) -> Path:
        return self.folder / "contactd-texts"

    def file(self, at: datetime | None = None) -> Path:
        return self.folder / f"{self.inbox.name}-{at or self.clock.now():%Y%m%d}"

    def write(self, *lines: bytes, at: datetime | None = None) -> None:
        with self.file(at).open("ab") as stream:
            stream.write(b"".join(lines))

    async def send(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        fault = self.coming.popleft() if self.coming else None
        if fault is Fault.DOWN:
            return _NO
        if fault is not Fault.LOST:
            self.taken.append(headers)
        if fault in (Fault.LOST, Fault.SILENT):
            await asyncio.Event().wait()
        return _SUCCESS


@dataclass(slots=True, kw_only=True)
class SipProvider:
    """A `Provider`, and the PBX behind it."""

    gateway: SipGateway
    inbox: FakeInbox
    pbx: FakePbx
    bookmark: FakeBookmark
    able: Collection[str] = frozenset(
        {Fault.DOWN, Fault.LOST, Fault.SILENT, "in", "list", "words"}
    )  # fmt: skip
    _brought: int = 0
    _waiting: set[str] = field(default_factory=set)  # written, and not read yet

    def fail(self, fault: Fault) -> None:
        self.pbx.coming.append(fault)

    async def sent(self) -> Sequence[tuple[str, str]]:
        return [
            (headers["To"].split("/")[1].split("@")[0], words_of(headers))
            for headers in self.pbx.taken
        ]

    async def bring(self, sender: str, text: str, external_id: str = "") -> bool:
        """Let the dialplan write a text; return whether it was taken in within a moment.

        The PBX itself acknowledges each, whatever we do.
        """
        self._brought += 1
        before = len(self.inbox.texts)
        call = external_id or f"brought-{self._brought}"
        if call not in self._waiting:  # else the PBX has it: nobody brings it again
            self.pbx.write(line(sender, text, at=self.pbx.clock.now(), call=call))
            self._waiting.add(call)
        for _ in range(50):
            if len(self.inbox.texts) > before:
                self._waiting.clear()
                return True
            await asyncio.sleep(LOOK_EVERY_S)
        return False

    def long_ago(self) -> datetime:
        return self.pbx.clock.now() - timedelta(hours=1)

    def today(self) -> tuple[datetime, datetime]:
        start = self.pbx.clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
        return start, start + timedelta(days=1)

    async def report(self, message_id: str, ref: str, *, delivered: bool) -> bool:
        return False


def words_of(headers: Mapping[str, str]) -> str:
    return base64.b64decode(headers["Base64Body"]).decode()


@asynccontextmanager
async def sip_provider(clock: Clock | None = None, **changes: Any) -> AsyncIterator[SipProvider]:
    """Start the gateway beside a PBX's folder."""
    clock = clock or SystemClock()
    with TemporaryDirectory() as folder:
        pbx = FakePbx(folder=Path(folder), clock=clock)
        inbox, bookmark = FakeInbox(), FakeBookmark()
        given = {
            "inbox": pbx.inbox, "look_every_s": LOOK_EVERY_S, "timeout_s": TIMEOUT_S,
            "sender": "sip:contactd@example.com", **changes,
        }  # fmt: skip
        settings = SipSettings.model_validate(given)
        gateway = SipGateway(settings, inbox, clock, send_action=pbx.send, bookmark=bookmark)
        async with gateway.running():
            yield SipProvider(gateway=gateway, inbox=inbox, pbx=pbx, bookmark=bookmark)
