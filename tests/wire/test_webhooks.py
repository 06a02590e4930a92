"""Webhooks out: what is told, signed how, in which order, and where nothing may be sent."""

import asyncio
import base64
import hashlib
import hmac
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import ip_network
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from contactd.errors import PermanentFailure
from contactd.lab.ports import free_port
from contactd.service import HealthState
from contactd.store.engine import Database
from contactd.store.webhooks import (
    GIVES_UP,
    KEPT,
    DeliveryState,
    EventKind,
    Webhook,
    Webhooks,
    Wish,
    kind_of,
    pause,
)
from contactd.tickets.contact import Contact, Medium
from contactd.tickets.events import TicketDue
from contactd.tickets.service import TicketService
from contactd.tickets.states import Action
from contactd.web.hooks import Guard, GuardedResolver, Hooks, signature
from tests.fakes.clock import FakeClock
from tests.fakes.waiting import until

LOOPBACK = Guard(networks=[ip_network("127.0.0.0/8")])


@dataclass(slots=True, kw_only=True)
class Receiver:
    """Another system: it keeps what it is told, and answers what it is told to."""

    url: str = ""
    came: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)  # of the next answers; then 204
    hangs: bool = False
    leads_to: str = ""

    async def take(self, request: web.Request) -> web.Response:
        self.came.append((dict(request.headers), await request.read()))
        if self.hangs:
            await asyncio.sleep(60)
        if self.leads_to:
            return web.Response(status=307, headers={"Location": self.leads_to})
        return web.Response(status=self.statuses.pop(0) if self.statuses else 204)

    @property
    def told(self) -> list[Any]:
        return [json.loads(body) for _, body in self.came]


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver, app, port = Receiver(), web.Application(), free_port()
    app.router.add_post("/{path:.*}", receiver.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    receiver.url = f"http://127.0.0.1:{port}/hook"
    try:
        yield receiver
    finally:
        await runner.cleanup()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as found:
        yield found


@pytest.fixture
def webhooks(database: Database, clock: FakeClock) -> Webhooks:
    return Webhooks(database, clock)


@pytest.fixture
def hooks(webhooks: Webhooks, clock: FakeClock) -> Hooks:
    return Hooks(webhooks, clock, LOOPBACK)


async def add(webhooks: Webhooks, url: str, **wishes: Any) -> Webhook:
    return await webhooks.add(Wish(name="crm", url=url, **wishes), actor="user:admin")


async def opened(tickets: TicketService, clock: FakeClock, n: int = 1) -> tuple[str, int]:
    filed = await tickets.receive(
        Contact(
            medium=Medium.WEB, external_id=f"web-{n}", received_at=clock.now(),
            from_value=f"user{n}@example.cn", text="打印机卡纸",
        )
    )  # fmt: skip
    return filed.ticket, filed.ticket_id


async def solve(tickets: TicketService, number: str) -> None:
    await tickets.act(number, Action.ACKNOWLEDGE, actor="user:li")
    await tickets.act(number, Action.RESOLVE, actor="user:li", note="换了硒鼓")


async def send(hooks: Hooks) -> int:
    async with hooks._sessions() as sessions:
        return await hooks.drain(sessions)


async def test_what_happens_to_a_ticket_is_told_once_and_in_order(
    webhooks: Webhooks, hooks: Hooks, receiver: Receiver, tickets: TicketService, clock: FakeClock
) -> None:
    await add(webhooks, receiver.url)
    clock.advance(timedelta(seconds=1))
    number, ticket_id = await opened(tickets, clock)
    await tickets.comment(number, "steht im Keller", actor="user:li")
    await solve(tickets, number)
    await tickets.confirm(number, solved=True, actor="user:li", how="web")
    for _ in range(3):  # looked at again and again
        await webhooks.tell(ticket_id)
    while await send(hooks):
        pass
    assert [told["type"] for told in receiver.told] == [
        "ticket.opened", "ticket.changed", "ticket.changed", "ticket.resolved", "ticket.closed",
    ]  # fmt: skip
    assert [told["data"]["seq"] for told in receiver.told] == [1, 2, 3, 4, 5]
    assert {told["data"]["ticket"] for told in receiver.told} == {number}
    for headers, body in receiver.came:
        assert "卡纸".encode() not in body
        assert "硒鼓".encode() not in body
        assert b"user:li" not in body
        assert headers["Content-Type"] == "application/json"
    assert await send(hooks) == 0


async def test_the_words_are_told_to_who_asked_for_them(
    webhooks: Webhooks, hooks: Hooks, receiver: Receiver, tickets: TicketService, clock: FakeClock
) -> None:
    await add(webhooks, receiver.url, has_text=True, events=["ticket.resolved"])
    number, ticket_id = await opened(tickets, clock)
    await solve(tickets, number)
    await webhooks.tell(ticket_id)
    await send(hooks)
    [told] = receiver.told
    assert (told["type"], told["data"]["body"]["note"]) == ("ticket.resolved", "换了硒鼓")


async def test_what_was_before_the_webhook_is_not_told(
    webhooks: Webhooks, receiver: Receiver, tickets: TicketService, clock: FakeClock
) -> None:
    number, ticket_id = await opened(tickets, clock)
    clock.advance(timedelta(seconds=1))
    await add(webhooks, receiver.url)
    assert await webhooks.tell(ticket_id) == 0
    await tickets.comment(number, "between", actor="user:li")
    clock.advance(timedelta(seconds=1))
    late = await add(webhooks, receiver.url)
    assert await webhooks.tell(ticket_id) == 1
    assert (await webhooks.one(late.id)).waiting == 0
    await tickets.act(number, Action.CANCEL, actor="user:li")
    assert await webhooks.tell(ticket_id) == 2  # both


async def test_a_receiver_can_check_who_wrote(
    webhooks: Webhooks, hooks: Hooks, receiver: Receiver, clock: FakeClock
) -> None:
    hook = await add(webhooks, receiver.url)
    fresh = await webhooks.rotate(hook.id, actor="user:admin")
    await webhooks.try_out(hook.id)
    assert await send(hooks) == 1
    [(headers, body)] = receiver.came
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    found = headers["webhook-signature"].split()
    for secret in (fresh, hook.secrets[0]):  # the old one for a day
        key = base64.b64decode(secret.removeprefix("whsec_"))
        digest = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        assert f"v1,{digest}" in found
    clock.advance(timedelta(hours=25))
    assert len((await webhooks.one(hook.id)).secrets) == 1


def test_the_signature_is_the_one_of_the_standard() -> None:
    """The example of Standard Webhooks' specification and its libraries."""
    from datetime import UTC, datetime

    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    at = datetime.fromtimestamp(1614265330, UTC)
    found = signature([secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", at, '{"test": 2432232314}')
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_a_failure_is_tried_again_with_the_same_id_and_later_ones_wait(
    webhooks: Webhooks, hooks: Hooks, receiver: Receiver, tickets: TicketService, clock: FakeClock
) -> None:
    hook = await add(webhooks, receiver.url)
    number, ticket_id = await opened(tickets, clock)
    await solve(tickets, number)
    _, other_id = await opened(tickets, clock, 2)
    await webhooks.tell(ticket_id)
    await webhooks.tell(other_id)
    receiver.statuses = [500, 500]
    assert await send(hooks) == 0
    first = {headers["webhook-id"] for headers, _ in receiver.came}
    assert len(first) == 2  # one of each ticket
    assert await send(hooks) == 0  # not before its time
    assert len(receiver.came) == 2
    clock.advance(pause(1))
    while await send(hooks):
        pass
    assert {headers["webhook-id"] for headers, _ in receiver.came[2:4]} == first
    assert len(receiver.came) == 6
    assert receiver.told[-1]["type"] == "ticket.resolved"
    items, _ = await webhooks.deliveries(hook.id)
    assert {each.state for each in items} == {DeliveryState.DELIVERED}
    assert sorted(each.attempts for each in items) == [1, 1, 2, 2]


async def test_a_receiver_that_fails_for_days_is_disabled_and_the_operator_hears_of_it(
    webhooks: Webhooks, hooks: Hooks, receiver: Receiver, clock: FakeClock
) -> None:
    hook = await add(webhooks, receiver.url)
    await webhooks.try_out(hook.id)
    receiver.statuses = [503] * 500
    for _ in range(200):
        await send(hooks)
        clock.advance(timedelta(hours=1))
    found = await webhooks.one(hook.id)
    assert found.disabled_at is not None
    assert "503" in found.disabled_why
    assert 100 < len(receiver.came) < 130  # an hour apart at most, for five days
    await hooks._keep_figures()
    [health] = hooks.health()
    assert health.state is HealthState.DEGRADED
    assert "crm" in health.detail
    receiver.statuses.clear()
    await webhooks.change(hook.id, Wish(is_enabled=True), actor="user:admin")
    await webhooks.try_out(hook.id)
    await send(hooks)
    await hooks._keep_figures()
    assert hooks.health()[0].state is HealthState.UP


async def test_one_delivery_that_is_never_taken_holds_the_others_up_no_longer_than_days(
    webhooks: Webhooks, hooks: Hooks, receiver: Receiver, tickets: TicketService, clock: FakeClock
) -> None:
    hook = await add(webhooks, receiver.url, events=["ticket.opened"])
    _, ticket_id = await opened(tickets, clock)
    await webhooks.tell(ticket_id)
    for _ in range(int(GIVES_UP / timedelta(hours=1)) + 3):
        receiver.statuses = [400]
        await send(hooks)
        await webhooks.try_out(hook.id)  # others arrive, so that it is not disabled
        receiver.statuses = []
        await send(hooks)
        clock.advance(timedelta(hours=1))
    items, _ = await webhooks.deliveries(hook.id, limit=200)
    assert (await webhooks.one(hook.id)).disabled_at is None
    assert {each.state for each in items if each.ticket_id} <= {
        DeliveryState.GIVEN_UP, DeliveryState.DELIVERED,
    }  # fmt: skip


async def test_two_processes_do_not_send_the_same(webhooks: Webhooks, receiver: Receiver) -> None:
    hook = await add(webhooks, receiver.url)
    await webhooks.try_out(hook.id)
    assert await webhooks.claim(hook.id) is not None
    assert await webhooks.claim(hook.id) is None


async def test_a_redirect_is_not_followed(
    webhooks: Webhooks, hooks: Hooks, receiver: Receiver
) -> None:
    hook = await add(webhooks, receiver.url)
    await webhooks.try_out(hook.id)
    receiver.leads_to = receiver.url + "/elsewhere"
    assert await send(hooks) == 0
    assert len(receiver.came) == 1
    [delivery] = (await webhooks.deliveries(hook.id))[0]
    assert (delivery.status, delivery.error) == (307, "it answered 307")


async def test_the_service_tells_at_once_and_ends_with_what_is_in_hand(
    webhooks: Webhooks, hooks: Hooks, receiver: Receiver, tickets: TicketService, clock: FakeClock
) -> None:
    await add(webhooks, receiver.url)

    async def follow(_: TicketDue) -> None:
        """Follow nothing up."""

    async with hooks.running():
        _, ticket_id = await opened(tickets, clock)
        await hooks.and_then(follow)(TicketDue(ticket_id=ticket_id))
        await until(lambda: bool(receiver.came))
    assert receiver.told[0]["type"] == "ticket.opened"


async def test_old_deliveries_are_forgotten(
    webhooks: Webhooks, hooks: Hooks, receiver: Receiver, clock: FakeClock
) -> None:
    hook = await add(webhooks, receiver.url)
    await webhooks.try_out(hook.id)
    await send(hooks)
    clock.advance(KEPT + timedelta(days=1))
    await webhooks.forget()
    assert (await webhooks.deliveries(hook.id))[0] == ()


# Where nothing may be sent


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/", "https://127.1/", "https://2130706433/", "https://0x7f.1/",
        "https://[::1]/", "https://[::ffff:127.0.0.1]/", "https://[64:ff9b::7f00:1]/",
        "https://[2002:7f00:1::]/", "https://[fe80::1%25eth0]/", "https://10.1.2.3/",
        "https://169.254.169.254/latest/meta-data", "https://192.168.1.1/", "https://0.0.0.0/",
        "https://100.64.0.1/", "https://224.0.0.1/", "https://localhost/", "https://LOCALHOST./",
        "http://example.com/", "ftp://example.com/", "https://", "https://u:p@example.com/",
        "https://user@127.0.0.1/", "https://[::1/",
    ],
)  # fmt: skip
def test_an_address_of_our_own_network_is_refused(url: str) -> None:
    with pytest.raises(PermanentFailure):
        Guard().check_url(url)


def test_an_address_that_is_allowed_is_taken_also_without_tls() -> None:
    guard = Guard(networks=[ip_network("10.2.0.0/16")])
    guard.check_url("http://10.2.3.4/hook")
    guard.check_url("https://hooks.example.com/")
    for url in ("http://10.3.0.1/", "https://10.3.0.1/", "http://1.1.1.1/"):
        with pytest.raises(PermanentFailure):
            guard.check_url(url)


class Names(AbstractResolver):
    """A name server that says what it is told to."""

    def __init__(self, *hosts: str) -> None:
        self.hosts = hosts

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host, host=each, port=port, family=socket.AF_INET, proto=0, flags=0
            )
            for each in self.hosts
        ]

    async def close(self) -> None:
        """Hold nothing."""


async def test_a_name_that_leads_into_our_network_is_not_connected_to() -> None:
    resolver = GuardedResolver(Guard(), Names("127.0.0.1", "1.1.1.1", "10.0.0.1"), is_secure=True)
    assert [each["host"] for each in await resolver.resolve("x", 443)] == ["1.1.1.1"]
    for hosts in (["10.0.0.1"], ["::1"], []):
        with pytest.raises(OSError, match="networks"):
            await GuardedResolver(Guard(), Names(*hosts), is_secure=True).resolve("x", 443)


async def test_a_name_that_turns_to_our_network_later_is_not_connected_to(
    webhooks: Webhooks, receiver: Receiver, clock: FakeClock
) -> None:
    """DNS rebinding: the name was fine when the webhook was added."""
    port = receiver.url.rsplit(":", 1)[1].partition("/")[0]
    hook = await add(webhooks, f"http://rebound.example:{port}/")
    await webhooks.try_out(hook.id)
    guard = Guard(networks=[ip_network("10.2.0.0/16")])
    hooks = Hooks(webhooks, clock, guard, make_resolver=lambda: Names("127.0.0.1"))
    assert await send(hooks) == 0
    assert receiver.came == []
    [delivery] = (await webhooks.deliveries(hook.id))[0]
    assert "webhooks.networks" in delivery.error


@pytest.mark.parametrize(
    ("action", "seq", "state", "before", "kind"),
    [
        ("opened", 1, "new", "", EventKind.TICKET_OPENED),
        ("contact.added", 4, "new", "new", EventKind.CONTACT_RECEIVED),
        ("contact.added", 4, "in_progress", "resolved", EventKind.TICKET_REOPENED),
        ("cancelled", 4, "cancelled", "new", EventKind.TICKET_CLOSED),
        ("clock.breached", 4, "new", "new", EventKind.CLOCK_BREACHED),
        ("classified", 4, "new", "new", EventKind.TICKET_CHANGED),
        ("page.sent", 4, "new", "new", None),
        ("requester.told", 4, "new", "new", None),
        ("requester.written_to", 4, "new", "new", EventKind.TICKET_CHANGED),
    ],
)
def test_what_an_entry_of_the_journal_means_to_others(
    action: str, seq: int, state: str, before: str, kind: EventKind | None
) -> None:
    assert kind_of(action, seq, state, before) is kind
