"""What users agree to: never changed once it was shown, and the same in both languages."""

import ast
import inspect
import sys

import pytest

from contactd.tickets import agreement
from contactd.tickets.agreement import (
    AGREEMENTS,
    CURRENT,
    LANGUAGES,
    QUESTIONS,
    RIGHTS,
    hash_of,
    question_of,
    text_of,
)
from contactd.tickets.remote import Right
from contactd.tickets.sharing import Kind

# Whoever changes a text makes a new version of it: what a user has seen stays as it was.
SHOWN = {
    ("2026-11", "zh"): "06a5894464f2f12557cfce0aaad67abc383d95c3ee0db4bd93251986ea71254b",
    ("2026-11", "en"): "5a868f57b83c0187a0dacaf666a491f9c6dde6e77e8b0cd4a79fc9c11e84e47c",
}


@pytest.mark.parametrize(("version", "language"), SHOWN)
def test_a_text_that_users_have_seen_is_never_changed(version: str, language: str) -> None:
    assert hash_of(text_of(version, language)) == SHOWN[version, language]


def test_every_version_is_guarded() -> None:
    versions = {(version, language) for version, texts in AGREEMENTS.items() for language in texts}
    assert versions == set(SHOWN)


def test_the_current_version_is_there_in_every_language_and_says_as_much_in_each() -> None:
    assert set(AGREEMENTS[CURRENT]) == LANGUAGES == {"zh", "en"}
    paragraphs = {len(text.split("\n")) for text in AGREEMENTS[CURRENT].values()}
    assert len(paragraphs) == 1
    assert all(line.strip() == line and line for line in text_of(CURRENT, "zh").split("\n"))


@pytest.mark.parametrize(
    ("language", "said"),
    [
        ("en", ["stop at any time", "recorded", "only the number", "need not agree", "passwords"]),
        ("zh", ["随时停止", "录像", "只记次数", "不同意也没有关系", "密码"]),
    ],
)
def test_it_says_how_to_stop_what_is_recorded_and_that_no_is_an_answer(
    language: str, said: list[str]
) -> None:
    text = text_of(CURRENT, language)
    assert [each for each in said if each not in text] == []


def test_a_language_that_we_do_not_have_is_english() -> None:
    assert text_of(CURRENT, "fr") == text_of(CURRENT, "en")
    assert question_of(CURRENT, "", "look", engineer="Ann").startswith("Ann ")


def test_what_never_was_shown_cannot_be_agreed_to() -> None:
    with pytest.raises(KeyError):
        text_of("1999-01", "zh")
    with pytest.raises(KeyError):
        question_of(CURRENT, "zh", "steer", engineer="王伟")


@pytest.mark.parametrize("kind", sorted(QUESTIONS))
@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_every_question_names_the_engineer(kind: str, language: str) -> None:
    asked = question_of(CURRENT, language, kind, engineer="王伟", file="a.txt")
    assert "王伟" in asked
    assert "{" not in asked
    assert ("a.txt" in asked) is (kind == "file")


def test_a_name_with_braces_is_a_name() -> None:
    asked = question_of(CURRENT, "en", "file", engineer="{file}", file="{engineer}")
    assert asked.startswith("{file} would")
    assert "“{engineer}”" in asked


def test_there_is_a_question_for_each_kind_of_consent_and_words_for_each_right() -> None:
    assert {each.value for each in Kind} - {"agree"} == QUESTIONS
    for named in RIGHTS.values():
        assert set(named) == {each.value for each in Right}


def test_the_hash_is_of_every_sign_even_half_a_pair() -> None:
    assert hash_of("a") != hash_of("a ")
    assert len(hash_of("\ud83d")) == 64


def test_it_can_run_on_the_users_computer_where_contactd_is_not() -> None:
    tree = ast.parse(inspect.getsource(agreement))
    names = {
        (node.module or "") if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert {name.partition(".")[0] for name in names} <= set(sys.stdlib_module_names)
