"""The comparers of `make corpus`, on mails and sets made here: they notice what is wrong."""

import asyncio
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bench.corpus import (
    client,
    direct,
    flufl,
    generic,
    mime4j,
    php,
    replies,
    sisimai,
    spf_suite,
    wire,
    words,
    yaml,
)
from bench.corpus.__main__ import main, sets_below
from bench.corpus.marks import Case, Judged, Mark, Passage, Rate, is_met, judgement, share, tally
from contactd.errors import TemporaryFailure
from contactd.mail.parsed import Bounce, Failed, Kind, Mailbox, Note, Parsed, Part
from contactd.mail.spool import Envelope, Receipt

PNG = Part(name="a.png", media_type="image/png", content=b"\x89PNG\r\n")


def bounced(*failed: Failed, kind: Kind = Kind.BOUNCE) -> Parsed:
    return Parsed(kind=kind, bounce=Bounce(recipients=failed))


# marks


def test_a_wrong_difference_outweighs_a_near_one() -> None:
    assert judgement(["a"], ["b"]).mark is Mark.WRONG
    assert judgement([], ["b"]).mark is Mark.NEAR
    assert judgement([]).mark is Mark.OK


def test_a_rate_counts_the_cases_that_have_its_fact_and_mails_without_an_answer_against_it() -> (
    None
):
    judged = [
        Judged(name="1", judgement=judgement([], facts={"seen": True})),
        Judged(name="2", judgement=judgement(["x"], facts={"seen": False})),
        Judged(name="3", judgement=judgement([])),
        Judged(name="4", refused="554 no"),
        Judged(name="5", lost="never seen again"),
    ]

    assert share(Rate("seen", "seen", 0.5), judged) == (1, 4)
    assert share(Rate("ok", "ok", 0.5), judged) == (2, 5)
    assert share(Rate("seen", "seen"), judged) == (1, 2)
    assert tally(judged) == {"ok": 2, "near": 0, "wrong": 1, "refused": 1, "lost": 1}


def test_a_target_is_missed_below_it_and_when_nothing_was_judged() -> None:
    judged = [Judged(name=str(n), judgement=judgement(["x"] * (n == 0))) for n in range(4)]

    assert is_met(Rate("ok", "ok", 0.75), judged)
    assert not is_met(Rate("ok", "ok", 0.76), judged)
    assert not is_met(Rate("ok", "ok", 0.1), [])
    assert is_met(Rate("ok", "ok"), [])


# words


def test_line_ends_become_those_of_smtp_and_nothing_else_changes() -> None:
    assert words.as_sent(b"a\nb\r\nc\rd\r\r\ne\n\n\x00\xff. ") == (
        b"a\r\nb\r\nc\r\nd\r\ne\r\n\r\n\x00\xff. "
    )


def test_the_client_doubles_dots_and_changes_nothing_else() -> None:
    assert client.stuffed(b".a\r\n..b\r\nc.\r\n.") == b"..a\r\n...b\r\nc.\r\n..\r\n"
    assert client.stuffed(b"a\r\n") == b"a\r\n"


def test_texts_are_the_same_apart_from_blanks_and_blank_lines() -> None:
    assert words.fingerprint("a  b\r\n\r\n c\xa0\n") == words.fingerprint("a b\nc")
    assert words.fingerprint("ab") != words.fingerprint("a b")


# the way over SMTP


def test_all_that_was_sent_and_not_refused_has_to_be_spooled_as_it_was_and_parsed() -> None:
    whole = Passage(sent=3, refused=1, spooled=2, parsed=2)

    assert whole.is_complete
    for changed in ({"spooled": 1}, {"spooled": 3}, {"parsed": 1}, {"refused": 0}, {"changed": 1}):
        assert not replace(whole, **changed).is_complete


def test_a_mail_in_the_spool_is_known_by_its_recipient() -> None:
    envelope = Envelope(
        received_at=datetime(2026, 9, 1, tzinfo=UTC),
        peer="127.0.0.1",
        helo="x",
        reverse_path="",
        recipients=(wire.recipient_of(4711),),
    )
    receipt = Receipt(id="x-0", path=Path("x"), offset=0, length=0, envelope=envelope, digest="")

    assert wire.number_of(receipt) == 4711


@pytest.mark.parametrize(
    ("headers", "path"),
    [
        (b"Return-Path: <>\nFrom: a@example.com\n", ""),
        (b"Return-Path: <A@example.com>\nFrom: b@example.com\n", "A@example.com"),
        (b"From: Ann <a@example.com>\n", "a@example.com"),
        ("From: <ä@example.com>\n".encode(), wire.SENDER),
        (b"Subject: x\n", wire.SENDER),
    ],
)
def test_a_mail_is_sent_by_whom_it_says(headers: bytes, path: str) -> None:
    assert wire.reverse_path(headers + b"\n") == path


# mime4j


def leaf(content: bytes, media_type: str = "text/plain", charset: str = "") -> mime4j.Leaf:
    return mime4j.Leaf(name="1.txt", content=content, media_type=media_type, charset=charset)


def test_a_leaf_may_be_in_the_text_or_in_a_file() -> None:
    mail = Parsed(text="before\n\nGrüße\nB\n\nafter", parts=(PNG,))
    leaves = [leaf("Grüße\r\nB".encode("latin-1"), charset="iso-8859-1"),
              leaf(PNG.content, "image/png")]  # fmt: skip

    assert mime4j.compare(mail, leaves, None).mark is Mark.OK


@pytest.mark.parametrize(
    "content", [b"no such line", b"befor", b"\x89PNG\r\n?"], ids=["text", "half a line", "file"]
)
def test_a_leaf_that_is_not_there_to_the_letter_is_missed(content: bytes) -> None:
    found = mime4j.compare(Parsed(text="before", parts=(PNG,)), [leaf(content)], None)

    assert found.mark is Mark.WRONG
    assert not found.facts["leaves"]


def test_one_file_answers_for_one_leaf() -> None:
    twice = [leaf(PNG.content, "image/png")] * 2

    assert mime4j.compare(Parsed(parts=(PNG,)), twice, None).mark is Mark.WRONG
    assert mime4j.compare(Parsed(parts=(PNG, PNG)), twice, None).mark is Mark.OK


def test_a_file_beyond_the_leaves_and_another_subject_are_near() -> None:
    assert mime4j.compare(Parsed(parts=(PNG,)), [], None).mark is Mark.NEAR
    assert mime4j.compare(Parsed(subject="a"), [], "b").mark is Mark.NEAR
    assert mime4j.compare(Parsed(subject="b"), [], "b").mark is Mark.OK


def test_a_leaf_of_a_mail_in_the_mail_is_looked_for_in_there() -> None:
    inner = Part(
        name="mail.eml",
        media_type="message/rfc822",
        content=(
            b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\ninside\r\n"
            b"--b\r\nContent-Type: image/png\r\n\r\nPNG\r\n--b--\r\n"
        ),
    )
    leaves = [leaf(b"inside"), leaf(b"PNG", "image/png")]

    assert mime4j.compare(Parsed(parts=(inner,)), leaves, None).reasons == ()
    assert mime4j.compare(Parsed(parts=(inner,)), leaves[:1], None).mark is Mark.NEAR


def test_a_leaf_with_other_lines_in_it_is_near() -> None:
    leaves = [leaf(b"one\ntwo\n")]

    found = mime4j.compare(Parsed(text="one\nbetween\ntwo"), leaves, None)

    assert found.mark is Mark.NEAR
    assert found.facts["leaves"]
    assert mime4j.compare(Parsed(text="two\none"), leaves, None).mark is Mark.WRONG


def test_rich_text_is_compared_without_its_marks() -> None:
    leaves = [leaf(b"<bold>one</bold> and\n<smaller>two</smaller>", "text/richtext")]

    assert mime4j.compare(Parsed(text="one and two"), leaves, None).mark is Mark.OK
    assert mime4j.compare(Parsed(text="one or two"), leaves, None).mark is Mark.WRONG


def test_a_uuencoded_file_in_a_leaf_may_be_shown_as_a_file() -> None:
    encoded = b"begin 644 a.txt\n" + binascii.b2a_uu(b"hello") + b"`\nend\n"
    leaves = [leaf(b"before\n" + encoded + b"after\n")]
    file = Part(name="a.txt", media_type="text/plain", content=b"hello")

    assert mime4j.compare(Parsed(text="before\nafter", parts=(file,)), leaves, None).mark is Mark.OK
    assert mime4j.compare(Parsed(text=leaves[0].content.decode()), leaves, None).mark is Mark.OK
    assert mime4j.compare(Parsed(text="before", parts=(file,)), leaves, None).mark is Mark.WRONG
    assert mime4j.compare(Parsed(text="before\nafter"), leaves, None).mark is Mark.WRONG


def test_html_counts_once_it_is_safe() -> None:
    page = b"<p>one</p><script>evil()</script>"
    leaves = [leaf(page, "text/html")]

    assert mime4j.compare(Parsed(text="x", html="<p>one</p>"), leaves, None).mark is Mark.OK
    assert mime4j.compare(Parsed(text="x", html="<p>two</p>"), leaves, None).mark is Mark.WRONG


def test_a_leaf_that_shows_nothing_is_not_missed() -> None:
    leaves = [leaf(b"<script>evil()</script>", "text/html"), leaf(b" \r\n")]

    assert mime4j.compare(Parsed(text="x"), leaves, None).mark is Mark.OK


def test_the_leaves_are_read_out_of_the_expected_structure(tmp_path: Path) -> None:
    folder = tmp_path / "mime4j" / "testmsgs"
    folder.mkdir(parents=True)
    (folder / "a.msg").write_bytes(b"Subject: one\n\nhello\n")
    (folder / "a_decoded_1.txt").write_bytes(b"hello\n")
    (folder / "a_decoded.xml").write_text(
        "<message><header><field>\r\nSubject: one</field></header>"
        '<text-body name="a_decoded_1.txt"/></message>',
        encoding="utf-8",
    )

    (case,) = mime4j.read(folder.parent).cases

    assert case.name == "testmsgs/a.msg"
    assert case.judge(Parsed(subject="one", text="hello")).mark is Mark.OK
    assert case.judge(Parsed(subject="two", text="hello")).mark is Mark.NEAR
    assert case.judge(Parsed(subject="one", text="hullo")).mark is Mark.WRONG


# php-mime-mail-parser

PHP: Mapping[str, Any] = {
    "file": "m1",
    "subject": "Über",
    "from": "Ann <Ann@example.com>",
    "text": ["COUNT", 1, "hello"],
    "html": ["COUNT", 1, "<b>hello</b>"],
    "attachments": [
        {"filename": "a.png", "mime": "image/png", "size": 6, "contains": "PNG", "count": 1}
    ],
}
PHP_MAIL = Parsed(
    subject="Über",
    sender=Mailbox(address="ann@example.com", name="Ann"),
    text="hello you",
    html="<b>hello</b>",
    parts=(PNG,),
)


def test_a_mail_that_is_all_as_php_says_is_right() -> None:
    assert php.compare(PHP_MAIL, PHP).reasons == ()


@pytest.mark.parametrize(
    "changed",
    [
        {"subject": "Uber"},
        {"sender": Mailbox(address="bob@example.com", name="Ann")},
        {"sender": Mailbox(address="ann@example.com", name="Anne")},
        {"text": "hello hello"},
        {"html": ""},
        {"html": "<p>"},
        {"html": "<b>hullo</b>"},
        {"parts": ()},
        {"parts": (replace(PNG, name="b.png"),)},
        {"parts": (replace(PNG, media_type="image/gif"),)},
        {"parts": (replace(PNG, content=b"\x89PNG"),)},
        {"parts": (replace(PNG, content=b"\x89PGN\r\n"),)},
    ],
    ids=lambda changed: "-".join(changed),
)
def test_each_difference_from_what_php_says_is_noticed(changed: Any) -> None:
    assert php.compare(replace(PHP_MAIL, **changed), PHP).mark is Mark.WRONG


def test_a_file_without_a_name_may_have_any() -> None:
    nameless = {**PHP, "attachments": [{**PHP["attachments"][0], "filename": "noname1"}]}

    assert php.compare(PHP_MAIL, nameless).mark is Mark.OK


def test_a_page_that_shows_nothing_may_be_left_out() -> None:
    blank = {**PHP, "html": ["COUNT", 1, "<div><br></div>"]}

    assert php.compare(replace(PHP_MAIL, html=""), blank).mark is Mark.OK


def test_a_page_where_there_is_none_is_wrong() -> None:
    assert php.compare(PHP_MAIL, {**PHP, "html": ["MATCH", ""]}).mark is Mark.WRONG


def test_the_whole_text_may_be_demanded() -> None:
    whole = {**PHP, "text": ["MATCH", "hello you\n"]}

    assert php.compare(PHP_MAIL, whole).mark is Mark.OK
    assert php.compare(replace(PHP_MAIL, text="hello"), whole).mark is Mark.WRONG


# replies


def reply(text: str, *folded: str) -> Parsed:
    folds = sorted((text.index(one), text.index(one) + len(one)) for one in folded)
    return Parsed(text=text, folds=tuple(folds))


def test_a_quote_that_is_folded_is_right_and_one_that_is_shown_near() -> None:
    text = "New\n\nOn Monday Ann wrote:\n> old\n"

    folded = replies.compare(reply(text, "On Monday Ann wrote:\n> old\n"), text, "New\n")
    half = replies.compare(reply(text, "> old\n"), text, "New\n")

    assert folded.mark is Mark.OK
    assert half.mark is Mark.NEAR
    assert half.facts["kept"]


def test_folding_new_text_is_wrong() -> None:
    text = "New\nmore\n> old\n"

    found = replies.compare(reply(text, "more\n> old\n"), text, "New\nmore\n")

    assert found.mark is Mark.WRONG
    assert not found.facts["kept"]


def test_folding_a_quote_that_is_answered_below_is_near() -> None:
    text = "> Really?\nYes\n"

    found = replies.compare(reply(text, "> Really?\n"), text, text)

    assert found.mark is Mark.NEAR
    assert found.facts["kept"]


def test_new_text_that_is_folded_is_not_made_up_for_by_a_line_before_it() -> None:
    text = "Yes\nNew\nYes\n"
    folded = Parsed(text=text, folds=((8, 12),))

    assert replies.compare(folded, text, "New\nYes\n").mark is Mark.WRONG


def test_cutting_a_quote_out_of_the_text_is_wrong() -> None:
    assert replies.compare(reply("New\n"), "New\n> old\n", "New\n").mark is Mark.WRONG


def test_a_signature_may_be_shown() -> None:
    text = "New\n--\nAnn\nwww.example.com\n"

    assert replies.compare(reply(text), text, "New\n").mark is Mark.OK


# flufl.bounce

FLUFL = {"failed": ["A@example.com"], "kind": "permanent"}


@pytest.mark.parametrize(
    ("mail", "mark"),
    [
        (bounced(Failed(address="a@example.com")), Mark.OK),
        (bounced(Failed(address="a@example.com", permanent=False)), Mark.NEAR),
        (bounced(Failed(address="a@example.com"), kind=Kind.AUTO), Mark.NEAR),
        (bounced(Failed(address="b@example.com")), Mark.WRONG),
        (bounced(Failed(address="a@example.com"), Failed(address="b@example.com")), Mark.WRONG),
        (bounced(), Mark.WRONG),
        (Parsed(), Mark.WRONG),
    ],
)
def test_a_bounce_is_right_with_address_permanence_and_kind(mail: Parsed, mark: Mark) -> None:
    assert flufl.compare(mail, FLUFL).mark is mark


# sisimai

DSN = [{"dsn": "5.1.1", "reason": "userunknown"}]
RAW = (
    b"From: m@x.org\r\nTo: me@x.org\r\n\r\nFinal-Recipient: rfc822; Cat@example.com\r\n"
    b"Original-Recipient: rfc822; cat2@example.com\r\n\r\nTo: Cat <cat3@example.com>\r\n"
)


@pytest.mark.parametrize(
    ("mail", "mark"),
    [
        (bounced(Failed(address="cat@example.com", status="5.1.1")), Mark.OK),
        (bounced(Failed(address="cat3@example.com", status="5.2.2")), Mark.OK),
        (bounced(Failed(address="me@x.org", status="5.1.1")), Mark.WRONG),
        (bounced(Failed(address="cat@example.com", status="4.2.2")), Mark.NEAR),
        (bounced(Failed(address="cat@example.com")), Mark.NEAR),
        (bounced(Failed(address="dog@example.com", status="5.1.1")), Mark.WRONG),
        (bounced(Failed(address="", status="5.1.1")), Mark.WRONG),
        (
            bounced(
                Failed(address="cat@example.com", status="5.1.1"),
                Failed(address="cat2@example.com", status="5.1.1"),
            ),
            Mark.WRONG,
        ),
        (bounced(Failed(address="cat@example.com", status="5.1.1"), kind=Kind.AUTO), Mark.NEAR),
        (bounced(Failed(address="cat@example.com", status="5.1.1"), kind=Kind.PERSON), Mark.WRONG),
    ],
)
def test_a_failed_recipient_is_right_with_a_named_address_and_class(
    mail: Parsed, mark: Mark
) -> None:
    assert sisimai.compare(mail, DSN, RAW).mark is mark


def test_statuses_are_compared_to_the_letter_apart() -> None:
    found = sisimai.compare(bounced(Failed(address="cat@example.com", status="5.2.2")), DSN, RAW)

    assert found.facts["status"]
    assert not found.facts["exact_status"]


def test_without_fields_of_machines_the_bounces_own_addresses_are_no_recipients() -> None:
    raw = b"From: m@x.org\r\nTo: me@x.org\r\n\r\ncat@example.com failed\r\n"
    right = bounced(Failed(address="cat@example.com", status="5.1.1"))

    assert sisimai.compare(right, DSN, raw).mark is Mark.OK
    for address in ("me@x.org", "m@x.org", ""):
        wrong = bounced(Failed(address=address, status="5.1.1"))
        assert sisimai.compare(wrong, DSN, raw).mark is Mark.WRONG


@pytest.mark.parametrize(
    ("reason", "kind", "mark"),
    [
        ("vacation", Kind.AUTO_REPLY, Mark.OK),
        ("vacation", Kind.BOUNCE, Mark.NEAR),
        ("vacation", Kind.PERSON, Mark.WRONG),
        ("feedback", Kind.REPORT, Mark.OK),
        ("feedback", Kind.AUTO, Mark.NEAR),
    ],
)
def test_vacation_notes_and_feedback_have_kinds_of_their_own(
    reason: str, kind: Kind, mark: Mark
) -> None:
    assert sisimai.compare(Parsed(kind=kind), [{"dsn": "", "reason": reason}], b"").mark is mark


def test_a_mail_that_is_no_bounce_must_not_become_one() -> None:
    assert sisimai.compare_other(Parsed(kind=Kind.BOUNCE)).mark is Mark.WRONG
    assert sisimai.compare_other(Parsed(kind=Kind.PERSON)).mark is Mark.OK


# generic


def test_any_folder_of_mails_is_compared_with_what_stands_beside_them(tmp_path: Path) -> None:
    (tmp_path / "a.eml").write_bytes(b"x")
    (tmp_path / "b.eml").write_bytes(b"x")
    expected = {
        "subject": "s",
        "from": "Ann <ann@example.com>",
        "text": "hello",
        "attachments": [{"filename": "a.png", "sha256": words.digest(PNG.content)}],
    }
    (tmp_path / "a.json").write_text(json.dumps(expected), encoding="utf-8")
    right = Parsed(
        subject="s", sender=Mailbox(address="ann@example.com"), text="hello", parts=(PNG,)
    )

    stated, unstated = generic.read(tmp_path).cases

    assert stated.judge(right).mark is Mark.OK
    for changed in (
        replace(right, subject="t"),
        replace(right, sender=Mailbox(address="bob@example.com")),
        replace(right, text="hullo"),
        replace(right, parts=()),
        replace(right, parts=(PNG, replace(PNG, content=b""))),
        replace(right, parts=(replace(PNG, name="b.png"),)),
    ):
        assert stated.judge(changed).mark is Mark.WRONG
    assert unstated.judge(Parsed()).mark is Mark.OK
    assert unstated.judge(Parsed(notes=frozenset({Note.UNREADABLE}))).mark is Mark.NEAR


# SPF

SUITE = r"""
# a comment
---
description: one
tests:
  first:
    spec: [4.3/1, 4.4]
    description: >-
      folded over
      two lines
    helo: mail.example.net   # said by the client
    host: 1.2.3.5
    mailfrom: ""
    result: [pass, neutral]
zonedata:
  foo:bar.example.net:
    - SPF: "v=spf1 \x80a:example.net -all"
    - MX: [0, ""]
    - TIMEOUT
  own.example.net:
  - SPF: 'it''s'
  - TXT: NONE
  alias.example.net:
    - CNAME: real.example.net.
  real.example.net:
    - A: 192.0.2.1
    - A: 192.0.2.2
  circle.example.net:
    - CNAME: circle.example.net
---
tests:
  second: {}
""".replace("  second: {}", "  second:\n    result: none")


def test_the_suites_yaml_is_read() -> None:
    first, second = yaml.documents(SUITE)

    assert first["tests"]["first"] == {
        "spec": ["4.3/1", "4.4"],
        "description": "folded over two lines",
        "helo": "mail.example.net",
        "host": "1.2.3.5",
        "mailfrom": "",
        "result": ["pass", "neutral"],
    }
    assert first["zonedata"]["foo:bar.example.net"] == [
        {"SPF": "v=spf1 \x80a:example.net -all"},
        {"MX": ["0", ""]},
        "TIMEOUT",
    ]
    assert second == {"tests": {"second": {"result": "none"}}}


def test_a_zone_answers_for_texts_with_spf_records_unless_it_has_texts() -> None:
    stated = yaml.documents(SUITE)[0]["zonedata"]
    records = spf_suite.zone(stated)

    assert records.resolve("FOO:bar.example.net.", "TXT") == [b"v=spf1 \x80a:example.net -all"]
    assert records.resolve("foo:bar.example.net", "MX") == [b"0 "]
    assert records.resolve("own.example.net", "TXT") == ()
    assert records.resolve("nowhere.example.net", "A") == ()
    assert records.resolve("alias.example.net", "A") == [b"192.0.2.1", b"192.0.2.2"]
    assert records.resolve("circle.example.net", "A") == ()
    with pytest.raises(TemporaryFailure):
        records.resolve("foo:bar.example.net", "A")


def test_the_suite_is_asked_of_contactds_own_check(tmp_path: Path) -> None:
    (tmp_path / spf_suite.SUITE).write_text(
        """
tests:
  right: {from}
    host: 192.0.2.1
    result: pass
  wrong: {from}
    host: 192.0.2.3
    result: [pass, neutral]
zonedata:
  mail.example.net:
    - SPF: v=spf1 ip4:192.0.2.1 -all
""".replace("{from}", "\n    helo: mail.example.net\n    mailfrom: me@mail.example.net"),
        encoding="utf-8",
    )

    judged = {one.name: one.judgement for one in spf_suite.read(tmp_path).judged}

    assert judged["right"] == judgement([])
    assert judged["wrong"] == judgement(["fail, not neutral, pass"])


# the command


def test_sets_are_found_below_a_folder_by_what_they_are(tmp_path: Path) -> None:
    for name in ("a/mime4j", "b", "b/cur", "none"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "a" / "mime4j" / "SOURCE").touch()
    (tmp_path / "b" / "SOURCE").touch()
    (tmp_path / "b" / "cur" / "1").write_bytes(b"From: a@example.com\n\nhello\n")
    (tmp_path / "none" / "data.json").write_text("{}", encoding="utf-8")

    found = [(str(path.relative_to(tmp_path)), reader) for path, reader in sets_below(tmp_path)]

    assert found == [("a/mime4j", mime4j.SET), ("b", generic.SET)]


def test_loose_mails_are_a_set_and_what_is_no_mail_is_not(tmp_path: Path) -> None:
    (tmp_path / "a.eml").write_bytes(b"anything")
    (tmp_path / "b.msg").write_bytes(b"\xd0\xcf\x11\xe0 of Outlook")
    (tmp_path / "README").write_bytes(b"repo: somewhere\n")
    (tmp_path / "c.mbox").write_bytes(
        b"From a@x Thu Jan  1 00:00:00 2026\nSubject: 1\n\none\n\n"
        b"From b@x Thu Jan  1 00:00:00 2026\nSubject: 2\n\ntwo\n"
    )

    ((folder, reader),) = sets_below(tmp_path)

    assert folder == tmp_path
    assert [case.name for case in reader.read(folder).cases] == ["a.eml", "c.mbox#0", "c.mbox#1"]


@pytest.mark.parametrize(("subject", "code"), [("Grüße", 0), ("Grusse", 1)])
def test_a_missed_target_is_seen_in_the_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], subject: str, code: int
) -> None:
    folder = tmp_path / "php-mime-mail-parser"
    (folder / "mails").mkdir(parents=True)
    (folder / "mails" / "m1").write_bytes(
        b"From: Ann <ann@example.com>\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\n\nhello\n"
    )
    expected = {**PHP, "subject": subject, "html": ["MATCH", ""], "attachments": []}
    (folder / "expected.json").write_text(json.dumps([expected]), encoding="utf-8")

    assert main(["--direct", "-v", str(tmp_path)]) == code
    said = capsys.readouterr().out
    assert "1/1" in said if code == 0 else "MISSED" in said
    assert "'Grüße', not 'Grusse'" in said or code == 0


def test_a_lost_mail_is_seen_in_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Lossy:
        async def run(self, cases: Sequence[Case]) -> tuple[list[Judged], Passage]:
            return [Judged(name="a", judgement=judgement([]))], Passage(sent=2, spooled=1, parsed=1)

    (tmp_path / "a.eml").write_bytes(b"x")
    monkeypatch.setattr(direct, "Direct", Lossy)

    assert main(["--direct", str(tmp_path)]) == 1
    assert "NOT COMPLETE" in capsys.readouterr().out


def test_a_parser_that_raises_loses_the_mail(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(raw: bytes) -> Parsed:
        raise ValueError(raw.decode())

    monkeypatch.setattr(direct, "parse", broken)
    case = Case(name="x", raw=b"boom", judge=generic.definite)

    judged, _ = asyncio.run(direct.Direct().run([case]))

    assert judged == [Judged(name="x", lost="raised ValueError: boom")]
