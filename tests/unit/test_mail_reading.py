"""What a mail asks for, which tickets it mentions, and what is known of it as a contact."""

from datetime import UTC, datetime

import pytest

from contactd.mail.parsed import Bounce, Failed, Kind, Mailbox, Note, Read, Stored, Verdict
from contactd.mail.reading import Belongs, asked, contact_of
from contactd.tickets.contact import Contact, Undelivered
from contactd.tickets.numbers import mentioned, ticket_number

NOW = datetime(2026, 11, 22, tzinfo=UTC)
NUMBER = ticket_number(NOW.date(), 1)
FULL_WIDTH = {ord("0") + digit: ord("０") + digit for digit in range(10)}
RAW = Stored(sha256="a" * 64, size_bytes=3, media_type="message/rfc822", name="message.eml")


def contact(
    read: Read, belongs: Belongs | None = None, scanned: dict[str, str] | None = None
) -> Contact:
    return contact_of(
        read,
        external_id="mail-1",
        received_at=NOW,
        mailbox="support@desk.cn",
        belongs=belongs or Belongs(),
        scanned=scanned or {},
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("OK\n", "OK"),
        ("已解决\r\n\r\n-- \r\n张三\r\n财务部", "已解决"),
        ("take\nBest regards\nWang", "take"),
        ("到 4711", "到 4711"),
        (f"1 {NUMBER}", f"1 {NUMBER}"),
        ("没解决\n打印机还是卡纸", "没解决"),
        ("\n\n解决\n\n发自我的iPhone", "解决"),
        ("OK, but the printer is still broken", ""),
        ("OK\nbut the printer is still broken", ""),
        ("The printer is broken", ""),
        ("", ""),
        ("x" * 100_000, ""),
    ],
)
def test_a_reply_is_the_first_line_and_solved_stands_alone(text: str, line: str) -> None:
    assert asked(text, ()) == line


def test_what_is_quoted_asks_for_nothing() -> None:
    text = "> OK\n> 2\n打印机还是坏的"
    assert asked(text, [(0, 9)]) == ""
    assert asked("OK\n\n> 打印机坏了\n", [(4, 12)]) == "OK"


@pytest.mark.parametrize(
    ("subject", "numbers"),
    [
        (f"Re: [{NUMBER}] 打印机", [NUMBER]),
        (f"Re: [{NUMBER.translate(FULL_WIDTH)}] 全角", [NUMBER]),
        (f"Re: [{int(NUMBER) + 1}] the check digit is wrong", []),
        (f"order 9{NUMBER}", []),
        ("call 13800000001", []),
        (f"{NUMBER} {NUMBER}", [NUMBER]),
    ],
)
def test_a_subject_mentions_tickets_by_whole_numbers(subject: str, numbers: list[str]) -> None:
    assert list(mentioned(subject)) == numbers


def test_a_mail_is_a_contact_with_its_files() -> None:
    shot = Stored(
        sha256="b" * 64, size_bytes=9, media_type="image/png", name="屏幕.png",
        content_id="1@x", is_inline=True,
    )  # fmt: skip
    read = Read(
        raw=RAW, subject="打印机", sender=Mailbox(address="zhang@x.cn", name="张三"),
        message_id="<2@x.cn>", in_reply_to=("<1@x.cn>",), references=("<0@x.cn>", "<1@x.cn>"),
        text="坏了", html="<p>坏了</p>", stored=(shot,), notes=frozenset({Note.CUT}),
        verdict=Verdict(spf="pass", aligned=True, from_domain="x.cn"),
    )  # fmt: skip
    made = contact(read, Belongs(ticket=NUMBER, about="solved-1"))
    assert (made.from_value, made.from_name, made.to_value) == (
        "zhang@x.cn", "张三", "support@desk.cn",
    )  # fmt: skip
    assert [(file.kind, file.blob.name, file.content_id) for file in made.files] == [
        ("raw", "message.eml", ""), ("inline", "屏幕.png", "1@x"),
    ]  # fmt: skip
    assert made.mail is not None
    assert made.mail.references == ("<1@x.cn>", "<0@x.cn>"), "the nearest first, each once"
    assert (made.mail.proved, made.mail.about) == (NUMBER, "solved-1")
    assert made.mail.checks == {"spf": "pass", "aligned": "x.cn"}
    assert made.mail.notes == ("cut",)


@pytest.mark.parametrize(
    ("verdict", "forged"),
    [
        (Verdict(dmarc="fail"), True),
        (Verdict(dmarc="pass", spf="fail", aligned=True), False),
        (Verdict(spf="fail"), True),
        (Verdict(spf="softfail"), False),
        (Verdict(), False),
    ],
)
def test_a_mail_is_forged_if_its_domain_disowns_it(verdict: Verdict, forged: bool) -> None:
    made = contact(Read(raw=RAW, verdict=verdict))
    assert made.mail is not None
    assert made.mail.forged is forged


def test_a_machine_asks_for_nothing() -> None:
    made = contact(Read(raw=RAW, text="OK", kind=Kind.AUTO_REPLY))
    assert made.mail is not None
    assert made.mail.reply == ""


def test_a_bounce_names_who_was_not_reached_and_answers_the_mail_that_came_back() -> None:
    failed = Failed(address="zhang@x.cn", status="5.1.1")
    bounce = Bounce(recipients=(failed,), message_id="<ours@desk.cn>")
    made = contact(Read(raw=RAW, kind=Kind.BOUNCE, bounce=bounce, references=("<o@x.cn>",)))
    assert made.mail is not None
    assert made.mail.undelivered == (Undelivered(address="zhang@x.cn", status="5.1.1"),)
    assert made.mail.references == ("<ours@desk.cn>", "<o@x.cn>")
    quoted = contact(Read(raw=RAW, kind=Kind.PERSON, bounce=bounce))
    assert quoted.mail is not None
    assert quoted.mail.undelivered == (), "somebody writes about a bounce"


def test_spam_is_bulk_and_a_virus_is_named() -> None:
    made = contact(Read(raw=RAW, text="OK"), scanned={"spam": "spam", "virus": "Eicar"})
    assert made.mail is not None
    assert (made.mail.writer, made.mail.reply) == (Kind.LIST, "")
    assert made.mail.checks["virus"] == "Eicar"
    bounce = contact(Read(raw=RAW, kind=Kind.BOUNCE), scanned={"spam": "spam"})
    assert bounce.mail is not None
    assert bounce.mail.writer is Kind.BOUNCE


@pytest.mark.parametrize("message_id", ["<>", "<1>", "<a@b>", "<tab\t@x.cn>", "<Your-message>"])
def test_an_id_that_tells_no_mails_apart_is_none(message_id: str) -> None:
    made = contact(Read(raw=RAW, message_id=message_id, in_reply_to=(message_id, "<1@desk.cn>")))
    assert made.mail is not None
    assert (made.mail.message_id, made.mail.references) == ("", ("<1@desk.cn>",))
