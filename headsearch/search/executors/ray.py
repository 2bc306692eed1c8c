"""Trainings on a Ray cluster, through Ray Tune. Tune places trials, carries their checkpoints and replaces lost workers; nothing else.

What is tried next, which trials go on past a rung, and what is written down is the coordinator's business here as everywhere:

    Tune asks its searcher     → `TrainingSource.next_training`    Tune's scheduler hears a rung → `TrainingSource.report` decides
    Tune's searcher hears an end → `TrainingSource.settle`         a worker's folder arrives     → the training's folder in the run directory

All of it is called from the thread that runs Tune's loop. Tune's own record of the experiment is thrown away at the end, and never
restored: the study and the trials' folders hold all that a resumed search needs (docs/decisions/010-ray-without-restore.md).
"""

from __future__ import annotations

import contextlib
import hashlib
import pickle
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.fs
import ray
from ray import tune
from ray.exceptions import RayActorError
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from headsearch.errors import ExperimentError, RunError
from headsearch.experiment import RaySpec
from headsearch.search.executors import Failed, Outcome, Stopped, TrainingSource
from headsearch.search.executors.leading import START_SECONDS, pass_on
from headsearch.search.executors.placement import Placement
from headsearch.search.executors.ray_cluster import cluster_nodes, room
from headsearch.search.executors.ray_trial import MARKER, MESSAGE, Assignment, run_trial
from headsearch.search.executors.worker import Ended
from headsearch.training.trial import CHECKPOINTS, Evaluate, Training

LISTENING_SECONDS = 1.0
"""Between two looks at the cluster, where nothing holds the coordinating process up."""


class RayExecutor:
    """Evaluates trainings on the cluster that this process is connected to."""

    def __init__(self, spec: RaySpec, run: Path) -> None:
        """`run` is the run directory that the search writes. Checkpoints travel through a folder in it, or in the storage of `spec`."""
        self._spec = spec
        self._run = run

    def run(self, source: TrainingSource, evaluate: Evaluate) -> None:
        """Evaluate all that `source` hands out. However this ends, no trial is left at work."""
        spec = self._spec
        with _passage(spec.storage or str(self._run), self._run) as passage:
            search = _Search(source, spec, passage)
            tuner = tune.Tuner(
                tune.with_resources(
                    tune.with_parameters(run_trial, packed=pickle.dumps(evaluate)),
                    {"cpu": spec.cpus_per_trial, "gpu": spec.gpus_per_trial},
                ),
                tune_config=tune.TuneConfig(
                    search_alg=_Suggestions(search),
                    scheduler=_Decisions(search),
                    num_samples=-1,
                    reuse_actors=True,
                    trial_name_creator=_name,
                    trial_dirname_creator=_name,
                ),
                run_config=tune.RunConfig(
                    name=passage.name,
                    storage_path=passage.storage,
                    verbose=0,
                    callbacks=[_Folders(search)],
                    checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
                    failure_config=tune.FailureConfig(max_failures=spec.max_retries),
                ),
            )
            try:
                tuner.fit()
            except BaseException as error:
                search.abandon()
                if isinstance(error, _Raised):
                    raise error.error from None
                raise


class _Raised(BaseException):
    """Carries an error of the search's own through Tune, which takes every `Exception` for a trial's."""

    def __init__(self, error: Exception) -> None:
        self.error = error


@contextlib.contextmanager
def _own_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _Raised(
            RunError(f"the run directory cannot be written: {error}; continue with --resume")
        ) from error
    except Exception as error:
        raise _Raised(error) from error


@dataclass(frozen=True)
class _Passage:
    """The folder that checkpoints travel through."""

    storage: str
    name: str
    filesystem: pyarrow.fs.FileSystem
    path: str

    @property
    def address(self) -> str:
        """Where it is, for whoever does not know the file system: a path or a URL."""
        return f"{self.storage}/{self.name}"

    def send(self, folder: Path, number: int) -> str:
        """Put a trial's folder where every node can read it; where that is, for `tune.Checkpoint`."""
        target = f"resumed-{number}"
        self.filesystem.create_dir(f"{self.path}/{target}")
        pyarrow.fs.copy_files(str(folder), f"{self.path}/{target}", destination_filesystem=self.filesystem)
        return f"{self.address}/{target}"


@contextlib.contextmanager
def _passage(storage: str, run: Path) -> Iterator[_Passage]:
    """A passage through `storage` for the run directory `run`, made now and removed at the end; what a killed session left goes too.

    Raises:
        UserError: it cannot be written, or is no place that pyarrow knows.
    """
    where = storage if "://" in storage else str(Path(storage).absolute())
    name = f"ray-{hashlib.sha256(str(run.absolute()).encode()).hexdigest()[:12]}"
    try:
        filesystem, base = pyarrow.fs.FileSystem.from_uri(where)
        path = f"{base}/{name}"
        if filesystem.get_file_info(path).type != pyarrow.fs.FileType.NotFound:
            filesystem.delete_dir(path)
        filesystem.create_dir(path)
        # Tune makes the folder wherever it is missing; a node that sees this file sees the right one.
        filesystem.open_output_stream(f"{path}/{MARKER}").close()
    except (OSError, ValueError) as error:
        raise ExperimentError(
            f"search.executor.storage: {storage!r} cannot be written: {' '.join(str(error).split())}"
        ) from None
    try:
        yield _Passage(where.rstrip("/"), name, filesystem, path)
    finally:
        # What cannot be removed now, the network being down, goes with the next session.
        with contextlib.suppress(OSError):
            filesystem.delete_dir(path)


@dataclass
class _Search:
    """What the three parts that Tune is given have in common."""

    source: TrainingSource
    spec: RaySpec
    passage: _Passage
    running: dict[str, Training] = field(default_factory=dict)
    """By Tune's name of the trial."""
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    """Of trials that have told how they ended, or were told to stop."""
    losses: dict[str, tuple[str, str]] = field(default_factory=dict)
    """How the last worker of a trial was lost, and what Ray says of it."""
    trials: dict[str, Trial] = field(default_factory=dict)
    """Running now."""
    until: dict[str, float] = field(default_factory=dict)
    """When a trial at work will have been silent for too long, on the monotonic clock."""
    listened: float = field(default_factory=time.monotonic)
    """When trials were last listened to."""
    controller: Any = None
    """Tune's; known once it has a trial."""

    @property
    def full(self) -> bool:
        """Whether as many trials run as may, or as there is room for. A cluster may grow."""
        workers = self.spec.workers
        return len(self.running) >= (room(self.spec, cluster_nodes()) if workers is None else workers)

    def assignment(self, training: Training) -> Assignment:
        """What a worker is told of a training. Where an earlier session has left a checkpoint, it is sent."""
        begun = any(training.workdir.glob(CHECKPOINTS))
        return Assignment(
            training=training,
            placement=Placement(
                max(1, int(self.spec.cpus_per_trial)), None if self.spec.gpus_per_trial else ""
            ),
            directory=Path.cwd(),
            passage=self.passage.address,
            resume=self.passage.send(training.workdir, training.number) if begun else None,
        )

    def alive(self, trial: Trial, seconds: float) -> None:
        """A trial has given a sign of life, and need not give another for so long."""
        self.until[trial.trial_id] = time.monotonic() + seconds

    def strike_the_silent(self) -> None:
        """Kill workers that have been silent for too long; Tune then finds them lost. To be called all the time."""
        now = time.monotonic()
        away, self.listened = max(0.0, now - self.listened - LISTENING_SECONDS), now
        for trial_id, until in list(self.until.items()):
            # What a trial has said may be waiting, where it was the coordinator that had no time.
            self.until[trial_id] = until = until + away
            if now > until:
                self.losses[trial_id] = f"gave no sign of life for {self.spec.timeout:g} s", ""
                del self.until[trial_id]
                _kill(self.trials[trial_id])

    def lost(self, trial: Trial) -> None:
        """The worker of a trial is lost: say how."""
        self.until.pop(trial.trial_id, None)
        error = trial.get_pickled_error()
        if isinstance(error, RayActorError) or error is None:
            self.losses.setdefault(trial.trial_id, ("ended unexpectedly", str(error or "")))
        else:
            cause = getattr(error, "cause", None) or error
            said = f"{type(cause).__name__}: {' '.join(str(cause).split())}"
            self.losses[trial.trial_id] = f"failed ({said[:200]})", str(error)

    def abandon(self) -> None:
        """Let go of all trials, settled or not."""
        for trial in self.trials.values():
            _kill(trial)
        if self.controller is not None:
            self.controller.cleanup()


def _kill(trial: Trial) -> None:
    actor = trial.temporary_state.ray_actor
    if actor is not None:
        ray.kill(actor)


def _name(trial: Trial) -> str:
    return str(trial.config["assignment"].training.number)


class _Stateless:
    """Tune keeps copies of its parts to restore an experiment from, which is never done here. A coordinator cannot be copied."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Suggestions(_Stateless, Searcher):
    """Tune's searcher: the coordinator's trainings."""

    def __init__(self, search: _Search) -> None:
        super().__init__()
        self._search = search

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """The next training, as the configuration of a trial; None when there is none now."""
        search = self._search
        with _own_errors():
            if search.full:
                return None
            training = search.source.next_training()
            if training is None:
                assert search.running or search.source.done, (
                    "nobody is at work, so there is nothing to wait for"
                )
                return Searcher.FINISHED if search.source.done else None
            search.running[trial_id] = training
            return {"assignment": search.assignment(training)}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """A trial has ended by itself, was stopped, or has lost its last worker."""
        search = self._search
        training = search.running.pop(trial_id)
        trial = search.trials.pop(trial_id)
        search.until.pop(trial_id, None)
        outcome = search.outcomes.pop(trial_id, None)
        if error or outcome is None:
            times = f", {trial.num_failures} times" if trial.num_failures > 1 else ""
            how, details = search.losses.get(trial_id, ("was lost", ""))
            outcome = Failed(f"its worker {how}{times}", "failed", details)
        search.losses.pop(trial_id, None)
        with _own_errors():
            search.source.settle(training, outcome)

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing: the study is saved already."""


class _Decisions(_Stateless, TrialScheduler):
    """Tune's scheduler: at every rung, what the coordinator says."""

    def __init__(self, search: _Search) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._search = search

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Act on one message."""
        search = self._search
        training = search.running[trial.trial_id]
        search.alive(trial, search.spec.timeout)
        with _own_errors():
            message = result[MESSAGE]
            if isinstance(message, Ended):
                search.outcomes[trial.trial_id] = message.outcome
            elif pass_on(message, training, search.source) is False:
                search.outcomes[trial.trial_id] = Stopped()
        stop = trial.trial_id in search.outcomes
        return str(TrialScheduler.STOP if stop else TrialScheduler.CONTINUE)

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """Tune starts what waits, in order. As this is asked all the time, it is where the silent are found."""
        self._search.strike_the_silent()

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """A trial waits for its place; anew after its worker was lost."""
        self._search.controller = tune_controller
        self._search.trials[trial.trial_id] = trial

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """A worker was lost."""
        self._search.outcomes.pop(trial.trial_id, None)
        self._search.lost(trial)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """The searcher hears of it."""

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """The searcher hears of it."""

    def debug_string(self) -> str:
        """What Tune would print."""
        return "headsearch decides"


class _Folders(_Stateless, tune.Callback):
    """Tune's callback: the trials' folders, as they arrive."""

    def __init__(self, search: _Search) -> None:
        self._search = search

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """A worker was found: it may take a while to import what it needs."""
        self._search.alive(trial, max(self._search.spec.timeout, START_SECONDS))

    def on_checkpoint(
        self, iteration: int, trials: list[Trial], trial: Trial, checkpoint: Any, **_: Any
    ) -> None:
        """Unpack a folder into the run directory."""
        training = self._search.running[trial.trial_id]
        with _own_errors(), checkpoint.as_directory() as folder:
            shutil.copytree(folder, training.workdir, copy_function=_replace, dirs_exist_ok=True)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """A lost worker's trial waits for another."""
        search = self._search
        training, (how, _details) = search.running[trial.trial_id], search.losses.pop(trial.trial_id)
        with _own_errors():
            search.source.note(
                f"trial {training.number}: its worker {how}; another takes it up from its checkpoint"
            )


def _replace(source: str, target: str) -> None:
    """Copy a file so that the target is the old or the new one, whole."""
    temporary = f"{target}.new"
    shutil.copy2(source, temporary)
    Path(temporary).replace(target)
