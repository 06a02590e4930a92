"""The PBX's side of FastAGI, with the header recorded from Asterisk 22."""

import asyncio
from dataclasses import dataclass
from typing import Final, Self

from tests.fakes.pbx import TRANSCRIPTS
from tests.fakes.waiting import WITHIN_S

_LINES: Final = (TRANSCRIPTS / "agi-22-arrive.txt").read_text(encoding="utf-8").splitlines()[1:]
RECORDED_ANSWER: Final = next(line[2:] for line in _LINES if line[0] == ">").encode() + b"\n"


def recorded_header() -> bytes:
    """Return the header as recorded, with its final empty line."""
    header = _LINES[: _LINES.index("<")]
    return "".join(f"{line[2:]}\n" for line in header).encode() + b"\n"


def header(script: str, *args: str, **changes: str) -> bytes:
    """Return a header like the recorded one for another script, arguments and values."""
    changes = {"network_script": script, "uniqueid": "pbx1-1795318490.7"} | changes
    lines = []
    for line in recorded_header().decode().splitlines():
        key, _, value = line.partition(": ")
        if key and not key.startswith("agi_arg_"):
            lines.append(f"{key}: {changes.get(key.removeprefix('agi_'), value)}\n")
    lines += [f"agi_arg_{number}: {value}\n" for number, value in enumerate(args, start=1)]
    return "".join(lines).encode() + b"\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    command: bytes
    closed: bool

    @property
    def fields(self) -> list[str]:
        return self.command.decode().partition('"')[2].rstrip('"\n').split(",")


@dataclass(frozen=True, slots=True)
class Caller:
    """One AGI() of the dialplan."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def connect(cls, port: int, host: str = "127.0.0.1") -> Self:
        return cls(*await asyncio.open_connection(host, port))

    @classmethod
    async def ask(cls, port: int, question: bytes, *, reply: bytes = b"200 result=1\n") -> Answer:
        """Send the header, take the command, confirm it, wait for the end."""
        caller = await cls.connect(port)
        try:
            caller.writer.write(question)
            return await caller.answer(reply)
        except ConnectionError:  # closed with bytes of ours unread
            return Answer(command=b"", closed=True)
        finally:
            caller.writer.transport.abort()

    async def answer(self, reply: bytes = b"200 result=1\n") -> Answer:
        async with asyncio.timeout(WITHIN_S):
            command = await self.reader.readline()
            if command:
                self.writer.write(reply)
            try:
                closed = await self.reader.read() == b""
            except ConnectionError:
                closed = True
        return Answer(command=command, closed=closed)
