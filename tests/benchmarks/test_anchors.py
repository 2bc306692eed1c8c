"""The replay of anchors: its formulas against those of searches and of scipy, and what it counts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from headbench.anchors import FORMULAS, MEAN, Anchored, BenchCurves, choose, replay
from scipy import stats

from headsearch.results.long_run import expected_gains

SCORES, GAINS, AT = np.array([0.3, 0.0, 0.2, 0.1]), np.array([9.0, 1.5, 6.5, 2.5]), np.array([0.05, 0.4])


def test_unit_is_what_searches_predict_by() -> None:
    values, margins = FORMULAS["unit"](Anchored(SCORES, GAINS), AT)
    found = expected_gains(SCORES.tolist(), GAINS.tolist(), AT.tolist())
    assert found is not None
    assert values == pytest.approx([each.gain for each in found])
    assert margins == pytest.approx([each.high - each.gain for each in found])


def test_line_and_mean_are_the_prediction_intervals_of_text_books() -> None:
    values, margins = FORMULAS["line"](Anchored(SCORES, GAINS), AT)
    line = stats.linregress(SCORES, GAINS)
    assert values == pytest.approx(line.intercept + line.slope * AT)
    residuals = GAINS - line.intercept - line.slope * SCORES
    spread = 1 + 1 / 4 + (AT - SCORES.mean()) ** 2 / ((SCORES - SCORES.mean()) ** 2).sum()
    assert margins == pytest.approx(stats.t.ppf(0.975, 2) * np.sqrt((residuals**2).sum() / 2 * spread))
    values, margins = FORMULAS[MEAN](Anchored(SCORES, GAINS), AT)
    assert values == pytest.approx(GAINS.mean())
    assert margins == pytest.approx(stats.t.ppf(0.975, 3) * GAINS.std(ddof=1) * np.sqrt(1.25))


@pytest.fixture
def bench() -> Callable[[float], BenchCurves]:
    def make(slope: float) -> BenchCurves:
        """Forty heads whose gain is a line in their score, with unit spread around it and little noise between seeds."""
        chance = np.random.default_rng(0)
        scores = np.repeat(chance.uniform(size=(40, 1)), 3, axis=1)
        of_head = 60.0 + slope * scores[:, :1] + chance.normal(size=(40, 1))
        return BenchCurves(
            scores, of_head + 0.01 * chance.normal(size=(40, 3)), np.array([50.0, 50.01, 49.99])
        )

    return make


def test_intervals_hold_as_often_as_they_should_and_a_slope_is_found(
    bench: Callable[[float], BenchCurves],
) -> None:
    steep, flat = bench(30.0), bench(0.0)
    line = replay(steep, FORMULAS["line"], 8)
    assert line.as_they_are == pytest.approx(0.95, abs=0.04)
    assert line.coverage == pytest.approx(line.as_they_are, abs=0.01)
    assert line.rmse < 0.3 * replay(steep, FORMULAS[MEAN], 8).rmse
    assert replay(flat, FORMULAS[MEAN], 8).rmse < replay(flat, FORMULAS["line"], 8).rmse


def test_the_rule_takes_the_line_where_there_is_one(bench: Callable[[float], BenchCurves]) -> None:
    assert choose([bench(300.0)]).formula == "line"
    assert choose([bench(0.0)]).formula != "line"
