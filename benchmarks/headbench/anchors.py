"""How well long trainings of a few heads predict those of all others from their label-free scores: a replay on the curves of HeadBench.

What is replayed, the candidates and the rule that chooses among them were written down first (docs/decisions/201-long-run-gain.md). Nothing is trained.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import pandas as pd

from headsearch.results.noise import CONFIDENCE, pooled_noise, two_sided_t

DRAWS = 300
SHARE = 0.75
"""Of the heads of a bench, those that a draw searches."""
COUNTS = (3, 4, 5, 6, 7, 8)
"""Numbers of anchors that are tried."""
FIRST = 5
"""The number at which the formula is chosen."""
NEARLY = 1.1
"""An interval score that exceeds the best by less is as good, where fewer anchors give it."""


@dataclass(frozen=True)
class Anchored:
    """What is known of a search when its anchors have been trained."""

    scores: Sequence[float]
    """Of the anchors."""
    probes: Sequence[float]
    """After their long trainings."""
    none: Sequence[float]
    """After long trainings without a head."""
    short_noise: float
    """Standard deviation between seeds of the short proxies."""


Formula = Callable[[Anchored, float], tuple[float, float]]
"""The gain that a score lets expect, and by how much it may be wrong in either direction."""


def _formula(shrink: Callable[[int], float], spent: int, *, short: bool) -> Formula:
    """A line whose slope is `shrink(K)` times that of least squares, `spent` degrees of freedom being spent on it and the mean."""

    def predict(known: Anchored, score: float) -> tuple[float, float]:
        x, y, k = np.array(known.scores), np.array(known.probes), len(known.scores)
        apart, squares = x - x.mean(), float(((x - x.mean()) ** 2).sum())
        slope = float(apart @ y) / squares
        kept = shrink(k)
        left = float(((y - y.mean()) ** 2).sum()) - kept * slope**2 * squares
        variance = max(left, 0.0) / (k - spent)
        of_none = known.short_noise**2 if short else variance
        reach = kept * (score - x.mean()) ** 2 / squares
        total = variance * (1.0 + 1.0 / k + reach) + of_none * (1.0 + 1.0 / len(known.none))
        value = float(y.mean()) + kept * slope * (score - x.mean()) - fmean(known.none)
        return float(value), two_sided_t(k - spent, CONFIDENCE) * math.sqrt(total)

    return predict


MEAN = "mean"
FORMULAS: Mapping[str, Formula] = {
    "line": _formula(lambda k: 1.0, 2, short=False),
    "line, short noise": _formula(lambda k: 1.0, 2, short=True),
    "unit": _formula(lambda k: k / (k + 1.0), 1, short=False),
    "unit, short noise": _formula(lambda k: k / (k + 1.0), 1, short=True),
    MEAN: _formula(lambda k: 0.0, 1, short=False),
}


def places(heads: int, anchors: int) -> list[int]:
    """Of the anchors, in the order of so many heads by score."""
    return [round(place * (heads - 1) / (anchors - 1)) for place in range(anchors)]


@dataclass(frozen=True)
class Outcome:
    """How the predictions of one formula came out on one bench."""

    coverage: float
    """Share of single gains that lie in their interval."""
    rmse: float
    """Of the prediction against the mean gain over all held-out pairs of trainings, in points."""
    interval_score: float
    width: float
    """Mean width of the intervals, in points."""


@dataclass(frozen=True)
class BenchCurves:
    """What the replay takes of a bench."""

    scores: pd.DataFrame
    """(heads, seeds) of the proxies."""
    probes: pd.DataFrame
    """(heads, seeds) of the long trainings."""
    none: Sequence[float]
    """By seed, of the long trainings without a head."""
    short_probes: pd.DataFrame
    """(heads, seeds) of the proxies."""


def replay(bench: BenchCurves, formula: Formula, anchors: int) -> Outcome:
    """Predict, and compare with what was held out."""
    chance = random.Random(0)
    noise = pooled_noise([(int(row.count()), float(row.std())) for _, row in bench.short_probes.iterrows()])
    assert noise is not None
    inside, scores, widths, errors = [], [], [], []
    names = list(bench.scores.index)
    seeds = list(bench.probes.columns)
    for _ in range(DRAWS):
        searched = chance.sample(names, round(SHARE * len(names)))
        scored = bench.scores[chance.choice(list(bench.scores.columns))]
        seed, left_out = chance.choice(seeds), chance.choice(seeds)
        order = sorted(searched, key=lambda head: -scored[head])
        chosen = [order[place] for place in places(len(order), anchors)]
        known = Anchored(
            [float(scored[head]) for head in chosen],
            [float(bench.probes.loc[head, seed]) for head in chosen],
            [bench.none[other] for other in seeds if other != left_out],
            noise.deviation,
        )
        for head in names:
            if head in chosen:
                continue
            value, margin = formula(known, float(scored[head]))
            gains = [
                float(bench.probes.loc[head, other]) - bench.none[left_out]
                for other in seeds
                if other != seed
            ]
            for gain in gains:
                outside = max(0.0, abs(gain - value) - margin)
                inside.append(outside == 0.0)
                scores.append(2.0 * margin + 2.0 / (1.0 - CONFIDENCE) * outside)
            widths.append(2.0 * margin)
            errors.append((value - fmean(gains)) ** 2)
    return Outcome(fmean(inside), math.sqrt(fmean(errors)), fmean(scores), fmean(widths))


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
