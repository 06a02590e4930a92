"""Bounces as mail systems write them, and what looks like one."""

import random
import time
from email import message_from_bytes

import pytest

from contactd.mail import bounces, machines
from contactd.mail.parsed import Bounce, Failed, Kind

OURS = "help@desk.example"


def mail(*, headers: str, text: str) -> bytes:
    return f"{headers.strip()}\n\n{text}".encode()


def read(raw: bytes, reverse_path: str | None = None) -> Bounce | None:
    return bounces.read(message_from_bytes(raw), reverse_path=reverse_path)


def bounce(raw: bytes, reverse_path: str | None = None) -> Bounce:
    found = read(raw, reverse_path)
    assert found is not None
    return found


def failed(raw: bytes, reverse_path: str | None = None) -> list[tuple[str, str, bool]]:
    recipients = bounce(raw, reverse_path).recipients
    return [(one.address, one.status, one.permanent) for one in recipients]


def kind(raw: bytes, reverse_path: str | None = None) -> Kind:
    return machines.recognise(message_from_bytes(raw), reverse_path=reverse_path)


def dsn(status: str, *, text: str = "It did not work.") -> bytes:
    """A report of RFC 3464 with `status` as its delivery-status part."""
    return f"""\
From: MAILER-DAEMON@mx.example (Mail Delivery System)
To: {OURS}
Subject: Undelivered Mail Returned to Sender
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="B"

--B
Content-Type: text/plain

{text}

--B
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example
Arrival-Date: Mon, 2 Jun 2025 10:00:00 +0200

{status}

--B
Content-Type: text/rfc822-headers

From: {OURS}
To: ann@there.example
Subject: =?utf-8?q?Ticket_7=3A_gr=C3=BCn?=
Message-ID: <t7.1@desk.example>

--B--
""".encode()


def text_bounce(text: str, *, sender: str = "MAILER-DAEMON@mx.example") -> bytes:
    return mail(
        headers=f"From: {sender}\nTo: {OURS}\nSubject: failure notice\n"
        "Content-Type: text/plain; charset=utf-8",
        text=text,
    )


def test_a_report_names_the_recipient_the_status_and_the_mail_that_came_back() -> None:
    raw = dsn(
        "Final-Recipient: rfc822; ann@there.example\nAction: failed\nStatus: 5.1.1\n"
        "Diagnostic-Code: smtp; 550 5.1.1 <ann@there.example>:\n    Recipient address rejected"
    )
    assert read(raw) == Bounce(
        recipients=(
            Failed(
                address="ann@there.example",
                status="5.1.1",
                permanent=True,
                diagnostic="550 5.1.1 <ann@there.example>: Recipient address rejected",
            ),
        ),
        message_id="<t7.1@desk.example>",
        subject="Ticket 7: grün",
    )
    assert kind(raw) is Kind.BOUNCE


def test_a_delay_is_a_bounce_that_is_not_permanent() -> None:
    raw = dsn("Final-Recipient: rfc822; ann@there.example\nAction: delayed\nStatus: 4.4.1")
    assert failed(raw) == [("ann@there.example", "4.4.1", False)]
    assert kind(raw) is Kind.BOUNCE


@pytest.mark.parametrize("action", ["delivered", "relayed", "expanded", "Delivered (to mailbox)"])
def test_a_report_of_success_is_a_receipt(action: str) -> None:
    raw = dsn(f"Final-Recipient: rfc822; ann@there.example\nAction: {action}\nStatus: 2.1.5")
    assert read(raw) is None
    assert kind(raw) is Kind.RECEIPT


def test_of_several_recipients_only_those_that_failed_are_named() -> None:
    raw = dsn(
        "Final-Recipient: rfc822; ann@there.example\nAction: delivered\nStatus: 2.0.0\n\n"
        "Final-Recipient: rfc822; bob@there.example\nAction: failed\nStatus: 5.2.2\n\n"
        "Final-Recipient: rfc822; cyd@there.example\nAction: failed\nStatus: 4.4.7"
    )
    assert failed(raw) == [
        ("bob@there.example", "5.2.2", True),
        ("cyd@there.example", "4.4.7", True),
    ]


def test_the_address_that_was_written_to_counts_not_the_one_behind_it() -> None:
    raw = dsn(
        "Original-Recipient: rfc822;ann@there.example\n"
        "Final-Recipient: rfc822; ann@inside.there.example\nAction: failed\nStatus: 5.1.1"
    )
    assert failed(raw) == [("ann@there.example", "5.1.1", True)]


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ("Status: 5.0.0\nDiagnostic-Code: smtp; 550 5.2.2 full", "5.2.2"),
        (
            "Status: 5.0.0 (permanent failure)\nDiagnostic-Code: smtp; 550 5.1.0 x '5.7.1 no'",
            "5.7.1",
        ),
        ("Status: 5.1.1\nDiagnostic-Code: smtp; 552 5.2.2 Over quota", "5.2.2"),
        ("Status: 4.4.7\nDiagnostic-Code: smtp; 450 4.7.1 Access denied", "4.7.1"),
        ("Status: 5.5.0\nDiagnostic-Code: smtp; 554 no", "5.5.0"),
        ("Status: 5.5.0\nDiagnostic-Code: smtp; 250 2.1.5 ok, 554 no", "5.5.0"),
        ("Diagnostic-Code: smtp; 550 User unknown", "5.1.1"),
        ("Diagnostic-Code: smtp; 552 mailbox full", "5.2.2"),
        ("Diagnostic-Code: smtp; 550 something", "5.0.0"),
        ("Status: 5.0.0\nDiagnostic-Code: smtp; 550 host 192.0.5.1.1 said 10.5.1.1.7", "5.0.0"),
    ],
)
def test_the_most_telling_status_is_taken(said: str, status: str) -> None:
    raw = dsn(f"Final-Recipient: rfc822; ann@there.example\nAction: failed\n{said}")
    assert failed(raw) == [("ann@there.example", status, True)]


def test_blank_lines_inside_a_group_and_odd_orders_do_not_split_it() -> None:
    raw = dsn(
        "Action: failed\nStatus: 5.1.1\n\nFinal-Recipient: RFC822;<ann@there.example>\n\n"
        "Diagnostic-Code: x\n\n"
        "Action: failed\nStatus: 5.2.1\nFinal-Recipient: bob@there.example"
    )
    assert failed(raw) == [
        ("ann@there.example", "5.1.1", True),
        ("bob@there.example", "5.2.1", True),
    ]


def test_a_report_without_an_address_takes_it_from_the_text() -> None:
    raw = dsn(
        "Final-Recipient: x-local; ann\nAction: failed\nStatus: 5.1.1",
        text="The following address failed:\n\n  ann@there.example",
    )
    assert failed(raw) == [("ann@there.example", "5.1.1", True)]


def test_qmail_names_the_recipient_and_quotes_the_mail() -> None:
    raw = text_bounce(
        "Hi. This is the qmail-send program at mx.example.\n"
        "I'm afraid I wasn't able to deliver your message to the following addresses.\n"
        "This is a permanent error; I've given up. Sorry it didn't work out.\n\n"
        "<ann@there.example>:\n192.0.2.1 does not like recipient.\n"
        "Remote host said: 550 5.1.1 no such user\nGiving up on 192.0.2.1.\n\n"
        "--- Below this line is a copy of the message.\n\n"
        "Return-Path: <help@desk.example>\nMessage-ID: <t8@desk.example>\n"
        "Subject: Ticket 8\nTo: bob@there.example\n\n550 5.2.2 bob@there.example\n"
    )
    assert failed(raw) == [("ann@there.example", "5.1.1", True)]
    found = bounce(raw)
    assert (found.message_id, found.subject) == ("<t8@desk.example>", "Ticket 8")
    assert found.recipients[0].diagnostic.startswith("<ann@there.example>: 192.0.2.1 does not")


def test_exim_names_several_each_with_its_own_reply() -> None:
    raw = text_bounce(
        "This message was created automatically by mail delivery software.\n\n"
        "A message that you sent could not be delivered to one or more of its\n"
        "recipients. This is a permanent error. The following address(es) failed:\n\n"
        "  ann@there.example\n"
        "    SMTP error from remote mail server after RCPT TO:<ann@there.example>:"
        "\n    host mx.there.example [192.0.2.9]: 550 5.1.1 User unknown\n"
        "  bob@there.example\n    mailbox is full\n"
        "  cyd@there.example\n    retry timeout exceeded\n\n"
        "------ This is a copy of the message, including all the headers. ------\n\n"
        "Return-path: <help@desk.example>\nFrom: help@desk.example\n"
        "To: dan@there.example\nMessage-ID: <t9@desk.example>\n"
    )
    assert failed(raw) == [
        ("ann@there.example", "5.1.1", True),
        ("bob@there.example", "5.2.2", True),
        ("cyd@there.example", "4.4.7", True),
    ]


def test_in_a_transcript_only_the_refused_recipient_failed() -> None:
    raw = text_bounce(
        "   ----- Transcript of session follows -----\n... while talking to mx.there.example.:\n"
        ">>> MAIL FROM:<help@desk.example>\n<<< 250 ok\n"
        ">>> RCPT To:<ann@there.example>\n<<< 250 ok\n"
        ">>> RCPT To:<bob@there.example>\n<<< 550 5.1.1 User unknown\n"
    )
    assert failed(raw) == [("bob@there.example", "5.1.1", True)]


def test_a_bounce_that_wraps_another_names_the_inner_ones_recipient() -> None:
    inner = dsn(
        "Final-Recipient: rfc822; ann@there.example\nAction: failed\nStatus: 5.1.1"
    ).decode()
    raw = mail(
        headers=f"From: postmaster@relay.example\nTo: {OURS}\n"
        "Subject: Delivery Status Notification (Failure)\n"
        'Content-Type: multipart/mixed; boundary="OUTER"',
        text=f"--OUTER\nContent-Type: message/rfc822\n\n{inner}\n--OUTER--\n",
    )
    assert failed(raw) == [("ann@there.example", "5.1.1", True)]
    assert bounce(raw).message_id == "<t7.1@desk.example>"


def test_the_sender_and_whom_to_ask_are_not_blamed() -> None:
    raw = text_bounce(
        f"Your message could not be delivered.\nFor assistance contact support@mx.example\n"
        f"The mail from {OURS} failed:\n\nann@there.example\n    550 unknown user\n\n"
        "postmaster@mx.example\n"
    )
    assert [address for address, _, _ in failed(raw)] == ["ann@there.example"]


def test_the_sender_is_not_blamed_for_being_refused() -> None:
    raw = text_bounce(
        "Delivery to the following recipients failed:\n\n"
        f"<{OURS}>: your server is on a list\n<ann@there.example>: 550 5.7.1 sender refused\n"
    )
    assert [address for address, _, _ in failed(raw)] == ["ann@there.example"]


def test_whom_to_ask_is_not_taken_for_want_of_another() -> None:
    raw = text_bounce(
        "Your message could not be delivered. Please contact support@mx.example.\n\n"
        "--- Original message follows.\n\nReceived: from x\nSubject: x\nTo: ann@there.example\n"
    )
    assert [address for address, _, _ in failed(raw)] == ["ann@there.example"]


def test_the_mail_that_came_back_is_known_from_elsewhere_too() -> None:
    head = text_bounce("{}Delivery failed:\n\n<ann@there.example>: 550 unknown user\n").decode()
    shown = "  Message-Id: <t9@desk.example>\n  Subject: Ticket 9\n\n"
    found = bounce(head.format(shown).encode())
    assert (found.message_id, found.subject) == ("<t9@desk.example>", "Ticket 9")
    for sign in ("In-Reply-To: <t9@desk.example>", "References: <t8@x.example> <t9@desk.example>"):
        found = bounce(f"{sign}\n{head.format('')}".encode())
        assert found.message_id == "<t9@desk.example>"
    assert bounce(head.format("").encode()).message_id == ""


def test_whose_mail_it_was_is_not_who_did_not_get_it() -> None:
    raw = text_bounce(
        "The mail from bot@else.example could not be delivered to:\n\n<ann@there.example>\n"
    )
    assert [address for address, _, _ in failed(raw)] == ["ann@there.example"]
    raw = text_bounce(
        "Your mail was not delivered.\n\nDate: today\nSize: 5\nParts: 1\nTo: ann@there.example\n"
        "Parts are counted as in the manual of bob@else.example\n"
    )
    assert [address for address, _, _ in failed(raw)] == ["ann@there.example"]


def test_a_report_that_names_nobody_is_a_bounce_all_the_same() -> None:
    raw = dsn("", text="配信できませんでした").replace(b"To: ann@there.example\n", b"")
    assert failed(raw) == []
    assert kind(raw) is Kind.BOUNCE
    raw = raw.split(b"--B\nContent-Type: message")[0] + b"--B--\n"
    assert kind(raw.replace("配信できませんでした".encode(), b"x")) is Kind.BOUNCE


def test_the_envelope_that_the_mail_had_names_the_recipient_last() -> None:
    raw = text_bounce(
        "Your message could not be delivered.\n\n--- Original message follows.\n\n"
        "Received: from x by y with ESMTP id 1\n\tfor <ann@there.example>; Mon, 2 Jun 2025\n"
        "Subject: x\nFrom: help@desk.example\n"
    )
    assert [address for address, _, _ in failed(raw)] == ["ann@there.example"]


def test_who_was_taken_failed_all_the_same_if_the_data_was_not() -> None:
    raw = text_bounce(
        "Transcript of session follows.\n\n In:  MAIL FROM:<help@desk.example>\n"
        " Out: 250 2.1.0 Ok\n In:  RCPT TO:<ann@there.example>\n Out: 250 2.1.5 Ok\n"
        " In:  DATA\n Out: 451 4.3.0 Error: queue file write error\n"
    )
    assert [(address, status) for address, status, _ in failed(raw)] == [
        ("ann@there.example", "4.3.0")
    ]


def test_a_report_may_show_the_mails_header_before_it_says_who_failed() -> None:
    raw = text_bounce(
        "This report relates to a message you sent with the following header fields:\n\n"
        "  Message-id: <t9@desk.example>\n  Date: Mon, 2 Jun 2025 10:00:00 +0200\n"
        "  From: help@desk.example\n  To: team@there.example\n  Subject: Ticket 9\n\n"
        "Your message cannot be delivered to the following recipients:\n\n"
        "  Recipient address: ann@there.example\n  Reason: Remote SMTP server rejected address\n"
    )
    assert [address for address, _, _ in failed(raw)] == ["ann@there.example"]
    raw = text_bounce(
        "Report:\n\nOriginal message ID was 7.\n"
        "It failed:\n\n<ann@there.example>: 550 unknown user\n"
    )
    assert [address for address, _, _ in failed(raw)] == ["ann@there.example"]


def test_a_reason_that_stands_above_the_address_counts() -> None:
    raw = text_bounce(
        "The disk quota is used up.\n\n\nIt was not delivered.\n\nann@there.example\n"
    )
    assert failed(raw) == [("ann@there.example", "5.2.2", True)]


def test_addresses_that_an_archive_shortened_are_none() -> None:
    raw = dsn("Final-Recipient: rfc822; ann...@there.example\nAction: failed\nStatus: 5.1.1")
    assert failed(raw)[0][0] == "ann@there.example"  # of the mail that came back
    odd = 'Final-Recipient: rfc822; "ann...."@there.example\nAction: failed\nStatus: 5.1.1'
    assert failed(dsn(odd))[0][0] == '"ann...."@there.example'
    odd = "Final-Recipient: rfc822; ann....@there.example\nAction: failed\nStatus: 5.1.1"
    assert failed(dsn(odd))[0][0] == "ann....@there.example"


def test_a_field_that_comes_twice_does_not_end_a_group() -> None:
    raw = dsn(
        "Final-Recipient: rfc822; ann@there.example\nRemote-MTA: dns; a\nRemote-MTA: dns; b\n"
        "Action: delayed\nStatus: 4.4.1"
    )
    assert failed(raw) == [("ann@there.example", "4.4.1", False)]


def test_who_wrote_to_himself_is_named_all_the_same() -> None:
    raw = text_bounce(
        f"The following addresses failed:\n\n<{OURS}>: 550 5.2.2 disk quota exceeded\n"
    )
    assert failed(raw) == [(OURS, "5.2.2", True)]


def test_headers_name_the_recipient_when_the_text_does_not() -> None:
    text = (
        "Your mail was not delivered.\n\n----- Unsent message follows -----\n{}Subject: x\n\nHello"
    )
    given = "Received: from here\nTo: ann@there.example\n"
    assert failed(text_bounce(text.format(given))) == [("ann@there.example", "5.0.0", True)]
    listed = given + "List-Id: <ours.desk.example>\n"
    assert failed(text_bounce(text.format(listed))) == []  # To is the list
    named = text_bounce("It could not be delivered.").replace(
        b"Subject", b"X-Failed-Recipients: ann@there.example, bob@there.example\nSubject"
    )
    assert [one.address for one in bounce(named).recipients] == [
        "ann@there.example", "bob@there.example",
    ]  # fmt: skip


def test_a_user_without_a_domain_is_of_the_reporting_system() -> None:
    raw = text_bounce("Your mail to the following recipients could not be delivered:\n\tann\n")
    assert [address for address, _, _ in failed(raw)] == ["ann@mx.example"]


def test_a_warning_in_words_is_not_permanent_until_it_is_given_up() -> None:
    warning = (
        "THIS IS A WARNING MESSAGE ONLY.\nYOU DO NOT NEED TO RESEND YOUR MESSAGE.\n"
        "Delivery to the following recipient has been delayed:\n\n  ann@there.example\n"
    )
    assert failed(text_bounce(warning)) == [("ann@there.example", "4.0.0", False)]
    assert failed(text_bounce(warning + "\nI'm not going to try again."))[0][2] is True


def test_chinese_bounces_are_read() -> None:
    page = (
        "<html><head><title>x</title><style>b@c.example {}</style></head><body>"
        "<p>抱歉，您的邮件被退回来了……</p><table><tr><td>原邮件信息：</td></tr>"
        "<tr><td>时间</td><td>2025-06-02</td></tr><tr><td>收件人</td></tr>"
        "<tr><td>ann@there.example</td></tr></table>"
        "<p>退信原因：收件人邮件地址（ann@there.example）不存在，邮件无法送达。</p>"
        "<p>host mx.there.example said: 550&nbsp;Mailbox not found</p></body></html>"
    )
    raw = (
        f"From: PostMaster@qq.com\nTo: {OURS}\nSubject: =?gb18030?B?z7XNs83L0MU=?=\n"
        "Content-Type: text/html; charset=gb18030\n\n"
    ).encode() + page.encode("gb18030")
    assert failed(raw) == [("ann@there.example", "5.1.1", True)]
    assert kind(raw) is Kind.BOUNCE
    plain = text_bounce(
        "您的邮件无法投递到以下收件人：\n\n收件人：ann@there.example\n"
        "退信原因：550 RP:RCL 对方邮箱已满，请稍后再试ann@there.example。\n",
        sender="postmaster@163.example",
    )
    assert failed(plain) == [("ann@there.example", "5.2.2", True)]


def test_bytes_in_a_japanese_charset_are_read() -> None:
    text = (
        "次のあて先へのメッセージはエラーのため送信できませんでした。\n\n"
        "<ann@there.example>: 550 user unknown\n"
    )
    raw = (
        f"From: postmaster@there.example\nTo: {OURS}\nSubject: Mail System Error - Returned Mail\n"
        "Content-Type: text/plain; charset=iso-2022-jp\n\n"
    ).encode() + text.encode("iso-2022-jp")
    assert failed(raw) == [("ann@there.example", "5.1.1", True)]


def test_exchange_is_not_mistaken_in_whom_the_mail_was_to() -> None:
    raw = mail(
        headers=f"From: System Administrator <postmaster@there.example>\nTo: {OURS}\n"
        "Subject: Undeliverable: Ticket 7",
        text="Your message\n\n  To:      team@there.example\n  Subject: Ticket 7\n\n"
        "did not reach the following recipient(s):\n\n"
        "ann@there.example on Mon, 2 Jun 2025 10:00:00 +0200\n"
        "    The recipient name is not recognized\n"
        "c=US;a= ;p=X;dda:SMTP=bob@there.example; on Mon, 2 Jun 2025\n"
        "    The recipient name is not recognized\n",
    )
    assert ("ann@there.example", "5.1.1", True) in failed(raw)
    assert "team@there.example" not in [address for address, _, _ in failed(raw)]
    other = b"\n".join(line for line in raw.split(b"\n") if b"ann@" not in line)
    assert failed(other) == [("bob@there.example", "5.1.1", True)]


def test_amazons_notices_are_read() -> None:
    notice = (
        r'{"Type": "Notification", "Message": "{\"notificationType\":\"%s\",\"bounce\":'
        r"{\"bounceType\":\"%s\",\"bouncedRecipients\":[{\"emailAddress\":\"ann@there.example\","
        r"\"status\":\"5.1.1\",\"diagnosticCode\":\"smtp; 550 5.1.1 no\"}]},\"mail\":"
        r"{\"messageId\":\"a-1\",\"x\":\"long!"
        "\n"
        r' line\"}}"}'
    )
    headers = f"From: no-reply@sns.amazonaws.com\nTo: {OURS}\nSubject: AWS Notification Message"
    raw = mail(headers=headers, text=notice % ("Bounce", "Permanent") + "\n\n--\nunsubscribe")
    assert failed(raw) == [("ann@there.example", "5.1.1", True)]
    assert bounce(raw).message_id == "a-1"
    assert failed(mail(headers=headers, text=notice % ("Bounce", "Transient")))[0][2] is False
    assert kind(mail(headers=headers, text=notice % ("Complaint", ""))) is Kind.REPORT
    assert kind(mail(headers=headers, text=notice % ("Delivery", ""))) is Kind.RECEIPT
    assert kind(mail(headers=headers, text='{"notificationType": [')) is Kind.AUTO
    shown = mail(
        headers=headers.replace("no-reply@sns.amazonaws.com", "dan@x"), text=notice % ("Bounce", "")
    )
    assert kind(shown) is Kind.PERSON


ASKING = [
    (
        "Undeliverable mail",
        "Hello,\nmy mail to ann@there.example came back: 550 5.1.1 user unknown",
    ),
    ("Mail delivery failed", "Since Monday I get this for ann@there.example: 550 User unknown"),
    ("退信", "您好，发给 ann@there.example 的邮件被退回：550 用户不存在"),
    ("help", "The following address failed:\n\n<ann@there.example>: 550 5.1.1 unknown user"),
    ("Fwd: Undelivered Mail Returned to Sender", "<ann@there.example>: 550 5.1.1 user unknown"),
    ("Delivery failed", "The parcel with the printer could not be delivered on Monday."),
    ("Fwd: Ticket 7 (delivery failed)", "<ann@there.example>: 550 5.1.1 user unknown"),
    ("Re: failure notice", "> <ann@there.example>:\n> 550 5.1.1 unknown user\nfixed now"),
]


@pytest.mark.parametrize(("subject", "text"), ASKING)
def test_a_person_who_writes_about_a_bounce_is_a_person(subject: str, text: str) -> None:
    raw = mail(headers=f"From: Dan <dan@there.example>\nTo: {OURS}\nSubject: {subject}", text=text)
    assert read(raw) is None
    assert kind(raw) is Kind.PERSON
    assert kind(raw, reverse_path="dan@there.example") is Kind.PERSON


def test_an_answer_in_a_thread_is_a_persons_whatever_its_words() -> None:
    headers = f"From: dan@there.example\nTo: {OURS}\nSubject: Undeliverable: Ticket 7"
    text = "The following address failed:\n\n<ann@there.example>: 550 5.1.1 unknown user"
    assert kind(mail(headers=headers, text=text)) is Kind.BOUNCE
    for sign in ("In-Reply-To: <1@x>", "References: <1@x>", "User-Agent: Mozilla Thunderbird"):
        assert kind(mail(headers=f"{headers}\n{sign}", text=text)) is Kind.PERSON


def test_a_person_who_attaches_a_bounce_is_a_person() -> None:
    inner = dsn(
        "Final-Recipient: rfc822; ann@there.example\nAction: failed\nStatus: 5.1.1"
    ).decode()
    raw = mail(
        headers=f"From: Dan <dan@there.example>\nTo: {OURS}\nSubject: What is this?\n"
        'Content-Type: multipart/mixed; boundary="OUTER"',
        text="--OUTER\nContent-Type: text/plain\n\nSee the attachment: not delivered.\n"
        f"--OUTER\nContent-Type: message/rfc822\n\n{inner}\n--OUTER--\n",
    )
    assert read(raw) is None
    assert kind(raw) is Kind.PERSON


def test_a_vacation_note_is_not_a_bounce_though_it_comes_from_nowhere() -> None:
    text = "I am away and could not be reached. Mail bob@there.example. 550 thanks\n"
    for subject in ("Automatic reply: Ticket 7", "Ticket 7"):
        raw = mail(
            headers=f"From: ann@there.example\nTo: {OURS}\nSubject: {subject}\n"
            "X-Auto-Response-Suppress: All",
            text=text if subject != "Ticket 7" else text.replace(" 550", ""),
        )
        assert read(raw, reverse_path="") is None
        assert kind(raw, reverse_path="") is Kind.AUTO_REPLY


def test_dovecot_refuses_with_a_disposition_notification() -> None:
    raw = f"""\
From: Mail Delivery Subsystem <admin@there.example>
To: {OURS}
Subject: Automatically rejected mail
Content-Type: multipart/report; report-type=disposition-notification; boundary="B"

--B
Content-Type: text/plain

Your message to <ann@there.example> was automatically rejected:
Quota exceeded
--B
Content-Type: message/disposition-notification

Final-Recipient: rfc822; ann@there.example
Disposition: automatic-action/MDN-sent-automatically; deleted
--B--
""".encode()
    assert failed(raw) == [("ann@there.example", "5.2.2", True)]
    assert kind(raw) is Kind.BOUNCE
    read_it = raw.replace(b"deleted", b"displayed").replace(b"rejected", b"shown")
    assert read(read_it) is None
    assert kind(read_it) is Kind.RECEIPT


def test_each_recipient_is_named_once_and_only_so_many() -> None:
    groups = "\n\n".join(
        f"Final-Recipient: rfc822; u{n % 5000}@there.example\nAction: failed\nStatus: 5.1.1"
        for n in [*range(5), *range(5000)]
    )
    found = failed(dsn(groups))
    assert len(found) == len({address for address, _, _ in found}) <= 200


HEAD = f"From: MAILER-DAEMON@x.example\nTo: {OURS}\nSubject: Returned mail\n".encode()
HOSTILE = [
    HEAD + b"\nfailed: " + b"a@" * 200_000,
    HEAD + b"\nfailed: " + b"a@b.example " * 50_000,
    HEAD
    + b"\naddresses failed:\n"
    + b"".join(b"<u%d@b.example>: 550\n" % n for n in range(20_000)),
    HEAD + b"\nfailed 5.1." + b"5.1." * 100_000,
    HEAD + b"\n" + b"Subject: x\n" * 20_000,
    HEAD + b"\naddress failed:\n" + b"name\n" * 20_000,
    HEAD + b"Content-Type: text/html\n\n" + b"<style><div" * 30_000,
    HEAD + b"Content-Type: multipart/report; report-type=" + b'";' * 20_000 + b"\n\nx",
    b"".join(b"X-H%d: x\n" % n for n in range(20_000)) + HEAD + b"\nx",
    b"From: amazon\n\n{" + b'"a":[' * 20_000 + b"}",
]


@pytest.mark.parametrize("raw", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_mail_costs_little(raw: bytes) -> None:
    message = message_from_bytes(raw)
    started = time.process_time()
    bounces.examine(message)
    assert time.process_time() - started < 1  # tenths on a busy machine


def test_nothing_raises_whatever_the_bytes_are() -> None:
    chance = random.Random(3464)
    whole = dsn("Final-Recipient: rfc822; a@there.example\nAction: failed\nStatus: 5.1.1")
    for _ in range(300):
        raw = bytearray(whole)
        for _ in range(chance.randrange(1, 12)):
            at = chance.randrange(len(raw))
            raw[at : at + chance.randrange(40)] = chance.randbytes(chance.randrange(6))
        machines.recognise(message_from_bytes(bytes(raw)))
        machines.recognise(message_from_bytes(chance.randbytes(500)), reverse_path="")
