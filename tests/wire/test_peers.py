"""Peers that connect and close, stop half way, are slow, or send rubbish cost themselves alone.

Every story: a 20 Hz ticker in the same event loop never misses 250 ms, and a good peer is served
meanwhile. `tests/fakes/peers.py` has the peers, for any other port to be put to the same test.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from contactd.service import HealthState
from contactd.settings import AgiSettings
from contactd.telephony.agi import AgiListener, AgiRequest
from contactd.telephony.ami import Ami, AmiEvent, AmiSettings
from tests.fakes.agi import Caller, header
from tests.fakes.pbx import BANNER, SECRET, USERNAME, FakePbx
from tests.fakes.peers import CROWD, PEERS, idle_crowd, listening, visit
from tests.fakes.ticker import LIMIT_S, Ticker
from tests.fakes.waiting import WITHIN_S

AGI_PREFIX = b"agi_network: yes\n"


async def arrive(request: AgiRequest) -> Sequence[str]:
    return ["ok", *request.args]


@asynccontextmanager
async def agi_listener() -> AsyncIterator[AgiListener]:
    settings = AgiSettings.model_construct(host="127.0.0.1", port=0)
    listener = AgiListener(settings, {"arrive": arrive})
    async with listener.running():
        yield listener


async def served(port: int, *, times: int = 5) -> None:
    """Ask as Asterisk asks, and be answered within the dialplan's second."""
    for number in range(times):
        async with asyncio.timeout(1):
            answer = await Caller.ask(port, header("arrive", str(number)))
        assert answer.fields == ["ok", str(number)]


# FastAGI: strangers come to us


@pytest.mark.parametrize("peer", PEERS)
async def test_a_bad_fastagi_peer_costs_itself_alone(peer: str) -> None:
    async with agi_listener() as agi, Ticker() as ticker:
        async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as visits:
            for _ in range(3):
                visits.create_task(visit(agi.port, PEERS[peer], AGI_PREFIX))
            await served(agi.port)
        await served(agi.port)  # all of them have been let go by now
        assert agi.health()[0].figures["connections"] == 0
    assert ticker.worst_s < LIMIT_S


async def test_every_kind_of_bad_fastagi_peer_at_once() -> None:
    async with (
        agi_listener() as agi,
        Ticker() as ticker,
        asyncio.timeout(WITHIN_S),
        asyncio.TaskGroup() as visits,
    ):
        for peer in [*PEERS.values()] * 5:
            visits.create_task(visit(agi.port, peer, AGI_PREFIX))
        await served(agi.port)
    assert ticker.worst_s < LIMIT_S


async def test_a_crowd_of_idle_fastagi_peers_keeps_nobody_out() -> None:
    assert AgiSettings().max_connections < CROWD
    async with agi_listener() as agi, Ticker() as ticker, idle_crowd(agi.port):
        await asyncio.sleep(0.3)  # everybody has come in, or was turned away
        for _ in range(10):
            await served(agi.port, times=2)
            await asyncio.sleep(0.1)
    assert ticker.ticks > 10
    assert ticker.worst_s < LIMIT_S


# AMI: we come to strangers


@asynccontextmanager
async def ami_client(port: int) -> AsyncIterator[tuple[Ami, list[AmiEvent]]]:
    events: list[AmiEvent] = []

    async def on_connected(_: Ami) -> None:
        return

    ami = Ami(
        AmiSettings(
            name="pbx1",
            host="127.0.0.1",
            port=port,
            username=USERNAME,
            secret=SECRET,
            connect_timeout_s=0.5,
            ping_interval_s=0.1,
            liveness_s=0.5,
            reconnect_min_s=0.05,
            reconnect_max_s=0.1,
        ),
        on_event=events.append,
        on_connected=on_connected,
    )
    async with ami.running():
        yield ami, events


@pytest.mark.parametrize("peer", PEERS)
async def test_a_bad_pbx_costs_its_own_connection_alone(peer: str) -> None:
    """A good PBX is served by the same daemon meanwhile."""
    async with (
        Ticker() as ticker,
        FakePbx() as good,
        listening(PEERS[peer], BANNER) as (port, met),
        ami_client(good.port) as (ami, events),
        ami_client(port) as (bad, _),
    ):
        async with asyncio.timeout(WITHIN_S):
            await met.wait()
            await good.logged_in()
            while ami.health().state is not HealthState.UP:
                await asyncio.sleep(0.01)
            for number in range(5):
                assert (await ami.action("Ping", timeout_s=1)).success
                good.event("Newchannel", Exten=str(number))
                await asyncio.sleep(0.1)
            while bad.last_error == "not connected yet":
                await asyncio.sleep(0.01)
        assert not bad.connected
        assert bad.health().state is HealthState.DOWN
        numbers = [event["Exten"] for event in events if event["Event"] == "Newchannel"]
        assert numbers == [*map(str, range(5))]
        assert good.logins == 1
    assert ticker.worst_s < LIMIT_S


@pytest.mark.parametrize("peer", PEERS)
async def test_a_pbx_that_goes_bad_after_the_login_costs_its_own_connection_alone(
    peer: str,
) -> None:
    """The same bytes, but from a PBX that has logged us in before."""
    async with (
        Ticker() as ticker,
        FakePbx() as good,
        FakePbx() as bad_pbx,
        ami_client(good.port) as (ami, _),
        ami_client(bad_pbx.port) as (bad, _),
    ):
        async with asyncio.timeout(WITHIN_S):
            while not all(client.health().state is HealthState.UP for client in (ami, bad)):
                await asyncio.sleep(0.01)
            bad_pbx.misbehave(PEERS[peer], b"Event: UserEvent\r\n")
            for _ in range(5):
                assert (await ami.action("Ping", timeout_s=1)).success
                await asyncio.sleep(0.1)
            await bad_pbx.logged_in(2)  # what is silent or pointless is found out by the ping
        assert good.logins == 1
    assert ticker.worst_s < LIMIT_S
