"""Types characters under X11 that no key has, such as Chinese: on keys lent to them in turn.

A program looks a key up when it gets to the event, so that a key must not be lent again at once:
the ring is as long as there are keys without a symbol, but for some that the VNC server may need.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from Xlib import X
from Xlib.display import Display

from contactd.remote.rfb import UNICODE

MOST_LENT: Final = 12
_CONTROLS: Final[Mapping[int, int]] = {0x09: 0xFF09, 0x0A: 0xFF0D, 0x0D: 0xFF0D}
_LAST_POINT: Final = 0x10FFFF


class Typist:
    """`keyboard` are the symbols of each key from `lowest` on, before anybody was lent one."""

    def __init__(self, display: Display, lowest: int, keyboard: Sequence[Sequence[int]]) -> None:
        modifiers = {code for row in display.get_modifier_mapping() for code in row}
        bare = [lowest + at for at, symbols in enumerate(keyboard) if not any(symbols)]
        self._display = display
        self._width = max(map(len, keyboard), default=1)
        # x11vnc lends from the lowest on. The key that was used longest ago comes first.
        self._ring = [code for code in bare if code not in modifiers][-MOST_LENT:]
        self._lent: dict[int, int] = {}  # code -> symbol

    def type(self, point: int) -> None:
        """Press and release; nothing if there is no such character, or no key is left to lend."""
        symbol = _symbol(point)
        if symbol is None or not self._ring:
            return
        code = self._key_of(symbol)
        self._ring.remove(code)
        self._ring.append(code)
        self._display.xtest_fake_input(X.KeyPress, code)
        self._display.xtest_fake_input(X.KeyRelease, code)
        self._display.sync()

    def _key_of(self, symbol: int) -> int:
        for code, lent in self._lent.items():
            if lent == symbol:
                return code
        code = self._ring[0]
        self._lent[code] = symbol
        self._display.change_keyboard_mapping(code, [[symbol] * self._width])
        return code


def _symbol(point: int) -> int | None:
    if point in _CONTROLS:
        return _CONTROLS[point]
    if 0x20 <= point < 0x7F or 0xA0 <= point < 0x100:  # Latin-1 has its own
        return point
    is_text = 0x100 <= point <= _LAST_POINT and not 0xD800 <= point < 0xE000
    return UNICODE + point if is_text else None
