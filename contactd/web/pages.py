"""HTML: the templates in each language, and the answers made of them."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from types import CodeType
from typing import Any, Final
from urllib.parse import quote
from zoneinfo import ZoneInfo

from aiohttp import web
from jinja2 import Environment, FileSystemBytecodeCache, FileSystemLoader, StrictUndefined
from jinja2.bccache import Bucket

from contactd.errors import ConfigurationError
from contactd.httpd import HTTPD, Problem
from contactd.web import i18n, words
from contactd.web.access import PERSONAL, Right, may
from contactd.web.board import masked, masked_name
from contactd.web.i18n import Clockwork, Language, Say

HERE: Final = Path(__file__).parent
TEMPLATES: Final = HERE / "templates"
STATIC: Final = HERE / "static"
VENDORED: Final = ("vendor/htmx.js", "vendor/uplot.js", "vendor/uplot.css")


class _Compiled(FileSystemBytecodeCache):
    """What templates are compiled to: once for all languages, and kept for the next start.

    Compiling them takes longer than everything else that is done at start. A file that does not
    fit its template, this Jinja or this Python is passed over by Jinja.
    """

    def __init__(self, folder: Path | None) -> None:
        super().__init__(str(folder or ""))
        self._is_kept = folder is not None
        self._codes: dict[str, CodeType] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        bucket.code = self._codes.get(bucket.key)
        if bucket.code is None and self._is_kept:
            try:
                super().load_bytecode(bucket)
            except (EOFError, ValueError, TypeError, UnpicklingError):  # the power failed meanwhile
                bucket.reset()
            if bucket.code is not None:
                self._codes[bucket.key] = bucket.code

    def dump_bytecode(self, bucket: Bucket) -> None:
        if bucket.code is not None:
            self._codes[bucket.key] = bucket.code
        if self._is_kept:
            super().dump_bytecode(bucket)


class Pages:
    """Draws templates, with one Jinja environment a language. `cache`: see `_Compiled`."""

    def __init__(
        self, *, name: str, zone: ZoneInfo, language: Language, cache: Path | None = None
    ) -> None:
        self._name = name
        self._zone = zone
        self._default = language
        self.version = version_of_static()
        self._catalogues = i18n.catalogues()
        if cache is not None:
            cache.mkdir(parents=True, exist_ok=True)
        self._compiled = _Compiled(cache)
        self._environments = {
            language: self._environment(language, self._catalogues[language])
            for language in Language
        }

    def _environment(self, language: Language, texts: Any) -> Environment:
        environment = Environment(
            loader=FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.i18n"],
            auto_reload=False,
            cache_size=-1,
            bytecode_cache=self._compiled,
        )
        environment.install_gettext_translations(texts, newstyle=True)  # type: ignore[attr-defined]
        environment.filters |= {"masked": masked, "masked_name": masked_name}
        environment.globals |= {
            "service": self._name,
            "zone": self._zone.key,
            "language": language,
            "languages": [*Language],
            "personal": PERSONAL,
            "may": may,
            "Right": Right,
            "version": self.version,
            "words": words,
            "clockwork": Clockwork(language=language, zone=self._zone),
        }
        for name in environment.list_templates():
            environment.get_template(name)  # compiled now: the first page need not wait for it
        return environment

    def language(self, request: web.Request) -> Language:
        return i18n.choose(request, self._default)

    def say(self, language: Language) -> Say:
        """Return what puts a message id and its values into the words of `language`."""
        texts = self._catalogues[language]

        def say(text: str, **values: str) -> str:
            return texts.gettext(text) % values

        return say

    def draw(self, template: str, language: Language, **values: Any) -> str:
        return self._environments[language].get_template(template).render(**values)

    def respond(
        self, request: web.Request, template: str, *, status: int = 200, **values: Any
    ) -> web.Response:
        """Return a whole page in the language that the request wants."""
        language = self.language(request)
        other = {wish: request.rel_url.update_query(lang=wish) for wish in Language}
        shown = {wish: f"?{url.query_string}" for wish, url in other.items()}
        html = self.draw(template, language, switch=shown, **values)
        response = web.Response(text=html, content_type="text/html", status=status)
        response.headers["Vary"] = "Accept-Language, Cookie"
        response.headers["Content-Language"] = language.tag
        i18n.remember(request, response, secure=request.app[HTTPD].is_secure(request))
        return response

    def problem(self, request: web.Request, problem: Problem) -> web.Response | None:
        """Draw `problem` for a browser; who is not logged in is sent to do so."""
        if request.path.startswith("/api/"):
            return None
        if problem.status == 401:
            return see_other(f"/login?next={quote(request.path_qs, safe='')}")
        title, remedy = words.PROBLEMS.get(problem.status, words.OTHER_PROBLEM)
        response = self.respond(
            request, "problem.html", status=problem.status, identity=None, title=title,
            remedy=remedy, code=problem.status,
        )  # fmt: skip
        response.headers.update(problem.headers)
        return response


def see_other(location: str) -> web.Response:
    """Send the browser on with a GET (RFC 9110 section 15.4.4)."""
    return web.Response(status=303, headers={"Location": location})


def version_of_static() -> str:
    """Return a hash of every static file, which names their version in the pages.

    Raises:
        ConfigurationError: the set-up has not brought the npm packages.
    """
    missing = [name for name in VENDORED if not (STATIC / name).is_file()]
    if missing:
        raise ConfigurationError(
            f"{', '.join(missing)} missing below {STATIC}: run scripts/vendor.sh (needs npm)"
        )
    digest = hashlib.sha256()
    for path in sorted(STATIC.rglob("*")):
        if path.is_file():
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def static_routes() -> Mapping[str, Path]:
    return {"/static": STATIC}
