"""The words of texts and mails: the number and the answer in each, and one segment if they can."""

import re
from datetime import UTC, datetime
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contactd.routing.clocks import Metric
from contactd.routing.notify import Notification, Reason
from contactd.routing.words import letter, texts
from contactd.sms.segments import fitting, segment_count
from contactd.tickets.contact import Medium
from contactd.tickets.replies import Sender, parse

NUMBER = "26112000017"
DUE = datetime(2026, 11, 25, 10, 30, tzinfo=UTC).isoformat()
USUAL = {
    "site": "gz", "site_name": "广州珠江新城", "title": "打印机", "vip": "1", "metric": "remote",
    "percent": "75", "due": DUE, "zone": "Asia/Shanghai", "engineer": "王伟", "code": "4711",
    "priority": "P2",
}  # fmt: skip
USUAL_EN = {**USUAL, "site_name": "Guangzhou", "title": "Printer", "engineer": "James Wong"}


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
    assert suggested or reason is Reason.CLOSED
    to_requester = reason in (Reason.CODE, Reason.SOLVED, Reason.REMINDER)
    sender = Sender.REQUESTER if to_requester else Sender.ENGINEER
    found = [parse(answer, sender) for answer in suggested]
    assert all(reply is not None and reply.ticket == NUMBER for reply in found)
    assert len({reply.verb for reply in found if reply is not None}) == len(suggested)


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
    said = letter(notification(Reason.NEW, **hostile), service="contactd")
    assert "\n" not in said.subject
    assert "打印机 回复 9" in said.subject
    assert all("\n" not in text for text in texts(notification(Reason.NEW, **hostile)))


def test_a_mail_lists_what_is_known_and_only_that() -> None:
    said = letter(notification(Reason.NEW, **USUAL), service="服务台")
    assert "地点：广州珠江新城\n优先级：P2\n主题：打印机\n到期：11月25日18:30\n" in said.text
    assert f"发送短信“1 {NUMBER}”接单" in said.text
    assert "服务台 自动发送" in said.text
    bare = letter(notification(Reason.SOLVED, "en"), service="desk")
    assert "Site" not in bare.text
    assert bare.subject == f"[{NUMBER}] Your ticket {NUMBER} is solved"


def test_what_strangers_wrote_is_text_in_the_page_of_a_mail() -> None:
    hostile = {**USUAL, "title": '<img src=x onerror="y">&', "site_name": "<b>"}
    page = letter(notification(Reason.NEW, **hostile), service="<i>").html
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
    said = letter(told, service="contactd")
    assert said.subject.isprintable()
    assert NUMBER in said.text
