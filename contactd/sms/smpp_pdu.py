"""The few PDUs of SMPP 3.4 that a transceiver needs: bytes to values and back (pure).

Section and table numbers are those of the SMPP v3.4 specification, issue 1.2.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from contactd.errors import ContactdError

SHORTEST: Final = 16  # bytes: command_length, command_id, command_status, sequence_number
LONGEST: Final = 64 << 10  # bytes; a message_payload has at most 64 KB, a short message 254 bytes
RESPONSE: Final = 0x8000_0000  # the bit that makes a command its answer
VERSION: Final = 0x34
LAST_SEQUENCE: Final = 0x7FFF_FFFF  # section 5.1.4

_HEAD: Final = struct.Struct(">IIII")
_TLV: Final = struct.Struct(">HH")
# Octets with the closing NUL, as tables 4-1 to 4-11 allow them; ids and addresses are read more
# patiently, for nothing is gained by losing a text to an SMSC that is generous there.
_SYSTEM_ID: Final = 16
_PATIENTLY: Final = 256


class Command(IntEnum):
    """Table 5-1, as far as we take part in it."""

    BIND_TRANSCEIVER = 0x09
    SUBMIT_SM = 0x04
    DELIVER_SM = 0x05
    UNBIND = 0x06
    ENQUIRE_LINK = 0x15
    GENERIC_NACK = RESPONSE
    BIND_TRANSCEIVER_RESP = RESPONSE | 0x09
    SUBMIT_SM_RESP = RESPONSE | 0x04
    DELIVER_SM_RESP = RESPONSE | 0x05
    UNBIND_RESP = RESPONSE | 0x06
    ENQUIRE_LINK_RESP = RESPONSE | 0x15


class Status(IntEnum):
    """Table 5-2: what command_status says."""

    OK = 0x00
    INVALID_MESSAGE_LENGTH = 0x01
    INVALID_COMMAND_LENGTH = 0x02
    INVALID_COMMAND = 0x03
    WRONG_BIND_STATE = 0x04
    ALREADY_BOUND = 0x05
    INVALID_PRIORITY = 0x06
    INVALID_REGISTERED_DELIVERY = 0x07
    SYSTEM_ERROR = 0x08
    INVALID_SOURCE = 0x0A
    INVALID_DESTINATION = 0x0B
    BIND_FAILED = 0x0D
    INVALID_PASSWORD = 0x0E
    INVALID_SYSTEM_ID = 0x0F
    QUEUE_FULL = 0x14
    INVALID_SERVICE_TYPE = 0x15
    INVALID_ESM_CLASS = 0x43
    SUBMIT_FAILED = 0x45
    INVALID_SOURCE_TON = 0x48
    INVALID_SOURCE_NPI = 0x49
    INVALID_DESTINATION_TON = 0x50
    INVALID_DESTINATION_NPI = 0x51
    THROTTLED = 0x58
    APPLICATION_TEMPORARY = 0x64
    APPLICATION_PERMANENT = 0x65
    APPLICATION_REFUSED = 0x66
    INVALID_TLVS = 0xC0
    TLV_NOT_ALLOWED = 0xC1
    INVALID_TLV_LENGTH = 0xC2
    TLV_MISSING = 0xC3
    INVALID_TLV_VALUE = 0xC4
    DELIVERY_FAILED = 0xFE
    UNKNOWN_ERROR = 0xFF


class Tag(IntEnum):
    """Table 5-7: the optional parameters that we read."""

    RECEIPTED_MESSAGE_ID = 0x001E
    SAR_REFERENCE = 0x020C
    SAR_TOTAL = 0x020E
    SAR_NUMBER = 0x020F
    NETWORK_ERROR_CODE = 0x0423
    MESSAGE_PAYLOAD = 0x0424
    MESSAGE_STATE = 0x0427


class Esm(IntEnum):
    """Bits of esm_class (section 5.2.12)."""

    KIND = 0x3C
    RECEIPT = 0x04
    INTERMEDIATE = 0x20
    HEADER = 0x40  # the text begins with a user data header


class PduError(ContactdError):
    """Bytes that are no PDU, or a value that none can hold.

    `status` is what the peer is told; `command` and `sequence` are 0 if they could not be read.
    """

    def __init__(self, why: str, *, status: Status, command: int = 0, sequence: int = 0) -> None:
        super().__init__(why)
        self.status = status
        self.command = command
        self.sequence = sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    system_id: str
    password: str = field(repr=False)
    system_type: str = ""
    version: int = VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """The body of bind_transceiver_resp."""

    system_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """`kind` is the type of number: 1 international, 5 letters (section 5.2.5)."""

    value: str
    kind: int = 0
    plan: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortMessage:
    """The body of submit_sm and of deliver_sm (sections 4.4.1 and 4.6.1).

    Of several optional parameters of one tag the first is kept.
    """

    source: Address = field(repr=False)
    destination: Address = field(repr=False)
    content: bytes = field(default=b"", repr=False)
    service_type: str = ""
    esm_class: int = 0
    protocol_id: int = 0
    priority: int = 0
    schedule: str = ""
    validity: str = ""
    registered_delivery: int = 0
    replace: int = 0
    data_coding: int = 0
    default_id: int = 0
    tlvs: Mapping[int, bytes] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """The body of submit_sm_resp and deliver_sm_resp; the latter's id is empty."""

    message_id: str = ""


Body = Bind | Bound | ShortMessage | Taken | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pdu:
    """`command` may be one that `Command` does not have; then the body is not read."""

    command: int
    sequence: int
    status: int = Status.OK
    body: Body = None

    @property
    def is_response(self) -> bool:
        return bool(self.command & RESPONSE)


def length(head: bytes) -> int:
    """Return the length of a whole PDU by its first four bytes.

    Raises:
        PduError: it is impossible; where the next PDU begins is not known any more.
    """
    found = int.from_bytes(head[:4], "big")
    if len(head) < 4 or not SHORTEST <= found <= LONGEST:
        raise PduError("impossible length", status=Status.INVALID_COMMAND_LENGTH)
    return found


def decode(frame: bytes) -> Pdu:
    """Return the PDU that is exactly `frame`.

    Raises:
        PduError: it is none. Nothing else is ever raised, whatever the bytes.
    """
    if length(frame) != len(frame):
        raise PduError("not one PDU", status=Status.INVALID_COMMAND_LENGTH)
    _, command, status, sequence = _HEAD.unpack_from(frame)
    read = _READERS.get(command)
    is_bare = len(frame) == SHORTEST and command & RESPONSE  # an error needs no body: section 4.4.2
    if read is None:
        return Pdu(command=command, status=status, sequence=sequence)
    try:
        body = read(_Cursor(b"\0" if is_bare else frame[SHORTEST:]))
    except PduError as error:
        error.command, error.sequence = command, sequence
        raise
    return Pdu(command=command, status=status, sequence=sequence, body=body)


def encode(pdu: Pdu) -> bytes:
    """Return the bytes of a PDU.

    Raises:
        PduError: a value of it does not fit.
    """
    body = b"" if pdu.body is None else _written(pdu.body)
    size = SHORTEST + len(body)
    if size > LONGEST:
        raise PduError("longer than a PDU may be", status=Status.INVALID_COMMAND_LENGTH)
    return _HEAD.pack(size, pdu.command, pdu.status, pdu.sequence) + body


class _Cursor:
    """Reads a body from its beginning to its end. Every method raises PduError."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def octet(self) -> int:
        return self.octets(1)[0]

    def octets(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._content):
            raise PduError("cut short", status=Status.INVALID_COMMAND_LENGTH)
        found, self._at = self._content[self._at : end], end
        return found

    def string(self, most: int = _PATIENTLY) -> str:
        """Return a C-octet string. Every byte is a character: an address may be anything."""
        end = self._content.find(b"\0", self._at, self._at + most)
        if end < 0:
            raise PduError("a string without an end", status=Status.INVALID_COMMAND_LENGTH)
        found = self._content[self._at : end].decode("latin-1")
        self._at = end + 1
        return found

    def address(self) -> Address:
        kind, plan = self.octets(2)
        return Address(value=self.string(), kind=kind, plan=plan)

    def tlvs(self) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        while self._at < len(self._content):
            tag, size = _TLV.unpack(self.octets(_TLV.size))
            found.setdefault(tag, self.octets(size))
        return found


def _bind(cursor: _Cursor) -> Bind:
    system_id, password, system_type = cursor.string(), cursor.string(), cursor.string()
    version = cursor.octet()
    cursor.address()  # address_range: nobody asks for one
    return Bind(system_id=system_id, password=password, system_type=system_type, version=version)


def _bound(cursor: _Cursor) -> Bound:
    return Bound(system_id=cursor.string())


def _taken(cursor: _Cursor) -> Taken:
    return Taken(message_id=cursor.string())


def _short_message(cursor: _Cursor) -> ShortMessage:
    service_type = cursor.string()
    source, destination = cursor.address(), cursor.address()
    esm_class, protocol_id, priority = cursor.octets(3)
    schedule, validity = cursor.string(), cursor.string()
    registered_delivery, replace, data_coding, default_id, size = cursor.octets(5)
    return ShortMessage(
        service_type=service_type, source=source, destination=destination, esm_class=esm_class,
        protocol_id=protocol_id, priority=priority, schedule=schedule, validity=validity,
        registered_delivery=registered_delivery, replace=replace, data_coding=data_coding,
        default_id=default_id, content=cursor.octets(size), tlvs=cursor.tlvs(),
    )  # fmt: skip


_READERS: Final[Mapping[int, Callable[[_Cursor], Body]]] = {
    Command.BIND_TRANSCEIVER: _bind,
    Command.BIND_TRANSCEIVER_RESP: _bound,
    Command.SUBMIT_SM: _short_message,
    Command.DELIVER_SM: _short_message,
    Command.SUBMIT_SM_RESP: _taken,
    Command.DELIVER_SM_RESP: _taken,
}


def _written(body: Bind | Bound | ShortMessage | Taken) -> bytes:
    match body:
        case Bind():
            names = _string(body.system_id, _SYSTEM_ID) + _string(body.password)
            return names + _string(body.system_type, 13) + _octets(body.version, 0, 0) + b"\0"
        case Bound():
            return _string(body.system_id)
        case Taken():
            return _string(body.message_id)
        case ShortMessage():
            return _written_message(body)


def _written_message(body: ShortMessage) -> bytes:
    pieces = [
        _string(body.service_type), _address(body.source), _address(body.destination),
        _octets(body.esm_class, body.protocol_id, body.priority),
        _string(body.schedule), _string(body.validity),
        _octets(
            body.registered_delivery, body.replace, body.data_coding, body.default_id,
            len(body.content),
        ),
        body.content,
    ]  # fmt: skip
    for tag, value in body.tlvs.items():
        if not (0 <= tag <= 0xFFFF and len(value) <= 0xFFFF):
            raise PduError("a parameter too long", status=Status.INVALID_TLV_LENGTH)
        pieces += [_TLV.pack(tag, len(value)), value]
    return b"".join(pieces)


def _address(address: Address) -> bytes:
    return _octets(address.kind, address.plan) + _string(address.value)


def _octets(*values: int) -> bytes:
    try:
        return bytes(values)
    except ValueError:
        raise PduError("too large for an octet", status=Status.INVALID_MESSAGE_LENGTH) from None


def _string(value: str, most: int = _PATIENTLY) -> bytes:
    try:
        found = value.encode("latin-1") + b"\0"
    except UnicodeEncodeError:
        raise PduError("not Latin-1", status=Status.UNKNOWN_ERROR) from None
    if b"\0" in found[:-1] or len(found) > most:
        raise PduError("a string too long", status=Status.INVALID_COMMAND_LENGTH)
    return found
