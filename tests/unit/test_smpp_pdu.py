"""SMPP: bytes to values and back, what hostile bytes do, and what short messages say."""

import struct
from typing import Any

import pytest
import smpp34
import smsutil
from hypothesis import assume, example, given
from hypothesis import strategies as st

from contactd.sms.gateway import joined
from contactd.sms.segments import parts
from contactd.sms.smpp_pdu import (
    LONGEST,
    RESPONSE,
    SHORTEST,
    Address,
    Bind,
    Bound,
    Command,
    Pdu,
    PduError,
    ShortMessage,
    Status,
    Tag,
    Taken,
    decode,
    encode,
    length,
)
from contactd.sms.smpp_text import (
    Alphabet,
    Place,
    Receipt,
    ReceiptIds,
    State,
    coded,
    content,
    is_receipt,
    receipt,
    submitted_id,
)

OCTETS = st.integers(0, 255)
SEQUENCES = st.integers(0, 0xFFFF_FFFF)


def strings(most: int) -> st.SearchStrategy[str]:
    return st.text(st.characters(min_codepoint=1, max_codepoint=255), max_size=most)


ADDRESSES = st.builds(Address, value=strings(20), kind=OCTETS, plan=OCTETS)
MESSAGES = st.builds(
    ShortMessage, source=ADDRESSES, destination=ADDRESSES, content=st.binary(max_size=255),
    service_type=strings(5), esm_class=OCTETS, protocol_id=OCTETS, priority=OCTETS,
    schedule=strings(16), validity=strings(16), registered_delivery=OCTETS, replace=OCTETS,
    data_coding=OCTETS, default_id=OCTETS,
    tlvs=st.dictionaries(st.integers(0, 0xFFFF), st.binary(max_size=300), max_size=4),
)  # fmt: skip
BINDS = st.builds(
    Bind, system_id=strings(15), password=strings(60), system_type=strings(12), version=OCTETS
)
TAKEN = st.builds(Taken, message_id=strings(65))
NOTHING = st.none()
BODIES: list[tuple[Command, st.SearchStrategy[Any]]] = [
    (Command.BIND_TRANSCEIVER, BINDS),
    (Command.BIND_TRANSCEIVER_RESP, st.builds(Bound, system_id=strings(15))),
    (Command.SUBMIT_SM, MESSAGES),
    (Command.DELIVER_SM, MESSAGES),
    (Command.SUBMIT_SM_RESP, TAKEN),
    (Command.DELIVER_SM_RESP, TAKEN),
    (Command.ENQUIRE_LINK, NOTHING),
    (Command.ENQUIRE_LINK_RESP, NOTHING),
    (Command.UNBIND, NOTHING),
    (Command.UNBIND_RESP, NOTHING),
    (Command.GENERIC_NACK, NOTHING),
]
PDUS = st.one_of(
    [
        st.builds(Pdu, command=st.just(command), sequence=SEQUENCES, status=SEQUENCES, body=body)
        for command, body in BODIES
    ]
)
# What the other codec takes: ASCII, and times of 16 characters or none.
_ASCII = st.text(st.characters(min_codepoint=1, max_codepoint=127), max_size=20)
_NUMBERS = st.builds(Address, value=_ASCII, kind=OCTETS, plan=OCTETS)
ASCII_MESSAGES = st.builds(
    ShortMessage, source=_NUMBERS, destination=_NUMBERS, content=st.binary(max_size=254),
    esm_class=OCTETS, protocol_id=OCTETS, priority=OCTETS, registered_delivery=OCTETS,
    replace=OCTETS, data_coding=OCTETS, default_id=OCTETS,
    schedule=st.sampled_from(["", "2611200200000000"[:15] + "R"]),
    tlvs=st.dictionaries(st.integers(0, 0xFFFF), st.binary(max_size=300), max_size=4),
)  # fmt: skip


def deliver(octets: bytes, **changes: Any) -> ShortMessage:
    given: dict[str, Any] = {"source": Address(value="1"), "destination": Address(value="2")}
    return ShortMessage(**{**given, "content": octets, **changes})


# PDUs ------------------------------------------------------------------------------------------


@given(PDUS)
def test_what_is_written_is_read_again(pdu: Pdu) -> None:
    frame = encode(pdu)
    assert length(frame[:4]) == len(frame)
    assert decode(frame) == pdu


@given(ASCII_MESSAGES)
def test_another_codec_reads_a_text_as_it_was_written(message: ShortMessage) -> None:
    frame = encode(Pdu(command=Command.SUBMIT_SM, sequence=5, body=message))
    read = smpp34.decode(frame)
    assert isinstance(read, smpp34.SubmitSm)
    assert (read.source_addr, read.source_addr_ton, read.source_addr_npi) == (
        message.source.value, message.source.kind, message.source.plan,
    )  # fmt: skip
    assert (read.destination_addr, read.dest_addr_ton, read.dest_addr_npi) == (
        message.destination.value, message.destination.kind, message.destination.plan,
    )  # fmt: skip
    assert (read.esm_class, read.protocol_id, read.priority_flag) == (
        message.esm_class, message.protocol_id, message.priority,
    )  # fmt: skip
    assert (read.registered_delivery, read.replace_if_present_flag, read.data_coding) == (
        message.registered_delivery, message.replace, message.data_coding,
    )  # fmt: skip
    assert read.short_message == message.content
    assert {tlv.tag: tlv.value for tlv in read.tlvs} == message.tlvs


@given(st.binary(max_size=400))
@example(b"")
@example(struct.pack(">IIII", 16, 0x05, 0, 1))
@example(struct.pack(">IIII", 17, 0x80000004, 0, 1) + b"x")
def test_hostile_bytes_are_a_pdu_or_an_error_of_ours(octets: bytes) -> None:
    try:
        pdu = decode(octets)
    except PduError:
        return
    assert decode(encode(pdu)).body == pdu.body


@given(PDUS, st.data())
def test_a_damaged_pdu_is_a_pdu_or_an_error_of_ours(pdu: Pdu, data: st.DataObject) -> None:
    frame = bytearray(encode(pdu))
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(4, len(frame) - 1))] = data.draw(OCTETS)
    end = data.draw(st.integers(SHORTEST, len(frame)))
    frame = frame[:end]
    frame[:4] = struct.pack(">I", len(frame))
    refused: PduError | None = None
    try:
        body = decode(bytes(frame)).body
    except PduError as error:
        refused, body = error, None
    if refused is not None:  # the peer can be told of which one
        told = (refused.command, refused.sequence)
        assert told == struct.unpack_from(">4xI4xI", frame)
    if isinstance(body, ShortMessage):
        assert isinstance(content(body).text, str)
        receipt(body)


@pytest.mark.parametrize("octets", [b"", b"\0\0\0", b"\0\0\0\x0f", struct.pack(">I", LONGEST + 1),
                                    b"HTTP", b"\xff\xff\xff\xff"])  # fmt: skip
def test_an_impossible_length_is_refused_before_anything_is_read(octets: bytes) -> None:
    with pytest.raises(PduError) as raised:
        length(octets)
    assert raised.value.status is Status.INVALID_COMMAND_LENGTH


def test_a_pdu_that_is_cut_anywhere_is_refused() -> None:
    body = deliver(b"words", tlvs={Tag.SAR_TOTAL: b"\3"})
    frame = encode(Pdu(command=Command.DELIVER_SM, sequence=7, body=body))
    whole = len(frame) - 5  # without its parameter it is one, too
    for size in {*range(SHORTEST, len(frame))} - {whole}:
        with pytest.raises(PduError) as raised:
            decode(struct.pack(">I", size) + frame[4:size])
        assert (raised.value.command, raised.value.sequence) == (Command.DELIVER_SM, 7)


def test_a_frame_is_exactly_one_pdu() -> None:
    frame = encode(Pdu(command=Command.UNBIND, sequence=7))
    for wrong in (frame * 2, frame[:-1]):
        with pytest.raises(PduError):
            decode(wrong)


def test_the_bounds_of_a_length_are_allowed() -> None:
    assert [length(struct.pack(">I", size)) for size in (SHORTEST, LONGEST)] == [SHORTEST, LONGEST]


@pytest.mark.parametrize("command", [Command.SUBMIT_SM_RESP, Command.BIND_TRANSCEIVER_RESP])
def test_a_refusal_needs_no_body(command: Command) -> None:
    pdu = decode(struct.pack(">IIII", 16, command, Status.THROTTLED, 7))
    assert (pdu.status, pdu.sequence, pdu.is_response) == (Status.THROTTLED, 7, True)


def test_a_command_that_we_do_not_know_is_told_apart() -> None:
    pdu = decode(struct.pack(">IIII", 20, 0x0103, 0, 7) + b"abcd")
    assert (pdu.command, pdu.sequence, pdu.body, pdu.is_response) == (0x0103, 7, None, False)


@pytest.mark.parametrize(
    "body",
    [Taken(message_id="编号"), Taken(message_id="a\0b"), Taken(message_id="1" * 256),
     Bind(system_id="1" * 16, password=""), deliver(b"x" * 256), deliver(b"", esm_class=256),
     deliver(b"", tlvs={1: b"x" * 65_536}), deliver(b"", tlvs={65_536: b""}),
     deliver(b"", tlvs={1: b"x" * 60_000, 2: b"x" * 6_000})],
)  # fmt: skip
def test_what_does_not_fit_a_pdu_is_not_written(body: Any) -> None:
    with pytest.raises(PduError):
        encode(Pdu(command=Command.SUBMIT_SM, sequence=1, body=body))


def test_a_password_may_be_longer_than_the_specification_allows() -> None:
    who = Bind(system_id="contactd", password="a password of more than eight characters")
    pdu = Pdu(command=Command.BIND_TRANSCEIVER, sequence=1, body=who)
    assert decode(encode(pdu)) == pdu
    assert "password of" not in repr(pdu)


# Texts that go out -----------------------------------------------------------------------------

WORDS = st.text(st.sampled_from("aB 1@€[~\n工单已收到😀🖨“é"), max_size=500)


@given(WORDS, OCTETS)
@example("打" * 66 + "😀" * 5, 0)
@example("€" * 80, 255)
def test_a_text_goes_out_in_its_segments_and_comes_in_whole(text: str, reference: int) -> None:
    pieces = coded(text, reference)
    assert len(pieces) == len(parts(text))
    found: list[str] = []
    for number, piece in enumerate(pieces, 1):
        septets = piece.data_coding == 0
        header = piece.content[: 6 if piece.esm_class else 0]
        octets = len(piece.content) - len(header)
        assert octets <= ((153 if septets else 134) if header else (160 if septets else 140))
        said = content(deliver(piece.content, data_coding=piece.data_coding,
                               esm_class=piece.esm_class))  # fmt: skip
        place = Place(reference=reference, total=len(pieces), number=number)
        assert said.place == (place if len(pieces) > 1 else None)
        found.append(said.text)
        said.text.encode()  # no character is cut
    assert joined(found) == text


@given(WORDS)
def test_another_encoder_writes_the_same_bytes(text: str) -> None:
    assume(text)
    if (pieces := coded(text, 1))[0].data_coding == 0:
        written = b"".join(piece.content[6 if piece.esm_class else 0 :] for piece in pieces)
        assert written == smsutil.encode(text)


@given(st.text(st.sampled_from("aZ é1[Ω€ñ"), max_size=400))
def test_an_smsc_whose_own_alphabet_is_latin_1_gets_it(text: str) -> None:
    pieces = coded(text, 3, Alphabet.LATIN_1)
    assert all(piece.data_coding == (8 if set(text) & set("Ω€") else 0) for piece in pieces)
    assert all(len(piece.content) <= 160 for piece in pieces)
    assert all(len(piece.content) <= 140 for piece in pieces if piece.data_coding == 8)
    found = [
        content(
            deliver(piece.content, data_coding=piece.data_coding, esm_class=piece.esm_class),
            Alphabet.LATIN_1,
        ).text
        for piece in pieces
    ]
    assert "".join(found) == text


def test_more_parts_than_can_be_numbered_are_refused() -> None:
    assert len(coded("工" * 67 * 255, 0)) == 255
    with pytest.raises(ValueError, match="255 parts"):
        coded("工" * 67 * 256, 0)


# Texts that come in ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data_coding", "octets", "text"),
    [
        (0, b"\0\x11 \x1be\x1b< \x1b\x02", "@_ €[ $"),  # an unknown extension is its own character
        (0, b"ab\x1b", "ab"),
        (0, b"a\x80", "a�"),
        (1, b"hello", "hello"),
        (3, "Grüße".encode("latin-1"), "Grüße"),
        (6, "Привет".encode("iso8859-5"), "Привет"),
        (8, "打印机😀".encode("utf-16-be"), "打印机😀"),
        (8, "打".encode("utf-16-be") + b"\x53", "打�"),
        (8, b"\xd8\x3d", "�"),
        (8, b"\0h\0i\0\0", "hi"),
        (15, "打印机".encode("gb18030"), "打印机"),
        (0x18, "打".encode("utf-16-be"), "打"),  # shown at once, not stored: class 0
        (0x10, b"\0", "@"),
        (0xF1, b"\0", "@"),
        (0xF5, b"\0\xff", "00ff"),
        (4, b"\x01\xfe", "01fe"),
        (0x14, b"\x01", "01"),
        (0xC8, b"\x01", "01"),
    ],
)
def test_a_text_is_read_by_its_data_coding(data_coding: int, octets: bytes, text: str) -> None:
    assert content(deliver(octets, data_coding=data_coding)).text == text


def test_a_long_text_may_come_as_a_parameter() -> None:
    long = "打印机" * 200
    message = deliver(b"", data_coding=8, tlvs={Tag.MESSAGE_PAYLOAD: long.encode("utf-16-be")})
    assert content(message).text == long
    assert content(deliver(b"", data_coding=8)).text == ""


@pytest.mark.parametrize(
    ("header", "place"),
    [
        ("05 00 03 07 03 02", Place(reference=0x07, total=3, number=2)),
        ("06 08 04 00 07 03 02", Place(reference=0x1_0007, total=3, number=2)),
        ("0b 05 04 0b 84 23 f0 00 03 07 03 02", Place(reference=0x07, total=3, number=2)),
        ("05 00 03 07 01 01", None),  # one of one
        ("05 00 03 07 03 04", None),
        ("05 00 03 07 03 00", None),
        ("05 00 03 07 00 00", None),
        ("04 00 02 07 03", None),
        ("05 00 09 07 03 02", None),  # an element that is longer than its header
        ("00", None),
    ],
)
def test_a_header_says_which_part_it_is(header: str, place: Place | None) -> None:
    said = content(deliver(bytes.fromhex(header) + b"words", esm_class=0x40))
    assert (said.text, said.place) == ("words", place)


def test_a_header_that_does_not_fit_is_text() -> None:
    assert content(deliver(b"Hello", esm_class=0x40)).text == "Hello"


def test_the_parameters_say_which_part_it_is_and_references_of_each_kind_are_apart() -> None:
    sar = {Tag.SAR_REFERENCE: b"\0\7", Tag.SAR_TOTAL: b"\3", Tag.SAR_NUMBER: b"\2"}
    said = content(deliver(b"words", tlvs=sar))
    assert said.place == Place(reference=0x2_0007, total=3, number=2)
    for broken in ({Tag.SAR_TOTAL: b""}, {Tag.SAR_NUMBER: b"\4"}, {Tag.SAR_REFERENCE: b"\7"}):
        assert content(deliver(b"words", tlvs={**sar, **broken})).place is None


@given(st.text(st.sampled_from("工😀a"), min_size=1, max_size=60), st.integers(2, 20))
def test_parts_that_are_cut_within_a_character_are_joined_right(text: str, units: int) -> None:
    octets = text.encode("utf-16-be")
    pieces = [octets[at : at + 2 * units] for at in range(0, len(octets), 2 * units)]
    found = [
        content(
            deliver(bytes([5, 0, 3, 1, len(pieces), number]) + piece, esm_class=0x40, data_coding=8)
        ).text
        for number, piece in enumerate(pieces, 1)
    ]
    assert joined(found) == text


# Receipts --------------------------------------------------------------------------------------

SAID = (
    b"id:0000A1F sub:001 dlvrd:001 submit date:2611200200 done date:2611200201 "
    b"stat:%s err:%s text:id:9 stat:DELIVRD"
)


@pytest.mark.parametrize(
    ("stat", "state"),
    [(b"DELIVRD", State.DELIVERED), (b"EXPIRED", State.EXPIRED), (b"DELETED", State.DELETED),
     (b"UNDELIV", State.UNDELIVERABLE), (b"ACCEPTD", State.ACCEPTED), (b"UNKNOWN", State.UNKNOWN),
     (b"REJECTD", State.REJECTED), (b"enroute", State.ENROUTE)],
)  # fmt: skip
def test_a_receipt_is_read_by_its_text(stat: bytes, state: State) -> None:
    message = deliver(SAID % (stat, b"021"), esm_class=0x04)
    assert is_receipt(message)
    assert receipt(message) == Receipt(message_id="a1f", state=state, error="21")


def test_a_receipt_is_read_by_its_parameters_first() -> None:
    message = deliver(
        SAID % (b"UNKNOWN", b"000"), esm_class=0x04,
        tlvs={Tag.RECEIPTED_MESSAGE_ID: b"7B\0", Tag.MESSAGE_STATE: b"\2"},
    )  # fmt: skip
    assert receipt(message) == Receipt(message_id="7b", state=State.DELIVERED)
    bare = deliver(b"", esm_class=0x20, tlvs={
        Tag.RECEIPTED_MESSAGE_ID: b"x-Y", Tag.MESSAGE_STATE: b"\1",
        Tag.NETWORK_ERROR_CODE: b"\3\0\x15"})  # fmt: skip
    assert is_receipt(bare)
    assert receipt(bare) == Receipt(message_id="x-Y", state=State.ENROUTE, error="30015")


@pytest.mark.parametrize(
    ("octets", "tlvs"),
    [(b"", {}), (b"\xff\0", {}), (b"id:1", {}), (b"stat:DELIVRD", {}), (b"id:1 stat:ELSE", {}),
     (b"id:1", {Tag.MESSAGE_STATE: b"\x63"}), (b"id:1", {Tag.MESSAGE_STATE: b""})],
)  # fmt: skip
def test_what_says_nothing_is_no_receipt(octets: bytes, tlvs: dict[int, bytes]) -> None:
    assert receipt(deliver(octets, esm_class=0x04, tlvs=tlvs)) is None


@pytest.mark.parametrize("esm_class", [0x00, 0x40, 0x08, 0x10, 0x03])
def test_a_text_is_no_receipt(esm_class: int) -> None:
    assert not is_receipt(deliver(b"id:1 stat:DELIVRD", esm_class=esm_class))


@pytest.mark.parametrize(
    ("submitted", "receipted", "ids"),
    [
        ("1234", "1234", ReceiptIds.SAME),
        ("1234", "0000001234", ReceiptIds.SAME),
        ("00A1F", "a1f", ReceiptIds.SAME),
        ("0", "0000000000", ReceiptIds.SAME),
        ("5f2c-Ab", "5f2c-Ab", ReceiptIds.SAME),
        ("A1F", "2591", ReceiptIds.DECIMAL),
        ("0000000A", "0000000010", ReceiptIds.DECIMAL),
        ("x-1", "x-1", ReceiptIds.DECIMAL),
    ],
)
def test_a_receipt_finds_its_text(submitted: str, receipted: str, ids: ReceiptIds) -> None:
    message = deliver(f"id:{receipted} stat:DELIVRD".encode(), esm_class=0x04)
    found = receipt(message, ids)
    assert found is not None
    assert found.message_id == submitted_id(submitted, ids)
    named = deliver(b"stat:DELIVRD", esm_class=0x04,
                    tlvs={Tag.RECEIPTED_MESSAGE_ID: submitted.encode()})  # fmt: skip
    assert receipt(named, ids) == found


def test_ids_that_differ_stay_apart() -> None:
    ids = ["1", "10", "A", "a-1", "A-1", "0x1", "", "g1", "01g"]
    assert len({submitted_id(each) for each in ids}) == len(ids)


def test_every_answer_has_its_command() -> None:
    requests = [each for each in Command if not each & RESPONSE]
    assert all(Command(each | RESPONSE) for each in requests)
