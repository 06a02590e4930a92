"""Log in with name and password, with a code of one's telephone, or at an OIDC provider; log out.

The session is a cookie; a log-in always makes a new one and ends the one before, so that nobody can
be handed a session that somebody else knows (session fixation).
"""

import hmac
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from aiohttp import web

from contactd.clock import Clock
from contactd.errors import NotFound, PermanentFailure, TemporaryFailure
from contactd.httpd import HTTPD, Identity, Route
from contactd.log import get_logger
from contactd.store.accounts import Grant
from contactd.store.acts import SYSTEM
from contactd.store.attempts import Counter, by_address, by_name
from contactd.web.factor import step_of
from contactd.web.pages import Pages, see_other
from contactd.web.sealed import seal, unseal
from contactd.web.words import N_

log = get_logger()

SESSION_LENGTH: Final = timedelta(hours=12)  # a shift and its hand-over
LONGEST_FIELD: Final = 200
LONGEST_TARGET: Final = 2000
STEP_COOKIE: Final = "contactd_login"  # what is known between two steps; sealed
STEP_LASTS: Final = timedelta(minutes=10)
_WRONG: Final = N_("The name or the password is wrong.")
_WRONG_CODE: Final = N_("This code is wrong, or was used already. Wait for the next one.")
_LOCKED: Final = N_("Too many attempts. Try again in %(minutes)s minutes.")
_TOO_LATE: Final = N_("That took too long. Please begin again.")
_AWAY: Final = N_("The company's log-in service does not answer. Use a password, or try again.")
_REFUSED: Final = N_(
    "The company's log-in service did not let you in, or the log-in was broken off."
)
_NOT_HERE: Final = N_(
    "The company knows you, but you have no access here. Ask an administrator for a role."
)


class Logins(Protocol):
    async def check_password(self, name: str, password: str) -> Identity | None: ...

    async def factor_key(self, name: str) -> bytes | None:
        """Return the secret of a user's second factor, None if there is none."""
        ...

    async def use_step(self, name: str, step: int) -> bool:
        """Return whether a code of this step may be used: once."""
        ...

    async def open_session(self, name: str, *, lasts: timedelta, agent: str = "") -> str:
        """Return the secret of a new session.

        Raises:
            NotFound: there is no such user who may log in.
        """
        ...

    async def close_session(self, secret: str) -> None: ...

    async def admit(self, subject: str, name: str, grant: Grant) -> Identity:
        """Return whom the provider knows; they are added if they are new.

        Raises:
            PermanentFailure: they may not come in.
        """
        ...


class Guard(Protocol):
    """Lock-outs; see `store.attempts`."""

    async def begin(self, counters: Sequence[Counter]) -> timedelta: ...

    async def succeeded(self, name: Counter, others: Sequence[Counter] = ()) -> None: ...


class Journal(Protocol):
    async def note(
        self, *, actor: str, action: str, subject: str = "", body: Mapping[str, Any] | None = None
    ) -> None: ...


class Start(Protocol):
    @property
    def url(self) -> str: ...

    @property
    def state(self) -> str: ...

    @property
    def nonce(self) -> str: ...

    @property
    def verifier(self) -> str: ...


class Known(Protocol):
    @property
    def subject(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def grant(self) -> Grant: ...


class Provider(Protocol):
    """Where else people log in; see `web.oidc`."""

    @property
    def label(self) -> str: ...

    async def begin(self) -> Start: ...

    async def finish(self, code: str, *, verifier: str, nonce: str, issuer: str) -> Known: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """The handlers. `key` returns that of `tickets.signing`; `provider` None: passwords only."""

    pages: Pages
    logins: Logins
    guard: Guard
    acts: Journal
    clock: Clock
    key: Callable[[], Awaitable[bytes]]
    provider: Provider | None = None

    async def form(self, request: web.Request) -> web.Response:
        target = own_page(request.query.get("next", "/"))
        remark = _TOO_LATE if "late" in request.query else ""
        return self._form(request, target=target, remark=remark)

    async def log_in(self, request: web.Request) -> web.Response:
        fields = await request.post()
        name, password = str(fields.get("name", "")).strip(), str(fields.get("password", ""))
        target = own_page(str(fields.get("next", "/")))
        here = [by_name(name), by_address(request.app[HTTPD].client(request))]
        if wait := await self.guard.begin(here):
            return self._locked(request, target, name, wait)
        identity = None
        if name and password and len(name) <= LONGEST_FIELD and len(password) <= LONGEST_FIELD:
            identity = await self.logins.check_password(name, password)
        if identity is None:
            await self._note_refusal(request, name)
            return self._form(request, target=target, remark=_WRONG, status=401, name=name)
        if await self.logins.factor_key(identity.name) is not None:
            return await self._ask_for_code(request, identity.name, target)
        await self.guard.succeeded(here[0], here[1:])
        return await self.enter(request, identity, target, how="password")

    # The second step

    async def _ask_for_code(self, request: web.Request, name: str, target: str) -> web.Response:
        """Go on to the code; the failure that was counted stays until that is right, too."""
        response = see_other("/login/code")
        await self._keep(request, response, "code", {"name": name, "next": target})
        return response

    async def code_form(self, request: web.Request) -> web.Response:
        kept = await self._kept(request, "code")
        return self._code(request) if kept is not None else see_other("/login?late=1")

    async def check_code(self, request: web.Request) -> web.Response:
        kept = await self._kept(request, "code")
        if kept is None:
            return see_other("/login?late=1")
        name, fields = str(kept["name"]), await request.post()
        here = [by_name(name), by_address(request.app[HTTPD].client(request))]
        if wait := await self.guard.begin(here):
            return self._code(request, remark=_LOCKED, wait=wait)
        key = await self.logins.factor_key(name)
        code = str(fields.get("code", ""))[:LONGEST_FIELD]
        step = step_of(key, code, self.clock.now()) if key is not None else None
        if step is None or not await self.logins.use_step(name, step):
            await self._note_refusal(request, name, step="code")
            return self._code(request, remark=_WRONG_CODE, status=401)
        await self.guard.succeeded(here[0], here[1:])
        return await self.enter(request, _Named(name=name), own_page(str(kept["next"])), how="code")

    # The provider

    async def to_provider(self, request: web.Request) -> web.Response:
        """Send the browser to the provider.

        Raises:
            NotFound: none is configured.
        """
        provider = self._provider()
        target = own_page(request.query.get("next", "/"))
        try:
            start = await provider.begin()
        except (TemporaryFailure, PermanentFailure) as failure:
            log.warning("oidc.away", reason=str(failure))
            return self._form(request, target=target, remark=_AWAY, status=503)
        response = see_other(start.url)
        kept = {
            "state": start.state, "nonce": start.nonce, "verifier": start.verifier, "next": target,
        }  # fmt: skip
        await self._keep(request, response, "oidc", kept)
        return response

    async def from_provider(self, request: web.Request) -> web.Response:
        """Let in whom the provider sends back, to the browser that had set out.

        Raises:
            NotFound: no provider is configured.
        """
        provider, asked = self._provider(), request.query
        kept = await self._kept(request, "oidc")
        if kept is None or not _same(asked.get("state", ""), str(kept["state"])):
            return see_other("/login?late=1")
        target = own_page(str(kept["next"]))
        if "code" not in asked:
            log.warning("oidc.refused", reason="the provider says no")
            return self._form(request, target=target, remark=_REFUSED, status=403)
        try:
            known = await provider.finish(
                asked["code"], verifier=str(kept["verifier"]), nonce=str(kept["nonce"]),
                issuer=asked.get("iss", ""),
            )  # fmt: skip
            identity = await self.logins.admit(known.subject, known.name, known.grant)
        except TemporaryFailure as failure:
            log.warning("oidc.away", reason=str(failure))
            return self._form(request, target=target, remark=_AWAY, status=503)
        except PermanentFailure as failure:
            log.warning("oidc.refused", reason=str(failure))
            said = {"how": "oidc", "why": str(failure)[:200]}
            await self.acts.note(actor=SYSTEM, action="login.refused", body=said)
            return self._form(request, target=target, remark=_NOT_HERE, status=403)
        return await self.enter(request, identity, target, how="oidc")

    def _provider(self) -> Provider:
        if self.provider is None:
            raise NotFound("there is no provider: see oidc.issuer")
        return self.provider

    # In and out

    async def enter(
        self, request: web.Request, identity: "Identity | _Named", target: str, *, how: str
    ) -> web.Response:
        """Open a session in the place of the one before, if any, and go on to `target`."""
        httpd = request.app[HTTPD]
        if before := request.cookies.get(httpd.session_cookie(request)):
            await self.logins.close_session(before)
        agent = request.headers.get("User-Agent", "")
        secret = await self.logins.open_session(identity.name, lasts=SESSION_LENGTH, agent=agent)
        log.info("login.succeeded", user=identity.name, how=how)
        await self.acts.note(
            actor=f"user:{identity.name}", action="login.succeeded", subject=identity.name,
            body={"how": how, "address": httpd.client(request)},
        )  # fmt: skip
        response = see_other(target)
        response.set_cookie(
            httpd.session_cookie(request), secret, max_age=int(SESSION_LENGTH.total_seconds()),
            httponly=True, samesite="Lax", secure=httpd.is_secure(request), path="/",
        )  # fmt: skip
        response.del_cookie(STEP_COOKIE, path="/login")
        return response

    async def log_out(self, request: web.Request) -> web.Response:
        httpd = request.app[HTTPD]
        cookie = httpd.session_cookie(request)
        if secret := request.cookies.get(cookie):
            await self.logins.close_session(secret)
        response = see_other("/login")
        response.del_cookie(cookie, path="/", secure=httpd.is_secure(request))
        return response

    # What both steps share

    def _form(
        self,
        request: web.Request,
        *,
        target: str,
        remark: str = "",
        status: int = 200,
        **values: Any,
    ) -> web.Response:
        shown = {"name": "", "minutes": "", **values}
        shown["name"] = shown["name"][:LONGEST_FIELD]
        return self.pages.respond(
            request, "login.html", status=status, identity=None, next=target, remark=remark,
            provider=self.provider, **shown,
        )  # fmt: skip

    def _locked(
        self, request: web.Request, target: str, name: str, wait: timedelta
    ) -> web.Response:
        """Say how long to wait; a name that nobody has is locked alike."""
        response = self._form(
            request, target=target, remark=_LOCKED, status=429, name=name, minutes=_minutes(wait)
        )
        response.headers["Retry-After"] = _seconds(wait)
        return response

    def _code(
        self,
        request: web.Request,
        *,
        remark: str = "",
        status: int = 200,
        wait: timedelta = timedelta(),
    ) -> web.Response:
        response = self.pages.respond(
            request, "logincode.html", status=429 if wait else status, identity=None,
            remark=remark, minutes=_minutes(wait),
        )  # fmt: skip
        if wait:
            response.headers["Retry-After"] = _seconds(wait)
        return response

    async def _note_refusal(
        self, request: web.Request, name: str, *, step: str = "password"
    ) -> None:
        """Note who was refused; of the name only its beginning: it may be a password."""
        log.warning("login.failed", step=step)
        said = {
            "name": f"{name[:2]}…" if name else "",
            "step": step,
            "address": request.app[HTTPD].client(request),
        }
        await self.acts.note(actor=SYSTEM, action="login.refused", body=said)

    async def _keep(
        self, request: web.Request, response: web.Response, step: str, values: Mapping[str, str]
    ) -> None:
        """Have the browser keep what the next step needs; not Strict: they come back."""
        sealed = seal(await self.key(), step, values, self._until())
        response.set_cookie(
            STEP_COOKIE, sealed, max_age=int(STEP_LASTS.total_seconds()), path="/login",
            httponly=True, samesite="Lax", secure=request.app[HTTPD].is_secure(request),
        )  # fmt: skip

    async def _kept(self, request: web.Request, step: str) -> Mapping[str, Any] | None:
        sealed = request.cookies.get(STEP_COOKIE, "")
        return unseal(await self.key(), step, sealed, self.clock.now()) if sealed else None

    def _until(self) -> datetime:
        return self.clock.now() + STEP_LASTS


@dataclass(frozen=True, slots=True, kw_only=True)
class _Named:
    """Somebody who has proved to be it in two steps."""

    name: str


def routes(login: Login) -> Iterable[Route]:
    return (
        Route(method="GET", path="/login", handler=login.form, roles=None),
        Route(method="POST", path="/login", handler=login.log_in, roles=None),
        Route(method="GET", path="/login/code", handler=login.code_form, roles=None),
        Route(method="POST", path="/login/code", handler=login.check_code, roles=None),
        Route(method="GET", path="/login/oidc", handler=login.to_provider, roles=None),
        Route(method="GET", path="/login/oidc/callback", handler=login.from_provider, roles=None),
        Route(method="POST", path="/logout", handler=login.log_out, roles=None),
    )


def own_page(path: str) -> str:
    """Return `path` if it leads to a page of ours, else `/` (no open redirect)."""
    ours = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if ours and len(path) <= LONGEST_TARGET else "/"


def _same(shown: str, known: str) -> bool:
    return hmac.compare_digest(shown.encode("utf-8", "replace"), known.encode())


def _minutes(wait: timedelta) -> str:
    return str(-(-int(wait.total_seconds()) // 60)) if wait else ""


def _seconds(wait: timedelta) -> str:
    return str(int(wait.total_seconds()) + 1)
