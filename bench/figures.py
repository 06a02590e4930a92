"""What a benchmark says, and the sums behind it. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median
from typing import Final

JsonFigure = dict[str, str | float | bool | None]


class Judged(StrEnum):
    """Which number the target is for, and on which side of it is good."""

    OURS = "ours at most"
    ADDED = "ours - bare at most"
    RATIO = "ours / bare at least"
    NOTHING = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the table. `target` is in `unit`, or a ratio."""

    name: str
    what: str  # ours, and what bare is
    unit: str
    ours: float
    bare: float
    judged: Judged = Judged.NOTHING
    target: float | None = None

    @property
    def ratio(self) -> float:
        return self.ours / self.bare if self.bare else 0.0

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        match self.judged:
            case Judged.OURS:
                return self.ours <= self.target
            case Judged.ADDED:
                return self.ours - self.bare <= self.target
            case Judged.RATIO:
                return self.ratio >= self.target
            case Judged.NOTHING:
                return None

    def as_json(self) -> JsonFigure:
        return {
            "name": self.name,
            "ours": round(self.ours, 4),
            "bare": round(self.bare, 4),
            "ratio": round(self.ratio, 4),
            "target": self.target,
            "met": self.met,
            "unit": self.unit,
            "judged": self.judged.value,
            "what": self.what,
        }


def percentile(values: Iterable[float], percent: float) -> float:
    """Return the nearest-rank percentile: the smallest value that `percent` % do not exceed."""
    ranked = sorted(values)
    if not ranked:
        raise ValueError("no values")
    rank = -(-len(ranked) * percent // 100)  # rounded up
    return ranked[max(int(rank), 1) - 1]


HEAD: Final = ("name", "ours", "bare", "ours / bare", "target", "met", "what")


def table(figures: Sequence[Figure]) -> list[tuple[str, ...]]:
    """Return the rows of the table, its head first."""
    return [HEAD, *(_row(one) for one in figures)]


def markdown(figures: Sequence[Figure]) -> str:
    head, *rows = table(figures)
    lines = [head, ("---", "---:", "---:", "---:", "---", "---", "---"), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plain(figures: Sequence[Figure]) -> str:
    rows = [row[:-1] for row in table(figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _row(one: Figure) -> tuple[str, ...]:
    target = "" if one.target is None else f"{one.judged.value} {one.target:g}"
    if one.target is not None and one.judged is not Judged.RATIO:
        target += f" {one.unit}"
    met = {True: "yes", False: "NO", None: ""}[one.met]
    return (
        one.name,
        f"{_short(one.ours)} {one.unit}",
        f"{_short(one.bare)} {one.unit}",
        f"{one.ratio:.2f}",
        target,
        met,
        one.what,
    )


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


__all__ = ["Figure", "JsonFigure", "Judged", "markdown", "median", "percentile", "plain", "table"]
