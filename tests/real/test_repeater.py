"""Repeater mode: a real x11vnc calls in with an ID of the share page, and gets nobody unasked."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from contactd import app
from contactd.errors import ConfigurationError
from contactd.lab.ports import free_port
from contactd.remote import repeater
from contactd.remote.repeater import ID_BYTES, WRONG_IDS, Repeater
from contactd.service import HealthState
from contactd.settings import RemoteSettings
from contactd.store.engine import Database
from contactd.tickets.people import Role
from contactd.tickets.remote import CLOSE_CODES, Ending, Mode, Right, State
from contactd.tickets.sharing import Session
from tests.fakes import config
from tests.fakes.clock import FakeClock
from tests.fakes.desk import Desk
from tests.fakes.desktop import UserDesktop, running_desktop
from tests.fakes.remote import Helping, Page, Viewer, running_help
from tests.fakes.remote_desk import Guest, agreed
from tests.fakes.waiting import eventually

pytestmark = [pytest.mark.real, pytest.mark.timeout(90)]

ENTER = 0xFF0D


@dataclass(slots=True, kw_only=True)
class Case:
    """A user who agreed to repeater mode, their page, and the page of `wang` who helps."""

    helping: Helping
    repeater: Repeater
    guest: Guest
    user: Page
    desk: Page
    calls: list[asyncio.StreamWriter] = field(default_factory=list)

    async def id(self) -> str:
        return await self.helping.desk.remote.repeater_id(self.guest.session)

    async def session(self) -> Session:
        found = await self.helping.desk.remote.session(self.guest.session)
        assert found is not None
        return found

    async def call(self, said: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Call in as a VNC server does, by hand."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.repeater.port)
        self.calls.append(writer)
        writer.write(said)
        return reader, writer

    async def ends_as(self, state: State) -> Session:
        async def is_so() -> Session | None:
            found = await self.session()
            return found if found.state is state and not found.open_legs else None

        found = await eventually(is_so)
        assert found is not None
        return found


@pytest.fixture
async def case(sqlite_url: str, clock: FakeClock, tmp_path: Path) -> AsyncIterator[Case]:
    database = Database(sqlite_url, clock=clock)
    async with database.running():
        desk = Desk(database, clock)
        await desk.load()
        async with standing(desk, tmp_path) as found:
            yield found


@asynccontextmanager
async def standing(desk: Desk, folder: Path) -> AsyncIterator[Case]:
    port = free_port()
    settings = RemoteSettings(repeater_port=port)
    async with running_help(desk, folder, repeater_port=port) as helping:
        listener = Repeater(helping.broker, desk.clock, settings)
        assert listener.health()[0].state is HealthState.DOWN
        async with listener.running():
            assert listener.health()[0].state is HealthState.UP
            guest = await agreed(desk, Mode.REPEATER)
            await desk.remote.claim(guest.session, user="wang", engineer="王伟")
            case = Case(
                helping=helping, repeater=listener, guest=guest,
                user=await helping.share(guest),
                desk=await helping.engineer(guest.session, "wang", "王伟"),
            )  # fmt: skip
            yield case
            for writer in case.calls:
                writer.close()
                with suppress(ConnectionError):
                    await writer.wait_closed()


def said(digits: str) -> bytes:
    return f"ID:{digits}".encode().ljust(ID_BYTES, b"\0")


def x11vnc(user: UserDesktop, case: Case, digits: str) -> None:
    user.start(
        "x11vnc", "-norc", "-noshm", "-nopw", "-quiet", "-rfbport", "0", "-noxdamage",
        "-connect", f"repeater=ID:{digits}+127.0.0.1:{case.repeater.port}",
    )  # fmt: skip


async def typed(viewer: Viewer, words: str) -> None:
    for each in words:
        await viewer.press(ord(each))
        await asyncio.sleep(0.02)


async def test_a_vnc_server_of_the_user_is_seen_and_used_after_their_yes(
    case: Case, tmp_path: Path
) -> None:
    async with running_desktop(tmp_path / "user") as user:
        await user.xterm(tmp_path / "typed")
        x11vnc(user, case, await case.id())
        asked = await case.user.told("ask")
        assert (asked["kind"], asked["engineer"]) == ("consent", "王伟")
        assert asked["rights"] == ["control", "view"]
        before = await case.session()
        assert before.state is State.AGREED
        assert before.legs == ()
        assert list(case.helping.folder.glob("*")) == []  # nothing it said was looked at

        await case.user.answer()
        await case.desk.state("active", you_leg=1)
        viewer = await case.helping.viewer(case.guest.session, "wang")
        assert (await viewer.shake())[:2] == (1024, 768)
        await typed(viewer, "repeater works")
        await viewer.press(ENTER)
        read = (tmp_path / "typed").read_text

        async def has_come() -> bool:
            return read() == "repeater works\n"

        await eventually(has_come)

        boss = await case.helping.engineer(case.guest.session, "sun", "孙明", Role.SUPERVISOR)
        await boss.say("look")
        await boss.told("error", text="not_allowed")  # there is one connection, and no second

        await case.user.say("stop")
        assert await viewer.closed() == CLOSE_CODES[Ending.STOPPED]
        (server,) = [each for each in user.processes if "x11vnc" in str(each.args)]
        await asyncio.to_thread(server.wait, 5)  # it has nobody any more, and ends
        over = await case.ends_as(State.ENDED)
        assert over.ending is Ending.STOPPED
        assert over.legs[0].counts.keys == len("repeater works") + 1
        assert over.legs[0].recording is not None
        assert over.legs[0].leg.rights == {Right.VIEW, Right.CONTROL}


async def test_a_no_gives_nobody_anything(case: Case, tmp_path: Path) -> None:
    async with running_desktop(tmp_path / "user") as user:
        x11vnc(user, case, await case.id())
        await case.user.answer(yes=False)
        over = await case.ends_as(State.ENDED)
        assert over.ending is Ending.REFUSED
        assert over.legs == ()
        assert list(case.helping.folder.glob("*")) == []


async def test_an_id_opens_once_and_nothing_else(case: Case) -> None:
    digits = await case.id()
    await case.call(said(digits))
    await case.desk.state("agreed", helper=True)
    again, _ = await case.call(said(digits))
    assert await again.read() == b""
    await case.desk.state("agreed", helper=True)  # who came first is still there
    helper = await case.helping.helper(case.guest, key=await case.id(), waits=False)
    assert await helper.closed() == CLOSE_CODES[Ending.EXPIRED]


async def test_an_id_ends_after_ten_minutes(case: Case, clock: FakeClock) -> None:
    digits = await case.id()
    clock.advance(timedelta(seconds=601))
    late, _ = await case.call(said(digits))
    assert await late.read() == b""
    assert (await case.session()).state is State.AGREED


@pytest.mark.parametrize(
    "words",
    [
        said("1234567890"),
        b"RFB 003.008\n".ljust(ID_BYTES, b"\0"),
        b"ID:" + b"1" * (ID_BYTES - 3),
        b"GET / HTTP/1.1\r\n\r\n".ljust(ID_BYTES, b" "),
        bytes(ID_BYTES),
    ],
)
async def test_whoever_says_something_else_is_told_nothing(case: Case, words: bytes) -> None:
    reader, _ = await case.call(words)
    assert await reader.read() == b""
    await case.desk.state("agreed", helper=False)


async def test_who_says_nothing_is_let_go(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeater, "ID_S", 0.1)
    reader, _ = await case.call(b"ID:12")
    assert await asyncio.wait_for(reader.read(), 5) == b""


async def test_ids_cannot_be_tried_out(case: Case, clock: FakeClock) -> None:
    for number in range(WRONG_IDS):
        reader, _ = await case.call(said(f"{number:010}"))
        assert await reader.read() == b""
    digits = await case.id()
    reader, _ = await case.call(said(digits))
    assert await reader.read() == b""  # a right one does not help any more
    clock.advance(timedelta(seconds=61))
    await case.call(said(digits))  # it was not even looked at
    await case.desk.state("agreed", helper=True)


async def test_a_server_that_speaks_no_rfb_ends_its_own_session(case: Case) -> None:
    _, writer = await case.call(said(await case.id()))
    writer.write(b"SSH-2.0-OpenSSH_9.2\r\n" * 5)
    await case.user.answer()
    over = await case.ends_as(State.ENDED)
    assert over.ending is Ending.FORBIDDEN
    assert case.repeater.health()[0].state is HealthState.UP


async def test_a_lost_server_freezes_and_comes_back_only_with_a_new_id(case: Case) -> None:
    reader, writer = await case.call(said(await case.id()) + b"RFB 003.008\n")
    await case.user.answer()
    await case.desk.state("active", you_leg=1)
    viewer = await case.helping.viewer(case.guest.session, "wang")
    assert await viewer.read(12) == b"RFB 003.008\n"
    await viewer.write(b"RFB 003.008\n")
    assert await reader.readexactly(12) == b"RFB 003.008\n"
    writer.close()
    await case.ends_as(State.FROZEN)
    assert await viewer.closed() == CLOSE_CODES[Ending.LOST]
    assert [each["kind"] for each in case.user.heard if each["type"] == "ask"] == ["consent"]

    await case.call(said(await case.id()) + b"RFB 003.008\n")

    async def asked_again() -> bool:
        return len([each for each in case.user.heard if each["type"] == "ask"]) == 2

    await eventually(asked_again)
    assert (await case.session()).state is State.FROZEN


async def test_a_port_that_is_taken_is_told_at_the_start(
    sqlite_url: str, clock: FakeClock, tmp_path: Path
) -> None:
    database = Database(sqlite_url, clock=clock)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = RemoteSettings(repeater_port=taken.getsockname()[1])
        async with database.running():
            desk = Desk(database, clock)
            async with running_help(desk, tmp_path) as helping:
                listener = Repeater(helping.broker, clock, settings)
                with pytest.raises(ConfigurationError, match="repeater: cannot listen"):
                    async with listener.running():
                        pass


@pytest.mark.parametrize(
    ("remote", "listens"),
    [
        ({}, False),
        ({"repeater_port": 5500}, True),
        ({"repeater_port": 5500, "enabled": False}, False),
    ],
)
def test_nobody_listens_unless_it_is_turned_on(
    tmp_path: Path, remote: dict[str, object], *, listens: bool
) -> None:
    given = config.settings(tmp_path, config.document(tmp_path) | {"remote": remote})
    assert any(each.name == "repeater" for each in app.build(given)) is listens
