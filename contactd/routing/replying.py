"""What people write back: engineers take, set out, arrive and finish by text; requesters confirm.

The medium brings the sender's address and the text, and sends back what `Answer` says. A text that
is no reply is a contact like any other: `None`.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from contactd.errors import ActionNotAllowed, NotFound, PermanentFailure
from contactd.routing.follow_up import Author, FollowUp, NewRoutingWork
from contactd.tickets.contact import Medium
from contactd.tickets.dispatching import Step, WrongCode
from contactd.tickets.model import ENGINEER, Progress
from contactd.tickets.people import Address
from contactd.tickets.replies import Reply, Sender, Verb, parse
from contactd.tickets.service import TicketService
from contactd.tickets.states import Action


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
    LATE = "late"  # somebody else was faster, or it is over
    WRONG_CODE = "wrong_code"
    NO_TICKET = "no_ticket"  # none of this number, or none of the sender's


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    heard: Heard
    ticket: str  # number, as it was written
    progress: Progress | None = None  # with STATUS


_ARRIVALS: Final = {Verb.ARRIVE: Step.ARRIVE, Verb.FINISH: Step.FINISH}
_HEARD: Final = {Verb.ARRIVE: Heard.ARRIVED, Verb.FINISH: Heard.DONE}
_KEYS: Final = {Verb.TAKE: "1", Verb.PASS: "2", Verb.SET_OUT: "4"}


class Replying:
    """Understands replies and does what they say."""

    def __init__(
        self, *, new_work: NewRoutingWork, tickets: TicketService, follow_up: FollowUp
    ) -> None:
        self._new_work = new_work
        self._tickets = tickets
        self._follow_up = follow_up
        self._engineers: Mapping[Verb, Callable[[Author, Reply, Medium], Awaitable[Heard]]] = {
            Verb.TAKE: self._key,
            Verb.PASS: self._key,
            Verb.SET_OUT: self._set_out,
            Verb.ARRIVE: self._at_the_site,
            Verb.FINISH: self._at_the_site,
            Verb.SOLVED: self._resolve,
        }

    async def reply(self, address: Address, text: str, medium: Medium) -> Answer | None:
        """Do what the sender of a text asks for; None if a person has to read it.

        Raises:
            TemporaryFailure: nothing was done; the same text may be given again.
        """
        async with self._new_work(reads_only=True) as work:
            author = await work.routing.author(address)
        if author is None:
            return None
        sender = Sender.ENGINEER if author.engineer else Sender.REQUESTER
        reply = parse(text, sender)
        if reply is None:
            return None
        if reply.verb is Verb.STATUS:
            return await self._status(author, reply)
        try:
            heard = await self._do(author, reply, medium)
        except WrongCode:
            heard = Heard.WRONG_CODE
        except NotFound:
            heard = Heard.NO_TICKET
        except (ActionNotAllowed, PermanentFailure):
            heard = Heard.LATE
        return Answer(heard=heard, ticket=reply.ticket)

    async def _do(self, author: Author, reply: Reply, medium: Medium) -> Heard:
        if not author.engineer:
            return await self._confirm(author, reply, medium)
        act = self._engineers.get(reply.verb)
        return await act(author, reply, medium) if act is not None else Heard.LATE

    async def _status(self, author: Author, reply: Reply) -> Answer:
        progress = await self._tickets.progress(reply.ticket)
        if progress is None or not await self._may_ask(author, reply.ticket):
            return Answer(heard=Heard.NO_TICKET, ticket=reply.ticket)
        return Answer(heard=Heard.STATUS, ticket=reply.ticket, progress=progress)

    async def _may_ask(self, author: Author, ticket: str) -> bool:
        async with self._new_work(reads_only=True) as work:
            found = await work.tickets.find(ticket)
        return found is not None and (
            bool(author.engineer) or found.requester_id == author.person_id
        )

    async def _confirm(self, author: Author, reply: Reply, medium: Medium) -> Heard:
        if not await self._may_ask(author, reply.ticket):
            return Heard.NO_TICKET
        solved = reply.verb is Verb.SOLVED
        await self._tickets.confirm(
            reply.ticket, solved=solved, actor="requester", how=medium.value
        )
        return Heard.SOLVED if solved else Heard.REOPENED

    async def _key(self, author: Author, reply: Reply, medium: Medium) -> Heard:
        """Answer the last page about this ticket; without one, take the ticket all the same."""
        async with self._new_work(reads_only=True) as work:
            ref = await work.routing.latest_page(reply.ticket, author.engineer)
        if ref:
            return _PRESSED[await self._follow_up.answered(ref, _KEYS[reply.verb])]
        if reply.verb is Verb.PASS:
            return Heard.LATE
        taken = await self._tickets.take(reply.ticket, author.engineer, how=medium.value)
        return Heard.TAKEN if taken else Heard.LATE

    async def _set_out(self, author: Author, reply: Reply, medium: Medium) -> Heard:
        actor = ENGINEER + author.engineer
        try:
            await self._tickets.dispatch_step(reply.ticket, Step.SET_OUT, actor=actor)
        except NotFound:  # nobody was sent: "on my way" answers the page
            return await self._key(author, reply, medium)
        return Heard.ON_WAY

    async def _at_the_site(self, author: Author, reply: Reply, _medium: Medium) -> Heard:
        actor = ENGINEER + author.engineer
        step = _ARRIVALS[reply.verb]
        await self._tickets.dispatch_step(reply.ticket, step, actor=actor, code=reply.code)
        return _HEARD[reply.verb]

    async def _resolve(self, author: Author, reply: Reply, _medium: Medium) -> Heard:
        actor = ENGINEER + author.engineer
        await self._tickets.act(reply.ticket, Action.RESOLVE, actor=actor)
        return Heard.SOLVED


_PRESSED: Final[Mapping[str, Heard]] = {
    "taken": Heard.TAKEN,
    "passed": Heard.PASSED,
    "on_way": Heard.ON_WAY,
    "late": Heard.LATE,
}
