"""Noise of paired and unpaired differences, against all pairs one by one and against known variances."""

import importlib
from itertools import combinations
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="module")
def pairing() -> Any:
    return importlib.import_module("pairing")


def table(random: np.random.Generator, *, seed: float, arms: int = 13, seeds: int = 3) -> np.ndarray:
    """Scores with the deviation `seed` between seeds, and 1 of the rest."""
    of_arm, of_seed = 3.0 * random.normal(size=(arms, 1)), seed * random.normal(size=(1, seeds))
    return of_arm + of_seed + random.normal(size=(arms, seeds))


def test_the_ratio_is_that_of_all_pairs_of_arms(pairing: Any) -> None:
    scores = table(np.random.default_rng(0), seed=1.0)
    pairs = list(combinations(scores, 2))
    paired = np.mean([(a - b).var(ddof=1) for a, b in pairs])
    unpaired = np.mean([a.var(ddof=1) + b.var(ddof=1) for a, b in pairs])
    assert pairing.between_any(scores).estimate == pytest.approx(paired / unpaired)


@pytest.mark.parametrize(("seed", "ratio"), [(1.0, 0.5), (2.0, 0.2)])
def test_the_interval_holds_the_ratio_in_95_of_100_tables(pairing: Any, seed: float, ratio: float) -> None:
    random = np.random.default_rng(1)
    found = [pairing.between_any(table(random, seed=seed)) for _ in range(1000)]
    assert np.mean([each.low <= ratio <= each.high for each in found]) == pytest.approx(0.95, abs=0.02)


def test_a_control_that_shares_the_seeds_pairs_away_what_they_have_in_common(pairing: Any) -> None:
    scores = table(np.random.default_rng(2), seed=5.0, arms=200, seeds=4)
    found = pairing.to_control(scores[1:], scores[0])
    paired = ((scores[1:] - scores[0]).var(axis=1, ddof=1)).mean()
    unpaired = scores[1:].var(axis=1, ddof=1).mean() + scores[0].var(ddof=1)
    assert found.estimate == pytest.approx(paired / unpaired)
    assert found.low < found.estimate < found.high < 0.3
