import struct
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contactd.remote import rfb
from contactd.remote.rfb import Filter, Forbidden, Rect
from contactd.tickets.remote import Right

ALL: Final = frozenset(Right)
VIEW: Final = frozenset({Right.VIEW})
V38: Final = b"RFB 003.008\n"
SHAPE: Final = struct.pack(">BBBBHHHBBB3x", 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)
OTHER_SHAPE: Final = struct.pack(">BBBBHHHBBB3x", 32, 24, 0, 1, 255, 255, 255, 0, 8, 16)
INIT: Final = struct.pack(">HH", 640, 480) + SHAPE + struct.pack(">I", 4) + b"desk"
ASK: Final = struct.pack(">BBHHHH", 3, 0, 0, 0, 640, 480)
A_DOWN, A_UP = struct.pack(">BBxxI", 4, 1, 0x61), struct.pack(">BBxxI", 4, 0, 0x61)
BELL: Final = b"\x02"
# Who speaks, in turn: the handshake of a server without password and its viewer.
HANDSHAKE: Final = (
    ("server", V38), ("viewer", V38), ("server", b"\x01\x01"), ("viewer", b"\x01"),
    ("server", bytes(4)), ("viewer", b"\x01"), ("server", INIT),
)  # fmt: skip
TRANSCRIPTS: Final = Path(__file__).parents[1] / "transcripts"


def play(
    filter_: Filter, turns: Iterable[tuple[str, bytes]], piece: int = 0
) -> tuple[bytes, bytes]:
    """Return what the viewer and what the server got; in pieces of that many bytes."""
    viewer, server = bytearray(), bytearray()
    for who, data in turns:
        for part in _pieces(data, piece):
            if who == "server":
                viewer += filter_.from_server(part)
            else:
                server += filter_.from_client(part)
    return bytes(viewer), bytes(server)


def _pieces(data: bytes, piece: int) -> Iterator[bytes]:
    size = piece or max(len(data), 1)
    return (data[at : at + size] for at in range(0, len(data), size))


def opened(rights: frozenset[Right] = ALL) -> Filter:
    filter_ = Filter(rights)
    play(filter_, HANDSHAKE)
    return filter_


def asked(rights: frozenset[Right] = ALL) -> Filter:
    filter_ = opened(rights)
    filter_.from_client(ASK)
    return filter_


# The handshake


def test_a_handshake_passes_as_it_is() -> None:
    filter_ = Filter(ALL)
    viewer, server = play(filter_, HANDSHAKE)
    assert viewer == V38 + b"\x01\x01" + bytes(4) + INIT
    assert server == V38 + b"\x01" + b"\x01"
    assert filter_.is_open
    assert filter_.handshake_bytes == len(viewer)
    assert (filter_.server_init, filter_.pixel_format) == (INIT, SHAPE)


def test_two_filters_one_behind_the_other_let_pass_what_one_does() -> None:
    """The helper's and the broker's."""
    near, far = Filter(ALL), Filter(ALL)
    viewer, server = bytearray(), bytearray()
    for who, data in (*HANDSHAKE, ("viewer", ASK + A_DOWN), ("server", b"picture")):
        if who == "server":
            viewer += far.from_server(near.from_server(data))
        else:
            server += near.from_client(far.from_client(data))
    assert viewer.endswith(INIT + b"picture")
    assert server.endswith(ASK + A_DOWN)


@pytest.mark.parametrize("piece", [1, 2, 3, 5, 7, 11, 13])
def test_it_does_not_matter_how_the_bytes_are_cut(piece: int) -> None:
    turns = (
        *HANDSHAKE,
        ("viewer", ASK + A_DOWN + encodings(0, -316) + A_UP),
        ("server", b"x" * 99),
    )
    assert play(Filter(ALL), turns, piece) == play(Filter(ALL), turns)


def test_a_challenge_and_its_response_pass() -> None:
    turns = [
        *HANDSHAKE[:2], ("server", b"\x01\x02"), ("viewer", b"\x02"), ("server", b"c" * 16),
        ("viewer", b"r" * 16), *HANDSHAKE[4:],
    ]  # fmt: skip
    viewer, server = play(Filter(ALL), turns, piece=3)
    assert b"\x01\x02" + b"c" * 16 + bytes(4) in viewer
    assert server == V38 + b"\x02" + b"r" * 16 + b"\x01"


def test_other_security_types_are_left_out() -> None:
    filter_ = Filter(ALL)
    viewer, _ = play(filter_, [*HANDSHAKE[:2], ("server", b"\x04\x05\x10\x02\x13")])
    assert viewer == V38 + b"\x01\x02"
    with pytest.raises(Forbidden):
        filter_.from_client(b"\x10")


def test_a_viewer_shares_the_screen_with_other_viewers_whatever_it_wants() -> None:
    _, server = play(Filter(ALL), [*HANDSHAKE[:5], ("viewer", b"\x00")])
    assert server.endswith(b"\x01")


def test_a_newer_version_is_told_as_the_one_that_is_read_here() -> None:
    assert Filter(ALL).from_server(b"RFB 003.889\n") == V38


@pytest.mark.parametrize(
    "said", [b"RFB 003.003\n", b"RFB 003.007\n", b"RFB 004.001\n", b"HTTP/1.1 200", b"S",
             b"RFB 003.0a8\n", b"RFB 003.008 "],
)  # fmt: skip
def test_what_is_no_server_of_today_is_refused(said: bytes) -> None:
    with pytest.raises(Forbidden):
        Filter(ALL).from_server(said)


@pytest.mark.parametrize("said", [b"RFB 003.003\n", b"RFB 003.007\n", b"GET / HTTP/1", b"X"])
def test_what_is_no_viewer_of_today_is_refused(said: bytes) -> None:
    filter_ = Filter(ALL)
    filter_.from_server(V38)
    with pytest.raises(Forbidden):
        filter_.from_client(said)


def test_who_speaks_out_of_turn_is_refused() -> None:
    with pytest.raises(Forbidden):
        Filter(ALL).from_client(V38)
    filter_ = Filter(ALL)
    filter_.from_server(V38)
    with pytest.raises(Forbidden):
        filter_.from_server(b"\x01\x01")
    filter_ = Filter(ALL)
    play(filter_, HANDSHAKE[:2])
    with pytest.raises(Forbidden):
        filter_.from_client(b"\x01")


def test_a_reason_for_refusing_passes_and_then_nothing_does() -> None:
    reason = b"\x00" + struct.pack(">I", 4) + b"busy"
    filter_ = Filter(ALL)
    viewer, _ = play(filter_, [*HANDSHAKE[:2], ("server", reason)], piece=1)
    assert viewer.endswith(reason)
    with pytest.raises(Forbidden):
        filter_.from_server(b"x")
    with pytest.raises(Forbidden):
        filter_.from_client(b"x")


def test_a_wrong_password_is_told() -> None:
    failed = struct.pack(">II", 1, 5) + b"wrong"
    viewer, _ = play(Filter(ALL), [*HANDSHAKE[:4], ("server", failed)], piece=2)
    assert viewer.endswith(failed)


@pytest.mark.parametrize(
    ("turns", "said"),
    [
        (2, b"\xff"),  # security types
        (2, b"\x02\x10\x13"),  # none that may pass
        (2, b"\x00\x7f\xff\xff\xff"),  # a reason
        (4, struct.pack(">II", 1, 0x7FFFFFFF)),
        (6, INIT[:20] + b"\x7f\xff\xff\xff"),  # a name
        (6, bytes(2) + INIT[2:]),  # no width
        (6, INIT[:2] + bytes(2) + INIT[4:]),
        (6, b"\xff\xff" + INIT[2:]),
    ],
)
def test_a_server_that_says_what_cannot_be_is_refused(turns: int, said: bytes) -> None:
    filter_ = Filter(ALL)
    play(filter_, HANDSHAKE[:turns])
    with pytest.raises(Forbidden):
        play(filter_, [("server", said)], piece=1)


# What the server sends then


def test_a_picture_passes_unread() -> None:
    filter_ = asked()
    picture = bytes(range(256)) * 256
    assert filter_.from_server(picture) is picture


def test_what_comes_before_the_viewer_asks_waits_until_it_does() -> None:
    filter_ = opened()
    assert filter_.from_server(BELL) == b""
    filter_.from_client(b"\x00\x00\x00\x00" + OTHER_SHAPE)
    filter_.from_client(ASK)
    assert filter_.from_server(b"picture") == BELL + b"picture"
    assert filter_.from_server(b"more") == b"more"


def test_a_server_that_shows_what_nobody_asked_for_is_refused() -> None:
    filter_ = opened()
    filter_.from_server(bytes(rfb.MOST_UNASKED))
    with pytest.raises(Forbidden):
        filter_.from_server(b"x")


# What the viewer sends then


def encodings(*wanted: int) -> bytes:
    return struct.pack(f">BxH{len(wanted)}i", 2, len(wanted), *wanted)


PASSING: Final = {
    "pixel format": b"\x00\x00\x00\x00" + SHAPE,
    "encodings": encodings(16, 1, 0, -239, -223),
    "request": ASK,
    "key": A_DOWN,
    "pointer": struct.pack(">BBHH", 5, 1, 10, 20),
    "continuous updates": struct.pack(">BBHHHH", 150, 1, 0, 0, 9, 9),
    "fence": struct.pack(">B3xIB", 248, 1, 3) + b"abc",
    "QEMU key": struct.pack(">BBHII", 255, 0, 1, 0x61, 30),
}
DROPPED: Final = {
    "cut text": struct.pack(">B3xI", 6, 5) + b"hello",
    "xvp": b"\xfa\x00\x01\x02",
    "desktop size": struct.pack(">BxHHBx", 251, 9, 9, 2) + bytes(32),
}
STREAM: Final = b"".join((*PASSING.values(), *DROPPED.values(), A_UP, ASK))


@pytest.mark.parametrize("message", PASSING.values(), ids=PASSING)
def test_what_a_viewer_needs_passes(message: bytes) -> None:
    assert opened().from_client(message) == message


@pytest.mark.parametrize("message", DROPPED.values(), ids=DROPPED)
def test_what_nobody_needs_is_dropped_and_the_next_message_passes(message: bytes) -> None:
    assert opened().from_client(message + ASK) == ASK
    assert play(opened(), [("viewer", message + ASK)], piece=1)[1] == ASK


@pytest.mark.parametrize(
    "kind", sorted(set(range(256)) - {0, 2, 3, 4, 5, 6, 150, 248, 250, 251, 255})
)
def test_every_other_type_is_refused(kind: int) -> None:
    with pytest.raises(Forbidden):
        opened().from_client(bytes([kind]))


@pytest.mark.parametrize("submessage", [1, 2, 127, 255])
def test_only_keys_are_taken_of_what_qemu_has(submessage: int) -> None:
    with pytest.raises(Forbidden):
        opened().from_client(bytes([255, submessage]))


def test_a_stream_cut_at_every_byte_comes_out_the_same() -> None:
    whole = opened().from_client(STREAM)
    for at in range(1, len(STREAM)):
        filter_ = opened()
        assert filter_.from_client(STREAM[:at]) + filter_.from_client(STREAM[at:]) == whole, at
        assert (filter_.keys, filter_.clicks) == (2, 1)


@given(st.lists(st.integers(1, len(STREAM) - 1), max_size=20))
def test_a_stream_cut_anywhere_comes_out_the_same(cuts: list[int]) -> None:
    filter_ = opened()
    places = [0, *sorted(cuts), len(STREAM)]
    parts = [STREAM[a:b] for a, b in pairwise(places)]
    assert b"".join(map(filter_.from_client, parts)) == opened().from_client(STREAM)


@settings(max_examples=300)
@given(st.binary(max_size=400), st.integers(0, len(HANDSHAKE)))
def test_no_bytes_of_a_viewer_do_anything_but_pass_drop_or_be_refused(
    noise: bytes, turns: int
) -> None:
    filter_ = Filter(VIEW)
    play(filter_, HANDSHAKE[:turns])
    try:
        out = filter_.from_client(noise)
    except Forbidden:
        return
    assert len(out) <= len(noise)
    assert filter_.keys == filter_.clicks == 0


@settings(max_examples=300)
@given(st.lists(st.binary(max_size=64), max_size=8), st.integers(0, len(HANDSHAKE)))
def test_no_bytes_of_a_server_do_anything_but_pass_wait_or_be_refused(
    noise: list[bytes], turns: int
) -> None:
    filter_ = Filter(VIEW)
    play(filter_, HANDSHAKE[:turns])
    try:
        out = [filter_.from_server(each) for each in noise]
    except Forbidden:
        return
    assert sum(map(len, out)) <= sum(map(len, noise))


@pytest.mark.parametrize(
    "message",
    [
        struct.pack(">B3xI", 6, 0x7FFFFFFF),  # a cut text of 2^31-1 bytes
        struct.pack(">B3xi", 6, -(2**31)),  # and an extended one
        struct.pack(">BxH", 2, 0xFFFF),  # encodings
        struct.pack(">B3xIB", 248, 0, 255),  # a fence
        b"\x00\x00\x00\x00" + b"\x07" + SHAPE[1:],  # pixels of 7 bits
    ],
    ids=["cut text", "extended cut text", "encodings", "fence", "pixels"],
)
def test_a_length_that_cannot_be_is_refused_before_any_of_it_is_kept(message: bytes) -> None:
    with pytest.raises(Forbidden):
        opened().from_client(message)


def test_a_long_cut_text_is_passed_over_and_not_kept() -> None:
    filter_ = opened()
    filter_.from_client(struct.pack(">B3xI", 6, rfb.MOST_CUT_TEXT))
    for _ in range(rfb.MOST_CUT_TEXT // 65536):
        assert filter_.from_client(bytes(65536)) == b""
        assert not filter_._from_viewer
    assert filter_.from_client(ASK) == ASK


@given(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=rfb.MOST_ENCODINGS))
def test_only_known_encodings_are_asked_for(wanted: list[int]) -> None:
    kept = [each for each in wanted if each in rfb.ENCODINGS]
    assert opened().from_client(encodings(*wanted)) == encodings(*kept)


@pytest.mark.parametrize("encoding", [-316, 50, -1063131698, -309, 1234, -257])
def test_encodings_that_change_what_a_viewer_says_are_left_out(encoding: int) -> None:
    assert opened().from_client(encodings(7, encoding, 0)) == encodings(7, 0)


def test_the_pixel_format_may_change_until_a_picture_is_asked_for() -> None:
    filter_ = opened()
    filter_.from_client(b"\x00\x00\x00\x00" + OTHER_SHAPE)
    assert filter_.pixel_format == OTHER_SHAPE
    filter_.from_client(ASK)
    filter_.from_client(b"\x00\x00\x00\x00" + OTHER_SHAPE)
    with pytest.raises(Forbidden):
        filter_.from_client(b"\x00\x00\x00\x00" + SHAPE)


# What the user lets them do

QEMU_DOWN: Final = PASSING["QEMU key"]
POINT: Final = PASSING["pointer"]


def test_without_control_nothing_is_pressed_and_the_picture_goes_on() -> None:
    filter_ = opened(VIEW)
    assert filter_.from_client(A_DOWN + POINT + ASK + QEMU_DOWN + A_UP) == ASK
    assert (filter_.keys, filter_.clicks) == (0, 0)


def test_rights_can_be_taken_and_given_back_at_any_time() -> None:
    filter_ = opened()
    assert filter_.from_client(A_DOWN) == A_DOWN
    filter_.rights = VIEW
    assert filter_.from_client(A_DOWN) == b""
    filter_.rights = ALL
    assert filter_.from_client(A_UP) == A_UP


def test_half_a_key_does_not_slip_through_when_rights_are_taken() -> None:
    filter_ = opened()
    filter_.from_client(A_DOWN[:5])
    filter_.rights = VIEW
    assert filter_.from_client(A_DOWN[5:]) == b""


def test_what_is_held_down_is_let_go() -> None:
    filter_ = opened()
    filter_.from_client(A_DOWN + QEMU_DOWN + POINT)
    let_go = A_UP + struct.pack(">BBHII", 255, 0, 0, 0x61, 30) + struct.pack(">BBHH", 5, 0, 10, 20)
    assert filter_.release() == let_go
    assert filter_.release() == b""
    assert Filter(ALL).release() == b""


def test_keys_that_were_released_need_not_be_let_go() -> None:
    filter_ = opened()
    filter_.from_client(A_DOWN + A_UP)
    assert filter_.release() == b""


def test_nobody_holds_more_keys_than_there_are() -> None:
    filter_ = opened()
    fingers = [struct.pack(">BBxxI", 4, 1, each) for each in range(rfb.MOST_KEYS_DOWN)]
    filter_.from_client(b"".join(fingers))
    with pytest.raises(Forbidden):
        filter_.from_client(A_DOWN[:-4] + b"abcd")


def test_buttons_do_nothing_in_the_windows_of_the_helper() -> None:
    filter_ = opened()
    filter_.keep_out = [Rect(x=100, y=100, width=50, height=20)]
    inside = struct.pack(">BBHH", 5, 1, 149, 119)
    assert filter_.from_client(inside) == struct.pack(">BBHH", 5, 0, 149, 119)
    outside = struct.pack(">BBHH", 5, 1, 150, 119)
    assert filter_.from_client(outside) == outside
    assert filter_.clicks == 1


def test_a_button_that_stays_down_is_one_click() -> None:
    filter_ = opened()
    for mask, x in ((1, 1), (1, 2), (1, 3), (0, 3), (4, 3), (8, 3), (0, 3)):
        filter_.from_client(struct.pack(">BBHH", 5, mask, x, 0))
    assert filter_.clicks == 2  # left, right; the wheel is none


# The real ones


def turns_of(path: Path) -> list[tuple[str, bytes]]:
    lines = [line.split(maxsplit=1) for line in path.read_text().splitlines()[1:] if line]
    return [(who, bytes.fromhex(data)) for who, data in lines]


@pytest.mark.parametrize("piece", [0, 1])
@pytest.mark.parametrize("path", sorted(TRANSCRIPTS.glob("rfb-*.txt")), ids=lambda each: each.stem)
def test_what_real_servers_and_viewers_say_passes(path: Path, piece: int) -> None:
    turns = turns_of(path)
    filter_ = Filter(ALL)
    viewer, server = play(filter_, turns, piece)
    assert filter_.is_open
    assert viewer == b"".join(data for who, data in turns if who == "server")
    spoken = b"".join(data for who, data in turns if who == "viewer")
    typed = b"".join(struct.pack(">BBxxI", 4, down, 0x61) for down in (1, 0))
    assert typed in spoken or b"\xff\x00\x00\x01\x00\x00\x00\x61" in spoken
    assert server[-100:] == spoken[-100:]
    assert filter_.keys == 1
    assert filter_.clicks == 1


def test_there_are_transcripts_of_both_servers() -> None:
    assert {each.stem for each in TRANSCRIPTS.glob("rfb-*.txt")} >= {"rfb-x11vnc", "rfb-tigervnc"}


def test_who_types_for_themselves_is_given_what_no_key_has() -> None:
    typed: list[int] = []
    filter_ = Filter(ALL, typed.append)
    play(filter_, HANDSHAKE)
    han = [struct.pack(">BBxxI", 4, down, 0x01000000 + ord("工")) for down in (1, 0)]
    assert filter_.from_client(han[0] + han[1] + A_DOWN + A_UP) == A_DOWN + A_UP
    assert typed == [ord("工")]
    assert filter_.keys == 2
    filter_.rights = VIEW
    assert filter_.from_client(han[0]) == b""
    assert typed == [ord("工")]
    assert filter_.release() == b""
