"""The intervals against scipy, a bootstrap, and how often they hold in simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from headsearch.evaluation.intervals import Outcome, margin


def test_over_images_alone_it_is_the_t_interval() -> None:
    x = np.random.default_rng(0).normal(3.0, 2.0, 40)
    low, high = stats.t.interval(0.95, 39, x.mean(), stats.sem(x))
    assert margin(x[None]) == pytest.approx((high - low) / 2)


def test_over_seeds_alone_it_is_the_t_interval() -> None:
    by_seed = np.array([61.0, 64.5, 63.2, 60.9, 66.0])
    same_for_all_images = np.tile(by_seed[:, None], 100)
    low, high = stats.t.interval(0.95, 4, by_seed.mean(), stats.sem(by_seed))
    assert margin(same_for_all_images) == pytest.approx((high - low) / 2, rel=1e-9)


def test_for_an_accuracy_over_many_images_it_is_the_bootstraps() -> None:
    right = 100.0 * (np.random.default_rng(1).random(800) < 0.83)
    found = stats.bootstrap((right,), np.mean, n_resamples=4000, method="percentile", rng=2)
    low, high = found.confidence_interval
    assert margin(right[None]) == pytest.approx((high - low) / 2, rel=0.06)


def test_paired_differences_are_surer_than_unpaired_ones() -> None:
    random = np.random.default_rng(3)
    hardness = random.normal(size=2000)
    first, second = (
        100.0 * (hardness + 0.3 * random.normal(size=2000) < limit)[None] for limit in (0.5, 0.6)
    )
    paired, alone = margin(second - first), margin(first)
    assert paired is not None
    assert alone is not None
    low, high = stats.t.interval(0.95, 1999, 0.0, stats.sem((second - first)[0]))
    assert paired == pytest.approx((high - low) / 2, rel=2e-3)
    assert paired < 0.8 * alone


@pytest.mark.parametrize(
    ("seed_sd", "image_sd", "rest_sd"), [(1.0, 8.0, 2.0), (1.0, 2.0, 8.0), (0.2, 8.0, 0.0)]
)
def test_it_covers_the_truth_at_least_as_often_as_it_says(
    seed_sd: float, image_sd: float, rest_sd: float
) -> None:
    random = np.random.default_rng(4)
    seeds, images, trials = 5, 60, 600
    hits = 0
    for _ in range(trials):
        contributions = (
            random.normal(0, seed_sd, (seeds, 1))
            + random.normal(0, image_sd, (1, images))
            + random.normal(0, rest_sd, (seeds, images))
        )
        half = margin(contributions)
        assert half is not None
        hits += abs(contributions.mean()) <= half
    # 95% less three standard errors of 600 trials.
    assert hits / trials > 0.95 - 3 * np.sqrt(0.95 * 0.05 / trials)


def test_noise_that_was_not_seen_is_unknown() -> None:
    assert margin(np.full((3, 50), 100.0)) is None
    assert margin(np.array([[40.0]])) is None


def test_the_score_is_the_mean_over_seeds() -> None:
    assert Outcome((60.0, 70.0), np.zeros((2, 3))).score == 65.0
