"""The composition root: builds every part in order, and runs them."""

import asyncio
import gc
import os
import signal
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from contactd import log as logging
from contactd.board import DeskBoard
from contactd.calendar_feeds import CalendarFeeds
from contactd.clock import Clock, SystemClock
from contactd.core import Core, core, policy
from contactd.deskcalls import Clicks, DeskCalls
from contactd.errors import ConfigurationError
from contactd.httpd import Httpd, Route
from contactd.log import get_logger
from contactd.mail.acting import Acting
from contactd.mail.dkim_sign import signer
from contactd.mail.ledger import SPOOL, spool_reader
from contactd.mail.letterbook import Letterbook
from contactd.mail.listeners import Listener
from contactd.mail.outgoing import Letterhead, Mails
from contactd.mail.receiving import Receiving
from contactd.mail.scanning import Scanning
from contactd.mail.templates import Letters
from contactd.mail.workers import Parsers
from contactd.metrics import LOOP_LAG
from contactd.remote import fbs, picture, turn
from contactd.remote.admissions import Admissions
from contactd.remote.broker import Broker
from contactd.remote.inviting import Inviting
from contactd.remote.package import helper_for
from contactd.remote.repeater import Repeater
from contactd.remote.sockets import Sockets
from contactd.routing.follow_up import FollowUp
from contactd.routing.notify import Notifier
from contactd.routing.words import Setting, letter
from contactd.service import Health, Service
from contactd.settings import Settings
from contactd.signals import Signals, Topic
from contactd.sms.acting import Acting as TextActing
from contactd.sms.gateways import Site, ways
from contactd.sms.receiving import Receiving as TextReceiving
from contactd.sms.sending import Sending
from contactd.sms.sip import SendAction
from contactd.store import cursors
from contactd.store.accounts import Accounts
from contactd.store.acts import Acts
from contactd.store.attempts import Attempts
from contactd.store.blobs import Blobs
from contactd.store.boardviews import BoardViews
from contactd.store.calls import Calls
from contactd.store.callviews import CallViews
from contactd.store.deskversions import DeskVersions, read_source
from contactd.store.duty import DutyKeeper, LastDuties
from contactd.store.dutyrequests import DutyRequests
from contactd.store.engine import Database, upgrade
from contactd.store.holidays import CalendarWatch
from contactd.store.keys import Keys
from contactd.store.ledger import Ledger
from contactd.store.lists import REMEMBER_S, Lists
from contactd.store.mails import Mails as MailStore
from contactd.store.outbox import Handlers, Relay
from contactd.store.portal import Portal
from contactd.store.remote import RemoteSessions
from contactd.store.search import SearchIndex
from contactd.store.texts import Texts as TextStore
from contactd.store.ticketviews import TicketViews
from contactd.store.views import Views
from contactd.store.webhooks import Webhooks
from contactd.telephony.dialling import Dialling, Limits
from contactd.telephony.helplink import HelpLink
from contactd.telephony.intake import Intake
from contactd.telephony.ivr import Ivr
from contactd.telephony.pbx import Pbx, Shared
from contactd.telephony.recordings import Recordings
from contactd.telephony.service import Telephony
from contactd.telephony.voice import Voice
from contactd.tickets.contact import Contact, Filed, Medium
from contactd.tickets.events import CallEnded, CodeDue, MailDue, RemoteDue, TextDue, TicketDue
from contactd.tickets.journal import REQUESTER
from contactd.web import (
    access,
    account,
    adminpage,
    admintexts,
    api,
    dutypage,
    listpage,
    login,
    maillinks,
    mailpage,
    peoplepage,
    remotepage,
    replaypage,
    sharepage,
    status,
    textpage,
    ticketacts,
    ticketfiles,
    ticketpage,
    usersadmin,
)
from contactd.web import feeds as calendars
from contactd.web.actions import Mails as ApiMails
from contactd.web.api_calls import CallsApi
from contactd.web.api_remote import RemoteApi
from contactd.web.callspage import CallsPage
from contactd.web.deskchanges import DeskChanges
from contactd.web.desklive import DeskLive
from contactd.web.hooks import Guard, Hooks
from contactd.web.i18n import Language
from contactd.web.live import Live
from contactd.web.pages import Pages, static_routes
from contactd.web.portal import Help
from contactd.web.portal import routes as portal_routes
from contactd.web.portalaccess import Codes, Door
from contactd.web.portalforms import Intake as PortalIntake
from contactd.web.sharepage import SharePage
from contactd.web.writing import TextPreview, Writing

log = get_logger()

TICK_S: Final = 0.05  # 20 Hz
WORST_OF_S: Final = 60.0


async def run(settings: Settings) -> int:
    """Run the daemon until SIGTERM or SIGINT; return its exit code (sysexits.h).

    Raises:
        ConfigurationError: something that was configured cannot be; no call was taken.
    """
    logging.configure(level=settings.service.log_level, json=settings.service.log_json)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    services = build(settings)
    if settings.database.migrate_on_start:
        await upgrade(settings.database_url)
    try:
        await serve(services, stop, grace=timedelta(seconds=settings.service.drain_s))
    except TimeoutError:
        log.warning("daemon.drain_cut_short", after_s=settings.service.drain_s)
    except BaseExceptionGroup as failures:
        # What was thrown into a part that was closing says less than what broke first.
        raise _first(failures) from failures
    log.info("daemon.stopped")
    return os.EX_OK


async def serve(services: Iterable[Service], stop: asyncio.Event, *, grace: timedelta) -> None:
    """Run `services` until `stop` is set or one of them breaks.

    They are opened in order and closed in reverse: list what others lean on first and what takes
    new work last, and no request ever meets a part that is already gone.

    Raises:
        ExceptionGroup: a service broke; the others were closed first. The process should exit
            non-zero and be started again: recovery and start are the same code.
        TimeoutError: draining took longer than `grace`; what was left has been cancelled.
    """
    async with asyncio.timeout(None) as deadline, AsyncExitStack() as opened:
        for service in services:
            await opened.enter_async_context(service.running())
            log.info("service.started", service=service.name)
        # What is there now stays: the collector need not look at it again (with all of it, one
        # collection stops the loop for longer than 0.1 s).
        gc.collect()
        gc.freeze()
        log.info("daemon.ready")
        await stop.wait()
        log.info("daemon.stopping")
        deadline.reschedule(asyncio.get_running_loop().time() + grace.total_seconds())


class LoopWatch:
    """A 20 Hz ticker: its worst lateness of the last minute is a metric."""

    name = "loop"

    def __init__(self) -> None:
        # (when, lateness in seconds), lateness decreasing: only what no later tick has outdone.
        self._worst: deque[tuple[float, float]] = deque()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            ticker = tasks.create_task(self._tick(), name="loop-watch")
            yield
            ticker.cancel()

    def health(self) -> list[Health]:
        return []

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + TICK_S
            await asyncio.sleep(TICK_S)
            now = loop.time()
            while self._worst and self._worst[-1][1] <= now - due:
                self._worst.pop()
            self._worst.append((now, now - due))
            while self._worst[0][0] < now - WORST_OF_S:
                self._worst.popleft()
            LOOP_LAG.set(self._worst[0][1])


class DeskFile:
    """Loads the desk file, if one is configured and has changed, once the database is open."""

    name = "desk-file"

    def __init__(self, path: Path | None, versions: DeskVersions, signals: Signals) -> None:
        # Read before any socket opens: its errors are the configuration's.
        self._source = read_source(path) if path is not None else None
        self._versions = versions
        self._signals = signals

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        if self._source is not None:
            loaded = await self._versions.take_file(self._source, only_if_new=True)
            if loaded is not None and loaded.changed:
                self._signals.raise_(Topic.ROSTER)
        yield

    def health(self) -> list[Health]:
        return []


def build(settings: Settings) -> list[Service]:
    """Return every part, in the order in which they open.

    Raises:
        ConfigurationError: a part refuses its settings.
    """
    clock = SystemClock()
    signals = Signals()
    database = Database(settings.database_url, clock=clock)
    versions = DeskVersions(database, clock)
    desk_file = DeskFile(settings.database.desk_file, versions, signals)
    letterbook = Letterbook(versions, settings.mail.letters_file, service=settings.service.name)
    duties = LastDuties(database, clock)

    notifiers: dict[Medium, Notifier] = {}
    parts = core(
        settings,
        database=database,
        clock=clock,
        signals=signals,
        duties=duties,
        notifiers=notifiers,
    )
    tickets, follow_up = parts.tickets, parts.follow_up
    intake = Intake(tickets.receive)
    ledger = Ledger(database, clock, settings.service.zone)
    shared = Shared(
        tickets=tickets,
        intake=intake,
        duties=duties,
        load_cursor=partial(cursors.position, database),
        settle=ledger.settle,
        call_outcome=follow_up.outcome,
        clock=clock,
        signals=signals,
        zone=settings.service.zone,
    )
    pbxs = [Pbx(pbx, settings.hotline, shared) for pbx in settings.pbx]
    keys, mail_store = Keys(database, clock), MailStore(database, clock)
    head = _letterhead(settings, keys, mail_store, letterbook.letters)
    blobs = Blobs(settings.service.data_dir / "blobs")
    text_store = TextStore(database, clock)
    receiving = TextReceiving(
        receive=tickets.receive,
        outcome=follow_up.outcome,
        put=blobs.put_bytes,
        texts=text_store,
        make_way=database.make_way,
    )
    sending = Sending(
        ways(
            Site(
                settings=settings,
                inbox=receiving,
                clock=clock,
                pbx_texts=partial(_texts_of, pbxs),
                bookmark=partial(cursors.Bookmark, database),
            )
        ),
        texts=text_store,
        receiving=receiving,
        settle=ledger.settle,
        clock=clock,
        zone=settings.service.zone,
        most_per_hour=settings.sms.most_per_hour,
    )
    notifiers |= _notifiers(settings, pbxs, clock, head)
    if settings.sms.gateways:
        notifiers[Medium.TEXT] = sending

    calls = Calls(database, clock)
    recordings = Recordings(
        attachments=calls,
        put=blobs.put,
        roots={pbx.name: pbx.files_root for pbx in settings.pbx},
        clock=clock,
    )

    async def call_ended(event: CallEnded) -> None:
        contact = await calls.call(event.contact_id)
        if contact is not None:
            await recordings.keep(event, contact)

    acting = Acting(mails=mail_store, replies=parts.replying, messages=follow_up)
    text_acting = TextActing(
        texts=text_store,
        replies=parts.replying,
        messages=follow_up,
        country=policy(settings).home_country,
    )
    portal = Portal(database, clock, signals.raise_)
    remote = RemoteSessions(database, clock, keys.signing, signals.raise_, settings.remote)
    inviting = Inviting(
        sessions=remote, messages=follow_up, public_url=settings.http.public_url, clock=clock,
        has=notifiers.keys,
    )  # fmt: skip
    help_link = HelpLink(inviting, clock, country=policy(settings).home_country)
    ivr = Ivr(
        tickets=tickets,
        intake=intake,
        page_answer=follow_up.answer,
        confirm_answer=follow_up.confirm,
        clock=clock,
        default_queue=settings.hotline.default_queue,
        help_link=help_link if settings.remote.enabled else None,
    )
    telephony = Telephony(agi=settings.agi, ivr=ivr, pbxs=pbxs)
    hook_guard = Guard(networks=[ip_network(each) for each in settings.webhooks.networks])
    hooks = Hooks(Webhooks(database, clock), clock, hook_guard)
    handlers: Handlers = {
        **parts.handlers,
        TicketDue: remote.and_then(hooks.and_then(follow_up.ticket_due)),
        RemoteDue: remote.due,
        CodeDue: Codes(portal=portal, say=follow_up.say, key=keys.signing).due,
        CallEnded: call_ended,
        MailDue: acting.mail_due,
        TextDue: text_acting.text_due,
    }
    relay = Relay(database, handlers, clock, signals)
    intake_of_mail = _mail_intake(
        settings,
        receive=tickets.receive,
        known=mail_store,
        keys=keys,
        ledger=ledger,
        clock=clock,
        make_way=database.make_way,
    )

    async def preview(number: str, words: str) -> TextPreview:
        found = await follow_up.draft(number, words)
        quote = sending.quote(found)
        return TextPreview(
            text=quote.text,
            number=found.address,
            gateway=quote.way.name,
            encoding=quote.size.encoding.value,
            segments=quote.size.segments,
            left=quote.size.left,
            price=quote.way.settings.price,
            currency=quote.way.settings.currency,
        )

    writing = Writing(preview=preview, texts=follow_up) if settings.sms.gateways else None

    redis_url = settings.redis.url.get_secret_value()
    redis: list[Service] = []
    if redis_url:
        from contactd.redis_signals import RedisSignals

        redis.append(RedisSignals(signals, redis_url))

    zone = ZoneInfo(settings.service.zone)
    views = Views(database, clock)
    accounts, guard = Accounts(database, clock), Attempts(database, clock)
    acts = Acts(database, clock)
    pages = Pages(
        name=settings.service.name,
        zone=zone,
        language=Language(settings.service.language),
        cache=settings.service.data_dir / "cache" / "templates",
    )
    keeper = DutyKeeper(database, clock, settings.service.zone)
    calendar = CalendarWatch(parts.terms, clock, zone=settings.service.zone)
    feeds = CalendarFeeds(database, clock, zone=settings.service.zone, signals=signals)
    index = SearchIndex(database, clock, signals)
    admissions = Admissions(clock)
    broker = Broker(
        sessions=remote,
        signals=signals,
        clock=clock,
        settings=settings.remote,
        service=settings.service.name,
        folder=settings.service.data_dir / "remote",
        put=blobs.put,
        make_filter=picture.make_filter,
        make_recorder=picture.make_recorder,
        ice=lambda session: turn.ice_servers(settings.remote, session, clock.now()),
    )
    calls_in = [Repeater(broker, clock, settings.remote)] if _has_repeater(settings) else []
    remote_sockets = Sockets(
        broker=broker,
        admissions=admissions,
        clock=clock,
        public_url=settings.http.public_url,
        acting=access.ACTING,
        looking=access.DECIDING,
        sees=access.sees,
    )
    share = SharePage(
        pages=pages,
        sessions=remote,
        admit=lambda session: admissions.give(session, REQUESTER, "share"),
        cut=broker.stop,
        blobs=blobs,
        helper=helper_for,
        settings=settings.remote,
        public_url=settings.http.public_url,
        service=settings.service.name,
        hotline=settings.portal.hotline,
        clock=clock,
        zone=settings.service.zone,
    )

    async def invite_here(number: str, language: str) -> str:
        made = await remote.invite(number, actor=REQUESTER, language=language, medium="web")
        return f"{sharepage.PATH}/{made.code}"

    remote_api = RemoteApi(sessions=remote, invites=inviting, cut=broker.end)
    remote_panel = remotepage.Panel(
        sessions=remote, more=TicketViews(database, clock), invites=inviting
    )
    desk_live, desk_routes, calls_api = _workbench(
        settings, pbxs, shared, telephony=telephony, pages=pages, views=views, database=database
    )
    watched: list[Service] = [
        database, *redis, keeper, calendar, feeds, relay, telephony, *intake_of_mail, sending,
        index, hooks, desk_live, broker, *calls_in,
    ]  # fmt: skip
    mails = [each for each in notifiers.values() if isinstance(each, Mails)]

    def health() -> list[Health]:
        services = [item for part in (*watched, live, httpd) for item in part.health()]
        return [*services, *(item for mail in mails for item in mail.health())]

    board = DeskBoard(
        views=views,
        counts=BoardViews(database, settings.service.zone),
        telephony=telephony,
        duties=duties,
        clock=clock,
        zone=settings.service.zone,
    )
    live = Live(
        board=board,
        health=health,
        draw=status.Status(pages, settings.service.zone).draw,
        signals=signals,
        clock=clock,
        max_streams=settings.http.max_streams,
    )
    httpd = Httpd(
        settings.http,
        routes=[
            *status.routes(settings.http, pages=pages, live=live, health=health),
            *login.routes(
                login.Login(
                    pages=pages,
                    logins=accounts,
                    guard=guard,
                    acts=acts,
                    clock=clock,
                    key=keys.signing,
                    provider=_provider(settings, clock),
                )
            ),
            *account.routes(
                account.AccountPage(
                    pages=pages,
                    accounts=accounts,
                    guard=guard,
                    sites=views,
                    clock=clock,
                    service=settings.service.name,
                    public_url=settings.http.public_url,
                )
            ),
            *usersadmin.routes(
                usersadmin.UsersPage(pages=pages, accounts=accounts, sites=views, clock=clock),
                usersadmin.ActsPage(
                    pages=pages, acts=acts, clock=clock, zone=settings.service.zone
                ),
            ),
            *_ticket_routes(
                settings,
                parts,
                pages=pages,
                database=database,
                views=views,
                blobs=blobs,
                clock=clock,
                writing=writing,
                panel=remote_panel,
            ),
            *remotepage.routes(
                remotepage.RemotePages(
                    pages=pages,
                    views=views,
                    sessions=remote,
                    panel=remote_panel,
                    admits=admissions,
                    cut=broker.end,
                    blobs=blobs,
                    settings=settings.remote,
                    clock=clock,
                    zone=settings.service.zone,
                )
            ),
            *listpage.routes(
                listpage.ListHandlers(
                    pages=pages,
                    lists=Lists(database, clock, remember_s=REMEMBER_S),
                    views=views,
                    clock=clock,
                    zone=settings.service.zone,
                    progress=lambda: index.progress,
                )
            ),
            *textpage.routes(
                textpage.TextPage(
                    pages=pages,
                    texts=text_store,
                    views=views,
                    clock=clock,
                    zone=settings.service.zone,
                    has_gateways=bool(settings.sms.gateways),
                )
            ),
            *maillinks.routes(
                maillinks.MailLinks(pages=pages, answering=follow_up, key=keys.signing, clock=clock)
            ),
            *portal_routes(
                Help(
                    pages=pages,
                    settings=settings.portal,
                    door=Door(
                        portal=portal, settings=settings.portal, key=keys.signing, clock=clock
                    ),
                    intake=PortalIntake(portal=portal, blobs=blobs, settings=settings.portal),
                    portal=portal,
                    views=views,
                    tickets=tickets,
                    blobs=blobs,
                    terms=parts.terms,
                    clock=clock,
                    zone=settings.service.zone,
                    texts=bool(settings.sms.gateways),
                    invite=invite_here if settings.remote.enabled else None,
                )
            ),
            *replaypage.routes(
                replaypage.ReplayPage(
                    pages=pages,
                    sessions=remote,
                    blobs=blobs,
                    length_ms=fbs.length_ms,
                    clock=clock,
                    zone=settings.service.zone,
                )
            ),
            *sharepage.routes(share),
            *_administration(
                settings,
                pages,
                database,
                clock,
                letterbook,
                DeskChanges(database, versions, clock, signals),
            ),
            *mailpage.routes(mailpage.MailPage(mails=views)),
            *sending.routes(),
            *desk_routes,
            *remote_sockets.routes(),
            *calendars.routes(
                calendars.Calendars(
                    database=database,
                    tokens=accounts,
                    clock=clock,
                    zone=settings.service.zone,
                    language=settings.service.language,
                    host=urlsplit(settings.http.public_url).hostname or "contactd",
                )
            ),
            *api.routes(
                api.Api(
                    views=views,
                    tickets=tickets,
                    blobs=blobs,
                    duties=duties,
                    live=live,
                    clock=clock,
                    zone=settings.service.zone,
                    terms=parts.terms,
                    database=database,
                    signals=signals,
                    writing=writing,
                    mails=_mails(settings, follow_up),
                    accounts=accounts,
                    changes=DeskChanges(database, versions, clock, signals),
                    guard=hook_guard,
                    extra=[*calls_api.endpoints(), *remote_api.endpoints()],
                    limits=api.Limits(
                        requests_per_minute=settings.api.requests_per_minute,
                        upload_bytes=settings.api.max_upload_bytes,
                    ),
                )
            ),
        ],
        accounts=accounts,
        static=static_routes(),
        page=pages.problem,
        on_stop=[live.end_streams, desk_live.end_streams, broker.end_streams],
        drain_s=min(settings.service.drain_s / 2, 5.0),
    )
    return [
        database, desk_file, letterbook, *redis, keeper, calendar, feeds, sending, relay, telephony,
        *intake_of_mail, index, board, live, desk_live, hooks, broker, *calls_in,
        LoopWatch(),
        httpd,
    ]  # fmt: skip


def _workbench(  # noqa: PLR0913 - the composition root's words
    settings: Settings,
    pbxs: Sequence[Pbx],
    shared: Shared,
    *,
    telephony: Telephony,
    pages: Pages,
    views: Views,
    database: Database,
) -> tuple[DeskLive, list[Route], CallsApi]:
    """Return what keeps the workbench's pages live, and the pages and end points of calls."""
    clock, hotline, found = shared.clock, settings.hotline, CallViews(database)
    look = DeskCalls(telephony, shared.calling, clock)
    dialling = Dialling(
        place=shared.tickets.place_call,
        lines=pbxs,
        duties=shared.duties,
        calling=shared.calling,
        limits=Limits(per_hour=hotline.calls_per_hour, prefixes=hotline.call_prefixes),
        clock=clock,
        signals=shared.signals,
    )
    desk_live = DeskLive(
        pages=pages,
        look=look,
        reads=found,
        sites=views.sites,
        signals=shared.signals,
        clock=clock,
        max_streams=settings.http.max_streams,
    )
    calls = CallsPage(
        pages=pages,
        look=look,
        reads=found,
        sites=views.sites,
        names=views.names,
        call=Clicks(dialling),
        clock=clock,
    )
    calls_api = CallsApi(look=look, reads=found, call=Clicks(dialling))
    return desk_live, [*desk_live.routes(), *calls.routes()], calls_api


def _ticket_routes(  # noqa: PLR0913 - the composition root's words
    settings: Settings,
    parts: Core,
    *,
    pages: Pages,
    database: Database,
    views: Views,
    blobs: Blobs,
    clock: Clock,
    writing: Writing | None,
    panel: remotepage.Panel,
) -> list[Route]:
    """Return the pages of tickets and of the people whose they are."""
    more, zone = TicketViews(database, clock), settings.service.zone
    page = ticketpage.TicketPage(
        pages=pages,
        views=views,
        more=more,
        terms=parts.terms,
        clock=clock,
        zone=zone,
        writing=writing,
        has_mail=bool(settings.mail.host),
        has_pbx=bool(settings.pbx),
        panel=panel.standing if settings.remote.enabled else None,
    )
    acts = ticketacts.TicketActs(
        page=page, tickets=parts.tickets, writes=parts.follow_up, service=settings.service.name
    )
    people = peoplepage.PeoplePage(
        pages=pages, views=views, more=more, tickets=parts.tickets, clock=clock, zone=zone
    )
    return [
        *ticketpage.routes(page),
        *ticketacts.routes(acts),
        *remotepage.invite_routes(remotepage.Inviting(page=page, invites=panel.invites)),
        *peoplepage.routes(people),
        *ticketfiles.routes(
            ticketfiles.TicketFiles(more=more, blobs=blobs, acts=Acts(database, clock))
        ),
    ]


def _mail_intake(  # noqa: PLR0913 - the composition root's words
    settings: Settings,
    *,
    receive: Callable[[Contact], Awaitable[Filed]],
    known: MailStore,
    keys: Keys,
    ledger: Ledger,
    clock: Clock,
    make_way: Callable[[], None],
) -> list[Service]:
    """Return what takes mail and reads it; nothing if no mailbox is configured."""
    smtp, spool = settings.smtp, settings.service.data_dir / "mail" / SPOOL
    if not smtp.mailboxes:
        return []
    zone = ZoneInfo(settings.service.zone)
    receiving = Receiving(
        smtp,
        spool=spool_reader(settings.service.data_dir, day_of=lambda at: at.astimezone(zone).date()),
        parsers=Parsers(
            count=smtp.parsers,
            timeout=timedelta(seconds=smtp.parse_timeout_s),
            memory_bytes=smtp.parse_memory_bytes,
            blobs=settings.service.data_dir / "blobs",
            own_addresses=[*smtp.mailboxes, *filter(None, [settings.mail.sender])],
            nameserver=smtp.nameserver,
        ),
        scanning=Scanning(smtp),
        receive=receive,
        known=known,
        key=keys.signing,
        settle=ledger.settle,
        clock=clock,
        zone=settings.service.zone,
    )

    def on_kept() -> None:
        make_way()
        receiving.wake()

    listener = Listener(
        smtp,
        spool,
        on_kept=on_kept,
        log_level=settings.service.log_level,
        log_json=settings.service.log_json,
    )
    return [receiving, listener]


def _provider(settings: Settings, clock: Clock) -> login.Provider | None:
    """Return where else people log in, if anywhere.

    Raises:
        ConfigurationError: what is said of it is not enough.
    """
    if not settings.oidc.issuer:
        return None
    from contactd.web.oidc import Provider

    return Provider(settings.oidc, public_url=settings.http.public_url, clock=clock)


def _administration(  # noqa: PLR0913 - the composition root's words
    settings: Settings,
    pages: Pages,
    database: Database,
    clock: Clock,
    letterbook: Letterbook,
    changes: DeskChanges,
) -> Iterable[Route]:
    """Return the pages on which the desk file, its rota and the words of mails are edited."""
    zone, requests = settings.service.zone, DutyRequests(database, clock)
    yield from adminpage.routes(
        adminpage.AdminPage(pages=pages, changes=changes, requests=requests, clock=clock, zone=zone)
    )
    yield from dutypage.routes(
        dutypage.DutyPage(
            pages=pages,
            changes=changes,
            requests=requests,
            database=database,
            clock=clock,
            zone=zone,
            public_url=settings.http.public_url,
        )
    )
    yield from admintexts.routes(
        admintexts.AdminTexts(
            pages=pages,
            letters=letterbook,
            database=database,
            clock=clock,
            prompts=Path(__file__).parent.parent / "etc" / "prompts.toml",
            sounds=settings.hotline.sounds_dir,
            settings=tuple(
                (f"sms.{name}.signature", getattr(settings.sms, name).signature)
                for name in settings.sms.gateways
            ),
        )
    )


def _has_repeater(settings: Settings) -> bool:
    return settings.remote.enabled and settings.remote.repeater_port > 0


def _mails(settings: Settings, follow_up: FollowUp) -> ApiMails | None:
    """Return what the API writes mails with, None if nobody can be sent one."""
    if not settings.mail.host:
        return None

    async def preview(number: str, words: str, subject: str) -> tuple[str, str, str]:
        found = await follow_up.draft(number, words, Medium.MAIL, subject)
        written = letter(found, Setting(service=settings.service.name, can_reply=True))
        return found.address, written.subject, written.text

    return ApiMails(preview=preview, writes=follow_up)


def _letterhead(settings: Settings, keys: Keys, mails: MailStore, letters: Letters) -> Letterhead:
    """Return what our mails have beside their words.

    Raises:
        ConfigurationError: the key for signatures cannot be used.
    """
    mail, mailboxes = settings.mail, settings.smtp.mailboxes
    return Letterhead(
        key=keys.signing,
        mailbox=mailboxes[0] if mailboxes else "",
        public_url=settings.http.public_url,
        portal_days=settings.portal.link_days if settings.portal.enabled else 0,
        letters=letters,
        thread_of=mails.thread,
        sign=signer(
            selector=mail.dkim_selector, domain=mail.dkim_domain, key_file=mail.dkim_key_file
        )
        if mail.dkim_key_file is not None
        else None,
    )


def _texts_of(pbxs: Sequence[Pbx], name: str) -> SendAction:
    """Return what sends texts through a PBX.

    Raises:
        ConfigurationError: there is none of this name.
    """
    for pbx in pbxs:
        if pbx.name == name:
            return pbx.send_text
    raise ConfigurationError(f"sms.sip.pbx: there is no PBX called {name!r}")


def _notifiers(
    settings: Settings, pbxs: list[Pbx], clock: SystemClock, head: Letterhead
) -> dict[Medium, Notifier]:
    """Return what people can be told by, as far as it is configured."""
    found: dict[Medium, Notifier] = {Medium.CALL: Voice(pbxs)} if pbxs else {}
    if settings.mail.host:
        found[Medium.MAIL] = Mails(
            settings.mail, service=settings.service.name, clock=clock, letterhead=head
        )
    return found


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    found = failures.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found
