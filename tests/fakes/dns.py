"""A name server on a free port of 127.0.0.1, with switches; and a zone that needs none."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from contactd.errors import TemporaryFailure

# Name -> type -> data, in the text form of zone files; TXT without its quotes.
Zone = Mapping[str, Mapping[str, Sequence[str]]]


@dataclass(slots=True, kw_only=True)
class FakeDns(asyncio.DatagramProtocol):
    zone: Zone
    address: str = ""
    is_silent: bool = False  # answers nothing at all
    silent_names: set[str] = field(default_factory=set)  # lower-case, without the last dot
    broken_names: set[str] = field(default_factory=set)  # SERVFAIL
    asked: list[tuple[str, str]] = field(default_factory=list)
    _transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)
        host, port = transport.get_extra_info("sockname")
        self.address = f"{host}:{port}"

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind))
        if self.is_silent or name in self.silent_names:
            return
        assert self._transport is not None
        self._transport.sendto(self._answer(query, name, kind), addr)

    def _answer(self, query: dns.message.Message, name: str, kind: str) -> bytes:
        answer = dns.message.make_response(query)
        found = self.zone.get(name)
        if name in self.broken_names:
            answer.set_rcode(dns.rcode.SERVFAIL)
        elif found is None and name:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        elif found and (records := found.get(kind)):
            texts = [_quoted(each) if kind == "TXT" else each for each in records]
            answer.answer.append(
                dns.rrset.from_text(query.question[0].name, 300, "IN", kind, *texts)
            )
        return answer.to_wire(max_size=65_000)


def _quoted(text: str) -> str:
    """Return a TXT record's text as strings of at most 255 bytes (RFC 1035 section 3.3.14)."""
    return " ".join(f'"{text[start : start + 255]}"' for start in range(0, len(text), 255))


@asynccontextmanager
async def fake_dns(zone: Zone) -> AsyncIterator[FakeDns]:
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(
        lambda: FakeDns(zone=zone), local_addr=("127.0.0.1", 0)
    )
    try:
        yield server
    finally:
        transport.close()


@dataclass(slots=True)
class ZoneFile:
    """Answers from a zone as `spf_check.Resolve` does; `away` names nobody can say anything of."""

    zone: Zone
    away: set[str] = field(default_factory=set)
    asked: list[tuple[str, str]] = field(default_factory=list)

    def __call__(self, name: str, kind: str) -> Sequence[bytes]:
        name = name.lower().rstrip(".")
        self.asked.append((name, kind))
        if name in self.away:
            raise TemporaryFailure("no answer from DNS")
        return [each.encode() for each in self.zone.get(name, {}).get(kind, ())]
