"""What is left of a trial's checkpoint: all of it until the trial's end is written down, nothing after."""

from pathlib import Path
from typing import Any

import pytest

from headsearch.runs.run import read_records
from headsearch.search.ledger import Ledger
from headsearch.testing.toy import ToyEvaluator
from headsearch.testing.toy_search import results, run_toy, toy_experiment


@pytest.mark.parametrize("written", [False, True])
def test_a_checkpoint_outlives_a_kill_around_the_record_of_a_trials_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    experiment = toy_experiment(trials=2, finalists=0, replicates=1)
    out = tmp_path / "run"

    end = Ledger.end

    def killed(*about: Any, **more: Any) -> None:
        if written:
            end(*about, **more)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "end", killed)
        with pytest.raises(KeyboardInterrupt):
            run_toy(out, experiment)
    assert [path.parent.name for path in out.glob("trials/*/checkpoint.*")] == ["0"]
    records = run_toy(out, experiment, resume=True)
    assert (out / "trials" / "0" / "epochs.txt").read_text().split() == [str(n) for n in range(1, 10)]
    assert results(records) == results(run_toy(tmp_path / "undisturbed", experiment))
    assert not list(out.glob("trials/*/checkpoint.*"))


def test_checkpoints_go_with_every_kind_of_end_and_stay_where_that_is_asked_for(tmp_path: Path) -> None:
    experiment = toy_experiment(
        trials=12, finalists=1, replicates=2, stopping={"kind": "asha", "reduction": 3}
    )
    keeping = experiment.model_copy(
        update={"proxy": experiment.proxy.model_copy(update={"keep_checkpoints": True})}
    )
    toy = ToyEvaluator(failures={"mlp": "collapse"})
    run_toy(tmp_path / "keeping", keeping, toy)
    trained = [record for record in read_records(tmp_path / "keeping") if record.state == "complete"]
    assert all((tmp_path / "keeping/trials" / str(r.number) / "checkpoint.json").exists() for r in trained)
    records = run_toy(tmp_path / "run", experiment, toy)
    assert {record.state for record in records} >= {"complete", "stopped", "infeasible"}
    assert not list((tmp_path / "run").glob("trials/*/checkpoint.*"))
    # A later session that does not want them any more removes those of the former.
    run_toy(tmp_path / "keeping", experiment, toy, resume=True)
    assert not list((tmp_path / "keeping").glob("trials/*/checkpoint.*"))
