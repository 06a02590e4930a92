"""What people of the desk do on a ticket's page: plain forms, each one act, then the page again.

An act that is not possible (any more) shows the page with what was written, and why. Forms that
change what a ticket says carry `seen`, the last entry of its journal when they were drawn: who was
slower sees both versions and decides.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol
from zoneinfo import ZoneInfo

from aiohttp import web

from contactd.errors import ActionNotAllowed, NotFound, PermanentFailure
from contactd.httpd import Identity, Problem, Refused, Route
from contactd.routing.notify import Notification
from contactd.routing.words import Setting, letter
from contactd.tickets.contact import Medium
from contactd.tickets.describing import Description
from contactd.tickets.dispatching import Step, WrongCode
from contactd.tickets.model import Category, Classification
from contactd.tickets.priority import Impact, Urgency
from contactd.tickets.service import Outdated, TicketService
from contactd.tickets.states import Action
from contactd.web.access import ACTING, Right, check_site, may
from contactd.web.actions import actor_of
from contactd.web.pages import see_other
from contactd.web.ticketpage import PATH, Failed, TicketPage
from contactd.web.words import N_
from contactd.web.writing import cleaned, digest, is_key

LONGEST_MAIL: Final = 20_000  # characters
LONGEST_NOTE: Final = 4_000
LONGEST_SUBJECT: Final = 150
_KEPT: Final = 25_000  # of each field of a form that is shown again

_MOVED: Final = N_("The ticket has moved on meanwhile: that is not possible any more.")
_OUTDATED: Final = N_(
    "Somebody else has changed this meanwhile. Beside each field is what it says now: send again to"
    " put yours in its place."
)
_REFUSED: Final = N_("That was not possible.")
_SAY: Final = N_("Please say in a few words why, or what was done.")
_NO_WORDS: Final = N_("There are no words in it.")
_NO_ENGINEER: Final = N_("Choose an engineer.")
_NO_TICKET: Final = N_("There is no ticket of this number.")
_LATE: Final = N_("Somebody else has it already.")
_CODE: Final = N_("That is not the code that the requester was sent.")
_NO_DATE: Final = N_("That is not a date and a time.")
_NO_MAIL: Final = N_("No mail address of this requester is known.")
_SEEN_FIRST: Final = N_("This is how it will be sent:")
_TOO_LONG: Final = N_("It is too long.")
_PROVING: Final = frozenset({Step.ARRIVE, Step.PROVE})
_REASONED: Final = frozenset({Action.HOLD, Action.RESOLVE, Action.CANCEL})


class Writes(Protocol):
    """What tells people; `routing.follow_up.FollowUp` has it."""

    async def draft(
        self, number: str, words: str, medium: Medium = ..., subject: str = ...
    ) -> Notification: ...

    async def write(  # noqa: PLR0913 - who says what by which medium
        self,
        number: str,
        *,
        actor: str,
        words: str,
        key: str,
        medium: Medium = ...,
        subject: str = ...,
    ) -> str: ...

    async def escalate(self, number: str, *, actor: str) -> None: ...


class Wrong(Exception):
    """What was sent cannot be meant; `remark` is a message id."""

    def __init__(self, remark: str) -> None:
        super().__init__(remark)
        self.remark = remark


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A form that was sent, and by whom."""

    number: str
    identity: Identity
    fields: Mapping[str, str]

    @property
    def actor(self) -> str:
        return actor_of(self.identity)

    def line(self, name: str) -> str:
        return " ".join(self.fields.get(name, "").split())

    def words(self, name: str, most: int = LONGEST_NOTE) -> str:
        words = cleaned(self.fields.get(name, ""))
        if len(words) > most:
            raise Wrong(_TOO_LONG)
        return words

    def required(self, name: str, remark: str, most: int = LONGEST_NOTE) -> str:
        words = self.words(name, most)
        if not words:
            raise Wrong(remark)
        return words

    def key(self) -> str:
        key = self.fields.get("key", "")
        if not is_key(key):
            raise Refused(Problem(status=400, detail="key: not as the form has it"))
        return key

    def seen(self) -> int:
        """Return the last entry that was seen; a form that does not say has seen none."""
        told = self.fields.get("seen", "")
        return int(told) if told.isascii() and told.isdigit() and len(told) < 10 else 0

    def whole(self, name: str) -> int:
        told = self.fields.get(name, "")
        if not (told.isascii() and told.isdigit() and len(told) < 19):
            raise Refused(Problem(status=400, detail=f"{name}: not a number"))
        return int(told)


@dataclass(frozen=True, slots=True, kw_only=True)
class MailDraft:
    """A mail to the requester as it will be sent."""

    key: str
    subject: str
    words: str
    to: str = ""
    shown_subject: str = ""
    text: str = ""
    answers: bool = True

    @property
    def seen(self) -> str:
        return digest(f"{self.subject}\n{self.words}")


Do = Callable[[Form], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketActs:
    """The handlers of the forms on `page`; `service` is what the installation is called."""

    page: TicketPage
    tickets: TicketService
    writes: Writes
    service: str

    async def act(self, request: web.Request) -> web.Response:
        """Do what a form asks for, and show the page again.

        Raises:
            NotFound: there is no such ticket, or no such act.
            Refused: not with this role.
        """
        name = request.match_info["act"]
        found = self._acts().get(name)
        identity = await self.page.check(request)
        if found is None:
            raise NotFound("there is no such act")
        do, right = found
        if not may(identity, right):
            raise Refused(Problem(status=403, detail="not with this role"))
        form = await read(request, identity)
        if (failed := await attempted(name, do, form)) is not None:
            return await self.page.page(request, failed=failed)
        return see_other(f"{PATH}/{form.number}?did={name}#done")

    async def mail(self, request: web.Request) -> web.Response:
        """Send a mail if it has been shown as it will be sent; else show it.

        Raises:
            NotFound: there is no such ticket.
        """
        identity = await self.page.check(request)
        form = await read(request, identity)
        draft = MailDraft(
            key=form.key(),
            subject=form.line("subject")[:LONGEST_SUBJECT],
            words=cleaned(form.fields.get("words", "")),
            answers="answers" in form.fields,
        )
        remark = _NO_WORDS if not draft.words else ""
        if len(draft.words) > LONGEST_MAIL:
            remark = _TOO_LONG
        if remark:
            return await self._again(request, form, draft, remark)
        try:
            shown = await self._shown(form.number, draft)
        except NotFound:
            raise
        except PermanentFailure:
            return await self._again(request, form, draft, _NO_MAIL)
        if form.fields.get("do") != "send" or form.fields.get("shown") != draft.seen:
            return await self.page.page(request, mail=shown)
        await self.writes.write(
            form.number, actor=form.actor, words=draft.words, subject=draft.subject,
            medium=Medium.MAIL, key=f"{draft.key}-{draft.seen}",
        )  # fmt: skip
        if draft.answers:
            await self.tickets.answered(
                form.number, actor=form.actor, how="reply", engineer=identity.engineer
            )
        return see_other(f"{PATH}/{form.number}?did=mail#done")

    async def _again(
        self, request: web.Request, form: Form, draft: MailDraft, remark: str
    ) -> web.Response:
        failed = Failed(act="mail", fields=form.fields, remark=remark, status=422)
        return await self.page.page(request, failed=failed, mail=draft)

    async def _shown(self, number: str, draft: MailDraft) -> MailDraft:
        found = await self.writes.draft(number, draft.words, Medium.MAIL, draft.subject)
        written = letter(found, Setting(service=self.service, can_reply=True))
        return MailDraft(
            key=draft.key, subject=draft.subject, words=draft.words, to=found.address,
            shown_subject=written.subject, text=written.text, answers=draft.answers,
        )  # fmt: skip

    # One method an act

    async def _take(self, form: Form) -> None:
        if not form.identity.engineer:
            await self.tickets.act(form.number, Action.ACKNOWLEDGE, actor=form.actor)
            return
        taken = await self.tickets.take(
            form.number, form.identity.engineer, how="web", actor=form.actor
        )
        if not taken:
            raise Wrong(_LATE)

    def _move(self, action: Action) -> Do:
        async def move(form: Form) -> None:
            note = form.words("note")
            if action in _REASONED and not note:
                raise Wrong(_SAY)
            await self.tickets.act(form.number, action, actor=form.actor, note=note)

        return move

    def _confirm(self, solved: bool) -> Do:
        async def confirm(form: Form) -> None:
            await self.tickets.confirm(
                form.number, solved=solved, actor=form.actor, how="call", note=form.words("note")
            )

        return confirm

    async def _classify(self, form: Form) -> None:
        said = Classification(
            impact=Impact(form.whole("impact")) if form.fields.get("impact") else None,
            urgency=Urgency(form.whole("urgency")) if form.fields.get("urgency") else None,
            category=Category(form.line("category")) if form.fields.get("category") else None,
            system=form.line("system"),
            title=form.line("title"),
        )
        await self.tickets.classify(form.number, said, actor=form.actor, seen=form.seen())

    async def _describe(self, form: Form) -> None:
        zone = ZoneInfo(form.fields.get("zone") or self.page.zone)
        said = Description(
            what=form.words("what"),
            happened_at=moment(form.line("happened_at"), zone),
            device=form.line("device"),
            version=form.line("version"),
            error=form.words("error"),
            impact=Impact(form.whole("impact")) if form.fields.get("impact") else None,
            wished=form.line("wished"),
        )
        await self.tickets.describe(form.number, said, actor=form.actor, seen=form.seen())

    async def _hand_over(self, form: Form) -> None:
        engineer = form.line("engineer")
        if not engineer:
            raise Wrong(_NO_ENGINEER)
        await self.tickets.hand_over(
            form.number, engineer, actor=form.actor, note=form.words("note"), seen=form.seen()
        )

    async def _team(self, form: Form) -> None:
        await self.tickets.assign_team(
            form.number, form.line("team"), actor=form.actor, seen=form.seen()
        )

    async def _contract(self, form: Form) -> None:
        await self.tickets.set_contract(
            form.number, form.line("contract"), actor=form.actor, seen=form.seen()
        )

    async def _escalate(self, form: Form) -> None:
        await self.writes.escalate(form.number, actor=form.actor)

    async def _dispatch(self, form: Form) -> None:
        engineer = form.line("engineer")
        if not engineer:
            raise Wrong(_NO_ENGINEER)
        await self.tickets.dispatch(form.number, engineer, actor=form.actor)

    async def _step(self, form: Form) -> None:
        told = form.line("step")
        if told not in set(Step):
            raise Refused(Problem(status=400, detail="step: there is no such one"))
        step = Step(told)
        code = "".join(form.fields.get("code", "").split()) if step in _PROVING else ""
        try:
            await self.tickets.dispatch_step(
                form.number, step, actor=form.actor, code=code, dispatch=form.whole("dispatch")
            )
        except WrongCode:
            raise Wrong(_CODE) from None

    async def _comment(self, form: Form) -> None:
        words = form.required("note", _NO_WORDS)
        await self.tickets.comment(form.number, words, actor=form.actor, key=form.key())

    async def _answered(self, form: Form) -> None:
        how = form.line("how")
        await self.tickets.answered(
            form.number,
            actor=form.actor,
            how=how if how in ("call_back", "in_person", "reply", "call") else "call_back",
            engineer=form.identity.engineer,
        )
        if note := form.words("note"):
            await self.tickets.comment(form.number, note, actor=form.actor, key=form.key())

    async def _updated(self, form: Form) -> None:
        note = form.required("note", _NO_WORDS)
        await self.tickets.updated(form.number, actor=form.actor, note=note)

    async def _merge(self, form: Form) -> None:
        into = "".join(form.fields.get("into", "").split())
        try:
            check_site(form.identity, await self.page.more.site_of(into))
        except NotFound:
            raise Wrong(_NO_TICKET) from None
        await self.tickets.merge(form.number, into, actor=form.actor)

    async def _split(self, form: Form) -> None:
        contact = form.whole("contact")
        number, _ = await self.page.more.ticket_of(contact)
        if number != form.number:
            raise NotFound("there is no such contact")
        await self.tickets.split(contact, actor=form.actor)

    async def _requester(self, form: Form) -> None:
        person = await self.page.more.person(form.whole("person"))
        check_site(form.identity, person.site, "there is no such person")
        await self.tickets.set_requester(form.number, person.id, actor=form.actor)

    async def _remote(self, form: Form) -> None:
        await self.tickets.ask_remote(form.number, actor=form.actor)

    def _acts(self) -> Mapping[str, tuple[Do, Right]]:
        moves = {each.value: (self._move(each), Right.WORK) for each in Action}
        more: Mapping[str, Do] = {
            "take": self._take,
            "solved": self._confirm(True),
            "not_solved": self._confirm(False),
            "classify": self._classify,
            "describe": self._describe,
            "hand_over": self._hand_over,
            "team": self._team,
            "escalate": self._escalate,
            "dispatch": self._dispatch,
            "step": self._step,
            "comment": self._comment,
            "answered": self._answered,
            "updated": self._updated,
            "merge": self._merge,
            "split": self._split,
            "requester": self._requester,
            "remote": self._remote,
        }
        return {
            **moves,
            **{name: (do, Right.WORK) for name, do in more.items()},
            "contract": (self._contract, Right.DECIDE),
        }


def routes(acts: TicketActs) -> Iterable[Route]:
    path = f"{PATH}/{{number}}"
    return (
        Route(method="POST", path=f"{path}/acts/{{act}}", handler=acts.act, roles=ACTING),
        Route(method="POST", path=f"{path}/mail", handler=acts.mail, roles=ACTING),
    )


async def read(request: web.Request, identity: Identity) -> Form:
    sent = await request.post()
    fields = {name: value for name, value in sent.items() if isinstance(value, str)}
    return Form(number=request.match_info.get("number", ""), identity=identity, fields=fields)


async def attempted(name: str, do: Do, form: Form) -> Failed | None:
    """Do it; return why it was not possible, None if it is done."""
    kept = {field: value[:_KEPT] for field, value in form.fields.items()}
    try:
        await do(form)
    except Outdated:
        return Failed(act=name, fields=kept, remark=_OUTDATED, is_outdated=True)
    except ActionNotAllowed as failure:
        return Failed(act=name, fields=kept, remark=_MOVED, detail=str(failure))
    except NotFound:
        raise
    except PermanentFailure as failure:
        detail = str(failure)
        return Failed(act=name, fields=kept, remark=_REFUSED, detail=detail, status=422)
    except Wrong as wrong:
        return Failed(act=name, fields=kept, remark=wrong.remark, status=422)
    except ValueError:
        raise Refused(Problem(status=400, detail="a field is not as the form has it")) from None
    return None


def moment(text: str, zone: ZoneInfo) -> datetime | None:
    """Return an instant as `<input type=datetime-local>` gives it, on the clocks of `zone`."""
    if not text:
        return None
    try:
        return datetime.fromisoformat(text[:19]).replace(tzinfo=zone).astimezone(UTC)
    except (ValueError, OverflowError):
        raise Wrong(_NO_DATE) from None
