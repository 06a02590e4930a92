"""Calls to people through a real PBX: what the phones do, what is said, what contactd learns.

Here stands for contactd its PBX line, its FastAGI listener and somebody who answers its questions;
whole stories, with duty and escalation, are in `test_pages.py`.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Any, Final, cast

import pytest
import pytest_asyncio
from pydantic import SecretStr

from contactd.clock import SystemClock
from contactd.errors import TemporaryFailure
from contactd.lab.desk import PBX_NAME, sounds_folder
from contactd.lab.network import VOICEMAIL, Leg
from contactd.lab.pbx import Lab, open_lab
from contactd.routing.notify import Busy, Notification, Reason, SendState, Trace
from contactd.settings import AgiSettings, HotlineSettings, PbxSettings
from contactd.signals import Signals
from contactd.telephony.agi import AgiListener
from contactd.telephony.intake import Intake
from contactd.telephony.ivr import Ivr
from contactd.telephony.pbx import Pbx, Shared
from contactd.telephony.voice import Voice
from contactd.tickets.contact import Medium, Replay
from contactd.tickets.service import TicketService
from tests.fakes.waiting import WITHIN_S, until
from tests.real.desk import eventually, spelled

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

TICKET = "26112000015"
PIN = "4711"
RING_S = 5.0
_PLAYED = re.compile(r"<([^>]+)> Playing '([^']+)\.\w+' \(language '(\w+)'\)")


class NoCalls:
    """Nobody calls the hotline here: the PBX's records have nothing to say."""

    async def replay(self, batch: Replay) -> list[Any]:
        return []


@dataclass(slots=True)
class Office:
    """Who answers the keys; `away`: as if the database were."""

    away: bool = False
    keys: list[tuple[str, str, str, float]] = field(default_factory=list)  # ref, digit, PIN, when
    confirmed: list[tuple[str, str]] = field(default_factory=list)
    outcomes: list[tuple[str, SendState]] = field(default_factory=list)

    async def page(self, ref: str, digit: str, pin: str) -> str:
        if self.away:
            raise TemporaryFailure("the database is away")
        self.keys.append((ref, digit, pin, time.time()))
        if pin not in ("", PIN):
            return "pin"
        return {"1": "taken", "2": "passed", "4": "on_way", "5": "taken"}.get(digit, "late")

    async def confirm(self, ref: str, digit: str) -> str:
        self.confirmed.append((ref, digit))
        return {"1": "closed", "2": "reopened"}.get(digit, "late")

    async def outcome(self, ref: str, state: SendState) -> None:
        self.outcomes.append((ref, state))

    def keys_of(self, ref: str) -> list[tuple[str, str]]:
        return [(digit, pin) for one, digit, pin, _ in self.keys if one == ref]

    def confirmed_by(self, ref: str) -> list[str]:
        return [digit for one, digit in self.confirmed if one == ref]

    def became(self, ref: str) -> list[SendState]:
        return [state for one, state in self.outcomes if one == ref]

    def waited_s(self, ref: str, ring: Leg) -> float:
        """Return the seconds from the end of a ring to the last answer."""
        assert ring.ended_at is not None
        return (
            next(at for one, _, _, at in self.keys[::-1] if one == ref) - ring.ended_at.timestamp()
        )


@dataclass(slots=True, kw_only=True)
class Exchange:
    lab: Lab
    line: Pbx
    voice: Voice
    office: Office
    sent: dict[str, Notification] = field(default_factory=dict)
    numbers: dict[str, str] = field(default_factory=dict)  # of the phones, by ref
    rings: dict[str, Leg] = field(default_factory=dict)

    async def page(self, ref: str, story: "Story") -> None:
        """Ring a phone of its own for the story."""
        number = self.numbers[ref] = f"138{len(self.numbers):08}"
        await self.lab.network.phone(number, story.script)
        self.sent[ref] = Notification(
            ref=ref, ticket=TICKET, recipient="wang", medium=Medium.CALL, address=f"+86{number}",
            language=story.language, reason=story.reason, facts={"site": "gz"} | dict(story.facts),
        )  # fmt: skip
        await self.voice.send(self.sent[ref])

    async def rung(self, ref: str) -> Leg:
        if ref not in self.rings:
            self.rings[ref] = await self.lab.network.wait_ring(self.numbers[ref], WITHIN_S)
        return self.rings[ref]

    async def ended(self, ref: str, within_s: float = 90.0) -> None:
        await (await self.rung(ref)).ended(within_s)

    def times_rung(self, ref: str) -> int:
        return sum(ring.number == self.numbers[ref] for ring in self.lab.network.rings)

    def heard(self, ref: str) -> list[str]:
        """Return what was played to a person, in order: `zh:contactd/page-new`, …"""
        log = self.lab.pbx.path("/var/log/asterisk/heard").read_text(encoding="utf-8")
        local = f"Local/86{self.numbers[ref]}@"
        return [
            f"{language}:{sound}"
            for channel, sound, language in _PLAYED.findall(log)
            if channel.startswith(local)
        ]

    async def conference(self) -> list[str]:
        """Return the channels in the ticket's conference."""
        listing = await self.lab.pbx.cli(f"confbridge list ticket-{TICKET}")
        return re.findall(r"^(Local/\S+)", listing, flags=re.MULTILINE)


@asynccontextmanager
async def exchange(*, channels: int = 40, office: Office | None = None) -> AsyncIterator[Exchange]:
    """Run PBX, phones and line; `channels` calls at a time."""
    office = office or Office()
    tickets = cast(TicketService, NoCalls())
    async with open_lab(sounds=sounds_folder(), options={"MENU_WAIT": "1"}) as lab:
        await lab.pbx.cli("logger add channel heard verbose(3)")
        ivr = Ivr(
            tickets=tickets, intake=cast(Intake, None), page_answer=office.page,
            confirm_answer=office.confirm, clock=SystemClock(), default_queue="desk",
        )  # fmt: skip
        settings = PbxSettings(
            name=PBX_NAME, host=lab.pbx.host, port=lab.pbx.ami_port,
            secret=SecretStr(lab.pbx.ami_secret), cel_path=lab.pbx.cel_path,
            queue_log_path=lab.pbx.queue_log_path, write_roster=False, page_channels=channels,
        )  # fmt: skip
        line = Pbx(settings, HotlineSettings(page_ring_s=RING_S), _shared(tickets, office))
        listener = AgiListener(AgiSettings(host=lab.pbx.host, port=lab.agi_port), ivr.handlers())
        async with line.running(), listener.running():
            await until(lambda: line.connected)
            yield Exchange(lab=lab, line=line, voice=Voice([line]), office=office)


def _shared(tickets: TicketService, office: Office) -> Shared:
    async def no_rota() -> Any:
        raise AssertionError("nobody asks for the rota here")

    async def no_cursor(name: str) -> str | None:
        return None

    async def settle(day: date, pbx: str, calls: Mapping[str, datetime]) -> object:
        assert not calls, "a page counts as a call of the hotline"
        return None

    return Shared(
        tickets=tickets, intake=cast(Intake, None), duties=no_rota, load_cursor=no_cursor,
        settle=settle, call_outcome=office.outcome, clock=SystemClock(), signals=Signals(),
        zone="Asia/Shanghai",
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What a phone does that is rung, and what about."""

    script: str
    reason: Reason = Reason.NEW
    language: str = "zh"
    facts: Mapping[str, str] = field(default_factory=dict)


STORIES: Final[Mapping[str, Story]] = {
    "takes": Story(script="w0.3-a-w1-d1-w20"),
    "passes": Story(script="w0.3-a-w1-d2-w20", facts={"pin": "1"}),
    "is-on-the-way": Story(script="w0.3-a-w1-d4-w20", reason=Reason.DISPATCH),
    "again": Story(script="w0.3-a-w2-d3-w3-d1-w20", reason=Reason.REOPENED),
    "endlessly-again": Story(script="w0.3-a-w1-" + "d3-w1-" * 9 + "w60"),
    "silent": Story(script="w0.3-a-w90", language="en", facts={"vip": "1", "site": "nowhere"}),
    "machine": Story(script=VOICEMAIL),
    "wrong-keys": Story(script="w0.3-a-w1-d7-w1-d5-w1-d0-w60"),
    "hangs-up": Story(script="w0.3-a-w2-h"),
    "busy": Story(script="b"),
    "refuses": Story(script="r"),
    "away": Story(script="u"),
    "lets-it-ring": Story(script="n"),
    "second-pin": Story(script="w0.3-a-w1-d1-w1-d1234#-w4-d4711#-w20", facts={"pin": "1"}),
    "no-pin": Story(script="w0.3-a-w1-d1-w1-d1#-w4-d2#-w4-d3#-w20", facts={"pin": "1"}),
    "hangs-up-at-pin": Story(script="w0.3-a-w1-d1-w1-d1#-w4-h", facts={"pin": "1"}),
    "solved": Story(script="w0.3-a-w1-d3-w1-d1-w20", reason=Reason.SOLVED, language="en"),
    "not-solved": Story(script="w0.3-a-w1-d2-w20", reason=Reason.REMINDER),
    "says-nothing": Story(script="w0.3-a-w1-h", reason=Reason.SOLVED),
    "is-told-a-code": Story(script="w0.3-a-w90", reason=Reason.CODE, facts={"code": "0429"}),
    "is-told-the-end": Story(script="w0.3-a-w90", reason=Reason.CLOSED, language="en"),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="desk")
async def _desk() -> AsyncIterator[Exchange]:
    """Play all stories side by side; those that say nothing to the end take a minute."""
    async with exchange() as found:
        for ref, story in STORIES.items():
            await found.page(ref, story)
        await asyncio.gather(*(found.ended(ref) for ref in STORIES))
        await until(lambda: {ref for ref, _ in found.office.outcomes} == STORIES.keys())
        yield found


@pytest.mark.parametrize(
    ("ref", "key", "said"),
    [
        ("takes", "1", "page-taken"),
        ("passes", "2", "page-passed"),  # without a PIN
        ("is-on-the-way", "4", "page-on-way"),
        ("again", "1", "page-taken"),
    ],
)
async def test_a_key_is_told_to_contactd_and_what_it_did_to_the_person(
    desk: Exchange, ref: str, key: str, said: str
) -> None:
    assert desk.office.keys_of(ref) == [(key, "")]
    assert desk.office.became(ref) == [SendState.DELIVERED]
    assert desk.heard(ref)[-1] == f"zh:contactd/{said}"


async def test_a_page_says_what_it_is_about_where_and_how_to_answer(desk: Exchange) -> None:
    about = [
        "contactd/page-new", "contactd/site-unknown", "contactd/offer-vip",
        "contactd/offer-ticket", *spelled(TICKET), "contactd/page-keys",
    ]  # fmt: skip
    assert desk.heard("silent") == [
        *(f"en:{sound}" for sound in 3 * about), "en:contactd/goodbye"
    ]  # fmt: skip
    assert desk.heard("is-on-the-way")[0] == "zh:contactd/page-dispatch"


async def test_key_3_says_it_again_but_not_for_ever(desk: Exchange) -> None:
    assert desk.heard("again").count("zh:contactd/page-reopened") == 2
    assert desk.heard("endlessly-again").count("zh:contactd/page-new") == 6
    assert desk.office.keys_of("endlessly-again") == [("", "")]


@pytest.mark.parametrize("ref", ["silent", "machine", "wrong-keys"])
async def test_without_a_key_that_means_something_nobody_was_reached(
    desk: Exchange, ref: str
) -> None:
    assert desk.office.keys_of(ref) == [("", "")]
    assert desk.office.became(ref) == [SendState.DELIVERED]
    assert len([sound for sound in desk.heard(ref) if sound.endswith("/page-new")]) == 3


@pytest.mark.parametrize("ref", ["hangs-up", "hangs-up-at-pin"])
async def test_who_hangs_up_instead_of_answering_is_known_at_once(desk: Exchange, ref: str) -> None:
    assert desk.office.keys_of(ref)[-1] == ("", "")
    assert desk.office.waited_s(ref, desk.rings[ref]) < 1


@pytest.mark.parametrize("ref", ["busy", "refuses", "away", "lets-it-ring"])
async def test_a_phone_that_is_not_picked_up_was_not_reached(desk: Exchange, ref: str) -> None:
    assert desk.office.became(ref) == [SendState.NOT_REACHED]
    assert desk.office.keys_of(ref) == []
    assert desk.times_rung(ref) == 1
    ring = desk.rings[ref]
    assert ring.ended_at is not None
    rang_s = (ring.ended_at - ring.started_at).total_seconds()
    assert rang_s == pytest.approx(RING_S if ref == "lets-it-ring" else 0, abs=0.5)


async def test_a_wrong_pin_is_asked_for_again_three_times_at_most(desk: Exchange) -> None:
    assert desk.office.keys_of("second-pin") == [("1", "1234"), ("1", PIN)]
    assert desk.heard("second-pin")[-4:] == zh(
        "contactd/page-pin", "contactd/page-pin-wrong", "contactd/page-pin", "contactd/page-taken"
    )
    assert desk.office.keys_of("no-pin") == [("1", "1"), ("1", "2"), ("1", "3"), ("", "")]
    assert desk.heard("no-pin")[-2:] == zh("contactd/page-pin-wrong", "contactd/goodbye")
    assert "zh:contactd/page-pin" not in desk.heard("passes")


async def test_who_reported_a_fault_says_whether_it_is_solved(desk: Exchange) -> None:
    assert desk.office.confirmed_by("solved") == ["1"]
    assert desk.office.confirmed_by("not-solved") == ["2"]
    assert desk.office.confirmed_by("says-nothing") == [""]
    assert desk.heard("solved").count("en:contactd/hello-your-ticket") == 2
    assert desk.heard("solved")[-2:] == ["en:contactd/confirm-closed", "en:contactd/goodbye"]
    assert desk.heard("not-solved")[0] == "zh:contactd/hello-your-ticket"
    assert desk.heard("not-solved")[-2:] == zh("contactd/confirm-reopened", "contactd/goodbye")


async def test_a_code_is_told_twice_and_nothing_is_asked(desk: Exchange) -> None:
    told = [
        "contactd/hello-your-ticket", *spelled(TICKET), "contactd/tell-code", *spelled("0429")
    ]  # fmt: skip
    assert desk.heard("is-told-a-code") == zh(*told, *told, "contactd/goodbye")
    assert "en:contactd/tell-closed" in desk.heard("is-told-the-end")
    assert desk.office.confirmed_by("is-told-a-code") == []
    assert desk.office.keys_of("is-told-a-code") == []


async def test_each_phone_rang_once(desk: Exchange) -> None:
    assert {ref: desk.times_rung(ref) for ref in STORIES} == dict.fromkeys(STORIES, 1)


async def test_what_was_dialled_is_found_while_it_lives_and_afterwards(desk: Exchange) -> None:
    await desk.page("looked-up", Story(script="n"))
    await desk.rung("looked-up")
    assert await desk.voice.find("looked-up") is Trace.SENT
    await desk.voice.stop(["looked-up"])
    await desk.ended("looked-up")
    assert await desk.voice.find("looked-up") is Trace.SENT
    assert await desk.voice.find("looked") is Trace.NEVER
    await desk.voice.send(desk.sent["takes"])  # found after a crash, perhaps: rings once more


async def test_dialling_again_what_rings_rings_once(desk: Exchange) -> None:
    await desk.page("twice", Story(script="w1-n"))
    await desk.rung("twice")
    await desk.voice.send(desk.sent["twice"])
    await asyncio.sleep(1)
    assert desk.times_rung("twice") == 1
    await desk.voice.stop(["twice"])


async def test_a_phone_that_rings_is_stopped_and_who_has_picked_up_is_not(desk: Exchange) -> None:
    await desk.page("rings", Story(script="n"))
    await desk.page("listens", Story(script="w0.3-a-w3-d1-w10"))
    ringing, listening = await desk.rung("rings"), await desk.rung("listens")
    await listening.answered(WITHIN_S)
    await until(lambda: desk.office.became("listens") == [SendState.DELIVERED])
    stopped_at = datetime.now(UTC)
    await desk.voice.stop(["rings", "listens", "never heard of"])
    await ringing.ended(WITHIN_S)
    assert ringing.answered_at is None
    assert ringing.ended_at is not None
    assert (ringing.ended_at - stopped_at).total_seconds() < 1
    await listening.ended(WITHIN_S)
    assert desk.office.keys_of("listens") == [("1", "")]
    assert desk.office.became("rings") == []  # whoever stopped it knows
    await desk.voice.stop(["rings"])  # over


async def test_those_who_press_5_meet_in_the_tickets_conference(desk: Exchange) -> None:
    facts = {"conference": "1"}
    joins = Story(script="w0.3-a-w1-d5-w600", reason=Reason.NEW, facts=facts)
    await desk.page("joins", joins)
    await desk.page("joins-too", replace(joins, language="en"))
    await desk.page("takes-alone", replace(joins, script="w0.3-a-w1-d1-w30"))
    await desk.ended("takes-alone", 30)

    async def met() -> bool:
        return len(await desk.conference()) == 2

    await eventually(met, 20, "both are in the conference")
    assert desk.office.keys_of("joins") == desk.office.keys_of("joins-too") == [("5", "")]
    said = zh("contactd/page-taken", "contactd/page-conference", "beep")  # and: somebody has come
    assert desk.heard("joins")[-3:] == said
    for ref in ("joins", "joins-too"):
        ring = next(ring for ring in desk.lab.network.rings if ring.number == desk.numbers[ref])
        assert not ring.is_over
        await ring.hangup()
        await ring.ended(WITHIN_S)

    async def left() -> bool:
        return not await desk.conference()

    await eventually(left, 5, "nobody is in the conference")
    assert desk.office.keys_of("joins") == [("5", "")]  # leaving it is no answer


async def test_no_more_calls_at_a_time_than_allowed() -> None:
    async with exchange(channels=2) as desk:
        await desk.page("one", Story(script="n"))
        await desk.page("two", Story(script="w0.3-a-w1-h"))
        with pytest.raises(Busy):
            await desk.page("three", Story(script="n"))
        await desk.ended("two")
        await eventually(lambda: _sent(desk, "three"), 5, "there is room again")
        assert desk.times_rung("three") == 0 or desk.times_rung("three") == 1
        await desk.rung("three")
        await desk.ended("one")
        assert [desk.times_rung(ref) for ref in ("one", "two", "three")] == [1, 1, 1]


async def _sent(desk: Exchange, ref: str) -> bool:
    try:
        await desk.voice.send(desk.sent[ref])
    except Busy:
        return False
    return True


async def test_with_contactd_away_the_key_is_not_acknowledged_and_the_conference_is_there() -> None:
    async with exchange() as desk:
        await desk.page("cut-off", Story(script="w1-a-w1-d5-w10", facts={"conference": "1"}))
        await desk.rung("cut-off")
        desk.office.away = True
        await desk.ended("cut-off", 20)
    assert desk.office.keys_of("cut-off") == []


def zh(*sounds: str) -> list[str]:
    return [f"zh:{sound}" for sound in sounds]
