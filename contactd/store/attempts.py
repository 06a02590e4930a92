"""Lock-outs: after some failures the next try must wait, longer and longer.

They are in the database, not in memory: several processes serve one desk, and a guesser who is sent
from one to the next, or waits for a restart, would begin anew each time. An attempt counts as a
failure before the password is looked at, so that a hundred at once are a hundred.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import bindparam, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from contactd.clock import Clock
from contactd.store.engine import Database
from contactd.store.schema import attempts

FIRST_WAIT: Final = timedelta(seconds=30)
LONGEST_WAIT: Final = timedelta(minutes=15)  # who is locked out by a stranger gets in again
KEPT: Final = timedelta(days=1)  # no failure is remembered longer

_ADD: Final = {
    "sqlite": sqlite.insert(attempts).on_conflict_do_nothing(index_elements=["key"]),
    "postgresql": postgresql.insert(attempts).on_conflict_do_nothing(index_elements=["key"]),
}
_OF: Final = bindparam("of", type_=attempts.c.key.type)
_READ: Final = select(attempts).where(attempts.c.key == _OF).with_for_update()
_COUNT: Final = update(attempts).where(attempts.c.key == _OF)
_FORGET: Final = delete(attempts).where(
    attempts.c.at < bindparam("before", type_=attempts.c.at.type)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter:
    """What failures are counted by. `free` of them cost nothing; after `quiet` it begins anew."""

    key: str
    free: int
    quiet: timedelta

    def wait(self, failures: int) -> timedelta:
        """Return how long the next try must wait after so many failures."""
        over = failures - self.free
        if over < 0:
            return timedelta()
        return min(FIRST_WAIT * (1 << min(over, 10)), LONGEST_WAIT)


def by_name(name: str) -> Counter:
    """Count by the name that was typed, whether anybody has it or not."""
    return Counter(key=_key("name", name), free=5, quiet=KEPT)


def by_address(address: str) -> Counter:
    """Count by network address: a whole office may share one, so that it is much more patient."""
    return Counter(key=_key("address", address), free=50, quiet=timedelta(minutes=30))


class Attempts:
    """Every method raises `TemporaryFailure` when the database is away."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def begin(self, counters: Sequence[Counter]) -> timedelta:
        """Count a try as failed, and return zero; or how long it must wait, and count nothing."""
        now = self._clock.now()
        counters = sorted(counters, key=lambda each: each.key)  # always locked in this order
        async with self._database.writing() as connection:
            await connection.execute(_FORGET, {"before": now - KEPT})
            counted: list[tuple[str, int, datetime | None]] = []
            waits: list[timedelta] = []
            for each in counters:
                fresh = {"key": each.key, "failures": 0, "at": now, "until": None}
                await connection.execute(_ADD[self._database.dialect], fresh)
                row = (await connection.execute(_READ, {"of": each.key})).one()
                if row.until is not None and row.until > now:
                    waits.append(row.until - now)
                failures = 1 if row.at < now - each.quiet else row.failures + 1
                wait = each.wait(failures)
                counted.append((each.key, failures, now + wait if wait else None))
            if not waits:
                for key, failures, until in counted:
                    values = {"failures": failures, "at": now, "until": until}
                    await connection.execute(_COUNT.values(values), {"of": key})
        return max(waits, default=timedelta())

    async def succeeded(self, name: Counter, others: Sequence[Counter] = ()) -> None:
        """Forget the failures of a name; of the `others` only the try itself."""
        async with self._database.writing() as connection:
            await connection.execute(delete(attempts).where(attempts.c.key == name.key))
            for each in others:
                taken_back = {"failures": attempts.c.failures - 1, "until": None}
                await connection.execute(
                    _COUNT.where(attempts.c.failures > 0).values(taken_back), {"of": each.key}
                )


def _key(kind: str, value: str) -> str:
    return f"{kind}:{hashlib.sha256(value.encode('utf-8', 'replace')).hexdigest()[:32]}"
