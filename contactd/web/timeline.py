"""Everything said about a ticket and every step of it, in one line of time, the newest first.

What people said and decided stands by itself; steps that contactd took by itself are folded
together where several follow each other.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Final

from contactd.store.ticketviews import NOTED, WRITTEN, Sent, Slice
from contactd.store.views import AttachmentView, ContactView
from contactd.tickets.journal import SYSTEM, Entry
from contactd.tickets.model import COMMENT
from contactd.web.sentences import Line
from contactd.web.words import N_

# Shown in place: what a browser draws and never runs. SVG and HTML are not among them.
PICTURES: Final = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
LARGEST_PICTURE: Final = 8_000_000  # bytes; a larger one is a link
FILTERS: Final[Mapping[str, str]] = {
    "all": N_("Everything"),
    "said": N_("What was said"),
    "notes": N_("Notes"),
}
_FOLDED_FROM: Final = 2
_SAME_SENDING: Final = timedelta(seconds=30)  # the entry and the message are of one act
# Steps that happen by themselves or tell of a contact that is shown itself.
_SMALL: Final = frozenset(
    {
        "opened", "contact.added", "call.answered", "call.ended", "call.corrected", "reply.heard",
        "requester.told", "requester.not_told", "confirm.asked", "survey.asked",
    }
)  # fmt: skip
_SMALL_KINDS: Final = ("escalation.", "clock.", "calling.")
_ALWAYS_SHOWN: Final = frozenset({"clock.breached"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One thing in the line; exactly one of `contact` and `line` is there."""

    kind: str  # contact, written, note, step
    at: datetime
    rank: int
    number: int  # of the contact, or the entry's place
    contact: ContactView | None = None
    line: Line | None = None
    medium: str = ""  # of what was written
    subject: str = ""
    sent: Sent | None = None
    is_small: bool = False


def line_of(found: Slice, tell: Callable[[Entry], Line]) -> list[list[Item]]:
    """Return the line in groups: small steps that follow each other are one, others alone."""
    items = sorted(
        [*_contacts(found), *_entries(found, tell)],
        key=lambda item: (-item.at.timestamp(), item.rank, -item.number),
    )
    groups: list[list[Item]] = []
    for is_small, some in groupby(items, key=lambda item: item.is_small):
        alike = list(some)
        groups.extend(
            [alike] if is_small and len(alike) >= _FOLDED_FROM else [[item] for item in alike]
        )
    return groups


def _contacts(found: Slice) -> Iterator[Item]:
    for each in found.contacts:
        yield Item(kind="contact", at=each.received_at, rank=1, number=each.id, contact=each)


def _entries(found: Slice, tell: Callable[[Entry], Line]) -> Iterator[Item]:
    left = list(found.sent)
    for entry in found.entries:
        yield Item(
            kind=_kind(entry),
            at=entry.at,
            rank=0,
            number=entry.seq,
            line=tell(entry),
            medium=str(entry.body.get("medium", "")),
            subject=str(entry.body.get("subject", "")),
            sent=_sending(entry, left),
            is_small=is_small(entry),
        )


def _kind(entry: Entry) -> str:
    if entry.action == WRITTEN:
        return "written"
    return "note" if entry.action == COMMENT else "step"


def is_small(entry: Entry) -> bool:
    """Return whether a step is folded away together with its neighbours."""
    if entry.action in _ALWAYS_SHOWN or entry.body.get("note"):
        return False
    is_own = entry.actor == SYSTEM and entry.action not in NOTED
    return is_own or entry.action in _SMALL or entry.action.startswith(_SMALL_KINDS)


def _sending(entry: Entry, left: list[Sent]) -> Sent | None:
    """Return the message of what was written; each belongs to one entry."""
    if entry.action != WRITTEN:
        return None
    for sent in left:
        is_near = abs(sent.created_at - entry.at) < _SAME_SENDING
        if is_near and sent.words == entry.body.get("note"):
            left.remove(sent)
            return sent
    return None


# Texts and files of contacts


def pieces(contact: ContactView) -> Iterator[tuple[str, bool]]:
    """Yield the text of a contact in parts, and whether a part quotes earlier mails."""
    end = 0
    for start, stop in contact.mail.folds if contact.mail is not None else ():
        yield contact.text[end:start].strip("\r\n"), False
        yield contact.text[start:stop].strip("\r\n"), True
        end = stop
    yield contact.text[end:].strip("\r\n"), False


def infected(contact: ContactView) -> bool:
    """Return whether a scanner has found a virus in what came."""
    said = contact.mail.checks.get("virus", "") if contact.mail is not None else ""
    return said not in ("", "clean", "unscanned")


def is_picture(file: AttachmentView) -> bool:
    return file.media_type in PICTURES and file.size_bytes <= LARGEST_PICTURE


def is_sound(file: AttachmentView) -> bool:
    return file.kind in ("recording", "voicemail") or file.media_type.startswith("audio/")
