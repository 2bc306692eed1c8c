"""The gain to expect of a long pretraining, predicted from long trainings of a few heads, the anchors. Pure.

Short proxies order heads by their score. How much gain a score stands for after a long training depends on the base and the data, so it is
estimated by regression on the anchors of the run itself. `docs/ranking.md` says what the intervals cover, `docs/evidence.md` how often they did.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from headsearch.results.noise import CONFIDENCE, two_sided_t
from headsearch.results.row import RankRow

FEWEST = 3
"""Anchors needed for an interval."""


@dataclass(frozen=True)
class Expected:
    """A gain in points, with its 95% interval."""

    gain: float
    low: float
    high: float


def expected_gains(
    scores: Sequence[float], gains: Sequence[float], at: Sequence[float]
) -> list[Expected] | None:
    """The gains to expect of scores: Bayesian linear regression on the anchors.

    The slope has the unit-information prior around 0, which weighs as much as one anchor; the mean has a flat prior, the variance Jeffreys'. With K
    anchors (x, y) and g = K / (K + 1), the slope β is g times that of least squares, and

        s² = (Σ(y - ȳ)² - β²/g Σ(x - x̄)²) / (K - 1)
        gain = ȳ + β (x - x̄) ± t(K - 1, 97.5%) · s · sqrt(1 + 1/K + g (x - x̄)² / Σ(x - x̄)²)

    (Zellner, "On assessing prior distributions and Bayesian regression analysis with g-prior distributions", 1986.) Where all scores are the same, the
    mean alone is left.

    Args:
        scores: of the anchors, label-free.
        gains: of the anchors, in points.
        at: scores of the heads to predict.

    Returns:
        One for every score in `at`. None for fewer than `FEWEST` anchors, and if all gains are the same: a spread that was not seen is unknown.
    """
    k = len(scores)
    if k < FEWEST:
        return None
    middle, level = fmean(scores), fmean(gains)
    squares = math.fsum((x - middle) ** 2 for x in scores)
    g = k / (k + 1.0) if squares else 0.0
    products = math.fsum((x - middle) * (y - level) for x, y in zip(scores, gains, strict=True))
    explained = g * products**2 / squares if squares else 0.0
    variance = (math.fsum((y - level) ** 2 for y in gains) - explained) / (k - 1)
    if variance <= 0.0:
        return None
    quantile = two_sided_t(k - 1, CONFIDENCE)
    found = []
    for score in at:
        reach = (score - middle) / squares if squares else 0.0
        gain = level + g * products * reach
        margin = quantile * math.sqrt(variance * (1.0 + 1.0 / k + g * reach * (score - middle)))
        found.append(Expected(gain, gain - margin, gain + margin))
    return found


def with_long_run(
    rows: Sequence[RankRow], none: Sequence[float], probes: Mapping[str, float]
) -> list[RankRow]:
    """The rows with the gains to expect of the real pretraining and, for anchors, the measured ones.

    Args:
        rows: of a ranking.
        none: probes of long trainings without a head, in percent.
        probes: of long trainings of anchors, in percent, by head id.
    """
    if not none:
        return list(rows)
    measured = {head: probe - fmean(none) for head, probe in probes.items()}
    rows = [replace(row, long_gain=measured.get(row.head_id)) for row in rows]
    known = [row for row in rows if row.score is not None and row.config]
    anchors = [
        (row.score, row.long_gain) for row in known if row.score is not None and row.long_gain is not None
    ]
    found = expected_gains(
        [score for score, _ in anchors],
        [gain for _, gain in anchors],
        [row.score for row in known if row.score is not None],
    )
    if found is None:
        return rows
    of_head = {row.head_id: each for row, each in zip(known, found, strict=True)}
    return [
        replace(row, predicted_gain=each.gain, predicted_low=each.low, predicted_high=each.high)
        if (each := of_head.get(row.head_id)) is not None
        else row
        for row in rows
    ]
