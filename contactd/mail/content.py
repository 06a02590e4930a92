"""What comes after DATA: where it ends, and whether it can be taken (pure)."""

from collections.abc import Mapping
from enum import StrEnum
from io import IncrementalNewlineDecoder
from typing import Final

LINE_BYTES: Final = 1 << 20  # RFC 5322 says 998; QQ and WeChat send more than 2,000
END: Final = b"\r\n.\r\n"
_LAST_LINE: Final = 3  # bytes of it that are not the mail's


class Fault(StrEnum):
    """What is wrong with the content of a mail."""

    TOO_BIG = "too_big"
    NO_ROOM = "no_room"
    BARE = "bare"
    LONG_LINE = "long_line"


FAULTS: Final[Mapping[Fault, str]] = {
    Fault.TOO_BIG: "552 5.3.4 Message too big",
    Fault.NO_ROOM: "452 4.3.1 No room now, try again later",
    # RFC 5321 section 2.3.8. Whoever reads such a line end as the end of the mail reads what
    # follows as another mail (SMTP smuggling, CVE-2023-51764 and its kin).
    Fault.BARE: "550 5.6.0 CR or LF that is not CRLF in the message",
    Fault.LONG_LINE: "550 5.6.0 Line too long",
}


class Content:
    """The lines after DATA, from pieces as they come to the mail (no I/O).

    Only CRLF "." CRLF ends them. A mail with a CR or LF that stands alone is refused as a whole
    after that end, so nothing within it can be a command to anybody.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit  # bytes
        self.received = 0  # bytes, also those that were not kept
        self.fault: Fault | None = None
        # It begins with the line end of DATA itself: a dot may be the first thing that comes.
        self._buffer = bytearray(b"\r\n")
        self._dots = False  # whether a line begins with a dot
        # It notes which kinds of line ends there are, also one that two pieces share; three times
        # as fast as counting them.
        self._ends = IncrementalNewlineDecoder(None, translate=False)

    @property
    def held(self) -> int:
        """How many bytes are in memory."""
        return len(self._buffer)

    def feed(self, piece: bytes) -> bytes | None:
        """Take the next piece; return None, or, after the end, what does not belong to the mail."""
        before = len(self._buffer)
        self._buffer += piece
        self.received += len(piece)
        end = self._find_end(max(0, before - len(END) + 1))
        if end < 0:
            self._check_ends(piece)
            if self.received > self.limit + _LAST_LINE:
                self.fault = Fault.TOO_BIG
            if self.fault is not None:
                self.drop(self.fault)
            return None
        rest = bytes(self._buffer[end + len(END) :])
        self.received -= len(rest)
        self._check_ends(piece[: len(piece) - len(rest)])
        del self._buffer[end + 2 :]
        self._conclude()
        return rest

    def drop(self, fault: Fault) -> None:
        """Refuse the mail: what comes is only looked through for its end."""
        self.fault = fault
        del self._buffer[: -len(END) + 1]

    def take(self) -> bytearray:
        """Return the mail, its dots no more doubled (RFC 5321 section 4.5.2). Once, at the end."""
        raw = self._buffer
        if self._dots:
            raw = raw.replace(b"\r\n.", b"\r\n")
        del raw[:2]
        self._buffer = bytearray()
        return raw

    def _find_end(self, start: int) -> int:
        if not self._dots:  # one look for both: most mails have no such line
            start = self._buffer.find(b"\r\n.", start)
            if start < 0 or self._buffer.startswith(END, start):
                return start
            self._dots = not END.startswith(self._buffer[start : start + len(END)])
        return self._buffer.find(END, start)

    def _check_ends(self, piece: bytes) -> None:
        if self.fault is None:
            self._ends.decode(piece.decode("latin-1"))

    def _conclude(self) -> None:
        if self.fault is None:
            if self.received > self.limit + _LAST_LINE:
                self.fault = Fault.TOO_BIG
            elif self._ends.newlines != "\r\n":
                self.fault = Fault.BARE
            elif self._has_long_line():
                self.fault = Fault.LONG_LINE

    def _has_long_line(self) -> bool:
        at, step = 0, LINE_BYTES + 2 * len(b"\r\n")  # `at` is where a line end begins
        while len(self._buffer) - at > step:
            at = self._buffer.rfind(b"\r\n", at + 2, at + step)
            if at < 0:
                return True
        return False
