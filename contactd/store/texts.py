"""Texts as the database has them: what was handed to gateways, what they say of it, opt-outs."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import RowMapping, bindparam, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from contactd.clock import Clock
from contactd.store.engine import Database
from contactd.store.schema import (
    contacts,
    notifications,
    opt_outs,
    text_parts,
    text_reports,
    texts,
    tickets,
)
from contactd.store.upsert import upsert
from contactd.store.views import of_sites
from contactd.tickets.contact import Medium

REPORTS_LAST: Final = timedelta(days=3)  # of texts whose id never became known
SENT: Final = "sent"  # sms.gateway.Delivery
SENT_AGAIN_WITHIN: Final = timedelta(minutes=10)  # a part whose acknowledgement was lost
PARTS_LAST: Final = timedelta(days=3)  # of texts that never became whole, and of those that did

_HAND: Final = upsert(texts, ["ref"])
_NOTE_ID: Final = (
    update(texts)
    .where(texts.c.ref == bindparam("of"))
    .values(message_id=bindparam("id"), updated_at=bindparam("at", type_=texts.c.updated_at.type))
)
_TAKE_BACK: Final = delete(texts).where(texts.c.ref == bindparam("of"), texts.c.delivery == "")
_ONE: Final = select(texts).where(texts.c.ref == bindparam("of"))
_REF_OF: Final = (
    select(texts.c.ref)
    .where(texts.c.gateway == bindparam("by"), texts.c.message_id == bindparam("id"))
    .order_by(texts.c.handed_at.desc())
    .limit(1)
)
_SENT_TO: Final = select(func.count()).where(
    texts.c.number == bindparam("to"),
    texts.c.handed_at > bindparam("since", type_=texts.c.handed_at.type),
)
_DELIVERED: Final = (
    update(texts)
    .where(
        texts.c.ref == bindparam("of"), texts.c.delivery.in_(bindparam("before", expanding=True))
    )
    .values(
        delivery=bindparam("now_is"),
        error=bindparam("code"),
        updated_at=bindparam("at", type_=texts.c.updated_at.type),
    )
)
_EARLY: Final = upsert(text_reports, ["gateway", "message_id"])
_EARLY_OF: Final = select(text_reports.c.delivery, text_reports.c.error).where(
    text_reports.c.gateway == bindparam("by"), text_reports.c.message_id == bindparam("id")
)
_DROP_EARLY: Final = delete(text_reports).where(
    text_reports.c.gateway == bindparam("by"), text_reports.c.message_id == bindparam("id")
)
_ADD_PART: Final = insert(text_parts)
_SAME_TEXT: Final = (
    text_parts.c.gateway == bindparam("by"),
    text_parts.c.sender == bindparam("from_"),
    text_parts.c.recipient == bindparam("to"),
    text_parts.c.reference == bindparam("ref"),
    text_parts.c.total == bindparam("of"),
)
_PARTS: Final = (
    select(text_parts).where(*_SAME_TEXT).order_by(text_parts.c.series, text_parts.c.number)
)
_GIVE_UP: Final = (
    update(text_parts)
    .where(*_SAME_TEXT, text_parts.c.series == bindparam("nth"))
    .values(given_up=True)
)
_UNFINISHED: Final = (
    select(text_parts)
    .where(
        text_parts.c.received_at >= bindparam("since", type_=text_parts.c.received_at.type),
        text_parts.c.received_at < bindparam("before", type_=text_parts.c.received_at.type),
        text_parts.c.given_up.is_(False),
    )
    .order_by(text_parts.c.received_at)
)
_FORGET: Final = tuple(
    delete(table).where(column < bindparam("before", type_=column.type))
    for table, column in (
        (text_parts, text_parts.c.received_at),
        (text_reports, text_reports.c.reported_at),
    )
)
_OPT_OUT: Final = upsert(opt_outs, ["number"])
_OPT_IN: Final = delete(opt_outs).where(opt_outs.c.number == bindparam("of"))
_IS_OUT: Final = select(opt_outs.c.since).where(opt_outs.c.number == bindparam("of"))
_FILED: Final = (
    select(contacts.c.from_value, contacts.c.external_id, contacts.c.text, tickets.c.number)
    .select_from(contacts.join(tickets, tickets.c.id == contacts.c.ticket_id))
    .where(contacts.c.id == bindparam("contact"), contacts.c.medium == Medium.TEXT.value)
)
_KNOWN: Final = select(contacts.c.external_id).where(
    contacts.c.medium == Medium.TEXT.value,
    contacts.c.external_id.in_(bindparam("ids", expanding=True)),
)
_CHUNK: Final = 400  # values in one IN (…)
_LATEST: Final = (
    select(texts, notifications.c.reason, notifications.c.recipient, tickets.c.number.label("of"))
    .select_from(
        texts.outerjoin(notifications, notifications.c.client_ref == texts.c.ref).outerjoin(
            tickets, tickets.c.id == notifications.c.ticket_id
        )
    )
    .order_by(texts.c.handed_at.desc(), texts.c.ref)
    .limit(bindparam("most"))
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredText:
    """A text that was handed to a gateway; `delivery` "" until anything is known of it."""

    ref: str
    gateway: str
    message_id: str
    number: str
    body: str
    segments: int
    delivery: str
    error: str
    handed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPart:
    """A part of a text; `body` is UTF-16BE in hexadecimal, which may be half a sign."""

    gateway: str
    sender: str
    recipient: str
    reference: int
    total: int
    number: int
    body: str
    received_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialText:
    """A text of several parts as far as it is there; `part` is one of them."""

    part: StoredPart
    series: int
    bodies: Mapping[int, str]  # by number
    since: datetime  # when its first part came
    given_up: bool  # it was filed with gaps

    @property
    def is_whole(self) -> bool:
        return len(self.bodies) == self.part.total


@dataclass(frozen=True, slots=True, kw_only=True)
class FiledText:
    """A text that came in and was filed."""

    sender: str  # as the provider shows it
    external_id: str
    words: str
    ticket: str  # number


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownText:
    """A text as a page lists it."""

    text: StoredText
    ticket: str
    reason: str
    recipient: str


class Texts:
    """Every method raises `TemporaryFailure` while the database is away."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[AsyncConnection]:
        """Return a block with a transaction that sees what every other one of these has written.

        On PostgreSQL two that only read and write would each miss what the other one adds.
        """
        async with self._database.new_work() as work:
            yield work.connection
            await work.commit()

    # Out

    async def handing(
        self, *, ref: str, gateway: str, number: str, body: str, segments: int
    ) -> None:
        """Note that a text is about to be handed over: from now on it may have gone out."""
        now = self._clock.now()
        row = {
            "ref": ref, "gateway": gateway, "message_id": "", "number": number, "body": body,
            "segments": segments, "delivery": "", "error": "", "handed_at": now, "updated_at": now,
        }  # fmt: skip
        async with self._database.writing() as connection:
            await connection.execute(_HAND[connection.dialect.name], row)

    async def handed(self, ref: str, gateway: str, message_id: str) -> tuple[str, str]:
        """Note the provider's id; return what was reported of it already: delivery and error."""
        now = self._clock.now()
        async with self._alone() as connection:
            await connection.execute(_NOTE_ID, {"of": ref, "id": message_id[:80], "at": now})
            if not message_id:  # that it was taken is all that will ever be known
                come = {"of": ref, "before": [""], "now_is": SENT, "code": "", "at": now}
                await connection.execute(_DELIVERED, come)
                return "", ""
            known = {"by": gateway, "id": message_id[:80]}
            early = (await connection.execute(_EARLY_OF, known)).first()
            if early is not None:
                await connection.execute(_DROP_EARLY, known)
                come = {"of": ref, "before": [""], "now_is": early.delivery, "code": early.error}
                await connection.execute(_DELIVERED, {**come, "at": now})
        return (early.delivery, early.error) if early is not None else ("", "")

    async def taken_back(self, ref: str) -> None:
        """Note that a text has surely not gone out."""
        async with self._database.writing() as connection:
            await connection.execute(_TAKE_BACK, {"of": ref})

    async def text(self, ref: str) -> StoredText | None:
        async with self._database.reading() as connection:
            row = (await connection.execute(_ONE, {"of": ref})).mappings().first()
        return None if row is None else _stored(row)

    async def sent_to(self, number: str, since: datetime) -> int:
        """Return how many texts were handed over for a number since then."""
        async with self._database.reading() as connection:
            found = await connection.execute(_SENT_TO, {"to": number, "since": since})
            return int(found.scalar_one())

    async def reported(  # noqa: PLR0913 - what a report is made of
        self,
        *,
        gateway: str,
        ref: str,
        message_id: str,
        delivery: str,
        error: str,
        after: Sequence[str],
    ) -> str:
        """Note how far a text has come, if that is one of the states `after` now; return its ref.

        "": it is known, and this is no news; or its id is not, and the report is kept until it is.
        """
        now = self._clock.now()
        async with self._alone() as connection:
            if not ref:
                known = {"by": gateway, "id": message_id[:80]}
                ref = (await connection.execute(_REF_OF, known)).scalar_one_or_none() or ""
            if not ref:
                early = {
                    "gateway": gateway, "message_id": message_id[:80], "delivery": delivery,
                    "error": error[:80], "reported_at": now,
                }  # fmt: skip
                await connection.execute(_EARLY[connection.dialect.name], early)
                return ""
            news = {"of": ref, "before": ["", *after], "now_is": delivery, "code": error[:80]}
            changed = await connection.execute(_DELIVERED, {**news, "at": now})
        return ref if changed.rowcount else ""

    # In

    async def add_part(self, part: StoredPart) -> PartialText:
        """Keep a part; return the text that it belongs to, as far as it is there.

        A part that was kept already is not kept again. A reference is used again: another part in
        the same place, or a part of a text that has been whole for a while, begins a new text.
        """
        async with self._alone() as connection:
            rows = (await connection.execute(_PARTS, _names(part))).mappings().all()
            series = max((row["series"] for row in rows), default=0)
            held = [row for row in rows if row["series"] == series]
            bodies = {row["number"]: row["body"] for row in held}
            is_over = len(bodies) == part.total and (
                max(row["received_at"] for row in held) < part.received_at - SENT_AGAIN_WITHIN
            )
            if is_over or bodies.get(part.number, part.body) != part.body:
                series, held, bodies = series + 1, [], {}
            if part.number not in bodies:
                row = {
                    "gateway": part.gateway, "sender": part.sender, "recipient": part.recipient,
                    "reference": part.reference, "total": part.total, "series": series,
                    "number": part.number, "body": part.body, "received_at": part.received_at,
                }  # fmt: skip
                await connection.execute(_ADD_PART, row)
        first = min((row["received_at"] for row in held), default=part.received_at)
        return PartialText(
            part=part,
            series=series,
            bodies={**bodies, part.number: part.body},
            since=min(first, part.received_at),
            given_up=any(row["given_up"] for row in held),
        )

    async def unfinished(self, since: datetime, before: datetime) -> list[PartialText]:
        """Return the texts of which parts came in this time, and others never did."""
        span = {"since": since, "before": before}
        async with self._database.reading() as connection:
            rows = (await connection.execute(_UNFINISHED, span)).mappings().all()
            found = {}
            for row in rows:
                part = StoredPart(**{name: row[name] for name in StoredPart.__slots__})
                found[*_names(part).values(), row["series"]] = part
            sets = []
            for (*_, series), part in found.items():
                # All of it: others may have come before this time, or after it.
                all_parts = (await connection.execute(_PARTS, _names(part))).mappings().all()
                sets.append([each for each in all_parts if each["series"] == series])
        return [
            _partial(held)
            for held in sets
            if len(held) < held[0]["total"]
            and max(each["received_at"] for each in held) < before
            and not any(each["given_up"] for each in held)
        ]

    async def give_up(self, text: PartialText) -> None:
        """Note that a text was filed without the parts that are missing."""
        async with self._database.writing() as connection:
            await connection.execute(_GIVE_UP, {**_names(text.part), "nth": text.series})

    async def forget_parts(self) -> None:
        """Drop parts and reports that nothing will ever be made of."""
        before = self._clock.now() - max(PARTS_LAST, REPORTS_LAST)
        async with self._database.writing() as connection:
            for statement in _FORGET:
                await connection.execute(statement, {"before": before})

    async def known(self, external_ids: Collection[str]) -> set[str]:
        """Return those of the ids of texts that were filed."""
        asked, found = sorted(external_ids), set[str]()
        async with self._database.reading() as connection:
            for first in range(0, len(asked), _CHUNK):
                some = {"ids": asked[first : first + _CHUNK]}
                found |= set((await connection.execute(_KNOWN, some)).scalars())
        return found

    async def filed(self, contact_id: int) -> FiledText | None:
        async with self._database.reading() as connection:
            row = (await connection.execute(_FILED, {"contact": contact_id})).first()
        if row is None:
            return None
        return FiledText(
            sender=row.from_value, external_id=row.external_id, words=row.text, ticket=row.number
        )

    # Who wants none

    async def opt_out(self, number: str, word: str) -> None:
        row = {"number": number, "word": word[:40], "since": self._clock.now()}
        async with self._database.writing() as connection:
            await connection.execute(_OPT_OUT[connection.dialect.name], row)

    async def opt_in(self, number: str) -> None:
        async with self._database.writing() as connection:
            await connection.execute(_OPT_IN, {"of": number})

    async def is_out(self, number: str) -> bool:
        async with self._database.reading() as connection:
            return (await connection.execute(_IS_OUT, {"of": number})).first() is not None

    # To look at

    async def latest(self, most: int = 200, sites: frozenset[str] = frozenset()) -> list[ShownText]:
        """Return the texts that went out last, the latest first; of some sites, unless of all."""
        wanted = _LATEST.where(of_sites(sites)) if sites else _LATEST
        async with self._database.reading() as connection:
            rows = (await connection.execute(wanted, {"most": most})).mappings().all()
        return [
            ShownText(
                text=_stored(row),
                ticket=row["of"] or "",
                reason=row["reason"] or "",
                recipient=row["recipient"] or "",
            )
            for row in rows
        ]


def _names(part: StoredPart) -> dict[str, Any]:
    return {
        "by": part.gateway, "from_": part.sender, "to": part.recipient, "ref": part.reference,
        "of": part.total,
    }  # fmt: skip


def _partial(held: Sequence[RowMapping]) -> PartialText:
    row = held[0]
    part = StoredPart(
        **{name: row[name] for name in StoredPart.__slots__},
    )
    return PartialText(
        part=part,
        series=row["series"],
        bodies={each["number"]: each["body"] for each in held},
        since=min(each["received_at"] for each in held),
        given_up=False,
    )


def _stored(row: RowMapping) -> StoredText:
    return StoredText(
        ref=row["ref"],
        gateway=row["gateway"],
        message_id=row["message_id"],
        number=row["number"],
        body=row["body"],
        segments=row["segments"],
        delivery=row["delivery"],
        error=row["error"],
        handed_at=row["handed_at"],
    )
