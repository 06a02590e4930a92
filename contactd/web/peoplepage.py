"""Requesters: found, completed, made one; and a ticket that the desk opens for one of them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from zoneinfo import ZoneInfo

from aiohttp import web

from contactd.clock import Clock
from contactd.errors import NotFound, PermanentFailure
from contactd.httpd import Identity, Problem, Refused, Route
from contactd.store.ticketviews import TicketViews
from contactd.store.views import PersonView, Views
from contactd.tickets.contact import Contact, Medium
from contactd.tickets.describing import Description
from contactd.tickets.model import Category, Classification
from contactd.tickets.people import Card
from contactd.tickets.phone import address
from contactd.tickets.priority import Impact, Urgency
from contactd.tickets.service import Taken, TicketService
from contactd.web.access import ACTING, PERSONAL, Right, check_site, may
from contactd.web.i18n import Clockwork
from contactd.web.pages import Pages, see_other
from contactd.web.ticketacts import Form, Wrong, moment, read
from contactd.web.ticketpage import PATH as TICKETS
from contactd.web.ticketpage import identity_of
from contactd.web.words import N_
from contactd.web.writing import new_key

PATH: Final = "/desk/people"
NEW: Final = "/desk/new"
_TAKEN: Final = N_("This number or mail address is another person’s. Are they the same?")
_REFUSED: Final = N_("That was not possible.")
_NO_FAULT: Final = N_("Say what happened, or give it a title.")
_NOBODY: Final = N_("Say who it is for: a name, a telephone number or a mail address.")
_SAME: Final = N_("Choose the other entry of this person.")


@dataclass(frozen=True, slots=True, kw_only=True)
class PeoplePage:
    """The handlers; `zone` is the service's."""

    pages: Pages
    views: Views
    more: TicketViews
    tickets: TicketService
    clock: Clock
    zone: str

    # People

    async def find(self, request: web.Request) -> web.Response:
        """Draw who is found by a part of a name, number or address."""
        identity = await identity_of(request)
        words = request.query.get("q", "")
        ticket = request.query.get("ticket", "")
        if ticket:
            check_site(identity, await self.more.site_of(ticket))
        found = await self.more.find_people(words, identity.sites)
        return self.pages.respond(
            request,
            "desk/people.html",
            section="people",
            acts=may(identity, Right.WORK),
            found=found,
            identity=identity,
            key=new_key(),
            sites=await self._sites(request),
            ticket=ticket,
            q=words[:80],
        )

    async def show(self, request: web.Request) -> web.Response:
        """Draw somebody.

        Raises:
            NotFound: there is nobody with this id, or they are another site's.
        """
        return await self._card(request)

    async def change(self, request: web.Request) -> web.Response:
        """Keep what a form says of somebody.

        Raises:
            NotFound: there is nobody with this id, or they are another site's.
        """
        identity, person = await self._person(request)
        form = await read(request, identity)
        try:
            await self.tickets.complete_person(person.id, _card(form), actor=form.actor)
        except Taken as taken:
            return await self._card(request, form, _TAKEN, other=taken.owner)
        except NotFound:
            raise
        except PermanentFailure as failure:
            return await self._card(request, form, _REFUSED, detail=str(failure))
        return see_other(f"{PATH}/{person.id}?did=1")

    async def merge(self, request: web.Request) -> web.Response:
        """Make two people one.

        Raises:
            NotFound: there is nobody with this id, or one of them is another site's.
        """
        identity, person = await self._person(request)
        form = await read(request, identity)
        if not form.fields.get("into"):
            return await self._card(request, form, _SAME)
        into = await self.more.person(form.whole("into"))
        check_site(identity, into.site, "there is no such person")
        try:
            await self.tickets.merge_people(person.id, into.id, actor=form.actor)
        except NotFound:
            raise
        except PermanentFailure as failure:
            return await self._card(request, form, _REFUSED, detail=str(failure))
        return see_other(f"{PATH}/{into.id}?did=1")

    async def _person(self, request: web.Request) -> tuple[Identity, PersonView]:
        asked = request.match_info["id"]
        if not asked.isascii() or not asked.isdigit() or len(asked) > 18:
            raise NotFound("there is no such person")
        identity = await identity_of(request)
        person = await self.more.person(int(asked))
        check_site(identity, person.site, "there is no such person")
        return identity, person

    async def _card(
        self,
        request: web.Request,
        form: Form | None = None,
        remark: str = "",
        *,
        detail: str = "",
        other: int = 0,
    ) -> web.Response:
        identity, person = await self._person(request)
        words = request.query.get("same", "")
        same = list(await self.more.find_people(words, identity.sites)) if words else []
        if other and (owner := await self._seen(identity, other)) is not None:
            same = [owner]
        return self.pages.respond(
            request,
            "desk/person.html",
            status=422 if remark else 200,
            section="people",
            acts=may(identity, Right.WORK),
            detail=detail,
            did="did" in request.query,
            history=await self.more.history(person.id, identity.sites),
            identity=identity,
            kept=form.fields if form else {},
            now=self.clock.now(),
            person=person,
            remark=remark,
            same=[each for each in same if each.id != person.id],
            same_words=words[:80],
            sites=await self._sites(request),
            times=self._times(request),
        )

    async def _seen(self, identity: Identity, person_id: int) -> PersonView | None:
        person = await self.more.person(person_id)
        is_theirs = not identity.sites or not person.site or person.site in identity.sites
        return person if is_theirs else None

    # A ticket for somebody

    async def blank(self, request: web.Request) -> web.Response:
        """Draw the form for a new ticket."""
        return await self._new(request, {"key": new_key()})

    async def open(self, request: web.Request) -> web.Response:
        """Open a ticket for somebody on the telephone; a form that is sent twice opens one.

        Raises:
            NotFound: there is no such person, or they are another site's.
        """
        identity = await identity_of(request)
        form = await read(request, identity)
        try:
            number = await self._opened(form)
        except Wrong as wrong:
            return await self._new(request, form.fields, wrong.remark)
        except Taken:
            return await self._new(request, form.fields, _TAKEN)
        except NotFound:
            raise
        except PermanentFailure as failure:
            return await self._new(request, form.fields, _REFUSED, detail=str(failure))
        except ValueError:
            raise Refused(Problem(status=400, detail="a field is not as the form has it")) from None
        return see_other(f"{TICKETS}/{number}?did=opened#done")

    async def _opened(self, form: Form) -> str:
        what, title = form.words("what"), form.line("title")
        if not what and not title:
            raise Wrong(_NO_FAULT)
        zone = ZoneInfo(self.zone)
        said = Description(
            what=what,
            happened_at=moment(form.line("happened_at"), zone),
            device=form.line("device"),
            version=form.line("version"),
            error=form.words("error"),
            impact=Impact(form.whole("impact")) if form.fields.get("impact") else None,
            wished=form.line("wished"),
        )
        kind = Classification(
            title=title or None,
            system=form.line("system") or None,
            urgency=Urgency(form.whole("urgency")) if form.fields.get("urgency") else None,
            category=Category(form.line("category")) if form.fields.get("category") else None,
        )
        person = await self._chosen(form)
        card = _card(form)
        if person is None and not (card.name or card.numbers or card.mails):
            raise Wrong(_NOBODY)
        if person is None:
            person = await self._by_address(form, card)
        key = form.key()
        filed = await self.tickets.receive(
            Contact(
                medium=Medium.WEB,
                external_id=f"desk-{key}",
                received_at=self.clock.now(),
                from_value=_reached_by(person),
                text=what or title,
            )
        )
        if filed.joined:  # they have an open one, and somebody says that this is another
            filed = await self.tickets.separate(Medium.WEB, f"desk-{key}", actor=form.actor)
        if filed.new_contact or filed.opened:
            await self.tickets.set_requester(filed.ticket, person.id, actor=form.actor)
            await self.tickets.describe(filed.ticket, said, actor=form.actor)
            await self.tickets.classify(filed.ticket, kind, actor=form.actor)
        if filed.new_contact and "spoken" in form.fields:
            await self.tickets.answered(
                filed.ticket, actor=form.actor, how="call", engineer=form.identity.engineer
            )
        return filed.ticket

    async def _chosen(self, form: Form) -> PersonView | None:
        if not form.fields.get("person"):
            return None
        person = await self.more.person(form.whole("person"))
        check_site(form.identity, person.site, "there is no such person")
        return person

    async def _by_address(self, form: Form, card: Card) -> PersonView:
        """Return who has the number or address of a form, or a new person with what it says."""
        for value in (*card.numbers, *card.mails):
            for found in await self.more.find_people(value):
                known = {*found.numbers, *found.mails}
                if _address_key(value) in known:
                    check_site(form.identity, found.site, "there is no such person")
                    if not found.key and not found.name:
                        await self.tickets.complete_person(found.id, card, actor=form.actor)
                    return await self.more.person(found.id)
        return await self.more.person(await self.tickets.complete_person(0, card, actor=form.actor))

    async def _new(
        self,
        request: web.Request,
        fields: Mapping[str, str],
        remark: str = "",
        *,
        detail: str = "",
    ) -> web.Response:
        identity = await identity_of(request)
        asked = fields.get("person") or request.query.get("person", "")
        is_id = asked.isascii() and asked.isdigit() and len(asked) < 19
        person = await self._seen(identity, int(asked)) if is_id else None
        words = request.query.get("q", "")
        found = await self.more.find_people(words, identity.sites) if words else ()
        return self.pages.respond(
            request,
            "desk/new.html",
            status=422 if remark else 200,
            section="tickets",
            categories=Category,
            detail=detail,
            found=found,
            identity=identity,
            impacts=Impact,
            kept={**fields, "key": fields.get("key") or new_key()},
            person=person,
            q=words[:80],
            remark=remark,
            sites=await self._sites(request),
            urgencies=Urgency,
        )

    async def _sites(self, request: web.Request) -> list[tuple[str, str]]:
        identity, language = await identity_of(request), self.pages.language(request)
        return [
            (site.key, site.name_zh if language == "zh" else site.name_en)
            for site in await self.views.sites()
            if not identity.sites or site.key in identity.sites
        ]

    def _times(self, request: web.Request) -> Clockwork:
        return Clockwork(language=self.pages.language(request), zone=ZoneInfo(self.zone))


def routes(page: PeoplePage) -> Iterable[Route]:
    return (
        Route(method="GET", path=PATH, handler=page.find, roles=PERSONAL),
        Route(method="GET", path=f"{PATH}/{{id}}", handler=page.show, roles=PERSONAL),
        Route(method="POST", path=f"{PATH}/{{id}}", handler=page.change, roles=ACTING),
        Route(method="POST", path=f"{PATH}/{{id}}/merge", handler=page.merge, roles=ACTING),
        Route(method="GET", path=NEW, handler=page.blank, roles=ACTING),
        Route(method="POST", path=NEW, handler=page.open, roles=ACTING),
    )


def _card(form: Form) -> Card:
    """Return what a form says of somebody; a field that it does not have says nothing."""
    fields = form.fields
    return Card(
        name=form.line("name") if "name" in fields else None,
        department=form.line("department") if "department" in fields else None,
        site=_site(form),
        vip="vip" in fields if "has_vip" in fields else None,
        language=form.line("language") if fields.get("language") in ("", "zh", "en") else None,
        numbers=_listed(form, "number"),
        mails=_listed(form, "mail"),
        without=_listed(form, "without"),
    )


def _site(form: Form) -> str | None:
    """Return the site that a form gives somebody.

    Raises:
        NotFound: it is not the sender's to give.
    """
    if "site" not in form.fields:
        return None
    site = form.line("site")
    check_site(form.identity, site, "there is no such site")
    return site


def _listed(form: Form, name: str) -> tuple[str, ...]:
    told = form.fields.get(name, "").replace(";", ",").replace("，", ",").replace("\n", ",")
    return tuple(each.strip() for each in told.split(",") if each.strip())[:5]


def _reached_by(person: PersonView) -> str:
    return next(iter((*person.numbers, *person.mails)), "")


def _address_key(value: str) -> str:
    return value.strip().lower() if "@" in value else address(value)
