"""Wall-clock times where clocks change: Chicago springs on 2026-03-08, falls back on 2026-11-01."""

from datetime import UTC, date, datetime, time
from zoneinfo import ZoneInfo

import pytest

from contactd.routing.wallclock import instant

SHANGHAI = ZoneInfo("Asia/Shanghai")
CHICAGO = ZoneInfo("America/Chicago")


@pytest.mark.parametrize(
    ("day", "wall", "zone", "utc"),
    [
        ("2026-03-08", "01:59", CHICAGO, "2026-03-08T07:59"),
        ("2026-03-08", "02:00", CHICAGO, "2026-03-08T08:00"),  # the first instant after the gap
        ("2026-03-08", "02:30", CHICAGO, "2026-03-08T08:00"),
        ("2026-03-08", "02:59:59.5", CHICAGO, "2026-03-08T08:00"),
        ("2026-03-08", "03:00", CHICAGO, "2026-03-08T08:00"),
        ("2026-11-01", "01:30", CHICAGO, "2026-11-01T06:30"),  # the first of two
        ("2026-11-01", "02:00", CHICAGO, "2026-11-01T08:00"),
        ("2026-11-20", "09:00", SHANGHAI, "2026-11-20T01:00"),
        ("2011-12-30", "12:00", ZoneInfo("Pacific/Apia"), "2011-12-30T10:00"),  # no such date
    ],
)
def test_a_wall_clock_time_is_one_instant(day: str, wall: str, zone: ZoneInfo, utc: str) -> None:
    found = instant(date.fromisoformat(day), time.fromisoformat(wall), zone)
    assert found == datetime.fromisoformat(utc).replace(tzinfo=UTC)
