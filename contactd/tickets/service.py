"""Use cases of the tickets: each is one transaction around decisions of `model` and `filing`."""

import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence, Set
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, TypeVar
from zoneinfo import ZoneInfo

from contactd import metrics
from contactd.clock import Clock
from contactd.errors import ActionNotAllowed, NotFound, PermanentFailure
from contactd.log import get_logger
from contactd.signals import Topic
from contactd.tickets import dispatching, model
from contactd.tickets.contact import Contact, Filed, MailFacts, Medium, Replay, Source
from contactd.tickets.describing import Description
from contactd.tickets.dispatching import Moved, Step, WrongCode
from contactd.tickets.events import MailDue, TextDue, TicketDue
from contactd.tickets.filing import ContactKey, ContactSlip, Filing, Known, Named, TicketSlip
from contactd.tickets.journal import REQUESTER, Entry
from contactd.tickets.model import (
    Classification,
    Decision,
    Progress,
    Promise,
    Ticket,
    TicketPolicy,
)
from contactd.tickets.numbers import CODE_DIGITS, day_key, digits_of, is_valid, mentioned, numbered
from contactd.tickets.people import PHONE, Address, Card, Person, address_of, branch_of, said_of
from contactd.tickets.phone import area_code
from contactd.tickets.ports import Conflict, NewWork, UnitOfWork
from contactd.tickets.replies import Sender, bare
from contactd.tickets.states import Action
from contactd.tickets.texting import Says, says
from contactd.tickets.together import Together

log = get_logger()

T = TypeVar("T")

# Two filers of the same caller can only meet while a person of the desk file is being loaded:
# the second try sees what the first one stumbled over.
TRIES: Final = 3
_ANSWERS: Final = frozenset({Says.REPLY, Says.STATUS})
MOST_TOGETHER: Final = 50  # contacts in one transaction: they wait for each other


# What must not have changed since somebody saw what they change now, by their use case.
_DESCRIBING: Final = frozenset({"ticket.described", "classified", "priority.changed"})
_CLASSIFYING: Final = frozenset({"classified", "priority.changed"})
_ASSIGNING: Final = frozenset({"handed_over", "assigned", "acknowledged", "team.assigned"})
_PROMISING: Final = frozenset({"contract.changed"})


class Outdated(ActionNotAllowed):
    """Somebody else has changed meanwhile what is changed here: look at it again."""


class Taken(PermanentFailure):
    """An address is `owner`'s (an id): the two people may be one."""

    def __init__(self, owner: int) -> None:
        super().__init__("this address is known as another person's")
        self.owner = owner


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

    async def separate(self, medium: Medium, external_id: str, actor: str = REQUESTER) -> Filed:
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
                filing.separate(slip, number, actor)
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

        async def decide(work: UnitOfWork, ticket: Ticket, now: datetime) -> Decision:
            decision = model.act(ticket, action, actor=actor, note=note, now=now)
            return await _without_visits(work, decision, actor, now)

        await self._change(number, decide)
        log.info("ticket.moved", ticket=number, action=action.value)

    async def take(self, ticket: int | str, engineer: str, *, how: str, actor: str = "") -> bool:
        """Give the ticket (by id or number) to the first engineer who takes it.

        Return False if somebody else has it, or if it is closed. Taking twice is harmless.
        `actor` is who says so, if not the engineer.

        Raises:
            NotFound: there is no such ticket.
            PermanentFailure: `actor` says so of somebody who is no engineer.
        """

        async def do(work: UnitOfWork) -> bool:
            found = await self._find(work, ticket)
            if actor:
                await _check_engineer(work, engineer)
            now = self._clock.now()
            decision = model.take(found, engineer, how=how, now=now, actor=actor)
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

        async def decide(_work: UnitOfWork, found: Ticket, now: datetime) -> Decision:
            return model.note(found, action, actor=actor, body=dict(body), now=now)

        await self._change(ticket, decide)

    async def describe(
        self, number: str, said: Description, *, actor: str, seen: int | None = None
    ) -> None:
        """Say more of the fault (requirement B1); `seen` is the last journal entry that was seen.

        Raises:
            NotFound: there is no such ticket.
            Outdated: somebody has said something else since then.
            ActionNotAllowed: it is over.
        """

        async def decide(work: UnitOfWork, ticket: Ticket, now: datetime) -> Decision:
            await _check_seen(work, ticket, seen, _DESCRIBING)
            requester = await work.people.person(ticket.requester_id)
            vip = requester is not None and requester.vip
            matrix = self._policy.matrix
            return model.describe(ticket, said, vip=vip, matrix=matrix, actor=actor, now=now)

        await self._change(number, decide)
        log.info("ticket.described", ticket=number)

    async def comment(self, number: str, words: str, *, actor: str, key: str = "") -> None:
        """Note something that the requester does not see; once for one `key`.

        Raises:
            NotFound: there is no such ticket.
            PermanentFailure: there are no words in it.
        """

        async def decide(work: UnitOfWork, ticket: Ticket, now: datetime) -> Decision:
            found = model.comment(ticket, words, actor=actor, now=now)
            is_new = not key or await work.once(f"comment-{ticket.id}-{key}")
            return found if is_new else Decision(ticket=ticket)

        await self._change(number, decide)
        log.info("ticket.commented", ticket=number)

    async def merge(self, number: str, into: str, *, actor: str) -> None:
        """Make two tickets one: `into` gets the contacts, this one is cancelled and names it.

        Raises:
            NotFound: there is no such ticket.
            ActionNotAllowed: one of them is over, or this one is solved.
        """

        async def do(work: UnitOfWork) -> None:
            ticket, other = await self._find(work, number), await self._find(work, into)
            now = self._clock.now()
            ended = model.merged(ticket, other, actor=actor, now=now)
            carried = model.unanswered(await work.tickets.journal(ticket))
            count = await work.tickets.merge(ticket.id, other.id)
            await self._apply(work, await _without_visits(work, ended, actor, now))
            grown = model.absorbed(other, ticket, carried, contacts=count, actor=actor, now=now)
            await self._apply(work, grown)

        await self._transact(do)
        self._signal()
        log.info("ticket.merged", ticket=number, into=into)

    async def split(self, contact_id: int, *, actor: str) -> str:
        """Give a contact a ticket of its own; return its number. Harmless twice.

        Raises:
            NotFound: there is no such contact.
            ActionNotAllowed: its ticket was opened for it.
        """
        async with self._new_work(reads_only=True) as work:
            key = await work.contacts.key(contact_id)
            seen = await work.contacts.seen([key]) if key is not None else {}
        if key is None or key not in seen:
            raise NotFound("there is no such contact")
        if seen[key].opened:
            raise ActionNotAllowed("cannot split off what a ticket was opened for")
        return (await self.separate(*key, actor=actor)).ticket

    async def set_requester(self, number: str, person: int, *, actor: str) -> None:
        """Make it somebody else's ticket: its site, promises and priority follow from that.

        Raises:
            NotFound: there is no such ticket, or no such person.
            ActionNotAllowed: it is over.
        """

        async def decide(work: UnitOfWork, ticket: Ticket, now: datetime) -> Decision:
            whose = await self._person(work, person)
            names = (
                await self._called(work, ticket.requester_id), await self._called(work, person),
            )  # fmt: skip
            branches = await work.people.branches([whose.site], []) if whose.site else {}
            return model.belong_to(
                ticket, whose, names, branches.get(whose.site),
                matrix=self._policy.matrix, actor=actor, now=now,
            )  # fmt: skip

        await self._change(number, decide)
        log.info("ticket.requester_set", ticket=number)

    async def complete_person(self, person: int, card: Card, *, actor: str) -> int:
        """Say more of somebody (0: a new person); return their id.

        Their open tickets follow: the site of those that had none, and the priority.

        Raises:
            NotFound: there is no such person.
            Taken: an address is another person's.
            PermanentFailure: they are kept in the desk file, an address is none, or there is no
                such site.
        """
        values, added = said_of(card, country=self._policy.home_country)

        async def do(work: UnitOfWork) -> int:
            if person:
                await self._own_person(work, person)
            branches = await work.people.branches([card.site], []) if card.site else {}
            if card.site and card.site not in branches:
                raise PermanentFailure("there is no such site")
            known = await self._whose(work, added, person)
            found = await work.people.put(person, values)
            for address in known:
                await work.people.add_address(found, address)
            for value in card.without:
                await work.people.drop_address(found, value)
            body = {"changed": sorted(values), "addresses": len(known), "gone": len(card.without)}
            act = "person.changed" if person else "person.added"
            await work.note_act(actor, act, f"person:{found}", body)
            await self._suit(work, found, actor)
            return found

        found = await self._transact(do)
        self._signal()
        log.info("person.completed", person=found)
        return found

    async def merge_people(self, person: int, into: int, *, actor: str) -> None:
        """Make two people one: tickets, contacts and addresses are those of `into` from now on.

        Raises:
            NotFound: there is no such person.
            PermanentFailure: it is the same one, or `person` is kept in the desk file.
        """

        async def do(work: UnitOfWork) -> None:
            if person == into:
                raise PermanentFailure("that is the same person")
            gone, kept = await self._own_person(work, person), await self._person(work, into)
            await work.people.merge(person, into)
            if gone.name and not kept.name:
                await work.people.put(into, {"name": gone.name})
            await work.note_act(actor, "person.merged", f"person:{person}", {"into": into})
            await self._suit(work, into, actor)

        await self._transact(do)
        self._signal()
        log.info("person.merged", person=person, into=into)

    async def classify(
        self, number: str, said: Classification, *, actor: str, seen: int | None = None
    ) -> None:
        """Say what the ticket is about and how bad it is; its priority follows.

        Raises:
            NotFound: there is no such ticket.
            Outdated: somebody has classified it since the journal entry `seen`.
            ActionNotAllowed: it is over.
        """

        async def decide(work: UnitOfWork, ticket: Ticket, now: datetime) -> Decision:
            await _check_seen(work, ticket, seen, _CLASSIFYING)
            requester = await work.people.person(ticket.requester_id)
            vip = requester is not None and requester.vip
            matrix = self._policy.matrix
            return model.classify(ticket, said, vip=vip, matrix=matrix, actor=actor, now=now)

        await self._change(number, decide)
        log.info("ticket.classified", ticket=number)

    async def answered(
        self, number: str, *, actor: str, how: str, at: datetime | None = None, engineer: str = ""
    ) -> None:
        """Note that a person has spoken to the requester (C1), `at` an instant that may be past.

        `engineer` is who did, if not the actor. They get the ticket if nobody has it.

        Raises:
            NotFound: there is no such ticket.
            PermanentFailure: that was before the ticket, or will be; or there is no such engineer.
        """

        async def decide(work: UnitOfWork, ticket: Ticket, now: datetime) -> Decision:
            who = engineer or _engineer_of(actor)
            if engineer:
                await _check_engineer(work, engineer)
            when = now if at is None else at
            return model.answered(ticket, engineer=who, actor=actor, how=how, at=when, now=now)

        await self._change(number, decide)
        log.info("ticket.answered", ticket=number, how=how)

    async def place_call(self, number: str, ref: str, *, engineer: str, actor: str) -> bool:
        """Note that `engineer` is about to call the requester, once for one `ref`.

        Return False if it was noted before: that call was made, or is being made.

        Raises:
            NotFound: there is no such ticket.
        """

        async def do(work: UnitOfWork) -> bool:
            ticket = await self._find(work, number)
            if not await work.once(ref):
                return False
            now = self._clock.now()
            await self._apply(work, model.place_call(ticket, ref, engineer, actor=actor, now=now))
            return True

        is_new = await self._transact(do)
        if is_new:
            self._signal()
            log.info("requester.called", ticket=number, contact=ref)
        return is_new

    async def updated(self, number: str, *, actor: str, note: str) -> None:
        """Note that the requester was told how it stands.

        Raises:
            NotFound: there is no such ticket.
            ActionNotAllowed: it is over.
        """

        async def decide(_work: UnitOfWork, ticket: Ticket, now: datetime) -> Decision:
            return model.updated(ticket, actor=actor, note=note, now=now)

        await self._change(number, decide)
        log.info("ticket.updated", ticket=number)

    async def hand_over(
        self, number: str, engineer: str, *, actor: str, note: str = "", seen: int | None = None
    ) -> None:
        """Make an engineer responsible who has not said anything yet.

        Raises:
            NotFound: there is no such ticket.
            Outdated: somebody has got it since the journal entry `seen`.
            ActionNotAllowed: it is over.
            PermanentFailure: there is no such engineer.
        """

        async def decide(work: UnitOfWork, ticket: Ticket, now: datetime) -> Decision:
            await _check_seen(work, ticket, seen, _ASSIGNING)
            await _check_engineer(work, engineer)
            return model.hand_over(ticket, engineer, actor=actor, note=note, now=now)

        await self._change(number, decide)
        log.info("ticket.handed_over", ticket=number, engineer=engineer)

    async def assign_team(
        self, number: str, team: str, *, actor: str, seen: int | None = None
    ) -> None:
        """Make a team of the desk file responsible, by its key; "": none.

        Raises:
            NotFound: there is no such ticket.
            Outdated: somebody has got it since the journal entry `seen`.
            ActionNotAllowed: it is over.
        """

        async def decide(work: UnitOfWork, ticket: Ticket, now: datetime) -> Decision:
            await _check_seen(work, ticket, seen, _ASSIGNING)
            return model.assign_team(ticket, team, actor=actor, now=now)

        await self._change(number, decide)
        log.info("ticket.team_assigned", ticket=number, team=team)

    async def set_contract(
        self, number: str, contract: str, *, actor: str, seen: int | None = None
    ) -> None:
        """Promise from now on what `contract` promises: its newest version, or `key.version`.

        Raises:
            NotFound: there is no such ticket.
            Outdated: somebody has promised something since the journal entry `seen`.
            ActionNotAllowed: it is over.
            PermanentFailure: there is no such contract.
        """

        async def decide(work: UnitOfWork, ticket: Ticket, now: datetime) -> Decision:
            await _check_seen(work, ticket, seen, _PROMISING)
            key = await work.contracts.current(contract)
            if key is None:
                raise PermanentFailure("there is no such contract")
            return model.set_contract(ticket, key, actor=actor, now=now)

        await self._change(number, decide)
        log.info("ticket.contract_set", ticket=number, contract=contract)

    async def confirm(
        self, number: str, *, solved: bool, actor: str, how: str, note: str = ""
    ) -> None:
        """Take the requester's word for it: solved closes the ticket, not solved reopens it.

        Raises:
            NotFound: there is no such ticket.
            ActionNotAllowed: it is not resolved (any more): the word comes late.
        """

        async def decide(_work: UnitOfWork, ticket: Ticket, now: datetime) -> Decision:
            return model.confirm(ticket, solved=solved, actor=actor, how=how, note=note, now=now)

        await self._change(number, decide)
        log.info("ticket.confirmed", ticket=number, solved=solved, how=how)

    async def rate(
        self, number: str, mark: int, *, actor: str, how: str, contact: str = ""
    ) -> None:
        """Take what the requester thinks of the service, once the ticket is closed: 1 to 5.

        `contact` is the external id of the contact that says so.

        Raises:
            NotFound: there is no such ticket.
            ActionNotAllowed: it is not closed.
            PermanentFailure: that is no mark.
        """

        async def decide(_work: UnitOfWork, ticket: Ticket, now: datetime) -> Decision:
            return model.rate(ticket, mark, actor=actor, how=how, contact=contact, now=now)

        await self._change(number, decide)
        log.info("ticket.rated", ticket=number, how=how)

    async def ask_call_back(self, number: str, phone: str, wished: str = "", *, actor: str) -> None:
        """Note that the requester wants to be called back, on which number and when.

        Whoever is on duty hears of the contact by which they asked, not of this.

        Raises:
            NotFound: there is no such ticket.
            ActionNotAllowed: it is over.
        """

        async def decide(_work: UnitOfWork, ticket: Ticket, now: datetime) -> Decision:
            return model.ask_call_back(ticket, phone, wished, actor=actor, now=now)

        await self._change(number, decide)
        log.info("ticket.call_back_asked", ticket=number)

    async def ask_remote(self, number: str, *, actor: str) -> None:
        """Note that the requester wants remote help: the promise of it begins (C2).

        Raises:
            NotFound: there is no such ticket.
            ActionNotAllowed: it is over.
        """

        async def decide(work: UnitOfWork, ticket: Ticket, now: datetime) -> Decision:
            entries = await work.tickets.journal(ticket)
            return model.ask_remote(ticket, entries, actor=actor, now=now)

        await self._change(number, decide)
        log.info("ticket.remote_asked", ticket=number)

    async def dispatch(self, number: str, engineer: str, *, actor: str) -> int:
        """Ask an engineer to go to the site; return the dispatch's number within the ticket.

        Raises:
            NotFound: there is no such ticket.
            ActionNotAllowed: nobody need go, or this engineer is asked or there already.
            PermanentFailure: there is no such engineer.
        """

        async def do(work: UnitOfWork) -> int:
            ticket = await self._find(work, number)
            await _check_engineer(work, engineer)
            moved = dispatching.offer(
                ticket,
                await work.dispatches.of_ticket(ticket.id),
                engineer,
                code=f"{secrets.randbelow(10**CODE_DIGITS):0{CODE_DIGITS}}",
                actor=actor,
                now=self._clock.now(),
            )
            await work.dispatches.add(moved.dispatch)
            await self._apply(work, Decision(ticket=ticket, entries=moved.entries))
            return moved.dispatch.number

        dispatch = await self._transact(do)
        self._signal()
        log.info("dispatch.offered", ticket=number, dispatch=dispatch, engineer=engineer)
        return dispatch

    async def dispatch_step(
        self, number: str, step: Step, *, actor: str, code: str = "", dispatch: int | None = None
    ) -> None:
        """Say how a dispatch goes; `code` is what the requester told who arrived.

        Without `dispatch` it is the actor's own, or the only one under way. Who accepts it gets
        the ticket if nobody has it.

        Raises:
            NotFound: there is no such ticket, or no such dispatch.
            ActionNotAllowed: the dispatch's state has no such transition, or it is somebody else's.
            WrongCode: it is not the requester's code, or too many were wrong.
            PermanentFailure: several are under way, or this step takes no code.
        """

        async def do(work: UnitOfWork) -> Moved:
            ticket = await self._find(work, number)
            now = self._clock.now()
            known = await work.dispatches.of_ticket(ticket.id)
            mine = dispatching.chosen(known, actor=actor, number=dispatch)
            moved = dispatching.move(ticket, mine, step, actor=actor, code=code, now=now)
            decision = Decision(ticket=ticket, entries=moved.entries)
            if moved.accepted:
                taken = model.take(ticket, mine.engineer, how="dispatch", now=now, actor=actor)
                if taken is not None:
                    entries = (*moved.entries, *taken.entries)
                    decision = Decision(ticket=taken.ticket, entries=entries)
            await work.dispatches.save([moved.dispatch])
            await self._apply(work, decision)
            return moved

        moved = await self._transact(do)
        self._signal()
        log.info("dispatch.moved", ticket=number, step=step.value, refused=bool(moved.refused))
        if moved.refused:  # counted, so after the commit
            raise WrongCode(moved.refused)

    async def progress(self, number: str) -> Progress | None:
        """Return what somebody who asks for this ticket is told; None if there is none such."""
        number = digits_of(number)
        if not is_valid(number):
            return None
        async with self._new_work(reads_only=True) as work:
            ticket = await work.tickets.find(number)
            if ticket is not None and ticket.merged_into:
                ticket = await work.tickets.find(ticket.merged_into)
            if ticket is None:
                return None
            name = await work.people.engineer_name(ticket.assignee) if ticket.assignee else None
            branches = await work.people.branches([ticket.site], []) if ticket.site else {}
            promised = await work.tickets.next_promise(ticket.id)
        return Progress(
            number=ticket.number,
            state=ticket.state,
            engineer=ticket.assignee or None,
            engineer_name=name,
            promise=promised.promise if promised else Promise.NONE,
            promise_at=promised.due_at if promised else None,
            overdue=promised is not None
            and (promised.is_broken or promised.due_at <= self._clock.now()),
            zone=branches[ticket.site].zone if branches else self._policy.zone,
        )

    async def _change(
        self,
        ticket: int | str,
        decide: Callable[[UnitOfWork, Ticket, datetime], Awaitable[Decision]],
    ) -> None:
        """Store what `decide` says of the ticket as it is now, in one transaction."""

        async def do(work: UnitOfWork) -> None:
            found = await self._find(work, ticket)
            await self._apply(work, await decide(work, found, self._clock.now()))

        await self._transact(do)
        self._signal()

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
        contacts = [model.clean(contact) for contact in contacts]
        keys = {_key(contact): contact for contact in contacts}
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
        new = [each for key, each in contacts.items() if each is not None and key not in seen]
        mails = [each.mail for each in new if each.mail is not None]
        texts = [each for each in new if each.medium is Medium.TEXT]
        asked = await self._asked(work, texts) if texts else {}
        in_texts = {each for text in texts for each in mentioned(text.text)}
        in_texts |= {number for numbers in asked.values() for number in numbers}
        in_texts |= {each.ticket for each in new if each.ticket}
        answered, tickets = await _named_by(work, mails, in_texts)
        people = [caller.person for caller in callers.values()]
        people += [each.requester for each in tickets.values()]
        people += [each.person for each in seen.values()]
        addresses |= {address_of(each.contact, country=country) for each in seen.values()}
        sites = {*(person.site for person in people), *(each.site for each in new)} - {""}
        areas = {_area(address) for address in addresses} - {""}
        branches = await work.people.branches(sites, areas) if sites or areas else {}
        return Known(
            seen=seen, callers=callers, branches=branches, named=tickets, answered=answered,
            asked=asked,
        )  # fmt: skip

    async def _asked(
        self, work: UnitOfWork, texts: Sequence[Contact]
    ) -> Mapping[str, tuple[str, ...]]:
        """Return about which tickets those were asked who say what to do, and not with which."""
        numbers = {
            address_of(each, country=self._policy.home_country).value
            for each in texts
            if says(each.text) in _ANSWERS and any(bare(each.text, sender) for sender in Sender)
        }
        return await work.tickets.asked(numbers - {""}, self._clock.now()) if numbers else {}

    async def _store(self, work: UnitOfWork, filing: Filing) -> None:
        """Write what was decided: people, tickets, contacts, journals, then what happened."""
        if filing.people:
            ids = await work.people.add(filing.people)
            for person, person_id in zip(filing.people, ids, strict=True):
                person.person = replace(person.person, id=person_id)
        journals = await self._store_tickets(work, filing.tickets)
        await self._store_contacts(work, filing.contacts)
        if journals:
            await _append(work, journals)
        for slip in filing.contacts:
            if slip.ended:
                work.emit(slip.end())
            if slip.asks:
                asks = TextDue if slip.contact.medium is Medium.TEXT else MailDue
                work.emit(asks(ticket_id=slip.ticket.ticket.id, contact_id=slip.id))

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

    async def _person(self, work: UnitOfWork, person_id: int) -> Person:
        found = await work.people.person(person_id)
        if found is None:
            raise NotFound("there is no such person")
        return found

    async def _own_person(self, work: UnitOfWork, person_id: int) -> Person:
        """Return somebody whom the desk file does not know: it would undo every change."""
        found = await self._person(work, person_id)
        if found.key:
            raise PermanentFailure("this person is kept in the desk file")
        return found

    async def _called(self, work: UnitOfWork, person_id: int) -> str:
        """Return what a journal calls somebody: their name, or an address of theirs."""
        person = await work.people.person(person_id)
        if person is not None and person.name:
            return person.name
        known = await work.people.known_by(person_id)
        return known[0].value if known else ""

    async def _whose(
        self, work: UnitOfWork, added: Iterable[Address], person: int
    ) -> list[Address]:
        """Return the addresses that are nobody's yet.

        Raises:
            Taken: one is somebody else's.
        """
        free = []
        for address in added:
            owner = await work.people.owner(address)
            if owner not in (None, person):
                raise Taken(owner or 0)
            if owner is None:
                free.append(address)
        return free

    async def _suit(self, work: UnitOfWork, person_id: int, actor: str) -> None:
        """Let somebody's open tickets follow from who they are."""
        person, now = await self._person(work, person_id), self._clock.now()
        known = await work.people.known_by(person_id)
        areas = {_area(each) for each in known} - {""}
        sites = {person.site} - {""}
        branches = await work.people.branches(sites, areas) if sites or areas else {}
        branch = next(
            (found for each in known if (found := branch_of(person, each, branches))),
            branches.get(person.site),
        )
        for ticket in await work.people.open_tickets(person_id):
            matrix = self._policy.matrix
            decision = model.suit(ticket, person, branch, matrix=matrix, actor=actor, now=now)
            await self._apply(work, decision)

    async def _apply(self, work: UnitOfWork, decision: Decision) -> None:
        ticket, entries = model.sealed(decision.ticket, decision.entries)
        if entries:
            await work.tickets.save([ticket])
            await _append(work, [(ticket.id, entry) for entry in entries])

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


def _engineer_of(actor: str) -> str:
    return actor.removeprefix(model.ENGINEER) if actor.startswith(model.ENGINEER) else ""


async def _check_seen(
    work: UnitOfWork, ticket: Ticket, seen: int | None, actions: Set[str]
) -> None:
    if seen is None or seen >= ticket.journal_seq:
        return
    if await work.tickets.changed_since(ticket.id, seen, actions):
        raise Outdated("somebody else has changed it meanwhile")


async def _check_engineer(work: UnitOfWork, key: str) -> None:
    if await work.people.engineer_name(key) is None:
        raise PermanentFailure("there is no such engineer")


async def _without_visits(
    work: UnitOfWork, decision: Decision, actor: str, now: datetime
) -> Decision:
    """Call off who has not arrived yet, if the ticket's new state needs nobody there."""
    if not dispatching.is_over(decision.ticket):
        return decision
    known = await work.dispatches.of_ticket(decision.ticket.id)
    off = dispatching.called_off(decision.ticket, known, actor=actor, now=now)
    await work.dispatches.save([moved.dispatch for moved in off])
    entries = tuple(entry for moved in off for entry in moved.entries)
    return replace(decision, entries=decision.entries + entries)


async def _named_by(
    work: UnitOfWork, mails: Sequence[MailFacts], in_texts: Set[str]
) -> tuple[Mapping[str, str], Mapping[str, Named]]:
    """Return what mails and texts name: tickets by Message-ID, and those with who takes part."""
    ids = {each for mail in mails for each in (*mail.references, mail.message_id) if each}
    answered = await work.tickets.answered(ids) if ids else {}
    numbers = {each for mail in mails for each in (mail.proved, *mail.mentioned) if each}
    numbers |= {*answered.values(), *in_texts}
    return answered, await work.tickets.named(numbers) if numbers else {}


async def _append(work: UnitOfWork, entries: Sequence[tuple[int, Entry]]) -> None:
    """Append to journals; whoever follows a ticket up looks at it after the commit."""
    await work.tickets.append(entries)
    for ticket_id in dict.fromkeys(ticket_id for ticket_id, _ in entries):
        work.emit(TicketDue(ticket_id=ticket_id))


def _key(contact: Contact) -> ContactKey:
    return contact.medium, contact.external_id


def _area(address: Address) -> str:
    return area_code(address.value) if address.kind == PHONE else ""
