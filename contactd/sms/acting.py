"""What a filed text asks for is done: a reply to a page or a question, no texts any more."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol

from contactd.log import get_logger
from contactd.routing.replying import Answer, Heard
from contactd.store.texts import FiledText
from contactd.tickets.contact import Medium
from contactd.tickets.events import TextDue
from contactd.tickets.people import PHONE, Address
from contactd.tickets.phone import address, mask
from contactd.tickets.texting import Says, says

log = get_logger()

# What somebody hears of their reply; of what was done their next message speaks.
_SAID: Final = frozenset(
    {
        Heard.STATUS, Heard.LATE, Heard.WRONG_CODE, Heard.NO_TICKET, Heard.WHICH, Heard.RATED,
    }
)  # fmt: skip


class Texts(Protocol):
    async def filed(self, contact_id: int) -> FiledText | None: ...

    async def opt_out(self, number: str, word: str) -> None: ...

    async def opt_in(self, number: str) -> None: ...


class Replies(Protocol):
    async def reply(
        self, address: Address, text: str, medium: Medium, contact: str = ""
    ) -> Answer | None: ...


class Messages(Protocol):
    async def say(
        self, number: str, to: Address, medium: Medium, key: str, facts: Mapping[str, str]
    ) -> None: ...


class Acting:
    """The handler of `TextDue`; `country` is where numbers without a prefix are (ISO 3166)."""

    def __init__(self, *, texts: Texts, replies: Replies, messages: Messages, country: str) -> None:
        self._texts = texts
        self._replies = replies
        self._messages = messages
        self._country = country
        self._wishes: Mapping[Says, Callable[[str, str], Awaitable[None]]] = {
            Says.STOP: self._stop,
            Says.START: self._start,
        }

    async def text_due(self, event: TextDue) -> None:
        """Do what a text says; harmless twice.

        Raises:
            TemporaryFailure: do it again later.
        """
        text = await self._texts.filed(event.contact_id)
        sender = address(text.sender, country=self._country) if text is not None else ""
        if text is None or not sender:
            return
        wish = self._wishes.get(says(text.words))
        if wish is not None:
            await wish(sender, text.words.strip())
            return
        author = Address(kind=PHONE, value=sender)
        answer = await self._replies.reply(author, text.words, Medium.TEXT, text.external_id)
        if answer is None:
            return
        log.info("text.answered", ticket=answer.ticket, heard=answer.heard.value)
        if answer.heard in _SAID:
            number, facts = answer.said()
            key = str(event.contact_id)
            await self._messages.say(number or text.ticket, author, Medium.TEXT, key, facts)

    async def _stop(self, sender: str, word: str) -> None:
        await self._texts.opt_out(sender, word)
        log.info("text.opted_out", number=mask(sender))

    async def _start(self, sender: str, _word: str) -> None:
        await self._texts.opt_in(sender)
        log.info("text.opted_in", number=mask(sender))
