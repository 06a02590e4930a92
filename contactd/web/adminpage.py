"""The administration of the desk file: each entry by a form, all of it as text, every version.

Whatever is changed is shown first as it would be: what becomes of which entry, who would be missing
in the next 60 days. A change that makes a hole in the rota is refused; who plans may save it
nevertheless, with a reason, which is noted with the change.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from aiohttp import web

from contactd.clock import Clock
from contactd.errors import NotFound
from contactd.httpd import HTTPD, Handler, Identity, Problem, Refused, Route
from contactd.routing import deskedit
from contactd.routing.deskedit import CLOSING, Fault, Stale
from contactd.routing.holes import Hole
from contactd.routing.rota import Flaw
from contactd.routing.rota import Problem as RotaProblem
from contactd.store.deskversions import Source, Version
from contactd.store.dutyrequests import DutyRequests
from contactd.web import adminforms, adminwords
from contactd.web.access import ADMINISTERING, PLANNING, Right, may
from contactd.web.actions import actor_of
from contactd.web.adminforms import Field, Form, Widget, called
from contactd.web.adminwords import SECTIONS, Section
from contactd.web.deskchanges import DeskChanges, Draft, Edit, NotLoaded
from contactd.web.i18n import Language, Say
from contactd.web.pages import Pages, see_other
from contactd.web.words import N_

PATH: Final = "/desk/admin"
WHO: Final = PLANNING | ADMINISTERING
SHOWN_HOLES: Final = 6  # of one tier of one site
SHOWN_WARNINGS: Final = 30
MOST_ENTRIES: Final = 100  # of a list; a search finds the others
LONGEST_TEXT: Final = 2_000_000  # characters of a desk file
_MORE_ROWS: Final = 4
_LONGEST_VALUE: Final = 160
_HOUR: Final = timedelta(hours=1)
_FORM_ONLY: Final = frozenset({"do", "was", "note", "despite", "reason", "base"})

_CHANGED_MEANWHILE: Final = N_(
    "Somebody else has changed this entry meanwhile. Below is what you wrote; beside it is how the "
    "entry is now. Nothing was saved."
)
_GONE_MEANWHILE: Final = N_(
    "Somebody else has removed or changed this entry meanwhile. Below is what you wrote. Nothing "
    "was saved; if you go on it becomes a new entry."
)
_REASON: Final = N_("Say why it is saved although there is a hole.")
_ELSEWHERE: Final = N_("This changes duty at sites that are not yours: %(sites)s.")


@dataclass(frozen=True, slots=True, kw_only=True)
class HoleView:
    """The holes of one tier of one site, with who is rung instead."""

    site: str
    tier: int
    times: tuple[tuple[str, str, str], ...]  # from, until (on the site's clocks), who
    more: int
    hours: str  # in all
    zone: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeView:
    section: Section
    name: str
    how: str  # added, removed, changed, moved
    fields: tuple[tuple[str, str, str], ...]  # label, before, after


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Who asks, and what the form says."""

    request: web.Request
    identity: Identity
    form: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def said(self, name: str) -> str:
        return next(iter(self.form.get(name, ())), "").strip()

    @property
    def do(self) -> str:
        return self.said("do") or "review"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """Where a change comes from: its address, what it is called, and what its form repeats."""

    path: str
    title: str  # message id
    back: str  # the page that it came from
    edit: Edit
    hidden: Sequence[tuple[str, str]] = ()
    base: int | None = None
    section: str = ""
    name: str = ""
    removes: bool = False
    sites: frozenset[str] = frozenset()  # that the entry names


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminPage:
    """The handlers. `zone` is the service's."""

    pages: Pages
    changes: DeskChanges
    requests: DutyRequests
    clock: Clock
    zone: str

    # The overview

    async def overview(self, request: web.Request) -> web.Response:
        """Draw the sections, what is wrong with the rota, and what waits for a decision."""
        asked = await _asked(request)
        try:
            newest = await self.changes.newest()
        except NotLoaded:
            return self._respond(asked, "admin/overview.html", newest=None, waiting=[])
        found = deskedit.document(newest.text)
        history = await self.changes.versions.history()
        now = self.clock.now()
        is_planner = may(asked.identity, Right.PLAN)
        return self._respond(
            asked,
            "admin/overview.html",
            newest=newest,
            replaced=_replaced(history),
            counts={key: len(deskedit.entries(found, key)) for key in SECTIONS},
            problems=(await self.changes.problems())[:SHOWN_WARNINGS],
            flaws=adminwords.FLAWS,
            waiting=await self.requests.waiting(now) if is_planner else [],
            names=_names(found, self._language(request)),
            texts=may(asked.identity, Right.ADMINISTER),
        )

    # Sections and their entries

    async def section(self, request: web.Request) -> web.Response:
        """Draw the entries of a section.

        Raises:
            NotFound: there is no such section.
        """
        asked = await _asked(request)
        section = _section(asked)
        newest = await self.changes.newest()
        found = deskedit.document(newest.text)
        if section.key == CLOSING:
            return see_other(f"{PATH}/desk/{CLOSING}/{_closing(found) or 'new'}")
        teller = self._teller(request, found)
        shown = {each.name: each for each in adminforms.fields(section.key)}
        rows = [
            (
                deskedit.fingerprint(entry),
                called(entry, teller.language, teller.names) or f"#{number}",
                [
                    (shown[name].label, told)
                    for name in section.columns
                    if (told := teller.told(shown[name], entry.get(name)))
                ],
            )
            for number, entry in enumerate(deskedit.entries(found, section.key), 1)
        ]
        wanted = " ".join(request.query.get("q", "").split())[:80]
        fitting = [row for row in rows if _fits(wanted, row)]
        return self._respond(
            asked, "admin/section.html", part=section, rows=fitting[:MOST_ENTRIES],
            q=wanted, total=len(rows), found=len(fitting), most=MOST_ENTRIES,
            saved=_number(request.query.get("saved", "")),
        )  # fmt: skip

    async def entry(self, request: web.Request) -> web.Response:
        """Draw the form of an entry, or of a new one.

        Raises:
            NotFound: there is no such section.
        """
        asked = await _asked(request)
        section, was = _section(asked), request.match_info["was"]
        newest = await self.changes.newest()
        found = deskedit.document(newest.text)
        entry: Mapping[str, Any] = {}
        if was != "new":
            try:
                number = deskedit.place(found, section.key, was)
            except Stale:
                return see_other(f"{PATH}/desk/{section.key}")
            entry = deskedit.entries(found, section.key)[number]
        values = adminforms.filled(section.key, entry)
        return self._form(asked, section, found, values, was="" if was == "new" else was)

    async def change(self, request: web.Request) -> web.Response:
        """Take a form: show what it changes, save it, remove the entry, or draw more rows.

        Raises:
            NotFound: there is no such section.
        """
        asked = await _asked(request, form=True)
        section = _section(asked)
        newest = await self.changes.newest()
        found, was = deskedit.document(newest.text), asked.said("was")
        old = _entry(found, section.key, was)
        entry = adminforms.with_offset(
            section.key, adminforms.read(section.key, asked.form, old), ZoneInfo(self.zone)
        )
        if asked.do in ("more", "edit"):
            blank = _MORE_ROWS if asked.do == "more" else adminforms.BLANK_ROWS
            return self._form(asked, section, found, asked.form, was=was, blank=blank)
        if asked.do in ("up", "down"):
            return await self._move(asked, section, was)
        removes = asked.do in ("delete", "remove")
        sheet = self._sheet(asked, section, was, old if removes else entry, removes=removes)
        try:
            return await self._go(asked, sheet)
        except Stale:
            return self._conflict(asked, section, found, entry)

    def _sheet(
        self, asked: Asked, section: Section, was: str, entry: Mapping[str, Any], *, removes: bool
    ) -> Sheet:
        def edit(text: str) -> str:
            if removes:
                return deskedit.drop(text, section.key, was)
            return deskedit.put(text, section.key, entry, was=was)

        hidden = [(name, value) for name, values in asked.form.items() if name not in _FORM_ONLY
                  for value in values]  # fmt: skip
        return Sheet(
            path=f"{PATH}/desk/{section.key}",
            title=section.name,
            back=f"{PATH}/desk/{section.key}",
            edit=edit,
            hidden=[("was", was), *hidden],
            section=section.key,
            name=str(entry.get("key", "")),
            removes=removes,
            sites=_sites(entry),
        )

    async def _move(self, asked: Asked, section: Section, was: str) -> web.Response:
        step = -1 if asked.do == "up" else 1
        with suppress(Stale):  # the list shows how it is now
            await self.changes.save(
                lambda text: deskedit.move(text, section.key, was, step),
                actor=actor_of(asked.identity),
                may_save=self._may_save(asked, Sheet(path="", title="", back="", edit=str)),
            )
        return see_other(f"{PATH}/desk/{section.key}")

    def _form(  # noqa: PLR0913 - what a form is drawn of
        self,
        asked: Asked,
        section: Section,
        found: Mapping[str, Any],
        values: Mapping[str, Sequence[str]],
        *,
        was: str,
        faults: Sequence[Fault] = (),
        blank: int = adminforms.BLANK_ROWS,
        status: int = 200,
        remark: str = "",
        theirs: Mapping[str, Any] | None = None,
    ) -> web.Response:
        errors, others = _by_field(section.key, values, faults, found, was)
        teller = self._teller(asked.request, found)
        form = Form(
            section=section.key,
            values=values,
            choices=adminforms.choices(found, teller.language),
            errors=errors,
            blank=blank,
        )
        beside = [
            (each.label, told)
            for each in adminforms.fields(section.key)
            if theirs is not None and (told := teller.told(each, theirs.get(each.name)))
        ]
        return self._respond(
            asked, "admin/entry.html", status=status, part=section, form=form, was=was,
            name=called(_entry(found, section.key, was), teller.language, teller.names),
            others=others,
            said=adminwords.said, vocabulary=adminwords, remark=remark, theirs=beside,
            widgets=Widget,
        )  # fmt: skip

    def _conflict(
        self, asked: Asked, section: Section, found: Mapping[str, Any], entry: Mapping[str, Any]
    ) -> web.Response:
        """Draw what somebody wrote beside how the entry is by now."""
        same = [each for each in deskedit.entries(found, section.key)
                if each.get("key") is not None and each.get("key") == entry.get("key")]  # fmt: skip
        theirs = same[0] if same else None
        return self._form(
            asked, section, found, asked.form,
            was=deskedit.fingerprint(theirs) if theirs else "", status=409, theirs=theirs,
            remark=_CHANGED_MEANWHILE if theirs else _GONE_MEANWHILE,
        )  # fmt: skip

    # Looking at a change, and saving it

    async def _go(self, asked: Asked, sheet: Sheet) -> web.Response:
        """Show a change as it would be, or save it.

        Raises:
            Stale: what was to be changed is not as it was.
        """
        if asked.do not in ("save", "remove"):
            return self._review(asked, sheet, await self.changes.draft(sheet.edit))
        draft, number = await self.changes.save(
            sheet.edit,
            actor=actor_of(asked.identity),
            note=asked.said("note"),
            act=_act(asked),
            may_save=self._may_save(asked, sheet),
            base=sheet.base,
        )
        if not number:
            return self._review(asked, sheet, draft, refused=True)
        return _moved_on(asked.request, f"{sheet.back}?saved={number}")

    def _may_save(self, asked: Asked, sheet: Sheet) -> Callable[[Draft], bool]:
        def may_save(draft: Draft) -> bool:
            if _elsewhere(asked.identity, draft, sheet):
                return False
            return not draft.effect.holes or _despite(asked)

        return may_save

    def _review(
        self, asked: Asked, sheet: Sheet, draft: Draft, *, refused: bool = False
    ) -> web.Response:
        if not draft.is_right:
            return self._wrong(asked, sheet, draft)
        found = deskedit.document(draft.text)
        teller = self._teller(asked.request, found)
        elsewhere = _elsewhere(asked.identity, draft, sheet)
        is_refused = bool(draft.effect.holes or elsewhere)
        lacks_reason = refused and not elsewhere and asked.said("despite") and not _despite(asked)
        return self._respond(
            asked,
            "admin/review.html",
            status=409 if is_refused else 200,
            sheet=sheet,
            changes=_changes(draft, teller),
            lines=_lines(draft) if not sheet.section else [],
            holes=_holes(draft.effect.holes, teller),
            warnings=_warnings(draft),
            flaws=adminwords.FLAWS,
            elsewhere=", ".join(teller.site(key) for key in sorted(elsewhere)),
            elsewhere_says=_ELSEWHERE,
            note=asked.said("note"),
            reason=asked.said("reason"),
            remark=_REASON if lacks_reason else "",
            base=draft.base.number,
        )

    def _wrong(self, asked: Asked, sheet: Sheet, draft: Draft) -> web.Response:
        """Draw the errors where they can be mended: in the form, or beside the text."""
        if sheet.removes:
            return self._respond(
                asked, "admin/referred.html", status=409, sheet=sheet,
                references=_references(draft, self._language(asked.request)),
            )  # fmt: skip
        if sheet.section:
            section = SECTIONS[sheet.section]
            return self._form(
                asked, section, draft.before, asked.form, was=asked.said("was"),
                faults=draft.faults, status=422,
            )  # fmt: skip
        return self._text(asked, draft.text, draft.base, faults=draft.faults, status=422)

    # The whole file as text

    async def text(self, request: web.Request) -> web.Response:
        """Draw the whole file as text."""
        asked = await _asked(request, right=Right.ADMINISTER)
        newest = await self.changes.newest()
        return self._text(asked, newest.text, newest)

    async def change_text(self, request: web.Request) -> web.Response:
        """Take the whole file as text."""
        asked = await _asked(request, right=Right.ADMINISTER, form=True)
        text, newest = _text_of(asked), await self.changes.newest()
        if asked.do == "edit":
            return self._text(asked, text, newest)
        base = _number(asked.said("base"))
        if base != newest.number:
            return await self._text_conflict(asked, text, base, newest)
        sheet = Sheet(
            path=f"{PATH}/text", title=N_("The whole file as text"), back=f"{PATH}/text",
            edit=lambda _: text, hidden=[("text", "\n" + text)], base=base,
        )  # fmt: skip
        try:
            return await self._go(asked, sheet)
        except Stale:
            return await self._text_conflict(asked, text, base, await self.changes.newest())

    async def _text_conflict(
        self, asked: Asked, text: str, base: int, newest: Version
    ) -> web.Response:
        """Draw what somebody wrote, and what others have changed since they began."""
        try:
            before = (await self.changes.versions.numbered(base)).text
        except NotFound:
            before = ""
        return self._text(asked, text, newest, status=409, theirs=_difference(before, newest.text))

    def _text(  # noqa: PLR0913 - what the page is drawn of
        self,
        asked: Asked,
        text: str,
        newest: Version,
        *,
        faults: Sequence[Fault] = (),
        status: int = 200,
        theirs: Sequence[tuple[str, str]] = (),
    ) -> web.Response:
        return self._respond(
            asked, "admin/text.html", status=status, text=text, newest=newest,
            faults=[(fault, adminwords.said(fault.text)) for fault in faults], theirs=theirs,
            saved=_number(asked.request.query.get("saved", "")),
        )  # fmt: skip

    # Versions

    async def versions(self, request: web.Request) -> web.Response:
        """Draw the list of versions."""
        asked = await _asked(request)
        history = await self.changes.versions.history()
        return self._respond(
            asked, "admin/versions.html", history=history, sources=adminwords.SOURCES,
            saved=_number(request.query.get("saved", "")),
            restores=may(asked.identity, Right.ADMINISTER),
        )  # fmt: skip

    async def version(self, request: web.Request) -> web.Response:
        """Draw one version: how it differs from another, and its text.

        Raises:
            NotFound: there is none of this number.
        """
        asked = await _asked(request, right=Right.ADMINISTER)
        number = _number(request.match_info["number"])
        version = await self.changes.versions.numbered(number)
        newest = await self.changes.newest()
        other = _number(request.query.get("with", "")) or max(1, number - 1)
        before = await self.changes.versions.numbered(other)
        return self._respond(
            asked, "admin/version.html", version=version, other=before, newest=newest.number,
            lines=_difference(before.text, version.text), sources=adminwords.SOURCES,
        )  # fmt: skip

    async def restore(self, request: web.Request) -> web.Response:
        """Take a version as the newest again.

        Raises:
            NotFound: there is none of this number.
        """
        asked = await _asked(request, right=Right.ADMINISTER, form=True)
        number = _number(request.match_info["number"])
        version = await self.changes.versions.numbered(number)
        base = _number(asked.said("base")) or (await self.changes.newest()).number
        sheet = Sheet(
            path=f"{PATH}/versions/{number}", title=N_("Restore a version"),
            back=f"{PATH}/versions", edit=lambda _: version.text, base=base, name=str(number),
        )  # fmt: skip
        if asked.do == "edit":
            return see_other(f"{PATH}/versions/{number}")
        try:
            return await self._go(asked, sheet)
        except Stale:
            return see_other(f"{PATH}/versions/{number}")

    # Drawing

    def _language(self, request: web.Request) -> Language:
        return self.pages.language(request)

    def _teller(self, request: web.Request, found: Mapping[str, Any]) -> "Teller":
        return _teller(self.pages, request, found)

    def _respond(
        self, asked: Asked, template: str, *, status: int = 200, **values: Any
    ) -> web.Response:
        # htmx shows an answer only if it is no error: to it, a page that refuses is a page.
        shown = 200 if asked.request.headers.get("HX-Request") else status
        return self.pages.respond(
            asked.request, template, status=shown, identity=asked.identity, section="admin",
            sections=SECTIONS, now=self.clock.now(), **values,
        )  # fmt: skip


# Words


@dataclass(frozen=True, slots=True, kw_only=True)
class Teller:
    """Says what an entry says in the words of the page."""

    language: str
    say: Say
    names: Mapping[str, str]  # of people and sites, by key
    zones: Mapping[str, str]
    floors: Mapping[str, str]

    def told(self, each: Field, raw: Any) -> str:
        if raw in (None, "", [], {}):
            return ""
        return self._value(each, raw)

    def _value(self, each: Field, raw: Any) -> str:
        if isinstance(raw, Mapping):
            return self._table(each, raw)
        if isinstance(raw, list):
            between = "; " if each.fields else ", "
            return between.join(self._value(each, one) for one in raw)
        if isinstance(raw, bool):
            return self.say(N_("yes")) if raw else self.say(N_("no"))
        if isinstance(raw, datetime):
            return raw.isoformat(" ", "minutes")
        return str(raw) if isinstance(raw, date) else self._word(each, str(raw))

    def _word(self, each: Field, word: str) -> str:
        if each.refs in ("sites", "places", "engineers"):
            return self.names.get(word) or self._option(word)
        is_option = each.widget is Widget.SELECT and word in each.options
        return self._option(word) if is_option else word

    def _option(self, word: str) -> str:
        known = adminwords.OPTIONS.get(word)
        return self.say(known) if known else word

    def _table(self, each: Field, raw: Mapping[str, Any]) -> str:
        below = {one.name: one for one in each.fields}
        said = []
        for name, value in raw.items():
            one = below.get(name, each)
            label = self.say(one.label) if name in below else self._key(name)
            said.append(f"{label} {self._value(replace(one, fields=one.fields), value)}")
        return ", ".join(said)

    def _key(self, name: str) -> str:
        known = adminwords.OPTIONS.get(name) or adminwords.DAYS.get(name)
        return self.say(known) if known else name

    def site(self, key: str) -> str:
        return self.names.get(key, key)

    def instead(self, hole: Hole) -> str:
        if hole.instead:
            return ", ".join(self.names.get(key, key) for key in hole.instead)
        return self.say(N_("floor number %(number)s"), number=self.floors.get(hole.site, ""))


def _teller(pages: Pages, request: web.Request, found: Mapping[str, Any]) -> Teller:
    language = pages.language(request)
    return Teller(
        language=language, say=pages.say(language), names=_names(found, language),
        zones=_zones(found), floors=_floors(found),
    )  # fmt: skip


def teller_of(pages: Pages, request: web.Request, version: Version) -> Teller:
    """Return what tells of the entries of a version in the language of a request."""
    return _teller(pages, request, deskedit.document(version.text))


def holes_in_words(draft: Draft, teller: Teller) -> list[HoleView]:
    """Return the holes that a change would make, by site and tier."""
    return _holes(draft.effect.holes, teller)


def _names(found: Mapping[str, Any], language: str) -> dict[str, str]:
    engineers = {
        str(each.get("key")): str(each.get("name", ""))
        for each in deskedit.entries(found, "engineers")
    }
    sites = {
        str(each.get("key")): str(each.get(f"name_{language}", ""))
        for each in deskedit.entries(found, "sites")
    }
    return {**engineers, **sites}


def _zones(found: Mapping[str, Any]) -> dict[str, str]:
    return {
        str(each.get("key")): str(each.get("zone", "Asia/Shanghai"))
        for each in deskedit.entries(found, "sites")
    }


def _floors(found: Mapping[str, Any]) -> dict[str, str]:
    return {
        str(each.get("key")): str(each.get("floor", ""))
        for each in deskedit.entries(found, "sites")
    }


def _changes(draft: Draft, teller: Teller) -> list[ChangeView]:
    views = []
    for change in draft.changes:
        section = SECTIONS[change.section]
        shown = {each.name: each for each in adminforms.fields(change.section)}
        entry = change.after or change.before or {}
        views.append(
            ChangeView(
                section=section,
                name=called(entry, teller.language, teller.names)
                if change.section != CLOSING
                else "",
                how=_how(change.before, change.after),
                fields=tuple(
                    (
                        shown[name].label,
                        _cut(teller.told(shown[name], before)),
                        _cut(teller.told(shown[name], after)),
                    )
                    for name, before, after in change.fields
                    if name in shown
                ),
            )
        )
    return views


def _how(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> str:
    if before is None:
        return "added"
    if after is None:
        return "removed"
    return "changed" if before or after else "moved"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"


def _holes(holes: Sequence[Hole], teller: Teller) -> list[HoleView]:
    """Return the holes by tier and site, the first of each with its times."""
    grouped: dict[tuple[str, int], list[Hole]] = {}
    for hole in holes:
        grouped.setdefault((hole.site, hole.tier), []).append(hole)
    return [_hole(teller, site, tier, some) for (site, tier), some in grouped.items()]


def _hole(teller: Teller, site: str, tier: int, holes: Sequence[Hole]) -> HoleView:
    zone = ZoneInfo(teller.zones.get(site, "Asia/Shanghai"))
    return HoleView(
        site=teller.site(site),
        tier=tier,
        times=tuple(
            (_local(hole.since, zone), _local(hole.until, zone), teller.instead(hole))
            for hole in holes[:SHOWN_HOLES]
        ),
        more=max(0, len(holes) - SHOWN_HOLES),
        hours=f"{sum((each.until - each.since for each in holes), timedelta()) / _HOUR:.1f}",
        zone=zone.key,
    )


def _local(at: datetime, zone: ZoneInfo) -> str:
    return f"{at.astimezone(zone):%Y-%m-%d %H:%M}"


def _warnings(draft: Draft) -> list[RotaProblem]:
    """Return what is wrong with the rota beside the holes, which are told apart."""
    told = {Flaw.UNCOVERED} if draft.effect.holes else set()
    return [each for each in draft.warnings if each.flaw not in told][:SHOWN_WARNINGS]


def _fits(wanted: str, row: tuple[str, str, Sequence[tuple[str, str]]]) -> bool:
    said = " ".join([row[1], *(told for _, told in row[2])]).casefold()
    return all(word in said for word in wanted.casefold().split())


def _lines(draft: Draft) -> list[tuple[str, str]]:
    return _difference(draft.base.text, draft.text)


def _difference(before: str, after: str) -> list[tuple[str, str]]:
    """Return the lines that differ, with some around them: (kind, line)."""
    kinds = {"+": "added", "-": "removed", "@": "place"}
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=2, lineterm="")
    return [
        (kinds.get(line[:1], "same"), line if line[:1] == "@" else line[1:])
        for line in list(lines)[2:]
    ]


# What a request says


async def _asked(request: web.Request, *, right: Right | None = None, form: bool = False) -> Asked:
    identity = await request.app[HTTPD].identify(request)
    assert identity is not None  # noqa: S101 - the route asks for roles
    if right is not None:
        _require(identity, right)
    sent = adminforms.names_of((await request.post()).items()) if form else {}
    return Asked(request=request, identity=identity, form=sent)


def _require(identity: Identity, right: Right) -> None:
    """Refuse who may not; the whole file is not for who sees some sites only."""
    if not may(identity, right) or (right is Right.ADMINISTER and identity.sites):
        raise Refused(Problem(status=403, detail="not with this role"))


def _section(asked: Asked) -> Section:
    """Return the section of the address.

    Raises:
        NotFound: there is none of this name.
        Refused: it is not for this role.
    """
    section = SECTIONS.get(asked.request.match_info["section"])
    if section is None:
        raise NotFound("there is no such section")
    _require(asked.identity, section.right)
    return section


def _entry(found: Mapping[str, Any], section: str, was: str) -> dict[str, Any]:
    """Return the entry with a fingerprint, as it is now; empty if there is none."""
    listed = deskedit.entries(found, section)
    return next((each for each in listed if was and deskedit.fingerprint(each) == was), {})


def _closing(found: Mapping[str, Any]) -> str:
    listed = deskedit.entries(found, CLOSING)
    return deskedit.fingerprint(listed[0]) if listed else ""


def _sites(entry: Mapping[str, Any]) -> frozenset[str]:
    named = [entry.get("site"), *(entry.get("sites") or [])]
    return frozenset(str(each) for each in named if each)


def _elsewhere(identity: Identity, draft: Draft, sheet: Sheet) -> frozenset[str]:
    """Return the sites that somebody has no say in and that a change concerns."""
    if not identity.sites:
        return frozenset()
    return (draft.effect.sites | sheet.sites) - identity.sites


def _despite(asked: Asked) -> bool:
    """Return whether somebody who may has said why it is saved although there is a hole."""
    ticked = bool(asked.said("despite")) and bool(asked.said("reason"))
    return ticked and may(asked.identity, Right.PLAN)


def _act(asked: Asked) -> Mapping[str, Any]:
    return {"despite": asked.said("reason")} if _despite(asked) else {}


def _text_of(asked: Asked) -> str:
    # The first line end after <textarea> is none of its text (HTML section 13.1.2.5).
    text = "".join(asked.form.get("text", ()))
    if len(text) > LONGEST_TEXT:
        raise Refused(Problem(status=413))
    return text.rstrip() + "\n"


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _moved_on(request: web.Request, location: str) -> web.Response:
    """Send the browser on; htmx is told so that the address changes, too."""
    if request.headers.get("HX-Request"):
        return web.Response(status=200, headers={"HX-Redirect": location})
    return see_other(location)


def _replaced(history: Sequence[Version]) -> Version | None:
    """Return the version of the web that the file replaced when it changed, if it just did."""
    if len(history) > 1 and history[0].source is Source.FILE and history[1].source is Source.WEB:
        return history[1]
    return None


def _by_field(
    section: str,
    values: Mapping[str, Sequence[str]],
    faults: Sequence[Fault],
    found: Mapping[str, Any],
    was: str,
) -> tuple[dict[str, list[str]], list[Fault]]:
    """Return what is wrong by field of the form, and what is wrong elsewhere."""
    known = {each.name for each in adminforms.fields(section)}
    listed = deskedit.entries(found, section)
    numbers = [n for n, each in enumerate(listed) if was and deskedit.fingerprint(each) == was]
    key = next(iter(values.get("key", ())), "").strip()
    mine = {key, f"#{numbers[0] + 1 if numbers else len(listed) + 1}"} - {""}
    errors: dict[str, list[str]] = {}
    others = []
    for fault in faults:
        name = fault.field.split(".")[0]
        is_mine = fault.section == section and (fault.name in mine or section == CLOSING)
        if is_mine and name in known:
            errors.setdefault(name, []).append(fault.text)
        elif is_mine:
            errors.setdefault("", []).append(fault.text)
        else:
            others.append(fault)
    return errors, others


def _references(draft: Draft, language: str) -> list[tuple[Section | None, str, str, str]]:
    """Return what refers to an entry that was to go: section, its name, its address, the place."""
    found = deskedit.document(draft.text)
    told = []
    for fault in draft.faults:
        section = SECTIONS.get(fault.section)
        entry = _named(found, fault)
        name = called(entry, language, _names(found, language)) if entry else ""
        address = f"{PATH}/desk/{fault.section}/{deskedit.fingerprint(entry)}" if entry else ""
        told.append((section, name or fault.name, address, str(fault)))
    return told


def _named(found: Mapping[str, Any], fault: Fault) -> dict[str, Any]:
    listed = deskedit.entries(found, fault.section)
    if fault.name.startswith("#"):
        number = _number(fault.name[1:])
        return listed[number - 1] if 0 < number <= len(listed) else {}
    return next((each for each in listed if each.get("key") == fault.name), {})


def routes(page: AdminPage) -> Iterable[Route]:
    was = "{was:new|[0-9a-f]{16}}"
    for method, path, handler in (
        ("GET", "", page.overview),
        ("GET", "/desk/{section:[a-z]+}", page.section),
        ("GET", "/desk/{section:[a-z]+}/" + was, page.entry),
        ("POST", "/desk/{section:[a-z]+}", page.change),
        ("GET", "/text", page.text),
        ("POST", "/text", page.change_text),
        ("GET", "/versions", page.versions),
        ("GET", "/versions/{number:[0-9]{1,9}}", page.version),
        ("POST", "/versions/{number:[0-9]{1,9}}", page.restore),
    ):
        yield Route(method=method, path=f"{PATH}{path}", handler=loaded(handler, PATH), roles=WHO)


def loaded(handler: Handler, remedy: str) -> Handler:
    """Return a handler that sends people where the remedy is, if no desk file was loaded yet."""

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except NotLoaded:
            return see_other(remedy)

    return handle
