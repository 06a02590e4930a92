"""A desktop under X11: the hot key, the screen saver, the keys that are down, the VNC server."""

import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import Any, Final

from Xlib import X
from Xlib.display import Display
from Xlib.error import ConnectionClosedError, DisplayError
from Xlib.ext import screensaver, xtest

from contactd.share.hotkey import HotKey
from contactd.share.lock import LockWatch
from contactd.share.platform import Happened, Unsuitable, VncServer
from contactd.share.server import Found, find_server
from contactd.share.typist import Typist

_BUTTONS: Final = range(1, 8)
_LOWEST_KEY: Final = 8  # X11 protocol, section "Keyboards"


class X11:
    """The desktop of DISPLAY.

    Raises:
        Unsuitable: no X display, none that tells of keys, or no VNC server.
    """

    name: Final = "linux-x11"

    def __init__(self) -> None:
        if os.environ.get("WAYLAND_DISPLAY"):
            raise Unsuitable("wayland")  # Xwayland shows nothing of the screen
        self._server: Found = find_server()
        try:
            self._display = Display()
        except (DisplayError, OSError):
            raise Unsuitable("no_display") from None
        if not self._display.has_extension(xtest.extname):
            raise Unsuitable("no_hotkey")
        self._hotkey = HotKey(self._display)
        self._saver = self._watch_saver()
        self._lock = LockWatch()
        self._keyboard = self._symbols()
        self._typist = Typist(self._display, _LOWEST_KEY, self._keyboard)
        self._is_gone = False

    @property
    def server_name(self) -> str:
        return self._server.name

    def _watch_saver(self) -> int | None:
        """Ask to be told when the screen saver starts; return the number of its events."""
        if not self._display.has_extension(screensaver.extname):
            return None
        root = self._display.screen().root
        root.screensaver_select_input(screensaver.NotifyMask)
        return int(self._display.extension_event.Notify)

    def filenos(self) -> Collection[int]:
        return {self._display.fileno(), *self._lock.filenos()}

    def happened(self) -> Iterator[Happened]:
        if self._is_gone:
            return
        try:
            while self._display.pending_events():
                event = self._display.next_event()
                if self._hotkey.is_pressed_by(event):
                    yield Happened.HOTKEY
                elif self._is_saver(event):
                    yield Happened.LOCK
        except (ConnectionClosedError, OSError):
            self._is_gone = True
            yield Happened.LOGOUT
        if self._lock.is_locked():
            yield Happened.LOCK

    def _is_saver(self, event: Any) -> bool:
        return bool(event.type == self._saver) and event.state != screensaver.StateOff

    def watch_for(self, hotkey: str) -> None:
        self._hotkey.watch_for(hotkey)

    def release_input(self) -> None:
        if self._is_gone:
            return
        try:
            keys = self._display.query_keymap()
            for code in range(_LOWEST_KEY, 256):
                if keys[code // 8] >> code % 8 & 1:
                    self._display.xtest_fake_input(X.KeyRelease, code)
            for button in _BUTTONS:  # those that are up stay up
                self._display.xtest_fake_input(X.ButtonRelease, button)
            self._display.sync()
        except (ConnectionClosedError, OSError):
            self._is_gone = True

    def type(self, point: int) -> None:
        if self._is_gone:
            return
        try:
            self._typist.type(point)
        except (ConnectionClosedError, OSError):
            self._is_gone = True

    def start_server(self, *, can_control: bool) -> VncServer:
        return self._server.start(can_control=can_control)

    def tidy(self) -> None:
        """Take the symbols off the keys on which a killed server has put them.

        x11vnc lends keys without a symbol to what no key has (Chinese), and takes them back when
        it ends by itself; we kill it.
        """
        if self._is_gone:
            return
        try:
            now = self._symbols()
            for code, (before, after) in enumerate(zip(self._keyboard, now, strict=False)):
                if any(after) and not any(before):
                    self._display.change_keyboard_mapping(_LOWEST_KEY + code, [[0] * len(after)])
            self._display.sync()
        except (ConnectionClosedError, OSError):
            self._is_gone = True

    def _symbols(self) -> list[tuple[int, ...]]:
        found = self._display.get_keyboard_mapping(_LOWEST_KEY, 256 - _LOWEST_KEY)
        return [tuple(each) for each in found]

    def close(self) -> None:
        self._lock.close()
        with suppress(ConnectionClosedError, OSError):
            self._display.close()
