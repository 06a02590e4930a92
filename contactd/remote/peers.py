"""Whoever is connected: what the broker asks of a WebSocket, or of what stands in for one."""

from collections.abc import Mapping
from typing import Any, Final, Protocol

MESSAGE_BYTES: Final = 16 * 1024  # of a text frame


class Peer(Protocol):
    """`person` is `requester`, or the name with which an engineer logs in; `name` is shown.

    `may_look`: their role may ask to watch.
    """

    @property
    def person(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def may_look(self) -> bool: ...

    def tell(self, message: Mapping[str, Any]) -> None:
        """Send a message when what was said before is out. One who does not listen is cut off."""
        ...

    async def send(self, data: bytes) -> None:
        """Send bytes after the messages; wait while the peer is slower than we are.

        Raises:
            ConnectionError: it is gone, or has taken nothing for too long.
        """
        ...

    def close(self, code: int) -> None:
        """Let it go, once it was told what it has to know; harmless twice."""
        ...


class Misbehaved(Exception):
    """A peer sent what it must not; its text is for the log, without anything of theirs."""
