"""The schedules against their closed forms."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headsearch.training.schedules import learning_rate, teacher_momentum


def test_the_learning_rate_rises_in_a_line_and_falls_along_a_cosine() -> None:
    rates = [learning_rate(step, steps=12, warmup_steps=4, peak=2.0) for step in range(12)]
    assert rates[:5] == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0])
    assert rates[8] == pytest.approx(1.0)
    assert rates[10] == pytest.approx(2.0 * 0.5 * (1 + math.cos(math.pi * 6 / 8)))


@given(st.integers(1, 200), st.floats(0, 1), st.floats(1e-6, 10))
def test_no_step_has_a_learning_rate_of_zero_or_above_the_peak(steps: int, share: float, peak: float) -> None:
    warmup_steps = round(share * steps)
    rates = [learning_rate(step, steps=steps, warmup_steps=warmup_steps, peak=peak) for step in range(steps)]
    assert all(0 < rate <= peak for rate in rates)
    top = min(warmup_steps, steps - 1)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_the_teachers_momentum_rises_to_one_along_a_cosine() -> None:
    momenta = [teacher_momentum(step, steps=10, start=0.9) for step in range(11)]
    assert momenta[0] == pytest.approx(0.9)
    assert momenta[5] == pytest.approx(0.95)
    assert momenta[10] == pytest.approx(1.0)
    assert momenta == sorted(momenta)
