"""The page of one ticket: what was promised and why it stands so, who was told, what was done.

It only shows. Its clocks are those of `routing.promises`, in the rows of `clocks.explain`, as
`contactd explain` prints them and the API gives them: the three cannot differ.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from aiohttp import web

from contactd.clock import Clock
from contactd.httpd import HTTPD, Route
from contactd.routing import clocks, promises
from contactd.routing.clocks import Breached, Row, State
from contactd.routing.terms import Terms
from contactd.store.views import ContactView, MessageView, SiteView, TicketDetail, Views
from contactd.tickets import journal
from contactd.tickets.journal import Entry
from contactd.web.api import LISTENING, PERSONAL
from contactd.web.i18n import Clockwork, Language
from contactd.web.pages import Pages
from contactd.web.sentences import Teller, keys, length

PATH: Final = "/desk/tickets"
SHOWN_MESSAGES: Final = 12  # the newest; those before them are folded
_UNTIL_NOW: Final = frozenset({State.RUNNING, State.PAUSED})


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockView:
    """A clock as it is drawn. The bar is 100 wide, for the goal or for what is spent if longer."""

    clock: clocks.Clock
    spent: timedelta
    left: timedelta  # negative: over
    breached_at: datetime | None
    breached_by: int | None  # the entry that says so, once it is recorded
    stands: bool  # recorded; by what is known now it would be no breach
    rows: tuple[tuple[Row, str], ...]  # with why in words

    @property
    def is_open(self) -> bool:
        return self.clock.state in _UNTIL_NOW

    @property
    def tone(self) -> str:
        """Return what the clock looks like: broken, or its state."""
        return "broken" if self.breached_at else self.clock.state.value

    @property
    def filled(self) -> float:
        return round(100 * min(self.spent, self.clock.goal) / self._scale, 2)

    @property
    def over(self) -> float:
        return round(max(0.0, 100 - self.goal_at) if self.left < timedelta() else 0.0, 2)

    @property
    def goal_at(self) -> float:
        return round(100 * (self.clock.goal / self._scale), 2)

    @property
    def marks(self) -> list[float]:
        """Return where the warnings are."""
        return [round(self.goal_at * each / 100, 2) for each in self.clock.target.warnings]

    @property
    def _scale(self) -> timedelta:
        return max(self.clock.goal, self.spent)


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketPage:
    """The handler. `zone` is the service's, for tickets of no site; `terms` what is promised."""

    pages: Pages
    views: Views
    terms: Callable[[], Awaitable[Terms]]
    clock: Clock
    zone: str

    async def show(self, request: web.Request) -> web.Response:
        """Draw the ticket.

        Raises:
            NotFound: there is none of this number.
        """
        detail = await self.views.ticket(request.match_info["number"])
        identity = await request.app[HTTPD].identify(request)
        assert identity is not None  # noqa: S101 - the route asks for roles
        sites = {site.key: site for site in await self.views.sites()}
        site = sites.get(detail.ticket.site)
        now = self.clock.now()
        language = self.pages.language(request)
        names = await self.views.names(keys(detail.journal))
        zone = ZoneInfo(site.zone if site else self.zone)
        times = Clockwork(language=language, zone=zone)
        teller = Teller(say=self.pages.say(language), times=times, names=names, now=now)
        broken = journal.verify(detail.journal, last_hash=detail.journal_hash)
        return self.pages.respond(
            request,
            "ticket.html",
            addresses=_addresses(detail),
            broken=broken,
            clocks=() if broken else _clocks(detail, await self.terms(), teller),
            contacts=detail.contacts,
            contract=_last(detail.journal, "contract"),
            detail=detail,
            dispatches=detail.dispatches,
            groups=teller.lines(detail.journal),
            identity=identity,
            length=length,
            listens=identity.role in LISTENING,
            messages=_folded(detail.messages),
            now=now,
            person=detail.requester,
            pieces=pieces,
            infected=infected,
            site=_site_name(site, language),
            teller=teller,
            ticket=detail.ticket,
            times=times,
        )


def routes(page: TicketPage) -> Iterable[Route]:
    return (Route(method="GET", path=f"{PATH}/{{number}}", handler=page.show, roles=PERSONAL),)


def _clocks(detail: TicketDetail, terms: Terms, teller: Teller) -> list[ClockView]:
    found = promises.clocks(detail.journal, terms)
    return [_clock(each, detail.journal, teller) for each in found]


def _clock(clock: clocks.Clock, entries: Sequence[Entry], teller: Teller) -> ClockView:
    now = teller.now
    spent = clocks.spent_at(clock, now)
    return ClockView(
        clock=clock,
        spent=spent,
        left=clock.goal - spent,
        breached_at=promises.breached_at(clock, now),
        breached_by=_recorded(clock, entries),
        stands=clock.breached is Breached.STANDS,
        rows=tuple(
            (row, teller.cause(row)) for row in clocks.explain(clock, teller.times.zone, at=now)
        ),
    )


def _recorded(clock: clocks.Clock, entries: Iterable[Entry]) -> int | None:
    """Return the entry that says when this clock's promise was broken."""
    for entry in entries:
        if entry.action == promises.BREACHED:
            found = promises.breach_of(entry.body)
            if found.metric is clock.metric and found.at == clock.breached_at:
                return entry.seq
    return None


def _last(entries: Iterable[Entry], key: str) -> str:
    """Return what the journal said last of `key`."""
    told = [str(entry.body[key]) for entry in entries if entry.body.get(key)]
    return told[-1] if told else ""


def _addresses(detail: TicketDetail) -> list[str]:
    """Return where the requester can be reached, without what stands for a name nobody knows."""
    person = detail.requester
    shown = person.name or detail.ticket.caller
    return [each for each in (*person.numbers, *person.mails) if each != shown]


def _site_name(site: SiteView | None, language: Language) -> str:
    if site is None:
        return ""
    return site.name_zh if language is Language.ZH else site.name_en


def pieces(contact: ContactView) -> Iterator[tuple[str, bool]]:
    """Yield the text of a contact in parts, and whether a part quotes earlier mails."""
    end = 0
    for start, stop in contact.mail.folds if contact.mail is not None else ():
        yield contact.text[end:start].strip("\r\n"), False
        yield contact.text[start:stop].strip("\r\n"), True
        end = stop
    yield contact.text[end:].strip("\r\n"), False


def infected(contact: ContactView) -> bool:
    """Return whether a scanner has found a virus in a mail."""
    said = contact.mail.checks.get("virus", "") if contact.mail is not None else ""
    return said not in ("", "clean", "unscanned")


def _folded(
    messages: Sequence[MessageView],
) -> tuple[Sequence[MessageView], Sequence[MessageView]]:
    """Return the messages that are shown, the newest first, and those that are folded away."""
    newest = messages[::-1]
    return newest[:SHOWN_MESSAGES], newest[SHOWN_MESSAGES:]
