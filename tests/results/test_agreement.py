"""Kendall's tau against scipy and brute force, its interval against a plain bootstrap and by simulation, and what choosing costs."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from headsearch.results.agreement import (
    FEWEST,
    UNCLEAR,
    Agreement,
    agreement,
    heads_needed,
    mean_agreement,
    regret,
    tau_b,
)

numbers = st.integers(-4, 4).map(float)
paired = st.lists(st.tuples(numbers, numbers), min_size=2, max_size=25)


def brute_force(x, y):
    """tau-b counted pair by pair."""
    concordant = discordant = untied_x = untied_y = 0
    for i, j in itertools.combinations(range(len(x)), 2):
        a, b = x[i] - x[j], y[i] - y[j]
        concordant += a * b > 0
        discordant += a * b < 0
        untied_x += a != 0
        untied_y += b != 0
    return (concordant - discordant) / math.sqrt(untied_x * untied_y) if untied_x * untied_y else None


@given(paired)
def test_tau_is_scipys_and_that_of_counting_pairs(points):
    x, y = zip(*points, strict=True)
    found = agreement(x, y)
    expected = stats.kendalltau(x, y)
    assert found.n == len(x)
    if brute_force(x, y) is None:
        assert found.tau is None
        assert math.isnan(expected.statistic)
    else:
        assert found.tau == pytest.approx(brute_force(x, y)) == pytest.approx(expected.statistic)
        assert found.p == pytest.approx(expected.pvalue, nan_ok=True)


@given(paired)
def test_tau_is_symmetric_and_turns_with_the_order(points):
    x, y = zip(*points, strict=True)
    found, swapped, turned = agreement(x, y), agreement(y, x), agreement(x, [-value for value in y])
    assert found == swapped
    assert found.low is None or -1.0 <= found.low <= found.high <= 1.0
    if found.tau is not None:
        assert turned.tau == pytest.approx(-found.tau)
    stretched = [math.exp(value) for value in x]
    assert agreement(stretched, y) == found, "only the order matters"


def test_the_interval_is_that_of_resampling_heads_one_by_one():
    draws = np.random.default_rng(3)
    x = draws.normal(size=15)
    y = x + draws.normal(size=15)
    taus = []
    for _ in range(6000):
        index = draws.integers(0, 15, 15)
        taus.append(brute_force(x[index], y[index]))
    expected = np.quantile([tau for tau in taus if tau is not None], [0.025, 0.975])
    found = agreement(list(x), list(y))
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=0.03)


def test_the_interval_covers_the_truth_and_the_verdict_is_rarely_wrong():
    draws = np.random.default_rng(0)
    rho = math.sin(math.pi / 2 * 0.5)  # of normal scores with tau = 0.5 (Greiner)
    covered = wrong = 0
    for _ in range(300):
        x, z = draws.normal(size=12), draws.normal(size=12)
        related = agreement(list(x), list(rho * x + math.sqrt(1 - rho**2) * z))
        covered += related.low <= 0.5 <= related.high
        wrong += agreement(list(x), list(z)).verdict != UNCLEAR
    assert covered / 300 >= 0.92
    assert wrong / 300 <= 0.08


def test_the_same_scores_give_the_same_interval():
    x, y = [3.0, 1.0, 2.0, 5.0, 4.0, 7.0], [1.0, 2.0, 3.0, 5.0, 4.0, 6.0]
    assert agreement(x, y) == agreement(x, y)
    assert agreement(x, y, seed=1).tau == agreement(x, y).tau


def test_heads_with_an_unknown_score_are_left_out():
    x, y = [1.0, None, 3.0, 2.0, math.nan, 4.0, 0.0], [1.0, 9.0, 3.0, 2.0, 0.0, None, 5.0]
    assert agreement(x, y) == agreement([1.0, 3.0, 2.0, 0.0], [1.0, 3.0, 2.0, 5.0])


def test_verdicts():
    up = [float(n) for n in range(8)]
    assert agreement(up, up).verdict == "agrees"
    assert agreement(up, up[::-1]).verdict == "disagrees"
    assert agreement(up[:4], up[:4]).verdict == UNCLEAR, "four heads come into order by chance"
    assert agreement(up[:5], up[:5]).verdict == "agrees"
    assert agreement(up, [1.0] * 8).verdict == UNCLEAR
    assert agreement([], []).verdict == UNCLEAR
    assert Agreement(9, 0.5, 0.1, 0.9, 0.07).verdict == UNCLEAR, "the interval alone is not enough"
    assert Agreement(9, 0.5, -0.1, 0.9, 0.04).verdict == UNCLEAR, "nor is p alone"


@pytest.mark.parametrize("tau", [0.15, 0.3, 0.5, 0.8, -0.5])
def test_as_many_heads_are_needed_as_the_variance_says(tau):
    def told(n):
        return abs(tau) > stats.norm.ppf(0.975) * math.sqrt(2 * (2 * n + 5) / (9 * n * (n - 1)))

    n = heads_needed(tau)
    assert told(n)
    assert n == FEWEST or not told(n - 1)


def test_what_would_be_enough():
    assert Agreement(6, 0.3, -0.2, 0.7, 0.4).enough == heads_needed(0.3)
    assert Agreement(6, 0.0, -0.5, 0.5, 0.9).enough == heads_needed(0.5), "of no tau at all, one of 0.5"
    assert Agreement(20, 0.0, -0.5, 0.5, 0.9).enough == heads_needed(0.25), "20 would have shown 0.5"
    assert Agreement(12, 0.9, -0.1, 1.0, 0.04).enough == 13
    assert Agreement(0, None, None, None, None).enough == heads_needed(0.5)
    assert agreement([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [0.0] * 6).enough is None, (
        "no number of heads would help"
    )
    assert agreement([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).enough is None


def test_pairs_of_replicates_are_averaged():
    first, second = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [2.0, 1.0, 3.0, 4.0, 6.0, 5.0]
    third = [None, None, 3.0, 1.0, 2.0, 4.0]
    found = mean_agreement([(first, second), (first, third), (second, third)])
    taus = [
        stats.kendalltau(a, b).statistic
        for a, b in ((first, second), (first[2:], third[2:]), (second[2:], third[2:]))
    ]
    assert found.tau == pytest.approx(np.mean(taus))
    assert found.n == 6
    assert found.p == pytest.approx(stats.kendalltau(first, second).pvalue)
    assert found.low <= found.tau <= found.high
    assert mean_agreement([(first, second)]) == agreement(first, second)
    assert mean_agreement([]) == Agreement(0, None, None, None, None)


def test_tau_is_undefined_for_a_constant():
    assert tau_b(np.ones(4), np.arange(4.0)) is None


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=12), st.integers(1, 4))
def test_regret_is_that_of_the_worst_way_to_break_ties(heads, k):
    score, probe = zip(*heads, strict=True)
    worst = 0.0
    for chosen in itertools.combinations(range(len(heads)), min(k, len(heads))):
        left = [score[i] for i in range(len(heads)) if i not in chosen]
        if not left or min(score[i] for i in chosen) >= max(left):
            worst = max(worst, max(probe) - max(probe[i] for i in chosen))
    assert regret(score, probe, k) == worst


def test_regret_falls_with_the_number_taken():
    draws = random.Random(0)
    score, probe = ([draws.random() for _ in range(10)] for _ in range(2))
    losses = [regret(score, probe, k) for k in range(1, 11)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == 0.0
    assert regret(probe, probe, 1) == 0.0
