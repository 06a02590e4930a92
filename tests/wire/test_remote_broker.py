"""The broker on real sockets, with a real store: who sees what, and when it ends."""

import asyncio
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from contactd.remote import broker, legs, room, sockets
from contactd.store.engine import Database
from contactd.tickets import agreement
from contactd.tickets.contact import Blob
from contactd.tickets.journal import SYSTEM
from contactd.tickets.people import Role
from contactd.tickets.remote import Ending, Mode, Right, State
from contactd.tickets.sharing import Kind, Session
from tests.fakes.clock import FakeClock
from tests.fakes.desk import VIP, Desk
from tests.fakes.remote import PIXELS, Helper, Helping, Page, Viewer, running_help
from tests.fakes.remote_desk import Guest, agreed, consent
from tests.fakes.waiting import eventually

SHIFT = 0xFFE1


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "TICK_S", 0.05)


@pytest.fixture
async def desk(database: Database, clock: FakeClock) -> Desk:
    desk = Desk(database, clock)
    await desk.load()
    return desk


@pytest.fixture
async def helping(desk: Desk, tmp_path: Path) -> AsyncIterator[Helping]:
    async with running_help(desk, tmp_path) as running:
        yield running


@dataclass(slots=True, kw_only=True)
class Case:
    """A session in which `wang` helps."""

    helping: Helping
    guest: Guest
    helper: Helper
    page: Page
    viewer: Viewer

    async def session(self) -> Session:
        found = await self.helping.desk.remote.session(self.guest.session)
        assert found is not None
        return found

    async def ended(self) -> Session:
        async def over() -> Session | None:
            found = await self.session()
            return found if found.state is State.ENDED else None

        found = await eventually(over)
        assert found is not None
        return found

    async def frozen(self) -> Session:
        async def is_frozen() -> Session | None:
            found = await self.session()
            return found if found.legs[-1].settled and not found.open_legs else None

        found = await eventually(is_frozen)
        assert found is not None
        return found


async def joined(
    helping: Helping, mode: Mode = Mode.CONTROL, ticket: str = ""
) -> tuple[Guest, Page]:
    """Let a user agree, and `wang` open the session's page."""
    guest = await agreed(helping.desk, mode, ticket)
    await helping.desk.remote.claim(guest.session, user="wang", engineer="王伟")
    return guest, await helping.engineer(guest.session, "wang", "王伟")


async def shown(helping: Helping) -> Case:
    """Let `wang` see a user's screen."""
    guest, page = await joined(helping)
    helper = await helping.helper(guest)
    await helper.answer()
    await page.state("active", you_leg=1)
    viewer = await helping.viewer(guest.session, "wang")
    await viewer.shake()
    assert await viewer.picture() == PIXELS
    return Case(helping=helping, guest=guest, helper=helper, page=page, viewer=viewer)


async def pictures(viewer: Viewer, count: int) -> None:
    for _ in range(count):
        await viewer.picture()


async def settled(viewer: Viewer) -> None:
    """Wait until the server has everything that the viewer sent."""
    await viewer.picture()


# Letting in


async def test_the_engineer_sees_the_screen_after_the_users_yes(helping: Helping) -> None:
    guest, page = await joined(helping)
    helper = await helping.helper(guest)
    asked = await helper.told("ask")
    assert (asked["kind"], asked["engineer"]) == ("consent", "王伟")
    assert asked["rights"] == ["clipboard", "control", "view"]
    assert helper.started_legs == []

    await helper.answer()
    await page.state("active", you_leg=1)
    viewer = await helping.viewer(guest.session, "wang")
    assert await viewer.shake() == (64, 48, "fake")
    assert await viewer.picture() == PIXELS
    assert await helping.desk.journal(guest.ticket, "remote.started")


async def test_the_user_is_asked_only_when_both_sides_are_there(helping: Helping) -> None:
    guest = await agreed(helping.desk)
    helper = await helping.helper(guest)
    stranger = await helping.engineer(guest.session, "li")
    await stranger.state("agreed", helper=True, asked="")
    await helping.desk.remote.claim(guest.session, user="wang", engineer="王伟")
    await asyncio.sleep(0.05)
    assert [each["type"] for each in helper.page.heard if each["type"] == "ask"] == []
    await helping.engineer(guest.session, "wang", "王伟")
    assert (await helper.told("ask"))["engineer"] == "王伟"


async def test_a_claim_made_elsewhere_reaches_a_page_that_waits(helping: Helping) -> None:
    guest = await agreed(helping.desk)
    helper = await helping.helper(guest)
    await helping.engineer(guest.session, "wang", "王伟")
    await helping.desk.remote.claim(guest.session, user="wang", engineer="王伟")
    assert (await helper.told("ask"))["engineer"] == "王伟"


async def test_the_question_is_taken_back_when_the_engineer_leaves(helping: Helping) -> None:
    guest, page = await joined(helping)
    helper = await helping.helper(guest)
    asked = await helper.told("ask")
    await page.leave()
    await helper.told("withdraw", ask=asked["ask"])
    await helper.say("answer", ask=asked["ask"], yes=True, rights=["view"])
    await helping.engineer(guest.session, "wang", "王伟")
    again = await helper.told("ask", ask=asked["ask"] + 1)
    assert again["kind"] == "consent"
    assert helper.started_legs == []


@pytest.mark.parametrize("yes", [False, True])
async def test_a_no_and_a_yes_without_the_screen_end_the_session(
    helping: Helping, *, yes: bool
) -> None:
    guest, page = await joined(helping)
    helper = await helping.helper(guest)
    await helper.answer(yes=yes, rights=["control"])
    assert await helper.closed() == 4002
    assert await page.closed() == 4002
    assert helper.started_legs == []
    found = await helping.desk.remote.session(guest.session)
    assert found is not None
    assert (found.ending, found.legs) == (Ending.REFUSED, ())


async def test_silence_is_a_no(helping: Helping, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "SILENT_S", 0.05)
    guest, page = await joined(helping)
    helper = await helping.helper(guest)
    assert await helper.closed() == 4002
    assert await page.closed() == 4002
    assert helper.started_legs == []


async def test_rights_that_were_not_asked_for_are_not_given(helping: Helping) -> None:
    guest, page = await joined(helping, Mode.VIEW)
    user = await helping.share(guest)
    await user.answer(rights=["view", "control", "clipboard"])
    state = await page.state("active")
    assert state["rights"] == ["view"]


async def test_further_sessions_wait_when_there_are_too_many(desk: Desk, tmp_path: Path) -> None:
    async with running_help(desk, tmp_path, max_sessions=1) as helping:
        case = await shown(helping)
        guest, page = await joined(helping, ticket=await desk.call(VIP))
        helper = await helping.helper(guest)
        await page.told("error", text="busy")
        assert await case.viewer.picture() == PIXELS
        assert not [each for each in helper.page.heard if each["type"] == "ask"]


# Ends


async def test_the_users_stop_reaches_both_windows_of_the_engineer(helping: Helping) -> None:
    case = await shown(helping)
    await case.helper.stop()
    assert await case.viewer.closed() == 4001
    assert await case.page.closed() == 4001
    assert await case.helper.closed() == 4001
    assert (await case.ended()).ending is Ending.STOPPED


async def test_a_stop_without_a_socket_is_as_good(helping: Helping) -> None:
    case = await shown(helping)
    await helping.broker.stop(case.guest.session)
    assert await case.viewer.closed() == 4001
    assert await case.helper.closed() == 4001
    assert (await case.ended()).ending is Ending.STOPPED


async def test_the_engineer_ends_it(helping: Helping) -> None:
    case = await shown(helping)
    await case.page.say("end")
    assert await case.viewer.closed() == 4000
    assert (await case.helper.told("end"))["ending"] == "done"
    assert await case.helper.closed() == 4000
    assert (await case.ended()).ending is Ending.DONE


async def test_an_end_in_the_store_cuts_what_is_live(helping: Helping) -> None:
    case = await shown(helping)
    await helping.desk.remote.end(case.guest.session, Ending.CLOSED, SYSTEM)
    assert await case.viewer.closed() == 4011
    assert await case.helper.closed() == 4011
    assert await case.page.closed() == 4011


@pytest.mark.parametrize(
    ("limits", "code"), [({"idle_s": 1}, 4004), ({"total_s": 1}, 4005)], ids=["idle", "long"]
)
async def test_limits_of_time_end_it(
    desk: Desk, tmp_path: Path, limits: dict[str, Any], code: int
) -> None:
    async with running_help(desk, tmp_path, **limits) as helping:
        case = await shown(helping)
        if "total_s" in limits:
            desk.clock.advance(timedelta(seconds=2))
        assert await case.viewer.closed() == code
        assert await case.helper.closed() == code
        assert (await case.ended()).ending in (Ending.IDLE, Ending.TOO_LONG)


async def test_who_types_is_not_idle(desk: Desk, tmp_path: Path) -> None:
    async with running_help(desk, tmp_path, idle_s=1) as helping:
        case = await shown(helping)
        for _ in range(8):
            await case.viewer.press(SHIFT)
            await asyncio.sleep(0.2)
        assert (await case.session()).state is State.ACTIVE


# Input


async def test_keys_pass_with_the_right_and_are_counted(helping: Helping) -> None:
    case = await shown(helping)
    await case.viewer.press(ord("a"))
    await case.viewer.point(3, 4, buttons=1)
    await case.viewer.point(3, 4)
    await settled(case.viewer)
    assert case.helper.vnc.typed == [
        struct.pack(">BBxxI", 4, 1, ord("a")),
        struct.pack(">BBxxI", 4, 0, ord("a")),
        struct.pack(">BBHH", 5, 1, 3, 4),
        struct.pack(">BBHH", 5, 0, 3, 4),
    ]
    state = await case.page.told("state", counts={"keys": 1, "clicks": 1, "bytes": 24_654})
    assert state["engineers"] == ["王伟"]


async def test_no_key_passes_while_the_user_is_asked(helping: Helping) -> None:
    case = await shown(helping)
    await case.viewer.key(SHIFT)
    await settled(case.viewer)
    await case.page.say("ask", kind="rights", rights=["clipboard"])
    await case.helper.told("ask", kind="rights")
    await case.viewer.press(ord("y"))
    await settled(case.viewer)
    pressed = [struct.unpack(">BBxxI", each) for each in case.helper.vnc.typed]
    assert pressed == [(4, 1, SHIFT), (4, 0, SHIFT)], "what was held is let go of"
    await case.helper.answer("rights")
    await case.page.told("answered", kind="rights")
    await case.page.state("active", asked="")
    await case.viewer.key(ord("z"))
    await settled(case.viewer)
    assert struct.unpack(">BBxxI", case.helper.vnc.typed[-1]) == (4, 1, ord("z"))


async def test_the_engineers_own_switch_drops_their_input(helping: Helping) -> None:
    case = await shown(helping)
    await case.page.say("view_only", on=True)
    await case.page.say("chat", text="看着")
    await case.page.told("chat")
    await case.viewer.press(ord("a"))
    await settled(case.viewer)
    assert case.helper.vnc.typed == []


async def test_what_the_user_takes_back_is_gone_and_kept(helping: Helping) -> None:
    case = await shown(helping)
    await case.helper.say("rights", rights=["view"])
    await case.page.state("active", rights=["view"])
    await case.helper.told("rights", leg=1, rights=["view"])
    await case.viewer.press(ord("a"))
    await settled(case.viewer)
    assert case.helper.vnc.typed == []
    (leg,) = (await case.session()).open_legs
    assert leg.rights == {Right.VIEW}
    assert await helping.desk.journal(case.guest.ticket, "remote.rights")


async def test_who_takes_back_the_screen_itself_freezes_the_session(helping: Helping) -> None:
    case = await shown(helping)
    await case.helper.say("rights", rights=["control"])
    assert await case.viewer.closed() == 4006
    await case.page.state("frozen")


async def test_more_rights_need_a_yes(helping: Helping) -> None:
    guest, page = await joined(helping)
    helper = await helping.helper(guest)
    await helper.answer(rights=["view"])
    await page.state("active", rights=["view"])
    await page.say("ask", kind="rights", rights=["control"])
    await helper.answer("rights", yes=False)
    await page.told("answered", kind="rights", yes=False)
    await page.state("active", rights=["view"], asked="")
    await page.say("ask", kind="rights", rights=["control"])
    await helper.told("ask", ask=3)
    await helper.answer("rights")
    await page.state("active", rights=["control", "view"])
    assert await helping.desk.journal(guest.ticket, "remote.declined")


async def test_the_clipboard_passes_both_ways_with_the_right_only(helping: Helping) -> None:
    case = await shown(helping)
    await case.page.say("clipboard", text="打印机")
    assert (await case.helper.told("clipboard"))["text"] == "打印机"
    await case.helper.say("clipboard", text="号码")
    assert (await case.page.told("clipboard"))["text"] == "号码"
    await case.helper.say("rights", rights=["view", "control"])
    await case.page.state("active", rights=["control", "view"])
    await case.page.say("clipboard", text="不行")
    await case.page.told("error", text="not_allowed")
    await case.helper.say("clipboard", text="也不行")
    await case.page.say("chat", text="完")
    await case.page.told("chat")
    assert len([each for each in case.page.heard if each["type"] == "clipboard"]) == 1
    assert len([each for each in case.helper.page.heard if each["type"] == "clipboard"]) == 1


# Losing and finding again


async def test_a_lost_helper_freezes_and_only_the_user_goes_on(helping: Helping) -> None:
    case = await shown(helping)
    await case.helper.leave()
    assert await case.viewer.closed() == 4006
    assert (await case.page.state("frozen"))["helper"] is False
    found = await case.frozen()
    assert found.legs[0].leg.ending is Ending.LOST

    again = await helping.helper(case.guest, key=case.helper.resume_key)
    await again.told("ask", kind="consent")
    assert again.started_legs == []
    await again.answer()
    await case.page.state("active", you_leg=2)
    viewer = await helping.viewer(case.guest.session, "wang")
    await viewer.shake()
    assert await viewer.picture() == PIXELS


async def test_a_lost_picture_freezes_and_the_user_is_asked_again(helping: Helping) -> None:
    case = await shown(helping)
    await case.viewer.leave()
    await case.helper.told("close", leg=1)
    again = await case.helper.told("ask", ask=2)
    assert again["kind"] == "consent"
    assert case.helper.started_legs == [1]


async def test_a_vnc_server_that_ends_freezes(helping: Helping) -> None:
    case = await shown(helping)
    await case.helper.say("leg_ended", leg=1, reason="server")
    assert await case.viewer.closed() == 4006
    assert (await case.frozen()).state is State.FROZEN


async def test_a_viewer_that_takes_nothing_is_lost(
    helping: Helping, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "STALL_S", 0.3)
    case = await shown(helping)
    for _ in range(4000):  # 48 MB of pictures that nobody reads
        await case.viewer.write(struct.pack(">BBHHHH", 3, 0, 0, 0, 64, 48))
    assert (await case.frozen()).legs[0].leg.ending is Ending.LOST


async def test_a_picture_that_nobody_opens_is_closed(
    helping: Helping, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "BEGIN_S", 0.1)
    guest, page = await joined(helping)
    helper = await helping.helper(guest)
    await helper.answer()
    await helper.told("close", leg=1)
    await page.state("frozen")


async def test_a_stopping_daemon_freezes_and_the_next_keeps_the_recording(
    desk: Desk, tmp_path: Path
) -> None:
    async with running_help(desk, tmp_path) as helping:
        case = await shown(helping)
        helping.broker.end_streams()
        assert await case.viewer.closed() in (1001, 4006)
        found = await case.frozen()
    assert found.state is State.FROZEN
    assert found.legs[0].recording is not None


async def test_what_a_killed_daemon_recorded_is_adopted(desk: Desk, tmp_path: Path) -> None:
    guest = await agreed(desk)
    await desk.remote.claim(guest.session, user="wang", engineer="王伟")
    await desk.remote.open_leg(guest.session, consent())
    folder = tmp_path / "remote"
    folder.mkdir()
    (folder / f"{guest.session}-1.fbs").write_bytes(b"FBS 001.001\n")
    (folder / "77-1.fbs").write_bytes(b"settled long ago")
    async with running_help(desk, tmp_path) as helping:
        found = await desk.remote.session(guest.session)
        assert found is not None
        assert found.state is State.FROZEN
        record = found.legs[0]
        assert record.settled
        assert record.leg.ending is Ending.LOST
        assert record.recording is not None
        path = helping.blobs.path(record.recording.sha256)
        assert path.read_bytes() == b"FBS 001.001\n"
        assert list(folder.iterdir()) == []


# Hand-over and look


async def test_a_hand_over_needs_the_users_yes_and_ends_the_first_leg(helping: Helping) -> None:
    case = await shown(helping)
    other = await helping.engineer(case.guest.session, "li", "李娜")
    assert (await other.state("active"))["you"] == "waiting"
    await case.page.say("ask", kind="hand_over", to="li")
    asked = await case.helper.told("ask", kind="hand_over")
    assert asked["engineer"] == "李娜"
    await case.helper.answer("hand_over")
    assert await case.viewer.closed() == 4007
    await other.state("active", you_leg=2, engineers=["李娜"])
    assert (await case.page.state("active", you_leg=0))["you"] == "waiting"
    viewer = await helping.viewer(case.guest.session, "li")
    await viewer.shake()
    assert await viewer.picture() == PIXELS
    await case.helper.told("bar", engineers=["李娜"])
    assert case.helper.started_legs == [1, 2]


async def test_a_hand_over_that_the_user_declines_changes_nothing(helping: Helping) -> None:
    case = await shown(helping)
    await helping.engineer(case.guest.session, "li", "李娜")
    await case.page.say("ask", kind="hand_over", to="li")
    await case.helper.answer("hand_over", yes=False)
    await case.page.told("answered", kind="hand_over", yes=False)
    assert await case.viewer.picture() == PIXELS
    assert case.helper.started_legs == [1]


async def test_a_supervisor_looks_with_the_users_yes_and_can_do_nothing(helping: Helping) -> None:
    case = await shown(helping)
    boss = await helping.engineer(case.guest.session, "sun", "孙明", Role.SUPERVISOR)
    await boss.say("look")
    asked = await case.helper.told("ask", kind="look")
    assert (asked["engineer"], asked["rights"]) == ("孙明", ["view"])
    await case.helper.answer("look")
    await boss.state("active", you="looker", you_leg=2, lookers=["孙明"])
    await case.helper.told("bar", engineers=["王伟"], lookers=["孙明"])
    viewer = await helping.viewer(case.guest.session, "sun")
    await viewer.shake()
    await viewer.press(ord("a"))
    assert await viewer.picture() == PIXELS
    assert case.helper.vnc.typed == []
    await viewer.leave()
    await case.helper.told("close", leg=2)
    await case.page.state("active", lookers=[])
    assert await case.viewer.picture() == PIXELS


async def test_only_supervisors_may_ask_to_look(helping: Helping) -> None:
    case = await shown(helping)
    other = await helping.engineer(case.guest.session, "chen", "陈静")
    await other.say("look")
    await other.told("error", text="not_allowed")
    assert not [each for each in case.helper.page.heard if each.get("kind") == "look"]


# What is kept


async def recording(case: Case) -> tuple[Blob, bytes]:
    record = (await case.ended()).legs[0]
    assert record.recording is not None
    path = case.helping.blobs.path(record.recording.sha256)
    return record.recording, path.read_bytes()


async def test_what_was_seen_is_kept_with_its_counts(helping: Helping) -> None:
    case = await shown(helping)
    await case.viewer.press(ord("a"))
    await settled(case.viewer)
    await case.page.say("end")
    blob, content = await recording(case)
    assert blob.media_type == "application/x-vnc-fbs"
    assert content.startswith(b"FBS 001.001\n")
    assert content.count(PIXELS[:4096]) >= 2
    record = (await case.ended()).legs[0]
    assert (record.counts.keys, record.counts.clicks) == (1, 0)
    assert list(helping.folder.iterdir()) == []


async def test_a_recorder_that_fails_ends_the_session(desk: Desk, tmp_path: Path) -> None:
    async with running_help(desk, tmp_path, max_recording_bytes=1 << 20) as helping:
        case = await shown(helping)
        with pytest.raises(ConnectionError):
            await pictures(case.viewer, 100)
        assert case.viewer.socket.close_code == 4008
        assert await case.helper.closed() == 4008
        found = await case.ended()
        assert found.ending is Ending.RECORDER
        kept = found.legs[0].recording
        assert kept is not None
        assert kept.size_bytes <= 1 << 20


async def test_nothing_is_shown_that_cannot_be_recorded(
    helping: Helping, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_tape: legs.Tape) -> None:
        raise legs.RecorderFailed("no space left on device")

    monkeypatch.setattr(legs.Tape, "begin", full)
    guest, page = await joined(helping)
    helper = await helping.helper(guest)
    await helper.answer()
    assert await helper.closed() == 4008
    assert await page.closed() == 4008
    assert helper.started_legs == []


async def test_chat_reaches_both_sides_and_is_kept(helping: Helping) -> None:
    case = await shown(helping)
    user = await helping.share(case.guest)
    await user.say("chat", text="你好")
    assert (await case.page.told("chat", text="你好"))["who"] == "requester"
    await case.page.say("chat", text="请稍等")
    assert (await user.told("chat", text="请稍等"))["who"] == "user:wang"
    await case.helper.told("bar", unread=1)
    late = await helping.share(case.guest)
    await late.told("chat", text="请稍等")
    assert [each.text for each in await helping.desk.remote.chat(case.guest.session)] == [
        "你好",
        "请稍等",
    ]


async def test_words_and_files_of_forms_reach_the_pages(helping: Helping) -> None:
    case = await shown(helping)
    await helping.desk.remote.say(case.guest.session, "requester", "没有脚本")
    assert (await case.page.told("chat"))["text"] == "没有脚本"
    blob = await helping.blobs.put_bytes(b"log", media_type="text/plain", name="app.log")
    await helping.desk.remote.offer_file(case.guest.session, sender="requester", blob=blob)
    told = await case.page.told("file")
    assert (told["name"], told["size"], told["state"]) == ("app.log", 3, "offered")


@pytest.mark.parametrize("yes", [True, False])
async def test_a_file_is_taken_in_the_helpers_window(helping: Helping, *, yes: bool) -> None:
    case = await shown(helping)
    blob = await helping.blobs.put_bytes(b"fix", media_type="text/plain", name="fix.sh")
    await helping.desk.remote.offer_file(case.guest.session, sender="user:wang", blob=blob)
    asked = await case.helper.told("ask", kind="file")
    assert (asked["file"]["name"], asked["engineer"]) == ("fix.sh", "王伟")
    await case.helper.answer("file", yes=yes)
    state = "accepted" if yes else "refused"
    await case.page.told("file", state=state)
    (file,) = await helping.desk.remote.files(case.guest.session)
    assert file.state.value == state


# The bare browser


async def viewing(helping: Helping) -> tuple[Guest, Page, Page]:
    guest, page = await joined(helping, Mode.VIEW)
    user = await helping.share(guest)
    await user.answer()
    await page.state("active", you_leg=1)
    return guest, page, user


async def test_signals_pass_only_on_an_open_leg(helping: Helping) -> None:
    guest, page = await joined(helping, Mode.VIEW)
    user = await helping.share(guest)
    await user.told("ask")
    await page.say("signal", leg=1, data={"description": {"sdp": "too early"}})
    await user.answer()
    await page.state("active", you_leg=1)
    await page.say("signal", leg=1, data={"description": {"sdp": "v=0"}})
    await user.told("signal", leg=1, data={"description": {"sdp": "v=0"}})
    await user.say("signal", leg=1, data={"candidate": {"candidate": "c"}})
    await page.told("signal", leg=1, data={"candidate": {"candidate": "c"}})
    assert not [each for each in user.heard if "too early" in str(each)]


async def test_nobody_else_gets_the_signals_of_a_leg(helping: Helping) -> None:
    guest, page, user = await viewing(helping)
    other = await helping.engineer(guest.session, "li")
    second = await helping.share(guest)
    await other.say("signal", leg=1, data={"description": {"sdp": "stolen"}})
    await second.say("signal", leg=1, data={"description": {"sdp": "not mine"}})
    await user.say("signal", leg=1, data={"description": {"sdp": "v=0"}})
    await page.told("signal")
    assert not [each for each in (*user.heard, *page.heard) if "stolen" in str(each)]
    assert not [each for each in page.heard if "not mine" in str(each)]
    assert not [each for each in other.heard if each["type"] == "signal"]


async def test_the_browsers_recording_is_kept(helping: Helping) -> None:
    guest, page, user = await viewing(helping)
    await user.socket.send_bytes(b"\x01webm-1 ")
    await user.socket.send_bytes(b"\x01webm-2")
    await user.say("chat", text="完")
    await page.told("chat")
    await page.say("end")
    assert await user.closed() == 4000
    blob = await helping.desk.remote.recording(guest.session, 1)
    assert blob is not None
    assert blob.media_type == "video/webm"
    assert helping.blobs.path(blob.sha256).read_bytes() == b"webm-1 webm-2"


async def test_a_browser_that_records_nothing_ends_the_session(
    helping: Helping, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "FIRST_CHUNK_S", 0.1)
    _, page, user = await viewing(helping)
    assert await user.closed() == 4008
    assert await page.closed() == 4008


async def test_closing_the_page_that_shows_the_screen_freezes(helping: Helping) -> None:
    _, page, user = await viewing(helping)
    await user.leave()
    await page.state("frozen")


async def test_a_lesson_shows_the_engineers_screen_and_never_the_users(helping: Helping) -> None:
    guest, page = await joined(helping, Mode.VIEW)
    user = await helping.share(guest)
    await user.told("ask")
    await page.say("signal", leg=0, data={"description": {"sdp": "before"}})
    await page.say("teach", on=True)
    await user.state("agreed", teach=True)
    await page.say("signal", leg=0, data={"description": {"sdp": "a=sendonly"}})
    await user.told("signal", leg=0)
    await user.say("signal", leg=0, data={"description": {"sdp": "a=recvonly"}})
    await page.told("signal", leg=0)
    assert not [each for each in user.heard if "before" in str(each)]
    await user.say("signal", leg=0, data={"description": {"sdp": "v=0\r\na=sendrecv\r\n"}})
    assert await user.closed() == 4009
    assert len([each for each in page.heard if each["type"] == "signal"]) == 1


async def test_a_question_in_control_is_never_answered_on_a_page(helping: Helping) -> None:
    guest, page = await joined(helping)
    user = await helping.share(guest)
    helper = await helping.helper(guest)
    asked = await helper.told("ask")
    await user.say("answer", ask=asked["ask"], yes=True, rights=asked["rights"])
    await user.say("chat", text="完")
    await page.told("chat")
    await asyncio.sleep(0.2)
    assert (await page.state("agreed"))["asked"] == "consent"
    assert helper.started_legs == []


async def test_health_counts_the_sessions(helping: Helping) -> None:
    case = await shown(helping)
    (health,) = helping.broker.health()
    assert health.figures["sessions"] == 1
    assert await case.viewer.picture() == PIXELS


def test_looks_and_questions_have_the_words_of_the_agreement() -> None:
    assert {kind.value for kind in Kind} - {Kind.AGREE.value} == agreement.QUESTIONS
