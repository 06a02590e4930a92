"""The REST API: tickets, contacts, duty, ledger and status for other systems."""

import mimetypes
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Final, Protocol
from urllib.parse import quote
from uuid import uuid4
from zoneinfo import ZoneInfo

from aiohttp import web

from contactd.clock import Clock
from contactd.errors import NotFound, PermanentFailure
from contactd.httpd import HTTPD, Identity, Problem, Refused, Route
from contactd.log import get_logger
from contactd.routing import promises
from contactd.routing.clocks import Breached, explain, spent_at
from contactd.routing.clocks import Clock as TicketClock
from contactd.routing.oncall import Duties
from contactd.routing.terms import Terms
from contactd.service import HealthState
from contactd.signals import Signals
from contactd.store.accounts import Accounts
from contactd.store.acts import Acts
from contactd.store.apiviews import ApiViews
from contactd.store.blobs import Blobs
from contactd.store.dutyrequests import DutyRequests
from contactd.store.engine import Database
from contactd.store.idempotency import Idempotency
from contactd.store.ledger import LedgerDay
from contactd.store.lists import Filters, Lists, Sort
from contactd.store.ticketviews import Head, TicketViews
from contactd.store.uploads import Uploads
from contactd.store.views import (
    AttachmentView,
    ContactFilters,
    ContactView,
    DispatchView,
    MessageView,
    TextView,
    TicketFilters,
    TicketView,
    Views,
)
from contactd.store.webhooks import Webhooks
from contactd.tickets import phone
from contactd.tickets.contact import CallFacts, Contact, Filed, MailFacts, Medium
from contactd.tickets.describing import About, missing
from contactd.tickets.states import OPEN, Action
from contactd.web import openapi
from contactd.web import resources as r
from contactd.web.access import (
    ACTING,
    ADDRESSED,
    EVERYBODY,
    LISTENING,
    PERSONAL,
    Right,
    may,
    sees,
)
from contactd.web.actions import Actions, Mails, Work, actor_of
from contactd.web.api_admin import AdminApi
from contactd.web.api_desk import DeskApi, People, person_of
from contactd.web.api_scope import Scope
from contactd.web.api_webhooks import WebhookApi
from contactd.web.board import masked
from contactd.web.deskchanges import DeskChanges
from contactd.web.endpoints import PREFIX, Answer, Asked, Edge, Endpoint, Rates, bad_query, paged
from contactd.web.hooks import Guard
from contactd.web.live import Live
from contactd.web.ticketfiles import begins
from contactd.web.timeline import infected, is_sound
from contactd.web.troubles import trouble
from contactd.web.writing import Writing

log = get_logger()

LEDGER_DAYS: Final = timedelta(days=6)
LONGEST_LEDGER: Final = timedelta(days=366)
# A browser may show these in place; anything else it must save, so that no file runs as a page.
SHOWN_IN_PLACE: Final = ("audio/", "image/png", "image/jpeg")
_TICKET_QUERY: Final = r.TicketQuery.model_fields
# Asked for these, tickets are found as the workbench's list finds them.
_OF_LISTS: Final = (
    "q", "priority", "assignee", "team", "medium", "due", "vip", "category", "sort",
)  # fmt: skip


class Tickets(Work, People, Protocol):
    """What the API does to tickets; `TicketService` has it."""

    async def receive(self, contact: Contact) -> Filed: ...

    async def act(self, number: str, action: Action, *, actor: str, note: str = "") -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    requests_per_minute: int = 1200
    upload_bytes: int = 20 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """The handlers.

    `duties` reads who is on duty around an instant (None: now), `terms` what is promised, `zone`
    is the service's (IANA name). `writing` None: nobody can be sent a text; `mails` None: nor a
    mail. `extra` has the end points of other modules, `guard` says where webhooks may go.
    """

    views: Views
    tickets: Tickets
    blobs: Blobs
    duties: Callable[[datetime | None], Awaitable[Duties]]
    live: Live
    clock: Clock
    zone: str
    terms: Callable[[], Awaitable[Terms]]
    database: Database
    signals: Signals
    writing: Writing | None = None
    mails: Mails | None = None
    accounts: Accounts | None = None
    changes: DeskChanges | None = None
    guard: Guard = field(default_factory=Guard)
    limits: Limits = field(default_factory=Limits)
    extra: Sequence[Endpoint] = ()
    scope: Scope = field(init=False)
    lists: Lists = field(init=False)
    uploads: Uploads = field(init=False)

    def __post_init__(self) -> None:
        for name, part in (
            ("scope", Scope(TicketViews(self.database, self.clock))),
            ("lists", Lists(self.database, self.clock)),
            ("uploads", Uploads(self.database, self.clock, self.signals)),
        ):
            object.__setattr__(self, name, part)

    # Tickets

    async def list_tickets(self, asked: Asked) -> r.Page[r.TicketSummary]:
        query = asked.queried(r.TicketQuery)
        if any(getattr(query, name) != _TICKET_QUERY[name].default for name in _OF_LISTS):
            return await self._search(query, asked.identity)
        filters = TicketFilters(
            states=query.state,
            site=query.site,
            requester=_address(query.requester),
            opened_from=query.opened_from,
            opened_to=query.opened_to,
            sites=asked.identity.sites,
        )
        page = await paged(self.views.tickets_page(filters, query.cursor, query.limit))
        return r.Page[r.TicketSummary](
            items=tuple(map(_summary, page.items)), next=page.next_cursor or None
        )

    async def _search(self, query: r.TicketQuery, identity: Identity) -> r.Page[r.TicketSummary]:
        """Return tickets as the workbench's list has them."""
        if query.requester is not None:
            raise bad_query("requester: alone, or look for the number with q")
        filters = Filters(
            words=query.q,
            states=query.state or (OPEN if query.sort else ()),
            site=query.site,
            priorities=query.priority,
            assignee=query.assignee,
            team=query.team,
            medium=query.medium,
            due=query.due,
            vip=query.vip,
            category=query.category or "",
            opened_from=query.opened_from,
            opened_to=query.opened_to,
        )
        page = await paged(
            self.lists.page(
                filters, sites=identity.sites, sort=query.sort or Sort.NEWEST,
                cursor=query.cursor, limit=query.limit,
            )
        )  # fmt: skip
        return r.Page[r.TicketSummary](
            items=tuple(_summary(each.ticket) for each in page.items),
            next=page.next_cursor or None,
        )

    async def get_ticket(self, asked: Asked) -> r.TicketDetail:
        found = await self.views.ticket(asked.part("number"))
        head = await self.scope.views.head(found.ticket.number)
        promised = await self.terms()
        return r.TicketDetail(
            **_ticket(found.ticket),
            requester=person_of(found.requester),
            impact=found.impact,
            urgency=found.urgency,
            priority_reason=found.priority_reason,
            contacts=tuple(map(_contact, found.contacts)),
            clocks=tuple(
                _service_clock(each, self.clock.now())
                for each in promises.clocks(found.journal, promised)
            ),
            journal=tuple(
                r.JournalEntry.model_validate(
                    {name: getattr(entry, name) for name in r.JournalEntry.model_fields}
                )
                for entry in found.journal
            ),
            dispatches=tuple(map(_dispatch, found.dispatches)),
            messages=tuple(
                _message(each, has_address=asked.identity.role in ADDRESSED)
                for each in found.messages
            ),
            standard=_standard(head, any("impact" in each.body for each in found.journal)),
            merged_into=head.merged_into,
        )

    async def open_ticket(self, asked: Asked) -> Answer:
        """File a contact of medium web; the ticket may be an older one that it joins."""
        sent = asked.sent(r.OpenTicket)
        own = sent.external_id or asked.key or uuid4().hex
        filed = await self.tickets.receive(
            Contact(
                medium=Medium.WEB,
                external_id=f"{asked.identity.name}:{own}"[:200],  # two systems may count alike
                received_at=self.clock.now(),
                from_value=sent.from_,
                from_name=sent.name,
                text=sent.text,
            )
        )
        url = f"{PREFIX}/tickets/{filed.ticket}"
        opened = r.Opened(
            ticket=filed.ticket, contact_id=filed.contact_id,
            opened=filed.opened and filed.new_contact, joined=filed.joined, url=url,
        )  # fmt: skip
        return Answer(value=opened, status=201 if filed.new_contact else 200, location=url)

    async def act(self, asked: Asked) -> r.TicketDetail:
        number, note = asked.part("number"), asked.sent(r.ActionNote).note
        try:
            action = Action(asked.part("action"))
        except ValueError:
            raise NotFound(f"there is no such action; there are {', '.join(Action)}") from None
        await self.tickets.act(number, action, actor=actor_of(asked.identity), note=note)
        return await self.get_ticket(asked)

    async def add_attachment(self, asked: Asked) -> Answer:
        """Take a file as it is: the body is its bytes."""
        name = asked.queried(r.UploadQuery).name
        if not name.isprintable() or "/" in name or "\\" in name:
            raise bad_query("name: of a file, without folders")
        if not asked.file:
            raise PermanentFailure("there is nothing in the file")
        kind = asked.request.content_type
        blob = await self.blobs.put_bytes(asked.file, media_type=_known_type(kind, name), name=name)
        found, contact = await self.uploads.add(
            asked.part("number"), blob, actor=actor_of(asked.identity)
        )
        shown = await self.views.attachment(found)
        return Answer(
            value=r.Uploaded(attachment=_attachment(shown), contact_id=contact),
            status=201,
            location=f"{PREFIX}/attachments/{found}",
        )

    # Contacts

    async def list_contacts(self, asked: Asked) -> r.Page[r.ContactItem]:
        query = asked.queried(r.ContactQuery)
        filters = ContactFilters(
            ticket=query.ticket,
            medium=query.medium,
            received_from=query.received_from,
            received_to=query.received_to,
            sites=asked.identity.sites,
        )
        page = await paged(self.views.contacts_page(filters, query.cursor, query.limit))
        return r.Page[r.ContactItem](
            items=tuple(map(_contact, page.items)), next=page.next_cursor or None
        )

    async def get_contact(self, asked: Asked) -> r.ContactItem:
        return _contact(await self.views.contact(asked.id("contact")))

    async def get_attachment(self, asked: Asked) -> web.StreamResponse:
        """Send the file, or the range that is asked for (RFC 9110 section 14)."""
        found, contact = await self.scope.views.file(asked.id("attachment"))
        if infected(contact):
            raise NotFound("this file has a virus")
        if is_sound(found) and not may(asked.identity, Right.LISTEN):
            raise Refused(Problem(status=403, detail="a recording: not with this role"))
        path = self.blobs.path(found.sha256)
        if not path.is_file():
            log.error("attachment.lost", attachment=found.id)
            raise NotFound("the file of this attachment is gone: restore it from the backup")
        log.info("attachment.sent", attachment=found.id, kind=found.kind, user=asked.identity.name)
        if is_sound(found) and begins(asked.request):
            await Acts(self.database, self.clock).note(
                actor=actor_of(asked.identity), action="recording.played", subject=contact.ticket,
                body={"contact": contact.id, "kind": found.kind},
            )  # fmt: skip
        return web.FileResponse(path, headers=_file_headers(found))

    # Everything else

    async def get_ledger(self, asked: Asked) -> r.Page[r.LedgerItem]:
        query = asked.queried(r.LedgerQuery)
        last = query.to or self._today()
        try:
            first = query.from_ or last - LEDGER_DAYS
        except OverflowError:
            raise bad_query("to is too far away") from None
        if not timedelta(0) <= last - first <= LONGEST_LEDGER:
            raise bad_query(f"from must be at most {LONGEST_LEDGER.days} days before to")
        return r.Page[r.LedgerItem](
            items=tuple(map(_ledger_day, await self.views.ledger(first, last)))
        )

    async def get_status(self, asked: Asked) -> r.StatusReport:
        scene = await self.live.scene()
        worst = _worst([health.state for health in scene.health])
        return r.StatusReport(
            at=scene.at,
            phase=asked.request.app[HTTPD].phase,
            state=worst,
            components=tuple(
                r.Component(
                    component=health.component, state=health.state, detail=health.detail,
                    figures=dict(health.figures),
                )
                for health in scene.health
            ),
            calls=tuple(
                r.CallNow(
                    call_id=call.call_id, stage=call.stage, since=call.since,
                    arrived_at=call.arrived_at, caller=masked(call.caller), site=call.site,
                    ticket=call.ticket, engineer=call.engineer,
                )
                for call in scene.board.calls
                if sees(asked.identity, call.site)
            ),
            tickets_today=dict(scene.board.tickets.states),
        )  # fmt: skip

    def _today(self) -> date:
        return self.clock.now().astimezone(ZoneInfo(self.zone)).date()

    def endpoints(self) -> Sequence[Endpoint]:
        return (
            *Actions(
                tickets=self.tickets, show=self.get_ticket, writing=self.writing,
                mails=self.mails, sees_ticket=self.scope.sees_ticket,
                sees_person=self.scope.sees_person,
            ).endpoints(),
            *DeskApi(
                views=self.views, pages=ApiViews(self.database), scope=self.scope,
                tickets=self.tickets, duties=self.duties, clock=self.clock, changes=self.changes,
                requests=DutyRequests(self.database, self.clock),
            ).endpoints(),
            *AdminApi(
                accounts=self.accounts or Accounts(self.database, self.clock),
                acts=Acts(self.database, self.clock), pages=ApiViews(self.database),
            ).endpoints(),
            *WebhookApi(
                webhooks=Webhooks(self.database, self.clock), guard=self.guard
            ).endpoints(),
            *self.extra,
            Endpoint(
                method="GET", path="/tickets", tag="tickets", handler=self.list_tickets,
                summary="Tickets, the latest opened first", roles=PERSONAL,
                query=r.TicketQuery, returns=r.Page[r.TicketSummary],
            ),
            Endpoint(
                method="POST", path="/tickets", tag="tickets", handler=self.open_ticket,
                summary="Open a ticket, or add to the requester's open one", roles=PERSONAL,
                body=r.OpenTicket, returns=r.Opened, statuses=(200, 201), twice_is_once=True,
            ),
            Endpoint(
                method="GET", path="/tickets/{number}", tag="tickets", handler=self.get_ticket,
                summary="One ticket with everything about it", roles=PERSONAL,
                returns=r.TicketDetail, problems=(404,),
            ),
            Endpoint(
                method="POST", path="/tickets/{number}/actions/{action}", tag="tickets",
                handler=self.act, roles=ACTING, body=r.ActionNote, returns=r.TicketDetail,
                summary=f"Move a ticket along its life cycle: {', '.join(Action)}",
                problems=(404, 409),
            ),
            Endpoint(
                method="POST", path="/tickets/{number}/attachments", tag="tickets",
                handler=self.add_attachment, roles=ACTING, query=r.UploadQuery,
                returns=r.Uploaded, statuses=(201,), takes_file=True, problems=(404, 413),
                summary="Add a file to what the ticket was opened with: the body is the file",
            ),
            Endpoint(
                method="GET", path="/contacts", tag="contacts", handler=self.list_contacts,
                summary="Contacts, the latest received first", roles=PERSONAL,
                query=r.ContactQuery, returns=r.Page[r.ContactItem],
            ),
            Endpoint(
                method="GET", path="/contacts/{contact}", tag="contacts", handler=self.get_contact,
                summary="One contact", roles=PERSONAL, returns=r.ContactItem, problems=(404,),
            ),
            Endpoint(
                method="GET", path="/attachments/{attachment}", tag="contacts", returns=None,
                handler=self.get_attachment, roles=PERSONAL, statuses=(200, 206),
                description=f"Recordings: {', '.join(sorted(LISTENING))}.",
                summary="A recording or another file; ranges are possible", problems=(404, 416),
            ),
            Endpoint(
                method="GET", path="/ledger", tag="operations", handler=self.get_ledger,
                summary="What came in outside against the contacts, by day", roles=EVERYBODY,
                query=r.LedgerQuery, returns=r.Page[r.LedgerItem],
            ),
            Endpoint(
                method="GET", path="/status", tag="operations", handler=self.get_status,
                summary="Components, calls now, tickets today", roles=EVERYBODY,
                returns=r.StatusReport,
            ),
        )  # fmt: skip


def routes(api: Api) -> Iterable[Route]:
    endpoints = api.endpoints()
    described = openapi.document(endpoints)
    edge = Edge(
        rates=Rates(api.limits.requests_per_minute),
        checks=api.scope.checks(),
        keys=Idempotency(api.database, api.clock),
        upload_bytes=api.limits.upload_bytes,
    )

    async def describe(request: web.Request) -> web.Response:
        return web.json_response(described)

    return (
        *(endpoint.route(edge) for endpoint in endpoints),
        Route(method="GET", path=f"{PREFIX}/openapi.json", handler=describe, roles=None),
    )


def _address(value: str | None) -> str | None:
    """Return an address as the database has it, from the forms that people write."""
    if value is None or "@" in value:
        return value.strip().lower() if value else None
    return phone.address(value) or value


def _worst(states: Sequence[HealthState]) -> HealthState:
    order = list(HealthState)
    return max(states, key=order.index, default=HealthState.UP)


# Rows to resources


def _ticket(row: TicketView) -> dict[str, object]:
    return {
        "number": row.number,
        "title": row.title,
        "state": row.state,
        "priority": row.priority,
        "category": row.category,
        "system": row.system,
        "team": row.team,
        "site": row.site or None,
        "assignee": r.Assignee(key=row.engineer, name=row.engineer_name) if row.engineer else None,
        "opened_at": row.opened_at,
        "acknowledged_at": row.acknowledged_at,
        "closed_at": row.closed_at,
        "last_contact_at": row.last_contact_at,
        "updated_at": row.updated_at,
    }


def _dispatch(row: DispatchView) -> r.DispatchItem:
    return r.DispatchItem(
        number=row.number, state=row.state.value, proved=row.is_proved, updated_at=row.updated_at,
        engineer=r.Assignee(key=row.engineer, name=row.engineer_name),
    )  # fmt: skip


def _message(row: MessageView, *, has_address: bool) -> r.Message:
    return r.Message(
        medium=row.medium, recipient=row.recipient, name=row.name,
        address=row.address if has_address else None, reason=row.reason, state=row.state,
        created_at=row.created_at, updated_at=row.updated_at,
        text=_text(row.text) if row.text is not None else None,
    )  # fmt: skip


def _text(row: TextView) -> r.TextDelivery:
    return r.TextDelivery.model_validate(
        {
            "gateway": row.gateway, "segments": row.segments, "delivery": row.delivery,
            "error": row.error, "trouble": trouble(row.gateway, row.error), "at": row.handed_at,
        }
    )  # fmt: skip


def _service_clock(clock: TicketClock, now: datetime) -> r.ServiceClock:
    return r.ServiceClock(
        metric=clock.metric.value,
        state=clock.state.value,
        started_at=clock.started_at,
        entry=clock.entry,
        goal_s=_whole_s(clock.goal),
        spent_s=_whole_s(spent_at(clock, now)),
        due_at=clock.due_at,
        provisional=clock.provisional,
        stopped_at=clock.stopped_at,
        breached_at=promises.breached_at(clock, now),
        breach_stands=clock.breached is Breached.STANDS,
        segments=tuple(
            r.Segment(
                started_at=row.since,
                ended_at=row.until,
                running=row.running,
                reason=row.reason,
                entry=row.entry,
                goal_s=_whole_s(row.goal),
                calendar=row.calendar,
                worked_s=_whole_s(row.worked),
            )
            for row in explain(clock, UTC, at=now)
        ),
    )


def _whole_s(length: timedelta) -> int:
    return round(length.total_seconds())


def _summary(row: TicketView) -> r.TicketSummary:
    return r.TicketSummary.model_validate(
        _ticket(row)
        | {
            "requester": r.Requester(id=row.requester_id, name=row.requester, vip=row.vip),
            "caller": row.caller,
        }
    )


def _standard(head: Head, has_impact: bool) -> r.Standard:
    known, requester = head.standard, head.requester
    about = About(
        name=requester.name, department=requester.department,
        has_phone=bool(requester.numbers), has_mail=bool(requester.mails),
        site=head.ticket.site, title=head.ticket.title, system=head.ticket.system,
        has_picture=head.has_picture, has_impact=has_impact,
    )  # fmt: skip
    return r.Standard(
        what=known.what, happened_at=known.happened_at, device=known.device,
        version=known.version, error=known.error, impact=known.impact, wished=known.wished,
        missing=tuple(each.value for each in missing(known, about)),
    )  # fmt: skip


def _known_type(kind: str, name: str) -> str:
    """Return the media type that a file was sent as, or one guessed from its name."""
    if kind not in ("", "application/octet-stream") and len(kind) <= 80 and kind.count("/") == 1:
        return kind
    return mimetypes.guess_type(name)[0] or "application/octet-stream"


def _contact(row: ContactView) -> r.ContactItem:
    return r.ContactItem(
        id=row.id, ticket=row.ticket, medium=row.medium, external_id=row.external_id,
        direction=row.direction, source=row.source, received_at=row.received_at,
        from_=row.from_value, from_name=row.from_name, to=row.to_value, outcome=row.outcome,
        text=row.text, call=_call(row.call) if row.call else None,
        mail=_mail(row.mail) if row.mail else None,
        attachments=tuple(map(_attachment, row.attachments)),
    )  # fmt: skip


def _mail(facts: MailFacts) -> r.Mail:
    return r.Mail(
        writer=facts.writer, subject=facts.subject, message_id=facts.message_id, to=facts.to,
        cc=facts.cc, checks=dict(facts.checks), folds=facts.folds, notes=facts.notes,
    )  # fmt: skip


def _call(facts: CallFacts) -> r.Call:
    return r.Call(
        pbx=facts.pbx, did=facts.did, final=facts.final, stage=facts.stage, queue=facts.queue,
        queued_at=facts.queued_at, answered_at=facts.answered_at, ended_at=facts.ended_at,
        waited_s=_seconds(facts.waited), talked_s=_seconds(facts.talked),
        legs=tuple(
            r.Leg(engineer=leg.engineer, answered_at=leg.answered_at, ended_at=leg.ended_at)
            for leg in facts.legs
        ),
        passed_by=facts.passed_by, end_reason=facts.end_reason, hangup_cause=facts.hangup_cause,
        keys=facts.keys,
    )  # fmt: skip


def _seconds(length: timedelta | None) -> float | None:
    return None if length is None else length.total_seconds()


def _attachment(row: AttachmentView) -> r.Attachment:
    return r.Attachment(
        id=row.id, kind=row.kind, url=f"{PREFIX}/attachments/{row.id}",
        media_type=row.media_type, size_bytes=row.size_bytes, name=row.name,
    )  # fmt: skip


def _file_headers(row: AttachmentView) -> dict[str, str]:
    place = "inline" if row.media_type.startswith(SHOWN_IN_PLACE) else "attachment"
    name = row.name if row.name.isprintable() else "file"
    return {
        "Content-Type": _media_type(row),
        "Content-Disposition": f"{place}; filename*=UTF-8''{quote(name, safe='')}",
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "Cache-Control": "private, no-cache",
    }


def _media_type(row: AttachmentView) -> str:
    """Return a media type that cannot break out of its header."""
    known = row.media_type
    if known.isascii() and known.isprintable() and known.count("/") == 1:
        return known
    return mimetypes.guess_type(row.name)[0] or "application/octet-stream"


def _ledger_day(row: LedgerDay) -> r.LedgerItem:
    return r.LedgerItem(
        day=row.day, medium=row.medium, source=row.source, outside=row.outside,
        contacts=row.contacts, balanced=row.balanced, missing=row.missing, extra=row.extra,
        repaired=row.repaired, computed_at=row.computed_at,
    )  # fmt: skip
