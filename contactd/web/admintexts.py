"""The administration of words: letters and prompts; and which public holidays are known."""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final, Protocol

from aiohttp import web
from sqlalchemy import select

from contactd.clock import Clock
from contactd.errors import ConfigurationError, NotFound
from contactd.httpd import HTTPD, Identity, Problem, Refused, Route
from contactd.routing.calendars import HolidayData, read_calendar_data
from contactd.routing.deskedit import Stale, fingerprint
from contactd.routing.notify import Reason
from contactd.routing.words import Letter
from contactd.store.engine import Database
from contactd.store.schema import holidays
from contactd.web import words
from contactd.web.access import ADMINISTERING
from contactd.web.actions import actor_of
from contactd.web.adminforms import names_of
from contactd.web.pages import Pages, see_other
from contactd.web.words import N_

PATH: Final = "/desk/admin"
KINDS: Final[Mapping[str, tuple[str, str]]] = {  # of a letter's words: label, hint
    "sentence": (N_("First line"), N_("{ticket} must be in it.")),
    "answer": (N_("How to answer"), N_("{ticket} must be in it; {send} is “Reply” or “Text”.")),
    "subject": (N_("Subject"), N_("The ticket’s number comes in front by itself.")),
}
LANGUAGES: Final = ("zh", "en")
_STORED: Final = select(holidays).where(holidays.c.key == "cn")
_CHANGED: Final = N_("Somebody else has changed this letter meanwhile; your words are below.")


class Letterbook(Protocol):
    """The words of mails; `mail.letterbook` has them."""

    async def current(self) -> tuple[str, int]: ...

    def wording(self, text: str, reason: Reason, language: str) -> dict[str, str]: ...

    def preview(self, text: str, reason: Reason, language: str) -> Letter: ...

    def edited(
        self, text: str, reason: Reason, language: str, words: dict[str, str], was: str
    ) -> str: ...

    async def save(
        self, reason: Reason, language: str, words: dict[str, str], *, was: str, actor: str
    ) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    name: str  # contactd/welcome
    texts: Mapping[str, str]
    files: frozenset[str]  # languages whose sound file is there


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminTexts:
    """The handlers. `prompts` is the table of prompts, `sounds` the folder of their files.

    `settings` are words that only the configuration can change: name of the setting, value.
    """

    pages: Pages
    letters: Letterbook
    database: Database
    clock: Clock
    prompts: Path
    sounds: Path | None
    settings: Sequence[tuple[str, str]] = ()

    # Letters

    async def list_letters(self, request: web.Request) -> web.Response:
        """Draw which letters have words of the installation's own."""
        text, number = await self.letters.current()
        rows = [
            (reason, [(each, self.letters.wording(text, reason, each)) for each in LANGUAGES])
            for reason in Reason
            if reason in words.REASONS
        ]
        return await self._respond(
            request, "admin/letters.html", rows=rows, number=number, settings=self.settings,
            saved=request.query.get("saved", ""),
        )  # fmt: skip

    async def letter(self, request: web.Request) -> web.Response:
        """Draw one letter: its words and how it looks."""
        reason, language = _which(request)
        text, _ = await self.letters.current()
        own = self.letters.wording(text, reason, language)
        return await self._letter(request, reason, language, own, fingerprint(own), text)

    async def change_letter(self, request: web.Request) -> web.Response:
        """Show a letter with other words, or save them."""
        reason, language = _which(request)
        form = {name: each[0] for name, each in names_of((await request.post()).items()).items()}
        own = {kind: form.get(kind, "").strip() for kind in KINDS if form.get(kind, "").strip()}
        was = form.get("was", "")
        before, _ = await self.letters.current()
        try:
            text = self.letters.edited(before, reason, language, own, was)
            self.letters.preview(text, reason, language)
            if form.get("do") == "save":
                actor = actor_of(await _identity(request))
                await self.letters.save(reason, language, own, was=was, actor=actor)
                return see_other(f"{PATH}/letters?saved={reason}")
        except ConfigurationError as error:
            lines = _by_kind(str(error), f"{reason}.{language}.")
            return await self._letter(
                request, reason, language, own, was, before, errors=lines, status=422
            )
        except Stale:
            now = fingerprint(self.letters.wording(before, reason, language))
            return await self._letter(
                request, reason, language, own, now, before, remark=_CHANGED, status=409
            )
        return await self._letter(request, reason, language, own, was, text, checked=True)

    async def _letter(  # noqa: PLR0913 - what the page is drawn of
        self,
        request: web.Request,
        reason: Reason,
        language: str,
        own: Mapping[str, str],
        was: str,
        text: str,
        *,
        errors: Mapping[str, str] | None = None,
        status: int = 200,
        remark: str = "",
        checked: bool = False,
    ) -> web.Response:
        return await self._respond(
            request, "admin/letter.html", status=status, reason=reason, letter_language=language,
            own=own, was=was, kinds=KINDS, errors=errors or {}, remark=remark, checked=checked,
            shown=self.letters.preview(text, reason, language),
        )  # fmt: skip

    # Prompts

    async def list_prompts(self, request: web.Request) -> web.Response:
        """Draw what the hotline says, and play it if the sound files are here."""
        found = self._prompts()
        return await self._respond(
            request, "admin/prompts.html", prompts=found, table=self.prompts.name,
            can_listen=self.sounds is not None, languages_of=LANGUAGES,
        )  # fmt: skip

    async def sound(self, request: web.Request) -> web.StreamResponse:
        """Play a prompt.

        Raises:
            NotFound: there is no such file.
        """
        language, name = request.match_info["language"], request.match_info["name"]
        found = next((each for each in self._prompts() if each.name == name), None)
        if self.sounds is None or found is None or language not in found.files:
            raise NotFound("there is no such prompt")
        path = self.sounds / language / f"{name}.wav"
        return web.FileResponse(path, headers={"Content-Type": "audio/wav"})

    def _prompts(self) -> list[Prompt]:
        try:
            table = tomllib.loads(self.prompts.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        return [
            self._prompt(f"{section}/{name}", texts)
            for section, prompts in table.items()
            for name, texts in prompts.items()
        ]

    def _prompt(self, name: str, texts: Mapping[str, str]) -> Prompt:
        files = frozenset(
            language
            for language in LANGUAGES
            if self.sounds is not None and (self.sounds / language / f"{name}.wav").is_file()
        )
        return Prompt(name=name, texts=texts, files=files)

    # Public holidays

    async def holidays(self, request: web.Request) -> web.Response:
        """Draw the public holidays that are known, and through which day they are settled."""
        async with self.database.reading() as connection:
            row = (await connection.execute(_STORED)).first()
        data = read_calendar_data(row.body) if row is not None else None
        return await self._respond(
            request, "admin/holidays.html", data=data, now=self.clock.now(),
            imported_at=row.imported_at if row is not None else None,
            years=_years(data) if data else [],
        )  # fmt: skip

    async def _respond(
        self, request: web.Request, template: str, *, status: int = 200, **values: Any
    ) -> web.Response:
        return self.pages.respond(
            request, template, status=status, identity=await _identity(request),
            section="admin", **values,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Year:
    year: int
    holidays: Sequence[tuple[str, date, date]]  # name, first, last
    working: Sequence[date]
    sources: Sequence[str]


def _years(data: HolidayData) -> list[Year]:
    """Return each year with its holidays as spans, the newest first."""
    years = sorted({day.year for day in [*data.holidays, *data.working]}, reverse=True)
    return [
        Year(
            year=year,
            holidays=_spans({day: name for day, name in data.holidays.items() if day.year == year}),
            working=sorted(day for day in data.working if day.year == year),
            sources=data.sources.get(year, ()),
        )
        for year in years
    ]


def _spans(days: Mapping[date, str]) -> list[tuple[str, date, date]]:
    found: list[tuple[str, date, date]] = []
    for day, name in sorted(days.items()):
        if found and found[-1][0] == name and (day - found[-1][2]).days == 1:
            found[-1] = (name, found[-1][1], day)
        else:
            found.append((name, day, day))
    return found


def _by_kind(text: str, prefix: str) -> dict[str, str]:
    """Return what is wrong by the kind of words; what is wrong elsewhere under ""."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        place, _, wrong = line.partition(": ")
        kind = place.removeprefix(prefix) if place.startswith(prefix) else ""
        found[kind if kind in KINDS else ""] = wrong or line
    return found


def _which(request: web.Request) -> tuple[Reason, str]:
    """Return which letter the address names.

    Raises:
        NotFound: there is none.
    """
    try:
        return Reason(request.match_info["reason"]), request.match_info["language"]
    except ValueError:
        raise NotFound("there is no such letter") from None


async def _identity(request: web.Request) -> Identity:
    identity = await request.app[HTTPD].identify(request)
    assert identity is not None  # noqa: S101 - the route asks for roles
    if identity.sites:
        raise Refused(Problem(status=403, detail="only for who sees all sites"))
    return identity


def routes(page: AdminTexts) -> Iterable[Route]:
    letter = "/letters/{reason:[a-z-]+}/{language:zh|en}"
    for method, path, handler in (
        ("GET", "/letters", page.list_letters),
        ("GET", letter, page.letter),
        ("POST", letter, page.change_letter),
        ("GET", "/prompts", page.list_prompts),
        ("GET", "/prompts/{language:zh|en}/{name:[a-z0-9-]+/[a-z0-9-]+}", page.sound),
        ("GET", "/holidays", page.holidays),
    ):
        yield Route(method=method, path=f"{PATH}{path}", handler=handler, roles=ADMINISTERING)
