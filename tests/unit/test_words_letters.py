"""The installation's own words of mails: what a file may say, and each way in which it is wrong."""

from itertools import product
from pathlib import Path

import pytest

from contactd.errors import ConfigurationError
from contactd.mail.templates import Letters, parse, preview, read_letters
from contactd.routing.notify import Reason
from contactd.routing.words import PLACES, Wording

SAMPLE = Path(__file__).parents[2] / "etc" / "letters.toml"
GOOD = """
[solved.zh]
sentence = "{name}您好，工单{ticket}已处理完毕。"
subject = "请确认：{title}"

[received.en]
sentence = "We have it: {ticket}{of}."
answer = "{send} \\"STATUS {ticket}\\" to ask."
"""


def test_a_file_replaces_what_it_says_and_nothing_else() -> None:
    letters = parse(GOOD)
    assert letters.wording(Reason.SOLVED, "zh").subject == "请确认：{title}"
    assert letters.wording(Reason.SOLVED, "zh").answer == ""
    assert letters.wording(Reason.SOLVED, "en") == Wording()
    assert letters.wording(Reason.RECEIVED, "en-GB").sentence == "We have it: {ticket}{of}."


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[solved.zh]\nsentence = 'done'", "solved.zh.sentence: {ticket} is missing"),
        ("[solved.zh]\nanswer = 'reply'", "solved.zh.answer: {ticket} is missing"),
        ("[solved.en]\nsentence = '{ticket} {tickte}'", "unknown place {tickte}; there are {code}"),
        ("[solved.en]\nsentence = '{ticket} {send}'", "unknown place {send}"),
        ("[solved.en]\nsubject = '{}'", "unknown place {}"),
        ("[solved.en]\nsentence = '{ticket.__class__}'", "unknown place {ticket.__class__}"),
        ("[solved.en]\nsentence = '{ticket[0]}'", "unknown place {ticket[0]}"),
        ("[solved.en]\nsentence = '{ticket:>9999999}'", "a place is a name in braces"),
        ("[solved.en]\nsentence = '{ticket!r}'", "a place is a name in braces"),
        ("[solved.en]\nsentence = '{ticket'", "solved.en.sentence: expected '}'"),
        ("[solved.en]\nsentence = '{ticket}}'", "a brace itself is written {{ or }}"),
        ("[solved.en]\nsentence = 7", "solved.en.sentence: must be text on one line"),
        ("[solved.en]\nsentence = ' '", "must be text on one line"),
        ("[solved.en]\nsubject = 'a\\tb'\nsentence = \"{ticket}\\n\"", "must be text on one line"),
        (f"[solved.en]\nsubject = '{'x' * 1001}'", "must not be longer than 1000"),
        ("[solved.en]\ntitle = 'x'", "solved.en.title: unknown; there are sentence, answer"),
        ("[solvd.en]\nsubject = 'x'", "solvd: no such letter; there are assigned, breach"),
        ("[solved.de]\nsubject = 'x'", "solved.de: must be the table [solved.zh] or [solved.en]"),
        ("solved = 'x'", "solved: must be a table for each language"),
        ("solved.zh = 'x'", "solved.zh: must be the table"),
        ("[solved.zh]\nsubject = x", "(at line 2, column 11)"),
    ],
)
def test_what_is_wrong_is_named(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(text)
    assert said in str(caught.value)


def test_every_fault_of_a_file_is_told_at_once_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "letters.toml"
    path.write_text("[solved.zh]\nsentence = 'x'\nanswer = 'y'\n[nothing]\n", encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        read_letters(path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert all(line.startswith(f"mail.letters_file: {path}: ") for line in lines)


def test_a_file_that_cannot_be_read_is_an_error_and_none_is_none(tmp_path: Path) -> None:
    assert read_letters(None) == Letters()
    (tmp_path / "gbk.toml").write_bytes("[solved.zh]\nsubject = '完毕'".encode("gb18030"))
    for name in ("absent.toml", "gbk.toml"):
        with pytest.raises(ConfigurationError, match=r"mail\.letters_file"):
            read_letters(tmp_path / name)


def test_the_sample_file_is_right_and_names_every_place() -> None:
    letters = read_letters(SAMPLE)
    assert letters.wordings
    text = SAMPLE.read_text(encoding="utf-8")
    assert all(f"{{{place}}}" in text for place in PLACES)
    assert all(f"{reason}" in text for reason in Reason)


@pytest.mark.parametrize(("reason", "language"), [*product(Reason, ("zh", "en"))])
def test_every_letter_can_be_seen_in_advance(reason: Reason, language: str) -> None:
    shown = preview(reason, language, Letters())
    assert shown.subject.startswith("[26112200172] ")
    assert "26112200172" in shown.text
    assert "{" not in shown.text + shown.html


def test_a_preview_has_the_words_of_the_file() -> None:
    shown = preview(Reason.SOLVED, "zh", parse(GOOD), service="服务台")
    assert shown.subject == "[26112200172] 请确认：收银机打不开"
    assert shown.text.startswith("张三您好，工单26112200172已处理完毕。")
    assert "服务台 自动发送" in shown.text


@pytest.mark.parametrize("place", sorted(PLACES))
def test_every_place_that_may_be_named_is_filled(place: str) -> None:
    kind = "answer" if place == "send" else "sentence"
    letters = parse(f"[progress.zh]\n{kind} = '{{ticket}}<{{{place}}}>'")
    assert "{" not in preview(Reason.PROGRESS, "zh", letters).text
