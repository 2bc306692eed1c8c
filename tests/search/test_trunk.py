"""When trunks are trained, and what happens where one cannot be: on the toy objective."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headsearch.errors import RunError
from headsearch.results.records import TrialRecord
from headsearch.results.spending import spending
from headsearch.runs.run import read_run
from headsearch.testing.toy import ToyEvaluator
from headsearch.testing.toy_search import results, run_toy, toy_experiment
from headsearch.training.trial import TRUNK, Training, TrainingContext, TrainingResult


def trunks(records: list[TrialRecord]) -> list[TrialRecord]:
    return [record for record in records if record.stage == "trunk"]


@pytest.mark.parametrize("strategy", ["proxies", "funnel", "screen"])
def test_a_trunk_comes_before_what_branches_from_it_and_only_where_it_is_wanted(
    strategy: str, tmp_path: Path
) -> None:
    sizes: dict[str, Any] = {"trials": 4, "finalists": 2, "replicates": 2}
    if strategy != "proxies":
        sizes |= {"strategy": strategy, "candidates": 20, "screen": {"heads": 6}}
    records = run_toy(tmp_path / "run", toy_experiment(trunk=9, **sizes))
    assert [record.replicate for record in trunks(records)] == [0, 1]
    for trunk in trunks(records):
        branching = [r.number for r in records if r.replicate == trunk.replicate and r.stage != "trunk"]
        assert trunk.number < min(branching)
    kinds = {record.stage for record in records}
    assert (
        kinds
        == {
            "proxies": {"trunk", "proxy"},
            "funnel": {"trunk", "screen", "proxy"},
            "screen": {"trunk", "screen"},
        }[strategy]
    )
    assert (
        len(
            trunks(
                run_toy(
                    tmp_path / "one", toy_experiment(trunk=9, **sizes | {"finalists": 0, "replicates": 1})
                )
            )
        )
        == 1
    )


def test_what_branches_sees_the_trunk_and_without_one_nothing_changes(tmp_path: Path) -> None:
    sizes = {"trials": 3, "finalists": 2, "replicates": 2, "sampler": "grid"}
    plain = run_toy(tmp_path / "plain", toy_experiment(**sizes))
    branched = run_toy(tmp_path / "branched", toy_experiment(trunk=9, **sizes))
    first = {(r.head_id, r.replicate): r for r in plain if r.state == "complete"}
    for record in branched:
        if record.stage == "proxy" and record.state == "complete":
            assert record.seed == first[record.head_id, record.replicate].seed
            assert record.rungs != first[record.head_id, record.replicate].rungs
    assert "trunk" not in (tmp_path / "plain" / "experiment.yaml").read_text(encoding="utf-8")


def test_a_trunk_is_neither_ranked_nor_a_seed_of_the_control_and_is_charged(tmp_path: Path) -> None:
    experiment = toy_experiment(trunk=9, trials=3, finalists=2, replicates=2)
    records = run_toy(tmp_path / "run", experiment)
    run = read_run(tmp_path / "run")
    none = next(row for row in run.rows if row.control == "none")
    assert none.replicates == 2
    assert {record.stage for record in run.by_head[none.head_id]} == {"proxy"}
    assert run.settled == run.expected
    parts = {part.name: part for part in spending(records, budget=9, clock={}).parts}
    assert next(iter(parts)) == "trunk"
    assert (parts["trunk"].trainings, parts["trunk"].epochs, parts["trunk"].budget) == (2, 18, 18)
    assert parts["controls"].trainings == 3


def test_more_replicates_of_a_finished_search_get_trunks_of_their_own(tmp_path: Path) -> None:
    sizes = {"trials": 3, "finalists": 2, "sampler": "grid"}
    run_toy(tmp_path / "run", toy_experiment(trunk=9, replicates=2, **sizes))
    records = run_toy(tmp_path / "run", toy_experiment(trunk=9, replicates=3, **sizes), resume=True)
    assert [record.replicate for record in trunks(records)] == [0, 1, 2]


class BreakingTrunks(ToyEvaluator):
    """Every trunk of a replicate of at least 1 breaks."""

    def __call__(self, training: Training, context: TrainingContext) -> TrainingResult:
        if training.stage == "trunk" and training.replicate > 0:
            raise RuntimeError("toy failure")
        return super().__call__(training, context)


def test_a_trunk_that_breaks_ends_the_search_and_is_trained_again_when_resumed(tmp_path: Path) -> None:
    experiment = toy_experiment(trunk=9, trials=3, finalists=2, replicates=2, sampler="grid")
    for resume in (False, True):
        with pytest.raises(
            RunError, match=r"the trunk \(trial \d+\) failed: RuntimeError: toy failure; .*--resume"
        ):
            run_toy(tmp_path / "run", experiment, BreakingTrunks(), resume=resume)
    records = run_toy(tmp_path / "run", experiment, resume=True)
    states = [(record.replicate, record.state) for record in trunks(records)]
    assert states == [(0, "complete"), (1, "failed"), (1, "failed"), (1, "complete")]
    undisturbed = run_toy(tmp_path / "undisturbed", experiment)
    whole = [record for record in records if record.state != "failed"]
    assert [r[2:] for r in results(whole)] == [r[2:] for r in results(undisturbed)]


def test_a_trunk_that_collapses_ends_the_search_for_good(tmp_path: Path) -> None:
    experiment = toy_experiment(trunk=9, trials=3, finalists=0, replicates=1)
    for resume in (False, True):
        with pytest.raises(RunError, match=r"the base itself cannot be trained.*collapsed.*--out"):
            run_toy(tmp_path / "run", experiment, ToyEvaluator(failures={"none": "collapse"}), resume=resume)


def test_a_trunk_whose_file_is_gone_is_named(tmp_path: Path) -> None:
    sizes = {"trials": 3, "finalists": 2, "replicates": 2, "sampler": "grid"}
    run_toy(tmp_path / "run", toy_experiment(trunk=9, **sizes))
    (tmp_path / "run" / "trials" / "0" / TRUNK).unlink()
    with pytest.raises(RunError, match=rf"trials/0/{TRUNK}: No such file or directory.*--resume"):
        run_toy(tmp_path / "run", toy_experiment(trunk=9, **sizes | {"trials": 4}), resume=True)
