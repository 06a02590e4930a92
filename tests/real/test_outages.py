"""contactd or the PBX breaks: callers reach who is on duty all the same, and nothing is lost."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing

import pytest
import pytest_asyncio

from contactd.tickets.contact import Outcome, Source
from tests.fakes.waiting import WITHIN_S
from tests.real.desk import Desk, Setup, eventually

SETUP = Setup(
    tiers={"gz": [["wang"]], "sz": [["chen"]]},
    options={"GREETING": "no", "OFFER_RING": "20", "QUEUE_WAIT": "60"},
)
TAKES = "w0.3-a-w1-d1-w1-h"
RINGS_WITHIN_S = 3.0

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def all_well(desk: Desk) -> AsyncIterator[None]:
    """After a story contactd lives and is ready, whatever was done to it."""
    yield
    if desk.lab.daemon.running:
        desk.lab.daemon.thaw()
        await desk.lab.daemon.ready()
    else:
        await desk.lab.daemon.start()


async def test_with_contactd_killed_the_engineer_rings_and_the_call_is_filed_later(
    desk: Desk,
) -> None:
    await desk.lab.daemon.kill()
    await desk.phone("wang", TAKES)
    call = await desk.call("w600", name="张三")
    ring = await desk.ring("wang", call)
    assert (ring.started_at - call.started_at).total_seconds() < RINGS_WITHIN_S
    await call.ended(WITHIN_S)
    await desk.lab.daemon.start()

    contact = await desk.contact(call)

    assert contact.source is Source.REPLAY
    assert contact.outcome is Outcome.ANSWERED
    assert contact.from_name == "张三"
    assert contact.call is not None
    assert [leg.engineer for leg in contact.call.legs] == ["wang"]
    assert contact.call.queue == "desk"  # nobody could say where the caller belongs
    assert contact.call.talked_s == pytest.approx(1.0, abs=0.4)
    ticket = await desk.ticket(contact.ticket)
    assert (ticket.state, ticket.site) == ("in_progress", "gz")
    assert ticket.assignee is not None
    assert ticket.assignee.key == "wang"
    await _repaired(desk, contact.external_id)


async def test_with_contactd_frozen_the_engineer_rings_and_the_call_is_filed_later(
    desk: Desk,
) -> None:
    desk.lab.daemon.freeze()
    await desk.phone("wang", TAKES)
    call = await desk.call("w600")
    ring = await desk.ring("wang", call)
    assert (ring.started_at - call.started_at).total_seconds() < RINGS_WITHIN_S
    await call.ended(WITHIN_S)
    desk.lab.daemon.thaw()

    contact = await desk.contact(call)  # asserts that there is only one

    assert contact.outcome is Outcome.ANSWERED
    assert contact.call is not None
    assert [leg.engineer for leg in contact.call.legs] == ["wang"]
    assert contact.call.queue == "desk"
    ticket = await desk.ticket(contact.ticket)
    assert len(ticket.contacts) == 1
    assert ticket.assignee is not None
    assert ticket.assignee.key == "wang"


async def test_contactd_killed_under_a_call_does_not_disturb_it(desk: Desk) -> None:
    await desk.phone("wang", "w0.3-a-w2-d1-w3-h")
    call = await desk.call("w600")
    ring = await desk.ring("wang", call)
    await ring.answered(WITHIN_S)
    await desk.lab.daemon.kill()
    await desk.lab.daemon.start()

    contact = await desk.contact(call)

    assert (contact.source, contact.outcome) == (Source.LIVE, Outcome.ANSWERED)
    assert contact.call is not None
    assert contact.call.talked_s == pytest.approx(3.0, abs=0.4)
    assert desk.rang(call) == ["wang"]
    assert (await desk.ticket(contact.ticket)).state == "in_progress"


@pytest.mark.parametrize("how", ["restarted", "killed"])
async def test_without_contactd_a_restarted_pbx_rings_who_was_on_duty(desk: Desk, how: str) -> None:
    pbx = desk.lab.pbx
    await _members_on_disk(desk)
    await desk.lab.daemon.kill()
    if how == "killed":
        await pbx.kill()
        await pbx.boot()
    else:
        await pbx.restart()
    await desk.listen_in()
    await desk.phone("chen", TAKES)

    call = await desk.call("w600", site="sz")
    ring = await desk.ring("chen", call)
    assert (ring.started_at - call.started_at).total_seconds() < RINGS_WITHIN_S
    await call.ended(WITHIN_S)
    await desk.lab.daemon.start()

    contact = await desk.contact(call)
    assert (contact.source, contact.outcome) == (Source.REPLAY, Outcome.ANSWERED)
    assert contact.call is not None
    assert [leg.engineer for leg in contact.call.legs] == ["chen"]
    await _repaired(desk, contact.external_id)


async def test_a_call_under_which_the_pbx_was_killed_is_closed_and_its_caller_known(
    desk: Desk,
) -> None:
    await desk.phone("wang", "w0.3-a-w1-d1-w600")
    call = await desk.call("w600")
    ring = await desk.ring("wang", call)
    await ring.answered(WITHIN_S)

    async def talking() -> bool:
        return [one.outcome for one in await desk.contacts_of(call)] == [Outcome.ANSWERED]

    await eventually(talking, 10, "they talk")
    await desk.lab.pbx.kill()
    await desk.lab.pbx.boot()
    await desk.listen_in()
    await call.hangup()

    contact = await desk.contact(call)
    assert contact.outcome is Outcome.PBX_LOST
    assert contact.call is not None
    assert [leg.engineer for leg in contact.call.legs] == ["wang"]


async def _repaired(desk: Desk, call_id: str) -> None:
    """Today's ledger balances and lists the call as repaired, as does the command."""
    printed = await desk.lab.daemon.run("ledger")
    assert ": balanced" in printed
    assert f"repaired: {call_id}" in printed

    async def listed() -> bool:
        ledger = await desk.ledger()
        return ledger.balanced and call_id in ledger.repaired

    await eventually(listed, 5, f"the ledger lists {call_id}")


async def _members_on_disk(desk: Desk) -> None:
    """Wait until AstDB, which commits once a second, has committed the queues' members."""
    path = desk.lab.pbx.path("/var/lib/asterisk/astdb.sqlite3")
    query = "SELECT count(*) FROM astdb WHERE key LIKE '/Queue/PersistentMembers/%'"

    def count() -> int:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            found: int = database.execute(query).fetchone()[0]
            return found

    async def committed() -> bool:
        return await asyncio.to_thread(count) >= len(SETUP.tiers) + 1

    await eventually(committed, 10, "the members are on disk")
