"""Whole searches on the toy objective: stages, states, what is left when one is killed, and what a resume makes of it."""

import contextlib
import json
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import optuna
import pytest
import sqlalchemy.event
from interrupting import InterruptingInside
from processes import Started

from headsearch.errors import ExperimentError, RunError, SpaceError
from headsearch.results.records import TrialRecord
from headsearch.runs.database import Database
from headsearch.runs.run import read_records
from headsearch.runs.storages import close_storage, open_storage, sqlite_url
from headsearch.search import session
from headsearch.search.ledger import Ledger
from headsearch.search.observer import Observer, SearchStatus
from headsearch.search.seeds import trial_seed
from headsearch.search.study_writer import make_study
from headsearch.testing.toy import ToyEvaluator
from headsearch.testing.toy_search import results, toy_experiment, toy_materials
from headsearch.testing.toy_search import run_toy as run
from headsearch.training.trial import Training, TrainingContext, TrainingResult, TrialResult

SMALL = """
space: headsearch/space@1
head: {one_of: [{mixer: {depth: {int: [1, 2]}}}, {vit: {depth: {choice: [1, 3]}}}]}
"""


def trial_of(out: Path, number: int) -> optuna.trial.FrozenTrial:
    study = optuna.load_study(study_name="toy", storage=f"sqlite:///{out / 'study.db'}")
    return study.trials[number]


def test_controls_then_heads_then_replicates_of_the_best_and_of_the_controls(tmp_path: Path) -> None:
    records = run(tmp_path / "run", toy_experiment(trials=6, finalists=2, replicates=3))
    trained = [r for r in records if r.state != "duplicate"]
    assert [r.control for r in trained[:3]] == ["none", "same", "mlp"]
    heads = trained[3:9]
    assert all(r.control is None and r.replicate == 0 for r in heads)
    assert len({r.head_id for r in heads}) == 6
    again = trained[9:]
    assert [r.replicate for r in again] == [1] * 5 + [2] * 5 + [3]
    assert [r.control for r in again[:5]] == ["none", "same", "mlp", None, None]
    assert again[-1].control == "none"
    assert again[0].head_id == "none"
    # The best by score, a product: no head that was not chosen is above one that was in both of its parts.
    chosen = {r.head_id for r in again if r.control is None}
    final = {r.head_id: (r.rungs[-1].discrepancy or 0.0, r.rungs[-1].knn or 0.0) for r in heads}
    for identity, point in final.items():
        if identity not in chosen:
            assert not any(point[0] > final[c][0] and point[1] > final[c][1] for c in chosen)
    assert all(r.state == "complete" for r in trained)


def test_seeds_follow_from_head_and_replicate(tmp_path: Path) -> None:
    records = run(tmp_path / "run", toy_experiment(trials=3, finalists=1, replicates=2, seed=5))
    assert all(r.seed == trial_seed(5, r.head_id, r.replicate) for r in records)


def test_no_head_is_trained_twice_with_one_seed_and_duplicates_are_answered(tmp_path: Path) -> None:
    out = tmp_path / "run"
    records = run(out, toy_experiment(trials=4, finalists=2, replicates=2), space=SMALL)
    trained = [(r.head_id, r.replicate) for r in records if r.state != "duplicate"]
    assert len(trained) == len(set(trained))
    duplicates = [r for r in records if r.state == "duplicate"]
    assert duplicates, "a space this small makes the sampler repeat itself"
    for record in duplicates:
        assert record.duplicate_of is not None
        twin = records[record.duplicate_of]
        assert (twin.head_id, twin.rungs, twin.seed) == (record.head_id, record.rungs, record.seed)
        assert not (out / "trials" / str(record.number)).exists()
        assert trial_of(out, record.number).values == trial_of(out, twin.number).values


def test_a_searched_head_that_is_a_control_is_answered_by_the_control(tmp_path: Path) -> None:
    # The control `same` is a vit of depth 3 with as many heads as the width asks for; so is the default of this space.
    space = "space: headsearch/space@1\nhead: {vit: {depth: {choice: [3, 1, 2]}}}"
    records = run(
        tmp_path / "run", toy_experiment(trials=2, finalists=1, replicates=2, sampler="random"), space=space
    )
    same = records[1]
    answered = next(r for r in records if r.control is None)
    assert (same.control, answered.state, answered.duplicate_of) == ("same", "duplicate", 1)
    assert answered.head_id == same.head_id
    # It costs no trial: two others are trained.
    assert len({r.head_id for r in records if r.control is None}) == 3
    # As a control it is replicated anyway, once.
    assert sum(r.head_id == same.head_id and r.replicate == 1 for r in records) == 1


def test_a_space_that_is_exhausted_ends_the_search_and_says_so(tmp_path: Path) -> None:
    notes: list[str] = []

    class Listener(Observer):
        def note(self, text: str) -> None:
            notes.append(text)

    experiment = toy_experiment(trials=50, finalists=1, replicates=2)
    records = run(tmp_path / "run", experiment, space=SMALL, observer=Listener())
    assert len({r.head_id for r in records if r.control is None}) == 4
    # The fourth is the control `same`.
    assert notes[-1] == "every head of the space has been tried; 3 trained, 50 were asked for"
    assert notes[:-1] == [
        "the sampler proposes heads that were tried before; untried ones take turns with its own"
    ]
    assert sum(r.replicate == 1 for r in records) == 4


def test_optuna_sees_states_values_names_and_parameters(tmp_path: Path) -> None:
    out = tmp_path / "run"
    failing = ToyEvaluator(failures={"mixer": "collapse", "vit": "error"})
    experiment = toy_experiment(trials=12, finalists=0, replicates=1, sampler="random")
    records = run(out, experiment, failing)
    study = optuna.load_study(study_name="toy", storage=f"sqlite:///{out / 'study.db'}")
    assert study.metric_names == ["discrepancy", "probe"]
    assert [d.name for d in study.directions] == ["MAXIMIZE", "MAXIMIZE"]
    names = {"complete": "COMPLETE", "infeasible": "FAIL", "failed": "FAIL"}
    assert {r.state for r in records} >= set(names)
    for record, trial in zip(records, study.trials, strict=True):
        assert trial.number == record.number
        assert trial.user_attrs["head_id"] == record.head_id
        if record.state == "duplicate":
            continue
        assert trial.state.name == names[record.state]
        if record.state == "complete":
            final = record.rungs[-1]
            assert trial.values == [final.discrepancy or 0.0, final.knn]
        if record.control is None:
            assert "family" in trial.params
    none = records[0]
    assert none.rungs[-1].discrepancy is None
    assert study.trials[0].values[0] == 0.0
    bad = next(r for r in records if r.state == "infeasible")
    assert bad.reason == "head embeddings collapsed (standard deviation 0.001)"
    broken = next(r for r in records if r.state == "failed")
    assert broken.reason == "RuntimeError: toy failure"
    assert "Traceback" in (out / "trials" / str(broken.number) / "error.txt").read_text()


def test_both_readers_agree_and_one_needs_no_optuna(tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(out, toy_experiment(trials=5, finalists=1, replicates=2), ToyEvaluator(failures={"mixer": "memory"}))
    records = read_records(out)
    storage = open_storage(sqlite_url(out / "study.db"))
    assert records == Ledger(storage, "toy", labels=True).records
    close_storage(storage)
    code = (
        "import sys\nfrom headsearch.runs.run import read_records\n"
        "print(len(read_records(sys.argv[1])), *(m for m in ('optuna', 'torch', 'pandas', 'sqlalchemy') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(out)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(len(records))]


def test_without_labels_there_is_one_objective(tmp_path: Path) -> None:
    out = tmp_path / "run"
    records = run(out, toy_experiment(labels="none", trials=4, finalists=1, replicates=2))
    assert optuna.load_study(study_name="toy", storage=f"sqlite:///{out / 'study.db'}").metric_names == [
        "discrepancy"
    ]
    heads = [r for r in records if r.control is None and r.replicate == 0]
    best = max(heads, key=lambda r: r.score or 0.0)
    assert [r.head_id for r in records if r.control is None and r.replicate == 1] == [best.head_id]


def test_a_result_that_is_not_finite_or_has_no_probe_never_reaches_the_ranking(tmp_path: Path) -> None:
    from dataclasses import replace

    toy = ToyEvaluator()

    def evaluate(training: Training, context: TrainingContext) -> TrainingResult:
        (result,) = toy(training, context).trials
        last = {
            "vit": replace(result.rungs[-1], linear=float("nan")),
            "mlp": replace(result.rungs[-1], linear=None, knn=None),
        }.get(training.candidates[0].config.family, result.rungs[-1])
        return TrainingResult((replace(result, rungs=(*result.rungs[:-1], last)),), seconds=1.0)

    records = run(tmp_path / "run", toy_experiment(trials=1, finalists=0, replicates=1), evaluate)
    assert [(r.state, r.reason) for r in records[1:3]] == [
        ("infeasible", "scores are not finite"),
        ("failed", "the trial gave no probe, though the experiment has labels"),
    ]


def test_what_every_training_says_is_told_of_the_first_alone(tmp_path: Path) -> None:
    from dataclasses import replace

    toy, notes = ToyEvaluator(), []

    def evaluate(training: Training, context: TrainingContext) -> TrainingResult:
        return replace(toy(training, context), notes=("compile: torch cannot",))

    class Listener(Observer):
        def note(self, text: str) -> None:
            notes.append(text)

    experiment = toy_experiment(trials=2, finalists=0, replicates=1)
    assert len(run(tmp_path / "run", experiment, evaluate, observer=Listener())) > 2
    assert notes == ["trial 0: compile: torch cannot"]


def test_a_search_where_nothing_works_stops_with_the_reason(tmp_path: Path) -> None:
    everything = dict.fromkeys(("none", "vit", "mlp", "convnext", "mixer"), "error")
    with pytest.raises(
        RunError,
        match=r"the first 3 trials failed, the last with: RuntimeError: toy failure; see .*2/error.txt",
    ):
        run(tmp_path / "run", toy_experiment(trials=5), ToyEvaluator(failures=everything))  # type: ignore[arg-type]
    # Once it is mended, controls are run again: no ranking without them.
    records = run(tmp_path / "run", toy_experiment(trials=5), resume=True)
    assert [r.state for r in records[:3]] == ["failed"] * 3
    assert [(r.control, r.state) for r in records[3:6]] == [
        ("none", "complete"),
        ("same", "complete"),
        ("mlp", "complete"),
    ]


def test_a_full_disk_ends_the_search_and_the_trial_resumes(tmp_path: Path) -> None:
    experiment = toy_experiment(trials=3, finalists=0, replicates=1)
    full = ToyEvaluator(failures={"mlp": "disk"})
    with pytest.raises(
        RunError, match=r"stopped at trial 2: no space left on the device \(checkpoint.json\); fix that"
    ):
        run(tmp_path / "run", experiment, full)
    assert [r.state for r in read_records(tmp_path / "run")] == ["complete", "complete", "running"]
    resumed = run(tmp_path / "run", experiment, resume=True)
    assert results(resumed) == results(run(tmp_path / "undisturbed", experiment))


def test_a_study_that_breaks_ends_the_search_in_one_line(tmp_path: Path) -> None:
    toy = ToyEvaluator()

    def evaluate(training: Training, context: TrainingContext) -> TrainingResult:
        if training.candidates[0].config.family == "mlp":
            with contextlib.closing(sqlite3.connect(tmp_path / "run" / "study.db")) as database:
                database.execute("DROP TABLE trial_user_attributes")
        return toy(training, context)

    with pytest.raises(RunError, match=r"study\.db was removed, damaged .* with 3 trials") as told:
        run(tmp_path / "run", toy_experiment(trials=2), evaluate)
    assert "no such table: trial_user_attributes" in str(told.value.__context__)


def test_bad_input_leaves_nothing_behind(tmp_path: Path) -> None:
    experiment = toy_experiment(trials=3, storage="nonsense://x")
    with pytest.raises(RunError, match=r"search.storage: 'nonsense://x' is not a storage URL"):
        run(tmp_path / "run", experiment)
    with pytest.raises(RunError, match="cannot be reached"):
        run(tmp_path / "run", toy_experiment(trials=3, storage=f"sqlite:///{tmp_path}/no/such/folder/x.db"))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SpaceError, match="neither a file nor a shipped space"):
        toy_materials(toy_experiment(space="tinny"))


def test_a_storage_is_let_go_where_the_executor_cannot_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []
    closed: list[object] = []

    def opening(url: str) -> object:
        opened.append(open_storage(url))
        return opened[-1]

    def closing(storage: object) -> None:
        closed.append(storage)
        close_storage(storage)  # type: ignore[arg-type]

    # The real ones, watched: an SQLite connection that nobody uses leaves no trace, one to a server does.
    monkeypatch.setattr(session, "open_storage", opening)
    monkeypatch.setattr(session, "close_storage", closing)
    executor = {"kind": "process", "workers": 10_000}
    experiment = toy_experiment(trials=1, storage=f"sqlite:///{tmp_path}/shared.db", executor=executor)
    with pytest.raises(ExperimentError, match="10000 workers"):
        run(tmp_path / "run", experiment)
    assert opened == closed != []
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_overwritten(tmp_path: Path) -> None:
    experiment = toy_experiment(trials=1, finalists=0, replicates=1)
    run(tmp_path / "run", experiment)
    before = (tmp_path / "run" / "study.db").read_bytes()
    with pytest.raises(RunError, match="exists; add --resume"):
        run(tmp_path / "run", experiment)
    assert (tmp_path / "run" / "study.db").read_bytes() == before


def test_another_storage_holds_the_study(tmp_path: Path) -> None:
    experiment = toy_experiment(
        trials=3, finalists=0, replicates=1, storage=f"sqlite:///{tmp_path}/shared.db"
    )
    first = run(tmp_path / "a", experiment)
    second = run(tmp_path / "b", experiment)
    assert results(read_records(tmp_path / "a")) == results(first) == results(second)
    names = optuna.get_all_study_names(f"sqlite:///{tmp_path}/shared.db")
    assert len(names) == 2
    assert not (tmp_path / "a" / "study.db").exists()


def test_resuming_with_a_storage_that_lacks_the_study_is_refused(tmp_path: Path) -> None:
    run(tmp_path / "run", toy_experiment(trials=2, finalists=0, replicates=1))
    elsewhere = toy_experiment(trials=2, finalists=0, replicates=1, storage=f"sqlite:///{tmp_path}/other.db")
    with pytest.raises(RunError, match="its study 'toy' is not in the storage"):
        run(tmp_path / "run", elsewhere, resume=True)


def test_a_finished_search_can_be_extended(tmp_path: Path) -> None:
    short = run(tmp_path / "run", toy_experiment(trials=4, finalists=0, replicates=1))
    longer = run(tmp_path / "run", toy_experiment(trials=9, finalists=2, replicates=2), resume=True)
    assert results(longer)[: len(short)] == results(short)
    whole = run(tmp_path / "whole", toy_experiment(trials=9, finalists=2, replicates=2))
    assert results(longer) == results(whole)


def test_resuming_a_finished_search_does_nothing(tmp_path: Path) -> None:
    experiment = toy_experiment(trials=4, finalists=1, replicates=2)
    first = run(tmp_path / "run", experiment)

    def never(training: Training, context: TrainingContext) -> TrainingResult:
        raise AssertionError("nothing is left to train")

    assert results(run(tmp_path / "run", experiment, never, resume=True)) == results(first)


@pytest.mark.parametrize("sampler", ["tpe", "random", "nsga2", "grid"])
def test_ctrl_c_loses_nothing_that_is_finished(tmp_path: Path, sampler: str) -> None:
    experiment = toy_experiment(trials=13, finalists=2, replicates=2, sampler=sampler)
    undisturbed = run(tmp_path / "undisturbed", experiment)
    sessions = 0
    finished: list[tuple[object, ...]] = []
    while True:
        try:
            records = run(tmp_path / "run", experiment, resume=sessions > 0, observer=InterruptingInside(38))
        except KeyboardInterrupt:
            sessions += 1
            so_far = [row for row in results(read_records(tmp_path / "run")) if row[1] != "running"]
            assert so_far[: len(finished)] == finished
            finished = so_far
        else:
            break
    assert sessions > 3
    assert results(records) == results(undisturbed)


KILLS = 5


def search_until_killed(out: Path, seconds: float) -> None:
    """A toy search that goes on where the last ended, and is killed so long after its first training has begun; never where `seconds` is 0."""

    class Doomed(Observer):
        def training_started(self, training: Training, status: SearchStatus) -> None:
            # Start-up takes most of a session's time; a kill should hit the search as often as not. Its own timer kills it as SIGKILL does,
            # and so soon that it cannot have ended, however busy the machine is.
            if seconds and not signal.getitimer(signal.ITIMER_REAL)[0]:
                signal.setitimer(signal.ITIMER_REAL, seconds)

    experiment = toy_experiment(trials=8, finalists=2, replicates=2)
    run(out, experiment, ToyEvaluator(seconds_per_epoch=0.012), resume=out.exists(), observer=Doomed())


def test_a_search_that_is_killed_at_random_moments_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    undisturbed = run(tmp_path / "undisturbed", toy_experiment(trials=8, finalists=2, replicates=2))
    out = tmp_path / "run"
    rng = random.Random(0)
    finished: list[tuple[object, ...]] = []
    for seconds in (*(rng.uniform(0.001, 0.25) for _ in range(KILLS)), 0.0):
        killed = pytest.raises(RuntimeError, match=f"ended with code -{signal.SIGALRM:d}$")
        with killed if seconds else contextlib.nullcontext():
            Started(search_until_killed, out, seconds).result()
        so_far = [row for row in results(read_records(out)) if row[1] != "running"]
        assert so_far[: len(finished)] == finished
        finished = so_far
    records = read_records(out)
    assert results(records) == results(undisturbed)
    # Resumed from checkpoints: at most the epoch that was cut short is trained again.
    epochs = sum(len((path / "epochs.txt").read_text().split()) for path in (out / "trials").iterdir())
    budget = 9 * sum(r.state == "complete" for r in records)
    assert budget <= epochs <= budget + KILLS


def test_in_a_database_a_trial_begins_and_ends_in_one_transaction_each(tmp_path: Path) -> None:
    record = run(tmp_path / "run", toy_experiment(trials=1, finalists=0, replicates=1))[-1]
    assert record.cost is not None
    storage = open_storage(sqlite_url(tmp_path / "other.db"))
    assert isinstance(storage, Database)
    make_study(storage, "study", labels=True, facts={})
    ledger = Ledger(storage, "study", labels=True)
    commits: list[object] = []
    sqlalchemy.event.listen(storage.engine, "commit", commits.append)
    begun = ledger.start(record.candidate, seed=1, replicate=0)
    before = len(commits)
    ended = ledger.end(begun.number, TrialResult(record.state, record.rungs, record.cost), seconds=1.0)
    assert before == 1
    assert len(commits) == 2
    assert list(Ledger(storage, "study", labels=True).records) == [ended]


def test_killed_between_outcome_and_state_a_trial_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = toy_experiment(trials=2, finalists=0, replicates=1)

    def killed(self: Database, trial: int, noted: dict[str, object], *rest: object) -> None:
        # As a storage leaves it that is no database, or an earlier version.
        self.set_trial_system_attr(trial, "outcome", noted["outcome"])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Database, "end_trial", killed)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "run", experiment)
    assert trial_of(tmp_path / "run", 0).state.name == "RUNNING"
    assert [r.state for r in read_records(tmp_path / "run")] == ["complete"]
    records = run(tmp_path / "run", experiment, resume=True)
    assert results(records) == results(run(tmp_path / "undisturbed", experiment))
    assert (tmp_path / "run" / "trials" / "0" / "epochs.txt").read_text().split() == [
        str(n) for n in range(1, 10)
    ]
    assert trial_of(tmp_path / "run", 0).state.name == "COMPLETE"


def test_observers_see_every_training_and_can_tell_the_time_left(tmp_path: Path) -> None:
    seen: list[tuple[str, SearchStatus]] = []
    rungs: list[int] = []

    class Watcher(Observer):
        def search_started(self, status: SearchStatus, *, resumed: bool) -> None:
            seen.append(("search_started", status))

        def training_started(self, training: Training, status: SearchStatus) -> None:
            seen.append(("training_started", status))

        def rung_reached(self, training: Training, place: int, scores: object) -> None:
            rungs.append(training.number)

        def training_ended(self, records: Sequence[TrialRecord], status: SearchStatus) -> None:
            seen.extend((f"trial_{record.state}", status) for record in records)

        def search_ended(self, status: SearchStatus) -> None:
            seen.append(("search_ended", status))

    experiment = toy_experiment(trials=3, finalists=1, replicates=2, sampler="random")
    records = run(tmp_path / "run", experiment, ToyEvaluator(seconds_per_epoch=0.002), observer=Watcher())
    trained = [r for r in records if r.state == "complete"]
    first, last = seen[0][1], seen[-1][1]
    assert (first.stage, first.settled, first.expected, first.seconds_left) == ("controls", 0, 10, None)
    assert (last.stage, last.settled, last.expected, last.seconds_left) == ("replicates", 10, 10, 0.0)
    assert (
        sum(event == "trial_complete" for event, _ in seen)
        == sum(event == "training_started" for event, _ in seen)
        == 10
    )
    assert len(rungs) == 30
    assert last.seconds_per_trial == pytest.approx(sum(r.seconds or 0 for r in trained) / 10)


def test_the_study_says_what_it_is_about(tmp_path: Path) -> None:
    run(tmp_path / "run", toy_experiment(trials=1, finalists=0, replicates=1))
    study = optuna.load_study(study_name="toy", storage=f"sqlite:///{tmp_path / 'run' / 'study.db'}")
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert study.user_attrs["headsearch"] == facts
    assert facts["base"]["width"] == 64
