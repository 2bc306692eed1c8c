"""What every executor must do, wherever its trials run. An executor is done when every `check_*` that applies to it passes.

A check runs whole searches on the toy objective and raises an `AssertionError` that names the fault. Trials write a diary into the
tester's folder, so the executor's workers must share a disk with it.

    check_executor(make, folder, workers=2)               for an executor whose trials run in other processes
    check_executor(make, folder, workers=1, apart=False)  for one whose trials run in this process
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from headsearch.errors import RunError
from headsearch.experiment import Experiment
from headsearch.results.records import TrialRecord
from headsearch.runs.run import read_records
from headsearch.search.executors import Executor
from headsearch.search.observer import Observer, SearchStatus
from headsearch.testing.toy import Failure, ToyEvaluator
from headsearch.testing.toy_search import run_toy, scores, toy_experiment
from headsearch.testing.traces import Diary, DiaryToy
from headsearch.training.trial import BEGINNING, TRUNK, RungScores, Training


class MakeExecutor(Protocol):
    """Makes the executor under test."""

    def __call__(self, run: Path, max_retries: int) -> AbstractContextManager[Executor]:
        """An executor for the run directory `run` that continues a trial whose worker is lost at most `max_retries` times."""


def check_executor(make: MakeExecutor, folder: Path, *, workers: int, apart: bool = True) -> None:
    """Run every check that applies to an executor with this many workers. `apart`: its trials run in other processes.

    Raises:
        AssertionError: it names what the executor does wrong.
    """
    check_scores(make, folder / "scores", workers=workers)
    check_stopping(make, folder / "stopping")
    check_failures(make, folder / "failures")
    check_halt(make, folder / "halt")
    check_interruptions(make, folder / "interruptions")
    check_trunk(make, folder / "trunk")
    if apart:
        check_lost_workers(make, folder / "lost")


def check_scores(make: MakeExecutor, folder: Path, *, workers: int) -> None:
    """Heads and scores are those of an inline search, every trial is whole, as many run at once as there are workers, and one that waits says so once."""
    experiment = toy_experiment(trials=4, finalists=4, replicates=2, sampler="random")
    watcher = Watcher()
    records = _run(make, folder, experiment, DiaryToy(folder, together=workers), watcher)
    inline = run_toy(folder / "inline", experiment)
    assert scores(records) == scores(inline), "other heads or scores than inline"
    assert {record.state for record in records} <= {"complete", "duplicate"}, "a trial was not finished"
    assert read_records(folder / "run") == records, "the study holds something else"
    assert max(watcher.at_work) == workers, f"{max(watcher.at_work)} trials at once, expected {workers}"
    waited = [
        f"trial {record.number} waits for the others" for record in records if record.state == "complete"
    ]
    assert sorted(watcher.notes) == sorted(waited), f"said of trials that wait: {watcher.notes}"
    for record in records:
        _is_whole(folder / "run" / "trials" / str(record.number), record, epochs=9)


def check_stopping(make: MakeExecutor, folder: Path) -> None:
    """A trial that is told to stop trains no further, and is pruned with the scores of its rungs; controls and replicates run on."""
    stopping = {"kind": "asha", "reduction": 3}
    experiment = toy_experiment(trials=8, finalists=1, replicates=2, sampler="random", stopping=stopping)
    records = _run(make, folder, experiment, DiaryToy(folder))
    stopped = [record for record in records if record.state == "stopped"]
    assert stopped, "nothing was stopped"
    for record in stopped:
        epoch = record.rungs[-1].epoch
        assert [rung.epoch for rung in record.rungs] == [rung for rung in (1, 3) if rung <= epoch]
        assert record.reason == f"not among the best 1/3 so far at epoch {epoch}"
        assert Diary(folder, record.head_id, record.seed).attempts == [list(range(1, epoch + 1))]
        _is_whole(folder / "run" / "trials" / str(record.number), record, epochs=epoch)
    assert {trial.state.name for trial in _optuna_trials(folder / "run", stopped)} == {"PRUNED"}
    assert all(record.state == "complete" for record in records if record.control or record.replicate)


def check_failures(make: MakeExecutor, folder: Path) -> None:
    """A head that collapses, raises, or runs out of memory is settled as what it is, and not tried again."""
    failures: dict[str, Failure] = {"vit": "collapse", "mlp": "error", "mixer": "memory"}
    watcher = Watcher()
    evaluate = DiaryToy(folder, ToyEvaluator(failures=failures))
    experiment = toy_experiment(trials=2, finalists=0, replicates=1, sampler="grid")
    space = "space: headsearch/space@1\nhead: {one_of: [{convnext: {depth: 1}}, {mixer: {depth: 1}}]}"
    records = _run(make, folder, experiment, evaluate, watcher, space=space)
    expected = {
        "none": ("complete", None),
        "vit": ("infeasible", "head embeddings collapsed (standard deviation 0.001)"),
        "mlp": ("failed", "RuntimeError: toy failure"),
        "convnext": ("complete", None),
        "mixer": ("infeasible", "out of memory: toy out of memory"),
    }
    ends = {record.config.family or "none": (record.state, record.reason) for record in records}
    assert ends == expected, f"trials ended as {ends}"
    for record in records:
        assert len(Diary(folder, record.head_id, record.seed).attempts) == 1, "a failed head was tried again"
    assert watcher.notes == [], f"a head was taken for a lost worker: {watcher.notes}"
    error = (folder / "run" / "trials" / "2" / "error.txt").read_text(encoding="utf-8")
    assert "toy failure" in error, "the traceback is lost"


def check_halt(make: MakeExecutor, folder: Path) -> None:
    """What would end every trial alike (a full disk) ends the search with its reason; once mended, it goes on to the same end."""
    experiment = toy_experiment(trials=2, finalists=0, replicates=1, sampler="random")
    said = "nothing"
    try:
        _run(make, folder, experiment, ToyEvaluator(failures={"mlp": "disk"}))
    except RunError as error:
        said = str(error)
    assert "stopped at trial 2: no space left on the device" in said, f"a full disk: the search said {said}"
    states = Counter(record.state for record in read_records(folder / "run"))
    assert set(states) <= {"complete", "running"}, f"settled wrongly: {states}"
    assert states["running"] >= 1, "the trial that was halted cannot be resumed"
    _is_as_undisturbed(_run(make, folder, experiment, ToyEvaluator(), resume=True), folder, experiment)


def check_interruptions(make: MakeExecutor, folder: Path) -> None:
    """Ctrl-C settles nothing wrongly and leaves no trial behind; a resumed search ends as an undisturbed one."""
    experiment = toy_experiment(trials=3, finalists=3, replicates=2, sampler="grid")
    evaluate = DiaryToy(folder)
    finished: list[TrialRecord] = []

    def attempts_at_finished() -> list[list[list[int]]]:
        return [Diary(folder, record.head_id, record.seed).attempts for record in finished]

    for rungs in (4, 8):
        earlier = attempts_at_finished()
        with interrupted():
            watcher = Watcher(interrupt_after=rungs)
            _run(make, folder, experiment, evaluate, watcher, resume=(folder / "run").exists())
        assert attempts_at_finished() == earlier, "a finished trial was run again"
        records = read_records(folder / "run")
        states = {record.state for record in records}
        # Trials side by side may all be at their second rung: then none is complete.
        assert "running" in states, "the trial that was interrupted cannot be resumed"
        assert states <= {"complete", "running"}, f"settled wrongly: {states}"
        assert [record for record in records if record in finished] == finished, (
            "what was finished has changed"
        )
        finished = [record for record in records if record.state == "complete"]
        trained = Diary.lines(folder)
        time.sleep(0.3)
        assert Diary.lines(folder) == trained, "a trial trains on after Ctrl-C"
    earlier = attempts_at_finished()
    records = _run(make, folder, experiment, evaluate, resume=True)
    _is_as_undisturbed(records, folder, experiment)
    assert attempts_at_finished() == earlier, "a finished trial was run again"


def check_trunk(make: MakeExecutor, folder: Path) -> None:
    """Each replicate has one trunk, which is trained before all that branches from it, also where Ctrl-C came in between; scores are those of an inline
    search, also of anchors, which come last and branch from none."""
    experiment = toy_experiment(
        trunk=9, trials=3, finalists=2, replicates=2, sampler="grid", target_epochs=12, anchors=3
    )
    for rungs in (2, 5):
        with interrupted():
            watcher = Watcher(interrupt_after=rungs)
            _run(make, folder, experiment, ToyEvaluator(), watcher, resume=(folder / "run").exists())
    records = _run(make, folder, experiment, ToyEvaluator(), resume=True)
    _is_as_undisturbed(records, folder, experiment)
    trunks = {record.replicate: record for record in records if record.stage == "trunk"}
    assert len(trunks) == 2 == sum(record.stage == "trunk" for record in records), "a trunk was trained again"
    anchors = [record for record in records if record.stage == "anchor"]
    assert [record.number for record in anchors] == list(range(len(records) - 5, len(records)))
    assert [r.control for r in anchors] == ["none", "none", None, None, None]
    assert {record.rungs[-1].epoch for record in anchors} == {12}, "an anchor was trained for another time"
    for record in records:
        folder_of = folder / "run" / "trials" / str(record.number)
        assert (folder_of / TRUNK).exists() == (record.stage == "trunk")
        assert not (folder_of / BEGINNING).exists(), "what a training began with was left behind"
        if record.stage == "trunk":
            earlier = [r for r in records if r.replicate == record.replicate and r.number < record.number]
            assert not earlier, "something was trained before what it branches from"


def check_lost_workers(make: MakeExecutor, folder: Path) -> None:
    """A trial whose process is killed goes on from its checkpoint; one that kills every process fails after `max_retries`, and no other."""
    evaluate = DiaryToy(folder, ToyEvaluator(failures={"vit": "die"}), deaths={"mlp": 5})
    experiment = toy_experiment(trials=1, finalists=1, replicates=2, sampler="grid")
    watcher = Watcher()
    records = _run(make, folder, experiment, evaluate, watcher, max_retries=1)
    (failed,) = (record for record in records if record.state != "complete")
    assert (failed.control, failed.state) == ("same", "failed"), "the wrong trial failed"
    assert "2 times" in (failed.reason or ""), f"failed because {failed.reason}"
    assert len(Diary(folder, failed.head_id, failed.seed).attempts) == 2, "not tried max_retries times again"
    lost = [record for record in records if record.control == "mlp"]
    for record in lost:
        first, second = Diary(folder, record.head_id, record.seed).attempts
        assert first == [1, 2, 3, 4, 5]
        assert 1 < second[0] <= 5, f"taken up at epoch {second[0]}, not from a checkpoint"
        assert second[-1] == 9
    assert len(watcher.notes) == 1 + len(lost), f"said of lost workers: {watcher.notes}"
    others = scores(run_toy(folder / "undisturbed", experiment))
    found = scores(records)
    assert {key: value for key, value in others.items() if key in found and key[1] != failed.head_id} == {
        key: value for key, value in found.items() if key[1] != failed.head_id
    }, "a lost worker has changed scores"


class Watcher(Observer):
    """Keeps what is said and how many trials are at work; as Ctrl-C, interrupts after so many rungs."""

    def __init__(self, interrupt_after: int | None = None) -> None:
        self.notes: list[str] = []
        self.at_work: list[int] = []
        self._left = interrupt_after

    def training_started(self, training: Training, status: SearchStatus) -> None:
        self.at_work.append(status.at_work)

    def rung_reached(self, training: Training, place: int, scores: RungScores) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                raise KeyboardInterrupt

    def note(self, text: str) -> None:
        self.notes.append(text)


@contextlib.contextmanager
def interrupted() -> Iterator[None]:
    """Something that Ctrl-C ends, and that does not keep it to itself."""
    try:
        yield
    except KeyboardInterrupt:
        return
    raise AssertionError("an interruption was swallowed")


def _run(
    make: MakeExecutor,
    folder: Path,
    experiment: Experiment,
    evaluate: DiaryToy | ToyEvaluator,
    observer: Watcher | None = None,
    *,
    max_retries: int = 2,
    **options: Any,
) -> list[TrialRecord]:
    folder.mkdir(exist_ok=True)
    with make(folder / "run", max_retries) as executor:
        return run_toy(folder / "run", experiment, evaluate, observer=observer, executor=executor, **options)


def _is_whole(trial: Path, record: TrialRecord, *, epochs: int) -> None:
    """The folder of a trial that has ended: all that it wrote, and no checkpoint."""
    if record.state == "duplicate":
        return
    trained = (trial / "epochs.txt").read_text(encoding="utf-8").split()
    assert trained == [str(epoch) for epoch in range(1, epochs + 1)], f"{trial} holds epochs {trained}"
    assert not list(trial.glob("checkpoint*")), f"{trial} still has its checkpoint"


def _is_as_undisturbed(records: list[TrialRecord], folder: Path, experiment: Experiment) -> None:
    assert all(record.state in ("complete", "duplicate") for record in records), "a trial was left behind"
    assert scores(records) == scores(run_toy(folder / "undisturbed", experiment)), (
        "another end than undisturbed"
    )


def _optuna_trials(run: Path, records: Iterable[TrialRecord]) -> list[Any]:
    import optuna

    study = optuna.load_study(study_name="toy", storage=f"sqlite:///{run / 'study.db'}")
    return [study.trials[record.number] for record in records]
