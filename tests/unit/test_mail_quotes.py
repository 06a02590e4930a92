"""What quotes earlier mails is folded, what is new is not."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contactd.mail.quotes import folds


def shown(text: str) -> str:
    """Return what is seen while the folds are closed."""
    pieces, at = [], 0
    for start, end in folds(text):
        pieces.append(text[at:start])
        at = end
    return "".join([*pieces, text[at:]]).strip()


NEW = "It still does not print.\n\nWang"

ATTRIBUTIONS = [
    "On Mon, Nov 2, 2026 at 10:15 AM Support <support@desk.example.cn> wrote:",
    "On Mon, Nov 2, 2026 at 10:15 AM Support <\nsupport@desk.example.cn> wrote:",
    "On 2 Nov 2026, at 10:15, Support wrote:",
    "Le 2 nov. 2026 à 10:15, Support <support@desk.example.cn> a écrit :",
    "Am 02.11.2026 um 10:15 schrieb Support <support@desk.example.cn>:",
    "Support <support@desk.example.cn> schrieb am Mo., 2. Nov. 2026 um\n10:15 Uhr:",
    "El lun, 2 nov 2026 a las 10:15, Support (<support@desk.example.cn>) escribió:",
    "Il giorno lun 2 nov 2026 alle ore 10:15 Support <support@desk.example.cn> ha scritto:",
    "Op ma 2 nov. 2026 om 10:15 schreef Support <support@desk.example.cn>:",
    "Em seg., 2 de nov. de 2026 às 10:15, Support <support@desk.example.cn> escreveu:",
    "W dniu 2.11.2026 o 10:15, Support <support@desk.example.cn> pisze:",
    "пн, 2 нояб. 2026 г. в 10:15, Support <support@desk.example.cn> написал:",
    "Den mån 2 nov. 2026 kl 10:15 skrev Support <support@desk.example.cn>:",
    "在 2026年11月2日，上午10:15，Support <support@desk.example.cn> 写道：",
    '在 2026-11-02 10:15:00，"Support" <support@desk.example.cn> 写道：',
    "Support <support@desk.example.cn> 於 2026年11月2日 週一 上午10:15寫道：",
    "2026年11月2日(月) 10:15 Support <support@desk.example.cn>:",
    "2026년 11월 2일 (월) 오전 10:15, Support <support@desk.example.cn>님이 작성:",
    "2026-11-02 10:15 GMT+08:00 Support <support@desk.example.cn>:",
    "---- On Mon, 02 Nov 2026 10:15:00 +0800 Support <support@desk.example.cn> wrote ----",
]


@pytest.mark.parametrize("attribution", ATTRIBUTIONS)
@pytest.mark.parametrize("quote", ["> Is it on?\n> Regards", "Is it on?\nRegards"])
def test_a_reply_above_what_it_answers_is_all_that_is_seen(attribution: str, quote: str) -> None:
    assert shown(f"{NEW}\n\n{attribution}\n\n{quote}\n") == NEW


HEADERS = [
    "From: Support <s@example.cn>\nSent: Monday, 2 November 2026 10:15\nTo: Wang\nSubject: Printer",
    "*From:* Support\n*Sent:* 2026-11-02\n*To:* Wang\n*Subject:* Printer",
    "Von: Support\nGesendet: Montag, 2. November 2026\nAn: Wang\nBetreff: Drucker",
    "De : Support\nEnvoyé : lundi\nÀ : Wang\nObjet : imprimante",
    "De: Support\nEnviado el: lunes\nPara: Wang\nAsunto: impresora",
    "Da: Support\nInviato: lunedì\nA: Wang\nOggetto: stampante",
    "Van: Support\nVerzonden: maandag\nAan: Wang\nOnderwerp: printer",
    "Från: Support\nSkickat: den 2 november\nTill: Wang\nÄmne: skrivare",
    "От: Support\nОтправлено: 2 ноября\nКому: Wang\nТема: принтер",
    "发件人: Support <s@example.cn>\n发送时间: 2026年11月2日 10:15\n收件人: Wang\n主题: 打印机",
    "发件人：Support\n日期：2026-11-02\n收件人：Wang\n主题：打印机",
    "寄件者: Support\n寄件日期: 2026年11月2日\n收件者: Wang\n主旨: 印表機",
    "差出人: Support\n送信日時: 2026年11月2日\n宛先: Wang\n件名: プリンタ",
    "-----Original Message-----\nFrom: Support",
    "-------- Forwarded Message --------\nSubject: Printer\nFrom: Support",
    "________________________________\nFrom: Support\nSent: Monday\nTo: Wang",
    "------------------ 原始邮件 ------------------\n发件人: \"Support\"",
    "-----Ursprüngliche Nachricht-----\nVon: Support",
    "Begin forwarded message:\n\nFrom: Support\nDate: Monday\nTo: Wang",
    "开始转发的邮件：\n\n发件人: Support",
]  # fmt: skip


@pytest.mark.parametrize("header", HEADERS)
def test_what_stands_below_a_copied_header_is_folded(header: str) -> None:
    assert shown(f"{NEW}\n\n{header}\n\nIs it on?\nRegards\n") == NEW


@pytest.mark.parametrize(
    "text",
    [
        NEW,
        "From: the office\nwe cannot print.",
        "On 2 November we bought a printer, and he wrote:\nnothing works",
        "> Is it on?\nYes.\n\n> And the cable?\nYes, too.",
        "He wrote: it is broken",
        "------\nTotal: 3\n------\nand more",
        "To: everybody\nSubject: lunch",
        "Hello\nFrom: the office\nDate: today\nwe cannot print.",
        "error at 10:15:02 in module a > b\n12:00 2026-11-02 x: y",
        "> only a quote",
        "",
        "\n\n\n",
        "在这台机器上写道路名称",
        "Steps:\n1. On the 2nd floor at 10:15 press\n2. wait",
    ],
)
def test_new_text_is_not_folded(text: str) -> None:
    assert folds(text) == ()


def test_an_answer_below_the_quote_is_seen() -> None:
    text = "On 2 Nov 2026 at 10:15 Support wrote:\n> Is it on?\n\nYes, it is."
    assert shown(text) == "Yes, it is."


def test_short_quotes_between_answers_stay_and_long_ones_do_not() -> None:
    short = "Hello\n> Is it on?\nYes.\n"
    assert shown(short) == short.strip()
    long = "Hello\n" + "> line\n" * 20 + "Yes.\n"
    assert shown(long) == "Hello\n\nYes."


def test_a_forwarded_mail_without_a_word_can_be_read() -> None:
    text = (
        "---------- Forwarded message ----------\nFrom: Wang <w@example.cn>\nDate: Monday\n"
        "Subject: Printer\nTo: Li\n\nThe printer is on fire.\n"
    )
    assert shown(text) == "The printer is on fire."


@pytest.mark.parametrize(
    "line", ["On Mon 1 Jan 2020 at 10:00 Bob <a@b.c>", "From: x", "> ", "-----", "<" + "@" * 490,
             "On 1 Jan 2020 10:00 " + "wrote " * 70 + ":", "On " + "2020-10-10 " * 40 + ":", "",
             "- >*_" * 90, "From: " * 80, "'\"  " * 100 + ":"]
)  # fmt: skip
def test_a_hostile_text_takes_little_time(line: str) -> None:
    text = f"x\n{line}\n" * min(20_000, 400_000 // (len(line) + 1))
    began = time.process_time()
    folds(text)
    assert time.process_time() - began < 2


LINES = st.lists(
    st.sampled_from(
        [*ATTRIBUTIONS, *HEADERS, "> quote", ">> deep", "", "text", "a: b", "---", "\t"]
    )
    | st.text(max_size=30),
    max_size=12,
).map("\n".join)


@given(LINES)
def test_folds_are_ordered_disjoint_inside_and_not_everything(text: str) -> None:
    found = folds(text)
    at = 0
    for start, end in found:
        assert at <= start < end <= len(text)
        at = end
    if found:
        assert shown(text)
