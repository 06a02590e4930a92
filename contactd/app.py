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
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from contactd import log as logging
from contactd.board import DeskBoard
from contactd.calendar_feeds import CalendarFeeds
from contactd.clock import Clock, SystemClock
from contactd.core import core, policy
from contactd.errors import ConfigurationError
from contactd.httpd import Httpd
from contactd.log import get_logger
from contactd.mail.acting import Acting
from contactd.mail.dkim_sign import signer
from contactd.mail.ledger import SPOOL, spool_reader
from contactd.mail.listeners import Listener
from contactd.mail.outgoing import Letterhead, Mails
from contactd.mail.receiving import Receiving
from contactd.mail.scanning import Scanning
from contactd.mail.templates import read_letters
from contactd.mail.workers import Parsers
from contactd.metrics import LOOP_LAG
from contactd.routing import deskfile
from contactd.routing.notify import Notifier
from contactd.service import Health, Service
from contactd.settings import Settings
from contactd.signals import Signals, Topic
from contactd.sms.acting import Acting as TextActing
from contactd.sms.gateways import Site, ways
from contactd.sms.receiving import Receiving as TextReceiving
from contactd.sms.sending import Sending
from contactd.sms.sip import SendAction
from contactd.store import cursors, desk
from contactd.store.accounts import Accounts
from contactd.store.blobs import Blobs
from contactd.store.calls import Calls
from contactd.store.duty import DutyKeeper, LastDuties
from contactd.store.engine import Database, upgrade
from contactd.store.holidays import CalendarWatch
from contactd.store.keys import Keys
from contactd.store.ledger import Ledger
from contactd.store.mails import Mails as MailStore
from contactd.store.outbox import Handlers, Relay
from contactd.store.texts import Texts as TextStore
from contactd.store.views import Views
from contactd.telephony.intake import Intake
from contactd.telephony.ivr import Ivr
from contactd.telephony.pbx import Pbx, Shared
from contactd.telephony.recordings import Recordings
from contactd.telephony.service import Telephony
from contactd.telephony.voice import Voice
from contactd.tickets.contact import Contact, Filed, Medium
from contactd.tickets.events import CallEnded, MailDue, TextDue
from contactd.web import api, login, maillinks, mailpage, status, textpage, ticketpage
from contactd.web import feeds as calendars
from contactd.web.i18n import Language
from contactd.web.live import Live
from contactd.web.pages import Pages, static_routes
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
    """Loads the desk file, if one is configured, once the database is open."""

    name = "desk-file"

    def __init__(self, path: Path | None, database: Database, signals: Signals) -> None:
        # Read before any socket opens: its errors are the configuration's.
        self._desk = deskfile.read(path) if path is not None else None
        self._database = database
        self._signals = signals

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        if self._desk is not None:
            loaded = await desk.load_desk(self._database, self._desk, SystemClock())
            if loaded.changed:
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
    desk_file = DeskFile(settings.database.desk_file, database, signals)
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
    ivr = Ivr(
        tickets=tickets,
        intake=intake,
        page_answer=follow_up.answer,
        confirm_answer=follow_up.confirm,
        clock=clock,
        default_queue=settings.hotline.default_queue,
    )
    telephony = Telephony(agi=settings.agi, ivr=ivr, pbxs=pbxs)
    keys, mail_store = Keys(database, clock), MailStore(database, clock)
    head = _letterhead(settings, keys, mail_store)
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
    handlers: Handlers = {
        **parts.handlers,
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
    accounts = Accounts(database, clock)
    pages = Pages(
        name=settings.service.name, zone=zone, language=Language(settings.service.language)
    )
    keeper = DutyKeeper(database, clock, settings.service.zone)
    calendar = CalendarWatch(parts.terms, clock, zone=settings.service.zone)
    feeds = CalendarFeeds(database, clock, zone=settings.service.zone, signals=signals)
    watched: list[Service] = [
        database, *redis, keeper, calendar, feeds, relay, telephony, *intake_of_mail, sending,
    ]  # fmt: skip
    mails = [each for each in notifiers.values() if isinstance(each, Mails)]

    def health() -> list[Health]:
        services = [item for part in (*watched, live, httpd) for item in part.health()]
        return [*services, *(item for mail in mails for item in mail.health())]

    live = Live(
        board=DeskBoard(
            views=views,
            telephony=telephony,
            duties=duties,
            clock=clock,
            zone=settings.service.zone,
        ),
        health=health,
        draw=status.Status(pages).draw,
        signals=signals,
        clock=clock,
        max_streams=settings.http.max_streams,
    )
    httpd = Httpd(
        settings.http,
        routes=[
            *status.routes(settings.http, pages=pages, live=live, health=health),
            *login.routes(pages, accounts, clock),
            *ticketpage.routes(
                ticketpage.TicketPage(
                    pages=pages,
                    views=views,
                    terms=parts.terms,
                    clock=clock,
                    zone=settings.service.zone,
                    writing=writing,
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
            *mailpage.routes(mailpage.MailPage(mails=views)),
            *sending.routes(),
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
                    writing=writing,
                )
            ),
        ],
        accounts=accounts,
        static=static_routes(),
        page=pages.problem,
        on_stop=[live.end_streams],
        drain_s=min(settings.service.drain_s / 2, 5.0),
    )
    return [
        database, desk_file, *redis, keeper, calendar, feeds, sending, relay, telephony,
        *intake_of_mail, live, LoopWatch(), httpd,
    ]  # fmt: skip


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


def _letterhead(settings: Settings, keys: Keys, mails: MailStore) -> Letterhead:
    """Return what our mails have beside their words.

    Raises:
        ConfigurationError: the words or the key for signatures cannot be used.
    """
    mail, mailboxes = settings.mail, settings.smtp.mailboxes
    return Letterhead(
        key=keys.signing,
        mailbox=mailboxes[0] if mailboxes else "",
        public_url=settings.http.public_url,
        letters=read_letters(mail.letters_file),
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
