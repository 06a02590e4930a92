"""What texts answer, in the forms in which people send them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contactd.tickets.replies import Reply, Sender, Verb, bare, parse

TICKET = "26112200014"


@pytest.mark.parametrize(
    ("text", "verb"),
    [
        ("1 26112200014", Verb.TAKE),
        ("2 26112200014", Verb.PASS),
        ("4 26112200014", Verb.SET_OUT),
        ("到 26112200014", Verb.ARRIVE),
        ("ARR 26112200014", Verb.ARRIVE),
        ("出发 26112200014", Verb.SET_OUT),
        ("GO 26112200014", Verb.SET_OUT),
        ("完成 26112200014", Verb.FINISH),
        ("DONE 26112200014", Verb.FINISH),
        ("接单 26112200014", Verb.TAKE),
        ("TAKE 26112200014", Verb.TAKE),
        ("转 26112200014", Verb.PASS),
        ("PASS 26112200014", Verb.PASS),
        ("解决 26112200014", Verb.SOLVED),
        ("OK 26112200014", Verb.SOLVED),
        ("未解决 26112200014", Verb.NOT_SOLVED),
        ("NO 26112200014", Verb.NOT_SOLVED),
        ("进度 26112200014", Verb.STATUS),
        ("STATUS 26112200014", Verb.STATUS),
    ],
)
def test_each_word_is_a_verb(text: str, verb: Verb) -> None:
    assert parse(text) == Reply(verb=verb, ticket=TICKET)


@pytest.mark.parametrize(
    "text",
    [
        "１　２６１１２２０００１４", "1,26112200014", "1，26112200014。", " 1\n26112200014 \n",
        "1 2611 2200 014", "1 261122-0001-4", "Take26112200014", "ＴＡＫＥ 26112200014",
        "接单26112200014", "1 #26112200014", "1：26112200014！", "1 ٢٦١١٢٢٠٠٠١٤",
    ],
)  # fmt: skip
def test_width_case_and_blanks_do_not_matter(text: str) -> None:
    assert parse(text) == Reply(verb=Verb.TAKE, ticket=TICKET)


@pytest.mark.parametrize(
    "text",
    [
        "ARR 26112200014 4711", "到26112200014 4711", "到 2611 2200 014 4711",
        "到 26112200014，47 11", "到 261122000144711", "ａｒｒ　２６１１２２０００１４　４７１１",
    ],
)  # fmt: skip
def test_an_arrival_may_bring_its_code(text: str) -> None:
    assert parse(text) == Reply(verb=Verb.ARRIVE, ticket=TICKET, code="4711")


def test_a_code_is_not_shown_in_logs() -> None:
    assert "4711" not in repr(parse("到 26112200014 4711"))


@pytest.mark.parametrize(
    "text",
    [
        "", "1", "26112200014", "OK", "到 4711", "3 26112200014", "1 26112200014 4711",
        "OK 26112200014 但是打印机还是不行", "OK 26112200014 but it is broken again",
        "not ok 26112200014", "请问 26112200014", "126112200014", "1 26112200014 26112200022",
        "1 2611 2200 013",
        "到 26112200014 471", "1 " + "2" * 30, "1 " * 5000, "\x00 26112200014", "1.5 26112200014",
    ],
)  # fmt: skip
def test_anything_else_is_for_a_person_to_read(text: str) -> None:
    assert parse(text) is None


def test_a_mistyped_number_is_still_an_answer_so_that_its_sender_hears_of_it() -> None:
    assert parse("1 26112200013") == Reply(verb=Verb.TAKE, ticket="26112200013")


@pytest.mark.parametrize(
    ("text", "verb"),
    [
        ("1 26112200014", Verb.SOLVED), ("2 26112200014", Verb.NOT_SOLVED),
        ("好的 26112200014", None), ("解决了 26112200014", Verb.SOLVED),
        ("没解决26112200014", Verb.NOT_SOLVED), ("到 26112200014", None),
        ("4 26112200014", Verb.RATE),
        ("进度 26112200014", Verb.STATUS),
    ],
)  # fmt: skip
def test_a_requester_answers_whether_it_is_solved(text: str, verb: Verb | None) -> None:
    found = parse(text, Sender.REQUESTER)
    assert (found.verb if found else None) == verb


@given(st.text(max_size=120), st.sampled_from(Sender))
def test_whatever_is_sent_it_is_a_reply_or_none(text: str, sender: Sender) -> None:
    found = parse(text, sender)
    assert found is None or (found.ticket.isascii() and found.ticket.isdigit())


@pytest.mark.parametrize(
    ("text", "mark"),
    [("1", 1), ("２", 2), ("5 26112200014", 5), ("OK 26112200014", 0), ("解决", 0), ("STATUS", 0)],
)
def test_a_digit_of_a_requester_may_be_a_mark(text: str, mark: int) -> None:
    found = parse(text, Sender.REQUESTER) or bare(text, Sender.REQUESTER)
    assert found is not None
    assert found.mark == mark
    of_engineer = parse(text, Sender.ENGINEER) or bare(text, Sender.ENGINEER)
    assert of_engineer is None or of_engineer.mark == 0


@pytest.mark.parametrize(
    ("text", "sender", "verb", "code"),
    [
        ("1", Sender.ENGINEER, Verb.TAKE, ""), (" 接单。", Sender.ENGINEER, Verb.TAKE, ""),
        ("2", Sender.ENGINEER, Verb.PASS, ""), ("4", Sender.ENGINEER, Verb.SET_OUT, ""),
        ("到 4711", Sender.ENGINEER, Verb.ARRIVE, "4711"),
        ("到４７１１！", Sender.ENGINEER, Verb.ARRIVE, "4711"),
        ("1", Sender.REQUESTER, Verb.SOLVED, ""), ("OK!", Sender.REQUESTER, Verb.SOLVED, ""),
        ("2", Sender.REQUESTER, Verb.NOT_SOLVED, ""), ("3", Sender.REQUESTER, Verb.RATE, ""),
        ("进度", Sender.REQUESTER, Verb.STATUS, ""), ("Status.", Sender.ENGINEER, Verb.STATUS, ""),
    ],
)  # fmt: skip
def test_a_word_alone_is_about_what_was_asked_last(
    text: str, sender: Sender, verb: Verb, code: str
) -> None:
    found = bare(text, sender)
    assert found is not None
    assert (found.verb, found.ticket, found.code) == (verb, "", code)


@pytest.mark.parametrize(
    ("text", "sender"),
    [
        ("", Sender.REQUESTER), ("6", Sender.REQUESTER), ("12", Sender.REQUESTER),
        ("OK but no", Sender.REQUESTER), ("好的", Sender.REQUESTER), ("1 4711", Sender.ENGINEER),
        ("到", Sender.ENGINEER), ("到 471", Sender.ENGINEER), ("到 47111", Sender.ENGINEER),
        ("OK", Sender.ENGINEER), ("解决", Sender.ENGINEER), ("完成", Sender.ENGINEER),
        ("NO", Sender.ENGINEER), ("1 26112200014", Sender.REQUESTER),
        ("1" + " " * 90, Sender.REQUESTER),
    ],
)  # fmt: skip
def test_any_other_word_alone_is_for_a_person_to_read(text: str, sender: Sender) -> None:
    assert bare(text, sender) is None


@given(st.text(max_size=120), st.sampled_from(Sender))
def test_whatever_is_sent_without_a_number_it_is_a_reply_or_none(text: str, sender: Sender) -> None:
    found = bare(text, sender)
    assert found is None or (found.ticket == "" and (found.code == "" or found.code.isascii()))
