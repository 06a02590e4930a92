"""What is in a short message of SMPP: alphabets, parts of a longer text, receipts (pure).

A text that is longer than a segment goes out in parts with an 8-bit reference (3GPP TS 23.040
section 9.2.3.24.1), for `segments` counts with its six octets. What comes in may be joined by 8-bit
and 16-bit references and by the sar_ parameters; a reference of each kind is a number of its own.

Other senders cut a text anywhere, also within a surrogate pair: a part may begin or end with half
of one, as `gateway.Part` allows.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final

from contactd.sms.segments import Encoding, encoding, parts
from contactd.sms.smpp_pdu import Esm, ShortMessage, Tag

ESCAPE: Final = "\x1b"
# 3GPP TS 23.038 sections 6.2.1 and 6.2.1.1; `segments` has the same characters as sets.
_GSM: Final = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ\x1bÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENSION: Final = {"\n": "\f", "Λ": "^", "(": "{", ")": "}", "/": "\\",
                     "<": "[", "=": "~", ">": "]", "¡": "|", "e": "€"}  # fmt: skip
_CODES: Final = {char: bytes([code]) for code, char in enumerate(_GSM) if char != ESCAPE} | {
    char: bytes([_GSM.index(ESCAPE), _GSM.index(after)]) for after, char in _EXTENSION.items()
}
_ESCAPED: Final = re.compile(f"{ESCAPE}(.)", re.DOTALL)
_UNKNOWN: Final = "\ufffd"

_LONE: Final = re.compile("[\ud800-\udfff]")

_8_BIT: Final = 0x00  # information elements: 3GPP TS 23.040 section 9.2.3.24
_16_BIT: Final = 0x08
_KIND: Final = 0x1_0000  # what kinds of references are apart
UCS2: Final = 8  # data_coding: section 5.2.19


class Alphabet(StrEnum):
    """What data_coding 0, the SMSC's own alphabet, is at this SMSC."""

    GSM = "gsm"  # GSM 7-bit, one septet an octet
    LATIN_1 = "latin-1"


class ReceiptIds(StrEnum):
    """How a receipt's text writes the id that submit_sm_resp gave."""

    SAME = "same"
    DECIMAL = "decimal"  # submit_sm_resp has it in hexadecimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Coded:
    """What one submit_sm carries of a text."""

    content: bytes
    data_coding: int
    esm_class: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Which part of which text a short message is."""

    reference: int
    total: int
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a deliver_sm says. The text of a part may have lone surrogates."""

    text: str
    place: Place | None = None


class State(IntEnum):
    """message_state (section 5.2.28)."""

    ENROUTE = 1
    DELIVERED = 2
    EXPIRED = 3
    DELETED = 4
    UNDELIVERABLE = 5
    ACCEPTED = 6
    UNKNOWN = 7
    REJECTED = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    message_id: str
    state: State
    error: str = ""


# Out


def coded(text: str, reference: int, alphabet: Alphabet = Alphabet.GSM) -> list[Coded]:
    """Return what is submitted for a text, in its order; `reference` joins its parts.

    Raises:
        ValueError: it has more than 255 parts.
    """
    pieces = _pieces(text, alphabet)
    if len(pieces) == 1:
        return pieces
    if len(pieces) > 255:
        raise ValueError("more than 255 parts")
    return [
        Coded(
            content=bytes([5, _8_BIT, 3, reference & 0xFF, len(pieces), number]) + piece.content,
            data_coding=piece.data_coding,
            esm_class=Esm.HEADER,
        )
        for number, piece in enumerate(pieces, 1)
    ]


def _pieces(text: str, alphabet: Alphabet) -> list[Coded]:
    if encoding(text) is Encoding.UCS2:
        return [Coded(content=_utf_16(part), data_coding=UCS2) for part in parts(text)]
    if alphabet is Alphabet.GSM:
        return [Coded(content=_gsm(part), data_coding=0) for part in parts(text)]
    try:  # the SMSC makes septets of it: it is cut where they are
        return [Coded(content=part.encode("latin-1"), data_coding=0) for part in parts(text)]
    except UnicodeEncodeError:  # Greek, or €: 67 characters fit beside the header
        size = 67 if len(text) > 70 else 70
        cut = [text[at : at + size] for at in range(0, len(text), size)]
        return [Coded(content=_utf_16(part), data_coding=UCS2) for part in cut]


def _gsm(text: str) -> bytes:
    return b"".join(_CODES[char] for char in text)


def _utf_16(text: str) -> bytes:
    return text.encode("utf-16-be", "replace")  # a lone surrogate would be an error of ours


# In


def content(message: ShortMessage, alphabet: Alphabet = Alphabet.GSM) -> Content:
    """Return what a short message says; whatever its bytes are, there is some text in it.

    Octets that are no text (a settings message, a business card) are shown in hexadecimal. National
    language tables (3GPP TS 23.038 section 6.2.1.2.4) are not known here.
    """
    octets = message.content or message.tlvs.get(Tag.MESSAGE_PAYLOAD, b"")
    place = _sar(message)
    if message.esm_class & Esm.HEADER:
        elements, octets = _header(octets)
        place = _place(elements) or place
    text = _decoder(message.data_coding, alphabet)(octets)
    text = text.replace("\0", "")  # no database keeps it; some SMSCs end a text with it
    if place is None or place.total == 1:
        return Content(text=_LONE.sub(_UNKNOWN, text))
    return Content(text=text, place=place)


def _header(octets: bytes) -> tuple[dict[int, bytes], bytes]:
    """Return the elements of a user data header, and the text after it.

    A header that does not fit is none, and all of it text: better some signs too many than no text.
    """
    if not octets or octets[0] >= len(octets):
        return {}, octets
    end = octets[0] + 1
    elements: dict[int, bytes] = {}
    at = 1
    while at + 2 <= end:
        size = octets[at + 1]
        if at + 2 + size > end:
            break
        elements[octets[at]] = octets[at + 2 : at + 2 + size]  # the last one counts: 9.2.3.24
        at += 2 + size
    return elements, octets[end:]


def _place(elements: Mapping[int, bytes]) -> Place | None:
    match elements.get(_16_BIT), elements.get(_8_BIT):
        case (bytes(wide), _) if len(wide) == 4:
            return _possible(_KIND + int.from_bytes(wide[:2], "big"), wide[2], wide[3])
        case (_, bytes(narrow)) if len(narrow) == 3:
            return _possible(narrow[0], narrow[1], narrow[2])
        case _:
            return None


def _sar(message: ShortMessage) -> Place | None:
    tags = (Tag.SAR_REFERENCE, Tag.SAR_TOTAL, Tag.SAR_NUMBER)
    values = [message.tlvs.get(tag, b"") for tag in tags]
    if [len(value) for value in values] != [2, 1, 1]:
        return None
    reference, total, number = (int.from_bytes(value, "big") for value in values)
    return _possible(2 * _KIND + reference, total, number)


def _possible(reference: int, total: int, number: int) -> Place | None:
    """Return a place; None for an impossible one, which 3GPP TS 23.040 has us ignore."""
    if not 1 <= number <= total:
        return None
    return Place(reference=reference, total=total, number=number)


def _from_gsm(octets: bytes) -> str:
    text = "".join(_GSM[octet] if octet < 0x80 else _UNKNOWN for octet in octets)
    # An unknown extension is shown as the character itself: 3GPP TS 23.038 section 6.2.1.1.
    text = _ESCAPED.sub(lambda found: _EXTENSION.get(found[1], found[1]), text)
    return text.replace(ESCAPE, "")


def _from_ucs2(octets: bytes) -> str:
    text = octets[: len(octets) & ~1].decode("utf-16-be", "surrogatepass")
    return text if len(octets) % 2 == 0 else text + _UNKNOWN


def _from(codec: str) -> Callable[[bytes], str]:
    return lambda octets: octets.decode(codec, "replace")


_DECODERS: Final[Mapping[int, Callable[[bytes], str]]] = {
    1: _from("ascii"),
    3: _from("latin-1"),
    5: _from("shift_jis"),
    6: _from("iso8859-5"),
    7: _from("iso8859-8"),
    UCS2: _from_ucs2,
    13: _from("shift_jis"),
    14: _from("euc_kr"),
    15: _from("gb18030"),  # reserved here, but CMPP's sign for it: SMSCs in China pass it on
}


def _decoder(data_coding: int, alphabet: Alphabet) -> Callable[[bytes], str]:
    """Return what reads a data_coding (section 5.2.19, and 3GPP TS 23.038 section 4 from 16 on)."""
    if data_coding == 0:
        return _from_gsm if alphabet is Alphabet.GSM else _from("latin-1")
    if data_coding in _DECODERS:
        return _DECODERS[data_coding]
    group, bits = data_coding >> 4, data_coding & 0x0C
    if group == 0xF:
        return bytes.hex if bits & 0x04 else _from_gsm
    if group == 1:  # uncompressed, with a message class
        return {0x00: _from_gsm, 0x08: _from_ucs2}.get(bits, bytes.hex)
    return bytes.hex


# Receipts

_STATS: Final[Mapping[str, State]] = {  # appendix B
    "ENROUTE": State.ENROUTE, "DELIVRD": State.DELIVERED, "EXPIRED": State.EXPIRED,
    "DELETED": State.DELETED, "UNDELIV": State.UNDELIVERABLE, "ACCEPTD": State.ACCEPTED,
    "UNKNOWN": State.UNKNOWN, "REJECTD": State.REJECTED,
}  # fmt: skip
_KNOWN_STATES: Final = frozenset(State)
_ID: Final = re.compile(r"\bid:\s*([\x21-\x7e]{1,65})", re.IGNORECASE)
_STAT: Final = re.compile(r"\bstat:\s*([A-Z]{1,10})", re.IGNORECASE)
_ERROR: Final = re.compile(r"\berr:\s*([0-9A-Za-z]{1,10})", re.IGNORECASE)
_HEX: Final = re.compile(r"[0-9A-Fa-f]+")


def is_receipt(message: ShortMessage) -> bool:
    return message.esm_class & Esm.KIND in (Esm.RECEIPT, Esm.INTERMEDIATE)


def receipt(message: ShortMessage, ids: ReceiptIds = ReceiptIds.SAME) -> Receipt | None:
    """Return what a receipt says of which text; None if it does not.

    Its parameters count before its text, whose form (appendix B) is only an example.
    """
    octets = message.content or message.tlvs.get(Tag.MESSAGE_PAYLOAD, b"")
    text = octets.decode("latin-1")
    state = _state(message.tlvs.get(Tag.MESSAGE_STATE, b""), text)
    # The parameter repeats submit_sm_resp (section 5.3.2.12); the text may write it otherwise.
    if message_id := message.tlvs.get(Tag.RECEIPTED_MESSAGE_ID, b"").rstrip(b"\0"):
        found = submitted_id(message_id.decode("latin-1"), ids)
    else:
        named = _ID.search(text)
        found = _plain(named[1]) if named else ""
    if not found or state is None:
        return None
    error = _ERROR.search(text)
    code = message.tlvs.get(Tag.NETWORK_ERROR_CODE, b"")  # network, then two octets of code
    said = error[1] if error else code.hex()
    return Receipt(message_id=found, state=state, error=said.lstrip("0"))


def submitted_id(message_id: str, ids: ReceiptIds = ReceiptIds.SAME) -> str:
    """Return an id of submit_sm_resp in the form that receipts are looked up by.

    SMSCs pad ids with zeros in one place and not in the other, or write the same one in capitals
    here and small there; and some give it in hexadecimal and report on it in decimal.
    """
    if ids is ReceiptIds.DECIMAL and _HEX.fullmatch(message_id):
        return str(int(message_id, 16))
    return _plain(message_id)


def _plain(message_id: str) -> str:
    if not _HEX.fullmatch(message_id):
        return message_id
    return message_id.lstrip("0").lower() or "0"


def _state(state: bytes, text: str) -> State | None:
    if len(state) == 1 and state[0] in _KNOWN_STATES:
        return State(state[0])
    stat = _STAT.search(text)
    return _STATS.get(stat[1].upper()) if stat else None
