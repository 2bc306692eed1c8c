from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

import pytest
from headbench.curves import Assumptions, learning_curves
from headbench.simulation import InOrder, epochs_spent, simulate
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from headsearch.search.stopping import SuccessiveHalving

RUNGS = (3, 9, 27)
CURVES = learning_curves(seed=7)


@dataclass(frozen=True)
class Table:
    """One objective; the same at every rung."""

    scores: tuple[float, ...]
    seconds: float = 1.0

    def observed(self, head: int, epoch: int, seed: int) -> tuple[float]:
        return (self.scores[head],)

    def seconds_per_epoch(self, head: int) -> float:
        return self.seconds


def test_one_worker_halving_one_objective_by_hand() -> None:
    # Rungs 1, 3, 9 and reduction 2. At a rung the best floor(n / 2), but at least one, of the n that reached it go on.
    # Rung 1, in order:  head 0 (5) leads; 1 (4) is 2nd of 2, stopped; 2 (6) leads; 3 (5.5) is 2nd of 4, goes on; 4 (1) stopped;
    #                    5 (5.8) is 2nd of 6, goes on.
    # Rung 3 sees 0, 2, 3, 5: 0 leads; 2 leads; 3 is 2nd of 3, stopped; 5 is 2nd of 4, goes on.
    table = Table((5.0, 4.0, 6.0, 5.5, 1.0, 5.8))
    trials = simulate(table, InOrder(range(6)), SuccessiveHalving([1, 3, 9], 2))
    assert [(t.head, t.epochs, t.objectives) for t in trials] == [
        (0, 9, (5.0,)),
        (1, 1, None),
        (2, 9, (6.0,)),
        (3, 3, None),
        (4, 1, None),
        (5, 9, (5.8,)),
    ]
    assert [t.end for t in trials] == [9, 10, 19, 22, 23, 32]
    assert epochs_spent(trials, 20.0) == 20


def test_two_workers_by_hand() -> None:
    # Both reach rung 1 at time 1: trial 0 is first, and leads; trial 1 (better) leads too. Trial 2 starts when trial 0 ends, at 3.
    table = Table((1.0, 2.0, 0.0))
    trials = simulate(table, InOrder(range(3)), SuccessiveHalving([1, 3], 3), workers=2)
    assert [(t.number, t.worker, t.start, t.end, t.epochs) for t in trials] == [
        (0, 0, 0, 3, 3),
        (1, 1, 0, 3, 3),
        (2, 0, 3, 4, 1),
    ]
    assert epochs_spent(trials, 2.0) == 4


@given(st.integers(1, 7), st.integers(1, 4), st.integers(0, 1000))
def test_epochs_and_workers_are_conserved(workers: int, reduction: int, seed: int) -> None:
    order = random.Random(seed).sample(range(len(CURVES)), 40)
    trials = simulate(CURVES, InOrder(order), SuccessiveHalving(RUNGS, reduction), workers=workers, seed=seed)
    assert sorted(t.number for t in trials) == list(range(40))
    assert {t.number: t.head for t in trials} == dict(enumerate(order))
    assert [t.end for t in trials] == sorted(t.end for t in trials)
    for trial in trials:
        assert trial.epochs in RUNGS
        assert (trial.objectives is not None) == (trial.epochs == 27)
        duration = trial.epochs * CURVES.seconds_per_epoch(trial.head)
        assert trial.end - trial.start == pytest.approx(duration)
    for worker in range(workers):
        own = sorted((t for t in trials if t.worker == worker), key=lambda t: t.start)
        # A worker is never on two trials at once, and never idle between them.
        assert all(a.end == b.start for a, b in itertools.pairwise(own))
        assert own[0].start == 0
    end = trials[-1].end
    assert epochs_spent(trials, end) == sum(t.epochs for t in trials)
    assert epochs_spent(trials, end / 2) <= epochs_spent(trials, end)
    assert epochs_spent(trials, 0.0) == 0


def test_without_stopping_every_trial_measures_what_the_table_says() -> None:
    trials = simulate(CURVES, InOrder(range(10)), SuccessiveHalving(RUNGS, 1), workers=3, seed=5)
    assert {t.head: t.objectives for t in trials} == {h: CURVES.observed(h, 27, 5) for h in range(10)}


def test_the_same_seed_gives_the_same_curves() -> None:
    assert learning_curves(3) == learning_curves(3)
    assert learning_curves(3) != learning_curves(4)
    assert CURVES.observed(2, 9, seed=1) == CURVES.observed(2, 9, seed=1)
    assert CURVES.observed(2, 9, seed=1) != CURVES.observed(2, 9, seed=2)


def test_curves_are_distinct_heads_of_several_families() -> None:
    assert len({head.config for head in CURVES.heads}) == len(CURVES) >= 24
    assert len({head.config.family for head in CURVES.heads}) == 8


def mean_tau(assumptions: Assumptions, a: tuple[int, int], b: tuple[int, int]) -> float:
    """Kendall's tau over heads between two of (seed, objective) at full budget, mean over 20 tables."""
    taus = []
    for table in range(20):
        curves = learning_curves(table, assumptions)
        one, other = (
            [curves.observed(h, curves.assumptions.budget, seed)[objective] for h in range(len(curves))]
            for seed, objective in (a, b)
        )
        taus.append(kendalltau(one, other).statistic)
    return float(sum(taus) / len(taus))


def test_discrepancy_is_reproducible_and_says_little_about_the_probe() -> None:
    usual = Assumptions()
    assert 0.85 < mean_tau(usual, (0, 0), (1, 0)) < 0.95
    assert 0.6 < mean_tau(usual, (0, 1), (1, 1)) < 0.8
    assert 0.2 < mean_tau(usual, (0, 0), (1, 1)) < 0.4


def test_an_early_rung_tells_more_where_asymptote_and_speed_agree() -> None:
    def tau(agreement: float) -> float:
        taus = []
        for table in range(10):
            curves = learning_curves(table, Assumptions(agreement=agreement))
            early, final = ([curves.expected(h, e)[1] for h in range(len(curves))] for e in (3, 27))
            taus.append(kendalltau(early, final).statistic)
        return sum(taus) / len(taus)

    assert tau(0.0) + 0.1 < tau(0.5)
    assert tau(0.5) + 0.1 < tau(1.0)
    assert tau(1.0) > 0.9


def test_noise_persists_within_a_trial_as_assumed() -> None:
    def correlation(persistence: float) -> float:
        curves = learning_curves(0, Assumptions(persistence=persistence, noise=1.0))
        pairs = [
            [curves.observed(h, e, seed)[1] - curves.expected(h, e)[1] for e in (3, 27)]
            for h in range(len(curves))
            for seed in range(20)
        ]
        variance = sum(a * a + b * b for a, b in pairs) / 2
        assert variance / len(pairs) == pytest.approx(1.0, abs=0.1)
        return sum(a * b for a, b in pairs) / variance

    assert correlation(1.0) == pytest.approx(1.0)
    assert correlation(0.5) == pytest.approx(0.5, abs=0.1)
    assert correlation(0.0) == pytest.approx(0.0, abs=0.1)
