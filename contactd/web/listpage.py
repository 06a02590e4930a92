"""The ticket list of the workbench (`/desk`): filters, search, saved filters, what is live in it.

Everything it shows is in its address: a filter that was saved is an address, and so is each tab.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import date, datetime, time, timedelta
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode
from zoneinfo import ZoneInfo

from aiohttp import web
from markupsafe import Markup, escape

from contactd.clock import Clock
from contactd.errors import PermanentFailure
from contactd.httpd import HTTPD, Identity, Problem, Refused, Route
from contactd.store.finding import LONGEST_QUERY, Query
from contactd.store.lists import (
    NOBODY,
    Due,
    Filters,
    ListPage,
    Lists,
    NextDue,
    SavedFilter,
    Sort,
)
from contactd.store.search import MOST_COUNTED, Progress
from contactd.store.views import SiteView, Views
from contactd.tickets.contact import Medium
from contactd.tickets.model import Category
from contactd.tickets.priority import Priority
from contactd.tickets.states import OPEN, State
from contactd.web import words
from contactd.web.access import PERSONAL
from contactd.web.actions import actor_of
from contactd.web.i18n import Clockwork, Language, Say
from contactd.web.pages import Pages, see_other
from contactd.web.words import N_

PATH: Final = "/desk"
ROWS: Final = "/desk/search"  # the rows alone, for the page that is open
FILTERS: Final = "/desk/filters"
NEAR: Final = timedelta(minutes=30)

_OPEN: Final = "open"
_ALL: Final = "all"
_OVER: Final = "over"
_ME: Final = "me"
_NOBODY: Final = "nobody"
_NONE: Final = "none"

STATES: Final[Mapping[str, frozenset[State]]] = {
    _OPEN: OPEN,
    **{state.value: frozenset({state}) for state in State},
    _OVER: frozenset(State) - OPEN,
    _ALL: frozenset(),
}
STATE_NAMES: Final = {_OPEN: N_("open"), _OVER: N_("over"), _ALL: N_("all")}
SORTS: Final[Mapping[Sort, str]] = {
    Sort.DUE: N_("Due next"),
    Sort.PRIORITY: N_("Priority"),
    Sort.NEWEST: N_("Newest"),
    Sort.WAITING: N_("Longest silence"),
}
DUES: Final[Mapping[Due, str]] = {
    Due.SOON: N_("due within an hour"),
    Due.BREACHED: N_("promise broken"),
}


_DAYS: Final = N_("%(days)s d %(hours)s h")
_HOURS: Final = N_("%(hours)s h %(minutes)s min")
_MINUTES: Final = N_("%(minutes)s min")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What is asked of the list, as its address says it; "" does not ask."""

    q: str = ""
    state: str = ""
    priority: str = ""
    site: str = ""
    assignee: str = ""
    team: str = ""
    medium: str = ""
    due: str = ""
    vip: str = ""
    category: str = ""
    since: str = ""
    until: str = ""  # the last day
    sort: str = ""

    @property
    def shown_state(self) -> str:
        """Return which states are shown: whoever searches, searches everything."""
        return self.state or (_ALL if self.q else _OPEN)

    @property
    def shown_sort(self) -> Sort:
        is_sorted = not self.q and STATES[self.shown_state] and self.filters_open
        return Sort(self.sort or Sort.DUE) if is_sorted else Sort.NEWEST

    @property
    def filters_open(self) -> bool:
        return bool(STATES[self.shown_state]) and STATES[self.shown_state] <= OPEN

    @property
    def narrows(self) -> int:
        """Return how many filters are set, but for what is searched and the order."""
        unset = {"q", "sort"} | ({"state"} if self.state in (_OPEN, _ALL) else set())
        return sum(1 for name, value in self.pairs() if value and name not in unset)

    def pairs(self) -> list[tuple[str, str]]:
        return [(each.name, getattr(self, each.name)) for each in fields(self)]

    def address(self, **changes: str) -> str:
        """Return the query of an address that asks the same, or something else."""
        return urlencode(
            [(name, value) for name, value in replace(self, **changes).pairs() if value]
        )

    def filters(self, identity: Identity, zone: ZoneInfo) -> Filters:
        since, until = _day(self.since), _day(self.until)
        assignees = {_ME: identity.engineer or "-", _NOBODY: NOBODY, "": None}
        return Filters(
            words=self.q,
            states=STATES[self.shown_state],
            site={_NONE: "", "": None}.get(self.site, self.site),
            priorities=(Priority(self.priority),) if self.priority else (),
            assignee=assignees.get(self.assignee, self.assignee),
            team=self.team,
            medium=Medium(self.medium) if self.medium else None,
            due=Due(self.due) if self.due else None,
            vip=bool(self.vip),
            category=self.category,
            opened_from=_start(since, zone),
            opened_to=_start(until, zone, days=1),
        )


def read_choice(asked: Iterable[tuple[str, str]]) -> Choice:
    """Return what an address asks; what makes no sense is not asked."""
    told = dict(asked)
    values = {
        "q": " ".join(told.get("q", "").replace("\x00", " ").split())[:LONGEST_QUERY],
        "vip": "1" if told.get("vip") else "",
        **{name: _among(told.get(name, ""), known) for name, known in _KNOWN.items()},
        **{name: _key(told.get(name, "")) for name in ("site", "assignee", "team")},
        **{name: told[name] for name in ("since", "until") if _day(told.get(name, ""))},
    }
    return Choice(**values)


_KNOWN: Final[Mapping[str, frozenset[str]]] = {
    "state": frozenset(STATES),
    "priority": frozenset(Priority),
    "medium": frozenset(Medium),
    "due": frozenset(Due),
    "category": frozenset(Category),
    "sort": frozenset(Sort),
}


def _among(value: str, known: frozenset[str]) -> str:
    return value if value in known else ""


def _key(value: str) -> str:
    return value if len(value) <= 48 and value.isprintable() else ""


def _day(value: str) -> date | None:
    try:
        return date.fromisoformat(value)
    except ValueError:
        return None


def _start(day: date | None, zone: ZoneInfo, *, days: int = 0) -> datetime | None:
    """Return when a day begins; years at which calendars end are no days."""
    if day is None or not 1970 <= day.year <= 9000:
        return None
    return datetime.combine(day + timedelta(days=days), time(), zone)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tab:
    name: str
    address: str
    count: int | None = None
    is_here: bool = False
    tone: str = ""
    saved: SavedFilter | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListHandlers:
    """The handlers. `progress`: how far the index is while it catches up."""

    pages: Pages
    lists: Lists
    views: Views
    clock: Clock
    zone: str
    progress: Callable[[], Progress | None]

    async def show(self, request: web.Request) -> web.Response:
        """Draw the list.

        Raises:
            PermanentFailure: the cursor of the address is none of ours.
        """
        identity = await _identity(request)
        saved = await self.lists.filters(actor_of(identity))
        choice = _chosen(request, saved)
        values = await self._rows(request, identity, choice)
        tabs = await self._tabs(identity, choice, saved)
        engineers, teams = await self.lists.choices()
        return self.pages.respond(
            request,
            "desk/list.html",
            identity=identity,
            section="tickets",
            categories=[each.value for each in Category],
            dues=DUES,
            engineers=engineers,
            media=[*Medium],
            mine=bool(identity.engineer),
            saved=next((tab.saved for tab in tabs if tab.is_here and tab.saved), None),
            owner=actor_of(identity),
            priorities=[*Priority],
            progress=self.progress(),
            sorts=SORTS,
            state_names=STATE_NAMES,
            states=[*STATES],
            tabs=tabs,
            teams=sorted({*teams, choice.team} - {""}),
            **values,
        )

    async def rows(self, request: web.Request) -> web.Response:
        """Draw the rows alone: what the open page fetches when something changed."""
        identity = await _identity(request)
        choice = read_choice(request.query.items())
        values = await self._rows(request, identity, choice)
        html = self.pages.draw("parts/desk/rows.html", self.pages.language(request), **values)
        return web.Response(text=html, content_type="text/html")

    async def save(self, request: web.Request) -> web.Response:
        """Keep, share, drop or prefer a filter, as the form's button says."""
        identity, form = await _identity(request), await request.post()
        told = {name: str(value) for name, value in form.items()}
        doing = self._acts().get(told.get("do", ""))
        if doing is None:
            raise Refused(Problem(status=400, detail="do: not as the form has it"))
        return see_other(await doing(actor_of(identity), told))

    def _acts(self) -> Mapping[str, Callable[[str, Mapping[str, str]], Awaitable[str]]]:
        return {"save": self._keep, "drop": self._drop, "default": self._prefer}

    async def _keep(self, owner: str, told: Mapping[str, str]) -> str:
        choice = read_choice(parse_qsl(told.get("query", "")))
        address = choice.address(state=choice.shown_state)
        shared = bool(told.get("shared"))
        number = await self.lists.save_filter(owner, told.get("name", ""), address, shared=shared)
        if told.get("default"):
            await self.lists.set_default(owner, number)
        return f"{PATH}?{address}"

    async def _drop(self, owner: str, told: Mapping[str, str]) -> str:
        await self.lists.drop_filter(owner, _number(told.get("filter", "")))
        return f"{PATH}?state={_OPEN}"

    async def _prefer(self, owner: str, told: Mapping[str, str]) -> str:
        wanted = told.get("filter", "")
        await self.lists.set_default(owner, _number(wanted) if wanted else None)
        return PATH

    async def _rows(
        self, request: web.Request, identity: Identity, choice: Choice
    ) -> dict[str, Any]:
        zone = ZoneInfo(self.zone)
        cursor = request.query.get("cursor", "")
        page = await self.lists.page(
            choice.filters(identity, zone),
            sites=identity.sites,
            sort=choice.shown_sort,
            cursor=cursor,
        )
        language = self.pages.language(request)
        sites = await self.views.sites()
        query = Query(choice.q)
        now, say = self.clock.now(), self.pages.say(language)
        times = Clockwork(language=language, zone=zone)
        return {
            "choice": choice,
            "counted": _counted(page),
            "cursor": cursor,
            "length": partial(brief, say=say),
            "hit": _hit(query),
            "near": NEAR,
            "now": now,
            "page": page,
            "q": choice.q,
            "rows": ROWS,
            "site_names": {site.key: _name(site, language) for site in sites},
            "sites": [site.key for site in sites if _is_seen(identity, site)],
            "times": times,
            "tone": _tone,
            "when": _when(times, now),
            # Said once, not in each of fifty lines.
            "said_medium": {each: say(text) for each, text in words.ONE_OF.items()},
            "said_metric": {each: say(text) for each, text in words.METRICS.items()},
            "said_state": {each: say(text) for each, text in words.STATES.items()},
        }

    async def _tabs(
        self, identity: Identity, choice: Choice, saved: Sequence[SavedFilter]
    ) -> list[Tab]:
        tally = await self.lists.tally(sites=identity.sites, mine=identity.engineer)
        here = choice.address(state=choice.shown_state)

        def tab(name: str, count: int | None, tone: str = "", **asked: str) -> Tab:
            wanted = Choice(**{"state": _OPEN} | asked).address()
            return Tab(name=name, address=wanted, count=count, is_here=wanted == here, tone=tone)

        mine = [tab(N_("Mine"), tally.mine, assignee=_ME)] if identity.engineer else []
        return [
            tab(N_("Open"), tally.open),
            *mine,
            tab(N_("Nobody’s"), tally.nobodys, assignee=_NOBODY),
            tab(N_("Due soon"), tally.soon, "warn", due=Due.SOON),
            tab(N_("Broken"), tally.breached, "bad", due=Due.BREACHED),
            tab(N_("All tickets"), None, state=_ALL),
            *(
                Tab(name=each.name, address=each.query, is_here=each.query == here, saved=each)
                for each in saved
            ),
        ]


def routes(handlers: ListHandlers) -> Iterable[Route]:
    return (
        Route(method="GET", path=PATH, handler=handlers.show, roles=PERSONAL),
        Route(method="GET", path=ROWS, handler=handlers.rows, roles=PERSONAL),
        Route(method="POST", path=FILTERS, handler=handlers.save, roles=PERSONAL),
    )


async def _identity(request: web.Request) -> Identity:
    identity = await request.app[HTTPD].identify(request)
    assert identity is not None  # noqa: S101 - the routes ask for roles
    return identity


def _chosen(request: web.Request, saved: Sequence[SavedFilter]) -> Choice:
    """Return what the address asks, else what the user's default does."""
    asked = [(name, value) for name, value in request.query.items() if name != "lang"]
    default = next((each.query for each in saved if each.is_default), "")
    return read_choice(asked or parse_qsl(default))


def _number(value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) < 19):
        raise PermanentFailure("filter: not as the form has it")
    return int(value)


def brief(span: timedelta, say: Say) -> str:
    """Return a length as people say it: 12 min, 1 h 5 min, 3 d 2 h."""
    minutes = round(span.total_seconds() / 60)
    days, hours = divmod(minutes // 60, 24)
    if days:
        return say(_DAYS, days=str(days), hours=str(hours))
    return (
        say(_HOURS, hours=str(hours), minutes=str(minutes % 60))
        if hours
        else say(_MINUTES, minutes=str(minutes))
    )


def _counted(page: ListPage) -> str:
    if page.count is None:
        return ""
    return f"{MOST_COUNTED}+" if page.count > MOST_COUNTED else str(page.count)


def _tone(due: NextDue, now: datetime) -> str:
    """Return how near a promise is: over, near or far."""
    if due.at <= now:
        return "over"
    return "near" if due.at - now <= max(NEAR, due.goal / 4) else "far"


def _hit(query: Query) -> Callable[[str], str]:
    """Return what marks the hits in a text; what it returns is safe."""
    if not query.needles:
        return str

    def hit(text: str) -> str:
        parts = (
            Markup("<mark>%s</mark>") % part if is_hit else escape(part)
            for part, is_hit in query.marked(text)
        )
        return Markup("").join(parts)

    return hit


def _when(times: Clockwork, now: datetime) -> Callable[[datetime], str]:
    """Return what draws an instant, short, with all of it behind. Days are worded once each."""
    known: dict[date, str] = {}

    def when(at: datetime) -> str:
        there, time_ = at.astimezone(times.zone), times.time(at)
        day = known.get(there.date())
        if day is None:
            day = known[there.date()] = times.short(at, now).removesuffix(time_)
        return Markup('<time datetime="%s" title="%s">%s%s</time>') % (
            at.isoformat(), f"{there:%Y-%m-%d %H:%M:%S}", day, time_,
        )  # fmt: skip

    return when


def _name(site: SiteView, language: Language) -> str:
    return site.name_zh if language is Language.ZH else site.name_en


def _is_seen(identity: Identity, site: SiteView) -> bool:
    return not identity.sites or site.key in identity.sites
