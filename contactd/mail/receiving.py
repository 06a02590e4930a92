"""Mails that were accepted become contacts: read, filed once, and let go from the spool."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from ipaddress import ip_address, ip_network
from typing import Final, Protocol
from zoneinfo import ZoneInfo

from contactd.clock import Clock
from contactd.errors import TemporaryFailure
from contactd.log import bound, get_logger
from contactd.mail import ledger, ours
from contactd.mail.parsed import Origin, Read
from contactd.mail.reading import Belongs, contact_of
from contactd.mail.scanners import Mail
from contactd.mail.scanning import Scanning
from contactd.mail.spool import Envelope, Receipt, SpoolReader
from contactd.mail.workers import Parsers
from contactd.metrics import HANDLER_FAILURES
from contactd.service import Health, HealthState
from contactd.settings import SmtpSettings
from contactd.store.ledger import LedgerDay
from contactd.tickets.contact import Contact, Filed, Medium

log = get_logger()

LOOK_EVERY_S: Final = 1.0  # a listener says when it has kept something; this is if it cannot
FIRST_PAUSE_S: Final = 0.2  # before a mail that could not be filed is tried again; then doubled
LONGEST_PAUSE_S: Final = 10.0
LEDGER_EVERY_S: Final = 60.0
MOST_WAITING: Final = 1000  # mails in memory, most of them waiting for the database or the disk
POISON_PAUSE_S: Final = 300.0  # before a mail is tried again that met a bug
AT_A_TIME: Final = 100  # mails that are looked for at once
IN_HAND: Final = 64  # mails: those that are read at about the same time share a transaction


class Known(Protocol):
    """What is asked of the database; `store.mails.Mails` in the daemon."""

    async def ticket_of(self, ref: str) -> str: ...


class Settle(Protocol):
    def __call__(
        self,
        day: date,
        source: str,
        outside: dict[str, datetime],
        medium: Medium,
        young: timedelta,
    ) -> Awaitable[LedgerDay]: ...


@dataclass(slots=True, kw_only=True)
class _Figures:
    filed: int = 0
    in_hand: int = 0
    fault: str = ""
    damaged: list[str] = field(default_factory=list)
    failing: set[str] = field(default_factory=set)


class Receiving:
    """Reads the spool for ever. `key` returns that of `tickets.signing`."""

    name = "mail"

    def __init__(  # noqa: PLR0913 - the composition root's words
        self,
        settings: SmtpSettings,
        *,
        spool: SpoolReader,
        parsers: Parsers,
        scanning: Scanning,
        receive: Callable[[Contact], Awaitable[Filed]],
        known: Known,
        key: Callable[[], Awaitable[bytes]],
        settle: Settle,
        clock: Clock,
        zone: str,
    ) -> None:
        self._settings = settings
        self._spool = spool
        self._parsers = parsers
        self._scanning = scanning
        self._receive = receive
        self._known = known
        self._key = key
        self._settle = settle
        self._clock = clock
        self._zone = ZoneInfo(zone)
        self._kept = asyncio.Event()
        self._free = asyncio.Semaphore(IN_HAND)
        self._figures = _Figures()
        self._stopping = asyncio.Event()

    def wake(self) -> None:
        """Look into the spool now: a listener has kept something."""
        self._kept.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Read and file inside the block; what is in hand is finished on leaving."""
        async with (
            self._parsers.running(),
            self._scanning.running(),
            asyncio.TaskGroup() as tasks,
        ):
            reading = tasks.create_task(self._read(), name="mail")
            balancing = tasks.create_task(self._balance(), name="mail-ledger")
            try:
                yield
            finally:
                self._stopping.set()
                self._kept.set()
                _ = balancing.cancel()
                await asyncio.wait({reading})

    def health(self) -> list[Health]:
        figures = self._figures
        faults = [f"mails are accepted but not filed: {figures.fault}"] if figures.fault else []
        faults += filter(None, [self._spool.fault])
        if figures.failing:
            faults.append(
                f"{len(figures.failing)} mails cannot be filed, a bug of ours: see mail.failed in"
                " the log; they stay in the spool and are tried again"
            )
        if figures.damaged:
            faults.append(
                f"the disk has lost accepted mail: see {', '.join(figures.damaged)} in the spool"
            )
        own = Health(
            component="intake",
            state=HealthState.DEGRADED if faults else HealthState.UP,
            detail="; ".join(faults),
            figures={"filed": figures.filed, "in_hand": figures.in_hand},
        )
        return [own, *self._parsers.health(), *self._scanning.health()]

    # Reading

    async def _read(self) -> None:
        async with asyncio.TaskGroup() as mails:
            while not self._stopping.is_set():
                self._kept.clear()
                found = await self._poll()
                for receipt in found:
                    await self._room()
                    self._figures.in_hand += 1
                    mails.create_task(self._one(receipt), name=f"mail-{receipt.id}")
                if len(found) < AT_A_TIME:  # all there was: what is kept since then has woken us
                    await _first_of(self._kept, LOOK_EVERY_S)

    async def _room(self) -> None:
        """Return with a place; while so many wait for another try, the others stay on disk."""
        while self._figures.in_hand >= MOST_WAITING and not self._stopping.is_set():
            await _first_of(self._stopping, FIRST_PAUSE_S)
        await self._free.acquire()

    async def _poll(self) -> list[Receipt]:
        try:
            return await asyncio.to_thread(self._spool.poll, AT_A_TIME)
        except TemporaryFailure as failure:
            self._figures.fault = str(failure)
            log.warning("mail.deferred", reason=str(failure))
            return []

    async def _one(self, receipt: Receipt) -> None:
        """File one mail, however long that takes: it was accepted."""
        pause_s = FIRST_PAUSE_S
        try:
            with bound(mail=receipt.id):
                while not self._stopping.is_set():
                    try:
                        await self._file(receipt)
                    except TemporaryFailure as failure:
                        self._figures.fault = str(failure)
                        log.warning("mail.deferred", reason=str(failure))
                        await self._pause(pause_s)
                        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                    except Exception:  # the boundary "per mail": the others go on
                        HANDLER_FAILURES.labels(where=self.name).inc()
                        log.exception("mail.failed", again_after_s=POISON_PAUSE_S)
                        self._figures.failing.add(receipt.id)
                        await self._pause(POISON_PAUSE_S)
                    else:
                        self._figures.failing.discard(receipt.id)
                        self._figures.fault = ""
                        self._figures.filed += 1
                        self._spool.done(receipt)
                        return
        finally:
            self._figures.in_hand -= 1
            self._free.release()

    async def _pause(self, seconds: float) -> None:
        """Wait, without holding a place that others could use."""
        self._free.release()
        await _first_of(self._stopping, seconds)
        await self._free.acquire()

    async def _file(self, receipt: Receipt) -> None:
        """File a mail.

        Raises:
            TemporaryFailure: nothing was filed; the mail stays in the spool.
        """
        envelope = receipt.envelope
        origin = _origin(envelope, self._settings.relays)
        mail = Mail(
            path=receipt.path,
            offset=receipt.offset,
            length=receipt.length,
            origin=origin,
            recipients=envelope.recipients,
        )
        read, scanned = await asyncio.gather(
            self._parsers.read(
                receipt.path, receipt.offset, receipt.length, origin, envelope.reverse_path
            ),
            self._scanning.checks(mail),
        )
        contact = contact_of(
            read,
            external_id=ledger.id_of(self._settings.name, receipt.digest),
            received_at=envelope.received_at,
            mailbox=self._mailbox(envelope.recipients),
            belongs=await self._belongs(read, envelope),
            scanned=scanned,
        )
        await self._receive(contact)

    def _mailbox(self, recipients: Iterable[str]) -> str:
        """Return which of our mailboxes a mail came to: the first, if several."""
        names = {each.lower(): each for each in self._settings.mailboxes}
        for recipient in recipients:
            local, _, domain = recipient.lower().rpartition("@")
            if found := names.get(f"{local.partition('+')[0]}@{domain}"):
                return found
        return ""

    async def _belongs(self, read: Read, envelope: Envelope) -> Belongs:
        """Return what proves that the mail belongs to a ticket."""
        addresses = [*envelope.recipients, *(each.address for each in (*read.to, *read.cc))]
        answered = [*read.in_reply_to, *reversed(read.references)]
        if read.bounce is not None:
            answered = [read.bounce.message_id, *answered]
        proof = ours.proof(await self._key(), addresses, answered)
        ticket = proof.ticket or (await self._known.ticket_of(proof.ref) if proof.ref else "")
        return Belongs(ticket=ticket, about=proof.ref)

    # The ledger

    async def _balance(self) -> None:
        while True:
            today = self._clock.now().astimezone(self._zone).date()
            for day in (today - timedelta(days=1), today):
                try:
                    self._figures.damaged = await asyncio.to_thread(lambda: self._spool.damaged)
                    outside = await self._accepted(day)
                    await self._settle(day, self._settings.name, outside, Medium.MAIL, ledger.YOUNG)
                except (TemporaryFailure, OSError) as failure:
                    log.warning("ledger.deferred", source=self._settings.name, reason=str(failure))
            await asyncio.sleep(LEDGER_EVERY_S)

    async def _accepted(self, day: date) -> dict[str, datetime]:
        return await ledger.accepted(self._spool, self._settings.name, day)


async def _first_of(event: asyncio.Event, seconds: float) -> None:
    """Return when the event is set, or after a time."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass


def _origin(envelope: Envelope, relays: Iterable[str]) -> Origin | None:
    """Return who handed the mail over; None if it was a server of ours, which knows who it was."""
    if envelope.protocol == "LMTP" or envelope.submitter or _is_in(envelope.peer, relays):
        return None
    return Origin(peer=envelope.peer, helo=envelope.helo, reverse_path=envelope.reverse_path)


def _is_in(peer: str, networks: Iterable[str]) -> bool:
    try:
        address = ip_address(peer)
    except ValueError:
        return False
    return any(address in ip_network(network) for network in networks)
