"""The control that is given the time of the best head."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from headsearch.errors import ExperimentError
from headsearch.experiment import Experiment, load_experiment
from headsearch.results.records import TrialRecord
from headsearch.runs.run import read_run
from headsearch.search.plan import plan_search
from headsearch.testing.executors import Watcher
from headsearch.testing.toy_search import run_toy, scores, toy_experiment, toy_materials
from headsearch.training.trial import EQUAL_TIME


def asked(**search: object) -> Experiment:
    sizes: dict[str, object] = {
        "trials": 4,
        "sampler": "random",
        "finalists": 2,
        "replicates": 2,
        "equal_time": True,
    }
    return toy_experiment(**(sizes | search))  # type: ignore[arg-type]


def late(records: list[TrialRecord]) -> list[TrialRecord]:
    return [record for record in records if record.stage == "equal-time"]


def test_no_head_is_trained_as_long_as_the_best_takes_with_as_many_seeds(tmp_path: Path) -> None:
    records = run_toy(tmp_path / "run", asked())
    view = read_run(tmp_path / "run")
    overhead = view.ranked[0].overhead
    assert overhead is not None
    assert overhead > 0.0
    epochs = math.ceil(9 * (1.0 + overhead))
    assert late(records) == records[-2:]
    assert [(r.head_id, r.control, r.replicate, r.rungs[-1].epoch) for r in late(records)] == [
        (EQUAL_TIME, EQUAL_TIME, 0, epochs),
        (EQUAL_TIME, EQUAL_TIME, 1, epochs),
    ]
    assert not any(record.config.heads for record in late(records))
    assert len({record.seed for record in records}) == len(records)
    row = view.row_of[EQUAL_TIME]
    none = view.row_of["none"]
    assert (row.rank, row.control, row.replicates, row.epochs) == (None, EQUAL_TIME, 2, epochs)
    assert row.gain == pytest.approx(row.probe - none.probe)
    assert view.condition == "ended"
    assert view.settled == view.expected
    assert f"over no head in equal time, {epochs} epochs" in view.verdict


def test_nothing_else_changes_with_it(tmp_path: Path) -> None:
    with_it = run_toy(tmp_path / "with", asked())
    without = run_toy(tmp_path / "without", asked(equal_time=False))
    assert scores(with_it[: len(without)]) == scores(without)
    found, expected = (read_run(tmp_path / name).ranked for name in ("with", "without"))
    assert [(r.head_id, r.probe, r.gain, r.epochs) for r in found] == [
        (r.head_id, r.probe, r.gain, r.epochs) for r in expected
    ]
    assert "equal time" not in read_run(tmp_path / "without").verdict


def test_a_finished_search_takes_it_later_before_its_anchors(tmp_path: Path) -> None:
    run_toy(tmp_path / "run", asked(equal_time=False))
    records = run_toy(tmp_path / "run", asked(target_epochs=30, anchors=3), resume=True)
    assert [r.stage for r in records[-7:]] == ["equal-time"] * 2 + ["anchor"] * 5
    more = run_toy(tmp_path / "run", asked(target_epochs=30, anchors=3, replicates=3), resume=True)
    assert len({r.epochs for r in late(more)}) == 1
    assert [r.replicate for r in late(more)] == [0, 1, 2]


def test_from_a_trunk_it_branches_too_and_a_killed_search_ends_the_same(tmp_path: Path) -> None:
    undisturbed = run_toy(tmp_path / "undisturbed", asked(), observer=None)
    with pytest.raises(KeyboardInterrupt):
        run_toy(tmp_path / "run", asked(), observer=Watcher(interrupt_after=37))
    assert scores(run_toy(tmp_path / "run", asked(), resume=True)) == scores(undisturbed)
    branched = run_toy(tmp_path / "branched", toy_experiment(trunk=9, trials=3, sampler="random", finalists=1, replicates=2, equal_time=True))  # fmt: skip
    assert [r.replicate for r in branched if r.stage == "trunk"] == [0, 1]
    assert [r.replicate for r in late(branched)] == [0, 1]


def test_a_plan_counts_it(tmp_path: Path) -> None:
    plan = plan_search(asked(), toy_materials(asked()), tmp_path / "run")
    (stage,) = (stage for stage in plan.stages if stage.name == "equal-time")
    assert (stage.trainings, stage.seconds) == (2, pytest.approx(2 * 60.0))


def test_without_labels_it_is_refused() -> None:
    with pytest.raises(ExperimentError, match=r"search\.equal_time: a gain is told by probes"):
        load_experiment(None, ["search={space: tiny, equal_time: true}", "data.labels=none"])
