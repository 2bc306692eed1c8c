"""Shrinkage against least squares, the closed form for equal seeds, and simulation."""

from __future__ import annotations

import numpy as np
import pytest

from headsearch.results.noise import Noise
from headsearch.results.shrinkage import FEWEST, shrunk


def test_with_equal_seeds_it_is_the_rule_of_efron_and_morris() -> None:
    random = np.random.default_rng(0)
    score = random.uniform(0, 1, 10)
    probe = 60 + 20 * score + random.normal(0, 3, 10)
    noise = Noise(deviation=2.0, df=12)
    found = shrunk(score.tolist(), probe.tolist(), [2] * 10, noise)
    design = np.column_stack([np.ones(10), score])
    line = design @ np.linalg.lstsq(design, probe, rcond=None)[0]
    residual = probe - line
    # 1 - (k - 2) v / Σ r², with k = 8 degrees of freedom around the line and v = 2² / 2.
    moved = 6 * 2.0 / float(residual @ residual)
    assert moved < 6 / 8, "heads differ by more than noise here"
    assert found is not None
    assert [each.value for each in found] == pytest.approx(line + (1 - moved) * residual)
    leverage = np.diag(design @ np.linalg.inv(design.T @ design) @ design.T)
    spread = float(residual @ residual) / 8 - 2.0
    expected = 2.0 * (1 - moved) + moved**2 * ((2.0 + spread) * leverage + residual**2 / 3)
    assert [each.variance for each in found] == pytest.approx(expected)


def test_without_a_score_probes_move_towards_their_mean() -> None:
    probes = [50.0, 52.0, 54.0, 56.0, 58.0, 60.0]
    for scores in ([None] * 6, [0.5] * 6, [0.1, 0.2, 0.3, 0.4, 0.5, None]):
        found = shrunk(scores, probes, [1] * 6, Noise(2.0, 5))
        assert found is not None
        assert all(
            abs(each.value - 55.0) < abs(probe - 55.0) for each, probe in zip(found, probes, strict=True)
        )
        assert found[0].value - 55.0 == pytest.approx(55.0 - found[-1].value)


def test_more_seeds_move_less_and_too_few_heads_not_at_all() -> None:
    probes = [50.0, 52.0, 54.0, 56.0, 58.0, 60.0]
    found = shrunk([None] * 6, probes, [1, 4, 1, 1, 4, 1], Noise(3.0, 5))
    assert found is not None
    assert (found[0].value - 55.0) / -5.0 < (found[1].value - 55.0) / -3.0
    assert shrunk([0.1] * (FEWEST - 1), probes[: FEWEST - 1], [1] * (FEWEST - 1), Noise(3.0, 5)) is None


@pytest.mark.parametrize("spread", [0.0, 1.0, 3.0])
def test_it_errs_less_than_the_probe_and_its_variance_covers_the_truth(spread: float) -> None:
    random = np.random.default_rng(1)
    covered, raw, better = [], 0.0, 0.0
    for _ in range(400):
        score = random.uniform(0, 1, 12)
        truth = 60 + 10 * score + random.normal(0, spread, 12)
        probe = truth + random.normal(0, 1.5, 12)
        found = shrunk(score.tolist(), probe.tolist(), [1] * 12, Noise(1.5, 1000))
        assert found is not None
        value = np.array([each.value for each in found])
        covered.append(np.abs(value - truth) <= 1.96 * np.sqrt([each.variance for each in found]))
        raw += float(((probe - truth) ** 2).sum())
        better += float(((value - truth) ** 2).sum())
    assert better < raw
    # It is careful where heads differ by nothing but their score: the spread around the line is then estimated too large.
    assert 0.94 <= np.mean(covered) <= (0.998 if spread == 0.0 else 0.97)
