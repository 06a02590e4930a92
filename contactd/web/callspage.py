"""The calls of the desk: those of this moment, the last ones, and calling by a click."""

import hashlib
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from aiohttp import web

from contactd.clock import Clock
from contactd.httpd import HTTPD, Identity, Problem, Refused, Route
from contactd.store.callviews import Callee, PastCall
from contactd.store.views import SiteView
from contactd.tickets.contact import Direction
from contactd.web.access import ACTING, PERSONAL, check_site, sees
from contactd.web.actions import actor_of
from contactd.web.calling import DeskCall, Look
from contactd.web.i18n import Language
from contactd.web.pages import Pages, see_other
from contactd.web.words import N_
from contactd.web.writing import is_key

PATH: Final = "/desk/calls"
TWICE: Final = timedelta(seconds=10)  # a click without a key, so soon after another, is the same

# Why nobody is called: what it is, what to do, and the status of the answer.
REFUSALS: Final[Mapping[str, tuple[str, str, int]]] = {
    "no_phone": (
        N_("Your phone is not known"),
        N_("An administrator has to say which engineer of the desk file you are, and give that "
           "engineer a number."), 409,
    ),
    "number": (
        N_("That is not the requester’s number"),
        N_("Only numbers of the ticket’s requester can be called. Add the number to the requester "
           "first."), 409,
    ),
    "forbidden": (
        N_("This number is not called from here"),
        N_("Service numbers and numbers abroad may cost more than usual. An administrator can "
           "allow a country: hotline.call_prefixes."), 409,
    ),
    "busy": (
        N_("You are calling somebody already"),
        N_("Hang up first, then call again."), 409,
    ),
    "often": (
        N_("You have made many calls within the hour"),
        N_("Dial by hand, or ask an administrator to raise hotline.calls_per_hour."), 429,
    ),
    "away": (
        N_("The telephone system cannot call now"),
        N_("Nobody was called. Try again in a minute, or dial by hand."), 503,
    ),
    "off": (
        N_("Calling by a click is switched off"),
        N_("An administrator can switch it on: hotline.calls_per_hour."), 409,
    ),
}  # fmt: skip


class Refusal(Exception):
    """Nobody is called; `why` is a key of REFUSALS."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@dataclass(frozen=True, slots=True, kw_only=True)
class Click:
    """Who wants to call whom; `number` may be none of the callee's."""

    callee: Callee
    number: str
    identity: Identity
    actor: str
    key: str


Call = Callable[[Click], Awaitable[None]]
"""Rings who clicks, then the callee; once for one key. Raises `Refusal`."""


class Reads(Protocol):
    """`store.callviews.CallViews`."""

    async def callee(self, ticket: str) -> Callee: ...

    async def recent(self, shown: Collection[str], now: datetime) -> Sequence[PastCall]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CallsPage:
    """The handlers. `names` gives the names of engineers by key."""

    pages: Pages
    look: Look
    reads: Reads
    sites: Callable[[], Awaitable[Iterable[SiteView]]]
    names: Callable[[Collection[str]], Awaitable[Mapping[str, str]]]
    call: Call
    clock: Clock

    async def show(self, request: web.Request) -> web.Response:
        values = await self._values(request)
        return self.pages.respond(request, "desk/calls.html", section="calls", **values)

    async def rows(self, request: web.Request) -> web.Response:
        """Draw what changes on the open page."""
        values, language = await self._values(request), self.pages.language(request)
        html = self.pages.draw("parts/desk/calls.html", language, **values)
        return web.Response(text=html, content_type="text/html")

    async def _values(self, request: web.Request) -> dict[str, Any]:
        identity, now = await _identity(request), self.clock.now()
        live = [call for call in self.look() if call.stage and sees(identity, call.site)]
        past = await self.reads.recent(identity.sites, now)
        is_zh = self.pages.language(request) is Language.ZH
        going_on = {call.call_id for call in live}
        return {
            "identity": identity,
            "live": sorted(live, key=lambda call: call.arrived_at),
            "names": await self.names(_engineers(live, past)),
            "now": now,
            "outgoing": Direction.OUT,
            "past": [call for call in past if call.external_id not in going_on],
            "sites": {s.key: s.name_zh if is_zh else s.name_en for s in await self.sites()},
        }

    async def make(self, request: web.Request) -> web.Response:
        """Ring the user's own phone, then the requester's; go back to the ticket.

        Raises:
            NotFound: there is no such ticket.
        """
        identity, form = await _identity(request), await request.post()
        callee = await self.reads.callee(str(form.get("ticket", "")))
        check_site(identity, callee.site)
        number = str(form.get("number", "")).strip()
        key = str(form.get("key", "")) or self._key(identity, number)
        if not is_key(key):
            raise Refused(Problem(status=400, detail="key: not as the form has it"))
        click = Click(
            callee=callee, number=number, identity=identity, actor=actor_of(identity), key=key
        )
        try:
            await self.call(click)
        except Refusal as refusal:
            return self._refused(request, click, refusal)
        return see_other(f"/desk/tickets/{callee.ticket}")

    def _key(self, identity: Identity, number: str) -> str:
        """Return a key for a form that has none: two clicks at once are one."""
        turn = int(self.clock.now().timestamp() // TWICE.total_seconds())
        said = f"{identity.name}\0{number}\0{turn}"
        return hashlib.sha256(said.encode("utf-8", "replace")).hexdigest()[:16]

    def _refused(self, request: web.Request, click: Click, refusal: Refusal) -> web.Response:
        title, remedy, status = REFUSALS[refusal.why]
        if "text/html" not in request.headers.get("Accept", ""):
            return Problem(status=status, detail=f"{title}: {remedy}").response()
        return self.pages.respond(
            request, "desk/not_called.html", status=status, section="calls",
            identity=click.identity, title=title, remedy=remedy, ticket=click.callee.ticket,
        )  # fmt: skip

    def routes(self) -> Iterable[Route]:
        return (
            Route(method="GET", path=PATH, handler=self.show, roles=PERSONAL),
            Route(method="GET", path=f"{PATH}/rows", handler=self.rows, roles=PERSONAL),
            Route(method="POST", path=PATH, handler=self.make, roles=ACTING),
        )


def _engineers(live: Iterable[DeskCall], past: Iterable[PastCall]) -> set[str]:
    talking = {key for call in live for key in (*call.offered, call.engineer)}
    talked = {leg.engineer for call in past if call.facts for leg in call.facts.legs}
    return (talking | talked) - {""}


async def _identity(request: web.Request) -> Identity:
    identity = await request.app[HTTPD].identify(request)
    assert identity is not None  # noqa: S101 - the routes ask for roles
    return identity
