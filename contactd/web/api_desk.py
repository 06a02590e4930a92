"""The API's end points of people, sites, duty and the desk file."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

from contactd.clock import Clock
from contactd.errors import ActionNotAllowed, NotFound, PermanentFailure
from contactd.httpd import Problem, Refused
from contactd.routing.deskedit import Stale
from contactd.routing.oncall import Duties, Duty, between, next_duties, on_duty
from contactd.store.apiviews import ApiViews, PeopleFilters
from contactd.store.deskversions import Version
from contactd.store.dutyrequests import DutyRequests
from contactd.store.views import PersonView, Views
from contactd.tickets.people import Card
from contactd.web import resources as r
from contactd.web import resources_more as more
from contactd.web.access import (
    ACTING,
    ADMINISTERING,
    EVERYBODY,
    PERSONAL,
    PLANNING,
    Right,
    check_everywhere,
    may,
    sees,
)
from contactd.web.actions import actor_of
from contactd.web.api_scope import Scope
from contactd.web.deskchanges import DeskChanges, Draft
from contactd.web.endpoints import PREFIX, Answer, Asked, Endpoint, bad_query, paged

LONGEST_RANGE: Final = timedelta(days=14)
WEEK: Final = timedelta(days=7)


class People(Protocol):
    """What is done to people; `TicketService` has it."""

    async def complete_person(self, person: int, card: Card, *, actor: str) -> int: ...

    async def merge_people(self, person: int, into: int, *, actor: str) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DeskApi:
    """The handlers. `changes` None: there is no desk file that could be changed."""

    views: Views
    pages: ApiViews
    scope: Scope
    tickets: People
    duties: Callable[[datetime | None], Awaitable[Duties]]
    clock: Clock
    requests: DutyRequests
    changes: DeskChanges | None = None

    # People

    async def list_people(self, asked: Asked) -> r.Page[r.Person]:
        query = asked.queried(more.PeopleQuery)
        filters = PeopleFilters(
            words=query.q, site=query.site, role=query.role, sites=asked.identity.sites
        )
        items, following = await paged(self.pages.people(filters, query.cursor, query.limit))
        return r.Page[r.Person](items=tuple(map(person_of, items)), next=following or None)

    async def get_person(self, asked: Asked) -> r.Person:
        return person_of(await self.scope.views.person(asked.id("person")))

    async def add_person(self, asked: Asked) -> Answer:
        number = await self._complete(asked, 0)
        url = f"{PREFIX}/people/{number}"
        return Answer(value=more.PersonAdded(id=number, url=url), status=201, location=url)

    async def complete_person(self, asked: Asked) -> r.Person:
        await self._complete(asked, asked.id("person"))
        return await self.get_person(asked)

    async def _complete(self, asked: Asked, person: int) -> int:
        sent = asked.sent(more.PersonCard)
        if sent.site and not sees(asked.identity, sent.site):
            raise PermanentFailure("there is no such site")
        card = Card(**sent.model_dump())
        return await self.tickets.complete_person(person, card, actor=actor_of(asked.identity))

    async def merge_people(self, asked: Asked) -> r.Person:
        into = asked.sent(more.MergePeople).into
        await self.scope.sees_person(asked.identity, into)
        await self.tickets.merge_people(asked.id("person"), into, actor=actor_of(asked.identity))
        return person_of(await self.scope.views.person(into))

    # Sites and duty

    async def list_sites(self, asked: Asked) -> r.Page[r.Site]:
        found = await self.views.sites()
        return r.Page[r.Site](
            items=tuple(
                r.Site(**{name: getattr(site, name) for name in r.Site.model_fields})
                for site in found
                if sees(asked.identity, site.key)
            )
        )

    async def get_oncall(self, asked: Asked) -> r.OnCall:
        query = asked.queried(r.OnCallQuery)
        at = query.at or self.clock.now()
        duties = await paged(self.duties(query.at))
        keys = _keys(asked, duties, query.site)
        now = [duty for key in keys for duty in on_duty(duties, key, at)]
        coming = [duty for key in keys for duty in next_duties(duties, key, at)]
        return r.OnCall(at=at, now=tuple(map(_duty, now)), next=tuple(map(_duty, coming)))

    async def get_range(self, asked: Asked) -> r.Page[r.DutyItem]:
        query = asked.queried(more.DutyQuery)
        start = query.start or self.clock.now()
        try:
            end = query.end or start + WEEK
            is_right = timedelta(0) < end - start <= LONGEST_RANGE
        except OverflowError:
            is_right, end = False, start
        if not is_right:
            raise bad_query(f"to must be after from, by at most {LONGEST_RANGE.days} days")
        duties = await paged(self.duties(start))
        found = [
            duty
            for key in _keys(asked, duties, query.site)
            for duty in between(duties, key, start, end)
        ]
        return r.Page[r.DutyItem](items=tuple(map(_duty, found)))

    async def list_requests(self, asked: Asked) -> r.Page[more.DutyRequest]:
        key, now = asked.queried(more.DutyRequestQuery).engineer, self.clock.now()
        if not may(asked.identity, Right.PLAN) and key != (asked.identity.engineer or None):
            raise Refused(Problem(status=403, detail="engineer: only your own"))
        read = self.requests.of(key, now) if key else self.requests.waiting(now)
        names = more.DutyRequest.model_fields
        return r.Page[more.DutyRequest](
            items=tuple(
                more.DutyRequest(**{name: getattr(each, name) for name in names})
                for each in await read
            )
        )

    # The desk file

    async def list_versions(self, asked: Asked) -> r.Page[more.DeskVersion]:
        check_everywhere(asked.identity)
        found = await self._changes().versions.history()
        return r.Page[more.DeskVersion](items=tuple(_version(each, None) for each in found))

    async def get_version(self, asked: Asked) -> more.DeskVersion:
        check_everywhere(asked.identity)
        number = asked.id("version")
        if number >= 2**31:
            raise NotFound("there is no such version")
        found = await self._changes().versions.numbered(number)
        return _version(found, found.text)

    async def put_desk(self, asked: Asked) -> more.DeskCheck:
        check_everywhere(asked.identity)
        sent, changes = asked.sent(more.DeskWish), self._changes()

        def replaced(_: str) -> str:
            return sent.text

        if sent.dry_run:
            return _checked(await changes.draft(replaced), 0)
        try:
            draft, number = await changes.save(
                replaced, actor=actor_of(asked.identity), note=sent.note, base=sent.base
            )
        except Stale as stale:
            raise ActionNotAllowed(str(stale)) from stale
        return _checked(draft, number)

    def _changes(self) -> DeskChanges:
        if self.changes is None:
            raise NotFound("there is no desk file here")
        return self.changes

    def endpoints(self) -> Sequence[Endpoint]:
        return (
            Endpoint(
                method="GET", path="/people", tag="people", handler=self.list_people,
                summary="The people who are known, who was known last first", roles=PERSONAL,
                query=more.PeopleQuery, returns=r.Page[r.Person],
            ),
            Endpoint(
                method="POST", path="/people", tag="people", handler=self.add_person,
                summary="Add somebody", roles=ACTING, body=more.PersonCard,
                returns=more.PersonAdded, statuses=(201,),
            ),
            Endpoint(
                method="GET", path="/people/{person}", tag="people", handler=self.get_person,
                summary="One person", roles=PERSONAL, returns=r.Person, problems=(404,),
            ),
            Endpoint(
                method="PATCH", path="/people/{person}", tag="people",
                handler=self.complete_person, roles=ACTING, body=more.PersonCard,
                returns=r.Person, problems=(404,),
                summary="Say more of somebody; their open tickets follow",
            ),
            Endpoint(
                method="POST", path="/people/{person}/merge", tag="people",
                handler=self.merge_people, roles=ACTING, body=more.MergePeople,
                returns=r.Person, problems=(404,),
                summary="Give somebody else everything of this person, who is no more",
            ),
            Endpoint(
                method="GET", path="/sites", tag="desk", handler=self.list_sites,
                summary="The branch offices", roles=EVERYBODY, returns=r.Page[r.Site],
            ),
            Endpoint(
                method="GET", path="/oncall", tag="desk", handler=self.get_oncall,
                summary="Who is on duty, and who comes next", roles=EVERYBODY,
                query=r.OnCallQuery, returns=r.OnCall, problems=(404,),
            ),
            Endpoint(
                method="GET", path="/oncall/range", tag="desk", handler=self.get_range,
                summary="Who has which time", roles=EVERYBODY, query=more.DutyQuery,
                returns=r.Page[r.DutyItem], problems=(404,),
            ),
            Endpoint(
                method="GET", path="/duty-requests", tag="desk", handler=self.list_requests,
                summary="Swaps and leave that were asked for", roles=PERSONAL,
                query=more.DutyRequestQuery, returns=r.Page[more.DutyRequest],
                description="Of others, and what is to be decided: "
                f"{', '.join(sorted(PLANNING))}.",
            ),
            Endpoint(
                method="GET", path="/desk-versions", tag="desk", handler=self.list_versions,
                summary="The versions of the desk file, the newest first", roles=ADMINISTERING,
                returns=r.Page[more.DeskVersion], problems=(404,),
            ),
            Endpoint(
                method="GET", path="/desk-versions/{version}", tag="desk",
                handler=self.get_version, roles=ADMINISTERING, returns=more.DeskVersion,
                problems=(404,), summary="One version of the desk file with its text",
            ),
            Endpoint(
                method="PUT", path="/desk", tag="desk", handler=self.put_desk,
                summary="Check the whole desk file and put it in force", roles=ADMINISTERING,
                body=more.DeskWish, returns=more.DeskCheck, problems=(404, 409),
            ),
        )  # fmt: skip


def _keys(asked: Asked, duties: Duties, site: str | None) -> list[str]:
    """Return the sites that are asked for and seen."""
    if site is None:
        return [each.key for each in duties.sites if sees(asked.identity, each.key)]
    if not sees(asked.identity, site):
        raise NotFound(f"the rota has no site {site!r}")
    return [site]


def person_of(row: PersonView) -> r.Person:
    return r.Person(
        id=row.id, key=row.key or None, name=row.name, department=row.department,
        site=row.site or None, role=row.role, vip=row.vip, language=row.language,
        numbers=row.numbers, mails=row.mails,
    )  # fmt: skip


def _duty(duty: Duty) -> r.DutyItem:
    return r.DutyItem(
        site=duty.site, tier=duty.tier, why=duty.why, since=duty.since, until=duty.until,
        engineer=r.Assignee(key=duty.engineer.key, name=duty.engineer.name), team=duty.team,
        instead_of=duty.instead_of, causes=tuple(map(str, duty.causes)),
    )  # fmt: skip


def _version(row: Version, text: str | None) -> more.DeskVersion:
    return more.DeskVersion(
        number=row.number, at=row.at, actor=row.actor, source=row.source, note=row.note, text=text
    )


def _checked(draft: Draft, number: int) -> more.DeskCheck:
    return more.DeskCheck(
        right=draft.is_right,
        saved=number or None,
        changes=tuple(
            f"{each.section} {(each.after or each.before or {}).get('key', '')}".strip()
            for each in draft.changes
        ),
        faults=tuple(
            more.DeskFault(
                where=".".join(filter(None, (each.section, each.name, each.field))), what=each.text
            )
            for each in draft.faults
        ),
        holes=tuple(
            more.DeskHole(site=each.site, tier=each.tier, since=each.since, until=each.until)
            for each in draft.effect.holes
        ),
    )
