"""A batch of contacts becomes people, tickets, contacts, journal entries and events (pure).

The service reads what is known of a batch, a `Filing` decides in memory, the service writes what
came out. One contact and a replay of two hundred take the same path, in one transaction each.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from contactd.tickets import model
from contactd.tickets.contact import ECHOES, Contact, Direction, Filed, Medium, Writer
from contactd.tickets.events import CallEnded
from contactd.tickets.journal import REQUESTER, Draft
from contactd.tickets.model import Decision, Ticket, TicketPolicy
from contactd.tickets.numbers import mentioned
from contactd.tickets.people import MAIL, Address, Branch, Person, address_of, branch_of
from contactd.tickets.replies import Sender, Verb, parse
from contactd.tickets.states import OPEN
from contactd.tickets.texting import Says, says

_SAMPLE: Final = "1234567890"  # a ticket number: the line says the rest
_SURVEY: Final = "survey-"  # of the mail that asks for a mark: 1 and 2 are marks, too
_NOWHERE: Final = Address(kind=MAIL, value="")

ContactKey = tuple[Medium, str]  # the medium and its external id


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A contact that is stored already."""

    contact_id: int
    contact: Contact
    person: Person
    ticket: Ticket
    opened: bool  # the ticket was opened for it
    open_ticket: str  # the requester's open ticket before it, or ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A person who has an address of the batch, and their latest open ticket."""

    person: Person
    ticket: Ticket | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A ticket with who takes part in it: its requester, who wrote about it, engineers."""

    ticket: Ticket
    requester: Person
    people: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the database says of a batch."""

    seen: Mapping[ContactKey, Seen] = field(default_factory=dict)
    callers: Mapping[Address, Caller] = field(default_factory=dict)
    named: Mapping[str, Named] = field(default_factory=dict)  # tickets that mails name, by number
    answered: Mapping[str, str] = field(default_factory=dict)  # Message-ID -> ticket's number
    # Telephone number -> the tickets about which somebody was asked by text, the latest first
    asked: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    branches: Mapping[str, Branch] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True, eq=False)
class PersonSlip:
    person: Person
    address: Address
    latest: "TicketSlip | None" = None  # their latest open ticket


@dataclass(slots=True, kw_only=True, eq=False)
class TicketSlip:
    ticket: Ticket
    requester: PersonSlip
    entries: list[Draft] = field(default_factory=list)
    changed: bool = False

    @property
    def new(self) -> bool:
        return not self.ticket.id

    def apply(self, decision: Decision) -> None:
        if decision.ticket != self.ticket or decision.entries:
            self.changed = True
        self.ticket = decision.ticket
        self.entries += decision.entries


@dataclass(slots=True, kw_only=True, eq=False)
class ContactSlip:
    id: int  # 0: not stored yet
    contact: Contact
    person: PersonSlip
    ticket: TicketSlip
    opened: bool
    open_before: "TicketSlip | str"
    new: bool
    changed: bool = False
    ended: bool = False  # its call's facts became final in this batch

    @property
    def open_ticket(self) -> str:
        before = self.open_before
        return before if isinstance(before, str) else before.ticket.number

    @property
    def asks(self) -> bool:
        """Return whether it is new and says what to do, or a mail that came back."""
        mail = self.contact.mail
        if self.contact.medium is Medium.TEXT:
            return self.new and says(self.contact.text) is not Says.WORDS
        return self.new and mail is not None and bool(mail.reply or mail.undelivered)

    def end(self) -> CallEnded:
        """Return the event of its call's end; ids are known by now."""
        return CallEnded(ticket_id=self.ticket.ticket.id, contact_id=self.id)


def _asks_nothing(contact: Contact) -> bool:
    """Return whether it may lie on a ticket that is over: nobody need do anything about it.

    A vacation note that answers "closed", or the requester's belated OK.
    """
    if contact.direction is Direction.OUT:  # the desk calls them once more, after the end
        return True
    if contact.medium is Medium.TEXT:
        return says(contact.text) is not Says.WORDS
    mail = contact.mail
    if mail is None or mail.writer is not Writer.PERSON:
        return mail is not None and mail.writer in ECHOES
    found = parse(f"{mail.reply} {_SAMPLE}", Sender.REQUESTER) if mail.reply else None
    if found is None:
        return False
    is_mark = found.mark > 0 and mail.about.startswith(_SURVEY)
    return is_mark or found.verb in (Verb.SOLVED, Verb.STATUS, Verb.RATE)


class Filing:
    """Decides on contacts one by one; `people`, `tickets` and `contacts` are what came out."""

    def __init__(self, known: Known, policy: TicketPolicy, now: datetime) -> None:
        self._branches = known.branches
        self._policy = policy
        self._now = now
        self._by_address: dict[Address, PersonSlip] = {}
        self._by_person: dict[int, PersonSlip] = {}
        self._by_ticket: dict[int, TicketSlip] = {}
        self._by_key: dict[ContactKey, ContactSlip] = {}
        self.people: list[PersonSlip] = []
        self.tickets: list[TicketSlip] = []
        for address, caller in known.callers.items():
            person = self._person(caller.person, address)
            self._by_address[address] = person
            if caller.ticket is not None:
                person.latest = self._ticket(caller.ticket, person)
        for key, seen in known.seen.items():
            self._by_key[key] = self._seen(seen)
        self._asked = known.asked
        self._people_of = {number: named.people for number, named in known.named.items()}
        self._by_number = {
            number: self._ticket(named.ticket, self._person(named.requester, _NOWHERE))
            for number, named in known.named.items()
        }
        self._by_mail = {
            message_id: self._by_number[number]
            for message_id, number in known.answered.items()
            if number in self._by_number
        }

    @property
    def contacts(self) -> list[ContactSlip]:
        return list(self._by_key.values())

    def file(self, told: Contact) -> ContactSlip:
        """Put a contact, clean as by `model`, into its place; once more only adds what is new."""
        key = (told.medium, told.external_id)
        slip = self._by_key.get(key)
        if slip is None:
            slip = self._by_key[key] = self._first_sight(told)
        else:
            self._again(slip, told)
        return slip

    def separate(self, slip: ContactSlip, number: str, actor: str = REQUESTER) -> None:
        """Give a contact that had joined an older ticket one of its own, with `number`."""
        old = slip.ticket
        old.apply(model.separate(old.ticket, slip.contact, number, self._now, actor))
        decision = self._open(slip.contact, slip.person)
        own = TicketSlip(ticket=replace(decision.ticket, number=number), requester=slip.person)
        own.entries += decision.entries
        self.tickets.append(own)
        slip.ticket, slip.opened, slip.open_before = own, True, old
        slip.changed = True

    def filed(self, slip: ContactSlip) -> Filed:
        """Return where the contact went; everything is stored by now."""
        person = slip.person.person
        branch = branch_of(person, self._address(slip.contact), self._branches)
        return Filed(
            contact_id=slip.id,
            ticket_id=slip.ticket.ticket.id,
            ticket=slip.ticket.ticket.number,
            new_contact=slip.new,
            opened=slip.opened,
            joined=not slip.opened,
            open_ticket=slip.open_ticket,
            person_id=person.id,
            vip=person.vip,
            language=person.language or (branch.language if branch else self._policy.language),
            site=branch.key if branch else "",
            queue=branch.queue if branch else "",
        )

    def _first_sight(self, contact: Contact) -> ContactSlip:
        person = self._requester(contact)
        before = person.latest
        older = self._older(contact, person)
        if older is not None:
            older.apply(model.join(older.ticket, contact, person.person, self._now))
            ticket, opened = older, False
        else:
            decision = self._open(contact, person)
            ticket, opened = TicketSlip(ticket=decision.ticket, requester=person), True
            ticket.entries += decision.entries
            self.tickets.append(ticket)
            person.latest = ticket
        if contact.mail is not None and contact.mail.message_id:
            self._by_mail.setdefault(contact.mail.message_id, ticket)
        return ContactSlip(
            id=0,
            contact=contact,
            person=person,
            ticket=ticket,
            opened=opened,
            open_before=before or "",
            new=True,
            ended=contact.call is not None and contact.call.final,
        )

    def _older(self, contact: Contact, person: PersonSlip) -> TicketSlip | None:
        """Return the ticket that a contact joins: the one it names, or its sender's latest."""
        for found in self._claimed(contact, person):
            if found.ticket.state in OPEN or _asks_nothing(contact):
                return found
        # An alarm is another one than that before, and nobody who has that one hears of it.
        is_program = contact.mail is not None and contact.mail.writer in (Writer.AUTO, Writer.LIST)
        latest = None if is_program else person.latest
        if latest is None:
            return None
        is_word = contact.medium is Medium.TEXT and _asks_nothing(contact)
        return latest if is_word or model.may_join(latest.ticket, contact, self._policy) else None

    def _claimed(self, contact: Contact, person: PersonSlip) -> Iterator[TicketSlip]:
        """Yield the tickets that a mail or a text names, the surest first.

        A number in the subject is no secret: it counts for who takes part, and not if the sender
        is forged. A Message-ID is known to nobody but who wrote or got the mail.
        """
        if (proved := self._by_number.get(contact.ticket)) is not None:
            yield proved
        if contact.medium is Medium.TEXT:
            asked = self._asked.get(self._address(contact).value, ())
            yield from self._taking_part(person, (*mentioned(contact.text), *asked))
        if (mail := contact.mail) is None:
            return
        proved = self._by_number.get(mail.proved)
        if proved is not None:
            yield proved
        for message_id in mail.references:
            if (found := self._by_mail.get(message_id)) is not None:
                yield found
        # The same mail comes once for each of our mailboxes; another may have the same id.
        same = self._by_mail.get(mail.message_id)
        if same is not None and person in (same.requester, *self._wrote(same)):
            yield same
        yield from self._taking_part(person, () if mail.forged else mail.mentioned)

    def _taking_part(self, person: PersonSlip, numbers: Iterable[str]) -> Iterator[TicketSlip]:
        """Yield those of the tickets in which a person takes part."""
        for number in numbers:
            if person.person.id and person.person.id in self._people_of.get(number, ()):
                yield self._by_number[number]

    def _wrote(self, ticket: TicketSlip) -> Iterator[PersonSlip]:
        """Yield who wrote about a ticket, as far as this batch knows."""
        people = self._people_of.get(ticket.ticket.number, frozenset())
        yield from (each for each in self._by_address.values() if each.person.id in people)

    def _again(self, slip: ContactSlip, told: Contact) -> None:
        merged = model.merge(slip.contact, told)
        if merged == slip.contact:
            return
        slip.ticket.apply(model.learn(slip.ticket.ticket, slip.contact, merged, self._now))
        was_final = slip.contact.call is not None and slip.contact.call.final
        slip.ended |= merged.call is not None and merged.call.final and not was_final
        slip.contact = merged
        slip.changed = True

    def _open(self, contact: Contact, person: PersonSlip) -> Decision:
        theirs = branch_of(person.person, self._address(contact), self._branches)
        branch = self._branches.get(contact.site, theirs)  # the fault may be at another site
        return model.open_ticket(contact, person.person, branch, self._policy, self._now)

    def _requester(self, contact: Contact) -> PersonSlip:
        """Return whose contact it is: somebody known, or a new person with only this address."""
        address = self._address(contact)
        if address.value and (known := self._by_address.get(address)):
            return known
        person = PersonSlip(person=Person(id=0), address=address)
        self.people.append(person)
        if address.value:  # who withholds the number stays one nameless person a contact
            self._by_address[address] = person
        return person

    def _address(self, contact: Contact) -> Address:
        return address_of(contact, country=self._policy.home_country)

    def _person(self, person: Person, address: Address) -> PersonSlip:
        return self._by_person.setdefault(person.id, PersonSlip(person=person, address=address))

    def _ticket(self, ticket: Ticket, requester: PersonSlip) -> TicketSlip:
        slip = self._by_ticket.get(ticket.id)
        if slip is None:
            slip = self._by_ticket[ticket.id] = TicketSlip(ticket=ticket, requester=requester)
            self.tickets.append(slip)
        return slip

    def _seen(self, seen: Seen) -> ContactSlip:
        person = self._person(seen.person, self._address(seen.contact))
        return ContactSlip(
            id=seen.contact_id,
            contact=seen.contact,
            person=person,
            ticket=self._ticket(seen.ticket, person),
            opened=seen.opened,
            open_before=seen.open_ticket,
            new=False,
        )
