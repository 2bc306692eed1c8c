"""Which of many scores foretells a target over heads, and how much of that survives on heads that it was not chosen on. Pure.

The best of sixty scores on two dozen heads looks good by luck alone. So the choice itself is judged: for every two groups of heads (families, say) the
score is chosen on all others, and judged by the pairs of heads between these two. Leaving out one group is not enough: of a pair with one head outside, the
choice has seen where that one belongs, and noise then looks right.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headsearch.results.agreement import Agreement, agreement, regret, signs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

RESAMPLES = 500
"""Of the bootstrap, which makes the choice anew every time."""

Scores = Mapping[str, Sequence[float | None]]
"""By name, one value a head, larger being better; None where a head has none."""


@dataclass(frozen=True)
class Foretelling:
    """How well one score foretells the target."""

    name: str
    agreement: Agreement
    top1: float | None
    """The best target less that of the head with the highest score; None where some head has no score."""
    top3: float | None
    """The best target less the best among the three heads with the highest score."""


@dataclass(frozen=True)
class Ahead:
    """How much better one score foretells the target than another."""

    difference: float
    """Of their Kendall's tau-b, over the heads that have both scores."""
    low: float
    """95% bootstrap interval over heads, both scores of the same resample."""
    high: float


@dataclass(frozen=True)
class LeftOut:
    """What choosing a score is worth on heads that it was not chosen on."""

    tau: float
    """Kendall's tau-b over all pairs of heads, each judged by the score that was chosen without the groups of both."""
    low: float
    """95% bootstrap interval over heads, the choice made anew in each resample."""
    high: float
    chosen: Mapping[str, int]
    """How many of the choices, one for every two groups, fell on a score; the most frequent first."""


def foretellings(scores: Scores, target: Sequence[float]) -> list[Foretelling]:
    """Every score against the target, best first by tau; those without a tau come last."""
    found = []
    for name, values in scores.items():
        known = [value for value in values if value is not None]
        whole = len(known) == len(target)
        found.append(
            Foretelling(
                name,
                agreement(values, target),
                regret(known, target, 1) if whole else None,
                regret(known, target, 3) if whole else None,
            )
        )
    return sorted(found, key=lambda each: -2.0 if each.agreement.tau is None else -each.agreement.tau)


def ahead(
    score: Sequence[float | None],
    other: Sequence[float | None],
    target: Sequence[float],
    *,
    seed: int = 0,
) -> Ahead | None:
    """How much better `score` foretells `target` than `other` does; None where one of the three is the same for all heads.

    Judged together on each resample: two scores of the same heads have most of their luck in common, so that this tells more than two intervals.
    """
    values = np.array([score, other, target], dtype=np.float64)
    values = values[:, ~np.isnan(values).any(axis=0)]
    n = values.shape[1]
    signs_3NN = np.stack([signs(each) for each in values])
    products = {
        pair: signs_3NN[pair[0]] * signs_3NN[pair[1]] for pair in ((0, 2), (1, 2), (0, 0), (1, 1), (2, 2))
    }

    def difference(weights_BN: Floats) -> Floats:
        sums = {
            pair: np.einsum("bi,ij,bj->b", weights_BN, product, weights_BN, optimize=True)
            for pair, product in products.items()
        }
        with np.errstate(invalid="ignore", divide="ignore"):
            taus = [sums[each, 2] / np.sqrt(sums[each, each] * sums[2, 2]) for each in (0, 1)]
        return np.asarray(taus[0] - taus[1])

    (found,) = difference(np.ones((1, n)))
    if not np.isfinite(found):
        return None
    resamples = np.random.default_rng(seed).multinomial(n, np.full(n, 1.0 / n), size=RESAMPLES)
    low, high = np.nanquantile(difference(resamples.astype(np.float64)), [0.025, 0.975])
    return Ahead(float(found), float(low), float(high))


def left_out(scores: Scores, target: Sequence[float], groups: Sequence[str], *, seed: int = 0) -> LeftOut:
    """What choosing the score with the highest tau-b is worth where the groups of heads are left out of the choice, two at a time.

    Args:
        scores: Those to choose from. A head without a value is left out of that score's pairs.
        target: One value a head.
        groups: The group of every head; at least three different ones.
        seed: Of the bootstrap.
    """
    names = list(scores)
    signs_NN = signs(np.asarray(target, dtype=np.float64))
    of_score = np.stack(
        [
            signs(np.array([np.nan if v is None else v for v in scores[name]], dtype=np.float64))
            for name in names
        ]
    )
    known = ~np.isnan(of_score)
    of_score = np.where(known, of_score, 0.0)
    # Of every score S and pair of heads: agreement, and the two parts of the denominator of tau-b.
    parts_3SNN = np.stack([of_score * signs_NN, of_score**2, known * signs_NN**2])
    kinds = sorted(set(groups))
    member_NG = np.array([[group == kind for kind in kinds] for group in groups], dtype=np.float64)

    def judged(weights_N: Floats) -> tuple[float, Counter[str]]:
        weighted_NG = member_NG * weights_N[:, None]
        blocks_3SGG = weighted_NG.T @ parts_3SNN @ weighted_NG
        totals, chosen = np.zeros(3), Counter[str]()
        for one, other in itertools.combinations_with_replacement(range(len(kinds)), 2):
            left = np.ones(len(kinds))
            left[[one, other]] = 0.0
            sums_3S = blocks_3SGG @ left @ left
            with np.errstate(invalid="ignore", divide="ignore"):
                taus = sums_3S[0] / np.sqrt(sums_3S[1] * sums_3S[2])
            best = int(np.argmax(np.where(np.isfinite(taus), taus, -2.0)))
            chosen[names[best]] += 1
            # A block within a group holds each of its pairs twice.
            totals += blocks_3SGG[:, best, one, other] * (0.5 if one == other else 1.0)
        return float(totals[0] / np.sqrt(totals[1] * totals[2])), chosen

    n = len(target)
    tau, chosen = judged(np.ones(n))
    resamples = np.random.default_rng(seed).multinomial(n, np.full(n, 1.0 / n), size=RESAMPLES)
    taus = [judged(weights.astype(np.float64))[0] for weights in resamples]
    low, high = np.nanquantile(taus, [0.025, 0.975])
    return LeftOut(tau, float(low), float(high), dict(chosen.most_common()))
