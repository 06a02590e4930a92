"""Sends webhooks: signed as Standard Webhooks says, in order per ticket, and never inside us.

Whoever may add a webhook says where we connect to, so an address of our own network is refused
unless the operator allows it: names are resolved here, once, and only what was looked at is
connected to. Redirects are not followed, and of an answer nothing but its status is read.
"""

import asyncio
import base64
import hashlib
import hmac
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from contactd.clock import Clock
from contactd.errors import PermanentFailure, TemporaryFailure
from contactd.log import get_logger
from contactd.metrics import WEBHOOKS
from contactd.service import Health, HealthState
from contactd.signals import wait
from contactd.store.webhooks import Delivery, HookFigures, Outcome, Round, Webhook, Webhooks
from contactd.tickets.events import TicketDue

log = get_logger()

SEND_WITHIN_S: Final = 10.0
CONNECT_WITHIN_S: Final = 5.0
MOST_AT_ONCE: Final = 4  # webhooks; each has up to eight deliveries under way
POLL_S: Final = 2.0
FORGET_EVERY: Final = timedelta(hours=1)

Network = IPv4Network | IPv6Network
IpAddress = IPv4Address | IPv6Address

# They carry an address of version 4, which may be anything.
_CARRIERS: Final = tuple(
    map(ip_network, ("::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32"))
)


class Forbidden(OSError):
    """A webhook would lead to where none may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """Where webhooks may go: to the internet by TLS, to `networks` as they like."""

    networks: Collection[Network] = ()

    def check_url(self, url: str) -> None:
        """Refuse what can be refused before a name is resolved.

        Raises:
            PermanentFailure: it can never be sent to.
        """
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError:
            raise PermanentFailure("url: not a web address") from None
        if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc:
            raise PermanentFailure("url: https://host/path, without a user's name")
        if parts.scheme == "http" and not self.networks:
            raise PermanentFailure("url: https, unless webhooks.networks allows the host")
        address = literal(host)
        if address is not None and not self.allows(address, is_secure=parts.scheme == "https"):
            raise PermanentFailure(
                "url: this address is not on the internet; see webhooks.networks"
            )
        if host.rstrip(".").lower() in ("localhost", "localhost.localdomain") and not self.networks:
            raise PermanentFailure("url: that is this machine")

    def allows(self, address: IpAddress, *, is_secure: bool) -> bool:
        if any(address.version == each.version and address in each for each in self.networks):
            return True
        return is_secure and _is_on_the_internet(address)


def literal(host: str) -> IpAddress | None:
    """Return the address that a host is, as a resolver would read it (`127.1` is 127.0.0.1)."""
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(host))
    except (OSError, UnicodeError):
        return None


def _is_on_the_internet(address: IpAddress) -> bool:
    carried = any(address.version == each.version and address in each for each in _CARRIERS)
    return address.is_global and not address.is_multicast and not carried


class GuardedResolver(AbstractResolver):
    """Resolves names to what may be connected to; the connection goes to exactly that."""

    def __init__(self, guard: Guard, resolver: AbstractResolver, *, is_secure: bool) -> None:
        self._guard = guard
        self._resolver = resolver
        self._is_secure = is_secure

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        allowed = [
            each
            for each in found
            if self._guard.allows(
                ip_address(each["host"].partition("%")[0]), is_secure=self._is_secure
            )
        ]
        if not allowed:
            raise Forbidden("its name leads into a network that webhooks.networks does not allow")
        return allowed

    async def close(self) -> None:
        await self._resolver.close()


def signature(secrets: Sequence[str], ref: str, at: datetime, body: str) -> str:
    """Return the header `webhook-signature`, with one signature for each secret."""
    signed = f"{ref}.{int(at.timestamp())}.{body}".encode()
    made = []
    for secret in secrets:
        key = base64.b64decode(secret.removeprefix("whsec_"))
        digest = hmac.new(key, signed, hashlib.sha256).digest()
        made.append(f"v1,{base64.b64encode(digest).decode()}")
    return " ".join(made)


class Hooks:
    """The service: looks whom to tell what, and tells them; `ticket_due` notes what there is.

    Deliveries are durable rows of their own rather than rows of the outbox: a receiver that hangs
    takes none of the places in which pages to engineers are sent.
    """

    name = "webhooks"

    def __init__(
        self,
        webhooks: Webhooks,
        clock: Clock,
        guard: Guard,
        *,
        make_resolver: Callable[[], AbstractResolver] = aiohttp.DefaultResolver,
        poll_s: float = POLL_S,
    ) -> None:
        self._webhooks = webhooks
        self._clock = clock
        self._guard = guard
        self._make_resolver = make_resolver
        self._poll_s = poll_s
        self._figures = HookFigures()
        self._trouble = ""
        self._stopping = False
        self._forgot_at: datetime | None = None
        self._woken = asyncio.Event()

    def and_then(
        self, follow: Callable[[TicketDue], Awaitable[None]]
    ) -> Callable[[TicketDue], Awaitable[None]]:
        """Return a handler that also notes, after `follow`, what webhooks are told of a ticket."""

        async def ticket_due(event: TicketDue) -> None:
            await follow(event)
            if await self._webhooks.tell(event.ticket_id):
                self._woken.set()

        return ticket_due

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self._stopping = False
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._look(), name="webhooks")
            yield
            self._stopping = True  # what is under way is finished
            self._woken.set()

    def health(self) -> list[Health]:
        found = self._figures
        if not found.webhooks and not self._trouble:
            return []
        state, detail = HealthState.UP, ""
        if self._trouble:
            state, detail = HealthState.DEGRADED, self._trouble
        elif found.disabled:
            state = HealthState.DEGRADED
            detail = f"disabled after days of failure: {', '.join(found.disabled)}; repair the "
            detail += "receiver, then enable it: PATCH /api/v1/webhooks/{id}"
        elif found.failing:
            state = HealthState.DEGRADED
            detail = f"cannot be told: {', '.join(found.failing)}; see the webhook's deliveries"
        figures = {"webhooks": found.webhooks, "waiting": found.waiting}
        return [Health(component=self.name, state=state, detail=detail, figures=figures)]

    # Sending

    async def _look(self) -> None:
        async with self._sessions() as sessions:
            while not self._stopping:
                try:
                    sent = await self.drain(sessions)
                    await self._keep_figures()
                    self._trouble = ""
                except TemporaryFailure as failure:
                    sent, self._trouble = 0, str(failure)
                if not sent and not self._stopping:
                    await wait(self._woken, self._poll_s)

    @asynccontextmanager
    async def _sessions(self) -> AsyncIterator[dict[str, aiohttp.ClientSession]]:
        """Return a client for each scheme: without TLS nothing leaves our own networks."""
        timeout = aiohttp.ClientTimeout(total=SEND_WITHIN_S, sock_connect=CONNECT_WITHIN_S)
        clients = {
            scheme: aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    resolver=GuardedResolver(
                        self._guard, self._make_resolver(), is_secure=scheme == "https"
                    ),
                    use_dns_cache=False,  # what a name leads to is looked at each time
                    limit=64,
                ),
                timeout=timeout,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                max_line_size=4096,
                max_field_size=4096,
            )
            for scheme in ("http", "https")
        }
        try:
            yield clients
        finally:
            for client in clients.values():
                await client.close()

    async def drain(self, sessions: dict[str, aiohttp.ClientSession]) -> int:
        """Send one round to each webhook that something waits for; return how much was sent."""
        free = asyncio.Semaphore(MOST_AT_ONCE)

        async def one(number: int) -> int:
            async with free:
                found = await self._webhooks.claim(number)
                return await self._send_round(found, sessions) if found else 0

        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(one(number), name="webhook")
                for number in await self._webhooks.enabled()
            ]
        return sum(task.result() for task in running)

    async def _send_round(self, found: Round, sessions: dict[str, aiohttp.ClientSession]) -> int:
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(self._send(found.webhook, each, sessions), name="webhook-send")
                for each in found.deliveries
            ]
        outcomes = [task.result() for task in running]
        why = await self._webhooks.settle(found.webhook, outcomes)
        for each in outcomes:
            WEBHOOKS.labels(outcome="failed" if each.error else "delivered").inc()
        if why:
            log.error("webhook.disabled", webhook=found.webhook.id)
        elif failed := [each for each in outcomes if each.error]:
            log.warning("webhook.failed", webhook=found.webhook.id, count=len(failed),
                        reason=failed[0].error)  # fmt: skip
        return sum(not each.error for each in outcomes)

    async def _send(
        self, webhook: Webhook, delivery: Delivery, sessions: dict[str, aiohttp.ClientSession]
    ) -> Outcome:
        at = self._clock.now()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "contactd",
            "webhook-id": delivery.ref,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": signature(webhook.secrets, delivery.ref, at, delivery.body),
        }
        status: int | None = None
        try:
            self._guard.check_url(webhook.url)  # a literal address never meets the resolver
            async with sessions[urlsplit(webhook.url).scheme].post(
                webhook.url, data=delivery.body.encode(), headers=headers, allow_redirects=False
            ) as answer:
                status = answer.status
        except PermanentFailure as failure:
            return Outcome(delivery=delivery, status=None, error=str(failure))
        except TimeoutError:
            return Outcome(delivery=delivery, status=None, error="no answer in time")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Outcome(delivery=delivery, status=None, error=_words(error))
        is_done = 200 <= status < 300
        return Outcome(
            delivery=delivery, status=status, error="" if is_done else f"it answered {status}"
        )

    async def _keep_figures(self) -> None:
        self._figures = await self._webhooks.figures()
        now = self._clock.now()
        if self._forgot_at is None or now - self._forgot_at > FORGET_EVERY:
            await self._webhooks.forget()
            self._forgot_at = now


def _words(error: BaseException) -> str:
    """Return what an operator needs to know, without what others wrote."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, Forbidden):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__
