"""Intervals and noise against scipy and simulation."""

from __future__ import annotations

import math
import random
import statistics

import numpy as np
import pytest
from scipy import stats

from headsearch.results.noise import blocked_noise, dunnett_quantile, pooled_noise, two_sided_t


@pytest.mark.parametrize("df", [1, 2, 3, 4, 5, 8, 17, 100, 1001])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999, 1 - 0.05 / 1000])
def test_t_is_scipys(df, confidence):
    assert two_sided_t(df, confidence) == pytest.approx(
        stats.t.ppf((1 + confidence) / 2, df), rel=1e-9 if df <= 1000 else 1e-5
    )


def test_interval_of_two_groups_is_the_classical_t_interval():
    head, control = [64.9, 64.2, 66.0], [51.6, 54.0]
    noise = pooled_noise([(3, statistics.stdev(head)), (2, statistics.stdev(control))])
    expected = stats.ttest_ind(head, control).confidence_interval(0.95)
    gain = statistics.fmean(head) - statistics.fmean(control)
    assert noise is not None
    assert noise.df == 3
    assert noise.interval(gain, 3, 2) == pytest.approx((expected.low, expected.high))


def test_pooled_deviation_is_the_residual_of_a_one_way_anova():
    groups = [[1.0, 2.0, 4.0], [5.0, 5.5], [7.0], [3.0, 3.5, 1.0, 0.0]]
    noise = pooled_noise([(len(g), statistics.stdev(g) if len(g) > 1 else None) for g in groups])
    residuals = [value - statistics.fmean(group) for group in groups for value in group]
    assert noise is not None
    assert noise.df == 10 - 4
    assert noise.deviation == pytest.approx(math.sqrt(sum(r * r for r in residuals) / 6))


def test_noise_that_was_not_seen_is_unknown_and_not_zero():
    assert pooled_noise([]) is None
    assert pooled_noise([(1, None), (1, None)]) is None
    assert pooled_noise([(2, 0.0), (3, 0.0)]) is None


@pytest.mark.parametrize(
    ("df", "control", "heads"),
    [(4, 2, (2, 2, 2)), (10, 3, (1, 1, 2, 2, 2)), (1, 2, (1, 2)), (30, 2, (2,) * 8), (200, 1, (4, 4, 4))],
)
def test_the_quantile_for_many_heads_is_that_of_scipys_multivariate_t(df, control, heads):
    loading = np.sqrt([n / (n + control) for n in heads])
    correlation = np.outer(loading, loading)
    np.fill_diagonal(correlation, 1.0)
    q = dunnett_quantile(df, control, heads)
    edge = np.full(len(heads), q)
    within = stats.multivariate_t(shape=correlation, df=df, seed=0).cdf(
        edge, lower_limit=-edge, maxpts=100_000
    )
    assert within == pytest.approx(0.95, abs=1e-4)
    assert two_sided_t(df, 0.95) < q < two_sided_t(df, 1 - 0.05 / len(heads))


def test_intervals_that_hold_together_are_those_of_scipys_dunnett():
    control, heads = [51.6, 54.0, 52.2], [[64.9, 64.2, 66.0], [58.4, 57.8], [56.4, 56.0, 55.1]]
    noise = pooled_noise([(len(g), statistics.stdev(g)) for g in [control, *heads]])
    expected = stats.dunnett(*heads, control=control, rng=np.random.default_rng(0)).confidence_interval(0.95)
    assert noise is not None
    for place, head in enumerate(heads):
        gain = statistics.fmean(head) - statistics.fmean(control)
        found = noise.interval(gain, len(head), 3, [len(each) for each in heads])
        assert found == pytest.approx((expected.low[place], expected.high[place]), abs=0.02)


def test_intervals_cover_the_true_gain_as_often_as_they_say():
    draws = random.Random(0)
    covered = total = 0
    for _ in range(4000):
        head = [draws.gauss(3.0, 1.0)]  # one run; the noise is known from the others
        control = [draws.gauss(0.0, 1.0) for _ in range(2)]
        other = [draws.gauss(-1.0, 1.0) for _ in range(3)]
        noise = pooled_noise([(len(group), statistics.stdev(group)) for group in (control, other)])
        assert noise is not None
        low, high = noise.interval(head[0] - statistics.fmean(control), 1, 2)
        covered += low <= 3.0 <= high
        total += 1
    assert covered / total == pytest.approx(0.95, abs=0.012)


def test_noise_in_blocks_of_two_arms_is_that_of_the_paired_t_test() -> None:
    random = np.random.default_rng(5)
    seeds = random.normal(60, 5, 6)
    first, second = seeds + random.normal(0, 1, 6), seeds + 2 + random.normal(0, 1, 6)
    noise = blocked_noise([first.tolist(), second.tolist()])
    assert noise is not None
    gain = float((second - first).mean())
    expected = stats.ttest_rel(second, first).confidence_interval(0.95)
    assert noise.df == 5
    assert noise.interval(gain, 6, 6) == pytest.approx((expected.low, expected.high))


def test_noise_in_blocks_is_the_residual_of_least_squares() -> None:
    arms, seeds = 4, 3
    scores = np.random.default_rng(6).normal(70, 3, (arms, seeds))
    design = np.array(
        [
            [*(arm == a for a in range(arms)), *(seed == s for s in range(1, seeds))]
            for arm in range(arms)
            for seed in range(seeds)
        ],
        dtype=float,
    )
    _, squares, rank, _ = np.linalg.lstsq(design, scores.flatten(), rcond=None)
    noise = blocked_noise(scores.tolist())
    assert noise is not None
    assert noise.df == arms * seeds - rank == 6
    assert noise.deviation == pytest.approx(np.sqrt(squares[0] / noise.df))


def test_noise_in_blocks_that_was_not_seen_is_unknown() -> None:
    assert blocked_noise([[60.0], [70.0]]) is None
    assert blocked_noise([[60.1, 61.1, 59.7], [70.1, 71.1, 69.7]]) is None
