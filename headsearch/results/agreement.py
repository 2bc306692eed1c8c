"""Whether two scores put heads into the same order, how sure that is with so few heads, and what choosing by one of them costs. Pure.

Kendall's tau-b, since only the order of heads matters, with a bootstrap over heads. `docs/audit.md` has the formulas and says how to read it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal

import numpy as np

from headsearch.results.noise import CONFIDENCE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Pair = tuple[Floats, Floats, NDArray[np.bool_]]

Verdict = Literal["agrees", "disagrees", "not enough data to tell"]
UNCLEAR: Verdict = "not enough data to tell"

FEWEST = 5
"""With fewer heads nothing is concluded: chance puts four heads into a perfect order, one way or the other, once in 12 times."""
RESAMPLES = 2_000
"""Of the bootstrap."""
NO_TAU = 0.1
"""A tau nearer to 0 than this does not tell how many heads would be needed. `PRESUMED` is assumed instead, and halved for as long as the heads
at hand would have shown it."""
PRESUMED = 0.5


@dataclass(frozen=True)
class Tau:
    """How well two orders of the same heads agree. Unknown is None."""

    n: int
    """Heads with both scores."""
    tau: float | None
    """Kendall's tau-b: 1 the same order, 0 no relation, -1 the reverse; None where a score is the same for all heads."""
    low: float | None
    """95% interval."""
    high: float | None


@dataclass(frozen=True)
class Agreement(Tau):
    """The same, and whether it can be told from no relation."""

    p: float | None
    """Two-sided, of the hypothesis that there is no relation."""

    @property
    def verdict(self) -> Verdict:
        """Whether the two orders agree. To tell takes enough heads, an interval without 0, and p < 0.05."""
        if self.n < FEWEST or self.low is None or self.high is None or self.p is None:
            return UNCLEAR
        if self.p >= 1.0 - CONFIDENCE or self.low <= 0.0 <= self.high:
            return UNCLEAR
        return "agrees" if self.low > 0.0 else "disagrees"

    @property
    def enough(self) -> int | None:
        """About how many heads would be enough to tell. None if it can be told already, or if a score is the same for all heads."""
        if self.verdict != UNCLEAR or (self.tau is None and self.n > 1):
            return None
        size = PRESUMED if self.tau is None or abs(self.tau) < NO_TAU else abs(self.tau)
        if size == PRESUMED:
            # So many heads would have shown that much: what there is can only be weaker.
            while heads_needed(size) <= self.n:
                size /= 2.0
        return max(heads_needed(size), self.n + 1)


def agreement(first: Sequence[float | None], second: Sequence[float | None], *, seed: int = 0) -> Agreement:
    """How well two scores of the same heads, in the same order, agree; heads with an unknown score are left out."""
    return mean_agreement([(first, second)], seed=seed)


def mean_agreement(
    pairs: Sequence[tuple[Sequence[float | None], Sequence[float | None]]], *, seed: int = 0
) -> Agreement:
    """The mean agreement of several pairs of scores, such as those of the replicates 0 and 1, 0 and 2, 1 and 2.

    All pairs list the same heads in the same order. A head counts in the pairs where both of its scores are known. `n` and `p` are those of
    the pair with the most heads: pairs share heads and seeds, so more of them do not make a result surer.
    """
    known = [_known(first, second) for first, second in pairs]
    found = _mean_tau(known, seed)
    if found.tau is None:
        return Agreement(found.n, None, None, None, None)
    x, y, mask = max(
        (pair for pair in known if tau_b(*pair) is not None), key=lambda pair: int(pair[2].sum())
    )
    return Agreement(found.n, found.tau, found.low, found.high, _p_value(x[mask], y[mask]))


def mean_tau(pairs: Sequence[tuple[Sequence[float | None], Sequence[float | None]]], *, seed: int = 0) -> Tau:
    """`mean_agreement` without `p`, which takes half of its time."""
    return _mean_tau([_known(first, second) for first, second in pairs], seed)


def _mean_tau(known: Sequence[Pair], seed: int) -> Tau:
    n = max((int(mask.sum()) for _, _, mask in known), default=0)
    taus = {index: tau for index, pair in enumerate(known) if (tau := tau_b(*pair)) is not None}
    if not taus:
        return Tau(n, None, None, None)
    low, high = _interval([known[index] for index in taus], seed)
    return Tau(n, float(np.mean(list(taus.values()))), low, high)


def tau_b(x: Floats, y: Floats, mask: NDArray[np.bool_] | None = None) -> float | None:
    """Kendall's tau-b of two vectors; None where one is constant.

        tau_b = Σ sign(x_i - x_j) sign(y_i - y_j) / sqrt( Σ sign(x_i - x_j)² · Σ sign(y_i - y_j)² )

    over the pairs of those in `mask`. Kendall, "The Treatment of Ties in Ranking Problems", Biometrika 1945.
    """
    if mask is not None:
        x, y = x[mask], y[mask]
    signs_x, signs_y = signs(x), signs(y)
    untied = float((signs_x**2).sum()) * float((signs_y**2).sum())
    return float((signs_x * signs_y).sum()) / math.sqrt(untied) if untied > 0 else None


def regret(score: Sequence[float], probe: Sequence[float], k: int) -> float:
    """What choosing by a score loses: the best probe less the best probe among the `k` heads with the highest score.

    In the unit of the probe. Where scores are equal, the head with the lower probe is taken to be chosen.
    """
    chosen = sorted(zip(score, probe, strict=True), key=lambda head: (-head[0], head[1]))[:k]
    return max(probe) - max(probed for _, probed in chosen)


def heads_needed(tau: float) -> int:
    """The fewest heads with which a tau of this size, not 0, would be told from 0 with 95%.

    From var(tau) = 2 (2n + 5) / (9 n (n - 1)) without a relation (Kendall, "A New Measure of Rank Correlation", Biometrika 1938).
    """
    quantile = NormalDist().inv_cdf((1.0 + CONFIDENCE) / 2.0)
    n = FEWEST
    while quantile * math.sqrt(2.0 * (2 * n + 5) / (9.0 * n * (n - 1))) >= abs(tau):
        n += 1
    return n


def _known(first: Sequence[float | None], second: Sequence[float | None]) -> Pair:
    x, y = as_floats(first), as_floats(second)
    return x, y, np.isfinite(x) & np.isfinite(y)


def as_floats(column: Sequence[float | None]) -> Floats:
    """A vector, NaN where a value is unknown."""
    return np.array([math.nan if value is None else value for value in column], dtype=np.float64)


def signs(values: Floats) -> Floats:
    """The sign of the difference of every pair (N, N); NaN where a value is unknown."""
    return np.sign(values[:, None] - values[None, :])


def tau_of_sums(sums: Floats) -> Floats:
    """tau-b of its three sums over pairs, (3, ...); NaN where a side is the same for all."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(sums[0] / np.sqrt(sums[1] * sums[2]))


def mean_of_defined(values: Floats, axis: int) -> Floats:
    """The mean of what is not NaN; NaN where nothing is."""
    defined = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(defined, values, 0.0).sum(axis=axis) / defined.sum(axis=axis))


def percentiles(values: Floats) -> tuple[float, float]:
    """The ends of the interval that holds the middle 95% of the values; NaN is left out."""
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.nanquantile(values, [tail, 1.0 - tail])
    return float(low), float(high)


@cache
def resamples(n: int, size: int, seed: int) -> Floats:
    """How often each of `n` heads is drawn, (size, n). Not to be written to."""
    shares = np.full(n, 1.0 / n)
    return np.random.default_rng(seed).multinomial(n, shares, size=size).astype(np.float64)


def _interval(pairs: Sequence[Pair], seed: int) -> tuple[float | None, float | None]:
    """Percentiles of the mean tau over resamples of the heads.

    A resample is a vector that counts each head, so a few matrix products compute all of them. A head that is drawn twice is tied with
    itself, and tau-b leaves ties out.
    """
    present = np.any([mask for _, _, mask in pairs], axis=0)
    weights = resamples(int(present.sum()), RESAMPLES, seed)
    taus = []
    for x, y, mask in pairs:
        both = np.outer(mask, mask)[np.ix_(present, present)]
        signs_x, signs_y = (signs(np.where(mask, side, 0.0)[present]) * both for side in (x, y))
        sums = [
            np.einsum("bi,bi->b", weights @ product, weights)
            for product in (signs_x * signs_y, signs_x**2, signs_y**2)
        ]
        taus.append(tau_of_sums(np.stack(sums)))
    means = mean_of_defined(np.stack(taus), axis=0)
    return percentiles(means) if np.isfinite(means).any() else (None, None)


def _p_value(x: Floats, y: Floats) -> float | None:
    """scipy's: exact for few heads without ties, else from the normal approximation."""
    from scipy.stats import kendalltau

    p = float(kendalltau(x, y).pvalue)
    return p if math.isfinite(p) else None
