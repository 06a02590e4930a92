"""External calendars as they were read last, and the stored duty that calendars of ours show."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, bindparam, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from contactd.routing.ical import Absence, View
from contactd.routing.plan import Feed
from contactd.routing.rota import Cause, Leave, Span, Why
from contactd.store.schema import feeds, spans
from contactd.store.upsert import upsert

_ALL: Final = select(feeds)
_ABSENCES: Final = select(feeds.c.key, feeds.c.url, feeds.c.absences)
_PUT: Final = upsert(feeds, ["key"])
_DROP: Final = delete(feeds).where(feeds.c.key == bindparam("feed"))
_BETWEEN: Final = (
    select(spans)
    .where(spans.c.until > bindparam("first"), spans.c.since < bindparam("last"))
    .order_by(spans.c.since, spans.c.site, spans.c.tier, spans.c.id)
)


# External calendars


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """The last good copy of an external calendar, and how the last try to renew it went."""

    key: str
    url: str
    body: str = ""
    etag: str = ""
    absences: tuple[Absence, ...] = ()
    read_until: datetime | None = None
    tried_at: datetime
    good_at: datetime | None = None
    error: str = ""


async def copies(connection: AsyncConnection) -> Mapping[str, Copy]:
    """Return the copies by the keys of their feeds.

    Raises:
        TemporaryFailure: the database is away.
    """
    rows = (await connection.execute(_ALL)).mappings()
    return {
        row["key"]: Copy(**{**row, "absences": tuple(_absences(row["absences"]))}) for row in rows
    }


async def keep(connection: AsyncConnection, copy: Copy) -> None:
    """Store a copy in the place of the one before."""
    told = [[each.start.isoformat(), each.end.isoformat()] for each in copy.absences]
    row = {name: getattr(copy, name) for name in Copy.__dataclass_fields__}
    await connection.execute(_PUT[connection.dialect.name], {**row, "absences": told})


async def forget(connection: AsyncConnection, keys: Iterable[str]) -> None:
    """Drop the copies of feeds that are not in the desk file any more."""
    if rows := [{"feed": key} for key in keys]:
        await connection.execute(_DROP, rows)


async def feed_leaves(connection: AsyncConnection, wanted: Sequence[Feed]) -> tuple[Leave, ...]:
    """Return the leave that external calendars tell of, as they were read last.

    A copy of another address than the feed has now does not count.

    Raises:
        TemporaryFailure: the database is away.
    """
    if not wanted:
        return ()
    known = {
        (row.key, row.url): row.absences for row in (await connection.execute(_ABSENCES)).all()
    }
    return tuple(
        Leave(
            key=f"{feed.key}-{absence.start:%Y%m%dT%H%M}",
            engineer=feed.engineer,
            start=absence.start,
            end=absence.end,
        )
        for feed in wanted
        for absence in _absences(known.get((feed.key, feed.url), []))
    )


def _absences(told: Iterable[Sequence[str]]) -> Iterable[Absence]:
    for start, end in told:
        yield Absence(start=datetime.fromisoformat(start), end=datetime.fromisoformat(end))


# Our calendars


async def spans_of(
    connection: AsyncConnection, view: View, key: str, first: datetime, last: datetime
) -> tuple[Span, ...]:
    """Return the stored duty of a person, a team or a site between two instants.

    What somebody who stands in took from a team is that team's.

    Raises:
        TemporaryFailure: the database is away.
    """
    wanted = _BETWEEN.where(_of(view, key))
    rows = await connection.execute(wanted, {"first": first, "last": last})
    return tuple(map(read_span, rows.mappings()))


def _of(view: View, key: str) -> ColumnElement[bool]:
    match view:
        case View.PERSON:
            return spans.c.engineer == key
        case View.TEAM:
            return spans.c.team == key
        case View.SITE:
            return spans.c.site == key


def read_span(row: Mapping[Any, Any]) -> Span:
    """Return what a row of table spans says."""
    return Span(
        site=row["site"],
        tier=row["tier"],
        team=row["team"],
        engineer=row["engineer"],
        since=row["since"],
        until=row["until"],
        why=tuple(Cause(kind=Why(kind), key=key) for kind, key in row["why"]),
        instead_of=row["instead_of"],
    )
