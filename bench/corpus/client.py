"""A small SMTP client that changes nothing: libraries repair line ends, and that is not wanted."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

DEADLINE_S: Final = 120.0  # for one mail
REPLY_BYTES: Final = 1 << 16
_DOTS: Final = re.compile(rb"(?m)^\.")


class Refused(Exception):
    """The server's reply to what it does not want; the connection can be used further."""


class Closed(Exception):
    """The server has closed the connection, or answers no more."""


@dataclass(slots=True)
class Client:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, reverse_path: str, recipient: str, mail: bytes) -> str:
        """Hand one mail over and return the reply that takes it (RFC 5321 section 3.3).

        Raises:
            Refused: it was not taken; the text is the reply.
            Closed: nobody can tell whether it was taken.
        """
        try:
            async with asyncio.timeout(DEADLINE_S):
                await self._ask(f"MAIL FROM:<{reverse_path}> BODY=8BITMIME", "250")
                await self._ask(f"RCPT TO:<{recipient}>", "250")
                await self._ask("DATA", "354")
                self.writer.write(stuffed(mail))
                return await self._ask(".", "250")
        except Refused:
            await self._ask("RSET", "250")
            raise
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            raise Closed(f"{type(error).__name__}: {error}") from error

    async def _ask(self, command: str, expected: str) -> str:
        self.writer.write(f"{command}\r\n".encode("ascii"))
        await self.writer.drain()
        return await self._reply(expected)

    async def _reply(self, expected: str) -> str:
        lines = [await self._line()]
        while lines[-1][3:4] == "-":
            lines.append(await self._line())
        reply = " ".join([lines[0], *(line[4:] for line in lines[1:])])
        if reply[:3] == "421":
            raise Closed(reply)
        if not reply.startswith(expected):
            raise Refused(reply)
        return reply

    async def _line(self) -> str:
        return (await self.reader.readuntil(b"\r\n")).decode("latin-1").rstrip()


def stuffed(mail: bytes) -> bytes:
    """Return `mail` as DATA wants it: dots doubled, a line end at its end (RFC 5321 4.5.2)."""
    doubled = _DOTS.sub(b"..", mail)
    return doubled if doubled.endswith(b"\r\n") else doubled + b"\r\n"


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Client]:
    """Yield a client that has said EHLO.

    Raises:
        Closed: the server does not want it.
    """
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=REPLY_BYTES)
    except OSError as error:
        raise Closed(str(error)) from error
    client = Client(reader, writer)
    try:
        await client._reply("220")
        await client._ask("EHLO corpus.example.org", "250")
        yield client
        with suppress(OSError, Refused, Closed, asyncio.IncompleteReadError):
            await client._ask("QUIT", "221")
    except Refused as refused:
        raise Closed(str(refused)) from refused
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
