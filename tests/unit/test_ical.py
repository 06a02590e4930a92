"""Calendars out, read back by other code; calendars in, as programs out there write them."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
import recurring_ical_events
from hypothesis import given
from hypothesis import strategies as st
from icalendar import Calendar

from contactd.routing.ical import MOST_ABSENCES, Subject, View, absences, calendar
from contactd.routing.oncall import Site
from contactd.routing.rota import HOLE, Cause, Span, Why

NOW = datetime(2026, 11, 20, 2, 0, tzinfo=UTC)
ROTATION = (Cause(kind=Why.ROTATION, key="gz-day"),)
SITES = {
    key: Site(
        key=key, name_zh=name, name_en=english, zone="Asia/Shanghai", queue=key, floor="1380000"
    )
    for key, name, english in (("gz", "广州", "Guangzhou"), ("sz", "深圳", "Shenzhen"))
}


def subject(view: View = View.SITE, language: str = "zh", **changes: Any) -> Subject:
    given: dict[str, Any] = {
        "view": view, "name": "值班：广州", "language": language, "zone": "Asia/Shanghai",
        "host": "desk.example.cn", "stamp": NOW, "people": {"wang": "王伟", "li": "李娜"},
        "sites": SITES,
    }  # fmt: skip
    return Subject(**{**given, **changes})


def span(hours: int = 8, **changes: Any) -> Span:
    given: dict[str, Any] = {
        "site": "gz", "tier": 1, "team": "network", "engineer": "wang", "since": NOW,
        "until": NOW + timedelta(hours=hours), "why": ROTATION,
    }  # fmt: skip
    return Span(**{**given, **changes})


def events(content: bytes) -> list[Any]:
    return list(Calendar.from_ical(content).walk("VEVENT"))


# Out ------------------------------------------------------------------------------------------


def test_a_calendar_has_what_rfc_5545_demands_in_folded_lines() -> None:
    far = span(why=(*ROTATION, Cause(kind=Why.LEAVE, key="很长的请假标识" * 20)), instead_of="li")
    content = calendar([span(), far], subject())
    assert content.startswith(b"BEGIN:VCALENDAR\r\n")
    assert content.endswith(b"END:VCALENDAR\r\n")
    assert content.replace(b"\r\n", b"").count(b"\n") == 0
    assert max(len(line) for line in content.split(b"\r\n")) <= 75  # octets, section 3.1
    read = Calendar.from_ical(content)
    assert (read["VERSION"], bool(read["PRODID"])) == ("2.0", True)
    for event in events(content):
        assert event["DTSTAMP"].dt == NOW
        assert (event["DTSTART"].dt, event["DTEND"].dt) == (NOW, NOW + timedelta(hours=8))
        assert str(event["UID"]).endswith("@desk.example.cn")
    assert b"DTSTART:20261120T020000Z" in content


@pytest.mark.parametrize(
    ("view", "language", "summary"),
    [
        (View.PERSON, "zh", "广州 一线值班"),
        (View.PERSON, "en", "On duty, tier 1: Guangzhou"),
        (View.TEAM, "zh", "王伟 广州 一线"),
        (View.TEAM, "en", "王伟, tier 1: Guangzhou"),
        (View.SITE, "zh", "王伟（一线）"),
        (View.SITE, "en", "王伟 (tier 1)"),
    ],
)
def test_an_event_says_what_its_reader_does_not_know(
    view: View, language: str, summary: str
) -> None:
    (event,) = events(calendar([span()], subject(view, language)))
    assert event["SUMMARY"] == summary
    assert event["LOCATION"] == ("广州" if language == "zh" else "Guangzhou")


def test_a_hole_is_shown_as_nobody_and_a_stand_in_with_the_reason() -> None:
    because = (*ROTATION, Cause(kind=Why.LEAVE, key="chen-2026"))
    hole = span(engineer=HOLE, since=NOW - timedelta(hours=1), until=NOW, why=ROTATION)
    instead = span(why=because, instead_of="li")
    first, second = events(calendar([hole, instead], subject()))
    assert first["SUMMARY"] == "无人值班（一线）"
    assert second["DESCRIPTION"] == "轮值 gz-day；因请假代班 chen-2026；代替李娜"


def test_the_same_duty_at_several_sites_is_one_event() -> None:
    content = calendar([span(), span(site="sz"), span(site="sz", tier=2)], subject(View.PERSON))
    assert [str(event["SUMMARY"]) for event in events(content)] == [
        "广州、深圳 一线值班", "深圳 二线值班",
    ]  # fmt: skip


def test_an_event_keeps_its_uid_when_it_ends_otherwise_and_others_have_their_own() -> None:
    def uid(one: Span) -> str:
        (event,) = events(calendar([one], subject()))
        return str(event["UID"])

    assert uid(span()) == uid(span(hours=3)) == uid(span(instead_of="li"))
    others = [
        span(), span(engineer="li"), span(site="sz"), span(tier=2), span(team="desk"),
        span(since=NOW - timedelta(hours=1)),
        span(why=(Cause(kind=Why.OVERRIDE, key="x"),)),
    ]  # fmt: skip
    assert len({uid(other) for other in others}) == len(others)


def test_names_cannot_add_lines_of_their_own() -> None:
    hostile = "王\r\nBEGIN:VEVENT\r\nSUMMARY:x"
    content = calendar([span()], subject(people={"wang": hostile}, name=hostile))
    assert len(events(content)) == 1
    assert b"\nSUMMARY:x" not in content


# In -------------------------------------------------------------------------------------------

YEAR = {"start": datetime(2026, 1, 1, tzinfo=UTC), "end": datetime(2027, 1, 1, tzinfo=UTC)}


def vcalendar(*found: tuple[str, ...], head: str = "") -> bytes:
    lines = ["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//x//y//EN", *filter(None, [head])]
    for number, event in enumerate(found):
        lines += ["BEGIN:VEVENT", f"UID:{number}@x", "DTSTAMP:20260101T000000Z", *event]
        lines += ["END:VEVENT"]
    return "\r\n".join([*lines, "END:VCALENDAR", ""]).encode()


def read(*found: tuple[str, ...], head: str = "", zone: str = "Asia/Shanghai") -> list[str]:
    """Return the absences on the clocks of Shanghai, e.g. `10-01 00:00 10-04 00:00`."""
    told = absences(vcalendar(*found, head=head), zone=zone, **YEAR).absences
    shift = timedelta(hours=8)
    return [f"{each.start + shift:%m-%d %H:%M} {each.end + shift:%m-%d %H:%M}" for each in told]


def test_whole_days_are_those_of_the_zone() -> None:
    days = ("DTSTART;VALUE=DATE:20261001", "DTEND;VALUE=DATE:20261004")
    assert read(days) == ["10-01 00:00 10-04 00:00"]
    assert read(days, zone="Europe/Berlin") == ["10-01 06:00 10-04 06:00"]
    assert read(("DTSTART;VALUE=DATE:20261001",)) == ["10-01 00:00 10-02 00:00"]


def test_times_come_with_a_zone_of_theirs_or_float_in_ours() -> None:
    end = "DURATION:PT4H"
    assert read(("DTSTART:20261001T000000Z", end)) == ["10-01 08:00 10-01 12:00"]
    assert read(("DTSTART;TZID=Europe/Berlin:20261001T080000", end)) == ["10-01 14:00 10-01 18:00"]
    outlook = "DTSTART;TZID=China Standard Time:20261001T080000"
    assert read((outlook, end), zone="Europe/Berlin") == ["10-01 08:00 10-01 12:00"]
    floating = ("DTSTART:20261001T080000", end)
    assert read(floating) == ["10-01 08:00 10-01 12:00"]


def test_what_repeats_is_each_time_it_happens_with_its_exceptions() -> None:
    weekly = (
        "DTSTART;TZID=Asia/Shanghai:20261005T090000", "DTEND;TZID=Asia/Shanghai:20261005T120000",
        "RRULE:FREQ=WEEKLY;COUNT=4", "EXDATE;TZID=Asia/Shanghai:20261019T090000",
    )  # fmt: skip
    assert read(weekly) == [
        "10-05 09:00 10-05 12:00", "10-12 09:00 10-12 12:00", "10-26 09:00 10-26 12:00",
    ]  # fmt: skip


def test_cancelled_events_do_not_count_and_those_shown_as_free_do() -> None:
    day = "DTSTART;VALUE=DATE:20261001"
    assert read((day, "STATUS:CANCELLED")) == []
    assert read((day, "TRANSP:TRANSPARENT")) == ["10-01 00:00 10-02 00:00"]


def test_events_that_touch_are_one_absence_and_moments_are_none() -> None:
    assert read(
        ("DTSTART;VALUE=DATE:20261001", "DTEND;VALUE=DATE:20261003"),
        ("DTSTART;VALUE=DATE:20261003", "DTEND;VALUE=DATE:20261004"),
        ("DTSTART:20261001T080000",),
    ) == ["10-01 00:00 10-04 00:00"]


@pytest.mark.parametrize(
    "bad",
    [
        ("DTSTART:nonsense",), (), ("DTSTART:20261001T080000Z", "DTEND:20261001T070000Z"),
        ("DTSTART:20261001T080000Z", "DTEND:20261001T090000Z", "RRULE:FREQ=NONSENSE"),
        ("DTSTART:20261001T080000Z", "DURATION:perhaps"),
    ],
)  # fmt: skip
def test_an_event_that_makes_no_sense_does_not_hide_the_others_and_is_told(
    bad: tuple[str, ...],
) -> None:
    good = ("DTSTART;VALUE=DATE:20260301",)
    told = absences(vcalendar(bad, good), zone="Asia/Shanghai", **YEAR)
    assert len(told.absences) == 1
    assert not told.complete
    assert absences(vcalendar(good), zone="Asia/Shanghai", **YEAR).complete


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", b"<html></html>", b"\xff\xfe\x00", b"BEGIN:VCALENDAR\r\nBEGIN:VEVENT",
     b"BEGIN:VEVENT\r\nEND:VEVENT\r\n"],
)  # fmt: skip
def test_what_is_no_calendar_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="not a calendar"):
        absences(content, zone="Asia/Shanghai", **YEAR)


def test_an_empty_calendar_is_one_without_absences() -> None:
    assert absences(vcalendar(), zone="Asia/Shanghai", **YEAR).absences == ()


def test_too_many_events_are_refused() -> None:
    hourly = ("DTSTART:20260101T000000Z", "DURATION:PT1M", "RRULE:FREQ=HOURLY;COUNT=2001")
    with pytest.raises(ValueError, match=f"more than {MOST_ABSENCES}"):
        absences(vcalendar(hourly), zone="Asia/Shanghai", **YEAR)


@given(
    st.lists(
        st.tuples(st.integers(0, 5_000), st.integers(1, 300)), max_size=30
    )
)  # fmt: skip
def test_our_own_calendars_read_back_are_the_same_time(pieces: list[tuple[int, int]]) -> None:
    start: datetime = YEAR["start"]
    shown = [
        span(
            since=start + timedelta(hours=at), until=start + timedelta(hours=at + long),
            engineer=f"e{number}",
        )
        for number, (at, long) in enumerate(pieces)
    ]  # fmt: skip
    content = calendar(shown, subject())
    found = absences(content, zone="Asia/Shanghai", **YEAR)
    hours = {at + n for at, long in pieces for n in range(long)}
    back = {
        n
        for each in found.absences
        for n in range(
            round((each.start - start) / timedelta(hours=1)),
            round((each.end - start) / timedelta(hours=1)),
        )
    }
    assert hours == back
    assert all(one.end < other.start for one, other in pairwise(found.absences))
    assert len(list(recurring_ical_events.of(Calendar.from_ical(content)).all())) == len(shown)
