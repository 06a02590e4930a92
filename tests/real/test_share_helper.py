"""contactd-share as a user starts it: Xvfb, x11vnc, its real windows; the broker is a fake one."""

import asyncio
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio
from Xlib import X
from Xlib.display import Display

from contactd.lab.ports import free_port
from tests.fakes.desktop import KeyLog, UserDesktop, running_desktop
from tests.fakes.share_broker import ShareBroker, running_share_broker
from tests.fakes.ticker import sleeper
from tests.fakes.waiting import eventually

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

STOPPED: Final = 4001
KEYS: Final = 60  # that arrive before the press
ROUNDS: Final = 5  # of each case: 6 × 5 = 30 cuts under fire
X_KEY, SHIFT, SUPER = ord("x"), 0xFFE1, 0xFFEB
TEXT: Final = "Aa0!@#~{}|\\<>?_+=-:;\"' zZ9" * 4 + "你好，世界。打印机坏了"


@pytest_asyncio.fixture(name="user")
async def _user(tmp_path: Path) -> AsyncIterator[UserDesktop]:
    async with running_desktop(tmp_path / "desktop") as user:
        yield user


@pytest_asyncio.fixture(name="broker")
async def _broker() -> AsyncIterator[ShareBroker]:
    async with running_share_broker() as broker:
        yield broker


@pytest.fixture(name="late")
def _late() -> Iterator[Callable[[float, float], float]]:
    with sleeper() as late:
        yield late


@asynccontextmanager
async def sharing(
    user: UserDesktop, broker: ShareBroker, tick: tuple[int, ...] = ()
) -> AsyncIterator[subprocess.Popen[bytes]]:
    """Start the helper, agree, and look at the screen."""
    helper = user.helper(broker.invitation)
    await user.answer(yes=True, tick=tick)
    await broker.shake()
    yield helper
    await gone(user, helper)


async def gone(user: UserDesktop, helper: subprocess.Popen[bytes]) -> None:
    await user.until(lambda: helper.poll() is not None, "the end of the helper")
    await user.until(lambda: not user.programs(), f"the end of {user.programs()}")


def lines(path: Path) -> str:
    return path.read_text("utf-8", "replace")


# What it does


async def test_what_the_engineer_types_arrives_to_the_letter(
    user: UserDesktop, broker: ShareBroker, tmp_path: Path
) -> None:
    typed = tmp_path / "typed"
    before = symbols(user)
    await user.xterm(typed)
    async with sharing(user, broker):
        for each in TEXT + "\n":
            await broker.type(each)
            await asyncio.sleep(0.01)
        await user.until(lambda: lines(typed).endswith("\n"), f"the line, not {lines(typed)}")
        assert lines(typed) == TEXT + "\n"
        user.press_hotkey()
    assert broker.said("stop")[0]["by"] == "hotkey"
    assert symbols(user) == before  # keys that were lent to Chinese are given back


async def test_another_server_is_started_where_there_is_no_x11vnc(
    user: UserDesktop, broker: ShareBroker, tmp_path: Path
) -> None:
    programs, temporary, typed = tmp_path / "bin", tmp_path / "tmp", tmp_path / "typed"
    for folder in (programs, temporary):
        folder.mkdir()
    found = shutil.which("X0tigervnc")
    assert found is not None
    (programs / "X0tigervnc").symlink_to(found)
    await user.xterm(typed)
    user.env = {**user.env, "PATH": str(programs), "TMPDIR": str(temporary)}
    async with sharing(user, broker):
        assert broker.said("hello")[0]["server"] == "X0tigervnc"
        assert not list(temporary.iterdir())
        for each in ("hello world ", "你好", "\n"):  # the helper types Chinese, the server the rest
            await broker.type(each)
            await asyncio.sleep(0.5)
        await user.until(lambda: lines(typed).endswith("\n"), f"the line, not {lines(typed)}")
        assert lines(typed) == "hello world 你好\n"
        user.press_hotkey()
    assert not user.keys_down()


def symbols(user: UserDesktop) -> list[list[int]]:
    """Return what is on each key, but for how many symbols there is room."""
    found = user.display.get_keyboard_mapping(8, 248)
    return [[symbol for symbol in key if symbol] for key in found]


async def test_the_bar_names_the_engineer_counts_and_stops(
    user: UserDesktop, broker: ShareBroker
) -> None:
    async with sharing(user, broker):
        assert user.part("control") is not None
        await user.press_part("stop")
    assert broker.said("stop") == [{"type": "stop", "by": "button"}]
    assert broker.code == STOPPED


async def test_a_right_that_the_user_takes_back_is_gone_at_once(
    user: UserDesktop, broker: ShareBroker
) -> None:
    log = KeyLog(user.name)
    async with sharing(user, broker):
        await user.press_part("control")
        await broker.until(lambda: broker.said("rights"))
        assert broker.said("rights")[-1]["rights"] == ["view"]
        log.read()
        before = len(log.presses)
        await broker.type("xxxx")
        await asyncio.sleep(0.3)
        assert len(log.read()) == before
        user.press_hotkey()
    log.close()


async def test_the_clipboard_passes_only_with_its_right(
    user: UserDesktop, broker: ShareBroker
) -> None:
    async with sharing(user, broker):
        await broker.tell("clipboard", text="密码 one")
        await asyncio.sleep(0.5)
        assert clipboard(user) != "密码 one"
        await user.press_part("clipboard")
        await broker.until(lambda: broker.said("rights"))
        await broker.tell("rights", leg=1, rights=["view", "control", "clipboard"])
        await asyncio.sleep(0.3)
        await broker.tell("clipboard", text="密码 two")

        async def has_come() -> bool:
            return clipboard(user) == "密码 two"

        await eventually(has_come)
        user.press_hotkey()


def clipboard(user: UserDesktop) -> str:
    asked = "import tkinter as t; r = t.Tk(); r.withdraw(); print(r.clipboard_get())"
    done = subprocess.run(
        [sys.executable, "-c", asked], env=user.env, capture_output=True, timeout=10, check=False
    )
    return done.stdout.decode().strip()


# Nothing without a yes


async def test_a_refusal_starts_no_server(user: UserDesktop, broker: ShareBroker) -> None:
    helper = user.helper(broker.invitation)
    await user.answer(yes=False)
    await broker.until(lambda: broker.said("answer"))
    assert broker.said("answer") == [{"type": "answer", "ask": 1, "yes": False, "rights": []}]
    assert not user.servers()
    assert not broker.shown
    user.press_hotkey()
    await gone(user, helper)


async def test_closing_the_question_is_a_no(user: UserDesktop, broker: ShareBroker) -> None:
    helper = user.helper(broker.invitation)
    question = await user.window("question")
    await asyncio.sleep(0.2)
    close(user.display, question)
    await broker.until(lambda: broker.said("answer"))
    assert broker.said("answer")[0]["yes"] is False
    assert not user.servers()
    user.press_hotkey()
    await gone(user, helper)


def close(display: Display, window: object) -> None:
    """Ask a window to close as a window manager does."""
    from Xlib.protocol.event import ClientMessage

    atoms = [display.intern_atom(name) for name in ("WM_PROTOCOLS", "WM_DELETE_WINDOW")]
    message = ClientMessage(
        window=window, client_type=atoms[0], data=(32, [atoms[1], X.CurrentTime, 0, 0, 0])
    )
    window.send_event(message)  # type: ignore[attr-defined]
    display.sync()


async def test_a_broker_that_opens_unasked_gets_nothing(
    user: UserDesktop, broker: ShareBroker
) -> None:
    broker.asks = False
    helper = user.helper(broker.invitation)
    await broker.until(lambda: broker.said("hello"))
    await broker.open(1, rights=["view"])
    await gone(user, helper)
    assert not broker.said("started")
    assert not broker.shown


async def test_a_broker_cannot_give_itself_more_than_the_user_did(
    user: UserDesktop, broker: ShareBroker
) -> None:
    async with sharing(user, broker):
        await broker.tell("rights", leg=1, rights=["view", "control", "clipboard"])
    assert broker.said("stop")[0]["by"] == "crash"
    assert not user.servers()


async def test_the_engineer_cannot_answer_for_the_user(
    user: UserDesktop, broker: ShareBroker
) -> None:
    log = KeyLog(user.name)
    async with sharing(user, broker):
        await broker.key(0x20, down=True)  # a key that is held down repeats into what comes up
        await broker.ask(2, "rights", ["clipboard"])
        await user.until(lambda: user.button(yes=True), "a question")
        assert not user.keys_down()
        await asyncio.sleep(0.9)
        log.read()
        log.presses.clear()
        x, y, width, height = user.place(user.button(yes=True))
        for _ in range(5):
            await broker.click(x + width // 2, y + height // 2)
            await broker.type(" \n")
        await asyncio.sleep(0.5)
        assert len(broker.said("answer")) == 1
        assert not log.read()
        assert user.find("question") is not None
        await user.answer(yes=False)
        await broker.until(lambda: len(broker.said("answer")) == 2)
        user.press_hotkey()
    log.close()


async def test_the_engineer_cannot_press_what_is_on_the_bar(
    user: UserDesktop, broker: ShareBroker
) -> None:
    async with sharing(user, broker):
        for part in ("clipboard", "control", "stop"):
            x, y, width, height = user.place(user.part(part))
            await broker.click(x + width // 2, y + height // 2)
        await asyncio.sleep(0.5)
        assert not broker.said("rights")
        assert not broker.said("stop")
        user.press_hotkey()


# The cut


async def _plain(_user: UserDesktop, _broker: ShareBroker) -> None:
    pass


async def _numlock(user: UserDesktop, _broker: ShareBroker) -> None:
    user.press("Num_Lock")


async def _holds_shift(_user: UserDesktop, broker: ShareBroker) -> None:
    await broker.key(SHIFT, down=True)


async def _holds_super(_user: UserDesktop, broker: ShareBroker) -> None:
    await broker.key(SUPER, down=True)


async def _grabbed(user: UserDesktop, _broker: ShareBroker) -> None:
    root = user.display.screen().root
    root.grab_keyboard(True, X.GrabModeAsync, X.GrabModeAsync, X.CurrentTime)
    user.display.sync()


async def _menu(user: UserDesktop, _broker: ShareBroker) -> None:
    """Open a menu of xterm: it holds keyboard and pointer."""
    x, y, *_ = user.place(user.find("xterm"))
    user.key("Control_L", down=True)
    user.display.xtest_fake_input(X.MotionNotify, x=x + 40, y=y + 40)
    user.display.xtest_fake_input(X.ButtonPress, 1)
    user.display.sync()
    await asyncio.sleep(0.1)


@pytest.mark.parametrize("case", [_plain, _numlock, _holds_shift, _holds_super, _grabbed, _menu])
async def test_the_hot_key_cuts_under_fire(
    user: UserDesktop,
    broker: ShareBroker,
    tmp_path: Path,
    late: Callable[[float, float], float],
    case: Callable[[UserDesktop, ShareBroker], Awaitable[None]],
) -> None:
    """250 keys a second; by the X server's own clock none comes 20 ms after the press.

    Less the time in which a process that only sleeps did not get a processor either.
    """
    await user.xterm(tmp_path / "typed")
    log = KeyLog(user.name)
    codes, hot = (user.code("x"), user.code("y")), user.code("q")
    for _ in range(ROUNDS):
        log.read()
        log.presses.clear()
        async with sharing(user, broker):
            await case(user, broker)
            async with asyncio.TaskGroup() as tasks:
                firing = tasks.create_task(fire(broker))
                await user.until(lambda: len(log.read()) > KEYS, "fire")
                user.press_hotkey()
                await broker.until(lambda: broker.code is not None)
                firing.cancel()
            assert broker.code == STOPPED
            assert broker.said("stop")[-1]["by"] == "hotkey"
        user.display.ungrab_keyboard(X.CurrentTime)
        presses = log.read()
        pressed = next(at for at, code in presses if code == hot)
        fired = [at for at, code in presses if code in codes]
        assert max(fired) - pressed <= 20 + 1000 * late(pressed / 1000, max(fired) / 1000)
        assert not user.keys_down()
        assert not user.buttons_down()
    log.close()


async def test_the_hot_key_cuts_a_flood_of_characters(
    user: UserDesktop,
    broker: ShareBroker,
    tmp_path: Path,
    late: Callable[[float, float], float],
) -> None:
    """Thousands in one frame, which the helper types itself."""
    await user.xterm(tmp_path / "typed")
    log, hot = KeyLog(user.name), user.code("q")
    async with sharing(user, broker):
        log.read()
        log.presses.clear()
        events = b"".join(
            struct.pack(">BBxxI", 4, down, 0x1000000 + ord(each))
            for each in "打印机坏了" * 1500
            for down in (1, 0)
        )
        for at in range(0, len(events), 64_000):
            await broker.send(events[at : at + 64_000])
        await user.until(lambda: len(log.read()) > KEYS, "fire")
        user.press_hotkey()
    presses = log.read()
    pressed = next(at for at, code in presses if code == hot)
    assert len(presses) < 7500
    last = max(at for at, _ in presses)
    assert last - pressed <= 20 + 1000 * late(pressed / 1000, last / 1000)
    assert not user.keys_down()
    log.close()


async def fire(broker: ShareBroker) -> None:
    began, count = time.monotonic(), 0
    while broker.ws is not None and not broker.ws.closed:
        for keysym in (X_KEY, X_KEY + 1):
            try:
                await broker.key(keysym, down=True)
                await broker.key(keysym, down=False)
            except ConnectionError:
                return
        count += 2
        await asyncio.sleep(max(0.0, began + count / 250 - time.monotonic()))


# What breaks


async def test_a_killed_helper_takes_its_server_along(
    user: UserDesktop, broker: ShareBroker
) -> None:
    async with sharing(user, broker) as helper:
        os.kill(user.servers()[0], signal.SIGSTOP)  # it cannot see that its socket is closed
        helper.kill()
        await within(1.0, lambda: not user.servers())


async def test_a_killed_server_ends_its_leg(user: UserDesktop, broker: ShareBroker) -> None:
    async with sharing(user, broker):
        await broker.key(SHIFT, down=True)
        await user.until(user.keys_down, "Shift")
        os.kill(user.servers()[0], signal.SIGKILL)
        await within(1.0, lambda: broker.said("leg_ended") and not user.servers())
        await within(1.0, lambda: not user.keys_down())
        user.press_hotkey()


async def test_a_killed_broker_ends_the_picture_and_only_a_click_goes_on(
    user: UserDesktop, broker: ShareBroker
) -> None:
    async with sharing(user, broker):
        assert broker.ws is not None
        transport = broker.ws._req.transport  # type: ignore[union-attr]
        assert transport is not None
        transport.abort()
        await within(1.0, lambda: not user.servers())
        await asyncio.sleep(1.0)
        assert len(broker.said("hello")) == 1
        await user.press_part("again")
        await broker.until(lambda: len(broker.said("hello")) == 2)
        assert broker.said("hello")[1]["key"] == "another key"
        await user.answer(yes=True)
        await broker.shake()
        user.press_hotkey()


async def test_a_frozen_broker_is_noticed(user: UserDesktop, tmp_path: Path) -> None:
    port = free_port()
    code = (
        "import asyncio,sys\nfrom tests.fakes.share_broker import *\n"
        "async def main():\n"
        f"    broker=ShareBroker(port={port}); app=web.Application()\n"
        "    app.router.add_get('/s/connect', broker.serve); runner=web.AppRunner(app)\n"
        f"    await runner.setup(); await web.TCPSite(runner,'127.0.0.1',{port}).start()\n"
        "    await asyncio.sleep(120)\n"
        "asyncio.run(main())"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=Path.cwd())
    try:
        await within(15, lambda: answers(port))
        helper = user.helper(ShareBroker(port=port).invitation)
        await user.answer(yes=True)
        await user.until(user.servers, "a server")
        await asyncio.sleep(0.5)
        process.send_signal(signal.SIGSTOP)
        await within(8.0, lambda: not user.servers())
        user.press_hotkey()
        await gone(user, helper)
    finally:
        process.kill()
        process.wait()


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


async def within(seconds: float, happened: Callable[[], object]) -> None:
    """Wait for it; of a time in which the whole machine stood still a tenth of a second counts."""
    passed, since = 0.0, time.monotonic()
    while not happened():
        await asyncio.sleep(0.01)
        now = time.monotonic()
        passed, since = passed + min(now - since, 0.1), now
        assert passed < seconds


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_signal_stops(user: UserDesktop, broker: ShareBroker, number: int) -> None:
    async with sharing(user, broker) as helper:
        helper.send_signal(number)
    assert broker.said("stop")[0]["by"] == "signal"
    assert not user.servers()


async def test_windows_that_are_killed_stop_it(user: UserDesktop, broker: ShareBroker) -> None:
    """Nothing is shared without the bar."""
    async with sharing(user, broker):
        [windows] = [
            pid for pid, words in user._commands() if "--windows" in words and user._is_here(pid)
        ]
        os.kill(windows, signal.SIGKILL)
        await within(1.0, lambda: not user.servers())
    assert broker.said("stop")[0]["by"] == "window"


async def test_a_screen_saver_stops_it(user: UserDesktop, broker: ShareBroker) -> None:
    async with sharing(user, broker):
        user.display.force_screen_saver(X.ScreenSaverActive)
        user.display.sync()
        await within(1.0, lambda: not user.servers())
    assert broker.said("stop")[0]["by"] == "lock"


async def test_sessions_in_a_row_leave_nothing(tmp_path: Path) -> None:
    """120 sessions on four desktops: no process, no shared memory, no file, no key."""

    async def many(number: int) -> None:
        async with (
            running_desktop(tmp_path / str(number)) as user,
            running_share_broker() as broker,
        ):
            temporary = tmp_path / f"tmp{number}"
            temporary.mkdir()
            user.env = {**user.env, "TMPDIR": str(temporary)}
            pids = []
            for _ in range(30):
                helper = user.helper(broker.invitation)
                await user.answer(yes=True)
                await broker.shake()
                pids += user.servers()
                user.press_hotkey()
                await user.until(lambda: helper.poll() is not None, "the end")  # noqa: B023
                assert not user.servers()
                assert not user.keys_down()
            await user.until(lambda: not user.programs(), "the end of all")
            assert len(set(pids)) == 30
            assert not set(segments()) & set(pids)
            assert not list(temporary.iterdir())

    async with asyncio.TaskGroup() as tasks:
        for number in range(4):
            tasks.create_task(many(number))


def segments() -> list[int]:
    """Return which processes made the shared memory that there is."""
    rows = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    return [int(row.split()[4]) for row in rows]
