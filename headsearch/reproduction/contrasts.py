"""The statistics behind the claims: contrasts of means with their intervals, how many seeds would tell, and what chance would have picked. Pure.

`docs/reproduce.md` has the formulas, `docs/decisions/060-claims.md` the reasons.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from headsearch.results.agreement import FEWEST, Agreement
from headsearch.results.noise import CONFIDENCE, Noise, two_sided_t

Verdict = Literal["holds", "does not hold", "not enough data to tell"]
HOLDS: Verdict = "holds"
FAILS: Verdict = "does not hold"
UNCLEAR: Verdict = "not enough data to tell"

RELEVANT_POINTS = 0.5
"""A gain below this, in points of the probe, counts as none: a claim whose interval ends below it does not hold."""
RELEVANT_TAU = 0.2
"""The same for a relation, as Kendall's tau-b."""
MOST_SEEDS = 1_000
"""If more would be needed, the report says that no affordable number is enough."""


@dataclass(frozen=True)
class Score:
    """The mean probe of one head or control."""

    mean: float
    """Percent."""
    seeds: int


@dataclass(frozen=True)
class Estimate:
    """A difference in points with its 95% interval; the bounds are None where the noise between seeds is not known."""

    value: float
    low: float | None
    high: float | None


def contrast(
    weights: Mapping[str, float], scores: Mapping[str, Score], noise: Noise | None, comparisons: int = 1
) -> Estimate:
    """A weighted sum of means, with Student's interval from the pooled noise between seeds.

        Σ w_h ȳ_h ± t(df, 1 - 0.025 / comparisons) · s · sqrt( Σ w_h² / n_h )

    Args:
        weights: by head; they add up to 0.
        scores: at least of the heads in `weights`.
        noise: of one training; None where it is not known.
        comparisons: so many intervals are to hold at once (Bonferroni).
    """
    value = math.fsum(weight * scores[head].mean for head, weight in weights.items())
    if noise is None:
        return Estimate(value, None, None)
    variance = math.fsum(weight**2 / scores[head].seeds for head, weight in weights.items())
    quantile = two_sided_t(noise.df, 1.0 - (1.0 - CONFIDENCE) / comparisons)
    margin = quantile * noise.deviation * math.sqrt(variance)
    return Estimate(value, value - margin, value + margin)


def judged(estimate: Estimate) -> Verdict:
    """Whether a gain is shown: `holds` with an interval above 0, `does not hold` with one below `RELEVANT_POINTS`."""
    if estimate.low is None or estimate.high is None:
        return UNCLEAR
    if estimate.low > 0.0:
        return HOLDS
    return FAILS if estimate.high < RELEVANT_POINTS else UNCLEAR


def judged_relation(found: Agreement) -> Verdict:
    """The same for a relation. To show one takes enough heads, an interval without 0, and p < 0.05 (docs/decisions/024)."""
    if found.verdict == "agrees":
        return HOLDS
    shown = found.n >= FEWEST and found.high is not None and found.high < RELEVANT_TAU
    return FAILS if found.verdict == "disagrees" or shown else UNCLEAR


def together(verdicts: Collection[Verdict]) -> Verdict:
    """`holds` if all do, `does not hold` if one does not."""
    if FAILS in verdicts:
        return FAILS
    return HOLDS if verdicts and all(verdict == HOLDS for verdict in verdicts) else UNCLEAR


def seeds_needed(
    value: float, weights: Mapping[str, float], noise: Noise | None, *, arms: int, seeds: int
) -> int | None:
    """About how many seeds of every arm would be enough to judge a contrast, if its value stays the same.

    The half width has to fall below the distance to 0, or that to `RELEVANT_POINTS`, whichever is larger.

    Args:
        value: of the contrast, in points.
        weights: its weights.
        noise: as measured; if unknown, the answer is one seed more, and at least two.
        arms: how many heads and controls the noise is pooled over.
        seeds: how many every arm has.

    Returns:
        None where more than `MOST_SEEDS` would be needed.
    """
    if noise is None:
        return max(2, seeds + 1)
    target = max(value, RELEVANT_POINTS - value)
    squares = math.fsum(weight**2 for weight in weights.values())

    def enough(number: int) -> bool:
        margin = two_sided_t(arms * (number - 1), CONFIDENCE) * noise.deviation * math.sqrt(squares / number)
        return margin < target

    # An interval narrows with every seed: the first number that is enough.
    numbers = range(max(2, seeds + 1), MOST_SEEDS + 1)
    first = bisect_left(numbers, True, key=enough)
    return numbers[first] if first < len(numbers) else None


def best_of_random(values: Sequence[float], picks: int) -> list[float]:
    """The weight of each value in the mean of the best of `picks` different ones taken at random, in the order of `values`.

    Of N values the i-th from below is the best of k picks with the chance C(i - 1, k - 1) / C(N, k). Equal values share theirs in some order,
    which leaves the mean as it is.
    """
    order = sorted(range(len(values)), key=lambda index: values[index])
    weights = [0.0] * len(values)
    for below, index in enumerate(order):
        weights[index] = math.comb(below, picks - 1) / math.comb(len(values), picks)
    return weights


def chance_as_good(values: Sequence[float], picks: int, reached: float) -> float:
    """The chance that the best of `picks` different values taken at random is no less than `reached`."""
    worse = sum(value < reached for value in values)
    return 1.0 - math.comb(worse, picks) / math.comb(len(values), picks)


def regret(chosen: Collection[str], scores: Mapping[str, Score], noise: Noise | None) -> Estimate:
    """What is lost by taking the best of the `chosen` heads: the best mean of all heads minus the best of theirs, in points, never negative.

    The best of all is picked after looking. The interval therefore takes the differences of all heads to all chosen ones at once (Bonferroni;
    Hsu, "Constrained Simultaneous Confidence Intervals for Multiple Comparisons with the Best", Annals of Statistics 1984):

        max over others j of min over chosen c of ( ȳ_j - ȳ_c ± margin_jc )

    `chosen` are some of the heads in `scores`.
    """
    others = [head for head in scores if head not in chosen]
    value = max(score.mean for score in scores.values()) - max(scores[head].mean for head in chosen)
    if noise is None or not others:
        return Estimate(value, None, None) if others else Estimate(0.0, 0.0, 0.0)
    comparisons = len(others) * len(chosen)

    def bound(end: Callable[[Estimate], float | None]) -> float:
        differences = [
            [end(contrast({head: 1.0, taken: -1.0}, scores, noise, comparisons)) or 0.0 for taken in chosen]
            for head in others
        ]
        return max(0.0, max(map(min, differences)))

    return Estimate(value, bound(lambda found: found.low), bound(lambda found: found.high))
