"""Bytes become the text that their writer saw, whatever the label says."""

import base64
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contactd.mail import addresses, charsets
from contactd.mail.parsed import Mailbox

CHINESE = "打印机坏了，请派人来看一下。"


def word(text: bytes, charset: str, encoding: str = "B") -> bytes:
    body = base64.b64encode(text) if encoding == "B" else b"".join(b"=%02X" % one for one in text)
    return b"=?%s?%s?%s?=" % (charset.encode(), encoding.encode(), body)


@pytest.mark.parametrize(
    ("codec", "label"),
    [
        ("gb18030", "gb2312"), ("gb18030", "GBK"), ("gb18030", "x-gbk"), ("gb18030", "cp936"),
        ("utf-8", "gb2312"), ("utf-8", "us-ascii"), ("utf-8", "iso-8859-1"), ("utf-8", ""),
        ("utf-8-sig", ""), ("utf-16", ""), ("utf-7", "utf-7"), ("hz", "hz-gb-2312"),
        ("utf-7", "unicode-1-1-utf-7"), ("gb18030", ""),
    ],
)  # fmt: skip
def test_chinese_is_read_as_it_was_written(codec: str, label: str) -> None:
    assert charsets.text_of(CHINESE.encode(codec), label, "gb18030") == (
        ("\ufeff" if codec == "utf-8-sig" else "") + CHINESE,
        True,
    )


def test_a_sign_beyond_gb2312_is_read_under_its_label() -> None:
    assert charsets.text_of("镕喆€".encode("gb18030"), "gb2312")[0] == "镕喆€"


@pytest.mark.parametrize("codec", ["cp950", "big5hkscs"])
def test_big5_is_read_with_its_extensions(codec: str) -> None:
    text = "電腦壞了" if codec == "cp950" else "電腦喺度壞咗"
    assert charsets.text_of(text.encode(codec), "big5") == (text, True)


def test_utf8_wins_over_the_label_big5() -> None:
    assert charsets.text_of("電腦壞了".encode(), "big5") == ("電腦壞了", True)


def test_japanese_mail_is_read_with_the_signs_of_windows() -> None:
    jis = b"\x1b$B-!F|K\\\x1b(B \x1b(I1\x1b(B"  # row 13 and half-width kana
    assert charsets.text_of(jis, "iso-2022-jp") == ("①日本 ｱ", True)
    assert charsets.text_of("日本".encode("iso2022_jp"), "") == ("日本", True)
    assert charsets.text_of("①髙".encode("cp932"), "shift_jis") == ("①髙", True)


@pytest.mark.parametrize("text", ["schön", "Größe für Müller", "déjà vu", "Ærø", "naïve café"])
def test_a_german_or_french_word_is_not_made_chinese(text: str) -> None:
    assert charsets.text_of(text.encode("cp1252"), "", "gb18030") == (text, False)


def test_cyrillic_is_not_made_chinese() -> None:
    text = "Привет, как дела у вас сегодня".encode("koi8-r")
    assert charsets.text_of(text, "koi8-r", "gb18030")[0] == "Привет, как дела у вас сегодня"
    assert not charsets.text_of(text, "", "gb18030")[1]


def test_undeclared_big5_is_read_but_unsure() -> None:
    text = "今天的天氣很好，印表機壞了"
    assert charsets.text_of(text.encode("cp950"), "", "gb18030") == (text, False)


def test_chinese_under_a_western_label_is_read_but_unsure() -> None:
    assert charsets.text_of(CHINESE.encode("gbk"), "iso-8859-1", "gb18030") == (CHINESE, False)


def test_a_broken_byte_costs_one_sign() -> None:
    text, sure = charsets.text_of(CHINESE.encode("gb18030") + b"\xff ok", "gb2312")
    assert text.startswith(CHINESE)
    assert text.endswith(" ok")
    assert not sure


@pytest.mark.parametrize("label", ["base64", "rot13", "zip", "no-such", "", "x" * 5000, "\0"])
def test_a_label_that_is_no_charset_is_none(label: str) -> None:
    assert charsets.text_of("é".encode(), label) == ("é", True)


@given(st.binary(max_size=300), st.sampled_from(sorted(charsets.CODECS)), st.text(max_size=20))
def test_any_bytes_are_text(data: bytes, label: str, hint: str) -> None:
    charsets.clean(charsets.text_of(data, label, hint)[0]).encode()


# Headers


def test_a_character_cut_in_two_words_is_read() -> None:
    data = "打印机".encode("gb18030")
    raw = word(data[:3], "gb2312") + b"\r\n " + word(data[3:], "GB2312")
    assert charsets.header_text(raw) == ("打印机", True)


def test_base64_cut_between_words_is_read() -> None:
    encoded = base64.b64encode("打印机".encode())
    raw = b"=?utf-8?B?" + encoded[:6] + b"?= =?utf-8?B?" + encoded[6:] + b"?="
    assert charsets.header_text(raw) == ("打印机", True)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"Re:" + word("坏".encode(), "utf-8") + b"!", "Re:坏!"),
        (word("坏了".encode("gbk"), "utf-8"), "坏了"),
        (word("坏了坏了".encode(), "gb2312"), "坏了坏了"),
        (b"=?UTF-7?Q?+V08-?=", "坏"),
        (b"=?iso-8859-1*de?q?f=FCr_uns?=", "für uns"),
        (b"a =?utf-8?q?b?= =?utf-8?q?c?= d", "a bc d"),
        (b"=?utf-8?q?x", "=?utf-8?q?x"),
        (b"=?utf-8?b?5Z2P", "=?utf-8?b?5Z2P"),
        (b"=?utf-8?b?5Z2P5?=", "坏"),
        (b"two\r\n lines\r\n\tmore", "two lines more"),
        (b"a\0b\x07c", "abc"),
        ("txt.exe\u202egnp.exe".encode(), "txt.exegnp.exe"),
    ],
)  # fmt: skip
def test_a_header_is_one_line_of_text(raw: bytes, expected: str) -> None:
    assert charsets.header_text(raw, "gb18030")[0] == expected


def test_bare_bytes_in_a_header_are_read_with_the_hint() -> None:
    assert charsets.header_text("打印机坏了".encode("gbk"), "gb18030") == ("打印机坏了", True)
    as_surrogates = "打印机坏了".encode("gbk").decode("ascii", "surrogateescape")
    assert charsets.header_text(as_surrogates, "gb18030") == ("打印机坏了", True)


@given(st.binary(max_size=300))
def test_any_header_is_one_line(raw: bytes) -> None:
    text, _ = charsets.header_text(raw, "gb18030")
    assert "\n" not in text
    text.encode()


# Parameters


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'x/y; name="a b.pdf"', "a b.pdf"),
        (b"x/y; name=a b.pdf", "a b.pdf"),
        (b'x/y; name="a;b\\"c.pdf"; z=1', 'a;b"c.pdf'),
        (b'x/y; name="open.pdf', "open.pdf"),
        (b"x/y; name*=utf-8'zh'%E5%9D%8F.pdf", "坏.pdf"),
        (b"x/y; name*0*=utf-8''%E5%9D; name*1*=%8F; name*2=.pdf", "坏.pdf"),
        (b"x/y; name*1=b.pdf; name*0=a", "ab.pdf"),
        (b'x/y; name=old.pdf; name*=utf-8\'\'%E5%9D%8F.pdf', "坏.pdf"),
        (b'x/y; name*=utf-8\'\'%E5%9D%8F.pdf; name=old.pdf', "坏.pdf"),
        (b'x/y; name="=?gb2312?B?' + base64.b64encode("坏".encode("gbk")) + b'?=.pdf"', "坏.pdf"),
        ("x/y; name=坏了.pdf".encode("gbk"), "坏了.pdf"),
        ('x/y; NAME="坏.pdf"'.encode(), "坏.pdf"),
        (b"x/y; ;; name=a", "a"),
    ],
)  # fmt: skip
def test_a_file_name_is_read_however_it_is_written(raw: bytes, expected: str) -> None:
    assert charsets.parameterised(raw, "gb18030").parameters["name"] == expected


# Addresses


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ('"Doe, John" <John@Example.ORG>', [("john@example.org", "Doe, John")]),
        ("john@example.org (John (Jr) Doe)", [("john@example.org", "John (Jr) Doe")]),
        ("A <a@b.c>, d@e.f", [("a@b.c", "A"), ("d@e.f", "")]),
        ("Team: a@b.c, D <d@e.f>;, x@y.z", [("a@b.c", ""), ("d@e.f", "D"), ("x@y.z", "")]),
        ("undisclosed-recipients:;", []),
        ("", []),
        ("<>", []),
        ("<@relay.example:a@b.c>", [("a@b.c", "")]),
        ('"a@b.c" <d@e.f>', [("d@e.f", "a@b.c")]),
        ("d@e.f <a@b.c>", [("a@b.c", "d@e.f")]),
        ('"john doe"@b.c', [('"john doe"@b.c', "")]),
        ("Nobody", [("", "Nobody")]),
        ("王 <a@b.c>", [("a@b.c", "王")]),
        ("=?utf-8?b?546L?= <a@b.c>", [("a@b.c", "王")]),
        ('"=?utf-8?b?546L?=" <a@b.c>', [("a@b.c", "王")]),
        ("=?utf-8?q?evil=2C_x=40y.z?= <a@b.c>", [("a@b.c", "evil, x@y.z")]),
        ("=?utf-8?q?A_=3Ca=40b.c=3E?=", [("a@b.c", "A <>")]),
        ("a@b.c;d@e.f", [("a@b.c", ""), ("d@e.f", "")]),
        ('"open <a@b.c>', [("a@b.c", "open")]),
    ],
)
def test_mailboxes_are_told_apart(raw: str, expected: list[tuple[str, str]]) -> None:
    found = addresses.mailboxes(raw)
    assert found.found == tuple(Mailbox(address=one, name=name) for one, name in expected)
    assert not found.cut


def test_fifty_thousand_addresses_are_two_hundred() -> None:
    raw = ", ".join(f"user{number}@example.org" for number in range(50_000))
    found = addresses.mailboxes(raw)
    assert len(found.found) == addresses.MAILBOXES_LIMIT
    assert found.cut


@pytest.mark.parametrize(
    "raw", ['"' * 20_000, '\\"' * 20_000, '"\\' * 30_000, "(" * 60_000, "<" * 60_000, "=?" * 30_000,
            "=?a?q?" * 10_000, "a@" * 30_000, "a:" * 30_000, " " * 60_000, " . @ " * 12_000]
)  # fmt: skip
def test_a_hostile_header_takes_no_time(raw: str) -> None:
    began = time.process_time()
    addresses.mailboxes(raw)
    charsets.header_text(raw)
    charsets.parameterised(f"x/y; name={raw}")
    charsets.parameterised(f"x/y; name*0={raw}; {raw}")
    assert time.process_time() - began < 1


@given(st.binary(max_size=300))
@settings(max_examples=200)
def test_any_bytes_are_mailboxes(raw: bytes) -> None:
    for one in addresses.mailboxes(raw, "gb18030").found:
        assert one.address == one.address.lower()
        assert "\n" not in one.name
        (one.address + one.name).encode()
