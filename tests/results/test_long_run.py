"""Long-run gains from anchors: the regression against numpy, scipy and simulation, and the rows that it tells of."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from headsearch.heads import HeadConfig, parse_head
from headsearch.results.long_run import FEWEST, expected_gains
from headsearch.results.ranking import rank
from headsearch.results.records import TrialRecord
from headsearch.results.tables import rank_cells, rank_text, rank_titles
from headsearch.results.verdict import verdict
from headsearch.training.trial import RungScores

SCORES, GAINS = [0.31, 0.02, 0.18, 0.12, 0.25], [9.0, 1.5, 6.5, 2.5, 6.0]


def test_it_is_least_squares_with_one_more_anchor_that_says_there_is_no_slope() -> None:
    x, y, at = np.array(SCORES), np.array(GAINS), np.array([0.0, 0.1, 0.5])
    k, apart = len(x), x - x.mean()
    # In centred form: a row for the prior, as far from the middle as anchors are on average.
    rows = np.vstack([np.column_stack([np.ones(k), apart]), [0.0, np.sqrt((apart**2).mean())]])
    observed = np.append(y, 0.0)
    beta = np.linalg.lstsq(rows, observed, rcond=None)[0]
    variance = ((observed - rows @ beta) ** 2).sum() / (k - 1)
    design = np.column_stack([np.ones(3), at - x.mean()])
    spread = 1.0 + np.einsum("ni,ij,nj->n", design, np.linalg.inv(rows.T @ rows), design)
    margins = stats.t.ppf(0.975, k - 1) * np.sqrt(variance * spread)
    found = expected_gains(SCORES, GAINS, at.tolist())
    assert found is not None
    assert [each.gain for each in found] == pytest.approx(design @ beta)
    assert [each.low for each in found] == pytest.approx(design @ beta - margins)
    assert [each.high for each in found] == pytest.approx(design @ beta + margins)


def test_with_many_anchors_it_is_the_line_of_scipy() -> None:
    chance = np.random.default_rng(0)
    x = chance.uniform(size=400)
    y = 3.0 + 20.0 * x + chance.normal(size=400)
    line = stats.linregress(x, y)
    found = expected_gains(x.tolist(), y.tolist(), [0.9])
    assert found is not None
    assert found[0].gain == pytest.approx(line.intercept + 0.9 * line.slope, abs=0.03)


def test_95_of_100_intervals_hold_where_slopes_are_as_the_prior_has_them() -> None:
    chance = np.random.default_rng(1)
    x, held, draws = np.array([0.0, 0.1, 0.4, 1.0]), 0, 6000
    apart = x - x.mean()
    for _ in range(draws):
        slope = chance.normal() * np.sqrt(len(x) / (apart**2).sum())
        y = 7.0 + slope * x + chance.normal(size=len(x))
        found = expected_gains(x.tolist(), y.tolist(), [0.7])
        assert found is not None
        held += found[0].low <= 7.0 + slope * 0.7 + chance.normal() <= found[0].high
    assert held / draws == pytest.approx(0.95, abs=0.01)


def test_with_equal_scores_the_mean_is_left() -> None:
    found = expected_gains([0.2] * 4, [1.0, 2.0, 3.0, 4.0], [0.2, 0.9])
    assert found is not None
    assert found[0] == found[1]
    low, high = stats.t.interval(0.95, 3, 2.5, stats.tstd([1, 2, 3, 4]) * np.sqrt(1.25))
    assert (found[0].low, found[0].high) == pytest.approx((low, high))


def test_too_few_anchors_and_gains_without_spread_tell_nothing() -> None:
    assert expected_gains(SCORES[: FEWEST - 1], GAINS[: FEWEST - 1], [0.1]) is None
    assert expected_gains(SCORES, [2.0] * 5, [0.1]) is None


def trial(number: int, head: str, score: float | None, knn: float, **other: object) -> TrialRecord:
    measures = {} if score is None else {"procrustes.embedding.output": score}
    rung = RungScores(9, 1.0, measures, score, knn, knn, quality={"retrieval.head": 100.0})
    config = HeadConfig() if score is None else parse_head({"mixer": {"depth": 1}})
    plain = {
        "number": number, "state": "complete", "head_id": head, "config": config, "control": None, "seed": number,
        "replicate": 0, "rungs": (rung,), "cost": None, "seconds": 1.0, "images_per_second": None, "reason": None,
        "duplicate_of": None,
    }  # fmt: skip
    return TrialRecord(**(plain | other))  # type: ignore[arg-type]


HEADS = dict(zip("abcde", SCORES, strict=True))
PROXIES = [
    trial(0, "none", None, 50.0, control="none"),
    *(trial(n, head, score, 52.0) for n, (head, score) in enumerate(HEADS.items(), start=1)),
    trial(6, "f", 0.2, 51.0),
]
LONG = {"stage": "anchor", "epochs": 100}
ANCHORS = [
    trial(7, "none", None, 70.0, control="none", **LONG),
    trial(8, "none", None, 72.0, control="none", replicate=1, **LONG),
    *(
        trial(9 + n, head, score, 71.0 + gain, **LONG)
        for n, ((head, score), gain) in enumerate(zip(HEADS.items(), GAINS, strict=True))
    ),
]


def test_every_head_is_told_its_long_run_gain_and_anchors_what_they_gained() -> None:
    rows = {row.head_id: row for row in rank(PROXIES + ANCHORS, labels=True, target_epochs=100)}
    expected = expected_gains(SCORES, GAINS, [*SCORES, 0.2])
    assert expected is not None
    for head, each in zip("abcdef", expected, strict=True):
        assert rows[head].predicted_gain == pytest.approx(each.gain)
        assert (rows[head].predicted_low, rows[head].predicted_high) == pytest.approx((each.low, each.high))
    assert [rows[head].long_gain for head in "abcdef"] == pytest.approx([*GAINS, None])
    assert rows["none"].predicted_gain is None
    # Nothing else of the ranking changes.
    assert rows["a"].probe == 52.0
    assert rows["a"].epochs == 9
    assert rows["a"].replicates == 1


@pytest.mark.parametrize("left_out", ["none", "heads"])
def test_nothing_is_predicted_without_no_head_or_from_two_anchors(left_out: str) -> None:
    anchors = ANCHORS[2:] if left_out == "none" else ANCHORS[:4]
    rows = rank(PROXIES + anchors, labels=True, target_epochs=100)
    assert all(row.predicted_gain is None for row in rows)


def test_anchors_of_another_target_count_for_nothing() -> None:
    rows = rank(PROXIES + ANCHORS, labels=True, target_epochs=90)
    assert rows == rank(PROXIES, labels=True, target_epochs=90)


def test_a_table_and_the_verdict_say_what_is_expected_and_what_was_measured() -> None:
    rows = rank(PROXIES + ANCHORS, labels=True, target_epochs=100)
    place = rank_titles(rows, labels=True).index("long run [95%]")
    cells = {row.head_id: rank_cells(row, rows, labels=True)[place] for row in rows}
    first = rows[0]
    assert (
        cells["a"]
        == f"+{first.predicted_gain:.1f} [{first.predicted_low:.1f}, {first.predicted_high:.1f}] (+9.0)"
    )
    assert "(" not in cells["f"]
    assert "trained that long once, it gained +9.0" in verdict(rows, target_epochs=100)
    told = {row["head_id"]: row for row in json.loads(rank_text(rows, "json"))}
    assert told["a"]["long_gain"] == pytest.approx(9.0)
    assert told["f"]["long_gain"] is None
    assert told["f"]["predicted_gain"] is not None
    without = rank(PROXIES, labels=True, target_epochs=100)
    assert "long run [95%]" not in rank_titles(without, labels=True)
