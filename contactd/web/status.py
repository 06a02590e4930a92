"""The status page and the wallboard, and what machines ask: /livez, /readyz, /metrics."""

import hmac
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import prometheus_client
from aiohttp import web
from yarl import URL

from contactd.errors import NotFound
from contactd.httpd import HTTPD, Identity, Phase, Problem, Refused, Route
from contactd.metrics import SERVICE_UP
from contactd.routing.clocks import Metric
from contactd.service import Health, HealthState
from contactd.settings import HttpSettings
from contactd.store.boardviews import Age, Figures, IntakeCount, QueueDay, Risk
from contactd.tickets.contact import Medium
from contactd.tickets.priority import Priority
from contactd.tickets.states import State
from contactd.web.access import EVERYBODY, PERSONAL
from contactd.web.board import BoardDuty, BoardSite, BoardSnapshot, CallStage, LiveCall
from contactd.web.i18n import Language
from contactd.web.live import Live, Parts, Scene, View
from contactd.web.pages import Pages

MOST_CALLS: Final = 40  # rows; more are counted only
MOST_LATEST: Final = 12
MOST_RISKS: Final = {False: 10, True: 6}  # on a page, on a wall
MOST_QUEUES: Final = {False: 100, True: 4}  # those with the most callers
MOST_BREACHED: Final = 5  # of them: what can still be kept must have its place
SOON: Final = timedelta(minutes=15)
SITES_A_PAGE: Final = 6  # on a wall
TARGET: Final = 95  # percent: satisfaction by contract; for promises it names none, so the same
CHARTED: Final = (Medium.CALL, Medium.MAIL, Medium.TEXT, Medium.WEB)
PARTS: Final = ("notice", "clock", "summary", "risks", "queues", "calls", "duty", "tickets", "open",
                "intake", "promises", "ledger", "health")  # fmt: skip
WALL_PARTS: Final = tuple(part for part in PARTS if part not in ("calls", "tickets"))
NEEDED: Final = frozenset({"database"})  # components without which a proxy should send nobody here
UP: Final = {HealthState.UP: 1.0, HealthState.DEGRADED: 0.5, HealthState.DOWN: 0.0}
WAITING: Final = frozenset({CallStage.RINGING, CallStage.GREETING, CallStage.QUEUED,
                            CallStage.OFFERED})  # fmt: skip
QUEUED: Final = frozenset({CallStage.QUEUED, CallStage.OFFERED})


class Status:
    """Draws the board; `draw` is what `Live` shares among open pages."""

    def __init__(self, pages: Pages, zone: str) -> None:
        self._pages = pages
        self._zone = ZoneInfo(zone)

    def draw(self, scene: Scene, view: View) -> Parts:
        values = _values(scene, view, self._zone)
        return {
            part: self._pages.draw(f"parts/{part}.html", view.language, **values).strip()
            for part in (WALL_PARTS if view.wall else PARTS)
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Who holds one tier of one site, and who comes next there."""

    tier: int
    now: Sequence[BoardDuty]
    next: Sequence[BoardDuty]


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """Callers of one queue: now, and so far today."""

    names: Sequence[str]  # of its sites
    waiting: int
    longest: LiveCall | None
    day: QueueDay | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """So many out of so many, against the target; `percent` is rounded down."""

    good: int
    all: int

    @property
    def percent(self) -> float:
        return self.good * 1000 // self.all / 10

    @property
    def is_met(self) -> bool:
        return self.good * 100 >= TARGET * self.all


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """What came in by one medium, hour by hour; `today` is None for hours that are still to come.

    `so_far` is what is usual by the end of this hour.
    """

    medium: Medium
    today: Sequence[int | None]
    usual: Sequence[float]
    so_far: float

    @property
    def total(self) -> int:
        return sum(each or 0 for each in self.today)


def _values(scene: Scene, view: View, zone: ZoneInfo) -> dict[str, object]:
    return {
        "at": scene.at,
        "health": scene.health,
        "opens": view.opens,
        "public": view.public,
        "span": span,
        "stale": scene.stale,
        "target": TARGET,
        "troubles": [each for each in scene.health if each.state is not HealthState.UP],
        "wall": view.wall,
        **_calls(scene.board, view),
        **_tickets(scene.board, view),
        **_promises(scene, view),
        "charts": _charts(scene, view, zone),
    }


def _sees(view: View, site: str) -> bool:
    """Return whether a view shows what belongs to a site; see `access.sees`."""
    return not site or not view.sites or site in view.sites


def _calls(board: BoardSnapshot, view: View) -> dict[str, object]:
    """Return who calls, who is there, and what the outside says came in."""
    found = (call for call in board.calls if _sees(view, call.site))
    calls = sorted(found, key=lambda call: call.arrived_at)
    waiting = [call for call in calls if call.stage in WAITING]
    sites = [site for site in board.sites if _sees(view, site.key)]
    names = {
        site.key: site.name_zh if view.language is Language.ZH else site.name_en for site in sites
    }
    return {
        "board": board,
        "calls": calls[:MOST_CALLS],
        "more_calls": max(0, len(calls) - MOST_CALLS),
        "longest_wait": _longest(waiting),
        "pages": [sites[n : n + SITES_A_PAGE] for n in range(0, len(sites), SITES_A_PAGE)]
        if view.wall
        else [sites],
        "queues": _queues(board, sites, calls, names, view),
        "site_names": names,
        "sites": sites,
        "talking": sum(call.stage is CallStage.TALKING for call in calls),
        "today": max((entry.day for entry in board.ledger), default=None),
        "unbalanced": [entry for entry in board.ledger if not entry.balanced],
        "waiting": len(waiting),
        "watches": {site.key: _watches(board, site.key) for site in sites},
    }


def _queues(
    board: BoardSnapshot,
    sites: Sequence[BoardSite],
    calls: Sequence[LiveCall],
    names: dict[str, str],
    view: View,
) -> list[Queue]:
    """Return the queues of the sites; who sees everything also sees those of no site."""
    queued = [call for call in calls if call.stage in QUEUED]
    days = {day.queue: day for day in board.figures.queues} if board.figures else {}
    keys = dict.fromkeys(site.queue for site in sites if site.queue)
    if not view.sites:
        keys |= dict.fromkeys((*(call.queue for call in queued), *days))
    found = [
        Queue(
            names=[names[site.key] for site in sites if site.queue == key] or [key],
            waiting=sum(call.queue == key for call in queued),
            longest=_longest([call for call in queued if call.queue == key]),
            day=days.get(key),
        )
        for key in keys
        if key
    ]
    if len(found) > MOST_QUEUES[view.wall]:
        found.sort(key=lambda each: (each.waiting, each.day.calls if each.day else 0), reverse=True)
    return found[: MOST_QUEUES[view.wall]]


def _longest(waiting: Sequence[LiveCall]) -> LiveCall | None:
    return min(waiting, key=lambda call: call.arrived_at, default=None)


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


def _tickets(board: BoardSnapshot, view: View) -> dict[str, object]:
    counts = [each for each in board.tickets.counts if _sees(view, each.site)]
    latest = [each for each in board.tickets.latest if _sees(view, each.site)]
    states, ages = dict.fromkeys(State, 0), {p: dict.fromkeys(Age, 0) for p in Priority}
    for each in counts:
        states[each.state] += each.count
    for open_ in board.tickets.open:
        if _sees(view, open_.site):
            ages[open_.priority][open_.age] += open_.count
    return {
        "ages": ages,
        "latest": latest[:MOST_LATEST],
        "opened_today": sum(states.values()),
        "open_by_priority": {p: sum(row.values()) for p, row in ages.items()},
        "open_total": sum(sum(row.values()) for row in ages.values()),
        "states": states,
    }


def _promises(scene: Scene, view: View) -> dict[str, object]:
    board = scene.board
    risks = [each for each in board.risks if _sees(view, each.site)]
    breached = [each for each in risks if each.due_at <= scene.at]
    coming = [each for each in risks if each.due_at > scene.at]
    # The count is as old as the board; a clock that has run out since then is among its rows.
    since = sum(each.due_at > board.at for each in breached)
    broken = since + sum(each.count for each in board.breached if _sees(view, each.site))
    most = MOST_RISKS[view.wall]
    shown = breached[: max(MOST_BREACHED, most - len(coming))]
    shown = [*shown, *coming[: most - len(shown)]]
    figures = board.figures or Figures()
    attained: dict[Metric, list[int]] = {}
    for each in figures.attained:
        if _sees(view, each.site):
            row = attained.setdefault(each.metric, [0, 0])
            row[0] += each.kept
            row[1] += each.kept + each.missed
    marks = [each for each in figures.marks if _sees(view, each.site)]
    return {
        "attained": {
            metric: Share(good=attained[metric][0], all=attained[metric][1])
            for metric in Metric
            if metric in attained
        },
        "broken": broken,
        "next_due": coming[0] if coming else None,
        "risks": [(risk, _how_near(risk, scene.at)) for risk in shown],
        "satisfied": Share(
            good=sum(each.satisfied for each in marks), all=sum(each.marks for each in marks)
        ),
        "more_broken": max(0, broken - sum(each.due_at <= scene.at for each in shown)),
    }


def _how_near(risk: Risk, at: datetime) -> str:
    if risk.due_at <= at:
        return "broken"
    return "soon" if risk.due_at - at <= SOON else "later"


def _charts(scene: Scene, view: View, zone: ZoneInfo) -> list[Chart]:
    hour = scene.at.astimezone(zone).hour
    today = _by_hour(scene.board.tickets.intake, view)
    usual = _by_hour(scene.board.usual, view)
    media = [m for m in Medium if m in CHARTED or m in today]
    return [
        Chart(
            medium=medium,
            today=[int(today.get(medium, {}).get(h, 0)) if h <= hour else None for h in range(24)],
            usual=[usual.get(medium, {}).get(h, 0.0) for h in range(24)],
            so_far=sum(usual.get(medium, {}).get(h, 0.0) for h in range(hour + 1)),
        )
        for medium in media
    ]


def _by_hour(counts: Iterable[IntakeCount], view: View) -> dict[Medium, dict[int, float]]:
    found: dict[Medium, dict[int, float]] = {}
    for each in counts:
        if _sees(view, each.site):
            hours = found.setdefault(each.medium, {})
            hours[each.hour] = hours.get(each.hour, 0) + each.count
    return found


def span(length: timedelta) -> str:
    """Return e.g. 0:41, 12:07, 1:02:45, as board.js writes what it counts."""
    minutes, seconds = divmod(int(length.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def routes(
    settings: HttpSettings,
    *,
    pages: Pages,
    live: Live,
    health: Callable[[], Sequence[Health]],
) -> Iterable[Route]:
    """Return the status page's routes; without `public_status` the page asks for a login."""
    who = None if settings.public_status else EVERYBODY

    async def view_of(request: web.Request, identity: Identity | None) -> View:
        return View(
            language=pages.language(request),
            public=identity is None,
            opens=identity is not None and identity.role in PERSONAL,
            sites=await _sites_of(live, request.query.get("site", ""), identity),
            wall="wall" in request.query,
        )

    async def page(request: web.Request) -> web.Response:
        identity = await request.app[HTTPD].identify(request)
        view = await view_of(request, identity)
        parts = await live.parts(view)
        kept = {k: v for k, v in request.query.items() if k in ("wall", "site")}
        source = str(URL("/live").with_query({"lang": view.language.value} | kept))
        template = "wall.html" if view.wall else "board.html"
        return pages.respond(request, template, parts=parts, identity=identity, source=source)

    async def stream(request: web.Request) -> web.StreamResponse:
        view = await view_of(request, await request.app[HTTPD].identify(request))

        async def allowed() -> bool:
            identity = await request.app[HTTPD].identify_again(request)
            if identity is None and who is not None:
                return False
            return await view_of(request, identity) == view

        return await live.stream(request, view, allowed=allowed)

    return (
        Route(method="GET", path="/", handler=page, roles=who),
        Route(method="GET", path="/live", handler=stream, roles=who),
        *_probes(settings, health),
    )


async def _sites_of(live: Live, wanted: str, identity: Identity | None) -> frozenset[str]:
    """Return the sites that a page is about: the one that it names, else those of its reader.

    Raises:
        NotFound: there is no such site, or it is none of theirs.
    """
    allowed = identity.sites if identity else frozenset()
    if not wanted:
        return allowed
    scene = await live.scene()
    known = scene.stale or any(site.key == wanted for site in scene.board.sites)
    if not known or (allowed and wanted not in allowed):
        raise NotFound("there is no such site")
    return frozenset({wanted})


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
