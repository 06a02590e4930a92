"""Whoever is hostile: no byte of a screen without the user's recorded yes, and one session's cost.

Sockets of other sites, admissions and keys that were used or guessed, messages in every order, and
helpers and viewers that send what they must not.
"""

import asyncio
import itertools
import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from contactd.errors import ContactdError
from contactd.remote import sockets
from contactd.store.engine import Database
from contactd.tickets.journal import REQUESTER
from contactd.tickets.people import Role
from contactd.tickets.remote import Ending, Mode, State
from tests.fakes.clock import FakeClock
from tests.fakes.desk import VIP, Desk
from tests.fakes.remote import PIXELS, Helper, Helping, Page, Viewer, running_help
from tests.fakes.remote_desk import Guest, agreed
from tests.fakes.site import FakeAccounts, FakeIdentity
from tests.fakes.waiting import WITHIN_S, eventually

POLICY = 1008
FORBIDDEN = 4009
WALKS = 30  # at a time; each waits half a second for what must not come


@pytest.fixture
async def desk(database: Database, clock: FakeClock) -> Desk:
    desk = Desk(database, clock)
    await desk.load()
    return desk


@pytest.fixture
async def helping(desk: Desk, tmp_path: Path) -> AsyncIterator[Helping]:
    async with running_help(desk, tmp_path) as running:
        yield running


async def claimed(helping: Helping, mode: Mode = Mode.CONTROL, ticket: str = "") -> Guest:
    guest = await agreed(helping.desk, mode, ticket)
    await helping.desk.remote.claim(guest.session, user="wang", engineer="王伟")
    return guest


async def shown(helping: Helping, ticket: str = "") -> tuple[Guest, Helper, Page, Viewer]:
    guest = await claimed(helping, ticket=ticket)
    helper = await helping.helper(guest, agrees=True)
    page = await helping.engineer(guest.session, "wang", "王伟")
    await page.state("active", you_leg=1)
    viewer = await helping.viewer(guest.session, "wang")
    await viewer.shake()
    return guest, helper, page, viewer


async def said(
    helping: Helping, path: str, first: Mapping[str, Any] | bytes | str, **more: Any
) -> int | None:
    """Open a socket, say one thing, and return the code with which it is closed."""
    socket = await helping.socket(path, **more)
    if isinstance(first, bytes):
        await socket.send_bytes(first)
    else:
        await socket.send_str(first if isinstance(first, str) else json.dumps(first))
    async with asyncio.timeout(WITHIN_S):
        message = await socket.receive()
    assert message.type is not aiohttp.WSMsgType.BINARY
    assert message.type is not aiohttp.WSMsgType.TEXT, message.data
    return socket.close_code


# Who may open a socket


@pytest.mark.parametrize("path", ["/s/live", "/desk/remote/1/live", "/desk/remote/1/screen"])
@pytest.mark.parametrize("origin", [None, "https://evil.example", "null"])
async def test_other_sites_open_no_socket(helping: Helping, path: str, origin: str | None) -> None:
    cookie = await helping.log_in("wang")
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await helping.socket(path, origin=origin, cookie=cookie)
    assert refused.value.status == 403


async def test_no_page_of_a_browser_plays_a_helper(helping: Helping) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await helping.socket("/s/connect")
    assert refused.value.status == 403


@pytest.mark.parametrize("path", ["/desk/remote/1/live", "/desk/remote/1/screen"])
async def test_engineers_have_to_be_logged_in(helping: Helping, path: str) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await helping.socket(path)
    assert refused.value.status == 401


async def test_what_is_no_websocket_is_refused(helping: Helping) -> None:
    async with helping.http.get(helping.site.url + "/s/connect") as answer:
        assert answer.status == 400
    async with helping.http.head(helping.site.url + "/s/connect") as answer:
        assert answer.status == 400


# Admissions


async def test_an_admission_works_once(helping: Helping) -> None:
    guest = await claimed(helping)
    secret = helping.admissions.give(guest.session, REQUESTER, "share")
    page = await Page.opened(await helping.socket("/s/live"), secret)
    await page.told("welcome")
    assert await said(helping, "/s/live", {"type": "hello", "admission": secret}) == POLICY


async def test_an_admission_works_for_a_minute(helping: Helping) -> None:
    guest = await claimed(helping)
    secret = helping.admissions.give(guest.session, REQUESTER, "share")
    helping.desk.clock.advance(timedelta(seconds=60))
    assert await said(helping, "/s/live", {"type": "hello", "admission": secret}) == POLICY


@pytest.mark.parametrize(
    ("door", "person", "path", "who"),
    [
        ("share", REQUESTER, "/desk/remote/{}/live", "wang"),
        ("share", REQUESTER, "/desk/remote/{}/screen", "wang"),
        ("desk", "wang", "/s/live", ""),
        ("screen", "wang", "/s/live", ""),
        ("desk", "wang", "/desk/remote/{}/screen", "wang"),
        ("screen", "wang", "/desk/remote/{}/live", "wang"),
        ("desk", "wang", "/desk/remote/{}/live", "li"),
        ("screen", "wang", "/desk/remote/{}/screen", "li"),
        ("desk", "wang", "/desk/remote/77/live", "wang"),
        ("screen", REQUESTER, "/desk/remote/{}/screen", "wang"),
    ],
)
async def test_an_admission_opens_one_door_to_one_person(
    helping: Helping, door: str, person: str, path: str, who: str
) -> None:
    guest, _helper, _page, viewer = await shown(helping)
    await viewer.picture()
    cookie = await helping.log_in(who) if who else ""
    secret = helping.admissions.give(guest.session, person, door)
    hello = {"type": "hello", "admission": secret}
    assert await said(helping, path.format(guest.session), hello, cookie=cookie) == POLICY
    assert await said(helping, "/s/live", hello) == POLICY, "it is used up"


async def test_who_does_not_see_the_site_is_not_let_in(
    helping: Helping, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest = await claimed(helping)
    cookie = await helping.log_in("chen")
    found = await helping.desk.remote.session(guest.session)
    assert found is not None
    secret = helping.admissions.give(guest.session, "chen", "desk")
    hello = {"type": "hello", "admission": secret}

    async def of_sz(_accounts: FakeAccounts, _secret: str) -> FakeIdentity:
        return FakeIdentity(name="chen", role=Role.ENGINEER, sites=frozenset({"sz"}))

    monkeypatch.setattr(FakeAccounts, "find_session", of_sz)
    path = f"/desk/remote/{guest.session}/live"
    assert found.site == "gz"
    assert await said(helping, path, hello, cookie=cookie) == POLICY


@pytest.mark.parametrize(
    "first",
    [
        "", "{", "[]", "7", '{"type": 7}', '{"type": "hello"}', "[" * 10_000,
        '{"type": "hello", "admission": 7}', '{"type": "hello", "admission": ""}',
        '{"type": "stop"}', b"\x01RFB 003.008\n",
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/s/live", "/s/connect"])
async def test_a_first_frame_that_is_no_hello_opens_nothing(
    helping: Helping, path: str, first: str | bytes
) -> None:
    origin = None if path == "/s/connect" else ""
    assert await said(helping, path, first, origin=origin) in (POLICY, 4003)


async def test_a_frame_that_is_too_long_is_not_read(helping: Helping) -> None:
    assert await said(helping, "/s/connect", "x" * 70_000, origin=None) == 1009


async def test_who_says_nothing_is_let_go(
    helping: Helping, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "FIRST_S", 0.1)
    silent = await helping.socket("/s/live")
    async with asyncio.timeout(WITHIN_S):
        await silent.receive()
    assert silent.close_code == POLICY


async def test_silent_strangers_leave_room(
    helping: Helping, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "MOST_STRANGERS", 2)
    waiting = [await helping.socket("/s/live") for _ in range(2)]
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await helping.socket("/s/live")
    assert refused.value.status == 503
    for each in waiting:
        await each.close()


# Keys


async def test_a_helpers_key_works_once_and_so_does_that_to_come_back(helping: Helping) -> None:
    guest = await claimed(helping)
    key = await helping.desk.remote.helper_key(guest.session)
    helper = await helping.helper(guest, key=key)
    hello = {"type": "hello", "version": 1, "key": key}
    assert await said(helping, "/s/connect", hello, origin=None) == 4003
    again = await helping.helper(guest, key=helper.resume_key)
    assert await helper.closed() == 4006
    used = {**hello, "key": helper.resume_key}
    assert await said(helping, "/s/connect", used, origin=None) == 4003
    assert again.resume_key != helper.resume_key


async def test_guessed_keys_lock_their_address(
    helping: Helping, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "WRONG_KEYS", 5)
    guest = await claimed(helping)
    for number in range(5):
        hello = {"type": "hello", "version": 1, "key": f"guess-{number}"}
        assert await said(helping, "/s/connect", hello, origin=None) == 4003
    right = await helping.desk.remote.helper_key(guest.session)
    hello = {"type": "hello", "version": 1, "key": right}
    assert await said(helping, "/s/connect", hello, origin=None) == 4003
    helping.desk.clock.advance(timedelta(seconds=61))
    await helping.helper(guest, key=right)


async def test_no_secret_is_in_the_log(
    helping: Helping, capsys: pytest.CaptureFixture[str]
) -> None:
    guest, helper, page, viewer = await shown(helping)
    shared = helping.admissions.give(guest.session, REQUESTER, "share")
    user = await Page.opened(await helping.socket("/s/live"), shared)
    await page.say("clipboard", text="密码一二三")
    await user.say("chat", text="我的密码")
    await page.told("chat")
    await viewer.press(ord("p"))
    await viewer.picture()
    await said(helping, "/s/live", {"type": "hello", "admission": shared})
    await helper.stop()
    await page.closed()
    log = "".join(capsys.readouterr())
    assert "remote.leg_opened" in log
    for secret in (shared, helper.resume_key, guest.secret, guest.code, "密码", "王伟"):
        assert secret not in log, secret


# No byte of a screen without a recorded yes

Step = Callable[["Walk"], Awaitable[None]]


class Walk:
    """One session on which everything is tried but the user's yes."""

    def __init__(self, helping: Helping, guest: Guest) -> None:
        self.helping, self.guest = helping, guest
        self.helper: Helper | None = None
        self.pages: list[Page] = []
        self.shares: list[Page] = []
        self.viewers: list[Viewer] = []

    async def start_helper(self) -> None:
        self.helper = await self.helping.helper(self.guest)

    async def claim(self) -> None:
        await self.helping.desk.remote.claim(self.guest.session, user="wang", engineer="王伟")

    async def open_page(self) -> None:
        self.pages.append(await self.helping.engineer(self.guest.session, "wang", "王伟"))

    async def open_screen(self) -> None:
        self.viewers.append(await self.helping.viewer(self.guest.session, "wang"))

    async def answer_for_the_user(self) -> None:
        """The engineer, or a second page of the user, says yes: neither is whom we ask."""
        self.shares.append(await self.helping.share(self.guest))
        for page in (*self.pages, *self.shares):
            for number in (1, 2):
                await page.say("answer", ask=number, yes=True, rights=["view", "control"])

    async def speak_out_of_turn(self) -> None:
        """A helper that sends its screen unasked."""
        if self.helper is not None:
            await self.helper.say("answer", ask=99, yes=True, rights=["view"])
            await self.helper.say("rights", rights=["view", "control", "clipboard"])
            await self.helper.say("started", leg=1)
            await self.helper.socket.send_bytes(b"\x01RFB 003.008\n")

    async def seen(self) -> bytes:
        """Return what any viewer ever got."""
        found = b""
        for viewer in self.viewers:
            try:
                async with asyncio.timeout(0.3):
                    async for message in viewer.socket:
                        if message.type is aiohttp.WSMsgType.BINARY:
                            found += message.data
            except TimeoutError:
                pass
        return found


STEPS: list[Step] = [
    Walk.start_helper, Walk.claim, Walk.open_page, Walk.open_screen, Walk.answer_for_the_user,
    Walk.speak_out_of_turn,
]  # fmt: skip


@pytest.mark.timeout(300)
@pytest.mark.parametrize("sixth", range(6))
async def test_no_order_of_messages_shows_a_screen_without_a_yes(
    helping: Helping, database_url: str, sixth: int
) -> None:
    # Each step once first: all 720 orders. What a database may change is tried with some of them.
    apart = 1 if database_url.startswith("sqlite") else 20
    orders = list(itertools.permutations(STEPS))[sixth * 120 : (sixth + 1) * 120 : apart]
    # Then both sides are there, which is what a wrong yes needs.
    ready = (Walk.start_helper, Walk.claim, Walk.open_page)
    orders.append((*ready, *list(itertools.permutations(STEPS[3:]))[sixth]))
    callers = itertools.count(13_800_001_000)
    for start in range(0, len(orders), WALKS):
        async with asyncio.TaskGroup() as tasks:
            for order in orders[start : start + WALKS]:
                ticket = await helping.desk.call(str(next(callers)))
                guest = await agreed(helping.desk, ticket=ticket)
                tasks.create_task(walk_along(Walk(helping, guest), order))


async def walk_along(walk: Walk, order: Sequence[Step]) -> None:
    for step in order:
        try:
            await step(walk)
        except (ConnectionError, AssertionError, TimeoutError, ContactdError):
            continue  # what was said before has ended it
    names = [step.__name__ for step in order]
    await asyncio.sleep(0.2)  # what was said wrongly would be done by then
    assert await walk.seen() == b"", names
    found = await walk.helping.desk.remote.session(walk.guest.session)
    assert found is not None
    assert found.legs == (), names
    assert found.state in (State.AGREED, State.ENDED), names
    if walk.helper is not None:
        assert walk.helper.started_legs == [], names
        await walk.helper.leave()
    for page in (*walk.pages, *walk.shares):
        await page.leave()
    for viewer in walk.viewers:
        await viewer.leave()


@pytest.mark.parametrize("how", ["no", "silence", "withdrawn"])
async def test_the_vnc_server_is_never_started_without_a_yes(
    helping: Helping, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "silence":
        monkeypatch.setattr("contactd.remote.room.SILENT_S", 0.05)
    guest = await claimed(helping)
    page = await helping.engineer(guest.session, "wang", "王伟")
    helper = await helping.helper(guest)
    asked = await helper.told("ask")
    if how == "no":
        await helper.answer(yes=False)
    if how == "withdrawn":
        await page.leave()
        await helper.told("withdraw")
        await helper.say("answer", ask=asked["ask"], yes=True, rights=["view"])
        await asyncio.sleep(0.05)
    else:
        assert await helper.closed() == 4002
    assert helper.started_legs == []
    found = await helping.desk.remote.session(guest.session)
    assert found is not None
    assert found.legs == ()


async def test_after_the_end_nothing_opens_any_more(helping: Helping) -> None:
    guest, helper, page, viewer = await shown(helping)
    desk_secret = helping.admissions.give(guest.session, "wang", "screen")
    await helper.stop()
    await viewer.closed()
    await page.closed()
    cookie = await helping.log_in("wang")
    path = f"/desk/remote/{guest.session}/screen"
    hello = {"type": "hello", "admission": desk_secret}
    assert await said(helping, path, hello, cookie=cookie) == POLICY
    back = {"type": "hello", "version": 1, "key": helper.resume_key}
    assert await said(helping, "/s/connect", back, origin=None) == 4003


async def test_frames_after_the_cut_go_nowhere(helping: Helping) -> None:
    guest, helper, page, viewer = await shown(helping)
    await page.say("view_only", on=False)
    await viewer.leave()
    await helper.told("close", leg=1)
    await helper.told("ask", ask=2)
    await helper.socket.send_bytes(b"\x01" + PIXELS)
    await helper.say("answer", ask=2, yes=True, rights=["view"])
    await page.state("active", you_leg=2)
    second = await helping.viewer(guest.session, "wang")
    assert await second.read(12) == b"RFB 003.008\n"


async def test_one_leg_has_one_picture(helping: Helping) -> None:
    guest, _helper, _page, viewer = await shown(helping)
    second = await helping.viewer(guest.session, "wang")
    assert await second.closed() == POLICY
    assert await viewer.picture() == PIXELS


async def test_a_leg_is_shown_to_nobody_else(helping: Helping) -> None:
    guest, _helper, _page, viewer = await shown(helping)
    other = await helping.viewer(guest.session, "li")
    assert await other.closed() == POLICY
    assert await viewer.picture() == PIXELS


# What a hostile peer costs


@pytest.mark.parametrize(
    "bad",
    [
        '{"type": "open", "leg": 1}', '{"type": "answer"}', '{"type": "answer", "ask": true}',
        '{"type": "rights", "rights": "view"}', '{"type": "rights", "rights": ["root"]}',
        '{"type": "rights", "rights": [["view"]]}', '{"type": "leg_ended", "leg": -1}',
        '{"type": "clipboard", "text": 7}', "not json", "[" * 9000, "{}", '{"type": []}',
        '{"type": "chat", "text": "' + "x" * 20_000 + '"}',
        b"", b"\x02" + PIXELS[:100], b"\xff", b"\x00",
    ],
)  # fmt: skip
async def test_a_hostile_helper_costs_its_own_session(helping: Helping, bad: str | bytes) -> None:
    guest, helper, _page, viewer = await shown(helping)
    _, _, _, other = await shown(helping, await helping.desk.call(VIP))
    if isinstance(bad, bytes):
        await helper.socket.send_bytes(bad)
    else:
        await helper.socket.send_str(bad)
    assert await helper.closed() == FORBIDDEN
    assert await viewer.closed() == FORBIDDEN

    async def ended() -> bool:
        found = await helping.desk.remote.session(guest.session)
        return found is not None and found.ending is Ending.FORBIDDEN

    await eventually(ended)
    assert await other.picture() == PIXELS


@pytest.mark.parametrize(
    "bad",
    [
        b"\x07", b"\xfb\x00\x01\x02", b"\xfc", b"\x06" + struct.pack(">xxxI", 0xFFFFFFFF),
        b"\x02\x00\xff\xff", "words where a picture is",
    ],
)  # fmt: skip
async def test_a_hostile_viewer_costs_its_own_session(helping: Helping, bad: str | bytes) -> None:
    _, helper, _page, viewer = await shown(helping)
    _, _, _, other = await shown(helping, await helping.desk.call(VIP))
    if isinstance(bad, bytes):
        if bad[0] == 0xFB:  # its length is known: it is dropped, nothing more
            await viewer.write(bad + bytes(8 + 16 * 1))
            bad = b"\x07"
        await viewer.write(bad)
    else:
        await viewer.socket.send_str(bad)
    assert await viewer.closed() == FORBIDDEN
    assert await helper.closed() == FORBIDDEN
    assert await other.picture() == PIXELS


@pytest.mark.parametrize(
    "bad",
    [
        "not json", '{"type": "started"}', '{"type": "chat"}', '{"type": "chat", "text": 7}',
        '{"type": "ask", "kind": "root"}', '{"type": "signal", "leg": 1}',
        '{"type": "signal", "leg": "1", "data": {}}', '{"type": "ask", "kind": "hand_over"}',
        '{"type": "answer", "ask": 1, "yes": true}', b"\x01bytes",
    ],
)  # fmt: skip
async def test_a_hostile_page_costs_itself(helping: Helping, bad: str | bytes) -> None:
    guest, _helper, page, viewer = await shown(helping)
    other = await helping.engineer(guest.session, "li", "李娜")
    if isinstance(bad, bytes):
        await other.socket.send_bytes(bad)
    else:
        await other.socket.send_str(bad)
    assert await other.closed() == FORBIDDEN
    assert await viewer.picture() == PIXELS
    await page.state("active", you_leg=1)


async def test_a_vnc_server_that_talks_to_nobody_is_cut(helping: Helping) -> None:
    guest = await claimed(helping)
    page = await helping.engineer(guest.session, "wang", "王伟")
    helper = await helping.helper(guest, agrees=True)
    await page.state("active", you_leg=1)
    await until_started(helper)
    for _ in range(3):
        await helper.socket.send_bytes(b"\x01" + bytes(60_000))
    assert await helper.closed() == FORBIDDEN


async def until_started(helper: Helper) -> None:
    async def started() -> bool:
        return bool(helper.started_legs)

    await eventually(started)


async def test_nobody_is_worn_down_by_questions(
    helping: Helping, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("contactd.remote.room.MOST_ASKS", 3)
    _, helper, page, _viewer = await shown(helping)
    helper.agrees = False
    for number in (2, 3):
        await page.say("ask", kind="rights", rights=["control"])
        await helper.told("ask", ask=number)
        await helper.answer("rights", yes=False)
        await page.told("answered", ask=number)
        await page.state("active", asked="")
    await page.say("ask", kind="rights", rights=["control"])
    await page.told("error", text="asked")


async def test_a_flood_of_words_is_slowed_down_and_held_nowhere(helping: Helping) -> None:
    guest, _helper, page, viewer = await shown(helping)
    other = await helping.engineer(guest.session, "li", "李娜")
    for _ in range(300):
        await other.say("alive")
    assert await viewer.picture() == PIXELS
    await page.say("chat", text="还在")
    await page.told("chat", text="还在")
