"""What people did beside tickets: users, the desk file, log-ins, recordings. Only ever added to.

What was done to a ticket is in the ticket's own journal.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, bindparam, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from contactd.clock import Clock
from contactd.errors import PermanentFailure
from contactd.store.engine import Database
from contactd.store.schema import acts

SYSTEM: Final = "system"  # the daemon, and whoever has a shell on its machine
LONGEST_PAGE: Final = 200
_ADD: Final = insert(acts)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LARGEST_ID: Final = 2**63 - 1
_ACTIONS: Final = (
    select(acts.c.action)
    .where(acts.c.at >= bindparam("since", type_=acts.c.at.type))
    .distinct()
    .order_by(acts.c.action)
)
RECENT: Final = timedelta(days=90)  # a list to choose from need not look through all the years


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """`actor` is `user:<name>`, `token:<name>` or `system`; `action` a noun.verb in the past."""

    id: int
    at: datetime
    actor: str
    action: str
    subject: str  # what it was done to, "" if that goes without saying
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ActFilters:
    """All must hold; "" and None do not filter. `action` may be its first word: `user`."""

    actor: str = ""
    action: str = ""
    subject: str = ""
    since: datetime | None = None
    until: datetime | None = None  # exclusive


@dataclass(frozen=True, slots=True, kw_only=True)
class ActPage:
    """The newest first; `next_cursor` asks for those before, "" at the end."""

    items: tuple[Act, ...]
    next_cursor: str


async def note_act(  # noqa: PLR0913 - the columns of a row
    connection: AsyncConnection,
    clock: Clock,
    *,
    actor: str,
    action: str,
    subject: str = "",
    body: Mapping[str, Any] | None = None,
) -> None:
    """Add an act to the transaction that does it: neither is there without the other."""
    row = {
        "at": clock.now(),
        "actor": actor[:80],
        "action": action,
        "subject": _storable(subject)[:120],
        "body": dict(body or {}),
    }
    await connection.execute(_ADD, row)


class Acts:
    """Every method raises `TemporaryFailure` when the database is away."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def note(
        self, *, actor: str, action: str, subject: str = "", body: Mapping[str, Any] | None = None
    ) -> None:
        """Add an act in a transaction of its own."""
        async with self._database.writing() as connection:
            await note_act(
                connection, self._clock, actor=actor, action=action, subject=subject, body=body
            )

    async def page(self, filters: ActFilters, cursor: str = "", limit: int = 50) -> ActPage:
        """Return acts, the newest first.

        Raises:
            PermanentFailure: the cursor is none of ours.
        """
        most = min(max(limit, 1), LONGEST_PAGE)
        query = select(acts).where(*_conditions(filters))
        if cursor:
            at, last = _position(cursor)
            query = query.where(or_(acts.c.at < at, and_(acts.c.at == at, acts.c.id < last)))
        query = query.order_by(acts.c.at.desc(), acts.c.id.desc()).limit(most + 1)
        async with self._database.reading() as connection:
            rows = (await connection.execute(query)).mappings().all()
        found = tuple(Act(**row) for row in rows[:most])
        return ActPage(items=found, next_cursor=_cursor(found[-1]) if len(rows) > most else "")

    async def actions(self) -> tuple[str, ...]:
        """Return the kinds of acts that there were of late."""
        asked = {"since": self._clock.now() - RECENT}
        async with self._database.reading() as connection:
            return tuple((await connection.execute(_ACTIONS, asked)).scalars())


def _conditions(filters: ActFilters) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if filters.actor:
        found.append(acts.c.actor == _storable(filters.actor))
    if filters.action:
        action = _storable(filters.action)
        found.append(
            acts.c.action == action
            if "." in action
            else acts.c.action.startswith(f"{action}.", autoescape=True)
        )
    if filters.subject:
        found.append(acts.c.subject == _storable(filters.subject))
    if filters.since is not None:
        found.append(acts.c.at >= filters.since)
    if filters.until is not None:
        found.append(acts.c.at < filters.until)
    return found


def _storable(value: str) -> str:
    """Return a value in which PostgreSQL finds nothing to refuse (NUL, lone surrogates)."""
    return "".join(sign for sign in value if sign.isprintable())


def _cursor(last: Act) -> str:
    micros = (last.at - _EPOCH) // timedelta(microseconds=1)
    return base64.urlsafe_b64encode(f"{micros}.{last.id}".encode()).decode()


def _position(cursor: str) -> tuple[datetime, int]:
    try:
        micros, _, number = base64.urlsafe_b64decode(cursor).decode("ascii").partition(".")
        return _EPOCH + timedelta(microseconds=int(micros)), min(int(number), _LARGEST_ID)
    except (ValueError, OverflowError, binascii.Error) as error:
        raise PermanentFailure("the cursor is none of ours") from error
