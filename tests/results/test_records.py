"""Records of trials as plain data and as rows."""

from __future__ import annotations

import json
import math

from headsearch.heads import HeadConfig, parse_head
from headsearch.heads.cost import HeadCost
from headsearch.results.records import TrialRecord, finite, trial_rows
from headsearch.training.trial import RungScores

STACK = parse_head([{"convnext": {"depth": 1, "first_shortcut": False}}, {"vit": {}}])


def record(**changes):
    values = {
        "number": 3,
        "state": "complete",
        "head_id": "stack-1",
        "config": STACK,
        "control": None,
        "seed": 2**63 - 1,
        "replicate": 1,
        "rungs": (
            RungScores(3, 2.5, {"cka.tokens.change": 0.25}, 0.25, 51.5, None, 3.0, 4.0, 0.5, 0.6),
            RungScores(6, 1.5, {"cka.tokens.change": 0.5}, 0.5, 61.5, 63.0, 3.5, 4.5, 0.7, 0.8),
        ),
        "cost": HeadCost(1234, 5678, 0.1),
        "seconds": 12.5,
        "images_per_second": 2000.0,
        "reason": None,
        "duplicate_of": None,
    }
    return TrialRecord(**values | changes)


def test_a_record_survives_json():
    for original in (
        record(),
        record(
            config=HeadConfig(),
            state="failed",
            control="none",
            head_id="none",
            rungs=(),
            cost=None,
            seconds=None,
        ),
        record(state="duplicate", duplicate_of=1, rungs=()),
        record(stage="screen"),
    ):
        assert TrialRecord.from_dict(json.loads(json.dumps(original.to_dict(), allow_nan=False))) == original


def test_a_loss_that_is_not_finite_is_null_in_json_and_comes_back_as_nan():
    diverged = record(rungs=(RungScores(3, math.inf),))
    data = json.loads(json.dumps(diverged.to_dict(), allow_nan=False))
    assert data["rungs"][0]["loss"] is None
    assert math.isnan(TrialRecord.from_dict(data).rungs[0].loss)


def test_rows_are_by_number_with_the_scores_of_the_last_rung():
    rows = trial_rows([record(), record(number=1, rungs=(), state="failed", reason="out of memory")])
    assert [row["number"] for row in rows] == [1, 3]
    assert (rows[0]["rungs"], rows[0]["knn"], rows[0]["reason"]) == ([], None, "out of memory")
    assert (rows[1]["rungs"], rows[1]["epoch"], rows[1]["knn"], rows[1]["linear"]) == ([3, 6], 6, 61.5, 63.0)
    assert rows[1]["family"] == "convnext+vit"
    assert [row["stage"] for row in rows] == ["proxy", "proxy"]


def test_a_row_has_the_score_where_its_parts_are_known():
    rung = RungScores(
        6,
        1.5,
        {"cka.tokens.output": 0.25, "procrustes.embedding.output": 0.5},
        quality={"retrieval.head": 60.0},
    )
    rows = trial_rows([record(rungs=(rung,)), record(number=4)])
    assert [row["score"] for row in rows] == [0.3, None]


def test_finite_reaches_into_everything():
    data = {"a": [1.0, math.nan, {"b": (math.inf, "text", None, True, 3)}]}
    assert finite(data) == {"a": [1.0, None, {"b": [None, "text", None, True, 3]}]}
