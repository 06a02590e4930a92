"""Who a visitor of the portal is: signed links, one-time codes, and what is too much of them.

Four tiers. Nobody: may report a fault. Who has just reported one: sees what became of it and what
they wrote here themselves; the number that they gave may be another's, who may call or write about
the same ticket. Who has a link of a mail: sees that one ticket and may answer about it, as they may
by answering the mail; somebody they forward it to may, too. Who has typed a code that went to an
address of theirs: sees all their tickets and arrival codes, and may give another number to be
called on.
"""

import hmac
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final, Protocol

from aiohttp import web

from contactd.clock import Clock
from contactd.errors import NotFound
from contactd.httpd import HTTPD, PORTAL_COOKIE, Problem, Refused
from contactd.log import get_logger
from contactd.routing.notify import TICKET_LINKS, Reason, ticket_link
from contactd.settings import PortalSettings
from contactd.store.portal import Portal, Visitor
from contactd.tickets import phone, signing
from contactd.tickets.contact import PORTAL, Medium
from contactd.tickets.events import CodeDue
from contactd.tickets.numbers import digits_of
from contactd.tickets.people import MAIL, PHONE, Address
from contactd.tickets.signing import Purpose

log = get_logger()

CODE_DIGITS: Final = 6
PATH: Final = "/help"
LINKS: Final = TICKET_LINKS
UNPROVED: Final = "r"  # before the number in the link of who has just reported something
OWN: Final = f"{PATH}/my"
SENT_LASTS: Final = timedelta(hours=12)  # the page that says thank you
LONGEST_ADDRESS: Final = 254  # RFC 5321 section 4.5.3.1
WAIT_S: Final = 600  # what Retry-After says; the hour begins anew sooner or later


class Say(Protocol):
    """`FollowUp.say`: tell somebody something, once for its key."""

    async def __call__(  # noqa: PLR0913 - who is told what, by what
        self,
        number: str,
        to: Address,
        medium: Medium,
        key: str,
        facts: Mapping[str, str],
        reason: Reason = ...,
    ) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What a visitor may see: one ticket, with the pages below `base`."""

    number: str
    base: str
    visitor: Visitor | None  # who has shown to be the requester; None: somebody who has a link
    is_proved: bool = True  # False: they have only said who they are

    @property
    def mark(self) -> str:
        """Return how the external ids begin of what is written on these pages."""
        return f"{PORTAL}{'' if self.is_proved else UNPROVED}{self.number}:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Lets visitors in. `key` returns that of `tickets.signing`."""

    portal: Portal
    settings: PortalSettings
    key: Callable[[], Awaitable[bytes]]
    clock: Clock

    # Links

    async def link(self, number: str, *, is_proved: bool = True) -> str:
        """Return the path of a ticket's page for who has nothing but this link."""
        name = number if is_proved else UNPROVED + number
        lasts = timedelta(days=self.settings.link_days)
        return ticket_link(await self.key(), name, self.clock.now() + lasts)

    async def sent(self, number: str, *, opened: bool) -> str:
        """Return the path of the page that says thank you."""
        until = self.clock.now() + SENT_LASTS
        name = f"{number}-{'o' if opened else 'j'}"
        return f"{PATH}/sent/{signing.sign_until(await self.key(), Purpose.SENT, name, until)}"

    async def was_sent(self, token: str) -> tuple[str, bool]:
        """Return which ticket a report went to, and whether it opened it.

        Raises:
            NotFound: we have not made this link, or it is old.
        """
        name = await self._named(Purpose.SENT, token)
        number, _, how = name.partition("-")
        return number, how == "o"

    async def access(self, request: web.Request) -> Access:
        """Return what the address of a page lets its visitor see.

        Raises:
            NotFound: we have not made this link, or it has expired.
            SignIn: nobody has shown to be the requester.
        """
        visitor = await self.visitor(request)
        token = request.match_info.get("token")
        if token is None:
            number = request.match_info["number"]
            if visitor is None:
                raise SignIn
            return Access(number=number, base=f"{OWN}/{number}", visitor=visitor)
        name = await self._named(Purpose.TICKET, token)
        return Access(
            number=name.removeprefix(UNPROVED), base=f"{LINKS}/{token}", visitor=visitor,
            is_proved=not name.startswith(UNPROVED),
        )  # fmt: skip

    async def _named(self, purpose: Purpose, token: str) -> str:
        found = signing.verify_until(await self.key(), purpose, token)
        if found is None or found[1] <= self.clock.now():
            raise NotFound("there is no such link")
        return found[0]

    # One-time codes and sessions

    async def ask_code(self, request: web.Request, address: Address, language: str) -> str:
        """Have a code sent to an address, if anybody has it; return the challenge.

        Raises:
            Refused: too many were asked for.
        """
        settings = self.settings
        await self.limit("code-client", self.client(request), settings.codes_per_client)
        await self.limit("code-person", _name(address), settings.codes_per_person)
        lasts = timedelta(minutes=settings.code_minutes)
        return await self.portal.ask_code(address, language, lasts)

    async def answer(self, request: web.Request, challenge: str, typed: str) -> str:
        """Return the secret of a new session, "" if that was not the code.

        Raises:
            Refused: too many were tried.
        """
        client, settings = self.client(request), self.settings
        await self.limit("try-client", client, settings.codes_per_client)
        code = code_of(await self.key(), challenge)
        is_right = hmac.compare_digest(code, digits_of(typed[:40]))
        lasts = timedelta(minutes=settings.session_minutes)
        secret = await self.portal.answer(challenge, is_right=is_right, lasts=lasts)
        log.info("portal.code_tried", right=bool(secret))
        return secret

    async def visitor(self, request: web.Request) -> Visitor | None:
        secret = request.cookies.get(PORTAL_COOKIE, "")
        return await self.portal.visitor(secret) if secret else None

    def remember(self, request: web.Request, response: web.Response, secret: str) -> None:
        response.set_cookie(
            PORTAL_COOKIE, secret, max_age=self.settings.session_minutes * 60, httponly=True,
            samesite="Lax", secure=request.app[HTTPD].is_secure(request), path=PATH,
        )  # fmt: skip

    # Limits

    def client(self, request: web.Request) -> str:
        """Return the network address that a request comes from; of IPv6 its network.

        A provider gives each of its customers at least 2^64 addresses of IPv6.
        """
        told = ""
        if self.settings.client_header:  # what our own proxy added is the last one
            told = ",".join(request.headers.getall(self.settings.client_header, []))
        shown = told.rpartition(",")[2].strip() or request.remote or ""
        try:
            address = ip_address(shown)
        except ValueError:
            return "unknown"
        if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
            return str(ip_network((address, 64), strict=False))
        return str(getattr(address, "ipv4_mapped", None) or address)

    async def limit(self, what: str, by: str, most: int, amount: int = 1) -> None:
        """Count what somebody does.

        Raises:
            Refused: it is too much of it within the hour.
        """
        if not await self.portal.take(what, by, most, amount):
            log.warning("portal.limited", what=what)
            raise Refused(Problem(status=429, headers={"Retry-After": str(WAIT_S)}))

    async def limit_writing(self, request: web.Request, person: str) -> None:
        """Count a report or a reply; raises as `limit`."""
        await self.limit("write-client", self.client(request), self.settings.reports_per_client)
        if person:
            await self.limit("write-person", person, self.settings.reports_per_person)


class SignIn(Exception):
    """Raised where a visitor has to show first that an address is theirs."""


def code_of(key: bytes, challenge: str) -> str:
    """Return the six digits that answer a challenge."""
    digest = hmac.digest(key, b"portal-code:" + challenge.encode("utf-8", "replace"), "sha256")
    return f"{int.from_bytes(digest[:8]) % 10**CODE_DIGITS:0{CODE_DIGITS}}"


def address_of(typed: str) -> Address | None:
    """Return the address that somebody typed, None if it is none."""
    value = typed.strip()
    if len(value) > LONGEST_ADDRESS or not value.isprintable():
        return None
    if "@" in value:
        return Address(kind=MAIL, value=value.lower()) if is_mail(value) else None
    number = phone.address(value)
    return Address(kind=PHONE, value=number) if number else None


def is_mail(value: str) -> bool:
    local, at, domain = value.rpartition("@")
    plain = value.isascii() and value.isprintable() and " " not in value
    return bool(at and local and plain and "." in domain.strip(".") and "@" not in local)


def _name(address: Address) -> str:
    return f"{address.kind}:{address.value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Codes:
    """Sends one-time codes: the handler of `CodeDue`."""

    portal: Portal
    say: Say
    key: Callable[[], Awaitable[bytes]]

    async def due(self, event: CodeDue) -> None:
        """Send a code about the latest ticket of who has the address; nobody has it: nothing."""
        asked = await self.portal.asked(event.challenge)
        number = await self.portal.latest_ticket(asked.address) if asked is not None else ""
        if asked is None or not number:
            return
        medium = Medium.MAIL if asked.address.kind == MAIL else Medium.TEXT
        if medium is Medium.TEXT and not phone.is_mobile(asked.address.value):
            return  # a desk phone: nothing that it could read
        facts = {"code": code_of(await self.key(), event.challenge)}
        key = event.challenge[:16]
        await self.say(number, asked.address, medium, key, facts, Reason.LOGIN)
