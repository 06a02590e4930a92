"""What a text (SMS) says, as far as a machine can tell (pure)."""

import unicodedata
from enum import StrEnum
from functools import lru_cache
from typing import Final

from contactd.tickets.replies import Sender, Verb, bare, parse


class Says(StrEnum):
    WORDS = "words"  # a person has to read it
    REPLY = "reply"  # see `tickets.replies`
    STATUS = "status"  # one that only asks
    STOP = "stop"  # they want no more texts
    START = "start"  # they want them again


# The English words are those of Twilio's default opt-out handling, without CANCEL and YES, which
# people say about a ticket; the Chinese ones are what texts in China end with (退订回T, 回复TD).
_STOP: Final = frozenset(
    {
        "stop", "stopall", "unsubscribe", "end", "quit", "revoke", "optout", "退订", "取消订阅",
        "t", "td", "n",
    }
)  # fmt: skip
_START: Final = frozenset({"start", "unstop", "恢复", "恢复订阅", "订阅"})
_LONGEST: Final = 80  # characters, of a wish
_GAPS: Final = " \t\r\n.,!。、,[]【】\"'“”"


@lru_cache(maxsize=64)  # a text is asked four times on its way to a ticket
def says(text: str) -> Says:
    """Return what a text is; full-width letters, case and signs around it do not matter."""
    whole = text if len(text) <= _LONGEST else ""
    word = unicodedata.normalize("NFKC", whole).casefold().strip(_GAPS)
    if word in _STOP:
        return Says.STOP
    if word in _START:
        return Says.START
    found = [parse(text, sender) or bare(text, sender) for sender in Sender]
    verbs = {reply.verb for reply in found if reply is not None}
    if verbs == {Verb.STATUS}:
        return Says.STATUS
    return Says.REPLY if verbs else Says.WORDS
