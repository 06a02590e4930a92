"""What a text says: a wish, a question, a reply, or words that a person has to read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contactd.tickets.texting import Says, says


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("STOP", Says.STOP), ("stop.", Says.STOP), (" Stop! ", Says.STOP), ("ＳＴＯＰ", Says.STOP),
        ("UNSUBSCRIBE", Says.STOP), ("STOPALL", Says.STOP), ("退订", Says.STOP),
        ("“退订”", Says.STOP), ("【TD】", Says.STOP), ("TD", Says.STOP), ("ｔ", Says.STOP),
        ("N", Says.STOP), ("START", Says.START), ("unstop", Says.START), ("恢复订阅", Says.START),
        ("进度", Says.STATUS), ("STATUS 26112200014", Says.STATUS), ("查询进度", Says.STATUS),
        ("1", Says.REPLY), ("1 26112200014", Says.REPLY), ("5", Says.REPLY), ("OK", Says.REPLY),
        ("到 26112200014 4711", Says.REPLY), ("未解决", Says.REPLY), ("no", Says.REPLY),
        ("", Says.WORDS), ("打印机坏了", Says.WORDS), ("请退订报纸", Says.WORDS),
        ("stop it please", Says.WORDS), ("停止打印", Says.WORDS), ("进度怎么样了", Says.WORDS),
        ("26112200014", Says.WORDS), ("OK 26112200014 but it is broken", Says.WORDS),
        ("t" + " " * 90 + "he printer", Says.WORDS),
        ("n" + " " * 50 + "o", Says.WORDS),
        ("取消", Says.WORDS), ("YES", Says.REPLY),
    ],
)  # fmt: skip
def test_each_text_is_one_of_five(text: str, what: Says) -> None:
    assert says(text) is what


@given(st.text(max_size=200))
def test_whatever_is_sent_it_says_something(text: str) -> None:
    assert says(text) in Says
