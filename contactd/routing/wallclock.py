"""Wall-clock times of a time zone as instants (pure).

A time that a clock change skips becomes the first instant after the gap (GoAlert's rule, not RFC
5545's), a time that comes twice becomes the first of the two.
"""

from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

ANYWHERE: Final = ""  # the site of a caller whose site nobody knows


def instant(day: date, wall: time, zone: ZoneInfo) -> datetime:
    """Return when the clocks of `zone` show `wall` on `day`, in UTC (see the module's top)."""
    naive = datetime.combine(day, wall)
    late = naive.replace(tzinfo=zone).astimezone(UTC)  # the first of two, or after the gap
    if late.astimezone(zone).replace(tzinfo=None) == naive:
        return late
    # In a gap `fold=0` counts with the offset before it, `fold=1` with the one after it: the
    # clocks change between the two instants. Transitions are on whole seconds.
    early = naive.replace(tzinfo=zone, fold=1).astimezone(UTC)
    after = late.astimezone(zone).utcoffset()
    low, high = 0, int((late - early).total_seconds())
    while high - low > 1:
        middle = (low + high) // 2
        changed = (early + timedelta(seconds=middle)).astimezone(zone).utcoffset() == after
        low, high = (low, middle) if changed else (middle, high)
    return (early + timedelta(seconds=high)).replace(microsecond=0)
