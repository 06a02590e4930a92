"""What the dialplan is answered, on both databases."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
import structlog

from contactd.errors import ActionNotAllowed, PermanentFailure, TemporaryFailure
from contactd.lab.ports import free_port
from contactd.routing.clocks import Metric
from contactd.routing.notify import COURTESIES_WITHIN, MOST_COURTESIES
from contactd.settings import AgiSettings
from contactd.store.desk import load_desk
from contactd.store.engine import Database
from contactd.store.views import Views
from contactd.telephony.agi import AgiListener, AgiRequest
from contactd.telephony.helplink import HelpLink
from contactd.telephony.intake import Intake
from contactd.telephony.ivr import VIP_QUEUE_PRIORITY, Ivr
from contactd.tickets.contact import Medium
from contactd.tickets.journal import REQUESTER
from contactd.tickets.numbers import is_valid
from contactd.tickets.people import PHONE, Address
from contactd.tickets.service import TicketService
from contactd.tickets.states import Action
from tests.fakes.agi import Caller, header
from tests.fakes.clock import FakeClock
from tests.fakes.promised import promise
from tests.fakes.rota import FROM_GZ, STRANGER, VIP, small_desk

DID = "4008001234"
WRONG_NUMBER = "26112000019"
MOBILE = "13912345678"


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


@dataclass(slots=True, kw_only=True)
class Links:
    """Sends nothing: notes to whom a link of which ticket would go."""

    media: frozenset[Medium] = frozenset({Medium.TEXT})
    sent: list[tuple[str, str, str]] = field(default_factory=list)
    fault: Exception | None = None

    async def invite(
        self, number: str, *, actor: str, medium: Medium, to: Address | None = None
    ) -> None:
        assert (medium, to and to.kind) == (Medium.TEXT, PHONE)
        if self.fault is not None:
            raise self.fault
        self.sent.append((number, actor, to.value if to else ""))


class Desk:
    """The dialplan's questions, call by call."""

    def __init__(self, database: Database, tickets: TicketService, clock: FakeClock) -> None:
        self.database = database
        self.views = Views(database, clock)
        self.tickets = tickets
        self.clock = clock
        self.paged: list[tuple[str, str, str]] = []
        self.confirmed: list[tuple[str, str]] = []
        self.links = Links()
        self.help_link: HelpLink | None = HelpLink(self.links, clock, country="CN")
        self.restart()

    def restart(self) -> None:
        """Start contactd again: what is in memory is gone."""
        self.ivr = Ivr(
            tickets=self.tickets, intake=Intake(self.tickets.receive),
            page_answer=self._page_answer, confirm_answer=self._confirm_answer, clock=self.clock,
            default_queue="desk", help_link=self.help_link,
        )  # fmt: skip

    async def promise(self, ticket: str, metric: Metric) -> None:
        due_at = self.clock.now() + timedelta(minutes=30)
        await promise(self.database, ticket, metric, due_at)

    async def _page_answer(self, ref: str, digit: str, pin: str) -> str:
        self.paged.append((ref, digit, pin))
        return "taken"

    async def _confirm_answer(self, ref: str, digit: str) -> str:
        self.confirmed.append((ref, digit))
        return "closed"

    async def ask(
        self, script: str, *args: str, call: int = 1, caller: str = STRANGER, language: str = "zh"
    ) -> list[str]:
        """Ask as the dialplan does: `extension` is the subroutine's own."""
        headers = {
            "uniqueid": f"pbx1-1795140000.{call}", "callerid": caller, "calleridname": "unknown",
            "extension": "s", "dnid": DID, "language": language,
        }  # fmt: skip
        request = AgiRequest(script=script, args=args, headers=headers)
        return list(await self.ivr.handlers()[script](request))


@pytest.fixture
async def desk(database: Database, tickets: TicketService, clock: FakeClock) -> Desk:
    await load_desk(database, small_desk(), clock)
    return Desk(database, tickets, clock)


# arrive


async def test_a_stranger_gets_a_ticket_and_the_default_queue(desk: Desk) -> None:
    ok, ticket, *rest = await desk.ask("arrive", DID)
    assert ok == "ok"
    assert is_valid(ticket)
    assert rest == ["zh", "desk", "0", "0", "", "", "0", "1"]
    (contact,) = (await desk.views.ticket(ticket)).contacts
    assert (contact.from_value, contact.to_value, contact.external_id) == (
        STRANGER, DID, "pbx1-1795140000.1",
    )  # fmt: skip
    assert contact.call is not None
    assert (contact.call.pbx, contact.call.did, contact.call.stage) == ("pbx1", DID, "greeting")


async def test_a_caller_from_a_site_gets_its_queue(desk: Desk) -> None:
    _, _, *rest = await desk.ask("arrive", DID, caller=FROM_GZ)
    assert rest == ["zh", "gz", "0", "0", "gz", "", "0", "1"]


async def test_a_vip_goes_to_the_front_and_is_spoken_to_in_their_language(desk: Desk) -> None:
    _, _, *rest = await desk.ask("arrive", DID, caller=VIP)
    assert rest == ["en", "gz", str(VIP_QUEUE_PRIORITY), "1", "gz", "", "0", "1"]


async def test_a_repeat_caller_hears_of_the_open_ticket_that_the_call_joined(desk: Desk) -> None:
    first = (await desk.ask("arrive", DID))[1]
    _, ticket, *rest = await desk.ask("arrive", DID, call=2)
    assert ticket == first
    assert rest == ["zh", "desk", "0", "0", "", first, "1", "1"]


async def test_who_calls_after_the_joining_time_gets_a_ticket_and_hears_of_the_open_one(
    desk: Desk,
) -> None:
    first = (await desk.ask("arrive", DID))[1]
    desk.clock.advance(timedelta(hours=5))
    _, ticket, *rest = await desk.ask("arrive", DID, call=2)
    assert ticket != first
    assert rest[-3:-1] == [first, "0"]


async def test_the_same_call_asked_again_is_answered_alike_also_after_a_restart(
    desk: Desk,
) -> None:
    first = await desk.ask("arrive", DID, caller=FROM_GZ)
    assert await desk.ask("arrive", DID, caller=FROM_GZ) == first
    desk.restart()
    assert await desk.ask("arrive", DID, caller=FROM_GZ) == first


async def test_callers_without_a_number_never_share_a_ticket(desk: Desk) -> None:
    first = await desk.ask("arrive", DID, caller="unknown")
    second = await desk.ask("arrive", DID, call=2, caller="unknown")
    assert first[1] != second[1]
    (contact,) = (await desk.views.ticket(first[1])).contacts
    assert (contact.from_value, contact.from_name) == ("", "")


async def test_with_the_database_away_the_dialplan_is_not_told_a_ticket(
    desk: Desk, database: Database
) -> None:
    await database.close()
    with pytest.raises(TemporaryFailure):
        await desk.ask("arrive", DID)
    await database.open()
    assert (await desk.ask("arrive", DID))[0] == "ok"


# fault


async def test_a_new_fault_leaves_the_older_ticket_and_keeps_an_own_one(desk: Desk) -> None:
    older = (await desk.ask("arrive", DID))[1]
    assert (await desk.ask("arrive", DID, call=2))[1] == older
    ok, own = await desk.ask("fault", call=2)
    assert ok == "ok"
    assert own != older
    assert await desk.ask("fault", call=2) == ["ok", own]
    assert (await desk.ask("arrive", DID, call=2))[1] == own
    assert len((await desk.views.ticket(older)).contacts) == 1


async def test_a_new_fault_of_a_first_call_keeps_its_ticket(desk: Desk) -> None:
    ticket = (await desk.ask("arrive", DID))[1]
    assert await desk.ask("fault") == ["ok", ticket]


async def test_a_call_that_was_never_filed_is_filed_when_key_1_is_pressed(desk: Desk) -> None:
    _, ticket = await desk.ask("fault", "")
    (contact,) = (await desk.views.ticket(ticket)).contacts
    assert contact.to_value == DID


# progress


async def test_a_caller_is_told_of_the_ticket_they_had_before_this_call(desk: Desk) -> None:
    first = (await desk.ask("arrive", DID))[1]
    await desk.promise(first, Metric.ANSWER)
    await desk.tickets.take(first, "wang", how="web")
    desk.clock.advance(timedelta(hours=5))
    await desk.ask("arrive", DID, call=2)
    ok, found, sounds = await desk.ask("progress", "", call=2)
    assert (ok, found) == ("ok", "found")
    assert sounds.split("&")[:4] == [
        "contactd/progress-is", "contactd/state-in-progress",
        "contactd/engineer-is", "contactd/person-wang",
    ]  # fmt: skip
    assert "contactd/promise-overdue" in sounds


async def test_a_first_caller_has_no_progress_to_hear_of(desk: Desk) -> None:
    await desk.ask("arrive", DID)
    assert await desk.ask("progress", "") == ["ok", "unknown", ""]
    assert await desk.ask("progress") == ["ok", "unknown", ""]


async def test_a_keyed_number_is_looked_up_in_whosever_call(desk: Desk) -> None:
    ticket = (await desk.ask("arrive", DID, caller=VIP))[1]
    await desk.tickets.act(ticket, Action.CANCEL, actor="user:li")
    answer = await desk.ask("progress", ticket, call=2)
    assert answer == ["ok", "found", "contactd/progress-is&contactd/state-cancelled"]


async def test_a_wrong_number_is_unknown(desk: Desk) -> None:
    await desk.ask("arrive", DID)
    for keyed in (WRONG_NUMBER, "1", "abc", "9" * 30, "26112200017"):
        assert await desk.ask("progress", keyed) == ["ok", "unknown", ""]


async def test_the_time_is_said_in_the_callers_language(desk: Desk) -> None:
    ticket = (await desk.ask("arrive", DID))[1]
    await desk.promise(ticket, Metric.ANSWER)
    said = {
        language: (await desk.ask("progress", ticket, language=language))[2].split("&")[-4:]
        for language in ("zh", "en")
    }
    # 10:30 in Shanghai.
    assert said["zh"] == ["contactd/n-10", "contactd/oclock", "contactd/n-30", "contactd/minutes"]
    assert said["en"] == ["contactd/today", "contactd/n-10", "contactd/n-30", "contactd/am"]


async def test_who_waits_for_an_engineer_is_told_when_they_come(desk: Desk) -> None:
    ticket = (await desk.ask("arrive", DID))[1]
    assert "contactd/promise-none" in (await desk.ask("progress", ticket))[2]
    await desk.promise(ticket, Metric.ARRIVAL)
    assert "contactd/promise-arrival&contactd/today&" in (await desk.ask("progress", ticket))[2]


# remote


async def test_key_3_texts_the_link_to_the_number_that_calls_and_the_caller_asks_for_it(
    desk: Desk,
) -> None:
    ticket = (await desk.ask("arrive", DID, caller=MOBILE))[1]
    assert await desk.ask("remote", caller=MOBILE) == ["ok", "sent"]
    assert desk.links.sent == [(ticket, REQUESTER, f"+86{MOBILE}")]


async def test_who_presses_key_3_again_in_a_call_gets_no_second_text(desk: Desk) -> None:
    """An older link works no more: the second would make the first a lie."""
    for _ in range(3):
        assert await desk.ask("remote", caller=MOBILE) == ["ok", "sent"]
    assert len(desk.links.sent) == 1
    assert await desk.ask("remote", call=2, caller=MOBILE) == ["ok", "sent"]
    assert len(desk.links.sent) == 2


async def test_key_3_after_a_new_fault_is_about_that_ticket(desk: Desk) -> None:
    await desk.ask("arrive", DID, caller=MOBILE)
    await desk.ask("arrive", DID, call=2, caller=MOBILE)
    own = (await desk.ask("fault", call=2, caller=MOBILE))[1]
    await desk.ask("remote", call=2, caller=MOBILE)
    assert [ticket for ticket, _, _ in desk.links.sent] == [own]


@pytest.mark.parametrize("caller", ["unknown", "anonymous", "95588", "8001", FROM_GZ])
async def test_a_caller_whom_no_text_reaches_is_told_so(desk: Desk, caller: str) -> None:
    assert await desk.ask("remote", caller=caller) == ["ok", "no_mobile"]
    assert desk.links.sent == []


@pytest.mark.parametrize("fault", [ActionNotAllowed("it is over"), PermanentFailure("no gateway")])
async def test_a_link_that_cannot_be_sent_is_said_and_may_be_asked_for_again(
    desk: Desk, fault: Exception
) -> None:
    desk.links.fault = fault
    assert await desk.ask("remote", caller=MOBILE) == ["ok", "failed"]
    desk.links.fault = TemporaryFailure("the database is away")
    with pytest.raises(TemporaryFailure):
        await desk.ask("remote", caller=MOBILE)
    desk.links.fault = None
    assert await desk.ask("remote", caller=MOBILE) == ["ok", "sent"]


async def test_calls_in_somebodys_name_do_not_flood_their_phone_with_links(desk: Desk) -> None:
    answers = [await desk.ask("remote", call=n, caller=MOBILE) for n in range(20)]
    assert answers == [["ok", "sent"]] * MOST_COURTESIES + [["ok", "failed"]] * (
        20 - MOST_COURTESIES
    )
    assert await desk.ask("remote", call=20, caller="13912345679") == ["ok", "sent"]
    desk.clock.advance(COURTESIES_WITHIN)
    assert await desk.ask("remote", call=21, caller=MOBILE) == ["ok", "sent"]


async def test_key_3_is_offered_only_while_a_text_can_go_out(desk: Desk) -> None:
    assert (await desk.ask("arrive", DID))[-1] == "1"
    desk.links.media = frozenset({Medium.MAIL})
    assert (await desk.ask("arrive", DID))[-1] == "0"


async def test_without_remote_help_key_3_leads_to_a_person(desk: Desk) -> None:
    desk.help_link = None
    desk.restart()
    assert (await desk.ask("arrive", DID))[-1] == "0"
    assert await desk.ask("remote", caller=MOBILE) == ["ok", "failed"]


# calls to people


async def test_a_key_pressed_in_a_page_is_handed_on_with_the_pin(desk: Desk) -> None:
    assert await desk.ask("page", "page-7-0", "1", "") == ["ok", "taken"]
    assert await desk.ask("page", "page-7-0", "4", "4711") == ["ok", "taken"]
    assert await desk.ask("page", "page-7-0", "", "") == ["ok", "taken"]
    assert await desk.ask("page", "page-7-0") == ["ok", "taken"]
    assert await desk.ask("page") == ["ok", "taken"]
    ref = "page-7-0"
    assert desk.paged == [
        (ref, "1", ""),
        (ref, "4", "4711"),
        (ref, "", ""),
        (ref, "", ""),
        ("",) * 3,
    ]


async def test_what_a_requester_says_when_called_back_is_handed_on(desk: Desk) -> None:
    assert await desk.ask("confirm", "solved-7", "1") == ["ok", "closed"]
    assert await desk.ask("confirm", "solved-7", "") == ["ok", "closed"]
    assert await desk.ask("confirm") == ["ok", "closed"]
    assert desk.confirmed == [("solved-7", "1"), ("solved-7", ""), ("", "")]
    assert desk.paged == []


# on the wire


async def test_the_answers_reach_the_dialplan_over_fastagi(desk: Desk) -> None:
    listener = AgiListener(AgiSettings(port=free_port()), desk.ivr.handlers())
    async with listener.running():
        answer = await Caller.ask(listener.port, header("arrive", DID, callerid=FROM_GZ))
        assert answer.fields[0] == "ok"
        assert answer.fields[2:] == ["zh", "gz", "0", "0", "gz", "", "0", "1"]
        ticket = answer.fields[1]
        progress = await Caller.ask(listener.port, header("progress", ticket))
        assert progress.fields[:2] == ["ok", "found"]
