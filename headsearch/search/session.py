"""One session of a run: from an experiment to a finished run directory. Reads and checks everything first, then searches."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from headsearch.errors import RunError
from headsearch.experiment import Experiment
from headsearch.experiment.callbacks import MlflowSpec
from headsearch.results.records import TrialRecord
from headsearch.runs.directory import RunDirectory, RunFacts
from headsearch.runs.storages import close_storage, open_storage, sqlite_url
from headsearch.scoring.zero_cost_scores import FILE_NAME, ZeroCostScores
from headsearch.search.callbacks import build_callbacks
from headsearch.search.callbacks.broadcast import Broadcast
from headsearch.search.callbacks.tracker import Subject
from headsearch.search.checks import check_candidates, check_experiment, check_grids, check_sets
from headsearch.search.coordinator import Coordinator
from headsearch.search.executors import Executor
from headsearch.search.executors.opening import open_executor
from headsearch.search.funnel import heads_to_screen
from headsearch.search.lease import Lease
from headsearch.search.ledger import Ledger
from headsearch.search.materials import Materials, read_space
from headsearch.search.observer import Observer
from headsearch.search.patience import Patience
from headsearch.search.plan import SearchPlan, plan_search
from headsearch.search.proposer import Proposer
from headsearch.search.rescue import rescued
from headsearch.search.sizing import as_begun, sized_by_time
from headsearch.search.study_writer import make_study
from headsearch.secrecy import kept_out, redacted
from headsearch.space import Space
from headsearch.space.drawing import distinct_heads
from headsearch.training.trial import TrialStage

if TYPE_CHECKING:
    from optuna.storages import BaseStorage


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
    observer = observer or Observer()
    experiment, materials = _prepare(experiment, out, resume=resume, observer=observer)
    return conduct(experiment, materials, out, resume=resume, observer=observer)


def dry_run(
    experiment: Experiment, out: Path, *, resume: bool = False, observer: Observer | None = None
) -> SearchPlan:
    """What `run_search` would do, and about how long it would take. No run is begun; decoded images may go into `data.cache`. Raises `UserError` as `run_search`."""
    experiment, materials = _prepare(experiment, out, resume=resume, observer=observer or Observer())
    if not resume:
        check_candidates(experiment, materials)
    return plan_search(experiment, materials, out)


def _prepare(
    experiment: Experiment, out: Path, *, resume: bool, observer: Observer
) -> tuple[Experiment, Materials]:
    """The experiment with all its sizes, and what it needs, found good. What was understood is told."""
    check_experiment(experiment)
    read = read_space(experiment.search.space)
    space, _ = read
    check_sets(experiment, space)
    check_grids(experiment, space)
    _check_target(experiment, space, out, resume=resume)
    if resume:
        experiment = as_begun(experiment, out)
    if experiment.search.storage is not None:
        # Before the seconds that base and images take.
        close_storage(open_storage(experiment.search.storage))
    materials = gather(experiment, read)
    if isinstance(experiment.search.budget, str):
        sized = sized_by_time(experiment, materials, out if resume else None, observer)
        if sized.data != experiment.data:
            materials = gather(sized, read)
        experiment = sized
    for line in materials.data:
        observer.note(line)
    if materials.base.grid == (1, 1):
        observer.note(
            f"{materials.base.model} ends on a map of 1x1 at {materials.base.image_size} pixels: there is nothing to mix, so families hardly "
            f"differ; take an earlier map (--set base.stage=-2) or larger images"
        )
    return experiment, materials


def gather(experiment: Experiment, space: tuple[Space, str] | None = None) -> Materials:
    """Read the base and the images, and check that the space goes with them, which is read too unless it is given. Imports torch.

    Raises:
        UserError: one line that says what is wrong.
    """
    from headsearch.heads.build import check_guests
    from headsearch.heads.controls import control_heads
    from headsearch.scoring.cost import head_cost
    from headsearch.search.zero_cost import ZeroCostScorer, score_space
    from headsearch.training.evaluator import Evaluator

    search = experiment.search
    parsed, text = space or read_space(search.space)
    evaluate = Evaluator(experiment)
    base = evaluate.inputs.info
    check_guests(parsed.families, base)
    parsed.validate(base, head_cost)
    evaluate.prepare()
    images, _ = evaluate.inputs.images
    heads = control_heads(base)
    screen_bytes = 0.0
    if search.strategy != "proxies":
        batch = min(search.screen.batch, search.screen.heads)
        screen_bytes = evaluate.check_screen(
            distinct_heads(parsed, batch, seed=0, base=base, cost_function=head_cost)
        )

    def score_candidates(
        number: int, path: Path, told: Callable[[int, int], None]
    ) -> Sequence[ZeroCostScores]:
        scorer = ZeroCostScorer(experiment, inputs=evaluate.inputs)
        return score_space(
            parsed,
            scorer,
            number=number,
            seed=experiment.seed,
            sampler=search.candidate_sampler,
            places=search.screen.heads,
            path=path,
            progress=told,
        )

    return Materials(
        space=parsed,
        space_text=text,
        base=base,
        controls={name: heads[name] for name in search.controls},
        evaluate=evaluate,
        cost_function=head_cost,
        anchors={name: heads[name] for name in ("same", "mlp")},
        score_candidates=score_candidates,
        data=tuple(images.told()),
        left_out=images.left_out.listed(),
        seconds_per_proxy=cache(evaluate.seconds_per_proxy),
        train_images=len(images.train),
        screen_bytes=screen_bytes,
        let_go=evaluate.let_go if search.runs_apart else lambda: None,
    )


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
    if not resume:
        check_candidates(experiment, materials)
    watcher = observer or Observer()
    experiment = _without_passwords(experiment, watcher)
    proposer = Proposer(
        materials.space,
        materials.base,
        sampler=experiment.search.sampler,
        seed=experiment.seed,
        objectives=2 if experiment.probes else 1,
        cost_function=materials.cost_function,
    )
    url = experiment.search.storage
    with contextlib.ExitStack() as stack:
        shared = None if url is None else _opened(url, stack)
        if executor is None:
            executor = stack.enter_context(
                open_executor(experiment.search.executor, experiment.proxy.device, out)
            )
        directory = RunDirectory(out) if resume else _create(experiment, materials, out)
        stack.enter_context(directory.lock())
        try:
            watcher = stack.enter_context(_with_callbacks(experiment, directory, watcher))
            storage = shared or _opened(sqlite_url(directory.study_path), stack)
            ledger = _open_ledger(experiment, directory, storage, watcher.note, stack)
        except BaseException:
            # A new run that cannot begin leaves nothing behind.
            if not resume:
                directory.remove()
            raise
        if resume:
            directory.extend(experiment)
        screened = heads_to_screen(experiment, materials, directory.path / FILE_NAME, watcher)
        coordinator = Coordinator(
            experiment, materials, screened, ledger, proposer, directory.trial_folder, watcher
        )
        materials.let_go()
        watcher.search_started(coordinator.status(), resumed=resume)
        with rescued(directory, ledger, storage) if shared is None else contextlib.nullcontext():
            executor.run(coordinator, materials.evaluate)
            ledger.confirm()
        watcher.search_ended(coordinator.status())
        return RunSummary(directory.path, tuple(ledger.records))


def _opened(url: str, stack: contextlib.ExitStack) -> BaseStorage:
    """The storage at a URL, which is closed with the `stack`, however that ends."""
    storage = open_storage(url)
    stack.callback(close_storage, storage)
    return storage


def _without_passwords(experiment: Experiment, watcher: Observer) -> Experiment:
    """The experiment as it may be written down: with passwords in environment variables, which this process has from now on."""
    search = experiment.search
    storage = search.storage and kept_out(search.storage, "HEADSEARCH_STORAGE_PASSWORD")
    if storage != search.storage:
        watcher.note(
            "the password in search.storage is not written into the run directory: rank, status and all else that reads the run "
            "find it in the environment variable HEADSEARCH_STORAGE_PASSWORD"
        )
    callbacks = [
        spec.model_copy(update={"tracking_uri": kept_out(spec.tracking_uri, "HEADSEARCH_MLFLOW_PASSWORD")})
        if isinstance(spec, MlflowSpec) and spec.tracking_uri is not None
        else spec
        for spec in search.callbacks
    ]
    return experiment.model_copy(
        update={"search": search.model_copy(update={"storage": storage, "callbacks": callbacks})}
    )


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
    facts = RunFacts(
        study=study,
        space_hash=materials.space.hash,
        base=materials.base,
        data=materials.data,
        code=experiment.code(),
    )
    return RunDirectory.create(out, experiment, materials.space_text, facts, materials.left_out)


def _with_callbacks(experiment: Experiment, directory: RunDirectory, watcher: Observer) -> Broadcast:
    """The watcher together with the callbacks of the experiment."""
    subject = Subject(
        name=experiment.name,
        key=f"{experiment.name}-{directory.facts().key}",
        folder=directory.path,
        experiment=redacted(experiment.to_yaml()),
    )
    return Broadcast(watcher, build_callbacks(experiment.search.callbacks, subject))


def _open_ledger(
    experiment: Experiment,
    directory: RunDirectory,
    storage: BaseStorage,
    note: Callable[[str], None],
    stack: contextlib.ExitStack,
) -> Ledger:
    """The study of the run, made where it has not begun; nobody else writes it until the `stack` ends."""
    facts, url = directory.facts(), experiment.search.storage
    if not Ledger.exists(storage, facts.study):
        if directory.begun:
            raise RunError(
                f"{directory.path}: its study '{facts.study}' is not in the storage; copy it there, or go on with the former storage"
            )
        make_study(storage, facts.study, labels=experiment.probes, facts=facts.to_dict())
    patience = Patience(experiment.search.storage_patience, note)
    lease = Lease(storage, facts.study, directory.study_path if url is None else None, patience)
    stack.enter_context(lease.held(shared=url is not None, note=note))
    valued: TrialStage = "screen" if experiment.search.strategy == "screen" else "proxy"
    return Ledger(
        storage, facts.study, labels=experiment.probes, valued=valued, patience=patience, lease=lease
    )
