"""SMTP and LMTP with one peer, on aiosmtpd's connection and STARTTLS.

What aiosmtpd does a line or a call at a time is done here a piece at a time: the mail after DATA
goes from the socket into one buffer (`Content`) and from there to the disk. Everything a peer can
do is bounded: in bytes, errors, time (`Intake.watch`), connections. A mail has its 250 only when
the spool has made it durable (RFC 5321 section 4.2.5).
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import ipaddress
import re
import ssl
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Protocol, cast

from aiosmtpd.smtp import SMTP, TLSSetupException

from contactd.clock import Clock
from contactd.errors import TemporaryFailure
from contactd.log import get_logger
from contactd.mail.certificate import Certificate
from contactd.mail.content import FAULTS, Content, Fault
from contactd.mail.recipients import Mailboxes, MailPath, Refused, read_path
from contactd.mail.spool import DiskFull, Envelope, Raw
from contactd.settings import SmtpSettings

log = get_logger()

COMMAND_BYTES: Final = 2048  # RFC 5321 section 4.5.3.1.4: 512, and room for parameters
NAME_BYTES: Final = 255  # of HELO: a domain name (RFC 1035)
ERRORS_LIMIT: Final = 20  # Postfix: smtpd_hard_error_limit
IDLE_COMMANDS_LIMIT: Final = 100  # without a mail among them; Postfix: smtpd_junk_command_limit
LOGINS_LIMIT: Final = 3  # failed ones, of one connection
LOGIN_PAUSE_S: Final = 1.0  # after a failed one
ADDRESS_LOGINS_LIMIT: Final = 20  # failed ones of one address in LOGIN_MEMORY_S
LOGIN_MEMORY_S: Final = 600.0
REMEMBERED: Final = 10_000  # addresses with failed logins
OVERRUN: Final = 4  # a peer that sends so many times the largest size is cut off
PACE_BYTES: Final = 1 << 16  # of a mail, within which time a peer counts as busy: see `Intake`
STALLED_S: Final = 5.0  # a mail that made less progress gives its room to others
CLOSING_S: Final = 5.0  # for a peer to take the last reply

_BARE_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class Reason(StrEnum):
    """Why a connection was refused or cut."""

    FULL = "full"
    CROWDING = "crowding"  # too many of one address
    EVICTED = "evicted"  # idle, and others needed the place
    SLOW = "slow"
    ERRORS = "errors"
    OVERSIZED = "oversized"
    TLS = "tls"  # the handshake failed
    LOGIN = "login"
    STOPPING = "stopping"
    FAILED = "failed"  # a bug


TRY_LATER: Final = "451 4.3.0 Try again later"
NO_ROOM: Final = "452 4.3.1 No room now, try again later"
TOO_BIG: Final = "552 5.3.4 Message too big"
FAREWELLS: Final[Mapping[Reason, str]] = {
    Reason.FULL: "421 4.7.0 {} Too many connections",
    Reason.CROWDING: "421 4.7.0 {} Too many connections from your address",
    Reason.EVICTED: "421 4.7.0 {} Too many connections, you were idle",
    Reason.SLOW: "421 4.4.2 {} Timeout",
    Reason.ERRORS: "421 4.7.0 {} Too many errors",
    Reason.OVERSIZED: TOO_BIG,
    Reason.LOGIN: "421 4.7.0 {} Too many failed logins",
    Reason.STOPPING: "421 4.3.2 {} Shutting down",
    Reason.FAILED: "421 4.3.0 {} Internal error",
}


# One process's connections


class Keeper(Protocol):
    async def keep(self, envelope: Envelope, raw: Raw) -> str:
        """Return an id once the mail is durable. Raises DiskFull, TemporaryFailure."""
        ...


@dataclass(slots=True)
class Counts:
    """What became of peers and mails since the start."""

    connections: int = 0  # all that came
    kept: int = 0
    kept_bytes: int = 0
    deferred: int = 0  # mails answered 4yz after their content
    declined: int = 0  # mails answered 5yz after their content
    recipients_refused: int = 0
    refused: Counter[Reason] = field(default_factory=Counter)


class Intake:
    """What the connections of one process share: limits, figures, the spool.

    Who makes room for others when all places are taken: the peer whose last step forward is the
    longest ago, be it a command or the last `PACE_BYTES` of a mail. So a crowd of idle or
    dribbling peers crowds out itself.
    """

    def __init__(
        self,
        settings: SmtpSettings,
        spool: Keeper,
        *,
        clock: Clock,
        hostname: str,
        certificate: Certificate | None = None,
    ) -> None:
        self.settings = settings
        self.spool = spool
        self.clock = clock
        self.hostname = hostname
        self.certificate = certificate
        self.mailboxes = Mailboxes(settings.mailboxes)
        self.counts = Counts()
        self.fault = ""  # why the last mail could not be kept; "": it could
        self.in_flight = 0  # bytes of mails in memory
        self.on_kept: Callable[[], None] = lambda: None
        self._open: dict[SmtpSession, None] = {}
        self._closing: dict[SmtpSession, None] = {}
        self._of_address: Counter[str] = Counter()
        self._failed_logins: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._stopping = False
        self._empty = asyncio.Event()
        self._secrets = [
            (_hashed(each.name), _hashed(each.password.get_secret_value()), each.name)
            for each in settings.submitters
        ]

    @property
    def connections(self) -> int:
        return len(self._open)

    def admit(self, session: "SmtpSession") -> Reason | None:
        """Count a new connection in; or say why not."""
        self.counts.connections += 1
        if self._stopping:
            return Reason.STOPPING
        crowd = self._of_address[session.network]
        if session.network and crowd >= self.settings.max_per_address:
            return Reason.CROWDING
        if len(self._open) >= self.settings.max_connections and not self._evict():
            return Reason.FULL
        self._open[session] = None
        self._of_address[session.network] += 1
        return None

    def leave(self, session: "SmtpSession", *, closing: bool = False) -> None:
        """Count a connection out; one that is closing is only watched from now on."""
        self._closing.pop(session, None)
        if closing:
            self._closing[session] = None
        if session in self._open:
            del self._open[session]
            self._of_address[session.network] -= 1
            if not self._of_address[session.network]:
                del self._of_address[session.network]
        if self._stopping and not self._open:
            self._empty.set()

    def _evict(self) -> bool:
        idle = [each for each in self._open if not each.is_storing]
        if not idle:
            return False
        min(idle, key=lambda each: each.progress_at).cut(Reason.EVICTED)
        return True

    def has_room(self, more: int, now: float) -> bool:
        """Return whether `more` bytes may come into memory; stalled mails have to go for them."""
        limit = self.settings.max_in_flight_bytes
        while self.in_flight + more > limit:
            holding = [each for each in self._open if each.held and each.progress_at < now]
            slowest = min(holding, key=lambda each: each.progress_at, default=None)
            if slowest is None or now - slowest.progress_at < STALLED_S:
                return False
            slowest.cut(Reason.SLOW)
        return True

    def submitter(self, name: bytes, password: bytes) -> str:
        """Return the name of the submitter with this password, "" if there is none.

        It takes as long for a wrong name as for a wrong password.
        """
        given_name, given = _hashed(name), _hashed(password)
        found = ""
        for known_name, known, submitter in self._secrets:
            same = hmac.compare_digest(known_name, given_name)
            if hmac.compare_digest(known, given) & same:
                found = submitter
        return found

    def may_log_in(self, network: str, now: float) -> bool:
        count, since = self._failed_logins.get(network, (0, now))
        if now - since > LOGIN_MEMORY_S:
            self._failed_logins.pop(network, None)
            return True
        return count < ADDRESS_LOGINS_LIMIT

    def note_failed_login(self, network: str, now: float) -> None:
        count, since = self._failed_logins.get(network, (0, now))
        self._failed_logins[network] = count + 1, since
        while len(self._failed_logins) > REMEMBERED:
            self._failed_logins.popitem(last=False)

    async def watch(self, every_s: float = 0.5) -> None:
        """Cut the peers whose time is over, for ever."""
        while True:
            await asyncio.sleep(every_s)
            now = asyncio.get_running_loop().time()
            for each in [*self._open, *self._closing]:
                each.look_at_time(now)

    @property
    def is_stopping(self) -> bool:
        return self._stopping

    async def stop(self, within_s: float) -> None:
        """Take no more mail but what is on its way, for so long; say so to everybody."""
        self._stopping = True
        for each in list(self._open):
            if not each.is_receiving and not each.is_storing:
                each.cut(Reason.STOPPING)
        try:
            async with asyncio.timeout(within_s if self._open else 0):
                await self._empty.wait()
        except TimeoutError:
            pass
        for each in list(self._open):
            each.cut(Reason.STOPPING)


def _hashed(secret: str | bytes) -> bytes:
    return hashlib.sha256(secret.encode() if isinstance(secret, str) else secret).digest()


def network_of(peer: str) -> str:
    """Return what counts as one address: an IPv4 address, 64 bits of IPv6; "" if it is neither."""
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))


# One connection


@dataclass(slots=True, kw_only=True)
class _Mail:
    """A mail between MAIL and its last reply."""

    reverse_path: str
    smtputf8: bool
    recipients: list[str] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class _Client:
    """What a peer says of itself; XFORWARD may say it of somebody behind a relay of ours."""

    address: str
    helo: str = ""


class _Cut(Exception):
    """The connection ends with a farewell."""

    @property
    def reason(self) -> Reason:
        return Reason(self.args[0])


class SmtpSession(SMTP):
    """One connection."""

    def __init__(self, intake: Intake, *, lmtp: bool = False) -> None:
        # aiosmtpd's constructor looks through all methods of all classes: 0.4 ms a connection.
        # What its methods that are used here need is set below; a test compares.
        loop = asyncio.get_running_loop()
        asyncio.StreamReaderProtocol.__init__(
            self,
            asyncio.StreamReader(limit=COMMAND_BYTES, loop=loop),
            client_connected_cb=self._cb_client_connected,
            loop=loop,
        )
        self.loop = loop
        self.transport = None
        self.session = None
        self.envelope = None
        self.tls_context = None
        self._tls_handshake_okay = True
        self._tls_protocol = None
        self._original_transport = None
        self._handle_hooks = {}
        self._handler_coroutine = None
        self.enable_SMTPUTF8 = True
        # Ours
        self.network = ""
        self.progress_at = self._waits_until = loop.time()
        self._mail_until = float("inf")
        self._aborts_at = float("inf")
        self._intake = intake
        self._lmtp = lmtp
        self._client = _Client(address="")
        self._extended = False
        self._mail: _Mail | None = None
        self._content: Content | None = None
        self._content_end: asyncio.Future[None] | None = None
        self._paced = 0  # bytes of the content at the last step forward
        self._held = 0  # bytes that count as in flight
        self._storing = False
        self._errors = self._idle_commands = self._failed_logins = 0
        self._submitter = ""
        self._replies = bytearray()

    # What the intake looks at

    @property
    def is_receiving(self) -> bool:
        return self._content is not None

    @property
    def is_storing(self) -> bool:
        """Whether the whole mail is here and its reply is not said."""
        return self._storing

    @property
    def held(self) -> int:
        """Bytes of a mail that is still coming in."""
        return 0 if self._storing else self._held

    def look_at_time(self, now: float) -> None:
        """End the connection if its time is over."""
        if now >= self._aborts_at:
            self._abort()
        elif now >= min(self._waits_until, self._mail_until):
            self.cut(Reason.SLOW)

    def cut(self, reason: Reason) -> None:
        """End the connection with a farewell, whatever it is in the middle of."""
        if self._aborts_at != float("inf"):
            return
        self._intake.counts.refused[reason] += 1
        self._aborts_at = self.loop.time() + CLOSING_S
        self._intake.leave(self, closing=True)
        self._let_go()
        transport = cast("asyncio.Transport | None", self.transport)
        if self._handler_coroutine is not None:
            self._handler_coroutine.cancel()
        if transport is not None and not transport.is_closing():
            transport.write(bytes(self._replies) + self._farewell(reason))
            transport.close()

    def _abort(self) -> None:
        for transport in (self.transport, self._original_transport):
            if transport is not None:
                cast(asyncio.Transport, transport).abort()

    def _farewell(self, reason: Reason) -> bytes:
        return FAREWELLS[reason].format(self._intake.hostname).encode() + b"\r\n"

    # asyncio's protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._original_transport is not None:
            super().connection_made(transport)  # TLS
            return
        peer = transport.get_extra_info("peername")
        address = peer[0] if isinstance(peer, tuple) else ""
        self.network = network_of(address)
        self._client = _Client(address=address)
        refusal = self._intake.admit(self)
        if refusal is None:
            super().connection_made(transport)
            return
        asyncio.StreamReaderProtocol.connection_made(self, transport)
        self._intake.counts.refused[refusal] += 1
        cast(asyncio.Transport, transport).write(self._farewell(refusal))
        transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._intake.leave(self)
        self._let_go()
        if self._original_transport is not None:
            self._original_transport.close()
        asyncio.StreamReaderProtocol.connection_lost(self, error)
        if self._handler_coroutine is not None:
            self._handler_coroutine.cancel()
        self.transport = None

    def eof_received(self) -> bool:
        """A peer that says no more may still listen: what it has asked is answered."""
        if self._content_end is not None and not self._content_end.done():
            self._content_end.set_exception(ConnectionResetError())
        self._reader.feed_eof()
        return self._tls_protocol is None

    def data_received(self, data: bytes) -> None:
        content = self._content
        if content is None:
            super().data_received(data)
            return
        now = self.loop.time()
        self._waits_until = now + self._intake.settings.command_timeout_s
        self._feed(content, data, now)

    def _reset_timeout(self, duration: float | None = None) -> None:
        # aiosmtpd's timer a command is replaced by `Intake.watch`.
        self._waits_until = self.loop.time() + self._intake.settings.command_timeout_s

    def _set_rset_state(self) -> None:
        self._mail = None
        self._mail_until = float("inf")

    # The conversation

    async def _handle_client(self) -> None:
        """Talk with the peer; the boundary of what may go wrong with one connection."""
        reason: Reason | None = None
        try:
            await self._converse()
        except _Cut as cut:
            reason = cut.reason
        except TLSSetupException:
            self._intake.counts.refused[Reason.TLS] += 1
            self._abort()
            self.connection_lost(None)  # asyncio says it only to those that had a connection
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass  # it is gone
        except Exception:  # one connection costs itself
            log.exception("smtp.failed")
            reason = Reason.FAILED
        if reason is not None:
            self.cut(reason)
        elif self.transport is not None:
            self._aborts_at = self.loop.time() + CLOSING_S
            self.transport.close()

    async def _converse(self) -> None:
        self._replies += f"220 {self._intake.hostname} {'LMTP' if self._lmtp else 'ESMTP'}".encode()
        self._replies += b"\r\n"
        while True:
            line = await self._next_line()
            reply = await self._answer(line)
            if reply:
                self._say(reply)
            if reply.startswith("221"):
                await self._flush()
                return
            if self._intake.is_stopping and self._mail is None:
                raise _Cut(Reason.STOPPING)

    async def _next_line(self) -> bytes:
        """Return the next command with its line end; what was said until now goes out before."""
        if b"\n" not in self._buffered:  # replies to pipelined commands go together (RFC 2920)
            await self._flush()
        self._reset_timeout()
        too_long = False
        while True:
            try:
                line = await self._reader.readuntil(b"\n")
            except asyncio.LimitOverrunError as error:
                await self._reader.readexactly(error.consumed)
                too_long = True
            else:
                return b"" if too_long else line

    async def _answer(self, line: bytes) -> str:
        try:
            command, argument = self._command(line)
            return await command(self, argument)
        except Refused as refusal:
            if refusal.reply.startswith("5"):
                self._count_error(refusal.reply)
            return refusal.reply

    def _command(self, line: bytes) -> tuple["Command", bytes]:
        """Return what a line asks for. Raises Refused."""
        if not line:
            raise Refused("500 5.5.2 Line too long")
        if not line.endswith(b"\r\n") or _BARE_CONTROL.search(line, 0, len(line) - 2):
            raise Refused("500 5.5.2 Bad character")
        verb, _, argument = line[:-2].partition(b" ")
        verb = verb.upper()
        if verb not in _PRODUCTIVE:
            self._count_idle()
        command = _COMMANDS.get(verb)
        if command is None:
            raise Refused("500 5.5.1 Unknown command")
        if self._needs_tls and verb not in _WITHOUT_TLS:
            raise Refused("530 5.7.0 Say STARTTLS first")
        return command, argument.strip()

    def _count_idle(self) -> None:
        self._idle_commands += 1
        if self._idle_commands > IDLE_COMMANDS_LIMIT:
            raise _Cut(Reason.ERRORS)

    def _count_error(self, reply: str) -> None:
        self._errors += 1
        if self._errors >= ERRORS_LIMIT:
            self._say(reply)
            raise _Cut(Reason.ERRORS)

    @property
    def _needs_tls(self) -> bool:
        return self._intake.settings.require_tls and self._tls_protocol is None and not self._lmtp

    @property
    def _buffered(self) -> bytearray:
        """What the reader holds; aiosmtpd looks into it, too (RFC 3207 section 4.2)."""
        return cast(bytearray, cast(Any, self._reader)._buffer)

    def _say(self, reply: str) -> None:
        self._replies += reply.encode("ascii", "replace") + b"\r\n"

    async def _flush(self) -> None:
        if self._replies:
            replies, self._replies = self._replies, bytearray()
            self._writer.write(replies)
            await self._writer.drain()

    # Greetings

    async def _helo(self, argument: bytes) -> str:
        if self._lmtp:
            raise Refused("500 5.5.1 Say LHLO")  # RFC 2033 section 4.1
        self._greet(argument, extended=False)
        return f"250 {self._intake.hostname}"

    async def _ehlo(self, argument: bytes) -> str:
        if self._lmtp:
            raise Refused("500 5.5.1 Say LHLO")
        self._greet(argument, extended=True)
        return self._extensions()

    async def _lhlo(self, argument: bytes) -> str:
        if not self._lmtp:
            raise Refused("500 5.5.1 Unknown command")
        self._greet(argument, extended=True)
        return self._extensions()

    def _greet(self, argument: bytes, *, extended: bool) -> None:
        if not argument or len(argument) > NAME_BYTES:
            raise Refused("501 5.5.4 Say your name")
        self._set_rset_state()
        self._extended = extended
        self._client.helo = argument.decode("utf-8", "replace")

    def _extensions(self) -> str:
        lines = [
            self._intake.hostname,
            "PIPELINING",
            f"SIZE {self._intake.settings.max_message_bytes}",
            "8BITMIME",
            "SMTPUTF8",
            "ENHANCEDSTATUSCODES",
        ]
        if self._intake.certificate is not None and self._tls_protocol is None and not self._lmtp:
            lines.append("STARTTLS")
        if self._may_log_in:
            lines.append("AUTH PLAIN LOGIN")
        if self._lmtp:
            lines.append("XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE")
        return "\r\n".join(f"250-{line}" for line in lines[:-1]) + f"\r\n250 {lines[-1]}"

    def _need_greeting(self) -> None:
        if not self._client.helo:
            raise Refused(f"503 5.5.1 Say {'LHLO' if self._lmtp else 'EHLO'} first")

    # A mail

    async def _begin_mail(self, argument: bytes) -> str:
        self._need_greeting()
        if self._mail is not None:
            raise Refused("503 5.5.1 There is a mail already: say DATA or RSET")
        path = read_path(b"FROM:", argument)
        self._check_parameters(path)
        smtputf8 = "SMTPUTF8" in path.parameters
        if not path.is_ascii and not smtputf8:
            raise Refused("553 5.6.7 The address needs SMTPUTF8")  # RFC 6531 section 3.5
        if path.address and "@" not in path.address:
            raise Refused("553 5.1.7 Bad sender address")
        if not self._intake.has_room(int(path.parameters.get("SIZE", 0)), self.loop.time()):
            self._intake.counts.deferred += 1
            return NO_ROOM
        self._mail = _Mail(reverse_path=path.address, smtputf8=smtputf8)
        self.progress_at = now = self.loop.time()
        self._mail_until = now + self._intake.settings.transaction_timeout_s
        return "250 2.1.0 Ok"

    def _check_parameters(self, path: MailPath) -> None:
        """Raise Refused for a parameter of MAIL that we cannot honour."""
        if path.parameters and not self._extended:
            raise Refused("555 5.5.4 Parameters need EHLO")
        for name, value in path.parameters.items():
            allowed = _MAIL_PARAMETERS.get(name)
            if allowed is None:
                raise Refused("555 5.5.4 Unknown parameter")
            if allowed.fullmatch(value) is None:
                raise Refused("501 5.5.4 Bad value of a parameter")
        if int(path.parameters.get("SIZE", 0)) > self._intake.settings.max_message_bytes:
            self._intake.counts.declined += 1
            raise Refused(TOO_BIG)

    async def _add_recipient(self, argument: bytes) -> str:
        if self._mail is None:
            raise Refused("503 5.5.1 Say MAIL first")
        path = read_path(b"TO:", argument)
        if path.parameters:
            raise Refused("555 5.5.4 Unknown parameter")
        if not path.is_ascii and not self._mail.smtputf8:
            raise Refused("553 5.6.7 The address needs SMTPUTF8")
        if refusal := self._intake.mailboxes.refusal(path.address):
            self._intake.counts.recipients_refused += 1
            raise Refused(refusal)
        if len(self._mail.recipients) >= self._intake.settings.max_recipients:
            return "452 4.5.3 Too many recipients"  # the sender sends another mail to the others
        self._mail.recipients.append(path.address)
        self.progress_at = self.loop.time()
        return "250 2.1.5 Ok"

    async def _data(self, argument: bytes) -> str:
        if self._mail is None:
            raise Refused("503 5.5.1 Say MAIL first")
        if not self._mail.recipients:
            raise Refused("503 5.5.1 No recipient")  # RFC 2033 section 4.2 wants 503
        if argument:
            raise Refused("501 5.5.4 DATA has no argument")
        self._say("354 End with <CRLF>.<CRLF>")
        mail = self._mail
        content = await self._receive()
        self._storing = True
        try:
            reply = await self._keep(mail, content)
        finally:
            self._storing = False
            self._let_go()
        self._set_rset_state()
        self.progress_at = self.loop.time()
        return "\r\n".join([reply] * len(mail.recipients)) if self._lmtp else reply

    async def _receive(self) -> Content:
        """Return the content once its end has come."""
        self._content = content = Content(self._intake.settings.max_message_bytes)
        self._content_end = self.loop.create_future()
        self._paced = 0
        try:
            if pending := len(self._buffered):  # pipelined after DATA: against RFC 2920, but seen
                self._feed(content, await self._reader.read(pending), self.loop.time())
            await self._flush()
            if self._reader.at_eof() and not self._content_end.done():
                raise ConnectionResetError
            await self._content_end
        finally:
            self._content = None
        return content

    def _feed(self, content: Content, data: bytes, now: float) -> None:
        rest = content.feed(data)
        self._count_held(content, now)
        if content.received - self._paced >= PACE_BYTES:
            self._paced, self.progress_at = content.received, now
        end = self._content_end
        if end is None or end.done():
            return
        if rest is not None:
            self._content = None
            self._waits_until = float("inf")  # now it is our turn; the mail's own time goes on
            self._reader.feed_data(rest)
            end.set_result(None)
        elif content.received > OVERRUN * content.limit:
            end.set_exception(_Cut(Reason.OVERSIZED))

    def _count_held(self, content: Content, now: float) -> None:
        more = content.held - self._held
        if more > 0 and content.fault is None and not self._intake.has_room(more, now):
            content.drop(Fault.NO_ROOM)
            more = content.held - self._held
        self._held += more
        self._intake.in_flight += more

    def _let_go(self) -> None:
        self._intake.in_flight -= self._held
        self._held = 0

    async def _keep(self, mail: _Mail, content: Content) -> str:
        """Make the mail durable and return the reply."""
        counts = self._intake.counts
        if content.fault is not None:
            reply = FAULTS[content.fault]
            if reply.startswith("4"):
                counts.deferred += 1
                return reply
            counts.declined += 1
            self._count_error(reply)
            return reply
        raw = content.take()
        try:
            kept = await self._intake.spool.keep(self._envelope(mail), raw)
        except TemporaryFailure as failure:
            counts.deferred += 1
            self._intake.fault = str(failure)
            return NO_ROOM if isinstance(failure, DiskFull) else TRY_LATER
        counts.kept += 1
        counts.kept_bytes += len(raw)
        self._intake.fault = ""
        self._idle_commands = 0
        self._intake.on_kept()
        return f"250 2.0.0 Kept as {kept}"

    def _envelope(self, mail: _Mail) -> Envelope:
        protocol = "LMTP" if self._lmtp else "ESMTP" if self._extended else "SMTP"
        if not self._lmtp and self._extended:  # RFC 3848
            protocol += "S" * (self._tls_protocol is not None) + "A" * bool(self._submitter)
        return Envelope(
            received_at=self._intake.clock.now(),
            peer=self._client.address,
            helo=self._client.helo,
            reverse_path=mail.reverse_path,
            recipients=tuple(mail.recipients),
            protocol=protocol,
            smtputf8=mail.smtputf8,
            submitter=self._submitter,
        )

    # TLS and logins

    async def _starttls(self, argument: bytes) -> str:
        if argument:
            raise Refused("501 5.5.4 STARTTLS has no argument")
        if self._lmtp or self._intake.certificate is None:
            raise Refused("502 5.5.1 No TLS here")
        if self._tls_protocol is not None:
            raise Refused("503 5.5.1 TLS is on")
        if self._buffered:  # somebody in between may have put it there (CVE-2011-0411)
            raise Refused("554 5.5.1 Something came before the handshake")
        self.tls_context = self._intake.certificate.context()
        await self._flush()
        await super().smtp_STARTTLS("")  # says 220 and waits for the handshake
        self._client.helo = ""  # RFC 3207 section 4.2: forget what was said in clear
        self._extended = False
        return ""

    @property
    def _may_log_in(self) -> bool:
        return self._tls_protocol is not None and bool(self._intake.settings.submitters)

    async def _auth(self, argument: bytes) -> str:
        if not self._intake.settings.submitters:
            raise Refused("502 5.5.1 No logins here")
        if self._tls_protocol is None:
            raise Refused("538 5.7.11 Say STARTTLS first")
        self._need_greeting()
        if self._submitter or self._mail is not None:
            raise Refused("503 5.5.1 Not now")
        if not self._intake.may_log_in(self.network, self.loop.time()):
            return "454 4.7.0 Too many failed logins, try again later"
        mechanism, _, initial = argument.partition(b" ")
        ask = _MECHANISMS.get(mechanism.upper())
        if ask is None:
            raise Refused("504 5.5.4 Unknown mechanism")
        name, password = await ask(self, initial)
        self._submitter = self._intake.submitter(name, password)
        if self._submitter:
            return "235 2.7.0 Welcome"
        return await self._refuse_login()

    async def _refuse_login(self) -> str:
        self._failed_logins += 1
        self._intake.note_failed_login(self.network, self.loop.time())
        await asyncio.sleep(LOGIN_PAUSE_S)
        if self._failed_logins >= LOGINS_LIMIT:
            self._say("535 5.7.8 Wrong name or password")
            raise _Cut(Reason.LOGIN)
        raise Refused("535 5.7.8 Wrong name or password")

    async def _ask_plain(self, initial: bytes) -> tuple[bytes, bytes]:
        """RFC 4616: authorization identity, name and password."""
        said = _decoded(initial) if initial else await self._challenge(b"")
        parts = said.split(b"\x00")
        if len(parts) != 3:
            raise Refused("501 5.5.2 Not PLAIN")
        return parts[1], parts[2]

    async def _ask_login(self, initial: bytes) -> tuple[bytes, bytes]:
        name = _decoded(initial) if initial else await self._challenge(b"Username:")
        return name, await self._challenge(b"Password:")

    async def _challenge(self, text: bytes) -> bytes:
        self._say(f"334 {base64.b64encode(text).decode()}")
        line = await self._next_line()
        if line.strip() == b"*":
            raise Refused("501 5.7.0 Login given up")  # RFC 4954 section 4
        return _decoded(line.strip())

    # The rest

    async def _rset(self, argument: bytes) -> str:
        self._set_rset_state()
        return "250 2.0.0 Ok"

    async def _noop(self, argument: bytes) -> str:
        return "250 2.0.0 Ok"

    async def _quit(self, argument: bytes) -> str:
        return "221 2.0.0 Bye"

    async def _vrfy(self, argument: bytes) -> str:
        return "252 2.5.0 Send a mail and see"  # RFC 5321 section 3.5.3

    async def _help(self, argument: bytes) -> str:
        return "214 2.0.0 See RFC 5321"

    async def _not_implemented(self, argument: bytes) -> str:
        raise Refused("502 5.5.1 Not implemented")

    async def _bdat(self, argument: bytes) -> str:
        """Not offered. What follows is content all the same, and must not be read as commands."""
        size = argument.partition(b" ")[0]
        if not size.isdigit() or len(size) > 12:
            raise _Cut(Reason.ERRORS)
        left = int(size)
        if left > self._intake.settings.max_message_bytes:
            raise _Cut(Reason.OVERSIZED)
        await self._flush()
        while left:
            piece = await self._reader.read(min(left, PACE_BYTES))
            if not piece:
                raise ConnectionResetError
            left -= len(piece)
            self._reset_timeout()
        raise Refused("502 5.5.1 Not implemented: use DATA")

    async def _xforward(self, argument: bytes) -> str:
        """Postfix says who is behind it (XFORWARD_README); only on the local socket."""
        if not self._lmtp:
            raise Refused("500 5.5.1 Unknown command")
        if self._mail is not None:
            raise Refused("503 5.5.1 Not now")
        for each in argument.split():
            name, _, value = each.upper().partition(b"=")
            said = _xtext(value)
            if name == b"ADDR":
                address = said.removeprefix("IPV6:").lower()
                self._client.address = address if network_of(address) else ""
            elif name == b"HELO" and said != "[UNAVAILABLE]":
                self._client.helo = said.lower()[:NAME_BYTES]
        return "250 2.0.0 Ok"


def _decoded(line: bytes) -> bytes:
    try:
        return b"" if line == b"=" else base64.b64decode(line, validate=True)
    except binascii.Error:
        raise Refused("501 5.5.2 Not base64") from None


def _xtext(value: bytes) -> str:
    """RFC 3461 section 4."""
    plain = re.sub(rb"\+([0-9A-F]{2})", lambda found: bytes([int(found[1], 16)]), value)
    return "".join(c for c in plain.decode("utf-8", "replace") if c.isprintable())


Command = Callable[[SmtpSession, bytes], Awaitable[str]]

_COMMANDS: Final[Mapping[bytes, Command]] = {
    b"HELO": SmtpSession._helo,
    b"EHLO": SmtpSession._ehlo,
    b"LHLO": SmtpSession._lhlo,
    b"MAIL": SmtpSession._begin_mail,
    b"RCPT": SmtpSession._add_recipient,
    b"DATA": SmtpSession._data,
    b"RSET": SmtpSession._rset,
    b"NOOP": SmtpSession._noop,
    b"QUIT": SmtpSession._quit,
    b"STARTTLS": SmtpSession._starttls,
    b"AUTH": SmtpSession._auth,
    b"VRFY": SmtpSession._vrfy,
    b"HELP": SmtpSession._help,
    b"EXPN": SmtpSession._not_implemented,
    b"TURN": SmtpSession._not_implemented,
    b"ETRN": SmtpSession._not_implemented,
    b"BDAT": SmtpSession._bdat,
    b"XFORWARD": SmtpSession._xforward,
}
_PRODUCTIVE: Final = frozenset({b"MAIL", b"RCPT", b"DATA"})
_WITHOUT_TLS: Final = frozenset({b"EHLO", b"HELO", b"NOOP", b"RSET", b"QUIT", b"STARTTLS"})
_MECHANISMS: Final[
    Mapping[bytes, Callable[[SmtpSession, bytes], Awaitable[tuple[bytes, bytes]]]]
] = {b"PLAIN": SmtpSession._ask_plain, b"LOGIN": SmtpSession._ask_login}
_MAIL_PARAMETERS: Final[Mapping[str, re.Pattern[str]]] = {
    "SIZE": re.compile(r"[0-9]{1,20}"),  # RFC 1870 section 4
    "BODY": re.compile(r"(?i)7BIT|8BITMIME"),
    "SMTPUTF8": re.compile(r""),
    "AUTH": re.compile(r"[!-~]+"),  # RFC 4954 section 5: who wrote it; we do not relay
}
