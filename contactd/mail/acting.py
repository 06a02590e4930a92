"""What a filed mail asks for is done: a reply to a page or a question, an address that bounced."""

from collections.abc import Mapping
from typing import Final, Protocol

from contactd.log import get_logger
from contactd.mail.reading import with_number
from contactd.routing.notify import SendState
from contactd.routing.replying import Answer, Heard
from contactd.store.mails import FiledMail, SentMail
from contactd.tickets.contact import Medium
from contactd.tickets.events import MailDue
from contactd.tickets.people import Address

log = get_logger()

# What somebody hears of their reply; of what was done their next message speaks.
_SAID: Final = frozenset({Heard.STATUS, Heard.LATE, Heard.WRONG_CODE, Heard.NO_TICKET, Heard.RATED})


class Mails(Protocol):
    async def filed(self, contact_id: int) -> FiledMail | None: ...

    async def sent(self, ref: str) -> SentMail | None: ...

    async def bounced(self, address: str) -> None: ...


class Replies(Protocol):
    async def reply(
        self, address: Address, text: str, medium: Medium, contact: str = ""
    ) -> Answer | None: ...


class Messages(Protocol):
    async def outcome(self, ref: str, state: SendState) -> None: ...

    async def say(
        self, number: str, to: Address, medium: Medium, key: str, facts: Mapping[str, str]
    ) -> None: ...


class Acting:
    """The handler of `MailDue`."""

    def __init__(self, *, mails: Mails, replies: Replies, messages: Messages) -> None:
        self._mails = mails
        self._replies = replies
        self._messages = messages

    async def mail_due(self, event: MailDue) -> None:
        """Do what a mail says; harmless twice.

        Raises:
            TemporaryFailure: do it again later.
        """
        mail = await self._mails.filed(event.contact_id)
        if mail is None:
            return
        about = await self._mails.sent(mail.facts.about) if mail.facts.about else None
        if mail.facts.undelivered and about is not None:
            await self._undelivered(mail, about)
        if mail.facts.reply and not mail.facts.forged:
            await self._answer(mail, about, str(event.contact_id))

    async def _undelivered(self, mail: FiledMail, about: SentMail) -> None:
        """Mark our mail that came back, and the address that it was for: no other.

        Anybody can write a bounce; this one names a mail that only its recipient was sent.
        """
        lost = [each for each in mail.facts.undelivered if each.permanent]
        if not lost:
            return
        await self._mails.bounced(about.address)
        await self._messages.outcome(mail.facts.about, SendState.FAILED)
        log.warning("mail.came_back", ticket=mail.ticket, status=lost[0].status)

    async def _answer(self, mail: FiledMail, about: SentMail | None, key: str) -> None:
        """Do what a reply says, if it is surely from whom it says.

        A name in From is no proof, nor is an address that everybody on the ticket knows: the mail
        answers one that was sent to this very address, or the sender's domain vouches for it.
        """
        answers_theirs = about is not None and about.address.lower() == mail.sender.value
        if not answers_theirs and not mail.facts.checks.get("aligned"):
            return
        for line in with_number(mail.facts.reply, mail.ticket):
            answer = await self._replies.reply(mail.sender, line, Medium.MAIL, mail.contact)
            if answer is not None:
                log.info("mail.answered", ticket=answer.ticket, heard=answer.heard.value)
                if answer.heard in _SAID:
                    await self._say(mail, answer, key)
                return

    async def _say(self, mail: FiledMail, answer: Answer, key: str) -> None:
        number, facts = answer.said()
        await self._messages.say(number or mail.ticket, mail.sender, Medium.MAIL, key, facts)
