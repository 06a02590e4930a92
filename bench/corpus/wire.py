"""The whole way: over SMTP to the real listener, into the spool, through the parser processes.

Each mail has a recipient of its own (a plus-address), so that what is in the spool can be told
apart whatever the mail says.
"""

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from datetime import UTC, timedelta
from email import message_from_bytes
from email.utils import parseaddr
from pathlib import Path
from typing import Final

from bench.corpus.client import Closed, Refused, connected
from bench.corpus.marks import Case, Judged, Passage
from bench.corpus.words import as_sent
from contactd.errors import TemporaryFailure
from contactd.mail.listeners import Listener
from contactd.mail.parsed import Parsed, Part, Read
from contactd.mail.spool import Receipt, SpoolReader
from contactd.mail.workers import Parsers
from contactd.settings import SmtpSettings
from contactd.store.blobs import Blobs

MAILBOX: Final = "support@corpus.example.com"
CONNECTIONS: Final = 4
BATCH: Final = 50  # mails that are handed to the parsers at a time
SENDER: Final = "sender@corpus.example.org"
PATIENCE_S: Final = 60.0  # for the next mail out of the spool
_PLAIN_ADDRESS: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@[A-Za-z0-9.-]{1,200}")
_OF_PARSED: Final = [each.name for each in fields(Parsed) if each.name != "parts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """`blobs` is where the parsers put the files of the mails."""

    port: int
    spool: SpoolReader
    parsers: Parsers
    blobs: Blobs

    async def run(self, cases: Sequence[Case]) -> tuple[list[Judged], Passage]:
        """Send every mail, read the spool back, and judge what was read."""
        refused = await self._send_all(cases)
        judged = {
            number: Judged(name=cases[number].name, refused=reply)
            for number, reply in refused.items()
        }
        passage = Passage(sent=len(cases), refused=len(refused))
        async for receipts in self._spooled(len(cases) - len(refused)):
            numbers = [number_of(receipt) for receipt in receipts]
            found = await asyncio.gather(
                *(
                    self._judged(cases[number], receipt, passage)
                    for number, receipt in zip(numbers, receipts, strict=True)
                )
            )
            passage.spooled += len(receipts)
            judged.update(zip(numbers, found, strict=True))
        for number, case in enumerate(cases):
            judged.setdefault(number, Judged(name=case.name, lost="taken and never seen again"))
        return [judged[number] for number in range(len(cases))], passage

    async def _send_all(self, cases: Sequence[Case]) -> Mapping[int, str]:
        """Return the replies to the mails that were not taken."""
        waiting = deque(enumerate(cases))
        refused: dict[int, str] = {}
        async with asyncio.TaskGroup() as tasks:
            for _ in range(CONNECTIONS):
                tasks.create_task(self._send_some(waiting, refused))
        return refused

    async def _send_some(self, waiting: deque[tuple[int, Case]], refused: dict[int, str]) -> None:
        """Send what waits, over one connection after the other; each mail is tried once."""
        while waiting:
            number = waiting[0][0]
            try:
                async with connected(self.port) as client:
                    while waiting:
                        number, case = waiting.popleft()
                        try:
                            await client.send(
                                reverse_path(case.raw), recipient_of(number), as_sent(case.raw)
                            )
                        except Refused as refusal:
                            refused[number] = str(refusal)
            except Closed as closed:
                if waiting and waiting[0][0] == number:
                    waiting.popleft()  # there was not even a connection
                refused[number] = f"connection closed: {closed}"

    async def _spooled(self, count: int) -> AsyncIterator[Sequence[Receipt]]:
        """Yield what is in the spool until `count` mails were found or nothing comes any more."""
        loop = asyncio.get_running_loop()
        until, found = loop.time() + PATIENCE_S, 0
        while found < count and loop.time() < until:
            receipts = await asyncio.to_thread(self.spool.poll, BATCH)
            if not receipts:
                await asyncio.sleep(0.02)
                continue
            yield receipts
            for receipt in receipts:
                self.spool.done(receipt)
            until, found = loop.time() + PATIENCE_S, found + len(receipts)

    async def _judged(self, case: Case, receipt: Receipt, passage: Passage) -> Judged:
        raw = await asyncio.to_thread(receipt.raw)
        if not _ended(raw).endswith(_ended(as_sent(case.raw))):
            passage.changed += 1
        try:
            read = await self.parsers.read(receipt.path, receipt.offset, receipt.length)
        except TemporaryFailure as failure:
            return Judged(name=case.name, lost=f"not read: {failure}")
        passage.parsed += 1
        return Judged(name=case.name, judgement=case.judge(_parsed(read, self.blobs)))


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Wire]:
    """Start a listener and parsers that keep everything below `folder`."""
    settings = SmtpSettings(mailboxes=(MAILBOX,), hostname="mail.corpus.example.com")
    listener = Listener(
        settings.model_copy(update={"port": 0}), folder / "spool", log_level="ERROR"
    )
    blobs = folder / "blobs"
    parsers = Parsers(
        count=settings.parsers,
        timeout=timedelta(seconds=settings.parse_timeout_s),
        memory_bytes=settings.parse_memory_bytes,
        blobs=blobs,
    )
    spool = SpoolReader(
        folder / "spool",
        folder / "accepted",
        day_of=lambda at: at.astimezone(UTC).date(),
    )
    async with parsers.running(), listener.running():
        yield Wire(port=listener.port, spool=spool, parsers=parsers, blobs=Blobs(blobs))


def _parsed(read: Read, blobs: Blobs) -> Parsed:
    """Return what the parser said in its process, with the contents that it has kept."""
    parts = [
        Part(
            name=stored.name,
            media_type=stored.media_type,
            content=blobs.path(stored.sha256).read_bytes(),
            content_id=stored.content_id,
            is_inline=stored.is_inline,
        )
        for stored in read.stored
    ]
    return Parsed(**{name: getattr(read, name) for name in _OF_PARSED}, parts=parts)


def recipient_of(number: int) -> str:
    """Return the plus-address that only this mail is sent to."""
    local, _, domain = MAILBOX.partition("@")
    return f"{local}+c{number}@{domain}"


def number_of(receipt: Receipt) -> int:
    """Return the number of a mail in the spool."""
    (recipient,) = receipt.envelope.recipients
    return int(recipient.partition("@")[0].rpartition("+c")[2])


def reverse_path(raw: bytes) -> str:
    """Return where the mail says it came from; bounces that say nothing come from <>."""
    headers = message_from_bytes(raw)
    field = str(headers.get("Return-Path", headers.get("From", "")))
    if field.strip() == "<>":
        return ""
    address = parseaddr(field)[1]
    return address if _PLAIN_ADDRESS.fullmatch(address) else SENDER


def _ended(mail: bytes) -> bytes:
    """Leave line ends at the end out: DATA needs one, whatever the file had."""
    return mail.rstrip(b"\r\n")
