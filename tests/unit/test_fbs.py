import struct
from io import BytesIO
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contactd.remote import fbs
from contactd.remote.fbs import Block, NoRecording, Recorder
from contactd.remote.rfb import Filter
from tests.unit.test_rfb import ALL, ASK, HANDSHAKE, INIT, OTHER_SHAPE, V38, play

OPENING: Final = [V38.replace(b"8", b"3"), struct.pack(">I", 1)]


class Recorded:
    """A filter, its recorder, a clock that is set, and what was written."""

    def __init__(self) -> None:
        self.file = BytesIO()
        self.now = 100.0
        self.filter = Filter(ALL)
        self.recorder = Recorder(self.filter, self._write, lambda: self.now)

    def _write(self, data: bytes) -> None:
        self.file.write(data)

    def shows(self, data: bytes) -> None:
        self.recorder.record(self.filter.from_server(data))

    def handshake(self, piece: int = 0) -> None:
        for who, data in HANDSHAKE:
            if who == "server":
                size = piece or len(data)
                for at in range(0, len(data), size):
                    self.shows(data[at : at + size])
            else:
                self.filter.from_client(data)

    @property
    def blocks(self) -> list[Block]:
        return list(fbs.read(BytesIO(self.file.getvalue())))


def recorded(*shown: tuple[float, bytes]) -> Recorded:
    made = Recorded()
    made.handshake()
    made.filter.from_client(ASK)
    for at, data in shown:
        made.now = 100.0 + at
        made.shows(data)
    return made


def test_a_recording_is_a_session_of_rfb_3_3_without_password() -> None:
    made = recorded((0, b"picture"), (1.5, b"next"))
    assert [each.data for each in made.blocks] == [*OPENING, INIT, b"picture", b"next"]
    assert [each.at_ms for each in made.blocks] == [0, 0, 0, 0, 1500]


def test_a_file_is_as_rfbproxy_writes_it() -> None:
    made = recorded((0, b"p"))
    assert made.file.getvalue().startswith(
        b"FBS 001.001\n\x00\x00\x00\x0cRFB 003.003\n\x00\x00\x00\x00"
    )
    assert made.file.getvalue().endswith(b"\x00\x00\x00\x01p\x00\x00\x00\x00\x00\x00\x00")


@pytest.mark.parametrize("piece", [0, 1, 7])
def test_nothing_is_written_before_a_picture_comes(piece: int) -> None:
    made = Recorded()
    made.handshake(piece)
    assert made.file.getvalue() == b""
    made.filter.from_client(ASK)
    made.shows(b"picture")
    assert [each.data for each in made.blocks] == [*OPENING, INIT, b"picture"]


def test_it_has_the_pixel_format_that_the_viewer_wanted() -> None:
    made = Recorded()
    made.handshake()
    made.shows(b"\x02")  # a bell, too early
    made.filter.from_client(b"\x00\x00\x00\x00" + OTHER_SHAPE + ASK)
    made.shows(b"picture")
    desktop = made.blocks[2].data
    assert desktop == INIT[:4] + OTHER_SHAPE + INIT[20:]
    assert made.blocks[3].data == b"\x02picture"


def test_time_begins_with_the_first_picture() -> None:
    made = recorded((3600.0, b"first"), (3600.25, b"second"))
    assert [each.at_ms for each in made.blocks][-2:] == [0, 250]


def test_what_cannot_be_written_is_told() -> None:
    def full(_: bytes) -> None:
        raise OSError("no space left on device")

    filter_ = Filter(ALL)
    recorder = Recorder(filter_, full, lambda: 0.0)
    for who, data in HANDSHAKE:
        if who == "server":
            recorder.record(filter_.from_server(data))
        else:
            filter_.from_client(data)
    filter_.from_client(ASK)
    with pytest.raises(OSError, match="no space"):
        recorder.record(filter_.from_server(b"picture"))


@given(st.lists(st.tuples(st.binary(max_size=50), st.integers(0, 2**32 - 1)), max_size=10))
def test_what_is_written_is_read_back(wanted: list[tuple[bytes, int]]) -> None:
    file = BytesIO(fbs.MAGIC + b"".join(fbs.block(data, at) for data, at in wanted))
    assert [(each.data, each.at_ms) for each in fbs.read(file)] == wanted


def test_a_file_that_is_cut_off_anywhere_plays_up_to_there() -> None:
    made = recorded((0, b"picture"), (1, b"12345"), (2, b"end"))
    whole, blocks = made.file.getvalue(), made.blocks
    for cut in range(len(fbs.MAGIC), len(whole)):
        found = list(fbs.read(BytesIO(whole[:cut])))
        assert found == blocks[: len(found)]
        assert len(found) < len(blocks)
        assert fbs.length_ms(BytesIO(whole[:cut])) == (found[-1].at_ms if found else 0)
    assert fbs.length_ms(BytesIO(whole)) == 2000


@pytest.mark.parametrize("file", [b"", b"FBS 001.000\n", b"\x1aE\xdf\xa3 a film of another kind"])
def test_another_file_is_no_recording(file: bytes) -> None:
    with pytest.raises(NoRecording):
        list(fbs.read(BytesIO(file)))
    with pytest.raises(NoRecording):
        fbs.length_ms(BytesIO(file))


def test_a_length_that_cannot_be_ends_the_reading() -> None:
    file = fbs.MAGIC + fbs.block(b"ok", 7) + b"\x7f\xff\xff\xff" + bytes(100)
    assert list(fbs.read(BytesIO(file))) == [Block(7, b"ok")]
    assert fbs.length_ms(BytesIO(file)) == 7


def test_a_recording_plays_through_the_same_handshake_as_a_server() -> None:
    """What the tests take for granted of their own server."""
    viewer, _ = play(Filter(ALL), HANDSHAKE)
    assert viewer.endswith(INIT)
