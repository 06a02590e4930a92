"""What a set of mails is and how its answers are marked (pure)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path

from contactd.mail.parsed import Parsed


class Mark(StrEnum):
    OK = "ok"
    NEAR = "near"  # nothing is lost or false, but it is not what the set says
    WRONG = "wrong"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """`facts` are what rates are counted from; a fact that does not apply is absent."""

    mark: Mark
    reasons: tuple[str, ...] = ()
    facts: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One mail of a set. `raw` is what its file holds, byte by byte."""

    name: str
    raw: bytes = field(repr=False)
    judge: Callable[[Parsed], Judgement]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Without a judgement there is the SMTP reply that refused it, or how it was lost."""

    name: str
    judgement: Judgement | None = None
    refused: str = ""
    lost: str = ""


@dataclass(frozen=True, slots=True)
class Rate:
    """How often `fact` holds among the cases that have it; `ok` is the mark itself.

    `least` is the share that has to be reached, None: it is shown only.
    """

    fact: str
    what: str
    least: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MailSet:
    """`judged` are the cases that need no mail to be sent (the SPF suite)."""

    name: str
    cases: Sequence[Case] = ()
    judged: Sequence[Judged] = ()
    rates: tuple[Rate, ...] = ()
    remark: str = ""


@dataclass(slots=True, kw_only=True)
class Passage:
    """How many mails got how far; `changed` are spooled otherwise than they were sent."""

    sent: int = 0
    refused: int = 0
    spooled: int = 0
    parsed: int = 0
    changed: int = 0

    @property
    def is_complete(self) -> bool:
        return self.sent - self.refused == self.spooled == self.parsed and not self.changed

    def __str__(self) -> str:
        return ", ".join(f"{each.name} {getattr(self, each.name)}" for each in fields(self))


@dataclass(frozen=True, slots=True)
class SetReader:
    recognises: Callable[[Path], bool]
    read: Callable[[Path], MailSet]


def judgement(
    wrong: Sequence[str], near: Sequence[str] = (), facts: Mapping[str, bool] | None = None
) -> Judgement:
    """Return the mark that follows from the differences: any `wrong` one outweighs the others."""
    mark = Mark.WRONG if wrong else Mark.NEAR if near else Mark.OK
    return Judgement(mark=mark, reasons=(*wrong, *near), facts=facts or {})


def tally(judged: Sequence[Judged]) -> Mapping[str, int]:
    """Return how often each mark, `refused` and `lost` occur."""
    counts = dict.fromkeys([*Mark, "refused", "lost"], 0)
    for one in judged:
        unmarked = "refused" if one.refused else "lost"
        counts[one.judgement.mark if one.judgement else unmarked] += 1
    return counts


def share(rate: Rate, judged: Sequence[Judged]) -> tuple[int, int]:
    """Return how many hold and of how many; where there is a target, no judgement is a miss."""
    held = [_held(rate, one) for one in judged]
    return held.count(True), len(held) - held.count(None)


def _held(rate: Rate, one: Judged) -> bool | None:
    if one.judgement is None:
        return None if rate.least is None else False
    return (
        one.judgement.mark is Mark.OK if rate.fact == "ok" else one.judgement.facts.get(rate.fact)
    )


def is_met(rate: Rate, judged: Sequence[Judged]) -> bool:
    """Tell whether the share is reached; a rate that no case has anything to say to is not."""
    held, of = share(rate, judged)
    return rate.least is None or (of > 0 and held / of >= rate.least)
