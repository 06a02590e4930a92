"""Characters that no key has: typed by the helper on lent keys, and only where it is allowed."""

import struct
from dataclasses import dataclass, field
from typing import Any

import pytest
from Xlib import X

from contactd.remote.rfb import UNICODE, Filter
from contactd.share.typist import MOST_LENT, Typist
from contactd.tickets.remote import Right

LOWEST = 8
KEYS = [(97, 65), *[()] * 20, (0,), (0xFFE1,)]  # a; keys without a symbol; Shift


@dataclass(slots=True)
class FakeDisplay:
    lent: list[tuple[int, int]] = field(default_factory=list)
    pressed: list[tuple[int, int]] = field(default_factory=list)

    def get_modifier_mapping(self) -> list[list[int]]:
        return [[LOWEST + 1, LOWEST + len(KEYS) - 1]]

    def change_keyboard_mapping(self, code: int, symbols: list[list[int]]) -> None:
        self.lent.append((code, symbols[0][0]))

    def xtest_fake_input(self, kind: int, code: int) -> None:
        self.pressed.append((kind, code))

    def sync(self) -> None:
        pass


def typist() -> tuple[Typist, FakeDisplay]:
    display = FakeDisplay()
    return Typist(display, LOWEST, KEYS), display


def test_each_new_character_gets_the_key_that_was_used_longest_ago() -> None:
    found, display = typist()
    for point in range(0x4E00, 0x4E00 + 3 * MOST_LENT):
        found.type(point)
    codes = [code for code, _ in display.lent]
    assert len(set(codes)) == MOST_LENT
    assert codes == codes[:MOST_LENT] * 3
    assert LOWEST not in codes  # it has a symbol
    assert LOWEST + 1 not in codes  # it is a modifier
    kinds = [kind for kind, _ in display.pressed]
    assert kinds == [X.KeyPress, X.KeyRelease] * 3 * MOST_LENT


def test_a_character_that_has_a_key_already_is_not_lent_another() -> None:
    found, display = typist()
    for sign in "工单工":
        found.type(ord(sign))
    assert [symbol - UNICODE for _, symbol in display.lent] == [ord("工"), ord("单")]
    assert display.pressed[0] == display.pressed[4]
    for each in range(MOST_LENT - 2):
        found.type(0x5000 + each)
    found.type(0x6000)  # takes the key of 单, which was used before 工
    assert display.lent[-1][0] == display.lent[1][0]


@pytest.mark.parametrize(
    ("point", "symbol"),
    [(0x41, 0x41), (0xE9, 0xE9), (0x0A, 0xFF0D), (0x09, 0xFF09), (0x1F600, 0x0101F600)],
)
def test_symbols_are_those_of_x11(point: int, symbol: int) -> None:
    found, display = typist()
    found.type(point)
    assert [each for _, each in display.lent] == [symbol]


@pytest.mark.parametrize("point", [0, 0x07, 0x7F, 0x9F, 0xD800, 0xDFFF, 0x110000, 0xFEFFFFFF])
def test_what_is_no_character_types_nothing(point: int) -> None:
    found, display = typist()
    found.type(point)
    assert display.lent == display.pressed == []


def test_without_a_key_to_lend_nothing_happens() -> None:
    display: Any = FakeDisplay()
    Typist(display, LOWEST, [(97,)]).type(ord("工"))
    assert display.pressed == []


def opened(rights: frozenset[Right], typed: list[int]) -> Filter:
    found = Filter(rights, typist=typed.append)
    found.from_server(b"RFB 003.008\n")
    found.from_client(b"RFB 003.008\n")
    found.from_server(b"\x01\x01")
    found.from_client(b"\x01")
    found.from_server(bytes(4))
    found.from_client(b"\x01")
    shape = struct.pack(">BBBBHHHBBB3x", 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)
    found.from_server(struct.pack(">HH", 64, 48) + shape + bytes(4))
    assert found.is_open
    return found


def key(symbol: int, *, down: bool) -> bytes:
    return struct.pack(">BBxxI", 4, down, symbol)


def test_only_with_control_and_never_by_the_server_as_well() -> None:
    typed: list[int] = []
    found = opened(frozenset({Right.VIEW, Right.CONTROL}), typed)
    pressed = key(UNICODE + ord("工"), down=True) + key(UNICODE + ord("工"), down=False)
    assert found.from_client(pressed) == b""
    assert (typed, found.keys) == ([ord("工")], 1)
    plain = key(97, down=True)
    assert found.from_client(plain) == plain
    found.rights = frozenset({Right.VIEW})
    assert found.from_client(pressed) == b""
    assert (typed, found.keys) == ([ord("工")], 2)


def test_the_broker_has_no_typist_and_passes_everything_on() -> None:
    found = opened(frozenset({Right.VIEW, Right.CONTROL}), [])
    found._typist = None
    pressed = key(UNICODE + ord("工"), down=True)
    assert found.from_client(pressed) == pressed
