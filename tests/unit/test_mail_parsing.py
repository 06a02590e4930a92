"""Raw mails, as they come and as attackers send them, become something to read."""

import base64
import binascii
import struct
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage, Message
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contactd.mail import entities, filenames, tnef
from contactd.mail.parsed import Kind, Mailbox, Note, Parsed
from contactd.mail.parsing import TEXT_LIMIT, parse

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(64))


def mail(headers: str, body: bytes | str = b"") -> bytes:
    content = body.encode() if isinstance(body, str) else body
    return headers.replace("\n", "\r\n").encode() + b"\r\n\r\n" + content


def multipart(kind: str, *parts: bytes) -> bytes:
    head = f"Content-Type: multipart/{kind}; boundary=b-{kind}\r\n\r\n".encode()
    line = f"--b-{kind}".encode()
    return head + b"".join(line + b"\r\n" + part + b"\r\n" for part in parts) + line + b"--\r\n"


def text(content: str, kind: str = "plain", charset: str = "utf-8") -> bytes:
    head = f"Content-Type: text/{kind}; charset={charset}\r\n\r\n"
    return head.encode() + content.encode(charset)


def file(content: bytes, kind: str, *headers: str) -> bytes:
    lines = [f"Content-Type: {kind}", "Content-Transfer-Encoding: base64", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + base64.encodebytes(content)


def names(parsed: Parsed) -> list[tuple[str, str, bytes]]:
    return [(part.name, part.media_type, part.content) for part in parsed.parts]


# Headers


def test_a_plain_mail_is_read() -> None:
    parsed = parse(
        mail(
            "From: =?gb2312?B?zfU=?= <Wang@Example.CN>\nTo: A <a@desk.cn>, b@desk.cn\n"
            "To: c@desk.cn\nCc: D <d@x.y>\nReply-To: e@x.y\nSubject: =?utf-8?q?Re=3A_=E5=9D=8F?=\n"
            "Date: Mon, 2 Nov 2026 10:15:00 +0800\nMessage-ID: <1@x.y>\n"
            "In-Reply-To: <0@x.y> (you)\n"
            "References: <a@x.y>\n <b@x.y> <a@x.y>",
            "It does not print.\r\n",
        )
    )
    assert parsed == Parsed(
        subject="Re: 坏",
        sender=Mailbox(address="wang@example.cn", name="王"),
        reply_to=(Mailbox(address="e@x.y"),),
        to=(
            Mailbox(address="a@desk.cn", name="A"),
            Mailbox(address="b@desk.cn"),
            Mailbox(address="c@desk.cn"),
        ),
        cc=(Mailbox(address="d@x.y", name="D"),),
        date=datetime(2026, 11, 2, 2, 15, tzinfo=UTC),
        message_id="<1@x.y>",
        in_reply_to=("<0@x.y>",),
        references=("<a@x.y>", "<b@x.y>"),
        text="It does not print.",
    )


@pytest.mark.parametrize(
    "value",
    ["", "yesterday", "Mon, 2 Nov 99999 10:15:00 +0800", "1 1 1 1 1", "\0", "0 Jan 0 0:0:0 +9999",
     "Mon, 31 Feb 2026 10:15:00 +0800"],
)  # fmt: skip
def test_a_date_that_is_none_is_none(value: str) -> None:
    assert parse(mail(f"Date: {value}")).date is None


@pytest.mark.parametrize(
    ("headers", "address"),
    [("From: ", ""), ("From: \nFrom: a@b.c", "a@b.c"), ("From: a@b.c\nFrom: d@e.f", "a@b.c"),
     ("From: Nobody, A <a@b.c>", "a@b.c"), ("Subject: x", ""), ("From: <>", "")],
)  # fmt: skip
def test_the_sender_is_the_first_address_in_from(headers: str, address: str) -> None:
    assert parse(mail(headers)).sender.address == address


def test_a_message_id_without_brackets_gets_them() -> None:
    assert parse(mail("Message-ID: 1@x.y")).message_id == "<1@x.y>"
    assert parse(mail("Message-ID: plain")).message_id == "<plain>"
    assert parse(mail("Message-ID: ")).message_id == ""


def test_a_mail_from_ourselves_is_own() -> None:
    raw = mail("From: Support <support@desk.cn>", "x")
    assert parse(raw).kind is Kind.PERSON
    assert parse(raw, own_addresses={"support@desk.cn"}).kind is Kind.OWN


def test_headers_that_nobody_declared_have_the_charset_of_the_text() -> None:
    raw = b"Subject: " + "壞了".encode("cp950") + b"\r\n" + text("壞了", charset="big5")
    assert parse(raw).subject == "壞了"
    assert parse(b"Subject: " + "打印机坏了".encode("gbk") + b"\r\n\r\nx").subject == "打印机坏了"


def test_a_doubtful_charset_is_noted() -> None:
    assert Note.ENCODING_UNSURE in parse(b"Subject: sch\xf6n\r\n\r\nx").notes
    assert Note.ENCODING_UNSURE in parse(b"Subject: x\r\n\r\nsch\xf6n").notes
    assert not parse("Subject: 坏\r\n\r\n坏了".encode()).notes


@pytest.mark.parametrize(
    ("raw", "subject", "body"),
    [
        (b"Subject: a\r\r\rb", "a", "b"),
        (b"Subject: a\r\n\tb\r\n\r\nc", "a b", "c"),
        (b"From x@y Mon Nov  2 10:15:00 2026\nSubject: a\n\nb", "a", "b"),
        (b"\r\n\r\nSubject: a\r\n\r\nb", "a", "b"),
        (b"Subject: a\r\r\n\r\r\nb", "a", "b"),
        (b"Subject : a\r\n\r\nb", "a", "b"),
        (b"X: y\r\nno colon here\r\nSubject: a\r\n\r\nb", "a", "b"),
        (b"Subject: a\r\nthe body begins here", "a", "the body begins here"),
        (b"just words", "", "just words"),
        (b"\r\nwords: more", "", "words: more"),
        (b"Subject: only a header", "only a header", ""),
        (b"", "", ""),
    ],
)  # fmt: skip
def test_broken_headers_are_read_as_far_as_they_go(raw: bytes, subject: str, body: str) -> None:
    parsed = parse(raw)
    assert (parsed.subject, parsed.text) == (subject, body)


# Structure


def test_an_alternative_is_said_once() -> None:
    raw = multipart("alternative", text("plain"), text("<b>rich</b>", "html"))
    parsed = parse(raw)
    assert (parsed.text, parsed.html, parsed.parts) == ("plain", "<b>rich</b>", ())


def test_html_alone_is_text_too() -> None:
    parsed = parse(text("<p>a</p><p>b</p>", "html"))
    assert (parsed.text, parsed.html) == ("a\n\nb", "<p>a</p><p>b</p>")


def test_a_blank_plain_text_gives_way_to_the_html() -> None:
    assert parse(multipart("alternative", text(" \r\n"), text("rich", "html"))).text == "rich"


def test_texts_beside_each_other_are_all_read_in_order() -> None:
    parsed = parse(multipart("mixed", text("one\r\n"), text("<i>two</i>", "html"), text("three")))
    assert parsed.text == "one\n\ntwo\n\nthree"
    assert [parsed.html.index(word) for word in ("one", "two", "three")] == sorted(
        parsed.html.index(word) for word in ("one", "two", "three")
    )


def test_a_pasted_image_is_inline_and_another_file_is_not() -> None:
    page = text('<p>look<img src="cid:i@x"><img src="https://spy/x.png"></p>', "html")
    image = file(PNG, "image/png; name=shot.png", "Content-ID: <i@x>")
    paper = file(b"%PDF", "application/pdf", 'Content-Disposition: attachment; filename="a.pdf"')
    parsed = parse(multipart("mixed", multipart("related", page, image), paper))
    assert names(parsed) == [
        ("shot.png", "image/png", PNG),
        ("a.pdf", "application/pdf", b"%PDF"),
    ]
    assert [(part.content_id, part.is_inline) for part in parsed.parts] == [
        ("i@x", True),
        ("", False),
    ]
    assert parsed.html == '<p>look<img src="cid:i@x"><img></p>'


def test_a_mail_inside_is_a_file_and_its_text_is_not_ours() -> None:
    inner = mail("Subject: In/ner: x\nFrom: a@b.c", "secret")
    raw = multipart("mixed", text("see below"), b"Content-Type: message/rfc822\r\n\r\n" + inner)
    parsed = parse(raw)
    assert parsed.text == "see below"
    assert names(parsed) == [("In_ner_ x.eml", "message/rfc822", inner)]


def test_a_digest_holds_mails_without_saying_so() -> None:
    parsed = parse(multipart("digest", b"\r\n" + mail("Subject: a", "b")))
    assert [part.media_type for part in parsed.parts] == ["message/rfc822"]


def test_a_signed_mail_is_read_and_keeps_its_signature() -> None:
    signature = file(b"sig", "application/pgp-signature")
    parsed = parse(multipart("signed", text("hello"), signature))
    assert (parsed.text, names(parsed)) == (
        "hello",
        [("signature.asc", "application/pgp-signature", b"sig")],
    )


def test_a_text_with_a_name_is_a_file_but_is_read_where_nothing_else_is() -> None:
    named = b'Content-Disposition: inline; filename="a.txt"\r\n' + text("named")
    assert parse(multipart("mixed", text("said"), named)).text == "said"
    alone = parse(multipart("mixed", named))
    assert (alone.text, names(alone)) == ("named", [("a.txt", "text/plain", b"named")])
    attached = b"Content-Disposition: attachment\r\n" + text("log")
    assert parse(multipart("mixed", attached)).text == ""


INVITATION = (
    "BEGIN:VCALENDAR\r\nMETHOD:REQUEST\r\nBEGIN:VEVENT\r\nSUMMARY:Printer\\, again\r\n"
    "DTSTART;TZID=Asia/Shanghai:20261102T101500\r\nDTEND;TZID=Asia/Shanghai:20261102T111500\r\n"
    "LOCATION:Room\r\n  3\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
)


def test_an_invitation_is_a_line_where_nothing_else_is_said() -> None:
    parsed = parse(text(INVITATION, "calendar"))
    assert parsed.text == "Printer, again · 2026-11-02 10:15 – 11:15 Asia/Shanghai · Room 3"
    assert [part.name for part in parsed.parts] == ["invitation.ics"]
    both = parse(multipart("alternative", text("Please come"), text(INVITATION, "calendar")))
    assert (both.text, len(both.parts)) == ("Please come", 1)


def test_a_uuencoded_file_in_a_text_is_a_file() -> None:
    line = binascii.b2a_uu(b"content")
    raw = b"\r\nbefore\r\nbegin 644 a.bin\r\n" + line + b"`\r\nend\r\nafter\r\nbegin 644 x\r\nno"
    parsed = parse(raw)
    assert parsed.text == "before\nafter\nbegin 644 x\nno"
    assert [(part.name, part.content) for part in parsed.parts] == [("a.bin", b"content")]


@pytest.mark.parametrize(
    "body",
    [
        b"--x\r\nContent-Type: text/plain\r\n\r\nwords\r\n",  # no end
        b"--x--\r\n--x\r\n\r\nwords\r\n--x--",
        b"--other\r\nContent-Type: text/plain\r\n\r\nwords\r\n--other--",
        b"words",
        b"--x\r\nContent-Type: multipart/mixed; boundary=y\r\n\r\n--y\r\n\r\nwords\r\n--x--\r\n",
        b"--x\n\nwords\n--x--\n",
        b"--x \t\r\n\r\nwords\r\n--x--",
    ],
)
def test_a_broken_multipart_is_read(body: bytes) -> None:
    raw = b"Content-Type: multipart/mixed; boundary=x\r\n\r\n" + body
    assert parse(raw).text.strip() == "words"


def test_a_boundary_is_a_line_of_its_own() -> None:
    words = "a --b-mixed\r\nb--b-mixed--\r\n--b-mixed-2\r\nc"
    assert parse(multipart("mixed", text(words))).text == words.replace("\r\n", "\n")


@pytest.mark.parametrize(
    ("encoding", "body", "expected"),
    [
        ("base64", b"aGVsbG8", "hello"),
        ("base64", b"aGVs\r\nbG8=\r\n-- \r\n", "hello"),
        ("base64", b"aGVs!!!bG8=", "hello"),
        ("base64", b"aGVsbG8=IHdvcmxk", "hello world"),
        ("BASE64 ", b"aGVsbG8=", "hello"),
        ("quoted-printable", b"h=65llo=\r\n =ZZ", "hello =ZZ"),
        ("quoted-printable", b"hello   \r\nworld=", "hello\nworld"),
        ("8bit", b"hello", "hello"),
        ("unheard-of", b"hello", "hello"),
    ],
)
def test_transfer_encodings_are_undone_as_far_as_they_go(
    encoding: str, body: bytes, expected: str
) -> None:
    assert parse(mail(f"Content-Transfer-Encoding: {encoding}", body)).text == expected


def test_control_signs_are_not_in_the_text() -> None:
    assert parse(b"\r\na\0b\x1b[31mc\x0cd\r\ne\tf\x7f").text == "ab[31mc\nd\ne\tf"


def test_a_reply_has_folds() -> None:
    parsed = parse(b"\r\nYes.\r\n\r\nOn 2 Nov 2026, at 10:15, Li <l@x.y> wrote:\r\n> On?\r\n")
    assert [parsed.text[start:end] for start, end in parsed.folds] == [
        "On 2 Nov 2026, at 10:15, Li <l@x.y> wrote:\n> On?"
    ]


def samples() -> Iterator[bytes]:
    """Yield mails of the standard library's making, and some of ours."""
    message = EmailMessage()
    message["Subject"] = "打印机"
    message.set_content("文本\n")
    message.add_alternative("<p>文本</p>", subtype="html")
    message.add_attachment(PNG, maintype="image", subtype="png", filename="截图.png")
    yield message.as_bytes()
    yield multipart("mixed", text("a"), multipart("alternative", text("b"), text("c", "html")))
    yield multipart("mixed", text("a"), b"Content-Type: message/rfc822\r\n\r\n" + mail("A: b", "c"))
    yield multipart(
        "report",
        text("a"),
        b"Content-Type: message/delivery-status\r\n\r\nA: b\r\n\r\nC: d\r\nE: f\r\n",
        b"Content-Type: text/rfc822-headers\r\n\r\nSubject: x\r\n",
    )
    yield b"From x\nA: b\n c\n\nbody\n"


def shape(message: Message) -> Any:
    payload: Any = message.get_payload()
    if isinstance(payload, list):
        payload = [shape(one) for one in payload]
    return message.get_content_type(), list(message.raw_items()), payload


@pytest.mark.parametrize("raw", list(samples()))
def test_the_tree_is_the_one_of_the_standard_library(raw: bytes) -> None:
    assert shape(entities.read(raw)[0].message) == shape(message_from_bytes(raw))


# Names of files


@pytest.mark.parametrize(
    ("given", "kind", "expected"),
    [
        ("a.pdf", "application/pdf", "a.pdf"),
        ("../../etc/passwd", "text/plain", "passwd"),
        ("C:\\Users\\x\\a.doc", "application/msword", "a.doc"),
        ("a\0b\r\n.txt", "text/plain", "ab .txt"),
        ("txt\u202egpj.exe", "image/png", "txtgpj.exe"),
        ("con.txt", "text/plain", "_con.txt"),
        ("a<b>:c?.txt", "text/plain", "a_b_c_.txt"),
        ("", "image/png", "image.png"),
        ("...", "application/pdf", "attachment.pdf"),
        ("/", "application/x-unheard-of", "attachment.bin"),
        ("", "text/calendar", "invitation.ics"),
        (" .profile ", "text/plain", "profile"),
        ("x" * 300 + ".pdf", "application/pdf", "x" * 116 + ".pdf"),
        ("坏" * 100 + ".docx", "application/msword", "坏" * 78 + ".docx"),
        ("e\u0301.txt", "text/plain", "é.txt"),
    ],
)
def test_a_file_has_a_name_that_is_safe(given: str, kind: str, expected: str) -> None:
    assert filenames.safe_name(given, kind) == expected


# Outlook


def tnef_object(level: int, name: int, value: bytes) -> bytes:
    checksum = sum(value) & 0xFFFF
    return struct.pack("<BHHI", level, name, 6, len(value)) + value + struct.pack("<H", checksum)


def properties(*values: tuple[int, int, bytes]) -> bytes:
    found = struct.pack("<I", len(values))
    for kind, name, value in values:
        found += struct.pack("<HHII", kind, name, 1, len(value)) + value + b"\0" * (-len(value) % 4)
    return found


def winmail() -> bytes:
    return (
        b"\x78\x9f\x3e\x22\x01\x00"
        + tnef_object(1, 0x9007, struct.pack("<II", 936, 0))
        + tnef_object(1, 0x9003, properties((0x1E, 0x1000, "打印机坏了\0".encode("gbk"))))
        + tnef_object(2, 0x9002, b"\0" * 14)
        + tnef_object(2, 0x8010, "截图.png\0".encode("gbk"))
        + tnef_object(2, 0x800F, PNG + b"\0\0")
        + tnef_object(2, 0x9005, properties((0x1F, 0x3707, "长截图.png\0".encode("utf-16-le"))))
    )


def test_what_is_in_winmail_dat_comes_out() -> None:
    raw = file(winmail(), "application/ms-tnef; name=winmail.dat")
    parsed = parse(multipart("mixed", raw))
    assert parsed.text == "打印机坏了"
    assert names(parsed) == [("长截图.png", "image/png", PNG + b"\0\0")]
    with_text = parse(multipart("mixed", text("said"), raw))
    assert (with_text.text, len(with_text.parts)) == ("said", 1)


def test_a_broken_winmail_dat_stays_a_file() -> None:
    raw = file(winmail()[:40], "application/ms-tnef; name=winmail.dat")
    assert [part.name for part in parse(raw).parts] == ["winmail.dat"]


def test_compressed_rtf_is_read() -> None:
    # The example of [MS-OXRTFCP] section 4.1.1
    packed = bytes.fromhex(
        "2d0000002b0000004c5a4675f1c5c7a703000a00726370673132354232"
        "0af32068656c090020627705b06c647d0a800fa0"
    )
    rtf = tnef.decompressed(packed)
    assert rtf == b"{\\rtf1\\ansi\\ansicpg1252\\pard hello world}\r\n"
    assert tnef.rtf_text(rtf, "cp1252") == "hello world"
    chinese = rb"{\rtf1\ansicpg936{\fonttbl{\f0 X;}}a\par \'c4\'e3\u22909?{\*\x y}\~b\{}"
    assert tnef.rtf_text(chinese, "") == "a\n你好 b{"


@given(st.binary(max_size=200))
@settings(max_examples=200)
def test_any_bytes_after_the_signature_are_tnef_or_not(data: bytes) -> None:
    for content in (data, tnef.SIGNATURE + b"\0\0" + data, winmail()[: len(data)] + data):
        try:
            tnef.read(content)
        except tnef.NotTnef:
            continue
    tnef.rtf_text(tnef.decompressed(data[:8] + b"LZFu" + data[8:]), "cp1252")


# Limits


def nested(depth: int) -> bytes:
    heads = (
        f"Content-Type: multipart/mixed; boundary=b{level}\r\n\r\n--b{level}\r\n"
        for level in range(depth)
    )
    return "".join(heads).encode() + b"\r\nbottom\r\n"


def test_deep_nesting_is_kept_as_one_file() -> None:
    assert parse(nested(10)).text == "bottom"
    deep = parse(nested(10_000))
    assert deep.notes == {Note.TOO_DEEP}
    assert [b"bottom" in part.content for part in deep.parts] == [True]


def test_too_many_parts_are_noted() -> None:
    parsed = parse(multipart("mixed", *[file(b"x", "image/png")] * 1_200))
    assert parsed.notes == {Note.TOO_MANY_PARTS}
    assert len(parsed.parts) == entities.PARTS_LIMIT


def test_a_long_text_is_cut() -> None:
    parsed = parse(b"\r\n" + b"x" * (TEXT_LIMIT + 1))
    assert len(parsed.text) == TEXT_LIMIT
    assert parsed.notes == {Note.CUT}


def test_html_that_is_too_big_is_shown_as_text() -> None:
    parsed = parse(text("<div>" * 5_000 + "deep", "html"))
    assert (parsed.text, parsed.html) == ("deep", "")
    assert parsed.notes == {Note.HTML_TOO_BIG}


def test_a_long_header_is_cut() -> None:
    parsed = parse(b"Subject: " + b"x" * 100_000 + b"\r\n\r\nx")
    assert len(parsed.subject) == 998
    assert Note.BAD_HEADER in parsed.notes


HOSTILE = {
    "quotes in From": b"From: " + b'"' * 20_000 + b" <a@b>\r\n\r\nx",
    "addresses": b"To: " + b",\r\n ".join(b"u%d@x.y" % n for n in range(50_000)) + b"\r\n\r\nx",
    "empty parts": multipart("mixed", *[b""] * 100_000),
    "pieces": b"Content-Type: x/y; " + b";".join(b"name*%d=x" % n for n in range(20_000)),
    "divs": text("<div>" * 100_000, "html"),
    "multiparts": nested(10_000),
    "messages": b"Content-Type: message/rfc822\r\n\r\n" * 10_000,
    "same boundary": (
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
        + b"--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" * 10_000
    ),
    "fields": b"X: y\r\n" * 100_000,
    "no fields": b"a: b\r\n" + b"\xff: x\r\n" * 100_000,
    "encoded words": b"Subject: " + b"=?utf-8?q?a?= " * 100_000,
    "references": b"References: " + b"<a@b> " * 100_000,
    "blanks": b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" + b" " * 2_000_000,
    "paddings": b"Content-Transfer-Encoding: base64\r\n\r\n" + b"YQ==" * 300_000,
    "uu": b"\r\n" + b"begin 644 x\n" * 100_000,
    "uu files": b"\r\n" + b"begin 644 x\n#86)C\n`\nend\n" * 20_000,
    "boundaries": b"Content-Type: multipart/mixed; boundary=-\r\n\r\n" + b"---x\n" * 400_000,
    "quotes": b"\r\n" + b">\n" * 500_000,
    "statuses": b"Content-Type: message/delivery-status\r\n\r\n" + b"a: b\r\n\r\n" * 100_000,
    "zero bytes": b"\r\n" + b"\0" * 3_000_000,
    "undeclared": b"\r\n" + "测试".encode("gbk") * 300_000,
    "objects": b"Content-Type: application/ms-tnef\r\n\r\n\x78\x9f\x3e\x22\0\0"
    + b"\2\x02\x90\0\0\0\0\0\0\0\0" * 200_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_mails_are_read_in_little_time(name: str) -> None:
    began = time.process_time()
    parse(HOSTILE[name])
    assert time.process_time() - began < 2


PIECES = st.sampled_from(
    [b"\r\n", b"\n", b"\r\n\r\n", b"--b", b"--b--", b"Content-Type: ", b"multipart/mixed",
     b"text/html", b"; boundary=b", b"message/rfc822", b"message/delivery-status", b"text/calendar",
     b"; name=",
     b"; name*0*=", b"Content-Transfer-Encoding: ", b"base64", b"quoted-printable", b"x-uuencode",
     b"=?utf-8?b?", b"?=", b"From: ", b"<a@b.c>", b'"', b"Date: ", b"Mon, 2 Nov 2026 10:15 +0800",
     b"charset=", b"utf-7", b"utf-16", b"iso-2022-jp", b"hz", b"gb2312", b"\x1b$B", b"\xff\xfe",
     b"Content-Disposition: attachment", b"Message-ID: ", b"References: ", b"application/ms-tnef",
     b"\x78\x9f\x3e\x22", b"begin 644 a\n", b"#86)C\n", b"end\n", b"> ",
     b"On 1 Jan 2026 a@b.c wrote:"]
)  # fmt: skip


@given(st.lists(PIECES | st.binary(max_size=12), max_size=40).map(b"".join))
@settings(max_examples=400)
def test_any_bytes_are_a_mail(raw: bytes) -> None:
    parsed = parse(raw)
    for one in (parsed.subject, parsed.sender.name, parsed.text, parsed.html):
        one.encode()
    assert "\n" not in parsed.subject + parsed.sender.name + parsed.sender.address
    for part in parsed.parts:
        assert 0 < len(part.name) <= filenames.NAME_LIMIT
        assert not set(part.name) & set("/\\\0\r\n")
    for start, end in parsed.folds:
        assert 0 <= start < end <= len(parsed.text)
