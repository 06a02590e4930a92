"""What may pass between a VNC server and its viewer: RFB, read on both sides by the same code.

Source: RFC 6143 (RFB 3.8) and the community's "rfbproto" for what came later. The broker and the
user's helper each put one `Filter` between the two; neither trusts the other. Standard library
only: the helper brings this file along. Pure: bytes in, bytes out.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

from contactd.tickets.remote import Right

VERSION: Final = b"RFB 003.008\n"
MOST_TYPES: Final = 32  # security types that a server offers
MOST_UNASKED: Final = 4096  # bytes that a server sends before its viewer asked for a picture
MOST_REASON: Final = 4096  # bytes of a server's reason for refusing, and of a desktop's name
MOST_ENCODINGS: Final = 256
MOST_CUT_TEXT: Final = 1 << 20  # bytes; passed over as they come, never kept
MOST_SIDE: Final = 32_767  # pixels of a desktop, each way: X11's own limit
MOST_KEYS_DOWN: Final = 128
UNICODE: Final = 0x01000000  # X11: keysyms of the rest of Unicode begin here
NONE, VNC_AUTH = 1, 2
SECURITY_TYPES: Final = frozenset({NONE, VNC_AUTH})

# An allow-list: only with encodings that are known here do all messages of the viewer have a
# length that is known here. Left out: H.264 (50), extended clipboard (-1063131698), xvp (-309) and
# extended mouse buttons (-316), which change messages of the viewer.
ENCODINGS: Final = frozenset(
    {
        *(0, 1, 2, 5, 6, 7, 16, 21, -260),  # pictures: raw, CopyRect, RRE, hextile, zlib, …
        *range(-32, -22),  # quality
        *range(-256, -246),  # compression
        *(-223, -224, -239, 0x574D5664),  # desktop size, last rectangle, cursors
        *(-258, -261, -307, -308, -312, -313),  # QEMU keys and LEDs, name, size, fence, continuous
    }
)

_KEY_EVENT, _POINTER, _CUT_TEXT, _QEMU = 4, 5, 6, 255


class Forbidden(Exception):
    """A peer sent what it must not; the text is for the log and has nothing of theirs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rect:
    """A place on the desktop, in its pixels."""

    x: int
    y: int
    width: int
    height: int

    def has(self, x: int, y: int) -> bool:
        return self.x <= x < self.x + self.width and self.y <= y < self.y + self.height


class _Stage(Enum):
    SERVER_VERSION = auto()
    VIEWER_VERSION = auto()
    TYPES = auto()
    TYPE = auto()
    CHALLENGE = auto()
    RESPONSE = auto()
    RESULT = auto()
    VIEWER_INIT = auto()
    SERVER_INIT = auto()
    OPEN = auto()
    REFUSED = auto()  # the server said why, and ends


_VIEWERS: Final = frozenset(
    {_Stage.VIEWER_VERSION, _Stage.TYPE, _Stage.RESPONSE, _Stage.VIEWER_INIT, _Stage.OPEN}
)
_NOT_YET: Final = None  # more bytes are needed


class Filter:
    """Stands between one VNC server and one viewer.

    `rights` may be changed at any time; without `CONTROL` the viewer's input is dropped. Buttons
    do nothing in `keep_out` (the helper's own windows). Both ways raise `Forbidden`; then the
    connection is to be closed. Of what was typed only numbers are kept.

    `typist` types a character, by its code point, in the server's place: x11vnc runs out of keys
    after 18 that no keyboard has, TigerVNC types none of them.
    """

    def __init__(
        self, rights: frozenset[Right], typist: Callable[[int], None] | None = None
    ) -> None:
        self.rights = rights
        self._typist = typist
        self.keep_out: Sequence[Rect] = ()
        self.keys = 0  # pressed by the viewer
        self.clicks = 0
        self.handshake_bytes = 0  # of what the viewer was sent, until the desktop was described
        self.server_init = b""  # width, height, pixel format, name: as the server said
        self.pixel_format = b""  # 16 bytes: what the viewer wants, else as the server said
        self._stage = _Stage.SERVER_VERSION
        self._from_server = bytearray()
        self._from_viewer = bytearray()
        self._offered: frozenset[int] = frozenset()
        self._down: set[int] = set()  # keysyms
        self._qemu_down: set[tuple[int, int]] = set()  # keysym, keycode
        self._buttons = 0
        self._place = (0, 0)
        self._skip = 0  # bytes of a cut text that are still to come
        self._asked = False  # for a picture: the pixel format is what the recording begins with

    @property
    def is_open(self) -> bool:
        """Tell whether pictures may come: the handshake is over."""
        return self._stage is _Stage.OPEN

    # What the server sends

    def from_server(self, data: bytes) -> bytes:
        """Return what the viewer is to get.

        Raises:
            Forbidden: no server that may be here says this.
        """
        if self._asked and not self._from_server:
            return data  # nothing in it concerns us: 64 KiB cost nothing
        self._from_server += data
        out = bytearray()
        while not self.is_open:
            read = _SERVER.get(self._stage)
            if read is None:
                if self._from_server:
                    raise Forbidden("the VNC server speaks out of turn")
                break
            found = read(self, self._from_server)
            if found is _NOT_YET:
                break
            out += found
        self.handshake_bytes += len(out)
        if self.is_open:
            out += self._unasked()
        return bytes(out)

    def _unasked(self) -> bytes:
        """Return what came before the viewer asked for a picture, once it has.

        Until then its pixel format may change, and a recording cannot begin.
        """
        if self._asked:
            return _taken(self._from_server, len(self._from_server))
        if len(self._from_server) > MOST_UNASKED:
            raise Forbidden("the VNC server shows what nobody asked for")
        return b""

    def _server_version(self, data: bytearray) -> bytes | None:
        if len(data) < 12:
            _begins(data, b"RFB 003.")
            return _NOT_YET
        said = _taken(data, 12)
        if not (said[:8] == b"RFB 003." and said[8:11].isdigit() and said[11:] == b"\n"):
            raise Forbidden("this is no VNC server")
        if int(said[8:11]) < 8:
            raise Forbidden("the VNC server is older than RFB 3.8")
        self._stage = _Stage.VIEWER_VERSION
        return VERSION

    def _types(self, data: bytearray) -> bytes | None:
        if not data:
            return _NOT_YET
        if data[0] == 0:
            return self._reason(data, at=1)
        if data[0] > MOST_TYPES:
            raise Forbidden("the VNC server offers too many security types")
        if len(data) < 1 + data[0]:
            return _NOT_YET
        offered = _taken(data, 1 + data[0])[1:]
        self._offered = frozenset(offered) & SECURITY_TYPES
        if not self._offered:
            raise Forbidden("the VNC server offers no security type that may pass")
        self._stage = _Stage.TYPE
        return bytes([len(self._offered), *sorted(self._offered)])

    def _challenge(self, data: bytearray) -> bytes | None:
        if len(data) < 16:
            return _NOT_YET
        self._stage = _Stage.RESPONSE
        return _taken(data, 16)

    def _result(self, data: bytearray) -> bytes | None:
        if len(data) < 4:
            return _NOT_YET
        if data[:4] != b"\0\0\0\0":
            return self._reason(data, at=4)
        self._stage = _Stage.VIEWER_INIT
        return _taken(data, 4)

    def _reason(self, data: bytearray, at: int) -> bytes | None:
        if len(data) < at + 4:
            return _NOT_YET
        (length,) = struct.unpack_from(">I", data, at)
        if length > MOST_REASON:
            raise Forbidden("the VNC server gives too long a reason")
        if len(data) < at + 4 + length:
            return _NOT_YET
        self._stage = _Stage.REFUSED
        return _taken(data, at + 4 + length)

    def _server_init(self, data: bytearray) -> bytes | None:
        if len(data) < 24:
            return _NOT_YET
        width, height = struct.unpack_from(">HH", data)
        (length,) = struct.unpack_from(">I", data, 20)
        if not (0 < width <= MOST_SIDE and 0 < height <= MOST_SIDE):
            raise Forbidden("the VNC server's desktop has no size that can be")
        if length > MOST_REASON:
            raise Forbidden("the name of the VNC server's desktop is too long")
        if len(data) < 24 + length:
            return _NOT_YET
        self.server_init = _taken(data, 24 + length)
        self.pixel_format = self.server_init[4:20]
        self._stage = _Stage.OPEN
        return self.server_init

    # What the viewer sends

    def from_client(self, data: bytes) -> bytes:
        """Return what the server is to get.

        Raises:
            Forbidden: no viewer that may be here says this.
        """
        self._from_viewer += data
        out = bytearray()
        while self._from_viewer:
            if self._stage not in _VIEWERS:
                raise Forbidden("the viewer speaks out of turn")
            done = _VIEWER[self._stage](self, self._from_viewer)
            if done is _NOT_YET:
                break
            out += done
        return bytes(out)

    def _viewer_version(self, data: bytearray) -> bytes | None:
        if len(data) < 12:
            _begins(data, VERSION)
            return _NOT_YET
        if _taken(data, 12) != VERSION:
            raise Forbidden("the viewer does not speak RFB 3.8")
        self._stage = _Stage.TYPES
        return VERSION

    def _type(self, data: bytearray) -> bytes | None:
        chosen = _taken(data, 1)
        if chosen[0] not in self._offered:
            raise Forbidden("the viewer chose a security type that was not offered")
        self._stage = _Stage.CHALLENGE if chosen[0] == VNC_AUTH else _Stage.RESULT
        return chosen

    def _response(self, data: bytearray) -> bytes | None:
        if len(data) < 16:
            return _NOT_YET
        self._stage = _Stage.RESULT
        return _taken(data, 16)

    def _viewer_init(self, data: bytearray) -> bytes | None:
        _taken(data, 1)
        self._stage = _Stage.SERVER_INIT
        return b"\x01"  # shared: no viewer sends another away (RFC 6143 section 7.3.1)

    def _message(self, data: bytearray) -> bytes | None:
        if self._skip:
            passed = min(self._skip, len(data))
            del data[:passed]
            self._skip -= passed
            return b""
        kind = data[0]
        length = _length(data)
        if length is None or len(data) < length:
            return _NOT_YET
        message = _taken(data, length)
        treat = _TREATED.get(kind)
        return message if treat is None else treat(self, message)

    def _set_pixel_format(self, message: bytes) -> bytes:
        wanted = message[4:20]
        if self._asked and wanted != self.pixel_format:
            raise Forbidden("the viewer changes its pixel format while it is recorded")
        if wanted[0] not in (8, 16, 32):
            raise Forbidden("the viewer wants pixels of no size that can be")
        self.pixel_format = wanted
        return message

    def _ask(self, message: bytes) -> bytes:
        self._asked = True
        return message

    def _set_encodings(self, message: bytes) -> bytes:
        wanted = struct.unpack_from(f">{(len(message) - 4) // 4}i", message, 4)
        kept = [each for each in wanted if each in ENCODINGS]
        return struct.pack(f">BxH{len(kept)}i", message[0], len(kept), *kept)

    def _key(self, message: bytes) -> bytes:
        if Right.CONTROL not in self.rights:
            return b""
        is_down, keysym = struct.unpack(">xBxxI", message)
        if self._typist is not None and keysym > UNICODE:
            if is_down:
                self.keys += 1
                self._typist(keysym - UNICODE)
            return b""
        return self._pressed(self._down, keysym, is_down, message)

    def _qemu_key(self, message: bytes) -> bytes:
        if Right.CONTROL not in self.rights:
            return b""
        is_down, keysym, keycode = struct.unpack(">xxHII", message)
        return self._pressed(self._qemu_down, (keysym, keycode), is_down, message)

    def _pressed(self, down: set[Any], key: Any, is_down: int, message: bytes) -> bytes:
        if not is_down:
            down.discard(key)
            return message
        if len(down) >= MOST_KEYS_DOWN:
            raise Forbidden("the viewer holds more keys than there are fingers")
        down.add(key)
        self.keys += 1
        return message

    def _pointer(self, message: bytes) -> bytes:
        if Right.CONTROL not in self.rights:
            return b""
        buttons, x, y = struct.unpack(">xBHH", message)
        if any(place.has(x, y) for place in self.keep_out):
            buttons = 0
        self.clicks += (buttons & ~self._buttons & 0b111).bit_count()
        self._buttons, self._place = buttons, (x, y)
        return struct.pack(">BBHH", _POINTER, buttons, x, y)

    def _cut_text(self, message: bytes) -> bytes:
        (length,) = struct.unpack_from(">I", message, 4)
        if length > MOST_CUT_TEXT:
            raise Forbidden("the viewer sends a clipboard of a length that cannot be")
        self._skip = length
        return b""

    def release(self) -> bytes:
        """Return what lets go of all that the viewer holds down: for when it loses control."""
        if self._stage is not _Stage.OPEN:
            return b""
        out = [struct.pack(">BBxxI", _KEY_EVENT, 0, keysym) for keysym in sorted(self._down)]
        for keysym, keycode in sorted(self._qemu_down):
            out.append(struct.pack(">BBHII", _QEMU, 0, 0, keysym, keycode))
        if self._buttons:
            out.append(struct.pack(">BBHH", _POINTER, 0, *self._place))
        self._down.clear()
        self._qemu_down.clear()
        self._buttons = 0
        return b"".join(out)


def _taken(data: bytearray, count: int) -> bytes:
    found = bytes(data[:count])
    del data[:count]
    return found


def _begins(data: bytearray, words: bytes) -> None:
    """Refuse at once what cannot become `words`: nobody need wait for the rest of it."""
    if not words.startswith(data[: len(words)]):
        raise Forbidden("a peer does not speak RFB")


_FIXED: Final[Mapping[int, int]] = {0: 20, 3: 10, _KEY_EVENT: 8, _POINTER: 6, _CUT_TEXT: 8,
                                    150: 10, 250: 4}  # fmt: skip


def _length(data: bytearray) -> int | None:
    """Return how long the message is that begins here; None if that cannot be told yet.

    Raises:
        Forbidden: it is none that may pass.
    """
    kind = data[0]
    if kind in _FIXED:
        return _FIXED[kind]
    measure = _MEASURED.get(kind)
    if measure is None:
        raise Forbidden(f"the viewer sends messages of type {kind}")
    return measure(data)


def _encodings(data: bytearray) -> int | None:
    if len(data) < 4:
        return None
    (count,) = struct.unpack_from(">H", data, 2)
    if count > MOST_ENCODINGS:
        raise Forbidden("the viewer names too many encodings")
    return 4 + 4 * int(count)


def _fence(data: bytearray) -> int | None:
    if len(data) < 9:
        return None
    if data[8] > 64:
        raise Forbidden("the viewer's fence is too long")
    return 9 + data[8]


def _desktop_size(data: bytearray) -> int | None:
    return None if len(data) < 8 else 8 + 16 * data[6]


def _qemu(data: bytearray) -> int | None:
    if len(data) < 2:
        return None
    if data[1] != 0:
        raise Forbidden("the viewer sends a QEMU message that is no key")
    return 12


def _dropped(_filter: Filter, _message: bytes) -> bytes:
    return b""


_MEASURED: Final[Mapping[int, Callable[[bytearray], int | None]]] = {
    2: _encodings, 248: _fence, 251: _desktop_size, _QEMU: _qemu,
}  # fmt: skip
_TREATED: Final[Mapping[int, Callable[[Filter, bytes], bytes]]] = {
    0: Filter._set_pixel_format,
    2: Filter._set_encodings,
    3: Filter._ask,
    _KEY_EVENT: Filter._key,
    _POINTER: Filter._pointer,
    _CUT_TEXT: Filter._cut_text,
    150: Filter._ask,
    250: _dropped,
    251: _dropped,
    _QEMU: Filter._qemu_key,
}
_SERVER: Final[Mapping[_Stage, Callable[[Filter, bytearray], bytes | None]]] = {
    _Stage.SERVER_VERSION: Filter._server_version,
    _Stage.TYPES: Filter._types,
    _Stage.CHALLENGE: Filter._challenge,
    _Stage.RESULT: Filter._result,
    _Stage.SERVER_INIT: Filter._server_init,
}
_VIEWER: Final[Mapping[_Stage, Callable[[Filter, bytearray], bytes | None]]] = {
    _Stage.VIEWER_VERSION: Filter._viewer_version,
    _Stage.TYPE: Filter._type,
    _Stage.RESPONSE: Filter._response,
    _Stage.VIEWER_INIT: Filter._viewer_init,
    _Stage.OPEN: Filter._message,
}
