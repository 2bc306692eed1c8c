"""How sure the first head is, against simulation and closed forms."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from scipy import stats

from headsearch.results.certainty import Belief, beliefs, probability_as_good
from headsearch.results.noise import Noise, pooled_noise

HEADS = [Belief(2.0, 0.6), Belief(1.7, 0.9), Belief(1.0, 1.4), Belief(0.2, 0.3)]


@pytest.mark.parametrize("df", [1, 2, 4, 30])
@pytest.mark.parametrize("first", [0, 1])
def test_probability_is_that_of_a_simulation(df, first):
    random = np.random.default_rng(df)
    factor = np.sqrt(df / random.chisquare(df, 200_000))[:, None]
    drawn = np.array([head.mean for head in HEADS]) + factor * random.normal(size=(200_000, 4)) * [
        head.deviation for head in HEADS
    ]
    within = (drawn.max(axis=1) - drawn[:, first] <= factor[:, 0] * 0.8).mean()
    assert probability_as_good(first, HEADS, Noise(0.8, df)) == pytest.approx(within, abs=0.006)


def test_two_heads_and_known_noise_are_a_normal_probability():
    wanted = stats.norm.cdf((2.0 - 1.7 + 0.8) / math.hypot(0.6, 0.9))
    assert probability_as_good(0, HEADS[:2], Noise(0.8, 10**6)) == pytest.approx(wanted, abs=1e-3)


def test_a_head_alone_and_heads_that_are_all_alike_are_as_good_as_the_best():
    assert probability_as_good(0, HEADS[:1], Noise(1.0, 3)) == pytest.approx(1.0)
    assert probability_as_good(1, [Belief(1.0, 0.0)] * 3, Noise(1.0, 3)) == 1.0
    assert probability_as_good(1, [Belief(9.0, 0.0), Belief(1.0, 0.0)], Noise(1.0, 300)) == 0.0


def test_beliefs_are_the_posterior_of_a_normal_model():
    """Against Bayes' rule on a fine grid of true scores, with the prior that the estimates give."""
    scores, noise = [[3.0, 3.4], [1.0], [7.0, 6.0, 6.5], [2.0]], Noise(0.7, 3)
    means = [statistics.fmean(of_head) for of_head in scores]
    spread = statistics.variance(means) - statistics.fmean(0.49 / len(of_head) for of_head in scores)
    grid = np.linspace(-20.0, 30.0, 200_001)
    for of_head, belief in zip(scores, beliefs(scores, noise), strict=True):
        log = stats.norm.logpdf(grid, statistics.fmean(means), math.sqrt(spread))
        log += sum(stats.norm.logpdf(score, grid, 0.7) for score in of_head)
        weights = np.exp(log - log.max())
        mean = np.average(grid, weights=weights)
        assert belief.mean == pytest.approx(mean, abs=1e-6)
        deviation = math.sqrt(np.average((grid - mean) ** 2, weights=weights))
        assert belief.deviation == pytest.approx(deviation, abs=1e-5)


def test_heads_that_differ_by_less_than_the_noise_are_believed_to_be_alike():
    found = beliefs([[1.0], [1.1], [0.9]], Noise(2.0, 4))
    assert {round(belief.mean, 9) for belief in found} == {1.0}
    assert {belief.deviation for belief in found} == {0.0}


def test_what_is_said_to_be_sure_holds_as_often_as_it_is_said():
    """Of simulated heads whose first is as good as the best with a probability near p, a share p is."""
    random = np.random.default_rng(0)
    said, true = [], []
    for _ in range(800):
        truth = random.normal(0.0, 1.5, 6)
        scores = truth[:, None] + random.normal(size=(6, 2))
        noise = pooled_noise([(2, float(row.std(ddof=1))) for row in scores])
        assert noise is not None
        first = int(scores.mean(axis=1).argmax())
        said.append(probability_as_good(first, beliefs(scores.tolist(), noise), noise))
        true.append(truth.max() - truth[first] <= 1.0)
    assert np.mean(said) == pytest.approx(np.mean(true), abs=0.03)
    sure = [held for probability, held in zip(said, true, strict=True) if probability >= 0.9]
    assert len(sure) > 160
    assert np.mean(sure) > 0.9
