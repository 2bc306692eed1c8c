"""Long trainings of a few heads at the end of a search: who, when, and for how long."""

from __future__ import annotations

from pathlib import Path

import pytest

from headsearch.errors import ExperimentError
from headsearch.experiment import Experiment, load_experiment
from headsearch.results.records import TrialRecord
from headsearch.runs.run import read_run
from headsearch.search.plan import plan_search
from headsearch.search.selection import spread
from headsearch.testing.executors import Watcher
from headsearch.testing.toy import ToyEvaluator
from headsearch.testing.toy_search import run_toy, scores, toy_experiment, toy_materials

TARGET = 30


def anchored(**search: object) -> Experiment:
    asked: dict[str, object] = {"trials": 7, "sampler": "random", "finalists": 2, "replicates": 2}
    return toy_experiment(**(asked | {"target_epochs": TARGET, "anchors": 3} | search))  # type: ignore[arg-type]


def anchors_of(records: list[TrialRecord]) -> list[TrialRecord]:
    return [record for record in records if record.stage == "anchor"]


def test_the_first_the_last_and_between_are_trained_for_the_target_when_all_else_is_done(
    tmp_path: Path,
) -> None:
    records = run_toy(tmp_path / "run", anchored())
    anchors = anchors_of(records)
    assert anchors == records[-5:]
    assert [(r.control, r.replicate) for r in anchors[:2]] == [("none", 0), ("none", 1)]
    view = read_run(tmp_path / "run")
    order = [row.head_id for row in view.ranked]
    assert [r.head_id for r in anchors[2:]] == [order[0], order[3], order[6]]
    assert {(r.rungs[-1].epoch, r.epochs) for r in anchors} == {(TARGET, TARGET)}
    assert len({r.seed for r in records}) == len(records), "an anchor has the seed of a proxy"
    assert all(row.predicted_gain is not None for row in view.ranked)
    assert view.condition == "ended"
    assert view.settled == view.expected
    (part,) = (part for part in view.spending.parts if part.name == "anchor")
    assert (part.trainings, part.epochs) == (5, 5 * TARGET)


def test_without_anchors_a_search_is_as_before(tmp_path: Path) -> None:
    with_some = run_toy(tmp_path / "with", anchored())
    without = run_toy(tmp_path / "without", anchored(anchors=0))
    assert scores(with_some[: len(without)]) == scores(without)
    assert not anchors_of(without)
    assert all(row.predicted_gain is None for row in read_run(tmp_path / "without").rows)


def test_a_finished_search_takes_anchors_later_and_then_more_of_them(tmp_path: Path) -> None:
    run_toy(tmp_path / "run", anchored(anchors=0))
    run_toy(tmp_path / "run", anchored(), resume=True)
    records = run_toy(tmp_path / "run", anchored(anchors=5), resume=True)
    assert scores(records) == scores(run_toy(tmp_path / "fresh", anchored())) | scores(records)
    heads = [r.head_id for r in anchors_of(records) if r.control is None]
    assert len(set(heads)) == len(heads) == 5


def test_with_another_target_they_are_trained_anew(tmp_path: Path) -> None:
    run_toy(tmp_path / "run", anchored())
    records = anchors_of(run_toy(tmp_path / "run", anchored(target_epochs=40), resume=True))
    assert [r.epochs for r in records] == [30] * 5 + [40] * 5
    first = read_run(tmp_path / "run").ranked[0]
    assert first.long_gain is not None


@pytest.mark.parametrize("after", [45, 48, 50])
def test_a_search_interrupted_among_anchors_ends_as_an_undisturbed_one(after: int, tmp_path: Path) -> None:
    undisturbed = run_toy(tmp_path / "undisturbed", anchored())
    with pytest.raises(KeyboardInterrupt):
        run_toy(tmp_path / "run", anchored(), observer=Watcher(interrupt_after=after))
    assert read_run(tmp_path / "run").condition == "interrupted"
    records = run_toy(tmp_path / "run", anchored(), resume=True)
    assert [(r.number, r.head_id, r.epochs, r.rungs) for r in records] == [
        (r.number, r.head_id, r.epochs, r.rungs) for r in undisturbed
    ]


def test_one_that_failed_is_trained_again_when_the_search_goes_on(tmp_path: Path) -> None:
    run_toy(tmp_path / "run", anchored(anchors=0))
    broken = ToyEvaluator(failures={"none": "error"})
    failed = anchors_of(run_toy(tmp_path / "run", anchored(), broken, resume=True))
    assert [r.state for r in failed if r.control == "none"] == ["failed", "failed"]
    assert all(row.predicted_gain is None for row in read_run(tmp_path / "run").rows)
    mended = run_toy(tmp_path / "run", anchored(), resume=True)
    complete = [r for r in anchors_of(mended) if r.state == "complete"]
    assert scores(complete) == scores(anchors_of(run_toy(tmp_path / "fresh", anchored())))


def test_where_fewer_heads_ran_in_full_all_of_them_are_anchors_and_that_is_said(tmp_path: Path) -> None:
    watcher = Watcher()
    few = "space: headsearch/space@1\nhead: {mixer: {depth: {int: [1, 3]}}}"
    records = run_toy(tmp_path / "run", anchored(anchors=5), space=few, observer=watcher)
    assert sum(r.control is None for r in anchors_of(records)) == 3
    assert "3 heads ran a whole proxy and are anchors; 5 were asked for" in watcher.notes


def test_those_that_were_trained_stay_where_the_order_has_changed() -> None:
    assert spread("abcdefg", 3) == ["a", "d", "g"]
    assert spread("abcdefg", 3, begun="be") == ["b", "e", "a"]
    assert spread("ab", 3) == ["a", "b"]


def test_a_plan_counts_them(tmp_path: Path) -> None:
    experiment = anchored()
    plan = plan_search(experiment, toy_materials(experiment), tmp_path / "run")
    stage = plan.stages[-1]
    assert (stage.name, stage.trainings, stage.epochs) == ("anchors", 5, TARGET)
    assert stage.seconds == pytest.approx(5 * 60.0 * TARGET / 9)
    assert "anchors" not in [
        stage.name for stage in plan_search(anchored(anchors=0), toy_materials(experiment), tmp_path).stages
    ]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["search={space: tiny, anchors: 2, target_epochs: 80}"], "an interval takes three, expected 0 or at least 3, got 2"),
        (["search={space: tiny, anchors: 5}"], "anchors: 5 need target_epochs"),
        (["search={space: tiny, anchors: 9, trials: 8, target_epochs: 80}"], r"anchors \(9\) must not exceed trials \(8\)"),
        (["search={space: tiny, anchors: 3, target_epochs: 30}"], "proxies have 30 epochs, and search.target_epochs is 30"),
        (["search={space: tiny, anchors: 3, target_epochs: 80}", "data.labels=none"], "a gain is told by probes"),
        (["search={space: tiny, anchors: 3, target_epochs: 80, strategy: screen}"], "a gain is told by probes"),
    ],
)  # fmt: skip
def test_anchors_that_could_not_tell_are_refused_in_one_line(overrides: list[str], said: str) -> None:
    with pytest.raises(ExperimentError, match=said) as error:
        load_experiment(None, overrides)
    assert "\n" not in str(error.value)
