"""A mail that was read becomes a contact: whose it is, what it belongs to, what it asks (pure)."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from contactd.mail.parsed import Read, Stored, Verdict
from contactd.tickets.contact import (
    Blob,
    Contact,
    File,
    MailFacts,
    Medium,
    Undelivered,
    Writer,
)
from contactd.tickets.numbers import mentioned
from contactd.tickets.replies import Sender, Verb, parse

SHORTEST_ID: Final = 8  # signs, with its <>
MOST_REFERENCES: Final = 50  # the nearest; RFC 5322 sets no limit
_SIGNATURE: Final = re.compile(r"-- ?\Z|_{5,}\Z|(sent from|发自|获取).{0,40}\Z", re.IGNORECASE)
_SAMPLE: Final = "1234567890"  # a number of the right length: what it answers is known later
_LONGEST_LINE: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Belongs:
    """What a mail proves by addresses and Message-IDs that only we can have made."""

    ticket: str = ""  # number
    about: str = ""  # ref of a notification


def contact_of(  # noqa: PLR0913 - what is known of a mail
    read: Read,
    *,
    external_id: str,
    received_at: datetime,
    mailbox: str,
    belongs: Belongs,
    scanned: Mapping[str, str],
) -> Contact:
    """Return the contact of a mail that came to `mailbox`; `scanned` is of `scanning`."""
    is_bulk = read.kind is Writer.PERSON and scanned.get("spam") == "spam"
    writer = Writer.LIST if is_bulk else read.kind
    is_person = writer is Writer.PERSON
    facts = MailFacts(
        writer=writer,
        subject=read.subject,
        message_id=read.message_id if is_id(read.message_id) else "",
        references=tuple(_nearest_first(read)),
        to=tuple(each.address for each in read.to),
        cc=tuple(each.address for each in read.cc),
        proved=belongs.ticket,
        mentioned=tuple(mentioned(read.subject)),
        forged=is_forged(read.verdict),
        checks={**_checks(read), **scanned},
        folds=read.folds,
        notes=tuple(sorted(note.value for note in read.notes)),
        reply=asked(read.text, read.folds) if is_person else "",
        undelivered=_undelivered(read),
        about=belongs.about,
    )
    return Contact(
        medium=Medium.MAIL,
        external_id=external_id,
        received_at=received_at,
        from_value=read.sender.address,
        from_name=read.sender.name,
        to_value=mailbox,
        text=read.text,
        mail=facts,
        html=read.html,
        files=tuple(_files(read)),
    )


def is_id(message_id: str) -> bool:
    """Return whether a Message-ID tells mails apart; `<>` and `<1>`, as devices have, do not."""
    return len(message_id) >= SHORTEST_ID and "@" in message_id and message_id.isprintable()


def is_forged(verdict: Verdict) -> bool:
    """Return whether the sender's domain disowns a mail: by DMARC, or by SPF and nothing else."""
    return verdict.dmarc == "fail" or (verdict.spf == "fail" and not verdict.aligned)


def asked(text: str, folds: Iterable[tuple[int, int]]) -> str:
    """Return the line of a mail that says what to do, "" if a person has to read it.

    It is the first one that is new. That something is solved counts only if nothing more is said:
    "OK, but the printer is still broken" closes no ticket.
    """
    lines = list(_own_lines(text, folds))
    if not lines or len(lines[0]) > _LONGEST_LINE:
        return ""
    reply = None
    for sender in Sender:
        for line in with_number(lines[0], _SAMPLE):
            reply = reply or parse(line, sender)
    if reply is None or (reply.verb is Verb.SOLVED and len(lines) > 1):
        return ""
    return lines[0]


def with_number(line: str, ticket: str) -> Iterator[str]:
    """Yield a reply as it is, if it names a ticket, and as one about `ticket`.

    A code comes behind the number: `到 4711` is `到 26112200172 4711`.
    """
    verb, _, rest = line.partition(" ")
    yield line
    yield f"{line} {ticket}"
    if rest:
        yield f"{verb} {ticket} {rest}"


def _own_lines(text: str, folds: Iterable[tuple[int, int]]) -> Iterator[str]:
    """Yield the lines that are neither quoted nor empty nor the signature."""
    own, end = [], 0
    for start, stop in folds:
        own.append(text[end:start])
        end = stop
    for line in "".join((*own, text[end:])).splitlines():
        if _SIGNATURE.match(line.rstrip("\r")) or line.strip() == "--":
            return
        if stripped := line.strip():
            yield stripped


def _nearest_first(read: Read) -> Iterator[str]:
    found = dict.fromkeys((*read.in_reply_to, *reversed(read.references)))
    if read.bounce is not None and read.bounce.message_id:
        found = {read.bounce.message_id: None, **found}
    for message_id, _ in zip(filter(is_id, found), range(MOST_REFERENCES), strict=False):
        yield message_id


def _checks(read: Read) -> dict[str, str]:
    verdict = read.verdict
    found = {"spf": verdict.spf, "dkim": verdict.dkim, "dmarc": verdict.dmarc}
    if verdict.aligned:
        found["aligned"] = verdict.from_domain
    return {name: value for name, value in found.items() if value != "none"}


def _undelivered(read: Read) -> tuple[Undelivered, ...]:
    if read.kind is not Writer.BOUNCE or read.bounce is None:
        return ()
    return tuple(
        Undelivered(address=each.address, status=each.status, permanent=each.permanent)
        for each in read.bounce.recipients
    )


def _files(read: Read) -> Iterator[File]:
    yield _file("raw", read.raw)
    for stored in read.stored:
        yield _file("inline" if stored.is_inline else "attachment", stored)


def _file(kind: str, stored: Stored) -> File:
    blob = Blob(
        sha256=stored.sha256,
        size_bytes=stored.size_bytes,
        media_type=stored.media_type,
        name=stored.name,
    )
    return File(kind=kind, blob=blob, content_id=stored.content_id)
