"""Somebody of the desk writes to a requester by text: seen before it is sent, sent once."""

from pathlib import Path

import pytest

from contactd.errors import NotFound, PermanentFailure
from contactd.routing.notify import Reason
from contactd.settings import LogSettings
from contactd.sms.log import LogGateway
from contactd.sms.receiving import Receiving
from contactd.sms.sending import Sending, Way
from contactd.store.blobs import Blobs
from contactd.store.engine import Database
from contactd.store.ledger import Ledger
from contactd.store.texts import Texts
from tests.fakes.clock import FakeClock
from tests.fakes.desk import Desk
from tests.fakes.history import CALLER, document

KEY = "0123456789abcdef-0123456789abcdef"


async def test_what_is_written_is_shown_whole_goes_out_once_and_is_in_the_journal(
    database: Database, clock: FakeClock, tmp_path: Path
) -> None:
    desk = Desk(database, clock)
    await desk.load(**document())
    ticket = await desk.call(CALLER)
    follow_up = desk.core.follow_up
    texts = Texts(database, clock)
    settings = LogSettings(signature="【x】", price=0.05)
    sending = Sending(
        [Way(gateway=LogGateway(settings, clock), settings=settings)],
        texts=texts,
        receiving=Receiving(
            receive=desk.core.tickets.receive,
            outcome=follow_up.outcome,
            put=Blobs(tmp_path).put_bytes,
            texts=texts,
            make_way=database.make_way,
        ),
        settle=Ledger(database, clock, "Asia/Shanghai").settle,
        clock=clock,
        zone="Asia/Shanghai",
        most_per_hour=3,
    )
    quote = sending.quote(await follow_up.draft(ticket, "配件明天到"))
    assert quote.text.startswith(f"【x】工单{ticket}：配件明天到")
    assert quote.size.segments == 1
    refs = {
        await desk.when(follow_up.write(ticket, actor="user:li", words="配件明天到", key=KEY))
        for _ in range(2)
    }
    said = [
        each.notification
        for each in desk.everything
        if each.notification.reason is Reason.SAID
    ]  # fmt: skip
    assert [(each.ref, each.address) for each in said] == [(refs.pop(), "+8613922223333")]
    journal = [each for each in await desk.journal(ticket) if each.action == "requester.written_to"]
    assert [(each.actor, each.body["note"]) for each in journal] == [("user:li", "配件明天到")]


async def test_who_has_no_number_cannot_be_written_to(database: Database, clock: FakeClock) -> None:
    desk = Desk(database, clock)
    await desk.load(**document())
    with pytest.raises(NotFound):
        await desk.core.follow_up.draft("26112000026", "x")
    nameless = await desk.call("")
    with pytest.raises(PermanentFailure):
        await desk.core.follow_up.draft(nameless, "x")
