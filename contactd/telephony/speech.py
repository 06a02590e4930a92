"""What a caller is told, as a list of sound files in natural word order (pure).

Names are relative to the language's folder of sounds; the texts are in etc/prompts.toml.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

from contactd.tickets.model import Progress, Promise
from contactd.tickets.states import State

_OVER: Final = frozenset({State.CLOSED, State.CANCELLED})


def prompt(key: str) -> str:
    return f"contactd/{key}"


# Which other promise there is: the requester hears from somebody.
_PROMISED: Final[Mapping[Promise, str]] = {
    Promise.ARRIVAL: prompt("promise-arrival"),
    Promise.RESOLUTION: prompt("promise-resolution"),
}


def number_sound(number: int) -> str:
    """Return the sound of a whole number from 0 to 59."""
    if not 0 <= number <= 59:
        raise ValueError(f"no sound for {number}")
    return prompt(f"n-{number}")


def digits(number: str) -> tuple[str, ...]:
    """Return the sounds that spell a number digit by digit."""
    return tuple(f"digits/{sign}" for sign in number if sign in "0123456789")


def progress_sounds(progress: Progress, *, now: datetime, language: str) -> tuple[str, ...]:
    """Return how a ticket is doing: state, engineer, next promised time.

    An engineer whose name nobody has recorded (`person-<key>`) the dialplan calls `an-engineer`.
    """
    state = progress.state.value.replace("_", "-")
    sounds = [prompt("progress-is"), prompt(f"state-{state}")]
    if progress.state in _OVER:
        return tuple(sounds)
    return (*sounds, *_engineer(progress), *_promise(progress, now, language))


def _engineer(progress: Progress) -> tuple[str, ...]:
    if progress.engineer:
        return prompt("engineer-is"), prompt(f"person-{progress.engineer}")
    # "Waiting for an engineer" was said already.
    return () if progress.state is State.NEW else (prompt("nobody-yet"),)


def _promise(progress: Progress, now: datetime, language: str) -> tuple[str, ...]:
    if progress.state is State.RESOLVED:
        return ()
    if progress.overdue:
        return (prompt("promise-overdue"),)
    if progress.promise_at is None:
        return (prompt("promise-none"),)
    when = time_sounds(progress.promise_at, now=now, zone=progress.zone, language=language)
    return _PROMISED.get(progress.promise, prompt("promise-is")), *when


def time_sounds(at: datetime, *, now: datetime, zone: str, language: str) -> tuple[str, ...]:
    """Return the sounds of an instant, to the minute, as it is said in `zone`."""
    local = at.astimezone(ZoneInfo(zone))
    today = now.astimezone(ZoneInfo(zone)).date()
    day = _day(local, days=(local.date() - today).days, language=language)
    return (*day, *(_time_en(local) if language == "en" else _time_zh(local)))


def _day(local: datetime, *, days: int, language: str) -> tuple[str, ...]:
    named = {0: "today", 1: "tomorrow"}.get(days)
    if named:
        return (prompt(named),)
    month, day = prompt(f"month-{local.month}"), number_sound(local.day)
    return (month, day) if language == "en" else (month, day, prompt("day"))


def _time_zh(local: datetime) -> tuple[str, ...]:
    """下午三点二十分: half of the day, hour, minutes."""
    half = prompt("am" if local.hour < 12 else "pm")
    hour = local.hour if local.hour <= 12 else local.hour - 12
    sounds = (half, number_sound(hour), prompt("oclock"))
    if local.minute == 0:
        return sounds
    return (*sounds, *_minutes(local.minute), prompt("minutes"))


def _time_en(local: datetime) -> tuple[str, ...]:
    """Three twenty p.m.; the twelfth hour is called twelve, not zero."""
    half = prompt("am" if local.hour < 12 else "pm")
    hour = number_sound(local.hour % 12 or 12)
    return (hour, half) if local.minute == 0 else (hour, *_minutes(local.minute), half)


def _minutes(minute: int) -> tuple[str, ...]:
    """Both languages say the zero in 3:05."""
    return (number_sound(0), number_sound(minute)) if minute < 10 else (number_sound(minute),)
