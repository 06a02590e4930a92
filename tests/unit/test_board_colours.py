"""The status page's colours, as people see them who see no red or no green.

Simulated after Machado, Oliveira and Fernandes, "A physiologically-based model for simulation of
color vision deficiency" (2009), severity 1.0; distances are CIE 1976 Delta E.
"""

import math
import re
from itertools import combinations
from pathlib import Path
from typing import Final

import pytest

CSS: Final = Path(__file__).parents[2] / "contactd" / "web" / "static"
Colour = tuple[float, ...]
SEEN_BY: Final = {
    "everybody": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranopia": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
}
# IEC 61966-2-1: linear sRGB to CIE XYZ; the white point is D65.
TO_XYZ: Final = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
WHITE: Final = (0.95047, 1.0, 1.08883)
APART: Final = 20.0  # Delta E; 2.3 can just be told apart side by side
READABLE: Final = 4.5  # contrast of text, WCAG 2.2 section 1.4.3
VISIBLE: Final = 3.0  # of a graphical object, section 1.4.11
STATES: Final = ("good", "warn", "bad")
CHART: Final = ("chart-now", "chart-before")


def palettes() -> dict[str, dict[str, str]]:
    """Return the colours of the light page, the dark page and the wall."""
    light: dict[str, str] = {}
    dark: dict[str, str] = {}
    text = ""
    for name in ("app.css", "board.css"):
        text = (CSS / name).read_text(encoding="utf-8")
        roots = re.findall(r"^\s*:root \{(.*?)\}", text, re.DOTALL | re.MULTILINE)
        light |= colours(roots[0])
        dark |= colours(roots[1])
    wall = re.search(r"^\.wall \{(.*?)\}", text, re.DOTALL | re.MULTILINE)
    assert wall is not None
    return {"light": light, "dark": light | dark, "wall": light | dark | colours(wall[1])}


def colours(rules: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+):\s*(#[0-9a-f]{3,6})", rules))


def linear(colour: str) -> Colour:
    digits = colour[1:] if len(colour) == 7 else "".join(c * 2 for c in colour[1:])
    parts = (int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4))
    return tuple(p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)


def times(matrix: tuple[Colour, ...], colour: Colour) -> Colour:
    return tuple(sum(a * b for a, b in zip(row, colour, strict=True)) for row in matrix)


def lab(colour: Colour) -> Colour:
    def bent(t: float) -> float:
        return float(t ** (1 / 3)) if t > (6 / 29) ** 3 else t / (3 * (6 / 29) ** 2) + 4 / 29

    x, y, z = (bent(a / b) for a, b in zip(times(TO_XYZ, colour), WHITE, strict=True))
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def seen(colour: str, by: str) -> Colour:
    return lab(tuple(min(max(p, 0.0), 1.0) for p in times(SEEN_BY[by], linear(colour))))


def contrast(one: str, other: str) -> float:
    low, high = sorted(times(TO_XYZ, linear(each))[1] for each in (one, other))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("by", SEEN_BY)
@pytest.mark.parametrize("scheme", ["light", "dark", "wall"])
def test_states_are_told_apart_by_everybody(scheme: str, by: str) -> None:
    palette = palettes()[scheme]
    for group in (STATES, CHART):
        for one, other in combinations(group, 2):
            apart = math.dist(seen(palette[one], by), seen(palette[other], by))
            assert apart >= APART, (one, other)


@pytest.mark.parametrize("scheme", ["light", "dark", "wall"])
def test_states_are_readable_on_their_grounds(scheme: str) -> None:
    palette = palettes()[scheme]
    for state in STATES:
        assert contrast(palette[state], palette["panel"]) >= READABLE
        assert contrast(palette[state], palette[f"{state}-soft"]) >= READABLE
    for line in CHART:
        assert contrast(palette[line], palette["panel"]) >= VISIBLE
