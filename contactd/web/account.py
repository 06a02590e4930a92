"""One's own account: password, second factor, open sessions, the address of one's calendar.

Only for people with a session: a token is nobody's password, even of one who has the same name.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol
from urllib.parse import quote, urlencode

from aiohttp import web

from contactd.clock import Clock
from contactd.httpd import HTTPD, Identity, Problem, Refused, Route
from contactd.store.accounts import SHORTEST_PASSWORD, OpenSession, User
from contactd.store.attempts import Counter, by_address, by_name
from contactd.store.views import SiteView
from contactd.tickets.people import Role
from contactd.web import factor
from contactd.web.access import EVERYBODY
from contactd.web.actions import actor_of
from contactd.web.endpoints import PREFIX
from contactd.web.i18n import Language
from contactd.web.pages import Pages, see_other
from contactd.web.words import N_

PATH: Final = "/account"
LONGEST_FIELD: Final = 200
_WRONG: Final = N_("The password is wrong.")
_LOCKED: Final = N_("Too many attempts. Try again in %(minutes)s minutes.")
_SHORT: Final = N_("A password has at least %(least)s characters.")
_LONG: Final = N_("It is too long: %(most)s characters at most.")
_TWO: Final = N_("The two new passwords differ.")
_CODE: Final = N_("This code is not of this picture. Look whether the telephone's clock is right.")
_KEY: Final = N_("This picture is no longer good. Use the new one.")
DONE: Final[Mapping[str, str]] = {
    "password": N_("Your password is changed. Your other sessions are ended."),
    "factor": N_("From now on a code of your telephone is asked for at each log-in."),
    "unfactor": N_("No code is asked for any more."),
    "sessions": N_("Ended."),
}


class Accounts(Protocol):
    """See `store.accounts`."""

    async def user(self, name: str) -> User: ...

    async def check_password(self, name: str, password: str) -> Identity | None: ...

    async def set_password(
        self, name: str, password: str, *, keeps: str = "", actor: str = ""
    ) -> None: ...

    async def set_factor(
        self, name: str, key: bytes | None, *, step: int = 0, actor: str = ""
    ) -> None: ...

    async def open_sessions(self, name: str, secret: str) -> Sequence[OpenSession]: ...

    async def end_session(self, name: str, session_id: str) -> None: ...

    async def end_sessions(self, name: str, *, keeps: str = "", actor: str = "") -> int: ...

    async def create_token(
        self, name: str, role: Role, *, replaces: bool = False, actor: str = ""
    ) -> str: ...


class Guard(Protocol):
    async def begin(self, counters: Sequence[Counter]) -> timedelta: ...

    async def succeeded(self, name: Counter, others: Sequence[Counter] = ()) -> None: ...


class Sites(Protocol):
    async def sites(self) -> Sequence[SiteView]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Me:
    """Who asks, and with which session."""

    identity: Identity
    secret: str

    @property
    def name(self) -> str:
        return self.identity.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """Why something was not done; `about` is the form."""

    about: str
    text: str
    status: int = 422
    minutes: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountPage:
    """The handlers. `public_url` is how browsers and calendar programs reach us."""

    pages: Pages
    accounts: Accounts
    guard: Guard
    sites: Sites
    clock: Clock
    service: str
    public_url: str

    async def show(self, request: web.Request) -> web.Response:
        return await self._page(request, await self._me(request))

    async def change_password(self, request: web.Request) -> web.Response:
        me, fields = await self._me(request), await request.post()
        new = str(fields.get("new", ""))
        remark = _of_new(new, str(fields.get("again", "")))
        remark = remark or await self._check(request, me, str(fields.get("old", "")), "password")
        if remark is not None:
            return await self._page(request, me, remark)
        actor = actor_of(me.identity)
        await self.accounts.set_password(me.name, new, keeps=me.secret, actor=actor)
        return see_other(f"{PATH}?done=password")

    # The second factor

    async def factor_form(self, request: web.Request) -> web.Response:
        me = await self._me(request)
        return self._factor(request, me, factor.new_key())

    async def set_factor(self, request: web.Request) -> web.Response:
        """Ask for codes from now on, once a code shows that the telephone has the secret."""
        me, fields = await self._me(request), await request.post()
        text, now = str(fields.get("key", "")), self.clock.now()
        key = factor.key_bytes(text)
        if key is None:
            again = Remark(about="factor", text=_KEY)
            return self._factor(request, me, factor.new_key(), again)
        step = factor.step_of(key, str(fields.get("code", ""))[:LONGEST_FIELD], now)
        if step is None:
            return self._factor(request, me, text, Remark(about="factor", text=_CODE))
        if remark := await self._check(request, me, str(fields.get("old", "")), "factor"):
            return self._factor(request, me, text, remark)
        await self.accounts.set_factor(me.name, key, step=step, actor=actor_of(me.identity))
        return see_other(f"{PATH}?done=factor")

    async def drop_factor(self, request: web.Request) -> web.Response:
        me, fields = await self._me(request), await request.post()
        if remark := await self._check(request, me, str(fields.get("old", "")), "unfactor"):
            return await self._page(request, me, remark)
        await self.accounts.set_factor(me.name, None, actor=actor_of(me.identity))
        return see_other(f"{PATH}?done=unfactor")

    # Sessions

    async def end_sessions(self, request: web.Request) -> web.Response:
        """End one session, or all but this one.

        Raises:
            NotFound: they have none of this id.
        """
        me, fields = await self._me(request), await request.post()
        if one := str(fields.get("id", "")):
            await self.accounts.end_session(me.name, one)
        else:
            actor = actor_of(me.identity)
            await self.accounts.end_sessions(me.name, keeps=me.secret, actor=actor)
        return see_other(f"{PATH}?done=sessions#sessions")

    # The calendar

    async def make_feed(self, request: web.Request) -> web.Response:
        """Show the address of one's duty as a calendar, this once; the one before ends.

        Raises:
            Refused: they are no engineer.
        """
        me = await self._me(request)
        if not me.identity.engineer:
            raise Refused(Problem(status=409, detail="this user is no engineer of the desk file"))
        secret = await self.accounts.create_token(
            f"calendar:{me.name}", Role.CALENDAR, replaces=True, actor=actor_of(me.identity)
        )
        base = self.public_url.rstrip("/") or str(request.url.origin())
        key = quote(me.identity.engineer, safe="")
        address = f"{base}{PREFIX}/oncall/person/{key}.ics?{urlencode({'token': secret})}"
        return await self._page(request, me, feed=address)

    # What they share

    async def _me(self, request: web.Request) -> Me:
        """Return who asks.

        Raises:
            Refused: it is a program.
        """
        httpd = request.app[HTTPD]
        identity = await httpd.identify(request)
        secret = request.cookies.get(httpd.session_cookie(request), "")
        if identity is None or not secret or "Authorization" in request.headers:
            raise Refused(
                Problem(status=403, detail="log in with a browser: a token has no account")
            )
        return Me(identity=identity, secret=secret)

    async def _check(
        self, request: web.Request, me: Me, password: str, about: str
    ) -> Remark | None:
        """Ask for the password again: a session may be a machine that was left open."""
        here = [by_name(me.name), by_address(request.app[HTTPD].client(request))]
        if wait := await self.guard.begin(here):
            minutes = str(-(-int(wait.total_seconds()) // 60))
            return Remark(about=about, text=_LOCKED, status=429, minutes=minutes)
        shown = password[: LONGEST_FIELD + 1]
        if len(shown) > LONGEST_FIELD or await self.accounts.check_password(me.name, shown) is None:
            return Remark(about=about, text=_WRONG)
        await self.guard.succeeded(here[0], here[1:])
        return None

    async def _page(
        self, request: web.Request, me: Me, remark: Remark | None = None, feed: str = ""
    ) -> web.Response:
        language = self.pages.language(request)
        known = {site.key: _name(site, language) for site in await self.sites.sites()}
        return self.pages.respond(
            request,
            "account/account.html",
            status=remark.status if remark else 200,
            section="account",
            identity=me.identity,
            user=await self.accounts.user(me.name),
            site_names=[known.get(key, key) for key in sorted(me.identity.sites)],
            sessions=await self.accounts.open_sessions(me.name, me.secret),
            now=self.clock.now(),
            done=DONE.get(request.query.get("done", ""), ""),
            remark=remark,
            feed=feed,
            least=SHORTEST_PASSWORD,
            most=LONGEST_FIELD,
        )

    def _factor(
        self, request: web.Request, me: Me, key: str, remark: Remark | None = None
    ) -> web.Response:
        return self.pages.respond(
            request,
            "account/factor.html",
            status=remark.status if remark else 200,
            section="account",
            identity=me.identity,
            key=key,
            typed=factor.grouped(key),
            picture=factor.picture(key, me.name, self.service),
            remark=remark,
        )


def routes(page: AccountPage) -> Iterable[Route]:
    return tuple(
        Route(method=method, path=f"{PATH}{path}", handler=handler, roles=EVERYBODY)
        for method, path, handler in (
            ("GET", "", page.show),
            ("POST", "/password", page.change_password),
            ("GET", "/factor", page.factor_form),
            ("POST", "/factor", page.set_factor),
            ("POST", "/factor/remove", page.drop_factor),
            ("POST", "/sessions", page.end_sessions),
            ("POST", "/calendar", page.make_feed),
        )
    )


def _of_new(new: str, again: str) -> Remark | None:
    """Return what is wrong with a new password."""
    for is_wrong, text in (
        (len(new) < SHORTEST_PASSWORD, _SHORT),
        (len(new) > LONGEST_FIELD, _LONG),
        (new != again, _TWO),
    ):
        if is_wrong:
            return Remark(about="password", text=text)
    return None


def _name(site: SiteView, language: Language) -> str:
    return site.name_zh if language is Language.ZH else site.name_en
