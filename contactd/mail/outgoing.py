"""Mails to people, handed over to a smart host (RFC 6409): one connection a mail."""

import asyncio
import re
import socket
import ssl
from collections import OrderedDict
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Final

import aiosmtplib

from contactd.clock import Clock
from contactd.errors import ConfigurationError, PermanentFailure, TemporaryFailure
from contactd.log import get_logger
from contactd.routing import words
from contactd.routing.notify import Notification, SendUnknown, Trace
from contactd.service import Health, HealthState
from contactd.settings import MailSettings

log = get_logger()

REMEMBERED: Final = 10_000  # refs with their 250
AT_ONCE: Final = 8  # connections to the smart host; Postfix lets one client have 50
_POLICY: Final = SMTP.clone(cte_type="7bit")  # asks nothing of the smart host
_NO_REPLY: Final = -1  # aiosmtplib's code of an answer that is no SMTP
# RFC 5321 section 4.1.2 without quoted strings and address literals.
_ADDRESS: Final = re.compile(
    r"([A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64})@([A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*)"
)


class Mails:
    """A `Notifier` for mail. `service` is what the installation is called.

    Raises:
        ConfigurationError: `mail.ca_file` holds no certificates.
    """

    def __init__(self, settings: MailSettings, *, service: str, clock: Clock) -> None:
        self._settings = settings
        self._tls = _tls(settings)  # once: the system's certificates take 20 ms to read
        self._service = service
        self._clock = clock
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
        content = self.message(notification).as_bytes()
        recipient = notification.address
        if notification.ref in self._accepted:
            return
        with self._noting_faults():
            async with self._turns, self._connected() as smart_host:
                await self._hand_over(smart_host, recipient, content)
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

    def message(self, notification: Notification) -> EmailMessage:
        """Return the mail of a notification, in the recipient's language.

        Raises:
            PermanentFailure: the address is none that a smart host without SMTPUTF8 takes.
        """
        if not (address := _ADDRESS.fullmatch(notification.address)):
            raise PermanentFailure("the address is not one that mail can be sent to")
        letter = words.letter(notification, service=self._service)
        name = " ".join("".join(c if c.isprintable() else " " for c in notification.name).split())
        sender, domain = self._settings.sender.rsplit("@", 1)
        mail = EmailMessage(policy=_POLICY)
        mail["From"] = Address(display_name=self._service, username=sender, domain=domain)
        mail["To"] = Address(display_name=name, username=address[1], domain=address[2])
        mail["Subject"] = letter.subject
        mail["Date"] = format_datetime(self._clock.now())
        mail["Message-ID"] = self.message_id(notification.ref)
        mail["Auto-Submitted"] = "auto-generated"  # RFC 3834 section 5
        mail["X-Auto-Response-Suppress"] = "All"  # MS-OXCMAIL 2.2.3.2.14: no vacation notes
        mail.set_content(letter.text)
        mail.add_alternative(letter.html, subtype="html")
        return mail

    def message_id(self, ref: str) -> str:
        """Return the Message-ID of a ref: always the same, on the sender's domain."""
        local = re.sub(r"[^A-Za-z0-9-]", lambda found: f"={ord(found[0]):x}=", ref)
        return f"<{local}@{self._settings.sender.rpartition('@')[2]}>"

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

    async def _hand_over(self, smart_host: aiosmtplib.SMTP, recipient: str, content: bytes) -> None:
        """Send one mail; only after the beginning of DATA the outcome can be unknown."""
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                await smart_host.mail(self._settings.sender)
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
