"""The page of one ticket: what was promised and why it stands so, who was told, what was done.

Nothing is done on it but that its requester is written to, by text. Its clocks are those of
`routing.promises`, in the rows of `clocks.explain`, as `contactd explain` prints them and the API
gives them: the three cannot differ.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from aiohttp import web

from contactd.clock import Clock
from contactd.errors import NotFound, PermanentFailure
from contactd.httpd import HTTPD, Identity, Problem, Refused, Route
from contactd.routing import clocks, promises
from contactd.routing.clocks import Breached, Row, State
from contactd.routing.terms import Terms
from contactd.store.views import ContactView, MessageView, SiteView, TicketDetail, Views
from contactd.tickets import journal
from contactd.tickets.journal import Entry
from contactd.web.actions import ACTING, actor_of
from contactd.web.api import ADDRESSED, LISTENING, PERSONAL
from contactd.web.i18n import Clockwork, Language, money
from contactd.web.pages import Pages, see_other
from contactd.web.sentences import Teller, keys, length
from contactd.web.troubles import trouble
from contactd.web.words import N_
from contactd.web.writing import (
    LONGEST,
    TextPreview,
    Writing,
    cleaned,
    digest,
    is_key,
    new_key,
    text_key,
)

PATH: Final = "/desk/tickets"
SHOWN_MESSAGES: Final = 12  # the newest; those before them are folded
_EMPTY: Final = N_("There are no words in it.")
_LONG: Final = N_("It is too long: %(most)s characters at most.")
_NOWHERE: Final = N_("This requester cannot be sent a text: no number that takes one is known.")
_CHANGED: Final = N_("The words have changed. This is how they will be sent:")
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
class Draft:
    """A text to the requester that has not been sent."""

    key: str  # of the form
    words: str = ""
    preview: TextPreview | None = None
    remark: str = ""  # why it was not sent, or cannot be: a message id
    detail: str = ""  # more of that, for operators

    @property
    def seen(self) -> str:
        """Return what says, when it is sent, that these words have been shown as they will be."""
        return digest(self.words)


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketPage:
    """The handlers. `zone` is the service's, for tickets of no site; `terms` what is promised.

    `writing` None: nobody can be sent a text.
    """

    pages: Pages
    views: Views
    terms: Callable[[], Awaitable[Terms]]
    clock: Clock
    zone: str
    writing: Writing | None = None

    async def show(self, request: web.Request) -> web.Response:
        """Draw the ticket.

        Raises:
            NotFound: there is none of this number.
        """
        return await self._page(request, Draft(key=new_key()))

    async def write(self, request: web.Request) -> web.Response:
        """Send the words of the form if they have been shown as they will be sent; else show them.

        Raises:
            NotFound: there is no ticket of this number.
        """
        number, form = request.match_info["number"], await request.post()
        draft = await self._draft(request)
        wants = str(form.get("do", "")) == "send"
        if not wants or draft.preview is None or self.writing is None:
            return await self._page(request, draft)
        if str(form.get("seen", "")) != draft.seen:
            return await self._page(request, replace(draft, remark=_CHANGED))
        await self.writing.texts.write(
            number,
            actor=actor_of(await _identity(request)),
            words=draft.words,
            key=text_key(draft.key, draft.words),
        )
        return see_other(f"{PATH}/{number}?written=1#told")

    async def preview(self, request: web.Request) -> web.Response:
        """Draw what somebody is writing as it would be sent, for the page that is open.

        Raises:
            NotFound: there is no ticket of this number.
        """
        draft, language = await self._draft(request), self.pages.language(request)
        html = self.pages.draw("parts/draft.html", language, draft=draft, longest=LONGEST,
                               money=money)  # fmt: skip
        return web.Response(text=html, content_type="text/html")

    async def _draft(self, request: web.Request) -> Draft:
        form = await request.post()
        key, words = str(form.get("key", "")), cleaned(str(form.get("words", "")))
        if self.writing is None:
            raise NotFound("nobody can be sent a text: see sms.gateways")
        if not is_key(key):
            raise Refused(Problem(status=400, detail="key: not as the form has it"))
        draft = Draft(key=key, words=words)
        if not words:
            return replace(draft, remark=_EMPTY)
        if len(words) > LONGEST:
            return replace(draft, remark=_LONG)
        try:
            found = await self.writing.preview(request.match_info["number"], words)
        except NotFound:
            raise
        except PermanentFailure as failure:
            return replace(draft, remark=_NOWHERE, detail=str(failure))
        return replace(draft, preview=found)

    async def _page(self, request: web.Request, draft: Draft) -> web.Response:
        detail = await self.views.ticket(request.match_info["number"])
        identity = await _identity(request)
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
            draft=draft,
            groups=teller.lines(detail.journal),
            identity=identity,
            length=length,
            has_addresses=identity.role in ADDRESSED,
            listens=identity.role in LISTENING,
            longest=LONGEST,
            messages=_folded(detail.messages),
            money=money,
            now=now,
            person=detail.requester,
            pieces=pieces,
            infected=infected,
            site=_site_name(site, language),
            teller=teller,
            ticket=detail.ticket,
            times=times,
            trouble=trouble,
            writes=self.writing is not None and identity.role in ACTING,
            written="written" in request.query,
        )


def routes(page: TicketPage) -> Iterable[Route]:
    path = f"{PATH}/{{number}}"
    return (
        Route(method="GET", path=path, handler=page.show, roles=PERSONAL),
        Route(method="POST", path=path, handler=page.write, roles=ACTING),
        Route(method="POST", path=f"{path}/preview", handler=page.preview, roles=ACTING),
    )


async def _identity(request: web.Request) -> Identity:
    identity = await request.app[HTTPD].identify(request)
    assert identity is not None  # noqa: S101 - the routes ask for roles
    return identity


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
