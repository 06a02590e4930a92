"""Keeps copies of external calendars, whose events are leave of an engineer (desk file, `feeds`).

While a calendar cannot be had or read, the last good copy goes on counting; after a day of that an
alarm is raised. When a copy says something else than before, duty is worked out anew.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

import aiohttp

from contactd.calendar_reader import read_absences
from contactd.clock import Clock
from contactd.errors import PermanentFailure, TemporaryFailure
from contactd.log import get_logger
from contactd.routing.plan import Feed
from contactd.service import Health, HealthState
from contactd.signals import Signals, Topic
from contactd.store import duty, feeds
from contactd.store.engine import Database
from contactd.store.feeds import Copy

log = get_logger()

EVERY: Final = timedelta(minutes=15)
STALE: Final = timedelta(hours=24)
LARGEST_BYTES: Final = 5 << 20
FETCH_S: Final = 30.0  # all of it, redirects included
MOST_REDIRECTS: Final = 5
# Who stands in depends on who did before: a year is further back than any chain of leave.
BACK: Final = timedelta(days=366)
# Twice the 60 days for which duty is stored: a copy lasts while its calendar is away.
AHEAD: Final = timedelta(days=120)

_LOOK_S: Final = 60.0
_OK: Final = 200
_NOT_MODIFIED: Final = 304


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """An answer; `body` None: it is what the copy has."""

    body: str | None
    etag: str


class CalendarFeeds:
    """The service. `zone` (IANA) is that of whole days and of times without a zone."""

    name = "feeds"

    def __init__(self, database: Database, clock: Clock, *, zone: str, signals: Signals) -> None:
        self._database = database
        self._clock = clock
        self._zone = zone
        self._signals = signals
        self._copies: Mapping[str, Copy] = {}
        self._since = clock.now()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            keeping = tasks.create_task(self._keep(), name="feeds")
            yield
            keeping.cancel()

    def health(self) -> list[Health]:
        """Say which calendars cannot be had: a fault once a copy is a day old, or lacks events."""
        now = self._clock.now()
        bad = [copy for copy in self._copies.values() if copy.error]
        faults = [
            copy
            for copy in bad
            if now - (copy.good_at or self._since) > STALE or copy.good_at == copy.tried_at
        ]
        told = "; ".join(f"{copy.key}: {copy.error}" for copy in faults or bad)
        return [
            Health(
                component="feeds",
                state=HealthState.DEGRADED if faults else HealthState.UP,
                detail=f"{told}; the last good copy counts" if told else "",
            )
        ]

    async def _keep(self) -> None:
        timeout = aiohttp.ClientTimeout(total=FETCH_S)
        async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as client:
            while True:
                try:
                    await self.look(client)
                except TemporaryFailure as failure:  # the database: its own health says so
                    log.warning("feeds.deferred", reason=str(failure))
                await asyncio.sleep(_LOOK_S)

    async def look(self, client: aiohttp.ClientSession) -> None:
        """Renew each copy that is due, and drop those whose feed is gone.

        Raises:
            TemporaryFailure: the database is away.
        """
        async with self._database.reading() as connection:
            plan = await duty.plan(connection)
            known = await feeds.copies(connection)
        wanted = {feed.key: feed for feed in (plan.feeds if plan is not None else ())}
        if gone := known.keys() - wanted.keys():
            async with self._database.writing() as connection:
                await feeds.forget(connection, gone)
        now = self._clock.now()
        self._copies = {key: known[key] for key in wanted if key in known}
        for key, feed in wanted.items():
            old = known.get(key)
            if old is None or old.url != feed.url:
                old = Copy(key=key, url=feed.url, tried_at=now)
            elif now - old.tried_at < EVERY:
                continue
            await self._renew(client, feed, old)

    async def _renew(self, client: aiohttp.ClientSession, feed: Feed, old: Copy) -> None:
        now = self._clock.now()
        try:
            new = await self._read(await fetch(client, feed.url, old.etag), old, now)
        except (TemporaryFailure, PermanentFailure) as failure:
            new = replace(old, tried_at=now, error=str(failure)[:400])
            log.warning("feed.unread", feed=feed.key, reason=new.error)
        await self._store(new, is_news=new.absences != old.absences)

    async def _read(self, fetched: Fetched, old: Copy, now: datetime) -> Copy:
        """Return the new copy; one that did not change is read again before it runs out."""
        fresh = replace(old, tried_at=now, good_at=now)
        body = old.body if fetched.body is None else fetched.body
        lasts = old.read_until is not None and old.read_until - now > AHEAD / 2
        if body == old.body and lasts and (not old.error or old.good_at == old.tried_at):
            return replace(fresh, etag=fetched.etag)
        start, end = now - BACK, now + AHEAD
        read = await read_absences(body.encode(), start=start, end=end, zone=self._zone)
        return replace(
            fresh,
            body=body,
            etag=fetched.etag,
            absences=read.absences,
            read_until=end,
            error="" if read.complete else "some of its events make no sense and were left out",
        )

    async def _store(self, copy: Copy, *, is_news: bool) -> None:
        async with self._database.new_work() as work:
            await feeds.keep(work.connection, copy)
            if is_news:
                await duty.resolve(work, self._clock)
            await work.commit()
        self._copies = {**self._copies, copy.key: copy}
        if is_news:
            log.info("feed.changed", feed=copy.key, absences=len(copy.absences))
            self._signals.raise_(Topic.ROSTER)


async def fetch(client: aiohttp.ClientSession, url: str, etag: str) -> Fetched:
    """Return what is at `url`, unless its ETag is still `etag` (RFC 9110 section 13.1.2).

    Raises:
        TemporaryFailure: it cannot be had now; the text says why.
    """
    address = f"https{url.removeprefix('webcal')}" if url.startswith("webcal:") else url
    headers = {"Accept": "text/calendar", "Accept-Encoding": "identity"}
    if etag:
        headers["If-None-Match"] = etag
    try:
        async with client.get(address, headers=headers, max_redirects=MOST_REDIRECTS) as answer:
            if answer.status == _NOT_MODIFIED and etag:
                return Fetched(body=None, etag=etag)
            if answer.status != _OK:
                raise TemporaryFailure(f"the answer is {answer.status}")
            return Fetched(body=await _body(answer), etag=_etag(answer))
    except TimeoutError:
        raise TemporaryFailure(f"no complete answer within {FETCH_S:.0f} s") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        # Its text may repeat the address, and that is often a secret.
        raise TemporaryFailure(f"it cannot be had: {type(error).__name__}") from error


async def _body(answer: aiohttp.ClientResponse) -> str:
    content = bytearray()
    async for piece in answer.content.iter_chunked(1 << 16):
        content += piece
        if len(content) > LARGEST_BYTES:
            raise TemporaryFailure(f"it is larger than {LARGEST_BYTES >> 20} MiB")
    # RFC 5545 section 3.1.4: UTF-8. PostgreSQL's texts cannot hold NUL.
    return content.decode("utf-8", "replace").replace("\x00", "")


def _etag(answer: aiohttp.ClientResponse) -> str:
    etag = answer.headers.get("ETag", "")
    return etag if len(etag) <= 200 and etag.isprintable() else ""
