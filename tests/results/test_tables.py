"""Tables that can be read at 100 columns, JSON without NaN, CSV that reads back, and a fast import."""

from __future__ import annotations

import csv
import io
import json
import math
import subprocess
import sys
from dataclasses import fields

import pytest
from rich.console import Console

from headsearch.heads import parse_head
from headsearch.heads.cost import HeadCost
from headsearch.results import tables
from headsearch.results.ranking import rank
from headsearch.results.records import TrialRecord
from headsearch.results.row import RankRow
from headsearch.training.trial import RungScores

NAMES = ["convnext-d3-k7-m4-noshortcut-a69db6b1", "mixer-d3-m4-t0.5-noshortcut-50117c3c"]


def record(number, head_id, probe, *, control=None, config=None, state="complete", reason=None, loss=1.5):
    measures = {} if config is None else {"cka.tokens.output": 0.5, "procrustes.embedding.output": 0.75}
    quality = {} if config is None else {"retrieval.head": 80.0}
    discrepancy = None if config is None else 0.625
    rungs = (RungScores(12, loss, measures, discrepancy, probe, probe, quality=quality),)
    return TrialRecord(
        number, state, head_id, parse_head(config), control, number, 0, rungs if state == "complete" else (),
        HeadCost(1_234_567, 89_000_000, 0.123), 31.0, 1200.0, reason, None,
    )  # fmt: skip


@pytest.fixture
def records():
    return [
        record(0, "none", 70.0, control="none"),
        record(1, "none", 72.0, control="none"),
        record(2, NAMES[0], 91.25, config={"convnext": {}}),
        record(3, NAMES[1], 88.5, config={"mixer": {}}),
        record(
            4,
            "gmlp-1",
            None,
            config={"gmlp": {}},
            state="infeasible",
            reason="the head collapsed [std 0.002]",
        ),
    ]


def printed(table, width=100):
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(table)
    return console.file.getvalue()


def test_the_ranking_fits_a_hundred_columns_and_loses_nothing(records):
    text = printed(tables.rank_table(rank(records, by="pareto", labels=True), labels=True))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    assert "…" not in text
    first = next(line.split() for line in lines if line.split()[0] == "1")
    assert NAMES[0].startswith(first[1])
    for part in ("0.600", "0.62", "91.2", "+20.2", "1.23M", "+12%", "71.0 ±1.4"):
        assert part in text
    assert [line.split()[0] for line in lines if line.split()[-1:] == ["2"]] == ["none"]
    assert "infeasible: gmlp-1: the head collapsed [std 0.002]" in text


def test_without_labels_no_column_needs_them(records):
    text = printed(tables.rank_table(rank(records, by="discrepancy", labels=False), labels=False))
    assert "probe" not in text
    assert "gain" not in text
    assert "layer" not in text


def test_trials_are_all_there_with_reasons(records):
    text = printed(tables.trial_table(records))
    assert max(map(len, text.splitlines())) <= 100
    assert [line.split()[:2] for line in text.splitlines() if line.split()[0].isdigit()] == [
        ["0", "complete"],
        ["1", "complete"],
        ["2", "complete"],
        ["3", "complete"],
        ["4", "infeasible"],
    ]
    assert "[std 0.002]" in text


def test_rank_json_has_every_key_and_null_for_unknown(records):
    rows = json.loads(
        tables.rank_text(rank(records, by="pareto", labels=True), "json"), parse_constant=pytest.fail
    )
    assert [list(row) for row in rows] == [[field.name for field in fields(RankRow)]] * 4
    control = next(row for row in rows if row["control"] == "none")
    assert [control[key] for key in ("rank", "score", "discrepancy", "config", "gain")] == [None] * 5
    assert {row["stage"] for row in rows} == {"proxy"}
    assert [row["score"] for row in rows if row["rank"]] == [pytest.approx(0.6)] * 2


def test_json_never_holds_nan(records):
    diverged = [*records, record(5, "vit-1", math.nan, config={"vit": {}}, loss=math.inf)]
    ranked = json.loads(
        tables.rank_text(rank(diverged, by="pareto", labels=True), "json"), parse_constant=pytest.fail
    )
    trials = json.loads(tables.trial_text(diverged, "json"), parse_constant=pytest.fail)
    assert next(row for row in ranked if row["head_id"] == "vit-1")["probe"] is None
    assert (trials[5]["loss"], trials[5]["knn"]) == (None, None)


def test_the_names_of_the_ranking_are_a_promise():
    assert [field.name for field in fields(RankRow)] == [
        "rank",
        "head_id",
        "family",
        "config",
        "control",
        "stage",
        "score",
        "discrepancy",
        "discrepancy_sd",
        "probe",
        "probe_sd",
        "knn",
        "linear",
        "linear_sd",
        "epochs",
        "gain",
        "gain_low",
        "gain_high",
        "linear_gain",
        "linear_gain_low",
        "linear_gain_high",
        "simultaneous",
        "shrunk",
        "long_gain",
        "predicted_gain",
        "predicted_low",
        "predicted_high",
        "params",
        "flops",
        "overhead",
        "replicates",
        "pareto_layer",
        "feasible",
        "reason",
    ]


def test_csv_reads_back(records):
    rows = list(csv.DictReader(io.StringIO(tables.rank_text(rank(records, by="pareto", labels=True), "csv"))))
    assert rows[0]["head_id"] == NAMES[0]
    assert float(rows[0]["gain"]) == 20.25
    assert json.loads(rows[0]["config"])["convnext"]["kernel_size"] == 7
    assert rows[-1]["probe"] == ""
    trials = list(csv.DictReader(io.StringIO(tables.trial_text(records, "csv"))))
    assert [row["number"] for row in trials] == ["0", "1", "2", "3", "4"]
    assert json.loads(trials[0]["rungs"]) == [12]


def test_nothing_heavy_is_imported():
    code = (
        "import sys; from headsearch.results import tables, verdict, ranking, records; "
        "ranking.rank([], by='pareto', labels=True); verdict.verdict([]); "
        "tables.rank_table([], labels=True); "
        "print([name for name in ('torch', 'timm', 'pandas', 'scipy', 'numpy', 'optuna') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
