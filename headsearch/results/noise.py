"""How sure a gain over the control is: intervals from the noise between seeds. Pure.

A replicate is the same head with another seed. Few heads are replicated, and few times, so the noise is estimated once for all
heads: their standard deviation within a head, pooled. `docs/ranking.md` says what the intervals cover and what they do not.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import stdev

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
        self, gain: float, replicates: int, control_replicates: int, together: Sequence[int] = ()
    ) -> tuple[float, float]:
        """Interval for a difference of two means, one over each number of replicates.

        Student's t with the pooled deviation. With `together`, the replicates of all heads that are compared with one control, all their
        intervals hold at once (Dunnett).
        """
        if len(together) > 1:
            quantile = dunnett_quantile(self.df, control_replicates, tuple(sorted(together)))
        else:
            quantile = two_sided_t(self.df, CONFIDENCE)
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


@functools.cache
def dunnett_quantile(df: int, control: int, heads: tuple[int, ...]) -> float:
    """The q with P(all |T_i| <= q) = `CONFIDENCE`, T_i being Student's t of head i against one control that all share.

    With n_i replicates of head i and n_0 of the control, T_i and T_j correlate by λ_i λ_j, λ_i² = n_i / (n_i + n_0), so that given the control
    and the deviation the heads are independent (Dunnett, "A Multiple Comparison Procedure for Comparing Several Treatments with a Control",
    JASA 1955):

        P = ∫ f(s) ∫ φ(z) Π_i [ Φ((λ_i z + q s) / sqrt(1 - λ_i²)) - Φ((λ_i z - q s) / sqrt(1 - λ_i²)) ] dz ds

    with s² that of a chi-square with `df` degrees of freedom over `df`. Both integrals are trapezoids, which for such integrands are exact to
    more digits than are shown.

    Args:
        df: of the pooled deviation; beyond `_MOST_DF` it is taken to be that.
        control: n_0.
        heads: every n_i, in rising order.
    """
    df = min(df, _MOST_DF)
    counts = Counter(heads)
    spreads = {n: math.sqrt(n / control) for n in counts}
    """λ / sqrt(1 - λ²)."""
    step_z = min(0.5, 1.0 / max(spreads.values()))
    zs = [(place * step_z, 0.5 * step_z if place == 0 else step_z) for place in range(int(8.0 / step_z) + 1)]
    width = 1.0 / math.sqrt(2.0 * df)
    lowest, highest = -(8.0 * width + 15.0 / df), min(2.0, 8.0 * width)
    places = [lowest + place * width / 2.0 for place in range(int(2.0 * (highest - lowest) / width) + 1)]
    # The density of log s, up to a factor.
    weights = [math.exp(df * (place - 0.5 * (math.exp(2.0 * place) - 1.0))) for place in places]
    whole = math.fsum(weights)

    def within(q: float) -> float:
        """P(all |T_i| <= q)."""
        total = 0.0
        for place, weight in zip(places, weights, strict=True):
            edge = q * math.exp(place)
            for z, width_z in zs:
                inside = math.exp(-0.5 * z * z) * width_z
                for n, count in counts.items():
                    scale = math.sqrt((n + control) / (2.0 * control))
                    shift = spreads[n] * z / math.sqrt(2.0)
                    inside *= (
                        0.5 * (math.erf(shift + edge * scale) - math.erf(shift - edge * scale))
                    ) ** count
                total += weight * inside
        return total * math.sqrt(2.0 / math.pi) / whole

    low = two_sided_t(df, CONFIDENCE)
    high = two_sided_t(df, 1.0 - (1.0 - CONFIDENCE) / len(heads))
    while high - low > 1e-5 * high:
        middle = (low + high) / 2.0
        low, high = (middle, high) if within(middle) < CONFIDENCE else (low, middle)
    return high


def pooled_noise(groups: Sequence[tuple[int, float | None]]) -> Noise | None:
    """Noise from each head's (replicates, sample standard deviation).

    None if no head has two replicates, or if all replicates agree to the last digit: noise that was not seen is not zero.
    """
    replicated = [
        (count - 1, deviation) for count, deviation in groups if count > 1 and deviation is not None
    ]
    df = sum(extra for extra, _ in replicated)
    squares = sum(extra * deviation**2 for extra, deviation in replicated)
    return Noise(math.sqrt(squares / df), df) if squares > 0 else None


def noise_within(groups: Iterable[Sequence[float]]) -> Noise | None:
    """`pooled_noise` from the scores themselves: those of each head with its seeds."""
    return pooled_noise([(len(scores), stdev(scores) if len(scores) > 1 else None) for scores in groups])


def blocked_noise(scores: Sequence[Sequence[float]]) -> Noise | None:
    """The noise between arms that remains once the effect of each seed, which all arms share, is removed: a randomised complete block design.

    `scores` holds for every arm its score with every seed, the same seeds for all. Residuals are from the additive model arm + seed,
    with (arms - 1)(seeds - 1) degrees of freedom; for two arms `interval` is then that of the paired t-test. (Fisher, "The Design of
    Experiments", 1935, chapter IV.)

    None for one arm or one seed, and if no noise remains: noise that was not seen is not zero.
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
