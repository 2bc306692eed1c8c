"""How sure it is that the first of a few heads is as good as the best of them, from their scores and the noise between seeds. Pure.

A head's scores are its true score plus noise. True scores are modelled as draws from a normal distribution, whose mean and variance are estimated from
the heads at hand, with the noise taken out (empirical Bayes; Morris, "Parametric empirical Bayes inference", JASA 1983). The belief about a true score
is then normal, too. Its mean lies between the mean of the head's scores and the mean of all heads; the more seeds the head has, the nearer to the former.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, variance

from headsearch.results.noise import Noise

_CDF = NormalDist().cdf
_STEPS = 32
"""Of each sum that stands for an integral; ten times as many change a probability by less than 0.001."""
_REACH = 4.0
"""Standard deviations to both sides that the sums cover."""


@dataclass(frozen=True)
class Belief:
    """What is believed of a head's true score: a normal distribution, in the unit of the scores."""

    mean: float
    deviation: float


def beliefs(scores: Sequence[Sequence[float]], noise: Noise) -> list[Belief]:
    """The belief about every head, from its scores with one or more seeds and the estimated noise between seeds."""
    means = [fmean(of_head) for of_head in scores]
    errors = [noise.deviation**2 / len(of_head) for of_head in scores]
    middle = fmean(means)
    spread = max(0.0, variance(means) - fmean(errors)) if len(means) > 1 else 0.0
    weights = [spread / (spread + error) for error in errors]
    return [
        Belief(middle + weight * (mean - middle), math.sqrt(weight * error))
        for mean, error, weight in zip(means, errors, weights, strict=True)
    ]


def probability_as_good(first: int, heads: Sequence[Belief], noise: Noise) -> float:
    """The probability that no true score is more than one standard deviation between seeds above that of the head at place `first`.

    The deviation itself is an estimate with `noise.df` degrees of freedom: the probability is the mean over what it may be (its posterior under
    Jeffreys' prior, a scaled inverse chi-squared distribution), the means of `heads` held fixed.
    """
    others = [belief for place, belief in enumerate(heads) if place != first]
    total = weights = 0.0
    # v = log of the true variance over its estimate has the density exp(-df/2 (v + exp(-v))), up to a factor: about the variance 2/df, and
    # the longer tail above.
    reach = _REACH * math.sqrt(2.0 / noise.df)
    for v in _grid(-reach, max(reach, 16.0 / noise.df)):
        weight = math.exp(-noise.df / 2.0 * (v + math.exp(-v) - 1.0))
        factor = math.exp(v / 2.0)
        total += weight * _no_better(heads[first], others, factor, noise.deviation * factor)
        weights += weight
    return total / weights


def _no_better(first: Belief, others: Sequence[Belief], factor: float, margin: float) -> float:
    """P(no other exceeds the first by more than `margin`), where all deviations are larger by `factor`."""
    total = weights = 0.0
    for z in _grid(-_REACH, _REACH):
        weight = math.exp(-0.5 * z * z)
        level = first.mean + z * first.deviation * factor + margin
        total += weight * math.prod(_below(level, other, factor) for other in others)
        weights += weight
    return total / weights


def _below(level: float, belief: Belief, factor: float) -> float:
    deviation = belief.deviation * factor
    return _CDF((level - belief.mean) / deviation) if deviation > 0.0 else float(level >= belief.mean)


def _grid(low: float, high: float) -> list[float]:
    """Midpoints of equal steps."""
    return [low + (high - low) * (step + 0.5) / _STEPS for step in range(_STEPS)]
