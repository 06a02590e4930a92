"""The page of texts: the last that went out and came in, and how far each has come."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol
from zoneinfo import ZoneInfo

from aiohttp import web

from contactd.clock import Clock
from contactd.httpd import HTTPD, Route
from contactd.routing.notify import Reason
from contactd.store.texts import ShownText
from contactd.store.views import ContactFilters, ContactView, Views
from contactd.tickets.contact import Medium
from contactd.web.access import ADDRESSED, LISTENING, PERSONAL
from contactd.web.i18n import Clockwork
from contactd.web.pages import Pages
from contactd.web.troubles import trouble

PATH: Final = "/texts"
MOST: Final = 100  # each way
SPAN: Final = timedelta(days=31)  # of those that came in: all contacts of it are looked through
# What the requester alone knows: who arrives on site proves it by it; what opens something.
_SECRET: Final = frozenset({Reason.CODE.value, Reason.LOGIN.value, Reason.REMOTE.value, ""})


class Texts(Protocol):
    async def latest(
        self, most: int = 200, sites: frozenset[str] = frozenset()
    ) -> list[ShownText]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPage:
    """The handler. `has_gateways`: texts can be sent at all; `zone` is the service's."""

    pages: Pages
    texts: Texts
    views: Views
    clock: Clock
    zone: str
    has_gateways: bool

    async def show(self, request: web.Request) -> web.Response:
        identity = await request.app[HTTPD].identify(request)
        assert identity is not None  # noqa: S101 - the route asks for roles
        sent = await self.texts.latest(MOST, identity.sites)
        now = self.clock.now()
        wanted = ContactFilters(medium=Medium.TEXT, received_from=now - SPAN, sites=identity.sites)
        came = await self.views.contacts_page(wanted, limit=MOST)
        language = self.pages.language(request)
        return self.pages.respond(
            request,
            "texts.html",
            section="texts",
            came=came.items,
            gateway=gateway,
            has_addresses=identity.role in ADDRESSED,
            has_gateways=self.has_gateways,
            identity=identity,
            is_secret=is_secret,
            listens=identity.role in LISTENING,
            most=MOST,
            names=await self.views.names(_keys(sent)),
            now=now,
            sent=sent,
            span=SPAN,
            times=Clockwork(language=language, zone=ZoneInfo(self.zone)),
            trouble=trouble,
        )


def routes(page: TextPage) -> Iterable[Route]:
    return (Route(method="GET", path=PATH, handler=page.show, roles=PERSONAL),)


def is_secret(sent: ShownText) -> bool:
    """Return whether the words of a text are for its recipient alone."""
    return sent.reason in _SECRET


def gateway(contact: ContactView) -> str:
    """Return who brought a text; see `sms.receiving.contact_id`."""
    return contact.external_id.partition("-")[0]


def _keys(sent: Sequence[ShownText]) -> set[str]:
    return {each.recipient for each in sent if each.recipient}
