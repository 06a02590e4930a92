"""My duty: who is on duty and why, the own calendar, swaps and leave.

A swap is asked of a colleague, who says yes or no here. Leave is entered. Both become entries of
the desk file, as if somebody who plans had written them. If one would leave a tier without anybody,
it waits for somebody who plans; the hole is named to all of them.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from aiohttp import web

from contactd.clock import Clock
from contactd.errors import ActionNotAllowed, NotFound, PermanentFailure
from contactd.httpd import HTTPD, Identity, Problem, Refused, Route
from contactd.routing import deskedit
from contactd.routing.ical import View
from contactd.routing.oncall import Duties, Duty, Engineer, between, next_duties, on_duty
from contactd.routing.rota import Span
from contactd.store import duty
from contactd.store.deskversions import LONGEST_NOTE
from contactd.store.dutyrequests import (
    OPEN,
    DutyRequest,
    DutyRequests,
    RequestKind,
    RequestState,
)
from contactd.store.engine import Database
from contactd.store.feeds import spans_of
from contactd.web import adminwords
from contactd.web.access import PERSONAL, Right, may, sees
from contactd.web.actions import actor_of
from contactd.web.adminforms import names_of
from contactd.web.adminpage import HoleView, Teller, holes_in_words, loaded, teller_of
from contactd.web.deskchanges import DeskChanges, Draft, Edit, NotLoaded
from contactd.web.pages import Pages, see_other
from contactd.web.words import N_

PATH: Final = "/desk/duty"
AHEAD: Final = timedelta(days=60)  # as far as duty is stored
MOST_STINTS: Final = 60
_DAY: Final = timedelta(days=1)
_WEEK: Final = 7
_SECTIONS: Final = {RequestKind.SWAP: "swaps", RequestKind.LEAVE: "leaves"}
_TIMES: Final = frozenset({"start", "end"})
_DATES: Final = frozenset({"first", "last"})

# What became of an act, as the address of the page says it.
_NEWS: Final[Mapping[str, str]] = {
    "asked": N_("Your colleague is asked: the answer appears here."),
    "agreed": N_("It is in the rota now."),
    "waiting": N_("It would leave a hole in the rota, so that somebody who plans has to agree."),
    "refused": N_("It was refused; both of you see that here."),
    "withdrawn": N_("It is taken back."),
    "reason": N_("Say why it is agreed to although there is a hole."),
}
_NO_DAY: Final = N_("Say from which day on.")
_NO_TIMES: Final = N_("Give either days or times, not both.")
_ORDER: Final = N_("The end must be after the start.")
_PAST: Final = N_("It must not have ended yet.")
_BACKUP: Final = N_("The backup must be somebody else.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stint:
    """A time of somebody's duty, at all sites that it is for."""

    since: datetime
    until: datetime
    tier: int
    sites: tuple[str, ...]
    why: str  # of the last cause: rota.Why
    instead_of: str

    @property
    def key(self) -> str:
        return f"{self.since.isoformat()}/{self.until.isoformat()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DayView:
    """One day of the calendar; `parts` are its stints with their times of that day."""

    day: date
    is_today: bool
    is_outside: bool  # of the month that is shown
    parts: tuple[tuple[str, str, Stint], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestView:
    request: DutyRequest
    is_mine: bool
    can_answer: bool
    can_decide: bool
    can_withdraw: bool
    holes: tuple[HoleView, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaveForm:
    """What somebody wrote, and what is wrong with it: a message id."""

    first: str = ""
    last: str = ""
    start: str = ""
    end: str = ""
    backup: str = ""
    note: str = ""
    remark: str = ""
    faults: tuple[adminwords.Said, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DutyPage:
    """The handlers. `zone` is the service's; `public_url` "" if it is not said."""

    pages: Pages
    changes: DeskChanges
    requests: DutyRequests
    database: Database
    clock: Clock
    zone: str
    public_url: str = ""

    # Looking

    async def show(self, request: web.Request) -> web.Response:
        """Draw the page."""
        return await self._page(request, LeaveForm())

    async def _page(
        self, request: web.Request, leave: LeaveForm, status: int = 200
    ) -> web.Response:
        identity, now = await _identity(request), self.clock.now()
        zone = ZoneInfo(self.zone)
        today = now.astimezone(zone).date()
        shown = _shown_day(request, today)
        is_week = request.query.get("view") == "week"
        duties = await duty.duties(self.database, self.clock)
        me = duties.by_key.get(identity.engineer)
        mine = await self._stints(me, now - timedelta(days=92), now + AHEAD)
        week = _monday(shown if is_week else today)
        try:
            teller = teller_of(self.pages, request, await self.changes.newest())
        except NotLoaded:
            teller = None
        return self.pages.respond(
            request,
            "duty/page.html",
            status=status,
            identity=identity,
            section="duty",
            now=now,
            today=today,
            me=me,
            current=[each for each in mine if each.since <= now < each.until],
            coming=next((each for each in mine if each.since > now), None),
            days=_calendar(mine, shown, zone, today, is_week=is_week),
            shown=shown,
            is_week=is_week,
            steps=_steps(shown, is_week=is_week),
            known_until=(now + AHEAD).astimezone(zone).date(),
            rota=await self._rota(identity, week),
            week=week,
            names={each.key: each.name for each in duties.engineers},
            sites=_site_names(duties, self.pages.language(request)),
            colleagues=_colleagues(duties, me),
            stints=[each for each in mine if each.until > now][:MOST_STINTS],
            requests=await self._requests(identity, teller, now),
            states=adminwords.STATES,
            leave=leave,
            edits=teller is not None,
            news=_NEWS.get(request.query.get("done", ""), ""),
            feed=f"{self.public_url.rstrip('/')}/api/v1/oncall/person/{me.key}.ics" if me else "",
        )

    async def _stints(
        self, engineer: Engineer | None, first: datetime, last: datetime
    ) -> list[Stint]:
        if engineer is None:
            return []
        async with self.database.reading() as connection:
            return stints(await spans_of(connection, View.PERSON, engineer.key, first, last))

    async def _rota(
        self, identity: Identity, week: date
    ) -> list[tuple[str, str, list[Duty], list[Duty], list[Duty]]]:
        """Return each site that somebody sees: now, next, and the week that begins at `week`."""
        now = self.clock.now()
        current = await duty.duties(self.database, self.clock)
        start = datetime.combine(week, time(), ZoneInfo(self.zone))
        try:
            duties = await duty.duties(self.database, self.clock, start + _DAY)
        except PermanentFailure:
            return []
        told = []
        for site in current.sites:
            if sees(identity, site.key):
                held = between(duties, site.key, start, start + _WEEK * _DAY)
                held = tuple(sorted(held, key=lambda each: (each.since, each.tier)))
                told.append(
                    (
                        site.key,
                        site.zone,
                        list(on_duty(current, site.key, now)),
                        list(next_duties(current, site.key, now)),
                        list(held),
                    )
                )
        return told

    async def _requests(
        self, identity: Identity, teller: Teller | None, now: datetime
    ) -> list[RequestView]:
        found = await self.requests.of(identity.engineer, now - _DAY) if identity.engineer else []
        plans = may(identity, Right.PLAN)
        waiting = await self.requests.waiting(now) if plans else []
        known = {each.id for each in found}
        views = []
        for each in [*found, *(one for one in waiting if one.id not in known)]:
            is_mine = each.engineer == identity.engineer != ""
            holes: tuple[HoleView, ...] = ()
            if each.state is RequestState.WAITING and teller is not None:
                draft = await self.changes.draft(_writes(each))
                holes = tuple(holes_in_words(draft, teller))
            views.append(
                RequestView(
                    request=each,
                    is_mine=is_mine,
                    can_answer=(
                        each.state is RequestState.ASKED and each.other == identity.engineer != ""
                    ),
                    can_decide=plans and each.state is RequestState.WAITING,
                    can_withdraw=is_mine and _can_withdraw(each, now),
                    holes=holes,
                )
            )
        return views

    # Swaps

    async def choose(self, request: web.Request) -> web.Response:
        """Draw what a colleague has, to choose what is exchanged for one's own time.

        Raises:
            Refused: who asks is no engineer of the desk file.
        """
        identity = await _identity(request)
        me, other, duties = await self._both(identity, request.query.get("other", ""))
        now = self.clock.now()
        mine = await self._stints(me, now, now + AHEAD)
        chosen = next((each for each in mine if each.key == request.query.get("mine")), None)
        theirs = await self._stints(other, now, now + AHEAD)
        if chosen is None or other is None:
            return see_other(PATH)
        free = [each for each in theirs if each.since > now][:MOST_STINTS]
        return self.pages.respond(
            request, "duty/swap.html", identity=identity, section="duty", now=now, mine=chosen,
            other=other, theirs=free, sites=_site_names(duties, self.pages.language(request)),
        )  # fmt: skip

    async def ask(self, request: web.Request) -> web.Response:
        """Ask a colleague for a swap.

        Raises:
            Refused: who asks is no engineer, or one of the times is not one of theirs.
        """
        identity, form = await _identity(request), await _form(request)
        me, other, _ = await self._both(identity, form.get("other", ""))
        now = self.clock.now()
        mine = [each for each in await self._stints(me, now, now + AHEAD) if each.until > now]
        theirs = [each for each in await self._stints(other, now, now + AHEAD) if each.since > now]
        one = next((each for each in mine if each.key == form.get("mine")), None)
        two = next((each for each in theirs if each.key == form.get("theirs")), None)
        if one is None or two is None or other is None:
            raise Refused(Problem(status=409, detail="one of the times is not theirs any more"))
        zone = ZoneInfo(self.zone)
        await self.requests.ask(
            RequestKind.SWAP,
            engineer=me.key,
            other=other.key,
            actor=actor_of(identity),
            entry={
                "one": _stint_entry(me.key, one, zone),
                "other": _stint_entry(other.key, two, zone),
                "zone": self.zone,
            },
            since=min(one.since, two.since),
            until=max(one.until, two.until),
            note=form.get("note", "")[:LONGEST_NOTE],
        )
        return see_other(f"{PATH}?done=asked#requests")

    async def _both(
        self, identity: Identity, other: str
    ) -> tuple[Engineer, Engineer | None, Duties]:
        duties = await duty.duties(self.database, self.clock)
        me = duties.by_key.get(identity.engineer)
        if me is None:
            raise Refused(Problem(status=403, detail="this user is no engineer of the desk file"))
        found = duties.by_key.get(other)
        return me, None if found == me else found, duties

    # Leave

    async def leave(self, request: web.Request) -> web.Response:
        """Enter leave; without a hole it is in the rota at once.

        Raises:
            Refused: who asks is no engineer of the desk file.
        """
        identity, form = await _identity(request), await _form(request)
        me, _, _ = await self._both(identity, "")
        wanted = LeaveForm(
            first=form.get("first", ""),
            last=form.get("last", ""),
            start=form.get("start", ""),
            end=form.get("end", ""),
            backup=form.get("backup", ""),
            note=form.get("note", "")[:LONGEST_NOTE],
        )
        entry, remark = _leave_entry(me.key, wanted, self.zone)
        since, until = _leave_times(entry, ZoneInfo(self.zone)) if not remark else (None, None)
        if not remark and until is not None and until <= self.clock.now():
            remark = _PAST
        if remark or since is None or until is None:
            return await self._page(request, replace(wanted, remark=remark), 422)
        draft = await self.changes.draft(lambda text: deskedit.put(text, "leaves", entry))
        if not draft.is_right:
            faults = tuple(adminwords.said(fault.text) for fault in draft.faults)
            return await self._page(request, replace(wanted, faults=faults), 422)
        asked = await self.requests.ask(
            RequestKind.LEAVE,
            engineer=me.key,
            actor=actor_of(identity),
            entry=_as_json(entry),
            since=since,
            until=until,
            note=wanted.note,
            state=RequestState.WAITING,
        )
        return await self._agree(asked, identity)

    # What becomes of requests

    async def answer(self, request: web.Request) -> web.Response:
        """Say yes or no to a request, or take one's own back.

        Raises:
            NotFound: there is no such request, or it is none of theirs.
            Refused: it is not for them to say.
        """
        identity, form = await _identity(request), await _form(request)
        asked = await self.requests.one(int(request.match_info["request"]))
        step = _STEPS.get(form.get("do", ""))
        if step is None:
            raise Refused(Problem(status=400, detail="do: not as the form has it"))
        return await step(self, asked, identity, form)

    async def _accept(
        self, asked: DutyRequest, identity: Identity, _form: Mapping[str, str]
    ) -> web.Response:
        if asked.state is not RequestState.ASKED or asked.other != identity.engineer:
            raise NotFound("there is no such request")
        return await self._agree(asked, identity)

    async def _refuse(
        self, asked: DutyRequest, identity: Identity, form: Mapping[str, str]
    ) -> web.Response:
        is_theirs = asked.state is RequestState.ASKED and asked.other == identity.engineer
        decides = asked.state is RequestState.WAITING and may(identity, Right.PLAN)
        if not (is_theirs or decides):
            raise NotFound("there is no such request")
        await self.requests.step(
            asked, RequestState.REFUSED, actor=actor_of(identity),
            answer=form.get("answer", "")[:LONGEST_NOTE],
        )  # fmt: skip
        return see_other(f"{PATH}?done=refused#requests")

    async def _decide(
        self, asked: DutyRequest, identity: Identity, form: Mapping[str, str]
    ) -> web.Response:
        """Agree to what makes a hole; the reason is noted."""
        if asked.state is not RequestState.WAITING or not may(identity, Right.PLAN):
            raise NotFound("there is no such request")
        reason = form.get("answer", "").strip()[:LONGEST_NOTE]
        draft = await self.changes.draft(_writes(asked))
        if identity.sites and draft.effect.sites - identity.sites:
            raise Refused(Problem(status=403, detail="it changes duty at other sites"))
        if draft.effect.holes and not reason:
            return see_other(f"{PATH}?done=reason#request-{asked.id}")
        return await self._agree(asked, identity, reason=reason)

    async def _withdraw(
        self, asked: DutyRequest, identity: Identity, _form: Mapping[str, str]
    ) -> web.Response:
        if asked.engineer != identity.engineer or not _can_withdraw(asked, self.clock.now()):
            raise NotFound("there is no such request")
        if asked.state is RequestState.AGREED:
            await self.changes.save(
                _removes(asked), actor=actor_of(identity), note=asked.note,
                may_save=lambda draft: True, act={"request": asked.key},
            )  # fmt: skip
        await self.requests.step(asked, RequestState.WITHDRAWN, actor=actor_of(identity))
        return see_other(f"{PATH}?done=withdrawn#requests")

    async def _agree(
        self, asked: DutyRequest, identity: Identity, *, reason: str = ""
    ) -> web.Response:
        """Write a request into the desk file, or have somebody decide who plans.

        The entry has the request's key: if the daemon stops in between, the second time finds it.
        """

        def may_save(draft: Draft) -> bool:
            return not draft.effect.holes or bool(reason)

        draft, number = await self.changes.save(
            _writes(asked), actor=actor_of(identity), note=asked.note, may_save=may_save,
            act={"request": asked.key, **({"despite": reason} if reason else {})},
        )  # fmt: skip
        if not draft.is_right:
            raise ActionNotAllowed("; ".join(map(str, draft.faults)))
        state = RequestState.AGREED if number else RequestState.WAITING
        if state is not asked.state:
            await self.requests.step(asked, state, actor=actor_of(identity), answer=reason)
        return see_other(f"{PATH}?done={state}#requests")


_Step = Callable[[DutyPage, DutyRequest, Identity, Mapping[str, str]], Awaitable[web.Response]]
_STEPS: Final[Mapping[str, _Step]] = {
    "accept": DutyPage._accept,
    "refuse": DutyPage._refuse,
    "agree": DutyPage._decide,
    "withdraw": DutyPage._withdraw,
}


# Requests and entries


def _can_withdraw(asked: DutyRequest, now: datetime) -> bool:
    if asked.since <= now:
        return False
    is_agreed_leave = asked.state is RequestState.AGREED and asked.kind is RequestKind.LEAVE
    return asked.state in OPEN or is_agreed_leave


def _writes(asked: DutyRequest) -> Edit:
    """Return what writes a request's entry into the desk file, once."""
    section = _SECTIONS[asked.kind]
    entry = {"key": asked.key, **_from_json(asked.entry)}

    def edit(text: str) -> str:
        if _entry_of(text, section, asked.key) is not None:
            return text
        return deskedit.put(text, section, entry)

    return edit


def _removes(asked: DutyRequest) -> Edit:
    section = _SECTIONS[asked.kind]

    def edit(text: str) -> str:
        entry = _entry_of(text, section, asked.key)
        if entry is None:
            return text
        return deskedit.drop(text, section, deskedit.fingerprint(entry))

    return edit


def _entry_of(text: str, section: str, key: str) -> dict[str, Any] | None:
    listed = deskedit.entries(deskedit.document(text), section)
    return next((each for each in listed if each.get("key") == key), None)


def _as_json(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value.isoformat() if isinstance(value, date) else value
        for name, value in entry.items()
    }


def _from_json(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _typed(name, value) for name, value in entry.items()}


def _typed(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return _from_json(value)
    if name in _TIMES:
        return datetime.fromisoformat(value)
    return date.fromisoformat(value) if name in _DATES else value


def _stint_entry(engineer: str, stint: Stint, zone: ZoneInfo) -> dict[str, str]:
    """Return a time of a swap, to the second and with its offset."""
    since, until = (at.astimezone(zone).isoformat() for at in (stint.since, stint.until))
    return {"engineer": engineer, "start": since, "end": until}


def _leave_entry(engineer: str, form: LeaveForm, zone: str) -> tuple[dict[str, Any], str]:
    """Return the entry that a form says, and what is wrong with it: a message id."""
    entry: dict[str, Any] = {"engineer": engineer, "zone": zone}
    try:
        for name in ("first", "last"):
            if getattr(form, name):
                entry[name] = date.fromisoformat(getattr(form, name))
        for name in ("start", "end"):
            if getattr(form, name):
                entry[name] = datetime.fromisoformat(getattr(form, name)).replace(tzinfo=None)
    except ValueError:
        return entry, _NO_DAY
    if form.backup:
        entry["backup"] = form.backup
    return entry, _leave_remark(entry, engineer)


def _leave_remark(entry: Mapping[str, Any], engineer: str) -> str:
    has_days, has_times = "first" in entry, "start" in entry and "end" in entry
    wrong = (
        (entry.get("backup") == engineer, _BACKUP),
        (has_days and ("start" in entry or "end" in entry), _NO_TIMES),
        (not has_days and not has_times, _NO_DAY),
        ("last" in entry and has_days and entry["last"] < entry["first"], _ORDER),
        (has_times and entry["end"] <= entry["start"], _ORDER),
    )
    return next((remark for is_so, remark in wrong if is_so), "")


def _leave_times(entry: Mapping[str, Any], zone: ZoneInfo) -> tuple[datetime, datetime]:
    if "start" in entry:
        return tuple(entry[name].replace(tzinfo=zone).astimezone(UTC) for name in ("start", "end"))
    last = entry.get("last", entry["first"]) + _DAY
    since, until = (datetime.combine(day, time(), zone) for day in (entry["first"], last))
    return since.astimezone(UTC), until.astimezone(UTC)


# What is drawn


def stints(spans: Iterable[Span]) -> list[Stint]:
    """Return the times of somebody's duty, those of several sites at once as one."""
    found: dict[tuple[datetime, datetime, int], list[Span]] = {}
    for span in spans:
        found.setdefault((span.since, span.until, span.tier), []).append(span)
    return [
        Stint(
            since=since,
            until=until,
            tier=tier,
            sites=tuple(dict.fromkeys(span.site for span in held)),
            why=held[0].why[-1].kind,
            instead_of=held[0].instead_of,
        )
        for (since, until, tier), held in sorted(found.items(), key=lambda each: each[0])
    ]


def _calendar(
    mine: Sequence[Stint], shown: date, zone: ZoneInfo, today: date, *, is_week: bool
) -> list[DayView]:
    """Return the days of a month, whole weeks of them, or of one week."""
    first = _monday(shown if is_week else shown.replace(day=1))
    month_end = _next_month(shown) - _DAY
    count = _WEEK if is_week else (_monday(month_end) - first).days + _WEEK
    return [
        DayView(
            day=day,
            is_today=day == today,
            is_outside=not is_week and day.month != shown.month,
            parts=tuple(_parts(mine, day, zone)),
        )
        for day in (first + n * _DAY for n in range(count))
    ]


def _parts(mine: Sequence[Stint], day: date, zone: ZoneInfo) -> Iterable[tuple[str, str, Stint]]:
    start, end = (datetime.combine(each, time(), zone) for each in (day, day + _DAY))
    for stint in mine:
        if stint.since < end and stint.until > start:
            since = max(stint.since, start).astimezone(zone)
            until = stint.until.astimezone(zone)
            yield f"{since:%H:%M}", "24:00" if until >= end else f"{until:%H:%M}", stint


def _monday(day: date) -> date:
    return day - day.weekday() * _DAY


def _next_month(day: date) -> date:
    return (day.replace(day=1) + 32 * _DAY).replace(day=1)


def _steps(shown: date, *, is_week: bool) -> tuple[date, date]:
    """Return the days by which the page before and the page after are asked for."""
    if is_week:
        return shown - _WEEK * _DAY, shown + _WEEK * _DAY
    return (shown.replace(day=1) - _DAY).replace(day=1), _next_month(shown)


def _shown_day(request: web.Request, today: date) -> date:
    try:
        day = date.fromisoformat(request.query.get("day", ""))
    except ValueError:
        return today
    return day if abs((day - today).days) < 400 else today


def _site_names(duties: Duties, language: str) -> dict[str, str]:
    return {site.key: site.name_zh if language == "zh" else site.name_en for site in duties.sites}


def _colleagues(duties: Duties, me: Engineer | None) -> list[Engineer]:
    return [each for each in duties.engineers if me is not None and each.key != me.key]


async def _identity(request: web.Request) -> Identity:
    identity = await request.app[HTTPD].identify(request)
    assert identity is not None  # noqa: S101 - the route asks for roles
    return identity


async def _form(request: web.Request) -> dict[str, str]:
    sent = names_of((await request.post()).items())
    return {name: values[0].strip() for name, values in sent.items()}


def routes(page: DutyPage) -> Iterable[Route]:
    for method, path, handler in (
        ("GET", "", page.show),
        ("GET", "/swap", page.choose),
        ("POST", "/swap", page.ask),
        ("POST", "/leave", page.leave),
        ("POST", "/requests/{request:[0-9]{1,12}}", page.answer),
    ):
        yield Route(
            method=method, path=f"{PATH}{path}", handler=loaded(handler, PATH), roles=PERSONAL
        )
