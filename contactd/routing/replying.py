"""What people write back: engineers take, set out, arrive and finish by text; requesters confirm.

The medium brings the sender's address and the text, and sends back what `Answer` says. A text that
is no reply is a contact like any other: `None`. So is any text of somebody nobody knows.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from contactd.clock import Clock
from contactd.errors import ActionNotAllowed, NotFound, PermanentFailure
from contactd.routing import needs
from contactd.routing.closing import SURVEYED
from contactd.routing.follow_up import Author, FollowUp, NewRoutingWork, RoutingWork
from contactd.routing.following import Watch
from contactd.tickets.contact import Medium
from contactd.tickets.dispatching import Step, WrongCode
from contactd.tickets.journal import REQUESTER, SYSTEM
from contactd.tickets.model import ENGINEER, RATED, Progress, Ticket
from contactd.tickets.people import Address
from contactd.tickets.replies import Reply, Sender, Verb, bare, parse
from contactd.tickets.service import TicketService
from contactd.tickets.states import Action, State


class Heard(StrEnum):
    """What became of a reply."""

    TAKEN = "taken"
    PASSED = "passed"
    ON_WAY = "on_way"
    ARRIVED = "arrived"
    DONE = "done"
    SOLVED = "solved"
    REOPENED = "reopened"
    STATUS = "status"
    RATED = "rated"
    WHICH = "which"  # it names no ticket, and several could be meant
    LATE = "late"  # somebody else was faster, or it is over, or it is too early
    WRONG_CODE = "wrong_code"
    NO_TICKET = "no_ticket"  # none of this number, or none of the sender's


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    heard: Heard
    ticket: str  # number, as it was written
    progress: Progress | None = None  # with STATUS

    def said(self) -> tuple[str, Mapping[str, str]]:
        """Return what is told of it: about which ticket, "" the one it was filed under; the facts.

        For the notification `HEARD`.
        """
        if (progress := self.progress) is None:
            own = self.ticket if self.heard is not Heard.NO_TICKET else ""
            return own, {"heard": self.heard.value}
        due = progress.promise_at
        facts = {
            "heard": progress.state.value,
            "engineer": progress.engineer_name or "",
            "due": due.isoformat() if due is not None else "",
        }
        return progress.number, facts


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A reply with who sent it by what, and the ticket that it names."""

    author: Author
    reply: Reply
    ticket: Ticket
    medium: Medium
    contact: str

    @property
    def actor(self) -> str:
        return ENGINEER + self.author.engineer


_KEYS: Final = {Verb.TAKE: "1", Verb.PASS: "2", Verb.SET_OUT: "4"}
_PRESSED: Final[Mapping[str, Heard]] = {
    "taken": Heard.TAKEN,
    "passed": Heard.PASSED,
    "on_way": Heard.ON_WAY,
    "late": Heard.LATE,
}
_STEPS: Final[Mapping[Verb, tuple[Step, Heard]]] = {
    Verb.TAKE: (Step.ACCEPT, Heard.TAKEN),
    Verb.PASS: (Step.DECLINE, Heard.PASSED),
    Verb.SET_OUT: (Step.SET_OUT, Heard.ON_WAY),
    Verb.ARRIVE: (Step.ARRIVE, Heard.ARRIVED),
    Verb.FINISH: (Step.FINISH, Heard.DONE),
}


class Replying:
    """Understands replies and does what they say."""

    def __init__(
        self,
        *,
        new_work: NewRoutingWork,
        tickets: TicketService,
        follow_up: FollowUp,
        watch: Callable[[], Awaitable[Watch]],
        clock: Clock,
    ) -> None:
        self._new_work = new_work
        self._tickets = tickets
        self._follow_up = follow_up
        self._watch = watch
        self._clock = clock
        self._engineers: Mapping[Verb, Callable[[_Asked], Awaitable[Heard]]] = {
            Verb.TAKE: self._answer_page,
            Verb.PASS: self._answer_page,
            Verb.SET_OUT: self._set_out,
            Verb.ARRIVE: self._step,
            Verb.FINISH: self._finish,
            Verb.SOLVED: self._resolve,
            Verb.NOT_SOLVED: self._reopen,
        }

    async def reply(
        self, address: Address, text: str, medium: Medium, contact: str = ""
    ) -> Answer | None:
        """Do what the sender of a text asks for; None if a person has to read it.

        The medium has made sure that it comes from this address; `contact` is the external id of
        what brought it. By text a reply need not name its ticket, if it is clear which one.

        Raises:
            TemporaryFailure: the same text may be given again, whatever of it was done.
        """
        author = await self._author(address)
        if author is None:
            return None
        answer = await self._answer(author, address, text, medium, contact)
        if answer is not None and contact and not _is_for_a_person(author, answer, text):
            await self._say_heard(author, medium, contact, answer.heard)
        return answer

    async def _answer(
        self, author: Author, address: Address, text: str, medium: Medium, contact: str
    ) -> Answer | None:
        sender = _sender(author)
        reply = parse(text, sender)
        if reply is None and medium is Medium.TEXT and (short := bare(text, sender)) is not None:
            meant = await self._meant(address, short, contact)
            if len(meant) > 1:
                return Answer(heard=Heard.WHICH, ticket=meant[0])
            reply = replace(short, ticket=meant[0]) if meant else None
        if reply is None:
            return None
        async with self._new_work(reads_only=True) as work:
            ticket = await work.tickets.find(reply.ticket)
        if ticket is None or not _may_ask(author, ticket):
            return Answer(heard=Heard.NO_TICKET, ticket=reply.ticket)
        if reply.verb is Verb.STATUS:
            progress = await self._tickets.progress(ticket.number)
            return Answer(heard=Heard.STATUS, ticket=reply.ticket, progress=progress)
        asked = _Asked(author=author, reply=reply, ticket=ticket, medium=medium, contact=contact)
        return Answer(heard=await self._heard(asked), ticket=reply.ticket)

    async def _meant(self, address: Address, reply: Reply, contact: str) -> Sequence[str]:
        """Return the tickets that a reply without a number may be about, the likeliest first."""
        async with self._new_work(reads_only=True) as work:
            if reply.verb is Verb.STATUS and (of := await _open_of(work, address, contact)):
                return (of,)
            asked = (await work.tickets.asked({address.value}, self._clock.now())).get(
                address.value, ()
            )
            if reply.verb is Verb.STATUS:
                return asked[:1]
            found = [await work.tickets.find(number) for number in asked]
        return [each.number for each in found if each is not None and _fits(reply, each)]

    async def _say_heard(self, author: Author, medium: Medium, contact: str, heard: Heard) -> None:
        """Note on the ticket that a reply lies on that nobody need read it; once.

        A ticket that a requester's reply has opened stays: they know of no other.
        """
        async with self._new_work(reads_only=True) as work:
            seen = (await work.contacts.seen({(medium, contact)})).get((medium, contact))
            case = await work.routing.case(seen.ticket.id) if seen is not None else None
        if seen is None or case is None or (seen.opened and not author.engineer):
            return
        known = {each.body["contact"] for each in case.journal if each.action in _NOTED}
        if contact not in known:
            body = {"contact": contact, "heard": heard.value}
            await self._tickets.note(case.ticket.id, needs.REPLY_HEARD, actor=SYSTEM, body=body)

    async def _author(self, address: Address) -> Author | None:
        """Return who has this address; who was an engineer once is a requester now."""
        async with self._new_work(reads_only=True) as work:
            author = await work.routing.author(address)
        if author is None or not author.engineer:
            return author
        is_known = author.engineer in (await self._watch()).duties.by_key
        return author if is_known else replace(author, engineer="")

    async def _heard(self, asked: _Asked) -> Heard:
        act = self._engineers[asked.reply.verb] if asked.author.engineer else self._confirm
        try:
            return await act(asked)
        except WrongCode:
            return Heard.WRONG_CODE
        except NotFound:
            return Heard.NO_TICKET
        except PermanentFailure:
            return Heard.LATE

    # Requesters

    async def _confirm(self, asked: _Asked) -> Heard:
        number, how = asked.ticket.number, asked.medium.value
        is_mark = asked.reply.verb is Verb.RATE or (
            asked.reply.mark > 0 and await self._was_surveyed(asked.ticket)
        )
        if is_mark:
            mark, contact = asked.reply.mark, asked.contact
            await self._tickets.rate(number, mark, actor=REQUESTER, how=how, contact=contact)
            return Heard.RATED
        solved = asked.reply.verb is Verb.SOLVED
        await self._tickets.confirm(number, solved=solved, actor=REQUESTER, how=how)
        return Heard.SOLVED if solved else Heard.REOPENED

    async def _was_surveyed(self, ticket: Ticket) -> bool:
        """Return whether 1 and 2 are marks by now; before, they said whether it is solved."""
        async with self._new_work(reads_only=True) as work:
            case = await work.routing.case(ticket.id)
        return case is not None and any(entry.action == SURVEYED for entry in case.journal)

    # Engineers

    async def _answer_page(self, asked: _Asked) -> Heard:
        """Answer the last page about this ticket, or else speak of it all the same."""
        verb, person = asked.reply.verb, asked.author.engineer
        async with self._new_work(reads_only=True) as work:
            ref = await work.routing.latest_page(asked.ticket.number, person)
        if ref:
            return _PRESSED[await self._follow_up.answered(ref, _KEYS[verb], asked.medium)]
        try:
            return await self._step(asked)
        except (NotFound, ActionNotAllowed):  # they were not sent, or that is over
            return await self._unasked(asked)

    async def _unasked(self, asked: _Asked) -> Heard:
        """Take a ticket of which nobody has told the engineer, or give back what they have."""
        number, person = asked.ticket.number, asked.author.engineer
        if asked.reply.verb is Verb.PASS:
            is_back = await self._follow_up.give_back(asked.ticket.id, person)
            return Heard.PASSED if is_back else Heard.LATE
        if not await self._tickets.take(number, person, how=asked.medium.value):
            return Heard.LATE
        if asked.reply.verb is Verb.TAKE:
            return Heard.TAKEN
        await self._tickets.note(number, "on_my_way", actor=asked.actor, body={})
        return Heard.ON_WAY

    async def _set_out(self, asked: _Asked) -> Heard:
        try:
            return await self._step(asked)
        except (NotFound, ActionNotAllowed):
            return await self._answer_page(asked)

    async def _step(self, asked: _Asked) -> Heard:
        step, heard = _STEPS[asked.reply.verb]
        await self._tickets.dispatch_step(
            asked.ticket.number, step, actor=asked.actor, code=asked.reply.code
        )
        return heard

    async def _finish(self, asked: _Asked) -> Heard:
        """End the work at the site; of who was not sent there it is the ticket that is done."""
        try:
            return await self._step(asked)
        except NotFound:
            return await self._resolve(asked)

    async def _resolve(self, asked: _Asked) -> Heard:
        number, person = asked.ticket.number, asked.author.engineer
        if asked.ticket.state is State.NEW:  # done before anybody has said who does it
            await self._tickets.take(number, person, how=asked.medium.value)
        await self._tickets.act(number, Action.RESOLVE, actor=asked.actor)
        return Heard.SOLVED

    async def _reopen(self, asked: _Asked) -> Heard:
        await self._tickets.act(asked.ticket.number, Action.REOPEN, actor=asked.actor)
        return Heard.REOPENED


_NOTED: Final = frozenset({RATED, needs.REPLY_HEARD})


def _sender(author: Author) -> Sender:
    return Sender.ENGINEER if author.engineer else Sender.REQUESTER


def _is_for_a_person(author: Author, answer: Answer, text: str) -> bool:
    """Return whether somebody has to act on a reply that was answered: it is not solved."""
    if author.engineer or answer.heard not in (Heard.LATE, Heard.REOPENED):
        return False
    reply = parse(text, Sender.REQUESTER) or bare(text, Sender.REQUESTER)
    return reply is not None and reply.verb is Verb.NOT_SOLVED


async def _open_of(work: RoutingWork, address: Address, contact: str) -> str:
    """Return the number of somebody's open ticket, "" if what asks has opened it itself."""
    found = (await work.people.callers({address})).get(address)
    if found is None or found.ticket is None:
        return ""
    case = await work.routing.case(found.ticket.id)
    is_its_own = case is not None and case.journal[0].body.get("contact") == contact != ""
    return "" if is_its_own else found.ticket.number


def _fits(reply: Reply, ticket: Ticket) -> bool:
    """Return whether a reply without a number can be an answer to what was asked about a ticket."""
    if reply.verb is Verb.RATE:
        return ticket.state is State.CLOSED
    return bool(reply.mark) or ticket.state is not State.CLOSED


def _may_ask(author: Author, ticket: Ticket) -> bool:
    return bool(author.engineer) or ticket.requester_id == author.person_id
