"""What the mail part asks the database: mails that were filed, addresses that do not work."""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import bindparam, select, update

from contactd.clock import Clock
from contactd.store.engine import Database
from contactd.store.repositories import mail_facts
from contactd.store.schema import addresses, contacts, notifications, tickets
from contactd.tickets.contact import MailFacts, Medium, Writer
from contactd.tickets.people import MAIL, Address

_FILED: Final = (
    select(contacts.c.from_value, contacts.c.external_id, contacts.c.mail, tickets.c.number)
    .select_from(contacts.join(tickets, tickets.c.id == contacts.c.ticket_id))
    .where(contacts.c.id == bindparam("contact"))
)
_TICKET_OF: Final = (
    select(tickets.c.number)
    .select_from(notifications.join(tickets, tickets.c.id == notifications.c.ticket_id))
    .where(notifications.c.client_ref == bindparam("ref"))
)
_SENT: Final = select(notifications.c.address).where(
    notifications.c.client_ref == bindparam("ref"), notifications.c.medium == Medium.MAIL.value
)
_OF_TICKET: Final = (
    select(contacts.c.mail)
    .select_from(contacts.join(tickets, tickets.c.id == contacts.c.ticket_id))
    .where(
        tickets.c.number == bindparam("ticket"),
        contacts.c.medium == Medium.MAIL.value,
        contacts.c.from_value == bindparam("sender"),
    )
    .order_by(contacts.c.received_at.desc(), contacts.c.id.desc())
    .limit(20)
)
_BOUNCED: Final = (
    update(addresses)
    .where(addresses.c.kind == MAIL, addresses.c.value == bindparam("address"))
    .values(bounced_at=bindparam("at", type_=addresses.c.bounced_at.type))
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FiledMail:
    sender: Address
    ticket: str  # number
    facts: MailFacts
    contact: str = ""  # external id


@dataclass(frozen=True, slots=True, kw_only=True)
class SentMail:
    address: str


class Mails:
    """Every method raises `TemporaryFailure` while the database is away."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def filed(self, contact_id: int) -> FiledMail | None:
        """Return a mail that was filed; None if the contact is none."""
        async with self._database.reading() as connection:
            row = (await connection.execute(_FILED, {"contact": contact_id})).mappings().first()
        facts = mail_facts(row["mail"]) if row is not None else None
        if row is None or facts is None:
            return None
        sender = Address(kind=MAIL, value=row["from_value"].strip().lower())
        return FiledMail(
            sender=sender, ticket=row["number"], facts=facts, contact=row["external_id"]
        )

    async def ticket_of(self, ref: str) -> str:
        """Return the number of the ticket that a notification is about, "" if there is none."""
        async with self._database.reading() as connection:
            return (await connection.execute(_TICKET_OF, {"ref": ref})).scalar_one_or_none() or ""

    async def thread(self, ticket: str, sender: str) -> tuple[str, ...]:
        """Return the Message-IDs of what this person wrote about the ticket, the newest first."""
        names = {"ticket": ticket, "sender": sender}
        async with self._database.reading() as connection:
            rows = (await connection.execute(_OF_TICKET, names)).scalars().all()
        found = [facts for row in rows if (facts := mail_facts(row)) is not None]
        written = [each for each in found if each.writer is Writer.PERSON and each.message_id]
        return tuple(each.message_id for each in written)

    async def sent(self, ref: str) -> SentMail | None:
        """Return whom a notification went to; None if there is none of this `ref`."""
        async with self._database.reading() as connection:
            row = (await connection.execute(_SENT, {"ref": ref})).first()
        return SentMail(address=row.address) if row else None

    async def bounced(self, address: str) -> None:
        """Note that an address does not work: nobody is told by it until its owner writes."""
        row = {"address": address.lower(), "at": self._clock.now()}
        async with self._database.writing() as connection:
            await connection.execute(_BOUNCED, row)
