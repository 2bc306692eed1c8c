"""How well long trainings of a few heads predict those of all others from their label-free scores: a replay on the curves of HeadBench.

What is replayed, the candidates and the rule that chooses among them were written down first (docs/decisions/201-long-run-gain.md). Nothing is trained.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from headsearch.results.noise import CONFIDENCE, pooled_noise, two_sided_t
from headsearch.search.selection import spread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

DRAWS = 300
SHARE = 0.75
"""Of the heads of a bench, those that a draw searches."""
COUNTS = (3, 4, 5, 6, 7, 8)
"""Numbers of anchors that are tried."""
NONES = 2
"""Anchors without a head; one where a bench has no more than two trainings."""
FIRST = 5
"""The number at which the formula is chosen."""
NEARLY = 1.1
"""An interval score that exceeds the best by less is as good, where fewer anchors give it."""


@dataclass(frozen=True)
class Anchored:
    """What is known of a search when its anchors have been trained."""

    scores: Floats
    """Of the anchors."""
    gains: Floats
    """After their long trainings, over the mean of those without a head."""


Formula = Callable[[Anchored, "Floats"], tuple["Floats", "Floats"]]
"""The gains that scores let expect, and by how much each may be wrong in either direction."""


def _formula(shrink: Callable[[int], float], spent: int) -> Formula:
    """A line whose slope is `shrink(K)` times that of least squares, `spent` degrees of freedom being spent on it and the mean."""

    def predict(known: Anchored, scores: Floats) -> tuple[Floats, Floats]:
        k, kept = len(known.scores), shrink(len(known.scores))
        middle, level = known.scores.mean(), known.gains.mean()
        squares = ((known.scores - middle) ** 2).sum()
        slope = (known.scores - middle) @ known.gains / squares
        left = ((known.gains - level) ** 2).sum() - kept * slope**2 * squares
        reach = kept * (scores - middle) ** 2 / squares
        variance = max(left, 0.0) / (k - spent) * (1.0 + 1.0 / k + reach)
        return level + kept * slope * (scores - middle), two_sided_t(k - spent, CONFIDENCE) * np.sqrt(
            variance
        )

    return predict


MEAN = "mean"
FORMULAS: Mapping[str, Formula] = {
    "line": _formula(lambda k: 1.0, 2),
    "unit": _formula(lambda k: k / (k + 1.0), 1),
    MEAN: _formula(lambda k: 0.0, 1),
}


@dataclass(frozen=True)
class Outcome:
    """How the predictions of one formula came out on one bench."""

    coverage: float
    """Share of gains that lie in their interval, which is widened by what is known of their own noise."""
    as_they_are: float
    """The same share without that."""
    rmse: float
    """In points."""
    interval_score: float
    width: float
    """Mean width of the intervals, in points."""


@dataclass(frozen=True)
class BenchCurves:
    """What the replay takes of a bench: the searched heads, with every seed."""

    scores: Floats
    """(heads, seeds), label-free, of the proxies or of screens."""
    long: Floats
    """(heads, seeds), probes after the long schedule."""
    none: Floats
    """(seeds,), the same without a head; may be more."""


def replay(bench: BenchCurves, formula: Formula, anchors: int) -> Outcome:
    """Predict, and compare with what was held out."""
    chance = random.Random(0)
    (heads, seeds), nones = bench.long.shape, len(bench.none)
    kept = min(NONES, nones - 1)
    margins: list[Floats] = []
    errors: list[Floats] = []
    for _ in range(DRAWS):
        searched = chance.sample(range(heads), round(SHARE * heads))
        scores = bench.scores[:, chance.randrange(bench.scores.shape[1])]
        seed, left_out = chance.randrange(seeds), chance.sample(range(nones), nones - kept)
        order = sorted(searched, key=lambda head: -scores[head])
        chosen = spread(order, anchors)
        others = np.setdiff1d(np.arange(heads), chosen)
        known = Anchored(scores[chosen], bench.long[chosen, seed] - np.delete(bench.none, left_out).mean())
        values, margin = formula(known, scores[others])
        gains = np.delete(bench.long[others], seed, axis=1).mean(axis=1) - bench.none[left_out].mean()
        errors.append(gains - values)
        margins.append(margin)
    error, width = np.concatenate(errors), 2.0 * np.concatenate(margins)
    outside = np.maximum(0.0, np.abs(error) - width / 2.0)
    noise = pooled_noise([(len(row), float(row.std(ddof=1))) for row in (*bench.long, bench.none)])
    assert noise is not None
    share = 1.0 / (seeds - 1) + 1.0 / (nones - kept) + (1.0 / kept - 1.0 / NONES)
    allowed = np.hypot(width / 2.0, 1.96 * noise.deviation * np.sqrt(share))
    return Outcome(
        coverage=float((np.abs(error) <= allowed).mean()),
        as_they_are=float((outside == 0.0).mean()),
        rmse=float(np.sqrt((error**2).mean())),
        interval_score=float((width + 2.0 / (1.0 - CONFIDENCE) * outside).mean()),
        width=float(width.mean()),
    )


@dataclass(frozen=True)
class Chosen:
    """What the rule takes."""

    formula: str
    anchors: int


def choose(benches: Sequence[BenchCurves]) -> Chosen:
    """By interval scores alone, over those of the baseline."""

    def relative(name: str, anchors: int, against: int) -> float:
        return fmean(
            replay(bench, FORMULAS[name], anchors).interval_score
            / replay(bench, FORMULAS[MEAN], against).interval_score
            for bench in benches
        )

    name = min(FORMULAS, key=lambda each: relative(each, FIRST, FIRST))
    of_count = {anchors: relative(name, anchors, FIRST) for anchors in COUNTS}
    nearly = NEARLY * min(of_count.values())
    return Chosen(name, min(anchors for anchors in COUNTS if of_count[anchors] <= nearly))
