"""The ledger: what the outside says came in on a day, against the contacts of that day."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from sqlalchemy import RowMapping, bindparam, select
from sqlalchemy.ext.asyncio import AsyncConnection

from contactd.clock import Clock
from contactd.log import get_logger
from contactd.metrics import LEDGER_DIFFERENCE
from contactd.store.engine import Database
from contactd.store.schema import contacts, ledger_days
from contactd.store.upsert import upsert
from contactd.tickets.contact import Direction, Medium, Source

log = get_logger()

# A call this young may be in one book and on its way to the other.
YOUNG: Final = timedelta(seconds=10)
# Our first look at a call and its first record differ by milliseconds: at midnight they can fall
# on different days.
EDGE: Final = timedelta(seconds=2)
_CHUNK: Final = 400  # values in one IN (…)


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerDay:
    """One day of one source. Lists hold external ids, sorted."""

    day: date
    medium: Medium
    source: str  # the PBX's name
    outside: int  # what the outside says came in
    contacts: int
    missing: tuple[str, ...]  # known outside only
    extra: tuple[str, ...]  # known to us only
    repaired: tuple[str, ...]  # that only the replay brought
    computed_at: datetime

    @property
    def difference(self) -> int:
        return len(self.missing) + len(self.extra)

    @property
    def balanced(self) -> bool:
        return self.difference == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Booked:
    """A contact as the ledger sees it."""

    received_at: datetime
    source: Source


def compare(  # noqa: PLR0913 - two books, a time, and how new counts
    outside: Mapping[str, datetime],
    booked: Mapping[str, Booked],
    *,
    start: datetime,
    end: datetime,
    now: datetime,
    young: timedelta = YOUNG,
) -> tuple[Collection[str], Collection[str], Collection[str]]:
    """Return what is missing in `booked`, what is extra in it, and all of it that is compared.

    `booked` holds the contacts of the time from `start` to `end`, and every other one that has an
    id of `outside`.
    """
    missing = {
        external_id
        for external_id, started_at in outside.items()
        if external_id not in booked and started_at <= now - young
    }
    extra = {
        external_id
        for external_id, contact in booked.items()
        if external_id not in outside
        and start + EDGE <= contact.received_at < end - EDGE
        and contact.received_at <= now - YOUNG
    }
    return missing, extra, extra | (outside.keys() & booked.keys())


_OF_TIME: Final = select(contacts.c.external_id, contacts.c.received_at, contacts.c.source).where(
    contacts.c.medium == bindparam("medium"),
    contacts.c.direction == Direction.IN.value,
    contacts.c.received_at >= bindparam("start", type_=contacts.c.received_at.type),
    contacts.c.received_at < bindparam("end", type_=contacts.c.received_at.type),
)
_OF_IDS: Final = select(contacts.c.external_id, contacts.c.received_at, contacts.c.source).where(
    contacts.c.medium == bindparam("medium"),
    contacts.c.external_id.in_(bindparam("ids", expanding=True)),
)
_UPSERT: Final = upsert(ledger_days, ["day", "medium", "source"])
_STORED: Final = select(ledger_days).where(
    ledger_days.c.day == bindparam("of_day"),
    ledger_days.c.medium == bindparam("of_medium"),
    ledger_days.c.source == bindparam("of_source"),
)


class Ledger:
    """Settles days; `zone` (IANA name) says where a day begins."""

    def __init__(self, database: Database, clock: Clock, zone: str) -> None:
        self._database = database
        self._clock = clock
        self._zone = ZoneInfo(zone)

    def today(self) -> date:
        return self._clock.now().astimezone(self._zone).date()

    def is_closed(self, day: date) -> bool:
        """Tell whether the day's row stays as it is: the records it is made of do not last."""
        return day < self.today() - timedelta(days=1)

    async def stored(
        self, day: date, source: str, medium: Medium = Medium.CALL
    ) -> LedgerDay | None:
        """Return what was found when the day was settled last; None if it never was."""
        async with self._database.reading() as connection:
            return await _stored(connection, day, source, medium)

    async def settle(
        self,
        day: date,
        source: str,
        outside: Mapping[str, datetime],
        medium: Medium = Medium.CALL,
        young: timedelta = YOUNG,
    ) -> LedgerDay:
        """Compare a day's contacts with what came in by `outside`; keep it unless it is closed.

        `outside` maps external ids to when they began; ids of `source` begin with its name and a
        dash. What is younger than `young` may still be on its way here. Safe to repeat: the day's
        row is replaced. A new difference is an error in the log.

        Raises:
            TemporaryFailure: the database is away.
        """
        if self.is_closed(day):
            async with self._database.reading() as connection:
                return await self._compared(connection, day, source, outside, medium, young)
        async with self._database.writing() as connection:
            settled = await self._compared(connection, day, source, outside, medium, young)
            before = await _stored(connection, day, source, medium)
            await _store(connection, settled)
            today = self.today()
            days = [today, today - timedelta(days=1)]
            recent = [await _stored(connection, each, source, medium) for each in days]
        worst = max((each.difference for each in recent if each is not None), default=0)
        LEDGER_DIFFERENCE.labels(pbx=source).set(worst)
        self._announce(settled, before)
        return settled

    async def _compared(  # noqa: PLR0913 - what is compared, and when
        self,
        connection: AsyncConnection,
        day: date,
        source: str,
        outside: Mapping[str, datetime],
        medium: Medium,
        young: timedelta,
    ) -> LedgerDay:
        start, end = (self._midnight(day), self._midnight(day + timedelta(days=1)))
        now = self._clock.now()
        booked = await _booked(connection, medium, source, start, end)
        booked |= await _found(connection, medium, outside.keys() - booked.keys())
        missing, extra, all_of_day = compare(
            outside, booked, start=start, end=end, now=now, young=young
        )
        return LedgerDay(
            day=day,
            medium=medium,
            source=source,
            outside=len(outside),
            contacts=len(all_of_day),
            missing=tuple(sorted(missing)),
            extra=tuple(sorted(extra)),
            repaired=tuple(
                sorted(each for each in all_of_day if booked[each].source is Source.REPLAY)
            ),
            computed_at=now,
        )

    def _midnight(self, day: date) -> datetime:
        return datetime.combine(day, time(), self._zone).astimezone(UTC)

    def _announce(self, settled: LedgerDay, before: LedgerDay | None) -> None:
        known = (before.missing, before.extra) if before is not None else ((), ())
        if known == (settled.missing, settled.extra):
            return
        say = log.info if settled.balanced else log.error
        say(
            "ledger.balanced" if settled.balanced else "ledger.differed",
            day=settled.day.isoformat(),
            source=settled.source,
            missing=settled.missing[:20],
            extra=settled.extra[:20],
            difference=settled.difference,
        )


async def _booked(
    connection: AsyncConnection, medium: Medium, source: str, start: datetime, end: datetime
) -> dict[str, Booked]:
    rows = await connection.execute(_OF_TIME, {"medium": medium.value, "start": start, "end": end})
    mine = f"{source}-"
    return {
        row["external_id"]: _contact(row)
        for row in rows.mappings()
        if row["external_id"].startswith(mine)
    }


async def _found(
    connection: AsyncConnection, medium: Medium, ids: Collection[str]
) -> dict[str, Booked]:
    asked = sorted(ids)
    found: dict[str, Booked] = {}
    for first in range(0, len(asked), _CHUNK):
        some = asked[first : first + _CHUNK]
        rows = await connection.execute(_OF_IDS, {"medium": medium.value, "ids": some})
        found |= {row["external_id"]: _contact(row) for row in rows.mappings()}
    return found


def _contact(row: RowMapping) -> Booked:
    return Booked(received_at=row["received_at"], source=Source(row["source"]))


async def _stored(
    connection: AsyncConnection, day: date, source: str, medium: Medium
) -> LedgerDay | None:
    found = await connection.execute(
        _STORED, {"of_day": day.isoformat(), "of_medium": medium.value, "of_source": source}
    )
    row = found.mappings().one_or_none()
    return None if row is None else ledger_day(row)


async def _store(connection: AsyncConnection, settled: LedgerDay) -> None:
    await connection.execute(
        _UPSERT[connection.dialect.name],
        {
            "day": settled.day.isoformat(),
            "medium": settled.medium.value,
            "source": settled.source,
            "outside": settled.outside,
            "contacts": settled.contacts,
            "missing": list(settled.missing),
            "extra": list(settled.extra),
            "repaired": list(settled.repaired),
            "computed_at": settled.computed_at,
        },
    )


def ledger_day(row: RowMapping) -> LedgerDay:
    """Return a stored row as a value."""
    return LedgerDay(
        day=date.fromisoformat(row["day"]),
        medium=Medium(row["medium"]),
        source=row["source"],
        outside=row["outside"],
        contacts=row["contacts"],
        missing=tuple(row["missing"]),
        extra=tuple(row["extra"]),
        repaired=tuple(row["repaired"]),
        computed_at=row["computed_at"],
    )
