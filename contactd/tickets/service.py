"""Use cases of the tickets: each is one transaction around decisions of `model` and `filing`."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar
from zoneinfo import ZoneInfo

from contactd import metrics
from contactd.clock import Clock
from contactd.errors import NotFound
from contactd.log import get_logger
from contactd.signals import Topic
from contactd.tickets import model
from contactd.tickets.contact import Contact, Filed, Medium, Replay, Source
from contactd.tickets.filing import ContactKey, ContactSlip, Filing, Known, TicketSlip
from contactd.tickets.journal import Entry
from contactd.tickets.model import Decision, Progress, Ticket, TicketPolicy
from contactd.tickets.numbers import day_key, digits_of, is_valid, numbered
from contactd.tickets.people import PHONE, Address, address_of
from contactd.tickets.phone import area_code
from contactd.tickets.ports import Conflict, NewWork, UnitOfWork
from contactd.tickets.states import Action
from contactd.tickets.together import Together

log = get_logger()

T = TypeVar("T")

# Two filers of the same caller can only meet while a person of the desk file is being loaded:
# the second try sees what the first one stumbled over.
TRIES: Final = 3
MOST_TOGETHER: Final = 50  # contacts in one transaction: they wait for each other


def _nobody(topic: Topic) -> None:
    """Wake nobody."""


class TicketService:
    """What the media, the pages and the pagers can do with tickets.

    Every method raises `TemporaryFailure` when the database is away: nothing was stored, and the
    same request may be sent again. `on_commit` is called after a commit, never before.
    """

    def __init__(
        self,
        new_work: NewWork,
        clock: Clock,
        policy: TicketPolicy,
        on_commit: Callable[[Topic], None] = _nobody,
    ) -> None:
        self._new_work = new_work
        self._clock = clock
        self._policy = policy
        self._zone = ZoneInfo(policy.zone)
        self._on_commit = on_commit
        self._receiving = Together(self._receive, key=_key, most=MOST_TOGETHER)

    async def receive(self, contact: Contact) -> Filed:
        """File `contact` under its ticket, opening one if needed; say where it went.

        The caller may tell its peer "accepted" once this returns, and not before. Receiving the
        same contact again is harmless and adds what is newly known of it.

        Raises:
            TemporaryFailure: nothing was stored; the peer should try again.
        """

        filed = await self._receiving.ask(contact)
        if filed.new_contact and contact.source is Source.LIVE:
            age = self._clock.now() - contact.received_at
            metrics.FILING.observe(max(age.total_seconds(), 0))
        self._tell([contact], [filed])
        return filed

    async def _receive(self, contacts: Sequence[Contact]) -> list[Filed]:
        async def file(work: UnitOfWork) -> list[Filed]:
            return await self._file(work, contacts)

        return await self._transact(file)

    async def replay(self, batch: Replay) -> list[Filed]:
        """File what a replayed source says, and note how far it was read, in one transaction.

        Raises:
            TemporaryFailure: nothing was stored, the cursors are where they were.
        """

        async def file(work: UnitOfWork) -> list[Filed]:
            filed = await self._file(work, batch.contacts) if batch.contacts else []
            await work.read_to(batch.cursors)
            return filed

        filed = await self._transact(file)
        self._tell(batch.contacts, filed)
        return filed

    async def separate(self, medium: Medium, external_id: str) -> Filed:
        """Give a contact that had joined an older ticket one of its own; harmless twice.

        Raises:
            NotFound: no such contact was received.
        """

        async def do(work: UnitOfWork) -> Filed:
            key = (medium, external_id)
            known = await self._known(work, {key: None})
            if key not in known.seen:
                raise NotFound("no such contact was received")
            filing = Filing(known, self._policy, self._clock.now())
            slip = filing.contacts[0]
            if not slip.opened:
                day = day_key(slip.contact.received_at.astimezone(self._zone).date())
                number = numbered(day, await work.tickets.next_sequence(day, 1))
                filing.separate(slip, number)
                await self._store(work, filing)
            return filing.filed(slip)

        filed = await self._transact(do)
        self._signal()
        return filed

    async def act(self, number: str, action: Action, *, actor: str, note: str = "") -> None:
        """Move the ticket along its life cycle; `actor` is `engineer:<key>` or `user:<name>`.

        Raises:
            NotFound: there is no such ticket.
            ActionNotAllowed: its state has no such transition.
        """

        async def do(work: UnitOfWork) -> None:
            ticket = await self._find(work, number)
            now = self._clock.now()
            await self._apply(work, model.act(ticket, action, actor=actor, note=note, now=now))

        await self._transact(do)
        self._signal()
        log.info("ticket.moved", ticket=number, action=action.value)

    async def take(self, ticket: int | str, engineer: str, *, how: str) -> bool:
        """Give the ticket (by id or number) to the first engineer who takes it.

        Return False if somebody else has it, or if it is closed. Taking twice is harmless.

        Raises:
            NotFound: there is no such ticket.
        """

        async def do(work: UnitOfWork) -> bool:
            found = await self._find(work, ticket)
            decision = model.take(found, engineer, how=how, now=self._clock.now())
            if decision is None:
                return False
            await self._apply(work, decision)
            return True

        taken = await self._transact(do)
        if taken:
            self._signal()
            log.info("ticket.taken", ticket=ticket, engineer=engineer, how=how)
        return taken

    async def note(
        self, ticket: int | str, action: str, *, actor: str, body: Mapping[str, Any]
    ) -> None:
        """Write into the ticket's journal what changes nothing else, e.g. `page.sent`.

        Raises:
            NotFound: there is no such ticket.
        """

        async def do(work: UnitOfWork) -> None:
            found = await self._find(work, ticket)
            now = self._clock.now()
            await self._apply(
                work, model.note(found, action, actor=actor, body=dict(body), now=now)
            )

        await self._transact(do)
        self._signal()

    async def progress(self, number: str) -> Progress | None:
        """Return what somebody who asks for this ticket is told; None if there is none such."""
        number = digits_of(number)
        if not is_valid(number):
            return None
        async with self._new_work(reads_only=True) as work:
            ticket = await work.tickets.find(number)
            if ticket is None:
                return None
            name = await work.people.engineer_name(ticket.assignee) if ticket.assignee else None
            branches = await work.people.branches([ticket.site], []) if ticket.site else {}
        kind, until, overdue = model.promise(ticket, self._policy, self._clock.now())
        return Progress(
            number=ticket.number,
            state=ticket.state,
            engineer=ticket.assignee or None,
            engineer_name=name,
            promise=kind,
            promise_at=until,
            overdue=overdue,
            zone=branches[ticket.site].zone if branches else self._policy.zone,
        )

    async def _transact(self, do: Callable[[UnitOfWork], Awaitable[T]]) -> T:
        """Run `do` in one transaction and commit; again if another one was faster."""
        for tries_left in reversed(range(TRIES)):
            try:
                async with self._new_work() as work:
                    result = await do(work)
                    await work.commit()
                    return result
            except Conflict:
                if not tries_left:
                    raise
                log.info("ticket.conflict_met", tries_left=tries_left)
        raise AssertionError("not reached")

    async def _file(self, work: UnitOfWork, contacts: Sequence[Contact]) -> list[Filed]:
        keys = {_key(contact): contact for contact in map(model.clean, contacts)}
        known = await self._known(work, keys)
        filing = Filing(known, self._policy, self._clock.now())
        # A call that came first opens the ticket which a later one joins, in whatever order the
        # records name them.
        slips = {
            id(contact): filing.file(contact)
            for contact in sorted(contacts, key=lambda each: each.received_at)
        }
        await self._store(work, filing)
        return [filing.filed(slips[id(contact)]) for contact in contacts]

    async def _known(
        self, work: UnitOfWork, contacts: Mapping[ContactKey, Contact | None]
    ) -> Known:
        """Read what the decisions about `contacts` need, in two statements or three."""
        seen = await work.contacts.seen(contacts.keys())
        country = self._policy.home_country
        addresses = {
            address_of(contact, country=country)
            for key, contact in contacts.items()
            if contact is not None and key not in seen
        }
        named = {address for address in addresses if address.value}
        callers = await work.people.callers(named) if named else {}
        people = [caller.person for caller in callers.values()]
        people += [each.person for each in seen.values()]
        addresses |= {address_of(each.contact, country=country) for each in seen.values()}
        sites = {person.site for person in people} - {""}
        areas = {_area(address) for address in addresses} - {""}
        branches = await work.people.branches(sites, areas) if sites or areas else {}
        return Known(seen=seen, callers=callers, branches=branches)

    async def _store(self, work: UnitOfWork, filing: Filing) -> None:
        """Write what was decided: people, tickets, contacts, journals, then what happened."""
        if filing.people:
            ids = await work.people.add(filing.people)
            for person, person_id in zip(filing.people, ids, strict=True):
                person.person = replace(person.person, id=person_id)
        journals = await self._store_tickets(work, filing.tickets)
        await self._store_contacts(work, filing.contacts)
        if journals:
            await work.tickets.append(journals)
        for slip in filing.contacts:
            if slip.ended:
                work.emit(slip.end())

    async def _store_contacts(self, work: UnitOfWork, slips: Sequence[ContactSlip]) -> None:
        new = [slip for slip in slips if slip.new]
        changed = [slip for slip in slips if slip.changed and not slip.new]
        if new:
            ids = await work.contacts.add(new)
            for slip in new:
                slip.id = ids[_key(slip.contact)]
        if changed:
            await work.contacts.save(changed)

    async def _store_tickets(
        self, work: UnitOfWork, slips: Sequence[TicketSlip]
    ) -> list[tuple[int, Entry]]:
        new = [slip for slip in slips if slip.new]
        old = [slip for slip in slips if not slip.new and slip.changed]
        await self._number(work, [slip for slip in new if not slip.ticket.number])
        sealed: list[tuple[TicketSlip, tuple[Entry, ...]]] = []
        for slip in (*new, *old):
            if slip.new:
                slip.ticket = replace(slip.ticket, requester_id=slip.requester.person.id)
            slip.ticket, entries = model.sealed(slip.ticket, slip.entries)
            sealed.append((slip, entries))
        if new:
            ids = await work.tickets.add([slip.ticket for slip in new])
            for slip in new:
                slip.ticket = replace(slip.ticket, id=ids[slip.ticket.number])
        if old:
            await work.tickets.save([slip.ticket for slip in old])
        return [(slip.ticket.id, entry) for slip, entries in sealed for entry in entries]

    async def _number(self, work: UnitOfWork, slips: Sequence[TicketSlip]) -> None:
        """Give new tickets their numbers; the day is the one on which the contact came in."""
        days: dict[str, list[TicketSlip]] = {}
        for slip in slips:
            day = day_key(slip.ticket.opened_at.astimezone(self._zone).date())
            days.setdefault(day, []).append(slip)
        for day, of_day in sorted(days.items()):
            first = await work.tickets.next_sequence(day, len(of_day))
            for sequence, slip in enumerate(of_day, start=first):
                slip.ticket = replace(slip.ticket, number=numbered(day, sequence))

    async def _find(self, work: UnitOfWork, ticket: int | str) -> Ticket:
        found = await work.tickets.find(ticket)
        if found is None:
            raise NotFound("there is no such ticket")
        return found

    async def _apply(self, work: UnitOfWork, decision: Decision) -> None:
        ticket, entries = model.sealed(decision.ticket, decision.entries)
        if entries:
            await work.tickets.save([ticket])
            await work.tickets.append([(ticket.id, entry) for entry in entries])

    def _tell(self, contacts: Iterable[Contact], filed: Iterable[Filed]) -> None:
        for contact, where in zip(contacts, filed, strict=True):
            if not where.new_contact:
                continue
            metrics.CONTACTS.labels(contact.medium.value, contact.source.value).inc()
            log.info(
                "contact.received",
                medium=contact.medium.value,
                source=contact.source.value,
                contact=contact.external_id,
                ticket=where.ticket,
                opened=where.opened,
            )
        self._signal()

    def _signal(self) -> None:
        self._on_commit(Topic.OUTBOX)
        self._on_commit(Topic.BOARD)


def _key(contact: Contact) -> ContactKey:
    return contact.medium, contact.external_id


def _area(address: Address) -> str:
    return area_code(address.value) if address.kind == PHONE else ""
