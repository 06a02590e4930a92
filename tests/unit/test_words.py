"""The words of texts and mails: the number and the answer in each, and one segment if they can."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contactd.routing.clocks import Metric
from contactd.routing.closing import Stage
from contactd.routing.notify import ANSWERED_BY_KEY, ASKS, OFFERS, REQUESTER, Notification, Reason
from contactd.routing.words import Setting, Wording, letter, offers, texts
from contactd.sms.segments import fitting, segment_count
from contactd.tickets.contact import Medium
from contactd.tickets.replies import Sender, parse

NUMBER = "26112000017"
DUE = datetime(2026, 11, 25, 10, 30, tzinfo=UTC).isoformat()
USUAL = {
    "site": "gz", "site_name": "广州珠江新城", "title": "打印机", "vip": "1", "metric": "remote",
    "percent": "75", "due": DUE, "zone": "Asia/Shanghai", "engineer": "王伟", "code": "4711",
    "priority": "P2", "stage": "held", "note": "备件明天到",
}  # fmt: skip
USUAL_EN = {
    **USUAL, "site_name": "Guangzhou", "title": "Printer", "engineer": "James Wong",
    "note": "spare part tomorrow",
}  # fmt: skip
TO_REQUESTER = {
    Reason.RECEIVED, Reason.PROGRESS, Reason.CODE, Reason.CLOSED, Reason.SURVEY, Reason.SAID,
    Reason.LOGIN, Reason.REMOTE, *ASKS,
}  # fmt: skip
ASK_NOTHING = {Reason.CLOSED, Reason.SAID, Reason.LOGIN, Reason.REMOTE}
DESK = Setting(service="服务台")


def notification(reason: Reason, language: str = "zh", **facts: str) -> Notification:
    return Notification(
        ref="n-1", ticket=NUMBER, recipient="wang", medium=Medium.TEXT, address="+8613800000001",
        language=language, reason=reason, facts=facts,
    )  # fmt: skip


@pytest.mark.parametrize(("reason", "language"), [*product(Reason, ("zh", "en"))])
def test_every_text_has_the_number_says_how_to_answer_and_is_one_segment(
    reason: Reason, language: str
) -> None:
    facts = USUAL if language == "zh" else USUAL_EN
    text = fitting(texts(notification(reason, language, **facts)))
    assert segment_count(text) == 1, text
    assert NUMBER in text
    asked = {"zh": ("回复", "联系我们"), "en": ("Reply", "Contact us")}[language]
    assert any(word in text for word in asked)
    assert "{" not in text


@pytest.mark.parametrize(("reason", "language"), [*product(Reason, ("zh", "en"))])
def test_a_text_without_any_facts_is_still_a_sentence(reason: Reason, language: str) -> None:
    text = fitting(texts(notification(reason, language)))
    assert NUMBER in text
    assert "{" not in text


def test_an_engineer_reads_what_where_and_both_answers() -> None:
    assert fitting(texts(notification(Reason.NEW, **USUAL))) == (
        f"VIP新工单{NUMBER}，广州珠江新城：打印机。回复“1 {NUMBER}”接单，“2 {NUMBER}”转下一位。"
    )
    assert fitting(texts(notification(Reason.NEW, "en", **{**USUAL_EN, "vip": ""}))) == (
        f"New ticket {NUMBER}, Guangzhou: Printer."
        f' Reply "1 {NUMBER}" to take it, "2 {NUMBER}" to pass.'
    )


@pytest.mark.parametrize(("reason", "language"), [*product(Reason, ("zh", "en"))])
def test_every_answer_that_a_text_suggests_is_understood(reason: Reason, language: str) -> None:
    (text,) = texts(notification(reason, language))
    suggested = re.findall(r'[“"]([^”"]+)[”"]', text)
    assert suggested or reason in ASK_NOTHING
    sender = Sender.REQUESTER if reason in TO_REQUESTER else Sender.ENGINEER
    found = [parse(answer, sender) for answer in suggested]
    assert all(reply is not None and reply.ticket == NUMBER for reply in found)
    assert len({reply.verb for reply in found if reply is not None}) == len(suggested)


REMOTE = {"link": "https://desk.example.cn/s/012345678", "minutes": "10"}


def test_the_link_to_remote_help_fits_one_segment_and_ends_where_a_phone_sees_it() -> None:
    zh, en = (
        fitting(texts(notification(Reason.REMOTE, language, **USUAL, **REMOTE)))
        for language in ("zh", "en")
    )
    assert segment_count(zh) == segment_count(en) == 1, (zh, en)
    assert zh == f"工单{NUMBER}远程协助，10分钟内打开：{REMOTE['link']} 有疑问联系我们。"
    assert en.endswith(f"within 10 minutes: {REMOTE['link']} Contact us if you are not sure.")


def test_a_mail_has_the_link_to_remote_help_on_its_button_and_not_in_its_subject() -> None:
    mail = letter(notification(Reason.REMOTE, **USUAL, **REMOTE), DESK)
    assert mail.subject == f"[{NUMBER}] 工单{NUMBER}远程协助，10分钟内打开"
    assert f"打开远程协助：{REMOTE['link']}\n" in mail.text
    assert mail.html.count(REMOTE["link"]) == 1
    assert f'<a href="{REMOTE["link"]}"' in mail.html


def test_a_time_is_told_on_the_clocks_of_the_site() -> None:
    zh = texts(notification(Reason.BREACH, **USUAL))[0]
    en = texts(notification(Reason.BREACH, "en", **{**USUAL_EN, "zone": "Europe/Berlin"}))[0]
    assert "远程支持已超时，应于11月25日18:30前" in zh
    assert "the remote help is late, it was due 25 Nov 11:30" in en
    nowhere = {key: value for key, value in USUAL.items() if key != "zone"}
    assert "11月25日10:30 UTC" in texts(notification(Reason.BREACH, **nowhere))[0]


def test_every_metric_has_a_name_in_both_languages() -> None:
    for metric, language in product(Metric, ("zh", "en")):
        text = texts(notification(Reason.WARNING, language, metric=metric.value, due=DUE))[0]
        assert metric.value not in text or (language == "en" and "_" not in metric.value)


def test_the_title_goes_first_when_room_is_short_then_the_site_and_the_answer_never() -> None:
    long = {**USUAL, "title": "所有的打印机都打不出来" * 5, "site_name": "广州" * 30}
    versions = texts(notification(Reason.NEW, **long))
    assert [segment_count(version) for version in versions] == sorted(
        (segment_count(version) for version in versions), reverse=True
    )
    assert all(f"“1 {NUMBER}”接单" in version for version in versions)
    assert segment_count(fitting(versions)) == 1


def test_what_strangers_wrote_stays_on_one_line() -> None:
    hostile = {**USUAL, "title": "打印机\r\n\x00回复 9\u2028", "site_name": "a\tb"}
    said = letter(notification(Reason.NEW, **hostile), Setting(service="contactd"))
    assert "\n" not in said.subject
    assert "打印机 回复 9" in said.subject
    assert all("\n" not in text for text in texts(notification(Reason.NEW, **hostile)))


def test_a_mail_lists_what_is_known_and_only_that() -> None:
    said = letter(notification(Reason.NEW, **USUAL), DESK)
    assert "地点：广州珠江新城\n优先级：P2\n主题：打印机\n到期：11月25日18:30\n" in said.text
    assert f"发送短信“1 {NUMBER}”接单" in said.text
    assert "服务台 自动发送" in said.text
    bare = letter(notification(Reason.SOLVED, "en"), Setting(service="desk"))
    assert "Site" not in bare.text
    assert bare.subject == f"[{NUMBER}] Your ticket {NUMBER} is solved"


def test_what_strangers_wrote_is_text_in_the_page_of_a_mail() -> None:
    hostile = {**USUAL, "title": '<img src=x onerror="y">&', "site_name": "<b>"}
    page = letter(notification(Reason.NEW, **hostile), Setting(service="<i>")).html
    assert not any(tag in page for tag in ("<img", "<b>", "<i>", "&<"))
    assert "&lt;img src=x onerror=&quot;y&quot;&gt;&amp;" in page


@given(
    facts=st.dictionaries(st.sampled_from(sorted({*USUAL} - {"due", "zone"})), st.text()),
    reason=st.sampled_from(Reason),
    language=st.sampled_from(("zh", "en", "fr", "")),
)
def test_no_fact_breaks_a_text_or_a_mail(
    facts: dict[str, Any], reason: Reason, language: str
) -> None:
    told = notification(reason, language, **facts)
    assert all(NUMBER in text and "\n" not in text for text in texts(told))
    said = letter(told, Setting(service="contactd", subject=str(facts.get("note", ""))))
    assert said.subject.isprintable()
    assert NUMBER in said.text


# What a requester hears unasked ------------------------------------------------------------------


def test_a_requester_reads_that_their_request_has_a_ticket() -> None:
    usual = {**USUAL, "vip": ""}
    assert fitting(texts(notification(Reason.RECEIVED, **usual))) == (
        f"已收到您的报修，工单{NUMBER}，广州珠江新城：打印机。回复“进度 {NUMBER}”查询。"
    )
    english = texts(notification(Reason.RECEIVED, "en", **USUAL_EN))[0]
    assert english.startswith(f"We have received your request: ticket {NUMBER}, Guangzhou: Printer")


@pytest.mark.parametrize(
    ("stage", "said", "bare"),
    [
        ("taken", "王伟已接手您的报修", "已有工程师接手您的报修"),
        ("on_way", "王伟正在前往您处", "工程师正在前往您处"),
        ("arrived", "王伟已到场", "工程师已到场"),
        ("held", "您的报修暂停处理：等备件", "您的报修暂停处理"),
        ("resumed", "您的报修已恢复处理", "您的报修已恢复处理"),
        ("updated", "您的报修有新进展：等备件", "您的报修有新进展"),
    ],
)
def test_each_stage_has_its_words(stage: str, said: str, bare: str) -> None:
    facts = {"stage": stage, "engineer": "王伟", "note": "等备件。"}
    assert texts(notification(Reason.PROGRESS, **facts))[0].startswith(f"{said}。工单{NUMBER}。")
    assert texts(notification(Reason.PROGRESS, stage=stage))[0].startswith(f"{bare}。")


@pytest.mark.parametrize(("stage", "language"), [*product(Stage, ("zh", "en"))])
def test_a_text_about_progress_is_one_segment_however_long_the_note(
    stage: Stage, language: str
) -> None:
    facts = {**(USUAL if language == "zh" else USUAL_EN), "stage": stage.value}
    long = {**facts, "note": facts["note"] * 20, "title": facts["title"] * 20}
    assert segment_count(fitting(texts(notification(Reason.PROGRESS, language, **long)))) == 1
    mail = letter(notification(Reason.PROGRESS, language, **long), DESK)
    if stage in (Stage.HELD, Stage.UPDATED):
        assert long["note"] in mail.text, "a mail has room for all of it"


def test_news_that_nobody_has_words_for_are_news_all_the_same() -> None:
    assert texts(notification(Reason.PROGRESS, stage="of tomorrow"))[0].startswith(
        "您的报修有新进展。"
    )


# Mails -------------------------------------------------------------------------------------------


def to_requester(reason: Reason, language: str = "zh", **facts: str) -> Notification:
    return replace(notification(reason, language, **facts), recipient=REQUESTER)


def test_what_a_page_offers_is_what_its_keys_do() -> None:
    assert set(OFFERS) == ANSWERED_BY_KEY | ASKS
    for reason, language in product(OFFERS, ("zh", "en")):
        assert [key for key, _ in offers(reason, language)] == [*OFFERS[reason]]
        assert len({label for _, label in offers(reason, language)}) == len(OFFERS[reason])
    assert offers(Reason.CLOSED, "zh") == ()


def test_each_button_of_a_mail_leads_to_the_page_with_its_answer_chosen() -> None:
    setting = Setting(service="x", link="https://desk.example.cn/m/t")
    said = letter(to_requester(Reason.SOLVED, **USUAL), setting)
    assert (
        "已解决：https://desk.example.cn/m/t?do=1\n未解决：https://desk.example.cn/m/t?do=2\n"
        in (said.text)
    )
    assert said.html.count("<a href=") == 2
    assert 'href="https://desk.example.cn/m/t?do=2"' in said.html
    assert "<a href=" not in letter(to_requester(Reason.SOLVED, **USUAL), DESK).html
    assert "<a href=" not in letter(to_requester(Reason.RECEIVED, **USUAL), setting).html


def test_a_mail_that_reaches_us_may_be_answered_and_says_so() -> None:
    setting = Setting(service="x", can_reply=True)
    asked = letter(to_requester(Reason.RECEIVED, **USUAL), setting).text
    assert f"回复“进度 {NUMBER}”查询。" in asked
    assert "直接回复本邮件" in asked
    page = letter(notification(Reason.NEW, **USUAL), setting).text
    assert f"回复“1 {NUMBER}”接单" in page
    assert "发送短信" in letter(notification(Reason.NEW, **USUAL), DESK).text


@pytest.mark.parametrize(
    "theirs",
    [
        "打印机坏了",
        "Re: 打印机坏了",
        f"回复：[{NUMBER}] 打印机坏了",
        f"Re: FW: 转发: Re[2]: [{NUMBER}] 打印机坏了",
    ],
)
def test_all_mails_to_a_requester_have_the_subject_of_their_own(theirs: str) -> None:
    setting = Setting(service="x", subject=theirs)
    for reason in sorted(TO_REQUESTER):
        said = letter(to_requester(reason, **USUAL), setting)
        assert said.subject == f"[{NUMBER}] 打印机坏了"
    assert "新工单" in letter(notification(Reason.NEW, **USUAL), setting).subject


@pytest.mark.parametrize("theirs", ["", "Re:", " \r\n", f"[{NUMBER}]"])
def test_without_a_subject_of_theirs_ours_says_what_it_is_about(theirs: str) -> None:
    said = letter(to_requester(Reason.CLOSED), Setting(service="x", subject=theirs))
    assert said.subject == f"[{NUMBER}] 您的工单{NUMBER}已关闭"


def test_words_of_the_installation_take_the_place_of_ours() -> None:
    own = Wording(
        sentence="{name}，您的{title}修好了（{ticket}）。",
        answer="请{send}“解决 {ticket}”。",
        subject="修好了：{title}",
    )
    said = letter(
        replace(to_requester(Reason.SOLVED, title="打印机 {code}"), name="张三"),
        Setting(service="x", wording=own, subject="打不出来"),
    )
    assert said.subject == f"[{NUMBER}] 修好了：打印机 {{code}}"
    assert said.text.startswith(f"张三，您的打印机 {{code}}修好了（{NUMBER}）。\n")
    assert f"请发送短信“解决 {NUMBER}”。" in said.text


@pytest.mark.parametrize(("reason", "language"), [*product(Reason, ("zh", "en"))])
def test_a_mail_looks_the_same_everywhere(reason: Reason, language: str) -> None:
    """No picture, script or font from elsewhere; its lines are shorter than 998 octets as text."""
    setting = Setting(service="x", link="https://desk.example.cn/m/t", can_reply=True)
    page = letter(notification(reason, language, **USUAL), setting).html
    assert not re.search(r"<(img|script|link|style|form|iframe)|url\(|@import", page)
    assert set(re.findall(r'https?://[^"]+', page)) <= {
        f"https://desk.example.cn/m/t?do={key}" for key in "124"
    }
    assert "background-color:#fff" not in page, "a dark program's ground stays dark"
