"""Domains, and how a random chooser draws from them."""

from __future__ import annotations

import math
import random
from collections import Counter

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headsearch.space.domains import Choice, Fixed, Integer, RandomChooser, Real


def test_log_integers_follow_the_log_uniform_law() -> None:
    domain = Integer(1, 64, log=True)
    chooser = RandomChooser(random.Random(0))
    draws = 40_000
    seen = Counter(domain.draw("x", chooser) for _ in range(draws))
    whole = math.log(64.5 / 0.5)
    for value in (1, 2, 8, 64):
        expected = math.log((value + 0.5) / (value - 0.5)) / whole
        assert seen[value] / draws == pytest.approx(expected, abs=4 * math.sqrt(expected / draws))


def test_log_integers_are_drawn_as_optuna_draws_them() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    distribution = optuna.distributions.IntDistribution(1, 32, log=True)
    theirs = [study.ask({"x": distribution}).params["x"] for _ in range(3000)]
    chooser = RandomChooser(random.Random(0))
    ours = [Integer(1, 32, log=True).draw("x", chooser) for _ in range(3000)]
    for value in (1, 2, 4):
        assert ours.count(value) / 3000 == pytest.approx(theirs.count(value) / 3000, abs=0.04)


@given(st.integers(1, 50), st.integers(0, 200), st.integers(1, 7), st.booleans(), st.integers())
def test_integers_stay_inside(low: int, extent: int, step: int, log: bool, seed: int) -> None:
    step = 1 if log else step
    domain = Integer(low, low + extent - extent % step, step, log)
    value = domain.draw("x", RandomChooser(random.Random(seed)))
    assert value in domain
    assert value in list(domain.values())
    assert domain.count == len(list(domain.values()))


@given(st.floats(1e-6, 1e3), st.floats(1e-6, 1e3), st.booleans(), st.integers())
def test_reals_stay_inside(a: float, b: float, log: bool, seed: int) -> None:
    domain = Real(min(a, b), max(a, b), log)
    assert domain.draw("x", RandomChooser(random.Random(seed))) in domain


def test_log_reals_have_their_median_at_the_geometric_mean() -> None:
    chooser = RandomChooser(random.Random(0))
    draws = sorted(float(Real(1e-4, 1.0, log=True).draw("x", chooser) or 0) for _ in range(4001))
    assert math.log10(draws[2000]) == pytest.approx(-2.0, abs=0.1)


def test_flags_and_numbers_are_not_mixed_up() -> None:
    assert True not in Choice((1, 2))
    assert 1 not in Choice((True, False))
    assert True not in Integer(0, 3)
    assert 7.0 in Choice((7, 9))


def test_the_first_value_is_the_default_then_the_fallback_then_the_first() -> None:
    assert Choice((3, 5, 7), default=1).first(7) == 5
    assert Choice((3, 5, 7)).first(7) == 7
    assert Choice((3, 5, 7)).first(4) == 3
    assert Integer(1, 4, default=2).first(3) == 2
    assert Integer(1, 4).first(3) == 3
    assert Integer(1, 4).first(None) == 1
    assert Real(0.1, 0.2).first(0.0) == 0.1
    assert Real(0.1, 0.2).first(0.15) == 0.15
    assert Fixed(None).first(3) is None
