"""Colours and markers: families differ in both, so that neither is needed to tell them apart.

The colours are those of Okabe and Ito ("Color Universal Design", 2008), without black and yellow, which vanish on a dark or a light page,
and with a violet. Text, grids and backgrounds of figures are left to the style sheet, which knows whether the page is light or dark.
"""

from __future__ import annotations

from collections.abc import Iterable

from headsearch.heads.registry import FAMILIES

BLUE, ORANGE, GREEN, SKY, VERMILION, PINK, VIOLET = (
    "#0F7FC4",
    "#E69F00",
    "#009E73",
    "#56B4E9",
    "#D55E00",
    "#CC79A7",
    "#8E7CC3",
)
SERIES = (BLUE, ORANGE, GREEN, PINK, VERMILION, SKY, VIOLET)
"""For things that have no colour of their own: heads in a comparison, runs."""
GREY = "#868E99"
"""Controls, and whatever is not the subject. Readable on white and on near-black."""

MARKERS = (
    "circle",
    "square",
    "diamond",
    "triangle-up",
    "triangle-down",
    "pentagon",
    "hexagon",
    "star",
    "cross",
    "x",
    "hourglass",
)
"""Eleven markers and seven colours make 77 pairs before one repeats."""
CONTROL_MARKERS = {"none": "line-ew", "same": "diamond-open", "mlp": "square-open"}
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
"""Lines differ in these as well as in colour."""


def family_styles(families: Iterable[str]) -> dict[str, tuple[str, str]]:
    """(colour, marker) by family. A registered family always has the same pair; combinations of families follow, by name."""
    known = list(FAMILIES)
    others = sorted(set(families) - set(known))
    return {
        name: (SERIES[place % len(SERIES)], MARKERS[place % len(MARKERS)])
        for place, name in enumerate([*known, *others])
    }
