"""The REST API's actions: what people of the desk do to a ticket, each with a body of its own."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from pydantic import BaseModel

from contactd.errors import ActionNotAllowed, PermanentFailure
from contactd.httpd import Identity
from contactd.tickets.contact import Medium
from contactd.tickets.describing import Description
from contactd.tickets.dispatching import Step
from contactd.tickets.model import Classification
from contactd.tickets.people import Role
from contactd.web import resources as r
from contactd.web.access import ACTING, DECIDING
from contactd.web.endpoints import PREFIX, Answer, Asked, Endpoint
from contactd.web.writing import Writing, cleaned, new_key, text_key


class Work(Protocol):
    """What is done to a ticket that is open; `TicketService` has it."""

    async def take(
        self, ticket: int | str, engineer: str, *, how: str, actor: str = ""
    ) -> bool: ...

    async def describe(
        self, number: str, said: Description, *, actor: str, seen: int | None = None
    ) -> None: ...

    async def comment(self, number: str, words: str, *, actor: str, key: str = "") -> None: ...

    async def merge(self, number: str, into: str, *, actor: str) -> None: ...

    async def split(self, contact_id: int, *, actor: str) -> str: ...

    async def set_requester(self, number: str, person: int, *, actor: str) -> None: ...

    async def ask_call_back(
        self, number: str, phone: str, wished: str = "", *, actor: str
    ) -> None: ...

    async def ask_remote(self, number: str, *, actor: str) -> None: ...

    async def classify(
        self, number: str, said: Classification, *, actor: str, seen: int | None = None
    ) -> None: ...

    async def answered(
        self, number: str, *, actor: str, how: str, at: datetime | None = None, engineer: str = ""
    ) -> None: ...

    async def updated(self, number: str, *, actor: str, note: str) -> None: ...

    async def hand_over(
        self, number: str, engineer: str, *, actor: str, note: str = "", seen: int | None = None
    ) -> None: ...

    async def assign_team(
        self, number: str, team: str, *, actor: str, seen: int | None = None
    ) -> None: ...

    async def set_contract(
        self, number: str, contract: str, *, actor: str, seen: int | None = None
    ) -> None: ...

    async def confirm(
        self, number: str, *, solved: bool, actor: str, how: str, note: str = ""
    ) -> None: ...

    async def dispatch(self, number: str, engineer: str, *, actor: str) -> int: ...

    async def dispatch_step(
        self, number: str, step: Step, *, actor: str, code: str = "", dispatch: int | None = None
    ) -> None: ...


class WritesMails(Protocol):
    """The use case; `routing.follow_up.FollowUp` has it."""

    async def write(  # noqa: PLR0913 - who says what by which medium
        self, number: str, *, actor: str, words: str, key: str, medium: Medium, subject: str
    ) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Mails:
    """`preview` returns address, subject and text of a mail as it would be sent."""

    preview: Callable[[str, str, str], Awaitable[tuple[str, str, str]]]
    writes: WritesMails


@dataclass(frozen=True, slots=True, kw_only=True)
class Actions:
    """The handlers; each answers with the ticket as it is then, which `show` reads.

    `writing` None: nobody can be sent a text; `mails` None: nor a mail. `sees_ticket` and
    `sees_person` refuse what lies outside of somebody's sites.
    """

    tickets: Work
    show: Callable[[Asked], Awaitable[r.TicketDetail]]
    sees_ticket: Callable[[Identity, str], Awaitable[None]]
    sees_person: Callable[[Identity, int], Awaitable[None]]
    writing: Writing | None = None
    mails: Mails | None = None

    async def take(self, asked: Asked) -> r.TicketDetail:
        number, engineer = asked.part("number"), asked.sent(r.TakeTicket).engineer
        actor = actor_of(asked.identity)
        if not await self.tickets.take(number, engineer, how="web", actor=actor):
            raise ActionNotAllowed("somebody else has the ticket, or it is over")
        return await self.show(asked)

    async def classify(self, asked: Asked) -> r.TicketDetail:
        number, sent = asked.part("number"), asked.sent(r.ClassifyTicket)
        said = Classification(
            impact=sent.impact, urgency=sent.urgency, category=sent.category, system=sent.system,
            title=sent.title,
        )  # fmt: skip
        await self.tickets.classify(number, said, actor=actor_of(asked.identity), seen=sent.seen)
        return await self.show(asked)

    async def answered(self, asked: Asked) -> r.TicketDetail:
        number, sent = asked.part("number"), asked.sent(r.NoteAnswer)
        await self.tickets.answered(
            number, actor=actor_of(asked.identity), how=sent.how, at=sent.at, engineer=sent.engineer
        )
        return await self.show(asked)

    async def updated(self, asked: Asked) -> r.TicketDetail:
        number, note = asked.part("number"), asked.sent(r.NoteUpdate).note
        await self.tickets.updated(number, actor=actor_of(asked.identity), note=note)
        return await self.show(asked)

    async def hand_over(self, asked: Asked) -> r.TicketDetail:
        number, sent = asked.part("number"), asked.sent(r.HandOverTicket)
        await self.tickets.hand_over(
            number, sent.engineer, actor=actor_of(asked.identity), note=sent.note, seen=sent.seen
        )
        return await self.show(asked)

    async def assign_team(self, asked: Asked) -> r.TicketDetail:
        number, sent = asked.part("number"), asked.sent(r.AssignTeam)
        await self.tickets.assign_team(
            number, sent.team, actor=actor_of(asked.identity), seen=sent.seen
        )
        return await self.show(asked)

    async def set_contract(self, asked: Asked) -> r.TicketDetail:
        number, sent = asked.part("number"), asked.sent(r.SetContract)
        await self.tickets.set_contract(
            number, sent.contract, actor=actor_of(asked.identity), seen=sent.seen
        )
        return await self.show(asked)

    async def confirm(self, asked: Asked) -> r.TicketDetail:
        number, sent = asked.part("number"), asked.sent(r.ConfirmTicket)
        await self.tickets.confirm(
            number, solved=sent.solved, actor=actor_of(asked.identity), how="web", note=sent.note
        )
        return await self.show(asked)

    async def dispatch(self, asked: Asked) -> r.TicketDetail:
        number, engineer = asked.part("number"), asked.sent(r.SendEngineer).engineer
        await self.tickets.dispatch(number, engineer, actor=actor_of(asked.identity))
        return await self.show(asked)

    async def dispatch_step(self, asked: Asked) -> r.TicketDetail:
        number, sent = asked.part("number"), asked.sent(r.MoveDispatch)
        await self.tickets.dispatch_step(
            number, sent.step, actor=actor_of(asked.identity), code=sent.code,
            dispatch=sent.dispatch,
        )  # fmt: skip
        return await self.show(asked)

    async def describe(self, asked: Asked) -> r.TicketDetail:
        sent = asked.sent(r.DescribeTicket)
        said = Description(**sent.model_dump(exclude={"seen"}))
        await self.tickets.describe(
            asked.part("number"), said, actor=actor_of(asked.identity), seen=sent.seen
        )
        return await self.show(asked)

    async def comment(self, asked: Asked) -> r.TicketDetail:
        words = asked.sent(r.CommentTicket).words
        await self.tickets.comment(asked.part("number"), words, actor=actor_of(asked.identity))
        return await self.show(asked)

    async def merge(self, asked: Asked) -> r.TicketDetail:
        into = asked.sent(r.MergeTicket).into
        await self.sees_ticket(asked.identity, into)
        await self.tickets.merge(asked.part("number"), into, actor=actor_of(asked.identity))
        return await self.show(asked)

    async def split(self, asked: Asked) -> Answer:
        number = await self.tickets.split(asked.id("contact"), actor=actor_of(asked.identity))
        url = f"{PREFIX}/tickets/{number}"
        return Answer(value=r.Split(ticket=number, url=url), location=url)

    async def set_requester(self, asked: Asked) -> r.TicketDetail:
        person = asked.sent(r.SetRequester).person
        await self.sees_person(asked.identity, person)
        await self.tickets.set_requester(
            asked.part("number"), person, actor=actor_of(asked.identity)
        )
        return await self.show(asked)

    async def ask_call_back(self, asked: Asked) -> r.TicketDetail:
        sent = asked.sent(r.AskCallBack)
        await self.tickets.ask_call_back(
            asked.part("number"), sent.phone, sent.wished, actor=actor_of(asked.identity)
        )
        return await self.show(asked)

    async def ask_remote(self, asked: Asked) -> r.TicketDetail:
        await self.tickets.ask_remote(asked.part("number"), actor=actor_of(asked.identity))
        return await self.show(asked)

    async def mail(self, asked: Asked) -> r.TicketDetail:
        sent = asked.sent(r.WriteMail)
        words = cleaned(sent.words)
        key = text_key(new_key(), words)
        await self._mails(words).writes.write(
            asked.part("number"), actor=actor_of(asked.identity), words=words, key=key,
            medium=Medium.MAIL, subject=sent.subject,
        )  # fmt: skip
        return await self.show(asked)

    async def preview_mail(self, asked: Asked) -> r.MailPreview:
        sent = asked.sent(r.WriteMail)
        words = cleaned(sent.words)
        to, subject, text = await self._mails(words).preview(
            asked.part("number"), words, sent.subject
        )
        return r.MailPreview(to=to, subject=subject, text=text)

    async def text(self, asked: Asked) -> r.TicketDetail:
        number, sent = asked.part("number"), asked.sent(r.WriteText)
        words = cleaned(sent.words)
        writing = self._writing(words)
        await writing.texts.write(
            number,
            actor=actor_of(asked.identity),
            words=words,
            key=text_key(sent.key or new_key(), words),
        )
        return await self.show(asked)

    async def preview(self, asked: Asked) -> r.TextPreview:
        words = cleaned(asked.sent(r.PreviewText).words)
        found = await self._writing(words).preview(asked.part("number"), words)
        return r.TextPreview(**{name: getattr(found, name) for name in r.TextPreview.model_fields})

    def _writing(self, words: str) -> Writing:
        if self.writing is None:
            raise PermanentFailure("nobody can be sent a text: see sms.gateways")
        if not words:
            raise PermanentFailure("there are no words in it")
        return self.writing

    def _mails(self, words: str) -> Mails:
        if self.mails is None:
            raise PermanentFailure("nobody can be sent a mail: see mail.host")
        if not words:
            raise PermanentFailure("there are no words in it")
        return self.mails

    def endpoints(self) -> Sequence[Endpoint]:
        return (
            _action("take", self.take, r.TakeTicket, "Give it to an engineer who takes it"),
            _action(
                "classify", self.classify, r.ClassifyTicket,
                "Say what it is about and how bad it is; its priority follows",
            ),
            _action(
                "answered", self.answered, r.NoteAnswer,
                "Note that a person has spoken to the requester",
            ),
            _action(
                "updated", self.updated, r.NoteUpdate,
                "Note that the requester was told how it stands",
            ),
            _action(
                "hand_over", self.hand_over, r.HandOverTicket, "Make an engineer responsible",
            ),
            _action("assign_team", self.assign_team, r.AssignTeam, "Make a team responsible"),
            _action(
                "set_contract", self.set_contract, r.SetContract,
                "Promise what another contract promises, from now on", roles=DECIDING,
            ),
            _action(
                "confirm", self.confirm, r.ConfirmTicket,
                "Take the requester's word: solved closes it, not solved reopens it",
            ),
            _action("dispatch", self.dispatch, r.SendEngineer, "Ask an engineer to go to the site"),
            _action(
                "dispatch_step", self.dispatch_step, r.MoveDispatch, "Say how a dispatch goes",
            ),
            _action(
                "describe", self.describe, r.DescribeTicket,
                "Say more of the fault: what happened, when, on which device",
            ),
            _action(
                "comment", self.comment, r.CommentTicket,
                "Note something that the requester does not see",
            ),
            _action(
                "merge", self.merge, r.MergeTicket,
                "Give another ticket the contacts of this one, which is cancelled",
            ),
            _action("set_requester", self.set_requester, r.SetRequester, "It is somebody else's"),
            _action(
                "ask_call_back", self.ask_call_back, r.AskCallBack,
                "Note that the requester wants to be called back",
            ),
            _action(
                "ask_remote", self.ask_remote, r.AskRemote,
                "Note that the requester wants remote help",
            ),
            _action("text", self.text, r.WriteText, "Write a text to the requester"),
            _action("mail", self.mail, r.WriteMail, "Write a mail to the requester"),
            Endpoint(
                method="POST", path="/tickets/{number}/mail-preview", tag="tickets",
                handler=self.preview_mail, roles=ACTING, body=r.WriteMail, returns=r.MailPreview,
                summary="How a mail to the requester would be sent", problems=(404,),
                twice_is_once=True,
            ),
            Endpoint(
                method="POST", path="/contacts/{contact}/split", tag="contacts",
                handler=self.split, roles=ACTING, body=r.SplitContact, returns=r.Split,
                summary="Give a contact a ticket of its own", problems=(404, 409),
            ),
            Endpoint(
                method="POST", path="/tickets/{number}/text-preview", tag="tickets",
                handler=self.preview, roles=ACTING, body=r.PreviewText, returns=r.TextPreview,
                summary="How a text to the requester would be sent, and what it would cost",
                problems=(404,), twice_is_once=True,
            ),
        )  # fmt: skip


def actor_of(identity: Identity) -> str:
    """Return who does it, as journals name them."""
    return f"user:{identity.name}"


def _action(
    name: str,
    handler: Callable[[Asked], Awaitable[r.TicketDetail]],
    body: type[BaseModel],
    summary: str,
    roles: frozenset[Role] = ACTING,
) -> Endpoint:
    return Endpoint(
        method="POST",
        path=f"/tickets/{{number}}/actions/{name}",
        summary=summary,
        tag="tickets",
        handler=handler,
        roles=roles,
        body=body,
        returns=r.TicketDetail,
        problems=(404, 409),
    )
