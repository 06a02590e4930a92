"""email_reply_trimmer: what is new in a reply has to stay outside the folds."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.corpus import words
from bench.corpus.marks import Case, Judgement, MailSet, Rate, SetReader, judgement
from contactd.mail.parsed import Parsed

HEADERS: Final = (
    "From: Requester <requester@example.org>\r\n"
    "To: support@example.com\r\n"
    "Subject: Re: {name}\r\n"
    "Message-ID: <{name}@corpus.example.org>\r\n"
    "MIME-Version: 1.0\r\n"
    "Content-Type: text/plain; charset=utf-8\r\n"
    "Content-Transfer-Encoding: 8bit\r\n\r\n"
)
# Where a signature begins; everything below it belongs to it unless it is folded.
_SIGNATURE: Final = re.compile(
    r"""(?xi) ^(?:--|__+|\*\*+|\#\#+|~~+|==+|\+\++|ᐧ)\s*$   # a line of dashes and its friends
    | ^(?:sent|from|send|get)\s.*(?:mobile|phone|pad|pod|mail|outlook|ti-85|android|device|airmail)
    | ^(?:sendt|enviado|envoyé|von\ meinem|diese\ nachricht|gesendet|someone\ from|skickat\ från)\b
    """
)


def recognises(folder: Path) -> bool:
    return (folder / "emails").is_dir() and (folder / "trimmed").is_dir()


def read(folder: Path) -> MailSet:
    return MailSet(
        name="email_reply_trimmer",
        cases=[_case(path, folder) for path in sorted((folder / "emails").glob("*.txt"))],
        rates=(Rate("kept", "no new text folded"),),
    )


def _case(path: Path, folder: Path) -> Case:
    body = path.read_bytes()
    trimmed = (folder / "trimmed" / path.name).read_text(encoding="utf-8")

    def judge(mail: Parsed) -> Judgement:
        return compare(mail, body.decode(), trimmed)

    return Case(name=path.stem, raw=HEADERS.format(name=path.stem).encode() + body, judge=judge)


def compare(mail: Parsed, body: str, trimmed: str) -> Judgement:
    """Return `wrong` if new text is folded, `near` if a quote is not or one amid answers is."""
    shown, whole = words.lines(unfolded(mail.text, mail.folds)), words.lines(mail.text)
    expected = words.lines(trimmed)
    folded = words.missing(expected, shown)
    lost = [line for line in folded if not line.startswith(">")]
    wrong = [f"new text is folded: {words.short(line)}" for line in lost[:1]]
    cut = words.missing(words.lines(body), whole)
    wrong += [f"a line of the mail is gone: {words.short(line)}" for line in cut[:1]]
    near = [f"a quote that is answered is folded: {words.short(line)}" for line in folded[:1]]
    surplus = _without_signature(words.missing(shown, expected))
    near += [f"a quote is not folded: {words.short(line)}" for line in surplus[:1]]
    return judgement(wrong, near, {"kept": not lost})


def unfolded(text: str, folds: Sequence[tuple[int, int]]) -> str:
    """Return what is seen of `text` while its folds are closed; a fold ends a line."""
    pieces, at = [], 0
    for start, end in folds:
        pieces.append(text[at:start])
        at = end
    return "\n".join([*pieces, text[at:]])


def _without_signature(surplus: Sequence[str]) -> Sequence[str]:
    """Leave a signature out: contactd folds what is quoted, not how somebody signs."""
    for number, line in enumerate(surplus):
        if _SIGNATURE.search(line):
            return surplus[:number]
    return surplus


SET: Final = SetReader(recognises, read)
