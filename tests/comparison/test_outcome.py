"""The table and the verdict of a comparison, from scores that were made up."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from scipy import stats

from headsearch.comparison.outcome import judged, summarised
from headsearch.comparison.plan import ComparisonPlan
from headsearch.evaluation.spec import evaluation_spec
from headsearch.pretrain import PretrainSpec

NONE, HEAD = [60.0, 62.0, 61.0], [66.0, 68.5, 66.5]


def plan(*arms: str, seeds: int = 3) -> ComparisonPlan:
    return ComparisonPlan(dict.fromkeys(arms, PretrainSpec()), evaluation_spec({}), seeds, "epochs")


def records(scores: list[float], seconds: float = 10.0) -> list[dict[str, Any]]:
    return [
        {
            "scores": {"20-NN": score, "linear": score + 20},
            "detection": [],
            "epochs": 5,
            "loss": 1.0,
            "seconds": seconds,
            "images_per_second": 100.0,
        }
        for score in scores
    ]


def test_gains_are_paired_by_seed() -> None:
    found = summarised(plan("none", "head"), {"none": records(NONE), "head": records(HEAD, 12.0)})
    control, head = found.rows
    expected = stats.ttest_rel(HEAD, NONE).confidence_interval(0.95)
    for probe in ("20-NN", "linear"):
        score = head.scores[probe]
        assert score.gain == pytest.approx(np.mean(HEAD) - np.mean(NONE))
        assert (score.gain_low, score.gain_high) == pytest.approx((expected.low, expected.high))
        assert score.sd == pytest.approx(np.std(HEAD, ddof=1))
        assert control.scores[probe].gain is None
    assert (control.seconds, head.seconds) == (10.0, 12.0)
    assert found.verdict.startswith("head beats no head in 20-NN: +6.0 points, 95% interval")


def test_the_verdict_speaks_of_the_first_probe_and_of_what_was_shown() -> None:
    assert "No head is shown to beat no head in knn" in judged(
        "knn", {"none": NONE, "head": [64.0, 61.0, 60.5]}
    )
    assert "Every head is worse" in judged("knn", {"none": HEAD, "head": NONE})
    assert "one seed shows no noise" in judged("knn", {"none": [60.0], "head": [66.0]})
    assert "the seeds show no noise" in judged("knn", {"none": [60.0, 61.0], "head": [66.0, 67.0]})


def test_the_best_of_several_heads_is_judged_for_all_at_once() -> None:
    scores = {"none": NONE, "a": [61.0, 62.5, 61.5], "b": HEAD}
    verdict = judged("knn", scores)
    assert verdict.startswith("b beats no head")
    assert "adjusted for 2 heads" in verdict
    table = np.array(list(scores.values()))
    rest = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0, keepdims=True) + table.mean()
    quantile = 3.31  # two heads, 4 degrees of freedom: Dunnett, "New Tables for Multiple Comparisons with a Control", Biometrics 1964
    half = quantile * np.sqrt((rest**2).sum() / 4) * np.sqrt(2 / 3)
    gain = np.mean(HEAD) - np.mean(NONE)
    assert f"95% interval {gain - half:.1f} to {gain + half:.1f}" in verdict


def test_a_false_gain_is_rarely_announced() -> None:
    random = np.random.default_rng(0)
    false = 0
    for _ in range(500):
        seeds = random.normal(60, 4, 3)
        scores = {name: (seeds + random.normal(0, 1, 3)).tolist() for name in ("none", "a", "b", "c")}
        false += "beats no head in" in judged("knn", scores) and "No head" not in judged("knn", scores)
    # One side of a 95% interval, and three standard errors.
    assert false / 500 < 0.025 + 3 * np.sqrt(0.025 * 0.975 / 500)


def test_table_json_and_page_hold_the_same() -> None:
    found = summarised(plan("none", "head"), {"none": records(NONE), "head": records(HEAD)})
    read = json.loads(found.to_json(), parse_constant=lambda name: pytest.fail(name))
    assert [row["arm"] for row in read["rows"]] == ["none", "head"]
    assert read["verdict"] == found.verdict
    page = found.to_markdown()
    assert found.verdict in page
    assert "| head | 67.0 ±1.3 | +6.0 [" in page
    assert found.to_table().row_count == 4
