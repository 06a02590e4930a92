"""Users and API tokens, for administrators; the journal of what everybody did beside tickets.

All of it is the whole installation's: who sees some sites only may do nothing here.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any, Final, Protocol
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from aiohttp import web
from multidict import MultiMapping

from contactd.clock import Clock
from contactd.errors import PermanentFailure
from contactd.httpd import HTTPD, Identity, Problem, Refused, Route
from contactd.store.accounts import SHORTEST_PASSWORD, Grant, Token, User
from contactd.store.acts import Act, ActFilters, ActPage
from contactd.store.views import SiteView
from contactd.tickets.people import PEOPLES_ROLES, Role
from contactd.web.access import ADMINISTERING, AUDITING, check_everywhere
from contactd.web.actions import actor_of
from contactd.web.i18n import Language
from contactd.web.pages import Pages, see_other
from contactd.web.words import N_

USERS: Final = "/desk/users"
TOKENS: Final = "/desk/users/tokens"
ACTS: Final = "/desk/acts"
ROLES: Final = tuple(role for role in Role if role in PEOPLES_ROLES)
LIFETIMES: Final[Mapping[str, int]] = {"30": 30, "90": 90, "365": 365, "0": 0}  # days; 0: for ever
LONGEST_FIELD: Final = 200
ACTS_A_PAGE: Final = 50
_NO_SITES: Final = N_("Choose the sites, or all of them.")
_NO_ROLE: Final = N_("Choose a role.")
_BAD: Final = N_("That did not work: %(detail)s")
DONE: Final[Mapping[str, str]] = {
    "added": N_(
        "Added. Tell them the password on a way of its own; they can change it themselves."
    ),
    "changed": N_("Saved. It counts from their next click on."),
    "disabled": N_("Disabled. Their sessions are ended; what they did keeps their name."),
    "enabled": N_("They can log in again."),
    "factor": N_(
        "The second factor is reset: they log in with the password alone and set a new one."
    ),
    "password": N_("The password is changed and their sessions are ended."),
    "revoked": N_("The token is useless from now on."),
}


class Accounts(Protocol):
    """See `store.accounts`."""

    async def users(self) -> Sequence[User]: ...

    async def user(self, name: str) -> User: ...

    async def engineers(self) -> Mapping[str, str]: ...

    async def add_user(  # noqa: PLR0913 - the columns of a row
        self,
        name: str,
        password: str,
        role: Role,
        *,
        sites: Collection[str] | None = None,
        engineer: str | None = None,
        replaces: bool = True,
        actor: str = "",
    ) -> None: ...

    async def change_user(self, name: str, grant: Grant, *, actor: str = "") -> None: ...

    async def disable_user(self, name: str, *, actor: str = "") -> None: ...

    async def enable_user(self, name: str, *, actor: str = "") -> None: ...

    async def set_password(
        self, name: str, password: str, *, keeps: str = "", actor: str = ""
    ) -> None: ...

    async def set_factor(
        self, name: str, key: bytes | None, *, step: int = 0, actor: str = ""
    ) -> None: ...

    async def tokens(self) -> Sequence[Token]: ...

    async def create_token(
        self,
        name: str,
        role: Role,
        *,
        sites: Collection[str] = (),
        expires_at: datetime | None = None,
        actor: str = "",
    ) -> str: ...

    async def revoke_token(self, name: str, *, actor: str = "") -> None: ...


class Acts(Protocol):
    async def page(self, filters: ActFilters, cursor: str = "", limit: int = 50) -> ActPage: ...

    async def actions(self) -> Sequence[str]: ...


class Sites(Protocol):
    async def sites(self) -> Sequence[SiteView]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What somebody typed: shown again when it cannot be."""

    name: str = ""
    role: str = ""
    sites: frozenset[str] = frozenset()
    everywhere: bool = False
    engineer: str = ""
    lasts: str = "90"

    @classmethod
    def of(cls, user: User) -> "Form":
        grant = user.grant
        return cls(
            name=user.name, role=grant.role.value, sites=grant.sites, everywhere=not grant.sites,
            engineer=grant.engineer,
        )  # fmt: skip

    @classmethod
    def sent(cls, fields: MultiMapping[Any]) -> "Form":
        def text(name: str) -> str:
            return str(fields.get(name, "")).strip()[:LONGEST_FIELD]

        return cls(
            name=text("name"),
            role=text("role"),
            sites=frozenset(str(each)[:LONGEST_FIELD] for each in fields.getall("site", [])),
            everywhere=bool(text("everywhere")),
            engineer=text("engineer"),
            lasts=text("lasts"),
        )

    def grant(self, roles: Collection[Role] = ROLES) -> Grant:
        """Return what is wished for.

        Raises:
            Wrong: the form does not say it; no sites at all would be all of them.
        """
        if self.role not in {role.value for role in roles}:
            raise Wrong(_NO_ROLE)
        if not self.everywhere and not self.sites:
            raise Wrong(_NO_SITES)
        sites = frozenset[str]() if self.everywhere else self.sites
        return Grant(role=Role(self.role), sites=sites, engineer=self.engineer)


class Wrong(Exception):
    """A form that cannot be: the message id of why."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


@dataclass(frozen=True, slots=True, kw_only=True)
class UsersPage:
    """The handlers."""

    pages: Pages
    accounts: Accounts
    sites: Sites
    clock: Clock

    # Users

    async def list_users(self, request: web.Request) -> web.Response:
        identity = await _administrator(request)
        return await self._respond(
            request, "users/list.html", identity, users=await self.accounts.users()
        )

    async def new(self, request: web.Request) -> web.Response:
        identity = await _administrator(request)
        return await self._user_form(request, identity, Form(everywhere=True, role="desk"))

    async def add(self, request: web.Request) -> web.Response:
        identity, fields = await _administrator(request), await request.post()
        form = Form.sent(fields)
        password = str(fields.get("password", ""))

        async def act() -> None:
            grant = form.grant()
            if len(password) > LONGEST_FIELD:
                raise PermanentFailure(f"a password has at most {LONGEST_FIELD} characters")
            await self.accounts.add_user(
                form.name, password, grant.role, sites=grant.sites, engineer=grant.engineer,
                replaces=False, actor=actor_of(identity),
            )  # fmt: skip

        if (wrong := await _tried(act)) is not None:
            return await self._user_form(request, identity, form, wrong=wrong)
        return see_other(_of_user(form.name, "added"))

    async def one(self, request: web.Request) -> web.Response:
        """Draw one user.

        Raises:
            NotFound: there is none of this name.
        """
        identity = await _administrator(request)
        user = await self.accounts.user(request.query.get("name", ""))
        return await self._user_form(request, identity, Form.of(user), user=user)

    async def change(self, request: web.Request) -> web.Response:
        """Do what a button says to one user.

        Raises:
            NotFound: there is none of this name.
            Refused: there is no such button.
        """
        identity, fields = await _administrator(request), await request.post()
        form, actor = Form.sent(fields), actor_of(identity)
        user = await self.accounts.user(form.name)
        password = str(fields.get("password", ""))[: LONGEST_FIELD + 1]
        acts: Mapping[str, Callable[[], Awaitable[None]]] = {
            "changed": lambda: self.accounts.change_user(user.name, form.grant(), actor=actor),
            "disabled": lambda: self.accounts.disable_user(user.name, actor=actor),
            "enabled": lambda: self.accounts.enable_user(user.name, actor=actor),
            "factor": lambda: self.accounts.set_factor(user.name, None, actor=actor),
            "password": lambda: self.accounts.set_password(user.name, password, actor=actor),
        }
        do = str(fields.get("do", ""))
        if do not in acts or (do == "password" and user.is_external):
            raise Refused(Problem(status=400, detail="do: no such button"))
        if do == "disabled" and user.name == identity.name:
            raise Refused(Problem(status=409, detail="nobody disables themselves"))
        if (wrong := await _tried(acts[do])) is not None:
            shown = form if do == "changed" else Form.of(user)
            return await self._user_form(request, identity, shown, user=user, wrong=wrong)
        return see_other(_of_user(user.name, do))

    async def _user_form(
        self,
        request: web.Request,
        identity: Identity,
        form: Form,
        *,
        user: User | None = None,
        wrong: tuple[str, str] | None = None,
    ) -> web.Response:
        return await self._respond(
            request, "users/user.html", identity, form=form, user=user, wrong=wrong,
            status=200 if wrong is None else 422, least=SHORTEST_PASSWORD, most=LONGEST_FIELD,
            engineers=await self.accounts.engineers(), roles=ROLES,
        )  # fmt: skip

    # Tokens

    async def list_tokens(self, request: web.Request) -> web.Response:
        identity = await _administrator(request)
        return await self._tokens(request, identity, Form(everywhere=True, role="desk"))

    async def change_tokens(self, request: web.Request) -> web.Response:
        """Create a token, whose secret is shown this once, or revoke one.

        Raises:
            NotFound: there is no such token in use.
            Refused: there is no such button.
        """
        identity, fields = await _administrator(request), await request.post()
        form, made = Form.sent(fields), [""]

        async def create() -> None:
            grant = form.grant(tuple(Role))
            if form.lasts not in LIFETIMES:
                raise PermanentFailure("lasts: no such length")
            days = LIFETIMES[form.lasts]
            made[0] = await self.accounts.create_token(
                form.name, grant.role, sites=grant.sites, actor=actor_of(identity),
                expires_at=self.clock.now() + timedelta(days=days) if days else None,
            )  # fmt: skip

        match fields.get("do"):
            case "create":
                wrong = await _tried(create)
                return await self._tokens(request, identity, form, wrong=wrong, secret=made[0])
            case "revoke":
                await self.accounts.revoke_token(form.name, actor=actor_of(identity))
                return see_other(f"{TOKENS}?done=revoked")
            case _:
                raise Refused(Problem(status=400, detail="do: no such button"))

    async def _tokens(
        self,
        request: web.Request,
        identity: Identity,
        form: Form,
        *,
        wrong: tuple[str, str] | None = None,
        secret: str = "",
    ) -> web.Response:
        now = self.clock.now()
        tokens = await self.accounts.tokens()
        used = [each for each in tokens if _is_in_use(each, now)]
        return await self._respond(
            request, "users/tokens.html", identity, form=form, wrong=wrong, secret=secret,
            status=200 if wrong is None else 422, used=used, roles=tuple(Role),
            over=[each for each in tokens if each not in used], lifetimes=LIFETIMES,
        )  # fmt: skip

    async def _respond(
        self, request: web.Request, template: str, identity: Identity, **values: Any
    ) -> web.Response:
        language = self.pages.language(request)
        known = {site.key: _name(site, language) for site in await self.sites.sites()}
        return self.pages.respond(
            request, template, section="admin", identity=identity, site_names=known,
            now=self.clock.now(), done=DONE.get(request.query.get("done", ""), ""), **values,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ActsPage:
    """The journal of acts; `zone` is the service's, in which days are meant."""

    pages: Pages
    acts: Acts
    clock: Clock
    zone: str

    async def show(self, request: web.Request) -> web.Response:
        identity = await _identity(request)
        check_everywhere(identity)
        asked = {name: request.query.get(name, "").strip()[:LONGEST_FIELD] for name in _ASKED}
        filters = ActFilters(
            actor=asked["actor"],
            action=asked["action"],
            subject=asked["subject"],
            since=self._midnight(asked["since"], 0),
            until=self._midnight(asked["until"], 1),
        )
        cursor = request.query.get("cursor", "")
        try:
            page = await self.acts.page(filters, cursor, ACTS_A_PAGE)
        except PermanentFailure as failure:
            raise Refused(Problem(status=400, detail=str(failure))) from None
        wanted = {name: value for name, value in asked.items() if value}
        before = urlencode({**wanted, "cursor": page.next_cursor}) if page.next_cursor else ""
        return self.pages.respond(
            request, "users/acts.html", section="admin", identity=identity, acts=page.items,
            actions=await self.acts.actions(), asked=asked, is_asked=bool(wanted), before=before,
            is_first=not cursor, now=self.clock.now(), told=told,
        )  # fmt: skip

    def _midnight(self, day: str, days: int) -> datetime | None:
        """Return when a day begins, or how many days later; None if none was asked for.

        Raises:
            Refused: it is no day.
        """
        if not day:
            return None
        try:
            asked = date.fromisoformat(day) + timedelta(days=days)
            return datetime.combine(asked, time(), ZoneInfo(self.zone))
        except (ValueError, OverflowError):
            raise Refused(Problem(status=400, detail="since, until: YYYY-MM-DD")) from None


_ASKED: Final = ("actor", "action", "subject", "since", "until")


def routes(users: UsersPage, acts: ActsPage) -> Iterable[Route]:
    managing = (
        ("GET", USERS, users.list_users),
        ("GET", f"{USERS}/new", users.new),
        ("POST", f"{USERS}/new", users.add),
        ("GET", f"{USERS}/one", users.one),
        ("POST", f"{USERS}/one", users.change),
        ("GET", TOKENS, users.list_tokens),
        ("POST", TOKENS, users.change_tokens),
    )
    return (
        *(
            Route(method=method, path=path, handler=handler, roles=ADMINISTERING)
            for method, path, handler in managing
        ),
        Route(method="GET", path=ACTS, handler=acts.show, roles=AUDITING),
    )


def told(act: Act) -> list[tuple[str, str]]:
    """Return what an act says beside its columns, each with its name."""
    return [
        (key.replace("_", " "), _text(value))
        for key, value in act.body.items()
        if value not in ("", None, [], {})
    ]


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_text(each)}" for key, each in value.items())
    return str(value)


async def _identity(request: web.Request) -> Identity:
    identity = await request.app[HTTPD].identify(request)
    assert identity is not None  # noqa: S101 - the route asks for roles
    return identity


async def _administrator(request: web.Request) -> Identity:
    """Return who asks.

    Raises:
        Refused: they see some sites only.
    """
    identity = await _identity(request)
    check_everywhere(identity)
    return identity


async def _tried(act: Callable[[], Awaitable[None]]) -> tuple[str, str] | None:
    """Do it; return why it cannot be, as a message id and its detail."""
    try:
        await act()
    except Wrong as wrong:
        return wrong.text, ""
    except PermanentFailure as failure:
        return _BAD, str(failure)
    return None


def _of_user(name: str, done: str) -> str:
    return f"{USERS}/one?{urlencode({'name': name, 'done': done})}"


def _is_in_use(token: Token, now: datetime) -> bool:
    return token.revoked_at is None and (token.expires_at is None or token.expires_at > now)


def _name(site: SiteView, language: Language) -> str:
    return site.name_zh if language is Language.ZH else site.name_en
