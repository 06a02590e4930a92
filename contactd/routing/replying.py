"""What people write back: engineers take, set out, arrive and finish by text; requesters confirm.

The medium brings the sender's address and the text, and sends back what `Answer` says. A text that
is no reply is a contact like any other: `None`. So is any text of somebody nobody knows.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from contactd.errors import ActionNotAllowed, NotFound, PermanentFailure
from contactd.routing.follow_up import Author, FollowUp, NewRoutingWork
from contactd.routing.following import Watch
from contactd.tickets.contact import Medium
from contactd.tickets.dispatching import Step, WrongCode
from contactd.tickets.model import ENGINEER, Progress, Ticket
from contactd.tickets.people import Address
from contactd.tickets.replies import Reply, Sender, Verb, parse
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
    LATE = "late"  # somebody else was faster, or it is over, or it is too early
    WRONG_CODE = "wrong_code"
    NO_TICKET = "no_ticket"  # none of this number, or none of the sender's


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    heard: Heard
    ticket: str  # number, as it was written
    progress: Progress | None = None  # with STATUS


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A reply with who sent it by what, and the ticket that it names."""

    author: Author
    reply: Reply
    ticket: Ticket
    medium: Medium

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
    ) -> None:
        self._new_work = new_work
        self._tickets = tickets
        self._follow_up = follow_up
        self._watch = watch
        self._engineers: Mapping[Verb, Callable[[_Asked], Awaitable[Heard]]] = {
            Verb.TAKE: self._answer_page,
            Verb.PASS: self._answer_page,
            Verb.SET_OUT: self._set_out,
            Verb.ARRIVE: self._step,
            Verb.FINISH: self._finish,
            Verb.SOLVED: self._resolve,
            Verb.NOT_SOLVED: self._reopen,
        }

    async def reply(self, address: Address, text: str, medium: Medium) -> Answer | None:
        """Do what the sender of a text asks for; None if a person has to read it.

        The medium has made sure that it comes from this address.

        Raises:
            TemporaryFailure: the same text may be given again, whatever of it was done.
        """
        author = await self._author(address)
        if author is None:
            return None
        reply = parse(text, Sender.ENGINEER if author.engineer else Sender.REQUESTER)
        if reply is None:
            return None
        async with self._new_work(reads_only=True) as work:
            ticket = await work.tickets.find(reply.ticket)
        if ticket is None or not _may_ask(author, ticket):
            return Answer(heard=Heard.NO_TICKET, ticket=reply.ticket)
        if reply.verb is Verb.STATUS:
            progress = await self._tickets.progress(ticket.number)
            return Answer(heard=Heard.STATUS, ticket=reply.ticket, progress=progress)
        asked = _Asked(author=author, reply=reply, ticket=ticket, medium=medium)
        return Answer(heard=await self._heard(asked), ticket=reply.ticket)

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
        solved = asked.reply.verb is Verb.SOLVED
        await self._tickets.confirm(
            asked.ticket.number, solved=solved, actor="requester", how=asked.medium.value
        )
        return Heard.SOLVED if solved else Heard.REOPENED

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


def _may_ask(author: Author, ticket: Ticket) -> bool:
    return bool(author.engineer) or ticket.requester_id == author.person_id
