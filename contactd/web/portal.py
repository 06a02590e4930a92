"""The portal, /help: requesters report a fault, follow it, answer, and say whether it is solved.

No account is needed; what somebody may see is decided in `portalaccess`. Everything works without
JavaScript: acts are forms that lead to a page (303). A report is told to be taken once it is
stored, and never before; a form that is sent twice is one contact.
"""

import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any, Final, Protocol
from urllib.parse import quote, unquote
from zoneinfo import ZoneInfo

from aiohttp import web

from contactd.clock import Clock
from contactd.errors import ActionNotAllowed, NotFound, TemporaryFailure
from contactd.httpd import PORTAL_COOKIE, Handler, Problem, Refused, Route
from contactd.log import get_logger
from contactd.routing.terms import Terms
from contactd.settings import PortalSettings
from contactd.store.blobs import Blobs
from contactd.store.portal import Portal, Visitor
from contactd.store.views import AttachmentView, SiteView, TicketDetail, Views
from contactd.tickets import phone
from contactd.tickets.contact import PORTAL, Blob, Contact, File, Filed, Medium
from contactd.tickets.describing import Description
from contactd.tickets.journal import REQUESTER
from contactd.tickets.model import clean_line, clean_text
from contactd.tickets.people import PHONE, Address
from contactd.tickets.states import OPEN
from contactd.web import portalforms as forms
from contactd.web import portalview as view
from contactd.web.i18n import Clockwork, Language, Say
from contactd.web.pages import Pages, see_other
from contactd.web.portalaccess import (
    CODE_DIGITS,
    LINKS,
    OWN,
    PATH,
    Access,
    Door,
    SignIn,
    address_of,
)
from contactd.web.portalforms import Intake, Report, Sent, Unusable
from contactd.web.words import N_

log = get_logger()

LONGEST_WORDS: Final = 4000  # of a reply
LONGEST_NOTE: Final = 2000  # why it is not solved
NO_TICKET: Final = "0"
WRITES_PER_TICKET: Final = 20  # an hour, whoever has its link
_WRONG_CODE: Final = N_("That code is wrong or no longer valid.")
_NO_ADDRESS: Final = N_("Please give a phone number or an e-mail address.")
_NO_WORDS: Final = N_("Please write something or add a file.")
_NO_NUMBER: Final = N_("Please give the number to call.")
_AWAY: Final = N_("It could not be stored just now. Your words are kept here: please send again.")
_LATE: Final = N_("Meanwhile the ticket has moved on.")
# What a page says after an act.
_DONE: Final[Mapping[str, str]] = {
    "reply": N_("Thank you: your message is with us."),
    "solved": N_("Thank you for confirming."),
    "reopened": N_("We go on with it; an engineer is told."),
    "rated": N_("Thank you for your mark."),
    "call": N_("We will call you back; the engineer on duty is told."),
    "remote": N_("Remote help is on its way: we will send you a link that you open yourself."),
    "helped": N_("Remote help of this ticket is under way just now."),
    "late": _LATE,
}
# What a trouble page says, by status: title and remedy.
_TROUBLES: Final[Mapping[int, tuple[str, str]]] = {
    404: (
        N_("This page is not here"),
        N_("A link works for a while only. Sign in with a code to see your tickets."),
    ),
    408: (N_("That took too long"), N_("Please try again, perhaps with smaller files.")),
    413: (N_("That is too large"), N_("Please try again with fewer or smaller files.")),
    429: (
        N_("That was a lot at once"),
        N_("Please wait some minutes and try again. If it is urgent, call us."),
    ),
    503: (
        N_("It does not work just now"),
        N_("Please try again in a minute. If it is urgent, call us."),
    ),
}
_TROUBLE: Final = (N_("That did not work"), N_("Please try again, or call us."))


class Tickets(Protocol):
    """What the portal does to tickets; `TicketService` has it."""

    async def receive(self, contact: Contact) -> Filed: ...

    async def describe(self, number: str, said: Description, *, actor: str) -> None: ...

    async def confirm(
        self, number: str, *, solved: bool, actor: str, how: str, note: str = ""
    ) -> None: ...

    async def rate(
        self, number: str, mark: int, *, actor: str, how: str, contact: str = ""
    ) -> None: ...

    async def ask_call_back(
        self, number: str, phone: str, wished: str = "", *, actor: str
    ) -> None: ...

    async def ask_remote(self, number: str, *, actor: str) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    """The form of a report as it is drawn."""

    key: str
    report: Report
    faults: Mapping[str, str] = field(default_factory=dict)
    files: tuple[Blob, ...] = ()
    remark: str = ""  # what else is wrong, in the visitor's language


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """One ticket for one visitor."""

    access: Access
    detail: TicketDetail
    say: Say


@dataclass(frozen=True, slots=True, kw_only=True)
class Help:
    """The handlers. `zone` is the service's; `texts`: somebody can be sent a text.

    `terms` is what was promised. `invite` makes an invitation to remote help for a ticket, in a
    language, and returns the path where only its holder begins; None: there is no remote help.
    """

    pages: Pages
    settings: PortalSettings
    door: Door
    intake: Intake
    portal: Portal
    views: Views
    tickets: Tickets
    blobs: Blobs
    terms: Callable[[], Awaitable[Terms]]
    clock: Clock
    zone: str
    texts: bool
    invite: Callable[[str, str], Awaitable[str]] | None = None

    # The start

    async def start(self, request: web.Request) -> web.Response:
        return await self._respond(request, "start.html", section="start")

    # A report

    async def new(self, request: web.Request) -> web.Response:
        """Draw an empty form; a label with a QR code says which device it is."""
        visitor = await self.door.visitor(request)
        report = Report(
            device=clean_line(request.query.get("device", ""), forms.LONGEST["device"]),
            site=clean_line(request.query.get("site", ""), forms.LONGEST["site"])
            or (visitor.site if visitor else ""),
            since=f"{self.clock.now().astimezone(ZoneInfo(self.zone)):%Y-%m-%dT%H:%M}",
            **_known_of(visitor),
        )
        return await self._form(request, _Form(key=forms.new_form(), report=report))

    async def report(self, request: web.Request) -> web.Response:
        """Take a report; say so once it is stored, or show what is missing with everything kept."""
        client = self.door.client(request)
        sent = await self.intake.read(request, client)
        report = forms.report_of(sent)
        try:
            return await self._report(request, sent, report)
        except TemporaryFailure as failure:
            log.warning("portal.report_deferred", reason=str(failure))
            trouble, status = _AWAY, 503
        except Refused as refused:
            trouble, status = _TROUBLES.get(refused.problem.status, _TROUBLE)[1], 429
        say = self.pages.say(self.pages.language(request))
        kept = _Form(key=sent.form, report=report, remark=say(trouble))
        return await self._form(request, kept, status=status)

    async def _report(self, request: web.Request, sent: Sent, report: Report) -> web.Response:
        say, zone = self.pages.say(self.pages.language(request)), ZoneInfo(self.zone)
        if drop := sent.get("drop"):
            await self._drop(sent.form, drop)
        files, sites = await self.portal.files(sent.form), await self._sites(request)
        found = {} if drop else forms.faults(report, sites, zone, self.clock.now())
        remark = "" if drop else _remark(sent, say)
        if drop or found or remark:
            draft = _Form(key=sent.form, report=report, files=files, faults=found, remark=remark)
            return await self._form(request, draft, status=200 if drop else 422)
        sender = forms.sender_of(report, texts=self.texts)
        await self.door.limit_writing(request, f"{sender.kind}:{sender.value}")
        filed = await self._file(sent, report, sender, files, say, sites)
        log.info("portal.reported", ticket=filed.ticket, files=len(files))
        if filed.opened:
            return see_other(await self.door.sent(filed.ticket, opened=True))
        # Whose number somebody gave may be another's, with a ticket that is none of theirs.
        visitor = await self.door.visitor(request)
        is_theirs = visitor is not None and visitor.person_id == filed.person_id
        return see_other(
            await self.door.sent(filed.ticket if is_theirs else NO_TICKET, opened=False)
        )

    async def _file(  # noqa: PLR0913 - what a report is made of
        self, sent: Sent, report: Report, sender: Address, files: tuple[Blob, ...], say: Say,
        sites: Mapping[str, str],
    ) -> Filed:  # fmt: skip
        """Store a report; the same one again is known by its form and its words."""
        words = forms.words_of(report, say, sites)
        filed = await self.tickets.receive(
            Contact(
                medium=Medium.WEB,
                external_id=f"{PORTAL}{sent.form}:{forms.digest(words)}",
                received_at=self.clock.now(),
                from_value=sender.value,
                from_name=report.name,
                text=words,
                files=_attached(files),
                site=report.site,
            )
        )
        if filed.opened:  # what another report said of an older ticket is left as it is
            said = forms.description(report, ZoneInfo(self.zone))
            try:
                await self.tickets.describe(filed.ticket, said, actor=REQUESTER)
            except (TemporaryFailure, ActionNotAllowed) as failure:
                # Everything is in the contact's words already; nothing is lost.
                log.warning("portal.not_described", ticket=filed.ticket, reason=str(failure))
        return filed

    async def sent(self, request: web.Request) -> web.Response:
        """Say thank you: the number, what happens next, and until when."""
        number, opened = await self.door.was_sent(request.match_info["sent"])
        promises: list[view.Due] = []
        if opened:
            detail = await self.views.ticket(number)
            promises = view.promised(detail.journal, await self.terms(), self.clock.now())
        link = await self.door.link(number, is_proved=False) if opened else ""
        return await self._respond(
            request, "sent.html", section="new", number="" if number == NO_TICKET else number,
            opened=opened, link=link, promises=promises,
        )  # fmt: skip

    # Files of a form, as soon as they are chosen

    async def add_file(self, request: web.Request) -> web.Response:
        """Keep a file for a form that is being filled in; the whole body is the file."""
        form = request.query.get("form", "")
        name = unquote(request.headers.get("X-File-Name", ""))
        try:
            blob = await self.intake.read_file(request, self.door.client(request), form, name)
        except Unusable as unusable:
            say = self.pages.say(self.pages.language(request))
            return web.json_response({"error": say(unusable.reason, **unusable.values)}, status=422)
        told = {"id": blob.sha256, "name": blob.name, "size": blob.size_bytes}
        return web.json_response(told, status=201)

    async def drop_file(self, request: web.Request) -> web.Response:
        form = request.query.get("form", "")
        if forms.FORM_KEY.fullmatch(form):
            await self._drop(form, request.match_info["sha256"])
        return web.Response(status=204)

    async def _drop(self, form: str, sha256: str) -> None:
        if sha256.isascii() and sha256.isalnum():
            await self.portal.drop_file(form, sha256)

    # Signing in with a code

    async def mine(self, request: web.Request) -> web.Response:
        """Show somebody's tickets, or ask who they are."""
        visitor = await self.door.visitor(request)
        if visitor is None:
            return await self._respond(request, "ask.html", section="my", typed="", fault="")
        found = await self.portal.tickets_of(visitor.person_id)
        return await self._respond(
            request, "mine.html", section="my", visitor=visitor, tickets=found
        )

    async def ask_code(self, request: web.Request) -> web.Response:
        """Have a code sent; the answer is the same whether anybody has the address or not."""
        typed = clean_line(str((await request.post()).get("address", "")), 254)
        address = address_of(typed)
        if address is None:
            return await self._respond(
                request, "ask.html", status=422, section="my", typed=typed, fault=_NO_ADDRESS
            )
        language = self.pages.language(request).value
        challenge = await self.door.ask_code(request, address, language)
        return see_other(f"{PATH}/code/{challenge}")

    async def code(self, request: web.Request) -> web.Response:
        return await self._respond(request, "code.html", section="my", fault="")

    async def answer_code(self, request: web.Request) -> web.Response:
        typed = str((await request.post()).get("code", ""))
        challenge = request.match_info["challenge"]
        is_ours = forms.FORM_KEY.fullmatch(challenge) is not None
        secret = await self.door.answer(request, challenge if is_ours else "", typed)
        if not secret:
            return await self._respond(
                request, "code.html", status=422, section="my", fault=_WRONG_CODE
            )
        response = see_other(OWN)
        self.door.remember(request, response, secret)
        return response

    async def leave(self, request: web.Request) -> web.Response:
        if secret := request.cookies.get(PORTAL_COOKIE):
            await self.portal.leave(secret)
        response = see_other(PATH)
        response.del_cookie(PORTAL_COOKIE, path=PATH)
        return response

    # One ticket

    async def ticket(self, request: web.Request) -> web.Response:
        shown = await self._shown(request)
        return await self._ticket(request, shown)

    async def progress(self, request: web.Request) -> web.Response:
        """Draw what may have changed on a page that is open; nothing if nothing has."""
        shown = await self._shown(request)
        values = await self._progress(request, shown)
        if request.query.get("seen") == values["seen"]:
            return web.Response(status=204)
        html = self.pages.draw("help/progress.html", self.pages.language(request), **values)
        return web.Response(text=html, content_type="text/html")

    async def reply(self, request: web.Request) -> web.Response:
        """Add somebody's words and files to their ticket."""
        shown = await self._shown(request)
        sent = await self.intake.read(request, self.door.client(request))
        if drop := sent.get("drop"):
            await self._drop(sent.form, drop)
        words = clean_text(sent.get("words")).replace("\r\n", "\n").strip()[:LONGEST_WORDS]
        files = await self.portal.files(sent.form)
        remark = _remark(sent, shown.say) or ("" if words or files else shown.say(_NO_WORDS))
        if remark or drop:
            status = 422 if remark and not drop else 200
            return await self._ticket(
                request, shown, status=status, key=sent.form, words=words, files=files,
                remark="" if drop else remark,
            )  # fmt: skip
        try:
            filed = await self._write(request, shown, sent.form, words, files)
        except (TemporaryFailure, Refused) as failure:
            log.warning("portal.reply_deferred", reason=str(failure))
            is_away = isinstance(failure, TemporaryFailure)
            return await self._ticket(
                request, shown, status=503 if is_away else 429, key=sent.form, words=words,
                files=files, remark=shown.say(_AWAY if is_away else _TROUBLES[429][1]),
            )  # fmt: skip
        if filed.ticket != shown.access.number:  # that one is over: it has opened another
            return see_other(await self.door.sent(filed.ticket, opened=True))
        return _back(shown.access, "reply")

    async def confirm(self, request: web.Request) -> web.Response:
        """Take the requester's word for it: solved or not."""
        shown = await self._shown(request)
        form = await request.post()
        solved = str(form.get("do", "")) == "solved"
        note = clean_text(str(form.get("note", ""))).replace("\r\n", "\n").strip()
        try:
            await self.tickets.confirm(
                shown.access.number, solved=solved, actor=REQUESTER, how=Medium.WEB.value,
                note="" if solved else note[:LONGEST_NOTE],
            )  # fmt: skip
        except ActionNotAllowed:
            return _back(shown.access, "late")
        return _back(shown.access, "solved" if solved else "reopened")

    async def rate(self, request: web.Request) -> web.Response:
        shown = await self._shown(request)
        mark = str((await request.post()).get("mark", ""))
        if mark not in ("1", "2", "3", "4", "5"):
            raise Refused(Problem(status=400))
        if not view.standing(shown.detail, shown.say).rates:
            return _back(shown.access, "late")
        await self.tickets.rate(
            shown.access.number, int(mark), actor=REQUESTER, how=Medium.WEB.value
        )
        return _back(shown.access, "rated")

    async def call_back(self, request: web.Request) -> web.Response:
        """Have the engineer on duty call; another number than theirs needs a code (see Door)."""
        shown = await self._shown(request)
        form = await request.post()
        number = _number_of(form, shown)
        if not number:
            return await self._ticket(request, shown, status=422, call_fault=_NO_NUMBER)
        wished = clean_line(str(form.get("wished", "")), forms.LONGEST["wished"])
        when = f" ({wished})" if wished else ""
        words = shown.say(N_("Please call me back: %(number)s%(when)s"), number=number, when=when)

        async def note() -> None:
            await self.tickets.ask_call_back(shown.access.number, number, wished, actor=REQUESTER)

        return await self._ask(request, shown, words, note, "call")

    async def remote(self, request: web.Request) -> web.Response:
        """Ask for remote help: nothing is shared before the requester opens the link and agrees."""
        shown = await self._shown(request)
        await request.post()

        async def note() -> None:
            await self.tickets.ask_remote(shown.access.number, actor=REQUESTER)

        words = shown.say(N_("Please help me remotely."))
        response = await self._ask(request, shown, words, note, "remote")
        asked = _back(shown.access, "remote").headers["Location"]
        if self.invite is None or response.headers["Location"] != asked:
            return response
        language = self.pages.language(request).value
        try:
            return see_other(await self.invite(shown.access.number, language))
        except ActionNotAllowed:
            return _back(shown.access, "helped")

    async def _ask(
        self, request: web.Request, shown: _Shown, words: str,
        note: Callable[[], Awaitable[None]], done: str,
    ) -> web.Response:  # fmt: skip
        """File what somebody asks for, which has people told, and note what it means."""
        key = str((await request.post()).get("form", ""))
        if not forms.FORM_KEY.fullmatch(key):
            raise Refused(Problem(status=400))
        if shown.detail.ticket.state not in OPEN:
            return _back(shown.access, "late")
        filed = await self._write(request, shown, key, words, ())
        if filed.new_contact:  # else it was sent twice
            try:
                await note()
            except ActionNotAllowed:
                return _back(shown.access, "late")
        return _back(shown.access, done)

    async def _write(
        self, request: web.Request, shown: _Shown, key: str, words: str, files: tuple[Blob, ...]
    ) -> Filed:
        number, person = shown.access.number, shown.detail.requester
        await self.door.limit_writing(request, "")
        await self.door.limit("write-ticket", number, WRITES_PER_TICKET)
        visitor = shown.access.visitor
        theirs = visitor.address.value if visitor is not None else ""
        return await self.tickets.receive(
            Contact(
                medium=Medium.WEB,
                external_id=f"{shown.access.mark}{key}:{forms.digest(words)}",
                received_at=self.clock.now(),
                from_value=theirs or next(iter((*person.numbers, *person.mails)), ""),
                from_name=person.name,
                text=words,
                files=_attached(files),
                ticket=number,
            )
        )

    async def file(self, request: web.Request) -> web.StreamResponse:
        """Send a file that belongs to what the visitor may see of the ticket.

        Raises:
            NotFound: there is none such.
        """
        shown = await self._shown(request)
        detail, access = shown.detail, shown.access
        theirs = (each for each in detail.contacts if view.is_own(detail, access, each))
        for file in (file for contact in theirs for file in view.shared_files(contact)):
            path = self.blobs.path(file.sha256)
            if str(file.id) == request.match_info["file"] and path.is_file():
                return web.FileResponse(path, headers=_file_headers(file))
        raise NotFound("there is no such file")

    # Drawing

    async def _shown(self, request: web.Request) -> _Shown:
        """Return the ticket that a page is about.

        Raises:
            NotFound: there is none such, or it is not the visitor's.
        """
        access = await self.door.access(request)
        detail = await self.views.ticket(access.number)
        visitor, is_link = access.visitor, "token" in request.match_info
        is_theirs = visitor is not None and visitor.person_id == detail.requester.id
        if not is_theirs and not is_link:
            raise NotFound("there is no such ticket")
        access = replace(
            access,
            visitor=visitor if is_theirs else None,
            is_proved=is_theirs or access.is_proved,
        )
        return _Shown(
            access=access, detail=detail, say=self.pages.say(self.pages.language(request))
        )

    async def _progress(self, request: web.Request, shown: _Shown) -> dict[str, Any]:
        detail, number = shown.detail, shown.access.number
        names = await self.views.names(view.engineers(detail.journal))
        values: dict[str, Any] = {
            "access": shown.access,
            "ticket": detail.ticket,
            "standing": view.standing(detail, shown.say),
            "items": view.items(detail, shown.access, names, shown.say),
            "visits": await self.portal.visits(number),
            "promises": view.promised(detail.journal, await self.terms(), self.clock.now()),
            "pictures": view.PICTURES,
            "longest_note": LONGEST_NOTE,
            **self._common(request),
        }
        parts = (values[name] for name in ("standing", "items", "visits", "promises"))
        told = "".join(map(repr, parts)) + str(shown.access.visitor is not None)
        return values | {"seen": hashlib.sha256(told.encode("utf-8", "replace")).hexdigest()[:16]}

    async def _ticket(
        self, request: web.Request, shown: _Shown, *, status: int = 200, **values: Any
    ) -> web.Response:
        fresh = {
            "key": forms.new_form(), "words": "", "files": (), "remark": "", "call_fault": "",
            "done": _DONE.get(request.query.get("done", ""), ""),
            "numbers": [phone.mask(each) for each in view.numbers(shown.detail, shown.access)],
            "longest_words": LONGEST_WORDS,
            "has_remote": self.invite is not None,
        }  # fmt: skip
        drawn = {**await self._progress(request, shown), **fresh, **values}
        response = await self._respond(request, "ticket.html", status=status, section="my", **drawn)
        response.headers["Referrer-Policy"] = "no-referrer"  # the address is a key
        return response

    async def _form(self, request: web.Request, form: _Form, *, status: int = 200) -> web.Response:
        return await self._respond(
            request, "new.html", status=status, section="new", form=form, report=form.report,
            sites=await self._shown_sites(request), impacts=forms.IMPACTS, longest=forms.LONGEST,
        )  # fmt: skip

    async def _shown_sites(self, request: web.Request) -> dict[str, str]:
        """Return the sites; none while the database is away: the choice is kept as it is."""
        try:
            return await self._sites(request)
        except TemporaryFailure:
            return {}

    async def _sites(self, request: web.Request) -> dict[str, str]:
        """Return the sites by key, with their names in the visitor's language."""
        language = self.pages.language(request)
        return {site.key: _site_name(site, language) for site in await self.views.sites()}

    async def _respond(
        self, request: web.Request, template: str, *, status: int = 200, **values: Any
    ) -> web.Response:
        known = {"visitor": await self._visitor(request), **self._common(request), **values}
        response = self.pages.respond(request, f"help/{template}", status=status, **known)
        response.headers["X-Robots-Tag"] = "noindex"
        return response

    async def _visitor(self, request: web.Request) -> Visitor | None:
        """Return who it is; while the database is away they are a stranger."""
        try:
            return await self.door.visitor(request)
        except TemporaryFailure:
            return None

    def _common(self, request: web.Request) -> dict[str, Any]:
        language = self.pages.language(request)
        settings = self.settings
        is_zh = language is Language.ZH
        return {
            "now": self.clock.now(),
            "times": Clockwork(language=language, zone=ZoneInfo(self.zone)),
            "hotline": settings.hotline,
            "dial": "".join(sign for sign in settings.hotline if sign in "+0123456789"),
            "hours": settings.hours_zh if is_zh else settings.hours_en,
            "limits": settings,
            "code_digits": CODE_DIGITS,
            "own_promises": view.PROMISES,
            "own_states": view.STATES,
            "own": OWN,
        }

    def guarded(self, handler: Handler) -> Handler:
        """Return a handler whose failures are told as the portal tells them."""

        @wraps(handler)
        async def friendly(request: web.Request) -> web.StreamResponse:
            try:
                return await handler(request)
            except SignIn:
                return see_other(OWN)
            except Refused as refused:
                problem = refused.problem
            except NotFound:
                problem = Problem(status=404)
            except TemporaryFailure as failure:
                log.warning("request.deferred", reason=str(failure))
                problem = Problem(status=503, headers={"Retry-After": "5"})
            if "text/html" not in request.headers.get("Accept", ""):
                raise Refused(problem)
            return await self._trouble(request, problem)

        return friendly

    async def _trouble(self, request: web.Request, problem: Problem) -> web.Response:
        title, remedy = _TROUBLES.get(problem.status, _TROUBLE)
        response = await self._respond(
            request, "trouble.html", status=problem.status, section="", title=title, remedy=remedy
        )
        response.headers.update(problem.headers)
        if problem.headers.get("Connection") == "close":
            response.force_close()
        return response


def routes(help_: Help) -> Iterable[Route]:
    """Return the pages; none if the portal is turned off."""
    if not help_.settings.enabled:
        return ()
    reads: dict[str, Handler] = {
        PATH: help_.start,
        f"{PATH}/new": help_.new,
        f"{PATH}/sent/{{sent}}": help_.sent,
        f"{PATH}/code/{{challenge}}": help_.code,
        OWN: help_.mine,
    }
    acts: dict[str, Handler] = {
        OWN: help_.ask_code,
        f"{PATH}/code/{{challenge}}": help_.answer_code,
        f"{PATH}/leave": help_.leave,
        f"{PATH}/files/{{sha256}}/drop": help_.drop_file,
    }
    streams: dict[str, Handler] = {
        f"{PATH}/new": help_.report,
        f"{PATH}/files": help_.add_file,
    }
    for base in (f"{LINKS}/{{token}}", f"{OWN}/{{number}}"):
        reads |= {
            base: help_.ticket,
            f"{base}/progress": help_.progress,
            f"{base}/files/{{file}}": help_.file,
        }
        acts |= {
            f"{base}/confirm": help_.confirm,
            f"{base}/rate": help_.rate,
            f"{base}/call-back": help_.call_back,
            f"{base}/remote": help_.remote,
        }
        streams[f"{base}/reply"] = help_.reply
    return (
        *(_route("GET", path, help_.guarded(handler)) for path, handler in reads.items()),
        *(_route("POST", path, help_.guarded(handler)) for path, handler in acts.items()),
        *(
            _route("POST", path, help_.guarded(handler), streams=True)
            for path, handler in streams.items()
        ),
    )


def _route(method: str, path: str, handler: Handler, *, streams: bool = False) -> Route:
    return Route(method=method, path=path, handler=handler, roles=None, streams=streams)


def _back(access: Access, done: str) -> web.Response:
    return see_other(f"{access.base}?done={done}#top")


def _attached(files: tuple[Blob, ...]) -> tuple[File, ...]:
    return tuple(File(kind="attachment", blob=blob) for blob in files)


def _remark(sent: Sent, say: Say) -> str:
    return say(sent.trouble, **sent.values) if sent.trouble else ""


def _known_of(visitor: Visitor | None) -> dict[str, str]:
    """Return what somebody need not fill in, because we know it."""
    if visitor is None:
        return {}
    kind = "phone" if visitor.address.kind == PHONE else "mail"
    return {"name": visitor.name, "department": visitor.department, kind: visitor.address.value}


def _number_of(form: Mapping[str, Any], shown: _Shown) -> str:
    """Return the number to call: one of the requester's own, or what they have typed.

    Who has only a link cannot have us call a number of theirs: it may have been forwarded.
    """
    own, chosen = view.numbers(shown.detail, shown.access), str(form.get("own", ""))
    typed = phone.address(clean_line(str(form.get("number", "")), 40))
    if typed and shown.access.visitor is not None:
        return typed
    if chosen.isascii() and chosen.isdigit() and int(chosen[:4]) < len(own):
        return own[int(chosen[:4])]
    return ""


def _site_name(site: SiteView, language: Language) -> str:
    return site.name_zh if language is Language.ZH else site.name_en


def _file_headers(file: AttachmentView) -> dict[str, str]:
    """Return headers with which nothing of a file runs: all but pictures is saved."""
    is_picture = file.media_type in view.PICTURES
    name = file.name if file.name.isprintable() else "file"
    place = "inline" if is_picture else "attachment"
    return {
        "Content-Type": file.media_type if is_picture else "application/octet-stream",
        "Content-Disposition": f"{place}; filename*=UTF-8''{quote(name, safe='')}",
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "Cache-Control": "private, no-cache",
    }
