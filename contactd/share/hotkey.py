"""The hot key, by raw events of XInput2: nothing that an engineer or a program does hides it.

A grab (XGrabKey) fails when another modifier is down, when NumLock is on, and while a menu or
another program holds the keyboard. Raw events come in all these cases, but only to who negotiated
XInput 2.1 or later (XI2proto.txt, section "Raw events"). Ctrl+Alt+F1 to F12 never come: the X
server keeps them.
"""

from typing import Any, Final

from Xlib import XK
from Xlib.display import Display
from Xlib.ext import xinput
from Xlib.ext.ge import GenericEventCode
from Xlib.protocol import rq

from contactd.share.platform import Unsuitable

_VERSION: Final = (2, 2)
# Names of modifiers as settings say them, with the keys that are one.
_MODIFIERS: Final = {
    "ctrl": ("Control_L", "Control_R"),
    "alt": ("Alt_L", "Alt_R", "Meta_L", "Meta_R"),
    "shift": ("Shift_L", "Shift_R"),
    "super": ("Super_L", "Super_R"),
}
# python-xlib knows no raw events. Source: XI2proto.h, xXIRawEvent, from the event's type on.
_RAW_KEY: Final = rq.Struct(
    rq.Card16("deviceid"),
    rq.Card32("time"),
    rq.Card32("detail"),
    rq.Card16("sourceid"),
    rq.Card16("valuators_len"),
    rq.Card32("flags"),
    rq.Pad(4),
)


class HotKey:
    """Watches the keyboard.

    Raises:
        Unsuitable: this display does not tell of keys.
    """

    def __init__(self, display: Display) -> None:
        self._display = display
        self._listen(display)
        self._modifiers: list[frozenset[int]] = []
        self._last: frozenset[int] = frozenset()
        # By device and key: an engineer who lets go of Ctrl does not let go of the user's.
        self._down: set[tuple[int, int]] = {(0, code) for code in _pressed(display)}

    def watch_for(self, keys: str) -> None:
        """Watch for keys that are pressed together, such as `ctrl+alt+q`.

        Raises:
            Unsuitable: this keyboard has no such keys.
        """
        *modifiers, last = keys.lower().split("+")
        found = [_codes(self._display, *_MODIFIERS.get(each, ())) for each in modifiers]
        self._modifiers, self._last = found, _codes(self._display, last)
        if not self._last or not found or not all(found):
            raise Unsuitable("no_hotkey")

    def _listen(self, display: Display) -> None:
        if not display.has_extension(xinput.extname):
            raise Unsuitable("no_hotkey")
        self._major: int = display.display.get_extension_major(xinput.extname)
        version = xinput.XIQueryVersion(
            display=display.display, opcode=self._major,
            major_version=_VERSION[0], minor_version=_VERSION[1],
        )  # fmt: skip
        if (version.major_version, version.minor_version) < (2, 1):
            raise Unsuitable("no_hotkey")
        for kind in (xinput.RawKeyPress, xinput.RawKeyRelease):
            display.ge_add_event_data(self._major, kind, _RAW_KEY)
        display.screen().root.xinput_select_events(
            [(xinput.AllMasterDevices, xinput.RawKeyPressMask | xinput.RawKeyReleaseMask)]
        )
        display.sync()

    def is_pressed_by(self, event: Any) -> bool:
        """Tell whether the hot key is complete with this event."""
        if event.type != GenericEventCode or event.extension != self._major:
            return False
        source, code = event.data.sourceid, event.data.detail
        if event.evtype == xinput.RawKeyRelease:
            self._down -= {(source, code), (0, code)}
            return False
        if event.evtype != xinput.RawKeyPress:
            return False
        self._down.add((source, code))
        down = {each for _, each in self._down}
        return code in self._last and all(down & codes for codes in self._modifiers)


def _codes(display: Display, *names: str) -> frozenset[int]:
    """Return the keys that have one of these symbols on them."""
    return frozenset(
        code for name in names for code, _ in display.keysym_to_keycodes(XK.string_to_keysym(name))
    )


def _pressed(display: Display) -> list[int]:
    keys = display.query_keymap()
    return [code for code in range(8, 256) if keys[code // 8] >> code % 8 & 1]
