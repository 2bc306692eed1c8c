"""Searches that stop trials at rungs: who is stopped, what is remembered of it, and that an interruption changes nothing."""

from pathlib import Path

import optuna
import pytest
from interrupting import InterruptingInside

from headsearch.errors import InfeasibleHead, RunError
from headsearch.experiment import Experiment
from headsearch.results.ranking import heads_tried, rank
from headsearch.results.records import TrialRecord
from headsearch.runs.run import read_records
from headsearch.search.ledger import Ledger
from headsearch.search.observer import Observer, SearchStatus
from headsearch.search.stopping import SuccessiveHalving
from headsearch.testing.toy import ToyEvaluator
from headsearch.testing.toy_search import results, run_toy, toy_experiment
from headsearch.training.trial import Training, TrainingContext, TrainingResult, TrialResult

ASHA = {"kind": "asha", "reduction": 3}


def halving(**search: object) -> Experiment:
    return toy_experiment(**{"trials": 20, "finalists": 2, "replicates": 2, "stopping": ASHA, **search})  # type: ignore[arg-type]


def replayed(records: list[TrialRecord], *, labels: bool = True) -> dict[int, bool]:
    """Whether each searched head goes on to its full budget, by the policy alone, asked in the order of an inline search."""
    policy = SuccessiveHalving([1, 3, 9], 3)
    verdicts = {}
    for record in records:
        if record.control is None and record.replicate == 0 and record.state != "duplicate":
            objectives = [
                (scores.discrepancy or 0.0, *([scores.knn or 0.0] if labels else []))
                for scores in record.rungs
            ]
            answers = [
                policy.decide(record.number, scores.epoch, point)
                for scores, point in zip(record.rungs, objectives, strict=True)
            ]
            verdicts[record.number] = all(answers)
            if record.state == "infeasible":
                policy.withdraw(record.number)
    return verdicts


@pytest.mark.parametrize("labels", ["probe", "none"])
def test_heads_end_where_the_policy_says_and_nothing_else_does(tmp_path: Path, labels: str) -> None:
    out = tmp_path / "run"
    experiment = toy_experiment(labels=labels, trials=20, finalists=2, replicates=2, stopping=ASHA)
    records = run_toy(out, experiment)
    study = optuna.load_study(study_name="toy", storage=f"sqlite:///{out / 'study.db'}")
    stopped = [r for r in records if r.state == "stopped"]
    assert {r.rungs[-1].epoch for r in stopped} == {1, 3}
    verdicts = replayed(records, labels=labels == "probe")
    assert verdicts == {number: records[number].state == "complete" for number in verdicts}
    assert all(r.state in ("complete", "duplicate") for r in records if r.control or r.replicate)
    for record in stopped:
        epoch = record.rungs[-1].epoch
        assert record.reason == f"not among the best 1/3 so far at epoch {epoch}"
        trial = study.trials[record.number]
        assert (trial.state.name, trial.values) == ("PRUNED", None)
        folder = out / "trials" / str(record.number)
        assert len((folder / "epochs.txt").read_text().split()) == epoch
    assert not list(out.glob("trials/*/checkpoint*"))


def test_stopped_heads_are_not_ranked_and_count_as_trained(tmp_path: Path) -> None:
    records = run_toy(tmp_path / "run", halving())
    heads = [r for r in records if r.control is None and r.replicate == 0 and r.state != "duplicate"]
    stopped = {r.head_id for r in heads if r.state == "stopped"}
    assert len({r.head_id for r in heads}) == len(heads) == heads_tried(records) == 20
    assert stopped
    assert not stopped & {row.head_id for row in rank(records, by="pareto", labels=True)}
    assert not stopped & {r.head_id for r in records if r.replicate > 0}


def test_a_head_that_was_stopped_is_not_trained_again(tmp_path: Path) -> None:
    space = """
space: headsearch/space@1
head: {mixer: {depth: {int: [1, 6]}, token_mlp_ratio: {choice: [0.5, 1]}}}
"""
    experiment = halving(trials=12, finalists=0, replicates=1, controls=["none"])
    records = run_toy(tmp_path / "run", experiment, space=space)
    study = optuna.load_study(study_name="toy", storage=f"sqlite:///{tmp_path / 'run' / 'study.db'}")
    answered = [
        r for r in records if r.duplicate_of is not None and records[r.duplicate_of].state == "stopped"
    ]
    assert answered, "a space this small makes the sampler repeat itself"
    for record in answered:
        assert study.trials[record.number].state.name == "PRUNED"
        assert not (tmp_path / "run" / "trials" / str(record.number)).exists()


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_an_interruption_changes_no_decision(tmp_path: Path, sampler: str) -> None:
    experiment = halving(trials=14, sampler=sampler)
    undisturbed = run_toy(tmp_path / "undisturbed", experiment)
    assert any(r.state == "stopped" for r in undisturbed)
    sessions = 0
    while True:
        try:
            records = run_toy(
                tmp_path / "run", experiment, resume=sessions > 0, observer=InterruptingInside(19)
            )
        except KeyboardInterrupt:
            sessions += 1
        else:
            break
    assert sessions > 3
    assert results(records) == results(undisturbed)


def test_told_to_stop_and_killed_before_that_took_effect_a_trial_is_not_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = halving(trials=8, finalists=0, replicates=1)

    unpatched = Ledger.end

    def killed(ledger: Ledger, number: int, result: TrialResult, **times: float) -> TrialRecord:
        if result.state == "stopped":
            raise KeyboardInterrupt
        return unpatched(ledger, number, result, **times)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "end", killed)
        with pytest.raises(KeyboardInterrupt):
            run_toy(tmp_path / "run", experiment)
    (running,) = [r for r in read_records(tmp_path / "run") if r.state == "running"]
    trained = tmp_path / "run" / "trials" / str(running.number) / "epochs.txt"
    before = trained.read_text()
    records = run_toy(tmp_path / "run", experiment, resume=True)
    assert records[running.number].state == "stopped"
    assert trained.read_text() == before
    assert results(records) == results(run_toy(tmp_path / "undisturbed", experiment))


def test_nobody_is_compared_with_a_head_that_turned_out_infeasible(tmp_path: Path) -> None:
    toy = ToyEvaluator()

    def evaluate(training: Training, context: TrainingContext) -> TrainingResult:
        config = training.candidates[0].config
        if config.family != "convnext":
            return toy(training, context)
        scores = toy.scores(config, 1, training.seed)
        # As a head on its way to collapse may look: nobody beats it, on either objective.
        context.report(0, type(scores)(**vars(scores) | {"discrepancy": 1.5, "knn": 101.0}))
        raise InfeasibleHead("collapsed")

    experiment = halving(trials=16, sampler="random", finalists=0, replicates=1)
    records = run_toy(tmp_path / "run", experiment, evaluate)
    assert sum(r.state == "infeasible" for r in records) >= 3
    verdicts = {n: goes_on for n, goes_on in replayed(records).items() if records[n].state != "infeasible"}
    assert verdicts == {number: records[number].state == "complete" for number in verdicts}
    assert any(verdicts.values())
    # Nor after a resume, which rebuilds the policy from the study.
    longer = halving(trials=24, sampler="random", finalists=0, replicates=1)
    resumed = run_toy(tmp_path / "run", longer, evaluate, resume=True)
    assert results(resumed) == results(run_toy(tmp_path / "whole", longer, evaluate))


def test_a_run_goes_on_with_its_own_stopping_only(tmp_path: Path) -> None:
    run_toy(tmp_path / "run", halving(trials=2, finalists=0, replicates=1))
    for stopping, key in (
        ({"kind": "none"}, "search.stopping.kind"),
        (ASHA | {"reduction": 2}, "search.stopping.reduction"),
    ):
        other = halving(trials=2, finalists=0, replicates=1, stopping=stopping)
        with pytest.raises(RunError, match=f"cannot resume with another {key}"):
            run_toy(tmp_path / "run", other, resume=True)


def test_the_time_left_allows_for_what_stopping_saves(tmp_path: Path) -> None:
    last: list[SearchStatus] = []

    class Watcher(Observer):
        def search_ended(self, status: SearchStatus) -> None:
            last.append(status)

    records = run_toy(tmp_path / "run", halving(), ToyEvaluator(seconds_per_epoch=0.0005), observer=Watcher())
    trained = [r for r in records if r.state in ("complete", "stopped")]
    full = [r.seconds or 0.0 for r in trained if r.state == "complete"]
    share = sum(r.rungs[-1].epoch for r in trained) / (9 * len(trained))
    assert share < 1
    assert last[0].seconds_per_trial == pytest.approx(share * sum(full) / len(full))
