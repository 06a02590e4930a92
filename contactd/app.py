"""The composition root: builds every part in order, and runs them."""

import asyncio
import gc
import os
import signal
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from contactd import log as logging
from contactd.board import DeskBoard
from contactd.clock import SystemClock
from contactd.errors import TemporaryFailure
from contactd.httpd import Httpd
from contactd.log import get_logger
from contactd.metrics import LOOP_LAG
from contactd.routing import deskfile, promises
from contactd.routing.oncall import Rota
from contactd.service import Health, Service
from contactd.settings import Settings
from contactd.signals import Signals, Topic
from contactd.store import cursors, desk
from contactd.store.accounts import Accounts
from contactd.store.blobs import Blobs
from contactd.store.engine import Database, upgrade
from contactd.store.ledger import Ledger
from contactd.store.outbox import Relay
from contactd.store.paging import Paging
from contactd.store.views import Views
from contactd.telephony.intake import Intake
from contactd.telephony.ivr import Ivr
from contactd.telephony.pager import Pager
from contactd.telephony.pbx import Pbx, Shared
from contactd.telephony.recordings import Recordings
from contactd.telephony.service import Telephony
from contactd.tickets.events import CallEnded, PageDue
from contactd.tickets.model import TicketPolicy
from contactd.tickets.service import TicketService
from contactd.web import api, login, status
from contactd.web.i18n import Language
from contactd.web.live import Live
from contactd.web.pages import Pages, static_routes

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
        self.rota = self._desk.rota() if self._desk is not None else None
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


class LastRota:
    """Reads the rota; while the database is away the last one that was read goes on counting.

    Without it the queues' members would stay those of the moment when the database went away.
    """

    def __init__(self, database: Database, first: Rota | None) -> None:
        self._database = database
        self._last = first

    async def __call__(self) -> Rota:
        try:
            self._last = await desk.rota(self._database)
        except TemporaryFailure:
            if self._last is None:
                raise
        return self._last


def build(settings: Settings) -> list[Service]:
    """Return every part, in the order in which they open.

    Raises:
        ConfigurationError: a part refuses its settings.
    """
    clock = SystemClock()
    signals = Signals()
    database = Database(settings.database_url, clock=clock)
    desk_file = DeskFile(settings.database.desk_file, database, signals)
    rota = LastRota(database, desk_file.rota)

    tickets = TicketService(database.new_work, clock, policy(settings), on_commit=signals.raise_)
    intake = Intake(tickets.receive)
    ledger = Ledger(database, clock, settings.service.zone)
    shared = Shared(
        tickets=tickets,
        intake=intake,
        rota=rota,
        load_cursor=partial(cursors.position, database),
        settle=ledger.settle,
        clock=clock,
        signals=signals,
        zone=settings.service.zone,
    )
    pbxs = [Pbx(pbx, settings.hotline, shared) for pbx in settings.pbx]
    book = Paging(database, clock)
    pager = Pager(
        book=book,
        rota=rota,
        tickets=tickets,
        lines={pbx.name: pbx for pbx in pbxs},
        clock=clock,
        next_after=timedelta(seconds=settings.hotline.page_next_s),
        rounds=settings.hotline.page_rounds,
        again_after=timedelta(seconds=settings.hotline.page_again_s),
    )
    ivr = Ivr(
        tickets=tickets,
        intake=intake,
        page_answer=pager.answer,
        clock=clock,
        default_queue=settings.hotline.default_queue,
    )
    telephony = Telephony(agi=settings.agi, ivr=ivr, pbxs=pbxs)

    blobs = Blobs(settings.service.data_dir / "blobs")
    recordings = Recordings(
        attachments=book,
        put=blobs.put,
        roots={pbx.name: pbx.files_root for pbx in settings.pbx},
        clock=clock,
    )

    async def call_ended(event: CallEnded) -> None:
        contact = await book.call(event.contact_id)
        if contact is None:
            return
        # The page first: a recording that is late must not delay it.
        await pager.call_ended(event, contact)
        await recordings.keep(event, contact)

    relay = Relay(database, {CallEnded: call_ended, PageDue: pager.page}, clock, signals)

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
    watched: list[Service] = [database, *redis, relay, telephony]

    def health() -> list[Health]:
        return [item for part in (*watched, live, httpd) for item in part.health()]

    live = Live(
        board=DeskBoard(
            views=views, telephony=telephony, rota=rota, clock=clock, zone=settings.service.zone
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
            *api.routes(
                api.Api(
                    views=views,
                    tickets=tickets,
                    blobs=blobs,
                    rota=rota,
                    live=live,
                    clock=clock,
                    zone=settings.service.zone,
                    promised=promises.targets(
                        answer=timedelta(seconds=settings.tickets.answer_within_s),
                        remote=timedelta(seconds=settings.tickets.remote_within_s),
                    ),
                )
            ),
        ],
        accounts=accounts,
        static=static_routes(),
        page=pages.problem,
        on_stop=[live.end_streams],
        drain_s=min(settings.service.drain_s / 2, 5.0),
    )
    return [database, desk_file, *redis, relay, telephony, live, LoopWatch(), httpd]


def policy(settings: Settings) -> TicketPolicy:
    return TicketPolicy(
        zone=settings.service.zone,
        language=settings.service.language,
        join_within=timedelta(seconds=settings.tickets.join_within_s),
        default_queue=settings.hotline.default_queue,
        answer_within=timedelta(seconds=settings.tickets.answer_within_s),
        remote_within=timedelta(seconds=settings.tickets.remote_within_s),
    )


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    found = failures.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found
