"""One leg on the user's side: a VNC server, what may pass to it, and what waits."""

import socket
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from contactd.remote.rfb import Filter, Forbidden, Rect
from contactd.share.platform import VncServer
from contactd.tickets.remote import Purpose, Right

READ_BYTES: Final = 65_000  # with the leg's number and the frame's head below 64 KiB
MOST_WAITING: Final = 1 << 20  # bytes for a VNC server that does not read
_VIEW: Final = frozenset({Right.VIEW})


class ServerGone(Exception):
    """The VNC server has ended, or cannot be trusted any more."""


@dataclass(slots=True, kw_only=True, eq=False)
class ShareLeg:
    """`rights` are the user's; while they are asked something the filter lets only views pass."""

    number: int
    engineer: str
    purpose: Purpose
    rights: frozenset[Right]
    server: VncServer
    filter: Filter
    has_begun: bool = False
    shown: int = 0  # bytes
    waiting: bytearray = field(default_factory=bytearray)

    def gate(self, *, is_asked: bool, keep_out: tuple[Rect, ...]) -> None:
        """Let pass what may pass now; who loses control lets go of what they hold."""
        self.filter.keep_out = keep_out
        allowed = self.rights & _VIEW if is_asked else self.rights
        if Right.CONTROL in self.filter.rights and Right.CONTROL not in allowed:
            self.waiting += self.filter.release()
        self.filter.rights = allowed

    def read(self) -> bytes:
        """Return what the VNC server shows, for the broker.

        Raises:
            ServerGone: it has ended.
        """
        try:
            data = self.server.sock.recv(READ_BYTES)
            shown = self.filter.from_server(data)
        except (BlockingIOError, InterruptedError):
            return b""
        except (OSError, Forbidden) as error:
            raise ServerGone(str(error)) from error
        if not data:
            raise ServerGone("the VNC server has ended")
        self.has_begun = True
        self.shown += len(shown)
        return shown

    def take(self, data: bytes) -> None:
        """Pass on what the engineer sends.

        Raises:
            ServerGone: it may not pass, or the server takes nothing.
        """
        try:
            self.waiting += self.filter.from_client(data)
        except Forbidden as error:
            raise ServerGone(str(error)) from error
        if len(self.waiting) > MOST_WAITING:
            raise ServerGone("the VNC server takes nothing")
        self.flush()

    def flush(self) -> None:
        try:
            while self.waiting:
                del self.waiting[: self.server.sock.send(self.waiting)]
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            raise ServerGone(str(error)) from error

    def cut(self) -> None:
        """Let nothing pass: from here on not a byte goes either way."""
        self.filter.rights = frozenset()
        self.waiting.clear()
        with suppress(OSError):  # it is gone already
            self.server.sock.shutdown(socket.SHUT_RDWR)
