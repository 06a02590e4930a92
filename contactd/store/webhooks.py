"""Webhooks: who wants to hear of tickets, what they are told, and how that went.

A delivery is a row from the moment when the journal entry that it tells of is looked at, until it
has arrived or was given up. Entries are looked at whenever a ticket is followed up, which is often
more than once: an entry is one row of each webhook, however often (its ref is made of the two).
"""

import base64
import json
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import RowMapping, and_, bindparam, delete, func, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from contactd.clock import Clock
from contactd.errors import NotFound, PermanentFailure
from contactd.store.acts import SYSTEM, note_act
from contactd.store.engine import Database
from contactd.store.schema import journal, sites, tickets, webhook_deliveries, webhooks
from contactd.tickets.journal import instant_text
from contactd.tickets.states import State

MOST: Final = 50  # webhooks
KEPT: Final = timedelta(days=45)  # deliveries; longer than `LOOKS_BACK`
LOOKS_BACK: Final = timedelta(days=30)  # entries: longer than an outbox is ever behind
OLD_SECRET: Final = timedelta(hours=24)
GIVES_UP: Final = timedelta(days=5)  # of one delivery, and of a webhook with nothing but failures
LONGEST_PAUSE: Final = timedelta(hours=1)
LEASE: Final = timedelta(seconds=60)
AT_ONCE: Final = 8  # deliveries of one webhook, each of another ticket
LONGEST_TEXT: Final = 4_000  # characters of each text in a body
_LARGEST_ID: Final = 2**63 - 1


class EventKind(StrEnum):
    TICKET_OPENED = "ticket.opened"
    TICKET_CHANGED = "ticket.changed"  # anything of it but what has an event of its own
    TICKET_RESOLVED = "ticket.resolved"
    TICKET_REOPENED = "ticket.reopened"
    TICKET_CLOSED = "ticket.closed"  # or cancelled
    CONTACT_RECEIVED = "contact.received"
    CLOCK_BREACHED = "clock.breached"


class DeliveryState(StrEnum):
    WAITING = "waiting"
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"


TEST: Final = "webhook.test"
# What machines note about messages of theirs is nobody else's business.
_UNTOLD: Final = (
    "page.", "notice.", "escalation.", "reply.", "requester.told", "requester.not_told",
    "clock.warned", "hand_over.", "dispatch.not_told", "dispatch.code", "survey.", "confirm.asked",
)  # fmt: skip
_CONTACTS: Final = frozenset({"opened", "contact.added"})
_OVER: Final = frozenset({State.CLOSED.value, State.CANCELLED.value})


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """`events` and `sites` empty: all. `secrets` sign, the newest first."""

    id: int
    name: str
    url: str
    events: frozenset[str]
    sites: frozenset[str]
    has_text: bool
    secrets: tuple[str, ...]
    created_at: datetime
    created_by: str
    failures: int
    failing_since: datetime | None
    disabled_at: datetime | None
    disabled_why: str
    waiting: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a webhook is to be; None: it stays so."""

    name: str | None = None
    url: str | None = None
    events: Collection[str] | None = None
    sites: Collection[str] | None = None
    has_text: bool | None = None
    is_enabled: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    id: int
    ref: str
    event: str
    ticket_id: int | None
    body: str
    state: DeliveryState
    attempts: int
    status: int | None
    error: str
    created_at: datetime
    due_at: datetime
    settled_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What is to be sent to one webhook now."""

    webhook: Webhook
    deliveries: tuple[Delivery, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a try went; `error` "" : it has arrived."""

    delivery: Delivery
    status: int | None
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HookFigures:
    webhooks: int = 0
    waiting: int = 0
    failing: tuple[str, ...] = ()  # names
    disabled: tuple[str, ...] = ()  # by us


_D: Final = webhook_deliveries.c
_WAITING: Final = _D.state == DeliveryState.WAITING.value
_ALL: Final = select(webhooks).order_by(webhooks.c.id)
_ENABLED: Final = _ALL.where(webhooks.c.disabled_at.is_(None))
_ONE: Final = select(webhooks).where(webhooks.c.id == bindparam("webhook"))
_COUNTS: Final = (
    select(_D.webhook_id, func.count().label("count")).where(_WAITING).group_by(_D.webhook_id)
)
_ADD: Final = {
    name: dialect.insert(webhook_deliveries).on_conflict_do_nothing(
        index_elements=["webhook_id", "ref"]
    )
    for name, dialect in (("sqlite", sqlite), ("postgresql", postgresql))
}
_TICKET: Final = select(
    tickets.c.number, tickets.c.site, tickets.c.priority, tickets.c.state
).where(tickets.c.id == bindparam("ticket"))
_TOLD: Final = (
    select(_D.webhook_id, func.max(_D.seq).label("seq"))
    .where(_D.ticket_id == bindparam("ticket"))
    .group_by(_D.webhook_id)
)
_ENTRIES: Final = (
    select(journal)
    .where(
        journal.c.ticket_id == bindparam("ticket"),
        journal.c.at >= bindparam("since", type_=journal.c.at.type),
    )
    .order_by(journal.c.seq)
)
_BEFORE: Final = (
    select(journal.c.state)
    .where(journal.c.ticket_id == bindparam("ticket"), journal.c.seq < bindparam("seq"))
    .order_by(journal.c.seq.desc())
    .limit(1)
)
# The first that waits of each ticket: what comes later of one waits for what came before.
_earlier = webhook_deliveries.alias("earlier")
_FIRST: Final = (
    ~select(_earlier.c.id)
    .where(
        _earlier.c.webhook_id == _D.webhook_id,
        _earlier.c.ticket_id == _D.ticket_id,
        _earlier.c.state == DeliveryState.WAITING.value,
        or_(
            _earlier.c.seq < _D.seq,
            and_(_earlier.c.seq == _D.seq, _earlier.c.id < _D.id),
        ),
    )
    .exists()
)
_NEXT: Final = (
    select(webhook_deliveries)
    .where(
        _D.webhook_id == bindparam("webhook"),
        _WAITING,
        _D.due_at <= bindparam("now", type_=_D.due_at.type),
        _FIRST,
    )
    .order_by(_D.due_at, _D.id)
    .limit(AT_ONCE)
)
_CLAIM: Final = (
    update(webhooks)
    .where(
        webhooks.c.id == bindparam("webhook"),
        webhooks.c.disabled_at.is_(None),
        webhooks.c.due_at <= bindparam("now", type_=webhooks.c.due_at.type),
        or_(
            webhooks.c.lease_until.is_(None),
            webhooks.c.lease_until <= bindparam("now", type_=webhooks.c.lease_until.type),
        ),
    )
    .values(lease_until=bindparam("lease", type_=webhooks.c.lease_until.type))
)
_FORGET: Final = delete(webhook_deliveries).where(
    _D.created_at < bindparam("before", type_=_D.created_at.type)
)


def new_secret() -> str:
    """Return a secret as Standard Webhooks writes it: 24 to 64 random bytes in base64."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def pause(attempts: int) -> timedelta:
    """Return how long to wait after the failed try number `attempts` (1, 2, …)."""
    return min(timedelta(seconds=5 * 2 ** min(attempts - 1, 12)), LONGEST_PAUSE)


class Webhooks:
    """Every method raises `TemporaryFailure` when the database is away."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    # What administrators do

    async def add(self, wish: Wish, *, secret: str = "", actor: str) -> Webhook:
        """Store a new webhook.

        Raises:
            PermanentFailure: there are too many, or there is no such site.
        """
        now = self._clock.now()
        row = {
            "name": wish.name, "url": wish.url, "events": sorted(wish.events or ()),
            "sites": sorted(wish.sites or ()), "has_text": bool(wish.has_text),
            "secret": secret or new_secret(), "created_at": now, "created_by": actor[:88],
            "due_at": now,
        }  # fmt: skip
        async with self._database.writing() as connection:
            await _check_sites(connection, wish.sites or ())
            count = select(func.count()).select_from(webhooks)
            if (await connection.execute(count)).scalar_one() >= MOST:
                raise PermanentFailure(f"there are {MOST} webhooks: remove one first")
            added = await connection.execute(insert(webhooks).returning(webhooks.c.id), row)
            number = int(added.scalar_one())
            await self._note(connection, actor, "webhook.added", number, {"name": wish.name})
        return await self.one(number)

    async def all(self) -> tuple[Webhook, ...]:
        async with self._database.reading() as connection:
            rows = (await connection.execute(_ALL)).mappings().all()
            counts = await _counts(connection)
        return tuple(self._webhook(row, counts) for row in rows)

    async def one(self, number: int) -> Webhook:
        """Return a webhook.

        Raises:
            NotFound: there is none of this id.
        """
        async with self._database.reading() as connection:
            return self._webhook(await _row(connection, number), await _counts(connection))

    async def change(self, number: int, wish: Wish, *, actor: str) -> Webhook:
        """Change what is said; one that is enabled again begins with what waits for it.

        Raises:
            NotFound: there is none of this id.
            PermanentFailure: there is no such site.
        """
        now = self._clock.now()
        values: dict[str, Any] = {
            name: sorted(value) if name in ("events", "sites") else value
            for name in ("name", "url", "events", "sites", "has_text")
            if (value := getattr(wish, name)) is not None
        }
        told = sorted(values)
        if wish.is_enabled is not None:
            told.append("enabled" if wish.is_enabled else "disabled")
            values |= (
                {"disabled_at": None, "disabled_why": "", "failures": 0, "failing_since": None,
                 "due_at": now}
                if wish.is_enabled
                else {"disabled_at": now, "disabled_why": f"by {actor}"[:200]}
            )  # fmt: skip
        async with self._database.writing() as connection:
            await _row(connection, number)
            await _check_sites(connection, wish.sites or ())
            if values:
                await connection.execute(
                    update(webhooks).where(webhooks.c.id == number).values(values)
                )
                await self._note(connection, actor, "webhook.changed", number, {"changed": told})
        return await self.one(number)

    async def rotate(self, number: int, *, actor: str) -> str:
        """Give it a new secret and return it; the old one signs beside it for a day.

        Raises:
            NotFound: there is none of this id.
        """
        fresh = new_secret()
        async with self._database.writing() as connection:
            known = await _row(connection, number)
            values = {
                "secret": fresh, "old_secret": known["secret"],
                "old_secret_until": self._clock.now() + OLD_SECRET,
            }  # fmt: skip
            await connection.execute(update(webhooks).where(webhooks.c.id == number).values(values))
            await self._note(connection, actor, "webhook.rotated", number, {})
        return fresh

    async def remove(self, number: int, *, actor: str) -> None:
        """Remove a webhook with what waits for it.

        Raises:
            NotFound: there is none of this id.
        """
        async with self._database.writing() as connection:
            known = await _row(connection, number)
            await connection.execute(delete(webhook_deliveries).where(_D.webhook_id == number))
            await connection.execute(delete(webhooks).where(webhooks.c.id == number))
            told = {"name": known["name"]}
            await self._note(connection, actor, "webhook.removed", number, told)

    async def try_out(self, number: int) -> Delivery:
        """Have a test sent; return its delivery, which says later how it went.

        Raises:
            NotFound: there is none of this id.
        """
        now, ref = self._clock.now(), f"test-{secrets.token_hex(8)}"
        row = {
            "webhook_id": number, "ref": ref, "event": TEST, "ticket_id": None, "seq": 0,
            "body": _body(TEST, now, {}), "state": DeliveryState.WAITING.value,
            "created_at": now, "due_at": now,
        }  # fmt: skip
        async with self._database.writing() as connection:
            await _row(connection, number)
            await connection.execute(insert(webhook_deliveries), row)
            await connection.execute(
                update(webhooks).where(webhooks.c.id == number).values(due_at=now)
            )
        async with self._database.reading() as connection:
            found = await connection.execute(
                select(webhook_deliveries).where(_D.webhook_id == number, _D.ref == ref)
            )
            return _delivery(found.mappings().one())

    async def deliveries(
        self, number: int, before: int = 0, limit: int = 50
    ) -> tuple[tuple[Delivery, ...], int]:
        """Return the last ones, the newest first, and where the next page begins (0: nowhere).

        Raises:
            NotFound: there is none of this id.
        """
        query = select(webhook_deliveries).where(_D.webhook_id == number)
        if before:
            query = query.where(_D.id < min(before, _LARGEST_ID))
        async with self._database.reading() as connection:
            await _row(connection, number)
            found = await connection.execute(query.order_by(_D.id.desc()).limit(limit + 1))
            rows = found.mappings().all()
        return tuple(map(_delivery, rows[:limit])), rows[limit - 1]["id"] if len(
            rows
        ) > limit else 0

    # What is told

    async def tell(self, ticket_id: int) -> int:
        """Note what webhooks are to be told of a ticket by now; return how much it is."""
        async with self._database.reading() as connection:
            hooks = [
                self._webhook(row, {}) for row in (await connection.execute(_ENABLED)).mappings()
            ]
            if not hooks:
                return 0
            rows = await _news(connection, ticket_id, hooks, self._clock.now())
        if rows:
            async with self._database.writing() as connection:
                await connection.execute(_ADD[connection.dialect.name], rows)
        return len(rows)

    async def enabled(self) -> list[int]:
        async with self._database.reading() as connection:
            found = await connection.execute(_ENABLED.with_only_columns(webhooks.c.id))
            return list(found.scalars())

    async def claim(self, number: int) -> Round | None:
        """Return what is to be sent to a webhook now; it is ours until `settle`, or for `LEASE`.

        None: nothing, or another process is at it.
        """
        now = self._clock.now()
        asked = {"webhook": number, "now": now}
        async with self._database.reading() as connection:
            if (await connection.execute(_NEXT, asked)).first() is None:
                return None
        async with self._database.writing() as connection:
            claimed = await connection.execute(_CLAIM, {**asked, "lease": now + LEASE})
            if claimed.rowcount != 1:
                return None
            row = await _row(connection, number)
            found = (await connection.execute(_NEXT, asked)).mappings().all()
        # Tests belong to no ticket, and wait for nothing.
        return Round(webhook=self._webhook(row, {}), deliveries=tuple(map(_delivery, found)))

    async def settle(self, webhook: Webhook, outcomes: Sequence[Outcome]) -> str:
        """Note how a round went; return why the webhook was disabled because of it, "" if not."""
        now = self._clock.now()
        went_well = any(not each.error for each in outcomes)
        failures = 0 if went_well else webhook.failures + 1
        since = None if went_well else webhook.failing_since or now
        why = ""
        if since is not None and now - since > GIVES_UP:
            why = f"nothing has arrived since {instant_text(since)}: {outcomes[-1].error}"[:200]
        values: dict[str, Any] = {
            "lease_until": None, "failures": failures, "failing_since": since,
            "due_at": now if went_well else now + pause(failures),
        }  # fmt: skip
        if why:
            values |= {"disabled_at": now, "disabled_why": why}
        async with self._database.writing() as connection:
            for each in outcomes:
                await connection.execute(
                    update(webhook_deliveries)
                    .where(_D.id == each.delivery.id)
                    .values(_settled(each, now))
                )
            await connection.execute(
                update(webhooks).where(webhooks.c.id == webhook.id).values(values)
            )
            if why:
                await self._note(connection, SYSTEM, "webhook.disabled", webhook.id, {"why": why})
        return why

    async def forget(self) -> None:
        """Forget deliveries that are older than `KEPT`."""
        async with self._database.writing() as connection:
            await connection.execute(_FORGET, {"before": self._clock.now() - KEPT})

    async def figures(self) -> HookFigures:
        found = await self.all()
        return HookFigures(
            webhooks=len(found),
            waiting=sum(each.waiting for each in found),
            failing=tuple(each.name for each in found if each.failures and not each.disabled_at),
            disabled=tuple(
                each.name
                for each in found
                if each.disabled_at and not each.disabled_why.startswith("by ")
            ),
        )

    async def _note(
        self, connection: AsyncConnection, actor: str, action: str, number: int,
        body: Mapping[str, Any],
    ) -> None:  # fmt: skip
        await note_act(
            connection, self._clock, actor=actor, action=action, subject=f"webhook:{number}",
            body=body,
        )  # fmt: skip

    def _webhook(self, row: RowMapping, counts: Mapping[int, int]) -> Webhook:
        until = row["old_secret_until"]
        has_old = until is not None and until > self._clock.now()
        return Webhook(
            id=row["id"], name=row["name"], url=row["url"], events=frozenset(row["events"]),
            sites=frozenset(row["sites"]), has_text=row["has_text"],
            secrets=(row["secret"], *([row["old_secret"]] if has_old else [])),
            created_at=row["created_at"], created_by=row["created_by"], failures=row["failures"],
            failing_since=row["failing_since"], disabled_at=row["disabled_at"],
            disabled_why=row["disabled_why"], waiting=counts.get(row["id"], 0),
        )  # fmt: skip


async def _row(connection: AsyncConnection, number: int) -> RowMapping:
    asked = {"webhook": min(number, _LARGEST_ID)}
    row = (await connection.execute(_ONE, asked)).mappings().first()
    if row is None:
        raise NotFound("there is no such webhook")
    return row


async def _counts(connection: AsyncConnection) -> dict[int, int]:
    return {row.webhook_id: row.count for row in (await connection.execute(_COUNTS)).all()}  # type: ignore[misc]


async def _check_sites(connection: AsyncConnection, wanted: Collection[str]) -> None:
    if wanted:
        known = set((await connection.execute(select(sites.c.key))).scalars())
        if strangers := sorted(set(wanted) - known):
            raise PermanentFailure(f"there is no site {strangers[0]!r}")


async def _news(
    connection: AsyncConnection, ticket_id: int, hooks: Sequence[Webhook], now: datetime
) -> list[dict[str, Any]]:
    """Return the rows of what each webhook has not been told of a ticket."""
    found = await connection.execute(_TICKET, {"ticket": ticket_id})
    ticket = found.mappings().first()
    if ticket is None:
        return []
    told_rows = (await connection.execute(_TOLD, {"ticket": ticket_id})).all()
    told = {row.webhook_id: row.seq for row in told_rows}
    since = max(min(hook.created_at for hook in hooks), now - LOOKS_BACK)
    asked = {"ticket": ticket_id, "since": since}
    entries = (await connection.execute(_ENTRIES, asked)).mappings().all()
    if not entries:
        return []
    before = (
        await connection.execute(_BEFORE, {"ticket": ticket_id, "seq": entries[0]["seq"]})
    ).scalar_one_or_none() or ""
    rows = []
    for entry in entries:
        kind = kind_of(entry["action"], entry["seq"], entry["state"], before)
        before = entry["state"]
        if kind is None:
            continue
        for hook in hooks:
            is_new = entry["seq"] > told.get(hook.id, 0) and entry["at"] >= hook.created_at
            if is_new and _wants(hook, kind, ticket["site"] or ""):
                rows.append(_news_row(hook, kind, ticket, entry, ticket_id, now))
    return rows


def kind_of(action: str, seq: int, state: str, before: str) -> EventKind | None:
    """Return what a journal entry means to others, None if nothing; `before`: the state then."""
    if seq == 1:
        return EventKind.TICKET_OPENED
    if state != before:
        if state in _OVER:
            return EventKind.TICKET_CLOSED
        if state == State.RESOLVED.value:
            return EventKind.TICKET_RESOLVED
        if before in _OVER | {State.RESOLVED.value}:
            return EventKind.TICKET_REOPENED
    if action in _CONTACTS:
        return EventKind.CONTACT_RECEIVED
    if action == EventKind.CLOCK_BREACHED.value:
        return EventKind.CLOCK_BREACHED
    return None if action.startswith(_UNTOLD) else EventKind.TICKET_CHANGED


def _wants(hook: Webhook, kind: EventKind, site: str) -> bool:
    return (not hook.events or kind.value in hook.events) and (
        not hook.sites or not site or site in hook.sites
    )


def _news_row(  # noqa: PLR0913 - what a row is made of
    hook: Webhook, kind: EventKind, ticket: RowMapping, entry: RowMapping, ticket_id: int,
    now: datetime,
) -> dict[str, Any]:  # fmt: skip
    told: dict[str, Any] = {
        "ticket": ticket["number"], "seq": entry["seq"], "action": entry["action"],
        "state": entry["state"], "site": ticket["site"], "priority": ticket["priority"],
        "fields": sorted(entry["body"]),
    }  # fmt: skip
    if entry["action"] in _CONTACTS:
        told["medium"] = entry["body"].get("medium")
    if kind is EventKind.CLOCK_BREACHED:
        told["metric"] = entry["body"].get("metric")
    if hook.has_text:
        told["actor"] = entry["actor"]
        told["body"] = {name: _cut(value) for name, value in entry["body"].items()}
    return {
        "webhook_id": hook.id, "ref": f"{ticket['number']}-{entry['seq']}-{hook.id}",
        "event": kind.value, "ticket_id": ticket_id, "seq": entry["seq"],
        "body": _body(kind.value, entry["at"], told), "state": DeliveryState.WAITING.value,
        "created_at": now, "due_at": now,
    }  # fmt: skip


def _cut(value: Any) -> Any:
    return value[:LONGEST_TEXT] if isinstance(value, str) else value


def _body(kind: str, at: datetime, told: Mapping[str, Any]) -> str:
    """Return what is sent, in the words of Standard Webhooks: type, timestamp, data."""
    document = {"type": kind, "timestamp": instant_text(at), "data": told}
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def _settled(outcome: Outcome, now: datetime) -> dict[str, Any]:
    attempts = outcome.delivery.attempts + 1
    values: dict[str, Any] = {
        "attempts": attempts, "status": outcome.status, "error": outcome.error[:200],
    }  # fmt: skip
    if not outcome.error:
        return values | {"state": DeliveryState.DELIVERED.value, "settled_at": now}
    if now - outcome.delivery.created_at > GIVES_UP:
        return values | {"state": DeliveryState.GIVEN_UP.value, "settled_at": now}
    return values | {"due_at": now + pause(attempts)}


def _delivery(row: RowMapping) -> Delivery:
    kept = {name: row[name] for name in Delivery.__dataclass_fields__}
    return replace(Delivery(**kept), state=DeliveryState(row["state"]))
