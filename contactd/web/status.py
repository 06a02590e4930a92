"""The status page, and what machines ask: /livez, /readyz, /metrics."""

import hmac
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import prometheus_client
from aiohttp import web

from contactd.httpd import HTTPD, Identity, Phase, Problem, Refused, Route
from contactd.metrics import SERVICE_UP
from contactd.service import Health, HealthState
from contactd.settings import HttpSettings
from contactd.tickets.people import PEOPLES_ROLES
from contactd.tickets.priority import Priority
from contactd.web.api import PERSONAL
from contactd.web.board import BoardDuty, BoardSnapshot, CallStage, LiveCall
from contactd.web.i18n import Language
from contactd.web.live import Live, Parts, Scene, View
from contactd.web.pages import Pages

EVERYBODY: Final = PEOPLES_ROLES
MOST_CALLS: Final = 40  # rows; more are counted only
PARTS: Final = ("notice", "clock", "summary", "calls", "duty", "tickets", "ledger", "health")
NEEDED: Final = frozenset({"database"})  # components without which a proxy should send nobody here
UP: Final = {HealthState.UP: 1.0, HealthState.DEGRADED: 0.5, HealthState.DOWN: 0.0}
WAITING: Final = frozenset({CallStage.RINGING, CallStage.GREETING, CallStage.QUEUED,
                            CallStage.OFFERED})  # fmt: skip


class Status:
    """Draws the board; `draw` is what `Live` shares among open pages."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages

    def draw(self, scene: Scene, view: View) -> Parts:
        values = _values(scene, view)
        return {
            part: self._pages.draw(f"parts/{part}.html", view.language, **values).strip()
            for part in PARTS
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Who holds one tier of one site, and who comes next there."""

    tier: int
    now: Sequence[BoardDuty]
    next: Sequence[BoardDuty]


def _watches(board: BoardSnapshot, site: str) -> list[Watch]:
    now = [duty for duty in board.duties if duty.site == site]
    coming = [duty for duty in board.next_duties if duty.site == site]
    return [
        Watch(
            tier=tier,
            now=[duty for duty in now if duty.tier == tier],
            next=[duty for duty in coming if duty.tier == tier],
        )
        for tier in sorted({duty.tier for duty in (*now, *coming)})
    ]


def _values(scene: Scene, view: View) -> dict[str, object]:
    board = scene.board
    calls = sorted(board.calls, key=lambda call: call.arrived_at)
    waiting = [call for call in calls if call.stage in WAITING]
    names = {
        site.key: site.name_zh if view.language is Language.ZH else site.name_en
        for site in board.sites
    }
    troubles = [health for health in scene.health if health.state is not HealthState.UP]
    today = max((entry.day for entry in board.ledger), default=None)
    return {
        "at": scene.at,
        "board": board,
        "calls": calls[:MOST_CALLS],
        "more_calls": max(0, len(calls) - MOST_CALLS),
        "health": scene.health,
        "longest_wait": _longest(waiting),
        "opens": view.opens,
        "public": view.public,
        "site_names": names,
        "stale": scene.stale,
        "talking": sum(call.stage is CallStage.TALKING for call in calls),
        "today": today,
        "troubles": troubles,
        "unbalanced": [entry for entry in board.ledger if not entry.balanced],
        "urgent": sum(board.tickets.priorities.get(p, 0) for p in (Priority.P1, Priority.P2)),
        "waiting": len(waiting),
        "watches": {site.key: _watches(board, site.key) for site in board.sites},
    }


def _longest(waiting: Sequence[LiveCall]) -> LiveCall | None:
    return min(waiting, key=lambda call: call.arrived_at, default=None)


def routes(
    settings: HttpSettings,
    *,
    pages: Pages,
    live: Live,
    health: Callable[[], Sequence[Health]],
) -> Iterable[Route]:
    """Return the status page's routes; without `public_status` the page asks for a login."""
    who = None if settings.public_status else EVERYBODY

    def view_of(request: web.Request, identity: Identity | None) -> View:
        opens = identity is not None and identity.role in PERSONAL
        return View(language=pages.language(request), public=identity is None, opens=opens)

    async def page(request: web.Request) -> web.Response:
        identity = await request.app[HTTPD].identify(request)
        parts = await live.parts(view_of(request, identity))
        return pages.respond(request, "board.html", parts=parts, identity=identity)

    async def stream(request: web.Request) -> web.StreamResponse:
        view = view_of(request, await request.app[HTTPD].identify(request))

        async def allowed() -> bool:
            return view_of(request, await request.app[HTTPD].identify_again(request)) == view

        return await live.stream(request, view, allowed=allowed)

    return (
        Route(method="GET", path="/", handler=page, roles=who),
        Route(method="GET", path="/live", handler=stream, roles=who),
        *_probes(settings, health),
    )


def _probes(settings: HttpSettings, health: Callable[[], Sequence[Health]]) -> Iterable[Route]:
    async def livez(request: web.Request) -> web.Response:
        """Say that the event loop turns."""
        return web.Response(text="alive\n")

    async def readyz(request: web.Request) -> web.Response:
        """Say whether work is taken: 503 while starting, stopping, or without the database."""
        phase = request.app[HTTPD].phase
        down = sorted(
            item.component
            for item in health()
            if item.component in NEEDED and item.state is HealthState.DOWN
        )
        if phase is Phase.SERVING and not down:
            return web.Response(text="ready\n")
        return web.Response(status=503, text=f"{phase}: {', '.join(down) or 'not ready'}\n")

    async def metrics(request: web.Request) -> web.Response:
        wanted = settings.metrics_token.get_secret_value()
        given = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        if wanted and not hmac.compare_digest(wanted.encode(), given.encode()):
            raise Refused(
                Problem(status=401, headers={"WWW-Authenticate": 'Bearer realm="metrics"'})
            )
        for item in health():
            SERVICE_UP.labels(component=item.component).set(UP[item.state])
        return web.Response(
            body=prometheus_client.generate_latest(),
            headers={"Content-Type": prometheus_client.CONTENT_TYPE_LATEST},
        )

    return (
        Route(method="GET", path="/livez", handler=livez, roles=None),
        Route(method="GET", path="/readyz", handler=readyz, roles=None),
        Route(method="GET", path="/metrics", handler=metrics, roles=None),
    )
