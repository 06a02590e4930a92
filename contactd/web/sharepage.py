"""The share page, /s: where the user, and nobody else, begins remote help, follows it and ends it.

A GET changes nothing: programs that read mail open its links. A code that opens nothing gets one
answer, whatever the reason. Everything but a picture of the screen works without JavaScript: who
agreed follows the session by a page that loads itself again, and stops it with a form.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import wraps
from typing import Any, Final, Protocol
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from aiohttp import web

from contactd.clock import Clock
from contactd.errors import ActionNotAllowed, ContactdError, NotFound
from contactd.httpd import (
    HTTPD,
    SECURE_SHARE_COOKIE,
    SHARE_COOKIE,
    Handler,
    Problem,
    Refused,
    Route,
    problem_of,
)
from contactd.log import get_logger
from contactd.settings import RemoteSettings
from contactd.store.blobs import Blobs
from contactd.tickets import agreement
from contactd.tickets.contact import Blob
from contactd.tickets.journal import REQUESTER
from contactd.tickets.numbers import digits_of
from contactd.tickets.remote import Ending, Mode, State
from contactd.tickets.sharing import (
    Agreed,
    Consent,
    FileState,
    Kind,
    Line,
    Session,
    SharedFile,
    Shown,
)
from contactd.web.handover import attachment, give_file, take_file
from contactd.web.i18n import Clockwork, Language
from contactd.web.pages import Pages, see_other
from contactd.web.words import N_

log = get_logger()

PATH: Final = "/s"
OWN: Final = f"{PATH}/session"
CODE_DIGITS: Final = 9
MOST_FILES: Final = 50  # of one session; the store has the same limit
LONGEST_LINE: Final = 2000
HELPER_NAME: Final = "contactd-share.pyz"
HELPER_TYPE: Final = "application/octet-stream"
NOT_ASKED: Final = "no"  # what the button sends of who does not want it

ENDINGS: Final[Mapping[Ending, str]] = {
    Ending.DONE: N_("The engineer is finished and has ended it."),
    Ending.STOPPED: N_("You have ended it."),
    Ending.REFUSED: N_("You said no."),
    Ending.EXPIRED: N_("No engineer came in time. We are sorry."),
    Ending.IDLE: N_("Nothing was done for a while, so it was ended."),
    Ending.TOO_LONG: N_("It has reached its longest time."),
    Ending.LOST: N_("The connection was lost and nobody went on."),
    Ending.HANDED_OVER: N_("It goes on with somebody else."),
    Ending.RECORDER: N_("It could not be recorded any more, so it was ended."),
    Ending.FORBIDDEN: N_("A program did what it must not, so it was ended."),
    Ending.REPLACED: N_("A newer link was sent to you: please open that one."),
    Ending.CLOSED: N_("Your ticket was closed."),
}
_TROUBLES: Final[Mapping[int, tuple[str, str]]] = {
    408: (N_("That took too long"), N_("Please try again, perhaps with a smaller file.")),
    413: (N_("That is too large"), N_("Please try again with a smaller file.")),
    503: (N_("It does not work just now"), N_("Please try again in a minute. Nothing is shared.")),
}
_TROUBLE: Final = (N_("That did not work"), N_("Please go back and try again, or call us."))
_DONE: Final[Mapping[str, str]] = {
    "refused": N_("You said no: nothing was shared. We go on with your ticket in another way."),
    "late": N_("Meanwhile it has moved on. Please look below."),
    "sent": N_("Offered: the engineer has to accept it."),
}


class Sessions(Protocol):
    """What is kept; `store.remote.RemoteSessions` has it."""

    async def shown(self, code: str, peer: str) -> Shown | None: ...

    async def agree(self, code: str, peer: str, answer: Agreed) -> str | None: ...

    async def refuse(self, code: str, peer: str, answer: Agreed) -> bool: ...

    async def of_share(self, secret: str) -> Session | None: ...

    async def helper_key(self, session_id: int) -> str: ...

    async def repeater_id(self, session_id: int) -> str: ...

    async def say(self, session_id: int, who: str, text: str) -> Line | None: ...

    async def chat(self, session_id: int) -> tuple[Line, ...]: ...

    async def files(self, session_id: int) -> tuple[SharedFile, ...]: ...

    async def offer_file(self, session_id: int, *, sender: str, blob: Blob) -> SharedFile: ...

    async def answer_file(
        self, session_id: int, number: int, *, by: str, yes: bool, consent: Consent | None = None
    ) -> SharedFile: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Said:
    """A line of the chat as the user reads it."""

    at: datetime
    name: str  # "": they wrote it themselves
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SharePage:
    """The handlers. `helper` packs the program for an invitation; `zone` is the service's.

    `admit` returns what lets the user's page in at `/s/live`, once and soon. `cut` ends a session
    for its user at once: first what passes, then what is kept. `hotline` is the number to call, as
    it is written, "" if there is none.
    """

    pages: Pages
    sessions: Sessions
    admit: Callable[[int], str]
    cut: Callable[[int], Awaitable[None]]
    blobs: Blobs
    helper: Callable[[Mapping[str, str]], bytes]
    settings: RemoteSettings
    public_url: str
    service: str
    hotline: str
    clock: Clock
    zone: str

    # The invitation

    async def enter(self, request: web.Request) -> web.Response:
        """Ask for the code that somebody was told on the telephone."""
        done = _DONE.get(request.query.get("done", ""), "")
        return await self._ask_code(request, done=done)

    async def entered(self, request: web.Request) -> web.Response:
        typed = str((await request.post()).get("code", ""))[:40]
        code = digits_of(typed)
        if len(code) != CODE_DIGITS:
            return await self._ask_code(request, status=422, typed=typed, is_short=True)
        return see_other(f"{PATH}/{code}")

    async def invitation(self, request: web.Request) -> web.Response:
        """Say who will help, what is recorded and how to stop. Nothing happens by looking."""
        shown = await self.sessions.shown(request.match_info["code"], _peer(request))
        if shown is None:
            return await self._gone(request)
        return self._invitation(request, shown)

    async def answer(self, request: web.Request) -> web.Response:
        """Take the user's word: how they want to be helped, or not at all."""
        form = await request.post()
        code, choice = request.match_info["code"], str(form.get("choice", ""))
        answer = _agreed(form)
        if choice == NOT_ASKED and answer is not None:
            if not await self.sessions.refuse(code, _peer(request), answer):
                return await self._gone(request)
            return see_other(f"{PATH}?done=refused")
        if answer is None or answer.mode not in self._modes():
            # A page from before an update, or none of ours: what would be agreed to is shown again.
            return see_other(f"{PATH}/{digits_of(code)}")
        secret = await self.sessions.agree(code, _peer(request), answer)
        if secret is None:
            return await self._gone(request)
        response = see_other(OWN)
        name, is_secure = _cookie(request)
        response.set_cookie(
            name, secret, httponly=True, samesite="Strict", secure=is_secure, path="/"
        )
        return response

    def _modes(self) -> tuple[Mode, ...]:
        extra = (Mode.REPEATER,) if self.settings.repeater_port else ()
        return (Mode.CONTROL, Mode.VIEW, *extra)

    def _invitation(self, request: web.Request, shown: Shown) -> web.Response:
        language = self.pages.language(request)
        text = agreement.text_of(agreement.CURRENT, language.value)
        return self._respond(
            request, "invitation.html", shown=shown, code=digits_of(request.match_info["code"]),
            paragraphs=text.splitlines(), agreed_version=agreement.CURRENT,
            device=_device(request), modes=self._modes(), host=self._host(request),
        )  # fmt: skip

    async def _gone(self, request: web.Request) -> web.Response:
        """Answer a code that opens nothing: wrong, used, expired and locked look the same."""
        return await self._ask_code(request, status=404, is_gone=True)

    async def _ask_code(
        self, request: web.Request, *, status: int = 200, **values: Any
    ) -> web.Response:
        fresh = {"done": "", "typed": "", "is_short": False, "is_gone": False}
        session = await self._session(request)
        has_own = session is not None and session.state is not State.ENDED
        return self._respond(
            request, "enter.html", status=status, has_own=has_own, **{**fresh, **values}
        )

    # The session of who agreed

    async def session(self, request: web.Request) -> web.Response:
        session = await self._own(request)
        values = await self._standing(request, session)
        return self._respond(
            request, "session.html", **values,
            done=_DONE.get(request.query.get("done", ""), ""),
            questions=_questions(session.language),
            asked_rights=agreement.RIGHTS.get(session.language) or agreement.RIGHTS["en"],
        )  # fmt: skip

    async def part(self, request: web.Request) -> web.Response:
        """Draw what may have changed on a page that is open; nothing if nothing has."""
        values = await self._standing(request, await self._own(request))
        if request.query.get("seen") == values["seen"]:
            return web.Response(status=204)
        html = self.pages.draw("share/part.html", self.pages.language(request), **values)
        return web.Response(text=html, content_type="text/html")

    async def admission(self, request: web.Request) -> web.Response:
        session = await self._own(request)
        if session.state is State.ENDED:
            raise Refused(Problem(status=409, detail="the remote session is over"))
        return web.json_response({"admission": self.admit(session.id)})

    async def download(self, request: web.Request) -> web.Response:
        """Give the helper, with a key in it that works once and for ten minutes."""
        if request.method == "HEAD":  # a look must not use up a key
            return web.Response(content_type=HELPER_TYPE)
        session = await self._own(request)
        key = await self.sessions.helper_key(session.id)
        invitation = {
            "url": self._origin(request), "key": key, "service": self.service,
            "language": self.pages.language(request).value, "ticket": session.ticket,
        }  # fmt: skip
        packed = await asyncio.to_thread(self.helper, invitation)
        log.info("remote.helper_given", session=session.id, size=len(packed))
        return web.Response(
            body=packed,
            content_type=HELPER_TYPE,
            headers={"Content-Disposition": attachment(HELPER_NAME)},
        )

    async def repeater(self, request: web.Request) -> web.Response:
        """Show the digits with which the user's own VNC server calls in; they work once."""
        session = await self._own(request)
        return self._respond(
            request, "repeater.html", session=session,
            digits=await self.sessions.repeater_id(session.id),
            host=self._host(request).partition(":")[0], port=self.settings.repeater_port,
        )  # fmt: skip

    async def stop(self, request: web.Request) -> web.Response:
        """End it, whatever else is under way; harmless twice."""
        session = await self._own(request)
        if session.state is not State.ENDED:
            await self.cut(session.id)
        return see_other(OWN)

    async def say(self, request: web.Request) -> web.Response:
        session = await self._own(request)
        words = str((await request.post()).get("text", ""))[:LONGEST_LINE]
        await self.sessions.say(session.id, REQUESTER, words)
        return see_other(f"{OWN}#chat")

    # Files

    async def offer(self, request: web.Request) -> web.Response:
        """Take a file for the engineer, who has to accept it."""
        session = await self._own(request)
        if len(await self.sessions.files(session.id)) >= MOST_FILES:
            raise ActionNotAllowed("too many files in one remote session")
        if session.state is State.ENDED:
            raise ActionNotAllowed("the remote session is over")
        blob = await take_file(request, self.blobs, self.settings.max_file_bytes)
        if blob is not None and blob.size_bytes:
            await self.sessions.offer_file(session.id, sender=REQUESTER, blob=blob)
            return see_other(f"{OWN}?done=sent#files")
        return see_other(f"{OWN}#files")

    async def answer_file(self, request: web.Request) -> web.Response:
        session = await self._own(request)
        if session.mode is not Mode.VIEW:
            # Who controls the screen could press the button: the helper asks, and holds them off.
            raise ActionNotAllowed("this is answered in the window of the helper")
        found = await self._file(request, session)
        is_yes = str((await request.post()).get("do", "")) == "yes"
        consent = _file_consent(session, found, self.pages.language(request), is_yes=is_yes)
        await self.sessions.answer_file(
            session.id, found.number, by=REQUESTER, yes=is_yes, consent=consent
        )
        return see_other(f"{OWN}#files")

    async def file(self, request: web.Request) -> web.StreamResponse:
        """Send a file that the user has accepted; none of their own is sent back."""
        session = await self._own(request)
        found = await self._file(request, session)
        if found.sender == REQUESTER:
            raise NotFound("there is no such file")
        return give_file(self.blobs, found)

    async def _file(self, request: web.Request, session: Session) -> SharedFile:
        number = request.match_info["file"]
        for each in await self.sessions.files(session.id):
            if str(each.number) == number:
                return each
        raise NotFound("there is no such file")

    # Drawing

    async def _session(self, request: web.Request) -> Session | None:
        """Return whose browser it is, None if nobody's who agreed."""
        secret = request.cookies.get(_cookie(request)[0], "")
        return await self.sessions.of_share(secret) if secret else None

    async def _own(self, request: web.Request) -> Session:
        """Return the session of who agreed in this browser.

        Raises:
            _Stranger: there is none.
        """
        found = await self._session(request)
        if found is None:
            raise _Stranger
        return found

    async def _standing(self, request: web.Request, session: Session) -> dict[str, Any]:
        lines = await self.sessions.chat(session.id)
        shared = await self.sessions.files(session.id)
        values: dict[str, Any] = {
            "session": session,
            "lines": [_said(line, session) for line in lines],
            "files": shared,
            "file_states": FileState,
            "names": {each.sender: _name_of(each.sender, session) for each in shared},
            "ending": ENDINGS[session.ending] if session.ending else "",
            "lasted": _minutes(session),
            "rights": agreement.RIGHTS[self.pages.language(request).value],
            "device": _device(request),
            "longest_line": LONGEST_LINE,
            **self._common(request),
        }
        told = repr((session, values["lines"], shared)).encode("utf-8", "replace")
        return values | {"seen": hashlib.sha256(told).hexdigest()[:16]}

    def _common(self, request: web.Request) -> dict[str, Any]:
        language = self.pages.language(request)
        return {
            "now": self.clock.now(),
            "times": Clockwork(language=language, zone=ZoneInfo(self.zone)),
            "limits": self.settings,
            "hotkey": "+".join(each.title() for each in self.settings.hotkey.split("+")),
            "hotline": self.hotline,
            "dial": "".join(sign for sign in self.hotline if sign in "+0123456789"),
            "own": OWN,
        }

    def _respond(
        self, request: web.Request, template: str, *, status: int = 200, **values: Any
    ) -> web.Response:
        response = self.pages.respond(
            request, f"share/{template}", status=status, **{**self._common(request), **values}
        )
        response.headers["X-Robots-Tag"] = "noindex"
        response.headers["Referrer-Policy"] = "no-referrer"  # the address may be a key
        return response

    def _origin(self, request: web.Request) -> str:
        scheme = "https" if request.app[HTTPD].is_secure(request) else "http"
        return self.public_url.rstrip("/") or f"{scheme}://{request.host}"

    def _host(self, request: web.Request) -> str:
        """Return the address of these pages as somebody types it."""
        return urlsplit(self._origin(request)).netloc

    def guarded(self, handler: Handler) -> Handler:
        """Return a handler whose failures are told in the words of these pages."""

        @wraps(handler)
        async def friendly(request: web.Request) -> web.StreamResponse:
            try:
                return await handler(request)
            except (_Stranger, ContactdError, Refused) as failure:
                if not _wants_page(request):
                    raise Refused(_problem(failure)) from failure
                # Where it has moved on, the page says how it stands.
                elsewhere = _ELSEWHERE.get(type(failure))
                if elsewhere is not None:
                    return see_other(elsewhere)
                return self._trouble(request, _problem(failure))

        return friendly

    def _trouble(self, request: web.Request, problem: Problem) -> web.Response:
        title, remedy = _TROUBLES.get(problem.status, _TROUBLE)
        response = self._respond(
            request, "trouble.html", status=problem.status, title=title, remedy=remedy
        )
        response.headers.update(problem.headers)
        if problem.headers.get("Connection") == "close":
            response.force_close()
        return response


class _Stranger(Exception):
    """Raised where only who agreed may go on."""


_ELSEWHERE: Final[Mapping[type[Exception], str]] = {
    _Stranger: PATH,
    ActionNotAllowed: f"{OWN}?done=late",
}


def _problem(failure: Exception) -> Problem:
    match failure:
        case Refused(problem=problem):
            return problem
        case ContactdError():
            return problem_of(failure)
        case _:
            return Problem(status=404)


def routes(page: SharePage) -> Iterable[Route]:
    """Return the pages; none if remote help is turned off."""
    if not page.settings.enabled:
        return ()
    reads: dict[str, Handler] = {
        PATH: page.enter,
        f"{PATH}/{{code}}": page.invitation,
        OWN: page.session,
        f"{OWN}/part": page.part,
        f"{OWN}/helper": page.download,
        f"{OWN}/files/{{file}}": page.file,
    }
    acts: dict[str, Handler] = {
        PATH: page.entered,
        f"{PATH}/{{code}}/answer": page.answer,
        f"{OWN}/admission": page.admission,
        f"{OWN}/stop": page.stop,
        f"{OWN}/chat": page.say,
        f"{OWN}/files/{{file}}/answer": page.answer_file,
    }
    if page.settings.repeater_port:
        acts[f"{OWN}/repeater"] = page.repeater
    upload = page.guarded(page.offer)
    return (
        *(_route("GET", path, page.guarded(handler)) for path, handler in reads.items()),
        *(_route("POST", path, page.guarded(handler)) for path, handler in acts.items()),
        Route(method="POST", path=f"{OWN}/files", handler=upload, roles=None, streams=True),
    )


def _route(method: str, path: str, handler: Handler) -> Route:
    return Route(method=method, path=path, handler=handler, roles=None)


def _peer(request: web.Request) -> str:
    return request.app[HTTPD].client(request)


def _cookie(request: web.Request) -> tuple[str, bool]:
    """Return the name of the cookie of who agreed, and whether it goes by TLS only."""
    is_secure = request.app[HTTPD].is_secure(request)
    return (SECURE_SHARE_COOKIE if is_secure else SHARE_COOKIE), is_secure


def _wants_page(request: web.Request) -> bool:
    return "text/html" in request.headers.get("Accept", "")


def _agreed(form: Mapping[str, Any]) -> Agreed | None:
    """Return what was answered to which text; None if that is not the text of today."""
    language, version = str(form.get("language", "")), str(form.get("version", ""))
    choice = str(form.get("choice", ""))
    if language not in agreement.LANGUAGES or version != agreement.CURRENT:
        return None
    mode = Mode.VIEW if choice == NOT_ASKED else choice
    if mode not in set(Mode):
        return None
    shown = agreement.hash_of(agreement.text_of(version, language))
    return Agreed(mode=Mode(mode), language=language, version=version, text_hash=shown)


# What a browser says of the device, in the order in which it is looked for.
_DEVICES: Final = (
    ("phone", ("android", "iphone", "ipad", "mobile", "harmony")),
    ("windows", ("windows",)),
    ("mac", ("mac os", "macintosh")),
    ("linux", ("linux", "x11")),
)


def _device(request: web.Request) -> str:
    """Return what kind of device the page is open on; of somebody who hides it a computer."""
    told = request.headers.get("User-Agent", "")[:500].lower()
    for device, signs in _DEVICES:
        if any(sign in told for sign in signs):
            return device
    return "other"


def _name_of(who: str, session: Session) -> str:
    """Return what the user was told somebody is called; "" for the user themselves."""
    if who == REQUESTER:
        return ""
    user = who.removeprefix("user:")
    known = {each.leg.user: each.leg.engineer for each in session.legs}
    return known.get(user) or session.engineer or user


def _said(line: Line, session: Session) -> _Said:
    return _Said(at=line.at, name=_name_of(line.who, session), text=line.text)


def _minutes(session: Session) -> int:
    if session.started_at is None or session.ended_at is None:
        return 0
    return max(round((session.ended_at - session.started_at).total_seconds() / 60), 1)


def _questions(language: str) -> Mapping[str, str]:
    """Return what the user may be asked on this page, with places for who asks and which file.

    In the language in which they agreed: of these very words the broker keeps the hash.
    """
    return {
        kind: agreement.question_of(
            agreement.CURRENT, language, kind, engineer="{engineer}", file="{file}"
        )
        for kind in sorted(agreement.QUESTIONS)
    }


def _file_consent(
    session: Session, found: SharedFile, language: Language, *, is_yes: bool
) -> Consent:
    """Return what the user has answered to a file that was offered to them."""
    name = _name_of(found.sender, session)
    asked = agreement.question_of(
        agreement.CURRENT, language.value, Kind.FILE.value, engineer=name, file=found.blob.name
    )
    return Consent(
        kind=Kind.FILE, user=found.sender.removeprefix("user:"), engineer=name, yes=is_yes,
        rights=frozenset(), language=language.value, version=agreement.CURRENT,
        text_hash=agreement.hash_of(asked),
    )  # fmt: skip
