"""What a mail system says in its own words: whom it did not reach, and why (pure).

Read as a person would read it: the addresses that stand where it says that it failed, with the
replies (RFC 5321 section 4.2) beside them.
"""

import itertools
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Final

from contactd.mail import charsets
from contactd.mail.bounce_phrases import DAEMONS, DELAYED, FAILED, REASONS, RETURNED, TRANSIENT

TEXT_LIMIT: Final = 64 * 1024  # signs of all the text that is read
LINES_LIMIT: Final = 1_500
VALUE_LIMIT: Final = 2_000  # signs of a header that are looked at
VALUES_LIMIT: Final = 20  # headers of one name
RECIPIENTS_LIMIT: Final = 200
_SAID: Final = 12  # lines after an address that belong to it

# In text: Chinese writes no space around an address, so only ASCII belongs to it there.
_ADDRESS: Final = re.compile(
    r"(?<![A-Za-z0-9!#$%&*+/?^_{|}~.-])(?:\"[^\s\"@]{1,100}\"|[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,100})"
    r"@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,250}[A-Za-z0-9])?"
)
_REPLY: Final = re.compile(r"(?<![\w.@/-])(4[0257]\d|5[0-57]\d)(?=[\s\-\])>;,:'\"#]|$)(?!-\d)")
STATUS: Final = re.compile(r"(?<![\d.])([245])\.(\d{1,3})\.(\d{1,3})(?!\d|\.\d)")
_RCPT: Final = re.compile(r"\brcpt to\b", re.I)
_ANSWER: Final = re.compile(r"^\W*(?:(?:received|replied|response|s)\W+)?([2345])\d\d[\s-]", re.I)
_SENDER_LABEL: Final = re.compile(
    r"^[\s>*#|.-]*(?:(?:sent\s*)?(?:>>>|<<<)\s*)?(?:mail from|from|sender|original sender|reply-to"
    r"|return-path|envelope-from|errors-to|message-id|in-reply-to|references|(?:system )?contact"
    r"|subject|x-[\w-]+|received)\b\s*(?::|=)|^from\s|envelope[ -](?:sender|from)",
    re.I,
)
_RECIPIENT_LABEL: Final = re.compile(
    r"^[\s>*#|.-]*(?:(?:failed |original |final |actual |intended )?recipients?(?: address)?"
    r"|rcpt to|addressed to|(?:undeliverable|failed|target mail|mail) address|error-for"
    r"|email|address|收信人|收件地址|宛先)\s*[:：=]",
    re.I,
)
_TO_LABEL: Final = re.compile(r"^[\s>*#|.-]*(?:to|cc|收件人)\s*[:：]", re.I)
_BULLETS: Final = re.compile(r"[\s>*#|•·.\-\"'<(\[]*(?:(?:rfc822|smtp|mailto)\s*[;:]\s*)?<?", re.I)
_FROM: Final = re.compile(r"(?<!generated )(?<!expanded )\b(?:from|sender)\s*[:<]?\s*<?$", re.I)
_NAME: Final = re.compile(r"\s*<?([A-Za-z0-9][\w.+-]{0,63})>?\s*")
_PROSE: Final = re.compile(r"['\">)]? [a-z]+[ ,]")
_CONTACT: Final = re.compile(
    r"\b(?:contact|call|write to|e-?mail us|forward|send (?:an? )?(?:e-?)?mail"
    r"|for (?:assistance|help)|mailto|please (?:e-?mail|send)|questions)\b|联系|聯絡",
    re.I,
)
HEADER: Final = re.compile(r"^[>\s|]{0,8}([A-Za-z][\w-]{1,60}):(?:\s|\S)")
_SURE_HEADERS: Final = frozenset(
    {"received", "message-id", "mime-version", "return-path", "content-type", "x-mailer",
     "delivered-to", "dkim-signature", "content-transfer-encoding"}
)  # fmt: skip
_COMMON_HEADERS: Final = _SURE_HEADERS | {"from", "to", "subject", "date", "cc", "reply-to"}
_TAG: Final = re.compile(r"<(?=[a-zA-Z/!?])[^<>]{0,4000}>")
_BLOCK: Final = re.compile(r"<(?:br|/?p|/?div|/?tr|/?li|/?h\d|hr)\b[^<>]{0,2000}>", re.I)
_HIDDEN: Final = re.compile(r"<(style|script|title)\b", re.I)
_ENTITIES: Final = {"&lt;": "<", "&gt;": ">", "&nbsp;": " ", "&quot;": '"', "&#39;": "'",
                    "&#64;": "@", "&amp;": "&"}  # fmt: skip
_LINE_SIGNS: Final = " \t-=*#|>_[]().:~—"
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


@dataclass(slots=True)
class Mention:
    """An address in a text; the higher the rank, the surer it is one that failed."""

    address: str
    rank: int
    line: int
    said: list[str] = field(default_factory=list)


def addresses_in(text: str) -> Iterator[str]:
    """Yield what looks like a mail address."""
    for found in _ADDRESS.finditer(text):
        address = found[0].lstrip("'`*=.").rstrip(".-_")
        if address[:5].upper() == "SMTP=":  # an X.400 address: …;dda:SMTP=person@example.com
            address = address[5:]
        local, _, domain = address.rpartition("@")
        # Archives shorten them: per...@example.com, person@exam...
        cut = local.endswith(".") or ("." not in domain and text[found.end() :].startswith(".."))
        if local and domain and not cut:
            yield address


def is_daemon_name(local_part: str) -> bool:
    return local_part.strip(' <>"').lower() in DAEMONS


# The text, and the mail that came back


def html_text(html: str) -> str:
    """Return the words of a page; what is not shown and all tags left out."""
    for found in reversed(list(_HIDDEN.finditer(html))[:50]):
        end = html.lower().find(f"</{found[1].lower()}", found.end())
        html = html[: found.start()] + (html[end:] if end >= 0 else "")
    text = _TAG.sub("", _BLOCK.sub("\n", html.replace("\r\n", " ").replace("\n", " ")))
    for entity, sign in _ENTITIES.items():
        text = text.replace(entity, sign)
    return text


def own_and_returned(lines: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the mail system's own lines, and those of the mail that it quotes below."""
    for number, line in enumerate(lines):
        if _begins_original(lines, number) and not _goes_on(lines, number):
            return list(lines[:number]), list(lines[number:])
        if number and _announces_original(line) and not _has_report(lines[number + 1 :]):
            return list(lines[:number]), list(lines[number + 1 :])
    return list(lines), []


def _announces_original(line: str) -> bool:
    return len(line) < 120 and line.lower().lstrip(_LINE_SIGNS).startswith(RETURNED)


def _has_report(lines: Sequence[str]) -> bool:
    """Return whether the mail system has more to say, further down."""
    for number, line in enumerate(lines[:40]):
        if _begins_original(lines, number):
            return False
        lower = line.lower()
        if "final-recipient:" in lower or "the following addresses" in lower:
            return True
        if "@" in line and (_REPLY.search(line) or says(lower, FAILED)):
            return True
    return False


def _goes_on(lines: Sequence[str], number: int) -> bool:
    """Return whether the report itself goes on below some headers of the mail."""
    block = itertools.takewhile(str.strip, lines[number:])
    below = lines[number + sum(1 for _ in block) :][:8]
    return any(says(line.lower(), FAILED) and line.rstrip().endswith(":") for line in below)


def _begins_original(lines: Sequence[str], number: int) -> bool:
    """Return whether the headers of a mail begin here: some that are common, one that is sure."""
    first = HEADER.match(lines[number])
    if first is None or first[1].lower() not in _COMMON_HEADERS:
        return False
    names = set()
    for line in lines[number : number + 40]:
        if not line.strip(" >|"):
            break
        if found := HEADER.match(line):
            names.add(found[1].lower())
    return len(names & _COMMON_HEADERS) >= 3 and bool(names & _SURE_HEADERS)


def fields_of(lines: Iterable[str]) -> dict[str, list[str]]:
    """Return the header fields that the lines begin with, also quoted or indented ones."""
    fields: dict[str, list[str]] = {}
    last: list[str] | None = None
    for line in lines:
        found = HEADER.match(line)
        if found:
            last = fields.setdefault(found[1].lower(), [])
            if len(last) < VALUES_LIMIT:
                last.append(line.split(":", 1)[1].strip()[:VALUE_LIMIT])
        elif last and line[:1] in " \t>" and line.strip():
            last[-1] = f"{last[-1]} {line.strip()}"[:VALUE_LIMIT]
        elif not line.strip() and len(fields) > 2:
            break
    return fields


# Who was not reached


def mentions_in(
    lines: Sequence[str], *, own: AbstractSet[str], meant: AbstractSet[str]
) -> list[Mention]:
    """Return the addresses of which the text says that they failed, in order.

    In lower case, `own` are who wrote the mail that came back, `meant` whom it was written to.
    """
    seen = list(itertools.islice(ranked(lines), 10 * RECIPIENTS_LIMIT))
    mentions = _blamed(lines, seen, own)
    best = max((mention.rank for mention in mentions), default=0)
    kept: dict[str, Mention] = {}
    for mention in mentions:
        if mention.rank == best and len(kept) < RECIPIENTS_LIMIT:
            kept.setdefault(mention.address.lower(), mention)
    if best == 1 and len(kept) > 1:  # an address, but for what?
        kept = {address: mention for address, mention in kept.items() if address in meant}
    chosen = list(kept.values())
    _hear(lines, chosen, mentions)
    return chosen


def _blamed(lines: Sequence[str], seen: Sequence[Mention], own: AbstractSet[str]) -> list[Mention]:
    """Leave out who wrote the mail, and whom to ask unless there is no other.

    Who wrote to himself comes last: rank 0, where a line begins with his address.
    """
    others = [one for one in seen if one.address.lower() not in own]
    users = [one for one in others if not is_daemon_name(one.address.rpartition("@")[0])]
    if any(one.rank > 1 for one in users):
        return users
    if found := [one for one in others if one.rank == 3] or users:
        return found
    return [replace(one, rank=0) for one in seen if _begins(lines, one.line, one.address)]


def _hear(lines: Sequence[str], chosen: Sequence[Mention], mentions: Sequence[Mention]) -> None:
    """Give each address the lines that follow it, up to the next one."""
    starts = sorted({mention.line for mention in chosen})
    others: dict[str, list[int]] = {}
    for mention in mentions:
        others.setdefault(mention.address.lower(), []).append(mention.line)
    for mention in chosen:
        place = bisect_right(starts, mention.line)
        end = starts[place] if place < len(starts) else len(lines)
        mention.said = _spoken(lines[mention.line : min(end, mention.line + 40)])[:_SAID]
        for line in others[mention.address.lower()]:
            if line >= end:  # further down, as in a transcript
                mention.said += _spoken(lines[line : line + 4])
                break


def _spoken(lines: Iterable[str]) -> list[str]:
    """Return the lines that say something: no rules, no blank ones."""
    return [line for line in lines if line.strip(_LINE_SIGNS)]


def said_of(address: str, mentions: Sequence[Mention]) -> list[str]:
    """Return the lines that belong to an address."""
    for mention in mentions:
        if mention.address.lower() == address.lower():
            return mention.said
    return []


def ranked(lines: Sequence[str]) -> Iterator[Mention]:
    """Yield each address that may be one that failed, as often as it stands there."""
    failed_at = -100
    for number, line in enumerate(lines):
        lower = line.lower()
        fails = says(lower, FAILED) or says(lower, DELAYED)
        if fails:
            failed_at = number
        if "@" not in line:
            continue
        for address in addresses_in(line):
            rank = _rank(lines, number, address, number - failed_at)
            if rank:
                yield Mention(address, rank, number)


def _rank(lines: Sequence[str], number: int, address: str, since: int) -> int:
    """Return how sure it is that `address` failed; `since` lines ago the text spoke of failing."""
    line = lines[number]
    if _RCPT.search(line):
        return _rank_of_recipient(lines, number)
    if _SENDER_LABEL.search(line):
        return 0
    if _FROM.search(line.partition(address)[0]):
        return 0
    begins = _begins(lines, number, address)
    if begins and since < 60:
        return 3
    if _CONTACT.search(line):
        return 0
    if since == 0 or _REPLY.search(line):
        return 3
    if _TO_LABEL.match(line):  # before it says that anything failed: who it was written to
        return 2 if since < 60 else 1
    return 2 if _RECIPIENT_LABEL.match(line) or begins or since <= 3 else 1


def _begins(lines: Sequence[str], number: int, address: str) -> bool:
    """Return whether the line is about the address: in prose it may begin one by chance."""
    before, _, after = lines[number].partition(address)
    if not _BULLETS.fullmatch(before):
        return False
    above = lines[number - 1].rstrip() if number else ""
    wraps = above[-1:].isalnum() or above.endswith(",")
    return not (_PROSE.match(after) and wraps and _indent(above) == _indent(before))


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _rank_of_recipient(lines: Sequence[str], number: int) -> int:
    """Return the rank of an address in RCPT TO: low if the server took it, but perhaps not DATA."""
    for line in lines[number + 1 : number + 6]:
        if answer := _ANSWER.match(line):
            return 1 if answer[1] in "23" else 3
        if _RCPT.search(line):
            break
    return 2


def local_names(lines: Sequence[str]) -> list[str]:
    """Return users that a mail system names without its domain, below a line that ends in ":"."""
    for number, line in enumerate(lines):
        if line.rstrip().endswith(":") and _says_failed(lines, number):
            below = itertools.dropwhile(lambda one: not one.strip(), lines[number + 1 :])
            names = [_NAME.fullmatch(one) for one in itertools.takewhile(str.strip, below)]
            return [name[1] for name in names[:RECIPIENTS_LIMIT] if name]
    return []


def _says_failed(lines: Sequence[str], number: int) -> bool:
    return says(" ".join(lines[max(number - 2, 0) : number + 1]).lower(), FAILED)


# Why


def status_of(given: str, said: Sequence[str], permanent: bool) -> str:
    """Return the most telling status of the given one and those in the words.

    Without any it is made of the class of a reply and of what the words mean; x.0.0 is "other
    undefined status" (RFC 3463 section 3.1).
    """
    text = " ".join("\n".join(said)[:TEXT_LIMIT].split())
    codes = [given] if given else []
    codes += [found[0] for found in STATUS.finditer(text) if found[1] != "2"]
    best = max(codes, key=telling, default="")
    if telling(best) > 0:
        return best
    reply = _REPLY.search(text)
    told = (best or (reply[0] if reply else ""))[:1]
    words = text.lower()
    if not told:
        told = "5" if permanent and not says(words, TRANSIENT) else "4"
    return f"{told}.{_reason(words)}"


def telling(status: str) -> int:
    """Return how much a status says: nothing, roughly where, that time ran out, or why."""
    if not status or status.endswith(".0.0"):
        return 0
    if status.endswith(".0"):
        return 1
    return 2 if status.endswith(".4.7") else 3


def _reason(words: str) -> str:
    for detail, phrases in REASONS.items():
        if says(words, phrases):
            return detail
    return "0.0"


def replies_in(lines: Iterable[str]) -> list[str]:
    """Return the lines in which another server refuses something."""
    return [
        line for line in lines
        if _REPLY.search(line) or any(found[1] != "2" for found in STATUS.finditer(line))
    ][:_SAID]  # fmt: skip


# Small things


def says(words: str, phrases: Iterable[str]) -> bool:
    return any(phrase in words for phrase in phrases)


def header_text(raw: str) -> str:
    """Return a header's text, decoded as well as it goes, on one line."""
    return one_line(charsets.header_text(raw)[0])


def one_line(text: str) -> str:
    return " ".join(_CONTROL.sub(" ", text).split())
