"""The table of knobs: differences and intervals against scipy, from a search on the toy objective."""

import importlib
import math
import statistics
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import t as student

from headsearch.errors import RunError
from headsearch.results.records import TrialRecord
from headsearch.runs.run import read_records
from headsearch.search.session import conduct
from headsearch.space import load_space
from headsearch.testing.toy_search import toy_experiment, toy_materials


@pytest.fixture(scope="module")
def knobs() -> Any:
    return importlib.import_module("knobs")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    design = {"space": "knobs", "strategy": "proxies", "sampler": "grid", "trials": 11, "finalists": 3}
    experiment = toy_experiment(replicates=3, **design)
    return conduct(experiment, toy_materials(experiment), tmp_path_factory.mktemp("knobs") / "run").directory


@pytest.mark.parametrize(
    ("key", "score"),
    [
        ("gain", lambda record: record.rungs[-1].knn),
        ("discrepancy", lambda record: record.rungs[-1].discrepancy),
    ],
    ids=["gain", "discrepancy"],
)
def test_every_difference_has_its_interval(knobs: Any, run: Path, key: str, score: Any) -> None:
    groups: dict[str, list[TrialRecord]] = {}
    for record in read_records(run):
        if record.state == "complete" and score(record) is not None:
            groups.setdefault(record.head_id, []).append(record)
    values = {name: [score(record) for record in group] for name, group in groups.items()}
    df = sum(len(group) - 1 for group in values.values())
    squares = sum(
        statistics.variance(group) * (len(group) - 1) for group in values.values() if len(group) > 1
    )
    reference = values["convnext-d2-k5-5daa9c4e"]
    rows = {row["knob"]: row for row in knobs.report(run)["knobs"]}
    assert len(rows) == 10
    for knob, slug in (
        ("norm_batch", "convnext-d2-k5-batch-"),
        ("depth_4", "convnext-d4-k5-"),
        ("kernel_3", "convnext-d2-k3-"),
    ):
        [group] = [group for name, group in values.items() if name.startswith(slug)]
        more = statistics.fmean(group) - statistics.fmean(reference)
        margin = student.ppf(0.975, df) * math.sqrt(squares / df * (1 / len(group) + 1 / len(reference)))
        assert rows[knob]["seeds"] == len(group)
        assert rows[knob][key]["difference"] == pytest.approx(more)
        assert rows[knob][key]["low"] == pytest.approx(more - margin)
        assert rows[knob][key]["high"] == pytest.approx(more + margin)


def test_the_default_is_the_reference_and_every_other_head_differs(knobs: Any) -> None:
    heads, reference = knobs.variants(load_space("knobs"))
    assert reference == "reference"
    assert len(set(heads.values())) == len(heads) == 11


def test_a_space_with_something_to_draw_is_refused(knobs: Any) -> None:
    with pytest.raises(RunError, match="expected a one_of of heads that leave nothing to draw"):
        knobs.variants(load_space("tiny"))
