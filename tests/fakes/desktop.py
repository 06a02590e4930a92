"""A user's desktop: Xvfb, xterm, and contactd-share as it is downloaded.

The user is python-xlib: they press keys and buttons by XTEST, also on the helper's real windows.
Nothing here lets the helper off its questions.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from Xlib import XK, X
from Xlib.display import Display
from Xlib.error import BadWindow, XError
from Xlib.ext import xinput, xtest
from Xlib.ext.ge import GenericEventCode
from Xlib.protocol import rq

from contactd.remote.package import helper_for

SOON_S: Final = 30.0
POLL_S: Final = 0.02
SIZE: Final = "1024x768x24"
# The parts of the helper's bar, by how many there are: Tk makes each when it is first shown.
_BARS: Final = {
    3: ("words", "counts", "stop"),
    4: ("words", "counts", "again", "stop"),
    5: ("words", "counts", "control", "clipboard", "stop"),
    6: ("words", "counts", "control", "clipboard", "again", "stop"),
}


# XI2proto.h, xXIRawEvent, from the event's type on.
_RAW_KEY: Final = rq.Struct(
    rq.Card16("deviceid"), rq.Card32("time"), rq.Card32("detail"), rq.Card16("sourceid"),
    rq.Card16("valuators_len"), rq.Card32("flags"), rq.Pad(4),
)  # fmt: skip


class NotSo(AssertionError):
    """What a test waited for did not come."""


@dataclass(slots=True, kw_only=True)
class UserDesktop:
    """One X display with a user in front of it."""

    name: str  # as in DISPLAY
    display: Display
    folder: Path
    env: Mapping[str, str]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    # Programs

    def start(self, *command: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        with (self.folder / "errors").open("ab") as errors:
            process = subprocess.Popen(
                command, env={**self.env, **(env or {})}, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=errors,
            )  # fmt: skip
        self.processes.append(process)
        return process

    def helper(
        self, invitation: Mapping[str, str], env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start the helper as the user does who has downloaded it."""
        return self.helper_file(helper_for(invitation), env)

    def helper_file(
        self, packed: bytes, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        path = self.folder / "contactd-share.pyz"
        path.unlink(missing_ok=True)  # another may run from it
        path.write_bytes(packed)
        return self.start(sys.executable, str(path), env=env)

    async def xterm(self, to: Path) -> subprocess.Popen[bytes]:
        """Open a terminal, with the focus, that writes what is typed in it to a file, by lines."""
        to.write_bytes(b"")
        process = self.start(
            "xterm", "-u8", "-geometry", "100x30+0+120", "-e", "sh", "-c", f"cat > '{to}'"
        )
        window = await self.window("xterm")
        window.set_input_focus(X.RevertToParent, X.CurrentTime)
        window.warp_pointer(50, 50)
        self.display.sync()
        return process

    # What the user sees

    async def until(
        self, happened: Callable[[], Any], what: str = "it", every_s: float = POLL_S
    ) -> Any:
        try:
            async with asyncio.timeout(SOON_S):
                while not (found := self._tried(happened)):
                    await asyncio.sleep(every_s)
                return found
        except TimeoutError:
            raise NotSo(f"{what} did not happen; {self.errors()}") from None

    def _tried(self, happened: Callable[[], Any]) -> Any:
        try:
            return happened()
        except (XError, IndexError):  # a window came or went as we looked at it
            return None

    def errors(self) -> str:
        return (self.folder / "errors").read_text(errors="replace")[-2000:]

    def find(self, name: str) -> Any | None:
        """Return a visible window of this class or name: `bar` and `question` are the helper's."""
        for window in self._all(self.display.screen().root, depth=3):
            try:
                words = window.get_wm_class() or ()
                if name in words and window.get_attributes().map_state == X.IsViewable:
                    return window
            except BadWindow:
                continue
        return None

    def _all(self, window: Any, depth: int) -> Iterator[Any]:
        for child in window.query_tree().children:
            yield child
            if depth:
                yield from self._all(child, depth - 1)

    async def window(self, name: str) -> Any:
        return await self.until(lambda: self.find(name), f"a window {name}")

    def _parts(self, window: Any) -> list[Any]:
        """Return the widgets of a window of Tk (they are windows too), as they were made."""
        children = window.query_tree().children
        while len(children) == 1:  # the wrapper
            children = children[0].query_tree().children
        return list(children)

    def part(self, name: str) -> Any | None:
        """Return a part of the helper's bar, if it is there and visible."""
        bar = self.find("bar")
        if bar is None:
            return None
        parts = self._parts(bar)
        found = dict(zip(_BARS.get(len(parts), ()), parts, strict=False)).get(name)
        visible = found is not None and found.get_attributes().map_state == X.IsViewable
        return found if visible else None

    def button(self, *, yes: bool) -> Any | None:
        """Return a button of the question that the helper asks."""
        question = self.find("question")
        if question is None:
            return None
        row = self._parts(question)[-1].query_tree().children
        return row[1 if yes else 0] if len(row) == 2 else None

    def box(self, number: int) -> Any | None:
        """Return a box to tick in the question: 0 is to view."""
        question = self.find("question")
        return self._parts(question)[1 + number] if question is not None else None

    def place(self, window: Any) -> tuple[int, int, int, int]:
        """Return x, y, width, height on the screen."""
        shape = window.get_geometry()
        at = window.translate_coords(self.display.screen().root, 0, 0)
        return -at.x, -at.y, shape.width, shape.height

    # What the user does

    def click(self, window: Any) -> None:
        x, y, width, height = self.place(window)
        self.click_at(x + width // 2, y + height // 2)

    def click_at(self, x: int, y: int) -> None:
        xtest.fake_input(self.display, X.MotionNotify, x=x, y=y)
        self.display.sync()
        for kind in (X.ButtonPress, X.ButtonRelease):
            xtest.fake_input(self.display, kind, 1)
            self.display.sync()

    async def answer(self, *, yes: bool = True, tick: Sequence[int] = ()) -> None:
        """Answer the helper's question once it is there; its buttons wait for a moment."""
        await self.until(lambda: self.button(yes=yes), "a question")
        await asyncio.sleep(0.9)
        for number in tick:
            self.click(await self.until(lambda n=number: self.box(n), "a box"))  # type: ignore[misc]

        def pressed() -> bool:  # as a person does: again, if it did nothing
            button = self.button(yes=yes)
            if button is not None:
                self.click(button)
            return button is None

        await self.until(pressed, "the answer", every_s=0.3)

    async def press_part(self, name: str) -> None:
        """Press a part of the bar: `stop`, `again`, `control`, `clipboard`."""
        self.click(await self.until(lambda: self.part(name), f"{name} on the bar"))

    def code(self, key: str) -> int:
        return int(self.display.keysym_to_keycode(XK.string_to_keysym(key)))

    def key(self, key: str, *, down: bool) -> None:
        xtest.fake_input(self.display, X.KeyPress if down else X.KeyRelease, self.code(key))
        self.display.flush()

    def press(self, *keys: str) -> None:
        """Press keys together, such as "Control_L", "Alt_L", "q"."""
        for key in keys:
            self.key(key, down=True)
        for key in reversed(keys):
            self.key(key, down=False)
        self.display.sync()

    def press_hotkey(self) -> None:
        self.press("Control_L", "Alt_L", "q")

    # What is so

    def keys_down(self) -> list[int]:
        keys = self.display.query_keymap()
        return [code for code in range(8, 256) if keys[code // 8] >> code % 8 & 1]

    def buttons_down(self) -> int:
        return int(self.display.screen().root.query_pointer().mask) & 0x1F00

    def servers(self) -> list[int]:
        """Return the VNC servers that run on this display."""
        return [pid for pid, words in self._commands() if "vnc" in words[0] and self._is_here(pid)]

    def programs(self) -> list[str]:
        """Return what the helper has started here and is still there, and itself."""
        return [
            " ".join(words)
            for pid, words in self._commands()
            if any("contactd-share" in each or "vnc" in each or "dbus-monitor" in each
                   for each in words) and self._is_here(pid)
        ]  # fmt: skip

    def _commands(self) -> Iterator[tuple[int, list[str]]]:
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                except OSError:
                    continue
                if words and words[0]:
                    yield int(entry.name), words

    def _is_here(self, pid: int) -> bool:
        try:
            return f"DISPLAY={self.name}".encode() in Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return False


class KeyLog:
    """Every key of a display, with the X server's own time: who pressed what, and when."""

    def __init__(self, name: str) -> None:
        self._display = display = Display(name)
        major = display.display.get_extension_major(xinput.extname)
        xinput.XIQueryVersion(
            display=display.display, opcode=major, major_version=2, minor_version=2
        )
        for kind in (xinput.RawKeyPress, xinput.RawKeyRelease):
            display.ge_add_event_data(major, kind, _RAW_KEY)
        display.screen().root.xinput_select_events(
            [(xinput.AllMasterDevices, xinput.RawKeyPressMask | xinput.RawKeyReleaseMask)]
        )
        display.sync()
        self.presses: list[tuple[int, int]] = []  # milliseconds, key

    def read(self) -> list[tuple[int, int]]:
        """Return all presses so far."""
        self._display.sync()
        while self._display.pending_events():
            event = self._display.next_event()
            if event.type == GenericEventCode and event.evtype == xinput.RawKeyPress:
                self.presses.append((event.data.time, event.data.detail))
        return self.presses

    def close(self) -> None:
        self._display.close()


@asynccontextmanager
async def running_desktop(folder: Path, size: str = SIZE) -> AsyncIterator[UserDesktop]:
    """Run a desktop of its own, on a display that is free."""
    folder.mkdir(parents=True, exist_ok=True)
    ours, theirs = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(theirs), "-screen", "0", size, "-nolisten", "tcp", "-noreset"],
        pass_fds=(theirs,), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(theirs)
    try:
        with os.fdopen(ours, "rb") as told:
            line = await asyncio.wait_for(asyncio.to_thread(told.readline), SOON_S)
        name = f":{int(line)}"
        (folder / "errors").write_bytes(b"")
        kept = ("PATH", "HOME", "LANG", "LC_ALL")
        env = {key: os.environ[key] for key in kept if key in os.environ}
        env |= {"DISPLAY": name, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}
        desktop = UserDesktop(name=name, display=Display(name), folder=folder, env=env)
        try:
            yield desktop
        finally:
            for process in desktop.processes:
                process.kill()
                process.wait()
            desktop.display.close()
    finally:
        server.terminate()
        server.wait()
