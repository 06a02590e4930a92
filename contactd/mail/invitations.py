"""A calendar invitation in one readable line (pure); the file itself is kept beside it."""

import re
from typing import Final

from contactd.mail import charsets

LOOKED_AT: Final = 64 * 1024  # characters
VALUE_LIMIT: Final = 300  # characters of each value that is shown

_FOLD: Final = re.compile(r"\r?\n[ \t]")
_EVENT: Final = re.compile(
    r"BEGIN:V(?:EVENT|TODO)\r?\n(.*?)(?:END:V|\Z)", re.DOTALL | re.IGNORECASE
)
_TIME: Final = re.compile(r"(\d{4})(\d\d)(\d\d)(?:T(\d\d)(\d\d)\d\d(Z?))?")
_ESCAPE: Final = re.compile(r"\\([nN,;\\])")


def line(ics: str) -> str:
    """Return summary, time and place of the first event, "" if there is none (RFC 5545)."""
    unfolded = _FOLD.sub("", ics[:LOOKED_AT])
    event = _EVENT.search(unfolded)
    if event is None:
        return ""
    values = (
        _value(event[1], "SUMMARY"), _period(event[1]), _value(event[1], "LOCATION"),
    )  # fmt: skip
    return " · ".join(value for value in values if value)


def _value(event: str, name: str) -> str:
    found = re.search(rf"(?im)^{name}(?:;[^:\r\n]*)?:(.*)$", event)
    if found is None:
        return ""
    text = _ESCAPE.sub(lambda escape: " " if escape[1] in "nN" else escape[1], found[1])
    return charsets.one_line(text)[:VALUE_LIMIT]


def _period(event: str) -> str:
    start, zone = _time(event, "DTSTART")
    end, _ = _time(event, "DTEND")
    if not start:
        return ""
    if end[:10] == start[:10]:
        end = end[11:]
    period = f"{start} – {end}" if end and end != start else start
    return f"{period} {zone}".rstrip()


def _time(event: str, name: str) -> tuple[str, str]:
    """Return a time as it is written in the event, and its zone."""
    found = re.search(rf"(?im)^{name}(;[^:\r\n]*)?:(.*)$", event)
    moment = _TIME.match(found[2].strip()) if found else None
    if found is None or moment is None:
        return "", ""
    zone = re.search(r"(?i)TZID=\"?([^;\"]{1,80})", found[1] or "")
    day = f"{moment[1]}-{moment[2]}-{moment[3]}"
    if moment[4] is None:
        return day, ""
    return f"{day} {moment[4]}:{moment[5]}", "UTC" if moment[6] else zone[1] if zone else ""
