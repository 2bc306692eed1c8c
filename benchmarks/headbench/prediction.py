"""Which of many scores predicts a target over heads, and how much of that survives on heads that it was not chosen on. Pure.

The best of sixty scores on two dozen heads looks good by luck alone. So the choice itself is judged: for every two groups of heads (families, say) the
score is chosen on all others, and judged by the pairs of heads between these two. Leaving out one group is not enough: of a pair with one head outside, the
choice has seen where that one belongs, and noise then looks right.

Over several benches, which are bases or data sets, a tau is the mean of those of the benches: heads of different benches are never compared. Intervals are
from resamples of heads, and a head is drawn for all of its benches together: what is a good head on one base is likely to be good on the next, and does
not tell twice as much.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headsearch.results.agreement import (
    Tau,
    as_floats,
    mean_of_defined,
    mean_tau,
    percentiles,
    regret,
    resamples,
    signs,
    tau_of_sums,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

RESAMPLES = 500
"""Of the bootstrap, which makes the choice anew every time."""

Column = Sequence[float | None]
"""One value a head, larger being better; None where a head has none."""


@dataclass(frozen=True)
class Bench:
    """Scores and what they are to predict, on one base and data set. Several benches have their heads in the same order."""

    scores: Mapping[str, Column]
    target: Column
    """None where the bench does not have the head."""


@dataclass(frozen=True)
class Prediction:
    """How well one score predicts the target."""

    name: str
    agreement: Tau
    top1: float | None
    """The best target less that of the head with the highest score, the mean over benches; None where some head has no score."""
    top3: float | None
    """The best target less the best among the three heads with the highest score."""


@dataclass(frozen=True)
class Ahead:
    """How much better one score predicts the target than another."""

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


def predictions(benches: Sequence[Bench]) -> list[Prediction]:
    """Every score that all benches have, best first by tau; those without a tau come last."""
    found = []
    for name in _common(benches):
        pairs = [(bench.scores[name], bench.target) for bench in benches]
        losses = [[_loss(*pair, k) for pair in pairs] for k in (1, 3)]
        found.append(Prediction(name, mean_tau(pairs), *map(_mean, losses)))
    return sorted(found, key=lambda each: -2.0 if each.agreement.tau is None else -each.agreement.tau)


def ahead(
    benches: Sequence[Bench], score: str, other: str, *, seed: int = 0, draws: int = RESAMPLES
) -> Ahead | None:
    """How much better `score` predicts the target than `other` does; None where one of the three is the same for all heads of every bench.

    Judged together on each resample: two scores of the same heads have most of their luck in common, so that this tells more than two intervals.
    """
    n = len(benches[0].target)
    parts_BS4NN = np.stack([_parts((bench.scores[score], bench.scores[other]), bench) for bench in benches])
    both_BNN = np.all(parts_BS4NN[:, :, 3] > 0, axis=1)
    parts_BS3NN = parts_BS4NN[:, :, :3] * both_BNN[:, None, None]

    def difference(weights_RN: Floats) -> Floats:
        """Of every resample R."""
        sums_RBS3 = np.einsum("ri,bspij,rj->rbsp", weights_RN, parts_BS3NN, weights_RN, optimize=True)
        taus_RBS = tau_of_sums(np.moveaxis(sums_RBS3, -1, 0))
        return mean_of_defined(taus_RBS[..., 0] - taus_RBS[..., 1], axis=-1)

    (found,) = difference(np.ones((1, n)))
    if not np.isfinite(found):
        return None
    return Ahead(float(found), *percentiles(difference(resamples(n, draws, seed))))


def left_out(benches: Sequence[Bench], groups: Sequence[str], *, seed: int = 0) -> LeftOut:
    """What choosing the score with the highest tau-b is worth where the groups of heads are left out of the choice, two at a time.

    Args:
        benches: Scores to choose from are those that all have. A head without a value is left out of that score's pairs.
        groups: The group of every head; at least three different ones.
        seed: Of the bootstrap.
    """
    names = _common(benches)
    parts_B3SNN = np.stack(
        [np.swapaxes(_parts([bench.scores[name] for name in names], bench)[:, :3], 0, 1) for bench in benches]
    )
    kinds = sorted(set(groups))
    member_NG = np.array([[group == kind for kind in kinds] for group in groups], dtype=np.float64)
    # Of every two groups P that are left out: which pairs of groups are left to choose by, and how often the block of the two holds each of its pairs.
    two_P2 = np.array(list(itertools.combinations_with_replacement(range(len(kinds)), 2)))
    left_PG = np.ones((len(two_P2), len(kinds)))
    np.put_along_axis(left_PG, two_P2, 0.0, axis=1)
    left_PGG = left_PG[:, :, None] * left_PG[:, None, :]
    share_P = np.where(two_P2[:, 0] == two_P2[:, 1], 0.5, 1.0)

    def judged(weights_N: Floats) -> tuple[float, Counter[str]]:
        weighted_NG = member_NG * weights_N[:, None]
        blocks_B3SGG = weighted_NG.T @ parts_B3SNN @ weighted_NG
        sums_B3SP = np.tensordot(blocks_B3SGG, left_PGG, axes=((3, 4), (1, 2)))
        taus_SP = mean_of_defined(tau_of_sums(np.moveaxis(sums_B3SP, 1, 0)), axis=0)
        best_P = np.argmax(np.where(np.isfinite(taus_SP), taus_SP, -2.0), axis=0)
        totals_B3 = (blocks_B3SGG[:, :, best_P, two_P2[:, 0], two_P2[:, 1]] * share_P).sum(axis=-1)
        tau = float(mean_of_defined(tau_of_sums(totals_B3.T), axis=-1))
        return tau, Counter(names[best] for best in best_P)

    tau, chosen = judged(np.ones(len(groups)))
    taus = np.array([judged(weights_N)[0] for weights_N in resamples(len(groups), RESAMPLES, seed)])
    return LeftOut(tau, *percentiles(taus), dict(chosen.most_common()))


def _common(benches: Sequence[Bench]) -> list[str]:
    return [name for name in benches[0].scores if all(name in bench.scores for bench in benches)]


def _loss(score: Column, target: Column, k: int) -> float | None:
    known = [(a, b) for a, b in zip(score, target, strict=True) if b is not None]
    if any(a is None for a, _ in known):
        return None
    return regret([a for a, _ in known if a is not None], [b for _, b in known], k)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def _parts(columns: Sequence[Column], bench: Bench) -> Floats:
    """Of every score S and pair of heads (S, 4, N, N): whether it has the order of the target, the two parts of the denominator of tau-b, and whether both are known."""
    target_NN = signs(as_floats(bench.target))
    of_score = np.stack([signs(as_floats(column)) for column in columns])
    known = np.isfinite(of_score * target_NN)
    score, target = np.where(known, of_score, 0.0), np.where(known, target_NN, 0.0)
    return np.stack([score * target, score**2, target**2, known.astype(np.float64)], axis=1)
