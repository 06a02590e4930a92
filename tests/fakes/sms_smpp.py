"""An SMSC of our own, for faults that a real one cannot be asked for, and the provider it makes.

It reads and writes with `contactd.sms.smpp_pdu`; smpplib, as a client of it, proves that it is one
(`tests/wire/test_sms_smpp.py`).
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from contactd.clock import Clock
from contactd.lab.ports import free_port
from contactd.settings import SmppSettings
from contactd.sms.gateway import SmsGateway, joined
from contactd.sms.smpp import SmppGateway
from contactd.sms.smpp_pdu import (
    RESPONSE,
    Address,
    Bind,
    Body,
    Bound,
    Command,
    Pdu,
    ShortMessage,
    Status,
    Taken,
    decode,
    encode,
    length,
)
from contactd.sms.smpp_text import coded, content
from tests.fakes.clock import FakeClock
from tests.fakes.sms import FakeInbox, Fault
from tests.fakes.waiting import WITHIN_S, until

SYSTEM_ID: Final = "contactd"
PASSWORD: Final = "longer than eight"
OURS: Final = "10690001"

_STATUS: Final = {
    Fault.BUSY: Status.THROTTLED,
    Fault.DOWN: Status.SYSTEM_ERROR,
    Fault.REFUSED: Status.INVALID_DESTINATION,
}


@dataclass(slots=True, eq=False)
class Session:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    asked: int = 0
    waiting: dict[int, asyncio.Future[Pdu | None]] = field(default_factory=dict)

    def write(self, command: int, sequence: int, status: int = 0, body: Body = None) -> None:
        pdu = Pdu(command=command, sequence=sequence, status=status, body=body)
        self.writer.write(encode(pdu))


@dataclass(slots=True, kw_only=True, eq=False)
class Smsc:
    """What it took, and its switches. `faults` are used up, one a submit_sm."""

    port: int = field(default_factory=free_port)
    taken: list[ShortMessage] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    binds: list[Bind] = field(default_factory=list)
    faults: list[Fault | int | str] = field(default_factory=list)  # int: a status; "dies", "late"
    is_mute: bool = False  # it answers no enquire_link
    says_on_bind: bytes = b""  # instead of an answer
    password: str = PASSWORD
    enquiries: int = 0
    unbinds: int = 0
    sessions: list[Session] = field(default_factory=list)
    late: list[tuple[Session, Pdu, str]] = field(default_factory=list)
    _server: asyncio.Server | None = None

    async def start(self, **tls: Any) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, **tls)

    def stop(self) -> None:
        """Die: nobody is told, and nobody can connect."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    def cut(self) -> None:
        for session in self.sessions:
            session.writer.transport.abort()

    async def deliver(self, message: ShortMessage) -> int | None:
        """Bring a deliver_sm; return the status of its answer, None when the link ended before."""
        session = self.sessions[-1]
        session.asked += 1
        answer: asyncio.Future[Pdu | None] = asyncio.get_running_loop().create_future()
        session.waiting[session.asked] = answer
        session.write(Command.DELIVER_SM, session.asked, body=message)
        async with asyncio.timeout(WITHIN_S):
            found = await answer
        return None if found is None else found.status

    def answer_late(self, status: int = 0) -> None:
        for session, pdu, message_id in self.late:
            self._answer(session, pdu, status, Taken(message_id=message_id))
        self.late.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = Session(reader, writer)
        try:
            await self._read(session)
        except (EOFError, OSError):
            pass
        finally:
            writer.transport.abort()
            if session in self.sessions:
                self.sessions.remove(session)
            for answer in session.waiting.values():
                if not answer.done():
                    answer.set_result(None)

    async def _read(self, session: Session) -> None:
        while True:
            head = await session.reader.readexactly(4)
            pdu = decode(head + await session.reader.readexactly(length(head) - 4))
            if pdu.is_response:
                waiting = session.waiting.pop(pdu.sequence, None)
                if waiting is not None:
                    waiting.set_result(pdu)
            elif self._take(session, pdu):
                return
            await session.writer.drain()

    def _take(self, session: Session, pdu: Pdu) -> bool:
        """Do what is asked; return whether the session is over."""
        match pdu.body:
            case Bind():
                return self._bind(session, pdu, pdu.body)
            case ShortMessage():
                return self._submit(session, pdu, pdu.body)
            case _ if pdu.command == Command.UNBIND:
                self.unbinds += 1
                self._answer(session, pdu)
                return True
            case _:
                self.enquiries += 1
                if not self.is_mute:
                    self._answer(session, pdu)
                return False

    def _bind(self, session: Session, pdu: Pdu, who: Bind) -> bool:
        self.binds.append(who)
        if self.says_on_bind:
            session.writer.write(self.says_on_bind)
            return False
        if (who.system_id, who.password) != (SYSTEM_ID, self.password):
            self._answer(session, pdu, Status.INVALID_PASSWORD)
            return True
        self._answer(session, pdu, body=Bound(system_id="smsc"))
        self.sessions.append(session)
        return False

    def _submit(self, session: Session, pdu: Pdu, message: ShortMessage) -> bool:
        fault = self.faults.pop(0) if self.faults else None
        message_id = f"{0xA0 + len(self.ids):08X}"
        match fault:
            case Fault.LOST:
                return False
            case Fault.BUSY | Fault.DOWN | Fault.REFUSED:
                self._answer(session, pdu, _STATUS[Fault(fault)])
                return False
            case int():
                self._answer(session, pdu, fault)
                return False
            case _:
                pass
        self.taken.append(message)
        self.ids.append(message_id)
        if fault == "late":
            self.late.append((session, pdu, message_id))
        elif fault is None:
            self._answer(session, pdu, body=Taken(message_id=message_id))
        return fault == "dies"

    def _answer(self, session: Session, pdu: Pdu, status: int = 0, body: Body = None) -> None:
        session.write(pdu.command | RESPONSE, pdu.sequence, status, body)

    def texts(self) -> list[tuple[str, str]]:
        """Return number and words of each text, put together."""
        found: list[tuple[str, str]] = []
        parts: dict[tuple[str, int], dict[int, str]] = {}
        for message in self.taken:
            number = ("+" if message.destination.kind == 1 else "") + message.destination.value
            said = content(message)
            if said.place is None:
                found.append((number, said.text))
                continue
            pieces = parts.setdefault((number, said.place.reference), {})
            pieces[said.place.number] = said.text
            if len(pieces) == said.place.total:
                found.append((number, joined([pieces[each] for each in sorted(pieces)])))
                del parts[number, said.place.reference]
        return found


@asynccontextmanager
async def fake_smsc(**tls: Any) -> AsyncIterator[Smsc]:
    smsc = Smsc()
    await smsc.start(**tls)
    try:
        yield smsc
    finally:
        smsc.stop()


def settings(port: int, **changes: Any) -> SmppSettings:
    given = {
        "host": "127.0.0.1", "port": port, "system_id": SYSTEM_ID, "password": PASSWORD,
        "sender": OURS, "timeout_s": 5, "rate_per_s": 1000,
    }  # fmt: skip
    return SmppSettings.model_validate({**given, **changes})


def deliveries(sender: str, text: str, *, reference: int = 7) -> list[ShortMessage]:
    """Return what an SMSC brings of a text."""
    source = Address(value=sender.removeprefix("+"), kind=int(sender.startswith("+")), plan=1)
    return [
        ShortMessage(
            source=source, destination=Address(value=OURS), content=piece.content,
            data_coding=piece.data_coding, esm_class=piece.esm_class,
        )
        for piece in coded(text, reference)
    ]  # fmt: skip


def delivery_report(message_id: str, *, stat: str = "DELIVRD", err: str = "000") -> ShortMessage:
    said = f"id:{message_id} sub:001 dlvrd:001 submit date:2611200200 done date:2611200201 "
    said += f"stat:{stat} err:{err} text:"
    return ShortMessage(
        source=Address(value="8613800000001", kind=1, plan=1), destination=Address(value=OURS),
        esm_class=4, content=said.encode(),
    )  # fmt: skip


@dataclass(kw_only=True, eq=False)
class SmppProvider:
    """The `Provider`. What it brings twice is what it could not know that we had the first time."""

    gateway: SmsGateway
    inbox: FakeInbox
    smsc: Smsc
    clock: Clock
    able: Collection[str] = frozenset(
        {Fault.BUSY, Fault.DOWN, Fault.REFUSED, Fault.LOST, Fault.SILENT, "in", "report", "words"}
    )
    brought: dict[str, list[ShortMessage]] = field(default_factory=dict)
    references: int = 0

    def fail(self, fault: Fault) -> None:
        self.smsc.faults.append(fault)

    async def sent(self) -> Sequence[tuple[str, str]]:
        return self.smsc.texts()

    async def bring(self, sender: str, text: str, external_id: str = "") -> bool:
        self.references += 1
        key = external_id or f"-{self.references}"
        if key in self.brought:
            await self._reconnected()
        else:
            self.brought[key] = deliveries(sender, text, reference=self.references)
        answers = [await self.smsc.deliver(message) for message in self.brought[key]]
        return all(answer == Status.OK for answer in answers)

    def long_ago(self) -> datetime:
        return self.clock.now() - timedelta(hours=1)  # no answer of an SMSC ever is sure

    def today(self) -> tuple[datetime, datetime]:
        begin = self.clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
        return begin, begin + timedelta(days=1)

    async def report(self, message_id: str, ref: str, *, delivered: bool) -> bool:
        report = delivery_report(message_id, stat="DELIVRD" if delivered else "UNDELIV")
        return await self.smsc.deliver(report) == Status.OK

    async def _reconnected(self) -> None:
        """Break the link: an SMSC repeats what it does not know to be acknowledged."""
        before = len(self.smsc.binds)
        self.smsc.cut()
        await until(lambda: len(self.smsc.binds) > before and bool(self.smsc.sessions))


@asynccontextmanager
async def smpp_provider(clock: Clock | None = None, **changes: Any) -> AsyncIterator[SmppProvider]:
    inbox, clock = FakeInbox(), clock or FakeClock()
    async with fake_smsc() as smsc:
        gateway = SmppGateway(settings(smsc.port, **{"timeout_s": 2, **changes}), inbox, clock)
        async with gateway.running():
            await until(lambda: gateway.health()[0].state == "up")
            yield SmppProvider(gateway=gateway, inbox=inbox, smsc=smsc, clock=clock)
