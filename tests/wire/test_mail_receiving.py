"""From the spool to tickets: what one mail's failure costs, and what counts as the same mail."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from contactd.errors import TemporaryFailure
from contactd.mail import ledger
from contactd.mail import receiving as receiving_module
from contactd.mail.parsed import Mailbox, Origin, Read, Stored
from contactd.mail.receiving import Receiving
from contactd.mail.scanners import Mail
from contactd.mail.spool import Envelope, Spool
from contactd.service import Health, HealthState
from contactd.settings import SmtpSettings
from contactd.store.engine import Database
from contactd.store.ledger import Ledger
from contactd.store.mails import Mails
from contactd.store.schema import contacts
from contactd.tickets.contact import Contact, Filed, Medium
from contactd.tickets.service import TicketService
from tests.fakes.clock import FakeClock
from tests.fakes.waiting import eventually

TEN = datetime(2026, 11, 20, 2, 0, tzinfo=UTC)
SUPPORT = "support@desk.cn"


class Readers:
    """Reads a mail's subject and Message-ID, in this process."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        yield

    def health(self) -> list[Health]:
        return []

    async def checks(self, mail: Mail) -> dict[str, str]:
        return {}

    async def read(
        self, path: Path, offset: int, length: int, origin: Origin | None, reverse_path: str
    ) -> Read:
        raw = path.read_bytes()[offset : offset + length].decode()
        stored = Stored(
            sha256="0" * 64, size_bytes=length, media_type="message/rfc822", name="message.eml"
        )
        found = dict(line.split(": ", 1) for line in raw.splitlines() if ": " in line)
        return Read(
            raw=stored,
            subject=found.get("Subject", ""),
            message_id=found.get("Message-ID", ""),
            sender=Mailbox(address="device@x.cn"),
        )


def raw(subject: str, message_id: str = "") -> bytes:
    head = f"Subject: {subject}\r\n" + (f"Message-ID: {message_id}\r\n" if message_id else "")
    return f"{head}\r\nhello\r\n".encode()


async def keep(folder: Path, mails: Iterable[tuple[datetime, bytes]]) -> None:
    """Take mails into the spool, as a listener does."""
    spool = Spool(folder / "mail" / ledger.SPOOL, name="test", clock=FakeClock())
    async with spool.running():
        for at, content in mails:
            envelope = Envelope(
                received_at=at, peer="192.0.2.1", helo="x", reverse_path="device@x.cn",
                recipients=(SUPPORT,),
            )  # fmt: skip
            await spool.keep(envelope, content)


def day_of(at: datetime) -> date:
    return at.date()


def receiving(
    folder: Path,
    database: Database,
    clock: FakeClock,
    receive: Callable[[Contact], Awaitable[Filed]],
) -> Receiving:
    async def key() -> bytes:
        return b"k" * 32

    readers: Any = Readers()
    return Receiving(
        SmtpSettings(mailboxes=(SUPPORT,)),
        spool=ledger.spool_reader(folder, day_of=day_of),
        parsers=readers,
        scanning=readers,
        receive=receive,
        known=Mails(database, clock),
        key=key,
        settle=Ledger(database, clock, "UTC").settle,
        clock=clock,
        zone="UTC",
    )


async def filed(database: Database) -> list[str]:
    async with database.reading() as connection:
        found = (await connection.execute(select(contacts.c.external_id))).scalars()
        return list(found)


async def test_a_mail_that_meets_a_bug_costs_itself_alone_and_stays_in_the_spool(
    tmp_path: Path, tickets: TicketService, database: Database, clock: FakeClock
) -> None:
    mails = [(TEN, raw(name, f"<{name}@x.cn>")) for name in ("poison", "one", "two", "three")]
    await keep(tmp_path, mails)

    async def receive(contact: Contact) -> Filed:
        assert contact.mail is not None
        if contact.mail.subject == "poison":
            raise ValueError("a bug")
        return await tickets.receive(contact)

    service = receiving(tmp_path, database, clock, receive)
    async with service.running():

        async def others() -> bool:
            return len(await filed(database)) == 3

        await eventually(others)
        (health, *_) = service.health()
    assert health.state is HealthState.DEGRADED
    assert "1 mails cannot be filed" in health.detail
    # Once the bug is mended it is filed: nothing was lost.
    async with receiving(tmp_path, database, clock, tickets.receive).running():

        async def everything() -> bool:
            return len(await filed(database)) == 4

        await eventually(everything)


async def test_while_the_database_is_away_mails_wait_and_are_filed_afterwards(
    tmp_path: Path, tickets: TicketService, database: Database, clock: FakeClock
) -> None:
    await keep(tmp_path, [(TEN, raw("one", "<one@x.cn>"))])
    failures = 2

    async def receive(contact: Contact) -> Filed:
        nonlocal failures
        if failures:
            failures -= 1
            raise TemporaryFailure("the database is away")
        return await tickets.receive(contact)

    async with receiving(tmp_path, database, clock, receive).running():

        async def there() -> bool:
            return len(await filed(database)) == 1

        await eventually(there)
    assert failures == 0


async def test_a_backlog_stays_on_disk_while_nothing_can_be_filed(
    tmp_path: Path, database: Database, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving_module, "MOST_WAITING", 5)
    await keep(tmp_path, [(TEN, raw(f"mail {n}", f"<{n}@load.cn>")) for n in range(40)])
    tried: set[str] = set()

    async def receive(contact: Contact) -> Filed:
        tried.add(contact.external_id)
        raise TemporaryFailure("the database is away")

    service = receiving(tmp_path, database, clock, receive)
    async with service.running():

        async def are_tried() -> bool:
            return len(tried) == 5

        await eventually(are_tried)
        await asyncio.sleep(0.5)  # in which the others would be tried, too
        assert service.health()[0].figures["in_hand"] == len(tried) == 5


async def test_a_repetition_is_one_contact_and_the_same_again_later_another(
    tmp_path: Path, tickets: TicketService, database: Database, clock: FakeClock
) -> None:
    """A device without Message-ID says the same at ten, at once again, and at one o'clock."""
    same, named = raw("door 4 open"), raw("report", "<report@x.cn>")
    later = TEN + timedelta(hours=3)
    mails = [(TEN, same), (TEN + timedelta(minutes=1), same), (later, same)]
    await keep(tmp_path, [*mails, (TEN, named), (later, named)])
    clock.advance(later + timedelta(hours=1) - clock.now())
    service = receiving(tmp_path, database, clock, tickets.receive)
    async with service.running():

        async def all_done() -> bool:
            return service.health()[0].figures["filed"] == 5

        await eventually(all_done)
    assert len(await filed(database)) == 3
    outside = await ledger.accepted(
        ledger.spool_reader(tmp_path, day_of=day_of), "mail", TEN.date()
    )
    assert sorted(outside) == sorted(await filed(database))
    book = Ledger(database, clock, "UTC")
    settled = await book.settle(TEN.date(), "mail", outside, Medium.MAIL, ledger.YOUNG)
    assert (settled.balanced, settled.outside) == (True, 3)


async def test_a_stop_waits_for_the_mails_in_hand(
    tmp_path: Path, tickets: TicketService, database: Database, clock: FakeClock
) -> None:
    await keep(tmp_path, [(TEN, raw("one", "<one@x.cn>"))])
    began = asyncio.Event()

    async def receive(contact: Contact) -> Filed:
        began.set()
        await asyncio.sleep(0.2)
        return await tickets.receive(contact)

    async with receiving(tmp_path, database, clock, receive).running():
        await began.wait()
    assert len(await filed(database)) == 1
