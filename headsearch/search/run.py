"""From an experiment to a finished run directory: reads and checks everything first, then searches."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headsearch.base_info import BaseInfo
from headsearch.errors import RunError
from headsearch.experiment import Experiment
from headsearch.heads.config import HeadConfig
from headsearch.results.trials import TrialRecord
from headsearch.run_directory import RunDirectory, RunFacts
from headsearch.search.checks import check_experiment, check_grids
from headsearch.search.coordinator import Coordinator, SearchPlan
from headsearch.search.executors import Executor
from headsearch.search.executors.inline import InlineExecutor
from headsearch.search.executors.placement import place_workers
from headsearch.search.executors.process import ProcessExecutor
from headsearch.search.ledger import Ledger
from headsearch.search.observer import Observer, SilentObserver
from headsearch.search.proposer import CostFunction, Proposer
from headsearch.search.storage import close_storage, open_storage, sqlite_url
from headsearch.shipped import shipped_folder
from headsearch.space import Space, load_space, shipped_spaces
from headsearch.trial import Evaluate

if TYPE_CHECKING:
    from optuna.storages import BaseStorage


@dataclass(frozen=True)
class Materials:
    """What a search needs beside its experiment, all of it found good."""

    space: Space
    space_text: str
    base: BaseInfo
    controls: Mapping[str, HeadConfig]
    """Every control by name, canonical for the base."""
    evaluate: Evaluate
    cost_function: CostFunction | None = None
    """Needed where the space has constraints over cost."""


@dataclass(frozen=True)
class RunSummary:
    """What a search came to."""

    directory: Path
    records: tuple[TrialRecord, ...]
    """Every trial of the run, those of former sessions too."""


def run_search(
    experiment: Experiment, out: Path, *, resume: bool = False, observer: Observer | None = None
) -> RunSummary:
    """Search as `experiment` says and write the run directory `out`.

    Everything that can be wrong with the input is found before the directory is made; nothing is left behind then.

    Args:
        experiment: what to search, on which base and images.
        out: the run directory; it must not exist, or with `resume`, must be an earlier run of the same experiment. A run may be
            extended: with `resume`, `search` may ask for more trials, finalists or replicates.
        resume: go on where an earlier session ended, however it ended.
        observer: told of all that happens.

    Raises:
        UserError: bad input; a run directory that exists, is at work, or is of another experiment; a disk that is full.
        KeyboardInterrupt: passed on. What is finished is safe, what was running is resumed from its checkpoint.
    """
    check_experiment(experiment)
    space, _ = read_space(experiment.search.space)
    check_grids(experiment, space)
    _check_target(experiment, space, out, resume=resume)
    return conduct(experiment, gather(experiment), out, resume=resume, observer=observer)


def gather(experiment: Experiment) -> Materials:
    """Read the space, the base and the images, and check that they go together. Imports torch.

    Raises:
        UserError: one line that says what is wrong.
    """
    space, space_text = read_space(experiment.search.space)

    from headsearch.base import load_base
    from headsearch.heads.controls import mlp_head, same_head
    from headsearch.scoring.cost import head_cost
    from headsearch.training.proxy import ProxyEvaluator

    base = load_base(
        experiment.base.model,
        image_size=experiment.data.image_size,
        kwargs=experiment.base.kwargs,
        weights=experiment.base.weights,
    ).info
    space.validate(base, head_cost)
    evaluate = ProxyEvaluator(experiment)
    evaluate.prepare()
    if experiment.search.executor.kind != "inline":
        # Workers read images of their own: what was read here, to see that it is good, is let go.
        evaluate = ProxyEvaluator(experiment)
    makers = {"none": lambda info: HeadConfig(), "same": same_head, "mlp": mlp_head}
    controls: dict[str, HeadConfig] = {name: makers[name](base) for name in experiment.search.controls}
    return Materials(space, space_text, base, controls, evaluate, head_cost)


def conduct(
    experiment: Experiment,
    materials: Materials,
    out: Path,
    *,
    resume: bool = False,
    observer: Observer | None = None,
    executor: Executor | None = None,
) -> RunSummary:
    """`run_search` with its materials at hand: also how the search is tested on the toy objective.

    `executor` runs the trials in place of the one that the experiment names.

    Raises:
        UserError: as `run_search`, apart from what `gather` finds.
    """
    _check_target(experiment, materials.space, out, resume=resume)
    watcher = observer if observer is not None else SilentObserver()
    proposer = Proposer(
        materials.space,
        materials.base,
        sampler=experiment.search.sampler,
        seed=experiment.seed,
        objectives=2 if experiment.data.labels == "probe" else 1,
        cost_function=materials.cost_function,
    )
    url = experiment.search.storage
    shared = None if url is None else open_storage(url)
    with contextlib.ExitStack() as stack:
        if executor is None:
            executor = stack.enter_context(open_executor(experiment, out))
        directory = RunDirectory(out) if resume else _create(experiment, materials, out)
        stack.enter_context(directory.lock())
        ledger = stack.enter_context(_study(experiment, directory, shared, new=not resume))
        if resume:
            directory.extend(experiment)
        stopping = experiment.search.stopping
        plan = SearchPlan(
            seed=experiment.seed,
            trials=experiment.search.trials,
            finalists=experiment.search.finalists,
            replicates=experiment.search.replicates,
            controls=materials.controls,
            labels=experiment.data.labels == "probe",
            rungs=tuple(experiment.proxy.rungs),
            reduction=stopping.reduction if stopping.kind == "asha" else None,
            keep_checkpoints=experiment.proxy.keep_checkpoints,
        )
        coordinator = Coordinator(plan, ledger, proposer, directory.trial_folder, watcher)
        watcher.search_started(coordinator.status(), resumed=resume)
        executor.run(coordinator, materials.evaluate)
        watcher.search_ended(coordinator.status())
        return RunSummary(directory.path, tuple(ledger.records))


@contextlib.contextmanager
def open_executor(experiment: Experiment, out: Path) -> Iterator[Executor]:
    """The executor that the experiment names, for a search that writes the run directory `out`.

    Raises:
        ExperimentError: there is no such cluster, or this machine or the cluster is too small.
    """
    spec, device = experiment.search.executor, experiment.proxy.device
    if spec.kind == "inline":
        yield InlineExecutor()
    elif spec.kind == "process":
        placements = place_workers(spec, device)
        yield ProcessExecutor(placements, max_retries=spec.max_retries, timeout=spec.timeout)
    else:
        from headsearch.search.executors.ray_cluster import check_device, connected

        check_device(spec, device)
        with connected(spec):
            from headsearch.search.executors.ray import RayExecutor

            yield RayExecutor(spec, out)


def read_space(source: str) -> tuple[Space, str]:
    """A space and its text, from a shipped name or a path. Raises `SpaceError`."""
    space = load_space(source)
    file = shipped_folder("search_spaces") / f"{source}.yaml" if source in shipped_spaces() else Path(source)
    return space, file.read_text(encoding="utf-8")


def _check_target(experiment: Experiment, space: Space, out: Path, *, resume: bool) -> None:
    if resume:
        RunDirectory.open(out).check_resume(experiment, space.hash)
    else:
        RunDirectory.refuse_existing(out)


def _create(experiment: Experiment, materials: Materials, out: Path) -> RunDirectory:
    # A storage that others use too holds many studies; a file of our own holds one.
    study = (
        experiment.name if experiment.search.storage is None else f"{experiment.name}-{secrets.token_hex(4)}"
    )
    facts = RunFacts(study=study, space_hash=materials.space.hash, base=materials.base)
    return RunDirectory.create(out, experiment, materials.space_text, facts)


@contextlib.contextmanager
def _study(
    experiment: Experiment, directory: RunDirectory, shared: BaseStorage | None, *, new: bool
) -> Iterator[Ledger]:
    """The ledger of a run, in the storage `shared` or a file of the run's own. A new run that cannot have one is removed."""
    try:
        storage = shared or open_storage(sqlite_url(directory.study_path))
        ledger = _open_ledger(experiment, directory, storage)
    except BaseException:
        if new:
            directory.remove()
        raise
    try:
        yield ledger
    finally:
        close_storage(storage)


def _open_ledger(experiment: Experiment, directory: RunDirectory, storage: BaseStorage) -> Ledger:
    labels = experiment.data.labels == "probe"
    facts = directory.facts()
    if Ledger.exists(storage, facts.study):
        return Ledger(storage, facts.study, labels=labels)
    if directory.begun:
        raise RunError(
            f"{directory.path}: its study '{facts.study}' is not in the storage; copy it there, or go on with the former storage"
        )
    return Ledger.create(storage, facts.study, labels=labels, facts=facts.to_dict())
