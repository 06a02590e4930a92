"""Chinese and English: which one a request wants, and the texts and dates of each.

The catalogues (`locale/<language>/LC_MESSAGES/contactd.po`) are compiled in memory at start, so
that there is no compiled file to forget.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from gettext import GNUTranslations
from io import BytesIO
from pathlib import Path
from typing import Final, Protocol
from zoneinfo import ZoneInfo

from aiohttp import web
from babel.core import Locale, negotiate_locale
from babel.dates import format_date
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.numbers import format_currency

LOCALE_DIR: Final = Path(__file__).parent / "locale"
COOKIE: Final = "contactd_lang"
COOKIE_MAX_AGE_S: Final = 365 * 86_400


class Say(Protocol):
    def __call__(self, text: str, **values: str) -> str:
        """Return a message in one language; a literal percent sign in `text` is written `%%`."""
        ...


class Language(StrEnum):
    ZH = "zh"
    EN = "en"

    @property
    def tag(self) -> str:
        """The language tag of BCP 47, for the `lang` attribute."""
        return {"zh": "zh-CN", "en": "en"}[self]

    @property
    def own_name(self) -> str:
        return {"zh": "中文", "en": "English"}[self]


def catalogue(language: Language, folder: Path = LOCALE_DIR) -> GNUTranslations:
    path = folder / language / "LC_MESSAGES" / "contactd.po"
    with path.open("rb") as file:
        compiled = BytesIO()
        write_mo(compiled, read_po(file, locale=language.value))
    compiled.seek(0)
    return GNUTranslations(compiled)


def catalogues() -> Mapping[Language, GNUTranslations]:
    return {language: catalogue(language) for language in Language}


def choose(request: web.Request, default: Language) -> Language:
    """Return the language of `?lang=`, else of the cookie, else of the browser, else `default`."""
    for wish in (request.query.get("lang"), request.cookies.get(COOKIE)):
        if wish in set(Language):
            return Language(wish)
    wanted = [
        part.split(";")[0].strip()
        for part in request.headers.get("Accept-Language", "")[:500].split(",")
    ]
    found = negotiate_locale([tag for tag in wanted if tag], [*Language], sep="-")
    return Language(found.split("-")[0]) if found else default


def remember(request: web.Request, response: web.StreamResponse, *, secure: bool) -> None:
    """Keep the choice of `?lang=` for the next pages."""
    if (wish := request.query.get("lang")) in set(Language):
        response.set_cookie(
            COOKIE, str(wish), max_age=COOKIE_MAX_AGE_S,
            httponly=True, samesite="Lax", secure=secure,
        )  # fmt: skip


def money(amount: float, currency: str, language: Language) -> str:
    """Return e.g. ¥0.135, CN¥0.135: texts cost fractions of the smallest coin."""
    return format_currency(
        amount, currency, format="¤#,##0.00##", locale=Locale(language.value), currency_digits=False
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Clockwork:
    """Instants as the people of one language read them, in the service's time zone."""

    language: Language
    zone: ZoneInfo

    def time(self, at: datetime) -> str:
        return f"{at.astimezone(self.zone):%H:%M}"

    def day(self, day: date) -> str:
        """Return e.g. 11月20日 周五, Fri 20 Nov."""
        pattern = {Language.ZH: "M月d日 EEE", Language.EN: "EEE d MMM"}[self.language]
        return format_date(day, pattern, locale=Locale(self.language.value))

    def weekday(self, day: date) -> str:
        return format_date(day, "EEE", locale=Locale(self.language.value))

    def moment(self, at: datetime, now: datetime, *, seconds: bool = True) -> str:
        """Return e.g. 11月20日 10:02:11, 20 Nov 10:02:11; with its year, unless that is now's."""
        there, here = at.astimezone(self.zone), now.astimezone(self.zone)
        patterns = {Language.ZH: ("M月d日", "y年M月d日"), Language.EN: ("d MMM", "d MMM y")}
        pattern = patterns[self.language][there.year != here.year]
        day = format_date(there.date(), pattern, locale=Locale(self.language.value))
        return f"{day} {there:%H:%M:%S}" if seconds else f"{day} {there:%H:%M}"

    def short(self, at: datetime, now: datetime) -> str:
        """Return the time alone on the same day as `now`, else with its weekday or day."""
        there, here = at.astimezone(self.zone), now.astimezone(self.zone)
        days = abs((there.date() - here.date()).days)
        if days == 0:
            return self.time(at)
        if days < 7:
            return f"{self.weekday(there.date())} {self.time(at)}"
        return f"{self.day(there.date())} {self.time(at)}"
