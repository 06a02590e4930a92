"""The engineer's pages of remote help: the panel on a ticket's page, and the page with the screen.

An engineer can send a link, wait, and say that they help (`claim`). Whether anybody sees anything
is the user's to say: the broker asks them, and no page here can answer for them.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol
from zoneinfo import ZoneInfo

from aiohttp import web

from contactd.clock import Clock
from contactd.errors import ActionNotAllowed, NotFound, PermanentFailure
from contactd.httpd import Identity, Problem, Refused, Route
from contactd.settings import RemoteSettings
from contactd.store.blobs import Blobs
from contactd.store.ticketviews import TicketViews
from contactd.store.views import TicketView, Views
from contactd.tickets.contact import Blob, Medium
from contactd.tickets.journal import REQUESTER
from contactd.tickets.numbers import digits_of
from contactd.tickets.remote import Ending, Mode, Purpose, State
from contactd.tickets.sharing import Filters, Session, SharedFile
from contactd.tickets.states import OPEN
from contactd.web.access import ACTING, DECIDING, LISTENING, Right, check_site, may, sees
from contactd.web.actions import actor_of
from contactd.web.handover import give_file, take_file
from contactd.web.i18n import Clockwork
from contactd.web.pages import Pages, see_other
from contactd.web.ticketpage import PATH as TICKETS
from contactd.web.ticketpage import Failed, TicketPage, identity_of
from contactd.web.words import N_

PATH: Final = "/desk/remote"
CODE_DIGITS: Final = 9
SHOWN: Final = 50  # sessions of the list
PURPOSES: Final = frozenset({"desk", "screen"})  # what an engineer's admission may open
_MISSING: Final = "there is no such remote session"

STATES: Final[Mapping[State, str]] = {
    State.INVITED: N_("link sent"),
    State.AGREED: N_("the user waits"),
    State.ACTIVE: N_("screen shared"),
    State.FROZEN: N_("interrupted"),
    State.ENDED: N_("over"),
}
MODES: Final[Mapping[Mode, str]] = {
    Mode.CONTROL: N_("control"),
    Mode.VIEW: N_("view only, in the browser"),
    Mode.REPEATER: N_("the user’s own VNC server"),
}
ENDINGS: Final[Mapping[Ending, str]] = {
    Ending.DONE: N_("An engineer has ended it."),
    Ending.STOPPED: N_("The user has stopped it."),
    Ending.REFUSED: N_("The user said no."),
    Ending.EXPIRED: N_("Its time ran out before anybody came."),
    Ending.IDLE: N_("Nothing was done for a while."),
    Ending.TOO_LONG: N_("It has reached its longest time."),
    Ending.LOST: N_("The connection was lost and nobody went on."),
    Ending.HANDED_OVER: N_("A colleague has taken over."),
    Ending.RECORDER: N_("It could not be recorded any more."),
    Ending.FORBIDDEN: N_("A program did what it must not."),
    Ending.REPLACED: N_("A newer link was sent."),
    Ending.CLOSED: N_("The ticket was closed."),
}
_WRONG: Final = N_(
    "This code opens nothing. Ask the user to read it again; if it is older than ten minutes, send"
    " them a new link from the ticket."
)
_SHORT: Final = N_("The code has nine digits.")
_TAKEN: Final = N_(
    "Somebody else helps in this session. Wait here: they can hand it over to you, if the user"
    " agrees."
)
_NOT_YOURS: Final = N_(
    "Only who works on the ticket, or is on duty for its site, can join. Take the ticket first, or"
    " type the code that the user reads out to you."
)
_NO_LINK: Final = N_("The link was not sent.")
_UNDER_WAY: Final = N_("No link was sent: a session is under way, or the ticket is over.")


Cut = Callable[[int, Ending, str], Awaitable[object]]


class Sessions(Protocol):
    """What is kept; `store.remote.RemoteSessions` has it."""

    async def session(self, session_id: int) -> Session | None: ...

    async def of_ticket(self, number: str) -> tuple[Session, ...]: ...

    async def page(
        self, filters: Filters, before: int | None, limit: int
    ) -> tuple[tuple[Session, ...], bool]: ...

    async def claim(self, session_id: int, *, user: str, engineer: str) -> Session: ...

    async def claim_code(self, code: str, *, user: str, engineer: str) -> Session | None: ...

    async def peek_code(self, code: str, *, user: str) -> Session | None: ...

    async def release(self, session_id: int, *, user: str) -> bool: ...

    async def files(self, session_id: int) -> tuple[SharedFile, ...]: ...

    async def file(self, session_id: int, number: int) -> SharedFile | None: ...

    async def offer_file(self, session_id: int, *, sender: str, blob: Blob) -> SharedFile: ...

    async def answer_file(
        self, session_id: int, number: int, *, by: str, yes: bool
    ) -> SharedFile: ...


class Invites(Protocol):
    """Sends the requester a link; `remote.inviting` has it."""

    @property
    def media(self) -> Collection[Medium]: ...

    async def invite(self, number: str, *, actor: str, medium: Medium) -> Any: ...


class Admits(Protocol):
    """Gives what opens a socket, once and soon; `remote.admissions` has it."""

    def give(self, session_id: int, person: str, purpose: str, name: str = "") -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What the panel of a ticket shows."""

    live: Session | None
    past: tuple[Session, ...]  # the newest first; with those only that got beyond the link
    media: tuple[str, ...]  # by what a link can be sent
    can_join: bool
    is_mine: bool  # who looks is who helps
    link_until: str  # as a clock says it
    states: Mapping[State, str] = field(default_factory=lambda: STATES)
    modes: Mapping[Mode, str] = field(default_factory=lambda: MODES)
    endings: Mapping[Ending, str] = field(default_factory=lambda: ENDINGS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """What remote help adds to a ticket's page."""

    sessions: Sessions
    more: TicketViews
    invites: Invites

    async def standing(self, identity: Identity, ticket: TicketView, times: Clockwork) -> Standing:
        found = await self.sessions.of_ticket(ticket.number)
        live = next((each for each in reversed(found) if each.state is not State.ENDED), None)
        past = [each for each in reversed(found) if each.state is State.ENDED and each.agreed_at]
        can_send = may(identity, Right.WORK) and ticket.state in OPEN
        media = sorted(each.value for each in self.invites.media) if can_send else []
        joins = live is not None and await self.may_join(identity, live)
        return Standing(
            live=live,
            past=tuple(past),
            media=tuple(reversed(media)),  # a text is read sooner than a mail
            can_join=joins,
            is_mine=live is not None and live.user == identity.name,
            link_until=times.time(live.code_until) if live else "",
        )

    async def may_join(self, identity: Identity, session: Session) -> bool:
        """Tell whether somebody may help there without the user's code: it is their ticket, or
        they are on duty for its site."""
        if not may(identity, Right.WORK) or not identity.engineer:
            return False
        head = await self.more.head(session.ticket)
        if head.ticket.engineer == identity.engineer:
            return True
        return identity.engineer in (await self.more.staff(session.site)).tiers


@dataclass(frozen=True, slots=True, kw_only=True)
class Inviting:
    """The form of the panel that sends a link; `page` shows the ticket again if it cannot."""

    page: TicketPage
    invites: Invites

    async def invite(self, request: web.Request) -> web.Response:
        identity = await self.page.check(request)
        number, form = request.match_info["number"], await request.post()
        medium = str(form.get("medium", ""))
        if medium not in {each.value for each in self.invites.media}:
            raise Refused(Problem(status=400, detail="medium: not as the form has it"))
        try:
            await self.invites.invite(number, actor=actor_of(identity), medium=Medium(medium))
        except ActionNotAllowed as failure:
            return await self._again(request, _UNDER_WAY, failure, 409)
        except NotFound:
            raise
        except PermanentFailure as failure:
            return await self._again(request, _NO_LINK, failure, 422)
        return see_other(f"{TICKETS}/{number}?did=remote_link#remote")

    async def _again(
        self, request: web.Request, remark: str, failure: Exception, status: int
    ) -> web.Response:
        failed = Failed(
            act="remote_link", fields={}, remark=remark, detail=str(failure), status=status
        )
        return await self.page.page(request, failed=failed)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemotePages:
    """The handlers. What is kept here the broker follows: it cuts what has ended at once."""

    pages: Pages
    views: Views
    sessions: Sessions
    panel: Panel
    admits: Admits
    cut: Cut
    blobs: Blobs
    settings: RemoteSettings
    clock: Clock
    zone: str

    # What there is

    async def list(self, request: web.Request) -> web.Response:
        """Show what is under way, and ask for a code that a user reads out."""
        return await self._listed(request)

    async def show(self, request: web.Request) -> web.Response:
        """Show the page on which somebody helps, or waits to."""
        return await self._viewer(request, await self._seen(request))

    # Who helps

    async def join(self, request: web.Request) -> web.Response:
        session, identity = await self._seen(request), await identity_of(request)
        if not await self.panel.may_join(identity, session):
            return await self._viewer(request, session, status=409, remark=_NOT_YOURS)
        try:
            await self.sessions.claim(
                session.id, user=identity.name, engineer=await self._name(identity)
            )
        except ActionNotAllowed:
            return await self._viewer(request, session, status=409, remark=_TAKEN)
        return see_other(f"{PATH}/{session.id}")

    async def claim(self, request: web.Request) -> web.Response:
        """Let somebody help whom the user has read the code to."""
        identity = await identity_of(request)
        typed = str((await request.post()).get("code", ""))[:40]
        code = digits_of(typed)
        if len(code) != CODE_DIGITS:
            return await self._listed(request, status=422, typed=typed, remark=_SHORT)
        found = await self.sessions.peek_code(code, user=identity.name)
        if found is None or not sees(identity, found.site):
            return await self._listed(request, status=404, remark=_WRONG)
        name = await self._name(identity)
        try:
            claimed = await self.sessions.claim_code(code, user=identity.name, engineer=name)
        except ActionNotAllowed:
            return await self._listed(request, status=409, remark=_TAKEN)
        if claimed is None:
            return await self._listed(request, status=404, remark=_WRONG)
        return see_other(f"{PATH}/{claimed.id}")

    async def release(self, request: web.Request) -> web.Response:
        """Let somebody else help instead, while nobody sees anything."""
        session, identity = await self._seen(request), await identity_of(request)
        await self.sessions.release(session.id, user=identity.name)
        return see_other(f"{TICKETS}/{session.ticket}#remote")

    async def end(self, request: web.Request) -> web.Response:
        """End it; harmless twice.

        Raises:
            ActionNotAllowed: neither do they help, nor may they decide.
        """
        session, identity = await self._seen(request), await identity_of(request)
        if not self._is_party(session, identity) and identity.role not in DECIDING:
            raise ActionNotAllowed("only who helps can end it")
        await self.cut(session.id, Ending.DONE, actor_of(identity))
        return see_other(f"{TICKETS}/{session.ticket}#remote")

    async def admission(self, request: web.Request) -> web.Response:
        """Give the page what lets it in at the broker, once and soon."""
        session, identity = await self._seen(request), await identity_of(request)
        purpose = str((await request.post()).get("purpose", ""))
        if purpose not in PURPOSES:
            raise Refused(Problem(status=400, detail="purpose: not as the page has it"))
        if session.state is State.ENDED:
            raise ActionNotAllowed("the remote session is over")
        given = self.admits.give(
            session.id, identity.name, purpose, name=await self._name(identity)
        )
        return web.json_response({"admission": given})

    # Files

    async def offer(self, request: web.Request) -> web.Response:
        """Offer the user a file, which they have to accept."""
        session, identity = await self._party(request)
        blob = await take_file(request, self.blobs, self.settings.max_file_bytes)
        if blob is not None and blob.size_bytes:
            await self.sessions.offer_file(session.id, sender=actor_of(identity), blob=blob)
        return see_other(f"{PATH}/{session.id}#files")

    async def answer_file(self, request: web.Request) -> web.Response:
        session, identity = await self._party(request)
        said = str((await request.post()).get("do", "")) == "yes"
        await self.sessions.answer_file(
            session.id, _number(request, "file"), by=actor_of(identity), yes=said
        )
        return see_other(f"{PATH}/{session.id}#files")

    async def file(self, request: web.Request) -> web.StreamResponse:
        """Send a file of the user's that was accepted."""
        session, _ = await self._party(request)
        found = await self.sessions.file(session.id, _number(request, "file"))
        if found is None or found.sender != REQUESTER:
            raise NotFound("there is no such file")
        return give_file(self.blobs, found)

    # Who asks, and for what

    async def _seen(self, request: web.Request) -> Session:
        """Return the session, if who asks sees its site.

        Raises:
            NotFound: there is none of this number, or it is another site's.
        """
        found = await self.sessions.session(_number(request, "session"))
        if found is None:
            raise NotFound(_MISSING)
        check_site(await identity_of(request), found.site, _MISSING)
        return found

    async def _party(self, request: web.Request) -> tuple[Session, Identity]:
        """Return the session and who asks, if they help in it or have helped.

        Raises:
            ActionNotAllowed: they only wait, or look on.
        """
        session, identity = await self._seen(request), await identity_of(request)
        if not self._is_party(session, identity):
            raise ActionNotAllowed("only for who helps in this session")
        return session, identity

    def _is_party(self, session: Session, identity: Identity) -> bool:
        helped = (each.leg for each in session.legs if each.leg.purpose is Purpose.HELP)
        return identity.name in {session.user, *(each.user for each in helped)} - {""}

    async def _name(self, identity: Identity) -> str:
        """Return what the user is told somebody is called."""
        names = await self.views.names({identity.engineer} - {""})
        return names.get(identity.engineer) or identity.name

    # Drawing

    async def _listed(
        self, request: web.Request, *, status: int = 200, typed: str = "", remark: str = ""
    ) -> web.Response:
        identity = await identity_of(request)
        found, _ = await self.sessions.page(Filters(sites=identity.sites), None, SHOWN)
        return self.pages.respond(
            request, "remote/list.html", status=status, section="tickets", identity=identity,
            sessions=[each for each in found if each.state is not State.ENDED],
            typed=typed, remark=remark, states=STATES, modes=MODES, times=self._times(request),
            now=self.clock.now(),
        )  # fmt: skip

    async def _viewer(
        self, request: web.Request, session: Session, *, status: int = 200, remark: str = ""
    ) -> web.Response:
        identity = await identity_of(request)
        return self.pages.respond(
            request, "remote/viewer.html", status=status, identity=identity, session=session,
            remark=remark, states=STATES, modes=MODES, endings=ENDINGS,
            is_mine=session.user == identity.name,
            can_join=not session.user and await self.panel.may_join(identity, session),
            may_look=identity.role in DECIDING, listens=identity.role in LISTENING,
            times=self._times(request), now=self.clock.now(), limits=self.settings,
        )  # fmt: skip

    def _times(self, request: web.Request) -> Clockwork:
        return Clockwork(language=self.pages.language(request), zone=ZoneInfo(self.zone))


def routes(pages: RemotePages) -> Iterable[Route]:
    """Return the pages; none if remote help is turned off."""
    if not pages.settings.enabled:
        return ()
    one = f"{PATH}/{{session}}"
    reads: Mapping[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = {
        PATH: pages.list,
        one: pages.show,
        f"{one}/files/{{file}}": pages.file,
    }
    acts: Mapping[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = {
        f"{PATH}/claim": pages.claim,
        f"{one}/join": pages.join,
        f"{one}/release": pages.release,
        f"{one}/end": pages.end,
        f"{one}/admission": pages.admission,
        f"{one}/files/{{file}}/answer": pages.answer_file,
    }
    return (
        *(Route(method="GET", path=path, handler=do, roles=ACTING) for path, do in reads.items()),
        *(Route(method="POST", path=path, handler=do, roles=ACTING) for path, do in acts.items()),
        Route(method="POST", path=f"{one}/files", handler=pages.offer, roles=ACTING, streams=True),
    )


def invite_routes(inviting: Inviting) -> Iterable[Route]:
    path = f"{TICKETS}/{{number}}/remote/invite"
    return (Route(method="POST", path=path, handler=inviting.invite, roles=ACTING),)


def _number(request: web.Request, name: str) -> int:
    """Return a number of the address.

    Raises:
        NotFound: there is none of it.
    """
    told = request.match_info[name]
    if not (told.isascii() and told.isdigit() and len(told) < 19):
        raise NotFound(_MISSING)
    return int(told)


def minutes(session: Session, now: datetime) -> int:
    """Return how long the screen was shared, at least one minute; 0 if it never was."""
    if session.started_at is None:
        return 0
    return max(round(((session.ended_at or now) - session.started_at).total_seconds() / 60), 1)
