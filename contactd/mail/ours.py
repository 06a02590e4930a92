"""Addresses and Message-IDs that only this installation can make, and reading them back (pure).

    support+26112200172.kq3v5mzw7a2hj4xd@desk.example.cn              Reply-To: joins the ticket
    support+b-page-26112200172-1-wang-mail.3fzt6yq2p5wdkm7c@…         envelope sender (VERP)
    <page-26112200172-1-wang-mail.3fzt6yq2p5wdkm7c@desk.example.cn>   Message-ID
    <26112200172.kq3v5mzw7a2hj4xd@desk.example.cn>                    what all of a ticket refer to

The part behind the last dot is a proof (`tickets.signing`), so nobody makes one of another ticket.
What stands before it is a ticket's number or the `ref` of a notification.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from contactd.routing.notify import name_of, named
from contactd.tickets import signing
from contactd.tickets.signing import Purpose

LONGEST_LOCAL_PART: Final = 64  # octets (RFC 5321 section 4.5.3.1.1)
_BOUNCES: Final = "b-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ours:
    """Makes them. `mailbox` is the support mailbox, "" if we take no mail; `domain` that of ids."""

    key: bytes = field(repr=False)
    mailbox: str
    domain: str

    def reply_address(self, ticket: str) -> str:
        """Return the address whose mail joins the ticket; "" if there is none."""
        return self._plus(signing.sign(self.key, Purpose.REPLY, ticket))

    def bounce_address(self, ticket: str, ref: str) -> str:
        """Return the address to which a mail's delivery report comes back; "" if there is none.

        Where a `ref` is too long for a local part the report still proves its ticket, and the
        Message-ID that it quotes names the mail.
        """
        token = self._token(ref)
        exact = self._plus(_BOUNCES + token) if token else ""
        return exact or self.reply_address(ticket)

    def message_id(self, ref: str) -> str:
        """Return the Message-ID of a mail, with its <>: always the same. "" if it has none."""
        token = self._token(ref)
        return f"<{token}@{self.domain}>" if token else ""

    def root_id(self, ticket: str) -> str:
        """Return the id that all mails of a ticket refer to, so that they are one conversation.

        No mail has it: mail programs group by it all the same (RFC 5256 section 3).
        """
        return f"<{signing.sign(self.key, Purpose.REPLY, ticket)}@{self.domain}>"

    def _token(self, ref: str) -> str:
        name = name_of(ref)
        return signing.sign(self.key, Purpose.BOUNCE, name) if name else ""

    def _plus(self, detail: str) -> str:
        local, _, domain = self.mailbox.rpartition("@")
        made = f"{local}+{detail}"
        return f"{made}@{domain}" if local and len(made) <= LONGEST_LOCAL_PART else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What a mail proves by addresses and Message-IDs that only we can have made, "" nothing.

    `ref` is the notification that it answers, or that came back with it.
    """

    ticket: str = ""  # number
    ref: str = ""


def proof(key: bytes, addresses: Iterable[str], ids: Iterable[str]) -> Proof:
    """Return what the recipients of a mail and the ids that it refers to prove, the first of each.

    `ids` have their <>. What is not ours proves nothing, however it looks.
    """
    tokens = [*map(_detail, addresses), *map(_local, ids)]
    tickets = _opened(key, Purpose.REPLY, tokens)
    refs = _opened(key, Purpose.BOUNCE, (token.removeprefix(_BOUNCES) for token in tokens))
    ref = next(refs, "")
    return Proof(ticket=next(tickets, ""), ref=named(ref) if ref else "")


def _opened(key: bytes, purpose: Purpose, tokens: Iterable[str]) -> Iterator[str]:
    found = (signing.verify(key, purpose, token) for token in tokens)
    return (each for each in found if each)


def _detail(address: str) -> str:
    return address.strip().rpartition("@")[0].partition("+")[2].lower()


def _local(message_id: str) -> str:
    return message_id.strip().removeprefix("<").rpartition("@")[0].lower()
