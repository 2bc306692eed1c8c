"""Contrasts against scipy, what chance picks against all picks there are, the interval of a regret against simulation."""

from __future__ import annotations

import itertools
import math
from statistics import fmean, stdev

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_ind

from headsearch.reproduction.contrasts import (
    FAILS,
    HOLDS,
    MOST_SEEDS,
    RELEVANT_POINTS,
    UNCLEAR,
    Estimate,
    Score,
    best_of_random,
    chance_as_good,
    contrast,
    judged,
    judged_relation,
    regret,
    seeds_needed,
    together,
)
from headsearch.results.agreement import Agreement
from headsearch.results.noise import Noise, pooled_noise

FIRST, SECOND = [70.1, 71.3, 69.8], [66.0, 67.9]


def noise_of(*groups: list[float]) -> Noise:
    found = pooled_noise([(len(group), stdev(group)) for group in groups])
    assert found is not None
    return found


def test_a_difference_of_two_heads_is_the_t_test() -> None:
    scores = {"a": Score(fmean(FIRST), 3), "b": Score(fmean(SECOND), 2)}
    found = contrast({"a": 1.0, "b": -1.0}, scores, noise_of(FIRST, SECOND))
    expected = ttest_ind(FIRST, SECOND)
    interval = expected.confidence_interval(0.95)
    assert found.value == pytest.approx(fmean(FIRST) - fmean(SECOND))
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_with_several_comparisons_it_is_the_t_test_at_that_level() -> None:
    scores = {"a": Score(fmean(FIRST), 3), "b": Score(fmean(SECOND), 2)}
    found = contrast({"a": 1.0, "b": -1.0}, scores, noise_of(FIRST, SECOND), comparisons=10)
    interval = ttest_ind(FIRST, SECOND).confidence_interval(1.0 - 0.05 / 10)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_the_interval_of_a_mean_over_heads_covers_what_it_says() -> None:
    rng = np.random.default_rng(0)
    truth, seeds, covered = np.array([1.0, 5.0, 2.0, 9.0, 3.0]), 3, 0
    names = list("abcde")
    weights = dict(zip(names, [0.25] * 4 + [-1.0], strict=True))
    expected = truth[:4].mean() - truth[4]
    for _ in range(2_000):
        drawn = truth[:, None] + rng.normal(size=(5, seeds))
        scores = {name: Score(float(row.mean()), seeds) for name, row in zip(names, drawn, strict=True)}
        found = contrast(weights, scores, noise_of(*drawn.tolist()))
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= expected <= found.high
    assert 0.935 <= covered / 2_000 <= 0.965


def test_without_noise_there_is_a_value_and_no_interval() -> None:
    found = contrast({"a": 1.0, "b": -1.0}, {"a": Score(70.0, 1), "b": Score(60.0, 1)}, None)
    assert found == Estimate(10.0, None, None)
    assert judged(found) == UNCLEAR


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.1, 5.0, HOLDS),
        (0.1, 0.2, HOLDS),
        (0.0, 5.0, UNCLEAR),
        (-1.0, RELEVANT_POINTS, UNCLEAR),
        (-1.0, 0.4, FAILS),
        (-3.0, -1.0, FAILS),
    ],
)
def test_a_gain_is_judged_by_both_ends_of_its_interval(low: float, high: float, verdict: str) -> None:
    assert judged(Estimate(0.5 * (low + high), low, high)) == verdict


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (Agreement(12, 0.7, 0.4, 0.9, 0.001), HOLDS),
        (Agreement(12, -0.7, -0.9, -0.4, 0.001), FAILS),
        (Agreement(40, 0.0, -0.19, 0.19, 0.9), FAILS),
        (Agreement(12, 0.3, -0.2, 0.7, 0.2), UNCLEAR),
        (Agreement(4, 1.0, 1.0, 1.0, 0.08), UNCLEAR),
        (Agreement(4, -1.0, -1.0, -1.0, 0.08), UNCLEAR),
        (Agreement(0, None, None, None, None), UNCLEAR),
    ],
)
def test_a_relation_needs_heads_an_interval_and_p(found: Agreement, verdict: str) -> None:
    assert judged_relation(found) == verdict


def test_parts_are_judged_together() -> None:
    assert together([HOLDS, HOLDS]) == HOLDS
    assert together([HOLDS, UNCLEAR]) == UNCLEAR
    assert together([HOLDS, UNCLEAR, FAILS]) == FAILS
    assert together([]) == UNCLEAR


@pytest.mark.parametrize("value", [-2.0, 0.0, 0.25, 0.3, 1.0, 4.0])
def test_with_as_many_seeds_as_are_asked_for_it_can_be_told_and_with_one_less_it_cannot(value: float) -> None:
    weights = {"a": 0.5, "b": 0.5, "c": -1.0}

    def verdict(seeds: int) -> str:
        scores = {"a": Score(value, seeds), "b": Score(value, seeds), "c": Score(0.0, seeds)}
        return judged(contrast(weights, scores, Noise(1.0, 3 * (seeds - 1))))

    needed = seeds_needed(value, weights, Noise(1.0, 3), arms=3, seeds=1)
    assert needed is not None
    assert verdict(needed) != UNCLEAR
    assert needed == 2 or verdict(needed - 1) == UNCLEAR


def test_more_seeds_are_asked_for_than_there_are_and_none_where_no_number_is_affordable() -> None:
    weights = {"a": 1.0, "b": -1.0}
    assert seeds_needed(9.0, weights, None, arms=2, seeds=1) == 2
    assert seeds_needed(9.0, weights, None, arms=2, seeds=3) == 4
    assert seeds_needed(9.0, weights, Noise(0.1, 4), arms=2, seeds=3) == 4
    assert seeds_needed(0.25, weights, Noise(50.0, 4), arms=2, seeds=3) is None
    assert seeds_needed(0.25, weights, Noise(1.0, 4), arms=2, seeds=MOST_SEEDS) is None


VALUES = st.lists(st.integers(0, 9).map(float), min_size=1, max_size=8)


@given(VALUES, st.integers(1, 4))
def test_the_best_of_random_picks_is_the_mean_over_all_picks(values: list[float], picks: int) -> None:
    picks = min(picks, len(values))
    weights = best_of_random(values, picks)
    every = [max(picked) for picked in itertools.combinations(values, picks)]
    assert sum(weights) == pytest.approx(1.0)
    assert sum(w * v for w, v in zip(weights, values, strict=True)) == pytest.approx(fmean(every))


@given(VALUES, st.integers(1, 4), st.integers(0, 9))
def test_the_chance_of_doing_as_well_is_the_share_of_all_picks(
    values: list[float], picks: int, reached: int
) -> None:
    picks = min(picks, len(values))
    every = [max(picked) >= reached for picked in itertools.combinations(values, picks)]
    assert chance_as_good(values, picks, float(reached)) == pytest.approx(sum(every) / len(every))


def test_the_regret_of_one_head_is_the_difference_to_the_best_with_adjusted_bounds() -> None:
    scores = {"a": Score(70.0, 3), "b": Score(74.0, 3), "c": Score(60.0, 3)}
    noise = Noise(1.0, 6)
    found = regret(["a"], scores, noise)
    to_best = contrast({"b": 1.0, "a": -1.0}, scores, noise, comparisons=2)
    assert found == Estimate(4.0, to_best.low, to_best.high)


def test_a_regret_is_never_negative_and_nothing_is_lost_by_taking_all() -> None:
    scores = {"a": Score(70.0, 3), "b": Score(60.0, 3)}
    found = regret(["a"], scores, Noise(1.0, 4))
    assert found == Estimate(0.0, 0.0, 0.0)
    assert regret(["a", "b"], scores, Noise(1.0, 4)) == Estimate(0.0, 0.0, 0.0)
    assert regret(["b"], scores, None) == Estimate(10.0, None, None)


@pytest.mark.parametrize("spread", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("picks", [1, 3])
def test_the_interval_of_a_regret_holds_although_the_best_was_picked_after_looking(
    picks: int, spread: float
) -> None:
    rng = np.random.default_rng(1)
    names, seeds, covered = list("abcdefgh"), 3, 0
    for _ in range(400):
        truth = spread * rng.normal(size=8)
        drawn = truth[:, None] + rng.normal(size=(8, seeds))
        scores = {name: Score(float(row.mean()), seeds) for name, row in zip(names, drawn, strict=True)}
        found = regret(names[:picks], scores, noise_of(*drawn.tolist()))
        assert found.low is not None
        assert found.high is not None
        assert math.isfinite(found.high)
        covered += found.low <= truth.max() - truth[:picks].max() <= found.high
    assert covered / 400 >= 0.94
