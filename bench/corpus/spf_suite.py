"""The SPF suite of openspf.org for RFC 7208: contactd's check against its zones.

A zone's SPF records also answer for TXT unless the name has TXT records of its own; `TXT: NONE`
only keeps them from doing so. TIMEOUT alone: whatever else is asked for is not answered.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.corpus import words, yaml
from bench.corpus.marks import Judged, MailSet, Rate, SetReader, judgement
from contactd.errors import TemporaryFailure
from contactd.mail.spf_check import spf_result

SUITE: Final = "rfc7208-tests.yml"
TIMEOUT: Final = "TIMEOUT"
ALIASES: Final = 10  # that are followed; a zone may go round in circles


@dataclass(frozen=True, slots=True)
class Zone:
    """Answers for one scenario. Names are lower-case and without the last dot."""

    records: Mapping[str, Sequence[tuple[str, bytes]]]

    def resolve(self, name: str, kind: str) -> Sequence[bytes]:
        """Return the records of `kind`, those behind an alias included.

        Raises:
            TemporaryFailure: the scenario wants the question unanswered.
        """
        for _ in range(ALIASES):
            records = self.records.get(name.lower().rstrip("."), ())
            found = [value for own, value in records if own == kind]
            if found:
                return found
            if any(own == TIMEOUT for own, _ in records):
                raise TemporaryFailure(f"no answer for {name}")
            alias = next((value for own, value in records if own == "CNAME"), None)
            if alias is None:
                return ()
            name = alias.decode("latin-1")
        return ()


def zone(stated: Mapping[str, Sequence[Any]]) -> Zone:
    """Return the zone that a scenario's `zonedata` states."""
    return Zone({name.lower().rstrip("."): list(_records(stated[name])) for name in stated})


def _records(stated: Sequence[Any]) -> Iterator[tuple[str, bytes]]:
    has_texts = any(isinstance(one, dict) and "TXT" in one for one in stated)
    for one in stated:
        if one == TIMEOUT:
            yield TIMEOUT, b""
            continue
        ((kind, value),) = one.items()
        if kind == "SPF" and not has_texts:
            kind = "TXT"
        if value != "NONE":
            yield kind, _data(kind, value)


def _data(kind: str, value: Any) -> bytes:
    """Return a record's data as contactd's resolver would: a text's strings joined."""
    pieces = [value] if isinstance(value, str) else value
    return (" " if kind == "MX" else "").join(pieces).encode("latin-1")


def recognises(folder: Path) -> bool:
    return (folder / SUITE).is_file()


def read(folder: Path) -> MailSet:
    """Ask for every test's result: no mail is needed for that."""
    scenarios = yaml.documents((folder / SUITE).read_text(encoding="utf-8"))
    judged = [
        _judged(name, test, zone(scenario["zonedata"]))
        for scenario in scenarios
        for name, test in scenario["tests"].items()
    ]
    return MailSet(name="spf-rfc7208", judged=judged, rates=(Rate("ok", "allowed result", 1.0),))


def _judged(name: str, test: Mapping[str, Any], records: Zone) -> Judged:
    allowed = [test["result"]] if isinstance(test["result"], str) else test["result"]
    found = spf_result(test["host"], test["helo"], test["mailfrom"], records.resolve)
    wrong = [f"{found}, not {words.listed(allowed)}"] if found not in allowed else []
    return Judged(name=name, judgement=judgement(wrong))


SET: Final = SetReader(recognises, read)
