"""A smart host: a real SMTP server (aiosmtpd) that keeps what it takes, with switches."""

import asyncio
import email.policy
import ssl
import subprocess
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from functools import partial
from pathlib import Path
from typing import Any, cast

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

USERNAME = "contactd"
PASSWORD = "s3cret"


@dataclass(slots=True, kw_only=True)
class SmartHost:
    """What it took, and its faults: `answers` maps MAIL, RCPT, DATA to what is said for 250."""

    port: int = 0
    taken: list[Envelope] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)
    connections: int = 0
    answers: dict[str, str] = field(default_factory=dict)
    silent: str = ""  # the command that gets no answer
    cut: str = ""  # the command after which the connection is cut
    takes_before_fault: bool = False  # the mail is kept although nobody learns of it

    def mails(self) -> list[EmailMessage]:
        return [
            message_from_bytes(envelope.original_content or b"", policy=email.policy.default)
            for envelope in self.taken
        ]

    # aiosmtpd's names

    async def handle_MAIL(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        envelope.mail_from = address
        return await self._answer("MAIL", server)

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        envelope.rcpt_tos.append(address)
        return await self._answer("RCPT", server)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        if self.takes_before_fault:
            self.taken.append(envelope)
        answer = await self._answer("DATA", server)
        if answer.startswith("250") and not self.takes_before_fault:
            self.taken.append(envelope)
        return answer

    async def _answer(self, command: str, server: SMTP) -> str:
        if self.silent == command:
            await asyncio.sleep(3600)
        if self.cut == command:
            assert server.transport is not None
            cast(Any, server.transport).abort()
        return self.answers.get(command, "250 OK")

    def login(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, given: Any
    ) -> AuthResult:
        assert isinstance(given, LoginPassword)
        name, password = given.login.decode(), given.password.decode()
        self.logins.append(name)
        return AuthResult(success=(name, password) == (USERNAME, PASSWORD), handled=False)


@asynccontextmanager
async def smart_host(
    *, certificate: Path | None = None, implicit_tls: bool = False, auth: bool = False
) -> AsyncIterator[SmartHost]:
    """Run one on a free port; with a certificate it wants STARTTLS, or TLS from the first byte."""
    host = SmartHost()
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    loop = asyncio.get_running_loop()

    def serve() -> SMTP:
        host.connections += 1
        with warnings.catch_warnings(action="ignore"):  # it warns of logins without STARTTLS
            return SMTP(
                host, hostname="smart.test", loop=loop, ident="test",
                tls_context=None if implicit_tls else context,
                require_starttls=context is not None and not implicit_tls,
                auth_required=auth, auth_require_tls=False, authenticator=cast(Any, host.login),
            )  # fmt: skip

    listener = await loop.create_server(
        serve, "127.0.0.1", 0, ssl=context if implicit_tls else None
    )
    host.port = listener.sockets[0].getsockname()[1]
    try:
        yield host
    finally:
        listener.close()
        await listener.wait_closed()


@asynccontextmanager
async def stranger(said: bytes) -> AsyncIterator[int]:
    """Run a peer that says `said` at once and then nothing; yield its port."""
    open_: list[asyncio.StreamWriter] = []

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_.append(writer)
        writer.write(said)

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        for writer in open_:
            writer.close()


def make_certificate(folder: Path) -> Path:
    """Return a file with a key and a certificate of its own for 127.0.0.1."""
    path = folder / "smart-host.pem"
    key = folder / "key.pem"
    command = partial(subprocess.run, check=True, capture_output=True)
    command([
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
        "-nodes", "-days", "2", "-subj", "/CN=smart.test", "-addext",
        "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(path),
    ])  # fmt: skip
    path.write_bytes(path.read_bytes() + key.read_bytes())
    return path
