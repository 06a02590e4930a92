"""The sip gateway: what it reads of the dialplan's files, and what it asks of the PBX.

The files are as Asterisk writes them, damaged as a disk damages them; Asterisk itself is in
`tests/real/test_sip_texts.py`.
"""

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from contactd.errors import PermanentFailure, TemporaryFailure
from contactd.routing.notify import SendUnknown, Trace
from contactd.service import HealthState
from contactd.settings import SipSettings
from contactd.sms.gateway import Incoming, Unroutable
from contactd.sms.sip import BLOCK_BYTES, LONGEST_OUT, NOT_PASSED_ON, SipGateway, number_of, parsed
from tests.fakes.clock import FakeClock
from tests.fakes.sms import FakeInbox, Fault, handed, outgoing
from tests.fakes.sms_sip import (
    LOOK_EVERY_S,
    FakeBookmark,
    FakePbx,
    SipProvider,
    line,
    sip_provider,
    words_of,
)
from tests.fakes.waiting import until

NOW = datetime(2026, 11, 22, 20, 0, 0, 123456, tzinfo=UTC)
WANG = "+8613800000001"


@pytest.fixture(name="provider")
async def _provider() -> AsyncIterator[SipProvider]:
    async with sip_provider(FakeClock(NOW)) as provider:
        yield provider


@pytest.fixture(name="pbx")
def _pbx(tmp_path: Path) -> FakePbx:
    return FakePbx(folder=tmp_path, clock=FakeClock(NOW))


@asynccontextmanager
async def reading(
    pbx: FakePbx, inbox: FakeInbox, bookmark: FakeBookmark | None = None
) -> AsyncIterator[SipGateway]:
    gateway = gateway_of(pbx, inbox, bookmark)
    async with gateway.running():
        yield gateway


def gateway_of(
    pbx: FakePbx, read_by: FakeInbox | None = None, bookmark: FakeBookmark | None = None,
    **changes: Any,
) -> SipGateway:  # fmt: skip
    given = {"inbox": pbx.inbox, "look_every_s": LOOK_EVERY_S, **changes}
    return SipGateway(
        SipSettings.model_validate(given), read_by or FakeInbox(), pbx.clock,
        send_action=pbx.send, bookmark=bookmark or FakeBookmark(),
    )  # fmt: skip


def texts(number: int, *, first: int = 0, at: datetime = NOW) -> list[bytes]:
    return [
        line(WANG, f"text {n}", at=at + timedelta(seconds=n), call=f"c-{n}")
        for n in range(first, first + number)
    ]


def words(inbox: FakeInbox) -> list[str]:
    return [each.text for each in inbox.texts]


async def some_looks() -> None:
    await asyncio.sleep(5 * LOOK_EVERY_S)


def one(raw: bytes) -> Incoming:
    (text,), bad = parsed(raw.rstrip(b"\n"))
    assert bad == 0
    return text


# Lines


@pytest.mark.parametrize(
    "text",
    [
        "", "1", "逗号，, and \"quotes\" 'too'", "two\nlines\r\nthree\ttabs", "😀👨‍👩‍👧 é ﷽",
        "${EPOCH} $[1+1] \\n ; % contactd-text,", "x" * 1_023, "中" * 341, "\x01\x1b[2J\x7f",
    ],
)  # fmt: skip
def test_words_come_as_they_were_written(text: str) -> None:
    assert one(line(WANG, text, at=NOW)).text == text


def test_a_line_says_who_wrote_to_whom_and_when() -> None:
    text = one(line(WANG, "x", at=NOW))
    assert (text.sender, text.recipient, text.received_at) == (WANG, "106581234", NOW)
    assert not text.is_repaired


def test_a_text_that_the_pbx_could_not_hold_says_so() -> None:
    text = one(line(WANG, "中" * 400, at=NOW))
    assert text.text == NOT_PASSED_ON.format(1_200)


def test_a_text_that_was_cut_keeps_what_there_is() -> None:
    text = one(line(WANG, "the printer", at=NOW, length=200))
    assert text.text == f"the printer {NOT_PASSED_ON.format(200)}"


def test_words_in_no_known_encoding_cost_only_themselves() -> None:
    raw = line(WANG, "abc", at=NOW).replace(base64.b64encode(b"abc"), base64.b64encode(b"a\xff\0"))
    assert one(raw).text == "a\ufffd"


@pytest.mark.parametrize("more", [0, 2, 4])
def test_line_breaks_that_asterisk_took_off_the_end_are_no_loss(more: int) -> None:
    assert one(line(WANG, "the printer", at=NOW, length=11 + more)).text == "the printer"


@pytest.mark.parametrize(
    ("origin", "number"),
    [
        ("<sip:+8613800000001@gsm>", "+8613800000001"),
        ("sip:10086@10.0.0.9:5060", "10086"),
        ('"Wang <sip:1@x>" <sip:13800000001@gw;transport=udp>', "13800000001"),
        ("<sip:%2B8613800000001@gw>", "+8613800000001"),
        ("<sip:+8613800000001;phone-context=cn@gw>", "+8613800000001"),
        ("<tel:+8613800000001;phone-context=cn>", "+8613800000001"),
        ("<tel:+8613800000001@>", "+8613800000001"),
        ("<pjsip:CMCC@gw>", "CMCC"),
        ("<SIP:95588@gw>", "95588"),
        ("<sip:gw>", ""),
        ("<sip:1%0d%0aEvent:x@gw>", "1Event:x"),
        (f"<sip:{'1' * 500}@gw>", "1" * 64),
        ("", ""),
        ("nonsense", ""),
    ],
)
def test_the_sender_is_the_user_in_from(origin: str, number: str) -> None:
    assert number_of(origin) == number


def test_the_same_request_again_is_the_same_text() -> None:
    first = one(line(WANG, "x", at=NOW))
    again = one(line(WANG, "x", at=NOW + timedelta(seconds=4)))
    assert first.id == again.id


@pytest.mark.parametrize(
    "other",
    [
        line(WANG, "x", at=NOW, call="c-2"),
        line(WANG, "y", at=NOW),
        line("+8613800000002", "x", at=NOW),
        # A gateway that begins its Call-IDs anew after each start.
        line(WANG, "x", at=NOW + timedelta(days=1)),
    ],
)
def test_another_request_is_another_text(other: bytes) -> None:
    assert one(line(WANG, "x", at=NOW)).id != one(other).id


def test_without_a_call_id_every_text_is_one_of_its_own() -> None:
    first = one(line(WANG, "1", at=NOW, call=""))
    second = one(line(WANG, "1", at=NOW + timedelta(seconds=1), call=""))
    assert first.id != second.id


WHOLE = line(WANG, "whole", at=NOW).rstrip(b"\n")
LONG = line(WANG, "x" * 99, at=NOW).rstrip(b"\n")


@pytest.mark.parametrize(
    ("raw", "found", "bad"),
    [
        (b"", [], 1),
        (b"\x00\xff nothing of ours", [], 1),
        (b"contactd-text,", [], 1),
        (WHOLE.replace(b"1795", b"xxxx"), [], 1),
        (WHOLE + b",more", [], 1),
        (b"\x00\x00\x00" + WHOLE, ["whole"], 1),
        (WHOLE[:40] + WHOLE, ["whole"], 1),  # the PBX died, and came back
        (WHOLE + WHOLE, ["whole", "whole"], 0),  # it died before the line's end
        (LONG[:-7] + WHOLE, [f"{'x' * 93} {NOT_PASSED_ON.format(99)}", "whole"], 0),
    ],
)
def test_what_is_damaged_costs_itself(raw: bytes, found: list[str], bad: int) -> None:
    read, bad_here = parsed(raw)
    assert ([text.text for text in read], bad_here) == (found, bad)


# Files


async def test_texts_come_in_as_they_are_written(provider: SipProvider) -> None:
    for number in range(3):
        assert await provider.bring(WANG, f"text {number}")
    assert words(provider.inbox) == ["text 0", "text 1", "text 2"]
    (health,) = provider.gateway.health()
    assert (health.component, health.state) == ("sms:sip", HealthState.UP)
    assert health.figures == {"texts": 3, "bad_lines": 0, "silent_s": 0}


async def test_half_a_line_waits_for_its_other_half(pbx: FakePbx) -> None:
    inbox, (first, second) = FakeInbox(), texts(2)
    async with reading(pbx, inbox):
        pbx.write(first, second[:-20])
        await until(lambda: bool(inbox.texts))
        await some_looks()
        assert words(inbox) == ["text 0"]
        pbx.write(second[-20:])
        await until(lambda: len(inbox.texts) == 2)
    assert words(inbox) == ["text 0", "text 1"]


async def test_a_garbage_line_costs_itself_alone(pbx: FakePbx) -> None:
    inbox, (first, second) = FakeInbox(), texts(2)
    pbx.write(first, b"\xde\xad\xbe\xef,,\n", second)
    async with reading(pbx, inbox) as gateway:
        await until(lambda: len(inbox.texts) == 2)
        (health,) = gateway.health()
    assert words(inbox) == ["text 0", "text 1"]
    assert health.figures["bad_lines"] == 1


@pytest.mark.parametrize("size", [BLOCK_BYTES - 1, BLOCK_BYTES, 3 * BLOCK_BYTES + 17])
@pytest.mark.parametrize("end", [b"\n", b""])
async def test_a_huge_line_costs_itself_alone(pbx: FakePbx, size: int, end: bytes) -> None:
    inbox, (first, second) = FakeInbox(), texts(2)
    pbx.write(first, b"A" * size, end, second)
    async with reading(pbx, inbox):
        await until(lambda: len(inbox.texts) == 2)
    assert words(inbox) == ["text 0", "text 1"]


@pytest.mark.parametrize("before", [5, 20, 100])
async def test_a_text_behind_garbage_may_lie_across_blocks(pbx: FakePbx, before: int) -> None:
    inbox, (text,) = FakeInbox(), texts(1)
    pbx.write(b"A" * (BLOCK_BYTES - before), text)
    async with reading(pbx, inbox):
        await until(lambda: bool(inbox.texts))
    assert words(inbox) == ["text 0"]


async def test_more_than_a_block_comes_in_whole_and_in_order(pbx: FakePbx) -> None:
    inbox = FakeInbox()
    pbx.write(*texts(3_000))
    assert pbx.file().stat().st_size > 1.3 * BLOCK_BYTES
    async with reading(pbx, inbox):
        await until(lambda: len(inbox.texts) >= 3_000)
    assert words(inbox) == [f"text {n}" for n in range(3_000)]


async def test_a_look_reads_all_that_is_there(pbx: FakePbx) -> None:
    inbox, tomorrow = FakeInbox(), NOW + timedelta(days=1)
    pbx.write(*texts(3_000))
    pbx.write(*texts(1, first=3_000, at=tomorrow), at=tomorrow)
    async with gateway_of(pbx, inbox, look_every_s=3_600).running():
        await until(lambda: len(inbox.texts) == 3_001)


async def test_after_midnight_there_is_another_file_and_the_old_one_is_read_out(
    pbx: FakePbx,
) -> None:
    inbox, tomorrow = FakeInbox(), NOW + timedelta(days=1)
    first, late = texts(2)
    pbx.write(first)
    async with reading(pbx, inbox):
        await until(lambda: len(inbox.texts) == 1)
        pbx.write(*texts(1, first=2, at=tomorrow), at=tomorrow)
        await until(lambda: len(inbox.texts) == 2)
        pbx.write(late)  # somebody set the PBX's clock back
        await until(lambda: len(inbox.texts) == 3)
    assert words(inbox) == ["text 0", "text 2", "text 1"]


async def test_what_was_written_meanwhile_is_read_after_a_restart_and_nothing_twice(
    pbx: FakePbx,
) -> None:
    inbox, bookmark = FakeInbox(), FakeBookmark()
    pbx.write(*texts(2))
    async with reading(pbx, inbox, bookmark):
        await until(lambda: len(inbox.texts) == 2 and bookmark.position is not None)
    tomorrow = NOW + timedelta(days=1)
    pbx.write(*texts(1, first=2))
    pbx.write(*texts(1, first=3, at=tomorrow), at=tomorrow)
    async with reading(pbx, inbox, bookmark):
        await until(lambda: len(inbox.texts) >= 4)
        await some_looks()
    assert words(inbox) == [f"text {n}" for n in range(4)]


@pytest.mark.parametrize("position", ["nonsense", "[]", '{"contactd-texts-20261122": "x"}', "7"])
async def test_an_unreadable_bookmark_means_from_the_start(pbx: FakePbx, position: str) -> None:
    inbox = FakeInbox()
    pbx.write(*texts(2))
    async with reading(pbx, inbox, FakeBookmark(position=position)):
        await until(lambda: len(inbox.texts) == 2)


@pytest.mark.parametrize("place", [-5, 10_000])
async def test_a_file_that_is_another_one_is_read_from_the_start(pbx: FakePbx, place: int) -> None:
    inbox = FakeInbox()
    pbx.write(*texts(2))
    bookmark = FakeBookmark(position=f'{{"{pbx.file().name}": {place}}}')
    async with reading(pbx, inbox, bookmark):
        await until(lambda: len(inbox.texts) == 2)


async def test_the_bookmark_forgets_files_that_are_gone(pbx: FakePbx) -> None:
    inbox, bookmark = FakeInbox(), FakeBookmark(position='{"contactd-texts-20250101": 77}')
    pbx.write(*texts(1))
    async with reading(pbx, inbox, bookmark):
        await until(lambda: bool(bookmark.saved))
    assert bookmark.position == f'{{"{pbx.file().name}": {pbx.file().stat().st_size}}}'


async def test_other_files_of_the_folder_are_left_alone(pbx: FakePbx) -> None:
    inbox = FakeInbox()
    for name in ("contactd-texts", "contactd-texts-20261122.gz", "xcontactd-texts-20261122"):
        (pbx.folder / name).write_bytes(texts(1)[0])
    pbx.write(*texts(1, first=1))
    async with reading(pbx, inbox):
        await until(lambda: bool(inbox.texts))
        await some_looks()
    assert words(inbox) == ["text 1"]


# Failures


async def test_a_text_that_cannot_be_stored_is_brought_again_and_first(pbx: FakePbx) -> None:
    inbox = FakeInbox(failing=True)
    pbx.write(*texts(2))
    async with reading(pbx, inbox) as gateway:
        await until(lambda: gateway.health()[0].state is HealthState.DOWN)
        assert "the database is away" in gateway.health()[0].detail
        inbox.failing = False
        await until(lambda: gateway.health()[0].state is HealthState.UP)
    assert words(inbox) == ["text 0", "text 1"]


class Weak(FakeInbox):
    """Fails on one text: once because the database is away, or for ever, by a bug."""

    def __init__(self, *, away_at: str = "", broken: str = "") -> None:
        super().__init__()
        self.away_at = away_at
        self.broken = broken

    async def received(self, gateway: str, text: Incoming) -> None:
        if text.text == self.broken:
            raise ValueError("a bug")
        if text.text == self.away_at:
            self.away_at = ""
            raise TemporaryFailure("the database is away")
        await super().received(gateway, text)


async def test_of_a_text_that_was_not_stored_once_nothing_is_lost(pbx: FakePbx) -> None:
    inbox, bookmark = Weak(away_at="text 100"), FakeBookmark()
    pbx.write(*texts(200))
    async with reading(pbx, inbox, bookmark):
        await until(lambda: "text 199" in words(inbox))
        await until(lambda: bool(bookmark.saved))
    assert list(dict.fromkeys(words(inbox))) == [f"text {n}" for n in range(200)]
    assert words(inbox)[:96] == [f"text {n}" for n in range(96)]
    assert len(words(inbox)) < 240  # of those before it only the last ones came again


class Slow(FakeInbox):
    """Takes as long for many texts as for one, as a database does that commits them together."""

    async def received(self, gateway: str, text: Incoming) -> None:
        # The later ones are faster.
        await asyncio.sleep(0.1 if text.text.endswith("0") else 0.05)
        await super().received(gateway, text)


async def test_texts_of_many_people_share_a_commit_and_those_of_one_keep_their_order(
    pbx: FakePbx,
) -> None:
    inbox = Slow()
    for n in range(64):
        for turn in range(2):
            pbx.write(line(f"+86138{n:08}", f"text {turn}", at=NOW, call=f"c-{n}-{turn}"))
    began = asyncio.get_running_loop().time()
    async with reading(pbx, inbox):
        await until(lambda: len(inbox.texts) == 128)
    assert asyncio.get_running_loop().time() - began < 3  # 9.6 s one after the other
    for n in range(64):
        theirs = [each.text for each in inbox.texts if each.sender == f"+86138{n:08}"]
        assert theirs == ["text 0", "text 1"]


async def test_a_text_on_which_we_fail_stops_none_behind_it(pbx: FakePbx) -> None:
    inbox = Weak(broken="text 1")
    pbx.write(*texts(3))
    async with reading(pbx, inbox) as gateway:
        await until(lambda: len(inbox.texts) == 2)
        await until(lambda: gateway.health()[0].figures["texts"] == 3)
    assert words(inbox) == ["text 0", "text 2"]


async def test_while_the_bookmark_is_away_texts_come_in_once(pbx: FakePbx) -> None:
    inbox, bookmark = FakeInbox(), FakeBookmark()
    async with reading(pbx, inbox, bookmark) as gateway:
        await until(lambda: bookmark.saved == 1)
        bookmark.failing = True
        pbx.write(*texts(2))
        await until(lambda: gateway.health()[0].state is HealthState.DOWN)
        bookmark.failing = False
        await until(lambda: bookmark.saved == 2)
        await some_looks()
    assert words(inbox) == ["text 0", "text 1"]
    assert bookmark.position == f'{{"{pbx.file().name}": {pbx.file().stat().st_size}}}'


async def test_nothing_is_saved_while_nothing_comes(pbx: FakePbx) -> None:
    inbox, bookmark = FakeInbox(), FakeBookmark()
    pbx.write(*texts(1))
    async with reading(pbx, inbox, bookmark):
        await until(lambda: bool(bookmark.saved))
        saved = bookmark.saved
        await some_looks()
        assert bookmark.saved == saved


async def test_a_missing_folder_is_named_with_the_setting(pbx: FakePbx, tmp_path: Path) -> None:
    gateway = gateway_of(pbx)
    nowhere = gateway_of(pbx, inbox=tmp_path / "nowhere" / "texts")
    async with nowhere.running(), gateway.running():
        await until(lambda: nowhere.health()[0].state is HealthState.DOWN)
        assert "nowhere" in nowhere.health()[0].detail
        assert "sms.sip.inbox" in nowhere.health()[0].detail
        assert gateway.health()[0].state is HealthState.UP  # no text today is no fault
    with pytest.raises(TemporaryFailure, match=r"sms\.sip\.inbox"):
        await nowhere.listed(NOW, NOW)


# The list


async def test_the_list_has_what_is_in_the_files_each_once(pbx: FakePbx) -> None:
    tomorrow = NOW + timedelta(days=1)
    pbx.write(*texts(3), texts(1)[0], b"garbage\n")
    pbx.write(*texts(1, first=7, at=tomorrow), at=tomorrow)
    gateway, inbox = gateway_of(pbx), FakeInbox()
    listed = await gateway.listed(NOW + timedelta(seconds=1), tomorrow + timedelta(seconds=7))
    assert listed is not None
    assert [text.text for text in listed] == ["text 1", "text 2"]
    everything = await gateway.listed(NOW - timedelta(days=1), tomorrow + timedelta(days=1))
    async with reading(pbx, inbox):
        await until(lambda: len(inbox.texts) == 5)
    assert everything is not None
    assert {text.id for text in everything} == {text.id for text in inbox.texts}


async def test_a_text_of_midnight_is_in_the_list_of_its_day(pbx: FakePbx) -> None:
    midnight = datetime(2026, 11, 23, tzinfo=UTC)
    pbx.write(line(WANG, "midnight", at=midnight))  # in the file of the day before
    pbx.write(line(WANG, "late", at=midnight + timedelta(hours=23), call="c-2"), at=midnight)
    gateway = gateway_of(pbx)
    listed = await gateway.listed(midnight, midnight + timedelta(days=1))
    assert [text.text for text in listed or ()] == ["midnight", "late"]
    assert await gateway.listed(midnight - timedelta(days=1), midnight) == []
    # A day somewhere else in the world
    listed = await gateway.listed(midnight - timedelta(hours=8), midnight + timedelta(hours=23.5))
    assert [text.text for text in listed or ()] == ["midnight", "late"]


async def test_a_request_that_came_again_is_in_the_list_with_its_first_time(pbx: FakePbx) -> None:
    pbx.write(*(line(WANG, "x", at=NOW + timedelta(seconds=n)) for n in range(3)))
    listed = await gateway_of(pbx).listed(NOW, NOW + timedelta(hours=1))
    assert [text.received_at for text in listed or ()] == [NOW]


async def test_who_reads_no_files_has_no_list(pbx: FakePbx) -> None:
    gateway = gateway_of(pbx, inbox=None)
    async with gateway.running():
        assert await gateway.listed(NOW, NOW + timedelta(days=1)) is None
    assert gateway.health()[0].state is HealthState.UP


# Out


async def test_a_text_goes_to_the_pbx_as_it_is(provider: SipProvider) -> None:
    text = '【IT】第一行\n第二行, "x"; 😀'
    assert await provider.gateway.submit(outgoing(text)) == ""
    (headers,) = provider.pbx.taken
    assert headers["To"] == "pjsip:PJSIP/+8613800000001@gsm"
    assert headers["From"] == "sip:contactd@example.com"
    assert words_of(headers) == text
    assert headers.keys() == {"To", "From", "Base64Body"}


async def test_a_gateway_may_want_bare_digits_and_no_from(pbx: FakePbx) -> None:
    gateway = gateway_of(pbx, destination="pjsip:PJSIP/00{digits}@gsm", sender="")
    await gateway.submit(outgoing())
    assert pbx.taken[0]["To"] == "pjsip:PJSIP/008613800000001@gsm"
    assert "From" not in pbx.taken[0]


@pytest.mark.parametrize("text", ["x" * LONGEST_OUT, "中" * (LONGEST_OUT // 3)])
async def test_the_longest_text_fits_into_a_line_of_ami(provider: SipProvider, text: str) -> None:
    await provider.gateway.submit(outgoing(text))
    assert len(f"Base64Body: {provider.pbx.taken[0]['Base64Body']}\r\n") <= 1_024


@pytest.mark.parametrize("text", ["x" * (LONGEST_OUT + 1), "中" * (LONGEST_OUT // 3 + 1)])
async def test_a_longer_one_is_for_another_gateway(provider: SipProvider, text: str) -> None:
    with pytest.raises(Unroutable):
        await provider.gateway.submit(outgoing(text))
    assert provider.pbx.taken == []


@pytest.mark.parametrize("number", ["", "12", "sip:1@x", "+86138\r\nX: y", "1" * 16])
async def test_only_numbers_get_texts(provider: SipProvider, number: str) -> None:
    with pytest.raises(PermanentFailure):
        await provider.gateway.submit(outgoing(number=number))
    assert provider.pbx.taken == []


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ("Permission denied", "manager.conf"),
        ("Message failed to send.", "sms.sip.destination"),
        ("Message technology not found.", "modules.conf"),
        ("Something new", "sms.sip"),
    ],
)
async def test_what_the_pbx_refuses_can_be_tried_again_and_names_the_remedy(
    pbx: FakePbx, words: str, remedy: str
) -> None:
    answers = [{"Response": "Error", "Message": words}, {"Response": "Success"}]

    async def send(headers: Mapping[str, str]) -> Mapping[str, str]:
        return answers.pop(0)

    gateway = SipGateway(
        SipSettings(), FakeInbox(), pbx.clock, send_action=send, bookmark=FakeBookmark()
    )
    with pytest.raises(TemporaryFailure) as failure:
        await gateway.submit(outgoing())
    assert not isinstance(failure.value, SendUnknown)
    (health,) = gateway.health()
    assert health.state is HealthState.DEGRADED
    assert remedy in health.detail
    await gateway.submit(outgoing())
    assert gateway.health()[0].state is HealthState.UP


@pytest.mark.parametrize("failure", [TemporaryFailure("it is away"), SendUnknown("no answer")])
async def test_what_the_link_says_is_passed_on(pbx: FakePbx, failure: TemporaryFailure) -> None:
    async def send(headers: Mapping[str, str]) -> Mapping[str, str]:
        raise failure

    gateway = SipGateway(
        SipSettings(), FakeInbox(), pbx.clock, send_action=send, bookmark=FakeBookmark()
    )
    with pytest.raises(TemporaryFailure) as caught:
        await gateway.submit(outgoing())
    assert caught.value is failure
    assert gateway.health()[0].detail == str(failure)


async def test_without_an_answer_nobody_knows_whether_it_went_out(provider: SipProvider) -> None:
    provider.fail(Fault.SILENT)
    with pytest.raises(SendUnknown):
        await provider.gateway.submit(outgoing())
    assert len(provider.pbx.taken) == 1
    assert "did not answer" in provider.gateway.health()[0].detail


async def test_nobody_knows_what_became_of_a_text(provider: SipProvider) -> None:
    text = outgoing()
    found = await provider.gateway.find(handed(text, "sip", NOW))
    assert found.trace is Trace.UNKNOWN
    assert list(provider.gateway.routes()) == []
