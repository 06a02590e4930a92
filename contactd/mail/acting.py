"""What a filed mail asks for is done: a reply to a page or a question, an address that bounced."""

from collections.abc import Awaitable, Callable, Collection
from typing import Protocol

from contactd.log import get_logger
from contactd.mail.reading import with_number
from contactd.routing.notify import SendState
from contactd.routing.replying import Answer
from contactd.store.mails import FiledMail
from contactd.tickets.contact import MailFacts, Medium
from contactd.tickets.events import MailDue
from contactd.tickets.people import Address

log = get_logger()


class Mails(Protocol):
    async def filed(self, contact_id: int) -> FiledMail | None: ...

    async def bounced(self, undelivered: Collection[str]) -> None: ...


class Acting:
    """The handler of `MailDue`."""

    def __init__(
        self,
        *,
        mails: Mails,
        reply: Callable[[Address, str, Medium], Awaitable[Answer | None]],
        outcome: Callable[[str, SendState], Awaitable[None]],
    ) -> None:
        self._mails = mails
        self._reply = reply
        self._outcome = outcome

    async def mail_due(self, event: MailDue) -> None:
        """Do what a mail says; harmless twice.

        Raises:
            TemporaryFailure: do it again later.
        """
        mail = await self._mails.filed(event.contact_id)
        if mail is None:
            return
        if mail.facts.undelivered:
            await self._undelivered(mail)
        if mail.facts.reply and is_from_them(mail.facts):
            await self._answer(mail)

    async def _undelivered(self, mail: FiledMail) -> None:
        """Mark addresses and message, if it is a mail of ours that came back.

        Anybody can write a bounce: only one that proves which mail it is about counts.
        """
        facts = mail.facts
        lost = [each for each in facts.undelivered if each.permanent and each.address]
        if not facts.about or not lost:
            return
        await self._mails.bounced([each.address for each in lost])
        await self._outcome(facts.about, SendState.FAILED)
        log.warning("mail.came_back", ticket=mail.ticket, status=lost[0].status)

    async def _answer(self, mail: FiledMail) -> None:
        for line in with_number(mail.facts.reply, mail.ticket):
            answer = await self._reply(mail.sender, line, Medium.MAIL)
            if answer is not None:
                log.info("mail.answered", ticket=answer.ticket, heard=answer.heard.value)
                return


def is_from_them(facts: MailFacts) -> bool:
    """Return whether a mail is surely from whom it says, so that it can take and close tickets.

    It went to an address or answers a Message-ID that only they were told, or its domain vouches
    for it. A name in From is no proof.
    """
    return not facts.forged and bool(facts.proved or facts.checks.get("aligned"))
