"""Duty as calendars to subscribe to: of a person, a team or a site (iCalendar).

Calendar programs send no headers of ours, so that a token may stand in the address. Addresses end
up in logs and on other people's screens: only tokens of role `calendar` may, and they open nothing
else.
"""

import asyncio
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol

from aiohttp import web

from contactd.clock import Clock
from contactd.errors import NotFound
from contactd.httpd import HTTPD, Identity, Problem, Refused, Route
from contactd.routing.ical import Subject, View, calendar
from contactd.routing.plan import Plan
from contactd.routing.rota import Span
from contactd.store import duty
from contactd.store.engine import Database
from contactd.store.feeds import spans_of
from contactd.tickets.people import Role
from contactd.web.access import check_site
from contactd.web.endpoints import PREFIX

BACK: Final = timedelta(days=31)
AHEAD: Final = timedelta(days=60)  # as far as duty is stored
LONGEST_TOKEN: Final = 200


class Tokens(Protocol):
    async def find_token(self, secret: str) -> Identity | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Calendars:
    """`zone` and `language` are the service's, `host` is what makes UIDs this installation's."""

    database: Database
    tokens: Tokens
    clock: Clock
    zone: str
    language: str
    host: str

    async def get(self, request: web.Request) -> web.Response:
        identity = await self._admit(request)
        view, key = View(request.match_info["view"]), request.match_info["key"]
        if view is View.SITE:  # of people and teams everybody may know when they are on duty
            check_site(identity, key, "there is no such site")
        now = self.clock.now()
        async with self.database.reading() as connection:
            plan = await duty.plan(connection) or Plan()
            name = _name(plan, view, key, language := self._language(request))
            spans = await spans_of(connection, view, key, now - BACK, now + AHEAD)
        about = Subject(
            view=view,
            name=("值班：{}", "On duty: {}")[language != "zh"].format(name),
            language=language,
            zone=self.zone,
            host=self.host,
            stamp=now,
            people={engineer.key: engineer.name for engineer in plan.engineers},
            sites={site.key: site for site in plan.sites},
        )
        etag = _etag(spans, about)
        headers = {"ETag": f'"{etag}"', "Cache-Control": "private, no-cache"}
        if any(each.value in (etag, "*") for each in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        return web.Response(
            body=await asyncio.to_thread(calendar, spans, about),
            content_type="text/calendar",
            charset="utf-8",
            headers={**headers, "Content-Disposition": f'inline; filename="{key}.ics"'},
        )

    async def _admit(self, request: web.Request) -> Identity:
        """Return who asks: who has a role here, or a token for calendars in the address.

        Raises:
            Refused: 401 or 403.
        """
        if (known := await request.app[HTTPD].identify(request)) is not None:
            return known
        secret = request.query.get("token", "")
        identity = (
            await self.tokens.find_token(secret) if 0 < len(secret) <= LONGEST_TOKEN else None
        )
        if identity is None:
            challenge = {"WWW-Authenticate": 'Bearer realm="contactd"'}
            detail = "send a bearer token, or ?token= with a token of role calendar"
            raise Refused(Problem(status=401, detail=detail, headers=challenge))
        if identity.role is not Role.CALENDAR:
            raise Refused(
                Problem(status=403, detail="only a token of role calendar may be in an address")
            )
        return identity

    def _language(self, request: web.Request) -> str:
        asked = request.query.get("lang", self.language)
        return asked if asked in ("zh", "en") else self.language


def routes(calendars: Calendars) -> Iterable[Route]:
    views = "|".join(View)
    path = f"{PREFIX}/oncall/{{view:{views}}}/{{key:[a-z0-9_-]+}}.ics"
    return (Route(method="GET", path=path, handler=calendars.get, roles=None),)


def _name(plan: Plan, view: View, key: str, language: str) -> str:
    """Return what the subject of a calendar is called.

    Raises:
        NotFound: there is no such person, team or site.
    """
    known = {
        View.PERSON: {engineer.key: engineer.name for engineer in plan.engineers},
        View.TEAM: {team.key: team.key for team in plan.teams},
        View.SITE: {
            site.key: site.name_zh if language == "zh" else site.name_en for site in plan.sites
        },
    }[view]
    if key not in known:
        raise NotFound(f"there is no {view} {key!r} on duty")
    return known[key]


def _etag(spans: Iterable[Span], about: Subject) -> str:
    """Return the same for the same calendar, whenever it is asked for."""
    known = repr((about.name, about.language, about.host, about.people, about.sites, list(spans)))
    return hashlib.sha256(known.encode("utf-8", "replace")).hexdigest()[:32]
