"""One view of a run: the same as what the ledger says, fresh while it is written, and never at a loss before a broken one."""

import json
import shutil
import sqlite3
import threading
from collections import Counter
from pathlib import Path

import pytest

from headsearch.errors import RunError
from headsearch.results.ranking import rank
from headsearch.runs.directory import RunDirectory
from headsearch.runs.reading import RunReader
from headsearch.runs.run import look_at, read_records, read_run
from headsearch.search.observer import Observer, SearchStatus
from headsearch.testing.toy import ToyEvaluator
from headsearch.testing.toy_search import run_toy, toy_experiment
from headsearch.training.trial import Training, TrainingContext, TrainingResult


@pytest.fixture
def copy(toy_run: Path, tmp_path: Path) -> Path:
    """A run that may be broken."""
    return Path(shutil.copytree(toy_run, tmp_path / "copy"))


def test_a_finished_run_is_what_the_ledger_says(toy_run: Path) -> None:
    view, records = read_run(toy_run), read_records(toy_run)
    assert list(view.records) == records
    assert list(view.rows) == rank(records, labels=True, target_epochs=300)
    assert view.states == Counter(record.state for record in records)
    assert view.condition == "ended"
    assert view.settled == view.expected == sum(record.state != "duplicate" for record in records)
    assert view.problems == ()
    assert not view.at_work
    assert set(view.clock) == {record.number for record in records}
    assert [row.control for row in view.controls] == ["none", "same", "mlp"]
    assert {"stopped", "infeasible", "failed", "duplicate", "complete"} == set(view.states)


def test_an_unchanged_run_is_not_read_again_and_a_changed_one_is(copy: Path) -> None:
    reader = RunReader(copy)
    first = reader.read()
    reader.read()
    assert reader.read() is reader.read()
    with sqlite3.connect(copy / "study.db") as database:
        [(text,)] = database.execute(
            "SELECT value_json FROM trial_system_attributes WHERE key = 'outcome' ORDER BY trial_id LIMIT 1"
        )
        database.execute(
            "INSERT INTO trials (number, study_id, state, datetime_start) VALUES (999, 1, 'RUNNING', '2026-01-01 00:00:00')"
        )
        database.execute(
            "INSERT INTO trial_user_attributes (trial_id, key, value_json) SELECT trial_id, 'head_id', '\"none\"' "
            "FROM trials WHERE number = 999"
        )
        database.execute(
            "INSERT INTO trial_system_attributes (trial_id, key, value_json) SELECT trial_id, 'trial', ? FROM trials WHERE number = 999",
            (json.dumps({"config": None, "control": "none", "seed": 1, "replicate": 7}),),
        )
    database.close()
    assert json.loads(text)
    second = reader.read()
    assert len(second.records) == len(first.records) + 1
    assert second.records[0] is first.records[0], "what has ended is not read twice"
    assert second.running[0].record.number == 999
    assert second.condition == "interrupted"


def test_a_search_is_followed_while_it_runs(tmp_path: Path) -> None:
    out, seen = tmp_path / "run", []

    class Watcher(Observer):
        def __init__(self) -> None:
            self.reader: RunReader | None = None

        def training_started(self, training: Training, status: SearchStatus) -> None:
            self.reader = self.reader or RunReader(out)
            view = self.reader.read()
            seen.append((view.condition, view.stage, view.settled, view.expected, status))

    run_toy(out, toy_experiment(trials=5, sampler="random", finalists=2, replicates=2), observer=Watcher())
    for condition, _, settled, expected, status in seen:
        assert condition == "at work"
        assert (settled, expected) == (status.settled, status.expected)
    assert [stage for _, stage, *_ in seen] == ["controls"] * 3 + ["heads"] * 5 + ["replicates"] * 6
    assert len(seen) == 3 + 5 + 6
    assert read_run(out).condition == "ended"


def test_an_interrupted_search_is_told_from_one_at_work(tmp_path: Path) -> None:
    class Interrupting(ToyEvaluator):
        def __call__(self, training: Training, context: TrainingContext) -> TrainingResult:
            config = training.candidates[0].config
            if config.stages and config.family != "vit" and config.family != "mlp":
                raise KeyboardInterrupt
            return super().__call__(training, context)

    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run_toy(out, toy_experiment(trials=5, sampler="random"), Interrupting())
    view = read_run(out)
    assert view.condition == "interrupted"
    assert len(view.running) == 1
    assert view.seconds_left is None
    with RunDirectory.open(out).lock():
        assert read_run(out).condition == "at work"
    assert read_run(out).condition == "interrupted"


def test_looking_at_the_lock_keeps_nobody_out(toy_run: Path, tmp_path: Path) -> None:
    directory = RunDirectory.open(shutil.copytree(toy_run, tmp_path / "copy"))
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            directory.at_work  # noqa: B018

    with directory.lock():
        watcher = threading.Thread(target=watch)
        watcher.start()
        assert directory.at_work
        stop.set()
        watcher.join()
    assert not directory.at_work
    (directory.path / ".lock").unlink()
    assert not directory.at_work


@pytest.mark.parametrize(
    ("file", "content", "named"),
    [
        ("experiment.yaml", "experiment: [", "experiment.yaml"),
        ("run.json", "{", "run.json"),
        ("study.db", "not a database" * 100, "study.db"),
    ],
)
def test_a_broken_file_is_named_and_the_rest_is_shown(
    copy: Path, file: str, content: str, named: str
) -> None:
    whole = read_run(copy)
    (copy / file).write_text(content)
    view = look_at(copy)
    assert any(named in line for line in view.problems)
    if file != "study.db":
        assert view.records == whole.records
        assert view.verdict == whole.verdict
        assert view.labels
        assert view.budget == 9
    else:
        assert view.records == ()
        assert view.condition == "empty"
        with pytest.raises(RunError, match=r"study\.db: cannot be read as a study"):
            read_run(copy)


def test_a_trial_that_cannot_be_read_is_named_and_the_others_are_shown(copy: Path) -> None:
    whole = read_run(copy)
    with sqlite3.connect(copy / "study.db") as database:
        for number, key, text in (
            (3, "trial", '{"config": {"nosuch": {}}, "control": null, "seed": 1, "replicate": 0}'),
            (4, "outcome", '{"state": "complete"'),
            (5, "outcome", "[1]"),
        ):
            database.execute(
                "UPDATE trial_system_attributes SET value_json = ? WHERE key = ? AND trial_id = "
                "(SELECT trial_id FROM trials WHERE number = ?)",
                (text, key, number),
            )
    database.close()
    view = read_run(copy)
    assert [record.number for record in view.records] == [
        record.number for record in whole.records if record.number not in (3, 4, 5)
    ]
    assert [line.split()[1] for line in view.problems] == ["3", "4", "5"]
    assert "nosuch" in view.problems[0]


def test_a_run_that_has_not_begun_is_empty_and_no_run_is_refused(copy: Path, tmp_path: Path) -> None:
    (copy / "study.db").unlink()
    with pytest.raises(RunError, match=r"study\.db: there is no such file"):
        read_run(copy)
    shutil.rmtree(copy / "trials")
    view = read_run(copy)
    assert (view.condition, view.records, view.rows, view.problems) == ("empty", (), (), ())
    assert view.verdict.startswith("Cannot tell")
    with pytest.raises(RunError, match="no such run directory"):
        RunReader(tmp_path / "nothing")


def test_another_study_in_place_of_the_former_forgets_it(copy: Path, tmp_path: Path) -> None:
    reader = RunReader(copy)
    reader.read()
    other = tmp_path / "other"
    run_toy(other, toy_experiment(trials=2, sampler="random", seed=5))
    (other / "study.db").replace(copy / "study.db")
    assert list(reader.read().records) == read_records(copy)


def test_a_study_in_another_storage_is_read_through_optuna(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    run_toy(tmp_path / "run", toy_experiment(trials=2, sampler="random", storage=url))
    view = read_run(tmp_path / "run")
    assert list(view.records) == read_records(tmp_path / "run")
    assert set(view.clock) == {record.number for record in view.records}
