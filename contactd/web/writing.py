"""What somebody of the desk writes to a requester by text: shown as it will be sent, then sent.

Sent twice by one form, the same words go out once; other words are another text.
"""

import hashlib
import re
import secrets
import unicodedata
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

LONGEST: Final = 500  # characters
KEY: Final = r"[0-9a-f]{16}"  # of a form; see `new_key`


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPreview:
    """A text as it would be sent now, with ticket number and signature, and what it costs."""

    text: str
    number: str  # where to
    gateway: str  # the first that serves the number
    encoding: str  # GSM-7 or UCS-2
    segments: int
    left: int  # room in the last segment: septets, or UTF-16 units
    price: float  # of a segment; 0: nobody has said
    currency: str  # ISO 4217

    @property
    def cost(self) -> float:
        return self.segments * self.price


class Writes(Protocol):
    """The use case; `routing.follow_up.FollowUp` has it."""

    async def write(self, number: str, *, actor: str, words: str, key: str) -> str:
        """Write to the requester of a ticket; return the message's ref.

        The second time for one `key` (33 of 0-9, a-f and -) nothing happens.

        Raises:
            NotFound: there is no such ticket.
            PermanentFailure: there is nowhere to write to.
        """
        ...


# A ticket's number and words to the text that would be sent; raises what `Writes.write` does.
Preview = Callable[[str, str], Awaitable[TextPreview]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Writing:
    preview: Preview
    texts: Writes


def cleaned(words: str) -> str:
    """Return `words` as they can be sent: lines end as everywhere, no other control characters."""
    lines = words.replace("\r\n", "\n").replace("\r", "\n")  # HTML section 4.10.22.8: CR LF
    return "".join(
        char if char == "\n" or unicodedata.category(char) not in ("Cc", "Cs") else " "
        for char in lines
    ).strip()


def new_key() -> str:
    """Return what makes the texts of one form its own."""
    return secrets.token_hex(8)


def is_key(key: str) -> bool:
    return re.fullmatch(KEY, key) is not None


def digest(words: str) -> str:
    """Return what tells whether somebody has seen how exactly these words will be sent."""
    return hashlib.sha256(words.encode()).hexdigest()[:16]


def text_key(form: str, words: str) -> str:
    """Return the key of a text: the same words of the same form are one text."""
    return f"{form}-{digest(words)}"
