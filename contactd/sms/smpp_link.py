"""One connection to an SMSC: requests and their answers, whether it lives, and how it ends.

A link that is lost stays so; what was asked over it and not answered is told, and nothing else.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Final

from contactd.errors import TemporaryFailure
from contactd.log import get_logger
from contactd.sms.smpp_pdu import (
    LAST_SEQUENCE,
    RESPONSE,
    Bind,
    Body,
    Command,
    Pdu,
    PduError,
    ShortMessage,
    Status,
    Taken,
    decode,
    encode,
    length,
)
from contactd.sms.smpp_repeats import Progress

log = get_logger()

MOST_OWED: Final = 2_000  # requests without an answer, above the largest window; then it is no SMSC

# What bind_transceiver_resp says of what is to be set right (table 5-2).
_BIND_FAULTS: Final[Mapping[int, str]] = {
    Status.INVALID_SYSTEM_ID: "it refuses sms.smpp.system_id and its password",
    Status.INVALID_PASSWORD: "it refuses sms.smpp.system_id and its password",
    Status.BIND_FAILED: "it refuses sms.smpp.system_id, its password or our address",
    Status.ALREADY_BOUND: "it says that sms.smpp.system_id is bound already",
    Status.INVALID_COMMAND: "it has no bind_transceiver",
}

Deliver = Callable[["Link", Pdu, ShortMessage], Awaitable[None]]


class Link:
    """A connection from its first byte to its last.

    `deliver` is given each deliver_sm; while it waits nothing more is read: that is how a busy
    gateway slows down its SMSC. It acknowledges with `answer`.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, deliver: Deliver
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._deliver = deliver
        self._loop = asyncio.get_running_loop()
        self._owed: dict[int, asyncio.Future[Pdu | None]] = {}
        self._heard_at = self._loop.time()
        self._is_held_up = False  # by `deliver`: then silence is ours
        self.progress = Progress()
        self.fault = ""  # why it ended
        self.lost = asyncio.Event()

    def request(self, command: Command, body: Body = None) -> asyncio.Future[Pdu | None]:
        """Write a request; its future gets the answer, or None when the link ends before.

        Raises:
            TemporaryFailure: nothing was written: the link has ended.
            PduError: nothing was written: `body` does not fit a PDU.
        """
        if self.lost.is_set() or self._writer.is_closing():
            raise TemporaryFailure(self.fault or "the link has ended")
        sequence = self.progress.asked % LAST_SEQUENCE + 1
        content = encode(Pdu(command=command, sequence=sequence, body=body))
        self.progress.asked = sequence
        answer: asyncio.Future[Pdu | None] = self._loop.create_future()
        self._owed[sequence] = answer
        self._writer.write(content)
        if len(self._owed) > MOST_OWED:
            self.lose("it answers nothing")
        return answer

    async def answer(self, request: Pdu, status: int = Status.OK) -> None:
        """Answer a deliver_sm; harmless when the link has ended, and it comes again."""
        body = Taken() if request.command == Command.DELIVER_SM else None
        await self._write(request.command | RESPONSE, request.sequence, status, body)

    async def bind(self, who: Bind, *, timeout_s: float) -> None:
        """Log in; the SMSC may bring texts at once.

        Raises:
            TemporaryFailure: it does not let us in; the text says why.
        """
        try:
            answer = await self._within(self.request(Command.BIND_TRANSCEIVER, who), timeout_s)
        except PduError as error:
            raise TemporaryFailure(f"sms.smpp.system_id or its password is {error}") from error
        if answer is None:
            raise TemporaryFailure(self.fault or "no answer to bind_transceiver in time")
        if answer.status or answer.command != Command.BIND_TRANSCEIVER_RESP:
            fault = f"it answered bind_transceiver with {answer.status:#x}"
            raise TemporaryFailure(_BIND_FAULTS.get(answer.status, fault))

    async def unbind(self, *, timeout_s: float) -> None:
        with suppress(TemporaryFailure):
            await self._within(self.request(Command.UNBIND), timeout_s)

    async def settle(self, *, timeout_s: float) -> None:
        """Wait for what is owed to us, for so long at most."""
        if self._owed:
            await asyncio.wait(self._owed.values(), timeout=timeout_s)

    async def read(self) -> None:
        """Take in what comes, until the link is lost. Run it as a task."""
        try:
            while not self.lost.is_set():
                head = await self._reader.readexactly(4)
                frame = head + await self._reader.readexactly(length(head) - 4)
                self._heard_at = self._loop.time()
                await self._take(frame)
        except PduError as error:  # where the next PDU begins is not known any more
            await self._write(Command.GENERIC_NACK, 0, error.status)
            self.lose(f"it sent what is no SMPP: {error}")
        except EOFError:
            self.lose("it closed the connection")
        except OSError as error:
            self.lose(error.strerror or type(error).__name__)

    async def watch(self, *, every_s: float, timeout_s: float) -> None:
        """Ask now and then whether the SMSC lives, until the link is lost. Run it as a task.

        The answers also prove that it has read our acknowledgements: see `Progress`.
        """
        while not await self._is_lost_within(every_s):
            asked_at = self._loop.time()
            with suppress(TemporaryFailure):
                answer = await self._within(self.request(Command.ENQUIRE_LINK), timeout_s)
                if answer is None and self._heard_at < asked_at and not self._is_held_up:
                    self.lose("it does not answer enquire_link")

    def lose(self, fault: str) -> None:
        """End the link; only the first `fault` counts."""
        if self.lost.is_set():
            return
        self.fault = fault
        self.lost.set()
        self._writer.transport.abort()
        for answer in self._owed.values():
            if not answer.done():
                answer.set_result(None)
        self._owed.clear()

    async def _take(self, frame: bytes) -> None:
        try:
            pdu = decode(frame)
        except PduError as error:
            log.warning("sms.pdu_refused", gateway="smpp", command=error.command, reason=str(error))
            if error.command & RESPONSE:  # a damaged answer: nothing is known of what was asked
                self._settle(error.sequence, None)
            else:
                await self._write(Command.GENERIC_NACK, error.sequence, error.status)
            return
        if pdu.is_response:
            if pdu.sequence in self._owed:
                self.progress.answered = max(self.progress.answered, pdu.sequence)
            self._settle(pdu.sequence, pdu)
        else:
            await self._serve(pdu)

    async def _serve(self, pdu: Pdu) -> None:
        match pdu.command, pdu.body:
            case Command.DELIVER_SM, ShortMessage() as message:
                self._is_held_up = True
                await self._deliver(self, pdu, message)
                self._is_held_up = False
                self._heard_at = self._loop.time()
            case Command.ENQUIRE_LINK, _:
                await self.answer(pdu)
            case Command.UNBIND, _:
                await self.answer(pdu)
                self.lose("it ended the session")
            case _:
                await self._write(Command.GENERIC_NACK, pdu.sequence, Status.INVALID_COMMAND)

    def _settle(self, sequence: int, answer: Pdu | None) -> None:
        waiting = self._owed.pop(sequence, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    async def _write(self, command: int, sequence: int, status: int, body: Body = None) -> None:
        if self.lost.is_set():
            return
        pdu = Pdu(command=command, sequence=sequence, status=status, body=body)
        self._writer.write(encode(pdu))
        with suppress(OSError):  # `read` learns of it, too
            await self._writer.drain()

    async def _within(self, answer: "asyncio.Future[Pdu | None]", timeout_s: float) -> Pdu | None:
        done, _ = await asyncio.wait([answer], timeout=timeout_s)
        return answer.result() if done else None

    async def _is_lost_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self.lost.wait()
        except TimeoutError:
            return False
        return True
