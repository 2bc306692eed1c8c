import contextlib
import sqlite3
from pathlib import Path

from headsearch.runs.run import read_records
from headsearch.testing.toy_search import results, run_toy, toy_experiment


def test_a_study_whose_user_attributes_hold_everything_is_read_and_resumed(tmp_path: Path) -> None:
    search = {"strategy": "proxies", "sampler": "nsga2", "stopping": {"kind": "asha"}}
    short = toy_experiment(trials=6, finalists=0, replicates=1, **search)
    records = run_toy(tmp_path / "run", short)
    # As studies were before the two kinds were told apart.
    with (
        contextlib.closing(sqlite3.connect(tmp_path / "run" / "study.db")) as database,
        database,
    ):
        database.execute("DELETE FROM trial_user_attributes WHERE key <> 'head_id'")
        database.execute(
            "INSERT INTO trial_user_attributes (trial_id, key, value_json) "
            "SELECT trial_id, key, value_json FROM trial_system_attributes"
        )
        database.execute("DELETE FROM trial_system_attributes")
    assert results(read_records(tmp_path / "run")) == results(records)
    longer = toy_experiment(trials=9, finalists=2, replicates=2, **search)
    resumed = run_toy(tmp_path / "run", longer, resume=True)
    assert results(resumed) == results(run_toy(tmp_path / "whole", longer))
