"""Word order of what is spoken, in both languages; every sound has a text."""

import tomllib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path

import pytest

from contactd.telephony.speech import digits, number_sound, progress_sounds, time_sounds
from contactd.tickets.model import Progress, Promise
from contactd.tickets.states import State

PROMPTS = Path(__file__).parents[2] / "etc" / "prompts.toml"
ZONE = "Asia/Shanghai"
NOW = datetime(2026, 11, 20, 2, 0, tzinfo=UTC)  # 10:00 in Shanghai


def shanghai(day: int, hour: int, minute: int, month: int = 11) -> datetime:
    return datetime(2026, month, day, hour, minute, tzinfo=UTC) - timedelta(hours=8)


def spoken(at: datetime, language: str) -> str:
    sounds = time_sounds(at, now=NOW, zone=ZONE, language=language)
    return " ".join(sound.removeprefix("contactd/") for sound in sounds)


def progress(
    state: State = State.IN_PROGRESS,
    engineer: str | None = "wang",
    promise_at: datetime | None = None,
    overdue: bool = False,
    promise: Promise = Promise.ANSWER,
) -> Progress:
    return Progress(
        number="26112000011",
        state=state,
        engineer=engineer,
        engineer_name=engineer,
        promise=promise if promise_at else Promise.NONE,
        promise_at=promise_at,
        overdue=overdue,
        zone=ZONE,
    )


def told(one: Progress, language: str = "zh") -> str:
    sounds = progress_sounds(one, now=NOW, language=language)
    return " ".join(sound.removeprefix("contactd/") for sound in sounds)


@pytest.mark.parametrize(
    ("at", "zh", "en"),
    [
        (shanghai(20, 15, 20), "today pm n-3 oclock n-20 minutes", "today n-3 n-20 pm"),
        (shanghai(20, 15, 0), "today pm n-3 oclock", "today n-3 pm"),
        (shanghai(20, 11, 5), "today am n-11 oclock n-0 n-5 minutes", "today n-11 n-0 n-5 am"),
        (shanghai(20, 12, 30), "today pm n-12 oclock n-30 minutes", "today n-12 n-30 pm"),
        (shanghai(21, 0, 10), "tomorrow am n-0 oclock n-10 minutes", "tomorrow n-12 n-10 am"),
        (shanghai(23, 9, 0), "month-11 n-23 day am n-9 oclock", "month-11 n-23 n-9 am"),
        (shanghai(1, 9, 0, 12), "month-12 n-1 day am n-9 oclock", "month-12 n-1 n-9 am"),
    ],
)
def test_time_is_said_as_people_say_it(at: datetime, zh: str, en: str) -> None:
    assert (spoken(at, "zh"), spoken(at, "en")) == (zh, en)


def test_day_is_the_one_of_the_zone() -> None:
    late = datetime(2026, 11, 20, 16, 30, tzinfo=UTC)  # half past midnight in Shanghai
    assert spoken(late, "en").startswith("tomorrow")


def test_progress_says_state_engineer_and_promise() -> None:
    one = progress(promise_at=shanghai(20, 15, 20))
    assert told(one, "en") == (
        "progress-is state-in-progress engineer-is person-wang promise-is today n-3 n-20 pm"
    )


@pytest.mark.parametrize(
    ("promise", "said"),
    [
        (Promise.ANSWER, "promise-is"),
        (Promise.FIRST_UPDATE, "promise-is"),
        (Promise.REMOTE, "promise-is"),
        (Promise.ARRIVAL, "promise-arrival"),
        (Promise.RESOLUTION, "promise-resolution"),
    ],
)
def test_what_happens_until_then_is_said_as_it_was_promised(promise: Promise, said: str) -> None:
    one = progress(promise_at=shanghai(20, 15, 0), promise=promise)
    assert told(one, "en").endswith(f" {said} today n-3 pm")
    assert told(replace(one, overdue=True)).endswith("person-wang promise-overdue")


def test_ticket_without_an_engineer_says_so_once() -> None:
    assert told(progress(State.NEW, engineer=None)) == "progress-is state-new promise-none"
    assert "nobody-yet" in told(progress(State.PENDING, engineer=None))


def test_broken_promise_is_admitted_instead_of_repeated() -> None:
    one = progress(promise_at=shanghai(20, 9, 0), overdue=True)
    assert told(one).endswith("promise-overdue")


@pytest.mark.parametrize("state", [State.CLOSED, State.CANCELLED])
def test_ticket_that_is_over_has_only_a_state(state: State) -> None:
    assert told(progress(state)) == f"progress-is state-{state}"


def test_resolved_ticket_promises_nothing() -> None:
    assert told(progress(State.RESOLVED)) == "progress-is state-resolved engineer-is person-wang"


def test_number_is_spelled() -> None:
    assert digits("2611-20") == tuple(f"digits/{sign}" for sign in "261120")


@pytest.mark.parametrize("number", [-1, 60])
def test_number_without_a_sound_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match="no sound"):
        number_sound(number)


@pytest.mark.parametrize(("state", "language"), list(product(State, ["zh", "en"])))
def test_everything_that_is_said_has_a_text(state: State, language: str) -> None:
    table = tomllib.loads(PROMPTS.read_text(encoding="utf-8"))["contactd"]
    variants = [
        progress(state, engineer, at, overdue, promise)
        for engineer, at, overdue, promise in product(
            [None, "wang"],
            [None, *(shanghai(20, 15, 20) + timedelta(days=31 * n) for n in range(12))],
            [False, True],
            set(Promise) - {Promise.NONE},
        )
    ]
    for one in variants:
        for sound in progress_sounds(one, now=NOW, language=language):
            folder, _, key = sound.partition("/")
            assert folder == "contactd"
            number = key.removeprefix("n-")
            assert key in (*table, "person-wang") or (number.isdecimal() and int(number) < 60)
