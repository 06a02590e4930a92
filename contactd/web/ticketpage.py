"""The page of one ticket: who it is about, what was said and done, what was promised.

What is done on it is in `ticketacts`. Its clocks are those of `routing.promises`, in the rows of
`clocks.explain`, as `contactd explain` prints them and the API gives them: the three cannot differ.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from aiohttp import web

from contactd.clock import Clock
from contactd.errors import NotFound, PermanentFailure
from contactd.httpd import HTTPD, Identity, Problem, Refused, Route
from contactd.routing import clocks, promises
from contactd.routing.clocks import Breached, Row, State
from contactd.routing.terms import Terms
from contactd.store.ticketviews import Head, Place, TicketViews
from contactd.store.views import MessageView, SiteView, TicketView, Views
from contactd.tickets import describing, journal
from contactd.tickets.describing import About
from contactd.tickets.dispatching import TRANSITIONS as STEPS
from contactd.tickets.journal import Entry
from contactd.tickets.model import Category
from contactd.tickets.phone import is_mobile
from contactd.tickets.priority import Impact, Urgency
from contactd.tickets.states import OPEN, TRANSITIONS, Action
from contactd.web import timeline
from contactd.web.access import ACTING, ADDRESSED, LISTENING, PERSONAL, Right, check_site, may
from contactd.web.actions import actor_of
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
LONG: Final = 500  # entries of a journal
REMEMBERED: Final = 128  # tickets whose clocks are kept until their journal grows
_EMPTY: Final = N_("There are no words in it.")
_LONG: Final = N_("It is too long: %(most)s characters at most.")
_NOWHERE: Final = N_("This requester cannot be sent a text: no number that takes one is known.")
_CHANGED: Final = N_("The words have changed. This is how they will be sent:")
_UNTIL_NOW: Final = frozenset({State.RUNNING, State.PAUSED})
DID: Final[Mapping[str, str]] = {  # what the page says once an act is done
    "comment": N_("Your note is on the ticket."),
    "describe": N_("The description is kept."),
    "classify": N_("Classified."),
    "mail": N_("Your mail is on its way: its state is in the time line."),
    "text": N_("Your text is on its way: its state is in the time line."),
    "merge": N_("The tickets are one now."),
    "split": N_("The contact has a ticket of its own now."),
    "hand_over": N_("Handed over: they are being told."),
    "dispatch": N_("Offered: they are being told."),
    "escalate": N_("The next people are being told."),
    "opened": N_("The ticket is open."),
    "remote_link": N_("The link is on its way. The user sees who helps, and has to agree first."),
}
_DONE: Final = N_("Done.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """An act that was not possible: what somebody wrote, and why it was not."""

    act: str
    fields: Mapping[str, str]
    remark: str  # a message id
    detail: str = ""  # more of that, in English
    status: int = 409
    is_outdated: bool = False  # somebody else was faster: both versions are shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What the whole journal of a ticket says: read again only once it has grown."""

    seq: int
    terms: Terms
    broken: str
    contract: str
    is_classified: bool
    clocks: tuple[tuple[clocks.Clock, int | None], ...]  # with the entry that says it is broken
    people: frozenset[str]


def _told(head: Head, entries: Sequence[Entry], terms: Terms) -> Told:
    broken = journal.verify(entries, last_hash=head.journal_hash)
    found = () if broken else promises.clocks(entries, terms)
    return Told(
        seq=head.journal_seq,
        terms=terms,
        broken=broken,
        contract=_last(entries, "contract"),
        is_classified=any("impact" in each.body for each in entries),
        clocks=tuple((each, _recorded(each, entries)) for each in found),
        people=frozenset(keys(entries)),
    )


@dataclass(slots=True, kw_only=True)
class Journals:
    """What was made of the journals that were read last."""

    views: TicketViews
    kept: OrderedDict[str, Told] = field(default_factory=OrderedDict)

    async def told(self, head: Head, terms: Terms) -> Told:
        number = head.ticket.number
        known = self.kept.get(head.journal_hash + number)
        if known is not None and known.terms is terms and known.seq == head.journal_seq:
            self.kept.move_to_end(head.journal_hash + number)
            return known
        entries = await self.views.journal(number, head.id)
        # What was written since the head was read belongs to the next page.
        entries = entries[: head.journal_seq] if head.journal_seq else entries
        if len(entries) < LONG:
            told = _told(head, entries, terms)
        else:  # a second of work, which holds nobody else up
            told = await asyncio.to_thread(_told, head, entries, terms)
        self.kept[head.journal_hash + number] = told
        while len(self.kept) > REMEMBERED:
            self.kept.popitem(last=False)
        return told


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

    `writing` None: nobody can be sent a text. `has_mail`, `has_pbx`: people can be sent mails,
    rung from the page. `panel` tells of remote help (see `remotepage`); None: there is none.
    """

    pages: Pages
    views: Views
    more: TicketViews
    terms: Callable[[], Awaitable[Terms]]
    clock: Clock
    zone: str
    writing: Writing | None = None
    has_mail: bool = False
    has_pbx: bool = False
    panel: Callable[[Identity, TicketView, Clockwork], Awaitable[Any]] | None = None
    journals: Journals = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "journals", Journals(views=self.more))

    async def show(self, request: web.Request) -> web.Response:
        """Draw the ticket.

        Raises:
            NotFound: there is none of this number, or not for who asks.
        """
        return await self.page(request)

    async def write(self, request: web.Request) -> web.Response:
        """Send the words of the form if they have been shown as they will be sent; else show them.

        Raises:
            NotFound: there is no ticket of this number.
        """
        number, form = request.match_info["number"], await request.post()
        identity = await self.check(request)
        draft = await self._draft(request)
        wants = str(form.get("do", "")) == "send"
        if not wants or draft.preview is None or self.writing is None:
            return await self.page(request, draft=draft)
        if str(form.get("shown", "")) != draft.seen:
            return await self.page(request, draft=replace(draft, remark=_CHANGED))
        await self.writing.texts.write(
            number,
            actor=actor_of(identity),
            words=draft.words,
            key=text_key(draft.key, draft.words),
        )
        return see_other(f"{PATH}/{number}?did=text#done")

    async def preview(self, request: web.Request) -> web.Response:
        """Draw what somebody is writing as it would be sent, for the page that is open.

        Raises:
            NotFound: there is no ticket of this number.
        """
        await self.check(request)
        draft, language = await self._draft(request), self.pages.language(request)
        html = self.pages.draw("parts/draft.html", language, draft=draft, longest=LONGEST,
                               money=money)  # fmt: skip
        return web.Response(text=html, content_type="text/html")

    async def check(self, request: web.Request) -> Identity:
        """Return who asks, if they see the ticket.

        Raises:
            NotFound: there is none of this number, or it is another site's.
        """
        identity = await identity_of(request)
        check_site(identity, await self.more.site_of(request.match_info["number"]))
        return identity

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

    async def page(
        self,
        request: web.Request,
        *,
        draft: Draft | None = None,
        failed: Failed | None = None,
        mail: Any = None,
    ) -> web.Response:
        """Draw the ticket, with a text or mail as it is being written, or what was not possible."""
        identity = await self.check(request)
        head = await self.more.head(request.match_info["number"])
        ticket = head.ticket
        sites = {site.key: site for site in await self.views.sites()}
        site = sites.get(ticket.site)
        now, language = self.clock.now(), self.pages.language(request)
        told = await self.journals.told(head, await self.terms())
        found = await self._slice(request, head)
        people = told.people | keys(found.entries) | {each.engineer for each in head.dispatches}
        zone = ZoneInfo(site.zone if site else self.zone)
        times = Clockwork(language=language, zone=zone)
        names = await self.views.names(people)
        teller = Teller(say=self.pages.say(language), times=times, names=names, now=now)
        acts = may(identity, Right.WORK)
        return self.pages.respond(
            request,
            "ticket.html",
            status=failed.status if failed else 200,
            section="tickets",
            acts=acts,
            actions=_actions(head) if acts else frozenset(),
            addresses=_addresses(head),
            broken=told.broken,
            categories=Category,
            clocks=[_clock(each, by, teller) for each, by in told.clocks],
            contract=told.contract,
            contracts=sorted(told.terms.contracts),
            did=_did(request),
            draft=draft or Draft(key=new_key()),
            failed=failed,
            filters=timeline.FILTERS,
            found=found,
            groups=timeline.line_of(found, teller.line),
            has_addresses=identity.role in ADDRESSED,
            has_mail=self.has_mail,
            has_pbx=self.has_pbx,
            head=head,
            own_address=_here(request),
            history=await self.more.history(
                ticket.requester_id, identity.sites, without=ticket.number
            ),
            identity=identity,
            impacts=Impact,
            infected=timeline.infected,
            is_mobile=is_mobile,
            is_open=ticket.state in OPEN,
            is_picture=timeline.is_picture,
            is_sound=timeline.is_sound,
            items=_items(head, told),
            key=new_key(),
            kind=_kind(request),
            length=length,
            listens=identity.role in LISTENING,
            local=lambda at: at.astimezone(zone).strftime("%Y-%m-%dT%H:%M") if at else "",
            longest=LONGEST,
            mail=mail,
            messages=_folded(head.messages),
            money=money,
            now=now,
            person=head.requester,
            remote=await self.panel(identity, ticket, times) if self.panel else None,
            pieces=timeline.pieces,
            shown={each.seq for each in found.entries},
            site=_site_name(site, language),
            staff=await self.more.staff(ticket.site) if acts else None,
            steps=steps_of,
            teller=teller,
            ticket=ticket,
            times=times,
            trouble=trouble,
            urgencies=Urgency,
            writes=self.writing is not None and acts,
        )

    async def _slice(self, request: web.Request, head: Head) -> Any:
        before = Place.read(request.query.get("before", ""))
        seq = request.query.get("entry", "")
        is_number = seq.isascii() and seq.isdigit() and len(seq) < 10
        return await self.more.slice(
            head, kind=_kind(request), before=before, seq=int(seq) if is_number else 0
        )


def routes(page: TicketPage) -> Iterable[Route]:
    path = f"{PATH}/{{number}}"
    return (
        Route(method="GET", path=path, handler=page.show, roles=PERSONAL),
        Route(method="POST", path=path, handler=page.write, roles=ACTING),
        Route(method="POST", path=f"{path}/preview", handler=page.preview, roles=ACTING),
    )


def _kind(request: web.Request) -> str:
    kind = request.query.get("show", "all")
    return kind if kind in timeline.FILTERS else "all"


def _here(request: web.Request) -> str:
    """Return the page's own address, without what belongs to one view of it."""
    kept = {
        name: request.query[name] for name in ("show", "before", "entry") if name in request.query
    }
    number = request.match_info["number"]
    return str(request.rel_url.with_path(f"{PATH}/{number}").with_query(kept))


def _did(request: web.Request) -> str:
    did = request.query.get("did", "")
    return DID.get(did, _DONE) if did else ""


def _actions(head: Head) -> frozenset[Action]:
    """Return what the table of states allows now."""
    return frozenset(action for state, action in TRANSITIONS if state is head.ticket.state)


def steps_of(state: Any) -> list[str]:
    """Return the steps that a dispatch can take from where it is."""
    return [step.value for before, step in STEPS if before is state]


def _items(head: Head, told: Told) -> list[tuple[describing.Item, bool, bool]]:
    """Return the standard information: each item, whether it is known, whether one can do without.

    What is missing comes first.
    """
    person, ticket = head.requester, head.ticket
    about = About(
        name=person.name,
        department=person.department,
        has_phone=bool(person.numbers),
        has_mail=bool(person.mails),
        site=ticket.site,
        title=ticket.title,
        system=ticket.system,
        has_picture=head.has_picture,
        has_impact=told.is_classified,
    )
    found = describing.present(head.standard, about)
    wanted = list(describing.missing(head.standard, about))
    known = [item for item in describing.Item if found[item]]
    return [(item, found[item], item in describing.OPTIONAL) for item in (*wanted, *known)]


async def identity_of(request: web.Request) -> Identity:
    """Return who asks, on a page that is not for everybody."""
    identity = await request.app[HTTPD].identify(request)
    assert identity is not None  # noqa: S101 - the routes ask for roles
    return identity


def _clock(clock: clocks.Clock, breached_by: int | None, teller: Teller) -> ClockView:
    now = teller.now
    spent = clocks.spent_at(clock, now)
    return ClockView(
        clock=clock,
        spent=spent,
        left=clock.goal - spent,
        breached_at=promises.breached_at(clock, now),
        breached_by=breached_by,
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


def _addresses(head: Head) -> list[str]:
    """Return where the requester can be reached, without what stands for a name nobody knows."""
    person = head.requester
    shown = person.name or head.ticket.caller
    return [each for each in (*person.numbers, *person.mails) if each != shown]


def _site_name(site: SiteView | None, language: Language) -> str:
    if site is None:
        return ""
    return site.name_zh if language is Language.ZH else site.name_en


def _folded(
    messages: Sequence[MessageView],
) -> tuple[Sequence[MessageView], Sequence[MessageView]]:
    """Return the messages that are shown, the newest first, and those that are folded away."""
    newest = messages[::-1]
    return newest[:SHOWN_MESSAGES], newest[SHOWN_MESSAGES:]
