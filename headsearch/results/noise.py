"""How sure a gain over the control is: intervals from the noise between seeds. Pure.

A replicate is the same head with another seed. Few heads are replicated, and few times, so the noise is estimated once for all
heads: their standard deviation within a head, pooled. `docs/ranking.md` says what the intervals cover and what they do not.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
"""Of every interval."""
_MOST_DF = 1000
"""Student's t with so many degrees of freedom is 0.1% wider than the normal distribution."""


@dataclass(frozen=True)
class Noise:
    """The spread between replicates of one head, pooled over heads."""

    deviation: float
    """Standard deviation, in the unit of the scores."""
    df: int
    """Degrees of freedom: replicates beyond the first, over all heads."""

    def interval(
        self, gain: float, replicates: int, control_replicates: int, comparisons: int = 1
    ) -> tuple[float, float]:
        """Interval for a difference of two means, one over each number of replicates.

        Student's t with the pooled deviation; with `comparisons` > 1 all so many intervals hold at once (Bonferroni).
        """
        quantile = two_sided_t(self.df, 1.0 - (1.0 - CONFIDENCE) / comparisons)
        margin = quantile * self.deviation * math.sqrt(1.0 / replicates + 1.0 / control_replicates)
        return gain - margin, gain + margin


@functools.cache
def two_sided_t(df: int, confidence: float) -> float:
    """The t with P(|T| <= t) = `confidence` for Student's distribution with `df` >= 1 degrees of freedom.

    By bisection of the finite series for whole degrees of freedom (Abramowitz and Stegun 26.7.3 and 26.7.4): scipy has it too, but
    takes longer to import than a ranking may take to print. Beyond `_MOST_DF` it is taken to be that of so many degrees of freedom.
    """
    df = min(df, _MOST_DF)
    low, high = 0.0, math.pi / 2.0
    for _ in range(100):
        middle = (low + high) / 2.0
        low, high = (middle, high) if _within(df, middle) < confidence else (low, middle)
    return math.sqrt(df) * math.tan(low)


def _within(df: int, angle: float) -> float:
    """P(|T| <= sqrt(df) tan(angle))."""
    odd = df % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for n in range(1 + odd, df, 2):
        total += term
        term *= math.cos(angle) ** 2 * n / (n + 1)
    return 2.0 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total


def pooled_noise(groups: Sequence[tuple[int, float | None]]) -> Noise | None:
    """Noise from each head's (replicates, sample standard deviation).

    None where no head has two replicates, and where all replicates agree to the last digit: noise that was not seen is not zero.
    """
    replicated = [
        (count - 1, deviation) for count, deviation in groups if count > 1 and deviation is not None
    ]
    df = sum(extra for extra, _ in replicated)
    squares = sum(extra * deviation**2 for extra, deviation in replicated)
    return Noise(math.sqrt(squares / df), df) if squares > 0 else None


def blocked_noise(scores: Sequence[Sequence[float]]) -> Noise | None:
    """Noise that is left between arms when what their seeds have in common is taken out: a randomised complete block design.

    `scores` holds for every arm its score with every seed, the same seeds for all. Residuals are from the additive model arm + seed,
    with (arms - 1)(seeds - 1) degrees of freedom; for two arms `interval` is then that of the paired t-test. (Fisher, "The Design of
    Experiments", 1935, chapter IV.)

    None where there is one arm or one seed, and where nothing is left: noise that was not seen is not zero.
    """
    arms, seeds = len(scores), len(scores[0])
    df = (arms - 1) * (seeds - 1)
    if df == 0:
        return None
    of_arm = [math.fsum(row) / seeds for row in scores]
    of_seed = [math.fsum(column) / arms for column in zip(*scores, strict=True)]
    mean = math.fsum(of_arm) / arms
    squares = math.fsum(
        (score - arm - seed + mean) ** 2
        for row, arm in zip(scores, of_arm, strict=True)
        for score, seed in zip(row, of_seed, strict=True)
    )
    # Differences that are rounding of the means are no noise either.
    largest = max(abs(score) for row in scores for score in row)
    return Noise(math.sqrt(squares / df), df) if squares > (1e-9 * largest) ** 2 else None
