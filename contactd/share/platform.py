"""What the helper asks of the system that it runs on: the only door to a platform.

`x11.py` is the one that is built and tested. Another (Windows with UltraVNC's server, a Wayland
portal) is one more module with these two.
"""

import socket
from collections.abc import Collection, Iterator
from enum import StrEnum
from typing import Protocol


class Happened(StrEnum):
    """What the user, or their system, did; the words are those of `stop` to the broker."""

    HOTKEY = "hotkey"
    LOCK = "lock"
    LOGOUT = "logout"


class Unsuitable(Exception):
    """This computer cannot be shared; `key` names the words that tell the user what to do."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


class VncServer(Protocol):
    """A VNC server that listens on nothing: `sock` is the only way to it."""

    @property
    def sock(self) -> socket.socket: ...

    def kill(self) -> None:
        """End the process at once; it is gone when this returns. Harmless twice."""
        ...


class Desktop(Protocol):
    """The user's desktop."""

    @property
    def name(self) -> str: ...

    @property
    def server_name(self) -> str: ...

    def filenos(self) -> Collection[int]:
        """Return what becomes readable when `happened` has something."""
        ...

    def happened(self) -> Iterator[Happened]:
        """Yield what happened since; never wait."""
        ...

    def watch_for(self, hotkey: str) -> None:
        """Stop when the user presses these keys, such as `ctrl+alt+q`.

        Raises:
            Unsuitable: there are no such keys.
        """
        ...

    def release_input(self) -> None:
        """Let go of every key and button that is down. Harmless when none is."""
        ...

    def type(self, point: int) -> None:
        """Type a character that no key need have, by its code point; nothing if it cannot be."""
        ...

    def start_server(self, *, can_control: bool) -> VncServer:
        """Start a VNC server.

        Raises:
            Unsuitable: there is none that starts.
        """
        ...

    def tidy(self) -> None:
        """Put back what a killed server has left behind."""
        ...

    def close(self) -> None: ...
