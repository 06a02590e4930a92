"""Log in with name and password, log out; the session is a cookie."""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Final, Protocol

from aiohttp import web

from contactd.clock import Clock
from contactd.httpd import HTTPD, SESSION_COOKIE, Identity, Problem, Refused, Route
from contactd.log import get_logger
from contactd.web.pages import Pages, see_other

log = get_logger()

SESSION_LENGTH: Final = timedelta(hours=12)  # a shift and its hand-over
MOST_FAILURES: Final = 10  # for one name
FAILURE_WINDOW: Final = timedelta(minutes=5)
REMEMBERED_NAMES: Final = 2_000
LONGEST_FIELD: Final = 200


class Logins(Protocol):
    async def check_password(self, name: str, password: str) -> Identity | None: ...

    async def open_session(self, name: str, *, lasts: timedelta) -> str:
        """Return the secret of a new session."""
        ...

    async def close_session(self, secret: str) -> None: ...


class Throttle:
    """Counts failed attempts by name, so that guessing one password takes for ever.

    Kept in memory: a restart gives `MOST_FAILURES` attempts more, no harm.
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._failures: OrderedDict[str, list[datetime]] = OrderedDict()

    def blocked(self, name: str) -> bool:
        since = self._now() - FAILURE_WINDOW
        return sum(at > since for at in self._failures.get(name, ())) >= MOST_FAILURES

    def failed(self, name: str) -> None:
        attempts = self._failures.setdefault(name, [])
        attempts.append(self._now())
        del attempts[:-MOST_FAILURES]
        self._failures.move_to_end(name)
        while len(self._failures) > REMEMBERED_NAMES:
            self._failures.popitem(last=False)

    def succeeded(self, name: str) -> None:
        self._failures.pop(name, None)


def routes(pages: Pages, logins: Logins, clock: Clock) -> Iterable[Route]:
    throttle = Throttle(clock.now)

    async def form(request: web.Request) -> web.Response:
        target = own_page(request.query.get("next", "/"))
        return pages.respond(
            request, "login.html", identity=None, next=target, failed=False, name=""
        )

    async def log_in(request: web.Request) -> web.Response:
        fields = await request.post()
        name, password = str(fields.get("name", "")).strip(), str(fields.get("password", ""))
        target = own_page(str(fields.get("next", "/")))
        if throttle.blocked(name):
            raise Refused(Problem(status=429, headers={"Retry-After": "60"}))
        identity = None
        if name and password and len(name) <= LONGEST_FIELD and len(password) <= LONGEST_FIELD:
            identity = await logins.check_password(name, password)
        if identity is None:
            throttle.failed(name[:LONGEST_FIELD])
            log.warning("login.failed")
            return pages.respond(
                request, "login.html", status=401, identity=None, next=target, failed=True,
                name=name[:LONGEST_FIELD],
            )  # fmt: skip
        throttle.succeeded(name)
        secret = await logins.open_session(identity.name, lasts=SESSION_LENGTH)
        log.info("login.succeeded", user=identity.name, role=identity.role)
        response = see_other(target)
        response.set_cookie(
            SESSION_COOKIE, secret, max_age=int(SESSION_LENGTH.total_seconds()),
            httponly=True, samesite="Lax", secure=request.app[HTTPD].is_secure(request), path="/",
        )  # fmt: skip
        return response

    async def log_out(request: web.Request) -> web.Response:
        if secret := request.cookies.get(SESSION_COOKIE):
            await logins.close_session(secret)
        response = see_other("/login")
        response.del_cookie(SESSION_COOKIE, path="/")
        return response

    return (
        Route(method="GET", path="/login", handler=form, roles=None),
        Route(method="POST", path="/login", handler=log_in, roles=None),
        Route(method="POST", path="/logout", handler=log_out, roles=None),
    )


def own_page(path: str) -> str:
    """Return `path` if it leads to a page of ours, else `/` (no open redirect)."""
    ours = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if ours and len(path) <= LONGEST_FIELD * 10 else "/"
