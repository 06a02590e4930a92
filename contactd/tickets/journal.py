"""The journal of a ticket: what happened, append-only and hash-chained (pure).

An entry's hash covers the entry before it, so that changing, removing or inserting one shows in
every later one; the ticket's own row keeps the last hash, so that cutting off the end shows too.
Entries name tickets by number and contacts by external id, never by a database's own id: a
journal means the same after an export.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from contactd.tickets.contact import ECHOES

LONGEST_ACTOR: Final = 80  # characters, as in its column
SYSTEM = "system"
REQUESTER = "requester"


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """An entry before it has a place in the chain.

    `at` is when contactd learned of it; instants of the fact itself are in `body`, as text.
    `body` holds only what JSON keeps unchanged: text, integers, booleans, null, lists, objects.
    """

    at: datetime
    actor: str  # requester, system, engineer:<key>, user:<name>; up to LONGEST_ACTOR
    action: str
    state: str  # of the ticket, after it
    body: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    ticket: str  # the ticket's number
    seq: int  # 1, 2, 3, … without a gap
    at: datetime
    actor: str
    action: str
    state: str
    body: Mapping[str, Any]
    prev_hash: str  # "" for the first
    hash: str


def asks_nothing(entry: Entry) -> bool:
    """Return whether a contact joined that asks nobody for anything: a vacation note, a bounce,
    a mail of the engineer who has the ticket.

    What opened a ticket is not one of them: whoever wrote it, somebody has to look.
    """
    body = entry.body
    is_echo = body.get("writer") in ECHOES or bool(body.get("engineer"))
    return entry.action == "contact.added" and is_echo


def instant_text(at: datetime) -> str:
    """Return an instant as fixed-width UTC text, the same whatever zone it was given in."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"


def canonical(ticket: str, seq: int, draft: Draft) -> bytes:
    """Return the one way to write an entry down: sorted keys, no spaces, ASCII only."""
    document = {
        "action": draft.action,
        "actor": draft.actor,
        "at": instant_text(draft.at),
        "body": draft.body,
        "seq": seq,
        "state": draft.state,
        "ticket": ticket,
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def chain(ticket: str, drafts: Sequence[Draft], *, seq: int, prev_hash: str) -> tuple[Entry, ...]:
    """Give `drafts` their places behind the entry `seq` whose hash is `prev_hash` (0, "": none)."""
    entries = []
    for place, draft in enumerate(drafts, start=seq + 1):
        digest = hashlib.sha256(prev_hash.encode() + canonical(ticket, place, draft)).hexdigest()
        entries.append(
            Entry(
                ticket=ticket,
                seq=place,
                at=draft.at,
                actor=draft.actor,
                action=draft.action,
                state=draft.state,
                body=draft.body,
                prev_hash=prev_hash,
                hash=digest,
            )
        )
        prev_hash = digest
    return tuple(entries)


def verify(entries: Sequence[Entry], *, last_hash: str | None = None) -> str:
    """Return what is wrong with the whole journal of a ticket, in one line; "" if nothing is.

    `last_hash` is what the ticket's row says; without it a cut-off end cannot be noticed.
    """
    seq, prev_hash = 0, ""
    for entry in entries:
        if entry.seq != seq + 1:
            return f"entry {seq + 1} is missing"
        if entry.prev_hash != prev_hash:
            return f"entry {entry.seq} does not follow entry {seq}"
        draft = Draft(
            at=entry.at,
            actor=entry.actor,
            action=entry.action,
            state=entry.state,
            body=entry.body,
        )
        if chain(entry.ticket, [draft], seq=seq, prev_hash=prev_hash)[0].hash != entry.hash:
            return f"entry {entry.seq} was changed"
        seq, prev_hash = entry.seq, entry.hash
    if last_hash is not None and last_hash != prev_hash:
        return f"entries after {seq} are missing"
    return ""
