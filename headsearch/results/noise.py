"""How sure a gain over the control is: intervals from the noise between seeds, and one honest sentence for the whole table.

A replicate is the same head with another seed. Few heads are replicated, and few times, so the noise is estimated once for all
heads: their standard deviation within a head, pooled. `docs/ranking.md` says what the intervals cover and what they do not.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headsearch.results.ranking import RankRow

CONFIDENCE = 0.95
"""Of every interval."""
_MOST_DF = 1000
"""Student's t with so many degrees of freedom is 0.1% wider than the normal distribution."""

SCREEN_VERDICT = (
    "Cannot tell whether a head helps: heads were screened without labels, and are ordered by a score that predicts it weakly; "
    "the strategies funnel and proxies tell."
)
"""What there is to say where nothing but a screen was run."""


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


def verdict(rows: Sequence[RankRow], *, tried: int | None = None) -> str:
    """Whether any head beats the control `none`, in one sentence.

    The best of many heads is partly lucky. Its interval therefore holds for all heads at once (Bonferroni), so also for the one that
    happens to be best.

    Args:
        rows: A ranking.
        tried: How many heads the search trained, those it stopped early included (`ranking.heads_tried`): they were in the race
            too. None takes the heads in `rows`.
    """
    heads = [row for row in rows if row.rank is not None]
    if not heads:
        return "Cannot tell: no head finished its full budget."
    probed = [row for row in heads if row.probe is not None]
    if not probed:
        return (
            "Cannot tell whether a head helps: nothing was probed, so heads are ordered by discrepancy alone."
        )
    control = next((row for row in rows if row.control == "none"), None)
    if control is None or not control.feasible or control.probe is None:
        why = f" ({control.reason})" if control is not None and control.reason else ""
        return (
            f"Cannot tell whether a head helps: there is no score of the control none to compare with{why}."
        )

    noise = pooled_noise([(row.replicates, row.probe_sd) for row in rows if row.feasible])
    comparisons = max(len(heads), tried or 0)
    if noise is None:
        best = max(probed, key=lambda row: _difference(row, control))
        return (
            f"Cannot tell whether a head beats no head: there are no replicates that show the noise between seeds; "
            f"{best.head_id} reads {_difference(best, control):+.1f} points."
        )

    def interval(row: RankRow, other: RankRow) -> tuple[float, float]:
        return noise.interval(_difference(row, other), row.replicates, other.replicates, comparisons)

    winners = [row for row in probed if interval(row, control)[0] > 0]
    adjusted = "95% interval {:.1f} to {:.1f}" + (
        f", adjusted for {comparisons} heads" if comparisons > 1 else ""
    )
    if not winners:
        best = max(probed, key=lambda row: _difference(row, control))
        shown = adjusted.format(*interval(best, control))
        return f"No head is shown to beat no head: the best, {best.head_id}, gains {_difference(best, control):+.1f} points ({shown})."
    best = max(winners, key=lambda row: interval(row, control)[0])
    shown = adjusted.format(*interval(best, control))
    sentence = (
        f"{best.head_id} beats no head by {_difference(best, control):.1f} points ({shown}); "
        f"{len(winners)} of {len(probed)} ranked heads do"
    )
    mlp = next((row for row in rows if row.control == "mlp" and row.feasible and row.probe is not None), None)
    if mlp is None or mlp.head_id == best.head_id:
        return f"{sentence}."
    low, high = interval(best, mlp)
    how = "and it beats" if low > 0 else "but it is not shown to beat"
    return f"{sentence}, {how} plain MLPs, the control mlp ({_difference(best, mlp):+.1f}, {low:.1f} to {high:.1f})."


def _difference(row: RankRow, other: RankRow) -> float:
    assert row.probe is not None
    assert other.probe is not None
    return row.probe - other.probe
