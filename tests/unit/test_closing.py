"""What a requester is asked once a ticket is resolved, and when."""

from datetime import UTC, datetime, time, timedelta
from typing import Any

import pytest

from contactd.routing.closing import (
    ASKED,
    NEVER,
    SURVEYED,
    Act,
    Closing,
    Quiet,
    Step,
    may_call,
    next_step,
    survey_due,
)
from contactd.tickets.journal import Draft, Entry, chain

NOW = datetime(2026, 11, 20, 2, 0, tzinfo=UTC)
CLOSING = Closing()
RESOLVED, ASK = ("resolved", "resolved"), (ASKED, "resolved")


def journal(*entries: tuple[str, str], hours: float = 0) -> tuple[Entry, ...]:
    """Return a journal of (action, state after it), one entry each `hours`."""
    drafts = [
        Draft(at=NOW + place * timedelta(hours=hours), actor="", action=action, state=state)
        for place, (action, state) in enumerate(entries)
    ]
    return chain("26112000018", drafts, seq=0, prev_hash="")


def after(**length: float) -> datetime:
    return NOW + timedelta(**length)


@pytest.mark.parametrize(
    ("entries", "step"),
    [
        ([], None),
        ([("opened", "new")], None),
        ([RESOLVED], Step(act=Act.ASK, due_at=NOW)),
        ([RESOLVED, ASK], Step(act=Act.REMIND, due_at=after(days=1))),
        ([RESOLVED, ASK, ASK], Step(act=Act.REMIND, due_at=after(days=2))),
        ([RESOLVED, ASK, ASK, ASK], Step(act=Act.CLOSE, due_at=after(days=3))),
        ([RESOLVED, ASK, ("closed", "closed")], None),
        ([RESOLVED, ASK, ("reopened", "in_progress")], None),
        ([RESOLVED, ("note", "resolved")], Step(act=Act.ASK, due_at=NOW)),
    ],
)
def test_each_step_follows_from_the_journal(
    entries: list[tuple[str, str]], step: Step | None
) -> None:
    assert next_step(journal(*entries), CLOSING) == step


def test_who_is_asked_late_has_the_whole_time_before_the_next_question_and_the_end() -> None:
    """A night, or a daemon that was down for days, must not put all questions into one moment."""
    entries = journal(RESOLVED, ASK, hours=100)
    assert next_step(entries, CLOSING) == Step(act=Act.REMIND, due_at=after(hours=100 + 24))
    entries = journal(RESOLVED, ASK, ASK, ASK, hours=50)
    assert next_step(entries, CLOSING) == Step(act=Act.CLOSE, due_at=after(hours=150 + 24))


def test_who_writes_before_the_end_has_the_whole_time_again() -> None:
    wrote = ("contact.added", "resolved")
    entries = journal(RESOLVED, ASK, ASK, ASK, wrote, hours=1)
    assert next_step(entries, CLOSING) == Step(act=Act.CLOSE, due_at=after(hours=4 + 72))


def test_a_ticket_that_is_resolved_again_is_asked_about_anew() -> None:
    entries = journal(RESOLVED, ASK, ASK, ("reopened", "in_progress"), RESOLVED, hours=1)
    assert next_step(entries, CLOSING) == Step(act=Act.ASK, due_at=after(hours=4))


def test_without_reminders_it_is_closed_after_one_question() -> None:
    closing = Closing(reminders=0, close_after=timedelta(hours=5))
    assert next_step(journal(RESOLVED, ASK), closing) == Step(act=Act.CLOSE, due_at=after(hours=5))


@pytest.mark.parametrize(
    ("lengths", "name"),
    [
        ({"remind_after": timedelta(0)}, "remind_after"),
        ({"reminders": -1}, "reminders"),
        ({"close_after": timedelta(days=2)}, "close_after"),
        ({"reminders": 3}, "close_after"),
    ],
)
def test_lengths_that_make_no_sense_are_refused(lengths: dict[str, object], name: str) -> None:
    with pytest.raises(ValueError, match=rf"^closing\.{name}: "):
        Closing(**lengths)  # type: ignore[arg-type]


def test_every_fault_is_named_at_once() -> None:
    with pytest.raises(ValueError, match="remind_after") as failure:
        Closing(remind_after=timedelta(0), reminders=-1)
    assert len(str(failure.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("asked", "called"),
    [
        ("2026-11-20T10:00", "2026-11-20T10:00"),
        ("2026-11-20T08:00", "2026-11-20T08:00"),
        ("2026-11-20T07:59", "2026-11-20T08:00"),
        ("2026-11-20T00:00", "2026-11-20T08:00"),
        ("2026-11-20T19:59", "2026-11-20T19:59"),
        ("2026-11-20T20:00", "2026-11-21T08:00"),
        ("2026-11-20T23:59", "2026-11-21T08:00"),
        ("2026-12-31T21:00", "2027-01-01T08:00"),
    ],
)
@pytest.mark.parametrize("offset", [8, -6])
def test_people_are_called_by_day(asked: str, called: str, offset: int) -> None:
    zone = {8: "Asia/Shanghai", -6: "America/Chicago"}[offset]
    at = datetime.fromisoformat(asked).replace(tzinfo=UTC) - timedelta(hours=offset)
    until = datetime.fromisoformat(called).replace(tzinfo=UTC) - timedelta(hours=offset)
    assert may_call(at, zone) == until


def test_the_morning_after_a_clock_change_is_still_at_8() -> None:
    evening = datetime(2026, 3, 8, 3, 0, tzinfo=UTC)  # 21 o'clock on Saturday in Chicago
    assert may_call(evening, "America/Chicago") == datetime(2026, 3, 8, 13, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("starts", "ends", "asked", "sent"),
    [
        ("21:00", "08:00", "20T20:59", "20T20:59"),
        ("21:00", "08:00", "20T21:00", "21T08:00"),
        ("21:00", "08:00", "21T07:59", "21T08:00"),
        ("21:00", "08:00", "21T08:00", "21T08:00"),
        ("21:00", "00:00", "20T23:59", "21T00:00"),
        ("21:00", "00:00", "21T00:00", "21T00:00"),
        ("00:30", "07:00", "21T00:29", "21T00:29"),
        ("00:30", "07:00", "21T00:30", "21T07:00"),
        ("00:30", "07:00", "21T07:00", "21T07:00"),
        ("00:30", "07:00", "21T23:00", "21T23:00"),
    ],
)
def test_quiet_hours_end_where_the_site_is(starts: str, ends: str, asked: str, sent: str) -> None:
    quiet = Quiet(starts=time.fromisoformat(starts), ends=time.fromisoformat(ends))
    at, until = (
        datetime.fromisoformat(f"2026-11-{each}+08:00").astimezone(UTC) for each in (asked, sent)
    )
    assert quiet.over(at, "Asia/Shanghai") == until


@pytest.mark.parametrize("hour", range(24))
def test_without_quiet_hours_none_is_quiet(hour: int) -> None:
    at = NOW + timedelta(hours=hour)
    assert NEVER.over(at, "Asia/Shanghai") == at
    assert Quiet(starts=time(8), ends=time(8)).over(at, "UTC") == at


# The survey


def written(action: str = "opened", **body: Any) -> Draft:
    return Draft(at=NOW, actor="", action=action, state="new", body={"medium": "mail", **body})


PERSON = {"writer": "person"}
AUTO = {"writer": "auto"}


@pytest.mark.parametrize(
    ("contacts", "is_asked"),
    [
        ([written(medium="call")], True),
        ([written(medium="text")], True),
        ([written(medium="web")], True),
        ([written(**PERSON)], True),
        ([written(**AUTO)], False),
        ([written(writer="list")], False),
        ([written()], False),
        ([written(**PERSON, forged=True)], False),
        ([written(**AUTO), written("contact.added", **PERSON)], True),
        ([written(**AUTO), written("contact.added", medium="text", engineer="wang")], False),
        ([written(**AUTO), written("note", **PERSON)], False),
    ],
)
def test_a_person_has_to_have_written_about_it(contacts: list[Draft], is_asked: bool) -> None:
    ended = [
        Draft(at=NOW, actor="", action="resolved", state="resolved"),
        Draft(at=after(hours=1), actor="", action="closed", state="closed"),
    ]
    entries = chain("26112000018", [*contacts, *ended], seq=0, prev_hash="")
    assert survey_due(entries, CLOSING) == (after(hours=25) if is_asked else None)
    assert survey_due(entries, Closing(survey_after=timedelta())) is None
    assert survey_due(entries, Closing(survey_after=timedelta(hours=2))) == (
        after(hours=3) if is_asked else None
    )


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [RESOLVED],
        [("closed", "closed")],
        [RESOLVED, ("cancelled", "cancelled")],
        [RESOLVED, ("closed", "closed"), ("reopened", "in_progress")],
        [RESOLVED, ("closed", "closed"), (SURVEYED, "closed")],
        [RESOLVED, ("closed", "closed"), ("rated", "closed")],
    ],
)
def test_nobody_is_asked_twice_or_before_the_end(entries: list[tuple[str, str]]) -> None:
    drafts = [Draft(at=NOW, actor="", action=action, state=state) for action, state in entries]
    found = chain("26112000018", [written(**PERSON), *drafts], seq=0, prev_hash="")
    assert survey_due(found, CLOSING) is None


def test_a_survey_is_not_asked_before_the_end() -> None:
    with pytest.raises(ValueError, match="survey_after"):
        Closing(survey_after=timedelta(hours=-1))
