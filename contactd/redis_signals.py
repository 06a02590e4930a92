"""Carries signals through Redis, for several processes on one database.

Loaded only if Redis is configured: its client costs every process 7 MB.
"""

import asyncio
import random
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import redis.asyncio
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from contactd.errors import ConfigurationError
from contactd.log import get_logger
from contactd.service import Health, HealthState
from contactd.signals import Signals, Topic

log = get_logger()

CHANNEL: Final = "contactd:signals"
_CONNECT_S: Final = 2.0


class RedisSignals:
    """Carries signals to and from the other processes that use the same database.

    With Redis away signals only wake their own process; the others notice by polling. Once it is
    back everybody is woken, since something may have been missed.
    """

    name = "redis"

    def __init__(
        self,
        signals: Signals,
        url: str,
        *,
        channel: str = CHANNEL,
        retry_max_s: float = 10,
        ping_s: float = 5,
    ) -> None:
        self._signals = signals
        self._url = url
        self._channel = channel
        self._retry_max_s = retry_max_s
        self._ping_s = ping_s  # a link that says nothing for twice as long is dead
        self._sender = secrets.token_hex(8)  # our own signals come back to us
        self._pending: set[Topic] = set()  # a set: two equal signals are as good as one
        self._wanted = asyncio.Event()
        self._connected = False
        self._stopping = False
        self._error = "not started"
        try:
            redis.asyncio.connection.parse_url(url)
        except ValueError as error:
            raise ConfigurationError(f"redis.url: {error}") from error

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self._signals.relay = self._send
        self._stopping = False
        try:
            async with asyncio.TaskGroup() as tasks:
                link = tasks.create_task(self._keep_connected(), name="redis")
                try:
                    yield
                finally:
                    self._stopping = True
                    link.cancel()
        finally:
            self._signals.relay = None
            self._connected, self._error = False, "stopped"

    def health(self) -> list[Health]:
        if self._connected:
            return [Health(component=self.name, state=HealthState.UP)]
        detail = f"{self._error}; until it is back other processes learn of news by polling"
        return [Health(component=self.name, state=HealthState.DEGRADED, detail=detail)]

    def _send(self, topic: Topic) -> None:
        self._pending.add(topic)
        self._wanted.set()

    async def _keep_connected(self) -> None:
        pause_s = 0.1
        while True:
            try:
                await self._exchange()
            except* (RedisError, OSError, TimeoutError) as failures:
                error = _first(failures)
                if self._connected:
                    pause_s = 0.1
                    log.warning("redis.lost", error=type(error).__name__)
                self._connected, self._error = False, str(error) or type(error).__name__
            # A task group that fails while it is being cancelled raises its failures and forgets
            # the cancellation (Python 3.11, 3.12): without this look a stop would wait for ever.
            if self._stopping:
                return
            await asyncio.sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311 - not a secret
            pause_s = min(pause_s * 2, self._retry_max_s)

    async def _exchange(self) -> None:
        """Send and receive until the link breaks."""
        client = redis.asyncio.Redis.from_url(
            self._url,
            socket_connect_timeout=_CONNECT_S,
            socket_timeout=self._ping_s,
            retry=Retry(NoBackoff(), 0),  # the loop above does it, and says so
        )
        async with client, client.pubsub() as subscription:
            await subscription.subscribe(self._channel)
            await client.ping()
            self._connected = True
            log.info("redis.connected")
            for topic in Topic:
                self._signals.raise_here(topic)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._receive(subscription), name="redis-receive")
                tasks.create_task(self._publish(client), name="redis-publish")

    async def _receive(self, subscription: PubSub) -> None:
        asked = False
        while True:
            message = await subscription.get_message(timeout=self._ping_s)
            if message is not None:
                asked = False
                self._take(message["data"])
            elif asked:
                raise TimeoutError(f"Redis has been silent for {2 * self._ping_s:g} s")
            else:
                asked = True
                await subscription.ping()

    def _take(self, payload: object) -> None:
        """Raise the signal in `payload`; whatever else is said on the channel is ignored."""
        if not isinstance(payload, bytes):
            return
        sender, _, topic = payload.decode("ascii", "replace").partition(" ")
        if sender != self._sender and topic in _TOPICS:
            self._signals.raise_here(Topic(topic))

    async def _publish(self, client: redis.asyncio.Redis) -> None:
        while True:
            self._wanted.clear()
            while self._pending:
                topic = self._pending.pop()
                try:
                    await client.publish(self._channel, f"{self._sender} {topic}")
                except RedisError:
                    self._pending.add(topic)  # once we are connected again
                    raise
            await self._wanted.wait()


_TOPICS: Final = frozenset(Topic)


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return one of the exceptions that a group of groups holds."""
    found = failures.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found
