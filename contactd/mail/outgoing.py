"""Mails to people, handed over to a smart host (RFC 6409): one connection a mail.

A mail of ours says that a machine wrote it (RFC 3834), belongs to the conversation of its ticket
(In-Reply-To, References), is answered to an address that names the ticket, and comes back, if it
cannot be delivered, to one that names the mail: see `mail.ours`.
"""

import asyncio
import re
import socket
import ssl
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from email.header import Header
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.policy import compat32
from email.utils import format_datetime, formataddr
from typing import Final

import aiosmtplib

from contactd.clock import Clock
from contactd.errors import ConfigurationError, PermanentFailure, TemporaryFailure
from contactd.log import get_logger
from contactd.mail.dkim_sign import Sign
from contactd.mail.ours import Ours
from contactd.mail.templates import Letters
from contactd.routing import words
from contactd.routing.notify import (
    REQUESTER,
    Notification,
    Reason,
    SendUnknown,
    Trace,
    link,
    ticket_link,
)
from contactd.service import Health, HealthState
from contactd.settings import MailSettings

log = get_logger()

LINKS: Final = "/m"  # where `web.maillinks` has its pages
REMEMBERED: Final = 10_000  # refs with their 250
AT_ONCE: Final = 8  # connections to the smart host; Postfix lets one client have 50
# Headers are written as they are given; the newer policies read each again, four times as long.
_POLICY: Final = compat32.clone(linesep="\r\n")
_PLAIN_CHARS: Final = 400  # on one line of 998 octets, quoted and with its address
_NO_REPLY: Final = -1  # aiosmtplib's code of an answer that is no SMTP
# RFC 5321 section 4.1.2 without quoted strings and address literals.
_ADDRESS: Final = re.compile(
    r"([A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64})@([A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*)"
)
_MESSAGE_ID: Final = re.compile(r"<[!-;=?-~]{1,400}>")  # on one line of 998 octets with its name
MOST_REFERENCES: Final = 20  # the newest; RFC 5322 section 3.6.4 sets no limit

# RFC 3834 section 5.2: only the confirmation answers a mail of its recipient's.
_REPLIES: Final = frozenset({Reason.RECEIVED})
# What comes again although nobody asked has a way to end it: the page where it is answered
# (RFC 2369 section 3.2). Everything else is sent once, about what its recipient asked for.
_RECURRING: Final = frozenset({Reason.REMINDER})


ThreadOf = Callable[[str, str], Awaitable[Sequence[str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Letterhead:
    """What mails have beside their words. Each part may be missing.

    `key` returns that of `tickets.signing`, for addresses, ids and links; `mailbox` is where
    answers and delivery reports go; links lead to pages below `public_url`. `thread_of` returns
    the Message-IDs of what somebody (by address) wrote about a ticket (by number), the newest
    first. Both raise TemporaryFailure if that is not known now. `sign` is DKIM.
    """

    key: Callable[[], Awaitable[bytes]] | None = None
    mailbox: str = ""
    public_url: str = ""
    portal_days: int = 0  # how long links to tickets on the portal work; 0: there is no portal
    letters: Letters = field(default_factory=Letters)
    thread_of: ThreadOf | None = None
    sign: Sign | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Around:
    """What one mail needs to know beside its notification."""

    ours: Ours | None = None
    theirs: Sequence[str] = ()  # ids of what the recipient wrote about the ticket, newest first

    def envelope_sender(self, notification: Notification) -> str:
        """Return where a delivery report goes, "" to the address in From."""
        ours = self.ours
        return ours.bounce_address(notification.ticket, notification.ref) if ours else ""


class Mails:
    """A `Notifier` for mail. `service` is what the installation is called.

    Raises:
        ConfigurationError: `mail.ca_file` holds no certificates.
    """

    def __init__(
        self,
        settings: MailSettings,
        *,
        service: str,
        clock: Clock,
        letterhead: Letterhead | None = None,
    ) -> None:
        self._settings = settings
        self._tls = _tls(settings)  # once: the system's certificates take 20 ms to read
        self._service = service
        self._clock = clock
        self._head = letterhead or Letterhead()
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._accepted: OrderedDict[str, None] = OrderedDict()
        self._fault = ""  # why the smart host took nothing the last time; "": it did

    async def send(self, notification: Notification) -> None:
        """Hand the mail over; the 250 makes the smart host responsible for it.

        Raises:
            SendUnknown: the mail was on its way when the connection or the time ended. Sent again
                it has the same Message-ID: most mailboxes show it once.
            TemporaryFailure: the smart host is away, busy, or refuses us or our sender.
            PermanentFailure: it refuses the recipient or the mail for good.
        """
        if notification.ref in self._accepted:
            return
        around = await self._around(notification)
        content = self.message(notification, around)
        if self._head.sign is not None:
            content = await asyncio.to_thread(self._head.sign, content)
        sender = around.envelope_sender(notification) or self._settings.sender
        with self._noting_faults():
            async with self._turns, self._connected() as smart_host:
                await self._hand_over(smart_host, sender, notification.address, content)
        self._accepted[notification.ref] = None
        while len(self._accepted) > REMEMBERED:
            self._accepted.popitem(last=False)
        log.info(
            "mail.sent", ref=notification.ref, ticket=notification.ticket,
            reason=notification.reason.value, recipient=notification.recipient,
        )  # fmt: skip

    async def find(self, ref: str) -> Trace:
        """Say whether we have the 250; SMTP has no way to ask afterwards."""
        return Trace.SENT if ref in self._accepted else Trace.UNKNOWN

    async def stop(self, refs: Collection[str]) -> None:
        """Do nothing: a mail that was handed over stays so."""

    async def probe(self) -> None:
        """Connect and log in, and send nothing.

        Raises:
            TemporaryFailure: that did not work; the text says why.
        """
        with self._noting_faults():
            async with self._connected():
                pass

    def health(self) -> list[Health]:
        if not self._fault:
            return [Health(component="mail", state=HealthState.UP)]
        detail = f"{self._fault}; see mail.host and the others of section mail"
        return [Health(component="mail", state=HealthState.DEGRADED, detail=detail)]

    async def _around(self, notification: Notification) -> _Around:
        ours: Ours | None = None
        theirs: Sequence[str] = ()
        if self._head.key is not None:
            domain = self._settings.sender.rpartition("@")[2]
            ours = Ours(key=await self._head.key(), mailbox=self._head.mailbox, domain=domain)
        if self._head.thread_of is not None:
            theirs = await self._head.thread_of(notification.ticket, notification.address)
        return _Around(ours=ours, theirs=theirs)

    def message(self, notification: Notification, around: _Around) -> bytes:
        """Return the mail of a notification, in the recipient's language.

        Raises:
            PermanentFailure: the address is none that a smart host without SMTPUTF8 takes.
        """
        if not _ADDRESS.fullmatch(notification.address):
            raise PermanentFailure("the address is not one that mail can be sent to")
        ours = around.ours
        reply_to = ours.reply_address(notification.ticket) if ours else ""
        page = self._page(notification, ours)
        setting = words.Setting(
            service=self._service,
            link=page,
            can_reply=bool(reply_to),
            # The title of what came by mail is its subject.
            subject=notification.facts.get("title", "") if around.theirs else "",
            progress=self._progress(notification, ours),
            wording=self._head.letters.wording(notification.reason, notification.language),
        )
        letter = words.letter(notification, setting)
        mail = MIMEMultipart("alternative", policy=_POLICY)
        mail["From"] = _mailbox(self._service, self._settings.sender)
        mail["To"] = _mailbox(notification.name, notification.address)
        if reply_to:
            mail["Reply-To"] = _mailbox(self._service, reply_to)
        mail["Subject"] = _encoded(_line(letter.subject))
        mail["Date"] = format_datetime(self._clock.now())
        is_reply = notification.reason in _REPLIES
        if notification.reason is not Reason.SAID:  # a person wrote that
            mail["Auto-Submitted"] = "auto-replied" if is_reply else "auto-generated"
        mail["X-Auto-Response-Suppress"] = "All"  # MS-OXCMAIL 2.2.3.2.14: no vacation notes
        mail["X-Contactd"] = _line(self._service)  # comes one back, it is known
        for content, kind in ((letter.text, "plain"), (letter.html, "html")):
            text = "\r\n".join(content.splitlines()) + "\r\n"  # RFC 2046 section 4.1.1
            mail.attach(MIMEText(text, kind, "utf-8", policy=_POLICY))
        mail["Content-Language"] = "zh-CN" if notification.language.startswith("zh") else "en"
        unsubscribe = f"<{page}>" if page and notification.reason in _RECURRING else ""
        long = {
            "Message-ID": [self.message_id(notification.ref, ours)],
            **_threading(notification, around),
            "List-Unsubscribe": [unsubscribe] if unsubscribe else [],
        }
        return _folded(long) + mail.as_bytes()

    def message_id(self, ref: str, ours: Ours | None = None) -> str:
        """Return the Message-ID of a `ref`: always the same, and with a proof if we have a key."""
        if ours is not None and (proved := ours.message_id(ref)):
            return proved
        local = re.sub(r"[^A-Za-z0-9-]", lambda found: f"={ord(found[0]):x}=", ref)
        return f"<{local}@{self._settings.sender.rpartition('@')[2]}>"

    def _page(self, notification: Notification, ours: Ours | None) -> str:
        """Return the page where the message is answered, "" if there is none."""
        offered = words.offers(notification.reason, notification.language)
        if not offered or not self._head.public_url or ours is None:
            return ""
        token = link(ours.key, notification.ref)
        return f"{self._head.public_url.rstrip('/')}{LINKS}/{token}" if token else ""

    def _progress(self, notification: Notification, ours: Ours | None) -> str:
        """Return the ticket's page on the portal, "" if there is none, or it is not theirs.

        A code is for another page, and must not come with a link that needs none.
        """
        is_theirs = notification.recipient == REQUESTER and notification.reason is not Reason.LOGIN
        days, url = self._head.portal_days, self._head.public_url
        if not (is_theirs and days and url) or ours is None:
            return ""
        until = self._clock.now() + timedelta(days=days)
        return url.rstrip("/") + ticket_link(ours.key, notification.ticket, until)

    # The smart host

    @contextmanager
    def _noting_faults(self) -> Iterator[None]:
        """Keep for `health` why the smart host could not be used."""
        try:
            yield
        except TemporaryFailure as failure:
            self._fault = str(failure)
            raise
        except PermanentFailure:
            self._fault = ""  # it answered
            raise
        else:
            self._fault = ""

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[aiosmtplib.SMTP]:
        """Return a connection that is ready for a mail; it is given up at the end."""
        settings = self._settings
        smart_host = aiosmtplib.SMTP(
            hostname=settings.host,
            port=settings.port,
            username=settings.username or None,
            password=settings.password.get_secret_value() or None,
            use_tls=settings.security == "tls",
            start_tls=settings.security == "starttls",
            tls_context=self._tls,
            timeout=settings.timeout_s,
            # Its default asks the name server for a name, which can take seconds.
            local_hostname=socket.gethostname(),
        )
        try:
            await self._connect(smart_host)
            yield smart_host
        finally:
            smart_host.close()

    async def _connect(self, smart_host: aiosmtplib.SMTP) -> None:
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                await smart_host.connect()
        except (aiosmtplib.SMTPException, OSError, TimeoutError, ValueError) as error:
            raise TemporaryFailure(f"smart host {self._where()}: {_said(error)}") from error

    async def _hand_over(
        self, smart_host: aiosmtplib.SMTP, sender: str, recipient: str, content: bytes
    ) -> None:
        """Send one mail; only after the beginning of DATA the outcome can be unknown."""
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                await smart_host.mail(sender)
                await smart_host.rcpt(recipient)
        except aiosmtplib.SMTPRecipientRefused as error:
            raise _refused(f"smart host {self._where()}: recipient", error.code) from error
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            raise TemporaryFailure(f"smart host {self._where()}: {_said(error)}") from error
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                await smart_host.data(content)
        except aiosmtplib.SMTPResponseException as error:
            if not 400 <= error.code <= 599:  # an answer that says neither yes nor no
                raise SendUnknown(f"smart host {self._where()}: {_said(error)}") from error
            raise _refused(f"smart host {self._where()}: mail", error.code) from error
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            raise SendUnknown(
                f"smart host {self._where()}: no answer to the mail: {_said(error)}"
            ) from error
        try:  # it has the mail: whatever happens now changes nothing
            async with asyncio.timeout(1):
                await smart_host.quit()
        except (aiosmtplib.SMTPException, OSError, TimeoutError):
            pass

    def _where(self) -> str:
        return f"{self._settings.host}:{self._settings.port}"


def _threading(notification: Notification, around: _Around) -> dict[str, list[str]]:
    """Return the headers that put a mail into its conversation (RFC 5322 section 3.6.4).

    Ids of others' mails are others' text: what is none is left out.
    """
    root = [around.ours.root_id(notification.ticket)] if around.ours else []
    known = [each for each in around.theirs if _MESSAGE_ID.fullmatch(each)]
    newest = known[: MOST_REFERENCES - 1]
    return {"In-Reply-To": newest[:1] or root, "References": [*root, *reversed(newest)]}


def _mailbox(name: str, address: str) -> str:
    name = _line(name)
    encoded = _encoded(name)
    # `formataddr` quotes what is ASCII; of the rest it makes one word, however long.
    return formataddr((name, address)) if encoded == name else f"{encoded} <{address}>"


def _encoded(text: str) -> str:
    """Return text as a header has it: ASCII as it is, else encoded words (RFC 2047 section 2)."""
    is_plain = text.isascii() and "=?" not in text and len(text) <= _PLAIN_CHARS
    if is_plain:
        return text
    # The first line has room for the longest name of those headers, so that none begins empty.
    return Header(text, "utf-8", header_name="Reply-To").encode()


def _line(name: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in name).split())


def _folded(headers: dict[str, list[str]]) -> bytes:
    """Return headers of ASCII words, one a line.

    The standard library writes a word that is longer than a line as an encoded word, which no id
    and no link may be (seen with Python 3.11).
    """
    lines = [f"{name}: " + "\r\n ".join(found) for name, found in headers.items() if found]
    return "".join(f"{line}\r\n" for line in lines).encode("ascii")


def _tls(settings: MailSettings) -> ssl.SSLContext | None:
    """Return a context that checks certificates, against `ca_file` if one is named."""
    if settings.security == "none":
        return None
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except OSError as error:  # also what is no certificate: SSLError
        raise ConfigurationError(f"mail.ca_file: {settings.ca_file}: {error}") from error


def _refused(what: str, code: int) -> PermanentFailure | TemporaryFailure:
    """Return what a refusal means: 5yz never, anything else later (RFC 5321 section 4.2.1)."""
    kind = PermanentFailure if 500 <= code <= 599 else TemporaryFailure
    return kind(f"{what} refused: {code}")


def _said(error: BaseException) -> str:
    """Return why it failed, without what the peer wrote: that may hold an address."""
    match _cause(error):
        case aiosmtplib.SMTPAuthenticationError(code=code):
            return f"it refuses mail.username and its password ({code})"
        case aiosmtplib.SMTPSenderRefused(code=code):
            return f"it refuses mail.sender ({code})"
        case aiosmtplib.SMTPResponseException(code=code):
            return "its answer is not SMTP" if code == _NO_REPLY else f"it answered {code}"
        case ssl.SSLCertVerificationError(verify_message=why):
            return f"its certificate is not trusted: {why}"
        case TimeoutError():
            return "no answer in time"
        case cause:
            return str(cause) or type(cause).__name__


def _cause(error: BaseException) -> BaseException:
    """Return what aiosmtplib wrapped into an error of connecting."""
    while isinstance(error, aiosmtplib.SMTPConnectError) and error.__cause__ is not None:
        error = error.__cause__
    return error
