"""The page behind the links of a mail: take a ticket, pass it on, say whether it is solved.

Mail scanners open every link before anybody reads the mail: opening the page does nothing, only
its buttons do (RFC 9110 section 9.2.1). Who has the link is who got the mail, as with an answer by
text; nothing else asks who they are. It works once and for two weeks, and afterwards says what has
become of the ticket.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from aiohttp import web

from contactd.clock import Clock
from contactd.errors import NotFound
from contactd.httpd import Problem, Refused, Route
from contactd.routing.follow_up import Standing
from contactd.routing.notify import (
    ASKS,
    LINK_LASTS,
    OFFERS,
    REQUESTER,
    Reason,
    SendState,
    linked,
)
from contactd.routing.words import offers
from contactd.tickets.contact import Medium
from contactd.tickets.states import State
from contactd.web.i18n import Language
from contactd.web.pages import Pages, see_other
from contactd.web.words import N_

PATH: Final = "/m"
LONGEST_NOTE: Final = 2000  # characters


class Answering(Protocol):
    """What answers a message; `routing.follow_up.FollowUp` in the daemon."""

    async def standing(self, ref: str) -> Standing | None: ...

    async def answered(self, ref: str, digit: str, medium: Medium) -> str: ...

    async def confirm(
        self, ref: str, digit: str, medium: Medium = Medium.CALL, note: str = ""
    ) -> str: ...


class Became(StrEnum):
    """What has become of a message, as its page says it."""

    OPEN = "open"  # it can be answered
    EXPIRED = "expired"
    TAKEN = "taken"
    GOING = "going"  # to the site
    PASSED = "passed"
    LATE = "late"  # somebody else has it, or it is not wanted any more
    RESOLVED = "resolved"  # the engineers are done
    CONFIRMED = "confirmed"
    REOPENED = "reopened"
    CLOSED = "closed"


_SAID: Final[Mapping[Became, tuple[str, str]]] = {
    Became.EXPIRED: (
        N_("This link has expired"),
        N_("Links work for 14 days. Call us or reply to the mail."),
    ),
    Became.TAKEN: (N_("You have this ticket"), N_("Nobody else is told any more.")),
    Became.GOING: (
        N_("You are expected on site"),
        N_("Ask for the arrival code when you are there."),
    ),
    Became.PASSED: (N_("You have passed it on"), N_("Others are told.")),
    Became.LATE: (
        N_("You are not needed any more"),
        N_("Somebody else was faster, or it was called off."),
    ),
    Became.RESOLVED: (N_("This ticket is solved already"), N_("There is nothing left to do.")),
    Became.CONFIRMED: (
        N_("Thank you: the ticket is closed"),
        N_("Contact us again if it is not solved."),
    ),
    Became.REOPENED: (
        N_("We go on with it"),
        N_("The ticket is open again and an engineer is told."),
    ),
    Became.CLOSED: (
        N_("This ticket is closed"),
        N_("Contact us again if it is not solved."),
    ),
}
_QUESTION: Final = N_("Is it solved?")
_TASKS: Final[Mapping[Reason, str]] = {Reason.DISPATCH: N_("Will you go to the site?")}
_TASK: Final = N_("Will you take this ticket?")
_ENDED: Final = frozenset({State.CLOSED, State.CANCELLED})


@dataclass(frozen=True, slots=True, kw_only=True)
class MailLinks:
    """The handlers. `key` returns that of `tickets.signing`."""

    pages: Pages
    answering: Answering
    key: Callable[[], Awaitable[bytes]]
    clock: Clock

    async def show(self, request: web.Request) -> web.Response:
        """Show what can be answered, or what has become of it; change nothing.

        Raises:
            NotFound: we have not made this link.
        """
        standing = await self._standing(request)
        became = self._became(standing)
        if became is Became.OPEN and request.query.get("heard") == "late":
            became = Became.LATE
        return self._page(request, standing, became)

    async def answer(self, request: web.Request) -> web.Response:
        """Do what a button says, once, and send the browser to what became of it.

        Raises:
            NotFound: we have not made this link.
            Refused: the page has no such button.
        """
        standing = await self._standing(request)
        if self._became(standing) is not Became.OPEN:
            return see_other(request.path)
        form = await request.post()
        reason = standing.notice.notification.reason
        key, note = str(form.get("do", "")), str(form.get("note", ""))
        if key not in OFFERS[reason]:
            raise Refused(Problem(status=400, detail="do: no such button"))
        note = note.replace("\r\n", "\n").strip()[:LONGEST_NOTE]  # HTML section 4.10.22.8
        heard = await self._do(standing, key, note if key == "2" else "")
        return see_other(request.path + ("?heard=late" if heard == "late" else ""))

    async def _do(self, standing: Standing, key: str, note: str) -> str:
        page = standing.notice.notification
        if page.reason in ASKS:
            return await self.answering.confirm(page.ref, key, page.medium, note)
        return await self.answering.answered(page.ref, key, page.medium)

    async def _standing(self, request: web.Request) -> Standing:
        ref = linked(await self.key(), request.match_info["token"])
        found = await self.answering.standing(ref) if ref is not None else None
        if found is None or found.notice.notification.reason not in OFFERS:
            raise NotFound("there is no such link")
        return found

    def _became(self, standing: Standing) -> Became:
        if self.clock.now() - standing.notice.updated_at > LINK_LASTS:
            return Became.EXPIRED
        asks = standing.notice.notification.recipient == REQUESTER
        return _of_question(standing) if asks else _of_page(standing)

    def _page(self, request: web.Request, standing: Standing, became: Became) -> web.Response:
        page = standing.notice.notification
        wish = request.query.get("lang", page.language)
        language = Language(wish) if wish in set(Language) else Language.ZH
        title, remedy = _SAID.get(became, (_TASKS.get(page.reason, _TASK), ""))
        if became is Became.OPEN and page.reason in ASKS:
            title = _QUESTION
        html = self.pages.draw(
            "maillink.html",
            language,
            switch={each: f"?lang={each}" for each in Language},
            identity=None,
            title=title,
            remedy=remedy,
            ticket=standing.ticket,
            site=standing.site,
            is_open=became is Became.OPEN,
            is_shown=became is not Became.EXPIRED,
            asks=page.reason in ASKS,
            buttons=offers(page.reason, language.value),
            chosen=request.query.get("do", "1"),
            longest_note=LONGEST_NOTE,
        )
        status = 410 if became is Became.EXPIRED else 200
        response = web.Response(text=html, content_type="text/html", status=status)
        response.headers["Content-Language"] = language.tag
        response.headers["X-Robots-Tag"] = "noindex"
        return response


def routes(links: MailLinks) -> Iterable[Route]:
    path = f"{PATH}/{{token}}"
    return (
        Route(method="GET", path=path, handler=links.show, roles=None),
        Route(method="POST", path=path, handler=links.answer, roles=None),
    )


def _of_question(standing: Standing) -> Became:
    """Return what has become of the question whether it is solved."""
    state, has_answered = standing.ticket.state, standing.notice.state is SendState.TAKEN
    if state in _ENDED:
        return Became.CONFIRMED if has_answered else Became.CLOSED
    if state is State.RESOLVED and not has_answered:
        return Became.OPEN
    return Became.REOPENED


def _of_page(standing: Standing) -> Became:
    """Return what has become of a page to an engineer."""
    notice, ticket = standing.notice, standing.ticket
    if ticket.state in _ENDED:
        return Became.CLOSED
    if ticket.state is State.RESOLVED:
        return Became.RESOLVED
    is_visit = notice.notification.reason is Reason.DISPATCH
    said = {
        SendState.TAKEN: Became.GOING if is_visit else Became.TAKEN,
        SendState.PASSED: Became.PASSED,
        SendState.STOPPED: Became.LATE,
    }.get(notice.state, Became.OPEN)
    has_it = ticket.assignee == notice.notification.recipient and ticket.acknowledged_at is not None
    if said is Became.LATE and has_it and not is_visit:
        return Became.TAKEN  # by another message about the same
    if said is Became.TAKEN and not has_it:
        return Became.LATE  # it was given to somebody else since
    return said
