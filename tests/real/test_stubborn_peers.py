"""Bad peers on the daemon's open ports cost themselves alone, while calls go on.

The daemon's own 20 Hz ticker says so (`contactd_loop_lag_seconds`: its worst lateness of the last
minute), and so do good peers on the same ports: the dialplan, and whoever asks /livez. As a client
of AMI contactd is put to the same test with a fake PBX, in tests/wire/test_peers.py.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import pytest

from contactd.lab.network import Leg
from contactd.settings import AgiSettings, HttpSettings
from contactd.tickets.contact import Outcome, Source
from tests.fakes.peers import CROWD, PEERS, idle_crowd, visit
from tests.fakes.ticker import LIMIT_S, PERIOD_S, Ticker
from tests.fakes.waiting import WITHIN_S
from tests.real.desk import Desk, Setup, eventually

SETUP = Setup(
    tiers={"gz": [["wang"]]},
    options={"GREETING": "no", "OFFER_RING": "20", "QUEUE_WAIT": "60"},
)
TAKES: Final = "w0.2-a-w0.5-d1-w0.5-h"
EACH: Final = 5  # peers of a kind at a time
BUDGET_S: Final = 1.0  # what the dialplan gives an answer (CONTACTD_BUDGET)
LET_GO_S: Final = 5.0  # after the longest time limit of a listener

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """`prefix` is what a good peer begins with; a bad one is borne for `patience_s` at most."""

    number: int
    prefix: bytes
    patience_s: float


def port_of(desk: Desk, name: str) -> Port:
    lab = desk.lab.lab
    if name == "FastAGI":
        patience_s = AgiSettings().exchange_timeout_s
        return Port(number=lab.agi_port, prefix=b"agi_network: yes\n", patience_s=patience_s)
    head = b"GET /livez HTTP/1.1\r\nHost: desk\r\n"
    return Port(number=lab.http_port, prefix=head, patience_s=HttpSettings().read_timeout_s)


@asynccontextmanager
async def business(desk: Desk) -> AsyncIterator[None]:
    """Let callers call and a proxy ask meanwhile; assert that both got what they wanted."""
    calls: list[Leg] = []
    answers: list[float] = []
    closing = asyncio.Event()

    async def callers() -> None:
        while not closing.is_set():
            call = await desk.call("w60")
            calls.append(call)
            await (await desk.ring("wang", call)).ended(WITHIN_S)
            await call.ended(WITHIN_S)

    async def proxy() -> None:
        loop = asyncio.get_running_loop()
        while not closing.is_set():
            asked = loop.time()
            assert await desk.lab.daemon.get("/livez") is not None
            answers.append(loop.time() - asked)
            await asyncio.sleep(0.1)

    await desk.phone("wang", TAKES)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(callers())
        tasks.create_task(proxy())
        yield
        closing.set()
    assert calls
    for call in calls:
        contact = await desk.contact(call)
        assert contact.call is not None
        # The site's queue: contactd has answered the dialplan within its budget.
        assert (contact.source, contact.call.queue) == (Source.LIVE, "gz")
        assert contact.outcome is Outcome.ANSWERED
    assert len(answers) > 3
    assert max(answers) < BUDGET_S


async def figures(desk: Desk) -> dict[str, float]:
    """Return what /metrics exports, by name and labels."""
    text = str(await desk.lab.daemon.get("/metrics"))
    return {
        name: float(value) for name, value in re.findall(r"^([^#\s]\S*) (\S+)$", text, re.MULTILINE)
    }


async def never_missed_a_beat(desk: Desk, here: Ticker) -> None:
    """The daemon's worst lateness, less that of a ticker here: what the machine costs both."""
    lag_s = (await figures(desk))["contactd_loop_lag_seconds"]
    machine_s = max(0.0, here.longest_s - PERIOD_S)
    assert 0 < lag_s < LIMIT_S - PERIOD_S + machine_s, "from one tick to the next"


@pytest.mark.parametrize("name", ["FastAGI", "HTTP"])
async def test_bad_peers_of_every_kind_cost_themselves_alone(desk: Desk, name: str) -> None:
    port = port_of(desk, name)
    async with (
        Ticker() as here,
        business(desk),
        asyncio.timeout(port.patience_s + LET_GO_S),
        asyncio.TaskGroup() as visits,
    ):
        for peer in [*PEERS.values()] * EACH:
            visits.create_task(visit(port.number, peer, port.prefix, host=desk.lab.pbx.host))
    await never_missed_a_beat(desk, here)


async def test_a_crowd_of_idle_peers_on_both_ports_keeps_nobody_out(desk: Desk) -> None:
    assert AgiSettings().max_connections < CROWD
    host = desk.lab.pbx.host
    async with (
        Ticker() as here,
        idle_crowd(port_of(desk, "FastAGI").number, host=host),
        idle_crowd(port_of(desk, "HTTP").number, host=host),
    ):
        await eventually(lambda: is_crowded(desk), 10, "everybody is in, or was turned away")
        async with business(desk):
            await asyncio.sleep(5)  # the time in which business goes on
    await never_missed_a_beat(desk, here)


async def is_crowded(desk: Desk) -> bool:
    report = await desk.lab.daemon.get("/api/v1/status", token=desk.token)
    connections = {one["component"]: one["figures"] for one in report["components"]}
    values = await figures(desk)
    reasons = ("full", "evicted")  # had to go at once, or when somebody else came
    refused = [f'contactd_peers_refused_total{{listener="agi",reason="{why}"}}' for why in reasons]
    turned_away = sum(values.get(name, 0) for name in refused)
    return bool(connections["http"]["connections"] >= CROWD and turned_away)
